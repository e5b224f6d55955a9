from __future__ import annotations

import json
import os
import re
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

import airgap
from airgap import limits
from airgap.archive.reader import ArchiveReader
from airgap.archive.state import State
from airgap.importer import plan_import
from airgap.mapping import mapping_text
from airgap.places import place_images
from airgap.plan import Reason
from airgap.progress import Silent
from airgap.reference import DestinationPrefix
from airgap.registry import retry
from airgap.registry.directory import DirectoryStore
from tests.support.faults import Exchange, FaultyRegistry, answer, missing, reset, with_headers
from tests.support.plans import Content, archive_of, begin, fill, some_content

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airgap.digest import Digest
    from airgap.registry.http_server import Response
    from tests.support.faults import Fault

CATALOG = "quay.io/lab/catalog:v1"


@pytest.fixture
def destination(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyRegistry]:
    monkeypatch.setattr(retry, "_FIRST_DELAY", 0.001)
    monkeypatch.setenv("REGISTRY_AUTH_FILE", "")
    with FaultyRegistry(DirectoryStore(tmp_path / "registry", durable=False)) as registry:
        yield registry


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "olm.tar"
    archive_of(path, some_content())
    return path


def _import(
    archive: Path,
    destination: FaultyRegistry,
    *,
    progress: Silent | None = None,
    stop: threading.Event | None = None,
    continue_on_error: bool = True,
) -> airgap.ImportResult:
    return airgap.import_archive(
        archive,
        destination.host,
        access=airgap.Access(insecure=True),
        manifests=airgap.ManifestsOptions(archive.with_name("manifests")),
        continue_on_error=continue_on_error,
        progress=progress or Silent(),
        stop=stop,
    )


def _put_manifests(registry: FaultyRegistry) -> list[str]:
    return [a.path for a in registry.asked if a.method == "PUT" and "/manifests/" in a.path]


def test_everything_arrives_and_is_counted(archive: Path, destination: FaultyRegistry) -> None:
    result = _import(archive, destination)
    with ArchiveReader(archive) as reader:
        plan = reader.plan
        assert result.id == reader.id
    assert (result.exit_status, result.missing, result.failed, result.errors) == (0, (), (), ())
    assert (result.archive, result.destination) == (archive, destination.host)
    assert result.arrived == len(plan.images)
    assert (result.sent, result.present) == (len(plan.blobs), 0)
    assert result.sent_bytes == sum(blob.size for blob in plan.blobs)
    places = sum(len(plan.blobs_of(image)) for image in plan.images)
    assert result.sent + result.mounted == places
    assert result.manifests_sent == len(plan.manifests)


def test_a_second_import_finds_everything(archive: Path, destination: FaultyRegistry) -> None:
    first = _import(archive, destination)
    again = _import(archive, destination)
    assert (again.sent, again.mounted, again.manifests_sent) == (0, 0, 0)
    assert again.images_present == again.arrived == first.arrived
    assert first.images_present == 0


def test_catalogs_go_last(archive: Path, destination: FaultyRegistry) -> None:
    _import(archive, destination)
    pushed = ["lab/catalog/" in path for path in _put_manifests(destination)]
    assert pushed == sorted(pushed)
    assert pushed[-1]


def test_children_come_before_their_index_and_the_tag_comes_last(
    archive: Path, destination: FaultyRegistry
) -> None:
    _import(archive, destination)
    with ArchiveReader(archive) as reader:
        plan = reader.plan
    image = next(i for i in plan.images if "both" in i.reference)
    expected = [str(plan.manifests[n].digest) for n in plan.manifests_of(image)] + ["v1"]
    pushed = [path.rpartition("/")[2] for path in _put_manifests(destination) if "both" in path]
    assert pushed == expected


def test_an_image_that_is_refused_costs_itself(archive: Path, destination: FaultyRegistry) -> None:
    destination.fault("PUT", r".*/lab/image-1/manifests/.*", answer(400))
    result = _import(archive, destination)
    (failed,) = result.failed
    (error,) = result.errors
    assert (failed.reference, failed.reason) == ("quay.io/lab/image-1:v1", "failed")
    assert failed.bundles and failed.packages
    assert failed.detail == error.message
    assert result.exit_status == error.exit_status == 5
    with pytest.raises(airgap.RegistryError):
        _import(archive, destination, continue_on_error=False)


