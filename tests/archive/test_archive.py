"""An archive as a whole: made, read, damaged, interrupted."""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import airgap
from airgap.archive import tar
from airgap.archive.audit import audit
from airgap.archive.layout import Entry, Layout, index_document
from airgap.archive.reader import ArchiveReader, partial_path
from airgap.archive.state import State, state_path, who_writes
from airgap.archive.writer import NOTE_BYTES, ArchiveWriter, reopen
from airgap.digest import Digest, digest_of
from airgap.errors import (
    AirgapError,
    ArchiveError,
    Busy,
    IntegrityError,
    Interrupted,
    StorageError,
    UsageError,
)
from airgap.plan import Manifest
from airgap.progress import SILENT
from tests.support.plans import Content, archive_of, begin, fill, some_content

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airgap.plan import Blob, Plan


def _problems(path: Path) -> list[str]:
    with ArchiveReader(path) as reader:
        return [problem.message for problem in audit(reader, SILENT)]


def entries(plan: Plan, layout: Layout) -> Iterator[Entry]:
    yield from (entry for entry, _ in layout.volumes[0].documents)
    yield from (layout.manifest(number) for number in range(len(plan.manifests)))
    yield from (layout.blob(number) for number in range(len(plan.blobs)))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "it.tar"
    archive_of(path, some_content())
    return path


def test_every_place_follows_the_one_before(archive: Path) -> None:
    with ArchiveReader(archive) as reader:
        end = 0
        for entry in entries(reader.plan, reader.layout):
            assert entry.offset == end
            end = entry.end
        assert end + len(tar.END) == reader.layout.size == archive.stat().st_size


def test_the_layout_is_a_function_of_the_plan_alone() -> None:
    first, second = some_content().plan(), some_content().plan()
    index = index_document(first, digest_of(b""))
    assert [*entries(first, Layout(first, 99, index))] == [
        *entries(second, Layout(second, 99, index))
    ]


