"""Where every byte of an archive stands: a pure function of the plan and the size of a volume.

The head (``oci-layout``, the inventory, the place for signatures, ``index.json``, all
manifests) comes first and never changes; a place for each blob follows, in the plan's order,
but for those that the plan assumes to be elsewhere.
An archive of several volumes repeats the head in each, with the volume's record in it, and
goes on with the blobs where the volume before has ended; a blob that would leave too much of
a volume empty is cut. One file is the case of one volume without a record.
Nothing here reads or writes a file.
"""

from __future__ import annotations

import json
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from airgap import limits
from airgap.archive import tar
from airgap.archive.record import MOST_VOLUMES, RECORD_SIZE, numbered, record_name
from airgap.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from airgap.digest import Digest
    from airgap.plan import Plan

LAYOUT_NAME = "oci-layout"
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}\n'
INVENTORY_NAME = "airgap.json"
SIGNATURE_NAME = "airgap.json.sig"
UNSIGNED = b"\n" * limits.SIGNATURE
INDEX_NAME = "index.json"

INVENTORY_OFFSET = tar.BLOCK + tar.padded(len(LAYOUT)) + tar.BLOCK
"""Where an archive's inventory begins; the header before it tells its size."""

WASTE = 50
"""A blob is cut where more than this part of a volume's room would stay empty: 2 %."""


def present(digest: Digest) -> str:
    """Return the entry name of content that is there."""
    return f"blobs/{digest.algorithm}/{digest.hex}"


def piece_name(digest: Digest, volume: int) -> str:
    """Return the entry name of the piece of a cut blob that stands in a volume."""
    return f"pieces/{digest.algorithm}/{digest.hex}.{numbered(volume)}"


class Entry(NamedTuple):
    """An entry of a volume: its header at ``offset``, ``size`` bytes of content after it.

    ``volume`` counts from 1; ``start`` is where in its blob a piece begins.
    """

    name: str
    offset: int
    size: int
    volume: int = 1
    start: int = 0

    @property
    def content(self) -> int:
        """Where the content begins."""
        return self.offset + tar.BLOCK

    @property
    def end(self) -> int:
        """Where the next entry begins."""
        return self.content + tar.padded(self.size)

    @property
    def header(self) -> bytes:
        """The block at ``offset``."""
        return tar.header(self.name, self.size)

    @property
    def absent(self) -> Entry:
        """The same place while its content has not arrived: it has another name."""
        return self._replace(name=f"absent/{self.name.partition('/')[2]}")


@dataclass(frozen=True, slots=True)
class Volume:
    """One file of an archive: what stands in it besides manifests and blobs.

    ``documents`` are the head's entries, with their content where that is the same in every
    archive of the plan. ``record`` is None where there is but one file. ``content_end`` is
    where its end blocks begin, ``size`` that of the whole file. ``blobs`` are the numbers of
    those that stand in it, wholly or in part, in order.
    """

    number: int
    documents: tuple[tuple[Entry, bytes | None], ...]
    record: Entry | None
    content_end: int
    blobs: Sequence[int]

    @property
    def size(self) -> int:
        """The size of the file, in bytes."""
        return self.content_end + len(tar.END)


