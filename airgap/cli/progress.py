"""Progress on a terminal, and a line now and then where there is none."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn, TextIO

if TYPE_CHECKING:
    from tqdm import tqdm

    from airgap.progress import Progress

HEARTBEAT_SECONDS = 30.0


class TerminalProgress:
    """A bar with bytes, rate, time left and images."""

    def __init__(self, stream: TextIO) -> None:
        from tqdm import tqdm  # It takes as long to load as a command, and is for terminals.

        self._tqdm = tqdm
        self._stream = stream
        self._bar: tqdm[NoReturn] | None = None
        self._images = self._total_images = 0
        self._lock = threading.Lock()

    def stage(self, name: str, *, total_bytes: int = 0, total_images: int = 0) -> None:
        """Begin a bar."""
        self.finish()
        with self._lock:
            self._images, self._total_images = 0, total_images
            in_bytes = bool(total_bytes)
            self._bar = self._tqdm(
                desc=name,
                total=total_bytes or total_images or None,
                unit="B" if in_bytes else "image",
                unit_scale=in_bytes,
                unit_divisor=1000,
                file=self._stream,
                dynamic_ncols=True,
                leave=True,
            )

    def advance(self, count: int) -> None:
        """Move the bar by bytes."""
        with self._lock:
            if self._bar is not None and self._bar.unit == "B":
                self._bar.update(count)

    def image(self) -> None:
        """Count an image, beside the bytes or as the bar itself."""
        with self._lock:
            self._images += 1
            if self._bar is None:
                return
            if self._bar.unit == "B":
                images = f"{self._images}/{self._total_images} images"
                self._bar.set_postfix_str(images, refresh=False)
            else:
                self._bar.update(1)

    def say(self, message: str) -> None:
        """Print a line above the bar."""
        with self._lock:
            self._tqdm.write(message, file=self._stream)

    def finish(self) -> None:
        """End the bar, leaving its last state."""
        with self._lock:
            if self._bar is not None:
                self._bar.close()
                self._bar = None


class LineProgress:
    """A line at the beginning of a stage, every 30 seconds, and at its end."""

    def __init__(self, stream: TextIO, every: float = HEARTBEAT_SECONDS) -> None:
        self._stream = stream
        self._every = every
        self._name = ""
        self._bytes = self._total_bytes = self._images = self._total_images = 0
        self._begun = 0.0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._heart: threading.Thread | None = None

    def stage(self, name: str, *, total_bytes: int = 0, total_images: int = 0) -> None:
        """Begin a stage."""
        self.finish()
        self._name, self._begun = name, time.monotonic()
        self._bytes, self._total_bytes = 0, total_bytes
        self._images, self._total_images = 0, total_images
        self.say(f"{name}{self._amount()}")
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat, args=(self._ended,), daemon=True)
        self._heart.start()

    def advance(self, count: int) -> None:
        """Count bytes."""
        with self._lock:
            self._bytes += count

    def image(self) -> None:
        """Count an image."""
        with self._lock:
            self._images += 1

    def say(self, message: str) -> None:
        """Print a line."""
        print_line(self._stream, message)

    def finish(self) -> None:
        """End the stage."""
        if self._heart is not None:
            self._ended.set()
            self._heart.join()
            self._heart = None

    def _beat(self, ended: threading.Event) -> None:
        while not ended.wait(self._every):
            self.say(self._line())

    def _amount(self) -> str:
        parts = []
        if self._total_bytes:
            parts.append(size(self._total_bytes))
        if self._total_images:
            parts.append(f"{self._total_images} images")
        return f": {', '.join(parts)}" if parts else ""

    def _line(self) -> str:
        with self._lock:
            done, images = self._bytes, self._images
        parts = [self._name]
        if self._total_bytes:
            rate = done / max(time.monotonic() - self._begun, 0.001)
            parts.append(f"{size(done)} of {size(self._total_bytes)}")
            parts.append(f"{size(rate)}/s")
            if rate > 0:
                parts.append(f"{duration((self._total_bytes - done) / rate)} left")
        if self._total_images:
            parts.append(f"{images} of {self._total_images} images")
        return ", ".join(parts)


def progress_for(stream: TextIO) -> Progress:
    """Return the kind of progress that fits a stream."""
    return TerminalProgress(stream) if stream.isatty() else LineProgress(stream)


def print_line(stream: TextIO, message: str) -> None:
    """Write one whole line, so that lines of several threads do not mix.

    That nobody reads it any more, or that it has no room, is no reason to stop the work.
    """
    with suppress(OSError):
        stream.write(message + "\n")
        stream.flush()


def size(count: float) -> str:
    """Return bytes for a person: decimal units, as disks are sold."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def duration(seconds: float) -> str:
    """Return seconds for a person."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
