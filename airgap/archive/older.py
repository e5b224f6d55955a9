"""Finished archives that a new one takes content from, in place of a registry.

Knows which of them holds which manifest and blob. What one gives is believed no more than what
comes over a network: whoever takes it hashes it, and asks once more when it was wrong.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, BinaryIO, Self

from airgap.archive.reader import ArchiveReader, partial_path
from airgap.archive.volumes import by_archive
from airgap.errors import ArchiveError, IntegrityError, StorageError, UsageError
from airgap.oci.model import Descriptor
from airgap.reference import ImageReference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from airgap.archive.work import Work
    from airgap.digest import Digest


class OlderArchives:
    """Archives open for reading, for any number of threads; use it in a ``with`` block.

    Damage in one is no error: it is told to ``say``, and costs what is damaged. ``manifests``
    are the digests of those that were taken.
    """

    def __init__(self, paths: Iterable[Path], say: Callable[[str], None]) -> None:
        """Open archives; of content in several, the first one's is taken.

        An archive may be in volumes. Raises what opening an archive raises: UsageError also for
        an unfinished one, ArchiveError also for a damaged head.
        """
        self.manifests: set[Digest] = set()
        self._say = say
        self._known_manifests: dict[Digest, tuple[ArchiveReader, int]] = {}
        self._known_blobs: dict[Digest, tuple[ArchiveReader, int]] = {}
        self._given: set[Digest] = set()
        self._lock = threading.Lock()
        with ExitStack() as stack:
            for found in by_archive(paths):
                reader = stack.enter_context(opened(found))
                self._require_sound_head(reader)
                self._learn(reader)
            self._files = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def pinned(self, reference: str) -> Descriptor | None:
        """Return what a reference with a digest stands for, if an archive holds that."""
        digest = ImageReference.parse(reference).digest
        found = self._known_manifests.get(digest) if digest else None
        if found is None:
            return None
        reader, number = found
        manifest = reader.plan.manifests[number]
        return Descriptor(manifest.digest, manifest.size, manifest.media_type)

    def manifest(self, digest: Digest) -> bytes | None:
        """Return a manifest; None when no archive holds it, or only damaged."""
        found = self._known_manifests.get(digest)
        if found is None:
            return None
        reader, number = found
        try:
            raw = reader.manifest(number)
        except (IntegrityError, StorageError) as error:
            self._lose(self._known_manifests, digest, error.message)
            return None
        self.manifests.add(digest)
        return raw

    def holds(self, digest: Digest, size: int) -> bool:
        """Say whether an archive says that it holds a blob of that size."""
        found = self._known_blobs.get(digest)
        return found is not None and found[0].plan.blobs[found[1]].size == size

    def gave(self, digest: Digest) -> bool:
        """Say whether a blob was taken from an archive, and nobody found it damaged."""
        return digest in self._given and digest in self._known_blobs

    def blob(
        self, digest: Digest, size: int, offset: int, otherwise: Callable[[int], Iterator[bytes]]
    ) -> Iterator[bytes]:
        """Yield a blob's bytes from ``offset`` on, of an archive that holds it, unchecked.

        ``otherwise(offset)`` is asked where none does, or none can be read any further. Who
        asks a second time was not content: if the archive's bytes are damaged, that is said,
        and they are not given again.
        """
        if self.holds(digest, size) and self._is_fit(digest):
            reader, number = self._known_blobs[digest]
            try:
                for piece in reader.blob(reader.plan.blobs[number], offset):
                    offset += len(piece)
                    yield piece
            except StorageError as error:
                self._lose(self._known_blobs, digest, error.message)
            else:
                return
        yield from otherwise(offset)

    def _is_fit(self, digest: Digest) -> bool:
        """Say whether a blob can be given; one that was given before is read and hashed first."""
        with self._lock:
            is_first = digest not in self._given
            self._given.add(digest)
        if is_first:
            return True
        reader, number = self._known_blobs[digest]
        try:
            reader.check_blob(number)
        except IntegrityError as error:
            self._lose(self._known_blobs, digest, f"{reader.path}: damaged: blob {error.message}")
        except StorageError as error:
            self._lose(self._known_blobs, digest, error.message)
        return digest in self._known_blobs

    def _lose(
        self, known: dict[Digest, tuple[ArchiveReader, int]], digest: Digest, why: str
    ) -> None:
        self._say(f"{why}; {digest} is fetched instead")
        known.pop(digest, None)

    def _require_sound_head(self, reader: ArchiveReader) -> None:
        """Say what is damaged; raise ArchiveError when it is more than some of the content."""
        for problem in reader.check_head():
            if not (problem.manifests or problem.blobs):
                raise ArchiveError(
                    f"{reader.path}: damaged: {problem.message}",
                    hint=f"Run `airgap verify {reader.path}` for the whole list, or leave it out.",
                )
            self._say(f"{reader.path}: damaged: {problem.message}")
        for problem in reader.check_tables():
            self._say(f"{reader.path}: {problem.message}: it is read all the same")

    def _learn(self, reader: ArchiveReader) -> None:
        plan = reader.plan
        for number, manifest in enumerate(plan.manifests):
            self._known_manifests.setdefault(manifest.digest, (reader, number))
        for number in reader.present:
            self._known_blobs.setdefault(plan.blobs[number].digest, (reader, number))


class Recollection:
    """What a planning run has learned, and behind it what older archives hold.

    What is taken from these is kept in the work directory, like all that was learned.
    """

    def __init__(self, work: Work, older: OlderArchives) -> None:
        self._work = work
        self._older = older

    def pinned(self, reference: str) -> Descriptor | None:
        """Return what a reference stands for, if that is known without asking."""
        return self._work.pinned(reference) or self._older.pinned(reference)

    def pin(self, reference: str, descriptor: Descriptor) -> None:
        """Remember what a reference stands for."""
        self._work.pin(reference, descriptor)

    def manifest(self, digest: Digest) -> bytes | None:
        """Return content that is known, checked; None when it must be asked for."""
        raw = self._work.manifest(digest)
        if raw is None and (raw := self._older.manifest(digest)) is not None:
            self._work.keep(digest, raw)
        return raw

    def keep(self, digest: Digest, content: bytes) -> None:
        """Store content that was checked against its digest."""
        self._work.keep(digest, content)

    def fetch(self, digest: Digest, size: int, read: Callable[[int], Iterator[bytes]]) -> None:
        """Make sure that a blob is here, and whole. Raises as ``Work.fetch`` does."""
        self._work.fetch(digest, size, lambda at: self._older.blob(digest, size, at, read))

    def open(self, digest: Digest) -> BinaryIO:
        """Open a blob that ``fetch`` has made sure of."""
        return self._work.open(digest)


def opened(paths: Sequence[Path]) -> ArchiveReader:
    """Open a finished archive, or those of its volumes that are there.

    Raises UsageError also for an unfinished one, and what opening an archive raises.
    """
    for path in paths:
        if path.suffix == partial_path(path).suffix:
            raise UsageError(
                f"{path}: not finished, and only a finished archive can be reused",
                hint="Run the export that makes it again; it continues.",
            )
    return ArchiveReader(paths)
