"""What is met while a catalog's files are read that a sound catalog does not have.

Keeps lines for a person, in the order of the files whatever order they were read in, and of
very many only the first. Knows nothing of what they are about.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from airgap.errors import printable

_LINES = 1_000
"""Lines of each kind that are kept; nobody reads more."""

_FREQUENT = 100
"""Lines that are kept of what may stand in every bundle."""


@dataclass(frozen=True, slots=True)
class Place:
    """A file, or a document in it: which one, and its line, both from 1.

    Places are in the order in which a walk comes by them: ``a/b`` before ``a-b/a``.
    """

    path: str
    number: int = 0
    line: int = 0

    def __str__(self) -> str:
        name = printable(self.path)
        return f"{name}: document {self.number}, line {self.line}" if self.number else name

    def __lt__(self, other: Place) -> bool:
        return self._order < other._order

    @property
    def _order(self) -> tuple[list[str], int, int]:
        return self.path.split("/"), self.number, self.line


@dataclass(slots=True)
class _Lines:
    most: int
    kept: list[tuple[Place, str]] = field(default_factory=list)
    more: int = 0

    def add(self, place: Place, text: str) -> None:
        if len(self.kept) < self.most:
            self.kept.append((place, text))
        else:
            self.more += 1

    def all(self) -> tuple[str, ...]:
        lines = [f"{place}: {text}" for place, text in sorted(self.kept)]
        return (*lines, *([f"{self.more} more lines like these"] if self.more else []))


class Notes:
    """Oddities, which cost nothing, and faults, which cost what stood there."""

    def __init__(self) -> None:
        self._oddities = _Lines(_LINES)
        self._frequent = _Lines(_FREQUENT)
        self._faults = _Lines(_LINES)

    def odd(self, place: Place, text: str) -> None:
        """Note what a sound catalog does not have; ``text`` is fit to be printed."""
        self._oddities.add(place, text)

    def often(self, place: Place, text: str) -> None:
        """Note an oddity of a kind that may stand in every bundle, so that fewer are kept."""
        self._frequent.add(place, text)

    def lost(self, place: Place, text: str) -> None:
        """Note what could not be read; ``text`` is fit to be printed."""
        self._faults.add(place, text)

    @property
    def oddities(self) -> tuple[str, ...]:
        """All oddities as lines, the frequent ones last."""
        return self._oddities.all() + self._frequent.all()

    @property
    def faults(self) -> tuple[str, ...]:
        """All faults as lines."""
        return self._faults.all()
