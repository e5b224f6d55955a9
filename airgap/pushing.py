"""Pushing a plan to a registry, wherever its content comes from, and writing down what arrived.

What import and mirror have in common. Knows the order of the steps at the destination, and
refuses to know where plan, manifests and blobs are from.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from airgap import __version__, mapping
from airgap.errors import (
    HOLES,
    AirgapError,
    MalformedReference,
    RegistryError,
    Unreachable,
    worst,
)
from airgap.manifests import ManifestsOptions, Written, prepare_manifests, reasons, write_manifests
from airgap.mapping import mapping_text
from airgap.plan import Missing, counted
from airgap.receipt import Arrived, Receipt
from airgap.reference import DestinationPrefix, ImageReference, Repository
from airgap.registry.destination import RegistryDestination
from airgap.transfer import Outcome, Source, in_parallel, transfer

if TYPE_CHECKING:
    import threading
    from collections import abc
    from collections.abc import Callable, Collection, Iterable, Sequence

    from airgap.digest import Digest
    from airgap.mapping import Mapping, Target
    from airgap.plan import Image, Plan
    from airgap.progress import Progress
    from airgap.registry.client import RegistryClient


@dataclass(frozen=True, kw_only=True)
class PushResult:
    """What has been pushed; ``sent_bytes`` counts blobs alone.

    ``missing`` are the holes of what was to be pushed, ``failed`` the images that this run
    could not put there, ``errors`` the reasons for those.
    """

    arrived: int
    sent: int
    sent_bytes: int
    mounted: int
    present: int
    manifests_sent: int
    missing: tuple[Missing, ...]
    failed: tuple[Missing, ...]
    errors: tuple[AirgapError, ...] = field(default=(), repr=False)

    @classmethod
    def of(
        cls,
        pushes: Iterable[Push],
        missing: Iterable[Missing],
        failed: Iterable[tuple[Missing, AirgapError]],
        **own: Any,
    ) -> Self:
        """Add up what pushes did; ``own`` are the fields of the kind of result."""
        pushes, failed = list(pushes), list(failed)
        outcomes = [outcome for push in pushes for outcome in push.outcomes]
        return cls(
            arrived=sum(len(push.arrived) for push in pushes),
            sent=sum(outcome.sent for outcome in outcomes),
            sent_bytes=sum(outcome.sent_bytes for outcome in outcomes),
            mounted=sum(outcome.mounted for outcome in outcomes),
            present=sum(outcome.present for outcome in outcomes),
            manifests_sent=sum(push.manifests_sent for push in pushes),
            missing=tuple(missing),
            failed=tuple(image for image, _ in failed),
            errors=tuple(error for _, error in failed),
            **own,
        )

    def status(self, *, skip_missing: bool = False) -> int:
        """Return 0, 3 with holes (with ``skip_missing`` not-found is none), or the failures'."""
        holes = [HOLES] if counted(self.missing, skip_missing=skip_missing) else []
        return worst([*(error.exit_status for error in self.errors), *holes])

    @property
    def exit_status(self) -> int:
        """0, 3 with holes, or the status of the failures."""
        return self.status()


@dataclass(frozen=True)
class PushPlan:
    """What would go where: the lines of ``mapping.txt``, and what would be missing."""

    mapping: tuple[str, ...]
    missing: tuple[Missing, ...]


@dataclass(frozen=True)
class Delivery:
    """A plan, the digest of its inventory, and a place for each of its images."""

    plan: Plan
    id: Digest
    destination: DestinationPrefix
    places: Mapping

    @classmethod
    def to(
        cls, destination: DestinationPrefix, plan: Plan, identity: Digest, max_components: int
    ) -> Self:
        """Place every image below a destination. Raises UsageError as ``place_images`` does."""
        return cls(plan, identity, destination, place_images(plan, destination, max_components))

    @property
    def targets(self) -> dict[Image, Target]:
        """The place of each image that can be pushed."""
        return {
            image: self.places[ImageReference.parse(image.reference)] for image in self.plan.images
        }

    def planned(self, missing: Sequence[Missing]) -> PushPlan:
        """Say what would go where."""
        text = mapping_text(self.places, reasons(missing))
        return PushPlan(tuple(text.splitlines()), tuple(missing))

    def prepare(self, options: ManifestsOptions) -> None:
        """Find out what writing would refuse. Raises StorageError and UsageError."""
        prepare_manifests(options, self.id, self._asked, self.places)

    def write(
        self, options: ManifestsOptions, arrived: Collection[Image], absent: Sequence[Missing]
    ) -> Written:
        """Write what a cluster needs, from what has arrived and nothing else."""
        plan, targets = self.plan, self.targets
        in_order = sorted(arrived, key=lambda image: image.reference.encode())
        catalogs = [i for n in sorted(plan.catalog_images) if (i := plan.images[n]) in arrived]
        return write_manifests(
            options,
            archive=self.id,
            asked=self._asked,
            arrived=[targets[image] for image in in_order],
            catalogs=[(targets[image], plan.manifests[image.root].digest) for image in catalogs],
            places=self.places,
            missing=absent,
            receipt=Receipt(
                str(self.id),
                str(self.destination),
                __version__,
                tuple(_arrived(plan, image, targets[image]) for image in in_order),
                tuple(absent),
            ),
        )

    @property
    def _asked(self) -> list[ImageReference]:
        return [ImageReference.parse(text) for text in self.plan.question.catalogs]


