from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airgap import limits
from airgap.errors import MalformedContent
from airgap.oci.tar_stream import Kind, members
from tests.support.layers import device, directory, file, hard_link, symlink, tar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.layers import Member

END = bytes(1024)


def read(raw: bytes, step: int = 10_000) -> list[tuple[str, Kind, bytes, str]]:
    pieces = (raw[at : at + step] for at in range(0, len(raw), step))
    return [(m.name, m.kind, b"".join(m.content), m.link) for m in members(pieces, "layer")]


def names(raw: bytes) -> list[str]:
    return [name for name, *_ in read(raw)]


def header(name: bytes = b"name", kind: bytes = b"0", size: bytes = b"00000000000\0") -> bytes:
    """One header block with exactly these fields and a right checksum."""
    block = bytearray(512)
    block[: len(name)] = name
    block[124:136] = size
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    return summed(block)


def summed(block: bytearray) -> bytes:
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def extension(kind: bytes, body: bytes) -> bytes:
    return header(b"extension", kind, b"%011o\0" % len(body)) + body + bytes(-len(body) % 512)


def pax(*records: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    return extension(kind, b"".join(record(*each) for each in records))


def record(key: bytes, value: bytes) -> bytes:
    length = len(key) + len(value) + 3
    length += len(str(length + len(str(length))))
    return b"%d %s=%s\n" % (length, key, value)


def test_gives_members_of_every_kind() -> None:
    raw = tar(
        file("a", b"content"),
        directory("d/"),
        symlink("s", "a"),
        hard_link("h", "a"),
        device("dev/null"),
        file("empty"),
    )
    assert read(raw) == [
        ("a", Kind.FILE, b"content", ""),
        ("d/", Kind.DIRECTORY, b"", ""),
        ("s", Kind.SYMLINK, b"", "a"),
        ("h", Kind.HARD_LINK, b"", "a"),
        ("dev/null", Kind.OTHER, b"", ""),
        ("empty", Kind.FILE, b"", ""),
    ]


def test_an_archive_may_be_empty() -> None:
    assert read(END) == []


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_reads_long_names_and_links(form: Literal[1, 2]) -> None:
    long = "directory/" * 40 + "name"
    raw = tar(file(long, b"x"), symlink("s" * 300, long), file("after"), form=form)
    assert [(name, link) for name, _, _, link in read(raw)] == [
        (long, ""),
        ("s" * 300, long),
        ("after", ""),
    ]


def test_reads_the_prefix_of_a_ustar_name() -> None:
    long = "p" * 100 + "/" + "n" * 90
    assert names(tar(file(long), form=tarfile.USTAR_FORMAT)) == [long]


def test_reads_sizes_in_base_256() -> None:
    assert read(header(size=b"\x80" + (3).to_bytes(11, "big")) + b"abc" + bytes(509) + END) == [
        ("name", Kind.FILE, b"abc", "")
    ]


def test_keeps_names_that_are_no_text() -> None:
    (name,) = names(header(b"caf\xe9") + END)
    assert name.encode("utf-8", "surrogateescape") == b"caf\xe9"


def test_an_old_file_with_a_slash_at_its_end_is_a_directory() -> None:
    assert [kind for _, kind, _, _ in read(header(b"d/", b"\0") + header(b"f", b"\0") + END)] == [
        Kind.DIRECTORY,
        Kind.FILE,
    ]


@pytest.mark.parametrize("kind", [b"1", b"2", b"3", b"4", b"5", b"6"])
def test_nothing_follows_a_header_of_a_kind_without_content(kind: bytes) -> None:
    assert names(header(b"first", kind, b"00000000777\0") + header(b"second") + END) == [
        "first",
        "second",
    ]


def test_pax_overrides_path_link_and_size() -> None:
    records = pax((b"path", b"other"), (b"linkpath", b"there"), (b"size", b"3"), (b"mtime", b"1.5"))
    assert read(records + header(b"safe") + b"abc" + bytes(509) + header(b"next") + END) == [
        ("other", Kind.FILE, b"abc", "there"),
        ("next", Kind.FILE, b"", ""),
    ]


def test_an_empty_pax_value_overrides_nothing() -> None:
    assert names(pax((b"path", b"")) + header(b"name") + END) == ["name"]


def test_passes_over_a_global_header_that_only_comments() -> None:
    assert names(pax((b"comment", b"a commit"), kind=b"g") + header(b"name") + END) == ["name"]


def test_passes_over_content_that_nobody_reads() -> None:
    raw = tar(file("a", bytes(5000)), file("b", b"x" * 600), file("c"))
    assert [member.name for member in members([raw], "layer")] == ["a", "b", "c"]
    partly = []
    for member in members([raw], "layer"):
        partly.append(next(member.content, b"")[:1])
    assert partly == [b"\0", b"x", b""]


def test_allows_zeros_behind_the_end() -> None:
    assert names(header(b"name") + END + bytes(8192)) == ["name"]


SOUND = header(b"name", size=b"00000000003\0") + b"abc" + bytes(509)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "cut"),
        (b"some text", "cut"),
        (b"some text" * 100, "not a tar archive"),
        (b"\xfd7zXZ\0" + b"x" * 600, "not a tar archive, nor one compressed with gzip or zstd"),
        (SOUND, "cut"),
        (SOUND + bytes(512), "cut"),
        (SOUND[:-1], "cut"),
        (SOUND[:514], "cut"),
        (SOUND + SOUND[:300], "cut"),
        (SOUND + bytes(512) + SOUND + END, "single block of zeros"),
        (SOUND + b"\1" + SOUND[1:] + END, "checksum"),
        (SOUND + END + SOUND + END, "follows the end"),
        (SOUND + END + b"x", "follows the end"),
        (SOUND + bytes(1023) + b"x", "single block of zeros"),
        (header(size=b"\xff" * 12) + END, "negative"),
        (header(size=b"\xc0" + bytes(11)) + END, "negative"),
        (header(size=b"\xbf" + b"\xff" * 11) + END, "more than a layer may hold"),
        (header(size=b"0x0000000f0\0") + END, "no size"),
        (header(size=b"0000000+003\0") + END, "no size"),
        (header(size=b"00000\x0000003\0") + END, "no size"),
        (header(size=b"777777777777") + END, "more than a layer may hold"),
        (header(kind=b"S") + END, "sparse"),
        (pax((b"GNU.sparse.major", b"1")) + header() + END, "sparse"),
        (pax((b"size", b"-1")) + header() + END, "no size"),
        (pax((b"size", b"1e3")) + header() + END, "no size"),
        (pax((b"size", b"9" * 19)) + header() + END, "more than a layer may hold"),
        (pax((b"path", b"a"), (b"path", b"b")) + header() + END, "ambiguous path"),
        (pax((b"path", b"a\0b")) + header() + END, "ambiguous path"),
        (pax((b"path", b"a"), kind=b"g") + header() + END, "all members"),
        (pax((b"path", b"a")) + pax((b"mtime", b"1")) + header() + END, "two extended headers"),
        (pax((b"path", b"a")) + extension(b"L", b"b\0") + header() + END, "two long names"),
        (extension(b"L", b"a\0") + extension(b"L", b"b\0") + header() + END, "two extended"),
        (pax((b"path", b"a")) + END, "no member behind"),
        (extension(b"x", b"nonsense") + header() + END, "damaged pax"),
        (extension(b"x", b"99 path=a\n") + header() + END, "damaged pax"),
        (extension(b"x", b"5 path=a\n") + header() + END, "damaged pax"),
        (extension(b"x", b"0 path=a\n") + header() + END, "damaged pax"),
        (extension(b"x", b"10 path=ab") + header() + END, "damaged pax"),
        (pax((b"path", b"n" * 4097)) + header() + END, "name of more than 4096"),
        (extension(b"K", b"n" * 4097) + header() + END, "name of more than 4096"),
        (header(b"e", b"L", b"17777777777\0") + END, "extended header of"),
        (header(b"e", b"x", b"%011o\0" % (limits.MIB + 1)) + END, "extended header of"),
        (header(b"e", b"g", b"%011o\0" % (limits.MIB + 1)) + END, "extended header of"),
    ],
)
def test_refuses(raw: bytes, why: str) -> None:
    with pytest.raises(
        MalformedContent, match=f"layer: at byte [0-9]+ of the tar archive: .*{why}"
    ):
        read(raw)


