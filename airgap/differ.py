"""Diff: what a newer catalog offers that an older one did not, and what of it is to be fetched.

Either side is whatever ``browser`` opens, or a receipt, which knows no packages. What archives
and receipts hold is compared by content as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airgap.browser import OpenCatalog
from airgap.catalog.compare import compare
from airgap.errors import HOLES

if TYPE_CHECKING:
    from airgap.catalog.compare import PackageChange
    from airgap.digest import Digest
    from airgap.plan import Plan
    from airgap.receipt import Receipt


@dataclass(frozen=True)
class Fetch:
    """What the newer archive holds and the older does not; ``size`` in bytes."""

    manifests: int
    blobs: int
    size: int


@dataclass(frozen=True)
class Difference:
    """What has changed from ``old`` to ``new``.

    Images are references. Of two archives they are those that these hold, and one that stands
    for other content now is among the added and the gone; else those that the catalogs want.
    ``packages`` is None where a side is a receipt. ``fetch`` is None unless the newer side is an
    archive, and the older one too or a receipt. ``unreadable`` names each part of either catalog
    that could not be read.
    """

    old: str
    new: str
    packages: tuple[PackageChange, ...] | None
    images_added: tuple[str, ...]
    images_gone: tuple[str, ...]
    fetch: Fetch | None
    unreadable: tuple[str, ...]

    @property
    def exit_status(self) -> int:
        """0, also with differences; 3 when a part of a catalog could not be read."""
        return HOLES if self.unreadable else 0


@dataclass(frozen=True)
class Delivered:
    """A side that is a receipt; ``source`` is its name."""

    source: str
    receipt: Receipt


def diff(old: OpenCatalog | Delivered, new: OpenCatalog | Delivered) -> Difference:
    """Compare two catalogs, and what their archives hold if both are in one.

    With a receipt on a side only images are compared, and what it says to be there with what a
    newer archive holds.
    """
    if isinstance(old, Delivered) or isinstance(new, Delivered):
        return _diff_delivered(old, new)
    changes = compare(old.found.catalog, new.found.catalog)
    added, gone = changes.images_added, changes.images_gone
    fetch = None
    if old.plan is not None and new.plan is not None:
        fetch = _to_fetch(old.plan, old.holes, new.plan)
        had, has = _images(old.plan), _images(new.plan)
        added, gone = _names(has - had), _names(had - has)
    unreadable = (
        f"{side.source}: {line}" for side in (old, new) for line in side.found.catalog.unreadable
    )
    return Difference(
        old.source, new.source, changes.packages, added, gone, fetch, tuple(unreadable)
    )


def _diff_delivered(old: OpenCatalog | Delivered, new: OpenCatalog | Delivered) -> Difference:
    had, has = _held(old), _held(new)
    if not all(digest for _, digest in had | has):
        # A catalog alone says nothing of what its tags stand for.
        had, has = ({(reference, "") for reference, _ in side} for side in (had, has))
    fetch = None
    if isinstance(old, Delivered) and isinstance(new, OpenCatalog) and new.plan is not None:
        images = old.receipt.images
        there = {digest for image in images for digest in (*image.manifests, *image.blobs)}
        fetch = _beside(there, new.plan)
    added, gone = (tuple(sorted({name for name, _ in side})) for side in (has - had, had - has))
    unreadable = (
        f"{side.source}: {line}"
        for side in (old, new)
        if not isinstance(side, Delivered)
        for line in side.found.catalog.unreadable
    )
    return Difference(old.source, new.source, None, added, gone, fetch, tuple(unreadable))


def _held(side: OpenCatalog | Delivered) -> set[tuple[str, str]]:
    """Return a side's images, each with its digest, "" where that is not known."""
    if isinstance(side, Delivered):
        return {(image.reference, image.digest) for image in side.receipt.images}
    if side.plan is None:
        return {(reference, "") for reference in side.found.catalog.wanted()}
    return {(reference, str(digest)) for reference, digest in _images(side.plan)}


def _images(plan: Plan) -> set[tuple[str, Digest]]:
    return {(image.reference, plan.manifests[image.root].digest) for image in plan.images}


def _names(images: set[tuple[str, Digest]]) -> tuple[str, ...]:
    return tuple(sorted({reference for reference, _ in images}, key=str.encode))


def _to_fetch(old: Plan, holes: frozenset[int], new: Plan) -> Fetch:
    there = {str(manifest.digest) for manifest in old.manifests}
    there |= {str(blob.digest) for number, blob in enumerate(old.blobs) if number not in holes}
    return _beside(there, new)


def _beside(there: set[str], new: Plan) -> Fetch:
    manifests = [m.size for m in new.manifests if str(m.digest) not in there]
    blobs = [blob.size for blob in new.blobs if str(blob.digest) not in there]
    return Fetch(len(manifests), len(blobs), sum(manifests) + sum(blobs))
