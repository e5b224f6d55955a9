from __future__ import annotations

import pytest

from airgap.catalog.shapes import Shapes, folded


def test_of_keys_that_differ_in_case_the_last_one_counts() -> None:
    assert folded({"Image": "a", "image": "b", "IMAGE": "c"}) == {"image": "c"}


def test_null_does_not_take_away_what_another_spelling_says() -> None:
    assert folded({"Image": "a", "image": None}) == {"image": "a"}
    assert folded({"Image": None, "image": "a", "x": None}) == {"image": "a", "x": None}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "a"),
        (None, ""),
        (True, "true"),
        (False, "false"),
        (4, "4"),
        (-(10**18), "-1000000000000000000"),
        (4.4, "4.4"),
        (4.1, "4.1"),
        (4.0, "4"),
        (0.0, "0"),
        (100000.0, "100000"),
        (123456.5, "123456.5"),
        (1000000.0, "1e+06"),
        (1234567.0, "1.234567e+06"),
        (0.0001, "0.0001"),
        (0.00001, "1e-05"),
        (1e100, "1e+100"),
        (-2.5e-7, "-2.5e-07"),
    ],
)
def test_scalars_are_text_as_go_writes_them(value: object, text: str) -> None:
    faults: list[str] = []
    assert Shapes(faults.append).scalar({"key": value}, "key") == text
    assert faults == []


def test_a_list_is_no_scalar() -> None:
    faults: list[str] = []
    assert Shapes(faults.append).scalar({"key": [1]}, "key") == ""
    assert faults == ["key: no text"]
