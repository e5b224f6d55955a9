"""An archive written from front to back, to where nothing can be written twice.

A blob's header must say whether the blob is there, and leaves before it. So blobs that arrive
in any order wait in a window, a bounded temporary file, until it is their turn. One that is
larger than the window leaves as it comes; should it fail then, zeros fill its place, and a
reader finds that it is not what it must be. The bytes are those that a file would have.
Knows nothing of where blobs come from.
"""

from __future__ import annotations

import threading
from enum import Enum
from typing import TYPE_CHECKING, Protocol, Self

from airgap import limits
from airgap.archive import tar
from airgap.archive.head import padding_of
from airgap.digest import Check
from airgap.errors import AirgapError, IntegrityError, Interrupted, StorageError
from airgap.storage import Scratch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from airgap.archive.head import Head
    from airgap.archive.layout import Layout
    from airgap.digest import Bytes, Digest
    from airgap.plan import Plan

DEFAULT_WINDOW = limits.GIB
"""Bytes of blobs that wait for their turn at one time."""


class Output(Protocol):
    """Where an archive goes, byte after byte."""

    def begin(self) -> None:
        """Be told that an entry, or the end, begins with the next byte."""

    def write(self, data: Bytes) -> None:
        """Take the next bytes. Raises StorageError."""

    def finish(self) -> None:
        """Be told that this was all. Raises StorageError."""


