from __future__ import annotations

import tempfile
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from airgap import exporter
from airgap.archive.reader import ArchiveReader
from airgap.browser import open_catalog
from airgap.catalog.as_database import save
from airgap.catalog.read import read_local
from airgap.catalog.select import PackageChoice
from airgap.errors import (
    ArchiveError,
    CatalogError,
    IntegrityError,
    Interrupted,
    NotFound,
    StorageError,
    Unreachable,
    UsageError,
)
from airgap.registry import retry
from airgap.registry.access import Access
from tests.catalog.test_packagemanifests import CHAIN
from tests.catalog.test_real_catalogs import as_file_based
from tests.support.lab import CATALOG, CATALOGS
from tests.support.shared import needs_shared, shared
from tests.support.site import SMALL, Site, Supply, open_site
from tests.support.trees import written

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airgap.catalog.query import Answer

MANIFESTS = CATALOGS / "package-manifests" / "pkgman-flat"
DOCUMENTED = "select * from related_image where operatorbundle_name like 'etcdoperator.v0.9%'"
ROWS = (
    "SELECT * FROM related_image ORDER BY 2, 1",
    "SELECT name, version FROM operatorbundle ORDER BY 1",
    "SELECT * FROM package ORDER BY 1",
    "SELECT * FROM channel ORDER BY 2, 1",
    "SELECT entry.package_name, entry.channel_name, entry.operatorbundle_name, entry.depth,"
    " lower.operatorbundle_name FROM channel_entry entry"
    " LEFT JOIN channel_entry lower ON lower.entry_id = entry.replaces ORDER BY 1, 2, 3, 4, 5",
)


@pytest.fixture(scope="module")
def supply(tmp_path_factory: pytest.TempPathFactory) -> Supply:
    return Supply.make(tmp_path_factory.mktemp("upstream"))


