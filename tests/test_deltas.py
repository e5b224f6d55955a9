"""Deltas: what the other side has stays behind, and is asked for there before any push."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from airgap.archive import tar
from airgap.archive.reader import ArchiveReader
from airgap.importer import import_archive
from airgap.manifests import ManifestsOptions
from airgap.receipt import read
from airgap.registry import retry
from airgap.registry.access import Access
from tests.support.command import airgap
from tests.support.docker_registry import docker_registry, needs_docker_registry
from tests.support.faults import answer
from tests.support.lab import Recipe
from tests.support.promise import keeps, same_bytes
from tests.support.site import Site, Supply, open_site
from tests.support.watched import ROOT, Cost, watched
from tests.test_swapping import Operator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airgap.digest import Digest
    from airgap.registry.http_server import Response
    from tests.support.faults import Exchange
    from tests.support.lab import Lab


RECIPE = Recipe(layer_bytes=64 << 10)
VOLUME = 1_400_000
"""A size of which there are several volumes, of the base and of the delta."""


@dataclass(frozen=True)
class Months:
    """One upstream in two months: whole archives of both, and what came back of the first.

    ``delta`` is the second month's since the receipt, ``destination`` what an import of the
    first has left in a registry.
    """

    supply: Supply
    last: Lab
    base: Path
    whole: Path
    delta: Path
    receipt: Path
    destination: Path

    @property
    def new_blobs(self) -> set[Digest]:
        """What the delta must hold: what is new, and the catalog's own."""
        new = _blobs(self.supply.lab) - _blobs(self.last)
        return new | set(self.supply.lab.catalog_image.blobs)

    @property
    def left_out(self) -> set[Digest]:
        return _blobs(self.supply.lab) - self.new_blobs


def _blobs(lab: Lab) -> set[Digest]:
    return {blob for image in (lab.catalog_image, *lab.images.values()) for blob in image.blobs}


@pytest.fixture(scope="module")
def months(tmp_path_factory: pytest.TempPathFactory) -> Months:
    folder = tmp_path_factory.mktemp("months")
    base, whole, delta = (folder / f"{name}.tar" for name in ("base", "whole", "delta"))
    last = Supply.make(folder / "upstream", RECIPE)
    with open_site(folder, last) as site:
        assert site.export("-q", archive=base).status == 0
        assert site.import_("-q", archive=base).status == 0
        # Laid aside with the name that its registry has, which is gone by now.
        host = site.destination.host
    receipt = folder / "receipt.json"
    shutil.copy(folder / "manifests" / "receipt.json", receipt)
    assert host in receipt.read_text()
    destination = (folder / "destination").rename(folder / "filled")
    now = Supply.make(folder / "upstream", replace(RECIPE, padding=16))
    with open_site(folder, now) as site:
        assert site.export("-q", archive=whole).status == 0
        assert site.export("-q", "--since", receipt, archive=delta).status == 0
    return Months(now, last.lab, base, whole, delta, receipt, destination)


