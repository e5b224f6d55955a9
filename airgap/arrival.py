"""How content came to be where it is wanted: the word that destinations answer with."""

from __future__ import annotations

from enum import StrEnum


class Arrival(StrEnum):
    """How a blob came to be at its place."""

    SENT = "sent"
    MOUNTED = "mounted"
    PRESENT = "present"
