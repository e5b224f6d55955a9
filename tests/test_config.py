"""Exports and mirrors that oc-mirror's configuration file asks for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from airgap.imageset import V1, V2
from airgap.registry.directory import DirectoryStore
from tests.support.command import airgap
from tests.support.faults import missing
from tests.support.images import image, random_layer
from tests.support.lab import CATALOG, CATALOGS, build_lab
from tests.support.site import SMALL, Site, Supply, open_site
from tests.support.upstream import StoreUpstream, put

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.support.command import Ran

OTHER = "quay.io/lab/other:v1"
"""A second catalog, with packages of the same names as the first, and others."""

TOOL = "quay.io/lab/tool:1"


@pytest.fixture(scope="module")
def supply(tmp_path_factory: pytest.TempPathFactory) -> Supply:
    made = Supply.make(tmp_path_factory.mktemp("supply"))
    store = DirectoryStore(made.folder, durable=False)
    database = CATALOGS / "opreg-indexer-2020.db"
    build_lab(database, StoreUpstream(store), recipe=SMALL, catalog=OTHER)
    put(store, "quay.io/lab/tool", image([random_layer("tool", 3000, "tool")]), "1")
    return made


@dataclass(frozen=True)
class Configuring:
    """A site, and what is typed there with a configuration file."""

    site: Site

    def write(self, *lines: str, version: str = V2) -> Path:
        path = self.site.folder / "imageset.yaml"
        head = ("kind: ImageSetConfiguration", f"apiVersion: {version}")
        path.write_text("".join(f"{line}\n" for line in (*head, *lines)))
        return path

    def export(self, *lines: str, flags: Sequence[object] = ("-q",), version: str = V2) -> Ran:
        return airgap(
            "export", "--config", self.write(*lines, version=version), "-o", self.site.archive,
            "--registries-conf", self.site.registries_conf, *flags,
        )  # fmt: skip

    def taken(self) -> set[str]:
        """The references in the archive."""
        return {one["reference"] for one in self.inspected["images"]}

    def asked(self, *typed: object) -> set[str]:
        """The references in an archive that flags ask for."""
        archive = self.site.folder / "asked.tar"
        ran = airgap(
            "export", *typed, "-o", archive, "-q",
            "--registries-conf", self.site.registries_conf,
        )  # fmt: skip
        assert ran.status == 0
        found = airgap("inspect", archive, "--output", "json").json
        archive.unlink()
        return {one["reference"] for one in found["images"]}

    @property
    def inspected(self) -> dict[str, Any]:
        found: dict[str, Any] = airgap("inspect", self.site.archive, "--output", "json").json
        return found

    @property
    def question(self) -> dict[str, Any]:
        """The question in the inventory, read without our own reader."""
        line = self.site.archive.read_bytes()[1536:].split(b"\n", 2)[1]
        question: dict[str, Any] = json.loads(b"{" + line.removesuffix(b",") + b"}")["question"]
        return question


@pytest.fixture
def config(supply: Supply, tmp_path: Path) -> Iterator[Configuring]:
    with open_site(tmp_path, supply) as site:
        yield Configuring(site)


def operators(*entries: str) -> tuple[str, ...]:
    """The lines of ``mirror.operators``; an entry is a catalog, with lines below it."""
    return ("mirror:", "  operators:", *(f"  {line}" for e in entries for line in e.split("\n")))


def entry(catalog: str, *below: str) -> str:
    return "\n".join([f"- catalog: {catalog}", *(f"  {line}" for line in below)])


# What is taken


def test_without_packages_it_is_the_heads(config: Configuring) -> None:
    assert config.export(*operators(entry(CATALOG))).status == 0
    assert config.taken() == config.asked(CATALOG, "--package", "*@head")
    assert config.taken() < config.asked(CATALOG)
    assert config.question["shares"] == [{"packages": ["*@head"]}]


def test_in_full_it_is_everything(config: Configuring) -> None:
    assert config.export(*operators(entry(CATALOG, "full: true"))).status == 0
    assert config.taken() == config.asked(CATALOG)


def test_a_package_is_the_heads_of_its_channels_or_all_of_it(config: Configuring) -> None:
    assert config.export(*operators(entry(OTHER, "packages:", "- name: etcd"))).status == 0
    assert config.taken() == config.asked(OTHER, "--package", "etcd@head")
    config.site.archive.unlink()
    full = entry(OTHER, "full: true", "packages:", "- name: etcd")
    assert config.export(*operators(full)).status == 0
    assert config.taken() == config.asked(OTHER, "--package", "etcd")
    assert config.asked(OTHER, "--package", "etcd@head") < config.taken()


def test_ranges_include_both_ends(config: Configuring) -> None:
    lines = ("packages:", "- name: etcd", "  minVersion: 0.9.0", "  maxVersion: 0.9.2")
    assert config.export(*operators(entry(OTHER, *lines))).status == 0
    assert config.taken() == config.asked(OTHER, "--package", "etcd@>=0.9.0,<=0.9.2")
    bundles = {package["name"]: package["bundles"] for package in config.inspected["packages"]}
    assert set(bundles) == {"etcd"}


def test_each_catalog_has_its_own_packages(config: Configuring) -> None:
    one = entry(CATALOG, "full: true", "packages:", "- name: prometheus")
    two = entry(OTHER, "full: true", "packages:", "- name: etcd")
    assert config.export(*operators(one, two)).status == 0
    etcd, prometheus = ("--package", "etcd"), ("--package", "prometheus")
    wanted = config.asked(CATALOG, *prometheus) | config.asked(OTHER, *etcd)
    assert config.taken() == wanted
    # With flags, both catalogs give all of them.
    assert wanted < config.asked(CATALOG, OTHER, *etcd, *prometheus)


def test_further_images_come_and_blocked_ones_stay(config: Configuring) -> None:
    lines = (
        *operators(entry(CATALOG, "full: true")),
        "  additionalImages:",
        f"  - name: {TOOL}",
        "  blockedImages:",
        "  - name: .*/prometheus.*",
    )
    assert config.export(*lines).status == 0
    everything = config.asked(CATALOG)
    assert config.taken() == {n for n in everything if "prometheus" not in n} | {TOOL}


def test_the_first_version_blocks_one_name(config: Configuring) -> None:
    blocked = "quay.io/test/etcd.0.9.0"
    lines = (*operators(entry(CATALOG, "full: true")), "  blockedImages:", f"  - name: {blocked}")
    assert config.export(*lines, version=V1).status == 0
    assert config.taken() == config.asked(CATALOG) - {blocked}


def test_what_was_exported_arrives(config: Configuring) -> None:
    one, two = entry(CATALOG), entry(OTHER, "packages:", "- name: etcd")
    assert config.export(*operators(one, two)).status == 0
    assert config.site.import_("-q").status == 0
    text = (config.site.manifests / "catalogSource.yaml").read_text()
    assert text.count("kind: CatalogSource") == 2


def test_mirror_takes_the_same(config: Configuring) -> None:
    lines = operators(entry(CATALOG, "packages:", "- name: etcd"))
    assert config.export(*lines).status == 0
    assert config.site.import_("-q", namespace="/olm").status == 0
    by_archive = (config.site.manifests / "mapping.txt").read_text()
    through = ("--insecure", "--registries-conf", config.site.registries_conf, "-q")
    where = f"{config.site.destination.host}/olm"
    into = config.site.folder / "mirrored"
    ran = airgap(
        "mirror", "--config", config.write(*lines), where, *through, "--to-manifests", into
    )
    assert ran.status == 0
    assert (into / "mapping.txt").read_text() == by_archive


# What has no effect


@pytest.mark.parametrize("flags", [(), ("-q",), ("-q", "--output", "json")])
def test_what_is_not_supported_is_named_and_not_ignored(
    config: Configuring, flags: tuple[str, ...]
) -> None:
    package = ("packages:", "- name: etcd", "  defaultChannel: alpha")
    lines = (
        "archiveSize: 4",
        *operators(entry(CATALOG, "targetName: ours", *package)),
        "  platform:",
        "    graph: true",
    )
    ran = config.export(*lines, flags=flags)
    assert ran.status == 0
    told = [line for line in ran.err.splitlines() if "no effect here: " in line]
    assert [line.partition("no effect here: ")[2] for line in told] == [
        "mirror.platform (line 11)",
        "mirror.operators[0].targetName (line 7)",
        "archiveSize: an archive is one file",
        "defaultChannel of etcd, without --rebuild-catalog",
    ]
    assert all("imageset.yaml" in line for line in told)


# What is refused


def test_refuses_a_configuration_without_a_catalog(config: Configuring) -> None:
    ran = config.export("mirror:", "  additionalImages:", f"  - name: {TOOL}")
    assert ran.status == 2
    assert "imageset.yaml: mirror.operators names no catalog" in ran.err


def test_refuses_a_catalog_named_twice(config: Configuring) -> None:
    ran = config.export(*operators(entry(CATALOG), entry(CATALOG)))
    assert ran.status == 2
    assert "names a catalog twice" in ran.err


def test_says_which_catalog_lacks_a_package(config: Configuring) -> None:
    ran = config.export(*operators(entry(OTHER), entry(CATALOG, "packages:", "- name: ectd")))
    assert ran.status == 2
    assert f"{CATALOG}: no package 'ectd'" in ran.err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((CATALOG,), "no CATALOG"),
        (("--package", "etcd"), "--package and --config exclude each other"),
        (("--image", TOOL), "--image and --config exclude each other"),
        (("-f", "/dev/null"), "--config has nothing to say beside -f"),
    ],
)
def test_the_file_is_all_that_is_said_about_what_to_take(
    config: Configuring, flags: tuple[str, ...], words: str
) -> None:
    before = len(config.site.upstream.asked)
    ran = config.export(*operators(entry(CATALOG)), flags=flags)
    assert ran.status == 2
    assert words in ran.err
    assert len(config.site.upstream.asked) == before


def test_refuses_a_file_that_is_not_there(config: Configuring) -> None:
    ran = airgap("export", "--config", config.site.folder / "none.yaml", "-o", "x.tar")
    assert ran.status == 2
    assert "none.yaml: No such file" in ran.err


# Again


def test_the_same_configuration_continues_and_another_does_not(config: Configuring) -> None:
    lines = operators(entry(CATALOG, "full: true"))
    config.site.upstream.fault("GET", r"/v2/.*/blobs/sha256:.*", missing(), hits=range(9, 100))
    assert config.export(*lines, flags=("-q", "--no-continue-on-error")).status == 5
    config.site.upstream.heal()
    ran = config.export(*operators(entry(CATALOG, "packages:", "- name: etcd")))
    assert ran.status == 2
    assert f"; now package etcd@head of {CATALOG}, no longer all of {CATALOG}" in ran.err
    assert config.export(*lines).status == 0
    assert config.taken() == config.asked(CATALOG)
    ran = config.export("# said otherwise", *lines, flags=())
    assert ran.status == 0
    assert "finished already" in ran.err
