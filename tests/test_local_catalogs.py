"""Catalogs from the local disk, made into images: what is in these, and what becomes of them."""

from __future__ import annotations

import base64
import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from airgap.registry.directory import DirectoryStore
from tests.support import flat, images
from tests.support.command import airgap
from tests.support.faults import answer, challenge
from tests.support.lab import CATALOG, CATALOGS, Recipe, build_lab_of_manifests
from tests.support.promise import MappingFile, same_bytes
from tests.support.second_reader import of_database
from tests.support.site import Site, Supply, open_site
from tests.support.upstream import StoreUpstream, put
from tests.test_interruption import BLOB, KILLED, MANIFEST, Victim

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tests.support.command import Ran
    from tests.support.flat import Flat
    from tests.support.images import Image

MANIFESTS = CATALOGS / "package-manifests" / "pkgman-flat"
CONFIGS = "operators.operatorframework.io.index.configs.v1"
DATABASE = "operators.operatorframework.io.index.database.v1"
BASE = "quay.io/lab/base:v1"
ALONE = "must be served by an operator-registry"


@pytest.fixture(scope="module")
def supply(tmp_path_factory: pytest.TempPathFactory) -> Supply:
    folder = tmp_path_factory.mktemp("supply")
    store = DirectoryStore(folder, durable=False)
    recipe = Recipe(layer_bytes=512)
    lab = build_lab_of_manifests(MANIFESTS, StoreUpstream(store), recipe=recipe)
    put(store, "quay.io/lab/base", base({"Entrypoint": ["/bin/opm"]}), "v1")
    return Supply(folder, lab)


@pytest.fixture
def site(supply: Supply, tmp_path: Path) -> Iterator[Site]:
    with open_site(tmp_path, supply) as opened:
        yield opened


def base(process: Mapping[str, object], files: Mapping[str, bytes] | None = None) -> Image:
    """An operator-registry for two platforms, with a catalog of its own."""
    labels = {CONFIGS: "/elsewhere", DATABASE: "/other.db", "vendor": "lab"}
    content = {"bin/opm": b"program", **(files or {})}
    return images.index(
        [
            images.image(
                [images.layer({**content, "etc/arch": str(platform).encode()})],
                kind="docker",
                platform=platform,
                process={"Labels": labels, "User": "1001", **process},
            )
            for platform in (images.AMD64, images.ARM64)
        ],
        kind="docker",
    )


def put_base(site: Site, name: str, image: Image) -> str:
    put(DirectoryStore(site.supply.folder, durable=False), f"quay.io/lab/{name}", image, "v1")
    return f"quay.io/lab/{name}:v1"


def manifests(site: Site, name: str = "my-ops", folder: Path | None = None) -> Path:
    """Package manifests on the local disk that name the laboratory's images."""
    target = (folder or site.folder) / name
    shutil.copytree(MANIFESTS, target)
    digests = {
        old.partition("@")[2]: str(image.root)
        for old, image in site.supply.lab.images.items()
        if "@" in old
    }
    for path in target.rglob("*.yaml"):
        text = path.read_text()
        for old, new in digests.items():
            text = text.replace(old, new)
        path.write_text(text)
    return target


def file_based(site: Site, name: str = "fbc", more: Mapping[str, bytes] | None = None) -> Path:
    """A file-based catalog on the local disk with two packages, each in its own way."""
    first, second = sorted(site.supply.lab.references.values())[:2]
    package = [
        {"schema": "olm.package", "name": "thing", "defaultChannel": "stable"},
        _channel("thing", "stable", [{"name": "thing.v1"}]),
        {"schema": "olm.bundle", "package": "thing", "name": "thing.v1", "image": first},
    ]
    other = (
        "schema: olm.package\nname: other\ndefaultChannel: beta\n---\n"
        "schema: olm.channel\npackage: other\nname: beta\nentries: [{name: other.v1}]\n---\n"
        f"schema: olm.bundle\npackage: other\nname: other.v1\nimage: {second}\n"
    )
    folder = site.folder / name
    for path, content in {
        "thing/catalog.json": "\n".join(map(json.dumps, package)).encode(),
        "other/in/deep.yaml": other.encode(),
        **(more or {}),
    }.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    return folder


def _channel(package: str, name: str, entries: list[dict[str, str]]) -> dict[str, Any]:
    return {"schema": "olm.channel", "package": package, "name": name, "entries": entries}


def inspected(archive: Path) -> Any:
    return airgap("inspect", archive, "--output", "json").json


