"""Real images from a few words: layers, configurations, manifests and indexes, bytes and digests.

The same arguments give the same bytes (compressed ones, on one version of the compressor).
Content is made piece by piece whenever it is asked for, so a layer may be larger than memory.
"""

from __future__ import annotations

import json
import random
import tarfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import zstandard

from airgap.digest import Digest, Hasher, digest_of
from airgap.oci import media_types
from airgap.oci.model import Descriptor, Platform

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    Compression = Literal["gzip", "zstd", "none"]
    Kind = Literal["oci", "docker"]
    Pieces = Callable[[], Iterable[bytes | memoryview]]

AMD64 = Platform("linux", "amd64")
ARM64 = Platform("linux", "arm64")
PPC64LE = Platform("linux", "ppc64le")
S390X = Platform("linux", "s390x")

_PIECE = 1 << 20
_GZIP = 31
"""zlib's word for gzip's frame, whose header holds no time and no name."""

_LAYER_TYPES = {
    ("oci", "gzip"): "application/vnd.oci.image.layer.v1.tar+gzip",
    ("oci", "zstd"): "application/vnd.oci.image.layer.v1.tar+zstd",
    ("oci", "none"): "application/vnd.oci.image.layer.v1.tar",
    ("docker", "gzip"): "application/vnd.docker.image.rootfs.diff.tar.gzip",
    ("docker", "none"): "application/vnd.docker.image.rootfs.diff.tar",
}
_CONFIG_TYPES = {
    "oci": "application/vnd.oci.image.config.v1+json",
    "docker": "application/vnd.docker.container.image.v1+json",
}
_MANIFEST_TYPES = {"oci": media_types.OCI_MANIFEST, "docker": media_types.DOCKER_MANIFEST}
_INDEX_TYPES = {"oci": media_types.OCI_INDEX, "docker": media_types.DOCKER_LIST}


@dataclass(frozen=True, slots=True)
class Blob:
    """Content with its digest and size; ``pieces`` makes it again each time it is called."""

    digest: Digest
    size: int
    pieces: Pieces

    def read(self) -> bytes:
        return b"".join(self.pieces())


@dataclass(frozen=True, slots=True)
class Layer:
    """A blob that holds files; ``diff_id`` is the digest of its tar, not compressed."""

    blob: Blob
    diff_id: Digest
    compression: Compression


@dataclass(frozen=True, slots=True)
class Image:
    """A manifest with its blobs, or an index with its children."""

    descriptor: Descriptor
    raw: bytes
    blobs: tuple[Blob, ...] = ()
    children: tuple[Image, ...] = ()

    @property
    def digest(self) -> Digest:
        return self.descriptor.digest

    def manifests(self) -> list[Image]:
        """Every manifest and index once, children first."""
        below = [image for child in self.children for image in child.manifests()]
        return list({image.digest: image for image in (*below, self)}.values())

    def all_blobs(self) -> list[Blob]:
        """Every blob of the image and of its children, once."""
        found = {blob.digest: blob for image in self.manifests() for blob in image.blobs}
        return list(found.values())


def blob(content: bytes) -> Blob:
    """A blob of bytes in memory."""
    return Blob(digest_of(content), len(content), lambda: (content,))


def layer(files: Mapping[str, bytes], *, compression: Compression = "gzip") -> Layer:
    """A layer of small files, by name and content; a name that ends with / is a directory."""
    return _layer(lambda: _tar(files), compression, level=6)


def random_layer(name: str, size: int, seed: str, *, compression: Compression = "gzip") -> Layer:
    """A layer with one file of ``size`` pseudo-random bytes, of any size, made fast."""

    def pieces() -> Iterator[bytes | memoryview]:
        yield _header(name, size)
        yield from random_pieces(size, seed)
        yield _tar_end(size)

    return _layer(pieces, compression, level=0)


def file_layer(name: str, path: Path, *, compression: Compression = "gzip") -> Layer:
    """A layer with one file, read from disk whenever the layer is."""

    def pieces() -> Iterator[bytes]:
        size = path.stat().st_size
        yield _header(name, size)
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                yield piece
        yield _tar_end(size)

    return _layer(pieces, compression, level=6)


