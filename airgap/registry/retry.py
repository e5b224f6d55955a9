"""When to try again and how long to wait before: one table, one loop, for every request.

Knows statuses and headers, not connections. Waiting can be interrupted, and its clock is
handed in, so that tests need no time.
"""

from __future__ import annotations

import logging
import random
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Protocol, TypeVar

from airgap import limits
from airgap.errors import AirgapError, Interrupted, RegistryError, Unreachable, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from threading import Event

    Told = Callable[[str, float], None]
    """Is told why something is tried again, and after how many seconds."""

T = TypeVar("T")

_log = logging.getLogger(__name__)

ATTEMPTS = 6
"""How often anything is tried, unless a row of the table says less."""

_FIRST_DELAY = 1.0
_LONGEST_DELAY = 60.0
_LONGEST_REQUESTED_DELAY = 300.0
_PROGRESS = limits.MIB

# Of a first delay: how long what was just written may take to show everywhere, 30 s together.
_SHOWING = (0.2, 0.4, 0.8, 1.6, 3.0, 4.0, 5.0, 5.0, 5.0, 5.0)

ATTEMPTS_BY_STATUS = {
    408: ATTEMPTS,
    425: ATTEMPTS,
    429: ATTEMPTS,
    # docker-registry answers 500 to some requests for ever.
    500: 3,
    **dict.fromkeys((499, 502, 503, 504, *range(520, 525)), ATTEMPTS),
}
"""The statuses that may pass; every other one is final."""


class Clock(Protocol):
    """Time that never jumps, and sleep that a request to stop cuts short."""

    def monotonic(self) -> float:
        """Return seconds since an arbitrary moment."""

    def sleep(self, seconds: float) -> None:
        """Wait. Raises Interrupted."""

    def check(self) -> None:
        """Raise Interrupted when the run has been asked to stop."""


class StoppableClock:
    """The system's monotonic clock; setting ``stop`` ends every wait with Interrupted."""

    def __init__(self, stop: Event) -> None:
        self._stop = stop

    def monotonic(self) -> float:
        """Return seconds since an arbitrary moment."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait. Raises Interrupted."""
        if self._stop.wait(seconds):
            self.check()

    def check(self) -> None:
        """Raise Interrupted when the run has been asked to stop."""
        if self._stop.is_set():
            raise Interrupted


class Temporary(Exception):
    """A failure that may pass. ``error`` is what it becomes when it does not.

    ``wait`` is the delay in seconds that the other side asked for. ``at_once`` marks a
    connection that was closed while idle: the first time, there is nothing to wait for.
    ``timed_out`` says that an answer did not come in time, ``why`` what happened, in few words,
    where neither that nor the error's status says it.
    """

    def __init__(
        self,
        error: AirgapError,
        *,
        attempts: int = ATTEMPTS,
        wait: float | None = None,
        at_once: bool = False,
        timed_out: bool = False,
        why: str = "",
    ) -> None:
        super().__init__(error.message)
        self.error = error
        self.attempts = attempts
        self.wait = wait
        self.at_once = at_once
        self.timed_out = timed_out
        self._why = why

    @property
    def why(self) -> str:
        """What happened, in words that are the same each time it happens."""
        status = self.error.status if isinstance(self.error, RegistryError) else None
        if self._why or self.timed_out:
            return self._why or "no answer in time"
        if status is not None:
            return f"answer {status}"
        return "no connection" if isinstance(self.error, Unreachable) else "wrong content"


def _nobody(why: str, seconds: float) -> None:
    """Tell nobody."""


class Standing:
    """What may still be hoped of a host, shared by all that is tried there.

    Once a piece of work has spent all its attempts on it, every other one has one attempt, until
    the host gives a sound answer again: ten thousand images do not each wait for a lost host.
    """

    def __init__(self) -> None:
        self.is_lost = False

    def given_up(self) -> None:
        """Take note that a piece of work has no attempt left."""
        self.is_lost = True

    def answered(self) -> None:
        """Take note of a sound answer, whatever it said."""
        self.is_lost = False


