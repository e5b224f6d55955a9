"""Every request of an export and of an import meets every fault once.

A golden run in calm weather says which requests there are, and what comes of them. Then, for
each fault and each request, one more run: it must end, with 0 wherever the fault may pass, with
the right status otherwise; whatever ends with 0 has left the golden run's bytes; and whatever
does not is mended by the same command in calm weather. By default a sample of the requests.
"""

from __future__ import annotations

import random
import re
import shutil
import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Protocol

import pytest

import airgap
from airgap.plan import MISSING_BLOB
from airgap.registry.access import Access
from airgap.registry.retry import StoppableClock
from airgap.registry.transport import Patience
from tests.support import faults, tripwire
from tests.support.docker_registry import docker_registry, needs_docker_registry
from tests.support.lab import CATALOG, Recipe, build_lab
from tests.support.promise import keeps
from tests.support.proxy import FaultProxy, Gate
from tests.support.upstream import RegistryUpstream

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from pathlib import Path

    from airgap.registry.http_server import Response
    from tests.support.faults import Asked, Exchange, Fault
    from tests.support.lab import Lab

pytestmark = [needs_docker_registry, pytest.mark.timeout(900)]

RECIPE = Recipe(
    seed=5, padding=3, layers=1, layer_bytes=8 << 10, huge_layer=600_000, multi_arch=0.4
)
SILENCE = 0.5
PATIENCE = Patience(connect=5, read=SILENCE, write=5, verdict=SILENCE)
LONG = 60.0
"""Seconds of silence in a fault: far more than the client's patience."""

LONGEST_RUN = 30.0
TOGETHER = 10

BLOB = r".*/blobs/sha256:.*"
CATALOG_PATH = "/v2/quay.io/lab/catalog/"
PAGE = b"<html>Please log in</html>"


class HastyClock(StoppableClock):
    """Time in which waiting between attempts takes none."""

    def __init__(self, stop: threading.Event) -> None:
        super().__init__(stop)
        self._skipped = 0.0
        self._skipping = threading.Lock()

    def monotonic(self) -> float:
        return super().monotonic() + self._skipped

    def sleep(self, seconds: float) -> None:
        self.check()
        with self._skipping:
            self._skipped += seconds


@dataclass(frozen=True, order=True)
class Spot:
    """One request of a golden run: the n-th, from 1, that fits a method and a path."""

    method: str
    path: str
    number: int

    @property
    def repository(self) -> str:
        return re.split("/(?:manifests|blobs)/", self.path)[0]

    @property
    def is_about_the_catalog(self) -> bool:
        return self.path.startswith(re.escape(CATALOG_PATH))


@dataclass(frozen=True)
class End:
    """How a run ended and what it left; ``mendable`` says that the same command can do more."""

    status: int
    why: str
    left: object
    mendable: bool = True


class Leg(Protocol):
    """One way of the journey, through a proxy."""

    proxy: FaultProxy
    gate: Gate
    cdn: FaultProxy

    def begin(self) -> None:
        """Forget the last run."""

    def run(self) -> End:
        """Do the journey, or go on with it."""


@dataclass
class Exporting:
    """From a registry behind a login into an archive."""

    folder: Path
    lab: Lab
    proxy: FaultProxy
    gate: Gate
    cdn: FaultProxy
    archive: Path = field(init=False)

    def __post_init__(self) -> None:
        self.access = _access(
            self.folder, self.proxy, insecure=False, conf=self.lab.registries_conf(self.proxy.host)
        )
        self.begin()

    def begin(self) -> None:
        fresh = self.folder / "run"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        self.archive = fresh / "olm.tar"

    def run(self) -> End:
        try:
            result = airgap.export([CATALOG], self.archive, access=self.access)
        except airgap.AirgapError as error:
            return End(error.exit_status, str(error), None)
        why = "; ".join(f"{hole.reference}: {hole.reason}" for hole in result.missing)
        mendable = all(hole.reason == MISSING_BLOB for hole in result.missing)
        return End(result.exit_status, why, self.archive.read_bytes(), mendable)


