"""YAML from outside, read as Go's readers do it, but with bounds and without surprises.

Plain scalars become what go-yaml v2 makes of them under ``sigs.k8s.io/yaml``, which ``oc``,
``opm`` and Kubernetes read catalogs with: ``no`` is false and ``010`` is eight, while ``1:30``
and dates stay text, and keys are always text. Anchors, aliases and merge keys work. Tags other
than those of JSON's types are refused, and so is a document that is larger than the limits
once its aliases are followed; values are built from the C parser's events, so nothing is
walked twice and nothing recurses.

A key that stands twice in a mapping is no reason to refuse: Go takes the last one, published
catalogs contain it, and refusing would lose an operator that the cluster can install. It is
reported instead.

Refuses to know what any document means, and where in a file it stood.
"""

from __future__ import annotations

import math
import re
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from airgap import limits
from airgap.errors import MalformedContent, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **{
        spelled: meaning
        for meaning, words in {
            True: ("y", "yes", "true", "on"),
            False: ("n", "no", "false", "off"),
        }.items()
        for word in words
        for spelled in (word, word.capitalize(), word.upper())
    },
}

_NUMERIC = frozenset("+-.0123456789")
_INTEGER = re.compile(
    r"(?P<sign>[-+]?)(?:0b(?P<b>[01]+)|0x(?P<x>[0-9a-fA-F]+)|0o?(?P<o>[0-7]+)|(?P<d>0|[1-9]\d*))",
    re.ASCII,
)
_BASES = {"b": 2, "x": 16, "o": 8, "d": 10}
_FLOAT = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)
_LARGEST = 1 << 64

_MERGE: Any = object()
"""The key ``<<`` of a mapping; a quoted one is text like any other."""

_STANDARD = "tag:yaml.org,2002:"
_TEXT_TAGS = frozenset({"!", f"{_STANDARD}str"})
_PLAIN_TAGS = frozenset({f"{_STANDARD}{name}" for name in ("int", "float", "bool", "null")})
_CONTAINER_TAGS = frozenset({f"{_STANDARD}{name}" for name in ("map", "seq")})

_REPEATED = 5
"""How many repeated keys of one document are named."""


class MalformedYaml(MalformedContent):
    """YAML that cannot be read; ``line`` counts from 1 in the text that was given."""

    def __init__(self, why: str, line: int) -> None:
        super().__init__(why)
        self.line = line


@dataclass(frozen=True, slots=True)
class Loaded:
    """A document's value and the line it begins in, from 1.

    Texts, numbers, booleans and None are in lists and in mappings with keys of text. Two
    aliases of one anchor are the same object. ``repeated`` has the first few keys that stand
    again in their mapping, with their lines.
    """

    line: int
    value: Any
    repeated: tuple[tuple[str, int], ...] = ()


def documents(raw: bytes) -> Iterator[Loaded]:
    """Give the documents of a text, nearly always one.

    Raises MalformedYaml for what cannot be read; the documents before it have been given.
    """
    with closing(_Parser(raw)) as parser, _explained(raw):
        builder: _Builder | None = None
        while (event := parser.get_event()) is not None:
            if isinstance(event, yaml.DocumentStartEvent):
                builder = _Builder()
            elif builder is None:
                continue
            elif isinstance(event, yaml.DocumentEndEvent):
                yield Loaded(builder.line, builder.value, tuple(builder.repeated))
                builder = None
            else:
                builder.take(event)


class _Parser(yaml.CSafeLoader):
    """The C parser, of which only the events are used."""

    def close(self) -> None:
        self.dispose()


@dataclass(slots=True)
class _Open:
    """A list or mapping that has not ended; ``key`` waits for its value."""

    holds: Any
    anchor: str | None
    values_before: int
    text_before: int
    height: int = 0
    key: Any = None


@dataclass(frozen=True, slots=True)
class _Anchored:
    """What an alias stands for, and what following it adds.

    ``text`` counts characters, ``height`` the lists and mappings inside each other.
    """

    value: Any
    values: int
    text: int
    height: int


