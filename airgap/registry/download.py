"""A blob's bytes, from wherever it breaks off again, until they are complete.

Follows RFC 9110 for ranges and trusts no answer to have done so. Counts the bytes and never
more than the promised number; it does not hash: who receives them does, as they may have
come from several answers.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from airgap.errors import IntegrityError, RegistryError
from airgap.registry.channel import Call
from airgap.registry.retry import Temporary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airgap.digest import Digest
    from airgap.registry.auth import Scope
    from airgap.registry.channel import Channel
    from airgap.registry.transport import Answer

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", re.ASCII)


class Download:
    """A blob on its way; ``position`` is how many of its bytes have been given out."""

    def __init__(self, channel: Channel, digest: Digest, size: int, offset: int) -> None:
        self._channel = channel
        self.digest = digest
        self._size = size
        self._etag = ""
        self._ranges = True
        self.position = offset

    @property
    def is_complete(self) -> bool:
        """Whether all of the blob has been given out."""
        return self.position >= self._size

    def pieces(self, scope: Scope) -> Iterator[bytes]:
        """Yield what is left of the blob, as one repository gives it.

        Breaks are mended with range requests. Raises IntegrityError for more bytes than
        promised or another length, RegistryError, Interrupted. May be called for another
        repository after it failed: it goes on at ``position``.
        """
        attempts, account = self._channel.attempts(scope), self._channel.account(scope)
        self._etag, self._ranges = "", True
        while self.position < self._size:
            try:
                for piece in self._part(scope):
                    self.position += len(piece)
                    attempts.progressed(len(piece))
                    account.received(len(piece))
                    yield piece
            except Temporary as fault:
                attempts.failed(fault)
        account.fetched()

    def _part(self, scope: Scope) -> Iterator[bytes]:
        """Yield what one answer holds of the bytes from ``position`` on."""
        with self._channel.attempt(self._call(scope)) as answer:
            if answer.status == 416:
                raise self._without_ranges(answer, "refuses a range inside the blob")
            if answer.status == 206:
                skip, end = 0, self._range_end(answer)
            else:
                skip, end = self.position, self._size
                self._check_length(answer)
            self._etag = self._etag or _strong_etag(answer)
            yield from self._bounded(answer, skip, end)

    def _call(self, scope: Scope) -> Call:
        headers = {}
        if self.position and self._ranges:
            headers["Range"] = f"bytes={self.position}-"
            if self._etag:
                headers["If-Range"] = self._etag
        return Call(
            scope,
            "GET",
            f"blobs/{self.digest}",
            f"{scope.repository}@{self.digest}",
            accepted=frozenset({200, 206, 416}) if headers else frozenset({200}),
            headers=headers,
        )

    def _bounded(self, answer: Answer, skip: int, end: int) -> Iterator[bytes]:
        """Yield the answer's bytes after ``skip``; stop with an error beyond ``end``."""
        due = end - self.position
        for piece in answer.pieces():
            if skip >= len(piece):
                skip -= len(piece)
                continue
            fresh = piece[skip:] if skip else piece
            skip = 0
            due -= len(fresh)
            if due < 0:
                raise IntegrityError(
                    f"{answer.what}: more than the promised {self._size} bytes arrive"
                )
            yield fresh
        if due > 0:
            raise Temporary(
                RegistryError(f"{answer.what}: the answer ends {due} bytes before the blob does")
            )

    def _check_length(self, answer: Answer) -> None:
        """Refuse another length than the blob's before reading; a second answer decides."""
        length = answer.length
        if length is None or length == self._size:
            return
        page = "; it is a web page, perhaps the login of a proxy" if answer.is_web_page else ""
        message = f"{answer.what}: {length} bytes instead of the promised {self._size}{page}"
        raise Temporary(IntegrityError(message), attempts=2)

    def _range_end(self, answer: Answer) -> int:
        """Return the offset after the last byte of a partial answer that fits what was asked."""
        match = _CONTENT_RANGE.fullmatch(", ".join(answer.all_of("Content-Range")))
        if match is not None:
            first, last = int(match[1]), int(match[2])
            total_fits = match[3] == "*" or int(match[3]) == self._size
            if first == self.position and first <= last < self._size and total_fits:
                return last + 1
        raise self._without_ranges(answer, "answers with another range than was asked for")

    def _without_ranges(self, answer: Answer, why: str) -> Temporary:
        """Ask for the whole blob from now on; what is there already is skipped."""
        self._ranges = False
        return Temporary(RegistryError(f"{answer.what}: the registry {why}"), at_once=True)


def _strong_etag(answer: Answer) -> str:
    etag = answer.headers.get("ETag", "")
    return "" if etag.startswith("W/") else etag
