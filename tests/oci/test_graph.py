from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airgap import limits
from airgap.digest import Digest, digest_of
from airgap.errors import MalformedContent, NotFound
from airgap.oci import media_types
from airgap.oci.graph import Node, UnsupportedContent, walk
from airgap.oci.model import Descriptor


class Content:
    """Manifests by digest, and how often each was asked for."""

    def __init__(self) -> None:
        self.raw: dict[Digest, bytes] = {}
        self.asked: list[Digest] = []

    def fetch(self, descriptor: Descriptor) -> bytes:
        self.asked.append(descriptor.digest)
        return self.raw[descriptor.digest]

    def add(self, document: dict[str, Any], media_type: str) -> Descriptor:
        raw = json.dumps(document).encode()
        digest = digest_of(raw)
        self.raw[digest] = raw
        return Descriptor(digest, len(raw), media_type)

    def image(self, *layers: str, media_type: str = media_types.OCI_MANIFEST) -> Descriptor:
        config, *rest = (entry(blob(name)) for name in ("config", *layers))
        return self.add({"schemaVersion": 2, "config": config, "layers": rest}, media_type)

    def index(self, *children: Descriptor) -> Descriptor:
        manifests = [entry(child) for child in children]
        return self.add({"schemaVersion": 2, "manifests": manifests}, media_types.OCI_INDEX)

    def walk(self, root: Descriptor) -> list[Node]:
        return walk(root, self.fetch)


def blob(name: str, media_type: str = "application/octet-stream") -> Descriptor:
    return Descriptor(digest_of(name.encode()), len(name), media_type)


def entry(descriptor: Descriptor) -> dict[str, Any]:
    return {
        "digest": str(descriptor.digest),
        "size": descriptor.size,
        "mediaType": descriptor.media_type,
    }


@pytest.fixture
def content() -> Content:
    return Content()


def test_one_image_is_one_node_with_its_blobs_in_order(content: Content) -> None:
    root = content.image("lower", "upper")
    assert content.walk(root) == [Node(root, (), (blob("config"), blob("lower"), blob("upper")))]


def test_children_come_before_the_index_that_names_them(content: Content) -> None:
    one, two = content.image("1"), content.image("2")
    root = content.index(one, two)
    nodes = content.walk(root)
    assert [node.descriptor for node in nodes] == [one, two, root]
    assert nodes[-1].children == (one.digest, two.digest)
    assert nodes[-1].blobs == ()


def test_indexes_may_be_nested(content: Content) -> None:
    one, two = content.image("1"), content.image("2")
    inner = content.index(one)
    root = content.index(inner, two)
    assert [node.descriptor for node in content.walk(root)] == [one, inner, two, root]


def test_a_shared_child_is_fetched_once_and_listed_once(content: Content) -> None:
    shared = content.image("1")
    root = content.index(shared, content.index(shared), shared)
    nodes = content.walk(root)
    assert len(nodes) == 3
    assert content.asked.count(shared.digest) == 1
    assert nodes[-1].children == (shared.digest, nodes[1].descriptor.digest)


def test_a_blob_named_twice_is_listed_once(content: Content) -> None:
    (node,) = content.walk(content.image("same", "other", "same"))
    assert node.blobs == (blob("config"), blob("same"), blob("other"))


def test_configuration_and_layer_may_be_the_same_blob(content: Content) -> None:
    (node,) = content.walk(content.image("config"))
    assert node.blobs == (blob("config"),)


def test_a_layer_may_be_a_manifest(content: Content) -> None:
    inner = content.image("x")
    root = content.add({"config": entry(blob("c")), "layers": [entry(inner)]}, "")
    (node,) = content.walk(root)
    assert node.blobs[1].digest == inner.digest


def test_the_descriptor_says_what_the_bytes_are(content: Content) -> None:
    given = content.image("1")
    vague = Descriptor(given.digest, 0, "")
    (node,) = content.walk(vague)
    assert node.descriptor == given


def test_docker_lists_hold_docker_manifests(content: Content) -> None:
    child = content.image("1", media_type=media_types.DOCKER_MANIFEST)
    root = content.add({"manifests": [entry(child)]}, media_types.DOCKER_LIST)
    assert [node.descriptor.media_type for node in content.walk(root)] == [
        media_types.DOCKER_MANIFEST,
        media_types.DOCKER_LIST,
    ]


