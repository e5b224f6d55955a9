"""Where else a source image may be had: registries.conf, version 2, read and written.

Follows containers-registries.conf(5) as containers/image reads it: remapping by the longest
prefix, mirrors in their order before the location itself, blocked registries. Only a file
that was named is read. Knows nothing of HTTP or credentials.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airgap import limits
from airgap.errors import Blocked, UsageError, printable
from airgap.reference import DestinationPrefix, Repository

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airgap.reference import ImageReference

_PULL_FROM_MIRROR = ("all", "digest-only", "tag-only")


@dataclass(frozen=True, slots=True)
class Place:
    """Where to look for an image; ``insecure`` when its TLS need not be verified."""

    repository: Repository
    insecure: bool = False


@dataclass(frozen=True, slots=True)
class Mirror:
    """A copy of a registry or namespace, and for which references it serves."""

    location: DestinationPrefix
    insecure: bool
    pull: str

    def serves(self, reference: ImageReference) -> bool:
        """Say whether the mirror may be asked; a digest counts more than a tag beside it."""
        if self.pull == "all":
            return True
        return (self.pull == "digest-only") == (reference.digest is not None)


@dataclass(frozen=True, slots=True)
class Registry:
    """One ``[[registry]]`` table.

    With ``wildcard``, the prefix's host stands for all hosts below it, and ``location`` None
    means the host that was asked for.
    """

    prefix: DestinationPrefix
    wildcard: bool
    location: DestinationPrefix | None
    insecure: bool
    blocked: bool
    mirrors: tuple[Mirror, ...]

    @property
    def specificity(self) -> int:
        """Order tables that match the same repository: the longest prefix wins."""
        return len(str(self.prefix))

    def remainder(self, repository: Repository) -> str | None:
        """Return the path below the prefix, "" for the prefix itself, None for no match."""
        if self.wildcard:
            matches = repository.host.endswith(f".{self.prefix.host}")
            return repository.path if matches else None
        if repository.host != self.prefix.host:
            return None
        namespace, path = self.prefix.namespace, repository.path
        if not namespace or path == namespace:
            return path.removeprefix(namespace)
        return path.removeprefix(f"{namespace}/") if path.startswith(f"{namespace}/") else None


@dataclass(frozen=True, slots=True)
class RegistriesConf:
    """The tables of one file; without any, every image is where its name says."""

    path: Path | None = None
    registries: tuple[Registry, ...] = ()

    @classmethod
    def load(cls, explicit: Path | None, environ: Mapping[str, str]) -> RegistriesConf:
        """Read the file of ``--registries-conf`` or ``$CONTAINERS_REGISTRIES_CONF``.

        With neither, nothing is remapped: a file of the system, made for its container
        engine, does not silently change where content comes from. Raises UsageError.
        """
        if explicit is not None and explicit != Path():
            return cls.read(explicit)
        named = environ.get("CONTAINERS_REGISTRIES_CONF")
        return cls.read(Path(named)) if named else cls()

    @classmethod
    def read(cls, path: Path) -> RegistriesConf:
        """Read a file. Raises UsageError, naming it, for what containers/image refuses."""
        tables = _document(path).get("registry", [])
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            raise UsageError(f"{path}: registry is not a list of tables: is it version 2?")
        registries = tuple(_registry(table, path) for table in tables)
        _refuse_contradictions(registries, path)
        return cls(path, registries)

    def candidates(self, reference: ImageReference) -> list[Place]:
        """Return the places to try for an image, in order; the last is the location itself.

        Raises UsageError when the file blocks the registry.
        """
        repository = reference.repository
        matching = [entry for entry in self.registries if entry.remainder(repository) is not None]
        if not matching:
            return [Place(repository)]
        entry = max(matching, key=lambda candidate: candidate.specificity)
        if entry.blocked:
            raise Blocked(
                f"{reference}: {self.path} blocks {entry.prefix}",
                hint="Remove 'blocked = true' there, or leave the image out.",
            )
        rest = entry.remainder(repository) or ""
        places = [
            Place(self._below(mirror.location, rest, reference), mirror.insecure)
            for mirror in entry.mirrors
            if mirror.serves(reference)
        ]
        home = (
            repository if entry.location is None else self._below(entry.location, rest, reference)
        )
        return [*places, Place(home, entry.insecure)]

    def _below(
        self, location: DestinationPrefix, rest: str, reference: ImageReference
    ) -> Repository:
        path = "/".join(part for part in (location.namespace, rest) if part)
        if not path:
            raise Blocked(f"{reference}: {self.path} maps it to {location}, a registry alone")
        return Repository(location.host, path)


def drop_in(mirrors: Mapping[str, str], *, insecure: bool) -> str:
    """Return a file that makes clients ask mirrors first, by digest and by tag.

    ``mirrors`` has ``host[:port]/path`` by the prefix it stands in for; ``insecure`` says that
    they are spoken to in plain HTTP.
    """
    plain = "insecure = true\n" if insecure else ""
    return "\n".join(
        f'[[registry]]\nprefix = "{prefix}"\nlocation = "{prefix}"\n'
        f'[[registry.mirror]]\nlocation = "{location}"\n{plain}'
        for prefix, location in mirrors.items()
    )


def _document(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            raw = file.read(limits.CONFIGURATION_FILE + 1)
        if len(raw) > limits.CONFIGURATION_FILE:
            raise UsageError(f"{path}: larger than {limits.CONFIGURATION_FILE} bytes")
        return tomllib.loads(raw.decode("utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{path}: not valid TOML: {printable(str(error))}") from error


def _registry(table: dict[str, Any], path: Path) -> Registry:
    prefix, location = (_value(table, key, str, "", path) for key in ("prefix", "location"))
    if not prefix and not location:
        raise UsageError(f"{path}: a [[registry]] has neither prefix nor location")
    wildcard = prefix.startswith("*.")
    if not location and not wildcard:
        location = prefix
    by_digest_only = _value(table, "mirror-by-digest-only", bool, False, path)
    mirrors = table.get("mirror", [])
    if not isinstance(mirrors, list) or not all(isinstance(mirror, dict) for mirror in mirrors):
        raise UsageError(f"{path}: registry.mirror is not a list of tables")
    return Registry(
        prefix=_location((prefix or location).removeprefix("*."), path),
        wildcard=wildcard,
        location=_location(location, path) if location else None,
        insecure=_value(table, "insecure", bool, False, path),
        blocked=_value(table, "blocked", bool, False, path),
        mirrors=tuple(_mirror(mirror, by_digest_only, path) for mirror in mirrors),
    )


def _mirror(table: dict[str, Any], by_digest_only: bool, path: Path) -> Mirror:
    location = _value(table, "location", str, "", path)
    pull = _value(table, "pull-from-mirror", str, "", path)
    if pull and by_digest_only:
        raise UsageError(
            f"{path}: mirror {printable(location)!r}: pull-from-mirror cannot be set together"
            " with mirror-by-digest-only"
        )
    if pull and pull not in _PULL_FROM_MIRROR:
        raise UsageError(f"{path}: pull-from-mirror is none of {', '.join(_PULL_FROM_MIRROR)}")
    return Mirror(
        location=_location(location, path),
        insecure=_value(table, "insecure", bool, False, path),
        pull="digest-only" if by_digest_only else pull or "all",
    )


def _value(table: dict[str, Any], key: str, kind: type, default: Any, path: Path) -> Any:
    value = table.get(key, default)
    if type(value) is not kind:
        expected = "true or false" if kind is bool else "text"
        raise UsageError(f"{path}: {key} is not {expected}")
    return value


def _location(text: str, path: Path) -> DestinationPrefix:
    try:
        return DestinationPrefix.parse(text.rstrip("/"))
    except UsageError as error:
        raise UsageError(
            f"{path}: {printable(text)!r} is not host[:port][/namespace]",
            hint="Prefixes with a tag or a digest are not supported.",
        ) from error


def _refuse_contradictions(registries: tuple[Registry, ...], path: Path) -> None:
    """Refuse two tables for one prefix: which of them counts would be chance."""
    seen: set[tuple[DestinationPrefix, bool]] = set()
    for entry in registries:
        key = (entry.prefix, entry.wildcard)
        if key in seen:
            raise UsageError(f"{path}: there are two [[registry]] tables for {entry.prefix}")
        seen.add(key)
