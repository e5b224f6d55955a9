"""Sending a blob: opening a session, the bytes, and the digest that completes it.

Follows the OCI distribution specification ("pushing blobs"). One PUT with the whole blob is
the rule; chunks are for registries, and proxies before them, that refuse it. A session never
outlives a failure: the blob is sent again from its start. When the bytes to send turn out to
be wrong, the connection is cut before the last of them, so the registry never has a whole.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from airgap import limits
from airgap.errors import NotFound, RegistryError
from airgap.registry import locations
from airgap.registry.channel import Call
from airgap.registry.retry import Attempts, Temporary
from airgap.registry.transport import Body, BodyFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airgap.digest import Bytes, Digest
    from airgap.registry.auth import Scope
    from airgap.registry.channel import Channel
    from airgap.registry.transport import Answer

CHUNK = 8 * limits.MIB
"""What one PATCH carries, where a blob cannot be sent whole."""

_LARGEST_CHUNK = 64 * limits.MIB
_SESSIONS = 3
_WHOLE_REFUSED = frozenset({405, 411, 413, 501})
_RANGE = re.compile(r"(?:bytes=)?0-([0-9]{1,18})", re.ASCII)
_BYTES = {"Content-Type": "application/octet-stream"}


class _NoProgress(RegistryError):
    """The registry took a chunk and does not have it."""


@dataclass(frozen=True, slots=True)
class _Blob:
    """A blob to send; ``pieces`` gives its bytes from the start, once for each attempt."""

    scope: Scope
    digest: Digest
    size: int
    pieces: Callable[[], Iterator[Bytes]]

    @property
    def what(self) -> str:
        return f"{self.scope.repository}@{self.digest}: upload"


@dataclass(frozen=True, slots=True)
class Session:
    """An open upload: where it goes on, and how large a chunk must be at least."""

    url: str
    chunk: int = CHUNK

    @classmethod
    def opened_by(cls, answer: Answer) -> Session:
        """Read the answer to a POST. Raises RegistryError."""
        location = answer.headers.get("Location")
        if not location:
            raise RegistryError(f"{answer.what}: an upload was opened without a Location")
        least = answer.headers.get("OCI-Chunk-Min-Length", "")
        chunk = int(least[:18]) if least.isascii() and least.isdigit() else 0
        url = locations.upload_target(answer.url, location)
        return cls(url, min(max(chunk, CHUNK), _LARGEST_CHUNK))


class Uploader:
    """Sends blobs, and remembers which hosts want them in chunks."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._in_chunks: set[str] = set()

    def upload(
        self, scope: Scope, digest: Digest, size: int, pieces: Callable[[], Iterator[Bytes]]
    ) -> None:
        """Send a blob; ``pieces`` gives its bytes from the start, once for each attempt.

        Whatever ``pieces`` raises goes through at once, and the upload stays incomplete.
        Raises RegistryError, Interrupted.
        """
        blob = _Blob(scope, digest, size, pieces)
        attempts = Attempts(self._channel.clock)
        while True:
            try:
                return self._send(blob)
            except BodyFailed as failed:
                raise failed.cause from None
            except Temporary as fault:
                if self._arrived(blob):
                    return None
                attempts.failed(fault)

    def _send(self, blob: _Blob) -> None:
        """Send a blob in a new session, and judge what goes wrong with it."""
        call = Call(blob.scope, "POST", "blobs/uploads/", blob.what, frozenset({202}))
        with self._channel.attempt(call) as answer:
            session = Session.opened_by(answer)
        host = blob.scope.repository.host
        whole = host not in self._in_chunks
        try:
            if whole:
                self._complete(blob, session, blob.pieces, blob.size)
            else:
                self._send_chunks(blob, session)
        except _NoProgress as error:
            self._in_chunks.discard(host)
            raise Temporary(error, attempts=2, at_once=True) from error
        except RegistryError as error:
            if whole and error.status in _WHOLE_REFUSED:
                self._in_chunks.add(host)
                raise Temporary(error, at_once=True) from error
            raise _session_failure(error) from error

    def _send_chunks(self, blob: _Blob, session: Session) -> None:
        position = 0
        for chunk in _chunks(Body(blob.pieces()), session.chunk):
            end = position + len(chunk)
            headers = {**_BYTES, "Content-Range": f"{position}-{end - 1}"}
            call = Call(
                blob.scope,
                "PATCH",
                session.url,
                blob.what,
                frozenset({200, 201, 202, 204}),
                headers=headers,
                body=chunk,
                length=len(chunk),
            )
            with self._channel.attempt(call) as answer:
                _check_progress(answer, end)
                if answer.headers.get("Location"):
                    session = replace(Session.opened_by(answer), chunk=session.chunk)
            position = end
        self._complete(blob, session, b"", 0)

    def _complete(
        self,
        blob: _Blob,
        session: Session,
        body: Callable[[], Iterator[Bytes]] | bytes,
        length: int,
    ) -> None:
        """Send the PUT that ends a session, with the rest of the bytes and the digest."""
        call = Call(
            blob.scope,
            "PUT",
            locations.with_digest(session.url, blob.digest),
            blob.what,
            frozenset({200, 201, 204}),
            headers=_BYTES,
            body=body,
            length=length,
        )
        self._channel.attempt(call).close()

    def _arrived(self, blob: _Blob) -> bool:
        """Say whether an upload succeeded though its answer was lost."""
        what = f"{blob.scope.repository}@{blob.digest}"
        call = Call(blob.scope, "HEAD", f"blobs/{blob.digest}", what, frozenset({200, 404}))
        try:
            with self._channel.attempt(call) as answer:
                return answer.status == 200 and answer.length == blob.size
        except (Temporary, RegistryError):
            return False  # What is told is how the upload failed, not this.


def _session_failure(error: RegistryError) -> Exception:
    """Return what a refusal inside a session means: some end with a new session."""
    if isinstance(error, NotFound):
        return Temporary(error, attempts=_SESSIONS, at_once=True)
    if error.status == 400 and "DIGEST_INVALID" in error.message:
        error.hint = "The bytes left here unharmed: something on the way alters them."
        return Temporary(error, attempts=2)
    return error


def _chunks(pieces: Body, size: int) -> Iterator[bytes]:
    """Gather pieces into chunks; the last is given out only when the pieces have ended well.

    A chunk is ``size`` bytes long and the rest of a piece, except for the last.
    """
    gathered: list[Bytes] = []
    length = 0
    try:
        for piece in pieces:
            if length >= size:
                yield b"".join(gathered)
                gathered, length = [], 0
            gathered.append(piece)
            length += len(piece)
        if gathered:
            yield b"".join(gathered)
    finally:
        pieces.close()


def _check_progress(answer: Answer, end: int) -> None:
    """Compare what the registry says it has; some take a chunk and drop it."""
    match = _RANGE.fullmatch(answer.headers.get("Range", ""))
    if match is not None and int(match[1]) + 1 != end:
        raise _NoProgress(
            f"{answer.what}: the registry has {int(match[1]) + 1} bytes of the {end} it took",
            status=answer.status,
        )
