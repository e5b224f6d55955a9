"""A run that is killed or stopped at any moment: the same command ends as if nothing had been."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

import pytest

from airgap.cli.running import GRACE_SECONDS
from airgap.registry.directory import DirectoryStore
from tests.support import images
from tests.support.command import airgap, start_airgap
from tests.support.docker_registry import (
    docker_registry,
    needs_docker_registry,
    running_registry,
)
from tests.support.faults import stall, throttle
from tests.support.lab import CATALOG, Recipe, build_lab
from tests.support.promise import entries, keeps, same_bytes
from tests.support.site import Site, Supply, open_site
from tests.support.upstream import StoreUpstream
from tests.support.watched import ROOT, Cost, watched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from airgap.digest import Digest
    from airgap.registry.http_server import Piece, Response
    from tests.support.faults import Exchange, Fault, FaultyRegistry

KILLED = -signal.SIGKILL
HUGE = 24 << 20
BLOB = r"/v2/.*/blobs/sha256:.*"
MANIFEST = r"/v2/.*/manifests/.*"
UPLOAD = r"/v2/.*/blobs/uploads/.+"

POINTS = [
    pytest.param(n, id=f"{n * 10}-percent", marks=() if n in (1, 5, 9) else pytest.mark.slow)
    for n in range(10)
]
"""Tenths of a run, in each of which it is killed once."""


@dataclass(frozen=True)
class Undisturbed:
    """What runs leave that nobody disturbs, and how many moments they have to be killed in."""

    supply: Supply
    archive: Path
    arrived: dict[str, bytes]
    export: Cost
    import_: Cost
    export_requests: int
    import_requests: int

    @property
    def blobs(self) -> set[Digest]:
        lab = self.supply.lab
        return {b for i in (lab.catalog_image, *lab.images.values()) for b in i.blobs}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    supply = Supply.make(folder / "supply")
    with open_site(folder, supply) as site:
        exported = run_watched(folder, *site.exporting())
        imported = run_watched(folder, *importing(site))
        return Undisturbed(
            supply,
            site.archive,
            keeps(folder / "destination"),
            exported,
            imported,
            len(site.upstream.asked),
            len(site.destination.asked),
        )


@pytest.fixture
def site(undisturbed: Undisturbed, tmp_path: Path) -> Iterator[Site]:
    with open_site(tmp_path, undisturbed.supply) as site:
        yield site


def importing(site: Site, *flags: object) -> tuple[object, ...]:
    into = ("--insecure", "--to-manifests", site.manifests)
    return ("import", site.archive, site.destination.host, *into, *flags)


def run_watched(folder: Path, *arguments: object) -> Cost:
    command = watched(folder / "cost.json", *arguments)
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)
    return Cost.read(folder / "cost.json")


def run_to_its_death(site: Site, moment: int, *arguments: object) -> int:
    """Run a command that is killed at one of its changes to files; return how it ended."""
    command = watched(site.folder / "cost.json", *arguments, die_at=moment)
    environ = os.environ | temporary_files_in(site.folder)
    ran = subprocess.run(
        command, cwd=ROOT, env=environ, check=False, capture_output=True, timeout=60
    )
    return ran.returncode


def temporary_files_in(folder: Path) -> dict[str, str]:
    """Keep what a killed run cannot take away out of the system's directory."""
    return {"TMPDIR": str(folder)}


def somewhere(point: int, moments: int) -> int:
    """One of the moments, from 1, in a tenth of the run: the same in every test run."""
    dice = random.Random(f"{point} of {moments}")
    return 1 + int(moments * (point + dice.random()) / 10)


