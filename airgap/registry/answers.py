"""How the embedded registry says no, and what it takes for a name.

The error codes and their form are the OCI distribution specification's (section "Error
codes"); names are judged by the one grammar of ``reference``. Knows nothing of stores.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING

from airgap.digest import Digest
from airgap.errors import (
    AirgapError,
    IntegrityError,
    MalformedContent,
    MalformedDigest,
    MalformedReference,
    StorageError,
    printable,
)
from airgap.reference import ImageReference
from airgap.registry.http_server import Response

if TYPE_CHECKING:
    from collections.abc import Mapping

_ANY_HOST = "localhost"


class Refusal(Exception):
    """A request that is answered with one of the specification's errors."""

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        message: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers or {}

    def response(self) -> Response:
        """Return the answer, with the error as JSON."""
        error = {"code": self.code, "message": str(self), "detail": None}
        return json_response({"errors": [error]}, self.status, self.headers)


def json_response(
    document: object,
    status: HTTPStatus = HTTPStatus.OK,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return an answer whose body is a JSON document."""
    content = json.dumps(document).encode()
    all_headers = {"Content-Type": "application/json", **(headers or {})}
    return Response(status, all_headers, (content,), len(content))


def unknown(code: str, what: str) -> Refusal:
    """Return the refusal for something that is not there."""
    return Refusal(HTTPStatus.NOT_FOUND, code, f"there is no {printable(what)}")


def refusal_for(error: AirgapError, *, writing: bool) -> Refusal:
    """Return the refusal that tells a client of an error met while it was served."""
    match error:
        case MalformedDigest():
            return Refusal(HTTPStatus.BAD_REQUEST, "DIGEST_INVALID", error.message)
        case IntegrityError() if writing:
            return Refusal(HTTPStatus.BAD_REQUEST, "DIGEST_INVALID", error.message)
        case MalformedContent():
            return Refusal(HTTPStatus.BAD_REQUEST, "MANIFEST_INVALID", error.message)
        case StorageError() if writing:
            return Refusal(HTTPStatus.INSUFFICIENT_STORAGE, "UNKNOWN", error.message)
        case _:
            return Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "UNKNOWN", error.message)


def repository_name(text: str) -> str:
    """Return a repository's name as it is. Raises Refusal (NAME_INVALID)."""
    if not _is_path(text):
        message = f"{printable(text)!r} cannot be the name of a repository"
        raise Refusal(HTTPStatus.BAD_REQUEST, "NAME_INVALID", message)
    return text


def manifest_reference(text: str) -> Digest | str:
    """Return what names a manifest, a digest or a tag.

    Raises MalformedDigest, Refusal (TAG_INVALID).
    """
    if ":" in text:
        return Digest.parse(text)
    try:
        if ImageReference.parse(f"{_ANY_HOST}/any:{text}").tag == text:
            return text
    except MalformedReference:
        pass
    raise Refusal(HTTPStatus.BAD_REQUEST, "TAG_INVALID", f"{printable(text)!r} cannot be a tag")


def _is_path(text: str) -> bool:
    try:
        return ImageReference.parse(f"{_ANY_HOST}/{text}").path == text
    except MalformedReference:
        return False
