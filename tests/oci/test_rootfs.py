from __future__ import annotations

import gzip
import io
from pathlib import PurePosixPath

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from airgap import limits
from airgap.errors import MalformedContent
from airgap.oci import rootfs
from airgap.oci.rootfs import FileTree, Layer
from tests.support.layers import (
    Member,
    contents,
    device,
    directory,
    file,
    hard_link,
    layer,
    layer_of,
    symlink,
    tar,
    tree,
    whiteout,
    written,
)


def paths(of: FileTree) -> list[str]:
    return [entry.path for entry in of.files()]


def found(of: FileTree, path: str) -> bytes | None:
    entry = of.find(path)
    return None if entry is None else written(entry.copy_to)


@pytest.mark.parametrize(
    "compress",
    [bytes, gzip.compress, zstandard.ZstdCompressor().compress],
    ids=["plain", "gzip", "zstd"],
)
def test_reads_a_layer_however_it_is_compressed(compress: type[bytes]) -> None:
    assert contents(tree(layer_of(compress(tar(file("a", b"x")))))) == {"a": b"x"}


def test_keeps_the_size_and_first_bytes_of_a_file() -> None:
    entry = tree(layer(file("a", b"SQLite format 3\0 and more"), file("b", b"short"))).find("a")
    assert entry is not None
    assert (entry.path, entry.size, entry.magic) == ("a", 25, b"SQLite format 3\0")


def test_walks_depth_first_with_names_sorted_bytewise() -> None:
    names = ["a/z", "a.db", "a-b/c", "B", "é", "z", "\U0001f600", "a/b/c"]
    assert paths(tree(layer(*map(file, names)))) == [
        "B",
        "a/b/c",
        "a/z",
        "a-b/c",
        "a.db",
        "z",
        "é",
        "\U0001f600",
    ]


def test_an_upper_layer_adds_and_replaces() -> None:
    lower = layer(file("a", b"1"), file("b", b"1"))
    upper = layer(file("b", b"2"), file("c", b"2"))
    assert contents(tree(lower, upper)) == {"a": b"1", "b": b"2", "c": b"2"}


def test_the_last_entry_of_a_name_wins_in_a_layer() -> None:
    assert contents(tree(layer(file("a", b"1"), file("./a", b"2")))) == {"a": b"2"}


def test_a_file_replaces_a_directory_and_the_other_way_round() -> None:
    assert contents(tree(layer(file("a/b")), layer(file("a", b"x")))) == {"a": b"x"}
    assert contents(tree(layer(file("a", b"x")), layer(file("a/b")))) == {"a/b": b""}
    assert contents(tree(layer(file("a", b"x")), layer(directory("a")))) == {}


def test_a_directory_again_keeps_what_is_in_it() -> None:
    assert paths(tree(layer(file("a/b")), layer(directory("a/"), file("a/c")))) == ["a/b", "a/c"]


def test_what_is_no_file_hides_the_file_below() -> None:
    assert paths(tree(layer(file("a"), file("b")), layer(device("a")))) == ["b"]


def test_there_may_be_no_layer_and_no_file() -> None:
    assert paths(tree()) == []
    assert paths(tree(layer(), layer(directory("./")))) == []
    assert tree().find("") is None


@pytest.mark.parametrize("name", ["a/b", "/a/b", "./a/b", "a//b", "a/./b", "a/x/../b", "//a/b/"])
def test_normalises_names(name: str) -> None:
    files = tree(layer(file(name, b"x")))
    assert contents(files) == {"a/b": b"x"}
    assert found(files, name) == b"x"


@pytest.mark.parametrize("name", ["../a", "/../a", "a/../../b", "..", ".", "/", "./", "a/.."])
def test_nothing_outside_the_tree_has_a_name(name: str) -> None:
    files = tree(layer(file("b", b"inside")), layer(file(name, b"x")))
    assert contents(files) == {"b": b"inside"}
    assert files.find(name) is None


