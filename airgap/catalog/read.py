"""Where the catalog is, and in which format: in an image, or on the local disk.

Follows operator-registry's labels, and where there are none the places and the search that
``oc adm catalog mirror`` uses for catalogs made by ``oc adm catalog build``; after databases it
looks for package manifests. Knows nothing of layers: the files come as a tree.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from airgap.catalog import (
    clusterserviceversion,
    filebased,
    filebased_contents,
    filebased_documents,
    packagemanifests,
    packagemanifests_contents,
    sqlite,
)
from airgap.catalog.database import MAGIC, require_finished
from airgap.catalog.formats import (
    CONFIGS_LABEL,
    DATABASE_LABEL,
    FILE_BASED,
    PACKAGE_MANIFESTS,
    SQLITE,
)
from airgap.catalog.notes import Notes
from airgap.catalog.shapes import folded
from airgap.catalog.tree import LocalFile, LocalTree
from airgap.errors import CatalogError, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from airgap.catalog.content import BundleContent
    from airgap.catalog.model import Catalog
    from airgap.catalog.tree import StoredFile, Tree

_TOP = ""

_USUAL_PLACES = ("bundles.db", "database/index.db")


@dataclass(frozen=True, slots=True)
class Found:
    """A catalog, its format, and where in the tree it was found: ``path`` is what they share.

    It may be in several ``places`` only as package manifests.
    """

    catalog: Catalog
    format: str
    path: str
    places: tuple[str, ...]


def read(tree: Tree, labels: Mapping[str, str]) -> Found:
    """Find and read the catalog in an image's files; ``labels`` are its configuration's.

    Raises CatalogError when there is none, or one that cannot be read; StorageError when
    there is no room for a private copy of a database.
    """
    if CONFIGS_LABEL in labels:
        directory = _labelled(CONFIGS_LABEL, labels)
        return _found(filebased.read(tree, directory), FILE_BASED, directory)
    if DATABASE_LABEL in labels:
        path = _labelled(DATABASE_LABEL, labels)
        file = tree.find(path) if path else None
        if file is None:
            label = f"{DATABASE_LABEL}={printable(labels[DATABASE_LABEL])!r}"
            raise CatalogError(f"no catalog where the image's label {label} says: no such file")
        return _read(tree, file)
    return _searched(tree)


def read_at(tree: Tree, labels: Mapping[str, str], place: str) -> Found:
    """Read the catalog at a place in an image, a file or a directory, whatever a label says.

    A label only tells a file-based catalog from others. Raises as ``read`` does.
    """
    path = place.strip("/")
    if CONFIGS_LABEL in labels:
        return read(tree, {CONFIGS_LABEL: place})
    if tree.find(path) is not None:
        return read(tree, {DATABASE_LABEL: place})
    listing = tree.listing(path)
    if listing is None:
        raise CatalogError(f"no catalog at {printable(place)}: there is no such file or directory")
    for file in listing.files:
        if file.magic == MAGIC:
            with suppress(sqlite.NotACatalog):
                return _read(tree, file)
    return _found(packagemanifests.read(tree, [path]), PACKAGE_MANIFESTS, path)


def read_local(path: Path) -> tuple[LocalTree, Found]:
    """Read a catalog on the local disk: a database, or a directory in any format.

    Returns the tree too in which it was found. What a directory holds is told by its files'
    content. Raises UsageError for what is neither file nor directory, and as ``read`` does.
    """
    if not path.is_dir():
        tree = LocalTree(path.parent)
        return tree, _read(tree, tree.find(path.name) or LocalFile.at(path))
    tree = LocalTree(path)
    found = _database_or(_by_content, tree)
    if found is None:
        raise tree.first_closed() or CatalogError(
            f"no catalog in {printable(str(path))}: no database, no file with a schema of OLM's,"
            " no package and no ClusterServiceVersion",
            hint=_first_fault(tree),
        )
    return tree, found


def contents(tree: Tree, found: Found) -> Iterator[BundleContent]:
    """Give what a catalog holds of its bundles beyond the model, for a database to be written.

    Nothing of one that is a database already. Raises as ``read`` does.
    """
    if found.format == FILE_BASED:
        yield from filebased_contents.contents(tree, found.path)
    elif found.format == PACKAGE_MANIFESTS:
        yield from packagemanifests_contents.contents(tree, found.places)


def _found(catalog: Catalog, format_: str, *places: str) -> Found:
    return Found(catalog, format_, os.path.commonpath(places), places)


def _labelled(label: str, labels: Mapping[str, str]) -> str:
    """Return the path that a label gives, relative to the top. Raises CatalogError."""
    path = labels[label].strip("/")
    if ".." in path.split("/") or not (path or (label == CONFIGS_LABEL and labels[label])):
        shown = f"{label}={printable(labels[label])!r}"
        raise CatalogError(f"the image's label {shown} is no path of a file or directory")
    return path


def _searched(tree: Tree) -> Found:
    found = _database_or(_manifests, tree)
    if found is None:
        raise CatalogError(
            "no catalog in the image: no label says where it is, no file is its database, and"
            " there are no package manifests",
            hint="Is this the catalog image, not the image of one operator?",
        )
    return found


def _database_or(other: Callable[[Tree], Found | None], tree: Tree) -> Found | None:
    """Take a database, else what ``other`` finds; a damaged one is told then, else raised."""
    try:
        return _database(tree) or other(tree)
    except CatalogError as error:
        found = other(tree)
        if found is None:
            raise
        problems = (f"{error.message}; it is passed over", *found.catalog.problems)
        return replace(found, catalog=replace(found.catalog, problems=problems))


def _database(tree: Tree) -> Found | None:
    """Take the first database with operator-registry's tables; others may be in the image."""
    failure: CatalogError | None = None
    for file in _databases(tree):
        try:
            return _read(tree, file)
        except sqlite.NotACatalog:
            continue
        except CatalogError as error:
            failure = failure or error
    if failure:
        raise failure
    return None


