"""A finished archive: its plan, and its content at the places the plan gives it.

Opening reads the inventory alone; ``check_head`` looks at everything else that is not
content. Nothing of a medium is believed because of where it stands.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from airgap import limits
from airgap.archive import inventory, tar
from airgap.archive.layout import (
    INVENTORY_NAME,
    INVENTORY_OFFSET,
    LAYOUT,
    LAYOUT_NAME,
    UNSIGNED,
    Layout,
    index_document,
)
from airgap.archive.state import who_writes
from airgap.digest import Check, Digest, Hasher, digest_of
from airgap.errors import ArchiveError, Busy, IntegrityError, UsageError
from airgap.storage import pieces_at, read_at, storage_errors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airgap.archive.layout import Entry
    from airgap.plan import Blob, Plan

_COPY_AGAIN = "Copy the archive again, and check the copy with `airgap verify`."


@dataclass(frozen=True, slots=True)
class Problem:
    """Damage: what is wrong, and the manifests and blobs (by number) that it spoils."""

    message: str
    manifests: tuple[int, ...] = ()
    blobs: tuple[int, ...] = ()


def partial_path(archive: Path) -> Path:
    """Return the name under which an archive grows."""
    return archive.with_name(archive.name + ".partial")


class ArchiveReader:
    """An archive open for reading; use it in a ``with`` block.

    ``id`` is the digest of the inventory, ``plan`` what it holds, ``present`` and ``holes``
    the numbers of the blobs whose place says that they have arrived or have not; a blob in
    neither has a damaged header, or in an unfinished archive has not been begun.
    """

    def __init__(self, path: Path, *, unfinished: bool = False) -> None:
        """Open an archive; ``unfinished`` opens one that still grows.

        Raises UsageError when there is none, Busy while another process writes it,
        ArchiveError when it is none or its inventory is damaged, StorageError.
        """
        self.path = path
        self._descriptor = _open(path)
        try:
            self.id, self.plan, self.layout = _read_inventory(self._descriptor, path)
            self.size = os.fstat(self._descriptor).st_size
            self.finished = not unfinished
            self.present, self.holes = self._sort_places()
        except BaseException:
            os.close(self._descriptor)
            raise
        self._numbers = {blob.digest: number for number, blob in enumerate(self.plan.blobs)}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def check_head(self) -> Iterator[Problem]:
        """Yield what is wrong with anything but the content of manifests and blobs."""
        yield from self._check_length()
        for entry, content in self.layout.documents:
            if self._at(entry.offset, tar.BLOCK) != entry.header:
                yield Problem(f"the header of {entry.name} is damaged")
            if content is not None and self._at(entry.content, entry.size) != content:
                yield Problem(f"{entry.name} is not what the inventory says")
            if any(self._at(entry.content + entry.size, tar.padded(entry.size) - entry.size)):
                yield Problem(f"there is something in the padding after {entry.name}")
        if self._at(self.layout.signature.content, limits.SIGNATURE) != UNSIGNED:
            yield Problem(f"{self.layout.signature.name} holds something that is no signature")
        for number, manifest in enumerate(self.plan.manifests):
            entry = self.layout.manifest(number)
            if self.reaches(entry) and self._at(entry.offset, tar.BLOCK) != entry.header:
                yield Problem(f"the header of manifest {manifest.digest} is damaged", (number,))
        for number, blob in enumerate(self.plan.blobs if self.finished else ()):
            known = number in self.present or number in self.holes
            if not known and self.reaches(self.layout.blob(number)):
                yield Problem(f"the header of blob {blob.digest} is damaged", blobs=(number,))
        end_is_there = self.finished and self.size >= self.layout.size
        if end_is_there and self._at(self.layout.content_end, len(tar.END)) != tar.END:
            yield Problem("the end of the archive is damaged")

    def reaches(self, entry: Entry) -> bool:
        """Say whether an entry stands within the file: one cut short ends before."""
        return not self.finished or entry.end <= self.size

    def _check_length(self) -> Iterator[Problem]:
        """Yield one problem for all that a file cut short has lost, not one for each entry."""
        if not self.finished or self.size == self.layout.size:
            return
        if self.size > self.layout.size:
            yield Problem(f"too long: {self.size} bytes, must be {self.layout.size}")
            return
        layout, plan = self.layout, self.plan
        manifests = [n for n in range(len(plan.manifests)) if not self.reaches(layout.manifest(n))]
        blobs = [n for n in range(len(plan.blobs)) if not self.reaches(layout.blob(n))]
        yield Problem(
            f"cut short: {self.size} bytes, must be {self.layout.size};"
            f" {len(manifests)} manifests and {len(blobs)} blobs are lost",
            tuple(manifests),
            tuple(blobs),
        )

    def require_sound_head(self) -> None:
        """Raise ArchiveError with the first problems of ``check_head``, if there are any."""
        if problems := list(self.check_head()):
            shown = "; ".join(problem.message for problem in problems[:3])
            more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
            hint = f"Run `airgap verify {self.path}` for the whole list, and copy it again."
            if not self.finished:
                hint = f"Remove {self.path.name} with its .state, and run the export again."
            raise ArchiveError(f"{self.path}: damaged: {shown}{more}", hint=hint)

    def manifest(self, number: int) -> bytes:
        """Return a manifest's bytes. Raises IntegrityError when they are damaged."""
        manifest = self.plan.manifests[number]
        content = self._at(self.layout.manifest(number).content, manifest.size)
        if (got := digest_of(content)) != manifest.digest:
            raise IntegrityError(
                f"{self.path}: manifest {manifest.digest} is damaged: its content has {got}"
            )
        return content

    def lane(self, blob: Blob) -> str:
        """Return "": no registry is involved."""
        return ""

    def blob(self, blob: Blob, offset: int) -> Iterator[bytes]:
        """Yield a blob's bytes from ``offset`` on, as they are on the medium: not checked."""
        place = self.layout.blob(self._numbers[blob.digest])
        with storage_errors(self.path):
            yield from pieces_at(self._descriptor, blob.size - offset, place.content + offset)

    def check_blob(self, number: int) -> None:
        """Read a blob whole. Raises IntegrityError when it is damaged, StorageError."""
        blob = self.plan.blobs[number]
        check = Check(blob.digest, blob.size)
        for piece in self.blob(blob, 0):
            check.update(piece)
        check.finish()

    def is_sound(self, number: int) -> bool:
        """Say whether a blob's content is what it must be. Raises StorageError."""
        try:
            self.check_blob(number)
        except IntegrityError:
            return False
        return True

    def content(self, offset: int, size: int) -> Iterator[bytes]:
        """Yield any bytes of the file, fewer where it ends."""
        with storage_errors(self.path):
            yield from pieces_at(self._descriptor, size, offset)

    def _sort_places(self) -> tuple[frozenset[int], frozenset[int]]:
        present, holes = set(), set()
        for number in range(len(self.plan.blobs)):
            place = self.layout.blob(number)
            header = self._at(place.offset, tar.BLOCK)
            if header == place.header:
                present.add(number)
            elif header == self.layout.hole(number).header:
                holes.add(number)
        return frozenset(present), frozenset(holes)

    def _at(self, offset: int, size: int) -> bytes:
        with storage_errors(self.path):
            return read_at(self._descriptor, size, offset)


