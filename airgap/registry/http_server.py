"""HTTP/1.1 in threads: request heads, bodies both ways, connections. Nothing about registries.

Follows RFC 9110 and RFC 9112, strictly wherever two readers could see two different requests
(a length given twice, a length beside chunks, folded headers). A body is never held whole: what
arrives is handed on through one buffer per connection, and a stretch of a file goes out by
sendfile, without passing through the program. Knows nothing of what is asked for or answered.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import select
import selectors
import socket
import ssl
import struct
import threading
import time
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol, Self, cast
from urllib.parse import parse_qsl, unquote

from airgap import limits
from airgap.errors import AirgapError, UsageError, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from io import BufferedReader
    from pathlib import Path

    Handler = Callable[["Request"], "Response"]
    Log = Callable[[str], None]

_LINE = 16 * limits.KIB
_HEADERS = 100
_PIECE = 256 * limits.KIB
_READ_AHEAD = 64 * limits.KIB
_PATIENCE = 120.0
"""Seconds for which a connection may be silent, between requests or within one."""

_LINGER = 2.0
"""Seconds for a client to notice an answer that refuses the rest of its body."""

_BREATH = 0.1
"""Seconds to wait for others to finish when no further connection can be taken."""

_CONNECTIONS = 256
"""Each has a thread, and content of at most two pieces and a buffer in memory."""

_BACKLOG = 256
_SENDFILE_MAXIMUM = 1 << 30
_REQUEST_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (\S+) HTTP/1\.([01])", re.ASCII)
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*)", re.ASCII)
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r?\n")
_LENGTH = re.compile(r"[0-9]{1,18}", re.ASCII)
_MSG_MORE: int = getattr(socket, "MSG_MORE", 0)
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Span(Protocol):
    """A stretch of an open file, as a piece of a body."""

    @property
    def descriptor(self) -> int:
        """The file, open for reading."""

    @property
    def offset(self) -> int:
        """Where the stretch begins, in bytes."""

    @property
    def length(self) -> int:
        """How long it is, in bytes."""


Piece = bytes | memoryview | Span


class BadRequest(Exception):
    """A request that breaks HTTP or a limit; it is answered with ``status``, and no other is."""

    def __init__(self, message: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(message)
        self.status = status


class Body:
    """The body of a request; ``length`` is its promised size in bytes, None when chunked.

    Iterating gives views of one buffer, so a piece is gone when the next one is asked for.
    Raises ConnectionError when the client leaves in the middle, TimeoutError when it falls
    silent, BadRequest for chunks that are none.
    """

    def __init__(
        self, reader: BufferedReader, length: int | None, invite: Callable[[], None] | None = None
    ) -> None:
        """``invite`` is called before the first piece is read, for a client that waits."""
        self.length = length
        self.finished = length == 0
        self._reader = reader
        self._invite = invite

    def __iter__(self) -> Iterator[memoryview]:
        if self.finished:
            return
        if self._invite is not None:
            self._invite()
        view = memoryview(bytearray(_PIECE if self.length is None else min(_PIECE, self.length)))
        yield from self._chunks(view) if self.length is None else self._exactly(self.length, view)
        self.finished = True

    def read(self, maximum: int) -> bytes:
        """Return the whole body. Raises BadRequest (413) when it is larger than ``maximum``."""
        if self.length is not None and self.length > maximum:
            raise _too_large(maximum)
        content = bytearray()
        for piece in self:
            content += piece
            if len(content) > maximum:
                raise _too_large(maximum)
        return bytes(content)

    def is_worth_draining(self) -> bool:
        """Say whether to read what is left is cheaper than a new connection."""
        return self._invite is None and self.length is not None and self.length <= _READ_AHEAD

    def _exactly(self, count: int, view: memoryview) -> Iterator[memoryview]:
        while count:
            got = self._reader.readinto(view[: min(count, len(view))])
            if not got:
                raise ConnectionResetError("the client left in the middle of a body")
            count -= got
            yield view[:got]

    def _chunks(self, view: memoryview) -> Iterator[memoryview]:
        while size := self._chunk_size():
            yield from self._exactly(size, view)
            if self._reader.readline(3) != b"\r\n":
                raise BadRequest("a chunk is longer than it says")
        for _ in range(_HEADERS):
            if self._reader.readline(_LINE) == b"\r\n":
                return
        raise BadRequest("chunks without an end")

    def _chunk_size(self) -> int:
        line = self._reader.readline(_LINE)
        if not line:
            raise ConnectionResetError("the client left in the middle of a body")
        match = _CHUNK_SIZE.fullmatch(line)
        if match is None:
            raise BadRequest("not the size of a chunk")
        return int(match[1], 16)


def _too_large(maximum: int) -> BadRequest:
    return BadRequest(f"more than {maximum} bytes", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)


@dataclass(slots=True)
class Request:
    """What a client asks: the path decoded, the names of headers in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Body


