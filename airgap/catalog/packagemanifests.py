"""Package Manifest directories: what catalogs were made of before there were file-based ones.

A package's file says which channels it has and which ClusterServiceVersion (CSV) is the newest
of each; the CSVs say what they replace and skip. Names and places are only conventions: what
counts is what the first document of a file is, as in operator-registry's directory loader.
Hidden files and directories do not count. Unlike there, a fault costs what it stands in alone,
never a whole package.

What a CSV says is ``clusterserviceversion``'s to know.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airgap.catalog import clusterserviceversion, documents
from airgap.catalog.model import Bundle, Catalog, Channel, ChannelEntry, Package, holders
from airgap.catalog.notes import Notes, Place
from airgap.catalog.shapes import Shapes, folded
from airgap.catalog.tree import Closed
from airgap.errors import CatalogError, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from airgap.catalog.clusterserviceversion import ClusterServiceVersion
    from airgap.catalog.tree import Tree

_ENDINGS = (".yaml", ".yml", ".json")
_USUAL_ENDINGS = tuple(
    f".{kind}{ending}" for kind in ("package", "clusterserviceversion") for ending in _ENDINGS
)
_USUAL_NAMES = ("package.yaml", "package.yml")

_STEPS = 1_000_000
"""From one CSV to another, in all channels together; the largest catalogs take some thousands."""


def places(tree: Tree) -> tuple[str, ...]:
    """Return the directories of a tree that hold package manifests, none inside another.

    They are known by the usual names of files, since a whole image cannot be read for it.
    """
    named = set()
    for file in tree.files():
        directory, _, name = file.path.rpartition("/")
        usual = name.lower().endswith(_USUAL_ENDINGS) or name.lower() in _USUAL_NAMES
        if usual and not _is_hidden(file.path, ""):
            named.add(directory)
    found: list[str] = []
    for directory in sorted(named, key=lambda path: path.split("/")):
        if not found or not _is_below(directory, found[-1]):
            found.append(directory)
    return tuple(found)


def read(tree: Tree, directories: Sequence[str]) -> Catalog:
    """Read the catalog in directories of a tree, "" for its top.

    Raises CatalogError when nothing in them can be read.
    """
    notes = Notes()
    reading = _Reading(notes)
    for place, document in first_documents(tree, directories, notes):
        reading.take(place, document)
    return reading.catalog(directories)


def first_documents(
    tree: Tree, directories: Iterable[str], notes: Notes
) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Give the first document of every file, and note what is no mapping; in any order."""
    for path, pieces in tree.read_all(_paths(tree, directories, notes)):
        try:
            yield from _first(path, documents.read(pieces), notes)
        except Closed as closed:
            notes.lost(Place(path), printable(closed.why))


def is_package(document: dict[str, Any]) -> bool:
    """Say whether a document is a package's; its keys may be in any case."""
    return folded(document).get("packagename") not in (None, "")


def _first(
    path: str, found: Iterator[documents.Document | documents.Unreadable], notes: Notes
) -> Iterator[tuple[Place, dict[str, Any]]]:
    first = next(found, None)
    if isinstance(first, documents.Document):
        place = Place(path, first.number, first.line)
        for oddity in first.oddities:
            notes.odd(place, oddity)
        if isinstance(first.value, dict):
            yield place, first.value
        elif first.value is not None:
            _undecodable(notes, place, "not a mapping")
        elif isinstance(second := next(found, None), documents.Document) and second.value:
            notes.odd(place, "the first document is empty, and no other one of a file counts")
    elif first is not None:
        _undecodable(notes, Place(path, first.number, first.line), first.why)


def _paths(tree: Tree, directories: Iterable[str], notes: Notes) -> Iterator[str]:
    for directory in directories:
        listing = tree.listing(directory)
        for link in listing.links if listing else ():
            if not _is_hidden(link, directory):
                notes.odd(Place(link), "a link that leads to no file, and is not followed")
        for file in listing.files if listing else ():
            if not _is_hidden(file.path, directory):
                yield file.path


def _undecodable(notes: Notes, place: Place, why: str) -> None:
    """Note a file that cannot be read, unless its name says that it is a README or so."""
    if place.path.lower().endswith(_ENDINGS):
        notes.lost(place, why)


@dataclass(frozen=True, slots=True)
class _PackageFile:
    name: str
    default_channel: str
    heads: Mapping[str, str]
    """The names of CSVs by those of channels."""


