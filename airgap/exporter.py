"""Export: a question, its plan, and an archive that holds all the plan names."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from airgap import limits
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
from airgap.archive.older import OlderArchives, Recollection
from airgap.archive.output import FileOutput, StreamOutput
from airgap.archive.reader import ArchiveReader, partial_path
from airgap.archive.seekable import SeekableOutput
from airgap.archive.volumes import volumes_in
from airgap.archive.work import Work, work_path
from airgap.archive.writer import ArchiveWriter, begin_again, claim, reopen, write_head
from airgap.asking import Asker
from airgap.errors import (
    HOLES,
    AirgapError,
    AlreadyFinished,
    IntegrityError,
    Interrupted,
    RegistryError,
    UsageError,
    printable,
)
from airgap.inquiry import Inquiry
from airgap.local_catalogs import refuse_inside
from airgap.plan import (
    Missing,
    Plan,
    Question,
    assuming,
    blob_holes,
    broken_packages,
    counted,
    plan_holes,
)
from airgap.planner import Survey, survey
from airgap.progress import SILENT
from airgap.question import DEFAULT_PLATFORM, Part, difference, in_words
from airgap.reference import ImageReference
from airgap.registry.access import Access
from airgap.registry.source import RegistrySource
from airgap.sending import send
from airgap.since import held_by
from airgap.storage import storage_errors, sync_directory, temporary_directory
from airgap.transfer import transfer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from airgap.archive.reader import Paths
    from airgap.archive.state import State
    from airgap.digest import Digest
    from airgap.inquiry import Understood
    from airgap.plan import Blob
    from airgap.progress import Progress
    from airgap.registry.account import HostActivity
    from airgap.registry.client import RegistryClient

_STREAM = Path("standard output")

_MAKE_A_NEW_ONE = "An archive does not change what it holds: export to a new file, reusing this."


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
    ready = _ready(
        catalogs, output, access, platform, part, reuse, since, continue_on_error, progress, stop
    )
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
            return run.compress(state, level, window, recheck=recheck)
        require_a_size(output, volumes, state)
        details: dict[str, str] = {}
        believe = True
        if output.exists():
            _refuse_to_cut(output, volumes)
            if run.is_complete(output):
                return run.nothing_to_do(output)
            reopen(output)
            believe = not recheck
        elif partial_path(output).exists():
            run.check_unfinished()
            believe = state.same_boot and not recheck
        elif finished := volumes_in(Media(output, volumes).named()):
            if run.is_complete(finished):
                return run.nothing_to_do(finished)
            run.reopen(finished, state)
        else:
            details = run.plan()
        files = growing_files(output, volumes, state, progress.say)
        with ArchiveWriter(output, state, run.stop, believe=believe, files=files) as archive:
            archive.require_room()
            to_come = archive.to_come
            failed = run.fetch(archive, to_come)
            archive.finish()
        return run.result(archive, to_come, failed, details)


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
    with (
        temporary_directory() as folder,
        _ready(
            catalogs, folder / "archive", access, platform, part, reuse, since,
            continue_on_error, progress, stop,
        ) as begin,
    ):  # fmt: skip
        run = begin()
        work = Work(work_path(run.output))
        found = run.ask(work)
        sent = StreamOutput(stream.fileno(), _STREAM.name)
        output = sent if zstd is None else SeekableOutput(sent, level=zstd)
        head = Head(found.plan, work)
        with ForwardWriter(head.id, head.plan, head.layout, output, window) as archive:
            archive.begin(head)
            to_come = _to_come(found.plan, work)
            try:
                failed = run.send(archive, work, to_come)
            except Interrupted as error:
                error.hint = "A stream does not resume: run both sides again."
                raise
            archive.finish()
            result = run.result(archive, to_come, failed, found.details)
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
    ready = _ready(
        catalogs, output, access, platform, part, reuse, since, continue_on_error, progress, stop
    )
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
    catalogs: Sequence[str],
    output: Path,
    access: Access | None,
    platform: str,
    part: Part | None,
    reuse: Sequence[Path],
    since: Sequence[Path],
    continue_on_error: bool,
    progress: Progress,
    stop: threading.Event | None,
) -> Iterator[Callable[[], _Run]]:
    """Have older archives and registries at hand; give what begins a run that uses them."""
    inquiry = Inquiry(catalogs, platform, part or Part())
    refuse_inside(catalogs, output)
    access, stop = access or Access(), stop or threading.Event()
    held = held_by(since)
    with (
        _open_older(reuse, output, progress) as older,
        access.connect(inquiry.hosts, stop) as client,
    ):
        yield partial(
            _Run.of, output, inquiry, client, older, held, continue_on_error, progress, stop
        )


def _to_come(plan: Plan, work: Work, first: int = 0) -> list[int]:
    """Return the blobs from the first on that travel and are still to be fetched."""
    left = range(first, len(plan.blobs))
    return [n for n in left if n not in plan.assumed and not work.holds(plan.blobs[n].digest)]


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


@dataclass
class _Run:
    """The steps of one export, with what all of them need."""

    output: Path
    asked: Understood
    client: RegistryClient
    older: OlderArchives
    held: Mapping[Digest, Collection[Digest]]
    continue_on_error: bool
    progress: Progress
    stop: threading.Event

    @classmethod
    def of(
        cls,
        output: Path,
        inquiry: Inquiry,
        client: RegistryClient,
        older: OlderArchives,
        held: Mapping[Digest, Collection[Digest]],
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

            def asker() -> Asker:
                return Asker(client, Recollection(Work(folder), older))

            asked = inquiry.understood(asker, progress)
        return cls(output, asked, client, older, held, continue_on_error, progress, stop)

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
        found = survey(
            self.question,
            Asker(self.client, Recollection(work, self.older)),
            made=self.asked.made,
            listed=self.asked.listed,
            continue_on_error=self.continue_on_error,
            progress=self.progress,
            stop=self.stop,
        )
        return replace(found, plan=assuming(found.plan, self.held))

    def is_complete(self, paths: Paths) -> bool:
        """Say whether the finished archive is the answer to the question, without blob holes."""
        self._clear_work()
        with ArchiveReader(paths) as archive:
            archive.require_sound_head()
            if differs := self._difference(archive.plan):
                raise AlreadyFinished(f"{self.output}: {differs}", hint=_MAKE_A_NEW_ONE)
            for text, digest in _pins(archive.plan).items():
                if (now := self._now(text)) != digest:
                    raise AlreadyFinished(
                        f"{self.output}: holds {text} as it was at {digest}; it is now at {now}",
                        hint=_MAKE_A_NEW_ONE,
                    )
            return not archive.holes

    def compress(self, state: State, level: int, window: int, *, recheck: bool) -> ExportResult:
        """Write the archive compressed, from front to back, or go on where one was cut off."""
        if self.output.exists():
            if self.is_complete(self.output):
                return self._sized(self.nothing_to_do(self.output))
            raise AlreadyFinished(
                f"{self.output}: has holes, and what is compressed is not filled in place",
                hint=_MAKE_A_NEW_ONE,
            )
        begun = self._begun(believe=state.same_boot and not recheck)
        state.believe()
        work = Work(work_path(self.output))
        head, details = None, dict[str, str]()
        if begun is None:
            found = self.ask(work)
            head, details = Head(found.plan, work), found.details
            begun = Begun(head.id, head.plan, head.layout)
        file = FileOutput(partial_path(self.output), begun.frames.end)
        output = SeekableOutput(file, begun.frames, level=level)
        with closing(file), begun.writer(output, window) as archive:
            if head:
                archive.begin(head)
            to_come = _to_come(begun.plan, work, archive.next)
            failed = self.send(archive, work, to_come)
            archive.finish()
        with storage_errors(self.output):
            partial_path(self.output).replace(self.output)
            sync_directory(self.output.parent)
        work.remove()
        return self._sized(self.result(archive, to_come, failed, details))

    def _sized(self, result: ExportResult) -> ExportResult:
        """Say the size of the compressed file, not that of what is in it."""
        with storage_errors(self.output):
            return replace(result, size=self.output.stat().st_size)

    def _begun(self, *, believe: bool) -> Begun | None:
        """Return what there is of a compressed archive, None when its head is not whole."""
        if not partial_path(self.output).exists():
            return None
        begun = Begun.found(partial_path(self.output), believe=believe)
        if begun is None:
            return None
        if differs := self._difference(begun.plan):
            raise UsageError(
                f"{self.output}: {differs}",
                hint="Give another -o FILE, or remove it with its .partial, .state and .work.",
            )
        self._say_what_moved(_pins(begun.plan))
        return begun

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
            if differs := self._difference(archive.plan):
                raise UsageError(
                    f"{self.output}: {differs}",
                    hint="Give another -o FILE, or remove it with its .partial, .state and .work.",
                )
            self._say_what_moved(_pins(archive.plan))

    def fetch(self, archive: ArchiveWriter, to_come: Sequence[int]) -> dict[int, AirgapError]:
        """Bring the blobs that are not in the archive yet; return those that failed."""
        plan = archive.plan
        registries = self._begin_fetching(plan, to_come)
        try:
            outcome = transfer(
                plan,
                plan.images,
                _Source(self.older, registries),
                archive,
                lanes=self.client.pace,
                progress=self.progress,
                stop=self.stop,
                is_fatal=self._is_fatal,
                skip=frozenset(range(len(plan.blobs))) - frozenset(to_come),
            )
            return _with_origins(plan, registries, outcome.failed_blobs)
        finally:
            self.progress.finish()
            archive.save()

    def send(
        self, archive: ForwardWriter, work: Work, to_come: Sequence[int]
    ) -> dict[int, AirgapError]:
        """Bring all blobs in the archive's order; return those that failed."""
        plan = archive.plan
        registries = self._begin_fetching(plan, to_come)
        try:
            failed = send(
                archive,
                _Learned(work, _Source(self.older, registries)),
                lanes=self.client.pace,
                progress=self.progress,
                stop=self.stop,
                is_fatal=self._is_fatal,
            )
            return _with_origins(plan, registries, failed)
        finally:
            self.progress.finish()

    def _begin_fetching(self, plan: Plan, to_come: Sequence[int]) -> RegistrySource:
        """Say what is to be fetched, and return where from."""
        blobs = [plan.blobs[number] for number in to_come]
        if held := [blob for blob in blobs if self.older.holds(blob.digest, blob.size)]:
            self.progress.say(f"copying {len(held)} of {len(blobs)} blobs from older archives")
        self.progress.stage(
            "fetching blobs",
            total_bytes=sum(blob.size for blob in blobs),
            total_images=len(plan.images),
        )
        return RegistrySource(self.client, plan)

    def _is_fatal(self, error: AirgapError) -> bool:
        return not self.continue_on_error

    def result(
        self,
        archive: ArchiveWriter | ForwardWriter,
        to_come: Sequence[int],
        failed: dict[int, AirgapError],
        details: dict[str, str],
    ) -> ExportResult:
        """Say what the archive holds now and what this run brought."""
        missing = {n: failed[n].message if n in failed else "" for n in archive.missing}
        arrived = [archive.plan.blobs[n] for n in sorted(set(to_come).difference(missing))]
        return self._result(archive, arrived, missing, details)

    def nothing_to_do(self, paths: Paths) -> ExportResult:
        """Say what the finished archive holds."""
        with ArchiveReader(paths) as archive:
            self.progress.say(f"{self.output}: finished already, nothing to do")
            return self._result(archive, (), {}, {})

    def _result(
        self,
        archive: ArchiveReader | ArchiveWriter | ForwardWriter,
        arrived: Sequence[Blob],
        failed: dict[int, str],
        details: dict[str, str],
    ) -> ExportResult:
        plan = archive.plan
        missing = (*plan_holes(plan, details), *blob_holes(plan, failed))
        reused = [blob for blob in arrived if self.older.gave(blob.digest)]
        reused_bytes = sum(blob.size for blob in reused)
        return ExportResult(
            archive=self.output,
            id=archive.id,
            images=len(plan.images),
            manifests=len(plan.manifests),
            blobs=len(plan.blobs),
            size=archive.layout.size,
            volumes=volume_names(self.output, archive.layout),
            assumed=len(plan.assumed),
            assumed_bytes=plan.assumed_bytes,
            fetched=len(arrived) - len(reused),
            fetched_bytes=sum(blob.size for blob in arrived) - reused_bytes,
            reused=len(reused),
            reused_bytes=reused_bytes,
            manifests_reused=len(self.older.manifests),
            missing=missing,
            broken=broken_packages(missing),
            hosts=self.client.activity(),
        )

    def _clear_work(self) -> None:
        """Remove what was learned for the plan: once there is one, the archive holds it."""
        if work_path(self.output).exists():
            Work(work_path(self.output)).remove()

    def _difference(self, plan: Plan) -> str:
        """Say what is asked now that an archive's plan does not answer, "" for nothing."""
        if plan.question == self.question:
            # What is assumed is no part of the question, and must be the same all the same.
            same = assuming(plan, self.held).blobs == plan.blobs
            return "" if same else "leaves out other blobs than --since says now"
        if changed := self.asked.changed_here(plan.question):
            return f"holds {changed}"
        begun = printable(", ".join(in_words(plan.question)), 1000)
        differs = printable(difference(plan.question, self.question), 1000)
        return f"was begun for another question: {begun}; {differs}"

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


