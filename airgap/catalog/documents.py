"""The documents of a catalog's file: YAML or JSON, one at a time, in bounded memory.

A file whose first character is an opening brace is a stream of JSON objects, one behind the
other; every other one is YAML, with a line ``---`` before each document. That is how ``oc`` and
``opm`` tell them apart; the file's name says nothing. Whatever cannot be read is given too, as
what it is: in YAML it costs its own document, since the next line ``---`` begins another one;
in JSON it costs the rest of the file. Nothing is left out silently.

Knows where a document stands, nothing of what it means.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airgap import limits
from airgap.catalog import strict_yaml
from airgap.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_BLANKS = b" \t\r\n"
_SEPARATOR = re.compile(rb"\n(?:(?=---[ \t\r\n])|\.\.\.\r?\n)")
_SEPARATOR_LENGTH = len(b"\n...\r\n")

_JSON_BLANKS = re.compile(r"[ \t\r\n]*")
_STRUCTURE = ",[{"
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")

_CONTAINERS = frozenset({dict, list})

_REPEATED = 5
"""How many keys that stand twice are named of one document."""

_DIGITS = 400
"""A number of more digits is larger than any that Go holds, and stays the text that it is."""


@dataclass(frozen=True, slots=True)
class Document:
    """A document, which one of its file it is and in which line it begins, both from 1.

    ``oddities`` are lines for a person, about what a sound document does not have.
    """

    number: int
    line: int
    value: Any
    oddities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A document that could not be read, or what is left of a file; ``line`` is the fault's."""

    number: int
    line: int
    why: str


def read(pieces: Iterable[bytes]) -> Iterator[Document | Unreadable]:
    """Give the documents of a file, in order.

    YAML with nothing but blanks and comments, in a whole file or before a line ``---``, is a
    document with the value None.
    """
    source = iter(pieces)
    head = b""
    for piece in source:
        head += piece
        if head.strip(_BLANKS) or len(head) > limits.CATALOG_DOCUMENT:
            break
    if head.lstrip(_BLANKS).startswith(b"{"):
        yield from _JsonStream(_rejoined(head, source)).documents()
    else:
        yield from _yaml(_rejoined(head, source))


