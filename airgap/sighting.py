"""What a destination has before anything is pushed: tags that are set, empty repositories.

Asks as little as will do: at a registry that seems new a repository that is not known answers
for all images that go there, at any other one each image's tag is asked for first. Knows nothing
of what is made of the answers.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airgap import limits
from airgap.crew import in_parallel
from airgap.errors import AirgapError, IntegrityError, NotFound, RegistryError, printable

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from airgap.digest import Digest
    from airgap.mapping import Target
    from airgap.plan import Image, Plan
    from airgap.progress import Progress
    from airgap.reference import Repository
    from airgap.registry.client import RegistryClient

_log = logging.getLogger(__name__)

_WORTH_ASKING = limits.MIB
"""What is smaller is sent again as quickly as it is asked for."""


@dataclass(frozen=True)
class Sight:
    """What there is.

    ``tags`` gives for each image the digest at its tag (at its own digest, where it has no tag),
    None where nothing is, or the error that came instead. ``empty`` are repositories in which
    there is nothing that would be missed.
    """

    tags: Mapping[Image, Digest | AirgapError | None]
    empty: frozenset[Repository]


@dataclass(frozen=True)
class Lookout:
    """Asks destinations. ``well`` is called after every sound answer."""

    plan: Plan
    targets: Mapping[Image, Target]
    client: RegistryClient
    is_fatal: Callable[[AirgapError], bool]
    well: Callable[[], None]
    progress: Progress
    stop: threading.Event

    def look(self, images: Sequence[Image]) -> Sight:
        """Return what there is at the places of images. Raises what is fatal, and Interrupted."""
        self.progress.stage("asking for tags", total_images=len(images))
        first: dict[str, Image] = {}
        for image in images:
            first.setdefault(self.targets[image].repository.host, image)
        tags = self._tags(list(first.values()))
        new_hosts = {host for host, image in first.items() if tags[image] is None}
        unknown = self._unknown(i for i in images if self.targets[i].repository.host in new_hosts)
        for image in images:
            if image not in tags and self.targets[image].repository in unknown:
                tags[image] = None
                self.progress.image()
        tags |= self._tags([image for image in images if image not in tags])
        found = {self.targets[image].repository for image, at in tags.items() if at is not None}
        rest = [i for i in images if self.targets[i].repository not in found | unknown]
        unknown |= self._unknown(
            i for i in rest if self.targets[i].repository.host not in new_hosts
        )
        return Sight(tags, unknown - self._begun(images, unknown))

    def _tags(self, images: Sequence[Image]) -> dict[Image, Digest | AirgapError | None]:
        def ask(image: Image) -> Digest | AirgapError | None:
            target = self.targets[image]
            name = target.tag or str(self.plan.manifests[image.root].digest)
            try:
                found = self.client.read_manifest(target.repository, name).digest
                self.well()
                return found
            except (NotFound, IntegrityError):
                self.well()
                return None
            except RegistryError as error:
                if self.is_fatal(error):
                    raise
                return error
            finally:
                self.progress.image()

        def lane_of(image: Image) -> str:
            return self.targets[image].repository.host

        answers = in_parallel(ask, images, self.client.pace, lane_of, self.stop)
        return dict(zip(images, answers, strict=True))

    def _unknown(self, images: Iterable[Image]) -> frozenset[Repository]:
        """Return the images' repositories of which their registry says that there are none."""
        repositories = list(dict.fromkeys(self.targets[image].repository for image in images))

        def is_unknown(repository: Repository) -> bool:
            try:
                return self.client.is_unknown(repository)
            except RegistryError as error:
                _log.info("%s", printable(error.message, 400))
                return False  # What is wrong will show when more is asked for.

        return self._those(repositories, is_unknown)

    def _begun(
        self, images: Iterable[Image], repositories: frozenset[Repository]
    ) -> frozenset[Repository]:
        """Return the repositories that hold something all the same.

        A registry may not know of a repository whose import was interrupted before the first
        manifest. So one blob is asked for: where even that is absent, hardly any can be there,
        and what is there after all is sent once more.
        """
        plan = self.plan
        first: dict[Repository, Digest] = {}
        for image in images:
            repository = self.targets[image].repository
            blobs = [plan.blobs[number] for number in plan.blobs_of(image)]
            is_large = sum(blob.size for blob in blobs) >= _WORTH_ASKING
            if repository in repositories and blobs and is_large:
                first.setdefault(repository, blobs[0].digest)

        def is_there(repository: Repository) -> bool:
            try:
                return self.client.blob_length(repository, first[repository]) is not None
            except RegistryError as error:
                _log.info("%s", printable(error.message, 400))
                return True  # What is wrong will show when blobs are asked for.

        return self._those(list(first), is_there)

    def _those(
        self, repositories: Sequence[Repository], holds: Callable[[Repository], bool]
    ) -> frozenset[Repository]:
        answers = in_parallel(
            holds, repositories, self.client.pace, lambda repository: repository.host, self.stop
        )
        return frozenset(r for r, answer in zip(repositories, answers, strict=True) if answer)
