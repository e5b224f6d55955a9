"""What is asked for, from what an operator says to a question that travels with its answer.

Pure: knows what can be asked for, and nothing of where the answer comes from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airgap import mapping, mapping_file
from airgap.catalog.select import EVERY, HEAD, PackageChoice, Selection, parse_pattern
from airgap.digest import digest_of
from airgap.errors import UsageError
from airgap.plan import Question, Share
from airgap.reference import DestinationPrefix, ImageReference

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airgap.imageset import CatalogChoice, ImageSet
    from airgap.mapping_file import Copy, MappingFile, Wildcard

DEFAULT_PLATFORM = "linux/amd64"
"""Which variant of a catalog image is read, unless the operator says else."""


@dataclass(frozen=True)
class Part:
    """What to take of catalogs, and besides.

    ``packages`` are written ``NAME[:CHANNEL[,CHANNEL…]][@RANGE]``, RANGE as ``>=4.3,<4.4``, a
    version, or ``head``; () takes everything. With ``with_dependencies`` what those need in
    the catalog comes along. ``exclude_images`` are regular expressions that are searched for
    in references and win over everything; ``images`` are further references. ``shares``, one
    for each catalog, say for each what to take of it. With ``listed`` exactly the images that
    files list are taken. ``rebuild`` reduces the catalogs themselves to what is taken.
    ``base`` is the image that catalogs from the local disk are put on, "" for none.
    """

    packages: Sequence[str] = ()
    with_dependencies: bool = False
    exclude_images: Sequence[str] = ()
    images: Sequence[str] = ()
    shares: Sequence[Share] = ()
    listed: Listed | None = None
    rebuild: bool = False
    base: str = ""


@dataclass(frozen=True)
class Listed:
    """What mapping files list, and the destination that their right sides are about.

    ``destination`` None is found out from the right sides. ``max_components`` is what their
    names were made with.
    """

    copies: MappingFile
    destination: DestinationPrefix | None = None
    max_components: int = mapping.DEFAULT_COMPONENTS

    @classmethod
    def of(
        cls,
        files: Iterable[tuple[str, str]],
        destination: str | None = None,
        max_components: int = mapping.DEFAULT_COMPONENTS,
    ) -> Listed:
        """Read files, each a name for errors and its text.

        Raises UsageError, also when the right sides are not in one registry.
        """
        prefix = None if destination is None else DestinationPrefix.parse(destination)
        copies = mapping_file.parse(files)
        host = prefix.host if prefix else ""
        every: tuple[Copy | Wildcard, ...] = (*copies.copies, *copies.wildcards)
        for one in every:
            here = one.destination.repository.host
            if here != (host := host or here):
                raise UsageError(
                    f"{one.where}: {one.destination} is not at {host}, as the rest is",
                    hint="An archive is imported into one registry: leave the others' lines out.",
                )
        return cls(copies, prefix, max_components)

    @property
    def id(self) -> str:
        """A digest of all of it, the same however the files are laid out."""
        copies = {f"{copy.source} {copy.destination}" for copy in self.copies.copies}
        wild = {f"{w.source}:{w.glob or '*'} {w.destination}" for w in self.copies.wildcards}
        head = f"{self.destination or ''} {self.max_components}"
        return str(digest_of("\n".join([head, *sorted(copies | wild)]).encode()))


@dataclass(frozen=True)
class Configured:
    """What an ``ImageSetConfiguration`` asks for; ``unsupported`` names what has no effect."""

    catalogs: tuple[str, ...]
    part: Part
    unsupported: tuple[str, ...] = field(default=())


def configured(raw: bytes, name: str) -> Configured:
    """Read oc-mirror's configuration file; ``name`` stands for it in errors. Raises UsageError."""
    from airgap import imageset  # with what reads YAML, for this alone

    read = imageset.parse(raw, name)
    if not read.operators:
        raise UsageError(f"{name}: mirror.operators names no catalog: there is nothing to take")
    catalogs = tuple(str(operator.catalog) for operator in read.operators)
    if len(set(catalogs)) < len(catalogs):
        raise UsageError(f"{name}: mirror.operators names a catalog twice")
    part = Part(
        exclude_images=[pattern.pattern for pattern in read.blocked_images],
        images=[str(image) for image in read.additional_images],
        shares=[_share(operator, name) for operator in read.operators],
    )
    return Configured(catalogs, part, _without_effect(read))


