"""Split, join and merge: archives in another form, at any time and without a registry.

All write what an export would have written, from other forms of the same content, which is
hashed on its way. Cut or joined, an archive keeps its id; a delta that is made whole gets that
of an export that left nothing out.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airgap.archive.compressed import level_for, require_form_of_begun
from airgap.archive.growing import growing_files
from airgap.archive.layout import Layout
from airgap.archive.medium import volume_names
from airgap.archive.older import opened
from airgap.archive.reader import ArchiveReader, partial_path
from airgap.archive.volumes import by_archive
from airgap.archive.work import Work, work_path
from airgap.archive.writer import ArchiveWriter, begin_again, claim
from airgap.crew import AtMost
from airgap.errors import ArchiveError, UsageError
from airgap.plan import assuming
from airgap.progress import SILENT
from airgap.transfer import transfer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from airgap.archive.medium import VolumeOptions
    from airgap.archive.reader import Paths
    from airgap.digest import Digest
    from airgap.plan import Blob, Plan
    from airgap.progress import Progress

_AT_ONCE = 4


@dataclass(frozen=True)
class ReshapeResult:
    """What was written; ``size`` in bytes. ``volumes`` are the names of files, () of one file."""

    archive: Path
    id: Digest
    volumes: tuple[str, ...]
    size: int

    @property
    def exit_status(self) -> int:
        """0: of what the archive lacks, whoever made it was told."""
        return 0


def split(
    archive: Paths,
    volumes: VolumeOptions,
    *,
    output: Path,
    progress: Progress = SILENT,
    stop: threading.Event | None = None,
) -> ReshapeResult:
    """Cut an archive into volumes called after ``output``: NAME.001.tar and so on.

    Run again after an interruption, it continues. Raises UsageError, Busy, ArchiveError when
    the archive is damaged or not all of it is here, StorageError, Interrupted.
    """
    return _rewrite(archive, output, volumes, progress, stop or threading.Event())


def join(
    volumes: Paths,
    output: Path,
    *,
    progress: Progress = SILENT,
    stop: threading.Event | None = None,
) -> ReshapeResult:
    """Make one file of an archive's volumes, the one that an export to one file would have made.

    Run again after an interruption, it continues. Raises as ``split``.
    """
    _refuse_to_compress(output)
    if output.exists():
        with ArchiveReader(volumes) as reader:
            return _finished(output, reader.plan, reader.holes)
    return _rewrite(volumes, output, None, progress, stop or threading.Event())


def merge(
    archives: Sequence[Path],
    output: Path,
    *,
    progress: Progress = SILENT,
    stop: threading.Event | None = None,
) -> ReshapeResult:
    """Make one whole archive of a delta, the last one named, and the archives that it needs.

    It holds what the delta's plan says, and is what an export would have written that left
    nothing out. Blobs are taken from wherever they are. Run again after an interruption, it
    continues. Raises UsageError, Busy, ArchiveError when some of it is in none of the archives
    or is damaged, StorageError, Interrupted.
    """
    _refuse_to_compress(output)
    stop = stop or threading.Event()
    with ExitStack() as stack:
        readers = [stack.enter_context(opened(paths)) for paths in by_archive(archives)]
        for reader in readers:
            reader.require_sound_head()
        newest, pool = readers[-1], _Pool(readers)
        pool.require_all(newest)
        plan = assuming(newest.plan, {})
        if output.exists():
            return _finished(output, plan, newest.holes)
        state = stack.enter_context(claim(output))
        _begin(newest, output, plan)
        with ArchiveWriter(output, state, stop, believe=state.same_boot) as writer:
            _fill(pool, writer, progress, stop)
            writer.finish()
        return ReshapeResult(output, writer.id, (), writer.layout.size)


def _refuse_to_compress(output: Path) -> None:
    if level_for(output, None) is not None:
        raise UsageError(
            f"{output}: is the name of a compressed archive, and a plain one is written",
            hint="Give -o NAME.tar.",
        )


class _Pool:
    """Several archives as one source; of content in several, the first one's is taken.

    Who asks a second time for a blob was not content with it, and gets another one's.
    """

    def __init__(self, readers: Sequence[ArchiveReader]) -> None:
        self._holders: dict[Digest, list[ArchiveReader]] = defaultdict(list)
        self._asked: Counter[Digest] = Counter()
        for reader in readers:
            for number in reader.present:
                self._holders[reader.plan.blobs[number].digest].append(reader)

    def require_all(self, delta: ArchiveReader) -> None:
        """Raise ArchiveError that names what a delta needs and no archive holds."""
        plan = delta.plan
        lacking = [
            number
            for number, blob in enumerate(plan.blobs)
            if number not in delta.holes and not self.holds(blob)
        ]
        if lacking:
            listed = "".join(
                f"\n  {plan.blobs[n].digest} ({plan.blobs[n].size} bytes),"
                f" in archive {plan.holders_of(n) or delta.id}"
                for n in lacking
            )
            blobs = "1 blob" if len(lacking) == 1 else f"{len(lacking)} blobs"
            raise ArchiveError(
                f"{delta.path}: needs {blobs} that none of the archives holds:{listed}",
                hint="Name the archives that hold them too, before the delta.",
            )

    def holds(self, blob: Blob) -> bool:
        """Say whether one of the archives has a blob."""
        return blob.digest in self._holders

    def where(self, blob: Blob) -> str:
        """Return the archives that hold a blob, for messages."""
        return ", ".join(str(reader.path) for reader in self._holders[blob.digest])

    def lane(self, blob: Blob) -> str:
        """Return "": no registry is involved."""
        return ""

    def blob(self, blob: Blob, offset: int) -> Iterator[bytes]:
        """Yield a blob's bytes from ``offset`` on, unchecked. Raises StorageError."""
        holders = self._holders[blob.digest]
        reader = holders[self._asked[blob.digest] % len(holders)]
        self._asked[blob.digest] += 1
        return reader.blob(blob, offset)


