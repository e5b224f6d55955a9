"""Export, carry, import: between two real registries, every digest unchanged."""

from __future__ import annotations

import json
import shutil
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from airgap.digest import Digest, digest_of
from airgap.oci import media_types
from airgap.reference import ImageReference
from tests.support.command import airgap
from tests.support.docker_registry import docker_registry, needs_docker_registry
from tests.support.ground_truth import GroundTruth
from tests.support.http_client import Answer, ask
from tests.support.lab import CATALOG, CATALOGS, Lab, LabImage, Recipe, build_lab
from tests.support.promise import MappingFile, same_bytes
from tests.support.upstream import RegistryUpstream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.command import Ran

pytestmark = needs_docker_registry

needs_skopeo = pytest.mark.skipif(shutil.which("skopeo") is None, reason="no skopeo here")

DATABASE = "opreg-indexer-2020"
RECIPE = Recipe(multi_arch=0.4)
ACCEPT = ",".join(media_types.ACCEPTED)
OC_DESTINATION = "127.0.0.1:5991"
"""Where ``oc`` mirrored to when its files were recorded."""


@dataclass(frozen=True)
class Journey:
    """One catalog's way from one docker-registry to another, with all that was written."""

    folder: Path
    lab: Lab
    upstream: str
    destination: str
    log: Path
    exported: Ran
    imported: Ran

    @property
    def archive(self) -> Path:
        return self.folder / "olm.tar"

    @property
    def manifests(self) -> Path:
        return self.folder / "manifests"

    @property
    def images(self) -> dict[str, LabImage]:
        """What the lab made, by the references of the catalog that was exported."""
        named = {image.reference: image for image in self.lab.images.values()}
        return {CATALOG: self.lab.catalog_image, **named}

    @property
    def targets(self) -> dict[str, ImageReference]:
        """Where each image went, from ``mapping.txt``, by the same references."""
        lines = MappingFile.read(self.manifests / "mapping.txt").targets
        return {source: ImageReference.parse(target) for source, target in lines.items()}

    def target(self, reference: str) -> ImageReference:
        return self.targets[ImageReference.parse(reference).with_defaults().exact]

    def documents(self, name: str) -> list[dict[str, Any]]:
        return [*yaml.safe_load_all((self.manifests / name).read_text())]


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journey]:
    folder = tmp_path_factory.mktemp("journey")
    with ExitStack() as stack:
        upstream = stack.enter_context(docker_registry(folder / "upstream"))
        destination = stack.enter_context(docker_registry(folder / "destination"))
        with RegistryUpstream(upstream) as registry:
            lab = build_lab(CATALOGS / f"{DATABASE}.db", registry, recipe=RECIPE)
        (folder / "registries.conf").write_text(lab.registries_conf(upstream))
        exported = export(folder, folder / "olm.tar")
        imported = import_(folder, destination)
        log = folder / "destination" / "docker-registry.log"
        yield Journey(folder, lab, upstream, destination, log, exported, imported)


