"""Import: an archive into a registry, and the files that make a cluster use it."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airgap import __version__, mapping
from airgap.archive.audit import audit, check_references
from airgap.archive.reader import ArchiveReader
from airgap.errors import (
    HOLES,
    AirgapError,
    ArchiveError,
    IntegrityError,
    MalformedReference,
    RegistryError,
    Unreachable,
    worst,
)
from airgap.manifests import (
    ManifestsOptions,
    Written,
    prepare_manifests,
    reasons,
    write_manifests,
)
from airgap.mapping import mapping_text
from airgap.plan import Image, Missing, blob_holes, counted, missing, plan_holes
from airgap.progress import SILENT
from airgap.receipt import Arrived, Receipt
from airgap.reference import DestinationPrefix, ImageReference, Repository
from airgap.registry.access import Access
from airgap.registry.destination import RegistryDestination
from airgap.transfer import Outcome, in_parallel, transfer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from airgap.digest import Digest
    from airgap.mapping import Mapping, Target
    from airgap.plan import Plan
    from airgap.progress import Progress
    from airgap.registry.client import RegistryClient


@dataclass(frozen=True)
class ImportResult:
    """What an import did; ``sent_bytes`` counts blobs alone.

    ``missing`` are the archive's holes, ``failed`` the images that this run could not put
    there, ``errors`` the reasons for those.
    """

    archive: Path
    id: Digest
    destination: str
    arrived: int
    sent: int
    sent_bytes: int
    mounted: int
    present: int
    manifests_sent: int
    missing: tuple[Missing, ...]
    failed: tuple[Missing, ...]
    manifests: Path
    files: tuple[str, ...]
    errors: tuple[AirgapError, ...] = field(default=(), repr=False)

    def status(self, *, skip_missing: bool = False) -> int:
        """Return 0, 3 with holes (with ``skip_missing`` not-found is none), or the failures'."""
        holes = [HOLES] if counted(self.missing, skip_missing=skip_missing) else []
        return worst([*(error.exit_status for error in self.errors), *holes])

    @property
    def exit_status(self) -> int:
        """0, 3 with holes, or the status of the failures."""
        return self.status()


def import_archive(
    archive: Path,
    destination: str,
    *,
    access: Access | None = None,
    max_components: int = mapping.DEFAULT_COMPONENTS,
    manifests: ManifestsOptions | None = None,
    verify_first: bool = False,
    force_tags: bool = False,
    continue_on_error: bool = True,
    progress: Progress = SILENT,
    stop: threading.Event | None = None,
) -> ImportResult:
    """Push an archive to ``host[:port][/namespace]`` and write the cluster's files.

    Everything that can be refused is refused before the first request: a damaged head, a hole
    in a catalog, names that collide or do not fit; with ``verify_first`` also any damaged
    byte. Then images go one by one into their repositories, catalogs last; one that fails
    does not stop the rest, unless ``continue_on_error`` is off. Run again, it sends only what
    is not there yet. A tag that is set already moves only with ``force_tags``.

    Raises UsageError, Busy, ArchiveError, StorageError, Interrupted, and Unreachable when the
    registry is down. Setting ``stop`` ends it soon.
    """
    prefix = DestinationPrefix.parse(destination)
    access, stop = access or Access(), stop or threading.Event()
    with ArchiveReader(archive) as reader:
        reader.require_sound_head()
        holes = blob_holes(reader.plan, dict.fromkeys(reader.holes, ""))
        _refuse_hole_in_catalog(reader, holes)
        if verify_first:
            _refuse_damage(reader, progress)
        damaged = _damaged_images(reader)
        places = place_images(reader.plan, prefix, max_components)
        options = manifests or ManifestsOptions()
        prepare_manifests(options, reader.id, _asked(reader.plan), places)
        with access.connect({prefix.host}, stop, writes=True) as client:
            client.check(prefix.host)
            is_fatal = _says_registry_is_down if continue_on_error else _always
            push = _Push(reader, places, client, access.connections, is_fatal, progress, stop)
            push.failed |= damaged
            push.run(_without(reader.plan.images, holes), force_tags=force_tags)
        holes = [*plan_holes(reader.plan, {}), *holes]
        written = _write_manifests(reader, push, prefix, holes, options)
        return _result(reader, prefix, push, holes, written)


@dataclass(frozen=True)
class ImportPlan:
    """What an import would put where: the lines of its mapping.txt, and what it would lack."""

    mapping: tuple[str, ...]
    missing: tuple[Missing, ...]


def plan_import(
    archive: Path, destination: str, *, max_components: int = mapping.DEFAULT_COMPONENTS
) -> ImportPlan:
    """Say what an import would do; no request is made.

    Raises what ``import_archive`` raises before its first request.
    """
    prefix = DestinationPrefix.parse(destination)
    with ArchiveReader(archive) as reader:
        reader.require_sound_head()
        blobs = blob_holes(reader.plan, dict.fromkeys(reader.holes, ""))
        _refuse_hole_in_catalog(reader, blobs)
        places = place_images(reader.plan, prefix, max_components)
        holes = (*plan_holes(reader.plan, {}), *blobs)
        return ImportPlan(tuple(mapping_text(places, reasons(holes)).splitlines()), holes)


