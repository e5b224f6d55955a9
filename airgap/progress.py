"""How a long operation tells what it does, to whoever wants to know.

Workflows take a ``Progress`` and default to ``SILENT``; only the command line shows one.
This module knows nothing of terminals.
"""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told by workflows and by the transfer, possibly from several threads at once."""

    def stage(self, name: str, *, total_bytes: int = 0, total_images: int = 0) -> None:
        """Begin a stage; totals of 0 mean that they are not known."""

    def advance(self, count: int) -> None:
        """Count bytes moved; negative when a blob starts over."""

    def image(self) -> None:
        """Count one image done."""

    def say(self, message: str) -> None:
        """Tell one line worth reading."""

    def finish(self) -> None:
        """End the last stage."""


class Silent:
    """A ``Progress`` that says nothing."""

    def stage(self, name: str, *, total_bytes: int = 0, total_images: int = 0) -> None:
        """Say nothing."""

    def advance(self, count: int) -> None:
        """Say nothing."""

    def image(self) -> None:
        """Say nothing."""

    def say(self, message: str) -> None:
        """Say nothing."""

    def finish(self) -> None:
        """Say nothing."""


SILENT: Progress = Silent()
