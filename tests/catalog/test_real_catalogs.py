from __future__ import annotations

import csv
import sqlite3
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from airgap.catalog import (
    clusterserviceversion,
    documents,
    filebased,
    filebased_contents,
    packagemanifests,
    packagemanifests_contents,
    sqlite,
)
from airgap.catalog.as_database import save
from airgap.catalog.database_writer import write
from airgap.catalog.formats import CONFIGS_LABEL, DATABASE_LABEL
from airgap.catalog.read import Found, read, read_local
from airgap.catalog.select import HEAD, PackageChoice, Selection, select
from airgap.catalog.tree import LocalFile, LocalTree
from airgap.oci.rootfs import FileTree, Layer
from tests.support.layers import file, layer, tree
from tests.support.published import beside, databases, name, unpacked
from tests.support.shared import SHARED, needs_shared, shared
from tests.support.trees import image_of, written

if TYPE_CHECKING:
    from airgap.catalog.model import Catalog, ChannelEntry
    from airgap.catalog.tree import Tree

_HERE = Path(__file__).resolve().parents[1] / "data" / "catalogs"


_BROKEN_CHANNELS = {"pkgman-large-upstream.db.zst": {"ocm-1.0", "ocm-2.0"}}
"""Channels of published databases whose heads are not there."""


@pytest.fixture(params=databases(), ids=name)
def published(request: pytest.FixtureRequest) -> Path:
    """A published catalog's database, with what is known about it beside."""
    path: Path = request.param
    return path


def test_gives_exactly_the_images_that_oc_collects(published: Path, tmp_path: Path) -> None:
    catalog = sqlite.read(LocalFile.at(unpacked(published, tmp_path)))
    expected = beside(published, ".images.txt").read_text("utf-8").splitlines()
    assert list(catalog.images) == expected
    broken = [problem for problem in catalog.problems if ": no bundles" in problem]
    assert len(unlisted(catalog)) + len(broken) == len(catalog.problems)
    channels = {problem.split("channel '")[1].partition("'")[0] for problem in broken}
    assert channels == _BROKEN_CHANNELS.get(published.name, set())


def test_knows_which_bundle_wants_which_image(published: Path, tmp_path: Path) -> None:
    pairs = beside(published, ".tsv")
    if not pairs.exists():
        pytest.skip(f"no {pairs.name}")
    catalog = sqlite.read(LocalFile.at(unpacked(published, tmp_path)))
    with pairs.open(encoding="utf-8", newline="") as lines:
        expected = {(image, bundle) for image, bundle in csv.reader(lines, delimiter="\t")}
    assert {
        (image, bundle.name) for image, bundles in catalog.wanted().items() for bundle in bundles
    } == expected


def test_places_every_bundle_in_packages_and_channels(published: Path, tmp_path: Path) -> None:
    catalog = sqlite.read(LocalFile.at(unpacked(published, tmp_path)))
    bundles = {(bundle.package, bundle.name) for bundle in catalog.bundles}
    assert len(bundles) == len(catalog.bundles)
    for package in catalog.packages:
        assert package.default_channel in {channel.name for channel in package.channels}
        for channel in package.channels:
            entries = {entry.bundle for entry in channel.entries}
            assert channel.head in entries or not entries
            assert {(package.name, name) for name in entries} <= bundles


def test_is_found_in_an_image(published: Path, tmp_path: Path) -> None:
    content = unpacked(published, tmp_path).read_bytes()
    image = tree(layer(file("etc/os-release")), layer(file("database/index.db", content)))
    catalog = sqlite.read(LocalFile.at(unpacked(published, tmp_path)))
    for labels in ({}, {DATABASE_LABEL: "/database/index.db"}):
        found = read(image, labels)
        assert silent(found.catalog) == silent(catalog)
        assert (found.format, found.path) == ("sqlite", "database/index.db")


@dataclass(frozen=True)
class Published:
    """A catalog of files: a directory, or one in a tar archive, which is a layer as well."""

    path: Path
    name: str
    inside: str = ""

    @property
    def tree(self) -> Tree:
        if self.path.is_dir():
            return LocalTree(self.path)
        return FileTree.scan([Layer(self.path.name, lambda: self.path.open("rb"))])

    @property
    def images(self) -> list[str]:
        return self.path.with_name(f"{self.name}.images.txt").read_text("utf-8").splitlines()

    @property
    def pairs(self) -> set[tuple[str, str]] | None:
        """Images with what wants them; None where that is not known."""
        path = self.path.with_name(f"{self.name}.tsv")
        if not path.exists():
            return None
        with path.open(encoding="utf-8", newline="") as lines:
            return {(image, name) for image, name in csv.reader(lines, delimiter="\t")}

    def __str__(self) -> str:
        return f"{self.path.parent.name}/{self.name}"


