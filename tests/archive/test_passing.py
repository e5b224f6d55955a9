"""An archive that passes once: whatever happens to it on the way is found and named."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import zstandard

import airgap
from airgap.archive import tar
from airgap.archive.frames import Frames, listed
from airgap.archive.medium import VolumeOptions
from airgap.archive.reader import ArchiveReader
from airgap.archive.seekable import SeekableOutput
from airgap.errors import ArchiveError
from tests.archive.test_volumes import larger_content, limit_for
from tests.support.plans import Content, archive_of, some_content
from tests.support.streams import Collected, piped, send_all

if TYPE_CHECKING:
    from pathlib import Path

    from airgap.archive.layout import Layout
    from airgap.plan import Plan


@dataclass(frozen=True)
class Small:
    """An archive's bytes, and what stands where in it."""

    data: bytes
    plan: Plan
    layout: Layout

    def images_of(self, number: int) -> set[str]:
        return {i.reference for i in self.plan.images if number in self.plan.blobs_of(i)}


def small(folder: Path, content: Content) -> Small:
    archive_of(folder / "olm.tar", content)
    with ArchiveReader(folder / "olm.tar") as reader:
        return Small((folder / "olm.tar").read_bytes(), reader.plan, reader.layout)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return small(tmp_path_factory.mktemp("whole"), some_content(layer_size=900))


def verify(data: bytes) -> airgap.VerifyResult:
    with piped(data) as stream:
        return airgap.verify(stream)


def damaged_images(result: airgap.VerifyResult) -> set[str]:
    return {image for damage in result.damage for image in damage.images}


def test_an_archive_that_passes_is_what_its_file_is(whole: Small, tmp_path: Path) -> None:
    path = tmp_path / "olm.tar"
    path.write_bytes(whole.data)
    passed, read = verify(whole.data), airgap.verify(path)
    assert (passed.id, passed.images, passed.size) == (read.id, read.images, read.size)
    assert passed.exit_status == 0
    with piped(whole.data) as stream:
        seen = airgap.inspect(stream)
    assert (seen.images, seen.packages, seen.damage) == (
        airgap.inspect(path).images,
        airgap.inspect(path).packages,
        (),
    )


def test_holes_are_named_as_in_a_file(tmp_path: Path) -> None:
    content = some_content()
    content.absent = {content.plan().blobs[2].digest}
    archive_of(tmp_path / "olm.tar", content)
    data = (tmp_path / "olm.tar").read_bytes()
    assert verify(data).missing == airgap.verify(tmp_path / "olm.tar").missing
    assert verify(data).exit_status == 3
    with piped(data) as stream:
        assert airgap.inspect(stream).missing == verify(data).missing
    hole = data.index(b"absent/")
    dirty = data[: hole + 600] + b"x" + data[hole + 601 :]
    assert "is not empty" in verify(dirty).damage[0].message


def test_any_truncation_is_found(whole: Small) -> None:
    head = whole.layout.head_end
    for size in range(0, len(whole.data), 512):
        for cut in (size, size + 1):
            if cut < head:
                with pytest.raises(ArchiveError):
                    verify(whole.data[:cut])
                continue
            result = verify(whole.data[:cut])
            assert result.exit_status == 4
            lost = [
                number
                for number, _ in enumerate(whole.plan.blobs)
                if (place := whole.layout.blob(number)).content + place.size > cut
            ]
            expected = set().union(*map(whole.images_of, lost))
            assert damaged_images(result) == expected


def test_any_flipped_byte_is_found(whole: Small) -> None:
    chance = random.Random(1)
    for at in sorted(chance.sample(range(whole.layout.head_end, len(whole.data)), 400)):
        data = bytearray(whole.data)
        data[at] ^= 1 << chance.randrange(8)
        result = verify(bytes(data))
        assert result.exit_status == 4, at
        hit = {
            number
            for number, _ in enumerate(whole.plan.blobs)
            if (place := whole.layout.blob(number)).offset <= at < place.end
        }
        expected = set().union(*map(whole.images_of, hit))
        assert damaged_images(result) == expected, at


def test_a_flipped_byte_in_the_head_is_found(whole: Small) -> None:
    chance = random.Random(2)
    for at in chance.sample(range(whole.layout.head_end), 200):
        data = bytearray(whole.data)
        data[at] ^= 1 << chance.randrange(8)
        try:
            assert verify(bytes(data)).exit_status == 4, at
        except ArchiveError:
            continue


def test_after_a_lost_block_the_stream_is_found_again(whole: Small) -> None:
    first, last = whole.layout.blob(0), whole.layout.blob(len(whole.plan.blobs) - 1)
    for at in range(first.offset, last.end, 512):
        result = verify(whole.data[:at] + whole.data[at + 512 :])
        assert result.exit_status == 4
        number = next(n for n, _ in enumerate(whole.plan.blobs) if whole.layout.blob(n).end > at)
        # The entry that lost it, and the next one, of which it has taken the header.
        allowed = {number, min(number + 1, len(whole.plan.blobs) - 1)}
        assert damaged_images(result) <= set().union(*map(whole.images_of, allowed))
        assert damaged_images(result) >= whole.images_of(number) or at >= last.content


