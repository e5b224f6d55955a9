"""A laboratory's upstream on disk, and a site that exports from it and imports into a registry."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airgap.registry.directory import DirectoryStore
from tests.support.command import airgap
from tests.support.faults import FaultyRegistry
from tests.support.lab import CATALOG, CATALOGS, Lab, Recipe, build_lab
from tests.support.upstream import StoreUpstream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.command import Ran

SMALL = Recipe(layer_bytes=4096)


@dataclass(frozen=True)
class Supply:
    """What a laboratory made, in a directory that any number of registries may serve."""

    folder: Path
    lab: Lab

    @classmethod
    def make(cls, folder: Path, recipe: Recipe = SMALL, *, catalog: str = CATALOG) -> Supply:
        """Make an upstream for the smallest real catalog that names images."""
        store = DirectoryStore(folder, durable=False)
        database = CATALOGS / "oc-test.db"
        lab = build_lab(database, StoreUpstream(store), recipe=recipe, catalog=catalog)
        return cls(folder, lab)


@dataclass(frozen=True)
class Site:
    """Two registries with faults to be scripted, and the command between them."""

    folder: Path
    supply: Supply
    upstream: FaultyRegistry
    destination: FaultyRegistry

    @property
    def archive(self) -> Path:
        return self.folder / "olm.tar"

    @property
    def registries_conf(self) -> Path:
        return self.folder / "registries.conf"

    @property
    def manifests(self) -> Path:
        return self.folder / "manifests"

    def export(self, *flags: object, catalog: str = CATALOG, archive: Path | None = None) -> Ran:
        """Run export; the laboratory's hosts are found at the upstream."""
        return airgap(*self.exporting(*flags, catalog=catalog, archive=archive))

    def exporting(
        self, *flags: object, catalog: str = CATALOG, archive: Path | None = None
    ) -> tuple[object, ...]:
        """Return what is typed to export."""
        where = ("-o", archive or self.archive, "--registries-conf", self.registries_conf)
        return ("export", catalog, *where, *flags)

    def import_(self, *flags: object, namespace: str = "", archive: Path | None = None) -> Ran:
        """Run import, to the destination."""
        where = self.destination.host + namespace
        into = ("--insecure", "--to-manifests", self.manifests)
        return airgap("import", archive or self.archive, where, *into, *flags)

    def mirror(self, *flags: object, catalog: str = CATALOG, namespace: str = "") -> Ran:
        """Run mirror, from the upstream to the destination."""
        where = self.destination.host + namespace
        through = ("--insecure", "--registries-conf", self.registries_conf)
        return airgap("mirror", catalog, where, *through, "--to-manifests", self.manifests, *flags)

    def tags_at_destination(self) -> set[str]:
        """Every ``repository:tag`` that the destination has."""
        store = DirectoryStore(self.folder / "destination", durable=False)
        root = self.folder / "destination" / "repositories"
        places = {path.parent for path in root.rglob("_tags")}
        names = sorted(str(place.relative_to(root)) for place in places)
        return {f"{name}:{tag}" for name in names for tag in store.tags(name) or ()}


@contextmanager
def open_site(folder: Path, supply: Supply) -> Iterator[Site]:
    """Serve an upstream and an empty destination for as long as the ``with`` block lasts."""
    with ExitStack() as stack:
        upstream, destination = (
            stack.enter_context(FaultyRegistry(DirectoryStore(place, durable=False)))
            for place in (supply.folder, folder / "destination")
        )
        site = Site(folder, supply, upstream, destination)
        site.registries_conf.write_text(supply.lab.registries_conf(upstream.host))
        yield site
