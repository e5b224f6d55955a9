"""Catalogs reduced to what is taken of them: what is left in the image, and how it travels."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from airgap.registry.directory import DirectoryStore
from tests.support import flat, images
from tests.support.command import airgap
from tests.support.lab import CATALOG, CATALOGS, Recipe, build_lab, build_lab_of_manifests
from tests.support.promise import MappingFile, same_bytes
from tests.support.second_reader import of_database, of_documents
from tests.support.site import Site, Supply, open_site
from tests.support.upstream import StoreUpstream, put
from tests.test_interruption import BLOB, KILLED, MANIFEST, Victim

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from tests.support.flat import Flat
    from tests.support.second_reader import SecondReading

OTHER = "quay.io/lab/other:v1"
FILE_BASED = "quay.io/lab/file-based:v1"
MANIFESTS = "quay.io/lab/manifests:v1"
CONFIGS = "operators.operatorframework.io.index.configs.v1"
REBUILD = ("-q", "--rebuild-catalog")


@pytest.fixture(scope="module")
def supply(tmp_path_factory: pytest.TempPathFactory) -> Supply:
    folder = tmp_path_factory.mktemp("supply")
    store = DirectoryStore(folder, durable=False)
    upstream = StoreUpstream(store)
    recipe = Recipe(layer_bytes=512)
    several = Recipe(layer_bytes=512, catalog_multi_arch=True, labelled=True)
    build_lab(CATALOGS / "oc-test.db", upstream, recipe=recipe, catalog=OTHER)
    manifests = CATALOGS / "package-manifests" / "pkgman-flat"
    build_lab_of_manifests(manifests, upstream, recipe=recipe, catalog=MANIFESTS)
    lab = build_lab(CATALOGS / "opreg-indexer-2020.db", upstream, recipe=several)
    named = sorted(lab.references.values())
    put(store, "quay.io/lab/file-based", file_based(named), "v1")
    return Supply(folder, lab)


@pytest.fixture
def site(supply: Supply, tmp_path: Path) -> Iterator[Site]:
    with open_site(tmp_path, supply) as opened:
        yield opened


def documents(package: str, named: list[str]) -> bytes:
    """A package with versions 1, 2 and 3 in `stable`, 2 and 3 in `fast`."""
    names = [f"{package}.v{number}" for number in (1, 2, 3)]
    entries = [{"name": names[0]}]
    entries += [{"name": n, "replaces": b} for b, n in pairwise(names)]
    found: list[dict[str, Any]] = [
        {"schema": "olm.package", "name": package, "defaultChannel": "stable"},
        {"schema": "olm.channel", "package": package, "name": "stable", "entries": entries},
        {"schema": "olm.channel", "package": package, "name": "fast", "entries": entries[1:]},
    ]
    for number, name in enumerate(names, 1):
        version = {"packageName": package, "version": f"{number}.0.0"}
        found.append(
            {
                "schema": "olm.bundle",
                "package": package,
                "name": name,
                "image": named[number],
                "properties": [{"type": "olm.package", "value": version}],
            }
        )
    return "\n".join(map(json.dumps, found)).encode()


def file_based(named: list[str]) -> images.Image:
    """A catalog image with a cache that is about all of it, for two platforms."""
    files = {f"configs/{p}/catalog.json": documents(p, named) for p in ("one", "two", "three")}
    files["configs/two/old/README.json"] = b""
    process = {
        "Entrypoint": ["/bin/opm"],
        "Cmd": ["serve", "/configs", "--cache-dir=/tmp/cache"],
    }
    return images.index(
        [
            images.image(
                [
                    images.layer({"bin/opm": str(platform).encode()}),
                    images.layer({**files, "tmp/cache/digest": b"stale"}),
                ],
                platform=platform,
                labels={CONFIGS: "/configs"},
                process=process,
            )
            for platform in (images.AMD64, images.S390X)
        ]
    )


def inspected(archive: Path) -> Any:
    return airgap("inspect", archive, "--output", "json").json


def travelling(archive: Path) -> set[str]:
    """What an archive holds besides its catalogs."""
    found = inspected(archive)
    catalogs = {one["reference"] for one in found["catalogs"]}
    return {one["reference"] for one in found["images"]} - catalogs


def catalog_of(archive: Path, number: int = 0) -> list[Flat]:
    return flat.in_archive(archive, inspected(archive)["catalogs"][number]["reference"])


def read_second(image: Flat, folder: Path) -> SecondReading:
    """What somebody reads in an image who knows nothing of us."""
    for path, content in image.files.items():
        place = folder / image.platform / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    (top,) = image.process.get("Labels", {"": "bundles.db"}).values()
    place = folder / image.platform / str(top).strip("/")
    return of_documents(sorted(place.rglob("*.json"))) if place.is_dir() else of_database(place)


def named_in(reading: SecondReading) -> set[str]:
    return {name for found in reading.images.values() for name in found}


def second_readings(found: Iterable[Flat], folder: Path) -> list[SecondReading]:
    return [read_second(image, folder) for image in found]


class TestADatabase:
    def test_stays_as_it_is_unless_told(self, site: Site) -> None:
        assert site.export("-q", "--package", "etcd").status == 0
        (catalog,) = inspected(site.archive)["catalogs"]
        assert catalog["digest"] == str(site.supply.lab.catalog_digest)

    @pytest.mark.parametrize("packages", [("etcd",), ("etcd@head", "prometheus@0.22.2")])
    def test_holds_the_selection_and_nothing_else_on_every_platform(
        self, site: Site, packages: tuple[str, ...]
    ) -> None:
        whole = site.folder / "whole.tar"
        assert site.export("-q", archive=whole).status == 0
        flags = [word for package in packages for word in ("--package", package)]
        assert site.export(*REBUILD, *flags).status == 0
        found = catalog_of(site.archive)
        before = catalog_of(whole)
        assert [one.platform for one in found] == [one.platform for one in before]
        assert len(found) == 4
        original = second_readings(before, site.folder / "before")[0]
        for image, reading in zip(found, second_readings(found, site.folder), strict=True):
            assert set(reading.packages) == {package.partition("@")[0] for package in packages}
            assert named_in(reading) == travelling(site.archive)
            assert named_in(reading) < named_in(original)
            assert reading.images.items() <= original.images.items()
            assert image.layers[-1] == {"database", "database/index.db"}
            assert image.layers[:-1] == before[0].layers

    def test_is_what_verify_and_import_take(self, site: Site) -> None:
        site.export(*REBUILD, "--package", "etcd@head")
        assert airgap("verify", site.archive).status == 0
        assert site.import_("-q").status == 0
        place = f"{site.destination.host}/lab/catalog:v1"
        pushed = flat.in_registry(place, site.folder / "copy")
        assert [one.files for one in pushed] == [one.files for one in catalog_of(site.archive)]


class TestDocuments:
    def test_are_a_tree_of_their_own_and_the_old_ones_are_gone(self, site: Site) -> None:
        flags = ("--package", "one:stable@>=2", "--package", "three@head")
        ran = site.export(*REBUILD, *flags, catalog=FILE_BASED)
        assert ran.status == 0
        found = catalog_of(site.archive)
        assert [one.platform for one in found] == ["linux/amd64", "linux/s390x"]
        for image, reading in zip(found, second_readings(found, site.folder), strict=True):
            over_2, over_1 = frozenset({"one.v2"}), frozenset({"one.v1"})
            head = {"three.v3": frozenset({"three.v2"})}
            assert reading.packages == {
                "one": ("stable", {"stable": {"one.v2": over_1, "one.v3": over_2}}),
                "three": ("stable", {"stable": head, "fast": head}),
            }
            assert named_in(reading) == travelling(site.archive)
            inside = {name for name in image.files if name.startswith("configs/")}
            assert inside == {"configs/one/catalog.json", "configs/three/catalog.json"}
            own = [image.entries[name] for name in image.layers[-1]]
            assert {(one.mode, one.uid, one.gid, one.mtime) for one in own if one.isdir()} == {
                (0o755, 0, 0, 0)
            }
            assert {(one.mode, one.uid, one.gid, one.mtime) for one in own if one.isfile()} == {
                (0o644, 0, 0, 0)
            }

    def test_are_not_served_from_the_cache_of_the_original(self, site: Site) -> None:
        site.export(*REBUILD, "--package", "one", catalog=FILE_BASED)
        for image in catalog_of(site.archive):
            assert image.process["Cmd"] == ["serve", "/configs"]
            assert image.process["Entrypoint"] == ["/bin/opm"]

    def test_get_the_default_channel_that_a_configuration_wishes(self, site: Site) -> None:
        config = site.folder / "imageset.yaml"
        config.write_text(
            "apiVersion: mirror.openshift.io/v2alpha1\nkind: ImageSetConfiguration\nmirror:\n"
            f"  operators:\n  - catalog: {FILE_BASED}\n    packages:\n"
            "    - name: two\n      defaultChannel: fast\n      channels: [{name: fast}]\n"
            f"  - catalog: {OTHER}\n    full: true\n"
        )
        where = ("-o", site.archive, "--registries-conf", site.registries_conf)
        ran = airgap("export", "--config", config, "--rebuild-catalog", *where)
        assert ran.status == 0
        assert f"{OTHER}: stays as it is" in ran.err
        for reading in second_readings(catalog_of(site.archive), site.folder):
            assert {name: default for name, (default, _) in reading.packages.items()} == {
                "two": "fast"
            }
            assert set(reading.packages["two"][1]) == {"fast"}

    @pytest.mark.parametrize("wish", ["fst", "stable"])
    def test_get_no_default_channel_that_is_not_taken(self, site: Site, wish: str) -> None:
        config = site.folder / "imageset.yaml"
        config.write_text(
            "apiVersion: mirror.openshift.io/v2alpha1\nkind: ImageSetConfiguration\nmirror:\n"
            f"  operators:\n  - catalog: {FILE_BASED}\n    packages:\n"
            f"    - name: two\n      defaultChannel: {wish}\n      channels: [{{name: fast}}]\n"
        )
        where = ("-o", site.archive, "--registries-conf", site.registries_conf)
        ran = airgap("export", "--config", config, "--rebuild-catalog", *where)
        assert ran.status == 2
        assert f"package two: '{wish}' is to be its default channel, and what is taken" in ran.err
        assert not site.archive.exists()


@pytest.mark.parametrize("form", ["tag", "digest", "both"])
def test_the_name_of_what_travels_is_true(site: Site, form: str) -> None:
    old = site.supply.lab.catalog_digest
    asked = {
        "tag": CATALOG,
        "digest": f"quay.io/lab/catalog@{old}",
        "both": f"{CATALOG}@{old}",
    }[form]
    assert site.export(*REBUILD, "--package", "etcd@head", catalog=asked).status == 0
    (catalog,) = inspected(site.archive)["catalogs"]
    assert catalog["digest"] != str(old)
    assert catalog["reference"] == asked.replace(str(old), catalog["digest"])
    before = site.archive.read_bytes()
    again = site.export("--rebuild-catalog", "--package", "etcd@head", catalog=asked)
    assert again.status == 0
    assert "nothing to do" in again.err
    assert site.archive.read_bytes() == before
    assert site.import_("-q").status == 0
    source = (site.manifests / "catalogSource.yaml").read_text()
    assert f"@{catalog['digest']}" in source


@pytest.mark.parametrize("catalog", [CATALOG, FILE_BASED])
def test_the_same_question_gives_the_same_archive(site: Site, catalog: str) -> None:
    package = "etcd@head" if catalog == CATALOG else "two@head"
    (site.folder / "elsewhere").mkdir()
    other = site.folder / "elsewhere" / "other.tar"
    assert site.export(*REBUILD, "--package", package, catalog=catalog).status == 0
    flags = (*REBUILD, "--package", package, "--max-per-registry", 1)
    assert site.export(*flags, catalog=catalog, archive=other).status == 0
    assert same_bytes(site.archive, other)


class TestSeveralCatalogs:
    def test_are_each_rebuilt(self, site: Site) -> None:
        # Both have both packages.
        assert site.export(OTHER, *REBUILD, "--package", "etcd@head").status == 0
        for number in (0, 1):
            folder = site.folder / str(number)
            for reading in second_readings(catalog_of(site.archive, number)[:1], folder):
                assert set(reading.packages) == {"etcd"}
        assert site.import_("-q").status == 0

    def test_of_which_nothing_is_selected_are_refused(self, site: Site) -> None:
        ran = site.export(FILE_BASED, *REBUILD, "--package", "etcd")
        assert ran.status == 2
        assert f"{FILE_BASED}: nothing of it is selected" in ran.err


def test_what_another_platform_wants_and_is_not_taken_is_said(site: Site) -> None:
    named = sorted(site.supply.lab.references.values())
    variants = [
        images.image(
            [images.layer({"configs/one/catalog.json": documents("one", names)})],
            platform=platform,
            labels={CONFIGS: "/configs"},
        )
        for platform, names in ((images.AMD64, named), (images.S390X, named[3:]))
    ]
    store = DirectoryStore(site.supply.folder, durable=False)
    put(store, "quay.io/lab/uneven", images.index(variants), "v1")
    flags = ("--rebuild-catalog", "--package", "one:stable@3.0.0")
    ran = site.export(*flags, catalog="quay.io/lab/uneven:v1")
    assert ran.status == 0
    assert f"its variant for linux/s390x wants 1 images that are not taken, {named[6]}" in ran.err


def test_package_manifests_are_refused(site: Site) -> None:
    ran = site.export(*REBUILD, "--package", "etcd", catalog=MANIFESTS)
    assert ran.status == 2
    assert "package manifests cannot be rebuilt" in ran.err


def test_all_of_a_catalog_is_no_part_of_it(site: Site) -> None:
    ran = site.export("--rebuild-catalog")
    assert ran.status == 2
    assert "Say which packages" in ran.err
    assert site.upstream.asked == []


def test_a_local_catalog_is_rebuilt_under_a_name_of_its_own(site: Site) -> None:
    folder = site.folder / "mine"
    named = sorted(site.supply.lab.references.values())
    for package in ("one", "two"):
        (folder / package).mkdir(parents=True)
        (folder / package / "catalog.json").write_bytes(documents(package, named))
    whole = site.folder / "whole.tar"
    assert site.export("-q", "--package", "one", catalog=str(folder), archive=whole).status == 0
    assert site.export(*REBUILD, "--package", "one", catalog=str(folder)).status == 0
    (reading,) = second_readings(catalog_of(site.archive), site.folder / "read")
    assert set(reading.packages) == {"one"}
    (catalog,) = inspected(site.archive)["catalogs"]
    short = catalog["digest"].removeprefix("sha256:")[:12]
    assert catalog["reference"] == f"localhost/mine:{short}"
    assert inspected(whole)["catalogs"][0]["reference"] != catalog["reference"]
    assert site.export(*REBUILD, "--package", "one", catalog=str(folder)).status == 0


class TestRunAgain:
    FLAGS = (*REBUILD, "--package", "etcd@head", "--max-per-registry", 1)

    @pytest.fixture
    def undisturbed(self, site: Site) -> Path:
        archive = site.folder / "undisturbed.tar"
        assert site.export(*self.FLAGS, archive=archive).status == 0
        return archive

    @pytest.mark.parametrize(("what", "hit"), [(MANIFEST, 3), (BLOB, 3), (BLOB, 8), (MANIFEST, 8)])
    def test_after_it_was_killed_while_planning_it_continues(
        self, site: Site, undisturbed: Path, what: str, hit: int
    ) -> None:
        victim = Victim()
        site.upstream.fault("GET", what, victim.midway, hits=(hit,))
        assert victim.run(site, *site.exporting(*self.FLAGS)) == KILLED
        assert (site.folder / "olm.tar.work").exists()
        site.upstream.heal()
        assert site.export(*self.FLAGS).status == 0
        assert same_bytes(site.archive, undisturbed)
        assert {path.name for path in site.folder.glob("olm.tar*")} == {"olm.tar"}

    def test_after_it_was_killed_while_fetching_it_continues(
        self, site: Site, undisturbed: Path
    ) -> None:
        victim = Victim()
        site.upstream.fault("GET", "/v2/.*etcd.*/blobs/.*", victim.midway, hits=(4,))
        assert victim.run(site, *site.exporting(*self.FLAGS)) == KILLED
        assert (site.folder / "olm.tar.partial").exists()
        site.upstream.heal()
        assert site.export(*self.FLAGS).status == 0
        assert same_bytes(site.archive, undisturbed)

    def test_missing_content_is_filled(self, site: Site, undisturbed: Path) -> None:
        one = next(name for name in sorted(travelling(undisturbed)) if "coreos/etcd@" in name)
        image = next(i for i in site.supply.lab.images.values() if i.reference == one)
        site.upstream.hide(list(image.blobs)[-1])
        assert site.export(*self.FLAGS).status == 3
        site.upstream.heal()
        assert site.export(*self.FLAGS).status == 0
        assert same_bytes(site.archive, undisturbed)

    def test_without_rebuilding_it_is_another_question(self, site: Site, undisturbed: Path) -> None:
        ran = site.export("-q", "--package", "etcd@head", archive=undisturbed)
        assert ran.status == 2
        assert "rebuilt" in ran.err


def test_a_tag_that_has_moved_upstream_is_said(supply: Supply, tmp_path: Path) -> None:
    moving = Supply(tmp_path / "supply", supply.lab)
    shutil.copytree(supply.folder, moving.folder)
    with open_site(tmp_path, moving) as site:
        assert site.export(*REBUILD, "--package", "etcd@head").status == 0
        other = images.image([images.layer({"bundles.db": b"another"})])
        put(DirectoryStore(moving.folder, durable=False), "quay.io/lab/catalog", other, "v1")
        ran = site.export(*REBUILD, "--package", "etcd@head")
        assert ran.status == 2
        assert f"it is now at {other.digest}" in ran.err


@pytest.mark.parametrize("catalog", [CATALOG, FILE_BASED])
def test_a_mirror_brings_what_export_and_import_bring(site: Site, catalog: str) -> None:
    package = "etcd@head" if catalog == CATALOG else "two@head"
    flags = (*REBUILD, "--package", package)
    assert site.export(*flags, catalog=catalog).status == 0
    assert site.import_("-q", namespace="/olm").status == 0
    files = {path.name: path.read_bytes() for path in site.manifests.iterdir()}
    tags = site.tags_at_destination()
    ran = site.mirror(*flags, "--output", "json", catalog=catalog, namespace="/olm")
    assert ran.status == 0
    assert ran.json["manifests_sent"] == 0
    assert {path.name: path.read_bytes() for path in site.manifests.iterdir()} == files
    assert site.tags_at_destination() == tags
    elsewhere = site.mirror(*flags, catalog=catalog, namespace="/new")
    assert elsewhere.status == 0
    name = catalog.removeprefix("quay.io/").replace("/", "-")
    pushed = flat.in_registry(f"{site.destination.host}/new/{name}", site.folder / "copy")
    assert [one.files for one in pushed] == [one.files for one in catalog_of(site.archive)]


@pytest.mark.parametrize("reader", ["mirror", "export"])
def test_a_list_names_the_catalog_that_would_travel(site: Site, reader: str) -> None:
    flags = (*REBUILD, "--package", "etcd@head")
    assert site.mirror(*flags).status == 0
    (site.manifests / "receipt.json").unlink()
    files = {path.name: path.read_bytes() for path in site.manifests.iterdir()}
    shutil.rmtree(site.manifests)
    if reader == "mirror":
        assert site.mirror(*flags, "--manifests-only").status == 0
    else:
        where = ("--for", site.destination.host, "--to-manifests", site.manifests)
        through = ("--registries-conf", site.registries_conf)
        ran = airgap("export", CATALOG, *flags, "--manifests-only", *where, *through)
        assert ran.status == 0
    (site.manifests / "bundles.db").unlink()
    assert {path.name: path.read_bytes() for path in site.manifests.iterdir()} == files


def test_the_tag_of_the_whole_catalog_is_not_moved_unless_told(site: Site) -> None:
    whole = site.folder / "whole.tar"
    assert site.export("-q", archive=whole).status == 0
    assert site.import_("-q", archive=whole).status == 0
    site.export(*REBUILD, "--package", "etcd@head")
    refused = site.import_("-q")
    assert refused.status == 5
    assert f"{site.supply.lab.catalog_digest}, to be set to" in refused.text
    assert site.import_("-q", "--force-tags").status == 0


def test_nobody_is_told_to_get_it_from_upstream(site: Site) -> None:
    site.export(*REBUILD, "--package", "etcd@head")
    assert site.import_("-q").status == 0
    mapping = MappingFile.read(site.manifests / "mapping.txt")
    (comment,) = mapping.comments
    assert comment.startswith(f"# {CATALOG}=")
    assert f"a part of {site.supply.lab.catalog_digest}" in comment
    assert CATALOG not in mapping.targets
    assert len(mapping.targets) == len(travelling(site.archive))
    for path in site.manifests.glob("image*.yaml"):
        assert "lab/catalog" not in path.read_text()
    planned = airgap("import", "--dry-run", site.archive, site.destination.host)
    assert comment in planned.out
