"""Blobs on their way ahead of their images, also one that can be read but once.

Such a blob goes to the first place that wants it, and the others take it from there by mounts.
Where a registry has turned out not to mount, it goes to all of them at the same time, piece by
piece, and the slowest sets the pace. Who is not served so, as an upload broke off or the
registry is given no more at once, gets it from a place that has it. Knows nothing of where blobs
come from, nor of images.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from airgap.arrival import Arrival
from airgap.crew import AtMost, in_parallel
from airgap.errors import AirgapError, Interrupted, StorageError
from airgap.registry.destination import BlobDestination

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from airgap.digest import Digest
    from airgap.plan import Blob, Image
    from airgap.reference import Repository
    from airgap.registry.client import RegistryClient

    Read = Callable[[int], Iterator[bytes]]

_PATIENCE = 20.0
"""Seconds that the first piece waits for all who are to begin with it."""


@dataclass(frozen=True)
class Known:
    """What has been learned: which repositories have a blob, and which hosts have mounted."""

    holders: dict[Digest, list[Repository]] = field(default_factory=lambda: defaultdict(list))
    mounts: dict[str, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Passing:
    """A blob that can be read once, and the places that want it."""

    digest: Digest
    places: Sequence[str]


class AheadDestination(BlobDestination):
    """Where blobs go ahead of their images. ``known`` grows by what is learned here.

    ``passing`` is the one among them that can be read but once, if there is one.
    """

    def __init__(
        self,
        client: RegistryClient,
        places: Mapping[Image, tuple[Repository, str]],
        known: Known,
        passing: Passing | None,
        arrived: Callable[[], None],
        stop: threading.Event,
    ) -> None:
        super().__init__(client, places, known.holders, arrived)
        self._known = known
        self._passing = passing
        self._stop = stop
        self._outcomes: dict[str, Arrival | AirgapError] | None = None

    def put_blob(self, blob: Blob, where: str, read: Read) -> Arrival:
        """Make sure that a repository has a blob. Raises as any destination does."""
        if self._passing is None or blob.digest != self._passing.digest:
            return self._put(blob, where, read)
        if self._outcomes is None:
            self._outcomes = self._put_abreast(blob, self._passing.places, read)
        outcome = self._outcomes.get(where)
        if isinstance(outcome, Arrival):
            return outcome
        if holders := self._known.holders.get(blob.digest):
            return self._put(
                blob, where, partial(self._client.blob, holders[0], blob.digest, blob.size)
            )
        if outcome is not None:
            raise outcome
        return self._put(blob, where, read)

    def _put_abreast(
        self, blob: Blob, places: Sequence[str], read: Read
    ) -> dict[str, Arrival | AirgapError]:
        """Bring a blob to many places at once, where a mount would be refused; say how it went."""
        host = self.lane(places[0])
        at_once = places[: self._client.pace.level(host)]
        if len(at_once) < 2 or self._known.mounts.get(host, True):
            return {}
        abreast = _Abreast(read, len(at_once))

        def put(where: str) -> Arrival | AirgapError:
            reader = _Reader(abreast)
            try:
                return self._put(blob, where, reader.read)
            except (StorageError, Interrupted):
                raise
            except AirgapError as error:
                return error
            finally:
                reader.leave()

        outcomes = in_parallel(put, at_once, AtMost(len(at_once)), self.lane, self._stop)
        return dict(zip(at_once, outcomes, strict=True))

    def _put(self, blob: Blob, where: str, read: Read) -> Arrival:
        """Bring a blob to a place, and learn from how it arrived."""
        host = self.lane(where)
        with self._lock:
            holders = self._known.holders[blob.digest]
            was_elsewhere = any(one.host == host and str(one) != where for one in holders)
        arrival = super().put_blob(blob, where, read)
        with self._lock:
            if was_elsewhere and arrival is not Arrival.PRESENT:
                self._known.mounts[host] = arrival is Arrival.MOUNTED
            holders.append(self._hosts[where])
        return arrival


class _Abreast:
    """Pieces that can be read once, for several readers: each is given when all want it."""

    def __init__(self, read: Read, readers: int) -> None:
        self.read = read
        self._pieces = read(0)
        self._changed = threading.Condition()
        self._awaited = readers
        self._waiting = 0
        self._turn = 0
        self._piece: bytes | None = None
        self._error: BaseException | None = None

    def come(self) -> bool:
        """Say whether a reader that begins is in time for the first piece."""
        with self._changed:
            return self._turn == 0

    def next(self) -> bytes | None:
        """Return the next piece, when all want it; None at the end. Raises what reading does."""
        with self._changed:
            turn = self._turn
            self._waiting += 1
            self._draw_if_all_wait()
            while self._turn == turn:
                if not self._changed.wait(_PATIENCE) and turn == 0 and self._turn == 0:
                    # Whoever has not come by now is not waited for.
                    self._awaited = self._waiting
                    self._draw_if_all_wait()
            if self._error is not None:
                raise self._error
            return self._piece

    def leave(self, *, has_come: bool) -> None:
        """Wait no more for a reader."""
        with self._changed:
            if has_come or self._turn == 0:
                self._awaited -= 1
                self._draw_if_all_wait()

    def _draw_if_all_wait(self) -> None:
        if not 0 < self._awaited <= self._waiting:
            return
        try:
            self._piece = next(self._pieces, None)
        except BaseException as error:  # Every reader raises it.
            self._error = error
        self._turn += 1
        self._waiting = 0
        self._changed.notify_all()


class _Reader:
    """One of several who read the same; once, as what has passed is told by its source."""

    def __init__(self, abreast: _Abreast) -> None:
        self._abreast = abreast
        self._has_come = False
        self._has_left = False

    def read(self, offset: int) -> Iterator[bytes]:
        """Yield all pieces. Raises what the source does for who asks again, or too late."""
        if self._has_come or self._has_left or not self._abreast.come():
            yield from self._abreast.read(offset)
            return
        self._has_come = True
        try:
            while (piece := self._abreast.next()) is not None:
                yield piece
        finally:
            self.leave()

    def leave(self) -> None:
        """Read no more; once more changes nothing."""
        if not self._has_left:
            self._has_left = True
            self._abreast.leave(has_come=self._has_come)
