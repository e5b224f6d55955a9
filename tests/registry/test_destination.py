"""Filling repositories: what is mounted, what is sent, and in which order an image appears."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
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
from airgap.registry.upload import RepositoryAbsent
from tests.support.docker_registry import DockerRegistry, needs_docker_registry
from tests.support.faults import FaultyRegistry, answer, missing, reset, with_headers
from tests.support.http import FakeClock
from tests.support.plans import some_content

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from airgap.digest import Digest
    from airgap.plan import Blob, Image
    from airgap.registry.http_server import Response
    from tests.support.faults import Exchange, Fault

JSON = {"Content-Type": "application/json"}
UPLOADS = ".*/blobs/uploads/"


@dataclass
class Target:
    """An empty registry, and images to put there; all of them share one blob."""

    host: str
    registry: FaultyRegistry
    store: DirectoryStore
    client: RegistryClient
    clock: FakeClock
    folder: Path

    def __post_init__(self) -> None:
        self.said: list[str] = []
        self.content = some_content()
        self.plan = self.content.plan()
        images = {image.reference.split("/")[-1].split(":")[0]: image for image in self.plan.images}
        self.one, self.two, self.both = images["image-0"], images["image-1"], images["both"]
        (common,) = set(self.plan.blobs_of(self.one)) & set(self.plan.blobs_of(self.two))
        self.shared = self.plan.blobs[common]

    def destination(
        self,
        *tags_set: Image,
        empty: Iterable[Image] = (),
        holders: Mapping[Digest, list[Repository]] | None = None,
    ) -> RegistryDestination:
        places = {
            image: (self.repository(image), ImageReference.parse(image.reference).tag)
            for image in self.plan.images
        }
        contents = [self.content.by_digest[manifest.digest] for manifest in self.plan.manifests]
        return RegistryDestination(
            self.client,
            self.plan,
            places,
            contents.__getitem__,
            self.content.blob,
            frozenset(tags_set),
            frozenset(map(self.repository, empty)),
            holders or {},
            self.said.append,
        )

    def repository(self, image: Image) -> Repository:
        return Repository(self.host, ImageReference.parse(image.reference).path)

    def put(self, destination: RegistryDestination, blob: Blob, image: Image) -> Arrival:
        return destination.put_blob(blob, destination.where(image), self.reading(blob))

    def put_all(self, destination: RegistryDestination, image: Image) -> None:
        for number in self.plan.blobs_of(image):
            self.put(destination, self.plan.blobs[number], image)

    def reading(self, blob: Blob) -> Callable[[int], Iterator[bytes]]:
        return lambda offset: self.content.blob(blob, offset)

    def sessions(self) -> list[str]:
        """The names of the uploads that were completed."""
        return [a.path.split("/")[-1] for a in self.registry.asked if "/uploads/" in a.path][1::2]

    def asked(self) -> list[str]:
        """Everything but the question for the registry itself, without repository or session."""
        paths = [asked for asked in self.registry.asked if asked.path != "/v2/"]
        return [f"{asked.method} {asked.path.split('/')[-1]}" for asked in paths]


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    store = DirectoryStore(tmp_path / "registry", durable=False)
    with ExitStack() as stack:
        registry = stack.enter_context(FaultyRegistry(store))
        clock = FakeClock()
        transport = Transport(environ={}, insecure=frozenset({registry.host}), clock=clock)
        client = stack.enter_context(RegistryClient(transport, Credentials()))
        yield Target(registry.host, registry, store, client, clock, tmp_path / "registry")


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


def test_where_nothing_is_no_blob_is_asked_for(target: Target) -> None:
    destination = target.destination(empty=[target.one, target.two])
    target.put(destination, target.shared, target.one)
    assert target.asked() == ["POST ", f"PUT {target.sessions()[0]}"]
    target.put(destination, target.shared, target.two)
    assert target.asked()[2:] == ["POST "]


def test_what_is_only_said_to_have_a_blob_is_asked_about_after_a_mount(target: Target) -> None:
    first = target.destination(empty=[target.one])
    target.put(first, target.shared, target.one)
    holders = {target.shared.digest: [target.repository(target.one)]}
    destination = target.destination(empty=[target.two], holders=holders)
    before = len(target.asked())
    assert target.put(destination, target.shared, target.two) is Arrival.MOUNTED
    assert target.asked()[before:] == ["POST ", f"HEAD {target.shared.digest}"]
    path = str(target.repository(target.two)).partition("/")[2]
    target.registry.fault("HEAD", f"/v2/{path}/blobs/.*", answer(200, body=b"short"))
    with pytest.raises(RegistryError, match=f"instead of {target.shared.size}"):
        target.put(
            target.destination(empty=[target.two], holders=holders), target.shared, target.two
        )


def test_a_mount_that_is_not_there_after_all_is_sent(target: Target) -> None:
    def pretend(exchange: Exchange) -> Response:
        mounts = "mount" in exchange.request.query
        return answer(201)(exchange) if mounts else exchange.honest()

    target.registry.fault("POST", UPLOADS, pretend)
    holders = {target.shared.digest: [target.repository(target.one)]}
    destination = target.destination(holders=holders)
    assert target.put(destination, target.shared, target.two) is Arrival.SENT
    assert target.store.blob("lab/image-1", target.shared.digest) is not None


def test_a_mount_that_opens_an_upload_costs_no_request(target: Target) -> None:
    holders = {target.shared.digest: [Repository(target.registry.host, "lab/gone")]}
    destination = target.destination(empty=[target.two], holders=holders)
    assert target.put(destination, target.shared, target.two) is Arrival.SENT
    assert [asked.split()[0] for asked in target.asked()] == ["POST", "PUT"]


@pytest.mark.parametrize("of", ["one", "both"])
def test_an_image_costs_the_least_number_of_requests(target: Target, of: str) -> None:
    image = {"one": target.one, "both": target.both}[of]
    destination = target.destination(empty=[image])
    target.put_all(destination, image)
    destination.put_image(image)
    blobs, manifests = len(target.plan.blobs_of(image)), len(target.plan.manifests_of(image))
    assert len(target.asked()) == 2 * blobs + 2 * manifests + 1


def test_a_repository_that_must_be_created_is_asked_for_once(target: Target) -> None:
    unknown = answer(404, JSON, b'{"errors":[{"code":"NAME_UNKNOWN"}]}')
    target.registry.fault("POST", ".*/image-0/blobs/uploads/", unknown)
    destination = target.destination(empty=[target.one])
    for number in target.plan.blobs_of(target.one):
        with pytest.raises(RepositoryAbsent, match="NAME_UNKNOWN"):
            target.put(destination, target.plan.blobs[number], target.one)
    assert target.asked() == ["POST "]
    assert list(destination.absent) == [target.repository(target.one)]


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


def test_wrong_content_is_asked_for_once_more(target: Target) -> None:
    destination, blob = target.destination(), target.shared
    sound = target.content.by_digest[blob.digest]
    contents = [bytes(blob.size), sound]
    arrival = destination.put_blob(
        blob, destination.where(target.one), lambda offset: iter([contents.pop(0)[offset:]])
    )
    assert arrival is Arrival.SENT
    assert target.store.blob("lab/image-0", blob.digest) is not None
    assert contents == []


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
    assert target.asked()[before:] == [*steps, "PUT v1"]
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
    assert target.asked()[before:] == [*steps, "PUT v1", f"GET {root}"]
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


@pytest.mark.parametrize("late", [1, 3])
def test_a_manifest_that_shows_late_is_waited_for(target: Target, late: int) -> None:  # W28
    destination = target.destination()
    target.put_all(destination, target.one)
    target.registry.fault("GET", ".*/manifests/sha256:.*", missing(), hits=range(1, late + 1))
    destination.put_image(target.one)
    assert target.store.tags("lab/image-0") == ["v1"]
    assert 0 < sum(target.clock.slept) <= 30


def test_a_host_where_nothing_shows_is_waited_for_once(target: Target) -> None:
    destination = target.destination()
    for image in (target.one, target.two):
        target.put_all(destination, image)
    target.registry.fault("GET", ".*/manifests/sha256:.*", missing())
    for image in (target.one, target.two):
        with pytest.raises(RegistryError, match="not there unchanged"):
            destination.put_image(image)
    assert 25 <= sum(target.clock.slept) <= 30


def test_a_manifest_that_got_another_digest_is_not_waited_for(target: Target) -> None:  # W18
    destination = target.destination()
    target.put_all(destination, target.one)
    other = {"Docker-Content-Digest": "sha256:" + "0" * 64}
    target.registry.fault("PUT", ".*/manifests/sha256:.*", with_headers(other))
    target.registry.fault("GET", ".*/manifests/sha256:.*", missing())
    with pytest.raises(RegistryError, match="not there unchanged"):
        destination.put_image(target.one)
    assert target.clock.slept == []


def test_a_tag_is_read_back_where_its_put_names_no_digest(target: Target) -> None:
    destination = target.destination()
    target.put_all(destination, target.one)
    silent = with_headers({"Docker-Content-Digest": None})
    target.registry.fault("PUT", ".*/manifests/v1", silent)
    target.registry.fault("HEAD", ".*/manifests/v1", missing(), hits=(1,))
    destination.put_image(target.one)
    assert target.asked()[-3:] == ["PUT v1", "HEAD v1", "HEAD v1"]


# Garbage collection between a blob and its manifest: W14, W26


def _collecting(target: Target, image: Image, *, of: int = 1) -> Fault:
    """Lose blobs of an image, and then answer honestly."""
    digests = [target.plan.blobs[n].digest for n in target.plan.blobs_of(image)][:of]

    def fault(exchange: Exchange) -> Response:
        for path in target.folder.rglob("*"):
            if path.is_file() and any(path.name == digest.hex for digest in digests):
                path.unlink()
        return exchange.honest()

    return fault


@pytest.mark.parametrize("of", [1, 3])
@pytest.mark.parametrize("hit", [1, 2])
def test_what_was_collected_as_garbage_is_sent_again(target: Target, of: int, hit: int) -> None:
    destination = target.destination()
    target.put_all(destination, target.both)
    children = ".*/manifests/sha256:.*"
    target.registry.fault("PUT", children, _collecting(target, target.both, of=of), hits=(hit,))
    target.content.asked.clear()
    destination.put_image(target.both)
    for number in target.plan.blobs_of(target.both):
        assert target.store.blob("lab/both", target.plan.blobs[number].digest) is not None
    assert target.store.tags("lab/both") == ["v1"]
    assert {digest for digest, _ in target.content.asked} <= {
        target.plan.blobs[n].digest for n in target.plan.blobs_of(target.both)
    }
    assert 1 <= len(target.content.asked) <= of


def test_a_child_that_was_collected_as_garbage_is_put_again(target: Target) -> None:
    destination = target.destination()
    target.put_all(destination, target.both)
    child, *_, root = (target.plan.manifests[n] for n in target.plan.manifests_of(target.both))

    def collecting(exchange: Exchange) -> Response:
        target.store.delete_manifest("lab/both", child.digest)
        return exchange.honest()

    target.registry.fault("PUT", f".*/manifests/{root.digest}", collecting, hits=(1,))
    destination.put_image(target.both)
    assert target.store.manifest("lab/both", child.digest) is not None
    assert target.store.tags("lab/both") == ["v1"]


@needs_docker_registry
def test_garbage_that_a_real_registry_collected_is_sent_again(
    target: Target, tmp_path: Path
) -> None:
    real = DockerRegistry(tmp_path / "real")
    real.start()
    try:
        transport = Transport(environ={}, insecure=frozenset({real.host}))
        with RegistryClient(transport, Credentials(), writes=True) as client:
            there = replace(target, host=real.host, client=client)
            destination = there.destination()
            there.put_all(destination, there.both)
            real.collect_garbage()
            destination.put_image(there.both)
            (activity,) = client.activity()
            assert activity.retries == {"what was there has gone": 1}
            root = there.plan.manifests[there.both.root].digest
            assert client.manifest_digest(there.repository(there.both), "v1") == root
            again = there.destination()
            for number in there.plan.blobs_of(there.both):
                blob = there.plan.blobs[number]
                assert there.put(again, blob, there.both) is Arrival.PRESENT
    finally:
        real.kill()


def test_what_is_collected_again_and_again_is_given_up(target: Target) -> None:
    destination = target.destination()
    target.put_all(destination, target.one)
    target.registry.fault("PUT", ".*/manifests/sha256:.*", _collecting(target, target.one))
    with pytest.raises(RegistryError, match="MANIFEST_BLOB_UNKNOWN"):
        destination.put_image(target.one)
    assert target.registry.count("PUT", ".*/manifests/sha256:.*") == 3
    assert not target.store.tags("lab/image-0")


def test_what_each_host_was_given_is_counted(target: Target) -> None:
    target.registry.fault("PUT", ".*/blobs/uploads/.*", answer(503), hits=(1,))
    destination = target.destination()
    target.put_all(destination, target.one)
    destination.put_image(target.one)
    target.put(destination, target.shared, target.two)
    target.put(destination, target.shared, target.two)
    (activity,) = target.client.activity()
    sizes = [target.plan.blobs[n].size for n in target.plan.blobs_of(target.one)]
    assert activity.host == target.registry.host
    assert (activity.sent, activity.sent_bytes) == (len(sizes), sum(sizes))
    assert (activity.mounted, activity.present, activity.manifests_sent) == (1, 1, 1)
    assert activity.retries == {"answer 503": 1}
    assert activity.waited == pytest.approx(sum(target.clock.slept), abs=0.1)
    # Whether it has TLS is not asked on anybody's account.
    assert activity.requests == len(target.asked())
