from __future__ import annotations

import json
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from airgap.catalog import formats, read
from airgap.catalog.rebuild import Rebuilt, rebuild
from airgap.catalog.rebuild_filebased import component
from airgap.catalog.select import Selection, select
from airgap.catalog.tree import LocalTree
from airgap.errors import CatalogError
from tests.catalog.test_filebased import DOCUMENTS, as_stream
from tests.support.layers import file, layer, tree
from tests.support.trees import written

if TYPE_CHECKING:
    from pathlib import Path

    from airgap.catalog.select import Places

PACKAGE, CHANNEL, *BUNDLES = DOCUMENTS
LOWER: Places = {("etcd", "stable"): {"etcd.1", "etcd.2"}}
ALL: Places = {("etcd", "stable"): {"etcd.1", "etcd.2", "etcd.3"}}


def deprecations(*references: tuple[str, str], package: str = "etcd") -> dict[str, Any]:
    return {
        "schema": "olm.deprecations",
        "package": package,
        "entries": [
            {"reference": {"schema": schema, "name": name}, "message": "old"}
            for schema, name in references
        ],
    }


def rebuilt(top: Path, places: Places | None, *documents: dict[str, Any], **more: str) -> Rebuilt:
    files = {"all.json": as_stream(list(documents)), **more} if documents else more
    image = LocalTree(written(top / "image", {f"configs/{p}": text for p, text in files.items()}))
    found = read.read(image, {formats.CONFIGS_LABEL: "/configs"})
    target = top / "rebuilt"
    target.mkdir()
    wanted = select(found.catalog, Selection()).places if places is None else places
    return rebuild(image, found, wanted, {}, target)


def documents_of(result: Rebuilt) -> list[dict[str, Any]]:
    lines = [line for _, local in result.files for line in local.read_bytes().splitlines()]
    return [json.loads(line) for line in lines]


def test_a_package_has_a_file_of_its_own_and_nothing_older_is_seen(tmp_path: Path) -> None:
    result = rebuilt(tmp_path, LOWER, *DOCUMENTS)
    assert [path for path, _ in result.files] == ["configs/etcd/catalog.json"]
    assert result.opaque == ("configs",)


def test_what_is_left_stays_as_it_was(tmp_path: Path) -> None:
    package, channel, *bundles = documents_of(rebuilt(tmp_path, LOWER, *DOCUMENTS))
    assert package == PACKAGE
    assert channel == {**CHANNEL, "entries": CHANNEL["entries"][:2]}
    assert bundles == [b for b in BUNDLES if b["name"] != "etcd.3"]
    assert [[*bundle] for bundle in bundles] == [[*BUNDLES[0]]] * 2


def test_documents_stand_in_the_order_of_their_kinds_and_files(tmp_path: Path) -> None:
    result = rebuilt(
        tmp_path,
        ALL,
        **{
            "b.json": as_stream([BUNDLES[0], CHANNEL]),
            "a/1.json": as_stream([deprecations(("olm.package", "")), BUNDLES[1]]),
            "c.yaml": yaml.safe_dump_all([{"schema": "x", "package": "etcd"}, BUNDLES[2], PACKAGE]),
        },
    )
    found = [(d["schema"], d.get("name", "")) for d in documents_of(result)]
    assert found == [
        ("olm.package", "etcd"),
        ("olm.channel", "stable"),
        ("olm.bundle", "etcd.1"),
        ("olm.bundle", "etcd.3"),
        ("olm.bundle", "etcd.2"),
        ("olm.deprecations", ""),
        ("x", ""),
    ]


def test_yaml_becomes_json_of_the_same_values(tmp_path: Path) -> None:
    odd = {
        "type": "x",
        "value": {"": [1.5, -0.0, 10**18, None, True, "é\u2028\x7f", "yes", "2020-01-01"]},
    }
    properties = [BUNDLES[1]["properties"][0], odd]
    bundle = {**BUNDLES[1], "relatedImages": [], "properties": properties}
    text = yaml.safe_dump_all([PACKAGE, {**CHANNEL, "entries": [{"name": "etcd.1"}]}, bundle])
    assert documents_of(rebuilt(tmp_path, None, **{"c.yaml": text}))[2] == bundle


