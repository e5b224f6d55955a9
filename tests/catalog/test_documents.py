from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airgap import limits
from airgap.catalog.documents import Document, Unreadable, read

if TYPE_CHECKING:
    from collections.abc import Iterator


def pieces(raw: bytes, size: int) -> Iterator[bytes]:
    return (raw[start : start + size] for start in range(0, len(raw), size))


def values(raw: bytes, size: int = 7) -> list[Any]:
    """Values of documents, and "?" for what cannot be read."""
    return [item.value if isinstance(item, Document) else "?" for item in read(pieces(raw, size))]


def places(raw: bytes) -> list[tuple[int, int]]:
    return [(item.number, item.line) for item in read([raw])]


@pytest.mark.parametrize("size", [1, 2, 5, 64])
class TestYaml:
    def test_documents_are_separated_by_lines(self, size: int) -> None:
        raw = b"a: 1\n--- # c\na: 2\n...\na: 3\n---\n---\t\na: |\n  ---\n  x---\n"
        assert values(raw, size) == [{"a": 1}, {"a": 2}, {"a": 3}, None, {"a": "---\nx---\n"}]

    def test_line_ends_may_be_dos(self, size: int) -> None:
        assert values(b"---\r\na: 1\r\n---\r\nb: 2\r\n...\r\n", size) == [{"a": 1}, {"b": 2}]

    def test_nothing_at_all_is_no_document(self, size: int) -> None:
        assert values(b"", size) == []

    @pytest.mark.parametrize("raw", [b"\n", b"# only a comment\n", b"  \n\n"])
    def test_blanks_are_an_empty_document(self, size: int, raw: bytes) -> None:
        assert values(raw, size) == [None]

    def test_a_comment_before_the_first_line_is_a_document_of_its_own(self, size: int) -> None:
        assert values(b"# c\n---\na: 1\n", size) == [None, {"a": 1}]

    def test_a_fault_costs_its_document_alone(self, size: int) -> None:
        raw = b"a: 1\n---\nb: [\n---\nc: !!x 3\n---\nd: 4\n"
        assert values(raw, size) == [{"a": 1}, "?", "?", {"d": 4}]

    def test_content_may_stand_behind_the_dashes(self, size: int) -> None:
        assert values(b"a: 1\n--- {b: 2}\n", size) == [{"a": 1}, {"b": 2}]

    def test_a_document_that_is_too_long_is_passed_over(
        self, size: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(limits, "CATALOG_DOCUMENT", 64)
        raw = b"a: 1\n---\n" + b"# x\n" * 200 + b"---\nb: 2\n---\n" + b"y" * 200
        found = list(read(pieces(raw, size)))
        assert [(item.number, item.line) for item in found] == [(1, 1), (2, 2), (3, 204), (4, 205)]
        assert [isinstance(item, Unreadable) for item in found] == [False, True, False, True]


def test_every_document_knows_its_number_and_line() -> None:
    assert places(b"a: 1\n---\n\n\nb: 2\n---\n- [\n\n---\nd: 4\n")[:2] == [(1, 1), (2, 5)]
    assert places(b'\n{"a":\n1}\n\n {"b":2}{"c":3}') == [(1, 2), (2, 5), (3, 5)]


@pytest.mark.parametrize("size", [1, 3, 64])
class TestJson:
    def test_objects_stand_behind_each_other(self, size: int) -> None:
        assert values(b' {"a":1}{"b":[{}]}\n\n{"c":"}{"}\r\n', size) == [
            {"a": 1},
            {"b": [{}]},
            {"c": "}{"},
        ]

    @pytest.mark.parametrize(
        "tail",
        [
            b"x",
            b"[1]",
            b'{"b":',
            b'{"b": 2',
            b"{b: 2}",
            b'{"b": NaN}',
            b'{"b": "\x01"}',
            b"---\n",
            b"---\nb: 2\n",
            b"\0",
        ],
    )
    def test_no_tail_is_silently_left_out(self, size: int, tail: bytes) -> None:
        assert values(b'{"a":1}\n' + tail, size) == [{"a": 1}, "?"]

    def test_what_is_no_text_costs_its_document_alone(self, size: int) -> None:
        raw = b'{"a":"\xff"}{"b":"\\ud800"}{"c":"\\ud83d\\ude00"}{"d":"\xc3\xa9"}'
        assert values(raw, size) == ["?", "?", {"c": "😀"}, {"d": "é"}]


def test_json_that_is_nested_too_deeply_is_refused() -> None:
    assert values(b'{"a":' * 100_000, 4096) == ["?"]


@pytest.mark.parametrize("inside", [b"[%s]", b'{"a":%s}'])
def test_json_may_be_nested_as_deeply_as_yaml_may_wherever_it_is_read(inside: bytes) -> None:
    deepest = b"1"
    for _ in range(limits.CATALOG_NESTING - 1):
        deepest = inside.replace(b"%s", deepest)
    for depth, held in ((0, deepest), (1, inside.replace(b"%s", deepest))):
        as_json, as_yaml = b'{"x":%s}' % held, b'--- {"x": %s}\n' % held
        readable = [isinstance(next(read([raw])), Document) for raw in (as_json, as_yaml)]
        assert readable == [not depth, not depth]
    assert values(as_json + b'{"b":2}', 4096) == ["?", {"b": 2}]


def test_json_numbers_that_are_too_large_stay_text() -> None:
    digits = "9" * 5000
    raw = f'{{"a": 1e999, "b": -{digits}, "c": [12, -1.5e3, {digits}.5]}}'
    assert values(raw.encode(), 4096) == [
        {"a": "1e999", "b": f"-{digits}", "c": [12, -1500.0, f"{digits}.5"]}
    ]


def test_json_keys_that_stand_twice_are_said() -> None:
    (document,) = read([b'\n{"a":1,"b":{"c":1,"c":2},"a":3}'])
    assert isinstance(document, Document)
    assert document.value == {"a": 3, "b": {"c": 2}}
    assert len(document.oddities) == 2
    assert all("line 2" in oddity for oddity in document.oddities)


def test_json_in_a_list_is_yaml() -> None:
    assert values(b"[1, 2]") == [[1, 2]]


@given(st.lists(st.dictionaries(st.text(max_size=4), st.text(max_size=30))), st.integers(1, 40))
def test_json_is_read_whole_however_it_is_cut(objects: list[Any], size: int) -> None:
    raw = "\n".join(json.dumps(value, ensure_ascii=False) for value in objects).encode()
    assert values(raw, size) == objects


def test_a_json_document_larger_than_the_window_is_read() -> None:
    large = {"data": "x" * (5 * limits.CHUNK)}
    raw = json.dumps(large).encode() + b'{"a":1}'
    assert values(raw, limits.CHUNK) == [large, {"a": 1}]


def test_a_json_document_larger_than_any_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CATALOG_DOCUMENT", limits.CHUNK)
    raw = b'{"a": "' + b"x" * (3 * limits.CHUNK) + b'"}'
    assert values(raw, limits.CHUNK) == ["?"]


def test_a_json_document_of_too_many_values_is_refused_before_they_are_made() -> None:
    raw = b'{"a": [' + b"[]," * (3 * limits.CATALOG_VALUES)
    started = time.process_time()
    assert values(raw, limits.CHUNK) == ["?"]
    assert time.process_time() - started < 5