def test_gnu_tar_unpacks_an_oci_layout(archive: Path, tmp_path: Path) -> None:
    target = tmp_path / "unpacked"
    target.mkdir()
    subprocess.run(["tar", "-xf", archive, "-C", target], check=True)
    assert json.loads((target / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((target / "index.json").read_text())
    names = {d["annotations"]["org.opencontainers.image.ref.name"] for d in index["manifests"]}
    assert names == set(some_content().images)
    for digest, data in some_content().by_digest.items():
        assert (target / "blobs" / "sha256" / digest.hex).read_bytes() == data


def test_what_was_put_in_comes_out(archive: Path) -> None:
    content = some_content()
    with ArchiveReader(archive) as reader:
        assert reader.plan == content.plan()
        for number, manifest in enumerate(reader.plan.manifests):
            assert reader.manifest(number) == content.by_digest[manifest.digest]
        for blob in reader.plan.blobs:
            assert b"".join(reader.blob(blob, 0)) == content.by_digest[blob.digest]
            assert b"".join(reader.blob(blob, 1)) == content.by_digest[blob.digest][1:]
    assert _problems(archive) == []


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_the_bytes_do_not_depend_on_the_workers(
    archive: Path, tmp_path: Path, workers: int
) -> None:
    other = tmp_path / "other.tar"
    archive_of(other, some_content(), workers=workers)
    assert other.read_bytes() == archive.read_bytes()


def test_nothing_but_the_archive_is_left(archive: Path) -> None:
    assert [path.name for path in archive.parent.iterdir()] == [archive.name]


@pytest.mark.parametrize("every", [211, pytest.param(7, marks=pytest.mark.slow)])
def test_any_flipped_byte_is_found(archive: Path, every: int) -> None:
    original = archive.read_bytes()
    chance = random.Random(every)
    for offset in range(chance.randrange(every), len(original), every):
        damaged = bytearray(original)
        damaged[offset] ^= 1 << chance.randrange(8)
        archive.write_bytes(damaged)
        try:
            problems = _problems(archive)
        except ArchiveError:
            continue
        assert problems, f"byte {offset} of {len(original)}"


@pytest.mark.parametrize("every", [8 * 512, pytest.param(512, marks=pytest.mark.slow)])
def test_any_cut_is_found(archive: Path, every: int) -> None:
    original = archive.read_bytes()
    for size in [*range(0, len(original), every), len(original) - 1]:
        archive.write_bytes(original[:size])
        try:
            problems = _problems(archive)
        except ArchiveError:
            continue
        assert any("cut short" in problem for problem in problems)


def test_bytes_after_the_end_are_found(archive: Path) -> None:
    with archive.open("ab") as file:
        file.write(b"\0")
    assert any("too long" in problem for problem in _problems(archive))


def test_damage_names_the_blob(archive: Path) -> None:
    with ArchiveReader(archive) as reader:
        place, digest = reader.layout.blob(2), reader.plan.blobs[2].digest
    with archive.open("r+b") as file:
        file.seek(place.content)
        file.write(b"\xff\xfe\xfd")
    (problem,) = _problems(archive)
    assert str(digest) in problem


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "it"
    for content in (b"", b"hello", b"\0" * 100_000, tar.header("other", 5) + b"hello" * 999):
        path.write_bytes(content)
        with pytest.raises(ArchiveError, match="not an airgap archive"):
            ArchiveReader(path)


def test_what_is_no_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a file"):
        ArchiveReader(Path("/dev/null"))
    with pytest.raises(UsageError, match="no archive and no volume of one in it"):
        ArchiveReader(tmp_path)
    with pytest.raises(UsageError, match="no such file"):
        ArchiveReader(tmp_path / "nothing")


@pytest.mark.parametrize("command", ["inspect", "verify", "import"])
def test_indexes_nested_without_end_are_refused_by_every_command(
    tmp_path: Path, command: str
) -> None:
    path = tmp_path / "it.tar"
    _chain(path, levels=2000)
    commands: dict[str, Callable[[], object]] = {
        "inspect": lambda: airgap.inspect(path),
        "verify": lambda: airgap.verify(path),
        "import": lambda: airgap.import_archive(path, "127.0.0.1:1"),
    }
    with pytest.raises(ArchiveError, match="nested too deeply"):
        commands[command]()


def _chain(path: Path, *, levels: int) -> None:
    """Forge an archive with an index in an index, and so on."""
    content = Content()
    nodes = [content.manifest(b"{}")]
    for _ in range(levels):
        nodes.append(content.index(nodes[-1]))
    manifests = [
        Manifest(
            node.digest,
            node.size,
            node.media_type,
            (number - 1,) if number else (),
            () if number else (0,),
        )
        for number, node in enumerate(nodes)
    ]
    content.images["quay.io/lab/catalog:v1"] = nodes[0]
    one = content.plan()
    image = replace(one.images[0], root=levels)
    begin(path, content, replace(one, manifests=tuple(manifests), images=(image,)))
    partial_path(path).rename(path)


def test_an_unfinished_archive_is_told_from_none(tmp_path: Path) -> None:
    begin(tmp_path / "it.tar", some_content())
    with pytest.raises(UsageError, match="not finished") as caught:
        ArchiveReader(tmp_path / "it.tar")
    assert caught.value.hint is not None


def test_a_missing_blob_leaves_a_hole_of_zeros_that_is_filled_later(
    archive: Path, tmp_path: Path
) -> None:
    path, content = tmp_path / "holes.tar", some_content()
    gone = content.plan().blobs[3].digest
    content.absent.add(gone)
    outcome = archive_of_holes(path, content)
    assert [type(e).__name__ for e in outcome.values()] == ["NotFound"]
    with ArchiveReader(path) as reader:
        assert [reader.plan.blobs[n].digest for n in reader.holes] == [gone]
    assert _problems(path) == []
    listed = subprocess.run(["tar", "-tf", path], check=True, capture_output=True, text=True).stdout
    assert f"absent/sha256/{gone.hex}" in listed.splitlines()

    content.absent.clear()
    content.asked.clear()
    reopen(path)
    fill(path, content)
    assert content.asked == [(gone, 0)]
    assert path.read_bytes() == archive.read_bytes()


def archive_of_holes(path: Path, content: Content) -> dict[int, AirgapError]:
    return archive_of(path, content).failed_blobs


class _Interrupting(Content):
    """Stops in the middle of one blob, as a kill would."""

    stop_after: int = 0
    large: Digest

    def blob(self, blob: Blob, offset: int) -> Iterator[bytes]:
        for count, piece in enumerate(super().blob(blob, offset)):
            if self.stop_after and blob.digest == self.large and count == self.stop_after:
                raise Interrupted("killed")
            yield piece


def _with_a_large_blob() -> _Interrupting:
    content = _Interrupting(**vars(some_content()))
    large = random.Random(5).randbytes(4 * NOTE_BYTES)
    content.large = digest_of(large)
    content.images["quay.io/lab/large:v1"] = content.manifest(b"{}", large)
    return content


def _interrupted(path: Path, content: _Interrupting) -> None:
    begin(path, content)
    content.stop_after = 10
    with pytest.raises(Interrupted):
        fill_without_saving(path, content)
    content.stop_after = 0
    content.asked.clear()


def fill_without_saving(path: Path, content: Content) -> None:
    """As after a kill: the state stays, nothing is finished."""
    from airgap.crew import AtMost
    from airgap.transfer import transfer

    stop, state = threading.Event(), State(path)
    try:
        with ArchiveWriter(path, state, stop, believe=state.same_boot) as archive:
            transfer(
                archive.plan, archive.plan.images, content, archive,
                lanes=AtMost(1), progress=SILENT, stop=stop,
            )  # fmt: skip
    finally:
        state.release(finished=False)


def test_a_large_blob_continues_where_it_was(tmp_path: Path) -> None:
    path, content = tmp_path / "it.tar", _with_a_large_blob()
    _interrupted(path, content)
    fill(path, content)
    assert (content.large, 2 * NOTE_BYTES) in content.asked
    assert (content.large, 0) not in content.asked
    whole = tmp_path / "whole.tar"
    archive_of(whole, content)
    assert path.read_bytes() == whole.read_bytes()


def test_after_another_boot_only_what_was_synced_is_believed(tmp_path: Path) -> None:
    path, content = tmp_path / "it.tar", _with_a_large_blob()
    _interrupted(path, content)
    state = state_path(path)
    state.write_text(state.read_text().replace('"boot": "', '"boot": "another-'))
    fill(path, content)
    assert (content.large, 0) in content.asked
    assert _problems(path) == []


def test_a_large_blob_is_synced_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airgap.archive.writer.GROUP_BYTES", 2 * NOTE_BYTES)
    path, content = tmp_path / "it.tar", _with_a_large_blob()
    content.stop_after = 10  # MiB, of 16
    begin(path, content)
    with pytest.raises(Interrupted):
        fill_without_saving(path, content)
    content.stop_after = 0
    content.asked.clear()
    state = state_path(path)
    state.write_text(state.read_text().replace('"boot": "', '"boot": "another-'))
    fill(path, content)
    assert (content.large, 2 * NOTE_BYTES) in content.asked
    assert _problems(path) == []


def test_what_is_finished_does_not_wait_for_another_ones_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, content = tmp_path / "it.tar", some_content()
    begin(path, content)
    state, syncing, others_done = State(path), threading.Event(), threading.Event()
    with ArchiveWriter(path, state, threading.Event(), believe=True) as archive:
        slow, *others = archive.plan.blobs
        sync = os.fdatasync

        def lasting(descriptor: int) -> None:
            syncing.set()
            assert others_done.wait(10)
            sync(descriptor)

        monkeypatch.setattr("airgap.archive.writer.GROUP_BYTES", 1)
        monkeypatch.setattr(os, "fdatasync", lasting)
        thread = threading.Thread(
            target=archive.put_blob, args=(slow, "", partial(content.blob, slow))
        )
        thread.start()
        assert syncing.wait(10)
        for blob in others:
            archive.put_blob(blob, "", partial(content.blob, blob))
        others_done.set()
        thread.join()
    state.release(finished=False)


def test_losing_the_state_costs_time_and_nothing_else(tmp_path: Path) -> None:
    path, content = tmp_path / "it.tar", _with_a_large_blob()
    _interrupted(path, content)
    state_path(path).unlink()
    fill(path, content, believe=False)
    assert _problems(path) == []


def test_a_damaged_part_of_a_blob_is_found_and_fetched_again(tmp_path: Path) -> None:
    path, content = tmp_path / "it.tar", _with_a_large_blob()
    _interrupted(path, content)
    with ArchiveReader(partial_path(path), unfinished=True) as reader:
        number = next(n for n, b in enumerate(reader.plan.blobs) if b.digest == content.large)
        place = reader.layout.blob(number)
    with partial_path(path).open("r+b") as file:
        file.seek(place.content + 5)
        file.write(b"damage")
    fill(path, content)
    assert [o for d, o in content.asked if d == content.large] == [2 * NOTE_BYTES, 0]
    assert _problems(path) == []


def test_a_finished_blob_that_a_power_cut_damaged_is_fetched_again(tmp_path: Path) -> None:
    path, content = tmp_path / "it.tar", some_content()
    gone = content.plan().blobs[-1].digest
    content.absent.add(gone)
    archive_of_holes(path, content)
    reopen(path)
    with ArchiveReader(partial_path(path), unfinished=True) as reader:
        place, digest = reader.layout.blob(1), reader.plan.blobs[1].digest
    with partial_path(path).open("r+b") as file:
        file.seek(place.content)
        file.write(b"\0" * place.size)
    content.absent.clear()
    content.asked.clear()
    fill(path, content, believe=False)
    assert {d for d, _ in content.asked} == {gone, digest}
    assert _problems(path) == []


def test_a_header_that_a_recheck_found_wrong_is_not_believed_by_the_next_run(
    tmp_path: Path,
) -> None:
    path, content = tmp_path / "it.tar", some_content()
    gone = content.plan().blobs[-1].digest
    content.absent.add(gone)
    archive_of_holes(path, content)
    reopen(path)
    with ArchiveReader(partial_path(path), unfinished=True) as reader:
        place, digest = reader.layout.blob(1), reader.plan.blobs[1].digest
    with partial_path(path).open("r+b") as file:
        file.seek(place.content)
        file.write(b"\0" * place.size)
    state = State(path)
    with ArchiveWriter(path, state, threading.Event(), believe=False) as archive:
        assert 1 in archive.missing
    state.release(finished=False)  # As after a kill: in this boot, headers are believed.
    with ArchiveReader(partial_path(path), unfinished=True) as reader:
        assert 1 in reader.holes
    content.absent.clear()
    content.asked.clear()
    fill(path, content, believe=True)
    assert {d for d, _ in content.asked} == {gone, digest}
    assert _problems(path) == []


def test_small_blobs_that_were_finished_when_a_run_was_killed_are_not_fetched_again(
    tmp_path: Path,
) -> None:
    path, content = tmp_path / "it.tar", some_content()
    begin(path, content)
    fill_without_saving(path, content)
    with ArchiveReader(partial_path(path), unfinished=True) as reader:
        assert reader.present == frozenset()
    content.asked.clear()
    fill(path, content)
    assert content.asked == []
    assert _problems(path) == []


def test_after_another_boot_small_blobs_without_their_header_are_fetched_again(
    tmp_path: Path,
) -> None:
    path, content = tmp_path / "it.tar", some_content()
    begin(path, content)
    fill_without_saving(path, content)
    state = state_path(path)
    state.write_text(state.read_text().replace('"boot": "', '"boot": "another-'))
    content.asked.clear()
    fill(path, content)
    assert {d for d, _ in content.asked} == {blob.digest for blob in content.plan().blobs}
    assert _problems(path) == []


def test_after_a_lost_sync_no_header_is_flipped_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, content = tmp_path / "it.tar", some_content()
    begin(path, content)
    state = State(path)

    def failing(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with ArchiveWriter(path, state, threading.Event(), believe=True) as archive:
        first, second = archive.plan.blobs[:2]
        archive.put_blob(first, "", lambda offset: content.blob(first, offset))
        with monkeypatch.context() as patched, pytest.raises(StorageError, match="Input/output"):
            patched.setattr(os, "fdatasync", failing)
            archive.save()
        archive.put_blob(second, "", lambda offset: content.blob(second, offset))
        for end in (archive.save, archive.finish):
            with pytest.raises(StorageError, match="an earlier write was lost"):
                end()
    state.release(finished=False)
    assert not path.exists()
    with ArchiveReader(partial_path(path), unfinished=True) as reader:
        assert reader.present == frozenset()
    content.asked.clear()
    fill(path, content)
    assert {(first.digest, 0), (second.digest, 0)} <= set(content.asked)
    assert _problems(path) == []


def test_content_altered_once_on_the_way_is_fetched_again(tmp_path: Path) -> None:
    class Flipping(Content):
        def blob(self, blob: Blob, offset: int) -> Iterator[bytes]:
            is_first = (blob.digest, 0) not in self.asked
            for piece in super().blob(blob, offset):
                yield bytes([piece[0] ^ 1]) + piece[1:] if is_first else piece

    path, content = tmp_path / "it.tar", Flipping(**vars(some_content()))
    assert archive_of_holes(path, content) == {}
    assert sorted(content.asked, key=str) == sorted(
        [(blob.digest, 0) for blob in content.plan().blobs] * 2, key=str
    )
    assert _problems(path) == []


def test_content_that_is_not_what_was_promised_is_never_believed(tmp_path: Path) -> None:
    path, content = tmp_path / "it.tar", some_content()
    digest = content.plan().blobs[0].digest
    content.by_digest[digest] = b"x" * len(content.by_digest[digest])
    outcome = archive_of_holes(path, content)
    assert isinstance(outcome[0], IntegrityError)
    assert content.asked.count((digest, 0)) == 2
    with ArchiveReader(path) as reader:
        assert reader.holes == {0}
    assert _problems(path) == []


def test_a_second_writer_is_told_who_the_first_is(tmp_path: Path) -> None:
    path = tmp_path / "it.tar"
    first = State(path)
    with pytest.raises(Busy, match=r"process \d+ on "):
        State(path)
    assert who_writes(path) is not None
    with pytest.raises(Busy, match="is writing it"):
        ArchiveReader(path)
    first.release(finished=True)
    State(path).release(finished=True)
    assert who_writes(path) is None
    assert list(tmp_path.iterdir()) == []
