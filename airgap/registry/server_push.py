"""The writing half of the embedded registry: uploads in every form, mounts, manifests, deletion.

Follows the OCI distribution specification 1.1, "Push" and "Content management". A manifest is
taken only when it is what its digest and type say and everything it refers to is there.
Upload sessions live in memory: after a restart a client begins its blob again.
"""

from __future__ import annotations

import re
import threading
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING

from airgap import limits
from airgap.digest import Check, Digest, digest_of
from airgap.errors import printable
from airgap.oci import media_types
from airgap.oci.model import Descriptor, Index, Manifest, parse_manifest
from airgap.registry.answers import Refusal, manifest_reference, repository_name, unknown
from airgap.registry.http_server import Response

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airgap.registry.http_server import Request
    from airgap.registry.store import Upload, WritableStore

_SESSION_LIFE = 3600.0
"""Seconds after which an upload that nobody continues is forgotten."""

_CONTENT_RANGE = re.compile(r"([0-9]{1,18})-([0-9]{1,18})", re.ASCII)


@dataclass(eq=False, slots=True)
class _Session:
    """An upload between two requests; ``busy`` while one of them writes."""

    id: str
    repository: str
    upload: Upload
    busy: threading.Lock = field(default_factory=threading.Lock)
    touched: float = field(default_factory=time.monotonic)