@dataclass
class Importing:
    """From an archive into a registry behind a login."""

    folder: Path
    archive: Path
    content: Path
    proxy: FaultProxy
    gate: Gate
    cdn: FaultProxy
    _runs: Iterator[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        self.access = _access(self.folder, self.proxy, insecure=True, conf="")

    def begin(self) -> None:
        """Empty the registry: it keeps nothing in memory."""
        if self.content.exists():
            # At once, as it may still be cleaning up after a client that has left.
            old = self.content.rename(self.folder / f"old-{next(self._runs)}")
            shutil.rmtree(old)
        shutil.rmtree(self.folder / "manifests", ignore_errors=True)

    def run(self) -> End:
        options = airgap.ManifestsOptions(self.folder / "manifests")
        try:
            result = airgap.import_archive(
                self.archive, self.proxy.host, access=self.access, manifests=options
            )
        except airgap.AirgapError as error:
            return End(error.exit_status, str(error), None)
        why = "; ".join(failure.detail for failure in result.failed)
        kept = keeps(self.content)
        # Where a manifest is refused by its digest, it gets a tag of its own.
        besides = [name for name in kept if "/_uploads/" in name or "/tags/airgap-" in name]
        for name in besides:
            del kept[name]
        return End(result.exit_status, why, (kept, keeps(self.folder / "manifests")))


def _access(folder: Path, proxy: FaultProxy, *, insecure: bool, conf: str) -> Access:
    login, mirrors = folder / "auth.json", folder / "registries.conf"
    # What the archive says of its images' hosts is no reason to send them anything.
    logins = {proxy.host: ("robot", PASSWORD)}
    login.write_text(tripwire.auth_file(logins))
    login.chmod(0o600)
    mirrors.write_text(conf)
    return Access(
        registry_config=login,
        registries_conf=mirrors,
        insecure=insecure,
        connections=4,
        patience=PATIENCE,
        clock=HastyClock,
    )


PASSWORD = "sweep-canary-71ae"


@dataclass(frozen=True)
class Golden:
    """A leg, what it asks for in calm weather, and what it leaves then."""

    leg: Leg
    spots: tuple[Spot, ...]
    left: object


def golden(leg: Leg) -> Golden:
    leg.begin()
    leg.proxy.asked.clear()
    end = leg.run()
    assert (end.status, end.why) == (0, "")
    return Golden(leg, tuple(spots_of(leg.proxy.asked)), end.left)


def spots_of(asked: Sequence[Asked]) -> Iterator[Spot]:
    seen: Counter[tuple[str, str]] = Counter()
    for one in asked:
        session = re.fullmatch(r"(.*/blobs/uploads/).+", one.path)
        path = f"{re.escape(session[1])}.+" if session else re.escape(one.path)
        seen[one.method, path] += 1
        yield Spot(one.method, path, seen[one.method, path])


@pytest.fixture(scope="module")
def exporting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Golden]:
    folder = tmp_path_factory.mktemp("exporting")
    with ExitStack() as stack:
        behind = stack.enter_context(docker_registry(folder / "registry"))
        with RegistryUpstream(behind) as upstream:
            lab = build_lab(None, upstream, recipe=RECIPE)
        yield golden(Exporting(folder, lab, *_before(behind, stack)))


@pytest.fixture(scope="module")
def importing(exporting: Golden, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Golden]:
    folder = tmp_path_factory.mktemp("importing")
    archive = folder / "olm.tar"
    assert isinstance(exporting.left, bytes)
    archive.write_bytes(exporting.left)
    with ExitStack() as stack:
        behind = stack.enter_context(docker_registry(folder / "registry"))
        content = folder / "registry" / "docker"
        yield golden(Importing(folder, archive, content, *_before(behind, stack)))


def _before(behind: str, stack: ExitStack) -> tuple[FaultProxy, Gate, FaultProxy]:
    """Put a proxy with a login before a registry, and a place with none for its content."""
    gate = Gate("robot", PASSWORD)
    proxy, cdn = (stack.enter_context(FaultProxy(behind, at)) for at in (gate, None))
    tripwire.plant(PASSWORD, proxy.host)
    return proxy, gate, cdn


@dataclass(frozen=True)
class Trouble:
    """What befalls a request, and then the next ones for the same path.

    ``at`` are the methods and ``path`` the paths that it can befall. ``ends`` gives the statuses
    that a run may end with. When all requests are to meet it, ``together`` of them do in one run,
    and no two of a ``kind``: the first's second attempt may be what counts as the second.
    """

    name: str
    faults: Callable[[Leg], Sequence[Fault]]
    at: Collection[str] = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
    path: str = ".*"
    ends: Callable[[Spot], Collection[int]] = lambda _: (0,)
    together: int = TOGETHER
    kind: Callable[[Spot], object] = lambda spot: (spot.method, spot.path)

    def fits(self, spot: Spot) -> bool:
        plain = spot.path.replace("\\", "")
        return spot.method in self.at and re.fullmatch(self.path, plain) is not None


