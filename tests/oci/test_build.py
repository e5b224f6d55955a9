from __future__ import annotations

import io
import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any, BinaryIO

import pytest

from airgap import limits
from airgap.digest import digest_of
from airgap.errors import MalformedContent, Refused
from airgap.oci import media_types
from airgap.oci.build import Addition, BuiltImage, of_one_layer, with_layers
from airgap.oci.graph import walk
from airgap.oci.layer import write_layer
from airgap.oci.model import Descriptor, Manifest, Platform, config_labels, parse_manifest
from airgap.oci.rootfs import FileTree, Layer
from airgap.registry.directory import DirectoryStore
from airgap.registry.server import RegistryServer
from tests.support import images
from tests.support.docker_registry import docker_registry
from tests.support.images import AMD64, ARM64, S390X, Image
from tests.support.upstream import RegistryUpstream, put

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airgap.digest import Digest
    from airgap.oci.layer import WrittenLayer
    from tests.support.images import Kind

LABEL = "operators.operatorframework.io.index.configs.v1"
KINDS: list[Kind] = ["oci", "docker"]


class Images:
    """The content of images, of those that are built as well."""

    def __init__(self, *known: Image) -> None:
        self.manifests = {one.digest: one.raw for image in known for one in image.manifests()}
        self.blobs = {blob.digest: blob.read() for image in known for blob in image.all_blobs()}

    def manifest(self, descriptor: Descriptor) -> bytes:
        return self.manifests[descriptor.digest]

    def open(self, descriptor: Descriptor) -> BinaryIO:
        return io.BytesIO(self.blobs[descriptor.digest])

    def extend(self, image: Image, additions: dict[Digest, Addition]) -> BuiltImage:
        return with_layers(walk(image.descriptor, self.manifest), additions, self)

    def learn(self, built: BuiltImage, *layers: Path) -> None:
        self.manifests.update(built.manifests)
        self.blobs.update(built.configurations)
        self.blobs.update({digest_of(path.read_bytes()): path.read_bytes() for path in layers})

    def document(self, descriptor: Descriptor) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.manifest(descriptor))
        return found

    def configuration(self, leaf: Descriptor) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.blobs[self._parsed(leaf).config.digest])
        return found

    def files(self, leaf: Descriptor) -> dict[str, bytes]:
        layers = self._parsed(leaf).layers
        tree = FileTree.scan(Layer(str(one.digest), self._opener(one)) for one in layers)
        found = {}
        for entry in tree.files():
            content = io.BytesIO()
            entry.copy_to(content)
            found[entry.path] = content.getvalue()
        return found

    def whole(self, built: BuiltImage) -> Image:
        """A built image as those have it that are pushed."""
        known: dict[Digest, Image] = {}
        for node in built.nodes:
            known[node.descriptor.digest] = Image(
                node.descriptor,
                self.manifest(node.descriptor),
                tuple(images.blob(self.blobs[one.digest]) for one in node.blobs),
                tuple(known[child] for child in node.children),
            )
        return known[built.root.digest]

    def _parsed(self, leaf: Descriptor) -> Manifest:
        parsed = parse_manifest(self.manifest(leaf), leaf.media_type, "leaf")
        assert isinstance(parsed, Manifest)
        return parsed

    def _opener(self, layer: Descriptor) -> Callable[[], BinaryIO]:
        return lambda: self.open(layer)


