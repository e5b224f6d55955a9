"""An archive that passes once, given away while it does.

Blobs gather in a window, a bounded temporary file; what has gathered is pushed at once while
the next of them gather. One that is larger is pushed as it passes. Where content goes it refuses
to know.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from airgap.archive.passing import PassingArchive
from airgap.archive.pieces import Pieces
from airgap.digest import Check
from airgap.errors import AirgapError, IntegrityError, RegistryError
from airgap.storage import Scratch

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Collection, Iterator

    from airgap.archive.passing import Passage
    from airgap.archive.reader import ArchiveReader
    from airgap.plan import Blob
    from airgap.pushing import Ahead


@dataclass
class _Batch:
    """Blobs that are pushed together: where each begins in ``kept``, or one that passes.

    ``joined`` are cut blobs whose last piece was in it, ``holes`` and ``failed`` what was found
    on the way, ``is_last`` says that the stream has ended.
    """

    kept: Scratch = field(default_factory=Scratch)
    size: int = 0
    places: dict[int, int] = field(default_factory=dict)
    passing: Passage | None = None
    joined: set[int] = field(default_factory=set)
    holes: set[int] = field(default_factory=set)
    failed: dict[int, AirgapError] = field(default_factory=dict)
    is_last: bool = False

    @property
    def numbers(self) -> set[int]:
        """The numbers of the blobs in it."""
        return {*self.places, *self.joined, *([self.passing.number] if self.passing else [])}


class Streaming:
    """The content of an archive in a stream; use it in a ``with`` block.

    ``reader`` has its head. ``holes`` are the blobs that passed as holes, ``failed`` those that
    could not be given away, with the reason; ``damage`` is what is wrong with the stream beside
    its blobs.
    """

    def __init__(
        self,
        descriptor: int,
        name: str,
        window: int,
        stop: threading.Event,
    ) -> None:
        """Read the head. Raises ArchiveError, also for a damaged one, StorageError, Interrupted."""
        self._name = name
        self._half = max(window // 2, 1)
        self._is_over = False
        self._archive = PassingArchive(descriptor, name, lambda: stop.is_set() or self._is_over)
        try:
            self._archive.require_sound_head()
        except BaseException:
            self._archive.close()
            raise
        self._passages = self._archive.passages()
        self._kept_back: Passage | None = None
        self._pieces = Pieces()
        self._batch = _Batch()
        self._batches = [self._batch]
        self._given: set[int] = set()
        self.reader = self._archive.reader
        self.holes: set[int] = set()
        self.failed: dict[int, AirgapError] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._archive.close()
        self._pieces.close()
        for batch in self._batches:
            batch.kept.close()

    @property
    def damage(self) -> tuple[str, ...]:
        """What is wrong with the stream, a line each."""
        return tuple(problem.message for problem in self._archive.problems)

    def give_away(
        self, ahead: Ahead, look_at: Callable[[ArchiveReader, Collection[int]], None]
    ) -> None:
        """Push every blob while it passes, to the end of the stream.

        ``look_at`` is shown the holes so far before anything behind them is pushed. Raises what
        it raises, and what pushing does, ArchiveError, StorageError, Interrupted.
        """
        with ThreadPoolExecutor(1, "gathering") as gatherer:
            try:
                batch = gatherer.submit(self._gather).result()
                while True:
                    self.holes |= batch.holes
                    self.failed |= batch.failed
                    look_at(self.reader, self.holes)
                    waits = batch.passing or batch.is_last
                    coming = None if waits else gatherer.submit(self._gather)
                    self._push(ahead, batch)
                    if batch.is_last:
                        break
                    batch = (coming or gatherer.submit(self._gather)).result()
            except BaseException:
                # Whoever still reads must not wait for what nobody wants any more.
                self._is_over = True
                raise
        self._note_lost()

    def lane(self, blob: Blob) -> str:
        """Return "": no registry is involved."""
        return ""

    def blob(self, blob: Blob, offset: int) -> Iterator[bytes]:
        """Yield a blob's bytes from ``offset`` on, unchecked.

        Raises what made it fail before, RegistryError when it has passed.
        """
        number = self.reader.number_of(blob.digest)
        batch = self._batch
        if number in self.failed:
            raise self.failed[number]
        if number in batch.places:
            yield from batch.kept.pieces(batch.places[number] + offset, blob.size - offset)
        elif number in batch.joined:
            yield from self._pieces.content(number, offset, blob.size - offset)
        elif batch.passing and batch.passing.number == number and number not in self._given:
            self._given.add(number)
            check = Check(blob.digest, blob.size)
            # Not ``yield from``: what a broken upload has left must still be skipped.
            for piece in batch.passing.content:
                check.update(piece)
                yield piece
            try:
                check.finish()
            except IntegrityError as error:
                self.failed[number] = error  # For whoever would read it once more.
                raise
        else:
            raise RegistryError(
                f"{self._name}: blob {blob.digest} has passed: its upload broke off, or the"
                " registry has lost it since, and a stream cannot be read again",
                hint="Send the archive once more: what has arrived is not pushed again. A larger"
                " --window keeps larger blobs until they have arrived.",
            )

    def manifest(self, number: int) -> bytes:
        """Return a manifest's bytes. Raises IntegrityError."""
        return self.reader.manifest(number)

    def _push(self, ahead: Ahead, batch: _Batch) -> None:
        self._batch = batch
        numbers = batch.numbers
        passing = batch.passing.number if batch.passing else None
        self.failed |= ahead.push(self, frozenset(numbers), passing)
        for number in batch.joined:
            self._pieces.let_go(number)
        self._given |= numbers
        self._batches.remove(batch)
        batch.kept.close()
        self._batch = self._batches[0]

    def _gather(self) -> _Batch:
        """Return what can be pushed next."""
        batch = _Batch()
        self._batches.append(batch)
        while not batch.is_last:
            passage = self._kept_back or next(self._passages, None)
            self._kept_back = None
            if passage is None:
                batch.is_last = True
            elif passage.is_absent or passage.reader.layout.is_cut(passage.number):
                self._take_apart(batch, passage)
            elif batch.places and batch.size + passage.place.size > self._half:
                self._kept_back = passage
                return batch
            elif passage.place.size > self._half:
                batch.passing = passage
                return batch
            else:
                batch.places[passage.number] = batch.size
                for piece in passage.content:
                    batch.kept.write(piece, batch.size)
                    batch.size += len(piece)
        return batch

    def _take_apart(self, batch: _Batch, passage: Passage) -> None:
        """Take what is no whole blob: a hole, or a piece of one that is cut."""
        number = passage.number
        if passage.is_absent:
            batch.holes.add(number)
            return
        try:
            if self._pieces.keep(passage.reader, number, passage.place, passage.content):
                batch.joined.add(number)
        except IntegrityError as error:
            batch.failed[number] = error

    def _note_lost(self) -> None:
        """Make failures of the blobs that have not passed."""
        reasons = {
            number: problem.message
            for problem in self._archive.problems
            for number in problem.blobs
        }
        known = self._given | self.holes | self.failed.keys() | self.reader.plan.assumed
        for number, blob in enumerate(self.reader.plan.blobs):
            if number not in known:
                why = reasons.get(number, "its volume did not come")
                told = f"{self._name}: blob {blob.digest} is lost: {why}"
                self.failed[number] = IntegrityError(told)
