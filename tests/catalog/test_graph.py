from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airgap.catalog import graph
from airgap.catalog.graph import ChannelGraph, upgrade_path
from airgap.catalog.model import Bundle, Channel, ChannelEntry
from airgap.errors import CatalogError


def entry(bundle: str, replaces: str = "", *skips: str, skip_range: str = "") -> ChannelEntry:
    return ChannelEntry(bundle, replaces, skips, skip_range)


def channel(*entries: ChannelEntry, head: str = "") -> Channel:
    return Channel("stable", head or entries[0].bundle, entries)


def bundles(channel: Channel, **substitutes: str) -> dict[str, Bundle]:
    """Bundles named like ``a1``, of version 1.0.0."""
    names = {entry.bundle for entry in channel.entries}
    return {
        name: Bundle("p", name, f"{name[1:]}.0.0", substitutes_for=substitutes.get(name, ""))
        for name in names
    }


CHAIN = channel(entry("a3", "a2"), entry("a2", "a1"), entry("a1"))
SKIPPING = channel(entry("a4", "a2", "a3"), entry("a3", "a2"), entry("a2", "a1"), entry("a1"))

names = st.sampled_from("abcdef")
channels = st.builds(
    Channel,
    st.just("any"),
    names,
    st.lists(
        st.builds(ChannelEntry, names, names | st.just(""), st.lists(names, max_size=3).map(tuple)),
        max_size=8,
    ).map(tuple),
)


@pytest.mark.parametrize(
    "sound",
    [
        CHAIN,
        SKIPPING,
        channel(entry("a1", "gone")),
        channel(entry("a3", "a2", "a1"), entry("a2", "gone"), entry("a1", "older")),
        channel(entry("a2", "a1"), entry("a1"), entry("a2", "a9")),
        channel(entry("a3", "a2", "a1"), entry("a2", "a1"), entry("a1", "a0")),
    ],
)
def test_finds_no_fault_in_a_sound_channel(sound: Channel) -> None:
    assert ChannelGraph.of(sound).faults() == ()
    assert ChannelGraph.of(sound).heads == (sound.head,)
    assert ChannelGraph.of(sound).cycle == ()


@pytest.mark.parametrize(
    ("broken", "fault"),
    [
        (Channel("c", "a1", ()), "no bundles"),
        (channel(entry("a1", "a1")), "no head, but a circle: a1, a1"),
        (channel(entry("a1", "", "a1")), "no head, but a circle: a1, a1"),
        (channel(entry("a2", "a1"), entry("a1", "a2")), "no head, but a circle"),
        (channel(entry("a2"), entry("a1")), "several heads: a1, a2"),
        (channel(entry("a3", "a2"), entry("a2", "a1"), entry("a1", "a2")), "circle of bundles"),
        (channel(entry("a1"), entry("a2", "a1")), "head a1, but nothing replaces a2"),
        (Channel("c", "", (entry("a1"),)), "no head is named, but nothing replaces a1"),
        (
            channel(entry("a3", "gone", "a2"), entry("a2", "a1"), entry("a1")),
            "no path from the head leads to: a1",
        ),
        (
            channel(entry("a4", "a3", "a2"), entry("a3", "a2"), entry("a2", "a1"), entry("a1")),
            "no path from the head leads to: a1",
        ),
        (channel(*(entry(f"a{n}") for n in range(9))), "a0, a1, a2, a3, a4 and 4 more"),
    ],
)
def test_says_which_rule_a_channel_breaks(broken: Channel, fault: str) -> None:
    (found,) = ChannelGraph.of(broken).faults()
    assert fault in found


def test_names_what_is_replaced_but_not_there() -> None:
    parts = ChannelGraph.of(channel(entry("a3", "a2"), entry("a1", "a0"), entry("b", "", "x")))
    assert parts.dangling == (("a1", "a0"), ("a3", "a2"))


def test_a_cycle_is_told_in_the_direction_of_replacing() -> None:
    parts = ChannelGraph.of(channel(entry("c", "b"), entry("b", "a"), entry("a", "c")))
    cycle = parts.cycle
    assert cycle[0] == cycle[-1]
    assert all(parts.entries[upper].replaces == lower for upper, lower in pairwise(cycle))


