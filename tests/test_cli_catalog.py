from __future__ import annotations

import csv
import io
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from airgap.cli.running import GRACE_SECONDS
from airgap.registry import retry
from tests.catalog.test_packagemanifests import CHAIN, PACKAGE
from tests.support.command import airgap, start_airgap
from tests.support.lab import CATALOG, CATALOGS
from tests.support.site import SMALL, Supply, open_site
from tests.support.trees import written

if TYPE_CHECKING:
    from pathlib import Path

DATABASE = CATALOGS / "oc-test.db"
MANIFESTS = CATALOGS / "package-manifests" / "pkgman-flat"
BROKEN = CHAIN | {"4/a.yaml": "kind: ["}
DOCUMENTED = "select * from related_image where operatorbundle_name like 'etcdoperator.v0.9.0%'"
ENDLESS = "with recursive n(i) as (select 1 union all select i + 1 from n) select max(i) from n"
ONE_STEP = "select instr(printf('%.*c', 60000000, 'a'), printf('%.*cb', 30000000, 'a'))"

needs_sqlite3 = pytest.mark.skipif(shutil.which("sqlite3") is None, reason="no sqlite3")


class TestList:
    def test_shows_packages_and_what_they_bring(self) -> None:
        ran = airgap("catalog", "list", MANIFESTS)
        assert ran.status == 0
        assert ran.out.splitlines() == [
            f"catalog   {MANIFESTS}",
            "          package-manifests",
            "holds     7 bundles, 9 images",
            "",
            "package                                  default channel          newest            "
            "  bundles   images       size",
            "etcd                                     alpha                    0.9.2             "
            "        3        5",
            "strimzi-kafka-operator                   stable                   0.11.1            "
            "        4        4",
        ]

    def test_shows_the_channels_of_a_package(self) -> None:
        ran = airgap("catalog", "list", MANIFESTS, "--package", "etcd")
        assert ran.out.splitlines()[-5:] == [
            "",
            "etcd, default channel alpha",
            "  alpha                    3 bundles, head etcdoperator.v0.9.2 0.9.2",
            "  beta                     2 bundles, head etcdoperator.v0.9.0 0.9.0",
            "  stable                   3 bundles, head etcdoperator.v0.9.2 0.9.2",
        ]

    def test_shows_the_versions_of_a_channel(self) -> None:
        ran = airgap("catalog", "list", MANIFESTS, "--package", "etcd", "--channel", "beta")
        assert ran.out.splitlines()[-3:] == [
            "  beta                     2 bundles, head etcdoperator.v0.9.0 0.9.0",
            "    0.9.0                  etcdoperator.v0.9.0",
            "    0.6.1                  etcdoperator.v0.6.1",
        ]

    def test_gives_programs_everything(self) -> None:
        found = airgap("catalog", "list", DATABASE, "--output", "json").json
        packages = found.pop("packages")
        assert found == {
            "command": "catalog list",
            "exit_status": 0,
            "source": str(DATABASE),
            "format": "sqlite",
            "path": "oc-test.db",
            "bundles": 5,
            "images": 10,
            "size": None,
            "problems": [],
            "unreadable": [],
        }
        assert [package["name"] for package in packages] == ["etcd", "prometheus"]
        oldest = [{"name": f"prometheusoperator.0.{n}.0", "version": f"0.{n}.0"} for n in (15, 14)]
        newest = {"name": "prometheusoperator.0.22.2", "version": "0.22.2"}
        assert packages[1] == {
            "name": "prometheus",
            "default_channel": "preview",
            "channels": [
                {
                    "name": "preview",
                    "head": "prometheusoperator.0.22.2",
                    "version": "0.22.2",
                    "bundles": [newest, *oldest],
                },
                {
                    "name": "stable",
                    "head": "prometheusoperator.0.15.0",
                    "version": "0.15.0",
                    "bundles": oldest,
                },
            ],
            "bundles": 3,
            "images": 6,
            "size": None,
        }

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (["--package", "ectd"], "no package 'ectd' in the catalog: did you mean etcd?"),
            (["--channel", "previev"], "no channel 'previev' in the catalog: did you mean preview"),
        ],
    )
    def test_suggests_what_comes_near(self, flags: list[str], message: str) -> None:
        ran = airgap("catalog", "list", DATABASE, *flags)
        assert (ran.status, ran.out) == (2, "")
        assert message in ran.err


