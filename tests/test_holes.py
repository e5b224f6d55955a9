"""What cannot be had: everything else goes its way, and the hole is named wherever one looks."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from airgap.reference import ImageReference
from airgap.registry.directory import DirectoryStore
from tests.support import plans
from tests.support.command import airgap
from tests.support.faults import missing
from tests.support.lab import CATALOG, CATALOGS, LabImage, build_lab
from tests.support.promise import MappingFile, content, entries, keeps, same_bytes
from tests.support.site import SMALL, Site, Supply, open_site
from tests.support.upstream import StoreUpstream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airgap.digest import Digest

DATABASE = CATALOGS / "oc-test.db"
WANTED = (
    "quay.io/coreos/etcd-operator"
    "@sha256:c0301e4686c3ed4206e370b42de5a3bd2229b9fb4906cf85f3f30650424abec2"
)
"""An image of the catalog, and below the one bundle and package that need it."""

BUNDLES, PACKAGES = ["etcdoperator.v0.9.2"], ["etcd"]
TWICE = f"quay.io/test/twice@sha256:{'a' * 64}@sha256:{'a' * 64}"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    supply = Supply.make(folder / "supply")
    with open_site(folder, supply) as site:
        assert site.export().status == 0
        assert site.import_().status == 0
        return Whole(supply, site.archive, site.tags_at_destination())


@dataclass(frozen=True)
class Whole:
    """The archive and the destination's tags when nothing is missing."""

    supply: Supply
    archive: Path
    tags: set[str]

    @property
    def image(self) -> LabImage:
        return self.supply.lab.images[WANTED]

    def content_of_others(self) -> set[Digest]:
        """All that is left without the image."""
        lab = self.supply.lab
        others = [lab.catalog_image, *(i for i in lab.images.values() if i is not self.image)]
        return {digest for other in others for digest in (*other.manifests, *other.blobs)}

    def own_blob(self) -> Digest:
        """A blob that the image has for itself."""
        return next(iter(self.image.blobs.keys() - self.content_of_others()))

    def shared_blob(self) -> tuple[Digest, list[LabImage]]:
        """A blob that images in several repositories share, and those images."""
        images = [*self.supply.lab.images.values()]
        for digest in sorted({digest for image in images for digest in image.blobs}):
            holders = [image for image in images if digest in image.blobs]
            if len({image.repository for image in holders}) > 1:
                return digest, holders
        raise AssertionError("the laboratory shares nothing")


@pytest.fixture
def site(whole: Whole, tmp_path: Path) -> Iterator[Site]:
    with open_site(tmp_path, whole.supply) as site:
        yield site


def hole(reference: str, reason: str) -> dict[str, Any]:
    """What is said of the hole by every command and in every file, the detail aside."""
    return {"reference": reference, "reason": reason, "bundles": BUNDLES, "packages": PACKAGES}


def holes_in(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in record.items() if k != "detail"} for record in records]


def assert_named_everywhere(site: Site, expected: dict[str, Any]) -> None:
    """Export has ended; look at what it, inspect, verify and import say, in text and JSON."""
    for command in (site.exporting(), ("inspect", site.archive), ("verify", site.archive)):
        as_text = airgap(*command)
        as_json = airgap(*command, "--output", "json")
        assert as_text.status == as_json.status == 3
        assert as_json.json["exit_status"] == 3
        assert holes_in(as_json.json["missing"]) == [expected]
        for word in (expected["reference"], expected["reason"], *BUNDLES, *PACKAGES):
            assert word in as_text.out


def assert_imported_without(site: Site, whole: Whole, *references: str, reason: str) -> None:
    """Import has ended with holes: nothing of the images is there, everything else is."""
    lines = MappingFile.read(site.manifests / "mapping.txt")
    named = {ImageReference.parse(text).with_defaults().exact for text in references}
    commented = [line for line in lines.comments if "missing" in line]
    assert len(commented) == len(named)
    for source in named:
        assert source not in lines.targets
        assert any(source in line and reason in line for line in commented)
    assert len(lines.targets) == len(whole.supply.lab.images) + 1 - len(named)
    receipt = json.loads((site.manifests / "receipt.json").read_text())
    assert {record["reference"] for record in receipt["missing"]} == {*references}
    assert not {image["reference"] for image in receipt["images"]} & {*references}
    tags = {f"{one.path}:{one.tag}" for one in map(ImageReference.parse, lines.targets.values())}
    assert site.tags_at_destination() == tags
    assert len(whole.tags - tags) == len(named)


