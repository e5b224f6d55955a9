"""Export: a question, its plan, and an archive that holds all the plan names.

Knows the order of the steps for each form of an archive, and what is said in the end. How a step
is done it refuses to know.
"""

from __future__ import annotations

import os
import threading
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

from airgap.archive.compressed import (
    Begun,
    level_for,
    require_form_of_begun,
    require_form_of_finished,
)
from airgap.archive.forward import DEFAULT_WINDOW, ForwardWriter
from airgap.archive.growing import growing_files, require_a_size
from airgap.archive.head import Head
from airgap.archive.medium import Media, VolumeOptions, volume_names
from airgap.archive.older import OlderArchives
from airgap.archive.output import FileOutput, StreamOutput
from airgap.archive.reader import ArchiveReader, partial_path
from airgap.archive.seekable import SeekableOutput
from airgap.archive.volumes import volumes_in
from airgap.archive.work import Work, work_path
from airgap.archive.writer import ArchiveWriter, claim, reopen
from airgap.errors import HOLES, AirgapError, AlreadyFinished, Interrupted, UsageError
from airgap.export_run import MAKE_A_NEW_ONE, ExportRun, still_to_come, understood
from airgap.inquiry import Inquiry
from airgap.local_catalogs import refuse_inside
from airgap.plan import Missing, blob_holes, broken_packages, counted, plan_holes
from airgap.planner import Survey
from airgap.progress import SILENT
from airgap.question import DEFAULT_PLATFORM, Part
from airgap.registry.access import Access
from airgap.since import held_by
from airgap.storage import storage_errors, sync_directory, temporary_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from airgap.archive.reader import Paths
    from airgap.archive.state import State
    from airgap.digest import Digest
    from airgap.plan import Blob
    from airgap.progress import Progress
    from airgap.registry.account import HostActivity

_STREAM = Path("standard output")


@dataclass(frozen=True)
class ExportResult:
    """What an export left behind; sizes in bytes.

    ``id`` is the digest of the inventory, ``volumes`` the names of its files when it is in
    several. ``assumed`` blobs are not in it, as the other side has them. Of the blobs that this
    run added, ``fetched`` came from registries and ``reused`` from older archives; the
    catalogs' own, which it needs to make a plan, are in neither. ``manifests_reused`` came from
    older archives as well. ``broken`` are the packages that anything missing hurts, ``hosts``
    says what was done with each host.
    """

    archive: Path
    id: Digest
    images: int
    manifests: int
    blobs: int
    size: int
    volumes: tuple[str, ...]
    assumed: int
    assumed_bytes: int
    fetched: int
    fetched_bytes: int
    reused: int
    reused_bytes: int
    manifests_reused: int
    missing: tuple[Missing, ...]
    broken: tuple[str, ...]
    hosts: tuple[HostActivity, ...]

    @classmethod
    def of(
        cls,
        run: ExportRun,
        archive: ArchiveReader | ArchiveWriter | ForwardWriter,
        arrived: Sequence[Blob],
        failed: Mapping[int, str],
        details: Mapping[str, str],
    ) -> Self:
        """Say what an archive holds, and what a run has done for it.

        ``arrived`` are the blobs that it added; ``failed`` says why others are not there,
        ``details`` why the plan has holes.
        """
        plan = archive.plan
        missing = (*plan_holes(plan, details), *blob_holes(plan, failed))
        reused = [blob for blob in arrived if run.older.gave(blob.digest)]
        reused_bytes = sum(blob.size for blob in reused)
        return cls(
            archive=run.output,
            id=archive.id,
            images=len(plan.images),
            manifests=len(plan.manifests),
            blobs=len(plan.blobs),
            size=archive.layout.size,
            volumes=volume_names(run.output, archive.layout),
            assumed=len(plan.assumed),
            assumed_bytes=plan.assumed_bytes,
            fetched=len(arrived) - len(reused),
            fetched_bytes=sum(blob.size for blob in arrived) - reused_bytes,
            reused=len(reused),
            reused_bytes=reused_bytes,
            manifests_reused=len(run.older.manifests),
            missing=missing,
            broken=broken_packages(missing),
            hosts=run.client.activity(),
        )

    def status(self, *, skip_missing: bool = False) -> int:
        """Return 3 when there are holes, else 0; with ``skip_missing`` not-found is none."""
        return HOLES if counted(self.missing, skip_missing=skip_missing) else 0

    @property
    def exit_status(self) -> int:
        """3 when there are holes, else 0."""
        return self.status()


@dataclass(frozen=True)
class ExportPlan(Survey):
    """What an export would take, and what of it need not be fetched.

    Older archives have ``reused`` blobs, or that many bytes; ``assumed`` ones do not travel.
    """

    reused: int
    reused_bytes: int
    assumed: int
    assumed_bytes: int


