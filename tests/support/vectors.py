"""What ``oc`` answers, as measured: ``tests/data/oc-vectors.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_FILE = Path(__file__).resolve().parents[1] / "data" / "oc-vectors.json"


def vectors(kind: str) -> list[dict[str, Any]]:
    """Return the vectors of one kind."""
    document = json.loads(_FILE.read_text("utf-8"))
    return [vector for vector in document["vectors"] if vector["kind"] == kind]


def identity(vector: dict[str, Any]) -> str:
    """Name a vector in a test's id."""
    return str(vector["id"])
