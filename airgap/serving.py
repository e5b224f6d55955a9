"""The workflow that makes a registry of something that holds images.

Joins a place and the embedded server, and knows nothing else of either.
"""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airgap.archive.reader import ArchiveReader
from airgap.archive.store import ArchiveStore
from airgap.archive.volumes import holds_volumes
from airgap.errors import UsageError
from airgap.mapping import DEFAULT_COMPONENTS
from airgap.plan import blob_holes, plan_holes
from airgap.reference import DestinationPrefix
from airgap.registry.directory import DirectoryStore, is_registry
from airgap.registry.registries_conf import drop_in
from airgap.registry.server import RegistryServer
from airgap.shelves import by_mapping, by_source, mirrored_hosts, names_of, together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from airgap.archive.reader import VolumeFile
    from airgap.digest import Digest
    from airgap.plan import Missing

_EVERY_ADDRESS = ("", "0.0.0.0", "::")


@dataclass(frozen=True)
class ServedArchive:
    """An archive that is served at ``url``, and known to its clients as ``address``.

    ``images`` are those that are whole here, ``missing`` all others. ``volumes`` are all that
    there are of an archive in several, and () of one in one file. ``catalogs`` are the names of
    its catalogs here, ``registries_conf`` is what makes clients come here for the names of the
    sources. ``notes`` are lines for a person.
    """

    archive: Path
    id: Digest
    url: str
    address: str
    images: int
    missing: tuple[Missing, ...]
    volumes: tuple[VolumeFile, ...]
    catalogs: tuple[str, ...]
    registries_conf: str
    notes: tuple[str, ...]


def is_archive_asked(paths: Sequence[Path]) -> bool:
    """Say whether paths are about an archive, and not a directory of registry content.

    Raises StorageError when a directory cannot be listed.
    """
    if len(paths) > 1:
        return True
    (path,) = paths
    if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises for some names
        return not is_registry(path) and holds_volumes(path)
    return os.path.lexists(path) or path.suffix == ".tar"


@contextmanager
def serve_archive(
    paths: Sequence[Path],
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    name: str = "",
    max_components: int = DEFAULT_COMPONENTS,
    certificate: Path | None = None,
    key: Path | None = None,
    log: Callable[[str], None] | None = None,
    say: Callable[[str], None],
) -> Iterator[ServedArchive]:
    """Serve an archive as a registry to read from for as long as the ``with`` block lasts.

    ``paths`` are any files and directories that hold its volumes; of those that are not here
    nothing is served. ``name`` is the host that clients know, for what is said. ``say`` is told
    a line for all that is asked for and cannot be given, ``log`` one for each request.

    Raises UsageError when there is no archive, for an address that cannot be had or a
    certificate that cannot be used; Busy, ArchiveError when its head is damaged, StorageError.
    """
    name = name or (socket.gethostname() if host in _EVERY_ADDRESS else host)
    with ArchiveReader(paths) as reader:
        reader.require_sound_head()
        plan = reader.plan
        shelves, notes = by_source(plan), list(reader.notes)
        notes += (problem.message for problem in reader.check_tables())
        try:
            shelves = together(shelves, by_mapping(plan, DestinationPrefix(name), max_components))
        except UsageError as error:
            notes.append(f"served under the names of the sources only: {error.message}")
        with RegistryServer(
            ArchiveStore(reader, shelves, say),
            host=host,
            port=port,
            certificate=certificate,
            key=key,
            log=log,
        ) as server:
            not_whole = blob_holes(plan, reader.absent)
            address = server.called(name)
            yield ServedArchive(
                archive=reader.path,
                id=reader.id,
                url=server.url,
                address=address,
                images=len(plan.images) - len(not_whole),
                missing=(*plan_holes(plan, {}), *not_whole),
                volumes=reader.volume_files(),
                catalogs=tuple(
                    f"{address}/{name}"
                    for number in sorted(plan.catalog_images)
                    for name in names_of(number, shelves)
                ),
                registries_conf=drop_in(
                    {host: f"{address}/{part}" for host, part in mirrored_hosts(plan).items()},
                    insecure=certificate is None,
                ),
                notes=tuple(notes),
            )


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
