"""A directory served for as long as a block lasts."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from airgap.digest import digest_of
from airgap.errors import UsageError
from airgap.serving import serve_directory
from tests.support.http_client import ask

if TYPE_CHECKING:
    from pathlib import Path

CONTENT = os.urandom(3_000_000)
DIGEST = digest_of(CONTENT)


def test_what_was_pushed_is_served_after_a_restart(tmp_path: Path) -> None:
    lines: list[str] = []
    with serve_directory(tmp_path / "content", log=lines.append) as server:
        path = f"/v2/a/b/blobs/uploads/?digest={DIGEST}"
        assert ask(server.host, "POST", path, CONTENT).status == 201
    with serve_directory(tmp_path / "content", read_only=True) as server:
        assert ask(server.host, "GET", f"/v2/a/b/blobs/{DIGEST}").body == CONTENT
        assert ask(server.host, "POST", "/v2/a/b/blobs/uploads/").status == 405
    assert lines == ["127.0.0.1 POST /v2/a/b/blobs/uploads/ 201"]


def test_serves_no_directory_with_other_content(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(UsageError), serve_directory(tmp_path):
        pass


def test_makes_no_directory_to_read_from(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such directory"):
        serve_directory(tmp_path / "new", read_only=True).__enter__()
    assert not (tmp_path / "new").exists()
