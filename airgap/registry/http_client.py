"""HTTP/1.1 as a client: one exchange after the other over one connection. Nothing about registries.

Follows RFC 9110 and RFC 9112. An answer in which two readers could see two different ones (two
lengths, a coding other than chunks, a head without end) is refused. Content is given as it is
on the wire. Where a connection leads to, and who waits how long for what, is its caller's.

It exists because a request through the standard library's parser and a general pool costs ten
times the processor time, which an import of thousands of small blobs is made of:
docs/decisions/0002.
"""

from __future__ import annotations

import re
import select
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, TypeVar, overload
from urllib.parse import quote

from airgap import limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from airgap.digest import Bytes

T = TypeVar("T")

_HEAD = 64 * limits.KIB
"""An answer's head may be so long, in bytes, with everything that comes before it."""

_AHEAD = 16 * limits.KIB
"""What is read at once where a head is expected."""

_JOINED = 32 * limits.KIB
"""Up to so many bytes of a body go out in one call with the head."""

_STATUS_LINE = re.compile(r"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\r\n]*)?(?=\r?\n|$)", re.ASCII)
_FIELD = re.compile(r"\r?\n([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n]*)(?=\r?\n|$)", re.ASCII)
_FOLD = re.compile(r"\r?\n[ \t]+")
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
_LENGTH = re.compile(r"[0-9]{1,18}", re.ASCII)
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r?\n")
_LINE_BREAK = re.compile(r"[\r\n\0]")
_VISIBLE = "".join(map(chr, range(0x21, 0x7F)))
_LINE_ENDS = frozenset({b"\r\n", b"\n"})
_WITHOUT_BODY = frozenset({204, 304})


class Stream(Protocol):
    """What a connection needs of a socket, which may speak TLS."""

    def sendall(self, data: Bytes, /) -> None:
        """Send all of the bytes."""

    def recv(self, size: int, /) -> bytes:
        """Return bytes that have arrived, ``size`` at most; none when there will be no more."""

    def settimeout(self, seconds: float | None, /) -> None:
        """Limit how long each call waits."""

    def fileno(self) -> int:
        """Return the descriptor."""

    def close(self) -> None:
        """Close it."""


class HungUp(ConnectionError):
    """The other side closed the connection before it answered anything."""


class CutShort(ConnectionError):
    """The other side closed the connection in the middle of an answer."""


class NotHttp(Exception):
    """What arrives is no answer in HTTP/1.1. The text says why."""