@pytest.mark.parametrize("name", ["a\\..\\b", "C:x", "caf\udce9", "\x1b]52;c;x\x07", "\u202eabc"])
def test_odd_names_are_names_and_nothing_else(name: str) -> None:
    assert contents(tree(layer(file(name, b"x")))) == {name: b"x"}


class TestWhiteouts:
    def test_hides_a_file_of_a_lower_layer(self) -> None:
        lower = layer(file("d/a"), file("d/b"))
        assert paths(tree(lower, layer(whiteout("d/.wh.a")))) == ["d/b"]

    def test_hides_a_directory_with_all_that_is_in_it(self) -> None:
        lower = layer(file("configs/a/b"), file("configs/c"), file("x"))
        assert paths(tree(lower, layer(whiteout(".wh.configs")))) == ["x"]

    def test_hides_two_layers_below_and_lets_things_come_back(self) -> None:
        layers = [layer(file("a", b"1")), layer(), layer(whiteout(".wh.a")), layer(file("a", b"4"))]
        assert paths(tree(*layers[:3])) == []
        assert contents(tree(*layers)) == {"a": b"4"}

    @pytest.mark.parametrize("order", [1, -1])
    def test_hides_nothing_of_its_own_layer(self, order: int) -> None:
        members = [whiteout(".wh.a"), file("a", b"new"), whiteout("d/.wh..wh..opq"), file("d/new")]
        lower = layer(file("a", b"old"), file("d/old"))
        assert contents(tree(lower, layer(*members[::order]))) == {"a": b"new", "d/new": b""}

    def test_hides_a_directory_and_fills_it_anew_in_one_layer(self) -> None:
        lower = layer(symlink("d", "elsewhere"), file("elsewhere/x"))
        upper = layer(file("d/new"), whiteout(".wh.d"))
        assert paths(tree(lower, upper)) == ["d/new", "elsewhere/x"]

    def test_opaque_hides_everything_in_a_directory(self) -> None:
        lower = layer(file("d/a"), file("d/e/f"), file("x"))
        assert paths(tree(lower, layer(whiteout("d/.wh..wh..opq"), file("d/b")))) == ["d/b", "x"]

    def test_opaque_at_the_top_hides_all(self) -> None:
        assert paths(tree(layer(file("a"), file("b/c")), layer(whiteout(".wh..wh..opq")))) == []

    def test_reaches_through_a_link_to_a_directory(self) -> None:
        lower = layer(file("usr/lib/a"), symlink("lib", "usr/lib"))
        assert paths(tree(lower, layer(whiteout("lib/.wh.a")))) == []

    @pytest.mark.parametrize("marker", [".wh.absent", "no/.wh.a", "f/.wh.a", "f/.wh..wh..opq"])
    def test_of_what_is_not_there_hides_nothing(self, marker: str) -> None:
        assert paths(tree(layer(file("f")), layer(whiteout(marker)))) == ["f"]

    @pytest.mark.parametrize(
        "name", [".wh..wh.plnk", ".wh..wh.plnk/1.2", ".wh..wh.aufs", ".wh.x/y"]
    )
    def test_markers_of_other_kinds_are_no_files(self, name: str) -> None:
        assert paths(tree(layer(file("plnk")), layer(file(name, b"x")))) == ["plnk"]

    @pytest.mark.parametrize("marker", [".wh.", "d/.wh.", ".wh..", ".wh..."])
    def test_refuses_one_that_names_nothing(self, marker: str) -> None:
        with pytest.raises(MalformedContent, match=r"top: .*hides nothing"):
            tree(layer(file("d/a")), layer(whiteout(marker), name="top"))


