"""Diff: what a newer catalog offers that an older one did not, and what of it is to be fetched.

Either side is whatever ``browser`` opens. Two archives are compared by content as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airgap.catalog.compare import compare
from airgap.errors import HOLES

if TYPE_CHECKING:
    from airgap.browser import OpenCatalog
    from airgap.catalog.compare import PackageChange
    from airgap.digest import Digest
    from airgap.plan import Plan


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
    ``fetch`` is None unless both are
    archives. ``unreadable`` names each part of either catalog that could not be read.
    """

    old: str
    new: str
    packages: tuple[PackageChange, ...]
    images_added: tuple[str, ...]
    images_gone: tuple[str, ...]
    fetch: Fetch | None
    unreadable: tuple[str, ...]

    @property
    def exit_status(self) -> int:
        """0, also with differences; 3 when a part of a catalog could not be read."""
        return HOLES if self.unreadable else 0


def diff(old: OpenCatalog, new: OpenCatalog) -> Difference:
    """Compare two catalogs, and what their archives hold if both are in one."""
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


def _images(plan: Plan) -> set[tuple[str, Digest]]:
    return {(image.reference, plan.manifests[image.root].digest) for image in plan.images}


def _names(images: set[tuple[str, Digest]]) -> tuple[str, ...]:
    return tuple(sorted({reference for reference, _ in images}, key=str.encode))


def _to_fetch(old: Plan, holes: frozenset[int], new: Plan) -> Fetch:
    there = {manifest.digest for manifest in old.manifests}
    there |= {blob.digest for number, blob in enumerate(old.blobs) if number not in holes}
    manifests = [manifest.size for manifest in new.manifests if manifest.digest not in there]
    blobs = [blob.size for blob in new.blobs if blob.digest not in there]
    return Fetch(len(manifests), len(blobs), sum(manifests) + sum(blobs))
