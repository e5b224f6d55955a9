"""Files that list which image is copied where: ``mapping.txt``, as ``oc image mirror -f`` reads it.

A line holds any number of ``SRC=DST``, or one ``SRC DST [DST…]``; ``#`` begins a comment
wherever it stands. Read like ``oc``, and better in this: any white space separates, the same
copy may be listed twice, any number of images may go to one repository without a tag, and
what ``oc`` ignores without a word is told.

Pure: knows nothing of registries; what a wildcard matches is asked of whoever knows the tags.
"""

from __future__ import annotations

import fnmatch
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from airgap.errors import MalformedReference, UsageError, printable
from airgap.reference import ImageReference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

_Key = TypeVar("_Key")

_LINE = 64 * 1024
"""Characters in a line; ``oc`` reads no longer ones."""

_LINES = 1_000_000
"""More than a hundred times what the largest catalog needs."""

_ADVICE = "Write SRC=DST or SRC DST, one image a line; # begins a comment."


@dataclass(frozen=True, slots=True)
class Copy:
    """One image to copy to one place; ``where`` names the file and the line that say so.

    A ``destination`` without a tag is pushed by digest alone.
    """

    source: ImageReference
    destination: ImageReference
    where: str


@dataclass(frozen=True, slots=True)
class Wildcard:
    """All images of a repository whose tags match a glob, to be copied under their own tags.

    ``source`` has no tag. ``glob`` is "" where the file has nothing in its place; then all tags
    match. A ``destination`` with a tag has room for one match only.
    """

    source: ImageReference
    glob: str
    destination: ImageReference
    where: str

    @property
    def latest(self) -> Copy:
        """The one copy that a name without a tag means to everybody but ``oc image mirror``."""
        tag = self.destination.tag or "latest"
        return Copy(self.source, replace(self.destination, tag=tag), self.where)

    def matching(self, tags: Iterable[str]) -> tuple[Copy, ...]:
        """Return the copies for the tags that the repository has, sorted.

        Raises UsageError for several where the destination has room for one.
        """
        matching = sorted(tag for tag in tags if fnmatch.fnmatchcase(tag, self.glob or "*"))
        if len(matching) > 1 and self.destination.tag:
            raise _refused(
                self.where,
                f"{self.source}:{self.glob or '*'} matches {len(matching)} tags:"
                " when source contains wildcards, the destination must be a repository",
            )
        return tuple(
            Copy(
                replace(self.source, tag=tag),
                replace(self.destination, tag=self.destination.tag or tag),
                self.where,
            )
            for tag in matching
        )


@dataclass(frozen=True, slots=True)
class MappingFile:
    """What files list, in their order, each copy once; ``remarks`` are lines for a person."""

    copies: tuple[Copy, ...]
    wildcards: tuple[Wildcard, ...] = ()
    remarks: tuple[str, ...] = ()


def parse(files: Iterable[tuple[str, str]]) -> MappingFile:
    """Read files, each a name for errors and its text, as one list.

    Raises UsageError with file and line, also when two images would get one tag, and when
    there is nothing in the files.
    """
    reader = _Reader()
    for name, text in files:
        for where, words in _lines(name, text):
            reader.line(where, words)
    copies = tuple(reader.places.copies)
    if not copies and not reader.wildcards:
        raise UsageError(
            "you must specify at least one source image to pull and the destination to push to",
            hint=_ADVICE,
        )
    return MappingFile(copies, tuple(reader.wildcards), tuple(reader.remarks))


def expanded(
    listed: MappingFile, tags: Callable[[ImageReference], Iterable[str]]
) -> tuple[Copy, ...]:
    """Return all copies, wildcards replaced by what matches; ``tags`` gives a repository's tags.

    Raises UsageError as ``parse`` and ``Wildcard.matching`` do.
    """
    places = _Places()
    for copy in listed.copies:
        places.claim(copy)
    for wildcard in listed.wildcards:
        for copy in wildcard.matching(tags(wildcard.source)):
            places.claim(copy)
    return tuple(places.copies)


@dataclass(frozen=True, slots=True)
class Taken:
    """What a list takes of a catalog's images, and what it wants besides, each with its copies."""

    images: Mapping[str, tuple[Copy, ...]]
    extra: Mapping[ImageReference, tuple[Copy, ...]]
    wildcards: tuple[Wildcard, ...] = ()