class TestLinks:
    @pytest.mark.parametrize(
        ("name", "target"),
        [
            ("l", "d/f"),
            ("l", "/d/f"),
            ("l", "./d//f"),
            ("d/l", "f"),
            ("d/l", "../d/f"),
            ("d/e/l", "../../d/f"),
            ("d/l", "/d/e/../f"),
        ],
    )
    def test_a_symlink_leads_to_its_target(self, name: str, target: str) -> None:
        files = tree(layer(file("d/f", b"x"), file("d/e/g"), symlink(name, target)))
        assert found(files, name) == b"x"
        assert name not in paths(files)

    def test_a_symlink_may_come_before_its_target_or_in_another_layer(self) -> None:
        assert found(tree(layer(symlink("l", "f"), file("f", b"x"))), "l") == b"x"
        assert found(tree(layer(symlink("l", "f")), layer(file("f", b"x"))), "l") == b"x"

    def test_a_path_may_lead_through_links_to_directories(self) -> None:
        files = tree(
            layer(
                symlink("a", "b"), symlink("b", "/c/d"), file("c/d/f", b"x"), symlink("c/up", "..")
            )
        )
        assert found(files, "a/f") == b"x"
        assert found(files, "c/up/c/d/f") == b"x"

    def test_an_entry_behind_a_link_lands_where_the_link_leads(self) -> None:
        files = tree(layer(symlink("configs", "/real")), layer(file("configs/f", b"x")))
        assert contents(files) == {"real/f": b"x"}
        assert found(files, "configs/f") == b"x"

    @pytest.mark.parametrize(
        "target",
        ["../f", "../../../../etc/shadow", "d/../../f", "absent", "f/g", "d", "l", "/l", "", "."],
    )
    def test_one_that_leads_nowhere_is_absent(self, target: str) -> None:
        files = tree(layer(file("f", b"x"), file("d/g"), symlink("l", target)))
        assert files.find("l") is None
        assert paths(files) == ["d/g", "f"]

    def test_a_circle_is_absent_and_so_is_what_lies_behind(self) -> None:
        files = tree(layer(symlink("a", "b"), symlink("b", "a"), file("a/f")))
        assert files.find("a") is None
        assert paths(files) == []

    @pytest.mark.parametrize(("links", "there"), [(40, True), (41, False)])
    def test_follows_forty_links(self, links: int, there: bool) -> None:
        chain = [symlink(f"l{n}", f"l{n + 1}") for n in range(links)]
        files = tree(layer(*chain, file(f"l{links}", b"x")))
        assert (files.find("l0") is not None) is there

    def test_an_entry_behind_a_link_out_of_the_tree_is_absent(self) -> None:
        assert paths(tree(layer(symlink("configs", "../etc"), file("configs/f")))) == []

    def test_a_hard_link_is_the_same_file(self) -> None:
        files = tree(layer(file("a", b"x"), hard_link("d/b", "./a")))
        assert contents(files) == {"a": b"x", "d/b": b"x"}

    def test_a_hard_link_keeps_a_file_that_is_hidden_later(self) -> None:
        lower = layer(file("a", b"x"), hard_link("b", "a"))
        assert contents(tree(lower, layer(whiteout(".wh.a")))) == {"b": b"x"}

    def test_a_hard_link_reaches_a_lower_layer(self) -> None:
        assert contents(tree(layer(file("a", b"x")), layer(hard_link("b", "a"))))["b"] == b"x"

    @pytest.mark.parametrize("target", ["../../etc/shadow", "absent", "later", "d", "", "/"])
    def test_a_hard_link_to_no_file_is_absent(self, target: str) -> None:
        files = tree(layer(file("d/f"), hard_link("b", target), file("later")))
        assert paths(files) == ["d/f", "later"]

    def test_a_hard_link_to_a_symlink_is_that_symlink(self) -> None:
        files = tree(
            layer(file("f", b"top"), file("d/f", b"d"), symlink("l", "f"), hard_link("d/l", "l"))
        )
        assert found(files, "l") == b"top"
        assert found(files, "d/l") == b"d"
        assert paths(files) == ["d/f", "f"]


