"""The catalogs of a question, as they are read from their images.

Knows what a catalog's own image is; refuses to know what else a plan takes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airgap import limits
from airgap.catalog.image import CatalogImage, read_image
from airgap.plan import Pin, Wanted, made_of
from airgap.reference import ImageReference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airgap.asking import Asker
    from airgap.catalog.model import Catalog
    from airgap.digest import Digest
    from airgap.oci.graph import Node
    from airgap.plan import Question
    from airgap.progress import Progress


@dataclass(frozen=True)
class Offer:
    """A catalog of a question: its reference as asked for, its image's graph, what is in it.

    ``nodes`` are what travels, with a catalog of that ``format`` at ``path`` in it. ``pin`` is
    what it was read from, None for one that was made of local files.
    """

    reference: str
    nodes: Sequence[Node]
    image: CatalogImage
    format: str
    path: str
    pin: Pin | None

    @property
    def catalog(self) -> Catalog:
        """What it offers."""
        return self.image.found.catalog

    @property
    def digest(self) -> Digest:
        """The digest of its root, as it travels."""
        return self.nodes[-1].descriptor.digest

    @property
    def wanted(self) -> Wanted:
        """Its own image, as a plan wants it: under a name that is true of what travels."""
        asked = ImageReference.parse(self.reference)
        if self.pin is None:
            name = made_here(str(asked.repository), self.digest)
        else:
            name = str(asked if asked.digest is None else asked.pinned(self.digest))
        return Wanted(name, (), (self.format, self.path, self.pin))

    @property
    def made_of(self) -> str:
        """What it is made of, "" for one that travels as it was had."""
        return made_of(self.pin, self.digest)

    @property
    def order(self) -> bytes:
        """What catalogs are sorted by in a plan."""
        return self.wanted.reference.encode()


def made_here(name: str, digest: Digest) -> str:
    """Return the reference of an image that no registry has: its tag tells its content."""
    return f"{name}:{digest.hex[:12]}"


def read_catalogs(
    question: Question,
    asker: Asker,
    progress: Progress,
    *,
    made: Sequence[Offer] = (),
    place: str = "",
) -> list[Offer]:
    """Read the catalogs of a question, and ask for no other image.

    ``made`` are those that are here already. The others are looked for at ``place`` in their
    images, "" is where these say themselves. What they hold can be read as long as the
    asker's memory has it. Raises RegistryError, CatalogError, MalformedContent,
    IntegrityError, UsageError; StorageError, Interrupted.
    """
    here = {offer.reference: offer for offer in made}
    offers = []
    for text in question.catalogs:
        offer = here.get(text) or _read(text, question.platform, asker, progress, place)
        for problem in offer.catalog.problems:
            progress.say(f"{text}: {problem}")
        offers.append(offer)
    return offers


def _read(text: str, platform: str, asker: Asker, progress: Progress, place: str) -> Offer:
    progress.stage(f"reading catalog {text}")
    nodes = asker.graph(text)
    image = read_image(nodes, platform, text, asker.content(text), place)
    found, pin = image.found, Pin(text, nodes[-1].descriptor.digest)
    return Offer(text, nodes, image, found.format, found.path, pin)


def unreadable(offers: Sequence[Offer]) -> list[tuple[str, str]]:
    """Return the parts of catalogs that cannot be read: where each is, and what is wrong."""
    faults = (f"{o.reference}: {fault}" for o in offers for fault in o.catalog.unreadable)
    return list({_place(fault): fault for fault in faults}.items())


def _place(fault: str) -> str:
    """Return where a fault is, without what it is: that is not for the archive."""
    catalog, _, rest = fault.partition(": ")
    file, _, rest = rest.partition(": ")
    document = re.match(r"document \d+(, line \d+)?", rest)
    return bounded(": ".join(filter(None, (catalog, file, document and document[0]))))


def bounded(text: str) -> str:
    """Cut a catalog's text to what an inventory holds; as a reference it then is none."""
    return text if len(text) <= limits.NAME else f"{text[: limits.NAME]}…"
