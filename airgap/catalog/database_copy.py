"""A copy of a SQLite database that somebody else made, changed without running what is in it.

Its triggers are set aside while rows go and come, and stand again at the end, as they were.
Plain rows of real tables are all that SQLite is allowed to change, within the limits for reading;
an expression in the schema can run only what is harmless. A database that is damaged anywhere is
refused. Knows nothing of what the tables mean.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from airgap.catalog.database import Database, confine, explained
from airgap.catalog.database_writer import forget_library
from airgap.errors import CatalogError, StorageError, printable
from airgap.storage import storage_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from airgap.catalog.tree import StoredFile

_SETTINGS = (
    "PRAGMA query_only = OFF",
    "PRAGMA foreign_keys = OFF",
    "PRAGMA journal_mode = OFF",
    "PRAGMA synchronous = OFF",
)
"""For a file that is not there for anybody until it is whole."""

_KEEPS = "keeps"
"""The one function that may run, which is ours."""

_ALLOWED = frozenset(
    {
        sqlite3.SQLITE_SELECT,
        sqlite3.SQLITE_READ,
        sqlite3.SQLITE_INSERT,
        sqlite3.SQLITE_UPDATE,
        sqlite3.SQLITE_DELETE,
        sqlite3.SQLITE_TRANSACTION,
        sqlite3.SQLITE_CREATE_TRIGGER,
        sqlite3.SQLITE_DROP_TRIGGER,
    }
)

_NO_ROOM = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY})


class DatabaseCopy(Database):
    """Tables whose rows can be taken out and added.

    Get one from ``changed``, which translates the errors that SQLite raises meanwhile.
    """

    def keep(self, table: str, columns: tuple[str, ...], keeps: Callable[..., bool]) -> None:
        """Delete the rows of a table for which ``keeps`` says no of the texts in the columns.

        A column that is not there, NULL and what is no text are "". Does nothing to a table
        that is not there. Raises CatalogError for what only looks like a table.
        """
        present = self.columns(table)
        if not present:
            return
        self._connection.create_function(
            _KEEPS, len(columns), lambda *values: keeps(*map(_as_text, values))
        )
        values = ", ".join(column if column in present else "NULL" for column in columns)
        self._connection.execute(f"DELETE FROM {table} WHERE NOT {_KEEPS}({values})")

    def fill(
        self, table: str, columns: tuple[str, ...], rows: Iterable[tuple[object, ...]]
    ) -> None:
        """Put rows in the place of all that a table has. Raises CatalogError as ``keep`` does."""
        self.columns(table)
        self._connection.execute(f"DELETE FROM {table}")
        places = ", ".join("?" * len(columns))
        self._connection.executemany(
            f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})", rows
        )


@contextmanager
def changed(file: StoredFile, target: Path) -> Iterator[DatabaseCopy]:
    """Copy a database into the file ``target``, to be changed within the block.

    The same changes to the same database give the same bytes, with the same version of SQLite;
    no deleted row is left in them. Raises CatalogError for everything that is wrong with the
    database, StorageError. ``target`` is then of no use.
    """
    name = printable(file.path)
    try:
        with storage_errors(target):
            with target.open("wb") as copy:
                file.copy_to(copy)
            with closing(sqlite3.connect(target, isolation_level=None)) as connection:
                yield from _changing(connection, name)
            forget_library(target)
    except (sqlite3.Error, UnicodeError) as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _NO_ROOM:
            raise StorageError(f"{target}: cannot be written: {error}") from error
        raise CatalogError(
            f"{name}: cannot be reduced: {explained(error)}",
            hint="Take the catalog as it is.",
        ) from error


def _changing(connection: sqlite3.Connection, name: str) -> Iterator[DatabaseCopy]:
    confine(connection)
    for setting in _SETTINGS:
        connection.execute(setting)
    connection.set_authorizer(_authorize)
    connection.execute("BEGIN")
    triggers = _without_triggers(connection)
    yield DatabaseCopy(connection, name)
    for trigger in triggers:
        connection.execute(trigger)
    connection.execute("COMMIT")
    connection.set_authorizer(None)
    (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if found != b"ok":
        raise CatalogError(f"{name}: damaged: {printable(found.decode('utf-8', 'replace'))}")
    connection.execute("VACUUM")


def _without_triggers(connection: sqlite3.Connection) -> list[str]:
    """Drop all triggers, and return the statements that make them again."""
    triggers: list[tuple[Any, ...]] = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
    ).fetchall()
    for name, _ in triggers:
        quoted = name.decode("utf-8").replace('"', '""')
        connection.execute(f'DROP TRIGGER "{quoted}"')
    return [sql.decode("utf-8") for _, sql in triggers]


def _authorize(
    action: int, _first: str | None, second: str | None, _schema: str | None, source: str | None
) -> int:
    """Allow to read and change rows; nothing on behalf of a trigger or a view."""
    ours = action in _ALLOWED or (action == sqlite3.SQLITE_FUNCTION and second == _KEEPS)
    return sqlite3.SQLITE_OK if ours and source is None else sqlite3.SQLITE_DENY


def _as_text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else ""
