"""A registry as the destination of a transfer: repositories filled image by image.

Follows the order a registry demands (OCI distribution specification, "pushing manifests"):
blobs, then manifests children first, each by digest and read back, then the tag. Where a
registry takes no manifest by its digest alone, every manifest is put under a tag. Knows where
each image goes; refuses to know why.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from airgap.arrival import Arrival
from airgap.digest import verified
from airgap.errors import IntegrityError, NotFound, RegistryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from airgap.digest import Digest
    from airgap.plan import Blob, Image, Manifest, Plan
    from airgap.reference import Repository
    from airgap.registry.client import RegistryClient

_MAY_WANT_A_TAG = frozenset({400, 404, 405, 415, 422, 500, 501})
"""How a manifest without a tag is refused; 500 by OpenShift's registry."""


class BlobDestination:
    """Where the blobs of images go, ahead of the images themselves.

    ``places`` gives the repository and the tag of each image. ``holders`` are repositories,
    here or elsewhere, that are said to have a blob. ``arrived`` is told of every blob that is
    where it should be.
    """

    def __init__(
        self,
        client: RegistryClient,
        places: Mapping[Image, tuple[Repository, str]],
        holders: Mapping[Digest, Iterable[Repository]],
        arrived: Callable[[], None] = lambda: None,
    ) -> None:
        self._client = client
        self._places = places
        self._arrived = arrived
        self._holders: dict[tuple[str, Digest], Repository] = {
            (repository.host, digest): repository
            for digest, repositories in holders.items()
            for repository in repositories
        }
        self._hosts = {str(repository): repository for repository, _ in places.values()}
        self._lock = threading.Lock()

    def where(self, image: Image) -> str:
        """Return the repository of an image."""
        return str(self._places[image][0])

    def put_blob(self, blob: Blob, where: str, read: Callable[[int], Iterator[bytes]]) -> Arrival:
        """Make sure that a repository has a blob: found there, mounted, or sent.

        Raises IntegrityError when the bytes to send are not what was promised (the upload is
        then never completed), RegistryError, Interrupted, and what ``read`` raises.
        """
        repository = self._hosts[where]
        arrival = self._find(blob, repository)
        if arrival is None:
            self._client.upload(
                repository,
                blob.digest,
                blob.size,
                lambda: verified(read(0), blob.digest, blob.size),
            )
            arrival = Arrival.SENT
        with self._lock:
            self._holders[repository.host, blob.digest] = repository
        self._arrived()
        return arrival

    def put_image(self, image: Image) -> None:
        """Do nothing: the image itself comes later."""

    def _find(self, blob: Blob, repository: Repository) -> Arrival | None:
        # Asked even where mounting would do: a mount says nothing of a damaged blob's length.
        length = self._client.blob_length(repository, blob.digest)
        if length == blob.size:
            return Arrival.PRESENT
        if length is not None:
            raise RegistryError(
                f"{repository}: holds {blob.digest} with {length} bytes instead of {blob.size}",
                hint="The registry's storage is damaged, and it does not replace a blob it thinks"
                " it has: delete the blob there, let the registry collect garbage, restart it,"
                " and run the same command again.",
            )
        return Arrival.MOUNTED if self._mounted(blob, repository) else None

    def _mounted(self, blob: Blob, repository: Repository) -> bool:
        """Mount a blob from another repository of the registry that has it, if there is one."""
        holder = self._holders.get((repository.host, blob.digest), repository)
        return holder != repository and self._client.mount(repository, blob.digest, holder.path)


