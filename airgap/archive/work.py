"""``FILE.work/``: what a planning run has learned so far, so that a killed one continues.

Holds the pins from reference to digest, and content by digest: manifests as they arrive and
the catalog images' own blobs. Nothing in it is believed without its digest,
so nothing needs to be synced. It moves into the archive when the head is written.
"""

from __future__ import annotations

import json
import shutil
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO

from airgap import limits
from airgap.digest import Check, Digest, digest_of
from airgap.errors import AirgapError, IntegrityError
from airgap.oci.model import Descriptor
from airgap.storage import storage_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def work_path(archive: Path) -> Path:
    """Return the name of an archive's work directory."""
    return archive.with_name(archive.name + ".work")


class Work:
    """A planning run's directory. Raises StorageError where the medium fails.

    Safe to use from several threads; ``fetch`` as long as each blob is fetched by one.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._content = directory / "sha256"
        self._pins_file = directory / "pins.jsonl"
        with storage_errors(directory):
            self._content.mkdir(parents=True, exist_ok=True)
            self._pins = dict(_read_pins(self._pins_file))

    @property
    def head(self) -> Path:
        """Where the archive's head is put together."""
        return self.directory / "head"

    @property
    def inventory(self) -> Path:
        """Where the inventory is written before the head."""
        return self.directory / "airgap.json"

    def pinned(self, reference: str) -> Descriptor | None:
        """Return what a reference was found to stand for, if it was asked before."""
        return self._pins.get(reference)

    def pin(self, reference: str, descriptor: Descriptor) -> None:
        """Remember what a reference stands for."""
        self._pins[reference] = descriptor
        record = [reference, str(descriptor.digest), descriptor.size, descriptor.media_type]
        with storage_errors(self._pins_file), self._pins_file.open("a") as file:
            # The line before may have been cut by a kill: begin a new one.
            file.write(f"\n{json.dumps(record)}\n")

    def manifest(self, digest: Digest) -> bytes | None:
        """Return stored content of that digest; None when there is none, or a damaged one."""
        path = self._path(digest)
        with storage_errors(path):
            content = path.read_bytes() if path.exists() else None
        return content if content is not None and digest_of(content) == digest else None

    def keep(self, digest: Digest, content: bytes) -> None:
        """Store content that was checked against its digest."""
        path = self._path(digest)
        temporary = path.with_suffix(f".{threading.get_ident()}")
        with storage_errors(path):
            temporary.write_bytes(content)
            temporary.replace(path)

    def fetch(self, digest: Digest, size: int, read: Callable[[int], Iterator[bytes]]) -> None:
        """Make sure that a blob is here, and whole.

        ``read(offset)`` yields its bytes from there on; a part left by an earlier run is
        hashed and continued. Raises IntegrityError when what arrives is something else.
        """
        path = self._path(digest)
        partial = path.with_suffix(".partial")
        with storage_errors(path):
            if path.exists() and _is_whole(path, digest, size):
                return
            try:
                _complete(partial, digest, size, read)
            except IntegrityError:
                # What an earlier run left may be wrong, or the way here: once more, from nothing.
                partial.unlink()
                try:
                    _complete(partial, digest, size, read)
                except IntegrityError:
                    partial.unlink()
                    raise
            partial.replace(path)

    def open(self, digest: Digest) -> BinaryIO:
        """Open a blob that ``fetch`` has made sure of."""
        path = self._path(digest)
        with storage_errors(path):
            return path.open("rb")

    def holds(self, digest: Digest) -> bool:
        """Say whether content of that name is here, finished."""
        return self._path(digest).exists()

    def remove(self) -> None:
        """Remove the directory with all that is in it."""
        with storage_errors(self.directory):
            shutil.rmtree(self.directory)

    def _path(self, digest: Digest) -> Path:
        return self._content / digest.hex


def _complete(
    partial: Path, digest: Digest, size: int, read: Callable[[int], Iterator[bytes]]
) -> None:
    check = Check(digest, size)
    with partial.open("a+b") as file:
        file.seek(0)
        while piece := file.read(limits.CHUNK):
            check.update(piece)
        for piece in read(check.seen):
            check.update(piece)
            file.write(piece)
    check.finish()


def _is_whole(path: Path, digest: Digest, size: int) -> bool:
    check = Check(digest, size)
    try:
        with path.open("rb") as file:
            while piece := file.read(limits.CHUNK):
                check.update(piece)
        check.finish()
    except IntegrityError:
        return False
    return True


def _read_pins(path: Path) -> Iterator[tuple[str, Descriptor]]:
    """Yield the whole lines; a kill may have left a part of one."""
    if not path.exists():
        return
    for line in path.read_text(errors="replace").splitlines():
        with suppress(ValueError, TypeError, AirgapError):
            reference, digest, size, media_type = json.loads(line)
            yield reference, Descriptor(Digest.parse(digest), int(size), str(media_type))
