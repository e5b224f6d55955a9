"""Where the images of a plan go: as the mapping names them, or as an edited ``mapping.txt`` says.

A wish is a place below any destination, so that it can be followed wherever the plan arrives.
Pure: knows nothing of registries, nor of what they hold already.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from airgap import mapping
from airgap.errors import MalformedReference, UsageError
from airgap.mapping import Origin, Target
from airgap.reference import DestinationPrefix, ImageReference

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from airgap.digest import Digest
    from airgap.mapping_file import Copy
    from airgap.plan import Hole, Image, Plan
    from airgap.progress import Progress
    from airgap.question import Listed


@dataclass(frozen=True)
class Places:
    """The places of a plan's images and holes, by their references as the plan has them."""

    targets: Mapping[str, tuple[Target, ...]]

    def __getitem__(self, wanted: Image | Hole) -> tuple[Target, ...]:
        return self.targets[wanted.reference]

    def __iter__(self) -> Iterator[Target]:
        return iter({target for found in self.targets.values() for target in found})


def place_images(
    plan: Plan, destination: DestinationPrefix, max_components: int = mapping.DEFAULT_COMPONENTS
) -> Places:
    """Give every image of a plan its places, those with holes too, so that names never shift.

    Raises UsageError when two images cannot be told apart there, or a name does not fit.
    """
    origins = dict(_origins(plan))
    wanted: Iterable[Image | Hole] = (*plan.images, *plan.holes)
    wished = {one.reference: one.places for one in wanted if one.places}
    catalogs = {plan.images[number].reference for number in plan.catalog_images}
    free = [text for text in origins if text not in wished]
    named = mapping.assign(
        [origins[text] for text in free if text not in catalogs],
        destination,
        catalogs=[origins[text] for text in free if text in catalogs],
        max_components=max_components,
    )
    targets: dict[str, tuple[Target, ...]] = {}
    for text, origin in origins.items():
        if text in wished:
            source = origin.reference if text in catalogs else origin.full
            targets[text] = tuple(_below(destination, place, source) for place in wished[text])
        else:
            targets[text] = (named[origin.reference],)
    _refuse_one_tag_for_two(targets, origins)
    return Places(targets)


def as_listed(
    plan: Plan, copies: Mapping[str, Sequence[Copy]], listed: Listed, progress: Progress
) -> Plan:
    """Return a plan with the wishes of a list: the right sides that are not as the mapping's.

    ``copies`` are the list's, by reference. Images that get no wish have their right sides
    below the list's destination still. Raises UsageError for a right side that is not below
    it, and for two contents in one place.
    """
    if not copies:
        return plan
    destination = listed.destination
    if destination is None:
        destination = _common(plan, copies, listed.max_components)
        progress.say(f"right sides are read as below {destination}; --for says otherwise")
    edited: set[str] = set()
    while True:
        wished = _wishing(plan, {text: copies[text] for text in edited}, destination)
        try:
            there = place_images(wished, destination, listed.max_components).targets
        except UsageError:
            if edited == copies.keys():
                raise
            # The list may be what tells them apart.
            edited = set(copies)
            continue
        # What is wished leaves its name to others, so that theirs may not be the list's now.
        now_edited = _edited(copies, there)
        if now_edited <= edited:
            return wished
        edited |= now_edited


def rounds(
    targets: Mapping[Image, Sequence[Target]], last: Collection[Image] = ()
) -> list[dict[Image, Target]]:
    """Deal out places so that an image has one in each round; ``last`` are in the last ones."""
    longest = max((len(t) for image, t in targets.items() if image not in last), default=1)
    dealt: dict[int, dict[Image, Target]] = defaultdict(dict)
    for image, found in targets.items():
        first = longest - 1 if image in last else 0
        for number, target in enumerate(found, first):
            dealt[number][image] = target
    return [dealt[number] for number in sorted(dealt)]


def _origins(plan: Plan) -> Iterator[tuple[str, Origin]]:
    for image in plan.images:
        reference = ImageReference.parse(image.reference)
        yield image.reference, Origin(reference, plan.manifests[image.root].digest)
    for hole in plan.holes:
        with suppress(MalformedReference):  # What has no name can have no place either.
            yield hole.reference, Origin(ImageReference.parse(hole.reference))


def _below(destination: DestinationPrefix, place: str, source: ImageReference) -> Target:
    there = ImageReference.parse(f"{destination}/{place}")
    return Target(source, there.repository, there.tag)