class Attempts:
    """Counts the failures of one piece of work, and waits after each as long as is right.

    ``told`` hears of each that is followed by another attempt. ``standing`` is that of the
    host which the work needs.
    """

    def __init__(
        self, clock: Clock, told: Told = _nobody, standing: Standing | None = None
    ) -> None:
        self._clock = clock
        self._told = told
        self._standing = standing or Standing()
        self._began = clock.monotonic()
        self._failures: list[int] = []
        self._progress = 0

    def failed(self, fault: Temporary) -> None:
        """Wait before the next attempt, or raise the fault's error: there is none left.

        The delay doubles, and half of it is chance: all attempts together take 15 s at least,
        in which a registry may start again. A longer delay that the other side asks for is
        waited for instead, but for none of more than five minutes: the error says how long it is.
        """
        self._failures.append(fault.attempts)
        count = len(self._failures)
        if self._standing.is_lost and isinstance(fault.error, Unreachable):
            raise self._given_up(fault.error, count, "as were others before") from fault
        if self._failures.count(fault.attempts) >= fault.attempts or count >= ATTEMPTS:
            if count >= ATTEMPTS and isinstance(fault.error, Unreachable):
                self._standing.given_up()
            raise self._given_up(fault.error, count) from fault
        if fault.wait is not None and fault.wait > _LONGEST_REQUESTED_DELAY:
            fault.error.hint = f"The host asks to wait {fault.wait:.0f} seconds; run again then."
            raise self._given_up(fault.error, count) from fault
        if fault.at_once and count == 1:
            self._told(fault.why, 0)
            return
        ceiling = min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** (count - 1))
        delay = max(random.uniform(ceiling / 2, ceiling), fault.wait or 0)
        self._told(fault.why, delay)
        _log.info("%s; trying again in %.1f s", printable(fault.error.message, 400), delay)
        self._clock.sleep(delay)

    def progressed(self, count: int) -> None:
        """Count bytes that arrived; after enough of them, earlier failures are forgotten."""
        self._progress += count
        if self._progress >= _PROGRESS:
            self._progress = 0
            self._failures.clear()

    def _given_up(self, error: AirgapError, count: int, also: str = "") -> AirgapError:
        seconds = self._clock.monotonic() - self._began
        if count > 1 or also:
            tries = "1 attempt" if count == 1 else f"{count} attempts in {seconds:.0f} s"
            error.message += f" (given up after {tries}{f', {also}' if also else ''})"
            error.args = (error.message,)
        return error


def persist(attempts: Attempts, attempt: Callable[[], T]) -> T:
    """Return what ``attempt`` returns, trying again while it raises Temporary."""
    while True:
        try:
            return attempt()
        except Temporary as fault:
            attempts.failed(fault)


def until_it_shows(
    clock: Clock, look: Callable[[], T], is_there: Callable[[T], bool], told: Told = _nobody
) -> T:
    """Look for what was just written, for half a minute; return what was seen last.

    Some registries have storage, or copies of themselves, that lag behind.
    """
    for part in _SHOWING:
        if is_there(seen := look()):
            return seen
        told("written, and not there yet", part * _FIRST_DELAY)
        clock.sleep(part * _FIRST_DELAY)
    return look()


def requested_delay(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that ``Retry-After`` asks for, in either of its forms.

    A date is measured from the answer's own ``Date``, as the local clock may be wrong.
    """
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
        sent = headers.get("Date")
        now = parsedate_to_datetime(sent) if sent else datetime.now(UTC)
        return max(0.0, (moment - now).total_seconds())
    except (TypeError, ValueError):
        return None


def refusal_as_fault(error: Unreachable, status: int, headers: Mapping[str, str]) -> Temporary:
    """Return the fault for a status of the table."""
    return Temporary(error, attempts=ATTEMPTS_BY_STATUS[status], wait=requested_delay(headers))
