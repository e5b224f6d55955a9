"""A SQLite catalog reduced to a part of its bundles: the same database with fewer rows.

What is left of bundles, APIs, properties and images stays as it was, at whatever schema level.
Packages, channels and their entries are written anew, as the reduced catalog has them. Knows
what the tables mean; how to change a database that cannot be trusted is ``database_copy``'s.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from airgap.catalog.database_copy import changed
from airgap.catalog.database_entries import EntryRows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Set
    from pathlib import Path

    from airgap.catalog.database_copy import DatabaseCopy
    from airgap.catalog.model import Catalog, Package
    from airgap.catalog.tree import StoredFile

_NAME = "operatorbundle_name"
_OF_BUNDLES = ("related_image", "dependencies", "properties", "deprecated")
_OF_APIS = ("api_provider", "api_requirer")
_API = ("group_name", "version", "kind")

_ENTRY = "channel_entry_id"
"""By which the tables of APIs know a bundle before level 6."""

_Place = tuple[str, str, str]
"""The names of a package, a channel and a bundle: where an entry is."""

_Apis = list[tuple[tuple[str, ...], _Place]]
"""APIs, each with the entry that has it."""


def write(file: StoredFile, catalog: Catalog, target: Path) -> Set[str]:
    """Write a catalog's database reduced to ``catalog`` into the file ``target``.

    Returns the names of the bundles whose ClusterServiceVersion it does not hold. Raises
    CatalogError for what is wrong with the database, StorageError.
    """
    kept = {bundle.name for bundle in catalog.bundles}
    entries = EntryRows([(p.name, channel) for p in catalog.packages for channel in p.channels])
    with changed(file, target) as database:
        apis = {table: _apis(database, table) for table in _OF_APIS}
        _write_graph(database, catalog.packages, entries)
        database.keep("operatorbundle", ("name",), kept.__contains__)
        for table in _OF_BUNDLES:
            database.keep(table, (_NAME,), kept.__contains__)
        for table in _OF_APIS:
            if _ENTRY in database.columns(table):
                database.fill(table, (*_API, _ENTRY), _renumbered(apis[table], entries.own))
            else:
                database.keep(table, (_NAME,), kept.__contains__)
        used = {api for table in _OF_APIS for api in database.texts(table, *_API)}
        database.keep("api", _API, lambda *api: api in used)
        bundles = database.rows("operatorbundle", "name", "csv")
        return {database.text(name, "operatorbundle") for name, csv in bundles if not csv}


def _write_graph(database: DatabaseCopy, packages: Iterable[Package], entries: EntryRows) -> None:
    database.fill(
        "channel_entry",
        ("entry_id", "channel_name", "package_name", _NAME, "replaces", "depth"),
        entries.rows(),
    )
    database.fill(
        "channel",
        ("name", "package_name", "head_operatorbundle_name"),
        ((channel.name, p.name, channel.head) for p in packages for channel in p.channels),
    )
    database.fill(
        "package", ("name", "default_channel"), ((p.name, p.default_channel) for p in packages)
    )


def _apis(database: DatabaseCopy, table: str) -> _Apis:
    """Return the APIs of channel entries, where a table knows these; nothing elsewhere."""
    if _ENTRY not in database.columns(table):
        return []
    places: dict[object, _Place] = {}
    columns = ("entry_id", "package_name", "channel_name", _NAME)
    for number, *names in database.rows("channel_entry", *columns):
        package, channel, bundle = (database.text(name, "channel_entry") for name in names)
        places[number] = package, channel, bundle
    return [
        (tuple(database.text(part, table) for part in api), places[number])
        for *api, number in database.rows(table, *_API, _ENTRY)
        if number in places
    ]


def _renumbered(apis: _Apis, own: Mapping[_Place, int]) -> Iterable[tuple[object, ...]]:
    """Return rows of APIs, each once, with the numbers that their entries have now.

    Where the entry is gone and its bundle is not, the bundle's other entries have them.
    """
    others: dict[str, list[int]] = defaultdict(list)
    for (_, _, bundle), number in own.items():
        others[bundle].append(number)
    rows: dict[tuple[object, ...], None] = {}
    for api, place in apis:
        numbers = [own[place]] if place in own else others[place[2]]
        rows.update(dict.fromkeys((*api, number) for number in numbers))
    return rows
