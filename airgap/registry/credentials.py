"""Finding the credential for a repository, the way ``oc``, podman and docker find it.

Knows the files (containers-auth.json(5), docker's config.json), their keys and the protocol
of credential helpers. Refuses to know how a credential is used: that is ``auth``'s. Nothing a
file or a helper holds ever reaches an error message.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from airgap import limits, strict_json
from airgap.errors import MalformedContent, UsageError, printable
from airgap.reference import is_hub

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airgap.reference import Repository

_HUB_KEY = "docker.io"
_HUB_SERVER = "https://index.docker.io/v1/"
_HELPER_NAME = re.compile(r"[a-z0-9-]+", re.ASCII)
_HELPER_SECONDS = 30
_NO_CREDENTIALS = b"credentials not found in native keychain"
_IDENTITY_TOKEN_USER = "<token>"


@dataclass(frozen=True, slots=True)
class Credential:
    """A user name with a password, or an identity token (an OAuth2 refresh token).

    ``origin`` names the file and the key it comes from, for messages. Neither ``repr`` nor
    ``str`` shows more than that.
    """

    origin: str
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    def basic(self) -> str:
        """Return the value of an ``Authorization`` header by RFC 7617, in UTF-8."""
        pair = f"{self.username}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode('ascii')}"


@dataclass(frozen=True, slots=True)
class AuthFile:
    """One credential file: what it holds, and which helpers it names, by normalised key."""

    path: Path
    entries: Mapping[str, Credential]
    helpers: Mapping[str, str]
    store: str = ""

    @classmethod
    def read(cls, path: Path) -> AuthFile:
        """Read a credential file. Raises UsageError, which never quotes what the file holds."""
        try:
            document = strict_json.parse_object(_bounded_bytes(path), str(path))
        except MalformedContent as error:
            raise UsageError(error.message) from error
        entries: dict[str, Credential] = {}
        for key, entry in _object(document, "auths", path).items():
            credential = _credential(entry, f"{path}: {printable(key, 100)}")
            if credential is not None:
                entries[normalised(key)] = credential
        helpers = {
            normalised(key): _helper_name(name, path)
            for key, name in _object(document, "credHelpers", path).items()
        }
        store = document.get("credsStore") or ""
        return cls(path, entries, helpers, _helper_name(store, path) if store else "")


class Credentials:
    """All credentials of a run. Safe for several threads; helpers run at most once a server."""

    def __init__(self, files: tuple[AuthFile, ...] = (), environ: Mapping[str, str] | None = None):
        self._files = files
        self._environ = dict(environ or {})
        self._asked: dict[tuple[str, str], Credential | UsageError | None] = {}
        self._lock = Lock()

    @classmethod
    def load(cls, explicit: Path | None, environ: Mapping[str, str], home: Path) -> Credentials:
        """Read the file that was named, or else every default file there is.

        The order is: ``explicit``, ``$REGISTRY_AUTH_FILE``, ``$REG_CREDS``; an empty value
        counts as not given. Of the default files, the first that knows a repository is
        believed. Raises UsageError for a malformed file, and for a named one that is missing.
        """
        named = _named(explicit, environ)
        if named is not None:
            path, source = named
            if not path.exists():
                raise UsageError(f"no credential file {path}, which {source} names")
            return cls((AuthFile.read(path),), environ)
        found = tuple(AuthFile.read(path) for path in _defaults(environ, home) if path.exists())
        return cls(found, environ)

    @property
    def warnings(self) -> list[str]:
        """Say what is unwise about the files, one line each: others than the owner may read."""
        return [
            f"{file.path} can be read by other users: chmod 600 {file.path}"
            for file in self._files
            if file.path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH)
        ]

    def find(self, repository: Repository) -> Credential | None:
        """Return the credential for a repository; the longest key that is a prefix wins.

        Raises UsageError when a credential helper fails.
        """
        for file in self._files:
            for key in _keys(repository):
                if key in file.helpers:
                    return self._ask(file.helpers[key], repository.host, file)
                if key in file.entries:
                    return file.entries[key]
            if file.store:
                stored = self._ask(file.store, repository.host, file)
                if stored is not None:
                    return stored
        return None

    def _ask(self, helper: str, host: str, file: AuthFile) -> Credential | None:
        server = _HUB_SERVER if is_hub(host) else host
        with self._lock:
            if (helper, server) not in self._asked:
                what = f"{file.path}: credential helper {helper} for {server}"
                try:
                    self._asked[helper, server] = _run_helper(helper, server, self._environ, what)
                except UsageError as error:
                    self._asked[helper, server] = error
            answer = self._asked[helper, server]
        if isinstance(answer, UsageError):
            raise answer
        return answer


def normalised(key: str) -> str:
    """Return a key in the form ``host[:port][/namespace]``, Docker Hub under one name.

    A key with a scheme names a host only, whatever its path. There are no wildcards, and a
    key with a user name in it matches nothing.
    """
    bare, scheme = re.subn(r"^https?://", "", key, flags=re.IGNORECASE)
    host, slash, path = bare.rstrip("/").partition("/")
    host = host.lower()
    if is_hub(host):
        host = _HUB_KEY
    return host if scheme else host + slash + path


def _keys(repository: Repository) -> Iterator[str]:
    host = _HUB_KEY if is_hub(repository.host) else repository.host.lower()
    parts = repository.path.split("/")
    for length in range(len(parts), 0, -1):
        yield "/".join((host, *parts[:length]))
    yield host


def _named(explicit: Path | None, environ: Mapping[str, str]) -> tuple[Path, str] | None:
    if explicit is not None and explicit != Path():  # an empty value arrives as Path("")
        return explicit, "-a/--registry-config"
    for variable in ("REGISTRY_AUTH_FILE", "REG_CREDS"):
        if environ.get(variable):
            return Path(environ[variable]), f"${variable}"
    return None


def _defaults(environ: Mapping[str, str], home: Path) -> Iterator[Path]:
    if environ.get("XDG_RUNTIME_DIR"):
        yield Path(environ["XDG_RUNTIME_DIR"]) / "containers" / "auth.json"
    config = environ.get("XDG_CONFIG_HOME")
    yield (Path(config) if config else home / ".config") / "containers" / "auth.json"
    docker = environ.get("DOCKER_CONFIG")
    yield (Path(docker) if docker else home / ".docker") / "config.json"


def _bounded_bytes(path: Path) -> bytes:
    """Read a regular file of bounded size; a FIFO must not block, a device must not flood."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - of a descriptor, not of a path
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UsageError(f"{path}: not a regular file")
            raw = file.read(limits.CONFIGURATION_FILE + 1)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    if len(raw) > limits.CONFIGURATION_FILE:
        raise UsageError(f"{path}: larger than {limits.CONFIGURATION_FILE} bytes")
    return raw