class TestImages:
    def test_shows_below_each_who_wants_it(self) -> None:
        ran = airgap("catalog", "images", DATABASE)
        images = [line for line in ran.out.splitlines() if not line.startswith(" ")]
        known = (CATALOGS / "oc-test.images.txt").read_text("utf-8").splitlines()
        assert images == known
        assert "dc6b8\n    etcdoperator.v0.9.0\n" in ran.out

    def test_takes_a_part_as_export_does(self) -> None:
        ran = airgap("catalog", "images", DATABASE, "--package", "etcd:alpha@head")
        wanting = {line.strip() for line in ran.out.splitlines() if line.startswith(" ")}
        assert (ran.status, wanting) == (0, {"etcdoperator.v0.9.2"})

    def test_gives_programs_everything(self) -> None:
        found = airgap("catalog", "images", DATABASE, "--package", "etcd", "--output", "json").json
        assert found["command"] == "catalog images"
        assert len(found["images"]) == 4
        assert found["images"][0]["bundles"] == ["etcdoperator.v0.9.2"]
        assert found["images"][0].keys() == {"reference", "bundles", "size"}

    @pytest.mark.parametrize("package", ["etcd:alhpa", "etcd@9", "etdc", "etcd@", "etcd@x.y"])
    def test_refuses_what_the_catalog_has_not(self, package: str) -> None:
        ran = airgap("catalog", "images", DATABASE, "--package", package)
        assert (ran.status, ran.out) == (2, "")


class TestQuery:
    def test_prints_the_documented_query(self) -> None:
        ran = airgap("catalog", "query", "-q", MANIFESTS, DOCUMENTED)
        assert (ran.status, ran.err) == (0, "")
        assert ran.out.splitlines()[0].startswith("              image = quay.io/coreos/")
        assert ran.out.splitlines()[1] == "operatorbundle_name = etcdoperator.v0.9.0"

    @needs_sqlite3
    @pytest.mark.parametrize(
        "sql",
        [
            "select * from related_image order by 1, 2",
            "select name n from package",
            "select name, null, 1, 2.5, bundlepath, length(csv) from operatorbundle",
            "select * from channel_entry",
            "select csv from operatorbundle limit 1",
            "select 1 where 0",
        ],
    )
    def test_prints_lines_as_sqlite3_does(self, sql: str) -> None:
        known = subprocess.run(
            ["sqlite3", "-line", DATABASE, sql], capture_output=True, text=True, check=True
        )
        assert airgap("catalog", "query", DATABASE, sql).out == known.stdout

    def test_prints_a_table(self) -> None:
        sql = "select name, default_channel 'default' from package"
        assert airgap("catalog", "query", DATABASE, sql, "--output", "table").out == (
            "name        default\n----------  -------\netcd        alpha\nprometheus  preview\n"
        )

    def test_prints_csv(self) -> None:
        sql = "select 'a, \"b\"' a, 'c' || char(10) || 'd' b, null c union all select 1, 2, 3"
        out = airgap("catalog", "query", DATABASE, sql, "--output", "csv").out
        assert list(csv.reader(io.StringIO(out))) == [
            ["a", "b", "c"],
            ['a, "b"', "c\nd", ""],
            ["1", "2", "3"],
        ]

    def test_prints_json(self) -> None:
        sql = "select name, 1 number, null void, 0.5 name, 2 name from package limit 1"
        assert airgap("catalog", "query", DATABASE, sql, "--output", "json").json == {
            "command": "catalog query",
            "exit_status": 0,
            "columns": ["name", "number", "void", "name:1", "name:2"],
            "rows": [{"name": "etcd", "number": 1, "void": None, "name:1": 0.5, "name:2": 2}],
            "unreadable": [],
        }

    @pytest.mark.parametrize("output", ["lines", "table", "csv"])
    def test_prints_no_escapes_of_a_terminal(self, output: str) -> None:
        sql = "select char(27) || '[31m' || char(8238) as 'a\x1b[1m'"
        ran = airgap("catalog", "query", DATABASE, sql, "--output", output)
        assert "\\x1b[31m\\u202e" in ran.out
        assert "\x1b" not in ran.out and "\u202e" not in ran.out

    @pytest.mark.parametrize("output", ["lines", "table", "csv", "json"])
    def test_refuses_with_the_words_of_sqlite(self, output: str) -> None:
        ran = airgap("catalog", "query", DATABASE, "drop table package", "--output", output)
        assert ran.status == 2
        assert "error: the query: not authorized" in ran.err
        assert (output == "json") == bool(ran.out)

    @pytest.mark.parametrize(
        ("sql", "within"),
        [
            (ENDLESS, 2),
            pytest.param(ONE_STEP, GRACE_SECONDS + 2, marks=pytest.mark.slow),
        ],
        ids=["many steps", "one step"],
    )
    def test_ends_with_the_first_signal(self, tmp_path: Path, sql: str, within: float) -> None:
        asking = ("catalog", "query", DATABASE, sql)
        with start_airgap(*asking, folder=tmp_path, environ={"TMPDIR": str(tmp_path)}) as process:
            assert process.stderr is not None
            process.stderr.readline()  # It has begun, and knows what to do with a signal.
            time.sleep(1)
            process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (143, "")
        assert "error: interrupted" in err
        assert time.monotonic() - began < within


