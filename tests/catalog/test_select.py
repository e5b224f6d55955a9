from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import pytest

from airgap.catalog import sqlite
from airgap.catalog.model import Bundle, Catalog, Channel, ChannelEntry, Package
from airgap.catalog.properties import Api
from airgap.catalog.select import (
    HEAD,
    PackageChoice,
    Selected,
    Selection,
    parse_pattern,
    select,
)
from airgap.catalog.tree import LocalFile
from airgap.catalog.versions import VersionRange
from airgap.errors import UsageError
from airgap.reference import ImageReference
from tests.support import published

if TYPE_CHECKING:
    from pathlib import Path


def bundle(name: str, version: str, *images: str, requires: tuple[Api, ...] = ()) -> Bundle:
    package = name.partition(".")[0]
    return Bundle(package, name, version, f"q.io/{name}", images, requires=requires)


LOGS = Api("logs", "v1", "Log")
LOGGING = Package(
    "clusterlogging",
    "4.4",
    (
        Channel(
            "4.3",
            "clusterlogging.4.3.33",
            (
                ChannelEntry("clusterlogging.4.3.33", "clusterlogging.4.3.32"),
                ChannelEntry("clusterlogging.4.3.32"),
            ),
        ),
        Channel("4.4", "clusterlogging.4.4.0", (ChannelEntry("clusterlogging.4.4.0"),)),
    ),
)
ETCD = Package(
    "etcd",
    "alpha",
    (Channel("alpha", "etcd.2", (ChannelEntry("etcd.2", "etcd.1"), ChannelEntry("etcd.1"))),),
)
CATALOG = Catalog(
    (LOGGING, ETCD),
    (
        bundle("clusterlogging.4.3.32", "4.3.32-1.p0", "q.io/fluentd@sha256:a", requires=(LOGS,)),
        bundle("clusterlogging.4.3.33", "4.3.33-1.p0", "q.io/fluentd@sha256:b", requires=(LOGS,)),
        bundle("clusterlogging.4.4.0", "4.4.0-1.p0", "q.io/fluentd@sha256:c"),
        bundle("etcd.1", "first"),
        Bundle("etcd", "etcd.2", "2.0.0", "q.io/etcd.2", ("q.io/fluentd@sha256:b",), (LOGS,)),
        Bundle("", "loose", "1.0.0", "q.io/loose"),
    ),
    other_images=("q.io/alone",),
)


def chosen(*choices: str, catalog: Catalog = CATALOG, dependencies: bool = False) -> Selected:
    packages = tuple(map(PackageChoice.parse, choices))
    return select(catalog, Selection(packages, with_dependencies=dependencies))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("etcd", PackageChoice("etcd")),
        ("etcd:alpha", PackageChoice("etcd", ("alpha",))),
        ("etcd:alpha,beta,alpha", PackageChoice("etcd", ("alpha", "beta"))),
        ("etcd@head", PackageChoice("etcd", (), HEAD)),
        (
            "etcd:4.3-eus@>=4.3,<4.4",
            PackageChoice("etcd", ("4.3-eus",), VersionRange.parse(">=4.3,<4.4")),
        ),
        (
            "etcd@4.3.33-202008111029.p0",
            PackageChoice("etcd", (), VersionRange.parse("4.3.33-202008111029.p0")),
        ),
    ],
)
def test_reads_a_choice_of_a_package(text: str, expected: PackageChoice) -> None:
    assert PackageChoice.parse(text) == expected
    assert PackageChoice.parse(str(expected)) == expected


@pytest.mark.parametrize(
    "text", ["", ":", "@", "etcd:", "etcd@", ":alpha", "etcd:a,,b", "etcd:@1.0.0", "@>=1", "etcd@x"]
)
def test_refuses_what_is_no_choice(text: str) -> None:
    with pytest.raises(UsageError):
        PackageChoice.parse(text)


@pytest.mark.parametrize(
    ("choices", "names"),
    [
        (["etcd"], ["etcd.1", "etcd.2"]),
        (["etcd@head"], ["etcd.2"]),
        (["etcd@2.0.0"], ["etcd.2"]),
        (["clusterlogging@head"], ["clusterlogging.4.3.33", "clusterlogging.4.4.0"]),
        (["clusterlogging:4.3"], ["clusterlogging.4.3.32", "clusterlogging.4.3.33"]),
        (["clusterlogging:4.3@head"], ["clusterlogging.4.3.33"]),
        (["clusterlogging@>=4.3,<4.4"], ["clusterlogging.4.3.32", "clusterlogging.4.3.33"]),
        (["clusterlogging:4.4@4.4.0-1.p0", "etcd@head"], ["clusterlogging.4.4.0", "etcd.2"]),
        (["etcd@head", "etcd:alpha"], ["etcd.1", "etcd.2"]),
    ],
)
def test_takes_packages_channels_and_versions(choices: list[str], names: list[str]) -> None:
    selected = chosen(*choices)
    assert [bundle.name for bundle in selected.bundles] == names
    expected = {image for bundle in selected.bundles for image in bundle.images}
    assert list(selected.images) == sorted(expected)


