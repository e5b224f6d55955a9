"""Registries as the source of a transfer: a blob from any repository that is said to have it.

Knows which repositories hold which blob; refuses to know what is done with the bytes.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from airgap.errors import NotFound
from airgap.reference import ImageReference

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airgap.digest import Digest
    from airgap.plan import Blob, Plan
    from airgap.reference import Repository
    from airgap.registry.client import RegistryClient


class RegistrySource:
    """The content of a plan, where its images come from."""

    def __init__(self, client: RegistryClient, plan: Plan) -> None:
        self._client = client
        self._repositories: dict[Blob, dict[Repository, None]] = defaultdict(dict)
        local = {catalog.image for catalog in plan.catalogs if catalog.pin is None}
        made = plan.made_here
        self._carried: set[Blob] = set()
        self._lanes: dict[Repository, str] = {}
        for position, image in enumerate(plan.images):
            if position not in made:
                self._carried.update(plan.blobs[number] for number in plan.blobs_of(image))
            if position in local:
                continue
            reference = ImageReference.parse(image.reference)
            repository = reference.repository
            self._lanes.setdefault(repository, client.lane(reference))
            for number in plan.blobs_of(image):
                self._repositories[plan.blobs[number]][repository] = None

    def blob(self, blob: Blob, offset: int) -> Iterator[bytes]:
        """Yield a blob's bytes from ``offset`` on; where one repository fails, from the next.

        Who asks for all of them again is given them by another one first. Raises what the last
        one says: RegistryError, IntegrityError; and Interrupted.
        """
        if blob not in self._repositories:
            raise _made_anew(blob)
        first, *further = self._repositories[blob]
        try:
            yield from self._client.blob(first, blob.digest, blob.size, offset, further)
        except NotFound as error:
            raise error if blob in self._carried else _made_anew(blob) from error

    def lane(self, blob: Blob) -> str:
        """Return the registry that is asked for a blob, "" when it is in none."""
        known = self._repositories.get(blob)
        return self._lanes[next(iter(known))] if known else ""

    def origin(self, blob: Blob) -> str:
        """Return where a blob comes from, for errors: the last repository that is asked."""
        known = list(self._repositories.get(blob, ()))
        return str(known[-1]) if known else "a catalog that was made here"

    def holders(self) -> dict[Digest, list[Repository]]:
        """Return the repositories that are said to have each blob."""
        return {blob.digest: list(found) for blob, found in self._repositories.items()}


def _made_anew(blob: Blob) -> NotFound:
    return NotFound(f"{blob.digest}: was made for the catalog, no registry has it: export anew")
