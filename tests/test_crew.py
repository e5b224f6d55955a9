from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from airgap.crew import THREADS, AtMost, Crew, in_parallel
from airgap.errors import AirgapError, Interrupted, NotFound, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from airgap.crew import Lanes, Work


@dataclass
class Log:
    """What was begun, what was settled, and how many ran at once at the most, by lane."""

    begun: list[str] = field(default_factory=list)
    settled: dict[str, AirgapError | None] = field(default_factory=dict)
    running: Counter[str] = field(default_factory=Counter)
    most: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass
class Piece:
    log: Log
    name: str
    lanes: tuple[str, ...] = ("a",)
    does: Callable[[], object] = lambda: None
    brings: Sequence[Work] = ()

    def run(self) -> None:
        with self.log.lock:
            self.log.begun.append(self.name)
            self.log.running.update(self.lanes)
            self.log.most |= self.log.running
        try:
            self.does()
        finally:
            with self.log.lock:
                self.log.running.subtract(self.lanes)

    def settle(self, error: AirgapError | None) -> Iterable[Work]:
        self.log.settled[self.name] = error
        return self.brings


def carry_out(
    work: Iterable[Work],
    lanes: Lanes | None = None,
    stop: threading.Event | None = None,
    is_fatal: Callable[[AirgapError], bool] = lambda error: False,
) -> None:
    Crew(lanes or AtMost(4), stop or threading.Event(), is_fatal).carry_out(work)


def _raising(error: Exception) -> Callable[[], None]:
    def does() -> None:
        raise error

    return does


def test_work_in_one_lane_begins_in_its_order() -> None:
    log = Log()
    carry_out([Piece(log, str(n)) for n in range(50)], AtMost(1))
    assert log.begun == [str(n) for n in range(50)]


def test_no_lane_gets_more_than_it_admits() -> None:
    log, gate = Log(), threading.Barrier(3)
    pieces = [Piece(log, str(n), ("a",), does=lambda: gate.wait(5)) for n in range(9)]
    carry_out(pieces, AtMost(3))
    assert log.most["a"] == 3


def test_a_full_lane_does_not_hold_up_the_others() -> None:
    log, free = Log(), threading.Event()
    slow = [Piece(log, f"slow {n}", ("slow",), does=lambda: free.wait(5)) for n in (1, 2)]
    carry_out([*slow, Piece(log, "quick", ("quick",), does=free.set)], AtMost(1))
    assert log.begun == ["slow 1", "quick", "slow 2"]


def test_work_in_two_lanes_needs_room_in_both() -> None:
    log = Log()
    both = [Piece(log, str(n), ("a", "b")) for n in range(8)]
    carry_out([*both, *(Piece(log, f"b{n}", ("b",)) for n in range(8))], AtMost(1))
    assert log.most == Counter({"a": 1, "b": 1})


def test_what_work_brings_goes_before_all_that_waits() -> None:
    log = Log()
    brought = [Piece(log, "then"), Piece(log, "and then")]
    carry_out([Piece(log, "first", brings=brought), Piece(log, "last")], AtMost(1))
    assert log.begun == ["first", "then", "and then", "last"]


def test_lanes_that_open_up_later_are_noticed_while_work_runs() -> None:
    class Opening:
        most = 1

        def admits(self, lane: str, running: int) -> bool:
            return running < self.most

    log, lanes, second = Log(), Opening(), threading.Event()

    def first() -> None:
        lanes.most = 2
        assert second.wait(5)

    carry_out([Piece(log, "first", does=first), Piece(log, "second", does=second.set)], lanes)
    assert log.begun == ["first", "second"]


def test_an_error_is_settled_and_the_rest_goes_on() -> None:
    log, error = Log(), NotFound("not there")
    carry_out([Piece(log, "bad", does=_raising(error)), Piece(log, "good")], AtMost(1))
    assert log.settled == {"bad": error, "good": None}


