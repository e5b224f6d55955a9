"""What is asked for, from what an operator says to a question that travels with its answer.

Pure: knows what can be asked for, and nothing of where the answer comes from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airgap.catalog.select import PackageChoice, Selection, parse_pattern
from airgap.errors import UsageError
from airgap.plan import Question
from airgap.reference import ImageReference

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_PLATFORM = "linux/amd64"
"""Which variant of a catalog image is read, unless the operator says else."""


@dataclass(frozen=True)
class Part:
    """What to take of catalogs, and besides.

    ``packages`` are written ``NAME[:CHANNEL[,CHANNEL…]][@RANGE]``, RANGE as ``>=4.3,<4.4``, a
    version, or ``head``; () takes everything. With ``with_dependencies`` what those need in
    the catalog comes along. ``exclude_images`` are regular expressions that are searched for
    in references and win over everything; ``images`` are further references.
    """

    packages: Sequence[str] = ()
    with_dependencies: bool = False
    exclude_images: Sequence[str] = ()
    images: Sequence[str] = ()


def question_of(catalogs: Sequence[str], platform: str, part: Part) -> Question:
    """Return the question, once it is sure that it can be understood. Raises UsageError."""
    if not catalogs:
        raise UsageError("no catalog is named: there is nothing to take")
    question = Question(
        tuple(dict.fromkeys(catalogs)),
        platform,
        packages=tuple(dict.fromkeys(part.packages)),
        dependencies=part.with_dependencies,
        exclude=tuple(dict.fromkeys(part.exclude_images)),
        images=tuple(dict.fromkeys(part.images)),
    )
    selection_of(question)
    return question


def selection_of(question: Question) -> Selection:
    """Return what a question selects. Raises UsageError for what cannot be understood."""
    return Selection(
        packages=tuple(map(PackageChoice.parse, question.packages)) or None,
        with_dependencies=question.dependencies,
        exclude_images=tuple(map(parse_pattern, question.exclude)),
        images=tuple(map(ImageReference.parse, question.images)),
    )
