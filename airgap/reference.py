"""Image references: the only place in the program that splits names on ``/``, ``:`` and ``@``.

Follows the reference grammar of distribution (reference.go), read the way ``oc`` reads it:
the first part of a name is a registry only when it looks like one. A reference that exists
is well-formed. This module knows nothing of what a name points to.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from airgap.digest import Digest
from airgap.errors import MalformedDigest, MalformedReference, UsageError, printable

_HOST = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)"
    r"(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*(?::[0-9]+)?",
    re.ASCII,
)
_IPV6_HOST = re.compile(r"\[[0-9A-Fa-f:.]+\](?::[0-9]+)?", re.ASCII)
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
_NAME_LENGTH = 255

_HUB_HOSTS = ("docker.io", "index.docker.io", "registry-1.docker.io")


@dataclass(frozen=True, slots=True, order=True)
class Repository:
    """A repository in a registry: ``host[:port]`` and a path."""

    host: str
    path: str

    @classmethod
    def parse(cls, text: str) -> Repository:
        """Read what ``str`` gives; the first part is always the host. Raises UsageError."""
        place = DestinationPrefix.parse(text)
        if not place.namespace:
            raise _malformed(text, "it names a registry, not a repository")
        return cls(place.host, place.namespace)

    def __str__(self) -> str:
        return f"{self.host}/{self.path}"

    @property
    def host_as_path(self) -> str:
        """The host as the first part of a path: in lower case, ``_`` before a port.

        No host has a ``_``, so two hosts never become one. The hub has one name.
        """
        return "docker.io" if is_hub(self.host) else self.host.lower().replace(":", "_")

    @property
    def as_path(self) -> str:
        """The whole name as a path below another host."""
        return f"{self.host_as_path}/{self.path}"


@dataclass(frozen=True, slots=True)
class ImageReference:
    """What an image is called: ``[registry/]path[:tag][@digest]``.

    ``registry`` and ``tag`` are "" when the text has none; ``path`` is never empty.
    """

    registry: str
    path: str
    tag: str = ""
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> ImageReference:
        """Read a reference as ``oc`` does. Raises MalformedReference."""
        if "://" in text:
            scheme = text.partition("://")[0]
            raise _malformed(text, f"a reference has no {printable(scheme, 20)}:// in front")
        name, digest = _split_digest(text)
        name, tag = _split_tag(name)
        registry, path = _split_registry(name)
        if tag and _TAG.fullmatch(tag) is None:
            raise _malformed(text, "the part after : is no tag")
        if not path:
            raise _malformed(text, "it names a registry, not an image")
        if len(name) > _NAME_LENGTH:
            raise _malformed(text, f"the name is longer than {_NAME_LENGTH} characters")
        for component in path.split("/"):
            if _COMPONENT.fullmatch(component) is None:
                raise _malformed(text, f"'{printable(component, 60)}' cannot be part of a name")
        return cls(registry, path, tag, digest)

    @classmethod
    def parse_pattern(cls, text: str) -> tuple[ImageReference, str]:
        """Read ``name:GLOB``, several images of one repository: its name, and what tags match.

        Only ``*`` is special in a glob, which is "" when there is none. Raises
        MalformedReference.
        """
        name, glob = _split_tag(text)
        if glob and _TAG.fullmatch(glob.replace("*", "_")) is None:
            raise _malformed(text, "the part after : matches no tag")
        return cls.parse(name), glob

    @property
    def exact(self) -> str:
        """The text ``oc`` prints and hashes: with the digest if there is one, else the tag."""
        name = f"{self.registry}/{self.path}" if self.registry else self.path
        if self.digest is not None:
            return f"{name}@{self.digest}"
        return f"{name}:{self.tag}" if self.tag else name

    def __str__(self) -> str:
        name = f"{self.registry}/{self.path}" if self.registry else self.path
        tag = f":{self.tag}" if self.tag else ""
        return f"{name}{tag}@{self.digest}" if self.digest is not None else name + tag

    @property
    def components(self) -> tuple[str, ...]:
        """The parts of the path."""
        return tuple(self.path.split("/"))

    @property
    def name(self) -> str:
        """The last part of the path below its namespace, as ``oc`` names manifests after it."""
        return self.path.partition("/")[2] or self.path

    @property
    def repository(self) -> Repository:
        """Where the image lives, Docker's defaults filled in."""
        full = self.with_defaults()
        return Repository(full.registry, full.path)

    def with_defaults(self) -> ImageReference:
        """Return the reference with Docker's defaults: registry, ``library/`` and ``latest``.

        ``latest`` is not added to a reference by digest.
        """
        registry = self.registry or "docker.io"
        path = self.path
        if registry in _HUB_HOSTS and "/" not in path:
            path = f"library/{path}"
        tag = self.tag or ("" if self.digest is not None else "latest")
        return ImageReference(registry, path, tag, self.digest)

    def pinned(self, digest: Digest) -> ImageReference:
        """Return the same name with that digest."""
        return replace(self, digest=digest)


