"""What the other side has, as receipts and earlier archives say.

Whether it is true shows when it is relied on: an import asks the registry before anything is
pushed. Of a receipt nothing but digests is used here, so that what is called how on the other
side goes nowhere.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from airgap import receipt
from airgap.archive.file import is_archive
from airgap.archive.older import opened
from airgap.archive.volumes import by_archive
from airgap.digest import Digest
from airgap.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from airgap.archive.reader import ArchiveReader


def held_by(files: Sequence[Path]) -> dict[Digest, set[Digest]]:
    """Return the blobs that the other side has, each with the ids of archives that hold it.

    ``files`` are receipts and archives, in one file or in volumes, or directories with one. Of
    an archive it is what is in the volumes that are here, and what it assumed itself.

    Raises UsageError where there is no such file or it is not finished, MalformedContent for
    what is no receipt, ArchiveError for an archive with a damaged head, StorageError.
    """
    held: dict[Digest, set[Digest]] = defaultdict(set)
    archives = []
    for path in files:
        if not path.exists():
            raise UsageError(f"{path}: there is no such file")
        if path.is_dir() or is_archive(path):
            archives.append(path)
            continue
        for blob, holders in receipt.read(path).held().items():
            held[Digest.parse(blob)].update(map(Digest.parse, holders))
    for paths in by_archive(archives):
        with opened(paths) as reader:
            reader.require_sound_head()
            for digest, archive in _held_by_archive(reader):
                held[digest].add(archive)
    return held


def _held_by_archive(reader: ArchiveReader) -> Iterator[tuple[Digest, Digest]]:
    plan = reader.plan
    for number in reader.present:
        yield plan.blobs[number].digest, reader.id
    for number in plan.assumed:
        for archive in plan.blobs[number].held:
            yield plan.blobs[number].digest, plan.archives[archive]
