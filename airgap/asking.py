"""Asking registries for images, each answer remembered, so that a killed run does not ask again.

Knows what there is to be learned of an image before its content moves; refuses to know why an
image is asked for, and what it means when it cannot be had.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

from airgap import limits
from airgap.errors import IntegrityError
from airgap.oci import graph
from airgap.oci.model import Descriptor, parse_manifest
from airgap.reference import ImageReference
from airgap.storage import storage_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from airgap.digest import Digest
    from airgap.oci.build import BuiltImage
    from airgap.registry.client import RegistryClient


class Memory(Protocol):
    """What a planning run has learned; the archive's work directory fits."""

    def pinned(self, reference: str) -> Descriptor | None:
        """Return what a reference was found to stand for."""

    def pin(self, reference: str, descriptor: Descriptor) -> None:
        """Remember what a reference stands for."""

    def manifest(self, digest: Digest) -> bytes | None:
        """Return a manifest that was kept, checked."""

    def keep(self, digest: Digest, content: bytes) -> None:
        """Keep a manifest, or other small content."""

    def fetch(self, digest: Digest, size: int, read: Callable[[int], Iterator[bytes]]) -> None:
        """Make sure that a blob is here."""

    def open(self, digest: Digest) -> BinaryIO:
        """Open a blob that is here."""


@dataclass(frozen=True)
class Asker:
    """Registries, and what has been learned of them."""

    client: RegistryClient
    memory: Memory

    def graph(self, text: str) -> Sequence[graph.Node]:
        """Return every manifest of the image that a reference names, children first.

        Raises MalformedReference, RegistryError, IntegrityError, MalformedContent,
        StorageError, Interrupted.
        """
        reference = ImageReference.parse(text)
        root = self._resolve(reference, text)
        return graph.walk(root, self.content(text).manifest)

    def content(self, text: str) -> RemoteContent:
        """Return the content of the image that a reference names."""
        return RemoteContent(self, ImageReference.parse(text))

    def remember(self, digest: Digest, size: int, file: Path) -> None:
        """Keep a blob that was made here. Raises StorageError."""

        def read(offset: int) -> Iterator[bytes]:
            with storage_errors(file), file.open("rb") as stream:
                stream.seek(offset)
                yield from iter(lambda: stream.read(limits.CHUNK), b"")

        self.memory.fetch(digest, size, read)

    def keep(self, built: BuiltImage) -> None:
        """Keep what is new in an image that was made here, but for its layers."""
        for digest, raw in (*built.manifests.items(), *built.configurations.items()):
            self.memory.keep(digest, raw)

    def _resolve(self, reference: ImageReference, text: str) -> Descriptor:
        if known := self.memory.pinned(text):
            return known
        found = self.client.manifest(reference)
        # What is no manifest is not remembered: once pinned, no later run would ask again.
        parse_manifest(found.raw, found.media_type, text)
        descriptor = Descriptor(found.digest, len(found.raw), found.media_type)
        self.memory.keep(found.digest, found.raw)
        self.memory.pin(text, descriptor)
        return descriptor


@dataclass(frozen=True)
class RemoteContent:
    """An image's content, fetched unless it is remembered."""

    asker: Asker
    reference: ImageReference

    def manifest(self, descriptor: Descriptor) -> bytes:
        """Return a manifest, of the promised size."""
        memory = self.asker.memory
        raw = memory.manifest(descriptor.digest)
        pinned = self.reference.pinned(descriptor.digest)
        if raw is None:
            raw = self.asker.client.manifest(pinned).raw
            memory.keep(descriptor.digest, raw)
        if len(raw) != descriptor.size:
            raise IntegrityError(f"{pinned}: {len(raw)} bytes, promised were {descriptor.size}")
        return raw

    def open(self, descriptor: Descriptor) -> BinaryIO:
        """Open a configuration or a layer."""
        digest, size = descriptor.digest, descriptor.size

        def read(offset: int) -> Iterator[bytes]:
            return self.asker.client.blob(self.reference.repository, digest, size, offset)

        try:
            self.asker.memory.fetch(digest, size, read)
        except IntegrityError as error:
            raise IntegrityError(f"{self.reference}: {error.message}", hint=error.hint) from error
        return self.asker.memory.open(digest)
