"""``volume/NNN.json``: which volume of which archive a file is, and what its pieces hash to.

A record has one size, so that it can be written before the volume and completed after it.
Knows nothing of where it stands.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from airgap import strict_json
from airgap.archive import tar
from airgap.digest import Digest
from airgap.errors import AirgapError

RECORD_SIZE = 1024
"""Room for two pieces, and a volume never has more: one at its beginning, one at its end."""

FORMAT = 1

MOST_VOLUMES = 9999

_NAME = re.compile(rb"volume/(\d{3,4})\.json\0")


def numbered(volume: int) -> str:
    """Return a volume's number as names have it."""
    return f"{volume:03}"


def record_name(volume: int) -> str:
    """Return the entry name of a volume's record."""
    return f"volume/{numbered(volume)}.json"


def number_in(header: bytes) -> int | None:
    """Return whose record follows a header; None when it is no record's."""
    match = _NAME.match(header)
    number = int(match[1]) if match else 0
    return number if number and header == tar.header(record_name(number), RECORD_SIZE) else None


@dataclass(frozen=True, slots=True)
class PieceRecord:
    """A piece of a cut blob: the bytes of ``blob`` from ``start`` on, and their digest."""

    blob: Digest
    start: int
    size: int
    digest: Digest


@dataclass(frozen=True, slots=True)
class Record:
    """Volume ``volume`` of ``of``, none larger than ``limit`` bytes, of the archive of that id.

    ``pieces`` are those of cut blobs that have arrived; None while the volume is not whole.
    """

    archive: Digest
    volume: int
    of: int
    limit: int
    pieces: tuple[PieceRecord, ...] | None = None

    def text(self) -> bytes:
        """Return the record as it stands in the volume: JSON, filled up with spaces."""
        document: dict[str, object] = {
            "airgap-volume": FORMAT,
            "archive": str(self.archive),
            "volume": self.volume,
            "of": self.of,
            "limit": self.limit,
        }
        if self.pieces is not None:
            document["pieces"] = [
                {
                    "blob": str(piece.blob),
                    "start": piece.start,
                    "size": piece.size,
                    "digest": str(piece.digest),
                }
                for piece in self.pieces
            ]
        text = json.dumps(document, separators=(",", ":")).encode()
        return text.ljust(RECORD_SIZE - 1) + b"\n"


def parse(text: bytes) -> Record | None:
    """Read a record; None for anything else: it comes from a medium and may be damaged."""
    try:
        found = strict_json.parse_object(text, "the volume's record")
        numbers = [found[key] for key in ("volume", "of", "limit")]
        if found["airgap-volume"] != FORMAT or not all(type(n) is int for n in numbers):
            return None
        volume, of, limit = numbers
        pieces = tuple(map(_piece, found["pieces"])) if "pieces" in found else None
        record = Record(Digest.parse(found["archive"]), volume, of, limit, pieces)
    except (AirgapError, KeyError, TypeError, ValueError, AttributeError):
        return None
    return record if 1 <= volume <= of <= MOST_VOLUMES and limit > 0 else None


def _piece(found: dict[str, object]) -> PieceRecord:
    start, size = found["start"], found["size"]
    if type(start) is not int or type(size) is not int:
        raise ValueError("a piece without a place")
    return PieceRecord(
        Digest.parse(str(found["blob"])), start, size, Digest.parse(str(found["digest"]))
    )
