"""An archive's content by repository, tag and digest, checked as it is given out.

Fits ``registry.store.Store`` without knowing it. What is not whole on the medium is not given:
an image that lacks a blob has no manifest here, so that a client looks elsewhere. A manifest is
hashed each time. A blob that is read whole is hashed as it passes, and its last piece held back
until the hash is right; a part of one is given once the blob has been read whole and found
sound. Refuses to know how repositories get their names.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from airgap.digest import Digest, verified
from airgap.errors import AirgapError
from airgap.oci.model import Descriptor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from airgap.archive.reader import ArchiveReader

_REMEMBERED = 256
"""Repositories of which it is remembered what is in them."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """A repository: the numbers of its images, and the image that each tag stands for."""

    images: tuple[int, ...]
    tags: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Content:
    manifests: frozenset[int]
    blobs: frozenset[int]


@dataclass(frozen=True, slots=True)
class ArchiveBlob:
    """A blob that is here whole; fits ``registry.store.Blob``. ``size`` in bytes."""

    store: ArchiveStore
    number: int
    size: int

    def pieces(self, offset: int, count: int) -> Iterator[bytes]:
        """Yield ``count`` bytes from ``offset`` on, the last only when the blob is sound.

        Raises IntegrityError in place of what is damaged, StorageError.
        """
        return self.store.pieces(self.number, offset, count)


class ArchiveStore:
    """The images of an archive, to be read by many threads while its reader is open.

    ``say`` is told a line for whatever is asked for and cannot be given.
    """

    def __init__(
        self, reader: ArchiveReader, shelves: Mapping[str, Shelf], say: Callable[[str], None]
    ) -> None:
        """``shelves`` has the repositories by their names."""
        self._reader = reader
        self._plan = reader.plan
        self._shelves = shelves
        self._say = say
        self._manifests = {m.digest: number for number, m in enumerate(self._plan.manifests)}
        self._blobs = {blob.digest: number for number, blob in enumerate(self._plan.blobs)}
        self._lacking = self._manifests_that_lack()
        self._content_of = lru_cache(maxsize=_REMEMBERED)(self._collected)
        self._sound: set[int] = set()
        self._reading = threading.Lock()

    def manifest(self, repository: str, reference: Digest | str) -> tuple[Descriptor, bytes] | None:
        """Return a manifest by its digest or its tag, None when it is not there to be given.

        Raises IntegrityError when it is damaged, StorageError.
        """
        number = self._number(repository, reference)
        if number is None:
            return None
        if number in self._lacking:
            self._say(f"not given: {repository} {reference}: {self._lacking[number]}")
            return None
        manifest = self._plan.manifests[number]
        try:
            raw = self._reader.manifest(number)
        except AirgapError as error:
            self._say(f"not given: {repository} {reference}: {error.message}")
            raise
        return Descriptor(manifest.digest, manifest.size, manifest.media_type), raw

    def blob(self, repository: str, digest: Digest) -> ArchiveBlob | None:
        """Return a blob, None when it is not there to be given."""
        number = self._blobs.get(digest)
        if number is None or repository not in self._shelves:
            return None
        if number not in self._content_of(repository).blobs:
            return None
        if number not in self._reader.present:
            self._say(f"not given: {repository} {self._why_absent(number)}")
            return None
        return ArchiveBlob(self, number, self._plan.blobs[number].size)

    def tags(self, repository: str) -> list[str] | None:
        """Return the tags of images that are given, None when there is no such repository."""
        shelf = self._shelves.get(repository)
        if shelf is None:
            return None
        images = self._plan.images
        return [tag for tag, image in shelf.tags.items() if images[image].root not in self._lacking]

    def pieces(self, number: int, offset: int, count: int) -> Iterator[bytes]:
        """Yield bytes of a blob by its number. Raises as ``ArchiveBlob.pieces`` does."""
        blob = self._plan.blobs[number]
        try:
            if count == blob.size:
                yield from verified(self._reader.blob(blob, 0), blob.digest, blob.size)
                self._sound.add(number)
                return
            self._require_sound(number)
            for piece in self._reader.blob(blob, offset):
                yield piece[:count]
                count -= len(piece)
                if count <= 0:
                    return
        except AirgapError as error:
            self._say(f"cut off: blob {blob.digest}: {error.message}")
            raise

    def _require_sound(self, number: int) -> None:
        """Read a blob whole, once; one at a time, as a medium reads best."""
        with self._reading:
            if number not in self._sound:
                self._reader.check_blob(number)
                self._sound.add(number)

    def _number(self, repository: str, reference: Digest | str) -> int | None:
        shelf = self._shelves.get(repository)
        if shelf is None:
            return None
        if isinstance(reference, Digest):
            number = self._manifests.get(reference)
            return number if number in self._content_of(repository).manifests else None
        image = shelf.tags.get(reference)
        return None if image is None else self._plan.images[image].root

    def _collected(self, repository: str) -> _Content:
        plan = self._plan
        images = [plan.images[number] for number in self._shelves[repository].images]
        manifests = frozenset(n for image in images for n in plan.manifests_of(image))
        blobs = frozenset(blob for n in manifests for blob in plan.manifests[n].blobs)
        return _Content(manifests, blobs)

    def _manifests_that_lack(self) -> dict[int, str]:
        """Return the manifests that are not given, with the reason.

        An image needs all of its blobs; an index is of use while anything it lists is.
        """
        lacking: dict[int, str] = {}
        for number, manifest in enumerate(self._plan.manifests):
            absent = [blob for blob in manifest.blobs if blob not in self._reader.present]
            children = manifest.children
            if absent:
                lacking[number] = self._why_absent(absent[0])
            elif children and all(child in lacking for child in children):
                lacking[number] = lacking[children[0]]
        return lacking

    def _why_absent(self, number: int) -> str:
        if holders := self._plan.holders_of(number):
            return f"blob {self._plan.blobs[number].digest} is in another archive, {holders}"
        told = self._reader.absent.get(number)
        return told or f"blob {self._plan.blobs[number].digest} is a hole of the archive"
