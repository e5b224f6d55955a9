"""What airgap shall be beside the others: ratios of one run, which hold on any machine.

Only says what is asked and what was measured; whoever reads it says whether that is enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.bench_images import (
    CURL_BLOBS,
    CURL_EVERYTHING,
    CURL_UPLOAD,
    EXPORT,
    HASH,
    IMPORT,
    ONE_BY_ONE,
    SEVERAL,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.support.bench import Cost

    Medians = Mapping[str, Cost]

_BLOBS = "fetching blobs"
_LARGE = ("big", "gigabyte", "huge-layer")
_EVERY = ("quick", "small", "slow", *_LARGE)


@dataclass(frozen=True, slots=True)
class Target:
    """One number, for some shapes: ``number`` makes it of medians and the content's GB.

    It can be told when all whom it ``needs`` took part.
    """

    shapes: tuple[str, ...]
    what: str
    bound: str
    needs: tuple[str, ...]
    number: Callable[[Medians, float], float]


def reached(shape: str, medians: Medians, size: int) -> Iterator[str]:
    """Yield a line for each target of a shape that can be told; ``size`` is in bytes."""
    for target in TARGETS:
        if shape in target.shapes and set(target.needs) <= set(medians):
            number = target.number(medians, size / 1e9)
            yield f"{target.what}: {number:.2f} (target: {target.bound})"


def _longer(own: str, other: str) -> Callable[[Medians, float], float]:
    return lambda medians, _: medians[own].wall / medians[other].wall


def _faster(own: str, other: str) -> Callable[[Medians, float], float]:
    return lambda medians, _: medians[other].wall / medians[own].wall


def _blob_phase(medians: Medians, _: float) -> float:
    slower = max(medians[CURL_BLOBS].wall, medians[HASH].wall)
    return medians[EXPORT].since(_BLOBS) / slower


def _processor(own: str) -> Callable[[Medians, float], float]:
    return lambda medians, gigabytes: medians[own].processor / gigabytes


def _memory(own: str) -> Callable[[Medians, float], float]:
    return lambda medians, _: medians[own].memory / 1e6


TARGETS = (
    Target(
        _LARGE,
        f"its blobs alone, in times of the slower of {CURL_BLOBS!r} and {HASH!r}",
        "at most 1.15",
        (EXPORT, CURL_BLOBS, HASH),
        _blob_phase,
    ),
    Target(
        ("small",),
        f"in times of {CURL_EVERYTHING!r}",
        "at most 1.5",
        (EXPORT, CURL_EVERYTHING),
        _longer(EXPORT, CURL_EVERYTHING),
    ),
    Target(
        ("slow",),
        f"times as fast as {ONE_BY_ONE!r}",
        "at least 25",
        (EXPORT, ONE_BY_ONE),
        _faster(EXPORT, ONE_BY_ONE),
    ),
    Target(
        ("slow",),
        f"times as fast as {SEVERAL!r}",
        "at least 1",
        (EXPORT, SEVERAL),
        _faster(EXPORT, SEVERAL),
    ),
    Target(
        ("big",),
        f"in times of {CURL_UPLOAD!r}",
        "at most 1.2",
        (IMPORT, CURL_UPLOAD),
        _longer(IMPORT, CURL_UPLOAD),
    ),
    Target(
        ("small",),
        f"times as fast as {ONE_BY_ONE!r}",
        "at least 6",
        (IMPORT, ONE_BY_ONE),
        _faster(IMPORT, ONE_BY_ONE),
    ),
    Target(_LARGE, "processor seconds a GB", "below 2.5", (EXPORT,), _processor(EXPORT)),
    Target(_LARGE, "processor seconds a GB", "below 2", (IMPORT,), _processor(IMPORT)),
    Target(_EVERY, "peak memory in MB", "below 150", (EXPORT,), _memory(EXPORT)),
    Target(_EVERY, "peak memory in MB", "below 150", (IMPORT,), _memory(IMPORT)),
)
