"""Import: an archive into a registry, and the files that make a cluster use it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from airgap import mapping
from airgap.archive.audit import audit, check_references
from airgap.archive.forward import DEFAULT_WINDOW
from airgap.archive.reader import ArchiveReader, in_a_list
from airgap.assumed import Assumed, find_assumed, repositories_in
from airgap.delivery import Delivery, PushPlan
from airgap.errors import ArchiveError, IntegrityError, UsageError, worst
from airgap.manifests import RECEIPT, ManifestsOptions
from airgap.plan import Image, Missing, blob_holes, missing, plan_holes
from airgap.progress import SILENT
from airgap.pushing import Ahead, Push, PushResult, push_rounds
from airgap.reference import DestinationPrefix
from airgap.registry.access import Access
from airgap.streaming import Streaming
from airgap.swapping import Swapping

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from airgap.archive.reader import Paths
    from airgap.digest import Digest
    from airgap.errors import AirgapError
    from airgap.mapping import Target
    from airgap.progress import Progress
    from airgap.pushing import Holders
    from airgap.transfer import Source


@dataclass(frozen=True, kw_only=True)
class ImportResult(PushResult):
    """What an import did; ``missing`` are the archive's holes.

    ``damage`` is what was wrong with an archive that came as a stream.
    """

    archive: Path
    id: Digest
    destination: str
    manifests: Path
    files: tuple[str, ...]
    damage: tuple[str, ...] = ()

    def status(self, *, skip_missing: bool = False) -> int:
        """Return what ``PushResult`` does, or 4 where a stream was damaged."""
        damaged = [ArchiveError.exit_status] if self.damage else []
        return worst([super().status(skip_missing=skip_missing), *damaged])


def import_archive(
    archive: Paths | BinaryIO,
    destination: str,
    *,
    access: Access | None = None,
    max_components: int = mapping.DEFAULT_COMPONENTS,
    manifests: ManifestsOptions | None = None,
    receipts: Sequence[Path] = (),
    wait: bool = False,
    window: int = DEFAULT_WINDOW,
    verify_first: bool = False,
    force_tags: bool = False,
    recheck: bool = False,
    continue_on_error: bool = True,
    progress: Progress = SILENT,
    stop: threading.Event | None = None,
) -> ImportResult:
    """Push an archive to ``host[:port][/namespace]`` and write the cluster's files.

    ``archive`` may be any files and directories that hold its volumes. With ``wait`` volumes
    may appear there one after the other, in any order, as media are exchanged: what one holds
    is pushed while it is there. The images follow when all have been there.
    It may also be an open stream, which has a descriptor and passes once: what comes is pushed
    while it passes, and up to ``window`` bytes of blobs wait in temporary files. What is lost
    of it costs the images that need it.
    Everything that can be refused is refused before the first request: a damaged head, a hole
    in a catalog, names that collide or do not fit; with ``verify_first`` also any damaged
    byte. (With ``wait`` each volume is looked at when it appears.) Then images go one by one
    into their repositories, catalogs last; one that fails does not stop the rest, unless
    ``continue_on_error`` is off. Run again, it sends only what is not there yet: an image
    whose tag gives its top manifest is not looked into, unless ``recheck``. A tag that is set
    already moves only with ``force_tags``.

    What a delta leaves to earlier archives must all be at the registry, or nothing is pushed.
    ``receipts`` of earlier imports, and the one in the directory of ``manifests``, say where
    else there it may be looked for.

    Raises UsageError (also for ``wait`` and ``verify_first`` with a stream), Busy, ArchiveError,
    StorageError, Interrupted, and Unreachable when the registry is down. Setting ``stop`` ends
    it soon.
    """
    prefix = DestinationPrefix.parse(destination)
    options = manifests or ManifestsOptions()
    access, stop = access or Access(), stop or threading.Event()

    content: Swapping | Streaming
    if isinstance(archive, Path | Sequence):
        content = Swapping(in_a_list(archive), progress, stop, wait=wait)
    elif wait or verify_first:
        raise UsageError("a stream passes once: it can neither be waited for nor verified first")
    else:
        content = Streaming(archive.fileno(), "standard input", window, stop)
    with content:
        reader = content.reader
        reader.require_sound_head()
        if isinstance(content, Swapping) and not wait:
            reader.require_all_volumes()
        plan = reader.plan
        look_at = partial(_look_at, verify_first=verify_first, progress=progress)
        look_at(reader, reader.holes)
        # A manifest that is damaged on this medium may be sound on another.
        more = isinstance(content, Swapping) and reader.lacking
        damaged = {} if more else _damaged_images(reader)
        delivery = Delivery.to(prefix, plan, reader.id, max_components)
        directory = delivery.prepare(options)
        beside = directory / RECEIPT if plan.assumed else None
        known = repositories_in(receipts, beside, prefix.host, progress)
        with access.connect({prefix.host}, stop, writes=True) as client:
            client.check(prefix.host)
            not_here = blob_holes(plan, dict.fromkeys(reader.holes, ""))
            to_push = [i for i in _without(plan.images, not_here) if i not in damaged]
            found = find_assumed(plan, to_push, delivery.places, known, client, progress, stop)
            begun = partial(
                Push,
                plan,
                client=client,
                continue_on_error=continue_on_error,
                recheck=recheck,
                progress=progress,
                stop=stop,
            )
            rounds = delivery.rounds
            ahead = Ahead(plan, rounds, begun, client, set(damaged))
            content.give_away(ahead, look_at)
            absent = blob_holes(plan, dict.fromkeys(sorted(content.holes), ""))
            push = partial(
                _push,
                begun,
                content,
                Assumed(client, found, content),
                damaged,
                absent,
                force_tags,
            )
            holders = ahead.holders | {digest: [there] for digest, there in found.items()}
            pushes = push_rounds(plan, rounds, push, holders)
            hosts = client.activity()
        holes = [*plan_holes(plan, {}), *absent]
        errors = {image: error for one in pushes for image, error in one.failed.items()}
        failed = [(_failure(reader, image, error), error) for image, error in errors.items()]
        arrived = delivery.arrived(one.arrived for one in pushes)
        written = delivery.write(options, arrived, [*holes, *(image for image, _ in failed)])
        return ImportResult.of(
            len(arrived),
            [*ahead.pushes, *pushes],
            holes,
            failed,
            hosts,
            archive=reader.path,
            id=reader.id,
            destination=str(prefix),
            manifests=written.directory,
            files=written.files,
            damage=content.damage,
        )


def _look_at(
    medium: ArchiveReader, lacks: Collection[int], *, verify_first: bool, progress: Progress
) -> None:
    """Say and refuse what is wrong with a medium that lacks blobs. Raises ArchiveError."""
    for problem in medium.check_tables():
        progress.say(f"{medium.path}: {problem.message}: it is read all the same")
    _refuse_hole_in_catalog(medium, blob_holes(medium.plan, dict.fromkeys(sorted(lacks), "")))
    if verify_first:
        _refuse_damage(medium, progress)


def _push(
    begun: Callable[[dict[Image, Target]], Push],
    content: Swapping | Streaming,
    source: Source,
    damaged: Mapping[Image, AirgapError],
    absent: Sequence[Missing],
    force_tags: bool,
    targets: dict[Image, Target],
    holders: Holders,
) -> Push:
    """Push the images of a round that are whole."""
    one = begun(targets)
    one.failed |= {image: error for image, error in damaged.items() if image in targets}
    one.run(
        _without(targets, absent),
        source,
        content.manifest,
        force_tags=force_tags,
        holders=holders,
    )
    return one


def plan_import(
    archive: Paths,
    destination: str,
    *,
    max_components: int = mapping.DEFAULT_COMPONENTS,
    wait: bool = False,
) -> PushPlan:
    """Say what an import would do; no request is made.

    Raises what ``import_archive`` raises before its first request.
    """
    prefix = DestinationPrefix.parse(destination)
    with ArchiveReader(archive) as reader:
        reader.require_sound_head()
        if not wait:
            reader.require_all_volumes()
        blobs = blob_holes(reader.plan, dict.fromkeys(reader.holes, ""))
        _refuse_hole_in_catalog(reader, blobs)
        delivery = Delivery.to(prefix, reader.plan, reader.id, max_components)
        return delivery.planned([*plan_holes(reader.plan, {}), *blobs])


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


def _without(images: Iterable[Image], holes: Sequence[Missing]) -> list[Image]:
    missing_names = {hole.reference for hole in holes}
    return [image for image in images if image.reference not in missing_names]


def _failure(reader: ArchiveReader, image: Image, error: AirgapError) -> Missing:
    reason = "damaged" if isinstance(error, IntegrityError) else "failed"
    return missing(reader.plan, image, reason, error.message)
