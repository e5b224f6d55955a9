"""The SQLite catalog: operator-registry's tables, at any schema level from 0 on.

Level 0 has no related images, level 1 no images of bundles, level 5 brings versions; whatever
a level lacks is empty. Knows what the tables mean; how to read a database that cannot be
trusted is ``database``'s.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airgap.catalog import sqlite_csvs, sqlite_properties
from airgap.catalog.database import Database, opened
from airgap.catalog.graph import ChannelGraph
from airgap.catalog.model import Bundle, Catalog, Channel, ChannelEntry, Package, holders
from airgap.catalog.notes import Notes, Place
from airgap.errors import CatalogError, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from airgap.catalog.sqlite_properties import Properties
    from airgap.catalog.tree import StoredFile

_REQUIRED = (
    ("operatorbundle", "name"),
    ("related_image", "image"),
    ("related_image", "operatorbundle_name"),
)


class NotACatalog(CatalogError):
    """A sound SQLite database that is not operator-registry's, such as rpm's."""


def read(file: StoredFile) -> Catalog:
    """Read a catalog's database.

    An image is wanted when ``related_image.image`` or ``operatorbundle.bundlepath`` names it,
    whether or not any channel holds the bundle. Raises NotACatalog where there is no table
    ``operatorbundle``; CatalogError for everything else that is wrong with the file;
    StorageError when there is no room for a private copy of it.
    """
    with opened(file) as database:
        _check_tables(database)
        images = _related_images(database)
        bundles = _bundles(database, images)
        packages = _packages(database, _channels(database, bundles))
        notes = Notes()
        properties = sqlite_properties.read(database, notes)
        sqlite_csvs.look_into(database, lambda name: _wanted(name, bundles, images), notes)
        for oddity in (*_orphans(bundles, images), *_faults(packages)):
            notes.odd(Place(database.name), oddity)
        return Catalog(
            packages=packages,
            bundles=tuple(_placed(bundles, images, properties, packages)),
            other_images=tuple(images.get("", ())),
            problems=notes.oddities,
        )


@dataclass(frozen=True, slots=True)
class _BundleRow:
    name: str
    image: str = ""
    version: str = ""
    skip_range: str = ""
    substitutes_for: str = ""
    replaces: str = ""


_Images = defaultdict[str, dict[str, None]]
"""Related images by the name of the bundle, "" for none; in order, each once."""

_Channels = dict[tuple[str, str], Channel]
"""By the names of package and channel."""


def _check_tables(database: Database) -> None:
    if not database.has("operatorbundle"):
        raise NotACatalog(f"{database.name}: not an operator catalog: no table operatorbundle")
    for table, column in _REQUIRED:
        if database.has(table) and column not in database.columns(table):
            raise database.refused(f"{table} has no column {column}{_level(database)}")


def _level(database: Database) -> str:
    """Say which schema level the database claims to have, for errors."""
    versions = [version for (version,) in database.rows("schema_migrations", "version")]
    return f", at schema level {printable(str(versions[0]))}" if versions else ""


def _related_images(database: Database) -> _Images:
    images: _Images = defaultdict(dict)
    for image, bundle in database.texts("related_image", "image", "operatorbundle_name"):
        if image:
            images[bundle][image] = None
    return images


def _bundles(database: Database, images: _Images) -> dict[str, _BundleRow]:
    """Return the rows by name; what has no name, or another's, leaves its image to ``images``."""
    bundles: dict[str, _BundleRow] = {}
    columns = ("name", "bundlepath", "version", "skiprange", "substitutesfor", "replaces")
    for row in database.texts("operatorbundle", *columns):
        bundle = _BundleRow(*row)
        if bundle.name and bundle.name not in bundles:
            bundles[bundle.name] = bundle
        elif bundle.image:
            images[bundle.name][bundle.image] = None
    return bundles


