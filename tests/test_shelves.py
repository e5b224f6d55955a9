"""The names under which a plan's images are served."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airgap.reference import DestinationPrefix
from airgap.shelves import by_mapping, by_source, mirrored_hosts, names_of, together
from tests.support.plans import Content

if TYPE_CHECKING:
    from airgap.plan import Plan

HERE = DestinationPrefix("bastion:5000")


def plan_of(*references: str) -> Plan:
    """A plan in which each reference is an image of its own; ``{}`` stands for its digest."""
    content = Content()
    for number, reference in enumerate(references):
        image = content.manifest(b"{}", f"layer {number}".encode())
        content.images[reference.format(image.digest)] = image
    return content.plan(references[0])


def roots(plan: Plan, name: str) -> dict[str, int]:
    shelf = by_source(plan)[name]
    return dict(shelf.tags)


def test_a_source_stands_below_its_host() -> None:
    plan = plan_of("quay.io/lab/c:v1", "registry.example.com:8443/a/b@{}", "Example.com/x:1")
    assert list(by_source(plan)) == [
        "quay.io/lab/c",
        "example.com/x",
        "registry.example.com_8443/a/b",
    ]


@pytest.mark.parametrize("name", ["busybox:1", "docker.io/busybox:1", "index.docker.io/busybox:1"])
def test_the_hub_has_one_name(name: str) -> None:
    plan = plan_of("quay.io/lab/c:v1", name)
    assert roots(plan, "docker.io/library/busybox") == {"1": 1}
    assert mirrored_hosts(plan)["docker.io"] == "docker.io"


def test_clients_are_led_here_for_every_host() -> None:
    plan = plan_of("quay.io/lab/c:v1", "index.docker.io/a/b:1", "127.0.0.1:5000/a/b:1")
    assert mirrored_hosts(plan) == {
        "127.0.0.1:5000": "127.0.0.1_5000",
        "docker.io": "docker.io",
        "index.docker.io": "docker.io",
        "quay.io": "quay.io",
    }


def test_a_tag_beside_a_digest_is_one() -> None:
    plan = plan_of("quay.io/lab/c:v1", "quay.io/a/b:v2@{}", "quay.io/a/b@{}")
    assert list(roots(plan, "quay.io/a/b")) == ["v2"]
    assert len(by_source(plan)["quay.io/a/b"].images) == 2


def test_a_tag_beside_several_digests_is_none() -> None:
    plan = plan_of("quay.io/lab/c:v1", "quay.io/a/b:v2@{}", "quay.io/a/b:v2@{0}")
    assert roots(plan, "quay.io/a/b") == {}
    assert len(by_source(plan)["quay.io/a/b"].images) == 2


def test_a_tag_by_itself_counts_more_than_one_beside_a_digest() -> None:
    plan = plan_of("quay.io/lab/c:v1", "quay.io/a/b:v2", "quay.io/a/b:v2@{}")
    (number,) = roots(plan, "quay.io/a/b").values()
    assert plan.images[number].reference == "quay.io/a/b:v2"


def test_an_import_would_give_the_same_names() -> None:
    plan = plan_of("quay.io/lab/c:v1", "quay.io/a/deep/name:2")
    assert list(by_mapping(plan, HERE, 2)) == ["lab/c", "a/deep-name"]
    assert list(by_mapping(plan, HERE, 0)) == ["lab/c", "a/deep/name"]


def test_a_source_keeps_its_tag_where_a_mapped_name_is_alike() -> None:
    plan = plan_of("quay.io/lab/c:v1", "docker.io/quay.io/lab:v1", "quay.io/lab:v1")
    (source,) = [n for n, i in enumerate(plan.images) if i.reference == "quay.io/lab:v1"]
    merged = together(by_source(plan), {"quay.io/lab": by_source(plan)["docker.io/quay.io/lab"]})
    assert merged["quay.io/lab"].tags == {"v1": source}
    assert len(merged["quay.io/lab"].images) == 2
    assert names_of(source, merged) == ["quay.io/lab:v1"]


def test_hosts_never_become_one() -> None:
    plan = plan_of("quay.io/lab/c:v1", "a-5000.io/x/y:1", "a.io:5000/x/y:1")
    assert len(by_source(plan)) == 3
