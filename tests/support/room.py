"""Lanes that never change, for what works in them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Room:
    """So many at once, in every lane."""

    most: int = 4

    def admits(self, lane: str, running: int) -> bool:
        return running < self.most
