"""HTTP as this program speaks it: connections, TLS, proxies, redirects, bounded reads.

A request carries exactly the headers it is given, a redirect is followed without credentials,
and content is taken undecoded: there are no cookies, no netrc, no settings from the environment
but the proxies, because each of them sends what nobody asked for. How a request looks on the
wire is ``http_client``'s, how its host is reached ``connections``'.

Every exception of ``ssl``, ``socket`` and of what is below ends at this border: it becomes an
error of the program or, if it may pass, ``Temporary``. Knows nothing of registries or tokens.
"""

from __future__ import annotations

import logging
import ssl
import threading
from collections import defaultdict
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from airgap import __version__, limits
from airgap.errors import RegistryError, Unreachable, UsageError, printable
from airgap.reference import is_hub
from airgap.registry import locations, pace
from airgap.registry.account import Account
from airgap.registry.connections import Connections, NameUnknown, NotConnected, ProxyFailed
from airgap.registry.http_client import CutShort, HungUp, NotHttp
from airgap.registry.pace import Pace
from airgap.registry.proxies import Proxies
from airgap.registry.retry import (
    ATTEMPTS_BY_STATUS,
    Attempts,
    Clock,
    Standing,
    StoppableClock,
    Temporary,
    requested_delay,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from urllib.parse import SplitResult

    from airgap.digest import Bytes
    from airgap.registry.connections import Way
    from airgap.registry.http_client import Reply

_log = logging.getLogger(__name__)

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_UNSETTLED = frozenset({*ATTEMPTS_BY_STATUS, *_REDIRECTS, 202, 401})
"""Answers that give no hope yet: another host, perhaps the lost one, may have to answer first.

202 opens an upload, which may go on elsewhere.
"""

_WITH_CONTENT = frozenset({"POST", "PUT", "PATCH"})
"""Methods for which some servers want a length even of nothing (411)."""

_STALL_SECONDS = 60
_STALL_BYTES = _STALL_SECONDS * limits.KIB

_DEFAULT_PORTS = {"https": ":443", "http": ":80"}
_ALWAYS = {"User-Agent": f"airgap/{__version__}", "Accept-Encoding": "identity"}
_BREAKS = (OSError, NotHttp, NotConnected, ValueError)
"""What an exchange ends with when it does not come to its answer."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a host may be silent before a connection to it is given up, in seconds.

    ``connect`` until it takes a connection, ``read`` between two pieces of an answer, ``write``
    until it takes a piece of an upload, ``verdict`` until it has checked and moved a large blob
    that it has whole.
    """

    connect: float = 10
    read: float = 60
    write: float = 60
    verdict: float = 300


@dataclass(frozen=True, slots=True)
class Request:
    """One request. ``what`` says in errors what was being done.

    ``body`` is given anew for every attempt, with its ``length`` in bytes. ``insecure``: TLS
    is not verified. ``authorization`` never leaves the request's own host. ``lane`` is the
    registry on whose account it goes, wherever it is redirected to; "" for none.
    """

    method: str
    url: str
    what: str
    headers: Mapping[str, str] = field(default_factory=dict)
    authorization: str | None = field(default=None, repr=False)
    body: Callable[[], Iterator[Bytes]] | bytes | None = None
    length: int = 0
    insecure: bool = False
    lane: str = ""


class Answer:
    """An answer whose body has not been read. Close it, or read it to the end.

    ``url`` is where it came from; ``redirected`` says that this is not where it was asked for.
    """

    __slots__ = (
        "_clock",
        "_lane",
        "_pace",
        "_reply",
        "headers",
        "redirected",
        "status",
        "url",
        "what",
    )

    def __init__(self, reply: Reply, request: Request, clock: Clock, pace: Pace) -> None:
        self._reply = reply
        self._clock = clock
        self._pace = pace
        self._lane = request.lane
        self.status = reply.status
        self.headers: Mapping[str, str] = reply.headers
        self.url = request.url
        self.what = request.what
        self.redirected = False

    def all_of(self, header: str) -> list[str]:
        """Return every value of a header that may come several times."""
        return self._reply.headers.all_of(header)

    @property
    def length(self) -> int | None:
        """What Content-Length says, or None when it says nothing sensible."""
        text = self.headers.get("Content-Length", "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None

    @property
    def is_web_page(self) -> bool:
        """Whether a person was meant to read this: the page of a proxy or a portal."""
        return self.headers.get("Content-Type", "").lower().startswith("text/html")

    def pieces(self) -> Iterator[bytes]:
        """Give the body as it is on the wire, in pieces of about ``limits.CHUNK``.

        Raises Temporary when it breaks off or stalls (less than 1 KiB/s for a minute), and
        Interrupted. Leaves the connection to others when read to the end.
        """
        watch, count = self._clock.monotonic(), 0
        parts: list[bytes] = []
        gathered = 0
        try:
            while part := self._some(limits.CHUNK - gathered):
                parts.append(part)
                gathered += len(part)
                count += len(part)
                self._pace.moved(self._lane, len(part))
                if gathered == limits.CHUNK:
                    yield parts[0] if len(parts) == 1 else b"".join(parts)
                    parts, gathered = [], 0
                self._clock.check()
                if (now := self._clock.monotonic()) - watch >= _STALL_SECONDS:
                    if count < _STALL_BYTES:
                        raise self._broken(f"only {count} bytes in {now - watch:.0f} seconds")
                    watch, count = now, 0
        except Temporary:
            if parts:
                yield b"".join(parts)  # A poor line would otherwise never get anywhere.
            raise
        if parts:
            yield b"".join(parts)

    def read(self, limit: int) -> bytes:
        """Return the body. Raises RegistryError when there is more of it than ``limit``."""
        if (self.length or 0) <= limit:
            content = b"".join(self._bounded(limit))
            if len(content) <= limit:
                return content
        self.close()
        raise RegistryError(
            f"{self.what}: the answer of {locations.shown(self.url)} is longer than {limit} bytes",
            status=self.status,
        )

    def start(self, limit: int) -> bytes:
        """Return the body's first bytes, at most ``limit``, whatever becomes of the rest."""
        try:
            return b"".join(self._bounded(limit))[:limit]
        except Temporary:
            return b""  # It would only have explained an answer that stands without it.
        finally:
            self.close()

    def close(self) -> None:
        """Cut the connection when part of the body is still to come: it may be a lie to wait on."""
        self._reply.close()

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _bounded(self, limit: int) -> Iterator[bytes]:
        count = 0
        for piece in self.pieces():
            yield piece
            count += len(piece)
            if count > limit:
                return

    def _some(self, limit: int) -> bytes:
        try:
            return self._reply.read(limit)
        except TimeoutError as error:
            raise self._broken("nothing arrived for too long") from error
        except _BREAKS as error:
            raise self._broken(f"the connection broke: {_reason(error)}") from error

    def _broken(self, why: str) -> Temporary:
        self._reply.close()
        self._pace.too_much(self._lane)
        return Temporary(Unreachable(f"{self.what}: {locations.authority(self.url)}: {why}"))


class Transport:
    """The connections of a run, for any number of threads.

    ``insecure`` names the hosts (``host[:port]``) whose TLS is not verified, and which are
    spoken to in plain HTTP when they have no TLS. ``pace`` says how many requests a registry
    should be given at once, ``most`` of them at most; nobody is held to it here.
    """

    def __init__(
        self,
        *,
        environ: Mapping[str, str],
        certificate_authority: Path | None = None,
        insecure: frozenset[str] = frozenset(),
        most: int = pace.MOST,
        clock: Clock | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._patience = patience or Patience()
        self.clock: Clock = clock or StoppableClock(threading.Event())
        self.pace = Pace(self.clock, most)
        self.account = Account()
        # A host without a port is meant with either scheme's.
        self._insecure = frozenset(
            locations.authority(f"{scheme}://{host}")
            for host in insecure
            for scheme in ("https", "http")
        )
        # Reading all that the system trusts takes a while, and a plain registry needs none of it.
        verifying = cache(partial(_verifying_context, certificate_authority))
        if certificate_authority is not None:
            verifying()
        self._connections = Connections(Proxies.from_environ(environ), verifying)
        self._ways: dict[tuple[str, bool], tuple[Way, str]] = {}
        self._schemes: dict[str, str] = {}
        self._resting: dict[str, float] = {}
        self._standings: dict[str, Standing] = defaultdict(Standing)
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close every idle connection."""
        self._connections.close()

    def attempts(self, lane: str) -> Attempts:
        """Return a count of failures for a piece of work at a registry, by its host."""
        return Attempts(self.clock, self.account.of(lane).retried, self._standings[lane])

    def is_insecure(self, host: str) -> bool:
        """Say whether a host was named insecure."""
        return locations.authority(f"https://{host}") in self._insecure

    def origin(self, host: str, *, insecure: bool) -> str:
        """Return ``scheme://host[:port]`` of a registry.

        It is https, always, unless ``insecure``: then the host is asked once, and if it
        speaks no TLS but answers in plain HTTP, it is http for the rest of the run. Raises
        Temporary when that answer breaks off.
        """
        api = locations.HUB_API if is_hub(host) else host
        if not insecure:
            return f"https://{api}"
        with self._lock:
            known = self._schemes.get(api)
        if known is None and (known := self._find_scheme(api)) is not None:
            with self._lock:
                self._schemes[api] = known
        return f"{known or 'https'}://{api}"

    def send(self, request: Request) -> Answer:
        """Make a request and follow where a GET or HEAD is redirected to.

        Raises Temporary, Unreachable, RegistryError for an unsafe or endless redirect,
        Interrupted, and BodyFailed.
        """
        answer = self._followed(request)
        if answer.status not in _UNSETTLED:
            self._standings[request.lane].answered()
        return answer

    def _followed(self, request: Request) -> Answer:
        answer = self.send_once(request)
        if request.method not in ("GET", "HEAD"):
            return answer
        for _ in range(limits.REDIRECTS):
            location = answer.headers.get("Location")
            if answer.status not in _REDIRECTS or location is None:
                return answer
            answer.start(limits.ERROR_BODY)
            target = locations.redirect_target(request.url, location)
            insecure = self.is_insecure(locations.authority(target))
            request = replace(request, url=target, authorization=None, insecure=insecure)
            answer = self.send_once(request)
            answer.redirected = True
        if answer.status in _REDIRECTS:
            answer.close()
            raise RegistryError(f"{request.what}: redirected more than {limits.REDIRECTS} times")
        return answer

    def send_once(self, request: Request) -> Answer:
        """Make a request and follow no redirect; otherwise as ``send``.

        Its answer says nothing about whether the registry may be hoped for again.
        """
        self.clock.check()
        host = locations.authority(request.url)
        self._wait_for(host, request)
        body = self._body(request)
        begun = self.clock.monotonic()
        try:
            reply = self._exchange(request, body)
        except _BREAKS as error:
            if _is_cut(error):
                self.pace.too_much(request.lane)
            raise _translated(error, request) from error
        finally:
            if isinstance(body, Body):
                body.close()
        if body is None:
            self.pace.answered(request.lane, self.clock.monotonic() - begun)
        answer = Answer(reply, request, self.clock, self.pace)
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("%s %s: %d", request.method, locations.shown(request.url), answer.status)
        if answer.status in (429, 503):
            self.pace.too_much(request.lane)
            self._rest(host, answer)
        return answer

    def _body(self, request: Request) -> bytes | Body | None:
        if isinstance(request.body, bytes | None):
            self.pace.moved(request.lane, request.length)
            return request.body
        return Body(request.body(), lambda size: self.pace.moved(request.lane, size))

    def _exchange(self, request: Request, body: bytes | Body | None) -> Reply:
        """Send a request over some connection, and wait for its answer."""
        server, target = locations.divided(request.url)
        way, host = self._way(server, request.insecure)
        headers = {"Host": host, **_ALWAYS, **request.headers}
        if request.authorization is not None:
            headers["Authorization"] = request.authorization
        if body is not None or request.method in _WITH_CONTENT:
            headers["Content-Length"] = str(request.length)
        if way.is_forwarded:
            headers |= way.proxy_headers
            target = f"http://{host}{target}"
        patience = self._patience
        connection = self._connections.take(way, patience.connect)
        try:
            connection.patience(patience.read if body is None else patience.write)
            pieces = (body,) if isinstance(body, bytes) else body or ()
            connection.ask(request.method, target, headers, pieces)
            connection.patience(patience.read if body is None else patience.verdict)
            return connection.answer(request.method, partial(self._connections.give, way))
        except BaseException:
            connection.close()
            raise

    def _way(self, server: str, insecure: bool) -> tuple[Way, str]:
        """Return how a server is reached, and what a request calls it."""
        known = self._ways.get((server, insecure))
        if known is None:
            parts = urlsplit(server)
            known = self._connections.way(parts, verified=not insecure), _host(parts)
            self._ways[server, insecure] = known
        return known

    def _find_scheme(self, api: str) -> str | None:
        """Return how an insecure host can be spoken to; None when it cannot be at all now.

        Raises Temporary when it has no TLS, and its plain answer breaks off: it is then not to
        be spoken to in TLS.
        """
        no_tls = False
        for scheme in ("https", "http"):
            probe = Request("GET", f"{scheme}://{api}/v2/", api, insecure=True)
            try:
                self._exchange(probe, None).close()
            except _BREAKS as error:
                if no_tls and isinstance(fault := _translated(error, probe), Temporary):
                    raise fault from error
                if isinstance(error, TimeoutError | ValueError):
                    return None
                no_tls = isinstance(error, ssl.SSLError)
            else:
                return scheme
        return None

    def _wait_for(self, host: str, request: Request) -> None:
        """Hold a request back while its host has asked for rest: it asked every thread."""
        until = self._resting.get(host)
        if until is not None and (delay := until - self.clock.monotonic()) > 0:
            self.account.of(request.lane).waited(delay)
            self.clock.sleep(delay)

    def _rest(self, host: str, answer: Answer) -> None:
        delay = requested_delay(answer.headers)
        if delay is not None and delay <= 300:
            self._resting[host] = self.clock.monotonic() + delay


class BodyFailed(Exception):
    """The source of an upload's body failed with ``cause``; the registry did not."""

    def __init__(self, cause: Exception) -> None:
        super().__init__()
        self.cause = cause


class Body:
    """The pieces of an upload. Raises BodyFailed for whatever their source raises.

    Otherwise an unreadable file would be taken for a broken connection. ``moved`` is told
    the length of each piece that is given out.
    """

    def __init__(
        self, pieces: Iterator[Bytes], moved: Callable[[int], None] = lambda size: None
    ) -> None:
        self._pieces = pieces
        self._moved = moved

    def __iter__(self) -> Iterator[Bytes]:
        return self

    def __next__(self) -> Bytes:
        try:
            piece = next(self._pieces)
        except StopIteration:
            raise
        except Exception as error:
            raise BodyFailed(error) from error
        self._moved(len(piece))
        return piece

    def close(self) -> None:
        """End the source, when an upload ends before it."""
        if isinstance(self._pieces, Generator):
            self._pieces.close()


def _host(parts: SplitResult) -> str:
    """Return what names the host of a URL in a request: without the port that its scheme has."""
    name = parts.netloc.rpartition("@")[2]
    return name.removesuffix(_DEFAULT_PORTS.get(parts.scheme, ""))


def _verifying_context(certificate_authority: Path | None) -> ssl.SSLContext:
    """Trust the system's authorities, or certifi's where it has none, and the given ones."""
    context = ssl.create_default_context()
    if not context.cert_store_stats()["x509_ca"] and not _has_certificate_directory():
        import certifi  # where it is not needed it would still cost the start of every command

        context.load_verify_locations(certifi.where())
    if certificate_authority is not None:
        try:
            context.load_verify_locations(certificate_authority)
        except OSError as error:  # ssl.SSLError is one
            why = "no certificates" if isinstance(error, ssl.SSLError) else error.strerror
            raise UsageError(
                f"--certificate-authority {certificate_authority}: {why}",
                hint="It must be a file of certificates in PEM format.",
            ) from error
    return context


def _has_certificate_directory() -> bool:
    """Certificates in a directory are loaded when needed, so they are not counted before."""
    directory = Path(ssl.get_default_verify_paths().openssl_capath)
    return directory.is_dir() and any(directory.iterdir())


def _translated(error: Exception, request: Request) -> Exception:
    """Return what an exception of the layers below means to this program."""
    host = locations.authority(request.url)
    where = f"{request.what}: {host}"
    if isinstance(error, ProxyFailed):
        return Unreachable(
            f"{where}: the proxy fails: {_reason(error)}",
            hint="Check HTTPS_PROXY, HTTP_PROXY and NO_PROXY.",
        )
    if isinstance(error, ssl.SSLError):
        return _tls_failure(error, where, host)
    if isinstance(error, NameUnknown):
        message = f"{where}: the name cannot be resolved: {_reason(error)}"
        return Temporary(Unreachable(message, hint="Check the name, and this machine's DNS."))
    if isinstance(error, NotConnected):
        message = f"{where}: cannot connect: {_reason(error)}"
        return Temporary(Unreachable(message, hint="Check host and port, and that it runs."))
    if isinstance(error, TimeoutError):
        return Temporary(Unreachable(f"{where}: no answer in time"), timed_out=True)
    if isinstance(error, OSError | NotHttp):
        message = f"{where}: the connection broke: {_reason(error)}"
        return Temporary(Unreachable(message), at_once=isinstance(error, ConnectionError))
    return RegistryError(f"{where}: not a usable request or answer: {_reason(error)}")


def _is_cut(error: Exception) -> bool:
    """Say whether a connection was cut, or fell silent, under way.

    One that was closed while idle, or was never there, is not.
    """
    return isinstance(error, ConnectionResetError | CutShort | TimeoutError)


def _tls_failure(error: Exception, where: str, host: str) -> Exception:
    reason = _reason(error)
    inner = _innermost(error)
    if isinstance(inner, ssl.SSLCertVerificationError):
        hint = "Give the registry's authority with --certificate-authority FILE."
        if "not yet valid" in reason or "expired" in reason:
            hint = "Check this machine's clock, then the registry's certificate."
        elif "certificate is not valid for" in reason:
            hint = "Call the registry by a name in its certificate, or give it one for this name."
        return Unreachable(f"{where}: its certificate is not trusted: {reason}", hint=hint)
    if isinstance(inner, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return Temporary(Unreachable(f"{where}: the TLS connection broke: {reason}"))
    return Unreachable(
        f"{where}: no TLS connection: {reason}",
        hint=f"If {host} has no TLS and you trust the network, name it with --insecure.",
    )


def _innermost(error: BaseException) -> BaseException:
    """Return the exception that the others were raised around."""
    while (below := error.__cause__ or error.__context__) is not None:
        error = below
    return error


def _reason(error: BaseException) -> str:
    """Return the cause in words that hold no URL: the system's, or the exception's name."""
    inner = _innermost(error)
    if isinstance(inner, CutShort):
        return "the answer ended too soon"
    if isinstance(inner, HungUp):
        return "closed without an answer"
    if isinstance(inner, TimeoutError):
        return "no answer in time"
    if isinstance(inner, NotHttp):
        return printable(str(inner))
    if isinstance(inner, ssl.SSLCertVerificationError):
        return printable(inner.verify_message)
    if isinstance(inner, ssl.SSLError):
        return printable((inner.reason or str(inner.strerror)).replace("_", " ").lower())
    if isinstance(inner, OSError) and inner.strerror:
        return printable(inner.strerror)
    if isinstance(inner, OSError) and str(inner).startswith("Tunnel connection failed"):
        return printable(str(inner))
    return type(inner).__name__
