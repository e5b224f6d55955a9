"""Media that are exchanged: an archive's volumes, seen one after the other, in any order.

What a volume holds is given away while it is here; only the pieces of cut blobs wait, in
temporary files without a name. Knows when to wait for which volume; where content goes it
refuses to know.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from airgap.archive import volumes
from airgap.archive.pieces import Pieces
from airgap.archive.reader import ArchiveReader
from airgap.errors import AirgapError, IntegrityError, Interrupted, StorageError, UsageError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Collection, Iterator, Sequence
    from pathlib import Path

    from airgap.archive.layout import Entry
    from airgap.plan import Blob
    from airgap.progress import Progress
    from airgap.pushing import Ahead

POLL_SECONDS = 1.0
"""How often it is looked whether another medium is there."""

Signature = tuple[tuple[object, ...], ...]


class Swapping:
    """The content of an archive whose volumes are not all here at once; use it in a ``with``.

    ``reader`` has those that are here now; ``holes`` are the blobs that the volumes seen so far
    lack, ``failed`` those that could not be given away, with the reason.
    """

    def __init__(
        self, paths: Sequence[Path], progress: Progress, stop: threading.Event, *, wait: bool
    ) -> None:
        """Open what is here. With ``wait`` the first volume may be yet to come.

        Raises as ``ArchiveReader`` does, Interrupted.
        """
        self._paths = paths
        self._progress = progress
        self._stop = stop
        self._seen = _signature(paths)
        self._told: set[str] = set()
        self._pieces = Pieces()
        self.failed: dict[int, AirgapError] = {}
        self.reader = self._first() if wait else ArchiveReader(paths)
        self.holes = set(self.reader.holes)
        self._numbers = {blob.digest: n for n, blob in enumerate(self.reader.plan.blobs)}

    def __enter__(self) -> Swapping:
        return self

    def __exit__(self, *_: object) -> None:
        self.reader.release()
        self._pieces.close()

    def give_away(
        self, ahead: Ahead, look_at: Callable[[ArchiveReader, Collection[int]], None]
    ) -> None:
        """Go through the volumes that are here and those that are not at their places yet.

        Does nothing when all are here. ``look_at`` is shown a reader of each medium, and the
        holes in it, before anything of it is pushed. When it is over, the last volume is still
        here. Raises what they raise, StorageError, Interrupted.
        """
        if not self.reader.lacking:
            return
        self._progress.stage("asking what is there already")
        volumes = {volume.number: volume.blobs for volume in self.reader.lacking}
        to_come = ahead.not_there(volumes, self._stop)
        to_come |= {volume.number for volume in self.reader.here}
        of = len(self.reader.layout.volumes)
        while True:
            done = {volume.number for volume in self.reader.here} & to_come
            ready = self._ready(done)
            self.failed |= ahead.push(self, frozenset(ready))
            for number in ready:
                self._pieces.let_go(number)
            to_come -= done
            if not to_come:
                return
            self.reader.release()
            left = sorted(to_come)
            order = f" (any order; to come: {', '.join(map(str, left))})" if left[1:] else ""
            self._progress.say(
                f"{_numbers(done)} of {of} done, its medium can be taken out;"
                f" volume {left[0]} of {of} next{order}"
            )
            self.reader = self._next(to_come)
            look_at(self.reader, self.reader.holes)

    @property
    def damage(self) -> tuple[str, ...]:
        """Nothing: whatever is wrong beside blobs is refused before."""
        return ()

    def lane(self, blob: Blob) -> str:
        """Return "": no registry is involved."""
        return ""

    def blob(self, blob: Blob, offset: int) -> Iterator[bytes]:
        """Yield a blob's bytes from ``offset`` on, unchecked.

        Raises what made it fail before, ArchiveError when its volume is not here.
        """
        number = self._numbers[blob.digest]
        if number in self.failed:
            raise self.failed[number]
        if number in self._pieces and number not in self.reader.present:
            yield from self._pieces.content(number, offset, blob.size - offset)
        else:
            yield from self.reader.blob(blob, offset)

    def manifest(self, number: int) -> bytes:
        """Return a manifest's bytes: every volume has all. Raises IntegrityError."""
        return self.reader.manifest(number)

    def _ready(self, done: set[int]) -> set[int]:
        """Return the blobs of volumes that can be read whole now; keep pieces of the others."""
        ready, reader = set(), self.reader
        for volume in reader.here:
            for number, place in reader.layout.content(volume) if volume.number in done else ():
                if reader.is_absent(place):
                    self.holes.add(number)
                elif number in reader.present or self._keep(number, place):
                    ready.add(number)
        return ready

    def _keep(self, number: int, place: Entry) -> bool:
        """Keep a piece until all of its blob are here, and say whether they are."""
        if not self.reader.layout.is_cut(number):
            return False
        try:
            return self._pieces.keep(self.reader, number, place, self.reader.piece(place))
        except IntegrityError as error:
            self.failed[number] = error
            return False

    def _first(self) -> ArchiveReader:
        try:
            return ArchiveReader(self._paths)
        except UsageError:
            where = ", ".join(map(str, self._paths))
            self._progress.say(f"waiting for a volume of an archive at {where}")
        while True:
            self._wait_for_a_change()
            with suppress(UsageError):
                return ArchiveReader(self._paths)

    def _next(self, to_come: set[int]) -> ArchiveReader:
        """Wait until one of these volumes is here, and its head is sound."""
        while True:
            self._wait_for_a_change()
            try:
                reader = ArchiveReader(self._paths)
            except AirgapError as error:
                self._tell(error.message)
                continue
            try:
                problems = [problem.message for problem in reader.check_head()]
            except StorageError as error:
                problems = [error.message]
            if reader.id != self.reader.id or reader.layout.limit != self.reader.layout.limit:
                problems = [f"{reader.path}: holds another archive, {reader.id}"]
            numbers = {volume.number for volume in reader.here}
            if not problems and numbers & to_come:
                return reader
            reader.release()
            for message in problems or [f"{_numbers(numbers)} was here before"]:
                self._tell(message)

    def _wait_for_a_change(self) -> None:
        """Return when other files are here than before, and none of them grows any more."""
        last: Signature | None = None
        while True:
            now = _signature(self._paths)
            if now == last and now != self._seen:
                self._seen = now
                return
            last = now
            if self._stop.wait(POLL_SECONDS):
                raise Interrupted

    def _tell(self, message: str) -> None:
        if message not in self._told:
            self._told.add(message)
            self._progress.say(message)


def _signature(paths: Sequence[Path]) -> Signature:
    """Return what tells whether other files are here, without holding a medium."""
    found: list[tuple[object, ...]] = []
    for path in paths:
        with suppress(OSError, AirgapError):
            for file in volumes.candidates(path) if path.is_dir() else [path]:
                with suppress(OSError):
                    now = file.stat()
                    found.append((file, now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns))
    return tuple(found)


def _numbers(numbers: set[int]) -> str:
    return ("volumes " if len(numbers) > 1 else "volume ") + ", ".join(map(str, sorted(numbers)))
