"""Browse: the catalog in a source, opened to be looked into and asked.

A source is what a person types: an archive, a database, a directory, or the reference of a
catalog image. What is on disk comes first. Nothing of a catalog's images is asked for.
"""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from airgap.archive.content import ImageContent
from airgap.archive.file import is_archive
from airgap.archive.reader import ArchiveReader
from airgap.archive.volumes import holds_volumes
from airgap.archive.work import Work
from airgap.asking import Asker
from airgap.catalog import as_database, listing
from airgap.catalog.database import MAGIC
from airgap.catalog.image import read_image
from airgap.catalog.query import query
from airgap.catalog.read import read_local
from airgap.catalog.select import Selection, select
from airgap.catalog.tree import LocalFile
from airgap.errors import (
    HOLES,
    CatalogError,
    MalformedReference,
    UsageError,
    printable,
)
from airgap.offers import read_catalogs
from airgap.plan import Question
from airgap.progress import SILENT
from airgap.question import DEFAULT_PLATFORM
from airgap.reference import ImageReference
from airgap.registry.access import Access
from airgap.storage import temporary_directory

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from airgap.catalog.listing import ListedPackage
    from airgap.catalog.query import Answer
    from airgap.catalog.read import Found
    from airgap.catalog.select import PackageChoice
    from airgap.catalog.tree import Tree
    from airgap.plan import Image, Plan
    from airgap.progress import Progress


@dataclass(frozen=True)
class CatalogListing:
    """A catalog, and the packages of it that were asked for.

    ``bundles`` and ``images`` count those of the whole catalog; ``size`` is what of these images
    is at the source, in bytes, None for nothing. ``problems`` is what is odd in the catalog,
    ``unreadable`` names each part that could not be read and is missing here.
    """

    source: str
    format: str
    path: str
    bundles: int
    images: int
    size: int | None
    packages: tuple[ListedPackage, ...]
    problems: tuple[str, ...]
    unreadable: tuple[str, ...]

    @property
    def exit_status(self) -> int:
        """3 when a part of the catalog could not be read, else 0."""
        return HOLES if self.unreadable else 0


@dataclass(frozen=True)
class WantedImage:
    """An image as the catalog writes it, the bundles that want it, its bytes if it is there."""

    reference: str
    bundles: tuple[str, ...]
    size: int | None


@dataclass(frozen=True)
class ImageListing:
    """Images of a catalog; ``remarks`` are lines about the selection, for a person."""

    source: str
    format: str
    path: str
    images: tuple[WantedImage, ...]
    remarks: tuple[str, ...]
    problems: tuple[str, ...]
    unreadable: tuple[str, ...]

    @property
    def exit_status(self) -> int:
        """3 when a part of the catalog could not be read, else 0."""
        return HOLES if self.unreadable else 0


@dataclass(frozen=True)
class OpenCatalog:
    """A catalog, and the files it was found in; there until its ``with`` block ends."""

    source: str
    tree: Tree = field(repr=False)
    found: Found = field(repr=False)
    plan: Plan | None = field(default=None, repr=False)
    """Of the archive that holds it, and so knows its images' sizes."""
    holes: frozenset[int] = field(default=frozenset(), repr=False)
    """The numbers of the blobs that never arrived in that archive."""

    def size_of(self, images: Iterable[str]) -> int | None:
        """Return the bytes that images take up together, of those there; None if none is."""
        there = [self._numbers[image] for image in images if image in self._numbers]
        return self.plan.size_of(there) if self.plan and there else None

    @cached_property
    def _numbers(self) -> dict[str, int]:
        planned = self.plan.images if self.plan else ()
        return {image.reference: number for number, image in enumerate(planned)}

    def list_packages(
        self, packages: Collection[str] = (), channels: Collection[str] = ()
    ) -> CatalogListing:
        """List packages, all or those named, with all channels or those named.

        Raises UsageError for a name that the catalog does not have, with what comes near.
        """
        catalog = self.found.catalog
        return CatalogListing(
            self.source,
            self.found.format,
            self.found.path,
            len(catalog.bundles),
            len(catalog.images),
            self.size_of(catalog.images),
            listing.list_packages(catalog, packages, channels, self.size_of),
            catalog.problems,
            catalog.unreadable,
        )

    def list_images(self, packages: Sequence[PackageChoice] = ()) -> ImageListing:
        """List the images that bundles want: those chosen, or all.

        Raises UsageError for what the catalog does not have, with what comes near.
        """
        catalog = self.found.catalog
        selected = select(catalog, Selection(tuple(packages) or None))
        return ImageListing(
            self.source,
            self.found.format,
            self.found.path,
            tuple(
                WantedImage(
                    image,
                    tuple(sorted({bundle.name for bundle in bundles})),
                    self.size_of([image]),
                )
                for image, bundles in selected.images.items()
            ),
            selected.remarks,
            catalog.problems,
            catalog.unreadable,
        )

    def query(self, sql: str, *, stop: threading.Event | None = None) -> Answer:
        """Answer SQL over operator-registry's tables, whatever the catalog's format.

        A catalog that is a database is asked as it is. Raises UsageError for what is wrong
        with the query, CatalogError, StorageError; Interrupted soon after ``stop`` is set.
        """
        with temporary_directory() as directory:
            path = directory / "catalog.db"
            as_database.save(self.tree, self.found, path)
            return query(path, sql, stop or threading.Event())


