"""Taking a part of a catalog: some packages, of them some channels, of these some versions.

Pure: a selection says what is asked for, ``select`` what that comes to in one catalog. What
the catalog does not have is refused with what it has. The catalog itself stays as it is.
"""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from airgap.catalog.dependencies import Dependencies, resolve
from airgap.catalog.graph import ChannelGraph, named, upgrade_path
from airgap.catalog.model import Catalog
from airgap.catalog.versions import VersionRange, stated
from airgap.errors import CatalogError, UsageError, printable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Set

    from airgap.catalog.model import Bundle, Channel, Package
    from airgap.catalog.versions import Version
    from airgap.reference import ImageReference

HEAD: Final = "head"
"""In the place of a range: the newest bundle of each channel, and no other."""

EVERY: Final = "*"
"""In the place of a package: each that has what is asked of it."""

Versions: TypeAlias = VersionRange | Literal["head"] | None
"""Which bundles of a channel; None for all."""

Places: TypeAlias = "Mapping[tuple[str, str], Set[str]]"
"""Names of bundles by the names of the package and the channel that they were taken of."""

_NAME_LENGTH = 253
"""Longer names are no package's or channel's, and not compared with what was typed."""

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class PackageChoice:
    """Bundles of one package, or of every: of the ``channels`` named, or of all when none is."""

    package: str
    channels: tuple[str, ...] = ()
    versions: Versions = None

    @classmethod
    def parse(cls, text: str) -> PackageChoice:
        """Read ``NAME[:CHANNEL[,CHANNEL…]][@RANGE]``; NAME may be ``*``, RANGE ``head``.

        Raises UsageError.
        """
        name, at, versions = text.partition("@")
        package, colon, channels = name.partition(":")
        parts = channels.split(",") if colon else []
        if not package or not all(parts) or (at and not versions):
            raise UsageError(
                f"package '{printable(text)}': a part of it is empty",
                hint="Write NAME, NAME:CHANNEL, NAME@RANGE or NAME:CHANNEL,CHANNEL@RANGE.",
            )
        return cls(package, tuple(dict.fromkeys(parts)), _versions(versions) if at else None)

    def __str__(self) -> str:
        channels = f":{','.join(self.channels)}" if self.channels else ""
        versions = f"@{self.versions}" if self.versions is not None else ""
        return f"{self.package}{channels}{versions}"


@dataclass(frozen=True, slots=True)
class Selection:
    """What is asked of a catalog: of its ``packages`` those chosen, or None for all it offers.

    ``images`` are wanted besides what the catalog names. An exclusion is a regular expression
    that is searched for in references as they are written, and wins over everything.
    """

    packages: tuple[PackageChoice, ...] | None = None
    with_dependencies: bool = False
    exclude_images: tuple[re.Pattern[str], ...] = ()
    images: tuple[ImageReference, ...] = ()


@dataclass(frozen=True, slots=True)
class Selected:
    """What a selection comes to.

    ``bundles`` in the catalog's order; ``dependencies`` are theirs, and their ``further``
    bundles are among them only if the selection takes dependencies along. ``places`` are the
    channels they were taken of; a bundle may also stand in others. ``images`` says, like
    ``Catalog.wanted``, which of these bundles want an image; ``excluded`` is what the catalog's
    images and the extra ones lost. ``remarks`` are lines for a person, of what was left out and
    what is needed besides.
    """

    bundles: tuple[Bundle, ...]
    places: Places
    dependencies: Dependencies
    images: Mapping[str, tuple[Bundle, ...]]
    extra_images: tuple[ImageReference, ...]
    excluded: tuple[str, ...]
    remarks: tuple[str, ...]


def parse_pattern(text: str) -> re.Pattern[str]:
    """Read a regular expression for images. Raises UsageError."""
    try:
        return re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        why = printable(str(error))
        raise UsageError(f"not a regular expression: '{printable(text)}': {why}") from error


