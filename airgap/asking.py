"""Asking registries for images, each answer remembered, so that a killed run does not ask again.

Knows what there is to be learned of an image before its content moves; refuses to know why an
image is asked for, and what it means when it cannot be had.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

from airgap import limits
from airgap.crew import Crew
from airgap.errors import AirgapError, IntegrityError
from airgap.oci import graph, media_types
from airgap.oci.model import Descriptor, parse_manifest
from airgap.reference import ImageReference
from airgap.storage import storage_errors

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from airgap.digest import Digest
    from airgap.oci.build import BuiltImage
    from airgap.progress import Progress
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
        return graph.walk(self.root(text), self.content(text).manifest)

    def root(self, text: str) -> Descriptor:
        """Return what a reference stands for; it is asked once. Raises as ``graph`` does."""
        if known := self.memory.pinned(text):
            return known
        found = self.client.manifest(ImageReference.parse(text))
        # What is no manifest is not remembered: once pinned, no later run would ask again.
        parse_manifest(found.raw, found.media_type, text)
        descriptor = Descriptor(found.digest, len(found.raw), found.media_type)
        self.memory.keep(found.digest, found.raw)
        self.memory.pin(text, descriptor)
        return descriptor

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


def gather(
    asker: Asker,
    references: Iterable[str],
    progress: Progress,
    stop: threading.Event,
    is_fatal: Callable[[AirgapError], bool],
) -> dict[str, AirgapError]:
    """Have every manifest of many images remembered; return the images for which that failed.

    Manifests are asked for in parallel while more of them become known. What is wrong with
    them is for ``Asker.graph`` to find. Raises StorageError, Interrupted, and what is fatal.
    """
    gathering = _Gathering(asker, progress)
    crew = Crew(asker.client.pace, stop, is_fatal)
    crew.carry_out([_Fetch(gathering, text) for text in references])
    return gathering.failed


class _Gathering:
    """What is known of the images of which manifests are still being asked for."""

    def __init__(self, asker: Asker, progress: Progress) -> None:
        self.asker = asker
        self.progress = progress
        self.failed: dict[str, AirgapError] = {}
        self._known: dict[str, set[Digest]] = {}
        self._to_come: Counter[str] = Counter()

    def begin(self, text: str) -> None:
        """Count a manifest of an image that will be asked for."""
        self._to_come[text] += 1

    def end(self, text: str, error: AirgapError | None) -> None:
        """Count one that has come, or failed."""
        if error is not None:
            self.failed.setdefault(text, error)
        self._to_come[text] -= 1
        if not self._to_come[text]:
            self._known.pop(text, None)
            self.progress.image()

    def is_new(self, text: str, digest: Digest) -> bool:
        """Say whether a manifest has not been met in an image before, and may still be."""
        known = self._known.setdefault(text, set())
        if digest in known or len(known) >= limits.MANIFESTS_PER_IMAGE:
            return False
        known.add(digest)
        return True


class _Fetch:
    """One manifest of an image: its root, or one below it."""

    def __init__(
        self,
        gathering: _Gathering,
        text: str,
        descriptor: Descriptor | None = None,
        depth: int = 0,
    ) -> None:
        self._gathering = gathering
        self._text = text
        self._descriptor = descriptor
        self._depth = depth
        self._children: tuple[Descriptor, ...] = ()
        self.lanes = _lanes_of(gathering.asker, text)
        gathering.begin(text)

    def run(self) -> None:
        asker = self._gathering.asker
        descriptor = self._descriptor or asker.root(self._text)
        is_single = descriptor.media_type in media_types.MANIFESTS
        if self._descriptor is not None or not is_single:
            raw = asker.content(self._text).manifest(descriptor)
            self._children = () if is_single else graph.children(descriptor, raw)

    def settle(self, error: AirgapError | None) -> Iterable[_Fetch]:
        further = [
            _Fetch(self._gathering, self._text, child, self._depth + 1)
            for child in (self._children if self._depth < limits.INDEX_DEPTH else ())
            if self._gathering.is_new(self._text, child.digest)
        ]
        self._gathering.end(self._text, error)
        return further


def _lanes_of(asker: Asker, text: str) -> tuple[str, ...]:
    """Return the registry that an image is asked of; () when the reference is none."""
    try:
        return (asker.client.lane(ImageReference.parse(text)),)
    except AirgapError:
        return ()  # Asking will say what is wrong with it.
