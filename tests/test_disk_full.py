"""A medium that fills: the run stops cleanly, and continues when there is room again."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from tests.support.disks import remount, small_disk
from tests.support.lab import Recipe
from tests.support.promise import same_bytes
from tests.support.site import Site, Supply, open_site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airgap.registry.http_server import Response
    from tests.support.command import Ran
    from tests.support.faults import Exchange

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mount") is None, reason="only root can mount a tmpfs"
)

RECIPE = Recipe(layer_bytes=32 << 10)
PAGE = 4096
SIZES = 20
MOMENTS = 10

POINTS = [
    pytest.param(n, id=f"{n}-of-{SIZES}", marks=() if n in (0, 7, 19) else pytest.mark.slow)
    for n in range(SIZES)
]
WHEN = [
    pytest.param(n, id=f"at-{n}-of-{MOMENTS}", marks=() if n in (1, 8) else pytest.mark.slow)
    for n in range(MOMENTS)
]


@pytest.fixture(scope="module")
def supply(tmp_path_factory: pytest.TempPathFactory) -> Supply:
    return Supply.make(tmp_path_factory.mktemp("supply"), RECIPE)


@pytest.fixture(scope="module")
def golden(supply: Supply, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The archive of an undisturbed run, and how many requests that made."""
    with open_site(tmp_path_factory.mktemp("golden"), supply) as site:
        assert site.export().status == 0
        return site.archive, len(site.upstream.asked)


@pytest.fixture
def site(supply: Supply, tmp_path: Path) -> Iterator[Site]:
    with open_site(tmp_path, supply) as site:
        yield site


class Medium:
    """A small file system; ``folder`` is where it is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def resize(self, size: int) -> None:
        remount(self.folder, f"size={size}")

    def fill(self, left: int = 0) -> None:
        """Let somebody else use all room but ``left`` bytes."""
        with self._filler.open("wb", buffering=0) as file:
            for piece in (bytes(1 << 20), bytes(PAGE)):
                with suppress(OSError):
                    while file.write(piece) == len(piece):
                        pass
            file.truncate(file.tell() // PAGE * PAGE - left)

    def clear(self) -> None:
        self._filler.unlink()


@contextmanager
def mounted(folder: Path, size: int) -> Iterator[Medium]:
    with small_disk(folder, size):
        yield Medium(folder)


def assert_stopped_cleanly(ran: Ran, path: Path) -> None:
    assert ran.status == 6
    assert str(path) in ran.err
    assert "Traceback" not in ran.err
    assert "space" in ran.err and "again" in ran.err


@pytest.mark.parametrize("point", POINTS)
def test_an_export_onto_a_small_medium(
    site: Site, golden: tuple[Path, int], tmp_path: Path, point: int
) -> None:
    whole = golden[0].stat().st_size
    with mounted(tmp_path / "medium", max(PAGE, whole * point // SIZES)) as medium:
        archive = medium.folder / "olm.tar"
        assert_stopped_cleanly(site.export(archive=archive), archive)
        assert not archive.exists()
        medium.resize(3 * whole)
        assert site.export(archive=archive).status == 0
        assert same_bytes(archive, golden[0])
        assert [path.name for path in medium.folder.iterdir()] == ["olm.tar"]


@pytest.mark.parametrize("when", WHEN)
def test_an_export_onto_a_medium_that_somebody_else_fills(
    site: Site, golden: tuple[Path, int], tmp_path: Path, when: int
) -> None:
    whole, requests = golden[0].stat().st_size, golden[1]
    with mounted(tmp_path / "medium", 3 * whole) as medium:
        archive = medium.folder / "olm.tar"

        def fill(exchange: Exchange) -> Response:
            medium.fill(left=when * PAGE)
            return exchange.honest()

        site.upstream.fault(".*", ".*", fill, hits=(1 + requests * when // MOMENTS,))
        ran = site.export(archive=archive)
        site.upstream.heal()
        medium.clear()
        # Late in the run, what is still to come may fit into the room that is left.
        if ran.status or when < MOMENTS // 2:
            assert_stopped_cleanly(ran, archive)
            before = len(site.upstream.asked)
            assert site.export(archive=archive).status == 0
            assert len(site.upstream.asked) - before < requests or when == 0
        assert same_bytes(archive, golden[0])


@pytest.mark.parametrize("left", [0, PAGE, 3 * PAGE])
def test_an_import_whose_files_have_no_room(
    site: Site, golden: tuple[Path, int], tmp_path: Path, left: int
) -> None:
    with mounted(tmp_path / "medium", 1 << 20) as medium:
        manifests = medium.folder / "manifests"
        flags = ("--to-manifests", manifests)
        medium.fill(left)
        assert_stopped_cleanly(site.import_(*flags, archive=golden[0]), manifests)
        medium.clear()
        assert site.import_(*flags, archive=golden[0]).status == 0
        names = {path.name for path in manifests.iterdir()}
        assert {"mapping.txt", "receipt.json"} <= names
        assert not [name for name in names if name.endswith(".new")]
