from __future__ import annotations

import socket
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from airgap import __version__, limits
from airgap.errors import Interrupted, RegistryError, Unreachable, UsageError
from airgap.registry.directory import DirectoryStore
from airgap.registry.pace import START
from airgap.registry.retry import ATTEMPTS, Temporary
from airgap.registry.transport import BodyFailed, Patience, Request, Transport
from tests.support.faults import FaultyRegistry, reset
from tests.support.http import Asked, FakeClock, Reply, Server, certificate, serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def transport(stack: ExitStack, clock: FakeClock, **more: Any) -> Transport:
    made = Transport(**{"environ": {}, "clock": clock, **more})
    stack.callback(made.close)
    return made


def ok(_: Asked) -> Reply:
    return Reply(200, {}, b"content")


def get(server: Server | str, path: str = "/", **more: Any) -> Request:
    host = server if isinstance(server, str) else server.host
    return Request("GET", f"http://{host}{path}", "the thing", **more)


def test_sends_what_it_is_given_and_names_itself(stack: ExitStack, clock: FakeClock) -> None:
    server = stack.enter_context(serve(ok))
    request = get(server, headers={"X-A": "b"}, authorization="Bearer t")
    with transport(stack, clock).send(request) as answer:
        assert answer.read(100) == b"content"
    (asked,) = server.asked
    assert asked.headers["User-Agent"] == f"airgap/{__version__}"
    assert asked.headers["Accept-Encoding"] == "identity"
    assert (asked.headers["X-A"], asked.authorization) == ("b", "Bearer t")
    assert asked.headers["Cookie"] is None


def test_keeps_no_cookie(stack: ExitStack, clock: FakeClock) -> None:
    server = stack.enter_context(serve(lambda _: Reply(200, {"Set-Cookie": "session=1"})))
    sender = transport(stack, clock)
    for _ in range(2):
        sender.send(get(server)).close()
    assert server.asked[1].headers["Cookie"] is None


def test_content_is_taken_as_it_is_on_the_wire(stack: ExitStack, clock: FakeClock) -> None:
    headers = {"Content-Encoding": "gzip"}
    server = stack.enter_context(serve(lambda _: Reply(200, headers, b"not gzip")))
    with transport(stack, clock).send(get(server)) as answer:
        assert answer.read(100) == b"not gzip"


def test_one_connection_serves_many_requests(stack: ExitStack, clock: FakeClock) -> None:
    server = stack.enter_context(serve(ok))
    sender = transport(stack, clock)
    for method in ("GET", "HEAD", "GET", "HEAD", "GET"):
        with sender.send(Request(method, f"http://{server.host}/", "x")) as answer:
            if method == "GET":
                answer.read(100)
    assert len({asked.port for asked in server.asked}) == 1


# Redirects: N23, N25


def redirecting(location: str, status: int = 307) -> Any:
    return lambda _: Reply(status, {"Location": location}, b"<a href>moved</a>")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_follows_a_redirect_without_the_credential(
    stack: ExitStack, clock: FakeClock, status: int
) -> None:
    cdn = stack.enter_context(serve(ok))
    server = stack.enter_context(serve(redirecting(f"http://{cdn.host}/b?sig=canary", status)))
    request = get(server, headers={"Range": "bytes=1-"}, authorization="Bearer t")
    with transport(stack, clock).send(request) as answer:
        assert answer.redirected
        assert answer.read(100) == b"content"
    (asked,) = cdn.asked
    assert asked.path == "/b?sig=canary"
    assert asked.authorization is None
    assert asked.headers["Range"] == "bytes=1-"


def test_a_redirect_to_the_same_host_loses_the_credential_too(
    stack: ExitStack, clock: FakeClock
) -> None:
    server = stack.enter_context(
        serve(lambda asked: ok(asked) if asked.path == "/b" else Reply(307, {"Location": "/b"}))
    )
    transport(stack, clock).send(get(server, authorization="Bearer t")).close()
    assert [asked.authorization for asked in server.asked] == ["Bearer t", None]