def _without_effect(read: ImageSet) -> tuple[str, ...]:
    if read.archive_size is None:
        return read.unsupported
    return (*read.unsupported, "archiveSize: an archive is one file")


def _share(operator: CatalogChoice, name: str) -> Share:
    choices = operator.packages
    if not choices and not operator.full:
        choices = (PackageChoice(EVERY, versions=HEAD),)
    for choice in choices:
        if PackageChoice.parse(str(choice)) != choice:
            raise UsageError(f"{name}: '{choice}' is no name of a package, or of a channel")
    return Share(
        tuple(map(str, choices)),
        operator.with_dependencies,
        tuple(sorted(operator.default_channels.items())),
    )


def question_of(catalogs: Sequence[str], platform: str, part: Part) -> Question:
    """Return the question, once it is sure that it can be understood. Raises UsageError."""
    if not catalogs:
        raise UsageError("no catalog is named: there is nothing to take")
    if part.shares and len(part.shares) != len(catalogs):
        raise UsageError(f"{len(part.shares)} shares of {len(catalogs)} catalogs")
    if part.listed and (part.packages or part.shares or part.images or part.exclude_images):
        raise UsageError(
            "a list of images says exactly what to take: no packages, exclusions, further images"
        )
    if part.rebuild and not (part.packages or part.shares):
        raise UsageError(
            "a catalog is rebuilt to a selection, and all of it is taken",
            hint="Say which packages to keep in it.",
        )
    question = Question(
        tuple(catalogs) if part.shares else tuple(dict.fromkeys(catalogs)),
        platform,
        packages=tuple(dict.fromkeys(part.packages)),
        dependencies=part.with_dependencies,
        exclude=tuple(dict.fromkeys(part.exclude_images)),
        images=tuple(dict.fromkeys(part.images)),
        shares=tuple(part.shares),
        mapping=part.listed.id if part.listed else "",
        rebuild=part.rebuild,
    )
    for share in question.shares or (Share(question.packages, question.dependencies),):
        selection_of(question, share)
    return question


def selection_of(question: Question, share: Share) -> Selection:
    """Return what a question selects of a catalog. Raises UsageError for what makes no sense."""
    return Selection(
        packages=tuple(map(PackageChoice.parse, share.packages)) or None,
        with_dependencies=share.dependencies,
        exclude_images=tuple(map(parse_pattern, question.exclude)),
        images=tuple(map(ImageReference.parse, question.images)),
    )


def in_words(question: Question) -> list[str]:
    """Say what a question asks for, a phrase for each thing."""
    said = [*question.catalogs, f"platform {question.platform}"]
    said += _share_in_words(Share(question.packages, question.dependencies), "")
    for catalog, share in zip(question.catalogs, question.shares, strict=False):
        said += _share_in_words(share, f" of {catalog}") or [f"all of {catalog}"]
    said += [f"without images {pattern}" for pattern in question.exclude]
    said += [f"image {image}" for image in question.images]
    said += [f"the list of images {question.mapping}"] if question.mapping else []
    said += ["catalogs rebuilt"] if question.rebuild else []
    return said


def _share_in_words(share: Share, of: str) -> list[str]:
    said = [f"package {package}{of}" for package in share.packages]
    said += [f"with dependencies{of}"] if share.dependencies else []
    return said + [f"default channel {name} of {p}{of}" for p, name in share.default_channels]


def difference(before: Question, now: Question) -> str:
    """Say what is asked now and was not before, and the reverse."""
    old, new = in_words(before), in_words(now)
    more = [f"now {phrase}" for phrase in new if phrase not in old]
    less = [f"no longer {phrase}" for phrase in old if phrase not in new]
    return ", ".join([*more, *less]) or "now in another order"
