"""Blobs from repositories of which some fail: all that is needed is one that goes on."""

from __future__ import annotations

import random
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

from airgap.archive.work import Work
from airgap.digest import digest_of
from airgap.errors import AccessDenied, IntegrityError, Interrupted, NotFound, Unreachable
from airgap.registry import retry
from airgap.registry.client import RegistryClient
from airgap.registry.credentials import Credentials
from airgap.registry.directory import DirectoryStore
from airgap.registry.source import RegistrySource
from airgap.registry.transport import Transport
from tests.support.faults import FaultyRegistry, answer, cut, flip, longer, reset
from tests.support.http import FakeClock
from tests.support.plans import Content

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airgap.plan import Blob
    from airgap.registry.http_server import Response
    from tests.support.faults import Exchange, Fault

LAYER = random.Random(4).randbytes(600_000)
DIGEST = digest_of(LAYER)
ONE, TWO = (rf"/v2/lab/{name}/blobs/{DIGEST}" for name in ("one", "two"))


@dataclass
class Shared:
    """A registry with one layer in two repositories, ``lab/one`` to be asked first."""

    registry: FaultyRegistry
    source: RegistrySource
    blob: Blob
    clock: FakeClock = field(default_factory=FakeClock)

    def read(self, offset: int = 0) -> bytes:
        return b"".join(self.source.blob(self.blob, offset))

    def ranges(self, path: str) -> list[str | None]:
        return [asked.headers.get("range") for asked in self.registry.asked if asked.path == path]


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Shared]:
    with ExitStack() as stack:
        store = DirectoryStore(tmp_path / "registry", durable=False)
        registry = stack.enter_context(FaultyRegistry(store))
        content = Content()
        for name in ("catalog", "one", "two"):
            layers = (LAYER,) if name != "catalog" else ()
            reference = f"{registry.host}/lab/{name}:v1"
            content.images[reference] = content.manifest(name.encode(), *layers)
        for repository in ("lab/one", "lab/two"):
            upload = store.upload(repository)
            upload.write(LAYER)
            upload.commit(DIGEST)
            upload.discard()
        clock = FakeClock()
        transport = Transport(environ={}, insecure=frozenset({registry.host}), clock=clock)
        client = stack.enter_context(RegistryClient(transport, Credentials()))
        plan = content.plan(f"{registry.host}/lab/catalog:v1")
        blob = next(blob for blob in plan.blobs if blob.digest == DIGEST)
        yield Shared(registry, RegistrySource(client, plan), blob, clock)


def _longer_without_length(exchange: Exchange) -> Response:
    return replace(longer(b"and more")(exchange), length=None)


FAULTS: dict[str, Fault] = {
    "denied": answer(403),
    "not-found": answer(404),
    "refused": answer(418),
    "broken": answer(500),
    "down": answer(503),
    "page": answer(200, {"Content-Type": "text/html"}, b"<html>Please log in</html>"),
    "cut": cut(after=10_000),
    "no-answer": reset(),
    "reset": reset(after=10_000),
    "longer": longer(b"and more"),
    "longer-unannounced": _longer_without_length,
}


def test_one_repository_that_gives_all_is_enough(shared: Shared) -> None:
    assert shared.read() == LAYER
    assert shared.read(offset=599_000) == LAYER[599_000:]
    assert shared.ranges(ONE) == [None, "bytes=599000-"]
    assert shared.ranges(TWO) == []


@pytest.mark.parametrize("name", FAULTS)
def test_where_one_repository_fails_the_next_goes_on(shared: Shared, name: str) -> None:
    shared.registry.fault("GET", ONE, FAULTS[name])
    assert shared.read() == LAYER
    assert shared.read(offset=1) == LAYER[1:]


@pytest.mark.parametrize("fault", [cut(after=10_000), reset(after=10_000)], ids=["cut", "reset"])
def test_the_next_repository_goes_on_where_the_one_before_ended(
    shared: Shared, fault: Fault
) -> None:
    shared.registry.fault("GET", ONE, fault)
    assert shared.read() == LAYER
    arrived = [0, *(int(text.strip("bytes=-")) for text in shared.ranges(ONE) if text)]
    assert len(arrived) == retry.ATTEMPTS
    (text,) = shared.ranges(TWO)
    assert text is not None
    # A reset may take bytes with it that were on their way.
    assert arrived[-1] <= int(text.strip("bytes=-")) <= retry.ATTEMPTS * 10_000
    assert text != "bytes=0-"


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (answer(404), NotFound),
        (answer(403), AccessDenied),
        (answer(500), Unreachable),
        (longer(b"and more"), IntegrityError),
    ],
    ids=["not-found", "denied", "broken", "longer"],
)
def test_what_the_last_repository_says_is_told(
    shared: Shared, fault: Fault, kind: type[Exception]
) -> None:
    shared.registry.fault("GET", ONE, answer(418))
    shared.registry.fault("GET", TWO, fault)
    with pytest.raises(kind, match="/lab/two@sha256:"):
        shared.read()


def test_a_request_to_stop_is_no_failure_of_a_repository(shared: Shared) -> None:
    pieces = shared.source.blob(shared.blob, 0)
    shared.registry.fault("GET", ONE, cut(after=10_000))
    next(pieces)
    shared.clock.stopped = True
    with pytest.raises(Interrupted):
        list(pieces)
    assert shared.ranges(TWO) == []


def test_who_is_not_content_with_a_repository_is_given_the_blob_by_the_next(
    shared: Shared, tmp_path: Path
) -> None:
    shared.registry.fault("GET", ONE, flip())
    work = Work(tmp_path / "work")
    work.fetch(DIGEST, len(LAYER), lambda offset: shared.source.blob(shared.blob, offset))
    with work.open(DIGEST) as file:
        assert file.read() == LAYER
    assert (shared.ranges(ONE), shared.ranges(TWO)) == ([None], [None])


def test_what_was_not_read_to_its_end_is_given_by_the_same_repository(shared: Shared) -> None:
    shared.registry.fault("GET", ONE, cut(after=10_000), hits=(1,))
    pieces = shared.source.blob(shared.blob, 0)
    next(pieces)
    del pieces
    assert shared.read() == LAYER
    assert shared.ranges(TWO) == []


def test_a_blob_that_is_wrong_everywhere_is_asked_for_in_turn(shared: Shared) -> None:
    for path in (ONE, TWO):
        shared.registry.fault("GET", path, flip())
    assert all(shared.read() != LAYER for _ in range(4))
    assert [asked.path for asked in shared.registry.asked if asked.path in (ONE, TWO)] == (
        [ONE, TWO] * 2
    )


def test_the_origin_of_a_blob_is_where_it_was_asked_for_last(shared: Shared) -> None:
    assert shared.source.origin(shared.blob) == f"{shared.registry.host}/lab/two"
