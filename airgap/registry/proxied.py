"""Connections through a proxy, as urllib3 makes them: tunnels, and TLS inside TLS.

Knows one connection and how it may fail; what is kept, and what is spoken over it, is others'.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, cast

from urllib3.connection import HTTPConnection, HTTPSConnection, ProxyConfig
from urllib3.exceptions import HTTPError, NameResolutionError
from urllib3.util import parse_url

from airgap.registry.connections import NameUnknown, NotConnected, ProxyFailed

if TYPE_CHECKING:
    from airgap.registry.connections import Way
    from airgap.registry.http_client import Stream


def connected_through_proxy(
    way: Way, seconds: float, context: ssl.SSLContext, verifying: ssl.SSLContext
) -> Stream:
    """Return a connection to a host through its proxy, which takes ``seconds`` at most.

    ``context`` is that of TLS to the host, ``verifying`` that of TLS to the proxy. Raises
    NotConnected and its kinds, and OSError, among it ``ssl.SSLError``, for what broke afterwards.
    """
    made = _made(way, seconds, context, verifying)
    try:
        made.connect()
    except (OSError, HTTPError) as error:
        before_proxy = not made.has_connected_to_proxy
        made.close()
        if (failure := _failure(error, before_proxy)) is None:
            raise
        raise failure from error
    return cast("Stream", made.sock)


def _made(
    way: Way, seconds: float, context: ssl.SSLContext, verifying: ssl.SSLContext
) -> HTTPConnection:
    """Return what connects, as urllib3's own pools would set it up."""
    proxy = parse_url(way.proxy)
    scheme = proxy.scheme or "http"
    host = (proxy.host or "").strip("[]")
    port = proxy.port or (443 if scheme == "https" else 80)
    config = ProxyConfig(verifying, False, None, None)
    if not way.is_tls and scheme != "https":
        return HTTPConnection(host, port, timeout=seconds, proxy=proxy, proxy_config=config)
    made = HTTPSConnection(
        host, port, timeout=seconds, proxy=proxy, proxy_config=config, ssl_context=context
    )
    if way.is_tls:
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
