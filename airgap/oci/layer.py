"""A layer made of files; the same files give the same bytes, wherever and whenever.

Follows POSIX ustar, with a pax header where a name needs one, and the OCI image specification's
layer.md for opaque whiteouts. The tar never differs; what gzip makes of it is the same for the
same zlib. Knows nothing of what the files are.
"""

from __future__ import annotations

import io
import itertools
import os
import stat
import tarfile
import zlib
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from airgap import limits
from airgap.digest import Digest, Hasher
from airgap.errors import MalformedContent, UsageError, printable
from airgap.storage import storage_errors

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterable, Iterator, Mapping
    from pathlib import Path

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"

_LEVEL = 6
_GZIP = zlib.MAX_WBITS | 16
"""zlib's word for gzip's frame, whose header then holds no time and no name."""


@dataclass(frozen=True, slots=True)
class WrittenLayer:
    """A gzip-compressed layer: its digest, and its size in bytes.

    ``diff_id`` is the digest of the tar in it, by which a configuration knows the layer.
    """

    digest: Digest
    size: int
    diff_id: Digest


@dataclass(frozen=True, slots=True)
class _Entry:
    """What goes into the tar: a file with its content, or a directory, which has none."""

    path: str
    source: Path | bytes | None


def write_layer(
    files: Mapping[str, Path | bytes], opaque: Collection[str], target: Path
) -> WrittenLayer:
    """Write a layer of regular files, by their paths in the image, into the file ``target``.

    The ``opaque`` directories hide what layers below have in them. All directories on the way
    are written as well. Everything is root's, files 0644 and directories 0755, without a time.
    Raises MalformedContent for a path that a layer cannot have and for a file that changes
    while it is read, UsageError for what is no regular file, StorageError. ``target`` is then
    of no use.
    """
    entries = _entries(files, opaque)
    with storage_errors(target), target.open("wb") as file, closing(_tar(entries)) as pieces:
        packer = _Packer(file)
        for piece in pieces:
            packer.write(piece)
        return packer.finish()


class _Packer:
    """Compresses what it is given, and follows both the plain and the compressed bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._gzip = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
        self._plain, self._packed, self._size = Hasher(), Hasher(), 0

    def write(self, piece: bytes) -> None:
        self._plain.update(piece)
        self._put(self._gzip.compress(piece))

    def finish(self) -> WrittenLayer:
        self._put(self._gzip.flush())
        return WrittenLayer(self._packed.digest(), self._size, self._plain.digest())

    def _put(self, packed: bytes) -> None:
        self._file.write(packed)
        self._packed.update(packed)
        self._size += len(packed)


def _entries(files: Mapping[str, Path | bytes], opaque: Collection[str]) -> list[_Entry]:
    """Return the layer's entries, depth first, the names in a directory sorted bytewise."""
    for path in (*files, *opaque):
        _check(path)
    directories = {above for path in (*files, *opaque) for above in _above(path)} | set(opaque)
    if clash := sorted(directories & files.keys()):
        raise MalformedContent(f"{printable(clash[0])}: both a file and a directory of one layer")
    entries = []
    for path in sorted((*directories, *files), key=_by_component):
        entries.append(_Entry(path, files.get(path)))
        if path in opaque:
            entries.append(_Entry(f"{path}/{_OPAQUE}", b""))
    return entries


def _check(path: str) -> None:
    parts = path.split("/")
    name = printable(path)
    if not {"", ".", ".."}.isdisjoint(parts) or "\0" in path:
        raise MalformedContent(f"'{name}': not a path that a layer can have")
    if any(part.startswith(_WHITEOUT) for part in parts):
        raise MalformedContent(f"'{name}': '{_WHITEOUT}' at the beginning of a name hides files")
    try:
        length = len(path.encode())
    except UnicodeEncodeError as error:
        raise MalformedContent(f"'{name}': a name that is not UTF-8") from error
    if length > limits.ENTRY_NAME:
        raise MalformedContent(f"'{name}': {length} bytes, longer than {limits.ENTRY_NAME}")


def _above(path: str) -> Iterator[str]:
    """Give the directories on the way to a path."""
    return itertools.accumulate(path.split("/")[:-1], "{}/{}".format)


def _by_component(path: str) -> list[bytes]:
    return path.encode().split(b"/")


def _tar(entries: Iterable[_Entry]) -> Generator[bytes, None, None]:
    for entry in entries:
        if entry.source is None:
            yield _header(entry.path, tarfile.DIRTYPE, 0o755, 0)
        else:
            yield from _file(entry.path, entry.source)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _file(path: str, source: Path | bytes) -> Iterator[bytes]:
    with _opened(source) as (content, size):
        yield _header(path, tarfile.REGTYPE, 0o644, size)
        left = size
        while piece := content.read(min(limits.CHUNK, left)):
            left -= len(piece)
            yield piece
        if left or content.read(1):
            raise MalformedContent(
                f"{printable(str(source))}: no longer has the {size} bytes it had a moment ago",
                hint="Run the same command again when nothing writes to the file.",
            )
    yield bytes(-size % tarfile.BLOCKSIZE)


@contextmanager
def _opened(source: Path | bytes) -> Iterator[tuple[BinaryIO, int]]:
    """Open content; gives its size in bytes as well."""
    if isinstance(source, bytes):
        yield io.BytesIO(source), len(source)
        return
    with storage_errors(source):
        if not stat.S_ISREG(source.stat().st_mode):
            raise UsageError(f"{printable(str(source))}: not a regular file")
        with source.open("rb") as file:
            yield file, os.fstat(file.fileno()).st_size


def _header(path: str, kind: bytes, mode: int, size: int) -> bytes:
    info = tarfile.TarInfo(path)
    info.type, info.mode, info.size = kind, mode, size
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")
