"""The steps of one export, whatever is done with what they bring.

Knows what is asked, whether an archive is the answer to it, and which of older archives,
planning and registries gives a blob. Refuses to know the order of the steps, and what is said
of them in the end.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from airgap import limits
from airgap.archive.compressed import Begun
from airgap.archive.older import OlderArchives, Recollection
from airgap.archive.reader import ArchiveReader, partial_path
from airgap.archive.work import Work, work_path
from airgap.archive.writer import begin_again, write_head
from airgap.asking import Asker
from airgap.errors import (
    AirgapError,
    AlreadyFinished,
    IntegrityError,
    RegistryError,
    UsageError,
    printable,
)
from airgap.plan import assuming
from airgap.planner import Survey, survey
from airgap.question import difference, in_words
from airgap.reference import ImageReference
from airgap.registry.source import RegistrySource
from airgap.sending import send
from airgap.storage import temporary_directory
from airgap.transfer import transfer

if TYPE_CHECKING:
    import threading
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from airgap.archive.forward import ForwardWriter
    from airgap.archive.reader import Paths
    from airgap.archive.state import State
    from airgap.archive.writer import ArchiveWriter
    from airgap.digest import Digest
    from airgap.inquiry import Inquiry, Understood
    from airgap.plan import Blob, Plan, Question
    from airgap.progress import Progress
    from airgap.registry.client import RegistryClient

MAKE_A_NEW_ONE = "An archive does not change what it holds: export to a new file, reusing this."
"""What to do about an archive that is finished, and is not what is wanted."""


def understood(
    inquiry: Inquiry,
    output: Path,
    client: RegistryClient,
    older: OlderArchives,
    progress: Progress,
) -> Understood:
    """Return what is asked. Raises UsageError and what local catalogs raise."""
    with ExitStack() as stack:
        folder = work_path(output)
        if output.exists() or partial_path(output).exists():
            # Local catalogs are made once more, to know them again.
            folder = stack.enter_context(temporary_directory())

        def asker() -> Asker:
            return Asker(client, Recollection(Work(folder), older))

        return inquiry.understood(asker, progress)


@dataclass(frozen=True)
class ExportRun:
    """The steps of one export, with what all of them need."""

    output: Path
    asked: Understood
    client: RegistryClient
    older: OlderArchives
    held: Mapping[Digest, Collection[Digest]]
    continue_on_error: bool
    progress: Progress
    stop: threading.Event

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
                raise AlreadyFinished(f"{self.output}: {differs}", hint=MAKE_A_NEW_ONE)
            for text, digest in _pins(archive.plan).items():
                if (now := self._now(text)) != digest:
                    raise AlreadyFinished(
                        f"{self.output}: holds {text} as it was at {digest}; it is now at {now}",
                        hint=MAKE_A_NEW_ONE,
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
            self._go_on_with(archive.plan)

    def begun(self, *, believe: bool) -> Begun | None:
        """Return what there is of a compressed archive, None when its head is not whole."""
        if not partial_path(self.output).exists():
            return None
        begun = Begun.found(partial_path(self.output), believe=believe)
        if begun is not None:
            self._go_on_with(begun.plan)
        return begun

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

    def _clear_work(self) -> None:
        """Remove what was learned for the plan: once there is one, the archive holds it."""
        if work_path(self.output).exists():
            Work(work_path(self.output)).remove()

    def _go_on_with(self, plan: Plan) -> None:
        if differs := self._difference(plan):
            raise UsageError(
                f"{self.output}: {differs}",
                hint="Give another -o FILE, or remove it with its .partial, .state and .work.",
            )
        self._say_what_moved(_pins(plan))

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


def still_to_come(plan: Plan, work: Work, first: int = 0) -> list[int]:
    """Return the blobs from the first on that travel and are still to be fetched."""
    left = range(first, len(plan.blobs))
    return [n for n in left if n not in plan.assumed and not work.holds(plan.blobs[n].digest)]


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
