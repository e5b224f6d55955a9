"""The members of a tar archive that is read once, from its first byte to its last.

Follows POSIX ustar and pax, and GNU's long names and base-256 sizes, as Go's ``archive/tar``
reads them, since that is what container tools read layers with. Much stricter than Python's
``tarfile``, which takes damage behind the first header for the end: here an archive ends with
two blocks of zeros and nothing else behind them, or it is refused. So is what two readers
understand differently. Knows nothing of layers, and writes nothing anywhere.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airgap import limits
from airgap.errors import MalformedContent, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_BLOCK = 512
_ZEROS = bytes(_BLOCK)

_EXTENSION = limits.MIB
"""How large a header that only extends the next one may be."""

_OCTAL = re.compile(rb"[0-7]*")
_DECIMAL = re.compile(rb"[0-9]{1,19}")
_PAX_RECORD = re.compile(rb"([1-9][0-9]{0,6}) ([^=\0]+)=")

_PAX_GLOBAL = b"g"
_PAX = b"x"
_GNU_LONG_NAME = b"L"
_GNU_LONG_LINK = b"K"
_GNU_SPARSE = b"S"
_OLD_FILE = b"\0"
_EXTENDING = frozenset({_PAX, _GNU_LONG_NAME, _GNU_LONG_LINK})

_SPARSE = "a sparse file, which layers do not hold"

_Records = dict[bytes, bytes]
"""What extended headers say about one member: its path, linkpath and size."""


class Kind(enum.Enum):
    """What a member is, as far as a reader of files cares."""

    FILE = enum.auto()
    DIRECTORY = enum.auto()
    SYMLINK = enum.auto()
    HARD_LINK = enum.auto()
    OTHER = enum.auto()


_KINDS = {
    b"0": Kind.FILE,
    _OLD_FILE: Kind.FILE,
    b"7": Kind.FILE,
    b"1": Kind.HARD_LINK,
    b"2": Kind.SYMLINK,
    b"5": Kind.DIRECTORY,
}
_WITHOUT_CONTENT = frozenset({b"1", b"2", b"3", b"4", b"5", b"6"})
"""Types behind whose header nothing follows, whatever size it states (so does Go)."""

_OVERRIDES = frozenset({b"path", b"linkpath", b"size"})
"""The pax keywords that matter here."""


@dataclass(frozen=True, slots=True)
class Member:
    """One member; ``content`` can be read until the next member is asked for.

    ``name`` and ``link`` stand as they are in the archive, bytes that are no UTF-8 as
    surrogates. ``size`` is that of the content, in bytes.
    """

    name: str
    kind: Kind
    size: int
    link: str
    content: Iterator[bytes]


@dataclass(frozen=True, slots=True)
class _Header:
    """The fields of one header block that matter."""

    name: bytes
    type: bytes
    size: int
    link: bytes


def members(pieces: Iterable[bytes], what: str) -> Iterator[Member]:
    """Give every member of the archive; ``what`` names it in errors.

    Raises MalformedContent when the archive is damaged, cut or ambiguous; only an iteration
    that came to its end has seen a whole archive.
    """
    stream = _Stream(pieces, what)
    extensions: dict[bytes, _Records] = {}
    while (header := _next_header(stream)) is not None:
        if header.type == _PAX_GLOBAL:
            _refuse_global_overrides(_extension(stream, header), stream)
        elif header.type not in _EXTENDING:
            yield from _member(stream, header, _merged(extensions, stream))
            extensions = {}
        elif header.type in extensions:
            raise stream.malformed("one member with two extended headers of a kind")
        else:
            extensions[header.type] = _extension(stream, header)
    if extensions:
        raise stream.malformed("an extended header with no member behind it")
    stream.expect_nothing_more()


class _Stream:
    """The archive's bytes in counted amounts, and how many of them have gone by."""

    def __init__(self, pieces: Iterable[bytes], what: str) -> None:
        self._pieces = iter(pieces)
        self._piece = b""
        self._at = 0
        self._what = what
        self.offset = 0

    def malformed(self, why: str) -> MalformedContent:
        return MalformedContent(f"{self._what}: at byte {self.offset} of the tar archive: {why}")

    def some(self, most: int) -> bytes:
        """Return between 1 and ``most`` bytes, none only at the end."""
        while self._at == len(self._piece):
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._piece, self._at = piece, 0
        taken = self._piece[self._at : self._at + most]
        self._at += len(taken)
        self.offset += len(taken)
        return taken

    def until(self, end: int) -> Iterator[bytes]:
        """Give the bytes that come before the offset ``end``."""
        while self.offset < end:
            piece = self.some(end - self.offset)
            if not piece:
                raise self.malformed("the archive is cut")
            yield piece

    def exactly(self, count: int) -> bytes:
        return b"".join(self.until(self.offset + count))

    def skip_to(self, end: int) -> None:
        for _ in self.until(end):
            pass

    def expect_nothing_more(self) -> None:
        while piece := self.some(limits.CHUNK):
            if piece.strip(b"\0"):
                raise self.malformed("something follows the end of the archive")


