"""Where every byte of an archive stands: a pure function of the plan.

The head (``oci-layout``, the inventory, the place for signatures, ``index.json``, all
manifests) comes first and never changes; a place for each blob follows, in the plan's order.
Nothing here reads or writes a file.
"""

from __future__ import annotations

import json
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airgap import limits
from airgap.archive import tar

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airgap.digest import Digest
    from airgap.plan import Plan

LAYOUT_NAME = "oci-layout"
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}\n'
INVENTORY_NAME = "airgap.json"
SIGNATURE_NAME = "airgap.json.sig"
UNSIGNED = b"\n" * limits.SIGNATURE
INDEX_NAME = "index.json"

INVENTORY_OFFSET = tar.BLOCK + tar.padded(len(LAYOUT)) + tar.BLOCK
"""Where an archive's inventory begins; the header before it tells its size."""


def present(digest: Digest) -> str:
    """Return the entry name of content that is there."""
    return f"blobs/{digest.algorithm}/{digest.hex}"


def absent(digest: Digest) -> str:
    """Return the entry name of the place kept for content that has not arrived."""
    return f"absent/{digest.algorithm}/{digest.hex}"


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the tar: its header at ``offset``, ``size`` bytes of content after it."""

    name: str
    offset: int
    size: int

    @property
    def content(self) -> int:
        """Where the content begins."""
        return self.offset + tar.BLOCK

    @property
    def end(self) -> int:
        """Where the next entry begins."""
        return self.content + tar.padded(self.size)

    @property
    def header(self) -> bytes:
        """The block at ``offset``."""
        return tar.header(self.name, self.size)


class Layout:
    """The places of one archive.

    ``inventory_size`` is in bytes; ``index`` is the content of ``index.json``. ``size`` is
    the size of the whole file, ``content_end`` where its end blocks begin.
    """

    def __init__(self, plan: Plan, inventory_size: int, index: bytes) -> None:
        self._plan = plan
        self.index = index
        layout = Entry(LAYOUT_NAME, 0, len(LAYOUT))
        self.inventory = Entry(INVENTORY_NAME, layout.end, inventory_size)
        self.signature = Entry(SIGNATURE_NAME, self.inventory.end, limits.SIGNATURE)
        index_entry = Entry(INDEX_NAME, self.signature.end, len(index))
        self.documents = (
            (layout, LAYOUT),
            (self.inventory, None),
            (self.signature, None),
            (index_entry, index),
        )
        self._manifests, end = _offsets((m.size for m in plan.manifests), index_entry.end)
        self._blobs, end = _offsets((b.size for b in plan.blobs), end)
        self.content_end = end
        self.size = end + len(tar.END)

    def manifest(self, number: int) -> Entry:
        """Return the entry of a manifest."""
        manifest = self._plan.manifests[number]
        return Entry(present(manifest.digest), self._manifests[number], manifest.size)

    def blob(self, number: int) -> Entry:
        """Return the entry of a blob that is there."""
        blob = self._plan.blobs[number]
        return Entry(present(blob.digest), self._blobs[number], blob.size)

    def hole(self, number: int) -> Entry:
        """Return the entry of a blob that is not there: the same place, another name."""
        blob = self._plan.blobs[number]
        return Entry(absent(blob.digest), self._blobs[number], blob.size)


def index_document(plan: Plan, inventory: Digest) -> bytes:
    """Return ``index.json``: a descriptor for every image, under the name the catalog uses.

    The inventory's digest stands in it, so that damage to the inventory shows.
    """
    descriptors = (_json(_descriptor(plan, number)) for number in range(len(plan.images)))
    return b"".join(
        (
            b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json",',
            b'"annotations":{"airgap.inventory":"%s"},"manifests":[\n' % str(inventory).encode(),
            b",\n".join(descriptors),
            b"\n]}\n",
        )
    )


def _descriptor(plan: Plan, number: int) -> dict[str, object]:
    image = plan.images[number]
    root = plan.manifests[image.root]
    return {
        "mediaType": root.media_type,
        "digest": str(root.digest),
        "size": root.size,
        "annotations": {
            # skopeo and podman look for the first name, containerd for the second.
            "org.opencontainers.image.ref.name": image.reference,
            "io.containerd.image.name": image.reference,
        },
    }


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _offsets(sizes: Iterable[int], start: int) -> tuple[array[int], int]:
    offsets, end = array("q"), start
    for size in sizes:
        offsets.append(end)
        end += tar.BLOCK + tar.padded(size)
    return offsets, end
