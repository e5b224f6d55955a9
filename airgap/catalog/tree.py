"""What a catalog is read from: files that know their path, wherever they are.

The files inside an image's layers fit these protocols without knowing them.
"""

from __future__ import annotations

import shutil
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

from airgap.errors import UsageError, printable

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_MAGIC = 16


class StoredFile(Protocol):
    """A regular file that can be read as often as needed."""

    @property
    def path(self) -> str:
        """Where it is: in a tree, relative to its top."""

    @property
    def size(self) -> int:
        """How many bytes it has."""

    @property
    def magic(self) -> bytes:
        """Its first 16 bytes, or all of a shorter one."""

    def copy_to(self, target: BinaryIO) -> None:
        """Write its content."""


class Tree(Protocol):
    """Regular files at paths."""

    def files(self) -> Iterable[StoredFile]:
        """Give all of them, depth first, the names in a directory sorted bytewise."""

    def find(self, path: str) -> StoredFile | None:
        """Return the one at a path, links followed; None when there is none."""


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A ``StoredFile`` on the local disk."""

    location: Path
    size: int
    magic: bytes

    @classmethod
    def at(cls, location: Path) -> LocalFile:
        """Look at a file. Raises UsageError when it is none, or cannot be read."""
        try:
            status = location.stat()
            if not stat.S_ISREG(status.st_mode):
                raise UsageError(f"{printable(str(location))}: not a regular file")
            with location.open("rb") as file:
                return cls(location, status.st_size, file.read(_MAGIC))
        except OSError as error:
            raise UsageError(f"{printable(str(location))}: {error.strerror}") from error

    @property
    def path(self) -> str:
        """The path as it was given."""
        return str(self.location)

    def copy_to(self, target: BinaryIO) -> None:
        """Write the content."""
        with self.location.open("rb") as file:
            shutil.copyfileobj(file, target)
