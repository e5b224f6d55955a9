"""Archives through pipes: sent and imported while they pass, whatever happens on the way."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

import airgap
from airgap import limits
from airgap.archive.medium import VolumeOptions
from airgap.archive.reader import ArchiveReader
from airgap.cli.progress import size
from airgap.errors import ArchiveError, RegistryError, UsageError
from airgap.oci import media_types
from airgap.registry.access import Access
from airgap.registry.directory import DirectoryStore
from tests.archive.test_volumes import larger_content, limit_for
from tests.support.command import airgap as run_airgap
from tests.support.docker_registry import docker_registry, needs_docker_registry
from tests.support.faults import FaultyRegistry, answer, cut, reset_sent
from tests.support.http_client import ask
from tests.support.lab import CATALOG, CATALOGS, Recipe, build_lab
from tests.support.plans import archive_of
from tests.support.promise import keeps
from tests.support.site import Site, Supply, open_site
from tests.support.streams import piped
from tests.support.upstream import RegistryUpstream

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from airgap.plan import Plan
    from airgap.registry.http_server import Response
    from tests.support.command import Ran
    from tests.support.faults import Exchange

ACCEPT = ",".join(media_types.ACCEPTED)

AIRGAP = [sys.executable, "-m", "airgap"]


def by_module(what: str) -> list[str]:
    """Return a command that does with the module what zstd would do."""
    program = "import sys, zstandard as z; "
    program += f"{what}.copy_stream(sys.stdin.buffer, sys.stdout.buffer)"
    return [sys.executable, "-c", program]


HAS_ZSTD = shutil.which("zstd") is not None
ZSTD = ["zstd", "-c"] if HAS_ZSTD else by_module("z.ZstdCompressor()")
UNZSTD = ["zstd", "-dc"] if HAS_ZSTD else by_module("z.ZstdDecompressor()")


@pytest.fixture(scope="module")
def supply(tmp_path_factory: pytest.TempPathFactory) -> Supply:
    recipe = Recipe(layer_bytes=100_000, huge_layer=3 << 20)
    return Supply.make(tmp_path_factory.mktemp("supply"), recipe)


@pytest.fixture
def site(supply: Supply, tmp_path: Path) -> Iterator[Site]:
    with open_site(tmp_path, supply) as site:
        yield site


def pipeline(*commands: Sequence[object], folder: Path) -> list[tuple[int, str]]:
    """Run commands with a pipe from each to the next; return how each ended, and its stderr."""
    running: list[subprocess.Popen[bytes]] = []
    with ExitStack() as stack:
        before: int | None = subprocess.DEVNULL
        for number, command in enumerate(commands):
            errors = stack.enter_context((folder / f"stderr-{number}").open("wb"))
            is_last = number == len(commands) - 1
            process = subprocess.Popen(
                [*map(str, command)],
                stdin=before,
                stdout=subprocess.DEVNULL if is_last else subprocess.PIPE,
                stderr=errors,
            )
            stack.callback(process.kill)
            if running and running[-1].stdout:
                running[-1].stdout.close()
            running.append(process)
            before = None if process.stdout is None else process.stdout.fileno()
        statuses = [process.wait(timeout=120) for process in running]
    told = [(folder / f"stderr-{number}").read_text() for number in range(len(commands))]
    print(*told, sep="\n---\n")
    return list(zip(statuses, told, strict=True))


def exporting(site: Site, *flags: object) -> list[object]:
    return [*AIRGAP, *site.exporting(*flags)[:2], "-o", "-", *site.exporting(*flags)[4:]]


def importing(site: Site, *flags: object) -> list[object]:
    into = ("--insecure", "--to-manifests", site.manifests)
    return [*AIRGAP, "import", "-", site.destination.host, *into, *flags]


def sent(site: Site, *flags: object) -> tuple[int, bytes, str]:
    ran = subprocess.run(
        [*map(str, exporting(site, *flags))], capture_output=True, check=False, timeout=120
    )
    return ran.returncode, ran.stdout, ran.stderr.decode()


class TestExport:
    @pytest.mark.parametrize("window", ["1MiB", "1GiB"])
    def test_what_leaves_is_the_file_and_what_is_said_goes_to_stderr(
        self, site: Site, window: str
    ) -> None:
        assert site.export().status == 0
        status, data, told = sent(site, "--window", window)
        assert status == 0
        assert data == site.archive.read_bytes()
        assert "archive   standard output (" in told
        assert not [path for path in site.folder.iterdir() if path.suffix in (".work", ".partial")]

    def test_compressed_it_is_the_compressed_file(self, site: Site) -> None:
        assert site.export("--zstd=5").status == 0
        status, data, told = sent(site, "--zstd=5")
        assert status == 0
        assert data == site.archive.read_bytes()
        assert f"archive   standard output ({size(len(data))})" in told
        for command in ("verify", "inspect"):
            ran = subprocess.run([*AIRGAP, command, "-"], input=data, check=False)
            assert ran.returncode == 0

    def test_a_small_blob_that_cannot_be_had_leaves_as_a_hole(self, site: Site) -> None:
        lost = next(iter([*site.supply.lab.images.values()][-1].blobs))
        site.upstream.hide(lost)
        status, data, told = sent(site)
        assert status == 3
        assert "MISSING from the archive" in told
        assert "run both sides again" in told
        with piped(data) as stream:
            seen = airgap.verify(stream)
        assert seen.exit_status == 3
        assert any(str(lost) in hole.detail for hole in seen.missing)

    def test_a_large_blob_that_breaks_off_is_a_hole_at_both_ends(self, site: Site) -> None:
        assert site.export().status == 0
        with ArchiveReader(site.archive) as reader:
            huge = max(reader.plan.blobs, key=lambda blob: blob.size)
            number = reader.plan.blobs.index(huge)
            hurt = [i.reference for i in reader.plan.images if number in reader.plan.blobs_of(i)]
        site.upstream.fault("GET", f".*/{huge.digest}", cut(1 << 20), hits=(1,))
        site.upstream.fault("GET", f".*/{huge.digest}", answer(404))
        status, data, told = sent(site, "--window", "1MiB")
        assert status == 3
        assert hurt[0] in told
        with piped(data) as stream:
            seen = airgap.verify(stream)
        assert [damage.images for damage in seen.damage] == [tuple(hurt)]

    def test_a_reader_that_goes_away_ends_it_with_a_sentence(self, site: Site) -> None:
        (status, told), _ = pipeline(exporting(site), ["head", "-c", "1000"], folder=site.folder)
        assert status == 6
        assert "standard output: nobody reads any more, after" in told
        assert "A stream does not resume" in told

    @pytest.mark.parametrize(
        ("flags", "why"),
        [
            (["--output", "json"], "not for JSON"),
            (["--volume-size", "1GB"], "--volume-size is about a file"),
            (["--dry-run"], "--dry-run is about a file"),
            (["--recheck"], "--recheck is about a file"),
            (["--window", "1000"], "less than 1 MiB"),
        ],
    )
    def test_refuses_what_cannot_be(self, site: Site, flags: list[str], why: str) -> None:
        ran = run_airgap("export", CATALOG, "-o", "-", *flags)
        assert ran.status == 2
        assert why in ran.err

    def test_refuses_a_window_for_a_file(self) -> None:
        assert (
            "--window is about -o -"
            in run_airgap("export", "a/b", "-o", "x", "--window", "1GB").err
        )

    def test_refuses_a_terminal(self, site: Site) -> None:
        master, slave = os.openpty()
        try:
            ran = subprocess.run(
                [*map(str, exporting(site))], stdout=slave, stderr=subprocess.PIPE, check=False
            )
        finally:
            os.close(master)
            os.close(slave)
        assert ran.returncode == 2
        assert b"standard output is a terminal" in ran.stderr


class TestThroughAPipe:
    def test_arrives_as_from_a_file(self, site: Site, supply: Supply, tmp_path: Path) -> None:
        assert site.export().status == 0
        (tmp_path / "other").mkdir()
        with open_site(tmp_path / "other", supply) as other:
            assert other.import_(archive=site.archive).status == 0
        ended = pipeline(exporting(site), importing(site), folder=site.folder)
        assert [status for status, _ in ended] == [0, 0]
        assert keeps(site.folder / "destination") == keeps(other.folder / "destination")

    def test_compressed_it_arrives_the_same(
        self, site: Site, supply: Supply, tmp_path: Path
    ) -> None:
        assert site.export().status == 0
        (tmp_path / "other").mkdir()
        with open_site(tmp_path / "other", supply) as other:
            assert other.import_(archive=site.archive).status == 0
        ended = pipeline(
            exporting(site, "--zstd", "--window", "1MiB"), importing(site), folder=site.folder
        )
        assert [status for status, _ in ended] == [0, 0]
        assert keeps(site.folder / "destination") == keeps(other.folder / "destination")

    def test_sent_once_more_nothing_is_pushed_again(self, site: Site) -> None:
        pipeline(exporting(site), importing(site), folder=site.folder)
        begun = len(site.destination.asked)
        ended = pipeline(exporting(site), importing(site), folder=site.folder)
        assert [status for status, _ in ended] == [0, 0]
        assert {one.method for one in site.destination.asked[begun:]} == {"HEAD", "GET"}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A docker-registry that serves a laboratory, and the directory that says how to find it."""
    folder = tmp_path_factory.mktemp("real")
    with docker_registry(folder / "upstream") as upstream:
        with RegistryUpstream(upstream) as registry:
            lab = build_lab(CATALOGS / "oc-test.db", registry, recipe=Recipe(layer_bytes=4096))
        (folder / "registries.conf").write_text(lab.registries_conf(upstream))
        yield folder, upstream


