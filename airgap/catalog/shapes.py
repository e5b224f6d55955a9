"""Taking apart values that came from outside, whose shape may be wrong.

Null is the same as nothing, as for Go; any other wrong shape is reported, and counts as
nothing too, so that it costs what it holds and no more.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Shapes:
    """Reads what a mapping holds under a key; ``wrong`` is told about each fault."""

    wrong: Callable[[str], None]

    def text(self, holder: Mapping[str, Any], key: str) -> str:
        """Return a text, "" where there is none."""
        return self._checked(holder.get(key), str, "", f"{key}: no text")

    def scalar(self, holder: Mapping[str, Any], key: str) -> str:
        """Return a text, or a number or a boolean as Go writes it."""
        value = holder.get(key)
        match value:
            case bool():
                return str(value).lower()
            case int():
                return str(value)
            case float():
                return _float(value)
        return self.text(holder, key)

    def texts(self, holder: Mapping[str, Any], key: str) -> list[str]:
        """Return the texts of a list."""
        return self._items(holder, key, str, "text")

    def mapping(self, holder: Mapping[str, Any], key: str) -> dict[str, Any]:
        """Return a mapping, an empty one where there is none."""
        return self._checked(holder.get(key), dict, {}, f"{key}: no mapping")

    def mappings(self, holder: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
        """Return the mappings of a list."""
        return self._items(holder, key, dict, "mapping")

    def _items(self, holder: Mapping[str, Any], key: str, kind: type[_T], word: str) -> list[_T]:
        items = self._checked(holder.get(key), list, [], f"{key}: no list")
        sound = [item for item in items if isinstance(item, kind)]
        if any(item is not None and not isinstance(item, kind) for item in items):
            self.wrong(f"{key}: holds what is no {word}")
        return sound

    def _checked(self, value: object, kind: type[_T], nothing: _T, fault: str) -> _T:
        if isinstance(value, kind):
            return value
        if value is not None:
            self.wrong(fault)
        return nothing


SILENT = Shapes(lambda _fault: None)
"""Tells nobody of faults: for whoever reads again what was read before."""


def _float(value: float) -> str:
    """Write a number as Go's ``strconv.FormatFloat(value, 'g', -1, 64)`` does."""
    digits = len(Decimal(repr(value)).normalize().as_tuple().digits)
    scientific = f"{value:.{digits - 1}e}"
    exponent = int(scientific.partition("e")[2])
    return repr(value).removesuffix(".0") if -4 <= exponent < 6 else scientific


def folded(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping with its keys in lower case, as Go's JSON reader sees them.

    Of keys that differ in case alone the last one counts that is not null.
    """
    result = {key.casefold(): value for key, value in mapping.items()}
    if len(result) != len(mapping):
        result |= {key.casefold(): held for key, held in mapping.items() if held is not None}
    return result
