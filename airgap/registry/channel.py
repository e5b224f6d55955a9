"""One request to a registry, authorised, and tried again while that helps.

Joins transport, authentication and the retry loop, and turns an answer that refuses into an
error that says what the registry said (OCI distribution specification, "error codes").
Knows nothing of what the requests are for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from airgap import limits, strict_json
from airgap.errors import (
    AccessDenied,
    AirgapError,
    MalformedContent,
    NotFound,
    RegistryError,
    Unreachable,
    printable,
)
from airgap.registry import locations
from airgap.registry.auth import Authenticator, Scope
from airgap.registry.retry import (
    ATTEMPTS_BY_STATUS,
    Attempts,
    Clock,
    Temporary,
    persist,
    refusal_as_fault,
)
from airgap.registry.transport import Answer, Request, Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from airgap.digest import Bytes
    from airgap.registry.account import HostAccount
    from airgap.registry.credentials import Credentials

T = TypeVar("T")

_HINTS = {
    400: "The registry's log may say more.",
    405: "The registry is read-only, or a proxy before it allows no uploads.",
    413: "Raise the body limit of the proxy before the registry (nginx: client_max_body_size 0).",
    507: "The registry's storage is full.",
}
_REDIRECTED_REFUSALS = frozenset({400, 401, 403})


@dataclass(frozen=True, slots=True)
class Call:
    """What to do in a repository: a method, and a path below it or a whole URL.

    ``what`` says in errors what was being done. Of the statuses, those in ``accepted`` are
    handed back; every other one is an error. ``body`` is given anew for each attempt.
    """

    scope: Scope
    method: str
    path: str
    what: str
    accepted: frozenset[int] = frozenset({200})
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Callable[[], Iterator[Bytes]] | bytes | None = None
    length: int = 0


class Channel:
    """The way to all registries of a run, for any number of threads."""

    def __init__(self, transport: Transport, credentials: Credentials) -> None:
        self.transport = transport
        self._authenticator = Authenticator(transport, credentials)

    @property
    def clock(self) -> Clock:
        """The clock of retries."""
        return self.transport.clock

    def account(self, scope: Scope) -> HostAccount:
        """Return the account of a repository's host."""
        return self.transport.account.of(scope.repository.host)

    def attempts(self, scope: Scope) -> Attempts:
        """Return a count of failures, for a piece of work of several calls."""
        return self.transport.attempts(scope.repository.host)

    def persist(self, scope: Scope, attempt: Callable[[], T]) -> T:
        """Return what ``attempt`` returns, trying again while it raises Temporary."""
        return persist(self.attempts(scope), attempt)

    def url(self, scope: Scope, path: str) -> str:
        """Return the URL of a path below a repository; a whole URL stays as it is."""
        if path.startswith(("https://", "http://")):
            return path
        host, name = scope.repository.host, scope.repository.path
        origin = self.transport.origin(host, insecure=scope.insecure)
        return f"{origin}/v2/{name}/{path}" if name else f"{origin}/v2/{path}"

    def call(self, call: Call) -> Answer:
        """Make a call, again while it fails temporarily. Raises RegistryError, Interrupted.

        The answer's body has not been read: close the answer.
        """
        return self.persist(call.scope, lambda: self.attempt(call))

    def attempt(self, call: Call) -> Answer:
        """Make a call once. Raises Temporary beside what ``call`` raises."""
        answer = self._authorised(call)
        if answer.status in call.accepted:
            return answer
        raise _refusal(answer, self._authenticator.account(call.scope))

    def unauthorised(self, call: Call) -> Answer:
        """Make a call once, without a credential, and hand back whatever final answer comes.

        Raises Temporary, RegistryError, Interrupted.
        """
        answer = self._send(call, self.url(call.scope, call.path), None, at_home=True)
        if answer.status in ATTEMPTS_BY_STATUS:
            raise _refusal(answer, "")
        return answer

    def _authorised(self, call: Call) -> Answer:
        """Send, and answer challenges: twice at most, so that a token is fetched twice at most."""
        url = self.url(call.scope, call.path)
        at_home = url != call.path or self._is_home(call.scope, url)
        header = self._authenticator.header(call.scope, url) if at_home else None
        challenges = 2 if header is None else 1
        answer = self._send(call, url, header, at_home)
        while at_home and answer.status == 401 and not answer.redirected and challenges:
            challenges -= 1
            answer.start(limits.ERROR_BODY)
            header = self._authenticator.challenged(call.scope, answer, url, header)
            answer = self._send(call, url, header, at_home)
        return answer

    def _is_home(self, scope: Scope, url: str) -> bool:
        """Say whether a whole URL is at the registry: only there may a credential go."""
        return locations.authority(url) == locations.authority(self.url(scope, ""))

    def _send(self, call: Call, url: str, header: str | None, at_home: bool) -> Answer:
        insecure = (
            call.scope.insecure if at_home else self.transport.is_insecure(locations.authority(url))
        )
        self.account(call.scope).request()
        return self.transport.send(
            Request(
                call.method,
                url,
                call.what,
                headers=call.headers,
                authorization=header,
                body=call.body,
                length=call.length,
                insecure=insecure,
                lane=call.scope.repository.host,
            )
        )


def _refusal(answer: Answer, account: str) -> AirgapError | Temporary:
    """Return what an answer that was not accepted means."""
    status = answer.status
    # A 416 lies about its length, and says nothing.
    said = ("", "") if status == 416 else _said(answer)
    answer.close()
    code, text = said
    message = (
        f"{answer.what}: {locations.authority(answer.url)} answers {status}"
        f"{f' {code}' if code else ''}{f': {text}' if text else ''}"
    )
    if answer.redirected and status in _REDIRECTED_REFUSALS:
        # A signed URL ends after minutes; the registry gives another.
        return Temporary(Unreachable(message, status=status, code=code), attempts=3)
    if status in ATTEMPTS_BY_STATUS or code == "TOOMANYREQUESTS":
        error = Unreachable(message, status=status, code=code)
        known = status if status in ATTEMPTS_BY_STATUS else 429
        return refusal_as_fault(error, known, answer.headers)
    if status in (401, 403):
        return AccessDenied(
            f"{message} ({account})",
            status=status,
            code=code,
            hint="Check the credential, and that it may use this repository.",
        )
    if status == 404:
        hint = f"It is absent, or may not be seen ({account})."
        return NotFound(message, status=status, code=code, hint=hint)
    if status == 407:
        hint = "The proxy wants a login: HTTPS_PROXY."
        return Unreachable(message, status=status, code=code, hint=hint)
    return RegistryError(message, status=status, code=code, hint=_HINTS.get(status))


def _said(answer: Answer) -> tuple[str, str]:
    """Return the first error code and message of an answer's body, "" for what is not there."""
    if answer.is_web_page:
        answer.start(limits.ERROR_BODY)
        return "", "with a web page, so it may not come from the registry"
    raw = answer.start(limits.ERROR_BODY)
    try:
        document = strict_json.parse(raw, "")
    except MalformedContent:
        return "", printable(raw.decode("utf-8", "replace").strip())
    errors = document.get("errors") if isinstance(document, dict) else None
    first = errors[0] if isinstance(errors, list) and errors else None
    if not isinstance(first, dict):
        return "", ""
    code, text = first.get("code"), first.get("message")
    return (
        printable(code, 60) if isinstance(code, str) else "",
        printable(text) if isinstance(text, str) else "",
    )