@dataclass(frozen=True, slots=True)
class DestinationPrefix:
    """Where images are put: a registry and, below it, a namespace ("" for none)."""

    host: str
    namespace: str = ""

    @classmethod
    def parse(cls, text: str) -> DestinationPrefix:
        """Read ``host[:port][/namespace]``; the first part is always the registry.

        Raises UsageError.
        """
        if "://" in text:
            raise UsageError(
                f"destination '{printable(text)}': write host[:port][/namespace], without a scheme"
            )
        host, _, namespace = text.partition("/")
        if not _is_host(host):
            raise UsageError(f"destination '{printable(text)}': '{printable(host)}' is no host")
        for component in namespace.split("/") if namespace else ():
            if _COMPONENT.fullmatch(component) is None:
                raise UsageError(
                    f"destination '{printable(text)}': '{printable(component, 60)}'"
                    " cannot be part of a repository's name"
                )
        return cls(host, namespace)

    @property
    def components(self) -> tuple[str, ...]:
        """The parts of the namespace."""
        return tuple(self.namespace.split("/")) if self.namespace else ()

    def __str__(self) -> str:
        return f"{self.host}/{self.namespace}" if self.namespace else self.host


def _is_host(text: str) -> bool:
    """Say whether text is ``host[:port]``, with a port that exists."""
    if _HOST.fullmatch(text) is None and _IPV6_HOST.fullmatch(text) is None:
        return False
    port = text.rpartition("]")[2].partition(":")[2]
    # Zeros in front count for nothing, and int() refuses thousands of digits.
    return not port or 1 <= int(port.lstrip("0")[:6] or "0") <= 65535


def is_hub(host: str) -> bool:
    """Say whether a host is one of Docker Hub's names."""
    return host in _HUB_HOSTS


def _split_digest(text: str) -> tuple[str, Digest | None]:
    name, at, digest = text.partition("@")
    if not at:
        return name, None
    try:
        return name, Digest.parse(digest)
    except MalformedDigest as error:
        raise _malformed(text, "the part after @ is no digest") from error


def _split_tag(name: str) -> tuple[str, str]:
    """Cut a tag off; the colon of a port is not one.

    Without a slash, a name with a dot in its host part, or ``localhost…``, is a registry alone.
    """
    head, slash, last = name.rpartition("/")
    if not slash and ("." in name.partition(":")[0] or name.startswith("localhost")):
        return name, ""
    last, colon, tag = last.partition(":")
    if colon and not tag:
        raise _malformed(name, "there is nothing after the last :")
    return head + slash + last, tag


def _split_registry(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    looks_like_host = "." in first or ":" in first or first == "localhost"
    if not slash:
        alone = "." in first or first.startswith("localhost")
        return ("", name) if not alone else (name, "")
    if not looks_like_host and first == first.lower():
        return "", name
    if first.startswith("[") or not _is_host(first):
        raise _malformed(name, f"'{printable(first, 60)}' is no registry host")
    return first, rest


def _malformed(text: str, why: str) -> MalformedReference:
    return MalformedReference(f"not an image reference: '{printable(text)}': {why}")