@needs_docker_registry
class TestBetweenRealRegistries:
    def send(self, folder: Path, *flags: str) -> list[object]:
        conf = folder / "registries.conf"
        return [*AIRGAP, "export", CATALOG, "-o", "-", "--registries-conf", conf, *flags]

    def take(self, destination: str, folder: Path) -> list[object]:
        into = ("--insecure", "--to-manifests", folder / "manifests")
        return [*AIRGAP, "import", "-", destination, *into]

    @pytest.mark.parametrize("flags", [[], ["--zstd"]])
    def test_export_into_import(
        self, real: tuple[Path, str], tmp_path: Path, flags: list[str]
    ) -> None:
        with docker_registry(tmp_path / "destination") as destination:
            ended = pipeline(
                self.send(real[0], *flags), self.take(destination, tmp_path), folder=tmp_path
            )
            assert [status for status, _ in ended] == [0, 0]
            assert_all_there(tmp_path / "manifests" / "mapping.txt", destination)

    def test_through_zstd(self, real: tuple[Path, str], tmp_path: Path) -> None:
        with docker_registry(tmp_path / "destination") as destination:
            ended = pipeline(
                self.send(real[0]), ZSTD, UNZSTD, self.take(destination, tmp_path), folder=tmp_path
            )
            assert [status for status, _ in ended] == [0, 0, 0, 0]
            assert_all_there(tmp_path / "manifests" / "mapping.txt", destination)

    @pytest.mark.parametrize("flags", [[], ["--zstd"]])
    def test_through_dd_that_loses_a_block(
        self, real: tuple[Path, str], tmp_path: Path, flags: list[str]
    ) -> None:
        sending = [*map(str, self.send(real[0], *flags))]
        whole = subprocess.run(sending, capture_output=True, check=True)
        data = tmp_path / "whole"
        data.write_bytes(whole.stdout)
        losing = ["sh", "-c", "dd bs=512 count=700; dd bs=512 count=1 of=/dev/null; dd bs=512"]
        with docker_registry(tmp_path / "destination") as destination:
            ended = pipeline(
                ["cat", data], losing, self.take(destination, tmp_path), folder=tmp_path
            )
            assert ended[-1][0] == 4
            assert_all_there(tmp_path / "manifests" / "mapping.txt", destination)


