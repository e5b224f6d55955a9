"""The bytes inside a compressed layer, in bounded pieces.

Knows gzip (RFC 1952) and zstd (RFC 8878), tells them by their magic numbers, never by what a
media type claims, and passes everything else as it is. What is cut, damaged or followed by
junk is refused, and so is what grows beyond all reason. Knows nothing of what the bytes mean.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

import zstandard

from airgap import limits
from airgap.errors import MalformedContent, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_MAGIC_LENGTH = 4
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = b"\x2a\x4d\x18"
"""The last three bytes of a skippable frame's magic number; the first is 0x50 to 0x5f."""

_ZSTD_WINDOW = 128 * limits.MIB
"""What ``zstd -d`` reads when nobody allows it more."""

_UNSUSPICIOUS = 64 * limits.MIB
"""The ratio is judged beyond this only: zstd packs a few honest megabytes of zeros into nothing."""


class _Decoder(Protocol):
    """One member or frame being read, as zlib and zstandard offer it."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class _Format:
    """A way to compress; ``step`` keeps what one call returns below some 32 MiB.

    Neither decoder can be told how much to return. But 1 KiB is at most 256 of the smallest
    zstd blocks, of 128 KiB each, and deflate makes at most 1032 bytes out of one.
    """

    name: str
    decoder: Callable[[], _Decoder]
    step: int


_FORMAT_GZIP = _Format("gzip", lambda: zlib.decompressobj(zlib.MAX_WBITS | 16), 16 * limits.KIB)
_FORMAT_ZSTD = _Format(
    "zstd",
    lambda: zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj(),
    limits.KIB,
)


def decompressed(raw: BinaryIO, what: str) -> Iterator[bytes]:
    """Give the content of ``raw``, which is compressed or not; ``what`` names it in errors.

    Raises MalformedContent for a member or frame that is damaged or cut, for bytes that follow
    and begin no other, and beyond the limits on size and ratio.
    """
    head = raw.read(_MAGIC_LENGTH)
    form = _format(head)
    pieces = _members(head, raw, form, what) if form else _pieces(head, raw, limits.CHUNK)
    total = 0
    for piece in pieces:
        total += len(piece)
        if total > limits.CATALOG_LAYER:
            raise MalformedContent(f"{what}: more than {limits.CATALOG_LAYER} bytes inside")
        yield piece


def _format(head: bytes) -> _Format | None:
    if head.startswith(_GZIP):
        return _FORMAT_GZIP
    if head == _ZSTD or (head[1:] == _ZSTD_SKIPPABLE and head[0] & 0xF0 == 0x50):
        return _FORMAT_ZSTD
    return None


def _pieces(head: bytes, raw: BinaryIO, step: int) -> Iterator[bytes]:
    if head:
        yield head
    while piece := raw.read(step):
        yield piece


def _members(head: bytes, raw: BinaryIO, form: _Format, what: str) -> Iterator[bytes]:
    """Decode one member or frame after the other, until the input ends with the last one."""
    taken = given = 0
    decoder = form.decoder()
    for piece in _pieces(head, raw, form.step):
        taken += len(piece)
        left = piece
        while left:
            if decoder.eof:
                decoder = form.decoder()
            content, left = _decode(decoder, left, f"{what}: at byte {taken} of the {form.name}")
            given += len(content)
            if given > max(_UNSUSPICIOUS, taken * limits.DECOMPRESSION_RATIO):
                raise MalformedContent(f"{what}: {taken} bytes of {form.name} became {given}")
            yield content
    if not decoder.eof:
        raise MalformedContent(f"{what}: the {form.name} data is cut after {taken} bytes")


def _decode(decoder: _Decoder, data: bytes, where: str) -> tuple[bytes, bytes]:
    try:
        return decoder.decompress(data), decoder.unused_data
    except (zlib.error, zstandard.ZstdError) as error:
        raise MalformedContent(f"{where} data: {printable(str(error))}") from error
