"""Carry an operator catalog and every image it needs across an air gap, digests unchanged."""

__version__ = "0.1.0"
