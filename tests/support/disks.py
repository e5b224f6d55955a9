"""Small disks, mounted for one test: in memory, or a file system in a file. Both need root."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
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


class FailingDisk:
    """A disk that files were put on, mounted to be read, and that can be pulled out meanwhile.

    It lies in a file. When that is cut, whatever the kernel does not have in memory fails to be
    read, as from a medium that has gone: EIO.
    """

    def __init__(self, folder: Path, files: Iterable[Path]) -> None:
        """Make it; skips the test where it may not be mounted."""
        files = list(files)
        self.path = folder / "disk"
        self.path.mkdir()
        self._image = folder / "disk.image"
        self._image.touch()
        os.truncate(self._image, 2 * sum(path.stat().st_size for path in files) + IMAGE_BYTES)
        _run("mkfs.ext2", "-q", "-F", self._image)
        _run("mount", "-o", "loop", self._image, self.path)
        for path in files:
            shutil.copy(path, self.path)
        self.close()
        self._content = self._image.read_bytes()
        _run("mount", "-o", "loop,ro", self._image, self.path)

    def pull(self) -> None:
        """Let nothing be read any more."""
        os.truncate(self._image, 0)
        for path in self.path.iterdir():
            if path.is_file():
                with path.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def plug_in(self) -> None:
        """Let everything be read again."""
        self._image.write_bytes(self._content)

    def close(self) -> None:
        """Unmount it."""
        subprocess.run(["umount", str(self.path)], check=True)


def remount(disk: Path, options: str) -> None:
    """Change a disk while it is mounted."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


def _run(*command: object) -> None:
    try:
        subprocess.run(list(map(str, command)), capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs the right to mount: {error}")