def catalog_of(archive: Path) -> list[Flat]:
    (catalog,) = inspected(archive)["catalogs"]
    return flat.in_archive(archive, catalog["reference"])


def beside(site: Site) -> set[str]:
    return {path.name for path in site.folder.glob("olm.tar*")}


class TestPackageManifests:
    def test_become_a_database_in_an_image_of_one_layer(self, site: Site) -> None:
        ran = site.export(catalog=str(manifests(site)))
        assert ran.status == 0
        assert ALONE in ran.err
        (image,) = catalog_of(site.archive)
        assert image.platform == "linux/amd64"
        assert image.layers == [{"bundles.db"}]
        assert image.process == {"Labels": {DATABASE: "/bundles.db"}}
        entry = image.entries["bundles.db"]
        assert (entry.mode, entry.uid, entry.gid, entry.mtime) == (0o644, 0, 0, 0)

    def test_a_second_reader_finds_in_it_what_travels(self, site: Site) -> None:
        site.export("-q", catalog=str(manifests(site)))
        (image,) = catalog_of(site.archive)
        database = site.folder / "second.db"
        database.write_bytes(image.files["bundles.db"])
        reading = of_database(database)
        assert set(reading.packages) == {"etcd", "strimzi-kafka-operator"}
        named = {name for found in reading.images.values() for name in found}
        assert named == set(site.supply.lab.references.values())
        there = {one["reference"] for one in inspected(site.archive)["images"]}
        assert there - named == {inspected(site.archive)["catalogs"][0]["reference"]}
        assert named < there

    def test_a_broken_file_costs_itself(self, site: Site) -> None:
        folder = manifests(site)
        broken = next(path for path in folder.rglob("*0.11.1*.yaml"))
        broken.write_text("kind: [")
        ran = site.export("--output", "json", "-q", catalog=str(folder))
        assert ran.status == 3
        (hole,) = [one for one in ran.json["missing"] if one["reason"] == "unreadable"]
        assert str(broken.relative_to(folder)) in hole["reference"]
        assert airgap("verify", site.archive).status == 3
        assert site.import_("-q").status == 3

    def test_can_be_reduced_to_a_part(self, site: Site) -> None:
        flags = ("-q", "--rebuild-catalog", "--package", "strimzi-kafka-operator@head")
        assert site.export(*flags, catalog=str(manifests(site))).status == 0
        (image,) = catalog_of(site.archive)
        database = site.folder / "second.db"
        database.write_bytes(image.files["bundles.db"])
        reading = of_database(database)
        assert set(reading.packages) == {"strimzi-kafka-operator"}
        there = {one["reference"] for one in inspected(site.archive)["images"]}
        named = {name for found in reading.images.values() for name in found}
        assert named == {name for name in there if not name.startswith("localhost/")}


class TestADatabase:
    def test_is_taken_as_it_is(self, site: Site) -> None:
        database = CATALOGS / "oc-test.db"
        assert site.export("-q", catalog=str(database)).status == 3  # images of another laboratory
        (image,) = catalog_of(site.archive)
        assert image.files == {"bundles.db": database.read_bytes()}


class TestAFileBasedDirectory:
    def test_goes_to_configs_as_it_is(self, site: Site) -> None:
        folder = file_based(site, more={".hidden.json": b"", "README": b"# nothing\n"})
        (folder / "other").chmod(0o700)
        assert site.export("-q", catalog=str(folder)).status == 0
        (image,) = catalog_of(site.archive)
        files = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.*")}
        files["README"] = b"# nothing\n"
        assert image.files == {f"configs/{n}": c for n, c in files.items()}
        assert image.process == {"Labels": {CONFIGS: "/configs"}}
        assert {entry.mode for entry in image.entries.values() if entry.isdir()} == {0o755}
        assert {entry.mode for entry in image.entries.values() if entry.isfile()} == {0o644}

    def test_leaves_out_a_file_with_a_fault_as_no_cluster_would_serve_it(self, site: Site) -> None:
        folder = file_based(site, more={"bad: one/x.json": b'{"schema": ', "bad.yaml": b"a: [\n"})
        ran = site.export("--output", "json", catalog=str(folder))
        assert ran.status == 3
        assert {one["reason"] for one in ran.json["missing"]} == {"unreadable"}
        assert len(ran.json["missing"]) == 2
        assert "bad: one/x.json has a fault and is left out" in ran.err
        (image,) = catalog_of(site.archive)
        assert {name for name in image.files if "bad" in name} == set()
        assert len(image.files) == 2
        assert len(inspected(site.archive)["packages"]) == 2
        # The catalog that travels has no fault any more.
        assert airgap("catalog", "list", site.archive).status == 0

    def test_is_refused_when_every_file_has_a_fault(self, site: Site) -> None:
        folder = site.folder / "fbc"
        folder.mkdir()
        good = json.dumps({"schema": "olm.package", "name": "a", "defaultChannel": "b"})
        (folder / "all.json").write_text(good + '\n{"schema": ')
        ran = site.export(catalog=str(folder))
        assert ran.status == 4
        assert "all.json" in ran.err
        assert "mend" in ran.err


