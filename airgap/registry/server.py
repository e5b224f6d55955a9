"""A registry over HTTP, for whatever holds images and fits ``Store``.

Follows the OCI distribution specification 1.1. Strict where the specification is: content
that is not what its digest says, or that refers to what the repository lacks, is refused.
Referrers are not listed, so clients fall back to tags for them. Knows which request means
what; what it does is ``server_pull``'s and ``server_push``'s subject.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Self

from airgap.errors import AirgapError
from airgap.registry.answers import Refusal, json_response, refusal_for, repository_name, unknown
from airgap.registry.http_server import BadRequest, HttpServer, Response, tls_context
from airgap.registry.server_pull import Pulling
from airgap.registry.server_push import Pushing
from airgap.registry.store import Store, WritableStore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from airgap.registry.http_server import Request

    Endpoint = Callable[..., Response]
    """Takes the request, and the parts of the path that its pattern names, in order."""

__all__ = ["RegistryServer", "Store", "WritableStore"]

_READING = frozenset({"GET", "HEAD"})


class RegistryServer:
    """Serves a store as a registry, in threads of its own, between ``start`` and ``stop``.

    A context manager. ``read_only`` refuses what a writable store could take. The default
    address is a free port of the loopback interface. ``log`` is told one line a request.
    """

    def __init__(
        self,
        store: Store,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        read_only: bool = False,
        certificate: Path | None = None,
        key: Path | None = None,
        log: Callable[[str], None] | None = None,
    ) -> None:
        """Raise UsageError for a certificate or a key that cannot be used."""
        tls = tls_context(certificate, key) if certificate is not None else None
        self._http = HttpServer(self.respond, host, port, tls=tls, log=log)
        self._pushing: Pushing | None = None
        if isinstance(store, WritableStore) and not read_only:
            self._pushing = Pushing(store)
        self._routes = _routes(Pulling(store), self._pushing)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def host(self) -> str:
        """The ``host:port`` that stands before a repository in a reference."""
        return self._http.host

    @property
    def url(self) -> str:
        """The address with its scheme."""
        return self._http.url

    def called(self, name: str) -> str:
        """Return ``host``, with another name of this machine."""
        return self._http.called(name)

    def start(self) -> None:
        """Begin to answer. Raises UsageError when the address cannot be had."""
        self._http.start()

    def stop(self) -> None:
        """End all connections and forget unfinished uploads. Safe to call twice."""
        self._http.stop()
        if self._pushing is not None:
            self._pushing.forget()

    def respond(self, request: Request) -> Response:
        """Answer one request; whatever is refused is answered as the specification wants it."""
        try:
            return self._dispatch(request)
        except Refusal as refusal:
            return refusal.response()
        except BadRequest as error:
            return Refusal(error.status, "SIZE_INVALID", str(error)).response()
        except AirgapError as error:
            return refusal_for(error, writing=request.method not in _READING).response()

    def _dispatch(self, request: Request) -> Response:
        endpoints, parts = self._route(request.path)
        endpoint = endpoints.get(request.method)
        if endpoint is None:
            allowed = {"Allow": ", ".join(endpoints)}
            message = f"{request.method} is not supported here"
            raise Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "UNSUPPORTED", message, allowed)
        if parts:
            repository_name(parts[0])
        return endpoint(request, *parts)

    def _route(self, path: str) -> tuple[Mapping[str, Endpoint], tuple[str, ...]]:
        for pattern, endpoints in self._routes:
            if match := pattern.fullmatch(path):
                return endpoints, match.groups()
        raise unknown("UNSUPPORTED", f"endpoint {path}")


def _routes(
    pulling: Pulling, pushing: Pushing | None
) -> list[tuple[re.Pattern[str], Mapping[str, Endpoint]]]:
    """Return what answers which path and method; the first pattern that fits counts."""
    reading: dict[str, dict[str, Endpoint]] = {
        r"/v2/?": {"GET": _version, "HEAD": _version},
        r"/v2/(.+)/manifests/([^/]+)": {"GET": pulling.manifest, "HEAD": pulling.manifest},
        r"/v2/(.+)/blobs/uploads/?": {},
        r"/v2/(.+)/blobs/uploads/([^/]+)": {},
        r"/v2/(.+)/blobs/([^/]+)": {"GET": pulling.blob, "HEAD": pulling.blob},
        r"/v2/(.+)/tags/list": {"GET": pulling.tags, "HEAD": pulling.tags},
    }
    writing: dict[str, dict[str, Endpoint]] = {}
    if pushing is not None:
        writing = {
            r"/v2/(.+)/manifests/([^/]+)": {
                "PUT": pushing.put_manifest,
                "DELETE": pushing.delete_manifest,
            },
            r"/v2/(.+)/blobs/uploads/?": {"POST": pushing.begin},
            r"/v2/(.+)/blobs/uploads/([^/]+)": {
                "GET": pushing.status,
                "PATCH": pushing.append,
                "PUT": pushing.finish,
                "DELETE": pushing.cancel,
            },
        }
    return [
        (re.compile(path), {**endpoints, **writing.get(path, {})})
        for path, endpoints in reading.items()
    ]


def _version(_: Request) -> Response:
    return json_response({}, headers={"Docker-Distribution-Api-Version": "registry/2.0"})
