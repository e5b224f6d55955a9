"""Where the catalog is in an image, and in which format.

Follows operator-registry's labels, and where there are none the places and the search that
``oc adm catalog mirror`` uses for catalogs made by ``oc adm catalog build``. Knows nothing of
layers: the files come as a tree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airgap.catalog import sqlite
from airgap.catalog.database import MAGIC
from airgap.errors import CatalogError, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airgap.catalog.model import Catalog
    from airgap.catalog.tree import StoredFile, Tree

CONFIGS_LABEL = "operators.operatorframework.io.index.configs.v1"
"""Names the directory of a file-based catalog; wins over the other label."""

DATABASE_LABEL = "operators.operatorframework.io.index.database.v1"
"""Names the database of a SQLite catalog."""

SQLITE = "sqlite"
"""The format of operator-registry's databases."""

_USUAL_PLACES = ("bundles.db", "database/index.db")


@dataclass(frozen=True, slots=True)
class Found:
    """A catalog, its format, and the path in the tree at which it was found."""

    catalog: Catalog
    format: str
    path: str


def read(tree: Tree, labels: Mapping[str, str]) -> Found:
    """Find and read the catalog in an image's files; ``labels`` are its configuration's.

    Raises CatalogError when there is none, or one that cannot be read; StorageError when
    there is no room for a private copy of a database.
    """
    if CONFIGS_LABEL in labels:
        raise CatalogError(
            "the image holds a file-based catalog (its label says"
            f" {printable(labels[CONFIGS_LABEL])!r}): not supported by this version"
        )
    if DATABASE_LABEL in labels:
        return _labelled(tree, labels[DATABASE_LABEL])
    return _searched(tree)


def _labelled(tree: Tree, location: str) -> Found:
    label = f"{DATABASE_LABEL}={printable(location)!r}"
    path = location.strip("/")
    if not path or ".." in path.split("/"):
        raise CatalogError(f"the image's label {label} is no path of a file")
    file = tree.find(path)
    if file is None:
        raise CatalogError(f"no catalog where the image's label {label} says: no such file")
    return _read(tree, file)


def _searched(tree: Tree) -> Found:
    """Take the first database with operator-registry's tables; others may be in the image."""
    failure: CatalogError | None = None
    for file in _databases(tree):
        try:
            return _read(tree, file)
        except sqlite.NotACatalog:
            continue
        except CatalogError as error:
            failure = failure or error
    raise failure or CatalogError(
        "no catalog in the image: no label says where it is, and no file is its database",
        hint="Is this the catalog image, not the image of one operator?",
    )


def _read(tree: Tree, file: StoredFile) -> Found:
    """Read a database, but not one whose last changes are still in a log beside it."""
    catalog = sqlite.read(file)
    log = tree.find(f"{file.path}-wal")
    if log is not None and log.size:
        raise CatalogError(
            f"{printable(file.path)}: changes in {printable(log.path)} were never written into it",
            hint="Whoever made the image must close the database before copying it.",
        )
    return Found(catalog, "sqlite", file.path)


def _databases(tree: Tree) -> Iterator[StoredFile]:
    usual = (tree.find(place) for place in _USUAL_PLACES)
    for file in (*filter(None, usual), *tree.files()):
        if file.magic == MAGIC:
            yield file