class TestDocuments:
    def test_under_keys_in_any_case_are_not_lost(self, tmp_path: Path) -> None:
        loud = [{key.upper(): value for key, value in d.items()} for d in DOCUMENTS]
        loud[1]["ENTRIES"] = [{k.title(): v for k, v in e.items()} for e in CHANNEL["entries"]]
        package, channel, *bundles = documents_of(rebuilt(tmp_path, LOWER, *loud))
        assert package["NAME"] == "etcd"
        assert package["defaultChannel"] == "stable"
        assert "DEFAULTCHANNEL" not in package
        assert [entry["Name"] for entry in channel["entries"]] == ["etcd.1", "etcd.2"]
        assert [bundle["NAME"] for bundle in bundles] == ["etcd.1", "etcd.2"]

    def test_that_stand_twice_are_written_as_they_count(self, tmp_path: Path) -> None:
        other = {**BUNDLES[0], "image": "q.io/other", "relatedImages": []}
        again = {**CHANNEL, "entries": [{"name": "etcd.1"}]}
        result = rebuilt(tmp_path, ALL, *DOCUMENTS, {**PACKAGE, "icon": {}}, again, other)
        package, channel, *bundles = documents_of(result)
        assert (package, channel) == (PACKAGE, CHANNEL)
        assert bundles == [*BUNDLES, other]

    def test_with_numbers_too_large_keep_them_as_text(self, tmp_path: Path) -> None:
        large = '{"schema":"olm.package","name":"etcd","defaultChannel":"stable","x":1e400}'
        package, *_ = documents_of(rebuilt(tmp_path, LOWER, *DOCUMENTS[1:], **{"a.json": large}))
        assert package["x"] == "1e400"

    def test_of_a_package_that_has_none_of_its_own_are_given_one(self, tmp_path: Path) -> None:
        package, *_ = documents_of(rebuilt(tmp_path, ALL, *DOCUMENTS[1:]))
        assert package == {"schema": "olm.package", "name": "etcd", "defaultChannel": "stable"}

    def test_of_a_bundle_in_no_channel_are_left_out(self, tmp_path: Path) -> None:
        alone = {**BUNDLES[0], "name": "etcd.9"}
        assert alone not in documents_of(rebuilt(tmp_path, ALL, *DOCUMENTS, alone))

    def test_of_other_schemas_stay_with_their_package(self, tmp_path: Path) -> None:
        ours = {"schema": "x", "package": "etcd", "anything": {"image": "q.io/not-read"}}
        theirs = {"schema": "x", "package": "gone"}
        result = rebuilt(tmp_path, ALL, *DOCUMENTS, ours, theirs)
        assert documents_of(result)[5:] == [ours]
        assert result.remarks == ()

    @pytest.mark.parametrize(
        "other",
        [
            {"schema": "x\x1b", "package": "etcd", "Image": "q.io/x"},
            {"schema": "x\x1b", "package": "etcd", "relatedImages": [{"image": "q.io/x"}]},
            {"schema": "x\x1b", "name": "etcd"},
        ],
    )
    def test_that_name_images_or_no_package_are_left_out_and_said(
        self, tmp_path: Path, other: dict[str, Any]
    ) -> None:
        result = rebuilt(tmp_path, ALL, *DOCUMENTS, other, other)
        assert len(documents_of(result)) == 5
        (remark,) = result.remarks
        assert remark.isprintable()
        assert "schema 'x\\x1b' are left out" in remark
        assert remark.endswith(": 2")

    def test_that_are_no_bundles_lose_images_that_no_bundle_wants(self, tmp_path: Path) -> None:
        package = {**PACKAGE, "Image": "q.io/x"}
        channel = {**CHANNEL, "relatedImages": [{"image": "q.io/y"}]}
        assert documents_of(rebuilt(tmp_path, ALL, package, channel, *BUNDLES))[:2] == DOCUMENTS[:2]

    def test_that_are_ignored_stay_ignored(self, tmp_path: Path) -> None:
        more = {"x.json": as_stream([{**BUNDLES[0], "image": "q.io/x"}]), ".indexignore": "x.json"}
        assert documents_of(rebuilt(tmp_path, ALL, *DOCUMENTS, **more)) == DOCUMENTS

    def test_that_cannot_be_read_cost_themselves_alone(self, tmp_path: Path) -> None:
        result = rebuilt(tmp_path, ALL, *DOCUMENTS, **{"broken.json": '{"schema": '})
        assert documents_of(result) == DOCUMENTS


class TestDeprecations:
    def test_of_what_is_gone_are_gone(self, tmp_path: Path) -> None:
        whole = deprecations(
            ("olm.bundle", "etcd.1"),
            ("olm.bundle", "etcd.3"),
            ("olm.channel", "stable"),
            ("olm.channel", "beta"),
            ("olm.package", ""),
        )
        result = rebuilt(tmp_path, LOWER, *DOCUMENTS, whole)
        kept = [whole["entries"][number] for number in (0, 2, 4)]
        assert documents_of(result)[4:] == [{**whole, "entries": kept}]

    def test_of_nothing_that_is_left_are_no_document(self, tmp_path: Path) -> None:
        gone = deprecations(("olm.bundle", "etcd.3"))
        others = deprecations(("olm.package", ""), package="gone")
        assert len(documents_of(rebuilt(tmp_path, LOWER, *DOCUMENTS, gone, others))) == 4


