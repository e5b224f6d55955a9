"""Asking catalogs and registries all that must be known before the first blob moves.

Turns a question into a plan: each reference is resolved once, every manifest is fetched, and
one broken image costs itself and nothing else. Knows nothing of where the content will go.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from airgap import mapping_file, places
from airgap import plan as planning
from airgap.asking import gather
from airgap.catalog.select import EVERY, PackageChoice, select
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
    UsageError,
)
from airgap.oci import graph
from airgap.offers import bounded, read_catalogs, unreadable
from airgap.plan import Missing, Plan, Question, Reason, Share, Wanted
from airgap.question import selection_of
from airgap.rebuilding import rebuild_catalog

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from airgap.asking import Asker
    from airgap.local_catalogs import Made
    from airgap.mapping_file import Copy, Wildcard
    from airgap.offers import Offer
    from airgap.progress import Progress
    from airgap.question import Listed
    from airgap.reference import ImageReference
    from airgap.registry.client import RegistryClient


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
    asker: Asker,
    *,
    made: Iterable[Made] = (),
    listed: Listed | None = None,
    continue_on_error: bool,
    progress: Progress,
    stop: threading.Event,
) -> Survey:
    """Answer a question with a plan; images that cannot be had are holes in it.

    ``made`` are catalogs of the question that were made here, ``listed`` is the list that it
    has a digest of. Raises what keeps a catalog itself from being read: RegistryError,
    CatalogError, MalformedContent, IntegrityError, UsageError; StorageError, Interrupted; and
    without ``continue_on_error`` whatever is wrong with the first image that cannot be had.
    """
    surveyor = _Surveyor(asker, continue_on_error)
    for one in made:
        one.bring(asker)
    offers = read_catalogs(question, asker, progress, made=[one.offer for one in made])
    chosen = choose(question, offers, progress)
    if listed is not None:
        for remark in listed.copies.remarks:
            progress.say(remark)
        chosen = _as_listed(chosen, offers, listed, surveyor)
    offers = travelling(question, offers, asker, progress)
    wanted = planning.in_order(Wanted(i, tuple(sorted(b))) for i, b in chosen.images.items())
    answers = surveyor.look_up_all(wanted, progress, stop)
    plan = planning.make_plan(
        question,
        [planning.Bundle(name, tuple(sorted(p))) for name, p in chosen.bundles.items()],
        [
            *((offer.wanted, offer.nodes) for offer in offers),
            *zip(wanted, answers, strict=True),
            *((Wanted(place), reason) for place, reason in chosen.lacking),
        ],
    )
    if listed is not None:
        plan = places.as_listed(plan, chosen.copies, listed, progress)
    surveyor.details.update(unreadable(offers))
    return Survey(plan, surveyor.details)


def survey_images(
    references: Iterable[str],
    asker: Asker,
    *,
    continue_on_error: bool,
    progress: Progress,
    stop: threading.Event,
) -> Survey:
    """Return a plan for images alone, without a catalog; those that cannot be had are holes.

    Raises StorageError, Interrupted, and without ``continue_on_error`` whatever is wrong with
    the first image that cannot be had.
    """
    surveyor = _Surveyor(asker, continue_on_error)
    wanted = planning.in_order(Wanted(reference) for reference in references)
    answers = surveyor.look_up_all(wanted, progress, stop)
    made = planning.make_plan(Question((), ""), (), zip(wanted, answers, strict=True))
    return Survey(made, surveyor.details)


class _Surveyor:
    def __init__(self, asker: Asker, continue_on_error: bool) -> None:
        self._asker = asker
        self._continue_on_error = continue_on_error
        self.details: dict[str, str] = {}

    def look_up_all(
        self, wanted: Sequence[Wanted], progress: Progress, stop: threading.Event
    ) -> Iterator[Sequence[graph.Node] | Reason]:
        """Yield for each image its graph, or why there is none."""
        progress.stage("asking for manifests", total_images=len(wanted))
        failed = gather(
            self._asker,
            [want.reference for want in wanted],
            progress,
            stop,
            is_fatal=lambda error: not self._continue_on_error,
        )
        for want in wanted:
            yield self._look_up(want.reference, failed.get(want.reference))

    def _look_up(self, reference: str, error: AirgapError | None) -> Sequence[graph.Node] | Reason:
        try:
            if error is not None:
                raise error
            return self._asker.graph(reference)
        except (StorageError, Interrupted):
            raise
        except AirgapError as failure:
            if not self._continue_on_error:
                raise
            self.details[reference] = failure.message
            return reason_for(failure)

    def tags_of(
        self, wildcards: Iterable[Wildcard]
    ) -> tuple[dict[ImageReference, list[str]], list[tuple[str, Reason]]]:
        """Return the tags of wildcards' repositories, and which wildcards match nothing."""
        tags, unmatched = tags_of(
            wildcards, self._asker.client, continue_on_error=self._continue_on_error
        )
        self.details.update((one.reference, one.detail) for one in unmatched)
        return tags, [(one.reference, Reason(one.reason)) for one in unmatched]


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


