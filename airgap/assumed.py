"""What a delta assumes to be at its destination: found there, or named as missing.

A blob that did not travel may be in the repository that needs it, in another one that the
plan fills, or where a receipt says that an earlier import has put it. Asks the registry, and
believes no receipt. Knows nothing of how content is pushed.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from airgap import receipt
from airgap.crew import in_parallel
from airgap.errors import AirgapError, ArchiveError, RegistryError, Unreachable
from airgap.reference import Repository

if TYPE_CHECKING:
    import threading
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from airgap.digest import Digest
    from airgap.places import Places
    from airgap.plan import Blob, Image, Plan
    from airgap.progress import Progress
    from airgap.registry.client import RegistryClient
    from airgap.transfer import Source


def repositories_in(
    receipts: Iterable[Path], beside: Path | None, host: str, progress: Progress
) -> dict[str, list[Repository]]:
    """Return where receipts say that blobs are at a host, by the blobs' digests.

    The one ``beside``, if there is one, an earlier import has left; what is wrong with it is
    told. Raises UsageError, MalformedContent and StorageError for the others.
    """
    known = [receipt.read(path) for path in receipts]
    if beside is not None and beside.is_file():
        try:
            known.append(receipt.read(beside))
        except AirgapError as error:
            progress.say(f"not used: {error.message}")
    found: dict[str, dict[Repository, None]] = defaultdict(dict)
    for one in known:
        for image in one.images:
            repository = Repository.parse(image.repository)
            if repository.host == host:
                for blob in image.blobs:
                    found[blob][repository] = None
    return {blob: list(places) for blob, places in found.items()}


class Assumed:
    """The blobs of a plan that did not travel, where they are at the destination.

    ``holders`` says which repository has which. It is the source of a transfer that takes
    everything else from another one: what a registry does not mount from one repository into
    the next is fetched from it.
    """

    def __init__(
        self, client: RegistryClient, holders: Mapping[Digest, Repository], others: Source
    ) -> None:
        self.holders = holders
        self._client = client
        self._others = others

    def lane(self, blob: Blob) -> str:
        """Return the registry that a blob comes from, "" where there is none."""
        holder = self.holders.get(blob.digest)
        return holder.host if holder else self._others.lane(blob)

    def blob(self, blob: Blob, offset: int) -> Iterator[bytes]:
        """Yield a blob's bytes from ``offset`` on, unchecked. Raises RegistryError."""
        holder = self.holders.get(blob.digest)
        if holder is None:
            return self._others.blob(blob, offset)
        return self._client.blob(holder, blob.digest, blob.size, offset)


def find_assumed(
    plan: Plan,
    images: Collection[Image],
    places: Places,
    known: Mapping[str, Sequence[Repository]],
    client: RegistryClient,
    progress: Progress,
    stop: threading.Event,
) -> dict[Digest, Repository]:
    """Find every blob that images need and that did not travel; return who has it.

    Asked are the repositories that need it, then those that are ``known`` to hold it. Raises
    ArchiveError that names all that is in none of them and the archives that have it;
    RegistryError when nothing was found because nothing may be asked for, Interrupted.
    """
    needed_by: dict[int, list[Image]] = defaultdict(list)
    for image in images:
        for number in plan.assumed.intersection(plan.blobs_of(image)):
            needed_by[number].append(image)
    if not needed_by:
        return {}
    progress.stage("asking for blobs that did not travel")
    numbers = sorted(needed_by)
    candidates = {
        number: [
            *dict.fromkeys(target.repository for i in needed_by[number] for target in places[i]),
            *known.get(str(plan.blobs[number].digest), ()),
        ]
        for number in numbers
    }

    def holder(number: int) -> Repository | RegistryError | None:
        return _holder(client, candidates[number], plan.blobs[number])

    found = in_parallel(holder, numbers, client.pace, lambda n: candidates[n][0].host, stop)
    progress.finish()
    holders, missing = {}, {}
    for number, there in zip(numbers, found, strict=True):
        if there is None or isinstance(there, RegistryError):
            missing[number] = there
        else:
            holders[plan.blobs[number].digest] = there
    if missing:
        raise _missing(plan, missing, needed_by)
    return holders


def _holder(
    client: RegistryClient, candidates: Iterable[Repository], blob: Blob
) -> Repository | RegistryError | None:
    """Return the first repository that has a blob, or else what one refused with."""
    refusal = None
    for repository in candidates:
        try:
            if client.blob_length(repository, blob.digest) == blob.size:
                return repository
        except Unreachable:
            raise
        except RegistryError as error:
            # Some registries refuse so where there is no such repository.
            refusal = refusal or error
    return refusal


def _missing(
    plan: Plan,
    missing: Mapping[int, RegistryError | None],
    needed_by: Mapping[int, Sequence[Image]],
) -> AirgapError:
    refusals = [refusal for refusal in missing.values() if refusal is not None]
    if len(refusals) == len(missing):
        return refusals[0]
    lines = []
    for number in missing:
        blob, (first, *others) = plan.blobs[number], needed_by[number]
        more = f" and {len(others)} more images" if others else ""
        lines.append(
            f"\n  {blob.digest} ({blob.size} bytes) of {first.reference}{more},"
            f" in archive {plan.holders_of(number)}"
        )
    blobs = "1 blob" if len(missing) == 1 else f"{len(missing)} blobs"
    return ArchiveError(
        f"the archive leaves {blobs} to earlier archives, and the destination does not have them:"
        + "".join(lines)
        + "".join(f"\n  not everything was asked for: {one.message}" for one in refusals[:1]),
        hint="Nothing has been pushed. Import the archives that hold them first; or say with"
        " --receipt where they are, if that is another repository of the same registry.",
    )
