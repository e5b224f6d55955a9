"""One SQL query over a catalog's database, answered whole or not at all.

The database may be somebody else's and the query is the user's own: it may read tables and call
the functions that only compute, and nothing else; how much it may do and bring is bounded, and
it can be stopped. What a query that cannot be answered lacks is said in SQLite's words. Knows
nothing of what the tables mean.
"""

from __future__ import annotations

import math
import sqlite3
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from airgap import limits
from airgap.catalog import database
from airgap.errors import (
    AirgapError,
    CatalogError,
    Interrupted,
    StorageError,
    UsageError,
    printable,
)

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable
    from pathlib import Path

Value: TypeAlias = str | int | float | None
"""What a row has in a column; bytes come as text, or as a literal of SQL where they are none."""

_ROWS = 1_000_000
_BYTES = 256 * limits.MIB
"""What an answer may take up, for it is in memory before its first row is given."""

_ROW, _VALUE = 64, 16
"""What a row and a value in it count for, besides the text."""

_PATTERN = 1_000
"""Characters in a pattern for LIKE and GLOB, which SQLite does not let be interrupted."""

_ACTIONS = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE})

_FUNCTIONS = frozenset(
    (
        *("char", "concat", "concat_ws", "format", "glob", "hex", "instr", "length", "like"),
        *("lower", "ltrim", "octet_length", "printf", "quote", "replace", "rtrim", "soundex"),
        *("substr", "substring", "trim", "unhex", "unicode", "upper"),
        *("abs", "coalesce", "ifnull", "iif", "likelihood", "likely", "nullif", "random"),
        *("round", "sign", "typeof", "unlikely"),
        *("avg", "count", "group_concat", "max", "min", "string_agg", "sum", "total"),
        *("cume_dist", "dense_rank", "first_value", "lag", "last_value", "lead", "nth_value"),
        *("ntile", "percent_rank", "rank", "row_number"),
        *("date", "datetime", "julianday", "strftime", "time", "timediff", "unixepoch"),
        *("acos", "asin", "atan", "atan2", "ceil", "ceiling", "cos", "degrees", "exp", "floor"),
        *("ln", "log", "log10", "log2", "mod", "pi", "pow", "power", "radians", "sin", "sqrt"),
        *("tan", "trunc"),
        *("->", "->>", "json", "json_array", "json_array_length", "json_extract"),
        *("json_group_array", "json_group_object", "json_insert", "json_object", "json_patch"),
        *("json_quote", "json_remove", "json_replace", "json_set", "json_type", "json_valid"),
    )
)
"""Those of SQLite that compute something from their arguments, and none that does anything."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query gives: the names of its columns, which need not differ, and its rows."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]


def query(path: Path, sql: str, stop: threading.Event) -> Answer:
    """Answer a query over a database that nobody changes meanwhile.

    Raises UsageError for what SQLite does not take, for what is not reading, and for what
    takes more work or brings more than a query may; CatalogError when the database is damaged,
    StorageError when there is no room to sort in, Interrupted soon after ``stop`` is set.
    """
    # SQLite has steps that it does not let be interrupted. In a thread of its own it does not
    # keep the main one, which has the signals, from ending the process then.
    with ThreadPoolExecutor(1, thread_name_prefix="query") as pool:
        return pool.submit(_ask, path, sql, stop).result()


def _ask(path: Path, sql: str, stop: threading.Event) -> Answer:
    permission = _Permission()
    try:
        with closing(database.connect(path)) as connection:
            database.confine(connection, stop.is_set)
            connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, _PATTERN)
            permission.views = _views(connection)
            connection.isolation_level = None  # or Python itself would begin transactions
            connection.set_authorizer(permission.of)
            cursor = connection.execute(sql)
            columns = tuple(column[0] for column in cursor.description or ())
            if not columns:
                raise UsageError("the query asks for nothing", hint=_ONLY_READING)
            return Answer(columns, _bounded(cursor))
    except (sqlite3.Error, sqlite3.Warning, UnicodeError) as error:
        raise _explained(error, permission, stop) from error


class _Permission:
    """Says what a statement may do, and remembers whether anything was refused."""

    def __init__(self) -> None:
        self.views: frozenset[str] = frozenset()
        self.refused = False

    def of(
        self, action: int, _first: str | None, second: str | None, _: str | None, source: str | None
    ) -> int:
        """Allow reading and computing; nothing on behalf of a view, which is foreign SQL.

        Virtual tables are not to be had either: to connect one, SQLite asks for more than this.
        """
        allowed = action in _ACTIONS or (
            action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _FUNCTIONS
        )
        if allowed and (source or "").lower() not in self.views:
            return sqlite3.SQLITE_OK
        self.refused = True
        return sqlite3.SQLITE_DENY


def _views(connection: sqlite3.Connection) -> frozenset[str]:
    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'view'")
    return frozenset(name.decode("utf-8", "replace").lower() for (name,) in names)


def _bounded(rows: Iterable[tuple[object, ...]]) -> tuple[tuple[Value, ...], ...]:
    """Return all rows. Raises UsageError when they are more than an answer may have."""
    found: list[tuple[Value, ...]] = []
    size = 0
    for row in rows:
        values = tuple(map(_value, row))
        size += _ROW + sum(_VALUE + (len(v) if isinstance(v, str) else 0) for v in values)
        if len(found) >= _ROWS or size > _BYTES:
            raise UsageError(
                f"the query brings more than {_ROWS} rows, or more than {_BYTES} bytes",
                hint="Ask for fewer columns, or for a part with WHERE or LIMIT.",
            )
        found.append(values)
    return tuple(found)


def _value(value: object) -> Value:
    match value:
        case bytes():
            try:
                return value.decode("utf-8")
            except UnicodeDecodeError:
                return f"X'{value.hex().upper()}'"
        case float() if math.isinf(value):
            return "Inf" if value > 0 else "-Inf"  # as SQLite writes it; JSON has no word for it
        case int() | float():
            return value
    return None


_ONLY_READING = "A query is one SELECT, over tables and with functions that only compute."

_SEVERAL = (sqlite3.Warning, sqlite3.ProgrammingError)
"""What Python says of several statements in one query; the second from 3.12 on."""

_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_NO_ROOM = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN})


def _explained(error: Exception, permission: _Permission, stop: threading.Event) -> AirgapError:
    """Return the error for what SQLite says; the low byte of its codes is the kind."""
    kind = getattr(error, "sqlite_errorcode", 0) & 0xFF
    said = printable(str(error))
    if kind == sqlite3.SQLITE_INTERRUPT and stop.is_set():
        return Interrupted()
    if kind == sqlite3.SQLITE_INTERRUPT:
        return UsageError(
            "the query was ended: it takes more work than any should",
            hint="Look for a recursion without an end, or tables joined without a condition.",
        )
    if kind in _DAMAGED:
        return CatalogError(f"the catalog's database is damaged: {said}")
    if kind in _NO_ROOM:
        return StorageError(
            f"{tempfile.gettempdir()}: no room for what the query needs: {said}",
            hint="Set TMPDIR to a directory with more room.",
        )
    is_no_query = permission.refused or isinstance(error, _SEVERAL)
    tables = "`SELECT name FROM sqlite_master` lists what there is to ask."
    return UsageError(f"the query: {said}", hint=_ONLY_READING if is_no_query else tables)
