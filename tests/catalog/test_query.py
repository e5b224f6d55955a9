from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from airgap.catalog import database
from airgap.catalog import query as querying
from airgap.catalog.database_writer import write
from airgap.catalog.query import Answer, query
from airgap.errors import CatalogError, Interrupted, UsageError
from tests.catalog.test_filebased import ETCD

if TYPE_CHECKING:
    from pathlib import Path

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write(ETCD, tmp_path / "index.db")
    return tmp_path / "index.db"


def asked(path: Path, sql: str) -> Answer:
    return query(path, sql, threading.Event())


def with_schema(path: Path, script: str) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    return path


class TestAnswers:
    def test_the_documented_query(self, path: Path) -> None:
        sql = "select * from related_image where operatorbundle_name like 'etcd.1%'"
        assert asked(path, sql) == Answer(
            ("image", "operatorbundle_name"),
            (("quay.io/etcd/bundle:1", "etcd.1"), ("quay.io/etcd/etcd:v3", "etcd.1")),
        )

    @pytest.mark.parametrize(
        ("sql", "value"),
        [
            ("SELECT NULL", None),
            ("SELECT 7", 7),
            ("SELECT -9223372036854775808", -(1 << 63)),
            ("SELECT 1.5", 1.5),
            ("SELECT 9e999", "Inf"),
            ("SELECT -9e999", "-Inf"),
            ("SELECT 'é'", "é"),
            ("SELECT x'C3A9'", "é"),
            ("SELECT x'FF00'", "X'FF00'"),
            ("SELECT CAST(x'FF' AS TEXT)", "X'FF'"),
            ("SELECT count(*) FROM operatorbundle;", 3),
            ("SELECT json_extract('{\"a\": 1}', '$.a')", 1),
            ("SELECT group_concat(name, ' ') FROM operatorbundle", "etcd.1 etcd.2 etcd.3"),
            ("WITH b AS (SELECT name FROM operatorbundle) SELECT max(name) FROM b", "etcd.3"),
            ("SELECT max(i) FROM (SELECT 1 i UNION SELECT 2)", 2),
            (ENDLESS + "SELECT max(i) FROM (SELECT i FROM n LIMIT 5)", 5),
            ("SELECT rank() OVER (ORDER BY name) FROM package", 1),
            ("VALUES (1)", 1),
            ("-- a remark\nSELECT 1 -- and another", 1),
        ],
    )
    def test_every_kind_of_value(self, path: Path, sql: str, value: object) -> None:
        assert asked(path, sql).rows == ((value,),)

    def test_columns_keep_their_names_also_without_rows(self, path: Path) -> None:
        assert asked(path, "SELECT name, name FROM package WHERE 0") == Answer(("name", "name"), ())

    def test_a_database_in_wal_mode(self, path: Path) -> None:
        with_schema(path, "PRAGMA journal_mode = WAL")
        assert asked(path, "SELECT name FROM package").rows == (("etcd",),)