def _next_header(stream: _Stream) -> _Header | None:
    """Return the next header, None behind the two blocks of zeros that end an archive."""
    block = stream.exactly(_BLOCK)
    if block == _ZEROS:
        if stream.exactly(_BLOCK) != _ZEROS:
            raise stream.malformed("a single block of zeros in the middle")
        return None
    if not _sums_up(block):
        if stream.offset == _BLOCK:
            raise stream.malformed("not a tar archive, nor one compressed with gzip or zstd")
        raise stream.malformed("a header's checksum is wrong")
    name, kind = _text(block[:100]), block[156:157]
    if block[257:263] == b"ustar\0" and (prefix := _text(block[345:500])):
        name = prefix + b"/" + name
    return _Header(name, kind, _number(block[124:136], stream), _text(block[157:257]))


def _sums_up(block: bytes) -> bool:
    """Check a header's sum of bytes; old writers summed them up as signed ones."""
    field = block[148:156].strip(b" \0")
    if _OCTAL.fullmatch(field) is None:
        return False
    stated = int(field or b"0", 8)
    others = block[:148] + b" " * 8 + block[156:]
    unsigned = sum(others)
    return stated == unsigned or stated == unsigned - 256 * sum(byte > 127 for byte in others)


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes, stream: _Stream) -> int:
    """Read a size: octal digits, or base-256 when the first bit is set."""
    if field[0] & 0x80:
        if field[0] & 0x40:
            raise stream.malformed("a negative size")
        value = int.from_bytes(bytes([field[0] & 0x3F]) + field[1:], "big")
    else:
        digits = field.strip(b" \0")
        if _OCTAL.fullmatch(digits) is None:
            raise stream.malformed(f"{printable(repr(field))} is no size")
        value = int(digits or b"0", 8)
    return _bounded(value, stream)


def _bounded(size: int, stream: _Stream) -> int:
    if size > limits.CATALOG_LAYER:
        raise stream.malformed(f"a member of {size} bytes, more than a layer may hold")
    return size


def _extension(stream: _Stream, header: _Header) -> _Records:
    """Read a header that says more about the next one."""
    if header.size > _EXTENSION:
        raise stream.malformed(f"an extended header of {header.size} bytes")
    body = stream.exactly(header.size)
    stream.skip_to(stream.offset + -header.size % _BLOCK)
    if header.type == _GNU_LONG_NAME:
        return {b"path": _text(body)}
    if header.type == _GNU_LONG_LINK:
        return {b"linkpath": _text(body)}
    return _pax_records(body, stream)


def _pax_records(body: bytes, stream: _Stream) -> _Records:
    """Read the records that matter here; an empty value takes nothing away, as in Go."""
    records: _Records = {}
    at = 0
    while at < len(body):
        match = _PAX_RECORD.match(body, at)
        end = at + int(match[1]) if match else 0
        if match is None or body[end - 1 : end] != b"\n" or match.end() >= end:
            raise stream.malformed("a damaged pax header")
        key, value = match[2], body[match.end() : end - 1]
        if key.startswith(b"GNU.sparse."):
            raise stream.malformed(_SPARSE)
        if key in _OVERRIDES and value:
            if key in records or b"\0" in value:
                raise stream.malformed(f"an ambiguous {key.decode()} in a pax header")
            records[key] = value
        at = end
    return records


def _refuse_global_overrides(records: _Records, stream: _Stream) -> None:
    """Refuse a global header that renames: Python applies it to what follows, Go does not."""
    if records:
        raise stream.malformed("a pax header that gives all members one name or size")


def _merged(extensions: dict[bytes, _Records], stream: _Stream) -> _Records:
    """Join what several headers say of one member; readers differ in which of two wins."""
    merged: _Records = {}
    for records in extensions.values():
        if merged.keys() & records.keys():
            raise stream.malformed("one member with two long names")
        merged |= records
    return merged


def _member(stream: _Stream, header: _Header, overrides: _Records) -> Iterator[Member]:
    """Give the one member behind a header, then pass over what of it was not read."""
    if header.type == _GNU_SPARSE:
        raise stream.malformed(_SPARSE)
    name = overrides.get(b"path", header.name)
    link = overrides.get(b"linkpath", header.link)
    if max(len(name), len(link)) > limits.ENTRY_NAME:
        raise stream.malformed(f"a name of more than {limits.ENTRY_NAME} bytes")
    size = _content_size(header, overrides, stream)
    end = stream.offset + size
    yield Member(_decoded(name), _kind(header.type, name), size, _decoded(link), stream.until(end))
    stream.skip_to(end + -size % _BLOCK)


def _content_size(header: _Header, overrides: _Records, stream: _Stream) -> int:
    if header.type in _WITHOUT_CONTENT:
        return 0
    if (text := overrides.get(b"size")) is None:
        return header.size
    if _DECIMAL.fullmatch(text) is None:
        raise stream.malformed(f"{printable(repr(text))} is no size")
    return _bounded(int(text), stream)


def _kind(type_: bytes, name: bytes) -> Kind:
    """Tell a member's kind; before ustar, a directory was a file with a slash at its end."""
    if type_ == _OLD_FILE and name.endswith(b"/"):
        return Kind.DIRECTORY
    return _KINDS.get(type_, Kind.OTHER)


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
