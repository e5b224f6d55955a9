"""What a run costs: memory that does not grow with the archive, and each byte written once."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from airgap.registry.directory import DirectoryStore
from airgap.serving import serve_directory
from tests.support.lab import CATALOG, CATALOGS, Lab, Recipe, build_lab
from tests.support.upstream import StoreUpstream
from tests.support.watched import ROOT, Cost, watched

if TYPE_CHECKING:
    from pathlib import Path

MEGABYTE = 1_000_000
MEMORY = 150 * MEGABYTE
SLACK = MEGABYTE
"""For what does not grow with the content: the state file, the log, a copy of the database."""


@pytest.mark.parametrize(
    ("recipe", "megabytes"),
    [
        pytest.param(Recipe(layer_bytes=640 << 10, padding=20), 60, id="60-MB"),
        pytest.param(
            Recipe(layers=3, layer_bytes=3 << 20, padding=80),
            1000,
            id="1-GB",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_little_memory_is_needed_and_each_byte_is_written_once(
    recipe: Recipe, megabytes: int, tmp_path: Path
) -> None:
    store = DirectoryStore(tmp_path / "upstream", durable=False)
    lab = build_lab(CATALOGS / "oc-test.db", StoreUpstream(store), recipe=recipe)
    archive = tmp_path / "olm.tar"
    exported = export(lab, archive)
    size = archive.stat().st_size
    assert size > megabytes * MEGABYTE
    assert exported.memory < MEMORY
    assert exported.written <= 1.01 * size + written_twice(lab) + SLACK

    imported = import_(archive)
    assert imported.memory < MEMORY
    assert imported.written < SLACK


def export(lab: Lab, archive: Path) -> Cost:
    folder = archive.parent
    conf = folder / "registries.conf"
    with serve_directory(folder / "upstream", read_only=True) as server:
        conf.write_text(lab.registries_conf(server.host))
        return run(folder, "export", CATALOG, "-o", archive, "--registries-conf", conf)


def import_(archive: Path) -> Cost:
    folder = archive.parent
    with serve_directory(folder / "destination", durable=False) as server:
        into = ("--insecure", "--to-manifests", folder / "manifests")
        return run(folder, "import", archive, server.host, *into)


def run(folder: Path, *arguments: object) -> Cost:
    command = watched(folder / "cost.json", *arguments)
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=250)
    cost = Cost.read(folder / "cost.json")
    print(f"{arguments[0]}: {cost}")
    return cost


def written_twice(lab: Lab) -> int:
    """Manifests and the catalog's own blobs: fetched before they can have their places."""
    images = (lab.catalog_image, *lab.images.values())
    manifests = {digest: size for image in images for digest, size in image.manifests.items()}
    return sum(manifests.values()) + sum(lab.catalog_image.blobs.values())
