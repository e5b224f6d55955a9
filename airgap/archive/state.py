"""``FILE.state``: who writes an archive, and how far its unfinished blobs are.

The file is advisory: the archive's own headers say which blobs are finished, so losing it
costs time and never correctness. It holds what a header cannot: the boot in which bytes were
written (after a kill the kernel still holds them, after a power cut only what was synced
counts), the bytes of each unfinished blob, and, by a lock the kernel drops when its holder
dies, who is writing.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airgap.errors import Busy, printable
from airgap.storage import storage_errors

if TYPE_CHECKING:
    from collections.abc import Iterable

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_READ_LIMIT = 64 << 20


def state_path(archive: Path) -> Path:
    """Return the name of an archive's state file."""
    return archive.with_name(archive.name + ".state")


class State:
    """The claim on an archive while it is written, and the progress of its unfinished blobs.

    ``survived`` says how much of each unfinished blob, in bytes, a previous run certainly
    left in the file; ``same_boot`` whether that run's last header flips can be believed.
    ``limit`` is the size of the volumes that were begun, ``volumes`` those that were finished,
    each with its holes.
    """

    def __init__(self, archive: Path) -> None:
        """Take the claim. Raises Busy when another process holds it, StorageError."""
        self._path = state_path(archive)
        self._descriptor = self._lock(archive)
        self._boot = _boot_id()
        with storage_errors(self._path):
            previous = os.pread(self._descriptor, _READ_LIMIT, 0)
            self.same_boot, self.survived = _survivors(previous, self._boot)
            self.limit, self.volumes = _volumes(previous)
            if previous and not previous.endswith(b"\n"):
                os.write(self._descriptor, b"\n")
        self._append({"pid": os.getpid(), "host": socket.gethostname()})

    def believe(self) -> None:
        """Note that the headers have been checked as far as this boot demands."""
        self._append({"boot": self._boot})

    def distrust(self) -> None:
        """Note that the medium has lost writes: only what was synced before is believed."""
        self._append({"boot": None})

    def written(self, blob: int, size: int) -> None:
        """Note that the first ``size`` bytes of a blob have been given to the kernel."""
        self._append({"blob": blob, "written": size})

    def synced(self, blob: int, size: int) -> None:
        """Note that the first ``size`` bytes of a blob are on the medium."""
        self._append({"blob": blob, "written": size, "synced": True})

    def cut(self, limit: int) -> None:
        """Note that the archive is written in volumes of at most ``limit`` bytes."""
        self._append({"limit": limit})

    def volume(self, number: int, holes: Iterable[int]) -> None:
        """Note that a volume is finished and may be gone, and which blobs it lacks."""
        self._append({"volume": number, "holes": sorted(holes)})

    def release(self, *, finished: bool) -> None:
        """Give the claim up; of a finished archive nothing needs to be remembered."""
        try:
            if finished:
                with storage_errors(self._path):
                    self._path.unlink(missing_ok=True)
        finally:
            os.close(self._descriptor)

    def _append(self, record: dict[str, Any]) -> None:
        with storage_errors(self._path):
            os.write(self._descriptor, json.dumps(record).encode() + b"\n")

    def _lock(self, archive: Path) -> int:
        while True:
            with storage_errors(self._path):
                descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
                try:
                    holder = _lock_or_holder(descriptor)
                    if holder is None and _still_named(descriptor, self._path):
                        return descriptor
                except BaseException:
                    os.close(descriptor)
                    raise
            # Without a holder, one finished and removed the file between our open and our lock.
            os.close(descriptor)
            if holder is not None:
                raise Busy(
                    f"{archive}: {holder} is writing it",
                    hint="Wait until that has ended, or stop it; both continue later.",
                )


def _lock_or_holder(descriptor: int) -> str | None:
    """Lock a file, or return who has. Raises OSError where files cannot be locked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(os.pread(descriptor, _READ_LIMIT, 0))
    return None


def _still_named(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def who_writes(archive: Path) -> str | None:
    """Return who holds the claim on an archive, in words; None when nobody does."""
    try:
        descriptor = os.open(state_path(archive), os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(os.pread(descriptor, _READ_LIMIT, 0))
    finally:
        os.close(descriptor)
    return None


def _holder(text: bytes) -> str:
    for record in reversed(_records(text)):
        if "pid" in record:
            return f"process {record['pid']} on {printable(str(record.get('host')), 80)}"
    return "another process"


def _survivors(text: bytes, boot: str) -> tuple[bool, dict[int, int]]:
    same_boot, survived, synced = False, dict[int, int](), dict[int, int]()
    for record in _records(text):
        if "boot" in record:
            same_boot = record["boot"] == boot
            survived = survived if same_boot else dict(synced)
        blob, size = record.get("blob"), record.get("written")
        if not isinstance(blob, int) or not isinstance(size, int):
            continue
        if record.get("synced"):
            synced[blob] = survived[blob] = size
        elif same_boot:
            survived[blob] = size
    return same_boot, survived


def _volumes(text: bytes) -> tuple[int | None, dict[int, frozenset[int]]]:
    limit, volumes = None, dict[int, frozenset[int]]()
    for record in _records(text):
        size, number, holes = record.get("limit"), record.get("volume"), record.get("holes")
        if isinstance(size, int):
            limit = size
        if isinstance(number, int) and isinstance(holes, list):
            volumes[number] = frozenset(hole for hole in holes if isinstance(hole, int))
    return limit, volumes


def _records(text: bytes) -> list[dict[str, Any]]:
    """Return the whole lines; a kill or a power cut may have left a part of one."""
    found = []
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            found.append(record)
    return found


def _boot_id() -> str:
    """Return what names this boot of the machine; "unknown-…" compares equal to nothing."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return f"unknown-{os.urandom(8).hex()}"