class _Push:
    """The pushing of one archive, and what has come of it."""

    def __init__(
        self,
        reader: ArchiveReader,
        places: Mapping,
        client: RegistryClient,
        workers: int,
        is_fatal: Callable[[AirgapError], bool],
        progress: Progress,
        stop: threading.Event,
    ) -> None:
        self._is_fatal = is_fatal
        self._reader = reader
        self.places = places
        self._client = client
        self._workers = workers
        self._progress = progress
        self._stop = stop
        self.arrived: list[Image] = []
        self.failed: dict[Image, AirgapError] = {}
        self.outcomes: list[Outcome] = []
        self.manifests_sent = 0

    def run(self, images: Sequence[Image], *, force_tags: bool) -> None:
        """Push images that have not failed already, the catalogs after all others."""
        plan = self._reader.plan
        catalogs = {plan.images[number] for number in plan.catalog_images}
        images = [image for image in images if image not in self.failed]
        tags_set = self._survey_tags(images, force_tags)
        ready = [image for image in images if image not in self.failed]
        destination = RegistryDestination(
            self._client, plan, self._repositories(), self._reader.manifest, tags_set
        )
        self._progress.stage(
            "pushing",
            total_bytes=_bytes_to_place(plan, ready, destination),
            total_images=len(ready),
        )
        try:
            self._transfer([i for i in ready if i not in catalogs], destination)
            self._transfer([i for i in ready if i in catalogs], destination)
        finally:
            self._progress.finish()
            self.manifests_sent = destination.manifests_sent

    def target(self, image: Image) -> Target:
        """Return the place of an image."""
        return self.places[ImageReference.parse(image.reference)]

    def _transfer(self, images: Sequence[Image], destination: RegistryDestination) -> None:
        outcome = transfer(
            self._reader.plan,
            images,
            self._reader,
            destination,
            workers=self._workers,
            progress=self._progress,
            stop=self._stop,
            is_fatal=self._is_fatal,
        )
        self.outcomes.append(outcome)
        self.arrived += outcome.images
        self.failed |= outcome.failed_images

    def _survey_tags(self, images: Sequence[Image], force: bool) -> frozenset[Image]:
        """Find the tags that are set already; refuse to move one unless told to."""
        self._progress.stage("asking for tags", total_images=len(images))

        def ask(image: Image) -> Digest | AirgapError | None:
            target = self.target(image)
            try:
                return self._client.manifest_digest(target.repository, target.tag)
            except RegistryError as error:
                if self._is_fatal(error):
                    raise
                return error
            finally:
                self._progress.image()

        answers = in_parallel(ask, images, workers=self._workers, stop=self._stop)
        tags_set = set()
        for image, found in zip(images, answers, strict=True):
            root = self._reader.plan.manifests[image.root].digest
            if found == root:
                tags_set.add(image)
            elif isinstance(found, AirgapError):
                self.failed[image] = found
            elif found is not None and not force:
                self.failed[image] = RegistryError(
                    f"{self.target(image)}: is at {found}, the archive has {root}",
                    hint="Say --force-tags to move it.",
                )
        return frozenset(tags_set)

    def _repositories(self) -> dict[Image, tuple[Repository, str]]:
        return {
            image: (self.target(image).repository, self.target(image).tag)
            for image in self._reader.plan.images
        }


_DOWN = frozenset({None, 429, 502, 503, 504})
"""What says, after all retries, that the whole registry is down, and not one repository."""


def _says_registry_is_down(error: AirgapError) -> bool:
    return isinstance(error, Unreachable) and error.status in _DOWN


def _always(error: AirgapError) -> bool:
    return True


def place_images(
    plan: Plan, destination: DestinationPrefix, max_components: int = mapping.DEFAULT_COMPONENTS
) -> Mapping:
    """Give every image of a plan its place, those with holes too, so that names never shift.

    Raises UsageError when two images cannot be told apart there, or a name does not fit.
    """
    images = [
        mapping.Origin(ImageReference.parse(i.reference), plan.manifests[i.root].digest)
        for i in plan.images
    ]
    catalogs = [images[number] for number in sorted(plan.catalog_images)]
    others = [origin for n, origin in enumerate(images) if n not in plan.catalog_images]
    for hole in plan.holes:
        with suppress(MalformedReference):  # What has no name can have no place either.
            others.append(mapping.Origin(ImageReference.parse(hole.reference)))
    return mapping.assign(others, destination, catalogs=catalogs, max_components=max_components)


