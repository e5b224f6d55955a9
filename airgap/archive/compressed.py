"""A compressed archive that was begun: how much of it is whole, and goes on.

It was written from front to back, so what is whole is its beginning.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from airgap.archive.file import ArchiveFile
from airgap.archive.forward import ForwardWriter
from airgap.archive.frames import Frames
from airgap.archive.reader import ArchiveReader
from airgap.archive.seekable import frames_of
from airgap.errors import ArchiveError

if TYPE_CHECKING:
    from pathlib import Path

    from airgap.archive.forward import Output
    from airgap.archive.layout import Layout
    from airgap.digest import Digest
    from airgap.plan import Plan

COMPRESSED = ".tar.zst"
"""How the names of compressed archives end."""


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