class TestAMissingManifest:
    def test_is_named_and_everything_else_arrives(self, site: Site, whole: Whole) -> None:
        reference = whole.image.reference
        site.upstream.hide(whole.image.root)
        exported = site.export("--output", "json")
        assert exported.status == 3
        expected = hole(reference, "not-found")
        assert holes_in(exported.json["missing"]) == [expected]
        assert_named_everywhere(site, expected)
        inventory = content(site.archive, "airgap.json").decode()
        assert reference in inventory
        assert "not-found" in inventory
        held = {name for name in entries(site.archive) if name.startswith("blobs/")}
        assert held == {f"blobs/sha256/{digest.hex}" for digest in whole.content_of_others()}

        imported = site.import_("--output", "json")
        assert imported.status == 3
        assert holes_in(imported.json["missing"]) == [expected]
        assert imported.json["arrived"] == len(whole.supply.lab.images)
        assert_imported_without(site, whole, reference, reason="not-found")
        assert not any(whole.image.root.hex in name for name in keeps(site.folder / "destination"))

    def test_is_mended_by_a_new_archive(self, site: Site, whole: Whole) -> None:
        site.upstream.hide(whole.image.root)
        assert site.export().status == 3
        site.upstream.heal()
        assert site.export().status == 3
        mended = site.folder / "mended.tar"
        assert site.export(archive=mended).status == 0
        assert same_bytes(mended, whole.archive)

    def test_of_one_variant_makes_the_image_a_hole(self, site: Site, whole: Whole) -> None:
        lab = whole.supply.lab
        several = next(image for image in lab.images.values() if len(image.manifests) > 1)
        variant = next(digest for digest in several.manifests if digest != several.root)
        site.upstream.hide(variant)
        exported = site.export("--output", "json")
        assert exported.status == 3
        assert [record["reference"] for record in exported.json["missing"]] == [several.reference]

    def test_can_be_tolerated(self, site: Site, whole: Whole) -> None:
        site.upstream.hide(whole.image.root)
        exported = site.export("--skip-missing", "--output", "json")
        assert exported.status == 0
        assert holes_in(exported.json["missing"]) == [hole(whole.image.reference, "not-found")]
        assert site.import_("--skip-missing").status == 0

    def test_can_end_the_export(self, site: Site, whole: Whole) -> None:
        site.upstream.hide(whole.image.root)
        exported = site.export("--no-continue-on-error")
        assert exported.status == 5
        assert str(whole.image.root) in exported.err
        assert not site.archive.exists()
        site.upstream.heal()
        assert site.export().status == 0
        assert same_bytes(site.archive, whole.archive)


class TestAMissingBlob:
    def test_is_named_and_everything_else_arrives(self, site: Site, whole: Whole) -> None:
        blob = whole.own_blob()
        site.upstream.hide(blob)
        exported = site.export("--output", "json")
        assert exported.status == 3
        expected = hole(whole.image.reference, "missing-blob")
        assert holes_in(exported.json["missing"]) == [expected]
        assert str(blob) in exported.json["missing"][0]["detail"]
        assert_named_everywhere(site, expected)

        place = entries(site.archive)[f"absent/sha256/{blob.hex}"]
        assert place.size == whole.image.blobs[blob]
        assert content(site.archive, place.name) == bytes(place.size)
        assert f"blobs/sha256/{blob.hex}" not in entries(site.archive)

        imported = site.import_("--output", "json")
        assert imported.status == 3
        assert holes_in(imported.json["missing"]) == [expected]
        assert_imported_without(site, whole, whole.image.reference, reason="missing-blob")
        kept = keeps(site.folder / "destination")
        assert not any(whole.image.root.hex in name for name in kept)
        assert not any(blob.hex in name for name in kept)

    def test_is_filled_in_place_when_the_same_command_finds_it(
        self, site: Site, whole: Whole
    ) -> None:
        blob = whole.own_blob()
        site.upstream.hide(blob)
        assert site.export().status == 3
        assert site.import_().status == 3
        site.upstream.heal()
        asked = len(site.upstream.asked)
        again = site.export("--output", "json")
        assert (again.status, again.json["fetched"]) == (0, 1)
        assert same_bytes(site.archive, whole.archive)
        fetched = [one.path for one in site.upstream.asked[asked:] if "/blobs/" in one.path]
        assert [path.rpartition("/")[2] for path in fetched] == [str(blob)]
        imported = site.import_("--output", "json")
        assert imported.status == 0
        assert site.tags_at_destination() == whole.tags
        assert imported.json["manifests_sent"] == len(whole.image.manifests)
        assert 0 < imported.json["sent"] <= len(whole.image.blobs)

    def test_still_missing_leaves_the_archive_as_it_was(self, site: Site, whole: Whole) -> None:
        site.upstream.hide(whole.own_blob())
        assert site.export().status == 3
        before = site.archive.read_bytes()
        assert site.export().status == 3
        assert site.archive.read_bytes() == before

    def test_hurts_every_image_that_shares_it(self, site: Site, whole: Whole) -> None:
        blob, holders = whole.shared_blob()
        site.upstream.hide(blob)
        exported = site.export("--output", "json")
        assert exported.status == 3
        hurt = {image.reference for image in holders}
        assert {record["reference"] for record in exported.json["missing"]} == hurt
        assert site.import_().status == 3
        assert_imported_without(site, whole, *hurt, reason="missing-blob")

    def test_of_one_repository_is_taken_from_another(self, site: Site, whole: Whole) -> None:
        blob, holders = whole.shared_blob()
        places = sorted({image.repository for image in holders})
        for place in places[:-1]:
            site.upstream.fault("GET", f"/v2/{place}/blobs/{blob}", missing())
        assert site.export().status == 0
        assert same_bytes(site.archive, whole.archive)
        assert site.upstream.count("GET", f"/v2/{places[-1]}/blobs/{blob}") == 1


