from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airgap.archive.content import ImageContent
from airgap.archive.file import is_archive
from airgap.archive.reader import ArchiveReader
from airgap.errors import ArchiveError, IntegrityError, StorageError
from airgap.oci.model import Descriptor
from tests.support.plans import archive_of, some_content

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.plans import Content


@pytest.fixture
def content() -> Content:
    return some_content()


@pytest.fixture
def path(tmp_path: Path, content: Content) -> Path:
    archive_of(tmp_path / "olm.tar", content)
    return tmp_path / "olm.tar"


@pytest.fixture
def reader(path: Path) -> Iterator[ArchiveReader]:
    with ArchiveReader(path) as reader:
        yield reader


def test_all_of_every_image_is_there(content: Content, reader: ArchiveReader) -> None:
    for image in reader.plan.images:
        its = ImageContent(reader, image)
        nodes = its.nodes()
        assert nodes[-1].descriptor.digest == content.images[image.reference].digest
        for node in nodes:
            raw = its.manifest(node.descriptor)
            assert raw == content.by_digest[node.descriptor.digest]
            for blob in node.blobs:
                with its.open(blob) as file:
                    assert file.read() == content.by_digest[blob.digest]
                with its.open(blob) as file:
                    pieces = list(iter(lambda: file.read(7), b""))
                assert b"".join(pieces) == content.by_digest[blob.digest]


def test_nothing_of_another_image_is(reader: ArchiveReader) -> None:
    first, second, *_ = reader.plan.images
    node = ImageContent(reader, second).nodes()[0]
    its = ImageContent(reader, first)
    with pytest.raises(ArchiveError, match=f"{node.descriptor.digest} of {first.reference}"):
        its.manifest(node.descriptor)
    with pytest.raises(ArchiveError, match="is not in it"):
        its.open(node.blobs[0])


@pytest.mark.parametrize("at", [0, -1])
def test_damage_is_found_at_the_end_at_the_latest(path: Path, at: int) -> None:
    with ArchiveReader(path) as reader:
        image = reader.plan.images[0]
        number = reader.plan.blobs_of(image)[-1]
        blob, place = reader.plan.blobs[number], reader.layout.blob(number)
    damaged = bytearray(path.read_bytes())
    damaged[place.content + at % blob.size] ^= 1
    path.write_bytes(damaged)
    with ArchiveReader(path) as reader:
        its = ImageContent(reader, image)
        with (
            its.open(Descriptor(blob.digest, blob.size, "")) as file,
            pytest.raises(IntegrityError, match=rf"olm\.tar: damaged: .*{blob.digest}"),
        ):
            file.read()


def test_what_begins_like_an_archive_is_taken_for_one(path: Path, tmp_path: Path) -> None:
    assert is_archive(path)
    for content in (b"", b"oci-layout", b"oci-layouts\0", bytes(100), b"SQLite format 3\0"):
        (tmp_path / "file").write_bytes(content)
        assert not is_archive(tmp_path / "file")
    with pytest.raises(StorageError):
        is_archive(tmp_path / "absent")
