"""Workers: pieces of work done at once, as many in each lane as that lane admits.

The one place with threads. Work is begun in the order in which it came, lane by lane, so that
one slow registry holds up nobody else's work; its conclusions are drawn in one thread, and may
bring further work. Knows nothing of what is done, nor of how much is good for a lane.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

from airgap.errors import AirgapError, Interrupted, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

Item = TypeVar("Item")
Answer = TypeVar("Answer")

THREADS = 64
"""Pieces of work at once in all lanes together."""

_LOOK_AGAIN = 0.1
"""Seconds after which lanes are asked again though nothing has ended."""


class Lanes(Protocol):
    """How much may run at once in each lane. It may change while work runs."""

    def admits(self, lane: str, running: int) -> bool:
        """Say whether one more may begin where so many run."""


@dataclass(frozen=True)
class AtMost:
    """Lanes that each admit so much, always."""

    most: int

    def admits(self, lane: str, running: int) -> bool:
        """Say whether one more may begin where so many run."""
        return running < self.most


class Work(Protocol):
    """One piece of work; all of ``lanes`` must admit it."""

    @property
    def lanes(self) -> tuple[str, ...]:
        """The lanes that it runs in, () for none."""

    def run(self) -> None:
        """Do it, in a worker."""

    def settle(self, error: AirgapError | None) -> Iterable[Work]:
        """Draw the conclusions, in the accounting thread; return what is to be done next."""


class Crew:
    """Does work until there is none left, or something ends it."""

    def __init__(
        self,
        lanes: Lanes,
        stop: threading.Event,
        is_fatal: Callable[[AirgapError], bool] = lambda error: False,
    ) -> None:
        self._lanes = lanes
        self._stop = stop
        self._is_fatal = is_fatal
        self._end: AirgapError | None = None

    @property
    def ending(self) -> bool:
        """Whether what is under way should be cut short."""
        return self._end is not None or self._stop.is_set()

    def carry_out(self, work: Iterable[Work]) -> None:
        """Do all work and what it brings; an error is the work's own to settle.

        StorageError, Interrupted and what is fatal end it: what is under way is awaited, then
        the error is raised.
        """
        waiting, running = _Waiting(work), 0
        in_lane: dict[str, int] = defaultdict(int)

        def has_room(lanes: tuple[str, ...]) -> bool:
            return all(self._lanes.admits(lane, in_lane[lane]) for lane in lanes)

        with _Threads() as threads:
            try:
                while running or (waiting and self._end is None):
                    while self._end is None and running < THREADS:
                        one = waiting.take(has_room)
                        if one is None:
                            break
                        for lane in one.lanes:
                            in_lane[lane] += 1
                        running += 1
                        threads.run(one, running)
                    for one, error in threads.ended():
                        running -= 1
                        for lane in one.lanes:
                            in_lane[lane] -= 1
                        self._settle(one, error, waiting)
                    if self._stop.is_set() and self._end is None:
                        self._end = Interrupted()
            except BaseException:
                self._stop.set()
                raise
        if self._end is not None:
            raise self._end

    def _settle(self, one: Work, error: BaseException | None, waiting: _Waiting) -> None:
        if error is None:
            waiting.put_first(one.settle(None))
        elif not isinstance(error, AirgapError):
            raise error
        elif self._end or isinstance(error, StorageError | Interrupted) or self._is_fatal(error):
            self._end = self._end or error
            if isinstance(error, StorageError):
                self._stop.set()  # Whoever waits for a registry waits for nothing.
        else:
            waiting.put_first(one.settle(error))


class _Threads:
    """Threads that do what they are given; as many as there was ever work at once.

    Bare queues, as a future for each of ten thousand small pieces of work costs as much as a
    tenth of the work.
    """

    def __init__(self) -> None:
        self._given: SimpleQueue[Work | None] = SimpleQueue()
        self._done: SimpleQueue[tuple[Work, BaseException | None]] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for _thread in self._threads:
            self._given.put(None)
        for thread in self._threads:
            thread.join()

    def run(self, one: Work, running: int) -> None:
        """Begin a piece of work; with it, so many are running."""
        if running > len(self._threads):
            thread = threading.Thread(target=self._serve, name=f"crew-{running}")
            thread.start()
            self._threads.append(thread)
        self._given.put(one)

    def ended(self) -> list[tuple[Work, BaseException | None]]:
        """Return what has ended, and how; wait a moment for the first."""
        ended = []
        with suppress(Empty):
            ended.append(self._done.get(timeout=_LOOK_AGAIN))
            while True:
                ended.append(self._done.get_nowait())
        return ended

    def _serve(self) -> None:
        while (one := self._given.get()) is not None:
            try:
                one.run()
            except BaseException as error:
                self._done.put((one, error))
            else:
                self._done.put((one, None))


def in_parallel(
    work: Callable[[Item], Answer],
    items: Sequence[Item],
    lanes: Lanes,
    lane_of: Callable[[Item], str],
    stop: threading.Event,
) -> list[Answer]:
    """Return ``work(item)`` for every item, in their order. The first error ends it."""
    answers: dict[int, Answer] = {}

    class Asked:
        def __init__(self, number: int, item: Item) -> None:
            self.lanes = (lane_of(item),)
            self._number = number
            self._item = item

        def run(self) -> None:
            answers[self._number] = work(self._item)

        def settle(self, error: AirgapError | None) -> Iterable[Work]:
            return ()

    Crew(lanes, stop, lambda error: True).carry_out(
        Asked(number, item) for number, item in enumerate(items)
    )
    return [answers[number] for number in range(len(items))]


class _Waiting:
    """Work that has not begun, in its order, sorted by the lanes it needs."""

    def __init__(self, work: Iterable[Work]) -> None:
        self._by_lanes: dict[tuple[str, ...], deque[tuple[int, Work]]] = defaultdict(deque)
        self._first = 0
        for number, one in enumerate(work):
            self._by_lanes[one.lanes].append((number, one))

    def __bool__(self) -> bool:
        return any(self._by_lanes.values())

    def put_first(self, work: Iterable[Work]) -> None:
        for one in reversed(list(work)):
            self._first -= 1
            self._by_lanes[one.lanes].appendleft((self._first, one))

    def take(self, has_room: Callable[[tuple[str, ...]], bool]) -> Work | None:
        """Return the first piece of work that there is room for."""
        queues = [queue for lanes, queue in self._by_lanes.items() if queue and has_room(lanes)]
        if not queues:
            return None
        _, one = min(queues, key=lambda queue: queue[0][0]).popleft()
        return one
