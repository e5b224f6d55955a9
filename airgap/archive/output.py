"""Where an archive goes that is written from front to back: a pipe, a tape, a socket."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from airgap.errors import StorageError

if TYPE_CHECKING:
    from airgap.digest import Bytes


class StreamOutput:
    """An open descriptor that is written to and never sought in; ``name`` is for messages."""

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self._name = name
        self._written = 0

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
            self._written += count
            view = view[count:]

    def finish(self) -> None:
        """Do nothing: whoever opened the descriptor closes it."""

    def _told(self, error: OSError) -> StorageError:
        if error.errno == errno.EPIPE:
            return StorageError(
                f"{self._name}: nobody reads any more, after {self._written:,} bytes",
                hint="See what the reading side says. A stream does not resume: run both sides"
                " again; what has arrived at a registry is not pushed again.",
            )
        return StorageError(
            f"{self._name}: {error.strerror} after {self._written:,} bytes",
            hint="A stream does not resume: run the same command again.",
        )
