"""Where an archive's volumes go: directories on media that fill up and are exchanged.

Knows names, free space and file systems; what is in a volume it refuses to know.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from airgap.archive.record import numbered
from airgap.errors import StorageError, UsageError, printable
from airgap.storage import storage_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from airgap.archive.layout import Layout

FAT_LIMIT = (1 << 32) - 1
"""The largest file on FAT: a byte less than 4 GiB."""

NAMED_SIZES = {
    "dvd": 4_700_000_000,
    "dvd-dl": 8_500_000_000,
    "bd": 25_000_000_000,
    "fat32": FAT_LIMIT,
}
"""What fits media of these names, in bytes, with room for a file system on a disc."""

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)(B?)", re.ASCII)

_SLACK = 1 << 16
"""What a file system needs for itself when a file grows."""

_MOUNTS = Path("/proc/self/mountinfo")


def volume_size(text: str) -> int:
    """Return the bytes that ``4GB``, ``4GiB``, ``4.5g`` or a medium's name stands for.

    Raises UsageError.
    """
    name = text.strip().lower()
    if name in NAMED_SIZES:
        return NAMED_SIZES[name]
    match = _SIZE.fullmatch(name.upper())
    if match is None or (match[3] and not match[2]):
        raise UsageError(
            f"not a size: '{printable(text)}'",
            hint=f"Write 4GB, 4GiB, or one of {', '.join(NAMED_SIZES)}.",
        )
    unit = 1024 ** " KMGT".index(match[2] or " ") if match[3] else _UNITS[match[2]]
    return int(float(match[1]) * unit)


def volume_name(archive: Path, number: int) -> str:
    """Return the name that a volume gets: ``NAME.001.tar``."""
    return f"{_stem(archive)}.{numbered(number)}.tar"


def _stem(archive: Path) -> str:
    return archive.name.removesuffix(".zst").removesuffix(".tar")


def volume_names(archive: Path, layout: Layout) -> tuple[str, ...]:
    """Return the names of an archive's volumes; () of an archive of one file."""
    if layout.limit is None:
        return ()
    return tuple(volume_name(archive, volume.number) for volume in layout.volumes)


def piece_path(archive: Path, number: int) -> Path:
    """Return where the beginning of a volume waits that has no place yet."""
    return archive.with_name(f"{archive.name}.piece-{numbered(number)}")


@dataclass(frozen=True)
class VolumeOptions:
    """How an archive is cut and where its volumes go.

    ``size`` in bytes is what no volume exceeds; None cuts only what the file system does not
    take in one file. ``directories`` are filled one after the other, () is the archive's own.
    ``ask`` tells the operator what is needed and returns when that is there; without it a run
    ends where it would have to ask.
    """

    size: int | None = None
    directories: tuple[Path, ...] = ()
    ask: Callable[[str], None] | None = field(default=None, compare=False)


class Media:
    """The directories that the volumes of one archive are written to."""

    def __init__(self, archive: Path, options: VolumeOptions) -> None:
        """Take the directories as they are now. Raises UsageError when one is none."""
        self._archive = archive
        self._ask = options.ask
        self.directories = options.directories or (archive.parent,)
        for directory in self.directories:
            if not directory.is_dir():
                raise UsageError(f"{directory}: there is no such directory")
        self._mounts = {directory: _mount_point(directory) for directory in self.directories}

    def find(self, number: int, suffix: str = "") -> Path | None:
        """Return the file of a volume, if it is here."""
        name = volume_name(self._archive, number) + suffix
        found = (directory / name for directory in self._available())
        # Path.exists raises on a medium that has gone.
        return next((path for path in found if os.path.exists(path)), None)  # noqa: PTH110

    def named(self) -> list[Path]:
        """Return the files here that have names of finished volumes. Raises StorageError."""
        base = re.escape(_stem(self._archive))
        found: list[Path] = []
        for directory in self._available():
            with storage_errors(directory):
                found += (
                    path
                    for path in directory.iterdir()
                    if re.fullmatch(rf"{base}\.\d{{3,4}}\.tar", path.name)
                )
        return sorted(found)

    def place(self, number: int, size: int, growing: Iterable[tuple[Path, int]]) -> Path | None:
        """Return where a volume of that size finds room; None when it does not.

        ``growing`` are the files that are being written, with the sizes they will have.
        """
        growing = list(growing)
        for directory in self._available():
            if _free(directory) - _promised(directory, growing) >= size + _SLACK:
                return directory / volume_name(self._archive, number)
        return None

    def ask_for_room(self, number: int, of: int, size: int) -> None:
        """Ask for a medium that a volume fits. Raises StorageError where nobody can be asked."""
        where = ", ".join(map(str, self.directories))
        told = f"no room in {where} for volume {number} of {of}, {size} bytes"
        if self._ask is None:
            raise StorageError(
                told,
                hint="Connect the next medium there, or name another --volume-dir, and run the"
                f" same command again: it continues with volume {number}.",
            )
        self._ask(f"{told}: connect the next medium")

    def _available(self) -> Sequence[Path]:
        """Return the directories whose medium is connected.

        What was on a medium and is now below another mount point is an empty place that the
        medium has left behind, most likely on the system's own disk.
        """
        return [d for d in self.directories if d.is_dir() and _mount_point(d) == self._mounts[d]]


def largest_file(directory: Path, mounts: str | None = None) -> int | None:
    """Return the size, in bytes, that no file in a directory exceeds; None where none is known.

    ``mounts`` is what the kernel says of mounted file systems.
    """
    try:
        text = _MOUNTS.read_text(errors="replace") if mounts is None else mounts
        point = str(_mount_point(directory))
    except OSError:
        return None
    kind = ""
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) > 4 and _unescaped(fields[4]) == point:
            kind = after.split(" ")[0]
    return FAT_LIMIT if kind in ("vfat", "msdos") else None


def _unescaped(path: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)


def _mount_point(directory: Path) -> Path:
    path = directory.resolve()
    while not path.is_mount():
        path = path.parent
    return path


def _free(directory: Path) -> int:
    with storage_errors(directory):
        room = os.statvfs(directory)
    return room.f_bavail * room.f_frsize


def _promised(directory: Path, growing: Iterable[tuple[Path, int]]) -> int:
    """Return what files that are not fully grown will still take of a directory's medium."""
    with storage_errors(directory):
        device, promised = directory.stat().st_dev, 0
        for path, size in growing:
            now = path.stat()
            if now.st_dev == device:
                promised += max(size - now.st_blocks * 512, 0)
    return promised
