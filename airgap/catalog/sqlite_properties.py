"""What operator-registry's tables say that bundles provide and require.

Before level 6 the tables of APIs know a bundle by its channel entries, later by its name; the
tables ``dependencies`` (level 8) and ``properties`` (level 9) repeat what they say, and more. A
value that cannot be read costs itself alone and is a problem: images do not depend on it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airgap import strict_json
from airgap.catalog import properties
from airgap.catalog.database import NoText
from airgap.catalog.notes import Place
from airgap.catalog.properties import Api, Requirement
from airgap.errors import MalformedContent, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from airgap.catalog.database import Database
    from airgap.catalog.notes import Notes

_VALUE = 128 * 1024
"""Characters of one value that says what is required; OLM's own limit for a constraint."""


@dataclass(slots=True)
class Properties:
    """By the names of bundles, in the order of the rows, each once."""

    provides: dict[str, dict[Api, None]] = field(default_factory=lambda: defaultdict(dict))
    requires: dict[str, dict[Requirement, None]] = field(default_factory=lambda: defaultdict(dict))


def read(database: Database, notes: Notes) -> Properties:
    """Read the four tables, as far as the database has them. Raises CatalogError."""
    found = Properties()
    entries = _bundles_of_entries(database)
    for bundle, api in _apis(database, "api_provider", entries, notes):
        found.provides[bundle][api] = None
    for bundle, api in _apis(database, "api_requirer", entries, notes):
        found.requires[bundle][api] = None
    for table, add in (("dependencies", _add_dependency), ("properties", _add_property)):
        rows = database.rows(table, "type", "value", "operatorbundle_name")
        for kind, value, bundle in _texts(database, table, rows, notes):
            what = f"{table}: {printable(kind)} of {printable(bundle)!r}"
            try:
                add(found, bundle, kind, value, what)
            except MalformedContent as error:
                notes.odd(Place(database.name), error.message)
    return found


def _texts(
    database: Database, table: str, rows: Iterable[tuple[object, ...]], notes: Notes
) -> Iterator[tuple[str, ...]]:
    """Give the rows that are text, and note the others."""
    for row in rows:
        try:
            texts = tuple([database.text(value, table) for value in row])
        except NoText as error:
            notes.odd(Place(database.name), error.why)
        else:
            yield texts


def _bundles_of_entries(database: Database) -> dict[object, str]:
    """Return the bundle of every channel entry, where APIs know no other name for it."""
    if "channel_entry_id" not in database.columns("api_provider"):
        return {}
    rows = database.rows("channel_entry", "entry_id", "operatorbundle_name")
    return {number: database.text(bundle, "channel_entry") for number, bundle in rows}


def _apis(
    database: Database, table: str, entries: Mapping[object, str], notes: Notes
) -> Iterator[tuple[str, Api]]:
    columns = ("channel_entry_id", "operatorbundle_name", "group_name", "version", "kind")
    for entry, *row in database.rows(table, *columns):
        for bundle, *api in _texts(database, table, [tuple(row)], notes):
            yield bundle or entries.get(entry, ""), Api(*api)


def _add_dependency(found: Properties, bundle: str, kind: str, value: str, what: str) -> None:
    requirement = properties.depended_on(kind, _content(value, what), what)
    found.requires[bundle][requirement] = None


def _add_property(found: Properties, bundle: str, kind: str, value: str, what: str) -> None:
    """Add what a property says; most say nothing of this, and some are large."""
    if kind not in properties.TYPES:
        return
    content = _content(value, what)
    api = properties.provided(kind, content, what)
    if api is not None:
        found.provides[bundle][api] = None
    requirement = properties.required(kind, content, what)
    if requirement is not None:
        found.requires[bundle][requirement] = None


def _content(value: str, what: str) -> Any:
    if len(value) > _VALUE:
        raise MalformedContent(f"{what}: more than {_VALUE} characters")
    return strict_json.parse(value.encode("utf-8"), what)
