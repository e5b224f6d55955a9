"""Under which names the images of a plan stand in a registry that serves them as they are.

Twice: under the names of their sources, host in front, so that one line for each host makes
any client look here; and under the names that an import would give them. Pure.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from airgap.archive.store import Shelf
from airgap.places import place_images
from airgap.reference import ImageReference

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airgap.plan import Plan
    from airgap.reference import DestinationPrefix

    Standing = tuple[str, str, int]
    """A repository, a tag or "", and the number of an image."""


def by_source(plan: Plan) -> dict[str, Shelf]:
    """Return the repositories ``<host>/<path>`` of a plan's images.

    A tag beside a digest is one there too, unless it stands beside several digests, or an
    image is known by that tag alone.
    """
    known: list[Standing] = []
    beside: list[Standing] = []
    for number, image in enumerate(plan.images):
        full = ImageReference.parse(image.reference).with_defaults()
        standing = (full.repository.as_path, full.tag, number)
        (beside if full.digest and full.tag else known).append(standing)
    contents: dict[tuple[str, str], set[int]] = defaultdict(set)
    for repository, tag, number in beside:
        contents[repository, tag].add(plan.images[number].root)
    told = [
        (repository, tag if len(contents[repository, tag]) == 1 else "", number)
        for repository, tag, number in beside
    ]
    return _shelves([*known, *told])


def by_mapping(plan: Plan, server: DestinationPrefix, max_components: int) -> dict[str, Shelf]:
    """Return the repositories that an import to ``server`` would make.

    Raises UsageError as ``place_images`` does.
    """
    places = place_images(plan, server, max_components)
    return _shelves(
        (target.repository.path, target.tag, number)
        for number, image in enumerate(plan.images)
        for target in places[image]
    )


def together(first: Mapping[str, Shelf], second: Mapping[str, Shelf]) -> dict[str, Shelf]:
    """Return the repositories of both; of one tag in both, the first's counts."""
    merged = {**first, **{name: second[name] for name in second if name not in first}}
    for name in first.keys() & second.keys():
        tags = {**second[name].tags, **first[name].tags}
        merged[name] = Shelf((*first[name].images, *second[name].images), tags)
    return merged


def names_of(number: int, shelves: Mapping[str, Shelf]) -> list[str]:
    """Return every ``repository:tag`` of an image, by its number."""
    return [
        f"{repository}:{tag}"
        for repository, shelf in shelves.items()
        for tag, image in shelf.tags.items()
        if image == number
    ]


def mirrored_hosts(plan: Plan) -> dict[str, str]:
    """Return the hosts of a plan's images as clients call them, each with its first part here."""
    found: dict[str, str] = {}
    for image in plan.images:
        repository = ImageReference.parse(image.reference).repository
        part = repository.host_as_path
        found[repository.host] = part
        if part == "docker.io":  # what clients make of its other names
            found[part] = part
    return dict(sorted(found.items()))


def _shelves(standing: Iterable[Standing]) -> dict[str, Shelf]:
    """Put images together by repository; the first that has a tag keeps it."""
    images: dict[str, list[int]] = defaultdict(list)
    tags: dict[str, dict[str, int]] = defaultdict(dict)
    for repository, tag, number in standing:
        images[repository].append(number)
        if tag:
            tags[repository].setdefault(tag, number)
    return {name: Shelf(tuple(images[name]), tags[name]) for name in images}
