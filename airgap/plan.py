"""What to take: which manifests and blobs, for which images, and what could not be had.

A plan is plain data, made once, pure and deterministic: the same catalog at the same digests
gives the same plan, whatever the order in which answers arrived. It travels in the archive
and is what import pushes. Manifests, blobs and bundles are referred to by their number, so
that a plan of a hundred thousand blobs stays small. Knows nothing of registries or archives.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from airgap.digest import Digest
    from airgap.oci.graph import Node


@dataclass(frozen=True, slots=True)
class Share:
    """What is asked of one catalog of several: packages, () for all, and what those need.

    ``default_channels`` are wishes for a catalog that is rebuilt, as (package, channel).
    """

    packages: tuple[str, ...] = ()
    dependencies: bool = False
    default_channels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """What was asked for: catalogs as typed, and which platform's variant of them was read.

    ``packages`` choose a part of what they offer, () is everything; with ``dependencies``
    what those need comes along. ``shares``, one for each catalog, ask in place of these two.
    ``exclude`` are regular expressions for images that are left out, ``images`` are taken
    besides. All of them as typed. ``mapping`` is the digest of a list of images that are taken
    in place of all others, "" without one. With ``rebuild`` the catalogs are reduced to what
    is taken of them.
    """

    catalogs: tuple[str, ...]
    platform: str
    packages: tuple[str, ...] = ()
    dependencies: bool = False
    exclude: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    shares: tuple[Share, ...] = ()
    mapping: str = ""
    rebuild: bool = False


@dataclass(frozen=True, slots=True)
class Bundle:
    """One version of an operator, and the packages that offer it."""

    name: str
    packages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Blob:
    """A configuration or a layer; ``size`` in bytes.

    ``held`` are the numbers of the earlier archives that hold it, when it does not travel: it
    is *assumed* to be at the destination already. () for one that travels.
    """

    digest: Digest
    size: int
    held: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest or index; children are numbers of manifests, each smaller than its own."""

    digest: Digest
    size: int
    media_type: str
    children: tuple[int, ...]
    blobs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Image:
    """A reference as the catalog writes it, the root manifest it stood for, and who wants it.

    ``bundles`` is empty for a catalog's own image. ``places`` are where it is wished below a
    destination, as ``path:tag``, or ``path`` for no tag; () leaves that to the mapping.
    """

    reference: str
    root: int
    bundles: tuple[int, ...] = ()
    places: tuple[str, ...] = ()


class Reason(StrEnum):
    """Why an image is not in the plan; a closed list, as error texts would differ by run."""

    MALFORMED_REFERENCE = "malformed-reference"
    NOT_FOUND = "not-found"
    DENIED = "denied"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    BLOCKED = "blocked"
    MALFORMED_CONTENT = "malformed-content"
    WRONG_CONTENT = "wrong-content"
    SHA512 = "sha512"
    FOREIGN_LAYER = "foreign-layer"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Hole:
    """An image that the catalog wants and the plan lacks.

    A part of a catalog that could not be read is one too: whatever images it wanted are
    missing, and ``reference`` says which part it is.
    """

    reference: str
    reason: Reason
    bundles: tuple[int, ...] = ()
    places: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pin:
    """What a reference stood for when it was asked: the digest its registry gave."""

    reference: str
    digest: Digest


def made_of(pin: Pin | None, root: Digest) -> str:
    """Say what a catalog's image was made of, "" for one that is what its pin stood for."""
    if pin is None:
        return "made of local files"
    return f"a part of {pin.digest}" if pin.digest != root else ""


@dataclass(frozen=True, slots=True)
class CatalogImage:
    """A catalog of the question: the number of its image, its format, where in it it stands.

    ``pin`` is what it was read from; its image is another one if it was rebuilt. None says
    that it was made of local files, and no registry has it.
    """

    image: int
    format: str
    path: str
    pin: Pin | None


