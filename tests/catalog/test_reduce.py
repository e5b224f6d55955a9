from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airgap.catalog import sqlite
from airgap.catalog.graph import ChannelGraph
from airgap.catalog.model import Bundle, Catalog, Channel, ChannelEntry, Package
from airgap.catalog.reduce import reduced
from airgap.catalog.select import EVERY, HEAD, PackageChoice, Selection, select
from airgap.catalog.tree import LocalFile
from tests.support import published

if TYPE_CHECKING:
    from pathlib import Path


def entry(bundle: str, replaces: str = "", *skips: str) -> ChannelEntry:
    return ChannelEntry(bundle, replaces, skips)


def catalog(*channels: Channel, default: str = "stable") -> Catalog:
    names = {entry.bundle for channel in channels for entry in channel.entries}
    names |= {channel.head for channel in channels}
    return Catalog(
        (Package("p", default, channels),),
        tuple(Bundle("p", name, f"{name[1:]}.0.0") for name in sorted(names)),
        other_images=("q.io/alone",),
    )


def stable(*entries: ChannelEntry) -> Channel:
    return Channel("stable", entries[0].bundle, entries)


def keep(whole: Catalog, names: str, defaults: dict[str, str] | None = None) -> Catalog:
    kept = set(names.split())
    places = select(whole, Selection()).places
    return reduced(whole, {place: held & kept for place, held in places.items()}, defaults)


HEADS = Selection((PackageChoice(EVERY, versions=HEAD),))

CHAIN = catalog(
    stable(entry("a5", "a4"), entry("a4", "a3"), entry("a3", "a2"), entry("a2", "a1"), entry("a1"))
)


@pytest.mark.parametrize(
    ("kept", "head", "left"),
    [
        ("a5 a4 a3 a2 a1", "a5", "a5 a4 a3 a2 a1"),
        ("a5", "a5", "a5"),
        ("a4 a3", "a4", "a4 a3"),
        ("a1", "a1", "a1"),
        ("a5 a4 a1", "a5", "a5 a4"),
        ("a4 a2 a1", "a4", "a4"),
    ],
)
def test_a_channel_is_cut_above_and_below(kept: str, head: str, left: str) -> None:
    part = keep(CHAIN, kept)
    (channel,) = part.packages[0].channels
    assert channel.head == head
    assert [entry.bundle for entry in channel.entries] == left.split()
    assert {bundle.name for bundle in part.bundles} == set(left.split())
    assert is_sound(channel)


def refused_by_opm(channel: Channel, ends_at_skipped: bool) -> str:
    """operator-registry's rules for a channel, as newer versions and as older ones have them."""
    entries = {entry.bundle: entry for entry in channel.entries}
    skipped = {name for entry in entries.values() for name in entry.skips}
    above = skipped | {entry.replaces for entry in entries.values()}
    heads = [name for name in entries if name not in above]
    if heads != [channel.head]:
        return f"heads {heads}"
    chain = [channel.head]
    while chain[-1] in entries:
        lower = entries[chain[-1]].replaces
        if ends_at_skipped and lower in skipped:
            break
        if lower in chain:
            return f"circle at {lower}"
        chain.append(lower)
    stranded = entries.keys() - skipped - set(chain)
    return f"stranded {stranded}" if stranded else ""


def is_sound(channel: Channel) -> bool:
    return not any(
        (
            refused_by_opm(channel, True),
            refused_by_opm(channel, False),
            *ChannelGraph.of(channel).faults(),
        )
    )


def test_what_lies_beyond_a_gap_is_named() -> None:
    (problem,) = keep(CHAIN, "a5 a3 a1").problems
    assert problem == (
        "package p: channel stable loses a1, a3: nothing selected leads there from a5"
    )


def test_nothing_comes_to_replace_another_bundle() -> None:
    entries = {e.bundle: e for e in CHAIN.packages[0].channels[0].entries}
    for e in keep(CHAIN, "a5 a4 a2").packages[0].channels[0].entries:
        assert e == entries[e.bundle]


