"""A ClusterServiceVersion, as far as catalogs need it: which images, over which, for what.

The images of a bundle are those under ``spec.relatedImages`` and, where the strategy to
install is ``deployment``, those of the containers and init containers of its deployments.
Annotations, environment variables and examples name images too; operator-registry never reads
them there, and old ones often lead nowhere. Shapes that are wrong cost what they hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airgap.catalog.properties import Api
from airgap.catalog.shapes import Shapes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

KIND = "ClusterServiceVersion"

_SKIP_RANGE = "olm.skipRange"
_SUBSTITUTES_FOR = "olm.substitutesFor"
_CUSTOM_RESOURCES = "customresourcedefinitions"
_API_SERVICES = "apiservicedefinitions"


@dataclass(frozen=True, slots=True)
class ClusterServiceVersion:
    """One version of an operator; ``faults`` say which parts have a shape they must not have.

    ``images`` has each image once, in the order of the text; what is not there is "".
    ``plurals`` are the names under which a cluster serves the APIs that the operator owns.
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
    owned = dict(_apis(spec, "owned", shapes))
    return ClusterServiceVersion(
        name=shapes.text(metadata, "name"),
        version=shapes.text(spec, "version"),
        replaces=shapes.text(spec, "replaces"),
        skips=tuple(dict.fromkeys(filter(None, shapes.texts(spec, "skips")))),
        skip_range=shapes.text(annotations, _SKIP_RANGE),
        substitutes_for=shapes.text(annotations, _SUBSTITUTES_FOR),
        images=tuple(dict.fromkeys(filter(None, _images(spec, shapes)))),
        provides=tuple(owned),
        requires=tuple(dict(_apis(spec, "required", shapes))),
        plurals=owned,
        faults=tuple(faults),
    )


def plurals(definitions: Mapping[str, Any]) -> Mapping[Api, str]:
    """Return the names under which a cluster serves the APIs that an operator owns.

    ``definitions`` are those of a CSV's ``spec``, its keys in lower case.
    """
    return dict(_apis(definitions, "owned", Shapes(lambda _fault: None)))


def _images(spec: Mapping[str, Any], shapes: Shapes) -> Iterator[str]:
    for related in shapes.mappings(spec, "relatedImages"):
        yield shapes.text(related, "image")
    install = shapes.mapping(spec, "install")
    if install.get("strategy") != "deployment":
        return
    for deployment in shapes.mappings(shapes.mapping(install, "spec"), "deployments"):
        template = shapes.mapping(shapes.mapping(deployment, "spec"), "template")
        pod = shapes.mapping(template, "spec")
        for containers in ("initContainers", "containers"):
            for container in shapes.mappings(pod, containers):
                yield shapes.text(container, "image")


def _apis(spec: Mapping[str, Any], role: str, shapes: Shapes) -> Iterator[tuple[Api, str]]:
    """Give the APIs that are "owned" or "required", each with its plural."""
    for definition in shapes.mappings(shapes.mapping(spec, _CUSTOM_RESOURCES), role):
        plural, _, group = shapes.text(definition, "name").partition(".")
        yield _api(definition, group, shapes), plural
    for definition in shapes.mappings(shapes.mapping(spec, _API_SERVICES), role):
        group, plural = shapes.text(definition, "group"), shapes.text(definition, "name")
        yield _api(definition, group, shapes), plural


def _api(definition: Mapping[str, Any], group: str, shapes: Shapes) -> Api:
    return Api(group, shapes.text(definition, "version"), shapes.text(definition, "kind"))