def tags_of(
    wildcards: Iterable[Wildcard], client: RegistryClient, *, continue_on_error: bool
) -> tuple[dict[ImageReference, list[str]], list[Missing]]:
    """Ask for the tags of wildcards' repositories; a wildcard that matches none is missing.

    Raises RegistryError and Blocked without ``continue_on_error``, UsageError as matching does.
    """
    tags: dict[ImageReference, list[str]] = {}
    unmatched: list[Missing] = []

    def miss(wildcard: Wildcard, reason: Reason, detail: str) -> None:
        name = f"{wildcard.source}:{wildcard.glob or '*'}"
        unmatched.append(Missing(name, reason.value, detail=detail))

    for wildcard in wildcards:
        source = wildcard.source
        try:
            tags[source] = tags.get(source) or client.tags(source.repository)
        except (RegistryError, Blocked) as error:
            if not continue_on_error:
                raise
            tags[source] = []
            miss(wildcard, reason_for(error), error.message)
        else:
            if not wildcard.matching(tags[source]):
                miss(wildcard, Reason.NOT_FOUND, "no tag matches")
    return tags, unmatched


def reason_for(error: AirgapError) -> Reason:
    """Return the word for why an image could not be had."""
    if isinstance(error, graph.UnsupportedContent):
        return Reason(error.reason)
    for kind, reason in _REASONS:
        if isinstance(error, kind):
            return reason
    # The operator's own configuration: no image is to blame.
    raise error


@dataclass(frozen=True)
class Chosen:
    """What a question takes of all its catalogs together, by the names that plans use.

    ``images`` are all but the catalogs' own, with the bundles that want each; ``bundles``
    have the packages that offer each. ``copies`` is what a list says of an image, ``lacking``
    what cannot even be asked for, and why.
    """

    images: dict[str, set[str]]
    bundles: dict[str, set[str]]
    lacking: Sequence[tuple[str, Reason]]
    copies: Mapping[str, Sequence[Copy]] = field(default_factory=dict)


def choose(question: Question, offers: Sequence[Offer], progress: Progress) -> Chosen:
    """Select in every catalog, and say what there is to say about it.

    Raises UsageError for packages, channels or versions that no catalog has.
    """
    images: dict[str, set[str]] = {}
    bundles: dict[str, set[str]] = defaultdict(set)
    for offer, share in zip(offers, _shares(offers, question), strict=True):
        if share is None:
            continue
        try:
            selected = select(offer.catalog, selection_of(question, share))
        except UsageError as error:
            raise UsageError(f"{offer.reference}: {error.message}", hint=error.hint) from error
        for remark in selected.remarks:
            progress.say(f"{offer.reference}: {remark}")
        for bundle in selected.bundles:
            bundles[bounded(bundle.name)].update(filter(None, [bounded(bundle.package)]))
        for image, wanting in selected.images.items():
            names = images.setdefault(bounded(image), set())
            names.update(bounded(bundle.name) for bundle in wanting)
        for extra in selected.extra_images:
            images.setdefault(str(extra), set())
        if selected.dependencies.further:
            along = "what is needed too comes along"
            advice = along if share.dependencies else f"with --with-dependencies {along}"
            progress.say(f"{offer.reference}: {advice}")
    for offer in offers:
        images.pop(offer.reference, None)
    return Chosen(images, bundles, [(p, Reason.UNREADABLE) for p, _ in unreadable(offers)])