def test_without_choices_all_is_taken() -> None:
    selected = select(CATALOG, Selection())
    assert selected.bundles == CATALOG.bundles
    assert selected.images == CATALOG.wanted()
    assert selected.remarks == ()
    assert selected.places["etcd", "alpha"] == {"etcd.1", "etcd.2"}


def test_knows_the_channels_that_bundles_were_taken_of() -> None:
    assert chosen("clusterlogging:4.3@head", dependencies=True).places == {
        ("clusterlogging", "4.3"): {"clusterlogging.4.3.33"},
        ("etcd", "alpha"): {"etcd.2"},
    }


def test_says_that_images_without_a_bundle_are_left_out() -> None:
    assert any(
        "for no bundle are not selected: 1" in remark for remark in chosen("etcd@head").remarks
    )


def test_an_image_names_only_the_bundles_selected() -> None:
    (wanting,) = chosen("etcd@head").images["q.io/fluentd@sha256:b"]
    assert wanting.name == "etcd.2"


def test_says_that_a_range_takes_a_prerelease_of_its_end() -> None:
    (remark,) = (r for r in chosen("clusterlogging@>=4.3.0,<4.4.0").remarks if "below" in r)
    assert "takes clusterlogging.4.4.0, because a pre-release of 4.4.0 is below it" in remark
    for text in ("<4.4.0-0", "<4.4", "<=4.4.0", "4.4.0-1.p0", "<4.4.1"):
        remarks = chosen(f"clusterlogging@{text}").remarks
        assert not any("pre-release" in line for line in remarks), text


VAULT = (
    ChannelEntry("vault.5", "vault.4", skip_range=">=2.0.0 <4.0.0"),
    ChannelEntry("vault.4", "vault.3"),
    ChannelEntry("vault.3", "vault.2"),
    ChannelEntry("vault.2", "vault.1"),
    ChannelEntry("vault.1"),
)


def vault(*entries: ChannelEntry) -> Catalog:
    channel = Channel("stable", entries[0].bundle, entries)
    bundles = tuple(bundle(e.bundle, f"{e.bundle[-1]}.0.0", f"q.io/{e.bundle}") for e in entries)
    return Catalog((Package("vault", "stable", (channel,)),), bundles)


def test_says_where_no_update_leads_through_what_is_taken() -> None:
    gap = tuple(entry for entry in VAULT if entry.bundle != "vault.2")
    (remark,) = chosen("vault@<4.0.0", catalog=vault(*gap[1:])).remarks
    assert remark == (
        "package vault, channel stable: no update leads from vault.1 to vault.3 through what is"
        " taken"
    )


@pytest.mark.parametrize("text", ["<4.0.0", ">=2.0.0", "5.0.0", "head"])
def test_says_nothing_where_updates_lead_through_what_is_taken(text: str) -> None:
    assert chosen(f"vault@{text}", catalog=vault(*VAULT)).remarks == ()


class TestUnknown:
    def test_comes_not_near_what_has_no_name(self) -> None:
        nameless = Catalog((Package("", "", ()), *CATALOG.packages), CATALOG.bundles)
        with pytest.raises(UsageError, match="nothing comes near"):
            chosen("zzz", catalog=nameless)

    @pytest.mark.parametrize(
        ("choice", "message"),
        [
            ("clusterloging", "no package 'clusterloging' in the catalog: did you mean clusterl"),
            ("logging", "did you mean clusterlogging?"),
            ("zzz", "nothing comes near"),
            ("clusterlogging:4.5", "no channel '4.5' in package clusterlogging: did you mean 4."),
            ("etcd@>=9", "package 'etcd@>=9': no such bundle; the versions are from 2.0.0"),
        ],
    )
    def test_is_refused_with_what_comes_near(self, choice: str, message: str) -> None:
        with pytest.raises(UsageError) as caught:
            chosen(choice)
        assert message in caught.value.message

    def test_is_told_all_at_once(self) -> None:
        with pytest.raises(UsageError, match=r"'etc'.*; no package 'cluster'"):
            chosen("etc", "etcd", "cluster")

    def test_is_printed_without_escapes(self) -> None:
        hostile = Catalog((Package("etcd\x1b[2J", "", ()), Package("etcd" * 999, "", ())), ())
        with pytest.raises(UsageError) as caught:
            chosen("etcd\x1b", catalog=hostile)
        assert caught.value.message.isprintable()

    def test_is_a_range_where_the_catalog_states_no_versions(self) -> None:
        old = Catalog((Package("etcd", "", ()),), (Bundle("etcd", "etcd.1"),))
        with pytest.raises(UsageError, match=r"there are etcd\.1, without versions"):
            chosen("etcd@>=1.0.0", catalog=old)

    def test_is_a_channel_whose_head_is_missing(self) -> None:
        headless = Catalog((Package("etcd", "a", (Channel("a", "gone", ()),)),), ())
        with pytest.raises(UsageError, match="no such bundle; the catalog has none there"):
            chosen("etcd@head", catalog=headless)
        with pytest.raises(UsageError, match=r"package '\*@head': no package has such a bundle"):
            chosen("*@head", catalog=headless)


