"""What the laboratory does to a copy of a catalog database: read names, pad, replace digests.

Works on operator-registry's tables as published databases have them: at any schema level, with
text as BLOBs and with NULLs. Knows nothing of images.
"""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from airgap.digest import digest_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    Cell = str | bytes

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_HOSTS = ("quay.io", "registry.redhat.io", "ghcr.io", "docker.io")
_IMAGES_A_BUNDLE = 10


def references(database: Path) -> list[str]:
    """The distinct references that the database names, sorted."""
    found: set[str] = set()
    with _open(database) as connection:
        for table, column in (("related_image", "image"), ("operatorbundle", "bundlepath")):
            if column in _columns(connection, table):
                found |= {_text(cell) for (cell,) in connection.execute(_select(table, column))}
    return sorted(found - {""})


def pad(database: Path, images: int) -> None:
    """Add packages of one bundle each, so that the database names that many images more."""
    with _open(database) as connection:
        for first in range(0, images, _IMAGES_A_BUNDLE):
            numbers = range(first, min(first + _IMAGES_A_BUNDLE, images))
            _add_package(connection, f"padding-{first:05}", [_invented(n) for n in numbers])


def replace_digests(database: Path, digests: Mapping[str, str]) -> None:
    """Replace digests wherever they stand, in every table."""
    with _open(database) as connection:
        tables = "SELECT name FROM sqlite_master WHERE type = 'table'"
        for (table,) in connection.execute(tables).fetchall():
            for column in _columns(connection, table):
                _replace_in(connection, table, column, digests)


def _replace_in(
    connection: sqlite3.Connection, table: str, column: str, digests: Mapping[str, str]
) -> None:
    cells = f'SELECT rowid, "{column}" FROM "{table}" WHERE instr("{column}", ?)'
    for rowid, cell in connection.execute(cells, ("sha",)).fetchall():
        replaced = _replaced(cell, digests)
        if replaced != cell:
            update = f'UPDATE "{table}" SET "{column}" = ? WHERE rowid = ?'
            connection.execute(update, (replaced, rowid))


def _replaced(cell: Cell, digests: Mapping[str, str]) -> Cell:
    # latin-1 keeps every byte of a BLOB as it is, whatever it holds
    text = cell.decode("latin-1") if isinstance(cell, bytes) else cell
    text = _DIGEST.sub(lambda match: digests.get(match[0], match[0]), text)
    return text.encode("latin-1") if isinstance(cell, bytes) else text


def _add_package(connection: sqlite3.Connection, package: str, images: list[str]) -> None:
    """Add a package with one channel and one bundle, whose own image is the first of them."""
    bundle = f"{package}.v1.0.0"
    csv = {
        "kind": "ClusterServiceVersion",
        "metadata": {"name": bundle},
        "spec": {
            "version": "1.0.0",
            "relatedImages": [{"name": f"image-{n}", "image": i} for n, i in enumerate(images)],
        },
    }
    row = {"name": bundle, "csv": json.dumps(csv), "bundlepath": images[0], "version": "1.0.0"}
    _insert(connection, "operatorbundle", row)
    _insert(connection, "package", {"name": package, "default_channel": "stable"})
    channel = {"name": "stable", "package_name": package, "head_operatorbundle_name": bundle}
    _insert(connection, "channel", channel)
    entry = {"channel_name": "stable", "package_name": package, "operatorbundle_name": bundle}
    _insert(connection, "channel_entry", entry | {"depth": 0})
    for image in images:
        _insert(connection, "related_image", {"image": image, "operatorbundle_name": bundle})


def _insert(connection: sqlite3.Connection, table: str, row: Mapping[str, object]) -> None:
    """Add a row, leaving out the columns that an older schema has not."""
    known = {name: row[name] for name in _columns(connection, table) if name in row}
    places = ", ".join("?" for _ in known)
    names = ", ".join(f'"{name}"' for name in known)
    connection.execute(f'INSERT INTO "{table}" ({names}) VALUES ({places})', [*known.values()])


def _invented(number: int) -> str:
    """A reference by a digest that no content has; the laboratory replaces it."""
    host = _HOSTS[number % len(_HOSTS)]
    return f"{host}/padding/image-{number:05}@{digest_of(str(number).encode())}"


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')]


def _select(table: str, column: str) -> str:
    return f'SELECT DISTINCT "{column}" FROM "{table}" WHERE "{column}" IS NOT NULL'


def _text(cell: Cell) -> str:
    return cell.decode("utf-8", "replace") if isinstance(cell, bytes) else cell


@contextmanager
def _open(database: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(database)) as connection, connection:
        yield connection
