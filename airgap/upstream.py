"""Source registries, for a run that goes straight to another registry and keeps no archive.

Knows what must be remembered while it lasts, and which errors the sources are to blame for.
Refuses to know what is copied, and why it goes where it goes.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airgap import limits
from airgap.archive.work import Work
from airgap.errors import AirgapError, IntegrityError, RegistryError, StorageError
from airgap.plan import MISSING_BLOB, Missing, missing
from airgap.pushing import Push, push_rounds
from airgap.registry.source import RegistrySource
from airgap.storage import storage_errors, temporary_directory

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Iterator, Mapping

    from airgap.digest import Digest
    from airgap.mapping import Target
    from airgap.plan import Blob, Image, Plan
    from airgap.progress import Progress
    from airgap.pushing import Holders
    from airgap.reference import Repository
    from airgap.registry.access import Access
    from airgap.registry.client import RegistryClient


class Upstream:
    """Where content comes from: what asking has left behind, else the sources' registries.

    ``plan`` is what there is to have.
    """

    def __init__(self, client: RegistryClient, plan: Plan, work: Work) -> None:
        self.plan = plan
        self._work = work
        self._registries = RegistrySource(client, plan)
        self._errors: set[AirgapError] = set()

    def lane(self, blob: Blob) -> str:
        """Return the registry that a blob comes from, "" when it is here already."""
        return "" if self._work.holds(blob.digest) else self._registries.lane(blob)

    def blob(self, blob: Blob, offset: int) -> Iterator[bytes]:
        """Yield a blob's bytes from ``offset`` on, unchecked. Raises what a source raises."""
        if self._work.holds(blob.digest):
            yield from self._kept(blob, offset)
            return
        try:
            yield from self._registries.blob(blob, offset)
        except (RegistryError, IntegrityError) as error:
            self._errors.add(error)
            raise

    def manifest(self, number: int) -> bytes:
        """Return a manifest by its number. Raises StorageError when it has gone."""
        digest = self.plan.manifests[number].digest
        raw = self._work.manifest(digest)
        if raw is None:
            raise StorageError(
                f"{self._work.directory}: {digest} is not there unchanged any more",
                hint="Something clears or damages the temporary directory: set TMPDIR to another.",
            )
        return raw

    def holders(self) -> dict[Digest, list[Repository]]:
        """Return the repositories that are said to have each blob."""
        return self._registries.holders()

    def is_to_blame(self, error: AirgapError) -> bool:
        """Say whether an error is a source's; one that is down costs only its own images."""
        return error in self._errors

    def sorted_out(
        self, pushes: Iterable[Push]
    ) -> tuple[list[Missing], list[tuple[Missing, AirgapError]]]:
        """Tell images that could not be had from those that could not be put there.

        A catalog is always one of the latter: without it, the others serve nobody.
        """
        order = {image: number for number, image in enumerate(self.plan.images)}
        holes: dict[Image, Missing] = {}
        failed = []
        for push in pushes:
            blobs = {error: n for one in push.outcomes for n, error in one.failed_blobs.items()}
            for image in sorted(push.failed, key=order.__getitem__):
                error = push.failed[image]
                detail = error.message
                if isinstance(error, IntegrityError) and error in blobs:
                    # A hash knows what is wrong, and not where it came from.
                    detail = f"{self._registries.origin(self.plan.blobs[blobs[error]])}: {detail}"
                is_theirs = self.is_to_blame(error) or isinstance(error, IntegrityError)
                if is_theirs and order[image] not in self.plan.catalog_images:
                    holes[image] = missing(self.plan, image, MISSING_BLOB, detail)
                else:
                    failed.append((missing(self.plan, image, "failed", detail), error))
        return list(holes.values()), failed

    def _kept(self, blob: Blob, offset: int) -> Iterator[bytes]:
        with storage_errors(self._work.directory), self._work.open(blob.digest) as file:
            file.seek(offset)
            while piece := file.read(limits.CHUNK):
                yield piece


@dataclass(frozen=True)
class Run:
    """How a run goes about its work; the kinds of run add what they ask."""

    access: Access
    continue_on_error: bool
    progress: Progress
    stop: threading.Event

    def push(
        self,
        client: RegistryClient,
        upstream: Upstream,
        rounds: Iterable[dict[Image, Target]],
        *,
        force_tags: bool,
        recheck: bool,
        down: Mapping[str, AirgapError] | None = None,
    ) -> list[Push]:
        """Copy images, each to one place in a round. Raises what ends the whole run.

        ``down`` are destinations that get nothing, and why.
        """
        lost = down or {}

        def push(targets: dict[Image, Target], holders: Holders) -> Push:
            one = Push(
                upstream.plan,
                targets,
                client,
                continue_on_error=self.continue_on_error,
                recheck=recheck,
                is_theirs=upstream.is_to_blame,
                progress=self.progress,
                stop=self.stop,
            )
            at = {image: target.repository.host for image, target in targets.items()}
            one.failed |= {image: lost[host] for image, host in at.items() if host in lost}
            one.run(targets, upstream, upstream.manifest, force_tags=force_tags, holders=holders)
            return one

        return push_rounds(upstream.plan, rounds, push, upstream.holders())


@contextmanager
def scratch() -> Iterator[Work]:
    """Give a directory for what is learned, and remove it in the end. Raises StorageError."""
    with temporary_directory() as directory:
        yield Work(directory)