def _open(path: Path) -> int:
    with storage_errors(path):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise _absent(path) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UsageError(f"{path}: not a file")
    return descriptor


def _absent(path: Path) -> UsageError:
    if holder := who_writes(path):
        return Busy(f"{path}: not finished, {holder} is writing it")
    if partial_path(path).exists():
        return UsageError(
            f"{path}: not finished, there is only {partial_path(path).name}",
            hint="Run the export that makes it again; it continues.",
        )
    return UsageError(f"{path}: there is no such file")


def _read_inventory(descriptor: int, path: Path) -> tuple[Digest, Plan, Layout]:
    with storage_errors(path):
        start = read_at(descriptor, INVENTORY_OFFSET, 0)
    size = tar.size_in(start[-tar.BLOCK :])
    if not start.startswith(tar.header(LAYOUT_NAME, len(LAYOUT)) + LAYOUT):
        what = "not an airgap archive" + ("" if start else ", but an empty file")
        raise ArchiveError(f"{path}: {what}", hint="It is what `airgap export` wrote to -o FILE.")
    if len(start) < INVENTORY_OFFSET or not 0 < size <= limits.INVENTORY:
        raise ArchiveError(
            f"{path}: the archive is cut short or its first blocks are damaged", hint=_COPY_AGAIN
        )
    if start[-tar.BLOCK :] != tar.header(INVENTORY_NAME, size):
        raise ArchiveError(f"{path}: the header of the inventory is damaged", hint=_COPY_AGAIN)
    hasher = Hasher()
    with storage_errors(path):
        plan = inventory.parse(_lines(descriptor, size, hasher), str(path))
    layout = Layout(plan, size, index_document(plan, hasher.digest()))
    return hasher.digest(), plan, layout


def _lines(descriptor: int, size: int, hasher: Hasher) -> Iterator[bytes]:
    """Yield the inventory's lines, hashing them, and never holding more than one chunk."""
    rest = b""
    for piece in pieces_at(descriptor, size, INVENTORY_OFFSET):
        hasher.update(piece)
        *whole, rest = (rest + piece).split(b"\n")
        if len(rest) > limits.INVENTORY_LINE:
            raise ValueError("a line without an end")
        yield from (line + b"\n" for line in whole)
    if rest:
        yield rest
