"""Registries, as the rest of the program sees them: manifests, blobs and tags.

Follows the OCI distribution specification 1.1. Source names are resolved through
registries.conf; a destination is the place it names. A manifest is the bytes that arrived,
with the digest that these bytes have, whatever a header says. Knows nothing of what a
manifest means, of catalogs or of archives.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, TypeVar

from airgap import limits, strict_json
from airgap.digest import Check, Digest, digest_of
from airgap.errors import (
    IntegrityError,
    MalformedContent,
    MalformedDigest,
    MalformedReference,
    NotFound,
    RegistryError,
    Unreachable,
    printable,
)
from airgap.oci import media_types
from airgap.reference import ImageReference, Repository
from airgap.registry import locations
from airgap.registry.auth import Scope
from airgap.registry.channel import Call, Channel
from airgap.registry.download import Download
from airgap.registry.registries_conf import Place, RegistriesConf
from airgap.registry.retry import Temporary, until_it_shows
from airgap.registry.upload import Blob as UploadedBlob
from airgap.registry.upload import Uploader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from airgap.arrival import Arrival
    from airgap.digest import Bytes
    from airgap.registry.account import HostAccount, HostActivity
    from airgap.registry.credentials import Credentials
    from airgap.registry.pace import Pace
    from airgap.registry.transport import Answer, Transport

T = TypeVar("T")

_log = logging.getLogger(__name__)

_PULL, _PUSH = "pull", "pull,push"
_ACCEPT = {"Accept": ", ".join(media_types.ACCEPTED)}
_SAYS_NOTHING = frozenset(
    {"application/json", "application/octet-stream", "binary/octet-stream", "text/plain"}
)
_FOUND = frozenset({200, 404})
_UNKNOWN_REPOSITORY = frozenset({"NAME_UNKNOWN", "RepositoryNotFoundException"})
_WRITTEN = frozenset({200, 201, 202, 204})
_NO_MANIFEST = b"{}"
_BY_RULE = frozenset({405, 501})
_BY_RULE_CODES = frozenset({"UNSUPPORTED", "TAG_INVALID"})
_TAGS_PAGE = 4 * limits.MIB
_NEXT = re.compile(r'<([^<>]*)>\s*;(?:[^,]*;)?\s*rel\s*=\s*"?next"?', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class FetchedManifest:
    """A manifest or index as it arrived.

    ``media_type`` is what the registry said, "" when it said nothing that tells; ``digest``
    is that of ``raw``.
    """

    raw: bytes
    media_type: str
    digest: Digest


class RegistryClient:
    """All registries of a run, for any number of threads. Close it, or use it in ``with``.

    Every method raises RegistryError (Unreachable, AccessDenied and NotFound are its kinds)
    and Interrupted; temporary failures have been tried again before.

    ``writes`` says that destinations will be written to: reading there then uses the token
    that writing needs, instead of one more. Some registries give none for writing to an
    account that may only read.

    ``takes_digests`` says of destination hosts, as far as it has turned out, whether they take
    a manifest by its digest, without a tag.
    """

    def __init__(
        self,
        transport: Transport,
        credentials: Credentials,
        registries: RegistriesConf | None = None,
        *,
        writes: bool = False,
    ) -> None:
        self._transport = transport
        self._channel = Channel(transport, credentials)
        self._registries = registries or RegistriesConf()
        self._uploader = Uploader(self._channel)
        self.takes_digests: dict[str, bool] = {}
        self._unreachable: set[str] = set()
        self._givers: dict[Digest, Place] = {}
        self._reading = _PUSH if writes else _PULL

    def close(self) -> None:
        """Close every connection."""
        self._transport.close()

    def __enter__(self) -> RegistryClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pace(self) -> Pace:
        """How many requests each registry should be given at once, by its host."""
        return self._transport.pace

    def account(self, host: str) -> HostAccount:
        """Return the account of a host, for what only a caller knows."""
        return self._transport.account.of(host)

    def activity(self) -> tuple[HostActivity, ...]:
        """Return what has been done so far with every host."""
        return self._transport.account.activity()

    # Sources: names are resolved through registries.conf.

    def lane(self, reference: ImageReference) -> str:
        """Return the host that a source image is asked of first."""
        return self._places(reference.with_defaults())[0].repository.host

    def manifest(self, reference: ImageReference) -> FetchedManifest:
        """Return the manifest or index of a source image, from the first place that has it.

        By digest if the reference has one, else by tag. Raises IntegrityError when a place
        answers with other bytes than the digest's, UsageError for a blocked registry.
        """
        full = reference.with_defaults()
        target = full.tag if full.digest is None else str(full.digest)

        def fetch(place: Place) -> FetchedManifest:
            moved = place.repository != full.repository
            what = f"{reference} at {place.repository}" if moved else str(reference)
            return self._fetch_manifest(self._scope(place, _PULL), target, full.digest, what)

        return self._first(self._places(full), fetch)

    def blob(
        self,
        repository: Repository,
        digest: Digest,
        size: int,
        offset: int = 0,
        further: Iterable[Repository] = (),
    ) -> Iterator[bytes]:
        """Yield a source blob from ``offset`` to exactly ``size``, in pieces of a chunk.

        Breaks are mended underneath; where one place fails, the next one goes on, also in the
        ``further`` repositories. The content is not hashed: who asks for all of it a second time
        was not content, and is given it by the next place. Raises IntegrityError for another
        length, before the bytes in excess; NotFound and AccessDenied come before the first byte.
        """
        download = Download(self._channel, digest, size, offset)
        *others, last = self._blob_places((repository, *further), digest, offset)
        for place in others:
            try:
                yield from self._pieces(download, place)
            except (RegistryError, IntegrityError) as error:
                self._note(place, error)
                _log.info("%s; asking the next place", printable(error.message, 400))
            else:
                return
        yield from self._pieces(download, last)

    def _pieces(self, download: Download, place: Place) -> Iterator[bytes]:
        """Yield what is left of a blob; remember who gave the end of it, read on or not."""
        begun = download.position
        try:
            yield from download.pieces(self._scope(place, _PULL))
        finally:
            if download.is_complete and download.position > begun:
                self._givers[download.digest] = place

    def _blob_places(
        self, repositories: Iterable[Repository], digest: Digest, offset: int
    ) -> list[Place]:
        """Return where to ask for a blob: from its start not first where it was given before."""
        all_places = (self._registries.candidates(_by_digest(r, digest)) for r in repositories)
        places = list(dict.fromkeys(chain.from_iterable(all_places)))
        giver = self._givers.get(digest)
        if offset == 0 and giver in places:
            start = places.index(giver) + 1
            places = places[start:] + places[:start]
        return self._reachable_first(places)

    def tags(self, repository: Repository) -> list[str]:
        """Return every tag of a source repository, at its location; mirrors may have a part.

        They are asked where the location does not answer. What is in the list and cannot be a
        tag is left out, with a warning. Raises NotFound where there is no such repository,
        UsageError for a blocked registry.
        """
        places = self._registries.candidates(ImageReference(repository.host, repository.path))
        found = self._first(
            self._reachable_first(reversed(places)),
            lambda place: self._all_tags(self._scope(place, _PULL)),
        )
        tags = [tag for tag in found if _is_tag(repository, tag)]
        if len(tags) < len(found):
            first = printable(repr(next(tag for tag in found if not _is_tag(repository, tag))))
            count = len(found) - len(tags)
            _log.warning("%s: %d names in its list are no tags: %s, …", repository, count, first)
        return tags

    def _all_tags(self, scope: Scope) -> list[str]:
        found: list[str] = []
        path, seen = "tags/list?n=1000", set[str]()
        while path and path not in seen:
            if len(seen) >= limits.PAGES or len(found) > limits.TAGS:
                raise RegistryError(f"{scope.repository}: the list of tags does not end")
            seen.add(path)
            page, path = self._tags_page(scope, path)
            found += page
        return found

    def _tags_page(self, scope: Scope, path: str) -> tuple[list[str], str]:
        call = Call(scope, "GET", path, f"{scope.repository}: list of tags")

        def fetch() -> tuple[list[str], str]:
            with self._channel.attempt(call) as answer:
                return _read_tags(answer), _next_page(answer)

        return self._channel.persist(scope, fetch)

    # Destinations: a name is the place itself.

    def check(self, host: str) -> None:
        """Make sure that a host is a registry. Raises RegistryError when it is none."""
        scope = self._scope(Place(Repository(host, "")), _PULL)
        what = f"{host}: asking whether it is a registry"
        call = Call(scope, "GET", "", what, frozenset({200, 401}))
        answer = self._channel.persist(scope, lambda: self._channel.unauthorised(call))
        with answer:
            known = "Docker-Distribution-Api-Version" in answer.headers
            if answer.status == 200:
                is_registry = known or not answer.is_web_page
            else:
                is_registry = answer.status == 401 and "WWW-Authenticate" in answer.headers
            answer.start(limits.ERROR_BODY)
        if not is_registry:
            page = " with a web page" if answer.is_web_page else ""
            raise RegistryError(
                f"{host} is not a registry: GET /v2/ is answered with {answer.status}{page}",
                status=answer.status,
                hint="Check the host and the port; a proxy may have answered in its place.",
            )

    def blob_length(self, repository: Repository, digest: Digest) -> int | None:
        """Return the length a destination says a blob has there, None when it is not there.

        None also where the registry tells no length: it may then be sent again.
        """
        call = Call(
            self._own(repository, self._reading),
            "HEAD",
            f"blobs/{digest}",
            f"{repository}@{digest}",
            _FOUND,
        )
        with self._channel.call(call) as answer:
            return answer.length if answer.status == 200 else None

    def is_unknown(self, repository: Repository) -> bool:
        """Say whether a registry says that it knows nothing of a repository.

        It may hold blobs all the same: docker-registry says so until there is a manifest.
        """
        call = Call(
            self._own(repository, self._reading),
            "GET",
            "tags/list?n=1",
            f"{repository}: asking whether there is anything",
        )
        try:
            self._channel.call(call).close()
        except NotFound as error:
            return error.code in _UNKNOWN_REPOSITORY
        return False

    def require_uploads(self, repository: Repository) -> None:
        """Make sure that a repository takes uploads. Leaves nothing there.

        Raises RepositoryAbsent where it is not there and the registry does not make it.
        """
        self._uploader.probe(self._own(repository, _PUSH))

    def upload(
        self,
        repository: Repository,
        digest: Digest,
        size: int,
        pieces: Callable[[], Iterator[Bytes]],
        mount_from: str = "",
    ) -> Arrival:
        """Mount a blob from another repository at the same host, or else send it.

        ``pieces`` gives its bytes from the start, once for each attempt. Whatever it raises
        goes through at once, and the registry then never has the whole: pass it
        ``digest.verified``. ``mount_from`` is the path of the other repository, "" for none;
        that a registry would not mount is no failure. Raises RepositoryAbsent where there is
        no repository and none is made.
        """
        scope = self._own(repository, _PUSH)
        return self._uploader.upload(UploadedBlob(scope, digest, size, pieces, mount_from))

    def put_manifest(
        self, repository: Repository, target: str, raw: bytes, media_type: str
    ) -> Digest | None:
        """Put a manifest under a tag, or under its digest. Read it back to be sure.

        Return the digest under which the registry says that it has it now, if it says one.
        """
        with self._channel.call(self._put(repository, target, raw, media_type)) as answer:
            return _digest_in(answer)

    def refusal_of_digests(self, repository: Repository, media_type: str) -> RegistryError | None:
        """Return how a registry refuses whatever comes by its digest; None when that is open.

        It is asked once, to take what is no manifest of any type. So nothing is left behind,
        and a registry that would take a manifest refuses in a way that says nothing about
        digests.
        """
        name = str(digest_of(_NO_MANIFEST))
        try:
            self._channel.attempt(self._put(repository, name, _NO_MANIFEST, media_type)).close()
        except RegistryError as error:
            by_rule = error.status in _BY_RULE or error.code in _BY_RULE_CODES
            return error if by_rule else None
        except Temporary:
            pass
        return None

    def settled(
        self, repository: Repository, look: Callable[[], T], is_there: Callable[[T], bool]
    ) -> T:
        """Look at a repository until what was just written shows; return what was seen last."""
        told = self.account(repository.host).retried
        return until_it_shows(self._channel.clock, look, is_there, told)

    def read_manifest(self, repository: Repository, target: str) -> FetchedManifest:
        """Return what is under a tag, or under a digest, at a destination.

        Raises IntegrityError when by digest there are other bytes.
        """
        try:
            digest = Digest.parse(target)
        except MalformedDigest:
            digest = None
        scope = self._own(repository, self._reading)
        return self._fetch_manifest(scope, target, digest, _named(repository, target))

    def manifest_digest(self, repository: Repository, target: str) -> Digest | None:
        """Return the digest of what is under a tag or a digest, None when nothing is there.

        None also where there are other bytes than the digest's.
        """
        call = Call(
            self._own(repository, self._reading),
            "HEAD",
            f"manifests/{target}",
            _named(repository, target),
            _FOUND,
            headers=_ACCEPT,
        )
        with self._channel.call(call) as answer:
            if answer.status == 404:
                return None
            said = _digest_in(answer)
        if said is not None:
            return said
        try:  # The header is optional, and often wrong: hash what is there.
            return self.read_manifest(repository, target).digest
        except (NotFound, IntegrityError):
            return None

    def _put(self, repository: Repository, target: str, raw: bytes, media_type: str) -> Call:
        return Call(
            self._own(repository, _PUSH),
            "PUT",
            f"manifests/{target}",
            f"{_named(repository, target)}: put manifest",
            _WRITTEN,
            headers={"Content-Type": media_type},
            body=raw,
            length=len(raw),
        )

    def _scope(self, place: Place, actions: str, *further: str) -> Scope:
        host = place.repository.host
        insecure = place.insecure or self._transport.is_insecure(host)
        return Scope(place.repository, actions, insecure, further)

    def _own(self, repository: Repository, actions: str, *further: str) -> Scope:
        return self._scope(Place(repository), actions, *further)

    def _places(self, reference: ImageReference) -> list[Place]:
        return self._reachable_first(self._registries.candidates(reference))

    def _reachable_first(self, places: Iterable[Place]) -> list[Place]:
        """Return places of a source, those of a host that was out of reach last."""
        return sorted(places, key=lambda place: place.repository.host in self._unreachable)

    def _first(self, places: list[Place], fetch: Callable[[Place], T]) -> T:
        """Return what the first place gives that gives anything; the last one's error counts."""
        for place in places[:-1]:
            try:
                return fetch(place)
            except (RegistryError, IntegrityError) as error:
                self._note(place, error)
        return fetch(places[-1])

    def _note(self, place: Place, error: RegistryError | IntegrityError) -> None:
        if isinstance(error, Unreachable):
            self._unreachable.add(place.repository.host)

    def _fetch_manifest(
        self, scope: Scope, target: str, digest: Digest | None, what: str
    ) -> FetchedManifest:
        call = Call(scope, "GET", f"manifests/{target}", what, headers=_ACCEPT)
        # By tag nothing but the header tells whether the bytes are those that were sent. It is
        # often wrong, so the same bytes are believed when they arrive once more.
        doubted: set[Digest] = set() if digest is None else {digest}

        def fetch() -> FetchedManifest:
            with self._channel.attempt(call) as answer:
                if answer.is_web_page:
                    raise RegistryError(
                        f"{what}: a web page instead of a manifest",
                        hint="Something before the registry answers, perhaps a proxy's login.",
                    )
                raw = answer.read(limits.MANIFEST)
                if digest is not None:
                    _compare(raw, digest, what)
                own = digest or digest_of(raw)
                said = _digest_in(answer)
                alike = said is None or said.algorithm != own.algorithm or said == own
                if not alike and own not in doubted:
                    doubted.add(own)
                    told = f"{what}: {own} arrived, the registry calls it {said}"
                    raise Temporary(IntegrityError(told), at_once=True)
                return FetchedManifest(raw, _media_type(answer), own)

        return self._channel.persist(scope, fetch)


