"""A registry that misbehaves on demand, and remembers what it was asked.

``Scripted`` puts rules before whatever answers honestly: the n-th request that fits a method
and a path, or every one, meets a *fault*. ``FaultyRegistry`` is the embedded registry behind
such rules; ``proxy`` has them before any other.

    registry.fault("GET", r".*/blobs/sha256:.*", cut(after=1000), hits=(1, 2))
"""

from __future__ import annotations

import os
import re
import threading
from dataclasses import dataclass, replace
from http import HTTPStatus
from itertools import chain
from typing import TYPE_CHECKING, cast

from airgap.digest import digest_of
from airgap.registry.http_server import Response
from airgap.registry.server import RegistryServer
from tests.support import tripwire

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from pathlib import Path

    from airgap.digest import Digest
    from airgap.registry.http_server import Body, Piece, Request
    from airgap.registry.store import Store

    Fault = Callable[["Exchange"], Response]

_READ = 64 << 10


@dataclass(slots=True)
class Asked:
    """A request as it arrived; ``headers`` have lower-case names.

    Of a credential only its digest is kept, "" for none. ``sent`` counts the bytes of the
    answer's body that were given to the kernel so far.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    account: str = ""
    sent: int = 0

    @classmethod
    def of(cls, request: Request) -> Asked:
        headers = dict(request.headers)
        account = account_of(headers.pop("authorization", ""))
        return cls(request.method, request.path, request.query, headers, account)

    @property
    def host(self) -> str:
        return self.headers.get("host", "")

    @property
    def authorized(self) -> bool:
        return bool(self.account)


def account_of(authorization: str) -> str:
    """What a log may keep of an ``Authorization``: enough to know it again."""
    return digest_of(authorization.encode()).hex if authorization else ""


@dataclass(frozen=True, slots=True)
class Exchange:
    """What a fault works with: the request, the honest answer to any request, and a pause.

    ``pause`` sleeps for seconds; when the faults are over meanwhile, it ends the connection.
    """

    request: Request
    answer: Callable[[Request], Response]
    pause: Callable[[float], None]

    def honest(self) -> Response:
        return self.answer(self.request)


@dataclass(slots=True)
class _Rule:
    method: re.Pattern[str]
    path: re.Pattern[str]
    fault: Fault
    hits: Collection[int] | None
    seen: int = 0

    def counts(self, request: Request) -> bool:
        """Count a request that fits; say whether the fault is for this one."""
        if not (self.method.fullmatch(request.method) and self.path.fullmatch(request.path)):
            return False
        self.seen += 1
        return self.hits is None or self.seen in self.hits


class Scripted:
    """Rules before a server, and ``asked``: every request in order."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self._rules: list[_Rule] = []
        self._counting = threading.Lock()
        self._over = threading.Event()

    def fault(
        self, method: str, path: str, fault: Fault, *, hits: Collection[int] | None = None
    ) -> None:
        """Let requests meet a fault: method and path are whole regular expressions.

        ``hits`` are the numbers, from 1, of the fitting requests that meet it; None means all.
        Of several rules the first that is due counts.
        """
        rule = _Rule(re.compile(method), re.compile(path), fault, hits)
        with self._counting:
            self._rules.append(rule)

    def hide(self, digest: Digest) -> None:
        """Let one manifest or blob be absent, when it is asked for by its digest."""
        self.fault("GET|HEAD", f".*/{re.escape(str(digest))}", missing())

    def heal(self) -> None:
        """Forget all faults, and end the connections that one keeps waiting."""
        with self._counting:
            self._rules.clear()
            self._over.set()
            self._over = threading.Event()

    def count(self, method: str, path: str = ".*") -> int:
        """How many requests fitted so far."""
        return sum(
            bool(re.fullmatch(method, one.method) and re.fullmatch(path, one.path))
            for one in list(self.asked)
        )

    def meet(self, request: Request, honest: Callable[[Request], Response]) -> Response:
        """Answer a request honestly, or as the first rule that is due wants it."""
        tripwire.watch(request.headers)
        asked = Asked.of(request)
        self.asked.append(asked)
        with self._counting:
            due = [rule for rule in self._rules if rule.counts(request)]
            over = self._over

        def pause(seconds: float) -> None:
            if over.wait(seconds):
                raise ConnectionAbortedError("the fault is over")

        response = due[0].fault(Exchange(request, honest, pause)) if due else honest(request)
        return replace(response, body=_counted(response.body, asked))


