"""Finding an archive's volumes among files, by what is in them."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

import airgap
from airgap.archive.medium import VolumeOptions
from airgap.archive.reader import ArchiveReader
from airgap.archive.unpacked import is_unpacked, join_pieces
from airgap.errors import ArchiveError, IntegrityError, UsageError
from airgap.progress import SILENT
from tests.archive.test_volumes import larger_content, limit_for
from tests.support.command import airgap as command
from tests.support.plans import archive_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an archive whole and in volumes, and another in volumes."""
    folder = tmp_path_factory.mktemp("made")
    other = larger_content()
    other.images["quay.io/lab/more:v1"] = other.manifest(b"more")
    for name, content in (("one", larger_content()), ("other", other)):
        (folder / name).mkdir()
        path = folder / f"{name}.tar"
        archive_of(path, content)
        airgap.split(path, VolumeOptions(limit_for(path)), output=folder / name / "olm.tar")
    return folder


@pytest.fixture
def volumes(made: Path, tmp_path: Path) -> list[Path]:
    """The volumes of one archive, in a directory, under names that say nothing."""
    (tmp_path / "disk").mkdir()
    names = ("z.bin", "disk (1).TAR", "a")
    sources = sorted((made / "one").iterdir())
    for name, source in zip(names, sources, strict=True):
        shutil.copy(source, tmp_path / "disk" / name)
    return [tmp_path / "disk" / name for name in names]


def test_names_and_order_say_nothing(volumes: list[Path]) -> None:
    for given in (volumes, volumes[::-1], [volumes[0].parent], [volumes[1], volumes[0].parent]):
        result = airgap.verify(given)
        assert (result.exit_status, result.notes) == (0, ())
        assert [(v.number, v.file) for v in result.volumes] == [*enumerate(volumes, 1)]


def test_foreign_files_and_unfinished_ones_are_passed_over(made: Path, volumes: list[Path]) -> None:
    folder = volumes[0].parent
    (folder / "photo.jpg").write_bytes(b"\xff\xd8" * 999)
    (folder / "empty").touch()
    shutil.copy(volumes[0], folder / "olm.001.tar.partial")
    (folder / "deep" / "deeper").mkdir(parents=True)
    shutil.copy(made / "other.tar", folder / "deep" / "deeper")
    (folder / "loop").symlink_to(folder)
    result = airgap.verify(folder)
    assert (result.exit_status, result.notes) == (0, ())


def test_directories_that_are_directly_in_one_are_searched(volumes: list[Path]) -> None:
    folder = volumes[0].parent
    for volume in volumes[:2]:
        (folder / volume.stem).mkdir()
        volume.rename(folder / volume.stem / volume.name)
    assert airgap.verify(folder).exit_status == 0


def test_missing_volumes_are_named_with_what_needs_them(volumes: list[Path]) -> None:
    result = airgap.verify([volumes[0], volumes[2]])
    assert (result.exit_status, result.damage) == (3, ())
    assert [v.number for v in result.volumes if v.file is None] == [2]
    with ArchiveReader(volumes[0]) as reader:
        plan = reader.plan
        lost = set(reader.layout.volumes[1].blobs)
    hurt = {image.reference for image in plan.images if lost & set(plan.blobs_of(image))}
    assert {missing.reference for missing in result.missing} == hurt
    assert all("is in volume 2, which is not here" in missing.detail for missing in result.missing)
    assert any(missing.packages for missing in result.missing)
    ran = command("verify", volumes[0], volumes[2])
    assert "volumes   2 of 3" in ran.out
    assert "2  NOT HERE" in ran.out
    assert "every byte of the volumes that are here is what it must be" in ran.out
    assert command("inspect", volumes[1]).status == 3


def test_double_volumes_are_told_and_the_longer_one_is_read(volumes: list[Path]) -> None:
    cut = volumes[0].parent / "copy"
    cut.write_bytes(volumes[1].read_bytes()[:-5000])
    result = airgap.verify([cut, *volumes])
    assert result.exit_status == 0
    assert result.notes == (f"double: {cut} is volume 2, as {volumes[1]}",)


def test_a_foreign_volume_that_was_named_is_damage_and_refused(
    made: Path, volumes: list[Path]
) -> None:
    foreign = made / "other" / "olm.002.tar"
    given = [volumes[0], foreign, volumes[2]]
    result = airgap.verify(given)
    assert result.exit_status == 4
    (damage,) = result.damage
    with ArchiveReader(foreign) as reader:
        assert damage.message == f"foreign: {foreign} is volume 2 of another, {reader.id}"
    assert [v.number for v in result.volumes if v.file is None] == [2]
    with pytest.raises(ArchiveError, match="foreign: "):
        airgap.import_archive(given, "127.0.0.1:1")


