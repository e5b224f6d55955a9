from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from airgap.catalog import database, formats, read, sqlite
from airgap.catalog.rebuild import Rebuilt, rebuild
from airgap.catalog.reduce import reduced
from airgap.catalog.tree import LocalFile
from airgap.errors import CatalogError, StorageError
from tests.catalog.test_rebuild import some
from tests.support import published
from tests.support.layers import file, layer, tree

if TYPE_CHECKING:
    from pathlib import Path

    from airgap.catalog.select import Places

GRAPH = {"channel_entry", "channel", "package"}

ETCD = """
    CREATE TABLE operatorbundle (
        name TEXT PRIMARY KEY, csv TEXT, bundle TEXT, bundlepath TEXT, skiprange TEXT, version TEXT
    );
    CREATE TABLE package (name TEXT PRIMARY KEY, default_channel TEXT);
    CREATE TABLE channel (name TEXT, package_name TEXT, head_operatorbundle_name TEXT);
    CREATE TABLE channel_entry (
        entry_id INTEGER PRIMARY KEY, channel_name TEXT, package_name TEXT,
        operatorbundle_name TEXT, replaces INTEGER, depth INTEGER
    );
    CREATE TABLE schema_migrations (version BIGINT NOT NULL);
    CREATE TABLE related_image (image TEXT, operatorbundle_name TEXT);
    CREATE TABLE api (group_name TEXT, version TEXT, kind TEXT, plural TEXT NOT NULL);
    CREATE TABLE api_provider (
        group_name TEXT, version TEXT, kind TEXT, channel_entry_id INTEGER,
        PRIMARY KEY (group_name, version, kind, channel_entry_id)
    );
    INSERT INTO package VALUES ('etcd', 'alpha');
    INSERT INTO channel VALUES ('alpha', 'etcd', 'etcd.3'), ('beta', 'etcd', 'etcd.2');
    INSERT INTO operatorbundle VALUES
        ('etcd.3', '{}', '{}', 'q.io/etcd:3', '', '3.0.0'),
        ('etcd.2', '{}', '{}', 'q.io/etcd:2', '', '2.0.0'),
        ('etcd.1', NULL, NULL, 'q.io/etcd:1', '', '1.0.0');
    INSERT INTO channel_entry VALUES
        (1, 'alpha', 'etcd', 'etcd.3', 2, 0),
        (2, 'alpha', 'etcd', 'etcd.2', 3, 1),
        (3, 'alpha', 'etcd', 'etcd.1', NULL, 2),
        (4, 'beta', 'etcd', 'etcd.2', 5, 0),
        (5, 'beta', 'etcd', 'etcd.1', NULL, 1);
    INSERT INTO related_image VALUES
        ('q.io/a', 'etcd.3'), ('q.io/b', 'etcd.2'), ('q.io/c', 'etcd.1'), ('q.io/d', NULL);
    INSERT INTO api VALUES ('g', 'v1', 'Old', 'olds'), ('g', 'v1', 'New', 'news');
    INSERT INTO api_provider VALUES
        ('g', 'v1', 'New', 1), ('g', 'v1', 'Old', 2), ('g', 'v1', 'Old', 3), ('g', 'v1', 'New', 99);
"""
"""Two channels at level 5, of which only the first says what the bundles provide."""

ALL: Places = {
    ("etcd", "alpha"): {"etcd.3", "etcd.2", "etcd.1"},
    ("etcd", "beta"): {"etcd.2", "etcd.1"},
}
LOWER: Places = {("etcd", "beta"): {"etcd.2", "etcd.1"}}
LOWEST: Places = {("etcd", "alpha"): {"etcd.1"}}


def made(folder: Path, *scripts: str) -> Path:
    path = folder / "made.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for script in scripts:
            connection.executescript(script)
    return path


def rebuilt(path: Path, places: Places, *beside: tuple[str, bytes]) -> Rebuilt:
    members = [file("index.db", path.read_bytes()), *(file(*other) for other in beside)]
    files = tree(layer(*members))
    found = read.read(files, {formats.DATABASE_LABEL: "/index.db"})
    target = path.parent / "rebuilt"
    target.mkdir(exist_ok=True)
    return rebuild(files, found, places, {}, target)


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def tables(path: Path) -> dict[str, Counter[tuple[Any, ...]]]:
    """All rows of all tables, with the types of their values."""
    names = rows(path, "SELECT name FROM sqlite_master WHERE type = 'table'")
    return {name: Counter(rows(path, f"SELECT * FROM {name}")) for (name,) in names}


SMALL = ("ibm-crossplane", "cluster-assessment", "opreg-foo")
"""Published catalogs of which a part may well be nothing."""

ENOUGH = [path for path in published.databases() if not path.name.startswith(SMALL)]