class ForwardWriter:
    """An archive on its way; ``put`` may be called from several threads.

    ``id``, ``plan`` and ``layout`` are the archive's. Use it in a ``with`` block.
    """

    def __init__(
        self,
        identity: Digest,
        plan: Plan,
        layout: Layout,
        output: Output,
        window: int = DEFAULT_WINDOW,
        *,
        done: int = 0,
        absent: Iterable[int] = (),
    ) -> None:
        """Begin nothing yet. Raises StorageError when there can be no temporary file.

        The first ``done`` blobs have left already, ``absent`` as holes.
        """
        self.id, self.plan, self.layout = identity, plan, layout
        self._output = output
        self._window = _Window(window)
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._failed = False
        self._fates: dict[int, _Fate] = {}
        self._next = self._from(done)
        self._absent = set(absent)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._window.close()

    @property
    def missing(self) -> list[int]:
        """The numbers of the blobs that could not be had, in order."""
        return sorted(self._absent)

    @property
    def next(self) -> int:
        """The number of the blob whose turn it is."""
        return self._next

    def begin(self, head: Head) -> None:
        """Send the head. Raises StorageError."""
        for _, pieces in head.entries():
            self._output.begin()
            for piece in pieces:
                self._output.write(piece)

    def admits(self, number: int) -> bool:
        """Say whether there is room for a blob in the window, or it is its turn."""
        entry = self.layout.blob(number)
        with self._lock:
            turn = self._next
        return number == turn or (
            entry.content + entry.size <= self.layout.blob(turn).content + self._window.size
        )

    def put(self, number: int, read: Callable[[int], Iterator[bytes]]) -> None:
        """Take a blob that is admitted; ``read(offset)`` yields its bytes from there on.

        Raises IntegrityError when the content is not what was promised (twice, of one that fits
        the window), StorageError, Interrupted, and what ``read`` raises. It is a hole then.
        """
        is_large = self.plan.blobs[number].size > self._window.size
        try:
            if is_large:
                self._pass_on(number, read)
            else:
                self._keep(number, read)
        except (StorageError, Interrupted):
            # Half an entry may have left: nothing can follow it.
            self._failed = True
            raise
        except AirgapError:
            self._absent.add(number)
            self._settle(number, _Fate.LEFT if is_large else _Fate.ABSENT)
            raise
        self._settle(number, _Fate.LEFT if is_large else _Fate.KEPT)

    def finish(self) -> None:
        """Send what is left, and the end. Raises StorageError."""
        for number in range(self._next, len(self.plan.blobs)):
            if number not in self._fates and number not in self.plan.assumed:
                self._absent.add(number)
                self._fates[number] = _Fate.ABSENT
        self._send_ready()
        self._output.begin()
        self._output.write(tar.END)
        self._output.finish()

    def _keep(self, number: int, read: Callable[[int], Iterator[bytes]]) -> None:
        try:
            self._fill(number, read)
        except IntegrityError:
            # The way here may be wrong: once more, from nothing.
            self._fill(number, read)

    def _fill(self, number: int, read: Callable[[int], Iterator[bytes]]) -> None:
        blob = self.plan.blobs[number]
        check = Check(blob.digest, blob.size)
        position = self.layout.blob(number).content
        for piece in read(0) if blob.size else ():
            check.update(piece)
            self._window.write(piece, position)
            position += len(piece)
        check.finish()

    def _pass_on(self, number: int, read: Callable[[int], Iterator[bytes]]) -> None:
        """Send a blob as it comes, and zeros for what does not come; it is its turn."""
        entry, blob = self.layout.blob(number), self.plan.blobs[number]
        check, sent = Check(blob.digest, blob.size), 0
        self._output.begin()
        self._output.write(entry.header)
        try:
            for piece in read(0):
                check.update(piece)
                self._output.write(piece)
                sent += len(piece)
            check.finish()
        except (StorageError, Interrupted):
            raise
        except AirgapError:
            self._send_zeros(entry.size - sent)
            raise

    def _settle(self, number: int, fate: _Fate) -> None:
        with self._lock:
            self._fates[number] = fate
        self._send_ready()

    def _send_ready(self) -> None:
        """Send all whose turn it is; whoever comes while another sends leaves it to them."""
        while self._is_ready() and self._sending.acquire(blocking=False):
            try:
                while self._is_ready():
                    self._send(self._next, self._fates[self._next])
                    with self._lock:
                        del self._fates[self._next]
                        self._next = self._from(self._next + 1)
            except BaseException:
                self._failed = True
                raise
            finally:
                self._sending.release()

    def _from(self, number: int) -> int:
        """Return the first blob from a number on that travels."""
        while number in self.plan.assumed:
            number += 1
        return number

    def _is_ready(self) -> bool:
        with self._lock:
            return self._next in self._fates and not self._failed

    def _send(self, number: int, fate: _Fate) -> None:
        entry = self.layout.blob(number)
        if fate is not _Fate.LEFT:
            self._output.begin()
        if fate is _Fate.KEPT:
            self._output.write(entry.header)
            for piece in self._window.pieces(entry.content, entry.size):
                self._output.write(piece)
        if fate is _Fate.ABSENT:
            self._output.write(entry.absent.header)
            self._send_zeros(entry.size)
        self._output.write(padding_of(entry))

    def _send_zeros(self, size: int) -> None:
        while size > 0:
            self._output.write(bytes(min(size, limits.CHUNK)))
            size -= limits.CHUNK


class _Fate(Enum):
    """What has become of a blob that has not left whole with its padding."""

    KEPT = "in the window"
    ABSENT = "could not be had"
    LEFT = "has left as it came"


class _Window:
    """Bytes by their place in the archive, of which so many in a row are kept."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._file = Scratch()

    def write(self, data: bytes, position: int) -> None:
        """Keep bytes. Raises StorageError."""
        begin = position % self.size
        first = data[: self.size - begin]
        self._file.write(first, begin)
        self._file.write(data[len(first) :], 0)

    def pieces(self, position: int, size: int) -> Iterator[bytes]:
        """Yield bytes that were kept. Raises StorageError."""
        begin = position % self.size
        first = min(size, self.size - begin)
        yield from self._file.pieces(begin, first)
        yield from self._file.pieces(0, size - first)

    def close(self) -> None:
        """Let go of the file, which is gone then."""
        self._file.close()
