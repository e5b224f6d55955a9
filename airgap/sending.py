"""Filling an archive that leaves from front to back, in parallel and in its order.

Blobs are begun in the archive's order, and only when the window has room for them: so nobody
ever waits for a turn, and the blob whose turn it is has always been begun. Knows neither where
blobs come from nor where the archive goes.
"""

from __future__ import annotations

from collections import defaultdict, deque
from typing import TYPE_CHECKING

from airgap.crew import Crew
from airgap.errors import Interrupted

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Iterator

    from airgap.archive.forward import ForwardWriter
    from airgap.crew import Lanes, Work
    from airgap.errors import AirgapError
    from airgap.progress import Progress
    from airgap.transfer import Source


def send(
    archive: ForwardWriter,
    source: Source,
    *,
    lanes: Lanes,
    progress: Progress,
    stop: threading.Event,
    is_fatal: Callable[[AirgapError], bool],
) -> dict[int, AirgapError]:
    """Bring all blobs of an archive that has begun; return those that failed, by number.

    StorageError, Interrupted and what ``is_fatal`` end it: then the archive stays incomplete.
    """
    job = _Job(archive, source, progress, Crew(lanes, stop, is_fatal))
    job.crew.carry_out(job.admitted())
    return job.failed


class _Job:
    def __init__(
        self, archive: ForwardWriter, source: Source, progress: Progress, crew: Crew
    ) -> None:
        self.archive = archive
        self.source = source
        self.progress = progress
        self.crew = crew
        self.failed: dict[int, AirgapError] = {}
        self.queues: dict[str, deque[int]] = defaultdict(deque)
        self._admitted = archive.next

    def admitted(self) -> Iterator[Work]:
        """Yield a turn for each blob that there is room for now."""
        blobs, assumed = self.archive.plan.blobs, self.archive.plan.assumed
        while self._admitted < len(blobs):
            if self._admitted in assumed:
                self._admitted += 1
                continue
            if not self.archive.admits(self._admitted):
                return
            lane = self.source.lane(blobs[self._admitted])
            self.queues[lane].append(self._admitted)
            self._admitted += 1
            yield _Turn(self, lane)


class _Turn:
    """A turn for the first blob of a lane, whichever that is when the turn comes."""

    def __init__(self, job: _Job, lane: str) -> None:
        self._job = job
        self._lane = lane
        self._number = -1
        self._counted = 0
        self.lanes = (lane,)

    def run(self) -> None:
        self._number = self._job.queues[self._lane].popleft()
        self._job.archive.put(self._number, self._read)

    def settle(self, error: AirgapError | None) -> Iterable[Work]:
        if error is not None:
            self._job.failed[self._number] = error
            self._job.progress.advance(-self._counted)
        return self._job.admitted()

    def _read(self, offset: int) -> Iterator[bytes]:
        job = self._job
        job.progress.advance(offset - self._counted)
        self._counted = offset
        for piece in job.source.blob(job.archive.plan.blobs[self._number], offset):
            if job.crew.ending:
                raise Interrupted
            yield piece
            job.progress.advance(len(piece))
            self._counted += len(piece)
