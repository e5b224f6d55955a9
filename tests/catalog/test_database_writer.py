from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airgap.catalog import sqlite
from airgap.catalog.content import BundleContent
from airgap.catalog.database_writer import write
from airgap.catalog.model import Bundle, Catalog, Channel, ChannelEntry, Package, holders
from airgap.catalog.properties import AllOf, AnyOf, Api, NoneOf, PackageVersions, Undecided
from airgap.catalog.tree import LocalFile
from airgap.errors import StorageError
from tests.catalog.test_filebased import ETCD

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def again(catalog: Catalog, path: Path, contents: Iterable[BundleContent] = ()) -> Catalog:
    write(catalog, path, contents)
    return sqlite.read(LocalFile.at(path))


def of_entries(*entries: ChannelEntry, **others: tuple[ChannelEntry, ...]) -> Catalog:
    """A catalog with a channel of entries, in which everything has its bundle."""
    channels = {"c": entries, **others}
    packages = (
        Package(
            "p",
            "c",
            tuple(
                Channel(name, channels[name][0].bundle, channels[name]) for name in sorted(channels)
            ),
        ),
    )
    names = sorted(holders(packages))
    return Catalog(packages, tuple(Bundle("p", name) for name in names))


class TestTables:
    def test_are_those_of_level_13(self, tmp_path: Path) -> None:
        path = tmp_path / "index.db"
        write(ETCD, path)
        assert rows(path, "SELECT * FROM schema_migrations") == [(13, None)]
        columns = {
            table: [name for _, name, *_ in rows(path, f"PRAGMA table_info({table})")]
            for (table,) in rows(path, "SELECT name FROM sqlite_master WHERE type = 'table'")
        }
        key = ["operatorbundle_name", "operatorbundle_version", "operatorbundle_path"]
        api = ["group_name", "version", "kind"]
        assert columns == {
            "schema_migrations": ["version", "timestamp"],
            "operatorbundle": [
                *("name", "csv", "bundle", "bundlepath", "skiprange"),
                *("version", "replaces", "skips", "substitutesfor"),
            ],
            "package": ["name", "default_channel"],
            "channel": ["name", "package_name", "head_operatorbundle_name"],
            "channel_entry": [
                *("entry_id", "channel_name", "package_name"),
                *("operatorbundle_name", "replaces", "depth"),
            ],
            "api": [*api, "plural"],
            "api_provider": [*api, *key],
            "api_requirer": [*api, *key],
            "related_image": ["image", "operatorbundle_name"],
            "dependencies": ["type", "value", *key],
            "properties": ["type", "value", *key],
            "deprecated": ["operatorbundle_name"],
        }

    def test_answer_the_documented_query(self, tmp_path: Path) -> None:
        path = tmp_path / "index.db"
        write(ETCD, path)
        query = "SELECT * FROM related_image WHERE operatorbundle_name LIKE 'etcd.1%'"
        assert rows(path, query) == [
            ("quay.io/etcd/bundle:1", "etcd.1"),
            ("quay.io/etcd/etcd:v3", "etcd.1"),
        ]

    def test_hold_a_graph_as_operator_registry_writes_it(self, tmp_path: Path) -> None:
        catalog = of_entries(ChannelEntry("b.2", "b.1", ("x", "y")), ChannelEntry("b.1", "gone"))
        path = tmp_path / "index.db"
        write(catalog, path)
        query = (
            "SELECT entry.operatorbundle_name, lower.operatorbundle_name, entry.depth"
            " FROM channel_entry entry"
            " LEFT JOIN channel_entry lower ON entry.replaces = lower.entry_id"
            " ORDER BY entry.depth, entry.operatorbundle_name"
        )
        assert rows(path, query) == [
            ("b.2", "b.1", 0),
            ("b.2", "x", 1),
            ("x", None, 1),
            ("b.2", "y", 2),
            ("y", None, 2),
            ("b.1", "gone", 3),
            ("gone", None, 4),
        ]

    def test_break_no_rule_of_the_schema(self, tmp_path: Path) -> None:
        path = tmp_path / "index.db"
        write(ETCD, path, [BundleContent("etcd.1", "{}", "{}", (("olm.maxOpenShift", "1"),))])
        assert rows(path, "PRAGMA integrity_check") == [("ok",)]
        assert rows(path, "PRAGMA foreign_key_check") == []

    def test_apis_nobody_has_any_more_go_with_their_bundles(self, tmp_path: Path) -> None:
        path = tmp_path / "index.db"
        write(ETCD, path)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA foreign_keys = ON")
            for number, left in ((1, 2), (2, 2), (3, 0)):
                connection.execute(f"DELETE FROM operatorbundle WHERE name = 'etcd.{number}'")
                assert connection.execute("SELECT COUNT(*) FROM api").fetchone() == (left,)