@pytest.fixture
def site(months: Months, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A site whose destination has what the first month's import left there."""
    monkeypatch.setattr(retry, "_FIRST_DELAY", 0.001)
    shutil.copytree(months.destination, tmp_path / "destination")
    with open_site(tmp_path, months.supply) as site:
        yield site


@pytest.fixture
def empty(months: Months, tmp_path: Path) -> Iterator[Site]:
    """A site with an empty destination."""
    with open_site(tmp_path, months.supply) as site:
        yield site


def _held(archive: Path) -> set[Digest]:
    with ArchiveReader(archive) as reader:
        return {reader.plan.blobs[number].digest for number in reader.present}


def _assumed(archive: Path) -> set[Digest]:
    with ArchiveReader(archive) as reader:
        return {reader.plan.blobs[number].digest for number in reader.plan.assumed}


def _id(archive: Path) -> Digest:
    with ArchiveReader(archive) as reader:
        return reader.id


def test_a_delta_holds_what_is_new_and_the_catalog(months: Months) -> None:
    assert _held(months.delta) == months.new_blobs
    assert _assumed(months.delta) == months.left_out


def test_a_delta_is_as_large_as_its_blobs_manifests_and_inventory(months: Months) -> None:
    with ArchiveReader(months.delta) as reader:
        plan, layout = reader.plan, reader.layout
        blobs = [blob.size for blob in plan.blobs if not blob.held]
        manifests = [manifest.size for manifest in plan.manifests]
        fixed = [31, layout.inventory.size, layout.signature.size, len(layout.index)]
        entries = [*fixed, *manifests, *blobs]
        expected = sum(tar.BLOCK + tar.padded(size) for size in entries) + len(tar.END)
    assert months.delta.stat().st_size == expected
    sizes = months.supply.lab.content
    assert sum(blobs) == sum(sizes[digest] for digest in months.new_blobs)


def test_a_delta_names_the_archive_that_holds_what_it_leaves_out(months: Months) -> None:
    with ArchiveReader(months.delta) as reader:
        assert reader.plan.archives == (_id(months.base),)
        assert all(blob.held in ((), (0,)) for blob in reader.plan.blobs)


def test_an_older_archive_says_the_same_as_its_receipt(months: Months, empty: Site) -> None:
    assert empty.export("-q", "--since", months.base).status == 0
    assert same_bytes(empty.archive, months.delta)


def test_volumes_say_the_same_as_the_archive(months: Months, empty: Site) -> None:
    base = shutil.copy(months.base, empty.folder / "base.tar")
    assert airgap("split", base, "--volume-size", VOLUME).status == 0
    volumes = sorted(empty.folder.glob("base.0*.tar"))
    assert len(volumes) > 1
    since = [word for volume in reversed(volumes) for word in ("--since", volume)]
    assert empty.export("-q", *since).status == 0
    assert same_bytes(empty.archive, months.delta)


def test_what_is_in_a_volume_that_is_not_there_travels(months: Months, empty: Site) -> None:
    base = shutil.copy(months.base, empty.folder / "base.tar")
    assert airgap("split", base, "--volume-size", VOLUME).status == 0
    last = sorted(empty.folder.glob("base.0*.tar"))[-1]
    assert empty.export("-q", "--since", last).status == 0
    with ArchiveReader(last) as reader:
        seen = {reader.plan.blobs[n].digest for n in reader.present}
    assert _assumed(empty.archive) == months.left_out & seen != months.left_out


def test_sites_with_the_same_blobs_get_the_same_delta(months: Months, empty: Site) -> None:
    into = ("--insecure", "--to-manifests", empty.folder / "there")
    assert airgap("import", months.base, f"{empty.destination.host}/inside", *into).status == 0
    receipt = empty.folder / "there" / "receipt.json"
    assert receipt.read_text() != months.receipt.read_text()
    assert empty.export("-q", "--since", receipt).status == 0
    assert same_bytes(empty.archive, months.delta)
    content = empty.archive.read_bytes()
    assert b"inside" not in content
    assert empty.destination.host.encode() not in content


def test_nothing_but_manifests_catalog_and_inventory_travels_when_nothing_has_changed(
    months: Months, empty: Site
) -> None:
    into = ("--insecure", "--to-manifests", empty.folder / "there")
    assert airgap("import", months.whole, empty.destination.host, *into).status == 0
    ran = empty.export("--since", empty.folder / "there" / "receipt.json", "--output", "json")
    assert ran.status == 0
    catalog = months.supply.lab.catalog_image
    assert _held(empty.archive) == set(catalog.blobs)
    assert (ran.json["fetched"], ran.json["assumed"]) == (
        0,
        len(_blobs(months.supply.lab) - set(catalog.blobs)),
    )
    again = empty.import_("--output", "json")
    assert again.status == 0
    assert (again.json["sent"], again.json["manifests_sent"]) == (0, 0)


def test_of_several_each_archive_is_named(months: Months, empty: Site) -> None:
    since = ("--since", months.base, "--since", months.delta)
    third = empty.folder / "third.tar"
    assert empty.export("-q", *since, archive=third).status == 0
    with ArchiveReader(third) as reader:
        plan = reader.plan
        held = {blob.digest: {plan.archives[n] for n in blob.held} for blob in plan.blobs}
    catalog = set(months.supply.lab.catalog_image.blobs)
    assert all(held[digest] == {_id(months.base)} for digest in months.left_out)
    assert all(held[digest] == {_id(months.delta)} for digest in months.new_blobs - catalog)
    other = empty.folder / "other.tar"
    assert empty.export("-q", "--since", months.delta, archive=other).status == 0
    assert same_bytes(third, other)


def test_a_receipt_of_a_delta_names_the_archives_that_hold_the_blobs(
    months: Months, site: Site
) -> None:
    assert site.import_("-q", "--force-tags", archive=months.delta).status == 0
    receipt = read(site.manifests / "receipt.json")
    held = receipt.held()
    assert receipt.archive == str(_id(months.delta))
    assert all(held[str(digest)] == {str(_id(months.base))} for digest in months.left_out)
    catalog = set(months.supply.lab.catalog_image.blobs)
    assert all(
        held[str(digest)] == {str(_id(months.delta))} for digest in months.new_blobs - catalog
    )
    since = site.folder / "since.tar"
    assert site.export("-q", "--since", site.manifests / "receipt.json", archive=since).status == 0
    with ArchiveReader(since) as reader:
        assert set(reader.plan.archives) == {_id(months.base), _id(months.delta)}


def test_an_import_brings_the_delta_to_the_rest(months: Months, site: Site, tmp_path: Path) -> None:
    ran = site.import_("--output", "json", "--force-tags", archive=months.delta)
    assert ran.status == 0
    assert not ran.json["missing"] and not ran.json["failed"]
    assert ran.json["arrived"] == len(months.supply.lab.images) + 1
    assert _everything_is_there(months, site.destination.host, tmp_path)


def _everything_is_there(months: Months, host: str, folder: Path) -> bool:
    """Read back every manifest and every blob's length of the second month."""
    ran = airgap("receipt", host, months.whole, "--insecure", "-o", folder / "there.json")
    return ran.status == 0


@needs_docker_registry
def test_a_delta_round_trip_with_a_real_registry(months: Months, tmp_path: Path) -> None:
    into = ("--insecure", "--to-manifests", tmp_path / "manifests")
    with docker_registry(tmp_path / "registry") as host:
        assert airgap("import", months.base, host, *into).status == 0
        with open_site(tmp_path / "site", months.supply) as site:
            since = tmp_path / "manifests" / "receipt.json"
            assert site.export("--since", since).status == 0
            assert same_bytes(site.archive, months.delta)
        assert airgap("import", months.delta, host, *into, "--force-tags").status == 0
        assert _everything_is_there(months, host, tmp_path)


@needs_docker_registry
def test_a_real_registry_without_the_base_is_told_what_it_lacks(
    months: Months, tmp_path: Path
) -> None:
    with docker_registry(tmp_path / "registry") as host:
        into = ("--insecure", "--to-manifests", tmp_path / "manifests")
        ran = airgap("import", months.delta, host, *into)
    assert ran.status == 4
    assert all(str(digest) in ran.err for digest in months.left_out)


def test_without_the_base_it_names_what_is_missing_and_pushes_nothing(
    months: Months, empty: Site
) -> None:
    ran = empty.import_("-q", archive=months.delta)
    assert ran.status == 4
    lines = [line.split() for line in ran.err.splitlines() if line.startswith("  sha256:")]
    assert {line[0] for line in lines} == {str(digest) for digest in months.left_out}
    assert {line[-1] for line in lines} == {str(_id(months.base))}
    assert {one.method for one in empty.destination.asked} <= {"GET", "HEAD"}
    assert not empty.manifests.exists()


def test_one_blob_that_has_gone_is_named_with_its_image(months: Months, site: Site) -> None:
    image, blob = _of_one_image_alone(months)
    site.destination.hide(blob)
    ran = site.import_("-q", archive=months.delta)
    assert ran.status == 4
    assert "leaves 1 blob to earlier archives" in ran.err
    assert f"{blob} (" in ran.err
    assert f"of {image}, in archive {_id(months.base)}" in ran.err
    assert {one.method for one in site.destination.asked} <= {"GET", "HEAD"}


def _of_one_image_alone(months: Months) -> tuple[str, Digest]:
    """Return a blob that was left out and that one image alone needs, and that image."""
    images = months.supply.lab.images.values()
    for image in images:
        for blob in image.blobs:
            others = [other for other in images if blob in other.blobs and other is not image]
            if blob in months.left_out and not others:
                return image.reference, blob
    raise AssertionError("there is no such blob")


def test_what_is_in_another_namespace_is_found_by_its_receipt_and_mounted(
    months: Months, site: Site
) -> None:
    ran = site.import_("-q", namespace="/new", archive=months.delta)
    assert ran.status == 4
    receipt = _moved(months.receipt, site)
    ran = site.import_(
        "--output", "json", "--receipt", receipt, namespace="/new", archive=months.delta
    )
    assert ran.status == 0
    assert ran.json["mounted"] >= len(months.left_out)
    assert _everything_is_there(months, f"{site.destination.host}/new", site.folder)


def test_a_receipt_in_the_manifests_directory_is_found(months: Months, site: Site) -> None:
    site.manifests.mkdir()
    _moved(months.receipt, site).rename(site.manifests / "receipt.json")
    assert site.import_("-q", namespace="/new", archive=months.delta).status == 0


def test_a_bad_receipt_in_the_manifests_directory_is_told_and_not_used(
    months: Months, site: Site
) -> None:
    site.manifests.mkdir()
    (site.manifests / "receipt.json").write_text("{}\n")
    ran = site.import_("--force-tags", archive=months.delta)
    assert ran.status == 0
    assert "not used: " in ran.err


def test_a_bad_receipt_that_is_named_is_refused(months: Months, site: Site) -> None:
    (site.folder / "receipt.json").write_text("{}\n")
    ran = site.import_("--receipt", site.folder / "receipt.json", archive=months.delta)
    assert ran.status == 4
    assert site.destination.asked == []


def _moved(receipt: Path, site: Site) -> Path:
    """Return a receipt as it would be had the registry always had the name it has now."""
    host = json.loads(receipt.read_text())["registry"]
    moved = site.folder / "moved.json"
    moved.write_text(receipt.read_text().replace(host, site.destination.host))
    return moved


def _as_if_no_mount_was_asked_for(exchange: Exchange) -> Response:
    return exchange.answer(replace(exchange.request, query={}))


def test_what_is_not_mounted_is_fetched_from_the_other_repository(
    months: Months, site: Site
) -> None:
    site.destination.fault("POST", r".*/blobs/uploads/", _as_if_no_mount_was_asked_for)
    receipt = _moved(months.receipt, site)
    flags = ("--output", "json", "--receipt", receipt)
    ran = site.import_(*flags, namespace="/new", archive=months.delta)
    assert ran.json["failed"] == []
    assert ran.status == 0
    assert _everything_is_there(months, f"{site.destination.host}/new", site.folder)


def test_an_import_of_volumes_brings_the_same(months: Months, site: Site, tmp_path: Path) -> None:
    delta = shutil.copy(months.delta, tmp_path / "delta.tar")
    assert airgap("split", delta, "--volume-size", VOLUME).status == 0
    volumes = sorted(tmp_path.glob("delta.0*.tar"))
    assert len(volumes) > 1
    into = ("--insecure", "--force-tags", "--to-manifests", tmp_path / "manifests")
    assert airgap("import", *volumes, site.destination.host, *into).status == 0
    first = keeps(tmp_path / "destination")
    shutil.copytree(months.destination, tmp_path / "other" / "destination")
    with open_site(tmp_path / "other", months.supply) as other:
        assert other.import_("-q", "--force-tags", archive=months.delta).status == 0
        assert keeps(tmp_path / "other" / "destination") == first


def test_media_that_are_swapped_bring_a_delta(months: Months, site: Site, tmp_path: Path) -> None:
    shutil.copy(months.delta, tmp_path / "delta.tar")
    assert airgap("split", tmp_path / "delta.tar", "--volume-size", VOLUME).status == 0
    volumes = sorted(tmp_path.glob("delta.0*.tar"), reverse=True)
    assert len(volumes) > 1
    (drive := tmp_path / "drive").mkdir()
    options = ManifestsOptions(tmp_path / "manifests")
    operator = Operator(drive, volumes)
    result = import_archive(
        [drive], site.destination.host, wait=True, progress=operator, manifests=options,
        force_tags=True, access=Access(insecure=True),
    )  # fmt: skip
    assert result.failed == ()
    assert result.exit_status == 0
    assert operator.media == []
    assert _everything_is_there(months, site.destination.host, tmp_path)


def test_a_swapped_delta_is_refused_before_its_first_volume_is_pushed(
    months: Months, empty: Site, tmp_path: Path
) -> None:
    shutil.copy(months.delta, tmp_path / "delta.tar")
    assert airgap("split", tmp_path / "delta.tar", "--volume-size", VOLUME).status == 0
    ran = empty.import_("-q", "--wait", archive=tmp_path / "delta.001.tar")
    assert ran.status == 4
    assert {one.method for one in empty.destination.asked} <= {"GET", "HEAD"}


def test_an_import_that_was_interrupted_goes_on(months: Months, site: Site) -> None:
    site.destination.fault("PUT", r".*/manifests/.*", answer(403), hits=range(5, 99))
    assert site.import_("-q", "--force-tags", archive=months.delta).status == 5
    site.destination.heal()
    assert site.import_("-q", "--force-tags", archive=months.delta).status == 0
    assert _everything_is_there(months, site.destination.host, site.folder)


def test_who_may_not_ask_is_told_so(months: Months, site: Site) -> None:
    site.destination.fault("HEAD", r".*/blobs/.*", answer(403))
    ran = site.import_("-q", archive=months.delta)
    assert ran.status == 5
    assert "answers 403" in ran.err


@pytest.mark.parametrize(
    "share",
    [pytest.param(0.2, marks=pytest.mark.slow), 0.6, pytest.param(0.9, marks=pytest.mark.slow)],
)
def test_a_merge_that_is_killed_goes_on(months: Months, tmp_path: Path, share: float) -> None:
    def typed(archive: Path) -> tuple[object, ...]:
        return ("merge", months.base, months.delta, "-o", archive)

    def run(archive: Path, *, die_at: int = 0) -> int:
        command = watched(report, *typed(archive), die_at=die_at)
        environ = os.environ | {"TMPDIR": str(tmp_path)}
        return subprocess.run(command, cwd=ROOT, env=environ, check=False, timeout=60).returncode

    report, merged = tmp_path / "cost.json", tmp_path / "merged.tar"
    assert run(tmp_path / "calm.tar") == 0
    assert run(merged, die_at=int(Cost.read(report).changes * share)) < 0
    assert airgap(*typed(merged)).status == 0
    assert same_bytes(merged, months.whole)
    assert list(tmp_path.glob("merged.tar.*")) == []


def test_a_delta_is_exported_in_volumes(months: Months, empty: Site) -> None:
    assert empty.export("-q", "--since", months.receipt, "--volume-size", VOLUME).status == 0
    volumes = sorted(empty.folder.glob("olm.0*.tar"))
    assert len(volumes) > 1
    assert airgap("verify", *volumes).status == 0
    assert airgap("join", *volumes, "-o", empty.archive).status == 0
    assert same_bytes(empty.archive, months.delta)


def test_split_and_join_give_the_delta_back(months: Months, tmp_path: Path) -> None:
    delta = shutil.copy(months.delta, tmp_path / "delta.tar")
    assert airgap("split", delta, "--volume-size", VOLUME).status == 0
    volumes = sorted(tmp_path.glob("delta.0*.tar"))
    assert airgap("verify", *volumes).status == 0
    joined = tmp_path / "joined.tar"
    assert airgap("join", *reversed(volumes), "-o", joined).status == 0
    assert same_bytes(joined, months.delta)


def test_verify_says_that_a_delta_is_whole_and_what_it_needs(months: Months) -> None:
    ran = airgap("verify", "-q", months.delta)
    assert ran.status == 0
    assert f"whole, needs {len(months.left_out)} blobs of {_id(months.base)}" in ran.out
    (need,) = airgap("verify", months.delta, "--output", "json").json["needs"]
    sizes = months.supply.lab.content
    assert need == {
        "archives": [str(_id(months.base))],
        "blobs": len(months.left_out),
        "size": sum(sizes[digest] for digest in months.left_out),
    }


def test_inspect_says_what_a_delta_needs(months: Months) -> None:
    ran = airgap("inspect", months.delta)
    assert ran.status == 0
    assert f"needs     {len(months.left_out)} blobs of {_id(months.base)} (" in ran.out
    assert "needs" not in airgap("inspect", months.base).out


def test_what_a_delta_leaves_out_is_not_reused_from_it(months: Months, empty: Site) -> None:
    ran = empty.export("--reuse", months.delta, "--output", "json")
    assert ran.status == 0
    assert same_bytes(empty.archive, months.whole)
    assert ran.json["fetched"] == len(months.left_out)


def test_what_stays_behind_is_not_asked_for(months: Months, empty: Site) -> None:
    assert empty.export("-q", "--since", months.receipt).status == 0
    asked = {one.path.rpartition("/")[2] for one in empty.upstream.asked if "/blobs/" in one.path}
    assert asked == {str(digest) for digest in months.new_blobs}


def test_the_same_command_continues_and_another_since_is_refused(
    months: Months, empty: Site
) -> None:
    empty.upstream.fault("GET", r"/v2/(?!quay\.io/lab/).*/blobs/.*", answer(403))
    assert empty.export("-q", "--since", months.receipt, "--no-continue-on-error").status == 5
    empty.upstream.heal()
    ran = empty.export("-q")
    assert ran.status == 2
    assert "leaves out other blobs than --since says now" in ran.err
    assert empty.export("-q", "--since", months.receipt).status == 0
    assert same_bytes(empty.archive, months.delta)
    ran = empty.export("--since", months.base)
    assert ran.status == 0
    assert "nothing to do" in ran.err
    assert empty.export("-q").status == 2


def test_a_dry_run_says_how_much_stays_behind(months: Months, empty: Site) -> None:
    ran = empty.export("--dry-run", "--since", months.receipt, "--output", "json")
    sizes = months.supply.lab.content
    assert ran.json["assumed"] == len(months.left_out)
    assert ran.json["assumed_bytes"] == sum(sizes[digest] for digest in months.left_out)
    assert " on the other side, " in empty.export("--dry-run", "--since", months.receipt).out


def test_the_result_says_what_stays_behind(months: Months, empty: Site) -> None:
    out = empty.export("--since", months.receipt).out
    assert f"assumed   {len(months.left_out)} blobs, " in out


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [(None, 2, "there is no such file"), ("", 4, "no receipt"), ("{}", 4, "no receipt")],
)
def test_what_is_neither_receipt_nor_archive_is_refused_before_the_first_request(
    empty: Site, content: str | None, status: int, words: str
) -> None:
    since = empty.folder / "since"
    if content is not None:
        since.write_text(content)
    ran = empty.export("--since", since)
    assert ran.status == status
    assert words in ran.err
    assert str(since) in ran.err
    assert empty.upstream.asked == []


