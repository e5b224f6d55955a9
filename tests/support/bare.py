"""The least that an export and an import are: their requests, and nothing beside them.

A program of its own, for the bench: what any tool written in Python takes at least, on the
machine and against the registry at hand. Four threads, bare sockets, bytes that are hashed. It
keeps no account, knows no error, and believes every answer that is not a refusal.

    bare.py get STEPS FILE        bring blobs to their places in FILE
    bare.py put STEPS ARCHIVE     bring what is in ARCHIVE to a registry

STEPS has a line for each piece of work: ``stage``, a number, then its words. A stage begins when
the one before is over.
"""

from __future__ import annotations

import hashlib
import os
import socket
import sys
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from threading import Thread

THREADS = 4
_PIECE = 256 << 10


class Line:
    """A connection to a registry, with room for what is read next."""

    def __init__(self, host: str, file: int) -> None:
        name, _, port = host.partition(":")
        self._host = host
        self._file = file
        self._socket = socket.create_connection((name, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray(_PIECE)
        self._view = memoryview(self._buffer)

    def ask(self, method: str, target: str, length: int = 0, more: str = "") -> None:
        """Send the head of a request."""
        head = f"{method} {target} HTTP/1.1\r\nHost: {self._host}\r\n{more}"
        self._socket.sendall(f"{head}Content-Length: {length}\r\n\r\n".encode())

    def send(self, offset: int, size: int, digest: str = "") -> None:
        """Send bytes of the file, hashed if a digest is given."""
        hasher = hashlib.sha256()
        while size:
            piece = os.pread(self._file, min(_PIECE, size), offset)
            hasher.update(piece)
            self._socket.sendall(piece)
            offset, size = offset + len(piece), size - len(piece)
        if digest and hasher.hexdigest() != digest:
            raise ValueError(f"{digest} is damaged")

    def answer(self) -> tuple[str, memoryview, int]:
        """Return an answer's head, what of its body came along, and how much is to come."""
        count = end = 0
        while end < 4:
            count += self._receive(self._view[count:])
            end = self._buffer.find(b"\r\n\r\n", 0, count) + 4
        head = self._buffer[:end].decode("latin-1")
        if head[9] != "2" and head[9:12] != "404":
            raise ValueError(head)
        length = int(header(head, "Content-Length") or 0)
        return head, self._view[end:count], length - (count - end)

    def _receive(self, room: memoryview) -> int:
        if count := self._socket.recv_into(room):
            return count
        raise EOFError

    def take(self, offset: int, digest: str) -> None:
        """Write the body of an answer to the file, hashed."""
        _, part, left = self.answer()
        hasher = hashlib.sha256()
        while True:
            hasher.update(part)
            os.pwrite(self._file, part, offset)
            offset += len(part)
            if not left:
                break
            filled, due = 0, min(_PIECE, left)
            while filled < due:
                filled += self._receive(self._view[filled:due])
            part, left = self._view[:due], left - due
        if hasher.hexdigest() != digest:
            raise ValueError(f"{digest} arrives damaged")

    def read(self) -> str:
        """Read an answer to its end; return its head."""
        head, _, left = self.answer()
        while left > 0:
            left -= self._receive(self._view)
        return head


def header(head: str, name: str) -> str:
    """Return the value of a header, "" where it is not there."""
    return head.partition(f"\r\n{name}: ")[2].partition("\r\n")[0]


def get(line: Line, target: str, offset: str, digest: str) -> None:
    """Bring a blob to its place in the file."""
    line.ask("GET", target)
    line.take(int(offset), digest)


def question(line: Line, repository: str) -> None:
    """Ask whether a registry knows a repository."""
    line.ask("GET", f"/v2/{repository}/tags/list?n=1")
    line.read()


def blob(line: Line, repository: str, digest: str, offset: str, size: str) -> None:
    """Send a blob."""
    line.ask("POST", f"/v2/{repository}/blobs/uploads/")
    location = header(line.read(), "Location").rpartition("://")[2]
    target = location[location.index("/") :]
    joined = "&" if "?" in target else "?"
    line.ask("PUT", f"{target}{joined}digest=sha256:{digest}", int(size))
    line.send(int(offset), int(size), digest)
    line.read()


def mount(line: Line, repository: str, digest: str, holder: str) -> None:
    """Mount a blob from another repository."""
    line.ask("POST", f"/v2/{repository}/blobs/uploads/?mount=sha256:{digest}&from={holder}")
    line.read()


def manifest(line: Line, repository: str, name: str, kind: str, offset: str, size: str) -> None:
    """Put a manifest, and read back what is put by its digest."""
    line.ask("PUT", f"/v2/{repository}/manifests/{name}", int(size), f"Content-Type: {kind}\r\n")
    line.send(int(offset), int(size))
    line.read()
    if name.startswith("sha256:"):
        line.ask("GET", f"/v2/{repository}/manifests/{name}", more=f"Accept: {kind}\r\n")
        line.read()


WORK = {one.__name__: one for one in (get, question, blob, mount, manifest)}


def main(job: str, steps: str, path: str) -> None:
    """Do all steps."""
    file = os.open(path, os.O_RDWR | os.O_CREAT if job == "get" else os.O_RDONLY, 0o644)
    mine: list[dict[str, Line]] = [{} for _ in range(THREADS)]
    todo = [text.split() for text in Path(steps).read_text().splitlines()]
    failed: list[str] = []
    for _, stage in groupby(todo, itemgetter(0)):
        waiting = list(stage)[::-1]
        threads = [Thread(target=_work, args=(waiting, lines, file, failed)) for lines in mine]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if failed:
        raise SystemExit(failed[0])


def _work(waiting: list[list[str]], lines: dict[str, Line], file: int, failed: list[str]) -> None:
    while waiting and not failed:
        try:
            _, kind, host, *words = waiting.pop()
        except IndexError:
            return  # Another thread was faster.
        try:
            if host not in lines:
                lines[host] = Line(host, file)
            WORK[kind](lines[host], *words)
        except Exception as error:
            failed.append(repr(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
