"""Two processes at one archive: who comes second is told who holds it, and stops."""

from __future__ import annotations

import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.command import airgap_process, start_airgap
from tests.support.faults import stall
from tests.support.promise import same_bytes
from tests.support.site import Site, Supply, open_site

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

MANIFEST, BLOB = r"/v2/.*/manifests/.*", r"/v2/.*/blobs/sha256:.*"
STAGES = pytest.mark.parametrize("path", [MANIFEST, BLOB], ids=["planning", "fetching"])
SEVERAL = 8


@pytest.fixture(scope="module")
def supply(tmp_path_factory: pytest.TempPathFactory) -> Supply:
    return Supply.make(tmp_path_factory.mktemp("supply"))


@pytest.fixture
def site(supply: Supply, tmp_path: Path) -> Iterator[Site]:
    with open_site(tmp_path, supply) as site:
        yield site


@contextmanager
def stuck_export(site: Site, path: str, *, after: int = SEVERAL) -> Iterator[subprocess.Popen[str]]:
    """Run an export that stands still after some requests, as long as the ``with`` block lasts."""
    site.upstream.asked.clear()
    site.upstream.fault("GET", path, stall(60), hits=range(after + 1, 10_000))
    with start_airgap(*site.exporting(), folder=site.folder) as process:
        try:
            deadline = time.monotonic() + 30
            while site.upstream.count("GET", path) <= after:
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.01)
            yield process
        finally:
            process.kill()


@STAGES
def test_a_second_export_is_told_who_writes(site: Site, path: str) -> None:
    with stuck_export(site, path) as process:
        second = airgap_process(*site.exporting(), folder=site.folder)
        assert second.status == 2
        assert f"process {process.pid} on " in second.err
        assert f"{site.archive}: " in second.err and "continue" in second.err
        assert process.poll() is None


@pytest.mark.parametrize("command", ["import", "verify", "inspect"])
def test_what_reads_beside_an_export_is_told_who_writes(site: Site, command: str) -> None:
    into = [site.destination.host, "--insecure"] if command == "import" else []
    with stuck_export(site, BLOB) as process:
        ran = airgap_process(command, site.archive, *into, folder=site.folder)
        assert ran.status == 2
        assert f"process {process.pid} on " in ran.err
        assert site.destination.asked == []


def test_what_reads_beside_the_filling_of_holes_is_told_who_writes(site: Site) -> None:
    missing = next(iter(site.supply.lab.images.values()))
    hole = max(missing.blobs, key=lambda digest: missing.blobs[digest])
    site.upstream.hide(hole)
    assert site.export().status == 3
    site.upstream.heal()
    site.upstream.fault("GET", f".*/{hole}", stall(60))
    with stuck_export(site, f".*/{hole}", after=0) as process:
        ran = airgap_process("verify", site.archive, folder=site.folder)
        assert ran.status == 2
        assert f"process {process.pid} on " in ran.err


@STAGES
def test_who_was_second_continues_when_the_first_is_gone(site: Site, path: str) -> None:
    undisturbed = site.folder / "undisturbed.tar"
    assert site.export(archive=undisturbed).status == 0
    with stuck_export(site, path) as process:
        assert airgap_process(*site.exporting(), folder=site.folder).status == 2
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    site.upstream.heal()
    assert airgap_process(*site.exporting(), folder=site.folder).status == 0
    assert same_bytes(site.archive, undisturbed)
