from __future__ import annotations

import base64
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airgap.errors import AccessDenied, RegistryError
from airgap.reference import ImageReference, Repository
from airgap.registry.auth import REALMS, Authenticator, Challenge, Scope, parse_challenges
from airgap.registry.client import RegistryClient
from airgap.registry.credentials import AuthFile, Credential, Credentials
from airgap.registry.pace import START
from airgap.registry.transport import Request, Transport
from tests.support.http import Asked, FakeClock, Reply, json_reply, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECRET = "hunter2-canary"
BASIC = "Basic " + base64.b64encode(f"user:{SECRET}".encode()).decode()
MANIFEST = Reply(200, {"Content-Type": "application/vnd.oci.image.manifest.v1+json"}, b"{}")


def credentials(**keys: Credential) -> Credentials:
    from pathlib import Path

    return Credentials((AuthFile(Path("auth.json"), keys, {}),))


def user_for(key: str) -> Credentials:
    return credentials(**{key: Credential(f"auth.json: {key}", "user", SECRET)})


class Registry:
    """A registry that wants a token, and, at ``/token``, the service that gives them."""

    def __init__(self) -> None:
        self.challenge = ""
        self.token: Callable[[Asked], Reply] = lambda _: json_reply({"token": "t1"})
        self.valid = {"Bearer t1"}

    def __call__(self, asked: Asked) -> Reply:
        if asked.path.startswith("/token"):
            return self.token(asked)
        if asked.authorization in self.valid:
            return MANIFEST
        return Reply(401, {"WWW-Authenticate": self.challenge})


