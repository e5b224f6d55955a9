"""Sending a blob: opening a session, the bytes, and the digest that completes it.

Follows the OCI distribution specification ("pushing blobs"). One PUT with the whole blob is
the rule; chunks are for registries, and proxies before them, that refuse it, and for lines on
which it does not get through. A session is opened by asking for a mount where another
repository has the blob: a registry that does not mount opens one all the same.

What the registry says it has is believed over what was sent: a chunk that broke off goes on
from there. Where a session is lost, or says what cannot be, the blob starts again in a new one.
When the bytes to send turn out to be wrong, the connection is cut before the last of them, so
the registry never has a whole.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from airgap import limits
from airgap.arrival import Arrival
from airgap.errors import NotFound, RegistryError
from airgap.registry import locations
from airgap.registry.channel import Call
from airgap.registry.retry import ATTEMPTS, Temporary
from airgap.registry.transport import Body, BodyFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airgap.digest import Bytes, Digest
    from airgap.errors import AirgapError
    from airgap.registry.auth import Scope
    from airgap.registry.channel import Channel
    from airgap.registry.transport import Answer

CHUNK = 8 * limits.MIB
"""What one PATCH carries at first, where a blob cannot be sent whole."""

SMALLEST_CHUNK = 256 * limits.KIB
"""A body of this size that is refused as too large, or does not get through, is given up."""

_LARGEST_CHUNK = 64 * limits.MIB
_ROOM = 64 * limits.MIB
"""Bytes of all chunks together that are kept at one time, whoever sends them."""

_WHOLE_REFUSED = frozenset({405, 411, 501})
_CHUNKS_REFUSED = frozenset({405, 501})
_TIMED_OUT = frozenset({408, 499, 504, 524})
_RANGE = re.compile(r"(?:bytes=)?0-([0-9]{1,18})", re.ASCII)
_BYTES = {"Content-Type": "application/octet-stream"}
_LOST_HINT = (
    "The registry forgets uploads that are under way. Several behind one address must share"
    " their storage and their secret (docker-registry: http.secret)."
)


class RepositoryAbsent(NotFound):
    """A registry makes no repository by itself, and this one is not there."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob to send; ``pieces`` gives its bytes from the start, once for each attempt.

    ``mount_from`` is the path of a repository at the same host that has it, "" for none.
    """

    scope: Scope
    digest: Digest
    size: int
    pieces: Callable[[], Iterator[Bytes]]
    mount_from: str = ""

    @property
    def what(self) -> str:
        """What is being done, for errors."""
        return f"{self.scope.repository}@{self.digest}: upload"


@dataclass(frozen=True, slots=True)
class Session:
    """An open upload: where it goes on, and how large a chunk must be at least."""

    url: str
    least: int = 0

    @classmethod
    def opened_by(cls, answer: Answer) -> Session:
        """Read the answer to a POST. Raises RegistryError."""
        location = answer.headers.get("Location")
        if not location:
            raise RegistryError(f"{answer.what}: an upload was opened without a Location")
        least = answer.headers.get("OCI-Chunk-Min-Length", "")
        size = int(least[:18]) if least.isascii() and least.isdigit() else 0
        return cls(locations.upload_target(answer.url, location), min(size, _LARGEST_CHUNK))

    def continued_by(self, answer: Answer) -> Session:
        """Return where it goes on after an answer. Raises RegistryError."""
        if not answer.headers.get("Location"):
            return self
        return replace(Session.opened_by(answer), least=self.least)


@dataclass(frozen=True, slots=True)
class _Manner:
    """How a host has turned out to take blobs: whole, in chunks, and how much at once.

    ``refused`` is the smallest body that it has refused for its size, which more patience would
    not change.
    """

    whole: bool = True
    chunks: bool = True
    largest: int | None = None
    refused: int | None = None

    def takes_whole(self, size: int) -> bool:
        fits = self.largest is None or size <= self.largest
        return self.whole and (fits or not self.chunks)

    def less_than(self, size: int) -> _Manner:
        """Return the manner of one that does not take so many bytes at once."""
        largest = max(SMALLEST_CHUNK, min(size // 2, self.largest or CHUNK))
        return replace(self, largest=largest)

    def refusing(self, size: int) -> _Manner:
        """Return the manner of one that refuses so many bytes at once."""
        return replace(self.less_than(size), refused=min(size, self.refused or size))

    def may_take_whole(self, size: int) -> bool:
        """Say whether there is hope for a whole blob, should chunks not be taken."""
        return self.refused is None or size < self.refused


class Uploader:
    """Sends blobs, and remembers how hosts want them."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._room = _Room(channel)
        self._manners: dict[str, _Manner] = {}

    def upload(self, blob: Blob) -> Arrival:
        """Bring a blob into a repository: mounted from another one, or sent.

        Whatever ``pieces`` raises goes through at once, and the upload stays incomplete.
        Raises RegistryError (RepositoryAbsent is one), Interrupted.
        """
        return _Upload(self._channel, self._room, self._manners, blob).run()

    def probe(self, scope: Scope) -> None:
        """Find out whether a repository takes uploads. Raises RegistryError, Interrupted."""
        call = _opening(scope, f"{scope.repository}: asking whether it takes uploads")
        with self._channel.persist(scope, lambda: _open(self._channel, call)) as answer:
            session = Session.opened_by(answer)
        what = f"{scope.repository}: cancel an upload"
        cancel = Call(scope, "DELETE", session.url, what, frozenset({200, 202, 204, 404}))
        try:
            self._channel.attempt(cancel).close()
        except (RegistryError, Temporary):
            return  # The registry drops forgotten sessions by itself.


