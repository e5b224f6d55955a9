"""An archive compressed with zstd so that it can still be read at any place.

Frames one after the other, and at the end a table of all. Here every entry of the tar begins a
frame, which holds its header alone; so headers are quickly read, and a damaged frame costs one
entry. The table is held against what the frames say of themselves: where it is wrong they are
believed, if they are sound; where it is missing, because the file is cut or still grows, they
are found by their headers. Knows frames and bytes, and of a tar only where its entries begin.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

import zstandard

from airgap import limits
from airgap.archive import tar
from airgap.archive.frames import (
    CHECKSUM,
    FRAME,
    LONGEST_HEADER,
    MAGIC,
    TABLE_DAMAGED,
    Frame,
    Frames,
    content_of,
    content_size,
    listed,
    measured,
)
from airgap.errors import ArchiveError
from airgap.storage import read_at, storage_errors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airgap.archive.forward import Output
    from airgap.digest import Bytes

WRITTEN = 4 * limits.MIB
"""Bytes of content in one frame: whoever reads many blobs at once needs as much memory for each."""

LEVEL = 3
FASTEST = -7
"""Levels of compression: the usual one, and that of what is compressed already."""

_COMPRESSED = (b"\x1f\x8b", MAGIC, b"\xfd7zXZ", b"BZh")
_READ = 128 * limits.KIB


class SeekableOutput:
    """What an archive is compressed by, frame by frame, on its way to another output."""

    def __init__(self, output: Output, frames: Frames | None = None, *, level: int = LEVEL) -> None:
        """Go on behind the ``frames`` that the output has already."""
        self._output = output
        self._frames = frames or Frames()
        self._level = level
        self._entry_level = level
        self._buffer = bytearray()
        self._room = WRITTEN
        self._begins_content = False

    def begin(self) -> None:
        """Begin an entry with the next byte: its header has a frame. Raises StorageError."""
        self._flush()
        self._room = tar.BLOCK

    def write(self, data: Bytes) -> None:
        """Take the next bytes. Raises StorageError."""
        view = memoryview(data)
        while view:
            part = view[: self._room - len(self._buffer)]
            self._buffer += part
            view = view[len(part) :]
            if len(self._buffer) == self._room:
                self._flush()

    def finish(self) -> None:
        """Write the last frame and the table of all. Raises StorageError."""
        self._flush()
        self._output.write(self._frames.table())
        self._output.finish()

    def _flush(self) -> None:
        if not self._buffer:
            return
        is_header = self._room == tar.BLOCK
        if self._begins_content:
            is_compressed = self._buffer.startswith(_COMPRESSED)
            self._entry_level = FASTEST if is_compressed else self._level
        level = self._level if is_header else self._entry_level
        compressor = zstandard.ZstdCompressor(level=level, write_checksum=True)
        frame = compressor.compress(bytes(self._buffer))
        self._output.write(frame)
        self._frames.add(Frame(len(frame), len(self._buffer), frame[-CHECKSUM:]))
        self._begins_content = is_header
        self._room = WRITTEN
        self._buffer.clear()


class SeekableFile:
    """The content of a compressed file, read at any place; ``size`` is that of the content."""

    def __init__(self, path: Path, descriptor: int) -> None:
        """Find the frames of an open file, which is closed with this.

        Raises ArchiveError when they cannot be found, StorageError.
        """
        self._path = path
        self._descriptor = descriptor
        with storage_errors(path):
            status = os.fstat(descriptor)
            self.inode = status.st_dev, status.st_ino
            self._read = partial(read_at, descriptor)
            told = listed(self._read, status.st_size)
            self.frames = self._walked() if told is None else self._corrected(told)
        self._table_is_right = told is not None and list(told) == list(self.frames)

    @property
    def size(self) -> int:
        """How many bytes of content there are."""
        return self.frames.size

    @property
    def problem(self) -> str:
        """What is wrong with the file as a whole, "" for nothing."""
        return "" if self._table_is_right else TABLE_DAMAGED

    def read(self, offset: int, size: int) -> bytes:
        """Return the content at ``offset``, fewer where it ends or is damaged. StorageError."""
        return b"".join(self.pieces(offset, size))

    def pieces(self, offset: int, size: int) -> Iterator[bytes]:
        """Yield the content at ``offset``, fewer where it ends or is damaged. StorageError."""
        end = offset + size
        for begin, stop, start in self.frames.at(offset) if size > 0 else ():
            if start >= end:
                return
            position = start
            try:
                for piece in self._decompressed(begin, stop, end - start):
                    wanted = piece[max(offset - position, 0) : end - position]
                    position += len(piece)
                    if wanted:
                        yield wanted
            except zstandard.ZstdError:
                # Whoever hashes it finds too little.
                return

    def close(self) -> None:
        """Close the file; once more changes nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _decompressed(self, begin: int, stop: int, enough: int) -> Iterator[bytes]:
        """Yield a frame's content, and no more than a chunk beyond what is enough."""
        decompressor = zstandard.ZstdDecompressor(max_window_size=FRAME).decompressobj()
        given = 0
        while begin < stop and given < enough:
            with storage_errors(self._path):
                raw = self._read(min(_READ, stop - begin), begin)
            if not raw:
                return
            begin += len(raw)
            piece = decompressor.decompress(raw)
            given += len(piece)
            yield piece

    def _corrected(self, told: Frames) -> Frames:
        """Return the frames as they are, where they are not what the table says.

        One look at each is all that it takes, but for those of which either is wrong.
        """
        frames, start = Frames(), self._read(LONGEST_HEADER, 0)
        for frame in told:
            begin, end = frames.end, frames.end + frame.compressed
            around = self._read(CHECKSUM + LONGEST_HEADER, max(end - CHECKSUM, begin))
            says = Frame(frame.compressed, content_size(start) or 0, around[:CHECKSUM])
            if says != frame and self._is_sound(begin, frame.compressed):
                frame = says
            frames.add(frame)
            start = around[CHECKSUM:]
        return frames

    def _is_sound(self, begin: int, compressed: int) -> bool:
        frame = measured(self._read, begin)
        is_so_long = frame is not None and frame.compressed == compressed
        return is_so_long and content_of(self._read(compressed, begin)) is not None

    def _walked(self) -> Frames:
        """Find frames by their headers, as far as they are whole."""
        frames = Frames()
        while frame := measured(self._read, frames.end):
            frames.add(frame)
        if not frames.end and content_size(self._read(LONGEST_HEADER, 0)) == 0:
            raise ArchiveError(
                f"{self._path}: is compressed, and not in the way that airgap does it",
                hint=f"Give it as a stream: zstd -dc {self._path} | airgap import - DEST",
            )
        return frames


def frames_of(path: Path) -> Frames:
    """Return the frames of a file, as far as they are whole. Raises ArchiveError, StorageError."""
    with storage_errors(path):
        stored = SeekableFile(path, os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    stored.close()
    return stored.frames
