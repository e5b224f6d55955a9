"""The documents of a file-based catalog: which files count, and what is in them.

Every file of the directory counts, hidden ones too, whatever its name, but for those that an
``.indexignore`` names. Knows nothing of what the documents mean.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from airgap import limits
from airgap.catalog import documents, indexignore
from airgap.catalog.notes import Place
from airgap.errors import CatalogError, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airgap.catalog.notes import Notes
    from airgap.catalog.tree import Listing, Tree

_IGNORE_FILE = limits.MIB
_IGNORE_PATTERNS = 1_000

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
    for link in listing.links:
        notes.lost(Place(link), "a link that leads to no file, and is not followed")
    ignored = _ignored(tree, directory, listing, notes)
    paths = [
        file.path
        for file in listing.files
        if _name(file.path) != indexignore.NAME and _below(directory, file.path) not in ignored
    ]
    if not paths:
        raise CatalogError(f"no catalog at {printable(directory or '.')!r}: no file in it")
    for path, pieces in tree.read_all(paths):
        yield from _mappings(path, pieces, notes)


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
    files: list[tuple[str, str]] = []
    patterns = 0
    for path, pieces in tree.read_all(paths):
        text = _ignore_text(pieces)
        patterns += text.count("\n") + 1 if text is not None else 0
        if text is None or patterns > _IGNORE_PATTERNS:
            notes.lost(Place(path), "no list of patterns, or a very long one; not followed")
        else:
            files.append((_below(directory, path).removesuffix(indexignore.NAME), text))
    return indexignore.IndexIgnore(files)


def _ignore_text(pieces: Iterator[bytes]) -> str | None:
    text = io.BytesIO()
    for piece in pieces:
        text.write(piece)
        if text.tell() > _IGNORE_FILE:
            return None
    try:
        return text.getvalue().decode("utf-8")
    except UnicodeDecodeError:
        return None


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _below(directory: str, path: str) -> str:
    return path.removeprefix(directory).lstrip("/")