@contextmanager
def open_catalog(
    source: str,
    *,
    catalog: str | None = None,
    access: Access | None = None,
    platform: str | None = None,
    progress: Progress = SILENT,
    stop: threading.Event | None = None,
) -> Iterator[OpenCatalog]:
    """Open the catalog in an archive, a database, a directory or an image, to be closed again.

    ``catalog`` names one of an archive with several. ``platform`` is a regular expression that
    picks the variant of a catalog image; without one it is, of an archive, the variant that it
    was made for.

    Raises UsageError (no such source), RegistryError, Refused when nothing of a catalog can be
    read, StorageError, Interrupted. What cannot be read of it otherwise raises nothing: it is
    in ``unreadable``.
    """
    progress.stage(f"reading catalog {printable(source)}")
    with _opened(source, catalog, access or Access(), platform, stop) as opened:
        _require_something(opened)
        progress.finish()
        yield opened


@contextmanager
def _opened(
    source: str,
    catalog: str | None,
    access: Access,
    platform: str | None,
    stop: threading.Event | None,
) -> Iterator[OpenCatalog]:
    path = Path(source)
    # Path.exists raises for names that are too long for one, as references may be.
    there = os.path.exists(source)  # noqa: PTH110
    if there and (is_archive(path) if path.is_file() else holds_volumes(path)):
        with _in_archive(path, catalog, platform) as opened:
            yield opened
        return
    if catalog is not None:
        raise UsageError(f"{printable(source)}: no archive, so it holds one catalog at most")
    if there:
        yield _on_disk(path)
        return
    with _in_registry(source, access, platform or DEFAULT_PLATFORM, stop) as opened:
        yield opened


@contextmanager
def _in_archive(path: Path, catalog: str | None, platform: str | None) -> Iterator[OpenCatalog]:
    with ArchiveReader(path) as reader:
        plan = reader.plan
        image = _chosen(plan, catalog, path)
        content = ImageContent(reader, image)
        platform = platform or plan.question.platform
        read = read_image(content.nodes(), platform, image.reference, content)
        yield OpenCatalog(str(path), read.tree, read.found, plan, reader.holes)


def _chosen(plan: Plan, catalog: str | None, path: Path) -> Image:
    held = [plan.images[each.image] for each in plan.catalogs]
    fitting = [image for image in held if catalog in (None, image.reference)]
    if len(fitting) == 1:
        return fitting[0]
    names = ", ".join(printable(image.reference) for image in held) or "none"
    if catalog is not None:
        raise UsageError(f"{path}: no catalog {printable(catalog)} in it; it holds {names}")
    raise UsageError(
        f"{path}: one catalog must be chosen; it holds {names}",
        hint="Name it with --catalog, for diff with --old-catalog or --new-catalog.",
    )


def _on_disk(path: Path) -> OpenCatalog:
    if not path.is_dir() and not LocalFile.at(path).magic.startswith(MAGIC):
        raise CatalogError(
            f"{printable(str(path))}: neither an archive of airgap nor a catalog's database",
            hint="Other catalogs are directories: name the directory, not a file in it.",
        )
    try:
        tree, found = read_local(path)
    except CatalogError as error:
        raise CatalogError(f"{printable(str(path))}: {error.message}", hint=error.hint) from error
    return OpenCatalog(str(path), tree, found)


@contextmanager
def _in_registry(
    source: str, access: Access, platform: str, stop: threading.Event | None
) -> Iterator[OpenCatalog]:
    host = _reference(source).repository.host
    with (
        temporary_directory() as directory,
        access.connect({host}, stop or threading.Event()) as client,
    ):
        question = Question((source,), platform)
        (offer,) = read_catalogs(question, Asker(client, Work(directory)), SILENT)
        yield OpenCatalog(source, offer.image.tree, offer.image.found)


def _reference(source: str) -> ImageReference:
    """Read a reference. Raises UsageError, also for what was more likely meant as a path."""
    absent = f"{printable(source)}: no such file or directory"
    if source == Path(source).name or source.startswith(("/", ".", "~")):
        raise UsageError(
            absent, hint="A catalog image has its registry in front, as quay.io/my/catalog:v1."
        )
    try:
        return ImageReference.parse(source)
    except MalformedReference as error:
        raise UsageError(f"{absent}, and {error.message}", hint=error.hint) from error


def _require_something(opened: OpenCatalog) -> None:
    """Raise CatalogError when faults are all that there is."""
    catalog = opened.found.catalog
    if catalog.unreadable and not (catalog.packages or catalog.images or catalog.bundles):
        count = len(catalog.unreadable)
        more = f"; and {count - 1} more" if count > 1 else ""
        raise CatalogError(
            f"{printable(opened.source)}: nothing of the catalog can be read:"
            f" {catalog.unreadable[0]}{more}"
        )