@pytest.fixture
def site(tmp_path: Path, supply: Supply, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(retry, "_FIRST_DELAY", 0.001)
    with open_site(tmp_path, supply) as site:
        yield site


@pytest.fixture
def exported(site: Site) -> Site:
    _export(site, CATALOG)
    return site


def _access(site: Site) -> Access:
    return Access(registries_conf=site.registries_conf)


def _export(site: Site, *catalogs: str, platform: str = "linux/amd64") -> None:
    exporter.export(catalogs, site.archive, access=_access(site), platform=platform)


def _asked(source: Path, sql: str) -> Answer:
    with open_catalog(str(source)) as catalog:
        return catalog.query(sql)


class TestEveryFormat:
    @pytest.fixture
    def sources(self, tmp_path: Path) -> list[Path]:
        """The same operators as package manifests, as a database and as a file-based catalog."""
        tree, found = read_local(MANIFESTS)
        save(tree, found, tmp_path / "bundles.db")
        files: dict[str, str | bytes] = {"index.yaml": as_file_based(found.catalog)}
        return [MANIFESTS, tmp_path / "bundles.db", written(tmp_path / "configs", files)]

    def test_is_what_it_is(self, sources: list[Path]) -> None:
        formats = []
        for source in sources:
            with open_catalog(str(source)) as catalog:
                formats.append(catalog.found.format)
        assert formats == ["package-manifests", "sqlite", "file-based"]

    @pytest.mark.parametrize("sql", [DOCUMENTED, *ROWS])
    def test_answers_with_the_same_rows(self, sources: list[Path], sql: str) -> None:
        manifests, database, file_based = (_asked(source, sql) for source in sources)
        assert manifests.rows
        assert manifests == database == file_based

    def test_lists_the_same(self, sources: list[Path]) -> None:
        listings = []
        for source in sources:
            with open_catalog(str(source)) as catalog:
                listings.append((catalog.list_packages().packages, catalog.list_images().images))
        assert listings[0] == listings[1] == listings[2]
        assert [package.name for package in listings[0][0]] == ["etcd", "strimzi-kafka-operator"]

    @needs_shared
    @pytest.mark.parametrize("sql", ROWS)
    def test_answers_as_a_database_made_by_others(self, sql: str) -> None:
        made = shared("catalogs/sqlite-synthetic/pkgman-small-mig13.db")
        assert _asked(shared("catalogs/pkgman-small"), sql) == _asked(made, sql)


class TestAnArchive:
    def test_shows_what_the_image_in_its_registry_shows(self, exported: Site) -> None:
        with (
            open_catalog(str(exported.archive)) as archive,
            open_catalog(CATALOG, access=_access(exported)) as image,
        ):
            assert archive.found == image.found
            for sql in (DOCUMENTED, *ROWS):
                answer = archive.query(sql)
                assert answer == image.query(sql)
                assert answer.rows
            assert [(i.reference, i.bundles) for i in archive.list_images().images] == [
                (i.reference, i.bundles) for i in image.list_images().images
            ]
            assert archive.list_packages().exit_status == 0
            sizes = [p.size for p in image.list_packages().packages]
            assert sizes == [None, None]

    def test_knows_what_its_images_take_up(self, exported: Site) -> None:
        with open_catalog(str(exported.archive)) as catalog, ArchiveReader(exported.archive) as it:
            listing, one = catalog.list_packages(), catalog.list_images().images
            related = [n for n, image in enumerate(it.plan.images) if n]
            assert listing.size == it.plan.size_of(related)
            assert all(image.size for image in one)
            assert all(0 < (p.size or 0) < (listing.size or 0) for p in listing.packages)
            assert sum(image.size or 0 for image in one) >= (listing.size or 0)

    def test_knows_no_size_of_an_image_that_it_has_not(self, site: Site) -> None:
        lost = next(iter(site.supply.lab.images.values()))
        site.upstream.hide(lost.root)
        _export(site, CATALOG)
        with open_catalog(str(site.archive)) as catalog:
            sizes = {image.reference: image.size for image in catalog.list_images().images}
        assert [image for image, size in sizes.items() if size is None] == [lost.reference]

    def test_knows_no_size_of_a_package_that_it_has_not(self, site: Site) -> None:
        assert site.export("-q", "--package", "etcd").status == 0
        with open_catalog(str(site.archive)) as catalog:
            sizes = {package.name: package.size for package in catalog.list_packages().packages}
        assert [name for name, size in sizes.items() if size is not None] == ["etcd"]

    def test_with_several_catalogs_is_read_for_one(self, site: Site) -> None:
        pinned = f"quay.io/lab/catalog@{site.supply.lab.catalog_digest}"
        _export(site, CATALOG, pinned)
        with (
            pytest.raises(UsageError, match="one catalog must be chosen") as caught,
            open_catalog(str(site.archive)),
        ):
            pass
        assert f"{CATALOG}, {pinned}" in caught.value.message
        with open_catalog(str(site.archive), catalog=pinned) as catalog:
            assert catalog.list_packages().packages

    def test_is_not_read_for_a_catalog_that_it_has_not(self, exported: Site) -> None:
        with (
            pytest.raises(UsageError, match=f"no catalog other in it; it holds {CATALOG}"),
            open_catalog(str(exported.archive), catalog="other"),
        ):
            pass

    def test_is_read_for_the_platform_it_was_made_for(self, tmp_path: Path) -> None:
        recipe = replace(SMALL, catalog_multi_arch=True)
        with open_site(tmp_path, Supply.make(tmp_path / "upstream", recipe)) as site:
            _export(site, CATALOG, platform="linux/s390x")
            with open_catalog(str(site.archive)) as catalog:
                assert catalog.list_images().images
            with (
                pytest.raises(UsageError, match="0 variants of the catalog fit 'nothing'"),
                open_catalog(str(site.archive), platform="nothing"),
            ):
                pass

    def test_with_a_damaged_catalog_is_refused(self, exported: Site) -> None:
        with ArchiveReader(exported.archive) as reader:
            layers = reader.plan.blobs_of(reader.plan.images[0])
            place = reader.layout.blob(max(layers, key=lambda n: reader.plan.blobs[n].size))
        content = bytearray(exported.archive.read_bytes())
        content[place.content + place.size - 1] ^= 1
        exported.archive.write_bytes(content)
        with (
            pytest.raises(IntegrityError, match=r"olm\.tar: damaged"),
            open_catalog(str(exported.archive)),
        ):
            pass

    def test_that_lacks_its_catalog_is_refused(self, exported: Site) -> None:
        with ArchiveReader(exported.archive) as reader:
            number = reader.plan.blobs_of(reader.plan.images[0])[-1]
            place, hole = reader.layout.blob(number), reader.layout.blob(number).absent
        content = bytearray(exported.archive.read_bytes())
        content[place.offset : place.offset + len(hole.header)] = hole.header
        exported.archive.write_bytes(content)
        with (
            pytest.raises(ArchiveError, match="is not in it"),
            open_catalog(str(exported.archive)),
        ):
            pass

    def test_of_other_tools_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "oci.tar").write_bytes(b"oci-layout" + bytes(10_230))
        with (
            pytest.raises(ArchiveError, match="not an airgap archive"),
            open_catalog(str(tmp_path / "oci.tar")),
        ):
            pass


