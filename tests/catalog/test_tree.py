from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airgap.catalog.tree import Closed, LocalTree
from airgap.errors import UsageError
from tests.support.layers import written as content_of
from tests.support.trees import written

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A directory with files, links to files and links to anything else."""
    written(tmp_path / "elsewhere", {"z": "outside"})
    top = written(tmp_path / "top", {"a/x": "1", "a/.y": "2", "b": "3", "a-": "4"})
    (top / "a" / "file").symlink_to("../../elsewhere/z")
    (top / "a" / "directory").symlink_to("../../elsewhere")
    (top / "a" / "nothing").symlink_to("nowhere")
    return top


def test_lists_files_and_links_to_files(top: Path) -> None:
    listing = LocalTree(top).listing("")
    assert listing is not None
    assert [file.path for file in listing.files] == ["a/.y", "a/file", "a/x", "a-", "b"]
    assert listing.links == ("a/directory", "a/nothing")
    assert [file.path for file in LocalTree(top).files()] == [file.path for file in listing.files]


def test_lists_a_directory_in_it(top: Path) -> None:
    listing = LocalTree(top).listing("a")
    assert listing is not None
    assert [file.path for file in listing.files] == ["a/.y", "a/file", "a/x"]
    assert LocalTree(top).listing("b") is None
    assert LocalTree(top).listing("absent") is None


def test_finds_files(top: Path) -> None:
    tree = LocalTree(top)
    found = tree.find("a/x")
    assert found is not None
    assert (found.path, found.size, found.magic) == ("a/x", 1, b"1")
    assert content_of(found.copy_to) == b"1"
    assert tree.find("a") is None
    assert tree.find("absent") is None


def test_reads_files_once_each(top: Path) -> None:
    (top / "same").hardlink_to(top / "b")
    found = {
        path: b"".join(pieces) for path, pieces in LocalTree(top).read_all(["b", "same", "a/file"])
    }
    assert found == {"b": b"3", "a/file": b"outside"}


def test_says_what_cannot_be_read(top: Path) -> None:
    ((path, pieces),) = LocalTree(top).read_all(["absent"])
    assert path == "absent"
    with pytest.raises(UsageError, match="absent: No such file"):
        list(pieces)


class TestWithoutPermission:
    def test_a_file_or_directory_is_listed_without_content(self, guarded: Path) -> None:
        written(guarded, {"a/x": "1", "b/x": "2", "c": "3", "d": "4"})
        (guarded / "a").chmod(0o444)
        (guarded / "b").chmod(0o111)
        (guarded / "c").chmod(0)
        tree = LocalTree(guarded)
        listing = tree.listing("")
        assert listing is not None
        assert [(file.path, file.size) for file in listing.files] == [
            ("a/x", 0),
            ("b", 0),
            ("c", 0),
            ("d", 1),
        ]
        assert [file.path for file in tree.files()] == ["d"]
        assert {path: error.why for path, error in listing.closed.items()} == dict.fromkeys(
            ("a/x", "b", "c"), "Permission denied"
        )
        for path, pieces in tree.read_all(["a/x", "b", "c"]):
            with pytest.raises(Closed, match=f"{path}: Permission denied"):
                list(pieces)

    @pytest.mark.parametrize("mode", [0o000, 0o444])
    def test_what_is_named_is_refused(self, guarded: Path, mode: int) -> None:
        top = written(guarded / "top", {"a/x": "1"})
        (top / "a").chmod(mode)
        with pytest.raises(UsageError, match="a/x: Permission denied"):
            LocalTree(top).find("a/x")
        with pytest.raises(UsageError, match="a/x: Permission denied"):
            LocalTree(top).listing("a/x")

    def test_the_top_itself_is_refused(self, guarded: Path) -> None:
        top = written(guarded / "top", {"a": "1"})
        top.chmod(0o111)
        with pytest.raises(UsageError, match="top: Permission denied"):
            LocalTree(top).listing("")