def assert_all_there(mapping: Path, host: str) -> None:
    """What a mapping says has arrived is what is there."""
    lines = [line for line in mapping.read_text().splitlines() if "=" in line]
    lines = [line for line in lines if not line.startswith("#")]
    assert lines
    for line in lines:
        repository, _, tag = line.partition("=")[2].removeprefix(f"{host}/").rpartition(":")
        found = ask(host, "GET", f"/v2/{repository}/manifests/{tag}", headers={"Accept": ACCEPT})
        assert found.status == 200, line


@dataclass(frozen=True)
class Ready:
    """An archive, its volumes, and what a registry keeps when it has been imported."""

    whole: bytes
    volumes: tuple[bytes, ...]
    plan: Plan
    arrived: dict[str, bytes]


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Ready:
    folder = tmp_path_factory.mktemp("ready")
    whole = folder / "olm.tar"
    content = larger_content()
    shared = content.by_digest[content.plan().blobs[-1].digest]
    content.images["quay.io/lab/again:v1"] = content.manifest(b"again", shared)
    archive_of(whole, content)
    (folder / "v").mkdir()
    airgap.split(whole, VolumeOptions(limit_for(whole)), output=folder / "v" / "olm.tar")
    volumes = tuple(path.read_bytes() for path in sorted((folder / "v").iterdir()))
    with registry(folder / "calm") as destination:
        take(whole.read_bytes(), destination, folder)
    with registry(folder / "by-file") as destination:
        airgap.import_archive(
            whole,
            destination.host,
            access=Access(insecure=True),
            manifests=airgap.ManifestsOptions(folder / "m"),
        )
    assert keeps(folder / "calm") == keeps(folder / "by-file")
    return Ready(whole.read_bytes(), volumes, content.plan(), keeps(folder / "by-file"))


