"""The commands as scripts and people meet them: flags, streams, statuses, signals."""

from __future__ import annotations

import json
import os
import pwd
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import click
import pytest
import yaml

from airgap import __version__, errors
from airgap.archive.reader import ArchiveReader, partial_path
from airgap.archive.state import State, state_path
from airgap.archive.work import work_path
from airgap.cli.main import cli
from airgap.cli.pushing import print_files
from airgap.plan import Reason
from airgap.registry import retry
from airgap.registry.directory import DirectoryStore
from tests.support import images
from tests.support.command import airgap, airgap_process, start_airgap
from tests.support.faults import answer, challenge, stall
from tests.support.lab import CATALOG, CATALOGS, build_lab
from tests.support.plans import archive_of, some_content
from tests.support.site import SMALL, Site, Supply, open_site
from tests.support.upstream import StoreUpstream, put

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECOND = "quay.io/lab/second:v2"
RELATED_BLOB = r"/v2/quay\.io/(coreos|test)/.*/blobs/.*"


@pytest.fixture(scope="module")
def supply(tmp_path_factory: pytest.TempPathFactory) -> Supply:
    return Supply.make(tmp_path_factory.mktemp("upstream"))


@pytest.fixture(scope="module")
def whole_archive(supply: Supply, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    with open_site(tmp_path_factory.mktemp("undisturbed"), supply) as site:
        assert site.export("-q").status == 0
        return site.archive.read_bytes()


@pytest.fixture
def site(tmp_path: Path, supply: Supply, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(retry, "_FIRST_DELAY", 0.001)
    for name in ("REGISTRY_AUTH_FILE", "REG_CREDS", "CONTAINERS_REGISTRIES_CONF"):
        monkeypatch.delenv(name, raising=False)
    with open_site(tmp_path, supply) as site:
        yield site


@pytest.fixture
def exported(site: Site, whole_archive: bytes) -> Site:
    site.archive.write_bytes(whole_archive)
    return site


@pytest.fixture
def own_site(tmp_path: Path) -> Iterator[Site]:
    """A site whose upstream a test may change."""
    with open_site(tmp_path, Supply.make(tmp_path / "upstream")) as site:
        yield site


# Help.


@pytest.mark.parametrize("command", cli.list_commands(click.Context(cli)))
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_command_explains_itself_with_examples(command: str, flag: str) -> None:
    ran = airgap(command, flag)
    assert ran.status == 0
    assert f"  Examples:\n    airgap {command} " in ran.out
    assert ran.err == ""


def test_the_help_lists_every_exit_status() -> None:
    ran = airgap("--help")
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    statuses = {k.exit_status for k in kinds if issubclass(k, errors.AirgapError)}
    assert ran.status == 0
    for status in statuses | {0, errors.HOLES, 143}:
        assert f"  {status}" in ran.out or f" {status} " in ran.out


def test_the_version_is_told() -> None:
    assert airgap("--version").out == f"airgap, version {__version__}\n"


@pytest.mark.parametrize(
    "typed",
    [
        ["nonsense"],
        ["export"],
        ["export", "quay.io/a/b"],
        ["export", "quay.io/a/b", "-o", "x", "--nonsense"],
        ["export", "quay.io/a/b", "-o", "x", "--max-per-registry", "0"],
        ["export", "quay.io/a/b", "-o", "x", "--index-filter-by-os", "["],
        ["import", "x"],
        ["import", "x", "y", "--icsp-scope", "planet"],
        ["import", "x", "y", "--max-icsp-size", "0"],
        ["import", "x", "y", "--max-components", "1"],
        ["import", "x", "y", "--max-components", "-1"],
        ["verify"],
        ["inspect"],
        ["split", "x"],
        ["split", "x", "--volume-size", "huge"],
        ["split", "x", "y", "--volume-size", "dvd"],
        ["join", "x"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_told_with_the_way_to_help(typed: list[str]) -> None:
    ran = airgap(*typed)
    assert ran.status == 2
    assert ran.out == ""
    assert "Error: " in ran.err
    assert "--help' for help." in ran.err


# Streams.


def test_with_json_there_is_one_document_on_stdout_and_nothing_else(site: Site) -> None:
    for ran, keys in (
        (site.export("--dry-run", "--output", "json"), {"images", "size", "missing"}),
        (site.export("--output", "json"), {"archive", "id", "fetched", "missing"}),
        (airgap("inspect", site.archive, "--output", "json"), {"catalogs", "packages", "missing"}),
        (airgap("verify", site.archive, "--output=json"), {"damage", "missing"}),
        (site.import_("--dry-run", "--output", "json"), {"mapping", "missing"}),
        (site.import_("--output", "json"), {"arrived", "sent", "failed", "missing", "files"}),
    ):
        assert ran.status == ran.json["exit_status"] == 0
        assert ran.json.keys() >= keys | {"command"}


@pytest.mark.parametrize("output", [["--output", "json"], ["--output=json"]])
def test_an_error_is_a_json_document_too(site: Site, output: list[str]) -> None:
    site.upstream.fault("GET", ".*", answer(403))
    for ran in (
        site.export(*output),
        airgap("verify", site.folder / "nothing", *output),
        airgap("inspect", site.folder / "nothing", *output),
        site.import_(*output),
        airgap("export", *output),
        airgap("import", "x", "y", "--max-icsp-size", "0", *output),
    ):
        assert ran.status == ran.json["exit_status"] > 0
        assert ran.json["error"]
        assert ran.json.keys() == {"exit_status", "error", "hint"}


EVIL = "\x9b31m\u202eevil\x1b[2J\x00\u2066"


def test_json_holds_nothing_that_a_terminal_obeys(tmp_path: Path) -> None:
    path, content = tmp_path / "olm.tar", some_content()
    content.holes[EVIL] = Reason.MALFORMED_REFERENCE
    archive_of(path, content)
    for command in (["inspect"], ["verify"], ["import", "--dry-run"]):
        destination = ["registry.example.com"] if "import" in command else []
        ran = airgap(*command, path, *destination, "--output", "json")
        assert ran.status == 3
        assert [hole["reference"] for hole in ran.json["missing"]] == [EVIL]
        assert ran.out.isascii()
        assert ran.out.replace("\n", "").isprintable()
        assert all(character.isprintable() or character == "\n" for character in ran.err)


def test_an_error_as_json_holds_nothing_that_a_terminal_obeys(tmp_path: Path) -> None:
    ran = airgap("verify", tmp_path / "\u202eevil", "--output", "json")
    assert ran.status == 2
    assert "\u202eevil" in ran.json["error"]
    assert ran.out.isascii()


def test_progress_is_told_on_stderr_line_by_line(site: Site) -> None:
    ran = site.export()
    assert ran.err.splitlines() == [
        f"reading catalog {CATALOG}",
        "asking for manifests: 10 images",
        "laying out the archive",
        "fetching blobs: 344.7 kB, 11 images",
    ]
    assert "reading every byte" in airgap("verify", site.archive).err
    assert "pushing" in site.import_().err


def test_quiet_leaves_the_result_alone(site: Site) -> None:
    for ran in (site.export("-q"), airgap("verify", site.archive, "-q"), site.import_("-q")):
        assert (ran.status, ran.err) == (0, "")
        assert ran.out.startswith("archive   ")


def test_very_verbose_tells_each_request(exported: Site) -> None:
    ran = airgap_process(*exported.exporting("-vv"), folder=exported.folder)
    assert ran.status == 0
    assert (
        f"GET http://{exported.upstream.host}/v2/quay.io/lab/catalog/manifests/v1: 200" in ran.err
    )


@pytest.mark.parametrize("streams", ["", "2>&1"])
def test_a_reader_that_goes_away_changes_nothing(exported: Site, streams: str) -> None:
    for arguments in (["inspect", exported.archive, "--images"], ["--help"], exported.exporting()):
        typed = shlex.join([sys.executable, "-m", "airgap", *map(str, arguments)])
        script = f"set -o pipefail; {typed} {streams} | true"
        done = subprocess.run(
            ["bash", "-c", script], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stdout) == (0, "")
        assert "Error" not in done.stderr and "Traceback" not in done.stderr


def test_a_reader_that_goes_away_does_not_stop_an_export(site: Site, whole_archive: bytes) -> None:
    typed = shlex.join([sys.executable, "-m", "airgap", *map(str, site.exporting())])
    subprocess.run(["bash", "-c", f"{typed} 2>&1 | true"], timeout=60, check=True)
    assert site.archive.read_bytes() == whole_archive


@pytest.mark.skipif(not os.access("/dev/full", os.W_OK), reason="no /dev/full")
def test_a_result_that_cannot_be_written_is_told(exported: Site) -> None:
    typed = shlex.join([sys.executable, "-m", "airgap", "inspect", str(exported.archive)])
    done = subprocess.run(
        f"{typed} > /dev/full", shell=True, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 6
    assert done.stderr == "error: standard output: No space left on device\n"


def test_a_reader_that_goes_away_does_not_hide_the_status(site: Site) -> None:
    site.upstream.hide(next(iter(site.supply.lab.images.values())).root)
    assert site.export("-q").status == 3
    typed = shlex.join([sys.executable, "-m", "airgap", "inspect", str(site.archive)])
    script = f"set -o pipefail; {typed} | true"
    assert subprocess.run(["bash", "-c", script], timeout=60, check=False).returncode == 3


# Flags for registries.


@pytest.mark.parametrize("flag", ["-a", "--registry-config", "--certificate-authority"])
def test_an_empty_value_counts_as_not_given(site: Site, flag: str) -> None:
    assert site.export(flag, "").status == 0


def test_an_empty_variable_counts_as_not_set(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REGISTRY_AUTH_FILE", "REG_CREDS"):
        monkeypatch.setenv(name, "")
    assert site.export().status == 0


def test_a_user_without_a_home_has_no_credentials_and_no_trouble(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(uid: int) -> pwd.struct_passwd:
        raise KeyError(uid)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert site.export().status == 0
    assert site.import_().status == 0


def test_a_credential_helper_that_fails_ends_the_export_at_once(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, log, auth = site.folder / "bin", site.folder / "log", site.folder / "auth.json"
    folder.mkdir()
    helper = folder / "docker-credential-broken"
    helper.write_text(f"#!/bin/sh\necho run >> {log}\necho no keyring >&2\nexit 1\n")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    auth.write_text(json.dumps({"credHelpers": {f"{site.upstream.host}/quay.io/test": "broken"}}))
    auth.chmod(0o600)
    guard = challenge('Basic realm="lab"', "Basic never")
    site.upstream.fault("GET", r"/v2/quay\.io/test/.*", guard)
    ran = site.export("-a", auth)
    assert (ran.status, ran.out) == (2, "")
    assert f"{auth}: credential helper broken for {site.upstream.host}" in ran.err
    assert "no keyring" in ran.err
    assert log.read_text() == "run\n"
    assert not site.archive.exists()


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_a_name_that_no_file_can_have_is_told(tmp_path: Path, command: str) -> None:
    ran = airgap(command, tmp_path / ("x" * 300))
    assert (ran.status, ran.out) == (6, "")
    assert "File name too long" in ran.err


def test_the_registries_conf_may_come_from_the_environment(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(site.registries_conf))
    ran = airgap("export", CATALOG, "-o", site.archive, "--registries-conf", "")
    assert ran.status == 0


def test_plain_http_needs_to_be_allowed(exported: Site) -> None:
    ran = airgap("import", exported.archive, exported.destination.host)
    assert ran.status == 5
    assert "no TLS connection" in ran.err
    assert f"If {exported.destination.host} has no TLS" in ran.err
    assert "--insecure" in ran.err
    assert exported.destination.asked == []


# Dry runs.


def test_a_dry_run_of_export_asks_once_for_both(site: Site, whole_archive: bytes) -> None:
    ran = site.export("--dry-run")
    assert ran.status == 0
    lines = ran.out.splitlines()
    assert lines[0] == "11 images, 466.3 kB to fetch"
    named = {image.reference for image in site.supply.lab.images.values()} | {CATALOG}
    assert {line.strip() for line in lines[1:]} == named
    assert not site.archive.exists() and not partial_path(site.archive).exists()

    before = len(site.upstream.asked)
    ran = site.export()
    assert ran.status == 0
    asked = [one.path for one in site.upstream.asked[before:] if "/manifests/" in one.path]
    assert asked == ["/v2/quay.io/lab/catalog/manifests/v1"]
    assert f"continuing with {CATALOG} at sha256:" in ran.err
    assert site.archive.read_bytes() == whole_archive
    assert not work_path(site.archive).exists()


def test_a_dry_run_of_export_tells_holes(site: Site) -> None:
    site.upstream.hide(site.supply.lab.images["quay.io/test/etcd.0.9.2"].root)
    site.upstream.fault("GET", r".*/test/etcd\.0\.9\.2/manifests/latest", answer(404))
    ran = site.export("--dry-run")
    assert ran.status == 3
    assert "CANNOT be had (1):\n  quay.io/test/etcd.0.9.2\n    not-found" in ran.out
    assert site.export("--dry-run", "--skip-missing").status == 0


def test_a_dry_run_of_a_finished_export_says_so(exported: Site) -> None:
    ran = exported.export("--dry-run")
    assert (ran.status, ran.out) == (2, "")
    assert f"`airgap inspect {exported.archive}` shows it" in ran.err


def test_a_dry_run_of_import_prints_the_mapping_without_a_request(exported: Site) -> None:
    ran = exported.import_("--dry-run")
    assert ran.status == 0
    assert exported.destination.asked == []
    assert not exported.manifests.exists()
    assert exported.import_("-q").status == 0
    assert (exported.manifests / "mapping.txt").read_text() == ran.out
    assert f"{CATALOG}={exported.destination.host}/lab/catalog:v1" in ran.out.splitlines()


# Which variant of a catalog.


@pytest.fixture
def several(tmp_path: Path) -> Iterator[Site]:
    recipe = replace(SMALL, catalog_multi_arch=True, labelled=True)
    with open_site(tmp_path, Supply.make(tmp_path / "upstream", recipe)) as site:
        yield site


@pytest.mark.parametrize(("expression", "count"), [("linux/.*", 4), ("64$", 2), ("windows", 0)])
def test_a_filter_that_does_not_choose_one_variant_shows_them_all(
    several: Site, expression: str, count: int
) -> None:
    ran = several.export("--index-filter-by-os", expression)
    assert ran.status == 2
    assert f"{CATALOG}: {count} variants of the catalog fit '{expression}'; it has\n" in ran.err
    for platform in ("linux/amd64", "linux/arm64", "linux/ppc64le", "linux/s390x"):
        assert f"  {platform}  sha256:" in ran.err
    assert "Choose one with --index-filter-by-os." in ran.err
    assert not several.archive.exists()


@pytest.mark.parametrize("expression", ["linux/amd64", "s390x", "^linux/arm64$"])
def test_the_filter_picks_what_is_read_and_thins_out_nothing(
    several: Site, expression: str
) -> None:
    assert several.export("-q", "--index-filter-by-os", expression).status == 0
    with ArchiveReader(several.archive) as reader:
        plan = reader.plan
        root = plan.images[plan.catalogs[0].image]
        assert len(plan.manifests_of(root)) == 5
        assert plan.question.platform == expression


def test_a_filter_that_is_no_expression_is_a_usage_error(site: Site) -> None:
    ran = site.export("--index-filter-by-os", "linux/(amd64")
    assert ran.status == 2
    assert "'--index-filter-by-os': not a regular expression" in ran.err
    assert site.upstream.asked == []


# An export that is there already.


def test_a_finished_export_has_nothing_to_do(exported: Site) -> None:
    before = exported.archive.stat().st_mtime_ns
    ran = exported.export()
    assert ran.status == 0
    assert "finished already, nothing to do" in ran.err
    assert "fetched 0 blobs" in ran.out
    assert exported.archive.stat().st_mtime_ns == before
    assert not state_path(exported.archive).exists()
    assert exported.upstream.count("GET", ".*/blobs/.*") == 0


def test_a_tag_that_has_moved_needs_a_new_archive(own_site: Site) -> None:
    assert own_site.export("-q").status == 0
    whole = own_site.archive.read_bytes()
    moved = images.image([images.layer({"other": b"catalog"})])
    put(DirectoryStore(own_site.supply.folder, durable=False), "quay.io/lab/catalog", moved, "v1")
    ran = own_site.export()
    assert (ran.status, ran.out) == (2, "")
    assert f"it is now at {moved.digest}" in ran.err
    assert f"-o {own_site.folder / 'olm-2.tar'} " in ran.err
    assert ran.err.endswith(f" --reuse {own_site.archive}\n")
    assert own_site.archive.read_bytes() == whole


@pytest.mark.parametrize("finished", [True, False])
def test_another_question_needs_another_archive(site: Site, finished: bool) -> None:
    if not finished:
        site.upstream.hide(list(site.supply.lab.images["quay.io/test/etcd.0.9.2"].blobs)[-1])
        assert site.export("--no-continue-on-error").status == 5
        site.upstream.heal()
    else:
        assert site.export("-q").status == 0
    for flags, catalog in (((), "quay.io/lab/other:v1"), (("--index-filter-by-os", "x"), CATALOG)):
        ran = site.export(*flags, catalog=catalog)
        assert (ran.status, ran.out) == (2, "")
        assert f"was begun for another question: {CATALOG}, platform linux/amd64" in ran.err
        assert ("--reuse" if finished else "another -o FILE") in ran.err


def test_two_exports_to_one_archive_are_one_too_many(exported: Site) -> None:
    state = State(exported.archive)
    try:
        ran = exported.export()
    finally:
        state.release(finished=True)
    assert (ran.status, ran.out) == (2, "")
    assert f"process {os.getpid()} on " in ran.err
    assert "is writing it" in ran.err
    assert "Wait until that has ended" in ran.err


def test_an_export_that_ended_with_an_error_continues(site: Site, whole_archive: bytes) -> None:
    gone = list(site.supply.lab.images["quay.io/test/etcd.0.9.2"].blobs)[-1]
    site.upstream.hide(gone)
    ran = site.export("--no-continue-on-error")
    assert (ran.status, ran.out) == (5, "")
    assert str(gone) in ran.err
    for command in ("inspect", "verify"):
        refused = airgap(command, site.archive)
        assert refused.status == 2
        assert "not finished, there is only olm.tar.partial" in refused.err
        assert "Run the export that makes it again" in refused.err
    site.upstream.heal()
    before = len(site.upstream.asked)
    assert site.export("-q").status == 0
    assert site.archive.read_bytes() == whole_archive
    asked = [one.path for one in site.upstream.asked[before:] if "/manifests/" in one.path]
    assert asked == ["/v2/quay.io/lab/catalog/manifests/v1"]


# Holes.


def test_what_is_skipped_is_listed_and_changes_no_status(site: Site) -> None:
    gone = site.supply.lab.images["quay.io/test/etcd.0.9.2"]
    site.upstream.fault("GET", r".*/test/etcd\.0\.9\.2/manifests/.*", answer(404))
    for ran in (
        site.export("--skip-missing"),
        site.import_("--skip-missing"),
        site.import_("--skip-missing", "--dry-run"),
    ):
        assert ran.status == 0
        assert gone.reference in ran.out
    assert airgap("inspect", site.archive).status == airgap("verify", site.archive).status == 3
    assert site.import_().status == site.import_("--dry-run").status == 3


@pytest.mark.parametrize("fault", [answer(403), answer(503)], ids=["denied", "down"])
def test_only_what_does_not_exist_is_skipped(site: Site, fault: object) -> None:
    assert callable(fault)
    site.upstream.fault("GET", r".*/test/etcd\.0\.9\.2/manifests/.*", fault)
    assert site.export("--skip-missing").status == 3


def test_a_blob_that_is_gone_is_not_skipped(site: Site) -> None:
    site.upstream.hide(list(site.supply.lab.images["quay.io/test/etcd.0.9.2"].blobs)[-1])
    assert site.export("--skip-missing").status == 3


def test_an_image_with_a_hole_is_a_comment_in_the_mapping(site: Site) -> None:
    site.upstream.hide(list(site.supply.lab.images["quay.io/test/etcd.0.9.2"].blobs)[-1])
    assert site.export("-q").status == 3
    assert site.import_("-q").status == 3
    lines = (site.manifests / "mapping.txt").read_text().splitlines()
    assert [line for line in lines if line.startswith("#")] == [
        line for line in lines if "etcd.0.9.2:latest=" in line
    ]
    assert "test/etcd.0.9.2:latest" not in site.tags_at_destination()


# What import writes.


FILES = [
    "catalogSource.yaml",
    "imageContentSourcePolicy.yaml",
    "imageDigestMirrorSet.yaml",
    "imageTagMirrorSet.yaml",
    "mapping.txt",
    "receipt.json",
]


def test_the_files_go_where_they_are_wanted(exported: Site) -> None:
    ran = exported.import_()
    assert ran.status == 0
    assert sorted(path.name for path in exported.manifests.iterdir()) == FILES
    for name in FILES:
        assert name in ran.out


@pytest.mark.parametrize(
    ("files", "advice"),
    [
        (("imageTagMirrorSet.yaml",), "imageTagMirrorSet.yaml from OpenShift 4.13 on"),
        (
            ("imageContentSourcePolicy.yaml", "imageDigestMirrorSet.yaml"),
            "imageDigestMirrorSet.yaml from OpenShift 4.13 on, imageContentSourcePolicy.yaml"
            " before; not both",
        ),
    ],
)
def test_only_files_that_were_written_are_to_be_applied(
    files: tuple[str, ...], advice: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_files(tmp_path, ("mapping.txt", *files))
    assert f"apply     {advice}\n" in capsys.readouterr().out


def test_by_default_the_files_go_below_the_working_directory(
    exported: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(exported.folder)
    host = exported.destination.host
    ran = airgap("import", exported.archive, host, "--insecure", "--to-manifests", "", "-q")
    assert ran.status == 0
    with ArchiveReader(exported.archive) as reader:
        name = f"manifests-catalog-{reader.id.hex[:8]}"
    assert f"wrote     {name}/: mapping.txt" in ran.out
    assert sorted(path.name for path in (exported.folder / name).iterdir()) == FILES


def test_a_second_import_sends_nothing_and_writes_the_same(exported: Site) -> None:
    assert exported.import_().status == 0
    first = {path.name: path.read_bytes() for path in exported.manifests.iterdir()}
    before = len(exported.destination.asked)
    ran = exported.import_("--output", "json")
    assert ran.status == 0
    assert (ran.json["sent"], ran.json["mounted"], ran.json["manifests_sent"]) == (0, 0, 0)
    methods = {asked.method for asked in exported.destination.asked[before:]}
    assert methods <= {"GET", "HEAD"}
    assert {path.name: path.read_bytes() for path in exported.manifests.iterdir()} == first


@pytest.mark.parametrize(
    ("flags", "namespace", "place"),
    [
        ((), "", "coreos/etcd-operator"),
        ((), "/mirror", "mirror/coreos-etcd-operator"),
        ((), "/one/two", "one/two-coreos-etcd-operator"),
        (("--max-components", "0"), "/one/two", "one/two/coreos/etcd-operator"),
        (("--max-components", "9"), "/one/two", "one/two/coreos/etcd-operator"),
    ],
)
def test_the_number_of_components_is_bounded(
    exported: Site, flags: tuple[str, ...], namespace: str, place: str
) -> None:
    lines = exported.import_("--dry-run", *flags, namespace=namespace).out.splitlines()
    host = exported.destination.host
    targets = {line.rpartition("=")[2].rpartition(":")[0] for line in lines}
    assert f"{host}/{place}" in targets


def _sources(path: Path, kind: str) -> list[list[str]]:
    """The sources of each document in a file."""
    documents = [document for document in yaml.safe_load_all(path.read_text()) if document]
    return [[entry["source"] for entry in document["spec"][kind]] for document in documents]


def test_the_scope_of_mirrors_is_chosen_for_each_kind(exported: Site) -> None:
    assert exported.import_("--icsp-scope", "registry").status == 0
    icsp = exported.manifests / "imageContentSourcePolicy.yaml"
    idms = exported.manifests / "imageDigestMirrorSet.yaml"
    assert _sources(icsp, "repositoryDigestMirrors") == [["quay.io"]]
    assert "quay.io/coreos/etcd-operator" in _sources(idms, "imageDigestMirrors")[0]
    assert exported.import_("--idms-scope", "registry").status == 0
    assert _sources(idms, "imageDigestMirrors") == [["quay.io"]]
    assert "quay.io/coreos/etcd-operator" in _sources(icsp, "repositoryDigestMirrors")[0]


def test_what_does_not_fit_a_policy_goes_on_in_the_next(exported: Site) -> None:
    icsp = exported.manifests / "imageContentSourcePolicy.yaml"
    assert exported.import_().status == 0
    (whole,) = _sources(icsp, "repositoryDigestMirrors")
    assert exported.import_("--max-icsp-size", "400").status == 0
    parts = _sources(icsp, "repositoryDigestMirrors")
    assert len(parts) > 1
    assert [source for part in parts for source in part] == whole
    for document in icsp.read_text().split("---\n"):
        assert len(document.encode()) <= 400


def test_a_policy_too_small_for_anything_is_refused(exported: Site) -> None:
    ran = exported.import_("--max-icsp-size", "20")
    assert (ran.status, ran.out) == (2, "")
    assert "20" in ran.err
    assert exported.destination.asked == []
    assert not exported.manifests.exists()


def test_a_place_for_the_files_that_cannot_be_made_is_refused_before_the_first_request(
    exported: Site,
) -> None:
    (exported.folder / "file").write_text("in the way")
    ran = exported.import_("--to-manifests", exported.folder / "file" / "manifests")
    assert (ran.status, ran.out) == (6, "")
    assert str(exported.folder / "file") in ran.err
    assert "Not a directory" in ran.err
    assert exported.destination.asked == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_place_for_the_files_without_permission_is_refused_before_the_first_request(
    exported: Site,
) -> None:
    exported.manifests.mkdir(mode=0o555)
    ran = exported.import_()
    assert (ran.status, ran.out) == (6, "")
    assert str(exported.manifests) in ran.err
    assert "Permission denied" in ran.err
    assert exported.destination.asked == []


# Several catalogs.


def test_several_catalogs_go_into_one_archive(own_site: Site) -> None:
    store = StoreUpstream(DirectoryStore(own_site.supply.folder, durable=False))
    recipe = replace(SMALL, seed=7)
    second = build_lab(CATALOGS / "opreg-foo-2021a.db", store, recipe=recipe, catalog=SECOND)
    hosts = sorted({*own_site.supply.lab.hosts, *second.hosts})
    both = replace(own_site.supply.lab, hosts=tuple(hosts))
    own_site.registries_conf.write_text(both.registries_conf(own_site.upstream.host))
    ran = own_site.export(SECOND, "--output", "json")
    assert ran.status == 0
    found = airgap("inspect", own_site.archive, "--output", "json").json
    assert [catalog["reference"] for catalog in found["catalogs"]] == [CATALOG, SECOND]
    labs = (own_site.supply.lab, second)
    names = {image.reference for lab in labs for image in lab.images.values()}
    assert {image["reference"] for image in found["images"]} == names | {CATALOG, SECOND}
    assert own_site.import_().status == 0
    sources = (own_site.manifests / "catalogSource.yaml").read_text()
    offered = [document["spec"]["image"] for document in yaml.safe_load_all(sources) if document]
    assert ["lab/catalog" in offered[0], "lab/second" in offered[1]] == [True, True]
    assert {"lab/catalog:v1", "lab/second:v2"} <= own_site.tags_at_destination()


# Signals.


def _wait_for(site: Site, path: str) -> None:
    deadline = time.monotonic() + 30
    while not site.upstream.count("GET", path):
        assert time.monotonic() < deadline, "the request never came"
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"]
)
def test_a_signal_ends_an_export_that_continues_later(
    site: Site, whole_archive: bytes, number: int, status: int
) -> None:
    site.upstream.fault("GET", RELATED_BLOB, stall(1.0, after=5))
    typed = site.exporting("--max-per-registry", 1)
    with start_airgap(*typed, folder=site.folder) as process:
        _wait_for(site, RELATED_BLOB)
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert process.returncode == status, err
    assert out == ""
    assert "Traceback" not in err
    assert "un the same command again" in err
    assert not site.archive.exists()
    site.upstream.heal()
    assert site.export("-q").status == 0
    assert site.archive.read_bytes() == whole_archive


def test_a_second_signal_ends_the_process_at_once(site: Site) -> None:
    site.upstream.fault("GET", RELATED_BLOB, stall(60.0, after=5))
    with start_airgap(*site.exporting(), folder=site.folder) as process:
        _wait_for(site, RELATED_BLOB)
        begun = time.monotonic()
        while process.poll() is None and time.monotonic() < begun + 20:
            process.send_signal(signal.SIGINT)
            time.sleep(0.2)
        process.communicate()
    assert process.returncode == 130
    assert time.monotonic() < begun + 20


def test_an_interrupted_command_says_so_in_json_too(site: Site) -> None:
    site.upstream.fault("GET", RELATED_BLOB, stall(1.0, after=5))
    typed = site.exporting("--output", "json", "-q")
    with start_airgap(*typed, folder=site.folder) as process:
        _wait_for(site, RELATED_BLOB)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=30)
    assert json.loads(out)["exit_status"] == process.returncode == 143


@pytest.mark.slow
def test_a_command_that_is_cut_off_says_so_in_json_and_leaves_no_directory(site: Site) -> None:
    site.upstream.fault("GET", RELATED_BLOB, stall(60.0, after=5))
    scratch = site.folder / "scratch"
    scratch.mkdir()
    typed = ("mirror", CATALOG, site.destination.host, "--registries-conf", site.registries_conf)
    flags = ("--insecure", "--to-manifests", site.manifests, "--output", "json", "-q")
    environ = {"TMPDIR": str(scratch)}
    with start_airgap(*typed, *flags, folder=site.folder, environ=environ) as process:
        _wait_for(site, RELATED_BLOB)
        assert [*scratch.iterdir()] != []
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    assert json.loads(out)["exit_status"] == process.returncode == 143
    assert "un the same command again" in err
    assert [*scratch.iterdir()] == []


def test_the_holder_of_an_archive_is_named_while_it_lives(site: Site) -> None:
    site.upstream.fault("GET", RELATED_BLOB, stall(5.0, after=5))
    with start_airgap(*site.exporting(), folder=site.folder) as process:
        _wait_for(site, RELATED_BLOB)
        second, looked = site.export(), airgap("inspect", site.archive)
        process.kill()
        process.communicate()
    for ran in (second, looked):
        assert ran.status == 2
        assert f"process {process.pid} on " in ran.err
    site.upstream.heal()
    assert site.export("-q").status == 0


# Serving.


def test_serve_says_where_and_ends_when_it_is_told_to(tmp_path: Path) -> None:
    typed = ("serve", tmp_path / "registry", "--port", 0)
    with start_airgap(*typed, folder=tmp_path, environ={"PYTHONUNBUFFERED": "1"}) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert line.startswith(f"serving {tmp_path / 'registry'} at http://127.0.0.1:")
    assert process.returncode == 0
