"""Mirroring: what can be had and put, what cannot, and who is to blame for it."""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
from typing import TYPE_CHECKING

import pytest

import airgap
from airgap.errors import HOLES
from airgap.progress import Silent
from airgap.registry import retry
from airgap.registry.directory import DirectoryStore
from tests.support.command import airgap as typed
from tests.support.faults import FaultyRegistry, answer, flip
from tests.support.lab import CATALOG, CATALOGS, Lab, LabImage, build_lab
from tests.support.promise import MappingFile, keeps
from tests.support.site import SMALL, Site, Supply, open_site
from tests.support.upstream import StoreUpstream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airgap.digest import Digest
    from tests.support.command import Ran

WANTED = (
    "quay.io/coreos/etcd-operator"
    "@sha256:c0301e4686c3ed4206e370b42de5a3bd2229b9fb4906cf85f3f30650424abec2"
)
"""An image of the catalog, and below the one bundle and package that need it."""

BUNDLES, PACKAGES = ["etcdoperator.v0.9.2"], ["etcd"]


@pytest.fixture(scope="module")
def supply(tmp_path_factory: pytest.TempPathFactory) -> Supply:
    return Supply.make(tmp_path_factory.mktemp("supply"))


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary directory that must be empty in the end; and a hasty client without accounts."""
    monkeypatch.setattr(retry, "_FIRST_DELAY", 0.001)
    monkeypatch.setenv("REGISTRY_AUTH_FILE", "")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    yield scratch
    assert [*scratch.iterdir()] == []


@pytest.fixture
def site(tmp_path: Path, supply: Supply) -> Iterator[Site]:
    with open_site(tmp_path, supply) as site:
        yield site


def image_of(lab: Lab) -> LabImage:
    return lab.images[WANTED]


def own_blob(lab: Lab) -> Digest:
    """A blob that the image has for itself."""
    wanted = image_of(lab)
    others = {d for i in lab.images.values() if i is not wanted for d in i.blobs}
    return next(iter(wanted.blobs.keys() - others))


def tags_of_all(site: Site) -> set[str]:
    """What ``mapping.txt`` promises, as ``repository:tag``."""
    lines = MappingFile.read(site.manifests / "mapping.txt").targets
    return {target.removeprefix(f"{site.destination.host}/") for target in lines.values()}


def files_in(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def assert_hole(ran: Ran, site: Site, reason: str) -> None:
    """The image, and nothing else, is named as missing, and not at the destination."""
    reference = image_of(site.supply.lab).reference
    (hole,) = ran.json["missing"]
    assert (hole["reference"], hole["reason"]) == (reference, reason)
    assert (hole["bundles"], hole["packages"]) == (BUNDLES, PACKAGES)
    assert (ran.json["failed"], ran.json["exit_status"]) == ([], HOLES)
    receipt = json.loads((site.manifests / "receipt.json").read_text())
    assert [one["reference"] for one in receipt["missing"]] == [reference]
    assert ran.json["arrived"] == len(site.supply.lab.images)
    assert site.tags_at_destination() == tags_of_all(site)


class TestWhatArrives:
    def test_is_everything_and_is_counted(self, site: Site) -> None:
        lab = site.supply.lab
        ran = site.mirror("--output", "json")
        assert (ran.status, ran.json["missing"], ran.json["failed"]) == (0, [], [])
        assert ran.json["catalogs"] == [CATALOG]
        assert ran.json["destination"] == site.destination.host
        assert ran.json["arrived"] == len(lab.images) + 1
        assert ran.json["sent"] == len(
            {d for i in lab.images.values() for d in i.blobs} | {*lab.catalog_image.blobs}
        )
        assert ran.json["manifests_sent"] == len(
            [d for i in (*lab.images.values(), lab.catalog_image) for d in i.manifests]
        )
        assert site.tags_at_destination() == tags_of_all(site)

    def test_is_what_export_and_import_bring(self, site: Site) -> None:
        assert site.mirror("--output", "json").status == 0
        mirrored = files_in(site.manifests)
        kept = keeps(site.folder / "destination")
        exported = site.export("--output", "json")
        imported = site.import_("--output", "json")
        assert [imported.json[key] for key in ("sent", "mounted", "manifests_sent")] == [0, 0, 0]
        assert files_in(site.manifests) == mirrored
        assert keeps(site.folder / "destination") == kept
        assert {"mapping.txt", "imageContentSourcePolicy.yaml", "catalogSource.yaml"} < {*mirrored}
        assert exported.json["id"] == json.loads(mirrored["receipt.json"])["archive"]

    @pytest.mark.parametrize(
        "flags",
        [
            ("--max-components", 0, "--icsp-scope", "registry", "--idms-scope", "registry"),
            ("--max-icsp-size", 400),
        ],
        ids=["scopes", "size"],
    )
    def test_has_the_shape_that_import_gives_it(self, site: Site, flags: tuple[object]) -> None:
        assert site.mirror(*flags, namespace="/olm").status == 0
        mirrored = files_in(site.manifests)
        assert site.export().status == 0
        assert site.import_(*flags, namespace="/olm").status == 0
        assert files_in(site.manifests) == mirrored

    def test_ends_with_the_catalog(self, site: Site) -> None:
        assert site.mirror().status == 0
        put = [one.path for one in site.destination.asked if one.method == "PUT"]
        manifests = ["lab/catalog/" in path for path in put if "/manifests/" in path]
        assert manifests == sorted(manifests)
        assert manifests[-1]

    def test_may_be_a_part(self, site: Site) -> None:
        assert site.mirror("--package", "etcd:alpha@head").status == 0
        mirrored = files_in(site.manifests)
        assert site.export("--package", "etcd:alpha@head").status == 0
        assert site.import_().status == 0
        assert files_in(site.manifests) == mirrored

    def test_is_named_like_an_archive(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(site.folder)
        ran = site.mirror("--to-manifests", "", "--output", "json")
        digits = ran.json["id"].removeprefix("sha256:")[:8]
        assert ran.json["manifests"] == f"manifests-catalog-{digits}"
        assert (site.folder / ran.json["manifests"] / "mapping.txt").is_file()


class TestASecondRun:
    def test_sends_nothing_and_writes_the_same(self, site: Site) -> None:
        assert site.mirror().status == 0
        before = files_in(site.manifests)
        again = site.mirror("--output", "json")
        assert again.status == 0
        assert [again.json[key] for key in ("sent", "mounted", "manifests_sent")] == [0, 0, 0]
        assert files_in(site.manifests) == before

    def test_does_not_move_a_tag_unless_told_to(self, site: Site) -> None:
        assert site.mirror().status == 0
        site.destination.fault(
            "GET", r".*/lab/catalog/manifests/v1", answer(200, body=b"{}"), hits=(1,)
        )
        ran = site.mirror()
        assert ran.status == 5
        assert "to be set to" in ran.out
        assert "--force-tags" in ran.out


class TestADryRun:
    def test_says_what_would_go_where_and_asks_the_destination_nothing(self, site: Site) -> None:
        planned = site.mirror("--dry-run")
        assert planned.status == 0
        assert site.destination.asked == []
        assert not site.manifests.exists()
        assert site.mirror().status == 0
        assert planned.out == (site.manifests / "mapping.txt").read_text()

    def test_names_what_would_be_missing(self, site: Site) -> None:
        site.upstream.hide(image_of(site.supply.lab).root)
        as_json = site.mirror("--dry-run", "--output", "json")
        assert as_json.status == HOLES
        assert [one["reason"] for one in as_json.json["missing"]] == ["not-found"]
        assert "# " in site.mirror("--dry-run").out


class TestWhatCannotBeHad:
    def test_a_manifest_costs_its_image(self, site: Site) -> None:
        site.upstream.hide(image_of(site.supply.lab).root)
        ran = site.mirror("--output", "json")
        assert_hole(ran, site, "not-found")
        as_text = site.mirror()
        assert as_text.status == HOLES
        for word in (image_of(site.supply.lab).reference, "not-found", *BUNDLES, *PACKAGES):
            assert word in as_text.out
        assert site.mirror("--skip-missing").status == 0
        assert site.mirror("--no-continue-on-error").status == 5

    def test_a_blob_costs_its_image(self, site: Site) -> None:
        blob = own_blob(site.supply.lab)
        site.upstream.hide(blob)
        ran = site.mirror("--output", "json")
        assert_hole(ran, site, "missing-blob")
        assert str(blob) in ran.json["missing"][0]["detail"]
        assert not any(blob.hex in name for name in keeps(site.folder / "destination"))
        mirrored = files_in(site.manifests)
        assert site.export().status == site.import_().status == HOLES
        assert files_in(site.manifests) == mirrored

    def test_damaged_content_costs_its_image_and_names_where_it_is_from(self, site: Site) -> None:
        blob = own_blob(site.supply.lab)
        site.upstream.fault("GET", f".*/{blob}", flip())
        ran = site.mirror("--output", "json")
        assert_hole(ran, site, "missing-blob")
        assert ran.json["missing"][0]["detail"].startswith("quay.io/coreos/etcd-operator: ")
        assert not any(blob.hex in name for name in keeps(site.folder / "destination"))

    def test_a_source_that_goes_down_costs_its_images_alone(self, site: Site) -> None:
        site.upstream.fault("GET", r".*/coreos/etcd-operator/blobs/.*", answer(503))
        ran = site.mirror("--output", "json")
        assert ran.status == HOLES
        assert {one["reason"] for one in ran.json["missing"]} == {"missing-blob"}
        assert {"etcd-operator" in one["reference"] for one in ran.json["missing"]} == {True}
        assert ran.json["failed"] == []

    def test_without_continue_on_error_it_ends_the_run(self, site: Site) -> None:
        site.upstream.hide(own_blob(site.supply.lab))
        ran = site.mirror("--no-continue-on-error")
        assert (ran.status, ran.out) == (5, "")
        assert not site.manifests.exists()

    def test_what_was_missing_is_brought_by_the_next_run(self, site: Site) -> None:
        site.upstream.hide(own_blob(site.supply.lab))
        assert site.mirror().status == HOLES
        site.upstream.heal()
        again = site.mirror("--output", "json")
        assert again.status == 0
        assert again.json["manifests_sent"] == len(image_of(site.supply.lab).manifests)

    def test_a_catalog_ends_the_run_before_the_first_push(self, site: Site) -> None:
        site.upstream.hide(site.supply.lab.catalog_digest)
        site.upstream.fault("GET", r"/v2/quay.io/lab/catalog/manifests/v1", answer(404))
        ran = site.mirror()
        assert ran.status == 5
        assert CATALOG in ran.err
        assert {one.path for one in site.destination.asked} == {"/v2/"}

    def test_a_variant_of_the_catalog_is_a_failure(self, tmp_path: Path) -> None:
        folder = tmp_path / "several"
        store = DirectoryStore(folder, durable=False)
        recipe = type(SMALL)(layer_bytes=4096, catalog_multi_arch=True)
        lab = build_lab(CATALOGS / "oc-test.db", StoreUpstream(store), recipe=recipe)
        with open_site(tmp_path, Supply(folder, lab)) as site:
            assert site.mirror("--dry-run").status == 0
            read = {one.path.rpartition("/")[2] for one in site.upstream.asked}
            unread = [blob for blob in lab.catalog_image.blobs if str(blob) not in read]
            site.upstream.hide(unread[0])
            ran = site.mirror("--output", "json")
            assert ran.status == 5
            assert [one["reference"] for one in ran.json["failed"]] == [CATALOG]
            assert "catalogSource.yaml" not in ran.json["files"]


class TestWhatCannotBePut:
    def test_a_refusal_costs_its_image(self, site: Site) -> None:
        site.destination.fault("PUT", r".*/coreos/etcd-operator/manifests/.*", answer(400))
        ran = site.mirror("--output", "json")
        assert ran.status == 5
        assert {one["reason"] for one in ran.json["failed"]} == {"failed"}
        assert ran.json["missing"] == []
        assert site.tags_at_destination() == tags_of_all(site)

    def test_what_an_earlier_run_wrote_stays_when_nothing_arrives(self, site: Site) -> None:
        assert site.mirror().status == 0
        before = files_in(site.manifests)
        site.destination.fault("GET", ".*/manifests/.*", answer(403))
        ran = site.mirror()
        assert ran.status == 5
        assert f"wrote     nothing, as no image arrived; {site.manifests}/ stays" in ran.out
        assert "apply" not in ran.out
        assert files_in(site.manifests) == before

    def test_a_destination_that_goes_down_ends_the_run(self, site: Site) -> None:
        site.destination.fault("POST", ".*", answer(503))
        ran = site.mirror()
        assert (ran.status, ran.out) == (5, "")
        assert site.destination.host in ran.err
        assert not site.manifests.exists()

    def test_a_destination_that_is_none_ends_the_run_before_the_sources_are_asked(
        self, site: Site
    ) -> None:
        site.destination.fault("GET", "/v2/", answer(404))
        assert site.mirror().status == 5
        assert site.upstream.asked == []

    def test_a_directory_that_takes_no_files_ends_the_run_before_the_first_push(
        self, site: Site
    ) -> None:
        (site.folder / "file").write_text("in the way")
        ran = site.mirror("--to-manifests", site.folder / "file" / "manifests")
        assert ran.status == 6
        assert site.destination.count("PUT|POST|PATCH") == 0


def test_within_one_registry_blobs_are_mounted(site: Site) -> None:
    upstream, blobs = site.upstream.host, site.supply.lab.catalog_image.blobs
    catalog = f"{upstream}/quay.io/lab/catalog:v1"
    folder = site.folder / "same"
    shutil.copytree(site.supply.folder, folder)
    with FaultyRegistry(DirectoryStore(folder, durable=False)) as registry:
        result = airgap.mirror(
            [catalog.replace(upstream, registry.host)],
            f"{registry.host}/mirrored",
            access=airgap.Access(insecure=True, registries_conf=site.registries_conf),
            manifests=airgap.ManifestsOptions(site.manifests),
        )
        mounted = {one.query["mount"] for one in registry.asked if "from" in one.query}
    assert result.exit_status == 0
    assert {*map(str, blobs)} <= mounted
    assert result.mounted >= len(blobs)


def test_a_request_to_stop_ends_it_and_the_next_run_continues(site: Site) -> None:
    stop = threading.Event()

    class Stopping(Silent):
        def stage(self, name: str, *, total_bytes: int = 0, total_images: int = 0) -> None:
            if name == "pushing":
                stop.set()

    with pytest.raises(airgap.Interrupted):
        airgap.mirror(
            [CATALOG],
            site.destination.host,
            access=airgap.Access(insecure=True, registries_conf=site.registries_conf),
            manifests=airgap.ManifestsOptions(site.manifests),
            progress=Stopping(),
            stop=stop,
        )
    assert not site.manifests.exists()
    assert site.mirror().status == 0


def test_a_temporary_directory_that_is_none_is_told(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(site.folder / "gone"))
        ran = site.mirror()
    assert ran.status == 6
    assert str(site.folder / "gone") in ran.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["mirror"],
        ["mirror", CATALOG],
        ["mirror", CATALOG, "localhost:5000", "--max-components", "1"],
        ["mirror", CATALOG, "localhost:5000", "--icsp-scope", "planet"],
        ["mirror", "NO CATALOG", "localhost:5000"],
        ["mirror", CATALOG, "NO DEST"],
        ["mirror", CATALOG, "localhost:5000", "--package", "a@@b"],
    ],
    ids=" ".join,
)
def test_what_cannot_be_meant_is_refused(arguments: list[str]) -> None:
    assert typed(*arguments).status == 2
