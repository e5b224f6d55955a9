"""Small disks, mounted for one test: in memory, or a file system in a file. Both need root."""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IMAGE_BYTES = 4 << 20


@contextmanager
def small_disk(path: Path, size: int | str) -> Iterator[Path]:
    """Mount a disk in memory, of some bytes (or ``4m``), for the ``with`` block."""
    path.mkdir(exist_ok=True)
    _run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path)
    try:
        yield path
    finally:
        if path.is_mount():
            subprocess.run(["umount", str(path)], check=True)


class Mounter:
    """Mounts disks below a directory until it is closed; skips the test where it may not."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._mounted = ExitStack()

    def __call__(self, kind: str, detail: str) -> Path:
        """Return a new disk: a "tmpfs" with mount options, or an "ext2" with a block size."""
        disk = self._folder / kind
        disk.mkdir()
        if kind == "tmpfs":
            self._mount(disk, "-t", "tmpfs", "-o", detail, "tmpfs")
        else:
            image = self._folder / f"{kind}.image"
            image.touch()
            os.truncate(image, IMAGE_BYTES)
            _run(f"mkfs.{kind}", "-q", "-F", "-b", detail, image)
            self._mount(disk, "-o", "loop", image)
        return disk

    def close(self) -> None:
        """Unmount all."""
        self._mounted.close()

    def _mount(self, disk: Path, *how: object) -> None:
        _run("mount", *how, disk)
        self._mounted.callback(subprocess.run, ["umount", str(disk)], check=True)


def remount(disk: Path, options: str) -> None:
    """Change a disk while it is mounted."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


def _run(*command: object) -> None:
    try:
        subprocess.run(list(map(str, command)), capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs the right to mount: {error}")