def test_tapes_may_fill_up_with_zeros_and_nothing_else(whole: Small) -> None:
    assert verify(whole.data + bytes(9 * tar.BLOCK)).exit_status == 0
    result = verify(whole.data + b"more")
    assert [damage.message for damage in result.damage] == [
        "there is something where the archive must end"
    ]


@pytest.mark.parametrize("data", [b"", b"hello", bytes(20_000), b"oci-layout" + bytes(4000)])
def test_refuses_what_is_no_archive(data: bytes) -> None:
    with pytest.raises(ArchiveError, match="standard input: "):
        verify(data)


def test_says_that_what_comes_is_compressed(whole: Small) -> None:
    with pytest.raises(ArchiveError, match="is compressed") as caught:
        verify(zstandard.ZstdCompressor().compress(whole.data))
    assert "zstd -dc" in (caught.value.hint or "")


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("volumes")
    archive_of(folder / "olm.tar", larger_content())
    (folder / "v").mkdir()
    limit = limit_for(folder / "olm.tar")
    airgap.split(folder / "olm.tar", VolumeOptions(limit), output=folder / "v" / "olm.tar")
    found = [path.read_bytes() for path in sorted((folder / "v").iterdir())]
    assert len(found) == 3
    return found


@pytest.mark.parametrize("order", [*itertools.permutations(range(3))])
def test_volumes_pass_in_any_order(volumes: list[bytes], order: tuple[int, ...]) -> None:
    result = verify(b"".join(volumes[n] for n in order))
    assert result.exit_status == 0
    assert all(volume.file for volume in result.volumes)


def test_volumes_that_do_not_come_are_named(volumes: list[bytes]) -> None:
    result = verify(volumes[2] + volumes[0])
    assert result.exit_status == 3
    assert [volume.number for volume in result.volumes if not volume.file] == [2]
    assert any("is in volume 2, which did not come" in hole.detail for hole in result.missing)


def test_what_a_volume_cut_short_takes_of_the_next_is_named(volumes: list[bytes]) -> None:
    result = verify(volumes[0] + volumes[1][: len(volumes[1]) // 2] + volumes[2])
    assert result.exit_status == 4
    whole = verify(volumes[0])
    named = damaged_images(result) | {hole.reference for hole in result.missing}
    assert {hole.reference for hole in whole.missing} <= named


def test_refuses_another_archive_behind_the_first(whole: Small, volumes: list[bytes]) -> None:
    with pytest.raises(ArchiveError, match="another archive follows"):
        verify(whole.data + volumes[0])


@pytest.fixture(scope="module")
def packed(whole: Small) -> tuple[bytes, Frames]:
    output = Collected()
    send_all(some_content(layer_size=900), SeekableOutput(output))
    data = bytes(output.bytes)
    frames = listed(lambda size, offset: data[offset : offset + size], len(data))
    assert frames is not None
    return data, frames


def test_a_compressed_one_is_known_by_its_first_bytes(
    whole: Small, packed: tuple[bytes, Frames]
) -> None:
    passed, plain = verify(packed[0]), verify(whole.data)
    assert (passed.exit_status, passed.id, passed.size) == (0, plain.id, plain.size)
    assert verify(packed[0] + bytes(3000)).exit_status == 0


def test_of_a_compressed_one_a_damaged_frame_costs_one_blob(
    whole: Small, packed: tuple[bytes, Frames]
) -> None:
    data, frames = packed
    begins = {
        frames.starts.index(whole.layout.blob(number).offset): number
        for number in range(len(whole.plan.blobs))
    }
    first = min(begins)
    hurt = None
    for frame in range(first, len(frames.begins) - 2):
        hurt = begins.get(frame, hurt)
        damaged = bytearray(data)
        damaged[frames.begins[frame] + 8] ^= 0xFF
        result = verify(bytes(damaged))
        assert result.exit_status == 4, frame
        assert damaged_images(result) == whole.images_of(hurt or 0), frame
        assert len(result.damage) == 1, frame


def test_of_a_compressed_one_what_is_lost_on_the_way_costs_what_it_hits(
    whole: Small, packed: tuple[bytes, Frames]
) -> None:
    data, frames = packed
    first = frames.begins[frames.starts.index(whole.layout.blob(0).offset)]
    for place in range(first, frames.end - 600, 211):
        result = verify(data[:place] + data[place + 100 :])
        assert result.exit_status == 4, place
        assert damaged_images(result), place
        assert len(result.damage) <= 2, place
        assert not [d for d in result.damage if "out of step" in d.message], place


def test_any_damage_to_a_compressed_one_is_found(packed: tuple[bytes, Frames]) -> None:
    data, frames = packed
    ways = [data[:size] for size in [*range(0, len(data), 193), *range(frames.end, len(data))]]
    ways += [
        data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]
        for place in [*range(0, frames.end, 59), *range(frames.end, len(data), 3)]
    ]
    ways += [data + b"more", data + data]
    for way in ways:
        try:
            assert verify(way).exit_status == 4
        except ArchiveError:
            continue
