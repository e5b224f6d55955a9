"""Where images go: as the mapping names them, and as an edited list wishes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from airgap import mapping_file
from airgap.digest import Digest, digest_of
from airgap.errors import UsageError
from airgap.mapping import mapping_text
from airgap.oci import media_types
from airgap.places import as_listed, place_images, rounds
from airgap.plan import CatalogImage, Hole, Image, Manifest, Plan, Question, Reason
from airgap.progress import SILENT, Silent
from airgap.question import Listed
from airgap.reference import DestinationPrefix

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from airgap.mapping import Target
    from airgap.progress import Progress

CATALOG = "quay.io/lab/catalog:v1"
SITE = DestinationPrefix.parse("mirror.example:5000/olm")


def content(number: int) -> Digest:
    return digest_of(str(number).encode())


def pinned(name: str, number: int) -> str:
    return f"{name}@{content(number)}"


def plan_of(images: Mapping[str, int], holes: Collection[str] = (), catalog: str = CATALOG) -> Plan:
    """A plan for images with so numbered contents; the catalog's is 0."""
    numbers = {catalog: 0, **images}
    used = sorted(set(numbers.values()))
    manifests = [Manifest(content(n), 10, media_types.OCI_MANIFEST, (), ()) for n in used]
    return Plan(
        Question((catalog,), "linux/amd64"),
        (CatalogImage(0, "sqlite", "bundles.db", None),),
        (),
        tuple(manifests),
        (),
        tuple(Image(name, used.index(number)) for name, number in numbers.items()),
        tuple(Hole(name, Reason.NOT_FOUND) for name in holes),
    )


def written(plan: Plan, destination: DestinationPrefix, components: int = 2) -> str:
    return mapping_text(place_images(plan, destination, components), {})


def wishing(
    plan: Plan,
    text: str,
    destination: DestinationPrefix | None = None,
    components: int = 2,
    progress: Progress = SILENT,
) -> Plan:
    """The plan as a list of this text wants it."""
    site = None if destination is None else str(destination)
    listed = Listed.of([("list", text)], site, components)
    names = [*(i.reference for i in plan.images), *(h.reference for h in plan.holes)]
    copies = mapping_file.taken(listed.copies, names).images
    return as_listed(plan, copies, listed, progress)


def wishes(plan: Plan) -> dict[str, tuple[str, ...]]:
    found = {image.reference: image.places for image in plan.images}
    found |= {hole.reference: hole.places for hole in plan.holes}
    return {reference: places for reference, places in found.items() if places}


def strings(targets: Sequence[Target]) -> list[str]:
    return [str(target) for target in targets]


def places(
    plan: Plan, destination: DestinationPrefix = SITE, components: int = 2
) -> dict[str, list[str]]:
    placed = place_images(plan, destination, components)
    return {image.reference: strings(placed[image]) for image in plan.images}


