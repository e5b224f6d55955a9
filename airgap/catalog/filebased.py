"""The file-based catalog: documents in YAML or JSON that each say a part of it.

Read as ``oc`` and ``opm`` read it: keys are the same in upper and lower case, and every document
wants the images under ``image`` and ``relatedImages``, whatever its schema, and also without
one. Nothing else in a document names an image, not even a ClusterServiceVersion inside it; what
one of those names beyond is reported, where a catalog still has them whole. Where ``oc`` gives up
at the first fault, here a fault costs what it stands in and is reported.

Documents are read one at a time and only what the model needs is kept, so memory grows with
the images, not with the files. Knows nothing of files.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airgap import limits
from airgap.catalog import bundle_objects, clusterserviceversion, filebased_documents, properties
from airgap.catalog.graph import ChannelGraph, named
from airgap.catalog.model import Bundle, Catalog, Channel, ChannelEntry, Package, holders
from airgap.catalog.notes import Notes
from airgap.catalog.properties import Api, Requirement
from airgap.catalog.shapes import Shapes, folded
from airgap.catalog.versions import Version, stated
from airgap.errors import CatalogError, MalformedContent, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airgap.catalog.notes import Place
    from airgap.catalog.tree import Tree
    from airgap.catalog.versions import Precedence

_PACKAGE = "olm.package"
_CHANNEL = "olm.channel"
_BUNDLE = "olm.bundle"

_RECORD = 64
"""What an entry or a property counts for, in characters."""

_Bundles = dict[tuple[str, str], "_Bundle"]
"""By the names of bundle and package."""


def read(tree: Tree, directory: str) -> Catalog:
    """Read the catalog in a directory of a tree, "" for its top.

    Raises CatalogError when there is no such directory, no file in it, or nothing that can be
    read; or when the catalog is larger than any honest one.
    """
    notes = Notes()
    reading = _Reading(notes)
    documents = 0
    for place, document in filebased_documents.read(tree, directory, notes):
        reading.take(place, folded(document))
        documents += 1
    catalog = reading.catalog()
    if catalog.unreadable and not documents:
        raise CatalogError(
            f"no catalog at {printable(directory or '.')!r}: {catalog.unreadable[0]}",
            hint="Nothing in it can be read; is it the directory of a file-based catalog?",
        )
    return catalog


@dataclass(slots=True)
class _Bundle:
    """What the documents of one bundle say, nearly always one document."""

    version: str = ""
    image: str = ""
    related: dict[str, None] = field(default_factory=dict)
    provides: dict[Api, None] = field(default_factory=dict)
    requires: dict[Requirement, None] = field(default_factory=dict)

    def join(self, other: _Bundle) -> None:
        """Want the images of another bundle too, which has the same name."""
        self.related |= dict.fromkeys(filter(None, (other.image, *other.related)))


class _Reading:
    """Gathers what documents say, in any order, and puts a catalog together at the end.

    What is said twice is decided by the order of the files, not by that of the reading.
    """

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._packages: list[tuple[Place, str, str]] = []
        self._channels: list[tuple[Place, str, str, tuple[ChannelEntry, ...]]] = []
        self._bundles: list[tuple[Place, str, str, _Bundle]] = []
        self._others: list[tuple[Place, tuple[str, ...]]] = []
        self._texts: dict[str, str] = {}
        self._size = 0

    def take(self, place: Place, document: dict[str, Any]) -> None:
        """Add a document, its keys in lower case."""
        shapes = Shapes(lambda fault: self._notes.lost(place, fault))
        schema, name = shapes.text(document, "schema"), self._text(shapes, document, "name")
        package = self._text(shapes, document, "package")
        image, related = self._text(shapes, document, "image"), self._related(shapes, document)
        if schema == _BUNDLE and name and package:
            bundle = _Bundle(image=image, related=related)
            self._take_properties(place, bundle, shapes, document)
            self._bundles.append((place, package, name, bundle))
            return
        if image or related:
            self._others.append((place, tuple(filter(None, (image, *related)))))
        if schema in (_PACKAGE, _CHANNEL, _BUNDLE) and not (
            name and (package or schema == _PACKAGE)
        ):
            self._notes.odd(place, f"{schema} without a name, or without a package")
        elif schema == _PACKAGE:
            default = self._text(shapes, document, "defaultchannel")
            self._packages.append((place, name, default))
        elif schema == _CHANNEL:
            entries = tuple(self._entries(shapes, document))
            self._channels.append((place, package, name, entries))

    def _related(self, shapes: Shapes, document: dict[str, Any]) -> dict[str, None]:
        related = map(folded, shapes.mappings(document, "relatedimages"))
        images = (self._text(shapes, entry, "image") for entry in related)
        return dict.fromkeys(filter(None, images))

    def _entries(self, shapes: Shapes, document: dict[str, Any]) -> Iterator[ChannelEntry]:
        for entry in map(folded, shapes.mappings(document, "entries")):
            self._keep(_RECORD)
            skips = map(self._kept, shapes.texts(entry, "skips"))
            yield ChannelEntry(
                self._text(shapes, entry, "name"),
                self._text(shapes, entry, "replaces"),
                tuple(dict.fromkeys(filter(None, skips))),
                self._text(shapes, entry, "skiprange"),
            )

    def _take_properties(
        self, place: Place, bundle: _Bundle, shapes: Shapes, document: dict[str, Any]
    ) -> None:
        """Add what the properties say; images do not depend on it, so a fault is only odd."""
        for entry in map(folded, shapes.mappings(document, "properties")):
            kind, value = shapes.text(entry, "type"), entry.get("value")
            what = f"property {printable(kind)}"
            try:
                if kind == bundle_objects.TYPE and isinstance(value, dict):
                    self._look_into(place, bundle, bundle_objects.raw(folded(value)))
                if kind == _PACKAGE and isinstance(value, dict):
                    bundle.version = self._text(shapes, folded(value), "version")
                if (api := properties.provided(kind, value, what)) is not None:
                    self._keep(_RECORD)
                    bundle.provides[api] = None
                if (requirement := properties.required(kind, value, what)) is not None:
                    self._keep(_RECORD)
                    bundle.requires[requirement] = None
            except MalformedContent as error:
                self._notes.odd(place, error.message)

    def _look_into(self, place: Place, bundle: _Bundle, raw: bytes) -> None:
        """Note what an object of a bundle names that is no image of the bundle."""
        images = {bundle.image, *bundle.related}
        for line in clusterserviceversion.unlisted_in(raw, images):
            self._notes.often(place, line)

    def _text(self, shapes: Shapes, fields: Mapping[str, Any], key: str) -> str:
        return self._kept(shapes.text(fields, key))

    def _kept(self, text: str) -> str:
        """Return a text that is in memory once. Raises CatalogError."""
        if text not in self._texts:
            self._keep(len(text))
            self._texts[text] = text
        return self._texts[text]

    def _keep(self, size: int) -> None:
        """Count what is kept in memory, roughly. Raises CatalogError when it is too much."""
        self._size += size
        if self._size > limits.CATALOG_TEXT:
            raise CatalogError(f"more than {limits.CATALOG_TEXT} characters of names")

    def catalog(self) -> Catalog:
        """Return the catalog that all documents make together."""
        said = self._merged_bundles()
        packages = tuple(self._merged_packages(said))
        bundles = _placed(said, holders(packages))
        others = [image for _, images in sorted(self._others) for image in images]
        return Catalog(
            packages=packages,
            bundles=tuple(_model(*key, bundles[key]) for key in sorted(bundles)),
            other_images=tuple(dict.fromkeys(others)),
            problems=self._notes.oddities,
            unreadable=self._notes.faults,
        )

    def _merged_bundles(self) -> dict[tuple[str, str], _Bundle]:
        """Return the bundles by name and package; what stands twice wants the images of both."""
        bundles: dict[tuple[str, str], _Bundle] = {}
        for place, package, name, bundle in sorted(self._bundles, key=_place):
            first = bundles.setdefault((name, package), bundle)
            if first is not bundle:
                self._notes.odd(place, f"bundle {printable(name)!r} again")
                first.join(bundle)
        return bundles

    def _merged_packages(self, bundles: _Bundles) -> Iterator[Package]:
        said: dict[str, tuple[Place, str]] = {}
        for place, name, default in sorted(self._packages):
            if name in said:
                self._notes.odd(place, f"package {printable(name)!r} again, and not counted")
            said.setdefault(name, (place, default))
        channels: dict[str, dict[str, Channel]] = defaultdict(dict)
        for place, package, name, entries in sorted(self._channels, key=_place):
            if name in channels[package]:
                self._notes.odd(place, f"channel {printable(name)!r} again, and not counted")
                continue
            channels[package][name] = self._channel(place, package, name, entries, bundles)
        for package in sorted({*said, *channels}):
            default = ""
            if package in said:
                place, default = said[package]
                if channels[package] and default not in channels[package]:
                    self._notes.odd(place, f"package {printable(package)!r}: no default channel")
            ordered = sorted(channels[package].items())
            yield Package(package, default, tuple(channel for _, channel in ordered))

    def _channel(
        self,
        place: Place,
        package: str,
        name: str,
        entries: tuple[ChannelEntry, ...],
        bundles: _Bundles,
    ) -> Channel:
        """Return a channel of the entries for which there is a bundle, and say what is wrong."""
        what = f"channel {printable(name)!r}"
        missing = [entry.bundle for entry in entries if (entry.bundle, package) not in bundles]
        if missing:
            self._notes.odd(place, f"{what}: no such bundle: {named(missing)}")
        first = {entry.bundle: entry for entry in reversed(entries)}
        present = tuple(
            entry
            for entry in entries
            if entry is first[entry.bundle] and (entry.bundle, package) in bundles
        )
        if len(first) != len(entries):
            self._notes.odd(place, f"{what}: a bundle stands twice, and once not counted")
        heads = ChannelGraph.of(Channel(name, "", present)).heads
        head = max(heads, key=lambda head: _age(bundles[head, package], head), default="")
        channel = Channel(name, head, present)
        for fault in ChannelGraph.of(channel).faults():
            self._notes.odd(place, f"{what}: {fault}")
        return channel


def _place(said: tuple[Any, ...]) -> Place:
    place: Place = said[0]
    return place


def _age(bundle: _Bundle, name: str) -> tuple[Precedence, str]:
    return (stated(bundle.version) or Version(0, 0, 0, (0,))).precedence, name


def _placed(said: _Bundles, holding: Mapping[str, set[str]]) -> _Bundles:
    """Return the bundles without those packages that they name, but that do not hold them."""
    placed: _Bundles = {}
    for (name, package), bundle in sorted(said.items(), key=lambda item: item[0]):
        key = name, package if package in holding.get(name, ()) else ""
        if placed.setdefault(key, bundle) is not bundle:
            placed[key].join(bundle)
    return placed


def _model(name: str, package: str, bundle: _Bundle) -> Bundle:
    """Return a bundle; of what it requires APIs come first, as databases have them."""
    return Bundle(
        package,
        name,
        bundle.version,
        bundle.image,
        tuple(bundle.related),
        tuple(bundle.provides),
        tuple(sorted(bundle.requires, key=lambda required: not isinstance(required, Api))),
    )