class _Upload:
    """The sending of one blob, over all its attempts."""

    def __init__(
        self, channel: Channel, room: _Room, manners: dict[str, _Manner], blob: Blob
    ) -> None:
        self._channel = channel
        self._room = room
        self._manners = manners
        self._blob = blob
        self._scope = blob.scope
        self._host = blob.scope.repository.host
        self._attempts = channel.attempts(blob.scope)
        self._mount_from = blob.mount_from
        self._may_be_there = False
        self._breaks = 0
        self._furthest = 0

    def run(self) -> Arrival:
        while True:
            try:
                return self._once()
            except BodyFailed as failed:
                raise failed.cause from None
            except Temporary as fault:
                if self._may_be_there and self._arrived():
                    return Arrival.SENT
                self._may_be_there = False
                self._attempts.failed(fault)

    @property
    def _manner(self) -> _Manner:
        return self._manners.get(self._host, _Manner())

    def _learn(self, manner: _Manner) -> None:
        self._manners[self._host] = manner

    def _once(self) -> Arrival:
        session = self._mounting() if self._mount_from else self._opened()
        if session is None:
            return Arrival.MOUNTED
        if self._goes_whole():
            self._send_whole(session)
        else:
            with self._room.taken(min(self._chunk(session), self._blob.size)):
                self._send_chunks(session)
        return Arrival.SENT

    def _mounting(self) -> Session | None:
        """Ask for a mount; None when that was all, else the session in which to send.

        A mount that is refused for whatever reason is not asked for again.
        """
        blob, source = self._blob, self._mount_from
        scope = replace(blob.scope, further=(f"repository:{source}:pull",))
        what = f"{blob.scope.repository}@{blob.digest}: mount from {source}"
        call = _opening(scope, what, f"?mount={blob.digest}&from={source}")
        try:
            with self._channel.call(replace(call, accepted=frozenset({200, 201, 202}))) as answer:
                if answer.status == 201:
                    return None
                session = Session.opened_by(answer)
        except RegistryError as error:
            if error.status is None:
                raise
            self._mount_from = ""
            return self._opened()
        self._mount_from, self._scope = "", scope
        return session

    def _opened(self) -> Session:
        self._scope = self._blob.scope
        with _open(self._channel, _opening(self._scope, self._blob.what)) as answer:
            return Session.opened_by(answer)

    def _goes_whole(self) -> bool:
        """Decide how to send: also in chunks what did not get through twice."""
        manner, size = self._manner, self._blob.size
        breaks = self._breaks > 1 and size > SMALLEST_CHUNK and manner.chunks
        return manner.takes_whole(size) and not breaks

    def _send_whole(self, session: Session) -> None:
        size = self._blob.size
        try:
            self._put(session, self._blob.pieces, size)
        except Temporary as fault:
            if _is_time_out(fault) and size > SMALLEST_CHUNK:
                self._learn(self._manner.less_than(size))
            elif _status(fault) is None:
                self._breaks += 1
            raise
        except RegistryError as error:
            manner = self._manner
            too_large = error.status == 413
            if not manner.chunks or not (too_large or error.status in _WHOLE_REFUSED):
                raise _session_failure(error) from error
            is_divisible = too_large and size > SMALLEST_CHUNK
            self._learn(manner.refusing(size) if is_divisible else replace(manner, whole=False))
            raise Temporary(error, at_once=True) from error

    def _send_chunks(self, session: Session) -> None:
        window = _Window(Body(self._blob.pieces()))
        try:
            while size := window.hold(self._chunk(session)):
                start = window.start
                session, position = self._send_chunk(session, window, size)
                if not start <= position <= start + size:
                    raise self._astray(f"{position} bytes, between {start} and {start + size}")
                window.forget(position - start)
                self._attempts.progressed(max(0, position - self._furthest))
                self._furthest = max(position, self._furthest)
        finally:
            window.close()
        self._end_chunks(session, window.start)

    def _chunk(self, session: Session) -> int:
        return max(session.least, self._manner.largest or CHUNK)

    def _send_chunk(self, session: Session, window: _Window, size: int) -> tuple[Session, int]:
        """Send a chunk; return how many bytes of the blob the registry has then."""
        end = window.start + size
        call = Call(
            self._scope,
            "PATCH",
            session.url,
            self._blob.what,
            frozenset({200, 201, 202, 204}),
            headers={**_BYTES, "Content-Range": f"{window.start}-{end - 1}"},
            body=lambda: window.first(size),
            length=size,
        )
        try:
            with self._channel.attempt(call) as answer:
                position = _has(answer, end)
                session = session.continued_by(answer)
        except Temporary as fault:
            if _is_time_out(fault):
                self._learn(self._manner.less_than(size))
            self._attempts.failed(fault)
            return self._whereabouts(session, end)
        except RegistryError as error:
            if error.status == 416:
                self._attempts.failed(Temporary(error, at_once=True))
                return self._whereabouts(session, end)
            if error.status == 413 and size > max(SMALLEST_CHUNK, session.least):
                self._learn(self._manner.refusing(size))
                return session, window.start
            raise self._refused_chunk(error, window.start) from error
        if position is None:
            position = end
        if position == window.start:
            # ECR has taken later chunks and dropped them.
            astray = self._astray(f"{position} bytes of {end}")
            hopeful = self._manner.may_take_whole(self._blob.size)
            raise self._without_chunks(astray.error) if hopeful else astray
        return session, position

    def _end_chunks(self, session: Session, size: int) -> None:
        """Complete a session that has all bytes; again when it is not known to have worked."""
        while True:
            try:
                return self._put(session, b"", 0)
            except Temporary as fault:
                if self._arrived():
                    return None
                self._attempts.failed(fault)
                session, position = self._whereabouts(session, size)
                if position != size:
                    raise self._astray(f"{position} bytes of {size}") from fault
            except RegistryError as error:
                raise _session_failure(error) from error

    def _put(
        self, session: Session, body: Callable[[], Iterator[Bytes]] | bytes, length: int
    ) -> None:
        """Send the PUT that ends a session, with the rest of the bytes and the digest."""
        call = Call(
            self._scope,
            "PUT",
            locations.with_digest(session.url, self._blob.digest),
            self._blob.what,
            frozenset({200, 201, 204}),
            headers=_BYTES,
            body=body,
            length=length,
        )
        try:
            self._channel.attempt(call).close()
        except Temporary:
            self._may_be_there = True
            raise

    def _whereabouts(self, session: Session, end: int) -> tuple[Session, int]:
        """Ask how much of a session has arrived. Raises Temporary when it is lost."""
        call = Call(self._scope, "GET", session.url, self._blob.what, frozenset({200, 204}))
        while True:
            try:
                with self._channel.attempt(call) as answer:
                    position = _has(answer, end)
                    session = session.continued_by(answer)
            except Temporary as fault:
                self._attempts.failed(fault)
                continue
            except RegistryError as error:
                raise _lost(error) from error
            if position is None:
                raise self._astray("what it does not say")
            return session, position

    def _arrived(self) -> bool:
        """Say whether an upload succeeded though its answer was lost."""
        blob = self._blob
        what = f"{blob.scope.repository}@{blob.digest}"
        call = Call(blob.scope, "HEAD", f"blobs/{blob.digest}", what, frozenset({200, 404}))
        try:
            with self._channel.attempt(call) as answer:
                return answer.status == 200 and answer.length == blob.size
        except (Temporary, RegistryError):
            return False  # What is told is how the upload failed, not this.

    def _refused_chunk(self, error: RegistryError, start: int) -> Exception:
        """Return what the refusal of a chunk means: some take none, and blobs whole."""
        if start == 0 and error.status in _CHUNKS_REFUSED and self._manner.whole:
            return self._without_chunks(error)
        return _session_failure(error)

    def _without_chunks(self, error: AirgapError) -> Temporary:
        self._learn(replace(self._manner, whole=True, chunks=False))
        return Temporary(error, attempts=2, at_once=True, why="no chunks are taken")

    def _astray(self, has: str) -> Temporary:
        error = RegistryError(f"{self._blob.what}: the registry says that it has {has}")
        return Temporary(error, attempts=3, at_once=True, why="an upload went astray")