def refused(spot: Spot) -> Collection[int]:
    """A refusal is a hole, or the end when it is about the catalog or the destination."""
    if spot.path.startswith("/token") or spot.path == "/v2/":
        return (0, 3, 5)
    return (0, 4, 5) if spot.is_about_the_catalog or spot.method != "GET" else (0, 3, 4, 5)


def always(*several: Fault) -> Callable[[Leg], Sequence[Fault]]:
    return lambda _: several


def away(status: int) -> Callable[[Leg], Sequence[Fault]]:
    return lambda leg: (faults.redirect(f"http://{leg.cdn.host}{{path}}", status),)


def expired(leg: Leg) -> Sequence[Fault]:
    return (leg.gate.expired,)


def limited(exchange: Exchange) -> Response:
    """Too many requests, until a date."""
    then = {"Date": "Thu, 01 Jan 2026 00:00:00 GMT", "Retry-After": "Thu, 01 Jan 2026 00:02:00 GMT"}
    return faults.answer(429, then)(exchange)


READ = ("GET",)
SENT = ("POST", "PUT", "PATCH")
CONTENT = r"/v2/.+/(blobs|manifests)/.+"

PASSING = [
    *(
        Trouble(f"status-{status}", always(faults.answer(status, headers)))
        for status, headers in (
            (408, {}),
            (425, {}),
            (429, {"Retry-After": "7"}),
            (500, {}),
            (502, {"Content-Type": "text/html"}),
            (503, {"Retry-After": "0"}),
            (504, {}),
        )
    ),
    Trouble("limited-until-a-date", always(limited)),
    Trouble("reset", always(faults.reset())),
    Trouble("answer-lost", always(faults.lose_answer())),
    Trouble("silent", always(faults.stall(LONG))),
    # Requests to one repository share a token: one that meets two expiries is refused.
    Trouble("token-expired", expired, path="/v2/.+", kind=lambda spot: spot.repository),
    Trouble("cut-at-once", always(faults.cut(0)), READ),
    Trouble("cut-early", always(faults.cut(100)), READ),
    Trouble("cut-late", always(faults.cut(300_000)), READ, BLOB),
    Trouble("reset-in-the-body", always(faults.reset(100)), READ),
    Trouble("silent-in-the-body", always(faults.stall(LONG, after=100)), READ),
    Trouble("slow", always(faults.throttle(4_000_000)), READ, BLOB),
    Trouble("no-length", always(faults.no_length()), READ),
    Trouble("flipped-first", always(faults.flip(0)), READ, BLOB),
    Trouble("flipped-later", always(faults.flip(90)), READ, BLOB),
    Trouble("sent-elsewhere-302", away(302), ("GET", "HEAD"), CONTENT),
    Trouble("sent-elsewhere-307", away(307), ("GET", "HEAD"), CONTENT),
    Trouble("sent-elsewhere-308", away(308), ("GET", "HEAD"), CONTENT),
    Trouble("range-ignored", always(faults.cut(100), faults.ignore_range()), READ, BLOB),
    Trouble(
        "range-refused",
        always(faults.cut(100), faults.answer(416, {"Content-Range": "bytes */9"})),
        READ,
        BLOB,
    ),
    Trouble(
        "another-range",
        always(faults.cut(100), faults.with_headers({"Content-Range": "bytes 0-98/99"})),
        READ,
        BLOB,
    ),
    Trouble(
        "content-changed",
        always(faults.cut(100), faults.with_headers({"ETag": '"other"'}), faults.cut(200)),
        READ,
        BLOB,
    ),
    Trouble("digest-unsaid", always(faults.with_headers({"Docker-Content-Digest": None}))),
    Trouble("upload-flipped", always(faults.flip_sent(50)), ("PUT", "PATCH"), r".*/uploads/.+"),
    Trouble("upload-reset", always(faults.reset_sent(50)), ("PUT", "PATCH"), r".*/uploads/.+"),
    Trouble("upload-unknown", always(faults.missing()), ("PUT", "PATCH"), r".*/uploads/.+"),
    # One at a time: after the first, uploads end with a request that has nothing in it.
    Trouble("upload-too-large", always(faults.answer(413)), ("PUT",), r".*/uploads/.+", together=1),
]

