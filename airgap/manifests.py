"""The manifests directory: the files that tell a cluster, and people, what is where now.

Each file is replaced whole, files of other names stay as they are. The same archive imported
into the same destination gives the same bytes.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from airgap import cluster
from airgap.cluster import Scope
from airgap.errors import MalformedReference
from airgap.mapping import mapping_text
from airgap.reference import ImageReference
from airgap.storage import replace_file, storage_errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airgap.cluster import Announced
    from airgap.digest import Digest
    from airgap.mapping import Target
    from airgap.plan import Missing
    from airgap.receipt import Receipt


RECEIPT = "receipt.json"


@dataclass(frozen=True)
class ManifestsOptions:
    """Where the files go (None: a directory named after catalog and archive), and their shape.

    ``max_icsp_size`` bounds each mirror set, in bytes.
    """

    directory: Path | None = None
    icsp_scope: Scope = Scope.REPOSITORY
    idms_scope: Scope = Scope.REPOSITORY
    max_icsp_size: int = cluster.LARGEST_DOCUMENT


@dataclass(frozen=True)
class Written:
    """The directory, and the names of the files in it that were written."""

    directory: Path
    files: tuple[str, ...]


def prepare_manifests(
    options: ManifestsOptions,
    archive: Digest,
    asked: Sequence[ImageReference],
    places: Sequence[Target],
) -> Path:
    """Find out what would be refused at the end, before anything is pushed.

    Returns the directory, which need not exist yet. Raises StorageError where it cannot be
    written, and UsageError for a size limit that a single entry exceeds.
    """
    directory = _directory(options, archive, asked)
    with storage_errors(directory):
        _require_writable(directory)
    _mirror_sets(options, cluster.resource_name(asked[0]), places)
    return directory


def _directory(options: ManifestsOptions, archive: Digest, asked: Sequence[ImageReference]) -> Path:
    name = f"manifests-{cluster.resource_name(asked[0])}-{archive.hex[:8]}"
    return options.directory or Path(name)


def _mirror_sets(options: ManifestsOptions, name: str, targets: Sequence[Target]) -> dict[str, str]:
    limit, idms_scope = options.max_icsp_size, options.idms_scope
    return {
        "imageContentSourcePolicy.yaml": cluster.image_content_source_policy(
            name, targets, scope=options.icsp_scope, limit=limit
        ),
        "imageDigestMirrorSet.yaml": cluster.image_digest_mirror_set(
            name, targets, scope=idms_scope, limit=limit
        ),
        "imageTagMirrorSet.yaml": cluster.image_tag_mirror_set(
            name, targets, scope=idms_scope, limit=limit
        ),
    }


def write_manifests(
    options: ManifestsOptions,
    *,
    archive: Digest,
    asked: Sequence[ImageReference],
    arrived: Sequence[Target],
    catalogs: Sequence[Announced],
    places: Sequence[Target],
    missing: Sequence[Missing],
    made: dict[ImageReference, str] | None = None,
    receipt: Receipt | None,
) -> Written:
    """Write the directory: from ``arrived`` and ``catalogs``, never from what did not arrive.

    Where nothing has arrived it stays as it is: an earlier run may have left what still holds.
    ``asked`` names the directory and the mirror sets, ``made`` says what images are that no
    registry has under their names. A receipt is left alone where there is
    none to write. Raises StorageError, and UsageError for a size limit that a single entry
    exceeds.
    """
    directory = _directory(options, archive, asked)
    if not (arrived or catalogs):
        return Written(directory, ())
    name = cluster.resource_name(asked[0])
    contents = cluster_files(options, name, places, arrived, catalogs, missing, made)
    if receipt is not None:
        contents[RECEIPT] = receipt.text()
    return put_files(directory, contents)


def cluster_files(
    options: ManifestsOptions,
    name: str,
    places: Sequence[Target],
    arrived: Sequence[Target],
    catalogs: Sequence[Announced],
    missing: Sequence[Missing],
    made: dict[ImageReference, str] | None = None,
) -> dict[str, str]:
    """Return the files for a cluster by their names; one without content is not needed.

    Raises UsageError for a size limit that a single entry exceeds.
    """
    return {
        "mapping.txt": mapping_text(places, reasons(missing), made),
        **_mirror_sets(options, name, arrived),
        "catalogSource.yaml": cluster.catalog_sources(catalogs),
        "clusterCatalog.yaml": cluster.cluster_catalogs(catalogs),
    }


def put_files(directory: Path, contents: dict[str, str]) -> Written:
    """Put each file under its name, whole; take away one that has no content. StorageError."""
    with storage_errors(directory):
        _require_writable(directory)
        directory.mkdir(parents=True, exist_ok=True)
    for file, content in contents.items():
        _replace(directory / file, content)
    return Written(directory, tuple(file for file, content in contents.items() if content))


def _require_writable(directory: Path) -> None:
    """Raise OSError where a directory cannot be made, or nothing be put into it."""
    there = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    if not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(there))
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(there))


def _replace(path: Path, content: str) -> None:
    """Put content under a name; a file that has nothing to say must not say yesterday's."""
    if content:
        replace_file(path, content.encode())
    else:
        with storage_errors(path):
            path.unlink(missing_ok=True)


def reasons(missing: Sequence[Missing]) -> dict[ImageReference, str]:
    """Return why images are missing, by both names a mapping may have for them."""
    found = {}
    for image in missing:
        with suppress(MalformedReference):  # Without a name there is no line to comment out.
            reference = ImageReference.parse(image.reference)
            found[reference] = found[reference.with_defaults()] = image.reason
    return found
