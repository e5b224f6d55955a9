"""Registries that take no manifest by its digest: told early, and filled by tags."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

import airgap
from airgap.digest import Digest, digest_of
from airgap.oci import media_types
from airgap.progress import Silent
from airgap.reference import ImageReference
from airgap.registry import retry
from airgap.registry.directory import DirectoryStore
from tests.support.command import airgap as command
from tests.support.docker_registry import docker_registry, needs_docker_registry
from tests.support.faults import FaultyRegistry, answer, missing, with_headers
from tests.support.http_client import ask
from tests.support.plans import Content, archive_of, some_content
from tests.support.site import Site, Supply, open_site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airgap.registry.http_server import Response
    from tests.support.faults import Exchange, Fault

ACCEPT = ",".join(media_types.ACCEPTED)
BY_DIGEST = ".*/manifests/sha256:.*"
NO_MANIFEST = f".*/manifests/{digest_of(b'{}')}"
UPLOADS = ".*/blobs/uploads/.*"
OWN_TAG = "airgap-"


def refusing(status: int, code: str = "") -> Fault:
    """Refuse with an error of the specification, or with a status alone."""
    body = json.dumps({"errors": [{"code": code}]}).encode() if code else b""
    return answer(status, {"Content-Type": "application/json"}, body)


def as_openshift() -> Fault:
    """Look at a manifest, and fail for want of a tag only if it is one."""

    def fault(exchange: Exchange) -> Response:
        if exchange.request.path.endswith(str(digest_of(b"{}"))):
            return exchange.honest()
        return refusing(500, "UNKNOWN")(exchange)

    return fault


BY_RULE = {
    "unsupported": refusing(400, "UNSUPPORTED"),
    "not-allowed": refusing(405),
    "no-such-tag": refusing(400, "TAG_INVALID"),
}
"""Registries that say it of anything, without a look at it."""

ON_SIGHT = {"invalid": refusing(400, "MANIFEST_INVALID"), "openshift": as_openshift()}
"""Registries that say it in words which they have for other faults too."""

FLAVOURS = [pytest.param(fault, id=name) for name, fault in (BY_RULE | ON_SIGHT).items()]


@dataclass
class Listener(Silent):
    """Keeps what is said, and how many requests the registry had seen then."""

    registry: FaultyRegistry | None = None
    said: list[str] = field(default_factory=list)
    after: int = 0

    def say(self, message: str) -> None:
        self.said.append(message)
        self.after = len(self.registry.asked) if self.registry else 0


@dataclass
class Import:
    """An archive, and a registry that it goes to; one of the images has two platforms."""

    folder: Path
    registry: FaultyRegistry
    content: Content

    def __post_init__(self) -> None:
        self.archive = self.folder / "olm.tar"
        self.plan = self.content.plan()
        archive_of(self.archive, self.content)
        self.listener = Listener(self.registry)

    def run(self) -> airgap.ImportResult:
        return import_to(self.registry.host, self.archive, self.listener)

    def wrong(self) -> list[str]:
        """Every manifest that cannot be had by its digest, byte for byte, where it belongs."""
        return wrong_at(self.registry.host, self.folder, self.content)

    def tags(self) -> dict[str, set[str]]:
        return tags_at(self.registry.host, self.folder)

    def uploads_before_it_was_said(self) -> set[str]:
        """The repositories to which anything had been sent."""
        asked = self.registry.asked[: self.listener.after]
        return {a.path.partition("/blobs/")[0] for a in asked if a.method == "POST"}


def import_to(host: str, archive: Path, listener: Listener) -> airgap.ImportResult:
    return airgap.import_archive(
        archive,
        host,
        access=airgap.Access(insecure=True),
        manifests=airgap.ManifestsOptions(archive.with_name("manifests")),
        progress=listener,
    )


def receipt(folder: Path) -> list[dict[str, Any]]:
    document = json.loads((folder / "manifests" / "receipt.json").read_text())
    images: list[dict[str, Any]] = document["images"]
    return images


def path_of(record: dict[str, Any]) -> str:
    return f"/v2/{ImageReference.parse(record['repository']).path}"


def wrong_at(host: str, folder: Path, content: Content) -> list[str]:
    wrong = []
    for record in receipt(folder):
        names = {digest: digest for digest in record["manifests"]} | {
            record["tag"]: record["digest"]
        }
        for name, digest in names.items():
            path = f"{path_of(record)}/manifests/{name}"
            came = ask(host, "GET", path, headers={"Accept": ACCEPT})
            if (came.status, came.body) != (200, content.by_digest[Digest.parse(digest)]):
                wrong.append(f"{path}: {came.status}")
    return wrong


def tags_at(host: str, folder: Path) -> dict[str, set[str]]:
    """The tags of each repository, by the name of the image that is in it."""
    return {
        record["reference"]: {*ask(host, "GET", f"{path_of(record)}/tags/list").json["tags"]}
        for record in receipt(folder)
    }


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_FIRST_DELAY", 0.001)
    monkeypatch.setenv("REGISTRY_AUTH_FILE", "")


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Import]:
    with FaultyRegistry(DirectoryStore(tmp_path / "registry", durable=False)) as registry:
        yield Import(tmp_path, registry, some_content())


@pytest.mark.parametrize("refuses", FLAVOURS)
def test_all_images_arrive_by_tags(job: Import, refuses: Fault) -> None:
    job.registry.fault("PUT", BY_DIGEST, refuses)
    result = job.run()
    assert (result.exit_status, result.failed) == (0, ())
    assert result.arrived == len(job.plan.images)
    assert result.manifests_sent == len(job.plan.manifests)
    assert job.wrong() == []


@pytest.mark.parametrize("refuses", FLAVOURS)
def test_it_is_said_once_with_the_name_of_the_host(job: Import, refuses: Fault) -> None:
    job.registry.fault("PUT", BY_DIGEST, refuses)
    job.run()
    (said,) = job.listener.said
    assert f"{job.registry.host} refuses manifests by digest" in said
    assert "tags are used instead" in said


@pytest.mark.parametrize("refuses", BY_RULE.values(), ids=BY_RULE)
def test_a_rule_is_found_before_anything_is_sent(job: Import, refuses: Fault) -> None:
    job.registry.fault("PUT", BY_DIGEST, refuses)
    job.run()
    assert job.uploads_before_it_was_said() == set()


@pytest.mark.parametrize("refuses", ON_SIGHT.values(), ids=ON_SIGHT)
def test_what_shows_on_sight_alone_is_found_with_the_smallest_image(
    job: Import, refuses: Fault
) -> None:
    job.registry.fault("PUT", BY_DIGEST, refuses)
    job.run()
    sizes = {
        image.reference: sum(job.plan.blobs[n].size for n in job.plan.blobs_of(image))
        for number, image in enumerate(job.plan.images)
        if number not in job.plan.catalog_images
    }
    smallest = min(sizes, key=lambda reference: sizes[reference])
    (place,) = {path_of(one) for one in receipt(job.folder) if one["reference"] == smallest}
    assert job.uploads_before_it_was_said() == {place}


def test_only_what_has_no_tag_gets_one_of_its_own(job: Import) -> None:
    job.registry.fault("PUT", BY_DIGEST, refusing(405))
    job.run()
    for image in job.plan.images:
        *children, _ = job.plan.manifests_of(image)
        digests = [job.plan.manifests[number].digest for number in children]
        own = {OWN_TAG + digest.hex[:24] for digest in digests}
        assert job.tags()[image.reference] == {"v1", *own}


@pytest.mark.parametrize("refuses", FLAVOURS)
def test_a_second_import_sends_nothing(job: Import, refuses: Fault) -> None:
    job.registry.fault("PUT", BY_DIGEST, refuses)
    job.run()
    before = len(job.registry.asked)
    again = job.run()
    assert (again.exit_status, again.arrived) == (0, len(job.plan.images))
    assert {asked.method for asked in job.registry.asked[before:]} == {"GET"}
    assert len(job.listener.said) == 1


def test_an_import_that_was_cut_short_is_completed(job: Import) -> None:
    job.registry.fault("PUT", BY_DIGEST, refusing(405))
    job.registry.fault("PUT", ".*/lab/both/manifests/v1", refusing(400))
    (failed,) = job.run().failed
    assert failed.reference == "quay.io/lab/both:v1"
    job.registry.heal()
    job.registry.fault("PUT", BY_DIGEST, refusing(405))
    assert job.run().exit_status == 0
    assert job.wrong() == []


@pytest.mark.parametrize("refuses", FLAVOURS)
def test_where_tags_are_refused_too_the_images_fail_by_name(job: Import, refuses: Fault) -> None:
    job.registry.fault("PUT", BY_DIGEST, refuses)
    job.registry.fault("PUT", ".*/manifests/.*", refusing(400, "DENIED"))
    result = job.run()
    assert (result.arrived, result.exit_status) == (0, 5)
    assert {one.reference for one in result.failed} == {i.reference for i in job.plan.images}


def test_a_registry_that_takes_neither_is_not_said_to_want_tags(job: Import) -> None:
    job.registry.fault("PUT", ".*/manifests/.*", refusing(400, "MANIFEST_INVALID"))
    result = job.run()
    assert (result.arrived, result.exit_status, job.listener.said) == (0, 5, [])
    assert all("@sha256:" in one.detail for one in result.failed)


def test_an_image_that_is_not_found_by_its_digest_has_failed(job: Import) -> None:
    job.registry.fault("PUT", BY_DIGEST, refusing(405))
    job.registry.fault("GET", ".*/image-1/manifests/sha256:.*", missing())
    (failed,) = job.run().failed
    assert failed.reference == "quay.io/lab/image-1:v1"
    assert "not there unchanged" in failed.detail


def test_a_registry_that_takes_digests_is_asked_one_thing_more(job: Import) -> None:
    job.run()
    put = [a.path for a in job.registry.asked if a.method == "PUT" and "/manifests/" in a.path]
    assert job.registry.count("PUT", NO_MANIFEST) == 1
    assert len(put) == len(job.plan.manifests) + len(job.plan.images) + 1
    assert job.listener.said == []


def test_what_is_asked_leaves_nothing_behind(job: Import) -> None:
    job.run()
    for record in receipt(job.folder):
        path = f"{path_of(record)}/manifests/{digest_of(b'{}')}"
        assert ask(job.registry.host, "GET", path).status == 404


def test_a_question_without_an_answer_costs_nothing(job: Import) -> None:
    job.registry.fault("PUT", NO_MANIFEST, refusing(503))
    assert job.run().exit_status == 0
    assert job.registry.count("PUT", NO_MANIFEST) == 1
    assert job.listener.said == []


def test_an_image_refused_by_a_registry_that_takes_digests_is_not_tried_by_tag(
    job: Import,
) -> None:
    job.registry.fault("PUT", ".*/lab/both/manifests/.*", refusing(400, "MANIFEST_INVALID"))
    (failed,) = job.run().failed
    assert failed.reference == "quay.io/lab/both:v1"
    assert job.registry.count("PUT", ".*/lab/both/manifests/.*") == 1


@needs_docker_registry
def test_a_registry_that_takes_digests_gets_no_tags_of_our_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REGISTRY_AUTH_FILE")  # docker-registry takes it for a setting of its own.
    content, listener = some_content(), Listener()
    archive_of(tmp_path / "olm.tar", content)
    with docker_registry(tmp_path / "registry") as host:
        assert import_to(host, tmp_path / "olm.tar", listener).exit_status == 0
        assert set().union(*tags_at(host, tmp_path).values()) == {"v1"}
    assert listener.said == []


@pytest.fixture(scope="module")
def supply(tmp_path_factory: pytest.TempPathFactory) -> Supply:
    return Supply.make(tmp_path_factory.mktemp("supply"))


@pytest.fixture
def site(tmp_path: Path, supply: Supply) -> Iterator[Site]:
    with open_site(tmp_path, supply) as site:
        yield site


@pytest.mark.parametrize("refuses", FLAVOURS)
def test_mirror_brings_all_images_by_tags(site: Site, refuses: Fault) -> None:
    site.destination.fault("PUT", BY_DIGEST, refuses)
    ran = site.mirror("--output", "json")
    assert (ran.status, ran.json["failed"]) == (0, [])
    assert ran.err.count("refuses manifests by digest") == 1
    arrived = DirectoryStore(site.folder / "destination", durable=False)
    made = {image.reference: image for image in site.supply.lab.images.values()}
    for record in receipt(site.folder):
        image = made.get(record["reference"], site.supply.lab.catalog_image)
        for digest in image.manifests:
            assert arrived.manifest(path_of(record).removeprefix("/v2/"), digest) is not None
    before = len(site.destination.asked)
    assert site.mirror().status == 0
    assert {asked.method for asked in site.destination.asked[before:]} == {"GET"}


def test_a_damaged_manifest_at_a_place_without_a_tag_is_put_again(
    site: Site, tmp_path: Path
) -> None:
    site.destination.fault("HEAD", BY_DIGEST, with_headers({"Docker-Content-Digest": None}))
    image = next(i for i in site.supply.lab.images.values() if "@" in i.reference)
    listed = tmp_path / "mapping.txt"
    listed.write_text(f"{image.reference}={site.destination.host}/mine/copy\n")
    flags = ("--insecure", "--registries-conf", site.registries_conf)
    assert command("mirror", "-f", listed, *flags).status == 0
    # Once for the question what is there, and once more to be sure.
    root = f".*/manifests/{image.root}"
    site.destination.fault("GET", root, answer(200, {}, b"damaged"), hits=(1, 2))
    puts = site.destination.count("PUT", root)
    assert command("mirror", "-f", listed, *flags).status == 0
    assert site.destination.count("PUT", root) == puts + 1


def test_an_image_copied_to_a_place_without_a_tag_gets_one(site: Site, tmp_path: Path) -> None:
    site.destination.fault("PUT", BY_DIGEST, refusing(405))
    image = next(i for i in site.supply.lab.images.values() if "@" in i.reference)
    listed = tmp_path / "mapping.txt"
    listed.write_text(f"{image.reference}={site.destination.host}/mine/copy\n")
    flags = ("--insecure", "--registries-conf", site.registries_conf)
    assert command("mirror", "-f", listed, *flags).status == 0
    assert f"mine/copy:{OWN_TAG}{image.root.hex[:24]}" in site.tags_at_destination()
