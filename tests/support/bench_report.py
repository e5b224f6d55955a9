"""What scripts/bench prints: a table of medians, and the ratios that matter."""

from __future__ import annotations

import os
import platform
import resource
from typing import TYPE_CHECKING

from tests.support import bench_catalogs, bench_plan, bench_targets
from tests.support.bench import middle

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.support.bench import Cost
    from tests.support.bench_catalogs import CatalogBench, Reading
    from tests.support.bench_images import Bench
    from tests.support.bench_plan import Step

_COLUMNS = (
    f"{'wall s':>8} {'cpu s':>8} {'cpu s/GB':>9} {'peak MB':>8} {'written MB':>11} {'requests':>9}"
)


def heading(bench: Bench, shape: str, place: Path, runs: int) -> str:
    """Say what was measured, and where."""
    plan = bench.plan
    line = f", {bench.shape.round_trip * 1000:.0f} ms away" if bench.shape.round_trip else ""
    return (
        f"shape {shape}: {len(plan.images)} images, {len(plan.manifests)} manifests,"
        f" {len(plan.blobs)} blobs, {bench.content_bytes / 1e6:.1f} MB{line}\n"
        f"curl has {bench.shape.connections} connections\n"
        f"{_machine(place, runs)}"
    )


def table(bench: Bench, shape: str, job: str, costs: Mapping[str, Sequence[Cost]]) -> str:
    """Show every contestant's medians, how airgap's compare, and what they should be."""
    medians = {name: middle(found) for name, found in costs.items()}
    size = bench.content_bytes
    lines = [f"\n{job.upper():<26}{_COLUMNS}"]
    for name, cost in medians.items():
        lines.append(
            f"{name:<26}{cost.wall:8.2f} {cost.processor:8.2f} {cost.processor / size * 1e9:9.2f}"
            f" {_memory(cost):>8} {cost.written / 1e6:11.1f} {cost.requests or '':>9}"
        )
    own, *others = medians
    lines += [f"  {_compared(medians[own], medians[other], own, other)}" for other in others]
    if job == "export":
        ratio = medians[own].written / bench.written_at_least
        lines.append(f"  it writes {ratio:.4f} of archive, manifests and catalog blobs")
    lines += [f"  {line}" for line in bench_targets.reached(shape, medians, size)]
    return "\n".join(lines)


def plan_heading(images: int, place: Path, runs: int) -> str:
    """Say which plan was made, and where."""
    return f"a plan of {images} images without content\n{_machine(place, runs)}"


def plan_table(runs: Sequence[Sequence[Step]]) -> str:
    """Show what every step took, and what all of them may take."""
    start, *steps = bench_plan.middle(runs)
    lines = [f"\n{'PLAN':<26}{'seconds':>8} {'peak MB':>8}"]
    lines += [f"{s.name:<26}{s.seconds:8.2f} {s.memory / 1e6:8.0f}" for s in (start, *steps)]
    seconds = sum(step.seconds for step in steps)
    peak = max(step.memory for step in steps) / 1e6
    lines.append(f"  seconds without starting: {seconds:.2f} (target: below 20)")
    lines.append(f"  peak memory in MB: {peak:.0f} (target: below 200)")
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
