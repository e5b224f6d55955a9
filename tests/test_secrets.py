"""No password and no token is in anything that a run says or leaves, however badly it goes."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.support import faults, tripwire
from tests.support.command import airgap_process
from tests.support.docker_registry import docker_registry, needs_docker_registry
from tests.support.lab import CATALOG, Lab, Recipe, build_lab
from tests.support.proxy import FaultProxy, Gate
from tests.support.upstream import RegistryUpstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.command import Ran
    from tests.support.faults import Fault

pytestmark = needs_docker_registry

PASSWORD = "secrets-canary-44d2"
TROUBLES: dict[str, Callable[[Gate], Fault]] = {
    "refused": lambda gate: faults.answer(403, {}, b"no"),
    "expired": lambda gate: gate.expired,
    "reset": lambda gate: faults.reset(),
    "elsewhere": lambda gate: faults.redirect("file:///etc/passwd"),
    "another-login": lambda gate: faults.answer(401, {"WWW-Authenticate": "Negotiate"}),
}
"""What befalls every fifth request, from the ninth."""


@dataclass(frozen=True)
class Closed:
    """A registry behind a login, whose password lies in a file."""

    proxy: FaultProxy
    gate: Gate
    folder: Path

    def run(self, *arguments: object) -> Ran:
        login = self.folder / "auth.json"
        login.write_text(tripwire.auth_file({self.proxy.host: ("robot", PASSWORD)}))
        login.chmod(0o600)
        try:
            return airgap_process(
                *arguments,
                "-a",
                login,
                "-vv",
                folder=self.folder,
                environ={"TMPDIR": str(self.folder)},
            )
        finally:
            login.unlink()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def closed(stack: ExitStack, behind: str, folder: Path) -> Closed:
    gate = Gate("robot", PASSWORD)
    proxy = stack.enter_context(FaultProxy(behind, gate))
    tripwire.plant(PASSWORD, proxy.host)
    return Closed(proxy, gate, folder)


def assert_nothing_leaks(ran: Ran, folder: Path) -> None:
    assert tripwire.leaks(ran.text.encode()) == set()
    for path in folder.rglob("*"):
        if path.is_file():
            assert tripwire.leaks(path.read_bytes()) == set(), path


@pytest.mark.parametrize("trouble", TROUBLES)
def test_nothing_leaks(tmp_path: Path, stack: ExitStack, trouble: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    behind = stack.enter_context(docker_registry(tmp_path / "registry"))
    with RegistryUpstream(behind) as upstream:
        lab: Lab = build_lab(None, upstream, recipe=Recipe(seed=5, padding=3, layers=1))
    there = closed(stack, behind, folder)
    conf = folder / "registries.conf"
    conf.write_text(lab.registries_conf(there.proxy.host))
    exporting = ("export", CATALOG, "-o", folder / "olm.tar", "--registries-conf", conf)
    for trouble_now in (trouble, ""):
        befall(there, trouble_now)
        ran = there.run(*exporting)
        assert_nothing_leaks(ran, folder)
    assert any(asked.authorized for asked in there.proxy.asked)
    if ran.status == 3:
        (folder / "olm.tar").unlink()
        ran = there.run(*exporting)
    assert ran.status == 0

    here = closed(stack, stack.enter_context(docker_registry(tmp_path / "inside")), folder)
    for trouble_now in (trouble, ""):
        befall(here, trouble_now)
        ran = here.run("import", folder / "olm.tar", here.proxy.host, "--insecure")
        assert_nothing_leaks(ran, folder)
    assert ran.status == 0


def befall(place: Closed, trouble: str) -> None:
    place.proxy.heal()
    if trouble:
        fault = TROUBLES[trouble](place.gate)
        place.proxy.fault(".*", "/v2/.+", fault, hits=range(9, 10_000, 5))
