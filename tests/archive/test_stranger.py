"""What the format's page says is enough: a reader written from it alone reads what we write."""

from __future__ import annotations

import ast
import random
import sys
from pathlib import Path

import pytest

from airgap.archive.medium import VolumeOptions
from airgap.archive.reader import ArchiveReader
from airgap.digest import digest_of
from airgap.plan import assuming
from airgap.reshaper import split
from tests.support import stranger
from tests.support.plans import Content, archive_of, begin, fill, some_content

HOLE = b"never arrives" * 50_000


def made(folder: Path, *, hole: bool = False) -> Path:
    content = some_content(layer_size=700_000)
    if hole:
        content.images["quay.io/lab/hole:v1"] = content.manifest(b"{}", HOLE)
        content.absent.add(digest_of(HOLE))
    return _archive(folder, content)


def _archive(folder: Path, content: Content) -> Path:
    archive_of(folder / "a.tar", content)
    return folder / "a.tar"


def cut(archive: Path) -> list[Path]:
    with ArchiveReader(archive) as reader:
        limit = reader.layout.smallest_limit + 100_000
    split(archive, VolumeOptions(limit), output=archive.parent / "v.tar")
    files = sorted(archive.parent.glob("v.*.tar"))
    assert len(files) > 2
    return files


def test_it_is_short_and_shares_nothing_with_the_program() -> None:
    path = Path(stranger.__file__)
    text = path.read_text("utf-8")
    assert len(text.splitlines()) < 150
    for node in ast.walk(ast.parse(text)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert all(name.partition(".")[0] in sys.stdlib_module_names for name in names)


@pytest.mark.parametrize("hole", [False, True])
@pytest.mark.parametrize("volumes", [False, True])
def test_reads_what_we_write(tmp_path: Path, hole: bool, volumes: bool) -> None:
    archive = made(tmp_path, hole=hole)
    files = cut(archive) if volumes else [archive]
    with ArchiveReader(archive) as reader:
        plan = reader.plan
        expected = {i.reference: str(plan.manifests[i.root].digest) for i in plan.images}
        identity = str(reader.id)
    holes = [str(digest_of(HOLE))] if hole else []
    for order in (files, files[::-1]):
        assert stranger.read(order) == (identity, expected, holes)


def test_reads_content_of_no_bytes(tmp_path: Path) -> None:
    content = some_content()
    content.images["quay.io/lab/empty:v1"] = content.manifest(b"{}", b"")
    assert stranger.read([_archive(tmp_path, content)])[2] == []


def test_reads_a_delta(tmp_path: Path) -> None:
    content, delta = some_content(), tmp_path / "delta.tar"
    plan = content.plan()
    held = {plan.blobs[number].digest: {digest_of(b"base")} for number in (3, 5)}
    begin(delta, content, assuming(plan, held))
    fill(delta, content)
    with ArchiveReader(delta) as reader:
        assert len(reader.plan.assumed) == 2
        assert stranger.read([delta])[::2] == (str(reader.id), [])


@pytest.mark.parametrize("volumes", [False, True])
def test_finds_any_flipped_byte_and_any_cut(tmp_path: Path, volumes: bool) -> None:
    archive = made(tmp_path, hole=True)
    files = cut(archive) if volumes else [archive]
    chance = random.Random(5)
    for path in files:
        sound = path.read_bytes()
        head = sound.index(b"index.json\0") + 1024
        places = [*range(0, 1600, 97), *chance.sample(range(head), 12)]
        places += chance.sample(range(len(sound)), 12)
        for place in places:
            raw = bytearray(sound)
            raw[place] ^= 1 << chance.randrange(8)
            path.write_bytes(raw)
            with pytest.raises((stranger.Damaged, ValueError)):
                stranger.read(files)
        for size in chance.sample(range(len(sound)), 10):
            path.write_bytes(sound[:size])
            with pytest.raises((stranger.Damaged, ValueError)):
                stranger.read(files)
        path.write_bytes(sound)
    assert stranger.read(files)


def test_wants_all_volumes_of_one_archive(tmp_path: Path) -> None:
    files = cut(made(tmp_path))
    for wrong in (files[1:], files[:-1], [*files, files[0]]):
        with pytest.raises(stranger.Damaged):
            stranger.read(wrong)
