"""An archive written from front to back is the file that would have been written."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airgap.archive.forward import ForwardWriter
from airgap.archive.head import Head
from airgap.archive.reader import ArchiveReader
from airgap.archive.work import Work
from airgap.errors import NotFound, StorageError
from airgap.storage import temporary_directory
from tests.support.plans import Content, archive_of, some_content
from tests.support.streams import Collected, send_all, stream_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airgap.digest import Digest
    from airgap.plan import Blob

WINDOWS = [1, 512, 2000, 7001, 1 << 20]
"""From smaller than most blobs to larger than all of them together."""


@pytest.fixture(scope="module")
def content() -> Content:
    return some_content(images=6)


@pytest.fixture(scope="module")
def as_file(content: Content, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "olm.tar"
    archive_of(path, content)
    return path.read_bytes()


@dataclass
class Unsteady:
    """Gives blobs by several lanes, late, in an order of its own, some not or not right."""

    content: Content
    seed: int = 0
    absent: set[Digest] = field(default_factory=set)
    wrong_once: set[Digest] = field(default_factory=set)
    cut: set[Digest] = field(default_factory=set)

    def lane(self, blob: Blob) -> str:
        return f"host-{int(blob.digest.hex[:4], 16) % 3}"

    def blob(self, blob: Blob, offset: int) -> Iterator[bytes]:
        chance = random.Random(f"{self.seed} {blob.digest}")
        time.sleep(chance.random() / 300)
        data = self.content.by_digest[blob.digest]
        if blob.digest in self.absent:
            raise NotFound(f"{blob.digest}: not here")
        if blob.digest in self.wrong_once:
            self.wrong_once.remove(blob.digest)
            data = bytes([data[0] ^ 1]) + data[1:]
        for start in range(offset, len(data), 700):
            if blob.digest in self.cut and start >= 700:
                raise NotFound(f"{blob.digest}: gone meanwhile")
            yield data[start : start + 700]


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("workers", [1, 3])
def test_the_stream_is_the_file(
    content: Content, as_file: bytes, window: int, workers: int
) -> None:
    assert stream_of(content, window=window, workers=workers) == as_file


@given(st.integers(0, 10_000), st.sampled_from(WINDOWS), st.integers(1, 6))
@settings(deadline=None, max_examples=40)
def test_no_order_of_arrival_changes_the_stream(seed: int, window: int, workers: int) -> None:
    content = some_content(seed=seed % 7, images=5)
    output = Collected()
    send_all(content, output, source=Unsteady(content, seed), window=window, workers=workers)
    assert bytes(output.bytes) == stream_of(content)


@pytest.mark.parametrize("window", WINDOWS)
def test_a_blob_that_cannot_be_had_leaves_as_a_hole(
    content: Content, tmp_path: Path, window: int
) -> None:
    lost = content.plan().blobs[3]
    source = Unsteady(content, absent={lost.digest})
    missing = send_all(content, output := Collected(), source=source, window=window)
    assert missing == [3]
    (tmp_path / "olm.tar").write_bytes(output.bytes)
    with ArchiveReader(tmp_path / "olm.tar") as reader:
        reader.require_sound_head()
        if lost.size <= window:
            assert reader.holes == {3}
        else:
            # Its header had left before anybody knew.
            assert not reader.holes
            assert not reader.is_sound(3)
        assert all(reader.is_sound(n) for n in range(len(reader.plan.blobs)) if n != 3)


@pytest.mark.parametrize("window", WINDOWS)
def test_a_large_blob_that_breaks_off_is_filled_with_zeros(
    content: Content, as_file: bytes, window: int
) -> None:
    number, blob = max(enumerate(content.plan().blobs), key=lambda pair: pair[1].size)
    source = Unsteady(content, cut={blob.digest})
    missing = send_all(content, output := Collected(), source=source, window=window)
    assert missing == [number]
    assert len(output.bytes) == len(as_file)
    data = content.by_digest[blob.digest]
    begin = as_file.index(data)
    assert (data[:700] + bytes(blob.size - 700) == output.bytes[begin : begin + blob.size]) == (
        blob.size > window
    )
    assert output.bytes[begin + blob.size :] == as_file[begin + blob.size :]


def test_a_blob_in_the_window_is_asked_for_again_when_it_was_wrong(
    content: Content, as_file: bytes
) -> None:
    source = Unsteady(content, wrong_once={blob.digest for blob in content.plan().blobs})
    assert send_all(content, output := Collected(), source=source) == []
    assert output.bytes == as_file


def test_nothing_follows_a_write_that_failed(content: Content) -> None:
    class Full(Collected):
        def write(self, data: object) -> None:
            if len(self.begun) > len(content.plan().manifests) + 6:
                self.failures += 1
                raise StorageError("full")

        failures = 0

    output = Full()
    with pytest.raises(StorageError, match="full"):
        send_all(content, output, source=Unsteady(content))
    assert output.failures == 1


def test_blobs_are_admitted_as_far_as_the_window_reaches(content: Content) -> None:
    plan = content.plan()
    window = 512 + plan.blobs[0].size + 4000
    with temporary_directory() as folder:
        work = Work(folder)
        for manifest in plan.manifests:
            work.keep(manifest.digest, content.by_digest[manifest.digest])
        head = Head(plan, work)
        with ForwardWriter(head.id, plan, head.layout, Collected(), window) as archive:
            archive.begin(head)
            for turn, blob in enumerate(plan.blobs):
                begin = archive.layout.blob(turn).content
                for number in range(turn, len(plan.blobs)):
                    entry = archive.layout.blob(number)
                    within = entry.content + entry.size - begin <= window
                    assert archive.admits(number) == (within or number == turn)
                archive.put(turn, partial(content.blob, blob))