class TestEntries:
    def test_lose_only_the_claim_on_the_new_head(self, tmp_path: Path) -> None:
        entries = [
            {"name": "etcd.3", "replaces": "etcd.1"},
            {"name": "etcd.2", "REPLACES": "etcd.1", "skips": ["etcd.1", "etcd.0"], "x": 1},
            {"name": "etcd.1", "replaces": "etcd.2", "skips": ["etcd.2"], "skipRange": "<1"},
        ]
        result = rebuilt(
            tmp_path,
            {("etcd", "stable"): {"etcd.1", "etcd.2"}},
            PACKAGE,
            {**CHANNEL, "entries": entries},
            *BUNDLES,
        )
        kept = documents_of(result)[1]["entries"]
        assert kept == [
            {"name": "etcd.2", "replaces": "", "skips": ["etcd.0"], "x": 1},
            {"name": "etcd.1", "replaces": "etcd.2", "skips": ["etcd.2"], "skipRange": "<1"},
        ]

    def test_a_new_head_that_clusters_cannot_list_is_said(self, tmp_path: Path) -> None:
        (remark,) = rebuilt(tmp_path, LOWER, *DOCUMENTS).remarks
        assert "no ClusterServiceVersion of etcd.2" in remark

    @pytest.mark.parametrize("kind", ["olm.csv.metadata", "olm.bundle.object"])
    def test_of_one_that_they_can_list_nothing_is_said(self, tmp_path: Path, kind: str) -> None:
        described = [
            {**b, "properties": [*b["properties"], {"type": kind, "value": {}}]} for b in BUNDLES
        ]
        assert rebuilt(tmp_path, LOWER, PACKAGE, CHANNEL, *described).remarks == ()


class TestNames:
    @pytest.mark.parametrize("name", ["etcd", "a.b-c_d", "3scale", "Upper"])
    def test_plain_ones_are_those_of_directories(self, name: str) -> None:
        assert component(name) == name

    @pytest.mark.parametrize(
        "name",
        [
            "..",
            ".",
            "a/b",
            "/",
            ".wh..wh..opq",
            ".wh.x",
            ".indexignore",
            "a\0b",
            "%2E%2E",
            "ü",
            "a b",
        ],
    )
    def test_others_are_encoded_each_as_another(self, name: str) -> None:
        encoded = component(name)
        assert not set(encoded) & set("/\0 ")
        assert not encoded.startswith(".")
        assert encoded != name
        assert component(encoded) != encoded

    def test_too_long_ones_are_refused(self) -> None:
        assert component("a" * 255)
        with pytest.raises(CatalogError, match="too long for a directory"):
            component("ü" * 50)

    def test_hostile_ones_lead_nowhere_else(self, tmp_path: Path) -> None:
        hostile = [json.loads(json.dumps(d).replace('"etcd"', '"../../etcd"')) for d in DOCUMENTS]
        result = rebuilt(tmp_path, None, *hostile)
        assert [path for path, _ in result.files] == ["configs/%2E%2E%2F%2E%2E%2Fetcd/catalog.json"]
        assert all(local.resolve().is_relative_to(tmp_path) for _, local in result.files)
        assert documents_of(result) == hostile


def test_a_catalog_that_is_all_of_its_image_is_refused(tmp_path: Path) -> None:
    image = tree(layer(file("all.json", as_stream(DOCUMENTS).encode())))
    found = read.read(image, {formats.CONFIGS_LABEL: "/"})
    with pytest.raises(CatalogError, match="all of its image"):
        rebuild(image, found, ALL, {}, tmp_path)


def test_memory_does_not_grow_with_the_documents(tmp_path: Path) -> None:
    filler = {"type": "filler", "value": "x" * 500_000}
    bundles = [{**BUNDLES[0], "name": f"etcd.{n}", "properties": [filler]} for n in range(60)]
    entries = [{"name": f"etcd.{n}", "replaces": f"etcd.{n - 1}"} for n in range(60)]
    image = LocalTree(
        written(
            tmp_path / "image",
            {
                f"configs/{n}.json": as_stream([document])
                for n, document in enumerate([PACKAGE, {**CHANNEL, "entries": entries}, *bundles])
            },
        )
    )
    found = read.read(image, {formats.CONFIGS_LABEL: "/configs"})
    places = select(found.catalog, Selection()).places
    (tmp_path / "rebuilt").mkdir()
    tracemalloc.start()
    try:
        result = rebuild(image, found, places, {}, tmp_path / "rebuilt")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert result.files[0][1].stat().st_size > 30_000_000
    assert peak < 10_000_000