class RegistryDestination(BlobDestination):
    """Where the images of a plan go.

    ``manifest`` gives the bytes of a manifest by number. An image whose tag is "" is known by
    its digest alone. ``tags_set`` are the images whose tag, or else digest, is at the
    destination already. ``say`` is told once of a registry that takes no manifest by its digest.
    """

    def __init__(
        self,
        client: RegistryClient,
        plan: Plan,
        places: Mapping[Image, tuple[Repository, str]],
        manifest: Callable[[int], bytes],
        tags_set: frozenset[Image],
        holders: Mapping[Digest, Iterable[Repository]],
        say: Callable[[str], None],
        arrived: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(client, places, holders, arrived)
        self._plan = plan
        self._manifest = manifest
        self._tags_set = tags_set
        self._say = say
        self.manifests_sent = 0

    def ask_for_digests(self, image: Image) -> None:
        """Find out whether an image's registry refuses every manifest by its digest.

        What it does not tell now, its answer to the first manifest will. Raises Interrupted.
        """
        repository, _ = self._places[image]
        first = self._plan.manifests[self._plan.manifests_of(image)[0]]
        refusal = self._client.refusal_of_digests(repository, first.media_type)
        if refusal is not None:
            self._use_tags(repository.host, refusal)

    def put_image(self, image: Image) -> None:
        """Put an image's manifests, children first, read each back, then set its tag.

        Raises RegistryError, IntegrityError, Interrupted.
        """
        repository, tag = self._places[image]
        is_known = image in self._tags_set
        name = ""
        for number in self._plan.manifests_of(image):
            manifest, raw = self._plan.manifests[number], self._manifest(number)
            if not is_known or not self._reads_back(repository, manifest, raw):
                own = tag if number == image.root else ""
                name = self._put_manifest(repository, manifest, raw, own)
        if is_known or not tag:
            return
        root = self._plan.manifests[image.root]
        if name != tag:
            self._client.put_manifest(repository, tag, self._manifest(image.root), root.media_type)
        if (got := self._client.manifest_digest(repository, tag)) != root.digest:
            raise RegistryError(f"{repository}:{tag}: set to {root.digest}, reads back as {got}")

    def _put_manifest(
        self, repository: Repository, manifest: Manifest, raw: bytes, tag: str
    ) -> str:
        """Put a manifest, read it back by digest, and return the name under which it was put.

        ``tag`` is the one it gets where the registry wants one, "" for a tag of its own.
        """
        name = self._put(repository, manifest, raw, tag or tag_for(manifest.digest))
        with self._lock:
            self.manifests_sent += 1
        if not self._reads_back(repository, manifest, raw):
            raise RegistryError(
                f"{repository}@{manifest.digest}: sent, and now it is not there unchanged",
                hint="The registry or something before it alters manifests, and nobody can pull"
                " this image by its digest. Look for a conversion setting.",
            )
        return name

    def _put(self, repository: Repository, manifest: Manifest, raw: bytes, tag: str) -> str:
        """Put a manifest by its digest, or else under a tag, and return which it was."""
        host, digest = repository.host, str(manifest.digest)
        if self._client.takes_digests.get(host) is False:
            self._client.put_manifest(repository, tag, raw, manifest.media_type)
            return tag
        try:
            self._client.put_manifest(repository, digest, raw, manifest.media_type)
        except RegistryError as refusal:
            if self._client.takes_digests.get(host) or refusal.status not in _MAY_WANT_A_TAG:
                raise
            self._put_instead(repository, tag, raw, manifest.media_type, refusal)
            return tag
        self._client.takes_digests.setdefault(host, True)
        return digest

    def _put_instead(
        self, repository: Repository, tag: str, raw: bytes, media_type: str, refusal: RegistryError
    ) -> None:
        """Put under a tag what was refused by digest; refused again, it had another reason."""
        try:
            self._client.put_manifest(repository, tag, raw, media_type)
        except RegistryError:
            raise refusal from None
        self._use_tags(repository.host, refusal)

    def _use_tags(self, host: str, refusal: RegistryError) -> None:
        with self._lock:
            is_news = host not in self._client.takes_digests
            self._client.takes_digests.setdefault(host, False)
        if is_news:
            said = f"{refusal.status} {refusal.code}".strip()
            self._say(f"{host} refuses manifests by digest ({said}): tags are used instead")

    def _reads_back(self, repository: Repository, manifest: Manifest, raw: bytes) -> bool:
        try:
            found = self._client.read_manifest(repository, str(manifest.digest))
        except (NotFound, IntegrityError):
            return False
        return found.raw == raw


def tag_for(digest: Digest) -> str:
    """Return the tag of a manifest that needs one and has none."""
    return f"airgap-{digest.hex[:24]}"