def test_what_a_hostile_receipt_says_reaches_no_terminal(empty: Site) -> None:
    since = empty.folder / "since"
    since.write_text('{"airgap-receipt":1,"archive":"\\u001b[2Jx","images":[\n],"missing":[\n]}\n')
    ran = empty.export("--since", since)
    assert ran.status == 4
    assert "\x1b" not in ran.text


def test_a_receipt_of_other_content_leaves_nothing_out(months: Months, empty: Site) -> None:
    receipt = json.loads(months.receipt.read_text())
    digests = {digest for image in receipt["images"] for digest in image["blobs"]}
    text = months.receipt.read_text()
    for digest in digests:
        text = text.replace(digest, f"sha256:{digest[:6:-1]}")
    (empty.folder / "since").write_text(text)
    assert empty.export("-q", "--since", empty.folder / "since").status == 0
    assert same_bytes(empty.archive, months.whole)


def test_merging_base_and_delta_gives_the_whole_archive(months: Months, tmp_path: Path) -> None:
    merged = tmp_path / "merged.tar"
    assert airgap("merge", months.base, months.delta, "-o", merged).status == 0
    assert same_bytes(merged, months.whole)
    before = merged.stat()
    assert airgap("merge", months.base, months.delta, "-o", merged).status == 0
    assert airgap("merge", months.base, "-o", merged).status == 2
    assert merged.stat() == before


