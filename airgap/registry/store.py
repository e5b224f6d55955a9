"""What the embedded registry needs of a place that holds images.

Two protocols, one for reading and one for writing as well. Names, tags and digests are
well-formed when they get here. Knows nothing of HTTP, nor of any particular place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airgap.digest import Bytes, Digest
    from airgap.oci.model import Descriptor
    from airgap.registry.http_server import Piece


class Blob(Protocol):
    """A blob that can be read from anywhere."""

    @property
    def size(self) -> int:
        """How long the blob is, in bytes."""

    def pieces(self, offset: int, count: int) -> Iterable[Piece]:
        """Give ``count`` bytes from ``offset`` on; what it needs is opened when iterated."""


class Store(Protocol):
    """Images by repository path, digest and tag; read by many threads at once.

    All raise StorageError.
    """

    def manifest(self, repository: str, reference: Digest | str) -> tuple[Descriptor, bytes] | None:
        """Return a manifest by its digest or its tag, None when the repository has no such."""

    def blob(self, repository: str, digest: Digest) -> Blob | None:
        """Return a blob, None when the repository has no such."""

    def tags(self, repository: str) -> Iterable[str] | None:
        """Return a repository's tags in any order, None when there is no such repository."""


class Upload(Protocol):
    """A blob that is being written, by one thread at a time."""

    @property
    def size(self) -> int:
        """How much has been written, in bytes."""

    def write(self, piece: Bytes) -> None:
        """Append a piece. Raises StorageError."""

    def commit(self, digest: Digest) -> None:
        """Make the blob part of its repository. Raises IntegrityError, StorageError."""

    def discard(self) -> None:
        """Forget what was written; after ``commit`` there is nothing to forget."""


@runtime_checkable
class WritableStore(Store, Protocol):
    """A ``Store`` that takes content as well, from many threads at once."""

    def put_manifest(
        self, repository: str, descriptor: Descriptor, raw: bytes, tag: str = ""
    ) -> None:
        """Keep a manifest, and let the tag point to it if there is one."""

    def delete_manifest(self, repository: str, digest: Digest) -> bool:
        """Take a manifest and its tags away; say whether it was there."""

    def delete_tag(self, repository: str, tag: str) -> bool:
        """Take a tag away, not what it points to; say whether it was there."""

    def mount(self, repository: str, digest: Digest, source: str) -> bool:
        """Make a blob of ``source`` part of another repository; say whether it was there."""

    def upload(self, repository: str) -> Upload:
        """Begin to write a blob."""
