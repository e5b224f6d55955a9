"""What reading a file-based catalog costs, beside the parsers that do part of it.

Every contestant reads in a process of its own, which counts the reading alone, without its
start, and the memory that was its own. All read the same content: files of YAML, and the same
documents as files of JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import yaml

from airgap.catalog import documents, filebased
from airgap.catalog.tree import LocalTree
from airgap.oci.rootfs import FileTree, Layer
from tests.support import bench_synthetic
from tests.support.bench import ROOT, Failed, take_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_ENDINGS = (".yaml", ".yml")
_INDENT = 4
"""As ``opm`` writes JSON."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What reading took: seconds, and the process's peak memory in bytes, also before."""

    seconds: float
    memory: int
    memory_before: int


@dataclass(frozen=True, slots=True)
class Contestant:
    """Who reads which files; ``reader`` is a key of ``READERS``."""

    name: str
    reader: str
    form: str


CONTESTANTS = (
    Contestant("airgap, YAML", "airgap", "yaml"),
    Contestant("PyYAML's C loader", "yaml", "yaml"),
    Contestant("airgap, JSON", "airgap", "json"),
    Contestant("Python's json", "json", "json"),
)


class CatalogBench:
    """A catalog as YAML and as JSON, below ``directory``, and who reads it.

    ``source`` is a directory, or a tar archive of one, with a file-based catalog in YAML; None
    stands for one that is made up. Raises Failed when there is no such catalog.
    """

    def __init__(self, directory: Path, source: Path | None) -> None:
        self._directory = directory
        self.files = self.documents = 0
        self.sizes: dict[str, int] = {"yaml": 0, "json": 0}
        for form in self.sizes:
            (directory / form).mkdir()
        for raw in _given(source) if source else bench_synthetic.files():
            self._keep("yaml", raw)
            self._keep("json", self._converted(raw))
            self.files += 1
        if not self.files:
            raise Failed(f"{source}: no file of YAML in it")

    def compete(self, runs: int, say: Callable[[str], None]) -> dict[str, list[Reading]]:
        """Let the contestants take turns."""
        readers = {
            contestant.name: lambda contestant=contestant: self._read(contestant)
            for contestant in CONTESTANTS
        }
        return take_turns(readers, runs, lambda run, name: say(f"run {run} of {runs}: {name}"))

    def _read(self, contestant: Contestant) -> Reading:
        command = [sys.executable, "-m", __name__, contestant.reader]
        files = self._directory / contestant.form
        done = subprocess.run([*command, files], cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise Failed(f"{contestant.name}: " + "\n".join(done.stderr.splitlines()[-5:]))
        return Reading(**json.loads(done.stdout))

    def _keep(self, form: str, raw: bytes) -> None:
        (self._directory / form / f"{self.files:06}.{form}").write_bytes(raw)
        self.sizes[form] += len(raw)

    def _converted(self, raw: bytes) -> bytes:
        if raw.lstrip().startswith(b"{"):
            raise Failed("this catalog is JSON: give one in YAML")
        texts = []
        for document in documents.read([raw]):
            if isinstance(document, documents.Unreadable):
                raise Failed(f"line {document.line}: {document.why}")
            if document.value is not None:
                texts.append(json.dumps(document.value, ensure_ascii=False, indent=_INDENT))
        self.documents += len(texts)
        return "\n".join([*texts, ""]).encode()


def middle(readings: Sequence[Reading]) -> Reading:
    """Return the median of each number by itself."""
    return Reading(
        median(reading.seconds for reading in readings),
        int(median(reading.memory for reading in readings)),
        int(median(reading.memory_before for reading in readings)),
    )


def _given(source: Path) -> Iterator[bytes]:
    tree = (
        LocalTree(source)
        if source.is_dir()
        else FileTree.scan([Layer(source.name, lambda: source.open("rb"))])
    )
    paths = [file.path for file in tree.files() if file.path.endswith(_ENDINGS)]
    for _, pieces in tree.read_all(paths):
        yield b"".join(pieces)


def _by_airgap(directory: Path) -> None:
    catalog = filebased.read(LocalTree(directory), "")
    if catalog.unreadable:
        sys.exit(catalog.unreadable[0])


def _by_yaml(directory: Path) -> None:
    for path in sorted(directory.iterdir()):
        with path.open("rb") as file:
            for _ in yaml.load_all(file, Loader=yaml.CSafeLoader):
                pass


def _by_json(directory: Path) -> None:
    decoder = json.JSONDecoder()
    for path in sorted(directory.iterdir()):
        text = path.read_text("utf-8")
        at = 0
        while at < len(text):
            _, end = decoder.raw_decode(text, at)
            at = end + 1


READERS: Mapping[str, Callable[[Path], None]] = {
    "airgap": _by_airgap,
    "yaml": _by_yaml,
    "json": _by_json,
}


def peak_memory() -> int:
    """Return this process's peak memory; what the kernel says of children begins with ours."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))


def _main(reader: str, directory: str) -> None:
    before = peak_memory()
    begun = time.perf_counter()
    READERS[reader](Path(directory))
    seconds = time.perf_counter() - begun
    print(json.dumps(asdict(Reading(seconds, peak_memory(), before))))


if __name__ == "__main__":
    _main(*sys.argv[1:])
