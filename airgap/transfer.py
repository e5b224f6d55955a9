"""Copying content in parallel, from any source to any destination.

The one place with threads: workers copy blobs, everything is kept account of between their
calls, in one thread. A blob that several places want goes to the first and is offered to the
next ones afterwards, so that a registry can mount it. An image is put when all its blobs have
arrived. Export, import and mirror are this transfer with other ends; it knows neither.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Protocol, TypeVar

from airgap.arrival import Arrival
from airgap.errors import AirgapError, Interrupted, StorageError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from airgap.plan import Blob, Image, Plan
    from airgap.progress import Progress


Item = TypeVar("Item")
Answer = TypeVar("Answer")

_AHEAD = 100
"""Items for each worker that are begun before the first is done: a slow one holds up few."""


class Source(Protocol):
    """Where content comes from."""

    def blob(self, blob: Blob, offset: int) -> Iterator[bytes]:
        """Yield a blob's bytes from ``offset`` on, unchecked, in pieces that stay unchanged."""


class Destination(Protocol):
    """Where content goes; its methods are called from several threads."""

    def where(self, image: Image) -> str:
        """Return the place that holds an image's blobs; images may share one."""

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
    workers: int,
    progress: Progress,
    stop: threading.Event,
    is_fatal: Callable[[AirgapError], bool] = lambda error: False,
    skip: frozenset[int] = frozenset(),
) -> Outcome:
    """Copy images; one that fails does not stop the others.

    ``skip`` are numbers of blobs that need no attention. StorageError, Interrupted and what
    ``is_fatal`` end the transfer: what is under way is cut short, then the error is raised.
    """
    end: AirgapError | None = None

    def ending() -> bool:
        return end is not None or stop.is_set()

    job = _Job(plan, images, source, destination, progress, skip, ending)
    with ThreadPoolExecutor(workers, thread_name_prefix="transfer") as pool:
        running: dict[Future[None], _Task] = {}
        try:
            while running or (job.ready and end is None):
                while job.ready and end is None and len(running) < workers:
                    task = job.ready.popleft()
                    running[pool.submit(task.run)] = task
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    task = running.pop(future)
                    error = future.exception()
                    if error is not None and not isinstance(error, AirgapError):
                        raise error
                    if error is None:
                        task.settle(None)
                    elif end or isinstance(error, StorageError | Interrupted) or is_fatal(error):
                        end = end or error
                    else:
                        task.settle(error)
                if stop.is_set() and end is None:
                    end = Interrupted()
        except BaseException:
            stop.set()
            raise
    if end is not None:
        raise end
    return job.outcome


def in_parallel(
    work: Callable[[Item], Answer],
    items: Iterable[Item],
    *,
    workers: int,
    stop: threading.Event,
) -> Iterator[Answer]:
    """Yield ``work(item)`` for every item, in the order of the items.

    The first error ends it: what is under way is awaited, then the error is raised.
    """
    left = iter(items)
    with ThreadPoolExecutor(workers, thread_name_prefix="ask") as pool:
        pending = deque(pool.submit(work, item) for item in islice(left, _AHEAD * workers))
        try:
            while pending:
                yield pending.popleft().result()
                if stop.is_set():
                    raise Interrupted
                pending.extend(pool.submit(work, item) for item in islice(left, 1))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


class _Task(Protocol):
    def run(self) -> None:
        """Do the work, in a worker."""

    def settle(self, error: AirgapError | None) -> None:
        """Draw the conclusions, in the accounting thread."""


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
        ending: Callable[[], bool],
    ) -> None:
        self.ending = ending
        self.plan = plan
        self.source = source
        self.destination = destination
        self.progress = progress
        self.outcome = Outcome()
        self.ready: deque[_Task] = deque()
        tasks: dict[tuple[int, str], _BlobTask] = {}
        latest: dict[int, _BlobTask] = {}
        for image in images:
            waiting = _ImageTask(self, image)
            where = destination.where(image)
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
    def __init__(self, job: _Job, image: Image) -> None:
        self._job = job
        self._image = image
        self.blobs_to_come = 0
        self._failure: AirgapError | None = None

    def wait_for(self, task: _BlobTask) -> None:
        self.blobs_to_come += 1
        task.images.append(self)

    def blob_settled(self, error: AirgapError | None) -> None:
        self.blobs_to_come -= 1
        self._failure = self._failure or error
        if self.blobs_to_come:
            return
        if self._failure is None:
            self._job.ready.appendleft(self)
        else:
            self._job.outcome.failed_images[self._image] = self._failure

    def run(self) -> None:
        self._job.destination.put_image(self._image)

    def settle(self, error: AirgapError | None) -> None:
        if error is None:
            self._job.outcome.images.append(self._image)
            self._job.progress.image()
        else:
            self._job.outcome.failed_images[self._image] = error


class _BlobTask:
    def __init__(self, job: _Job, number: int, where: str) -> None:
        self._job = job
        self._number = number
        self._blob = job.plan.blobs[number]
        self._where = where
        self._counted = 0
        self._arrival = Arrival.PRESENT
        self.images: list[_ImageTask] = []
        self.successor: _BlobTask | None = None

    def run(self) -> None:
        self._arrival = self._job.destination.put_blob(self._blob, self._where, self._read)
        self._count(self._blob.size)

    def settle(self, error: AirgapError | None) -> None:
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
        for image in self.images:
            image.blob_settled(error)
        if self.successor is not None:
            self._job.ready.appendleft(self.successor)

    def _read(self, offset: int) -> Iterator[bytes]:
        self._count(offset)
        for piece in self._job.source.blob(self._blob, offset):
            if self._job.ending():
                raise Interrupted
            yield piece
            self._count(self._counted + len(piece))

    def _count(self, position: int) -> None:
        """Tell how far this blob is, also when it starts over."""
        self._job.progress.advance(position - self._counted)
        self._counted = position
