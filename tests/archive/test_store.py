"""An archive as a place to pull from: what is given, what is not, and what damage does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airgap.archive.medium import VolumeOptions, volume_name
from airgap.archive.reader import ArchiveReader
from airgap.archive.store import ArchiveStore
from airgap.digest import digest_of
from airgap.errors import IntegrityError
from airgap.reshaper import split
from airgap.shelves import by_source
from tests.support.plans import Content, archive_of, some_content

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airgap.digest import Digest

ONE = "quay.io/lab/image-0"
BOTH = "quay.io/lab/both"


class Shop:
    """An archive's store, and what was said about it."""

    def __init__(self, reader: ArchiveReader) -> None:
        self.reader = reader
        self.said: list[str] = []
        self.store = ArchiveStore(reader, by_source(reader.plan), self.said.append)

    def root(self, repository: str) -> Digest:
        found = self.store.manifest(repository, "v1")
        assert found is not None
        return found[0].digest

    def blobs(self, name: str) -> list[Digest]:
        plan = self.reader.plan
        (image,) = [image for image in plan.images if image.reference == f"{name}:v1"]
        return [plan.blobs[number].digest for number in plan.blobs_of(image)]

    def read(self, repository: str, digest: Digest, offset: int = 0, count: int = -1) -> bytes:
        blob = self.store.blob(repository, digest)
        assert blob is not None
        return b"".join(blob.pieces(offset, blob.size if count < 0 else count))


@pytest.fixture
def content() -> Content:
    return some_content(layer_size=700_000)


@pytest.fixture
def archive(tmp_path: Path, content: Content) -> Path:
    archive_of(tmp_path / "a.tar", content)
    return tmp_path / "a.tar"


@pytest.fixture
def shop(archive: Path) -> Iterator[Shop]:
    with ArchiveReader(archive) as reader:
        yield Shop(reader)


def spoil(archive: Path, digest: Digest, at: int = -1) -> None:
    """Change one byte of a blob or a manifest."""
    with ArchiveReader(archive) as reader:
        plan, layout = reader.plan, reader.layout
        places = [layout.manifest(n) for n, m in enumerate(plan.manifests) if m.digest == digest]
        places += [
            p for n, b in enumerate(plan.blobs) if b.digest == digest for p in layout.pieces(n)
        ]
        (place,) = places
    position = place.content + at % place.size
    with archive.open("r+b") as file:
        file.seek(position)
        (byte,) = file.read(1)
        file.seek(position)
        file.write(bytes([byte ^ 1]))


def test_gives_all_of_an_image_by_tag_and_by_digest(shop: Shop, content: Content) -> None:
    root = content.images[f"{ONE}:v1"]
    for reference in ("v1", root.digest):
        assert shop.store.manifest(ONE, reference) == (root, content.by_digest[root.digest])
    for digest in shop.blobs(ONE):
        assert shop.read(ONE, digest) == content.by_digest[digest]
    assert shop.store.tags(ONE) == ["v1"]
    assert shop.said == []


def test_gives_any_part_of_a_blob(shop: Shop, content: Content) -> None:
    digest = shop.blobs(ONE)[1]
    whole = content.by_digest[digest]
    for offset, count in ((0, 1), (5, 300_000), (len(whole) - 1, 1), (1, len(whole) - 1)):
        assert shop.read(ONE, digest, offset, count) == whole[offset : offset + count]


def test_gives_a_repository_its_own_content_alone(shop: Shop) -> None:
    own = min(set(shop.blobs(ONE)) - set(shop.blobs(BOTH)))
    assert shop.store.blob(BOTH, own) is None
    assert shop.store.manifest(BOTH, shop.root(ONE)) is None
    assert shop.store.manifest(ONE, "v2") is None
    for unknown in ("quay.io/lab/other", "lab/image-0"):
        assert shop.store.tags(unknown) is None
        assert shop.store.blob(unknown, own) is None
        assert shop.store.manifest(unknown, "v1") is None
    assert shop.said == []


def test_gives_no_damaged_manifest(archive: Path, content: Content) -> None:
    root = content.images[f"{ONE}:v1"].digest
    with ArchiveReader(archive) as reader:
        shop = Shop(reader)
        assert shop.store.manifest(ONE, root) is not None
        spoil(archive, root)  # Whatever was given before, it is hashed again.
        with pytest.raises(IntegrityError, match=root.hex):
            shop.store.manifest(ONE, root)
    assert len(shop.said) == 1
    assert root.hex in shop.said[0]


