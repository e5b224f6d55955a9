"""What the tests of the promise look at: what a registry keeps, what an import wrote down."""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = 1 << 20


@dataclass(frozen=True)
class MappingFile:
    """``mapping.txt`` as ``oc image mirror -f`` reads it: sources to targets, and its comments."""

    targets: dict[str, str]
    comments: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> Self:
        lines = path.read_text().splitlines()
        pairs = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
        return cls(pairs, tuple(line for line in lines if line.startswith("#")))


def keeps(directory: Path) -> dict[str, bytes]:
    """Everything the embedded registry keeps in a directory: content, links and tags.

    Uploads that were never completed are left out: they are nothing that anybody can ask for.
    """
    files = (path for path in directory.rglob("*") if path.is_file())
    found = {str(path.relative_to(directory)): path for path in files}
    return {n: path.read_bytes() for n, path in found.items() if not n.startswith("uploads/")}


def entries(archive: Path) -> dict[str, tarfile.TarInfo]:
    """The entries of a tar by name."""
    with tarfile.open(archive, "r:") as tar:
        return {member.name: member for member in tar}


def content(archive: Path, name: str) -> bytes:
    """The content of one entry of a tar."""
    with tarfile.open(archive, "r:") as tar:
        file = tar.extractfile(name)
        assert file is not None
        return file.read()


def same_bytes(one: Path, other: Path) -> bool:
    """Say whether two files are equal, without holding either in memory."""
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as first, other.open("rb") as second:
        while piece := first.read(BLOCK):
            if piece != second.read(BLOCK):
                return False
    return True
