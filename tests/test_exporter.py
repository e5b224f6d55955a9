from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING

import pytest

import airgap
from airgap import limits
from airgap.archive.reader import ArchiveReader, partial_path
from airgap.archive.state import State, state_path
from airgap.archive.work import work_path
from airgap.exporter import plan_export
from airgap.progress import Silent
from airgap.registry import retry
from airgap.registry.directory import DirectoryStore
from tests.support import images
from tests.support.faults import answer, flip
from tests.support.lab import CATALOG
from tests.support.odd_catalog import supply_naming
from tests.support.site import Site, Supply, open_site
from tests.support.upstream import put

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airgap.digest import Digest


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(retry, "_FIRST_DELAY", 0.001)
    with open_site(tmp_path, Supply.make(tmp_path / "upstream")) as site:
        yield site


@pytest.fixture
def access(site: Site) -> airgap.Access:
    return airgap.Access(registries_conf=site.registries_conf)


class _Listening(Silent):
    def __init__(self) -> None:
        self.told: list[str] = []
        self.bytes = 0

    def stage(self, name: str, *, total_bytes: int = 0, total_images: int = 0) -> None:
        self.told.append(name)
        self.bytes -= total_bytes

    def say(self, message: str) -> None:
        self.told.append(message)

    def advance(self, count: int) -> None:
        self.bytes += count


def test_an_export_holds_all_that_the_catalog_refers_to(site: Site, access: airgap.Access) -> None:
    progress = _Listening()
    result = airgap.export([CATALOG], site.archive, access=access, progress=progress)
    lab = site.supply.lab
    assert (result.archive, result.exit_status, result.missing) == (site.archive, 0, ())
    assert result.images == len(lab.images) + 1
    assert result.manifests + result.blobs == len(lab.content)
    assert result.size == site.archive.stat().st_size
    # The catalog's own blobs are there when the fetching begins.
    assert result.fetched == result.blobs - len(lab.catalog_image.blobs)
    assert progress.bytes == 0
    assert progress.told == [
        f"reading catalog {CATALOG}",
        "asking for manifests",
        "laying out the archive",
        "fetching blobs",
    ]
    with ArchiveReader(site.archive) as reader:
        assert reader.id == result.id
        assert list(reader.check_head()) == []


@pytest.mark.parametrize("connections", [1, 8])
def test_the_bytes_do_not_depend_on_the_connections(
    site: Site, access: airgap.Access, connections: int
) -> None:
    airgap.export([CATALOG], site.archive, access=access)
    other = site.folder / "other.tar"
    few = airgap.Access(registries_conf=site.registries_conf, connections=connections)
    airgap.export([CATALOG], other, access=few)
    assert other.read_bytes() == site.archive.read_bytes()


def test_each_blob_is_asked_for_once(site: Site, access: airgap.Access) -> None:
    result = airgap.export([CATALOG], site.archive, access=access)
    assert site.upstream.count("GET", ".*/blobs/.*") == result.blobs
    paths = [asked.path for asked in site.upstream.asked if "/manifests/sha256:" in asked.path]
    assert len(paths) == len(set(paths))


def test_a_dry_run_leaves_what_it_learned(site: Site, access: airgap.Access) -> None:
    survey = plan_export([CATALOG], site.archive, access=access)
    assert len(survey.plan.images) == len(site.supply.lab.images) + 1
    assert work_path(site.archive).is_dir()
    assert not partial_path(site.archive).exists()
    asked = site.upstream.count("GET", ".*/manifests/sha256:.*")
    airgap.export([CATALOG], site.archive, access=access)
    assert site.upstream.count("GET", ".*/manifests/sha256:.*") == asked
    assert not work_path(site.archive).exists()
    with pytest.raises(airgap.UsageError, match="its plan is made"):
        plan_export([CATALOG], site.archive, access=access)


def test_a_tag_that_moved_meanwhile_is_told_and_the_pin_holds(
    site: Site, access: airgap.Access
) -> None:
    plan_export([CATALOG], site.archive, access=access)
    moved = images.image([images.layer({"other": b"catalog"})])
    put(DirectoryStore(site.supply.folder, durable=False), "quay.io/lab/catalog", moved, "v1")
    progress = _Listening()
    airgap.export([CATALOG], site.archive, access=access, progress=progress)
    told = [line for line in progress.told if "has moved" in line]
    assert told == [f"{CATALOG} has moved to {moved.digest} since; export that to a new file"]
    found = airgap.inspect(site.archive)
    assert found.catalogs[0].digest == str(site.supply.lab.catalog_digest)


def test_a_begun_export_goes_on_without_the_catalogs_registry(
    site: Site, access: airgap.Access
) -> None:
    gone = site.supply.lab.images["quay.io/test/etcd.0.9.2"]
    site.upstream.hide(list(gone.blobs)[-1])
    with pytest.raises(airgap.NotFound):
        airgap.export([CATALOG], site.archive, access=access, continue_on_error=False)
    site.upstream.heal()
    site.upstream.fault("GET", ".*/lab/catalog/.*", answer(503))
    progress = _Listening()
    assert not airgap.export([CATALOG], site.archive, access=access, progress=progress).missing
    assert any(line.startswith("could not ask where") for line in progress.told)