def taken(listed: MappingFile, images: Iterable[str]) -> Taken:
    """Compare a list, perhaps an edited ``mapping.txt``, with a catalog's ``images``.

    Names are equal when they stand for the same image: however Docker's defaults are written,
    and, since ``mapping.txt`` shows no tag beside a digest, by the digest where there is one.
    A name without a tag is all of its tags, unless the catalog means ``latest`` by it. What
    cannot be read of ``images`` is nowhere listed, and not taken.
    """
    known: dict[ImageReference, list[str]] = defaultdict(list)
    for image in dict.fromkeys(images):
        with suppress(MalformedReference):
            known[_content(ImageReference.parse(image))].append(image)
    latest = {w: w.latest for w in listed.wildcards if not w.glob and _content(w.source) in known}
    of_catalog: dict[str, list[Copy]] = defaultdict(list)
    extra: dict[ImageReference, list[Copy]] = defaultdict(list)
    for copy in (*listed.copies, *latest.values()):
        same = known.get(_content(copy.source), ())
        for image in same:
            of_catalog[image].append(copy)
        if not same:
            extra[copy.source].append(copy)
    wildcards = tuple(w for w in listed.wildcards if w not in latest)
    return Taken(_frozen(of_catalog), _frozen(extra), wildcards)


def _content(reference: ImageReference) -> ImageReference:
    full = reference.with_defaults()
    return full if full.digest is None else replace(full, tag="")


def _frozen(lists: Mapping[_Key, list[Copy]]) -> dict[_Key, tuple[Copy, ...]]:
    return {key: tuple(copies) for key, copies in lists.items()}


def _lines(name: str, text: str) -> Iterator[tuple[str, list[str]]]:
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        where = f"file {printable(name)}, line {number}"
        if len(line) > _LINE:
            raise _refused(where, f"more than {_LINE} characters")
        if number > _LINES:
            raise _refused(where, f"more than {_LINES} lines")
        words = line.partition("#")[0].split()
        if words:
            yield where, words


class _Places:
    """Takes copies, each once, and knows which tags are taken."""

    def __init__(self) -> None:
        self.copies: dict[Copy, None] = {}
        self._sources: dict[ImageReference, dict[ImageReference, None]] = defaultdict(dict)

    def claim(self, copy: Copy) -> None:
        """Add a copy. Raises UsageError where another image has its tag."""
        if copy.source.with_defaults() == copy.destination.with_defaults():
            raise _refused(copy.where, f"SRC and DST may not be the same: {copy.source}")
        place = replace(copy.destination.with_defaults(), tag=copy.destination.tag)
        sources = self._sources[place]
        if copy.source in sources:
            return
        if sources and place.tag:
            raise _refused(
                copy.where,
                f"each destination tag may only be specified once: {copy.destination}",
            )
        sources[copy.source] = None
        self.copies[copy] = None


class _Reader:
    """Takes lines one after the other."""

    def __init__(self) -> None:
        self.places = _Places()
        self.wildcards: list[Wildcard] = []
        self.remarks: list[str] = []

    def line(self, where: str, words: list[str]) -> None:
        """Add what a line lists. Raises UsageError."""
        if not any("=" in word for word in words):
            if len(words) == 1:
                alone = printable(words[0])
                raise _refused(where, f"'{alone}' alone: a line needs SRC=DST or SRC DST")
            for destination in words[1:]:
                self._add(where, words[0], destination)
            return
        for word in words:
            source, equals, destination = word.partition("=")
            if not equals:
                self.remarks.append(f"{where}: '{printable(word)}' is ignored beside SRC=DST")
            elif not source or not destination:
                raise _refused(where, "all arguments must be valid SRC=DST mappings")
            else:
                self._add(where, source, destination)

    def _add(self, where: str, source: str, destination: str) -> None:
        to = _destination(where, destination)
        found = _source(where, source)
        if isinstance(found, ImageReference):
            self.places.claim(Copy(found, replace(to, tag=to.tag or found.tag), where))
        else:
            self.wildcards.append(Wildcard(*found, to, where))


def _source(where: str, text: str) -> ImageReference | tuple[ImageReference, str]:
    """Return an image, or a repository and a glob for its tags."""
    try:
        if "*" in text:
            return ImageReference.parse_pattern(text)
        reference = ImageReference.parse(text)
    except UsageError as error:
        raise _refused(where, error.message) from error
    return reference if reference.tag or reference.digest else (reference, "")


def _destination(where: str, text: str) -> ImageReference:
    try:
        reference = ImageReference.parse(text)
    except UsageError as error:
        raise _refused(where, error.message) from error
    if reference.digest is not None:
        raise _refused(
            where,
            f"{printable(text)}: you must specify a tag for DST or leave it blank"
            " to only push by digest",
        )
    return reference


def _refused(where: str, why: str) -> UsageError:
    return UsageError(f"{where}: {why}", hint=_ADVICE)
