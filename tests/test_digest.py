from __future__ import annotations

import hashlib
from itertools import repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airgap.digest import Check, Digest, Hasher, digest_of, verified
from airgap.errors import IntegrityError, MalformedDigest

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
CONTENT = b"one two three"
PIECES = [b"one ", b"two ", b"three"]


@pytest.mark.parametrize("text", [f"sha256:{EMPTY}", f"sha512:{EMPTY}{EMPTY}"])
def test_prints_what_it_read(text: str) -> None:
    assert str(Digest.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        EMPTY,
        "sha256:",
        "sha256:abc",
        f"sha256:{EMPTY}0",
        f"sha256:{EMPTY.upper()}",
        f"SHA256:{EMPTY}",
        f"sha256:{EMPTY[:-1]}g",
        f"sha256:{EMPTY[:-1]}٣",
        f"sha256:{EMPTY}\n",
        f" sha256:{EMPTY}",
        f"sha256:sha256:{EMPTY}",
        f"sha512:{EMPTY}",
        f"sha256:{EMPTY}{EMPTY}",
        "md5:d41d8cd98f00b204e9800998ecf8427e",
        "sha256:../../../../etc/passwd",
    ],
)
def test_refuses_what_is_no_digest(text: str) -> None:
    with pytest.raises(MalformedDigest):
        Digest.parse(text)


def test_a_refused_text_is_shown_without_its_escapes() -> None:
    with pytest.raises(MalformedDigest) as refusal:
        Digest.parse("\x1b[2J")
    assert "\x1b" not in refusal.value.message


def test_hashes_content() -> None:
    assert str(digest_of(b"")) == f"sha256:{EMPTY}"


@given(st.lists(st.binary(max_size=8)))
def test_hashing_in_pieces_is_hashing_the_whole(pieces: list[bytes]) -> None:
    hasher = Hasher()
    for piece in pieces:
        hasher.update(piece)
    assert hasher.digest() == digest_of(b"".join(pieces))


@given(st.lists(st.binary(max_size=8)))
def test_passes_on_what_was_promised(pieces: list[bytes]) -> None:
    content = b"".join(pieces)
    passed = list(verified(pieces, digest_of(content), len(content)))
    assert passed == [piece for piece in pieces if piece]


def test_checks_sha512_as_well() -> None:
    digest = Digest("sha512", hashlib.sha512(CONTENT).hexdigest())
    assert b"".join(verified(PIECES, digest, len(CONTENT))) == CONTENT


@pytest.mark.parametrize(
    ("size", "why"),
    [
        (len(CONTENT) - 1, "more than the promised 12 bytes"),
        (len(CONTENT) + 1, "13 bytes of 14"),
        (len(CONTENT), f"the content's digest is {digest_of(CONTENT)}"),
    ],
)
def test_holds_the_last_piece_of_damaged_content_back(size: int, why: str) -> None:
    promised = digest_of(CONTENT if size != len(CONTENT) else b"something else")
    passed: list[bytes | bytearray | memoryview] = []
    with pytest.raises(IntegrityError) as refusal:
        passed.extend(verified(PIECES, promised, size))
    assert passed == PIECES[: len(passed)]
    assert len(passed) < len(PIECES)
    assert refusal.value.message.startswith(f"{promised}: ")
    assert why in refusal.value.message


def test_stops_reading_at_the_first_byte_too_many() -> None:
    with pytest.raises(IntegrityError, match="more than the promised 25 bytes"):
        list(verified(repeat(b"x" * 10), digest_of(b"x" * 25), 25))


@given(st.binary(min_size=1, max_size=64), st.data())
def test_any_flipped_byte_is_found(content: bytes, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(content) - 1))
    flip = data.draw(st.integers(1, 255))
    damaged = bytearray(content)
    damaged[position] ^= flip
    check = Check(digest_of(content), len(content))
    check.update(damaged)
    with pytest.raises(IntegrityError):
        check.finish()
