"""The head of an archive from front to back: all that its plan decides, before the first blob.

Written once, from a work directory that holds the manifests. Knows no file that it goes to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airgap import limits
from airgap.archive import inventory, tar
from airgap.archive.layout import SIGNATURE_NAME, UNSIGNED, Layout, index_document
from airgap.digest import Hasher
from airgap.errors import IntegrityError
from airgap.storage import storage_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airgap.archive.layout import Entry
    from airgap.archive.work import Work
    from airgap.digest import Digest
    from airgap.plan import Plan


class Head:
    """A plan written down: ``id`` is the digest of its inventory, ``layout`` where all stands."""

    def __init__(self, plan: Plan, work: Work) -> None:
        """Write the inventory into the work directory. Raises StorageError."""
        self.plan = plan
        self._work = work
        with storage_errors(work.inventory):
            size, self.id = self._write_inventory()
        self.layout = Layout(plan, size, index_document(plan, self.id))

    def entries(self) -> Iterator[tuple[Entry, Iterator[bytes]]]:
        """Yield every entry up to the first blob, with its bytes from its header to its padding.

        Raises IntegrityError for a manifest that has gone from the work directory, StorageError.
        """
        (whole,) = self.layout.volumes
        for entry, content in whole.documents:
            yield entry, self._document(entry, content)
        for number, manifest in enumerate(self.plan.manifests):
            raw = self._work.manifest(manifest.digest)
            if raw is None:
                raise IntegrityError(
                    f"{self._work.directory}: manifest {manifest.digest} has gone or changed"
                )
            entry = self.layout.manifest(number)
            yield entry, iter((entry.header, raw, padding_of(entry)))

    def pieces(self) -> Iterator[bytes]:
        """Yield every byte up to the first blob's header. Raises as ``entries``."""
        for _, pieces in self.entries():
            yield from pieces

    def _document(self, entry: Entry, content: bytes | None) -> Iterator[bytes]:
        yield entry.header
        if content is not None:
            yield content
        elif entry.name == SIGNATURE_NAME:
            yield UNSIGNED
        else:
            with storage_errors(self._work.inventory), self._work.inventory.open("rb") as file:
                yield from iter(lambda: file.read(limits.CHUNK), b"")
        yield padding_of(entry)

    def _write_inventory(self) -> tuple[int, Digest]:
        hasher, size = Hasher(), 0
        with self._work.inventory.open("wb") as file:
            for line in inventory.lines(self.plan):
                hasher.update(line)
                size += file.write(line)
        return size, hasher.digest()


def padding_of(entry: Entry) -> bytes:
    """Return the zeros between an entry's content and the next entry."""
    return bytes(tar.padded(entry.size) - entry.size)
