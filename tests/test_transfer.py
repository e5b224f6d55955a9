from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from airgap.arrival import Arrival
from airgap.crew import AtMost
from airgap.errors import AirgapError, Interrupted, NotFound, StorageError, Unreachable
from airgap.progress import SILENT, Silent
from airgap.transfer import Outcome, transfer
from tests.support.plans import Content, some_content

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airgap.plan import Blob, Image, Plan


@dataclass
class Shelf:
    """A destination in memory: one place for each image's repository, or one for all."""

    apart: bool = True
    held: dict[str, set[Blob]] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)
    failing: dict[str, AirgapError] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def where(self, image: Image) -> str:
        return image.reference if self.apart else ""

    def lane(self, where: str) -> str:
        return where

    def put_blob(self, blob: Blob, where: str, read: Callable[[int], Iterator[bytes]]) -> Arrival:
        elsewhere = any(blob in blobs for blobs in self.held.values())
        if not elsewhere:
            b"".join(read(0))
        with self.lock:
            self.held.setdefault(where, set()).add(blob)
        return Arrival.MOUNTED if elsewhere else Arrival.SENT

    def put_image(self, image: Image) -> None:
        if image.reference in self.failing:
            raise self.failing[image.reference]
        with self.lock:
            self.events.append(image.reference)


def _run(
    content: Content,
    shelf: Shelf,
    *,
    workers: int = 4,
    stop: threading.Event | None = None,
    is_fatal: Callable[[AirgapError], bool] = lambda error: False,
    progress: Silent | None = None,
) -> tuple[Plan, Outcome]:
    plan = content.plan()
    outcome = transfer(
        plan,
        plan.images,
        content,
        shelf,
        lanes=AtMost(workers),
        progress=progress or SILENT,
        stop=stop or threading.Event(),
        is_fatal=is_fatal,
    )
    return plan, outcome


@pytest.mark.parametrize("workers", [1, 4, 16])
def test_a_blob_is_read_once_and_offered_to_every_further_place(workers: int) -> None:
    content, shelf = some_content(images=6), Shelf()
    plan, outcome = _run(content, shelf, workers=workers)
    assert len(content.asked) == len(plan.blobs) == outcome.sent
    assert outcome.mounted == sum(len(plan.blobs_of(i)) for i in plan.images) - len(plan.blobs)
    assert outcome.sent_bytes == sum(blob.size for blob in plan.blobs)


def test_one_place_for_all_takes_each_blob_once() -> None:
    plan, outcome = _run(some_content(), Shelf(apart=False))
    assert (outcome.sent, outcome.mounted) == (len(plan.blobs), 0)


def test_an_image_is_put_when_all_its_blobs_are_there() -> None:
    class Strict(Shelf):
        def put_image(self, image: Image) -> None:
            assert {plan.blobs[n] for n in plan.blobs_of(image)} <= self.held[image.reference]
            super().put_image(image)

    content, shelf = some_content(images=6), Strict()
    plan = content.plan()
    _, outcome = _run(content, shelf)
    assert {i.reference for i in outcome.images} == {i.reference for i in plan.images}
    assert sorted(shelf.events) == sorted(i.reference for i in plan.images)


def test_a_blob_that_fails_costs_the_images_that_need_it_and_no_other() -> None:
    content = some_content()
    plan = content.plan()
    image = plan.images[2]
    others = {n for i in plan.images if i != image for n in plan.blobs_of(i)}
    own = next(n for n in plan.blobs_of(image) if n not in others)
    content.absent.add(plan.blobs[own].digest)
    _, outcome = _run(content, Shelf())
    assert list(outcome.failed_images) == [image]
    assert list(outcome.failed_blobs) == [own]
    assert isinstance(outcome.failed_images[image], NotFound)
    assert len(outcome.images) == len(plan.images) - 1


def test_an_image_that_cannot_be_put_costs_itself() -> None:
    shelf = Shelf(failing={"quay.io/lab/image-1:v1": NotFound("no")})
    _, outcome = _run(some_content(), shelf)
    assert [image.reference for image in outcome.failed_images] == ["quay.io/lab/image-1:v1"]


@pytest.mark.parametrize("error", [StorageError("full"), Interrupted("stop"), Unreachable("down")])
def test_what_is_fatal_ends_the_transfer(error: AirgapError) -> None:
    shelf = Shelf(failing={"quay.io/lab/image-1:v1": error})
    with pytest.raises(type(error)):
        _run(some_content(), shelf, is_fatal=lambda e: isinstance(e, Unreachable))


def test_a_bug_is_not_taken_for_a_missing_image() -> None:
    class Buggy(Shelf):
        def put_image(self, image: Image) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        _run(some_content(), Buggy())


def test_a_request_to_stop_ends_the_transfer_before_the_rest() -> None:
    stop = threading.Event()

    class Stopping(Shelf):
        def put_image(self, image: Image) -> None:
            super().put_image(image)
            stop.set()

    shelf = Stopping()
    with pytest.raises(Interrupted):
        _run(some_content(images=30), shelf, workers=1, stop=stop)
    assert len(shelf.events) < 30


SOON = 1.0


class Slow(Content):
    """A source that gives a hundred bytes a second."""

    def blob(self, blob: Blob, offset: int) -> Iterator[bytes]:
        for data in super().blob(blob, offset):
            for start in range(len(data)):
                time.sleep(0.01)
                yield data[start : start + 1]


def test_a_request_to_stop_ends_what_is_under_way() -> None:
    stop = threading.Event()
    begun = time.monotonic()
    threading.Timer(0.2, stop.set).start()
    with pytest.raises(Interrupted):
        _run(Slow(**vars(some_content())), Shelf(), stop=stop)
    assert time.monotonic() < begun + 0.2 + SOON


@pytest.mark.parametrize("error", [StorageError("full"), Unreachable("down")])
def test_an_error_that_ends_the_transfer_ends_what_is_under_way(error: AirgapError) -> None:
    class Failing(Shelf):
        is_first = threading.Lock()

        def put_blob(
            self, blob: Blob, where: str, read: Callable[[int], Iterator[bytes]]
        ) -> Arrival:
            if self.is_first.acquire(blocking=False):
                raise error
            return super().put_blob(blob, where, read)

    begun = time.monotonic()
    with pytest.raises(type(error)) as caught:
        _run(Slow(**vars(some_content())), Failing(), is_fatal=lambda e: e is error)
    assert caught.value is error
    assert time.monotonic() < begun + SOON


def test_progress_adds_up_to_the_total_whatever_happens() -> None:
    class Counting(Silent):
        total = 0

        def advance(self, count: int) -> None:
            self.total += count

    content = some_content()
    plan = content.plan()
    content.absent.add(plan.blobs[1].digest)
    progress = Counting()
    _run(content, Shelf(apart=False), workers=1, progress=progress)
    assert progress.total == sum(b.size for n, b in enumerate(plan.blobs) if n != 1)
