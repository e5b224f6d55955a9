"""List: what catalogs would bring, from the catalogs alone; no other image is asked for."""

from __future__ import annotations

import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from airgap import cluster, mapping
from airgap.archive.work import Work
from airgap.catalog import as_database
from airgap.errors import HOLES, MalformedReference
from airgap.manifests import ManifestsOptions, cluster_files, put_files
from airgap.plan import Missing, Question, Reason
from airgap.planner import choose_images, read_catalogs, unreadable
from airgap.progress import SILENT
from airgap.reference import DestinationPrefix, ImageReference
from airgap.registry.access import Access

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airgap.mapping import Mapping
    from airgap.planner import Offer
    from airgap.progress import Progress

DATABASE = "bundles.db"


@dataclass(frozen=True)
class ListResult:
    """What was written: the files in ``directory``, and the catalogs' databases.

    ``missing`` are references that are none, and parts of catalogs that cannot be read.
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


def list_images(
    question: Question,
    *,
    destination: str,
    access: Access | None = None,
    max_components: int = mapping.DEFAULT_COMPONENTS,
    manifests: ManifestsOptions | None = None,
    progress: Progress = SILENT,
    stop: threading.Event | None = None,
) -> ListResult:
    """Write the files that a mirror of catalogs to ``destination`` would, and copy nothing.

    The catalogs' databases are kept beside the files, made where a catalog has none. Raises
    what reading a catalog raises, UsageError for names that collide, StorageError.
    """
    access, stop, options = access or Access(), stop or threading.Event(), manifests
    hosts = {ImageReference.parse(text).repository.host for text in question.catalogs}
    with tempfile.TemporaryDirectory(prefix="airgap-") as folder:
        with access.connect(hosts, stop) as client:
            offers = read_catalogs(question, client, Work(Path(folder)), progress)
        progress.finish()
        names = sorted(choose_images(question, offers, progress), key=str.encode)
        named = {offer.reference for offer in offers}
        missing = _missing(names, offers)
        options = options or ManifestsOptions()
        directory = options.directory or _default(offers[0])
        others = [name for name in names if name not in named]
        places = _places(others, offers, DestinationPrefix.parse(destination), max_components)
        written = put_files(directory, _cluster_files(options, offers, places, missing))
        databases = tuple(_save(offer, directory, len(offers)) for offer in offers)
    return ListResult(len(names), directory, written.files, databases, tuple(missing))


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
    catalogs = [mapping.Origin(ImageReference.parse(o.reference), o.digest) for o in offers]
    return mapping.assign(images, prefix, catalogs=catalogs, max_components=components)


def _cluster_files(
    options: ManifestsOptions, offers: Sequence[Offer], places: Mapping, missing: Sequence[Missing]
) -> dict[str, str]:
    asked = [ImageReference.parse(offer.reference) for offer in offers]
    catalogs = [(places[r], offer.digest) for r, offer in zip(asked, offers, strict=True)]
    name = cluster.resource_name(asked[0])
    return cluster_files(options, name, places, list(places), catalogs, missing)


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


def _save(offer: Offer, directory: Path, catalogs: int) -> Path:
    name = cluster.resource_name(ImageReference.parse(offer.reference))
    path = directory / (DATABASE if catalogs == 1 else f"{name}-{offer.digest.hex[:8]}.db")
    as_database.save(offer.image.tree, offer.image.found, path)
    return path
