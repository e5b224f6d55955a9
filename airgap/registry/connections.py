"""Connections to hosts: how one is reached, straight or through a proxy, and those at rest.

What is spoken over a connection is http_client's. The exceptions of the layers below for one
that does not come about end here, but those of TLS, which say themselves what they are.
"""

from __future__ import annotations

import socket
import ssl
from base64 import b64encode
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from airgap.registry.http_client import Connection

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from urllib.parse import SplitResult

    from airgap.registry.http_client import Stream
    from airgap.registry.proxies import Proxies

_AT_REST = 64
"""How many unused connections are kept for each way."""


class NotConnected(Exception):
    """No connection came about; the exception it was raised from says why."""


class NameUnknown(NotConnected):
    """The host's name cannot be resolved."""


class ProxyFailed(NotConnected):
    """The proxy could not be reached, or gives no way to the host."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a host is reached. ``proxy`` is a URL, "" for straight; ``verified`` says that of TLS.

    Where it ``is_forwarded``, a request names its whole URL and has the ``proxy_headers``.
    """

    is_tls: bool
    host: str
    port: int
    verified: bool
    proxy: str = ""

    @property
    def is_forwarded(self) -> bool:
        """Whether the proxy makes the requests, instead of giving a tunnel."""
        return bool(self.proxy) and not self.is_tls

    @property
    def proxy_headers(self) -> Mapping[str, str]:
        """What a request to the proxy itself needs: the login that its URL holds."""
        parts = urlsplit(self.proxy)
        if parts.username is None:
            return {}
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        return {"Proxy-Authorization": f"Basic {b64encode(login.encode()).decode()}"}


class Connections:
    """The connections of a run, for any number of threads.

    ``take`` one for an exchange and ``give`` it back after it. ``verifying`` gives the context
    of TLS that is verified, always the same.
    """

    def __init__(self, proxies: Proxies, verifying: Callable[[], ssl.SSLContext]) -> None:
        self._proxies = proxies
        self._verifying = verifying
        self._unverifying = _unverifying_context()
        self._at_rest: dict[Way, deque[Connection]] = {}

    def way(self, parts: SplitResult, *, verified: bool) -> Way:
        """Return how the host of a URL is reached."""
        is_tls, host = parts.scheme == "https", parts.hostname or ""
        port = parts.port or (443 if is_tls else 80)
        proxy = self._proxies.choose(parts.scheme, host, port)
        return Way(is_tls, host, port, verified, proxy)

    def take(self, way: Way, seconds: float) -> Connection:
        """Return a connection: one at rest, or a new one that takes ``seconds`` at most.

        Raises NotConnected (NameUnknown and ProxyFailed are its kinds) and ``ssl.SSLError``.
        """
        resting = self._at_rest.get(way, ())
        while resting:
            try:
                connection = resting.pop()
            except IndexError:
                break  # Another thread was faster.
            if connection.is_quiet():
                return connection
            connection.close()
        return Connection(self._connect(way, seconds))

    def give(self, way: Way, connection: Connection) -> None:
        """Take a connection back whose exchange is over."""
        resting = self._at_rest.setdefault(way, deque())
        if connection.is_reusable and len(resting) < _AT_REST:
            resting.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Close every connection at rest."""
        for resting in self._at_rest.values():
            while resting:
                resting.pop().close()

    def _connect(self, way: Way, seconds: float) -> Stream:
        if way.proxy:
            # Loading it costs a fifth of the start of every command, and few have a proxy.
            from airgap.registry.proxied import connected_through_proxy

            return connected_through_proxy(way, seconds, self._context(way), self._verifying())
        made = _connected(way, seconds)
        if not way.is_tls:
            return made
        try:
            return self._context(way).wrap_socket(made, server_hostname=way.host.rstrip("."))
        except BaseException:
            made.close()
            raise

    def _context(self, way: Way) -> ssl.SSLContext:
        return self._verifying() if way.verified else self._unverifying


def _connected(way: Way, seconds: float) -> socket.socket:
    try:
        made = socket.create_connection((way.host, way.port), seconds)
    except (socket.gaierror, UnicodeError) as error:
        raise NameUnknown from error
    except OSError as error:
        raise NotConnected from error
    # A head would otherwise wait for the last one's acknowledgement.
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def _unverifying_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
