"""A directory that holds images, as a ``Store`` for the embedded registry.

    registry.json                                  what this directory is
    blobs/sha256/<hex>                             blobs and manifests, each once for all
    repositories/<name>/_blobs/sha256-<hex>        empty: the repository has the blob
    repositories/<name>/_manifests/sha256-<hex>    the manifest's media type
    repositories/<name>/_tags/<hash of the tag>    the tag and the digest it points to
    uploads/                                       what is being written

Names of repositories are lower case and have no part that begins with ``_``; tags are hashed,
as they may differ in case only and file systems may not care. Every file appears whole, by
renaming, so a crash leaves nothing half-made that counts. Knows nothing of HTTP, nor what is
in a manifest.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airgap import limits
from airgap.digest import Check, Digest, Hasher, digest_of
from airgap.errors import IntegrityError, UsageError
from airgap.oci.model import Descriptor
from airgap.storage import storage_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from io import FileIO
    from pathlib import Path

    from airgap.digest import Bytes

_MARKER = "registry.json"
_FORMAT = b'{"airgapRegistryVersion": 1}\n'
_ABANDONED = 24 * 3600.0
"""Seconds after which a file in ``uploads/`` is nobody's any more."""


def is_registry(directory: Path) -> bool:
    """Say whether a directory holds what a ``DirectoryStore`` has made."""
    return directory.joinpath(_MARKER).is_file()


@dataclass(frozen=True, slots=True)
class FileSpan:
    """A stretch of an open file; fits ``http_server.Span``."""

    descriptor: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class FileBlob:
    """A blob that is a file; fits ``Blob``."""

    path: Path
    size: int

    def pieces(self, offset: int, count: int) -> Iterator[FileSpan]:
        """Give ``count`` bytes from ``offset`` on, as one stretch of the file."""
        with self.path.open("rb", buffering=0) as file:
            yield FileSpan(file.fileno(), offset, count)


class DirectoryStore:
    """Images in a directory; fits ``WritableStore``, and may be opened again at any time.

    Until something is put, what is there is only read, so the medium may be read-only. With
    ``durable``, whatever was answered for survives a power cut; without, it survives the end
    of the program only.
    """

    def __init__(self, root: Path, *, durable: bool = True) -> None:
        """Open the directory, or make it.

        Raises UsageError for a directory that holds something else, StorageError.
        """
        self.root = root
        self._disk = _Disk(root / "uploads", durable)
        with storage_errors(root):
            self._require_format()

    def manifest(self, repository: str, reference: Digest | str) -> tuple[Descriptor, bytes] | None:
        """Return a manifest by its digest or its tag, None when the repository has no such."""
        with storage_errors(self.root):
            digest = self._resolve(repository, reference)
            if digest is None:
                return None
            media_type = _read(self._manifest_link(repository, digest))
            raw = _read(self._content(digest))
        if media_type is None or raw is None:
            return None
        return Descriptor(digest, len(raw), media_type.decode()), raw

    def blob(self, repository: str, digest: Digest) -> FileBlob | None:
        """Return a blob, None when the repository has no such."""
        path = self._content(digest)
        with storage_errors(path):
            try:
                self._blob_link(repository, digest).stat()
                return FileBlob(path, path.stat().st_size)
            except FileNotFoundError:
                return None

    def tags(self, repository: str) -> list[str] | None:
        """Return a repository's tags in any order, None when there is no such repository."""
        with storage_errors(self.root):
            if not self._repository(repository).joinpath("_manifests").is_dir():
                return None
            return [tag for tag, _ in self._tags(repository)]

    def put_manifest(
        self, repository: str, descriptor: Descriptor, raw: bytes, tag: str = ""
    ) -> None:
        """Keep a manifest, and let the tag point to it if there is one."""
        digest = descriptor.digest
        with storage_errors(self.root):
            self._disk.place(self._content(digest), raw)
            self._disk.place(
                self._manifest_link(repository, digest), descriptor.media_type.encode()
            )
            if tag:
                self._disk.place(self._tag_link(repository, tag), f"{tag} {digest}\n".encode())

    def delete_manifest(self, repository: str, digest: Digest) -> bool:
        """Take a manifest and its tags away; say whether it was there."""
        with storage_errors(self.root):
            for tag, target in list(self._tags(repository)):
                if target == digest:
                    self._disk.remove(self._tag_link(repository, tag))
            return self._disk.remove(self._manifest_link(repository, digest))

    def delete_tag(self, repository: str, tag: str) -> bool:
        """Take a tag away, not what it points to; say whether it was there."""
        with storage_errors(self.root):
            return self._disk.remove(self._tag_link(repository, tag))

    def mount(self, repository: str, digest: Digest, source: str) -> bool:
        """Make a blob of ``source`` part of another repository; say whether it was there."""
        if self.blob(source, digest) is None:
            return False
        with storage_errors(self.root):
            self._disk.place(self._blob_link(repository, digest), b"")
        return True

    def upload(self, repository: str) -> FileUpload:
        """Begin to write a blob."""

        def places(digest: Digest) -> tuple[Path, Path]:
            return self._content(digest), self._blob_link(repository, digest)

        return FileUpload(self._disk, places)

    def _require_format(self) -> None:
        marker = self.root / _MARKER
        self.root.mkdir(parents=True, exist_ok=True)
        content = _read(marker)
        if content is None:
            if any(self.root.iterdir()):
                raise UsageError(
                    f"{self.root}: neither empty nor a directory of registry content",
                    hint="Name a new directory, or one that was filled by serving it.",
                )
            self._disk.place(marker, _FORMAT)
        elif content != _FORMAT:
            raise UsageError(f"{marker}: written by another version of this program")

    def _resolve(self, repository: str, reference: Digest | str) -> Digest | None:
        if isinstance(reference, Digest):
            return reference
        content = _read(self._tag_link(repository, reference))
        return None if content is None else _tag_and_digest(content)[1]

    def _tags(self, repository: str) -> Iterator[tuple[str, Digest]]:
        links = self._repository(repository) / "_tags"
        for link in links.iterdir() if links.is_dir() else ():
            if (content := _read(link)) is not None:
                yield _tag_and_digest(content)

    def _content(self, digest: Digest) -> Path:
        return self.root / f"blobs/{digest.algorithm}/{digest.hex}"

    def _repository(self, repository: str) -> Path:
        return self.root / f"repositories/{repository}"

    def _blob_link(self, repository: str, digest: Digest) -> Path:
        return self._repository(repository) / f"_blobs/{digest.algorithm}-{digest.hex}"

    def _manifest_link(self, repository: str, digest: Digest) -> Path:
        return self._repository(repository) / f"_manifests/{digest.algorithm}-{digest.hex}"

    def _tag_link(self, repository: str, tag: str) -> Path:
        return self._repository(repository) / f"_tags/{digest_of(tag.encode()).hex}"


