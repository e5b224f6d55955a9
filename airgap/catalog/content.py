"""What a catalog holds of a bundle beyond the model: the texts that make it installable.

They are large and wanted only where a database is written, so they come one bundle at a time.
All of them are JSON, written so that the same content gives the same text.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airgap.catalog.properties import Api


@dataclass(frozen=True, slots=True)
class BundleContent:
    """A bundle's objects and properties; of several for one bundle, each adds what it has.

    ``csv`` is its ClusterServiceVersion, "" where the catalog has none; ``objects`` are all
    its objects, that one among them, one directly behind the other. ``properties`` are pairs
    of type and value. ``plurals`` are the names under which a cluster serves its APIs.
    """

    bundle: str
    csv: str = ""
    objects: str = ""
    properties: tuple[tuple[str, str], ...] = ()
    plurals: Mapping[Api, str] = field(default_factory=dict)
    deprecated: bool = False


def as_json(value: Any) -> str:
    """Return a value as JSON with sorted keys and no blanks, as Go writes it."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
