"""Split and join: an archive into volumes and back, at any time and without a registry.

Both write what an export would have written, from another form of the same archive. The
content is hashed on its way; the archive keeps its id.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airgap.archive.growing import growing_files
from airgap.archive.layout import Layout
from airgap.archive.medium import volume_names
from airgap.archive.reader import ArchiveReader, partial_path
from airgap.archive.work import Work, work_path
from airgap.archive.writer import ArchiveWriter, begin_again, claim
from airgap.crew import AtMost
from airgap.errors import ArchiveError, UsageError
from airgap.progress import SILENT
from airgap.transfer import transfer

if TYPE_CHECKING:
    from pathlib import Path

    from airgap.archive.medium import VolumeOptions
    from airgap.archive.reader import Paths
    from airgap.digest import Digest
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
    if output.exists():
        return _finished(volumes, output)
    return _rewrite(volumes, output, None, progress, stop or threading.Event())


def _finished(volumes: Paths, output: Path) -> ReshapeResult:
    """Return what was joined before. Raises UsageError when it is something else."""
    with ArchiveReader(volumes) as reader, ArchiveReader(output) as there:
        there.require_sound_head()
        if there.id != reader.id or not there.holes <= reader.holes:
            raise UsageError(
                f"{output}: is there already, and is not what these volumes make",
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
        _begin(reader, output)
        files = growing_files(output, options, state, progress.say) if options else None
        with ArchiveWriter(output, state, stop, believe=state.same_boot, files=files) as writer:
            _fill(reader, writer, progress, stop)
            writer.finish()
        layout = writer.layout
        return ReshapeResult(output, reader.id, volume_names(output, layout), layout.size)


def _begin(reader: ArchiveReader, output: Path) -> None:
    """Write the head, or make sure that what is begun there is for the same archive."""
    if not partial_path(output).exists():
        begin_again(output, reader)
        return
    with ArchiveReader(partial_path(output), unfinished=True) as begun:
        if begun.id != reader.id:
            raise UsageError(
                f"{output}: was begun for another archive, {begun.id}",
                hint="Give another -o FILE, or remove it with its .partial and .state.",
            )
    if work_path(output).exists():
        # A run was killed when the head was written already.
        Work(work_path(output)).remove()


def _fill(
    reader: ArchiveReader, writer: ArchiveWriter, progress: Progress, stop: threading.Event
) -> None:
    plan = reader.plan
    wanted = set(writer.to_come) - reader.holes
    progress.stage("copying blobs", total_bytes=sum(plan.blobs[n].size for n in wanted))
    try:
        outcome = transfer(
            plan,
            plan.images,
            reader,
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
        first = next(iter(outcome.failed_blobs.values()))
        more = (
            f"; and {len(outcome.failed_blobs) - 1} more" if len(outcome.failed_blobs) > 1 else ""
        )
        raise ArchiveError(
            f"{reader.path}: damaged: blob {first.message}{more}",
            hint=f"Run `airgap verify {reader.path}` for the whole list, copy it again, and run"
            " the same command again.",
        )
