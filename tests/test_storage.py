from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airgap import limits
from airgap.errors import StorageError
from airgap.storage import (
    pieces_at,
    read_at,
    remove_temporary_directories,
    replace_file,
    require_room,
    storage_errors,
    sync_directory,
    temporary_directory,
    write_at,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.disks import Mounter


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    number = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield number
    os.close(number)


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENOSPC, "Free some space"),
        (errno.EDQUOT, "quota"),
        (errno.EFBIG, "exFAT"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "cable"),
        (errno.ENODEV, "has gone"),
        (errno.EACCES, "permissions"),
    ],
)
def test_what_the_system_says_becomes_words_for_the_operator(
    tmp_path: Path, number: int, hint: str
) -> None:
    path = tmp_path / "file"
    with pytest.raises(StorageError) as caught, storage_errors(path):
        raise OSError(number, os.strerror(number))
    assert caught.value.message == f"{path}: {os.strerror(number)}"
    assert caught.value.hint is not None and hint in caught.value.hint
    assert caught.value.exit_status == 6


def test_an_error_without_a_number_is_told_too(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="something odd"), storage_errors(tmp_path):
        raise OSError("something odd")


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), storage_errors(tmp_path):
        raise ZeroDivisionError


@given(data=st.binary(max_size=200), offset=st.integers(0, 100))
def test_what_is_written_at_a_place_is_read_there(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, offset: int
) -> None:
    path = tmp_path_factory.mktemp("storage") / "file"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        write_at(descriptor, data, offset)
        assert read_at(descriptor, len(data), offset) == data
        assert b"".join(pieces_at(descriptor, len(data), offset)) == data
    finally:
        os.close(descriptor)


def test_reading_ends_where_the_file_does(descriptor: int) -> None:
    write_at(descriptor, b"12345", 0)
    assert read_at(descriptor, 100, 3) == b"45"
    assert read_at(descriptor, 100, 9) == b""
    assert list(pieces_at(descriptor, 100, 3)) == [b"45"]


def test_content_comes_in_bounded_pieces(descriptor: int) -> None:
    os.ftruncate(descriptor, 3 * limits.CHUNK)
    sizes = [len(piece) for piece in pieces_at(descriptor, 2 * limits.CHUNK + 5, 10)]
    assert sizes == [limits.CHUNK, limits.CHUNK, 5]


def test_a_file_is_replaced_whole_or_stays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    replace_file(path, b"first")
    replace_file(path, b"second")
    assert path.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(StorageError, match="nowhere/file: No such file"):
        replace_file(tmp_path / "nowhere" / "file", b"")


def test_room_is_found_without_writing(descriptor: int, tmp_path: Path) -> None:
    require_room(descriptor, tmp_path / "file", 1 << 20)
    found = os.fstat(descriptor)
    assert (found.st_size, found.st_blocks) == (0, 0)


def test_a_disk_without_room_is_told_with_both_numbers(mount: Mounter) -> None:
    path = mount("tmpfs", "size=1m") / "file"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        require_room(descriptor, path, 1 << 20)
        wanted = rf"{path}: No space left on device: 1,048,577 bytes more are needed, 1,048,576 are"
        with pytest.raises(StorageError, match=wanted) as caught:
            require_room(descriptor, path, (1 << 20) + 1)
        assert caught.value.hint is not None
        assert "move file to a larger medium" in caught.value.hint
    finally:
        os.close(descriptor)


def test_what_a_file_takes_up_already_needs_no_room(mount: Mounter) -> None:
    path = mount("tmpfs", "size=1m") / "file"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        write_at(descriptor, bytes(600_000), 0)
        require_room(descriptor, path, 1_000_000)
        os.ftruncate(descriptor, 0)
        os.ftruncate(descriptor, 1_000_000)
        (path.parent / "other").write_bytes(bytes(600_000))
        with pytest.raises(StorageError, match="No space left"):
            require_room(descriptor, path, 1_000_000)
    finally:
        os.close(descriptor)


def test_a_file_system_that_takes_no_file_of_that_size_is_told(mount: Mounter) -> None:
    path = mount("ext2", "1k") / "file"  # its files end at 16 GiB, those of FAT32 at 4
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        with pytest.raises(StorageError, match="No space left"):
            require_room(descriptor, path, 15 << 30)
        with pytest.raises(StorageError, match=r"file: File too large: it needs 18,253,") as caught:
            require_room(descriptor, path, 17 << 30)
        assert caught.value.hint is not None
        assert "takes no file of that size" in caught.value.hint
        assert path.stat().st_size == 0
    finally:
        os.close(descriptor)


def test_a_directory_can_be_synced(tmp_path: Path) -> None:
    sync_directory(tmp_path)
    with pytest.raises(NotADirectoryError):
        (tmp_path / "file").touch()
        sync_directory(tmp_path / "file")


def test_a_temporary_directory_is_gone_after_its_block_or_when_told() -> None:
    with temporary_directory() as early, temporary_directory() as other:
        (early / "file").touch()
        remove_temporary_directories()
        assert not early.exists() and not other.exists()
    with pytest.raises(ZeroDivisionError), temporary_directory() as late:
        raise ZeroDivisionError
    late.mkdir()  # by somebody else: not ours any more
    remove_temporary_directories()
    assert late.exists()
    late.rmdir()
