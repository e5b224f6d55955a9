"""Content that finished archives already hold: taken from there, and looked at when in doubt."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airgap.archive.older import OlderArchives, Recollection
from airgap.archive.reader import ArchiveReader, partial_path
from airgap.archive.work import Work
from airgap.errors import ArchiveError, UsageError
from tests.support.plans import Content, archive_of, begin, some_content

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airgap.digest import Digest


class Otherwise:
    """A registry: what it was asked for, and the content it gives."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.asked: list[int] = []

    def __call__(self, offset: int) -> Iterator[bytes]:
        self.asked.append(offset)
        yield self.content[offset:]


@pytest.fixture
def content() -> Content:
    return some_content()


@pytest.fixture
def archive(tmp_path: Path, content: Content) -> Path:
    path = tmp_path / "old.tar"
    archive_of(path, content)
    return path


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def older(archive: Path, said: list[str]) -> Iterator[OlderArchives]:
    with OlderArchives([archive], said.append) as older:
        yield older


def damage(path: Path, place: Callable[[ArchiveReader], int]) -> None:
    with ArchiveReader(path) as reader:
        at = place(reader)
    with path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def blob_of(content: Content) -> tuple[Digest, bytes]:
    digest = content.plan().blobs[2].digest
    return digest, content.by_digest[digest]


def damage_blob(path: Path, digest: Digest) -> None:
    def place(reader: ArchiveReader) -> int:
        (number,) = (n for n, b in enumerate(reader.plan.blobs) if b.digest == digest)
        return reader.layout.blob(number).content

    damage(path, place)


@pytest.mark.parametrize("offset", [0, 100])
def test_a_blob_that_is_there_is_not_asked_for(
    older: OlderArchives, content: Content, offset: int
) -> None:
    digest, data = blob_of(content)
    ask = Otherwise(data)
    assert b"".join(older.blob(digest, len(data), offset, ask)) == data[offset:]
    assert ask.asked == []
    assert older.gave(digest)


def test_a_blob_that_is_not_there_is_asked_for(older: OlderArchives, content: Content) -> None:
    other = content.keep(b"new")
    (digest,) = (d for d in content.by_digest if str(d) == other["digest"])
    ask = Otherwise(b"new")
    assert b"".join(older.blob(digest, 3, 1, ask)) == b"ew"
    assert ask.asked == [1]
    assert not older.gave(digest)


def test_a_blob_of_another_size_is_asked_for(older: OlderArchives, content: Content) -> None:
    digest, data = blob_of(content)
    ask = Otherwise(data)
    assert not older.holds(digest, len(data) + 1)
    assert list(older.blob(digest, len(data) + 1, 0, ask))
    assert ask.asked == [0]


def test_a_hole_is_not_there(tmp_path: Path, content: Content) -> None:
    digest, data = blob_of(content)
    content.absent.add(digest)
    archive_of(tmp_path / "holes.tar", content)
    with OlderArchives([tmp_path / "holes.tar"], lambda _: None) as older:
        assert not older.holds(digest, len(data))


def test_a_damaged_blob_is_told_and_asked_for_the_second_time(
    archive: Path, older: OlderArchives, content: Content, said: list[str]
) -> None:
    digest, data = blob_of(content)
    damage_blob(archive, digest)
    ask = Otherwise(data)
    assert b"".join(older.blob(digest, len(data), 0, ask)) != data
    assert said == []
    assert b"".join(older.blob(digest, len(data), 0, ask)) == data
    assert b"".join(older.blob(digest, len(data), 5, ask)) == data[5:]
    assert ask.asked == [0, 5]
    (line,) = said
    assert f"{archive}: damaged: blob {digest}" in line
    assert not older.gave(digest)


def test_a_sound_blob_is_given_as_often_as_it_is_asked_for(
    older: OlderArchives, content: Content, said: list[str]
) -> None:
    digest, data = blob_of(content)
    ask = Otherwise(data)
    for offset in (100, 0, 0):
        assert b"".join(older.blob(digest, len(data), offset, ask)) == data[offset:]
    assert (ask.asked, said) == ([], [])


