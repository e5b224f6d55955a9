"""What has changed from one catalog to another: packages, channels, heads, versions, images.

Pure. Bundles are known by their package and name, so that one with other content under an old
name shows in its images alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airgap.catalog.listing import ListedBundle
from airgap.catalog.versions import stated

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airgap.catalog.model import Catalog, Channel, Package

ADDED, GONE, CHANGED = "added", "gone", "changed"


@dataclass(frozen=True, slots=True)
class ChannelChange:
    """A channel that was added, is gone, or has another head; a head is None where there is none.

    ``change`` is "added", "gone" or "changed".
    """

    name: str
    change: str
    old_head: ListedBundle | None
    new_head: ListedBundle | None


@dataclass(frozen=True, slots=True)
class PackageChange:
    """A package that was added, is gone, or has changed; versions are sorted, the newest last.

    ``change`` is "added", "gone" or "changed"; a default channel is "" where there is none.
    """

    name: str
    change: str
    old_default_channel: str
    new_default_channel: str
    channels: tuple[ChannelChange, ...]
    versions_added: tuple[ListedBundle, ...]
    versions_gone: tuple[ListedBundle, ...]


@dataclass(frozen=True, slots=True)
class CatalogChanges:
    """The packages that differ, sorted by name, and the images that only one catalog wants."""

    packages: tuple[PackageChange, ...]
    images_added: tuple[str, ...]
    images_gone: tuple[str, ...]


def compare(old: Catalog, new: Catalog) -> CatalogChanges:
    """Say what is different in ``new``."""
    before, after = _Offer(old), _Offer(new)
    changes = [
        _package(name, before, after)
        for name in sorted({*before.packages, *after.packages}, key=str.encode)
    ]
    had, wanted = old.images, new.images
    return CatalogChanges(
        tuple(change for change in changes if change is not None),
        _without(wanted, had),
        _without(had, wanted),
    )


class _Offer:
    """A catalog, to be looked things up in."""

    def __init__(self, catalog: Catalog) -> None:
        self.packages = {package.name: package for package in catalog.packages}
        self.bundles: dict[str, dict[str, ListedBundle]] = {}
        for bundle in catalog.bundles:
            listed = ListedBundle(bundle.name, bundle.version)
            self.bundles.setdefault(bundle.package, {})[bundle.name] = listed

    def versions(self, package: str) -> dict[str, ListedBundle]:
        return self.bundles.get(package, {})

    def channels(self, package: str) -> dict[str, Channel]:
        found = self.packages.get(package)
        return {channel.name: channel for channel in found.channels} if found else {}

    def head(self, package: str, channel: str) -> ListedBundle | None:
        """Return the head of a channel; without a version if the catalog does not have it."""
        found = self.channels(package).get(channel)
        if found is None:
            return None
        return self.versions(package).get(found.head) or ListedBundle(found.head, "")


def _package(name: str, before: _Offer, after: _Offer) -> PackageChange | None:
    """Return what has changed in a package, None for nothing."""
    old, new = before.packages.get(name), after.packages.get(name)
    names = sorted({*before.channels(name), *after.channels(name)}, key=str.encode)
    channels = [_channel(channel, name, before, after) for channel in names]
    had, has = before.versions(name), after.versions(name)
    change = PackageChange(
        name,
        _kind(old, new),
        old.default_channel if old else "",
        new.default_channel if new else "",
        tuple(channel for channel in channels if channel is not None),
        _in_order(has[bundle] for bundle in has.keys() - had.keys()),
        _in_order(had[bundle] for bundle in had.keys() - has.keys()),
    )
    is_same = (
        change.change == CHANGED
        and change.old_default_channel == change.new_default_channel
        and not (change.channels or change.versions_added or change.versions_gone)
    )
    return None if is_same else change


def _channel(name: str, package: str, before: _Offer, after: _Offer) -> ChannelChange | None:
    """Return what has become of a channel, None when it has the head it had."""
    old, new = before.head(package, name), after.head(package, name)
    if old is not None and new is not None and old.name == new.name:
        return None
    return ChannelChange(name, _kind(old, new), old, new)


def _kind(old: Package | ListedBundle | None, new: Package | ListedBundle | None) -> str:
    if old is None:
        return ADDED
    return GONE if new is None else CHANGED


def _in_order(bundles: Iterable[ListedBundle]) -> tuple[ListedBundle, ...]:
    """Sort by version, those without a sound one first."""
    found = sorted(bundles, key=lambda bundle: bundle.name.encode())
    versions = [(stated(bundle.version), bundle) for bundle in found]
    sound = [(version.precedence, bundle) for version, bundle in versions if version]
    sound.sort(key=lambda pair: pair[0])
    return (
        *(bundle for version, bundle in versions if not version),
        *(bundle for _, bundle in sound),
    )


def _without(images: Iterable[str], others: Iterable[str]) -> tuple[str, ...]:
    there = set(others)
    return tuple(image for image in images if image not in there)
