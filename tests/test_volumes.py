"""Exports into volumes: what they are, and what may happen to them while they are written."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

import airgap
from airgap.archive.file import ArchiveFile
from airgap.archive.layout import Layout
from airgap.archive.medium import VolumeOptions
from airgap.archive.reader import ArchiveReader, partial_path
from airgap.digest import digest_of
from tests.support import command
from tests.support.disks import small_disk
from tests.support.lab import CATALOG, Recipe
from tests.support.promise import keeps
from tests.support.site import Site, Supply, open_site
from tests.test_interruption import (
    BLOB,
    KILLED,
    POINTS,
    Victim,
    run_to_its_death,
    run_watched,
    somewhere,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airgap.registry.http_server import Response
    from tests.support.faults import Exchange

RECIPE = Recipe(layer_bytes=100_000, huge_layer=3 << 20)


@dataclass(frozen=True)
class Whole:
    """The archive in one file and in volumes, and what its export in volumes has cost."""

    supply: Supply
    archive: Path
    limit: int
    volumes: dict[str, bytes]
    changes: int
    requests: int


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    supply = Supply.make(folder / "supply", RECIPE)
    with open_site(folder, supply) as site:
        assert site.export().status == 0
        with ArchiveReader(site.archive) as reader:
            limit = reader.layout.smallest_limit + 200_000
        (folder / "v").mkdir()
        airgap.split(site.archive, VolumeOptions(limit), output=folder / "v" / "olm.tar")
        (folder / "calm").mkdir()
        begun = len(site.upstream.asked)
        calm = site.exporting(*_sized(limit), archive=folder / "calm" / "olm.tar")
        cost = run_watched(folder, *calm)
        requests = len(site.upstream.asked) - begun
    whole = Whole(supply, site.archive, limit, volumes_in(folder / "v"), cost.changes, requests)
    assert len(whole.volumes) > 3
    assert volumes_in(folder / "calm") == whole.volumes
    return whole


def _sized(limit: int) -> tuple[object, ...]:
    return ("--volume-size", limit)


def volumes_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def site(whole: Whole, tmp_path: Path) -> Iterator[Site]:
    with open_site(tmp_path, whole.supply) as site:
        yield site


def assert_whole(site: Site, whole: Whole) -> None:
    """The volumes are there, as a split of the whole archive gives them, and nothing else."""
    left = {path.name: path.read_bytes() for path in site.folder.glob("olm.*")}
    assert left.keys() == whole.volumes.keys()
    assert left == whole.volumes


@pytest.mark.parametrize("connections", [1, 8])
def test_volumes_are_those_that_a_split_gives(whole: Whole, site: Site, connections: int) -> None:
    ran = site.export(*_sized(whole.limit), "--max-per-registry", connections)
    assert ran.status == 0
    count = len(whole.volumes)
    assert f"volumes   {count}: olm.001.tar to olm.{count:03}.tar" in ran.out
    assert_whole(site, whole)
    again = site.export(*_sized(whole.limit))
    assert again.status == 0
    assert "finished already" in again.err
    assert_whole(site, whole)


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_request_the_same_command_continues(
    whole: Whole, site: Site, point: int
) -> None:
    victim = Victim()
    moment = somewhere(point, whole.requests)
    site.upstream.fault(".*", ".*", victim.somehow(point), hits=(moment,))
    assert victim.run(site, *site.exporting(*_sized(whole.limit))) == KILLED
    site.upstream.heal()
    assert site.export(*_sized(whole.limit)).status == 0
    assert_whole(site, whole)


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_change_to_a_file_the_same_command_continues(
    whole: Whole, site: Site, point: int
) -> None:
    moment = somewhere(point, whole.changes * 9 // 10)  # Not every run has as many.
    typed = site.exporting(*_sized(whole.limit))
    assert run_to_its_death(site, moment, *typed) == KILLED
    assert site.export(*_sized(whole.limit)).status == 0
    assert_whole(site, whole)


@pytest.mark.parametrize("point", POINTS)
def test_a_split_that_is_killed_continues(whole: Whole, site: Site, point: int) -> None:
    shutil.copy(whole.archive, site.folder / "whole.tar")
    typed = ("split", site.folder / "whole.tar", *_sized(whole.limit), "-o", site.archive)
    changes = run_watched(site.folder, *typed).changes
    for path in site.folder.glob("olm.*"):
        path.unlink()
    assert run_to_its_death(site, somewhere(point, changes * 9 // 10), *typed) == KILLED
    assert airgap_run(*typed) == 0
    assert_whole(site, whole)


def airgap_run(*typed: object) -> int:
    return command.airgap(*typed).status


class Carrier:
    """Carries every finished volume away when a medium is asked for."""

    def __init__(self, disk: Path, away: Path) -> None:
        self.disk, self.away, self.asked = disk, away, list[str]()
        away.mkdir()

    def __call__(self, told: str = "") -> None:
        self.asked.append(told)
        for volume in self.disk.glob("*.tar"):
            shutil.move(volume, self.away / volume.name)


def test_an_operator_who_is_asked_changes_media(whole: Whole, site: Site) -> None:
    with small_disk(site.folder / "disk", whole.limit + 300_000) as disk:
        carrier = Carrier(disk, site.folder / "away")
        result = airgap.export(
            [CATALOG],
            site.archive,
            access=airgap.Access(registries_conf=site.registries_conf),
            volumes=VolumeOptions(whole.limit, (disk,), carrier),
        )
        carrier()
    assert result.exit_status == 0
    assert len(carrier.asked) == len(whole.volumes)
    assert f"no room in {disk} for volume 2 of {len(whole.volumes)}" in carrier.asked[0]
    assert volumes_in(carrier.away) == whole.volumes
    assert list(site.folder.glob("olm.*")) == []


def test_where_nobody_can_be_asked_a_full_medium_ends_the_run_and_the_next_continues(
    whole: Whole, site: Site
) -> None:
    with small_disk(site.folder / "disk", whole.limit + 300_000) as disk:
        carrier = Carrier(disk, site.folder / "away")
        for number in range(2, len(whole.volumes) + 1):
            ran = site.export(*_sized(whole.limit), "--volume-dir", disk)
            assert ran.status == 6
            assert f"no room in {disk} for volume {number} of {len(whole.volumes)}" in ran.err
            assert f"it continues with volume {number}" in ran.err
            carrier()
        assert site.export(*_sized(whole.limit), "--volume-dir", disk).status == 0
        carrier()
    assert volumes_in(carrier.away) == whole.volumes
    assert list(site.folder.glob("olm.*")) == []


def test_what_a_carried_volume_holds_is_not_fetched_again(whole: Whole, site: Site) -> None:
    with small_disk(site.folder / "disk", whole.limit + 300_000) as disk:
        carrier = Carrier(disk, site.folder / "away")
        for _ in whole.volumes:
            site.export(*_sized(whole.limit), "--volume-dir", disk)
            carrier()
    fetched = [asked.path for asked in site.upstream.asked if "/blobs/sha256:" in asked.path]
    blobs = {digest for image in whole.supply.lab.images.values() for digest in image.blobs}
    whole_again = [path for path in fetched if fetched.count(path) > 1]
    assert len(set(fetched)) >= len(blobs)
    # What was under way when a run ended is asked for once more, from where it was.
    assert len(set(whole_again)) <= 4 * len(whole.volumes)


def test_several_directories_are_filled_one_after_the_other(whole: Whole, site: Site) -> None:
    with (
        small_disk(site.folder / "a", 2 * whole.limit + 300_000) as first,
        small_disk(site.folder / "b", 20 * whole.limit) as second,
    ):
        into = ("--volume-dir", first, "--volume-dir", second)
        assert site.export(*_sized(whole.limit), *into).status == 0
        assert [*volumes_in(first)] and sorted(volumes_in(first)) == sorted(whole.volumes)[:2]
        assert volumes_in(first) | volumes_in(second) == whole.volumes


def test_a_medium_that_fills_in_the_middle_is_told_and_the_run_continues(
    whole: Whole, site: Site
) -> None:
    with small_disk(site.folder / "disk", 20 * whole.limit) as disk:

        def fill(exchange: Exchange) -> Response:
            if not (disk / "filler").exists():
                with (disk / "filler").open("wb") as filler, suppress_full():
                    while True:
                        filler.write(bytes(1 << 16))
                        filler.flush()
            return exchange.honest()

        site.upstream.fault("GET", BLOB, fill, hits=range(8, 1000))
        ran = site.export(*_sized(whole.limit), "--volume-dir", disk)
        assert ran.status == 6
        assert "No space left" in ran.err
        (disk / "filler").unlink()
        site.upstream.heal()
        assert site.export(*_sized(whole.limit), "--volume-dir", disk).status == 0
        assert volumes_in(disk) == whole.volumes


@contextmanager
def suppress_full() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        assert error.strerror == "No space left on device"


def test_a_medium_that_vanishes_in_the_middle_is_told_and_another_one_takes_its_place(
    whole: Whole, site: Site
) -> None:
    with small_disk(site.folder / "disk", 20 * whole.limit) as disk:

        def vanish(exchange: Exchange) -> Response:
            if disk.is_mount():
                subprocess.run(["umount", "--lazy", str(disk)], check=True)
            return exchange.honest()

        site.upstream.fault("GET", BLOB, vanish, hits=(8,))
        ran = site.export(*_sized(whole.limit), "--volume-dir", disk)
        assert ran.status == 6
        assert str(disk) in ran.err
        assert list(disk.iterdir()) == []
        site.upstream.heal()
        with small_disk(disk, 20 * whole.limit):
            assert site.export(*_sized(whole.limit), "--volume-dir", disk).status == 0
            assert volumes_in(disk) == whole.volumes


def test_holes_are_filled_in_the_volumes_that_have_them(whole: Whole, site: Site) -> None:
    with ArchiveReader(whole.archive) as reader:
        plan = reader.plan
    catalogs = {n for i in plan.catalog_images for n in plan.blobs_of(plan.images[i])}
    others = set(range(len(plan.blobs))) - catalogs
    by_size = sorted(others, key=lambda n: plan.blobs[n].size)
    lost = [plan.blobs[by_size[-1]].digest, plan.blobs[by_size[0]].digest]
    for digest in lost:
        site.upstream.hide(digest)
    ran = site.export(*_sized(whole.limit))
    assert ran.status == 3
    volumes = sorted(site.folder.glob("olm.*.tar"))
    found = airgap.verify(volumes)
    assert (found.exit_status, found.damage) == (3, ())
    (joined := site.folder / "joined").mkdir()
    airgap.join(volumes, joined / "olm.tar")
    with ArchiveReader(joined / "olm.tar") as reader:
        assert {plan.blobs[n].digest for n in reader.holes} == set(lost)
    site.upstream.heal()
    assert site.export(*_sized(whole.limit)).status == 0
    assert_whole(site, whole)


def test_a_finished_volume_that_is_lost_without_its_state_is_written_again(
    whole: Whole, site: Site
) -> None:
    victim = Victim()
    site.upstream.fault("GET", BLOB, victim.before, hits=(30,))
    assert victim.run(site, *site.exporting(*_sized(whole.limit))) == KILLED
    for path in site.folder.glob("olm.001.tar*"):
        path.unlink()
    (site.folder / "olm.tar.state").unlink()
    site.upstream.heal()
    assert site.export(*_sized(whole.limit)).status == 0
    assert_whole(site, whole)


def test_volumes_too_small_are_refused_and_a_larger_size_needs_no_second_plan(
    whole: Whole, site: Site
) -> None:
    ran = site.export(*_sized(600_000))
    assert ran.status == 2
    assert "volumes of 600000 bytes are too small" in ran.err
    assert partial_path(site.archive).exists()
    assert site.export(*_sized(whole.limit)).status == 0
    assert_whole(site, whole)


def test_directories_without_a_size_are_refused_before_anything_is_asked(site: Site) -> None:
    ran = site.export("--volume-dir", site.folder)
    assert ran.status == 2
    assert "Say --volume-size" in ran.err
    assert site.upstream.asked == []


def test_another_size_than_the_begun_one_is_refused(whole: Whole, site: Site) -> None:
    victim = Victim()
    site.upstream.fault("GET", BLOB, victim.before, hits=(10,))
    assert victim.run(site, *site.exporting(*_sized(whole.limit))) == KILLED
    site.upstream.heal()
    ran = site.export(*_sized(whole.limit + 512))
    assert ran.status == 2
    assert f"was begun in volumes of {whole.limit} bytes" in ran.err
    assert site.export().status == 0  # It goes on as it was begun.
    assert_whole(site, whole)


def test_a_finished_archive_of_one_file_is_not_exported_again_in_volumes(
    whole: Whole, site: Site
) -> None:
    shutil.copy(whole.archive, site.archive)
    ran = site.export(*_sized(whole.limit))
    assert ran.status == 2
    assert "airgap split" in ran.err


def test_a_volume_of_another_archive_is_not_overwritten(whole: Whole, site: Site) -> None:
    name = sorted(whole.volumes)[1]
    shutil.copy(whole.archive, site.folder / name)
    before = digest_of((site.folder / name).read_bytes())
    shutil.copy(whole.archive, site.archive)
    ran = airgap_run("split", site.archive, *_sized(whole.limit))
    assert ran == 2
    assert digest_of((site.folder / name).read_bytes()) == before


@pytest.fixture
def folder(whole: Whole, tmp_path: Path) -> Path:
    """A directory with all volumes, under names that say nothing."""
    (folder := tmp_path / "media").mkdir()
    for number, content in enumerate(whole.volumes.values()):
        (folder / f"copy of disk {number}").write_bytes(content)
    return folder


def test_a_catalog_is_looked_into_wherever_its_volumes_are(
    whole: Whole, folder: Path, tmp_path: Path
) -> None:
    for command_line in (("list",), ("images",), ("query", "select name from package")):
        name, *rest = command_line
        expected = command.airgap("catalog", name, whole.archive, *rest)
        ran = command.airgap("catalog", name, folder, *rest)
        assert ran.out.replace(str(folder), str(whole.archive)) == expected.out
        assert expected.status == 0
    last = tmp_path / "last"
    last.write_bytes(whole.volumes[max(whole.volumes)])
    ran = command.airgap("catalog", "list", last)
    assert ran.status == 4
    assert "is in volume 1, which is not here" in ran.err
    assert "Name the other volumes too." in ran.err


def test_an_import_of_volumes_leaves_what_one_of_the_whole_leaves(
    whole: Whole, site: Site, folder: Path
) -> None:
    assert site.import_(archive=folder).status == 0
    from_volumes = keeps(site.folder / "destination")
    written = {path.name: path.read_bytes() for path in site.manifests.iterdir()}
    with open_site(folder, whole.supply) as other:
        ran = command.airgap(
            "import", whole.archive, other.destination.host, "--insecure",
            "--to-manifests", folder / "manifests",
        )  # fmt: skip
        assert ran.status == 0
        assert keeps(folder / "destination") == from_volumes
        for name, content in written.items():
            there = (folder / "manifests" / name).read_bytes()
            hosts = (other.destination.host.encode(), site.destination.host.encode())
            assert there.replace(*hosts) == content, name


def test_files_for_the_cluster_are_listed_from_volumes(
    whole: Whole, site: Site, folder: Path
) -> None:
    for archive, to in ((whole.archive, "a"), (folder, "b")):
        flags = ("--manifests-only", "--to-manifests", site.folder / to)
        assert command.airgap("import", archive, "registry.example.com", *flags).status == 0
    assert volumes_in(site.folder / "a") == volumes_in(site.folder / "b")
    (folder / "copy of disk 1").unlink()
    refused = command.airgap("import", folder, "registry.example.com", "--dry-run")
    assert refused.status == 4
    waiting = command.airgap("import", folder, "registry.example.com", "--dry-run", "--wait")
    assert waiting.status == 0


def test_a_new_export_takes_from_an_older_one_in_volumes(
    whole: Whole, site: Site, folder: Path
) -> None:
    assert site.export("--reuse", folder, "--output", "json").status == 0
    assert site.archive.read_bytes() == whole.archive.read_bytes()
    assert site.upstream.count("GET", BLOB) == 0


def test_after_a_power_cut_what_unfinished_volumes_hold_is_hashed_again(
    whole: Whole, site: Site
) -> None:
    victim = Victim()
    site.upstream.fault("GET", BLOB, victim.before, hits=(12,))
    assert victim.run(site, *site.exporting(*_sized(whole.limit))) == KILLED
    site.upstream.heal()
    partial = max(site.folder.glob("olm.0*.partial"), key=lambda path: path.stat().st_size)
    content = partial.read_bytes()
    number = int(partial.name.split(".")[1])
    with ArchiveReader(whole.archive) as reader:
        layout = Layout(reader.plan, reader.layout.inventory.size, reader.layout.index, whole.limit)
    _, place = next(
        (n, piece)
        for n, piece in layout.content(layout.volumes[number - 1])
        if not layout.is_cut(n) and piece.size > 100
    )
    # Its header says that it is there, and its content has been lost.
    damaged = place.header + bytes(place.size)
    partial.write_bytes(content[: place.offset] + damaged + content[place.offset + len(damaged) :])
    state = site.folder / "olm.tar.state"
    state.write_text(state.read_text().replace('"boot": "', '"boot": "another-'))
    assert site.export(*_sized(whole.limit)).status == 0
    assert_whole(site, whole)


def test_half_of_a_record_in_an_unfinished_volume_is_no_obstacle(whole: Whole, site: Site) -> None:
    victim = Victim()
    site.upstream.fault("GET", BLOB, victim.before, hits=(12,))
    assert victim.run(site, *site.exporting(*_sized(whole.limit))) == KILLED
    site.upstream.heal()
    for partial in site.folder.glob("olm.0*.partial"):
        with ArchiveFile(partial) as file:
            assert file.record is not None
            record = file.record.text()
        content = partial.read_bytes()
        assert content.count(record) == 1
        partial.write_bytes(content.replace(record, record[:100] + b"}" + record[101:]))
        with ArchiveFile(partial) as file:
            assert file.record is None
    assert site.export(*_sized(whole.limit)).status == 0
    assert_whole(site, whole)