def export(
    catalogs: Sequence[str],
    output: Path,
    *,
    access: Access | None = None,
    platform: str = DEFAULT_PLATFORM,
    part: Part | None = None,
    reuse: Sequence[Path] = (),
    since: Sequence[Path] = (),
    recheck: bool = False,
    continue_on_error: bool = True,
    volumes: VolumeOptions | None = None,
    zstd: int | None = None,
    window: int = DEFAULT_WINDOW,
    progress: Progress = SILENT,
    stop: threading.Event | None = None,
) -> ExportResult:
    """Put catalogs and everything they refer to into one archive at ``output``.

    Run again after anything short of success, it continues; on a finished archive it fills
    what is missing. ``platform`` is a regular expression that picks which variant of a catalog
    is read; all variants of all images are taken. Of what the catalogs offer, ``part`` may
    take less, and add more; the catalog images themselves stay as they are, unless it says
    otherwise. A catalog may be a local directory or database, and is then made into an image.
    What the finished archives ``reuse`` hold is copied from them, and not asked for. Blobs that
    the other side has, as the receipts and archives ``since`` say, do not travel. With
    ``recheck`` blobs that are in the archive already are hashed again. Without
    ``continue_on_error`` the first image that cannot be had ends the export, with the error
    that says why. ``volumes`` says how large the archive's files may be, and where they go:
    with a size they are called NAME.001.tar and so on. With a level ``zstd``, and also without
    when ``output`` is called NAME.tar.zst, it is compressed and written from front to back: up
    to ``window`` bytes of blobs wait in a temporary file, and a hole in it is not filled later.
    Setting ``stop`` ends it soon, with Interrupted.

    Raises AlreadyFinished (another question than a whole archive's, a moved tag), UsageError,
    RegistryError and Refused for the catalogs themselves, ArchiveError for those to reuse,
    MalformedContent for what is no receipt, StorageError (also before the first blob, when
    there is no room for all), Busy, Interrupted. An image that cannot be had raises nothing: it
    is in ``missing``.
    """
    volumes, level = volumes or VolumeOptions(), level_for(output, zstd)
    inquiry = Inquiry(catalogs, platform, part or Part())
    ready = _ready(inquiry, output, access, reuse, since, continue_on_error, progress, stop)
    with ready as begin, claim(output) as state:
        require_form_of_finished(output, compressed=level is not None)
        require_form_of_begun(output, compressed=level is not None)
        run = begin()
        if level is not None:
            if volumes.size:
                raise UsageError(
                    "volumes are not compressed",
                    hint="Give -o NAME.tar without --zstd; or export, and cut the archive with"
                    " `airgap split`.",
                )
            return _compress(run, state, level, window, recheck=recheck)
        require_a_size(output, volumes, state)
        details: dict[str, str] = {}
        believe = True
        if output.exists():
            _refuse_to_cut(output, volumes)
            if run.is_complete(output):
                return _nothing_to_do(run, output)
            reopen(output)
            believe = not recheck
        elif partial_path(output).exists():
            run.check_unfinished()
            believe = state.same_boot and not recheck
        elif finished := volumes_in(Media(output, volumes).named()):
            if run.is_complete(finished):
                return _nothing_to_do(run, finished)
            run.reopen(finished, state)
        else:
            details = run.plan()
        files = growing_files(output, volumes, state, progress.say)
        with ArchiveWriter(output, state, run.stop, believe=believe, files=files) as archive:
            archive.require_room()
            to_come = archive.to_come
            failed = run.fetch(archive, to_come)
            archive.finish()
        return _result(run, archive, to_come, failed, details)


def _compress(
    run: ExportRun, state: State, level: int, window: int, *, recheck: bool
) -> ExportResult:
    """Write the archive compressed, from front to back, or go on where one was cut off."""
    output = run.output
    if output.exists():
        if run.is_complete(output):
            return _sized(_nothing_to_do(run, output))
        raise AlreadyFinished(
            f"{output}: has holes, and what is compressed is not filled in place",
            hint=MAKE_A_NEW_ONE,
        )
    begun = run.begun(believe=state.same_boot and not recheck)
    state.believe()
    work = Work(work_path(output))
    head, details = None, dict[str, str]()
    if begun is None:
        found = run.ask(work)
        head, details = Head(found.plan, work), found.details
        begun = Begun(head.id, head.plan, head.layout)
    file = FileOutput(partial_path(output), begun.frames.end)
    compressed = SeekableOutput(file, begun.frames, level=level)
    with closing(file), begun.writer(compressed, window) as archive:
        if head:
            archive.begin(head)
        to_come = still_to_come(begun.plan, work, archive.next)
        failed = run.send(archive, work, to_come)
        archive.finish()
    with storage_errors(output):
        partial_path(output).replace(output)
        sync_directory(output.parent)
    work.remove()
    return _sized(_result(run, archive, to_come, failed, details))