@pytest.mark.parametrize("error", [StorageError("full"), Interrupted(), NotFound("fatal here")])
def test_what_is_fatal_ends_it_before_the_rest(error: AirgapError) -> None:
    log = Log()
    pieces = [Piece(log, "bad", does=_raising(error)), Piece(log, "never")]
    with pytest.raises(type(error)) as caught:
        carry_out(pieces, AtMost(1), is_fatal=lambda e: isinstance(e, NotFound))
    assert caught.value is error
    assert log.begun == ["bad"]


def test_a_failing_disk_ends_the_waits_of_all_others() -> None:
    stop, waits = threading.Event(), threading.Event()

    def waiting() -> None:
        waits.set()
        assert stop.wait(10)
        raise Interrupted

    def full() -> None:
        assert waits.wait(10)
        raise StorageError("full")

    pieces = [Piece(Log(), "waits", does=waiting), Piece(Log(), "fails", does=full)]
    with pytest.raises(StorageError, match="full"):
        carry_out(pieces, stop=stop)


def test_a_bug_is_raised_as_it_is() -> None:
    stop = threading.Event()
    with pytest.raises(ZeroDivisionError):
        carry_out([Piece(Log(), "bug", does=_raising(ZeroDivisionError()))], stop=stop)
    assert stop.is_set()


def test_a_bug_in_a_conclusion_is_raised_as_it_is() -> None:
    class Unsettled(Piece):
        def settle(self, error: AirgapError | None) -> Iterable[Work]:
            raise ZeroDivisionError

    log, stop = Log(), threading.Event()
    with pytest.raises(ZeroDivisionError):
        carry_out([Unsettled(log, "bug"), Piece(log, "never")], AtMost(1), stop)
    assert stop.is_set()
    assert log.begun == ["bug"]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("allowed", [0, 1, 3])
def test_a_system_that_gives_no_more_threads_does_not_make_it_hang(
    monkeypatch: pytest.MonkeyPatch, allowed: int
) -> None:
    start = threading.Thread.start
    started: list[threading.Thread] = []

    def limited(thread: threading.Thread) -> None:
        if len(started) == allowed:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    class Widening:
        most = 1

        def admits(self, lane: str, running: int) -> bool:
            return running < self.most

    log, lanes, stop = Log(), Widening(), threading.Event()

    def widen() -> None:
        lanes.most += 1
        stop.wait(0.05)

    monkeypatch.setattr(threading.Thread, "start", limited)
    with pytest.raises(RuntimeError, match="new thread"):
        carry_out([Piece(log, str(n), does=widen) for n in range(99)], lanes, stop)
    assert not any(thread.is_alive() for thread in started)


def test_a_request_to_stop_ends_it() -> None:
    log, stop = Log(), threading.Event()
    with pytest.raises(Interrupted):
        carry_out([Piece(log, str(n), does=stop.set) for n in range(9)], AtMost(1), stop)
    assert len(log.begun) < 9


def test_work_without_a_lane_is_limited_by_the_threads_alone() -> None:
    log, gate = Log(), threading.Barrier(THREADS)
    pieces = [Piece(log, str(n), (), does=lambda: gate.wait(5)) for n in range(THREADS)]
    carry_out(pieces, AtMost(1))
    assert len(log.settled) == THREADS


def test_answers_come_in_the_order_of_the_questions() -> None:
    def slow_first(n: int) -> int:
        time.sleep(0.01 if n == 0 else 0)
        return n

    answers = in_parallel(slow_first, range(20), AtMost(4), lambda n: "a", threading.Event())
    assert answers == list(range(20))


def test_the_first_error_ends_the_questions() -> None:
    asked: list[int] = []

    def work(n: int) -> int:
        asked.append(n)
        if n == 3:
            raise NotFound("3")
        return n

    with pytest.raises(NotFound):
        in_parallel(work, range(10_000), AtMost(2), lambda n: "a", threading.Event())
    assert len(asked) < 10_000
