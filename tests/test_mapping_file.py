from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airgap.errors import UsageError
from airgap.mapping_file import Copy, MappingFile, expanded, parse, taken
from airgap.reference import ImageReference
from tests.support.vectors import identity, vectors

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64

DIFFERENT = {
    "mapping-file-15": "any white space separates, so a tab is no fault",
}


def read(*lines: str) -> MappingFile:
    return parse([("mapping.txt", "\n".join(lines))])


def pairs(copies: tuple[Copy, ...]) -> list[tuple[str, str]]:
    return [(str(copy.source), str(copy.destination)) for copy in copies]


@pytest.mark.parametrize("vector", vectors("mapping-file"), ids=identity)
def test_reads_lines_as_oc_does(vector: dict[str, Any]) -> None:
    line, expected = vector["input"].replace("<TAB>", "\t"), vector["expected"]
    if vector["id"] in DIFFERENT:
        assert len(read(line).copies) == 1
    elif "v*" in line:
        _expands_as_oc_does(line, expected)
    elif isinstance(expected, dict):
        with pytest.raises(UsageError) as caught:
            read(line)
        assert expected["error"] in caught.value.message
        assert caught.value.message.startswith("file mapping.txt, line 1: ")
    else:
        assert [list(pair) for pair in pairs(read(line).copies)] == expected


def _expands_as_oc_does(line: str, expected: Any) -> None:
    listed = read(line)
    if isinstance(expected, dict):
        with pytest.raises(UsageError) as caught:
            expanded(listed, lambda _: ["v1", "v2"])
        assert expected["error"] in caught.value.message
        assert len(expanded(listed, lambda _: ["v1", "other"])) == 1
    else:
        assert [copy.destination.tag for copy in expanded(listed, lambda _: ["v2", "x", "v1"])] == [
            "v1",
            "v2",
        ]


def test_skips_comments_and_blank_lines() -> None:
    listed = read("# list", "", "  ", "a.io/x/y:1=b.io/x/y:1#note", "\t# more", "a.io/z:1 b.io/z\r")
    assert pairs(listed.copies) == [
        ("a.io/x/y:1", "b.io/x/y:1"),
        ("a.io/z:1", "b.io/z:1"),
    ]
    assert [copy.where for copy in listed.copies] == [
        "file mapping.txt, line 4",
        "file mapping.txt, line 6",
    ]


def test_several_files_are_one_list() -> None:
    listed = parse([("one", "a.io/x:1=b.io/x:1"), ("-", "a.io/x:1=b.io/x:1\na.io/x:1=c.io/x:1")])
    assert pairs(listed.copies) == [("a.io/x:1", "b.io/x:1"), ("a.io/x:1", "c.io/x:1")]
    with pytest.raises(UsageError, match=r"^file -, line 1: each destination tag"):
        parse([("one", "a.io/x:1=b.io/x:1"), ("-", "a.io/y:1=b.io/x:1")])


def test_a_destination_without_a_tag_takes_the_sources() -> None:
    listed = read(f"a.io/x:7@{A}=b.io/x", f"a.io/x@{A}=c.io/x")
    assert [copy.destination.tag for copy in listed.copies] == ["7", ""]


def test_any_number_of_images_may_go_to_a_repository_without_a_tag() -> None:
    listed = read(f"a.io/x@{A}=b.io/x", f"a.io/x@{B}=b.io/x", f"a.io/x@{A}=b.io/x")
    assert len(listed.copies) == 2


