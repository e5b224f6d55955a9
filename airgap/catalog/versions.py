"""Versions of operators and ranges of them, compared as OLM compares them.

Semantic versions 2.0.0, strict as the library that OLM uses (blang/semver) is strict. The order
is plain: a pre-release such as ``4.4.0-202006290400.p0`` stands just below ``4.4.0``, whatever
a range says. Knows nothing of packages or channels.

A range is written as OLM's are: ``>=1.0.0 <2.0.0 || 3.1.2``, also with commas for "and" and a
``v`` before a version. A version in it may be cut short or end in ``x``, and then stands for
all that begin like it: ``1.2.x`` as OLM reads it, from ``1.2.0`` to below ``1.3.0``; ``4.3``,
which OLM does not know, with the pre-releases of ``4.3.0`` and without those of ``4.4.0``, so
that ``>=4.3,<4.4`` is what it looks like.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

from airgap.errors import UsageError, printable

_LENGTH = 1024
"""Characters in a version or a range."""

_NUMBER = r"0|[1-9][0-9]{0,18}"
_IDENTIFIER = r"(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_VERSION = re.compile(
    rf"({_NUMBER})\.({_NUMBER})\.({_NUMBER})"
    rf"(?:-({_IDENTIFIER}(?:\.{_IDENTIFIER})*))?"
    r"(?:\+([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?",
    re.ASCII,
)
_SHORT = re.compile(
    rf"(?P<major>{_NUMBER})(?:\.(?P<minor>{_NUMBER}))?(?P<wild>\.[xX*]){{0,2}}", re.ASCII
)
_TERM = re.compile(r"([=!<>]*)\s*([^\s,|=!<>]+)")
_OPERATORS = frozenset({"", "=", "==", "!", "!=", "<", "<=", ">", ">="})


class MalformedVersion(UsageError):
    """Text that is no version, or no range of versions."""


class Precedence(NamedTuple):
    """What versions are ordered by; build metadata is no part of it."""

    release: tuple[int, int, int]
    released: bool
    prerelease: tuple[tuple[bool, int, str], ...]


@dataclass(frozen=True, slots=True)
class Version:
    """A semantic version. Two that differ in ``build`` alone have one ``precedence``."""

    major: int
    minor: int
    patch: int
    prerelease: tuple[int | str, ...] = ()
    build: str = ""

    @classmethod
    def parse(cls, text: str) -> Version:
        """Read a complete version. Raises MalformedVersion."""
        match = _VERSION.fullmatch(text) if len(text) <= _LENGTH else None
        if match is None:
            raise MalformedVersion(f"not a semantic version: '{printable(text)}'")
        major, minor, patch, prerelease, build = match.groups()
        identifiers = prerelease.split(".") if prerelease else ()
        return cls(
            int(major),
            int(minor),
            int(patch),
            tuple(int(part) if part.isdigit() else part for part in identifiers),
            build or "",
        )

    @property
    def release(self) -> Version:
        """The version without pre-release and build."""
        return Version(self.major, self.minor, self.patch)

    @property
    def precedence(self) -> Precedence:
        """The key to order versions by (semver.org, item 11)."""
        return Precedence(
            (self.major, self.minor, self.patch),
            not self.prerelease,
            tuple(
                (False, part, "") if isinstance(part, int) else (True, 0, part)
                for part in self.prerelease
            ),
        )

    def __str__(self) -> str:
        prerelease = "-" + ".".join(map(str, self.prerelease)) if self.prerelease else ""
        build = f"+{self.build}" if self.build else ""
        return f"{self.major}.{self.minor}.{self.patch}{prerelease}{build}"


@lru_cache(maxsize=65_536)
def stated(text: str) -> Version | None:
    """Return the version that a catalog states for a bundle; None for what is none."""
    try:
        return Version.parse(text)
    except MalformedVersion:
        return None


@dataclass(frozen=True, slots=True)
class _Term:
    """A comparison with a place among the versions: one of them, or all from it up to ``end``."""

    operator: str
    start: Version
    end: Version | None = None

    def holds(self, version: Version) -> bool:
        key = version.precedence
        below = key < self.start.precedence
        above = self._is_below(key)
        match self.operator:
            case "<":
                return below
            case "<=":
                return not above
            case ">":
                return above
            case ">=":
                return not below
            case "!" | "!=":
                return below or above
        return not below and not above and self.start.build in ("", version.build)

    def _is_below(self, key: Precedence) -> bool:
        if self.end is None:
            return self.start.precedence < key
        return self.end.precedence <= key


@dataclass(frozen=True, slots=True)
class VersionRange:
    """A set of versions, ``text`` as it was written.

    Build metadata is no matter, with one exception: who asks for exactly ``1.0.0+5`` gets that
    build alone.
    """

    text: str
    _alternatives: tuple[tuple[_Term, ...], ...]

    @classmethod
    def parse(cls, text: str) -> VersionRange:
        """Read a range, or a version that stands for itself. Raises MalformedVersion."""
        if len(text) > _LENGTH:
            raise MalformedVersion(f"a range of versions of more than {_LENGTH} characters")
        return cls(text, tuple(_terms(part, text) for part in text.split("||")))

    @classmethod
    def between(cls, lowest: str, highest: str) -> VersionRange:
        """Return the range from one version to another, both in it; "" is no bound.

        Raises MalformedVersion, also when there is no bound at all.
        """
        bounds = ((">=", lowest), ("<=", highest))
        return cls.parse(" ".join(operator + version for operator, version in bounds if version))

    def __contains__(self, version: Version) -> bool:
        return any(all(term.holds(version) for term in terms) for terms in self._alternatives)

    def bound_just_above(self, version: Version) -> Version | None:
        """Return the release that ends the range, of which a version is a pre-release."""
        if not version.prerelease or version not in self:
            return None
        ends = (
            term.start for terms in self._alternatives for term in terms if term.operator == "<"
        )
        return next((end for end in ends if end == version.release), None)

    def __str__(self) -> str:
        return self.text


@lru_cache(maxsize=65_536)
def stated_range(text: str) -> VersionRange | None:
    """Return the range that a catalog states; None for what is none."""
    try:
        return VersionRange.parse(text)
    except MalformedVersion:
        return None


def _terms(part: str, whole: str) -> tuple[_Term, ...]:
    terms = []
    rest = part.strip(" \t,")
    while rest:
        match = _TERM.match(rest)
        if match is None:
            raise _malformed(whole, f"'{printable(rest, 60)}' is no version")
        terms.append(_term(match[1], match[2], whole))
        rest = rest[match.end() :].lstrip(" \t,")
    if not terms:
        raise _malformed(whole, "there is nothing in it, or beside ||")
    return tuple(terms)


def _term(operator: str, word: str, whole: str) -> _Term:
    if operator not in _OPERATORS:
        raise _malformed(whole, f"'{printable(operator, 20)}' is no comparison")
    text = word.removeprefix("v")
    short = _SHORT.fullmatch(text)
    if short is not None:
        return _Term(operator, *_span(short))
    try:
        return _Term(operator, Version.parse(text))
    except MalformedVersion as error:
        raise _malformed(whole, f"'{printable(word, 60)}' is no version") from error


def _span(short: re.Match[str]) -> tuple[Version, Version]:
    """Return the first version that begins like a short one, and the first after all these."""
    major, minor = int(short["major"]), short["minor"]
    start = Version(major, int(minor or 0), 0)
    end = Version(major + 1, 0, 0) if minor is None else Version(major, int(minor) + 1, 0)
    if short["wild"]:
        return start, end
    lowest = (0,)
    return replace(start, prerelease=lowest), replace(end, prerelease=lowest)


def _malformed(text: str, why: str) -> MalformedVersion:
    return MalformedVersion(
        f"not a range of versions: '{printable(text)}': {why}",
        hint="Write it as '>=4.3,<4.4', or name one version.",
    )
