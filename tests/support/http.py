"""A scripted HTTP server in a thread: a function from what was asked to what is answered."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import struct
import subprocess
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from airgap.errors import Interrupted
from tests.support import tripwire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from email.message import Message
    from pathlib import Path


@dataclass(frozen=True)
class Asked:
    """A request as it arrived. ``body`` is short when the client cut the connection.

    ``port`` is the client's: the same for all requests of a connection.
    """

    method: str
    path: str
    headers: Message
    body: bytes = b""
    port: int = 0

    @property
    def authorization(self) -> str | None:
        return self.headers["Authorization"]


@dataclass(frozen=True)
class Reply:
    """What is answered.

    ``length`` is the Content-Length to claim (-1 for none, the end of the connection then is
    the end of the body); ``reset`` ends the connection with a RST after the body. With status 0
    nothing is answered.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    length: int | None = None
    reset: bool = False


def json_reply(document: Any, status: int = 200) -> Reply:
    return Reply(status, {"Content-Type": "application/json"}, json.dumps(document).encode())


class Server:
    """``host`` is its ``address:port``; ``asked`` is everything it was asked, in order."""

    def __init__(self, script: Callable[[Asked], Reply], tls: ssl.SSLContext | None) -> None:
        self.script = script
        self.asked: list[Asked] = []
        self._http = _Quiet(("127.0.0.1", 0), _handler(self))
        if tls is not None:
            self._http.socket = tls.wrap_socket(
                self._http.socket, server_side=True, do_handshake_on_connect=False
            )
        self.host = f"127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def paths(self) -> list[str]:
        return [f"{asked.method} {asked.path}" for asked in self.asked]

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@contextmanager
def serve(script: Callable[[Asked], Reply], tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    """Run a server that answers each request as ``script`` says."""
    server = Server(script, tls)
    try:
        yield server
    finally:
        server.close()


class FakeClock:
    """Time that passes only by sleeping; ``slept`` is each wait."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self.stopped = False

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.check()
        self.slept.append(seconds)
        self.now += seconds

    def check(self) -> None:
        if self.stopped:
            raise Interrupted("stopped")


def certificate(directory: Path) -> tuple[ssl.SSLContext, Path]:
    """Return a server's context for 127.0.0.1 and its self-signed certificate."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    key, cert = directory / "key.pem", directory / "cert.pem"
    command = (
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
        f" -subj /CN=test -addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {cert}"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context, cert


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that cut the connection are part of the tests."""


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

        def answer(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length)
            tripwire.watch({name.lower(): value for name, value in self.headers.items()})
            port = self.client_address[1]
            asked = Asked(self.command, self.path, self.headers, body, port)
            server.asked.append(asked)
            if len(body) < length:
                self.close_connection = True
                return
            self.send(server.script(asked))

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - theirs

        def send(self, reply: Reply) -> None:
            if reply.status == 0:
                self.close_connection = True
                return
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            length = len(reply.body) if reply.length is None else reply.length
            if length >= 0 and "Content-Length" not in reply.headers:
                self.send_header("Content-Length", str(length))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(reply.body)
            if reply.reset:
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            if reply.reset or length != len(reply.body):
                self.close_connection = True

    return Handler
