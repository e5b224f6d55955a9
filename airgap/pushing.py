"""Pushing images to their places at registries, wherever their content comes from.

What import, mirror and copy have in common. Knows the order of the steps at the destination, and
refuses to know where plan, manifests and blobs are from, and why an image goes where it goes.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from airgap.abreast import AheadDestination, Known, Passing
from airgap.crew import in_parallel
from airgap.errors import (
    HOLES,
    AirgapError,
    Interrupted,
    NotFound,
    RegistryError,
    Unreachable,
    printable,
    worst,
)
from airgap.plan import Missing, broken_packages, counted
from airgap.registry.destination import RegistryDestination
from airgap.registry.pace import MOST
from airgap.registry.upload import RepositoryAbsent
from airgap.sighting import Lookout
from airgap.transfer import Outcome, Source, transfer

if TYPE_CHECKING:
    import threading
    from collections import abc
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from airgap.digest import Digest
    from airgap.mapping import Target
    from airgap.plan import Blob, Image, Plan
    from airgap.progress import Progress
    from airgap.reference import Repository
    from airgap.registry.account import HostActivity
    from airgap.registry.client import RegistryClient
    from airgap.registry.destination import BlobDestination
    from airgap.sighting import Sight

    Holders: TypeAlias = abc.Mapping[Digest, Iterable[Repository]]
    """Repositories that are said to have a blob."""


_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PushResult:
    """What has been pushed; ``sent_bytes`` counts blobs alone.

    ``arrived`` images are there now, ``images_present`` of them were there before and were not
    looked into. ``missing`` are the holes of what was to be pushed, ``failed`` the images that
    this run could not put there, ``errors`` the reasons for those, ``broken`` the packages that
    either hurts. ``to_create`` are repositories that the registry did not make by itself.
    ``hosts`` says what was done with each host.
    """

    arrived: int
    images_present: int
    sent: int
    sent_bytes: int
    mounted: int
    present: int
    manifests_sent: int
    missing: tuple[Missing, ...]
    failed: tuple[Missing, ...]
    broken: tuple[str, ...]
    to_create: tuple[str, ...]
    hosts: tuple[HostActivity, ...]
    errors: tuple[AirgapError, ...] = field(default=(), repr=False)

    @classmethod
    def of(
        cls,
        arrived: int,
        pushes: Iterable[Push],
        missing: Iterable[Missing],
        failed: Iterable[tuple[Missing, AirgapError]],
        hosts: tuple[HostActivity, ...],
        **own: Any,
    ) -> Self:
        """Add up what pushes did; ``own`` are the fields of the kind of result."""
        pushes, failed, missing = list(pushes), list(dict.fromkeys(failed)), tuple(missing)
        outcomes = [outcome for push in pushes for outcome in push.outcomes]
        return cls(
            arrived=arrived,
            images_present=sum(len(push.present) for push in pushes),
            sent=sum(outcome.sent for outcome in outcomes),
            sent_bytes=sum(outcome.sent_bytes for outcome in outcomes),
            mounted=sum(outcome.mounted for outcome in outcomes),
            present=sum(outcome.present for outcome in outcomes),
            manifests_sent=sum(push.manifests_sent for push in pushes),
            missing=missing,
            failed=tuple(image for image, _ in failed),
            broken=broken_packages((*missing, *(image for image, _ in failed))),
            to_create=tuple(sorted({name for push in pushes for name in push.to_create})),
            hosts=hosts,
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


class Push:
    """The pushing of images, each to its place, and what has come of it.

    A place without a tag gets the image by its digest alone, if the registry takes it so. An
    image whose tag, or else digest, gives its top manifest, byte for byte, is there: nothing
    more of it is asked for, unless ``recheck``.

    An error of a registry that is down is raised, and without ``continue_on_error`` any error.
    ``is_theirs`` says which errors the source is to blame for.
    """

    def __init__(
        self,
        plan: Plan,
        targets: abc.Mapping[Image, Target],
        client: RegistryClient,
        *,
        continue_on_error: bool,
        recheck: bool = False,
        is_theirs: Callable[[AirgapError], bool] = lambda error: False,
        progress: Progress,
        stop: threading.Event,
    ) -> None:
        self._plan = plan
        self._targets = targets
        self._client = client
        self._continue_on_error = continue_on_error
        self._recheck = recheck
        self._is_theirs = is_theirs
        self._progress = progress
        self._stop = stop
        self._doubts = 0
        self.arrived: list[Image] = []
        self.present: list[Image] = []
        self.to_create: list[str] = []
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

        The smallest image that an empty registry gets goes ahead of the rest: it shows in which
        way the registry takes manifests, before much has been sent to it.

        ``manifest`` gives a manifest's bytes by its number. ``holders`` are repositories that
        are said to hold a blob, and from which it may be mounted.
        """
        catalogs = {self._plan.images[number] for number in self._plan.catalog_images}
        images = [image for image in images if image not in self.failed]
        sight = Lookout(
            self._plan,
            self._targets,
            self._client,
            self._is_fatal,
            self._no_doubt,
            self._progress,
            self._stop,
        ).look(images, self._smallest(images, catalogs))
        tags_set = self._judge_tags(sight, force_tags)
        if not self._recheck:
            self.present = [image for image in images if image in tags_set]
            self.arrived += self.present
        done = {*self.failed, *self.present}
        ready = [image for image in images if image not in done]
        places = {image: (at.repository, at.tag) for image, at in self._targets.items()}
        destination = RegistryDestination(
            self._client,
            self._plan,
            places,
            manifest,
            self._stopping(source),
            tags_set,
            # One that is given blobs ahead of its manifests may look empty.
            sight.empty.difference(*(holders or {}).values()),
            self._holders(holders or {}),
            self._progress.say,
            self._no_doubt,
        )
        smallest = self._smallest([i for i in ready if i not in tags_set], catalogs)
        first = [i for host, i in smallest.items() if host not in self._client.takes_digests]
        for image in first:
            destination.ask_for_digests(image)
        filled = {self._targets[image].repository.host for image in tags_set}
        ahead = [
            image
            for image in first
            if image not in catalogs and self._targets[image].repository.host not in filled
        ]
        self._progress.stage(
            "pushing",
            total_bytes=_bytes_to_place(self._plan, ready, destination),
            total_images=len(ready),
        )
        try:
            self._put_images(ahead, source, destination)
            self._put_images(
                [i for i in ready if i not in catalogs and i not in ahead], source, destination
            )
            self._put_images([i for i in ready if i in catalogs], source, destination)
        finally:
            self._progress.finish()
            self.manifests_sent = destination.manifests_sent
            self.to_create = sorted(map(str, destination.absent))

    def put_blobs(
        self,
        images: Iterable[Image],
        source: Source,
        blobs: frozenset[int],
        known: Known,
        passing: int | None,
    ) -> dict[int, AirgapError]:
        """Bring some blobs of images to their places, ahead of the images themselves.

        ``passing`` is the one that the source gives but once. What is learned is added to
        ``known``. Returns those that could not be brought, with the reason.
        """
        plan = self._plan
        images = [image for image in images if not blobs.isdisjoint(plan.blobs_of(image))]
        places = {image: (at.repository, at.tag) for image, at in self._targets.items()}
        where = {
            (n, str(places[i][0])): None for i in images for n in plan.blobs_of(i) if n in blobs
        }
        once = None
        if passing is not None and (wanting := [at for n, at in where if n == passing]):
            once = Passing(plan.blobs[passing].digest, wanting)
        destination = AheadDestination(
            self._client, places, known, once, self._no_doubt, self._stop
        )
        self._progress.stage(
            "pushing blobs", total_bytes=sum(plan.blobs[number].size for number, _ in where)
        )
        skip = frozenset(range(len(plan.blobs))) - blobs
        return self._transfer(images, source, destination, skip).failed_blobs

    def _put_images(
        self, images: Sequence[Image], source: Source, destination: RegistryDestination
    ) -> None:
        outcome = self._transfer(images, source, destination)
        self.arrived += outcome.images
        self.failed |= outcome.failed_images

    def _transfer(
        self,
        images: Sequence[Image],
        source: Source,
        destination: BlobDestination,
        skip: frozenset[int] = frozenset(),
    ) -> Outcome:
        try:
            outcome = transfer(
                self._plan,
                images,
                source,
                destination,
                lanes=self._client.pace,
                progress=self._progress,
                stop=self._stop,
                is_fatal=self._is_fatal,
                skip=skip,
            )
        except RepositoryAbsent as error:
            raise self._all_absent(error) from error
        self.outcomes.append(outcome)
        return outcome

    def _smallest(self, images: Iterable[Image], catalogs: Collection[Image]) -> dict[str, Image]:
        """Choose the smallest image for each registry, by its host: it goes ahead of the others.

        A catalog is chosen only where there is nothing else.
        """
        plan = self._plan

        def weight(image: Image) -> tuple[bool, int, str]:
            size = sum(plan.blobs[number].size for number in plan.blobs_of(image))
            return image in catalogs, size, image.reference

        first: dict[str, Image] = {}
        for image in sorted(images, key=weight):
            first.setdefault(self._targets[image].repository.host, image)
        return first

    def _judge_tags(self, sight: Sight, force: bool) -> frozenset[Image]:
        """Return the images whose tags are set already; refuse to move one unless told to."""
        tags_set = set()
        for image, found in sight.tags.items():
            root = self._plan.manifests[image.root].digest
            if found == root:
                tags_set.add(image)
            elif isinstance(found, AirgapError):
                self.failed[image] = found
            elif found is not None and not force:
                self.failed[image] = error = RegistryError(
                    f"{self._targets[image]}: is at {found}, to be set to {root}",
                    hint="Say --force-tags to move it.",
                )
                if self._is_fatal(error):
                    raise error
        return frozenset(tags_set)

    def _holders(self, known: abc.Mapping[Digest, Iterable[Repository]]) -> Holders:
        """Add the repositories of the images that are there to those said to have a blob."""
        found = defaultdict(list, {digest: list(places) for digest, places in known.items()})
        for image in self.present:
            for number in self._plan.blobs_of(image):
                found[self._plan.blobs[number].digest].append(self._targets[image].repository)
        return found

    def _stopping(self, source: Source) -> Callable[[Blob, int], Iterator[bytes]]:
        """Give a source's blobs, until the run is to stop."""

        def blob(blob: Blob, offset: int) -> Iterator[bytes]:
            for piece in source.blob(blob, offset):
                if self._stop.is_set():
                    raise Interrupted
                yield piece

        return blob

    def _all_absent(self, error: RepositoryAbsent) -> RegistryError:
        """Return the error for all repositories that must be created, from that for the first."""
        absent = []
        for repository in sorted({t.repository for t in self._targets.values()}, key=str):
            try:
                self._client.require_uploads(repository)
            except RepositoryAbsent:
                absent.append(str(repository))
            except RegistryError as other:
                _log.info("%s", printable(other.message, 400))
        more = f"; all that are not there ({len(absent)}): {', '.join(absent)}" if absent else ""
        return NotFound(error.message + more, status=error.status, code=error.code, hint=error.hint)

    def _no_doubt(self) -> None:
        self._doubts = 0

    def _is_fatal(self, error: AirgapError) -> bool:
        if not self._continue_on_error:
            return True
        if self._is_theirs(error) or not _may_be_down(error):
            return False
        self._doubts += 1
        return self._doubts > _DOUBTS or self._is_out_of_reach()

    def _is_out_of_reach(self) -> bool:
        """Ask the registries themselves, as one that is up may fail at a single blob."""
        left = (target for image, target in self._targets.items() if image not in self.failed)
        try:
            for host in sorted({target.repository.host for target in left}):
                self._client.check(host)
        except RegistryError:
            return True
        return False


