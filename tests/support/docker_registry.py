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


class DockerRegistry:
    """One that can be killed and started again; ``host`` is its ``host:port``, always the same."""

    def __init__(self, directory: Path, *, closed: bool = False) -> None:
        if _PROGRAM is None:
            pytest.skip("docker-registry is not installed")
        directory.mkdir(parents=True, exist_ok=True)
        self._port = _free_port()
        self._directory = directory
        self._configuration = directory / "docker-registry.yml"
        self._process: subprocess.Popen[bytes] | None = None
        self.host = f"127.0.0.1:{self._port}"
        text = _CONFIGURATION.format(directory=directory, port=self._port)
        if closed:
            (directory / "htpasswd").write_text(_HTPASSWD)
            text += _LOGIN.format(path=directory / "htpasswd")
        self._configuration.write_text(text)

    def start(self) -> None:
        """Start it, and wait until it is up."""
        log = _log(self._directory)
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [str(_PROGRAM), "serve", str(self._configuration)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        _wait_until_up(self._process, self._port, log)

    def kill(self) -> None:
        """End it at once, whatever it is doing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def collect_garbage(self) -> None:
        """Remove what no manifest refers to, as an operator does with the registry running."""
        command = [str(_PROGRAM), "garbage-collect", str(self._configuration)]
        subprocess.run(command, check=True, capture_output=True, timeout=_PATIENCE)


@contextmanager
def docker_registry(directory: Path, *, closed: bool = False) -> Iterator[str]:
    """Run a registry over plain HTTP that stores below ``directory``; gives its ``host:port``.

    One that is ``closed`` wants ``LOGIN``. A directory that an earlier registry has filled is
    served again. Skips the test when the program is not installed.
    """
    with running_registry(directory, closed=closed) as registry:
        yield registry.host


@contextmanager
def running_registry(directory: Path, *, closed: bool = False) -> Iterator[DockerRegistry]:
    """Run a registry as ``docker_registry`` does; gives the registry itself."""
    registry = DockerRegistry(directory, closed=closed)
    try:
        registry.start()
        yield registry
    finally:
        registry.kill()


def requests_served(directory: Path) -> int:
    """Return how many requests registries that store there have answered."""
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