def test_what_is_skipped_stays() -> None:
    whole = catalog(stable(entry("a4", "a2", "a3"), entry("a3", "a2"), entry("a2"), entry("a1")))
    part = keep(whole, "a4 a3")
    assert [e.bundle for e in part.packages[0].channels[0].entries] == ["a4", "a3"]
    assert part.problems == ()
    below = keep(whole, "a3 a2")
    assert below.packages[0].channels[0].head == "a3"
    assert below.problems == ()


def test_what_only_a_skipped_bundle_leads_to_is_named() -> None:
    whole = catalog(
        stable(
            entry("a6", "a5", "a1"),
            entry("a5", "a4", "a2"),
            entry("a4", "a3"),
            entry("a3", "a2"),
            entry("a2", "a1"),
            entry("a1"),
        )
    )
    assert is_sound(keep(whole, "a6 a5 a4 a3 a2 a1").packages[0].channels[0])
    part = keep(whole, "a5 a4 a3 a2 a1")
    (channel,) = part.packages[0].channels
    assert [entry.bundle for entry in channel.entries] == ["a5", "a4", "a3", "a2"]
    assert is_sound(channel)
    assert part.problems == (
        "package p: channel stable loses a1: nothing selected leads there from a5",
    )


def test_without_the_old_head_the_newest_version_is_the_head() -> None:
    whole = catalog(stable(entry("a9", "a2", "a8", "a7"), entry("a8"), entry("a7"), entry("a2")))
    part = keep(whole, "a8 a2")
    (channel,) = part.packages[0].channels
    assert channel.head == "a8"
    assert "loses a2" in part.problems[0]


@pytest.mark.parametrize(
    "broken",
    [
        stable(entry("a3", "a2"), entry("a2", "a1", "a2"), entry("a1")),
        stable(entry("a1", "a1", "a1")),
        stable(entry("a2", "a1"), entry("a1", "a2")),
        stable(entry("a3", "a2"), entry("a2", "a1"), entry("a1", "a2")),
        stable(entry("a3", "a2"), entry("a2", "a1", "a3"), entry("a1")),
        stable(entry("a2"), entry("a1")),
        Channel("stable", "a9", ()),
    ],
)
def test_a_broken_channel_becomes_a_sound_one(broken: Channel) -> None:
    whole = catalog(broken)
    part = reduced(whole, select(whole, Selection()).places)
    (channel,) = part.packages[0].channels
    assert channel.head == broken.head
    assert is_sound(channel)


def test_packages_and_channels_without_a_bundle_are_gone() -> None:
    other = Package("q", "b", (Channel("b", "b1", (entry("b1"),)),))
    both = catalog(stable(entry("a2", "a1"), entry("a1")), Channel("beta", "a3", (entry("a3"),)))
    whole = Catalog((*both.packages, other), (*both.bundles, Bundle("q", "b1", "1.0.0")))
    part = keep(whole, "a2")
    assert [(p.name, [c.name for c in p.channels]) for p in part.packages] == [("p", ["stable"])]
    assert part.other_images == ()


class TestChannels:
    WHOLE = catalog(
        stable(entry("a3", "a2"), entry("a2", "a1"), entry("a1")),
        Channel("old", "a1", (entry("a1"),)),
    )

    def test_that_are_not_chosen_are_gone(self) -> None:
        chosen = select(self.WHOLE, Selection((PackageChoice("p", ("old",)),)))
        part = reduced(self.WHOLE, chosen.places)
        assert [channel.name for channel in part.packages[0].channels] == ["old"]

    def test_hold_what_was_taken_of_them(self) -> None:
        chosen = select(self.WHOLE, HEADS)
        part = reduced(self.WHOLE, chosen.places)
        assert {channel.name: channel.head for channel in part.packages[0].channels} == {
            "stable": "a3",
            "old": "a1",
        }
        assert part.problems == ()

    def test_of_what_is_lost_in_one_and_stays_in_another_nothing_is_said(self) -> None:
        part = keep(self.WHOLE, "a3 a1")
        assert {bundle.name for bundle in part.bundles} == {"a1", "a3"}
        assert part.problems == ()

    def test_of_one_name_keep_apart(self) -> None:
        whole = catalog(stable(entry("a2")), stable(entry("a1")))
        part = keep(whole, "a1 a2")
        assert [channel.head for channel in part.packages[0].channels] == ["a2", "a1"]

    def test_without_a_name_are_no_less_kept(self) -> None:
        part = keep(catalog(Channel("", "a1", (entry("a1"),)), default=""), "a1")
        assert [bundle.name for bundle in part.bundles] == ["a1"]
        assert len(part.packages) == 1