def _finished(output: Path, plan: Plan, holes: frozenset[int]) -> ReshapeResult:
    """Return what was made before. Raises UsageError when it is something else."""
    with ArchiveReader(output) as there:
        there.require_sound_head()
        if there.plan != plan or not there.holes <= holes:
            raise UsageError(
                f"{output}: is there already, and is not what these files make",
                hint="Give another -o FILE.",
            )
        return ReshapeResult(output, there.id, (), there.layout.size)


def _rewrite(
    source: Paths,
    output: Path,
    options: VolumeOptions | None,
    progress: Progress,
    stop: threading.Event,
) -> ReshapeResult:
    with ArchiveReader(source) as reader, claim(output) as state:
        reader.require_sound_head()
        reader.require_all_volumes()
        if options and options.size:
            # What cannot be is refused before anything is written.
            Layout(reader.plan, reader.layout.inventory.size, reader.layout.index, options.size)
        _begin(reader, output, reader.plan)
        files = growing_files(output, options, state, progress.say) if options else None
        with ArchiveWriter(output, state, stop, believe=state.same_boot, files=files) as writer:
            _fill(_Pool([reader]), writer, progress, stop)
            writer.finish()
        layout = writer.layout
        return ReshapeResult(output, reader.id, volume_names(output, layout), layout.size)


def _begin(reader: ArchiveReader, output: Path, plan: Plan) -> None:
    """Write the head, or make sure that what is begun there is for the same plan."""
    require_form_of_begun(output, compressed=False)
    if not partial_path(output).exists():
        begin_again(output, reader, plan)
        return
    with ArchiveReader(partial_path(output), unfinished=True) as begun:
        if begun.plan != plan:
            raise UsageError(
                f"{output}: was begun for another archive, {begun.id}",
                hint="Give another -o FILE, or remove it with its .partial and .state.",
            )
    if work_path(output).exists():
        # A run was killed when the head was written already.
        Work(work_path(output)).remove()


def _fill(
    pool: _Pool,
    writer: ArchiveWriter,
    progress: Progress,
    stop: threading.Event,
) -> None:
    """Copy all that a pool holds and an archive lacks. Raises ArchiveError for damage."""
    plan = writer.plan
    wanted = {number for number in writer.to_come if pool.holds(plan.blobs[number])}
    progress.stage("copying blobs", total_bytes=sum(plan.blobs[n].size for n in wanted))
    try:
        outcome = transfer(
            plan,
            plan.images,
            pool,
            writer,
            lanes=AtMost(_AT_ONCE),
            progress=progress,
            stop=stop,
            skip=frozenset(range(len(plan.blobs))) - wanted,
        )
    finally:
        progress.finish()
        writer.save()
    if outcome.failed_blobs:
        number, first = next(iter(outcome.failed_blobs.items()))
        where = pool.where(plan.blobs[number])
        more = (
            f"; and {len(outcome.failed_blobs) - 1} more" if len(outcome.failed_blobs) > 1 else ""
        )
        raise ArchiveError(
            f"{where}: damaged: blob {first.message}{more}",
            hint=f"Run `airgap verify {where}` for the whole list, copy it again, and run"
            " the same command again.",
        )
