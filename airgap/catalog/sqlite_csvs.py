"""What the ClusterServiceVersions in operator-registry's tables name beyond ``related_image``.

Only to say so: whatever cannot be read here is left out, and no image depends on it.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from airgap.catalog import clusterserviceversion
from airgap.catalog.notes import Place

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from airgap.catalog.database import Database
    from airgap.catalog.notes import Notes


def look_into(database: Database, images: Callable[[str], Container[str]], notes: Notes) -> None:
    """Note the variables that name no image of their bundle.

    ``images`` gives those of a bundle, by its name. Raises CatalogError for more rows than any
    catalog has.
    """
    place = Place(database.name)
    try:
        for name, csv in database.rows("operatorbundle", "name", "csv"):
            if isinstance(csv, bytes) and isinstance(name, bytes):
                wanted = images(name.decode("utf-8"))
                for line in clusterserviceversion.unlisted_in(csv, wanted):
                    notes.often(place, line)
    except sqlite3.Error:
        notes.odd(place, "not all of operatorbundle.csv can be read")