def test_recheck_hashes_what_is_there_again(site: Site, access: airgap.Access) -> None:
    site.upstream.hide(list(site.supply.lab.images["quay.io/test/etcd.0.9.2"].blobs)[-1])
    with pytest.raises(airgap.NotFound):
        airgap.export([CATALOG], site.archive, access=access, continue_on_error=False)
    damaged = _damage_a_blob(partial_path(site.archive))
    site.upstream.heal()
    before = site.upstream.count("GET", f".*/{damaged}")
    assert not airgap.export([CATALOG], site.archive, access=access, recheck=True).missing
    assert site.upstream.count("GET", f".*/{damaged}") == before + 1
    assert airgap.verify(site.archive).exit_status == 0


def test_recheck_hashes_what_a_finished_archive_with_holes_has(
    site: Site, access: airgap.Access
) -> None:
    gone = site.supply.lab.images["quay.io/test/etcd.0.9.2"]
    site.upstream.hide(list(gone.blobs)[-1])
    assert airgap.export([CATALOG], site.archive, access=access).missing
    _damage_a_blob(site.archive)
    site.upstream.heal()
    result = airgap.export([CATALOG], site.archive, access=access, recheck=True)
    assert (result.fetched, result.missing) == (2, ())
    assert airgap.verify(site.archive).exit_status == 0


def test_after_a_restart_of_the_machine_what_is_there_is_hashed_again(
    site: Site, access: airgap.Access
) -> None:
    gone = list(site.supply.lab.images["quay.io/test/etcd.0.9.2"].blobs)[-1]
    site.upstream.hide(gone)
    with pytest.raises(airgap.NotFound):
        airgap.export([CATALOG], site.archive, access=access, continue_on_error=False)
    state = state_path(site.archive)
    assert '"boot": "' in state.read_text()
    state.write_text(state.read_text().replace('"boot": "', '"boot": "another-'))
    damaged = _damage_a_blob(partial_path(site.archive))
    site.upstream.heal()
    before = site.upstream.count("GET", f".*/{damaged}")
    assert not airgap.export([CATALOG], site.archive, access=access).missing
    assert site.upstream.count("GET", f".*/{damaged}") == before + 1
    assert airgap.verify(site.archive).exit_status == 0


def _damage_a_blob(archive: Path) -> Digest:
    """Flip a byte of the first blob that is there; return its digest."""
    with ArchiveReader(archive, unfinished=True) as reader:
        number = min(reader.present)
        place, digest = reader.layout.blob(number).content, reader.plan.blobs[number].digest
    with archive.open("r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 1]))
    return digest


@pytest.mark.parametrize("repository", ["lab/catalog", "(coreos|test)/.*"])
def test_content_altered_once_on_the_way_arrives(
    site: Site, access: airgap.Access, repository: str
) -> None:
    path = f"/v2/quay.io/{repository}/blobs/.*"
    site.upstream.fault("GET", path, flip(at=20), hits=(1,))
    result = airgap.export([CATALOG], site.archive, access=access)
    assert (result.exit_status, result.missing) == (0, ())
    assert airgap.verify(site.archive).exit_status == 0
    assert site.upstream.count("GET", ".*/blobs/.*") == result.blobs + 1


def test_content_that_is_always_altered_is_told_with_its_place(
    site: Site, access: airgap.Access
) -> None:
    image = site.supply.lab.images["quay.io/test/etcd.0.9.2"]
    blob = list(image.blobs)[-1]
    site.upstream.fault("GET", f".*/blobs/{blob}", flip(at=20))
    (hole,) = airgap.export([CATALOG], site.archive, access=access).missing
    assert hole.reference == image.reference
    assert hole.detail.startswith(f"quay.io/test/etcd.0.9.2: {blob}")
    assert site.upstream.count("GET", f".*/blobs/{blob}") == 2


def test_a_name_of_many_megabytes_costs_itself_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "_FIRST_DELAY", 0.001)
    with open_site(tmp_path, supply_naming(tmp_path, "X" * (17 << 20))) as site:
        access = airgap.Access(registries_conf=site.registries_conf)
        result = airgap.export([CATALOG], site.archive, access=access)
        again = airgap.export([CATALOG], site.archive, access=access)
    assert result.exit_status == again.exit_status == 3
    (hole,) = result.missing
    assert hole.reason == "malformed-reference"
    assert hole.reference == "X" * limits.NAME + "…"
    assert hole.bundles and hole.packages == ("etcd",)
    assert (again.fetched, len(again.missing)) == (0, 1)
    assert airgap.verify(site.archive).exit_status == 3
    assert airgap.inspect(site.archive).missing[0].reference == hole.reference


