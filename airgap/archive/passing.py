"""An archive that passes once, from front to back, and cannot be read again.

It may be one file, plain or compressed, or volumes one after the other in any order. The heads
are kept; every header, every padding and the end is held against what the inventory says. Where
the stream is out of step, because some of it was lost on the way, it is found again at the next
header that is known. Knows nothing of why it is read; content is for whoever reads it to judge.
"""

from __future__ import annotations

import os
import select
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from airgap import limits
from airgap.archive import record, tar
from airgap.archive.file import ArchiveFile
from airgap.archive.frames import MAGIC
from airgap.archive.layout import INVENTORY_OFFSET, LAYOUT, LAYOUT_NAME
from airgap.archive.reader import ArchiveReader, Problem, VolumeFile
from airgap.archive.unpacking import Unpacking
from airgap.digest import Digest
from airgap.errors import AirgapError, ArchiveError, Interrupted, StorageError
from airgap.storage import Scratch

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from airgap.archive.layout import Entry, Volume
    from airgap.archive.unpacking import Coming

_BEGIN = tar.header(LAYOUT_NAME, len(LAYOUT))

_LOOK_AGAIN = 0.2
"""Seconds after which a reader of a silent stream looks whether it is to stop."""

_LONGEST_NAME, _HEX = 100, 64
"""A name's field in a header, and what stands in a name after ``/sha256/``."""

_SEND_AGAIN = "See what the sending side says, and send the archive again."


@dataclass(frozen=True)
class Passage:
    """A blob, or the piece of one, while it passes: ``content`` can be read once.

    Of a hole, whose zeros have been looked at, it gives nothing. ``reader`` has the head of the
    volume that it stands in.
    """

    reader: ArchiveReader
    number: int
    place: Entry
    is_absent: bool
    content: Iterator[bytes]


