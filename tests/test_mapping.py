from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airgap.digest import Digest, digest_of
from airgap.errors import MalformedReference, UsageError
from airgap.mapping import Mapping, Origin, assign, mapping_text, tag_hash
from airgap.reference import DestinationPrefix, ImageReference, Repository
from tests.support.ground_truth import GroundTruth, ground_truths
from tests.support.vectors import identity, vectors

D1 = Digest("sha256", "11111111" + "a" * 56)
D2 = Digest("sha256", "22222222" + "b" * 56)
SITE = DestinationPrefix.parse("127.0.0.1:5991")

_VECTORS_NOT_FOLLOWED = {
    "mapping-03": "1 is refused before anything is mapped, by oc as well",
    "mapping-23": "oc maps a name without namespace to nothing when there is no limit",
    "mapping-42": "oc maps two images to one line's end; the second is a comment here",
    "mapping-46": "oc takes a lone host without a dot for an image; a destination is a registry",
    "mapping-49": "a file:// store",
    "mapping-50": "a file:// store",
    "mapping-51": "a file:// store",
    "mapping-54": "a file:// store",
    "mapping-55": "a file:// store",
    "mapping-57": "a file:// store",
    "mapping-index-08": "a file:// store",
    "mapping-index-09": "a file:// store",
    "mapping-index-11": "an s3:// store",
}

_LINES_NOT_FOLLOWED = {
    # oc gives two digests of one tag the same place, where the last one pushed stays.
    "nvcr.io/nvidia/kubevirt-gpu-device-plugin@sha256:"
    "90f05ac42aeb7f259d69157a31cca03c97bed803fa28853e6429b85e238b90d6"
    "=127.0.0.1:5991/nvidia/kubevirt-gpu-device-plugin:v1.5.0": "v1.5.0-90f05ac4",
    "nvcr.io/nvidia/kubevirt-gpu-device-plugin@sha256:"
    "98ff0ae43263b8ab4255197462f0b5d571eed9f263ec5f611f4b98e6fb2920d3"
    "=127.0.0.1:5991/nvidia/kubevirt-gpu-device-plugin:v1.5.0": "v1.5.0-98ff0ae4",
}


def origin(text: str, resolved: Digest | None = None) -> Origin:
    return Origin(ImageReference.parse(text), resolved)


def places(*origins: Origin, destination: str = "m:5000", components: int = 2) -> list[str]:
    mapping = assign(origins, DestinationPrefix.parse(destination), max_components=components)
    return [str(mapping[each.reference]) for each in origins]


def followed(kind: str) -> list[dict[str, Any]]:
    return [vector for vector in vectors(kind) if vector["id"] not in _VECTORS_NOT_FOLLOWED]


def resolved_apart(truth: GroundTruth) -> list[Origin]:
    """Resolve every tag to content of its own, the least favourable case."""
    return [
        Origin(reference, digest_of(str(reference.with_defaults()).encode()))
        for reference in truth.references
    ]


# What oc does


@pytest.mark.parametrize("vector", vectors("taghash"), ids=identity)
def test_hashes_references_as_oc_does(vector: dict[str, Any]) -> None:
    assert tag_hash(ImageReference.parse(vector["input"])) == vector["expected"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("busybox", "c02cd138"),
        ("docker.io/busybox", "9320cbfd"),
        ("docker.io/library/busybox", "9320cbfd"),
        ("registry.redhat.io/openshift4/ose-oauth-proxy", "3754ea2b"),
    ],
)
def test_hashes_the_text_as_written(text: str, expected: str) -> None:
    digest = "sha256:6b4db07f6e6c962fc96473d86c44532c93b146bbefe311d0c348117bf759c506"
    assert tag_hash(ImageReference.parse(f"{text}@{digest}")) == expected


