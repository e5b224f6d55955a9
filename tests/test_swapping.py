"""Importing volumes from media that are exchanged, in any order, with interruptions."""

from __future__ import annotations

import itertools
import shutil
import signal
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

import airgap
from airgap.archive.medium import VolumeOptions
from airgap.archive.reader import ArchiveReader
from airgap.errors import ArchiveError, Interrupted
from airgap.progress import Silent
from airgap.registry.access import Access
from airgap.registry.directory import DirectoryStore
from tests.archive.test_volumes import larger_content, limit_for
from tests.support.command import start_airgap
from tests.support.faults import FaultyRegistry
from tests.support.plans import archive_of
from tests.support.promise import keeps

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Sequence
    from pathlib import Path


ORDERS = list(itertools.permutations(range(3)))


@dataclass(frozen=True)
class Ready:
    """Three volumes, and what a registry keeps when all of them have been imported."""

    whole: Path
    volumes: tuple[Path, ...]
    arrived: dict[str, bytes]


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Ready:
    folder = tmp_path_factory.mktemp("ready")
    whole = folder / "olm.tar"
    archive_of(whole, larger_content())
    (folder / "v").mkdir()
    airgap.split(whole, VolumeOptions(limit_for(whole)), output=folder / "v" / "olm.tar")
    with registry(folder / "calm") as destination:
        import_from([whole], destination, folder)
    return Ready(whole, tuple(sorted((folder / "v").iterdir())), keeps(folder / "calm"))


@contextmanager
def registry(folder: Path) -> Iterator[FaultyRegistry]:
    with FaultyRegistry(DirectoryStore(folder, durable=False)) as destination:
        yield destination


class Operator(Silent):
    """Puts in the next medium whenever that is asked for."""

    def __init__(self, drive: Path, media: Sequence[Path]) -> None:
        self.drive, self.media, self.said = drive, list(media), list[str]()
        self.next()

    def next(self) -> None:
        for file in self.drive.iterdir():
            file.unlink()
        if self.media:
            shutil.copy(self.media.pop(0), self.drive / "disk (1).TAR")

    def say(self, message: str) -> None:
        self.said.append(message)
        if " next" in message:
            self.next()


def import_from(
    paths: Sequence[Path],
    destination: FaultyRegistry,
    folder: Path,
    *,
    progress: Silent | None = None,
    stop: threading.Event | None = None,
) -> airgap.ImportResult:
    return airgap.import_archive(
        paths,
        destination.host,
        access=Access(insecure=True),
        manifests=airgap.ManifestsOptions(folder / "manifests"),
        wait=progress is not None,
        progress=progress or Silent(),
        stop=stop,
    )


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airgap.swapping.POLL_SECONDS", 0.02)


@pytest.mark.parametrize("order", ORDERS)
def test_volumes_arrive_one_at_a_time_in_every_order(
    ready: Ready, tmp_path: Path, order: tuple[int, ...]
) -> None:
    (drive := tmp_path / "drive").mkdir()
    operator = Operator(drive, [ready.volumes[n] for n in order])
    with registry(tmp_path / "registry") as destination:
        result = import_from([drive], destination, tmp_path, progress=operator)
    assert result.exit_status == 0
    assert keeps(tmp_path / "registry") == ready.arrived
    first, second, third = (n + 1 for n in order)
    lower, higher = sorted((second, third))
    assert operator.said == [
        f"volume {first} of 3 done, its medium can be taken out; volume {lower} of 3 next"
        f" (any order; to come: {lower}, {higher})",
        f"volume {second} of 3 done, its medium can be taken out; volume {third} of 3 next",
    ]


