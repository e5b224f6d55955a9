"""What a large plan costs by itself: made, written, laid out and read back, without content.

All steps are taken in one process, which has the whole program in memory as an export has,
and tells after each step how long it took and what its peak of memory was by then.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from airgap.archive import inventory
from airgap.archive.layout import Layout, index_document
from airgap.digest import Digest, Hasher
from airgap.oci import media_types
from airgap.oci.graph import Node
from airgap.oci.model import Descriptor
from airgap.plan import Bundle, Pin, Plan, Question, Wanted, in_order, make_plan
from tests.support.bench import ROOT, Failed
from tests.support.bench_catalogs import peak_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

CATALOG = "quay.io/lab/catalog:v1"

_PLATFORMS = 3
"""An image is an index and a manifest for each of them."""
_OWN_LAYERS = 2
_SHARED_LAYERS = 3
"""Every image adds one to the layers that are shared: 10,000 images have 100,000 blobs."""
_IMAGES_OF_A_BUNDLE = 5
_BUNDLES_OF_A_PACKAGE = 10


@dataclass(frozen=True, slots=True)
class Step:
    """What a step took: seconds, and the process's peak memory in bytes at its end."""

    name: str
    seconds: float
    memory: int


def measured_plan(images: int, directory: Path) -> list[Step]:
    """Take all steps in a process of their own; it keeps the inventory in ``directory``.

    Raises Failed.
    """
    command = [sys.executable, "-m", __name__, str(images), str(directory / "airgap.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise Failed("\n".join(done.stderr.splitlines()[-5:]))
    return [Step(**record) for record in json.loads(done.stdout)]


def middle(runs: Sequence[Sequence[Step]]) -> list[Step]:
    """Return the median of each number of each step."""
    return [
        Step(
            steps[0].name,
            median(step.seconds for step in steps),
            int(median(step.memory for step in steps)),
        )
        for steps in zip(*runs, strict=True)
    ]


def synthetic(images: int) -> Plan:
    """Return the plan of so many images; every one has an index and three platforms."""
    names = {f"operator-{n}.v1.0.0": n for n in range(images // _IMAGES_OF_A_BUNDLE + 1)}
    bundles = (
        Bundle(name, (f"package-{number // _BUNDLES_OF_A_PACKAGE}",))
        for name, number in names.items()
    )
    texts = list(names)
    numbers = {}
    for number in range(1, images):
        root = _digest(f"index {number}")
        numbers[f"registry.example.com/operators/operator-{number % 500}@{root}"] = number
    catalog = ("file-based", "configs", Pin(CATALOG, _digest("index 0")))
    wanted = [
        Wanted(CATALOG, catalog=catalog),
        *(Wanted(ref, (texts[n // _IMAGES_OF_A_BUNDLE],)) for ref, n in numbers.items()),
    ]
    answers = ((want, _graph(images, numbers.get(want.reference, 0))) for want in in_order(wanted))
    return make_plan(Question((CATALOG,), "linux/amd64"), bundles, answers)


def _graph(images: int, number: int) -> list[Node]:
    children = [_platform(images, _PLATFORMS * number + n) for n in range(_PLATFORMS)]
    index = Descriptor(_digest(f"index {number}"), 1_500, media_types.OCI_INDEX)
    return [*children, Node(index, tuple(child.descriptor.digest for child in children), ())]


def _platform(images: int, number: int) -> Node:
    own = [_blob(f"layer {number} {n}", 20_000_000) for n in range(_OWN_LAYERS)]
    first = number * _SHARED_LAYERS
    shared = [_blob(f"base {n % images}", 80_000_000) for n in range(first, first + _SHARED_LAYERS)]
    manifest = Descriptor(_digest(f"manifest {number}"), 1_200, media_types.OCI_MANIFEST)
    return Node(manifest, (), (_blob(f"config {number}", 7_000), *shared, *own))


def _blob(name: str, size: int) -> Descriptor:
    return Descriptor(_digest(name), size, "application/octet-stream")


def _digest(name: str) -> Digest:
    return Digest("sha256", sha256(name.encode()).hexdigest())


class _Steps:
    """What one process does, step by step."""

    def __init__(self, images: int, file: Path) -> None:
        self._images = images
        self._file = file
        self._digest = _digest("")
        self._plan: Plan | None = None

    def plan(self) -> None:
        self._plan = synthetic(self._images)

    def write(self) -> None:
        hasher = Hasher()
        with self._file.open("wb") as file:
            for line in inventory.lines(self._known):
                hasher.update(line)
                file.write(line)
        self._digest = hasher.digest()

    def lay_out(self) -> None:
        plan = self._known
        index = index_document(plan, self._digest)
        layout = Layout(plan, self._file.stat().st_size, index)
        for number in range(len(plan.manifests)):
            assert layout.manifest(number).header
        for number in range(len(plan.blobs)):
            assert layout.blob(number).absent.header

    def read(self) -> None:
        # Nobody has both: an export that goes on, and an import, have what they read.
        self._plan = None
        with self._file.open("rb") as file:
            self._plan = inventory.parse(file, str(self._file))

    def check(self) -> None:
        """Raise Failed unless what was read is what was written."""
        hasher = Hasher()
        for line in inventory.lines(self._known):
            hasher.update(line)
        if hasher.digest() != self._digest:
            raise Failed("another plan was read than was written")

    @property
    def _known(self) -> Plan:
        assert self._plan is not None
        return self._plan


def _timed(name: str, work: Callable[[], None]) -> Step:
    begun = time.perf_counter()
    work()
    return Step(name, time.perf_counter() - begun, peak_memory())


def _taken(images: int, file: Path) -> Iterator[Step]:
    yield _timed("starting", _start)
    steps = _Steps(images, file)
    yield _timed("planning", steps.plan)
    yield _timed("inventory written", steps.write)
    yield _timed("layout, all headers", steps.lay_out)
    yield _timed("inventory read", steps.read)
    steps.check()


def _start() -> None:
    importlib.import_module("airgap.cli.main")


if __name__ == "__main__":
    print(json.dumps([asdict(step) for step in _taken(int(sys.argv[1]), Path(sys.argv[2]))]))
