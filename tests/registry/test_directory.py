"""A directory of images: what survives, what is shared, and what is never believed."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from airgap.digest import Digest, digest_of
from airgap.errors import IntegrityError, StorageError, UsageError
from airgap.registry.directory import DirectoryStore, FileUpload
from airgap.registry.store import WritableStore
from tests.support import images
from tests.support.upstream import put

if TYPE_CHECKING:
    from pathlib import Path

    from airgap.registry.directory import FileBlob

IMAGE = images.image([images.layer({"a": b"b"})])
CONTENT = b"0123456789"
DIGEST = digest_of(CONTENT)


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "content", durable=False)


def put_blob(store: DirectoryStore, repository: str, content: bytes = CONTENT) -> Digest:
    upload = store.upload(repository)
    try:
        upload.write(content)
        upload.commit(digest_of(content))
    finally:
        upload.discard()
    return digest_of(content)


def read(blob: FileBlob | None, offset: int, count: int) -> bytes:
    assert blob is not None
    return b"".join(
        os.pread(span.descriptor, span.length, span.offset) for span in blob.pieces(offset, count)
    )


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_fits_what_the_server_writes_to(store: DirectoryStore) -> None:
    assert isinstance(store, WritableStore)


@pytest.mark.parametrize("durable", [True, False])
def test_what_was_put_is_there_when_opened_again(tmp_path: Path, durable: bool) -> None:
    put(DirectoryStore(tmp_path / "content", durable=durable), "a/b", IMAGE, "v1")
    store = DirectoryStore(tmp_path / "content")
    for reference in ("v1", IMAGE.digest):
        found = store.manifest("a/b", reference)
        assert found is not None
        descriptor, raw = found
        assert (raw, descriptor.digest) == (IMAGE.raw, IMAGE.digest)
        assert descriptor.media_type == IMAGE.descriptor.media_type
    for blob in IMAGE.blobs:
        assert read(store.blob("a/b", blob.digest), 0, blob.size) == blob.read()


def test_gives_any_stretch_of_a_blob(store: DirectoryStore) -> None:
    put_blob(store, "a/b")
    assert read(store.blob("a/b", DIGEST), 3, 4) == b"3456"


def test_keeps_one_copy_for_all_repositories(store: DirectoryStore) -> None:
    put_blob(store, "a/b")
    put_blob(store, "c/d")
    assert store.mount("e/f", DIGEST, "a/b")
    assert all(store.blob(name, DIGEST) for name in ("a/b", "c/d", "e/f"))
    assert files(store.root / "blobs") == {f"sha256/{DIGEST.hex}"}


def test_shows_a_repository_only_what_it_has(store: DirectoryStore) -> None:
    put_blob(store, "a/b")
    put(store, "a/b", IMAGE, "v1")
    assert store.blob("a", DIGEST) is None
    assert store.blob("a/b", IMAGE.digest) is None
    assert store.manifest("a", IMAGE.digest) is None
    assert store.manifest("a/b", DIGEST) is None
    assert store.manifest("a", "v1") is None
    assert store.tags("a") is None
    assert not store.mount("e/f", digest_of(b"absent"), "a/b")
    assert not store.mount("e/f", DIGEST, "c/d")


def test_a_repository_may_lie_below_another(store: DirectoryStore) -> None:
    for repository in ("a", "a/b", "a/b/c"):
        put(store, repository, IMAGE, repository.replace("/", "-"))
    assert [store.tags(name) for name in ("a", "a/b", "a/b/c")] == [["a"], ["a-b"], ["a-b-c"]]


def test_tags_that_differ_in_case_are_different(store: DirectoryStore) -> None:
    other = images.image([], labels={"other": "image"})
    put(store, "a/b", IMAGE, "V1")
    put(store, "a/b", other, "v1")
    assert sorted(store.tags("a/b") or ()) == ["V1", "v1"]
    for tag, image in (("V1", IMAGE), ("v1", other)):
        found = store.manifest("a/b", tag)
        assert found is not None
        assert found[0].digest == image.digest
    names = [name.lower() for name in files(store.root)]
    assert len(names) == len(set(names))


def test_takes_tags_and_manifests_away(store: DirectoryStore) -> None:
    for tag in ("v1", "v2"):
        put(store, "a/b", IMAGE, tag)
    assert store.delete_tag("a/b", "v1")
    assert not store.delete_tag("a/b", "v1")
    assert store.tags("a/b") == ["v2"]
    assert store.delete_manifest("a/b", IMAGE.digest)
    assert not store.delete_manifest("a/b", IMAGE.digest)
    assert store.tags("a/b") == []
    assert not store.delete_manifest("no/such", IMAGE.digest)


def test_keeps_no_blob_that_is_not_what_its_digest_says(store: DirectoryStore) -> None:
    upload = store.upload("a/b")
    upload.write(b"something else")
    with pytest.raises(IntegrityError, match=str(digest_of(b"something else"))):
        upload.commit(DIGEST)
    upload.discard()
    assert store.blob("a/b", DIGEST) is None
    assert files(store.root) == {"registry.json"}


def test_a_discarded_upload_leaves_nothing(store: DirectoryStore) -> None:
    upload = store.upload("a/b")
    upload.write(CONTENT)
    assert upload.size == len(CONTENT)
    upload.discard()
    assert files(store.root) == {"registry.json"}


def test_content_in_the_making_is_not_there(store: DirectoryStore) -> None:
    upload = store.upload("a/b")
    upload.write(CONTENT)
    assert store.blob("a/b", DIGEST) is None
    assert not store.root.joinpath("blobs").exists()
    upload.commit(DIGEST)
    assert store.blob("a/b", DIGEST) is not None


def test_many_threads_may_put_the_same_content(store: DirectoryStore) -> None:
    threads = [
        threading.Thread(target=put, args=(store, f"r{n % 3}", IMAGE, f"v{n}")) for n in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(tag for n in range(3) for tag in store.tags(f"r{n}") or ()) == sorted(
        f"v{n}" for n in range(12)
    )
    assert not list(store.root.joinpath("uploads").iterdir())


def test_removes_what_was_abandoned_long_ago_when_written_to(store: DirectoryStore) -> None:
    old, fresh = store.root / "uploads/old", store.root / "uploads/fresh"
    for path in (old, fresh):
        path.write_bytes(b"x")
    os.utime(old, (0, 0))
    again = DirectoryStore(store.root)
    assert files(store.root / "uploads") == {"old", "fresh"}
    put_blob(again, "a/b")
    assert files(store.root / "uploads") == {"fresh"}


def test_reading_writes_nothing(store: DirectoryStore) -> None:
    put(store, "a/b", IMAGE, "v1")
    store.root.joinpath("uploads").rmdir()
    before = sorted((path, path.stat().st_mtime_ns) for path in store.root.rglob("*"))
    again = DirectoryStore(store.root)
    assert again.manifest("a/b", "v1") is not None
    assert again.blob("a/b", IMAGE.blobs[0].digest) is not None
    assert sorted((path, path.stat().st_mtime_ns) for path in store.root.rglob("*")) == before


def test_refuses_a_directory_with_other_content(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(UsageError, match="neither empty nor a directory of registry content"):
        DirectoryStore(tmp_path)
    assert files(tmp_path) == {"holiday.jpg"}


def test_refuses_a_directory_of_another_format(store: DirectoryStore) -> None:
    (store.root / "registry.json").write_bytes(b'{"airgapRegistryVersion": 2}')
    with pytest.raises(UsageError, match="another version"):
        DirectoryStore(store.root)


def test_names_the_place_that_cannot_be_written(store: DirectoryStore) -> None:
    store.root.joinpath("blobs").write_bytes(b"in the way")
    with pytest.raises(StorageError, match="blobs"):
        put_blob(store, "a/b")
    assert not list(store.root.joinpath("uploads").iterdir())


def test_says_when_the_place_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file"):
        DirectoryStore(tmp_path / "file/content")


def test_a_file_that_vanishes_takes_its_upload_with_it(store: DirectoryStore) -> None:
    upload: FileUpload = store.upload("a/b")
    upload.write(CONTENT)
    next(store.root.joinpath("uploads").iterdir()).unlink()
    with pytest.raises(StorageError):
        upload.commit(DIGEST)
    upload.discard()
    assert store.blob("a/b", DIGEST) is None
