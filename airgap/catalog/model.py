"""What an operator catalog offers, in OLM's words and whatever format it came in.

Packages have channels, channels order bundles by what replaces what, and a bundle, one version
of an operator, wants images. Image references stand here as the catalog writes them, sound or
not. Knows nothing of how catalogs are stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airgap.catalog.properties import Api, Requirement


@dataclass(frozen=True, slots=True)
class ChannelEntry:
    """A bundle's place in a channel: which bundles it may be installed over.

    ``replaces`` is "" for none. The bundles named need not be in the catalog.
    """

    bundle: str
    replaces: str = ""
    skips: tuple[str, ...] = ()
    skip_range: str = ""


@dataclass(frozen=True, slots=True)
class Channel:
    """A stream of bundles of one package; ``head`` is the newest one's name."""

    name: str
    head: str
    entries: tuple[ChannelEntry, ...]


@dataclass(frozen=True, slots=True)
class Package:
    """An operator; ``default_channel`` is "" where the catalog names none."""

    name: str
    default_channel: str
    channels: tuple[Channel, ...]


@dataclass(frozen=True, slots=True)
class Bundle:
    """One version of an operator, known by its package and its name together.

    ``package`` is "" where no channel of any package holds it, ``image`` is "" where the
    bundle has no image of its own, ``version`` is "" where the catalog does not say it.
    ``related_images`` has each image once, in the catalog's order. ``provides`` and
    ``requires`` are what its properties and dependencies say (see ``properties``), each once.
    ``substitutes_for`` names the bundle whose place it takes, as a rebuild of it; "" for none.
    """

    package: str
    name: str
    version: str = ""
    image: str = ""
    related_images: tuple[str, ...] = ()
    provides: tuple[Api, ...] = ()
    requires: tuple[Requirement, ...] = ()
    substitutes_for: str = ""

    @property
    def images(self) -> tuple[str, ...]:
        """Every image the bundle wants, each once, its own first."""
        return tuple(dict.fromkeys(filter(None, (self.image, *self.related_images))))


@dataclass(frozen=True, slots=True)
class Catalog:
    """All that a catalog offers.

    ``other_images`` are wanted by the catalog without a bundle to say for what. ``problems``
    are lines for a person: what was met while reading that a sound catalog does not have.
    ``unreadable`` are lines too, one for each part that could not be read: whatever stood there
    is missing here.
    """

    packages: tuple[Package, ...]
    bundles: tuple[Bundle, ...]
    other_images: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()

    @property
    def images(self) -> tuple[str, ...]:
        """Every image wanted, as the catalog writes it, each once, sorted bytewise."""
        return tuple(self.wanted())

    def wanted(self) -> Mapping[str, tuple[Bundle, ...]]:
        """Say for every image, sorted bytewise, which bundles want it."""
        wanted: dict[str, list[Bundle]] = {image: [] for image in self.other_images}
        for bundle in self.bundles:
            for image in bundle.images:
                wanted.setdefault(image, []).append(bundle)
        return {image: tuple(wanted[image]) for image in _bytewise(wanted)}


def holders(packages: Iterable[Package]) -> Mapping[str, set[str]]:
    """Say for the names of bundles which packages have a channel that holds or is headed by it."""
    holding: dict[str, set[str]] = {}
    for package in packages:
        for channel in package.channels:
            for name in (channel.head, *(entry.bundle for entry in channel.entries)):
                holding.setdefault(name, set()).add(package.name)
    return holding


def _bytewise(texts: Iterable[str]) -> list[str]:
    return sorted(texts, key=str.encode)
