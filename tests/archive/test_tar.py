from __future__ import annotations

import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest

from airgap.archive import tar

if TYPE_CHECKING:
    from pathlib import Path

GIB8 = 8 << 30


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 8**11 - 1, 8**11, 8**11 + 1, 1 << 50])
def test_a_header_is_read_by_python(size: int) -> None:
    info = tarfile.TarInfo.frombuf(tar.header("blobs/sha256/" + "a" * 64, size), "utf-8", "strict")
    assert (info.name, info.size, info.mode) == ("blobs/sha256/" + "a" * 64, size, 0o644)
    assert (info.uid, info.gid, info.mtime, info.isreg()) == (0, 0, 0, True)


@pytest.mark.parametrize("size", [0, 7, 8**11 - 1, 8**11, 1 << 50])
def test_the_size_in_a_header_is_read_back(size: int) -> None:
    assert tar.size_in(tar.header("x", size)) == size


def test_a_block_that_is_no_header_has_no_size() -> None:
    assert tar.size_in(b"x" * 512) == -1


def test_refuses_a_name_that_needs_a_second_header() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        tar.header("a" * 101, 1)


@pytest.mark.parametrize("size", [GIB8 - 1, GIB8, GIB8 + 1])
def test_entries_around_8_gib_are_read_by_gnu_tar_and_python(size: int, tmp_path: Path) -> None:
    path = tmp_path / "big.tar"
    with path.open("wb") as file:
        file.write(tar.header("big", size))
        file.seek(tar.BLOCK + tar.padded(size))
        file.write(tar.header("after", 3) + b"abc" + bytes(509) + tar.END)
    listed = subprocess.run(
        ["tar", "--list", "--verbose", "--file", path], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert [(line.split()[2], line.split()[-1]) for line in listed] == [
        (str(size), "big"),
        ("3", "after"),
    ]
    with tarfile.open(path) as archive:
        assert [(m.name, m.size) for m in archive.getmembers()] == [("big", size), ("after", 3)]
        after = archive.extractfile("after")
        assert after is not None and after.read() == b"abc"
