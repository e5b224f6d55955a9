"""Plans with real content, in memory: what the archive and the transfer are tested with."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airgap.archive.state import State
from airgap.archive.work import Work, work_path
from airgap.archive.writer import ArchiveWriter, write_head
from airgap.crew import AtMost
from airgap.digest import Digest, digest_of
from airgap.oci import graph, media_types
from airgap.oci.model import Descriptor
from airgap.plan import Blob, Bundle, Pin, Plan, Question, Reason, Wanted, in_order, make_plan
from airgap.progress import SILENT
from airgap.transfer import Outcome, transfer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass
class Content:
    """Content by digest, and images made of it; also a source for a transfer."""

    by_digest: dict[Digest, bytes] = field(default_factory=dict)
    images: dict[str, Descriptor] = field(default_factory=dict)
    holes: dict[str, Reason] = field(default_factory=dict)
    absent: set[Digest] = field(default_factory=set)
    asked: list[tuple[Digest, int]] = field(default_factory=list)

    def keep(self, data: bytes) -> dict[str, Any]:
        digest = digest_of(data)
        self.by_digest[digest] = data
        return {"mediaType": "application/octet-stream", "digest": str(digest), "size": len(data)}

    def manifest(self, config: bytes, *layers: bytes) -> Descriptor:
        return self._document(
            media_types.OCI_MANIFEST,
            config=self.keep(config),
            layers=[self.keep(layer) for layer in layers],
        )

    def index(self, *children: Descriptor) -> Descriptor:
        entries = [
            {"mediaType": c.media_type, "digest": str(c.digest), "size": c.size} for c in children
        ]
        return self._document(media_types.OCI_INDEX, manifests=entries)

    def _document(self, media_type: str, **fields: Any) -> Descriptor:
        document = {"schemaVersion": 2, "mediaType": media_type, **fields}
        record = self.keep(json.dumps(document).encode())
        return Descriptor(Digest.parse(record["digest"]), record["size"], media_type)

    def plan(self, catalog: str = "quay.io/lab/catalog:v1") -> Plan:
        """Return the plan for all images; the one called ``catalog`` is the catalog."""
        wanted = [Wanted(catalog, (), ("sqlite", "bundles.db", self._pin(catalog)))]
        names = [name for name in (*self.images, *self.holes) if name != catalog]
        wanted += [Wanted(name, (f"bundle-of-{n}",)) for n, name in enumerate(names)]
        bundles = [Bundle(f"bundle-of-{n}", (f"package-{n % 2}",)) for n in range(len(names))]
        question = Question((catalog,), "linux/amd64")
        return make_plan(question, bundles, ((w, self._answer(w)) for w in in_order(wanted)))

    def _pin(self, catalog: str) -> Pin | None:
        image = self.images.get(catalog)
        return None if image is None else Pin(catalog, image.digest)

    def _answer(self, want: Wanted) -> list[graph.Node] | Reason:
        if want.reference in self.holes:
            return self.holes[want.reference]
        return graph.walk(self.images[want.reference], lambda d: self.by_digest[d.digest])

    def lane(self, blob: Blob) -> str:
        return "content"

    def blob(self, blob: Blob, offset: int) -> Iterator[bytes]:
        self.asked.append((blob.digest, offset))
        if blob.digest in self.absent:
            from airgap.errors import NotFound

            raise NotFound(f"{blob.digest}: not here")
        data = self.by_digest[blob.digest]
        for start in range(offset, len(data), 1 << 20):
            yield data[start : start + (1 << 20)]


def some_content(*, seed: int = 1, images: int = 4, layer_size: int = 3000) -> Content:
    """Return images that share a layer, one of them with two platforms."""
    import random

    chance = random.Random(seed)
    content = Content()
    shared = chance.randbytes(layer_size)

    def image(name: str) -> Descriptor:
        own = chance.randbytes(chance.randrange(1, layer_size))
        return content.manifest(f'{{"name":"{name}"}}'.encode(), shared, own)

    content.images["quay.io/lab/catalog:v1"] = image("catalog")
    for n in range(images - 1):
        content.images[f"quay.io/lab/image-{n}:v1"] = image(f"image-{n}")
    content.images["quay.io/lab/both:v1"] = content.index(image("amd64"), image("arm64"))
    return content


def begin(path: Path, content: Content, plan: Plan | None = None) -> None:
    """Write the head of an archive for all content."""
    plan = plan or content.plan()
    work = Work(work_path(path))
    for manifest in plan.manifests:
        work.keep(manifest.digest, content.by_digest[manifest.digest])
    write_head(path, plan, work)
    work.remove()


def fill(path: Path, content: Content, *, workers: int = 2, believe: bool = True) -> Outcome:
    """Run the transfer that completes an archive, and give it its name."""
    stop = threading.Event()
    state = State(path)
    try:
        with ArchiveWriter(path, state, stop, believe=believe) as archive:
            outcome = transfer(
                archive.plan, archive.plan.images, content, archive,
                lanes=AtMost(workers), progress=SILENT, stop=stop,
                skip=frozenset(range(len(archive.plan.blobs))) - frozenset(archive.missing),
            )  # fmt: skip
            archive.finish()
    finally:
        state.release(finished=True)
    return outcome


def archive_of(path: Path, content: Content, *, workers: int = 2) -> Outcome:
    """Make a whole archive."""
    begin(path, content)
    return fill(path, content, workers=workers)