class TestABase:
    @pytest.mark.parametrize(
        ("process", "command"),
        [
            ({"Entrypoint": ["/bin/opm"], "Cmd": ["serve", "/x"]}, "registry serve --database"),
            ({"Cmd": ["/usr/bin/registry-server", "--database", "/old.db"]}, "--database"),
        ],
    )
    def test_serves_a_database(
        self, site: Site, process: dict[str, list[str]], command: str
    ) -> None:
        name = put_base(site, "known", base(process))
        ran = site.export("--base", name, catalog=str(manifests(site)))
        assert ran.status == 0
        assert ALONE not in ran.err
        found = catalog_of(site.archive)
        assert [one.platform for one in found] == ["linux/amd64", "linux/arm64"]
        program = [*process.get("Entrypoint", ()), *process["Cmd"]][0]
        for image in found:
            assert image.process == {
                "Labels": {"vendor": "lab", DATABASE: "/bundles.db"},
                "User": "1001",
                "Entrypoint": [program],
                "Cmd": [*command.split(), "/bundles.db"],
            }
            assert set(image.files) == {"bin/opm", "etc/arch", "bundles.db"}
            assert image.files["etc/arch"].decode() == image.platform

    def test_serves_documents_and_nothing_that_it_had_there(self, site: Site) -> None:
        files = {"configs/old/catalog.json": b'{"schema":"olm.package","name":"old"}'}
        process = {"Entrypoint": ["/bin/opm"], "Cmd": ["serve", "/c", "--cache-dir=/tmp/cache"]}
        name = put_base(site, "full", base(process, files))
        folder = file_based(site)
        assert site.export("-q", "--base", name, catalog=str(folder)).status == 0
        for image in catalog_of(site.archive):
            assert image.process["Cmd"] == ["serve", "/configs"]
            assert {name for name in image.files if name.startswith("configs/")} == {
                f"configs/{path.relative_to(folder)}" for path in folder.rglob("*.*")
            }

    @pytest.mark.parametrize(
        "process",
        [
            {"Entrypoint": ["/bin/sh", "-c"], "Cmd": ["opm serve"]},
            {},
            {"Entrypoint": "opm", "Labels": ["no", "map"]},
        ],
    )
    def test_with_another_program_keeps_its_command_and_it_is_said_once(
        self, site: Site, process: dict[str, object]
    ) -> None:
        name = put_base(site, "strange", base(process))
        ran = site.export("--base", name, catalog=str(file_based(site)))
        assert ran.status == 0
        assert ran.err.count("its command stays as it is, and must serve /configs") == 1
        for image in catalog_of(site.archive):
            for key in ("Entrypoint", "Cmd"):
                assert image.process.get(key) == process.get(key)

    def test_comes_from_a_registry_that_wants_to_know_who_asks(self, site: Site) -> None:
        folder = file_based(site)
        login = base64.b64encode(b"robot:swordfish").decode()
        site.upstream.fault(
            "GET", "/v2/quay.io/lab/base/.*", challenge('Basic realm="lab"', f"Basic {login}")
        )
        assert site.export("-q", "--base", BASE, catalog=str(folder)).status == 5
        auth = site.folder / "auth.json"
        auth.write_text(json.dumps({"auths": {site.upstream.host: {"auth": login}}}))
        auth.chmod(0o600)
        ran = site.export("-q", "--base", BASE, "-a", auth, catalog=str(folder))
        assert ran.status == 0
        assert login.encode() not in site.archive.read_bytes()

    def test_is_refused_where_no_catalog_is_local(self, site: Site) -> None:
        ran = site.export("--base", BASE)
        assert ran.status == 2
        assert "no catalog is on the local disk" in ran.err
        assert site.upstream.asked == []


