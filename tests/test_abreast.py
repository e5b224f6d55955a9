"""A large blob of a stream that several repositories want, where mounts work and where not."""

from __future__ import annotations

import random
import shlex
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

import airgap
from airgap import abreast, limits
from airgap.archive.reader import ArchiveReader
from airgap.errors import IntegrityError, RegistryError
from airgap.registry.access import Access
from airgap.registry.directory import DirectoryStore
from tests.support.faults import FaultyRegistry, reset_sent, stall
from tests.support.plans import Content, archive_of
from tests.support.promise import keeps
from tests.support.streams import piped

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airgap.digest import Digest
    from airgap.registry.http_server import Response
    from tests.support.faults import Exchange, Fault

LARGE = 4 * limits.MIB
WINDOW = limits.MIB


@dataclass(frozen=True)
class Ready:
    """An archive in which several images share a large layer, ``large`` bytes from ``at`` on."""

    path: Path
    large: Digest
    at: int
    calm: dict[str, bytes]

    @property
    def data(self) -> bytes:
        return self.path.read_bytes()


def made(folder: Path, sharing: int, *, teaching: bool) -> Ready:
    """Make one; only with ``teaching`` there is another shared layer, a small one before it."""
    folder.mkdir()
    content = Content()
    content.images["quay.io/lab/catalog:v1"] = content.manifest(b"catalog", b"its layer")
    chance = random.Random(sharing)
    small, large = chance.randbytes(100), chance.randbytes(LARGE)
    for n in range(sharing):
        layers = [small, large] if teaching else [large]
        content.images[f"quay.io/lab/sharing-{n}:v1"] = content.manifest(b"%d" % n, *layers)
    archive_of(folder / "olm.tar", content)
    with ArchiveReader(folder / "olm.tar") as reader:
        number = max(range(len(reader.plan.blobs)), key=lambda n: reader.plan.blobs[n].size)
        at, digest = reader.layout.blob(number).content, reader.plan.blobs[number].digest
    with FaultyRegistry(DirectoryStore(folder / "calm", durable=False)) as registry:
        result = take(folder / "olm.tar", registry, folder)
        assert result.exit_status == 0
    return Ready(folder / "olm.tar", digest, at, keeps(folder / "calm"))


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Ready:
    return made(tmp_path_factory.mktemp("ready") / "3", 3, teaching=True)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[FaultyRegistry]:
    with FaultyRegistry(DirectoryStore(tmp_path / "registry", durable=False)) as registry:
        yield registry


def no_mounts(exchange: Exchange) -> Response:
    return exchange.answer(replace(exchange.request, query={}))


def of_large(ready: Ready, fault: Fault, times: int = 1000) -> Fault:
    """Let a fault happen to requests about the large layer alone, so many times."""
    left = iter(range(times))

    def some(exchange: Exchange) -> Response:
        asked = exchange.request
        is_meant = str(ready.large) in (asked.query.get("digest"), asked.path.rpartition("/")[2])
        is_due = is_meant and next(left, None) is not None
        return fault(exchange) if is_due else exchange.honest()

    return some


def take(
    archive: Path | bytes, registry: FaultyRegistry, folder: Path, connections: int = 32
) -> airgap.ImportResult:
    data = archive if isinstance(archive, bytes) else archive.read_bytes()
    with piped(data) as stream:
        return airgap.import_archive(
            stream,
            registry.host,
            access=Access(insecure=True, connections=connections),
            manifests=airgap.ManifestsOptions(folder / "manifests"),
            window=WINDOW,
        )


def sent_and_read_back(registry: FaultyRegistry, digest: Digest) -> tuple[int, int]:
    """Return how many uploads of a blob there were, and how often it was fetched again."""
    uploads = sum(
        one.method == "PUT" and one.query.get("digest") == str(digest) for one in registry.asked
    )
    return uploads, registry.count("GET", f".*/blobs/{digest}")


def test_where_mounts_work_it_is_sent_once(
    ready: Ready, registry: FaultyRegistry, tmp_path: Path
) -> None:
    assert take(ready.path, registry, tmp_path).exit_status == 0
    assert keeps(tmp_path / "registry") == ready.calm
    assert sent_and_read_back(registry, ready.large) == (1, 0)


def test_where_they_are_refused_it_is_sent_to_each_while_it_passes(
    ready: Ready, registry: FaultyRegistry, tmp_path: Path
) -> None:
    registry.fault("POST", ".*", no_mounts)
    result = take(ready.path, registry, tmp_path)
    assert (result.exit_status, result.mounted) == (0, 0)
    assert keeps(tmp_path / "registry") == ready.calm
    assert sent_and_read_back(registry, ready.large) == (3, 0)


