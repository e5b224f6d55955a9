"""An archive in several volumes: laid out, written, found, read, damaged."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import airgap
from airgap import limits
from airgap.archive import tar
from airgap.archive.audit import audit
from airgap.archive.layout import Layout, index_document
from airgap.archive.medium import VolumeOptions
from airgap.archive.reader import ArchiveReader
from airgap.digest import Digest, digest_of
from airgap.errors import ArchiveError, UsageError
from airgap.plan import Blob, Plan, Question
from airgap.progress import SILENT
from airgap.reshaper import join, split
from tests.support.plans import Content, archive_of, some_content

if TYPE_CHECKING:
    from pathlib import Path


def plan_of_sizes(sizes: list[int]) -> Plan:
    blobs = tuple(Blob(Digest("sha256", f"{n:064x}"), size) for n, size in enumerate(sizes))
    return Plan(Question(("c",), ""), (), (), (), blobs, (), ())


def layout_of(sizes: list[int], room: int) -> Layout:
    plan = plan_of_sizes(sizes)
    index = index_document(plan, digest_of(b""))
    whole = Layout(plan, 1000, index)
    return Layout(plan, 1000, index, whole.smallest_limit - limits.MIB + room)


log_normal_sizes = st.builds(
    lambda seed, count, mean, width: [
        int(random.Random(seed * 1000 + n).lognormvariate(mean, width)) for n in range(count)
    ],
    st.integers(0, 10_000),
    st.integers(0, 60),
    st.floats(5, 16),
    st.floats(0.1, 3),
)


@given(log_normal_sizes, st.integers(limits.MIB, 20 * limits.MIB))
@settings(deadline=None, max_examples=200)
def test_volumes_hold_everything_once_and_are_never_too_large(sizes: list[int], room: int) -> None:
    layout = layout_of(sizes, room)
    limit = layout.limit
    assert limit is not None
    reached = dict.fromkeys(range(len(sizes)), 0)
    for position, volume in enumerate(layout.volumes, 1):
        assert volume.number == position
        assert volume.size <= limit
        end = volume.documents[-1][0].end
        for number, piece in layout.content(volume):
            assert piece.offset == end
            assert piece.start == reached[number]
            assert piece.size > 0 or sizes[number] == 0
            reached[number] += piece.size
            end = piece.end
        assert end == volume.content_end
    assert list(reached.values()) == sizes
    order = [n for volume in layout.volumes for n, _ in layout.content(volume)]
    assert order == sorted(order)
    for volume in layout.volumes[:-1]:
        assert limit - volume.size <= limit * 0.02
    for volume in layout.volumes:
        pieces = [(n, p) for n, p in layout.content(volume) if layout.is_cut(n)]
        assert layout.pieces_in(volume) == pieces
        assert len(pieces) <= 2


@given(log_normal_sizes, st.integers(limits.MIB, 20 * limits.MIB))
@settings(deadline=None, max_examples=50)
def test_a_blob_is_cut_only_where_it_would_leave_too_much_empty(
    sizes: list[int], room: int
) -> None:
    layout = layout_of(sizes, room)
    for number in range(len(sizes)):
        if layout.is_cut(number):
            first = layout.pieces(number)[0]
            left = (layout.limit or 0) - len(tar.END) - first.offset
            assert left > (room - len(tar.END)) * 0.02 - 2 * tar.BLOCK


def test_volumes_that_hold_little_more_than_the_head_are_refused() -> None:
    assert len(layout_of([5_000_000], limits.MIB).volumes) > 4
    with pytest.raises(UsageError, match="too small") as caught:
        layout_of([5_000_000], limits.MIB - 1)
    assert caught.value.hint is not None


def test_without_a_limit_there_is_one_volume_without_a_record() -> None:
    plan = plan_of_sizes([5, 10**12])
    (volume,) = Layout(plan, 1000, index_document(plan, digest_of(b""))).volumes
    assert volume.record is None
    assert volume.blobs == range(2)


def larger_content() -> Content:
    """Content that needs three volumes of little more than a MiB, with a blob in all three."""
    content = some_content()
    chance = random.Random(7)
    for name, size in (("one", 600_000), ("two", 1_600_000), ("three", 300_000)):
        data = chance.randbytes(size)
        content.images[f"quay.io/lab/{name}:v1"] = content.manifest(name.encode(), data)
    return content


def limit_for(archive: Path) -> int:
    with ArchiveReader(archive) as reader:
        return reader.layout.smallest_limit


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "olm.tar"
    archive_of(path, larger_content())
    return path


@pytest.fixture
def volumes(whole: Path, tmp_path: Path) -> list[Path]:
    split(whole, VolumeOptions(limit_for(whole)), output=tmp_path / "olm.tar")
    return sorted(tmp_path.glob("*"))


def problems(*paths: Path) -> list[str]:
    with ArchiveReader(paths) as reader:
        return [problem.message for problem in audit(reader, SILENT)]


def test_split_leaves_the_volumes_and_nothing_else(whole: Path, volumes: list[Path]) -> None:
    assert [path.name for path in volumes] == ["olm.001.tar", "olm.002.tar", "olm.003.tar"]
    assert all(path.stat().st_size <= limit_for(whole) for path in volumes)
    assert problems(*volumes) == []


def test_join_of_split_is_the_archive_byte_by_byte(
    whole: Path, volumes: list[Path], tmp_path: Path
) -> None:
    for order in itertools.permutations(volumes):
        joined = tmp_path / "joined.tar"
        result = join(order, joined)
        assert joined.read_bytes() == whole.read_bytes()
        with ArchiveReader(whole) as reader:
            assert result.id == reader.id
        joined.unlink()


def test_volumes_of_volumes_are_the_volumes_of_the_whole(
    whole: Path, volumes: list[Path], tmp_path: Path
) -> None:
    limit = limit_for(whole) + 100_000
    for name, source in (("a", whole), ("b", volumes)):
        (tmp_path / name).mkdir()
        split(source, VolumeOptions(limit), output=tmp_path / name / "x.tar")
    one, other = (
        {p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("a", "b")
    )
    assert one == other
    assert len(one) > 1


def test_all_volumes_unpacked_give_the_layout(
    whole: Path, volumes: list[Path], tmp_path: Path
) -> None:
    target = tmp_path / "unpacked"
    target.mkdir()
    for path in volumes:
        subprocess.run(["tar", "-xf", path, "-C", target], check=True)
    for cut in {path.stem for path in (target / "pieces" / "sha256").iterdir()}:
        pieces = sorted((target / "pieces" / "sha256").glob(f"{cut}.*"))
        joined = b"".join(piece.read_bytes() for piece in pieces)
        (target / "blobs" / "sha256" / cut).write_bytes(joined)
    for digest, data in larger_content().by_digest.items():
        assert (target / "blobs" / "sha256" / digest.hex).read_bytes() == data
    records = [json.loads(path.read_text()) for path in sorted((target / "volume").iterdir())]
    assert [(record["volume"], record["of"]) for record in records] == [(1, 3), (2, 3), (3, 3)]


def test_any_volume_explains_the_whole(volumes: list[Path], whole: Path) -> None:
    with ArchiveReader(whole) as reader:
        for path in volumes:
            with ArchiveReader(path) as one:
                assert (one.id, one.plan) == (reader.id, reader.plan)
                assert len(one.lacking) == 2
                assert one.present | one.absent.keys() == set(range(len(one.plan.blobs)))
            assert problems(path) == []


@pytest.mark.parametrize("every", [4001, pytest.param(59, marks=pytest.mark.slow)])
def test_any_flipped_byte_is_found_and_its_volume_named(volumes: list[Path], every: int) -> None:
    chance = random.Random(every)
    for number, path in enumerate(volumes, 1):
        original = path.read_bytes()
        for offset in range(chance.randrange(every), len(original), every):
            damaged = bytearray(original)
            damaged[offset] ^= 1 << chance.randrange(8)
            path.write_bytes(damaged)
            for given_paths in (volumes, [path.parent]):
                result = airgap.verify(given_paths)
                assert result.exit_status in (3, 4), (number, offset)
                told = " ".join(damage.message for damage in result.damage)
                assert f"volume {number}" in told or str(path) in told, (number, offset, told)
        path.write_bytes(original)
    assert airgap.verify(volumes).exit_status == 0


def test_a_set_that_lacks_a_volume_is_not_joined(volumes: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="of 3 volumes these are not here: 2;"):
        join([volumes[2], volumes[0]], tmp_path / "joined.tar")
    assert not list(tmp_path.glob("joined*"))


def test_what_was_joined_already_is_left_as_it_is(volumes: list[Path], tmp_path: Path) -> None:
    joined = tmp_path / "joined.tar"
    first = join(volumes, joined)
    written = joined.stat().st_mtime_ns
    assert join(volumes, joined) == first
    assert joined.stat().st_mtime_ns == written


def test_another_archive_is_not_joined_over(volumes: list[Path], tmp_path: Path) -> None:
    other = tmp_path / "other.tar"
    archive_of(other, some_content(seed=2))
    before = other.read_bytes()
    with pytest.raises(UsageError, match="is not what these volumes make"):
        join(volumes, other)
    assert other.read_bytes() == before
