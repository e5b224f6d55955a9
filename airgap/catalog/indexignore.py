"""``.indexignore``: which files of a file-based catalog are not part of it.

The patterns are gitignore's, each relative to the directory of the file it stands in, and of
all that match a path the last one decides; so a file can be taken back even from an ignored
directory, which git would not do. That is how operator-registry reads them. Knows paths only.
"""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

NAME = ".indexignore"
"""The name of a file that says what to ignore."""

_ANY_DEPTH = "**"
_ESCAPED = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Pattern:
    """A line of an ``.indexignore``; one of several components is anchored to its directory."""

    components: tuple[re.Pattern[str] | None, ...]
    """What the names on a path must be; None stands for any number of directories."""
    anchored: bool
    directories_only: bool
    includes: bool

    def matches(self, names: tuple[str, ...]) -> bool:
        """Say whether a file, or a directory that it is in, is what the pattern means.

        ``names`` are those on the path from the pattern's directory to the file.
        """
        ends = self._ends(names) if self.anchored else self._any(names)
        return any(end < len(names) or not self.directories_only for end in ends)

    def _any(self, names: tuple[str, ...]) -> Iterable[int]:
        """Give where a single component matches, as the number of names up to there."""
        (component,) = self.components
        return [
            number
            for number, name in enumerate(names, 1)
            if component is None or component.match(name)
        ]

    def _ends(self, names: tuple[str, ...]) -> Iterable[int]:
        """Give the numbers of names that all components together can match."""
        ends = {0}
        for place, component in enumerate(self.components):
            if component is not None:
                ends = {n + 1 for n in ends if n < len(names) and component.match(names[n])}
            elif ends:
                least_inside = 1 if place == len(self.components) - 1 else 0
                ends = set(range(min(ends) + least_inside, len(names) + 1))
            if not ends:
                break
        return ends


@dataclass(slots=True)
class _Directory:
    patterns: tuple[Pattern, ...] = ()
    inside: dict[str, _Directory] = field(default_factory=dict)


class IndexIgnore:
    """The patterns of all ``.indexignore`` files of a catalog, by their directories."""

    def __init__(self) -> None:
        self._top = _Directory()

    def add(self, directory: str, lines: Iterable[str]) -> None:
        """Add what a file in a directory says, which is relative to the catalog."""
        here = self._top
        for name in _parts(directory):
            here = here.inside.setdefault(name, _Directory())
        here.patterns = tuple(map(_pattern, lines))

    def __contains__(self, path: str) -> bool:
        """Say whether the file at a path, relative to the catalog, is ignored.

        What a directory's own file says counts after those of the directories above it.
        """
        names = _parts(path)
        for depth, patterns in reversed(list(self._on_the_way(names))):
            inside = names[depth:]
            for pattern in reversed(patterns):
                if pattern.matches(inside):
                    return not pattern.includes
        return False

    def _on_the_way(self, names: tuple[str, ...]) -> Iterator[tuple[int, tuple[Pattern, ...]]]:
        here: _Directory | None = self._top
        for depth, name in enumerate(names):
            if here is None:
                return
            if here.patterns:
                yield depth, here.patterns
            here = here.inside.get(name)


def lines(text: str) -> list[str]:
    """Return the lines of an ``.indexignore`` that are patterns."""
    stripped = (line.strip() for line in text.splitlines())
    return [line for line in stripped if line and not line.startswith("#")]


def _pattern(line: str) -> Pattern:
    includes = line.startswith("!")
    body = line[1:] if includes else line
    inner = body.removesuffix("/")
    return Pattern(
        components=tuple(_component(part) for part in _parts(inner)) or (_component(""),),
        anchored="/" in inner,
        directories_only=body.endswith("/"),
        includes=includes,
    )


@lru_cache(maxsize=1024)
def _component(glob: str) -> re.Pattern[str] | None:
    """Translate a glob for one name; ``fnmatch`` makes an expression that cannot blow up."""
    if glob == _ANY_DEPTH:
        return None
    without_escapes = _ESCAPED.sub(_literal, glob.replace("[^", "[!"))
    return re.compile(fnmatch.translate(without_escapes))


def _literal(escaped: re.Match[str]) -> str:
    return f"[{escaped[1]}]" if escaped[1] in "*?[" else escaped[1]


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.split("/") if part)
