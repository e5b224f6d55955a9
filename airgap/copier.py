"""Copy: the images that mapping files list, each to the place that its line names.

What ``oc image mirror -f`` does, with every manifest of an index always taken along. Knows no
catalogs, and writes nothing for a cluster.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airgap import mapping_file
from airgap.asking import Asker
from airgap.delivery import PushPlan
from airgap.errors import RegistryError
from airgap.mapping import Target
from airgap.places import rounds
from airgap.planner import survey_images, tags_of
from airgap.progress import SILENT
from airgap.pushing import PushResult
from airgap.registry.access import Access
from airgap.upstream import Run, Upstream, scratch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airgap.archive.work import Work
    from airgap.errors import AirgapError
    from airgap.mapping_file import Copy, MappingFile
    from airgap.plan import Image, Missing, Plan
    from airgap.planner import Survey
    from airgap.progress import Progress
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
    recheck: bool = False,
    continue_on_error: bool = True,
    progress: Progress = SILENT,
    stop: threading.Event | None = None,
) -> CopyResult:
    """Copy what mapping files list; each is a name for errors and its text.

    A source that cannot be had, or a copy that fails, does not stop the rest, unless
    ``continue_on_error`` is off; nor does a destination that is out of reach from the start.
    Run again, it sends only what is not there yet: an image whose tag gives its top manifest is
    not looked into, unless ``recheck``. A tag that is set already moves only with ``force_tags``.

    Raises UsageError for the files, StorageError, Interrupted, and RegistryError when all
    destinations are down, or one goes down meanwhile. Setting ``stop`` ends it soon.
    """
    listed = mapping_file.parse(files)
    run = _Run(access or Access(), continue_on_error, progress, stop or threading.Event())
    copies, holes = run.expand(listed)
    with run.connect(listed, writes=True) as client, scratch() as work:
        down = run.unusable({copy.destination.repository.host for copy in copies}, client)
        found = run.ask(copies, client, work)
        holes += found.missing
        upstream = Upstream(client, found.plan, work)
        targets = _targets(found.plan, copies)
        pushes = run.push(
            client, upstream, rounds(targets), force_tags=force_tags, recheck=recheck, down=down
        )
        lacking, failed = upstream.sorted_out(pushes)
    each_once = {hole.reference: hole for hole in (*holes, *lacking)}
    arrived = sum(len(push.arrived) for push in pushes)
    return CopyResult.of(
        arrived, pushes, each_once.values(), failed, client.activity(), copies=len(copies)
    )


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
    lines = tuple(_line(copy, reasons.get(str(copy.source))) for copy in copies)
    placed = {str(copy.source) for copy in copies}
    unplaced = tuple(hole for hole in holes if hole.reference not in placed)
    return PushPlan(lines, tuple(holes), unplaced)


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
        # Not the client that writes: it may be refused for repositories that it only reads.
        with self.connect(listed, writes=False) as client:
            tags, holes = tags_of(
                listed.wildcards, client, continue_on_error=self.continue_on_error
            )
        return mapping_file.expanded(listed, tags.__getitem__), holes

    def unusable(self, hosts: set[str], client: RegistryClient) -> dict[str, AirgapError]:
        """Return the hosts that no registry answers at, and why. Raises when all are such."""
        down: dict[str, AirgapError] = {}
        for host in sorted(hosts):
            try:
                client.check(host)
            except RegistryError as error:
                if not self.continue_on_error:
                    raise
                down[host] = error
        if down and len(down) == len(hosts):
            raise next(iter(down.values()))
        return down

    def ask(self, copies: Iterable[Copy], client: RegistryClient, work: Work) -> Survey:
        """Find out what the sources are."""
        return survey_images(
            dict.fromkeys(str(copy.source) for copy in copies),
            Asker(client, work),
            continue_on_error=self.continue_on_error,
            progress=self.progress,
            stop=self.stop,
        )


def _targets(plan: Plan, copies: Iterable[Copy]) -> dict[Image, list[Target]]:
    """Return the places of each image that could be had."""
    images = {image.reference: image for image in plan.images}
    found: dict[Image, list[Target]] = defaultdict(list)
    for copy in copies:
        if image := images.get(str(copy.source)):
            to = copy.destination
            found[image].append(Target(copy.source, to.repository, to.tag))
    return found


def _line(copy: Copy, reason: str | None) -> str:
    line = f"{copy.source.exact}={copy.destination}"
    return line if reason is None else f"# {line}  (missing: {reason})"
