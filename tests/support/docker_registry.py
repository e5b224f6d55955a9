"""Debian's ``docker-registry`` as a real registry on loopback, one process a test."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PROGRAM = shutil.which("docker-registry")
_PATIENCE = 20.0

needs_docker_registry = pytest.mark.skipif(
    _PROGRAM is None, reason="docker-registry is not installed"
)

_CONFIGURATION = """\
version: 0.1
log: {{level: warn}}
storage:
  filesystem: {{rootdirectory: "{directory}"}}
  delete: {{enabled: true}}
http:
  addr: 127.0.0.1:{port}
"""

_LOGIN = """\
auth:
  htpasswd: {{realm: lab, path: "{path}"}}
"""

LOGIN = ("operator", "secret-of-the-lab")
"""Who may use a registry that is closed."""

_HTPASSWD = "operator:$2b$05$abcdefghijklmnopqrstuuqGHYMbQ50W.2jS6H50rIGh6XLFdVt92\n"


@contextmanager
def docker_registry(directory: Path, *, closed: bool = False) -> Iterator[str]:
    """Run a registry over plain HTTP that stores below ``directory``; gives its ``host:port``.

    One that is ``closed`` wants ``LOGIN``. A directory that an earlier registry has filled is
    served again. Skips the test when the program is not installed.
    """
    if _PROGRAM is None:
        pytest.skip("docker-registry is not installed")
    directory.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    configuration = directory / "docker-registry.yml"
    text = _CONFIGURATION.format(directory=directory, port=port)
    if closed:
        (directory / "htpasswd").write_text(_HTPASSWD)
        text += _LOGIN.format(path=directory / "htpasswd")
    configuration.write_text(text)
    log = _log(directory)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [_PROGRAM, "serve", str(configuration)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_until_up(process, port, log)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def requests_served(directory: Path) -> int:
    """Return how many requests a registry that stores there has answered since its start."""
    return _log(directory).read_text().count(' HTTP/1.1" ')


def _log(directory: Path) -> Path:
    return directory / "docker-registry.log"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_up(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"docker-registry ended at once: {log.read_text()}")
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"docker-registry is not up after {_PATIENCE} s: {log.read_text()}")
