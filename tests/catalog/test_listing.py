from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airgap.catalog.listing import ListedBundle, ListedChannel, ListedPackage, list_packages
from airgap.catalog.model import Bundle, Catalog, Channel, ChannelEntry, Package
from airgap.errors import UsageError
from tests.catalog.test_filebased import ETCD

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

CATALOG = Catalog(
    (
        Package(
            "vault",
            "stable",
            (
                Channel("stable", "vault.2", (ChannelEntry("vault.2", "vault.1"),)),
                Channel("beta", "vault.3", (ChannelEntry("vault.3", "vault.gone"),)),
                Channel("bare", "vault.1", ()),
                Channel("empty", "vault.gone", ()),
            ),
        ),
        Package("all", "", ()),
    ),
    (
        Bundle("vault", "vault.1", "1.0.0", "q/b:1", ("q/v:1", "q/shared")),
        Bundle("vault", "vault.2", "2.0.0", "q/b:2", ("q/v:2", "q/shared")),
        Bundle("vault", "vault.3", "", "q/b:3", ()),
        Bundle("", "stray", "1.0.0", "q/stray"),
    ),
)


def _count(images: Iterable[str]) -> int:
    return sum(1 for _ in images)


def listed(
    catalog: Catalog, packages: Collection[str] = (), channels: Collection[str] = ()
) -> tuple[ListedPackage, ...]:
    return list_packages(catalog, packages, channels, _count)


def test_channels_have_their_bundles_newest_first() -> None:
    bundles = tuple(ListedBundle(f"etcd.{n}", f"{n}.0.0") for n in (3, 2, 1))
    channel = ListedChannel("stable", "etcd.3", "3.0.0", bundles)
    assert listed(ETCD) == (ListedPackage("etcd", "stable", (channel,), 3, 4, 4),)


def test_everything_is_sorted_by_name() -> None:
    found = listed(CATALOG)
    assert [package.name for package in found] == ["all", "vault"]
    assert [channel.name for channel in found[1].channels] == ["bare", "beta", "empty", "stable"]


def test_what_the_catalog_has_not_is_not_listed() -> None:
    (vault,) = listed(CATALOG, ["vault"])
    found = {c.name: (c.head, c.version, [b.name for b in c.bundles]) for c in vault.channels}
    assert found == {
        "bare": ("vault.1", "1.0.0", ["vault.1"]),
        "beta": ("vault.3", "", ["vault.3"]),
        "empty": ("vault.gone", "", []),
        "stable": ("vault.2", "2.0.0", ["vault.2"]),
    }


def test_bundles_in_no_channel_count_for_the_whole_package_alone() -> None:
    (vault,) = listed(CATALOG, ["vault"])
    assert (vault.bundles, vault.images, vault.size) == (3, 6, 6)
    (vault,) = listed(CATALOG, [], ["stable"])
    assert (vault.bundles, vault.images, vault.size) == (1, 3, 3)
    (vault,) = listed(CATALOG, ["vault"], ["stable", "bare"])
    assert (vault.bundles, vault.images) == (2, 5)
    assert [channel.name for channel in vault.channels] == ["bare", "stable"]


@pytest.mark.parametrize(
    ("packages", "channels", "message"),
    [
        (["vaul"], [], "no package 'vaul' in the catalog: did you mean vault?"),
        (["nothing"], [], "no package 'nothing' in the catalog: nothing comes near"),
        ([], ["stabel"], "no channel 'stabel' in the catalog: did you mean stable?"),
        (["all"], ["stable"], "no channel 'stable' in the packages named: nothing comes near"),
        (["a\x1b[31m"], [], "no package 'a\\x1b[31m' in the catalog: nothing comes near"),
    ],
)
def test_an_unknown_name_is_refused_with_those_that_come_near(
    packages: list[str], channels: list[str], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        listed(CATALOG, packages, channels)
    assert caught.value.message == message
