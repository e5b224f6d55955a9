from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from airgap.catalog.formats import CONFIGS_LABEL, DATABASE_LABEL
from airgap.catalog.read import Found, contents, read, read_local
from airgap.errors import CatalogError, MalformedContent, UsageError
from airgap.oci.rootfs import Layer
from tests.support.layers import file, hard_link, layer, layer_of, symlink, tar, tree, whiteout
from tests.support.trees import written
from tests.support.vectors import vectors

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


PACKAGE = b"packageName: a\nchannels: [{name: c, currentCSV: a.1}]\n"
CSV = (
    b"kind: ClusterServiceVersion\nmetadata: {name: a.1}\nspec: {relatedImages: [{image: five}]}\n"
)


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

    @pytest.mark.parametrize("location", ["/configs", "configs/", "//configs/./", "/linked"])
    def test_a_file_based_catalog_wins(self, databases: dict[str, bytes], location: str) -> None:
        image = tree(
            layer(
                file("bundles.db", databases["one"]),
                file("configs/a/catalog.yaml", b"image: three"),
                file("elsewhere.yaml", b"image: four"),
                symlink("linked", "/configs"),
            )
        )
        found = read(image, {CONFIGS_LABEL: location, DATABASE_LABEL: "/bundles.db"})
        assert found.format == "file-based"
        assert found.catalog.images == ("three",)
        assert found.path in ("configs", "linked")

    def test_a_file_based_catalog_may_be_all_of_the_image(self) -> None:
        image = tree(layer(file("a/catalog.yaml", b"image: three")))
        assert places(read(image, {CONFIGS_LABEL: "/"})) == ("", ("three",))

    @pytest.mark.parametrize("location", ["", "../configs", "configs/../../x"])
    def test_no_other_directory_is_searched(self, location: str) -> None:
        image = tree(layer(file("configs/a", b"image: three")))
        with pytest.raises(CatalogError, match="no path of a file or directory"):
            read(image, {CONFIGS_LABEL: location})
        with pytest.raises(CatalogError, match="'absent': no such directory"):
            read(image, {CONFIGS_LABEL: "/absent"})


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

    def test_package_manifests_are_found_where_no_database_is(
        self, databases: dict[str, bytes]
    ) -> None:
        manifests = [
            file("manifests/a/a.package.yaml", PACKAGE),
            file("manifests/a/1/a.clusterserviceversion.yaml", CSV),
            file("manifests/b/b.package.yaml", b"packageName: b"),
            file("usr/share/other.yaml", b"image: ["),
        ]
        for damaged in ([], [file("x.db", databases["one"][:5000])]):
            found = read(tree(layer(*manifests, *damaged)), {})
            assert found.format == "package-manifests"
            assert (found.path, found.places) == ("manifests", ("manifests/a", "manifests/b"))
            assert found.catalog.images == ("five",)
            assert [content.bundle for content in contents(tree(layer(*manifests)), found)] == [
                "a.1"
            ]
        found = read(tree(layer(*manifests, file("x.db", databases["one"]))), {})
        assert found.format == "sqlite"

    def test_what_only_looks_like_package_manifests_is_none(self) -> None:
        with pytest.raises(CatalogError, match="no catalog in the image"):
            read(tree(layer(file("usr/lib/x/package.yaml", b"name: x"))), {})

    def test_no_catalog_at_all_is_said_with_advice(self, databases: dict[str, bytes]) -> None:
        image = tree(layer(file("etc/passwd", b"root"), file("rpmdb", databases["rpm"])))
        with pytest.raises(CatalogError, match="no catalog in the image") as caught:
            read(image, {})
        assert caught.value.hint


