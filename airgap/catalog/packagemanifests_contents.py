"""What Package Manifest directories hold of their bundles beyond the model: the objects.

A bundle's objects are the first documents of all files in its CSV's own directory, without the
other CSVs there. They are kept on disk until a bundle's are together, since files come in the
order in which layers hold them.
"""

from __future__ import annotations

import itertools
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from airgap.catalog import clusterserviceversion, packagemanifests
from airgap.catalog.content import BundleContent, as_json
from airgap.catalog.notes import Notes
from airgap.storage import storage_errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from airgap.catalog.notes import Place
    from airgap.catalog.properties import Api
    from airgap.catalog.tree import Tree


@dataclass(frozen=True, slots=True)
class _Stored:
    """An object on disk; ``csv`` is its name where it is a ClusterServiceVersion."""

    place: Place
    offset: int
    size: int
    csv: str


def contents(tree: Tree, directories: Sequence[str]) -> Iterator[BundleContent]:
    """Give what directories hold of their bundles, in the order of the CSVs' paths.

    Faults were noted when the catalog was read; here they are left out. Raises StorageError
    when there is no room for the objects.
    """
    plurals: dict[str, Mapping[Api, str]] = {}
    with (
        storage_errors(Path(tempfile.gettempdir())),
        tempfile.TemporaryFile(prefix="airgap-") as file,
    ):
        by_directory: dict[str, list[_Stored]] = defaultdict(list)
        for place, document in packagemanifests.first_documents(tree, directories, Notes()):
            if "kind" not in document:
                continue
            csv = ""
            if clusterserviceversion.is_one(document):
                parsed = clusterserviceversion.parse(document)
                csv = parsed.name
                plurals.setdefault(csv, parsed.plurals)
            text = as_json(document).encode("utf-8")
            stored = _Stored(place, file.tell(), len(text), csv)
            file.write(text)
            by_directory[_directory(stored)].append(stored)
        objects = itertools.chain.from_iterable(by_directory.values())
        for csv_stored in sorted((stored for stored in objects if stored.csv), key=_place):
            beside = sorted(by_directory[_directory(csv_stored)], key=_place)
            yield _content(file, csv_stored, beside, plurals[csv_stored.csv])


def _content(
    file: BinaryIO, csv: _Stored, beside: Sequence[_Stored], plurals: Mapping[Api, str]
) -> BundleContent:
    objects = [stored for stored in beside if stored is csv or not stored.csv]
    return BundleContent(
        bundle=csv.csv,
        csv=_text(file, csv),
        objects="".join(_text(file, stored) for stored in objects),
        plurals=plurals,
    )


def _directory(stored: _Stored) -> str:
    return stored.place.path.rpartition("/")[0]


def _place(stored: _Stored) -> Place:
    return stored.place


def _text(file: BinaryIO, stored: _Stored) -> str:
    file.seek(stored.offset)
    return file.read(stored.size).decode("utf-8")