class TestDefaultChannel:
    WHOLE = catalog(
        Channel("stable", "a1", (entry("a1"),)),
        Channel("old", "a8", (entry("a8"),)),
        Channel("new", "a10", (entry("a10"),)),
    )

    def test_stays_while_it_keeps_a_bundle(self) -> None:
        part = keep(self.WHOLE, "a1 a8 a10")
        assert part.packages[0].default_channel == "stable"
        assert part.problems == ()

    def test_is_the_one_with_the_newest_head_when_it_is_gone(self) -> None:
        part = keep(self.WHOLE, "a8 a10")
        assert part.packages[0].default_channel == "new"
        (problem,) = part.problems
        assert "nothing of the default channel 'stable' is selected" in problem

    def test_is_chosen_where_there_was_none(self) -> None:
        part = keep(catalog(*self.WHOLE.packages[0].channels, default=""), "a8 a10")
        assert part.packages[0].default_channel == "new"
        assert part.problems == (
            "package p: there is no default channel; 'new' is the default now",
        )

    def test_is_the_one_wished_for(self) -> None:
        part = keep(self.WHOLE, "a8 a10", {"p": "old"})
        assert part.packages[0].default_channel == "old"
        assert part.problems == ()

    def test_cannot_be_one_that_is_not_selected(self) -> None:
        part = keep(self.WHOLE, "a8 a10", {"p": "beta\x1b"})
        assert part.packages[0].default_channel == "new"
        assert part.problems[0].isprintable()


_names = st.sampled_from([f"a{number}" for number in range(7)])
_entries = st.builds(
    ChannelEntry, _names, _names | st.just(""), st.lists(_names, max_size=2).map(tuple)
)
_channels = st.builds(Channel, st.just("stable"), _names, st.lists(_entries, max_size=8).map(tuple))


@given(st.lists(_channels, min_size=1, max_size=3), st.sets(_names))
def test_whatever_is_kept_is_sound_and_no_more_than_selected(
    channels: list[Channel], kept: set[str]
) -> None:
    named = [Channel(f"c{n}", c.head, c.entries) for n, c in enumerate(channels)]
    whole = catalog(*named, default="c0")
    part = keep(whole, " ".join(kept))
    assert {bundle.name for bundle in part.bundles} <= kept
    for package in part.packages:
        assert package.default_channel in {channel.name for channel in package.channels}
        for channel in package.channels:
            assert is_sound(channel)
            assert {entry.bundle for entry in channel.entries} <= kept
    again = reduced(part, select(part, Selection()).places)
    assert (again.packages, again.bundles, again.problems) == (part.packages, part.bundles, ())


@pytest.mark.parametrize("path", published.databases(), ids=published.name)
def test_published_catalogs_reduce_to_sound_ones(path: Path, tmp_path: Path) -> None:
    whole = sqlite.read(LocalFile.at(published.unpacked(path, tmp_path)))
    selected = select(whole, HEADS if whole.bundles else Selection())
    part = reduced(whole, selected.places)
    assert set(part.images) <= set(whole.images)
    assert part.bundles == selected.bundles
    for each in (part, reduced(whole, select(whole, Selection()).places)):
        for package in each.packages:
            for channel in package.channels:
                assert is_sound(channel)