def _opening(scope: Scope, what: str, query: str = "") -> Call:
    return Call(scope, "POST", f"blobs/uploads/{query}", what, frozenset({202}))


def _open(channel: Channel, call: Call) -> Answer:
    """Open a session. Raises RepositoryAbsent where it says that there is no repository."""
    try:
        return channel.attempt(call)
    except NotFound as error:
        raise RepositoryAbsent(
            error.message,
            status=error.status,
            code=error.code,
            hint="This registry makes no repositories by itself: create it, or give a"
            " credential that may.",
        ) from error


def _session_failure(error: RegistryError) -> Exception:
    """Return what a refusal inside a session means: some end with a new session."""
    if isinstance(error, NotFound):
        return _lost(error)
    if error.status == 400 and "DIGEST_INVALID" in error.message:
        error.hint = "The bytes left here unharmed: something on the way alters them."
        return Temporary(error, attempts=2)
    return error


def _lost(error: RegistryError) -> Temporary:
    error.hint = _LOST_HINT
    return Temporary(error, attempts=ATTEMPTS, at_once=True, why="an upload was lost")


def _status(fault: Temporary) -> int | None:
    return fault.error.status if isinstance(fault.error, RegistryError) else None


def _is_time_out(fault: Temporary) -> bool:
    return fault.timed_out or _status(fault) in _TIMED_OUT


