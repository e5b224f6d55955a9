"""HTTP/1.1 as a client, over a real pair of sockets whose other end says what the test wants."""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack
from itertools import pairwise
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airgap import limits
from airgap.registry.http_client import Connection, CutShort, HungUp, NotHttp, Reply

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airgap.registry.http_client import Stream

OK = b"HTTP/1.1 200 OK\r\n"


class Pair:
    """A connection, and its far end; ``over`` is every connection that was given back."""

    def __init__(self, stack: ExitStack) -> None:
        near, self.far = socket.socketpair()
        stack.enter_context(self.far)
        self.connection = Connection(near)
        stack.callback(self.connection.close)
        self.connection.patience(5)
        self.over: list[Connection] = []

    def says(self, *pieces: bytes, then_closes: bool = True) -> None:
        for piece in pieces:
            self.far.sendall(piece)
        if then_closes:
            self.far.shutdown(socket.SHUT_WR)

    def answer(self, method: str = "GET") -> Reply:
        return self.connection.answer(method, self.over.append)

    def heard(self) -> bytes:
        self.connection.close()
        return b"".join(iter(lambda: self.far.recv(1 << 16), b""))


@pytest.fixture
def pair() -> Iterator[Pair]:
    with ExitStack() as stack:
        yield Pair(stack)


def whole(reply: Reply, limit: int = 1 << 16) -> bytes:
    return b"".join(iter(lambda: reply.read(limit), b""))


# Asking


def test_a_request_is_its_line_its_headers_and_its_body(pair: Pair) -> None:
    pair.connection.ask("PUT", "/a?b=c", {"Host": "r.io", "Content-Length": "3"}, [b"ab", b"c"])
    assert pair.heard() == b"PUT /a?b=c HTTP/1.1\r\nHost: r.io\r\nContent-Length: 3\r\n\r\nabc"


def test_a_body_larger_than_what_is_joined_follows_its_head(pair: Pair) -> None:
    body = bytes(range(256)) * 512

    def ask() -> None:
        pair.connection.ask("PUT", "/", {}, [memoryview(body), b"", b"end"])
        pair.connection.close()

    asking = threading.Thread(target=ask)
    asking.start()
    heard = b"".join(iter(lambda: pair.far.recv(1 << 16), b""))
    asking.join()
    assert heard == b"PUT / HTTP/1.1\r\n\r\n" + body + b"end"


def test_a_target_is_quoted_where_it_must_be_and_nowhere_else(pair: Pair) -> None:
    pair.connection.ask("GET", "/a%2Fb?s=x%20y&t=~é z", {})
    assert pair.heard() == b"GET /a%2Fb?s=x%20y&t=~%C3%A9%20z HTTP/1.1\r\n\r\n"


@pytest.mark.parametrize("value", ["a\r\nEvil: b", "a\nb", "a\rb", "a\0b"])
def test_a_header_cannot_become_two(pair: Pair, value: str) -> None:
    with pytest.raises(ValueError, match="the header X would be several"):
        pair.connection.ask("GET", "/", {"X": value})
    assert pair.heard() == b""


def test_what_the_body_raises_goes_through(pair: Pair) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"a"
        raise LookupError

    with pytest.raises(LookupError):
        pair.connection.ask("PUT", "/", {}, pieces())


def test_a_server_that_stops_reading_may_have_answered(pair: Pair) -> None:
    pair.says(OK.replace(b"200 OK", b"413 No") + b"Content-Length: 2\r\n\r\nno", then_closes=False)
    pair.far.shutdown(socket.SHUT_RD)
    pair.connection.ask("PUT", "/", {}, [bytes(limits.MIB)] * 8)
    reply = pair.answer("PUT")
    assert (reply.status, whole(reply)) == (413, b"no")
    assert not pair.connection.is_reusable


# Heads


