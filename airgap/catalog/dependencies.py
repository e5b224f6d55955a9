"""Which bundles of a catalog meet what other bundles of it require.

The choice among several is OLM's: default channels before others, then packages and channels
by name, then the newest. A bundle that is taken anyway comes before all. What nothing in the
catalog meets is told, not refused: a cluster may have it from somewhere else.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airgap.catalog.graph import ChannelGraph, named
from airgap.catalog.properties import AllOf, AnyOf, Api, NoneOf, PackageVersions, Undecided
from airgap.catalog.versions import stated, stated_range
from airgap.errors import CatalogError, printable

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Sequence

    from airgap.catalog.model import Bundle, Catalog, Channel
    from airgap.catalog.properties import Requirement


_COMPARISONS = 5_000_000
"""Bundles held against what is required, in the search for all needs."""


@dataclass(frozen=True, slots=True)
class Need:
    """What a bundle requires, and the bundle that meets it; None when the catalog has none."""

    bundle: Bundle
    requirement: Requirement
    met_by: Bundle | None


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The needs of some bundles and, in turn, of all that meets them, in the order they arose.

    ``further`` are the bundles that meet a need and were not among the first.
    """

    needs: tuple[Need, ...] = ()
    further: tuple[Bundle, ...] = ()

    @property
    def unmet(self) -> tuple[Need, ...]:
        """The needs that nothing in the catalog meets."""
        return tuple(need for need in self.needs if need.met_by is None)

    def in_words(self) -> Iterator[str]:
        """Say what is needed besides the first bundles, by which, and what the catalog lacks."""
        asking: dict[Bundle | Requirement, list[Need]] = defaultdict(list)
        for need in self.needs:
            asking[need.met_by or need.requirement].append(need)
        for bundle in self.further:
            names = named(dict.fromkeys(need.bundle.name for need in asking[bundle]))
            what = f"{printable(bundle.name)} of package {printable(bundle.package)}"
            yield f"{what} is needed too, by {names}: {asking[bundle][0].requirement}"
        for requirement in dict.fromkeys(need.requirement for need in self.unmet):
            names = named(dict.fromkeys(need.bundle.name for need in asking[requirement]))
            yield f"nothing in the catalog meets what is needed by {names}: {requirement}"


def resolve(catalog: Catalog, bundles: Iterable[Bundle]) -> Dependencies:
    """Find what ``bundles`` require, and what that requires, until nothing is new.

    Raises CatalogError when this takes more comparisons than any real catalog.
    """
    queue = deque(bundles)
    taken = {_key(bundle): bundle for bundle in queue}
    needs: list[Need] = []
    further: list[Bundle] = []
    offer = _Offer(catalog)
    while queue:
        bundle = queue.popleft()
        for requirement in filter(_asks, bundle.requires):
            need = Need(bundle, requirement, offer.best(requirement, taken.keys()))
            needs.append(need)
            if need.met_by is not None and _key(need.met_by) not in taken:
                taken[_key(need.met_by)] = need.met_by
                further.append(need.met_by)
                queue.append(need.met_by)
    return Dependencies(tuple(needs), tuple(further))


def meets(bundle: Bundle, requirement: Requirement) -> bool:
    """Say whether a bundle alone meets a requirement."""
    match requirement:
        case Api():
            return requirement in bundle.provides
        case PackageVersions():
            versions, version = stated_range(requirement.versions), stated(bundle.version)
            known = versions is not None and version is not None and version in versions
            return known and bundle.package == requirement.package
        case AllOf():
            return all(meets(bundle, part) for part in requirement.parts)
        case AnyOf():
            return any(meets(bundle, part) for part in requirement.parts)
        case NoneOf():
            return not any(meets(bundle, part) for part in requirement.parts)
        case Undecided():
            return False


class _Offer:
    """A catalog's bundles by what they answer to, as numbers in the order of preference.

    Only what stands in a channel can be installed, so nothing else meets a need.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._bundles = list(_by_preference(catalog))
        self._providing: dict[Api, list[int]] = defaultdict(list)
        self._of_package: dict[str, list[int]] = defaultdict(list)
        self._fitting: dict[Requirement, tuple[Bundle, ...]] = {}
        self._left = _COMPARISONS
        for number, bundle in enumerate(self._bundles):
            self._of_package[bundle.package].append(number)
            for api in bundle.provides:
                self._providing[api].append(number)

    def best(self, requirement: Requirement, taken: Container[tuple[str, str]]) -> Bundle | None:
        """Return the bundle to meet a requirement with, of those taken if one of them does."""
        fitting = self._fitting.get(requirement)
        if fitting is None:
            candidates = self._candidates(requirement)
            self._spend(len(candidates) * _size(requirement))
            bundles = (self._bundles[number] for number in candidates)
            fitting = tuple(bundle for bundle in bundles if meets(bundle, requirement))
            self._fitting[requirement] = fitting
        for bundle in fitting:
            self._spend(1)
            if _key(bundle) in taken:
                return bundle
        return fitting[0] if fitting else None

    def _candidates(self, requirement: Requirement) -> Sequence[int]:
        """Return all bundles that may meet a requirement, and some that do not."""
        match requirement:
            case Api():
                return self._providing.get(requirement, ())
            case PackageVersions():
                return self._of_package.get(requirement.package, ())
            case AllOf():
                return self._candidates(next(filter(_asks, requirement.parts)))
            case AnyOf():
                found: set[int] = set()
                for part in filter(_asks, requirement.parts):
                    numbers = self._candidates(part)
                    self._spend(len(numbers) + 1)
                    found.update(numbers)
                return sorted(found)
            case NoneOf() | Undecided():
                return ()

    def _spend(self, comparisons: int) -> None:
        self._left -= comparisons
        if self._left < 0:
            raise CatalogError(
                f"what its bundles require takes more than {_COMPARISONS} comparisons",
                hint="Select fewer packages, or fewer versions of them.",
            )


def _size(requirement: Requirement) -> int:
    """Count what a requirement compares a bundle with."""
    match requirement:
        case AllOf() | AnyOf() | NoneOf():
            return 1 + sum(map(_size, requirement.parts))
    return 1


def _asks(requirement: Requirement) -> bool:
    """Say whether a requirement asks for something; one that only forbids does not."""
    match requirement:
        case AllOf() | AnyOf():
            return any(_asks(part) for part in requirement.parts)
        case NoneOf():
            return False
    return True


def _by_preference(catalog: Catalog) -> Iterator[Bundle]:
    bundles = {_key(bundle): bundle for bundle in catalog.bundles}
    keys = dict.fromkeys(
        (package, name)
        for package, channel in _channels_by_preference(catalog)
        for name in ChannelGraph.of(channel).newest_first()
    )
    return (bundles[key] for key in keys if key in bundles)


def _channels_by_preference(catalog: Catalog) -> list[tuple[str, Channel]]:
    channels = [
        (channel.name != package.default_channel, package.name, channel.name, channel)
        for package in catalog.packages
        for channel in package.channels
    ]
    channels.sort(key=lambda entry: entry[:3])
    return [(package, channel) for _, package, _, channel in channels]


def _key(bundle: Bundle) -> tuple[str, str]:
    return bundle.package, bundle.name
