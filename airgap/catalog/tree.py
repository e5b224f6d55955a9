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
    from collections.abc import Iterable, Iterator, Mapping, Sequence
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

        The pieces are there until the next file is asked for; where one cannot be read they
        raise Closed. A file at several of the paths comes once, under the first of them.
        """


class Closed(UsageError):
    """A file or directory that the operating system does not let be read, and ``why``."""

    def __init__(self, location: Path, why: str) -> None:
        super().__init__(f"{printable(str(location))}: {why}")
        self.why = why


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
    """A ``Listing`` of a directory on the local disk.

    Among the ``files`` are those that cannot be read, and directories that cannot be looked
    into, all without size and content; ``closed`` says why.
    """

    files: tuple[StoredFile, ...]
    links: tuple[str, ...]
    closed: Mapping[str, Closed]


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

    A directory or file that is asked for by name and cannot be read raises Closed.
    """

    top: Path

    def files(self) -> Iterator[StoredFile]:
        """Give the regular files that can be read, depth first, names sorted bytewise."""
        listing = self.listing("")
        if listing:
            yield from (file for file in listing.files if file.path not in listing.closed)

    def first_closed(self) -> Closed | None:
        """Return why the first of what cannot be read cannot be; None when all can."""
        listing = self.listing("")
        return next(iter(listing.closed.values()), None) if listing else None

    def find(self, path: str) -> StoredFile | None:
        """Return the regular file at a path; None when there is none."""
        location = self.top / path
        with _reading(location):
            return _Below(path, LocalFile.at(location)) if location.is_file() else None

    def listing(self, directory: str) -> LocalListing | None:
        """Say what is in a directory; None when there is no such directory."""
        top = self.top / directory
        with _reading(top):
            if not top.is_dir():
                return None
            waiting = _inside(top)
        files: list[StoredFile] = []
        links = []
        closed = {}
        while waiting:
            location = waiting.pop()
            path = location.relative_to(self.top).as_posix()
            try:
                with _reading(location):
                    if location.is_file():
                        files.append(_Below(path, LocalFile.at(location)))
                    elif location.is_symlink():
                        links.append(path)
                    elif location.is_dir():
                        waiting += _inside(location)
            except Closed as error:
                files.append(_Below(path, LocalFile(location, 0, b"")))
                closed[path] = error
        return LocalListing(tuple(files), tuple(links), closed)

    def read_all(self, paths: Iterable[str]) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Give files with their content in pieces, of which the first may raise Closed."""
        seen = set()
        for path in paths:
            location = self.top / path
            identity = _identity(location)
            if identity not in seen:
                yield path, _pieces(location)
            if identity is not None:
                seen.add(identity)


@contextmanager
def _reading(location: Path) -> Iterator[None]:
    """Turn an OSError inside the block into the error that names the file."""
    try:
        yield
    except OSError as error:
        raise Closed(location, error.strerror or str(error)) from error


def _inside(directory: Path) -> list[Path]:
    """Return what is in a directory, the last name first."""
    return sorted(directory.iterdir(), key=os.fsencode, reverse=True)


def _identity(location: Path) -> tuple[int, int] | None:
    """Say which file it is, whatever its name; None when nobody may look."""
    try:
        status = location.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _pieces(location: Path) -> Iterator[bytes]:
    with _reading(location), location.open("rb") as file:
        yield from iter(lambda: file.read(limits.CHUNK), b"")
