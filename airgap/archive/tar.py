"""Headers of plain ustar entries, and nothing else of tar.

An archive is read by its layout, not by walking headers, so a header is only ever made and
compared. Follows POSIX.1-2017 (pax, "ustar Interchange Format"); sizes from 8 GiB are written
in base-256, which GNU tar, bsdtar, Python and Go read and which keeps a header one block.
"""

from __future__ import annotations

BLOCK = 512
END = bytes(2 * BLOCK)
"""Two zero blocks end a tar."""

_OCTAL_LIMIT = 8**11


def header(name: str, size: int) -> bytes:
    """Return the block before a regular file of ``size`` bytes: mode 0644, root's, no time."""
    encoded = name.encode("ascii")
    if len(encoded) > 100:
        raise ValueError(f"{name} does not fit a header")
    block = b"".join(
        (
            encoded.ljust(100, b"\0"),
            b"0000644\0" + b"0000000\0" * 2,
            _size_field(size),
            b"00000000000\0",
            b" " * 8,
            b"0" + bytes(100),
            b"ustar\0" + b"00" + bytes(64),
            b"0000000\0" * 2,
            bytes(167),
        )
    )
    checksum = b"%06o\0 " % sum(block)
    return block[:148] + checksum + block[156:]


def size_in(block: bytes) -> int:
    """Return the size a header states; -1 for a block that states none."""
    field = block[124:136]
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    try:
        return int(field.rstrip(b"\0 "), 8)
    except ValueError:
        return -1


def padded(size: int) -> int:
    """Return the bytes that content of this size takes up, filled up to whole blocks."""
    return -(-size // BLOCK) * BLOCK


def _size_field(size: int) -> bytes:
    if size < _OCTAL_LIMIT:
        return b"%011o\0" % size
    return b"\x80" + size.to_bytes(11, "big")
