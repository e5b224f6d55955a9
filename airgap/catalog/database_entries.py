"""The graphs of channels as rows of the table ``channel_entry``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airgap.catalog.graph import ChannelGraph

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from airgap.catalog.model import Channel


class EntryRows:
    """The rows that say what replaces and skips what, as operator-registry writes them.

    Each entry has a row that points to what it replaces, and a further one for everything it
    skips. Rows point to rows: to the entry's own in the channel, else to one in another channel
    of the package, else to a row made for a bundle that the catalog does not have any more.
    """

    def __init__(self, channels: Sequence[tuple[str, Channel]]) -> None:
        self._channels = channels
        self._own: dict[tuple[str, str, str], int] = {}
        self._anywhere: dict[tuple[str, str], int] = {}
        for package, channel in channels:
            for entry in channel.entries:
                number = self._own.setdefault(
                    (package, channel.name, entry.bundle), len(self._own) + 1
                )
                self._anywhere.setdefault((package, entry.bundle), number)
        self._last = len(self._own)

    @property
    def own(self) -> Mapping[tuple[str, str, str], int]:
        """The numbers of the entries' own rows, by the names of package, channel and bundle."""
        return self._own

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Give all rows, those of one channel together but for the first of each entry."""
        for package, channel in self._channels:
            yield from self._of_channel(package, channel)

    def _of_channel(self, package: str, channel: Channel) -> Iterator[tuple[Any, ...]]:
        graph = ChannelGraph.of(channel)
        made: dict[str, int] = {}
        depth = 0
        for name in dict.fromkeys((*graph.chain(channel.head), *graph.entries)):
            entry = graph.entries[name]
            own = self._own[package, channel.name, name]
            lower, new = self._row_of(package, channel.name, entry.replaces, made)
            last = depth + len(entry.skips) + 1
            if new:
                yield lower, channel.name, package, entry.replaces, None, last
            yield own, channel.name, package, name, lower, depth
            for skipped in entry.skips:
                depth += 1
                lower, new = self._row_of(package, channel.name, skipped, made)
                if new:
                    yield lower, channel.name, package, skipped, None, depth
                yield self._number(), channel.name, package, name, lower, depth
            depth += 1

    def _row_of(
        self, package: str, channel: str, name: str, made: dict[str, int]
    ) -> tuple[int | None, bool]:
        """Return the number of a bundle's row, and whether that row has yet to be written."""
        if not name:
            return None, False
        known = self._own.get((package, channel, name)) or self._anywhere.get((package, name))
        if known or name in made:
            return known or made[name], False
        made[name] = self._number()
        return made[name], True

    def _number(self) -> int:
        self._last += 1
        return self._last