@pytest.mark.parametrize("at", [0, 300_000, -1])
def test_never_ends_a_damaged_blob(archive: Path, content: Content, at: int) -> None:
    with ArchiveReader(archive) as reader:
        shop = Shop(reader)
        digest = max(shop.blobs(ONE), key=lambda each: len(content.by_digest[each]))
        spoil(archive, digest, at)
        blob = shop.store.blob(ONE, digest)
        assert blob is not None
        given = 0
        with pytest.raises(IntegrityError):
            for piece in blob.pieces(0, blob.size):
                given += len(piece)
    assert given < blob.size
    assert len(shop.said) == 1
    assert digest.hex in shop.said[0]


def test_gives_no_part_of_a_damaged_blob(archive: Path, content: Content) -> None:
    with ArchiveReader(archive) as reader:
        shop = Shop(reader)
        digest = shop.blobs(ONE)[1]
        spoil(archive, digest, 0)
        blob = shop.store.blob(ONE, digest)
        assert blob is not None
        with pytest.raises(IntegrityError):
            next(iter(blob.pieces(len(content.by_digest[digest]) - 10, 10)))


def test_an_image_with_a_hole_is_said_not_to_be_there(tmp_path: Path, content: Content) -> None:
    with_hole = tmp_path / "hole.tar"
    manifest = content.manifest(b"{}", b"never arrives")
    content.images["quay.io/lab/hole:v1"] = manifest
    content.absent.add(digest_of(b"never arrives"))
    archive_of(with_hole, content)
    with ArchiveReader(with_hole) as reader:
        shop = Shop(reader)
        assert shop.store.manifest("quay.io/lab/hole", "v1") is None
        assert shop.store.manifest("quay.io/lab/hole", manifest.digest) is None
        assert shop.store.blob("quay.io/lab/hole", digest_of(b"never arrives")) is None
        assert shop.store.tags("quay.io/lab/hole") == []
        assert shop.store.blob("quay.io/lab/hole", digest_of(b"{}")) is not None
        assert shop.store.manifest(ONE, "v1") is not None
    assert len(shop.said) == 3
    assert all(f"{digest_of(b'never arrives')} is a hole" in line for line in shop.said)


def test_an_index_is_given_while_anything_it_lists_is(tmp_path: Path, content: Content) -> None:
    one, other = content.manifest(b"{1}", b"here"), content.manifest(b"{2}", b"not here")
    content.images["quay.io/lab/half:v1"] = content.index(one, other)
    content.images["quay.io/lab/none:v1"] = content.index(other)
    content.absent.add(digest_of(b"not here"))
    archive_of(tmp_path / "half.tar", content)
    with ArchiveReader(tmp_path / "half.tar") as reader:
        shop = Shop(reader)
        assert shop.store.manifest("quay.io/lab/half", "v1") is not None
        assert shop.store.manifest("quay.io/lab/half", one.digest) is not None
        assert shop.store.manifest("quay.io/lab/half", other.digest) is None
        assert shop.store.manifest("quay.io/lab/none", "v1") is None


def test_gives_what_the_volumes_here_hold(archive: Path, tmp_path: Path, content: Content) -> None:
    with ArchiveReader(archive) as reader:
        limit = reader.layout.smallest_limit + 100_000
    split(archive, VolumeOptions(limit), output=tmp_path / "v.tar")
    second = tmp_path / volume_name(tmp_path / "v.tar", 2)
    files = sorted(tmp_path.glob("v.*.tar"), reverse=True)
    with ArchiveReader(files) as reader:
        shop = Shop(reader)
        for image in reader.plan.images:
            name = image.reference.removesuffix(":v1")
            assert shop.store.tags(name) == ["v1"]
            for digest in shop.blobs(name):
                assert shop.read(name, digest) == content.by_digest[digest]
    files.remove(second)
    with ArchiveReader(files) as reader:
        shop = Shop(reader)
        for image in reader.plan.images:
            for number in reader.plan.blobs_of(image):
                digest = reader.plan.blobs[number].digest
                needs_it = 2 in {place.volume for place in reader.layout.pieces(number)}
                found = shop.store.blob(image.reference.removesuffix(":v1"), digest)
                assert (found is None) == needs_it
    assert shop.said
    assert all("is in volume 2, which is not here" in line for line in shop.said)
