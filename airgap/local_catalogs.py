"""Catalogs on the local disk, made into images, because a cluster needs one to serve.

The same files give the same image, layer for layer. Knows what such an image holds and how a
base serves it; refuses to know what is taken of the catalog.
"""

from __future__ import annotations

import os
import posixpath
import re
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airgap.catalog import as_database, filebased
from airgap.catalog.formats import CONFIGS_LABEL, DATABASE_LABEL, FILE_BASED, SQLITE
from airgap.catalog.image import CatalogImage, variants
from airgap.catalog.read import read_local
from airgap.errors import CatalogError, UsageError, printable
from airgap.oci.build import Addition, of_one_layer, with_layers
from airgap.oci.layer import write_layer
from airgap.offers import Offer, made_here
from airgap.storage import temporary_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from airgap.asking import Asker
    from airgap.catalog.tree import LocalListing, LocalTree, StoredFile
    from airgap.progress import Progress

_HOST = "localhost"
"""The registry in the names of images that no registry has; podman's word for it."""

_NAME = 63
"""Characters of a directory's name in its image's; what is announced is not longer either."""

_ALONE = (
    "its image is the catalog alone, and must be served by an operator-registry; --base IMAGE"
    " puts it on one"
)
_MEND = "A cluster serves nothing of a directory with a file that it cannot read: mend the files."

_LABELS = frozenset({CONFIGS_LABEL, DATABASE_LABEL})


@dataclass(frozen=True)
class _Kind:
    """How an image holds a catalog of a kind, and what the programs that serve it are told."""

    format: str
    place: str
    label: str
    commands: Mapping[str, Sequence[str]]

    @property
    def labels(self) -> dict[str, str]:
        return {self.label: f"/{self.place}"}


_DATABASE = _Kind(
    SQLITE,
    "bundles.db",
    DATABASE_LABEL,
    {
        "opm": ("registry", "serve", "--database", "/bundles.db"),
        "registry-server": ("--database", "/bundles.db"),
    },
)
_CONFIGS = _Kind(FILE_BASED, "configs", CONFIGS_LABEL, {"opm": ("serve", "/configs")})


@dataclass(frozen=True)
class Made:
    """A catalog as ``typed`` that was made into an image, on an image ``base``, "" for none."""

    typed: str
    base: str
    offer: Offer

    def bring(self, asker: Asker) -> None:
        """Make sure that the memory has all of the image, its base as well."""
        content = asker.content(self.base or self.offer.reference)
        for blob in {blob for node in self.offer.nodes for blob in node.blobs}:
            content.open(blob).close()


def is_local(catalog: str) -> bool:
    """Say whether a catalog as typed is on the local disk."""
    # Path.exists raises for names that are too long for one, as references may be.
    return os.path.exists(catalog)  # noqa: PTH110


def refuse_inside(catalogs: Iterable[str], output: Path) -> None:
    """Raise UsageError where a file would be written into a catalog on the local disk."""
    for text in filter(is_local, catalogs):
        if Path(text).is_dir() and output.resolve().is_relative_to(Path(text).resolve()):
            raise UsageError(
                f"{printable(str(output))}: is in the directory of the catalog {printable(text)},"
                " and would become a part of it",
                hint="Write to another directory.",
            )


def make_catalogs(
    catalogs: Iterable[str], base: str, asker: Asker, progress: Progress
) -> dict[str, Made]:
    """Make an image of each catalog that is on the local disk, by what was typed.

    The catalog is one layer, over the image ``base`` or over nothing, and the beginning of the
    image's digest is its tag. Raises UsageError, CatalogError, StorageError, and what asking
    for the base raises.
    """
    local = (text for text in catalogs if is_local(text))
    return {text: _make(Path(text), base, asker, progress) for text in local}


def _make(path: Path, base: str, asker: Asker, progress: Progress) -> Made:
    shown = printable(str(path))
    progress.stage(f"making an image of {shown}")
    try:
        image = _read(path)
    except CatalogError as error:
        raise CatalogError(f"{shown}: {error.message}", hint=error.hint) from error
    kind = _CONFIGS if image.found.format == FILE_BASED else _DATABASE
    remarks: dict[str, None] = dict.fromkeys(_left_out(image))
    with temporary_directory() as folder:
        # What a base has in the same place would be served too.
        opaque = [kind.place] if base and kind is _CONFIGS else []
        layer = write_layer(_files(kind, image, path, folder), opaque, folder / "layer")
        asker.remember(layer.digest, layer.size, folder / "layer")
    if base:
        nodes, on_base = asker.graph(base), Addition(layer, _serving(kind, base, remarks))
        additions = dict.fromkeys((leaf.digest for leaf in variants(nodes)), on_base)
        built = with_layers(nodes, additions, asker.content(base))
    else:
        built = of_one_layer(layer, labels=kind.labels)
        remarks[_ALONE] = None
    asker.keep(built)
    for remark in (*remarks, *built.remarks):
        progress.say(f"{shown}: {remark}")
    name = re.sub("[^a-z0-9]+", "-", path.resolve().name.lower())[:_NAME].strip("-")
    reference = made_here(f"{_HOST}/{name or 'catalog'}", built.root.digest)
    offer = Offer(reference, built.nodes, image, kind.format, kind.place, None)
    return Made(str(path), base, offer)