def test_what_is_ignored_is_told() -> None:
    listed = read("a.io/x:1=b.io/x:1 c.io/x:1\x1b")
    assert len(listed.copies) == 1
    assert listed.remarks == (
        "file mapping.txt, line 1: 'c.io/x:1\\x1b' is ignored beside SRC=DST",
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.io/x:1=", "all arguments must be valid"),
        (f"a.io/x:1=b.io/x@{A}", "you must specify a tag for DST or leave it blank"),
        ("a.io/X:1=b.io/x", "not an image reference"),
        ("a.io/x:1=b.io/x:1=2", "not an image reference"),
        ("file://x:1=b.io/x", "a reference has no file:// in front"),
        ("a.io/x:1=s3://b/x", "a reference has no s3:// in front"),
        ("a.io/x:1=b.io/x:*", "the part after : is no tag"),
        ("a.io/x*y:1=b.io/x", "not an image reference"),
        ("a.io/x:[v*]=b.io/x", "the part after : matches no tag"),
        ("a.io/x@sha256:*=b.io/x", "not an image reference"),
        ("a.io/x:1=a.io/x", "SRC and DST may not be the same"),
        ("a.io/x:1 b.io/x:1 b.io/x:1 a.io/x:1", "SRC and DST may not be the same"),
        ("a.io/x:1=b.io/x:1 a.io/y:1=b.io/x:1", "each destination tag may only be specified once"),
        ("#" * 70_000, "more than 65536 characters"),
        ("\x1b[31m", "alone"),
    ],
)
def test_refuses_a_line_with_file_and_number(line: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read("# first", line)
    assert caught.value.message.startswith("file mapping.txt, line 2: ")
    assert message in caught.value.message
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing"])
def test_refuses_a_list_of_nothing(text: str) -> None:
    with pytest.raises(UsageError, match="at least one source image"):
        parse([("mapping.txt", text)])


class TestWildcards:
    def test_a_source_without_a_tag_is_all_of_them(self) -> None:
        copies = expanded(read("a.io/x b.io/x"), lambda _: ["2", "1"])
        assert pairs(copies) == [("a.io/x:1", "b.io/x:1"), ("a.io/x:2", "b.io/x:2")]

    def test_match_from_end_to_end(self) -> None:
        copies = expanded(read("a.io/x:v*.0=b.io/x"), lambda _: ["v1.0", "xv1.0", "v1.00", "v2x0"])
        assert [copy.source.tag for copy in copies] == ["v1.0"]

    def test_ask_for_the_tags_of_their_repository(self) -> None:
        asked: list[str] = []

        def tags(repository: ImageReference) -> list[str]:
            asked.append(str(repository))
            return []

        assert expanded(read("a.io/x:v*=b.io/x", "a.io/y:1=b.io/y"), tags)
        assert asked == ["a.io/x"]

    def test_do_not_take_a_tag_that_is_taken(self) -> None:
        with pytest.raises(UsageError, match=r"line 2: each destination tag"):
            expanded(read("a.io/y:1=b.io/x:1", "a.io/x:*=b.io/x"), lambda _: ["1"])


class TestEditedMapping:
    IMAGES = (f"quay.io/a/x:v1@{A}", f"quay.io/a/y@{B}", "busybox", "oci://broken")

    def taken(self, *lines: str) -> dict[str, list[str]]:
        found = taken(read(*lines), self.IMAGES)
        return {
            str(image): [str(copy.destination) for copy in copies]
            for image, copies in [*found.images.items(), *found.extra.items()]
        }

    def test_a_line_without_the_tag_is_the_catalogs_image(self) -> None:
        line = f"quay.io/a/x@{A}=reg.lan/a/x:1234"
        assert self.taken(line) == {self.IMAGES[0]: ["reg.lan/a/x:1234"]}

    def test_several_destinations_stay_together(self) -> None:
        lines = [f"quay.io/a/y@{B} reg.lan/a/y:1 reg.lan/b/y:1", f"quay.io/a/y@{B}=reg.lan/c:1"]
        assert self.taken(*lines) == {
            self.IMAGES[1]: ["reg.lan/a/y:1", "reg.lan/b/y:1", "reg.lan/c:1"]
        }

    def test_dockers_defaults_make_no_difference(self) -> None:
        assert self.taken("docker.io/library/busybox:latest=reg.lan/b") == {
            "busybox": ["reg.lan/b:latest"]
        }

    def test_a_name_without_a_tag_is_latest_where_the_catalog_means_it(self) -> None:
        listed = read("busybox=reg.lan/b", "quay.io/a/y=reg.lan/y", "busybox:*=reg.lan/all")
        found = taken(listed, self.IMAGES)
        assert pairs(found.images["busybox"]) == [("busybox", "reg.lan/b:latest")]
        assert [str(wildcard.source) for wildcard in found.wildcards] == ["quay.io/a/y", "busybox"]

    @pytest.mark.parametrize("source", [f"quay.io/a/x@{B}", "quay.io/a/x:v1", "quay.io/z:1"])
    def test_what_the_catalog_does_not_have_is_an_extra_image(self, source: str) -> None:
        found = taken(read(f"{source}=reg.lan/a/x:1"), self.IMAGES)
        assert not found.images
        assert list(found.extra) == [ImageReference.parse(source)]


_words = st.text(st.sampled_from("ab.io/:@=#* \t1v"), max_size=60)


@given(st.lists(_words, max_size=5))
def test_any_text_is_read_or_refused(lines: list[str]) -> None:
    try:
        listed = read(*lines)
    except UsageError as error:
        assert error.message.isprintable()
    else:
        again = read(*(f"{copy.source}={copy.destination}" for copy in listed.copies), "z.io/z y/y")
        assert pairs(again.copies) == pairs(listed.copies)
