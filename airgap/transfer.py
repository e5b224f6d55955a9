"""Copying content in parallel, from any source to any destination.

Workers copy blobs; between their calls account is kept of everything, by one at a time. A blob
that several places want goes to the first and is offered to the next ones afterwards, so that a
registry can mount it. An image is put when all its blobs have arrived. Export, import and
mirror are this transfer with other ends; it knows neither.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from airgap.arrival import Arrival
from airgap.crew import Crew
from airgap.errors import AirgapError, Interrupted

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from airgap.crew import Lanes, Work
    from airgap.plan import Blob, Image, Plan
    from airgap.progress import Progress


class Source(Protocol):
    """Where content comes from."""

    def lane(self, blob: Blob) -> str:
        """Return the registry that a blob comes from, "" where there is none."""

    def blob(self, blob: Blob, offset: int) -> Iterator[bytes]:
        """Yield a blob's bytes from ``offset`` on, unchecked, in pieces that stay unchanged."""


class Destination(Protocol):
    """Where content goes; its methods are called from several threads."""

    def where(self, image: Image) -> str:
        """Return the place that holds an image's blobs; images may share one."""

    def lane(self, where: str) -> str:
        """Return the registry that a place is at, "" where there is none."""

    def put_blob(self, blob: Blob, where: str, read: Callable[[int], Iterator[bytes]]) -> Arrival:
        """Make sure that a blob is at a place, whole and hashed; ``read(offset)`` gives it."""

    def put_image(self, image: Image) -> None:
        """Put what makes an image of its blobs, all of which are there."""


@dataclass
class Outcome:
    """What a transfer did. Bytes and numbers of blobs, one count for each place of a blob."""

    sent: int = 0
    sent_bytes: int = 0
    mounted: int = 0
    present: int = 0
    images: list[Image] = field(default_factory=list)
    failed_blobs: dict[int, AirgapError] = field(default_factory=dict)
    failed_images: dict[Image, AirgapError] = field(default_factory=dict)


def transfer(
    plan: Plan,
    images: Sequence[Image],
    source: Source,
    destination: Destination,
    *,
    lanes: Lanes,
    progress: Progress,
    stop: threading.Event,
    is_fatal: Callable[[AirgapError], bool] = lambda error: False,
    skip: frozenset[int] = frozenset(),
) -> Outcome:
    """Copy images; one that fails does not stop the others.

    ``lanes`` says how much may run at once at each registry. ``skip`` are numbers of blobs that
    need no attention. StorageError, Interrupted and what ``is_fatal`` end the transfer: what is
    under way is cut short, then the error is raised.
    """
    crew = Crew(lanes, stop, is_fatal)
    job = _Job(plan, images, source, destination, progress, skip, crew)
    crew.carry_out(job.ready)
    return job.outcome


class _Job:
    """The account of one transfer: what can be done now, and what waits for it."""

    def __init__(
        self,
        plan: Plan,
        images: Sequence[Image],
        source: Source,
        destination: Destination,
        progress: Progress,
        skip: frozenset[int],
        crew: Crew,
    ) -> None:
        self.crew = crew
        self.plan = plan
        self.source = source
        self.destination = destination
        self.progress = progress
        self.outcome = Outcome()
        self.ready: list[Work] = []
        tasks: dict[tuple[int, str], _BlobTask] = {}
        latest: dict[int, _BlobTask] = {}
        for image in images:
            where = destination.where(image)
            waiting = _ImageTask(self, image, where)
            for number in plan.blobs_of(image):
                if number in skip:
                    continue
                if (number, where) not in tasks:
                    task = tasks[number, where] = _BlobTask(self, number, where)
                    if number in latest:
                        latest[number].successor = task
                    else:
                        self.ready.append(task)
                    latest[number] = task
                waiting.wait_for(tasks[number, where])
            if not waiting.blobs_to_come:
                self.ready.append(waiting)


class _ImageTask:
    __slots__ = ("_failure", "_image", "_job", "blobs_to_come", "lanes")

    def __init__(self, job: _Job, image: Image, where: str) -> None:
        self._job = job
        self._image = image
        self.lanes = _lanes(job.destination.lane(where))
        self.blobs_to_come = 0
        self._failure: AirgapError | None = None

    def wait_for(self, task: _BlobTask) -> None:
        self.blobs_to_come += 1
        task.images.append(self)

    def blob_settled(self, error: AirgapError | None) -> bool:
        """Take note of a blob; say whether the image can be put now."""
        self.blobs_to_come -= 1
        self._failure = self._failure or error
        if self.blobs_to_come == 0 and self._failure is not None:
            self._job.outcome.failed_images[self._image] = self._failure
        return self.blobs_to_come == 0 and self._failure is None

    def run(self) -> None:
        self._job.destination.put_image(self._image)

    def settle(self, error: AirgapError | None) -> Iterable[Work]:
        if error is None:
            self._job.outcome.images.append(self._image)
            self._job.progress.image()
        else:
            self._job.outcome.failed_images[self._image] = error
        return ()


class _BlobTask:
    __slots__ = (
        "_arrival",
        "_blob",
        "_counted",
        "_job",
        "_number",
        "_where",
        "images",
        "lanes",
        "successor",
    )

    def __init__(self, job: _Job, number: int, where: str) -> None:
        self._job = job
        self._number = number
        self._blob = job.plan.blobs[number]
        self._where = where
        self.lanes = _lanes(job.source.lane(self._blob), job.destination.lane(where))
        self._counted = 0
        self._arrival = Arrival.PRESENT
        self.images: list[_ImageTask] = []
        self.successor: _BlobTask | None = None

    def run(self) -> None:
        self._arrival = self._job.destination.put_blob(self._blob, self._where, self._read)
        self._count(self._blob.size)

    def settle(self, error: AirgapError | None) -> Iterable[Work]:
        outcome = self._job.outcome
        if error is not None:
            self._count(0)
            outcome.failed_blobs[self._number] = error
        elif self._arrival is Arrival.SENT:
            outcome.sent += 1
            outcome.sent_bytes += self._blob.size
        elif self._arrival is Arrival.MOUNTED:
            outcome.mounted += 1
        else:
            outcome.present += 1
        ready: list[Work] = [image for image in self.images if image.blob_settled(error)]
        return ready if self.successor is None else [self.successor, *ready]

    def _read(self, offset: int) -> Iterator[bytes]:
        self._count(offset)
        for piece in self._job.source.blob(self._blob, offset):
            if self._job.crew.ending:
                raise Interrupted
            yield piece
            self._count(self._counted + len(piece))

    def _count(self, position: int) -> None:
        """Tell how far this blob is, also when it starts over."""
        self._job.progress.advance(position - self._counted)
        self._counted = position


@lru_cache(maxsize=1024)  # One tuple for all blobs of a registry: there may be 100,000.
def _lanes(*lanes: str) -> tuple[str, ...]:
    """Return the registries that work needs; what needs none is in a lane of the local disk."""
    return tuple(dict.fromkeys(filter(None, lanes))) or ("",)
