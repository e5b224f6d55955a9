"""A proxy with scripted faults, between a client and a real registry.

What a rule leaves alone is forwarded to the registry behind. ``Gate`` is a login as public
registries have it: a token service that wants a password, and tokens that expire.
"""

from __future__ import annotations

import base64
import http.client
import json
import threading
from http import HTTPStatus
from typing import TYPE_CHECKING, Self
from urllib.parse import quote, urlencode

from airgap.registry.http_server import HttpServer, Response
from tests.support import tripwire
from tests.support.faults import Scripted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airgap.registry.http_server import Request
    from tests.support.faults import Exchange

_READ = 64 << 10
_PATIENCE = 30.0
_NOT_FORWARDED = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "te", "upgrade"}
)


class Gate:
    """Asks for a Bearer token, and gives one to who has the password."""

    def __init__(self, user: str, password: str) -> None:
        pair = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._accepted = f"Basic {pair}"
        self._mark = f"token-canary-{id(self):x}"
        self._valid: set[str] = set()
        self._given = 0
        self._lock = threading.Lock()

    def expired(self, exchange: Exchange) -> Response:
        """The fault of a token that expires just before it is used."""
        with self._lock:
            self._valid.discard(_token_in(exchange.request))
        return exchange.honest()

    def refusal(self, request: Request, host: str) -> Response | None:
        """Return what somebody is answered who has no business behind the gate yet."""
        said = request.headers.get("authorization", "")
        if request.path == "/token":
            return self._token(host) if said == self._accepted else _unauthorized("Basic realm=x")
        if _token_in(request) in self._valid:
            return None
        return _unauthorized(f'Bearer realm="http://{host}/token",service="{host}"')

    def _token(self, host: str) -> Response:
        with self._lock:
            self._given += 1
            token = f"{tripwire.plant(self._mark, host)}-{self._given}"
            self._valid.add(token)
        body = json.dumps({"token": token, "expires_in": 3600}).encode()
        return Response(HTTPStatus.OK, {"Content-Type": "application/json"}, (body,), len(body))


class FaultProxy(Scripted):
    """Forwards to the registry at ``behind`` (``host:port``, in plain HTTP); a context manager.

    ``received`` counts the bytes of request bodies that were forwarded.
    """

    def __init__(self, behind: str, gate: Gate | None = None) -> None:
        super().__init__()
        self.received = 0
        self._behind = behind
        self._gate = gate
        self._http = HttpServer(lambda request: self.meet(request, self._honest))
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()

    @property
    def host(self) -> str:
        return self._http.host

    def __enter__(self) -> Self:
        self._http.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.heal()
        self._http.stop()
        for connection in self._idle:
            connection.close()

    def _honest(self, request: Request) -> Response:
        if self._gate is not None:
            refusal = self._gate.refusal(request, self.host)
            if refusal is not None:
                return refusal
        return self._forwarded(request)

    def _forwarded(self, request: Request) -> Response:
        with self._lock:
            idle = self._idle.pop() if self._idle else None
        connection = idle or http.client.HTTPConnection(self._behind, timeout=_PATIENCE)
        try:
            connection.request(
                request.method,
                _target(request),
                self._counted(request.body) if request.body.length != 0 else None,
                self._headers(request),
                encode_chunked=request.body.length is None,
            )
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise ConnectionResetError(f"the registry behind fails: {error}") from error
        length = response.headers.get("Content-Length")
        body = self._body(connection, response)
        next(body)  # From now on its end is reached, even when nobody reads it.
        return Response(
            HTTPStatus(response.status),
            {n: v for n, v in response.getheaders() if n.lower() not in _NOT_FORWARDED},
            body,
            int(length) if length is not None else 0 if response.status == 204 else None,
        )

    def _headers(self, request: Request) -> dict[str, str]:
        headers = {n: v for n, v in request.headers.items() if n not in _NOT_FORWARDED}
        if self._gate is not None:
            headers.pop("authorization", None)
        if request.body.length is None:
            headers["transfer-encoding"] = "chunked"
        elif "content-length" in request.headers:
            headers["content-length"] = str(request.body.length)
        return headers

    def _counted(self, body: Iterable[memoryview]) -> Iterator[memoryview]:
        for piece in body:
            with self._lock:
                self.received += len(piece)
            yield piece

    def _body(
        self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse
    ) -> Iterator[bytes]:
        try:
            yield b""
            while piece := response.read(_READ):
                yield piece
        finally:
            if response.isclosed():
                with self._lock:
                    self._idle.append(connection)
            else:
                response.close()
                connection.close()


def _token_in(request: Request) -> str:
    return request.headers.get("authorization", "").removeprefix("Bearer ")


def _target(request: Request) -> str:
    path = quote(request.path, safe="/:@")
    return f"{path}?{urlencode(request.query)}" if request.query else path


def _unauthorized(challenge: str) -> Response:
    return Response(HTTPStatus.UNAUTHORIZED, {"WWW-Authenticate": challenge})
