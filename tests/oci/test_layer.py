from __future__ import annotations

import gzip
import io
import os
import random
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airgap import limits
from airgap.digest import digest_of
from airgap.errors import AirgapError, MalformedContent, StorageError, UsageError
from airgap.oci.layer import WrittenLayer, write_layer
from tests.support.layers import contents, file, layer, layer_of, symlink, tree

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

LONG = "/".join(["directory" * 5] * 8 + ["a file with a long name"])
PLACES = {
    "top": b"1",
    "configs/etcd/catalog.json": b'{"schema": "olm.package"}',
    "configs/etcd-2/catalog.json": b"2",
    "configs/é/ü.yaml": b"3",
    LONG: b"4",
    "configs/empty": b"",
}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "layer.tar.gz"


def written(
    files: Mapping[str, Path | bytes], opaque: Collection[str], target: Path
) -> tuple[WrittenLayer, bytes]:
    """What was said of a layer, and its bytes."""
    return write_layer(files, opaque, target), target.read_bytes()


def members(raw: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(raw), mode="r:gz") as archive:
        return archive.getmembers()


def test_says_what_it_has_written(target: Path) -> None:
    made, raw = written(PLACES, ["configs"], target)
    assert (made.digest, made.size) == (digest_of(raw), len(raw))
    assert made.diff_id == digest_of(gzip.decompress(raw))


def test_the_tar_is_the_same_on_every_machine_and_day(target: Path) -> None:
    made, _ = written(PLACES, ["configs"], target)
    known = "sha256:943d3f3a37d171702baf04b61cf12f06a851c47d075e49d7f0e169f37dca7e32"
    assert str(made.diff_id) == known


def test_the_order_of_the_files_makes_no_difference(target: Path) -> None:
    _, first = written(PLACES, ["configs", "var"], target)
    _, second = written(dict(reversed(PLACES.items())), ["var", "configs"], target)
    assert first == second


def test_neither_does_where_the_content_is(tmp_path: Path, target: Path) -> None:
    content = random.Random(1).randbytes(3 * limits.CHUNK + 5)
    source = tmp_path / "source"
    source.write_bytes(content)
    source.chmod(0o700)
    _, first = written({"a/b": content}, [], target)
    assert written({"a/b": source}, [], target)[1] == first


def test_gzip_says_neither_time_nor_name(target: Path) -> None:
    _, raw = written({"a": b""}, [], target)
    flags, time = raw[3], raw[4:8]
    assert (flags, time) == (0, bytes(4))


def test_directories_come_once_and_before_what_is_in_them(target: Path) -> None:
    _, raw = written({"b/c/2": b"", "b/c/1": b"", "b-c": b"", "a": b"", "b/a/x": b""}, [], target)
    names = ["a", "b", "b/a", "b/a/x", "b/c", "b/c/1", "b/c/2", "b-c"]
    assert [member.name for member in members(raw)] == names


def test_an_opaque_marker_stands_directly_behind_its_directory(target: Path) -> None:
    _, raw = written({"a/b/!": b"x", "a/b-": b""}, ["a/b", "empty"], target)
    names = ["a", "a/b", "a/b/.wh..wh..opq", "a/b/!", "a/b-", "empty", "empty/.wh..wh..opq"]
    assert [member.name for member in members(raw)] == names


def test_everything_is_roots_without_names_and_time(target: Path) -> None:
    _, raw = written(PLACES, ["configs"], target)
    for member in members(raw):
        assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "", "")
        assert member.mtime == 0
        assert member.isreg() or member.isdir()
        assert member.mode == (0o755 if member.isdir() else 0o644)


def test_the_program_reads_what_it_writes(target: Path) -> None:
    _, raw = written(PLACES, ["configs"], target)
    assert contents(tree(layer_of(raw))) == PLACES