@pytest.fixture(scope="module")
def unpacked(journey: Journey, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    subprocess.run(["tar", "-xf", journey.archive, "-C", folder], check=True, timeout=60)
    return folder


def export(folder: Path, archive: Path, *flags: object) -> Ran:
    conf = folder / "registries.conf"
    return airgap("export", CATALOG, "-o", archive, "--registries-conf", conf, *flags)


def import_(folder: Path, destination: str, manifests: str = "manifests") -> Ran:
    archive, where = folder / "olm.tar", folder / manifests
    flags = ("--insecure", "--to-manifests", where, "--output", "json", "--max-components", 2)
    return airgap("import", archive, destination, *flags)


def get(host: str, repository: str, what: str, name: object) -> Answer:
    answer = ask(host, "GET", f"/v2/{repository}/{what}/{name}", headers={"Accept": ACCEPT})
    assert answer.status == 200, (host, repository, what, name, answer.status)
    return answer


def requests_in(log: str) -> list[tuple[str, str]]:
    """Method and path of each request in docker-registry's access log."""
    quoted = (line.split('"') for line in log.splitlines() if "HTTP/1" in line)
    return [(parts[1].split()[0], parts[1].split()[1]) for parts in quoted]


def skopeo(*arguments: object) -> bytes:
    command = ["skopeo", "--insecure-policy", *map(str, arguments)]
    ran = subprocess.run(command, check=False, capture_output=True, timeout=60)
    assert ran.returncode == 0, ran.stderr.decode()
    return ran.stdout


class TestWhatArrives:
    def test_the_laboratory_is_as_varied_as_the_world(self, journey: Journey) -> None:
        """If this fails, the other tests prove less than they say."""
        images = journey.lab.images.values()
        roots = [get(journey.upstream, i.repository, "manifests", i.root) for i in images]
        assert {root.headers["Content-Type"] for root in roots} == {*media_types.ACCEPTED}
        assert {"@" in image.reference for image in images} == {True, False}

    def test_export_and_import_end_well(self, journey: Journey) -> None:
        assert (journey.exported.status, journey.imported.status) == (0, 0)

    def test_every_image_is_in_the_mapping(self, journey: Journey) -> None:
        wanted = {ImageReference.parse(text).with_defaults().exact for text in journey.images}
        assert journey.targets.keys() == wanted

    def test_every_manifest_arrives_byte_for_byte(self, journey: Journey) -> None:
        for reference, image in journey.images.items():
            target = journey.target(reference)
            for digest in image.manifests:
                sent = get(journey.upstream, image.repository, "manifests", digest)
                came = get(journey.destination, target.path, "manifests", digest)
                assert came.body == sent.body
                assert digest_of(came.body) == digest
                assert came.headers["Content-Type"] == sent.headers["Content-Type"]

    def test_every_blob_arrives_byte_for_byte_in_every_repository(self, journey: Journey) -> None:
        for reference, image in journey.images.items():
            target = journey.target(reference)
            for digest, size in image.blobs.items():
                came = get(journey.destination, target.path, "blobs", digest)
                assert (digest_of(came.body), len(came.body)) == (digest, size)

    def test_every_tag_of_the_mapping_points_to_its_image(self, journey: Journey) -> None:
        for reference, image in journey.images.items():
            target = journey.target(reference)
            came = get(journey.destination, target.path, "manifests", target.tag)
            assert digest_of(came.body) == image.root

    def test_nothing_else_arrives(self, journey: Journey) -> None:
        expected: dict[str, set[str]] = {}
        for target in journey.targets.values():
            expected.setdefault(target.path, set()).add(target.tag)
        listed = json.loads(ask(journey.destination, "GET", "/v2/_catalog?n=1000").body)
        assert set(listed["repositories"]) == expected.keys()
        for repository, tags in expected.items():
            answer = get(journey.destination, repository, "tags", "list")
            assert set(answer.json["tags"]) == tags

    def test_the_catalog_gets_its_tag_last(self, journey: Journey) -> None:
        target = journey.target(CATALOG)
        put = [path for method, path in requests_in(journey.log.read_text()) if method == "PUT"]
        assert put[-1] == f"/v2/{target.path}/manifests/{target.tag}"

    @needs_skopeo
    def test_skopeo_reads_the_same_manifests(self, journey: Journey) -> None:
        for reference, image in journey.images.items():
            where = f"docker://{journey.target(reference).exact}"
            raw = skopeo("inspect", "--raw", "--tls-verify=false", where)
            assert digest_of(raw) == image.root

    @needs_skopeo
    def test_skopeo_copies_whole_images(self, journey: Journey, tmp_path: Path) -> None:
        for number, (reference, image) in enumerate(sorted(journey.images.items())[::3]):
            where = f"docker://{journey.target(reference).exact}"
            copy_with_skopeo(image, tmp_path / str(number), "--src-tls-verify=false", where)


class TestASecondImport:
    def test_sends_nothing(self, journey: Journey) -> None:
        before = len(journey.log.read_text())
        again = import_(journey.folder, journey.destination, "manifests-again")
        assert again.status == 0
        assert [again.json[key] for key in ("sent", "manifests_sent", "mounted")] == [0, 0, 0]
        asked = requests_in(journey.log.read_text()[before:])
        assert {method for method, _ in asked} <= {"GET", "HEAD"}

    def test_writes_the_same_files(self, journey: Journey) -> None:
        assert import_(journey.folder, journey.destination, "manifests-same").status == 0
        first, second = (
            {path.name: path.read_bytes() for path in (journey.folder / name).iterdir()}
            for name in ("manifests", "manifests-same")
        )
        assert first == second


class TestTheArchive:
    def test_is_the_same_with_any_number_of_workers(self, journey: Journey) -> None:
        for workers in (1, 8):
            archive = journey.folder / f"workers-{workers}.tar"
            assert export(journey.folder, archive, "--max-per-registry", workers).status == 0
            assert same_bytes(archive, journey.archive)

    def test_unpacked_is_an_oci_layout(self, journey: Journey, unpacked: Path) -> None:
        assert json.loads((unpacked / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
        files = list((unpacked / "blobs" / "sha256").iterdir())
        assert {path.name for path in files} == {digest.hex for digest in journey.lab.content}
        assert all(digest_of(path.read_bytes()).hex == path.name for path in files)
        assert not (unpacked / "absent").exists()

    def test_names_every_image_with_its_true_type(self, journey: Journey, unpacked: Path) -> None:
        described = {name_of(entry): entry for entry in descriptors(unpacked)}
        assert described.keys() == journey.images.keys()
        for reference, image in journey.images.items():
            root = get(journey.upstream, image.repository, "manifests", image.root)
            entry = described[reference]
            assert (entry["digest"], entry["size"]) == (str(image.root), len(root.body))
            assert entry["mediaType"] == root.headers["Content-Type"]

    @needs_skopeo
    def test_skopeo_reads_oci_images_by_name(
        self, journey: Journey, unpacked: Path, tmp_path: Path
    ) -> None:
        ours = [entry for entry in descriptors(unpacked) if "vnd.oci" in entry["mediaType"]]
        assert len({entry["mediaType"] for entry in ours}) == 2
        for number, entry in enumerate(ours):
            image = journey.images[name_of(entry)]
            copy_with_skopeo(image, tmp_path / str(number), f"oci:{unpacked}:{name_of(entry)}")

    @needs_skopeo
    def test_skopeo_reads_docker_images_through_a_view(
        self, journey: Journey, unpacked: Path, tmp_path: Path
    ) -> None:
        docker = [entry for entry in descriptors(unpacked) if "vnd.docker" in entry["mediaType"]]
        assert len({entry["mediaType"] for entry in docker}) == 2
        for number, entry in enumerate(docker):
            view = tmp_path / f"view-{number}"
            view.mkdir()
            shutil.copy(unpacked / "oci-layout", view)
            (view / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
            image, copy = journey.images[name_of(entry)], tmp_path / f"copy-{number}"
            shared = f"--src-shared-blob-dir={unpacked}/blobs"
            copy_with_skopeo(image, copy, shared, f"oci:{view}")

    def test_is_sound(self, journey: Journey) -> None:
        assert airgap("verify", journey.archive).status == 0


class TestTheClusterFiles:
    @pytest.mark.parametrize(
        ("file", "kind", "entries"),
        [
            (
                "imageContentSourcePolicy.yaml",
                "ImageContentSourcePolicy",
                "repositoryDigestMirrors",
            ),
            ("imageDigestMirrorSet.yaml", "ImageDigestMirrorSet", "imageDigestMirrors"),
        ],
    )
    def test_mirror_what_oc_mirrors(
        self, journey: Journey, file: str, kind: str, entries: str
    ) -> None:
        documents = journey.documents(file)
        assert {document["kind"] for document in documents} == {kind}
        pairs = {
            (entry["source"], *entry["mirrors"])
            for document in documents
            for entry in document["spec"][entries]
        }
        recorded = GroundTruth(CATALOGS, DATABASE).mirrors
        here = journey.destination
        assert pairs == {
            (source, *(mirror.replace(OC_DESTINATION, here) for mirror in mirrors))
            for source, mirrors in recorded
        }

    def test_mirror_tags_where_images_are_known_by_tag(self, journey: Journey) -> None:
        (document,) = journey.documents("imageTagMirrorSet.yaml")
        mirrored = {entry["source"] for entry in document["spec"]["imageTagMirrors"]}
        tagged = [ImageReference.parse(text).with_defaults() for text in journey.images]
        assert mirrored == {str(one.repository) for one in tagged if one.digest is None}

    def test_announce_the_catalog_by_its_digest(self, journey: Journey) -> None:
        (document,) = journey.documents("catalogSource.yaml")
        target = journey.target(CATALOG)
        image = f"{target.repository}@{journey.lab.catalog_digest}"
        assert document["spec"]["image"] == image

    def test_the_receipt_names_every_image_and_all_its_content(self, journey: Journey) -> None:
        receipt = json.loads((journey.manifests / "receipt.json").read_text())
        assert receipt["missing"] == []
        arrived = {image["reference"]: image for image in receipt["images"]}
        assert arrived.keys() == journey.images.keys()
        for reference, image in journey.images.items():
            record = arrived[reference]
            assert record["digest"] == str(image.root)
            assert {*map(Digest.parse, record["manifests"])} == {*image.manifests}
            assert {*map(Digest.parse, record["blobs"])} == {*image.blobs}


def descriptors(layout: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((layout / "index.json").read_text())["manifests"]
    return found


def name_of(descriptor: dict[str, Any]) -> str:
    return str(descriptor["annotations"]["org.opencontainers.image.ref.name"])


def copy_with_skopeo(image: LabImage, to: Path, *source: object) -> None:
    """Copy an image with all its variants to a directory, and compare all of its content."""
    skopeo("copy", "--all", "--preserve-digests", *source, f"dir:{to}")
    files = [path for path in to.iterdir() if path.name != "version"]
    found = {digest_of(path.read_bytes()) for path in files}
    assert found == image.manifests.keys() | image.blobs.keys()