def test_fields_are_found_in_any_case_and_joined(pair: Pair) -> None:
    pair.says(OK + b"A: 1\r\nb:\t2 \r\na: 3\r\nC:\r\nContent-Length: 0\r\n\r\n")
    headers = pair.answer().headers
    assert (headers["A"], headers["B"], headers["c"]) == ("1, 3", "2", "")
    assert headers.all_of("a") == ["1", "3"]
    assert (headers.get("D"), headers.all_of("D"), len(headers)) == (None, [], 4)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200\r\nA: 1 2\r\n\r\n",
        b"HTTP/1.1 200 \nA: 1 2\n\n",
        b"HTTP/1.1 200 Fine: really\r\nA: 1\r\n  2\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nA: 9\r\n\r\n" + OK + b"A: 1 2\r\n\r\n",
    ],
    ids=["no-reason", "bare-line-feeds", "folded", "after-interim-answers"],
)
def test_heads_as_servers_write_them(pair: Pair, head: bytes) -> None:
    pair.says(head)
    reply = pair.answer()
    assert (reply.status, reply.headers["A"], len(reply.headers)) == (200, "1 2", 1)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"SSH-2.0-OpenSSH\r\n\r\n", "no status line"),
        (b"HTTP/2 200 OK\r\n\r\n", "no status line"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "no status line"),
        (b"HTTP/1.1 101 Switching\r\n\r\n", "another protocol"),
        (OK + b"no colon\r\n\r\n", "malformed header"),
        (OK + b"two words: x\r\n\r\n", "malformed header"),
        (OK + b": x\r\n\r\n", "malformed header"),
        (OK + b"A: 1\rB: 2\r\n\r\n", "malformed header"),
        (OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", "several lengths"),
        (OK + b"Content-Length: 1, 2\r\n\r\n", "several lengths"),
        (OK + b"Content-Length: -1\r\n\r\n", "a length that is none"),
        (OK + b"Content-Length: 1e3\r\n\r\n", "a length that is none"),
        (OK + b"Content-Length: \xb2\r\n\r\n", "a length that is none"),
        (OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n", "a coding that was not asked for"),
        (OK + b"A: " + b"x" * 100_000, "a head without end"),
    ],
)
def test_what_is_no_answer_is_refused(pair: Pair, said: bytes, why: str) -> None:
    pair.says(said)
    with pytest.raises(NotHttp, match=why):
        pair.answer()


@pytest.mark.parametrize(("said", "kind"), [(b"", HungUp), (OK + b"A: 1\r\n", CutShort)])
def test_an_end_before_the_answer_is_told_from_one_within(
    pair: Pair, said: bytes, kind: type[Exception]
) -> None:
    pair.says(said)
    with pytest.raises(kind):
        pair.answer()


# Bodies


@pytest.mark.parametrize(
    ("said", "reusable"),
    [
        (b"Content-Length: 6\r\n\r\nbodily", True),
        (b"Content-Length: 6, 6\r\n\r\nbodily", True),
        (b"Transfer-Encoding: identity\r\nContent-Length: 6\r\n\r\nbodily", True),
        (b"Transfer-Encoding: chunked\r\n\r\n3\r\nbod\r\n3\r\nily\r\n0\r\n\r\n", True),
        (b"Transfer-Encoding: Chunked\r\n\r\n06;ext=1\nbodily\n0\nA: b\n\n", True),
        (b"Connection: close\r\nContent-Length: 6\r\n\r\nbodily", False),
        (b"\r\nbodily", False),
    ],
    ids=["length", "same-twice", "identity", "chunks", "extensions", "closing", "until-the-end"],
)
def test_a_body_ends_where_its_framing_says(pair: Pair, said: bytes, reusable: bool) -> None:
    pair.says(OK + said)
    reply = pair.answer()
    assert pair.over == []
    assert whole(reply, 4) == b"bodily"
    assert pair.over == [pair.connection]
    assert pair.connection.is_reusable == reusable
    assert reply.read(4) == b""