def _manifests(tree: Tree) -> Found | None:
    places = packagemanifests.places(tree)
    if not places:
        return None
    catalog = packagemanifests.read(tree, places)
    if not catalog.packages and not catalog.bundles:
        return None
    return _found(catalog, PACKAGE_MANIFESTS, *places)


def _by_content(tree: Tree) -> Found | None:
    """Take documents with a schema of OLM's, wherever they are, else package manifests."""
    if _is_file_based(tree):
        return _found(filebased.read(tree, _TOP), FILE_BASED, _TOP)
    if packagemanifests.places(tree) or _has_manifests(tree):
        return _found(packagemanifests.read(tree, [_TOP]), PACKAGE_MANIFESTS, _TOP)
    return None


def _is_file_based(tree: Tree) -> bool:
    with suppress(CatalogError):
        documents = filebased_documents.read(tree, _TOP, Notes())
        return any(str(folded(d).get("schema")).startswith("olm.") for _, d in documents)
    return False


def _has_manifests(tree: Tree) -> bool:
    documents = packagemanifests.first_documents(tree, [_TOP], Notes())
    return any(
        clusterserviceversion.is_one(d) or packagemanifests.is_package(d) for _, d in documents
    )


def _first_fault(tree: Tree) -> str | None:
    notes = Notes()
    for _ in packagemanifests.first_documents(tree, [_TOP], notes):
        pass
    return f"Not all of it can be read: {notes.faults[0]}" if notes.faults else None


def _read(tree: Tree, file: StoredFile) -> Found:
    """Read a database, but not one whose last changes are still in a file beside it."""
    catalog = sqlite.read(file)
    require_finished(file, tree)
    return _found(catalog, SQLITE, file.path)


def _databases(tree: Tree) -> Iterator[StoredFile]:
    usual = (tree.find(place) for place in _USUAL_PLACES)
    for file in (*filter(None, usual), *tree.files()):
        if file.magic == MAGIC:
            yield file
