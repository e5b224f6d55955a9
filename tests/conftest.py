"""Fixtures and switches for all tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

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


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mounter]:
    """Mounts small disks; the test is skipped where that is not allowed."""
    mounter = Mounter(tmp_path)
    yield mounter
    mounter.close()