def test_a_package_that_stands_twice_has_the_channels_of_both() -> None:
    other = Package("etcd", "beta", (Channel("beta", "etcd.1", (ChannelEntry("etcd.1"),)),))
    both = Catalog((*CATALOG.packages, other), CATALOG.bundles)
    assert [bundle.name for bundle in chosen("etcd@head", catalog=both).bundles] == [
        "etcd.1",
        "etcd.2",
    ]
    assert [bundle.name for bundle in chosen("etcd:beta", catalog=both).bundles] == ["etcd.1"]


def test_a_version_that_is_none_is_in_no_range_but_its_own() -> None:
    selected = chosen("etcd@>=1.0.0")
    assert [bundle.name for bundle in selected.bundles] == ["etcd.2"]
    assert any("etcd.1 is in no range: its version is 'first'" in r for r in selected.remarks)


def test_a_choice_of_no_package_is_nothing() -> None:
    selected = select(CATALOG, Selection(()))
    assert (selected.bundles, dict(selected.images)) == ((), {})


def test_the_heads_of_a_catalog() -> None:
    selected = chosen("*@head")
    assert [bundle.name for bundle in selected.bundles] == [
        "clusterlogging.4.3.33",
        "clusterlogging.4.4.0",
        "etcd.2",
    ]


class TestDependencies:
    def test_are_listed_but_not_taken(self) -> None:
        selected = chosen("clusterlogging:4.3@head")
        assert [bundle.name for bundle in selected.dependencies.further] == ["etcd.2"]
        assert "q.io/etcd.2" not in selected.images

    def test_are_told_of_a_part_and_not_of_all(self) -> None:
        (line,) = (r for r in chosen("clusterlogging:4.3@head").remarks if "needed" in r)
        assert line.startswith("etcd.2 of package etcd is needed too, by clusterlogging.4.3.33")
        assert not any("need" in line for line in select(CATALOG, Selection()).remarks)

    def test_are_taken_when_asked_for(self) -> None:
        selected = chosen("clusterlogging:4.3@head", dependencies=True)
        assert [b.name for b in selected.bundles] == ["clusterlogging.4.3.33", "etcd.2"]
        assert "q.io/etcd.2" in selected.images


class TestExclusions:
    def test_are_searched_for_in_the_name(self) -> None:
        selected = select(CATALOG, Selection(exclude_images=(parse_pattern("fluentd@.*[bc]$"),)))
        assert selected.excluded == ("q.io/fluentd@sha256:b", "q.io/fluentd@sha256:c")
        assert "q.io/fluentd@sha256:a" in selected.images
        assert not set(selected.excluded) & selected.images.keys()

    def test_win_over_extra_images(self) -> None:
        extra = tuple(map(ImageReference.parse, ("a.io/keep:1", "a.io/drop:1")))
        patterns = (parse_pattern("drop"), parse_pattern("nowhere"))
        selected = select(CATALOG, Selection(exclude_images=patterns, images=extra))
        assert selected.extra_images == extra[:1]
        assert selected.excluded == ("a.io/drop:1",)
        assert selected.remarks == ("no image is excluded by 'nowhere'",)

    @pytest.mark.parametrize("text", ["(", "[", "*", "a{9999999999999}"])
    def test_must_be_regular_expressions(self, text: str) -> None:
        with pytest.raises(UsageError, match="not a regular expression"):
            parse_pattern(text)


@pytest.mark.parametrize("path", published.databases(), ids=published.name)
def test_the_images_of_a_package_are_those_of_its_bundles(path: Path, tmp_path: Path) -> None:
    pairs = published.beside(path, ".tsv")
    if not pairs.exists():
        pytest.skip(f"no {pairs.name}")
    catalog = sqlite.read(LocalFile.at(published.unpacked(path, tmp_path)))
    with pairs.open(encoding="utf-8", newline="") as lines:
        wanted = {(image, bundle) for image, bundle in csv.reader(lines, delimiter="\t")}
    for package in catalog.packages:
        for choice in _choices(package, catalog):
            selected = select(catalog, Selection((choice,)))
            names = {bundle.name for bundle in selected.bundles}
            assert set(selected.images) == {image for image, name in wanted if name in names}


def _choices(package: Package, catalog: Catalog) -> list[PackageChoice]:
    bundles = [bundle for bundle in catalog.bundles if bundle.package == package.name]
    if not bundles:
        return []
    versions = [VersionRange.parse(bundle.version) for bundle in bundles if bundle.version]
    return [
        PackageChoice(package.name),
        PackageChoice(package.name, versions=HEAD),
        *(PackageChoice(package.name, (c.name,)) for c in package.channels if c.entries),
        *(PackageChoice(package.name, versions=version) for version in versions[:3]),
    ]
