"""Operator catalogs: OLM's formats, found and read in a tree of files."""
