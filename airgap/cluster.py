"""The YAML that makes a cluster use the destination registry.

Mirror sets (ImageContentSourcePolicy, ImageDigestMirrorSet, ImageTagMirrorSet) as
``oc adm catalog mirror`` writes them, sorted, and the objects that announce a catalog. Give
the mirror sets what has arrived: a node asked to try a mirror takes what it finds there.

Differences from ``oc``: tags have a mirror set too; names fit Kubernetes; a catalog is pinned
by digest; what is its own mirror is left out; ``index.docker.io`` is called ``docker.io``, as
nodes do before they look for a mirror; and registry scope is only used where it resolves. A
node appends the path to the registry's mirror, so an entry for the whole registry serves the
images whose path is unchanged below the destination (``--max-components 0``, or short paths);
each other repository gets an entry of its own, which nodes prefer as the longer match.

Pure: knows nothing of files, or of any cluster.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import yaml

from airgap.catalog.formats import FILE_BASED
from airgap.errors import UsageError
from airgap.reference import Repository

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airgap.digest import Digest
    from airgap.mapping import Target
    from airgap.reference import ImageReference

LARGEST_DOCUMENT = 250_000
"""Bytes of one mirror set. Written out as JSON it must fit an etcd value and an annotation."""

_SUBDOMAIN_LENGTH = 253
_LABEL_LENGTH = 63


class Scope(StrEnum):
    """What an entry of a mirror set stands for."""

    REPOSITORY = "repository"
    REGISTRY = "registry"


@dataclass(frozen=True, slots=True)
class _MirrorSet:
    """A kind of mirror set: ``entries`` is the key of its list, ``flag`` bounds its size."""

    api_version: str
    kind: str
    entries: str
    short: str
    flag: str
    has_status: bool

    def document(self, name: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "apiVersion": self.api_version,
            "kind": self.kind,
            "metadata": {"name": name, "labels": {"operators.openshift.org/catalog": "true"}},
            "spec": {self.entries: entries},
        }

    def measured(self, name: str, entries: list[dict[str, Any]]) -> int:
        """Return the size ``oc`` compares with the limit: it counts fields it then leaves out."""
        document = self.document(name, entries)
        document["metadata"]["creationTimestamp"] = None
        if self.has_status:
            document["status"] = {}
        return len(_dump(document))


_ICSP = _MirrorSet(
    "operator.openshift.io/v1alpha1",
    "ImageContentSourcePolicy",
    "repositoryDigestMirrors",
    "ICSP",
    "max-icsp-size",
    has_status=False,
)
_IDMS = _MirrorSet(
    "config.openshift.io/v1",
    "ImageDigestMirrorSet",
    "imageDigestMirrors",
    "IDMS",
    "max-idms-size",
    has_status=True,
)
_ITMS = _MirrorSet(
    "config.openshift.io/v1",
    "ImageTagMirrorSet",
    "imageTagMirrors",
    "ITMS",
    "max-idms-size",
    has_status=True,
)


def image_content_source_policy(
    name: str,
    targets: Iterable[Target],
    *,
    scope: Scope = Scope.REPOSITORY,
    limit: int = LARGEST_DOCUMENT,
) -> str:
    """Return ImageContentSourcePolicies for the images referenced by digest; "" for none.

    ``name`` comes from ``resource_name``. For clusters before OpenShift 4.13. ``limit`` bounds
    each document, in bytes; what does not fit goes on in the next. Raises UsageError for a
    limit that is out of range, or too small for a single entry.
    """
    return _render(_ICSP, name, _mirrors(_by_digest(targets), scope), limit)


def image_digest_mirror_set(
    name: str,
    targets: Iterable[Target],
    *,
    scope: Scope = Scope.REPOSITORY,
    limit: int = LARGEST_DOCUMENT,
) -> str:
    """Return the same as ImageDigestMirrorSets, for OpenShift 4.13 and later."""
    return _render(_IDMS, name, _mirrors(_by_digest(targets), scope), limit)


def image_tag_mirror_set(
    name: str,
    targets: Iterable[Target],
    *,
    scope: Scope = Scope.REPOSITORY,
    limit: int = LARGEST_DOCUMENT,
) -> str:
    """Return ImageTagMirrorSets for the images referenced by tag alone; "" for none."""
    by_tag = (target for target in targets if target.source.digest is None)
    return _render(_ITMS, name, _mirrors(by_tag, scope), limit)


@dataclass(frozen=True, slots=True)
class Announced:
    """A catalog to announce to a cluster: where it is, its root's digest, its format."""

    target: Target
    digest: Digest
    format: str

    @property
    def image(self) -> str:
        """What a cluster pulls."""
        return f"{self.target.repository}@{self.digest}"


def catalog_sources(catalogs: Sequence[Announced]) -> str:
    """Return a CatalogSource for each catalog, pinned to its digest; "" for none.

    OLM names a Service and labels a Pod after one, so names are narrower than elsewhere.
    Catalogs of one name have their tag in it too, as two versions of an index; and their
    repository, where that does not tell them apart either.
    """
    return "---\n".join(_catalog_source(name, catalog.image) for name, catalog in _named(catalogs))


