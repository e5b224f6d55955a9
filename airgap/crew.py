"""Workers: pieces of work done at once, as many in each lane as that lane admits.

The one place with threads. Work is begun in the order in which it came, lane by lane, so that
one slow registry holds up nobody else's work; its conclusions are drawn one after the other, and
may bring further work. Knows nothing of what is done, nor of how much is good for a lane.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Protocol, TypeVar

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
        """Draw the conclusions, while no other work does; return what is to be done next.

        Everything else waits meanwhile.
        """


class Crew:
    """Does work until there is none left, or something ends it.

    A worker that has finished settles its work and takes the next itself, under one lock: to
    hand each of ten thousand small pieces over to an accounting thread and back would cost more
    than the pieces.
    """

    def __init__(
        self,
        lanes: Lanes,
        stop: threading.Event,
        is_fatal: Callable[[AirgapError], bool] = lambda error: False,
    ) -> None:
        self._lanes = lanes
        self._stop = stop
        self._is_fatal = is_fatal
        self._end: BaseException | None = None
        self._changed = threading.Condition()
        self._waiting = _Waiting()
        self._running = 0
        self._in_lane: dict[str, int] = defaultdict(int)
        self._given: SimpleQueue[Work | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    @property
    def ending(self) -> bool:
        """Whether what is under way should be cut short."""
        return self._end is not None or self._stop.is_set()

    def carry_out(self, work: Iterable[Work]) -> None:
        """Do all work and what it brings; an error is the work's own to settle.

        StorageError, Interrupted and what is fatal end it: what is under way is awaited, then
        the error is raised.
        """
        try:
            with self._changed:
                self._waiting.put_last(work)
                self._hand_out()
                while self._running or (self._waiting and self._end is None):
                    self._changed.wait(_LOOK_AGAIN)
                    self._hand_out()
        except BaseException:
            self._stop.set()
            raise
        finally:
            with self._changed:  # Who is about to start a thread has done so then.
                for _thread in self._threads:
                    self._given.put(None)
            for thread in self._threads:
                thread.join()
        if self._end is not None:
            raise self._end

    def _serve(self) -> None:
        while (one := self._given.get()) is not None:
            while one is not None:
                error: BaseException | None = None
                try:
                    one.run()
                except BaseException as failure:
                    error = failure
                with self._changed:
                    one = self._ended(one, error)

    def _hand_out(self) -> None:
        """Give work to idle workers, or new ones, as long as there is room for more."""
        while (one := self._next()) is not None:
            self._given.put(one)  # Where no thread can be started, another one ends it.
            if self._running > len(self._threads):
                thread = threading.Thread(target=self._serve, name=f"crew-{self._running}")
                thread.start()
                self._threads.append(thread)

    def _next(self) -> Work | None:
        """Take the first work there is room for, and count it as running."""
        if self._stop.is_set() and self._end is None:
            self._end = Interrupted()
        if self._end is not None or self._running >= THREADS:
            return None
        one = self._waiting.take(self._has_room)
        if one is not None:
            self._running += 1
            for lane in one.lanes:
                self._in_lane[lane] += 1
        return one

    def _has_room(self, lanes: tuple[str, ...]) -> bool:
        return all(self._lanes.admits(lane, self._in_lane[lane]) for lane in lanes)

    def _ended(self, one: Work, error: BaseException | None) -> Work | None:
        """Settle work that has ended; return what its worker is to do next."""
        self._running -= 1
        for lane in one.lanes:
            self._in_lane[lane] -= 1
        further = None
        try:
            self._settle(one, error)
            further = self._next()
            self._hand_out()
        except BaseException as bug:
            self._end = bug
            self._stop.set()
        if not self._running:
            self._changed.notify()
        return further

    def _settle(self, one: Work, error: BaseException | None) -> None:
        if error is None:
            self._waiting.put_first(one.settle(None))
        elif not isinstance(error, AirgapError):
            raise error
        elif self._end or isinstance(error, StorageError | Interrupted) or self._is_fatal(error):
            self._end = self._end or error
            if isinstance(error, StorageError):
                self._stop.set()  # Whoever waits for a registry waits for nothing.
        else:
            self._waiting.put_first(one.settle(error))


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

    def __init__(self) -> None:
        self._by_lanes: dict[tuple[str, ...], deque[tuple[int, Work]]] = defaultdict(deque)
        self._first = self._last = 0

    def __bool__(self) -> bool:
        return any(self._by_lanes.values())

    def put_last(self, work: Iterable[Work]) -> None:
        for one in work:
            self._last += 1
            self._by_lanes[one.lanes].append((self._last, one))

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