class TestReadAgain:
    def test_is_the_same_catalog(self, tmp_path: Path) -> None:
        assert again(ETCD, tmp_path / "index.db") == ETCD

    @pytest.mark.parametrize(
        "requires",
        [
            (Api("g", "v", "k"), PackageVersions("p", ">1")),
            (PackageVersions("p", ">1"), Api("g", "v", "k")),
            (AllOf((Api("g", "v", "k"), AnyOf((PackageVersions("p", "1"), NoneOf(()))))),),
            (Undecided("cel"), Undecided("olm.label"), NoneOf((Undecided("cel"),))),
        ],
    )
    def test_requirements_are_the_same(self, tmp_path: Path, requires: tuple[Any, ...]) -> None:
        bundle = Bundle("", "b", requires=requires, substitutes_for="c")
        catalog = Catalog((), (bundle,))
        assert again(catalog, tmp_path / "index.db") == catalog

    @pytest.mark.parametrize(
        "catalog",
        [
            Catalog((), ()),
            Catalog((Package("empty", "none", ()),), ()),
            Catalog((), (Bundle("", "b", image="i"),), other_images=("x", "y")),
            of_entries(ChannelEntry("b.1"), ChannelEntry("b.2"), ChannelEntry("b.0")),
            of_entries(ChannelEntry("b.2", "b.1", ("b.1",)), ChannelEntry("b.1", "b.0", ("x",))),
            of_entries(ChannelEntry("b.1", "b.2"), ChannelEntry("b.2", "b.1")),
            of_entries(ChannelEntry("b.2", "", ("b.1",)), ChannelEntry("b.1", "b.0")),
            of_entries(ChannelEntry("b.2", "b.1"), d=(ChannelEntry("b.1", "b.0"),)),
            of_entries(ChannelEntry("b.2", "x"), d=(ChannelEntry("b.2", "", ("x",)),)),
        ],
    )
    def test_odd_catalogs_are_the_same(self, tmp_path: Path, catalog: Catalog) -> None:
        assert replace(again(catalog, tmp_path / "index.db"), problems=()) == catalog

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    @given(
        st.dictionaries(
            st.sampled_from("abcdef"),
            st.tuples(
                st.sampled_from(["", *"abcdexyz"]),
                st.lists(st.sampled_from("abcdexyz"), max_size=3, unique=True),
            ),
            min_size=1,
        )
    )
    def test_any_graph_is_the_same(
        self, tmp_path: Path, graph: dict[str, tuple[str, list[str]]]
    ) -> None:
        entries = [
            ChannelEntry(name, lower, tuple(skip for skip in skips if skip != lower))
            for name, (lower, skips) in graph.items()
        ]
        catalog = of_entries(*entries)
        assert replace(again(catalog, tmp_path / "index.db"), problems=()) == catalog

    def test_bundles_of_one_name_want_the_images_of_all(self, tmp_path: Path) -> None:
        packages = tuple(
            Package(name, "c", (Channel("c", "b", (ChannelEntry("b"),)),)) for name in ("p", "q")
        )
        bundles = (Bundle("p", "b", "1", "i", ("x",)), Bundle("q", "b", "1", "j", ("y",)))
        catalog = again(Catalog(packages, bundles), tmp_path / "index.db")
        assert [bundle.package for bundle in catalog.bundles] == ["p", "q"]
        assert catalog.images == ("i", "j", "x", "y")


class TestContents:
    CONTENTS = (
        BundleContent("etcd.1", '{"a":1}', '{"a":1}{}', (("x", "1"), ("y", "2"))),
        BundleContent("etcd.2", '{"b":1}', plurals={Api("g", "v1", "Etcd"): "etcds"}),
        BundleContent("etcd.1", deprecated=True),
        BundleContent("nobody", "{}", deprecated=True),
    )

    def test_are_written_beside_the_model(self, tmp_path: Path) -> None:
        path = tmp_path / "index.db"
        assert again(ETCD, path, self.CONTENTS) == ETCD
        assert rows(path, "SELECT name, csv, bundle FROM operatorbundle") == [
            ("etcd.1", '{"a":1}', '{"a":1}{}'),
            ("etcd.2", '{"b":1}', None),
            ("etcd.3", None, None),
        ]
        assert rows(path, "SELECT * FROM deprecated") == [("etcd.1",)]
        assert rows(path, "SELECT * FROM api") == [
            ("g", "v1", "Etcd", "etcds"),
            ("h", "v1", "N", ""),
        ]
        query = "SELECT type FROM properties WHERE operatorbundle_name = 'etcd.{}'"
        assert rows(path, query.format(1)) == [("x",), ("y",)]
        assert rows(path, query.format(2)) == [("olm.package",), ("olm.gvk",)]

    def test_give_the_same_bytes_in_any_order(self, tmp_path: Path) -> None:
        one, two = tmp_path / "one.db", tmp_path / "two.db"
        write(ETCD, one, self.CONTENTS)
        write(ETCD, two, self.CONTENTS[::-1])
        assert one.read_bytes() == two.read_bytes()


class TestFile:
    def test_is_replaced_whole_and_nothing_is_left_beside_it(self, tmp_path: Path) -> None:
        path = tmp_path / "index.db"
        path.write_text("old")
        (tmp_path / "index.db.new").write_text("left by a killed run")
        write(ETCD, path)
        assert list(tmp_path.iterdir()) == [path]
        assert path.read_bytes()[:15] == b"SQLite format 3"

    def test_stays_as_it_was_when_something_fails(self, tmp_path: Path) -> None:
        path = tmp_path / "index.db"
        path.write_text("old")

        def failing() -> Iterable[BundleContent]:
            yield BundleContent("etcd.1", "{}")
            raise ValueError("the layer is damaged")

        with pytest.raises(ValueError, match="damaged"):
            write(ETCD, path, failing())
        assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]

    def test_a_place_that_cannot_be_written_is_a_matter_of_storage(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match=r"index\.db: "):
            write(ETCD, tmp_path / "absent" / "index.db")

    def test_does_not_say_which_library_wrote_it(self, tmp_path: Path) -> None:
        path = tmp_path / "index.db"
        write(replace(ETCD, problems=("odd",)), path)
        assert path.read_bytes()[96:100] == bytes(4)
