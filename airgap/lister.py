"""List: what catalogs would bring, from the catalogs alone; no other image is asked for.

Writes the files that a mirror or an import would, and keeps the catalogs' databases.
"""

from __future__ import annotations

import posixpath
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from airgap import cluster, mapping
from airgap.archive.content import ImageContent
from airgap.archive.reader import ArchiveReader
from airgap.archive.work import Work
from airgap.asking import Asker
from airgap.catalog import as_database
from airgap.catalog.formats import SQLITE
from airgap.catalog.image import read_image
from airgap.cluster import Announced
from airgap.delivery import Delivery
from airgap.errors import HOLES, MalformedReference, UsageError, printable
from airgap.local_catalogs import is_local, refuse_inside
from airgap.manifests import ManifestsOptions, cluster_files, put_files
from airgap.offers import read_catalogs, unreadable
from airgap.plan import Missing, Reason, blob_holes, plan_holes
from airgap.planner import choose, travelling
from airgap.progress import SILENT
from airgap.reference import DestinationPrefix, ImageReference
from airgap.registry.access import Access
from airgap.storage import temporary_directory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airgap.archive.reader import Paths
    from airgap.catalog.image import CatalogImage
    from airgap.catalog.read import Found
    from airgap.digest import Digest
    from airgap.inquiry import Inquiry
    from airgap.mapping import Mapping
    from airgap.offers import Offer
    from airgap.progress import Progress

DATABASE = "bundles.db"


@dataclass(frozen=True)
class ListResult:
    """What was written: the files in ``directory``, and the catalogs' databases.

    ``images`` counts all but the catalogs' own. ``missing`` are references that are none, parts
    of catalogs that cannot be read, and an archive's holes.
    """

    images: int
    directory: Path
    files: tuple[str, ...]
    databases: tuple[Path, ...]
    missing: tuple[Missing, ...]

    @property
    def exit_status(self) -> int:
        """3 when something is missing, else 0."""
        return HOLES if self.missing else 0


@dataclass(frozen=True)
class DatabasePath:
    """Where in an image its catalog is, and in which local directory its database is kept."""

    inside: str
    local: Path

    @classmethod
    def parse(cls, text: str) -> DatabasePath:
        """Read ``IN:LOCAL``. Raises UsageError, also when there is no directory LOCAL."""
        inside, colon, local = text.partition(":")
        if not colon or not local:
            raise UsageError(f"--path {printable(text)}: invalid path, write IN:LOCAL")
        if ".." in inside.split("/"):
            raise UsageError(f"--path {printable(text)}: {printable(inside)} leads out of an image")
        if not Path(local).is_dir():
            raise UsageError(f"--path {printable(text)}: destination path does not exist: {local}")
        return cls(inside.strip("/") and inside, Path(local))

    def database(self, found: Found) -> Path:
        """Return the local file: under its name in the image where IN is the database itself."""
        inside = posixpath.normpath(self.inside).strip("/")
        is_it = found.format == SQLITE and inside == posixpath.normpath(found.path).strip("/")
        return self.local / (posixpath.basename(inside) if is_it else DATABASE)


def list_images(
    inquiry: Inquiry,
    *,
    destination: str | None,
    path: DatabasePath | None = None,
    access: Access | None = None,
    max_components: int = mapping.DEFAULT_COMPONENTS,
    manifests: ManifestsOptions | None = None,
    progress: Progress = SILENT,
    stop: threading.Event | None = None,
) -> ListResult:
    """Write the files that a mirror of catalogs to ``destination`` would, and copy nothing.

    Without a destination it is ``images.txt``, a reference a line. The catalogs' databases are
    kept beside the files, or where ``path`` says; made where a catalog has none. Raises what
    reading a catalog raises, UsageError for names that collide, StorageError.
    """
    access, stop, options = access or Access(), stop or threading.Event(), manifests
    options = options or ManifestsOptions()
    prefix = None if destination is None else DestinationPrefix.parse(destination)
    _refuse_one_path_for_several(path, len(inquiry.catalogs))
    _refuse_place_in_no_image(path, inquiry.catalogs)
    refuse_inside(inquiry.catalogs, options.directory or Path.cwd() / "manifests")
    if path is not None:
        refuse_inside(inquiry.catalogs, path.local)
    with temporary_directory() as folder:
        with access.connect(inquiry.hosts, stop) as client:
            asker = Asker(client, Work(folder))
            asked = inquiry.understood(lambda: asker, progress)
            question, made = asked.question, [one.offer for one in asked.made]
            place = path.inside if path else ""
            offers = read_catalogs(question, asker, progress, made=made, place=place)
        progress.finish()
        names = sorted(choose(question, offers, progress).images, key=str.encode)
        missing = _missing(names, offers)
        directory = options.directory or _default(offers[0])
        if prefix is None:
            files = {"images.txt": "".join(f"{printable(name, 4096)}\n" for name in names)}
        else:
            there = travelling(question, offers, asker, progress)
            places = _places(names, there, prefix, max_components)
            name = cluster.resource_name(ImageReference.parse(offers[0].reference))
            files = _cluster_files(options, name, there, places, missing)
        written = put_files(directory, files)
        catalogs = [(o.reference, o.digest, o.image) for o in offers]
        databases = _save(catalogs, written.directory, path)
    return ListResult(len(names), written.directory, written.files, databases, tuple(missing))