@dataclass(frozen=True)
class Plan:
    """Everything decided. The tuples' positions are the numbers that records refer to.

    ``archives`` are the ids of the earlier archives that hold what is assumed, sorted.
    """

    question: Question
    catalogs: tuple[CatalogImage, ...]
    bundles: tuple[Bundle, ...]
    manifests: tuple[Manifest, ...]
    blobs: tuple[Blob, ...]
    images: tuple[Image, ...]
    holes: tuple[Hole, ...]
    archives: tuple[Digest, ...] = ()

    def manifests_of(self, image: Image) -> list[int]:
        """Return the numbers of an image's manifests, children before their index."""
        found: dict[int, None] = {}

        def visit(number: int) -> None:
            if number not in found:
                for child in self.manifests[number].children:
                    visit(child)
                found[number] = None

        visit(image.root)
        return list(found)

    def blobs_of(self, image: Image) -> list[int]:
        """Return the numbers of an image's blobs, each once, in archive order."""
        return sorted({b for m in self.manifests_of(image) for b in self.manifests[m].blobs})

    @cached_property
    def assumed(self) -> frozenset[int]:
        """The numbers of the blobs that do not travel, as the destination has them."""
        return frozenset(number for number, blob in enumerate(self.blobs) if blob.held)

    def holders_of(self, blob: int) -> str:
        """Return the ids of the archives that hold an assumed blob, in words, "" for others."""
        return " or ".join(str(self.archives[number]) for number in self.blobs[blob].held)

    @cached_property
    def catalog_images(self) -> frozenset[int]:
        """The numbers of the images that are catalogs."""
        return frozenset(catalog.image for catalog in self.catalogs)

    @property
    def made_here(self) -> dict[int, str]:
        """The numbers of the catalogs' images that no registry had, each with what it is."""
        found = {}
        for catalog in self.catalogs:
            root = self.manifests[self.images[catalog.image].root].digest
            if made := made_of(catalog.pin, root):
                found[catalog.image] = made
        return found

    @property
    def content_bytes(self) -> int:
        """The size of all manifests and blobs, each counted once."""
        return sum(m.size for m in self.manifests) + sum(b.size for b in self.blobs)

    @property
    def assumed_bytes(self) -> int:
        """The size of the blobs that do not travel."""
        return sum(self.blobs[number].size for number in self.assumed)

    def size_of(self, images: Iterable[int]) -> int:
        """Return the bytes that images take up together, what they share counted once."""
        manifests = {m for number in images for m in self.manifests_of(self.images[number])}
        blobs = {b for m in manifests for b in self.manifests[m].blobs}
        return sum(self.manifests[m].size for m in manifests) + sum(
            self.blobs[b].size for b in blobs
        )

    def packages_of(self, bundles: Iterable[int]) -> list[str]:
        """Return the packages that offer any of these bundles, sorted."""
        return sorted({package for b in bundles for package in self.bundles[b].packages})


@dataclass(frozen=True, slots=True)
class Wanted:
    """An image of the offer with the names of the bundles that want it.

    ``catalog`` is set for a catalog's own image: its format, where in the image it stands, and
    what it was read from.
    """

    reference: str
    bundles: tuple[str, ...] = ()
    catalog: tuple[str, str, Pin | None] | None = None


def in_order(wanted: Iterable[Wanted]) -> list[Wanted]:
    """Return the order in which images are planned: catalogs first, each group by reference."""
    return sorted(wanted, key=lambda want: (want.catalog is None, want.reference.encode()))


def make_plan(
    question: Question,
    bundles: Iterable[Bundle],
    answers: Iterable[tuple[Wanted, Sequence[Node] | Reason]],
) -> Plan:
    """Put together what was asked and what the sources answered.

    ``answers`` come in the order of ``in_order``; each is the image's graph, children first,
    or the reason why there is none. An image that promises another size for a blob than an
    earlier image did becomes a hole: one of them is wrong, and a place has one size.
    """
    listed = sorted(set(bundles), key=lambda bundle: (bundle.name.encode(), bundle.packages))
    numbers = {bundle.name: number for number, bundle in enumerate(listed)}
    content = _Content()
    images: list[Image] = []
    holes: list[Hole] = []
    catalogs: list[CatalogImage] = []
    for want, answer in answers:
        wanted_by = tuple(sorted(numbers[name] for name in want.bundles))
        if not isinstance(answer, Reason) and content.contradicts(answer):
            answer = Reason.WRONG_CONTENT
        if isinstance(answer, Reason):
            holes.append(Hole(want.reference, answer, wanted_by))
            continue
        if want.catalog is not None:
            catalogs.append(CatalogImage(len(images), *want.catalog))
        images.append(Image(want.reference, content.add(answer), wanted_by))
    return Plan(
        question,
        tuple(catalogs),
        tuple(listed),
        tuple(content.manifests),
        tuple(content.blobs),
        tuple(images),
        tuple(holes),
    )


def assuming(plan: Plan, held: Mapping[Digest, Collection[Digest]]) -> Plan:
    """Return a plan in which the blobs that ``held`` has do not travel.

    ``held`` gives the ids of the archives that hold a blob; what a plan assumed before counts
    no more. What a catalog's own image consists of always travels.
    """
    travels = {b for n in plan.catalog_images for b in plan.blobs_of(plan.images[n])}
    holders = {
        number: sorted(held[blob.digest], key=str)
        for number, blob in enumerate(plan.blobs)
        if number not in travels and held.get(blob.digest)
    }
    archives = sorted({archive for found in holders.values() for archive in found}, key=str)
    numbers = {archive: number for number, archive in enumerate(archives)}
    blobs = tuple(
        replace(blob, held=tuple(numbers[archive] for archive in holders.get(number, ())))
        for number, blob in enumerate(plan.blobs)
    )
    return replace(plan, blobs=blobs, archives=tuple(archives))