@pytest.mark.parametrize("make", [manifests, file_based])
@pytest.mark.parametrize("flags", [(), ("--base", BASE)])
def test_the_same_files_give_the_same_archive_anywhere(
    site: Site, make: Callable[[Site], Path], flags: tuple[str, ...]
) -> None:
    first = make(site)
    second = site.folder / "another" / "place" / first.name
    shutil.copytree(first, second)
    for number, path in enumerate(sorted(second.rglob("*"), reverse=True)):
        os.utime(path, (number, number))
        path.chmod(0o755)
    other = site.folder / "other.tar"
    assert site.export("-q", *flags, catalog=str(first)).status == 0
    assert site.export("-q", *flags, catalog=str(second), archive=other).status == 0
    assert same_bytes(site.archive, other)
    assert str(site.folder).encode() not in site.archive.read_bytes()


@pytest.mark.parametrize(
    ("directory", "name"),
    [("My Ops_4.6!", "my-ops-4-6"), ("каталог", "catalog"), ("x" * 200, "x" * 63)],
)
def test_the_image_is_called_by_the_directory_and_its_digest(
    site: Site, directory: str, name: str
) -> None:
    folder = file_based(site, directory)
    assert site.export("-q", catalog=str(folder)).status == 0
    (catalog,) = inspected(site.archive)["catalogs"]
    short = catalog["digest"].removeprefix("sha256:")[:12]
    assert catalog["reference"] == f"localhost/{name}:{short}"


class TestRunAgain:
    def test_on_a_finished_archive_there_is_nothing_to_do(self, site: Site) -> None:
        folder = manifests(site)
        assert site.export("-q", "--base", BASE, catalog=str(folder)).status == 0
        before = site.archive.read_bytes()
        ran = site.export("--base", BASE, catalog=str(folder))
        assert ran.status == 0
        assert "nothing to do" in ran.err
        assert site.archive.read_bytes() == before
        assert beside(site) == {"olm.tar"}

    def test_after_the_files_have_changed_it_is_said(self, site: Site) -> None:
        folder = file_based(site)
        assert site.export("-q", catalog=str(folder)).status == 0
        (folder / "more.yaml").write_text("schema: olm.package\nname: c\ndefaultChannel: d\n")
        ran = site.export(catalog=str(folder))
        assert ran.status == 2
        assert f"{folder} as it was" in ran.err
        assert "its files have changed" in ran.err
        assert beside(site) == {"olm.tar"}

    def test_after_the_base_has_moved_it_is_said(self, site: Site) -> None:
        folder = file_based(site)
        name = put_base(site, "moving", base({"Entrypoint": ["/bin/opm"]}))
        assert site.export("-q", "--base", name, catalog=str(folder)).status == 0
        put_base(site, "moving", base({"Entrypoint": ["/bin/opm"]}, {"new": b"er"}))
        ran = site.export("--base", name, catalog=str(folder))
        assert ran.status == 2
        assert "what --base names" in ran.err

    def test_another_question_is_another_question(self, site: Site) -> None:
        folder = file_based(site)
        assert site.export("-q", catalog=str(folder)).status == 0
        (folder / "more.yaml").write_text("schema: olm.package\nname: c\ndefaultChannel: d\n")
        ran = site.export("--package", "thing", catalog=str(folder))
        assert ran.status == 2
        assert "another question" in ran.err

    @pytest.mark.parametrize("what", ["files", "base"])
    def test_what_cannot_be_made_leaves_nothing_beside_a_finished_archive(
        self, site: Site, what: str
    ) -> None:
        folder = file_based(site)
        assert site.export("-q", "--base", BASE, catalog=str(folder)).status == 0
        if what == "base":
            site.upstream.fault("GET", "/v2/quay.io/lab/base/.*", answer(404))
        else:
            shutil.rmtree(folder)
            folder.mkdir()
        ran = site.export("--base", BASE, catalog=str(folder))
        assert ran.status == (5 if what == "base" else 4)
        assert beside(site) == {"olm.tar"}

    @pytest.mark.parametrize(("method", "hit"), [(MANIFEST, 1), (MANIFEST, 6), (BLOB, 2)])
    def test_after_it_was_killed_it_continues(self, site: Site, method: str, hit: int) -> None:
        folder, undisturbed = manifests(site), site.folder / "undisturbed.tar"
        flags = ("--base", BASE, "--max-per-registry", 1)
        assert site.export("-q", *flags, catalog=str(folder), archive=undisturbed).status == 0
        victim = Victim()
        site.upstream.fault("GET", method, victim.midway, hits=(hit,))
        assert victim.run(site, *site.exporting(*flags, catalog=str(folder))) == KILLED
        site.upstream.heal()
        assert site.export("-q", *flags, catalog=str(folder)).status == 0
        assert same_bytes(site.archive, undisturbed)
        assert beside(site) == {"olm.tar"}

    def test_after_it_was_killed_while_fetching_the_base_is_not_needed_but_by_name(
        self, site: Site
    ) -> None:
        folder, undisturbed = manifests(site), site.folder / "undisturbed.tar"
        flags = ("--base", BASE, "--max-per-registry", 1)
        assert site.export("-q", *flags, catalog=str(folder), archive=undisturbed).status == 0
        victim = Victim()
        site.upstream.fault("GET", "/v2/.*strimzi.*/blobs/.*", victim.before, hits=(1,))
        assert victim.run(site, *site.exporting(*flags, catalog=str(folder))) == KILLED
        assert "olm.tar.partial" in beside(site)
        site.upstream.heal()
        asked = len(site.upstream.asked)
        assert site.export("-q", *flags, catalog=str(folder)).status == 0
        assert same_bytes(site.archive, undisturbed)
        children = base({"Entrypoint": ["/bin/opm"]}).children
        layers = {str(child.blobs[-1].digest) for child in children}
        again = {one.path.rpartition("/")[2] for one in site.upstream.asked[asked:]}
        assert not layers & again

    def test_missing_content_of_other_images_is_filled(self, site: Site) -> None:
        folder, undisturbed = manifests(site), site.folder / "undisturbed.tar"
        assert site.export("-q", catalog=str(folder), archive=undisturbed).status == 0
        lost = list(next(iter(site.supply.lab.images.values())).blobs)[-1]
        site.upstream.hide(lost)
        assert site.export("-q", catalog=str(folder)).status == 3
        site.upstream.heal()
        assert site.export("-q", catalog=str(folder)).status == 0
        assert same_bytes(site.archive, undisturbed)

    def test_what_was_made_here_and_is_lost_is_named_so(self, site: Site) -> None:
        folder = manifests(site)
        victim = Victim()
        site.upstream.fault("GET", BLOB, victim.before, hits=(1,))
        assert victim.run(site, *site.exporting(catalog=str(folder))) == KILLED
        site.upstream.heal()
        partial = site.folder / "olm.tar.partial"
        content = partial.read_bytes()
        at = content.index(b"\x1f\x8b\x08")
        partial.write_bytes(content[: at + 20] + b"damaged" + content[at + 27 :])
        ran = site.export("--recheck", "--output", "json", catalog=str(folder))
        assert ran.status == 3
        (hole,) = ran.json["missing"]
        assert hole["reference"].startswith("localhost/my-ops:")
        assert "export anew" in hole["detail"]
        assert site.import_("-q").status == 4


