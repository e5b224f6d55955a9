"""A medium that is pulled out while it is read: said so, nothing half done, and continued."""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from airgap.reference import ImageReference
from airgap.serving import serve_archive
from tests.support.command import airgap
from tests.support.disks import FailingDisk
from tests.support.lab import Recipe
from tests.support.promise import keeps
from tests.support.site import Site, Supply, open_site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airgap.registry.http_server import Response
    from tests.support.faults import Exchange

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mkfs.ext2") is None, reason="only root can mount a disk"
)

FORMS = ["plain", "compressed", "volumes"]


@pytest.fixture(scope="module")
def supply(tmp_path_factory: pytest.TempPathFactory) -> Supply:
    recipe = Recipe(layer_bytes=200_000, huge_layer=6 << 20)
    return Supply.make(tmp_path_factory.mktemp("supply"), recipe)


@pytest.fixture(scope="module")
def forms(supply: Supply, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """The files of an archive, in every form."""
    folder = tmp_path_factory.mktemp("forms")
    with open_site(folder, supply) as site:
        files = {"plain": [folder / "plain.tar"], "compressed": [folder / "compressed.tar"]}
        assert site.export(archive=files["plain"][0]).status == 0
        assert site.export("--zstd", archive=files["compressed"][0]).status == 0
        assert (
            airgap("split", files["plain"][0], "--volume-size", "5MB", "-o", folder / "v").status
            == 0
        )
        files["volumes"] = sorted(folder.glob("v.*.tar"))
        assert len(files["volumes"]) > 1
        assert site.import_(archive=files["plain"][0]).status == 0
    return files


@pytest.fixture
def site(supply: Supply, tmp_path: Path) -> Iterator[Site]:
    with open_site(tmp_path, supply) as site:
        yield site


@pytest.fixture
def disk(
    request: pytest.FixtureRequest, forms: dict[str, list[Path]], tmp_path: Path
) -> Iterator[FailingDisk]:
    with closing(FailingDisk(tmp_path, forms[request.param])) as disk:
        yield disk


@pytest.fixture(scope="module")
def arrived(forms: dict[str, list[Path]]) -> dict[str, bytes]:
    return keeps(forms["plain"][0].parent / "destination")


def on(disk: FailingDisk) -> Path:
    """Return what a command is given: the file, or the directory with the volumes."""
    files = sorted(disk.path.glob("*.tar"))
    return files[0] if len(files) == 1 else disk.path


def assert_told(status: int, told: str, disk: FailingDisk) -> None:
    assert status == 6
    assert f"{disk.path}/" in told
    assert "Input/output error" in told
    assert "run the same command again" in told
    assert "Traceback" not in told


@pytest.mark.parametrize("disk", FORMS, indirect=True)
@pytest.mark.parametrize("upload", [1, 20])
@pytest.mark.parametrize("flags", [[], ["--wait"]])
def test_an_import_stops_and_is_continued(
    site: Site, disk: FailingDisk, arrived: dict[str, bytes], upload: int, flags: list[str]
) -> None:
    def pull(exchange: Exchange) -> Response:
        disk.pull()
        return exchange.honest()

    site.destination.fault("POST", ".*/blobs/uploads/.*", pull, hits=(upload,))
    ran = site.import_(*flags, archive=on(disk))
    assert_told(ran.status, ran.err, disk)
    there = keeps(site.folder / "destination")
    assert there.items() <= arrived.items()
    assert not (site.manifests / "receipt.json").exists()
    site.destination.heal()
    disk.plug_in()
    assert site.import_(*flags, archive=on(disk)).status == 0
    assert keeps(site.folder / "destination") == arrived


@pytest.mark.parametrize("form", ["plain", "compressed"])
def test_an_archive_that_is_cut_while_it_is_imported_costs_what_is_lost(
    site: Site, forms: dict[str, list[Path]], arrived: dict[str, bytes], form: str, tmp_path: Path
) -> None:
    archive = tmp_path / "cut.tar"
    data = forms[form][0].read_bytes()
    archive.write_bytes(data)

    def cut(exchange: Exchange) -> Response:
        os.truncate(archive, len(data) // 2)
        return exchange.honest()

    site.destination.fault("POST", ".*/blobs/uploads/.*", cut, hits=(1,))
    assert site.import_(archive=archive).status == 4
    assert keeps(site.folder / "destination").items() <= arrived.items()
    asked = len(site.destination.asked)
    again = site.import_(archive=archive)
    assert (again.status, "cut short" in again.err) == (4, True)
    assert len(site.destination.asked) == asked
    archive.write_bytes(data)
    assert site.import_(archive=archive).status == 0
    assert keeps(site.folder / "destination") == arrived


@pytest.mark.parametrize("disk", ["plain", "compressed"], indirect=True)
@pytest.mark.parametrize("command", ["import", "verify"])
def test_a_stream_from_a_medium_that_is_pulled_out_says_where_it_broke_off(
    disk: FailingDisk, site: Site, command: str
) -> None:
    into = [site.destination.host, "--insecure", "--to-manifests", site.manifests]
    typed = [command, "-", *(into if command == "import" else [])]
    with on(disk).open("rb") as stream:
        disk.pull()
        ran = subprocess.run(
            [sys.executable, "-m", "airgap", *map(str, typed)],
            stdin=stream, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
    assert ran.returncode == 6
    assert "standard input: Input/output error after 0 bytes" in ran.stderr
    assert "send the archive again" in ran.stderr


@pytest.mark.parametrize("disk", FORMS, indirect=True)
def test_a_medium_that_is_gone_before_the_first_request(site: Site, disk: FailingDisk) -> None:
    archive = on(disk)
    disk.pull()
    ran = site.import_(archive=archive)
    assert_told(ran.status, ran.err, disk)
    assert site.destination.asked == []


@pytest.mark.parametrize("disk", FORMS, indirect=True)
def test_verify_says_that_the_medium_fails_and_not_that_the_archive_is_damaged(
    disk: FailingDisk,
) -> None:
    archive = on(disk)
    disk.pull()
    ran = airgap("verify", archive)
    assert_told(ran.status, ran.err, disk)
    disk.plug_in()
    assert airgap("verify", archive).status == 0


@pytest.mark.parametrize("disk", ["plain", "compressed"], indirect=True)
def test_what_is_served_breaks_off_and_is_there_again(supply: Supply, disk: FailingDisk) -> None:
    told: list[str] = []
    image = max(supply.lab.images.values(), key=lambda image: max(image.blobs.values()))
    digest = max(image.blobs, key=lambda blob: image.blobs[blob])
    with serve_archive([on(disk)], say=told.append) as served:
        host = served.url.removeprefix("http://")

        def fetch() -> int | None:
            """Return how much comes of the blob, None when it breaks off."""
            with closing(http.client.HTTPConnection(host, timeout=30)) as connection:
                try:
                    connection.request("GET", f"/v2/{name}/blobs/{digest}")
                    return len(connection.getresponse().read())
                except (http.client.IncompleteRead, ConnectionError):
                    return None

        name = ImageReference.parse(image.reference).repository
        assert fetch() == image.blobs[digest]
        disk.pull()
        assert fetch() is None
        assert any("Input/output error" in line for line in told)
        disk.plug_in()
        assert fetch() == image.blobs[digest]
