"""A finished archive: its plan, and its content at the places the plan gives it.

Opening reads the inventory alone; ``check_head`` looks at everything else that is not
content. An archive may be in several volumes, and not all of them may be here: what is not is
in ``lacking``, and its content is neither present nor a hole. Nothing of a medium is believed
because of where it stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeAlias

from airgap import limits
from airgap.archive import inventory, tar, volumes
from airgap.archive.file import ArchiveFile
from airgap.archive.layout import UNSIGNED, Layout, index_document
from airgap.archive.record import PieceRecord, Record
from airgap.archive.state import who_writes
from airgap.archive.volumes import WHOLE, VolumeSet
from airgap.digest import Check, digest_of
from airgap.errors import ArchiveError, Busy, IntegrityError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airgap.archive.layout import Entry, Volume
    from airgap.digest import Digest
    from airgap.plan import Blob, Plan

Paths: TypeAlias = Path | Sequence[Path]
"""Where an archive is: a file, or any files and directories that hold its volumes."""

STREAM = Path("-")
"""What stands for an archive that is no file, but passes once."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Damage: what is wrong, and the manifests and blobs (by number) that it spoils."""

    message: str
    manifests: tuple[int, ...] = ()
    blobs: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class VolumeFile:
    """A volume by its number, and the file that holds it; None when it is not here."""

    number: int
    file: Path | None


def in_a_list(paths: Paths) -> list[Path]:
    """Return the files and directories, also when it is but one."""
    return [paths] if isinstance(paths, Path) else list(paths)


def partial_path(archive: Path) -> Path:
    """Return the name under which an archive grows."""
    return archive.with_name(archive.name + ".partial")