def test_a_medium_that_cannot_be_read_further_costs_the_rest_of_the_blob(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = some_content(layer_size=2_000_000)
    digest = max(content.plan().blobs, key=lambda blob: blob.size).digest
    data = content.by_digest[digest]
    archive_of(tmp_path / "old.tar", content)
    ask = Otherwise(data)
    with OlderArchives([tmp_path / "old.tar"], said.append) as older:
        pieces = older.blob(digest, len(data), 0, ask)
        first = next(pieces)

        def failing(*_: int) -> bytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(os, "pread", failing)
        assert first + b"".join(pieces) == data
        assert ask.asked == [len(first)]
        assert ["Input/output error" in line for line in said] == [True]
        assert not older.gave(digest)


def test_a_damaged_manifest_is_told_and_not_known(
    archive: Path, older: OlderArchives, content: Content, said: list[str]
) -> None:
    damage(archive, lambda reader: reader.layout.manifest(0).content)
    first, second = content.plan().manifests[:2]
    assert older.manifest(first.digest) is None
    assert older.manifest(first.digest) is None
    assert older.manifest(second.digest) == content.by_digest[second.digest]
    assert older.manifests == {second.digest}
    (line,) = said
    assert str(first.digest) in line


def test_of_several_archives_the_first_that_has_it_gives(
    archive: Path, tmp_path: Path, content: Content, said: list[str]
) -> None:
    digest, data = blob_of(content)
    content.absent.add(digest)
    holes = tmp_path / "holes.tar"
    archive_of(holes, content)
    others = some_content(seed=2)
    archive_of(tmp_path / "other.tar", others)
    ask = Otherwise(b"")
    with OlderArchives([tmp_path / "other.tar", holes, archive], said.append) as older:
        assert b"".join(older.blob(digest, len(data), 0, ask)) == data
        for found in (*content.plan().manifests, *others.plan().manifests):
            assert older.manifest(found.digest)
    assert ask.asked == []


def test_what_is_damaged_in_the_head_is_refused(archive: Path) -> None:
    damage(archive, lambda reader: reader.layout.volumes[0].documents[3][0].content)
    with pytest.raises(ArchiveError, match=r"old\.tar: damaged: index\.json") as caught:
        OlderArchives([archive], lambda _: None)
    assert caught.value.hint is not None


def test_one_that_was_cut_short_gives_what_it_has(
    archive: Path, content: Content, said: list[str]
) -> None:
    with ArchiveReader(archive) as reader:
        last = len(reader.plan.blobs) - 1
        end = reader.layout.blob(last).content + 1
    os.truncate(archive, end)
    blobs = content.plan().blobs
    with OlderArchives([archive], said.append) as older:
        assert ["cut short" in line for line in said] == [True]
        for blob in blobs[:-1]:
            data = content.by_digest[blob.digest]
            assert b"".join(older.blob(blob.digest, blob.size, 0, Otherwise(b""))) == data
        ask = Otherwise(content.by_digest[blobs[-1].digest])
        for _ in range(2):
            list(older.blob(blobs[-1].digest, blobs[-1].size, 0, ask))
        assert ask.asked == [0]


def test_an_unfinished_one_is_refused(tmp_path: Path, content: Content) -> None:
    begin(tmp_path / "it.tar", content)
    for name in ("it.tar", "it.tar.partial"):
        with pytest.raises(UsageError, match="not finished") as caught:
            OlderArchives([tmp_path / name], lambda _: None)
        assert caught.value.hint is not None
    assert partial_path(tmp_path / "it.tar").exists()


def test_no_file_stays_open(archive: Path, tmp_path: Path) -> None:
    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = open_files()
    with OlderArchives([archive, archive], lambda _: None):
        assert open_files() == before + 2
    assert open_files() == before
    (tmp_path / "none.tar").write_text("no archive")
    with pytest.raises(ArchiveError):
        OlderArchives([archive, tmp_path / "none.tar"], lambda _: None)
    assert open_files() == before


class TestRecollection:
    @pytest.fixture
    def work(self, tmp_path: Path) -> Work:
        return Work(tmp_path / "new.work")

    @pytest.fixture
    def memory(self, work: Work, older: OlderArchives) -> Recollection:
        return Recollection(work, older)

    def test_knows_what_a_digest_stands_for(self, memory: Recollection, content: Content) -> None:
        for manifest in content.plan().manifests:
            found = memory.pinned(f"quay.io/some/where@{manifest.digest}")
            assert found is not None
            assert (found.digest, found.size) == (manifest.digest, manifest.size)
            assert found.media_type == manifest.media_type
            assert memory.pinned(f"quay.io/some/where:v1@{manifest.digest}") == found

    def test_does_not_know_what_a_tag_stands_for(
        self, memory: Recollection, content: Content
    ) -> None:
        for name in content.images:
            assert memory.pinned(name) is None
        memory.pin("quay.io/lab/catalog:v1", content.images["quay.io/lab/catalog:v1"])
        assert memory.pinned("quay.io/lab/catalog:v1") == content.images["quay.io/lab/catalog:v1"]

    def test_keeps_what_it_takes(self, memory: Recollection, work: Work, content: Content) -> None:
        digest = content.plan().manifests[0].digest
        assert work.manifest(digest) is None
        assert memory.manifest(digest) == content.by_digest[digest]
        assert work.manifest(digest) == content.by_digest[digest]

    def test_fetches_what_an_archive_has_damaged(
        self, archive: Path, memory: Recollection, content: Content, said: list[str]
    ) -> None:
        digest, data = blob_of(content)
        damage_blob(archive, digest)
        ask = Otherwise(data)
        memory.fetch(digest, len(data), ask)
        with memory.open(digest) as file:
            assert file.read() == data
        assert (ask.asked, len(said)) == ([0], 1)