@pytest.mark.parametrize("vector", followed("mapping"), ids=identity)
def test_places_images_where_oc_does(vector: dict[str, Any]) -> None:
    given, expected = vector["input"], vector["expected"]["current"]
    destination = DestinationPrefix.parse(given["dest"])
    if expected[0].startswith("ERR"):
        with pytest.raises(MalformedReference):
            origin(given["images"][0])
        return
    mapping = assign(
        map(origin, given["images"]), destination, max_components=given["max_components"]
    )
    assert mapping_text(mapping, {}).splitlines() == [line.partition(" [")[0] for line in expected]


@pytest.mark.parametrize("vector", followed("mapping-index"), ids=identity)
def test_places_the_catalog_where_oc_does(vector: dict[str, Any]) -> None:
    given, expected = vector["input"], vector["expected"]["current"]
    mapping = assign(
        [],
        DestinationPrefix.parse(given["dest"]),
        catalogs=[origin(given["source"], D1)],
        max_components=given["max_components"],
    )
    line, _, announced = expected.partition(" cs=")
    assert mapping_text(mapping, {}).strip() == line
    (target,) = mapping
    assert f"{target} <nil>" == announced


def test_no_vector_is_excused_that_is_none() -> None:
    assert {v["id"] for kind in ("mapping", "mapping-index") for v in vectors(kind)} >= set(
        _VECTORS_NOT_FOLLOWED
    )


@pytest.mark.parametrize("truth", ground_truths(), ids=str)
def test_maps_real_catalogs_line_for_line_as_oc_does(truth: GroundTruth) -> None:
    expected = []
    for line in truth.mapping:
        head, _, tag = line.rpartition(":")
        expected.append(f"{head}:{_LINES_NOT_FOLLOWED.get(line, tag)}")
    assert mapping_text(assign(map(Origin, truth.references), SITE), {}).splitlines() == sorted(
        expected
    )


@pytest.mark.parametrize("truth", ground_truths(), ids=str)
@pytest.mark.parametrize("destination", ["m.example:5000", "m.example:5000/olm", "m/a/b/c"])
@pytest.mark.parametrize("components", [0, 2, 4])
def test_no_real_catalog_is_refused(truth: GroundTruth, destination: str, components: int) -> None:
    origins = resolved_apart(truth)
    mapping = assign(origins, DestinationPrefix.parse(destination), max_components=components)
    assert_one_content_a_tag(mapping, origins)


@pytest.mark.parametrize("text", ["file:///local/store", "s3://s3.amazonaws.com/region/bucket"])
def test_a_store_is_no_registry(text: str) -> None:
    with pytest.raises(UsageError, match="without a scheme"):
        DestinationPrefix.parse(text)
    with pytest.raises(MalformedReference, match="in front"):
        ImageReference.parse(f"{text}/index:1")


# Where oc is wrong


@pytest.mark.parametrize("components", [1, -1])
def test_refuses_a_depth_no_name_fits_in(components: int) -> None:
    with pytest.raises(UsageError, match=r"^maxPathComponents must be 0 \(no limit\) or greater"):
        assign([], SITE, max_components=components)


def test_a_name_without_namespace_needs_no_limit() -> None:
    text = f"registry.access.redhat.com/ubi8-minimal@{D1}"
    (place,) = places(origin(text), components=0)
    assert place.startswith("m:5000/ubi8-minimal:")


def test_a_destination_without_a_dot_keeps_its_port() -> None:
    assert places(origin("quay.io/a/b:v1"), destination="myregistry:5000") == [
        "myregistry:5000/a/b:v1"
    ]


def test_two_digests_of_one_tag_get_tags_of_their_own() -> None:
    assert places(origin(f"q.io/a/b:v1@{D1}"), origin(f"q.io/a/b:v1@{D2}")) == [
        "m:5000/a/b:v1-11111111",
        "m:5000/a/b:v1-22222222",
    ]