@pytest.mark.parametrize(("status", "skipped"), [(404, 0), (403, 3)])
def test_what_does_not_exist_may_be_skipped(
    site: Site, access: airgap.Access, status: int, skipped: int
) -> None:
    site.upstream.fault("GET", r".*/test/etcd\.0\.9\.2/manifests/.*", answer(status))
    result = airgap.export([CATALOG], site.archive, access=access)
    assert result.status() == result.exit_status == 3
    assert result.status(skip_missing=True) == skipped


def test_a_medium_that_has_gone_is_told_whatever_else_fails_then(
    site: Site, access: airgap.Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Leaving(Silent):
        def stage(self, name: str, *, total_bytes: int = 0, total_images: int = 0) -> None:
            if name == "fetching blobs":
                monkeypatch.setattr(os, "pwrite", _gone)
                monkeypatch.setattr(os, "stat", _gone)
                monkeypatch.setattr(os, "unlink", _gone)

    with pytest.raises(airgap.StorageError, match=r"olm\.tar\.partial: No such device") as caught:
        airgap.export([CATALOG], site.archive, access=access, progress=Leaving())
    monkeypatch.undo()
    assert caught.value.hint is not None
    assert "connect it" in caught.value.hint
    assert not airgap.export([CATALOG], site.archive, access=access).missing


def _gone(*_: object, **__: object) -> None:
    raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))


def test_a_request_to_stop_ends_the_export(site: Site, access: airgap.Access) -> None:
    stop = threading.Event()

    class Stopping(Silent):
        def image(self) -> None:
            stop.set()

    with pytest.raises(airgap.Interrupted):
        airgap.export([CATALOG], site.archive, access=access, progress=Stopping(), stop=stop)
    assert not site.archive.exists()
    assert not airgap.export([CATALOG], site.archive, access=access).missing


def test_a_held_archive_is_left_alone(site: Site, access: airgap.Access) -> None:
    state = State(site.archive)
    with pytest.raises(airgap.Busy):
        airgap.export([CATALOG], site.archive, access=access)
    state.release(finished=True)
    assert site.upstream.asked == []


def test_a_finished_export_leaves_the_archive_alone(site: Site, access: airgap.Access) -> None:
    airgap.export([CATALOG], site.archive, access=access)
    assert {path.name for path in site.folder.glob("olm*")} == {"olm.tar"}
    assert not state_path(site.archive).exists()


def test_a_question_may_be_a_digest(site: Site, access: airgap.Access) -> None:
    pinned = f"quay.io/lab/catalog@{site.supply.lab.catalog_digest}"
    airgap.export([pinned], site.archive, access=access)
    asked = len(site.upstream.asked)
    again = airgap.export([pinned], site.archive, access=access)
    assert (again.fetched, again.exit_status) == (0, 0)
    assert len(site.upstream.asked) == asked


def test_no_catalog_is_no_question(site: Site, access: airgap.Access) -> None:
    with pytest.raises(airgap.UsageError):
        airgap.export([], site.archive, access=access)


def test_what_was_done_with_each_host_is_told(site: Site) -> None:
    site.upstream.fault("GET", ".*/blobs/.*", answer(503, {"Retry-After": "1"}), hits=(3,))
    ran = site.export("--output", "json")
    assert ran.status == 0
    (host,) = ran.json["hosts"]
    assert host["host"] == site.upstream.host
    assert host["retries"] == {"answer 503": 1}
    assert host["waited"] >= 1
    assert host["fetched"] >= ran.json["fetched"] > 0
    assert host["fetched_bytes"] >= ran.json["fetched_bytes"]
    assert host["requests"] == len([a for a in site.upstream.asked if a.path != "/v2/"])
    assert (host["sent"], host["mounted"], ran.json["broken"]) == (0, 0, [])


def test_people_are_told_what_was_tried_again_and_which_operators_are_broken(site: Site) -> None:
    image = next(i for i in site.supply.lab.images.values() if "@" in i.reference)
    site.upstream.fault("GET", f".*/manifests/{image.root}", answer(404))
    site.upstream.fault("GET", ".*/blobs/.*", answer(502), hits=(2,))
    ran = site.export()
    assert ran.status == 3
    assert f"again     {site.upstream.host}: answer 502 (1); waited" in ran.out
    packages = {p for one in airgap.inspect(site.archive).missing for p in one.packages}
    assert f"BROKEN operators ({len(packages)}): {', '.join(sorted(packages))}" in ran.out


def test_a_file_that_is_called_like_a_volume_is_left_alone(
    site: Site, access: airgap.Access
) -> None:
    other = site.archive.with_name("olm.2025.tar")
    other.write_bytes(b"last year's")
    assert airgap.export([CATALOG], site.archive, access=access).exit_status == 0
    assert other.read_bytes() == b"last year's"
    last_year = site.archive.rename(other)
    assert airgap.export([CATALOG], site.archive, access=access).exit_status == 0
    assert site.archive.read_bytes() == last_year.read_bytes()
