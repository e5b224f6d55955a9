"""The laboratory: every real catalog gets an upstream that has all it names."""

from __future__ import annotations

import gzip
import shutil
import sqlite3
import subprocess
import sys
import tarfile
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airgap.digest import Digest, digest_of
from airgap.oci import media_types
from airgap.oci.graph import walk
from airgap.oci.model import Descriptor, Manifest, parse_manifest
from airgap.reference import ImageReference
from airgap.registry.directory import DirectoryStore
from airgap.registry.server import RegistryServer
from tests.support import images, lab_database
from tests.support.docker_registry import docker_registry
from tests.support.http_client import ask
from tests.support.lab import CATALOGS, DATABASE_LABEL, PRESETS, Lab, LabImage, Recipe, build_lab
from tests.support.shared import needs_shared, shared
from tests.support.upstream import RegistryUpstream, StoreUpstream

if TYPE_CHECKING:
    from tests.support.images import Image

DATABASES = sorted(CATALOGS.glob("*.db"))
OC_TEST = CATALOGS / "oc-test.db"
SMALL = Recipe(layer_bytes=500)
SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "lab"


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "content", durable=False)


def build(store: DirectoryStore, database: Path | None, recipe: Recipe = SMALL) -> Lab:
    return build_lab(database, StoreUpstream(store), recipe=recipe)


def read(store: DirectoryStore, image: LabImage, descriptor: Descriptor) -> bytes:
    found = store.manifest(image.repository, descriptor.digest)
    assert found is not None
    return found[1]


def check(store: DirectoryStore, image: LabImage) -> None:
    """Everything below a reference is in its repository, and is what its digest says."""
    found = store.manifest(image.repository, image.root)
    assert found is not None
    nodes = walk(found[0], lambda descriptor: read(store, image, descriptor))
    assert {node.descriptor.digest: node.descriptor.size for node in nodes} == image.manifests
    assert {blob.digest: blob.size for node in nodes for blob in node.blobs} == image.blobs
    for digest, size in image.blobs.items():
        blob = store.blob(image.repository, digest)
        assert blob is not None
        assert (blob.size, digest_of(blob.path.read_bytes())) == (size, digest)


def database_in(store: DirectoryStore, lab: Lab, path: Path) -> str:
    """Unpack the catalog's database; return its name in the image."""
    found = store.manifest(lab.catalog_image.repository, lab.catalog.tag)
    assert found is not None
    descriptor, raw = found
    assert descriptor.digest == lab.catalog_digest
    assert descriptor.media_type == media_types.DOCKER_MANIFEST
    manifest = parse_manifest(raw, "", "catalog")
    assert isinstance(manifest, Manifest)
    layer = store.blob(lab.catalog_image.repository, manifest.layers[-1].digest)
    assert layer is not None
    with tarfile.open(fileobj=BytesIO(gzip.decompress(layer.path.read_bytes()))) as tar:
        (member,) = tar.getmembers()
        content = tar.extractfile(member)
        assert content is not None
        path.write_bytes(content.read())
    return member.name


@pytest.mark.parametrize("database", DATABASES, ids=lambda path: path.stem)
def test_every_reference_has_an_image(
    store: DirectoryStore, database: Path, tmp_path: Path
) -> None:
    lab = build(store, database)
    truth = database.with_suffix(".images.txt").read_text().split()
    assert set(truth) <= {*lab.images, *lab.skipped}
    for image in (*lab.images.values(), lab.catalog_image):
        check(store, image)
    assert database_in(store, lab, tmp_path / "new.db") == "bundles.db"
    assert lab_database.references(tmp_path / "new.db") == sorted(
        {*lab.references.values(), *lab.skipped}
    )


@pytest.mark.parametrize("database", DATABASES, ids=lambda path: path.stem)
def test_a_reference_leads_to_its_image(store: DirectoryStore, database: Path) -> None:
    lab = build(store, database)
    for original, image in lab.images.items():
        before = ImageReference.parse(original)
        after = ImageReference.parse(image.reference)
        assert (after.registry, after.path, after.tag) == (before.registry, before.path, before.tag)
        full = after.with_defaults()
        assert image.repository == f"{full.registry}/{full.path}"
        found = store.manifest(image.repository, full.digest or full.tag)
        assert found is not None
        assert found[0].digest == image.root


