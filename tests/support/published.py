"""Published catalogs' databases: those of this repository, and more where there are more."""

from __future__ import annotations

from pathlib import Path

import zstandard

from tests.support.shared import SHARED

_HERE = Path(__file__).resolve().parents[1] / "data" / "catalogs"


def databases() -> list[Path]:
    """Return where they are; some are compressed."""
    folders = [_HERE]
    if SHARED is not None:
        folders += [SHARED / "catalogs" / name for name in ("sqlite-real", "sqlite-synthetic")]
    return sorted(path for folder in folders for path in folder.glob("*.db*"))


def name(path: Path) -> str:
    """Name a database in a test's id."""
    return f"{path.parent.name}/{path.name}"


def unpacked(path: Path, folder: Path) -> Path:
    """Return the database itself, decompressed into ``folder`` if it must be."""
    if path.suffix != ".zst":
        return path
    plain = folder / path.stem
    with path.open("rb") as packed, plain.open("wb") as target:
        zstandard.ZstdDecompressor().copy_stream(packed, target)
    return plain


def beside(path: Path, ending: str) -> Path:
    """Return a file that tells something about a database."""
    return path.with_name(path.name.partition(".db")[0] + ending)