def test_refuses_a_child_that_is_something_else_than_said(content: Content) -> None:
    index = content.index()
    lie = Descriptor(index.digest, index.size, media_types.OCI_MANIFEST)
    with pytest.raises(MalformedContent, match=f"^{index.digest}: its content is not"):
        content.walk(content.index(lie))


def test_refuses_schema_1_inside_an_index(content: Content) -> None:
    old = content.add({"schemaVersion": 1, "fsLayers": []}, "")
    with pytest.raises(MalformedContent, match="schema 1"):
        content.walk(content.index(old))


def test_refuses_two_sizes_for_one_blob(content: Content) -> None:
    layer = entry(blob("layer"))
    root = content.add({"config": entry(blob("c")), "layers": [layer, layer | {"size": 1}]}, "")
    with pytest.raises(MalformedContent, match="with size 5 and with 1"):
        content.walk(root)


def test_refuses_two_sizes_for_one_child(content: Content) -> None:
    child = content.image("1")
    wrong = Descriptor(child.digest, 1, child.media_type)
    with pytest.raises(MalformedContent, match=f"with size {child.size} and with 1"):
        content.walk(content.index(child, wrong))


@pytest.mark.parametrize(("levels", "fits"), [(limits.INDEX_DEPTH, True), (50, False)])
def test_bounds_how_deep_indexes_are_nested(content: Content, levels: int, fits: bool) -> None:
    root = content.image("1")
    for _ in range(levels):
        root = content.index(root)
    if fits:
        assert len(content.walk(root)) == levels + 1
    else:
        with pytest.raises(MalformedContent, match="nested too deeply"):
            content.walk(root)
        assert len(content.asked) == limits.INDEX_DEPTH + 1


def test_bounds_how_many_manifests_an_image_has(
    content: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MANIFESTS_PER_IMAGE", 10)
    halves = [content.index(*(content.image(f"{half}{n}") for n in range(8))) for half in "ab"]
    assert len(content.walk(halves[0])) == 9
    with pytest.raises(MalformedContent, match="too many manifests"):
        content.walk(content.index(*halves))


def test_a_child_ten_thousand_times_is_one_child(content: Content) -> None:
    root = content.index(*[content.image("1")] * limits.MANIFESTS_PER_IMAGE)
    assert len(content.walk(root)) == 2


SHA512 = Digest("sha512", "a" * 128)


def test_content_addressed_by_sha512_is_not_carried(content: Content) -> None:
    odd = Descriptor(SHA512, 1, media_types.OCI_MANIFEST)
    in_layers = content.add({"config": entry(blob("c")), "layers": [entry(odd)]}, "")
    for root in (odd, content.index(odd), in_layers):
        with pytest.raises(UnsupportedContent, match="sha512") as caught:
            content.walk(root)
        assert caught.value.reason == "sha512"
    assert SHA512 not in content.asked


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    ],
)
def test_layers_that_registries_do_not_hold_are_not_carried(
    content: Content, media_type: str
) -> None:
    layer = blob("windows", media_type)
    root = content.add({"config": entry(blob("c")), "layers": [entry(layer)]}, "")
    with pytest.raises(UnsupportedContent, match=f"{root.digest}: layer {layer.digest}") as caught:
        content.walk(root)
    assert caught.value.reason == "foreign-layer"


def test_what_fetch_raises_is_passed_on(content: Content) -> None:
    def fetch(descriptor: Descriptor) -> bytes:
        raise NotFound(f"{descriptor.digest}: absent", status=404)

    with pytest.raises(NotFound):
        walk(content.image("1"), fetch)


@given(st.data())
def test_every_manifest_comes_once_and_after_all_it_names(data: st.DataObject) -> None:
    content = Content()
    below = [content.image(str(number)) for number in range(data.draw(st.integers(1, 4)))]
    levels = {descriptor.digest: 0 for descriptor in below}
    for _ in range(data.draw(st.integers(0, 6))):
        shallow = [d for d in below if levels[d.digest] < limits.INDEX_DEPTH]
        children = data.draw(st.lists(st.sampled_from(shallow), max_size=5))
        index = content.index(*children)
        levels[index.digest] = 1 + max((levels[c.digest] for c in children), default=0)
        below.append(index)
    root = below[-1]

    nodes = content.walk(root)

    place = {node.descriptor.digest: number for number, node in enumerate(nodes)}
    assert len(place) == len(nodes)
    assert nodes[-1].descriptor == root
    assert sorted(content.asked) == sorted(place)
    for node in nodes:
        assert all(place[child] < place[node.descriptor.digest] for child in node.children)
