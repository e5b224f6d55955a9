"""What a command costs, and what airgap is measured against, on one registry in one run.

Every contestant is a process of its own (skopeo: one for each image, as people run it), so
that what the kernel counts is all it did. Knows how to measure and what to run; says nothing
about what is good.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, TypeVar

from airgap.archive.reader import ArchiveReader
from airgap.oci import media_types
from airgap.reference import ImageReference
from airgap.registry.registries_conf import RegistriesConf
from tests.support.docker_registry import docker_registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from airgap.plan import Image, Plan

_T = TypeVar("_T")

ROOT = Path(__file__).resolve().parents[2]
AIRGAP: list[str | Path] = [sys.executable, "-m", "airgap"]
CATALOG = "quay.io/lab/catalog:v1"
CONNECTIONS = 8
"""What airgap uses when nothing is said; curl gets as many."""

_KIB = 1 << 10
_OCI_TYPES = frozenset({media_types.OCI_MANIFEST, media_types.OCI_INDEX})
_HASH_AND_WRITE = """
import hashlib, sys
hasher = hashlib.sha256()
with open(sys.argv[1], "rb", 0) as source, open(sys.argv[2], "wb", 0) as target:
    while piece := source.read(1 << 20):
        hasher.update(piece)
        target.write(piece)
"""


@dataclass(frozen=True, slots=True)
class Shape:
    """An upstream's size: what scripts/lab is told, and about how many bytes come of it."""

    lab: tuple[str, ...]
    size: int


SHAPES: Mapping[str, Shape] = {
    "quick": Shape(("--preset", "small", "--padding", "40"), 12_000_000),
    "small": Shape(("--preset", "small"), 90_000_000),
    "big": Shape(("--preset", "big"), 700_000_000),
    "gigabyte": Shape(("--preset", "big", "--layer-bytes", str(3_640 * _KIB)), 1_000_000_000),
}
SPACE_NEEDED = 8
"""So many times a shape's bytes are on the disk at once, at most."""


class Failed(Exception):
    """A contestant ended with an error; its own words are the message."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a command took: seconds, bytes, and when each of airgap's stages began.

    ``written`` counts what went through write() and its like: files, not airgap's sockets.
    """

    wall: float
    processor: float
    memory: int
    written: int
    stages: Mapping[str, float] = field(default_factory=dict)

    def __add__(self, other: Cost) -> Cost:
        """Return the cost of one command after the other."""
        return Cost(
            self.wall + other.wall,
            self.processor + other.processor,
            max(self.memory, other.memory),
            self.written + other.written,
        )

    def since(self, stage: str) -> float:
        """Return the seconds from the beginning of a stage to the end of the command."""
        return self.wall - next(at for name, at in self.stages.items() if name.startswith(stage))


def measured(command: Sequence[str | Path]) -> Cost:
    """Run a command to its end and return what it cost. Raises Failed."""
    begun = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        with process.stderr as stderr:
            said = {line.strip(): time.monotonic() - begun for line in stderr}
        # A process that has ended and is not yet waited for still says what it wrote.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        wall = time.monotonic() - begun
        written = _written(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    finally:
        if process.returncode is None:
            process.kill()
            process.wait()
    if process.returncode:
        raise Failed(f"{' '.join(map(str, command))}\n" + "\n".join([*said][-5:]))
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * _KIB, written, said)


def take_turns(
    contestants: Mapping[str, Callable[[], _T]], runs: int, say: Callable[[int, str], None]
) -> dict[str, list[_T]]:
    """Return what each contestant gave in so many rounds; ``say`` hears of each turn.

    Each round begins with another one, so that none always follows the same.
    """
    given: dict[str, list[_T]] = {name: [] for name in contestants}
    order = list(contestants)
    for run in range(runs):
        for name in order:
            say(run + 1, name)
            given[name].append(contestants[name]())
        order.append(order.pop(0))
    return given


def middle(costs: Sequence[Cost]) -> Cost:
    """Return the median of each number by itself."""
    stages = [name for name in costs[0].stages if all(name in cost.stages for cost in costs)]
    return Cost(
        median(cost.wall for cost in costs),
        median(cost.processor for cost in costs),
        int(median(cost.memory for cost in costs)),
        int(median(cost.written for cost in costs)),
        {name: median(cost.stages[name] for cost in costs) for name in stages},
    )


