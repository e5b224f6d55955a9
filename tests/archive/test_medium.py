"""Where volumes go: sizes as they are said, file systems, media that come and go."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from airgap.archive import medium
from airgap.archive.growing import GrowingVolumes, growing_files
from airgap.archive.medium import FAT_LIMIT, Media, VolumeOptions, largest_file, volume_size
from airgap.archive.state import State
from airgap.archive.writer import ArchiveWriter
from airgap.errors import StorageError, UsageError
from tests.support.disks import small_disk
from tests.support.plans import begin, some_content

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4GB", 4 * 10**9),
        ("4GiB", 4 * 2**30),
        ("4G", 4 * 10**9),
        ("4.5 gb", 4_500_000_000),
        ("700MB", 700_000_000),
        ("700MiB", 700 * 2**20),
        ("1TiB", 2**40),
        ("12345", 12345),
        ("12345B", 12345),
        ("dvd", 4_700_000_000),
        ("DVD-DL", 8_500_000_000),
        ("bd", 25_000_000_000),
        ("fat32", 2**32 - 1),
    ],
)
def test_sizes_are_understood_as_they_are_said(text: str, size: int) -> None:
    assert volume_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "GB", "-4GB", "4XB", "4iB", "4 GB each", "1e9", "cd", "4,5GB"]
)
def test_what_is_no_size_is_refused_with_those_that_are(text: str) -> None:
    with pytest.raises(UsageError, match="not a size") as caught:
        volume_size(text)
    assert "dvd-dl" in (caught.value.hint or "")


MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
36 22 8:17 / {} rw,nosuid shared:20 - {} /dev/sdb1 rw,fmask=0022
"""


@pytest.mark.parametrize(
    ("kind", "limit"), [("vfat", FAT_LIMIT), ("msdos", FAT_LIMIT), ("exfat", None), ("ext4", None)]
)
def test_fat_takes_no_file_of_4_gib(tmp_path: Path, kind: str, limit: int | None) -> None:
    with small_disk(tmp_path / "usb stick", "1m") as disk:
        mounts = MOUNTS.format(str(disk).replace(" ", r"\040"), kind)
        assert largest_file(disk, mounts) == limit
        (disk / "below").mkdir()
        assert largest_file(disk / "below", mounts) == limit
        assert largest_file(tmp_path, mounts) is None


def test_on_fat_an_archive_that_is_too_large_goes_into_volumes_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = some_content()
    plan = content.plan()
    large = replace(plan, blobs=(replace(plan.blobs[0], size=5 << 30), *plan.blobs[1:]))
    with small_disk(tmp_path / "usb", "20m") as disk:
        (tmp_path / "mounts").write_text(MOUNTS.format(disk, "vfat"))
        monkeypatch.setattr(medium, "_MOUNTS", tmp_path / "mounts")
        for name, one, is_cut in (("small.tar", plan, False), ("large.tar", large, True)):
            said: list[str] = []
            begin(disk / name, content, one)
            state = State(disk / name)
            files = growing_files(disk / name, VolumeOptions(), state, said.append)
            assert isinstance(files, GrowingVolumes) is is_cut
            assert len(said) == is_cut
            files.close()
            state.release(finished=False)
        assert files.layout.limit == FAT_LIMIT
        assert f"writing volumes of {FAT_LIMIT}" in said[0]


def test_an_empty_mount_point_that_a_medium_has_left_is_no_place(tmp_path: Path) -> None:
    with small_disk(tmp_path / "usb", "4m") as disk:
        media = Media(tmp_path / "olm.tar", VolumeOptions(10, (disk,)))
        assert media.place(1, 1000, []) == disk / "olm.001.tar"
    assert media.place(1, 1000, []) is None
    with small_disk(tmp_path / "usb", "4m"):
        assert media.place(1, 1000, []) == disk / "olm.001.tar"


def test_what_growing_volumes_will_still_take_is_no_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "usb", "4m") as disk:
        media = Media(tmp_path / "olm.tar", VolumeOptions(10, (disk,)))
        growing = disk / "olm.001.tar.partial"
        growing.write_bytes(bytes(1 << 20))
        assert media.place(2, 2 << 20, [(growing, 1 << 20)]) is not None
        assert media.place(2, 2 << 20, [(growing, 2 << 20)]) is None


def test_a_directory_that_is_none_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such directory"):
        Media(tmp_path / "olm.tar", VolumeOptions(10, (tmp_path / "nowhere",)))


def test_directories_for_volumes_and_no_size_contradict_each_other(tmp_path: Path) -> None:
    begin(tmp_path / "olm.tar", some_content())
    state = State(tmp_path / "olm.tar")
    with pytest.raises(UsageError, match="no size") as caught:
        growing_files(tmp_path / "olm.tar", VolumeOptions(None, (tmp_path,)), state, print)
    assert "--volume-size" in (caught.value.hint or "")
    state.release(finished=False)


def test_a_file_of_a_volume_s_name_on_the_next_medium_is_not_overwritten(tmp_path: Path) -> None:
    content = some_content()
    begin(tmp_path / "olm.tar", content)
    state, stop = State(tmp_path / "olm.tar"), threading.Event()
    files = growing_files(tmp_path / "olm.tar", VolumeOptions(2 << 20), state, print)
    (tmp_path / "olm.001.tar").write_bytes(b"last month's")
    with ArchiveWriter(tmp_path / "olm.tar", state, stop, believe=True, files=files) as writer:
        blob = writer.plan.blobs[0]
        with pytest.raises(StorageError, match="is in the way"):
            writer.put_blob(blob, "", lambda offset: content.blob(blob, offset))
    state.release(finished=False)
    assert (tmp_path / "olm.001.tar").read_bytes() == b"last month's"