def test_replaces_digests_in_every_table_and_kind_of_cell(
    store: DirectoryStore, tmp_path: Path
) -> None:
    lab = build(store, OC_TEST)
    database_in(store, lab, tmp_path / "new.db")
    old = {ref.partition("@")[2] for ref in lab.images if "@" in ref}
    assert old
    with closing(sqlite3.connect(tmp_path / "new.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        cells = connection.execute("SELECT typeof(csv), typeof(bundle) FROM operatorbundle")
        assert set(cells.fetchall()) == {("blob", "blob"), ("null", "null")}
        script = "".join(connection.iterdump())
    for digest in old:
        assert digest not in script
        assert digest.encode().hex() not in script.lower()  # where a cell is a BLOB


def test_the_same_recipe_gives_the_same_digests(tmp_path: Path) -> None:
    labs = [
        build(DirectoryStore(tmp_path / name, durable=False), OC_TEST, recipe)
        for name, recipe in (("a", SMALL), ("b", SMALL), ("c", Recipe(layer_bytes=500, seed=1)))
    ]
    assert labs[0] == labs[1]
    assert not set(labs[0].references.values()) & {
        text for text in labs[2].references.values() if "@" in text
    }
    assert labs[0].catalog_digest != labs[2].catalog_digest


def test_what_is_pushed_over_http_is_the_same(tmp_path: Path) -> None:
    direct = build(DirectoryStore(tmp_path / "a", durable=False), OC_TEST)
    store = DirectoryStore(tmp_path / "b", durable=False)
    with RegistryServer(store) as server, RegistryUpstream(server.host) as upstream:
        pushed = build_lab(OC_TEST, upstream, recipe=SMALL)
    assert pushed == direct
    for image in (*pushed.images.values(), pushed.catalog_image):
        check(store, image)


def test_a_real_registry_takes_it(tmp_path: Path) -> None:
    with docker_registry(tmp_path / "registry") as host, RegistryUpstream(host) as upstream:
        lab = build_lab(OC_TEST, upstream, recipe=SMALL)
        for image in (*lab.images.values(), lab.catalog_image):
            path = f"/v2/{image.repository}/manifests/{image.root}"
            headers = {"Accept": ", ".join(media_types.ACCEPTED)}
            assert ask(host, "HEAD", path, headers=headers).status == 200


def test_skopeo_copies_its_images(store: DirectoryStore, tmp_path: Path) -> None:
    skopeo = shutil.which("skopeo")
    if skopeo is None:
        pytest.skip("skopeo is not installed")
    lab = build(store, OC_TEST, Recipe(layer_bytes=500, multi_arch=0.5))
    with RegistryServer(store) as server:
        for number, image in enumerate([*lab.images.values(), lab.catalog_image]):
            source = f"docker://{server.host}/{image.repository}@{image.root}"
            target = f"dir:{tmp_path}/copy-{number}"
            command = [skopeo, "copy", "--all", "--src-tls-verify=false", source, target]
            subprocess.run(command, check=True, capture_output=True)
            raw = (tmp_path / f"copy-{number}/manifest.json").read_bytes()
            assert digest_of(raw) == image.root


def test_kinds_of_images_are_mixed(store: DirectoryStore) -> None:
    lab = build(store, None, Recipe(layer_bytes=100, padding=40))
    roots = [store.manifest(image.repository, image.root) for image in lab.images.values()]
    kinds = {found[0].media_type for found in roots if found}
    assert kinds == {*media_types.ACCEPTED}
    shared_blobs = [blob for image in lab.images.values() for blob in image.blobs]
    assert len(shared_blobs) > len(set(shared_blobs))


def test_padding_is_what_the_database_names_besides(store: DirectoryStore, tmp_path: Path) -> None:
    plain = build(DirectoryStore(tmp_path / "plain", durable=False), OC_TEST)
    padded = build(store, OC_TEST, Recipe(layer_bytes=500, padding=25))
    assert len(padded.images) == len(plain.images) + 25
    assert plain.references.items() <= padded.references.items()
    assert set(padded.hosts) == {"docker.io", "ghcr.io", "quay.io", "registry.redhat.io"}


def test_a_huge_layer_is_as_large_as_asked(store: DirectoryStore) -> None:
    lab = build(store, None, Recipe(huge_layer=5_000_000))
    (image,) = lab.images.values()
    assert 5_000_000 < max(image.blobs.values()) < 5_010_000


def test_a_catalog_may_be_labelled_and_for_many_machines(
    store: DirectoryStore, tmp_path: Path
) -> None:
    lab = build(store, OC_TEST, Recipe(layer_bytes=500, labelled=True, catalog_multi_arch=True))
    assert len(lab.catalog_image.manifests) == 5
    configs = [
        blob.path.read_text()
        for digest in lab.catalog_image.blobs
        if (blob := store.blob(lab.catalog_image.repository, digest))
        and blob.path.read_bytes().startswith(b"{")
    ]
    assert len(configs) == 4
    assert all(f'"{DATABASE_LABEL}": "/database/index.db"' in config for config in configs)


def test_registries_conf_sends_every_host_to_the_upstream(store: DirectoryStore) -> None:
    lab = build(store, CATALOGS / "opreg-foo-2021a.db")
    assert lab.registries_conf("127.0.0.1:5000") == (
        '[[registry]]\nprefix = "quay.io"\nlocation = "127.0.0.1:5000/quay.io"\n'
        "insecure = true\n\n"
        '[[registry]]\nprefix = "test.registry"\nlocation = "127.0.0.1:5000/test.registry"\n'
        "insecure = true\n"
    )


ODD = [
    "quay.io/a/tagged:v1",
    f"quay.io/a/tagged:v1@{Digest('sha256', '1' * 64)}",
    f"quay.io/a/tagged:v1@{Digest('sha256', '2' * 64)}",
    f"quay.io/copy/tagged@{Digest('sha256', '1' * 64)}",
    "strimzi/operator:1.0",
    "index.docker.io/strimzi/operator:1.0",
    "localhost:5000/a/b",
]
NO_REFERENCES = ["oci://quay.io/x", "strimzi/operator@@sha256:abc", "quay.io/A/b", "x:y:"]


def test_survives_what_real_catalogs_hold(store: DirectoryStore, tmp_path: Path) -> None:
    database = tmp_path / "odd.db"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE related_image (image TEXT, operatorbundle_name TEXT)")
        connection.execute("CREATE TABLE operatorbundle (name TEXT PRIMARY KEY, csv TEXT UNIQUE)")
        cells = [*ODD, *NO_REFERENCES, None, "", ODD[0].encode()]
        rows = [(cell, "b") for cell in cells]
        connection.executemany("INSERT INTO related_image VALUES (?, ?)", rows)
    lab = build(store, database)
    assert set(lab.images) == set(ODD)
    assert set(lab.skipped) == set(NO_REFERENCES)
    for image in lab.images.values():
        check(store, image)
    first, second, third, copy, one, other, local = (lab.images[text] for text in ODD)
    assert first.root in {second.root, third.root}
    assert second.root != third.root
    assert copy.root == second.root
    assert (one.root, one.repository) == (other.root, "docker.io/strimzi/operator")
    assert other.repository == one.repository
    assert local.repository == "localhost-5000/a/b"


@needs_shared
@pytest.mark.parametrize("level", ["mig1-no-bundlepath", "mig5", "mig13"])
def test_takes_databases_of_any_schema_level(store: DirectoryStore, level: str) -> None:
    database = shared(f"catalogs/sqlite-synthetic/pkgman-small-{level}.db")
    lab = build(store, database, Recipe(layer_bytes=100, layers=1, padding=3))
    truth = database.with_suffix(".images.txt").read_text().split()
    assert set(truth) <= {*lab.images, *lab.skipped}


def total(recipe: Recipe, tmp_path: Path) -> Lab:
    store = DirectoryStore(tmp_path / "content", durable=False)
    return build_lab(None, StoreUpstream(store), recipe=recipe)


def test_the_small_preset_is_300_images_of_90_megabytes(tmp_path: Path) -> None:
    lab = total(PRESETS["small"], tmp_path)
    assert len(lab.images) == 300
    assert 80e6 < lab.total_bytes < 100e6


def test_the_command_line_makes_an_upstream_and_its_configuration(tmp_path: Path) -> None:
    into, configuration = tmp_path / "content", tmp_path / "registries.conf"
    arguments = f"--database {OC_TEST} --into {into} --layer-bytes 500 --catalog quay.io/x/y:v2"
    conf = f"--registries-conf {configuration} --host 127.0.0.1:5000"
    command = [sys.executable, str(SCRIPT), *arguments.split(), *conf.split()]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    lab = build_lab(
        OC_TEST,
        StoreUpstream(DirectoryStore(tmp_path / "again", durable=False)),
        recipe=SMALL,
        catalog="quay.io/x/y:v2",
    )
    assert f"quay.io/x/y:v2 {lab.catalog_digest}" in result.stdout
    assert configuration.read_text() == lab.registries_conf("127.0.0.1:5000")
    assert DirectoryStore(into).manifest("quay.io/x/y", "v2") is not None


def nested() -> Image:
    return images.index([images.index([images.image([])], kind="docker"), images.image([])])


def test_an_index_of_indexes_is_sound() -> None:
    index = nested()
    raw = {image.digest: image.raw for image in index.manifests()}
    nodes = walk(index.descriptor, lambda descriptor: raw[descriptor.digest])
    assert [node.descriptor.digest for node in nodes] == [one.digest for one in index.manifests()]


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
@pytest.mark.parametrize("size", [0, 1, 511, 512, 3_000_000])
def test_a_random_layer_is_a_tar_of_one_file(
    compression: images.Compression, size: int, tmp_path: Path
) -> None:
    layer = images.random_layer("file", size, "seed", compression=compression)
    packed = layer.blob.read()
    assert (digest_of(packed), len(packed)) == (layer.blob.digest, layer.blob.size)
    plain = unpacked(packed, compression)
    assert digest_of(plain) == layer.diff_id
    with tarfile.open(fileobj=BytesIO(plain)) as tar:
        assert [(one.name, one.size) for one in tar.getmembers()] == [("file", size)]


def unpacked(content: bytes, compression: images.Compression) -> bytes:
    if compression == "gzip":
        return gzip.decompress(content)
    if compression == "zstd":
        import zstandard

        return zstandard.ZstdDecompressor().decompressobj().decompress(content)
    return content