def _files(kind: _Kind, image: CatalogImage, path: Path, folder: Path) -> dict[str, Path | bytes]:
    """Return the layer's files: those of a file-based catalog as they are, else a database."""
    if kind is _CONFIGS:
        return {f"{kind.place}/{file.path}": path / file.path for file in image.tree.files()}
    as_database.save(image.tree, image.found, folder / kind.place)
    return {kind.place: folder / kind.place}


@dataclass(frozen=True, slots=True)
class _Sound:
    """A ``Tree`` without the files that are ``broken``."""

    whole: LocalTree
    broken: frozenset[str]

    def files(self) -> Iterator[StoredFile]:
        return (file for file in self.whole.files() if file.path not in self.broken)

    def find(self, path: str) -> StoredFile | None:
        return None if path in self.broken else self.whole.find(path)

    def listing(self, directory: str) -> LocalListing | None:
        found = self.whole.listing(directory)
        if found is None:
            return None
        files = tuple(file for file in found.files if file.path not in self.broken)
        return replace(found, files=files)

    def read_all(self, paths: Iterable[str]) -> Iterator[tuple[str, Iterator[bytes]]]:
        return self.whole.read_all(path for path in paths if path not in self.broken)


def _read(path: Path) -> CatalogImage:
    """Read a catalog; of file-based ones without the files that have a fault.

    These go into the image as they are, and a cluster serves nothing of a directory with a
    file that cannot be read. Raises CatalogError, also when no file is left.
    """
    tree, found = read_local(path)
    image, faults = CatalogImage(tree, found), found.catalog.unreadable
    sound = _Sound(tree, frozenset())
    while found.format == FILE_BASED and (more := _broken(image)):
        sound = _Sound(tree, sound.broken | more)
        if not any(sound.files()):
            raise CatalogError(f"no file of it can be read whole: {faults[0]}", hint=_MEND)
        catalog = filebased.read(sound, found.path)
        image = CatalogImage(sound, replace(found, catalog=catalog))
        faults += tuple(fault for fault in catalog.unreadable if fault not in faults)
    catalog = replace(image.found.catalog, unreadable=faults)
    return CatalogImage(image.tree, replace(found, catalog=catalog))


def _broken(image: CatalogImage) -> frozenset[str]:
    """Return the files that faults are about."""
    places = {
        place
        for fault in image.found.catalog.unreadable
        for place in accumulate(fault.split(": "), "{}: {}".format)
    }
    return frozenset(file.path for file in image.tree.files() if printable(file.path) in places)


def _left_out(image: CatalogImage) -> Iterator[str]:
    broken = image.tree.broken if isinstance(image.tree, _Sound) else ()
    for path in sorted(broken):
        yield f"{printable(path)} has a fault and is left out of the image"


def _serving(
    kind: _Kind, base: str, remarks: dict[str, None]
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return what makes a base's configuration serve the catalog, or remarks that it does not."""

    def configure(configuration: dict[str, Any]) -> dict[str, Any]:
        inner = _mapping(configuration.get("config"))
        labels = _mapping(inner.get("Labels"))
        others = {key: value for key, value in labels.items() if key not in _LABELS}
        words = (*_words(inner.get("Entrypoint")), *_words(inner.get("Cmd")))
        program = words[0] if words else ""
        command = kind.commands.get(posixpath.basename(program))
        if command is not None:
            inner |= {"Entrypoint": [program], "Cmd": list(command)}
        else:
            remarks[
                f"the program of {printable(base)} is not {' or '.join(kind.commands)}: its command"
                f" stays as it is, and must serve /{kind.place}"
            ] = None
        return {**configuration, "config": {**inner, "Labels": others | kind.labels}}

    return configure


def _mapping(value: object) -> dict[str, Any]:
    return dict(value) if isinstance(value, dict) else {}


def _words(value: object) -> list[str]:
    return [str(word) for word in value] if isinstance(value, list) else []
