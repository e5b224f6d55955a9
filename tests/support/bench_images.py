"""Who moves a catalog's images: airgap and what it is measured against, on one registry.

Every contestant is one process or several (skopeo: one for each image, as people run it), so
that what the kernel counts is all it did. Knows what to run; says nothing about what is good.
"""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from airgap.archive.reader import ArchiveReader
from airgap.oci import media_types
from airgap.reference import ImageReference
from airgap.registry.registries_conf import RegistriesConf
from tests.support import bench_bare
from tests.support.bench import ROOT, measured, measured_together, take_turns
from tests.support.docker_registry import docker_registry, requests_served
from tests.support.slow_link import ROUND_TRIP, slow_link

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from airgap.digest import Digest
    from airgap.plan import Image, Plan
    from tests.support.bench import Command, Cost

AIRGAP: Command = [sys.executable, "-m", "airgap"]
CATALOG = "quay.io/lab/catalog:v1"
TOGETHER = 8
"""How many skopeos run at once, where several do."""

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
    """An upstream: what scripts/lab is told, and about how many bytes come of it.

    ``round_trip`` is how long the line to every registry is, in seconds; ``connections`` is how
    many curl may have at once.
    """

    lab: tuple[str, ...]
    size: int
    round_trip: float = 0
    connections: int = 8


_SMALL = ("--preset", "small")
_BIG = ("--preset", "big")
SHAPES: Mapping[str, Shape] = {
    "quick": Shape((*_SMALL, "--padding", "40"), 12_000_000),
    "small": Shape(_SMALL, 90_000_000),
    "slow": Shape(_SMALL, 90_000_000, ROUND_TRIP, 32),
    "big": Shape(_BIG, 700_000_000),
    "gigabyte": Shape((*_BIG, "--layer-bytes", str(3_640 * _KIB)), 1_000_000_000),
    "huge-layer": Shape(("--preset", "huge-layer", "--huge-layer", "4000000000"), 4_000_000_000),
}
SPACE_NEEDED = 6
"""So many times a shape's bytes are on the disk at once, at most."""


@dataclass(frozen=True, slots=True)
class Site:
    """A registry on loopback that stores below ``directory``.

    ``host`` is its own address, ``near`` the one that contestants use: the near end of the
    line to it, if that is long.
    """

    directory: Path
    host: str
    near: str

    def serving(self, work: Callable[[], Cost]) -> Cost:
        """Return what work costs, with the requests that were answered meanwhile."""
        before = requests_served(self.directory)
        cost = work()
        return replace(cost, requests=requests_served(self.directory) - before)


@contextmanager
def site(directory: Path, shape: Shape) -> Iterator[Site]:
    """Run a registry at the end of a shape's line."""
    with docker_registry(directory) as host:
        if not shape.round_trip:
            yield Site(directory, host, host)
            return
        with slow_link(host, shape.round_trip) as near:
            yield Site(directory, host, near)


