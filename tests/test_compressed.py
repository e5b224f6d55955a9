"""Exports that are compressed: the same content, continued after anything, never filled later."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.command import airgap
from tests.support.promise import keeps
from tests.support.site import Site, Supply, open_site
from tests.test_interruption import BLOB, KILLED, Victim

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def supply(tmp_path_factory: pytest.TempPathFactory) -> Supply:
    return Supply.make(tmp_path_factory.mktemp("supply"))


@pytest.fixture
def site(supply: Supply, tmp_path: Path) -> Iterator[Site]:
    with open_site(tmp_path, supply) as site:
        yield site


@pytest.fixture
def compressed(site: Site) -> Path:
    return site.folder / "olm.tar.zst"


def is_sound(archive: Path) -> bool:
    return airgap("verify", archive).status == 0


def left(site: Site) -> set[str]:
    return {path.name for path in site.folder.glob("olm*")}


def test_has_the_id_of_the_plain_one_and_imports_the_same(
    site: Site, compressed: Path, supply: Supply, tmp_path: Path
) -> None:
    plain, made = (
        site.export("--output", "json"),
        site.export("--output", "json", archive=compressed),
    )
    assert made.json["id"] == plain.json["id"]
    assert made.json["size"] == compressed.stat().st_size < plain.json["size"]
    assert site.import_(archive=compressed).status == 0
    (tmp_path / "other").mkdir()
    with open_site(tmp_path / "other", supply) as other:
        assert other.import_(archive=site.archive).status == 0
    assert keeps(site.folder / "destination") == keeps(other.folder / "destination")


def test_a_finished_one_is_left_alone(site: Site, compressed: Path) -> None:
    assert site.export(archive=compressed).status == 0
    before = compressed.read_bytes()
    again = site.export(archive=compressed)
    assert (again.status, "finished already" in again.err) == (0, True)
    assert compressed.read_bytes() == before
    assert left(site) == {"olm.tar.zst"}


@pytest.mark.parametrize("part", [0.0, 0.1, 0.3, 0.5, 0.8, 0.99, 1.0])
def test_one_that_was_cut_off_goes_on(site: Site, compressed: Path, part: float) -> None:
    assert site.export(archive=compressed).status == 0
    data = compressed.read_bytes()
    compressed.unlink()
    compressed.with_name("olm.tar.zst.partial").write_bytes(data[: int(len(data) * part)])
    begun = len(site.upstream.asked)
    assert site.export(archive=compressed).status == 0
    assert compressed.read_bytes() == data
    assert left(site) == {"olm.tar.zst"}
    if part == 1:
        assert not [one for one in site.upstream.asked[begun:] if "/blobs/" in one.path]


@pytest.mark.parametrize("blobs", [1, 20, 60])
def test_killed_the_same_command_continues(site: Site, compressed: Path, blobs: int) -> None:
    victim = Victim()
    site.upstream.fault("GET", BLOB, victim.somehow(blobs), hits=(blobs,))
    assert victim.run(site, *site.exporting(archive=compressed)) == KILLED
    site.upstream.heal()
    assert site.export(archive=compressed).status == 0
    assert is_sound(compressed)
    assert left(site) == {"olm.tar.zst"}


def test_a_hole_is_filled_by_a_new_one_that_reuses_it(site: Site, compressed: Path) -> None:
    lost = next(iter([*site.supply.lab.images.values()][-1].blobs))
    site.upstream.hide(lost)
    made = site.export(archive=compressed)
    assert made.status == 3
    assert "-o " in made.out
    assert "--reuse" in made.out
    assert "same command again" not in made.out
    site.upstream.heal()
    refused = site.export(archive=compressed)
    assert refused.status == 2
    assert "is not filled in place" in refused.err
    assert "olm-2.tar.zst" in refused.err
    whole = site.folder / "olm-2.tar.zst"
    again = site.export("--reuse", compressed, archive=whole)
    assert again.status == 0
    assert "fetched 1 blobs" in again.out
    assert is_sound(whole)


def test_another_question_is_refused(site: Site, compressed: Path) -> None:
    assert site.export(archive=compressed).status == 0
    data = compressed.read_bytes()
    compressed.unlink()
    compressed.with_name("olm.tar.zst.partial").write_bytes(data[: len(data) // 2])
    ran = site.export("--index-filter-by-os", "linux/.*", archive=compressed)
    assert ran.status == 2
    assert "was begun for another question" in ran.err


def test_volumes_are_not_compressed(site: Site, compressed: Path) -> None:
    assert (
        "volumes are not compressed" in site.export("--volume-size", "dvd", archive=compressed).err
    )


def test_a_damaged_table_is_told_and_costs_an_import_nothing(site: Site, compressed: Path) -> None:
    assert site.export(archive=compressed).status == 0
    data = bytearray(compressed.read_bytes())
    data[-9 - 12 * 20 + 4] ^= 0x80  # The size of one frame's content.
    compressed.write_bytes(data)
    ran = site.import_(archive=compressed)
    assert ran.status == 0
    assert "the table of frames at the end is damaged" in ran.err
    assert airgap("verify", compressed).status == 4
    assert airgap("inspect", compressed).status == 4