class ArchiveReader:
    """An archive open for reading; use it in a ``with`` block.

    ``id`` is the digest of the inventory, ``plan`` what it holds, ``present`` and ``holes``
    the numbers of the blobs whose places say that they have arrived or have not; a blob in
    neither has a damaged header, or stands in a volume that is not here, or in an unfinished
    archive has not been begun, or is assumed and has no place. ``path`` is where it was said to
    be, for messages; ``notes`` say what was found there and left alone.
    """

    def __init__(self, paths: Paths, *, unfinished: bool = False) -> None:
        """Open an archive; ``unfinished`` opens the one file of one that still grows.

        Raises UsageError when there is none, Busy while another process writes it,
        ArchiveError when it is none or its inventory is damaged, StorageError.
        """
        named = in_a_list(paths)
        self._read(named[0], _found(named, unfinished=unfinished), finished=not unfinished)

    @classmethod
    def of_head(cls, file: ArchiveFile) -> Self:
        """Read the head of a file that has nothing else; of content there is nothing to know.

        Raises as opening an archive does.
        """
        limit = file.record.limit if file.record else None
        reader = cls.__new__(cls)
        found = VolumeSet(file.id, limit, {file.number or WHOLE: file})
        reader._read(file.path, found, finished=False)
        return reader

    def _read(self, path: Path, found: VolumeSet, *, finished: bool) -> None:
        self.path = path
        self._set = found
        try:
            self._files = self._set.files
            self.id, self.plan, self.layout = _read_inventory(self._set)
            self._refuse_numbers_beyond()
            self.finished = finished
            self.present, self.holes = self._sort_places()
        except BaseException:
            self._set.close()
            raise
        self._numbers = {blob.digest: number for number, blob in enumerate(self.plan.blobs)}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._set.close()

    @property
    def size(self) -> int:
        """The size of the files that are here, in bytes."""
        return sum(file.size for file in self._files.values())

    @property
    def notes(self) -> list[str]:
        """What was found beside the archive and left alone, a line each."""
        return self._set.notes

    @property
    def here(self) -> list[Volume]:
        """The volumes that are here."""
        return [volume for volume in self.layout.volumes if volume.number in self._files]

    @property
    def lacking(self) -> list[Volume]:
        """The volumes that are not here."""
        return [volume for volume in self.layout.volumes if volume.number not in self._files]

    @cached_property
    def absent(self) -> dict[int, str]:
        """The numbers of the blobs that cannot be had from here, each with the reason, or ""."""
        reasons = dict.fromkeys(sorted(self.holes), "")
        for volume in self.lacking:
            for number in volume.blobs:
                if number not in self.holes:
                    digest = self.plan.blobs[number].digest
                    told = f"blob {digest} is in volume {volume.number}, which is not here"
                    reasons.setdefault(number, told)
        return reasons

    def volume_files(self) -> tuple[VolumeFile, ...]:
        """Return all volumes of an archive in several, with their files; () of one in one."""
        if self.layout.limit is None:
            return ()
        here = {number: file.path for number, file in self._files.items()}
        return tuple(VolumeFile(v.number, here.get(v.number)) for v in self.layout.volumes)

    def file(self, volume: Volume) -> Path:
        """Return the file that a volume was found in."""
        return self._files[volume.number].path

    def where(self, volume: Volume) -> str:
        """Return what messages about a volume begin with: nothing if there is but one file."""
        if volume.record is None:
            return ""
        return f"volume {volume.number} ({self.file(volume)}): "

    def release(self) -> None:
        """Let go of the files, so that a medium can be taken out; nothing can be read then."""
        self._set.close()

    def check_head(self) -> Iterator[Problem]:
        """Yield what is wrong with anything but the content of manifests and blobs.

        That a volume is not here is not wrong in itself; see ``lacking``.
        """
        yield from (Problem(message) for message in self._set.problems)
        for volume in self.here:
            for problem in self._check_volume(volume):
                message = f"{self.where(volume)}{problem.message}"
                yield Problem(message, problem.manifests, problem.blobs)

    def check_tables(self) -> Iterator[Problem]:
        """Yield which compressed files have a wrong table of frames: that costs no content."""
        for volume in self.here if self.finished else ():
            if problem := self._files[volume.number].problem:
                yield Problem(f"{self.where(volume)}{problem}")

    def _check_volume(self, volume: Volume) -> Iterator[Problem]:
        yield from self._check_length(volume)
        if self._files[volume.number].id != self.id:
            yield Problem("the inventory is damaged")
        for entry, content in volume.documents:
            if self._at(volume, entry.offset, tar.BLOCK) != entry.header:
                yield Problem(f"the header of {entry.name} is damaged")
            if entry == volume.record:
                content = self._expected_record(volume).text()
            if content is not None and self._at(volume, entry.content, entry.size) != content:
                yield Problem(f"{entry.name} is not what the inventory says")
            padding = tar.padded(entry.size) - entry.size
            if any(self._at(volume, entry.content + entry.size, padding)):
                yield Problem(f"there is something in the padding after {entry.name}")
        if self._at(volume, self.layout.signature.content, limits.SIGNATURE) != UNSIGNED:
            yield Problem(f"{self.layout.signature.name} holds something that is no signature")
        for number, manifest in enumerate(self.plan.manifests):
            entry = self.layout.manifest(number)
            header = self._at(volume, entry.offset, tar.BLOCK)
            if self.reaches(volume, entry) and header != entry.header:
                yield Problem(f"the header of manifest {manifest.digest} is damaged", (number,))
        for number, entry in self.layout.content(volume) if self.finished else ():
            known = (entry.header, entry.absent.header)
            if self.reaches(volume, entry) and self._header(entry) not in known:
                digest = self.plan.blobs[number].digest
                yield Problem(f"the header of blob {digest} is damaged", blobs=(number,))
        end_is_there = self.finished and self._files[volume.number].size >= volume.size
        if end_is_there and self._at(volume, volume.content_end, len(tar.END)) != tar.END:
            yield Problem("the end of the archive is damaged")

    def reaches(self, volume: Volume, entry: Entry) -> bool:
        """Say whether an entry stands within a volume's file: one cut short ends before."""
        return not self.finished or entry.end <= self._files[volume.number].size

    def _check_length(self, volume: Volume) -> Iterator[Problem]:
        """Yield one problem for all that a file cut short has lost, not one for each entry."""
        size = self._files[volume.number].size
        if not self.finished or size == volume.size:
            return
        if size > volume.size:
            yield Problem(f"too long: {size} bytes, must be {volume.size}")
            return
        plan = self.plan
        manifests = [
            number
            for number in range(len(plan.manifests))
            if not self.reaches(volume, self.layout.manifest(number))
        ]
        blobs = [
            number
            for number, entry in self.layout.content(volume)
            if not self.reaches(volume, entry)
        ]
        yield Problem(
            f"cut short: {size} bytes, must be {volume.size};"
            f" {len(manifests)} manifests and {len(blobs)} blobs are lost",
            tuple(manifests),
            tuple(blobs),
        )

    def _expected_record(self, volume: Volume) -> Record:
        """Return what a volume's record must say; digests of pieces are its own word.

        They are held against the pieces when those are read.
        """
        arrived = [
            PieceRecord(self.plan.blobs[number].digest, piece.start, piece.size, digest)
            for number, piece in self.layout.pieces_in(volume)
            if not self.finished or self._header(piece) == piece.header
            if (digest := self.piece_digest(number, piece))
        ]
        limit, of = self.layout.limit or 0, len(self.layout.volumes)
        return Record(self.id, volume.number, of, limit, tuple(arrived))

    def piece_digest(self, number: int, piece: Entry) -> Digest | None:
        """Return the digest that its volume's record gives for a piece of a cut blob."""
        record = self._files[piece.volume].record
        blob = self.plan.blobs[number].digest
        for stated in record.pieces or () if record else ():
            if (stated.blob, stated.start) == (blob, piece.start):
                return stated.digest
        return None

    def require_sound_head(self) -> None:
        """Raise ArchiveError with the first problems of ``check_head``, if there are any."""
        if problems := list(self.check_head()):
            shown = "; ".join(problem.message for problem in problems[:3])
            more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
            hint = f"Run `airgap verify {self.path}` for the whole list, and copy it again."
            if not self.finished:
                hint = f"Remove {self.path.name} with its .state, and run the export again."
            raise ArchiveError(f"{self.path}: damaged: {shown}{more}", hint=hint)

    def require_all_volumes(self) -> None:
        """Raise ArchiveError that names the volumes that are not here, if there are any."""
        if self.lacking:
            numbers = ", ".join(str(volume.number) for volume in self.lacking)
            blobs = {number for volume in self.lacking for number in volume.blobs}
            raise ArchiveError(
                f"{self.path}: of {len(self.layout.volumes)} volumes these are not here: {numbers};"
                f" they hold {len(blobs)} of {len(self.plan.blobs)} blobs",
                hint=f"Name them too, or a directory that holds them; `airgap verify {self.path}`"
                " lists the images that need them.",
            )

    def manifest(self, number: int) -> bytes:
        """Return a manifest's bytes, from any volume where they are sound.

        Raises IntegrityError when they are damaged.
        """
        manifest = self.plan.manifests[number]
        for volume in self.here:
            try:
                return self.manifest_in(volume, number)
            except IntegrityError as error:
                damage = error
        raise IntegrityError(
            f"{self.path}: manifest {manifest.digest} is damaged: {damage.message}"
        )

    def manifest_in(self, volume: Volume, number: int) -> bytes:
        """Return a manifest's bytes as a volume has them. Raises IntegrityError."""
        manifest = self.plan.manifests[number]
        content = self._at(volume, self.layout.manifest(number).content, manifest.size)
        if (got := digest_of(content)) != manifest.digest:
            raise IntegrityError(f"its content has {got}")
        return content

    def lane(self, blob: Blob) -> str:
        """Return "": no registry is involved."""
        return ""

    def blob(self, blob: Blob, offset: int) -> Iterator[bytes]:
        """Yield a blob's bytes from ``offset`` on, as they are on the medium: not checked.

        Raises ArchiveError when they are in a volume that is not here, or did not travel,
        StorageError.
        """
        number = self._numbers[blob.digest]
        if number in self.plan.assumed:
            raise ArchiveError(
                f"{self.path}: blob {blob.digest} did not travel with it",
                hint=f"It is in {self.plan.holders_of(number)}: import that first.",
            )
        for place in self.layout.pieces(number):
            skipped = max(offset - place.start, 0)
            if skipped < place.size:
                yield from self.piece(place, skipped)

    def piece(self, place: Entry, offset: int = 0) -> Iterator[bytes]:
        """Yield the bytes at one place from ``offset`` on. Raises as ``blob`` does."""
        file = self._files.get(place.volume)
        if file is None:
            raise ArchiveError(
                f"{self.path}: {place.name} is in volume {place.volume}, which is not here",
                hint=f"Bring volume {place.volume}, and run the same command again.",
            )
        yield from file.pieces(place.content + offset, place.size - offset)

    def number_of(self, digest: Digest) -> int | None:
        """Return the number of a blob, None when it is none of the archive's."""
        return self._numbers.get(digest)

    def is_absent(self, place: Entry) -> bool:
        """Say whether a place that is here is kept for what has not arrived."""
        return self._header(place) == place.absent.header

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

    def content(self, volume: Volume, offset: int, size: int) -> Iterator[bytes]:
        """Yield any bytes of a volume, fewer where it ends."""
        yield from self._files[volume.number].pieces(offset, size)

    def _sort_places(self) -> tuple[frozenset[int], frozenset[int]]:
        present, holes = set(), set()
        for number in range(len(self.plan.blobs)):
            if number in self.plan.assumed:
                continue
            places = self.layout.pieces(number)
            headers = [self._header(place) for place in places]
            if headers == [place.header for place in places]:
                present.add(number)
            elif any(h == p.absent.header for h, p in zip(headers, places, strict=True)):
                holes.add(number)
        return frozenset(present), frozenset(holes)

    def _header(self, place: Entry) -> bytes | None:
        file = self._files.get(place.volume)
        return file.at(place.offset, tar.BLOCK) if file else None

    def _at(self, volume: Volume, offset: int, size: int) -> bytes:
        return self._files[volume.number].at(offset, size)

    def _refuse_numbers_beyond(self) -> None:
        for number in self._files:
            if number > len(self.layout.volumes):
                raise ArchiveError(
                    f"{self._files[number].path}: says it is volume {number}, and there are"
                    f" {len(self.layout.volumes)}",
                    hint="Its record is damaged: copy the volume again.",
                )


