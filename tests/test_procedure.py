"""The procedure that OpenShift documents for a catalog in Package Manifest Format, step by step.

OpenShift Container Platform 4.6, "Using Operator Lifecycle Manager on restricted networks",
"Mirroring a Package Manifest Format catalog image": from a catalog image behind a login to
digests that are pulled from a mirror registry, with an edited list in between.
"""

from __future__ import annotations

import base64
import json
import shutil
import sqlite3
import subprocess
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from airgap.digest import digest_of
from airgap.oci import media_types
from airgap.reference import ImageReference
from tests.support import images
from tests.support.command import airgap
from tests.support.docker_registry import LOGIN, docker_registry, needs_docker_registry
from tests.support.http_client import Answer, ask
from tests.support.lab import CATALOG, CATALOGS, Lab, Recipe, build_lab_of_manifests
from tests.support.promise import MappingFile
from tests.support.shared import SHARED
from tests.support.upstream import RegistryUpstream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.command import Ran

pytestmark = needs_docker_registry

EXTRA = "quay.io/lab/tool:1"
"""An image that the catalog knows nothing of."""

LOGGED_IN = {"Authorization": f"Basic {base64.b64encode(':'.join(LOGIN).encode()).decode()}"}
ACCEPT = {"Accept": ",".join(media_types.ACCEPTED)}

SOURCES = [CATALOGS / "package-manifests" / "pkgman-flat"]
if SHARED is not None:
    SOURCES.append(SHARED / "catalogs" / "pkgman-small")


@dataclass(frozen=True)
class Workstation:
    """A host that reaches the source, and two mirror registries, all of them behind a login."""

    folder: Path
    lab: Lab
    source: str
    mirror: str
    inside: str

    def run(self, *typed: object) -> Ran:
        """Type a command; the login is in the file that ``REG_CREDS`` names."""
        return airgap(*typed)

    @property
    def sources(self) -> tuple[object, ...]:
        """The flags that say where the internet is."""
        return ("--registries-conf", self.folder / "registries.conf")

    @property
    def files(self) -> Path:
        return self.folder / "manifests"

    def mapping(self, folder: str = "manifests") -> dict[str, str]:
        return MappingFile.read(self.folder / folder / "mapping.txt").targets


@pytest.fixture(scope="module", params=SOURCES, ids=lambda path: path.name)
def workstation(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workstation]:
    folder = tmp_path_factory.mktemp("procedure")
    with ExitStack() as stack:
        hosts = [
            stack.enter_context(docker_registry(folder / name, closed=True))
            for name in ("source", "mirror", "inside")
        ]
        upstream = stack.enter_context(RegistryUpstream(hosts[0], LOGGED_IN))
        lab = build_lab_of_manifests(request.param, upstream, recipe=Recipe(layer_bytes=2048))
        tool = images.image([images.random_layer("tool", 3000, "tool")])
        upstream.push("quay.io/lab/tool", tool, "1")
        (folder / "registries.conf").write_text(lab.registries_conf(hosts[0]))
        login = {"auth": LOGGED_IN["Authorization"].removeprefix("Basic ")}
        credentials = folder / "reg-creds.json"
        credentials.write_text(json.dumps({"auths": dict.fromkeys(hosts, login)}))
        credentials.chmod(0o600)
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("REG_CREDS", str(credentials))
        patch.chdir(folder)
        yield Workstation(folder, lab, *hosts)


@pytest.fixture(scope="module")
def listed(workstation: Workstation) -> Ran:
    """What would be mirrored: the files, and nothing at the mirror."""
    flags = ("--manifests-only", "--insecure", "--index-filter-by-os", "linux/amd64")
    to = ("--to-manifests", workstation.files)
    where = f"{workstation.mirror}/olm"
    return workstation.run("mirror", CATALOG, where, *flags, *to, *workstation.sources)


@pytest.fixture(scope="module")
def edited(workstation: Workstation, listed: Ran) -> Path:
    """A few lines of the list: some as they were, one elsewhere, one in two places, one more."""
    assert listed.status == 0
    mapping = {s: t for s, t in workstation.mapping().items() if "@" in s}
    (kept, there), (moved, _), (doubled, second), *_ = mapping.items()
    where = f"{workstation.mirror}/olm"
    path = workstation.folder / "edited.txt"
    path.write_text(
        f"# what we need on Saturday\n{kept}={there}\n"
        f"{moved}={where}/moved/here:v7   # not where it was\n"
        f"{doubled} {second} {where}/again:v8\n"
        f"{EXTRA}={where}/lab-tool:1\n"
    )
    return path