class Ahead:
    """Blobs that are brought to their places ahead of their images, as a source comes by them.

    ``begun`` gives the pushing of images to their places; ``spoiled`` are images that will not
    be pushed. ``pushes`` is what has been done.
    """

    def __init__(
        self,
        plan: Plan,
        rounds: Sequence[dict[Image, Target]],
        begun: Callable[[dict[Image, Target]], Push],
        client: RegistryClient,
        spoiled: Collection[Image],
    ) -> None:
        self._plan = plan
        self._rounds = rounds
        self._begun = begun
        self._client = client
        self._spoiled = spoiled
        self._known = Known()
        self.pushes: list[Push] = []

    @property
    def holders(self) -> dict[Digest, list[Repository]]:
        """Who has which blob by now."""
        return self._known.holders

    @cached_property
    def places(self) -> abc.Mapping[int, set[Repository]]:
        """The repositories that want each blob, by its number."""
        places = defaultdict(set)
        for targets in self._rounds:
            for image, target in targets.items():
                for number in self._plan.blobs_of(image):
                    places[number].add(target.repository)
        return places

    def not_there(self, groups: abc.Mapping[int, Iterable[int]], stop: threading.Event) -> set[int]:
        """Return the keys of those groups of blobs that are not all at their places already."""
        places = self.places

        def lane_of(number: int) -> str:
            return min(place.host for place in places[number])

        def is_there(number: int) -> bool:
            blob = self._plan.blobs[number]
            try:
                return all(
                    self._client.blob_length(place, blob.digest) == blob.size
                    for place in places[number]
                )
            except RegistryError:
                return False  # Whoever pushes it will find out why.

        absent = set()
        for key, blobs in groups.items():
            if all(in_parallel(is_there, list(blobs), self._client.pace, lane_of, stop)):
                for number in blobs:
                    self.holders[self._plan.blobs[number].digest] += places[number]
            else:
                absent.add(key)
        return absent

    def push(
        self, source: Source, blobs: frozenset[int], passing: int | None = None
    ) -> dict[int, AirgapError]:
        """Bring blobs to all their places; return those that could not be, with the reason.

        ``passing`` is one of them that the source gives but once.
        """
        failed: dict[int, AirgapError] = {}
        for targets in self._rounds:
            images = [image for image in targets if image not in self._spoiled]
            self.pushes.append(one := self._begun(targets))
            failed |= one.put_blobs(images, source, blobs, self._known, passing)
        return failed


