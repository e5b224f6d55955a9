"""Files on a medium that may be full, slow, read-only or suddenly gone.

Translates what the operating system says into words for the operator, once. Knows nothing of
what is in the files.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from airgap import limits
from airgap.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    Bytes = bytes | bytearray | memoryview

_GONE = "The medium has gone; connect it and run the same command again."

_HINTS = {
    errno.ENOSPC: "Free some space or use a larger medium, then run the same command again.",
    errno.EDQUOT: "Raise the quota or use another place, then run the same command again.",
    errno.EFBIG: "This file system takes no file of that size; use another (exFAT, ext4, XFS).",
    errno.EROFS: "The medium is read-only.",
    errno.EIO: "The medium or its connection fails, or it was taken out; check the cable and the"
    " system log, then run the same command again.",
    errno.ENODEV: _GONE,
    errno.ENXIO: _GONE,
    errno.ENOMEDIUM: _GONE,
    errno.ENOTCONN: _GONE,
    errno.ESTALE: _GONE,
    errno.EACCES: "Check the permissions.",
    errno.ENOLCK: "This file system cannot lock files; write to another and copy the result.",
}

_BLOCK = 512
"""The unit of st_blocks, whatever the file system's is."""

_temporary: set[str] = set()


def storage_errors(path: Path) -> _InWords:
    """Turn an OSError inside the block into a StorageError that names the file."""
    return _InWords(path)


class _InWords:
    """A block around every read and write: a generator's costs several calls more."""

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, traceback: object) -> None:
        if not isinstance(error, OSError):
            return
        reason = error.strerror or str(error)
        place = error.filename2 or error.filename or self._path
        exactly = f" ({place})" if str(place) != str(self._path) else ""
        raise StorageError(
            f"{self._path}: {reason}{exactly}", hint=_HINTS.get(error.errno or 0)
        ) from error


@contextmanager
def temporary_directory() -> Iterator[Path]:
    """Give a directory that is gone with all that is in it after the block. StorageError."""
    try:
        directory = tempfile.TemporaryDirectory(prefix="airgap-", ignore_cleanup_errors=True)
    except OSError as error:
        raise StorageError(
            f"no temporary directory: {error}",
            hint="Set TMPDIR to a directory with room.",
        ) from error
    _temporary.add(directory.name)
    try:
        with directory as name:
            yield Path(name)
    finally:
        _temporary.discard(directory.name)


class Scratch:
    """A file without a name, gone when it is closed or the process ends."""

    def __init__(self) -> None:
        """Make one. Raises StorageError, as all methods do."""
        with _scratch_errors():
            self._file = tempfile.TemporaryFile(prefix="airgap-")  # noqa: SIM115 - see close

    def write(self, data: Bytes, offset: int) -> None:
        """Keep bytes at ``offset``."""
        with _scratch_errors():
            write_at(self._file.fileno(), data, offset)

    def read(self, offset: int, size: int) -> bytes:
        """Return the bytes at ``offset``, fewer where the file ends."""
        with _scratch_errors():
            return read_at(self._file.fileno(), size, offset)

    def pieces(self, offset: int, size: int) -> Iterator[bytes]:
        """Yield the bytes at ``offset`` in chunks, fewer where the file ends."""
        with _scratch_errors():
            yield from pieces_at(self._file.fileno(), size, offset)

    def close(self) -> None:
        """Let go of it."""
        self._file.close()


@contextmanager
def _scratch_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{tempfile.gettempdir()}: a temporary file: {error.strerror or error}",
            hint="Set TMPDIR to a directory with room, then run the same command again.",
        ) from error


def remove_temporary_directories() -> None:
    """Remove all that are left, for a process that ends before their blocks do."""
    for name in tuple(_temporary):
        shutil.rmtree(name, ignore_errors=True)


def write_at(descriptor: int, data: Bytes, offset: int) -> None:
    """Write all of ``data`` at ``offset``. Raises OSError."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    """Return the ``size`` bytes at ``offset``, fewer only where the file ends. Raises OSError."""
    data = os.pread(descriptor, size, offset)
    while len(data) < size and (more := os.pread(descriptor, size - len(data), offset + len(data))):
        data += more
    return data


def pieces_at(descriptor: int, size: int, offset: int) -> Iterator[bytes]:
    """Yield the ``size`` bytes at ``offset`` in chunks, fewer only where the file ends."""
    end = offset + size
    while offset < end and (piece := os.pread(descriptor, min(limits.CHUNK, end - offset), offset)):
        offset += len(piece)
        yield piece


def require_room(descriptor: int, path: Path, size: int) -> None:
    """Make sure, before anything is written, that an open file can grow to ``size`` bytes.

    What it takes up on its disk already is not needed again. Raises StorageError that names
    ``path``.
    """
    with storage_errors(path):
        if not _fits_file_system(descriptor, size):
            raise StorageError(
                f"{path}: {os.strerror(errno.EFBIG)}: it needs {size:,} bytes in one file",
                hint=_HINTS[errno.EFBIG],
            )
        need = size - os.fstat(descriptor).st_blocks * _BLOCK
        disk = os.fstatvfs(descriptor)
    # What is reserved for root is there for root. File systems that do not know say 0 of 0.
    free = disk.f_frsize * (disk.f_bavail if os.geteuid() else disk.f_bfree)
    if disk.f_blocks and need > free:
        raise StorageError(
            f"{path}: {os.strerror(errno.ENOSPC)}: {need:,} bytes more are needed,"
            f" {free:,} are free",
            hint=f"Free some space, then run the same command again. Or move {path.name} to a"
            " larger medium, and give its new place with -o.",
        )


def _fits_file_system(descriptor: int, size: int) -> bool:
    """Say whether the file system takes a file of that size. Raises OSError.

    It lets no position be set beyond its largest file.
    """
    try:
        os.lseek(descriptor, size, os.SEEK_SET)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return True


def sync_directory(path: Path) -> None:
    """Make the names in a directory last. FAT cannot, and says so: that is tolerated."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes) -> None:
    """Put a whole file under a name, or leave what was there. Raises StorageError."""
    temporary = path.with_name(path.name + ".new")
    with storage_errors(path):
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_directory(path.parent)
