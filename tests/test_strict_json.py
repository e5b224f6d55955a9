from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airgap.errors import MalformedContent
from airgap.strict_json import parse, parse_object, refuse_disguised_keys

_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
)


@given(_VALUES, st.booleans())
def test_reads_whatever_is_json(value: Any, ascii_only: bool) -> None:
    assert parse(json.dumps(value, ensure_ascii=ascii_only).encode(), "doc") == value


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"{} {}", "not valid JSON"),
        (b"{}x", "not valid JSON"),
        (b"{'a': 1}", "not valid JSON"),
        (b'{"a": 1,}', "not valid JSON"),
        (b'{"a": 01}', "not valid JSON"),
        (b'"a\nb"', "not valid JSON"),
        (b"[1] // why", "not valid JSON"),
        (b"\xef\xbb\xbf{}", "BOM"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
        (b'"\xff"', "not UTF-8 at byte 1"),
        (b'"\xed\xa0\x80"', "not UTF-8"),
        (b'"\xc0\xaf"', "not UTF-8"),
        (b'{"a": 1, "a": 1}', "the same key twice"),
        (b'[{"b": {"a": 1, "\\u0061": 2}}]', "the same key twice"),
        (b"[NaN]", "NaN is not JSON"),
        (b"[Infinity]", "Infinity is not JSON"),
        (b"[-Infinity]", "-Infinity is not JSON"),
        (b'"\\ud800"', "half a surrogate pair"),
        (b'{"\\udc00": 1}', "half a surrogate pair"),
        (b'"\\udc00\\ud800"', "half a surrogate pair"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"[" + b"9" * 5_000 + b"]", "not valid JSON"),
    ],
)
def test_refuses(raw: bytes, why: str) -> None:
    with pytest.raises(MalformedContent, match=f"^doc: .*{why}"):
        parse(raw, "doc")


def test_accepts_a_whole_surrogate_pair() -> None:
    assert parse(b'"\\ud83d\\ude00"', "doc") == "\U0001f600"


@pytest.mark.parametrize("raw", [b"[]", b"null", b'"{}"', b"1"])
def test_an_object_is_an_object(raw: bytes) -> None:
    assert parse_object(b"{}", "doc") == {}
    with pytest.raises(MalformedContent, match="doc: not a JSON object"):
        parse_object(raw, "doc")


@pytest.mark.parametrize("key", ["Layers", "LAYERS", "layerS", "layer\u017f"])
def test_refuses_a_key_that_another_reader_takes_for_a_known_one(key: str) -> None:
    with pytest.raises(MalformedContent, match="wrong case"):
        refuse_disguised_keys({"layers": [], key: []}, frozenset({"layers"}), "doc")


def test_leaves_known_and_foreign_keys_alone() -> None:
    refuse_disguised_keys({"layers": [], "player": 1}, frozenset({"layers"}), "doc")


def test_errors_show_no_terminal_escapes() -> None:
    with pytest.raises(MalformedContent) as caught:
        refuse_disguised_keys({"\x1b]LAYERS": 1}, frozenset({"\x1b]layers"}), "doc")
    assert "\x1b" not in caught.value.message


@given(st.binary(max_size=200))
def test_never_fails_in_another_way(raw: bytes) -> None:
    try:
        parse(raw, "doc")
    except MalformedContent as error:
        assert error.message.startswith("doc: ")
