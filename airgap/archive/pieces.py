"""Blobs that volumes have in pieces, while their pieces come together.

The pieces wait in temporary files without a name. Knows nothing of where they come from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airgap.digest import Hasher
from airgap.errors import IntegrityError
from airgap.storage import Scratch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airgap.archive.layout import Entry
    from airgap.archive.reader import ArchiveReader


class Pieces:
    """The pieces that have been seen of blobs that are cut."""

    def __init__(self) -> None:
        self._joined: dict[int, _Joined] = {}

    def __contains__(self, number: int) -> bool:
        """Say whether a piece of a blob is kept."""
        return number in self._joined

    def keep(
        self, reader: ArchiveReader, number: int, place: Entry, content: Iterable[bytes]
    ) -> bool:
        """Keep a piece, and say whether all of its blob are here now.

        Raises IntegrityError when it is not what its volume's record says, StorageError.
        """
        if number not in self._joined:
            self._joined[number] = _Joined()
        joined = self._joined[number]
        hasher, position = Hasher(), place.start
        for chunk in content:
            hasher.update(chunk)
            joined.write(chunk, position)
            position += len(chunk)
        if hasher.digest() != reader.piece_digest(number, place):
            where = reader.file(reader.layout.volumes[place.volume - 1])
            raise IntegrityError(f"{where}: {place.name} is damaged")
        joined.seen.add(place.volume)
        return len(joined.seen) == len(reader.layout.pieces(number))

    def content(self, number: int, offset: int, size: int) -> Iterator[bytes]:
        """Yield bytes of a blob all of whose pieces are kept. Raises StorageError."""
        yield from self._joined[number].pieces(offset, size)

    def let_go(self, number: int) -> None:
        """Forget the pieces of a blob, if there are any."""
        if number in self._joined:
            self._joined.pop(number).close()

    def close(self) -> None:
        """Forget all."""
        for number in list(self._joined):
            self.let_go(number)


class _Joined(Scratch):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[int] = set()