def test_refuses_an_endless_redirect(stack: ExitStack, clock: FakeClock) -> None:
    server = stack.enter_context(serve(redirecting("/again")))
    with pytest.raises(RegistryError, match="more than 5 times"):
        transport(stack, clock).send(get(server))
    assert len(server.asked) == limits.REDIRECTS + 1


def test_refuses_a_redirect_to_a_file(stack: ExitStack, clock: FakeClock) -> None:
    server = stack.enter_context(serve(redirecting("file:///etc/passwd")))
    with pytest.raises(RegistryError, match="which is no HTTP URL"):
        transport(stack, clock).send(get(server))


def test_hands_back_a_redirect_of_a_write(stack: ExitStack, clock: FakeClock) -> None:
    server = stack.enter_context(serve(redirecting("/elsewhere")))
    request = Request("PUT", f"http://{server.host}/", "x", body=b"x", length=1)
    with transport(stack, clock).send(request) as answer:
        assert answer.status == 307
    assert len(server.asked) == 1


# Bodies: N14, N16, N33


def test_a_body_that_breaks_off_may_be_tried_again(stack: ExitStack, clock: FakeClock) -> None:
    server = stack.enter_context(serve(lambda _: Reply(200, {}, b"abc", length=10)))
    answer = stack.enter_context(transport(stack, clock).send(get(server)))
    with pytest.raises(Temporary, match="ended too soon"):
        answer.read(100)


def test_a_reset_may_be_tried_again(stack: ExitStack, clock: FakeClock) -> None:
    server = stack.enter_context(serve(lambda _: Reply(200, {}, b"abc", length=9, reset=True)))
    with pytest.raises(Temporary), transport(stack, clock).send(get(server)) as answer:
        answer.read(100)


@pytest.mark.parametrize("length", [None, -1])
def test_reads_no_more_than_the_limit(
    stack: ExitStack, clock: FakeClock, length: int | None
) -> None:
    server = stack.enter_context(serve(lambda _: Reply(200, {}, b"x" * 5000, length=length)))
    answer = stack.enter_context(transport(stack, clock).send(get(server)))
    with pytest.raises(RegistryError, match="longer than 4999 bytes"):
        answer.read(4999)


