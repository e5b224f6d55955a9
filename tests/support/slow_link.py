"""A long line to a registry: every byte is under way for a while, as many as you like at once.

``slow_link(host)`` is a process of its own on loopback between clients and ``host``. What
arrives at one end leaves at the other half a round trip later, in both directions; opening a
connection takes a round trip, and its end travels like its bytes. Connections know nothing of
each other, and a direction holds back only beyond what is under way at ``_UNDER_WAY`` bytes, so
the line limits neither how much runs at once nor how fast. Knows nothing of HTTP: a registry
that answers with whole URLs takes the host from the request, which is the line's.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import deque
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
ROUND_TRIP = 0.040
"""Seconds."""

_UNDER_WAY = 64 << 20
_BACKLOG = 256


@contextmanager
def slow_link(host: str, round_trip: float = ROUND_TRIP) -> Iterator[str]:
    """Lay a line to ``host:port``, ``round_trip`` seconds long; gives the ``host:port`` of
    its near end."""
    command = [sys.executable, "-m", __name__, host, str(round_trip)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            if not (near := process.stdout.readline().strip()):
                raise RuntimeError(f"the slow line to {host} ended at once")
            yield near
        finally:
            process.kill()


class _Direction:
    """One way of a connection: what arrives is handed over after the delay, in its order."""

    def __init__(self, delay: float, source: asyncio.Transport, sink: asyncio.Transport) -> None:
        self._delay = delay
        self._source = source
        self._sink = sink
        self._under_way: deque[bytes] = deque()
        self._bytes = 0
        self._sink_is_full = False

    def take(self, data: bytes) -> None:
        """Take the next bytes; none at all are the end of the stream."""
        self._under_way.append(data)
        self._bytes += len(data)
        asyncio.get_running_loop().call_later(self._delay, self._hand_over)
        self._hold_back_or_go_on()

    def sink_is_full(self, full: bool) -> None:
        """Hear whether the receiver reads slower than bytes arrive."""
        self._sink_is_full = full
        self._hold_back_or_go_on()

    def _hand_over(self) -> None:
        data = self._under_way.popleft()
        self._bytes -= len(data)
        if data:
            self._sink.write(data)
        else:
            self._sink.close()
        self._hold_back_or_go_on()

    def _hold_back_or_go_on(self) -> None:
        if self._sink_is_full or self._bytes > _UNDER_WAY:
            self._source.pause_reading()
        else:
            self._source.resume_reading()


class _End(asyncio.Protocol):
    """One end of a connection; ``outgoing`` carries what arrives here to the ``other`` end."""

    def __init__(self) -> None:
        self.outgoing: _Direction | None = None
        self.incoming: _Direction | None = None
        self.other: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).pause_reading()  # until both ends are there

    def data_received(self, data: bytes) -> None:
        assert self.outgoing is not None
        self.outgoing.take(data)

    def eof_received(self) -> bool:
        assert self.outgoing is not None
        self.outgoing.take(b"")
        return True  # What is under way to here still arrives.

    def connection_lost(self, error: Exception | None) -> None:
        if self.other is None:
            return
        if error is None:
            self.other.close()
        else:
            self.other.abort()

    def pause_writing(self) -> None:
        assert self.incoming is not None
        self.incoming.sink_is_full(True)

    def resume_writing(self) -> None:
        assert self.incoming is not None
        self.incoming.sink_is_full(False)


class _Near(_End):
    """The end that clients connect to; it opens the far one."""

    def __init__(self, host: str, port: int, delay: float) -> None:
        super().__init__()
        self._far = host, port
        self._delay = delay
        self._opening: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        near = cast(asyncio.Transport, transport)
        self._opening = asyncio.get_running_loop().create_task(self._open(near))

    async def _open(self, near: asyncio.Transport) -> None:
        """Let the handshake go there and back before anything else does."""
        await asyncio.sleep(self._delay)
        try:
            far, end = await asyncio.get_running_loop().create_connection(_End, *self._far)
        except OSError:
            near.abort()
            return
        self.other, end.other = far, near
        self.outgoing = end.incoming = _Direction(self._delay, near, far)
        self.incoming = end.outgoing = _Direction(self._delay, far, near)
        far.resume_reading()
        await asyncio.sleep(self._delay)
        near.resume_reading()


async def _serve(host: str, port: int, round_trip: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: _Near(host, port, round_trip / 2), "127.0.0.1", 0, backlog=_BACKLOG
    )
    near_host, near_port = server.sockets[0].getsockname()
    print(f"{near_host}:{near_port}", flush=True)
    await server.serve_forever()


def _main(host: str, round_trip: str) -> None:
    name, _, port = host.rpartition(":")
    asyncio.run(_serve(name, int(port), float(round_trip)))


if __name__ == "__main__":
    _main(*sys.argv[1:])