@dataclass(slots=True)
class Response:
    """What it is answered: ``length`` is the size of the body in bytes.

    With None the end of the connection ends the body. A body of another length than was
    promised ends the connection, so that the client sees it. For HEAD it is never begun.
    """

    status: HTTPStatus
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Iterable[Piece] = ()
    length: int | None = 0


class HttpServer:
    """A server that answers every request with what ``respond`` makes of it.

    ``respond`` is called from many threads, ``connections`` of them at most: further clients
    wait. When it raises OSError, or the body it gives that or AirgapError, the connection is
    reset, so that no client takes half an answer for a whole one. A context manager; stopping
    ends every connection and waits for its thread.
    """

    def __init__(
        self,
        respond: Handler,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        tls: ssl.SSLContext | None = None,
        log: Log | None = None,
        patience: float = _PATIENCE,
        connections: int = _CONNECTIONS,
    ) -> None:
        self.address = (host, port)
        self._respond = respond
        self._tls = tls
        self._log = log or (lambda _: None)
        self._patience = patience
        self._most = connections
        self._listener: socket.socket | None = None
        self._lock = threading.Lock()
        self._connections: dict[threading.Thread, socket.socket] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def host(self) -> str:
        """The ``host:port`` that clients use; a port of 0 is replaced by starting."""
        return self.called(self.address[0])

    def called(self, name: str) -> str:
        """Return ``name:port``, for another name of this machine."""
        return f"[{name}]:{self.address[1]}" if ":" in name else f"{name}:{self.address[1]}"

    @property
    def url(self) -> str:
        """The address with its scheme."""
        return f"{'https' if self._tls else 'http'}://{self.host}"

    def start(self) -> None:
        """Listen and begin to answer. Raises UsageError when the address cannot be had."""
        host, port = self.address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        except (OSError, OverflowError) as error:
            raise UsageError(
                f"cannot listen on {printable(self.host)}: {error}",
                hint="Choose another port, or 0 for any that is free.",
            ) from error
        listener.setblocking(False)
        self.address = (host, listener.getsockname()[1])
        self._listener = listener
        self._waker, woken = socket.socketpair()
        self._acceptor = threading.Thread(
            target=self._accept, args=(listener, woken), name=f"listen {self.host}", daemon=True
        )
        self._acceptor.start()

    def stop(self) -> None:
        """Stop listening, end every connection, wait for the threads. Safe to call twice."""
        if self._listener is None:
            return
        self._waker.close()
        self._acceptor.join()
        self._listener.close()
        self._listener = None
        with self._lock:
            connections = dict(self._connections)
        for connection in connections.values():
            with contextlib.suppress(OSError):
                # Past SSLSocket's own shutdown, which pulls the session from under its reader.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
        for thread in connections:
            thread.join()

    def _accept(self, listener: socket.socket, woken: socket.socket) -> None:
        with woken, selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            selector.register(woken, selectors.EVENT_READ)
            while all(key.fileobj is not woken for key, _ in selector.select()):
                if len(self._connections) >= self._most:
                    time.sleep(_BREATH)
                    continue
                try:
                    self._admit(*listener.accept())
                except BlockingIOError:
                    continue
                except (OSError, RuntimeError) as error:  # no descriptors left, or no threads
                    self._log(f"cannot take a connection: {error}")
                    time.sleep(_BREATH)

    def _admit(self, connection: socket.socket, client: tuple[str, int]) -> None:
        with contextlib.ExitStack() as unless_served:
            unless_served.callback(connection.close)
            connection.settimeout(self._patience)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                connection = self._tls.wrap_socket(
                    connection, server_side=True, do_handshake_on_connect=False
                )
                unless_served.callback(connection.close)
            thread = threading.Thread(
                target=self._serve, args=(connection, client[0]), name="serve", daemon=True
            )
            with self._lock:  # which its end needs, so it cannot end before it is known
                thread.start()
                self._connections[thread] = connection
            unless_served.pop_all()

    def _serve(self, connection: socket.socket, client: str) -> None:
        try:
            with (
                connection,
                cast("BufferedReader", connection.makefile("rb", _READ_AHEAD)) as reader,
            ):
                _Connection(connection, reader, self._respond, self._log, client).serve()
        except (OSError, AirgapError) as error:
            self._log(f"{client}: {error}")
        finally:
            with self._lock:
                del self._connections[threading.current_thread()]


