"""Killed again and again at random moments, a run ends as if nothing had been.

Each round starts the command and kills it, ``kill -9``, when a random number of requests or of
bytes has passed the proxy, and a random breath later. Rounds go on with what the last one left
until it is whole; that is compared with an undisturbed run's, and the next round begins anew.
"""

from __future__ import annotations

import random
import shutil
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from airgap import limits
from airgap.archive.writer import NOTE_BYTES
from tests.support.command import airgap_process, start_airgap
from tests.support.docker_registry import docker_registry, needs_docker_registry
from tests.support.faults import throttle
from tests.support.lab import CATALOG, Recipe, build_lab
from tests.support.promise import keeps, same_bytes
from tests.support.proxy import FaultProxy
from tests.support.upstream import RegistryUpstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.lab import Lab

# A hundred rounds are a hundred processes, and take minutes where others work as well.
pytestmark = [needs_docker_registry, pytest.mark.timeout(1800)]

ROUNDS = pytest.mark.parametrize(
    "rounds", [pytest.param(4, id="few"), pytest.param(100, id="many", marks=pytest.mark.slow)]
)

WORKERS = 2
LARGEST = 12 << 20
RECIPE = Recipe(seed=7, padding=6, layers=3, layer_bytes=900 << 10, huge_layer=LARGEST)

PIPE = 2 * limits.MIB
"""What may lie between the proxy and a client, in the kernel and in its buffer."""

BREATH = 0.03
SPEED = 60 << 20
"""Bytes a second and connection: a client that has the processor is then never far behind."""


@dataclass
class Bench:
    """A command, a proxy between it and its registry, and dice."""

    folder: Path
    proxy: FaultProxy
    command: tuple[object, ...]
    dice: random.Random
    requests: int = 0
    volume: int = 0
    kills: int = field(default=0)

    def run_undisturbed(self) -> None:
        """Run once, to know how much there is to be killed in."""
        self.proxy.asked.clear()
        before = self.moved()
        assert airgap_process(*self.command, folder=self.folder).status == 0
        self.requests, self.volume = len(self.proxy.asked), self.moved() - before

    def moved(self) -> int:
        """The bytes of all bodies that passed the proxy since its log was cleared."""
        return self.proxy.received + sum(asked.sent for asked in list(self.proxy.asked))

    def round(self) -> bool:
        """Run, and kill it at a random moment; say whether it had ended before, and well."""
        reached = self._moment()
        breath = self.dice.uniform(0, BREATH)
        environ = {"TMPDIR": str(self.folder)}
        with start_airgap(*self.command, folder=self.folder, environ=environ) as process:
            while process.poll() is None and not reached():
                time.sleep(0.002)
            time.sleep(breath)
            process.kill()
            _, said = process.communicate(timeout=30)
        if process.returncode == 0:
            return True
        assert process.returncode == -9, said
        self.kills += 1
        return False

    def _moment(self) -> Callable[[], bool]:
        asked = len(self.proxy.asked)
        if self.dice.random() < 0.5:
            number = asked + self.dice.randint(1, self.requests)
            return lambda: len(self.proxy.asked) >= number
        volume = self.moved() + self.dice.randint(1, self.volume)
        return lambda: self.moved() >= volume


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, str]]:
    """A laboratory, and the registry that holds it."""
    folder = tmp_path_factory.mktemp("lab")
    with docker_registry(folder / "registry") as host:
        with RegistryUpstream(host) as upstream:
            made = build_lab(None, upstream, recipe=RECIPE)
        yield made, host


@contextmanager
def exporting(lab: tuple[Lab, str], folder: Path, seed: int) -> Iterator[Bench]:
    made, behind = lab
    with FaultProxy(behind) as proxy:
        proxy.fault("GET", ".*/blobs/.*", throttle(SPEED))
        conf = folder / "registries.conf"
        conf.write_text(made.registries_conf(proxy.host))
        typed = ("--registries-conf", conf, "--max-per-registry", WORKERS)
        command = ("export", CATALOG, "-o", folder / "olm.tar", *typed)
        yield Bench(folder, proxy, command, random.Random(seed))


@pytest.fixture
def seed() -> int:
    """Printed where a test fails; put it here to see it again."""
    number = random.SystemRandom().randrange(1 << 32)
    print(f"seed {number}")
    return number


@ROUNDS
def test_export(lab: tuple[Lab, str], tmp_path: Path, seed: int, rounds: int) -> None:
    with exporting(lab, tmp_path, seed) as bench:
        bench.run_undisturbed()
        archive = tmp_path / "olm.tar"
        golden = archive.rename(tmp_path / "golden.tar")
        finished, lost = 0, 0
        while bench.kills < rounds:
            before = bench.kills
            bench.proxy.asked.clear()
            while bench.kills < rounds and not bench.round():
                pass
            if bench.kills == rounds:
                assert airgap_process(*bench.command, folder=tmp_path).status == 0
            assert same_bytes(archive, golden)
            assert {path.name for path in tmp_path.glob("olm.tar*")} == {"olm.tar"}
            again = bench.moved() - bench.volume
            bound = (bench.kills - before) * WORKERS * (NOTE_BYTES + PIPE)
            assert again <= bound, f"{again} bytes fetched again, at most {bound} were to be"
            archive.unlink()
            finished, lost = finished + 1, lost + again
        print(f"{bench.kills} kills, {finished} archives, {lost} bytes fetched again")
        assert finished > rounds // 20


@ROUNDS
def test_import(lab: tuple[Lab, str], tmp_path: Path, seed: int, rounds: int) -> None:
    with exporting(lab, tmp_path, seed) as bench:
        assert airgap_process(*bench.command, folder=tmp_path).status == 0
    content, manifests = tmp_path / "registry" / "docker", tmp_path / "manifests"
    with docker_registry(tmp_path / "registry") as behind, FaultProxy(behind) as proxy:
        typed = ("--insecure", "--to-manifests", manifests, "--max-per-registry", WORKERS)
        command = ("import", tmp_path / "olm.tar", proxy.host, *typed)
        bench = Bench(tmp_path, proxy, command, random.Random(seed))
        bench.run_undisturbed()
        golden = arrived(content), keeps(manifests)
        finished = 0
        while bench.kills < rounds:
            before = bench.kills
            # At once, as the registry may still be cleaning up after a client that has left.
            shutil.rmtree(content.rename(tmp_path / f"old-{finished}"))
            shutil.rmtree(manifests)
            proxy.asked.clear()
            proxy.received = 0
            while bench.kills < rounds and not bench.round():
                pass
            if bench.kills == rounds:
                assert airgap_process(*command, folder=tmp_path).status == 0
            assert (arrived(content), keeps(manifests)) == golden
            largest = max(lab[0].content.values())
            bound = (bench.kills - before) * WORKERS * (largest + PIPE)
            assert bench.moved() - bench.volume <= bound
            finished += 1
        print(f"{bench.kills} kills, {finished} imports")
        assert finished > rounds // 20


def arrived(content: Path) -> dict[str, bytes]:
    """What a docker-registry keeps, without the uploads that never ended."""
    return {name: raw for name, raw in keeps(content).items() if "/_uploads/" not in name}
