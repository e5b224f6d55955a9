"""An archive while it grows: blobs are written to their places, by many threads at once.

The archive is its own record. A place's header says ``absent/`` until its bytes are complete,
hashed and synced, and ``blobs/`` from then on; headers are flipped in groups, behind one
``fdatasync``. So what a header says is true after a kill at any point.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from contextlib import contextmanager, suppress
from itertools import accumulate
from typing import TYPE_CHECKING, BinaryIO, Self

from airgap import limits
from airgap.archive.growing import GrowingFiles
from airgap.archive.head import Head
from airgap.archive.reader import partial_path
from airgap.archive.state import State
from airgap.archive.work import Work, work_path
from airgap.arrival import Arrival
from airgap.digest import Check
from airgap.errors import AirgapError, IntegrityError, Interrupted, StorageError, UsageError
from airgap.storage import storage_errors, sync_directory, write_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from airgap.archive.layout import Entry, Layout
    from airgap.archive.reader import ArchiveReader
    from airgap.plan import Blob, Image, Plan

WINDOW = 256 * limits.MIB
"""How far behind the first unfinished byte blobs are begun; FAT writes zeros into all between."""

GROUP_BYTES = 64 * limits.MIB
GROUP_SECONDS = 5.0
"""What is written is synced, and headers of finished blobs flipped, after so much or so long."""

NOTE_BYTES = 4 * limits.MIB
"""A blob's progress is noted this often; it is what a kill costs at most, per worker."""


def write_head(path: Path, plan: Plan, work: Work) -> None:
    """Begin an archive as ``FILE.partial``: everything but the blobs that are still to come.

    The head is put together in the work directory and appears under its name only when it is
    whole and synced. Blobs the work directory holds move along. Raises StorageError.
    """
    begun = Head(plan, work)
    with storage_errors(path):
        with work.head.open("wb") as head:
            for piece in begun.pieces():
                head.write(piece)
            head.flush()
            _write_known_blobs(head.fileno(), plan, begun.layout, work)
            os.fsync(head.fileno())
        work.head.replace(partial_path(path))
        sync_directory(path.parent)


@contextmanager
def claim(path: Path) -> Iterator[State]:
    """Hold an archive as its only writer. Raises UsageError, Busy, StorageError."""
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no directory {path.parent}")
    state = State(path)
    try:
        yield state
    except BaseException:
        # On a medium that has gone this fails too, and would hide why the run ended.
        with suppress(StorageError):
            state.release(finished=not _is_begun(path))
        raise
    state.release(finished=not _is_begun(path))


def _is_begun(path: Path) -> bool:
    # Path.exists raises on a medium that has gone.
    return any(os.path.exists(begun) for begun in (partial_path(path), work_path(path)))  # noqa: PTH110


def begin_again(path: Path, reader: ArchiveReader, plan: Plan | None = None) -> None:
    """Begin an archive at ``path`` that is to hold what another one does. Raises as above.

    ``plan`` is that of the new one, where it differs in which blobs travel.
    """
    work = Work(work_path(path))
    for number, manifest in enumerate(reader.plan.manifests):
        work.keep(manifest.digest, reader.manifest(number))
    write_head(path, plan or reader.plan, work)
    work.remove()


def reopen(path: Path) -> None:
    """Make a finished archive one that grows again, for its holes to be filled."""
    with storage_errors(path):
        path.replace(partial_path(path))
        sync_directory(path.parent)


