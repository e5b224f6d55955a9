"""The content of a compressed archive that passes once, frame by frame.

Each frame is taken whole, and only when it is sound. Behind one that is not, the next that is
goes on: every entry of an archive begins a frame, and all frames hold whole blocks of a tar, so
whoever looks for the next entry finds it. Knows frames, and of a tar only how long a block is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from airgap import limits
from airgap.archive import tar
from airgap.archive.frames import (
    LONGEST_HEADER,
    MAGIC,
    TABLE_DAMAGED,
    Frame,
    Frames,
    content_of,
    content_size,
    measured,
)

if TYPE_CHECKING:
    from collections.abc import Callable


class Coming(Protocol):
    """Bytes that come, one piece after the other."""

    @property
    def problem(self) -> str:
        """What is wrong with them as a whole, once they are over; "" for nothing."""

    def next(self) -> bytes:
        """Return the next piece, b"" at the end or before damage. StorageError, Interrupted."""

    def go_on(self) -> bool:
        """Go on behind damage; False where there is none, or nothing sound behind it."""


class Unpacking:
    """What is in frames that come, the first of which is begun by ``start``."""

    def __init__(self, packed: Callable[[], bytes], start: bytes) -> None:
        self._packed = packed
        self._held = bytearray(start)
        self._frames = Frames()
        self._is_lost = False
        self._has_lost = False
        self._has_table = False
        self._has_more = False

    @property
    def is_ours(self) -> bool:
        """Say whether the first frame is one that an archive begins with."""
        return content_size(self._read(LONGEST_HEADER, 0)) != 0

    @property
    def problem(self) -> str:
        """What is wrong with the end; "" for nothing, and where frames were lost before it."""
        if self._has_more:
            return "there is something behind the table of frames"
        return "" if self._has_table or self._has_lost else TABLE_DAMAGED

    def next(self) -> bytes:
        """Return the content of the next frame; b"" at the end, or when it is damaged."""
        found = None if self._is_lost else self._sound_at(0)
        if found is None:
            self._is_lost = True
            return b""
        frame, content = found
        self._frames.add(frame)
        del self._held[: frame.compressed]
        return content

    def go_on(self) -> bool:
        """Look for the next sound frame where there was none; False at the table, or the end."""
        if not self._is_lost or self._takes_table():
            return False
        while self._read(len(MAGIC), 1):
            begin = self._held.find(MAGIC, 1)
            # What is held may end in the middle of a frame's beginning.
            del self._held[: begin if begin > 0 else max(len(self._held) - len(MAGIC), 1)]
            if begin > 0 and self._sound_at(0):
                self._is_lost, self._has_lost = False, True
                return True
        return False

    def _takes_table(self) -> bool:
        """Take the table of all frames, if it comes now; only zeros may follow it."""
        table = self._frames.table()
        if self._read(len(table), 0) != table:
            return False
        self._has_table = True
        del self._held[: len(table)]
        while rest := self._read(limits.CHUNK, 0):
            self._has_more = self._has_more or bool(rest.strip(b"\0"))
            del self._held[: len(rest)]
        return True

    def _sound_at(self, offset: int) -> tuple[Frame, bytes] | None:
        frame = measured(self._read, offset)
        if frame is None:
            return None
        content = content_of(self._read(frame.compressed, offset))
        return None if content is None or len(content) % tar.BLOCK else (frame, content)

    def _read(self, size: int, offset: int) -> bytes:
        """Return bytes that have not been taken yet, fewer where they end."""
        while len(self._held) < offset + size and (more := self._packed()):
            self._held += more
        return bytes(self._held[offset : offset + size])
