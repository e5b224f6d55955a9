"""A file-based catalog reduced to a part of its bundles: a directory with one file a package.

Bundles stay as they were, in the order of the original's files; packages, channels and
deprecations lose what is gone and keep everything else. Documents of other schemas stay with
their package, but for those that name images: nobody could say what they are for. What was
read under keys in any case is written as it was. Documents come one at a time and wait in a
file, so memory grows with their number and not with their size.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple
from urllib.parse import quote

from airgap.catalog import bundle_objects, filebased_documents
from airgap.catalog.notes import Notes, Place
from airgap.catalog.shapes import Shapes, folded
from airgap.errors import CatalogError, printable
from airgap.storage import storage_errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from airgap.catalog.model import Catalog, Channel, ChannelEntry, Package
    from airgap.catalog.tree import Tree

FILE = "catalog.json"
"""What a package's file is called in the directory of the package."""

_PACKAGE = "olm.package"
_ORDER = (_PACKAGE, "olm.channel", "olm.bundle", "olm.deprecations")
"""In which order the documents of a package stand; those of other schemas are the last."""

_METADATA = "olm.csv.metadata"

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_NAME = 255
"""Bytes in the name of a directory."""

_SHAPES = Shapes(lambda _fault: None)
"""Tells nobody: whoever read the catalog has heard of its faults."""


class Written(NamedTuple):
    """What was written: the directory of each package, and remarks for a person.

    ``without_csv`` are the bundles whose ClusterServiceVersion the catalog does not hold.
    """

    directories: tuple[str, ...]
    without_csv: frozenset[str]
    remarks: tuple[str, ...]


def write(tree: Tree, directory: str, catalog: Catalog, target: Path) -> Written:
    """Write the catalog in a directory of a tree, reduced to ``catalog``, below ``target``.

    The packages' directories are returned in the order of the catalog's packages; below
    ``target`` they have the numbers from 0 for names. Raises CatalogError for a name that no
    directory can have, and as ``filebased.read`` does; StorageError.
    """
    directories = tuple(component(package.name) for package in catalog.packages)
    with storage_errors(target):
        target.mkdir(parents=True)
        waiting = target.with_name(target.name + ".waiting")
        with waiting.open("w+b") as file:
            reduction = _Reduction(catalog, file)
            for place, document in filebased_documents.read(tree, directory, Notes()):
                reduction.take(place, document)
            for number, package in enumerate(catalog.packages):
                (target / str(number)).mkdir()
                with (target / str(number) / FILE).open("wb") as written:
                    written.writelines(reduction.lines(package))
        waiting.unlink()
    return Written(directories, frozenset(reduction.without_csv), tuple(reduction.remarks()))


def component(package: str) -> str:
    """Return the name of a package's directory: the package's own, where that is a plain one.

    Raises CatalogError for one that is too long.
    """
    name = package if _PLAIN.fullmatch(package) else quote(package, safe="").replace(".", "%2E")
    if len(name) > _NAME:
        raise CatalogError(
            f"package {printable(package)}: its name is too long for a directory",
            hint="Leave the package out, or take the catalog as it is.",
        )
    return name


class _Waiting(NamedTuple):
    """A document in the file of those that wait: what it is, and where its line is."""

    rank: int
    place: Place
    said_once: str | None
    """What only the first document of its kind says of a package; None where all count."""
    offset: int
    size: int