def test_nothing_of_it_waits_in_a_temporary_file(
    ready: Ready, registry: FaultyRegistry, tmp_path: Path
) -> None:
    registry.fault("POST", ".*", no_mounts)
    into = [registry.host, "--insecure", "--to-manifests", str(tmp_path / "manifests")]
    command = [sys.executable, "-m", "airgap", "import", "-", *into, "--window", "1MiB"]
    blocks = 2 * WINDOW // 512
    with ready.path.open("rb") as stream:
        ran = subprocess.run(
            ["sh", "-c", f"ulimit -f {blocks}; exec {shlex.join(command)}"],
            stdin=stream, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert 512 * blocks < LARGE
    assert keeps(tmp_path / "registry") == ready.calm


@pytest.mark.parametrize("mounts", [True, False])
def test_where_it_is_not_known_yet_the_others_take_it_from_the_first(
    registry: FaultyRegistry, tmp_path: Path, mounts: bool
) -> None:
    ready = made(tmp_path / "ready", 3, teaching=False)
    if not mounts:
        registry.fault("POST", ".*", no_mounts)
    assert take(ready.path, registry, tmp_path).exit_status == 0
    assert keeps(tmp_path / "registry") == ready.calm
    assert sent_and_read_back(registry, ready.large) == ((1, 0) if mounts else (3, 2))


def test_no_more_uploads_at_once_than_the_registry_is_given(
    ready: Ready, registry: FaultyRegistry, tmp_path: Path
) -> None:
    registry.fault("POST", ".*", no_mounts)
    assert take(ready.path, registry, tmp_path, connections=2).exit_status == 0
    assert keeps(tmp_path / "registry") == ready.calm
    assert sent_and_read_back(registry, ready.large) == (3, 1)


def test_one_upload_that_breaks_off_does_not_hurt_the_others(
    ready: Ready, registry: FaultyRegistry, tmp_path: Path
) -> None:
    registry.fault("POST", ".*", no_mounts)
    registry.fault("PUT", ".*/sharing-1/blobs/.*", of_large(ready, reset_sent(2 << 20), times=1))
    assert take(ready.path, registry, tmp_path).exit_status == 0
    assert keeps(tmp_path / "registry") == ready.calm
    assert sent_and_read_back(registry, ready.large)[1] == 1


def test_uploads_that_all_break_off_cost_the_images_and_are_made_up_for(
    ready: Ready, registry: FaultyRegistry, tmp_path: Path
) -> None:
    registry.fault("POST", ".*", no_mounts)

    registry.fault("PUT", ".*", of_large(ready, reset_sent(2 << 20)))
    result = take(ready.path, registry, tmp_path)
    assert result.exit_status == RegistryError.exit_status
    assert {image.reference for image in result.failed} == {
        f"quay.io/lab/sharing-{n}:v1" for n in range(3)
    }
    assert all("has passed" in image.detail for image in result.failed)
    registry.heal()
    assert take(ready.path, registry, tmp_path).exit_status == 0
    assert keeps(tmp_path / "registry") == ready.calm


def test_one_that_does_not_begin_is_not_waited_for(
    ready: Ready, registry: FaultyRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(abreast, "_PATIENCE", 0.2)
    registry.fault("POST", ".*", no_mounts)

    registry.fault("HEAD", ".*/sharing-2/blobs/.*", of_large(ready, stall(3), times=1))
    assert take(ready.path, registry, tmp_path).exit_status == 0
    assert keeps(tmp_path / "registry") == ready.calm
    # It may have begun an upload before it learned that all had passed.
    assert sent_and_read_back(registry, ready.large) in [(3, 1), (4, 1)]


@pytest.mark.parametrize(("sharing", "mounts"), [(1, True), (3, True), (3, False)])
def test_damage_to_it_is_told_as_damage(
    registry: FaultyRegistry, tmp_path: Path, sharing: int, mounts: bool
) -> None:
    ready = made(tmp_path / "ready", sharing, teaching=True)
    if not mounts:
        registry.fault("POST", ".*", no_mounts)
    data = bytearray(ready.data)
    data[ready.at + 1000] ^= 1
    result = take(bytes(data), registry, tmp_path)
    assert result.exit_status == IntegrityError.exit_status
    assert len(result.failed) == sharing
    assert all("the content's digest is" in image.detail for image in result.failed)
    assert sent_and_read_back(registry, ready.large)[1] == 0


@pytest.mark.parametrize("part", [0.5, 0.9])
def test_a_stream_that_ends_within_it_costs_its_images(
    ready: Ready, registry: FaultyRegistry, tmp_path: Path, part: float
) -> None:
    registry.fault("POST", ".*", no_mounts)
    result = take(ready.data[: ready.at + int(LARGE * part)], registry, tmp_path)
    assert result.exit_status == IntegrityError.exit_status
    tagged = {name for name in keeps(tmp_path / "registry") if "sharing" in name and "_tag" in name}
    assert tagged == set()
