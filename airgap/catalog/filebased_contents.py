"""What a file-based catalog holds of its bundles beyond the model: objects and properties.

Objects stand in properties of the type ``olm.bundle.object``, as JSON in base64. One that
cannot be read stays the property that it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airgap import strict_json
from airgap.catalog import bundle_objects, clusterserviceversion, filebased_documents
from airgap.catalog.content import BundleContent, as_json
from airgap.catalog.notes import Notes
from airgap.catalog.shapes import SILENT, folded
from airgap.errors import MalformedContent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airgap.catalog.properties import Api
    from airgap.catalog.tree import Tree

_METADATA = "olm.csv.metadata"


def contents(tree: Tree, directory: str) -> Iterator[BundleContent]:
    """Give what the catalog in a directory of a tree holds of its bundles, in any order.

    Faults were noted when the catalog was read; here they are left out. Raises CatalogError
    as ``filebased.read`` does.
    """
    for _, document in filebased_documents.read(tree, directory, Notes()):
        fields = folded(document)
        match fields.get("schema"):
            case "olm.bundle":
                yield _content(fields)
            case "olm.deprecations":
                for entry in map(folded, SILENT.mappings(fields, "entries")):
                    reference = folded(SILENT.mapping(entry, "reference"))
                    if reference.get("schema") == "olm.bundle":
                        yield BundleContent(SILENT.text(reference, "name"), deprecated=True)


def _content(bundle: Mapping[str, Any]) -> BundleContent:
    objects: list[dict[str, Any]] = []
    properties: list[tuple[str, str]] = []
    plurals: dict[Api, str] = {}
    for entry in map(folded, SILENT.mappings(bundle, "properties")):
        kind, value = SILENT.text(entry, "type"), entry.get("value")
        found = _object(value) if kind == bundle_objects.TYPE else None
        if found is not None:
            objects.append(found)
        else:
            properties.append((kind, as_json(value)))
        if kind == _METADATA and isinstance(value, dict):
            plurals.update(clusterserviceversion.plurals(folded(value)))
    csv = next(filter(clusterserviceversion.is_one, objects), None)
    if csv is not None:
        plurals.update(clusterserviceversion.parse(csv).plurals)
    return BundleContent(
        bundle=SILENT.text(bundle, "name"),
        csv=as_json(csv) if csv is not None else "",
        objects="".join(map(as_json, objects)),
        properties=tuple(properties),
        plurals=plurals,
    )


def _object(value: Any) -> dict[str, Any] | None:
    """Return the object in a property, None where there is none that can be read."""
    raw = bundle_objects.raw(folded(value)) if isinstance(value, dict) else b""
    try:
        return strict_json.parse_object(raw, bundle_objects.TYPE)
    except MalformedContent:
        return None