def _channels(database: Database, bundles: Mapping[str, _BundleRow]) -> _Channels:
    heads: dict[tuple[str, str], str] = {}
    for package, name, head in database.texts(
        "channel", "package_name", "name", "head_operatorbundle_name"
    ):
        heads[package, name] = head
    replaced = _replaced(database)
    return {
        (package, name): Channel(
            name,
            heads.get((package, name), ""),
            tuple(
                _entry(bundles[bundle], names)
                for bundle, names in replaced.get((package, name), {}).items()
                if bundle in bundles
            ),
        )
        for package, name in sorted({*heads, *replaced})
    }


def _entry(bundle: _BundleRow, replaced: list[str]) -> ChannelEntry:
    """Tell what an entry replaces from what it skips.

    The first row says what it replaces, unless that row only stands for having been skipped
    by another bundle; level 7 brings a column that tells them apart.
    """
    stated = bundle.replaces if bundle.replaces in replaced else ""
    first = replaced.index(stated) if stated else 0
    skips = dict.fromkeys(name for name in (*replaced[:first], *replaced[first + 1 :]) if name)
    return ChannelEntry(bundle.name, replaced[first], tuple(skips), bundle.skip_range)


def _replaced(database: Database) -> Mapping[tuple[str, str], Mapping[str, list[str]]]:
    """Return, for every channel, the names that its bundles replace, in the order of the rows.

    operator-registry writes one row for a bundle and what it replaces ("" for nothing), then
    one more for each that the bundle skips. A name that is only skipped has a row as well; it
    is no entry of the channel unless there is such a bundle.
    """
    names: dict[object, str] = {}
    rows: list[tuple[str, str, str, object]] = []
    columns = ("entry_id", "replaces", "package_name", "channel_name", "operatorbundle_name")
    for number, replaces, *texts in database.rows("channel_entry", *columns):
        package, channel, bundle = (database.text(value, "channel_entry") for value in texts)
        names[number] = bundle
        rows.append((package, channel, bundle, replaces))
    channels: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for package, channel, bundle, replaces in rows:
        channels[package, channel][bundle].append(names.get(replaces, ""))
    return channels


def _packages(database: Database, channels: _Channels) -> tuple[Package, ...]:
    defaults: dict[str, str] = {}
    for name, channel_name in database.texts("package", "name", "default_channel"):
        defaults[name] = channel_name
    by_package: dict[str, list[Channel]] = defaultdict(list)
    for (package, _), channel in channels.items():
        by_package[package].append(channel)
    return tuple(
        Package(name, defaults.get(name, ""), tuple(by_package[name]))
        for name in sorted({*defaults, *by_package})
    )


def _placed(
    bundles: Mapping[str, _BundleRow],
    images: _Images,
    properties: Properties,
    packages: Iterable[Package],
) -> Iterable[Bundle]:
    """Give every bundle once for every package that holds it, or once without a package."""
    holding = holders(packages)
    for name in sorted({*bundles, *images} - {""}):
        row = bundles.get(name, _BundleRow(name))
        for package in sorted(holding.get(name, {""})):
            yield Bundle(
                package,
                name,
                row.version,
                row.image,
                tuple(images.get(name, ())),
                tuple(properties.provides.get(name, ())),
                tuple(properties.requires.get(name, ())),
                row.substitutes_for,
            )


def _wanted(name: str, bundles: Mapping[str, _BundleRow], images: _Images) -> frozenset[str]:
    own = bundles[name].image if name in bundles else ""
    return frozenset({own, *images.get(name, ())})


def _orphans(bundles: Mapping[str, _BundleRow], images: _Images) -> Iterator[str]:
    for name in sorted(images.keys() - bundles.keys() - {""}):
        yield f"images of bundle {printable(name)!r}, which has no row"


def _faults(packages: Iterable[Package]) -> Iterator[str]:
    for package in packages:
        for channel in package.channels:
            what = f"channel {printable(channel.name)!r} of package {printable(package.name)!r}"
            for fault in ChannelGraph.of(channel).faults():
                yield f"{what}: {fault}"
