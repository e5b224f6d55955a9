"""What a command costs: run it as a process of its own, and ask the kernel.

Knows how to measure and how to take turns; refuses to know what is run, or what is good.
"""

from __future__ import annotations

import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_T = TypeVar("_T")
Command = list[str | Path]

ROOT = Path(__file__).resolve().parents[2]

_KIB = 1 << 10


class Failed(Exception):
    """A contestant ended with an error; its own words are the message."""


_AS_INSTALLED = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
"""What pip installs is compiled; a checkout is at its first run, if it may."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a command took: seconds, bytes, and when each line that it said came.

    ``memory`` is the peak of the largest of its processes. ``written`` counts what went
    through write() and its like: files, not airgap's sockets. ``requests`` are those that a
    registry answered, where somebody counted them.
    """

    wall: float
    processor: float
    memory: int
    written: int
    said: Mapping[str, float] = field(default_factory=dict)
    requests: int = 0

    def __add__(self, other: Cost) -> Cost:
        """Return the cost of one command after the other."""
        return Cost(
            self.wall + other.wall,
            self.processor + other.processor,
            max(self.memory, other.memory),
            self.written + other.written,
            requests=self.requests + other.requests,
        )

    def since(self, line: str) -> float:
        """Return the seconds from the first line that begins so to the command's end."""
        for said, at in self.said.items():
            if said.startswith(line):
                return self.wall - at
        raise Failed(f"no line that begins with {line!r} was said in every run")


def measured(command: Command, output: Path | None = None) -> Cost:
    """Run a command to its end and return what it cost. Raises Failed.

    What it prints goes to the file ``output``, or is lost.
    """
    with (output or Path(os.devnull)).open("wb") as stdout:
        begun = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=_AS_INSTALLED,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert process.stderr is not None
    try:
        said: dict[str, float] = {}
        with process.stderr as stderr:
            for line in stderr:
                said.setdefault(line.strip(), time.monotonic() - begun)
        # A process that has ended and is not yet waited for still says what it wrote.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        wall = time.monotonic() - begun
        written = _written(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    finally:
        if process.returncode is None:
            process.kill()
            process.wait()
    if process.returncode:
        raise Failed(f"{' '.join(map(str, command))}\n" + "\n".join([*said][-5:]))
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * _KIB, written, said)


def measured_together(commands: Sequence[Command], at_once: int) -> Cost:
    """Run commands, so many ``at_once``, and return what all of them cost. Raises Failed."""
    begun = time.monotonic()
    with ThreadPoolExecutor(at_once) as pool:
        costs = list(pool.map(measured, commands))
    return replace(reduce(Cost.__add__, costs), wall=time.monotonic() - begun)


def take_turns(
    contestants: Mapping[str, Callable[[], _T]], runs: int, say: Callable[[int, str], None]
) -> dict[str, list[_T]]:
    """Return what each contestant gave in so many rounds; ``say`` hears of each turn.

    Each round begins with another one, so that none always follows the same.
    """
    given: dict[str, list[_T]] = {name: [] for name in contestants}
    order = list(contestants)
    for run in range(runs):
        for name in order:
            say(run + 1, name)
            given[name].append(contestants[name]())
        order.append(order.pop(0))
    return given


def middle(costs: Sequence[Cost]) -> Cost:
    """Return the median of each number by itself."""
    lines = [line for line in costs[0].said if all(line in cost.said for cost in costs)]
    return Cost(
        median(cost.wall for cost in costs),
        median(cost.processor for cost in costs),
        int(median(cost.memory for cost in costs)),
        int(median(cost.written for cost in costs)),
        {line: median(cost.said[line] for cost in costs) for line in lines},
        int(median(cost.requests for cost in costs)),
    )


def _written(process: int) -> int:
    lines = Path(f"/proc/{process}/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar:"))
