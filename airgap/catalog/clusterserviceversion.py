"""A ClusterServiceVersion, as far as catalogs need it: which images, over which, for what.

The images of a bundle are those under ``spec.relatedImages`` and, where the strategy to
install is ``deployment``, those of the containers and init containers of its deployments.
Annotations, environment variables and examples name images too; operator-registry never reads
them there, and old ones often lead nowhere. Variables ``RELATED_IMAGE_*`` are looked at all the
same, to say what an operator may ask for that no catalog's reader takes. Shapes that are wrong
cost what they hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airgap import strict_json
from airgap.catalog.properties import Api
from airgap.catalog.shapes import SILENT, Shapes, folded
from airgap.errors import MalformedContent, printable
from airgap.limits import MIB

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping

KIND = "ClusterServiceVersion"

_SKIP_RANGE = "olm.skipRange"
_SUBSTITUTES_FOR = "olm.substitutesFor"
_CUSTOM_RESOURCES = "customresourcedefinitions"
_API_SERVICES = "apiservicedefinitions"
_ROLES = ("owned", "required")

_VARIABLE = "RELATED_IMAGE_"
_LARGEST = 2 * MIB
"""Bytes of an object as JSON; no cluster's etcd takes one of more than 1.5 MiB."""


@dataclass(frozen=True, slots=True)
class ClusterServiceVersion:
    """One version of an operator; ``faults`` say which parts have a shape they must not have.

    ``images`` has each image once, in the order of the text; what is not there is "".
    ``plurals`` are the names under which a cluster serves the APIs that it provides or requires.
    """

    name: str
    version: str
    replaces: str
    skips: tuple[str, ...]
    skip_range: str
    substitutes_for: str
    images: tuple[str, ...]
    provides: tuple[Api, ...]
    requires: tuple[Api, ...]
    plurals: Mapping[Api, str]
    faults: tuple[str, ...] = ()


def is_one(document: Any) -> bool:
    """Say whether a document is a ClusterServiceVersion."""
    return isinstance(document, dict) and document.get("kind") == KIND


def parse(document: Mapping[str, Any]) -> ClusterServiceVersion:
    """Read a document that is one; a ``name`` of "" says that it has none."""
    faults: dict[str, None] = {}
    shapes = Shapes(lambda fault: faults.setdefault(fault))
    metadata = shapes.mapping(document, "metadata")
    annotations = shapes.mapping(metadata, "annotations")
    spec = shapes.mapping(document, "spec")
    owned, required = (dict(_apis(spec, role, shapes)) for role in _ROLES)
    return ClusterServiceVersion(
        name=shapes.text(metadata, "name"),
        version=shapes.text(spec, "version"),
        replaces=shapes.text(spec, "replaces"),
        skips=tuple(dict.fromkeys(filter(None, shapes.texts(spec, "skips")))),
        skip_range=shapes.text(annotations, _SKIP_RANGE),
        substitutes_for=shapes.text(annotations, _SUBSTITUTES_FOR),
        images=tuple(dict.fromkeys(filter(None, _images(spec, shapes)))),
        provides=tuple(owned),
        requires=tuple(required),
        plurals=required | owned,
        faults=tuple(faults),
    )


def plurals(definitions: Mapping[str, Any]) -> Mapping[Api, str]:
    """Return the names under which a cluster serves the APIs that an operator owns or requires.

    ``definitions`` are those of a CSV's ``spec``, its keys in lower case.
    """
    owned, required = (dict(_apis(definitions, role, SILENT)) for role in _ROLES)
    return required | owned


def unlisted(document: Mapping[str, Any], images: Container[str]) -> tuple[str, ...]:
    """Say which variables ``RELATED_IMAGE_*`` name an image that is not among ``images``.

    ``document`` is a ClusterServiceVersion, ``images`` are those of its bundle. Gives a line for
    each, fit to be printed: the bundle, the variable, the image.
    """
    name = printable(SILENT.text(SILENT.mapping(document, "metadata"), "name"))
    named: dict[tuple[str, str], None] = {}
    for container in _containers(SILENT.mapping(document, "spec"), SILENT):
        for variable in map(folded, SILENT.mappings(container, "env")):
            key, image = SILENT.text(variable, "name"), SILENT.text(variable, "value")
            if key.startswith(_VARIABLE) and image and image not in images:
                named[key, image] = None
    return tuple(
        f"bundle {name!r}: {printable(key)} is {printable(image)!r}, which is not among its images"
        for key, image in named
    )


def unlisted_in(raw: bytes, images: Container[str]) -> tuple[str, ...]:
    """Do as ``unlisted`` for an object as JSON.

    Nothing for one that is no ClusterServiceVersion, cannot be read, or is larger than a
    cluster takes; one without any such variable costs next to nothing.
    """
    if len(raw) > _LARGEST or _VARIABLE.encode() not in raw:
        return ()
    try:
        document = strict_json.parse_object(raw, KIND)
    except MalformedContent:
        return ()
    return unlisted(document, images) if is_one(document) else ()


def _images(spec: Mapping[str, Any], shapes: Shapes) -> Iterator[str]:
    for related in map(folded, shapes.mappings(spec, "relatedImages")):
        yield shapes.text(related, "image")
    for container in _containers(spec, shapes):
        yield shapes.text(container, "image")


def _containers(spec: Mapping[str, Any], shapes: Shapes) -> Iterator[dict[str, Any]]:
    """Give all containers, their keys in lower case, as Go takes keys in any here."""
    install = _inside(spec, ("install",), shapes)
    if install.get("strategy") != "deployment":
        return
    for deployment in shapes.mappings(_inside(install, ("spec",), shapes), "deployments"):
        pod = _inside(deployment, ("spec", "template", "spec"), shapes)
        for containers in ("initcontainers", "containers"):
            yield from map(folded, shapes.mappings(pod, containers))


def _inside(holder: Mapping[str, Any], keys: Iterable[str], shapes: Shapes) -> dict[str, Any]:
    """Return the mapping at the end of a path of keys, all of them in lower case."""
    inner = folded(holder)
    for key in keys:
        inner = folded(shapes.mapping(inner, key))
    return inner


def _apis(spec: Mapping[str, Any], role: str, shapes: Shapes) -> Iterator[tuple[Api, str]]:
    """Give the APIs in one of the ``_ROLES``, each with its plural."""
    custom_resources = folded(shapes.mapping(spec, _CUSTOM_RESOURCES))
    for definition in map(folded, shapes.mappings(custom_resources, role)):
        plural, _, group = shapes.text(definition, "name").partition(".")
        yield _api(definition, group, shapes), plural
    services = folded(shapes.mapping(spec, _API_SERVICES))
    for definition in map(folded, shapes.mappings(services, role)):
        group, plural = shapes.text(definition, "group"), shapes.text(definition, "name")
        yield _api(definition, group, shapes), plural


def _api(definition: Mapping[str, Any], group: str, shapes: Shapes) -> Api:
    return Api(group, shapes.text(definition, "version"), shapes.text(definition, "kind"))