class Listening(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


A, B = pinned("quay.io/a/b", 1), pinned("quay.io/a/c", 2)
TWO = plan_of({A: 1, B: 2})


# What an edited line does


def test_an_edited_line_is_a_wish_below_any_destination() -> None:
    text = f"{A}={SITE}/mine/first:v1\n{B}={SITE}/a-c:9999\n"
    wished = wishing(TWO, text, SITE)
    assert wishes(wished) == {A: ("mine/first:v1",), B: ("a-c:9999",)}
    other = DestinationPrefix.parse("elsewhere.example/x/y")
    assert places(wished, other)[A] == ["elsewhere.example/x/y/mine/first:v1"]


def test_an_unedited_line_follows_the_imports_own_names() -> None:
    lines = written(TWO, SITE).splitlines()
    edited = f"{A}={SITE}/mine:v1\n" + "\n".join(line for line in lines if A not in line)
    wished = wishing(TWO, edited, SITE)
    assert wishes(wished).keys() == {A}
    assert places(wished, SITE, 3)[B] == places(TWO, SITE, 3)[B]


def test_several_places_are_all_kept_in_their_order() -> None:
    wished = wishing(TWO, f"{A} {SITE}/z:1 {SITE}/a:1 {SITE}/z:1", SITE)
    assert places(wished)[A] == [f"{SITE}/z:1", f"{SITE}/a:1"]


def test_a_place_beside_the_usual_one_keeps_both() -> None:
    (usual,) = places(TWO)[A]
    wished = wishing(TWO, f"{A} {usual} {SITE}/second:1", SITE)
    assert places(wished)[A] == [usual, f"{SITE}/second:1"]


def test_a_place_without_a_tag_is_known_by_its_digest_alone() -> None:
    wished = wishing(TWO, f"{A}={SITE}/mine\n{B}={SITE}/mine\n", SITE)
    targets = place_images(wished, SITE)
    assert [target.tag for image in wished.images[1:] for target in targets[image]] == ["", ""]
    lines = mapping_text(targets, {}).splitlines()
    assert f"{A}={SITE}/mine" in lines
    assert f"{B}={SITE}/mine" in lines


def test_the_catalogs_own_line_may_be_edited() -> None:
    wished = wishing(TWO, f"{CATALOG}={SITE}/catalogs/ours:today", SITE)
    assert places(wished)[CATALOG] == [f"{SITE}/catalogs/ours:today"]
    (target,) = place_images(wished, SITE)[wished.images[0]]
    assert target.line == f"{CATALOG}={SITE}/catalogs/ours:today"


def test_a_hole_keeps_its_wish_too() -> None:
    plan = plan_of({A: 1}, [B])
    assert wishes(wishing(plan, f"{A}={SITE}/x:1\n{B}={SITE}/y:1", SITE))[B] == ("y:1",)


def test_a_line_stays_true_when_another_ones_edit_frees_a_name() -> None:
    one, two = pinned("quay.io/a/b:v1", 1), pinned("quay.io/a/b:v1", 2)
    plan = plan_of({one: 1, two: 2})
    (first,), (second,) = places(plan)[one], places(plan)[two]
    assert second != f"{SITE}/a-b:v1"  # Alone, it would be.
    wished = wishing(plan, f"{one}={SITE}/else:1\n{two}={second}", SITE)
    assert places(wished)[two] == [second]
    assert first != second


def test_a_list_tells_apart_what_names_cannot() -> None:
    one, two = "quay.io/a/b:v1", "docker.io/a/b:v1"
    plan = plan_of({one: 1, two: 2})
    with pytest.raises(UsageError, match="have one name"):
        place_images(plan, SITE)
    wished = wishing(plan, f"{one}={SITE}/a-b:v1\n{two}={SITE}/hub:v1", SITE)
    assert places(wished)[one] == [f"{SITE}/a-b:v1"]
    assert places(wished)[two] == [f"{SITE}/hub:v1"]


# What is refused


@pytest.mark.parametrize("destination", [None, str(SITE)])
def test_refuses_right_sides_in_several_registries_with_file_and_line(
    destination: str | None,
) -> None:
    text = f"{A}={SITE}/x:1\n# nothing\n{B}=elsewhere.example/x:2"
    with pytest.raises(UsageError, match=r"file list, line 3: elsewhere.example/x:2 is not at"):
        Listed.of([("list", text)], destination)


def test_refuses_a_wildcard_to_another_registry() -> None:
    with pytest.raises(UsageError, match=r"line 2: elsewhere.example/y is not at"):
        Listed.of([("list", f"{A}={SITE}/x:1\nquay.io/t:*=elsewhere.example/y")])


def test_refuses_a_right_side_beside_the_destination_with_file_and_line() -> None:
    text = f"{A}={SITE}/x:1\n{B}=mirror.example:5000/olm2/x:2"
    with pytest.raises(UsageError, match=r"file list, line 2: .*/olm2/x:2 is not below .*/olm$"):
        wishing(TWO, text, SITE)


def test_refuses_a_wish_for_a_tag_that_other_content_gets_without_one() -> None:
    (usual,) = places(TWO)[CATALOG]
    with pytest.raises(UsageError, match=f"{usual}: would be the place of") as caught:
        wishing(TWO, f"{A}={usual}", SITE)
    assert CATALOG in caught.value.message
    assert A in caught.value.message


def test_a_wish_for_the_tag_of_the_same_content_is_no_contradiction() -> None:
    same = plan_of({A: 1, pinned("quay.io/other/name", 1): 1})
    (usual,) = places(same)[pinned("quay.io/other/name", 1)]
    assert places(wishing(same, f"{A}={usual}", SITE))[A] == [usual]


def test_refuses_at_the_destination_what_only_its_depth_makes_one_place() -> None:
    wished = wishing(TWO, f"{A}={SITE}/lab/catalog:v1", SITE)
    with pytest.raises(UsageError, match=r"olm/lab/catalog:v1: would be the place of"):
        place_images(wished, SITE, 3)


def test_an_image_that_is_not_there_takes_no_place() -> None:
    plan = plan_of({A: 1}, ["quay.io/gone/by:tag"])
    text = f"{A}={SITE}/gone-by:tag"
    assert places(wishing(plan, text, SITE))[A] == [f"{SITE}/gone-by:tag"]


# Which destination a list is about


@pytest.mark.parametrize(
    ("namespace", "components"),
    [("", 2), ("/olm", 2), ("/ns/sub", 2), ("/a/b/c", 0), ("/a/b", 4), ("/team/ns", 3)],
)
@pytest.mark.parametrize("told", [True, False])
def test_the_destination_is_found_out_from_lines_as_they_were(
    namespace: str, components: int, told: bool
) -> None:
    site, progress = DestinationPrefix.parse(f"mirror.example:5000{namespace}"), Listening()
    text = written(TWO, site, components)
    assert wishes(wishing(TWO, text, site if told else None, components, progress)) == {}
    said = f"right sides are read as below {site}; --for says otherwise"
    assert progress.said == ([] if told else [said])


def test_it_is_found_out_although_most_lines_are_edited() -> None:
    text = f"{A}={SITE}/x:1\n{B}={SITE}/y:1\n{CATALOG}={SITE}/lab-catalog:v1"
    assert wishes(wishing(TWO, text)) == {A: ("x:1",), B: ("y:1",)}


def test_it_is_found_out_from_names_whose_tags_are_all_edited() -> None:
    text = f"{A}={SITE}/a-b:mine\n{B}={SITE}/a-c:mine"
    assert wishes(wishing(TWO, text)) == {A: ("a-b:mine",), B: ("a-c:mine",)}


def test_it_is_found_out_from_names_of_another_depth() -> None:
    text = written(TWO, SITE, 0)
    found = wishes(wishing(TWO, text))
    assert found[CATALOG] == ("lab/catalog:v1",)
    assert places(wishing(TWO, text)) == places(TWO, SITE, 0)


def test_nothing_is_read_into_a_list_without_any_image() -> None:
    progress = Listening()
    listed = Listed.of([("list", f"quay.io/none:*={SITE}/x")])
    assert as_listed(TWO, {}, listed, progress) == TWO
    assert progress.said == []


# Rounds


def test_every_place_has_its_round_and_catalogs_come_last() -> None:
    text = f"{A} {SITE}/x:1 {SITE}/y:1 {SITE}/z:1\n{CATALOG} {SITE}/c:1 {SITE}/c:2"
    wished = wishing(TWO, text, SITE)
    catalog, first, second = wished.images
    placed = place_images(wished, SITE)
    dealt = rounds({image: placed[image] for image in wished.images}, [catalog])
    assert [set(one) for one in dealt] == [{first, second}, {first}, {first, catalog}, {catalog}]
    assert [str(one[first]) for one in dealt[:3]] == places(wished)[first.reference]


def test_without_images_there_is_the_catalogs_round() -> None:
    plan = plan_of({})
    placed = place_images(plan, SITE)
    assert rounds({plan.images[0]: placed[plan.images[0]]}, plan.images) == [
        {plan.images[0]: placed[plan.images[0]][0]}
    ]


# Laws

HOSTS = ("quay.io", "docker.io", "source.example:5000")
PATHS = ("a/b", "a/c", "a/b/c", "a-b", "lone")
names = st.builds("{}/{}".format, st.sampled_from(HOSTS), st.sampled_from(PATHS))


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Plans whose images share names, tags and contents, as hostile catalogs' may."""
    images: dict[str, int] = {}
    for name, tag, by_digest, number in draw(
        st.lists(
            st.tuples(
                names,
                st.sampled_from(["", ":v1", ":v2"]),
                st.booleans(),
                st.integers(1, 4),
            ),
            max_size=7,
        )
    ):
        reference = pinned(name + tag, number) if by_digest else name + tag
        images.setdefault(reference, number)
    catalog = draw(st.sampled_from([CATALOG, "quay.io/lab/catalog", pinned("quay.io/a/b:v1", 0)]))
    images.pop(catalog, None)
    return plan_of(images, catalog=catalog)


destinations = st.lists(st.sampled_from(["olm", "ns", "a", "x-y"]), max_size=3).map(
    lambda parts: DestinationPrefix("mirror.example:5000", "/".join(parts))
)
depths = st.sampled_from([0, 2, 3, 4])


@given(plans(), destinations, depths, st.booleans())
def test_a_list_that_nobody_edited_wishes_nothing(
    plan: Plan, destination: DestinationPrefix, components: int, told: bool
) -> None:
    try:
        text = written(plan, destination, components)
    except UsageError:
        assume(False)
    assert wishing(plan, text, destination if told else None, components) == plan


@given(plans(), destinations, destinations, depths, st.data())
def test_an_edited_list_is_followed_to_the_letter(
    plan: Plan,
    destination: DestinationPrefix,
    other: DestinationPrefix,
    components: int,
    data: st.DataObject,
) -> None:
    try:
        lines = written(plan, destination, components).splitlines()
    except UsageError:
        assume(False)
    edited = data.draw(st.sets(st.sampled_from(range(len(lines)))))
    dropped = data.draw(st.sets(st.sampled_from(range(len(lines)))))
    wanted: dict[str, list[str]] = {}
    for number, line in enumerate(lines):
        if line.startswith("#") or number in dropped:
            continue
        source, _, target = line.partition("=")
        wanted[source] = [target]
        if number in edited:
            wanted[source] = [f"{destination}/mine/{number}:v{n}" for n in range(1 + number % 2)]
    assume(wanted)
    text = "\n".join(f"{source} {' '.join(targets)}" for source, targets in wanted.items())
    names = [image.reference for image in plan.images]
    taken = mapping_file.taken(mapping_file.parse([("list", text)]), names).images
    catalog, *rest = plan.images
    less = replace(plan, images=(catalog, *(i for i in rest if i.reference in taken)))
    try:
        wished = wishing(less, text, destination, components)
    except UsageError as error:
        # A name that others' edits free has changed, and this deep there is no wish for it.
        assert "is not below" in error.message
        assume(False)
    found = places(wished, destination, components)
    every = {str(copy.destination) for copies in taken.values() for copy in copies}
    for copies in taken.values():
        right_sides = {str(copy.destination) for copy in copies}
        # References with one left side share its lines.
        there = {place for name in found if taken.get(name) == copies for place in found[name]}
        assert right_sides <= there <= every
    for reference, below in wishes(wished).items():
        assert places_or_none(wished, other, reference) in (
            None,
            [f"{other}/{place}" for place in below],
        )


def places_or_none(plan: Plan, destination: DestinationPrefix, reference: str) -> list[str] | None:
    """Places below another destination, where others' own names may be refused."""
    try:
        return places(plan, destination)[reference]
    except UsageError:
        return None
