"""Answering a registry's challenge: Basic, or a Bearer token from its token service.

Follows RFC 7235 (challenges), RFC 7617 (Basic), and the token specification of distribution
(token.md, oauth.md). Decides to whom a credential may be sent: to the host it was configured
for, and to the token services in ``REALMS``; to every other one the program speaks without
credentials. Never in plain HTTP, unless that host was named insecure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit, urlunsplit

from airgap import limits, strict_json
from airgap.errors import AccessDenied, MalformedContent, RegistryError, Unreachable, printable
from airgap.registry import locations
from airgap.registry.retry import ATTEMPTS_BY_STATUS, persist, refusal_as_fault
from airgap.registry.transport import Request

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airgap.reference import Repository
    from airgap.registry.credentials import Credential, Credentials
    from airgap.registry.transport import Answer, Transport

REALMS: Mapping[str, frozenset[str]] = {
    "registry-1.docker.io:443": frozenset({"auth.docker.io:443"}),
    "registry.redhat.io:443": frozenset({"sso.redhat.com:443"}),
    "registry.gitlab.com:443": frozenset({"gitlab.com:443"}),
}
"""Token services on other hosts that are known to belong to a registry."""

_TOKEN = re.compile(r"[!-~]+", re.ASCII)
_DEFAULT_LIFE = 60.0
_SHORTEST_LIFE, _LONGEST_LIFE = 10.0, 3600.0
_SPENT = 0.8

_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_ELEMENT = re.compile(rf'(?:[^,"]|{_QUOTED})+')
_LIST = re.compile(rf'(?:[^"]|{_QUOTED})*')
_SCHEME = re.compile(rf"({_NAME})(?: +(.*))?", re.ASCII | re.DOTALL)
_PARAMETER = re.compile(rf"({_NAME})[ \t]*=[ \t]*({_NAME}|{_QUOTED})", re.ASCII)
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way in that a registry offers: a scheme in lower case, and its parameters."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(header: str) -> list[Challenge]:
    """Read a ``WWW-Authenticate`` header. Raises AccessDenied for what RFC 7235 forbids."""
    if _LIST.fullmatch(header) is None:
        raise _unintelligible(header)
    found: list[tuple[str, dict[str, str]]] = []
    for element in filter(None, (match[0].strip() for match in _ELEMENT.finditer(header))):
        rest: str | None = element
        if _PARAMETER.fullmatch(element) is None:
            scheme = _SCHEME.fullmatch(element)
            if scheme is None:
                raise _unintelligible(header)
            found.append((scheme[1].lower(), {}))
            rest = scheme[2]
        if rest:
            _add_parameter(found, rest, header)
    return [Challenge(scheme, parameters) for scheme, parameters in found]


def _add_parameter(found: list[tuple[str, dict[str, str]]], text: str, header: str) -> None:
    parameter = _PARAMETER.fullmatch(text)
    if parameter is None:
        if _TOKEN68.fullmatch(text) is None:
            raise _unintelligible(header)
        return
    name, value = parameter[1].lower(), parameter[2]
    if not found or name in found[-1][1]:
        raise _unintelligible(header)
    if value.startswith('"'):
        value = re.sub(r"\\(.)", r"\1", value[1:-1])
    found[-1][1][name] = value


def _unintelligible(header: str) -> AccessDenied:
    return AccessDenied(f"a challenge that makes no sense: {printable(header)!r}", status=401)


@dataclass(frozen=True, slots=True)
class Scope:
    """What a request needs: a repository at a host, what is done there, and further scopes.

    ``insecure``: the host may be sent a credential in plain HTTP.
    """

    repository: Repository
    actions: str
    insecure: bool = False
    further: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """The scopes as a token service reads them."""
        return (f"repository:{self.repository.path}:{self.actions}", *self.further)


@dataclass(frozen=True, slots=True)
class _Grant:
    """An ``Authorization`` header, and until when it is used."""

    header: str
    spent_at: float


class Authenticator:
    """Gives each request its ``Authorization``. Safe for several threads.

    A token is used again for the same scope at the same host until four fifths of its life
    have passed. Once a host has sent one challenge, tokens for further repositories are
    fetched before they are asked for.
    """

    def __init__(
        self,
        transport: Transport,
        credentials: Credentials,
        realms: Mapping[str, frozenset[str]] = REALMS,
    ) -> None:
        self._transport = transport
        self._credentials = credentials
        self._realms = realms
        self._grants: dict[Scope, _Grant] = {}
        self._challenges: dict[str, Challenge] = {}
        self._distrusted: dict[str, str] = {}
        self._locks: dict[Scope, Lock] = {}
        self._lock = Lock()

    def header(self, scope: Scope, url: str) -> str | None:
        """Return the header for a request to ``url``, None to go without one.

        Raises AccessDenied, Unreachable and UsageError when a token cannot be had.
        """
        grant = self._grants.get(scope)
        if grant is not None and self._transport.clock.monotonic() < grant.spent_at:
            return grant.header
        challenge = self._challenges.get(scope.repository.host)
        if challenge is None or self._may_be_public(scope, challenge):
            return None
        with self._lock_of(scope):
            if self._grants.get(scope) is grant:  # no other thread was faster
                self._grants[scope] = self._obtain(scope, challenge, url, frozenset())
            return self._grants[scope].header

    def challenged(self, scope: Scope, answer: Answer, url: str, sent: str | None) -> str:
        """Return another header after a 401 to a request that carried ``sent``.

        Raises AccessDenied when there is none, or the credential itself was refused.
        """
        challenge = _choose(answer)
        wanted = frozenset(challenge.parameters.get("scope", "").split())
        with self._lock_of(scope):
            grant = self._grants.get(scope)
            if grant is not None and grant.header != sent:
                return grant.header
            if grant is not None and challenge.scheme == "basic":
                raise self._refused(scope, "refuses the credential")
            self._challenges[scope.repository.host] = challenge
            fresh = self._obtain(scope, challenge, url, wanted)
            self._grants[scope] = fresh
            return fresh.header

    def account(self, scope: Scope) -> str:
        """Say with which credential a repository is used, for messages."""
        credential = self._credentials.find(scope.repository)
        if credential is None:
            return "without a credential"
        service = self._distrusted.get(scope.repository.host)
        if service is not None:
            return (
                f"without the credential of {credential.origin}, as the token service {service}"
                f" is not known to belong to {scope.repository.host}"
            )
        return f"with the credential of {credential.origin}"

    def _may_be_public(self, scope: Scope, challenge: Challenge) -> bool:
        """One repository's wish for a password is not yet its neighbour's."""
        return challenge.scheme == "basic" and self._credentials.find(scope.repository) is None

    def _lock_of(self, scope: Scope) -> Lock:
        with self._lock:
            return self._locks.setdefault(scope, Lock())

    def _obtain(
        self, scope: Scope, challenge: Challenge, url: str, wanted: frozenset[str]
    ) -> _Grant:
        credential = self._credentials.find(scope.repository)
        if challenge.scheme == "basic":
            return _Grant(self._basic(scope, credential, url), float("inf"))
        return self._token(scope, challenge, url, credential, wanted | frozenset(scope.texts))

    def _basic(self, scope: Scope, credential: Credential | None, url: str) -> str:
        if credential is None or not credential.username:
            raise self._refused(scope, "wants a user name and a password")
        if not _may_carry(url, scope.insecure):
            raise self._refused(scope, "wants a password in plain HTTP")
        return credential.basic()

    def _token(
        self,
        scope: Scope,
        challenge: Challenge,
        url: str,
        credential: Credential | None,
        texts: frozenset[str],
    ) -> _Grant:
        said = challenge.parameters.get("realm")
        if not said:
            raise self._refused(scope, "wants a token and does not say from where")
        realm = locations.token_service(url, said)
        if credential is not None and not self._trusts(scope, url, realm):
            self._distrusted[scope.repository.host] = locations.authority(realm)
            credential = None
        request = _token_request(realm, challenge.parameters.get("service", ""), texts, credential)
        lane = scope.repository.host
        request = replace(request, insecure=self._is_insecure(scope, url, realm), lane=lane)
        began = self._transport.clock.monotonic()
        attempts = self._transport.attempts(lane)
        raw = persist(attempts, lambda: self._fetch(request, scope))
        token, life = _read_token(raw, request.what)
        return _Grant(f"Bearer {token}", began + _SPENT * life)

    def _trusts(self, scope: Scope, url: str, realm: str) -> bool:
        registry, service = locations.authority(url), locations.authority(realm)
        known = service == registry or service in self._realms.get(registry, frozenset())
        return known and _may_carry(realm, self._is_insecure(scope, url, realm))

    def _is_insecure(self, scope: Scope, url: str, realm: str) -> bool:
        """Say whether a token service was itself named insecure, alone or as the registry."""
        service = locations.authority(realm)
        same = service == locations.authority(url)
        return (same and scope.insecure) or self._transport.is_insecure(service)

    def _fetch(self, request: Request, scope: Scope) -> bytes:
        with self._transport.send_once(request) as answer:
            if answer.status == 200:
                return answer.read(limits.TOKEN)
            answer.start(limits.ERROR_BODY)
            if answer.status in ATTEMPTS_BY_STATUS:
                message = f"{request.what}: status {answer.status}"
                error = Unreachable(message, status=answer.status)
                raise refusal_as_fault(error, answer.status, answer.headers)
            if answer.status in (400, 401, 403):
                service = locations.authority(request.url)
                raise self._refused(scope, f"is refused a token by {service}")
            raise RegistryError(f"{request.what}: status {answer.status}", status=answer.status)

    def _refused(self, scope: Scope, why: str) -> AccessDenied:
        host = scope.repository.host
        hint = "Check the credential, and that it may use this repository."
        if self._credentials.find(scope.repository) is None:
            hint = f"Log in with 'podman login {host}', or name a file with -a FILE."
        return AccessDenied(
            f"{scope.repository} {why} ({self.account(scope)})", status=401, hint=hint
        )


def _choose(answer: Answer) -> Challenge:
    """Return the challenge to answer: Bearer before Basic."""
    found: dict[str, Challenge] = {}
    for header in answer.all_of("WWW-Authenticate"):
        for challenge in parse_challenges(header):
            found.setdefault(challenge.scheme, challenge)
    for scheme in ("bearer", "basic"):
        if scheme in found:
            return found[scheme]
    host = locations.authority(answer.url)
    if not found:
        raise AccessDenied(
            f"{answer.what}: {host} answers 401 and does not say how to log in",
            status=401,
            hint="Registries say it; something before this one may answer in its place.",
        )
    raise AccessDenied(
        f"{answer.what}: {host} wants a login of another kind than Basic and Bearer:"
        f" {printable(', '.join(found))}",
        status=401,
        hint="airgap knows no other; ask the registry's administrator for one of these.",
    )


def _may_carry(url: str, insecure: bool) -> bool:
    return insecure or urlsplit(url).scheme == "https"


def _token_request(
    realm: str, service: str, texts: frozenset[str], credential: Credential | None
) -> Request:
    """Return the request for a token: by GET, or by POST for an identity token."""
    what = f"token from {locations.shown(realm)}"
    scopes = sorted(texts)
    if credential is not None and credential.identity_token:
        form = {
            "grant_type": "refresh_token",
            "service": service,
            "client_id": "airgap",
            "scope": " ".join(scopes),
            "refresh_token": credential.identity_token,
        }
        body = urlencode(form).encode("ascii")
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return Request("POST", realm, what, headers, body=body, length=len(body))
    parts = urlsplit(realm)
    asked = [("service", service)] if service else []
    query = urlencode([*asked, *(("scope", scope) for scope in scopes)])
    url = urlunsplit(parts._replace(query="&".join(filter(None, (parts.query, query)))))
    authorization = None if credential is None else credential.basic()
    return Request("GET", url, what, authorization=authorization)


def _read_token(raw: bytes, what: str) -> tuple[str, float]:
    """Return a token service's token and its life in seconds. Raises RegistryError."""
    try:
        document = strict_json.parse_object(raw, what)
    except MalformedContent as error:
        raise RegistryError(error.message) from error
    token = document.get("token") or document.get("access_token")
    if not isinstance(token, str) or _TOKEN.fullmatch(token) is None:
        raise RegistryError(f"{what}: the answer holds no usable token")
    return token, _life(document.get("expires_in"))


def _life(expires_in: Any) -> float:
    """Return a token's life. What a service says of the time of day is not used at all."""
    if type(expires_in) not in (int, float):
        return _DEFAULT_LIFE
    return min(max(float(expires_in), _SHORTEST_LIFE), _LONGEST_LIFE)
