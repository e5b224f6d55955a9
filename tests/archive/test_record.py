"""The record of a volume: one size whatever it says, and nothing believed that is none."""

from __future__ import annotations

import json

import pytest

from airgap import limits
from airgap.archive import tar
from airgap.archive.record import (
    MOST_VOLUMES,
    RECORD_SIZE,
    PieceRecord,
    Record,
    number_in,
    parse,
    record_name,
)
from airgap.digest import digest_of

DIGEST = digest_of(b"x")
LARGEST = PieceRecord(DIGEST, limits.BLOB, limits.BLOB, DIGEST)


@pytest.mark.parametrize("pieces", [None, (), (LARGEST,), (LARGEST, LARGEST)])
def test_a_record_has_one_size_and_says_what_was_put_in(
    pieces: tuple[PieceRecord, ...] | None,
) -> None:
    record = Record(DIGEST, MOST_VOLUMES, MOST_VOLUMES, limits.CONTENT, pieces)
    text = record.text()
    assert len(text) == RECORD_SIZE
    assert text.endswith(b"\n")
    assert ("pieces" in json.loads(text)) is (pieces is not None)
    assert parse(text) == record


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b"\xff" * 1024, b"{" * 1024, b'{"volume":1}'])
def test_anything_else_is_no_record(text: bytes) -> None:
    assert parse(text) is None


@pytest.mark.parametrize("number", [1, 42, 999, 1000, MOST_VOLUMES])
def test_the_number_stands_in_the_name_as_long_as_the_header_is_sound(number: int) -> None:
    header = tar.header(record_name(number), RECORD_SIZE)
    assert number_in(header) == number
    for offset in (7, 10, 130, 150, 511):
        damaged = bytearray(header)
        damaged[offset] ^= 1
        assert number_in(bytes(damaged)) is None
    assert number_in(tar.header("index.json", 5)) is None
