"""A catalog reduced to a part of its bundles, such that ``opm`` and OLM still take it.

A channel must have one head, and all its bundles must be below it: replaced one after the other
or skipped. ``opm`` follows what replaces what down to the first bundle that is skipped, older
versions of it also through that one; what stays here is sound for both. Nothing is promised that
the catalog did not promise: no bundle comes to replace another. So a channel is cut above its
newest bundle that is left, and ends where a replaced one is missing; what lies beyond such a gap
cannot stay in it, and is named.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

from airgap.catalog.graph import ChannelGraph, below, named
from airgap.catalog.model import Catalog, Channel, ChannelEntry
from airgap.catalog.versions import Version, stated
from airgap.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airgap.catalog.model import Package
    from airgap.catalog.select import Places
    from airgap.catalog.versions import Precedence


def reduced(
    catalog: Catalog, places: Places, default_channels: Mapping[str, str] | None = None
) -> Catalog:
    """Return a catalog of the given places alone, those of a ``Selected`` for example.

    ``default_channels`` says which channel is the default of a package from now on. Where it
    says nothing and the old one is gone, the channel with the newest head is. ``problems``
    says this, and what could not stay.
    """
    reduction = _Reduction(catalog, places)
    packages = []
    for package in catalog.packages:
        channels = reduction.channels(package)
        if channels:
            default = reduction.default(package, channels, default_channels or {})
            packages.append(replace(package, default_channel=default, channels=channels))
    return Catalog(
        packages=tuple(packages),
        bundles=tuple(b for b in catalog.bundles if (b.package, b.name) in reduction.placed),
        problems=tuple(reduction.problems),
    )


class _Reduction:
    """Decides package by package, and keeps what there is to say."""

    def __init__(self, catalog: Catalog, places: Places) -> None:
        self._bundles = {(bundle.package, bundle.name): bundle for bundle in catalog.bundles}
        self._places = places
        self.placed: set[tuple[str, str]] = set()
        self.problems: list[str] = []

    def channels(self, package: Package) -> tuple[Channel, ...]:
        """Return the channels of a package that keep a bundle, cut to what they can keep."""
        kept = [(channel, self._kept(package, channel)) for channel in package.channels]
        kept = [(channel, names) for channel, names in kept if names]
        versions = {name: self._precedence(package, name) for _, names in kept for name in names}
        cut = tuple(_cut(channel, names, versions) for channel, names in kept)
        placed = {entry.bundle for channel in cut for entry in channel.entries}
        self.placed.update((package.name, name) for name in placed)
        for channel, (_, names) in zip(cut, kept, strict=True):
            lost = names - placed
            if lost:
                self._say(
                    package,
                    f"channel {printable(channel.name)} loses {named(sorted(lost))}:"
                    f" nothing selected leads there from {printable(channel.head)}",
                )
        return cut

    def _kept(self, package: Package, channel: Channel) -> set[str]:
        names = {channel.head, *(entry.bundle for entry in channel.entries)}
        names &= self._places.get((package.name, channel.name), frozenset())
        return {name for name in names if (package.name, name) in self._bundles}

    def default(
        self, package: Package, channels: tuple[Channel, ...], wishes: Mapping[str, str]
    ) -> str:
        """Return a package's default channel: as wished, as it was, or by the newest head."""
        wish = wishes.get(package.name, package.default_channel)
        if any(channel.name == wish for channel in channels):
            return wish
        newest = max(channels, key=lambda c: (self._precedence(package, c.head), c.name)).name
        why = f"nothing of the default channel '{printable(wish)}' is selected"
        self._say(
            package,
            f"{why if wish else 'there is no default channel'};"
            f" '{printable(newest)}' is the default now",
        )
        return newest

    def _precedence(self, package: Package, bundle: str) -> Precedence:
        version = stated(self._bundles[package.name, bundle].version)
        return (version or Version(0, 0, 0, (0,))).precedence

    def _say(self, package: Package, what: str) -> None:
        self.problems.append(f"package {printable(package.name)}: {what}")


def _cut(channel: Channel, kept: set[str], versions: Mapping[str, Precedence]) -> Channel:
    """Return a channel of what is below the newest of the ``kept`` bundles, and nothing else."""
    graph = ChannelGraph.of(channel)
    entries = {name: _not_over(name, graph.entries.get(name, ChannelEntry(name))) for name in kept}
    head = _newest(graph, entries, versions)
    entries = {name: _not_over(head, entry) for name, entry in entries.items()}
    chain = tuple(ChannelGraph(head, entries).chain(head))
    last = entries[chain[-1]]
    if last.replaces in chain:
        entries[last.bundle] = replace(last, replaces="")
    skipped = {name for entry in _with_skipped(chain, entries) for name in entries[entry].skips}
    unskipped = itertools.takewhile(lambda name: name not in skipped, chain)
    stay = _with_skipped(unskipped, entries)
    order = (name for name in dict.fromkeys((*graph.entries, channel.head)) if name in stay)
    return Channel(channel.name, head, tuple(entries[name] for name in order))


def _newest(
    graph: ChannelGraph, entries: Mapping[str, ChannelEntry], versions: Mapping[str, Precedence]
) -> str:
    """Return the old head, else the newest of the entries that no other is installed over.

    Of several of one version, and where there are none but circles, the nearest to the old head.
    """
    lower = {name for entry in entries.values() for name in below(entry)}
    order = [name for name in (graph.head, *graph.newest_first()) if name in entries]
    tops = [name for name in order if name not in lower]
    if not tops or tops[0] == graph.head:
        return (tops or order)[0]
    return max(tops, key=lambda name: versions[name])


def _with_skipped(chain: Iterable[str], entries: Mapping[str, ChannelEntry]) -> set[str]:
    """Return a chain and the entries that are skipped by it, or by what it skips."""
    stay = set(chain)
    queue = list(stay)
    while queue:
        for name in entries[queue.pop()].skips:
            if name in entries and name not in stay:
                stay.add(name)
                queue.append(name)
    return stay


def _not_over(bundle: str, entry: ChannelEntry) -> ChannelEntry:
    """Return an entry that does not claim to be installed over a bundle."""
    return replace(
        entry,
        replaces="" if entry.replaces == bundle else entry.replaces,
        skips=tuple(name for name in entry.skips if name != bundle),
    )
