"""Mirror between two real registries: every digest unchanged, as export and import leave it."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from airgap.digest import digest_of
from airgap.oci import media_types
from airgap.reference import ImageReference
from tests.support.command import airgap
from tests.support.docker_registry import docker_registry, needs_docker_registry
from tests.support.http_client import ask
from tests.support.lab import CATALOG, CATALOGS, Lab, LabImage, Recipe, build_lab
from tests.support.promise import MappingFile
from tests.support.upstream import RegistryUpstream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.command import Ran

pytestmark = needs_docker_registry

DATABASE = "opreg-indexer-2020"
RECIPE = Recipe(multi_arch=0.4)
ACCEPT = ",".join(media_types.ACCEPTED)


@dataclass(frozen=True)
class Journey:
    """One catalog's way from one docker-registry straight to another."""

    folder: Path
    lab: Lab
    destination: str
    mirrored: Ran

    def mirror(self, manifests: str) -> Ran:
        return mirror(self.folder, self.destination, manifests)

    @property
    def images(self) -> dict[str, LabImage]:
        """What the lab made, by the names that ``mapping.txt`` has for it."""
        named = {image.reference: image for image in self.lab.images.values()}
        named[CATALOG] = self.lab.catalog_image
        return {
            ImageReference.parse(reference).with_defaults().exact: image
            for reference, image in named.items()
        }

    @property
    def targets(self) -> dict[str, ImageReference]:
        lines = MappingFile.read(self.folder / "mirrored" / "mapping.txt").targets
        return {source: ImageReference.parse(target) for source, target in lines.items()}


def mirror(folder: Path, destination: str, manifests: str) -> Ran:
    flags = ("--insecure", "--registries-conf", folder / "registries.conf", "--output", "json")
    return airgap("mirror", CATALOG, destination, *flags, "--to-manifests", folder / manifests)


def files_in(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journey]:
    folder = tmp_path_factory.mktemp("journey")
    with ExitStack() as stack:
        upstream = stack.enter_context(docker_registry(folder / "upstream"))
        destination = stack.enter_context(docker_registry(folder / "destination"))
        with RegistryUpstream(upstream) as registry:
            lab = build_lab(CATALOGS / f"{DATABASE}.db", registry, recipe=RECIPE)
        (folder / "registries.conf").write_text(lab.registries_conf(upstream))
        yield Journey(folder, lab, destination, mirror(folder, destination, "mirrored"))


def test_it_ends_well(journey: Journey) -> None:
    assert journey.mirrored.status == 0
    assert journey.mirrored.json["arrived"] == len(journey.images)


def test_every_image_is_in_the_mapping(journey: Journey) -> None:
    assert journey.targets.keys() == journey.images.keys()


def test_every_manifest_arrives_byte_for_byte_in_its_repository(journey: Journey) -> None:
    for source, target in journey.targets.items():
        image = journey.images[source]
        for name in (target.tag, *image.manifests):
            path = f"/v2/{target.path}/manifests/{name}"
            came = ask(journey.destination, "GET", path, headers={"Accept": ACCEPT})
            expected = image.root if name == target.tag else name
            assert (came.status, digest_of(came.body)) == (200, expected)


def test_every_blob_arrives_byte_for_byte_in_every_repository(journey: Journey) -> None:
    for source, target in journey.targets.items():
        for digest, size in journey.images[source].blobs.items():
            came = ask(journey.destination, "GET", f"/v2/{target.path}/blobs/{digest}")
            assert (came.status, digest_of(came.body), len(came.body)) == (200, digest, size)


def test_every_blob_is_sent_once_and_mounted_elsewhere(journey: Journey) -> None:
    images = journey.images.values()
    told = journey.mirrored.json
    assert told["sent"] == len({digest for image in images for digest in image.blobs})
    places = {(t.path, d) for s, t in journey.targets.items() for d in journey.images[s].blobs}
    assert told["sent"] + told["mounted"] + told["present"] == len(places)


def test_a_second_run_sends_nothing_and_writes_the_same_files(journey: Journey) -> None:
    again = journey.mirror("again")
    assert again.status == 0
    assert [again.json[key] for key in ("sent", "mounted", "manifests_sent")] == [0, 0, 0]
    assert files_in(journey.folder / "again") == files_in(journey.folder / "mirrored")


def test_export_and_import_find_everything_there_and_write_the_same_files(
    journey: Journey,
) -> None:
    archive, manifests = journey.folder / "olm.tar", journey.folder / "imported"
    conf = journey.folder / "registries.conf"
    assert airgap("export", CATALOG, "-o", archive, "--registries-conf", conf).status == 0
    flags = ("--insecure", "--to-manifests", manifests, "--output", "json")
    imported = airgap("import", archive, journey.destination, *flags)
    assert [imported.json[key] for key in ("sent", "mounted", "manifests_sent")] == [0, 0, 0]
    files = files_in(manifests)
    assert files == files_in(journey.folder / "mirrored")
    assert {*files} == {
        "mapping.txt",
        "imageContentSourcePolicy.yaml",
        "imageDigestMirrorSet.yaml",
        "imageTagMirrorSet.yaml",
        "catalogSource.yaml",
        "receipt.json",
    }
    assert json.loads(files["receipt.json"])["archive"] == imported.json["id"]
