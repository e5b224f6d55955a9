"""What ``bare.py`` is told: the requests of an export's blobs, and of an import.

Every one that docs/decisions/0007 calls for in an empty registry, and no other. Only says
what is asked, and in which stages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airgap.reference import ImageReference
from airgap.registry.locations import authority, divided
from tests.support.bench import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airgap.archive.layout import Layout
    from airgap.digest import Digest
    from airgap.plan import Plan

PROGRAM = ROOT / "tests" / "support" / "bare.py"

_ROOTS = 1_000_000
"""The stage of top manifests: no image has so many others."""


def export_steps(plan: Plan, layout: Layout, urls: Mapping[Digest, str]) -> Iterator[str]:
    """Yield a step for each blob: from its URL to its place."""
    for number, blob in enumerate(plan.blobs):
        _, target = divided(urls[blob.digest])
        place = layout.blob(number)
        yield f"1 get {authority(urls[blob.digest])} {target} {place.content} {blob.digest.hex}"


def import_steps(plan: Plan, layout: Layout, host: str) -> list[str]:
    """Return the steps that bring all images into an empty registry, in order."""
    steps: dict[str, int] = {}
    holders: dict[int, str] = {}
    for image in plan.images:
        where = ImageReference.parse(image.reference).path
        steps[f"question {host} {where}"] = 1
        for number in plan.blobs_of(image):
            blob = plan.blobs[number]
            holder = holders.setdefault(number, where)
            if holder != where:
                steps[f"mount {host} {where} {blob.digest.hex} {holder}"] = 3
                continue
            content = layout.blob(number).content
            steps[f"blob {host} {where} {blob.digest.hex} {content} {blob.size}"] = 2
        for stage, number in enumerate(plan.manifests_of(image), 4):
            manifest, is_root = plan.manifests[number], number == image.root
            what = f"{manifest.media_type} {layout.manifest(number).content} {manifest.size}"
            steps[f"manifest {host} {where} {manifest.digest} {what}"] = (
                _ROOTS if is_root else stage
            )
            if is_root:
                steps[f"manifest {host} {where} bench-{number} {what}"] = _ROOTS + 1
    return [f"{stage} {step}" for step, stage in sorted(steps.items(), key=lambda one: one[1])]
