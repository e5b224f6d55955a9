from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airgap.archive.reader import ArchiveReader
from airgap.reference import ImageReference
from airgap.registry.directory import DirectoryStore
from tests.support import bench_bare, bench_images, bench_plan, bench_targets
from tests.support.bench import Cost, Failed, measured, measured_together, middle, take_turns
from tests.support.bench_bare import export_steps, import_steps
from tests.support.bench_catalogs import CONTESTANTS, CatalogBench
from tests.support.bench_report import catalog_heading, catalog_table, plan_table
from tests.support.site import Supply, open_site

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airgap.plan import Image

CATALOG = Path(__file__).parent / "data" / "catalogs" / "file-based" / "opreg-fbc-dir"


def test_each_round_begins_with_another_contestant() -> None:
    turns: list[str] = []
    given = take_turns({"a": lambda: 1, "b": lambda: 2}, 3, lambda _run, name: turns.append(name))
    assert turns == ["a", "b", "b", "a", "a", "b"]
    assert given == {"a": [1, 1, 1], "b": [2, 2, 2]}


def test_a_command_that_fails_says_why() -> None:
    with pytest.raises(Failed, match="no such thing"):
        measured([sys.executable, "-c", "import sys; sys.exit('no such thing')"])


def test_commands_together_cost_what_all_of_them_cost() -> None:
    begin = [sys.executable, "-I", "-S", "-c"]
    alone = measured([*begin, "print('x' * 999)"])
    both = measured_together([[*begin, "print('x' * 999)"]] * 2, at_once=2)
    assert both.written == 2 * alone.written == 2000


def test_a_median_knows_only_lines_that_were_always_said() -> None:
    costs = [Cost(9, 1, 1, 1, {"begun": 1, "odd": 2}), Cost(9, 1, 1, 1, {"begun": 3})]
    assert middle(costs).since("beg") == 7
    with pytest.raises(Failed):
        middle(costs).since("odd")


def test_a_target_is_told_for_its_shapes_when_all_it_needs_took_part() -> None:
    medians = {
        bench_images.EXPORT: Cost(10, 5, 40_000_000, 1, {"fetching blobs: 1 GB": 4}),
        bench_images.CURL_BLOBS: Cost(2, 1, 1, 1),
        bench_images.HASH: Cost(3, 1, 1, 1),
    }
    told = list(bench_targets.reached("big", medians, 10**9))
    assert [line.rpartition(": ")[2] for line in told] == [
        "at most 1.15)",
        "below 2.5)",
        "below 150)",
    ]
    assert "2.00 (" in told[0]
    assert len(list(bench_targets.reached("small", medians, 10**9))) == 1


def test_every_target_is_for_shapes_and_contestants_that_are_there() -> None:
    names = {one.name for found in bench_images.CONTESTANTS.values() for one in found}
    for target in bench_targets.TARGETS:
        assert set(target.shapes) <= set(bench_images.SHAPES)
        assert set(target.needs) <= names


def test_bare_python_brings_all_that_an_export_and_an_import_bring(tmp_path: Path) -> None:
    with open_site(tmp_path, Supply.make(tmp_path / "upstream")) as site:
        site.export()
        with ArchiveReader(site.archive) as reader:
            plan, layout = reader.plan, reader.layout
        images = {blob: image for image in plan.images for blob in plan.blobs_of(image)}
        place = f"http://{site.upstream.host}/v2"
        urls = {
            plan.blobs[number].digest: f"{place}/{_below(image)}/blobs/{plan.blobs[number].digest}"
            for number, image in images.items()
        }
        _bare(tmp_path, "get", export_steps(plan, layout, urls), tmp_path / "blobs")
        got, archive = (tmp_path / "blobs").read_bytes(), site.archive.read_bytes()
        for number, blob in enumerate(plan.blobs):
            begin = layout.blob(number).content
            assert got[begin : begin + blob.size] == archive[begin : begin + blob.size]

        _bare(tmp_path, "put", import_steps(plan, layout, site.destination.host), site.archive)
        store = DirectoryStore(tmp_path / "destination", durable=False)
        for image in plan.images:
            repository = ImageReference.parse(image.reference).path
            found = store.manifest(repository, f"bench-{image.root}")
            assert found is not None
            assert found[0].digest == plan.manifests[image.root].digest
            assert all(store.blob(repository, plan.blobs[n].digest) for n in plan.blobs_of(image))


def _below(image: Image) -> str:
    """Return where the laboratory keeps an image: by the host that it is said to be at."""
    repository = ImageReference.parse(image.reference).repository
    return f"{repository.host}/{repository.path}"


def _bare(folder: Path, job: str, steps: Iterable[str], file: Path) -> None:
    (folder / "steps").write_text("\n".join(steps))
    measured([sys.executable, "-I", bench_bare.PROGRAM, job, folder / "steps", file])


def test_a_plan_is_measured_step_by_step(tmp_path: Path) -> None:
    steps = bench_plan.measured_plan(20, tmp_path)
    assert [step.memory for step in steps] == sorted(step.memory for step in steps)
    assert "inventory read" in plan_table([steps])


def test_the_plan_that_is_measured_has_four_manifests_and_ten_blobs_an_image() -> None:
    plan = bench_plan.synthetic(20)
    assert (len(plan.images), len(plan.manifests), len(plan.blobs)) == (20, 80, 200)


def test_readers_of_a_catalog_read_the_same_documents(tmp_path: Path) -> None:
    contest = CatalogBench(tmp_path, CATALOG)
    (converted,) = (tmp_path / "json").iterdir()
    assert converted.read_text().count('"schema": ') == contest.documents > 1
    readings = contest.compete(1, lambda _message: None)
    assert list(readings) == [contestant.name for contestant in CONTESTANTS]
    assert all(reading.seconds > 0 for found in readings.values() for reading in found)
    assert "1 files" in catalog_heading(contest, "small", tmp_path, 1)
    assert "alone" in catalog_table(contest, readings)


@pytest.mark.parametrize("text", [json.dumps({"schema": "x"}), "a: ["])
def test_a_catalog_that_is_no_sound_yaml_is_refused(tmp_path: Path, text: str) -> None:
    source, made = tmp_path / "source", tmp_path / "made"
    for folder in (source, made):
        folder.mkdir()
    (source / "catalog.yaml").write_text(text)
    with pytest.raises(Failed):
        CatalogBench(made, source)