def _by_digest(repository: Repository, digest: Digest) -> ImageReference:
    return ImageReference(repository.host, repository.path, digest=digest)


def _named(repository: Repository, target: str) -> str:
    return f"{repository}@{target}" if ":" in target else f"{repository}:{target}"


def _compare(raw: bytes, digest: Digest, what: str) -> None:
    """Raise for other bytes than the digest's; another connection decides, once."""
    check = Check(digest, len(raw))
    check.update(raw)
    try:
        check.finish()
    except IntegrityError as error:
        raise Temporary(IntegrityError(f"{what}: {error.message}"), attempts=2) from error


def _digest_in(answer: Answer) -> Digest | None:
    """Return the digest that an answer names, if it names one."""
    try:
        return Digest.parse(answer.headers.get("Docker-Content-Digest", ""))
    except MalformedDigest:
        return None


def _media_type(answer: Answer) -> str:
    """Return the type an answer claims; "" for one that says nothing about a manifest."""
    claimed = answer.headers.get("Content-Type", "").partition(";")[0].strip()
    return "" if claimed.lower() in _SAYS_NOTHING else claimed


def _read_tags(answer: Answer) -> list[str]:
    try:
        document = strict_json.parse_object(answer.read(_TAGS_PAGE), answer.what)
    except MalformedContent as error:
        raise RegistryError(error.message) from error
    tags = document.get("tags") or []
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise RegistryError(f"{answer.what}: not a list: {printable(repr(tags))}")
    return tags


def _is_tag(repository: Repository, text: str) -> bool:
    try:
        reference = ImageReference.parse(f"{repository}:{text}")
    except MalformedReference:
        return False
    return reference.digest is None and bool(text) and reference.tag == text


def _next_page(answer: Answer) -> str:
    match = _NEXT.search(answer.headers.get("Link", ""))
    return locations.next_page(answer.url, match[1]) if match else ""
