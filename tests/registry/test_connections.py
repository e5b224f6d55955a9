"""Ways to a host, over real sockets: at rest, in TLS, and through proxies of both kinds."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from airgap.registry.connections import Connections, NameUnknown, NotConnected, ProxyFailed
from airgap.registry.proxies import Proxies
from airgap.registry.transport import Request, Transport
from tests.support.http import Asked, FakeClock, Reply, certificate, serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


class Tunnels:
    """A proxy that gives tunnels; ``asked`` is each head it was sent. In TLS with a context."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._tls = tls
        self._open: list[socket.socket] = [self._listener]
        self.asked: list[bytes] = []
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._listen)]
        self._threads[0].start()

    def __enter__(self) -> Tunnels:
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join()

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if self._tls is not None:
                    near = self._tls.wrap_socket(near, server_side=True)
                self._open.append(near)
                self._dig(near)

    def _dig(self, near: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += near.recv(4096)
        self.asked.append(head)
        host, _, port = head.split()[1].decode().rpartition(":")
        far = socket.create_connection((host, int(port)))
        self._open.append(far)
        near.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        for a, b in ((near, far), (far, near)):
            thread = threading.Thread(target=_carry, args=(a, b))
            thread.start()
            self._threads.append(thread)


def _carry(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(1 << 16):
            target.sendall(piece)
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


def ok(_: Asked) -> Reply:
    return Reply(200, {}, b"content")


def fetched(
    stack: ExitStack, url: str, environ: dict[str, str], authority: Path | None = None
) -> bytes:
    sender = Transport(environ=environ, certificate_authority=authority, clock=FakeClock())
    stack.callback(sender.close)
    with sender.send(Request("GET", url, "x", authorization="Bearer t")) as answer:
        return answer.read(100)


def test_a_tunnel_hides_everything_but_the_host_from_the_proxy(
    stack: ExitStack, tmp_path: Path
) -> None:
    tls, authority = certificate(tmp_path)
    server, proxy = stack.enter_context(serve(ok, tls)), stack.enter_context(Tunnels())
    environ = {"HTTPS_PROXY": f"http://user:p%40ss@{proxy.host}"}
    assert fetched(stack, f"https://{server.host}/secret", environ, authority) == b"content"
    (head,) = proxy.asked
    assert head.startswith(f"CONNECT {server.host} ".encode())
    assert b"Proxy-Authorization: Basic dXNlcjpwQHNz\r\n".lower() in head.lower()
    assert b"secret" not in head
    assert b"Bearer" not in head
    assert server.asked[0].headers["Proxy-Authorization"] is None
    assert server.asked[0].headers["Host"] == server.host


def test_a_tunnel_may_lead_through_a_proxy_in_tls(stack: ExitStack, tmp_path: Path) -> None:
    tls, authority = certificate(tmp_path)
    server, proxy = stack.enter_context(serve(ok, tls)), stack.enter_context(Tunnels(tls))
    environ = {"HTTPS_PROXY": f"https://{proxy.host}"}
    assert fetched(stack, f"https://{server.host}/", environ, authority) == b"content"
    assert len(proxy.asked) == 1


def test_a_proxy_in_tls_makes_plain_requests_itself(stack: ExitStack, tmp_path: Path) -> None:
    tls, authority = certificate(tmp_path)
    proxy = stack.enter_context(serve(ok, tls))
    environ = {"HTTP_PROXY": f"https://{proxy.host}"}
    url = "http://registry.invalid:5000/v2/?a=b"
    assert fetched(stack, url, environ, authority) == b"content"
    assert proxy.asked[0].path == url
    assert proxy.asked[0].headers["Host"] == "registry.invalid:5000"


def connections(stack: ExitStack, environ: dict[str, str] | None = None) -> Connections:
    made = Connections(Proxies.from_environ(environ or {}), ssl.create_default_context)
    stack.callback(made.close)
    return made


def closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def test_a_connection_is_taken_again_until_it_is_closed(stack: ExitStack) -> None:
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    kept = connections(stack)
    way = kept.way(urlsplit(f"http://127.0.0.1:{listener.getsockname()[1]}"), verified=True)
    first = kept.take(way, 5)
    far, _ = listener.accept()
    kept.give(way, first)
    assert kept.take(way, 5) is first
    kept.give(way, first)
    far.close()
    second = kept.take(way, 5)
    assert second is not first
    second.is_reusable = False
    kept.give(way, second)
    third = kept.take(way, 5)
    assert third is not second
    third.close()


def test_two_ways_share_no_connection(stack: ExitStack) -> None:
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    kept = connections(stack)
    parts = urlsplit(f"http://127.0.0.1:{listener.getsockname()[1]}")
    one, other = kept.way(parts, verified=True), kept.way(parts, verified=False)
    first = kept.take(one, 5)
    kept.give(one, first)
    second = kept.take(other, 5)
    assert second is not first
    second.close()


@pytest.mark.parametrize(
    ("url", "proxy", "kind"),
    [
        ("http://{closed}", "", NotConnected),
        ("https://{closed}", "", NotConnected),
        ("http://registry.invalid", "", NameUnknown),
        ("http://registry.invalid", "http://{closed}", ProxyFailed),
        ("https://registry.invalid", "http://{closed}", ProxyFailed),
        ("https://registry.invalid", "http://proxy.invalid", ProxyFailed),
    ],
)
def test_what_kept_a_connection_from_coming_about(
    stack: ExitStack, url: str, proxy: str, kind: type[NotConnected]
) -> None:
    closed = closed_port()
    kept = connections(stack, {"ALL_PROXY": proxy.format(closed=closed)})
    way = kept.way(urlsplit(url.format(closed=closed)), verified=True)
    with pytest.raises(NotConnected) as caught:
        kept.take(way, 5)
    assert type(caught.value) is kind


def test_a_host_that_hangs_up_in_the_handshake_broke_the_connection(stack: ExitStack) -> None:
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    kept = connections(stack)
    way = kept.way(urlsplit(f"https://127.0.0.1:{listener.getsockname()[1]}"), verified=True)
    hanging_up = threading.Thread(target=lambda: listener.accept()[0].close())
    hanging_up.start()
    with pytest.raises(OSError, match=r"EOF|reset|closed"):
        kept.take(way, 5)
    hanging_up.join()
