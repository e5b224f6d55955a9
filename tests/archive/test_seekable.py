"""A compressed archive: the same tar, read at any place, and a damaged frame costs one entry."""

from __future__ import annotations

import io
import random
import shutil
import subprocess
import tarfile
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import airgap
from airgap.archive import seekable
from airgap.archive.compressed import Begun
from airgap.archive.frames import TABLE_DAMAGED, Frame, Frames
from airgap.archive.output import FileOutput
from airgap.archive.reader import ArchiveReader
from airgap.archive.seekable import SeekableOutput, frames_of
from airgap.errors import ArchiveError
from tests.support.plans import Content, some_content
from tests.support.streams import Collected, send_all, stream_of

if TYPE_CHECKING:
    from pathlib import Path


def compress(path: Path, content: Content, *, window: int = 1 << 20) -> None:
    with closing(FileOutput(path)) as file:
        send_all(content, SeekableOutput(file), window=window)


def unpacked(data: bytes) -> bytes:
    """Return what any zstd makes of it."""
    return zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()


def verify(path: Path) -> airgap.VerifyResult:
    return airgap.verify(path)


@pytest.fixture(scope="module")
def compressed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("compressed") / "olm.tar.zst"
    compress(path, some_content())
    return path


@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(2, 9000), st.sampled_from([1, 9999]))
@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_zstd_and_plain_have_the_same_content(
    tmp_path: Path, seed: int, images: int, layer: int, window: int
) -> None:
    content = some_content(seed=seed, images=images, layer_size=layer)
    compress(path := tmp_path / "olm.tar.zst", content, window=window)
    plain = stream_of(content)
    assert unpacked(path.read_bytes()) == plain
    with ArchiveReader(path) as reader:
        assert list(reader.check_head()) == []
        assert reader.size == len(plain)
        chance = random.Random(seed)
        for _ in range(20):
            at, size = chance.randrange(len(plain)), chance.randrange(20_000)
            (volume,) = reader.here
            assert b"".join(reader.content(volume, at, size)) == plain[at : at + size]
    assert verify(path).exit_status == 0
    path.unlink()


def test_frames_hold_no_more_than_they_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seekable, "WRITTEN", 1000)
    compress(path := tmp_path / "olm.tar.zst", some_content())
    frames = frames_of(path)
    ends = [*frames.starts[1:], frames.size]
    assert max(end - start for start, end in zip(frames.starts, ends, strict=True)) == 1000
    assert verify(path).exit_status == 0


def test_every_entry_begins_a_frame(compressed: Path) -> None:
    frames = frames_of(compressed)
    with ArchiveReader(compressed) as reader:
        layout = reader.layout
        begins = {layout.blob(n).offset for n in range(len(reader.plan.blobs))}
        begins |= {layout.manifest(n).offset for n in range(len(reader.plan.manifests))}
    assert begins <= set(frames.starts)


@pytest.mark.parametrize("program", [["zstd", "-dc"], ["bsdtar", "-tf"], ["tar", "-tf"]])
def test_other_programs_read_it(compressed: Path, program: list[str]) -> None:
    if not all(map(shutil.which, [program[0], "zstd"])):
        pytest.skip(f"no {program[0]} here")
    ran = subprocess.run([*program, compressed], check=True, capture_output=True, timeout=60)
    plain = stream_of(some_content())
    if program[0] == "zstd":
        assert ran.stdout == plain
        return
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        assert ran.stdout.decode().split() == tar.getnames()


def test_a_damaged_frame_costs_one_blob(compressed: Path, tmp_path: Path) -> None:
    data = compressed.read_bytes()
    frames = frames_of(compressed)
    with ArchiveReader(compressed) as reader:
        places = [reader.layout.blob(n) for n in range(len(reader.plan.blobs))]
    for number, place in enumerate(places):
        frame = frames.starts.index(place.content)
        damaged = bytearray(data)
        damaged[frames.begins[frame] + 20] ^= 0xFF
        (path := tmp_path / "olm.tar.zst").write_bytes(damaged)
        with ArchiveReader(path) as reader:
            sound = [reader.is_sound(n) for n in range(len(places))]
        assert sound == [n != number for n in range(len(places))]
        assert verify(path).exit_status == 4


def test_any_truncation_is_found(compressed: Path, tmp_path: Path) -> None:
    data = compressed.read_bytes()
    path = tmp_path / "olm.tar.zst"
    for size in [*range(0, len(data), 97), *range(len(data) - 40, len(data))]:
        path.write_bytes(data[:size])
        try:
            assert verify(path).exit_status == 4, size
        except ArchiveError:
            continue