def _has(answer: Answer, end: int) -> int | None:
    """Return how many bytes a registry says it has, None when it does not say.

    A session of no bytes at all is told as ``0-0`` by many.
    """
    match = _RANGE.fullmatch(answer.headers.get("Range", ""))
    if match is None:
        return None
    has = int(match[1]) + 1
    return 0 if has == 1 != end else has


class _Room:
    """Memory for chunks, which all uploads share: a blob waits until there is enough."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._changed = threading.Condition()
        self._taken = 0

    @contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Have room for so many bytes; more than there is, alone. Raises Interrupted."""
        with self._changed:
            while self._taken and self._taken + size > _ROOM:
                self._changed.wait(timeout=0.2)
                self._channel.clock.check()
            self._taken += size
        try:
            yield
        finally:
            with self._changed:
                self._taken -= size
                self._changed.notify_all()


class _Window:
    """The bytes of a blob from ``start`` on that the registry may not have yet."""

    def __init__(self, pieces: Body) -> None:
        self._pieces = pieces
        self._held: deque[memoryview] = deque()
        self._size = 0
        self.start = 0

    def hold(self, size: int) -> int:
        """Take in so many bytes, if there are; return how many of them there are."""
        while self._size < size and (piece := next(self._pieces, None)) is not None:
            self._held.append(memoryview(piece))
            self._size += len(piece)
        return min(size, self._size)

    def first(self, size: int) -> Iterator[memoryview]:
        """Give the first so many of the bytes held."""
        for piece in self._held:
            if size <= 0:
                return
            yield piece[:size]
            size -= len(piece)

    def forget(self, size: int) -> None:
        """Forget the first so many of the bytes held."""
        self.start += size
        self._size -= size
        while size:
            piece = self._held.popleft()
            if size < len(piece):
                self._held.appendleft(piece[size:])
                return
            size -= len(piece)

    def close(self) -> None:
        """End the source."""
        self._pieces.close()