@pytest.mark.parametrize("path", ENOUGH, ids=published.name)
class TestPublished:
    def part(self, path: Path, tmp_path: Path) -> tuple[Path, Path, set[str]]:
        """The database, what it is rebuilt as, and the bundles that are left."""
        before = published.unpacked(path, tmp_path)
        whole = sqlite.read(LocalFile.at(before))
        places = some(whole, 0.6, 5)
        catalog = reduced(whole, places)
        assert catalog.packages
        copy = tmp_path / "copy.db"
        copy.write_bytes(before.read_bytes())
        ((_, after),) = rebuilt(copy, places).files
        return before, after, {bundle.name for bundle in catalog.bundles}

    def test_rows_of_what_is_left_stay_as_they_were(self, path: Path, tmp_path: Path) -> None:
        before, after, kept = self.part(path, tmp_path)
        was, now = tables(before), tables(after)
        assert was.keys() == now.keys()
        assert now["schema_migrations"] == was["schema_migrations"]
        for table in was.keys() - GRAPH - {"api", "schema_migrations"}:
            columns = [row[1] for row in rows(before, f"PRAGMA table_info({table})")]
            key = "name" if table == "operatorbundle" else "operatorbundle_name"
            if key in columns:
                at = columns.index(key)
                stays = {row: n for row, n in was[table].items() if row[at] in kept}
                assert now[table] == Counter(stays), table

    def test_apis_are_those_of_what_is_left(self, path: Path, tmp_path: Path) -> None:
        before, after, _ = self.part(path, tmp_path)
        assert tables(after)["api"] <= tables(before)["api"]
        names = "group_name, version, kind"
        used = {
            row
            for table in ("api_provider", "api_requirer")
            if table in tables(after)
            for row in rows(after, f"SELECT {names} FROM {table}")
        }
        assert set(rows(after, f"SELECT {names} FROM api")) == used

    def test_the_schema_is_the_same(self, path: Path, tmp_path: Path) -> None:
        before, after, _ = self.part(path, tmp_path)
        schema = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY 1, 2"
        assert rows(after, schema) == rows(before, schema)

    def test_no_key_leads_nowhere_that_did_not_before(self, path: Path, tmp_path: Path) -> None:
        before, after, _ = self.part(path, tmp_path)
        broken = {
            (table, parent) for table, _, parent, _ in rows(before, "PRAGMA foreign_key_check")
        }
        for table, _, parent, _ in rows(after, "PRAGMA foreign_key_check"):
            assert (table, parent) in broken

    def test_nothing_is_left_of_what_is_gone(self, path: Path, tmp_path: Path) -> None:
        _, after, _ = self.part(path, tmp_path)
        assert rows(after, "PRAGMA freelist_count") == [(0,)]
        assert [name.name for name in after.parent.iterdir()] == ["index.db"]