class PassingArchive:
    """An archive in a stream; use it in a ``with`` block.

    ``reader`` has its first head, and no content; ``heads`` are all so far. ``problems`` is what
    was found wrong beside the content of blobs, ``holes`` the blobs that passed as holes,
    ``size`` how many bytes have passed.
    """

    def __init__(
        self, descriptor: int, name: str, is_over: Callable[[], bool] = lambda: False
    ) -> None:
        """Read the head; ``name`` is for messages, ``is_over`` says that no more is wanted.

        Raises ArchiveError when there is none, or it cannot be read, StorageError, Interrupted.
        """
        self._input = _Input(descriptor, name, is_over)
        self.heads = [self._read_head(self._input.begin())]
        self.reader = self.heads[0]
        self.problems: list[Problem] = []
        self.holes: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the heads."""
        for reader in self.heads:
            reader.release()

    @property
    def size(self) -> int:
        """The bytes that have passed."""
        return self._input.position

    @property
    def absent(self) -> dict[int, str]:
        """The blobs that have passed as holes, and those in volumes that have not, with reasons."""
        reasons = dict.fromkeys(sorted(self.holes), "")
        for volume in self.reader.layout.volumes:
            for number in volume.blobs if volume.number not in self._came else ():
                digest = self.reader.plan.blobs[number].digest
                told = f"blob {digest} is in volume {volume.number}, which did not come"
                reasons.setdefault(number, told)
        return reasons

    @property
    def _came(self) -> set[int]:
        return {volume.number for reader in self.heads for volume in reader.here}

    def volume_files(self) -> tuple[VolumeFile, ...]:
        """Return all volumes of an archive in several, and which have passed; () of one file."""
        if self.reader.layout.limit is None:
            return ()
        path = self.reader.path
        return tuple(
            VolumeFile(volume.number, path if volume.number in self._came else None)
            for volume in self.reader.layout.volumes
        )

    def require_sound_head(self) -> None:
        """Raise ArchiveError with the first problem of the head, if there is any."""
        for problem in self.reader.check_head():
            raise ArchiveError(f"{self._input.name}: damaged: {problem.message}", hint=_SEND_AGAIN)

    def passages(self) -> Iterator[Passage]:
        """Yield every blob and piece that passes, in turn. What nobody reads of it is skipped.

        Raises ArchiveError when another archive follows, StorageError, Interrupted.
        """
        reader = self.reader
        while True:
            is_whole = yield from self._passages_of(reader)
            begin = self._next_head(is_whole=is_whole)
            if not begin:
                if self._input.problem:
                    self.problems.append(Problem(self._input.problem))
                return
            try:
                reader = self._read_head(begin)
            except ArchiveError as error:
                self.problems.append(Problem(error.message))
                return
            self.heads.append(reader)
            if reader.id != self.reader.id or reader.layout.limit != self.reader.layout.limit:
                raise ArchiveError(f"{self._input.name}: another archive follows, {reader.id}")
            self.problems += reader.check_head()

    def _passages_of(self, reader: ArchiveReader) -> Generator[Passage, None, bool]:
        """Yield what passes of one volume, and return whether it did not end early."""
        (volume,) = reader.here
        left = deque(volume.blobs)
        while left:
            header = self._next_header(reader, volume, left[0])
            if header is None:
                self._note_end(reader, left)
                return False
            lost = []
            while left[0] < header.number:
                lost.append(left.popleft())
            if lost:
                self._note_lost(reader, lost)
            left.popleft()
            place = header.place
            content = self._input.pieces(place.size)
            if header.is_absent and not _is_empty(content, place.size):
                message = f"the place of the missing blob {place.name} is not empty, or damaged"
                self.problems.append(Problem(message, blobs=(header.number,)))
            if header.is_absent:
                self.holes.add(header.number)
            yield Passage(reader, header.number, place, header.is_absent, content)
            for _rest in content:
                pass
            padding = self._input.read(tar.padded(place.size) - place.size)
            if any(padding):
                message = f"the padding after {place.name} is damaged"
                self.problems.append(Problem(message, blobs=(header.number,)))
        return True

    def _next_header(self, reader: ArchiveReader, volume: Volume, number: int) -> _Header | None:
        """Read on to the next header of a blob from ``number`` on; None where there is none."""
        while block := self._input.block():
            if header := _known(reader, volume, number, block):
                return header
            if block == _BEGIN and reader.layout.limit is not None:
                self._input.put_back(block)
                return None
        return None

    def _note_lost(self, reader: ArchiveReader, numbers: Sequence[int]) -> None:
        digests = [str(reader.plan.blobs[number].digest) for number in numbers]
        message = f"out of step: {len(numbers)} blobs are lost, from {digests[0]} on"
        if len(numbers) == 1:
            message = f"the header of blob {digests[0]} is damaged or lost"
        self.problems.append(Problem(message, blobs=tuple(numbers)))

    def _note_end(self, reader: ArchiveReader, numbers: Sequence[int]) -> None:
        (volume,) = reader.here
        of = "the stream" if volume.record is None else f"volume {volume.number}"
        message = (
            f"{of} ends early, {self.size:,} bytes have come: {len(numbers)} blobs are"
            f" lost, from {reader.plan.blobs[numbers[0]].digest} on"
        )
        self.problems.append(Problem(message, blobs=tuple(numbers)))

    def _next_head(self, *, is_whole: bool) -> bytes:
        """Return the first block of the next volume, b"" at the end of the stream.

        Between them are the end's two blocks of zeros, and what tapes add: zeros.
        """
        zeros, other, begin = 0, 0, b""
        while block := self._input.block():
            if block == _BEGIN:
                begin = block
                break
            if any(block):
                other += 1
            elif len(block) == tar.BLOCK:
                zeros += 1
        if other:
            self.problems.append(Problem("there is something where the archive must end"))
        elif is_whole and zeros * tar.BLOCK < len(tar.END):
            self.problems.append(
                Problem(f"the end of the archive is missing, after {self.size:,} bytes")
            )
        return begin

    def _read_head(self, begin: bytes) -> ArchiveReader:
        """Read a head up to the first blob, and keep it. Raises as the constructor."""
        name = self._input.name
        if not begin:
            raise ArchiveError(f"{name}: nothing came", hint=_SEND_AGAIN)
        spool = _Spool()
        spool.append(begin)
        self._copy_to(spool, INVENTORY_OFFSET)
        file = ArchiveFile(Path(name), spool)
        try:
            self._copy_to(spool, file.record_offset + tar.BLOCK)
            if record.number_in(file.at(file.record_offset, tar.BLOCK)):
                self._copy_to(spool, file.record_offset + tar.BLOCK + record.RECORD_SIZE)
            reader = ArchiveReader.of_head(file)
        except BaseException:
            file.close()
            raise
        self._copy_to(spool, reader.layout.head_end)
        if spool.size < reader.layout.head_end:
            reader.release()
            raise ArchiveError(
                f"{name}: the stream ends, or is damaged, within the archive's head, after"
                f" {self.size:,} bytes",
                hint=_SEND_AGAIN,
            )
        return reader

    def _copy_to(self, spool: _Spool, size: int) -> None:
        for piece in self._input.pieces(size - spool.size):
            spool.append(piece)


def _is_empty(content: Iterator[bytes], size: int) -> bool:
    """Say whether what comes is so many zeros."""
    zeros = 0
    for piece in content:
        if piece.strip(b"\0"):
            return False
        zeros += len(piece)
    return zeros == size


@dataclass(frozen=True)
class _Header:
    number: int
    place: Entry
    is_absent: bool


def _known(reader: ArchiveReader, volume: Volume, least: int, block: bytes) -> _Header | None:
    """Return which blob, from ``least`` on, a block is the header of; None for any other."""
    kind, _, rest = block[:_LONGEST_NAME].partition(b"/sha256/")
    if kind not in (b"blobs", b"absent", b"pieces"):
        return None
    try:
        digest = Digest.parse(f"sha256:{rest[:_HEX].decode('ascii')}")
    except (AirgapError, UnicodeDecodeError):
        return None
    number = reader.number_of(digest)
    if number is None or number < least or number not in volume.blobs:
        return None
    for place in reader.layout.pieces(number):
        if place.volume == volume.number and block in (place.header, place.absent.header):
            return _Header(number, place, block != place.header)
    return None


class _Spool(Scratch):
    """What has passed and is kept, one after the other."""

    problem = ""
    inode = (0, 0)

    def __init__(self) -> None:
        super().__init__()
        self.size = 0

    def append(self, piece: bytes) -> None:
        self.write(piece, self.size)
        self.size += len(piece)


class _Input:
    """A descriptor that is read once, and unpacked if what comes is compressed.

    ``position`` is how many bytes of the archive have been taken.
    """

    def __init__(self, descriptor: int, name: str, is_over: Callable[[], bool]) -> None:
        self.name = name
        self.position = 0
        self._coming: Coming = _Descriptor(descriptor, name, is_over)
        self._rest = b""

    def begin(self) -> bytes:
        """Return the first block. Raises ArchiveError when it is compressed in another way."""
        while len(self._rest) < len(MAGIC) and (more := self._coming.next()):
            self._rest += more
        if self._rest.startswith(MAGIC):
            self._coming = unpacking = Unpacking(self._coming.next, self._rest)
            self._rest = b""
            if not unpacking.is_ours:
                raise ArchiveError(
                    f"{self.name}: is compressed, and not in the way that airgap does it",
                    hint="Put `zstd -dc |` before it.",
                )
        return self.read(tar.BLOCK)

    @property
    def problem(self) -> str:
        """What is wrong with all that came, once it is over, beside its content."""
        return self._coming.problem

    def read(self, size: int) -> bytes:
        """Return so many bytes, fewer where the stream ends or is damaged."""
        return b"".join(self.pieces(size))

    def block(self) -> bytes:
        """Return the next block, behind what is damaged if need be; less at the end."""
        block = self.read(tar.BLOCK)
        while not block and self._coming.go_on():
            block = self.read(tar.BLOCK)
        return block

    def put_back(self, block: bytes) -> None:
        """Let bytes that were read last be read once more."""
        self._rest = block + self._rest
        self.position -= len(block)

    def pieces(self, size: int) -> Iterator[bytes]:
        """Yield so many bytes, fewer where the stream ends or is damaged.

        Raises StorageError, Interrupted.
        """
        while size > 0:
            self._rest = self._rest or self._coming.next()
            if not self._rest:
                return
            piece, self._rest = self._rest[:size], self._rest[size:]
            size -= len(piece)
            self.position += len(piece)
            yield piece


class _Descriptor:
    problem = ""

    def __init__(self, descriptor: int, name: str, is_over: Callable[[], bool]) -> None:
        self._name = name
        self._descriptor = descriptor
        self._is_over = is_over
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        self._came = 0

    def next(self) -> bytes:
        while not self._poll.poll(_LOOK_AGAIN * 1000):
            if self._is_over():
                raise Interrupted
        if self._is_over():
            raise Interrupted
        try:
            piece = os.read(self._descriptor, limits.CHUNK)
        except OSError as error:
            raise StorageError(
                f"{self._name}: {error.strerror} after {self._came:,} bytes", hint=_SEND_AGAIN
            ) from error
        self._came += len(piece)
        return piece

    def go_on(self) -> bool:
        return False