def test_a_repository_that_fails_for_ever_costs_its_image(
    archive: Path, destination: FaultyRegistry
) -> None:
    destination.fault("POST|PUT", r".*/lab/image-1/.*", answer(500))
    result = _import(archive, destination)
    (failed,) = result.failed
    assert failed.reference == "quay.io/lab/image-1:v1"
    assert "answers 500" in failed.detail
    with ArchiveReader(archive) as reader:
        assert result.arrived == len(reader.plan.images) - 1
    assert result.exit_status == 5
    receipt = json.loads((result.manifests / "receipt.json").read_text())
    assert "quay.io/lab/image-1:v1" not in {image["reference"] for image in receipt["images"]}


def _spoil_upload(registry: FaultyRegistry, digest: Digest, fault: Fault) -> None:
    """Let the upload of one blob meet a fault at its end."""

    def only(exchange: Exchange) -> Response:
        ends = exchange.request.query.get("digest") == str(digest)
        return (fault if ends else Exchange.honest)(exchange)

    registry.fault("PUT", ".*/blobs/uploads/.*", only)


@pytest.mark.parametrize(
    "fault", [reset(), *map(answer, (429, 502, 503, 504))], ids=["cut", "429", "502", "503", "504"]
)
def test_a_blob_that_is_never_taken_costs_its_image(
    archive: Path, destination: FaultyRegistry, fault: Fault
) -> None:
    with ArchiveReader(archive) as reader:
        plan = reader.plan
    image = next(i for i in plan.images if i.reference == "quay.io/lab/image-1:v1")
    others = {n for i in plan.images if i != image for n in plan.blobs_of(i)}
    (own, *_) = (n for n in plan.blobs_of(image) if n not in others)
    _spoil_upload(destination, plan.blobs[own].digest, fault)
    result = _import(archive, destination)
    assert [one.reference for one in result.failed] == [image.reference]
    assert (result.arrived, result.exit_status) == (len(plan.images) - 1, 5)
    assert "catalogSource.yaml" in result.files


def test_a_registry_that_takes_nothing_for_ever_ends_the_import(
    tmp_path: Path, destination: FaultyRegistry
) -> None:
    archive = tmp_path / "many.tar"
    archive_of(archive, some_content(images=60))
    destination.fault("POST", ".*/blobs/uploads/", answer(503))
    with pytest.raises(airgap.Unreachable, match=r"answers 503.*given up after"):
        _import(archive, destination)
    assert destination.count("POST") <= 6 * (20 + 2 * airgap.Access().connections)
    assert not archive.with_name("manifests").exists()


def test_what_an_earlier_import_wrote_stays_when_nothing_arrives(
    archive: Path, destination: FaultyRegistry
) -> None:
    first = _import(archive, destination)
    before = {path: path.read_bytes() for path in first.manifests.iterdir()}
    destination.fault("GET", ".*/manifests/v1", answer(403))
    again = _import(archive, destination)
    assert (again.arrived, again.files, again.exit_status) == (0, (), 5)
    assert again.manifests == first.manifests
    assert {path: path.read_bytes() for path in first.manifests.iterdir()} == before


def test_a_tag_that_is_something_else_ends_an_import_that_shall_not_go_on(
    archive: Path, destination: FaultyRegistry
) -> None:
    _import(archive, destination)
    other = some_content(seed=2)
    archive_of(archive.with_name("other.tar"), other)
    pushed = len(_put_manifests(destination))
    with pytest.raises(airgap.RegistryError, match="to be set to"):
        _import(archive.with_name("other.tar"), destination, continue_on_error=False)
    assert len(_put_manifests(destination)) == pushed


@pytest.mark.parametrize("status", [403, 405, 500])
def test_what_a_registry_will_not_mount_is_sent(
    archive: Path, destination: FaultyRegistry, status: int
) -> None:
    def refuse(exchange: Exchange) -> Response:
        mounts = "mount" in exchange.request.query
        return answer(status)(exchange) if mounts else exchange.honest()

    destination.fault("POST", ".*/blobs/uploads/", refuse)
    result = _import(archive, destination)
    assert (result.exit_status, result.failed, result.mounted) == (0, (), 0)
    with ArchiveReader(archive) as reader:
        plan = reader.plan
    assert result.sent == sum(len(plan.blobs_of(image)) for image in plan.images)


