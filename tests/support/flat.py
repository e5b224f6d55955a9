"""Images as a container engine unpacks them, read with nothing but ``tarfile`` and ``json``."""

from __future__ import annotations

import io
import json
import posixpath
import shutil
import subprocess
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Read = Callable[[str], bytes]
    """Gives content by its digest in hexadecimal."""

_OPAQUE = ".wh..wh..opq"
_WHITEOUT = ".wh."


@dataclass
class Flat:
    """One platform's image: its files, their entries in the layers, its configuration."""

    platform: str
    config: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict)
    entries: dict[str, tarfile.TarInfo] = field(default_factory=dict)
    layers: list[set[str]] = field(default_factory=list)

    @property
    def process(self) -> dict[str, Any]:
        found: dict[str, Any] = self.config["config"]
        return found

    def add(self, layer: bytes) -> None:
        with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
            members = {member.name: member for member in tar}
            self.layers.append(set(members))
            for name in members:
                above, _, last = name.rpartition("/")
                if last == _OPAQUE:
                    self._remove(f"{above}/")
                elif last.startswith(_WHITEOUT):
                    self._remove(posixpath.join(above, last.removeprefix(_WHITEOUT)))
            for name, member in members.items():
                self.entries[name] = member
                if member.isfile() and not posixpath.basename(name).startswith(_WHITEOUT):
                    content = tar.extractfile(member)
                    assert content is not None
                    self.files[name] = content.read()

    def _remove(self, what: str) -> None:
        for name in [n for n in self.files if n == what or n.startswith(f"{what.rstrip('/')}/")]:
            del self.files[name]


def in_archive(archive: Path, reference: str) -> list[Flat]:
    """The images, one for each platform, that an archive has under a name."""
    with tarfile.open(archive, "r:") as tar:

        def read(name: str) -> bytes:
            file = tar.extractfile(name)
            assert file is not None
            return file.read()

        entries = json.loads(read("index.json"))["manifests"]
        named = {e["annotations"]["io.containerd.image.name"]: e["digest"] for e in entries}
        return _flat(named[reference], lambda digest: read(f"blobs/sha256/{digest}"))


def in_registry(reference: str, folder: Path) -> list[Flat]:
    """The same of an image in a registry without TLS, as skopeo gets it; skips without skopeo."""
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    copy = ["skopeo", "--insecure-policy", "copy", "--all", "--src-tls-verify=false"]
    command = [*copy, f"docker://{reference}", f"dir:{folder}"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)

    def read(digest: str) -> bytes:
        manifest = folder / f"{digest}.manifest.json"
        return (manifest if manifest.exists() else folder / digest).read_bytes()

    return _of((folder / "manifest.json").read_bytes(), read)


def _flat(digest: str, read: Read) -> list[Flat]:
    return _of(read(digest.removeprefix("sha256:")), read)


def _of(raw: bytes, read: Read) -> list[Flat]:
    document = json.loads(raw)
    if "manifests" in document:
        return [flat for entry in document["manifests"] for flat in _flat(entry["digest"], read)]
    config = json.loads(read(document["config"]["digest"].removeprefix("sha256:")))
    flat = Flat(f"{config['os']}/{config['architecture']}", config)
    for layer in document["layers"]:
        flat.add(read(layer["digest"].removeprefix("sha256:")))
    return [flat]
