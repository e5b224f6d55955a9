from __future__ import annotations

import inspect
import re
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airgap import errors
from airgap.errors import HOLES, AirgapError, RegistryError, printable, worst

_BRANCH = re.compile(r"^ {4}((?:│   |    )*(?:[├└]── )?)([A-Z]\w+) +(\d+)  ", re.MULTILINE)


def drawn() -> set[tuple[str, str, int]]:
    """Read the tree in the module's docstring: a class, the class above it, its status."""
    above: list[str] = ["Exception"]
    found = set()
    for indent, name, status in _BRANCH.findall(errors.__doc__ or ""):
        depth = len(indent) // 4 + 1
        del above[depth:]
        found.add((name, above[-1], int(status)))
        above.append(name)
    return found


def real() -> set[tuple[str, str, int]]:
    return {
        (name, kind.__base__.__name__, kind.exit_status)
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, AirgapError) and kind.__base__
    }


def test_the_drawn_tree_is_the_real_one() -> None:
    assert drawn() == real()


def test_an_error_says_what_happened_and_what_to_do() -> None:
    error = AirgapError("gone", hint="Look elsewhere.")
    assert (str(error), error.message, error.hint) == ("gone", "gone", "Look elsewhere.")
    assert AirgapError("gone").hint is None


def test_a_registry_error_keeps_the_status_of_the_answer() -> None:
    assert RegistryError("no", status=418).status == 418
    assert RegistryError("no").status is None


def test_the_worst_of_several_statuses_stands_for_all() -> None:
    order = [130, 143, 6, 2, 4, 5, HOLES]
    for position, expected in enumerate(order):
        assert worst([*reversed(order[position:]), 0]) == expected


@pytest.mark.parametrize("statuses", [*permutations([0, 3, 5, 130])])
def test_the_order_of_statuses_is_no_matter(statuses: tuple[int, ...]) -> None:
    assert worst(statuses) == 130


def test_no_status_is_success() -> None:
    assert worst([]) == 0


def test_every_status_of_an_error_has_a_rank() -> None:
    for _, _, status in real():
        assert worst([status, 0]) == status


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("größer ☃", "größer ☃"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("one\r\ntwo\ttabs", "one\\r\\ntwo\\ttabs"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("half \ud800", "half \\ud800"),
    ],
)
def test_foreign_text_cannot_move_a_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters()), st.integers(min_value=1, max_value=30))
def test_printable_text_is_printable_and_bounded(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert shown.isprintable()
    assert len(shown) <= limit * len("\\U0010ffff")
    assert len(text) > limit or printable(text) == shown


def test_cut_text_shows_that_it_was_cut() -> None:
    assert printable("abcdef", 4) == "abc…"
    assert printable("abcd", 4) == "abcd"
