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
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO, Self

from airgap import limits
from airgap.archive import inventory, tar
from airgap.archive.layout import SIGNATURE_NAME, UNSIGNED, Entry, Layout, index_document
from airgap.archive.reader import ArchiveReader, partial_path
from airgap.arrival import Arrival
from airgap.digest import Check, Hasher
from airgap.errors import IntegrityError, Interrupted, StorageError
from airgap.storage import (
    pieces_at,
    read_at,
    require_room,
    storage_errors,
    sync_directory,
    write_at,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from airgap.archive.state import State
    from airgap.archive.work import Work
    from airgap.digest import Digest
    from airgap.plan import Blob, Image, Plan

WINDOW = 256 * limits.MIB
"""How far behind the first unfinished byte blobs are begun; FAT writes zeros into all between."""

GROUP_BYTES = 64 * limits.MIB
GROUP_SECONDS = 5.0
"""Finished blobs are synced and their headers flipped after so much, or so long."""

NOTE_BYTES = 4 * limits.MIB
"""A blob's progress is noted this often; it is what a kill costs at most, per worker."""


def write_head(path: Path, plan: Plan, work: Work) -> None:
    """Begin an archive as ``FILE.partial``: everything but the blobs that are still to come.

    The head is put together in the work directory and appears under its name only when it is
    whole and synced. Blobs the work directory holds move along. Raises StorageError.
    """
    with storage_errors(work.inventory):
        size, digest = _write_inventory(work.inventory, plan)
    layout = Layout(plan, size, index_document(plan, digest))
    with storage_errors(path):
        with work.head.open("wb") as head:
            _write_documents(head.fileno(), layout, work.inventory)
            _write_manifests(head.fileno(), plan, layout, work)
            _write_known_blobs(head.fileno(), plan, layout, work)
            os.fsync(head.fileno())
        work.head.replace(partial_path(path))
        sync_directory(path.parent)


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

    def __init__(self, path: Path, state: State, stop: threading.Event, *, believe: bool) -> None:
        """Open ``FILE.partial`` and find out what it holds.

        Unless its headers are to be believed, every blob in it is hashed again, and a header
        that was wrong is set right: a power cut may have kept it and lost the content. Raises
        ArchiveError, StorageError.
        """
        self.path = path
        self._partial = partial_path(path)
        self._state = state
        self._stop = stop
        with ArchiveReader(self._partial, unfinished=True) as reader:
            reader.require_sound_head()
            self.id, self.plan, self.layout = reader.id, reader.plan, reader.layout
            present = set(reader.present)
            if not believe:
                present = {number for number in present if reader.is_sound(number)}
            lost = reader.present - present
        with storage_errors(self._partial):
            self._descriptor = os.open(self._partial, os.O_RDWR | os.O_CLOEXEC)
            for number in lost:
                hole = self.layout.hole(number)
                write_at(self._descriptor, hole.header, hole.offset)
            os.fdatasync(self._descriptor)
        state.believe()
        self._held = {n: size for n, size in state.survived.items() if n not in present}
        self._present = present
        self._numbers = {blob.digest: n for n, blob in enumerate(self.plan.blobs)}
        self._lock = threading.Condition()
        self._positions: dict[int, int] = {}
        self._finished: list[int] = []
        self._finished_bytes = 0
        self._flipping = threading.Lock()
        self._sync_failed = False
        self._last_flip = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    @property
    def missing(self) -> list[int]:
        """The numbers of the blobs that have not arrived."""
        return [n for n in range(len(self.plan.blobs)) if n not in self._present]

    def require_room(self) -> None:
        """Make sure that what is still to come has room. Raises StorageError."""
        require_room(self._descriptor, self._partial, self.layout.size)

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
            try:
                self._fill(number, blob, read)
            except IntegrityError:
                # What an earlier run left may be wrong, or the way here: once more, from nothing.
                self._held.pop(number, None)
                self._fill(number, blob, read)
        finally:
            self._leave(number)
        self._count_finished(number, blob.size)
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
        with storage_errors(self._partial):
            for number in self.missing:
                self._empty(number)
            os.ftruncate(self._descriptor, self.layout.size)
            write_at(self._descriptor, tar.END, self.layout.content_end)
            os.fsync(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
            self._partial.replace(self.path)
            sync_directory(self.path.parent)

    def _claim(self, number: int) -> None:
        """Wait until a place is inside the window, then mark it as being filled."""
        place = self.layout.blob(number)
        with self._lock:
            self._positions[number] = place.offset
            while place.offset > min(self._positions.values()) + WINDOW:
                self._lock.wait(timeout=0.5)
                if self._stop.is_set():
                    del self._positions[number]
                    raise Interrupted
        with storage_errors(self._partial):
            write_at(self._descriptor, self.layout.hole(number).header, place.offset)

    def _leave(self, number: int) -> None:
        with self._lock:
            self._positions.pop(number, None)
            self._lock.notify_all()

    def _fill(self, number: int, blob: Blob, read: Callable[[int], Iterator[bytes]]) -> None:
        start = self.layout.blob(number).content
        check = Check(blob.digest, blob.size)
        self._rehash(check, start, self._held.get(number, 0))
        noted = check.seen
        for piece in read(check.seen) if check.seen < blob.size else ():
            offset = start + check.seen
            check.update(piece)
            with storage_errors(self._partial):
                write_at(self._descriptor, piece, offset)
            with self._lock:
                self._positions[number] = start + check.seen
                self._lock.notify_all()
            if check.seen - noted >= NOTE_BYTES:
                self._state.written(number, check.seen)
                noted = check.seen
        check.finish()
        # Until the next flip only this tells a later run that nothing is left to fetch.
        self._state.written(number, blob.size)

    def _rehash(self, check: Check, start: int, held: int) -> None:
        held = min(held, check.size)
        with storage_errors(self._partial):
            while check.seen < held:
                wanted = min(limits.CHUNK, held - check.seen)
                piece = read_at(self._descriptor, wanted, start + check.seen)
                if not piece:
                    break
                check.update(piece)

    def _count_finished(self, number: int, size: int) -> None:
        with self._lock:
            self._finished.append(number)
            self._finished_bytes += size
            enough = self._finished_bytes >= GROUP_BYTES
            due = enough or time.monotonic() - self._last_flip >= GROUP_SECONDS
        if due and self._flipping.acquire(blocking=False):
            try:
                self._flip()
            finally:
                self._flipping.release()

    def _flip(self) -> None:
        """Sync, then say in their headers that the blobs finished before it are there."""
        with self._lock:
            finished, self._finished, self._finished_bytes = self._finished, [], 0
            reached = {n: p - self.layout.blob(n).content for n, p in self._positions.items()}
            self._last_flip = time.monotonic()
        with storage_errors(self._partial):
            self._sync()
            for number in finished:
                place = self.layout.blob(number)
                write_at(self._descriptor, place.header, place.offset)
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
            os.fdatasync(self._descriptor)
        except OSError:
            self._sync_failed = True
            with suppress(StorageError):
                self._state.distrust()
            raise

    def _empty(self, number: int) -> None:
        """Leave a hole: the header of an absent blob, and zeros whatever was written there."""
        hole = self.layout.hole(number)
        write_at(self._descriptor, hole.header, hole.offset)
        offset = hole.content
        for piece in pieces_at(self._descriptor, hole.size, hole.content):
            if piece.strip(b"\0"):
                write_at(self._descriptor, bytes(len(piece)), offset)
            offset += len(piece)


def _write_inventory(path: Path, plan: Plan) -> tuple[int, Digest]:
    hasher, size = Hasher(), 0
    with path.open("wb") as file:
        for line in inventory.lines(plan):
            hasher.update(line)
            size += file.write(line)
    return size, hasher.digest()


def _write_documents(descriptor: int, layout: Layout, inventory_file: Path) -> None:
    for entry, content in layout.documents:
        write_at(descriptor, entry.header, entry.offset)
        if content is not None:
            write_at(descriptor, content, entry.content)
        elif entry.name == SIGNATURE_NAME:
            write_at(descriptor, UNSIGNED, entry.content)
    with inventory_file.open("rb") as file:
        _copy(_pieces(file), descriptor, layout.inventory)


def _write_manifests(descriptor: int, plan: Plan, layout: Layout, work: Work) -> None:
    for number, manifest in enumerate(plan.manifests):
        content = work.manifest(manifest.digest)
        if content is None:
            raise IntegrityError(
                f"{work.directory}: manifest {manifest.digest} has gone or changed"
            )
        entry = layout.manifest(number)
        write_at(descriptor, entry.header + content, entry.offset)


def _write_known_blobs(descriptor: int, plan: Plan, layout: Layout, work: Work) -> None:
    for number, blob in enumerate(plan.blobs):
        if not work.holds(blob.digest):
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