def test_an_image_known_by_its_tag_keeps_it() -> None:
    assert places(origin("q.io/a/b:v1", D2), origin(f"q.io/a/b:v1@{D1}")) == [
        "m:5000/a/b:v1",
        "m:5000/a/b:v1-11111111",
    ]


def test_the_same_content_may_share_a_tag() -> None:
    assert (
        places(origin("q.io/a/b:v1", D1), origin("r.io/a/b:v1", D1), origin(f"s.io/a/b:v1@{D1}"))
        == ["m:5000/a/b:v1"] * 3
    )


def test_a_tag_of_its_own_avoids_a_tag_that_exists() -> None:
    taken = origin("q.io/a/b:v1-11111111", D2)
    same = [origin(f"q.io/a/b:v1@{D1}"), origin(f"q.io/a/b:v1@{D2}")]
    assert places(taken, *same) == [
        "m:5000/a/b:v1-11111111",
        f"m:5000/a/b:v1-{D1.hex}",
        "m:5000/a/b:v1-22222222",
    ]


def test_a_tag_of_its_own_is_still_a_tag() -> None:
    tag = "v" * 128
    (first, second) = places(origin(f"q.io/a/b:{tag}@{D1}"), origin(f"q.io/a/b:{tag}@{D2}"))
    assert first != second
    assert len(first.rpartition(":")[2]) == 128
    assert ImageReference.parse(first).tag


def test_images_whose_hashes_are_equal_are_told_apart() -> None:
    one, two = (Digest("sha256", f"{number:064x}") for number in (0x7E78B, 0x85C38))
    assert places(origin(f"q.io/a/b@{one}")) == ["m:5000/a/b:2f9470a3"]
    assert places(origin(f"q.io/a/b@{two}")) == ["m:5000/a/b:2f9470a3"]
    # These digests also begin alike, so it takes all their digits.
    assert places(origin(f"q.io/a/b@{one}"), origin(f"q.io/a/b@{two}")) == [
        f"m:5000/a/b:2f9470a3-{one.hex}",
        f"m:5000/a/b:2f9470a3-{two.hex}",
    ]


def test_refuses_tags_that_name_different_content_listing_every_pair() -> None:
    with pytest.raises(UsageError) as refusal:
        places(
            origin("q.io/a/b:v1", D1),
            origin("r.io/a/b:v1", D2),
            origin("q.io/c/d", D1),
            origin("r.io/c/d:latest", D2),
            origin("q.io/e/f:v1", D1),
        )
    assert refusal.value.message.splitlines() == [
        "images with different content have one name in the destination:",
        f"  m:5000/a/b:v1 for q.io/a/b:v1 ({D1}) and r.io/a/b:v1 ({D2})",
        f"  m:5000/c/d:latest for q.io/c/d ({D1}) and r.io/c/d:latest ({D2})",
    ]
    assert "--max-components" in (refusal.value.hint or "")


def test_refuses_one_tag_that_was_resolved_twice() -> None:
    with pytest.raises(UsageError, match="one name in the destination"):
        places(origin("q.io/a/b:v1", D1), origin("q.io/a/b:v1", D2))


def test_an_unresolved_tag_stops_nobody() -> None:
    assert places(origin("q.io/a/b:v1", D1), origin("r.io/a/b:v1")) == ["m:5000/a/b:v1"] * 2


def test_refuses_a_name_no_client_accepts() -> None:
    deep = "/".join(["abcdefghi"] * 24)
    with pytest.raises(UsageError) as refusal:
        places(origin(f"q.io/{deep}:v1"), destination="m.example:5000/olm")
    assert "longer than 255" in refusal.value.message
    assert f"q.io/{deep}:v1" in refusal.value.message
    assert "258 characters" in refusal.value.message


# The set as a whole


def test_one_source_written_in_two_ways_is_one_line() -> None:
    both = [origin(f"docker.io/busybox@{D1}"), origin(f"busybox@{D1}")]
    expected = mapping_text(assign(both[1:], SITE), {})
    assert mapping_text(assign(both, SITE), {}) == expected
    assert mapping_text(assign(both[::-1], SITE), {}) == expected