@contextmanager
def registry(folder: Path) -> Iterator[FaultyRegistry]:
    with FaultyRegistry(DirectoryStore(folder, durable=False)) as destination:
        yield destination


def take(
    data: bytes, destination: FaultyRegistry, folder: Path, window: int = limits.GIB
) -> airgap.ImportResult:
    with piped(data) as stream:
        return airgap.import_archive(
            stream,
            destination.host,
            access=Access(insecure=True),
            manifests=airgap.ManifestsOptions(folder / "manifests"),
            window=window,
        )


WINDOWS = [1, 5000, 400_000, 4_000_000]


@pytest.mark.parametrize("window", WINDOWS)
def test_no_window_changes_what_arrives(ready: Ready, tmp_path: Path, window: int) -> None:
    with registry(tmp_path / "registry") as destination:
        result = take(ready.whole, destination, tmp_path, window)
    assert (result.exit_status, result.damage) == (0, ())
    assert keeps(tmp_path / "registry") == ready.arrived


@pytest.mark.parametrize("window", WINDOWS)
def test_where_mounts_are_refused_a_blob_is_sent_to_each(
    ready: Ready, tmp_path: Path, window: int
) -> None:
    def no_mounts(exchange: Exchange) -> Response:
        return exchange.answer(replace(exchange.request, query={}))

    with registry(tmp_path / "registry") as destination:
        destination.fault("POST", ".*", no_mounts)
        result = take(ready.whole, destination, tmp_path, window)
    assert (result.exit_status, result.mounted) == (0, 0)
    assert keeps(tmp_path / "registry") == ready.arrived


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_volumes_come_one_after_the_other(
    ready: Ready, tmp_path: Path, order: tuple[int, ...]
) -> None:
    with registry(tmp_path / "registry") as destination:
        result = take(b"".join(ready.volumes[n] for n in order), destination, tmp_path, 100_000)
    assert result.exit_status == 0
    assert keeps(tmp_path / "registry") == ready.arrived


@pytest.mark.parametrize("window", [1, 4_000_000])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_of_a_stream_that_ends_early_nothing_is_tagged_that_is_not_whole(
    ready: Ready, tmp_path: Path, part: float, window: int
) -> None:
    with registry(tmp_path / "registry") as destination:
        result = take(ready.whole[: int(len(ready.whole) * part)], destination, tmp_path, window)
        assert result.exit_status == 4
        assert "ends early" in " ".join(result.damage)
        failed = {image.reference for image in result.failed}
        assert failed
        tagged = {name for name in keeps(tmp_path / "registry") if "/_tags/" in name}
        assert result.arrived == len(ready.plan.images) - len(failed)
        assert len(tagged) == result.arrived
        again = take(ready.whole, destination, tmp_path, window)
    assert again.exit_status == 0
    assert keeps(tmp_path / "registry") == ready.arrived