class _Reading:
    """Gathers packages and CSVs, in any order, and puts a catalog together at the end.

    What is there twice is decided by the order of the files, not by that of the reading.
    """

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._packages: list[tuple[Place, _PackageFile]] = []
        self._csvs: list[tuple[Place, ClusterServiceVersion]] = []
        self._steps_left = _STEPS

    def take(self, place: Place, document: dict[str, Any]) -> None:
        """Add a document, if it is one that matters."""
        if clusterserviceversion.is_one(document):
            csv = clusterserviceversion.parse(document)
            for fault in csv.faults:
                self._notes.lost(place, fault)
            if csv.name:
                self._csvs.append((place, csv))
                for line in clusterserviceversion.unlisted(document, csv.images):
                    self._notes.often(place, line)
            else:
                self._notes.lost(place, "a ClusterServiceVersion without a name")
        elif is_package(document):
            package = _package(place, document, self._notes)
            if package.name:
                self._packages.append((place, package))

    def catalog(self, directories: Sequence[str]) -> Catalog:
        """Return the catalog that all files make together. Raises CatalogError."""
        csvs = self._unique_csvs()
        packages = tuple(self._all_packages(csvs))
        if self._notes.faults and not csvs and not packages:
            where = ", ".join(printable(directory or ".") for directory in directories[:5])
            raise CatalogError(f"no package manifests at {where}: {self._notes.faults[0]}")
        return Catalog(
            packages=packages,
            bundles=tuple(_bundles(csvs, packages)),
            problems=self._notes.oddities,
            unreadable=self._notes.faults,
        )

    def _unique_csvs(self) -> dict[str, ClusterServiceVersion]:
        csvs: dict[str, ClusterServiceVersion] = {}
        for place, csv in sorted(self._csvs, key=lambda found: found[0]):
            if csv.name in csvs:
                self._notes.odd(place, f"CSV {printable(csv.name)!r} again, and not counted")
            csvs.setdefault(csv.name, csv)
        return csvs

    def _all_packages(self, csvs: Mapping[str, ClusterServiceVersion]) -> Iterable[Package]:
        packages: dict[str, Package] = {}
        for place, file in sorted(self._packages, key=lambda found: found[0]):
            if file.name in packages:
                self._notes.odd(place, f"package {printable(file.name)!r} again, and not counted")
                continue
            channels = tuple(
                Channel(name, head, tuple(self._entries(place, name, head, csvs)))
                for name, head in sorted(file.heads.items())
            )
            default = file.default_channel
            if not default:
                default = channels[0].name if len(channels) == 1 else ""
            if default not in file.heads:
                self._notes.odd(place, "no default channel")
            packages[file.name] = Package(file.name, default, channels)
        return [packages[name] for name in sorted(packages)]

    def _entries(
        self, place: Place, channel: str, head: str, csvs: Mapping[str, ClusterServiceVersion]
    ) -> Iterable[ChannelEntry]:
        """Walk from a channel's head along what replaces what; a skipped CSV is an entry too."""
        entries: dict[str, ChannelEntry] = {}
        walked: set[str] = set()
        name = head
        while name in csvs and name not in walked:
            walked.add(name)
            csv = csvs[name]
            self._spend(1 + len(csv.skips))
            entries[name] = ChannelEntry(name, csv.replaces, csv.skips, csv.skip_range)
            for skipped in csv.skips:
                if skipped in csvs:
                    stub = ChannelEntry(skipped, skip_range=csvs[skipped].skip_range)
                    entries.setdefault(skipped, stub)
            name = csv.replaces
        if name:
            why = "replaces itself in a circle" if name in csvs else "is not there"
            self._notes.odd(
                place, f"channel {printable(channel)!r} leads to {printable(name)!r}, which {why}"
            )
        return entries.values()

    def _spend(self, steps: int) -> None:
        """Bound what a few files make: every channel may lead through every CSV again."""
        self._steps_left -= steps
        if self._steps_left < 0:
            raise CatalogError(f"channels of more than {_STEPS} entries, what they skip included")


def _package(place: Place, document: dict[str, Any], notes: Notes) -> _PackageFile:
    """Read a package's file as Go does: keys in any case, numbers and booleans as text."""
    shapes = Shapes(lambda fault: notes.lost(place, fault))
    fields = folded(document)
    heads = {}
    for entry in map(folded, shapes.mappings(fields, "channels")):
        channel, head = shapes.scalar(entry, "name"), shapes.scalar(entry, "currentcsv")
        if channel and head:
            heads[channel] = head
        else:
            notes.odd(place, "a channel without a name, or without a CSV, and not counted")
    return _PackageFile(
        shapes.scalar(fields, "packagename"), shapes.scalar(fields, "defaultchannel"), heads
    )


def _bundles(
    csvs: Mapping[str, ClusterServiceVersion], packages: Iterable[Package]
) -> Iterator[Bundle]:
    """Give every CSV as a bundle, once for every package that holds it, or once without one."""
    holding = holders(packages)
    for name in sorted(csvs):
        csv = csvs[name]
        for package in sorted(holding.get(name, {""})):
            yield Bundle(
                package,
                name,
                csv.version,
                related_images=csv.images,
                provides=csv.provides,
                requires=csv.requires,
                substitutes_for=csv.substitutes_for,
            )


def _is_below(path: str, directory: str) -> bool:
    return path == directory or not directory or path.startswith(f"{directory}/")


def _is_hidden(path: str, directory: str) -> bool:
    return any(name.startswith(".") for name in path.removeprefix(directory).split("/"))
