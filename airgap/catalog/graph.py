"""The graph of a channel: which bundle may be installed over which.

A bundle may be installed over the one it replaces, those it skips, those whose version is in
its skip range, and the one it substitutes for. The rules for a sound channel are those of
``opm validate`` (operator-registry, ``alpha/model``), which since August 2025 follows what
replaces what only down to the first bundle that is skipped. Channels come from outside and may hold
anything: nothing here recurses, and cycles end every walk.
"""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from airgap.catalog.versions import stated, stated_range
from airgap.errors import CatalogError, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from airgap.catalog.model import Bundle, Channel, ChannelEntry

_COMPARISONS = 5_000_000
"""Versions compared with skip ranges in the search for one path."""

_NAMED = 5
"""Bundles that a sentence names before it only counts them."""


@dataclass(frozen=True, slots=True)
class ChannelGraph:
    """A channel's entries by the names of their bundles; of two entries for one, the first."""

    head: str
    entries: Mapping[str, ChannelEntry]

    @classmethod
    def of(cls, channel: Channel) -> ChannelGraph:
        """Return a channel's graph."""
        entries: dict[str, ChannelEntry] = {}
        for entry in channel.entries:
            entries.setdefault(entry.bundle, entry)
        return cls(channel.head, entries)

    @property
    def heads(self) -> tuple[str, ...]:
        """The bundles that no entry replaces or skips; a sound channel has one."""
        above = {name for entry in self.entries.values() for name in below(entry)}
        return tuple(sorted(self.entries.keys() - above))

    @property
    def dangling(self) -> tuple[tuple[str, str], ...]:
        """The bundles that are replaced but are no entries, each with the one that replaces it.

        The last of a channel may well replace something the catalog does not have any more.
        """
        return tuple(
            sorted(
                (entry.bundle, entry.replaces)
                for entry in self.entries.values()
                if entry.replaces and entry.replaces not in self.entries
            )
        )

    @property
    def cycle(self) -> tuple[str, ...]:
        """Bundles that replace or skip one another in a circle, the first again as the last."""
        edges = {name: below(entry) for name, entry in self.entries.items()}
        try:
            TopologicalSorter(edges).prepare()
        except CycleError as error:
            found: list[str] = error.args[1]
            return tuple(reversed(found))
        return ()

    def chain(self, start: str) -> Iterator[str]:
        """Give an entry and what it replaces, and so on, as long as these are new entries."""
        seen: set[str] = set()
        while start in self.entries and start not in seen:
            seen.add(start)
            yield start
            start = self.entries[start].replaces

    def newest_first(self) -> tuple[str, ...]:
        """Return all entries, level by level below the head; a replaced one before skipped ones.

        What nothing leads to comes last, in the order of the channel's entries.
        """
        levels = self._walk(name for name in (self.head, *self.heads) if name in self.entries)
        return tuple(dict.fromkeys((*levels, *self.entries)))

    def _walk(self, start: Iterable[str]) -> Iterator[str]:
        queue = deque(dict.fromkeys(start))
        seen = set(queue)
        while queue:
            name = queue.popleft()
            yield name
            for lower in below(self.entries[name]):
                if lower in self.entries and lower not in seen:
                    seen.add(lower)
                    queue.append(lower)

    def faults(self) -> tuple[str, ...]:
        """Say which of ``opm``'s rules the channel breaks; a sound one breaks none."""
        heads = self.heads
        if not self.entries:
            return ("no bundles",)
        if not heads:
            return (f"no head, but a circle: {named(self.cycle)}",)
        if len(heads) > 1:
            return (f"several heads: {named(heads)}",)
        return tuple(self._faults_below(*heads))

    def _faults_below(self, head: str) -> Iterator[str]:
        if head != self.head:
            claimed = f"head {named([self.head])}" if self.head else "no head is named"
            yield f"{claimed}, but nothing replaces {named([head])}"
        skipped = {name for entry in self.entries.values() for name in entry.skips}
        chain = tuple(itertools.takewhile(lambda name: name not in skipped, self.chain(head)))
        if self.entries[chain[-1]].replaces in chain:
            yield f"a circle of bundles that replace one another: {named(self.cycle)}"
        stranded = self.entries.keys() - skipped - set(chain)
        if stranded:
            yield f"bundles that no path from the head leads to: {named(sorted(stranded))}"


def below(entry: ChannelEntry) -> tuple[str, ...]:
    """Return the names of what an entry replaces and skips, each once, the replaced one first."""
    return tuple(dict.fromkeys(filter(None, (entry.replaces, *entry.skips))))


def upgrade_path(
    graph: ChannelGraph, bundles: Mapping[str, Bundle], installed: str, target: str
) -> tuple[str, ...]:
    """Return the shortest way from one bundle to another, both ends in it; () when there is none.

    ``bundles`` are the channel's, by name; their versions are what skip ranges are held
    against. ``installed`` need not be in the channel any more. Raises CatalogError when the
    channel takes more comparisons than any real one.
    """
    next_up = {target: target}
    queue = deque([target])
    reach = _Reach(graph, bundles, installed)
    while queue and installed not in next_up:
        name = queue.popleft()
        for lower in reach.of(name):
            if lower not in next_up:
                next_up[lower] = name
                queue.append(lower)
    return tuple(_upwards(next_up, installed, target)) if installed in next_up else ()


def _upwards(next_up: Mapping[str, str], name: str, target: str) -> Iterator[str]:
    yield name
    while name != target:
        name = next_up[name]
        yield name


class _Reach:
    """What each bundle may be installed over, with a budget for comparing versions."""

    def __init__(self, graph: ChannelGraph, bundles: Mapping[str, Bundle], installed: str) -> None:
        self._graph = graph
        self._bundles = bundles
        names = dict.fromkeys((*graph.entries, installed))
        versions = {name: stated(bundles[name].version) for name in names if name in bundles}
        self._versions = {name: version for name, version in versions.items() if version}
        self._left = _COMPARISONS

    def of(self, name: str) -> Iterator[str]:
        entry = self._graph.entries.get(name)
        if entry is not None:
            yield from below(entry)
            yield from self._in_skip_range(entry)
        if name in self._bundles and self._bundles[name].substitutes_for:
            yield self._bundles[name].substitutes_for

    def _in_skip_range(self, entry: ChannelEntry) -> Iterator[str]:
        versions = stated_range(entry.skip_range)
        if versions is None:
            return
        self._left -= len(self._versions)
        if self._left < 0:
            raise CatalogError(f"channel with head {named([self._graph.head])}: too many ranges")
        for name, version in self._versions.items():
            if name != entry.bundle and version in versions:
                yield name


def named(bundles: Iterable[str]) -> str:
    """Return the names of bundles, as much of them as one reads in a sentence."""
    names = [printable(name, 80) for name in bundles]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
