from __future__ import annotations

import base64
import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from airgap import limits
from airgap.catalog import clusterserviceversion, filebased, packagemanifests, sqlite
from airgap.catalog.tree import LocalFile, LocalTree
from tests.support.trees import written

if TYPE_CHECKING:
    from pathlib import Path

    from airgap.catalog.model import Catalog

LINE = "bundle 'etcd.1': RELATED_IMAGE_DB is 'q.io/db:1', which is not among its images"


def csv(*variables: Any, kind: str = "containers", strategy: str = "deployment") -> dict[str, Any]:
    """A CSV with two images and a deployment with these variables."""
    pod = {kind: [{"image": "q.io/operator", "env": list(variables)}]}
    deployments = [{"spec": {"template": {"spec": pod}}}]
    return {
        "kind": "ClusterServiceVersion",
        "metadata": {"name": "etcd.1"},
        "spec": {
            "relatedImages": [{"image": "q.io/etcd"}],
            "install": {"strategy": strategy, "spec": {"deployments": deployments}},
        },
    }


def variable(name: str, value: Any) -> dict[str, Any]:
    return {"name": name, "value": value}


DB = variable("RELATED_IMAGE_DB", "q.io/db:1")


def unlisted(document: dict[str, Any]) -> tuple[str, ...]:
    images = clusterserviceversion.parse(document).images
    return clusterserviceversion.unlisted(document, images)


@pytest.mark.parametrize("kind", ["containers", "initContainers"])
def test_an_image_that_only_a_variable_names_is_said(kind: str) -> None:
    assert unlisted(csv(DB, kind=kind)) == (LINE,)


def test_is_said_once_for_each_variable_and_image() -> None:
    others = [variable("RELATED_IMAGE_B", "q.io/db:1"), variable("RELATED_IMAGE_DB", "q.io/db:2")]
    assert len(unlisted(csv(DB, DB, *others))) == 3


@pytest.mark.parametrize(
    "harmless",
    [
        variable("RELATED_IMAGE_A", "q.io/etcd"),
        variable("RELATED_IMAGE_A", "q.io/operator"),
        variable("RELATED_IMAGE_A", ""),
        variable("RELATED_IMAGE_A", None),
        variable("IMAGE", "q.io/db:1"),
        variable("MY_RELATED_IMAGE_A", "q.io/db:1"),
        {"name": "RELATED_IMAGE_A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    ],
)
def test_what_names_an_image_of_the_bundle_or_none_is_not_said(harmless: dict[str, Any]) -> None:
    assert unlisted(csv(harmless)) == ()


def test_deployments_that_are_not_installed_say_nothing() -> None:
    assert unlisted(csv(DB, strategy="other")) == ()


@pytest.mark.parametrize("wrong", [1, "x", {"name": 1, "value": "q.io/db"}, variable("A", ["x"])])
def test_a_wrong_shape_is_no_fault_and_hides_nothing_else(wrong: Any) -> None:
    document = csv(wrong, DB)
    assert clusterserviceversion.parse(document).faults == ()
    assert unlisted(document) == (LINE,)


def test_foreign_text_is_fit_to_be_printed() -> None:
    (line,) = unlisted(csv(variable("RELATED_IMAGE_\x1b[2J", "\u202e" * 5_000)))
    assert line.isprintable()
    assert len(line) < 5_000


class TestAsJson:
    def test_is_read_too(self) -> None:
        raw = json.dumps(csv(DB)).encode()
        assert clusterserviceversion.unlisted_in(raw, ("q.io/etcd",)) == (LINE,)

    @pytest.mark.parametrize(
        "raw",
        [
            b"",
            b'{"kind": "ClusterServiceVersion", "RELATED_IMAGE_": ',
            b'["RELATED_IMAGE_"]',
            b"\xffRELATED_IMAGE_",
            b"[" * 100_000 + b"RELATED_IMAGE_",
            json.dumps({**csv(DB), "kind": "Deployment"}).encode(),
            json.dumps({**csv(DB), "padding": "x" * 2 * limits.MIB}).encode(),
        ],
        ids=["empty", "cut", "list", "no text", "deep", "other kind", "large"],
    )
    def test_what_is_no_readable_csv_says_nothing(self, raw: bytes) -> None:
        assert clusterserviceversion.unlisted_in(raw, ()) == ()


def as_package_manifests(top: Path, *csvs: dict[str, Any]) -> Catalog:
    files: dict[str, str | bytes] = {f"{n}.json": json.dumps(csv) for n, csv in enumerate(csvs)}
    return packagemanifests.read(LocalTree(written(top, files)), [""])


def as_file_based(top: Path, *csvs: dict[str, Any]) -> Catalog:
    bundles = [
        {
            "schema": "olm.bundle",
            "package": "etcd",
            "name": csv["metadata"]["name"],
            "image": "q.io/bundle",
            "relatedImages": [{"image": "q.io/etcd"}],
            "properties": [
                {"type": "olm.bundle.object", "value": {"data": "no base64"}},
                {
                    "type": "olm.bundle.object",
                    "value": {"Data": base64.b64encode(json.dumps(csv).encode()).decode()},
                },
            ],
        }
        for csv in csvs
    ]
    text = "".join(map(json.dumps, bundles))
    return filebased.read(LocalTree(written(top, {"catalog.json": text})), "")


def as_database(top: Path, *csvs: dict[str, Any]) -> Catalog:
    path = top / "index.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE operatorbundle (name TEXT, csv TEXT, bundlepath TEXT)")
        connection.execute("CREATE TABLE related_image (image TEXT, operatorbundle_name TEXT)")
        for csv in csvs:
            name = csv["metadata"]["name"]
            row = (name, json.dumps(csv), "q.io/bundle")
            connection.execute("INSERT INTO operatorbundle VALUES (?, ?, ?)", row)
            connection.execute("INSERT INTO related_image VALUES ('q.io/etcd', ?)", (name,))
        connection.execute("INSERT INTO operatorbundle (name) VALUES ('without-csv')")
    return sqlite.read(LocalFile.at(path))


@pytest.mark.parametrize("read", [as_package_manifests, as_file_based, as_database])
class TestEveryFormat:
    def test_says_it_as_a_problem_and_takes_no_such_image(self, tmp_path: Path, read: Any) -> None:
        catalog = read(tmp_path, csv(DB, variable("RELATED_IMAGE_A", "q.io/etcd")))
        (problem,) = catalog.problems
        assert problem.endswith(f": {LINE}")
        assert catalog.unreadable == ()
        assert "q.io/etcd" in catalog.images
        assert "q.io/db:1" not in catalog.images

    def test_of_many_only_the_first_are_shown_and_the_rest_counted(
        self, tmp_path: Path, read: Any
    ) -> None:
        many = csv(*(variable(f"RELATED_IMAGE_{n}", f"q.io/{n}") for n in range(5_000)))
        catalog = read(tmp_path, many)
        assert len(catalog.problems) == 101
        assert catalog.problems[-1] == "4900 more lines like these"


def test_the_bundles_own_image_is_one_of_its_images(tmp_path: Path) -> None:
    own = csv(variable("RELATED_IMAGE_BUNDLE", "q.io/bundle"))
    for read in (as_file_based, as_database):
        assert read(tmp_path, own).problems == ()


def test_a_csv_that_sqlite_refuses_costs_the_search_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CATALOG_CELL", 4_000)
    catalog = as_database(tmp_path, csv(DB), {**csv(DB), "padding": "x" * 8_000})
    assert "q.io/etcd" in catalog.images
    assert catalog.problems[0].endswith("index.db: not all of operatorbundle.csv can be read")
    assert catalog.unreadable == ()
