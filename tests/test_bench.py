from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.support import bench_images, bench_plan, bench_targets
from tests.support.bench import Cost, Failed, measured, measured_together, middle, take_turns
from tests.support.bench_catalogs import CONTESTANTS, CatalogBench
from tests.support.bench_report import catalog_heading, catalog_table, plan_table

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
