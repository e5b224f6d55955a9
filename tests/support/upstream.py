"""Where test images are put: into a store without HTTP, or over HTTP into any registry."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING, Protocol, Self
from urllib.parse import urlencode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airgap.digest import Digest
    from airgap.registry.store import WritableStore
    from tests.support.images import Blob, Image

_BLOCK = 1 << 20
_TIMEOUT = 60.0


class Upstream(Protocol):
    """A place that takes images."""

    def push(self, repository: str, image: Image, tag: str = "") -> None:
        """Put an image, with everything below it, into a repository."""


def put(store: WritableStore, repository: str, image: Image, tag: str = "") -> None:
    """Put an image into a store."""
    StoreUpstream(store).push(repository, image, tag)


class StoreUpstream:
    """Puts images into a store; a blob that it has put before is mounted."""

    def __init__(self, store: WritableStore) -> None:
        self._store = store
        self._known: dict[Digest, str] = {}

    def push(self, repository: str, image: Image, tag: str = "") -> None:
        for blob in image.all_blobs():
            self._push_blob(repository, blob)
        for manifest in image.manifests():
            own = tag if manifest is image else ""
            self._store.put_manifest(repository, manifest.descriptor, manifest.raw, own)

    def _push_blob(self, repository: str, blob: Blob) -> None:
        source = self._known.setdefault(blob.digest, repository)
        if self._store.mount(repository, blob.digest, source):
            return
        upload = self._store.upload(repository)
        try:
            for piece in blob.pieces():
                upload.write(piece)
            upload.commit(blob.digest)
        finally:
            upload.discard()


class RegistryUpstream:
    """Pushes images over plain HTTP to ``host:port``; a context manager.

    A blob that it has pushed before is mounted, the others are sent in chunks of HTTP. The
    ``headers`` go with every request.
    """

    def __init__(self, host: str, headers: Mapping[str, str] | None = None) -> None:
        self._headers = headers or {}
        self._connection = http.client.HTTPConnection(host, timeout=_TIMEOUT, blocksize=_BLOCK)
        self._known: dict[Digest, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def push(self, repository: str, image: Image, tag: str = "") -> None:
        for blob in image.all_blobs():
            self._push_blob(repository, blob)
        for manifest in image.manifests():
            reference = tag if tag and manifest is image else str(manifest.digest)
            path = f"/v2/{repository}/manifests/{reference}"
            headers = {"Content-Type": manifest.descriptor.media_type}
            self._ask("PUT", path, (201,), manifest.raw, headers)

    def _push_blob(self, repository: str, blob: Blob) -> None:
        source = self._known.setdefault(blob.digest, repository)
        digest = {"digest": str(blob.digest)}
        start = f"/v2/{repository}/blobs/uploads/"
        if source != repository:
            start += "?" + urlencode({"mount": str(blob.digest), "from": source})
        elif self._has(repository, blob):
            return
        status, location = self._ask("POST", start, (201, 202))
        if status == 202:
            _, location = self._ask("PATCH", location, (202,), blob.pieces())
            joint = "&" if "?" in location else "?"
            self._ask("PUT", location + joint + urlencode(digest), (201,))

    def _has(self, repository: str, blob: Blob) -> bool:
        path = f"/v2/{repository}/blobs/{blob.digest}"
        return self._ask("HEAD", path, (200, 404))[0] == 200

    def _ask(
        self,
        method: str,
        path: str,
        expected: tuple[int, ...],
        body: bytes | Iterable[bytes | memoryview] | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, str]:
        """Return the status and the Location; complain about any other status."""
        sent = {"Content-Type": "application/octet-stream", **(headers or {})} if body else {}
        # Every piece of an iterable becomes a chunk; an empty one would end the body.
        content = body if body is None or isinstance(body, bytes) else filter(len, body)
        sent = {**self._headers, **sent}
        self._connection.request(
            method, path, content, sent, encode_chunked=not isinstance(content, bytes | None)
        )
        with self._connection.getresponse() as response:
            answer = response.read()
        if response.status not in expected:
            raise RuntimeError(f"{method} {path}: {response.status} {answer[:500]!r}")
        return response.status, response.headers.get("Location", "")