@pytest.mark.parametrize("name", ["./my-opps", "/no/where"])
def test_what_can_only_be_a_path_is_not_taken_for_a_reference(
    site: Site, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(site.folder)
    ran = site.export(catalog=name)
    assert ran.status == 2
    assert "there is no such directory" in ran.err


def test_an_archive_inside_the_catalog_is_refused(site: Site) -> None:
    folder = file_based(site)
    ran = site.export(catalog=str(folder), archive=folder / "deep" / ".." / "olm.tar")
    assert ran.status == 2
    assert "would become a part of it" in ran.err
    assert {path.name for path in folder.iterdir()} == {"thing", "other"}


def test_the_files_of_a_mirror_inside_the_catalog_are_refused(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file_based(site))
    ran = airgap("mirror", ".", site.destination.host, "--insecure")
    assert ran.status == 2
    assert "would become a part of it" in ran.err
    assert site.destination.asked == []


def test_a_list_inside_the_catalog_is_refused(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = file_based(site)
    inside = airgap("export", catalog, "--manifests-only", "--to-manifests", catalog / "out")
    database = ("--path", f"/:{catalog}", "--to-manifests", tmp_path / "out")
    beside_it = airgap("export", catalog, "--manifests-only", *database)
    monkeypatch.chdir(catalog)
    for ran in (inside, beside_it, airgap("export", ".", "--manifests-only")):
        assert ran.status == 2
        assert "would become a part of it" in ran.err
    assert {path.name for path in catalog.iterdir()} == {"thing", "other"}


class TestImport:
    @pytest.fixture
    def imported(self, site: Site) -> Ran:
        site.export("-q", "--base", BASE, catalog=str(file_based(site)))
        ran = site.import_("-q", "--output", "json", namespace="/olm")
        assert ran.status == 0
        return ran

    def place(self, site: Site) -> str:
        (catalog,) = inspected(site.archive)["catalogs"]
        short = catalog["digest"].removeprefix("sha256:")[:12]
        return f"{site.destination.host}/olm/fbc:{short}"

    def test_the_catalog_stands_in_the_mapping_as_a_comment(
        self, site: Site, imported: Ran
    ) -> None:
        mapping = MappingFile.read(site.manifests / "mapping.txt")
        assert len(mapping.targets) == 2
        (comment,) = mapping.comments
        place = self.place(site)
        assert comment.startswith(f"# localhost/fbc:{place[-12:]}={place}")
        assert "made of local files" in comment

    def test_the_cluster_is_told_of_no_localhost_but_of_the_catalog(
        self, site: Site, imported: Ran
    ) -> None:
        (digest,) = (one["digest"] for one in inspected(site.archive)["catalogs"])
        pulled = f"{site.destination.host}/olm/fbc@{digest}"
        for name in ("catalogSource.yaml", "clusterCatalog.yaml"):
            assert pulled in (site.manifests / name).read_text()
        sets = [path.read_text() for path in site.manifests.glob("image*.yaml")]
        assert sets
        assert not [text for text in sets if "localhost" in text]

    def test_skopeo_gets_the_same_image_from_the_registry(self, site: Site, imported: Ran) -> None:
        found = flat.in_registry(self.place(site), site.folder / "copy")
        assert [one.files for one in found] == [one.files for one in catalog_of(site.archive)]
        assert [one.config for one in found] == [one.config for one in catalog_of(site.archive)]

    def test_a_mirror_brings_the_same(self, site: Site, imported: Ran) -> None:
        files = {path.name: path.read_bytes() for path in site.manifests.iterdir()}
        tags = site.tags_at_destination()
        ran = site.mirror(
            "-q", "--base", BASE, "--output", "json", catalog=str(site.folder / "fbc"),
            namespace="/olm",
        )  # fmt: skip
        assert ran.status == 0
        assert ran.json["id"] == imported.json["id"]
        assert ran.json["manifests_sent"] == 0
        assert {path.name: path.read_bytes() for path in site.manifests.iterdir()} == files
        assert site.tags_at_destination() == tags


def test_a_place_in_its_image_is_refused_as_there_is_none_yet(site: Site, tmp_path: Path) -> None:
    listing = ("export", file_based(site), "--manifests-only", "--to-manifests", tmp_path / "out")
    refused = airgap(*listing, "--path", f"/configs:{tmp_path}")
    assert refused.status == 2
    assert "is no image" in refused.err
    assert airgap(*listing, "--path", f"/:{tmp_path}").status == 0
    assert (tmp_path / "bundles.db").exists()


@pytest.mark.parametrize("flags", [(), ("--rebuild-catalog", "--package", "thing")])
def test_a_list_is_what_a_mirror_writes(site: Site, flags: tuple[str, ...]) -> None:
    catalog = str(file_based(site))
    assert site.mirror("-q", "--manifests-only", *flags, catalog=catalog).status == 0
    (site.manifests / "bundles.db").unlink()
    listed = {path.name: path.read_bytes() for path in site.manifests.iterdir()}
    assert site.mirror("-q", *flags, catalog=catalog).status == 0
    (site.manifests / "receipt.json").unlink()
    assert {path.name: path.read_bytes() for path in site.manifests.iterdir()} == listed


def test_a_mirror_brings_a_catalog_that_no_registry_has(site: Site) -> None:
    assert site.mirror("-q", catalog=str(manifests(site))).status == 0
    assert any(tag.startswith("my-ops:") for tag in site.tags_at_destination())


def test_catalogs_from_the_disk_and_from_a_registry_go_into_one_archive(site: Site) -> None:
    first, second = file_based(site), file_based(site, "more")
    flags = (str(first), str(second), "-q", "--package", "thing")
    assert site.export(*flags).status == 0
    names = [one["reference"].partition(":")[0] for one in inspected(site.archive)["catalogs"]]
    assert names == ["localhost/fbc", "localhost/more", CATALOG.partition(":")[0]]
    assert site.import_("-q").status == 0
