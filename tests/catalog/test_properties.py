from __future__ import annotations

import json
from typing import Any

import pytest

from airgap.catalog.properties import (
    AllOf,
    AnyOf,
    Api,
    NoneOf,
    PackageVersions,
    Requirement,
    Undecided,
    depended_on,
    provided,
    required,
)
from airgap.errors import MalformedContent

GVK = {"group": "etcd.io", "kind": "EtcdCluster", "version": "v1"}
ETCD = Api("etcd.io", "v1", "EtcdCluster")
PACKAGE = {"packageName": "etcd", "versionRange": ">=1.0.0"}
VERSIONS = PackageVersions("etcd", ">=1.0.0")


def test_reads_what_a_property_provides() -> None:
    assert provided("olm.gvk", GVK, "here") == ETCD
    assert provided("olm.package", {"packageName": "etcd", "version": "1.0.0"}, "here") is None


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("olm.gvk.required", GVK, ETCD),
        ("olm.package.required", PACKAGE, VERSIONS),
        ("olm.label.required", {"label": "x"}, Undecided("olm.label")),
        ("olm.constraint", {"gvk": GVK}, ETCD),
        ("olm.constraint", {"failureMessage": "no", "package": PACKAGE}, VERSIONS),
        ("olm.constraint", {"cel": {"rule": "true"}}, Undecided("cel")),
        ("olm.constraint", {"all": {"constraints": [{"gvk": GVK}]}}, AllOf((ETCD,))),
        (
            "olm.constraint",
            {"any": {"constraints": [{"package": PACKAGE}, {"gvk": GVK}]}},
            AnyOf((VERSIONS, ETCD)),
        ),
        ("olm.constraint", {"not": {"constraints": [{"gvk": GVK}]}}, NoneOf((ETCD,))),
        ("olm.constraint", {"none": {"constraints": [{"gvk": GVK}]}}, NoneOf((ETCD,))),
        ("olm.gvk", GVK, None),
        ("olm.maxOpenShiftVersion", "4.9", None),
    ],
)
def test_reads_what_a_property_requires(kind: str, value: Any, expected: Requirement) -> None:
    assert required(kind, value, "here") == expected


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("olm.gvk", GVK, ETCD),
        ("olm.package", {"packageName": "etcd", "version": ">=1.0.0"}, VERSIONS),
        ("olm.constraint", {"gvk": GVK}, ETCD),
        ("olm.label", {"label": "x"}, Undecided("olm.label")),
    ],
)
def test_reads_what_a_bundle_depends_on(kind: str, value: Any, expected: Requirement) -> None:
    assert depended_on(kind, value, "here") == expected


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("olm.gvk.required", None),
        ("olm.gvk.required", {"group": "g", "version": "v1"}),
        ("olm.gvk.required", {"group": "g", "version": 1, "kind": "K"}),
        ("olm.package.required", ["etcd"]),
        ("olm.package.required", {"packageName": "etcd"}),
        ("olm.constraint", {}),
        ("olm.constraint", "text"),
        ("olm.constraint", {"failureMessage": "alone"}),
        ("olm.constraint", {"all": []}),
        ("olm.constraint", {"all": {"constraints": {"gvk": GVK}}}),
    ],
)
def test_refuses_what_is_no_requirement(kind: str, value: Any) -> None:
    with pytest.raises(MalformedContent, match="here"):
        required(kind, value, "here")


def test_refuses_constraints_inside_one_another_without_end() -> None:
    constraint: dict[str, Any] = {"gvk": GVK}
    for _ in range(200):
        constraint = {"not": {"constraints": [constraint]}}
    with pytest.raises(MalformedContent, match="inside one another"):
        required("olm.constraint", json.loads(json.dumps(constraint)), "here")


def test_a_requirement_is_said_in_words() -> None:
    nested = AllOf((VERSIONS, NoneOf((ETCD, Undecided("cel\x1b")))))
    assert str(nested) == (
        "all of (package etcd >=1.0.0, none of (EtcdCluster (etcd.io/v1),"
        " something of type cel\\x1b))"
    )
