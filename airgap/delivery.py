"""Where a plan goes, and what is written about it, before and after.

What import, mirror, lists and receipts have in common. Makes no request, and refuses to know how
images get to their places: it is told which have arrived.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Self

from airgap import __version__
from airgap.cluster import Announced
from airgap.manifests import ManifestsOptions, Written, prepare_manifests, reasons, write_manifests
from airgap.mapping import mapping_text
from airgap.places import place_images, rounds
from airgap.receipt import PUSHED, Arrived, Receipt, assumed_by
from airgap.reference import DestinationPrefix, ImageReference

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from pathlib import Path

    from airgap.digest import Digest
    from airgap.mapping import Target
    from airgap.places import Places
    from airgap.plan import Image, Missing, Plan


@dataclass(frozen=True)
class PushPlan:
    """What would go where: the lines of ``mapping.txt``, and what would be missing.

    ``unplaced`` are those of the missing that no line names.
    """

    mapping: tuple[str, ...]
    missing: tuple[Missing, ...]
    unplaced: tuple[Missing, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Delivery:
    """A plan, the digest of its inventory, and the places of its images."""

    plan: Plan
    id: Digest
    destination: DestinationPrefix
    places: Places

    @classmethod
    def to(
        cls, destination: DestinationPrefix, plan: Plan, identity: Digest, max_components: int
    ) -> Self:
        """Place every image below a destination. Raises UsageError as ``place_images`` does."""
        return cls(plan, identity, destination, place_images(plan, destination, max_components))

    @property
    def rounds(self) -> list[dict[Image, Target]]:
        """The places of all images that can be pushed, one of each in a round, catalogs last."""
        catalogs = [self.plan.images[number] for number in self.plan.catalog_images]
        return rounds({image: self.places[image] for image in self.plan.images}, catalogs)

    def arrived(self, brought: Iterable[Iterable[Image]]) -> list[Image]:
        """Return the images that are at all their places, from what each round ``brought``."""
        there = Counter(chain.from_iterable(brought))
        return [i for i in self.plan.images if i in there and there[i] == len(self.places[i])]

    def planned(self, missing: Sequence[Missing]) -> PushPlan:
        """Say what would go where."""
        text = mapping_text(self.places, reasons(missing), self._made)
        placed = {target.source for target in self.places}
        unplaced = [hole for hole in missing if placed.isdisjoint(reasons([hole]))]
        return PushPlan(tuple(text.splitlines()), tuple(missing), tuple(unplaced))

    def prepare(self, options: ManifestsOptions) -> Path:
        """Find out what writing would refuse; return the directory that will be written.

        Raises StorageError and UsageError.
        """
        return prepare_manifests(options, self.id, self._asked, list(self.places))

    def write(
        self,
        options: ManifestsOptions,
        arrived: Collection[Image],
        absent: Sequence[Missing],
        *,
        receipt: bool = True,
    ) -> Written:
        """Write what a cluster needs, from what has arrived and nothing else."""
        plan = self.plan
        made_here = {plan.images[number] for number in plan.made_here}
        return write_manifests(
            options,
            archive=self.id,
            asked=self._asked,
            arrived=[target for image, target in self._at(arrived) if image not in made_here],
            catalogs=[
                Announced(self.places[image][0], plan.manifests[image.root].digest, catalog.format)
                for catalog in plan.catalogs
                for image in [plan.images[catalog.image]]
                if image in arrived
            ],
            places=list(self.places),
            missing=absent,
            made=self._made,
            receipt=self.receipt(arrived, absent, PUSHED) if receipt else None,
        )

    def receipt(self, arrived: Iterable[Image], absent: Sequence[Missing], checked: str) -> Receipt:
        """Return the record of what is at its places; ``checked`` says how that is known."""
        return Receipt(
            str(self.id),
            str(self.destination),
            __version__,
            tuple(_arrived_at(self.plan, image, target) for image, target in self._at(arrived)),
            tuple(absent),
            checked,
            assumed_by(self.plan),
        )

    def _at(self, images: Iterable[Image]) -> list[tuple[Image, Target]]:
        """Return images with each of their places, in the archive's order."""
        in_order = sorted(images, key=lambda image: image.reference.encode())
        return [(image, target) for image in in_order for target in self.places[image]]

    @property
    def _made(self) -> dict[ImageReference, str]:
        plan = self.plan
        made = plan.made_here
        return {ImageReference.parse(plan.images[n].reference): made[n] for n in made}

    @property
    def _asked(self) -> list[ImageReference]:
        return [ImageReference.parse(text) for text in self.plan.question.catalogs]


def _arrived_at(plan: Plan, image: Image, target: Target) -> Arrived:
    return Arrived(
        image.reference,
        str(plan.manifests[image.root].digest),
        str(target.repository),
        target.tag,
        tuple(str(plan.manifests[number].digest) for number in plan.manifests_of(image)),
        tuple(str(plan.blobs[number].digest) for number in plan.blobs_of(image)),
    )
