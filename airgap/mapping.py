"""Where each image goes in the destination registry, and under which tag.

The names are those of ``oc adm catalog mirror``, with these exceptions, where ``oc`` loses
something without a word:

- Two images with different content never share a tag. Who pulls by digest does not mind the
  tag, so such images get tags of their own; two that are known by their tag alone are refused.
- A name without a namespace keeps its destination when the depth is not limited.
- A destination that no client could name is refused before anything is pushed.

Pure: knows nothing of registries or archives, nor of what the destination holds already.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airgap.errors import UsageError, printable
from airgap.reference import DestinationPrefix, ImageReference, Repository, is_hub

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from airgap.digest import Digest

DEFAULT_COMPONENTS = 2
"""Parts of a path in the destination, unless the operator says else."""

_NAME_LENGTH = 255
"""Clients count host, slash and path together (OCI distribution specification, pulling)."""

_TAG_LENGTH = 128


@dataclass(frozen=True, slots=True)
class Origin:
    """An image that needs a place: its name as somebody wrote it, and what the name stands for.

    ``reference`` is the original one after any number of hops, never the place the image was
    last copied from. ``resolved`` is the digest behind a tag, None when it could not be had.
    """

    reference: ImageReference
    resolved: Digest | None = None

    @property
    def full(self) -> ImageReference:
        """The reference with Docker's defaults, the same however the name is written."""
        return self.reference.with_defaults()

    @property
    def content(self) -> Digest | None:
        """What must arrive; None for an image known by a tag that could not be resolved."""
        return self.reference.digest or self.resolved


@dataclass(frozen=True, slots=True)
class Target:
    """The place of one image; ``source`` is its name as ``oc`` prints it on the left.

    Without a ``tag`` it is known there by its digest alone.
    """

    source: ImageReference
    repository: Repository
    tag: str

    def __str__(self) -> str:
        return f"{self.repository}:{self.tag}" if self.tag else str(self.repository)

    @property
    def line(self) -> str:
        """What ``oc image mirror -f`` reads, without the end of the line."""
        return f"{self.source.exact}={self}"


@dataclass(frozen=True, slots=True)
class Mapping:
    """The place of every image of a set. Both fields by reference, Docker's defaults filled in.

    Iterating gives the targets of catalogs and images alike, in the order of ``mapping_text``.
    """

    images: dict[ImageReference, Target]
    catalogs: dict[ImageReference, Target]

    def __getitem__(self, reference: ImageReference) -> Target:
        """Return an image's place, however its name is written. Raises KeyError."""
        full = reference.with_defaults()
        return self.catalogs[full] if full in self.catalogs else self.images[full]

    def __iter__(self) -> Iterator[Target]:
        return iter(sorted({*self.catalogs.values(), *self.images.values()}, key=_order))


def assign(
    images: Iterable[Origin],
    destination: DestinationPrefix,
    *,
    catalogs: Iterable[Origin] = (),
    max_components: int = DEFAULT_COMPONENTS,
) -> Mapping:
    """Give every image its place below ``destination``; the order of the images is no matter.

    All images are given together, because tags depend on who else wants them. Of two ways to
    write one source (``busybox@D``, ``docker.io/busybox@D``) the first in text order counts.
    ``max_components`` bounds the parts of a path; 0 is no limit.

    Raises UsageError when ``max_components`` is 1 or negative, when names would be too long,
    and when tags name different content and nothing else tells the images apart.
    """
    if max_components < 0 or max_components == 1:
        raise UsageError("maxPathComponents must be 0 (no limit) or greater than 1")
    images, catalogs = _once(images), _once(catalogs)
    repositories = {
        origin: Repository(destination.host, _path_below(destination, origin, max_components))
        for origin in (*images, *catalogs)
    }
    _refuse_long_names(repositories)
    tags = _tags_apart(repositories)

    def place(origin: Origin, source: ImageReference) -> Target:
        return Target(source, repositories[origin], tags[origin])

    return Mapping(
        {origin.full: place(origin, origin.full) for origin in images},
        {origin.full: place(origin, origin.reference) for origin in catalogs},
    )


def mapping_text(
    targets: Iterable[Target],
    missing: dict[ImageReference, str],
    made: dict[ImageReference, str] | None = None,
) -> str:
    """Return ``mapping.txt``: a sorted ``SRC=DST`` line for each image, fit for ``oc``.

    ``missing`` gives a reason for each source that has not arrived, ``made`` says what images
    are that no registry has under the name on the left. Such an image, and one
    whose tag stands in an earlier line already (with the same content, or it had been refused),
    stays visible as a comment: ``oc image mirror -f`` cuts lines at ``#``, and refuses a file
    that names one destination twice.
    """
    first: dict[str, Target] = {}
    lines = []
    for target in sorted(targets, key=_order):
        if target.source in missing:
            remark = f"missing: {printable(missing[target.source])}"
        elif made and target.source in made:
            remark = f"not to be had from there: {made[target.source]}"
        elif target.tag and first.setdefault(str(target), target) is not target:
            remark = f"the same as {first[str(target)].source.exact}"
        else:
            lines.append(target.line)
            continue
        lines.append(f"# {target.line}  ({remark})")
    return "".join(f"{line}\n" for line in lines)


