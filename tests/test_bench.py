from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.bench import Failed, take_turns
from tests.support.bench_catalogs import CONTESTANTS, CatalogBench
from tests.support.bench_report import catalog_heading, catalog_table

CATALOG = Path(__file__).parent / "data" / "catalogs" / "file-based" / "opreg-fbc-dir"


def test_each_round_begins_with_another_contestant() -> None:
    turns: list[str] = []
    given = take_turns({"a": lambda: 1, "b": lambda: 2}, 3, lambda _run, name: turns.append(name))
    assert turns == ["a", "b", "b", "a", "a", "b"]
    assert given == {"a": [1, 1, 1], "b": [2, 2, 2]}


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
