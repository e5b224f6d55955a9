"""Frames of zstd's seekable format: where each is, what it says of itself, the table of all.

Follows contrib/seekable_format for the table, and RFC 8878 (3.1.1) for the headers of frames
and blocks. Knows bytes by their offsets alone, and refuses to know where those are kept.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple

import zstandard

from airgap import limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAGIC = b"\x28\xb5\x2f\xfd"
"""What every frame begins with."""

FRAME = 16 * limits.MIB
"""Bytes of content in one frame at most."""

LONGEST_HEADER = 18
CHECKSUM = 4
"""Bytes at the beginning of a frame, at most, and at its end, that are no content."""

TABLE_DAMAGED = "the table of frames at the end is damaged or missing"

_TABLE_MAGIC, _TABLE_END = 0x184D2A5E, 0x8F92EAB1
_TABLE_HEADER, _TABLE_ENTRY, _TABLE_FOOTER = (struct.Struct(f) for f in ("<II", "<III", "<IBI"))
_WITH_CHECKSUMS = 0x80
_MOST_FRAMES = 1 << 24
_LONGEST_FRAME = FRAME + limits.MIB
_REPEATED, _RESERVED = 1, 3


class Frame(NamedTuple):
    """A frame's bytes as they stand, those of its content, and the checksum that ends it."""

    compressed: int
    size: int
    checksum: bytes


class Frames:
    """Where frames are: ``end`` is where the last one ends, ``size`` the bytes of content."""

    def __init__(self) -> None:
        self.begins: list[int] = []
        self.starts: list[int] = []
        self.end = self.size = 0
        self._frames: list[Frame] = []

    def __iter__(self) -> Iterator[Frame]:
        return iter(self._frames)

    def add(self, frame: Frame) -> None:
        """Take note of the next frame."""
        self.begins.append(self.end)
        self.starts.append(self.size)
        self._frames.append(frame)
        self.end += frame.compressed
        self.size += frame.size

    def until(self, position: int) -> Frames:
        """Return those whose content ends at or before a position."""
        kept = Frames()
        for start, frame in zip(self.starts, self._frames, strict=True):
            if start + frame.size > position:
                break
            kept.add(frame)
        return kept

    def at(self, position: int) -> Iterator[tuple[int, int, int]]:
        """Yield where frames begin and end, and the start of their content, from a position on."""
        first = max(bisect_right(self.starts, position) - 1, 0)
        for begin, start, frame in zip(
            self.begins[first:], self.starts[first:], self._frames[first:], strict=True
        ):
            yield begin, begin + frame.compressed, start

    def table(self) -> bytes:
        """Return the skippable frame that lists them."""
        entries = b"".join(
            _TABLE_ENTRY.pack(compressed, size, int.from_bytes(checksum, "little"))
            for compressed, size, checksum in self._frames
        )
        footer = _TABLE_FOOTER.pack(len(self._frames), _WITH_CHECKSUMS, _TABLE_END)
        return _TABLE_HEADER.pack(_TABLE_MAGIC, len(entries) + len(footer)) + entries + footer


def listed(read: Callable[[int, int], bytes], length: int) -> Frames | None:
    """Read the table at the end of so many bytes; None for none, or one that cannot be true.

    ``read(size, offset)`` gives bytes, fewer where they end, here as below.
    """
    tail = read(_TABLE_FOOTER.size, max(length - _TABLE_FOOTER.size, 0))
    if len(tail) < _TABLE_FOOTER.size:
        return None
    count, descriptor, magic = _TABLE_FOOTER.unpack(tail)
    if magic != _TABLE_END or descriptor != _WITH_CHECKSUMS or count > _MOST_FRAMES:
        return None
    size = _TABLE_HEADER.size + count * _TABLE_ENTRY.size + _TABLE_FOOTER.size
    table = read(size, length - size) if size <= length else b""
    frames = Frames()
    for record in range(count if table else 0):
        place = _TABLE_HEADER.size + record * _TABLE_ENTRY.size
        compressed, content, checksum = _TABLE_ENTRY.unpack_from(table, place)
        frames.add(Frame(compressed, content, checksum.to_bytes(CHECKSUM, "little")))
    return frames if table == frames.table() and frames.end == length - size else None


def content_size(start: bytes) -> int | None:
    """Return how much content a frame says it has, by its first bytes; None where none begins.

    0 stands for a frame that says so in no way that an archive's do.
    """
    if not start.startswith(MAGIC):
        return None
    try:
        stated = zstandard.get_frame_parameters(start)
    except zstandard.ZstdError:
        return None
    is_ours = stated.has_checksum and stated.content_size <= FRAME
    return stated.content_size if is_ours else 0


def measured(read: Callable[[int, int], bytes], begin: int) -> Frame | None:
    """Measure the frame at an offset by the headers of its blocks; None where no whole one is."""
    start = read(LONGEST_HEADER, begin)
    size = content_size(start)
    if not size:
        return None
    position = begin + zstandard.frame_header_size(start)
    is_last = False
    while not is_last:
        header = read(3, position)
        packed = int.from_bytes(header, "little")
        is_last, kind, length = bool(packed & 1), packed >> 1 & 3, packed >> 3
        position += 3 + (1 if kind == _REPEATED else length)
        if len(header) < 3 or kind == _RESERVED or position - begin > _LONGEST_FRAME:
            return None
    checksum = read(CHECKSUM, position)
    if len(checksum) < CHECKSUM:
        return None
    return Frame(position + CHECKSUM - begin, size, checksum)


def content_of(raw: bytes) -> bytes | None:
    """Return the content of a whole frame; None when it is damaged, or holds too much."""
    if not content_size(raw[:LONGEST_HEADER]):
        return None
    try:
        return zstandard.ZstdDecompressor(max_window_size=FRAME).decompress(raw)
    except zstandard.ZstdError:
        return None
