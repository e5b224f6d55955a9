"""Every byte of an archive against what its inventory says.

Reads and hashes; knows nothing of why an archive is read or what is done about damage.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from airgap.archive import tar
from airgap.archive.pieces import Pieces
from airgap.archive.reader import ArchiveReader, Problem
from airgap.digest import Check, Hasher
from airgap.errors import IntegrityError, MalformedContent
from airgap.oci.model import Index, parse_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airgap.archive.layout import Entry, Volume
    from airgap.archive.passing import PassingArchive
    from airgap.digest import Digest
    from airgap.progress import Progress


def audit(reader: ArchiveReader, progress: Progress) -> Iterator[Problem]:
    """Yield all damage there is, in the order of the archive.

    Covers every byte of every volume that is here: head, headers, content, padding, the zeros
    of holes, the end; and every reference: what a manifest's bytes refer to must be what the
    inventory says. What a file cut short has lost is one problem.
    """
    yield from reader.check_head()
    yield from reader.check_tables()
    damaged: set[int] = set()
    for volume in reader.here:
        for problem in _audit_volume(reader, volume, progress):
            damaged.update(problem.blobs)
            message = f"{reader.where(volume)}{problem.message}"
            yield Problem(message, problem.manifests, problem.blobs)
    for number in sorted(reader.present - damaged):
        if reader.layout.is_cut(number):
            yield from _check_joined(reader, number)


def audit_passing(archive: PassingArchive, progress: Progress) -> Iterator[Problem]:
    """Yield all damage there is of an archive, while it passes to its end.

    Covers what ``audit`` does. Raises as ``PassingArchive.passages``.
    """
    yield from archive.reader.check_head()
    with closing(Pieces()) as pieces:
        for passage in archive.passages():
            number = passage.number
            content = _followed(passage.content, progress)
            try:
                if passage.reader.layout.is_cut(number) and not passage.is_absent:
                    if pieces.keep(passage.reader, number, passage.place, content):
                        size = archive.reader.plan.blobs[number].size
                        _check_content(archive, number, pieces.content(number, 0, size))
                        pieces.let_go(number)
                elif not passage.is_absent:
                    _check_content(archive, number, content)
            except IntegrityError as error:
                yield Problem(f"blob {error.message}", blobs=(number,))
    yield from archive.problems
    for reader in archive.heads:
        for volume in reader.here:
            yield from _audit_manifests(reader, volume, progress)


def _check_content(archive: PassingArchive, number: int, content: Iterator[bytes]) -> None:
    blob = archive.reader.plan.blobs[number]
    check = Check(blob.digest, blob.size)
    for piece in content:
        check.update(piece)
    check.finish()


def _followed(content: Iterator[bytes], progress: Progress) -> Iterator[bytes]:
    for piece in content:
        yield piece
        progress.advance(len(piece))


def bytes_to_read(reader: ArchiveReader) -> int:
    """Return how many bytes of content an audit will count."""
    manifests = sum(manifest.size for manifest in reader.plan.manifests)
    blobs = sum(piece.size for volume in reader.here for _, piece in reader.layout.content(volume))
    return manifests * len(reader.here) + blobs


def _audit_volume(reader: ArchiveReader, volume: Volume, progress: Progress) -> Iterator[Problem]:
    yield from _audit_manifests(reader, volume, progress)
    for number, piece in reader.layout.content(volume):
        if not reader.reaches(volume, piece):
            continue
        if reader.is_absent(piece):
            yield from _check_zeros(reader, number, piece)
        elif reader.layout.is_cut(number):
            yield from _check_piece(reader, number, piece)
        else:
            yield from _check_blob(reader, number)
        yield from _check_padding(reader, volume, piece, (), (number,))
        progress.advance(piece.size)


def _audit_manifests(
    reader: ArchiveReader, volume: Volume, progress: Progress
) -> Iterator[Problem]:
    for number, manifest in enumerate(reader.plan.manifests):
        entry = reader.layout.manifest(number)
        if not reader.reaches(volume, entry):
            continue
        try:
            raw = reader.manifest_in(volume, number)
        except IntegrityError:
            yield Problem(f"manifest {manifest.digest} is damaged", (number,))
        else:
            yield from check_references(reader, number, raw)
        yield from _check_padding(reader, volume, entry, (number,), ())
        progress.advance(manifest.size)


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


def _check_piece(reader: ArchiveReader, number: int, piece: Entry) -> Iterator[Problem]:
    """Hold a piece against its volume's record, which tells the volume that is damaged."""
    hasher, size = Hasher(), 0
    for chunk in reader.piece(piece):
        hasher.update(chunk)
        size += len(chunk)
    stated = reader.piece_digest(number, piece)
    if stated is None:
        yield Problem(f"the volume's record says nothing of {piece.name}", blobs=(number,))
    elif (size, hasher.digest()) != (piece.size, stated):
        yield Problem(
            f"{piece.name} is damaged: it must have {stated}, and has {hasher.digest()}",
            blobs=(number,),
        )


def _check_joined(reader: ArchiveReader, number: int) -> Iterator[Problem]:
    """Check a blob that is cut as a whole, in case records and pieces are wrong alike."""
    volumes = ", ".join(str(piece.volume) for piece in reader.layout.pieces(number))
    for problem in _check_blob(reader, number):
        yield Problem(f"in volumes {volumes}: {problem.message}", blobs=problem.blobs)


def _check_zeros(reader: ArchiveReader, number: int, piece: Entry) -> Iterator[Problem]:
    blob = reader.plan.blobs[number]
    if any(chunk.strip(b"\0") for chunk in reader.piece(piece)):
        yield Problem(f"the place of the missing blob {blob.digest} is not empty", blobs=(number,))


def _check_padding(
    reader: ArchiveReader,
    volume: Volume,
    entry: Entry,
    manifests: tuple[int, ...],
    blobs: tuple[int, ...],
) -> Iterator[Problem]:
    size = tar.padded(entry.size) - entry.size
    padding = b"".join(reader.content(volume, entry.content + entry.size, size))
    if padding != bytes(size):
        yield Problem(f"the padding after {entry.name} is damaged", manifests, blobs)