class _Reduction:
    """Takes the documents of the original one by one, and gives those of each package."""

    def __init__(self, catalog: Catalog, file: BinaryIO) -> None:
        self._packages = {package.name: package for package in catalog.packages}
        self._channels = {
            (package.name, channel.name): channel
            for package in catalog.packages
            for channel in package.channels
        }
        self._bundles = {(bundle.package, bundle.name) for bundle in catalog.bundles}
        self._file = file
        self._end = 0
        self._waiting: dict[str, list[_Waiting]] = {name: [] for name in self._packages}
        self._left_out: Counter[str] = Counter()
        self.without_csv: set[str] = set()

    def take(self, place: Place, document: dict[str, Any]) -> None:
        """Take a document, if anything of it stays."""
        fields = folded(document)
        schema, name = _SHAPES.text(fields, "schema"), _SHAPES.text(fields, "name")
        package = name if schema == _PACKAGE else _SHAPES.text(fields, "package")
        if package not in self._packages and schema in _ORDER:
            return
        match schema:
            case "olm.package":
                default = self._packages[package].default_channel
                kept = _with(_without_images(document), "defaultChannel", default)
                self._wait(package, place, schema, kept, said_once="")
            case "olm.channel" if (package, name) in self._channels:
                kept = _channel(_without_images(document), self._channels[package, name])
                self._wait(package, place, schema, kept, said_once=name)
            case "olm.bundle" if (package, name) in self._bundles:
                self._wait(package, place, schema, document)
                if not _has_csv(fields):
                    self.without_csv.add(name)
            case "olm.deprecations":
                entries = [
                    e for e in _SHAPES.mappings(fields, "entries") if self._stays(package, e)
                ]
                if entries:
                    kept = _with(_without_images(document), "entries", entries)
                    self._wait(package, place, schema, kept)
            case "olm.channel" | "olm.bundle":
                pass
            case _:
                self._take_other(place, schema, package, document)

    def _take_other(
        self, place: Place, schema: str, package: str, document: dict[str, Any]
    ) -> None:
        if package and package not in self._packages:
            return
        if not schema or not package or len(_without_images(document)) != len(document):
            self._left_out[schema] += 1
        else:
            self._wait(package, place, schema, document)

    def _stays(self, package: str, deprecation: Mapping[str, Any]) -> bool:
        """Say whether what is deprecated is still there."""
        reference = folded(_SHAPES.mapping(folded(deprecation), "reference"))
        name = _SHAPES.text(reference, "name")
        match _SHAPES.text(reference, "schema"):
            case "olm.bundle":
                return (package, name) in self._bundles
            case "olm.channel":
                return (package, name) in self._channels
            case _:
                return True

    def _wait(
        self,
        package: str,
        place: Place,
        schema: str,
        document: Mapping[str, Any],
        said_once: str | None = None,
    ) -> None:
        line = _line(document)
        rank = _ORDER.index(schema) if schema in _ORDER else len(_ORDER)
        waiting = _Waiting(rank, place, said_once, self._end, len(line))
        self._waiting[package].append(waiting)
        self._file.write(line)
        self._end += len(line)

    def lines(self, package: Package) -> Iterator[bytes]:
        """Give the documents of a package, each in a line."""
        said: set[tuple[int, str]] = set()
        waiting = sorted(self._waiting[package.name], key=lambda one: one[:2])
        if not waiting or waiting[0].rank:
            fields = {"name": package.name, "defaultChannel": package.default_channel}
            yield _line({"schema": _PACKAGE, **fields})
        for one in waiting:
            if one.said_once is not None:
                if (one.rank, one.said_once) in said:
                    continue
                said.add((one.rank, one.said_once))
            self._file.seek(one.offset)
            yield self._file.read(one.size)

    def remarks(self) -> Iterator[str]:
        """Say what was left out that belongs to no package, or names images without a bundle."""
        for schema, count in sorted(self._left_out.items()):
            yield (
                f"documents of the schema '{printable(schema)}' are left out, because they are of"
                f" no package or name images: {count}"
            )


def _channel(document: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Return a channel's document with the entries that stay."""
    entries: dict[str, dict[str, Any]] = {}
    for entry in _SHAPES.mappings(folded(document), "entries"):
        entries.setdefault(_SHAPES.text(folded(entry), "name"), entry)
    kept = [_entry(entries[e.bundle], e) for e in channel.entries if e.bundle in entries]
    return _with(document, "entries", kept)


def _entry(document: dict[str, Any], entry: ChannelEntry) -> dict[str, Any]:
    """Return an entry as it was, where that is what it is now."""
    fields = folded(document)
    if _SHAPES.text(fields, "replaces") != entry.replaces:
        document = _with(document, "replaces", entry.replaces)
    if set(_SHAPES.texts(fields, "skips")) - {""} != set(entry.skips):
        document = _with(document, "skips", list(entry.skips))
    return document


def _has_csv(bundle: Mapping[str, Any]) -> bool:
    entries = map(folded, _SHAPES.mappings(bundle, "properties"))
    return any(entry.get("type") in (_METADATA, bundle_objects.TYPE) for entry in entries)


def _with(document: Mapping[str, Any], key: str, value: object) -> dict[str, Any]:
    """Return a document with a value under a key, and under no other spelling of the key."""
    spellings = [spelled for spelled in document if spelled.casefold() == key.casefold()]
    place = spellings[0] if spellings else key
    changed = {**document, place: value}
    return {
        key if spelled == place else spelled: held
        for spelled, held in changed.items()
        if spelled not in spellings[1:]
    }


def _without_images(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document without what would be an image that no bundle wants."""
    images = ("image", "relatedimages")
    return {key: value for key, value in document.items() if key.casefold() not in images}


def _line(document: Mapping[str, Any]) -> bytes:
    """Return a document as JSON in one line. Raises CatalogError."""
    try:
        text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    except RecursionError as error:
        raise CatalogError("a document is nested too deeply to be written") from error
    return f"{text}\n".encode()
