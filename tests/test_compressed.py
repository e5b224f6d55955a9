"""Exports that are compressed: the same content, continued after anything, never filled later."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import zstandard

from airgap.archive.frames import MAGIC
from airgap.archive.reader import partial_path
from airgap.serving import serve_archive
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


@pytest.mark.parametrize("name", ["olm.tar.zst", "olm.tar"])
def test_volumes_are_not_compressed(site: Site, name: str) -> None:
    ran = site.export("--zstd", "--volume-size", "dvd", archive=site.folder / name)
    assert ran.status == 2
    assert "volumes are not compressed" in ran.err
    assert "airgap split" in ran.err


@pytest.mark.parametrize("flag", ["--zstd", "--zstd=1", "--zstd=19"])
def test_any_name_is_compressed_when_asked_for(site: Site, flag: str) -> None:
    assert site.export(archive=site.folder / "plain.tar").status == 0
    made = site.export(flag, "--window", "1MiB")
    assert made.status == 0
    data = site.archive.read_bytes()
    assert data.startswith(MAGIC)
    unpacked = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()
    assert unpacked == (site.folder / "plain.tar").read_bytes()
    assert "finished already" in site.export("--zstd").err


def test_a_harder_level_makes_it_smaller(site: Site, compressed: Path) -> None:
    sizes = []
    for level in (1, 19):
        assert site.export(f"--zstd={level}", archive=compressed).status == 0
        sizes.append(compressed.stat().st_size)
        compressed.unlink()
    assert sizes[1] < sizes[0]


@pytest.mark.parametrize("flags", [["--zstd=0"], ["--zstd=20"], ["--zstd", "a/b:c"]])
def test_refuses_what_is_no_level(flags: list[str]) -> None:
    ran = airgap("export", "-o", "olm.tar", *flags)
    assert ran.status == 2
    assert "Write --zstd=LEVEL" in ran.err


@pytest.mark.parametrize("begun", [[], ["--zstd"]])
@pytest.mark.parametrize("is_whole", [True, False])
def test_what_was_begun_in_one_form_goes_on_in_that_alone(
    site: Site, begun: list[str], is_whole: bool
) -> None:
    asked = [] if begun else ["--zstd"]
    assert site.export(*begun).status == 0
    data = site.archive.read_bytes()
    if not is_whole:
        site.archive.unlink()
        partial_path(site.archive).write_bytes(data[: len(data) // 2])
    (there,) = site.folder.glob("olm*")
    before = there.read_bytes()
    ran = site.export(*asked)
    assert ran.status == 2
    assert ("is there already" if is_whole else "was begun") in ran.err
    assert ("leave --zstd out" in ran.err) == (not begun and not is_whole)
    assert there.read_bytes() == before
    assert site.export(*begun).status == 0
    assert site.archive.read_bytes() == data


def test_the_command_for_a_new_one_says_zstd_too(site: Site) -> None:
    lost = next(iter([*site.supply.lab.images.values()][-1].blobs))
    site.upstream.hide(lost)
    made = site.export("--zstd")
    assert made.status == 3
    assert "--zstd" in made.out.partition("takes from this what it holds:")[2]


def test_join_and_merge_make_no_plain_archive_under_such_a_name(
    site: Site, compressed: Path
) -> None:
    assert site.export().status == 0
    for command in ("join", "merge"):
        ran = airgap(command, site.archive, "-o", compressed)
        assert ran.status == 2
        assert "a plain one is written" in ran.err


READING = {
    "verify": ["ARCHIVE"],
    "inspect": ["ARCHIVE"],
    "catalog list": ["ARCHIVE"],
    "split": ["ARCHIVE", "--volume-size", "dvd", "-o", "v.tar"],
    "join": ["ARCHIVE", "-o", "joined.tar"],
    "merge": ["ARCHIVE", "-o", "merged.tar"],
    "diff": ["ARCHIVE", "PLAIN"],
}


@pytest.mark.parametrize("name", ["olm.tar", "disk (1).TAR", "olm"])
@pytest.mark.parametrize("command", READING)
def test_it_is_known_by_its_first_bytes_under_any_name(
    ready: Path, tmp_path: Path, command: str, name: str
) -> None:
    archive = tmp_path / name
    archive.write_bytes((ready / "olm.tar").read_bytes())
    plain = ready / "plain.tar"
    words = {"ARCHIVE": archive, "PLAIN": plain}
    folder = tmp_path / "out"
    folder.mkdir()
    arguments = [
        words.get(word) or (folder / word if word.endswith(".tar") else word)
        for word in READING[command]
    ]
    ran = airgap(*command.split(), *arguments)
    assert ran.status == 0, ran.err
    same = {"join": "joined.tar", "merge": "merged.tar"}
    if command in same:
        assert (folder / same[command]).read_bytes() == plain.read_bytes()
    if command == "split":
        assert airgap("join", folder, "-o", tmp_path / "again.tar").status == 0
        assert (tmp_path / "again.tar").read_bytes() == plain.read_bytes()


@pytest.fixture(scope="module")
def ready(supply: Supply, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a compressed archive, olm.tar, and the same, plain.tar."""
    with open_site(tmp_path_factory.mktemp("ready"), supply) as site:
        assert site.export("--zstd").status == 0
        assert site.export(archive=site.folder / "plain.tar").status == 0
        return site.folder


def test_under_any_name_it_is_imported_reused_assumed_and_served(
    site: Site, ready: Path, tmp_path: Path
) -> None:
    archive = ready / "olm.tar"
    assert site.import_(archive=archive).status == 0
    reusing = site.export("--reuse", archive, archive=tmp_path / "reusing.tar")
    assert (reusing.status, "fetched 0 blobs" in reusing.out) == (0, True)
    delta = site.export("--since", archive, "--output", "json", archive=tmp_path / "delta.tar")
    assert (delta.status, delta.json["fetched"]) == (0, 0)
    with serve_archive([archive], say=print) as served:
        assert served.missing == ()


def test_split_names_volumes_without_the_suffix(ready: Path, tmp_path: Path) -> None:
    archive = tmp_path / "olm.tar.zst"
    archive.write_bytes((ready / "olm.tar").read_bytes())
    assert airgap("split", archive, "--volume-size", "dvd").status == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["olm.001.tar", "olm.tar.zst"]


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
