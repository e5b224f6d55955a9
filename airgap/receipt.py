"""What has arrived where: the record an import leaves behind.

Plain data and its text; two imports of one archive into one destination leave the same
bytes. Knows nothing of how things arrive.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airgap.plan import Missing


_CHECKED = (
    "top manifests read back and hashed; of what was sent, every manifest, and blobs by digest"
)


@dataclass(frozen=True, slots=True)
class Arrived:
    """An image that is at its destination, whole: its top manifest was read back and hashed."""

    reference: str
    digest: str
    repository: str
    tag: str
    manifests: tuple[str, ...]
    blobs: tuple[str, ...]


@dataclass(frozen=True)
class Receipt:
    """What one import of one archive left in one registry."""

    archive: str
    registry: str
    version: str
    images: tuple[Arrived, ...]
    missing: tuple[Missing, ...]

    def text(self) -> str:
        """Return the receipt as JSON, one image a line, in the archive's order."""
        head = {"airgap-receipt": 1, "archive": self.archive, "registry": self.registry}
        checked = {"checked": _CHECKED}
        lines = [
            _json(head | checked | {"version": self.version})[:-1] + ',"images":[',
            *_records([_arrived(image) for image in self.images]),
            '],"missing":[',
            *_records([missing.record() for missing in self.missing]),
            "]}",
        ]
        return "\n".join(lines) + "\n"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _records(records: list[dict[str, Any]]) -> list[str]:
    last = len(records) - 1
    return [_json(record) + ("," if n < last else "") for n, record in enumerate(records)]


def _arrived(image: Arrived) -> dict[str, Any]:
    return {
        "reference": image.reference,
        "digest": image.digest,
        "repository": image.repository,
        "tag": image.tag,
        "manifests": image.manifests,
        "blobs": image.blobs,
    }