FINAL = [
    *(
        Trouble(f"status-{status}", always(faults.answer(status)), ends=refused)
        for status in (400, 401, 403, 404, 405, 410, 451, 501, 507)
    ),
    Trouble(
        "a-web-page", always(faults.answer(200, {"Content-Type": "text/html"}, PAGE)), ends=refused
    ),
    Trouble("nothing", always(faults.answer(200)), ends=refused),
    Trouble("a-lie", always(faults.answer(201)), SENT, ends=refused),
    Trouble("longer", always(faults.longer(b"more")), READ, ends=refused),
    Trouble("flipped", always(faults.flip(20)), READ, r"(?!.*/blobs/).*", ends=refused),
    Trouble(
        "another-digest",
        always(faults.with_headers({"Docker-Content-Digest": "sha256:" + "0" * 64})),
        ends=refused,
    ),
    Trouble("upload-sent-elsewhere", away(307), SENT, CONTENT, ends=refused),
    Trouble("sent-to-a-file", always(faults.redirect("file:///etc/passwd")), ends=refused),
    Trouble(
        "sent-to-itself",
        lambda leg: (faults.redirect(f"http://{leg.proxy.host}{{path}}"),) * 10,
        ends=refused,
    ),
    Trouble(
        "another-login", always(faults.answer(401, {"WWW-Authenticate": "Negotiate"})), ends=refused
    ),
]

TROUBLES = pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(one, id=f"{kind}-{one.name}")
        for kind, several in (("passing", PASSING), ("final", FINAL))
        for one in several
    ],
)
AMOUNT = pytest.mark.parametrize(
    "sample", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["sample", "all"]
)


@TROUBLES
@AMOUNT
def test_export(exporting: Golden, trouble: Trouble, sample: bool) -> None:
    sweep(exporting, trouble, sample)


@TROUBLES
@AMOUNT
def test_import(importing: Golden, trouble: Trouble, sample: bool) -> None:
    sweep(importing, trouble, sample)


def sweep(golden: Golden, trouble: Trouble, sample: bool) -> None:
    left = [spot for spot in golden.spots if trouble.fits(spot)]
    random.Random(trouble.name).shuffle(left)
    many, problems, unmet = len(left), [], 0
    if sample:
        left = left[:1]
    while left:
        together = list({trouble.kind(spot): spot for spot in left}.values())[: trouble.together]
        met: set[Spot] = set()
        problems += [f"{met}: {problem}" for problem in befall(golden, together, trouble, met)]
        # What comes after the end of a run meets its fault in another; and which of two equal
        # requests is answered by a 401 first is not the same in every run.
        unmet += not met
        given_up = set(together[: not met])
        left = [spot for spot in left if spot not in met | given_up]
    assert not problems, "\n".join(problems)
    assert unmet <= many // 10


def befall(
    golden: Golden, spots: Sequence[Spot], trouble: Trouble, met: set[Spot]
) -> Iterator[str]:
    """Let a trouble befall requests, add those it befell to ``met``; yield what is not right."""
    leg = golden.leg
    leg.begin()
    leg.proxy.heal()
    for spot in spots:
        first, *later = trouble.faults(leg)
        several = [noting(first, spot, met), *later]
        for number, fault in enumerate(several, spot.number):
            leg.proxy.fault(spot.method, spot.path, fault, hits=(number,))
    began = time.monotonic()
    end = leg.run()
    took = time.monotonic() - began
    leg.proxy.heal()
    if took > LONGEST_RUN:
        yield f"took {took:.0f} s"
    if end.status not in {0}.union(*(trouble.ends(spot) for spot in met)):
        yield f"ended with {end.status}: {end.why}"
    if end.status and end.mendable:
        end = leg.run()
        if end.status:
            yield f"the same command then ended with {end.status}: {end.why}"
    if end.status == 0 and end.left != golden.left:
        yield "ended with 0 and other bytes"
    yield from tripwire.tripped()


def noting(fault: Fault, spot: Spot, met: set[Spot]) -> Fault:
    def noted(exchange: Exchange) -> Response:
        met.add(spot)
        return fault(exchange)

    return noted