@pytest.mark.parametrize("order", ORDERS)
def test_after_an_interruption_the_registry_is_asked_what_is_there(
    ready: Ready, tmp_path: Path, order: tuple[int, ...]
) -> None:
    (drive := tmp_path / "drive").mkdir()
    stop = threading.Event()

    class Stopping(Operator):
        def next(self) -> None:
            if len(self.media) < 3:
                stop.set()
            super().next()

    media = [ready.volumes[n] for n in order]
    with registry(tmp_path / "registry") as destination:
        with pytest.raises(Interrupted):
            import_from([drive], destination, tmp_path, progress=Stopping(drive, media), stop=stop)
        with ArchiveReader(media[0]) as reader:
            cut = {n for n in range(len(reader.plan.blobs)) if reader.layout.is_cut(n)}
            alone = not cut.intersection(reader.here[0].blobs)
        # Of a volume that begins or ends with a piece the piece is needed once more.
        again = media[1:] if alone else [*media[1:], media[0]]
        operator = Operator(drive, again)
        result = import_from([drive], destination, tmp_path, progress=operator)
    assert result.exit_status == 0
    assert operator.media == []
    assert keeps(tmp_path / "registry") == ready.arrived


def test_several_volumes_at_once_need_no_more_than_the_others(ready: Ready, tmp_path: Path) -> None:
    (drive := tmp_path / "drive").mkdir()
    operator = Operator(drive, [ready.volumes[2]])
    with registry(tmp_path / "registry") as destination:
        import_from([drive, *ready.volumes[:2]], destination, tmp_path, progress=operator)
    assert operator.said == []
    assert keeps(tmp_path / "registry") == ready.arrived


def test_a_foreign_a_damaged_and_a_known_volume_are_told_and_waited_past(
    ready: Ready, tmp_path: Path
) -> None:
    (drive := tmp_path / "drive").mkdir()
    other = larger_content()
    other.images["quay.io/lab/more:v1"] = other.manifest(b"more")
    archive_of(tmp_path / "other.tar", other)
    cut = tmp_path / "cut.tar"
    cut.write_bytes(ready.volumes[1].read_bytes()[:-512])
    media = [ready.volumes[0], tmp_path / "other.tar", cut, ready.volumes[0], *ready.volumes[1:]]

    class Patient(Operator):
        def say(self, message: str) -> None:
            self.said.append(message)
            self.next()

    operator = Patient(drive, media)
    with registry(tmp_path / "registry") as destination:
        result = import_from([drive], destination, tmp_path, progress=operator)
    assert result.exit_status == 0
    assert keeps(tmp_path / "registry") == ready.arrived
    told = " | ".join(operator.said)
    for words in ("holds another archive, sha256:", "cut short", "volume 1 was here before"):
        assert words in told


def test_without_waiting_a_set_that_lacks_volumes_is_refused_before_the_first_request(
    ready: Ready, tmp_path: Path
) -> None:
    with registry(tmp_path / "registry") as destination:
        with pytest.raises(ArchiveError, match="these are not here: 2;"):
            import_from([ready.volumes[0], ready.volumes[2]], destination, tmp_path)
        assert destination.asked == []


def test_volumes_are_imported_in_any_order_and_under_any_names(
    ready: Ready, tmp_path: Path
) -> None:
    for name, volume in zip(("z", "disk (1).TAR", "a.txt"), ready.volumes, strict=True):
        shutil.copy(volume, tmp_path / name)
    (tmp_path / "photo.jpg").write_bytes(b"no archive")
    with registry(tmp_path / "r" / "registry") as destination:
        assert import_from([tmp_path], destination, tmp_path).exit_status == 0
    assert keeps(tmp_path / "r" / "registry") == ready.arrived


def test_waits_for_the_first_volume(ready: Ready, tmp_path: Path) -> None:
    drive = tmp_path / "drive"

    class Late(Silent):
        def say(self, message: str) -> None:
            assert "waiting for a volume" in message
            drive.mkdir()
            shutil.copy(ready.whole, drive)

    with registry(tmp_path / "registry") as destination:
        assert import_from([drive], destination, tmp_path, progress=Late()).exit_status == 0
    assert keeps(tmp_path / "registry") == ready.arrived


