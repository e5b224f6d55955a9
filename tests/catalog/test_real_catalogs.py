from __future__ import annotations

import csv
from pathlib import Path

import pytest
import zstandard

from airgap.catalog import sqlite
from airgap.catalog.read import DATABASE_LABEL, read
from airgap.catalog.tree import LocalFile
from tests.support.layers import file, layer, tree
from tests.support.shared import SHARED

_HERE = Path(__file__).resolve().parents[1] / "data" / "catalogs"


def _folders() -> list[Path]:
    shared = (
        [SHARED / "catalogs" / name for name in ("sqlite-real", "sqlite-synthetic")]
        if (SHARED)
        else []
    )
    return [_HERE, *shared]


def _databases() -> list[Path]:
    return sorted(path for folder in _folders() for path in folder.glob("*.db*"))


@pytest.fixture(params=_databases(), ids=lambda path: f"{path.parent.name}/{path.name}")
def published(request: pytest.FixtureRequest) -> Path:
    """A published catalog's database, with what is known about it beside."""
    path: Path = request.param
    return path


def _unpacked(path: Path, folder: Path) -> Path:
    if path.suffix != ".zst":
        return path
    unpacked = folder / path.stem
    with path.open("rb") as packed, unpacked.open("wb") as target:
        zstandard.ZstdDecompressor().copy_stream(packed, target)
    return unpacked


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name.partition(".db")[0] + ending)


def test_gives_exactly_the_images_that_oc_collects(published: Path, tmp_path: Path) -> None:
    catalog = sqlite.read(LocalFile.at(_unpacked(published, tmp_path)))
    expected = _beside(published, ".images.txt").read_text("utf-8").splitlines()
    assert list(catalog.images) == expected
    assert catalog.problems == ()


def test_knows_which_bundle_wants_which_image(published: Path, tmp_path: Path) -> None:
    pairs = _beside(published, ".tsv")
    if not pairs.exists():
        pytest.skip(f"no {pairs.name}")
    catalog = sqlite.read(LocalFile.at(_unpacked(published, tmp_path)))
    with pairs.open(encoding="utf-8", newline="") as lines:
        expected = {(image, bundle) for image, bundle in csv.reader(lines, delimiter="\t")}
    assert {
        (image, bundle.name) for image, bundles in catalog.wanted().items() for bundle in bundles
    } == expected


def test_places_every_bundle_in_packages_and_channels(published: Path, tmp_path: Path) -> None:
    catalog = sqlite.read(LocalFile.at(_unpacked(published, tmp_path)))
    bundles = {(bundle.package, bundle.name) for bundle in catalog.bundles}
    assert len(bundles) == len(catalog.bundles)
    for package in catalog.packages:
        assert package.default_channel in {channel.name for channel in package.channels}
        for channel in package.channels:
            entries = {entry.bundle for entry in channel.entries}
            assert channel.head in entries or not entries
            assert {(package.name, name) for name in entries} <= bundles


def test_is_found_in_an_image(published: Path, tmp_path: Path) -> None:
    content = _unpacked(published, tmp_path).read_bytes()
    image = tree(layer(file("etc/os-release")), layer(file("database/index.db", content)))
    catalog = sqlite.read(LocalFile.at(_unpacked(published, tmp_path)))
    for labels in ({}, {DATABASE_LABEL: "/database/index.db"}):
        found = read(image, labels)
        assert (found.catalog, found.format, found.path) == (catalog, "sqlite", "database/index.db")