def _file_based() -> list[Published]:
    folders = [_HERE / "file-based", *([SHARED / "catalogs" / "fbc-real"] if SHARED else [])]
    directories = [path for folder in folders for path in folder.iterdir() if path.is_dir()]
    archives = [path for folder in folders for path in folder.glob("*.tar.zst")]
    return [
        Published(path, path.name.removesuffix(".tar.zst"))
        for path in sorted([*directories, *archives])
    ]


def _package_manifests() -> list[Published]:
    found = [Published(_HERE / "package-manifests" / "pkgman-flat", "pkgman-flat")]
    found += _odd(_HERE / "odd-csv")
    if SHARED:
        catalogs = SHARED / "catalogs"
        found += [Published(catalogs / name, name) for name in ("pkgman-flat", "pkgman-small")]
        found += _odd(catalogs / "odd-csv")
        found += [
            Published(catalogs / "pkgman-large.tar.zst", f"pkgman-large.{part}", part)
            for part in ("community-operators", "upstream-community-operators")
        ]
    return found


def _odd(folder: Path) -> list[Published]:
    return [Published(path, path.name) for path in sorted(folder.iterdir()) if path.is_dir()]


def _pairs(catalog: Catalog, prefix: str = "") -> set[tuple[str, str]]:
    wanted = catalog.wanted().items()
    return {(image, f"{prefix}{bundle.name}") for image, bundles in wanted for bundle in bundles}


def _assert_parts_want_what_is_known(catalog: Catalog, pairs: set[tuple[str, str]]) -> None:
    """Each package, and the heads of each, want what somebody else found that bundles want."""
    known: dict[str, set[str]] = defaultdict(set)
    for image, bundle_name in pairs:
        known[bundle_name].add(image)
    chosen = {bundle.package for bundle in catalog.bundles} - {""}
    for package in (package for package in catalog.packages if package.name in chosen):
        for versions in (None, HEAD):
            part = select(catalog, Selection((PackageChoice(package.name, (), versions),)))
            assert {bundle.package for bundle in part.bundles} == {package.name}
            assert set(part.images) == set().union(*(known[b.name] for b in part.bundles))


def silent(catalog: Catalog) -> Catalog:
    """The catalog without what was odd about its files."""
    return replace(catalog, problems=())


def unlisted(catalog: Catalog) -> set[str]:
    """What is said of variables, without the file."""
    said = {problem[problem.find("bundle ") :] for problem in catalog.problems}
    return {line for line in said if "RELATED_IMAGE_" in line}


def _comparable(catalog: Catalog) -> Catalog:
    """The catalog without what a database cannot say: what was odd about its files, and skip
    ranges that differ from channel to channel, of which there the first one counts."""
    ranges: dict[str, str] = defaultdict(str)

    def same(entry: ChannelEntry) -> ChannelEntry:
        ranges[entry.bundle] = ranges[entry.bundle] or entry.skip_range
        return entry

    def changed(change: Any) -> tuple[Any, ...]:
        return tuple(
            replace(
                package,
                channels=tuple(
                    replace(channel, entries=tuple(map(change, channel.entries)))
                    for channel in package.channels
                ),
            )
            for package in catalog.packages
        )

    changed(same)
    packages = changed(lambda entry: replace(entry, skip_range=ranges[entry.bundle]))
    return replace(catalog, packages=packages, problems=(), unreadable=())


@pytest.fixture(params=_file_based(), ids=str)
def file_based(request: pytest.FixtureRequest) -> Published:
    published: Published = request.param
    return published


@pytest.fixture(params=_package_manifests(), ids=str)
def manifests(request: pytest.FixtureRequest) -> Published:
    published: Published = request.param
    return published


