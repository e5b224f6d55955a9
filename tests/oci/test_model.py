from __future__ import annotations

import json
from typing import Any

import pytest

from airgap import limits
from airgap.digest import Digest, digest_of
from airgap.errors import MalformedContent
from airgap.oci import media_types
from airgap.oci.model import (
    Descriptor,
    Index,
    Manifest,
    Platform,
    config_labels,
    manifest_type,
    parse_manifest,
)

HEX = "a" * 64
BLOB: dict[str, Any] = {
    "digest": f"sha256:{HEX}",
    "size": 7,
    "mediaType": "application/octet-stream",
}


def manifest(**changes: Any) -> dict[str, Any]:
    whole = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": BLOB,
        "layers": [BLOB],
    }
    return {key: value for key, value in (whole | changes).items() if value is not ...}


def index(*entries: Any, **changes: Any) -> dict[str, Any]:
    whole = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": list(entries)}
    return {key: value for key, value in (whole | changes).items() if value is not ...}


def parse(document: Any, declared: str = "") -> Manifest | Index:
    return parse_manifest(json.dumps(document).encode(), declared, "image")


def test_reads_a_manifest() -> None:
    other = BLOB | {"digest": f"sha256:{'b' * 64}", "size": 0, "mediaType": ""}
    got = parse(manifest(layers=[BLOB, other]))
    assert isinstance(got, Manifest)
    assert got.media_type == media_types.OCI_MANIFEST
    assert got.config == got.layers[0]
    assert (str(got.layers[1].digest), got.layers[1].size) == (other["digest"], 0)


def test_reads_an_index_with_its_platforms() -> None:
    platform = {"os": "linux", "architecture": "arm", "variant": "v7", "features": []}
    got = parse(index(BLOB | {"platform": platform}, BLOB | {"platform": None}))
    assert isinstance(got, Index)
    assert got.manifests[0].platform == Platform("linux", "arm", "v7")
    assert str(got.manifests[0].platform) == "linux/arm/v7"
    assert got.manifests[1].platform is None


@pytest.mark.parametrize("empty", [[], None])
def test_lists_may_be_empty(empty: Any) -> None:
    assert parse(manifest(layers=empty)) == Manifest(
        media_types.OCI_MANIFEST, Descriptor(Digest("sha256", HEX), 7, BLOB["mediaType"]), ()
    )
    assert parse(index(manifests=empty)) == Index(media_types.OCI_INDEX, ())


def test_unknown_media_types_of_blobs_are_none_of_our_business() -> None:
    got = parse(manifest(config=BLOB | {"mediaType": "application/vnd.wasm.config.v0+json"}))
    assert isinstance(got, Manifest)
    assert got.config.media_type == "application/vnd.wasm.config.v0+json"


def test_annotations_may_differ_in_case_only() -> None:
    parse(manifest(annotations={"a": "1", "A": "2"}))


class TestTheMediaType:
    @pytest.mark.parametrize(
        ("document", "declared", "expected"),
        [
            (manifest(mediaType=...), "", media_types.OCI_MANIFEST),
            (manifest(mediaType=""), "", media_types.OCI_MANIFEST),
            (manifest(mediaType=None), "", media_types.OCI_MANIFEST),
            (index(mediaType=...), "", media_types.OCI_INDEX),
            (manifest(mediaType=...), media_types.DOCKER_MANIFEST, media_types.DOCKER_MANIFEST),
            (index(mediaType=...), media_types.DOCKER_LIST, media_types.DOCKER_LIST),
            (manifest(), media_types.OCI_MANIFEST, media_types.OCI_MANIFEST),
            (manifest(mediaType=media_types.DOCKER_MANIFEST), "", media_types.DOCKER_MANIFEST),
        ],
    )
    def test_is_what_all_evidence_agrees_on(
        self, document: dict[str, Any], declared: str, expected: str
    ) -> None:
        assert manifest_type(document, declared, "image") == expected
        assert parse(document, declared).media_type == expected

    @pytest.mark.parametrize(
        ("document", "declared", "why"),
        [
            (manifest(), media_types.DOCKER_MANIFEST, "said to be both"),
            (manifest(), media_types.OCI_INDEX, "said to be both"),
            (manifest(), "application/json", "said to be both"),
            (manifest(mediaType=...), "application/json", "its content is not"),
            (manifest(mediaType=media_types.OCI_INDEX), "", "its content is not"),
            (index(mediaType=media_types.OCI_MANIFEST), "", "its content is not"),
            (index(mediaType=...), media_types.OCI_MANIFEST, "its content is not"),
            (manifest(manifests=[]), "", "both a manifest and an index"),
            (index(layers=None), "", "both a manifest and an index"),
            ({}, "", "neither a manifest nor an index"),
            ({"config": BLOB}, "", "neither a manifest nor an index"),
            (manifest(mediaType=[]), media_types.OCI_INDEX, "its content is not"),
            (manifest(mediaType=["x"]), "", "mediaType is no text"),
            (manifest(mediaType=5), "", "mediaType is no text"),
        ],
    )
    def test_conflicting_evidence_is_refused(
        self, document: dict[str, Any], declared: str, why: str
    ) -> None:
        with pytest.raises(MalformedContent, match=f"image: .*{why}"):
            parse(document, declared)

    @pytest.mark.parametrize(
        ("document", "declared"),
        [
            ({"schemaVersion": 1, "fsLayers": [], "history": []}, ""),
            ({"fsLayers": []}, "application/vnd.docker.distribution.manifest.v1+prettyjws"),
            ({"mediaType": "application/vnd.docker.distribution.manifest.v1+json"}, ""),
            (manifest(schemaVersion=1), ""),
        ],
    )
    def test_schema_1_is_refused_by_name(self, document: dict[str, Any], declared: str) -> None:
        with pytest.raises(MalformedContent, match="schema 1") as caught:
            parse(document, declared)
        assert caught.value.hint


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (manifest(Layers=[]), "wrong case"),
        (manifest(layers=..., Layers=[]), "wrong case"),
        (manifest(MediaType="x"), "wrong case"),
        (index(Manifests=[]), "wrong case"),
        (manifest(config=BLOB | {"Digest": "x"}), "wrong case"),
        (index(BLOB | {"SIZE": 1}), "wrong case"),
        (manifest(config=...), "a descriptor is no object"),
        (manifest(config=None), "a descriptor is no object"),
        (manifest(layers=["x"]), "a descriptor is no object"),
        (manifest(layers={}), "layers is no list"),
        (index(manifests="x"), "manifests is no list"),
        (manifest(config={"size": 1}), "without digest"),
        (manifest(config=BLOB | {"mediaType": 1}), "without digest or media type"),
        (manifest(layers=[BLOB] * 513), "513 layers"),
        (index(*[BLOB] * 10_001), "10001 entries"),
        (index(BLOB | {"platform": "linux"}), "a platform is no object"),
        (index(BLOB | {"platform": {"os": 1}}), "a platform holds something else"),
    ],
)
def test_refuses(document: dict[str, Any], why: str) -> None:
    with pytest.raises(MalformedContent, match=f"image: .*{why}"):
        parse(document)


