"""Whether an archive is to be compressed, and one that was begun: how much is whole, and goes on.

It was written from front to back, so what is whole is its beginning.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from airgap.archive.file import ArchiveFile
from airgap.archive.forward import ForwardWriter
from airgap.archive.frames import MAGIC, Frames
from airgap.archive.reader import ArchiveReader, partial_path
from airgap.archive.seekable import LEVEL, frames_of
from airgap.errors import AlreadyFinished, ArchiveError, UsageError
from airgap.storage import storage_errors

if TYPE_CHECKING:
    from pathlib import Path

    from airgap.archive.forward import Output
    from airgap.archive.layout import Layout
    from airgap.digest import Digest
    from airgap.plan import Plan

COMPRESSED = ".tar.zst"
"""How the names of archives end that are compressed without being told to."""


def level_for(archive: Path, asked: int | None) -> int | None:
    """Return the level that a new archive is compressed at: asked for, or as its name has it.

    None leaves it plain.
    """
    is_named_so = archive.name.endswith(COMPRESSED)
    return LEVEL if asked is None and is_named_so else asked


def require_form_of_finished(archive: Path, *, compressed: bool) -> None:
    """Raise AlreadyFinished when an archive is there, and in the other form. StorageError."""
    if _has_other_form(archive, compressed=compressed):
        form, other, how = _words(compressed=compressed)
        raise AlreadyFinished(
            f"{archive}: is there already, {other}, and is asked for {form}",
            hint=f"Give another -o FILE, or {how}.",
        )


def require_form_of_begun(archive: Path, *, compressed: bool) -> None:
    """Raise UsageError when an archive is begun, and in the other form. StorageError."""
    if _has_other_form(partial_path(archive), compressed=compressed):
        form, other, how = _words(compressed=compressed)
        raise UsageError(
            f"{archive}: was begun {other}, and is to be {form}",
            hint=f"Give another -o FILE; or export with the same name and {how}, and it continues.",
        )


def _words(*, compressed: bool) -> tuple[str, str, str]:
    """Return the form that is wanted, the other one, and how that would be asked for."""
    if compressed:
        return "compressed", "plain", "leave --zstd out"
    return "plain", "compressed", "say --zstd"


def _has_other_form(path: Path, *, compressed: bool) -> bool:
    """Say whether a file begins in the other form; one that is empty begins in neither."""
    with storage_errors(path):
        if not path.exists():
            return False
        with path.open("rb") as file:
            start = file.read(len(MAGIC))
    return start != b"" and MAGIC.startswith(start) != compressed


@dataclass(frozen=True)
class Begun:
    """An archive's plan and places, and how much of it is there: whole blobs, some as holes."""

    id: Digest
    plan: Plan
    layout: Layout
    frames: Frames = field(default_factory=Frames)
    done: int = 0
    absent: frozenset[int] = frozenset()

    @classmethod
    def found(cls, path: Path, *, believe: bool) -> Self | None:
        """Look at a file that was begun; None when its head is not whole.

        Unless it is to be believed, every blob in it is hashed. Raises StorageError.
        """
        frames = frames_of(path)
        try:
            with ArchiveFile(path) as file:
                whole_head = frames.size >= file.inventory_size
            if not whole_head:
                return None
            reader = ArchiveReader(path, unfinished=True)
        except ArchiveError:
            return None
        with reader:
            layout = reader.layout
            if frames.size < layout.head_end or next(reader.check_head(), None):
                return None
            done, end = 0, layout.head_end
            for number in range(len(reader.plan.blobs)):
                if number in reader.plan.assumed:
                    continue
                is_hole = number in reader.holes
                if layout.blob(number).end > frames.size or not (
                    is_hole or (number in reader.present and (believe or reader.is_sound(number)))
                ):
                    break
                done, end = number + 1, layout.blob(number).end
            absent = frozenset(number for number in reader.holes if number < done)
            return cls(reader.id, reader.plan, layout, frames.until(end), done, absent)

    def writer(self, output: Output, window: int) -> ForwardWriter:
        """Return what writes the rest."""
        return ForwardWriter(
            self.id, self.plan, self.layout, output, window, done=self.done, absent=self.absent
        )
