"""Where an archive goes that is written from front to back: a pipe, a tape, a socket, a file."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from airgap.errors import StorageError
from airgap.storage import storage_errors, write_at

if TYPE_CHECKING:
    from pathlib import Path

    from airgap.digest import Bytes


class StreamOutput:
    """An open descriptor that is written to and never sought in; ``name`` is for messages.

    ``written`` is how many bytes have left.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self._name = name
        self.written = 0

    def begin(self) -> None:
        """Do nothing: to a plain stream all bytes are alike."""

    def write(self, data: Bytes) -> None:
        """Write all of it. Raises StorageError, also when nobody reads any more."""
        view = memoryview(data)
        while view:
            try:
                count = os.write(self._descriptor, view)
            except OSError as error:
                raise self._told(error) from error
            self.written += count
            view = view[count:]

    def finish(self) -> None:
        """Do nothing: whoever opened the descriptor closes it."""

    def _told(self, error: OSError) -> StorageError:
        if error.errno == errno.EPIPE:
            return StorageError(
                f"{self._name}: nobody reads any more, after {self.written:,} bytes",
                hint="See what the reading side says. A stream does not resume: run both sides"
                " again; what has arrived at a registry is not pushed again.",
            )
        return StorageError(
            f"{self._name}: {error.strerror} after {self.written:,} bytes",
            hint="A stream does not resume: run the same command again.",
        )


class FileOutput:
    """A file that is written from ``written`` bytes on; what it has beyond them is cut off."""

    def __init__(self, path: Path, written: int = 0) -> None:
        """Open it, or make it. Raises StorageError."""
        self.path = path
        self.written = written
        with storage_errors(path):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            os.ftruncate(self._descriptor, written)

    def begin(self) -> None:
        """Do nothing: to a plain file all bytes are alike."""

    def write(self, data: Bytes) -> None:
        """Write all of it. Raises StorageError."""
        with storage_errors(self.path):
            write_at(self._descriptor, data, self.written)
        self.written += len(data)

    def finish(self) -> None:
        """Make it last. Raises StorageError."""
        with storage_errors(self.path):
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file; once more changes nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
