"""Catalogs reduced to what is taken of them: one more layer on the image, for every platform.

Refuses to know what a selection is for, and where the new image goes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from airgap.catalog.graph import named
from airgap.catalog.image import read_variant, variants
from airgap.catalog.rebuild import rebuild, serving_command
from airgap.catalog.select import select
from airgap.errors import UsageError, printable
from airgap.oci.build import Addition, with_layers
from airgap.oci.layer import write_layer
from airgap.storage import storage_errors, temporary_directory

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airgap.asking import Asker
    from airgap.catalog.select import Places, Selection
    from airgap.digest import Digest
    from airgap.offers import Offer
    from airgap.progress import Progress


def rebuild_catalog(
    offer: Offer,
    selection: Selection,
    default_channels: Mapping[str, str],
    asker: Asker,
    progress: Progress,
) -> Offer:
    """Return the catalog with nothing in it but what is selected, in an image of its own.

    ``default_channels`` are wishes, by package. What is new is kept in the asker's memory.
    Raises UsageError for what cannot be rebuilt, or as wished, CatalogError, MalformedContent,
    StorageError, and what asking for the other platforms' layers raises.
    """
    asked = select(offer.catalog, selection)
    _refuse_wishes_that_are_not_taken(offer, asked.places, default_channels)
    progress.stage(f"rebuilding catalog {offer.reference}")
    content = asker.content(offer.reference)
    additions: dict[Digest, Addition] = {}
    remarks: dict[str, None] = {}
    with temporary_directory() as folder:
        for number, variant in enumerate(variants(offer.nodes)):
            image = read_variant(variant, offer.reference, content)
            selected = select(image.found.catalog, selection)
            if more := sorted(selected.images.keys() - asked.images.keys()):
                remarks[
                    f"its variant for {variant.platform} wants {len(more)} images that are not"
                    f" taken, {printable(more[0])} for one"
                ] = None
            files, layer = folder / str(number), folder / f"{number}.layer"
            with storage_errors(files):
                files.mkdir()
            rebuilt = rebuild(image.tree, image.found, selected.places, default_channels, files)
            written = write_layer(dict(rebuilt.files), rebuilt.opaque, layer)
            asker.remember(written.digest, written.size, layer)
            additions[variant.digest] = Addition(written, serving_command)
            remarks |= dict.fromkeys(rebuilt.remarks)
    built = with_layers(offer.nodes, additions, content)
    asker.keep(built)
    for remark in (*remarks, *built.remarks):
        progress.say(f"{offer.reference}: {remark}")
    return replace(offer, nodes=built.nodes)


def _refuse_wishes_that_are_not_taken(
    offer: Offer, places: Places, default_channels: Mapping[str, str]
) -> None:
    for package, wish in default_channels.items():
        taken = sorted(channel for name, channel in places if name == package)
        if wish not in taken:
            raise UsageError(
                f"{offer.reference}: package {printable(package)}: '{printable(wish)}' is to be its"
                f" default channel, and what is taken are {named(taken)}",
                hint="Take that channel as well, or name one of these.",
            )