def list_archive(
    archive: Paths,
    destination: str,
    *,
    path: DatabasePath | None = None,
    max_components: int = mapping.DEFAULT_COMPONENTS,
    manifests: ManifestsOptions | None = None,
) -> ListResult:
    """Write the files that an import to ``destination`` would, but the receipt; push nothing.

    No request is made. Raises what ``import_archive`` raises before its first request.
    """
    options = manifests or ManifestsOptions()
    with ArchiveReader(archive) as reader:
        reader.require_sound_head()
        reader.require_all_volumes()
        plan = reader.plan
        _refuse_one_path_for_several(path, len(plan.catalogs))
        catalogs = []
        for one in plan.catalogs:
            image = plan.images[one.image]
            content = ImageContent(reader, image)
            place = path.inside if path else ""
            read = read_image(
                content.nodes(), plan.question.platform, image.reference, content, place
            )
            catalogs.append((image.reference, plan.manifests[image.root].digest, read))
        missing = [
            *plan_holes(plan, {}),
            *blob_holes(plan, dict.fromkeys(reader.holes, "")),
        ]
        delivery = Delivery.to(
            DestinationPrefix.parse(destination), plan, reader.id, max_components
        )
        absent = {hole.reference for hole in missing}
        there = [image for image in plan.images if image.reference not in absent]
        written = delivery.write(options, there, missing, receipt=False)
        databases = _save(catalogs, written.directory, path)
    return ListResult(
        len(plan.images) - len(plan.catalogs),
        written.directory,
        written.files,
        databases,
        tuple(missing),
    )


def _refuse_one_path_for_several(path: DatabasePath | None, catalogs: int) -> None:
    if path is not None and catalogs > 1:
        raise UsageError(f"--path is about one catalog, and there are {catalogs}")


def _refuse_place_in_no_image(path: DatabasePath | None, catalogs: Sequence[str]) -> None:
    for text in filter(is_local, catalogs if path is not None and path.inside else ()):
        raise UsageError(
            f"--path: {printable(text)} is no image to look into", hint="Write --path /:LOCAL."
        )


def _default(offer: Offer) -> Path:
    name = cluster.resource_name(ImageReference.parse(offer.reference))
    return Path(f"manifests-{name}-{offer.digest.hex[:8]}")


def _places(
    names: Sequence[str], offers: Sequence[Offer], prefix: DestinationPrefix, components: int
) -> Mapping:
    images = []
    for name in names:
        with suppress(MalformedReference):  # What has no name can have no place either.
            images.append(mapping.Origin(ImageReference.parse(name)))
    catalogs = [mapping.Origin(_travels_as(offer), offer.digest) for offer in offers]
    return mapping.assign(images, prefix, catalogs=catalogs, max_components=components)


def _travels_as(offer: Offer) -> ImageReference:
    return ImageReference.parse(offer.wanted.reference)


def _cluster_files(
    options: ManifestsOptions,
    name: str,
    offers: Sequence[Offer],
    places: Mapping,
    missing: Sequence[Missing],
) -> dict[str, str]:
    catalogs = [Announced(places[_travels_as(o)], o.digest, o.format) for o in offers]
    made = {_travels_as(offer): offer.made_of for offer in offers if offer.made_of}
    pulled = [target for target in places if target.source not in made]
    return cluster_files(options, name, list(places), pulled, catalogs, missing, made)


def _missing(names: Sequence[str], offers: Sequence[Offer]) -> list[Missing]:
    missing = []
    for name in names:
        try:
            ImageReference.parse(name)
        except MalformedReference as error:
            reason = Reason.MALFORMED_REFERENCE.value
            missing.append(Missing(name, reason, detail=error.message))
    return missing + [
        Missing(place, Reason.UNREADABLE.value, detail=fault) for place, fault in unreadable(offers)
    ]


def _save(
    catalogs: Sequence[tuple[str, Digest, CatalogImage]],
    directory: Path,
    path: DatabasePath | None,
) -> tuple[Path, ...]:
    """Keep the database of each catalog, and return where it is."""
    saved = []
    for reference, digest, image in catalogs:
        name = cluster.resource_name(ImageReference.parse(reference))
        alone = path.database(image.found) if path else directory / DATABASE
        saved.append(alone if len(catalogs) == 1 else directory / f"{name}-{digest.hex[:8]}.db")
        as_database.save(image.tree, image.found, saved[-1])
    return tuple(saved)
