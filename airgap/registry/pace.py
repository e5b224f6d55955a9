"""How many requests a registry is given at once: more while that helps, fewer when it says so.

Each registry starts with few. As long as more requests at once bring more content, their number
grows; where they bring nothing it goes back, and is tried again after a while. Being told to
slow down, or having connections cut, halves it. So a link of 40 ms and 300 small images is as
well used as loopback and one large layer. Pure decisions on what is reported to it: knows
nothing of requests but their number, nor of what they are for.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

from airgap import limits

if TYPE_CHECKING:
    from airgap.registry.retry import Clock

START = 4
MOST = 32
"""Requests at once at one registry, to begin with and at most."""

REQUEST = 64 * limits.KIB
"""A finished request counts as much as so many bytes: small content is all requests."""

_WINDOW = 0.25
_LONGEST_WINDOW = 5.0
_ROUND_TRIPS = 6
"""What is judged is the work of so many seconds, and of so many answers one after the other."""

_WINDOWS = 4
"""A trial lasts so many windows at most: what one of them shows may be a sixth off."""

_GAIN = 1.05
"""More at once must bring so much more, in a whole trial."""

_CLEAR = 1.4
"""So much more, or less, is believed at once."""

_PAUSE = 0.05
"""Seconds in which a registry is asked nothing, as between two stages of a run."""

_PATIENCE = 10.0
"""Seconds until more is tried again, after it brought nothing or was too much."""

_CALM = 1.0
"""Seconds in which further complaints are about the same crowd."""


class Pace:
    """The number of requests at once for each registry of a run. Safe for several threads."""

    def __init__(self, clock: Clock, most: int = MOST) -> None:
        self._clock = clock
        self._most = most
        self._lock = Lock()
        self._lanes: dict[str, _Lane] = {}

    def admits(self, lane: str, running: int) -> bool:
        """Say whether a registry may be given one request more than it is given now."""
        with self._lock:
            state, now = self._lane(lane), self._clock.monotonic()
            if not running and now - state.moved >= _PAUSE:
                state.begin_window(now)  # Where nothing was asked nothing could come.
            state.judge(now)
            if running < state.level:
                return True
            state.wants_more = True
            return False

    def level(self, lane: str) -> int:
        """Return how many requests a registry may be given at once."""
        with self._lock:
            return self._lane(lane).level

    def answered(self, lane: str, seconds: float) -> None:
        """Count a request, and how long its answer took to begin."""
        with self._lock:
            state = self._lane(lane)
            state.add(REQUEST, self._clock.monotonic())
            state.delay += (seconds - state.delay) / 8

    def moved(self, lane: str, size: int) -> None:
        """Count bytes of content, either way."""
        with self._lock:
            self._lane(lane).add(size, self._clock.monotonic())

    def too_much(self, lane: str) -> None:
        """Take note that a registry asked for less, or cut a connection under way."""
        with self._lock:
            self._lane(lane).shrink(self._clock.monotonic())

    def _lane(self, name: str) -> _Lane:
        if name not in self._lanes:
            self._lanes[name] = _Lane(now := self._clock.monotonic(), now, self._most)
        return self._lanes[name]


@dataclass
class _Lane:
    """What one registry has shown. Rates are work in a second.

    ``rate`` is the mean of ``windows`` that were seen at this level, of the last few of them.
    While more is tried, ``usual`` is what the level before brought.
    """

    since: float
    moved: float
    most: int
    level: int = START
    work: int = 0
    delay: float = 0.0
    wants_more: bool = False
    rate: float = 0.0
    windows: int = 0
    usual: float = 0.0
    before_trial: int = 0
    next_trial: float = 0.0
    calm_after: float = 0.0

    def __post_init__(self) -> None:
        self.level = min(self.level, self.most)

    def add(self, work: int, now: float) -> None:
        """Count work."""
        self.work += work
        self.moved = now

    def judge(self, now: float) -> None:
        """Draw a conclusion when enough has been seen."""
        elapsed = now - self.since
        window = min(max(_WINDOW, _ROUND_TRIPS * self.delay), _LONGEST_WINDOW)
        if elapsed < window or not self.work:
            return
        if self.wants_more:
            self._conclude(self.work / elapsed, now)
        self.begin_window(now)

    def shrink(self, now: float) -> None:
        """Halve, once for all complaints of a crowd."""
        if now >= self.calm_after:
            self._move_to(max(1, self.level // 2))
        self.calm_after = now + _CALM
        self.next_trial = now + _PATIENCE
        self.begin_window(now)

    def _conclude(self, rate: float, now: float) -> None:
        self.windows = min(self.windows + 1, _WINDOWS)
        self.rate += (rate - self.rate) / self.windows
        if self.before_trial:
            verdict = self._verdict()
            if verdict is False:
                self._move_to(self.before_trial)
                self.next_trial = now + _PATIENCE
            if not verdict:
                return
            self.before_trial = 0
        if now >= self.next_trial and self.level < self.most:
            level, usual = self.level, self.rate
            self._move_to(min(self.most, 2 * level))
            self.before_trial, self.usual = level, usual

    def _verdict(self) -> bool | None:
        """Say whether a trial brought more; None while that is not clear."""
        gain, is_over = self.rate / self.usual, self.windows == _WINDOWS
        if gain >= _CLEAR or (is_over and gain >= _GAIN):
            return True
        return False if is_over or gain * _CLEAR <= 1 else None

    def _move_to(self, level: int) -> None:
        """Have a level, of which nothing is known yet."""
        self.level = level
        self.rate, self.windows, self.before_trial = 0.0, 0, 0

    def begin_window(self, now: float) -> None:
        self.since, self.work, self.wants_more = now, 0, False
