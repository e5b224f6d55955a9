"""Source registries, for a run that goes straight to another registry and keeps no archive.

Knows what must be remembered while it lasts, and which errors the sources are to blame for.
Refuses to know what is copied, and why it goes where it goes.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from airgap import limits
from airgap.archive.work import Work
from airgap.errors import AirgapError, IntegrityError, RegistryError, StorageError
from airgap.plan import MISSING_BLOB, Missing, missing
from airgap.pushing import Push, says_registry_is_down
from airgap.registry.source import RegistrySource
from airgap.storage import storage_errors

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Iterator, Mapping

    from airgap.digest import Digest
    from airgap.mapping import Target
    from airgap.plan import Blob, Image, Plan
    from airgap.progress import Progress
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

    def is_destination_down(self, error: AirgapError) -> bool:
        """Say whether no image can arrive any more; a source that is down costs only its own."""
        return says_registry_is_down(error) and error not in self._errors

    def sorted_out(self, push: Push) -> tuple[list[Missing], list[tuple[Missing, AirgapError]]]:
        """Tell images that could not be had from those that could not be put there.

        A catalog is always one of the latter: without it, the others serve nobody.
        """
        plan = self.plan
        blobs = {error: n for one in push.outcomes for n, error in one.failed_blobs.items()}
        holes, failed = [], []
        for number, image in enumerate(plan.images):
            error = push.failed.get(image)
            if error is None:
                continue
            detail = error.message
            if isinstance(error, IntegrityError) and error in blobs:
                # A hash knows what is wrong, and not where it came from.
                detail = f"{self._registries.origin(plan.blobs[blobs[error]])}: {detail}"
            is_theirs = error in self._errors or isinstance(error, IntegrityError)
            if is_theirs and number not in plan.catalog_images:
                holes.append(missing(plan, image, MISSING_BLOB, detail))
            else:
                failed.append((missing(plan, image, "failed", detail), error))
        return holes, failed

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
        targets: Mapping[Image, Target],
        holders: Mapping[Digest, Iterable[Repository]],
        *,
        force_tags: bool,
    ) -> Push:
        """Copy images, each to one place. Raises what ends the whole run.

        ``holders`` are repositories that are said to have a blob: at the destination's own
        registry it is mounted from there.
        """
        push = Push(
            upstream.plan,
            targets,
            client,
            workers=self.access.connections,
            is_fatal=lambda error: (
                not self.continue_on_error or upstream.is_destination_down(error)
            ),
            progress=self.progress,
            stop=self.stop,
        )
        push.run(targets, upstream, upstream.manifest, force_tags=force_tags, holders=holders)
        return push


@contextmanager
def scratch() -> Iterator[Work]:
    """Yield a directory for what is learned, and remove it in the end. Raises StorageError."""
    with storage_errors(Path(tempfile.gettempdir())):
        directory = tempfile.TemporaryDirectory(prefix="airgap-mirror-")
    with directory as name:
        yield Work(Path(name))
