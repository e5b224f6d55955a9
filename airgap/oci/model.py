"""Descriptors, manifests and indexes: a strict look at bytes that stay as they are.

Follows the OCI image specification 1.1 (descriptor.md, manifest.md, image-index.md) and
Docker's schema 2. Nothing here writes JSON: a manifest travels as the bytes that arrived.
What two tools could read differently is refused. Knows nothing of where bytes come from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from airgap import limits, strict_json
from airgap.digest import Digest
from airgap.errors import MalformedContent, MalformedDigest, printable
from airgap.oci import media_types

_DOCUMENT_KEYS = frozenset({"schemaVersion", "mediaType", "config", "layers", "manifests"})
_DESCRIPTOR_KEYS = frozenset({"digest", "size", "mediaType", "platform", "urls", "data"})


@dataclass(frozen=True, slots=True)
class Platform:
    """For which machines an index's entry is."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A promise about content: its digest, its size in bytes, its media type."""

    digest: Digest
    size: int
    media_type: str
    platform: Platform | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image for one platform: a configuration and layers, lowest first."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True)
class Index:
    """Several manifests or indexes under one digest (Docker: manifest list)."""

    media_type: str
    manifests: tuple[Descriptor, ...]


def parse_manifest(raw: bytes, media_type: str, what: str) -> Manifest | Index:
    """Look into a manifest or an index; ``what`` names it in errors.

    ``media_type`` is what a descriptor or a registry said it is, "" when nobody said.
    Raises MalformedContent when the bytes are neither, are both (CVE-2021-41190), or are
    something else than was said; and for Docker's schema 1.
    """
    if len(raw) > limits.MANIFEST:
        raise MalformedContent(f"{what}: larger than {limits.MANIFEST} bytes")
    document = strict_json.parse_object(raw, what)
    strict_json.refuse_disguised_keys(document, _DOCUMENT_KEYS, what)
    kind = manifest_type(document, media_type, what)
    if kind in media_types.INDEXES:
        entries = _list(document, "manifests", what)
        return Index(kind, tuple(_descriptor(entry, what) for entry in entries))
    layers = _list(document, "layers", what)
    if len(layers) > limits.LAYERS_PER_MANIFEST:
        raise MalformedContent(f"{what}: {len(layers)} layers")
    return Manifest(
        kind,
        _descriptor(document.get("config"), what),
        tuple(_descriptor(layer, what) for layer in layers),
    )


def manifest_type(document: dict[str, Any], declared: str, what: str) -> str:
    """Return a manifest's true media type from all that says something about it.

    Raises MalformedContent where the evidence conflicts or does not suffice.
    """
    own = document.get("mediaType") or ""
    if not isinstance(own, str):
        raise MalformedContent(f"{what}: its mediaType is no text")
    said = {text for text in (own, declared) if text}
    if document.get("schemaVersion") == 1 or said & media_types.SCHEMA1:
        raise MalformedContent(
            f"{what}: a Docker schema 1 manifest, which cannot be carried unchanged",
            hint="Ask the publisher for an image in a current format.",
        )
    if len(said) > 1:
        listed = " and ".join(sorted(printable(text) for text in said))
        raise MalformedContent(f"{what}: said to be both {listed}")
    has_children, has_layers = "manifests" in document, "layers" in document
    if has_children == has_layers:
        shape = "both a manifest and an index" if has_layers else "neither a manifest nor an index"
        raise MalformedContent(f"{what}: {shape}")
    expected = media_types.INDEXES if has_children else media_types.MANIFESTS
    if not said:
        return media_types.OCI_INDEX if has_children else media_types.OCI_MANIFEST
    (kind,) = said
    if kind not in expected:
        raise MalformedContent(f"{what}: its content is not a {printable(kind)}")
    return kind


def config_labels(raw: bytes, what: str) -> dict[str, str]:
    """Return the labels in an image's configuration; ``what`` names it in errors.

    Empty for an image without any, and for an artifact. Follows config.md of the OCI image
    specification. Raises MalformedContent.
    """
    document = strict_json.parse_object(raw, what)
    config = _object(document, "config", what)
    labels = _object(config, "Labels", what)
    for name, value in labels.items():
        if not isinstance(value, str):
            raise MalformedContent(f"{what}: the label '{printable(name)}' is no text")
    return labels


def _object(document: dict[str, Any], key: str, what: str) -> dict[str, Any]:
    strict_json.refuse_disguised_keys(document, frozenset({key}), what)
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise MalformedContent(f"{what}: {key} is no object")
    return value


def _list(document: dict[str, Any], key: str, what: str) -> list[Any]:
    value = document[key]
    if value is None:
        return []
    if not isinstance(value, list):
        raise MalformedContent(f"{what}: {key} is no list")
    if len(value) > limits.MANIFESTS_PER_IMAGE:
        raise MalformedContent(f"{what}: {len(value)} entries in {key}")
    return value


def _descriptor(value: Any, what: str) -> Descriptor:
    if not isinstance(value, dict):
        raise MalformedContent(f"{what}: a descriptor is no object")
    strict_json.refuse_disguised_keys(value, _DESCRIPTOR_KEYS, what)
    digest, size, media_type = value.get("digest"), value.get("size"), value.get("mediaType", "")
    if not isinstance(digest, str) or not isinstance(media_type, str):
        raise MalformedContent(f"{what}: a descriptor without digest or media type")
    if type(size) is not int or not 0 <= size <= limits.BLOB:
        raise MalformedContent(f"{what}: {printable(digest)} with size {printable(repr(size))}")
    try:
        parsed = Digest.parse(digest)
    except MalformedDigest as error:
        raise MalformedContent(f"{what}: {error.message}") from error
    return Descriptor(parsed, size, media_type, _platform(value.get("platform"), what))


def _platform(value: Any, what: str) -> Platform | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise MalformedContent(f"{what}: a platform is no object")
    parts = [value.get(key) or "" for key in ("os", "architecture", "variant")]
    if not all(isinstance(part, str) for part in parts):
        raise MalformedContent(f"{what}: a platform holds something else than text")
    return Platform(*parts)
