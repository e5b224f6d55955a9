"""One command at work: its progress, the signals that end it, and how its errors end."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from airgap.cli import report
from airgap.cli.progress import progress_for
from airgap.errors import Interrupted
from airgap.progress import SILENT
from airgap.storage import remove_temporary_directories

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from airgap.progress import Progress

SIGNAL_STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}

GRACE_SECONDS = 3.0
"""How long a run may take to stop; one that waits for a silent registry or medium is cut off."""


class Stop(threading.Event):
    """Set by the first SIGINT or SIGTERM; ``status`` is the exit status that it asks for.

    A run that fails sets it as well, to end its threads; ``signalled`` says that a signal came.
    """

    status = 130
    signalled = False


@contextmanager
def stoppable(output_format: str) -> Iterator[Stop]:
    """Turn the first signal into an orderly stop; a second one ends the process at once.

    So does the time it takes: whatever is half done is what a kill would leave, and continues.
    """
    stop = Stop()
    end = threading.Timer(GRACE_SECONDS, lambda: _cut_off(stop.status, output_format))
    end.daemon = True

    def handle(number: int, _frame: FrameType | None) -> None:
        stop.status = SIGNAL_STATUS[signal.Signals(number)]
        if stop.signalled:
            _exit(stop.status)
        stop.signalled = True
        stop.set()
        end.start()

    previous = {number: signal.signal(number, handle) for number in SIGNAL_STATUS}
    try:
        yield stop
    finally:
        end.cancel()
        for number, handler in previous.items():
            signal.signal(number, handler)


def _cut_off(status: int, output_format: str) -> None:
    """End the process beside the threads that do not end."""
    try:
        report.echo_error(Interrupted(), output_format, status)
    finally:
        _exit(status)


def _exit(status: int) -> None:
    remove_temporary_directories()
    os._exit(status)


@contextmanager
def shown_progress(quiet: bool) -> Iterator[Progress]:
    """Yield a progress on stderr, or a silent one."""
    progress = SILENT if quiet else progress_for(sys.stderr)
    try:
        yield progress
    finally:
        progress.finish()