def travelling(
    question: Question, offers: Sequence[Offer], asker: Asker, progress: Progress
) -> list[Offer]:
    """Return the catalogs as they are, or reduced to their shares of the question, in order.

    Raises UsageError for what cannot be reduced, and what ``rebuild_catalog`` raises.
    """
    there = _rebuilt(question, offers, asker, progress) if question.rebuild else offers
    return sorted(there, key=lambda offer: offer.order)


def _rebuilt(
    question: Question, offers: Sequence[Offer], asker: Asker, progress: Progress
) -> list[Offer]:
    """Return the catalogs reduced to their shares; one that is taken whole stays as it is."""
    rebuilt = []
    for offer, share in zip(offers, _shares(offers, question), strict=True):
        if share is None:
            raise UsageError(
                f"{offer.reference}: nothing of it is selected, so there is nothing to rebuild"
            )
        if share.packages:
            selection, defaults = selection_of(question, share), dict(share.default_channels)
            offer = rebuild_catalog(offer, selection, defaults, asker, progress)
        else:
            progress.say(f"{offer.reference}: stays as it is, all of its packages are taken")
        rebuilt.append(offer)
    return rebuilt


def _shares(offers: Sequence[Offer], question: Question) -> list[Share | None]:
    """Give each catalog its share of a question; None is nothing.

    Where none is given: the packages that the catalog has, and what nobody has to the first.
    """
    if question.shares:
        given = dict(zip(question.catalogs, question.shares, strict=True))
        return [given[offer.reference] for offer in offers]
    whole = Share(question.packages, question.dependencies)
    if not whole.packages or len(offers) == 1:
        return [whole] * len(offers)
    names = [{EVERY, *(package.name for package in offer.catalog.packages)} for offer in offers]
    known = set().union(*names)
    shares: list[Share | None] = []
    for position, own in enumerate(names):
        packages = [
            text
            for text in whole.packages
            for package in [PackageChoice.parse(text).package]
            if package in own or (position == 0 and package not in known)
        ]
        shares.append(replace(whole, packages=tuple(packages)) if packages else None)
    return shares


def _as_listed(
    chosen: Chosen, offers: Sequence[Offer], listed: Listed, surveyor: _Surveyor
) -> Chosen:
    """Take exactly what a list says, and besides the catalogs."""
    catalogs = {offer.reference for offer in offers}
    names = [*catalogs, *chosen.images]
    wild = mapping_file.taken(listed.copies, names).wildcards
    tags, unmatched = surveyor.tags_of(wild)
    copies = mapping_file.expanded(replace(listed.copies, wildcards=wild), tags.__getitem__)
    rest = tuple(w for w in listed.copies.wildcards if w not in wild)
    taken = mapping_file.taken(replace(listed.copies, copies=copies, wildcards=rest), names)
    extra = {str(reference): found for reference, found in taken.extra.items()}
    images = {name: chosen.images.get(name, set()) for name in (*taken.images, *extra)}
    wanting = {bundle for name in images for bundle in images[name]}
    return Chosen(
        {name: bundles for name, bundles in images.items() if name not in catalogs},
        {name: chosen.bundles[name] for name in chosen.bundles if name in wanting},
        [*chosen.lacking, *unmatched],
        {**taken.images, **extra},
    )
