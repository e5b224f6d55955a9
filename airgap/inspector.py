"""Inspect: what an archive holds, from its inventory alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from airgap.archive.passing import PassingArchive
from airgap.archive.reader import ArchiveReader
from airgap.errors import HOLES, ArchiveError
from airgap.plan import Missing, Need, blob_holes, needs, plan_holes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airgap.archive.reader import Paths, Problem, VolumeFile
    from airgap.digest import Digest
    from airgap.plan import Plan


@dataclass(frozen=True)
class CatalogSummary:
    """A catalog in an archive: its name, its root's digest, and where in its image it stands."""

    reference: str
    digest: str
    format: str
    path: str


@dataclass(frozen=True)
class PackageSummary:
    """A package: how many bundles and images it has, and the bytes these images take up.

    Packages share images and layers, so their bytes add up to more than the archive's.
    """

    name: str
    bundles: int
    images: int
    size: int


@dataclass(frozen=True)
class ImageSummary:
    """An image: its reference, its root's digest, its bytes, the bundles that want it."""

    reference: str
    digest: str
    size: int
    bundles: tuple[str, ...]


@dataclass(frozen=True)
class Inspection:
    """What an archive holds; sizes in bytes.

    ``damage`` is what shows without reading content: a file cut short, damaged headers.
    ``volumes`` are all that there are of an archive in several, and () of one in one file;
    ``notes`` what was found beside it and left alone. ``needs`` is what a delta leaves to
    earlier archives, () when there is nothing.
    """

    archive: Path
    id: Digest
    size: int
    catalogs: tuple[CatalogSummary, ...]
    packages: tuple[PackageSummary, ...]
    images: tuple[ImageSummary, ...]
    manifests: int
    blobs: int
    content_size: int
    damage: tuple[str, ...]
    missing: tuple[Missing, ...]
    volumes: tuple[VolumeFile, ...] = ()
    notes: tuple[str, ...] = ()
    needs: tuple[Need, ...] = ()

    @property
    def exit_status(self) -> int:
        """4 when the archive is seen to be damaged, 3 when there are holes, else 0."""
        if self.damage:
            return ArchiveError.exit_status
        return HOLES if self.missing else 0


def inspect(archive: Paths | BinaryIO) -> Inspection:
    """Say what an archive holds; its content is not read.

    ``archive`` may be any files and directories that hold its volumes; or an open stream, which
    has a descriptor and is read to its end.
    Raises UsageError when there is no such file, Busy, ArchiveError, StorageError.
    """
    if isinstance(archive, Path | Sequence):
        with ArchiveReader(archive) as reader:
            return _inspection(
                reader,
                size=reader.size,
                damage=[*reader.check_head(), *reader.check_tables()],
                absent=reader.absent,
                volumes=reader.volume_files(),
            )
    with PassingArchive(archive.fileno(), "standard input") as passing:
        for _passage in passing.passages():
            pass
        return _inspection(
            passing.reader,
            size=passing.size,
            damage=[*passing.reader.check_head(), *passing.problems],
            absent=passing.absent,
            volumes=passing.volume_files(),
        )


def _inspection(
    reader: ArchiveReader,
    *,
    size: int,
    damage: Iterable[Problem],
    absent: Mapping[int, str],
    volumes: tuple[VolumeFile, ...],
) -> Inspection:
    plan = reader.plan
    return Inspection(
        archive=reader.path,
        id=reader.id,
        size=size,
        catalogs=_catalogs(plan),
        packages=_packages(plan),
        images=_images(plan),
        manifests=len(plan.manifests),
        blobs=len(plan.blobs),
        content_size=plan.content_bytes,
        damage=tuple(problem.message for problem in damage),
        missing=(*plan_holes(plan, {}), *blob_holes(plan, absent)),
        volumes=volumes,
        notes=tuple(reader.notes),
        needs=needs(plan),
    )


def _catalogs(plan: Plan) -> tuple[CatalogSummary, ...]:
    return tuple(
        CatalogSummary(
            plan.images[catalog.image].reference,
            str(plan.manifests[plan.images[catalog.image].root].digest),
            catalog.format,
            catalog.path,
        )
        for catalog in plan.catalogs
    )


def _packages(plan: Plan) -> tuple[PackageSummary, ...]:
    bundles: dict[str, int] = defaultdict(int)
    for bundle in plan.bundles:
        for package in bundle.packages:
            bundles[package] += 1
    images: dict[str, list[int]] = defaultdict(list)
    for number, image in enumerate(plan.images):
        for package in plan.packages_of(image.bundles):
            images[package].append(number)
    return tuple(
        PackageSummary(name, bundles[name], len(images[name]), plan.size_of(images[name]))
        for name in sorted(bundles)
    )


def _images(plan: Plan) -> tuple[ImageSummary, ...]:
    return tuple(
        ImageSummary(
            image.reference,
            str(plan.manifests[image.root].digest),
            plan.size_of([number]),
            tuple(sorted(plan.bundles[bundle].name for bundle in image.bundles)),
        )
        for number, image in enumerate(plan.images)
    )