@dataclass(frozen=True, slots=True)
class Need:
    """Blobs that a delta needs of earlier archives, any of ``archives``; ``size`` in bytes."""

    archives: tuple[Digest, ...]
    blobs: int
    size: int


def needs(plan: Plan) -> tuple[Need, ...]:
    """Return what a plan assumes to be at the destination, () for an archive that is whole."""
    found: dict[tuple[int, ...], list[Blob]] = {}
    for number in sorted(plan.assumed):
        found.setdefault(plan.blobs[number].held, []).append(plan.blobs[number])
    return tuple(
        Need(tuple(plan.archives[n] for n in held), len(blobs), sum(blob.size for blob in blobs))
        for held, blobs in sorted(found.items())
    )


class _Content:
    """Numbers manifests and blobs in the order in which images first need them."""

    def __init__(self) -> None:
        self.manifests: list[Manifest] = []
        self.blobs: list[Blob] = []
        self._manifest_numbers: dict[Digest, int] = {}
        self._blob_numbers: dict[Digest, int] = {}

    def contradicts(self, nodes: Sequence[Node]) -> bool:
        """Say whether these nodes promise a size that differs from an earlier promise."""
        promised: dict[Digest, int] = {}
        for blob in (blob for node in nodes for blob in node.blobs):
            number = self._blob_numbers.get(blob.digest)
            known = self.blobs[number].size if number is not None else blob.size
            if promised.setdefault(blob.digest, known) != blob.size:
                return True
        return False

    def add(self, nodes: Sequence[Node]) -> int:
        """Take an image's nodes, children first, and return its root's number."""
        number = -1
        for node in nodes:
            digest = node.descriptor.digest
            number = self._manifest_numbers.setdefault(digest, len(self.manifests))
            if number == len(self.manifests):
                self.manifests.append(self._manifest(node))
        return number

    def _manifest(self, node: Node) -> Manifest:
        return Manifest(
            node.descriptor.digest,
            node.descriptor.size,
            node.descriptor.media_type,
            tuple(self._manifest_numbers[child] for child in node.children),
            tuple(self._blob(blob.digest, blob.size) for blob in node.blobs),
        )

    def _blob(self, digest: Digest, size: int) -> int:
        number = self._blob_numbers.setdefault(digest, len(self.blobs))
        if number == len(self.blobs):
            self.blobs.append(Blob(digest, size))
        return number


@dataclass(frozen=True, slots=True)
class Missing:
    """An image that is not where it is wanted, why, and which operators that breaks.

    ``reason`` is one short word, the same in every run; ``detail`` is what this run was told,
    "" when the reason says it all.
    """

    reference: str
    reason: str
    bundles: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    detail: str = ""

    def record(self) -> dict[str, Any]:
        """Return what is the same in every run, ready for JSON."""
        return {
            "reference": self.reference,
            "reason": self.reason,
            "bundles": list(self.bundles),
            "packages": list(self.packages),
        }


def counted(missing: Iterable[Missing], *, skip_missing: bool) -> list[Missing]:
    """Return the holes that make a run incomplete: with ``skip_missing`` not those upstream."""
    return [m for m in missing if not (skip_missing and m.reason == Reason.NOT_FOUND)]


def broken_packages(missing: Iterable[Missing]) -> tuple[str, ...]:
    """Return the names of all packages that anything missing hurts, sorted."""
    return tuple(sorted({package for image in missing for package in image.packages}))


MISSING_BLOB = "missing-blob"
"""The reason of a blob hole: the image's manifests are there, some of its content is not."""


def plan_holes(plan: Plan, details: Mapping[str, str]) -> list[Missing]:
    """Return the holes of the plan; ``details`` tells of some, by reference."""
    return [
        missing(plan, hole, hole.reason.value, details.get(hole.reference, ""))
        for hole in plan.holes
    ]


def blob_holes(plan: Plan, absent: Mapping[int, str]) -> list[Missing]:
    """Return the images that lack blobs; ``absent`` maps numbers of blobs to a detail or ""."""
    found = []
    for image in plan.images if absent else ():
        if lacking := [number for number in plan.blobs_of(image) if number in absent]:
            detail = absent[lacking[0]] or f"blob {plan.blobs[lacking[0]].digest} is not there"
            more = f" (and {len(lacking) - 1} more of its blobs)" if len(lacking) > 1 else ""
            found.append(missing(plan, image, MISSING_BLOB, detail + more))
    return found


def missing(plan: Plan, wanted: Image | Hole, reason: str, detail: str = "") -> Missing:
    """Say of an image that it is missing, with the bundles and packages that need it."""
    return Missing(
        wanted.reference,
        reason,
        tuple(sorted(plan.bundles[number].name for number in wanted.bundles)),
        tuple(plan.packages_of(wanted.bundles)),
        detail,
    )
