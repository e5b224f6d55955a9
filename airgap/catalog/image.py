"""The catalog that an image holds: which variant is read, and what its layers add up to.

Knows the graph of an image and the formats of catalogs; the bytes come from whoever has them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

from airgap import limits
from airgap.catalog import read
from airgap.errors import CatalogError, MalformedContent, UsageError
from airgap.oci.model import Descriptor, Manifest, config_labels, parse_manifest
from airgap.oci.rootfs import FileTree, Layer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airgap.catalog.read import Found
    from airgap.catalog.tree import Tree
    from airgap.oci.graph import Node


class Content(Protocol):
    """An image's content, checked against its descriptors."""

    def manifest(self, descriptor: Descriptor) -> bytes:
        """Return a manifest's bytes."""

    def open(self, descriptor: Descriptor) -> BinaryIO:
        """Open a configuration or a layer."""


@dataclass(frozen=True)
class CatalogImage:
    """A catalog as it was found in an image, and the files it was found in."""

    tree: Tree
    found: Found


def read_image(
    nodes: Sequence[Node], platform: str, name: str, content: Content, place: str = ""
) -> CatalogImage:
    """Read the catalog in the one variant of an image that ``platform`` picks.

    ``nodes`` are the image's manifests, ``name`` says in errors which image it is. Raises
    UsageError when not exactly one variant fits, and what ``read_variant`` raises.
    """
    return read_variant(choose_variant(nodes, platform, name), name, content, place)


def read_variant(variant: Descriptor, name: str, content: Content, place: str = "") -> CatalogImage:
    """Read the catalog in one variant of an image, for one platform.

    It is looked for at ``place``, "" is where the image itself says. Raises CatalogError when
    there is no catalog in it, MalformedContent, and what ``content`` raises.
    """
    manifest = parse_manifest(content.manifest(variant), variant.media_type, str(variant.digest))
    if not isinstance(manifest, Manifest):
        raise MalformedContent(f"{name}: {variant.digest} is an index")
    if manifest.config.size > limits.MANIFEST:
        raise MalformedContent(f"{name}: a configuration of {manifest.config.size} bytes")
    with content.open(manifest.config) as config:
        labels = config_labels(config.read(), f"{name}: configuration")
    tree = FileTree.scan(
        Layer(str(layer.digest), _opener(content, layer)) for layer in manifest.layers
    )
    try:
        found = read.read_at(tree, labels, place) if place else read.read(tree, labels)
        return CatalogImage(tree, found)
    except CatalogError as error:
        raise CatalogError(f"{name}: {error.message}", hint=error.hint) from error


def variants(nodes: Sequence[Node]) -> list[Descriptor]:
    """Return an image's manifests for platforms; an attestation is for none."""
    leaves = [node.descriptor for node in nodes if not node.children]
    return [leaf for leaf in leaves if str(leaf.platform or "") != "unknown/unknown"]


def choose_variant(nodes: Sequence[Node], platform: str, name: str) -> Descriptor:
    """Return the one manifest for a platform, as ``oc`` chooses it.

    ``platform`` is a regular expression, unanchored, on ``os/architecture[/variant]``. An
    image without an index is taken as it is. Raises UsageError when not exactly one fits.
    """
    leaves = [node.descriptor for node in nodes if not node.children]
    if len(nodes) == 1:
        return leaves[0]
    try:
        pattern = re.compile(platform)
    except re.error as error:
        raise UsageError(f"{platform!r} is not a regular expression: {error}") from error
    fitting = [leaf for leaf in leaves if pattern.search(str(leaf.platform or ""))]
    if len(fitting) != 1:
        table = "\n".join(f"  {leaf.platform or '-'}  {leaf.digest}" for leaf in leaves)
        raise UsageError(
            f"{name}: {len(fitting)} variants of the catalog fit {platform!r}; it has\n{table}",
            hint="Choose one with --index-filter-by-os.",
        )
    return fitting[0]


def _opener(content: Content, layer: Descriptor) -> Callable[[], BinaryIO]:
    return lambda: content.open(layer)
