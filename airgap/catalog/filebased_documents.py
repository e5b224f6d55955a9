"""The documents of a file-based catalog: which files count, and what is in them.

Every file of the directory counts, hidden ones too, whatever its name, but for those that an
``.indexignore`` names. Knows nothing of what the documents mean.
"""

from __future__ import annotations

import io
import itertools
from bisect import bisect
from typing import TYPE_CHECKING, Any

from airgap import limits
from airgap.catalog import documents, indexignore
from airgap.catalog.notes import Place
from airgap.catalog.tree import Closed
from airgap.errors import CatalogError, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airgap.catalog.notes import Notes
    from airgap.catalog.tree import Listing, Tree

_IGNORE_FILE = limits.MIB
_IGNORE_PATTERNS = 20_000
"""In all files that say what to ignore."""
_IGNORE_MATCHES = 20_000_000
"""Patterns times the names that they are held against, some seconds' work."""

_BEHIND = chr(ord("/") + 1)
"""What sorts behind everything in a directory, where ``/`` sorts before."""

_FAULTS_PER_FILE = 100
"""After so many a file is no catalog's, and not read to its end."""


def read(tree: Tree, directory: str, notes: Notes) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Give every document that is a mapping, and note what else there is.

    Files come in the order in which the tree gives them. Raises CatalogError when there is no
    such directory, or no file in it.
    """
    listing = tree.listing(directory)
    if listing is None:
        raise CatalogError(f"no catalog at {printable(directory)!r}: no such directory")
    ignored = _ignored(tree, directory, listing, notes)
    for link in listing.links:
        if _below(directory, link) not in ignored:
            notes.lost(Place(link), "a link that leads to no file, and is not followed")
    paths = [
        file.path
        for file in listing.files
        if _name(file.path) != indexignore.NAME and _below(directory, file.path) not in ignored
    ]
    if not paths:
        raise CatalogError(f"no catalog at {printable(directory or '.')!r}: no file in it")
    for path, pieces in tree.read_all(paths):
        try:
            yield from _mappings(path, pieces, notes)
        except Closed as closed:
            notes.lost(Place(path), printable(closed.why))


def _mappings(
    path: str, pieces: Iterator[bytes], notes: Notes
) -> Iterator[tuple[Place, dict[str, Any]]]:
    faults = 0
    for document in documents.read(pieces):
        place = Place(path, document.number, document.line)
        match document:
            case documents.Document(value=dict(value)):
                for oddity in document.oddities:
                    notes.odd(place, oddity)
                yield place, value
                continue
            case documents.Document(value=None):
                continue
            case documents.Unreadable(why=why):
                notes.lost(place, why)
            case _:
                notes.lost(place, "neither a mapping nor empty")
        faults += 1
        if faults == _FAULTS_PER_FILE:
            notes.lost(place, f"{faults} faults: the rest of the file was not read")
            return


def _ignored(tree: Tree, directory: str, listing: Listing, notes: Notes) -> indexignore.IndexIgnore:
    paths = [file.path for file in listing.files if _name(file.path) == indexignore.NAME]
    names = _Names(file.path for file in listing.files)
    ignored = indexignore.IndexIgnore()
    patterns, matches = _IGNORE_PATTERNS, _IGNORE_MATCHES
    for path, pieces in tree.read_all(paths):
        text = _ignore_text(pieces)
        here = _below(directory, path).removesuffix(indexignore.NAME)
        found = indexignore.lines(text or "")
        work = len(found) * names.below(path.rpartition("/")[0])
        if text is None or len(found) > patterns or work > matches:
            notes.lost(Place(path), "no list of patterns, or a very long one; not followed")
        else:
            patterns -= len(found)
            matches -= work
            ignored.add(here, found)
    return ignored


class _Names:
    """How many names the paths of files have, in any directory."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = sorted(paths)
        self._sums = [0, *itertools.accumulate(path.count("/") + 1 for path in self._paths)]

    def below(self, directory: str) -> int:
        """Count those of the files below a directory."""
        if not directory:
            return self._sums[-1]
        first, last = (bisect(self._paths, directory + after) for after in ("/", _BEHIND))
        return self._sums[last] - self._sums[first]


def _ignore_text(pieces: Iterator[bytes]) -> str | None:
    text = io.BytesIO()
    try:
        for piece in pieces:
            text.write(piece)
            if text.tell() > _IGNORE_FILE:
                return None
        return text.getvalue().decode("utf-8")
    except (Closed, UnicodeDecodeError):
        return None


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _below(directory: str, path: str) -> str:
    return path.removeprefix(directory).lstrip("/")
