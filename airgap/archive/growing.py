"""The files of an archive while it grows: where a blob's bytes go, in one file or in several.

A blob that is cut stands in two volumes or more. Where there is no room yet for a later one,
its piece waits in a file beside the archive, so that an earlier volume can be finished and
carried away as soon as the blob is known to be right. A finished volume is never needed
again. Knows places and files; when they are written and believed is the writer's to say.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from airgap import limits
from airgap.archive import tar
from airgap.archive.file import ArchiveFile
from airgap.archive.layout import UNSIGNED, Layout
from airgap.archive.medium import Media, largest_file, piece_path
from airgap.archive.reader import ArchiveReader, partial_path
from airgap.archive.record import PieceRecord, Record
from airgap.digest import Check, Hasher
from airgap.errors import IntegrityError, StorageError, UsageError
from airgap.storage import (
    pieces_at,
    read_at,
    require_room,
    storage_errors,
    sync_directory,
    write_at,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from airgap.archive.layout import Entry, Volume
    from airgap.archive.medium import VolumeOptions
    from airgap.archive.state import State


class GrowingFile:
    """A file that is written at any place; ``path`` is its name while it grows.

    ``begin`` is which byte of its volume the file begins with.
    """

    def __init__(self, path: Path, begin: int = 0) -> None:
        """Open a file for writing, made if need be. Raises StorageError."""
        self.path = path
        self._begin = begin
        with storage_errors(path):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def require_room(self, size: int) -> None:
        """Make sure that the file can grow to so many bytes. Raises StorageError."""
        require_room(self._descriptor, self.path, size)

    def write(self, data: bytes | memoryview, offset: int) -> None:
        """Write at a place of the volume. Raises StorageError."""
        with storage_errors(self.path):
            write_at(self._descriptor, data, offset - self._begin)

    def read(self, size: int, offset: int) -> bytes:
        """Read at a place of the volume, less where the file ends. Raises StorageError."""
        with storage_errors(self.path):
            return read_at(self._descriptor, size, offset - self._begin)

    def pieces(self, size: int, offset: int) -> Iterator[bytes]:
        """Yield what is at a place of the volume, in chunks. Raises StorageError."""
        with storage_errors(self.path):
            yield from pieces_at(self._descriptor, size, offset - self._begin)

    def sync(self) -> None:
        """Make what was written last. Raises OSError."""
        os.fdatasync(self._descriptor)

    def empty(self, place: Entry) -> None:
        """Leave a hole: the header of an absent blob, and zeros whatever was written there."""
        self.write(place.absent.header, place.offset)
        offset = place.content
        for piece in self.pieces(place.size, place.content):
            if piece.strip(b"\0"):
                self.write(bytes(len(piece)), offset)
            offset += len(piece)

    def rename(self, path: Path) -> None:
        """Give the file, which is synced, another name. Raises StorageError."""
        with storage_errors(self.path):
            self.path.replace(path)
            sync_directory(path.parent)
        self.path = path

    def finish(self, volume: Volume, name: Path) -> None:
        """End a volume, and give it its name. Raises StorageError; it then stays unfinished."""
        with storage_errors(self.path):
            os.ftruncate(self._descriptor, volume.size)
            write_at(self._descriptor, tar.END, volume.content_end)
            os.fsync(self._descriptor)
        self.rename(name)
        self.close()


class GrowingFiles:
    """The files of one archive; ``present`` are the blobs whose headers say that they are there.

    ``stuck`` are the numbers of blobs that cannot be filled, as a part of their place is not
    here. This is the archive of one file; ``GrowingVolumes`` is that of several.
    """

    stuck: frozenset[int] = frozenset()

    def __init__(self, path: Path) -> None:
        """Open ``FILE.partial``. Raises ArchiveError, StorageError."""
        self.path = path
        with ArchiveReader(partial_path(path), unfinished=True) as reader:
            reader.require_sound_head()
            self.id, self.plan, self.layout = reader.id, reader.plan, reader.layout
            self.present = set(reader.present)
        self._files = {1: GrowingFile(partial_path(path))}

    def close(self) -> None:
        """Close all files."""
        for file in self._files.values():
            file.close()

    def require_room(self) -> None:
        """Make sure that all that is still to come has room. Raises StorageError."""
        self._files[1].require_room(self.layout.size)

    def make_room(self, number: int, wait: Callable[[int], None]) -> None:
        """Make sure that a blob can be written.

        ``wait(volume)`` returns when nothing is written to earlier volumes any more. Raises
        StorageError when there is no room.
        """

    def expect(self, blobs: Iterable[int]) -> None:
        """Take note of the blobs that are to come: what has none of them can end."""

    def settled(self, number: int) -> None:
        """Take note that a blob will not change any more."""

    def awaits_before(self, volume: int) -> bool:
        """Say whether blobs of earlier volumes are still to come, or under way."""
        return False

    def ripe(self) -> Volume | None:
        """Return a volume that can end before the others; None when there is none."""
        return None

    def is_sound(self, number: int) -> bool:
        """Hash a blob again, and say whether it is what it must be. Raises StorageError."""
        blob = self.plan.blobs[number]
        check = Check(blob.digest, blob.size)
        try:
            while piece := self.read(number, limits.CHUNK, check.seen):
                check.update(piece)
            check.finish()
        except IntegrityError:
            return False
        return True

    def write(self, number: int, data: bytes, position: int) -> None:
        """Write a part of a blob; what is in a finished volume is not touched. StorageError."""
        view = memoryview(data)
        for place in self.layout.pieces(number):
            begin = max(position, place.start)
            part = view[begin - position : place.start + place.size - position]
            file = self._files.get(place.volume)
            if part and begin >= place.start and file is not None:
                file.write(part, place.content + begin - place.start)

    def read(self, number: int, size: int, position: int) -> bytes:
        """Read a part of a blob, less where it is not here. Raises StorageError."""
        for place in self.layout.pieces(number):
            left = place.start + place.size - position
            file = self._files.get(place.volume)
            if left > 0:
                offset = place.content + position - place.start
                return file.read(min(size, left), offset) if file else b""
        return b""

    def mark(self, number: int, *, there: bool) -> None:
        """Say in the headers of a blob whether it is there. Raises StorageError."""
        for place in self.layout.pieces(number):
            if file := self._files.get(place.volume):
                file.write((place if there else place.absent).header, place.offset)

    def sync(self) -> None:
        """Make what was written last. Raises OSError."""
        for file in list(self._files.values()):
            file.sync()

    def end(self, volume: Volume, present: set[int]) -> None:
        """Finish a volume; places of what is not present become holes. Raises StorageError."""
        file = self._files[volume.number]
        for number, place in self.layout.content(volume):
            if number not in present:
                file.empty(place)
        file.finish(volume, self._final(volume))
        del self._files[volume.number]

    def finish(self, present: set[int], wait: Callable[[int], None]) -> None:
        """Finish all that is not finished. Raises StorageError."""
        for volume in self.layout.volumes:
            self.end(volume, present)

    def _final(self, volume: Volume) -> Path:
        """Return the name of a finished volume."""
        return self.path


class GrowingVolumes(GrowingFiles):
    """An archive in several volumes.

    ``FILE.partial`` then holds the head, and the blobs that were known when it was written; it
    is what volumes are begun from, one after the other, and is gone when all are finished.
    """

    def __init__(
        self, path: Path, limit: int, media: Media, state: State, say: Callable[[str], None]
    ) -> None:
        """Find what there is of the volumes, and open what is not finished.

        Raises UsageError for a limit that is too small and for files in the way, ArchiveError,
        StorageError.
        """
        self.path = path
        self._media, self._state, self._say = media, state, say
        self._files = {}
        self._names: dict[int, Path] = {}
        self._done: dict[int, frozenset[int]] = {}
        self._opening = threading.RLock()
        self._base = base = ArchiveReader(partial_path(path), unfinished=True)
        try:
            base.require_sound_head()
            self.id, self.plan = base.id, base.plan
            whole = base.layout
            self.layout = Layout(self.plan, whole.inventory.size, whole.index, limit)
            state.cut(limit)
            self._known = set(base.present)
            for volume in self.layout.volumes:
                self._find(volume)
            self.present, self.stuck = self._sort()
        except BaseException:
            self.close()
            raise
        self._unsettled: dict[int, set[int]] = {}

    def close(self) -> None:
        """Close all files."""
        super().close()
        self._base.release()

    def is_sound(self, number: int) -> bool:
        """Hash a blob again; what is in finished volumes was on its medium before they were.

        One that stands there in part cannot be hashed any more, and does not count as sound.
        """
        volumes = {place.volume for place in self.layout.pieces(number)}
        if volumes <= self._done.keys():
            return True
        if number in self._known and volumes.isdisjoint(self._files):
            sound = self._base.is_sound(number)
            self._known -= set() if sound else {number}
            return sound
        return super().is_sound(number)

    def require_room(self) -> None:
        """Do nothing: a medium may be exchanged, and each volume looks for room as it begins."""

    def make_room(self, number: int, wait: Callable[[int], None]) -> None:
        """Begin the volumes that a blob stands in, and all before them."""
        *before, last = self.layout.pieces(number)
        first = before[0] if before else last
        for volume in self.layout.volumes[: first.volume]:
            self._begin(volume, wait)
        for place in (*before, last)[1:]:
            self._begin_or_wait(place)

    def expect(self, blobs: Iterable[int]) -> None:
        """Take note of the blobs that are to come."""
        expected = set(blobs)
        for volume in self.layout.volumes:
            self._unsettled[volume.number] = expected.intersection(volume.blobs)

    def settled(self, number: int) -> None:
        """Take note that a blob will not change any more."""
        with self._opening:
            for place in self.layout.pieces(number):
                self._unsettled[place.volume].discard(number)

    def awaits_before(self, volume: int) -> bool:
        """Say whether blobs of earlier volumes are still to come, or under way."""
        with self._opening:
            return any(self._unsettled[number] for number in range(1, volume))

    def ripe(self) -> Volume | None:
        """Return a volume that is begun and in which nothing will change any more."""
        with self._opening:
            for number in sorted(self._names.keys() & self._files.keys()):
                if not self._unsettled[number]:
                    return self.layout.volumes[number - 1]
        return None

    def end(self, volume: Volume, present: set[int]) -> None:
        """Finish a volume, which may then be carried away."""
        with self._opening:
            self._write_record(volume, present)
            holes = frozenset(volume.blobs) - present
            super().end(volume, present)
            self._done[volume.number] = holes
            self._state.volume(volume.number, holes)
        self._say(
            f"{self._names[volume.number]}: volume {volume.number} of {len(self.layout.volumes)}"
            " is finished, and may be carried away"
        )

    def finish(self, present: set[int], wait: Callable[[int], None]) -> None:
        """Finish all volumes, those too that nothing had to be fetched for."""
        for settled in self._unsettled.values():
            settled.clear()
        for volume in self.layout.volumes:
            self._begin(volume, wait)
            if volume.number not in self._done:
                self.end(volume, present)
        self._base.release()
        with storage_errors(self.path):
            partial_path(self.path).unlink()
            sync_directory(self.path.parent)

    def _final(self, volume: Volume) -> Path:
        return self._names[volume.number]

    def _find(self, volume: Volume) -> None:
        """Find a volume, finished or not, or the piece that waits for it."""
        finished = self._media.find(volume.number)
        partial = self._media.find(volume.number, ".partial")
        if finished and self._holes_in(finished, volume):
            with storage_errors(finished):
                finished.replace(partial := partial_path(finished))
                sync_directory(finished.parent)
        elif finished:
            self._done[volume.number] = frozenset()
        elif not partial and volume.number in self._state.volumes:
            self._done[volume.number] = self._state.volumes[volume.number]
        if volume.number in self._done:
            return
        waiting = piece_path(self.path, volume.number)
        if partial:
            self._holes_in(partial, volume)
            self._files[volume.number] = GrowingFile(partial)
            self._names[volume.number] = partial.with_name(partial.name.removesuffix(".partial"))
        elif waiting.exists():
            self._open_waiting(volume)

    def _holes_in(self, path: Path, volume: Volume) -> frozenset[int]:
        """Return the holes of a volume. Raises UsageError when it is not one of this archive."""
        with ArchiveFile(path) as file:
            # A run that is killed may leave half of a record, and nobody needs it then.
            limit = file.record.limit if file.record else self.layout.limit
            ours = (self.id, volume.number, self.layout.limit)
            if (file.id, file.number, limit) != ours:
                raise UsageError(
                    f"{path}: is in the way, it is a volume of another archive",
                    hint="Move it, or write to another place.",
                )
            return frozenset(
                number
                for number, place in self.layout.content(volume)
                if file.at(place.offset, tar.BLOCK) == place.absent.header
            )

    def _sort(self) -> tuple[set[int], frozenset[int]]:
        present, stuck = set(), set()
        for number in range(len(self.plan.blobs)):
            places = self.layout.pieces(number)
            if places and all(self._is_there(number, place) for place in places):
                present.add(number)
            if any(number in self._done.get(place.volume, ()) for place in places):
                stuck.add(number)
        return present, frozenset(stuck)

    def _is_there(self, number: int, place: Entry) -> bool:
        if place.volume in self._done:
            return number not in self._done[place.volume]
        if file := self._files.get(place.volume):
            return file.read(tar.BLOCK, place.offset) == place.header
        return number in self._known

    def _begin_or_wait(self, place: Entry) -> None:
        """Begin the volume of a blob's further piece; without room the piece waits beside it."""
        volume = self.layout.volumes[place.volume - 1]
        with self._opening:
            if volume.number in self._files or volume.number in self._done:
                return
            if name := self._room_for(volume):
                self._write_begin(volume, name)
            else:
                self._open_waiting(volume)

    def _begin(self, volume: Volume, wait: Callable[[int], None]) -> None:
        """Begin a volume. Raises StorageError when there is no room and nobody to ask."""
        while True:
            with self._opening:
                if volume.number in self._names or volume.number in self._done:
                    return
                # A piece that waits may be in the middle of being written.
                is_waiting = volume.number in self._files
                if not is_waiting and (name := self._room_for(volume)):
                    self._write_begin(volume, name)
                    return
            wait(volume.number)
            with self._opening:
                if volume.number in self._names:
                    return
                if name := self._room_for(volume):
                    self._write_begin(volume, name)
                    return
                self._media.ask_for_room(volume.number, len(self.layout.volumes), volume.size)

    def _room_for(self, volume: Volume) -> Path | None:
        growing = [
            (self._files[number].path, self.layout.volumes[number - 1].size)
            for number in self._names.keys() & self._files.keys()
        ]
        return self._media.place(volume.number, volume.size, growing)

    def _open_waiting(self, volume: Volume) -> None:
        _, place = next(self.layout.content(volume))
        self._files[volume.number] = GrowingFile(piece_path(self.path, volume.number), place.offset)

    def _write_begin(self, volume: Volume, name: Path) -> None:
        """Write the head of a volume, what is known of its blobs, and the piece that waits."""
        if name.exists():
            raise StorageError(
                f"{name}: is in the way, there is a file of that name already",
                hint="Move it, or connect another medium, and run the same command again.",
            )
        new = name.with_name(name.name + ".new")
        with storage_errors(new):
            new.unlink(missing_ok=True)
        file = GrowingFile(new)
        try:
            self._write_head(volume, file)
            waiting = self._files.get(volume.number)
            if waiting:
                _, place = next(self.layout.content(volume))
                _copy(waiting.pieces(place.end - place.offset, place.offset), file, place.offset)
            for number, place in self.layout.content(volume):
                if number in self._known:
                    _copy(self._known_piece(number, place), file, place.content)
                    file.write(place.header, place.offset)
            with storage_errors(new):
                file.sync()
            file.rename(partial_path(name))
        except BaseException:
            file.close()
            raise
        self._files[volume.number], self._names[volume.number] = file, name
        if waiting:
            waiting.close()
            with storage_errors(waiting.path):
                waiting.path.unlink()

    def _write_head(self, volume: Volume, file: GrowingFile) -> None:
        base = self._base
        (whole,) = base.layout.volumes
        for entry, content in volume.documents:
            file.write(entry.header + (content or b""), entry.offset)
        inventory = self.layout.inventory
        _copy(base.content(whole, inventory.content, inventory.size), file, inventory.content)
        file.write(UNSIGNED, self.layout.signature.content)
        if volume.record:
            file.write(self._record(volume, None).text(), volume.record.content)
        for number in range(len(self.plan.manifests)):
            entry = self.layout.manifest(number)
            file.write(entry.header + base.manifest(number), entry.offset)

    def _known_piece(self, number: int, place: Entry) -> Iterator[bytes]:
        """Yield the part of a known blob that stands at one place."""
        left = place.size
        for piece in self._base.blob(self.plan.blobs[number], place.start):
            yield piece[:left]
            left -= len(piece)
            if left <= 0:
                return

    def _write_record(self, volume: Volume, present: set[int]) -> None:
        """Complete a volume's record with the digests of its pieces."""
        if volume.record is None:
            return
        file = self._files[volume.number]
        pieces = []
        for number, place in self.layout.pieces_in(volume):
            if number in present:
                hasher = Hasher()
                for piece in file.pieces(place.size, place.content):
                    hasher.update(piece)
                blob = self.plan.blobs[number].digest
                pieces.append(PieceRecord(blob, place.start, place.size, hasher.digest()))
        file.write(self._record(volume, tuple(pieces)).text(), volume.record.content)

    def _record(self, volume: Volume, pieces: tuple[PieceRecord, ...] | None) -> Record:
        limit = self.layout.limit or 0
        return Record(self.id, volume.number, len(self.layout.volumes), limit, pieces)