def image(
    layers: Sequence[Layer],
    *,
    kind: Kind = "oci",
    platform: Platform = AMD64,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    process: Mapping[str, object] | None = None,
) -> Image:
    """An image for one platform; layers lowest first, labels in its configuration.

    ``process`` is what the configuration says of the process to run, ``Cmd`` for example.
    """
    config = blob(_json(_configuration(layers, platform, labels or {}, process or {})))
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST_TYPES[kind],
        "config": _reference(config, _CONFIG_TYPES[kind]),
        "layers": [_reference(one.blob, _LAYER_TYPES[kind, one.compression]) for one in layers],
    }
    if annotations:
        document["annotations"] = dict(annotations)
    raw = _json(document)
    descriptor = Descriptor(digest_of(raw), len(raw), _MANIFEST_TYPES[kind], platform)
    return Image(descriptor, raw, (config, *(one.blob for one in layers)))


def index(images: Sequence[Image], *, kind: Kind = "oci") -> Image:
    """An index of images, or of indexes; each entry has its image's platform, if it has one."""
    entries = []
    for child in images:
        entry = _describe(child.descriptor)
        if platform := child.descriptor.platform:
            parts = {"os": platform.os, "architecture": platform.architecture}
            entry["platform"] = parts | ({"variant": platform.variant} if platform.variant else {})
        entries.append(entry)
    raw = _json({"schemaVersion": 2, "mediaType": _INDEX_TYPES[kind], "manifests": entries})
    return Image(
        Descriptor(digest_of(raw), len(raw), _INDEX_TYPES[kind]), raw, children=tuple(images)
    )


def random_pieces(size: int, seed: str) -> Iterator[bytes | memoryview]:
    """Pseudo-random bytes, the same for the same seed, at the speed of memory.

    Stretches of one pool from random offsets, each made unlike any other by what is put in
    front of it: no blob equals another, and nothing can be compressed.
    """
    source = random.Random(seed)
    pool = memoryview(_pool())
    while size > 0:
        mark = source.randbytes(min(32, size))
        start = source.randrange(len(pool) - _PIECE)
        length = min(_PIECE, size) - len(mark)
        yield mark
        yield pool[start : start + length]
        size -= len(mark) + length


_POOL: list[bytes] = []


def _pool() -> bytes:
    if not _POOL:
        _POOL.append(random.Random("pool").randbytes(8 * _PIECE))
    return _POOL[0]


def _layer(tar: Pieces, compression: Compression, level: int) -> Layer:
    def pieces() -> Iterator[bytes | memoryview]:
        return _compressed(tar(), compression, level)

    plain, packed, size = Hasher(), Hasher(), 0

    def watched() -> Iterator[bytes | memoryview]:
        for piece in tar():
            plain.update(piece)
            yield piece

    for piece in _compressed(watched(), compression, level):
        packed.update(piece)
        size += len(piece)
    return Layer(Blob(packed.digest(), size, pieces), plain.digest(), compression)


def _compressed(
    pieces: Iterable[bytes | memoryview], compression: Compression, level: int
) -> Iterator[bytes | memoryview]:
    if compression == "none":
        yield from pieces
        return
    packer: Any = (
        zlib.compressobj(level, zlib.DEFLATED, _GZIP)
        if compression == "gzip"
        else zstandard.ZstdCompressor(level=1).compressobj()
    )
    for piece in pieces:
        yield packer.compress(piece)
    yield packer.flush()


def _tar(files: Mapping[str, bytes]) -> Iterator[bytes]:
    for name, content in files.items():
        yield _header(name, len(content))
        yield content
        yield bytes(-len(content) % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name.rstrip("/"))
    info.size = size
    info.mode = 0o644
    if name.endswith("/"):
        info.type = tarfile.DIRTYPE
        info.mode = 0o755
    return info.tobuf(tarfile.PAX_FORMAT)


def _tar_end(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE)


def _configuration(
    layers: Sequence[Layer],
    platform: Platform,
    labels: Mapping[str, str],
    process: Mapping[str, object],
) -> dict[str, Any]:
    document: dict[str, Any] = {
        "created": "1970-01-01T00:00:00Z",
        "os": platform.os,
        "architecture": platform.architecture,
        "config": {**({"Labels": dict(labels)} if labels else {}), **process},
        "rootfs": {"type": "layers", "diff_ids": [str(one.diff_id) for one in layers]},
        "history": [{"created": "1970-01-01T00:00:00Z"} for _ in layers],
    }
    return document | ({"variant": platform.variant} if platform.variant else {})


def _reference(content: Blob, media_type: str) -> dict[str, Any]:
    return _describe(Descriptor(content.digest, content.size, media_type))


def _describe(descriptor: Descriptor) -> dict[str, Any]:
    return {
        "mediaType": descriptor.media_type,
        "digest": str(descriptor.digest),
        "size": descriptor.size,
    }


def _json(document: object) -> bytes:
    return json.dumps(document, indent=3).encode()