def test_gives_large_content_in_pieces_of_a_chunk(stack: ExitStack, clock: FakeClock) -> None:
    content = bytes(range(256)) * (3 * limits.CHUNK // 256) + b"rest"
    server = stack.enter_context(serve(lambda _: Reply(200, {}, content)))
    with transport(stack, clock).send(get(server)) as answer:
        pieces = list(answer.pieces())
    assert b"".join(pieces) == content
    assert [len(piece) for piece in pieces] == [limits.CHUNK] * 3 + [4]


def test_a_trickle_is_a_stall(stack: ExitStack, clock: FakeClock) -> None:
    class Hasty(FakeClock):
        def monotonic(self) -> float:
            self.now += 61
            return self.now

    server = stack.enter_context(serve(lambda _: Reply(200, {}, b"x" * 10)))
    answer = stack.enter_context(transport(stack, Hasty()).send(get(server)))
    arrived: list[bytes] = []
    with pytest.raises(Temporary, match="only 10 bytes in"):
        arrived.extend(answer.pieces())
    assert b"".join(arrived) == b"x" * 10, "a slow line gets somewhere all the same"


def test_stopping_ends_a_stream(stack: ExitStack, clock: FakeClock) -> None:
    server = stack.enter_context(serve(lambda _: Reply(200, {}, b"x" * (4 * limits.MIB))))
    with transport(stack, clock).send(get(server)) as answer:
        pieces = answer.pieces()
        next(pieces)
        clock.stopped = True
        with pytest.raises(Interrupted):
            list(pieces)


# Uploads


def test_streams_a_body_with_its_length(stack: ExitStack, clock: FakeClock) -> None:
    server = stack.enter_context(serve(ok))
    request = Request(
        "PUT", f"http://{server.host}/", "x", body=lambda: iter([b"ab", b"c"]), length=3
    )
    transport(stack, clock).send(request).close()
    assert server.asked[0].body == b"abc"
    assert server.asked[0].headers["Content-Length"] == "3"


@pytest.mark.parametrize(
    ("method", "length"), [("POST", "0"), ("PUT", "0"), ("PATCH", "0"), ("GET", None)]
)
def test_no_content_has_a_length_where_content_is_usual(
    stack: ExitStack, clock: FakeClock, method: str, length: str | None
) -> None:
    server = stack.enter_context(serve(ok))
    transport(stack, clock).send(Request(method, f"http://{server.host}/", "x")).close()
    assert server.asked[0].headers["Content-Length"] == length


@pytest.mark.parametrize("cause", [ValueError("bad"), OSError("medium gone"), RegistryError("x")])
def test_a_failing_source_is_told_from_a_failing_connection(
    stack: ExitStack, clock: FakeClock, cause: Exception
) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"a"
        raise cause

    server = stack.enter_context(serve(ok))
    request = Request("PUT", f"http://{server.host}/", "x", body=pieces, length=3)
    with pytest.raises(BodyFailed) as caught:
        transport(stack, clock).send(request)
    assert caught.value.cause is cause


# Waiting: N11


def test_a_host_that_asks_for_rest_gets_it_from_every_request(
    stack: ExitStack, clock: FakeClock
) -> None:
    replies = [Reply(429, {"Retry-After": "30"}), Reply(200)]
    server = stack.enter_context(serve(lambda _: replies.pop(0)))
    sender = transport(stack, clock)
    sender.send(get(server)).close()
    sender.send(get(server)).close()
    assert clock.slept == [30]


def test_a_wait_for_another_host_is_booked_on_the_registry(
    stack: ExitStack, clock: FakeClock
) -> None:
    replies = [Reply(429, {"Retry-After": "30"}), Reply(200)]
    storage = stack.enter_context(serve(lambda _: replies.pop(0)))
    server = stack.enter_context(serve(redirecting(f"http://{storage.host}/b")))
    sender = transport(stack, clock)
    for _ in range(2):
        sender.send(get(server, lane="r.io")).close()
    (activity,) = sender.account.activity()
    assert (activity.host, activity.waited) == ("r.io", 30)


# Lost hosts


def give_up(sender: Transport, lane: str) -> None:
    attempts = sender.attempts(lane)
    with pytest.raises(Unreachable):
        for _ in range(ATTEMPTS):
            attempts.failed(Temporary(Unreachable("it broke")))


def is_lost(sender: Transport, lane: str) -> bool:
    try:
        sender.attempts(lane).failed(Temporary(Unreachable("it broke")))
    except Unreachable as error:
        return "as were others before" in error.message
    return False


@pytest.mark.parametrize(
    ("status", "stays"),
    [(200, False), (404, False), (202, True), (401, True), (307, True), (503, True)],
)
def test_a_sound_answer_alone_makes_a_lost_host_worth_waiting_for(
    stack: ExitStack, clock: FakeClock, status: int, stays: bool
) -> None:
    server = stack.enter_context(serve(lambda _: Reply(status)))
    sender = transport(stack, clock)
    give_up(sender, "r.io")
    sender.send(get(server, lane="r.io")).close()
    assert is_lost(sender, "r.io") == stays


def test_a_redirect_to_a_lost_host_does_not_make_it_worth_waiting_for(
    stack: ExitStack, clock: FakeClock
) -> None:
    server = stack.enter_context(serve(redirecting(f"http://{closed_port()}/b")))
    sender = transport(stack, clock)
    give_up(sender, "r.io")
    with pytest.raises(Temporary, match="cannot connect"):
        sender.send(get(server, lane="r.io"))
    assert is_lost(sender, "r.io")
    server.script = ok
    sender.send(get(server, lane="r.io")).close()
    assert not is_lost(sender, "r.io")


# Failures below HTTP: N01, N02, N03


def closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def test_a_refused_connection_may_be_tried_again(stack: ExitStack, clock: FakeClock) -> None:
    host = closed_port()
    with pytest.raises(Temporary) as caught:
        transport(stack, clock).send(get(host, "/x?secret=canary"))
    error = caught.value.error
    assert isinstance(error, Unreachable)
    assert error.message == f"the thing: {host}: cannot connect: Connection refused"


@pytest.mark.parametrize("size", [0, 64 * limits.MIB], ids=["no-answer", "body-not-taken"])
def test_a_host_that_falls_silent_has_too_much_to_do(
    stack: ExitStack, clock: FakeClock, size: int
) -> None:
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    sender = transport(stack, clock, patience=Patience(read=0.2, write=0.2))
    body = (lambda: iter([bytes(size)])) if size else None
    request = Request("PUT", url, "x", body=body, length=size, lane="r.io")
    with pytest.raises(Temporary):
        sender.send(request)
    assert sender.pace.level("r.io") == START // 2


def test_a_host_that_takes_no_connection_has_not(stack: ExitStack, clock: FakeClock) -> None:
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
    stack.enter_context(socket.create_connection(listener.getsockname()))  # Its queue is full.
    sender = transport(stack, clock, patience=Patience(connect=0.2))
    with pytest.raises(Temporary, match="cannot connect"):
        sender.send(get(f"127.0.0.1:{listener.getsockname()[1]}", lane="r.io"))
    assert sender.pace.level("r.io") == START


def test_a_name_that_cannot_be_resolved_is_told(stack: ExitStack, clock: FakeClock) -> None:
    with pytest.raises(Temporary, match="the name cannot be resolved"):
        transport(stack, clock).send(get("registry.invalid"))


def test_a_server_that_hangs_up_may_be_asked_again_at_once(
    stack: ExitStack, clock: FakeClock
) -> None:
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

    def hang_up() -> None:
        listener.accept()[0].close()

    thread = threading.Thread(target=hang_up)
    thread.start()
    with pytest.raises(Temporary, match="the connection broke") as caught:
        transport(stack, clock).send(get(f"127.0.0.1:{listener.getsockname()[1]}"))
    thread.join()
    assert caught.value.at_once


def test_an_unknown_authority_is_final_and_its_flag_is_named(
    stack: ExitStack, clock: FakeClock, tmp_path: Path
) -> None:
    server = stack.enter_context(serve(ok, certificate(tmp_path)[0]))
    with pytest.raises(Unreachable, match="certificate is not trusted: self-signed") as caught:
        transport(stack, clock).send(Request("GET", f"https://{server.host}/", "x"))
    assert "--certificate-authority" in (caught.value.hint or "")
    assert server.asked == []


def test_a_given_authority_is_trusted(stack: ExitStack, clock: FakeClock, tmp_path: Path) -> None:
    tls, authority = certificate(tmp_path)
    server = stack.enter_context(serve(ok, tls))
    sender = transport(stack, clock, certificate_authority=authority)
    with sender.send(Request("GET", f"https://{server.host}/", "x")) as answer:
        assert answer.read(100) == b"content"


@pytest.mark.parametrize("content", [None, "nonsense"])
def test_an_unusable_authority_is_named(clock: FakeClock, tmp_path: Path, content: str) -> None:
    path = tmp_path / "ca.pem"
    if content:
        path.write_text(content)
    with pytest.raises(UsageError, match=f"--certificate-authority {path}"):
        Transport(environ={}, certificate_authority=path, clock=clock)


def test_a_certificate_for_another_name_is_refused(
    stack: ExitStack, clock: FakeClock, tmp_path: Path
) -> None:
    tls, authority = certificate(tmp_path)
    server = stack.enter_context(serve(ok, tls))
    url = f"https://{server.host}/".replace("127.0.0.1", "localhost")
    with pytest.raises(Unreachable, match="not trusted") as caught:
        transport(stack, clock, certificate_authority=authority).send(Request("GET", url, "x"))
    assert "by a name in its certificate" in (caught.value.hint or "")


def test_never_leaves_tls_by_itself(stack: ExitStack, clock: FakeClock) -> None:
    server = stack.enter_context(serve(ok))
    sender = transport(stack, clock)
    assert sender.origin(server.host, insecure=False) == f"https://{server.host}"
    with pytest.raises(Unreachable, match="no TLS connection") as caught:
        sender.send(Request("GET", f"https://{server.host}/", "x"))
    assert "--insecure" in (caught.value.hint or "")


# Insecure hosts


def test_an_insecure_host_without_tls_is_spoken_to_in_plain_http(
    stack: ExitStack, clock: FakeClock
) -> None:
    server = stack.enter_context(serve(ok))
    sender = transport(stack, clock, insecure=frozenset({server.host}))
    for _ in range(3):
        assert sender.origin(server.host, insecure=True) == f"http://{server.host}"
    assert server.paths == ["GET /v2/"]


def test_an_insecure_host_whose_first_answer_breaks_off_is_asked_again(
    stack: ExitStack, clock: FakeClock, tmp_path: Path
) -> None:
    registry = FaultyRegistry(DirectoryStore(tmp_path, durable=False))
    server = stack.enter_context(registry)
    server.fault("GET", "/v2/", reset(), hits=(1,))
    sender = transport(stack, clock, insecure=frozenset({server.host}))
    with pytest.raises(Temporary, match="the connection broke"):
        sender.origin(server.host, insecure=True)
    assert sender.origin(server.host, insecure=True) == f"http://{server.host}"


def test_an_insecure_host_with_tls_keeps_it_unverified(
    stack: ExitStack, clock: FakeClock, tmp_path: Path
) -> None:
    server = stack.enter_context(serve(ok, certificate(tmp_path)[0]))
    sender = transport(stack, clock, insecure=frozenset({server.host}))
    origin = sender.origin(server.host, insecure=True)
    assert origin == f"https://{server.host}"
    sender.send(Request("GET", f"{origin}/", "x", insecure=True)).close()


def test_a_host_that_is_down_is_not_taken_for_one_without_tls(
    stack: ExitStack, clock: FakeClock
) -> None:
    host = closed_port()
    assert transport(stack, clock).origin(host, insecure=True) == f"https://{host}"


def test_only_the_hosts_that_were_named_are_insecure(stack: ExitStack, clock: FakeClock) -> None:
    sender = transport(stack, clock, insecure=frozenset({"a.io:5000", "b.io"}))
    named = ["a.io:5000", "A.IO:5000", "b.io", "b.io:443", "b.io:80"]
    assert all(sender.is_insecure(host) for host in named)
    assert not any(sender.is_insecure(host) for host in ("a.io", "b.io:5000", "c.b.io"))


def test_docker_hub_is_reached_under_its_api_name(stack: ExitStack, clock: FakeClock) -> None:
    origin = transport(stack, clock).origin("docker.io", insecure=False)
    assert origin == "https://registry-1.docker.io"


# Proxies: N34


def test_a_request_goes_through_the_proxy_with_its_password(
    stack: ExitStack, clock: FakeClock
) -> None:
    proxy = stack.enter_context(serve(ok))
    environ = {"HTTP_PROXY": f"http://user:p%40ss@{proxy.host}"}
    transport(stack, clock, environ=environ).send(get("registry.invalid:5000", "/v2/")).close()
    (asked,) = proxy.asked
    assert asked.path == "http://registry.invalid:5000/v2/"
    assert asked.headers["Proxy-Authorization"] == "Basic dXNlcjpwQHNz"


def test_no_proxy_goes_straight_and_the_process_environment_is_ignored(
    stack: ExitStack, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, server = stack.enter_context(serve(ok)), stack.enter_context(serve(ok))
    monkeypatch.setenv("HTTP_PROXY", f"http://{proxy.host}")
    environ = {"HTTP_PROXY": f"http://{proxy.host}", "NO_PROXY": "127.0.0.0/8"}
    transport(stack, clock, environ=environ).send(get(server)).close()
    transport(stack, clock).send(get(server)).close()
    assert proxy.asked == []
    assert server.asked[0].headers["Proxy-Authorization"] is None


def test_a_proxy_that_refuses_is_told_from_the_registry(stack: ExitStack, clock: FakeClock) -> None:
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

    def refuse() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")

    thread = threading.Thread(target=refuse)
    thread.start()
    environ = {"HTTPS_PROXY": f"http://user:canary@127.0.0.1:{listener.getsockname()[1]}"}
    with pytest.raises(Unreachable, match=r"the proxy fails: .*407") as caught:
        transport(stack, clock, environ=environ).send(
            Request("GET", "https://registry.invalid/v2/", "x")
        )
    thread.join()
    assert "canary" not in str(caught.value)
