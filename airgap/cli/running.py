"""One command at work: its progress, the signals that end it, and how its errors end."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from airgap.cli.progress import progress_for
from airgap.progress import SILENT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from airgap.progress import Progress

SIGNAL_STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}


class Stop(threading.Event):
    """Set by the first SIGINT or SIGTERM; ``status`` is the exit status that it asks for."""

    status = 130


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Turn the first signal into an orderly stop; a second one ends the process at once."""
    stop = Stop()

    def handle(number: int, _frame: FrameType | None) -> None:
        stop.status = SIGNAL_STATUS[signal.Signals(number)]
        if stop.is_set():
            os._exit(stop.status)
        stop.set()

    previous = {number: signal.signal(number, handle) for number in SIGNAL_STATUS}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def shown_progress(quiet: bool) -> Iterator[Progress]:
    """Yield a progress on stderr, or a silent one."""
    progress = SILENT if quiet else progress_for(sys.stderr)
    try:
        yield progress
    finally:
        progress.finish()