COMMANDS = (["list"], ["images"], ["query", "select name from package"])


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
class TestEveryCommand:
    def _run(self, command: list[str], source: object, *flags: object) -> tuple[int, str, str]:
        ran = airgap("catalog", command[0], source, *command[1:], *flags)
        return ran.status, ran.out, ran.err

    def test_goes_on_without_what_cannot_be_read(self, command: list[str], tmp_path: Path) -> None:
        status, out, err = self._run(command, written(tmp_path, BROKEN), "-q")
        assert status == 3
        assert "etcd" in out
        assert err.startswith("unreadable: 4/a.yaml: ")
        _, out, _ = self._run(command, tmp_path, "-q", "--output", "json")
        assert '"exit_status": 3' in out
        assert "4/a.yaml" in out

    def test_refuses_where_nothing_can_be_read(self, command: list[str], tmp_path: Path) -> None:
        status, out, err = self._run(command, written(tmp_path, {"a.yaml": "kind: ["}))
        assert (status, out) == (4, "")
        assert f"error: {tmp_path}: " in err

    def test_says_what_is_odd_where_wanted(self, command: list[str], tmp_path: Path) -> None:
        written(tmp_path, CHAIN | {"etcd.package.yaml": PACKAGE + "defaultChannel: none\n"})
        written(tmp_path, {"other.package.yaml": PACKAGE})
        assert self._run(command, tmp_path, "-q")[2] == ""
        assert self._run(command, tmp_path, "-q", "-v")[2].startswith("odd: ")

    def test_knows_no_source_that_is_not_there(self, command: list[str]) -> None:
        status, out, err = self._run(command, "bundles.db")
        assert (status, out) == (2, "")
        assert "bundles.db: no such file or directory" in err

    def test_tells_what_a_registry_says(
        self, command: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(retry, "_FIRST_DELAY", 0.001)
        status, out, err = self._run(command, "localhost:1/my/catalog:v1")
        assert (status, out) == (5, "")
        assert "localhost:1" in err

    def test_a_reader_that_goes_away_changes_nothing(self, command: list[str]) -> None:
        arguments = ["catalog", command[0], str(DATABASE), *command[1:]]
        typed = shlex.join([sys.executable, "-m", "airgap", *arguments])
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {typed} 2>&1 | true"],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_archive_shows_what_its_catalog_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CONTAINERS_REGISTRIES_CONF", raising=False)
    with open_site(tmp_path, Supply.make(tmp_path / "upstream")) as site:
        assert site.export("-q").status == 0
        for command in COMMANDS:
            there = ("--registries-conf", site.registries_conf, "--index-filter-by-os", "amd64")
            image = airgap("catalog", command[0], CATALOG, *command[1:], *there)
            archive = airgap("catalog", command[0], site.archive, *command[1:])
            assert image.status == archive.status == 0
            shown = [line for line in archive.out.splitlines() if not line.endswith("B")]
            assert {*shown} - {*image.out.splitlines()} <= {f"catalog   {site.archive}"}
        several = airgap("catalog", "list", site.archive, "--catalog", "quay.io/other:v1")
        assert several.status == 2


def test_an_archive_is_read_for_its_own_platform_unless_another_is_named(tmp_path: Path) -> None:
    recipe = replace(SMALL, catalog_multi_arch=True)
    with open_site(tmp_path, Supply.make(tmp_path / "upstream", recipe)) as site:
        assert site.export("-q", "--index-filter-by-os", "^linux/(s390x|zz)").status == 0
        # The other variants are in the archive too.
        for flags, status in (
            ([], 0),
            (["--index-filter-by-os", "linux/arm64"], 0),
            (["--index-filter-by-os", "linux"], 2),
        ):
            assert airgap("catalog", "list", site.archive, *flags).status == status