class ArchiveWriter:
    """An unfinished archive; its ``put_blob`` may be called from several threads.

    ``missing`` are the numbers of the blobs that are not in it yet, in archive order. Use it
    in a ``with`` block; only ``finish`` gives the archive its name.
    """

    def __init__(
        self,
        path: Path,
        state: State,
        stop: threading.Event,
        *,
        believe: bool,
        files: GrowingFiles | None = None,
    ) -> None:
        """Find out what an unfinished archive holds; ``files`` are those of one in volumes.

        Unless its headers are to be believed, every blob in it is hashed again, and a header
        that was wrong is set right: a power cut may have kept it and lost the content. Raises
        ArchiveError, StorageError.
        """
        self.path = path
        self._partial = partial_path(path)
        self._files = files = files or GrowingFiles(path)
        self._state = state
        self._stop = stop
        self.id, self.plan, self.layout = files.id, files.plan, files.layout
        present = set(files.present)
        if not believe:
            present = {number for number in present if files.is_sound(number)}
        for number in files.present - present:
            files.mark(number, there=False)
        with storage_errors(self._partial):
            files.sync()
        state.believe()
        self._held = {n: size for n, size in state.survived.items() if n not in present}
        self._present = present
        files.expect(self.to_come)
        self._numbers = {blob.digest: n for n, blob in enumerate(self.plan.blobs)}
        self._lock = threading.Condition()
        self._positions: dict[int, int] = {}
        self._waiting = 0
        self._begins = [0, *accumulate(volume.size for volume in self.layout.volumes)]
        self._finished: list[int] = []
        self._unsynced = 0
        self._flipping = threading.RLock()
        self._sync_failed = False
        self._last_flip = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    @property
    def missing(self) -> list[int]:
        """The numbers of the blobs that travel and have not arrived."""
        there = self._present | self.plan.assumed
        return [n for n in range(len(self.plan.blobs)) if n not in there]

    def require_room(self) -> None:
        """Make sure that what is still to come has room. Raises StorageError."""
        self._files.require_room()

    @property
    def to_come(self) -> list[int]:
        """The numbers of the blobs that have not arrived and can: their places are here."""
        return [number for number in self.missing if number not in self._files.stuck]

    def where(self, image: Image) -> str:
        """Return the one place for all blobs: content is kept once, whoever wants it."""
        return ""

    def lane(self, where: str) -> str:
        """Return "": no registry is involved."""
        return ""

    def put_blob(self, blob: Blob, where: str, read: Callable[[int], Iterator[bytes]]) -> Arrival:
        """Write a blob to its place; ``read(offset)`` yields its bytes from there on.

        What an earlier run left of it is hashed and continued. Raises IntegrityError when the
        content is twice not what was promised, StorageError, Interrupted, and what ``read``
        raises.
        """
        number = self._numbers[blob.digest]
        if number in self._present:
            return Arrival.PRESENT
        self._claim(number)
        try:
            self._files.make_room(number, self._wait_for_volumes_before)
            self._files.mark(number, there=False)
            try:
                self._fill(number, blob, read)
            except IntegrityError:
                # What an earlier run left may be wrong, or the way here: once more, from nothing.
                self._held.pop(number, None)
                self._fill(number, blob, read)
        except (StorageError, Interrupted):
            raise
        except AirgapError:
            self._settle(number)
            raise
        else:
            self._settle(number)
        finally:
            self._leave(number)
        return Arrival.SENT

    def put_image(self, image: Image) -> None:
        """Do nothing: an archive's manifests stand in its head."""

    def save(self) -> None:
        """Sync what has arrived, so that the next run believes it. Raises StorageError."""
        self._flip()

    def finish(self) -> None:
        """Give the archive its name. Places without their blob become holes of zeros.

        Raises StorageError; the archive then stays unfinished.
        """
        self._flip()
        self._files.finish(self._present, self._wait_for_volumes_before)

    def _claim(self, number: int) -> None:
        """Wait until a place is inside the window."""
        begin = self._begin(number)
        with self._lock:
            self._positions[number] = begin
            self._waiting += 1
            try:
                while begin > min(self._positions.values()) + WINDOW:
                    self._lock.wait(timeout=0.5)
                    if self._stop.is_set():
                        del self._positions[number]
                        raise Interrupted
            finally:
                self._waiting -= 1

    def _begin(self, number: int) -> int:
        """Return where a blob's content begins in all volumes, one after the other."""
        place = self.layout.blob(number)
        return self._begins[place.volume - 1] + place.content

    def _wait_for_volumes_before(self, volume: int) -> None:
        """Wait until nothing is to come for earlier volumes; end those that are whole.

        Raises Interrupted, also when something else ends the run.
        """
        with self._lock:
            while self._files.awaits_before(volume):
                self._lock.wait(timeout=0.5)
                if self._stop.is_set():
                    raise Interrupted
        self._end_ripe()

    def _settle(self, number: int) -> None:
        self._files.settled(number)
        self._end_ripe()

    def _end_ripe(self) -> None:
        """Finish the volumes in which nothing will change any more. Raises StorageError."""
        if not self._files.ripe():
            return  # Without the lock, which is held while somebody syncs.
        with self._flipping:
            while volume := self._files.ripe():
                self._flip()
                self._files.end(volume, self._present)

    def _leave(self, number: int) -> None:
        with self._lock:
            self._positions.pop(number, None)
            self._lock.notify_all()

    def _fill(self, number: int, blob: Blob, read: Callable[[int], Iterator[bytes]]) -> None:
        begin = self._begin(number)
        check = Check(blob.digest, blob.size)
        self._rehash(check, number, self._held.get(number, 0))
        noted = check.seen
        for piece in read(check.seen) if check.seen < blob.size else ():
            position = check.seen
            check.update(piece)
            self._files.write(number, piece, position)
            # Of every piece, so without the lock: the key is there, and is no one else's.
            self._positions[number] = begin + check.seen
            if self._waiting:
                with self._lock:
                    self._lock.notify_all()
            if check.seen - noted >= NOTE_BYTES:
                self._state.written(number, check.seen)
                self._sync_when_due(check.seen - noted)
                noted = check.seen
        check.finish()
        # Until the next flip only this tells a later run that nothing is left to fetch.
        self._state.written(number, blob.size)
        with self._lock:
            self._finished.append(number)
        self._sync_when_due(blob.size - noted)

    def _rehash(self, check: Check, number: int, held: int) -> None:
        held = min(held, check.size)
        while check.seen < held:
            wanted = min(limits.CHUNK, held - check.seen)
            piece = self._files.read(number, wanted, check.seen)
            if not piece:
                break
            check.update(piece)

    def _sync_when_due(self, written: int) -> None:
        """Count bytes that were written; sync when it is time, unless somebody does it already."""
        with self._lock:
            self._unsynced += written
            enough = self._unsynced >= GROUP_BYTES
            due = enough or time.monotonic() - self._last_flip >= GROUP_SECONDS
        if due and self._flipping.acquire(blocking=False):
            try:
                self._flip()
            finally:
                self._flipping.release()

    def _flip(self) -> None:
        """Sync, then say in their headers that the blobs finished before it are there."""
        with self._flipping:
            with self._lock:
                finished, self._finished, self._unsynced = self._finished, [], 0
                reached = {n: p - self._begin(n) for n, p in self._positions.items()}
                self._last_flip = time.monotonic()
            with storage_errors(self._partial):
                self._sync()
            for number in finished:
                self._files.mark(number, there=True)
            for number, size in reached.items():
                if size > 0:
                    self._state.synced(number, size)
            with self._lock:
                self._present.update(finished)

    def _sync(self) -> None:
        """Sync, unless that has failed before. Raises OSError.

        The kernel tells of a lost write once; a later success, also of the next run, says
        nothing of it any more.
        """
        if self._sync_failed:
            raise OSError(errno.EIO, "an earlier write was lost")
        try:
            self._files.sync()
        except OSError:
            self._sync_failed = True
            with suppress(StorageError):
                self._state.distrust()
            raise


def _write_known_blobs(descriptor: int, plan: Plan, layout: Layout, work: Work) -> None:
    for number, blob in enumerate(plan.blobs):
        if number in plan.assumed or not work.holds(blob.digest):
            continue
        entry = layout.blob(number)
        check = Check(blob.digest, blob.size)
        with work.open(blob.digest) as file:
            _copy(_followed(_pieces(file), check), descriptor, entry)
        check.finish()
        write_at(descriptor, entry.header, entry.offset)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: file.read(limits.CHUNK), b"")


def _followed(pieces: Iterator[bytes], check: Check) -> Iterator[bytes]:
    for piece in pieces:
        check.update(piece)
        yield piece


def _copy(pieces: Iterator[bytes], descriptor: int, entry: Entry) -> None:
    offset = entry.content
    for piece in pieces:
        write_at(descriptor, piece, offset)
        offset += len(piece)
