"""Older archives in an export: what they hold is copied and not asked for."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click
import pytest

import airgap
from airgap.archive.reader import ArchiveReader, partial_path
from airgap.cli.typed import RememberingCommand, typed_again
from airgap.registry import retry
from tests.support.command import airgap as run_airgap
from tests.support.faults import answer
from tests.support.lab import CATALOG
from tests.support.promise import same_bytes
from tests.support.site import SMALL, Site, Supply, open_site
from tests.support.watched import ROOT, Cost, watched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from airgap.digest import Digest
    from tests.support.lab import Lab

BY_DIGEST = r"/v2/.*/manifests/sha256:.*"


@dataclass(frozen=True)
class Months:
    """Two states of one upstream and its archives: of last month, and as it is now."""

    supply: Supply
    last: Lab
    old: Path
    new: Path

    @property
    def new_blobs(self) -> set[Digest]:
        return _blobs(self.supply.lab) - _blobs(self.last)


def _blobs(lab: Lab) -> set[Digest]:
    return {blob for image in (lab.catalog_image, *lab.images.values()) for blob in image.blobs}


@pytest.fixture(scope="module")
def months(tmp_path_factory: pytest.TempPathFactory) -> Months:
    folder = tmp_path_factory.mktemp("months")
    last = Supply.make(folder / "upstream")
    old, new = folder / "old.tar", folder / "new.tar"
    with open_site(folder, last) as site:
        assert site.export("-q", archive=old).status == 0
    now = Supply.make(folder / "upstream", replace(SMALL, padding=3))
    shutil.rmtree(folder / "destination", ignore_errors=True)
    with open_site(folder, now) as site:
        assert site.export("-q", archive=new).status == 0
    return Months(now, last.lab, old, new)


@pytest.fixture
def site(months: Months, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(retry, "_FIRST_DELAY", 0.001)
    with open_site(tmp_path, months.supply) as site:
        shutil.copy(months.old, site.folder / "old.tar")
        yield site


@pytest.fixture
def old(site: Site) -> Path:
    return site.folder / "old.tar"


def asked_for(site: Site) -> set[str]:
    """The digests of the blobs that were asked for."""
    return {one.path.rpartition("/")[2] for one in site.upstream.asked if "/blobs/" in one.path}


def test_next_months_export_fetches_what_is_new_alone(
    months: Months, site: Site, old: Path
) -> None:
    ran = site.export("--reuse", old, "--output", "json")
    assert ran.status == 0
    assert same_bytes(site.archive, months.new)
    assert asked_for(site) == {str(digest) for digest in months.new_blobs}
    held = {str(d) for image in months.last.images.values() for d in image.manifests}
    by_digest = {
        one.path.rpartition("/")[2]
        for one in site.upstream.asked
        if re.fullmatch(BY_DIGEST, one.path)
    }
    assert by_digest and not by_digest & held
    new = months.new_blobs - set(months.supply.lab.catalog_image.blobs)
    reused = _blobs(months.supply.lab) - set(months.supply.lab.catalog_image.blobs) - new
    sizes = months.supply.lab.content
    assert ran.json["fetched"] == len(new)
    assert ran.json["fetched_bytes"] == sum(map(sizes.__getitem__, new))
    assert ran.json["reused"] == len(reused)
    assert ran.json["reused_bytes"] == sum(map(sizes.__getitem__, reused))
    assert 0 < ran.json["manifests_reused"] <= len(held)


def test_the_result_says_what_was_reused(site: Site, old: Path) -> None:
    ran = site.export("--reuse", old)
    assert re.search(r"^reused    \d+ blobs, [\d.]+ kB, and \d+ manifests$", ran.out, re.MULTILINE)
    assert re.search(r"^copying \d+ of \d+ blobs from older archives$", ran.err, re.MULTILINE)
    assert "reused" not in site.export(archive=site.folder / "without.tar").out


def test_a_finished_archive_says_how_a_new_one_reuses_it(months: Months, site: Site) -> None:
    archive = site.folder / "olm-2026-10.tar"
    shutil.copy(months.old, archive)
    typed = ("--max-per-registry", 4, "-v", "-v", "--continue-on-error")
    ran = site.export(*typed, archive=archive)
    assert ran.status == 2
    assert "it is now at" in ran.err
    command = shlex.split(ran.err.splitlines()[-1])
    new = site.folder / "olm-2026-11.tar"
    expected = [*map(str, site.exporting("--max-per-registry", 4, archive=new)), "-v", "-v"]
    assert command == ["airgap", *expected, "--continue-on-error", "--reuse", str(archive)]
    assert run_airgap(*command[1:]).status == 0
    assert same_bytes(new, months.new)
    assert same_bytes(archive, months.old)


def test_the_way_to_a_new_archive_is_told_to_programs_too(site: Site, old: Path) -> None:
    ran = site.export("--package", "etcd", "--output", "json", archive=old)
    assert ran.status == ran.json["exit_status"] == 2
    assert "now package etcd" in ran.json["error"]
    assert f"-o {site.folder / 'old-2.tar'} " in ran.json["hint"]
    with pytest.raises(airgap.AlreadyFinished):
        airgap.export([CATALOG], old, access=airgap.Access(registries_conf=site.registries_conf))


def test_a_name_that_is_taken_is_not_proposed(site: Site, old: Path) -> None:
    (site.folder / "old-2.tar").touch()
    partial_path(site.folder / "old-3.tar").touch()
    assert f"-o {site.folder / 'old-4.tar'} " in site.export(archive=old).err


@pytest.mark.parametrize(
    ("name", "further"),
    [
        ("olm", "olm-2"),
        ("olm-01.tar", "olm-02.tar"),
        ("olm-9.tar", "olm-10.tar"),
        ("olm-4.18.tar", "olm-4.18-2.tar"),
        ("olm-20261001.tar", "olm-20261001-2.tar"),
    ],
)
def test_the_name_that_is_proposed_counts_on(
    site: Site, old: Path, name: str, further: str
) -> None:
    archive = old.rename(site.folder / name)
    assert f"-o {site.folder / further} " in site.export(archive=archive).err


def test_the_command_is_told_whole_however_long_it_is(site: Site, old: Path) -> None:
    packages = [word for n in range(500) for word in ("--package", f"package-{n}")]
    command = site.export(*packages, archive=old).err.splitlines()[-1]
    assert shlex.split(command)[-2:] == ["--reuse", str(old)]


def test_a_link_to_the_archive_itself_is_refused(site: Site, old: Path) -> None:
    (site.folder / "link.tar").symlink_to(old)
    assert site.export("--reuse", site.folder / "link.tar", archive=old).status == 2
    (site.folder / "loop.tar").symlink_to(site.folder / "loop.tar")
    ran = site.export("--reuse", site.folder / "loop.tar")
    assert ran.status == 6
    assert "symbolic links" in ran.err


def test_a_plan_hole_is_mended_by_a_new_archive_that_asks_for_it_alone(
    months: Months, site: Site
) -> None:
    lab = months.supply.lab
    image = next(i for i in lab.images.values() if "@" in i.reference and len(i.manifests) > 1)
    site.upstream.hide(image.root)
    ran = site.export("-q")
    assert ran.status == 3
    site.upstream.heal()
    site.upstream.asked.clear()
    assert run_airgap(*shlex.split(ran.out.splitlines()[-1])[1:]).status == 0
    assert same_bytes(site.folder / "olm-2.tar", months.new)
    others = [one for one in (lab.catalog_image, *lab.images.values()) if one is not image]
    known = {d for one in others for d in (*one.manifests, *one.blobs)}
    asked = {one.path.rpartition("/")[2] for one in site.upstream.asked if "sha256:" in one.path}
    assert asked == {str(digest) for digest in (*image.manifests, *image.blobs)} - {
        str(digest) for digest in known
    }


def test_what_no_registry_has_any_more_is_in_the_new_archive(
    months: Months, site: Site, old: Path
) -> None:
    for image in months.last.images.values():
        for digest in (*image.blobs, *(image.manifests if "@" in image.reference else ())):
            site.upstream.hide(digest)
    assert site.export("-q", "--reuse", old).status == 0
    assert same_bytes(site.archive, months.new)


def _of_a_blob(reader: ArchiveReader) -> int:
    catalog = set(reader.plan.blobs_of(reader.plan.images[0]))
    number = next(n for n in range(len(reader.plan.blobs)) if n not in catalog)
    return reader.layout.blob(number).content


def _of_a_catalog_s_layer(reader: ArchiveReader) -> int:
    return reader.layout.blob(reader.plan.blobs_of(reader.plan.images[0])[1]).content


def _of_a_manifest(reader: ArchiveReader) -> int:
    image = next(i for i in reader.plan.images if "@" in i.reference)
    return reader.layout.manifest(image.root).content


def _of_a_blob_s_header(reader: ArchiveReader) -> int:
    return _of_a_blob(reader) - 500


@pytest.mark.parametrize(
    "place", [_of_a_blob, _of_a_blob_s_header, _of_a_catalog_s_layer, _of_a_manifest]
)
def test_what_is_damaged_in_the_old_archive_is_told_and_fetched(
    months: Months, site: Site, old: Path, place: Callable[[ArchiveReader], int]
) -> None:
    with ArchiveReader(old) as reader:
        position = place(reader)
    with old.open("r+b") as file:
        file.seek(position)
        (byte,) = file.read(1)
        file.seek(position)
        file.write(bytes([byte ^ 1]))
    ran = site.export("--reuse", old)
    assert ran.status == 0
    assert same_bytes(site.archive, months.new)
    assert sum(f"{old}: " in line and "damaged" in line for line in ran.err.splitlines()) == 1


def test_what_is_damaged_in_the_old_archive_and_gone_from_the_registry_is_a_hole(
    site: Site, old: Path
) -> None:
    with ArchiveReader(old) as reader:
        position = _of_a_blob(reader)
        numbers = range(len(reader.plan.blobs))
        (lost,) = (n for n in numbers if reader.layout.blob(n).content == position)
        digest = reader.plan.blobs[lost].digest
    with old.open("r+b") as file:
        file.seek(position)
        file.write(b"\xff\xfe\xfd")
    site.upstream.hide(digest)
    ran = site.export("--reuse", old, "--output", "json")
    assert ran.status == 3
    assert {hole["reason"] for hole in ran.json["missing"]} == {"missing-blob"}
    site.upstream.heal()
    assert site.export("-q", "--reuse", old).status == 0


def _absent(site: Site) -> Path:
    return site.folder / "nothing.tar"


def _unfinished(site: Site) -> Path:
    return partial_path(site.folder / "old.tar").with_name("half.tar.partial")


def _half(site: Site) -> Path:
    return site.folder / "half.tar"


def _other_file(site: Site) -> Path:
    return site.registries_conf


def _broken(site: Site) -> Path:
    broken = site.folder / "broken.tar"
    content = bytearray((site.folder / "old.tar").read_bytes())
    content[3000] ^= 1
    broken.write_bytes(content)
    return broken


@pytest.mark.parametrize(
    ("which", "status", "words"),
    [
        (_absent, 2, "there is no such file"),
        (_unfinished, 2, "only a finished archive can be reused"),
        (_half, 2, "not finished, there is only half.tar.partial"),
        (lambda site: site.archive, 2, "is the archive to be written"),
        (lambda site: site.folder / "." / "x" / ".." / "olm.tar", 2, "is the archive to be"),
        (_other_file, 4, "not an airgap archive"),
        (_broken, 4, "damaged"),
    ],
)
def test_what_is_no_whole_archive_is_refused_before_the_first_request(
    site: Site, old: Path, which: Callable[[Site], Path], status: int, words: str
) -> None:
    (site.folder / "x").mkdir()
    shutil.copy(old, site.folder / "half.tar.partial")
    given = which(site)
    ran = site.export("--reuse", old, "--reuse", given)
    assert ran.status == status
    assert words in ran.err
    assert given.name in ran.err
    assert site.upstream.asked == []
    assert not list(site.folder.glob("olm*"))


def test_a_begun_archive_goes_on_with_what_an_older_one_holds(
    months: Months, site: Site, old: Path
) -> None:
    site.upstream.fault("GET", r"/v2/quay\.io/(coreos|test)/.*/blobs/.*", answer(403))
    assert site.export("-q", "--no-continue-on-error").status == 5
    assert partial_path(site.archive).exists()
    site.upstream.heal()
    site.upstream.asked.clear()
    assert site.export("-q", "--reuse", old).status == 0
    assert same_bytes(site.archive, months.new)
    assert not asked_for(site) & {str(digest) for digest in _blobs(months.last)}


def test_blob_holes_are_filled_from_an_older_archive(site: Site, old: Path, months: Months) -> None:
    image = next(i for i in months.last.images.values() if "@" in i.reference)
    blob = list(image.blobs)[-1]
    site.upstream.hide(blob)
    assert site.export("-q").status == 3
    ran = site.export("-q", "--reuse", old, "--output", "json")
    assert (ran.status, ran.json["fetched"], ran.json["reused"]) == (0, 0, 1)
    assert same_bytes(site.archive, months.new)


def test_a_dry_run_says_how_much_is_there(months: Months, site: Site, old: Path) -> None:
    ran = site.export("--dry-run", "--reuse", old, "--output", "json")
    reused = _blobs(months.supply.lab) - months.new_blobs
    assert ran.json["reused"] == len(reused)
    assert ran.json["reused_bytes"] == sum(map(months.supply.lab.content.__getitem__, reused))
    text = site.export("--dry-run", "--reuse", old).out
    assert re.match(r"14 images, [\d.]+ kB in older archives, [\d.]+ kB to fetch\n", text)


@pytest.mark.parametrize(
    "share",
    [pytest.param(0.3, marks=pytest.mark.slow), 0.6, pytest.param(0.9, marks=pytest.mark.slow)],
)
def test_a_killed_run_goes_on(months: Months, site: Site, old: Path, share: float) -> None:
    typed = site.exporting("--reuse", old)
    report = site.folder / "cost.json"

    def run(*, die_at: int = 0, archive: Path) -> int:
        command = watched(report, *site.exporting("--reuse", old, archive=archive), die_at=die_at)
        environ = os.environ | {"TMPDIR": str(site.folder)}
        return subprocess.run(command, cwd=ROOT, env=environ, check=False, timeout=60).returncode

    assert run(archive=site.folder / "calm.tar") == 0
    changes = Cost.read(report).changes
    assert run(die_at=int(changes * share), archive=site.archive) < 0
    assert run_airgap(*typed).status == 0
    assert same_bytes(site.archive, months.new)


def typed_as(*words: str, **changes: str) -> str:
    told: list[str] = []

    @click.group()
    def program() -> None: ...

    @program.command("do", cls=RememberingCommand)
    @click.argument("things", nargs=-1)
    @click.option("-o", "--output", "target")
    @click.option("--each", multiple=True)
    @click.option("-q", "--quiet", is_flag=True)
    @click.option("-v", "--verbose", count=True)
    @click.option("--on/--off", default=True)
    @click.pass_context
    def do(context: click.Context, /, **_: object) -> None:
        told.append(typed_again(context, changes, "--more", "a b"))

    program.main(["do", *words], prog_name="program", standalone_mode=False)
    return told[0]


@pytest.mark.parametrize(
    ("typed", "again"),
    [
        ("a b -o x", "a b -o NEW"),
        ("-o x a --each 1 b --each=2", "a b -o NEW --each 1 --each 2"),
        ("a -qox", "a -q -o NEW"),
        ("a --output=x --output y -vv", "a -o NEW -v -v"),
        ("'a b' --off -o x --each '$HOME'", "'a b' --off -o NEW --each '$HOME'"),
        ("a --on -o x", "a --on -o NEW"),
    ],
)
def test_a_command_is_told_as_it_was_typed(typed: str, again: str) -> None:
    assert typed_as(*shlex.split(typed), target="NEW") == f"program do {again} --more 'a b'"
