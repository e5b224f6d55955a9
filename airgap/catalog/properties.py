"""What bundles provide and require, in OLM's typed properties.

Reads the values of ``properties`` and ``dependencies`` alike, wherever a catalog keeps them:
the types are the same in every format. Knows nothing of who meets a requirement.

A requirement is a test of one bundle. So are the compound ones: OLM's resolver looks for a
single bundle that passes all of an ``all`` (operator-lifecycle-manager, ``cache.And``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from airgap.errors import MalformedContent, printable

if TYPE_CHECKING:
    from collections.abc import Callable

_DEPTH = 32
"""Compound constraints inside one another."""


@dataclass(frozen=True, slots=True, order=True)
class Api:
    """A kind of Kubernetes object; as a requirement: a bundle that provides it."""

    group: str
    version: str
    kind: str

    def __str__(self) -> str:
        return printable(f"{self.kind} ({self.group}/{self.version})")


@dataclass(frozen=True, slots=True)
class PackageVersions:
    """A bundle of that package, with a version in the range ``versions``, as it was written."""

    package: str
    versions: str

    def __str__(self) -> str:
        return printable(f"package {self.package} {self.versions}")


@dataclass(frozen=True, slots=True)
class AllOf:
    """A bundle that meets every one of several requirements."""

    parts: tuple[Requirement, ...]

    def __str__(self) -> str:
        return _listed("all of", self.parts)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """A bundle that meets at least one of several requirements."""

    parts: tuple[Requirement, ...]

    def __str__(self) -> str:
        return _listed("any of", self.parts)


@dataclass(frozen=True, slots=True)
class NoneOf:
    """A bundle that meets none of several requirements."""

    parts: tuple[Requirement, ...]

    def __str__(self) -> str:
        return _listed("none of", self.parts)


@dataclass(frozen=True, slots=True)
class Undecided:
    """A requirement of a type that nothing in a catalog answers, such as an expression."""

    type: str

    def __str__(self) -> str:
        return printable(f"something of type {self.type}")


Requirement: TypeAlias = Api | PackageVersions | AllOf | AnyOf | NoneOf | Undecided

TYPES = frozenset(
    {"olm.gvk", "olm.gvk.required", "olm.package.required", "olm.label.required", "olm.constraint"}
)
"""The properties that say what is provided or required."""


def provided(kind: str, value: Any, what: str) -> Api | None:
    """Read what a property provides; None when it is none that does.

    ``value`` is JSON read; ``what`` names it in errors. Raises MalformedContent, as the others.
    """
    return _api(value, what) if kind == "olm.gvk" else None


def required(kind: str, value: Any, what: str) -> Requirement | None:
    """Read what a property requires; None when it is none that does."""
    match kind:
        case "olm.gvk.required":
            return _api(value, what)
        case "olm.package.required":
            return _package(value, "versionRange", what)
        case "olm.label.required":
            return Undecided("olm.label")
    return _constraint(value, what, 0) if kind == "olm.constraint" else None


def depended_on(kind: str, value: Any, what: str) -> Requirement:
    """Read an entry of a bundle's dependencies, as ``dependencies.yaml`` has them."""
    match kind:
        case "olm.gvk":
            return _api(value, what)
        case "olm.package":
            return _package(value, "version", what)
        case "olm.constraint":
            return _constraint(value, what, 0)
    return Undecided(kind)


def _api(value: Any, what: str) -> Api:
    return Api(*(_text(value, key, what) for key in ("group", "version", "kind")))


def _package(value: Any, versions: str, what: str) -> PackageVersions:
    return PackageVersions(_text(value, "packageName", what), _text(value, versions, what))


def _constraint(value: Any, what: str, depth: int) -> Requirement:
    if depth > _DEPTH:
        raise MalformedContent(f"{what}: more than {_DEPTH} constraints inside one another")
    if not isinstance(value, dict):
        raise MalformedContent(f"{what}: not an object")
    if value.get("gvk") is not None:
        return _api(value["gvk"], what)
    if value.get("package") is not None:
        return _package(value["package"], "versionRange", what)
    for key, compound in _COMPOUNDS.items():
        if value.get(key) is not None:
            return compound(_constraints(value[key], f"{what}: {key}", depth))
    if value.get("cel") is not None:
        return Undecided("cel")
    raise MalformedContent(f"{what}: none of the constraints that OLM knows")


def _constraints(value: Any, what: str, depth: int) -> tuple[Requirement, ...]:
    parts = value.get("constraints") if isinstance(value, dict) else None
    if not isinstance(parts, list):
        raise MalformedContent(f"{what}: no list of constraints")
    return tuple(_constraint(part, what, depth + 1) for part in parts)


_COMPOUNDS: dict[str, Callable[[tuple[Requirement, ...]], Requirement]] = {
    "all": AllOf,
    "any": AnyOf,
    "not": NoneOf,
    "none": NoneOf,  # what the first releases called "not"
}


def _text(value: Any, key: str, what: str) -> str:
    text = value.get(key) if isinstance(value, dict) else None
    if not isinstance(text, str):
        raise MalformedContent(f"{what}: no text under {key}")
    return text


def _listed(words: str, parts: tuple[Requirement, ...]) -> str:
    return f"{words} ({', '.join(map(str, parts))})"