class FileUpload:
    """A blob that is being written to a file of its own; fits ``Upload``."""

    def __init__(self, disk: _Disk, places: Callable[[Digest], tuple[Path, Path]]) -> None:
        """``places`` says for a digest where its content goes, and where the link to it."""
        self.size = 0
        self._disk = disk
        self._places = places
        self._hasher = Hasher()
        with storage_errors(disk.workplace):
            self._path = disk.new_path()
            self._file = self._path.open("xb", buffering=0)

    def write(self, piece: Bytes) -> None:
        """Append a piece. Raises StorageError."""
        with storage_errors(self._path):
            _write_all(self._file, piece)
        self._hasher.update(piece)
        self.size += len(piece)

    def commit(self, digest: Digest) -> None:
        """Make the blob part of its repository. Raises IntegrityError, StorageError."""
        self._require(digest)
        content, link = self._places(digest)
        with storage_errors(self._path):
            self._disk.settle(self._file)
            self._disk.rename(self._path, content)
            self._disk.place(link, b"")

    def discard(self) -> None:
        """Forget what was written; after ``commit`` there is nothing to forget."""
        with storage_errors(self._path):
            self._file.close()
            self._path.unlink(missing_ok=True)

    def _require(self, digest: Digest) -> None:
        """Raise IntegrityError unless what was written has that digest."""
        if digest.algorithm == "sha256":
            if (got := self._hasher.digest()) != digest:
                raise IntegrityError(f"{digest}: the content's digest is {got}")
            return
        check = Check(digest, self.size)  # rare enough to be read once more
        with storage_errors(self._path), self._path.open("rb") as file:
            while piece := file.read(limits.CHUNK):
                check.update(piece)
        check.finish()


class _Disk:
    """How files come to be: written beside their place, synced when asked for, renamed."""

    def __init__(self, workplace: Path, durable: bool) -> None:
        self.workplace = workplace
        self._durable = durable
        self._prepared = False

    def new_path(self) -> Path:
        """Return a name for a file that is not finished."""
        if not self._prepared:
            self._prepare()
            self._prepared = True
        return self.workplace / uuid.uuid4().hex

    def _prepare(self) -> None:
        """Make the place for unfinished files, or take away what nobody works at any more."""
        self.workplace.mkdir(exist_ok=True)
        oldest = time.time() - _ABANDONED
        for path in self.workplace.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another process cleans up too
                if path.stat().st_mtime < oldest:
                    path.unlink()

    def place(self, path: Path, content: bytes) -> None:
        """Let a file with that content be there, replacing an older one."""
        temporary = self.new_path()
        try:
            with temporary.open("xb", buffering=0) as file:
                _write_all(file, content)
                self.settle(file)
            self.rename(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def settle(self, file: FileIO) -> None:
        """Close a file that is complete."""
        if self._durable:
            os.fsync(file.fileno())
        file.close()

    def rename(self, source: Path, target: Path) -> None:
        self._make_directory(target.parent)
        source.replace(target)
        self._sync(target.parent)

    def remove(self, path: Path) -> bool:
        """Remove a file; say whether it was there."""
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        self._sync(path.parent)
        return True

    def _make_directory(self, path: Path) -> None:
        if not path.is_dir():
            self._make_directory(path.parent)
            path.mkdir(exist_ok=True)
            self._sync(path.parent)

    def _sync(self, directory: Path) -> None:
        """Let the names in a directory survive a power cut."""
        if self._durable:
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _write_all(file: FileIO, content: Bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]


def _tag_and_digest(content: bytes) -> tuple[str, Digest]:
    tag, _, digest = content.decode().strip().partition(" ")
    return tag, Digest.parse(digest)
