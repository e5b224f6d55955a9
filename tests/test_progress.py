from __future__ import annotations

import io
import re
import time

import pytest

from airgap.cli.progress import (
    LineProgress,
    TerminalProgress,
    duration,
    print_line,
    progress_for,
    size,
)
from airgap.progress import SILENT, Progress


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class _Gone(io.StringIO):
    def write(self, _: str) -> int:
        raise BrokenPipeError


def _run(progress: Progress) -> None:
    progress.stage("asking", total_images=2)
    progress.image()
    progress.say("a line worth reading")
    progress.stage("fetching", total_bytes=4000, total_images=2)
    progress.advance(1500)
    progress.image()
    progress.advance(-500)
    progress.advance(3000)
    progress.image()
    progress.finish()
    progress.finish()


def test_a_terminal_gets_a_bar_and_everything_else_lines() -> None:
    assert isinstance(progress_for(_Terminal()), TerminalProgress)
    assert isinstance(progress_for(io.StringIO()), LineProgress)


def test_lines_say_each_stage_with_its_size() -> None:
    stream = io.StringIO()
    _run(LineProgress(stream))
    assert stream.getvalue().splitlines() == [
        "asking: 2 images",
        "a line worth reading",
        "fetching: 4.0 kB, 2 images",
    ]


def test_a_line_comes_now_and_then_with_rate_and_time_left() -> None:
    stream = io.StringIO()
    progress = LineProgress(stream, every=0.01)
    progress.stage("fetching", total_bytes=4000, total_images=2)
    progress.advance(1000)
    progress.image()
    deadline = time.monotonic() + 10
    while "1.0 kB of" not in stream.getvalue() and time.monotonic() < deadline:
        time.sleep(0.01)
    progress.finish()
    beat = stream.getvalue().splitlines()[-1]
    expected = r"fetching, 1\.0 kB of 4\.0 kB, [0-9.]+ k?B/s, \d+:\d\d left, 1 of 2 images"
    assert re.fullmatch(expected, beat)
    told = stream.getvalue()
    time.sleep(0.05)
    assert stream.getvalue() == told


def test_a_terminal_shows_bytes_rate_and_images() -> None:
    stream = _Terminal()
    _run(TerminalProgress(stream))
    shown = stream.getvalue()
    assert "a line worth reading" in shown
    assert "asking:  50%" in shown or "1/2" in shown
    assert "4.00k/4.00k" in shown
    assert "2/2 images" in shown


def test_bytes_do_not_move_a_bar_of_images() -> None:
    stream = _Terminal()
    progress = TerminalProgress(stream)
    progress.stage("asking", total_images=2)
    progress.advance(1000)
    progress.finish()
    assert "1000" not in stream.getvalue()


@pytest.mark.parametrize("stream", [io.StringIO(), _Terminal()])
def test_nothing_needs_a_stage(stream: io.StringIO) -> None:
    progress = progress_for(stream)
    progress.advance(1)
    progress.image()
    progress.finish()
    progress.say("alone")
    assert "alone" in stream.getvalue()


def test_that_nobody_reads_stops_nothing() -> None:
    print_line(_Gone(), "lost")
    _run(LineProgress(_Gone()))


def test_silence_is_silent() -> None:
    _run(SILENT)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1_234_567, "1.2 MB"),
        (5e9, "5.0 GB"),
        (7.25e14, "725.0 TB"),
        (9e17, "900000.0 TB"),
    ],
)
def test_bytes_are_told_in_decimal_units(count: float, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (61.9, "1:01"), (36_000, "10:00:00")])
def test_seconds_are_told_as_a_clock_does(seconds: float, text: str) -> None:
    assert duration(seconds) == text