def select(catalog: Catalog, selection: Selection) -> Selected:
    """Find what is selected in a catalog.

    Raises UsageError that names every package, channel or range that the catalog does not
    have, with what comes near.
    """
    offer = _Offer(catalog)
    everything = selection.packages is None
    chosen = offer.all() if selection.packages is None else offer.chosen(selection.packages)
    dependencies = resolve(catalog, chosen)
    if selection.with_dependencies:
        chosen = offer.with_further(chosen, dependencies.further)
    wanted = Catalog((), chosen, catalog.other_images if everything else ()).wanted()
    exclusion = _Exclusion(selection.exclude_images)
    return Selected(
        bundles=chosen,
        places={place: names for place, names in offer.places.items() if names},
        dependencies=dependencies,
        images={image: wanted[image] for image in wanted if exclusion.spares(image)},
        extra_images=tuple(image for image in selection.images if exclusion.spares(str(image))),
        excluded=tuple(exclusion.hit),
        remarks=(
            *_left_out(catalog, everything),
            *exclusion.idle(),
            *dict.fromkeys(offer.remarks),
            *(() if everything else dependencies.in_words()),
        ),
    )


def offered(
    catalog: Catalog, packages: Collection[str] = (), channels: Collection[str] = ()
) -> tuple[Package, ...]:
    """Return a catalog's packages as they are: those named, with the channels named alone.

    Without ``packages`` all, and of these what has one of the ``channels``. Raises UsageError
    for a name that there is none of, with what comes near.
    """
    names = [package.name for package in catalog.packages]
    for name in packages:
        if name not in names:
            raise _unknown("package", name, "the catalog", names)
    chosen = [package for package in catalog.packages if not packages or package.name in packages]
    known = list(dict.fromkeys(channel.name for each in chosen for channel in each.channels))
    for name in channels:
        if name not in known:
            where = "the packages named" if packages else "the catalog"
            raise _unknown("channel", name, where, known)
    if not channels:
        return tuple(chosen)
    cut = (replace(p, channels=tuple(c for c in p.channels if c.name in channels)) for p in chosen)
    return tuple(package for package in cut if package.channels)


def _versions(text: str) -> Versions:
    return HEAD if text == HEAD else VersionRange.parse(text)


