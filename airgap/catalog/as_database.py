"""A catalog's database on the local disk, for everybody's SQL, whatever format it came in.

One that has a database keeps it as it is; of any other one is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airgap.catalog import database_writer, formats, read
from airgap.errors import CatalogError, printable
from airgap.storage import storage_errors

if TYPE_CHECKING:
    from pathlib import Path

    from airgap.catalog.read import Found
    from airgap.catalog.tree import Tree


def save(tree: Tree, found: Found, path: Path) -> None:
    """Put the database of a catalog that was found in a tree under a name.

    What was there stays until the new one is whole. Raises StorageError; CatalogError when
    the catalog's own database has gone.
    """
    if found.format != formats.SQLITE:
        database_writer.write(found.catalog, path, read.contents(tree, found))
        return
    file = tree.find(found.path)
    if file is None:
        raise CatalogError(f"{printable(found.path)}: gone, where a database was a moment ago")
    temporary = path.with_name(path.name + ".new")
    with storage_errors(path):
        try:
            with temporary.open("wb") as target:
                file.copy_to(target)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