def tls_context(certificate: Path, key: Path | None = None) -> ssl.SSLContext:
    """Return what a server needs for TLS; without ``key`` the certificate's file holds it too.

    Raises UsageError when they cannot be read or do not belong together.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:  # ssl.SSLError is one
        files = f"{certificate} and {key}" if key is not None else str(certificate)
        raise UsageError(f"cannot serve TLS with {files}: {error}") from error
    return context


class _Connection:
    """One client's requests, answered one after the other."""

    def __init__(
        self,
        connection: socket.socket,
        reader: BufferedReader,
        respond: Handler,
        log: Log,
        client: str,
    ) -> None:
        self._socket = connection
        self._reader = reader
        self._respond = respond
        self._log = log
        self._client = client
        self._closing = False

    def serve(self) -> None:
        if isinstance(self._socket, ssl.SSLSocket):
            self._socket.do_handshake()
        try:
            while not self._closing and (request := self._next_request()) is not None:
                self._answer(request)
        except BadRequest as error:
            self._send("", _refusal(error))
        except BaseException:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            raise
        self._close_gently()

    def _next_request(self) -> Request | None:
        """Return the next request, None when the client has no more, or is silent for long."""
        try:
            line = self._reader.readline(_LINE)
            if line == b"\r\n":  # allowed for clients that end a body with an empty line
                line = self._reader.readline(_LINE)
        except (TimeoutError, ConnectionError):
            return None
        if not line:
            return None
        self._closing = True  # until the head turns out to be sound
        match = _REQUEST_LINE.fullmatch(_text(line))
        if match is None:
            raise BadRequest("not a request of HTTP/1.1")
        method, target, minor = match.groups()
        headers = self._headers()
        body = self._body(headers)
        path, query = _split_target(target)
        options = headers.get("connection", "").lower()
        self._closing = minor == "0" or "close" in options
        return Request(method, path, query, headers, body)

    def _headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        for _ in range(_HEADERS):
            line = self._reader.readline(_LINE)
            if line == b"\r\n":
                return headers
            match = _HEADER.fullmatch(_text(line))
            if match is None:
                raise BadRequest("not a header")
            name, value = match[1].lower(), match[2].rstrip(" \t")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        raise BadRequest("too many headers", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def _body(self, headers: Mapping[str, str]) -> Body:
        invite = self._invite if headers.get("expect", "").lower() == "100-continue" else None
        length, coding = headers.get("content-length"), headers.get("transfer-encoding")
        if coding is not None:
            if length is not None or coding.lower() != "chunked":
                raise BadRequest("a body with two lengths, or coded in an unknown way")
            return Body(self._reader, None, invite)
        if length is not None and _LENGTH.fullmatch(length) is None:
            raise BadRequest("Content-Length is no number")
        return Body(self._reader, int(length or 0), invite)

    def _invite(self) -> None:
        self._socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _answer(self, request: Request) -> None:
        try:
            response = self._respond(request)
        except BadRequest as error:
            response = _refusal(error)
        except OSError:
            raise
        except Exception:
            # A bug: the client hears of it, and so does whoever watches the threads.
            self._closing = True
            self._send("", _failure())
            self._close_gently()
            raise
        self._log(f"{self._client} {request.method} {printable(request.path)} {response.status}")
        if not request.body.finished:
            self._leave_or_drain(request.body)
        self._send(request.method, response)

    def _leave_or_drain(self, body: Body) -> None:
        if not body.is_worth_draining():
            self._closing = True
            return
        for _ in body:
            pass

    def _send(self, method: str, response: Response) -> None:
        """Send an answer; one that is not as long as promised ends the connection."""
        self._closing = self._closing or response.length is None
        head = _head(response, self._closing)
        if method == "HEAD" or response.length == 0:
            self._socket.sendall(head)
            return
        self._send_with_more(head)
        sent = 0
        for piece in response.body:
            sent += self._send_piece(piece)
        if response.length is not None and sent != response.length:
            self._closing = True
            self._log(f"{self._client}: a body of {sent} bytes, not {response.length}")

    def _send_with_more(self, head: bytes) -> None:
        """Send a head so that it shares its packet with the body's start, where TCP allows."""
        if isinstance(self._socket, ssl.SSLSocket):
            self._socket.sendall(head)
        else:
            self._socket.sendall(head, _MSG_MORE)

    def _send_piece(self, piece: Piece) -> int:
        if isinstance(piece, bytes | memoryview):
            self._socket.sendall(piece)
            return len(piece)
        if isinstance(self._socket, ssl.SSLSocket):
            self._copy_span(piece)
        else:
            self._send_span(piece)
        return piece.length

    def _send_span(self, span: Span) -> None:
        position, end = span.offset, span.offset + span.length
        while position < end:
            count = min(end - position, _SENDFILE_MAXIMUM)
            try:
                sent = os.sendfile(self._socket.fileno(), span.descriptor, position, count)
            except BlockingIOError:
                self._wait_until_writable()
                continue
            if not sent:
                raise _file_ends(position, end)
            position += sent

    def _copy_span(self, span: Span) -> None:
        position, end = span.offset, span.offset + span.length
        while position < end:
            data = os.pread(span.descriptor, min(end - position, _PIECE), position)
            if not data:
                raise _file_ends(position, end)
            self._socket.sendall(data)
            position += len(data)

    def _wait_until_writable(self) -> None:
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        patience = self._socket.gettimeout()
        if not poll.poll(None if patience is None else patience * 1000):
            raise TimeoutError("the client does not read the answer")

    def _close_gently(self) -> None:
        """End the connection so that the last answer survives a body that is still coming."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_WR)
            self._socket.settimeout(_LINGER)
            deadline = time.monotonic() + _LINGER
            while time.monotonic() < deadline and socket.socket.recv(self._socket, _READ_AHEAD):
                pass


def _text(line: bytes) -> str:
    """Return a line of a head without its end. Raises BadRequest when it has none."""
    if not line.endswith(b"\r\n"):
        raise BadRequest("a line of the head is cut or too long")
    return line[:-2].decode("latin-1")


def _split_target(target: str) -> tuple[str, dict[str, str]]:
    """Return the decoded path and the query of a request's target, in any of its forms."""
    if "://" in target and not target.startswith("/"):
        target = "/" + target.partition("://")[2].partition("/")[2]
    path, _, query = target.partition("?")
    values = dict(parse_qsl(query, keep_blank_values=True)) if query else {}
    return unquote(path) if "%" in path else path, values


def _head(response: Response, closing: bool) -> bytes:
    status = response.status
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", f"Date: {_date(int(time.time()))}"]
    lines += [f"{name}: {value}" for name, value in response.headers.items()]
    if response.length is not None and status != HTTPStatus.NO_CONTENT:
        lines.append(f"Content-Length: {response.length}")
    if closing:
        lines.append("Connection: close")
    return "\r\n".join((*lines, "\r\n")).encode("latin-1")


@functools.lru_cache(maxsize=1)
def _date(seconds: int) -> str:
    return formatdate(seconds, usegmt=True)


def _refusal(error: BadRequest) -> Response:
    text = f"{error}\n".encode()
    return Response(error.status, {"Content-Type": "text/plain"}, (text,), len(text))


def _failure() -> Response:
    return _refusal(BadRequest("internal error", HTTPStatus.INTERNAL_SERVER_ERROR))


def _file_ends(position: int, end: int) -> OSError:
    return OSError(f"a file ends at {position}, {end - position} bytes too early")
