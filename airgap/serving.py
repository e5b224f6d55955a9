"""The workflow that makes a registry of something that holds images.

Joins a place and the embedded server, and knows nothing else of either.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from airgap.errors import UsageError
from airgap.registry.directory import DirectoryStore
from airgap.registry.server import RegistryServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@contextmanager
def serve_directory(
    directory: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    read_only: bool = False,
    durable: bool = True,
    certificate: Path | None = None,
    key: Path | None = None,
    log: Callable[[str], None] | None = None,
) -> Iterator[RegistryServer]:
    """Serve a directory as a registry for as long as the ``with`` block lasts.

    A new directory is made, unless it is ``read_only``. Anybody who reaches the address may
    read, and otherwise write. Raises UsageError for a directory with other content, an address
    that cannot be had or a certificate that cannot be used; StorageError.
    """
    if read_only and not directory.is_dir():
        raise UsageError(f"{directory}: there is no such directory")
    with RegistryServer(
        DirectoryStore(directory, durable=durable),
        host=host,
        port=port,
        read_only=read_only,
        certificate=certificate,
        key=key,
        log=log,
    ) as server:
        yield server