class TestAnImage:
    def test_is_read_without_asking_for_any_other(self, site: Site) -> None:
        with open_catalog(CATALOG, access=_access(site)) as catalog:
            assert catalog.list_images().images
            assert catalog.query(DOCUMENTED).rows
        paths = {asked.path for asked in site.upstream.asked} - {"/v2/"}
        assert paths
        assert all(path.startswith("/v2/quay.io/lab/catalog/") for path in paths)

    def test_leaves_nothing_on_the_disk(
        self, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = tmp_path / "temporary"
        folder.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        with open_catalog(CATALOG, access=_access(site)) as catalog:
            assert list(folder.iterdir())
            with pytest.raises(UsageError):
                catalog.query("nonsense")
        with pytest.raises(NotFound), open_catalog("quay.io/lab/none:v1", access=_access(site)):
            pass
        assert list(folder.iterdir()) == []

    def test_without_a_place_for_its_content_is_refused(
        self, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
        with (
            pytest.raises(StorageError, match="no temporary directory"),
            open_catalog(CATALOG, access=_access(site)),
        ):
            pass

    def test_of_a_registry_that_is_not_there_is_refused(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(retry, "_FIRST_DELAY", 0.001)
        with pytest.raises(Unreachable), open_catalog("localhost:1/lab/catalog:v1"):
            pass

    def test_without_a_catalog_is_refused(self, site: Site) -> None:
        name = next(iter(site.supply.lab.images.values())).reference
        with pytest.raises(CatalogError), open_catalog(name, access=_access(site)):
            pass


class TestWhatIsNoSource:
    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ("bundles.db", "bundles.db: no such file or directory$"),
            ("catalog:v1", "no such file or directory$"),
            ("/no/such/directory", "no such file or directory$"),
            ("./bundles.db", "no such file or directory$"),
            ("", "no such file or directory$"),
            ("https://quay.io/a/b:v1", "no such file or directory, and not an image reference"),
            ("quay.io/" + "a" * 5000, "not an image reference"),
            ("quay.io/a\0b", "not an image reference"),
        ],
        ids=lambda text: text[:20].replace("\0", "0"),
    )
    def test_is_refused(
        self, source: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(UsageError, match=message), open_catalog(source):
            pass

    @pytest.mark.parametrize("content", [b"", b"some text", bytes(20_000)])
    def test_though_it_is_a_file_is_refused(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "file").write_bytes(content)
        with (
            pytest.raises(CatalogError, match="neither an archive of airgap nor a catalog's"),
            open_catalog(str(tmp_path / "file")),
        ):
            pass

    def test_though_it_is_a_directory_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(CatalogError, match="no catalog in"), open_catalog(str(tmp_path)):
            pass

    def test_holds_no_several_catalogs(self) -> None:
        with (
            pytest.raises(UsageError, match="holds one catalog at most"),
            open_catalog(str(MANIFESTS), catalog=CATALOG),
        ):
            pass

    def test_what_is_on_disk_comes_first(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(site.folder)
        written(site.folder / CATALOG, CHAIN)
        with open_catalog(CATALOG, access=_access(site)) as catalog:
            assert [package.name for package in catalog.list_packages().packages] == ["etcd"]
        assert site.upstream.asked == []


class TestParts:
    def test_images_may_be_those_of_a_part(self) -> None:
        with open_catalog(str(MANIFESTS)) as catalog:
            part = catalog.list_images([PackageChoice.parse("etcd@head")])
            whole = catalog.list_images()
        assert {bundle for image in part.images for bundle in image.bundles} == {
            "etcdoperator.v0.9.0",
            "etcdoperator.v0.9.2",
        }
        assert {image.reference for image in part.images} < {i.reference for i in whole.images}

    def test_that_cannot_be_read_cost_themselves(self, tmp_path: Path) -> None:
        written(tmp_path, CHAIN | {"4/a.yaml": "kind: [ClusterServiceVersion"})
        with open_catalog(str(tmp_path)) as catalog:
            listing, wanted = catalog.list_packages(), catalog.list_images()
        assert (listing.exit_status, wanted.exit_status) == (3, 3)
        assert listing.bundles == 3
        assert [line.partition(":")[0] for line in listing.unreadable] == ["4/a.yaml"]

    @pytest.mark.parametrize(
        "files",
        [
            {"etcd.package.yaml": "packageName: [etcd", "a.yaml": "kind: ["},
            {"a.yaml": "schema: olm.package\nname: [1]\n---\nschema: olm.channel\nname: []\n"},
        ],
        ids=["package-manifests", "file-based"],
    )
    def test_that_are_all_unreadable_are_no_catalog(
        self, tmp_path: Path, files: dict[str, str | bytes]
    ) -> None:
        written(tmp_path, files)
        with (
            pytest.raises(CatalogError, match=rf"^{tmp_path}: n.*a\.yaml: document 1"),
            open_catalog(str(tmp_path)),
        ):
            pass

    def test_a_query_that_is_stopped_ends(self) -> None:
        stop = threading.Event()
        stop.set()
        endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT max(i) FROM n"
        with open_catalog(str(MANIFESTS)) as catalog, pytest.raises(Interrupted):
            catalog.query(endless, stop=stop)
