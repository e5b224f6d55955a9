"""What a catalog is read from: files that know their path, wherever they are.

The files inside an image's layers fit these protocols without knowing them.
"""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

from airgap import limits
from airgap.errors import UsageError, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
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


class Listing(Protocol):
    """What is in a directory and in those below it; paths are relative to the tree's top."""

    @property
    def files(self) -> Sequence[StoredFile]:
        """The regular files, and the symbolic links to one, in the order of a walk."""

    @property
    def links(self) -> Sequence[str]:
        """Where symbolic links to anything else are: to a directory, or to nothing."""


class Tree(Protocol):
    """Regular files at paths."""

    def files(self) -> Iterable[StoredFile]:
        """Give all of them, depth first, the names in a directory sorted bytewise."""

    def find(self, path: str) -> StoredFile | None:
        """Return the one at a path, links followed; None when there is none."""

    def listing(self, directory: str) -> Listing | None:
        """Say what is in a directory, "" for the top; None when there is no such directory."""

    def read_all(self, paths: Iterable[str]) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Give files of a listing with their content in pieces, in one pass, in any order.

        The pieces are there until the next file is asked for. A file at several of the paths
        comes once, under the first of them.
        """


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A ``StoredFile`` on the local disk."""

    location: Path
    size: int
    magic: bytes

    @classmethod
    def at(cls, location: Path) -> LocalFile:
        """Look at a file. Raises UsageError when it is none, or cannot be read."""
        with _reading(location):
            status = location.stat()
            if not stat.S_ISREG(status.st_mode):
                raise UsageError(f"{printable(str(location))}: not a regular file")
            with location.open("rb") as file:
                return cls(location, status.st_size, file.read(_MAGIC))

    @property
    def path(self) -> str:
        """The path as it was given."""
        return str(self.location)

    def copy_to(self, target: BinaryIO) -> None:
        """Write the content."""
        with self.location.open("rb") as file:
            shutil.copyfileobj(file, target)


@dataclass(frozen=True, slots=True)
class LocalListing:
    """A ``Listing`` of a directory on the local disk."""

    files: tuple[StoredFile, ...]
    links: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Below:
    """A local file under the path it has in its tree."""

    path: str
    file: LocalFile

    @property
    def size(self) -> int:
        return self.file.size

    @property
    def magic(self) -> bytes:
        return self.file.magic

    def copy_to(self, target: BinaryIO) -> None:
        self.file.copy_to(target)


@dataclass(frozen=True, slots=True)
class LocalTree:
    """A ``Tree`` that is a directory of the local disk; links may lead out of it.

    Everything raises UsageError for what the operating system does not let be read.
    """

    top: Path

    def files(self) -> Iterator[StoredFile]:
        """Give every regular file, depth first, the names in a directory sorted bytewise."""
        listing = self.listing("")
        yield from listing.files if listing else ()

    def find(self, path: str) -> StoredFile | None:
        """Return the regular file at a path; None when there is none."""
        location = self.top / path
        return _Below(path, LocalFile.at(location)) if location.is_file() else None

    def listing(self, directory: str) -> LocalListing | None:
        """Say what is in a directory; None when there is no such directory."""
        if not (self.top / directory).is_dir():
            return None
        files: list[StoredFile] = []
        links = []
        for location in self._walk(self.top / directory):
            path = location.relative_to(self.top).as_posix()
            if location.is_file():
                files.append(_Below(path, LocalFile.at(location)))
            elif location.is_symlink():
                links.append(path)
        return LocalListing(tuple(files), tuple(links))

    def read_all(self, paths: Iterable[str]) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Give files with their content in pieces."""
        seen = set()
        for path in paths:
            location = self.top / path
            with _reading(location), location.open("rb") as file:
                status = os.fstat(file.fileno())
                identity = status.st_dev, status.st_ino
                if identity not in seen:
                    seen.add(identity)
                    yield path, _pieces(location, file)

    def _walk(self, directory: Path) -> Iterator[Path]:
        """Give what is no directory of its own, depth first."""
        waiting = [directory]
        while waiting:
            location = waiting.pop()
            if location is not directory and (location.is_symlink() or not location.is_dir()):
                yield location
                continue
            with _reading(location):
                inside = sorted(location.iterdir(), key=os.fsencode, reverse=True)
            waiting.extend(inside)


@contextmanager
def _reading(location: Path) -> Iterator[None]:
    """Turn an OSError inside the block into a UsageError that names the file."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{printable(str(location))}: {error.strerror}") from error


def _pieces(location: Path, file: BinaryIO) -> Iterator[bytes]:
    with _reading(location):
        yield from iter(lambda: file.read(limits.CHUNK), b"")