@pytest.mark.parametrize(
    "digest",
    [
        "",
        "sha256:",
        HEX,
        f"sha256:{HEX}\n",
        f"sha256:{'A' * 64}",
        f"sha256:{'a' * 63}",
        f"sha256:{'a' * 65}",
        "sha256:../../../etc/passwd",
        f"md5:{'a' * 32}",
        f"sha512:{HEX}",
        f"sha256:{'%61' * 21}a",
        "sha256:" + "\uff11" * 64,
        f" sha256:{HEX}",
        "sha256:\x1b]52;c;x\x07",
    ],
)
def test_refuses_what_is_no_digest(digest: str) -> None:
    with pytest.raises(MalformedContent, match="image: not a digest") as caught:
        parse(manifest(layers=[BLOB | {"digest": digest}]))
    assert caught.value.message.isprintable()


@pytest.mark.parametrize(
    "size", ["-1", "1.0", "1e3", '"12"', "true", "null", str(2**50 + 1), str(2**63), "[]"]
)
def test_refuses_what_is_no_size(size: str) -> None:
    raw = json.dumps(manifest()).replace('"size": 7', f'"size": {size}').encode()
    with pytest.raises(MalformedContent, match="with size"):
        parse_manifest(raw, "", "image")


def test_refuses_what_json_itself_leaves_open() -> None:
    raw = json.dumps(manifest())
    for broken in (raw.replace('"layers"', '"layers": [], "layers"'), raw + "x", raw[:-1], "[]"):
        with pytest.raises(MalformedContent, match=r"^image: "):
            parse_manifest(broken.encode(), "", "image")


def test_refuses_a_manifest_that_no_registry_takes() -> None:
    raw = json.dumps(manifest()).encode()
    parse_manifest(raw.ljust(limits.MANIFEST), "", "image")
    with pytest.raises(MalformedContent, match="larger than"):
        parse_manifest(raw.ljust(limits.MANIFEST + 1), "", "image")


def test_looking_changes_nothing() -> None:
    raw = json.dumps(manifest(), indent=3).encode()
    before = digest_of(raw)
    parse_manifest(raw, "", "image")
    assert digest_of(raw) == before


class TestLabels:
    @pytest.mark.parametrize(
        "document",
        [{}, {"config": None}, {"config": {}}, {"config": {"Labels": None}, "rootfs": {}}],
    )
    def test_an_image_may_have_none(self, document: dict[str, Any]) -> None:
        assert config_labels(json.dumps(document).encode(), "config") == {}

    def test_are_those_of_the_container_configuration(self) -> None:
        document = {
            "config": {"Labels": {"a": "1", "A": "2"}, "Env": []},
            "container_config": {"Labels": {"a": "old"}},
        }
        assert config_labels(json.dumps(document).encode(), "config") == {"a": "1", "A": "2"}

    @pytest.mark.parametrize(
        ("document", "why"),
        [
            ([], "not a JSON object"),
            ({"config": []}, "config is no object"),
            ({"config": {"Labels": ["a"]}}, "Labels is no object"),
            ({"config": {"Labels": {"a": ["b"]}}}, "the label 'a' is no text"),
            ({"config": {"Labels": {"\x1b": 1}}}, r"the label '.{0,2}x1b' is no text"),
            ({"config": {"labels": {}}}, "wrong case"),
            ({"Config": {}}, "wrong case"),
        ],
    )
    def test_are_text_or_refused(self, document: Any, why: str) -> None:
        with pytest.raises(MalformedContent, match=f"^config: .*{why}"):
            config_labels(json.dumps(document).encode(), "config")