class _Offer:
    """A catalog, to look things up in, and the places that were taken of it."""

    def __init__(self, catalog: Catalog) -> None:
        self.packages: dict[str, list[Channel]] = {}
        for package in catalog.packages:
            self.packages.setdefault(package.name, []).extend(package.channels)
        self.places: dict[tuple[str, str], set[str]] = defaultdict(set)
        self.remarks: list[str] = []
        self._catalog = catalog
        self._bundles: dict[str, dict[str, Bundle]] = defaultdict(dict)
        for bundle in catalog.bundles:
            self._bundles[bundle.package][bundle.name] = bundle

    def chosen(self, choices: Iterable[PackageChoice]) -> tuple[Bundle, ...]:
        """Return the bundles of all choices. Raises UsageError that names all that is wrong."""
        chosen: list[Bundle] = []
        faults: list[str] = []
        for choice in choices:
            try:
                chosen += self._bundles_of(choice)
            except UsageError as error:
                faults.append(error.message)
        if faults:
            raise UsageError(
                "; ".join(faults), hint="`airgap catalog list` shows all that the catalog offers."
            )
        return self._ordered(chosen)

    def all(self) -> tuple[Bundle, ...]:
        """Return all bundles."""
        for package in self.packages:
            self._place(PackageChoice(package), self._bundles[package])
        return self._catalog.bundles

    def with_further(
        self, chosen: tuple[Bundle, ...], further: tuple[Bundle, ...]
    ) -> tuple[Bundle, ...]:
        """Return bundles with others, that are taken of all channels they are in."""
        names: dict[str, list[str]] = defaultdict(list)
        for bundle in further:
            names[bundle.package].append(bundle.name)
        for package in names:
            self._place(PackageChoice(package), names[package])
        return self._ordered((*chosen, *further))

    def _ordered(self, bundles: Iterable[Bundle]) -> tuple[Bundle, ...]:
        """Return bundles in the catalog's order, each once."""
        keys = {(bundle.package, bundle.name) for bundle in bundles}
        return tuple(b for b in self._catalog.bundles if (b.package, b.name) in keys)

    def _place(self, choice: PackageChoice, names: Iterable[str]) -> None:
        taken = set(names)
        for channel in self._channels(choice):
            self.places[choice.package, channel.name] |= taken & set(_held(channel, choice))

    def _bundles_of(self, choice: PackageChoice) -> list[Bundle]:
        if choice.package == EVERY:
            return self._bundles_of_every(choice)
        if choice.package not in self.packages:
            raise _unknown("package", choice.package, "the catalog", self.packages)
        self._require_channels(choice)
        taken = self._taken(choice)
        if not taken:
            there = _what_is(self._candidates(choice))
            raise UsageError(f"package '{printable(str(choice))}': no such bundle; {there}")
        return taken

    def _bundles_of_every(self, choice: PackageChoice) -> list[Bundle]:
        """Return what all packages together have of a choice; some may have nothing."""
        taken: list[Bundle] = []
        for package in self.packages:
            here = replace(choice, package=package)
            if not choice.channels or self._channels(here):
                taken += self._taken(here)
        if not taken:
            raise UsageError(f"package '{printable(str(choice))}': no package has such a bundle")
        return taken

    def _taken(self, choice: PackageChoice) -> list[Bundle]:
        """Return the bundles of one package's choice, their places noted."""
        taken = [b for b in self._candidates(choice) if self._fits(b, choice.versions)]
        self._place(choice, (bundle.name for bundle in taken))
        self.remarks.extend(_before_the_bound(choice, taken))
        if isinstance(choice.versions, VersionRange):
            for channel in self._channels(choice):
                self.remarks.extend(_without_a_way(choice.package, channel, taken))
        return taken

    def _candidates(self, choice: PackageChoice) -> list[Bundle]:
        bundles = self._bundles[choice.package]
        return [bundles[name] for name in self._names(choice) if name in bundles]

    def _require_channels(self, choice: PackageChoice) -> None:
        names = [channel.name for channel in self.packages[choice.package]]
        for name in choice.channels:
            if name not in names:
                where = f"package {printable(choice.package)}"
                raise _unknown("channel", name, where, names)

    def _names(self, choice: PackageChoice) -> Iterable[str]:
        """Return the bundles of the channels; a package's own may stand in none of them."""
        channels = self._channels(choice)
        if not choice.channels and choice.versions != HEAD:
            return self._bundles[choice.package]
        return dict.fromkeys(name for channel in channels for name in _held(channel, choice))

    def _channels(self, choice: PackageChoice) -> list[Channel]:
        channels = self.packages[choice.package]
        if not choice.channels:
            return channels
        return [channel for channel in channels if channel.name in choice.channels]

    def _fits(self, bundle: Bundle, versions: Versions) -> bool:
        """Say whether a bundle is in a range; what has no version is known by its text alone."""
        if not isinstance(versions, VersionRange):
            return True
        version = stated(bundle.version)
        if version is not None:
            return version in versions
        fits = bundle.version == versions.text
        if not fits:
            self.remarks.append(
                f"{printable(bundle.name)} is in no range: its version is"
                f" '{printable(bundle.version)}'"
            )
        return fits