class _Builder:
    """Puts a document together from events, within the limits."""

    def __init__(self) -> None:
        self.line = 1
        self.repeated: list[tuple[str, int]] = []
        self._document: list[Any] = []
        self._open = [_Open(self._document, None, 0, 0)]
        self._anchored: dict[str, _Anchored] = {}
        self._values = 0
        self._text = 0
        self._takes: dict[type, Callable[[Any], None]] = {
            yaml.ScalarEvent: self._scalar,
            yaml.AliasEvent: self._alias,
            yaml.MappingStartEvent: self._mapping,
            yaml.SequenceStartEvent: self._sequence,
            yaml.MappingEndEvent: self._end_of_mapping,
            yaml.SequenceEndEvent: self._end,
        }

    @property
    def value(self) -> Any:
        """The document, once its events have all been taken."""
        return self._document[0]

    def take(self, event: Any) -> None:
        """Go one event on. Raises MalformedYaml."""
        self._takes[type(event)](event)

    def _scalar(self, event: Any) -> None:
        inner = self._open[-1]
        text: str = event.value
        self._count(1, len(text), event)
        is_plain = _is_plain(event)
        value = _resolved(text) if is_plain else text
        if event.anchor is not None:
            self._anchored[event.anchor] = _Anchored(value, 1, len(text), 0)
        if type(inner.holds) is dict and inner.key is None:
            self._key(_MERGE if is_plain and text == "<<" else text, inner, event)
        else:
            self._put(value)

    def _key(self, key: Any, mapping: _Open, event: Any) -> None:
        if key in mapping.holds and len(self.repeated) < _REPEATED:
            self.repeated.append((event.value, event.start_mark.line + 1))
        mapping.key = key

    def _alias(self, event: Any) -> None:
        name: str = event.anchor
        if name not in self._anchored:
            raise _malformed(f"the alias *{printable(name)} stands before or in its anchor", event)
        anchored = self._anchored[name]
        self._count(anchored.values, anchored.text, event)
        self._require_depth(anchored.height, event)
        inner = self._open[-1]
        if type(inner.holds) is dict and inner.key is None:
            if not isinstance(anchored.value, str):
                raise _malformed("a key that is no text", event)
            inner.key = anchored.value
        else:
            self._put(anchored.value, anchored.height)

    def _mapping(self, event: Any) -> None:
        self._begin({}, event)

    def _sequence(self, event: Any) -> None:
        self._begin([], event)

    def _begin(self, holds: Any, event: Any) -> None:
        if event.tag is not None and event.tag not in _CONTAINER_TAGS:
            raise _unknown_tag(event)
        inner = self._open[-1]
        if type(inner.holds) is dict and inner.key is None:
            raise _malformed("a key that is no text", event)
        self._require_depth(1, event)
        if len(self._open) == 1:
            self.line = event.start_mark.line + 1
        self._open.append(_Open(holds, event.anchor, self._values, self._text))
        self._count(1, 0, event)

    def _end_of_mapping(self, event: Any) -> None:
        mapping = self._open[-1].holds
        if _MERGE in mapping:
            self._merge(mapping, event)
        self._end(event)

    def _end(self, _event: Any) -> None:
        ended = self._open.pop()
        height = ended.height + 1
        if ended.anchor is not None:
            values, text = self._values - ended.values_before, self._text - ended.text_before
            self._anchored[ended.anchor] = _Anchored(ended.holds, values, text, height)
        self._put(ended.holds, height)

    def _merge(self, mapping: dict[str, Any], event: Any) -> None:
        """Add what merge keys name, where the mapping itself says nothing else."""
        merged = mapping.pop(_MERGE)
        for source in merged if isinstance(merged, list) else [merged]:
            if not isinstance(source, dict):
                raise _malformed("a merge key (<<) that names no mapping", event)
            self._count(len(source), 0, event)
            for key, value in source.items():
                mapping.setdefault(key, value)

    def _put(self, value: Any, height: int = 0) -> None:
        inner = self._open[-1]
        inner.height = max(inner.height, height)
        if type(inner.holds) is list:
            inner.holds.append(value)
        else:
            inner.holds[inner.key] = value
            inner.key = None

    def _count(self, values: int, text: int, event: Any) -> None:
        self._values += values
        self._text += text
        if self._values > limits.CATALOG_VALUES:
            most = limits.CATALOG_VALUES
            raise _malformed(f"more than {most} values, aliases followed", event)
        if self._text > limits.CATALOG_DOCUMENT:
            most = limits.CATALOG_DOCUMENT
            raise _malformed(f"more than {most} characters, aliases followed", event)

    def _require_depth(self, height: int, event: Any) -> None:
        """Raise MalformedYaml where something of a height would stand too deep."""
        if len(self._open) - 1 + height > limits.CATALOG_NESTING:
            raise _malformed(f"nested more than {limits.CATALOG_NESTING} levels deep", event)


def _is_plain(event: Any) -> bool:
    """Say whether a scalar may be something else than text. Raises MalformedYaml for its tag."""
    if event.tag is None:
        return bool(event.implicit[0])
    if event.tag in _TEXT_TAGS:
        return False
    if event.tag in _PLAIN_TAGS:
        return True
    raise _unknown_tag(event)


def _resolved(text: str) -> Any:
    """Return what a plain scalar stands for."""
    if text in _WORDS:
        return _WORDS[text]
    return _number(text) if text[0] in _NUMERIC else text


def _number(text: str) -> int | float | str:
    digits = text.replace("_", "")
    if match := _INTEGER.fullmatch(digits):
        base = match.lastgroup or ""
        value = int(match[base], _BASES[base]) if len(match[base]) <= 64 else _LARGEST
        if value < _LARGEST:
            return -value if match["sign"] == "-" else value
    if _FLOAT.fullmatch(digits) and math.isfinite(number := float(digits)):
        return number
    return text


@contextmanager
def _explained(raw: bytes) -> Iterator[None]:
    """Turn what the parser raises into a MalformedYaml."""
    try:
        yield
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        why = " ".join(filter(None, (error.context, error.problem)))
        raise MalformedYaml(f"not valid YAML: {printable(why)}", line) from error
    except yaml.reader.ReaderError as error:
        line = raw.count(b"\n", 0, error.position) + 1
        raise MalformedYaml(f"not valid YAML: {printable(error.reason)}", line) from error
    except yaml.YAMLError as error:
        raise MalformedYaml(f"not valid YAML: {printable(str(error))}", 1) from error


def _malformed(why: str, event: Any) -> MalformedYaml:
    return MalformedYaml(why, event.start_mark.line + 1)


def _unknown_tag(event: Any) -> MalformedYaml:
    return _malformed(f"the tag {printable(event.tag)} is not one of JSON's types", event)