def _asked(plan: Plan) -> list[ImageReference]:
    return [ImageReference.parse(text) for text in plan.question.catalogs]


def _damaged_images(reader: ArchiveReader) -> dict[Image, AirgapError]:
    """Find the images whose manifests are damaged, or are not what the inventory says.

    Raises ArchiveError when a catalog is among them: it would be pushed for nothing.
    """
    bad: dict[int, AirgapError] = {}
    for number in range(len(reader.plan.manifests)):
        try:
            raw = reader.manifest(number)
        except IntegrityError as error:
            bad[number] = error
        else:
            for problem in check_references(reader, number, raw):
                bad[number] = IntegrityError(f"{reader.path}: {problem.message}")
    damaged: dict[Image, AirgapError] = {}
    for position, image in enumerate(reader.plan.images if bad else ()):
        for number in reader.plan.manifests_of(image):
            if number not in bad:
                continue
            if position in reader.plan.catalog_images:
                raise ArchiveError(f"{bad[number].message}; it is the catalog {image.reference}")
            damaged[image] = bad[number]
    return damaged


def _refuse_hole_in_catalog(reader: ArchiveReader, holes: Sequence[Missing]) -> None:
    catalogs = {reader.plan.images[n].reference for n in reader.plan.catalog_images}
    for hole in holes:
        if hole.reference in catalogs:
            raise ArchiveError(
                f"{reader.path}: the catalog {hole.reference} is not whole: {hole.detail}",
                hint="Run the same export again to fill it, and carry the archive again.",
            )


def _refuse_damage(reader: ArchiveReader, progress: Progress) -> None:
    progress.stage("reading every byte", total_bytes=reader.plan.content_bytes)
    found = [problem.message for problem in audit(reader, progress)]
    progress.finish()
    if found:
        raise ArchiveError(
            f"{reader.path}: damaged, {len(found)} problems, the first: {found[0]}",
            hint=f"Run `airgap verify {reader.path}` for the whole list, and copy it again.",
        )


def _without(images: Sequence[Image], holes: Sequence[Missing]) -> list[Image]:
    missing_names = {hole.reference for hole in holes}
    return [image for image in images if image.reference not in missing_names]


def _bytes_to_place(plan: Plan, images: Sequence[Image], destination: RegistryDestination) -> int:
    places = {(n, destination.where(i)) for i in images for n in plan.blobs_of(i)}
    return sum(plan.blobs[number].size for number, _ in places)


def _failures(plan: Plan, push: _Push) -> list[Missing]:
    return [
        missing(
            plan, image, "damaged" if isinstance(error, IntegrityError) else "failed", error.message
        )
        for image, error in push.failed.items()
    ]


def _write_manifests(
    reader: ArchiveReader,
    push: _Push,
    prefix: DestinationPrefix,
    holes: Sequence[Missing],
    options: ManifestsOptions,
) -> Written:
    """Write what a cluster needs, from what has arrived and nothing else."""
    plan = reader.plan
    absent = [*holes, *_failures(plan, push)]
    arrived = sorted(push.arrived, key=lambda image: image.reference.encode())
    catalogs = [i for n in sorted(plan.catalog_images) if (i := plan.images[n]) in push.arrived]
    receipt = Receipt(
        str(reader.id),
        str(prefix),
        __version__,
        tuple(_arrived(plan, image, push.target(image)) for image in arrived),
        tuple(absent),
    )
    return write_manifests(
        options,
        archive=reader.id,
        asked=_asked(plan),
        arrived=[push.target(image) for image in arrived],
        catalogs=[(push.target(image), plan.manifests[image.root].digest) for image in catalogs],
        places=push.places,
        missing=absent,
        receipt=receipt,
    )


def _arrived(plan: Plan, image: Image, target: Target) -> Arrived:
    return Arrived(
        image.reference,
        str(plan.manifests[image.root].digest),
        str(target.repository),
        target.tag,
        tuple(str(plan.manifests[number].digest) for number in plan.manifests_of(image)),
        tuple(str(plan.blobs[number].digest) for number in plan.blobs_of(image)),
    )


def _result(
    reader: ArchiveReader,
    prefix: DestinationPrefix,
    push: _Push,
    holes: Sequence[Missing],
    written: Written,
) -> ImportResult:
    return ImportResult(
        archive=reader.path,
        id=reader.id,
        destination=str(prefix),
        arrived=len(push.arrived),
        sent=sum(outcome.sent for outcome in push.outcomes),
        sent_bytes=sum(outcome.sent_bytes for outcome in push.outcomes),
        mounted=sum(outcome.mounted for outcome in push.outcomes),
        present=sum(outcome.present for outcome in push.outcomes),
        manifests_sent=push.manifests_sent,
        missing=tuple(holes),
        failed=tuple(_failures(reader.plan, push)),
        manifests=written.directory,
        files=written.files,
        errors=tuple(push.failed.values()),
    )