def test_a_missing_volume_costs_the_images_that_need_it(ready: Ready, tmp_path: Path) -> None:
    with registry(tmp_path / "registry") as destination:
        result = take(ready.volumes[0] + ready.volumes[1], destination, tmp_path)
    assert result.exit_status == 4
    assert result.damage == ()
    assert "its volume did not come" in result.failed[0].detail


def test_an_upload_that_breaks_off_is_tried_again_from_the_window(
    ready: Ready, tmp_path: Path
) -> None:
    with registry(tmp_path / "registry") as destination:
        destination.fault("PUT", ".*/blobs/.*", reset_sent(50_000), hits=range(1, 4))
        result = take(ready.whole, destination, tmp_path)
    assert result.exit_status == 0
    assert keeps(tmp_path / "registry") == ready.arrived


def test_a_blob_that_passes_and_breaks_off_costs_its_images(ready: Ready, tmp_path: Path) -> None:
    def break_off(exchange: Exchange) -> Response:
        is_large = int(exchange.request.headers["content-length"]) > 100_000
        return reset_sent(100_000)(exchange) if is_large else exchange.honest()

    with registry(tmp_path / "registry") as destination:
        destination.fault("PUT", ".*/one/blobs/.*", break_off)
        result = take(ready.whole, destination, tmp_path, 400_000)
        assert [image.reference for image in result.failed] == ["quay.io/lab/one:v1"]
        assert "has passed" in result.failed[0].detail
        assert (result.exit_status, result.damage) == (5, ())
        destination.heal()
        assert take(ready.whole, destination, tmp_path, 400_000).exit_status == 0
    assert keeps(tmp_path / "registry") == ready.arrived


def test_a_registry_that_is_down_ends_it_while_the_sender_still_waits(tmp_path: Path) -> None:
    """Whoever reads ahead does not wait for a stream that nobody wants any more."""
    content = larger_content()
    archive_of(tmp_path / "olm.tar", content)
    data = (tmp_path / "olm.tar").read_bytes()
    read_end, write_end = os.pipe()
    with registry(tmp_path / "registry") as destination, os.fdopen(read_end, "rb") as stream:
        destination.fault(".*", "/v2/.+", answer(403))
        feeder = subprocess.Popen(
            ["sh", "-c", f"head -c {len(data) - 5000} olm.tar; sleep 300"],
            cwd=tmp_path,
            stdout=write_end,
        )
        os.close(write_end)
        try:
            with pytest.raises(RegistryError):
                airgap.import_archive(
                    stream,
                    destination.host,
                    access=Access(insecure=True),
                    manifests=airgap.ManifestsOptions(tmp_path / "manifests"),
                    window=1000,
                    continue_on_error=False,
                )
        finally:
            feeder.kill()
            feeder.wait()


def test_refuses_to_read_a_stream_twice() -> None:
    with piped(b"") as stream, pytest.raises(UsageError, match="passes once"):
        airgap.import_archive(stream, "localhost:1", wait=True)
    with piped(b"") as stream, pytest.raises(UsageError, match="passes once"):
        airgap.import_archive(stream, "localhost:1", verify_first=True)


def test_a_hole_in_a_catalog_stops_it_before_anything_is_tagged(tmp_path: Path) -> None:
    content = larger_content()
    catalog = content.plan().images[0]
    content.absent = {content.plan().blobs[content.plan().blobs_of(catalog)[-1]].digest}
    archive_of(tmp_path / "olm.tar", content)
    with registry(tmp_path / "registry") as destination:
        with pytest.raises(ArchiveError, match="is not whole"):
            take((tmp_path / "olm.tar").read_bytes(), destination, tmp_path, 1000)
        assert destination.count("PUT", ".*/manifests/.*") == 0


@pytest.mark.parametrize("flag", ["--wait", "--verify-first", "--dry-run", "--manifests-only"])
def test_refuses_flags_that_need_a_file(flag: str) -> None:
    assert refused("import", "-", "localhost:1", flag).startswith(flag)


def test_refuses_more_than_one_archive_with_a_stream() -> None:
    assert "name nothing else" in refused("verify", "-", "olm.tar")
    assert "--window is about" in refused("import", "olm.tar", "localhost:1", "--window", "2GiB")


def refused(*arguments: object) -> str:
    ran: Ran = run_airgap(*arguments)
    assert ran.status == 2
    return ran.err.partition("Error: ")[2]