class Bench:
    """A source that has been filled, and all that is done with it, below ``directory``.

    Making one fills the source and exports it once, which also warms everything up; ``plan``
    is what that archive holds.
    """

    def __init__(self, directory: Path, source: Site, shape: Shape) -> None:
        self.shape = shape
        self._directory = directory
        self._source = source
        self._conf = directory / "registries.conf"
        lab: Command = [sys.executable, ROOT / "scripts" / "lab", *shape.lab]
        ends = ["--push", source.host, "--host", source.near]
        measured([*lab, *ends, "--registries-conf", self._conf])
        self.archive = directory / "archive.tar"
        measured(self._export_to(self.archive))
        with ArchiveReader(self.archive) as reader:
            self.plan: Plan = reader.plan
            self._layout = reader.layout
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

    def compete(
        self, job: str, runs: int, say: Callable[[str], None], without: str | None = None
    ) -> dict[str, list[Cost]]:
        """Let the contestants of a job take turns; airgap stands first.

        Those whose names have ``without`` in them stay out.
        """
        contestants = {
            one.name: lambda one=one: one.run(self)
            for one in CONTESTANTS[job]
            if without is None or without not in one.name
        }
        return take_turns(
            contestants, runs, lambda run, name: say(f"{job}, run {run} of {runs}: {name}")
        )

    def airgap_export(self) -> Cost:
        with self._passing("export") as place:
            command = self._export_to(place / "archive.tar")
            return self._source.serving(lambda: measured(command))

    def _export_to(self, archive: Path) -> Command:
        return [*AIRGAP, "export", CATALOG, "-o", archive, "--registries-conf", self._conf]

    def airgap_import(self) -> Cost:
        with self._new_site() as site, self._passing("manifests") as made:
            command = [*AIRGAP, "import", self.archive, site.near, "--insecure"]
            return site.serving(lambda: measured([*command, "--to-manifests", made]))

    def skopeo_export(self, at_once: int = 1) -> Cost:
        shared = self._empty("skopeo") / "shared"
        commands = self._skopeo(
            ["--dest-shared-blob-dir", shared],
            lambda number, image: (self._original(image), self._kept(number, image)),
        )
        return self._source.serving(lambda: measured_together(commands, at_once))

    def skopeo_import(self, at_once: int = 1) -> Cost:
        kept = self._directory / "skopeo"
        if not kept.exists():
            self.skopeo_export(TOGETHER)
        with self._new_site() as site:
            commands = self._skopeo(
                ["--src-shared-blob-dir", kept / "shared", "--dest-tls-verify=false"],
                lambda number, image: (self._kept(number, image), _pushed(site, image)),
            )
            return site.serving(lambda: measured_together(commands, at_once))

    def curl_blobs(self) -> Cost:
        return self._source.serving(lambda: self._curl_to_files(self._blobs()))

    def curl_everything(self) -> Cost:
        return self._source.serving(lambda: self._curl_to_files(self._manifests() | self._blobs()))

    def curl_upload(self) -> Cost:
        """Upload every blob once: all sessions are opened first, then each takes its blob."""
        if not (self._directory / "curl").exists():
            self.curl_blobs()
        with self._new_site() as site:
            return site.serving(lambda: self._curl_to_registry(site))

    def hash_and_write(self) -> Cost:
        with self._passing("hashed") as place:
            script: Command = [sys.executable, "-I", "-S", "-c", _HASH_AND_WRITE]
            return measured([*script, self.archive, place / "copy"])

    def bare_export(self) -> Cost:
        """Get every blob to where it stands in the archive."""
        with self._passing("bare") as made:
            steps = bench_bare.export_steps(self.plan, self._layout, self._blobs())
            command = self._bare("get", steps, made / "blobs")
            return self._source.serving(lambda: measured(command))

    def bare_import(self) -> Cost:
        with self._new_site() as site:
            steps = bench_bare.import_steps(self.plan, self._layout, site.near)
            command = self._bare("put", steps, self.archive)
            return site.serving(lambda: measured(command))

    def _bare(self, job: str, steps: Iterable[str], file: Path) -> Command:
        path = self._directory / "steps"
        path.write_text("".join(f"{step}\n" for step in steps))
        return [sys.executable, "-I", "-S", bench_bare.PROGRAM, job, path, file]

    def _skopeo(
        self, flags: Sequence[str | Path], ends: Callable[[int, Image], tuple[str, str]]
    ) -> list[Command]:
        """Return a command for each image; each finds what the last ones left to share."""
        command: Command = ["skopeo", "--registries-conf", self._conf, "copy", "--quiet", "--all"]
        return [
            [*command, "--preserve-digests", *flags, *ends(number, image)]
            for number, image in enumerate(self.plan.images)
        ]

    def _original(self, image: Image) -> str:
        # skopeo takes a tag or a digest, never both.
        reference = ImageReference.parse(image.reference)
        return f"docker://{reference.repository}@{self.plan.manifests[image.root].digest}"

    def _kept(self, number: int, image: Image) -> str:
        """Where skopeo keeps an image: its OCI layouts take no image of Docker's types."""
        place = self._directory / "skopeo" / str(number)
        is_oci = self.plan.manifests[image.root].media_type in _OCI_TYPES
        return f"oci:{place}:image" if is_oci else f"dir:{place}"

    def _curl_to_files(self, urls: Mapping[Digest, str]) -> Cost:
        """Get URLs, each to a file that is called as its content's digits."""
        files = self._empty("curl")
        return self._curl(
            (f'url = "{url}"\noutput = "{files / name.hex}"\n' for name, url in urls.items()),
            "--header",
            f"Accept: {', '.join(media_types.ACCEPTED)}",
        )

    def _curl_to_registry(self, site: Site) -> Cost:
        """Put the files that were got to where images first want them."""
        sessions = self._directory / "sessions"
        opening = self._curl(
            (
                f'url = "http://{site.near}/v2/{_path(image)}/blobs/uploads/"\n'
                f'output = "{os.devnull}"\n'
                for _, image in self._first_wanted()
            ),
            *("--request", "POST", "--data", ""),
            *("--write-out", "%{urlnum} %header{location}\n"),
            output=sessions,
        )
        locations = dict(line.split(" ", 1) for line in sessions.read_text().splitlines())
        filling = self._curl(
            (
                f'upload-file = "{self._directory / "curl" / digest.hex}"\n'
                f'url = "{locations[str(number)]}&digest={digest}"\n'
                f'output = "{os.devnull}"\n'
                for number, (digest, _) in enumerate(self._first_wanted())
            ),
            *("--header", "Expect:"),
        )
        return opening + filling

    def _curl(self, transfers: Iterable[str], *flags: str, output: Path | None = None) -> Cost:
        configuration = self._directory / "curl.conf"
        configuration.write_text("".join(transfers))
        command: Command = ["curl", "--silent", "--show-error", "--fail", "--globoff", *flags]
        at_once = ["--parallel", "--parallel-max", str(self.shape.connections)]
        return measured([*command, *at_once, "--config", configuration], output)

    def _blobs(self) -> dict[Digest, str]:
        """Return a URL for each blob, as airgap would ask for it."""
        return {
            digest: f"{self._place(image)}/blobs/{digest}" for digest, image in self._first_wanted()
        }

    def _manifests(self) -> dict[Digest, str]:
        """Return a URL for each manifest."""
        plan = self.plan
        return {
            digest: f"{self._place(image)}/manifests/{digest}"
            for image in plan.images
            for digest in (plan.manifests[number].digest for number in plan.manifests_of(image))
        }

    def _first_wanted(self) -> Iterator[tuple[Digest, Image]]:
        """Yield every blob once, with the first image that wants it."""
        seen: set[int] = set()
        for image in self.plan.images:
            for number in self.plan.blobs_of(image):
                if number not in seen:
                    seen.add(number)
                    yield self.plan.blobs[number].digest, image

    def _place(self, image: Image) -> str:
        """Return the URL of the repository that an image comes from."""
        reference = ImageReference.parse(image.reference)
        place = self._registries.candidates(reference)[0].repository
        return f"http://{place.host}/v2/{place.path}"

    @contextmanager
    def _new_site(self) -> Iterator[Site]:
        """Run a registry that is empty, and forget what it took."""
        with self._passing("registry") as directory, site(directory, self.shape) as new:
            yield new

    @contextmanager
    def _passing(self, name: str) -> Iterator[Path]:
        """Give an empty directory, and remove it with all that came into it."""
        directory = self._empty(name)
        yield directory
        shutil.rmtree(directory)

    def _empty(self, name: str) -> Path:
        """Return an empty directory; what an earlier run left there is removed first."""
        path = self._directory / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        return path


