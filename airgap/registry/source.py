"""Registries as the source of a transfer: a blob from any repository that is said to have it.

Knows which repositories hold which blob; refuses to know what is done with the bytes.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from airgap.errors import AccessDenied, NotFound
from airgap.reference import ImageReference

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airgap.plan import Blob, Plan
    from airgap.reference import Repository
    from airgap.registry.client import RegistryClient


class RegistrySource:
    """The content of a plan, where its images come from."""

    def __init__(self, client: RegistryClient, plan: Plan) -> None:
        self._client = client
        self._repositories: dict[Blob, dict[Repository, None]] = defaultdict(dict)
        for image in plan.images:
            repository = ImageReference.parse(image.reference).repository
            for number in plan.blobs_of(image):
                self._repositories[plan.blobs[number]][repository] = None

    def blob(self, blob: Blob, offset: int) -> Iterator[bytes]:
        """Yield a blob's bytes from ``offset`` on, from the first repository that gives it.

        Raises RegistryError, IntegrityError, Interrupted.
        """
        *others, last = self._repositories[blob]
        for repository in others:
            try:
                yield from self._client.blob(repository, blob.digest, blob.size, offset)
            except (NotFound, AccessDenied):
                # Says so before the first byte; another repository may be more generous.
                continue
            return
        yield from self._client.blob(last, blob.digest, blob.size, offset)
