"""Which proxy a request goes through, from the environment variables that everybody sets.

``HTTPS_PROXY``, ``HTTP_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``, in either case of letters;
``NO_PROXY`` with names, ``.suffixes``, addresses, networks (CIDR) and ports.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from airgap.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, repr=False)
class Proxies:
    """The proxy of each scheme ("" for none) and the hosts that are reached without one.

    A proxy's URL may hold a password, so there is no ``repr``.
    """

    https: str = ""
    http: str = ""
    exceptions: tuple[str, ...] = ()

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Proxies:
        """Read the variables. Raises UsageError for a proxy that is no http or https URL."""
        everything = _variable(environ, "ALL_PROXY")
        exceptions = _variable(environ, "NO_PROXY").split(",")
        return cls(
            https=_proxy_url(_variable(environ, "HTTPS_PROXY") or everything, "HTTPS_PROXY"),
            http=_proxy_url(_variable(environ, "HTTP_PROXY") or everything, "HTTP_PROXY"),
            exceptions=tuple(text.strip().lower() for text in exceptions if text.strip()),
        )

    def choose(self, scheme: str, host: str, port: int) -> str:
        """Return the URL of the proxy for an origin, "" to go straight."""
        proxy = self.https if scheme == "https" else self.http
        if not proxy or any(_covers(exception, host, port) for exception in self.exceptions):
            return ""
        return proxy


def _variable(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name.lower()) or environ.get(name) or ""


def _proxy_url(text: str, variable: str) -> str:
    if not text:
        return ""
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        # The value is not shown: it may hold a password.
        raise UsageError(f"${variable} is not the URL of an HTTP proxy")
    return url


def _covers(exception: str, host: str, port: int) -> bool:
    host = host.lower().strip("[]").rstrip(".")
    if exception == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(exception.strip("[]"), False)
    except ValueError:
        pass  # One of the two is a name.
    name, colon, number = exception.rpartition(":")
    if colon and number.isdigit():
        return int(number) == port and _covers(name, host, port)
    bare = exception.removeprefix("*").removeprefix(".")
    return bool(bare) and (host == bare or host.endswith(f".{bare}"))
