"""The graph below an image's root: which manifests, which blobs, in which order.

Pure: the bytes come through a ``fetch`` that the caller hands in, which has checked them
against the descriptor. Knows nothing of registries, archives or catalogs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airgap import limits
from airgap.errors import MalformedContent, Refused
from airgap.oci import media_types
from airgap.oci.model import Descriptor, Index, parse_manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from airgap.digest import Digest


@dataclass(frozen=True, slots=True)
class Node:
    """One manifest or index of an image, and what it refers to directly.

    ``children`` are manifests, in the index's order; ``blobs`` are the configuration and the
    layers, lowest first. Both without repetitions.
    """

    descriptor: Descriptor
    children: tuple[Digest, ...]
    blobs: tuple[Descriptor, ...]


class UnsupportedContent(Refused):
    """Sound content that cannot be carried: ``reason`` is the short word for it."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


def walk(root: Descriptor, fetch: Callable[[Descriptor], bytes]) -> list[Node]:
    """Return every manifest of an image once, children before the index that names them.

    Raises MalformedContent, UnsupportedContent (content addressed by sha512, layers that
    registries do not hold) and whatever ``fetch`` raises. A cycle cannot exist, as nothing
    holds its own hash; depth and number are bounded all the same.
    """
    nodes: dict[Digest, Node] = {}

    def visit(descriptor: Descriptor, depth: int) -> None:
        if descriptor.digest in nodes:
            return
        if depth > limits.INDEX_DEPTH or len(nodes) >= limits.MANIFESTS_PER_IMAGE:
            raise MalformedContent(f"{root.digest}: too many manifests, or nested too deeply")
        _refuse_sha512(descriptor)
        raw = fetch(descriptor)
        what = str(descriptor.digest)
        content = parse_manifest(raw, descriptor.media_type, what)
        if isinstance(content, Index):
            manifests = _distinct(content.manifests, what)
            for child in manifests:
                visit(child, depth + 1)
            children = tuple(child.digest for child in manifests)
            blobs: tuple[Descriptor, ...] = ()
        else:
            children = ()
            blobs = _distinct((content.config, *content.layers), what)
            for blob in blobs:
                _refuse_unsupported(blob, what)
        true = Descriptor(descriptor.digest, len(raw), content.media_type, descriptor.platform)
        nodes[descriptor.digest] = Node(true, children, blobs)

    visit(root, 0)
    return list(nodes.values())


def children(descriptor: Descriptor, raw: bytes) -> tuple[Descriptor, ...]:
    """Return what an index names and ``walk`` will fetch, for whoever wants it beforehand.

    () for a manifest, and for whatever is unsound: ``walk`` says what is wrong with it.
    """
    try:
        content = parse_manifest(raw, descriptor.media_type, "")
    except MalformedContent:
        return ()
    named = content.manifests if isinstance(content, Index) else ()
    return tuple(child for child in named if child.digest.algorithm == "sha256")


def _distinct(descriptors: Iterable[Descriptor], what: str) -> tuple[Descriptor, ...]:
    """Return the first descriptor of each digest; none may promise it with another size."""
    first: dict[Digest, Descriptor] = {}
    for descriptor in descriptors:
        known = first.setdefault(descriptor.digest, descriptor)
        if known.size != descriptor.size:
            raise MalformedContent(
                f"{what}: {descriptor.digest} with size {known.size} and with {descriptor.size}"
            )
    return tuple(first.values())


def _refuse_sha512(descriptor: Descriptor) -> None:
    if descriptor.digest.algorithm != "sha256":
        raise UnsupportedContent(
            f"{descriptor.digest}: content addressed by {descriptor.digest.algorithm} is not"
            " carried, an archive has no place for its name",
            "sha512",
        )


def _refuse_unsupported(blob: Descriptor, what: str) -> None:
    _refuse_sha512(blob)
    if media_types.is_foreign_layer(blob.media_type):
        raise UnsupportedContent(
            f"{what}: layer {blob.digest} is one that registries do not hold ({blob.media_type})",
            "foreign-layer",
        )