class Pushing:
    """Answers the requests that change a store."""

    def __init__(self, store: WritableStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._sessions: dict[str, _Session] = {}

    def forget(self) -> None:
        """Discard every unfinished upload."""
        with self._lock:
            sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            session.upload.discard()

    def begin(self, request: Request, repository: str) -> Response:
        """Answer POST: mount a blob, take one in a single request, or open a session."""
        query = request.query
        if "mount" in query and "from" in query:
            digest = Digest.parse(query["mount"])
            if self._store.mount(repository, digest, repository_name(query["from"])):
                return _created_blob(repository, digest)
        if "digest" in query:
            return self._take_whole(request, repository)
        session = _Session(uuid.uuid4().hex, repository, self._store.upload(repository))
        self._forget_the_abandoned()
        with self._lock:
            self._sessions[session.id] = session
        return _progress(session, HTTPStatus.ACCEPTED)

    def status(self, _: Request, repository: str, session_id: str) -> Response:
        """Answer GET for a session: how much of it has arrived."""
        return _progress(self._session(repository, session_id), HTTPStatus.NO_CONTENT)

    def append(self, request: Request, repository: str, session_id: str) -> Response:
        """Answer PATCH: take the next chunk."""
        with self._claimed(repository, session_id) as session:
            _write(session, request)
        return _progress(session, HTTPStatus.ACCEPTED)

    def finish(self, request: Request, repository: str, session_id: str) -> Response:
        """Answer PUT: take the last chunk, or none, and make a blob of the session."""
        digest = _digest_parameter(request)
        with self._claimed(repository, session_id) as session:
            _write(session, request)
            self._drop(session)
            try:
                session.upload.commit(digest)
            finally:
                session.upload.discard()
        return _created_blob(repository, digest)

    def cancel(self, _: Request, repository: str, session_id: str) -> Response:
        """Answer DELETE for a session."""
        with self._claimed(repository, session_id) as session:
            self._drop(session)
            session.upload.discard()
        return Response(HTTPStatus.NO_CONTENT)

    def put_manifest(self, request: Request, repository: str, reference: str) -> Response:
        """Answer PUT for a manifest, by digest or by tag."""
        wanted = manifest_reference(reference)
        raw = request.body.read(limits.MANIFEST)
        digest = wanted if isinstance(wanted, Digest) else digest_of(raw)
        check = Check(digest, len(raw))
        check.update(raw)
        check.finish()
        said = request.headers.get("content-type", "").partition(";")[0].strip()
        content = parse_manifest(raw, said, f"manifest {digest}")
        self._require_references(repository, content)
        descriptor = Descriptor(digest, len(raw), content.media_type)
        tag = wanted if isinstance(wanted, str) else ""
        self._store.put_manifest(repository, descriptor, raw, tag)
        return _created(f"/v2/{repository}/manifests/{digest}", digest)

    def delete_manifest(self, _: Request, repository: str, reference: str) -> Response:
        """Answer DELETE for a manifest by digest, or for a tag."""
        wanted = manifest_reference(reference)
        if isinstance(wanted, Digest):
            deleted = self._store.delete_manifest(repository, wanted)
        else:
            deleted = self._store.delete_tag(repository, wanted)
        if not deleted:
            raise unknown("MANIFEST_UNKNOWN", f"manifest {reference} in {repository}")
        return Response(HTTPStatus.ACCEPTED)

    def _take_whole(self, request: Request, repository: str) -> Response:
        digest = _digest_parameter(request)
        upload = self._store.upload(repository)
        try:
            for piece in request.body:
                upload.write(piece)
            upload.commit(digest)
        finally:
            upload.discard()
        return _created_blob(repository, digest)

    def _require_references(self, repository: str, content: Manifest | Index) -> None:
        """Raise Refusal when something a manifest refers to is absent, or of another size."""
        for descriptor in _references(content):
            size = self._size(repository, descriptor, isinstance(content, Index))
            if size is None:
                message = f"{descriptor.digest} is not in {repository}"
                raise Refusal(HTTPStatus.BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN", message)
            if size != descriptor.size:
                message = f"{descriptor.digest} has {size} bytes, not {descriptor.size}"
                raise Refusal(HTTPStatus.BAD_REQUEST, "MANIFEST_INVALID", message)

    def _size(self, repository: str, descriptor: Descriptor, is_manifest: bool) -> int | None:
        if is_manifest:
            found = self._store.manifest(repository, descriptor.digest)
            return None if found is None else found[0].size
        blob = self._store.blob(repository, descriptor.digest)
        return None if blob is None else blob.size

    def _session(self, repository: str, session_id: str) -> _Session:
        with self._lock:
            session = self._sessions.get(session_id)
        if session is None or session.repository != repository:
            raise unknown("BLOB_UPLOAD_UNKNOWN", f"upload {session_id} in {repository}")
        return session

    @contextmanager
    def _claimed(self, repository: str, session_id: str) -> Iterator[_Session]:
        """Have a session to oneself. Raises Refusal (409) while another request writes to it."""
        session = self._session(repository, session_id)
        if not session.busy.acquire(blocking=False):
            message = f"another request writes to upload {session_id}"
            raise Refusal(HTTPStatus.CONFLICT, "BLOB_UPLOAD_INVALID", message)
        try:
            yield self._session(repository, session_id)  # it may have ended in the meantime
        finally:
            session.touched = time.monotonic()
            session.busy.release()

    def _drop(self, session: _Session) -> None:
        with self._lock:
            self._sessions.pop(session.id, None)

    def _forget_the_abandoned(self) -> None:
        oldest = time.monotonic() - _SESSION_LIFE
        with self._lock:
            abandoned = [s for s in self._sessions.values() if s.touched < oldest]
        for session in abandoned:
            if session.busy.acquire(blocking=False):
                self._drop(session)
                session.upload.discard()


def _write(session: _Session, request: Request) -> None:
    """Append a request's body. Raises Refusal (416) for a chunk that does not come next."""
    _require_next(session, request)
    for piece in request.body:
        session.upload.write(piece)


def _require_next(session: _Session, request: Request) -> None:
    said = request.headers.get("content-range")
    if said is None:
        return
    match = _CONTENT_RANGE.fullmatch(said.removeprefix("bytes "))
    if match is None:
        message = f"Content-Range {printable(said)!r} is not first-last"
        raise Refusal(HTTPStatus.BAD_REQUEST, "BLOB_UPLOAD_INVALID", message)
    first, last = int(match[1]), int(match[2])
    if first != session.upload.size:
        message = f"the next byte is {session.upload.size}, not {first}"
        status = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
        raise Refusal(status, "BLOB_UPLOAD_INVALID", message, _whereabouts(session))
    if request.body.length is not None and last - first + 1 != request.body.length:
        message = f"Content-Range {said} with a body of {request.body.length} bytes"
        raise Refusal(HTTPStatus.BAD_REQUEST, "SIZE_INVALID", message)


def _progress(session: _Session, status: HTTPStatus) -> Response:
    return Response(status, _whereabouts(session))


def _whereabouts(session: _Session) -> dict[str, str]:
    return {
        "Location": f"/v2/{session.repository}/blobs/uploads/{session.id}",
        "Range": f"0-{max(0, session.upload.size - 1)}",
        "Docker-Upload-UUID": session.id,
    }


def _digest_parameter(request: Request) -> Digest:
    return Digest.parse(request.query.get("digest", ""))


def _references(content: Manifest | Index) -> Iterator[Descriptor]:
    """Yield what must be there before a manifest is."""
    if isinstance(content, Index):
        yield from content.manifests
        return
    yield content.config
    for layer in content.layers:
        if not media_types.is_foreign_layer(layer.media_type):
            yield layer


def _created_blob(repository: str, digest: Digest) -> Response:
    return _created(f"/v2/{repository}/blobs/{digest}", digest)


def _created(location: str, digest: Digest) -> Response:
    headers = {"Location": location, "Docker-Content-Digest": str(digest)}
    return Response(HTTPStatus.CREATED, headers)