def test_opaque_directories_hide_what_is_below(target: Path) -> None:
    below = layer(file("configs/old/catalog.json"), file("etc/os-release"), symlink("x", "etc"))
    _, raw = written({"configs/new/catalog.json": b"new"}, ["configs"], target)
    assert contents(tree(below, layer_of(raw))) == {
        "configs/new/catalog.json": b"new",
        "etc/os-release": b"",
    }


@pytest.mark.parametrize("program", ["tar", "bsdtar"])
def test_other_programs_unpack_it(target: Path, tmp_path: Path, program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    written(PLACES, ["configs"], target)
    command = [program, "--no-same-owner", "-xzf", str(target)]
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, cwd=unpacked, env=environment, capture_output=True, check=True)
    assert done.stderr == b""
    found = {
        path.relative_to(unpacked).as_posix(): path.read_bytes()
        for path in unpacked.rglob("*")
        if path.is_file()
    }
    assert found == PLACES | {"configs/.wh..wh..opq": b""}


NAMES = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60
).filter(lambda name: name not in (".", "..") and not name.startswith(".wh."))
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)


@given(st.dictionaries(PATHS, st.binary(max_size=2000), max_size=8), st.lists(PATHS, max_size=2))
@example({"a" * 100: b"", "b" * 101: b"", "c" * 155 + "/" + "d" * 100: b"x" * 512}, [])
def test_tarfile_finds_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], opaque: list[str]
) -> None:
    target = tmp_path_factory.getbasetemp() / "written-by-hypothesis"
    try:
        _, raw = written(files, opaque, target)
    except MalformedContent as error:
        assert "both a file and a directory" in error.message
        return
    found = {}
    with tarfile.open(fileobj=io.BytesIO(raw), mode="r:gz") as archive:
        for member in archive:
            if content := archive.extractfile(member):
                found[member.name] = content.read()
    assert found == files | {f"{path}/.wh..wh..opq": b"" for path in opaque}


@pytest.mark.parametrize(
    "path",
    [
        *["", "/", "/a", "a/", "a//b", "./a", "a/.", "..", "a/../b", "a\0b"],
        *[".wh.a", ".wh..wh..opq", "a/.wh.b", ".wh.a/b", "caf\udce9", "a/" * 2500 + "a"],
    ],
)
@pytest.mark.parametrize("opaque", [True, False])
def test_refuses_a_path_that_is_none(target: Path, path: str, opaque: bool) -> None:
    with pytest.raises(MalformedContent):
        write_layer({} if opaque else {path: b""}, [path] if opaque else [], target)
    assert not target.exists()


@pytest.mark.parametrize(
    ("files", "opaque"), [({"a": b"", "a/b": b""}, []), ({"a": b""}, ["a"]), ({"a": b""}, ["a/b"])]
)
def test_refuses_a_path_that_is_a_file_and_a_directory(
    target: Path, files: dict[str, bytes], opaque: list[str]
) -> None:
    with pytest.raises(MalformedContent, match="a: both a file and a directory"):
        write_layer(files, opaque, target)


def test_refuses_what_is_no_regular_file(target: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for source in (pipe, tmp_path):
        with pytest.raises(UsageError, match="not a regular file"):
            write_layer({"a": source}, [], target)


def test_names_the_file_that_is_missing(target: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="absent: No such file"):
        write_layer({"a": tmp_path / "absent"}, [], target)


def test_refuses_a_file_that_has_more_than_its_size(target: Path) -> None:
    source = Path("/proc/self/status")
    if not source.exists():
        pytest.skip("there is no /proc here")
    with pytest.raises(MalformedContent, match="no longer has the 0 bytes"):
        write_layer({"a": source}, [], target)


def test_names_the_target_that_cannot_be_written(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full here")
    content = random.Random(1).randbytes(limits.MIB)
    source = tmp_path / "source"
    source.write_bytes(content)
    with pytest.raises(AirgapError, match="/dev/full: No space left") as failure:
        write_layer({"a": source}, [], full)
    assert failure.value.exit_status == StorageError.exit_status
