"""What scripts/bench prints: a table of medians, and the ratios that matter."""

from __future__ import annotations

import os
import platform
import resource
from typing import TYPE_CHECKING

from tests.support.bench import middle

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.support.bench import Bench, Cost

_COLUMNS = f"{'wall s':>8} {'cpu s':>8} {'cpu s/GB':>9} {'peak MB':>8} {'written MB':>11}"
_BLOBS = "fetching blobs"


def heading(bench: Bench, shape: str, place: Path, runs: int) -> str:
    """Say what was measured, and where."""
    plan = bench.plan
    return (
        f"shape {shape}: {len(plan.images)} images, {len(plan.manifests)} manifests,"
        f" {len(plan.blobs)} blobs, {bench.content_bytes / 1e6:.1f} MB\n"
        f"{os.cpu_count()} processors, {platform.system()} {platform.release()},"
        f" Python {platform.python_version()}, files below {place}\n"
        f"medians of {runs}, contestants taking turns"
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
