from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import airgap
from airgap.archive.reader import ArchiveReader, partial_path
from airgap.archive.state import State
from airgap.plan import Reason
from airgap.progress import Silent
from tests.support.plans import archive_of, begin, some_content

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "olm.tar"
    archive_of(path, some_content())
    return path


def _spoil(archive: Path, offset: int) -> None:
    with archive.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def test_a_sound_archive_has_no_damage(archive: Path) -> None:
    result = airgap.verify(archive)
    assert (result.damage, result.missing, result.exit_status) == ((), (), 0)
    assert (result.archive, result.size) == (archive, archive.stat().st_size)
    with ArchiveReader(archive) as reader:
        assert result.id == reader.id
        assert result.images == len(reader.plan.images)


def test_progress_adds_up_to_all_content(archive: Path) -> None:
    class Counting(Silent):
        left = 0

        def stage(self, name: str, *, total_bytes: int = 0, total_images: int = 0) -> None:
            self.left += total_bytes

        def advance(self, count: int) -> None:
            self.left -= count

    progress = Counting()
    airgap.verify(archive, progress=progress)
    assert progress.left == 0


def test_all_damage_is_told_at_once(archive: Path) -> None:
    with ArchiveReader(archive) as reader:
        plan, layout = reader.plan, reader.layout
    blobs, manifests = [1, 4], [0]
    for number in blobs:
        _spoil(archive, layout.blob(number).content)
    for number in manifests:
        _spoil(archive, layout.manifest(number).content)
    result = airgap.verify(archive)
    assert result.exit_status == 4
    assert len(result.damage) == 3
    spoiled = [plan.manifests[n].digest for n in manifests] + [plan.blobs[n].digest for n in blobs]
    for digest, damage in zip(spoiled, result.damage, strict=True):
        assert str(digest) in damage.message


def test_damage_names_every_image_and_package_it_hurts(archive: Path) -> None:
    with ArchiveReader(archive) as reader:
        plan, layout = reader.plan, reader.layout
    shared = next(
        n for n in range(len(plan.blobs)) if all(n in plan.blobs_of(i) for i in plan.images)
    )
    _spoil(archive, layout.blob(shared).content)
    (damage,) = airgap.verify(archive).damage
    assert set(damage.images) == {image.reference for image in plan.images}
    assert damage.packages == ("package-0", "package-1")


def test_damage_outside_of_content_hurts_no_image(archive: Path) -> None:
    _spoil(archive, archive.stat().st_size - 1)
    (damage,) = airgap.verify(archive).damage
    assert (damage.images, damage.packages) == ((), ())


def test_what_a_cut_has_lost_is_one_damage_that_names_all_it_hurts(archive: Path) -> None:
    with ArchiveReader(archive) as reader:
        plan, end = reader.plan, reader.layout.blob(2).content
    with archive.open("r+b") as file:
        file.truncate(end)
    (damage,) = airgap.verify(archive).damage
    assert f"cut short: {end} bytes" in damage.message
    assert f"0 manifests and {len(plan.blobs) - 2} blobs are lost" in damage.message
    lost = set(range(2, len(plan.blobs)))
    hurt = {i.reference for i in plan.images if lost & set(plan.blobs_of(i))}
    assert set(damage.images) == hurt


def test_holes_are_no_damage(tmp_path: Path) -> None:
    content = some_content()
    content.holes["quay.io/lab/gone:v1"] = Reason.NOT_FOUND
    content.absent.add(content.plan().blobs[3].digest)
    archive_of(tmp_path / "it.tar", content)
    result = airgap.verify(tmp_path / "it.tar")
    assert (result.damage, result.exit_status) == ((), 3)
    assert {missing.reason for missing in result.missing} == {"not-found", "missing-blob"}


def test_damage_weighs_more_than_holes(tmp_path: Path) -> None:
    content = some_content()
    content.absent.add(content.plan().blobs[3].digest)
    archive_of(tmp_path / "it.tar", content)
    _spoil(tmp_path / "it.tar", (tmp_path / "it.tar").stat().st_size - 1)
    assert airgap.verify(tmp_path / "it.tar").exit_status == 4


def test_an_archive_that_grows_is_not_verified(tmp_path: Path) -> None:
    path = tmp_path / "it.tar"
    begin(path, some_content())
    with pytest.raises(airgap.UsageError, match="not finished"):
        airgap.verify(path)
    state = State(path)
    with pytest.raises(airgap.Busy, match="is writing it"):
        airgap.verify(path)
    state.release(finished=False)
    with pytest.raises(airgap.ArchiveError):
        (tmp_path / "junk").write_bytes(b"junk")
        airgap.verify(tmp_path / "junk")
    assert partial_path(path).exists()