class Layout:
    """The places of one archive.

    ``inventory_size`` is in bytes; ``index`` is the content of ``index.json``; ``limit`` the
    size that no volume exceeds, None for an archive of one file. ``volumes`` are its files in
    order, ``size`` the bytes of all of them.
    """

    def __init__(
        self, plan: Plan, inventory_size: int, index: bytes, limit: int | None = None
    ) -> None:
        """Lay out. Raises UsageError for volumes that hold little more than their head."""
        self._plan = plan
        self._inventory_size = inventory_size
        self.index = index
        self.limit = limit
        *_, (last, _) = self._documents(1)
        self._manifests, self._head_end = _offsets((m.size for m in plan.manifests), last.end)
        if limit is not None and limit < self.smallest_limit:
            raise UsageError(
                f"volumes of {limit} bytes are too small: the head that each begins with"
                f" takes {self._head_end} bytes",
                hint=f"Give at least {self.smallest_limit} bytes.",
            )
        self._places = places = _Places(self._head_end, limit)
        for number, blob in enumerate(plan.blobs):
            if number in plan.assumed:
                places.skip()
            else:
                places.add(number, blob.size)
        self.volumes = tuple(
            Volume(number, self._documents(number), self._record(number), end, self._of(blobs))
            for number, (end, blobs) in enumerate(places.volumes(), 1)
        )
        self.size = sum(volume.size for volume in self.volumes)

    @property
    def smallest_limit(self) -> int:
        """The smallest volumes that the plan can be laid out in, in bytes."""
        record = 0 if self.limit is not None else tar.BLOCK + tar.padded(RECORD_SIZE)
        return self._head_end + record + limits.MIB

    @property
    def head_end(self) -> int:
        """Where the head ends in every volume, and the first blob or piece begins."""
        return self._head_end

    @property
    def inventory(self) -> Entry:
        """The inventory's entry, the same in every volume."""
        return Entry(INVENTORY_NAME, INVENTORY_OFFSET - tar.BLOCK, self._inventory_size)

    @property
    def signature(self) -> Entry:
        """The entry of the place for signatures, the same in every volume."""
        return Entry(SIGNATURE_NAME, self.inventory.end, limits.SIGNATURE)

    def manifest(self, number: int) -> Entry:
        """Return the entry of a manifest, the same in every volume."""
        manifest = self._plan.manifests[number]
        return Entry(present(manifest.digest), self._manifests[number], manifest.size)

    def blob(self, number: int) -> Entry:
        """Return the entry where a blob begins: all of it, unless it is cut."""
        return self.pieces(number)[0]

    def pieces(self, number: int) -> tuple[Entry, ...]:
        """Return the entries of a blob that is there, in order: one, unless it is cut.

        An assumed blob has none.
        """
        if number in self._plan.assumed:
            return ()
        first = self._places.first[number]
        if not self.is_cut(number):
            return (self._piece(number, first),)
        count = len(self._places.cuts[number])
        return tuple(self._piece(number, volume) for volume in range(first, first + count))

    def _piece(self, number: int, volume: int) -> Entry:
        """Return the entry of what stands of a blob in a volume; pieces follow volume by volume."""
        blob, places = self._plan.blobs[number], self._places
        if not self.is_cut(number):
            return Entry(present(blob.digest), places.offsets[number], blob.size, volume)
        offset, size, start = places.cuts[number][volume - places.first[number]]
        return Entry(piece_name(blob.digest, volume), offset, size, volume, start)

    def is_cut(self, number: int) -> bool:
        """Say whether a blob stands in several volumes."""
        return number in self._places.cuts

    def content(self, volume: Volume) -> Iterator[tuple[int, Entry]]:
        """Yield the blobs and pieces that stand in a volume, in order, with the blob's number."""
        for number in volume.blobs:
            yield number, self._piece(number, volume.number)

    def pieces_in(self, volume: Volume) -> list[tuple[int, Entry]]:
        """Return the pieces of cut blobs in a volume, with the blob's number: at most two."""
        # They stand at its ends.
        ends = {*volume.blobs[:1], *volume.blobs[-1:]}
        return [
            (number, self._piece(number, volume.number))
            for number in sorted(filter(self.is_cut, ends))
        ]

    def _of(self, blobs: range) -> Sequence[int]:
        """Return those of these blobs that have a place."""
        assumed = self._plan.assumed
        return tuple(n for n in blobs if n not in assumed) if assumed else blobs

    def _record(self, volume: int) -> Entry | None:
        if self.limit is None:
            return None
        return Entry(record_name(volume), self.signature.end, RECORD_SIZE, volume)

    def _documents(self, volume: int) -> tuple[tuple[Entry, bytes | None], ...]:
        record = self._record(volume)
        end = record.end if record else self.signature.end
        return (
            (Entry(LAYOUT_NAME, 0, len(LAYOUT)), LAYOUT),
            (self.inventory, None),
            (self.signature, None),
            *(((record, None),) if record else ()),
            (Entry(INDEX_NAME, end, len(self.index)), self.index),
        )