class TestSmall:
    def test_a_level_that_knows_apis_by_entries_keeps_them(self, tmp_path: Path) -> None:
        ((_, after),) = rebuilt(made(tmp_path, ETCD), LOWER).files
        assert rows(after, "SELECT * FROM channel_entry") == [
            (1, "beta", "etcd", "etcd.2", 2, 0),
            (2, "beta", "etcd", "etcd.1", None, 1),
        ]
        assert rows(after, "SELECT * FROM api_provider") == [
            ("g", "v1", "Old", 1),
            ("g", "v1", "Old", 2),
        ]
        assert rows(after, "SELECT * FROM api") == [("g", "v1", "Old", "olds")]
        assert rows(after, "SELECT * FROM package") == [("etcd", "beta")]
        assert rows(after, "SELECT * FROM related_image") == [
            ("q.io/b", "etcd.2"),
            ("q.io/c", "etcd.1"),
        ]

    def test_blobs_and_nulls_stay_what_they_are(self, tmp_path: Path) -> None:
        path = made(
            tmp_path,
            ETCD,
            "UPDATE operatorbundle SET csv = CAST('{\"a\": 1}' AS BLOB), name = CAST(name AS BLOB)",
        )
        ((_, after),) = rebuilt(path, LOWER).files
        assert rows(after, "SELECT name, csv, bundle FROM operatorbundle") == [
            (b"etcd.2", b'{"a": 1}', "{}"),
            (b"etcd.1", b'{"a": 1}', None),
        ]

    def test_a_new_head_that_clusters_cannot_list_is_said(self, tmp_path: Path) -> None:
        path = made(tmp_path, ETCD)
        assert any("etcd.1, which is the head" in line for line in rebuilt(path, LOWEST).remarks)
        assert not any("etcd" in line for line in rebuilt(path, ALL).remarks)

    def test_the_file_does_not_say_which_library_wrote_it(self, tmp_path: Path) -> None:
        ((_, after),) = rebuilt(made(tmp_path, ETCD), LOWER).files
        assert after.read_bytes()[96:100] == bytes(4)

    @pytest.mark.parametrize("mode", ["wal", "delete", "persist"])
    def test_every_journal_mode_ends_without_one(self, tmp_path: Path, mode: str) -> None:
        path = made(tmp_path, f"PRAGMA journal_mode = {mode};", ETCD)
        ((_, after),) = rebuilt(path, LOWER).files
        assert after.read_bytes()[18:20] == b"\1\1"
        assert rows(after, "SELECT count(*) FROM operatorbundle") == [(2,)]

    @pytest.mark.parametrize("encoding", ["UTF-16le", "UTF-16be"])
    def test_other_encodings_stay(self, tmp_path: Path, encoding: str) -> None:
        path = made(tmp_path, f"PRAGMA encoding = '{encoding}';", ETCD)
        ((_, after),) = rebuilt(path, LOWER).files
        assert rows(after, "PRAGMA encoding") == [(encoding,)]
        assert rows(after, "SELECT name FROM operatorbundle ORDER BY 1") == [
            ("etcd.1",),
            ("etcd.2",),
        ]

    def test_no_room_is_a_matter_of_storage(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = made(tmp_path, ETCD)
        (tmp_path / "rebuilt" / "index.db").mkdir(parents=True)
        with pytest.raises(StorageError, match=r"index\.db"):
            rebuilt(path, LOWER)


class TestHostile:
    @pytest.mark.parametrize(
        "trigger",
        [
            "CREATE TRIGGER t AFTER DELETE ON operatorbundle BEGIN DELETE FROM package; END",
            'CREATE TRIGGER "a ""b" BEFORE DELETE ON api BEGIN INSERT INTO ran VALUES (1); END',
            "CREATE TRIGGER t AFTER INSERT ON channel BEGIN UPDATE package SET name = 'x'; END",
            "CREATE TRIGGER t BEFORE INSERT ON channel_entry BEGIN SELECT raise(ABORT, 'no'); END",
        ],
    )
    def test_a_trigger_does_not_run_and_stays(self, tmp_path: Path, trigger: str) -> None:
        path = made(tmp_path, ETCD, "CREATE TABLE ran (x)", trigger)
        ((_, after),) = rebuilt(path, LOWER).files
        assert rows(after, "SELECT * FROM ran") == []
        assert rows(after, "SELECT * FROM package") == [("etcd", "beta")]
        assert rows(after, "SELECT sql FROM sqlite_master WHERE type = 'trigger'") == [(trigger,)]

    @pytest.mark.parametrize(
        "schema",
        [
            "CREATE TABLE package (name TEXT, default_channel TEXT CHECK (load_extension(name)))",
            "CREATE TABLE package (name TEXT, default_channel AS (load_extension(name)))",
        ],
    )
    def test_what_is_not_harmless_cannot_run(self, tmp_path: Path, schema: str) -> None:
        path = made(
            tmp_path,
            ETCD,
            "PRAGMA writable_schema = ON;"
            f" UPDATE sqlite_master SET sql = '{schema}' WHERE name = 'package'",
        )
        with pytest.raises(CatalogError, match=r"load_extension|malformed"):
            rebuilt(path, LOWER)

    def test_refuses_a_view_for_a_table(self, tmp_path: Path) -> None:
        path = made(tmp_path, ETCD, "DROP TABLE api; CREATE VIEW api AS SELECT 1 AS kind")
        with pytest.raises(CatalogError, match="api is a view, where a table must be"):
            rebuilt(path, LOWER)

    def test_what_would_be_read_as_another_catalog_is_refused(self, tmp_path: Path) -> None:
        path = made(
            tmp_path,
            ETCD,
            "ALTER TABLE package RENAME COLUMN default_channel TO stored",
            "ALTER TABLE package ADD COLUMN default_channel TEXT AS ('alpha')",
        )
        with pytest.raises(CatalogError):
            rebuilt(path, LOWER)

    def test_too_much_work_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = made(
            tmp_path,
            ETCD,
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000)"
            " INSERT INTO api SELECT 'g', 'v', i, '' FROM n",
        )
        monkeypatch.setattr(database, "_CALLS", 1)
        with pytest.raises(CatalogError, match="more work"):
            rebuilt(path, LOWER)

    def test_a_change_that_was_never_finished_is_refused(self, tmp_path: Path) -> None:
        path = made(tmp_path, ETCD)
        with pytest.raises(CatalogError, match="never finished"):
            rebuilt(path, LOWER, ("index.db-journal", b"x"))
        assert rebuilt(path, LOWER, ("index.db-journal", b"")).files

    @pytest.mark.parametrize("mask", [0x01, 0xFF])
    def test_damage_anywhere_is_refused_or_harmless(self, tmp_path: Path, mask: int) -> None:
        whole = made(tmp_path, ETCD).read_bytes()
        for place in range(0, len(whole), 251):
            damaged = bytearray(whole)
            damaged[place] ^= mask
            (tmp_path / "made.db").write_bytes(damaged)
            try:
                ((_, after),) = rebuilt(tmp_path / "made.db", LOWER).files
            except CatalogError:
                continue
            assert rows(after, "PRAGMA integrity_check") == [("ok",)]