def test_a_lying_table_is_not_believed(compressed: Path, tmp_path: Path) -> None:
    data = compressed.read_bytes()
    path = tmp_path / "olm.tar.zst"
    path.write_bytes(data[:-9] + (2**31).to_bytes(4, "little") + data[-5:])
    messages = [damage.message for damage in verify(path).damage]
    assert messages == ["the table of frames at the end is damaged or missing"]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "olm.tar.zst"
    compress(path, some_content(images=1, layer_size=900))
    return path


@pytest.mark.parametrize("flip", [0x01, 0x10, 0xFF])
def test_a_damaged_table_is_named_and_costs_nothing_else(
    small: Path, tmp_path: Path, flip: int
) -> None:
    data = small.read_bytes()
    path = tmp_path / "olm.tar.zst"
    for place in range(frames_of(small).end, len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ flip]) + data[place + 1 :])
        messages = [damage.message for damage in verify(path).damage]
        assert messages == [TABLE_DAMAGED], place
        with ArchiveReader(path) as reader:
            reader.require_sound_head()


def test_a_damaged_byte_anywhere_is_found_and_not_blamed_on_the_table(
    small: Path, tmp_path: Path
) -> None:
    """But for those that change nothing of what anybody reads: zstd has a few bits to spare."""
    data, plain = small.read_bytes(), unpacked(small.read_bytes())
    path = tmp_path / "olm.tar.zst"
    for place in range(0, frames_of(small).end, 5):
        flip = (0x01, 0x10, 0xFF)[place % 3]
        path.write_bytes(damaged := data[:place] + bytes([data[place] ^ flip]) + data[place + 1 :])
        try:
            result = verify(path)
        except ArchiveError:
            continue
        assert TABLE_DAMAGED not in [damage.message for damage in result.damage], place
        assert result.exit_status == 4 or unpacked(damaged) == plain, place


def test_refuses_what_was_compressed_in_another_way(tmp_path: Path) -> None:
    path = tmp_path / "olm.tar.zst"
    path.write_bytes(zstandard.ZstdCompressor().compress(stream_of(some_content())))
    with pytest.raises(ArchiveError, match="not in the way that airgap does") as caught:
        verify(path)
    assert "zstd -dc" in (caught.value.hint or "")


@pytest.mark.parametrize("believe", [True, False])
def test_what_is_whole_of_one_that_was_cut_off_is_kept(
    compressed: Path, tmp_path: Path, believe: bool
) -> None:
    data = compressed.read_bytes()
    path = tmp_path / "olm.tar.zst.partial"
    ends = []
    for size in range(0, len(data), 61):
        path.write_bytes(data[:size])
        begun = Begun.found(path, believe=believe)
        ends.append(-1 if begun is None else begun.done)
        if begun is not None:
            assert begun.frames.end <= size
    assert ends == sorted(ends)
    assert ends[0] == -1
    assert ends[-1] == len(some_content().plan().blobs)


def test_what_a_power_cut_has_spoilt_is_not_kept(compressed: Path, tmp_path: Path) -> None:
    frames = frames_of(compressed)
    data = bytearray(compressed.read_bytes())
    with ArchiveReader(compressed) as reader:
        frame = frames.starts.index(reader.layout.blob(3).content)
    data[frames.begins[frame] + 20] ^= 1
    (path := tmp_path / "olm.tar.zst.partial").write_bytes(data)
    begun = Begun.found(path, believe=False)
    assert begun is not None
    assert begun.done == 3


def test_frames_until_a_position_are_those_that_end_there() -> None:
    frames = Frames()
    for size in (10, 20, 30):
        frames.add(Frame(5, size, bytes(4)))
    assert [frames.until(n).size for n in (0, 9, 10, 29, 30, 60)] == [0, 0, 10, 10, 30, 60]


def test_layers_that_are_compressed_already_take_the_fastest_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = []
    make = zstandard.ZstdCompressor

    def recorded(level: int, write_checksum: bool) -> zstandard.ZstdCompressor:
        levels.append(level)
        return make(level=level, write_checksum=write_checksum)

    monkeypatch.setattr(zstandard, "ZstdCompressor", recorded)
    output = SeekableOutput(Collected(), level=5)
    for content in (b"plain", b"\x1f\x8b compressed", b"plain"):
        output.begin()
        output.write(bytes(512) + content)
    output.finish()
    assert levels[1::2] == [5, seekable.FASTEST, 5]
