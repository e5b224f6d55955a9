"""Connections to hosts: how one is reached, straight or through a proxy, and those at rest.

Making a connection (names, TLS, tunnels through proxies) is urllib3's; what is spoken over it
is http_client's. The standard library's and urllib3's own exceptions for a connection that does
not come about end here, but those of TLS, which say themselves what they are.
"""

from __future__ import annotations

import ssl
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote, urlsplit

from urllib3.connection import HTTPConnection, HTTPSConnection, ProxyConfig
from urllib3.exceptions import HTTPError, NameResolutionError
from urllib3.util import make_headers, parse_url

from airgap.registry.http_client import Connection

if TYPE_CHECKING:
    from collections.abc import Mapping
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
        return make_headers(proxy_basic_auth=login)


class Connections:
    """The connections of a run, for any number of threads.

    ``take`` one for an exchange and ``give`` it back after it.
    """

    def __init__(self, proxies: Proxies, verifying: ssl.SSLContext) -> None:
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
        made = self._made(way, seconds)
        try:
            made.connect()
        except (OSError, HTTPError) as error:
            before_proxy = bool(way.proxy) and not made.has_connected_to_proxy
            made.close()
            if (failure := _failure(error, before_proxy)) is None:
                raise
            raise failure from error
        return cast("Stream", made.sock)

    def _made(self, way: Way, seconds: float) -> HTTPConnection:
        """Return what connects, as urllib3's own pools would set it up."""
        proxy = parse_url(way.proxy) if way.proxy else None
        scheme = (proxy.scheme if proxy else None) or "http"
        host, port = way.host, way.port
        if proxy is not None:
            host = (proxy.host or "").strip("[]")
            port = proxy.port or (443 if scheme == "https" else 80)
        context = self._verifying if way.verified else self._unverifying
        config = ProxyConfig(self._verifying, False, None, None) if proxy else None
        made: HTTPConnection
        if way.is_tls or scheme == "https":
            made = HTTPSConnection(
                host, port, timeout=seconds, proxy=proxy, proxy_config=config, ssl_context=context
            )
        else:
            made = HTTPConnection(host, port, timeout=seconds, proxy=proxy, proxy_config=config)
        if proxy is not None and way.is_tls:
            made.set_tunnel(way.host, way.port, way.proxy_headers, scheme)
        return made


def _failure(error: OSError | HTTPError, before_proxy: bool) -> NotConnected | None:
    """Return what kept a connection from coming about, None when it broke after it stood."""
    if isinstance(error, ssl.SSLError):
        return None
    if before_proxy or str(error).startswith("Tunnel connection failed"):
        return ProxyFailed()
    if isinstance(error, NameResolutionError):
        return NameUnknown()
    return NotConnected() if isinstance(error, HTTPError) else None


def _unverifying_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
