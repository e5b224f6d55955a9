from __future__ import annotations

import random
import threading
import time

import pytest

from airgap.errors import IntegrityError, Interrupted, Unreachable
from airgap.registry.retry import (
    ATTEMPTS,
    Attempts,
    Standing,
    StoppableClock,
    Temporary,
    persist,
    refusal_as_fault,
    requested_delay,
    until_it_shows,
)
from tests.support.http import FakeClock

DATE = "Thu, 01 Jan 1970 00:"


def fault(**more: float) -> Temporary:
    return Temporary(Unreachable("it broke"), **more)  # type: ignore[arg-type]  # test's shorthand


def test_gives_up_after_the_last_attempt_and_says_how_many() -> None:
    clock, calls = FakeClock(), []

    def attempt() -> None:
        calls.append(1)
        raise fault()

    with pytest.raises(Unreachable, match=r"it broke \(given up after 6 attempts in \d+ s\)"):
        persist(Attempts(clock), attempt)
    assert len(calls) == ATTEMPTS
    assert len(clock.slept) == ATTEMPTS - 1


def test_the_delay_doubles_at_most_and_stays_below_a_minute() -> None:
    clock = FakeClock()
    attempts = Attempts(clock)
    for _ in range(ATTEMPTS - 1):
        attempts.failed(fault())
    assert all(0 <= delay <= min(60, 2**n) for n, delay in enumerate(clock.slept))


def test_all_attempts_last_long_enough_for_a_registry_to_start_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(random, "uniform", lambda least, most: least)
    clock = FakeClock()
    attempts = Attempts(clock)
    for _ in range(ATTEMPTS - 1):
        attempts.failed(fault())
    assert sum(clock.slept) >= 15


def test_a_host_that_one_has_given_up_is_not_waited_for_by_the_others() -> None:
    clock, standing = FakeClock(), Standing()
    first = Attempts(clock, standing=standing)
    with pytest.raises(Unreachable):
        for _ in range(ATTEMPTS):
            first.failed(fault())
    clock.slept.clear()
    with pytest.raises(Unreachable, match=r"\(given up after 1 attempt, as were others before\)"):
        Attempts(clock, standing=standing).failed(fault())
    assert clock.slept == []


def test_a_host_that_answers_again_is_waited_for_again() -> None:
    clock, standing = FakeClock(), Standing()
    standing.given_up()
    standing.answered()
    Attempts(clock, standing=standing).failed(fault())
    assert len(clock.slept) == 1


def test_wrong_content_says_nothing_about_its_host() -> None:
    standing = Standing()
    attempts = Attempts(FakeClock(), standing=standing)
    with pytest.raises(IntegrityError):
        for _ in range(ATTEMPTS):
            attempts.failed(Temporary(IntegrityError("wrong")))
    assert not standing.is_lost


@pytest.mark.parametrize(
    ("failure", "why"),
    [
        (Temporary(Unreachable("x", status=503)), "answer 503"),
        (Temporary(Unreachable("x")), "no connection"),
        (Temporary(Unreachable("x"), timed_out=True), "no answer in time"),
        (Temporary(IntegrityError("x")), "wrong content"),
        (Temporary(Unreachable("x", status=404), why="it was lost"), "it was lost"),
    ],
)
def test_tells_why_it_tries_again_and_after_how_long(failure: Temporary, why: str) -> None:
    clock, told = FakeClock(), list[tuple[str, float]]()
    attempts = Attempts(clock, lambda why, seconds: told.append((why, seconds)))
    attempts.failed(failure)
    assert told == [(why, clock.slept[0])]
    with pytest.raises(type(failure.error)):
        for _ in range(ATTEMPTS):
            attempts.failed(failure)
    assert len(told) == ATTEMPTS - 1, "what is given up is not tried again"


@pytest.mark.parametrize("looks", [1, 2, 5])
def test_what_was_written_may_show_late(looks: int) -> None:
    clock, seen = FakeClock(), iter(range(1, 100))
    assert until_it_shows(clock, lambda: next(seen), lambda look: look == looks) == looks
    assert len(clock.slept) == looks - 1
    assert clock.slept == sorted(clock.slept)


def test_what_does_not_show_in_half_a_minute_is_not_there() -> None:
    clock = FakeClock()
    assert until_it_shows(clock, lambda: None, lambda look: look is not None) is None
    assert sum(clock.slept) == pytest.approx(30)


def test_waits_as_long_as_it_is_asked_to() -> None:
    clock = FakeClock()
    Attempts(clock).failed(fault(wait=42))
    assert clock.slept == [42]


def test_a_wait_of_nothing_that_is_asked_for_does_not_spend_the_attempts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(random, "uniform", lambda least, most: least)
    clock = FakeClock()
    attempts = Attempts(clock)
    for _ in range(ATTEMPTS - 1):
        attempts.failed(fault(wait=0))
    assert sum(clock.slept) >= 15


def test_does_not_wait_longer_than_five_minutes() -> None:
    clock = FakeClock()
    with pytest.raises(Unreachable) as caught:
        Attempts(clock).failed(fault(wait=301))
    assert clock.slept == []
    assert "301 seconds" in (caught.value.hint or "")


def test_a_server_error_is_believed_sooner_than_an_overload() -> None:
    attempts = Attempts(FakeClock())
    for _ in range(2):
        attempts.failed(refusal_as_fault(Unreachable("x"), 500, {}))
    with pytest.raises(Unreachable):
        attempts.failed(refusal_as_fault(Unreachable("x"), 500, {}))


def test_an_idle_connection_that_was_closed_is_replaced_at_once() -> None:
    clock = FakeClock()
    attempts = Attempts(clock)
    attempts.failed(Temporary(Unreachable("x"), at_once=True))
    assert clock.slept == []
    attempts.failed(Temporary(Unreachable("x"), at_once=True))
    assert len(clock.slept) == 1


def test_progress_makes_earlier_failures_forgotten() -> None:
    attempts = Attempts(FakeClock())
    for _ in range(4 * ATTEMPTS):
        attempts.failed(fault())
        attempts.progressed(1 << 20)


def test_little_progress_does_not() -> None:
    attempts = Attempts(FakeClock())
    with pytest.raises(Unreachable):
        for _ in range(ATTEMPTS):
            attempts.failed(fault())
            attempts.progressed(1000)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"Retry-After": "17"}, 17.0),
        ({"Retry-After": " 0 "}, 0.0),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "٣"}, None),
        (
            {"Retry-After": DATE + "17:10 GMT", "Date": DATE + "16:40 GMT"},
            30.0,
        ),
        ({"Retry-After": DATE + "15:00 GMT", "Date": DATE + "16:40 GMT"}, 0.0),
        ({"Retry-After": DATE + "15:00 GMT", "Date": "nonsense"}, None),
    ],
)
def test_reads_both_forms_of_retry_after(headers: dict[str, str], expected: float | None) -> None:
    assert requested_delay(headers) == expected


def test_stopping_ends_a_wait_at_once() -> None:
    stop = threading.Event()
    timer = threading.Timer(0.05, stop.set)
    timer.start()
    began = time.monotonic()
    with pytest.raises(Interrupted):
        StoppableClock(stop).sleep(60)
    assert time.monotonic() - began < 10
    timer.join()
