"""A catalog that names what nobody could mean: text of any kind where references should be."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from airgap.registry.directory import DirectoryStore
from tests.support.lab import CATALOG, CATALOGS, build_lab
from tests.support.site import SMALL, Supply
from tests.support.upstream import StoreUpstream

if TYPE_CHECKING:
    from pathlib import Path


def supply_naming(folder: Path, *texts: str) -> Supply:
    """Make an upstream whose catalog names these texts, beside images that are there."""
    database, upstream = folder / "odd.db", folder / "upstream"
    shutil.copyfile(CATALOGS / "oc-test.db", database)
    with closing(sqlite3.connect(database)) as connection, connection:
        query = "SELECT min(operatorbundle_name) FROM related_image"
        (bundle,) = connection.execute(query).fetchone()
        rows = [(text, bundle) for text in texts]
        connection.executemany("INSERT INTO related_image VALUES (?, ?)", rows)
    store = StoreUpstream(DirectoryStore(upstream, durable=False))
    return Supply(upstream, build_lab(database, store, recipe=SMALL, catalog=CATALOG))
