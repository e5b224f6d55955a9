"""Asking catalogs and registries all that must be known before the first blob moves.

Turns a question into a plan: each reference is resolved once, every manifest is fetched, and
one broken image costs itself and nothing else. What has been learned goes into a ``Memory``,
so that a killed run does not ask again. Knows nothing of where the content will go.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

from airgap import limits
from airgap import plan as planning
from airgap.catalog import read as catalog_files
from airgap.errors import (
    AccessDenied,
    AirgapError,
    Blocked,
    CatalogError,
    IntegrityError,
    Interrupted,
    MalformedContent,
    MalformedReference,
    NotFound,
    RegistryError,
    StorageError,
    Unreachable,
    UsageError,
)
from airgap.oci import graph
from airgap.oci.model import Descriptor, Manifest, config_labels, parse_manifest
from airgap.oci.rootfs import FileTree, Layer
from airgap.plan import Missing, Plan, Question, Reason, Wanted
from airgap.reference import ImageReference
from airgap.transfer import in_parallel

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Sequence

    from airgap.catalog.read import Found
    from airgap.digest import Digest
    from airgap.progress import Progress
    from airgap.registry.client import RegistryClient


class Memory(Protocol):
    """What a planning run has learned; the archive's work directory fits."""

    def pinned(self, reference: str) -> Descriptor | None:
        """Return what a reference was found to stand for."""

    def pin(self, reference: str, descriptor: Descriptor) -> None:
        """Remember what a reference stands for."""

    def manifest(self, digest: Digest) -> bytes | None:
        """Return a manifest that was kept, checked."""

    def keep(self, digest: Digest, content: bytes) -> None:
        """Keep a manifest."""

    def fetch(self, digest: Digest, size: int, read: Callable[[int], Iterator[bytes]]) -> None:
        """Make sure that a blob is here."""

    def open(self, digest: Digest) -> BinaryIO:
        """Open a blob that is here."""


@dataclass(frozen=True)
class Survey:
    """A plan, and what was said of each of its holes, by reference."""

    plan: Plan
    details: dict[str, str]

    @property
    def missing(self) -> list[Missing]:
        """The images that cannot be had."""
        return planning.plan_holes(self.plan, self.details)


def survey(
    question: Question,
    client: RegistryClient,
    memory: Memory,
    *,
    workers: int,
    continue_on_error: bool,
    progress: Progress,
    stop: threading.Event,
) -> Survey:
    """Answer a question with a plan; images that cannot be had are holes in it.

    Raises what keeps a catalog itself from being read: RegistryError, CatalogError,
    MalformedContent, IntegrityError, UsageError; StorageError, Interrupted; and without
    ``continue_on_error`` whatever is wrong with the first image that cannot be had.
    """
    surveyor = _Surveyor(client, memory, continue_on_error)
    offers = []
    for text in question.catalogs:
        progress.stage(f"reading catalog {text}")
        offer = surveyor.read_catalog(ImageReference.parse(text), text, question.platform)
        for problem in offer.found.catalog.problems:
            progress.say(f"{text}: {problem}")
        offers.append(offer)
    wanted = planning.in_order(_wanted(offers))
    progress.stage("asking for manifests", total_images=len(wanted))

    def answer(want: Wanted) -> Sequence[graph.Node] | Reason:
        nodes = surveyor.look_up(want)
        progress.image()
        return nodes

    answers = in_parallel(answer, wanted, workers=workers, stop=stop)
    made = planning.make_plan(question, _bundles(offers), zip(wanted, answers, strict=True))
    return Survey(made, surveyor.details)


@dataclass(frozen=True)
class _Offer:
    reference: str
    found: Found


