"""Mirror: catalogs and all their images from registry to registry, when both can be reached.

An export and an import in one, without an archive: the same plan, the same places, the same
files. Manifests and the catalogs themselves are kept in a temporary directory while it runs;
everything else goes straight through.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from airgap import mapping
from airgap.archive import inventory
from airgap.asking import Asker
from airgap.delivery import Delivery, PushPlan
from airgap.digest import Hasher
from airgap.inquiry import Inquiry
from airgap.local_catalogs import refuse_inside
from airgap.manifests import ManifestsOptions
from airgap.planner import survey
from airgap.progress import SILENT
from airgap.pushing import PushResult
from airgap.question import DEFAULT_PLATFORM, Part
from airgap.reference import DestinationPrefix
from airgap.registry.access import Access
from airgap.upstream import Run, Upstream, scratch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airgap.archive.work import Work
    from airgap.digest import Digest
    from airgap.plan import Plan
    from airgap.planner import Survey
    from airgap.progress import Progress
    from airgap.registry.client import RegistryClient


@dataclass(frozen=True, kw_only=True)
class MirrorResult(PushResult):
    """What a mirror run did; ``missing`` are the images that could not be had.

    ``id`` is the digest of the inventory that an archive of the same content would have.
    """

    catalogs: tuple[str, ...]
    id: Digest
    destination: str
    manifests: Path
    files: tuple[str, ...]


def mirror(
    catalogs: Sequence[str],
    destination: str,
    *,
    access: Access | None = None,
    platform: str = DEFAULT_PLATFORM,
    part: Part | None = None,
    max_components: int = mapping.DEFAULT_COMPONENTS,
    manifests: ManifestsOptions | None = None,
    force_tags: bool = False,
    recheck: bool = False,
    continue_on_error: bool = True,
    progress: Progress = SILENT,
    stop: threading.Event | None = None,
) -> MirrorResult:
    """Copy catalogs and everything they refer to below ``host[:port][/namespace]``.

    Takes what ``export`` would take, puts it where ``import_archive`` would put it, and writes
    the same files. Catalogs are pushed last; an image that cannot be had, or not be put there,
    does not stop the rest, unless ``continue_on_error`` is off. Run again, it sends only what
    is not there yet: an image whose tag gives its top manifest is not looked into, unless
    ``recheck``. A tag that is set already moves only with ``force_tags``.

    Raises UsageError, RegistryError and Refused for the catalogs themselves, StorageError,
    Interrupted, and Unreachable when the destination is down. Setting ``stop`` ends it soon.
    """
    inquiry = Inquiry(catalogs, platform, part or Part())
    prefix = DestinationPrefix.parse(destination)
    options = manifests or ManifestsOptions()
    refuse_inside(catalogs, options.directory or Path.cwd() / "manifests")
    run = _Run(access or Access(), continue_on_error, progress, stop or threading.Event(), inquiry)
    with run.connect(prefix) as client, scratch() as work:
        client.check(prefix.host)
        found = run.ask(client, work)
        delivery = _delivery(found.plan, prefix, max_components)
        delivery.prepare(options)
        upstream = Upstream(client, found.plan, work)
        pushes = run.push(client, upstream, delivery.rounds, force_tags=force_tags, recheck=recheck)
        lacking, failed = upstream.sorted_out(pushes)
        holes = [*found.missing, *lacking]
        arrived = delivery.arrived(push.arrived for push in pushes)
        written = delivery.write(options, arrived, [*holes, *(image for image, _ in failed)])
    return MirrorResult.of(
        len(arrived),
        pushes,
        holes,
        failed,
        client.activity(),
        catalogs=found.plan.question.catalogs,
        id=delivery.id,
        destination=str(prefix),
        manifests=written.directory,
        files=written.files,
    )


def plan_mirror(
    catalogs: Sequence[str],
    destination: str,
    *,
    access: Access | None = None,
    platform: str = DEFAULT_PLATFORM,
    part: Part | None = None,
    max_components: int = mapping.DEFAULT_COMPONENTS,
    continue_on_error: bool = True,
    progress: Progress = SILENT,
    stop: threading.Event | None = None,
) -> PushPlan:
    """Ask the sources and say what would go where; the destination hears nothing of it.

    Raises what ``mirror`` raises for the sources and for names.
    """
    inquiry = Inquiry(catalogs, platform, part or Part())
    prefix = DestinationPrefix.parse(destination)
    run = _Run(access or Access(), continue_on_error, progress, stop or threading.Event(), inquiry)
    with run.connect(prefix) as client, scratch() as work:
        found = run.ask(client, work)
    return _delivery(found.plan, prefix, max_components).planned(found.missing)


@dataclass(frozen=True)
class _Run(Run):
    """The steps of one run that ask registries."""

    inquiry: Inquiry

    def connect(self, prefix: DestinationPrefix) -> RegistryClient:
        """Return a client that knows which hosts the operator has named."""
        return self.access.connect({prefix.host, *self.inquiry.hosts}, self.stop, writes=True)

    def ask(self, client: RegistryClient, work: Work) -> Survey:
        """Find out what there is to take."""
        asker = Asker(client, work)
        asked = self.inquiry.understood(lambda: asker, self.progress)
        return survey(
            asked.question,
            asker,
            made=asked.made,
            listed=asked.listed,
            continue_on_error=self.continue_on_error,
            progress=self.progress,
            stop=self.stop,
        )


def _delivery(plan: Plan, prefix: DestinationPrefix, max_components: int) -> Delivery:
    hasher = Hasher()
    for line in inventory.lines(plan):
        hasher.update(line)
    return Delivery.to(prefix, plan, hasher.digest(), max_components)
