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
    storage_errors,
    sync_directory,
    temporary_directory,
    write_at,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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