def _found(named: Sequence[Path], *, unfinished: bool) -> VolumeSet:
    try:
        if unfinished:
            file = ArchiveFile(named[0])
            return VolumeSet(file.id, None, {WHOLE: file})
        return volumes.find(named)
    except FileNotFoundError as error:
        raise _absent(Path(error.filename)) from error


def _absent(path: Path) -> UsageError:
    if holder := who_writes(path):
        return Busy(f"{path}: not finished, {holder} is writing it")
    if partial_path(path).exists():
        return UsageError(
            f"{path}: not finished, there is only {partial_path(path).name}",
            hint="Run the export that makes it again; it continues.",
        )
    return UsageError(f"{path}: there is no such file")


def _read_inventory(found: VolumeSet) -> tuple[Digest, Plan, Layout]:
    files = list(found.files.values())
    if found.limit is None and any(file.number for file in files):
        raise ArchiveError(
            f"{files[0].path}: the record of volume {files[0].number} is damaged",
            hint="Give the other volumes too, or copy this one again.",
        )
    sound = next((file for file in files if file.id == found.id), files[0])
    plan = inventory.parse(sound.lines(), str(sound.path))
    try:
        index = index_document(plan, sound.id)
        layout = Layout(plan, sound.inventory_size, index, found.limit)
    except UsageError as error:
        raise ArchiveError(
            f"{sound.path}: the record of the volume is damaged: {error.message}"
        ) from error
    return sound.id, plan, layout