class Headers(Mapping[str, str]):
    """The fields of an answer's head, by names in any case of letters.

    Several of one name are one value, joined as RFC 9110 says; ``all_of`` gives each.
    """

    __slots__ = ("_fields", "_values")

    def __init__(self, fields: Sequence[tuple[str, str]]) -> None:
        self._fields = fields
        self._values: dict[str, str] = {}
        for name, text in fields:
            lower, value = name.lower(), text.rstrip(" \t")
            before = self._values.get(lower)
            self._values[lower] = value if before is None else f"{before}, {value}"

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    @overload
    def get(self, name: str, default: None = None, /) -> str | None: ...

    @overload
    def get(self, name: str, default: str | T, /) -> str | T: ...

    def get(self, name: str, default: str | T | None = None, /) -> str | T | None:
        """Return the value of a name, or else ``default``; what Mapping brings is much slower."""
        return self._values.get(name.lower(), default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def all_of(self, name: str) -> list[str]:
        """Return the value of each field of a name."""
        lower = name.lower()
        return [text.rstrip(" \t") for each, text in self._fields if each.lower() == lower]


class Connection:
    """A connection to one server, or to a proxy before it.

    ``ask`` and ``answer`` take turns. An answer must have been read to its end before the next
    ``ask``; ``is_reusable`` says whether there may be one. Every method raises OSError, among
    it TimeoutError and ``ssl.SSLError``.
    """

    __slots__ = ("_ahead", "_arrivals", "_stream", "_timeout", "is_reusable")

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._arrivals = select.poll()
        self._arrivals.register(stream.fileno(), select.POLLIN)
        self._timeout: float | None = None
        self._ahead = b""
        self.is_reusable = True

    def patience(self, seconds: float) -> None:
        """Limit how long each reading or writing may wait from now on, in seconds."""
        if seconds != self._timeout:  # It is a system call.
            self._stream.settimeout(seconds)
            self._timeout = seconds

    def ask(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: Iterable[Bytes] = (),
    ) -> None:
        """Send a request. ``headers`` are all it has, the body's length among them.

        What ``body`` raises goes through; so does ValueError for a header that holds a line
        break. A server that stops reading may have answered: that is not an error here.
        """
        head: bytes = _head(method, target, headers)
        try:
            for piece in body:
                if head and len(piece) <= _JOINED:
                    self._stream.sendall(b"".join((head, piece)))
                else:
                    if head:
                        self._stream.sendall(head)
                    self._stream.sendall(piece)
                head = b""
            if head:
                self._stream.sendall(head)
        except BrokenPipeError:
            self.is_reusable = False

    def answer(self, method: str, over: Callable[[Connection], None]) -> Reply:
        """Return the answer to a request that was sent; its body has not been read.

        ``over`` is called as soon as its body has been read to the end, perhaps at once. Raises
        HungUp, CutShort, NotHttp.
        """
        while True:
            status, version, headers = _parsed(self._next_head())
            if status >= 200:
                break
            if status == 101:
                raise NotHttp("another protocol, which nobody asked for")
        has_body = method != "HEAD" and status not in _WITHOUT_BODY
        length = _length(headers) if has_body else 0
        chunked = has_body and _is_chunked(headers)
        tokens = headers.get("Connection", "").lower()
        persists = "close" not in tokens and (version == 1 or "keep-alive" in tokens)
        if not persists or (length is None) != chunked:  # by nothing but its end, or by both
            self.is_reusable = False
        return Reply(self, status, headers, length, chunked, over)

    def is_quiet(self) -> bool:
        """Say whether nothing has arrived unasked: neither bytes nor the end."""
        return not self._ahead and not self._arrivals.poll(0)

    def close(self) -> None:
        """Close the connection, whatever it is in the middle of."""
        self.is_reusable = False
        self._stream.close()

    def some(self, limit: int) -> bytes:
        """Return bytes that have arrived, ``limit`` at most; none at the end."""
        if self._ahead:
            given, self._ahead = self._ahead[:limit], self._ahead[limit:]
            return given
        return self._stream.recv(limit)

    def line(self) -> bytes:
        """Return a line with its end. Raises CutShort, and NotHttp when there is none soon."""
        while (end := self._ahead.find(b"\n") + 1) == 0:
            if len(self._ahead) > _AHEAD:
                raise NotHttp("a line without end")
            if not (more := self._stream.recv(_AHEAD)):
                raise CutShort
            self._ahead += more
        given, self._ahead = self._ahead[:end], self._ahead[end:]
        return given

    def _next_head(self) -> str:
        held = self._ahead
        while (end := _END_OF_HEAD.search(held)) is None:
            if len(held) > _HEAD:
                raise NotHttp("a head without end")
            if not (more := self._stream.recv(_AHEAD)):
                raise CutShort if held else HungUp
            held += more
        self._ahead = held[end.end() :]
        return held[: end.start()].decode("latin-1")


class Reply:
    """The answer to a request, whose body can be read once, in pieces.

    It ends after ``length`` bytes, after its last chunk, or else with the connection.
    """

    __slots__ = ("_chunked", "_connection", "_left", "_over", "headers", "status")

    def __init__(
        self,
        connection: Connection,
        status: int,
        headers: Headers,
        length: int | None,
        chunked: bool,
        over: Callable[[Connection], None],
    ) -> None:
        self._connection: Connection | None = connection
        self._over = over
        self._chunked = chunked
        self._left = 0 if chunked else length
        self.status = status
        self.headers = headers
        if length == 0 and not chunked:
            self._end()

    def read(self, limit: int) -> bytes:
        """Return some of the body, ``limit`` bytes at most; none when it is over.

        Raises CutShort, NotHttp, OSError; then close it.
        """
        connection = self._connection
        if connection is None:
            return b""
        if self._chunked and self._left == 0 and not self._next_chunk(connection):
            self._end()
            return b""
        piece = connection.some(limit if self._left is None else min(limit, self._left))
        if self._left is None:
            if not piece:
                self._end()
            return piece
        if not piece:
            raise CutShort
        self._left -= len(piece)
        if self._chunked:
            if self._left == 0 and connection.line() not in _LINE_ENDS:
                raise NotHttp("a chunk is longer than it says")
        elif self._left == 0:
            self._end()
        return piece

    def close(self) -> None:
        """Cut the connection, unless the body was read to its end."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _next_chunk(self, connection: Connection) -> int:
        """Begin a chunk; return its size, 0 after the last, with the fields behind it read."""
        match = _CHUNK_SIZE.fullmatch(connection.line())
        if match is None:
            raise NotHttp("not the size of a chunk")
        self._left = int(match[1], 16)
        if self._left == 0:
            behind = 0
            while (line := connection.line()) not in _LINE_ENDS:
                behind += len(line)
                if behind > _HEAD:
                    raise NotHttp("chunks without end")
        return self._left

    def _end(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._over(connection)


def _head(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    if not (target.isascii() and target.isprintable() and " " not in target):
        target = quote(target, safe=_VISIBLE)
    fields = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if not len(headers) == fields.count("\r") == fields.count("\n") or "\0" in fields:
        odd = [name for name, value in headers.items() if _LINE_BREAK.search(name + value)]
        raise ValueError(f"the header {odd[0]} would be several")
    return f"{method} {target} HTTP/1.1\r\n{fields}\r\n".encode("latin-1")


def _parsed(head: str) -> tuple[int, int, Headers]:
    """Return status, minor version and fields of a head without the empty line at its end."""
    if "\n " in head or "\n\t" in head:
        head = _FOLD.sub(" ", head)
    match = _STATUS_LINE.match(head)
    if match is None:
        raise NotHttp("no status line")
    fields = _FIELD.findall(head, match.end())
    if len(fields) != head.count("\n"):
        raise NotHttp("a malformed header")
    return int(match[2]), int(match[1]), Headers(fields)


def _length(headers: Headers) -> int | None:
    """Return what Content-Length says, None where there is none; several must say the same."""
    told = headers.get("Content-Length")
    if told is None:
        return None
    if "," in told:
        told, *others = {text.strip() for text in told.split(",")}
        if others:
            raise NotHttp("several lengths")
    if _LENGTH.fullmatch(told) is None:
        raise NotHttp("a length that is none")
    return int(told)


def _is_chunked(headers: Headers) -> bool:
    coding = headers.get("Transfer-Encoding", "identity").lower()
    if coding not in ("chunked", "identity"):
        raise NotHttp("a body in a coding that was not asked for")
    return coding == "chunked"
