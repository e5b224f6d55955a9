from __future__ import annotations

import gzip
import io
import os
import struct
import zlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from airgap import limits
from airgap.errors import MalformedContent
from airgap.oci.decompress import decompressed

CONTENT = b"".join(struct.pack(">I", number) for number in range(50_000))
SKIPPABLE = struct.pack("<II", 0x184D2A53, 5) + b"notes"


def zstd(content: bytes, *, write_checksum: bool = False) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=write_checksum).compress(content)


def read(raw: bytes) -> bytes:
    return b"".join(decompressed(io.BytesIO(raw), "layer"))


@pytest.mark.parametrize(
    "raw",
    [
        CONTENT,
        gzip.compress(CONTENT),
        gzip.compress(CONTENT[:7]) + gzip.compress(CONTENT[7:]),
        gzip.compress(b"") + gzip.compress(CONTENT),
        zstd(CONTENT),
        zstd(CONTENT, write_checksum=True),
        zstd(CONTENT[:7]) + zstd(b"") + zstd(CONTENT[7:]),
        SKIPPABLE + zstd(CONTENT),
        zstd(CONTENT) + SKIPPABLE,
    ],
    ids=[
        "plain",
        "gzip",
        "gzip-members",
        "gzip-empty-member-first",
        "zstd",
        "zstd-checksum",
        "zstd-frames",
        "zstd-skippable-first",
        "zstd-skippable-last",
    ],
)
def test_gives_what_was_compressed(raw: bytes) -> None:
    assert read(raw) == CONTENT


def test_reads_a_gzip_header_with_every_field() -> None:
    deflated = zlib.compress(b"content", wbits=-15)
    flags = 0x02 | 0x04 | 0x08 | 0x10
    header = b"\x1f\x8b\x08" + bytes([flags]) + bytes(6) + b"\x03\x00abc" + b"name\0" + b"note\0"
    header += struct.pack("<H", zlib.crc32(header) & 0xFFFF)
    assert read(header + deflated + struct.pack("<II", zlib.crc32(b"content"), 7)) == b"content"


@given(st.binary(max_size=5_000), st.integers(1, 5_000))
def test_both_formats_give_back_any_content(content: bytes, cut: int) -> None:
    assert read(gzip.compress(content[:cut]) + gzip.compress(content[cut:])) == content
    assert read(zstd(content[:cut]) + zstd(content[cut:])) == content


@pytest.mark.parametrize("whole", [gzip.compress(CONTENT), zstd(CONTENT)], ids=["gzip", "zstd"])
@pytest.mark.parametrize("missing", [1, 8, 500])
def test_refuses_what_is_cut(whole: bytes, missing: int) -> None:
    with pytest.raises(MalformedContent, match=r"layer: .*is cut after"):
        read(whole[:-missing])


def test_refuses_every_cut_of_a_small_frame() -> None:
    for whole in (gzip.compress(b"abc" * 50), zstd(b"abc" * 50)):
        for length in range(4, len(whole)):
            with pytest.raises(MalformedContent):
                read(whole[:length])


@pytest.mark.parametrize("junk", [b"junk", bytes(512), b"\x1f", b"\x28\xb5\x2f"])
@pytest.mark.parametrize("whole", [gzip.compress(CONTENT), zstd(CONTENT)], ids=["gzip", "zstd"])
def test_refuses_what_follows_the_end(whole: bytes, junk: bytes) -> None:
    with pytest.raises(MalformedContent):
        read(whole + junk)


def test_refuses_a_wrong_checksum() -> None:
    for whole, place in ((gzip.compress(CONTENT), -6), (zstd(CONTENT, write_checksum=True), -2)):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        with pytest.raises(MalformedContent):
            read(bytes(damaged))


def test_refuses_a_window_that_would_fill_the_memory() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=30, compression_level=1)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    with pytest.raises(MalformedContent, match="memory"):
        read(compressor.compress(CONTENT) + compressor.flush())


def test_accepts_a_few_megabytes_of_zeros() -> None:
    assert len(read(zstd(bytes(16 * limits.MIB)))) == 16 * limits.MIB


def test_refuses_a_bomb_long_before_its_end() -> None:
    bomb = zstd(bytes(200 * limits.MIB))
    given = 0
    with pytest.raises(MalformedContent, match=r"layer: \d+ bytes of zstd became \d+"):
        for piece in decompressed(io.BytesIO(bomb), "layer"):
            given += len(piece)
    assert given <= 64 * limits.MIB


def test_refuses_more_than_a_layer_may_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CATALOG_LAYER", 1000)
    assert read(gzip.compress(os.urandom(1000)))
    with pytest.raises(MalformedContent, match="more than 1000 bytes inside"):
        read(gzip.compress(os.urandom(1001)))


def test_no_piece_is_large() -> None:
    for raw in (gzip.compress(bytes(60 * limits.MIB)), zstd(bytes(60 * limits.MIB))):
        largest = max(map(len, decompressed(io.BytesIO(raw), "layer")))
        assert largest <= 33 * limits.MIB
