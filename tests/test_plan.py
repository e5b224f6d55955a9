from __future__ import annotations

import random

from airgap.oci import graph
from airgap.plan import (
    MISSING_BLOB,
    Bundle,
    Plan,
    Question,
    Reason,
    Wanted,
    blob_holes,
    in_order,
    make_plan,
    plan_holes,
)
from tests.support.plans import Content, some_content

QUESTION = Question(("quay.io/lab/catalog:v1",), "linux/amd64")


def _walk(content: Content, name: str) -> list[graph.Node]:
    return graph.walk(content.images[name], lambda d: content.by_digest[d.digest])


def test_manifests_come_before_the_index_that_names_them() -> None:
    plan = some_content().plan()
    for number, manifest in enumerate(plan.manifests):
        assert all(child < number for child in manifest.children)


def test_content_is_planned_once_whoever_wants_it() -> None:
    plan = some_content(images=9).plan()
    assert len({blob.digest for blob in plan.blobs}) == len(plan.blobs)
    assert len({manifest.digest for manifest in plan.manifests}) == len(plan.manifests)


def test_catalogs_come_first_and_then_images_by_name() -> None:
    wanted = [Wanted(name) for name in ("b", "a", "ä", "Z")] + [
        Wanted("z", (), ("sqlite", "x", None))
    ]
    assert [want.reference for want in in_order(wanted)] == ["z", "Z", "a", "b", "ä"]


def test_the_plan_does_not_depend_on_the_order_of_bundles() -> None:
    content = some_content()
    bundles = [Bundle(f"b{n}", ("p",)) for n in range(5)]
    wanted = [Wanted(name, ("b3", "b1")) for name in content.images]
    made: set[Plan] = set()
    for seed in range(3):
        random.Random(seed).shuffle(bundles)
        answers = [(want, _walk(content, want.reference)) for want in in_order(wanted)]
        made.add(make_plan(QUESTION, bundles, answers))
    assert len(made) == 1


def test_an_image_without_an_answer_is_a_hole_with_its_reason() -> None:
    content = some_content()
    content.holes["quay.io/lab/gone@sha256:" + "0" * 64] = Reason.NOT_FOUND
    plan = content.plan()
    (hole,) = plan_holes(plan, {"quay.io/lab/gone@sha256:" + "0" * 64: "the registry said so"})
    assert (hole.reason, hole.detail) == ("not-found", "the registry said so")
    assert hole.bundles and hole.packages


def test_an_image_that_contradicts_an_earlier_one_costs_itself() -> None:
    content = Content()
    honest = content.manifest(b"{}", b"layer")
    raw = content.by_digest[honest.digest]
    lying = content.keep(raw.replace(b'"size": 5', b'"size": 6'))
    content.images["a"] = honest
    nodes = _walk(content, "a")
    from airgap.digest import Digest
    from airgap.oci.model import Descriptor

    bad = Descriptor(Digest.parse(lying["digest"]), lying["size"], honest.media_type)
    other = graph.walk(bad, lambda d: content.by_digest[d.digest])
    plan = make_plan(QUESTION, [], [(Wanted("a"), nodes), (Wanted("b"), other)])
    assert [image.reference for image in plan.images] == ["a"]
    assert [(hole.reference, hole.reason) for hole in plan.holes] == [("b", Reason.WRONG_CONTENT)]
    assert len(plan.blobs) == 2


def test_a_missing_blob_names_every_image_bundle_and_package_it_hurts() -> None:
    plan = some_content().plan()
    shared = next(
        n for n in range(len(plan.blobs)) if all(n in plan.blobs_of(i) for i in plan.images)
    )
    holes = blob_holes(plan, {shared: ""})
    assert {hole.reference for hole in holes} == {image.reference for image in plan.images}
    assert {hole.reason for hole in holes} == {MISSING_BLOB}
    assert {b for hole in holes for b in hole.bundles} == {b.name for b in plan.bundles}
    assert {p for hole in holes for p in hole.packages} == {"package-0", "package-1"}


def test_nothing_missing_names_nobody() -> None:
    assert blob_holes(some_content().plan(), {}) == []