class Push:
    """The pushing of images, each to its place, and what has come of it.

    A place without a tag gets the image by its digest alone.

    ``is_fatal`` says which errors end the whole run: they are raised.
    """

    def __init__(
        self,
        plan: Plan,
        targets: abc.Mapping[Image, Target],
        client: RegistryClient,
        *,
        workers: int,
        is_fatal: Callable[[AirgapError], bool],
        progress: Progress,
        stop: threading.Event,
    ) -> None:
        self._plan = plan
        self._targets = targets
        self._client = client
        self._workers = workers
        self._is_fatal = is_fatal
        self._progress = progress
        self._stop = stop
        self.arrived: list[Image] = []
        self.failed: dict[Image, AirgapError] = {}
        self.outcomes: list[Outcome] = []
        self.manifests_sent = 0

    def run(
        self,
        images: Iterable[Image],
        source: Source,
        manifest: Callable[[int], bytes],
        *,
        force_tags: bool,
        holders: abc.Mapping[Digest, Iterable[Repository]] | None = None,
    ) -> None:
        """Push images that have not failed already, the catalogs after all others.

        ``manifest`` gives a manifest's bytes by its number. ``holders`` are repositories that
        are said to hold a blob, and from which it may be mounted.
        """
        catalogs = {self._plan.images[number] for number in self._plan.catalog_images}
        images = [image for image in images if image not in self.failed]
        tags_set = self._survey_tags(images, force_tags)
        ready = [image for image in images if image not in self.failed]
        places = {image: (at.repository, at.tag) for image, at in self._targets.items()}
        destination = RegistryDestination(
            self._client, self._plan, places, manifest, tags_set, holders or {}
        )
        self._progress.stage(
            "pushing",
            total_bytes=_bytes_to_place(self._plan, ready, destination),
            total_images=len(ready),
        )
        try:
            self._transfer([i for i in ready if i not in catalogs], source, destination)
            self._transfer([i for i in ready if i in catalogs], source, destination)
        finally:
            self._progress.finish()
            self.manifests_sent = destination.manifests_sent

    def _transfer(
        self, images: Sequence[Image], source: Source, destination: RegistryDestination
    ) -> None:
        outcome = transfer(
            self._plan,
            images,
            source,
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
            target = self._targets[image]
            name = target.tag or str(self._plan.manifests[image.root].digest)
            try:
                return self._client.manifest_digest(target.repository, name)
            except RegistryError as error:
                if self._is_fatal(error):
                    raise
                return error
            finally:
                self._progress.image()

        answers = in_parallel(ask, images, workers=self._workers, stop=self._stop)
        tags_set = set()
        for image, found in zip(images, answers, strict=True):
            root = self._plan.manifests[image.root].digest
            if found == root:
                tags_set.add(image)
            elif isinstance(found, AirgapError):
                self.failed[image] = found
            elif found is not None and not force:
                self.failed[image] = RegistryError(
                    f"{self._targets[image]}: is at {found}, to be set to {root}",
                    hint="Say --force-tags to move it.",
                )
        return frozenset(tags_set)


_DOWN = frozenset({None, 429, 502, 503, 504})
"""What says, after all retries, that the whole registry is down, and not one repository."""


def says_registry_is_down(error: AirgapError) -> bool:
    """Say whether an error concerns every image, not one alone."""
    return isinstance(error, Unreachable) and error.status in _DOWN


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


def _bytes_to_place(plan: Plan, images: Sequence[Image], destination: RegistryDestination) -> int:
    places = {(n, destination.where(i)) for i in images for n in plan.blobs_of(i)}
    return sum(plan.blobs[number].size for number, _ in places)


def _arrived(plan: Plan, image: Image, target: Target) -> Arrived:
    return Arrived(
        image.reference,
        str(plan.manifests[image.root].digest),
        str(target.repository),
        target.tag,
        tuple(str(plan.manifests[number].digest) for number in plan.manifests_of(image)),
        tuple(str(plan.blobs[number].digest) for number in plan.blobs_of(image)),
    )
