"""Images that are made here: a further layer on an image there is, or one layer over nothing.

The only place that writes manifests. Whatever it makes is new, under digests of its own, and
the same input gives the same digests; an image that is carried never comes through here.
Knows nothing of what is in the layers, nor of where content comes from or goes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from airgap import limits, strict_json
from airgap.digest import Digest, digest_of
from airgap.errors import MalformedContent, Refused, printable
from airgap.oci import media_types
from airgap.oci.graph import walk
from airgap.oci.model import Descriptor, Index, Manifest, parse_manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airgap.oci.graph import Node
    from airgap.oci.layer import WrittenLayer

_OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
_DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
_CONFIGS = frozenset({_OCI_CONFIG, _DOCKER_CONFIG})
_GZIP_LAYER = {
    media_types.OCI_MANIFEST: "application/vnd.oci.image.layer.v1.tar+gzip",
    media_types.DOCKER_MANIFEST: "application/vnd.docker.image.rootfs.diff.tar.gzip",
}
_CONFIG_KEYS = frozenset({"rootfs", "history", "created"})

_EPOCH = "1970-01-01T00:00:00Z"
_MAKER = "airgap"

_AS_IT_IS = "Take the image as it is; nothing can be put on top of it."

_ATTESTED = "vnd.docker.reference.digest"
"""The annotation by which BuildKit says what an attestation in an index speaks about."""


class Content(Protocol):
    """An image's content, checked against its descriptors."""

    def manifest(self, descriptor: Descriptor) -> bytes:
        """Return a manifest's bytes."""

    def open(self, descriptor: Descriptor) -> BinaryIO:
        """Open a configuration or a layer."""


@dataclass(frozen=True, slots=True)
class Addition:
    """What a manifest gets: a layer on top, and a changed configuration.

    ``configure`` is given the configuration's JSON object and returns what it is to be, but
    for the layer's own traces in ``rootfs`` and ``history``, which are added to that.
    """

    layer: WrittenLayer
    configure: Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class BuiltImage:
    """An image's graph, as ``walk`` gives it, and what of it is new; layers are the caller's.

    ``remarks`` are lines for a person.
    """

    nodes: Sequence[Node]
    manifests: Mapping[Digest, bytes]
    configurations: Mapping[Digest, bytes]
    remarks: Sequence[str] = ()

    @property
    def root(self) -> Descriptor:
        """The manifest or index that stands for the whole image."""
        return self.nodes[-1].descriptor


def with_layers(
    nodes: Sequence[Node], additions: Mapping[Digest, Addition], content: Content
) -> BuiltImage:
    """Put a layer on top of some of an image's manifests, each named by its digest.

    ``nodes`` are the image as it is. Manifests without an addition stay as they are, and so
    does what an index says of them; attestations about the others are left out, and remarked.
    Raises Refused when nothing is changed, when an addition is for none of the image's
    manifests, and for what is no image of layers or would grow too large; MalformedContent,
    and what ``content`` raises.
    """
    root = nodes[-1].descriptor
    leaves = {n.descriptor.digest for n in nodes if n.descriptor.media_type in _GZIP_LAYER}
    if not additions:
        raise Refused(f"{root.digest}: none of its {len(leaves)} manifests is to be changed")
    if strange := sorted(additions.keys() - leaves):
        raise Refused(f"{root.digest}: {strange[0]} is none of its {len(leaves)} manifests")
    rebuilding = _Rebuilding(additions, content)
    for node in nodes:
        rebuilding.take(node.descriptor)
    return BuiltImage(
        walk(rebuilding.replaced[root.digest], rebuilding.manifest),
        rebuilding.manifests,
        rebuilding.configurations,
        rebuilding.remarks,
    )


def of_one_layer(
    layer: WrittenLayer,
    *,
    labels: Mapping[str, str],
    entrypoint: Sequence[str] = (),
    command: Sequence[str] = (),
) -> BuiltImage:
    """Make an image for linux/amd64 of a layer over nothing.

    It is of Docker's schema 2, which every registry takes; some that OpenShift's
    documentation allows as mirrors take nothing else. Raises Refused when it grows too large.
    """
    what, kind = "an image of one layer", media_types.DOCKER_MANIFEST
    run = {
        "Entrypoint": list(entrypoint),
        "Cmd": list(command),
        "Labels": dict(sorted(labels.items())),
    }
    configuration = {
        "created": _EPOCH,
        "architecture": "amd64",
        "os": "linux",
        "config": {key: value for key, value in run.items() if value},
        "rootfs": {"type": "layers", "diff_ids": [str(layer.diff_id)]},
        "history": [{"created": _EPOCH, "created_by": _MAKER}],
    }
    config = _written(configuration, what)
    document = {
        "schemaVersion": 2,
        "mediaType": kind,
        "config": _pointing({"mediaType": _DOCKER_CONFIG}, digest_of(config), len(config)),
        "layers": [_layer_entry(layer, kind)],
    }
    raw = _written(document, what)
    nodes = walk(Descriptor(digest_of(raw), len(raw), kind), lambda _: raw)
    return BuiltImage(nodes, {digest_of(raw): raw}, {digest_of(config): config})


