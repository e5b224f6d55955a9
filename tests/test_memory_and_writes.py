"""What a run costs: memory that does not grow with the archive, and each byte written once."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING, BinaryIO

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
HUGE = 200 << 20
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


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """An archive with one very large blob, plain and compressed."""
    folder = tmp_path_factory.mktemp("large")
    recipe = Recipe(layers=3, layer_bytes=1 << 20, padding=20, huge_layer=HUGE)
    lab = build_lab(
        CATALOGS / "oc-test.db",
        StoreUpstream(DirectoryStore(folder / "upstream", durable=False)),
        recipe=recipe,
    )
    archives = {False: folder / "olm.tar", True: folder / "olm.tar.zst"}
    for archive in archives.values():
        assert export(lab, archive).memory < MEMORY
        assert archive.stat().st_size > 300 * MEGABYTE
    return archives


@pytest.mark.slow
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("window", [None, "64MiB"])
def test_a_large_blob_needs_no_more_memory_from_a_file_or_a_stream(
    large: dict[bool, Path], compressed: bool, window: str | None
) -> None:
    archive = large[compressed]
    for directory in ("destination", "manifests"):
        shutil.rmtree(archive.parent / directory, ignore_errors=True)
    if window is None:
        assert import_(archive).memory < MEMORY
        return
    with archive.open("rb") as stream:
        cost = import_(archive, stream, "--window", window)
    assert cost.memory < MEMORY
    # The blobs that gather are written to a temporary file, and the large one is none of them.
    assert cost.written < large[False].stat().st_size - HUGE


def export(lab: Lab, archive: Path) -> Cost:
    folder = archive.parent
    conf = folder / "registries.conf"
    with serve_directory(folder / "upstream", read_only=True) as server:
        conf.write_text(lab.registries_conf(server.host))
        return run(folder, "export", CATALOG, "-o", archive, "--registries-conf", conf)


def import_(archive: Path, stream: BinaryIO | None = None, *flags: object) -> Cost:
    folder = archive.parent
    with serve_directory(folder / "destination", durable=False) as server:
        into = ("--insecure", "--to-manifests", folder / "manifests", *flags)
        return run(folder, "import", "-" if stream else archive, server.host, *into, stdin=stream)


def run(folder: Path, *arguments: object, stdin: BinaryIO | None = None) -> Cost:
    command = watched(folder / "cost.json", *arguments)
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=250, stdin=stdin)
    cost = Cost.read(folder / "cost.json")
    print(f"{arguments[0]}: {cost}")
    return cost


def written_twice(lab: Lab) -> int:
    """Manifests and the catalog's own blobs: fetched before they can have their places."""
    images = (lab.catalog_image, *lab.images.values())
    manifests = {digest: size for image in images for digest, size in image.manifests.items()}
    return sum(manifests.values()) + sum(lab.catalog_image.blobs.values())
