"""What a mirror would need, from the catalog alone."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from airgap.lister import ListResult, list_images
from airgap.manifests import ManifestsOptions
from airgap.plan import Question
from airgap.registry.access import Access
from tests.support.lab import CATALOG
from tests.support.site import Site, Supply, open_site

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


def _list(site: Site, destination: str, **question: tuple[str, ...]) -> ListResult:
    return list_images(
        Question((CATALOG,), "linux/amd64", **question),  # type: ignore[arg-type] # tuples only
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
    assert 0 < _list(site, site.destination.host, packages=("etcd",)).images < everything


def test_the_command_says_where_the_database_is_and_asks_the_destination_nothing(
    site: Site,
) -> None:
    ran = site.mirror("--manifests-only", "-q")
    assert ran.status == 0
    assert f"database  {site.manifests}/bundles.db" in ran.out
    assert (site.manifests / "mapping.txt").exists()
    assert site.destination.asked == []
