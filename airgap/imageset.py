"""Reading oc-mirror's ``ImageSetConfiguration``, v1alpha2 and v2alpha1, as selections.

Strict, as a file that decides what travels must be: an unknown key, a number where text must be,
a key given twice are errors with their path and line. What oc-mirror knows and this program
does not do is named, not ignored. Means what oc-mirror means: a package without ranges is the
heads of its channels, ranges include both ends, and ``full`` is everything.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import yaml

from airgap import limits
from airgap.catalog import strict_yaml
from airgap.catalog.select import HEAD, PackageChoice, parse_pattern
from airgap.catalog.versions import VersionRange
from airgap.errors import MalformedReference, UsageError, printable
from airgap.reference import ImageReference

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airgap.catalog.select import Versions

KIND: Final = "ImageSetConfiguration"
V1: Final = "mirror.openshift.io/v1alpha2"
V2: Final = "mirror.openshift.io/v2alpha1"


@dataclass(frozen=True, slots=True)
class CatalogChoice:
    """An entry of ``mirror.operators``: what is wanted of one catalog.

    Without ``packages`` it is every package: all of it if ``full``, else the heads of its
    channels. ``default_channels`` are wishes for a reduced catalog, by package.
    """

    catalog: ImageReference
    packages: tuple[PackageChoice, ...]
    full: bool
    with_dependencies: bool
    default_channels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ImageSet:
    """A configuration. ``archive_size`` is in bytes, None for no limit.

    ``unsupported`` names what is in it and has no effect here, with the line.
    """

    operators: tuple[CatalogChoice, ...]
    additional_images: tuple[ImageReference, ...]
    blocked_images: tuple[re.Pattern[str], ...]
    archive_size: int | None
    unsupported: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Fields:
    """The keys of a mapping: those that count here, and those that oc-mirror knows besides."""

    used: frozenset[str]
    unsupported: frozenset[str] = frozenset()


_ROOT = _Fields(
    frozenset({"apiVersion", "kind", "archiveSize", "mirror"}), frozenset({"storageConfig"})
)
_MIRROR = _Fields(
    frozenset({"operators", "additionalImages", "blockedImages"}),
    frozenset({"platform", "helm", "samples"}),
)
_OPERATOR = _Fields(
    frozenset({"catalog", "packages", "full", "skipDependencies"}),
    frozenset(
        {
            "originalRef",
            "platforms",
            "targetCatalog",
            "targetCatalogSourceTemplate",
            "targetName",
            "targetTag",
        }
    ),
)
_RANGE = frozenset({"name", "minVersion", "maxVersion"})
_PACKAGE = _Fields(_RANGE | {"channels", "defaultChannel"}, frozenset({"minBundle"}))
_CHANNEL = _Fields(_RANGE, frozenset({"minBundle"}))
_IMAGE = _Fields(frozenset({"name"}), frozenset({"targetRepo", "targetTag", "platforms"}))
_BLOCKED = _Fields(frozenset({"name"}))

_Path = tuple[str | int, ...]


def parse(raw: bytes, name: str) -> ImageSet:
    """Read a configuration file; ``name`` stands for it in errors. Raises UsageError."""
    if len(raw) > limits.CONFIGURATION_FILE:
        most = limits.CONFIGURATION_FILE
        raise UsageError(f"{printable(name)}: {len(raw)} bytes, more than {most}")
    node = _Node(_document(raw, name), (), _File(raw, name))
    unsupported: list[str] = []
    root = node.fields(_ROOT, unsupported)
    if root["kind"].text() != KIND:
        raise root["kind"].refused(f"not '{KIND}'")
    version = root["apiVersion"].text()
    if version not in (V1, V2):
        raise root["apiVersion"].refused(f"neither {V1} nor {V2}")
    mirror = root["mirror"].fields(_MIRROR, unsupported)
    return ImageSet(
        tuple(_operator(each, version, unsupported) for each in mirror["operators"].items()),
        tuple(_image(each, unsupported) for each in mirror["additionalImages"].items()),
        tuple(_blocked(each, version, unsupported) for each in mirror["blockedImages"].items()),
        _archive_size(root["archiveSize"]),
        tuple(unsupported),
    )


def _document(raw: bytes, name: str) -> Any:
    try:
        loaded = list(strict_yaml.documents(raw))
    except strict_yaml.MalformedYaml as error:
        raise UsageError(f"{printable(name)}, line {error.line}: {error.message}") from error
    if len(loaded) != 1:
        raise UsageError(f"{printable(name)}: {len(loaded)} documents, where one must be")
    for key, line in loaded[0].repeated:
        raise UsageError(f"{printable(name)}, line {line}: the key '{printable(key)}' again")
    return loaded[0].value


class _File:
    """The text once more, to find the line of what an error is about."""

    def __init__(self, raw: bytes, name: str) -> None:
        self.name = printable(name)
        self._raw = raw

    @cached_property
    def _top(self) -> Any:
        return yaml.compose(self._raw, yaml.CSafeLoader)

    def line(self, path: _Path) -> int:
        """Return the line of a value; of what is not there, that of what should hold it."""
        node, line = self._top, 0
        for step in path:
            below = _step(node, step)
            if below is None:
                break
            line, node = below
        return line + 1


@dataclass(frozen=True, slots=True)
class _Node:
    """A value in the file, and how it is got to. None is what is not there."""

    value: Any
    path: _Path
    file: _File

    def fields(self, known: _Fields, unsupported: list[str]) -> Mapping[str, _Node]:
        """Return the fields that count, all of them; add the others to ``unsupported``."""
        content = {} if self.value is None else self.value
        if not isinstance(content, dict):
            raise self.refused("must be a mapping of keys to values")
        for key in content:
            if key in known.unsupported and content[key]:
                node = self._at(key)
                unsupported.append(f"{node.name} (line {node.line})")
            if key not in known.used | known.unsupported:
                raise self._at(key).refused(f"unknown{_meant(key, known)}")
        return {key: self._at(key) for key in known.used}

    def items(self) -> Iterator[_Node]:
        """Give the values of a list."""
        content = [] if self.value is None else self.value
        if not isinstance(content, list):
            raise self.refused("must be a list")
        for number, value in enumerate(content):
            yield _Node(value, (*self.path, number), self.file)

    def text(self) -> str:
        """Return text that must be there."""
        text = self.optional_text()
        if not text:
            raise self.refused("missing")
        return text

    def optional_text(self) -> str:
        """Return text, "" for none."""
        if self.value is None:
            return ""
        if isinstance(self.value, (int, float)):
            raise self.refused(f"{self.value} is no text; put it in quotes")
        if not isinstance(self.value, str):
            raise self.refused("must be text")
        return self.value

    def flag(self, default: bool) -> bool:
        """Return true or false."""
        if self.value is None:
            return default
        if not isinstance(self.value, bool):
            raise self.refused("must be true or false")
        return self.value

    @property
    def name(self) -> str:
        """The path, as one writes it."""
        steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.path)
        return printable("".join(steps).removeprefix("."))

    @property
    def line(self) -> int:
        """The line it is in."""
        return self.file.line(self.path)

    def refused(self, why: str) -> UsageError:
        """Return the error for this value."""
        return UsageError(f"{self.file.name}, line {self.line}: {self.name or 'all of it'}: {why}")

    def _at(self, key: str) -> _Node:
        value = None if self.value is None else self.value.get(key)
        return _Node(value, (*self.path, key), self.file)


def _step(node: Any, step: str | int) -> tuple[int, Any] | None:
    """Return the line and the node that a step leads to."""
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int):
        return node.value[step].start_mark.line, node.value[step]
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if key.value == step:
            return key.start_mark.line, value
    return None


def _meant(key: str, known: _Fields) -> str:
    near = difflib.get_close_matches(key[:80], sorted(known.used | known.unsupported), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _operator(node: _Node, version: str, unsupported: list[str]) -> CatalogChoice:
    fields = node.fields(_OPERATOR, unsupported)
    full = fields["full"].flag(default=False)
    packages = [_Package.read(each, full, unsupported) for each in fields["packages"].items()]
    return CatalogChoice(
        _reference(fields["catalog"]),
        tuple(choice for package in packages for choice in package.choices),
        full,
        # The second version of oc-mirror resolves no dependencies unless it is told to.
        not fields["skipDependencies"].flag(default=version == V2),
        {each.name: each.default_channel for each in packages if each.default_channel},
    )


@dataclass(frozen=True, slots=True)
class _Package:
    name: str
    default_channel: str
    choices: tuple[PackageChoice, ...]

    @classmethod
    def read(cls, node: _Node, full: bool, unsupported: list[str]) -> _Package:
        fields = node.fields(_PACKAGE, unsupported)
        name = fields["name"].text()
        own = _versions(fields, full)
        choices = []
        for each in fields["channels"].items():
            channel = each.fields(_CHANNEL, unsupported)
            versions = _versions(channel, full)
            if isinstance(own, VersionRange) and isinstance(versions, VersionRange):
                raise each.refused("a range here and one of the package exclude each other")
            chosen = versions if isinstance(versions, VersionRange) else own
            choices.append(PackageChoice(name, (channel["name"].text(),), chosen))
        return cls(
            name,
            fields["defaultChannel"].optional_text(),
            tuple(choices) or (PackageChoice(name, versions=own),),
        )


def _versions(fields: Mapping[str, _Node], full: bool) -> Versions:
    """Return the versions that a package or a channel asks for."""
    lowest, highest = fields["minVersion"], fields["maxVersion"]
    if not lowest.optional_text() and not highest.optional_text():
        return None if full else HEAD
    given = lowest if lowest.optional_text() else highest
    if full:
        raise given.refused("a range and 'full: true' exclude each other")
    try:
        return VersionRange.between(lowest.optional_text(), highest.optional_text())
    except UsageError as error:
        raise given.refused(error.message) from error


def _image(node: _Node, unsupported: list[str]) -> ImageReference:
    return _reference(node.fields(_IMAGE, unsupported)["name"])


def _reference(node: _Node) -> ImageReference:
    try:
        return ImageReference.parse(node.text())
    except MalformedReference as error:
        raise node.refused(error.message) from error


def _blocked(node: _Node, version: str, unsupported: list[str]) -> re.Pattern[str]:
    """Return a pattern: the first version of oc-mirror blocks by name, the second by pattern."""
    name = node.fields(_BLOCKED, unsupported)["name"]
    if version == V1:
        return re.compile(rf"\A{re.escape(name.text())}\Z")
    try:
        return parse_pattern(name.text())
    except UsageError as error:
        raise name.refused(error.message) from error


def _archive_size(node: _Node) -> int | None:
    """Return bytes for a number of GiB."""
    size = node.value
    if size is None:
        return None
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise node.refused("must be a whole number of GiB")
    return size * limits.GIB
