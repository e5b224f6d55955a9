"""Digests, and the only place in the program where content is hashed.

Follows the digest grammar of the OCI image specification (descriptor.md), narrowed to its
two registered algorithms. A ``Digest`` that exists is well-formed. This module knows nothing
of what the bytes mean or where they come from.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airgap.errors import IntegrityError, MalformedDigest, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    Bytes = bytes | bytearray | memoryview

_HEX_LENGTH = {"sha256": 64, "sha512": 128}
_GRAMMAR = re.compile(r"(sha256|sha512):([0-9a-f]+)", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A content address, ``sha256:<64 hex>`` or ``sha512:<128 hex>``, lower case."""

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read a digest. Raises MalformedDigest."""
        match = _GRAMMAR.fullmatch(text)
        if match is None or len(match[2]) != _HEX_LENGTH[match[1]]:
            raise MalformedDigest(f"not a digest: '{printable(text)}'")
        return cls(match[1], match[2])

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


def digest_of(data: Bytes) -> Digest:
    """Return the sha256 digest of bytes in memory."""
    return Digest("sha256", hashlib.sha256(data).hexdigest())


class Hasher:
    """Makes the sha256 digest of content that passes piece by piece."""

    __slots__ = ("_hasher",)

    def __init__(self) -> None:
        self._hasher = hashlib.sha256()

    def update(self, piece: Bytes) -> None:
        """Take the next piece of the content."""
        self._hasher.update(piece)

    def digest(self) -> Digest:
        """Return the digest of what has passed so far."""
        return Digest("sha256", self._hasher.hexdigest())


class Check:
    """Follows content as it passes and says whether it is what was promised.

    Feed every piece to ``update`` in order, then call ``finish``. Both raise IntegrityError
    with both values; ``update`` as soon as there are more bytes than promised.
    """

    __slots__ = ("_hasher", "digest", "seen", "size")

    def __init__(self, digest: Digest, size: int) -> None:
        self.digest = digest
        self.size = size
        self.seen = 0
        self._hasher = hashlib.new(digest.algorithm)

    def update(self, piece: Bytes) -> None:
        """Take the next piece of the content."""
        self.seen += len(piece)
        if self.seen > self.size:
            raise IntegrityError(f"{self.digest}: more than the promised {self.size} bytes")
        self._hasher.update(piece)

    def finish(self) -> None:
        """Judge the content as a whole."""
        if self.seen < self.size:
            raise IntegrityError(f"{self.digest}: {self.seen} bytes of {self.size}")
        if (got := self._hasher.hexdigest()) != self.digest.hex:
            raise IntegrityError(
                f"{self.digest}: the content's digest is {self.digest.algorithm}:{got}"
            )


def verified(pieces: Iterable[bytes], digest: Digest, size: int) -> Iterator[bytes]:
    """Pass pieces through, the last one only once the whole is what was promised.

    Whoever sends the pieces on therefore never completes damaged content. Empty pieces are
    dropped. Raises IntegrityError in place of the last piece.
    """
    check = Check(digest, size)
    held: bytes | None = None
    for piece in pieces:
        if not piece:
            continue
        check.update(piece)
        if held is not None:
            yield held
        held = piece
    check.finish()
    if held is not None:
        yield held