class _Rebuilding:
    """Takes an image's manifests, children first, and makes those anew that change.

    ``replaced`` says what stands in the place of which manifest.
    """

    def __init__(self, additions: Mapping[Digest, Addition], content: Content) -> None:
        self._additions = additions
        self._content = content
        self.replaced: dict[Digest, Descriptor] = {}
        self.manifests: dict[Digest, bytes] = {}
        self.configurations: dict[Digest, bytes] = {}
        self.remarks: list[str] = []

    def manifest(self, descriptor: Descriptor) -> bytes:
        """Return a manifest of the new image."""
        return self.manifests.get(descriptor.digest) or self._content.manifest(descriptor)

    def take(self, old: Descriptor) -> None:
        """Make a manifest anew, if it has to be; those below it were taken before."""
        what = str(old.digest)
        raw = self._content.manifest(old)
        document = strict_json.parse_object(raw, what)
        match parse_manifest(raw, old.media_type, what), self._additions.get(old.digest):
            case Index(), _:
                changes = self._index(document, what)
            case Manifest() as parsed, Addition() as addition:
                changes = self._extended(document, parsed, addition, what)
            case _:
                return
        if changes:
            self._replace(old, _written(document | changes, what))

    def _replace(self, old: Descriptor, raw: bytes) -> None:
        new = replace(old, digest=digest_of(raw), size=len(raw))
        self.replaced[old.digest] = new
        self.manifests[new.digest] = raw

    def _extended(
        self, document: dict[str, Any], parsed: Manifest, addition: Addition, what: str
    ) -> dict[str, Any]:
        """Return what changes in a manifest, and keep its new configuration."""
        changed = addition.configure(self._configuration(parsed.config, what))
        raw = _written(_traced(changed, addition.layer, len(parsed.layers), what), what)
        self.configurations[digest_of(raw)] = raw
        layer = _layer_entry(addition.layer, parsed.media_type)
        return {
            "config": _pointing(document["config"], digest_of(raw), len(raw)),
            "layers": [*(document["layers"] or ()), layer],
        }

    def _configuration(self, descriptor: Descriptor, what: str) -> dict[str, Any]:
        if descriptor.media_type not in _CONFIGS:
            kind = printable(descriptor.media_type)
            raise Refused(
                f"{what}: not an image of files, its configuration is a '{kind}'", hint=_AS_IT_IS
            )
        if descriptor.size > limits.MANIFEST:
            raise MalformedContent(f"{what}: a configuration of {descriptor.size} bytes")
        with self._content.open(descriptor) as file:
            return strict_json.parse_object(file.read(), f"{what}: configuration")

    def _index(self, document: dict[str, Any], what: str) -> dict[str, Any]:
        """Return what changes in an index: no attestation is left about what is gone."""
        gone = {str(digest) for digest in (*self._additions, *self.replaced)}
        old = document["manifests"] or []
        entries = []
        for entry in old:
            about = _attested(entry)
            if about in gone:
                self.remarks.append(
                    f"{what}: the attestation {entry['digest']} is left out, it speaks about"
                    f" {about}, which is changed"
                )
                continue
            new = self.replaced.get(Digest.parse(entry["digest"]))
            entries.append(_pointing(entry, new.digest, new.size) if new else entry)
        return {"manifests": entries} if entries != old else {}


def _traced(
    configuration: dict[str, Any], layer: WrittenLayer, layers: int, what: str
) -> dict[str, Any]:
    """Return a configuration of ``layers`` layers that knows one more."""
    what = f"{what}: configuration"
    strict_json.refuse_disguised_keys(configuration, _CONFIG_KEYS, what)
    rootfs, history = configuration.get("rootfs"), configuration.get("history")
    if not isinstance(rootfs, dict) or not isinstance(history, list | None):
        raise MalformedContent(f"{what}: rootfs is no object, or history no list")
    strict_json.refuse_disguised_keys(rootfs, frozenset({"diff_ids"}), what)
    known = rootfs.get("diff_ids") or []
    if not isinstance(known, list) or len(known) != layers:
        raise Refused(
            f"{what}: its diff_ids are not one for each of the {layers} layers", hint=_AS_IT_IS
        )
    new = configuration | {"rootfs": rootfs | {"diff_ids": [*known, str(layer.diff_id)]}}
    if history:
        created = configuration.get("created") or _EPOCH
        new["history"] = [*history, {"created": created, "created_by": _MAKER}]
    return new


def _attested(entry: dict[str, Any]) -> str:
    """Return the digest of the manifest that an index's entry speaks about, or ""."""
    annotations = entry.get("annotations")
    about = annotations.get(_ATTESTED) if isinstance(annotations, dict) else None
    return about if isinstance(about, str) else ""


def _pointing(entry: dict[str, Any], digest: Digest, size: int) -> dict[str, Any]:
    """Return a descriptor of other content; what says where or what the old one is, goes."""
    kept = {key: value for key, value in entry.items() if key not in ("data", "urls")}
    return kept | {"digest": str(digest), "size": size}


def _layer_entry(layer: WrittenLayer, kind: str) -> dict[str, Any]:
    return _pointing({"mediaType": _GZIP_LAYER[kind]}, layer.digest, layer.size)


def _written(document: dict[str, Any], what: str) -> bytes:
    """Return a document as JSON, its keys in their order."""
    try:
        text = json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError as error:
        raise MalformedContent(f"{what}: holds a number that JSON cannot say") from error
    raw = text.encode()
    if len(raw) > limits.MANIFEST:
        raise Refused(f"{what}: grows to {len(raw)} bytes, registries take {limits.MANIFEST}")
    return raw
