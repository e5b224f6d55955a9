"""Credentials that lie about for the wrong reader, and the wire they trip when somebody sends one.

Every credential of these tests that is planted here may reach the hosts it was configured for
and no other. The servers of ``tests/support`` show each request's headers to ``watch``; the
suite fails when a planted secret is in one that came to another host. What a run prints and
writes is shown to ``leaks``.
"""

from __future__ import annotations

import base64
import binascii
import json
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

USER = "canary"
_NETRC_PASSWORD = "netrc-canary-5c1d"
_ELSEWHERE_PASSWORD = "elsewhere-canary-9b07"
_ELSEWHERE = ("quay.io", "ghcr.io", "docker.io", "registry.redhat.io", "registry.example.com")


@dataclass
class _Wire:
    allowed: dict[str, frozenset[str]] = field(default_factory=dict)
    tripped: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


_wire = _Wire()


def plant(secret: str, *hosts: str) -> str:
    """Let a password or a token be sent to these hosts alone; gives it back."""
    with _wire.lock:
        _wire.allowed[secret] = _wire.allowed.get(secret, frozenset()) | frozenset(hosts)
    return secret


def furnish(home: Path) -> None:
    """Put credentials into a home directory that no test may send anywhere.

    The ``.netrc`` is for every machine. The login file is for real registries, none of which a
    test talks to: their content comes from a laboratory, under another host.
    """
    plant(_NETRC_PASSWORD)
    plant(_ELSEWHERE_PASSWORD)
    netrc = home / ".netrc"
    netrc.write_text(
        f"machine 127.0.0.1 login {USER} password {_NETRC_PASSWORD}\n"
        f"default login {USER} password {_NETRC_PASSWORD}\n"
    )
    login = home / ".docker" / "config.json"
    login.parent.mkdir()
    login.write_text(auth_file(dict.fromkeys(_ELSEWHERE, (USER, _ELSEWHERE_PASSWORD))))
    for file in (netrc, login):
        file.chmod(0o600)


def auth_file(logins: Mapping[str, tuple[str, str]]) -> str:
    """The text of a credential file, with a user name and a password for each host."""
    encoded = {
        host: {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}
        for host, (user, password) in logins.items()
    }
    return json.dumps({"auths": encoded})


def watch(headers: Mapping[str, str]) -> None:
    """Look for planted secrets in the headers of a request (their names in lower case)."""
    host = headers.get("host", "")
    readable = "\n".join(f"{value}\n{_decoded(value)}" for value in headers.values())
    with _wire.lock:
        for secret, allowed in _wire.allowed.items():
            if secret in readable and host not in allowed:
                _wire.tripped.append(f"{host} was sent {secret}")


def tripped() -> list[str]:
    """Return what was sent to the wrong host since the last call."""
    found, _wire.tripped = _wire.tripped, []
    return found


def leaks(written: bytes) -> set[str]:
    """Return the planted secrets that are in what a run has written, in any form they have."""
    with _wire.lock:
        secrets = set(_wire.allowed)
    return {s for s in secrets if any(form in written for form in _forms(s.encode()))}


def _decoded(value: str) -> str:
    try:
        return base64.b64decode(value.rpartition(" ")[2], validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return ""


def _forms(secret: bytes) -> list[bytes]:
    """The secret itself, and what base64 makes of it behind any user name."""
    forms = [secret]
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + secret)
        # The first and the last group may hold bits of what stands beside the secret.
        forms.append(encoded[4 if before else 0 : len(encoded) // 4 * 4 - 4])
    return forms
