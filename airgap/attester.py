"""Attest: a receipt for an archive, from a registry as it stands."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from airgap import mapping
from airgap.archive.reader import ArchiveReader
from airgap.crew import in_parallel
from airgap.delivery import Delivery
from airgap.errors import HOLES, IntegrityError, NotFound, RegistryError, Unreachable
from airgap.plan import MISSING_BLOB, Missing, Reason, missing, plan_holes
from airgap.progress import SILENT
from airgap.receipt import ASKED
from airgap.reference import DestinationPrefix
from airgap.registry.access import Access
from airgap.storage import replace_file

if TYPE_CHECKING:
    from pathlib import Path

    from airgap.archive.reader import Paths
    from airgap.digest import Digest
    from airgap.mapping import Target
    from airgap.plan import Image, Plan
    from airgap.progress import Progress
    from airgap.reference import Repository
    from airgap.registry.account import HostActivity
    from airgap.registry.client import RegistryClient


@dataclass(frozen=True)
class ReceiptResult:
    """What was found at a destination; ``images`` are those that are there whole.

    ``missing`` are the others, with what each lacks. ``file`` is the receipt.
    """

    archive: Path
    id: Digest
    destination: str
    file: Path
    images: int
    missing: tuple[Missing, ...]
    hosts: tuple[HostActivity, ...]

    @property
    def exit_status(self) -> int:
        """3 when something is missing, else 0."""
        return HOLES if self.missing else 0


def make_receipt(
    archive: Paths,
    destination: str,
    output: Path,
    *,
    access: Access | None = None,
    max_components: int = mapping.DEFAULT_COMPONENTS,
    progress: Progress = SILENT,
    stop: threading.Event | None = None,
) -> ReceiptResult:
    """Ask a registry for all that an archive names, and write down what is there.

    Every manifest is read and hashed, the top one by its tag; of every blob the length is
    asked for. Nothing is written to the registry. Of an archive in volumes one is enough.

    Raises UsageError, Busy, ArchiveError, StorageError, Interrupted, and Unreachable when the
    registry is down.
    """
    prefix = DestinationPrefix.parse(destination)
    stop = stop or threading.Event()
    with ArchiveReader(archive) as reader:
        reader.require_sound_head()
        plan, identity = reader.plan, reader.id
    delivery = Delivery.to(prefix, plan, identity, max_components)
    with (access or Access()).connect({prefix.host}, stop) as client:
        client.check(prefix.host)
        progress.stage("asking for manifests and blobs")
        lacking = _lacking(plan, delivery, client, stop)
        progress.finish()
        hosts = client.activity()
    holes = (*plan_holes(plan, {}), *lacking.values())
    found = delivery.receipt([i for i in plan.images if i not in lacking], holes, ASKED)
    replace_file(output, found.text().encode())
    return ReceiptResult(
        archive=reader.path,
        id=identity,
        destination=str(prefix),
        file=output,
        images=len(plan.images) - len(lacking),
        missing=holes,
        hosts=hosts,
    )


class _Asked(NamedTuple):
    """A manifest, by tag or digest, or a blob, that a repository is asked for."""

    repository: Repository
    name: str
    number: int
    is_blob: bool


class _Lack(NamedTuple):
    """Why something is not what it must be: a word, and what was told."""

    reason: str
    detail: str


def _lacking(
    plan: Plan, delivery: Delivery, client: RegistryClient, stop: threading.Event
) -> dict[Image, Missing]:
    """Return the images that are not at all their places, whole."""
    asked = {
        image: [one for target in delivery.places[image] for one in _parts(plan, image, target)]
        for image in plan.images
    }
    everything = list(dict.fromkeys(one for parts in asked.values() for one in parts))
    answers = in_parallel(
        lambda one: _look(plan, client, one),
        everything,
        client.pace,
        lambda one: one.repository.host,
        stop,
    )
    lacks = dict(zip(everything, answers, strict=True))
    found = {}
    for image, parts in asked.items():
        if lacking := [lack for one in parts if (lack := lacks[one])]:
            more = f" (and {len(lacking) - 1} more of its parts)" if lacking[1:] else ""
            found[image] = missing(plan, image, lacking[0].reason, lacking[0].detail + more)
    return found


def _parts(plan: Plan, image: Image, target: Target) -> list[_Asked]:
    """Return what is asked for of an image at one place, the top manifest first."""
    names = {number: str(plan.manifests[number].digest) for number in plan.manifests_of(image)}
    names[image.root] = target.tag or names[image.root]
    manifests = [_Asked(target.repository, name, n, is_blob=False) for n, name in names.items()]
    blobs = [
        _Asked(target.repository, str(plan.blobs[n].digest), n, is_blob=True)
        for n in plan.blobs_of(image)
    ]
    return [*reversed(manifests), *blobs]


def _look(plan: Plan, client: RegistryClient, asked: _Asked) -> _Lack | None:
    """Say what is wrong with a part of an image, None when it is there. Raises Unreachable."""
    repository, name = asked.repository, asked.name
    try:
        if asked.is_blob:
            blob = plan.blobs[asked.number]
            length = client.blob_length(repository, blob.digest)
            if length == blob.size:
                return None
            told = "is not there" if length is None else f"has {length} bytes, not {blob.size}"
            return _Lack(MISSING_BLOB, f"{repository}: blob {name} {told}")
        wanted = plan.manifests[asked.number].digest
        there = client.read_manifest(repository, name).digest
    except NotFound:
        return _Lack(Reason.NOT_FOUND, f"{repository}: {name} is not there")
    except IntegrityError as error:
        return _Lack(Reason.WRONG_CONTENT, error.message)
    except Unreachable:
        raise
    except RegistryError as error:
        return _Lack(Reason.REFUSED, error.message)
    if there == wanted:
        return None
    return _Lack(Reason.WRONG_CONTENT, f"{repository}:{name} is at {there}, not at {wanted}")