def test_the_catalog_is_called_as_typed_and_found_under_any_spelling() -> None:
    mapping = assign([origin("a/b:v1", D1)], SITE, catalogs=[origin("my/index", D2)])
    assert mapping_text(mapping, {}) == (
        "docker.io/a/b:v1=127.0.0.1:5991/a/b:v1\nmy/index=127.0.0.1:5991/my/index:latest\n"
    )
    found = mapping[ImageReference.parse("docker.io/my/index:latest")]
    assert found.repository == Repository("127.0.0.1:5991", "my/index")


def test_a_catalog_may_be_one_of_the_images() -> None:
    mapping = assign(
        [origin("docker.io/library/index:1", D1)], SITE, catalogs=[origin("index:1", D1)]
    )
    assert str(mapping[ImageReference.parse("index:1")]) == "127.0.0.1:5991/library/index:1"


def test_holes_and_shared_destinations_are_comments() -> None:
    mapping = assign(
        [origin("q.io/a/b:v1", D1), origin("r.io/a/b:v1", D1), origin("q.io/gone:v1")], SITE
    )
    missing = {ImageReference.parse("q.io/gone:v1"): "not\nfound"}
    assert mapping_text(mapping, missing) == (
        "q.io/a/b:v1=127.0.0.1:5991/a/b:v1\n"
        "# q.io/gone:v1=127.0.0.1:5991/gone:v1  (missing: not\\nfound)\n"
        "# r.io/a/b:v1=127.0.0.1:5991/a/b:v1  (the same as q.io/a/b:v1)\n"
    )


def test_nothing_is_an_empty_text() -> None:
    assert mapping_text(assign([], SITE), {}) == ""


def assert_one_content_a_tag(mapping: Mapping, origins: list[Origin]) -> None:
    contents: dict[str, set[Digest | None]] = {}
    for each in origins:
        contents.setdefault(str(mapping[each.reference]), set()).add(each.content)
    assert all(len(shared) == 1 for shared in contents.values())


_digests = st.sampled_from([D1, D2, Digest("sha256", "11111111" + "c" * 56)])
_names = st.sampled_from(["q.io/a/b", "r.io/a/b", "q.io/a/b/c", "q.io/a/b-c", "a/b", "b"])
_tags = st.sampled_from(["", "v1", "v1-11111111", f"v1-{D1.hex}"])
_tagged = st.builds(
    lambda name, tag, content: Origin(ImageReference.parse(name + tag), content),
    _names,
    _tags.map(lambda tag: f":{tag}" if tag else ""),
    _digests | st.none(),
)
_pinned = st.builds(
    lambda tagged, digest: Origin(tagged.reference.pinned(digest)), _tagged, _digests
)


def outcome(origins: list[Origin]) -> str:
    try:
        return mapping_text(assign(origins, SITE), {})
    except UsageError as refusal:
        return refusal.message


@given(
    st.lists(_tagged | _pinned, max_size=8).flatmap(
        lambda o: st.tuples(st.just(o), st.permutations(o))
    )
)
def test_the_order_of_the_images_is_no_matter(orders: tuple[list[Origin], list[Origin]]) -> None:
    assert outcome(orders[0]) == outcome(orders[1])


@given(st.lists(_pinned, max_size=8))
def test_digests_are_never_refused_and_never_share_a_tag(origins: list[Origin]) -> None:
    assert_one_content_a_tag(assign(origins, SITE), origins)


@given(st.lists(_tagged | _pinned, max_size=8))
def test_no_two_contents_share_a_tag(origins: list[Origin]) -> None:
    try:
        mapping = assign(origins, SITE)
    except UsageError:
        return
    assert_one_content_a_tag(mapping, [each for each in origins if each.content])
