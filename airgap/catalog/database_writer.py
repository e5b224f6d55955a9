"""A catalog of any format as operator-registry's SQLite database, schema level 13.

Tables, columns and keys are those that operator-registry, ``opm`` and everybody's queries know;
the same catalog gives the same bytes, on any day. What the model knows goes in first; objects
and properties follow one bundle at a time, so they need not be in memory together.

The tables know a bundle by its name alone, and one skip range for it in all channels. Where a
catalog has several bundles of one name, their images are put together under it; nothing that
is wanted gets lost.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
from collections import defaultdict
from contextlib import closing
from typing import TYPE_CHECKING, Any

from airgap.catalog.content import as_json
from airgap.catalog.database_entries import EntryRows
from airgap.catalog.database_schema import BUNDLE_KEY, FINISH, SCHEMA
from airgap.catalog.properties import AllOf, AnyOf, Api, NoneOf, PackageVersions, Undecided
from airgap.errors import StorageError
from airgap.storage import storage_errors, sync_directory

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from airgap.catalog.content import BundleContent
    from airgap.catalog.model import Bundle, Catalog, ChannelEntry
    from airgap.catalog.properties import Requirement

_SETTINGS = (
    "PRAGMA page_size = 4096",
    "PRAGMA encoding = 'UTF-8'",
    "PRAGMA journal_mode = OFF",
    "PRAGMA synchronous = OFF",
)
"""For a file that is not there for anybody until it is whole."""

_PROPERTIES_PER_BUNDLE = 1 << 20

_LIBRARY_VERSION_AT = 96
"""Where the header says which version of SQLite wrote it last, which nothing depends on."""


def write(catalog: Catalog, path: Path, contents: Iterable[BundleContent] = ()) -> None:
    """Write a database under a name, or leave what was there.

    ``contents`` may come in any order; those of bundles that the catalog does not have are
    left out. Raises StorageError, and whatever ``contents`` raises.
    """
    temporary = path.with_name(path.name + ".new")
    try:
        with storage_errors(path):
            temporary.unlink(missing_ok=True)
            _write(catalog, temporary, contents)
            forget_library(temporary)
            temporary.replace(path)
            sync_directory(path.parent)
    except sqlite3.Error as error:
        raise StorageError(f"{path}: cannot be written: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _write(catalog: Catalog, path: Path, contents: Iterable[BundleContent]) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for setting in _SETTINGS:
            connection.execute(setting)
        connection.executescript(SCHEMA)
        connection.execute("BEGIN")
        _Writer(connection, catalog).write(contents)
        connection.execute("COMMIT")
        connection.execute("VACUUM")


def forget_library(path: Path) -> None:
    """Leave out of a database which version of SQLite made it, and make the file last."""
    with path.open("r+b") as file:
        file.seek(_LIBRARY_VERSION_AT)
        file.write(bytes(4))
        file.flush()
        os.fsync(file.fileno())


class _Writer:
    """Fills the tables of one database."""

    def __init__(self, connection: sqlite3.Connection, catalog: Catalog) -> None:
        self._connection = connection
        self._catalog = catalog
        self._bundles: dict[str, list[Bundle]] = defaultdict(list)
        for bundle in catalog.bundles:
            self._bundles[bundle.name].append(bundle)
        self._entries: dict[str, list[ChannelEntry]] = defaultdict(list)
        for package in catalog.packages:
            for entry in itertools.chain(*(channel.entries for channel in package.channels)):
                self._entries[entry.bundle].append(entry)
        self._places = {name: place for place, name in enumerate(self._bundles)}

    def write(self, contents: Iterable[BundleContent]) -> None:
        """Write all tables."""
        self._write_packages()
        for name, bundles in self._bundles.items():
            self._write_bundle(name, bundles)
        others = ((image, None) for image in self._catalog.other_images)
        self._insert("related_image", others)
        described: set[str] = set()
        for content in contents:
            if content.bundle in self._places:
                self._write_content(content, described)
        for name in self._places.keys() - described:
            self._write_properties(name, _properties(self._bundles[name]))
        for statement in filter(str.strip, FINISH.split(";")):
            self._connection.execute(statement)

    def _write_packages(self) -> None:
        packages = self._catalog.packages
        self._insert("package", ((package.name, package.default_channel) for package in packages))
        channels = [(package.name, channel) for package in packages for channel in package.channels]
        self._insert("channel", ((channel.name, name, channel.head) for name, channel in channels))
        self._insert("channel_entry", EntryRows(channels).rows())

    def _write_bundle(self, name: str, bundles: list[Bundle]) -> None:
        """Write a bundle and what it wants, provides and requires."""
        key = (name, _version(bundles), _image(bundles))
        entries = self._entries[name]
        self._insert(
            "operatorbundle",
            [
                (
                    name,
                    None,
                    None,
                    key[2],
                    next((entry.skip_range for entry in entries if entry.skip_range), ""),
                    key[1],
                    _agreed({entry.replaces for entry in entries}),
                    _agreed({",".join(entry.skips) for entry in entries}),
                    next((b.substitutes_for for b in bundles if b.substitutes_for), ""),
                )
            ],
        )
        self._insert("related_image", ((image, name) for image in _related(bundles)))
        provided = dict.fromkeys(itertools.chain(*(bundle.provides for bundle in bundles)))
        required = dict.fromkeys(itertools.chain(*(bundle.requires for bundle in bundles)))
        # What is in this table is read before the other requirements, so only those that stand
        # before them are written into it; all stand among the dependencies.
        first = itertools.takewhile(lambda needed: isinstance(needed, Api), required)
        wanted = [api for api in first if isinstance(api, Api)]
        for table, apis in (("api_provider", [*provided]), ("api_requirer", wanted)):
            self._insert(table, ((api.group, api.version, api.kind, *key) for api in apis))
            self._insert("plural", ((api.group, api.version, api.kind, "") for api in apis))
        self._insert("dependencies", ((*_dependency(needed), *key) for needed in required))

    def _write_content(self, content: BundleContent, described: set[str]) -> None:
        """Write what came of a bundle; of its texts and properties the first that came."""
        name = content.bundle
        if content.deprecated:
            self._connection.execute("INSERT OR IGNORE INTO is_deprecated VALUES (?)", (name,))
        if not content.csv and not content.properties:
            return
        plurals = content.plurals.items()
        self._insert("plural", ((a.group, a.version, a.kind, plural) for a, plural in plurals))
        if name in described:
            return
        described.add(name)
        self._connection.execute(
            "UPDATE operatorbundle SET csv = ?, bundle = ? WHERE name = ?",
            (content.csv or None, content.objects or None, name),
        )
        self._write_properties(name, content.properties or _properties(self._bundles[name]))

    def _write_properties(self, name: str, properties: Iterable[tuple[str, str]]) -> None:
        """Write properties in the order of the bundles, whatever order they come in."""
        bundles = self._bundles[name]
        first = self._places[name] * _PROPERTIES_PER_BUNDLE
        self._connection.executemany(
            f"INSERT INTO properties (rowid, type, value, {BUNDLE_KEY}) VALUES (?, ?, ?, ?, ?, ?)",
            (
                (first + number, kind, value, name, _version(bundles), _image(bundles))
                for number, (kind, value) in enumerate(properties)
            ),
        )

    def _insert(self, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
        places: dict[int, str] = {}
        for row in rows:
            marks = places.setdefault(len(row), ", ".join("?" * len(row)))
            self._connection.execute(f"INSERT INTO {table} VALUES ({marks})", row)


def _version(bundles: Iterable[Bundle]) -> str:
    return next((bundle.version for bundle in bundles if bundle.version), "")


def _image(bundles: Iterable[Bundle]) -> str:
    return next((bundle.image for bundle in bundles if bundle.image), "")


def _related(bundles: Sequence[Bundle]) -> Iterable[str]:
    """Return the related images of bundles of one name, and the images of all but the first."""
    related = itertools.chain(*(bundle.related_images for bundle in bundles))
    images = {bundle.image for bundle in bundles} - {_image(bundles)}
    return dict.fromkeys(filter(None, (*related, *sorted(images))))


def _agreed(texts: set[str]) -> str | None:
    """Return the one text that all channels have, "" for none; None where they differ."""
    return None if len(texts) > 1 else next(iter(texts), "")


def _properties(bundles: Iterable[Bundle]) -> Iterator[tuple[str, str]]:
    """Give the properties that follow from the model."""
    for bundle in bundles:
        if bundle.package and bundle.version:
            package = {"packageName": bundle.package, "version": bundle.version}
            yield "olm.package", as_json(package)
    for api in dict.fromkeys(itertools.chain(*(bundle.provides for bundle in bundles))):
        yield "olm.gvk", as_json(_gvk(api))


def _dependency(required: Requirement) -> tuple[str, str]:
    """Return a requirement as an entry of the table of dependencies."""
    match required:
        case Api():
            return "olm.gvk", as_json(_gvk(required))
        case PackageVersions(package, versions):
            return "olm.package", as_json({"packageName": package, "version": versions})
        case Undecided(kind) if kind != "cel":
            return kind, "{}"
        case _:
            return "olm.constraint", as_json(_constraint(required))


def _constraint(required: Requirement) -> dict[str, Any]:
    match required:
        case Api():
            return {"gvk": _gvk(required)}
        case PackageVersions(package, versions):
            return {"package": {"packageName": package, "versionRange": versions}}
        case AllOf(parts):
            return {"all": {"constraints": [_constraint(part) for part in parts]}}
        case AnyOf(parts):
            return {"any": {"constraints": [_constraint(part) for part in parts]}}
        case NoneOf(parts):
            return {"not": {"constraints": [_constraint(part) for part in parts]}}
        case Undecided():
            return {"cel": {}}


def _gvk(api: Api) -> dict[str, str]:
    return {"group": api.group, "kind": api.kind, "version": api.version}
