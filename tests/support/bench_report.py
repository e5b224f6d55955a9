"""What scripts/bench prints: a table of medians, and the ratios that matter."""

from __future__ import annotations

import os
import platform
import resource
from typing import TYPE_CHECKING

from tests.support import bench_catalogs
from tests.support.bench import middle

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.support.bench import Bench, Cost
    from tests.support.bench_catalogs import CatalogBench, Reading

_COLUMNS = f"{'wall s':>8} {'cpu s':>8} {'cpu s/GB':>9} {'peak MB':>8} {'written MB':>11}"
_BLOBS = "fetching blobs"


def heading(bench: Bench, shape: str, place: Path, runs: int) -> str:
    """Say what was measured, and where."""
    plan = bench.plan
    return (
        f"shape {shape}: {len(plan.images)} images, {len(plan.manifests)} manifests,"
        f" {len(plan.blobs)} blobs, {bench.content_bytes / 1e6:.1f} MB\n"
        f"{_machine(place, runs)}"
    )


def table(bench: Bench, job: str, costs: Mapping[str, Sequence[Cost]]) -> str:
    """Show every contestant's medians, and how airgap's compare."""
    medians = {name: middle(found) for name, found in costs.items()}
    size = bench.content_bytes / 1e9
    lines = [f"\n{job.upper():<26}{_COLUMNS}"]
    for name, cost in medians.items():
        lines.append(
            f"{name:<26}{cost.wall:8.2f} {cost.processor:8.2f} {cost.processor / size:9.2f}"
            f" {_memory(cost):>8} {cost.written / 1e6:11.1f}"
        )
    own, *others = medians
    lines += [f"  {_compared(medians[own], medians[other], own, other)}" for other in others]
    if job == "export":
        lines += [f"  {line}" for line in _export_lines(bench, medians)]
    return "\n".join(lines)


def catalog_heading(contest: CatalogBench, what: str, place: Path, runs: int) -> str:
    """Say which catalog was read, and where."""
    sizes = ", ".join(f"{form.upper()} {size / 1e6:.1f} MB" for form, size in contest.sizes.items())
    return (
        f"catalog {what}: {contest.files} files, {contest.documents} documents, {sizes}\n"
        f"{_machine(place, runs)}"
    )


def catalog_table(contest: CatalogBench, readings: Mapping[str, Sequence[Reading]]) -> str:
    """Show every reader's medians, and how airgap compares with the parser of the same files."""
    medians = {name: bench_catalogs.middle(found) for name, found in readings.items()}
    lines = [f"\n{'READING':<26}{'seconds':>8} {'MB/s':>8} {'peak MB':>8} {'before':>8}"]
    for contestant in bench_catalogs.CONTESTANTS:
        reading = medians[contestant.name]
        lines.append(
            f"{contestant.name:<26}{reading.seconds:8.3f}"
            f" {contest.sizes[contestant.form] / 1e6 / reading.seconds:8.1f}"
            f" {reading.memory / 1e6:8.0f} {reading.memory_before / 1e6:8.0f}"
        )
    names = iter(medians)
    for own, other in zip(names, names, strict=True):
        ratio = medians[own].seconds / medians[other].seconds
        lines.append(f"  {own} takes {ratio:.2f} times as long as {other} alone")
    return "\n".join(lines)


def _machine(place: Path, runs: int) -> str:
    return (
        f"{os.cpu_count()} processors, {platform.system()} {platform.release()},"
        f" Python {platform.python_version()}, files below {place}\n"
        f"medians of {runs}, contestants taking turns"
    )


def _memory(cost: Cost) -> str:
    """Show a peak in MB; a process begins with the peak of the one that started it."""
    least = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    return f"{cost.memory / 1e6:.0f}" if cost.memory > least else f"<{least / 1e6:.0f}"


def _compared(own: Cost, other: Cost, own_name: str, other_name: str) -> str:
    if own.wall <= other.wall:
        return f"{own_name} is {other.wall / own.wall:.2f} times as fast as {other_name}"
    return f"{own_name} takes {own.wall / other.wall:.2f} times as long as {other_name}"


def _export_lines(bench: Bench, medians: Mapping[str, Cost]) -> list[str]:
    own, _, *floors = medians
    blobs, needed = medians[own].since(_BLOBS), bench.written_at_least
    slower = max(floors, key=lambda name: medians[name].wall)
    return [
        f"its blobs alone take {blobs:.2f} s, {blobs / medians[slower].wall:.2f} times as long"
        f" as {slower}, the slower of the two",
        f"it writes {medians[own].written / needed:.4f} of archive, manifests and catalog blobs",
    ]