def _path(image: Image) -> str:
    return ImageReference.parse(image.reference).path


def _pushed(site: Site, image: Image) -> str:
    return f"docker://{site.near}/{_path(image)}:bench"


@dataclass(frozen=True, slots=True)
class Contestant:
    """Who does a job, and how; ``run`` measures it once."""

    name: str
    run: Callable[[Bench], Cost]


EXPORT = "airgap export"
IMPORT = "airgap import"
ONE_BY_ONE = "skopeo, one by one"
SEVERAL = f"skopeo, {TOGETHER} at once"
CURL_BLOBS = "curl, blobs"
CURL_EVERYTHING = "curl, blobs and manifests"
CURL_UPLOAD = "curl, uploads of blobs"
HASH = "SHA-256 and write"
BARE_EXPORT = "bare Python, blobs"
BARE_IMPORT = "bare Python"

CONTESTANTS: Mapping[str, tuple[Contestant, ...]] = {
    "export": (
        Contestant(EXPORT, Bench.airgap_export),
        Contestant(ONE_BY_ONE, Bench.skopeo_export),
        Contestant(SEVERAL, lambda bench: bench.skopeo_export(TOGETHER)),
        Contestant(CURL_BLOBS, Bench.curl_blobs),
        Contestant(CURL_EVERYTHING, Bench.curl_everything),
        Contestant(HASH, Bench.hash_and_write),
        Contestant(BARE_EXPORT, Bench.bare_export),
    ),
    "import": (
        Contestant(IMPORT, Bench.airgap_import),
        Contestant(ONE_BY_ONE, Bench.skopeo_import),
        Contestant(SEVERAL, lambda bench: bench.skopeo_import(TOGETHER)),
        Contestant(CURL_UPLOAD, Bench.curl_upload),
        Contestant(BARE_IMPORT, Bench.bare_import),
    ),
}