def test_refuses_a_flip_of_any_bit_of_a_header() -> None:
    raw = tar(file("a", b"x"), file("b", b"y"))
    for at in (*range(512), *range(1024, 1536)):
        damaged = bytearray(raw)
        damaged[at] ^= 1
        if 148 <= at % 1024 < 156:
            continue
        with pytest.raises(MalformedContent):
            read(bytes(damaged))


def test_refuses_every_cut() -> None:
    raw = tar(file("a", b"x" * 600), symlink("b", "a"), file("c" * 150))
    for length in range(0, len(raw), 64):
        with pytest.raises(MalformedContent):
            read(raw[:length])


def test_does_not_read_an_endless_name() -> None:
    asked = 0

    def endless() -> Iterator[bytes]:
        nonlocal asked
        yield header(b"e", b"L", b"17777777777\0")
        while True:
            asked += 1
            yield bytes(512)

    with pytest.raises(MalformedContent):
        list(members(endless(), "layer"))
    assert asked == 0


_NAME = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=300)
_MEMBER = st.builds(file, _NAME, st.binary(max_size=1500))


@given(
    st.lists(_MEMBER, max_size=6),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
    st.integers(1, 3000),
)
def test_agrees_with_tarfile_on_every_sound_archive(
    wanted: list[Member], form: Literal[1, 2], step: int
) -> None:
    raw = tar(*wanted, form=form)
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        expected = [info.name for info in archive]
    got = read(raw, step)
    assert [name.rstrip("/") for name, *_ in got] == [name.rstrip("/") for name in expected]
    assert [content for _, _, content, _ in got] == [content for _, content in wanted]
