"""JSON from outside, read strictly: what two readers could understand differently is refused.

Knows the grammar of JSON (RFC 8259, narrowed as I-JSON, RFC 7493, narrows it) and the ways in
which Python's reader is lenient. Refuses to know what any document means.
"""

from __future__ import annotations

import json
from typing import Any

from airgap.errors import MalformedContent, printable


def parse(raw: bytes, what: str) -> Any:
    """Return the value in ``raw``; ``what`` names it in errors.

    Raises MalformedContent for bytes that are no UTF-8, for a byte order mark, duplicate
    keys, NaN and infinities, lone surrogates, too deep nesting and absurd numbers.
    """
    try:
        text = raw.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_unambiguous, parse_constant=_refuse_constant)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedContent(f"{what}: not UTF-8 at byte {error.start}") from error
    except UnicodeEncodeError as error:
        raise MalformedContent(f"{what}: holds half a surrogate pair") from error
    except RecursionError as error:
        raise MalformedContent(f"{what}: nested too deeply") from error
    except ValueError as error:
        raise MalformedContent(f"{what}: not valid JSON: {printable(str(error))}") from error
    return value


def parse_object(raw: bytes, what: str) -> dict[str, Any]:
    """Return the JSON object in ``raw``. Raises MalformedContent."""
    value = parse(raw, what)
    if not isinstance(value, dict):
        raise MalformedContent(f"{what}: not a JSON object")
    return value


def refuse_disguised_keys(document: dict[str, Any], known: frozenset[str], what: str) -> None:
    """Refuse an object with a key that differs from a known one in case only.

    Go's reader takes ``Layers`` for ``layers`` and Python's does not, so two tools would see
    two documents. Only for objects whose keys are a fixed set: annotations and labels differ
    in case legitimately. Raises MalformedContent.
    """
    for key in document:
        if key not in known and key.casefold() in {name.casefold() for name in known}:
            raise MalformedContent(f"{what}: the key '{printable(key)}' is written in a wrong case")


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("an object has the same key twice")
    return result


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
