"""Registries: reading from them and writing to them over HTTP, and serving as one."""
