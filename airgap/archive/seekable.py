"""An archive compressed with zstd so that it can still be read at any place.

Follows zstd's seekable format (contrib/seekable_format): frames one after the other, and at the
end a skippable frame with the sizes of all. Here every entry of the tar begins a frame, which
holds its header alone; so headers are quickly read, and a damaged frame costs one entry. Where
the table is missing, because the file is cut or still grows, the frames are found by their
block headers (RFC 8878, 3.1.1). Knows frames and bytes, and of a tar only where its entries
begin.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_right
from typing import TYPE_CHECKING

import zstandard

from airgap import limits
from airgap.archive import tar
from airgap.errors import ArchiveError
from airgap.storage import read_at, storage_errors, write_at

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airgap.digest import Bytes

MAGIC = b"\x28\xb5\x2f\xfd"
"""What every frame begins with."""

FRAME = 16 * limits.MIB
"""Bytes of content in one frame at most."""

WRITTEN = 4 * limits.MIB
"""What is put in one: whoever reads many blobs at once needs as much memory for each."""

LEVEL = 3
FASTEST = -7
"""Levels of compression: the usual one, and that of what is compressed already."""

_COMPRESSED = (b"\x1f\x8b", MAGIC, b"\xfd7zXZ", b"BZh")

_TABLE_MAGIC, _TABLE_END = 0x184D2A5E, 0x8F92EAB1
_TABLE_HEADER, _TABLE_ENTRY, _TABLE_FOOTER = (struct.Struct(f) for f in ("<II", "<III", "<IBI"))
_WITH_CHECKSUMS = 0x80
_CHECKSUM = 4
_MOST_FRAMES = 1 << 24
_LONGEST_HEADER = 18
_REPEATED, _RESERVED = 1, 3
_READ = 128 * limits.KIB


class SeekableOutput:
    """A file that a compressed archive is appended to, frame by frame."""

    def __init__(self, path: Path, frames: Frames | None = None, *, level: int = LEVEL) -> None:
        """Open a file, empty or cut to the ``frames`` that are whole. Raises StorageError."""
        self.path = path
        self._frames = frames or Frames()
        self._level = level
        self._entry_level = level
        self._buffer = bytearray()
        self._room = WRITTEN
        self._begins_content = False
        with storage_errors(path):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            os.ftruncate(self._descriptor, self._frames.end)

    def close(self) -> None:
        """Close the file; what is not a whole frame yet is lost."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

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
        with storage_errors(self.path):
            write_at(self._descriptor, self._frames.table(), self._frames.end)
            os.fsync(self._descriptor)

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
        with storage_errors(self.path):
            write_at(self._descriptor, frame, self._frames.end)
        self._frames.add(len(frame), len(self._buffer), frame[-_CHECKSUM:])
        self._begins_content = is_header
        self._room = WRITTEN
        self._buffer.clear()


