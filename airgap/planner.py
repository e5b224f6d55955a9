"""Asking catalogs and registries all that must be known before the first blob moves.

Turns a question into a plan: each reference is resolved once, every manifest is fetched, and
one broken image costs itself and nothing else. What has been learned goes into a ``Memory``,
so that a killed run does not ask again. Knows nothing of where the content will go.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO, Protocol

from airgap import limits
from airgap import plan as planning
from airgap.catalog.image import CatalogImage, read_image
from airgap.catalog.select import Selection, select
from airgap.errors import (
    AccessDenied,
    AirgapError,
    Blocked,
    IntegrityError,
    Interrupted,
    MalformedContent,
    MalformedReference,
    NotFound,
    RegistryError,
    StorageError,
    Unreachable,
)
from airgap.oci import graph
from airgap.oci.model import Descriptor
from airgap.plan import Missing, Plan, Question, Reason, Wanted
from airgap.question import selection_of
from airgap.reference import ImageReference
from airgap.transfer import in_parallel

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from airgap.catalog.model import Catalog
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
    selection = selection_of(question)
    offers = _read_catalogs(question, surveyor, progress)
    chosen = _choose(offers, selection)
    for remark in chosen.remarks:
        progress.say(remark)
    wanted = planning.in_order(_wanted(offers, chosen))
    answers = surveyor.look_up_all(wanted, workers, progress, stop)
    made = planning.make_plan(question, _bundles(chosen), _together(wanted, answers, offers))
    surveyor.details.update(unreadable(offers))
    return Survey(made, surveyor.details)


def survey_images(
    references: Iterable[str],
    client: RegistryClient,
    memory: Memory,
    *,
    workers: int,
    continue_on_error: bool,
    progress: Progress,
    stop: threading.Event,
) -> Survey:
    """Return a plan for images alone, without a catalog; those that cannot be had are holes.

    Raises StorageError, Interrupted, and without ``continue_on_error`` whatever is wrong with
    the first image that cannot be had.
    """
    surveyor = _Surveyor(client, memory, continue_on_error)
    wanted = planning.in_order(Wanted(reference) for reference in references)
    answers = surveyor.look_up_all(wanted, workers, progress, stop)
    made = planning.make_plan(Question((), ""), (), zip(wanted, answers, strict=True))
    return Survey(made, surveyor.details)


@dataclass(frozen=True)
class Offer:
    """A catalog of a question: its reference as typed, its root's digest, what is in it."""

    reference: str
    digest: Digest
    image: CatalogImage

    @property
    def catalog(self) -> Catalog:
        """What it offers."""
        return self.image.found.catalog


def read_catalogs(
    question: Question, client: RegistryClient, memory: Memory, progress: Progress
) -> list[Offer]:
    """Read the catalogs of a question, and ask for no other image.

    What they hold can be read as long as ``memory`` has it. Raises what ``survey`` raises for
    catalogs.
    """
    return _read_catalogs(question, _Surveyor(client, memory, continue_on_error=False), progress)


def _read_catalogs(question: Question, surveyor: _Surveyor, progress: Progress) -> list[Offer]:
    offers = []
    for text in question.catalogs:
        progress.stage(f"reading catalog {text}")
        offer = surveyor.read_catalog(text, question.platform)
        for problem in offer.catalog.problems:
            progress.say(f"{text}: {problem}")
        offers.append(offer)
    return offers


class _Surveyor:
    def __init__(self, client: RegistryClient, memory: Memory, continue_on_error: bool) -> None:
        self._continue_on_error = continue_on_error
        self._client = client
        self._memory = memory
        self.details: dict[str, str] = {}

    def look_up_all(
        self, wanted: Sequence[Wanted], workers: int, progress: Progress, stop: threading.Event
    ) -> Iterator[Sequence[graph.Node] | Reason]:
        """Yield for each image its graph, or why there is none."""
        progress.stage("asking for manifests", total_images=len(wanted))

        def answer(want: Wanted) -> Sequence[graph.Node] | Reason:
            nodes = self.look_up(want)
            progress.image()
            return nodes

        return in_parallel(answer, wanted, workers=workers, stop=stop)

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
        return graph.walk(root, lambda descriptor: self.manifest(reference, descriptor))

    def read_catalog(self, text: str, platform: str) -> Offer:
        """Read the catalog that an image holds, from its variant for one platform."""
        reference = ImageReference.parse(text)
        nodes = self.walk(reference, text)
        image = read_image(nodes, platform, text, _CatalogContent(self, reference))
        return Offer(text, nodes[-1].descriptor.digest, image)

    def _resolve(self, reference: ImageReference, text: str) -> Descriptor:
        if known := self._memory.pinned(text):
            return known
        found = self._client.manifest(reference)
        descriptor = Descriptor(found.digest, len(found.raw), found.media_type)
        self._memory.keep(found.digest, found.raw)
        self._memory.pin(text, descriptor)
        return descriptor

    def manifest(self, reference: ImageReference, descriptor: Descriptor) -> bytes:
        """Return a manifest, fetched unless it is remembered, of the promised size."""
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

    def open(self, reference: ImageReference, blob: Descriptor) -> BinaryIO:
        """Open a blob, fetched unless it is remembered."""

        def read(offset: int) -> Iterator[bytes]:
            return self._client.blob(reference.repository, blob.digest, blob.size, offset)

        try:
            self._memory.fetch(blob.digest, blob.size, read)
        except IntegrityError as error:
            raise IntegrityError(f"{reference}: {error.message}", hint=error.hint) from error
        return self._memory.open(blob.digest)


