"""Many files of an image, listed and read in one pass."""

from __future__ import annotations

import io

import pytest

from airgap.errors import MalformedContent
from airgap.oci.rootfs import FileTree, Layer
from tests.support.layers import (
    directory,
    file,
    hard_link,
    layer,
    layer_of,
    symlink,
    tar,
    tree,
    whiteout,
)


def listed(image: FileTree, path: str) -> tuple[list[str], tuple[str, ...]] | None:
    found = image.listing(path)
    return None if found is None else ([entry.path for entry in found.files], found.links)


def test_lists_what_is_in_a_directory_with_links_to_files() -> None:
    image = tree(
        layer(
            file("a/x", b"1"),
            file("a/b/y", b"2"),
            file("c", b"3"),
            symlink("a/l", "/c"),
            symlink("a/out", "../../etc"),
            symlink("a/d", "b"),
            symlink("to-a", "a"),
            directory("empty"),
        ),
        layer(whiteout("a/.wh.x"), file("a/z", b"4")),
    )
    assert listed(image, "a") == (["a/b/y", "a/l", "a/z"], ("a/d", "a/out"))
    assert listed(image, "/to-a/") == (["to-a/b/y", "to-a/l", "to-a/z"], ("to-a/d", "to-a/out"))
    assert listed(image, "empty") == ([], ())
    assert listed(image, "") is not None
    for nowhere in ("c", "absent", "../a", "a/out"):
        assert listed(image, nowhere) is None


def test_reads_many_files_with_one_opening_of_each_layer() -> None:
    opened: list[str] = []

    def counted(name: str, *members: tuple[str, bytes]) -> Layer:
        raw = tar(*(file(path, content) for path, content in members))

        def opening() -> io.BytesIO:
            opened.append(name)
            return io.BytesIO(raw)

        return Layer(name, opening)

    image = FileTree.scan(
        [
            counted("one", ("a", b"1"), ("b", b"2"), ("c", b"3")),
            counted("two", ("b", b"22"), ("d", b"4" * 100_000)),
        ]
    )
    opened.clear()
    found = {path: b"".join(pieces) for path, pieces in image.read_all(["d", "b", "a", "nowhere"])}
    assert found == {"a": b"1", "b": b"22", "d": b"4" * 100_000}
    assert sorted(opened) == ["one", "two"]


def test_pieces_nobody_takes_are_passed_over() -> None:
    image = tree(layer(file("a", b"1" * 5000), file("b", b"2")))
    paths = [path for path, _ in image.read_all(["b", "a"])]
    assert paths == ["a", "b"]


def test_a_file_under_several_names_comes_once() -> None:
    image = tree(layer(file("a", b"1"), hard_link("b", "a"), symlink("c", "a")))
    found = [(path, b"".join(pieces)) for path, pieces in image.read_all(["c", "b", "a"])]
    assert found == [("c", b"1")]


def test_a_layer_that_changes_is_refused() -> None:
    whole = tar(file("a", b"1"), file("b", b"2"))
    for later in (whole[:512], tar(file("a", b"1")), tar(file("a", b"1"), file("b", b"22"))):
        versions = iter([whole, later])
        image = tree(Layer("sha256:abc", lambda v=versions: layer_of(next(v)).open()))  # type: ignore[misc]
        with pytest.raises(MalformedContent, match=r"^sha256:abc: "):
            for _, pieces in image.read_all(["a", "b"]):
                list(pieces)
