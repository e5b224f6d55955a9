"""A registry as the destination of a transfer: repositories filled image by image.

Follows the order a registry demands (OCI distribution specification, "pushing manifests"):
blobs, then manifests children first, each by digest and read back, then the tag. Where a
registry takes no manifest by its digest alone, every manifest is put under a tag. Knows where
each image goes; refuses to know why.

No request is made that an earlier answer has made needless. In a repository where nothing is:

    blob           POST, PUT; or POST alone where another repository has it
    manifest       PUT and GET, by its digest: so every one is read back, and hashed
    tag            PUT, once its manifest has been read back; the answer names the digest

Elsewhere a blob is asked for first, by HEAD: what is there is not sent again, and a mount would
hide that it is damaged. It is asked for after a mount that no more than hearsay led to. A tag
is read back, by HEAD, where the answer to its PUT did not name the digest.

What a registry collects as garbage between a blob and its manifest is brought again: when a
manifest is refused because something below it is absent, everything below the image is asked
for, what has gone is sent, and the manifests are put again, twice at most.
"""

from __future__ import annotations

import logging
import threading
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from airgap.arrival import Arrival
from airgap.digest import verified
from airgap.errors import IntegrityError, NotFound, RegistryError, printable
from airgap.registry.upload import RepositoryAbsent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from airgap.digest import Digest
    from airgap.plan import Blob, Image, Manifest, Plan
    from airgap.reference import Repository
    from airgap.registry.client import RegistryClient

_log = logging.getLogger(__name__)

_MAY_WANT_A_TAG = frozenset({400, 404, 405, 415, 422, 500, 501})
"""How a manifest without a tag is refused; 500 by OpenShift's registry."""

_GONE = frozenset({"MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN"})
"""How a manifest is refused of which something is absent."""

_HEALINGS = 2


class BlobDestination:
    """Where the blobs of images go; alone, those that go ahead of the images themselves.

    ``places`` gives the repository and the tag of each image. ``empty`` are repositories in
    which nothing is. ``holders`` are repositories, here or elsewhere, that are said to have a
    blob. ``arrived`` is told of every blob that is where it should be.

    ``absent`` are the repositories that were not there and that the registry did not make.
    """

    def __init__(
        self,
        client: RegistryClient,
        places: Mapping[Image, tuple[Repository, str]],
        holders: Mapping[Digest, Iterable[Repository]],
        arrived: Callable[[], None] = lambda: None,
        empty: frozenset[Repository] = frozenset(),
    ) -> None:
        self._client = client
        self._places = places
        self._arrived = arrived
        self._empty = empty
        self._holders = {
            (repository.host, digest): _Holder(repository, is_sure=False)
            for digest, repositories in holders.items()
            for repository in repositories
        }
        self._hosts = {str(repository): repository for repository, _ in places.values()}
        self._lock = threading.Lock()
        self.absent: dict[Repository, RepositoryAbsent] = {}

    def where(self, image: Image) -> str:
        """Return the repository of an image."""
        return str(self._places[image][0])

    def lane(self, where: str) -> str:
        """Return the registry of a repository."""
        return self._hosts[where].host

    def put_blob(self, blob: Blob, where: str, read: Callable[[int], Iterator[bytes]]) -> Arrival:
        """Make sure that a repository has a blob: found there, mounted, or sent.

        Raises IntegrityError when the bytes to send are not what was promised, twice (the upload
        is then never completed), RegistryError, Interrupted, and what ``read`` raises.
        """
        repository = self._hosts[where]
        if repository in self.absent:
            raise self.absent[repository]
        try:
            arrival = self._bring(blob, repository, read)
        except RepositoryAbsent as error:
            with self._lock:
                self.absent[repository] = error
            raise
        with self._lock:
            self._holders[repository.host, blob.digest] = _Holder(repository, is_sure=True)
        self._client.account(repository.host).arrived(arrival, blob.size)
        self._arrived()
        return arrival

    def put_image(self, image: Image) -> None:
        """Do nothing: the image itself comes later."""

    def _bring(
        self, blob: Blob, repository: Repository, read: Callable[[int], Iterator[bytes]]
    ) -> Arrival:
        if repository not in self._empty and self._has(blob, repository):
            return Arrival.PRESENT
        holder = self._holders.get((repository.host, blob.digest))
        if holder is None or holder.repository == repository:
            return self._send(blob, repository, read)
        arrival = self._send(blob, repository, read, holder.repository.path)
        if arrival is Arrival.MOUNTED and not holder.is_sure and not self._has(blob, repository):
            return self._send(blob, repository, read)
        return arrival

    def _send(
        self,
        blob: Blob,
        repository: Repository,
        read: Callable[[int], Iterator[bytes]],
        mount_from: str = "",
    ) -> Arrival:
        def pieces() -> Iterator[bytes]:
            return verified(read(0), blob.digest, blob.size)

        def upload() -> Arrival:
            return self._client.upload(repository, blob.digest, blob.size, pieces, mount_from)

        try:
            return upload()
        except IntegrityError as error:  # The source may have it elsewhere, or read it rightly.
            _log.info("%s; reading it once more", printable(error.message, 400))
            return upload()

    def _has(self, blob: Blob, repository: Repository) -> bool:
        """Say whether a blob is there, whole. Raises RegistryError for one of another length."""
        length = self._client.blob_length(repository, blob.digest)
        if length is None or length == blob.size:
            return length is not None
        raise RegistryError(
            f"{repository}: holds {blob.digest} with {length} bytes instead of {blob.size}",
            hint="The registry's storage is damaged, and it does not replace a blob it thinks"
            " it has: delete the blob there, let the registry collect garbage, restart it,"
            " and run the same command again.",
        )


