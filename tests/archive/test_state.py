from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from airgap.archive import state as module
from airgap.archive.state import State, state_path, who_writes
from airgap.errors import Busy, StorageError


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "olm.tar"


def _leave(archive: Path, *, boot: bool = True) -> None:
    """A run that wrote part of two blobs, synced one, and died."""
    state = State(archive)
    if boot:
        state.believe()
    state.written(7, 100)
    state.synced(7, 90)
    state.written(8, 50)
    state.release(finished=False)


def test_the_state_of_a_new_archive_knows_nothing(archive: Path) -> None:
    state = State(archive)
    assert (state.same_boot, state.survived) == (False, {})
    state.release(finished=True)


def test_after_a_kill_what_the_kernel_was_given_counts(archive: Path) -> None:
    _leave(archive)
    state = State(archive)
    assert state.same_boot
    assert state.survived == {7: 90, 8: 50}
    state.release(finished=True)


def test_after_another_boot_only_what_was_synced_counts(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _leave(archive)
    other = tmp_path / "boot_id"
    other.write_text("another boot\n")
    monkeypatch.setattr(module, "_BOOT_ID", other)
    state = State(archive)
    assert not state.same_boot
    assert state.survived == {7: 90}
    state.release(finished=True)


def test_a_system_without_a_boot_id_believes_nothing_it_has_not_synced(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BOOT_ID", tmp_path / "nowhere")
    _leave(archive)
    state = State(archive)
    assert (state.same_boot, state.survived) == (False, {7: 90})
    state.release(finished=True)


def test_headers_are_not_believed_before_they_were_checked(archive: Path) -> None:
    _leave(archive, boot=False)
    state = State(archive)
    assert not state.same_boot
    state.release(finished=True)


@pytest.mark.parametrize(
    "junk", [b'{"blob": 7, "writ', b"\0\xff\n", b"[1, 2]\n", b'"text"\n', b'{"blob": "x"}\n']
)
def test_what_cannot_be_read_costs_itself_alone(archive: Path, junk: bytes) -> None:
    _leave(archive)
    with state_path(archive).open("ab") as file:
        file.write(junk)
    state = State(archive)
    assert state.survived == {7: 90, 8: 50}
    state.written(9, 10)
    state.release(finished=False)
    state = State(archive)
    assert state.survived == {7: 90, 8: 50, 9: 10}
    state.release(finished=True)


def test_a_finished_archive_leaves_no_state(archive: Path) -> None:
    state = State(archive)
    state.release(finished=True)
    assert not state_path(archive).exists()


def test_one_holder_at_a_time(archive: Path) -> None:
    state = State(archive)
    with pytest.raises(Busy, match=f"process {os.getpid()} on .* is writing it") as caught:
        State(archive)
    assert caught.value.hint is not None
    assert who_writes(archive) == str(caught.value).partition(": ")[2].removesuffix(
        " is writing it"
    )
    state.release(finished=False)
    assert who_writes(archive) is None
    State(archive).release(finished=True)
    assert who_writes(archive) is None


def test_the_claim_dies_with_its_holder(archive: Path) -> None:
    script = (
        "import os, pathlib, sys; from airgap.archive.state import State;"
        " State(pathlib.Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", script, archive], check=False, timeout=30)
    assert done.returncode == -9
    assert who_writes(archive) is None
    State(archive).release(finished=True)


def test_the_name_of_a_holder_is_fit_for_a_terminal(archive: Path) -> None:
    state = State(archive)
    with state_path(archive).open("a") as file:
        file.write(json.dumps({"pid": 1, "host": "\x1b[2Jevil"}) + "\n")
    holder = who_writes(archive)
    assert holder is not None and holder.isprintable()
    state.release(finished=True)


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"nowhere/olm.tar.state: No such file"):
        State(tmp_path / "nowhere" / "olm.tar")


def test_a_file_system_without_locks_is_told_with_the_way_out(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))
    monkeypatch.setattr(fcntl, "flock", without)
    with pytest.raises(StorageError, match=r"olm\.tar\.state: No locks available") as caught:
        State(archive)
    assert caught.value.hint is not None
    assert "cannot lock files" in caught.value.hint
    assert len(list(descriptors.iterdir())) == before


def test_a_state_that_cannot_be_removed_is_told_and_the_claim_given_up(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(path: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    state = State(archive)
    with monkeypatch.context() as patched, pytest.raises(StorageError, match="Read-only"):
        patched.setattr(os, "unlink", read_only)
        state.release(finished=True)
    assert who_writes(archive) is None
    State(archive).release(finished=True)