@dataclass(frozen=True)
class _CatalogContent:
    """A catalog image's content, remembered as it is read."""

    surveyor: _Surveyor
    reference: ImageReference

    def manifest(self, descriptor: Descriptor) -> bytes:
        return self.surveyor.manifest(self.reference, descriptor)

    def open(self, descriptor: Descriptor) -> BinaryIO:
        return self.surveyor.open(self.reference, descriptor)


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


def choose_images(question: Question, offers: Sequence[Offer], progress: Progress) -> set[str]:
    """Return the images that a question takes of catalogs, as they are written there.

    Raises UsageError for packages, channels or versions that no catalog has.
    """
    chosen = _choose(offers, selection_of(question))
    for remark in chosen.remarks:
        progress.say(remark)
    return set(chosen.images)


@dataclass(frozen=True)
class _Chosen:
    """What a selection comes to in all catalogs together, by the names that plans use."""

    images: dict[str, set[str]]
    bundles: dict[str, set[str]]
    remarks: list[str]


def _choose(offers: Sequence[Offer], selection: Selection) -> _Chosen:
    """Select in every catalog; a package may be in any of them. Raises UsageError."""
    images: dict[str, set[str]] = {str(image): set() for image in selection.images}
    bundles: dict[str, set[str]] = defaultdict(set)
    remarks: list[str] = []
    for offer, part in zip(offers, _shares(offers, selection), strict=True):
        selected = select(offer.catalog, part)
        remarks += [f"{offer.reference}: {remark}" for remark in selected.remarks]
        for bundle in selected.bundles:
            bundles[_bounded(bundle.name)].update(filter(None, [_bounded(bundle.package)]))
        for image, wanting in selected.images.items():
            names = images.setdefault(_bounded(image), set())
            names.update(_bounded(bundle.name) for bundle in wanting)
        if not selection.with_dependencies:
            remarks += [
                f"{offer.reference}: what was selected needs {bundle.name} too, of package"
                f" {bundle.package}; --with-dependencies takes it along"
                for bundle in selected.dependencies.further
            ]
    return _Chosen(images, bundles, remarks)


def _shares(offers: Sequence[Offer], selection: Selection) -> list[Selection]:
    """Give each catalog the choices of packages that it has, and what nobody has to the first."""
    if selection.packages is None or len(offers) == 1:
        return [selection] * len(offers)
    names = [{package.name for package in offer.catalog.packages} for offer in offers]
    known = set().union(*names)
    shares = []
    for position, own in enumerate(names):
        choices = [
            choice
            for choice in selection.packages
            if choice.package in own or (position == 0 and choice.package not in known)
        ]
        shares.append(replace(selection, packages=tuple(choices)))
    return shares


def _wanted(offers: Sequence[Offer], chosen: _Chosen) -> list[Wanted]:
    catalogs = [
        Wanted(offer.reference, (), (offer.image.found.format, offer.image.found.path))
        for offer in offers
    ]
    named = {offer.reference for offer in offers}
    related = [
        Wanted(image, tuple(sorted(bundles)))
        for image, bundles in chosen.images.items()
        if image not in named
    ]
    return catalogs + related


def _bundles(chosen: _Chosen) -> list[planning.Bundle]:
    return [planning.Bundle(name, tuple(sorted(p))) for name, p in chosen.bundles.items()]


def _together(
    wanted: Sequence[Wanted],
    answers: Iterator[Sequence[graph.Node] | Reason],
    offers: Sequence[Offer],
) -> Iterator[tuple[Wanted, Sequence[graph.Node] | Reason]]:
    """Yield every image with its answer, then the parts of catalogs that could not be read."""
    yield from zip(wanted, answers, strict=True)
    for place, _ in unreadable(offers):
        yield Wanted(place), Reason.UNREADABLE


def unreadable(offers: Sequence[Offer]) -> list[tuple[str, str]]:
    """Return the parts of catalogs that cannot be read: where each is, and what is wrong."""
    faults = (f"{o.reference}: {fault}" for o in offers for fault in o.catalog.unreadable)
    return list({_place(fault): fault for fault in faults}.items())


def _place(fault: str) -> str:
    """Return where a fault is, without what it is: that is not for the archive."""
    catalog, _, rest = fault.partition(": ")
    file, _, rest = rest.partition(": ")
    document = re.match(r"document \d+(, line \d+)?", rest)
    return _bounded(": ".join(filter(None, (catalog, file, document and document[0]))))


def _bounded(text: str) -> str:
    """Cut a catalog's text to what an inventory holds; as a reference it then is none."""
    return text if len(text) <= limits.NAME else f"{text[: limits.NAME]}…"