def test_a_damaged_piece_costs_its_image_and_names_the_volume(ready: Ready, tmp_path: Path) -> None:
    (drive := tmp_path / "drive").mkdir()
    with ArchiveReader(ready.volumes[1]) as reader:
        number, piece = reader.layout.pieces_in(reader.layout.volumes[1])[0]
        digest = reader.plan.blobs[number].digest
    damaged = bytearray(ready.volumes[1].read_bytes())
    damaged[piece.content + 9] ^= 1
    (tmp_path / "bad.tar").write_bytes(damaged)
    operator = Operator(drive, [ready.volumes[0], tmp_path / "bad.tar", ready.volumes[2]])
    with registry(tmp_path / "registry") as destination:
        result = import_from([drive], destination, tmp_path, progress=operator)
        assert result.exit_status == 4
        assert [(f.reason, f"{digest.hex}.002" in f.detail) for f in result.failed] == [
            ("damaged", True)
        ]
        assert str(drive / "disk (1).TAR") in result.failed[0].detail
        operator = Operator(drive, ready.volumes)
        again = import_from([drive], destination, tmp_path, progress=operator)
    assert again.exit_status == 0
    assert keeps(tmp_path / "registry") == ready.arrived


def test_a_manifest_that_is_damaged_on_one_medium_is_taken_from_another(
    ready: Ready, tmp_path: Path
) -> None:
    (drive := tmp_path / "drive").mkdir()
    with ArchiveReader(ready.volumes[0]) as reader:
        catalogs = [reader.plan.images[n] for n in reader.plan.catalog_images]
        image = next(i for i in reader.plan.images if i not in catalogs)
        place = reader.layout.manifest(image.root)
    damaged = bytearray(ready.volumes[0].read_bytes())
    damaged[place.content + 3] ^= 1
    (tmp_path / "bad.tar").write_bytes(damaged)
    operator = Operator(drive, [tmp_path / "bad.tar", *ready.volumes[1:]])
    with registry(tmp_path / "registry") as destination:
        assert import_from([drive], destination, tmp_path, progress=operator).exit_status == 0
    assert keeps(tmp_path / "registry") == ready.arrived


def waiting(folder: Path, drive: Path, host: str) -> tuple[object, ...]:
    return (
        "import", drive, host, "--insecure", "--to-manifests", folder / "manifests", "--wait",
    )  # fmt: skip


def until_the_next_is_asked_for(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    return next(line for line in process.stderr if " next" in line)


@pytest.mark.parametrize(
    "order",
    [ORDERS[3], *(pytest.param(o, marks=pytest.mark.slow) for o in ORDERS if o != ORDERS[3])],
)
def test_killed_while_media_are_exchanged_the_same_command_continues(
    ready: Ready, tmp_path: Path, order: tuple[int, ...]
) -> None:
    (drive := tmp_path / "drive").mkdir()
    with registry(tmp_path / "registry") as destination:
        typed = waiting(tmp_path, drive, destination.host)
        for number in order[:2]:
            Operator(drive, [ready.volumes[number]])
            with start_airgap(*typed, folder=tmp_path) as process:
                assert f"volume {number + 1} of 3 done" in until_the_next_is_asked_for(process)
                process.kill()
        assert DirectoryStore(tmp_path / "registry", durable=False).tags("lab/catalog") is None
        with start_airgap(*typed, folder=tmp_path) as process:
            # As the pieces of cut blobs are gone, any of the volumes may be asked for again.
            for number in range(3):
                Operator(drive, [ready.volumes[number]])
                while process.poll() is None and number < 2:
                    line = process.stderr.readline() if process.stderr else ""
                    if " next" in line or "was here before" in line:
                        break
            process.communicate(timeout=60)
        assert process.returncode == 0
    assert keeps(tmp_path / "registry") == ready.arrived


def test_a_signal_ends_the_waiting(ready: Ready, tmp_path: Path) -> None:
    (drive := tmp_path / "drive").mkdir()
    Operator(drive, [ready.volumes[1]])
    with registry(tmp_path / "registry") as destination:
        typed = waiting(tmp_path, drive, destination.host)
        with start_airgap(*typed, folder=tmp_path) as process:
            until_the_next_is_asked_for(process)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Run the same command again to continue" in said