def test_chunks_go_before_a_length_and_end_the_connection(pair: Pair) -> None:
    pair.says(OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n")
    assert whole(pair.answer()) == b"x"
    assert not pair.connection.is_reusable


@pytest.mark.parametrize(
    ("line", "fields", "reusable"),
    [
        (b"HTTP/1.0 200 OK\r\n", b"", False),
        (b"HTTP/1.0 200 OK\r\n", b"Connection: Keep-Alive\r\n", True),
        (b"HTTP/1.1 200 OK\r\n", b"Connection: keep-alive, Close\r\n", False),
    ],
)
def test_who_may_ask_again(pair: Pair, line: bytes, fields: bytes, reusable: bool) -> None:
    pair.says(line + fields + b"Content-Length: 0\r\n\r\n")
    pair.answer()
    assert pair.connection.is_reusable == reusable


@pytest.mark.parametrize(
    ("method", "line"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\n"),
        ("DELETE", b"HTTP/1.1 204 No Content\r\n"),
    ],
)
def test_some_answers_have_no_body_whatever_they_say(pair: Pair, method: str, line: bytes) -> None:
    pair.says(line + b"Content-Length: 5\r\n\r\n" + OK + b"Content-Length: 1\r\n\r\nx")
    reply = pair.answer(method)
    assert (reply.read(9), reply.headers["Content-Length"]) == (b"", "5")
    assert pair.over == [pair.connection]
    assert whole(pair.answer()) == b"x"


@pytest.mark.parametrize(
    "said",
    [
        b"Content-Length: 6\r\n\r\nbod",
        b"Transfer-Encoding: chunked\r\n\r\n6\r\nbod",
        b"Transfer-Encoding: chunked\r\n\r\n3\r\nbod\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n3\r\nbod\r\n0\r\nA: b\r\n",
    ],
    ids=["length", "in-a-chunk", "between-chunks", "behind-them"],
)
def test_a_body_that_breaks_off_is_no_body(pair: Pair, said: bytes) -> None:
    pair.says(OK + said)
    with pytest.raises(CutShort):
        whole(pair.answer())
    assert pair.over == []


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"g\r\n", "not the size of a chunk"),
        (b"-1\r\n", "not the size of a chunk"),
        (b"1\r\nxy\r\n", "a chunk is longer than it says"),
        (b"1" * 40_000, "a line without end"),
        (b"0\r\n" + b"A: b\r\n" * 12_000, "chunks without end"),
    ],
)
def test_chunks_that_are_none_are_refused(pair: Pair, said: bytes, why: str) -> None:
    pair.says(OK + b"Transfer-Encoding: chunked\r\n\r\n" + said)
    with pytest.raises(NotHttp, match=why):
        whole(pair.answer())


def test_closing_in_the_middle_cuts_the_connection(pair: Pair) -> None:
    pair.says(OK + b"Content-Length: 6\r\n\r\nbod", then_closes=False)
    reply = pair.answer()
    assert reply.read(2) == b"bo"
    reply.close()
    assert (pair.over, pair.connection.is_reusable, reply.read(9)) == ([], False, b"")
    assert pair.far.recv(1) == b""


def test_silence_has_an_end(pair: Pair) -> None:
    pair.connection.patience(0.05)
    with pytest.raises(TimeoutError):
        pair.answer()


def test_a_connection_is_quiet_until_something_comes_unasked(pair: Pair) -> None:
    pair.says(OK + b"Content-Length: 0\r\n\r\n", then_closes=False)
    pair.answer()
    assert pair.connection.is_quiet()
    pair.says(b"H", then_closes=False)
    assert not pair.connection.is_quiet()


def test_a_closed_connection_is_not_quiet(pair: Pair) -> None:
    pair.says(OK + b"Content-Length: 0\r\n\r\n")
    pair.answer()
    assert not pair.connection.is_quiet()


_CHUNKS = st.lists(st.binary(min_size=1, max_size=40), max_size=5)


@settings(max_examples=60, deadline=None)
@given(
    chunks=_CHUNKS,
    chunked=st.booleans(),
    cuts=st.sets(st.integers(1, 400)),
    limit=st.integers(1, 50),
)
def test_how_an_answer_is_cut_into_packets_changes_nothing(
    chunks: list[bytes], chunked: bool, cuts: set[int], limit: int
) -> None:
    body = b"".join(chunks)
    if chunked:
        parts = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
        said = OK + b"Transfer-Encoding: chunked\r\nA: b\r\n\r\n" + parts + b"0\r\n\r\n"
    else:
        said = OK + b"Content-Length: %d\r\nA: b\r\n\r\n" % len(body) + body
    places = [0, *sorted(cut for cut in cuts if cut < len(said)), len(said)]
    packets = _InPackets([said[a:b] for a, b in pairwise(places)])
    connection = Connection(cast("Stream", packets))
    reply = connection.answer("GET", lambda over: None)
    assert (reply.headers["a"], whole(reply, limit)) == ("b", body)
    assert connection.is_reusable


class _InPackets:
    """A stream whose every reading ends where a packet does."""

    def __init__(self, packets: list[bytes]) -> None:
        self._packets = packets

    def recv(self, size: int) -> bytes:
        packet = self._packets.pop(0)
        if len(packet) > size:
            self._packets.insert(0, packet[size:])
        return packet[:size]

    def fileno(self) -> int:
        return 0  # nobody looks whether it is quiet
