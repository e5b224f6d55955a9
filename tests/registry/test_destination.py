"""Filling repositories: what is mounted, what is sent, and in which order an image appears."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from airgap.arrival import Arrival
from airgap.errors import IntegrityError, RegistryError, Unreachable
from airgap.reference import ImageReference, Repository
from airgap.registry.client import RegistryClient
from airgap.registry.credentials import Credentials
from airgap.registry.destination import RegistryDestination
from airgap.registry.directory import DirectoryStore
from airgap.registry.transport import Transport
from tests.support.faults import FaultyRegistry, answer, missing, reset
from tests.support.http import FakeClock
from tests.support.plans import some_content

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from airgap.plan import Blob, Image
    from airgap.registry.http_server import Response
    from tests.support.faults import Exchange, Fault

UPLOADS = ".*/blobs/uploads/"


@dataclass
class Target:
    """An empty registry, and images to put there; all of them share one blob."""

    registry: FaultyRegistry
    store: DirectoryStore
    client: RegistryClient

    def __post_init__(self) -> None:
        self.said: list[str] = []
        self.content = some_content()
        self.plan = self.content.plan()
        images = {image.reference.split("/")[-1].split(":")[0]: image for image in self.plan.images}
        self.one, self.two, self.both = images["image-0"], images["image-1"], images["both"]
        (common,) = set(self.plan.blobs_of(self.one)) & set(self.plan.blobs_of(self.two))
        self.shared = self.plan.blobs[common]

    def destination(self, *tags_set: Image) -> RegistryDestination:
        places = {
            image: (self._repository(image), ImageReference.parse(image.reference).tag)
            for image in self.plan.images
        }
        contents = [self.content.by_digest[manifest.digest] for manifest in self.plan.manifests]
        return RegistryDestination(
            self.client,
            self.plan,
            places,
            contents.__getitem__,
            frozenset(tags_set),
            {},
            self.said.append,
        )

    def _repository(self, image: Image) -> Repository:
        return Repository(self.registry.host, ImageReference.parse(image.reference).path)

    def put(self, destination: RegistryDestination, blob: Blob, image: Image) -> Arrival:
        return destination.put_blob(blob, destination.where(image), self.reading(blob))

    def put_all(self, destination: RegistryDestination, image: Image) -> None:
        for number in self.plan.blobs_of(image):
            self.put(destination, self.plan.blobs[number], image)

    def reading(self, blob: Blob) -> Callable[[int], Iterator[bytes]]:
        return lambda offset: self.content.blob(blob, offset)

    def asked(self) -> list[str]:
        """Everything but the question for the registry itself, without repository or session."""
        paths = [asked for asked in self.registry.asked if asked.path != "/v2/"]
        return [f"{asked.method} {asked.path.split('/')[-1]}" for asked in paths]


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    store = DirectoryStore(tmp_path / "registry", durable=False)
    with ExitStack() as stack:
        registry = stack.enter_context(FaultyRegistry(store))
        transport = Transport(environ={}, insecure=frozenset({registry.host}), clock=FakeClock())
        client = stack.enter_context(RegistryClient(transport, Credentials()))
        yield Target(registry, store, client)


def _refusing_mounts(fault: Fault) -> Fault:
    def refuse(exchange: Exchange) -> Response:
        return fault(exchange) if "mount" in exchange.request.query else exchange.honest()

    return refuse


def test_a_blob_is_sent_once_and_mounted_from_there(target: Target) -> None:
    destination = target.destination()
    arrivals = [target.put(destination, target.shared, i) for i in (target.one, target.two)]
    assert arrivals == [Arrival.SENT, Arrival.MOUNTED]
    assert target.content.asked == [(target.shared.digest, 0)]
    for name in ("lab/image-0", "lab/image-1"):
        assert target.store.blob(name, target.shared.digest) is not None


def test_a_blob_is_asked_for_before_it_is_mounted(target: Target) -> None:
    destination = target.destination()
    target.put(destination, target.shared, target.one)
    before = len(target.asked())
    target.put(destination, target.shared, target.two)
    assert target.asked()[before:] == [f"HEAD {target.shared.digest}", "POST "]


def test_a_damaged_blob_is_told_where_a_mount_would_hide_it(target: Target) -> None:
    path = target.destination().where(target.two).partition("/")[2]
    target.registry.fault("HEAD", f"/v2/{path}/blobs/.*", answer(200, body=b"short"))
    destination = target.destination()
    target.put(destination, target.shared, target.one)
    with pytest.raises(RegistryError, match=f"instead of {target.shared.size}"):
        target.put(destination, target.shared, target.two)


def test_where_the_tag_is_set_what_is_there_is_found(target: Target) -> None:
    target.put(target.destination(), target.shared, target.one)
    destination = target.destination(target.one)
    before = len(target.asked())
    assert target.put(destination, target.shared, target.one) is Arrival.PRESENT
    assert target.asked()[before:] == [f"HEAD {target.shared.digest}"]


@pytest.mark.parametrize("status", [400, 403, 404, 405, 500, 503])
def test_a_blob_whose_mount_is_refused_is_sent(target: Target, status: int) -> None:
    target.registry.fault("POST", UPLOADS, _refusing_mounts(answer(status)))
    destination = target.destination()
    arrivals = [target.put(destination, target.shared, i) for i in (target.one, target.two)]
    assert arrivals == [Arrival.SENT, Arrival.SENT]
    assert target.store.blob("lab/image-1", target.shared.digest) is not None


def test_a_connection_lost_while_mounting_is_a_failure(target: Target) -> None:
    target.registry.fault("POST", UPLOADS, _refusing_mounts(reset()))
    destination = target.destination()
    target.put(destination, target.shared, target.one)
    with pytest.raises(Unreachable, match=r"mount from lab/image-0.*given up after 6 attempts"):
        target.put(destination, target.shared, target.two)


def test_wrong_content_is_never_completed(target: Target) -> None:
    destination, blob = target.destination(), target.shared
    target.content.by_digest[blob.digest] = bytes(blob.size)
    with pytest.raises(IntegrityError, match=str(blob.digest)):
        target.put(destination, blob, target.one)
    assert target.store.blob("lab/image-0", blob.digest) is None


def test_a_blob_that_failed_in_one_repository_is_mounted_from_none(target: Target) -> None:
    destination = target.destination()
    target.registry.fault("POST", r".*/image-0/blobs/uploads/", answer(500))
    with pytest.raises(Unreachable, match="answers 500"):
        target.put(destination, target.shared, target.one)
    assert target.put(destination, target.shared, target.two) is Arrival.SENT


def test_a_blob_that_the_registry_damaged_is_told_with_the_way_out(target: Target) -> None:
    target.registry.fault("HEAD", r".*/image-0/blobs/.*", answer(200, {}, bytes(7)))
    with pytest.raises(RegistryError, match=f"with 7 bytes instead of {target.shared.size}") as e:
        target.put(target.destination(), target.shared, target.one)
    assert e.value.hint is not None
    assert "delete the blob there" in e.value.hint


def test_an_image_appears_children_first_and_its_tag_last(target: Target) -> None:
    destination = target.destination()
    target.put_all(destination, target.both)
    before = len(target.asked())
    destination.put_image(target.both)
    digests = [target.plan.manifests[n].digest for n in target.plan.manifests_of(target.both)]
    steps = [f"{method} {digest}" for digest in digests for method in ("PUT", "GET")]
    assert target.asked()[before:] == [*steps, "PUT v1", "HEAD v1"]
    assert destination.manifests_sent == 3


def test_where_digests_are_refused_every_manifest_is_put_under_one_tag(target: Target) -> None:
    target.registry.fault("PUT", ".*/manifests/sha256:.*", answer(405))
    destination = target.destination()
    destination.ask_for_digests(target.both)
    target.put_all(destination, target.both)
    before = len(target.asked())
    destination.put_image(target.both)
    *children, root = [
        target.plan.manifests[n].digest for n in target.plan.manifests_of(target.both)
    ]
    steps = [s for d in children for s in (f"PUT airgap-{d.hex[:24]}", f"GET {d}")]
    assert target.asked()[before:] == [*steps, "PUT v1", f"GET {root}", "HEAD v1"]
    assert destination.manifests_sent == 3
    assert len(target.said) == 1


def test_an_image_that_is_there_is_looked_at_and_left_alone(target: Target) -> None:
    first = target.destination()
    target.put_all(first, target.both)
    first.put_image(target.both)
    before = len(target.asked())
    again = target.destination(target.both)
    again.put_image(target.both)
    assert {step.split()[0] for step in target.asked()[before:]} == {"GET"}
    assert again.manifests_sent == 0


@pytest.mark.parametrize("fault", [missing(), answer(200, {}, b"{}")], ids=["gone", "altered"])
def test_a_manifest_that_does_not_read_back_is_not_tagged(target: Target, fault: Fault) -> None:
    destination = target.destination()
    target.put_all(destination, target.one)
    target.registry.fault("GET", ".*/manifests/sha256:.*", fault)
    with pytest.raises(RegistryError, match="not there unchanged") as caught:
        destination.put_image(target.one)
    assert caught.value.hint is not None
    assert target.store.tags("lab/image-0") == []