class TestLimits:
    def test_refuses_too_many_entries_in_a_layer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "ENTRIES_PER_LAYER", 3)
        assert paths(tree(layer(file("a"), file("b"), file("c")))) == ["a", "b", "c"]
        with pytest.raises(MalformedContent, match="top: too many files"):
            tree(layer(*[file("a")] * 4, name="top"))

    def test_refuses_more_names_than_memory_is_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rootfs, "_NAMES", 100)
        with pytest.raises(MalformedContent, match="too long names"):
            tree(layer(file("a" * 60)), layer(symlink("b", "c" * 60)))

    def test_refuses_a_tree_grown_by_deep_paths(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rootfs, "_NODES", 100)
        with pytest.raises(MalformedContent, match="more than 100 files and directories"):
            tree(layer(file("a/" * 90)), layer(file("b/" * 90)))

    def test_walks_a_path_as_deep_as_names_allow(self) -> None:
        deep = "/".join("a" * 2048)
        assert contents(tree(layer(file(deep, b"x")))) == {deep: b"x"}


def test_a_damaged_layer_is_named() -> None:
    cut = layer_of(tar(file("a"))[:-1024], "sha256:abc")
    with pytest.raises(MalformedContent, match=r"^sha256:abc: "):
        tree(layer(file("a")), cut)


def test_a_layer_that_changes_between_two_readings_is_refused() -> None:
    versions = iter([tar(file("a", b"x")), tar(file("a", b"yy"))])
    entry = tree(Layer("layer", lambda: io.BytesIO(next(versions)))).find("a")
    assert entry is not None
    with pytest.raises(MalformedContent, match="no longer reads as it did"):
        entry.copy_to(io.BytesIO())


def test_every_layer_opened_is_closed() -> None:
    opened: list[io.BytesIO] = []

    def reopened() -> io.BytesIO:
        opened.append(io.BytesIO(tar(file("a", b"x"), file("b"))))
        return opened[-1]

    assert contents(tree(Layer("layer", reopened))) == {"a": b"x", "b": b""}
    assert len(opened) == 3
    assert all(stream.closed for stream in opened)


_PATHS = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join)
_FILES = st.builds(file, _PATHS, st.binary(max_size=3))
_LAYERS = st.lists(st.lists(_FILES, max_size=5), max_size=4)


def model(stack: list[list[Member]]) -> dict[str, bytes]:
    """Put files one after the other into a flat dictionary; each hides what is in its way."""
    files: dict[str, bytes] = {}
    for info, content in (member for members in stack for member in members):
        path = PurePosixPath(info.name)
        above = {str(parent) for parent in path.parents}
        below = f"{path}/"
        files = {k: v for k, v in files.items() if k not in above and not k.startswith(below)}
        files[str(path)] = content
    return files


@given(_LAYERS)
def test_a_stack_of_files_is_what_putting_them_one_by_one_gives(stack: list[list[Member]]) -> None:
    assert contents(tree(*(layer(*members) for members in stack))) == model(stack)


@given(_LAYERS, _PATHS)
def test_a_whiteout_hides_exactly_a_path_and_all_below_it(
    stack: list[list[Member]], hidden: str
) -> None:
    marker = PurePosixPath(hidden)
    upper = layer(whiteout(str(marker.with_name(f".wh.{marker.name}"))))
    left = {
        path: content
        for path, content in model(stack).items()
        if path != hidden and not path.startswith(f"{hidden}/")
    }
    assert contents(tree(*(layer(*members) for members in stack), upper)) == left


@given(st.lists(st.one_of(_FILES, st.builds(symlink, _PATHS, st.text("abc./", max_size=9)))))
def test_links_of_any_shape_do_no_harm(members: list[Member]) -> None:
    files = tree(layer(*members))
    for info, _ in members:
        entry = files.find(info.name)
        assert entry is None or len(written(entry.copy_to)) == entry.size
