"""What a mirror would need, from the catalog alone."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import yaml

from airgap.errors import UsageError
from airgap.inquiry import Inquiry
from airgap.lister import ListResult, list_images
from airgap.manifests import ManifestsOptions
from airgap.question import Part
from airgap.registry.access import Access
from airgap.registry.directory import DirectoryStore
from tests.support.command import airgap
from tests.support.images import image, layer
from tests.support.lab import CATALOG, CATALOGS
from tests.support.site import Site, Supply, open_site
from tests.support.upstream import put

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def supply(tmp_path_factory: pytest.TempPathFactory) -> Supply:
    return Supply.make(tmp_path_factory.mktemp("supply"))


@pytest.fixture
def site(supply: Supply, tmp_path: Path) -> Iterator[Site]:
    with open_site(tmp_path, supply) as opened:
        yield opened


def _list(site: Site, destination: str | None, *packages: str) -> ListResult:
    return list_images(
        Inquiry([CATALOG], "linux/amd64", Part(packages)),
        destination=destination,
        access=Access(registries_conf=site.registries_conf),
        manifests=ManifestsOptions(site.folder / "listed"),
    )


def test_no_related_image_is_asked_for(site: Site) -> None:
    before = len(site.upstream.asked)
    _list(site, site.destination.host)
    paths = {asked.path for asked in site.upstream.asked[before:]} - {"/v2/"}
    assert paths
    assert all("/lab/catalog/" in path for path in paths)


def test_the_files_are_those_of_an_import(site: Site) -> None:
    result = _list(site, site.destination.host)
    assert site.export("-q").status == 0
    assert site.import_("-q").status == 0
    for file in result.files:
        assert (result.directory / file).read_text() == (site.manifests / file).read_text(), file


def test_the_catalogs_database_is_kept_beside_them(site: Site) -> None:
    (path,) = _list(site, site.destination.host).databases
    assert path.name == "bundles.db"
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute("select distinct image from related_image").fetchall()
    assert {image for (image,) in rows} <= set(site.supply.lab.references.values())


def test_a_part_lists_its_own_images_alone(site: Site) -> None:
    everything = _list(site, site.destination.host).images
    assert 0 < _list(site, site.destination.host, "etcd").images < everything


def test_the_command_says_where_the_database_is_and_asks_the_destination_nothing(
    site: Site,
) -> None:
    ran = site.mirror("--manifests-only", "-q")
    assert ran.status == 0
    assert f"database  {site.manifests}/bundles.db" in ran.out
    assert (site.manifests / "mapping.txt").exists()
    assert site.destination.asked == []


def test_without_a_destination_it_is_a_list_of_images(site: Site) -> None:
    result = _list(site, None)
    assert result.files == ("images.txt",)
    lines = (result.directory / "images.txt").read_text().splitlines()
    named = {image.reference for image in site.supply.lab.images.values()}
    assert lines == sorted(named, key=str.encode)
    assert result.images == len(lines)


def test_a_destination_that_is_none_is_refused_before_any_request(site: Site) -> None:
    before = len(site.upstream.asked)
    with pytest.raises(UsageError, match="without a scheme"):
        _list(site, "https://registry.example.com")
    assert site.upstream.asked[before:] == []


class TestOfAnArchive:
    @pytest.fixture(autouse=True)
    def exported(self, site: Site) -> None:
        assert site.export("-q").status == 0

    def test_the_files_are_those_of_an_import_but_the_receipt(self, site: Site) -> None:
        listed = site.import_("--manifests-only", "-q")
        assert (listed.status, site.destination.asked) == (0, [])
        before = contents(site.manifests)
        assert f"database  {site.manifests}/bundles.db" in listed.out
        assert site.import_("-q").status == 0
        assert contents(site.manifests) == before | {
            "receipt.json": (site.manifests / "receipt.json").read_bytes()
        }

    def test_the_database_is_that_of_the_catalog(self, site: Site) -> None:
        site.import_("--manifests-only", "-q")
        kept = (site.manifests / "bundles.db").read_bytes()
        _list(site, None)
        assert kept == (site.folder / "listed" / "bundles.db").read_bytes()

    def test_a_receipt_of_an_import_is_left_alone(self, site: Site) -> None:
        site.import_("-q")
        receipt = (site.manifests / "receipt.json").read_bytes()
        site.import_("--manifests-only", "-q")
        assert (site.manifests / "receipt.json").read_bytes() == receipt

    def test_holes_are_comments_in_the_mapping(self, site: Site, tmp_path: Path) -> None:
        other = tmp_path / "holes.tar"
        gone = next(iter(site.supply.lab.images.values()))
        site.upstream.hide(gone.root)
        assert site.export("-q", archive=other).status == 3
        assert site.import_("--manifests-only", "-q", archive=other).status == 3
        lines = (site.manifests / "mapping.txt").read_text().splitlines()
        assert any("(missing: not-found)" in line for line in lines if line.startswith("#"))


class TestPath:
    def test_says_where_the_database_goes(self, site: Site, tmp_path: Path) -> None:
        ran = site.mirror("--manifests-only", "-q", "--path", f"/:{tmp_path}")
        assert f"database  {tmp_path}/bundles.db" in ran.out
        assert (tmp_path / "bundles.db").exists()
        assert not (site.manifests / "bundles.db").exists()

    def test_says_where_the_catalog_is(self, site: Site, tmp_path: Path) -> None:
        ran = site.mirror("--manifests-only", "-q", "--path", f"/bundles.db:{tmp_path}")
        assert (ran.status, (tmp_path / "bundles.db").exists()) == (0, True)
        wrong = site.mirror("--manifests-only", "-q", "--path", f"/etc/os-release:{tmp_path}")
        assert wrong.status == 4
        nothing = site.mirror("--manifests-only", "-q", "--path", f"/srv/:{tmp_path}")
        assert nothing.status == 4
        assert "/srv/" in nothing.err

    @pytest.mark.parametrize("inside", ["/manifests", "/manifests/", "/"])
    def test_keeps_a_database_that_was_made_under_its_usual_name(
        self, site: Site, tmp_path: Path, inside: str
    ) -> None:
        folder = CATALOGS / "package-manifests" / "pkgman-flat"
        files = {
            f"manifests/{path.relative_to(folder)}": path.read_bytes()
            for path in folder.rglob("*.yaml")
        }
        store = DirectoryStore(site.supply.folder, durable=False)
        put(store, "quay.io/lab/manifests", image([layer(files)]), "v1")
        flags = ("--manifests-only", "-q", "--path", f"{inside}:{tmp_path}")
        ran = site.mirror(*flags, catalog="quay.io/lab/manifests:v1")
        assert f"database  {tmp_path}/bundles.db" in ran.out
        with closing(sqlite3.connect(tmp_path / "bundles.db")) as database:
            assert database.execute("select count(*) from package").fetchone() != (0,)

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ("bundles.db", "invalid path"),
            ("/:/no/such/directory", "destination path does not exist"),
            ("../x:.", "leads out"),
        ],
    )
    def test_that_makes_no_sense_is_refused(self, site: Site, value: str, message: str) -> None:
        ran = site.mirror("--manifests-only", "--path", value)
        assert ran.status == 2
        assert message in ran.err

    def test_is_about_the_database_alone(self, site: Site, tmp_path: Path) -> None:
        for ran in (
            site.mirror("--path", f"/:{tmp_path}"),
            site.export("--path", f"/:{tmp_path}"),
            site.import_("--path", f"/:{tmp_path}"),
        ):
            assert ran.status == 2
            assert "--manifests-only" in ran.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--for", "localhost:5000", "-o", "olm.tar"], "--for is about"),
        (["--icsp-scope", "registry", "-o", "olm.tar"], "--icsp-scope is about"),
        (["--manifests-only", "-o", "olm.tar"], "-o is about an archive"),
        (["--manifests-only", "-f", "m.txt"], "-f is about an archive"),
        ([], "Missing option '-o'"),
    ],
)
def test_an_export_refuses_flags_that_have_no_effect(flags: list[str], message: str) -> None:
    ran = airgap("export", CATALOG, *flags)
    assert ran.status == 2
    assert message in ran.err


def test_a_file_based_catalog_is_announced_to_olm_v1_too(tmp_path: Path) -> None:
    catalog = CATALOGS / "file-based" / "opreg-fbc-dir"
    into = ("--manifests-only", "--for", "localhost:5000", "--to-manifests", tmp_path)
    assert airgap("export", catalog, *into).status == 0
    (old,) = yaml.safe_load_all((tmp_path / "catalogSource.yaml").read_text())
    (new,) = yaml.safe_load_all((tmp_path / "clusterCatalog.yaml").read_text())
    assert new["kind"] == "ClusterCatalog"
    assert new["metadata"]["name"] == old["metadata"]["name"]
    assert new["spec"]["source"]["image"]["ref"] == old["spec"]["image"]


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}
