"""Where the larger set of real catalogs is, when it lies beside the project."""

from __future__ import annotations

from pathlib import Path

import pytest

_beside = Path(__file__).resolve().parents[3] / "shared"
SHARED: Path | None = _beside if _beside.is_dir() else None

needs_shared = pytest.mark.skipif(SHARED is None, reason="no shared folder beside the project")


def shared(path: str) -> Path:
    """Return a path in the shared folder; only for tests marked ``needs_shared``."""
    assert SHARED is not None
    return SHARED / path