def export_stream(
    catalogs: Sequence[str],
    stream: BinaryIO,
    *,
    zstd: int | None = None,
    window: int = DEFAULT_WINDOW,
    access: Access | None = None,
    platform: str = DEFAULT_PLATFORM,
    part: Part | None = None,
    reuse: Sequence[Path] = (),
    since: Sequence[Path] = (),
    continue_on_error: bool = True,
    progress: Progress = SILENT,
    stop: threading.Event | None = None,
) -> ExportResult:
    """Write the archive that ``export`` would make to an open stream, from front to back.

    ``stream`` has a descriptor and is never sought in. With a level ``zstd`` it is compressed.
    ``window`` says how many bytes of blobs wait in a temporary file until all before them have
    left; a larger blob leaves as it comes. A stream does not resume.

    Raises what ``export`` raises for the catalogs and the archives to reuse; StorageError also
    when nobody reads any more.
    """
    inquiry = Inquiry(catalogs, platform, part or Part())
    with (
        temporary_directory() as folder,
        _ready(
            inquiry, folder / "archive", access, reuse, since, continue_on_error, progress, stop
        ) as begin,
    ):
        run = begin()
        work = Work(work_path(run.output))
        found = run.ask(work)
        sent = StreamOutput(stream.fileno(), _STREAM.name)
        output = sent if zstd is None else SeekableOutput(sent, level=zstd)
        head = Head(found.plan, work)
        with ForwardWriter(head.id, head.plan, head.layout, output, window) as archive:
            archive.begin(head)
            to_come = still_to_come(found.plan, work)
            try:
                failed = run.send(archive, work, to_come)
            except Interrupted as error:
                error.hint = "A stream does not resume: run both sides again."
                raise
            archive.finish()
            result = _result(run, archive, to_come, failed, found.details)
            return replace(result, archive=_STREAM, size=sent.written)


def plan_export(
    catalogs: Sequence[str],
    output: Path,
    *,
    access: Access | None = None,
    platform: str = DEFAULT_PLATFORM,
    part: Part | None = None,
    reuse: Sequence[Path] = (),
    since: Sequence[Path] = (),
    continue_on_error: bool = True,
    progress: Progress = SILENT,
    stop: threading.Event | None = None,
) -> ExportPlan:
    """Ask and decide what an export would take; the export that follows does not ask again.

    Raises what ``export`` raises for the catalogs and for the archives to reuse, UsageError
    when the archive is begun.
    """
    inquiry = Inquiry(catalogs, platform, part or Part())
    ready = _ready(inquiry, output, access, reuse, since, continue_on_error, progress, stop)
    with ready as begin, claim(output):
        if output.exists() or partial_path(output).exists():
            raise UsageError(
                f"{output}: exists already, its plan is made",
                hint=f"`airgap inspect {output}` shows it.",
            )
        run = begin()
        found = run.ask(Work(work_path(output)))
        plan = found.plan
        travelling = [blob for blob in plan.blobs if not blob.held]
        reused = [blob.size for blob in travelling if run.older.holds(blob.digest, blob.size)]
        assumed = len(plan.assumed), plan.assumed_bytes
        return ExportPlan(plan, found.details, len(reused), sum(reused), *assumed)


@contextmanager
def _ready(
    inquiry: Inquiry,
    output: Path,
    access: Access | None,
    reuse: Sequence[Path],
    since: Sequence[Path],
    continue_on_error: bool,
    progress: Progress,
    stop: threading.Event | None,
) -> Iterator[Callable[[], ExportRun]]:
    """Have older archives and registries at hand; give what begins a run that uses them."""
    refuse_inside(inquiry.catalogs, output)
    access, stop = access or Access(), stop or threading.Event()
    held = held_by(since)
    with (
        _open_older(reuse, output, progress) as older,
        access.connect(inquiry.hosts, stop) as client,
    ):

        def begin() -> ExportRun:
            asked = understood(inquiry, output, client, older, progress)
            return ExportRun(output, asked, client, older, held, continue_on_error, progress, stop)

        yield begin


def _open_older(reuse: Sequence[Path], output: Path, progress: Progress) -> OlderArchives:
    for path in reuse:
        if os.path.realpath(path) == os.path.realpath(output):
            raise UsageError(
                f"{path}: is the archive to be written, and cannot be reused for itself",
                hint="Give another -o FILE; or leave --reuse out, and it is continued.",
            )
    return OlderArchives(reuse, progress.say)


def _refuse_to_cut(output: Path, volumes: VolumeOptions) -> None:
    if volumes.size:
        raise UsageError(
            f"{output}: is there already, in one file",
            hint=f"`airgap split {output} --volume-size {volumes.size}` cuts it.",
        )


def _result(
    run: ExportRun,
    archive: ArchiveWriter | ForwardWriter,
    to_come: Sequence[int],
    failed: Mapping[int, AirgapError],
    details: Mapping[str, str],
) -> ExportResult:
    """Say what the archive holds now, and what this run brought of what was to come."""
    missing = {n: failed[n].message if n in failed else "" for n in archive.missing}
    arrived = [archive.plan.blobs[n] for n in sorted(set(to_come).difference(missing))]
    return ExportResult.of(run, archive, arrived, missing, details)


def _nothing_to_do(run: ExportRun, paths: Paths) -> ExportResult:
    """Say what the finished archive holds."""
    with ArchiveReader(paths) as archive:
        run.progress.say(f"{run.output}: finished already, nothing to do")
        return ExportResult.of(run, archive, (), {}, {})


def _sized(result: ExportResult) -> ExportResult:
    """Say the size of the compressed file, not that of what is in it."""
    with storage_errors(result.archive):
        return replace(result, size=result.archive.stat().st_size)
