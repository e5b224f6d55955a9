from __future__ import annotations

import pytest

from airgap.registry.pace import MOST, REQUEST, START, Pace
from tests.support.http import FakeClock

HOST = "quay.io"


class Link:
    """A registry that answers ``useful`` requests at once, each after ``delay`` seconds."""

    def __init__(self, useful: int, *, most: int = MOST, delay: float = 0.04) -> None:
        self.clock = FakeClock()
        self.pace = Pace(self.clock, most)
        self.useful = useful
        self.delay = delay

    def level(self) -> int:
        return self.pace.level(HOST)

    def admitted(self) -> int:
        """Ask for as much as is admitted at once, and for one more."""
        running = 0
        while self.pace.admits(HOST, running):
            running += 1
        return running

    def work(self, seconds: float) -> None:
        """Let there always be more to do than is admitted, for so long."""
        end = self.clock.monotonic() + seconds
        while self.clock.monotonic() < end:
            running = self.admitted()
            self.clock.now += self.delay
            for _ in range(min(running, self.useful)):
                self.pace.answered(HOST, self.delay)


def test_begins_with_few() -> None:
    assert Link(useful=64).level() == START


def test_grows_to_the_most_while_that_brings_more() -> None:
    link = Link(useful=64)
    link.work(2.0)
    assert link.level() == MOST


@pytest.mark.parametrize("most", [1, 3, 20])
def test_never_exceeds_what_was_allowed(most: int) -> None:
    link = Link(useful=64, most=most)
    link.work(5.0)
    assert link.level() == most


def test_goes_back_where_more_brings_nothing() -> None:
    link = Link(useful=START)
    link.work(2.0)
    assert link.level() == START


@pytest.mark.parametrize(("gain", "level"), [(1.01, START), (1.09, 2 * START)])
def test_a_small_gain_is_believed_after_a_while(gain: float, level: int) -> None:
    link = Link(useful=64)
    for _ in range(80):
        running = link.admitted()
        link.clock.now += 0.05
        for _ in range(running):
            link.pace.answered(HOST, 0.001)
        brought = 1.0 if running == START else gain
        link.pace.moved(HOST, round(brought * (4 << 20)) - running * REQUEST)
    assert link.level() == level


def test_what_brings_far_less_is_given_up_at_once() -> None:
    link = Link(useful=64)
    link.work(0.3)
    assert link.level() == 2 * START
    link.useful = 1
    link.work(0.3)
    assert link.level() == START


def test_a_pause_is_not_taken_for_a_crowd_that_brings_nothing() -> None:
    link = Link(useful=64)
    link.work(0.3)  # A trial of more has just begun.
    assert link.level() == 2 * START
    link.clock.now += 3.0
    link.work(0.3)
    assert link.level() == 4 * START


def test_stays_at_what_the_link_can_use() -> None:
    link = Link(useful=16)
    link.work(3.0)
    assert link.level() == 16


def test_tries_again_after_a_while() -> None:
    link = Link(useful=START)
    link.work(5.0)
    link.useful = 64
    link.work(30.0)
    assert link.level() == MOST


def test_does_not_grow_while_there_is_nothing_more_to_do() -> None:
    link = Link(useful=64)
    for _ in range(100):
        assert link.pace.admits(HOST, 0)
        link.clock.now += 0.04
        link.pace.answered(HOST, 0.04)
    assert link.level() == START


def test_halves_when_it_is_told_to_slow_down() -> None:
    link = Link(useful=64)
    link.work(2.0)
    link.pace.too_much(HOST)
    assert link.level() == MOST // 2


def test_complaints_of_one_crowd_halve_once() -> None:
    link = Link(useful=64)
    link.work(2.0)
    for _ in range(MOST):
        link.pace.too_much(HOST)
    assert link.level() == MOST // 2


def test_never_falls_below_one() -> None:
    link = Link(useful=64)
    for _ in range(10):
        link.pace.too_much(HOST)
        link.clock.now += 2
    assert link.level() == 1
    assert link.pace.admits(HOST, 0)
    assert not link.pace.admits(HOST, 1)


def test_registries_do_not_share_a_pace() -> None:
    link = Link(useful=64)
    link.work(2.0)
    link.pace.too_much("docker.io")
    assert link.level() == MOST
    assert link.pace.level("docker.io") == START // 2


def test_a_long_way_is_given_longer_before_it_is_judged() -> None:
    link = Link(useful=64, delay=0.3)
    link.work(12.0)
    assert link.level() == MOST


def test_bytes_count_as_much_as_requests() -> None:
    link = Link(useful=64)
    for _ in range(40):
        running = link.admitted()
        link.clock.now += 0.1
        link.pace.moved(HOST, running << 20)
    assert link.level() == MOST