def _copy(pieces: Iterable[bytes], file: GrowingFile, offset: int) -> None:
    for piece in pieces:
        file.write(piece, offset)
        offset += len(piece)


def require_a_size(path: Path, options: VolumeOptions, state: State) -> None:
    """Raise UsageError for directories of volumes where nothing says how large those are."""
    sized = options.size or state.limit
    if options.directories and not sized and largest_file(options.directories[0]) is None:
        raise UsageError(
            f"{path}: directories for volumes, and no size",
            hint="Say --volume-size, or leave --volume-dir out.",
        )


def growing_files(
    path: Path, options: VolumeOptions, state: State, say: Callable[[str], None]
) -> GrowingFiles:
    """Open the files of an archive whose head is written, in volumes if it is to be in those.

    Without a size an archive that has been begun in volumes goes on so, and one that is larger
    than its file system's files can be gets volumes of that size. Raises UsageError,
    ArchiveError, StorageError.
    """
    if options.size and state.limit not in (None, options.size):
        raise UsageError(
            f"{path}: was begun in volumes of {state.limit} bytes, not of {options.size}",
            hint=f"Say --volume-size {state.limit}, or begin in another place.",
        )
    require_a_size(path, options, state)
    media, limit = Media(path, options), options.size or state.limit
    if limit is None and (largest := largest_file(media.directories[0])):
        with ArchiveReader(partial_path(path), unfinished=True) as reader:
            is_too_large = reader.layout.size > largest
        if is_too_large or options.directories:
            limit = largest
            say(f"{media.directories[0]} takes no larger files: writing volumes of {limit} bytes")
    if limit is None:
        return GrowingFiles(path)
    return GrowingVolumes(path, limit, media, state, say)