def test_refuses_a_database_with_a_change_that_was_never_finished(tmp_path: Path) -> None:
    path = tmp_path / "bundles.db"
    _made(path, _catalog("one"))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = PERSIST")
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("CREATE TABLE filler (text)")
        finished = path.read_bytes(), path.with_name("bundles.db-journal").read_bytes()
        connection.execute("BEGIN")
        connection.execute("DELETE FROM operatorbundle")
        for _ in range(100):
            connection.execute("INSERT INTO filler VALUES (?)", ("x" * 5000,))
        hot = path.read_bytes(), path.with_name("bundles.db-journal").read_bytes()
    assert finished[1]
    assert hot[1][:1] == b"\xd9"
    for database, journal in (hot, (hot[0], hot[1][:8])):
        image = tree(layer(file("bundles.db", database), file("bundles.db-journal", journal)))
        with pytest.raises(CatalogError, match=r"bundles\.db-journal was never finished"):
            read(image, {DATABASE_LABEL: "/bundles.db"})
    for journal in (finished[1], b"", bytes(512)):
        image = tree(layer(file("bundles.db", finished[0]), file("bundles.db-journal", journal)))
        assert read(image, {DATABASE_LABEL: "/bundles.db"}).catalog.images == ("one",)


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


class TestOnTheLocalDisk:
    def test_a_database_is_a_catalog(self, databases: dict[str, bytes], tmp_path: Path) -> None:
        top = written(tmp_path, {"x/any": databases["one"], "x/rpm": databases["rpm"]})
        tree, found = read_local(top / "x" / "any")
        assert (found.format, found.path) == ("sqlite", "any")
        assert tree.find(found.path) is not None
        assert read_local(top)[1].path == "x/any"
        with pytest.raises(CatalogError, match="rpm: not an operator catalog"):
            read_local(top / "x" / "rpm")

    def test_a_database_in_use_is_refused(
        self, databases: dict[str, bytes], tmp_path: Path
    ) -> None:
        top = written(tmp_path, {"a.db": databases["one"], "a.db-wal": "changes"})
        with pytest.raises(CatalogError, match="never written into it"):
            read_local(top / "a.db")

    @pytest.mark.parametrize(
        ("files", "form", "images"),
        [
            ({"a/any": "Schema: olm.package\n---\nimage: a\n", "b": "prose"}, "file-based", ("a",)),
            ({"package.yaml": "schema: olm.package\nimage: a\n"}, "file-based", ("a",)),
            ({"a/p": PACKAGE, "a/any": CSV, "README": "a: ["}, "package-manifests", ("five",)),
            ({"any": CSV}, "package-manifests", ("five",)),
            ({"x.clusterserviceversion.yaml": b"#\n---\n" + CSV}, "package-manifests", ()),
        ],
    )
    def test_a_directory_is_what_its_files_say(
        self, tmp_path: Path, files: dict[str, str | bytes], form: str, images: tuple[str, ...]
    ) -> None:
        tree, found = read_local(written(tmp_path, files))
        assert (found.format, found.path, found.places) == (form, "", ("",))
        assert found.catalog.images == images
        assert isinstance(list(contents(tree, found)), list)

    @pytest.mark.parametrize(
        "files",
        [
            {"c": "# Copyright\n---\nschema: olm.package\n---\nimage: a\n"},
            {"c": "---\n---\nschema: olm.package\nimage: a\n"},
            {"c": "schema: mine\n---\nschema: olm.package\nimage: a\n"},
            {"c": "a: [broken\n---\nschema: olm.package\nimage: a\n"},
            {"a.yaml": CSV, ".indexignore": "a.yaml\n", "c": "schema: olm.package\nimage: a"},
            {".github/x.clusterserviceversion.yaml": CSV, "c": "schema: olm.package\nimage: a"},
            {"a.yaml": CSV, "b.package.yaml": PACKAGE, "c": "schema: olm.package\nimage: a"},
        ],
    )
    def test_a_schema_of_olms_anywhere_makes_it_file_based(
        self, tmp_path: Path, files: dict[str, str | bytes]
    ) -> None:
        _, found = read_local(written(tmp_path, files))
        assert (found.format, found.catalog.images) == ("file-based", ("a",))

    @pytest.mark.parametrize("ignored", [".indexignore", "x/.indexignore"])
    def test_an_ignored_schema_of_olms_does_not(self, tmp_path: Path, ignored: str) -> None:
        files: dict[str, str | bytes] = {
            ignored: "old.yaml\n",
            "x/old.yaml": "schema: olm.package\n",
            "csv": CSV,
        }
        assert read_local(written(tmp_path, files))[1].format == "package-manifests"

    @pytest.mark.parametrize(
        ("files", "form"),
        [({"c": "schema: olm.package\n"}, "file-based"), ({"c": CSV}, "package-manifests")],
    )
    def test_a_damaged_database_beside_a_catalog_is_passed_over_and_said(
        self,
        databases: dict[str, bytes],
        tmp_path: Path,
        files: dict[str, str | bytes],
        form: str,
    ) -> None:
        files = {"stray.db": databases["one"][:5000], ".indexignore": "stray.db\n", **files}
        _, found = read_local(written(tmp_path, files))
        assert found.format == form
        assert "stray.db: cut" in found.catalog.problems[0]

    def test_a_damaged_database_is_said_when_there_is_nothing_else(
        self, databases: dict[str, bytes], tmp_path: Path
    ) -> None:
        with pytest.raises(CatalogError, match=r"^stray\.db: cut"):
            read_local(written(tmp_path, {"stray.db": databases["one"][:5000], "a": "prose"}))

    def test_what_may_not_be_read_is_said(self, guarded: Path) -> None:
        written(guarded, {"sub/index.db": "x", "c": "schema: olm.package\n---\nimage: a\n"})
        (guarded / "sub").chmod(0)
        catalog = read_local(guarded)[1].catalog
        assert (catalog.images, catalog.unreadable) == (("a",), ("sub: Permission denied",))
        (guarded / "c").unlink()
        with pytest.raises(UsageError, match="sub: Permission denied"):
            read_local(guarded)
        guarded.chmod(0o444)
        with pytest.raises(UsageError, match="Permission denied"):
            read_local(guarded)

    def test_of_what_is_no_catalog_the_first_fault_is_said(self, tmp_path: Path) -> None:
        top = written(tmp_path, {"b.yaml": "x: 1\na: [", "c.json": "{", "README.md": "a: ["})
        with pytest.raises(CatalogError, match="no catalog in") as caught:
            read_local(top)
        assert "b.yaml: document 1, line 3: not valid YAML" in str(caught.value.hint)

    def test_what_is_no_catalog_is_refused(self, tmp_path: Path) -> None:
        top = written(tmp_path, {"a": "prose", "b/c.yaml": "kind: Service\n"})
        with pytest.raises(CatalogError, match=r"no catalog in .*: no database"):
            read_local(top)
        with pytest.raises(UsageError, match="No such file"):
            read_local(top / "absent")
        with pytest.raises(CatalogError, match="not a SQLite database"):
            read_local(top / "a")


SQLITE_VECTORS: dict[str, tuple[str, dict[str, bytes]]] = {
    "sqlite-02": (
        "CREATE TABLE operatorbundle (name);"
        "CREATE TABLE related_image (image, operatorbundle_name);"
        "INSERT INTO related_image VALUES ('one', 'b')",
        {},
    ),
    "sqlite-03": (f"PRAGMA journal_mode = WAL; {_catalog('one')}", {}),
    "sqlite-04": (_catalog("one"), {"bundles.db": b"", "database/index.db": b"some text"}),
}
"""What the vectors describe: a catalog's database, and files that are found before it."""


def test_every_vector_about_databases_has_its_case() -> None:
    assert {vector["id"] for vector in vectors("sqlite")} == SQLITE_VECTORS.keys()


@pytest.mark.parametrize("vector", SQLITE_VECTORS)
def test_reads_databases_that_oc_passes_over_or_fails_with(tmp_path: Path, vector: str) -> None:
    script, others = SQLITE_VECTORS[vector]
    members = [file(path, content) for path, content in others.items()]
    image = tree(layer(*members, file("z/catalog", _made(tmp_path / "made", script))))
    assert places(read(image, {})) == ("z/catalog", ("one",))