class _Places:
    """Blobs one after the other, in a new volume where the one before is full.

    ``first`` and ``offsets`` say for each blob where it begins, ``cuts`` for those that are cut
    the offset, size and start of each piece; one follows another in the next volume.
    """

    def __init__(self, head_end: int, limit: int | None) -> None:
        self._head_end = head_end
        self._full = None if limit is None else (limit - len(tar.END)) // tar.BLOCK * tar.BLOCK
        self._waste = 0 if self._full is None else (self._full - head_end) // WASTE
        self.first, self.offsets = array("l"), array("q")
        self.cuts: dict[int, list[tuple[int, int, int]]] = {}
        self._ends: list[int] = []
        self._begun_with = [0]
        self._end = head_end

    def add(self, number: int, size: int) -> None:
        """Place the next blob. Raises UsageError when that takes too many volumes."""
        if not self._fits(size) and self._rest <= self._waste:
            self._next_volume(number)
        self.first.append(self._volume)
        self.offsets.append(self._end)
        if self._fits(size):
            self._take(size)
        else:
            self._cut(number, size)

    def skip(self) -> None:
        """Give the next blob no place."""
        self.first.append(self._volume)
        self.offsets.append(self._end)

    def volumes(self) -> Iterator[tuple[int, range]]:
        """Yield for each volume where it ends, and the numbers of the blobs in it."""
        ends = [*self._ends, self._end]
        stops = [*self._begun_with[1:], len(self.first)]
        for volume, (end, begin, stop) in enumerate(
            zip(ends, self._begun_with, stops, strict=True), 1
        ):
            # The blob that the next volume begins with may have begun here.
            is_cut = stop < len(self.first) and self.first[stop] <= volume
            yield end, range(begin, stop + is_cut)

    def _cut(self, number: int, size: int) -> None:
        pieces, start = self.cuts.setdefault(number, []), 0
        while start < size:
            left = size - start
            piece = left if self._fits(left) else self._rest - tar.BLOCK
            pieces.append((self._end, piece, start))
            self._take(piece)
            start += piece
            if start < size:
                self._next_volume(number)

    @property
    def _volume(self) -> int:
        return len(self._ends) + 1

    @property
    def _rest(self) -> int:
        return 0 if self._full is None else self._full - self._end

    def _fits(self, size: int) -> bool:
        return self._full is None or self._end + tar.BLOCK + tar.padded(size) <= self._full

    def _take(self, size: int) -> None:
        self._end += tar.BLOCK + tar.padded(size)

    def _next_volume(self, number: int) -> None:
        if self._volume == MOST_VOLUMES:
            raise UsageError(
                f"more than {MOST_VOLUMES} volumes", hint="Give a larger size for the volumes."
            )
        self._ends.append(self._end)
        self._begun_with.append(number)
        self._end = self._head_end


def index_document(plan: Plan, inventory: Digest) -> bytes:
    """Return ``index.json``: a descriptor for every image, under the name the catalog uses.

    The inventory's digest stands in it, so that damage to the inventory shows.
    """
    descriptors = (_json(_descriptor(plan, number)) for number in range(len(plan.images)))
    return b"".join(
        (
            b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json",',
            b'"annotations":{"airgap.inventory":"%s"},"manifests":[\n' % str(inventory).encode(),
            b",\n".join(descriptors),
            b"\n]}\n",
        )
    )


def _descriptor(plan: Plan, number: int) -> dict[str, object]:
    image = plan.images[number]
    root = plan.manifests[image.root]
    return {
        "mediaType": root.media_type,
        "digest": str(root.digest),
        "size": root.size,
        "annotations": {
            # skopeo and podman look for the first name, containerd for the second.
            "org.opencontainers.image.ref.name": image.reference,
            "io.containerd.image.name": image.reference,
        },
    }


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _offsets(sizes: Iterable[int], start: int) -> tuple[array[int], int]:
    offsets, end = array("q"), start
    for size in sizes:
        offsets.append(end)
        end += tar.BLOCK + tar.padded(size)
    return offsets, end
