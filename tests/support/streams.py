"""Archives as streams, in memory."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO

from airgap import limits
from airgap.archive.forward import ForwardWriter
from airgap.archive.head import Head
from airgap.archive.work import Work
from airgap.crew import AtMost
from airgap.progress import SILENT
from airgap.sending import send
from airgap.storage import temporary_directory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airgap.archive.forward import Output
    from airgap.digest import Bytes
    from airgap.transfer import Source
    from tests.support.plans import Content


class Collected:
    """An output that keeps what it is given, and where entries began."""

    def __init__(self) -> None:
        self.bytes = bytearray()
        self.begun: list[int] = []
        self.finished = False

    def begin(self) -> None:
        self.begun.append(len(self.bytes))

    def write(self, data: Bytes) -> None:
        self.bytes += data

    def finish(self) -> None:
        self.finished = True


def send_all(
    content: Content,
    output: Output,
    *,
    source: Source | None = None,
    window: int = limits.MIB,
    workers: int = 4,
) -> list[int]:
    """Send an archive of all content; return the numbers of the blobs that did not arrive."""
    plan = content.plan()
    with temporary_directory() as folder:
        work = Work(folder)
        for manifest in plan.manifests:
            work.keep(manifest.digest, content.by_digest[manifest.digest])
        head = Head(plan, work)
        with ForwardWriter(head.id, plan, head.layout, output, window) as archive:
            archive.begin(head)
            failed = send(
                archive,
                source or content,
                lanes=AtMost(workers),
                progress=SILENT,
                stop=threading.Event(),
                is_fatal=lambda error: False,
            )
            archive.finish()
            assert set(failed) <= set(archive.missing)
            return archive.missing


def stream_of(content: Content, *, window: int = limits.MIB, workers: int = 4) -> bytes:
    """Return the bytes of an archive of all content, as they leave."""
    output = Collected()
    send_all(content, output, window=window, workers=workers)
    assert output.finished
    return bytes(output.bytes)


@contextmanager
def piped(data: bytes) -> Iterator[BinaryIO]:
    """Give the end of a pipe through which bytes come, in pieces of odd sizes."""
    read_end, write_end = os.pipe()

    def feed() -> None:
        with suppress(BrokenPipeError), os.fdopen(write_end, "wb", buffering=0) as end:
            for start in range(0, len(data), 10_007):
                end.write(data[start : start + 10_007])

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        with os.fdopen(read_end, "rb") as end:
            yield end
    finally:
        feeder.join()