@dataclass
class Victim:
    """A process that the registry it talks to can kill."""

    process: subprocess.Popen[str] | None = None
    running: threading.Event = field(default_factory=threading.Event)

    def run(self, site: Site, *arguments: object) -> int:
        """Run a command to its end, whatever that is."""
        environ = temporary_files_in(site.folder)
        with start_airgap(*arguments, folder=site.folder, environ=environ) as self.process:
            self.running.set()
            self.process.communicate(timeout=60)
        return self.process.returncode

    def kill(self) -> None:
        self.running.wait(10)
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def before(self, _: Exchange) -> Response:
        """Kill instead of an answer."""
        self.kill()
        raise ConnectionResetError("killed")

    def midway(self, exchange: Exchange) -> Response:
        """Kill in the middle of what is sent or answered, if that is anything."""
        for _ in islice(exchange.request.body, 1):
            return self.before(exchange)
        response = exchange.honest()
        if exchange.request.method == "HEAD" or not response.length:
            return self.before(exchange)
        return replace(response, body=self._half(response))

    def after(self, exchange: Exchange) -> Response:
        """Kill when all is done, before it is told."""
        exchange.honest()
        return self.before(exchange)

    def _half(self, response: Response) -> Iterator[Piece]:
        for piece in response.body:
            if isinstance(piece, bytes | memoryview):
                yield piece[: len(piece) // 2]
            else:
                yield os.pread(piece.descriptor, piece.length // 2, piece.offset)
            self.kill()
            raise ConnectionResetError("killed")

    def somehow(self, point: int) -> Fault:
        return (self.before, self.midway, self.after)[point % 3]


@contextmanager
def started(site: Site, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    with start_airgap(*arguments, folder=site.folder) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def assert_finishes(site: Site, archive: Path) -> None:
    """The same command ends well, and leaves what an undisturbed run leaves."""
    assert site.export().status == 0
    assert same_bytes(site.archive, archive)
    left = {path.name for path in site.folder.glob(f"{site.archive.name}*")}
    assert left == {site.archive.name}


class TestExportIsKilled:
    @pytest.mark.parametrize("point", POINTS)
    def test_at_a_request(self, undisturbed: Undisturbed, site: Site, point: int) -> None:
        victim = Victim()
        moment = somewhere(point, undisturbed.export_requests)
        site.upstream.fault(".*", ".*", victim.somehow(point), hits=(moment,))
        assert victim.run(site, *site.exporting()) == KILLED
        assert not site.archive.exists()
        site.upstream.heal()
        assert_finishes(site, undisturbed.archive)

    @pytest.mark.parametrize("point", POINTS)
    def test_at_a_change_to_a_file(self, undisturbed: Undisturbed, site: Site, point: int) -> None:
        moment = somewhere(point, undisturbed.export.changes)
        assert run_to_its_death(site, moment, *site.exporting()) == KILLED
        assert_finishes(site, undisturbed.archive)

    def test_again_and_again(self, undisturbed: Undisturbed, site: Site) -> None:
        moments = range(15, 2 * undisturbed.export_requests, 15)
        for moment in moments:
            victim = Victim()
            site.upstream.heal()
            site.upstream.fault(".*", ".*", victim.midway, hits=(moment,))
            if victim.run(site, *site.exporting()) != KILLED:
                break
        assert moment > 3 * moments.step
        assert_finishes(site, undisturbed.archive)

    def test_while_planning_and_nothing_is_asked_twice(
        self, undisturbed: Undisturbed, site: Site
    ) -> None:
        victim = Victim()
        site.upstream.fault("GET", MANIFEST, victim.before, hits=(15,))
        assert victim.run(site, *site.exporting("--max-per-registry", 1)) == KILLED
        first = [asked.path for asked in site.upstream.asked]
        site.upstream.heal()
        assert_finishes(site, undisturbed.archive)
        second = [asked.path for asked in site.upstream.asked[len(first) :]]
        # The catalog's tag is asked for once more, to be able to say that it has moved.
        again = {path for path in second if path in first[:-1]} - {"/v2/"}
        assert again == {"/v2/quay.io/lab/catalog/manifests/v1"}

    def test_while_planning_and_tags_stay_where_they_were(
        self, undisturbed: Undisturbed, tmp_path: Path
    ) -> None:
        moving = Supply(tmp_path / "supply", undisturbed.supply.lab)
        shutil.copytree(undisturbed.supply.folder, moving.folder)
        victim = Victim()
        with open_site(tmp_path, moving) as site:
            site.upstream.fault("GET", BLOB, victim.before, hits=(10,))
            assert victim.run(site, *site.exporting()) == KILLED
            site.upstream.heal()
            other = images.image([images.layer({"bundles.db": b"another"})])
            upstream = StoreUpstream(DirectoryStore(moving.folder, durable=False))
            upstream.push("quay.io/lab/catalog", other, "v1")
            upstream.push("quay.io/test/etcd.0.9.0", other, "latest")
            again = site.export()
            assert again.status == 0
            assert f"{CATALOG} has moved to {other.digest}" in again.text
            assert same_bytes(site.archive, undisturbed.archive)


class TestALargeBlobIsContinued:
    @pytest.fixture(scope="class")
    @staticmethod
    def supply(tmp_path_factory: pytest.TempPathFactory) -> Supply:
        folder = tmp_path_factory.mktemp("huge")
        upstream = StoreUpstream(DirectoryStore(folder, durable=False))
        recipe = Recipe(layer_bytes=4096, huge_layer=HUGE)
        return Supply(folder, build_lab(None, upstream, recipe=recipe))

    def test_where_the_kill_has_cut_it(self, supply: Supply, tmp_path: Path) -> None:
        huge = max(supply.lab.content, key=lambda digest: supply.lab.content[digest])
        with open_site(tmp_path, supply) as site:
            undisturbed = site.folder / "undisturbed.tar"
            assert site.export(archive=undisturbed).status == 0
            site.upstream.fault("GET", f".*{huge}", throttle(16 << 20))
            state = site.folder / "olm.tar.state"
            with started(site, *site.exporting()) as process:
                wait_until(lambda: noted(state) >= HUGE // 2)
                process.kill()
            held = noted(state)
            site.upstream.heal()
            asked = len(site.upstream.asked)
            assert_finishes(site, undisturbed)
            (request,) = (a for a in site.upstream.asked[asked:] if a.path.endswith(huge.hex))
            assert request.headers["range"] == f"bytes={held}-"
            assert HUGE // 2 <= held < supply.lab.content[huge]

    def test_from_its_beginning_when_what_is_there_was_damaged(
        self, supply: Supply, tmp_path: Path
    ) -> None:
        huge = max(supply.lab.content, key=lambda digest: supply.lab.content[digest])
        with open_site(tmp_path, supply) as site:
            undisturbed = site.folder / "undisturbed.tar"
            assert site.export(archive=undisturbed).status == 0
            site.upstream.fault("GET", f".*{huge}", throttle(16 << 20))
            state = site.folder / "olm.tar.state"
            with started(site, *site.exporting()) as process:
                wait_until(lambda: noted(state) >= HUGE // 3)
                process.kill()
            site.upstream.heal()
            flip_a_byte(site.folder / "olm.tar.partial", undisturbed, huge)
            assert_finishes(site, undisturbed)


def noted(state: Path) -> int:
    """The most bytes of an unfinished blob that the state file speaks of."""
    numbers = [0]
    for line in state.read_text().splitlines() if state.exists() else ():
        if '"written": ' in line:
            numbers.append(int(line.split('"written": ')[1].split(",")[0].rstrip("}")))
    return max(numbers)


def flip_a_byte(partial: Path, whole: Path, digest: Digest) -> None:
    """Damage a blob of an unfinished archive near its beginning."""
    position = entries(whole)[f"blobs/sha256/{digest.hex}"].offset_data + 1000
    with partial.open("r+b") as file:
        file.seek(position)
        (byte,) = file.read(1)
        file.seek(position)
        file.write(bytes([byte ^ 1]))


class TestImportIsKilled:
    @pytest.fixture
    def ready(self, undisturbed: Undisturbed, site: Site) -> Site:
        shutil.copy(undisturbed.archive, site.archive)
        return site

    def assert_finishes(self, site: Site, arrived: dict[str, bytes]) -> None:
        assert site.import_().status == 0
        assert keeps(site.folder / "destination") == arrived
        assert {path.name for path in site.manifests.iterdir()} == {
            "mapping.txt",
            "imageContentSourcePolicy.yaml",
            "imageDigestMirrorSet.yaml",
            "imageTagMirrorSet.yaml",
            "catalogSource.yaml",
            "receipt.json",
        }

    @pytest.mark.parametrize("point", POINTS)
    def test_at_a_request(self, undisturbed: Undisturbed, ready: Site, point: int) -> None:
        victim = Victim()
        moment = somewhere(point, undisturbed.import_requests)
        ready.destination.fault(".*", ".*", victim.somehow(point), hits=(moment,))
        assert victim.run(ready, *importing(ready)) == KILLED
        ready.destination.heal()
        self.assert_finishes(ready, undisturbed.arrived)

    @pytest.mark.parametrize("point", POINTS)
    def test_at_a_change_to_a_file(self, undisturbed: Undisturbed, ready: Site, point: int) -> None:
        moment = somewhere(point, undisturbed.import_.changes)
        assert run_to_its_death(ready, moment, *importing(ready)) == KILLED
        self.assert_finishes(ready, undisturbed.arrived)

    def test_and_what_has_arrived_is_not_sent_again(
        self, undisturbed: Undisturbed, ready: Site
    ) -> None:
        victim = Victim()
        ready.destination.fault("PUT", UPLOAD, victim.after, hits=(40,))
        assert victim.run(ready, *importing(ready, "--max-per-registry", 1)) == KILLED
        ready.destination.heal()
        again = ready.import_("--output", "json").json
        blobs = [name for name in undisturbed.arrived if "/_blobs/" in name]
        assert again["sent"] == len(undisturbed.blobs) - 40
        assert again["images_present"] > 0
        # Blobs of images that are whole are not even asked for.
        assert again["sent"] + again["mounted"] + again["present"] < len(blobs)

    @needs_docker_registry
    @pytest.mark.slow
    @pytest.mark.parametrize("share", [0.1, 0.4, 0.7, 0.9])
    def test_with_a_real_registry(
        self, undisturbed: Undisturbed, ready: Site, share: float
    ) -> None:
        def kept(name: str) -> dict[str, bytes]:
            found = keeps(ready.folder / name / "docker")
            return {n: content for n, content in found.items() if "/_uploads/" not in n}

        def import_to(host: str) -> tuple[object, ...]:
            return ("import", ready.archive, host, "--insecure", "--to-manifests", ready.manifests)

        with docker_registry(ready.folder / "calm") as host:
            assert airgap(*import_to(host)).status == 0
        links, calm = count_links(ready.folder / "calm"), kept("calm")
        with docker_registry(ready.folder / "killed") as host:
            with started(ready, *import_to(host)) as process:
                wait_until(lambda: count_links(ready.folder / "killed") >= share * links)
                process.kill()
            assert process.returncode == KILLED
            assert airgap(*import_to(host)).status == 0
        assert kept("killed") == calm


@needs_docker_registry
class TestTheRegistryIsKilled:
    @pytest.mark.parametrize(
        "share",
        [
            pytest.param(share, marks=() if share == 0.5 else pytest.mark.slow)
            for share in (0.05, 0.25, 0.5, 0.75, 0.95)
        ],
    )
    def test_and_started_again_in_the_middle_of_an_import(
        self, undisturbed: Undisturbed, site: Site, share: float
    ) -> None:
        def import_to(host: str) -> tuple[object, ...]:
            return ("import", undisturbed.archive, host, "--insecure", "--to-manifests", manifests)

        def kept(name: str) -> dict[str, bytes]:
            found = keeps(site.folder / name / "docker")
            return {n: content for n, content in found.items() if "/_uploads/" not in n}

        manifests = site.manifests
        with docker_registry(site.folder / "calm") as host:
            assert airgap(*import_to(host)).status == 0
        links, calm = count_links(site.folder / "calm"), kept("calm")
        with running_registry(site.folder / "shaken") as registry:
            with started(site, *import_to(registry.host)) as process:
                wait_until(lambda: count_links(site.folder / "shaken") >= share * links)
                registry.kill()
                assert process.poll() is None, "the registry was killed too late"
                time.sleep(0.3)
                registry.start()
                _, said = process.communicate(timeout=120)
            assert process.returncode == 0, said
        assert kept("shaken") == calm


def count_links(folder: Path) -> int:
    """How many blobs, manifests and tags a docker-registry has, also while it works."""
    return sum(files.count("link") for _, _, files in os.walk(folder))


SIGNALS = pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"]
)


class TestSignals:
    @SIGNALS
    @pytest.mark.parametrize("path", [MANIFEST, BLOB], ids=["planning", "fetching"])
    def test_end_an_export(
        self, undisturbed: Undisturbed, site: Site, number: int, status: int, path: str
    ) -> None:
        site.upstream.fault("GET", path, stall(0.5))
        asked = several(site.upstream, "GET", path)
        interrupt(site.exporting(), site, asked, number, status)
        site.upstream.heal()
        assert_finishes(site, undisturbed.archive)

    @SIGNALS
    def test_end_an_import(
        self, undisturbed: Undisturbed, site: Site, number: int, status: int
    ) -> None:
        shutil.copy(undisturbed.archive, site.archive)
        site.destination.fault("PUT", UPLOAD, stall(0.5))
        asked = several(site.destination, "PUT", UPLOAD)
        interrupt(importing(site), site, asked, number, status)
        site.destination.heal()
        assert site.import_().status == 0
        assert keeps(site.folder / "destination") == undisturbed.arrived

    @pytest.mark.parametrize(
        "path", [pytest.param(MANIFEST, marks=pytest.mark.slow), BLOB], ids=["planning", "fetching"]
    )
    def test_end_an_export_from_a_silent_registry(
        self, undisturbed: Undisturbed, site: Site, path: str
    ) -> None:
        site.upstream.fault("GET", path, stall(60), hits=range(8, 1000))
        asked = several(site.upstream, "GET", path)
        interrupt(site.exporting(), site, asked, signal.SIGTERM, 143)
        site.upstream.heal()
        assert_finishes(site, undisturbed.archive)

    @pytest.mark.slow
    def test_end_an_import_into_a_silent_registry(
        self, undisturbed: Undisturbed, site: Site
    ) -> None:
        shutil.copy(undisturbed.archive, site.archive)
        site.destination.fault("PUT", UPLOAD, stall(60), hits=range(8, 1000))
        asked = several(site.destination, "PUT", UPLOAD)
        interrupt(importing(site), site, asked, signal.SIGINT, 130)
        site.destination.heal()
        assert site.import_().status == 0
        assert keeps(site.folder / "destination") == undisturbed.arrived

    @SIGNALS
    @pytest.mark.parametrize("path", [MANIFEST, BLOB], ids=["planning", "fetching"])
    def test_a_second_one_ends_an_export_at_once(
        self, undisturbed: Undisturbed, site: Site, number: int, status: int, path: str
    ) -> None:
        site.upstream.fault("GET", path, stall(60), hits=range(8, 1000))
        interrupt_twice(site.exporting(), site, several(site.upstream, "GET", path), number, status)
        site.upstream.heal()
        assert_finishes(site, undisturbed.archive)

    def test_the_first_one_is_no_second_in_a_run_that_ends_by_itself(self) -> None:
        program = (
            "import signal\n"
            "from airgap.cli.running import stoppable\n"
            "with stoppable('text') as stop:\n"
            "    stop.set()\n"
            "    signal.raise_signal(signal.SIGTERM)\n"
            "    print('why it ends')\n"
        )
        ran = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, check=False, capture_output=True, timeout=30
        )
        assert (ran.returncode, ran.stdout) == (0, b"why it ends\n")

    @SIGNALS
    def test_a_second_one_ends_an_import_at_once(
        self, undisturbed: Undisturbed, site: Site, number: int, status: int
    ) -> None:
        shutil.copy(undisturbed.archive, site.archive)
        site.destination.fault("PUT", UPLOAD, stall(60), hits=range(8, 1000))
        asked = several(site.destination, "PUT", UPLOAD)
        interrupt_twice(importing(site), site, asked, number, status)
        site.destination.heal()
        assert site.import_().status == 0
        assert keeps(site.folder / "destination") == undisturbed.arrived


def several(registry: FaultyRegistry, method: str, path: str) -> Callable[[], bool]:
    return lambda: registry.count(method, path) > 7


def interrupt_twice(
    command: tuple[object, ...], site: Site, stuck: Callable[[], bool], number: int, status: int
) -> None:
    """Stop a run that cannot end by itself, twice: it does not live out its grace."""
    with started(site, *command) as process:
        wait_until(stuck)
        process.send_signal(number)
        time.sleep(0.3)  # two signals that come at once are one
        assert process.poll() is None
        process.send_signal(number)
        process.communicate(timeout=GRACE_SECONDS - 0.5)
    assert process.returncode == status


def interrupt(
    command: tuple[object, ...], site: Site, stuck: Callable[[], bool], number: int, status: int
) -> None:
    """Stop a run: it ends within five seconds, with its status, and says how to go on."""
    with started(site, *command) as process:
        wait_until(stuck)
        process.send_signal(number)
        _, said = process.communicate(timeout=5)
    assert process.returncode == status
    assert "again" in said.splitlines()[-1]
    assert "continue" in said.splitlines()[-1]
