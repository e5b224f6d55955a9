from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from airgap.catalog.read import CONFIGS_LABEL, DATABASE_LABEL, Found, read
from airgap.errors import CatalogError, MalformedContent
from airgap.oci.rootfs import Layer
from tests.support.layers import file, hard_link, layer, layer_of, symlink, tar, tree, whiteout

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Databases by a word: two catalogs, and one of another program."""
    folder = tmp_path_factory.mktemp("databases")
    return {
        "rpm": _made(folder / "rpm", "CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob)"),
        "one": _made(folder / "one", _catalog("one")),
        "two": _made(folder / "two", _catalog("two")),
    }


def _catalog(image: str) -> str:
    return (
        "CREATE TABLE operatorbundle (name, bundlepath);"
        f"INSERT INTO operatorbundle VALUES ('b', '{image}')"
    )


def _made(path: Path, script: str) -> bytes:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    return path.read_bytes()


def places(found: Found) -> tuple[str, tuple[str, ...]]:
    return found.path, found.catalog.images


class TestWithALabel:
    @pytest.mark.parametrize("location", ["/database/x.db", "database/x.db", "database//./x.db"])
    def test_the_database_is_where_it_says(
        self, databases: dict[str, bytes], location: str
    ) -> None:
        image = tree(
            layer(file("bundles.db", databases["one"])),
            layer(file("database/x.db", databases["two"])),
        )
        found = read(image, {DATABASE_LABEL: location})
        assert places(found) == ("database/x.db", ("two",))
        assert found.format == "sqlite"

    def test_links_are_followed(self, databases: dict[str, bytes]) -> None:
        image = tree(
            layer(
                file("data/v1.db", databases["one"]),
                hard_link("data/v2.db", "data/v1.db"),
                symlink("database", "/data"),
                symlink("data/index.db", "v2.db"),
            )
        )
        found = read(image, {DATABASE_LABEL: "/database/index.db"})
        assert places(found) == ("database/index.db", ("one",))

    @pytest.mark.parametrize(
        "location", ["", "/", "../x.db", "/database/../../x", "a/..", "\x1b[2J/.."]
    )
    def test_what_is_no_path_is_refused(self, databases: dict[str, bytes], location: str) -> None:
        image = tree(layer(file("bundles.db", databases["one"]), file("x.db", databases["one"])))
        with pytest.raises(CatalogError, match="no path of a file") as caught:
            read(image, {DATABASE_LABEL: location})
        assert caught.value.message.isprintable()

    @pytest.mark.parametrize("location", ["absent.db", "database", "loop", "escape"])
    def test_no_other_place_is_searched(self, databases: dict[str, bytes], location: str) -> None:
        image = tree(
            layer(
                file("bundles.db", databases["one"]),
                file("database/index.db", databases["one"]),
                symlink("loop", "loop"),
                symlink("escape", "../../etc/shadow"),
            )
        )
        with pytest.raises(CatalogError, match=f"{location}.*no such file"):
            read(image, {DATABASE_LABEL: location})

    def test_what_is_there_must_be_a_catalog(self, databases: dict[str, bytes]) -> None:
        for content in (databases["rpm"], b"some text"):
            with pytest.raises(CatalogError, match=r"^index\.db: not a"):
                read(tree(layer(file("index.db", content))), {DATABASE_LABEL: "/index.db"})

    def test_a_file_based_catalog_wins_and_is_not_supported(
        self, databases: dict[str, bytes]
    ) -> None:
        image = tree(layer(file("bundles.db", databases["one"])))
        with pytest.raises(CatalogError, match=r"file-based .*not supported by this version"):
            read(image, {CONFIGS_LABEL: "/configs", DATABASE_LABEL: "/bundles.db"})


class TestWithoutALabel:
    @pytest.mark.parametrize(
        "path", ["bundles.db", "database/index.db", "opt/catalog", "a/b/c/no-ending"]
    )
    def test_any_name_will_do(self, databases: dict[str, bytes], path: str) -> None:
        image = tree(layer(file("etc/passwd", b"root"), file(path, databases["one"])))
        assert places(read(image, {"other": "label"})) == (path, ("one",))

    def test_the_usual_places_come_first(self, databases: dict[str, bytes]) -> None:
        one, two = databases["one"], databases["two"]
        image = tree(layer(file("a.db", one), file("database/index.db", two)))
        assert read(image, {}).path == "database/index.db"
        image = tree(
            layer(file("a.db", one), file("database/index.db", one)), layer(file("bundles.db", two))
        )
        assert places(read(image, {})) == ("bundles.db", ("two",))

    def test_then_the_first_in_walking_order(self, databases: dict[str, bytes]) -> None:
        image = tree(layer(file("b/x", databases["two"]), file("a/z", databases["one"])))
        assert read(image, {}).path == "a/z"

    def test_other_databases_are_passed_over(self, databases: dict[str, bytes]) -> None:
        image = tree(
            layer(
                file("bundles.db", b"SQLite format 3\0 in name only"),
                file("a/rpmdb.sqlite", databases["rpm"]),
                file("a/rpmdb.sqlite-wal", b"changes"),
            ),
            layer(file("z/catalog", databases["one"])),
        )
        assert places(read(image, {})) == ("z/catalog", ("one",))

    def test_what_an_upper_layer_deletes_is_not_found(self, databases: dict[str, bytes]) -> None:
        image = tree(
            layer(file("database/index.db", databases["one"])),
            layer(whiteout(".wh.database"), file("x.db", databases["two"])),
        )
        assert places(read(image, {})) == ("x.db", ("two",))

    def test_a_damaged_database_is_said_when_nothing_else_is_found(
        self, databases: dict[str, bytes]
    ) -> None:
        image = tree(
            layer(file("a/rpmdb.sqlite", databases["rpm"]), file("b.db", databases["one"][:5000]))
        )
        with pytest.raises(CatalogError, match=r"^b\.db: cut"):
            read(image, {})

    def test_no_catalog_at_all_is_said_with_advice(self, databases: dict[str, bytes]) -> None:
        image = tree(layer(file("etc/passwd", b"root"), file("rpmdb", databases["rpm"])))
        with pytest.raises(CatalogError, match="no catalog in the image") as caught:
            read(image, {})
        assert caught.value.hint


def test_refuses_a_database_with_changes_beside_it(databases: dict[str, bytes]) -> None:
    members = [file("bundles.db", databases["one"]), file("bundles.db-wal", b"changes")]
    with pytest.raises(CatalogError, match=r"bundles\.db-wal were never written into it"):
        read(tree(layer(*members)), {DATABASE_LABEL: "/bundles.db"})
    emptied = tree(layer(*members), layer(file("bundles.db-wal")))
    assert read(emptied, {}).path == "bundles.db"


def test_a_layer_that_fails_on_the_second_reading_is_named(databases: dict[str, bytes]) -> None:
    whole = tar(file("bundles.db", databases["one"]))
    versions = iter([whole, whole[:1024]])
    image = tree(Layer("sha256:abc", lambda: layer_of(next(versions)).open()))
    with pytest.raises(MalformedContent, match=r"^sha256:abc: .*cut"):
        read(image, {})
