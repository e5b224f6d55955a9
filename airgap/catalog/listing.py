"""A catalog's offer as people look at it: packages, their channels, what is newest in each.

Pure. Sizes come from whoever has the images; most who have a catalog have none of them.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airgap.catalog.graph import ChannelGraph
from airgap.catalog.select import offered

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from airgap.catalog.model import Bundle, Catalog, Channel, Package

    SizeOf = Callable[[Iterable[str]], int | None]
    """Gives the bytes that images take up together, of those that are there; None if none is."""


@dataclass(frozen=True, slots=True)
class ListedBundle:
    """One version of an operator; ``version`` is "" where the catalog does not say it."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class ListedChannel:
    """A channel: its head's name and version, and its bundles, the newest first.

    What the channel names and the catalog does not have is not among them.
    """

    name: str
    head: str
    version: str
    bundles: tuple[ListedBundle, ...]


@dataclass(frozen=True, slots=True)
class ListedPackage:
    """A package: how many bundles it has, how many images these want, the bytes of those there.

    Where only some of its channels are listed, these are counted alone.
    """

    name: str
    default_channel: str
    channels: tuple[ListedChannel, ...]
    bundles: int
    images: int
    size: int | None


def list_packages(
    catalog: Catalog, packages: Collection[str], channels: Collection[str], size_of: SizeOf
) -> tuple[ListedPackage, ...]:
    """List the packages and channels named, or all, sorted by name.

    Raises UsageError for a name that the catalog does not have, with what comes near.
    """
    bundles: dict[str, dict[str, Bundle]] = defaultdict(dict)
    for bundle in catalog.bundles:
        bundles[bundle.package][bundle.name] = bundle
    chosen = sorted(offered(catalog, packages, channels), key=lambda package: package.name)
    return tuple(
        _package(package, bundles[package.name], size_of, whole=not channels) for package in chosen
    )


def _package(
    package: Package, bundles: Mapping[str, Bundle], size_of: SizeOf, *, whole: bool
) -> ListedPackage:
    channels = [_channel(channel, bundles) for channel in package.channels]
    listed = {bundle.name for channel in channels for bundle in channel.bundles}
    counted = [bundle for bundle in bundles.values() if whole or bundle.name in listed]
    images = {image for bundle in counted for image in bundle.images}
    return ListedPackage(
        package.name,
        package.default_channel,
        tuple(sorted(channels, key=lambda channel: channel.name)),
        len(counted),
        len(images),
        size_of(images),
    )


def _channel(channel: Channel, bundles: Mapping[str, Bundle]) -> ListedChannel:
    names = dict.fromkeys((channel.head, *ChannelGraph.of(channel).newest_first()))
    held = [bundles[name] for name in names if name in bundles]
    head = bundles.get(channel.head)
    return ListedChannel(
        channel.name,
        channel.head,
        head.version if head else "",
        tuple(ListedBundle(bundle.name, bundle.version) for bundle in held),
    )