class TestAHoleInTheCatalog:
    @pytest.mark.parametrize("what", ["manifest", "configuration or layer"])
    def test_ends_the_export_and_the_next_one_continues(
        self, site: Site, whole: Whole, what: str
    ) -> None:
        catalog = whole.supply.lab.catalog_image
        tag = "/v2/quay.io/lab/catalog/manifests/v1"
        lost = tag if what == "manifest" else f".*/{next(iter(catalog.blobs))}"
        site.upstream.fault("GET", lost, missing())
        exported = site.export()
        assert exported.status == 5
        assert "lab/catalog" in exported.err
        assert not site.archive.exists()
        site.upstream.heal()
        assert site.export().status == 0
        assert same_bytes(site.archive, whole.archive)

    @pytest.mark.parametrize("lost", [0, 1, 2], ids=["first", "second", "third"])
    def test_ends_an_import_before_its_first_request(self, site: Site, lost: int) -> None:
        contents = plans.some_content()
        plan = contents.plan()
        catalog = plan.images[0]
        contents.absent = {plan.blobs[plan.blobs_of(catalog)[lost]].digest}
        plans.archive_of(site.archive, contents)
        imported = site.import_()
        assert imported.status == 4
        assert catalog.reference in imported.err
        assert site.destination.asked == []
        assert not site.manifests.exists()


class TestAReferenceThatIsNone:
    @pytest.fixture
    def site(self, tmp_path: Path) -> Iterator[Site]:
        database = tmp_path / "odd.db"
        shutil.copyfile(DATABASE, database)
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute("INSERT INTO related_image VALUES (?, ?)", (TWICE, BUNDLES[0]))
        store = DirectoryStore(tmp_path / "supply", durable=False)
        lab = build_lab(database, StoreUpstream(store), recipe=SMALL)
        assert lab.skipped == (TWICE,)
        with open_site(tmp_path, Supply(tmp_path / "supply", lab)) as site:
            yield site

    def test_is_listed_with_its_bundle_and_the_rest_goes_on(self, site: Site) -> None:
        exported = site.export("--output", "json")
        assert exported.status == 3
        expected = hole(TWICE, "malformed-reference")
        assert holes_in(exported.json["missing"]) == [expected]
        assert_named_everywhere(site, expected)
        imported = site.import_("--output", "json")
        assert imported.status == 3
        assert holes_in(imported.json["missing"]) == [expected]
        assert imported.json["arrived"] == len(site.supply.lab.images) + 1
        receipt = json.loads((site.manifests / "receipt.json").read_text())
        assert receipt["missing"] == [expected]
        lines = MappingFile.read(site.manifests / "mapping.txt")
        assert len(lines.targets) == len(site.supply.lab.images) + 1


def test_the_bundle_and_the_package_are_those_of_the_database() -> None:
    bundles = "SELECT operatorbundle_name FROM related_image WHERE image = ?"
    packages = "SELECT DISTINCT package_name FROM channel_entry WHERE operatorbundle_name = ?"
    with closing(sqlite3.connect(DATABASE)) as connection:
        assert [name for (name,) in connection.execute(bundles, (WANTED,))] == BUNDLES
        assert [name for (name,) in connection.execute(packages, BUNDLES)] == PACKAGES


def test_what_is_whole_has_no_hole(whole: Whole) -> None:
    assert not [name for name in entries(whole.archive) if name.startswith("absent/")]
    assert CATALOG in content(whole.archive, "index.json").decode()
