"""One file of an archive open for reading: what it says it is, and its bytes at any place.

Knows the first entries that every volume begins with, and nothing of a plan. What a file says
of itself may be damaged or a lie: it serves to put files together, never to believe content.
"""

from __future__ import annotations

import os
import stat
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, Self

from airgap import limits
from airgap.archive import record, tar
from airgap.archive.frames import MAGIC
from airgap.archive.layout import INVENTORY_NAME, INVENTORY_OFFSET, LAYOUT, LAYOUT_NAME
from airgap.archive.seekable import SeekableFile
from airgap.digest import Digest, Hasher
from airgap.errors import ArchiveError, UsageError
from airgap.storage import pieces_at, read_at, storage_errors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airgap.archive.record import Record

_COPY_AGAIN = "Copy the archive again, and check the copy with `airgap verify`."


class Stored(Protocol):
    """Bytes that can be read at any place."""

    @property
    def size(self) -> int:
        """How many there are."""

    @property
    def inode(self) -> tuple[int, int]:
        """What tells the file that they are in from any other, under whatever name."""

    @property
    def problem(self) -> str:
        """What is wrong with them as a whole, "" for nothing."""

    def read(self, offset: int, size: int) -> bytes:
        """Return the bytes at ``offset``, fewer where they end. Raises StorageError."""

    def pieces(self, offset: int, size: int) -> Iterator[bytes]:
        """Yield the bytes at ``offset`` in chunks, fewer where they end. Raises StorageError."""

    def close(self) -> None:
        """Let go of them; once more changes nothing."""


class ArchiveFile:
    """A file that begins like an archive's; ``size`` is in bytes."""

    def __init__(self, path: Path, stored: Stored | None = None) -> None:
        """Open a file; ``stored`` is its content where that is not simply at ``path``.

        Raises FileNotFoundError, UsageError when it is no file, ArchiveError when it does not
        begin like an archive's, StorageError.
        """
        self.path = path
        self._stored = stored or _stored(path)
        try:
            self.inventory_size = self._read_start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return self._stored.size

    @property
    def inode(self) -> tuple[int, int]:
        """What tells the file from any other that is there, under whatever name."""
        return self._stored.inode

    @property
    def problem(self) -> str:
        """What is wrong with the file as a whole, "" for nothing."""
        return self._stored.problem

    def close(self) -> None:
        """Let go of the file, so that its medium can be taken out."""
        self._stored.close()

    def at(self, offset: int, size: int) -> bytes:
        """Return the bytes at ``offset``, fewer where the file ends. Raises StorageError."""
        return self._stored.read(offset, size)

    def pieces(self, offset: int, size: int) -> Iterator[bytes]:
        """Yield the bytes at ``offset`` in chunks, fewer where the file ends. StorageError."""
        yield from self._stored.pieces(offset, size)

    def lines(self) -> Iterator[bytes]:
        """Yield the inventory's lines, never holding more than one and a chunk.

        Raises ValueError for one that does not end.
        """
        rest = b""
        for piece in self.pieces(INVENTORY_OFFSET, self.inventory_size):
            *whole, rest = (rest + piece).split(b"\n")
            if len(rest) > limits.INVENTORY_LINE:
                raise ValueError("a line without an end")
            yield from (line + b"\n" for line in whole)
        if rest:
            yield rest

    @cached_property
    def id(self) -> Digest:
        """The digest of the inventory, which is the archive's id."""
        hasher = Hasher()
        for piece in self.pieces(INVENTORY_OFFSET, self.inventory_size):
            hasher.update(piece)
        return hasher.digest()

    @cached_property
    def record(self) -> Record | None:
        """What a volume says of itself; None where there is nothing, or nothing legible."""
        return record.parse(self.at(self.record_offset + tar.BLOCK, record.RECORD_SIZE))

    @cached_property
    def number(self) -> int | None:
        """Which volume this is; None for a whole archive.

        The name of its record says so, which a checksum guards, or else the record.
        """
        named = record.number_in(self.at(self.record_offset, tar.BLOCK))
        return named or (self.record.volume if self.record else None)

    @property
    def is_cut_in_the_head(self) -> bool:
        """Say whether the file ends where no archive does, before it tells which volume it is."""
        return self.size < self.record_offset + tar.BLOCK

    @property
    def record_offset(self) -> int:
        """Where a volume has its record, and an archive of one file its index."""
        after_inventory = INVENTORY_OFFSET + tar.padded(self.inventory_size)
        return after_inventory + tar.BLOCK + limits.SIGNATURE

    def _read_start(self) -> int:
        """Return the size of the inventory. Raises ArchiveError."""
        start = self.at(0, INVENTORY_OFFSET)
        size = tar.size_in(start[-tar.BLOCK :])
        begins_well = start.startswith(tar.header(LAYOUT_NAME, len(LAYOUT)) + LAYOUT)
        if not begins_well and not _is_inventory(start[-tar.BLOCK :]):
            what = "not an airgap archive" + ("" if start else ", but an empty file")
            raise ArchiveError(
                f"{self.path}: {what}", hint="It is what `airgap export` wrote to -o FILE."
            )
        sized = len(start) == INVENTORY_OFFSET and 0 < size <= limits.INVENTORY
        if not begins_well or not sized:
            raise ArchiveError(
                f"{self.path}: the archive is cut short or its first blocks are damaged",
                hint=_COPY_AGAIN,
            )
        if start[-tar.BLOCK :] != tar.header(INVENTORY_NAME, size):
            raise ArchiveError(
                f"{self.path}: the header of the inventory is damaged", hint=_COPY_AGAIN
            )
        return size


def is_archive(path: Path) -> bool:
    """Say whether a file begins like an archive, or would if its very first block were sound.

    Raises StorageError when it cannot be read.
    """
    with storage_errors(path), path.open("rb") as file:
        start = file.read(INVENTORY_OFFSET)
    if start.startswith(MAGIC):
        stored = _stored(path)
        try:
            start = stored.read(0, INVENTORY_OFFSET)
        finally:
            stored.close()
    mark = LAYOUT_NAME.encode() + b"\0"
    return start.startswith(mark) or _is_inventory(start[INVENTORY_OFFSET - tar.BLOCK :])


def _is_inventory(header: bytes) -> bool:
    return header.startswith(INVENTORY_NAME.encode() + b"\0")


def _stored(path: Path) -> Stored:
    """Open a file, plain or compressed. Raises as ``ArchiveFile``."""
    descriptor = _open(path)
    try:
        with storage_errors(path):
            is_compressed = read_at(descriptor, len(MAGIC), 0) == MAGIC
        return (SeekableFile if is_compressed else _OnDisk)(path, descriptor)
    except BaseException:
        os.close(descriptor)
        raise


class _OnDisk:
    problem = ""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        status = os.fstat(descriptor)
        self.size, self.inode = status.st_size, (status.st_dev, status.st_ino)

    def read(self, offset: int, size: int) -> bytes:
        with storage_errors(self._path):
            return read_at(self._descriptor, size, offset)

    def pieces(self, offset: int, size: int) -> Iterator[bytes]:
        with storage_errors(self._path):
            yield from pieces_at(self._descriptor, size, offset)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _open(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError:
        with storage_errors(path):
            raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UsageError(f"{path}: not a file")
    return descriptor