def _before_the_bound(choice: PackageChoice, taken: Iterable[Bundle]) -> Iterator[str]:
    """Say which bundles are in a range although they are pre-releases of what ends it."""
    if not isinstance(choice.versions, VersionRange):
        return
    below: dict[Version, list[str]] = defaultdict(list)
    for bundle in taken:
        version = stated(bundle.version)
        bound = choice.versions.bound_just_above(version) if version else None
        if bound is not None:
            below[bound].append(bundle.name)
    for bound, names in below.items():
        yield (
            f"package '{printable(str(choice))}' takes {named(names)}, because a pre-release of"
            f" {bound} is below it; <{bound}-0 leaves it out"
        )


def _without_a_way(package: str, channel: Channel, taken: Iterable[Bundle]) -> Iterator[str]:
    """Say that no update leads from the lowest to the highest bundle that is taken of a channel."""
    names = {channel.head, *(entry.bundle for entry in channel.entries)}
    known = {bundle.name: bundle for bundle in taken if bundle.name in names}
    versions = {name: stated(bundle.version) for name, bundle in known.items()}
    ordered = sorted((v.precedence, name) for name, v in versions.items() if v is not None)
    if len(ordered) < 2:
        return
    (_, lowest), (_, highest) = ordered[0], ordered[-1]
    entries = tuple(entry for entry in channel.entries if entry.bundle in known)
    part = ChannelGraph.of(replace(channel, head=highest, entries=entries))
    where = f"package {printable(package)}, channel {printable(channel.name)}"
    try:
        if not upgrade_path(part, known, lowest, highest):
            yield (
                f"{where}: no update leads from {named([lowest])} to {named([highest])} through"
                " what is taken"
            )
    except CatalogError as error:
        yield f"{where}: not looked for updates from {named([lowest])}: {error.message}"


def _held(channel: Channel, choice: PackageChoice) -> list[str]:
    """Return the bundles of a channel, of which a choice may take some."""
    if choice.versions == HEAD:
        return [channel.head]
    return [channel.head, *(entry.bundle for entry in channel.entries)]


class _Exclusion:
    """Patterns for images, and what they hit."""

    def __init__(self, patterns: Iterable[re.Pattern[str]]) -> None:
        self._idle = dict.fromkeys(patterns)
        self._patterns = tuple(self._idle)
        self.hit: dict[str, None] = {}

    def spares(self, image: str) -> bool:
        """Say whether no pattern is found in an image's name."""
        found = [pattern for pattern in self._patterns if pattern.search(image)]
        for pattern in found:
            self._idle.pop(pattern, None)
            self.hit[image] = None
        return not found

    def idle(self) -> Iterator[str]:
        """Say which patterns hit nothing."""
        for pattern in self._idle:
            yield f"no image is excluded by '{printable(pattern.pattern)}'"


def _left_out(catalog: Catalog, everything: bool) -> Iterator[str]:
    """Say what no choice of packages can select."""
    if catalog.other_images and not everything:
        count = len(catalog.other_images)
        yield f"images that the catalog wants for no bundle are not selected: {count}"


def _unknown(what: str, name: str, where: str, names: Iterable[str]) -> UsageError:
    """Return the error for a name that is not there, with up to three that come near."""
    comparable = [other for other in names if 0 < len(other) <= _NAME_LENGTH]
    containing = [other for other in comparable if name in other or other in name]
    close = difflib.get_close_matches(name[:_NAME_LENGTH], comparable, n=_SHOWN)
    near = list(dict.fromkeys((*close, *sorted(containing))))[:_SHOWN]
    meant = f"did you mean {' or '.join(map(printable, near))}?" if near else "nothing comes near"
    return UsageError(f"no {what} '{printable(name)}' in {where}: {meant}")


def _what_is(bundles: list[Bundle]) -> str:
    """Say what there is instead of what was asked for."""
    versions = [version for bundle in bundles if (version := stated(bundle.version))]
    versions.sort(key=lambda version: version.precedence)
    if not bundles:
        return "the catalog has none there"
    if not versions:
        return f"there are {named(bundle.name for bundle in bundles)}, without versions"
    return f"the versions are from {versions[0]} to {versions[-1]}"