def _refuse_one_tag_for_two(
    targets: Mapping[str, Sequence[Target]], origins: Mapping[str, Origin]
) -> None:
    """Refuse a wish for a tag that other content has."""
    holding: dict[str, tuple[Digest, str]] = {}
    for text, found in targets.items():
        content = origins[text].content
        if content is None:
            continue  # It is not going to be pushed.
        for target in found:
            held, by = holding.setdefault(str(target), (content, text))
            if held != content and target.tag:
                raise UsageError(
                    f"{target}: would be the place of {by} and of {text}, which differ",
                    hint="Edit the right side of one of them in the list, and export again.",
                )


def _edited(
    copies: Mapping[str, Sequence[Copy]], targets: Mapping[str, Sequence[Target]]
) -> set[str]:
    """Return the references whose right sides in a list are not their targets.

    References that differ in a tag beside a digest have one left side, and so the right sides
    of all of them. A right side may also stand behind another image of the same content.
    """
    listed = {text: _right_sides(found) for text, found in copies.items()}
    every = set().union(*listed.values())
    usual: dict[tuple[Copy, ...], set[str]] = defaultdict(set)
    for text, found in copies.items():
        usual[tuple(found)].update(map(str, targets[text]))
    return {
        text
        for text, found in copies.items()
        for there in [usual[tuple(found)]]
        if listed[text] - there or there - every
    }


def _right_sides(copies: Iterable[Copy]) -> set[str]:
    return {
        str(Target(copy.source, copy.destination.repository, copy.destination.tag))
        for copy in copies
    }


def _wishing(
    plan: Plan, copies: Mapping[str, Sequence[Copy]], destination: DestinationPrefix
) -> Plan:
    """Return a plan with a list's right sides as wishes. Raises UsageError."""
    places = {
        text: tuple(dict.fromkeys(_wish(copy, destination) for copy in found))
        for text, found in copies.items()
    }
    return replace(
        plan,
        images=tuple(replace(i, places=places.get(i.reference, ())) for i in plan.images),
        holes=tuple(replace(h, places=places.get(h.reference, ())) for h in plan.holes),
    )


def _wish(copy: Copy, destination: DestinationPrefix) -> str:
    """Return a right side as a place below a destination. Raises UsageError."""
    there, tag = copy.destination.repository, copy.destination.tag
    below = str(there).removeprefix(f"{destination}/")
    if below == str(there):
        raise UsageError(
            f"{copy.where}: {copy.destination} is not below {destination}",
            hint="An import puts all images below one destination; --for says which is meant,"
            " --max-components how deep it may be.",
        )
    return f"{below}:{tag}" if tag else below


def _common(
    plan: Plan, copies: Mapping[str, Sequence[Copy]], max_components: int
) -> DestinationPrefix:
    """Return the destination that a list's right sides, all in one registry, are about.

    It is the one below which most stand where they would without a list, or at least are named
    after their sources; the shortest when several are alike.
    """
    places = [(text, copy.destination.repository) for text in copies for copy in copies[text]]
    sources = {text: ImageReference.parse(text).with_defaults().path for text in copies}
    shared = _shared(place.path.split("/")[:-1] for _, place in places)
    namespaces = ["/".join(shared[:length]) for length in range(len(shared) + 1)]
    namespaces += _joined((place.path, sources[text]) for text, place in places)

    def as_usual(prefix: DestinationPrefix) -> tuple[int, int]:
        alike = sum(
            _dashed(place.path) == _dashed("/".join([*prefix.components, sources[text]]))
            for text, place in places
        )
        try:
            usual = place_images(plan, prefix, max_components).targets
        except UsageError:
            return -len(copies), alike
        return -len(_edited(copies, usual)), alike

    host = places[0][1].host
    return max((DestinationPrefix(host, namespace) for namespace in namespaces), key=as_usual)


def _shared(paths: Iterable[Sequence[str]]) -> list[str]:
    """Return the beginning that all paths have in common."""
    shared: list[str] = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return shared


def _joined(paths: Iterable[tuple[str, str]]) -> list[str]:
    """Return the namespace, if any, that most places have before a dash and their source's path.

    A namespace as deep as names may be is found in them like that.
    """
    found: Counter[str] = Counter()
    for place, source in paths:
        behind = f"-{_dashed(source)}"
        if place.endswith(behind):
            found[place.removesuffix(behind)] += 1
    return [namespace for namespace, _ in found.most_common(1)]


def _dashed(path: str) -> str:
    return path.replace("/", "-")
