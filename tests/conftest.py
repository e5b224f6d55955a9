"""Fixtures and switches for all tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import tripwire
from tests.support.disks import Mounter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the slow tests too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="slow; run with --slow"))


@pytest.fixture(scope="session", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Live in a home with credentials that belong to nobody whom a test talks to."""
    home = tmp_path_factory.mktemp("home")
    tripwire.furnish(home)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        for name in ("NETRC", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(autouse=True)
def _no_credential_goes_astray() -> Iterator[None]:
    """Fail the test in which a planted credential reaches a host that it is not for."""
    tripwire.tripped()
    yield
    assert not tripwire.tripped()


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mounter]:
    """Mounts small disks; the test is skipped where that is not allowed."""
    mounter = Mounter(tmp_path)
    yield mounter
    mounter.close()
