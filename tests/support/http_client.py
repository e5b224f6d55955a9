"""One HTTP request, as plainly as it can be sent; for looking at a registry from outside."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; headers are looked up in any case."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def codes(self) -> list[str]:
        """The error codes in a registry's refusal."""
        return [error["code"] for error in self.json["errors"]]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    host: str,
    method: str,
    path: str,
    body: bytes | Iterable[bytes] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Send a request over a connection of its own; an iterable body goes in chunks."""
    connection = http.client.HTTPConnection(host, timeout=10)
    try:
        connection.request(
            method,
            path,
            body,
            dict(headers or {}),
            encode_chunked=not isinstance(body, bytes | None),
        )
        with connection.getresponse() as response:
            return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()
