"""A catalog of an image reduced to a selection, as files for one more layer on that image.

Decides what is written, and reads it again: what would not be exactly what was decided is
refused. How a format is written is its own module's; how a layer is made is nobody's here.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airgap.catalog import filebased, formats, rebuild_filebased, rebuild_sqlite, sqlite
from airgap.catalog.graph import named
from airgap.catalog.reduce import reduced
from airgap.catalog.tree import LocalFile, LocalTree
from airgap.errors import CatalogError, UsageError, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Set
    from pathlib import Path

    from airgap.catalog.model import Catalog
    from airgap.catalog.read import Found
    from airgap.catalog.select import Places
    from airgap.catalog.tree import Tree

_WHOLE = "Take the catalog as it is, without rebuilding it."

_FLAG = re.compile(r"--cache-(dir|enforce-integrity|only)(=.*)?", re.DOTALL)
_FLAG_IN_TEXT = re.compile(
    r"(?:^|\s+)--cache-(?:dir(?:=\S*|\s+\S+)|(?:enforce-integrity|only)(?:=\S*)?)(?!\S)"
)
"""Where a shell is given all words as one."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """The files of a layer, by their paths in the image, on the local disk.

    Of the ``opaque`` directories nothing older may be seen. ``remarks`` are lines for a person.
    """

    files: tuple[tuple[str, Path], ...]
    opaque: tuple[str, ...]
    remarks: tuple[str, ...]


def rebuild(
    tree: Tree,
    found: Found,
    places: Places,
    default_channels: Mapping[str, str],
    directory: Path,
) -> Rebuilt:
    """Write the catalog that was found in an image, reduced to ``places``, into ``directory``.

    The directory must be empty, and stays as long as the files are wanted. ``places`` and
    ``default_channels`` are as in ``reduced``. Raises UsageError for package manifests and when
    nothing is left, CatalogError for a catalog that cannot be written so that it is read as
    what was decided, StorageError.
    """
    if found.format == formats.PACKAGE_MANIFESTS:
        raise UsageError(
            "a catalog of package manifests cannot be rebuilt: what replaces what stands inside"
            " its ClusterServiceVersions",
            hint=_WHOLE,
        )
    catalog = reduced(found.catalog, places, default_channels)
    if not catalog.packages:
        raise UsageError(
            "the catalog cannot be rebuilt: nothing that is selected stands in a channel",
            hint=_WHOLE,
        )
    write = _database if found.format == formats.SQLITE else _documents
    path = posixpath.normpath(found.path)
    files, opaque, without_csv, remarks = write(tree, path, catalog, directory)
    unlisted = _unlisted(found.catalog, catalog, without_csv)
    return Rebuilt(files, opaque, (*catalog.problems, *remarks, *unlisted))


def serving_command(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return an image's configuration whose command asks for no cache of catalog content.

    ``opm serve`` refuses to start where a cache that was made beforehand is about another
    content; without ``--cache-dir`` it makes one. Everything else stays as it is.
    """
    inner = config.get("config")
    if not isinstance(inner, dict):
        return dict(config)
    changed = dict(inner)
    value_follows = False
    for key in ("Entrypoint", "Cmd"):
        if isinstance(inner.get(key), list):
            changed[key], value_follows = _without_cache(inner[key], value_follows)
    return {**config, "config": changed}


_Parts = tuple[tuple[tuple[str, "Path"], ...], tuple[str, ...], "Set[str]", tuple[str, ...]]
"""What is in ``Rebuilt``, with the bundles without a ClusterServiceVersion before the remarks."""


def _database(tree: Tree, path: str, catalog: Catalog, directory: Path) -> _Parts:
    file = tree.find(path)
    if file is None:
        raise CatalogError(f"{printable(path)}: gone, where a database was a moment ago")
    target = directory / "index.db"
    without_csv = rebuild_sqlite.write(file, catalog, target)
    _require_same(catalog, sqlite.read(LocalFile.at(target)), path)
    return ((path, target),), (), without_csv, ()


def _documents(tree: Tree, path: str, catalog: Catalog, directory: Path) -> _Parts:
    if path == ".":
        raise CatalogError(
            "the catalog is all of its image, and cannot be replaced in it", hint=_WHOLE
        )
    target = directory / "configs"
    written = rebuild_filebased.write(tree, path, catalog, target)
    _require_same(catalog, filebased.read(LocalTree(target), ""), path)
    name = rebuild_filebased.FILE
    files = tuple(
        (f"{path}/{package}/{name}", target / str(number) / name)
        for number, package in enumerate(written.directories)
    )
    return files, (path,), written.without_csv, written.remarks


def _require_same(decided: Catalog, written: Catalog, path: str) -> None:
    """Raise CatalogError when a catalog is not read as the one that was decided on."""
    if (written.packages, written.bundles, written.other_images) != (
        decided.packages,
        decided.bundles,
        (),
    ):
        raise CatalogError(
            f"{printable(path)}: cannot be reduced: what is written would be read as another"
            " catalog",
            hint=_WHOLE,
        )


def _unlisted(before: Catalog, now: Catalog, without_csv: Set[str]) -> Iterator[str]:
    """Say which channels have a new head that clusters cannot list, for want of its description."""
    heads = {
        (p.name, channel.name): channel.head for p in before.packages for channel in p.channels
    }
    for package in now.packages:
        for channel in package.channels:
            is_new = heads[package.name, channel.name] != channel.head
            if is_new and channel.head in without_csv:
                yield (
                    f"package {printable(package.name)}: the catalog has no ClusterServiceVersion"
                    f" of {named([channel.head])}, which is the head of channel"
                    f" {printable(channel.name)} now; clusters do not list such a channel"
                )


def _without_cache(words: Iterable[Any], value_follows: bool) -> tuple[list[Any], bool]:
    """Return a command's words without the flags, and whether a flag's value is still to come."""
    kept = []
    for word in words:
        flag = _FLAG.fullmatch(word) if isinstance(word, str) else None
        if value_follows:
            value_follows = False
        elif flag:
            value_follows = flag[1] == "dir" and flag[2] is None
        else:
            kept.append(_FLAG_IN_TEXT.sub("", word) if isinstance(word, str) else word)
    return kept, value_follows
