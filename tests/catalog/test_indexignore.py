from __future__ import annotations

import time

import pytest

from airgap.catalog.indexignore import IndexIgnore, lines


def ignoring(*files: tuple[str, str]) -> IndexIgnore:
    """What files say, of which each has its directory and its text."""
    ignore = IndexIgnore()
    for directory, text in files:
        ignore.add(directory, lines(text))
    return ignore


@pytest.mark.parametrize(
    ("pattern", "ignored", "kept"),
    [
        ("README.md", ["README.md", "a/README.md", "README.md/x"], ["README.mdx", "a/b"]),
        ("*.md", ["a.md", "b/.md"], ["a.mdx"]),
        ("/a.yaml", ["a.yaml"], ["b/a.yaml"]),
        ("b/a.yaml", ["b/a.yaml"], ["c/b/a.yaml", "a.yaml"]),
        ("docs/", ["docs/x", "a/docs/b/c"], ["docs"]),
        ("/docs/", ["docs/x"], ["a/docs/x", "docs"]),
        ("docs", ["docs", "docs/x", "a/docs"], ["docs2"]),
        ("**/a", ["a", "x/a", "x/y/a/z"], ["b"]),
        ("a/**", ["a/b", "a/b/c"], ["a", "b/a/c"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b/z"], ["a/x", "b"]),
        ("**", ["a", "a/b"], []),
        ("?.yaml", ["a.yaml"], ["ab.yaml", ".yaml"]),
        ("[a-c].yaml", ["b.yaml"], ["d.yaml"]),
        ("[^a-c].yaml", ["d.yaml"], ["b.yaml"]),
        ("[!a-c].yaml", ["d.yaml"], ["b.yaml"]),
        (r"\*.yaml", ["*.yaml"], ["a.yaml"]),
        (r"\!a", ["!a"], ["a"]),
        (r"\#a", ["#a"], ["a"]),
        ("  a  ", ["a"], ["a  "]),
        ("# a", [], ["# a", "a"]),
        ("", [], ["a"]),
        ("/", [], ["a"]),
        ("[", ["["], ["a"]),
    ],
)
def test_patterns_are_gitignores(pattern: str, ignored: list[str], kept: list[str]) -> None:
    ignore = ignoring(("", f"{pattern}\n"))
    assert [path for path in ignored if path not in ignore] == []
    assert [path for path in kept if path in ignore] == []


def test_the_last_pattern_that_matches_decides() -> None:
    ignore = ignoring(("", "*\n!keep.yaml\n!d/\nd/x\n"))
    assert "a.yaml" in ignore
    assert "keep.yaml" not in ignore
    assert "d/y" not in ignore
    assert "d/x" in ignore


def test_a_file_in_a_directory_speaks_for_that_directory_and_after_those_above() -> None:
    ignore = ignoring(("other/", "!a.md\n/top\n"), ("", "*.md\n"))
    assert "a.md" in ignore
    assert "other/a.md" not in ignore
    assert "other/b.md" in ignore
    assert "other/top" in ignore
    assert "top" not in ignore
    assert "other" not in ignore


def test_hostile_patterns_take_no_time() -> None:
    started = time.process_time()
    ignore = ignoring(("", f"{'*a' * 50}b\n{'**/a/' * 50}b\n"))
    assert "a" * 4000 not in ignore
    assert "a/" * 200 + "c" not in ignore
    assert time.process_time() - started < 2


def test_patterns_cost_the_files_of_their_own_directory_alone() -> None:
    text = "".join(f"*{number}x\n" for number in range(200))
    ignore = ignoring(*((f"d{number}/", text) for number in range(100)))
    started = time.process_time()
    assert not any(f"d{number % 100}/sub/y{number}" in ignore for number in range(2000))
    assert "d7/1x" in ignore
    assert time.process_time() - started < 2
