"""Layers built from a few words, sound ones and broken ones."""

from __future__ import annotations

import gzip
import io
import tarfile
from typing import TYPE_CHECKING, Literal

from airgap.oci.rootfs import FileTree, Layer

if TYPE_CHECKING:
    from collections.abc import Callable

Member = tuple[tarfile.TarInfo, bytes]


def file(name: str, content: bytes = b"") -> Member:
    """A regular file."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info, content


def whiteout(name: str) -> Member:
    """A marker that hides a file, a directory or all of a directory."""
    return file(name)


def directory(name: str) -> Member:
    return _other(name, tarfile.DIRTYPE)


def symlink(name: str, target: str) -> Member:
    return _other(name, tarfile.SYMTYPE, target)


def hard_link(name: str, target: str) -> Member:
    return _other(name, tarfile.LNKTYPE, target)


def device(name: str) -> Member:
    return _other(name, tarfile.CHRTYPE)


def _other(name: str, kind: bytes, target: str = "") -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def tar(*members: Member, form: Literal[0, 1, 2] = tarfile.PAX_FORMAT) -> bytes:
    """An archive of exactly these members, ended by two blocks of zeros and no more."""
    blocks = bytearray()
    for info, content in members:
        blocks += info.tobuf(form, "utf-8", "surrogateescape")
        blocks += content + bytes(-len(content) % 512)
    return bytes(blocks) + bytes(1024)


def layer(*members: Member, name: str = "layer") -> Layer:
    """A gzip-compressed layer."""
    return layer_of(gzip.compress(tar(*members), 1), name)


def layer_of(raw: bytes, name: str = "layer") -> Layer:
    """A layer of exactly these bytes."""
    return Layer(name, lambda: io.BytesIO(raw))


def tree(*layers: Layer) -> FileTree:
    """The files of layers, lowest first."""
    return FileTree.scan(layers)


def contents(of: FileTree) -> dict[str, bytes]:
    """Every file's path and content."""
    return {entry.path: written(entry.copy_to) for entry in of.files()}


def written(copy_to: Callable[[io.BytesIO], None]) -> bytes:
    """What a ``copy_to`` writes."""
    target = io.BytesIO()
    copy_to(target)
    return target.getvalue()
