"""An image's content as an archive has it, checked while it is read."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO

from airgap.digest import verified
from airgap.errors import ArchiveError, IntegrityError
from airgap.oci import graph
from airgap.oci.model import Descriptor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed import WriteableBuffer

    from airgap.archive.reader import ArchiveReader
    from airgap.plan import Blob, Image


class ImageContent:
    """The content of one image of an archive, for as long as its reader is open."""

    def __init__(self, reader: ArchiveReader, image: Image) -> None:
        self._reader = reader
        self._image = image
        plan = reader.plan
        self._manifests = {plan.manifests[n].digest: n for n in plan.manifests_of(image)}
        self._blobs = {plan.blobs[n].digest: n for n in plan.blobs_of(image)}

    def nodes(self) -> list[graph.Node]:
        """Return every manifest of the image, children first. Raises as ``graph.walk`` does."""
        root = self._reader.plan.manifests[self._image.root]
        return graph.walk(Descriptor(root.digest, root.size, root.media_type), self.manifest)

    def manifest(self, descriptor: Descriptor) -> bytes:
        """Return a manifest. Raises IntegrityError when it is damaged, ArchiveError if absent."""
        number = self._manifests.get(descriptor.digest)
        if number is None:
            raise self._absent(descriptor)
        return self._reader.manifest(number)

    def open(self, descriptor: Descriptor) -> BinaryIO:
        """Open a blob; whoever reads it to its end knows that it is sound.

        Raises ArchiveError when it has not arrived; reading raises IntegrityError, StorageError.
        """
        number = self._blobs.get(descriptor.digest)
        if number is None or number not in self._reader.present:
            elsewhere = self._reader.absent.get(number, "") if number is not None else ""
            raise self._absent(descriptor, elsewhere)
        return io.BufferedReader(_Stream(self._pieces(self._reader.plan.blobs[number])))

    def _pieces(self, blob: Blob) -> Iterator[bytes]:
        try:
            yield from verified(self._reader.blob(blob, 0), blob.digest, blob.size)
        except IntegrityError as error:
            raise IntegrityError(f"{self._reader.path}: damaged: {error.message}") from error

    def _absent(self, descriptor: Descriptor, elsewhere: str = "") -> ArchiveError:
        if elsewhere:
            return ArchiveError(
                f"{self._reader.path}: {elsewhere}; it is of {self._image.reference}",
                hint="Name the other volumes too.",
            )
        return ArchiveError(
            f"{self._reader.path}: {descriptor.digest} of {self._image.reference} is not in it",
            hint="Run the export that made it again to fetch what is missing.",
        )


class _Stream(io.RawIOBase):
    """Pieces of content as a file that is read from its beginning to its end."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        target = memoryview(buffer).cast("B")
        self._rest = self._rest or next(self._pieces, b"")
        count = min(len(target), len(self._rest))
        target[:count], self._rest = self._rest[:count], self._rest[count:]
        return count
