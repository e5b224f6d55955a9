"""A client and a registry whose every answer a test writes; one kind of it takes uploads."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from airgap.digest import digest_of
from airgap.oci import media_types
from airgap.reference import ImageReference, Repository
from airgap.registry.client import RegistryClient
from airgap.registry.credentials import AuthFile, Credential, Credentials
from airgap.registry.registries_conf import RegistriesConf
from airgap.registry.transport import Transport
from tests.support.http import Asked, FakeClock, Reply, Server, json_reply, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import ExitStack

OCI = media_types.OCI_MANIFEST
BLOB = bytes(range(256)) * 1000
DIGEST = digest_of(BLOB)
SIZE = len(BLOB)


class World:
    """A scripted registry and a client of it."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self.clock = FakeClock()
        self.server = self.serve(lambda _: Reply(404))
        self.host = self.server.host
        self.repository = Repository(self.host, "ns/repo")

    def serve(self, script: Callable[[Asked], Reply]) -> Server:
        return self.stack.enter_context(serve(script))

    def answer(self, *replies: Reply | Callable[[Asked], Reply]) -> None:
        """Give these replies in order, the last one for ever."""
        left = list(replies)

        def script(asked: Asked) -> Reply:
            if asked.path == "/v2/" and len(self.server.asked) == 1:
                return Reply(200)  # the question whether there is TLS
            reply = left.pop(0) if len(left) > 1 else left[0]
            return reply if isinstance(reply, Reply) else reply(asked)

        self.server.script = script

    def client(self, conf: str = "", *more: Server, **keys: Credential) -> RegistryClient:
        insecure = frozenset({self.host, *(server.host for server in more)})
        transport = Transport(environ={}, insecure=insecure, clock=self.clock)
        registries = RegistriesConf()
        if conf:
            path = Path(self.stack.enter_context(tempfile.TemporaryDirectory())) / "registries.conf"
            path.write_text(conf)
            registries = RegistriesConf.read(path)
        known = Credentials((AuthFile(Path("auth.json"), keys, {}),))
        return self.stack.enter_context(RegistryClient(transport, known, registries))

    def reference(self, suffix: str = ":1") -> ImageReference:
        return ImageReference.parse(f"{self.host}/ns/repo{suffix}")

    def blob(self, offset: int = 0, size: int = SIZE) -> bytes:
        return b"".join(self.client().blob(self.repository, DIGEST, size, offset))

    def asked(self, method: str) -> list[Asked]:
        return [asked for asked in self.server.asked if asked.method == method]

    @property
    def ranges(self) -> list[str | None]:
        return [asked.headers["Range"] for asked in self.asked("GET") if asked.path != "/v2/"]


def error(status: int, code: str, message: str = "text", **headers: str) -> Reply:
    reply = json_reply({"errors": [{"code": code, "message": message}]}, status)
    return replace(reply, headers={**reply.headers, **headers})


class Uploads:
    """A registry that takes uploads, strictly; ``refuse`` may answer in its place.

    It mounts what it has from any repository.
    """

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.sessions: dict[str, bytes] = {}
        self.opened = 0
        self.refuse: Callable[[Asked], Reply | None] = lambda _: None

    def __call__(self, asked: Asked) -> Reply:
        parts = urlsplit(asked.path)
        refusal = self.refuse(asked)
        if refusal is not None:
            return refusal
        if asked.method == "POST" and parse_qs(parts.query).get("mount", [""])[0] in self.blobs:
            return Reply(201)
        if asked.method == "POST":
            self.opened += 1
            name = f"{parts.path}{self.opened}"
            self.sessions[name] = b""
            return Reply(202, {"Location": f"{name}?_state=a%2Bb"})
        if asked.method == "HEAD":
            content = self.blobs.get(parts.path.rpartition("/")[2])
            return Reply(404) if content is None else Reply(200, {}, content)
        if asked.method == "GET" and parts.path in self.sessions:
            return Reply(204, {"Location": asked.path, "Range": self._range(parts.path)})
        if asked.method == "GET":
            return Reply(200 if parts.path == "/v2/" else 404)
        if parts.path not in self.sessions or parse_qs(parts.query)["_state"] != ["a+b"]:
            return Reply(404)
        content = self.sessions[parts.path] + asked.body
        if asked.method == "PATCH":
            self.sessions[parts.path] = content
            return Reply(202, {"Location": asked.path, "Range": self._range(parts.path)})
        digest = parse_qs(parts.query)["digest"][0]
        if str(digest_of(content)) != digest:
            return error(400, "DIGEST_INVALID")
        self.blobs[digest] = content
        return Reply(201, {"Location": f"/v2/x/blobs/{digest}"})

    def _range(self, session: str) -> str:
        return f"0-{max(0, len(self.sessions[session]) - 1)}"


def pieces_of(content: bytes) -> Callable[[], Iterator[bytes]]:
    size = max(1000, len(content) // 99)
    return lambda: (content[at : at + size] for at in range(0, len(content), size))