class RegistryDestination(BlobDestination):
    """Where the images of a plan go.

    ``manifest`` gives the bytes of a manifest by number, ``blob`` those of a blob from an offset
    on. An image whose tag is "" is known by its digest alone. ``tags_set`` are the images whose
    tag, or else digest, is at the destination already: of them only what is absent is put.
    ``say`` is told once of a registry that takes no manifest by its digest.
    """

    def __init__(
        self,
        client: RegistryClient,
        plan: Plan,
        places: Mapping[Image, tuple[Repository, str]],
        manifest: Callable[[int], bytes],
        blob: Callable[[Blob, int], Iterator[bytes]],
        tags_set: frozenset[Image],
        empty: frozenset[Repository],
        holders: Mapping[Digest, Iterable[Repository]],
        say: Callable[[str], None],
        arrived: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(client, places, holders, arrived, empty)
        self._plan = plan
        self._manifest = manifest
        self._blob = blob
        self._tags_set = tags_set
        self._say = say
        self._hiding: set[str] = set()
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
        for healing in range(_HEALINGS + 1):
            try:
                return self._put_manifests(image, anew=healing > 0)
            except RegistryError as error:
                if error.code not in _GONE or healing == _HEALINGS:
                    raise
                self._heal(image, error)

    def _put_manifests(self, image: Image, *, anew: bool) -> None:
        repository, tag = self._places[image]
        is_known = image in self._tags_set
        put = None
        for number in self._plan.manifests_of(image):
            manifest, raw = self._plan.manifests[number], self._manifest(number)
            if not is_known or anew or self._found(repository, manifest) != raw:
                own = tag if number == image.root else ""
                put = self._put_manifest(repository, manifest, raw, own)
        if is_known or not tag:
            return
        root = self._plan.manifests[image.root]
        said = put.said if put is not None and put.name == tag else None
        if put is None or put.name != tag:
            raw = self._manifest(image.root)
            said = self._client.put_manifest(repository, tag, raw, root.media_type)
        if said != root.digest:
            self._require_tag(repository, tag, root.digest)

    def _require_tag(self, repository: Repository, tag: str, digest: Digest) -> None:
        got = self._client.settled(
            repository,
            lambda: self._client.manifest_digest(repository, tag),
            lambda found: found == digest,
        )
        if got != digest:
            raise RegistryError(f"{repository}:{tag}: set to {digest}, reads back as {got}")

    def _heal(self, image: Image, refusal: RegistryError) -> None:
        """Bring again what a registry has lost of an image's blobs."""
        repository, _ = self._places[image]
        _log.info("%s; asking for all of it again", printable(refusal.message, 400))
        account = self._client.account(repository.host)
        account.retried("what was there has gone", 0)
        for number in self._plan.blobs_of(image):
            blob = self._plan.blobs[number]
            if not self._has(blob, repository):
                self._send(blob, repository, partial(self._blob, blob))
                account.arrived(Arrival.SENT, blob.size)

    def _put_manifest(
        self, repository: Repository, manifest: Manifest, raw: bytes, tag: str
    ) -> _Put:
        """Put a manifest and read it back by digest.

        ``tag`` is the one it gets where the registry wants one, "" for a tag of its own.
        """
        put = self._put(repository, manifest, raw, tag or tag_for(manifest.digest))
        with self._lock:
            self.manifests_sent += 1
        self._client.account(repository.host).manifest_sent()
        if not self._reads_back(repository, manifest, raw, put):
            raise RegistryError(
                f"{repository}@{manifest.digest}: sent, and now it is not there unchanged",
                hint="The registry or something before it alters manifests, and nobody can pull"
                " this image by its digest. Look for a conversion setting.",
            )
        return put

    def _put(self, repository: Repository, manifest: Manifest, raw: bytes, tag: str) -> _Put:
        """Put a manifest by its digest, or else under a tag."""
        host, name, media_type = repository.host, str(manifest.digest), manifest.media_type
        if self._client.takes_digests.get(host) is False:
            return _Put(tag, self._client.put_manifest(repository, tag, raw, media_type))
        try:
            said = self._client.put_manifest(repository, name, raw, media_type)
        except RegistryError as refusal:
            may_want_tag = refusal.status in _MAY_WANT_A_TAG and refusal.code not in _GONE
            if self._client.takes_digests.get(host) or not may_want_tag:
                raise
            return self._put_instead(repository, tag, raw, media_type, refusal)
        self._client.takes_digests.setdefault(host, True)
        return _Put(name, said)

    def _put_instead(
        self, repository: Repository, tag: str, raw: bytes, media_type: str, refusal: RegistryError
    ) -> _Put:
        """Put under a tag what was refused by digest; refused again, it had another reason."""
        try:
            said = self._client.put_manifest(repository, tag, raw, media_type)
        except RegistryError:
            raise refusal from None
        self._use_tags(repository.host, refusal)
        return _Put(tag, said)

    def _use_tags(self, host: str, refusal: RegistryError) -> None:
        with self._lock:
            is_news = host not in self._client.takes_digests
            self._client.takes_digests.setdefault(host, False)
        if is_news:
            said = f"{refusal.status} {refusal.code}".strip()
            self._say(f"{host} refuses manifests by digest ({said}): tags are used instead")

    def _reads_back(
        self, repository: Repository, manifest: Manifest, raw: bytes, put: _Put
    ) -> bool:
        """Read back what was put; what is not there yet may show soon.

        Not where the registry says that it made something else of it, nor again at a host where
        it has been waited for in vain.
        """
        if put.said not in (None, manifest.digest) or repository.host in self._hiding:
            return self._found(repository, manifest) == raw
        found = self._client.settled(
            repository, lambda: self._found(repository, manifest), lambda seen: seen is not None
        )
        if found is None:
            self._hiding.add(repository.host)
        return found == raw

    def _found(self, repository: Repository, manifest: Manifest) -> bytes | None:
        """Return what is under a manifest's digest: None for nothing, b"" for what is wrong."""
        try:
            return self._client.read_manifest(repository, str(manifest.digest)).raw
        except NotFound:
            return None
        except IntegrityError:
            return b""


class _Holder(NamedTuple):
    """A repository that has a blob: this run has seen to it, or it is hearsay."""

    repository: Repository
    is_sure: bool


class _Put(NamedTuple):
    """The name under which a manifest was put, and the digest that the registry gave it."""

    name: str
    said: Digest | None


def tag_for(digest: Digest) -> str:
    """Return the tag of a manifest that needs one and has none."""
    return f"airgap-{digest.hex[:24]}"
