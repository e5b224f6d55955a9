"""Directories as images, and files written in a few words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.layers import file, layer, tree

if TYPE_CHECKING:
    from pathlib import Path

    from airgap.oci.rootfs import FileTree


def image_of(directory: Path, below: str) -> FileTree:
    """The files of a directory as an image, in two layers and in no sensible order."""
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    members = [
        file(f"{below}/{path.relative_to(directory).as_posix()}", path.read_bytes())
        for path in reversed(paths)
    ]
    return tree(layer(*members[::2]), layer(*members[1::2]))


def written(top: Path, files: dict[str, str | bytes]) -> Path:
    """Write files below a directory."""
    for path, content in files.items():
        location = top / path
        location.parent.mkdir(parents=True, exist_ok=True)
        location.write_bytes(content if isinstance(content, bytes) else content.encode())
    return top