class TestNothingButReading:
    @pytest.mark.parametrize(
        "sql",
        [
            "DROP TABLE package",
            "DELETE FROM package",
            "INSERT INTO package VALUES ('a', 'b')",
            "UPDATE package SET name = 'a' RETURNING name",
            "CREATE TABLE a (b)",
            "CREATE TEMP TABLE a AS SELECT 1",
            "CREATE TEMP VIEW a AS SELECT 1",
            "ATTACH '{folder}/other.db' AS other",
            "VACUUM",
            "VACUUM INTO '{folder}/other.db'",
            "PRAGMA user_version = 7",
            "PRAGMA journal_mode = DELETE",
            "PRAGMA writable_schema = ON",
            "PRAGMA query_only = OFF",
            "PRAGMA table_info(package)",
            "SELECT * FROM pragma_table_info('package')",
            "SELECT load_extension('{folder}/other.so')",
            "SELECT writefile('{folder}/other.db', 'x')",
            "SELECT readfile('/etc/passwd')",
            "SELECT fts3_tokenizer('simple')",
            "SELECT zeroblob(1)",
            "BEGIN",
            "SAVEPOINT a",
            "ANALYZE",
            "REINDEX",
            "SELECT 1; DROP TABLE package",
            "SELECT ?",
            "",
            "-- nothing",
            "nonsense",
            "SELECT nothing FROM package",
            "SELECT '\ud800'",
            "SELECT '\0'",
        ],
    )
    def test_is_possible(self, path: Path, sql: str) -> None:
        before = path.read_bytes()
        with pytest.raises(UsageError) as caught:
            asked(path, sql.replace("{folder}", str(path.parent)))
        assert caught.value.hint
        assert list(path.parent.iterdir()) == [path]
        assert path.read_bytes() == before

    def test_is_said_in_the_words_of_sqlite(self, path: Path) -> None:
        with pytest.raises(UsageError, match="no such table: absent") as caught:
            asked(path, "SELECT * FROM absent")
        assert "sqlite_master" in str(caught.value.hint)
        assert ("related_image",) in asked(path, "SELECT name FROM sqlite_master").rows
        for sql in ("DROP TABLE package", "SELECT 1; SELECT 2"):
            with pytest.raises(UsageError) as caught:
                asked(path, sql)
            assert "one SELECT" in str(caught.value.hint)

    def test_foreign_views_do_not_run(self, path: Path) -> None:
        with_schema(path, "CREATE VIEW Seen AS SELECT name FROM package")
        for sql in ("SELECT name FROM seen", "SELECT count(*) FROM Seen"):
            with pytest.raises(UsageError):
                asked(path, sql)

    def test_foreign_virtual_tables_are_not_opened(self, path: Path) -> None:
        try:
            with_schema(path, "CREATE VIRTUAL TABLE found USING fts5(text)")
        except sqlite3.OperationalError:
            pytest.skip("SQLite was built without FTS5")
        with pytest.raises(UsageError):
            asked(path, "SELECT * FROM found")


class TestBounds:
    @pytest.mark.parametrize(
        "sql",
        [
            ENDLESS + "SELECT count(*) FROM n",
            ENDLESS + "SELECT a.i FROM n a, n b WHERE a.i < 0",
            ENDLESS.replace("UNION ALL", "UNION") + "SELECT max(i) FROM n",
        ],
    )
    def test_work_without_an_end_is_ended(
        self, path: Path, sql: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(database, "_CALLS", 20)
        with pytest.raises(UsageError, match="more work than any should"):
            asked(path, sql)

    def test_rows_without_an_end_are_too_many(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(querying, "_ROWS", 1000)
        with pytest.raises(UsageError, match="more than 1000 rows") as caught:
            asked(path, ENDLESS + "SELECT i FROM n")
        assert "LIMIT" in str(caught.value.hint)
        assert len(asked(path, ENDLESS + "SELECT i FROM n LIMIT 1000").rows) == 1000

    @pytest.mark.parametrize("value", ["printf('%.*c', 100000, 'x')", "NULL" + ", NULL" * 999])
    def test_rows_may_not_be_large_either(
        self, path: Path, value: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(querying, "_BYTES", 1_000_000)
        assert len(asked(path, f"{ENDLESS} SELECT {value} FROM n LIMIT 9").rows) == 9
        with pytest.raises(UsageError, match="more than 1000000 bytes"):
            asked(path, f"{ENDLESS} SELECT {value} FROM n LIMIT 70")

    @pytest.mark.parametrize(
        "sql", ["SELECT hex(printf('%.*c', 40000000, 'x'))", "SELECT 1 LIKE '" + "%a" * 1000 + "'"]
    )
    def test_values_and_patterns_have_a_length(self, path: Path, sql: str) -> None:
        with pytest.raises(UsageError):
            asked(path, sql)

    def test_a_request_to_stop_ends_a_query(self, path: Path) -> None:
        stop = threading.Event()
        timer = threading.Timer(0.1, stop.set)
        timer.start()
        with pytest.raises(Interrupted):
            query(path, ENDLESS + "SELECT count(*) FROM n", stop)
        timer.join()


class TestDamage:
    def test_is_the_database_s_and_not_the_query_s(self, path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[4096:] = b"\xff" * (len(content) - 4096)
        path.write_bytes(content)
        with pytest.raises(CatalogError, match="damaged"):
            asked(path, "SELECT * FROM related_image")

    def test_of_its_first_page_too(self, path: Path) -> None:
        path.write_bytes(b"no database at all" * 100)
        with pytest.raises(CatalogError, match="not a database"):
            asked(path, "SELECT 1")
