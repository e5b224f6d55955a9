from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from airgap import limits
from airgap.catalog import strict_yaml
from airgap.catalog.strict_yaml import MalformedYaml

_TEXTS = st.text(max_size=8).filter(lambda text: text not in {*"yYnN"})
"""PyYAML writes these four without quotes, and Go takes them for booleans."""

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | _TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXTS, inner, max_size=4),
    max_leaves=12,
)


def load(text: str) -> Any:
    (loaded,) = strict_yaml.documents(text.encode())
    return loaded.value


def refused(text: str | bytes) -> MalformedYaml:
    raw = text.encode() if isinstance(text, str) else text
    with pytest.raises(MalformedYaml) as caught:
        list(strict_yaml.documents(raw))
    assert caught.value.message.isprintable()
    return caught.value


@given(_VALUES)
def test_reads_what_was_written(value: Any) -> None:
    text = yaml.safe_dump(value, default_style='"') if isinstance(value, str) else None
    raw = text or yaml.dump(value, Dumper=yaml.CSafeDumper, allow_unicode=True)
    if any(word in raw for word in ("!!", "\x85", "\u2028")):
        return
    assert load(raw) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", False),
        ("On", True),
        ("y", True),
        ("~", None),
        ("", None),
        ("NULL", None),
        ("1:30", "1:30"),
        ("2020-01-01", "2020-01-01"),
        ("010", 8),
        ("0o10", 8),
        ("0x1F", 31),
        ("0b11", 3),
        ("-1_000", -1000),
        ("1.10", 1.1),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("1e999", "1e999"),
        ("4.6.1", "4.6.1"),
        ("+", "+"),
        (".inf", ".inf"),
        ("9" * 5000, "9" * 5000),
        ("18446744073709551615", 2**64 - 1),
        ("'no'", "no"),
        ("!!str no", "no"),
        ("! 12", "12"),
        ("!!int 12", 12),
    ],
)
def test_scalars_are_what_go_makes_of_them(text: str, value: object) -> None:
    assert load(f"a: {text}\n") == {"a": value}


def test_keys_are_text() -> None:
    assert load("8080: a\ntrue: b\n~: c\n") == {"8080": "a", "true": "b", "~": "c"}


def test_aliases_and_merge_keys_are_followed() -> None:
    text = "x: &x {a: 1, b: 2}\ny:\n  <<: *x\n  b: 3\nz: {<<: [*x, {c: 4}]}\nw: *x\n"
    assert load(text) == {
        "x": {"a": 1, "b": 2},
        "y": {"a": 1, "b": 3},
        "z": {"a": 1, "b": 2, "c": 4},
        "w": {"a": 1, "b": 2},
    }


def test_of_keys_that_stand_twice_the_last_one_counts_and_is_said() -> None:
    (loaded,) = strict_yaml.documents(b"a: 1\nb:\n  c: 1\n  c: 2\na: 3\n")
    assert loaded.value == {"a": 3, "b": {"c": 2}}
    assert loaded.repeated == (("c", 4), ("a", 5))


def test_unusual_characters_are_text() -> None:
    assert load('a: "\u00a0\tx\u0085b"\nb: x\u00a0y\n') == {"a": "\u00a0\tx b", "b": "x\u00a0y"}


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.system [x]",
        "!!python/name:os.system x",
        "!!binary eA==",
        "!!set {a}",
        "!mine x",
        "!<tag:example.com,2000:x> {}",
    ],
)
def test_refuses_tags_that_json_has_no_type_for(tag: str) -> None:
    error = refused(f"a: 1\nb: {tag}\n")
    assert "not one of JSON's types" in error.message
    assert error.line == 2


def test_refuses_an_alias_bomb_before_it_goes_off() -> None:
    levels = ["a: &a [x,x,x,x,x,x,x,x,x,x]"]
    for name, below in zip("bcdefghij", "abcdefghi", strict=True):
        levels.append(f"{name}: &{name} [{','.join([f'*{below}'] * 10)}]")
    error = refused("\n".join(levels))
    assert "values, aliases followed" in error.message


def test_refuses_a_merge_bomb() -> None:
    many = ", ".join(f"k{number}: x" for number in range(1000))
    merges = "\n".join(f"m{number}: {{<<: *a}}" for number in range(1100))
    assert "aliases followed" in refused(f"a: &a {{{many}}}\n{merges}\n").message


def test_a_quoted_merge_key_is_a_key_like_any_other() -> None:
    assert load("'<<': text\nb: {\"<<\": {c: 1}}\n!!str <<: {d: 1}\n") == {
        "<<": {"d": 1},
        "b": {"<<": {"c": 1}},
    }


def test_refuses_more_text_than_a_document_may_have_once_aliases_are_followed() -> None:
    text = "x" * (limits.CATALOG_DOCUMENT // 100)
    assert load(f"a: &a {text}\nb: [{'*a,' * 98}]\n")
    for anchored in (text, f"[{text}]", f"{{{text[:1000]}: {text}}}"):
        error = refused(f"a: &a {anchored}\nb:\n- [{'*a,' * 100}]\n")
        assert "characters, aliases followed" in error.message
        assert error.line == 3


def test_refuses_nesting_that_aliases_make() -> None:
    levels = ["l0: &l0 [[[[[x]]]]]"]
    levels += [f"l{n}: &l{n} {{a: [{{b: *l{n - 1}}}]}}" for n in range(1, 100)]
    assert load("\n".join(levels[:65]))
    assert "levels deep" in refused("\n".join(levels)).message


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: *b", "a: &a {b: *a}"])
def test_refuses_an_alias_of_what_is_not_there_yet(text: str) -> None:
    assert "before or in its anchor" in refused(text).message


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_refuses_deep_nesting(opening: str) -> None:
    assert "levels deep" in refused(opening * 300).message


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_refuses_nesting_that_the_parser_itself_may_refuse(opening: str) -> None:
    assert "nest" in refused(opening * 100_000).message


def test_allows_honest_nesting() -> None:
    assert load("[" * 100 + "]" * 100)


def test_refuses_more_values_than_any_honest_document(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CATALOG_VALUES", 10)
    assert "more than 10 values" in refused("[1,2,3,4,5,6,7,8,9,10]").message


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (b"a: 1\nb: [\n", 3),
        (b"a: 1\n b: 2\n", 2),
        (b"a: 1\n\tb: 2\n", 2),
        (b"a: \x00\n", 1),
        (b"a: 1\nb: \xff\n", 2),
        (b"a: 1\nb: \x1b[2J\n", 2),
        (b"a: 'x\n", 2),
        (b"{a: 1}}\n", 1),
        (b"[]: 1\n", 1),
        (b"? {a: 1}\n: 2\n", 1),
        (b"a: {<<: 1}\n", 1),
    ],
)
def test_says_in_which_line_the_fault_is(raw: bytes, line: int) -> None:
    assert abs(refused(raw).line - line) <= 1
