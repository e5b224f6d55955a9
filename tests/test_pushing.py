"""What import and mirror have in common: how little is asked, and what the end tells."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import airgap
from airgap.archive.reader import ArchiveReader
from airgap.progress import Silent
from airgap.registry import retry
from airgap.registry.directory import DirectoryStore
from tests.support.command import airgap as command
from tests.support.docker_registry import DockerRegistry, needs_docker_registry
from tests.support.faults import FaultyRegistry, answer, reset
from tests.support.plans import archive_of, some_content

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airgap.plan import Plan
    from airgap.registry.http_server import Response
    from tests.support.faults import Exchange, Fault

JSON = {"Content-Type": "application/json"}
UPLOADS = ".*/blobs/uploads/"
PROBE = 3
"""Requests of a run beside its images: twice whether it is a registry, once about digests."""


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_FIRST_DELAY", 0.001)
    monkeypatch.setenv("REGISTRY_AUTH_FILE", "")


@pytest.fixture
def destination(tmp_path: Path) -> Iterator[FaultyRegistry]:
    with FaultyRegistry(DirectoryStore(tmp_path / "registry", durable=False)) as registry:
        yield registry


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "olm.tar"
    archive_of(path, some_content())
    return path


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """An archive of images that are worth a question before they are sent again."""
    path = tmp_path / "large.tar"
    archive_of(path, some_content(layer_size=1 << 20))
    return path


def bring(archive: Path, host: str, **how: Any) -> airgap.ImportResult:
    manifests = airgap.ManifestsOptions(archive.with_name("manifests"))
    access = airgap.Access(insecure=True)
    return airgap.import_archive(archive, host, access=access, manifests=manifests, **how)


def plan_of(archive: Path) -> Plan:
    with ArchiveReader(archive) as reader:
        return reader.plan


def unknown_name() -> Fault:
    return answer(404, JSON, b'{"errors":[{"code":"NAME_UNKNOWN","message":"no such name"}]}')


# Requests


def pushed(archive: Path, result: airgap.ImportResult) -> int:
    """Return the requests that an import to a fresh registry needs beside its questions."""
    plan = plan_of(archive)
    blobs = 2 * result.sent + result.mounted
    return PROBE + blobs + sum(2 * len(plan.manifests_of(image)) + 1 for image in plan.images)


def test_a_fresh_registry_is_asked_once_for_each_repository(
    archive: Path, destination: FaultyRegistry
) -> None:
    result = bring(archive, destination.host)
    repositories = len(plan_of(archive).images)
    # The first image's tag tells that the registry is new.
    assert len(destination.asked) == 1 + repositories + pushed(archive, result)
    assert destination.count("GET", ".*/tags/list") == repositories
    assert destination.count("HEAD") == 0


def test_of_large_images_one_blob_is_asked_for_besides(
    large: Path, destination: FaultyRegistry
) -> None:
    result = bring(large, destination.host)
    repositories = len(plan_of(large).images)
    assert len(destination.asked) == 1 + 2 * repositories + pushed(large, result)
    assert destination.count("HEAD", ".*/blobs/.*") == repositories


def test_a_further_image_costs_no_question_about_those_that_are_there(
    archive: Path, destination: FaultyRegistry, tmp_path: Path
) -> None:
    bring(archive, destination.host)
    DirectoryStore(tmp_path / "registry", durable=False).delete_tag("lab/image-2", "v1")
    destination.asked.clear()
    assert bring(archive, destination.host).images_present == len(plan_of(archive).images) - 1
    assert destination.count("GET", ".*/tags/list") == 1


def test_an_image_that_is_there_costs_one_request(
    archive: Path, destination: FaultyRegistry
) -> None:
    bring(archive, destination.host)
    before = len(destination.asked)
    result = bring(archive, destination.host)
    images = len(plan_of(archive).images)
    assert (result.exit_status, result.arrived, result.images_present) == (0, images, images)
    asked = [a for a in destination.asked[before:] if a.path != "/v2/"]
    assert [a.method for a in asked] == ["GET"] * images
    assert (result.sent, result.present, result.manifests_sent) == (0, 0, 0)


def test_an_image_whose_tag_gives_other_bytes_is_not_there(
    archive: Path, destination: FaultyRegistry
) -> None:
    bring(archive, destination.host)
    claims = {"Docker-Content-Digest": str(plan_of(archive).manifests[0].digest)}
    destination.fault("GET", ".*/both/manifests/v1", answer(200, claims, b"damaged"))
    (failed,) = bring(archive, destination.host).failed
    assert "to be set to" in failed.detail


def test_what_was_lost_below_an_image_is_found_when_asked(
    archive: Path, destination: FaultyRegistry, tmp_path: Path
) -> None:
    bring(archive, destination.host)
    plan = plan_of(archive)
    image = next(i for i in plan.images if "both" in i.reference)
    child = plan.manifests[plan.manifests_of(image)[0]].digest
    store = DirectoryStore(tmp_path / "registry", durable=False)
    store.delete_manifest("lab/both", child)
    assert bring(archive, destination.host).manifests_sent == 0
    again = bring(archive, destination.host, recheck=True)
    assert (again.manifests_sent, again.images_present) == (1, 0)
    assert again.present == sum(len(plan.blobs_of(i)) for i in plan.images)
    assert store.manifest("lab/both", child) is not None


def test_what_an_interrupted_import_has_left_is_not_sent_again(
    large: Path, destination: FaultyRegistry
) -> None:
    destination.fault("PUT", ".*/manifests/.*", answer(400))
    first = bring(large, destination.host)
    destination.heal()
    again = bring(large, destination.host)
    assert (again.exit_status, again.sent) == (0, 0)
    assert again.present == first.sent + first.mounted


@needs_docker_registry
def test_a_repository_without_manifests_is_not_taken_for_an_empty_one(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REGISTRY_AUTH_FILE")
    registry = DockerRegistry(tmp_path / "real")
    registry.start()
    stop = threading.Event()

    class Stopping(Silent):
        def image(self) -> None:
            if self.pushing:
                stop.set()

        pushing = False

        def stage(self, name: str, *, total_bytes: int = 0, total_images: int = 0) -> None:
            self.pushing = name == "pushing"

    try:
        with pytest.raises(airgap.Interrupted):
            bring(archive, registry.host, progress=Stopping(), stop=stop)
        again = bring(archive, registry.host)
        assert again.exit_status == 0
        # More was there than the one image that was whole.
        places = sum(len(plan_of(archive).blobs_of(i)) for i in plan_of(archive).images)
        assert again.sent + again.mounted + again.present < places
    finally:
        registry.kill()


def test_blobs_of_an_image_that_is_there_are_mounted(
    archive: Path, destination: FaultyRegistry, tmp_path: Path
) -> None:
    destination.fault(".*", ".*/image-1/.*", answer(403))
    bring(archive, destination.host)
    destination.heal()
    result = bring(archive, destination.host)
    assert (result.exit_status, result.mounted) == (0, 1)


@pytest.mark.parametrize("path", ["blobs/sha256:.*", "tags/list"])
def test_what_a_registry_does_not_tell_of_a_repository_costs_its_image_at_most(
    large: Path, destination: FaultyRegistry, path: str
) -> None:
    destination.fault("GET|HEAD", f".*/image-1/{path}", answer(403))
    failed = [one.reference for one in bring(large, destination.host).failed]
    assert failed == (["quay.io/lab/image-1:v1"] if path.startswith("blobs") else [])


# Repositories that must be created: W23


def test_all_repositories_that_must_be_created_are_told(
    archive: Path, destination: FaultyRegistry
) -> None:
    destination.fault("POST", r".*/lab/image-[01]/blobs/uploads/", unknown_name())
    result = bring(archive, destination.host)
    expected = tuple(f"{destination.host}/lab/image-{n}" for n in (0, 1))
    assert result.to_create == expected
    assert result.exit_status == 5
    assert {one.reference for one in result.failed} == {f"quay.io/lab/image-{n}:v1" for n in (0, 1)}
    assert result.broken == tuple(sorted({p for one in result.failed for p in one.packages}))
    into = ("--insecure", "--to-manifests", archive.with_name("manifests"))
    ran = command("import", archive, destination.host, *into)
    assert ran.status == 5
    listed = ran.out[ran.out.index("CREATE these repositories") :]
    assert [line.strip() for line in listed.splitlines()[1:3]] == list(expected)
    assert "BROKEN operators" in ran.out


def test_a_run_that_shall_not_go_on_tells_all_of_them_too(
    archive: Path, destination: FaultyRegistry
) -> None:
    destination.fault("POST", r".*/lab/(image-.|both)/blobs/uploads/", unknown_name())
    with pytest.raises(airgap.NotFound) as caught:
        bring(archive, destination.host, continue_on_error=False)
    for name in ("image-0", "image-1", "image-2", "both"):
        assert f"{destination.host}/lab/{name}" in caught.value.message
    assert "lab/catalog" not in caught.value.message
    assert "create it" in (caught.value.hint or "")
    assert destination.count("PUT", ".*/manifests/v1") == 0


# Registries that take nothing: W22


@pytest.mark.parametrize("status", [405, 507])
def test_a_registry_that_takes_nothing_ends_the_import_soon(
    tmp_path: Path, destination: FaultyRegistry, status: int
) -> None:
    archive = tmp_path / "many.tar"
    archive_of(archive, some_content(images=60))
    destination.fault("POST|PUT|PATCH", ".*", answer(status))
    with pytest.raises(airgap.RegistryError, match=f"answers {status}") as caught:
        bring(archive, destination.host)
    assert caught.value.hint
    assert destination.count("POST") <= 20 + 3 * airgap.Access().connections


# The end


def test_what_was_done_with_each_host_is_told(archive: Path, destination: FaultyRegistry) -> None:
    destination.fault("PUT", ".*/blobs/uploads/.*", answer(503, {"Retry-After": "1"}), hits=(1,))
    destination.fault("POST", UPLOADS, reset(), hits=(3,))
    into = ("--insecure", "--to-manifests", archive.with_name("manifests"))
    ran = command("import", archive, destination.host, *into, "--output", "json")
    assert ran.status == 0
    (host,) = ran.json["hosts"]
    assert host["host"] == destination.host
    assert host["retries"] == {"answer 503": 1, "no connection": 1}
    assert host["waited"] >= 1
    for name in ("sent", "sent_bytes", "mounted", "present", "manifests_sent"):
        assert host[name] == ran.json[name]
    assert host["requests"] >= len([a for a in destination.asked if a.path != "/v2/"])
    assert (ran.json["broken"], ran.json["to_create"]) == ([], [])


def test_people_are_told_what_was_tried_again_and_why(
    archive: Path, destination: FaultyRegistry
) -> None:
    destination.fault("PUT", ".*/blobs/uploads/.*", answer(502), hits=(1, 2))
    into = ("--insecure", "--to-manifests", archive.with_name("manifests"))
    ran = command("import", archive, destination.host, *into)
    (line,) = [line for line in ran.out.splitlines() if line.startswith("again ")]
    assert f"{destination.host}: answer 502 (2); waited" in line
    destination.heal()
    again = command("import", archive, destination.host, *into)
    assert not [line for line in again.out.splitlines() if line.startswith("again ")]
    assert "images were there" in again.out


# A registry that is killed, and one that collects garbage


def _import_meanwhile(archive: Path, host: str) -> Any:
    """Import in a thread; gives the thread and what comes of it."""
    outcome: dict[str, Any] = {}

    def run() -> None:
        try:
            outcome["result"] = bring(archive, host)
        except airgap.AirgapError as error:
            outcome["error"] = error

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


@needs_docker_registry
@pytest.mark.parametrize("seconds", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_a_registry_that_is_killed_and_started_again_is_filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    monkeypatch.delenv("REGISTRY_AUTH_FILE")
    monkeypatch.setattr(retry, "_FIRST_DELAY", 1.0)
    archive = tmp_path / "olm.tar"
    archive_of(archive, some_content(images=12, layer_size=4 << 20))
    registry = DockerRegistry(tmp_path / "real")
    registry.start()
    try:
        thread, outcome = _import_meanwhile(archive, registry.host)
        manifests = tmp_path / "real" / "docker" / "registry" / "v2" / "repositories"
        while not list(manifests.glob("*/*/_manifests/tags/v1")) and thread.is_alive():
            time.sleep(0.01)
        registry.kill()
        assert thread.is_alive(), "the import was over before the registry was killed"
        time.sleep(seconds)
        registry.start()
        thread.join(120)
        assert outcome["result"].exit_status == 0
        (host,) = outcome["result"].hosts
        assert host.retries
        again = bring(archive, registry.host, recheck=True)
        assert (again.exit_status, again.sent, again.manifests_sent) == (0, 0, 0)
    finally:
        registry.kill()


def test_garbage_that_is_collected_before_the_manifest_is_sent_again(
    archive: Path, destination: FaultyRegistry, tmp_path: Path
) -> None:
    plan = plan_of(archive)
    image = next(i for i in plan.images if "image-1" in i.reference)
    own = plan.blobs[plan.blobs_of(image)[-1]].digest

    def collecting(exchange: Exchange) -> Response:
        for path in (tmp_path / "registry").rglob(own.hex):
            path.unlink()
        return exchange.honest()

    destination.fault("PUT", ".*/image-1/manifests/sha256:.*", collecting, hits=(1,))
    result = bring(archive, destination.host)
    assert (result.exit_status, result.failed) == (0, ())
    (host,) = result.hosts
    assert host.retries == {"what was there has gone": 1}
    receipt = json.loads((result.manifests / "receipt.json").read_text())
    assert len(receipt["images"]) == len(plan.images)
