"""The connections below the registry: what counts as a request, and how bodies travel."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

import pytest

from airgap.errors import IntegrityError, UsageError
from airgap.registry.http_server import HttpServer, Request, Response, tls_context

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OK = HTTPStatus.OK


@dataclass(frozen=True)
class Stretch:
    descriptor: int
    offset: int
    length: int


def echo(request: Request) -> Response:
    """Answers with what it understood."""
    content = request.body.read(1 << 20)
    said = f"{request.method} {request.path} {dict(request.query)} {len(content)}".encode()
    return Response(OK, {"X-Kind": request.headers.get("x-kind", "")}, (said,), len(said))


@contextmanager
def connected(server: HttpServer) -> Iterator[socket.socket]:
    with socket.create_connection(server.address, timeout=5) as connection:
        yield connection


def talk(server: HttpServer, raw: bytes) -> bytes:
    """Send bytes, then nothing more; return everything that comes back."""
    with connected(server) as connection:
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_WR)
        return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    received = b""
    while piece := connection.recv(65536):
        received += piece
    return received


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with HttpServer(echo) as running:
        yield running


def test_answers_with_what_the_handler_says(server: HttpServer) -> None:
    answer = talk(server, b"GET /a%20b?n=1&last=x%3Ay HTTP/1.1\r\nHost: h\r\nX-Kind: k\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"X-Kind: k" in head
    assert body == b"GET /a b {'n': '1', 'last': 'x:y'} 0"


def test_answers_many_requests_on_one_connection(server: HttpServer) -> None:
    one = b"PUT /x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"
    assert talk(server, one * 3).count(b"PUT /x {} 3") == 3


def test_reads_a_body_in_chunks(server: HttpServer) -> None:
    raw = (
        b"PATCH /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\nA;name=value\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n"
        b"GET /after HTTP/1.1\r\nHost: h\r\n\r\n"
    )
    answer = talk(server, raw)
    assert b"PATCH /x {} 13" in answer
    assert b"GET /after {} 0" in answer


def test_asks_a_waiting_client_for_its_body(server: HttpServer) -> None:
    head = b"PUT /x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    with connected(server) as connection:
        connection.sendall(head)
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"abc")
        connection.shutdown(socket.SHUT_WR)
        assert b"PUT /x {} 3" in read_all(connection)


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET  / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\nHost: h\n\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n",
        b"GET / HTTP/1.1\r\nHost : h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nNo colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"y" * 20_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 101 + b"\r\n",
        b"PUT / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"PUT / HTTP/1.1\r\nContent-Length: +3\r\n\r\nabc",
        b"PUT / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"PUT / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nab\r\n0\r\n\r\n",
    ],
)
def test_refuses_what_breaks_http_and_ends_the_connection(server: HttpServer, raw: bytes) -> None:
    answer = talk(server, raw + b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 4")
    assert b"Connection: close" in answer
    assert b"smuggled" not in answer


@pytest.mark.parametrize(
    "raw",
    [
        b"PUT / HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc",
        b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
        b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ],
)
def test_gives_no_answer_to_half_a_body(server: HttpServer, raw: bytes) -> None:
    with suppress(ConnectionResetError):
        assert talk(server, raw) == b""


def test_refuses_a_body_larger_than_the_handler_takes() -> None:
    def small(request: Request) -> Response:
        return Response(OK, {}, (request.body.read(10),), 10)

    with HttpServer(small) as server:
        for head in (b"Content-Length: 11\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\nB\r\n"):
            answer = talk(server, b"PUT / HTTP/1.1\r\n" + head + b"0123456789\n\r\n0\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 413 ")


def test_an_answer_survives_a_body_that_nobody_reads() -> None:
    def refuse(_: Request) -> Response:
        return Response(HTTPStatus.FORBIDDEN, {}, (b"no",), 2)

    with HttpServer(refuse) as server, connected(server) as connection:
        connection.sendall(b"PUT / HTTP/1.1\r\nContent-Length: 3000000\r\n\r\n" + bytes(2_000_000))
        assert connection.recv(100).startswith(b"HTTP/1.1 403 Forbidden\r\n")


def test_ends_the_connection_of_an_old_client(server: HttpServer) -> None:
    with connected(server) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert b"Connection: close" in read_all(connection)


def test_sends_stretches_of_a_file_between_bytes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789" * 100_000)

    def respond(_: Request) -> Response:
        def body() -> Iterator[bytes | Stretch]:
            with path.open("rb") as file:
                yield b"<"
                yield Stretch(file.fileno(), 5, 900_000)
                yield b">"

        return Response(OK, {}, body(), 900_002)

    with HttpServer(respond) as server:
        _, _, body = talk(server, b"GET / HTTP/1.1\r\n\r\n").partition(b"\r\n\r\n")
    assert body == b"<" + path.read_bytes()[5:900_005] + b">"


def test_begins_no_body_for_head() -> None:
    begun: list[bool] = []

    def respond(_: Request) -> Response:
        def body() -> Iterator[bytes]:
            begun.append(True)
            yield b"12345"

        return Response(OK, {}, body(), 5)

    with HttpServer(respond) as server:
        answer = talk(server, b"HEAD / HTTP/1.1\r\n\r\n")
    assert b"Content-Length: 5\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")
    assert not begun


@pytest.mark.parametrize("promised", [2, 9])
def test_a_body_of_another_length_ends_the_connection(promised: int) -> None:
    lines: list[str] = []

    def respond(_: Request) -> Response:
        return Response(OK, {}, (b"12345",), promised)

    with HttpServer(respond, log=lines.append) as server:
        answer = talk(server, b"GET / HTTP/1.1\r\n\r\n" * 2)
    assert answer.count(b"HTTP/1.1 200") == 1
    assert any(f"a body of 5 bytes, not {promised}" in line for line in lines)


def test_a_body_without_length_ends_with_the_connection() -> None:
    with HttpServer(lambda _: Response(OK, {}, (b"12345",), None)) as server:
        answer = talk(server, b"GET / HTTP/1.1\r\n\r\n")
    assert b"Content-Length" not in answer
    assert answer.endswith(b"Connection: close\r\n\r\n12345")


def test_resets_the_connection_when_the_handler_loses_its_source() -> None:
    def respond(_: Request) -> Response:
        raise OSError("the disk has gone")

    with HttpServer(respond) as server, connected(server) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_is_answered_and_seen() -> None:
    seen: list[threading.ExceptHookArgs] = []

    def respond(_: Request) -> Response:
        raise ZeroDivisionError

    before, threading.excepthook = threading.excepthook, seen.append
    try:
        with HttpServer(respond) as server:
            answer = talk(server, b"GET / HTTP/1.1\r\n\r\n")
    finally:
        threading.excepthook = before
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert [one.exc_type for one in seen] == [ZeroDivisionError]


def test_lets_go_of_a_silent_connection() -> None:
    with HttpServer(echo, patience=0.1) as server, connected(server) as connection:
        assert connection.recv(1) == b""


def test_stops_with_connections_open_and_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    server = HttpServer(echo)
    server.start()
    with connected(server) as idle, connected(server) as busy:
        busy.sendall(b"PUT / HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc")
        idle.sendall(b"GET / HTTP/1.1\r\n\r\n")
        idle.recv(10)
        server.stop()
        server.stop()
    assert set(threading.enumerate()) <= before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(server.address, timeout=1)


def test_can_be_started_again_on_the_same_port() -> None:
    with HttpServer(echo) as server:
        port = server.address[1]
        talk(server, b"GET / HTTP/1.1\r\n\r\n")
    with HttpServer(echo, port=port) as server:
        assert talk(server, b"GET /again HTTP/1.1\r\n\r\n").endswith(b"GET /again {} 0")


def test_says_when_the_port_is_taken(server: HttpServer) -> None:
    with pytest.raises(UsageError, match=r"cannot listen on 127\.0\.0\.1:") as caught:
        HttpServer(echo, port=server.address[1]).start()
    assert caught.value.hint


def test_says_when_there_is_no_such_address() -> None:
    with pytest.raises(UsageError, match=r"cannot listen on no\.such\.invalid:0"):
        HttpServer(echo, "no.such.invalid").start()


def test_logs_one_line_a_request_without_control_characters() -> None:
    lines: list[str] = []
    with HttpServer(echo, log=lines.append) as server:
        talk(server, b"GET /%1b[31m HTTP/1.1\r\n\r\n")
    assert lines == [r"127.0.0.1 GET /\x1b[31m 200"]


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 and its key, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    both = folder / "both.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")]
    try:
        subprocess.run([*command.split(), *names, *files], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    parts = [folder / "certificate.pem", folder / "key.pem"]
    both.write_bytes(b"".join(part.read_bytes() for part in parts))
    return both


def test_serves_bytes_and_files_over_tls(certificate: Path) -> None:
    def respond(_: Request) -> Response:
        def body() -> Iterator[bytes | Stretch]:
            with certificate.open("rb") as file:
                yield b"<"
                yield Stretch(file.fileno(), 1, 500)

        return Response(OK, {}, body(), 501)

    context = ssl.create_default_context(cafile=certificate)
    with HttpServer(respond, tls=tls_context(certificate)) as server:
        assert server.url == f"https://{server.host}"
        with (
            connected(server) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
        ):
            connection.sendall(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
            answer = read_all(connection)
    assert answer.endswith(b"\r\n\r\n<" + certificate.read_bytes()[1:501])


def test_outlives_a_client_that_speaks_no_tls(certificate: Path) -> None:
    lines: list[str] = []
    with HttpServer(echo, tls=tls_context(certificate), log=lines.append) as server:
        with suppress(OSError):
            assert b"HTTP/1.1" not in talk(server, b"GET / HTTP/1.1\r\n\r\n")
        with socket.create_connection(server.address, timeout=5):
            pass
    assert lines


def test_refuses_a_file_that_is_no_certificate(tmp_path: Path) -> None:
    (tmp_path / "x.pem").write_text("nothing")
    with pytest.raises(UsageError, match=r"cannot serve TLS with .*x\.pem"):
        tls_context(tmp_path / "x.pem")


def test_content_that_turns_out_wrong_ends_in_a_reset() -> None:
    def respond(_: Request) -> Response:
        def body() -> Iterator[bytes]:
            yield b"begun"
            raise IntegrityError("not what it must be")

        return Response(OK, {}, body(), 5)

    lines: list[str] = []
    with HttpServer(respond, log=lines.append) as server, connected(server) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            while connection.recv(65536):
                pass
    assert lines[-1] == "127.0.0.1: not what it must be"


def test_more_clients_than_it_serves_wait_for_their_turn() -> None:
    asked, go = threading.Semaphore(0), threading.Event()

    def respond(_: Request) -> Response:
        asked.release()
        go.wait(10)
        return Response(OK)

    request = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    with HttpServer(respond, connections=2) as server, ExitStack() as stack:
        clients = [stack.enter_context(connected(server)) for _ in range(3)]
        for client in clients:
            client.sendall(request)
        assert asked.acquire(timeout=5)
        assert asked.acquire(timeout=5)
        assert not asked.acquire(timeout=0.5)
        go.set()
        assert all(read_all(client).startswith(b"HTTP/1.1 200") for client in clients)