@pytest.fixture(scope="module")
def imported(workstation: Workstation, edited: Path) -> Ran:
    archive = workstation.folder / "olm.tar"
    exported = workstation.run("export", CATALOG, "-f", edited, "-o", archive, *workstation.sources)
    assert exported.status == 0, exported.err
    carried = shutil.copy(archive, workstation.folder / "carried.tar")
    to = ("--to-manifests", workstation.folder / "inside-manifests")
    return workstation.run("import", carried, f"{workstation.inside}/site", "--insecure", *to)


def get(host: str, repository: str, name: object) -> Answer:
    path = f"/v2/{repository}/manifests/{name}"
    return ask(host, "GET", path, headers=LOGGED_IN | ACCEPT)


def repositories(host: str) -> set[str]:
    found = ask(host, "GET", "/v2/_catalog?n=1000", headers=LOGGED_IN).json["repositories"]
    return {path for path in found if ask_tags(host, path)}


def ask_tags(host: str, repository: str) -> Any:
    return ask(host, "GET", f"/v2/{repository}/tags/list", headers=LOGGED_IN).json.get("tags")


def root(workstation: Workstation, source: str) -> str:
    """The digest that a source stands for upstream."""
    reference = ImageReference.parse(source).with_defaults()
    host = "docker.io" if reference.registry == "index.docker.io" else reference.registry
    name = reference.digest or reference.tag
    return str(digest_of(get(workstation.source, f"{host}/{reference.path}", name).body))


def test_without_the_login_nothing_is_read(workstation: Workstation) -> None:
    nobody = workstation.folder / "nobody.json"
    nobody.write_text("{}")
    ran = workstation.run("export", CATALOG, "-o", "none.tar", "-a", nobody, *workstation.sources)
    assert ran.status == 5
    assert not (workstation.folder / "none.tar").exists()


class TestTheListOfWhatWouldBeMirrored:
    def test_is_written_without_a_copy(self, workstation: Workstation, listed: Ran) -> None:
        assert listed.status == 0
        assert repositories(workstation.mirror) <= {"olm/moved/here"}  # what later steps copy
        assert {file.name for file in workstation.files.iterdir()} >= {
            "mapping.txt",
            "imageContentSourcePolicy.yaml",
            "imageDigestMirrorSet.yaml",
            "catalogSource.yaml",
            "bundles.db",
        }

    def test_names_every_image(self, workstation: Workstation, listed: Ran) -> None:
        wanted = {image.reference for image in workstation.lab.images.values()} | {CATALOG}
        names = {ImageReference.parse(text).with_defaults().exact for text in wanted}
        assert workstation.mapping().keys() == names

    def test_says_where_the_database_is(self, workstation: Workstation, listed: Ran) -> None:
        assert f"database  {workstation.files / 'bundles.db'}" in listed.out

    def test_is_the_same_from_an_export(self, workstation: Workstation, listed: Ran) -> None:
        into = workstation.folder / "from-export"
        ran = workstation.run(
            "export", CATALOG, "--manifests-only", "--for", f"{workstation.mirror}/olm",
            "--to-manifests", into, *workstation.sources,
        )  # fmt: skip
        assert ran.status == 0
        assert _content(into) == _content(workstation.files)

    def test_is_images_alone_without_a_destination(self, workstation: Workstation) -> None:
        into = workstation.folder / "images-alone"
        ran = workstation.run(
            "export", CATALOG, "--manifests-only", "--to-manifests", into, *workstation.sources
        )
        assert ran.status == 0
        assert {file.name for file in into.iterdir()} == {"images.txt", "bundles.db"}
        names = sorted(image.reference for image in workstation.lab.images.values())
        assert (into / "images.txt").read_text().splitlines() == sorted(names, key=str.encode)


