"""Every byte of an archive against what its inventory says.

Reads and hashes; knows nothing of why an archive is read or what is done about damage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airgap.archive import tar
from airgap.archive.reader import ArchiveReader, Problem
from airgap.errors import IntegrityError, MalformedContent
from airgap.oci.model import Index, parse_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airgap.archive.layout import Entry
    from airgap.digest import Digest
    from airgap.progress import Progress


def audit(reader: ArchiveReader, progress: Progress) -> Iterator[Problem]:
    """Yield all damage there is, in the order of the archive.

    Covers every byte: head, headers, content, padding, the zeros of holes, the end; and every
    reference: what a manifest's bytes refer to must be what the inventory says. What a file
    cut short has lost is one problem.
    """
    yield from reader.check_head()
    for number, manifest in enumerate(reader.plan.manifests):
        if not reader.reaches(reader.layout.manifest(number)):
            continue
        try:
            raw = reader.manifest(number)
        except IntegrityError:
            yield Problem(f"manifest {manifest.digest} is damaged", (number,))
        else:
            yield from check_references(reader, number, raw)
        yield from _check_padding(reader, reader.layout.manifest(number), (number,), ())
        progress.advance(manifest.size)
    for number, blob in enumerate(reader.plan.blobs):
        if not reader.reaches(reader.layout.blob(number)):
            continue
        if number in reader.holes:
            yield from _check_zeros(reader, number)
        else:
            yield from _check_blob(reader, number)
        yield from _check_padding(reader, reader.layout.blob(number), (), (number,))
        progress.advance(blob.size)


def check_references(reader: ArchiveReader, number: int, raw: bytes) -> Iterator[Problem]:
    """Yield a problem when a manifest's bytes refer to other content than the inventory says."""
    plan = reader.plan
    manifest = plan.manifests[number]
    try:
        content = parse_manifest(raw, manifest.media_type, str(manifest.digest))
    except MalformedContent as error:
        yield Problem(error.message, (number,))
        return
    said: set[Digest] = {plan.manifests[child].digest for child in manifest.children}
    said |= {plan.blobs[blob].digest for blob in manifest.blobs}
    if isinstance(content, Index):
        refers_to = {child.digest for child in content.manifests}
    else:
        refers_to = {content.config.digest, *(layer.digest for layer in content.layers)}
    if said != refers_to:
        yield Problem(
            f"manifest {manifest.digest} refers to other content than the inventory says", (number,)
        )


def _check_blob(reader: ArchiveReader, number: int) -> Iterator[Problem]:
    try:
        reader.check_blob(number)
    except IntegrityError as error:
        yield Problem(f"blob {error.message}", blobs=(number,))


def _check_zeros(reader: ArchiveReader, number: int) -> Iterator[Problem]:
    blob = reader.plan.blobs[number]
    if any(piece.strip(b"\0") for piece in reader.blob(blob, 0)):
        yield Problem(f"the place of the missing blob {blob.digest} is not empty", blobs=(number,))


def _check_padding(
    reader: ArchiveReader, entry: Entry, manifests: tuple[int, ...], blobs: tuple[int, ...]
) -> Iterator[Problem]:
    size = tar.padded(entry.size) - entry.size
    padding = b"".join(reader.content(entry.content + entry.size, size))
    if padding != bytes(size):
        yield Problem(f"the padding after {entry.name} is damaged", manifests, blobs)