def cluster_catalogs(catalogs: Sequence[Announced]) -> str:
    """Return a ClusterCatalog for each file-based catalog, pinned to its digest; "" for none.

    The same under the API of OLM v1, which reads no other format, and the same name.
    """
    return "---\n".join(
        _cluster_catalog(name, catalog.image)
        for name, catalog in _named(catalogs)
        if catalog.format == FILE_BASED
    )


def _named(catalogs: Sequence[Announced]) -> Iterable[tuple[str, Announced]]:
    return zip(_names([catalog.target for catalog in catalogs]), catalogs, strict=True)


def _names(targets: Sequence[Target]) -> list[str]:
    choices = (
        [_service_name(target.source.name) for target in targets],
        [_service_name(target.source.name, target.tag) for target in targets],
        [_service_name(target.repository.path, target.tag) for target in targets],
    )
    for names in choices:
        if len(set(names)) == len(names):
            return names
    return [f"{name[:50]}-{number}" for number, name in enumerate(choices[-1])]


def _catalog_source(name: str, image: str) -> str:
    return _dump(
        {
            "apiVersion": "operators.coreos.com/v1alpha1",
            "kind": "CatalogSource",
            "metadata": {"name": name, "namespace": "openshift-marketplace"},
            "spec": {"sourceType": "grpc", "image": image},
        }
    )


def _cluster_catalog(name: str, image: str) -> str:
    return _dump(
        {
            "apiVersion": "olm.operatorframework.io/v1",
            "kind": "ClusterCatalog",
            "metadata": {"name": name},
            "spec": {"source": {"type": "Image", "image": {"ref": image}}},
        }
    )


def resource_name(catalog: ImageReference) -> str:
    """Return a catalog's name as Kubernetes wants names (RFC 1123 subdomain).

    The grammar of references leaves little to do; room is kept for a number behind it.
    """
    name = re.sub("[/_]", "-", catalog.name)
    return name[: _SUBDOMAIN_LENGTH - len("-9999")].rstrip("-.")


def _service_name(name: str, tag: str = "") -> str:
    """Return a name as a label of RFC 1035: no dots, and a letter in front."""
    label = re.sub("[/._]", "-", name)
    if label[0].isdigit():
        label = f"cs-{label}"
    behind = re.sub("[^a-z0-9]+", "-", f"-{tag}".lower()).rstrip("-") if tag else ""
    return f"{label[: _LABEL_LENGTH - len(behind)].rstrip('-')}{behind}"[:_LABEL_LENGTH].rstrip("-")


def _by_digest(targets: Iterable[Target]) -> Iterable[Target]:
    return (target for target in targets if target.source.digest is not None)


def _mirrors(targets: Iterable[Target], scope: Scope) -> list[dict[str, Any]]:
    """Return one entry for each source, sorted, with all its mirrors."""
    found: dict[str, set[str]] = defaultdict(set)
    for target in targets:
        source, mirror = _pair(target, scope)
        if source != mirror:
            found[source].add(mirror)
    return [{"source": source, "mirrors": sorted(found[source])} for source in sorted(found)]


def _pair(target: Target, scope: Scope) -> tuple[str, str]:
    source, mirror = _as_nodes_call_it(target.source.repository), target.repository
    if scope is Scope.REGISTRY:
        below = f"/{mirror.path}"
        namespace = below.removesuffix(f"/{source.path}")
        if namespace != below:
            return source.host, f"{mirror.host}{namespace}"
    return str(source), str(mirror)


def _as_nodes_call_it(repository: Repository) -> Repository:
    if repository.host == "index.docker.io":
        return Repository("docker.io", repository.path)
    return repository


def _render(kind: _MirrorSet, name: str, entries: list[dict[str, Any]], limit: int) -> str:
    if not 0 < limit <= LARGEST_DOCUMENT:
        raise UsageError(f"--{kind.flag} {limit}: limit must be >0 and <={LARGEST_DOCUMENT}")
    documents: list[str] = []
    while entries:
        numbered = f"{name}-{len(documents)}"
        count = _fitting(kind, numbered, entries, limit)
        documents.append(f"---\n{_dump(kind.document(numbered, entries[:count]))}")
        entries = entries[count:]
    return "".join(documents)


def _fitting(kind: _MirrorSet, name: str, entries: list[dict[str, Any]], limit: int) -> int:
    """Return how many of the entries one document holds; at least one. Raises UsageError."""
    if kind.measured(name, entries) <= limit:
        return len(entries)
    size = kind.measured(name, entries[:1])
    if size > limit:
        source, mirrors = entries[0]["source"], " ".join(entries[0]["mirrors"])
        raise UsageError(
            f"unable to add mirror {{{source} [{mirrors}]}} to {kind.short}"
            f" with the {kind.flag} set to {limit}",
            hint=f"One entry alone needs {size} bytes.",
        )
    for count, entry in enumerate(entries[1:], start=1):
        text = _dump([entry])
        size += len(text) + len("  ") * text.count("\n")
        if size > limit:
            return count
    return len(entries)


def _dump(document: Any) -> str:
    text: str = yaml.dump(document, Dumper=yaml.CSafeDumper, default_flow_style=False)
    return text