def tag_hash(reference: ImageReference) -> str:
    """Return the tag for an image known by its digest alone: lower case hex, not padded.

    FNV-1a, 32 bits, over the reference as written; ``library/`` is filled in only when the
    text itself names the hub, so ``busybox@D`` and ``docker.io/busybox@D`` differ.
    """
    named = reference.with_defaults() if is_hub(reference.registry) else reference
    value = 0x811C9DC5
    for byte in named.exact.encode():
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return f"{value:x}"


def _path_below(destination: DestinationPrefix, origin: Origin, max_components: int) -> str:
    """Return the path of an image's repository: parts too many are joined with dashes."""
    parts = (*destination.components, *origin.full.components)
    if 0 < max_components < len(parts):
        kept, joined = parts[: max_components - 1], parts[max_components - 1 :]
        parts = (*kept, "-".join(joined))
    return "/".join(parts)


def _order(target: Target) -> str:
    return target.line


def _once(images: Iterable[Origin]) -> list[Origin]:
    """Drop other ways to write the same source, and unresolved twins of a resolved one.

    One tag with two contents stays twice, to be refused where tags are given.
    """
    chosen: dict[tuple[ImageReference, Digest | None], Origin] = {}
    for origin in sorted(images, key=lambda origin: (str(origin.reference), str(origin.content))):
        chosen.setdefault((origin.full, origin.content), origin)
    resolved = {full for full, content in chosen if content is not None}
    return [o for (full, content), o in chosen.items() if content or full not in resolved]


def _tags_apart(repositories: dict[Origin, Repository]) -> dict[Origin, str]:
    """Give each image a tag, so that no two different contents share one in a repository.

    In rounds: all images that must leave a tag leave it at once, so no order decides who
    stays. Nobody moves more than twice.
    """
    choices = {origin: _choices(origin) for origin in repositories}
    while True:
        shared: dict[tuple[Repository, str], list[Origin]] = defaultdict(list)
        for origin, repository in repositories.items():
            shared[repository, choices[origin][0]].append(origin)
        leaving = [
            origin
            for group in shared.values()
            for origin in _leaving(group)
            if len(choices[origin]) > 1
        ]
        if not leaving:
            break
        for origin in leaving:
            choices[origin] = choices[origin][1:]
    _refuse_one_tag_for_two(shared)
    return {origin: tags[0] for origin, tags in choices.items()}


def _choices(origin: Origin) -> tuple[str, ...]:
    """Return the tags an image can have, best first; only a digest gives a choice."""
    reference = origin.reference
    if reference.digest is None:
        return (reference.tag or "latest",)
    tag, hexadecimal = reference.tag or tag_hash(reference), reference.digest.hex
    own = (f"{tag[: _TAG_LENGTH - 1 - n]}-{hexadecimal[:n]}" for n in (8, 64))
    return (tag, *own)


def _leaving(group: list[Origin]) -> Iterator[Origin]:
    """Give the images that need another tag: all with a digest, but for the tag's own content."""
    if len({origin.content for origin in group}) > 1:
        owning = {origin.content for origin in group if origin.reference.digest is None}
        yield from (o for o in group if o.reference.digest and o.content not in owning)


def _refuse_one_tag_for_two(shared: dict[tuple[Repository, str], list[Origin]]) -> None:
    """Refuse what is left. An unresolved image refuses nobody: it is not going to be pushed."""
    clashes = []
    for (repository, tag), group in shared.items():
        known = [origin for origin in group if origin.content is not None]
        if len({origin.content for origin in known}) > 1:
            names = " and ".join(f"{o.reference} ({o.content})" for o in known)
            clashes.append(f"{repository}:{tag} for {names}")
    _refuse(
        clashes,
        "images with different content have one name in the destination",
        "Another --max-components may keep the names apart. Where only the registry differs,"
        " export the packages apart and import them to different namespaces.",
    )


def _refuse_long_names(repositories: dict[Origin, Repository]) -> None:
    too_long = [
        f"{origin.reference} would be {repository}, {len(str(repository))} characters"
        for origin, repository in repositories.items()
        if len(str(repository)) > _NAME_LENGTH
    ]
    _refuse(
        too_long,
        f"names in the destination would be longer than {_NAME_LENGTH} characters",
        "Use a destination with a shorter namespace.",
    )


def _refuse(found: Collection[str], what: str, hint: str) -> None:
    if found:
        raise UsageError("\n  ".join([f"{what}:", *sorted(found)]), hint=hint)
