"""The archive: one tar that holds a plan and its content (docs/reference/archive-format.md)."""