class _Surveyor:
    def __init__(self, client: RegistryClient, memory: Memory, continue_on_error: bool) -> None:
        self._continue_on_error = continue_on_error
        self._client = client
        self._memory = memory
        self.details: dict[str, str] = {}

    def look_up(self, want: Wanted) -> Sequence[graph.Node] | Reason:
        """Return an image's graph, or why there is none."""
        try:
            return self.walk(ImageReference.parse(want.reference), want.reference)
        except (StorageError, Interrupted):
            raise
        except AirgapError as error:
            if want.catalog is not None or not self._continue_on_error:
                raise
            self.details[want.reference] = error.message
            return reason_for(error)

    def walk(self, reference: ImageReference, text: str) -> Sequence[graph.Node]:
        """Return every manifest of an image, children first."""
        root = self._resolve(reference, text)
        return graph.walk(root, lambda descriptor: self._manifest(reference, descriptor))

    def read_catalog(self, reference: ImageReference, text: str, platform: str) -> _Offer:
        """Read the catalog that an image holds, from its variant for one platform."""
        variant = _variant(self.walk(reference, text), platform, text)
        raw = self._manifest(reference, variant)
        manifest = parse_manifest(raw, variant.media_type, str(variant.digest))
        if not isinstance(manifest, Manifest):
            raise MalformedContent(f"{text}: {variant.digest} is an index")
        if manifest.config.size > limits.MANIFEST:
            raise MalformedContent(f"{text}: a configuration of {manifest.config.size} bytes")
        for blob in (manifest.config, *manifest.layers):
            self._fetch(reference, blob)
        with self._memory.open(manifest.config.digest) as config:
            labels = config_labels(config.read(), f"{text}: configuration")
        layers = [self._layer(layer) for layer in manifest.layers]
        try:
            found = catalog_files.read(FileTree.scan(layers), labels)
        except CatalogError as error:
            raise CatalogError(f"{text}: {error.message}", hint=error.hint) from error
        return _Offer(text, found)

    def _resolve(self, reference: ImageReference, text: str) -> Descriptor:
        if known := self._memory.pinned(text):
            return known
        found = self._client.manifest(reference)
        descriptor = Descriptor(found.digest, len(found.raw), found.media_type)
        self._memory.keep(found.digest, found.raw)
        self._memory.pin(text, descriptor)
        return descriptor

    def _manifest(self, reference: ImageReference, descriptor: Descriptor) -> bytes:
        raw = self._memory.manifest(descriptor.digest)
        if raw is None:
            raw = self._client.manifest(reference.pinned(descriptor.digest)).raw
            self._memory.keep(descriptor.digest, raw)
        if len(raw) != descriptor.size:
            raise IntegrityError(
                f"{reference.pinned(descriptor.digest)}: {len(raw)} bytes, promised were"
                f" {descriptor.size}"
            )
        return raw

    def _fetch(self, reference: ImageReference, blob: Descriptor) -> None:
        def read(offset: int) -> Iterator[bytes]:
            return self._client.blob(reference.repository, blob.digest, blob.size, offset)

        try:
            self._memory.fetch(blob.digest, blob.size, read)
        except IntegrityError as error:
            raise IntegrityError(f"{reference}: {error.message}", hint=error.hint) from error

    def _layer(self, layer: Descriptor) -> Layer:
        return Layer(str(layer.digest), lambda: self._memory.open(layer.digest))


_REASONS: tuple[tuple[type[AirgapError], Reason], ...] = (
    (MalformedReference, Reason.MALFORMED_REFERENCE),
    (NotFound, Reason.NOT_FOUND),
    (AccessDenied, Reason.DENIED),
    (Unreachable, Reason.UNREACHABLE),
    (RegistryError, Reason.REFUSED),
    (IntegrityError, Reason.WRONG_CONTENT),
    (MalformedContent, Reason.MALFORMED_CONTENT),
    (Blocked, Reason.BLOCKED),
)


def reason_for(error: AirgapError) -> Reason:
    """Return the word for why an image could not be had."""
    if isinstance(error, graph.UnsupportedContent):
        return Reason(error.reason)
    for kind, reason in _REASONS:
        if isinstance(error, kind):
            return reason
    # The operator's own configuration: no image is to blame.
    raise error


def _variant(nodes: Sequence[graph.Node], platform: str, text: str) -> Descriptor:
    """Return the one manifest for a platform, as ``oc`` chooses it.

    ``platform`` is a regular expression, unanchored, on ``os/architecture[/variant]``. An
    image without an index is taken as it is.
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
            f"{text}: {len(fitting)} variants of the catalog fit {platform!r}; it has\n{table}",
            hint="Choose one with --index-filter-by-os.",
        )
    return fitting[0]


def _wanted(offers: Sequence[_Offer]) -> list[Wanted]:
    wanted_by: dict[str, set[str]] = defaultdict(set)
    for offer in offers:
        for image, bundles in offer.found.catalog.wanted().items():
            wanted_by[_bounded(image)].update(_bounded(bundle.name) for bundle in bundles)
    catalogs = [
        Wanted(offer.reference, (), (offer.found.format, offer.found.path)) for offer in offers
    ]
    named = {offer.reference for offer in offers}
    related = [
        Wanted(image, tuple(sorted(bundles)))
        for image, bundles in wanted_by.items()
        if image not in named
    ]
    return catalogs + related


def _bundles(offers: Sequence[_Offer]) -> list[planning.Bundle]:
    packages: dict[str, set[str]] = defaultdict(set)
    for offer in offers:
        for bundle in offer.found.catalog.bundles:
            found = [_bounded(bundle.package)] if bundle.package else []
            packages[_bounded(bundle.name)].update(found)
    return [planning.Bundle(name, tuple(sorted(found))) for name, found in packages.items()]


def _bounded(text: str) -> str:
    """Cut a catalog's text to what an inventory holds; as a reference it then is none."""
    return text if len(text) <= limits.NAME else f"{text[: limits.NAME]}…"
