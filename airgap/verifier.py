"""Verify: every byte and every reference of an archive, and whom damage hurts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from airgap.archive.audit import audit, audit_passing, bytes_to_read
from airgap.archive.passing import PassingArchive
from airgap.archive.reader import ArchiveReader
from airgap.errors import HOLES, Refused
from airgap.plan import Missing, Need, blob_holes, needs, plan_holes
from airgap.progress import SILENT

if TYPE_CHECKING:
    from airgap.archive.reader import Paths, Problem, VolumeFile
    from airgap.digest import Digest
    from airgap.plan import Plan
    from airgap.progress import Progress


@dataclass(frozen=True)
class Damage:
    """Something wrong in an archive, and the images and packages that it hurts."""

    message: str
    images: tuple[str, ...]
    packages: tuple[str, ...]


@dataclass(frozen=True)
class VerifyResult:
    """What reading an archive whole has shown; ``size`` in bytes.

    ``volumes`` are all that there are of an archive in several, and () of one in one file;
    ``notes`` what was found beside it and left alone. ``needs`` is what a delta leaves to
    earlier archives, () when there is nothing.
    """

    archive: Path
    id: Digest
    images: int
    size: int
    damage: tuple[Damage, ...]
    missing: tuple[Missing, ...]
    volumes: tuple[VolumeFile, ...] = ()
    notes: tuple[str, ...] = ()
    needs: tuple[Need, ...] = ()

    @property
    def exit_status(self) -> int:
        """4 when anything is damaged, 3 when there are holes, else 0."""
        if self.damage:
            return Refused.exit_status
        return HOLES if self.missing else 0


def verify(archive: Paths | BinaryIO, *, progress: Progress = SILENT) -> VerifyResult:
    """Read every byte of an archive and follow every reference in it.

    ``archive`` may be any files and directories that hold its volumes. Those that are not
    here are no damage: the images that need them are missing. It may also be an open stream,
    which has a descriptor and passes once. Damage is collected, not raised.
    Raises UsageError when there is no such file, Busy while it is written, ArchiveError when it
    is no archive or its inventory cannot be read (nothing else can then be told apart),
    StorageError.
    """
    if not isinstance(archive, Path | Sequence):
        return _verify_passing(archive.fileno(), progress)
    with ArchiveReader(archive) as reader:
        plan = reader.plan
        progress.stage("reading every byte", total_bytes=bytes_to_read(reader))
        damage = [_whom_it_hurts(plan, problem) for problem in audit(reader, progress)]
        progress.finish()
        return VerifyResult(
            archive=reader.path,
            id=reader.id,
            images=len(plan.images),
            size=reader.size,
            damage=tuple(damage),
            missing=(*plan_holes(plan, {}), *blob_holes(plan, reader.absent)),
            volumes=reader.volume_files(),
            notes=tuple(reader.notes),
            needs=needs(plan),
        )


def _verify_passing(descriptor: int, progress: Progress) -> VerifyResult:
    with PassingArchive(descriptor, "standard input") as archive:
        plan = archive.reader.plan
        progress.stage("reading every byte", total_bytes=plan.content_bytes)
        damage = [_whom_it_hurts(plan, p) for p in audit_passing(archive, progress)]
        progress.finish()
        return VerifyResult(
            archive=archive.reader.path,
            id=archive.reader.id,
            images=len(plan.images),
            size=archive.size,
            damage=tuple(damage),
            missing=(*plan_holes(plan, {}), *blob_holes(plan, archive.absent)),
            volumes=archive.volume_files(),
            needs=needs(plan),
        )


def _whom_it_hurts(plan: Plan, problem: Problem) -> Damage:
    manifests, blobs = set(problem.manifests), set(problem.blobs)
    hurt = [
        image
        for image in (plan.images if manifests or blobs else ())
        if not manifests.isdisjoint(plan.manifests_of(image))
        or not blobs.isdisjoint(plan.blobs_of(image))
    ]
    return Damage(
        problem.message,
        tuple(image.reference for image in hurt),
        tuple(plan.packages_of(bundle for image in hurt for bundle in image.bundles)),
    )