def test_the_newest_come_first() -> None:
    assert ChannelGraph.of(SKIPPING).newest_first() == ("a4", "a2", "a3", "a1")
    parts = ChannelGraph.of(channel(entry("a1"), entry("x", "y"), entry("y", "x")))
    assert parts.newest_first() == ("a1", "x", "y")


@given(channels)
def test_any_channel_has_an_end(channel: Channel) -> None:
    parts = ChannelGraph.of(channel)
    order = parts.newest_first()
    assert sorted(order) == sorted(parts.entries)
    for name in order:
        chain = tuple(parts.chain(name))
        assert len(set(chain)) == len(chain)
        assert chain[0] == name
    if parts.entries and not parts.faults():
        assert parts.heads == (channel.head,)


@given(channels, names, names)
def test_a_path_only_takes_steps_that_are_allowed(channel: Channel, low: str, high: str) -> None:
    parts = ChannelGraph.of(channel)
    path = upgrade_path(parts, {}, low, high)
    assert len(set(path)) == len(path)
    if path:
        assert (path[0], path[-1]) == (low, high)
    for lower, upper in pairwise(path):
        assert lower in graph.below(parts.entries[upper])


class TestPaths:
    @pytest.mark.parametrize(
        ("installed", "expected"),
        [
            ("a1", ("a1", "a2", "a4")),
            ("a2", ("a2", "a4")),
            ("a3", ("a3", "a4")),
            ("a4", ("a4",)),
            ("unknown", ()),
        ],
    )
    def test_the_shortest_is_found(self, installed: str, expected: tuple[str, ...]) -> None:
        parts = ChannelGraph.of(SKIPPING)
        assert upgrade_path(parts, bundles(SKIPPING), installed, "a4") == expected

    def test_never_leads_down(self) -> None:
        assert upgrade_path(ChannelGraph.of(CHAIN), bundles(CHAIN), "a3", "a1") == ()

    def test_a_skip_range_shortens_it(self) -> None:
        ranged = channel(
            entry("a4", "a3", skip_range=">=1.0.0 <4.0.0"),
            entry("a3", "a2"),
            entry("a2", "a1"),
            entry("a1"),
        )
        parts = ChannelGraph.of(ranged)
        assert upgrade_path(parts, bundles(ranged), "a1", "a4") == ("a1", "a4")

    def test_begins_at_what_the_channel_has_no_more(self) -> None:
        short = channel(entry("a2", "a1"))
        assert upgrade_path(ChannelGraph.of(short), {}, "a1", "a2") == ("a1", "a2")
        ranged = channel(entry("a2", skip_range="<2.0.0"))
        known = bundles(ranged) | {"a1": Bundle("p", "a1", "1.0.0")}
        assert upgrade_path(ChannelGraph.of(ranged), known, "a1", "a2") == ("a1", "a2")

    def test_an_unreadable_skip_range_skips_nothing(self) -> None:
        ranged = channel(entry("a2", skip_range="most"), entry("a1"))
        assert upgrade_path(ChannelGraph.of(ranged), bundles(ranged), "a1", "a2") == ()

    def test_a_substitute_takes_the_place(self) -> None:
        rebuilt = channel(entry("a2"), entry("a1"))
        known = bundles(rebuilt, a2="a1")
        assert upgrade_path(ChannelGraph.of(rebuilt), known, "a1", "a2") == ("a1", "a2")

    def test_refuses_more_comparisons_than_any_channel_takes(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(graph, "_COMPARISONS", 100)
        entries = [entry(f"a{n}", f"a{n - 1}", skip_range="<0.0.1") for n in range(50, 0, -1)]
        wide = channel(*entries)
        with pytest.raises(CatalogError, match="too many ranges"):
            upgrade_path(ChannelGraph.of(wide), bundles(wide), "none", "a50")


def test_a_chain_of_a_hundred_thousand_is_walked() -> None:
    count = 100_000
    long = channel(*(entry(f"a{n}", f"a{n - 1}") for n in range(count, 0, -1)))
    started = time.monotonic()
    parts = ChannelGraph.of(long)
    assert parts.faults() == ()
    assert len(parts.newest_first()) == count
    assert len(upgrade_path(parts, {}, "a0", f"a{count}")) == count + 1
    assert time.monotonic() - started < 20