def test_merging_takes_volumes_in_any_order(months: Months, tmp_path: Path) -> None:
    base = shutil.copy(months.base, tmp_path / "base.tar")
    assert airgap("split", base, "--volume-size", VOLUME).status == 0
    volumes = sorted(tmp_path.glob("base.0*.tar"), reverse=True)
    merged = tmp_path / "merged.tar"
    assert airgap("merge", *volumes, months.delta, "-o", merged).status == 0
    assert same_bytes(merged, months.whole)


def test_merging_names_what_is_in_none_and_writes_nothing(months: Months, tmp_path: Path) -> None:
    ran = airgap("merge", months.delta, "-o", tmp_path / "merged.tar")
    assert ran.status == 4
    assert all(str(digest) in ran.err for digest in months.left_out)
    assert str(_id(months.base)) in ran.err
    assert list(tmp_path.iterdir()) == []


def test_merging_names_the_archive_that_is_damaged(months: Months, tmp_path: Path) -> None:
    base = tmp_path / "base.tar"
    shutil.copy(months.base, base)
    with ArchiveReader(base) as reader:
        numbers = {blob.digest: n for n, blob in enumerate(reader.plan.blobs)}
        place = reader.layout.blob(numbers[min(months.left_out, key=str)])
    with base.open("r+b") as file:
        file.seek(place.content)
        file.write(b"\xff\xfe\xfd")
    merged = tmp_path / "merged.tar"
    ran = airgap("merge", base, months.delta, "-o", merged)
    assert ran.status == 4
    assert f"{base}: damaged: " in ran.err
    assert airgap("merge", months.base, months.delta, "-o", merged).status == 0
    assert same_bytes(merged, months.whole)


