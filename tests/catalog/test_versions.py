from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airgap.catalog.versions import MalformedVersion, Version, VersionRange, stated

IN_ORDER = [  # the first ten of semver.org, item 11, then builds of OpenShift operators
    "1.0.0-0",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "1.0.1",
    "4.3.0-202008111029.p0",
    "4.3.0",
    "4.3.33-202008111029.p0",
    "4.3.33-202008280827.p0",
    "4.3.33",
    "4.4.0-202006290400.p0",
    "4.4.0",
    "10.0.0",
]

numbers = st.integers(0, 10**19 - 1)
identifiers = st.from_regex(r"[0-9]*[A-Za-z-][0-9A-Za-z-]*", fullmatch=True) | numbers
versions = st.builds(
    Version,
    numbers,
    numbers,
    numbers,
    st.lists(identifiers, max_size=4).map(tuple),
    st.just("") | st.from_regex(r"[0-9A-Za-z-]{1,9}(\.[0-9A-Za-z-]{1,9})?", fullmatch=True),
)


def test_orders_versions_as_semantic_versions_are() -> None:
    precedences = [Version.parse(text).precedence for text in IN_ORDER]
    assert precedences == sorted(precedences)
    assert len(set(precedences)) == len(IN_ORDER)


@given(versions)
def test_a_version_is_read_as_it_is_written(version: Version) -> None:
    assert Version.parse(str(version)) == version


def test_builds_of_a_version_have_one_precedence() -> None:
    first, second = Version.parse("4.9.3+0.1661890000.p"), Version.parse("4.9.3+1")
    assert first != second
    assert first.precedence == second.precedence
    assert str(first) == "4.9.3+0.1661890000.p"


@pytest.mark.parametrize(
    "text",
    [
        "", "1", "1.2", "1.2.3.4", "v1.2.3", "01.2.3", "1.2.03", "1.2.3-", "1.2.3+", "1.2.3-01",
        "1.2.3-a..b", "1.2.3-a_b", " 1.2.3", "1.2.3\n", "1.2.x", "-1.2.3", "1.2.3+a+b",
        "\uff11.2.3",
        "99999999999999999999.0.0", "1.0.0-" + "a" * 2000, "1.0.0-\x1b[31m",
    ],
)  # fmt: skip
def test_refuses_what_is_no_version(text: str) -> None:
    with pytest.raises(MalformedVersion) as caught:
        Version.parse(text)
    assert caught.value.message.isprintable()
    assert stated(text) is None


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("1.0.0", ["1.0.0", "1.0.0+build"], ["1.0.0-rc", "1.0.1"]),
        ("=1.0.0", ["1.0.0"], ["1.0.1"]),
        ("== 1.0.0", ["1.0.0"], ["1.0.1"]),
        ("v0.1.0", ["0.1.0"], ["0.1.1"]),
        ("!=1.0.0", ["1.0.0-rc", "1.0.1"], ["1.0.0", "1.0.0+5"]),
        ("!1.0.0", ["1.0.1"], ["1.0.0"]),
        (">=1.0.0 <2.0.0", ["1.0.0", "1.9.9", "2.0.0-rc"], ["1.0.0-rc", "2.0.0"]),
        (">=1.0.0,<2.0.0", ["1.0.0", "1.9.9"], ["2.0.0"]),
        (">= 1.0.0 , < 2.0.0", ["1.0.0", "1.9.9"], ["2.0.0"]),
        (">1.0.0 <=2.0.0", ["1.0.1", "2.0.0"], ["1.0.0", "2.0.1"]),
        ("<1.0.0 || >=2.0.0", ["0.9.0", "2.0.0"], ["1.0.0"]),
        (">=2.6.4-6 <=2.8.1-1", ["2.6.4-6", "2.6.4", "2.8.1-1"], ["2.6.4-5", "2.8.1-2", "2.8.1"]),
        ("4.3.33-202008111029.p0", ["4.3.33-202008111029.p0"], ["4.3.33", "4.3.33-2020.p0"]),
        ("1.0.0+5", ["1.0.0+5"], ["1.0.0", "1.0.0+6"]),
        (">=1.0.0+5", ["1.0.0", "1.0.0+4", "1.0.1"], ["1.0.0-rc"]),
    ],
)
def test_knows_what_is_in_a_range(text: str, inside: list[str], outside: list[str]) -> None:
    wanted = VersionRange.parse(text)
    assert [v for v in inside if Version.parse(v) not in wanted] == []
    assert [v for v in outside if Version.parse(v) in wanted] == []


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("1.x", ["1.0.0", "1.9.9", "2.0.0-rc"], ["0.9.9", "1.0.0-rc", "2.0.0"]),
        ("1.2.x", ["1.2.0", "1.2.9"], ["1.1.9", "1.3.0"]),
        (">1.2.x", ["1.3.0"], ["1.2.9"]),
        ("<=1.2.x", ["1.2.9", "0.1.0"], ["1.3.0"]),
        ("!=1.2.x", ["1.1.9", "1.3.0"], ["1.2.0", "1.2.9"]),
        ("4.3", ["4.3.0-1", "4.3.0", "4.3.33-2020.p0"], ["4.2.9", "4.4.0-1", "4.4.0"]),
        (">=4.3,<4.4", ["4.3.0-1", "4.3.33"], ["4.2.99", "4.4.0-202006290400.p0", "4.4.0"]),
        (">4.3", ["4.4.0-1", "5.0.0"], ["4.3.99"]),
        ("<=4", ["4.99.0", "3.0.0"], ["5.0.0-1"]),
    ],
)
def test_a_version_cut_short_stands_for_all_that_begin_so(
    text: str, inside: list[str], outside: list[str]
) -> None:
    wanted = VersionRange.parse(text)
    assert [v for v in inside if Version.parse(v) not in wanted] == []
    assert [v for v in outside if Version.parse(v) in wanted] == []


@pytest.mark.parametrize(
    "text",
    [
        "", " ", ",", "||", "1.0.0 ||", "latest", ">=", ">= <2.0.0", "=>1.0.0", "~1.0.0", "^1.0",
        ">=1.0.0 and", "x", "*", "1.2.3.4", ">=01.0.0", "1.0.0|2.0.0", "1 " * 1000, "1.0.0\x1b",
    ],
)  # fmt: skip
def test_refuses_what_is_no_range(text: str) -> None:
    with pytest.raises(MalformedVersion) as caught:
        VersionRange.parse(text)
    assert caught.value.message.isprintable()


@given(versions, versions)
def test_comparisons_agree_with_the_order(one: Version, other: Version) -> None:
    below, above = one.precedence < other.precedence, one.precedence > other.precedence
    assert (one in VersionRange.parse(f"<{other}")) == below
    assert (one in VersionRange.parse(f">{other}")) == above
    assert (one in VersionRange.parse(f"<={other}")) == (not above)
    assert (one in VersionRange.parse(f">={other}")) == (not below)
    assert (one in VersionRange.parse(f"!={other}")) == (below or above)


def test_bounds_are_in_the_range_between_them() -> None:
    both = VersionRange.between("1.0.0", "2.0.0")
    assert [Version.parse(v) in both for v in ("0.9.9", "1.0.0", "2.0.0", "2.0.1")] == [
        False,
        True,
        True,
        False,
    ]
    assert Version.parse("9.0.0") in VersionRange.between("1.0.0", "")
    assert Version.parse("0.0.1") in VersionRange.between("", "1.0.0")
    with pytest.raises(MalformedVersion):
        VersionRange.between("", "")
