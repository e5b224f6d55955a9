"""Copy: the images that mapping files list, each to the place that its line names.

What ``oc image mirror -f`` does, with every manifest of an index always taken along. Knows no
catalogs, and writes nothing for a cluster.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airgap import mapping_file
from airgap.errors import RegistryError
from airgap.mapping import Target
from airgap.plan import Missing, Reason
from airgap.planner import reason_for, survey_images
from airgap.progress import SILENT
from airgap.pushing import PushPlan, PushResult
from airgap.registry.access import Access
from airgap.upstream import Run, Upstream, scratch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airgap.archive.work import Work
    from airgap.digest import Digest
    from airgap.errors import AirgapError
    from airgap.mapping_file import Copy, MappingFile, Wildcard
    from airgap.plan import Image, Plan
    from airgap.planner import Survey
    from airgap.progress import Progress
    from airgap.pushing import Push
    from airgap.reference import ImageReference, Repository
    from airgap.registry.client import RegistryClient


@dataclass(frozen=True, kw_only=True)
class CopyResult(PushResult):
    """What a run copied; ``copies`` is how many were listed, wildcards counted by their matches.

    ``missing`` are sources that could not be had, each once.
    """

    copies: int


def copy_listed(
    files: Iterable[tuple[str, str]],
    *,
    access: Access | None = None,
    force_tags: bool = False,
    continue_on_error: bool = True,
    progress: Progress = SILENT,
    stop: threading.Event | None = None,
) -> CopyResult:
    """Copy what mapping files list; each is a name for errors and its text.

    A source that cannot be had, or a copy that fails, does not stop the rest, unless
    ``continue_on_error`` is off. Run again, it sends only what is not there yet. A tag that is
    set already moves only with ``force_tags``.

    Raises UsageError for the files, StorageError, Interrupted, and Unreachable when a
    destination is down. Setting ``stop`` ends it soon.
    """
    listed = mapping_file.parse(files)
    run = _Run(access or Access(), continue_on_error, progress, stop or threading.Event())
    copies, holes = run.expand(listed)
    pushes: list[Push] = []
    failed: list[tuple[Missing, AirgapError]] = []
    with run.connect(listed, writes=True) as client, scratch() as work:
        for host in sorted({copy.destination.repository.host for copy in copies}):
            client.check(host)
        found = run.ask(copies, client, work)
        holes += found.missing
        upstream = Upstream(client, found.plan, work)
        holders = upstream.holders()
        for targets in _rounds(found.plan, copies):
            push = run.push(client, upstream, targets, holders, force_tags=force_tags)
            pushes.append(push)
            _remember(found.plan, push.arrived, targets, holders)
            lacking, refused = upstream.sorted_out(push)
            holes += lacking
            failed += refused
    each_once = {hole.reference: hole for hole in holes}
    return CopyResult.of(pushes, each_once.values(), failed, copies=len(copies))


def plan_copies(
    files: Iterable[tuple[str, str]],
    *,
    access: Access | None = None,
    continue_on_error: bool = True,
    progress: Progress = SILENT,
    stop: threading.Event | None = None,
) -> PushPlan:
    """Ask the sources and say what would be copied where; the destinations hear nothing of it.

    Raises what ``copy_listed`` raises for files and sources.
    """
    listed = mapping_file.parse(files)
    run = _Run(access or Access(), continue_on_error, progress, stop or threading.Event())
    copies, holes = run.expand(listed)
    with run.connect(listed, writes=False) as client, scratch() as work:
        holes += run.ask(copies, client, work).missing
    reasons = {hole.reference: hole.reason for hole in holes}
    return PushPlan(
        tuple(_line(copy, reasons.get(str(copy.source))) for copy in copies), tuple(holes)
    )


@dataclass(frozen=True)
class _Run(Run):
    """The steps of one run that ask registries."""

    def connect(self, listed: MappingFile, *, writes: bool) -> RegistryClient:
        """Return a client that knows which hosts the files name."""
        pairs = [(one.source, one.destination) for one in listed.copies]
        pairs += [(one.source, one.destination) for one in listed.wildcards]
        named = {reference.repository.host for pair in pairs for reference in pair}
        return self.access.connect(named, self.stop, writes=writes)

    def expand(self, listed: MappingFile) -> tuple[tuple[Copy, ...], list[Missing]]:
        """Return what is to be copied, wildcards replaced, and which of them match nothing."""
        for remark in listed.remarks:
            self.progress.say(remark)
        holes: list[Missing] = []
        tags: dict[ImageReference, list[str]] = {}
        # Not the client that writes: it may be refused for repositories that it only reads.
        with self.connect(listed, writes=False) as client:
            for wildcard in listed.wildcards:
                source = wildcard.source
                try:
                    tags[source] = tags.get(source) or client.tags(source.repository)
                except RegistryError as error:
                    if not self.continue_on_error:
                        raise
                    tags[source] = []
                    holes.append(_unmatched(wildcard, reason_for(error), error.message))
                else:
                    if not wildcard.matching(tags[source]):
                        holes.append(_unmatched(wildcard, Reason.NOT_FOUND, "no tag matches"))
        return mapping_file.expanded(listed, lambda source: tags[source]), holes

    def ask(self, copies: Iterable[Copy], client: RegistryClient, work: Work) -> Survey:
        """Find out what the sources are."""
        return survey_images(
            dict.fromkeys(str(copy.source) for copy in copies),
            client,
            work,
            workers=self.access.connections,
            continue_on_error=self.continue_on_error,
            progress=self.progress,
            stop=self.stop,
        )


def _rounds(plan: Plan, copies: Iterable[Copy]) -> list[dict[Image, Target]]:
    """Deal out copies so that an image has one place in each round."""
    images = {image.reference: image for image in plan.images}
    rounds: list[dict[Image, Target]] = []
    dealt: Counter[Image] = Counter()
    for copy in copies:
        image = images.get(str(copy.source))
        if image is None:
            continue  # It could not be had.
        if dealt[image] == len(rounds):
            rounds.append({})
        to = copy.destination
        rounds[dealt[image]][image] = Target(copy.source, to.repository, to.tag)
        dealt[image] += 1
    return rounds


def _remember(
    plan: Plan,
    arrived: Iterable[Image],
    targets: Mapping[Image, Target],
    holders: dict[Digest, list[Repository]],
) -> None:
    """Add where blobs are now, so that the next round can mount them."""
    for image in arrived:
        for number in plan.blobs_of(image):
            holders[plan.blobs[number].digest].append(targets[image].repository)


def _unmatched(wildcard: Wildcard, reason: Reason, detail: str) -> Missing:
    return Missing(f"{wildcard.source}:{wildcard.glob or '*'}", reason.value, detail=detail)


def _line(copy: Copy, reason: str | None) -> str:
    line = f"{copy.source.exact}={copy.destination}"
    return line if reason is None else f"# {line}  (missing: {reason})"