class TestFileBased:
    def test_gives_exactly_the_images_that_oc_collects(self, file_based: Published) -> None:
        catalog = filebased.read(file_based.tree, "")
        assert list(catalog.images) == file_based.images
        assert _pairs(catalog, "olm.bundle:") == file_based.pairs
        assert catalog.unreadable == ()
        assert catalog.problems == ()

    def test_a_package_wants_what_its_bundles_want(self, file_based: Published) -> None:
        pairs = {
            (image, name.removeprefix("olm.bundle:")) for image, name in file_based.pairs or ()
        }
        _assert_parts_want_what_is_known(filebased.read(file_based.tree, ""), pairs)

    def test_its_database_holds_the_same(self, file_based: Published, tmp_path: Path) -> None:
        catalog = filebased.read(file_based.tree, "")
        for contents in ((), filebased_contents.contents(file_based.tree, "")):
            write(catalog, tmp_path / "index.db", contents)
            written_again = sqlite.read(LocalFile.at(tmp_path / "index.db"))
            assert _comparable(written_again) == _comparable(catalog)

    def test_is_found_in_an_image_and_in_a_directory(self, file_based: Published) -> None:
        if not file_based.path.is_dir():
            pytest.skip("not a directory")
        catalog = filebased.read(file_based.tree, "")
        found = read(image_of(file_based.path, "configs"), {CONFIGS_LABEL: "/configs"})
        assert found == Found(catalog, "file-based", "configs", ("configs",))
        _, found = read_local(file_based.path)
        assert found == Found(catalog, "file-based", "", ("",))


class TestPackageManifests:
    def test_gives_exactly_the_images_that_oc_collects(self, manifests: Published) -> None:
        catalog = packagemanifests.read(manifests.tree, [manifests.inside])
        assert list(catalog.images) == manifests.images
        assert manifests.pairs in (None, _pairs(catalog))
        assert catalog.unreadable == ()

    def test_a_package_wants_what_its_bundles_want(self, manifests: Published) -> None:
        if manifests.pairs is None:
            pytest.skip(f"nobody else has read {manifests}")
        catalog = packagemanifests.read(manifests.tree, [manifests.inside])
        _assert_parts_want_what_is_known(catalog, manifests.pairs)

    def test_its_database_holds_the_same(self, manifests: Published, tmp_path: Path) -> None:
        catalog = packagemanifests.read(manifests.tree, [manifests.inside])
        contents = packagemanifests_contents.contents(manifests.tree, [manifests.inside])
        write(catalog, tmp_path / "index.db", contents)
        written_again = sqlite.read(LocalFile.at(tmp_path / "index.db"))
        assert silent(written_again) == silent(catalog)
        assert unlisted(written_again) == unlisted(catalog)

    def test_is_found_in_an_image_and_in_a_directory(self, manifests: Published) -> None:
        if not manifests.path.is_dir():
            pytest.skip("not a directory")
        catalog = packagemanifests.read(manifests.tree, [""])
        _, found = read_local(manifests.path)
        assert (found.catalog, found.format) == (catalog, "package-manifests")
        if catalog.packages:
            found = read(image_of(manifests.path, "manifests"), {})
            assert silent(found.catalog) == silent(catalog)

    def test_an_empty_first_document_hides_the_others(self) -> None:
        """As in operator-registry, which then serves no such operator; a lenient reader would."""
        folder = _HERE / "odd-csv" / "comment-before-document"
        (path,) = folder.iterdir()
        first, second = documents.read([path.read_bytes()])
        assert isinstance(first, documents.Document)
        assert isinstance(second, documents.Document)
        assert first.value is None
        lenient = folder.with_name(f"{folder.name}.lenient.images.txt")
        found = clusterserviceversion.parse(second.value)
        assert list(found.images) == lenient.read_text("utf-8").splitlines()
        catalog = packagemanifests.read(LocalTree(folder), [""])
        assert catalog.images == ()
        assert "first document is empty" in catalog.problems[0]


def test_the_database_of_a_database_holds_the_same(published: Path, tmp_path: Path) -> None:
    catalog = sqlite.read(LocalFile.at(unpacked(published, tmp_path)))
    write(catalog, tmp_path / "again.db")
    assert silent(sqlite.read(LocalFile.at(tmp_path / "again.db"))) == silent(catalog)


def test_a_database_is_kept_as_it_is(tmp_path: Path) -> None:
    original = _HERE / "oc-test.db"
    tree, found = read_local(original)
    save(tree, found, tmp_path / "bundles.db")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [original.read_bytes()]


