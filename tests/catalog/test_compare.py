"""What has changed from one catalog to another."""

from __future__ import annotations

from airgap.catalog.compare import CatalogChanges, ChannelChange, compare
from airgap.catalog.listing import ListedBundle
from airgap.catalog.model import Bundle, Catalog, Channel, ChannelEntry, Package


def catalog(*packages: tuple[str, str, dict[str, list[str]]]) -> Catalog:
    """Make a catalog of packages with their default channel, and versions by channel, head last."""
    made, bundles = [], {}
    for name, default, channels in packages:
        for versions in channels.values():
            for version in versions:
                bundles[name, version] = Bundle(
                    name, f"{name}.v{version}", version, f"quay.io/{name}:{version}"
                )
        made.append(
            Package(
                name,
                default,
                tuple(
                    Channel(
                        channel,
                        f"{name}.v{versions[-1]}",
                        tuple(ChannelEntry(f"{name}.v{version}") for version in versions),
                    )
                    for channel, versions in channels.items()
                ),
            )
        )
    return Catalog(tuple(made), tuple(bundles.values()))


def listed(package: str, *versions: str) -> tuple[ListedBundle, ...]:
    return tuple(ListedBundle(f"{package}.v{version}", version) for version in versions)


def test_a_catalog_is_like_itself() -> None:
    one = catalog(("etcd", "alpha", {"alpha": ["0.9.0", "0.9.2"]}))
    assert compare(one, one) == CatalogChanges((), (), ())


def test_tells_packages_that_were_added_and_are_gone() -> None:
    old = catalog(("b", "x", {"x": ["1.0.0"]}), ("same", "x", {"x": ["1.0.0"]}))
    new = catalog(("same", "x", {"x": ["1.0.0"]}), ("a", "y", {"y": ["2.0.0"]}))
    found = compare(old, new)
    assert [(package.name, package.change) for package in found.packages] == [
        ("a", "added"),
        ("b", "gone"),
    ]
    added, gone = found.packages
    (head,) = listed("a", "2.0.0")
    assert added.channels == (ChannelChange("y", "added", None, head),)
    assert (added.old_default_channel, added.new_default_channel) == ("", "y")
    assert (added.versions_added, added.versions_gone) == ((head,), ())
    assert gone.versions_gone == listed("b", "1.0.0")
    assert (found.images_added, found.images_gone) == (("quay.io/a:2.0.0",), ("quay.io/b:1.0.0",))


def test_tells_a_head_that_moved_and_what_came_with_it() -> None:
    old = catalog(("etcd", "alpha", {"alpha": ["0.9.0"], "beta": ["0.9.0"]}))
    new = catalog(("etcd", "alpha", {"alpha": ["0.9.0", "0.10.0", "0.9.2"], "beta": ["0.9.0"]}))
    (package,) = compare(old, new).packages
    assert package.change == "changed"
    was, now = listed("etcd", "0.9.0", "0.9.2")
    assert package.channels == (ChannelChange("alpha", "changed", was, now),)
    assert package.versions_added == listed("etcd", "0.9.2", "0.10.0")


def test_tells_channels_that_were_added_and_are_gone() -> None:
    old = catalog(("etcd", "alpha", {"alpha": ["1.0.0"]}))
    new = catalog(("etcd", "stable", {"stable": ["1.0.0"]}))
    (package,) = compare(old, new).packages
    assert [(channel.name, channel.change) for channel in package.channels] == [
        ("alpha", "gone"),
        ("stable", "added"),
    ]
    assert (package.old_default_channel, package.new_default_channel) == ("alpha", "stable")
    assert (package.versions_added, package.versions_gone) == ((), ())


def test_another_default_channel_is_a_change() -> None:
    channels = {"alpha": ["1.0.0"], "stable": ["1.0.0"]}
    (package,) = compare(
        catalog(("etcd", "alpha", channels)), catalog(("etcd", "stable", channels))
    ).packages
    assert package.channels == ()


def test_a_head_that_the_catalog_lacks_has_a_name_alone() -> None:
    package = Package("etcd", "alpha", (Channel("alpha", "etcd.v9", ()),))
    found = compare(Catalog((), ()), Catalog((package,), ()))
    assert found.packages[0].channels[0].new_head == ListedBundle("etcd.v9", "")


def test_versions_that_are_none_come_first() -> None:
    new = catalog(("etcd", "alpha", {"alpha": ["1.10.0", "next", "1.9.0", ""]}))
    (package,) = compare(Catalog((), ()), new).packages
    assert [bundle.version for bundle in package.versions_added] == ["", "next", "1.9.0", "1.10.0"]


def test_an_image_under_an_old_version_is_new() -> None:
    old = Catalog((), (Bundle("a", "a.v1", "1.0.0", "quay.io/a:1"),))
    new = Catalog((), (Bundle("a", "a.v1", "1.0.0", "quay.io/a:1", ("quay.io/b:1",)),))
    assert compare(old, new) == CatalogChanges((), ("quay.io/b:1",), ())
