"""Exports of a part of a catalog, and of catalogs in every format."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from airgap.catalog import formats, read
from airgap.registry.directory import DirectoryStore
from tests.support.images import file_layer, image, layer
from tests.support.lab import CATALOG, CATALOGS, Recipe, build_lab
from tests.support.site import Site, Supply, open_site
from tests.support.upstream import StoreUpstream, put

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.command import Ran


@pytest.fixture(scope="module")
def supply(tmp_path_factory: pytest.TempPathFactory) -> Supply:
    folder = tmp_path_factory.mktemp("supply")
    upstream = StoreUpstream(DirectoryStore(folder, durable=False))
    lab = build_lab(CATALOGS / "opreg-indexer-2020.db", upstream, recipe=Recipe(layer_bytes=512))
    return Supply(folder, lab)


@pytest.fixture
def site(supply: Supply, tmp_path: Path) -> Iterator[Site]:
    with open_site(tmp_path, supply) as opened:
        yield opened


def _wanted_by(site: Site, *packages: str) -> set[str]:
    """Ask the original database, with SQL of our own, and translate to the laboratory's names."""
    marks = ",".join("?" * len(packages))
    bundles = (
        f"select distinct operatorbundle_name from channel_entry where package_name in ({marks})"
    )
    with closing(sqlite3.connect(CATALOGS / "opreg-indexer-2020.db")) as database:
        rows = database.execute(
            f"select image from related_image where operatorbundle_name in ({bundles})"
            f" union select bundlepath from operatorbundle where name in ({bundles})",
            packages * 2,
        )
        originals = {image for (image,) in rows if image}
    return {site.supply.lab.references.get(name, name) for name in originals}


def _images(ran: Ran) -> set[str]:
    return {image["reference"] for image in ran.json["images"]}


def _inspected(site: Site) -> Ran:
    from tests.support.command import airgap

    return airgap("inspect", site.archive, "--output", "json")


@pytest.mark.parametrize("packages", [("etcd",), ("prometheus",), ("etcd", "prometheus")])
def test_takes_what_the_chosen_packages_want_and_the_catalog(
    site: Site, packages: tuple[str, ...]
) -> None:
    flags = [word for package in packages for word in ("--package", package)]
    assert site.export("-q", *flags).status == 0
    found = _inspected(site)
    assert _images(found) == _wanted_by(site, *packages) | {CATALOG}
    assert {package["name"] for package in found.json["packages"]} == set(packages)


def test_the_heads_alone_are_less_than_the_package(site: Site) -> None:
    assert site.export("-q", "--package", "etcd@head").status == 0
    heads = _images(_inspected(site))
    assert {CATALOG} < heads < _wanted_by(site, "etcd") | {CATALOG}


def test_a_package_that_is_not_there_is_refused_with_what_is_near(site: Site) -> None:
    ran = site.export("-q", "--package", "ectd")
    assert ran.status == 2
    assert "ectd" in ran.err
    assert "etcd" in ran.err.replace("ectd", "")
    assert not site.archive.exists()


@pytest.mark.parametrize(
    "flags",
    [
        ("--package", "a:"),
        ("--package", "a@"),
        ("--exclude-image", "["),
        ("--image", "quay.io/A/b"),
    ],
)
def test_what_cannot_be_understood_is_refused_before_any_request(
    site: Site, flags: tuple[str, ...]
) -> None:
    before = len(site.upstream.asked)
    assert site.export("-q", *flags).status == 2
    assert len(site.upstream.asked) == before


def test_images_are_left_out_and_added(site: Site) -> None:
    extra = next(iter(_wanted_by(site, "prometheus")))
    ran = site.export(
        "-q", "--package", "etcd", "--exclude-image", "etcd-operator", "--image", extra
    )
    assert ran.status == 0
    found = _images(_inspected(site))
    assert extra in found
    assert not any("etcd-operator" in name for name in found)
    assert found == {n for n in _wanted_by(site, "etcd") if "etcd-operator" not in n} | {
        extra,
        CATALOG,
    }