class Bench:
    """An upstream, and all that is done with it; everything is below ``directory``.

    Making one builds the upstream on the registry at ``host`` and exports it once, which
    also warms everything up; ``plan`` is what that archive holds.
    """

    def __init__(self, directory: Path, host: str, shape: Shape) -> None:
        self._directory = directory
        self._conf = directory / "registries.conf"
        lab = [sys.executable, str(ROOT / "scripts" / "lab"), *shape.lab, "--push", host]
        measured([*lab, "--registries-conf", self._conf])
        self.archive = directory / "archive.tar"
        self._export_to(self.archive)
        with ArchiveReader(self.archive) as reader:
            self.plan: Plan = reader.plan
        self._registries = RegistriesConf.load(self._conf, {})

    @property
    def written_at_least(self) -> int:
        """The bytes an export has to write: the archive, and what planning reads, once more."""
        plan = self.plan
        catalog = {b for n in plan.catalog_images for b in plan.blobs_of(plan.images[n])}
        manifests = sum(manifest.size for manifest in plan.manifests)
        return self.archive.stat().st_size + manifests + sum(plan.blobs[b].size for b in catalog)

    @property
    def content_bytes(self) -> int:
        """All manifests and blobs, each once."""
        return self.plan.content_bytes

    def compete(self, job: str, runs: int, say: Callable[[str], None]) -> dict[str, list[Cost]]:
        """Let the contestants of "export" or "import" take turns; airgap stands first."""
        contestants = self._exports() if job == "export" else self._imports()
        return take_turns(
            contestants, runs, lambda run, name: say(f"{job}, run {run} of {runs}: {name}")
        )

    def _exports(self) -> dict[str, Callable[[], Cost]]:
        return {
            "airgap export": self._airgap_export,
            "skopeo copy, one by one": self._skopeo_export,
            "curl --parallel": self._curl,
            "SHA-256 and write": self._hash_and_write,
        }

    def _imports(self) -> dict[str, Callable[[], Cost]]:
        return {
            "airgap import": self._airgap_import,
            "skopeo copy, one by one": self._skopeo_import,
            "SHA-256 and write": self._hash_and_write,
        }

    def _airgap_export(self) -> Cost:
        return self._export_to(self._empty("export") / "archive.tar")

    def _export_to(self, archive: Path) -> Cost:
        return measured(
            [*AIRGAP, "export", CATALOG, "-o", archive, "--registries-conf", self._conf]
        )

    def _airgap_import(self) -> Cost:
        with self._new_registry() as host:
            made = self._empty("manifests")
            command = [*AIRGAP, "import", self.archive, host, "--insecure"]
            return measured([*command, "--to-manifests", made])

    def _skopeo_export(self) -> Cost:
        shared = self._empty("skopeo") / "shared"
        return self._skopeo(
            ["--dest-shared-blob-dir", shared],
            lambda number, image: (self._source(image), self._kept(number, image)),
        )

    def _skopeo_import(self) -> Cost:
        kept = self._directory / "skopeo"
        if not kept.exists():
            self._skopeo_export()
        with self._new_registry() as host:
            return self._skopeo(
                ["--src-shared-blob-dir", kept / "shared", "--dest-tls-verify=false"],
                lambda number, image: (self._kept(number, image), _pushed(host, image)),
            )

    def _skopeo(
        self, flags: Sequence[str | Path], ends: Callable[[int, Image], tuple[str, str]]
    ) -> Cost:
        """Copy image by image, as people run it: each with what the last one left to share."""
        command = ["skopeo", "--registries-conf", str(self._conf), "copy", "--quiet", "--all"]
        costs = [
            measured([*command, "--preserve-digests", *flags, *ends(number, image)])
            for number, image in enumerate(self.plan.images)
        ]
        return reduce(Cost.__add__, costs)

    def _source(self, image: Image) -> str:
        # skopeo takes a tag or a digest, never both.
        reference = ImageReference.parse(image.reference)
        return f"docker://{reference.repository}@{self.plan.manifests[image.root].digest}"

    def _kept(self, number: int, image: Image) -> str:
        """Where skopeo keeps an image: its OCI layouts take no image of Docker's types."""
        place = self._directory / "skopeo" / str(number)
        is_oci = self.plan.manifests[image.root].media_type in _OCI_TYPES
        return f"oci:{place}:image" if is_oci else f"dir:{place}"

    def _curl(self) -> Cost:
        files = self._empty("curl")
        configuration = self._directory / "curl.conf"
        configuration.write_text(
            "".join(f'url = "{url}"\noutput = "{files / name}"\n' for name, url in self._urls())
        )
        command = ["curl", "--silent", "--show-error", "--fail", "--parallel"]
        limit = ["--parallel-max", str(CONNECTIONS)]
        return measured([*command, *limit, "--config", configuration])

    def _urls(self) -> Iterator[tuple[str, str]]:
        """Yield every blob's digits with a URL that gives it, as airgap would ask for it."""
        seen: set[int] = set()
        for image in self.plan.images:
            reference = ImageReference.parse(image.reference)
            place = self._registries.candidates(reference)[0].repository
            for number in self.plan.blobs_of(image):
                if number not in seen:
                    digest = self.plan.blobs[number].digest
                    yield digest.hex, f"http://{place.host}/v2/{place.path}/blobs/{digest}"
            seen.update(self.plan.blobs_of(image))

    def _hash_and_write(self) -> Cost:
        target = self._empty("hashed") / "copy"
        return measured([sys.executable, "-I", "-S", "-c", _HASH_AND_WRITE, self.archive, target])

    @contextmanager
    def _new_registry(self) -> Iterator[str]:
        directory = self._empty("registry")
        with docker_registry(directory) as host:
            yield host
        shutil.rmtree(directory)

    def _empty(self, name: str) -> Path:
        """Return an empty directory; what an earlier run left there is removed first."""
        path = self._directory / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        return path


def _pushed(host: str, image: Image) -> str:
    return f"docker://{host}/{ImageReference.parse(image.reference).path}:bench"


def _written(process: int) -> int:
    lines = Path(f"/proc/{process}/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar:"))