class World:
    """A registry, a host that must see no credential, and a client."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self.registry = Registry()
        self.server = stack.enter_context(serve(self.registry))
        self.elsewhere = stack.enter_context(serve(self.registry.token))
        self.clock = FakeClock()
        self.host = self.server.host
        self.insecure = frozenset({self.host})
        self.registry.challenge = f'Bearer realm="http://{self.host}/token",service="s"'

    def client(self, known: Credentials | None = None) -> RegistryClient:
        transport = Transport(environ={}, insecure=self.insecure, clock=self.clock)
        known = user_for(self.host) if known is None else known
        return self.stack.enter_context(RegistryClient(transport, known))

    def reference(self, path: str = "ns/repo") -> ImageReference:
        return ImageReference.parse(f"{self.host}/{path}:1")

    @property
    def tokens(self) -> list[Asked]:
        return [asked for asked in self.server.asked if asked.path.startswith("/token")]


@contextmanager
def world() -> Iterator[World]:
    with ExitStack() as stack:
        made = World(stack)
        yield made
        for asked in made.elsewhere.asked:
            assert asked.authorization is None, "the tripwire host saw a credential"
            assert SECRET.encode() not in asked.body


# N04, N05, N06, N07


def test_fetches_a_token_once_for_a_host_and_scope() -> None:
    with world() as w:
        client = w.client()
        for _ in range(3):
            client.manifest(w.reference())
        assert len(w.tokens) == 1
        assert w.tokens[0].authorization == BASIC
        assert parse_qs(urlsplit(w.tokens[0].path).query) == {
            "service": ["s"],
            "scope": ["repository:ns/repo:pull"],
        }


def test_asks_for_pull_and_push_only_to_write() -> None:
    with world() as w:
        client = w.client()
        client.put_manifest(Repository(w.host, "ns/repo"), "t", b"{}", "application/json")
        assert parse_qs(urlsplit(w.tokens[0].path).query)["scope"] == [
            "repository:ns/repo:pull,push"
        ]


def test_after_one_challenge_tokens_are_fetched_before_they_are_asked_for() -> None:
    with world() as w:
        client = w.client()
        client.manifest(w.reference("a/a"))
        client.manifest(w.reference("b/b"))
        refused = [path for path in w.server.paths if "/v2/b/b/" in path]
        assert len(refused) == 1
        assert len(w.tokens) == 2


def test_a_registry_that_always_refuses_costs_two_tokens_at_most() -> None:
    with world() as w:
        w.registry.valid = set()
        with pytest.raises(AccessDenied, match="answers 401") as caught:
            w.client().manifest(w.reference())
        assert len(w.tokens) <= 2
        assert f"auth.json: {w.host}" in caught.value.message


def test_a_token_the_registry_forgot_is_replaced() -> None:
    with world() as w:
        client = w.client()
        client.manifest(w.reference())
        w.registry.valid = {"Bearer t2"}
        w.registry.token = lambda _: json_reply({"access_token": "t2"})
        client.manifest(w.reference())
        assert len(w.tokens) == 2


def test_the_scope_of_the_challenge_is_asked_for_as_well() -> None:
    with world() as w:
        w.registry.challenge += ',scope="repository:ns/repo:pull repository:base:pull"'
        w.client().manifest(w.reference())
        scopes = parse_qs(urlsplit(w.tokens[0].path).query)["scope"]
        assert scopes == ["repository:base:pull", "repository:ns/repo:pull"]


@pytest.mark.parametrize(
    ("expires_in", "life"),
    [(300, 300), (None, 60), (0, 10), (-5, 10), (1e9, 3600), ("300", 60), (True, 60)],
)
def test_a_token_is_replaced_when_a_fifth_of_its_life_is_left(
    expires_in: object, life: int
) -> None:
    with world() as w:
        answer = {"token": "t1", "expires_in": expires_in, "issued_at": "2999-01-01T00:00:00Z"}
        w.registry.token = lambda _: json_reply(answer)
        client = w.client()
        client.manifest(w.reference())
        w.clock.now += life * 0.79
        client.manifest(w.reference())
        assert len(w.tokens) == 1
        w.clock.now += life * 0.02
        client.manifest(w.reference())
        assert len(w.tokens) == 2


def test_an_identity_token_is_posted() -> None:
    with world() as w:
        known = credentials(**{w.host: Credential("f", identity_token=SECRET)})
        w.client(known).manifest(w.reference())
        (asked,) = w.tokens
        assert asked.method == "POST"
        form = dict(parse_qsl(asked.body.decode()))
        assert form["grant_type"] == "refresh_token"
        assert form["refresh_token"] == SECRET
        assert form["scope"] == "repository:ns/repo:pull"


def test_a_temporary_failure_of_the_token_service_is_tried_again() -> None:
    with world() as w:
        answers = [Reply(503), Reply(429, {"Retry-After": "7"}), json_reply({"token": "t1"})]
        w.registry.token = lambda _: answers.pop(0)
        w.client().manifest(w.reference())
        assert 7 in w.clock.slept


# N26 - N29, P6


def test_what_a_token_service_asks_for_counts_for_its_registry() -> None:
    with world() as w:
        answers = [Reply(429, {"Retry-After": "30"})]
        w.elsewhere.script = lambda _: answers.pop() if answers else json_reply({"token": "t1"})
        w.registry.challenge = f'Bearer realm="http://{w.elsewhere.host}/token"'
        client = w.client()
        client.manifest(w.reference())
        assert client.pace.level(w.host) == START // 2
        (activity,) = client.activity()
        assert (activity.host, activity.waited) == (w.host, 30)


def test_a_realm_on_another_host_gets_no_credential() -> None:
    with world() as w:
        w.insecure |= {w.elsewhere.host}
        w.registry.challenge = f'Bearer realm="http://{w.elsewhere.host}/token",service="s"'
        w.client().manifest(w.reference())
        assert [asked.authorization for asked in w.elsewhere.asked] == [None]


def test_a_failure_without_the_credential_says_why_it_was_not_sent() -> None:
    with world() as w:
        w.registry.valid = set()
        w.registry.challenge = f'Bearer realm="http://{w.elsewhere.host}/token",service="s"'
        with pytest.raises(AccessDenied, match="is not known to belong to"):
            w.client().manifest(w.reference())


@pytest.mark.parametrize("named_insecure", [True, False])
def test_a_realm_known_to_belong_to_the_registry_gets_the_credential(
    named_insecure: bool,
) -> None:
    with ExitStack() as stack:
        w = World(stack)
        service = stack.enter_context(serve(lambda _: json_reply({"token": "t1"})))
        w.registry.challenge = f'Bearer realm="http://{service.host}/token"'
        insecure = w.insecure | ({service.host} if named_insecure else set())
        transport = Transport(environ={}, insecure=insecure, clock=w.clock)
        stack.callback(transport.close)
        realms = {w.host: frozenset({service.host})}
        authenticator = Authenticator(transport, user_for(w.host), realms)
        scope = Scope(Repository(w.host, "ns/repo"), "pull", insecure=True)
        url = f"http://{w.host}/v2/ns/repo/manifests/1"
        with transport.send(Request("GET", url, "x")) as answer:
            assert authenticator.challenged(scope, answer, url, None) == "Bearer t1"
        assert service.asked[0].authorization == (BASIC if named_insecure else None)


def test_only_well_known_token_services_are_trusted_without_being_asked() -> None:
    assert REALMS["registry-1.docker.io:443"] == {"auth.docker.io:443"}
    assert all(host.endswith(":443") for pair in REALMS.items() for host in (pair[0], *pair[1]))


def test_a_redirecting_token_service_is_not_followed() -> None:
    with world() as w:
        location = f"http://{w.elsewhere.host}/token"
        w.registry.token = lambda _: Reply(307, {"Location": location})
        with pytest.raises(RegistryError, match="status 307"):
            w.client().manifest(w.reference())
        assert w.elsewhere.asked == []


@pytest.mark.parametrize(
    "realm",
    [
        "",
        "ftp://host/token",
        "file:///etc/passwd",
        "http://169.254.169.254/latest/meta-data",
        "http://user:pw@host/token",
        "http://[broken",
    ],
)
def test_refuses_an_unsafe_realm(realm: str) -> None:
    with world() as w:
        w.registry.challenge = f'Bearer realm="{realm}"'
        with pytest.raises(RegistryError):
            w.client().manifest(w.reference())
        assert all(asked.authorization is None for asked in w.server.asked)


@pytest.mark.parametrize(
    "answer",
    [
        json_reply([]),
        json_reply({}),
        json_reply({"token": 7}),
        json_reply({"token": "a\r\nX-Evil: 1"}),
        json_reply({"token": "a b"}),
        Reply(200, {}, b"<html>"),
        Reply(200, {}, b'{"token": "a", "token": "b"}'),
        Reply(200, {}, b" " * (1 << 20) + b'{"token": "t1"}'),
    ],
)
def test_refuses_an_answer_that_holds_no_token(answer: Reply) -> None:
    with world() as w:
        w.registry.token = lambda _: answer
        with pytest.raises(RegistryError):
            w.client().manifest(w.reference())


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_refused_token_names_the_credential_and_not_its_secret(status: int) -> None:
    with world() as w:
        w.registry.token = lambda _: Reply(status)
        with pytest.raises(AccessDenied, match=r"auth\.json") as caught:
            w.client().manifest(w.reference())
        assert SECRET not in f"{caught.value.message}{caught.value.hint}"


def test_the_same_repository_on_another_host_gets_no_credential() -> None:
    with world() as w:
        w.registry.valid = {"Bearer t1"}
        w.client(user_for("quay.io")).manifest(w.reference())
        assert w.tokens[0].authorization is None


# Basic


def test_answers_a_basic_challenge_and_remembers_it() -> None:
    with world() as w:
        w.registry.challenge, w.registry.valid = 'Basic realm="r"', {BASIC}
        client = w.client()
        client.manifest(w.reference("a/a"))
        client.manifest(w.reference("b/b"))
        assert [asked.authorization for asked in w.server.asked[-3:]] == [None, BASIC, BASIC]


def test_a_public_repository_beside_a_private_one_needs_no_password() -> None:
    with world() as w:
        w.registry.challenge, w.registry.valid = 'Basic realm="r"', {BASIC}
        client = w.client(user_for(f"{w.host}/a"))
        client.manifest(w.reference("a/a"))
        w.registry.valid = {None}  # type: ignore[arg-type]  # what a request without it has
        client.manifest(w.reference("b/b"))
        assert w.server.asked[-1].authorization is None


def test_a_refused_password_is_sent_once() -> None:
    with world() as w:
        w.registry.challenge, w.registry.valid = 'Basic realm="r"', set()
        with pytest.raises(AccessDenied, match="refuses the credential"):
            w.client().manifest(w.reference())
        assert [asked.authorization for asked in w.server.asked].count(BASIC) == 1


def test_a_password_that_is_wanted_and_not_there_is_asked_for() -> None:
    with world() as w:
        w.registry.challenge = 'Basic realm="r"'
        with pytest.raises(AccessDenied, match="wants a user name") as caught:
            w.client(Credentials()).manifest(w.reference())
        assert "podman login" in (caught.value.hint or "")


@pytest.mark.parametrize("challenge", ["Negotiate", 'Digest realm="x"', 'Basic realm="x', "==="])
def test_refuses_another_kind_of_login(challenge: str) -> None:
    with world() as w:
        w.registry.challenge = challenge
        with pytest.raises(AccessDenied):
            w.client().manifest(w.reference())


def test_netrc_is_ignored(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with world() as w:
        netrc = tmp_path / ".netrc"
        netrc.write_text(f"machine 127.0.0.1 login netrc password {SECRET}\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("NETRC", str(netrc))
        w.client(Credentials()).manifest(w.reference())
        assert {asked.authorization for asked in w.server.asked} == {None, "Bearer t1"}


# RFC 7235


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Basic", [Challenge("basic", {})]),
        ('BASIC realm="a, b"', [Challenge("basic", {"realm": "a, b"})]),
        (
            'Bearer realm="https://a/t",service=s , scope="repository:a:pull,push"',
            [
                Challenge(
                    "bearer",
                    {"realm": "https://a/t", "service": "s", "scope": "repository:a:pull,push"},
                )
            ],
        ),
        (
            'Negotiate abc==, Basic realm="q\\"x", charset = UTF-8',
            [Challenge("negotiate", {}), Challenge("basic", {"realm": 'q"x', "charset": "UTF-8"})],
        ),
        (", ,Basic , ,", [Challenge("basic", {})]),
        ("", []),
    ],
)
def test_reads_challenges(header: str, expected: list[Challenge]) -> None:
    assert parse_challenges(header) == expected


@pytest.mark.parametrize(
    "header",
    ['Basic realm="x', "Basic realm=a b", "realm=x", "Basic a=1,a=2", "(", 'B "x"', "Bearer @"],
)
def test_refuses_a_malformed_challenge(header: str) -> None:
    with pytest.raises(AccessDenied):
        parse_challenges(header)


NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True)
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=126))


@given(st.lists(st.tuples(NAMES, st.dictionaries(NAMES, VALUES, min_size=1, max_size=4))))
def test_reads_back_every_challenge_that_can_be_written(
    challenges: list[tuple[str, dict[str, str]]],
) -> None:
    def quoted(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    header = ", ".join(
        f"{scheme} {', '.join(f'{name}={quoted(value)}' for name, value in parameters.items())}"
        for scheme, parameters in challenges
    )
    assert parse_challenges(header) == [Challenge(*challenge) for challenge in challenges]


@given(st.text())
def test_no_header_is_more_than_refused(header: str) -> None:
    with suppress(AccessDenied):
        parse_challenges(header)
