from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from airgap import limits
from airgap.catalog import database, sqlite
from airgap.catalog.model import Bundle, Catalog, Channel, ChannelEntry, Package
from airgap.catalog.tree import LocalFile
from airgap.errors import CatalogError, StorageError, UsageError

Make = Callable[..., Path]

LEVEL_0 = """
    CREATE TABLE operatorbundle (name TEXT PRIMARY KEY, csv TEXT UNIQUE, bundle TEXT);
    CREATE TABLE package (name TEXT PRIMARY KEY, default_channel TEXT);
    CREATE TABLE channel (name TEXT, package_name TEXT, head_operatorbundle_name TEXT);
    CREATE TABLE channel_entry (
        entry_id INTEGER PRIMARY KEY, channel_name TEXT, package_name TEXT,
        operatorbundle_name TEXT, replaces INTEGER, depth INTEGER
    );
    CREATE TABLE schema_migrations (version bigint not null);
"""
LEVEL_1 = LEVEL_0 + "CREATE TABLE related_image (image TEXT, operatorbundle_name TEXT);"
LEVEL_5 = f"""{LEVEL_1}
    ALTER TABLE operatorbundle ADD COLUMN bundlepath TEXT;
    ALTER TABLE operatorbundle ADD COLUMN skiprange TEXT;
    ALTER TABLE operatorbundle ADD COLUMN version TEXT;
"""
ETCD = """
    INSERT INTO package VALUES ('etcd', 'alpha');
    INSERT INTO channel VALUES ('alpha', 'etcd', 'etcd.2'), ('beta', 'etcd', 'etcd.1');
    INSERT INTO operatorbundle (name) VALUES ('etcd.2'), ('etcd.1');
    INSERT INTO channel_entry VALUES
        (1, 'alpha', 'etcd', 'etcd.2', 4, 0),
        (2, 'alpha', 'etcd', 'etcd.1.5', NULL, 1),
        (3, 'alpha', 'etcd', 'etcd.2', 2, 1),
        (4, 'alpha', 'etcd', 'etcd.1', NULL, 2),
        (5, 'beta', 'etcd', 'etcd.1', NULL, 0);
"""
MANY = """
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
    INSERT INTO related_image SELECT 'registry.example.com/operators/image-' || i, 'etcd.1' FROM n
"""


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a database out of SQL."""

    def made(*scripts: str, parameters: tuple[object, ...] | None = None) -> Path:
        path = tmp_path / "index.db"
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            for script in scripts:
                if parameters is not None and "?" in script:
                    connection.execute(script, parameters)
                else:
                    connection.executescript(script)
        return path

    return made


def read(path: Path) -> Catalog:
    return sqlite.read(LocalFile.at(path))


def test_reads_packages_channels_and_what_replaces_what(make: Make) -> None:
    catalog = read(make(LEVEL_1, ETCD))
    assert catalog.packages == (
        Package(
            "etcd",
            "alpha",
            (
                Channel(
                    "alpha",
                    "etcd.2",
                    (ChannelEntry("etcd.2", "etcd.1", ("etcd.1.5",)), ChannelEntry("etcd.1")),
                ),
                Channel("beta", "etcd.1", (ChannelEntry("etcd.1"),)),
            ),
        ),
    )
    assert catalog.bundles == (Bundle("etcd", "etcd.1"), Bundle("etcd", "etcd.2"))


def test_reads_what_later_levels_say_of_a_bundle(make: Make) -> None:
    catalog = read(
        make(
            LEVEL_5,
            ETCD,
            "UPDATE operatorbundle SET version = '2.0', skiprange = '<2', bundlepath = 'q/b@x'"
            " WHERE name = 'etcd.2'",
            "INSERT INTO related_image VALUES ('q/a', 'etcd.2'), ('q/b@x', 'etcd.2')",
        )
    )
    assert catalog.bundles[1] == Bundle("etcd", "etcd.2", "2.0", "q/b@x", ("q/a", "q/b@x"))
    assert catalog.bundles[1].images == ("q/b@x", "q/a")
    assert catalog.packages[0].channels[0].entries[0].skip_range == "<2"


def test_says_which_bundles_want_an_image(make: Make) -> None:
    catalog = read(
        make(
            LEVEL_5,
            ETCD,
            "INSERT INTO related_image VALUES ('z', 'etcd.2'), ('a', 'etcd.1'), ('a', 'etcd.2'),"
            " ('a', 'etcd.2'), ('B', 'etcd.1'), ('é', 'etcd.1')",
        )
    )
    assert {i: tuple(b.name for b in bundles) for i, bundles in catalog.wanted().items()} == {
        "B": ("etcd.1",),
        "a": ("etcd.1", "etcd.2"),
        "z": ("etcd.2",),
        "é": ("etcd.1",),
    }
    assert catalog.images == ("B", "a", "z", "é")


@pytest.mark.parametrize("image", ["oci://q.io/a", "a@@sha256:x", "a@", " a", "A:b@c", "a\nb\0"])
def test_keeps_references_as_they_are_written(make: Make, image: str) -> None:
    path = make(LEVEL_1, "INSERT INTO related_image VALUES (?, 'etcd.1')", parameters=(image,))
    assert read(path).images == (image,)


def test_reads_blobs_as_text(make: Make) -> None:
    catalog = read(
        make(
            LEVEL_5,
            "INSERT INTO operatorbundle (name, bundlepath) VALUES (CAST('b' AS BLOB), x'71')",
            "INSERT INTO related_image VALUES (CAST('q.io/a' AS BLOB), CAST('b' AS BLOB))",
        )
    )
    assert catalog.bundles == (Bundle("", "b", image="q", related_images=("q.io/a",)),)


@pytest.mark.parametrize("nothing", ["NULL", "''", "x''"])
def test_nothing_is_no_image(make: Make, nothing: str) -> None:
    path = make(
        LEVEL_5,
        f"INSERT INTO operatorbundle (name, bundlepath) VALUES ('b', {nothing})",
        f"INSERT INTO related_image VALUES ({nothing}, 'b')",
    )
    assert read(path).images == ()


def test_a_bundle_in_two_packages_is_listed_under_both(make: Make) -> None:
    catalog = read(make(LEVEL_1, ETCD, "INSERT INTO channel VALUES ('stable', 'other', 'etcd.1')"))
    assert [(b.package, b.name) for b in catalog.bundles] == [
        ("etcd", "etcd.1"),
        ("other", "etcd.1"),
        ("etcd", "etcd.2"),
    ]
    assert [package.name for package in catalog.packages] == ["etcd", "other"]


class TestNoImageIsLost:
    def test_of_a_bundle_in_no_channel(self, make: Make) -> None:
        path = make(LEVEL_5, "INSERT INTO operatorbundle (name, bundlepath) VALUES ('b', 'q/b')")
        assert read(path).bundles == (Bundle("", "b", image="q/b"),)

    def test_of_a_bundle_without_a_row(self, make: Make) -> None:
        catalog = read(make(LEVEL_1, "INSERT INTO related_image VALUES ('a', 'gone\x1b')"))
        assert catalog.images == ("a",)
        (problem,) = catalog.problems
        assert problem.isprintable()
        assert "gone" in problem

    @pytest.mark.parametrize("name", ["NULL", "''"])
    def test_without_a_bundle(self, make: Make, name: str) -> None:
        path = make(
            LEVEL_5,
            f"INSERT INTO related_image VALUES ('a', {name})",
            f"INSERT INTO operatorbundle (name, bundlepath) VALUES ({name}, 'b')",
        )
        catalog = read(path)
        assert catalog.other_images == ("a", "b")
        assert catalog.wanted() == {"a": (), "b": ()}

    def test_of_two_rows_of_one_name(self, make: Make) -> None:
        path = make(
            "CREATE TABLE operatorbundle (name, bundlepath)",
            "INSERT INTO operatorbundle VALUES (CAST('b' AS BLOB), CAST('1' AS BLOB)), ('b', '2')",
        )
        assert read(path).images == ("1", "2")


class TestSchemaLevels:
    def test_level_0_has_no_images(self, make: Make) -> None:
        catalog = read(make(LEVEL_0, ETCD))
        assert len(catalog.bundles) == 2
        assert catalog.images == ()

    def test_a_lone_bundle_table_will_do(self, make: Make) -> None:
        path = make(
            "CREATE TABLE operatorbundle (name TEXT)", "INSERT INTO operatorbundle VALUES ('b')"
        )
        assert read(path) == Catalog((), (Bundle("", "b"),))

    def test_names_in_the_schema_may_be_in_any_case(self, make: Make) -> None:
        path = make(
            "CREATE TABLE OperatorBundle (Name TEXT, BundlePath TEXT)",
            "INSERT INTO OperatorBundle VALUES ('b', 'q/b')",
        )
        assert read(path).images == ("q/b",)

    def test_an_empty_catalog_is_one(self, make: Make) -> None:
        assert read(make(LEVEL_5)) == Catalog((), ())

    def test_another_programs_database_is_no_catalog(self, make: Make) -> None:
        with pytest.raises(sqlite.NotACatalog, match=r"index\.db: not an operator catalog"):
            read(make("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB)"))

    def test_a_missing_column_is_named_with_the_level(self, make: Make) -> None:
        path = make(
            LEVEL_0,
            "CREATE TABLE related_image (reference TEXT)",
            "INSERT INTO schema_migrations VALUES (99)",
        )
        with pytest.raises(CatalogError, match="no column image, at schema level 99"):
            read(path)

    def test_a_level_that_nobody_knows_yet_is_read(self, make: Make) -> None:
        path = make(
            LEVEL_5,
            ETCD,
            "ALTER TABLE operatorbundle ADD COLUMN later TEXT",
            "INSERT INTO schema_migrations VALUES (99)",
        )
        assert len(read(path).bundles) == 2


def entries(count: int, first: str = "NULL", head: str = "a.1") -> str:
    """A channel of bundles that each replace the next one, the last one ``first``."""
    return f"""
        INSERT INTO channel VALUES ('c', 'p', '{head}');
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
        INSERT INTO operatorbundle (name) SELECT 'a.' || i FROM n;
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
        INSERT INTO channel_entry SELECT
            i, 'c', 'p', 'a.' || i, CASE i WHEN {count} THEN {first} ELSE i + 1 END, i FROM n;
    """


class TestOddGraphs:
    @pytest.mark.parametrize(
        ("script", "said"),
        [
            (entries(3, first="1"), "no head, but a circle: a.1, a.2, a.3, a.1"),
            (entries(1, first="1"), "no head, but a circle: a.1, a.1"),
            (entries(3, first="2"), "a circle of bundles that replace one another"),
            (entries(2, head="gone"), "head gone, but nothing replaces a.1"),
            ("INSERT INTO channel VALUES ('c', 'p', 'gone')", "no bundles"),
            (entries(2) + "UPDATE channel_entry SET replaces = NULL", "several heads: a.1, a.2"),
        ],
    )
    def test_are_said_and_end(self, make: Make, script: str, said: str) -> None:
        catalog = read(make(LEVEL_5, script))
        (problem,) = catalog.problems
        assert f"index.db: channel 'c' of package 'p': {said}" in problem
        assert [channel.name for channel in catalog.packages[0].channels] == ["c"]

    def test_may_be_of_any_length(self, make: Make) -> None:
        catalog = read(make(LEVEL_5, entries(100_000)))
        assert len(catalog.packages[0].channels[0].entries) == 100_000
        assert catalog.problems == ()

    def test_of_many_only_the_first_are_said(self, make: Make) -> None:
        lost = MANY.replace("'etcd.1'", "'gone.' || i").replace("300", "3000")
        assert len(read(make(LEVEL_5, lost)).problems) == 1001


class TestHostileSchemas:
    @pytest.mark.parametrize(
        "query",
        [
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
            " SELECT 'a' || i AS image, 'b' AS operatorbundle_name FROM n",
            "SELECT name AS image, name AS operatorbundle_name FROM operatorbundle",
        ],
    )
    def test_refuses_a_view_for_a_table(self, make: Make, query: str) -> None:
        with pytest.raises(CatalogError, match="related_image is a view, where a table must be"):
            read(make(LEVEL_0, f"CREATE VIEW related_image AS {query}"))

    def test_refuses_a_view_that_claims_to_be_a_table(self, make: Make) -> None:
        path = make(
            LEVEL_0,
            "INSERT INTO operatorbundle (name) VALUES ('b')",
            "CREATE VIEW related_image AS"
            " SELECT name AS image, name AS operatorbundle_name FROM operatorbundle;"
            "PRAGMA writable_schema = ON;"
            "UPDATE sqlite_master SET type = 'table' WHERE name = 'related_image'",
        )
        with pytest.raises(CatalogError, match=r"index\.db: "):
            read(path)

    def test_refuses_a_virtual_table(self, make: Make) -> None:
        path = make(
            LEVEL_0,
            "CREATE VIRTUAL TABLE related_image USING rtree(id, image, operatorbundle_name)",
        )
        with pytest.raises(CatalogError, match="related_image is a virtual table"):
            read(path)

    def test_a_column_cannot_run_what_is_not_harmless(self, make: Make) -> None:
        path = make(
            "CREATE TABLE operatorbundle (name TEXT)",
            "INSERT INTO operatorbundle VALUES ('b')",
            "PRAGMA writable_schema = ON;"
            "UPDATE sqlite_master SET sql ="
            " 'CREATE TABLE operatorbundle (name TEXT, bundlepath AS (load_extension(name)))'",
        )
        with pytest.raises(CatalogError, match="cannot be read: malformed database schema"):
            read(path)

    def test_triggers_do_not_matter(self, make: Make) -> None:
        path = make(
            LEVEL_1,
            "CREATE TRIGGER related_image_changed AFTER DELETE ON related_image"
            " BEGIN SELECT load_extension('x'); END",
            "INSERT INTO related_image VALUES ('a', 'b')",
        )
        assert read(path).images == ("a",)

    def test_reading_writes_nothing(self, make: Make) -> None:
        path = make(LEVEL_1, ETCD)
        before = path.read_bytes()
        read(path)
        assert path.read_bytes() == before
        assert [file.name for file in path.parent.iterdir()] == ["index.db"]


class TestHostileContent:
    @pytest.mark.parametrize("value", ["5", "1.5", "x'ff'", "CAST(x'6180' AS TEXT)"])
    @pytest.mark.parametrize(
        "statement",
        [
            "INSERT INTO related_image VALUES ({}, 'b')",
            "INSERT INTO related_image VALUES ('a', {})",
            "INSERT INTO operatorbundle VALUES ({}, '')",
            "INSERT INTO operatorbundle VALUES ('b', {})",
        ],
    )
    def test_refuses_what_is_no_text(self, make: Make, statement: str, value: str) -> None:
        path = make(
            "CREATE TABLE operatorbundle (name, bundlepath)",
            "CREATE TABLE related_image (image, operatorbundle_name)",
            statement.format(value),
        )
        with pytest.raises(CatalogError, match=r"index\.db: (related_image|operatorbundle) holds"):
            read(path)

    def test_refuses_a_huge_cell(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "CATALOG_CELL", limits.MIB)
        path = make(LEVEL_1, "INSERT INTO related_image VALUES (zeroblob(2000000), 'b')")
        with pytest.raises(CatalogError, match=r"cannot be read: string or blob too big"):
            read(path)

    def test_refuses_too_many_rows(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        path = make(LEVEL_1, "INSERT INTO related_image VALUES ('a', 'b'), ('b', 'b'), ('c', 'b')")
        monkeypatch.setattr(limits, "CATALOG_ROWS", 2)
        with pytest.raises(CatalogError, match="more than 2 rows"):
            read(path)

    def test_refuses_too_much_text(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        path = make(LEVEL_1, "INSERT INTO related_image VALUES (hex(zeroblob(5000)), 'b')")
        monkeypatch.setattr(database, "_TEXT", 9_000)
        with pytest.raises(CatalogError, match="more than 9000 bytes of text"):
            read(path)

    def test_refuses_too_much_work(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(database, "_STEPS_PER_CALL", 100)
        monkeypatch.setattr(database, "_CALLS", 10)
        path = make(
            LEVEL_1,
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)"
            " INSERT INTO related_image SELECT 'a' || i, 'b' FROM n",
        )
        with pytest.raises(CatalogError, match="more work than any catalog should"):
            read(path)

    def test_refuses_a_file_larger_than_any_catalog(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = make(LEVEL_1)
        monkeypatch.setattr(limits, "CATALOG_DATABASE", 4096)
        with pytest.raises(CatalogError, match=r"index\.db: [0-9]+ bytes, more than 4096"):
            read(path)


class TestFiles:
    @pytest.mark.parametrize(
        "content", [b"", b"SQLite format 3", b"operators:\n" * 99, bytes(4096), b"\x1f\x8b" * 99]
    )
    def test_refuses_what_is_no_database(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "index.db"
        path.write_bytes(content)
        with pytest.raises(CatalogError, match=r"index\.db: not a SQLite database"):
            read(path)

    @pytest.mark.parametrize("mode", ["WAL", "TRUNCATE", "PERSIST"])
    def test_reads_every_journal_mode(self, make: Make, mode: str) -> None:
        path = make(f"PRAGMA journal_mode = {mode}", LEVEL_1, ETCD)
        if mode == "WAL":
            assert path.read_bytes()[18:20] == b"\2\2"
        assert len(read(path).bundles) == 2

    @pytest.mark.parametrize("encoding", ["UTF-16le", "UTF-16be"])
    def test_reads_other_encodings(self, make: Make, encoding: str) -> None:
        path = make(
            f"PRAGMA encoding = '{encoding}'",
            LEVEL_1,
            "INSERT INTO related_image VALUES ('é', 'b')",
        )
        assert read(path).images == ("é",)

    @pytest.mark.parametrize("size", [512, 65536])
    def test_reads_every_page_size(self, make: Make, size: int) -> None:
        assert len(read(make(f"PRAGMA page_size = {size}", LEVEL_1, ETCD)).bundles) == 2

    def test_reads_the_whole_or_refuses_when_it_is_cut(self, make: Make) -> None:
        path = make(LEVEL_5, ETCD, MANY)
        whole = path.read_bytes()
        for length in range(16, len(whole), 1536):
            path.write_bytes(whole[:length])
            with pytest.raises(CatalogError, match=r"index\.db: "):
                read(path)

    @pytest.mark.parametrize("mask", [0xFF, 0x01])
    def test_damage_anywhere_is_refused_or_harmless(self, make: Make, mask: int) -> None:
        path = make(LEVEL_5, ETCD, MANY)
        whole = path.read_bytes()
        for at in range(0, len(whole), 512):
            damaged = bytearray(whole)
            damaged[at] ^= mask
            path.write_bytes(damaged)
            try:
                read(path)
            except CatalogError as error:
                assert error.message.isprintable()

    def test_the_copy_is_private_and_leaves_nothing(
        self, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = make(LEVEL_1, ETCD)
        scratch = tmp_path / "scratch # %3f ?"
        scratch.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(scratch))
        with database.opened(LocalFile.at(path)) as one:
            assert list(scratch.iterdir()) == []
            assert len(list(one.texts("operatorbundle", "name"))) == 2

    def test_no_room_for_a_copy_is_a_matter_of_storage(
        self, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = make(LEVEL_1)
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
        with pytest.raises(StorageError, match="cannot be copied to") as caught:
            read(path)
        assert caught.value.hint is not None
        assert "TMPDIR" in caught.value.hint

    def test_a_local_file_is_a_file(self, tmp_path: Path) -> None:
        for path, why in ((tmp_path / "absent", "No such file"), (tmp_path, "not a regular file")):
            with pytest.raises(UsageError, match=why):
                LocalFile.at(path)
