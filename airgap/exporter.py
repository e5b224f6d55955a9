"""Export: a question, its plan, and an archive that holds all the plan names."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airgap.archive.growing import growing_files
from airgap.archive.medium import Media, VolumeOptions, volume_names
from airgap.archive.reader import ArchiveReader, partial_path
from airgap.archive.work import Work, work_path
from airgap.archive.writer import ArchiveWriter, begin_again, claim, reopen, write_head
from airgap.asking import Asker
from airgap.errors import (
    HOLES,
    IntegrityError,
    RegistryError,
    UsageError,
    printable,
)
from airgap.inquiry import Inquiry
from airgap.local_catalogs import refuse_inside
from airgap.plan import Missing, Plan, Question, blob_holes, counted, plan_holes
from airgap.planner import Survey, survey
from airgap.progress import SILENT
from airgap.question import DEFAULT_PLATFORM, Part, difference, in_words
from airgap.reference import ImageReference
from airgap.registry.access import Access
from airgap.registry.source import RegistrySource
from airgap.storage import temporary_directory
from airgap.transfer import Outcome, transfer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from airgap.archive.reader import Paths
    from airgap.archive.state import State
    from airgap.digest import Digest
    from airgap.inquiry import Understood
    from airgap.progress import Progress
    from airgap.registry.client import RegistryClient


@dataclass(frozen=True)
class ExportResult:
    """What an export left behind; sizes in bytes.

    ``id`` is the digest of the inventory, ``volumes`` the names of its files when it is in
    several. ``fetched`` counts the blobs this run added, of ``fetched_bytes``; the others were
    there already.
    """

    archive: Path
    id: Digest
    images: int
    manifests: int
    blobs: int
    size: int
    volumes: tuple[str, ...]
    fetched: int
    fetched_bytes: int
    missing: tuple[Missing, ...]

    def status(self, *, skip_missing: bool = False) -> int:
        """Return 3 when there are holes, else 0; with ``skip_missing`` not-found is none."""
        return HOLES if counted(self.missing, skip_missing=skip_missing) else 0

    @property
    def exit_status(self) -> int:
        """3 when there are holes, else 0."""
        return self.status()


def export(
    catalogs: Sequence[str],
    output: Path,
    *,
    access: Access | None = None,
    platform: str = DEFAULT_PLATFORM,
    part: Part | None = None,
    recheck: bool = False,
    continue_on_error: bool = True,
    volumes: VolumeOptions | None = None,
    progress: Progress = SILENT,
    stop: threading.Event | None = None,
) -> ExportResult:
    """Put catalogs and everything they refer to into one archive at ``output``.

    Run again after anything short of success, it continues; on a finished archive it fills
    what is missing. ``platform`` is a regular expression that picks which variant of a catalog
    is read; all variants of all images are taken. Of what the catalogs offer, ``part`` may
    take less, and add more; the catalog images themselves stay as they are, unless it says
    otherwise. A catalog may be a local directory or database, and is then made into an image.
    With ``recheck`` blobs that are in an unfinished archive are hashed again. Without
    ``continue_on_error`` the first image that cannot be had ends the export, with the error
    that says why. ``volumes`` says how large the archive's files may be, and where they go:
    with a size they are called NAME.001.tar and so on. Setting ``stop`` ends it soon, with
    Interrupted.

    Raises UsageError (another question than the archive's, a moved tag), RegistryError and
    Refused for the catalogs themselves, StorageError, Busy, Interrupted. An image that cannot
    be had raises nothing: it is in ``missing``.
    """
    inquiry = Inquiry(catalogs, platform, part or Part())
    refuse_inside(catalogs, output)
    access, stop = access or Access(), stop or threading.Event()
    volumes = volumes or VolumeOptions()
    with access.connect(inquiry.hosts, stop) as client, claim(output) as state:
        run = _Run.of(
            output, inquiry, client, access.connections, continue_on_error, progress, stop
        )
        details: dict[str, str] = {}
        believe = True
        if output.exists():
            _refuse_to_cut(output, volumes)
            if run.is_complete(output):
                return run.nothing_to_do(output)
            reopen(output)
        elif partial_path(output).exists():
            run.check_unfinished()
            believe = state.same_boot and not recheck
        elif finished := Media(output, volumes).finished():
            if run.is_complete(finished):
                return run.nothing_to_do(finished)
            run.reopen(finished, state)
        else:
            details = run.plan()
        files = growing_files(output, volumes, state, progress.say)
        with ArchiveWriter(output, state, stop, believe=believe, files=files) as archive:
            outcome = run.fetch(archive)
            archive.finish()
        return run.result(archive, outcome, details)


def plan_export(
    catalogs: Sequence[str],
    output: Path,
    *,
    access: Access | None = None,
    platform: str = DEFAULT_PLATFORM,
    part: Part | None = None,
    continue_on_error: bool = True,
    progress: Progress = SILENT,
    stop: threading.Event | None = None,
) -> Survey:
    """Ask and decide what an export would take; the export that follows does not ask again.

    Raises what ``export`` raises for the catalogs, UsageError when the archive is begun.
    """
    inquiry = Inquiry(catalogs, platform, part or Part())
    refuse_inside(catalogs, output)
    access, stop = access or Access(), stop or threading.Event()
    with access.connect(inquiry.hosts, stop) as client, claim(output):
        if output.exists() or partial_path(output).exists():
            raise UsageError(
                f"{output}: exists already, its plan is made",
                hint=f"`airgap inspect {output}` shows it.",
            )
        run = _Run.of(
            output, inquiry, client, access.connections, continue_on_error, progress, stop
        )
        return run.ask(Work(work_path(output)))


def _refuse_to_cut(output: Path, volumes: VolumeOptions) -> None:
    if volumes.size:
        raise UsageError(
            f"{output}: is there already, in one file",
            hint=f"`airgap split {output} --volume-size {volumes.size}` cuts it.",
        )


@dataclass
class _Run:
    """The steps of one export, with what all of them need."""

    output: Path
    asked: Understood
    client: RegistryClient
    workers: int
    continue_on_error: bool
    progress: Progress
    stop: threading.Event

    @classmethod
    def of(
        cls,
        output: Path,
        inquiry: Inquiry,
        client: RegistryClient,
        workers: int,
        continue_on_error: bool,
        progress: Progress,
        stop: threading.Event,
    ) -> _Run:
        """Understand what is asked. Raises UsageError and what local catalogs raise."""
        with ExitStack() as stack:
            folder = work_path(output)
            if output.exists() or partial_path(output).exists():
                # Local catalogs are made once more, to know them again.
                folder = stack.enter_context(temporary_directory())
            asked = inquiry.understood(lambda: Asker(client, Work(folder)), progress)
        return cls(output, asked, client, workers, continue_on_error, progress, stop)

    @property
    def question(self) -> Question:
        """What is asked."""
        return self.asked.question

    def plan(self) -> dict[str, str]:
        """Ask, decide, and write the archive's head; return what was said of the holes."""
        work = Work(work_path(self.output))
        found = self.ask(work)
        self.progress.stage("laying out the archive")
        write_head(self.output, found.plan, work)
        work.remove()
        return found.details

    def ask(self, work: Work) -> Survey:
        """Find out what there is to take; what is learned stays in the work directory."""
        pins = {text: pin.digest for text in self.question.catalogs if (pin := work.pinned(text))}
        self._say_what_moved(pins)
        return survey(
            self.question,
            Asker(self.client, work),
            made=self.asked.made,
            listed=self.asked.listed,
            workers=self.workers,
            continue_on_error=self.continue_on_error,
            progress=self.progress,
            stop=self.stop,
        )

    def is_complete(self, paths: Paths) -> bool:
        """Say whether the finished archive is the answer to the question, without blob holes."""
        self._clear_work()
        with ArchiveReader(paths) as archive:
            archive.require_sound_head()
            self._require_same_question(archive.plan)
            for text, digest in _pins(archive.plan).items():
                if (now := self._now(text)) != digest:
                    raise UsageError(
                        f"{self.output}: holds {text} as it was at {digest}; it is now at {now}",
                        hint="An archive does not change what it holds: export to a new file.",
                    )
            return not archive.holes

    def reopen(self, finished: Sequence[Path], state: State) -> None:
        """Make finished volumes grow again; those that are not here stay as they are."""
        with ArchiveReader(finished) as archive:
            for volume in archive.lacking:
                self.progress.say(f"{self.output}: volume {volume.number} is not here")
                state.volume(volume.number, ())
            begin_again(self.output, archive)
            state.cut(archive.layout.limit or 0)

    def check_unfinished(self) -> None:
        """Make sure that an unfinished archive is for this question; say what has moved."""
        self._clear_work()
        with ArchiveReader(partial_path(self.output), unfinished=True) as archive:
            self._require_same_question(archive.plan)
            self._say_what_moved(_pins(archive.plan))

    def fetch(self, archive: ArchiveWriter) -> Outcome:
        """Bring every blob that is not in the archive yet."""
        plan, missing = archive.plan, archive.to_come
        self.progress.stage(
            "fetching blobs",
            total_bytes=sum(plan.blobs[number].size for number in missing),
            total_images=len(plan.images),
        )
        try:
            source = RegistrySource(self.client, plan)
            outcome = transfer(
                plan,
                plan.images,
                source,
                archive,
                workers=self.workers,
                progress=self.progress,
                stop=self.stop,
                is_fatal=lambda error: not self.continue_on_error,
                skip=frozenset(range(len(plan.blobs))) - frozenset(missing),
            )
            for number, error in outcome.failed_blobs.items():
                if isinstance(error, IntegrityError):
                    # A hash knows what is wrong, and not where it came from.
                    told = f"{source.origin(plan.blobs[number])}: {error.message}"
                    outcome.failed_blobs[number] = IntegrityError(told)
            return outcome
        finally:
            self.progress.finish()
            archive.save()

    def result(
        self, archive: ArchiveWriter, outcome: Outcome, details: dict[str, str]
    ) -> ExportResult:
        """Say what the archive holds now and what this run brought."""
        failed = {
            number: outcome.failed_blobs[number].message if number in outcome.failed_blobs else ""
            for number in archive.missing
        }
        return _result(self.output, archive, outcome, failed, details)

    def nothing_to_do(self, paths: Paths) -> ExportResult:
        """Say what the finished archive holds."""
        with ArchiveReader(paths) as archive:
            self.progress.say(f"{self.output}: finished already, nothing to do")
            return _result(self.output, archive, Outcome(), {}, {})

    def _clear_work(self) -> None:
        """Remove what was learned for the plan: once there is one, the archive holds it."""
        if work_path(self.output).exists():
            Work(work_path(self.output)).remove()

    def _require_same_question(self, plan: Plan) -> None:
        if plan.question != self.question:
            self.asked.require_unchanged(plan.question, self.output)
            begun = printable(", ".join(in_words(plan.question)), 1000)
            differs = printable(difference(plan.question, self.question), 1000)
            raise UsageError(
                f"{self.output}: was begun for another question: {begun}; {differs}",
                hint="Give another -o FILE, or remove it with its .partial, .state and .work.",
            )

    def _say_what_moved(self, pins: dict[str, Digest]) -> None:
        for text, digest in pins.items():
            self.progress.say(f"{self.output}: continuing with {text} at {digest}")
            try:
                now = self._now(text)
            except RegistryError as error:
                self.progress.say(f"could not ask where {text} is now: {error.message}")
            else:
                if now != digest:
                    self.progress.say(f"{text} has moved to {now} since; export that to a new file")

    def _now(self, text: str) -> Digest:
        reference = ImageReference.parse(text)
        return reference.digest or self.client.manifest(reference).digest


def _pins(plan: Plan) -> dict[str, Digest]:
    return {c.pin.reference: c.pin.digest for c in plan.catalogs if c.pin is not None}


def _result(
    output: Path,
    archive: ArchiveReader | ArchiveWriter,
    outcome: Outcome,
    failed: dict[int, str],
    details: dict[str, str],
) -> ExportResult:
    plan = archive.plan
    return ExportResult(
        archive=output,
        id=archive.id,
        images=len(plan.images),
        manifests=len(plan.manifests),
        blobs=len(plan.blobs),
        size=archive.layout.size,
        volumes=volume_names(output, archive.layout),
        fetched=outcome.sent,
        fetched_bytes=outcome.sent_bytes,
        missing=(*plan_holes(plan, details), *blob_holes(plan, failed)),
    )
