from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from airgap.archive.work import Work, work_path
from airgap.digest import Digest, digest_of
from airgap.errors import IntegrityError, StorageError, Unreachable
from airgap.oci import media_types
from airgap.oci.model import Descriptor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CONTENT = random.Random(3).randbytes(50_000)
DIGEST = digest_of(CONTENT)
PIN = Descriptor(DIGEST, 12, media_types.OCI_MANIFEST)


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(work_path(tmp_path / "olm.tar"))


def _giving(content: bytes, asked: list[int]) -> Callable[[int], Iterator[bytes]]:
    def read(offset: int) -> Iterator[bytes]:
        asked.append(offset)
        for start in range(offset, len(content), 10_000):
            yield content[start : start + 10_000]

    return read


def _breaking(after: int) -> Callable[[int], Iterator[bytes]]:
    def read(offset: int) -> Iterator[bytes]:
        yield CONTENT[offset : offset + after]
        raise Unreachable("the connection broke")

    return read


def test_pins_outlive_the_run_that_set_them(work: Work) -> None:
    assert work.pinned("quay.io/a/b:v1") is None
    work.pin("quay.io/a/b:v1", PIN)
    assert work.pinned("quay.io/a/b:v1") == PIN
    assert Work(work.directory).pinned("quay.io/a/b:v1") == PIN


def test_the_last_pin_of_a_reference_counts(work: Work) -> None:
    other = Descriptor(digest_of(b"other"), 5, media_types.OCI_INDEX)
    work.pin("quay.io/a/b:v1", PIN)
    work.pin("quay.io/a/b:v1", other)
    assert Work(work.directory).pinned("quay.io/a/b:v1") == other


@pytest.mark.parametrize(
    "junk",
    ['["quay.io/c', "not json\n", '["quay.io/c", "md5:1", 1, "x"]\n', "[1]\n", "{}\n", "\0\n"],
)
def test_a_pin_that_was_cut_or_damaged_is_asked_for_again(work: Work, junk: str) -> None:
    work.pin("quay.io/a/b:v1", PIN)
    with (work.directory / "pins.jsonl").open("a") as file:
        file.write(junk)
    again = Work(work.directory)
    assert again.pinned("quay.io/a/b:v1") == PIN
    assert again.pinned("quay.io/c") is None


def test_a_pin_after_one_that_was_cut_is_remembered(work: Work) -> None:
    with (work.directory / "pins.jsonl").open("a") as file:
        file.write('["quay.io/c')
    Work(work.directory).pin("quay.io/a/b:v1", PIN)
    assert Work(work.directory).pinned("quay.io/a/b:v1") == PIN


def test_a_manifest_is_believed_by_its_digest(work: Work) -> None:
    assert work.manifest(DIGEST) is None
    work.keep(DIGEST, CONTENT)
    assert work.manifest(DIGEST) == CONTENT
    (work.directory / "sha256" / DIGEST.hex).write_bytes(CONTENT[:-1])
    assert work.manifest(DIGEST) is None


def test_a_blob_is_fetched_once(work: Work) -> None:
    asked: list[int] = []
    work.fetch(DIGEST, len(CONTENT), _giving(CONTENT, asked))
    work.fetch(DIGEST, len(CONTENT), _giving(CONTENT, asked))
    assert asked == [0]
    assert work.holds(DIGEST)
    with work.open(DIGEST) as file:
        assert file.read() == CONTENT


def test_a_broken_fetch_continues_where_it_was(work: Work) -> None:
    with pytest.raises(Unreachable):
        work.fetch(DIGEST, len(CONTENT), _breaking(after=20_000))
    assert not work.holds(DIGEST)
    asked: list[int] = []
    work.fetch(DIGEST, len(CONTENT), _giving(CONTENT, asked))
    assert asked == [20_000]
    assert work.holds(DIGEST)


def test_what_an_earlier_run_left_may_be_wrong(work: Work) -> None:
    (work.directory / "sha256" / f"{DIGEST.hex}.partial").write_bytes(b"\0" * 20_000)
    asked: list[int] = []
    work.fetch(DIGEST, len(CONTENT), _giving(CONTENT, asked))
    assert asked == [20_000, 0]
    assert work.holds(DIGEST)


def test_a_stored_blob_that_was_damaged_is_fetched_again(work: Work) -> None:
    asked: list[int] = []
    work.fetch(DIGEST, len(CONTENT), _giving(CONTENT, asked))
    path = work.directory / "sha256" / DIGEST.hex
    path.write_bytes(CONTENT[:-1] + b"\0")
    work.fetch(DIGEST, len(CONTENT), _giving(CONTENT, asked))
    assert asked == [0, 0]
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("wrong", [CONTENT[:-1] + b"?", CONTENT + b"more", CONTENT[:-5]])
def test_a_blob_altered_on_the_way_is_fetched_once_more(work: Work, wrong: bytes) -> None:
    asked: list[int] = []
    answers = [_giving(wrong, asked), _giving(CONTENT, asked)]
    work.fetch(DIGEST, len(CONTENT), lambda offset: answers.pop(0)(offset))
    assert asked == [0, 0]
    with work.open(DIGEST) as file:
        assert file.read() == CONTENT


def test_a_blob_that_is_always_altered_is_fetched_twice_and_no_more(work: Work) -> None:
    asked: list[int] = []
    with pytest.raises(IntegrityError, match=DIGEST.hex):
        work.fetch(DIGEST, len(CONTENT), _giving(CONTENT[:-1] + b"?", asked))
    assert asked == [0, 0]


@pytest.mark.parametrize("content", [CONTENT[:-1] + b"?", CONTENT + b"more", CONTENT[:-5]])
def test_other_bytes_than_promised_are_not_kept(work: Work, content: bytes) -> None:
    with pytest.raises(IntegrityError, match=DIGEST.hex):
        work.fetch(DIGEST, len(CONTENT), _giving(content, []))
    assert not work.holds(DIGEST)
    assert list((work.directory / "sha256").iterdir()) == []


def test_a_finished_plan_leaves_nothing(work: Work) -> None:
    work.keep(DIGEST, CONTENT)
    work.remove()
    assert not work.directory.exists()


def test_no_name_is_chosen_by_content(work: Work) -> None:
    evil = Digest.parse("sha256:" + "0" * 64)
    work.pin("../../../etc/passwd", PIN)
    work.keep(evil, b"x")
    names = {path.name for path in work.directory.rglob("*")}
    assert names == {"pins.jsonl", "sha256", evil.hex}


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "olm.tar.work").write_text("in the way")
    with pytest.raises(StorageError, match=r"olm\.tar\.work: "):
        Work(work_path(tmp_path / "olm.tar"))