_DOWN = frozenset({None, 429, 502, 503, 504})
"""What says, after all retries, that the whole registry may be down, and not one repository."""

_TAKES_NOTHING = frozenset({405, 507})
"""What says that a registry is read-only, or full, unless it is about one repository only."""

_DOUBTS = 2 * MOST
"""So many failures in a row, more than are under way, and none that went well: it is down."""


def _may_be_down(error: AirgapError) -> bool:
    if isinstance(error, Unreachable):
        return error.status in _DOWN
    return isinstance(error, RegistryError) and error.status in _TAKES_NOTHING


def push_rounds(
    plan: Plan,
    rounds: Iterable[dict[Image, Target]],
    push: Callable[[dict[Image, Target], Holders], Push],
    holders: Holders | None = None,
) -> list[Push]:
    """Push round after round; what one has brought can be mounted by the next.

    ``push`` pushes the images of a round, and is told which repositories hold which blob.
    """
    known = defaultdict(list, {digest: list(found) for digest, found in (holders or {}).items()})
    pushes = []
    for targets in rounds:
        done = push(targets, known)
        pushes.append(done)
        for image in done.arrived:
            for number in plan.blobs_of(image):
                known[plan.blobs[number].digest].append(targets[image].repository)
    return pushes


def _bytes_to_place(plan: Plan, images: Sequence[Image], destination: RegistryDestination) -> int:
    places = {(n, destination.where(i)) for i in images for n in plan.blobs_of(i)}
    return sum(plan.blobs[number].size for number, _ in places)
