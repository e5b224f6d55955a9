"""What a run has done with each registry: counts, kept where things happen, for its summary.

Safe for any number of threads. Knows nothing of requests, nor of who reads the summary.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airgap.arrival import Arrival

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True)
class HostActivity:
    """What a run has done with one host.

    ``requests`` counts every request to the registry itself, those that failed too.
    ``fetched`` blobs came from there whole, ``fetched_bytes`` counts what was taken of any.
    ``sent``, ``mounted`` and ``present`` are blobs, once for each repository. ``retries`` says
    why something was tried again and how often, ``waited`` how many seconds that took, added up
    over all that waited at the same time.
    """

    host: str
    requests: int
    fetched: int
    fetched_bytes: int
    sent: int
    sent_bytes: int
    mounted: int
    present: int
    manifests_sent: int
    retries: Mapping[str, int]
    waited: float


class HostAccount:
    """The account of one host."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._retries: Counter[str] = Counter()
        self._waited = 0.0

    def request(self) -> None:
        """Count a request."""
        self._count("requests")

    def received(self, size: int) -> None:
        """Count bytes of a blob."""
        self._count("fetched_bytes", size)

    def fetched(self) -> None:
        """Count a blob that has come whole."""
        self._count("fetched")

    def arrived(self, arrival: Arrival, size: int) -> None:
        """Count a blob that is in a repository."""
        self._count(arrival.value)
        if arrival is Arrival.SENT:
            self._count("sent_bytes", size)

    def manifest_sent(self) -> None:
        """Count a manifest that was put."""
        self._count("manifests_sent")

    def retried(self, why: str, seconds: float) -> None:
        """Count a failure after which something is tried again, when so many seconds are over."""
        with self._lock:
            self._retries[why] += 1
            self._waited += seconds

    def waited(self, seconds: float) -> None:
        """Count a wait before a request, which a host asked for with an earlier answer."""
        with self._lock:
            self._waited += seconds

    def activity(self) -> HostActivity:
        """Return what has been counted."""
        with self._lock:
            counted = {name: self._counts[name] for name in _COUNTS}
            retries = dict(sorted(self._retries.items()))
            return HostActivity(
                host=self._host, **counted, retries=retries, waited=round(self._waited, 1)
            )

    def _count(self, name: str, number: int = 1) -> None:
        with self._lock:
            self._counts[name] += number


class Account:
    """The accounts of all hosts of a run."""

    def __init__(self) -> None:
        self._hosts: dict[str, HostAccount] = {}

    def of(self, host: str) -> HostAccount:
        """Return the account of a host, ``host[:port]`` as references name it."""
        known = self._hosts.get(host)
        return known or self._hosts.setdefault(host, HostAccount(host))

    def activity(self) -> tuple[HostActivity, ...]:
        """Return what has been done with every host, in the order of their names."""
        hosts = sorted(self._hosts.items())
        return tuple(account.activity() for _, account in hosts)


_COUNTS = (
    "requests",
    "fetched",
    "fetched_bytes",
    "sent",
    "sent_bytes",
    "mounted",
    "present",
    "manifests_sent",
)