def labelled(configuration: dict[str, Any]) -> dict[str, Any]:
    return configuration | {"config": {**configuration["config"], "Labels": {LABEL: "/configs"}}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "layer.tar.gz"


@pytest.fixture
def layer(path: Path) -> WrittenLayer:
    return write_layer({"configs/new/catalog.json": b"new"}, ["configs"], path)


@pytest.fixture
def addition(layer: WrittenLayer) -> Addition:
    return Addition(layer, labelled)


def base(platform: Platform = AMD64, kind: Kind = "oci") -> Image:
    files = {"configs/old/catalog.json": b"old", "bin/opm": str(platform).encode()}
    layers = [images.layer({"etc/os-release": b"ID=lab\n"}), images.layer(files)]
    labels = {"name": "catalog"}
    return images.image(layers, kind=kind, platform=platform, labels=labels)


def remade(image: Image, document: dict[str, Any]) -> Image:
    """An image whose manifest or index is another document."""
    raw = json.dumps(document).encode()
    descriptor = Descriptor(
        digest_of(raw), len(raw), image.descriptor.media_type, image.descriptor.platform
    )
    return Image(descriptor, raw, image.blobs, image.children)


def configured(image: Image, change: dict[str, Any]) -> Image:
    """An image with another configuration."""
    document = json.loads(image.raw)
    old = image.blobs[0].read()
    config = images.blob(json.dumps(json.loads(old) | change).encode())
    document["config"] |= {"digest": str(config.digest), "size": config.size}
    new = remade(image, document)
    return Image(new.descriptor, new.raw, (config, *image.blobs[1:]))


def attested(several: Image, about: Digest) -> tuple[Image, Image]:
    """An index with one entry more, an attestation; and the attestation."""
    unknown = Platform("unknown", "unknown")
    attestation = images.image([images.layer({str(about): b"{}"})], platform=unknown)
    document = json.loads(several.raw)
    entry = {
        "mediaType": attestation.descriptor.media_type,
        "digest": str(attestation.digest),
        "size": len(attestation.raw),
        "annotations": {
            "vnd.docker.reference.digest": str(about),
            "vnd.docker.reference.type": "attestation-manifest",
        },
        "platform": {"architecture": "unknown", "os": "unknown"},
    }
    document["manifests"].append(entry)
    new = remade(several, document)
    return Image(new.descriptor, new.raw, children=(*several.children, attestation)), attestation


class TestOneMoreLayer:
    @pytest.mark.parametrize("kind", KINDS)
    def test_is_on_top_of_the_others(self, kind: Kind, addition: Addition, path: Path) -> None:
        image = base(kind=kind)
        content = Images(image)
        built = content.extend(image, {image.digest: addition})
        content.learn(built, path)
        assert content.files(built.root) == {
            "bin/opm": b"linux/amd64",
            "configs/new/catalog.json": b"new",
            "etc/os-release": b"ID=lab\n",
        }

    @pytest.mark.parametrize("kind", KINDS)
    def test_has_the_media_type_of_its_kind(self, kind: Kind, addition: Addition) -> None:
        image = base(kind=kind)
        built = Images(image).extend(image, {image.digest: addition})
        document = json.loads(built.manifests[built.root.digest])
        old = json.loads(image.raw)
        assert {one["mediaType"] for one in document["layers"]} == {old["layers"][0]["mediaType"]}
        assert document["mediaType"] == old["mediaType"]
        assert document["config"]["mediaType"] == old["config"]["mediaType"]

    def test_is_in_the_configuration_and_its_history(self, addition: Addition) -> None:
        image = configured(base(), {"created": "2024-05-06T07:08:09Z", "extra": {"é": 1.5}})
        content = Images(image)
        built = content.extend(image, {image.digest: addition})
        content.learn(built)
        old, new = content.configuration(image.descriptor), content.configuration(built.root)
        assert new["rootfs"]["diff_ids"] == [
            *old["rootfs"]["diff_ids"],
            str(addition.layer.diff_id),
        ]
        said = {"created": "2024-05-06T07:08:09Z", "created_by": "airgap"}
        assert new["history"] == [*old["history"], said]
        assert new["config"] == {"Labels": {LABEL: "/configs"}}
        kept = {"created", "os", "architecture", "extra"}
        assert {key: new[key] for key in kept} == {key: old[key] for key in kept}

    @pytest.mark.parametrize("history", [None, []])
    def test_begins_no_history(self, addition: Addition, history: list[Any] | None) -> None:
        image = configured(base(), {"history": history})
        content = Images(image)
        built = content.extend(image, {image.digest: addition})
        content.learn(built)
        assert content.configuration(built.root)["history"] == history

    def test_has_the_epoch_where_the_configuration_has_no_time(self, addition: Addition) -> None:
        image = configured(base(), {"created": None})
        content = Images(image)
        built = content.extend(image, {image.digest: addition})
        content.learn(built)
        last = content.configuration(built.root)["history"][-1]
        assert last["created"] == "1970-01-01T00:00:00Z"

    def test_keeps_what_else_a_manifest_says(self, addition: Addition) -> None:
        image = base()
        config = {"data": "e30=", "urls": ["x"], "annotations": {"a": "b"}}
        document = {"annotations": {"ü": "<&>"}, **json.loads(image.raw)}
        document["config"] |= config
        image = remade(image, document)
        built = Images(image).extend(image, {image.digest: addition})
        raw = built.manifests[built.root.digest]
        new = json.loads(raw)
        assert list(new) == list(document)
        assert '{"annotations":{"ü":"<&>"},"schemaVersion":2,'.encode() in raw
        assert new["layers"][:-1] == document["layers"]
        assert list(new["config"]) == ["mediaType", "digest", "size", "annotations"]

    def test_gives_the_same_bytes_again(self, addition: Addition) -> None:
        image = images.index([base(), base(ARM64)])
        additions = {child.digest: addition for child in image.children}
        first = Images(image).extend(image, additions)
        second = Images(image).extend(image, dict(reversed(additions.items())))
        assert first == second

    def test_takes_an_image_without_layers(self, addition: Addition, path: Path) -> None:
        image = configured(images.image([]), {"rootfs": {"type": "layers", "diff_ids": None}})
        content = Images(image)
        built = content.extend(image, {image.digest: addition})
        content.learn(built, path)
        assert content.files(built.root) == {"configs/new/catalog.json": b"new"}


class TestAnIndex:
    def test_names_every_changed_manifest_as_it_is_now(
        self, addition: Addition, path: Path
    ) -> None:
        image = images.index([base(), base(ARM64), base(S390X)])
        content = Images(image)
        built = content.extend(image, {child.digest: addition for child in image.children})
        content.learn(built, path)
        leaves = [node.descriptor for node in built.nodes[:-1]]
        assert [leaf.platform for leaf in leaves] == [AMD64, ARM64, S390X]
        for leaf in leaves:
            assert content.files(leaf)["configs/new/catalog.json"] == b"new"
            assert content.files(leaf)["bin/opm"] == str(leaf.platform).encode()
        old, new = json.loads(image.raw), content.document(built.root)
        assert new["mediaType"] == old["mediaType"]
        assert [one["platform"] for one in new["manifests"]] == [
            one["platform"] for one in old["manifests"]
        ]

    def test_everything_is_under_its_own_digest(self, addition: Addition) -> None:
        image = images.index([base(), base(ARM64)])
        content = Images(image)
        built = content.extend(image, {child.digest: addition for child in image.children})
        for digest, raw in {**built.manifests, **built.configurations}.items():
            assert digest == digest_of(raw)
        content.learn(built)
        assert list(built.nodes) == walk(built.root, content.manifest)
        assert len(built.manifests) == 3
        assert len(built.configurations) == 2

    def test_keeps_a_manifest_that_is_not_to_change(self, addition: Addition) -> None:
        image = images.index([base(), base(ARM64)])
        changed, kept = image.children
        content = Images(image)
        built = content.extend(image, {changed.digest: addition})
        content.learn(built)
        old, new = json.loads(image.raw), content.document(built.root)
        assert new["manifests"][1] == old["manifests"][1]
        assert new["manifests"][0]["digest"] != old["manifests"][0]["digest"]
        assert kept.digest in {node.descriptor.digest for node in built.nodes}
        assert kept.digest not in built.manifests

    def test_in_an_index_is_followed(self, addition: Addition) -> None:
        inner, other = images.index([base(), base(ARM64)]), images.index([base(S390X)])
        image = images.index([inner, other])
        content = Images(image)
        built = content.extend(image, {inner.children[1].digest: addition})
        content.learn(built)
        digests = [node.descriptor.digest for node in built.nodes]
        assert len(digests) == 6
        assert {inner.children[0].digest, other.digest} < set(digests)
        assert {inner.digest, inner.children[1].digest, image.digest}.isdisjoint(digests)

    def test_keeps_what_else_an_entry_says(self, addition: Addition) -> None:
        image = images.index([base()])
        document = json.loads(image.raw)
        document["manifests"][0] |= {"annotations": {"a": "b"}, "data": "e30="}
        document["annotations"] = {"c": "d"}
        changed = remade(image, document)
        built = Images(changed).extend(changed, {image.children[0].digest: addition})
        new = json.loads(built.manifests[built.root.digest])
        assert new["annotations"] == {"c": "d"}
        entry = new["manifests"][0]
        assert list(entry) == ["mediaType", "digest", "size", "platform", "annotations"]

    def test_loses_attestations_about_what_has_changed(self, addition: Addition) -> None:
        changed, kept = base(), base(ARM64)
        image, gone = attested(images.index([changed, kept]), changed.digest)
        image, stays = attested(image, kept.digest)
        built = Images(image).extend(image, {changed.digest: addition})
        digests = {node.descriptor.digest for node in built.nodes}
        assert gone.digest not in digests
        assert stays.digest in digests
        assert list(built.remarks) == [
            f"{image.digest}: the attestation {gone.digest} is left out, it speaks about"
            f" {changed.digest}, which is changed"
        ]

    def test_loses_them_wherever_it_names_them(self, addition: Addition) -> None:
        changed = base()
        elsewhere, gone = attested(images.index([base(ARM64)]), changed.digest)
        image = images.index([elsewhere, images.index([changed])])
        built = Images(image).extend(image, {changed.digest: addition})
        assert gone.digest not in {node.descriptor.digest for node in built.nodes}
        assert len(built.remarks) == 1


class TestRefuses:
    def refuse(self, image: Image, addition: Addition, why: str) -> Refused:
        with pytest.raises(Refused, match=why) as refusal:
            Images(image).extend(image, {image.digest: addition})
        return refusal.value

    def test_to_change_nothing(self) -> None:
        image = images.index([base(), base(ARM64)])
        with pytest.raises(Refused, match="none of its 2 manifests is to be changed"):
            Images(image).extend(image, {})

    def test_to_change_an_index_or_another_image(self, addition: Addition) -> None:
        image = images.index([base()])
        for digest in (image.digest, base(ARM64).digest):
            with pytest.raises(Refused, match=f"{digest} is none of its 1 manifests"):
                Images(image).extend(image, {digest: addition})

    @pytest.mark.parametrize("diff_ids", [[], ["sha256:" + "0" * 64], "ab", None, {"a": 1, "b": 2}])
    def test_diff_ids_that_are_not_those_of_the_layers(
        self, addition: Addition, diff_ids: Any
    ) -> None:
        image = configured(base(), {"rootfs": {"type": "layers", "diff_ids": diff_ids}})
        self.refuse(image, addition, "diff_ids are not one for each of the 2 layers")

    @pytest.mark.parametrize(
        "change",
        [{"rootfs": None}, {"history": "x"}, {"RootFS": {}}, {"rootfs": {"diff_IDs": []}}],
    )
    def test_an_odd_configuration(self, addition: Addition, change: dict[str, Any]) -> None:
        refusal = self.refuse(configured(base(), change), addition, "configuration: ")
        assert isinstance(refusal, MalformedContent)

    def test_an_artifact(self, addition: Addition) -> None:
        image = base()
        document = json.loads(image.raw)
        document["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json"
        self.refuse(remade(image, document), addition, "not an image of files")

    def test_schema_1(self, addition: Addition) -> None:
        node = walk(base().descriptor, lambda _: base().raw)[0]
        schema1 = Images(base())
        schema1.manifests[base().digest] = b'{"schemaVersion": 1, "fsLayers": []}'
        with pytest.raises(MalformedContent, match="schema 1"):
            with_layers([node], {base().digest: addition}, schema1)

    def test_a_manifest_that_outgrows_registries(self, addition: Addition) -> None:
        image = base()
        document = json.loads(image.raw)
        document["annotations"] = {"a": ""}
        room = limits.MANIFEST - len(json.dumps(document, separators=(",", ":")).encode())
        document["annotations"]["a"] = "x" * (room - 30)
        raw = json.dumps(document, separators=(",", ":")).encode()
        full = Image(Descriptor(digest_of(raw), len(raw), media_types.OCI_MANIFEST), raw)
        self.refuse(Image(full.descriptor, raw, image.blobs), addition, "grows to 41[0-9]{5} bytes")

    def test_a_configuration_that_outgrows_them(self, layer: WrittenLayer) -> None:
        addition = Addition(layer, lambda old: old | {"x": "x" * limits.MANIFEST})
        self.refuse(base(), addition, "grows to")

    def test_a_configuration_that_is_too_large(self, addition: Addition) -> None:
        image = configured(base(), {"x": "x" * limits.MANIFEST})
        self.refuse(image, addition, "a configuration of 4[0-9]{6} bytes")

    def test_a_number_that_cannot_be_written_again(self, addition: Addition) -> None:
        image = base()
        config = images.blob(image.blobs[0].read().replace(b'"os"', b'"x": 1e999, "os"'))
        document = json.loads(image.raw)
        document["config"] |= {"digest": str(config.digest), "size": config.size}
        new = remade(image, document)
        image = Image(new.descriptor, new.raw, (config, *image.blobs[1:]))
        self.refuse(image, addition, "a number that JSON cannot say")

    def test_one_layer_too_many(self, addition: Addition) -> None:
        image = images.image([images.layer({"a": b""})] * limits.LAYERS_PER_MANIFEST)
        self.refuse(image, addition, "513 layers")


class TestOneLayerOverNothing:
    def test_is_a_whole_image(self, layer: WrittenLayer, path: Path) -> None:
        content = Images()
        built = of_one_layer(
            layer,
            labels={LABEL: "/configs"},
            entrypoint=["/bin/opm"],
            command=["serve", "/configs"],
        )
        content.learn(built, path)
        assert content.files(built.root) == {"configs/new/catalog.json": b"new"}
        configuration = content.configuration(built.root)
        assert (configuration["os"], configuration["architecture"]) == ("linux", "amd64")
        assert configuration["config"] == {
            "Entrypoint": ["/bin/opm"],
            "Cmd": ["serve", "/configs"],
            "Labels": {LABEL: "/configs"},
        }
        assert configuration["rootfs"]["diff_ids"] == [str(layer.diff_id)]
        assert list(built.nodes) == walk(built.root, content.manifest)
        (raw,) = built.configurations.values()
        assert config_labels(raw, "built") == {LABEL: "/configs"}

    def test_says_only_what_it_was_told(self, layer: WrittenLayer) -> None:
        (raw,) = of_one_layer(layer, labels={}).configurations.values()
        assert json.loads(raw)["config"] == {}

    def test_is_the_same_whatever_the_order_of_its_labels(self, layer: WrittenLayer) -> None:
        one = of_one_layer(layer, labels={"a": "1", "b": "2"})
        other = of_one_layer(layer, labels={"b": "2", "a": "1"})
        assert one == other

    def test_can_be_extended_itself(self, layer: WrittenLayer, path: Path, tmp_path: Path) -> None:
        content = Images()
        first = of_one_layer(layer, labels={})
        content.learn(first, path)
        further = tmp_path / "further"
        more = Addition(write_layer({"configs/more": b"1"}, [], further), labelled)
        second = with_layers(first.nodes, {first.root.digest: more}, content)
        content.learn(second, further)
        files = {"configs/new/catalog.json": b"new", "configs/more": b"1"}
        assert content.files(second.root) == files

    def test_grows_no_larger_than_registries_take(self, layer: WrittenLayer) -> None:
        with pytest.raises(Refused, match="grows to"):
            of_one_layer(layer, labels={"a": "x" * limits.MANIFEST})


@pytest.fixture(params=["one layer", *KINDS])
def built(request: pytest.FixtureRequest, addition: Addition, path: Path) -> Image:
    """An image of one layer, and an index of each kind with one layer more in its images."""
    content = Images()
    image = of_one_layer(addition.layer, labels={LABEL: "/configs"})
    if request.param != "one layer":
        several = images.index(
            [base(AMD64, request.param), base(ARM64, request.param)], kind=request.param
        )
        content = Images(several)
        image = content.extend(several, {child.digest: addition for child in several.children})
    content.learn(image, path)
    return content.whole(image)


class TestOtherPrograms:
    def test_a_registry_takes_what_is_built(self, built: Image, tmp_path: Path) -> None:
        with docker_registry(tmp_path / "registry") as host, RegistryUpstream(host) as registry:
            registry.push("lab/catalog", built, "v1")

    @pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
    def test_skopeo_reads_and_converts_it(self, built: Image, tmp_path: Path) -> None:
        store = DirectoryStore(tmp_path / "store", durable=False)
        put(store, "lab/catalog", built, "v1")
        with RegistryServer(store) as server:
            where = f"docker://{server.host}/lab/catalog:v1"
            raw = skopeo("inspect", "--raw", "--tls-verify=false", where)
            seen = json.loads(skopeo("inspect", "--tls-verify=false", where))
            copy = ("copy", "--all", "--quiet", "--src-tls-verify=false")
            for form in ("oci", "v2s2"):
                skopeo(*copy, f"--format={form}", where, f"dir:{tmp_path / form}")
        assert raw == built.raw
        assert seen["Labels"] == {LABEL: "/configs"}
        assert (seen["Os"], seen["Architecture"]) == ("linux", "amd64")


def skopeo(*arguments: str) -> bytes:
    command = ["skopeo", "--insecure-policy", "--override-arch=amd64", *arguments]
    return subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