class TestTheDatabase:
    SQL = "select * from related_image where operatorbundle_name like 'etcdoperator%'"

    def test_answers_sqlite(self, workstation: Workstation, listed: Ran) -> None:
        with closing(sqlite3.connect(workstation.files / "bundles.db")) as database:
            asked = database.execute(self.SQL)
            assert [column[0] for column in asked.description] == ["image", "operatorbundle_name"]
            rows = asked.fetchall()
        known = {image.reference for image in workstation.lab.images.values()}
        assert rows
        assert {image for image, _ in rows} <= known

    def test_is_the_same_to_whoever_asks(self, workstation: Workstation, listed: Ran) -> None:
        by_file = workstation.run("catalog", "query", workstation.files / "bundles.db", self.SQL)
        by_name = workstation.run("catalog", "query", CATALOG, self.SQL, *workstation.sources)
        assert by_name.status == 0
        assert by_name.out == by_file.out
        if program := shutil.which("sqlite3"):
            line = [program, "-line", str(workstation.files / "bundles.db"), self.SQL]
            shown = subprocess.run(line, check=True, capture_output=True, text=True, timeout=60)
            assert sorted(by_file.out.split()) == sorted(shown.stdout.split())


class TestAnEditedList:
    def test_is_followed_across_the_gap(
        self, workstation: Workstation, edited: Path, imported: Ran
    ) -> None:
        assert imported.status == 0, imported.err
        expected = {
            target.removeprefix(f"{workstation.mirror}/olm/"): root(workstation, source)
            for source, targets in _pairs(edited)
            for target in targets
        }
        expected["lab-catalog:v1"] = str(workstation.lab.catalog_digest)
        host = workstation.inside
        assert repositories(host) == {f"site/{_split(place)[0]}" for place in expected}
        for place, digest in expected.items():
            repository, tag = _split(place)
            assert str(digest_of(get(host, f"site/{repository}", tag).body)) == digest

    def test_is_followed_without_a_gap(self, workstation: Workstation, edited: Path) -> None:
        ran = workstation.run(
            "mirror", "-f", edited, "--filter-by-os", ".*", "--insecure", *workstation.sources
        )
        assert ran.status == 0, ran.err
        for source, targets in _pairs(edited):
            for target in targets:
                reference = ImageReference.parse(target)
                there = get(workstation.mirror, reference.path, reference.tag)
                assert str(digest_of(there.body)) == root(workstation, source)

    def test_takes_no_image_apart(self, workstation: Workstation, edited: Path) -> None:
        ran = workstation.run("mirror", "-f", edited, "--filter-by-os", "linux/amd64")
        assert ran.status == 2
        assert "digest" in ran.err


class TestWhatTheClusterGets:
    def test_a_node_finds_every_digest_at_the_mirror(
        self, workstation: Workstation, edited: Path, imported: Ran
    ) -> None:
        (policy,) = self._documents(workstation, "imageContentSourcePolicy.yaml")
        mirrors = {m["source"]: m["mirrors"] for m in policy["spec"]["repositoryDigestMirrors"]}
        pinned = [ImageReference.parse(source) for source, _ in _pairs(edited) if "@" in source]
        assert len(pinned) == 3
        for reference in pinned:
            # A node asks one mirror after the other until one has the digest.
            places = (mirror.partition("/") for mirror in mirrors[str(reference.repository)])
            pulled = (get(host, path, reference.digest) for host, _, path in places)
            found = next(answer for answer in pulled if answer.status == 200)
            assert digest_of(found.body) == reference.digest

    @pytest.mark.skipif(shutil.which("skopeo") is None, reason="no skopeo here")
    def test_another_program_pulls_the_catalog_by_digest(
        self, workstation: Workstation, imported: Ran
    ) -> None:
        (source,) = self._documents(workstation, "catalogSource.yaml")
        image = source["spec"]["image"]
        assert image.endswith(f"@{workstation.lab.catalog_digest}")
        login = ("--creds", ":".join(LOGIN), "--tls-verify=false")
        command = ["skopeo", "inspect", "--raw", *login, f"docker://{image}"]
        pulled = subprocess.run(command, check=True, capture_output=True, timeout=60)
        assert digest_of(pulled.stdout) == workstation.lab.catalog_digest

    def test_the_operator_is_told_what_applying_does(self, imported: Ran) -> None:
        assert "global pull secret" in imported.out
        assert "drain" in imported.out

    @staticmethod
    def _documents(workstation: Workstation, name: str) -> list[Any]:
        text = (workstation.folder / "inside-manifests" / name).read_text()
        return [document for document in yaml.safe_load_all(text) if document]


def _content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def _pairs(edited: Path) -> list[tuple[str, list[str]]]:
    pairs = []
    for line in edited.read_text().splitlines():
        source, *targets = line.partition("#")[0].replace("=", " ").split() or [""]
        if source:
            pairs.append((source, targets))
    return pairs


def _split(place: str) -> tuple[str, str]:
    repository, _, tag = place.rpartition(":")
    return repository, tag