def test_a_foreign_volume_that_lies_about_is_a_note(made: Path, volumes: list[Path]) -> None:
    folder = volumes[0].parent
    shutil.copy(made / "other" / "olm.001.tar", folder)
    result = airgap.verify([volumes[0], folder])
    assert result.exit_status == 0
    assert any(note.startswith(f"foreign: {folder / 'olm.001.tar'}") for note in result.notes)


def test_between_two_archives_somebody_has_to_choose(made: Path, volumes: list[Path]) -> None:
    folder = volumes[0].parent
    shutil.copy(made / "other" / "olm.001.tar", folder)
    ran = command("verify", folder)
    assert ran.status == 2
    assert "more than one archive to choose from: sha256:" in ran.err
    assert "olm.001.tar" in ran.err


def test_volumes_of_two_sizes_do_not_mix(made: Path, volumes: list[Path], tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    limit = limit_for(made / "one.tar") + 50_000
    airgap.split(made / "one.tar", VolumeOptions(limit), output=tmp_path / "b" / "olm.tar")
    result = airgap.verify([*volumes[:2], tmp_path / "b" / "olm.003.tar"])
    assert result.exit_status == 4
    assert "this archive in another form" in result.damage[0].message


def test_a_file_that_is_no_archive_is_told_beside_volumes(volumes: list[Path]) -> None:
    junk = volumes[0].parent / "junk"
    junk.write_bytes(b"junk" * 999)
    result = airgap.verify([junk, *volumes])
    assert [damage.message for damage in result.damage] == [f"{junk}: not an airgap archive"]
    with pytest.raises(ArchiveError, match="not an airgap archive"):
        airgap.verify(junk)


def test_a_directory_without_an_archive_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no archive and no volume of one in it"):
        airgap.verify(tmp_path)


def test_unpacked_volumes_become_a_layout(made: Path, tmp_path: Path) -> None:
    target = tmp_path / "unpacked"
    target.mkdir()
    for volume in (made / "one").iterdir():
        subprocess.run(["tar", "-xf", volume, "-C", target], check=True)
    assert is_unpacked(target)
    ran = command("join", target)
    assert ran.status == 0
    assert f"in {target}" in ran.out
    for digest, data in larger_content().by_digest.items():
        assert (target / "blobs" / "sha256" / digest.hex).read_bytes() == data
    assert list((target / "pieces" / "sha256").iterdir()) == []
    assert command("join", target).out == f"joined    0 blobs in {target}\n"


def test_unpacked_pieces_that_are_not_all_there_are_left_alone(made: Path, tmp_path: Path) -> None:
    target = tmp_path / "unpacked"
    target.mkdir()
    for volume in sorted((made / "one").iterdir())[:2]:
        subprocess.run(["tar", "-xf", volume, "-C", target], check=True)
    before = sorted((target / "pieces" / "sha256").iterdir())
    with pytest.raises(IntegrityError, match="the pieces of blob"):
        join_pieces(target, SILENT, threading.Event())
    assert set(before) >= set((target / "pieces" / "sha256").iterdir())
    assert not list((target / "blobs" / "sha256").glob("*.new"))


@pytest.mark.parametrize(
    "changes",
    [
        {"volume": 3},
        {"volume": 2, "of": 2},
        {"of": 9999},
        {"of": 10**9},
        {"volume": 0},
        {"volume": -1},
        {"volume": "1"},
        {"volume": 1.0},
        {"limit": 1},
        {"limit": 10**30},
        {"limit": 1_110_000},
        {"limit": True},
        {"archive": "sha256:" + "0" * 64},
        {"archive": 7},
        {"pieces": 7},
        {"pieces": [[]]},
        {"pieces": [{"blob": "sha256:" + "0" * 64, "start": 0, "size": 1, "digest": 3}]},
        {"pieces": []},
        {"airgap-volume": 2},
        {"more": "x"},
    ],
    ids=str,
)
def test_a_record_that_lies_is_told_and_its_file_named(
    volumes: list[Path], changes: dict[str, object]
) -> None:
    with ArchiveReader(volumes[0]) as reader:
        entry = reader.layout.volumes[0].record
    assert entry is not None
    content = bytearray(volumes[0].read_bytes())
    record = json.loads(content[entry.content : entry.content + entry.size]) | changes
    forged = json.dumps(record, separators=(",", ":")).encode().ljust(entry.size - 1) + b"\n"
    content[entry.content : entry.content + entry.size] = forged
    volumes[0].write_bytes(content)
    for given in ([volumes[0]], volumes):
        try:
            result = airgap.verify(given)
        except ArchiveError as error:
            assert str(volumes[0]) in error.message
        else:
            assert result.exit_status == 4
            assert any(str(volumes[0]) in damage.message for damage in result.damage)
    if changes == {"pieces": []}:
        return  # An import hashes whole blobs, and needs no digests of pieces.
    with pytest.raises(ArchiveError):
        airgap.import_archive(volumes, "127.0.0.1:1")
