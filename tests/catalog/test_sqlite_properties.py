from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from airgap.catalog import sqlite
from airgap.catalog.properties import AllOf, Api, PackageVersions
from airgap.catalog.tree import LocalFile

if TYPE_CHECKING:
    from pathlib import Path

    from airgap.catalog.model import Bundle, Catalog

BUNDLES = "CREATE TABLE operatorbundle (name TEXT, csv TEXT, bundle TEXT, bundlepath TEXT)"
BY_ENTRY = "(group_name TEXT, version TEXT, kind TEXT, channel_entry_id INTEGER)"
BY_NAME = "(group_name TEXT, version TEXT, kind TEXT, operatorbundle_name TEXT)"
VALUES = "(type TEXT, value TEXT, operatorbundle_name TEXT)"
GVK = '{"group": "g", "version": "v1", "kind": "Blue"}'
BLUE, RED = Api("g", "v1", "Blue"), Api("g", "v1", "Red")


def read(folder: Path, *statements: str) -> Catalog:
    path = folder / "index.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in (BUNDLES, "INSERT INTO operatorbundle (name) VALUES ('a')", *statements):
            connection.execute(statement)
    return sqlite.read(LocalFile.at(path))


def bundle(folder: Path, *statements: str) -> Bundle:
    catalog = read(folder, *statements)
    assert catalog.problems == ()
    (found,) = catalog.bundles
    return found


def test_early_levels_know_bundles_by_channel_entry(tmp_path: Path) -> None:
    found = bundle(
        tmp_path,
        "CREATE TABLE channel (name TEXT, package_name TEXT, head_operatorbundle_name TEXT)",
        "INSERT INTO channel VALUES ('c', 'p', 'a')",
        "CREATE TABLE channel_entry (entry_id INTEGER, channel_name TEXT, package_name TEXT,"
        " operatorbundle_name TEXT)",
        "INSERT INTO channel_entry VALUES (7, 'c', 'p', 'a')",
        f"CREATE TABLE api_provider {BY_ENTRY}",
        f"CREATE TABLE api_requirer {BY_ENTRY}",
        "INSERT INTO api_provider VALUES ('g', 'v1', 'Blue', 7), ('g', 'v1', 'Lost', 8)",
        "INSERT INTO api_requirer VALUES ('g', 'v1', 'Red', 7), ('g', 'v1', 'Red', 7)",
    )
    assert (found.provides, found.requires) == ((BLUE,), (RED,))


def test_later_levels_know_them_by_name_and_say_more(tmp_path: Path) -> None:
    found = bundle(
        tmp_path,
        f"CREATE TABLE api_provider {BY_NAME}",
        f"CREATE TABLE dependencies {VALUES}",
        f"CREATE TABLE properties {VALUES}",
        "INSERT INTO api_provider VALUES ('g', 'v1', 'Blue', 'a')",
        f"INSERT INTO properties VALUES ('olm.gvk', '{GVK}', 'a'),"
        " ('olm.constraint', '{\"all\": {\"constraints\": []}}', 'a'),"
        " ('olm.package', 'unread', 'a')",
        'INSERT INTO dependencies VALUES (\'olm.package\', CAST(\'{"packageName": "p",'
        ' "version": "<2"}\' AS BLOB), \'a\')',
    )
    assert found.provides == (BLUE,)
    assert found.requires == (PackageVersions("p", "<2"), AllOf(()))


def test_knows_what_a_rebuild_substitutes(tmp_path: Path) -> None:
    found = bundle(
        tmp_path,
        "ALTER TABLE operatorbundle ADD COLUMN substitutesfor TEXT",
        "UPDATE operatorbundle SET substitutesfor = 'z'",
    )
    assert found.substitutes_for == "z"


@pytest.mark.parametrize("value", ["CAST(x'ff41' AS TEXT)", "5"])
def test_a_value_that_is_no_text_costs_itself_alone(tmp_path: Path, value: str) -> None:
    found = read(
        tmp_path,
        f"CREATE TABLE api_provider {BY_NAME}",
        f"CREATE TABLE dependencies {VALUES.replace('TEXT', '')}",
        f"CREATE TABLE properties {VALUES.replace('TEXT', '')}",
        "INSERT INTO api_provider VALUES ('g', CAST(x'ff' AS TEXT), 'Red', 'a')",
        f"INSERT INTO dependencies VALUES ('olm.gvk', {value}, 'a'), ('olm.gvk', '{GVK}', 'a')",
        f"INSERT INTO properties VALUES ({value}, '1', 'a'), ('olm.gvk', '{GVK}', 'a')",
    )
    assert [(b.provides, b.requires) for b in found.bundles] == [((BLUE,), (BLUE,))]
    assert [problem.split()[1] for problem in found.problems] == [
        "api_provider",
        "dependencies",
        "properties",
    ]
    assert all(problem.isprintable() for problem in found.problems)


@pytest.mark.parametrize("value", ["{", "[]", '{"group": 1}', "NaN", '"' + "x" * 200_000 + '"'])
@pytest.mark.parametrize("table", ["dependencies", "properties"])
def test_an_unreadable_value_costs_itself_alone(tmp_path: Path, value: str, table: str) -> None:
    catalog = read(
        tmp_path,
        f"CREATE TABLE {table} {VALUES}",
        f"INSERT INTO {table} VALUES ('olm.gvk', '{value}', 'a'), ('olm.gvk', '{GVK}', 'a')",
        "CREATE TABLE related_image (image TEXT, operatorbundle_name TEXT)",
        "INSERT INTO related_image VALUES ('q.io/x', 'a')",
    )
    (problem,) = catalog.problems
    assert f"{table}: olm.gvk of 'a'" in problem
    assert problem.isprintable()
    (found,) = catalog.bundles
    assert (BLUE,) in (found.provides, found.requires)
    assert catalog.images == ("q.io/x",)
