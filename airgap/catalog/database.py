"""A SQLite database that somebody else made, read without trusting it.

A schema is a program: views, triggers and generated columns run while one only reads. So a
private copy is opened read-only, and plain SELECTs from real tables are all that SQLite is
allowed, within limits on size, rows, text and work. Knows nothing of what the tables mean.
"""

from __future__ import annotations

import itertools
import sqlite3
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airgap import limits
from airgap.errors import CatalogError, StorageError, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airgap.catalog.tree import StoredFile, Tree

MAGIC = b"SQLite format 3\0"
"""The first bytes of every SQLite database."""

_TEXT = 256 * limits.MIB
"""Bytes of text read from one database; the largest catalogs hold some ten megabytes."""

_STEPS_PER_CALL = 100_000
_CALLS = 20_000
"""Together the work SQLite may do for one database, about a minute's."""

_SETTINGS = (
    "PRAGMA trusted_schema = OFF",
    "PRAGMA cell_size_check = ON",
    "PRAGMA mmap_size = 0",
    "PRAGMA query_only = ON",
)
_ALLOWED = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ})


class NoText(CatalogError):
    """A value that is no text, where text must be; ``why`` says it without the database."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name}: {why}")
        self.why = why


class Database:
    """Rows of tables, asked for by name; names of tables and columns in lower case.

    Get one from ``opened``, which translates the errors that SQLite raises while rows are read.
    """

    def __init__(self, connection: sqlite3.Connection, name: str) -> None:
        self.name = name
        self._connection = connection
        self._rows = 0
        self._bytes = 0
        self._kinds = self._read_schema()

    def has(self, table: str) -> bool:
        """Say whether there is something of that name."""
        return table in self._kinds

    def columns(self, table: str) -> frozenset[str]:
        """Return the names of a table's columns; none when there is no such table.

        Raises CatalogError for what only looks like a table.
        """
        if table not in self._kinds:
            return frozenset()
        if self._kinds[table] != "table":
            raise self.refused(f"{table} is a {self._kinds[table]}, where a table must be")
        cursor = self._connection.execute(f"SELECT * FROM {table} LIMIT 0")
        return frozenset(column[0].lower() for column in cursor.description)

    def rows(self, table: str, *columns: str) -> Iterator[tuple[Any, ...]]:
        """Give rows as SQLite has them, text as bytes; a column that is not there is NULL.

        None from a table that is not there. Raises CatalogError, as ``columns`` does.
        """
        present = self.columns(table)
        chosen = ", ".join(column if column in present else "NULL" for column in columns)
        if not present:
            return
        for row in self._connection.execute(f"SELECT {chosen} FROM {table}"):
            self._rows += 1
            if self._rows > limits.CATALOG_ROWS:
                raise self.refused(f"more than {limits.CATALOG_ROWS} rows")
            yield row

    def texts(self, table: str, *columns: str) -> Iterator[tuple[str, ...]]:
        """Give rows of text, "" for NULL. Raises NoText, CatalogError."""
        for row in self.rows(table, *columns):
            yield tuple([self.text(value, table) for value in row])

    def text(self, value: object, table: str) -> str:
        """Return a value of a table's row as text, "" for NULL.

        Raises NoText for another one, CatalogError when it is too much text.
        """
        if value is None:
            return ""
        if not isinstance(value, bytes):
            raise NoText(self.name, f"{table} holds {value!r}, where text must be")
        self._bytes += len(value)
        if self._bytes > _TEXT:
            raise self.refused(f"more than {_TEXT} bytes of text")
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as error:
            shown = printable(repr(value[:80]))
            raise NoText(self.name, f"{table} holds text that is no UTF-8: {shown}") from error

    def refused(self, why: str) -> CatalogError:
        """Return the error that says why this database cannot be read."""
        return CatalogError(f"{self.name}: {why}")

    def _read_schema(self) -> dict[str, str]:
        """Return what everything is: a "table" is one only when its definition says so too."""
        kinds = {}
        for row in self._connection.execute("SELECT name, type, sql FROM sqlite_master"):
            name, kind, sql = (self.text(value, "sqlite_master") for value in row)
            if kind == "table" and not sql.upper().startswith("CREATE TABLE"):
                kind = "virtual table"
            if kind in ("table", "virtual table", "view"):
                kinds[name.lower()] = kind
        return kinds


@contextmanager
def opened(file: StoredFile) -> Iterator[Database]:
    """Open a database file.

    Raises CatalogError for everything that is wrong with it, also while it is read;
    StorageError when there is no room for a copy of it.
    """
    name = printable(file.path)
    if not file.magic.startswith(MAGIC):
        raise CatalogError(f"{name}: not a SQLite database")
    if file.size > limits.CATALOG_DATABASE:
        raise CatalogError(f"{name}: {file.size} bytes, more than {limits.CATALOG_DATABASE}")
    try:
        with closing(_private_copy(file)) as connection:
            confine(connection)
            _refuse_part_of_a_page(connection, file.size, name)
            connection.set_authorizer(_authorize)
            yield Database(connection, name)
    except (sqlite3.Error, UnicodeError) as error:
        raise CatalogError(
            f"{name}: cannot be read: {explained(error)}",
            hint="The database is damaged, or was not made by operator-registry.",
        ) from error


def require_finished(file: StoredFile, tree: Tree) -> None:
    """Raise CatalogError when a database's last changes are still in a file beside it.

    A journal is done with once its beginning is zeros, or it is empty.
    """
    log, journal = tree.find(f"{file.path}-wal"), tree.find(f"{file.path}-journal")
    if log is not None and log.size:
        raise _unfinished(f"{file.path}: changes in {log.path} were never written into it")
    if journal is not None and any(journal.magic[:8]):
        raise _unfinished(f"{file.path}: a change in {journal.path} was never finished")


def _unfinished(why: str) -> CatalogError:
    return CatalogError(
        printable(why), hint="Whoever made it must close the database before copying it."
    )


def connect(path: Path) -> sqlite3.Connection:
    """Open a database that nobody changes any more, to be read alone.

    An immutable file is read without locks and without looking for journals beside it; so a
    database in WAL mode can be read as well. Raises sqlite3.Error.
    """
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)


def confine(connection: sqlite3.Connection, is_over: Callable[[], bool] = lambda: False) -> None:
    """Set the limits on size and work; text then comes as bytes.

    Once ``is_over`` says so, SQLite raises OperationalError with SQLITE_INTERRUPT, as it does
    beyond the limit on work.
    """
    for setting in _SETTINGS:
        connection.execute(setting)
    connection.text_factory = bytes
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, limits.CATALOG_CELL)
    calls = itertools.count(1)
    connection.set_progress_handler(lambda: next(calls) > _CALLS or is_over(), _STEPS_PER_CALL)


def _private_copy(file: StoredFile) -> sqlite3.Connection:
    """Open a copy that nobody else can reach, and that has no name any more."""
    try:
        with tempfile.TemporaryDirectory(prefix="airgap-") as private:
            path = Path(private, "catalog.db")
            with path.open("wb") as copy:
                file.copy_to(copy)
            return connect(path)
    except OSError as error:
        raise StorageError(
            f"{printable(file.path)}: cannot be copied to {tempfile.gettempdir()}: {error}",
            hint=f"It takes {file.size} bytes; set TMPDIR to a directory with more room.",
        ) from error


def _refuse_part_of_a_page(connection: sqlite3.Connection, size: int, name: str) -> None:
    """Refuse a cut that SQLite overlooks: it takes what is missing of the last page for zeros."""
    (page,) = connection.execute("PRAGMA page_size").fetchone()
    if size % page:
        raise CatalogError(f"{name}: cut: {size} bytes are no whole number of {page}-byte pages")


def _authorize(
    action: int, _table: str | None, _column: str | None, _schema: str | None, source: str | None
) -> int:
    """Allow plain reading; no function, no recursion, nothing on behalf of a view."""
    return sqlite3.SQLITE_OK if action in _ALLOWED and source is None else sqlite3.SQLITE_DENY


def explained(error: Exception) -> str:
    """Say what SQLite, or reading its text, raised; fit to be printed."""
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
        return "it takes more work than any catalog should"
    return printable(str(error))