class Frames:
    """Where frames are: ``end`` is where the last one ends, ``size`` the bytes of content."""

    def __init__(self) -> None:
        self.begins: list[int] = []
        self.starts: list[int] = []
        self.end = self.size = 0
        self._records: list[tuple[int, int, bytes]] = []

    def add(self, compressed: int, size: int, checksum: bytes) -> None:
        """Take note of the next frame."""
        self.begins.append(self.end)
        self.starts.append(self.size)
        self._records.append((compressed, size, checksum))
        self.end += compressed
        self.size += size

    def until(self, position: int) -> Frames:
        """Return those whose content ends at or before a position."""
        kept = Frames()
        for start, record in zip(self.starts, self._records, strict=True):
            if start + record[1] > position:
                break
            kept.add(*record)
        return kept

    def table(self) -> bytes:
        """Return the skippable frame that lists them."""
        entries = b"".join(
            _TABLE_ENTRY.pack(compressed, size, int.from_bytes(checksum, "little"))
            for compressed, size, checksum in self._records
        )
        footer = _TABLE_FOOTER.pack(len(self._records), _WITH_CHECKSUMS, _TABLE_END)
        return _TABLE_HEADER.pack(_TABLE_MAGIC, len(entries) + len(footer)) + entries + footer

    def at(self, position: int) -> Iterator[tuple[int, int, int]]:
        """Yield where frames begin and end, and the start of their content, from a position on."""
        first = max(bisect_right(self.starts, position) - 1, 0)
        for begin, start, record in zip(
            self.begins[first:], self.starts[first:], self._records[first:], strict=True
        ):
            yield begin, begin + record[0], start


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
            length, self.inode = status.st_size, (status.st_dev, status.st_ino)
            listed = self._listed(length)
            self._has_table = listed is not None
            self.frames = listed or self._walked(length)

    @property
    def size(self) -> int:
        """How many bytes of content there are."""
        return self.frames.size

    @property
    def problem(self) -> str:
        """What is wrong with the file as a whole, "" for nothing."""
        return "" if self._has_table else "the table of frames at the end is damaged or missing"

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
                raw = read_at(self._descriptor, min(_READ, stop - begin), begin)
            if not raw:
                return
            begin += len(raw)
            piece = decompressor.decompress(raw)
            given += len(piece)
            yield piece

    def _listed(self, length: int) -> Frames | None:
        """Read the table at the end; None where there is none, or one that cannot be true."""
        tail = read_at(self._descriptor, _TABLE_FOOTER.size, max(length - _TABLE_FOOTER.size, 0))
        if len(tail) < _TABLE_FOOTER.size:
            return None
        count, descriptor, magic = _TABLE_FOOTER.unpack(tail)
        if magic != _TABLE_END or descriptor != _WITH_CHECKSUMS or count > _MOST_FRAMES:
            return None
        size = _TABLE_HEADER.size + count * _TABLE_ENTRY.size + _TABLE_FOOTER.size
        table = read_at(self._descriptor, size, length - size) if size <= length else b""
        frames = Frames()
        for record in range(count if table else 0):
            place = _TABLE_HEADER.size + record * _TABLE_ENTRY.size
            compressed, content, checksum = _TABLE_ENTRY.unpack_from(table, place)
            if content > FRAME:
                return None
            frames.add(compressed, content, checksum.to_bytes(_CHECKSUM, "little"))
        return frames if table == frames.table() and frames.end == length - size else None

    def _walked(self, length: int) -> Frames:
        """Find frames by their headers, as far as they are whole."""
        frames = Frames()
        while frame := self._frame_at(frames.end, length):
            frames.add(*frame)
        return frames

    def _frame_at(self, begin: int, length: int) -> tuple[int, int, bytes] | None:
        start = read_at(self._descriptor, _LONGEST_HEADER, begin)
        if not start.startswith(MAGIC):
            return None
        try:
            parameters = zstandard.get_frame_parameters(start)
            position = begin + zstandard.frame_header_size(start)
        except zstandard.ZstdError:
            return None
        if not (0 < parameters.content_size <= FRAME and parameters.has_checksum):
            raise ArchiveError(
                f"{self._path}: is compressed, and not in the way that airgap does it",
                hint=f"Give it as a stream: zstd -dc {self._path} | airgap import - DEST",
            )
        is_last = False
        while not is_last:
            header = int.from_bytes(read_at(self._descriptor, 3, position), "little")
            is_last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
            position += 3 + (1 if kind == _REPEATED else size)
            if position > length or kind == _RESERVED:
                return None
        end = position + _CHECKSUM
        checksum = read_at(self._descriptor, _CHECKSUM, position)
        return (end - begin, parameters.content_size, checksum) if end <= length else None


def frames_of(path: Path) -> Frames:
    """Return the frames of a file, as far as they are whole. Raises ArchiveError, StorageError."""
    with storage_errors(path):
        stored = SeekableFile(path, os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    stored.close()
    return stored.frames