class FaultyRegistry(Scripted, RegistryServer):
    """The embedded registry with scripted faults. Takes what ``RegistryServer`` takes."""

    def __init__(self, store: Store, *, certificate: Path | None = None, key: Path | None = None):
        Scripted.__init__(self)
        RegistryServer.__init__(self, store, certificate=certificate, key=key)

    def respond(self, request: Request) -> Response:
        return self.meet(request, super().respond)

    def stop(self) -> None:
        self.heal()
        super().stop()


def answer(status: int, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Fault:
    """Say this instead, without reading the request's body."""
    return lambda _: Response(HTTPStatus(status), headers or {}, (body,), len(body))


def missing() -> Fault:
    """Say that there is no such thing."""
    return answer(404, {"Content-Type": "application/json"}, b'{"errors":[{"code":"UNKNOWN"}]}')


def challenge(header: str, accepted: str) -> Fault:
    """Say 401 with a challenge, unless the request has the accepted Authorization."""

    def fault(exchange: Exchange) -> Response:
        if exchange.request.headers.get("authorization") == accepted:
            return exchange.honest()
        return answer(401, {"WWW-Authenticate": header})(exchange)

    return fault


def redirect(to: str, status: int = 307) -> Fault:
    """Send the client to another address; ``{path}`` in it stands for the path asked for."""

    def fault(exchange: Exchange) -> Response:
        return answer(status, {"Location": to.format(path=exchange.request.path)})(exchange)

    return fault


def with_headers(changes: Mapping[str, str | None]) -> Fault:
    """Answer honestly, but with these headers; None takes one away."""

    def fault(exchange: Exchange) -> Response:
        response = exchange.honest()
        headers = {**response.headers, **changes}
        kept = {name: value for name, value in headers.items() if value is not None}
        return replace(response, headers=kept)

    return fault


def ignore_range() -> Fault:
    """Answer as if no range had been asked for."""

    def fault(exchange: Exchange) -> Response:
        request = exchange.request
        headers = {name: value for name, value in request.headers.items() if name != "range"}
        return exchange.answer(replace(request, headers=headers))

    return fault


def cut(after: int) -> Fault:
    """End the connection after so many bytes of the body, politely."""
    return _changing(lambda pieces, _: _first(pieces, after))


def flip(at: int = 0) -> Fault:
    """Flip one bit of the body, in the byte at that position."""
    return _changing(lambda pieces, _: _flipped(pieces, at))


def no_length() -> Fault:
    """Send the body without saying how long it is; the end of the connection ends it."""
    return lambda exchange: replace(exchange.honest(), length=None)


def longer(extra: bytes) -> Fault:
    """Send more than there is, and promise more in Content-Length as well."""

    def fault(exchange: Exchange) -> Response:
        response = exchange.honest()
        body = chain(_content(response.body), (extra,))
        return replace(response, body=body, length=(response.length or 0) + len(extra))

    return fault


def reset(after: int | None = None) -> Fault:
    """Reset the connection after so many bytes of the body, or instead of any answer."""

    def body(pieces: Iterator[bytes], _: Exchange) -> Iterator[bytes]:
        yield from _first(pieces, after or 0)
        raise ConnectionResetError("a scripted reset")

    def instead(_: Exchange) -> Response:
        raise ConnectionResetError("a scripted reset")

    return instead if after is None else _changing(body)


def lose_answer() -> Fault:
    """Do what was asked, and reset the connection instead of saying so."""

    def fault(exchange: Exchange) -> Response:
        exchange.honest()
        raise ConnectionResetError("a scripted reset")

    return fault


def flip_sent(at: int = 0) -> Fault:
    """Flip one bit of what the client sends, in the byte at that position."""
    return _changing_what_is_sent(lambda pieces: _flipped(pieces, at))


def reset_sent(after: int) -> Fault:
    """Reset the connection when the client has sent so many bytes of its body, or all of it."""

    def change(pieces: Iterator[bytes]) -> Iterator[bytes]:
        yield from _first(pieces, after)
        raise ConnectionResetError("a scripted reset")

    return _changing_what_is_sent(change)


def stall(seconds: float, after: int | None = None) -> Fault:
    """Be silent for a while before the answer, or after so many bytes of its body."""

    def body(pieces: Iterator[bytes], exchange: Exchange) -> Iterator[bytes]:
        left = after or 0
        for piece in pieces:
            if 0 <= left < len(piece):
                yield piece[:left]
                exchange.pause(seconds)
                yield piece[left:]
            else:
                yield piece
            left -= len(piece)

    def before(exchange: Exchange) -> Response:
        exchange.pause(seconds)
        return exchange.honest()

    return before if after is None else _changing(body)


def throttle(bytes_per_second: int) -> Fault:
    """Send the body slowly, in twenty pieces a second."""

    def body(pieces: Iterator[bytes], exchange: Exchange) -> Iterator[bytes]:
        for piece in _small(pieces, max(1, bytes_per_second // 20)):
            yield piece
            exchange.pause(len(piece) / bytes_per_second)

    return _changing(body)


@dataclass(slots=True)
class _Changed:
    """A request's body that is changed on its way to whoever answers."""

    length: int | None
    pieces: Iterator[bytes]

    def __iter__(self) -> Iterator[memoryview]:
        return (memoryview(piece) for piece in self.pieces)


def _changing_what_is_sent(change: Callable[[Iterator[bytes]], Iterator[bytes]]) -> Fault:
    def fault(exchange: Exchange) -> Response:
        request = exchange.request
        body = _Changed(request.body.length, change(bytes(piece) for piece in request.body))
        return exchange.answer(replace(request, body=cast("Body", body)))

    return fault


def _changing(change: Callable[[Iterator[bytes], Exchange], Iterable[bytes]]) -> Fault:
    """Answer honestly, with a body that was changed on the way; its promised length stays."""

    def fault(exchange: Exchange) -> Response:
        response = exchange.honest()
        return replace(response, body=change(_content(response.body), exchange))

    return fault


def _counted(body: Iterable[Piece], asked: Asked) -> Iterator[Piece]:
    for piece in body:
        yield piece
        asked.sent += len(piece) if isinstance(piece, bytes | memoryview) else piece.length


def _content(body: Iterable[Piece]) -> Iterator[bytes]:
    for piece in body:
        if isinstance(piece, bytes | memoryview):
            yield bytes(piece)
            continue
        end = piece.offset + piece.length
        for position in range(piece.offset, end, _READ):
            yield os.pread(piece.descriptor, min(_READ, end - position), position)


def _first(pieces: Iterator[bytes], count: int) -> Iterator[bytes]:
    """Yield the first so many bytes and no more."""
    while count > 0 and (piece := next(pieces, b"")):
        yield piece[:count]
        count -= len(piece)


def _flipped(pieces: Iterator[bytes], at: int) -> Iterator[bytes]:
    for piece in pieces:
        if 0 <= at < len(piece):
            yield piece[:at] + bytes([piece[at] ^ 1]) + piece[at + 1 :]
        else:
            yield piece
        at -= len(piece)


def _small(pieces: Iterator[bytes], size: int) -> Iterator[bytes]:
    for piece in pieces:
        for start in range(0, len(piece), size):
            yield piece[start : start + size]
