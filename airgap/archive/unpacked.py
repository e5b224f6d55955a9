"""Volumes that a ``tar`` unpacked into one directory: cut blobs made whole, in place.

Knows the names that entries have. What is in the directory may be anything: only the names of
pieces are followed, and a blob gets its name when its content has been hashed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from airgap import limits
from airgap.archive.layout import LAYOUT_NAME
from airgap.digest import Check, Digest
from airgap.errors import IntegrityError, Interrupted
from airgap.storage import storage_errors

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence
    from pathlib import Path

    from airgap.progress import Progress

_PIECE = re.compile(r"([0-9a-f]{64})\.(\d{3,4})", re.ASCII)


def is_unpacked(directory: Path) -> bool:
    """Say whether a directory holds what was in an archive."""
    return (directory / LAYOUT_NAME).is_file()


def join_pieces(directory: Path, progress: Progress, stop: threading.Event) -> tuple[Digest, ...]:
    """Make blobs of their pieces, and return their digests; the pieces are removed.

    Raises IntegrityError when a piece is damaged or not there, StorageError, Interrupted.
    """
    pieces: dict[str, list[tuple[int, Path]]] = {}
    folder = directory / "pieces" / "sha256"
    with storage_errors(folder):
        for path in folder.iterdir() if folder.is_dir() else ():
            if match := _PIECE.fullmatch(path.name):
                pieces.setdefault(match[1], []).append((int(match[2]), path))
    total = sum(path.stat().st_size for found in pieces.values() for _, path in found)
    progress.stage("joining blobs", total_bytes=total)
    for name, found in sorted(pieces.items()):
        _join(directory, name, [path for _, path in sorted(found)], progress, stop)
    progress.finish()
    return tuple(Digest("sha256", name) for name in sorted(pieces))


def _join(
    directory: Path, name: str, pieces: Sequence[Path], progress: Progress, stop: threading.Event
) -> None:
    blob = directory / "blobs" / "sha256" / name
    new = blob.with_name(f"{name}.new")
    check = Check(Digest("sha256", name), sum(path.stat().st_size for path in pieces))
    with storage_errors(blob):
        blob.parent.mkdir(parents=True, exist_ok=True)
        with new.open("wb") as whole:
            for path in pieces:
                with path.open("rb") as piece:
                    while chunk := piece.read(limits.CHUNK):
                        if stop.is_set():
                            raise Interrupted
                        check.update(chunk)
                        whole.write(chunk)
                        progress.advance(len(chunk))
        try:
            check.finish()
        except IntegrityError as error:
            new.unlink()
            raise IntegrityError(
                f"{directory}: the pieces of blob {error.message}",
                hint="A piece is damaged, or a volume has not been unpacked there.",
            ) from error
        new.replace(blob)
        for path in pieces:
            path.unlink()