def _object(document: dict[str, Any], key: str, path: Path) -> dict[str, Any]:
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UsageError(f"{path}: {key} is not an object")
    return value


def _credential(entry: Any, where: str) -> Credential | None:
    """Read one entry; one without secrets only marks that a store holds them."""
    if not isinstance(entry, dict):
        raise UsageError(f"{where}: the entry is not an object")
    auth, token = entry.get("auth") or "", entry.get("identitytoken") or ""
    if not isinstance(auth, str) or not isinstance(token, str):
        raise UsageError(f"{where}: auth or identitytoken is not text")
    if not auth and not token:
        return None
    username, password = _user_and_password(auth, where) if auth else ("", "")
    return _checked(Credential(where, username, password, token))


def _user_and_password(auth: str, where: str) -> tuple[str, str]:
    try:
        username, colon, password = base64.b64decode(auth, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        # Without its cause: the cause quotes the secret.
        raise UsageError(f"{where}: auth is not base64 of user:password") from None
    if not colon or not username:
        raise UsageError(f"{where}: auth is not base64 of user:password")
    return username, password.rstrip("\0")  # docker pads with NUL


def _checked(credential: Credential) -> Credential:
    for secret in (credential.username, credential.password, credential.identity_token):
        if any(character < " " or character == "\x7f" for character in secret):
            raise UsageError(f"{credential.origin}: the credential holds a control character")
    return credential


def _helper_name(name: Any, path: Path) -> str:
    if not isinstance(name, str) or _HELPER_NAME.fullmatch(name) is None:
        raise UsageError(f"{path}: the name of a credential helper is not made of a-z, 0-9 and -")
    return name


def _run_helper(
    helper: str, server: str, environ: Mapping[str, str], what: str
) -> Credential | None:
    """Ask ``docker-credential-HELPER get``; None when it says that it knows no credential."""
    command = [f"docker-credential-{helper}", "get"]
    try:
        done = subprocess.run(
            command,
            input=server.encode(),
            capture_output=True,
            timeout=_HELPER_SECONDS,
            env=environ,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise UsageError(f"{what}: no answer within {_HELPER_SECONDS} seconds") from error
    except OSError as error:
        raise UsageError(f"{what}: cannot run {command[0]}: {error.strerror}") from error
    if done.returncode != 0:
        if _NO_CREDENTIALS in done.stdout:
            return None
        said = printable(done.stderr.decode("utf-8", "replace").strip())
        raise UsageError(f"{what}: ended with status {done.returncode}: {said}")
    return _helper_answer(done.stdout, what)


def _helper_answer(raw: bytes, what: str) -> Credential:
    try:
        answer = strict_json.parse_object(raw, what)
    except MalformedContent as error:
        raise UsageError(error.message) from error
    username, secret = answer.get("Username"), answer.get("Secret")
    if not isinstance(username, str) or not isinstance(secret, str):
        raise UsageError(f"{what}: the answer has no Username and Secret")
    if username == _IDENTITY_TOKEN_USER:
        return _checked(Credential(what, identity_token=secret))
    return _checked(Credential(what, username, secret))
