"""Everything that can go wrong, and the exit status it ends with.

    AirgapError                     1  a bug, when it is raised bare
    ├── UsageError                  2  the command, a flag or a configuration file is wrong
    │   ├── MalformedReference      2  text that is no image reference
    │   ├── MalformedDigest         2  text that is no digest
    │   ├── Blocked                 2  registries.conf lets nothing come from there
    │   ├── Busy                    2  another process holds the archive
    │   └── AlreadyFinished         2  an archive is whole, and is not what is asked for now
    ├── Refused                     4  content or format is not what it must be
    │   ├── IntegrityError          4  bytes differ from the digest or size that was promised
    │   ├── MalformedContent        4  a manifest or other document breaks its specification
    │   ├── ArchiveError            4  not an archive, or a damaged, cut or foreign one
    │   └── CatalogError            4  no catalog where one was promised, or an unreadable one
    ├── RegistryError               5  a registry refused, or could not be reached
    │   ├── Unreachable             5  no connection, no TLS, no answer, or only temporary failures
    │   ├── AccessDenied            5  401 or 403
    │   └── NotFound                5  404: absent, or hidden from these credentials
    ├── StorageError                6  no space, read-only, or the medium has gone
    └── Interrupted               130  asked to stop; the same command continues

Families are by who must act: the operator (2), whoever made the content (4), whoever runs
the registry (5), whoever owns the disk (6). Status 3, "finished with holes", is no
exception: a result says it. This module knows no other module of the program.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class AirgapError(Exception):
    """What went wrong, for a person: ``message`` says what and where, ``hint`` what to do next."""

    exit_status = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(AirgapError):
    """The command line, a flag or a configuration file cannot be used as it is."""

    exit_status = 2


class MalformedReference(UsageError):
    """Text that is no image reference."""


class MalformedDigest(UsageError):
    """Text that is no digest."""


class Blocked(UsageError):
    """registries.conf blocks a registry, or maps an image to no repository."""


class Busy(UsageError):
    """Another process holds the archive."""


class AlreadyFinished(UsageError):
    """A finished archive is not what is asked for now, and does not change: make a new one."""


class Refused(AirgapError):
    """Content, signature or format is not what it must be."""

    exit_status = 4


class IntegrityError(Refused):
    """Bytes differ from the digest or the size that was promised for them."""


class MalformedContent(Refused):
    """A manifest, or another document from outside, breaks its specification."""


class ArchiveError(Refused):
    """A file is no archive, or a damaged, shortened or foreign one."""


class CatalogError(Refused):
    """There is no catalog where one was promised, or it cannot be read."""


class RegistryError(AirgapError):
    """A registry refused a request, or answered what it must not.

    ``status`` is the HTTP status of the last answer, or None when there was none; ``code`` the
    error code that it carried, printable, or "".
    """

    exit_status = 5

    def __init__(
        self, message: str, *, status: int | None = None, code: str = "", hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.code = code


class Unreachable(RegistryError):
    """No connection, no TLS, no answer in time, or only temporary failures until the last try."""


class AccessDenied(RegistryError):
    """The registry wants other credentials, or none will do (401, 403)."""


class NotFound(RegistryError):
    """The registry says it has no such thing; it may also hide it from these credentials (404)."""


class StorageError(AirgapError):
    """The local file system or medium cannot do what is needed: full, read-only, gone."""

    exit_status = 6


class Interrupted(AirgapError):
    """The run was asked to stop, and stopped; the same command continues."""

    exit_status = 130

    def __init__(self, message: str = "interrupted") -> None:
        super().__init__(message, hint="Run the same command again to continue.")


HOLES = 3
"""The exit status of a run that finished, with listed holes."""

_PRECEDENCE = (130, 143, 6, 2, 4, 5, 3, 1, 0)


def worst(statuses: Iterable[int]) -> int:
    """Return the one exit status that stands for several; 0 for none."""
    return min(statuses, key=_PRECEDENCE.index, default=0)


def printable(text: str, limit: int = 200) -> str:
    """Return foreign text fit for a terminal: control characters escaped, length bounded.

    Content from a registry, a catalog or a medium may hold terminal escapes or characters
    that reverse the reading direction; nothing of it is printed unescaped.
    """
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)
