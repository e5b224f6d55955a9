"""The reading half of the embedded registry: manifests, blobs and their ranges, lists of tags.

Follows the OCI distribution specification 1.1, "Pull" and "Content discovery", and RFC 9110,
section 14, for ranges: a single range is honoured, several are answered with the whole.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from airgap.digest import Digest
from airgap.errors import printable
from airgap.registry.answers import Refusal, json_response, manifest_reference, unknown
from airgap.registry.http_server import Response

if TYPE_CHECKING:
    from airgap.registry.http_server import Request
    from airgap.registry.store import Store

_RANGE = re.compile(r"bytes=(?:([0-9]{1,18})-([0-9]{0,18})|-([0-9]{1,18}))", re.ASCII)


class Pulling:
    """Answers the requests that read from a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def manifest(self, _: Request, repository: str, reference: str) -> Response:
        """Answer GET and HEAD for a manifest."""
        found = self._store.manifest(repository, manifest_reference(reference))
        if found is None:
            raise unknown("MANIFEST_UNKNOWN", f"manifest {reference} in {repository}")
        descriptor, raw = found
        headers = {
            "Content-Type": descriptor.media_type,
            "Docker-Content-Digest": str(descriptor.digest),
            "ETag": f'"{descriptor.digest}"',
        }
        return Response(HTTPStatus.OK, headers, (raw,), len(raw))

    def blob(self, request: Request, repository: str, digest: str) -> Response:
        """Answer GET and HEAD for a blob, or GET for a range of it."""
        blob = self._store.blob(repository, Digest.parse(digest))
        if blob is None:
            raise unknown("BLOB_UNKNOWN", f"blob {digest} in {repository}")
        headers = {
            "Content-Type": "application/octet-stream",
            "Docker-Content-Digest": digest,
            "Accept-Ranges": "bytes",
            "ETag": f'"{digest}"',
        }
        wanted = _wanted_range(request, headers["ETag"], blob.size)
        if wanted is None:
            return Response(HTTPStatus.OK, headers, blob.pieces(0, blob.size), blob.size)
        headers["Content-Range"] = f"bytes {wanted[0]}-{wanted[-1]}/{blob.size}"
        body = blob.pieces(wanted.start, len(wanted))
        return Response(HTTPStatus.PARTIAL_CONTENT, headers, body, len(wanted))

    def tags(self, request: Request, repository: str) -> Response:
        """Answer GET for the list of tags, sorted without regard to case, or a page of it."""
        found = self._store.tags(repository)
        if found is None:
            raise unknown("NAME_UNKNOWN", f"repository {repository}")
        tags = sorted(found, key=_order)
        if (last := request.query.get("last")) is not None:
            tags = [tag for tag in tags if _order(tag) > _order(last)]
        page = tags[: _page_size(request, len(tags))]
        headers = {}
        if page and len(page) < len(tags):
            query = urlencode({"n": len(page), "last": page[-1]})
            headers["Link"] = f'</v2/{repository}/tags/list?{query}>; rel="next"'
        return json_response({"name": repository, "tags": page}, headers=headers)


def _order(tag: str) -> tuple[str, str]:
    return tag.lower(), tag


def _page_size(request: Request, everything: int) -> int:
    text = request.query.get("n")
    if text is None:
        return everything
    if not (text.isascii() and text.isdecimal()):
        message = f"n={printable(text)!r} is no number"
        raise Refusal(HTTPStatus.BAD_REQUEST, "PAGINATION_NUMBER_INVALID", message)
    return int(text[:18])


def _wanted_range(request: Request, etag: str, size: int) -> range | None:
    """Return the positions asked for, None for all of them. Raises Refusal (416).

    What is not one well-formed range is ignored, as RFC 9110 wants it.
    """
    if request.method != "GET" or request.headers.get("if-range", etag) != etag:
        return None
    match = _RANGE.fullmatch(request.headers.get("range", ""))
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        wanted = range(max(0, size - int(suffix)), size)
    elif last and int(last) < int(first):
        return None
    else:
        wanted = range(int(first), min(int(last) + 1, size) if last else size)
    if not wanted:
        headers = {"Content-Range": f"bytes */{size}"}
        message = f"the content has {size} bytes"
        status = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
        raise Refusal(status, "RANGE_INVALID", message, headers)
    return wanted
