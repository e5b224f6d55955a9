"""The line that benchmarks lay to a registry: as long as it says, and nothing else."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.slow_link import slow_link

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUND_TRIP = 0.04
MUCH = 8 << 20


@pytest.fixture
def far() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        yield server


@contextmanager
def connected(near: str) -> Iterator[socket.socket]:
    host, _, port = near.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        yield client


def receive(end: socket.socket, count: int) -> bytes:
    """Receive so many bytes, or what comes before the end."""
    received = bytearray()
    while len(received) < count and (piece := end.recv(count - len(received))):
        received += piece
    return bytes(received)


def fill(end: socket.socket) -> None:
    """Send until nothing more is taken."""
    end.settimeout(0.5)
    with pytest.raises(TimeoutError):
        while True:
            end.send(bytes(MUCH))


@pytest.fixture
def near(far: socket.socket) -> Iterator[str]:
    host, port = far.getsockname()
    with slow_link(f"{host}:{port}", ROUND_TRIP) as near:
        yield near


def test_an_answer_takes_a_round_trip_and_the_first_one_two(far: socket.socket, near: str) -> None:
    begun = time.monotonic()
    with connected(near) as client, far.accept()[0] as server:
        for round_trips in (2, 3):
            client.sendall(b"?")
            assert server.recv(9) == b"?"
            server.sendall(b"!")
            assert client.recv(9) == b"!"
            assert time.monotonic() - begun >= round_trips * ROUND_TRIP


def test_much_arrives_whole_and_in_order_both_ways(far: socket.socket, near: str) -> None:
    content = b"".join(n.to_bytes(4, "big") for n in range(MUCH // 4))
    with connected(near) as client, far.accept()[0] as server:
        for sender, receiver in ((client, server), (server, client)):
            sending = threading.Thread(target=sender.sendall, args=(content,))
            sending.start()
            received = receive(receiver, MUCH)
            sending.join()
            assert received == content


def test_one_connection_does_not_wait_for_another(far: socket.socket, near: str) -> None:
    with connected(near) as idle, far.accept()[0] as full, connected(near) as client:
        fill(idle)
        with far.accept()[0] as server:
            client.sendall(b"?")
            assert server.recv(9) == b"?"
        assert full.recv(1)


def test_an_end_that_closes_closes_the_other(far: socket.socket, near: str) -> None:
    with connected(near) as client:
        server, _ = far.accept()
        with server:
            server.sendall(b"last")
        assert receive(client, 5) == b"last"


def test_a_far_end_that_is_not_there_ends_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        host, port = gone.getsockname()
    with slow_link(f"{host}:{port}", ROUND_TRIP) as near, connected(near) as client:
        assert client.recv(1) == b""