def test_of_files_a_database_is_made(tmp_path: Path) -> None:
    tree, found = read_local(_HERE / "package-manifests" / "pkgman-flat")
    save(tree, found, tmp_path / "bundles.db")
    assert silent(read_local(tmp_path / "bundles.db")[1].catalog) == silent(found.catalog)


@needs_shared
@pytest.mark.parametrize("part", ["community-operators", "upstream-community-operators"])
def test_every_csv_of_the_bundle_format_names_its_images(part: str) -> None:
    """The bundles' own images are not known, so these are no catalogs, but their CSVs are."""
    published = Published(shared("catalogs/bundles-large.tar.zst"), f"bundles-large.{part}", part)
    catalog = packagemanifests.read(published.tree, [part])
    assert list(catalog.images) == published.images
    assert _pairs(catalog) == published.pairs


@needs_shared
@pytest.mark.parametrize(
    ("path", "inside", "count"),
    [
        ("odd-csv/double-sha256-prefix", "", 1),
        ("odd-csv/empty-image", "", 0),
        ("odd-csv/nbsp", "", 0),
        ("pkgman-small", "", 16),
        ("pkgman-large.tar.zst", "community-operators", 17),
        ("pkgman-large.tar.zst", "upstream-community-operators", 42),
    ],
)
def test_says_what_published_operators_may_ask_for_beyond_their_images(
    path: str, inside: str, count: int
) -> None:
    """Of 8,000 such variables all but these name an image of their bundle, or nothing."""
    published = Published(shared(f"catalogs/{path}"), path)
    assert len(unlisted(packagemanifests.read(published.tree, [inside]))) == count


class TestOneCatalogInEveryFormat:
    """The same operators as package manifests, as a database and as a file-based catalog."""

    @needs_shared
    def test_manifests_and_a_database_made_by_others_are_the_same(self) -> None:
        made = sqlite.read(LocalFile.at(shared("catalogs/sqlite-synthetic/pkgman-small-mig13.db")))
        mine = packagemanifests.read(LocalTree(shared("catalogs/pkgman-small")), [""])
        assert mine.packages == made.packages
        assert unlisted(mine) == unlisted(made) != set()
        assert [
            replace(b, related_images=tuple(sorted(b.related_images))) for b in mine.bundles
        ] == [replace(b, related_images=tuple(sorted(b.related_images))) for b in made.bundles]

    def test_manifests_and_a_file_based_catalog_give_the_same_rows(self, tmp_path: Path) -> None:
        tree, found = read_local(_HERE / "package-manifests" / "pkgman-flat")
        converted = written(tmp_path / "fbc", {"index.yaml": as_file_based(found.catalog)})
        other_tree, other = read_local(converted)
        assert other.format == "file-based"
        one, two = tmp_path / "one.db", tmp_path / "two.db"
        save(tree, found, one)
        save(other_tree, other, two)
        for query in (
            "SELECT * FROM related_image ORDER BY 2, 1",
            "SELECT DISTINCT name, version FROM operatorbundle ORDER BY 1",
            "SELECT * FROM channel ORDER BY 2, 1",
            "SELECT * FROM package ORDER BY 1",
            "SELECT * FROM channel_entry ORDER BY 1",
        ):
            assert _rows(one, query) == _rows(two, query)


def _rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def as_file_based(catalog: Catalog) -> str:
    """The catalog as ``opm`` would write it, but that bundles in no channel stay."""
    said: list[dict[str, Any]] = []
    for package in catalog.packages:
        said.append(
            {
                "schema": "olm.package",
                "name": package.name,
                "defaultChannel": package.default_channel,
            }
        )
        for channel in package.channels:
            entries = [
                {
                    "name": entry.bundle,
                    "replaces": entry.replaces,
                    "skips": list(entry.skips),
                    "skipRange": entry.skip_range,
                }
                for entry in channel.entries
            ]
            said.append(
                {
                    "schema": "olm.channel",
                    "name": channel.name,
                    "package": package.name,
                    "entries": entries,
                }
            )
    for bundle in catalog.bundles:
        value = {"packageName": bundle.package, "version": bundle.version}
        said.append(
            {
                "schema": "olm.bundle",
                "name": bundle.name,
                "package": bundle.package or "unknown",
                "relatedImages": [{"name": "", "image": image} for image in bundle.related_images],
                "properties": [{"type": "olm.package", "value": value}],
            }
        )
    return yaml.safe_dump_all(said)
