"""URLs that another host hands out: redirects, upload locations, token services, next pages.

Decides which of them may be followed, and how a URL may be shown: without its query, which
can be a signature, and without user information. Pure but for one look-up of a name, to
learn whether a registry is itself inside.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit, urlunsplit

from airgap.errors import RegistryError, printable

if TYPE_CHECKING:
    from urllib.parse import SplitResult

    from airgap.digest import Digest

HUB_API = "registry-1.docker.io"
"""Where docker.io answers."""

_DEFAULT_PORTS = {"https": 443, "http": 80}
_LEGACY_ADDRESS = re.compile(r"[0-9a-fx.]+", re.ASCII | re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x20\x7f]")
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def divided(url: str) -> tuple[str, str]:
    """Return what of a URL names the server, and what a request to it asks for: path and query.

    There are few servers and many requests: what follows from the first can be kept by it.
    """
    place, mark, query = url.partition("?")
    end = place.find("/", place.find("://") + 3)
    if end < 0:
        return place, f"/{mark}{query}"
    return place[:end], f"{place[end:]}{mark}{query}"


def authority(url: str) -> str:
    """Return ``host:port`` of a URL in the one form in which they are compared."""
    return _authority(divided(url)[0])


@lru_cache(maxsize=1024)
def _authority(server: str) -> str:
    parts = urlsplit(server)
    host = (parts.hostname or "").rstrip(".")
    port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def shown(url: str) -> str:
    """Return a URL fit for a message: scheme, host and path."""
    parts = urlsplit(url)
    return printable(f"{parts.scheme}://{authority(url)}{parts.path}")


def redirect_target(base: str, location: str) -> str:
    """Return where a redirect leads. Raises RegistryError for a place not to be visited."""
    return _visitable(base, location, "redirects")


def token_service(base: str, realm: str) -> str:
    """Return the URL of a challenge's realm. Raises RegistryError."""
    return _visitable(base, realm, "sends for a token")


def next_page(base: str, location: str) -> str:
    """Return the URL of a list's next page, which is at the same origin. Raises RegistryError."""
    target = _visitable(base, location, "sends for the next page")
    if authority(target) != authority(base):
        raise _refused(base, "sends for the next page", target, "which is another host")
    return target


def upload_target(base: str, location: str) -> str:
    """Return where an upload goes on. Raises RegistryError.

    A registry behind a TLS proxy may say ``http`` of itself; it keeps the scheme it was
    called with.
    """
    parts = _resolved(base, location)
    if parts.scheme == "http" and base.startswith("https:"):
        origin = urlsplit(base)
        if parts.hostname == origin.hostname:
            parts = parts._replace(scheme="https", netloc=origin.netloc)
    return _safe(base, parts, "sends an upload")


def with_digest(url: str, digest: Digest) -> str:
    """Return the URL of ``upload_target`` with the digest that completes it in its query."""
    path, _, query = url.partition("?")
    return f"{path}?{query}{'&' if query else ''}digest={digest.algorithm}%3A{digest.hex}"


def _visitable(base: str, location: str, does: str) -> str:
    """Resolve a location against the URL it came from, and refuse the unsafe ones."""
    return _safe(base, _resolved(base, location), does)


def _safe(base: str, parts: SplitResult, does: str) -> str:
    """Return the URL of these parts without its fragment. Raises RegistryError for unsafe ones."""
    target = urlunsplit(parts._replace(fragment=""))
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise _refused(base, does, target, "which is no HTTP URL")
    if parts.scheme == "http" and base.startswith("https:"):
        raise _refused(base, does, target, "which would leave TLS")
    if "@" in parts.netloc:
        raise _refused(base, does, target, "which names a user")
    if authority(target) != authority(base):
        _refuse_inside(base, parts.hostname, does, target)
    return target


def _refuse_inside(base: str, host: str, does: str, target: str) -> None:
    """Refuse an address of this machine or network, unless the registry is inside as well."""
    address = _literal(host)
    if address is not None and (
        address.is_link_local or address.is_unspecified or address.is_multicast
    ):
        raise _refused(base, does, target, "which is no address for a registry")
    inside = host == "localhost" or host.endswith(".localhost")
    if (inside or (address is not None and not address.is_global)) and not _is_inside(base):
        raise _refused(base, does, target, "which is inside, while the registry is not")


def _is_inside(url: str) -> bool:
    """Say whether a registry's every address is a private one."""
    host = urlsplit(url).hostname or ""
    literal = _literal(host)
    if literal is not None:
        return not literal.is_global
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
        return bool(found) and all(not ipaddress.ip_address(text).is_global for text in found)
    except (OSError, ValueError):
        return False


def _literal(host: str) -> _Address | None:
    """Return the address that a host is, in any spelling the C library takes, or None."""
    try:
        address: _Address = ipaddress.ip_address(host)
    except ValueError:
        if _LEGACY_ADDRESS.fullmatch(host) is None:
            return None
        try:
            return ipaddress.IPv4Address(socket.inet_aton(host))
        except OSError:
            return None
    mapped = getattr(address, "ipv4_mapped", None)
    return address if mapped is None else mapped


def _resolved(base: str, location: str) -> SplitResult:
    """Join and split; control characters are refused first, as ``urlsplit`` drops them."""
    try:
        if _CONTROL.search(location):
            raise ValueError("a control character")
        parts = urlsplit(location)
        if not (parts.scheme and parts.netloc):
            parts = urlsplit(urljoin(base, location))
        _ = parts.port
    except ValueError as error:
        raise RegistryError(f"{shown(base)} answers with a malformed URL") from error
    return parts


def _refused(base: str, does: str, target: str, why: str) -> RegistryError:
    parts = urlsplit(target)
    to = printable(f"{parts.scheme}://{parts.hostname or ''}")
    return RegistryError(f"{shown(base)} {does} to {to}, {why}: refused")