def test_another_selection_is_another_question(site: Site) -> None:
    assert site.export("-q", "--package", "etcd").status == 0
    assert site.export("-q", "--package", "etcd").status == 0
    ran = site.export("-q", "--package", "prometheus")
    assert ran.status == 2
    assert "package etcd" in ran.err


def test_a_selection_arrives_and_the_files_name_nothing_else(site: Site) -> None:
    site.export("-q", "--package", "etcd")
    assert site.import_("-q").status == 0
    lines = (site.manifests / "mapping.txt").read_text().splitlines()
    assert len(lines) == len(_wanted_by(site, "etcd") | {CATALOG})
    assert not any("prometheus" in line for line in lines)


def _file_based(folder: Path, images: list[str], *, damaged: bool = False) -> dict[str, bytes]:
    documents = [
        {"schema": "olm.package", "name": "thing", "defaultChannel": "stable"},
        {
            "schema": "olm.channel",
            "package": "thing",
            "name": "stable",
            "entries": [{"name": "thing.v1"}],
        },
        {
            "schema": "olm.bundle",
            "package": "thing",
            "name": "thing.v1",
            "relatedImages": [{"name": str(n), "image": name} for n, name in enumerate(images)],
        },
    ]
    files = {"configs/thing/catalog.json": "\n".join(map(json.dumps, documents)).encode()}
    if damaged:
        files["configs/broken/catalog.json"] = b'{"schema": "olm.package", "name": '
    return files


@pytest.fixture
def file_based(site: Site) -> Iterator[tuple[str, set[str]]]:
    yield from _pushed(site, damaged=False)


def _pushed(site: Site, *, damaged: bool) -> Iterator[tuple[str, set[str]]]:
    images = sorted(_wanted_by(site, "etcd"))[:3]
    content = image(
        [layer(_file_based(site.folder, images, damaged=damaged))],
        labels={formats.CONFIGS_LABEL: "/configs"},
    )
    name = "file-based-damaged" if damaged else "file-based"
    put(DirectoryStore(site.supply.folder, durable=False), f"quay.io/lab/{name}", content, "v1")
    yield f"quay.io/lab/{name}:v1", set(images)


def test_a_file_based_catalog_is_exported(site: Site, file_based: tuple[str, set[str]]) -> None:
    catalog, images = file_based
    ran = site.export("-q", catalog=catalog)
    assert ran.status == 0
    found = _inspected(site)
    assert _images(found) == images | {catalog}
    assert [c["format"] for c in found.json["catalogs"]] == ["file-based"]
    assert [p["name"] for p in found.json["packages"]] == ["thing"]


def test_a_part_of_a_catalog_that_cannot_be_read_is_a_hole(site: Site) -> None:
    ((catalog, images),) = _pushed(site, damaged=True)
    ran = site.export("--output", "json", "-q", catalog=catalog)
    assert ran.status == 3
    (hole,) = ran.json["missing"]
    assert hole["reason"] == "unreadable"
    assert "broken/catalog.json" in hole["reference"]
    found = _inspected(site)
    assert found.status == 3
    assert _images(found) == images | {catalog}
    assert site.import_("-q").status == 3


def test_package_manifests_in_an_image_are_exported(site: Site) -> None:
    folder = CATALOGS / "package-manifests"
    top = next(path for path in sorted(folder.iterdir()) if path.is_dir())
    layers = [
        file_layer(f"manifests/{path.relative_to(top)}", path)
        for path in sorted(top.rglob("*"))
        if path.is_file()
    ]
    put(
        DirectoryStore(site.supply.folder, durable=False),
        "quay.io/lab/manifests",
        image(layers),
        "v1",
    )
    ran = site.export("-q", "--output", "json", catalog="quay.io/lab/manifests:v1")
    assert ran.status == 3  # its images are not in the laboratory
    _, found = read.read_local(top)
    missing = {hole["reference"] for hole in ran.json["missing"]}
    assert missing | _images(_inspected(site)) >= set(found.catalog.images)
    assert [c["format"] for c in _inspected(site).json["catalogs"]] == ["package-manifests"]
