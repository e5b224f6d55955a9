"""What a person asks of catalogs, until it is a question that can travel.

Catalogs on the local disk get names here: what was typed would say nothing elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from airgap.errors import UsageError, printable
from airgap.local_catalogs import is_local, make_catalogs
from airgap.question import Listed, Part, question_of
from airgap.reference import ImageReference

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airgap.asking import Asker
    from airgap.local_catalogs import Made
    from airgap.plan import Question
    from airgap.progress import Progress
    from airgap.reference import Repository


@dataclass(frozen=True)
class Understood:
    """A question, and what of it is only here: catalogs that were made, a list of images."""

    question: Question
    made: Sequence[Made]
    listed: Listed | None

    def changed_here(self, before: Question) -> str:
        """Say what a local catalog was ``before`` and is now, "" when that is not all."""
        if replace(before, catalogs=self.question.catalogs) != self.question:
            return ""
        typed = {one.offer.reference: one.typed for one in self.made}
        for was, now in zip(before.catalogs, self.question.catalogs, strict=False):
            if was != now and now in typed and _name(was) == _name(now):
                return (
                    f"{printable(typed[now])} as it was when it made {was}; it makes {now} now,"
                    " because its files have changed, or what --base names"
                )
        return ""


@dataclass(frozen=True)
class Inquiry:
    """Catalogs as typed, the platform whose variant of them is read, what part is taken.

    Raises UsageError for what cannot be understood.
    """

    catalogs: Sequence[str]
    platform: str
    part: Part

    def __post_init__(self) -> None:
        named = [text for text in self.catalogs if not is_local(text)]
        for text in named:
            if text.startswith(("/", ".")):
                raise UsageError(f"{printable(text)}: there is no such directory, and no such file")
        local = [f"{number}" for number in range(len(self.catalogs) - len(named))]
        question_of([*named, *local], self.platform, self.part)
        if self.part.base and not local:
            raise UsageError(
                f"nothing to put on {printable(self.part.base)}: no catalog is on the local disk",
                hint="A base is for a directory in the place of a catalog's reference.",
            )

    @property
    def hosts(self) -> set[str]:
        """The registries that are named. Raises MalformedReference."""
        named = [text for text in self.catalogs if not is_local(text)]
        named += [self.part.base] if self.part.base else []
        return {ImageReference.parse(text).repository.host for text in named}

    def understood(self, asker: Callable[[], Asker], progress: Progress) -> Understood:
        """Return the question, once catalogs on the local disk are made into images.

        The asker is asked for only when there are any. Raises what ``make_catalogs`` raises.
        """
        made: dict[str, Made] = {}
        if any(map(is_local, self.catalogs)):
            made = make_catalogs(self.catalogs, self.part.base, asker(), progress)
        names = [made[t].offer.reference if t in made else t for t in self.catalogs]
        question = question_of(names, self.platform, self.part)
        return Understood(question, list(made.values()), self.part.listed)


def _name(reference: str) -> Repository:
    return ImageReference.parse(reference).repository