def test_a_receipt_is_made_of_a_registry_as_it_stands(months: Months, site: Site) -> None:
    made = site.folder / "made.json"
    ran = airgap("receipt", site.destination.host, months.base, "--insecure", "-o", made)
    assert ran.status == 0
    imported, found = (
        json.loads(_moved(months.receipt, site).read_text()),
        json.loads(made.read_text()),
    )
    assert found.pop("checked").startswith("every manifest read and hashed; every blob")
    imported.pop("checked")
    assert found == imported
    assert {one.method for one in site.destination.asked} == {"GET", "HEAD"}
    assert site.export("-q", "--since", made).status == 0
    assert same_bytes(site.archive, months.delta)


def test_one_volume_is_enough_for_a_receipt(months: Months, site: Site) -> None:
    shutil.copy(months.base, site.folder / "base.tar")
    assert airgap("split", site.folder / "base.tar", "--volume-size", VOLUME).status == 0
    made = [site.folder / "one.json", site.folder / "other.json"]
    for archive, file in zip((site.folder / "base.002.tar", months.base), made, strict=True):
        flags = ("--insecure", "-q", "-o", file)
        assert airgap("receipt", site.destination.host, archive, *flags).status == 0
    assert same_bytes(*made)


def test_a_receipt_says_what_is_missing(months: Months, site: Site) -> None:
    image, blob = _of_one_image_alone(months)
    tagged = next(i for i in months.last.images.values() if i.reference != image)
    site.destination.hide(blob)
    site.destination.hide(tagged.root)
    made = site.folder / "made.json"
    flags = ("--insecure", "-o", made, "--output", "json")
    ran = airgap("receipt", site.destination.host, months.base, *flags)
    assert ran.status == 3
    assert {(one["reference"], one["reason"]) for one in ran.json["missing"]} >= {
        (image, "missing-blob")
    }
    receipt = read(made)
    there = {one.reference for one in receipt.images}
    assert image not in there
    assert there.isdisjoint(one.reference for one in receipt.missing)
    assert str(blob) not in receipt.held()


def test_a_tag_that_has_moved_is_not_what_was_imported(months: Months, site: Site) -> None:
    assert site.import_("-q", "--force-tags", archive=months.delta).status == 0
    made = site.folder / "made.json"
    ran = airgap("receipt", site.destination.host, months.base, "--insecure", "-o", made)
    assert ran.status == 3
    catalog = months.last.catalog_image.reference
    assert catalog not in {one.reference for one in read(made).images}
    assert "wrong-content" in ran.out


def test_a_receipt_of_an_empty_registry_holds_nothing(months: Months, empty: Site) -> None:
    made = empty.folder / "made.json"
    ran = airgap("receipt", empty.destination.host, months.base, "--insecure", "-o", made)
    assert ran.status == 3
    assert read(made).images == ()
    assert read(made).held() == {}
    assert months.last.catalog_image.reference in ran.out