def _forgetting_a_blob_of(path: Path, reference: str) -> None:
    """Make an archive whose inventory lacks a blob that one image's manifest names."""
    content = some_content()
    plan = content.plan()
    image = next(image for image in plan.images if image.reference == reference)
    root = plan.manifests[image.root]
    manifests = list(plan.manifests)
    manifests[image.root] = replace(root, blobs=root.blobs[:-1])
    begin(path, content, replace(plan, manifests=tuple(manifests)))
    fill(path, content)


def test_an_image_that_is_more_than_the_inventory_says_is_never_touched(
    tmp_path: Path, destination: FaultyRegistry
) -> None:
    path = tmp_path / "lacks.tar"
    _forgetting_a_blob_of(path, "quay.io/lab/image-1:v1")
    result = _import(path, destination)
    (failed,) = result.failed
    assert (failed.reference, failed.reason) == ("quay.io/lab/image-1:v1", "damaged")
    assert "refers to other content than the inventory says" in failed.detail
    assert result.exit_status == result.status(skip_missing=True) == 4
    assert result.arrived == len(some_content().images) - 1
    assert not [asked for asked in destination.asked if "image-1" in asked.path]
    mapping = (result.manifests / "mapping.txt").read_text().splitlines()
    assert [line for line in mapping if line.startswith("#")] == [
        line for line in mapping if "image-1" in line
    ]


def test_a_catalog_that_is_more_than_the_inventory_says_is_refused_before_the_first_request(
    tmp_path: Path, destination: FaultyRegistry
) -> None:
    path = tmp_path / "lacks.tar"
    _forgetting_a_blob_of(path, CATALOG)
    with pytest.raises(airgap.ArchiveError, match=f"it is the catalog {CATALOG}"):
        _import(path, destination)
    assert destination.asked == []
    assert not path.with_name("manifests").exists()


def test_what_was_never_there_may_be_skipped(tmp_path: Path, destination: FaultyRegistry) -> None:
    path, content = tmp_path / "holes.tar", some_content()
    content.holes["quay.io/lab/gone:v1"] = Reason.NOT_FOUND
    archive_of(path, content)
    result = _import(path, destination)
    assert result.status() == result.exit_status == 3
    assert result.status(skip_missing=True) == 0
    destination.fault("GET", r".*/lab/image-1/manifests/v1", answer(400))
    assert _import(path, destination).status(skip_missing=True) == 5


@pytest.mark.parametrize("reason", [Reason.DENIED, Reason.UNREACHABLE])
def test_what_may_be_there_is_not_skipped(
    tmp_path: Path, destination: FaultyRegistry, reason: Reason
) -> None:
    path, content = tmp_path / "holes.tar", some_content()
    content.holes["quay.io/lab/gone:v1"] = reason
    archive_of(path, content)
    assert _import(path, destination).status(skip_missing=True) == 3


def test_a_registry_that_goes_away_ends_the_import(
    archive: Path, destination: FaultyRegistry
) -> None:
    class Leaving(Silent):
        def stage(self, name: str, *, total_bytes: int = 0, total_images: int = 0) -> None:
            if name == "pushing":
                destination.stop()

    with pytest.raises(airgap.Unreachable):
        _import(archive, destination, progress=Leaving())
    assert not archive.with_name("manifests").exists()


def test_an_image_with_a_hole_is_neither_pushed_nor_tagged(
    tmp_path: Path, destination: FaultyRegistry
) -> None:
    path, content = tmp_path / "holes.tar", some_content()
    content.holes["quay.io/lab/gone:v1"] = Reason.NOT_FOUND
    plan = content.plan()
    image = next(i for i in plan.images if i.reference == "quay.io/lab/image-1:v1")
    others = {n for i in plan.images if i != image for n in plan.blobs_of(i)}
    own = next(n for n in plan.blobs_of(image) if n not in others)
    content.absent.add(plan.blobs[own].digest)
    archive_of(path, content)
    result = _import(path, destination)
    assert result.exit_status == 3
    assert [(m.reference, m.reason) for m in result.missing] == [
        ("quay.io/lab/gone:v1", "not-found"),
        ("quay.io/lab/image-1:v1", "missing-blob"),
    ]
    assert not [asked for asked in destination.asked if "image-1" in asked.path]
    receipt = json.loads((result.manifests / "receipt.json").read_text())
    assert [m["reference"] for m in receipt["missing"]] == [m.reference for m in result.missing]
    lines = (result.manifests / "mapping.txt").read_text().splitlines()
    assert [line.startswith("#") for line in lines] == [
        bool(re.search("gone|image-1", line)) for line in lines
    ]