@dataclass(frozen=True)
class _Source:
    """Where blobs come from: older archives, and registries for what these lack."""

    older: OlderArchives
    registries: RegistrySource

    def lane(self, blob: Blob) -> str:
        """Return the registry that a blob comes from, "" when an older archive has it."""
        is_here = self.older.holds(blob.digest, blob.size)
        return "" if is_here else self.registries.lane(blob)

    def blob(self, blob: Blob, offset: int) -> Iterator[bytes]:
        """Yield a blob's bytes from ``offset`` on, unchecked. Raises as registries do."""
        ask = partial(self.registries.blob, blob)
        return self.older.blob(blob.digest, blob.size, offset, ask)


@dataclass(frozen=True)
class _Learned:
    """Blobs that planning has brought already, and where the others come from."""

    work: Work
    others: _Source

    def lane(self, blob: Blob) -> str:
        """Return the registry that a blob comes from, "" when it is here."""
        return "" if self.work.holds(blob.digest) else self.others.lane(blob)

    def blob(self, blob: Blob, offset: int) -> Iterator[bytes]:
        """Yield a blob's bytes from ``offset`` on, unchecked. Raises as registries do."""
        if not self.work.holds(blob.digest):
            yield from self.others.blob(blob, offset)
            return
        with self.work.open(blob.digest) as file:
            file.seek(offset)
            while piece := file.read(limits.CHUNK):
                yield piece


def _with_origins(
    plan: Plan, registries: RegistrySource, failed: dict[int, AirgapError]
) -> dict[int, AirgapError]:
    """Add to errors where a blob came from: a hash knows what is wrong, and not that."""
    return {
        number: IntegrityError(f"{registries.origin(plan.blobs[number])}: {error.message}")
        if isinstance(error, IntegrityError)
        else error
        for number, error in failed.items()
    }


def _pins(plan: Plan) -> dict[str, Digest]:
    return {c.pin.reference: c.pin.digest for c in plan.catalogs if c.pin is not None}
