"""Finding an archive's volumes among files, by what is in them and not by their names.

People rename files, copy them twice, mix the disks of two months. What belongs together is
put together here, and what is double or foreign is named. Knows what files say of themselves,
and nothing of plans.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airgap.archive.file import ArchiveFile, is_archive
from airgap.errors import ArchiveError, StorageError, UsageError
from airgap.storage import storage_errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from airgap.digest import Digest

WHOLE = 1
"""The number under which an archive of one file is kept."""


@dataclass
class VolumeSet:
    """The files of one archive, by volume.

    ``limit`` is the size that its volumes do not exceed; None for an archive of one file.
    ``problems`` are files that were named and do not belong, or cannot be read as a volume;
    ``notes`` what was found beside it and left alone.
    """

    id: Digest
    limit: int | None
    files: dict[int, ArchiveFile]
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def close(self) -> None:
        """Let go of all files."""
        for file in self.files.values():
            file.close()


def find(paths: Sequence[Path]) -> VolumeSet:
    """Find the volumes of one archive in files and directories, in any order.

    A directory is searched, and those that are directly in it; what is no archive there, or
    not finished, is ignored. The first file that is named decides which archive it is about.

    Raises FileNotFoundError, UsageError where there is none or more than one to choose from,
    ArchiveError when a file that is named is none and there is no other, StorageError.
    """
    search = _Search()
    try:
        for path in paths:
            search.look_at(path)
        found = search.chosen()
    except BaseException:
        search.close()
        raise
    search.close(but=found)
    return found


def volumes_in(paths: Iterable[Path]) -> list[Path]:
    """Return those files that are volumes; what else there is has only the name of one.

    Raises StorageError.
    """
    found = []
    for path in paths:
        if path.is_file() and is_archive(path):
            with ArchiveFile(path) as file:
                if file.number is not None:
                    found.append(path)
    return found


def by_archive(paths: Iterable[Path]) -> list[list[Path]]:
    """Sort files and directories that hold archives, several of them, by archive.

    Volumes of one come together, in the place of the first. An archive in one file, or in a
    directory, stays alone, also beside a copy of it. What cannot be opened is left to whoever
    opens it. Raises UsageError, StorageError.
    """
    groups: list[list[Path]] = []
    volumes: dict[Digest, list[Path]] = {}
    for path in paths:
        identity = None
        if not path.is_dir():
            with suppress(FileNotFoundError, ArchiveError), ArchiveFile(path) as file:
                identity = file.id if file.number else None
        if identity in volumes:
            volumes[identity].append(path)
            continue
        groups.append([path])
        if identity is not None:
            volumes[identity] = groups[-1]
    return groups


def candidates(directory: Path) -> Iterator[Path]:
    """Yield the files of a directory, and of those directly in it, that may be volumes.

    Raises StorageError when the directory itself cannot be listed.
    """
    with storage_errors(directory):
        members = sorted(directory.iterdir())
    for member in members:
        if member.is_symlink() and member.is_dir():
            continue
        try:
            inside = sorted(member.iterdir()) if member.is_dir() else [member]
        except OSError:
            continue
        yield from (path for path in inside if path.suffix != ".partial" and path.is_file())


def holds_volumes(directory: Path) -> bool:
    """Say whether there is an archive in a directory, or a volume of one. StorageError."""
    return directory.is_dir() and any(map(is_archive, candidates(directory)))


class _Search:
    def __init__(self) -> None:
        self._found: list[ArchiveFile] = []
        self._named: set[ArchiveFile] = set()
        self._unreadable: list[ArchiveError] = []
        self._failing: list[StorageError] = []
        self._searched: list[Path] = []

    def look_at(self, path: Path) -> None:
        if not os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises for some names
            try:
                file = ArchiveFile(path)
            except ArchiveError as error:
                self._unreadable.append(error)
                return
            if self._take(file):
                self._named.add(file)
            return
        self._searched.append(path)
        for member in candidates(path):
            try:
                if is_archive(member):
                    self._take(ArchiveFile(member))
            except ArchiveError as error:
                self._unreadable.append(error)
            except StorageError as error:
                self._failing.append(error)

    def _take(self, file: ArchiveFile) -> bool:
        """Take a file; False when it was found before, under this name or another."""
        if any(file.inode == known.inode for known in self._found):
            file.close()
            return False
        self._found.append(file)
        return True

    def chosen(self) -> VolumeSet:
        """Put together what belongs together, and choose the one archive that is meant."""
        if not self._found:
            for error in (*self._failing, *self._unreadable):
                raise error
            where = ", ".join(map(str, self._searched))
            raise UsageError(f"{where}: no archive and no volume of one in it")
        files = [file for file in self._found if not file.is_cut_in_the_head] or self._found
        for file in self._found:
            if file not in files:
                self._unreadable.append(ArchiveError(f"{file.path}: cut short: {file.size} bytes"))
        groups = _grouped(files)
        named = [file for file in files if file in self._named]
        if named:
            identity = next(key[0] for key, files in groups.items() if named[0] in files)
        elif len({identity for identity, _ in groups}) == 1:
            identity = next(iter(groups))[0]
        else:
            listed = "; ".join(f"{key[0]}: {_names(files)}" for key, files in groups.items())
            raise UsageError(
                f"more than one archive to choose from: {listed}",
                hint="Name the files of one of them.",
            )
        key = max(
            (key for key in groups if key[0] == identity),
            key=lambda key: (len(self._named.intersection(groups[key])), len(groups[key])),
        )
        notes = [f"not read: {error.message}" for error in self._failing]
        found = VolumeSet(*key, {}, [error.message for error in self._unreadable], notes)
        # Of two copies the longer one: the other may have been cut short.
        for file in sorted(groups.pop(key), key=lambda file: -file.size):
            number = file.number or WHOLE
            if number in found.files:
                found.notes.append(f"double: {_what(file)}, as {found.files[number].path}")
            else:
                found.files[number] = file
        for (other, limit), files in groups.items():
            is_mixed = other == identity and None not in (limit, key[1])
            kind = "this archive in another form" if other == identity else f"another, {other}"
            for file in files:
                told = f"foreign: {_what(file)} of {kind}"
                matters = is_mixed or file in self._named
                (found.problems if matters else found.notes).append(told)
        return found

    def close(self, but: VolumeSet | None = None) -> None:
        kept = set(but.files.values()) if but else set()
        for file in self._found:
            if file not in kept:
                file.close()


def _grouped(found: Iterable[ArchiveFile]) -> dict[tuple[Digest, int | None], list[ArchiveFile]]:
    """Group files by archive and by the way in which it was cut."""
    found = list(found)
    sound = {f.id for f in found if f.record is None or f.record.archive == f.id}
    limits: dict[Digest, int] = {}
    for file in found:
        if file.record:
            limits.setdefault(_identity(file, sound), file.record.limit)
    groups: dict[tuple[Digest, int | None], list[ArchiveFile]] = {}
    for file in found:
        identity, limit = _identity(file, sound), None
        if file.record:
            limit = file.record.limit
        elif file.number:  # A volume whose record is damaged.
            limit = limits.get(identity)
        groups.setdefault((identity, limit), []).append(file)
    return groups


def _identity(file: ArchiveFile, sound: set[Digest]) -> Digest:
    """Return which archive a file is of, when its inventory or its record may be damaged."""
    stated = file.record.archive if file.record else file.id
    return stated if stated in sound else file.id


def _what(file: ArchiveFile) -> str:
    return f"{file.path} is " + (f"volume {file.number}" if file.number else "all")


def _names(files: Iterable[ArchiveFile]) -> str:
    return ", ".join(str(file.path) for file in files)