def _rejoined(head: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield head
    yield from rest


def _yaml(pieces: Iterator[bytes]) -> Iterator[Document | Unreadable]:
    number = 0
    for line, part in _parts(pieces):
        before = number
        try:
            for loaded in strict_yaml.documents(part) if part is not None else _too_long():
                number += 1
                oddities = [_repeated(key, line + at - 1) for key, at in loaded.repeated]
                yield Document(number, line + loaded.line - 1, loaded.value, tuple(oddities))
        except strict_yaml.MalformedYaml as error:
            number += 1
            yield Unreadable(number, line + error.line - 1, error.message)
        if number == before:
            number += 1
            yield Document(number, line, None)


def _too_long() -> Iterator[strict_yaml.Loaded]:
    raise strict_yaml.MalformedYaml(f"more than {limits.CATALOG_DOCUMENT} bytes", 1)


def _parts(pieces: Iterator[bytes]) -> Iterator[tuple[int, bytes | None]]:
    """Cut before every line ``---`` and behind every line ``...``.

    Gives each part with the line it begins in, None for one that is too long.
    """
    buffer = bytearray()
    line, searched = 1, 0
    gone: int | None = None  # the lines of a long part that are no longer in the buffer
    for piece in pieces:
        buffer += piece
        while match := _SEPARATOR.search(buffer, searched):
            end = match.end()
            fits = gone is None and end <= limits.CATALOG_DOCUMENT
            yield line, bytes(buffer[:end]) if fits else None
            line += (gone or 0) + buffer.count(b"\n", 0, end)
            del buffer[:end]
            searched, gone = 0, None
        searched = max(0, len(buffer) - _SEPARATOR_LENGTH)
        if gone is not None or len(buffer) > limits.CATALOG_DOCUMENT:
            gone = (gone or 0) + buffer.count(b"\n", 0, searched)
            del buffer[:searched]
            searched = 0
    if buffer or gone is not None:
        yield line, bytes(buffer) if gone is None else None


class _JsonStream:
    """JSON objects one behind the other, decoded from a window that grows with the largest."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        # What is no UTF-8 becomes half a surrogate pair, and is found in its own document.
        self._texts = codecs.iterdecode(pieces, "utf-8", "surrogateescape")
        self._window = ""
        self._at = 0
        self._line = 1
        self._repeated: dict[str, None] = {}
        self._decoder = json.JSONDecoder(
            object_pairs_hook=self._object,
            parse_int=_integer,
            parse_float=_fraction,
            parse_constant=_refused,
        )

    def documents(self) -> Iterator[Document | Unreadable]:
        """Give all of them, up to the first whose end cannot be found."""
        number = 0
        try:
            while self._skip_blanks():
                number += 1
                value, end = self._decoded()
                fault = _no_text(self._window[self._at : end], value) or _too_deep(value)
                if fault:
                    yield Unreadable(number, self._line, fault)
                else:
                    oddities = [_repeated(key, self._line) for key in self._repeated]
                    yield Document(number, self._line, value, tuple(oddities))
                self._move_to(end)
        except json.JSONDecodeError as error:
            line = self._line + self._window.count("\n", self._at, error.pos)
            yield Unreadable(number, line, f"not valid JSON: {printable(error.msg)}")
        except (ValueError, RecursionError) as error:
            why = printable(str(error)) if isinstance(error, ValueError) else "nested too deeply"
            yield Unreadable(number, self._line, f"not valid JSON: {why}")

    def _skip_blanks(self) -> bool:
        """Go to the next object; False when there is none."""
        while True:
            blanks = _JSON_BLANKS.match(self._window, self._at)
            self._move_to(blanks.end() if blanks else self._at)
            if self._at < len(self._window):
                return True
            if not self._grow():
                return False

    def _decoded(self) -> tuple[Any, int]:
        """Return the object at hand and where it ends. Raises ValueError, RecursionError."""
        if self._window[self._at] != "{":
            raise ValueError("neither an object nor the end of the file")
        while True:
            self._repeated.clear()
            try:
                return self._decoder.raw_decode(self._window, self._at)
            except (ValueError, RecursionError):
                if not self._grow():
                    raise

    def _grow(self) -> bool:
        """Double what is in the window, at least to a chunk; False when nothing more comes.

        Raises ValueError when a document is larger than any honest one.
        """
        self._window, self._at = self._window[self._at :], 0
        held = len(self._window)
        if held > limits.CATALOG_DOCUMENT:
            raise ValueError(f"more than {limits.CATALOG_DOCUMENT} characters")
        if sum(map(self._window.count, _STRUCTURE)) > limits.CATALOG_VALUES:
            raise ValueError(f"more than {limits.CATALOG_VALUES} values")
        texts, size = [self._window], held
        for text in self._texts:
            texts.append(text)
            size += len(text)
            if size >= max(2 * held, limits.CHUNK):
                break
        self._window = "".join(texts)
        return size > held

    def _move_to(self, at: int) -> None:
        self._line += self._window.count("\n", self._at, at)
        self._at = at

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs) and len(self._repeated) < _REPEATED:
            counts = Counter(key for key, _ in pairs)
            self._repeated.update((key, None) for key, count in counts.items() if count > 1)
        return result


def _no_text(raw: str, value: Any) -> str:
    """Say why a document holds what no text can hold, "" when it does not."""
    try:
        if not raw.isascii():
            raw.encode("utf-8")
        if _SURROGATE.search(raw):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return "not valid JSON: not UTF-8, or half a surrogate pair"
    return ""


def _too_deep(value: Any) -> str:
    """Say that a document is nested too deeply, "" when it is not.

    Python's own limit depends on who calls, so two readings of one document could differ.
    """
    level = [value]
    for _ in range(limits.CATALOG_NESTING):
        inside = [holder.values() if type(holder) is dict else holder for holder in level]
        level = [held for values in inside for held in values if type(held) in _CONTAINERS]
        if not level:
            return ""
    return f"nested more than {limits.CATALOG_NESTING} levels deep"


def _repeated(key: str, line: int) -> str:
    return f"the key '{printable(key)}' stands again in line {line}, and that one counts"


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= _DIGITS else digits


def _fraction(digits: str) -> float | str:
    number = float(digits)
    return number if math.isfinite(number) else digits


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