def test_what_would_go_where_is_what_goes_there(archive: Path, destination: FaultyRegistry) -> None:
    planned = plan_import(archive, destination.host)
    result = _import(archive, destination)
    written = (result.manifests / "mapping.txt").read_text().splitlines()
    assert list(planned.mapping) == written
    assert planned.missing == ()


def test_names_do_not_shift_when_an_image_is_missing() -> None:
    whole = some_content()
    lacking = some_content()
    lacking.images.pop("quay.io/lab/image-1:v1")
    lacking.holes["quay.io/lab/image-1:v1"] = Reason.NOT_FOUND
    prefix = DestinationPrefix.parse("registry.example.com/olm")
    assert _targets(whole, prefix) == _targets(lacking, prefix)


def _targets(content: Content, prefix: DestinationPrefix) -> list[str]:
    return mapping_text(place_images(content.plan(), prefix), {}).splitlines()


def test_a_hole_without_a_name_has_no_place() -> None:
    content = some_content()
    content.holes["NO Name"] = Reason.MALFORMED_REFERENCE
    prefix = DestinationPrefix.parse("registry.example.com")
    assert _targets(content, prefix) == _targets(some_content(), prefix)


def test_a_request_to_stop_ends_the_import(archive: Path, destination: FaultyRegistry) -> None:
    stop = threading.Event()

    class Stopping(Silent):
        def advance(self, count: int) -> None:
            stop.set()

    with pytest.raises(airgap.Interrupted):
        _import(archive, destination, progress=Stopping(), stop=stop)
    assert not archive.with_name("manifests").exists()
    assert _import(archive, destination).exit_status == 0


def test_a_request_to_stop_does_not_wait_for_a_slow_medium(
    tmp_path: Path, destination: FaultyRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, stop = tmp_path / "olm.tar", threading.Event()
    archive_of(path, some_content(layer_size=32 * limits.CHUNK))
    read, stopped = os.pread, 0.0

    def slowly(descriptor: int, size: int, offset: int) -> bytes:
        time.sleep(0.3 if size >= limits.CHUNK else 0)
        return read(descriptor, size, offset)

    def stop_it() -> None:
        nonlocal stopped
        stopped = time.monotonic()
        stop.set()

    class Stopping(Silent):
        def advance(self, count: int) -> None:
            if count >= limits.CHUNK and not stop.is_set():
                stop_it()

    monkeypatch.setattr(os, "pread", slowly)
    with pytest.raises(airgap.Interrupted):
        _import(path, destination, progress=Stopping(), stop=stop)
    assert time.monotonic() < stopped + 1
    assert not path.with_name("manifests").exists()


def test_an_archive_that_is_being_written_is_left_alone(
    tmp_path: Path, destination: FaultyRegistry
) -> None:
    begin(tmp_path / "it.tar", some_content())
    with pytest.raises(airgap.UsageError, match="not finished"):
        _import(tmp_path / "it.tar", destination)
    state = State(tmp_path / "it.tar")
    with pytest.raises(airgap.Busy):
        _import(tmp_path / "it.tar", destination)
    state.release(finished=False)
    assert destination.asked == []


def test_a_manifest_that_is_not_there_after_all_is_not_tagged(
    archive: Path, destination: FaultyRegistry
) -> None:
    destination.fault("GET", r".*/lab/both/manifests/.*", missing())
    result = _import(archive, destination)
    (failed,) = result.failed
    assert "not there unchanged" in failed.detail
    assert "v1" not in [
        path.rpartition("/")[2] for path in _put_manifests(destination) if "both" in path
    ]


def test_a_tag_that_reads_back_as_another_is_a_failure(
    archive: Path, destination: FaultyRegistry
) -> None:
    other = {"Docker-Content-Digest": "sha256:" + "0" * 64}
    destination.fault("PUT", r".*/lab/both/manifests/v1", with_headers(other))
    destination.fault("HEAD", r".*/lab/both/manifests/v1", answer(200, other))
    (failed,) = _import(archive, destination).failed
    assert "reads back as sha256:0000" in failed.detail


def test_two_imports_into_one_place_write_the_same_files(
    archive: Path, destination: FaultyRegistry
) -> None:
    first = {p.name: p.read_bytes() for p in _import(archive, destination).manifests.iterdir()}
    again = {p.name: p.read_bytes() for p in _import(archive, destination).manifests.iterdir()}
    assert first == again
