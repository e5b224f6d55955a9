"""An upstream for a catalog: every image that a real catalog database names, made small.

A database names images that nobody can fetch here. The laboratory makes an image for each
reference, puts the digests of what it made into a copy of the database, makes the catalog
image that holds the copy, and pushes everything below ``HOST/<source host>/<path>``, where a
``registries.conf`` sends whoever asks for the real hosts. The same arguments give the same
digests. ``scripts/lab`` is its command line.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from airgap.catalog.read import read_local
from airgap.errors import MalformedReference
from airgap.reference import ImageReference, is_hub
from tests.support import images, lab_database

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airgap.digest import Digest
    from airgap.oci.model import Platform
    from tests.support.images import Compression, Image, Kind, Layer
    from tests.support.upstream import Upstream

CATALOG = "quay.io/lab/catalog:v1"
CATALOGS = Path(__file__).resolve().parents[1] / "data" / "catalogs"
NO_ROWS = CATALOGS / "ibm-crossplane-3cf0a5aa.db"
"""A real database with every table and no row: what a catalog of padding alone begins with."""

DATABASE_LABEL = "operators.operatorframework.io.index.database.v1"

_KIB, _MIB, _GIB = 1 << 10, 1 << 20, 1 << 30
_BASES = 4
_SEVERAL = (images.AMD64, images.ARM64, images.PPC64LE, images.S390X)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How images are made; the same recipe gives the same bytes.

    ``layers`` is the number of an image's own layers, above two that it shares with others;
    ``layer_bytes`` their mean size. ``multi_arch`` is the share of images that have an index.
    ``padding`` images are added to those the database names; ``huge_layer`` is the size of one
    layer more in one of them. The catalog image is made as ``oc adm catalog build`` did, unless
    ``labelled`` (as ``opm`` did) or ``catalog_multi_arch``.
    """

    seed: int = 0
    layers: int = 2
    layer_bytes: int = 16 * _KIB
    multi_arch: float = 0.25
    padding: int = 0
    huge_layer: int = 0
    labelled: bool = False
    catalog_multi_arch: bool = False


PRESETS: Mapping[str, Recipe] = {
    "big": Recipe(layers=3, layer_bytes=2_450 * _KIB, padding=60),
    "small": Recipe(layers=3, layer_bytes=66 * _KIB, padding=300),
    "huge-layer": Recipe(padding=1, huge_layer=2 * _GIB),
}
"""What benchmarks use: 60 images of 700 MB, 300 images of 90 MB, one image of 2 GiB."""


@dataclass(frozen=True, slots=True)
class LabImage:
    """What was pushed for one reference: the name in the new database, and all its content.

    ``repository`` is the path below the upstream's host; manifests and blobs have their sizes.
    """

    reference: str
    repository: str
    root: Digest
    manifests: Mapping[Digest, int]
    blobs: Mapping[Digest, int]


@dataclass(frozen=True, slots=True)
class Lab:
    """An upstream that was made; ``images`` by the references of the original database.

    ``skipped`` are the references that are none; they stay in the database as they are.
    """

    catalog: ImageReference
    catalog_image: LabImage
    images: Mapping[str, LabImage]
    skipped: tuple[str, ...]
    hosts: tuple[str, ...]

    @property
    def catalog_digest(self) -> Digest:
        return self.catalog_image.root

    @property
    def references(self) -> dict[str, str]:
        """The reference in the new database by the one in the original."""
        return {original: image.reference for original, image in self.images.items()}

    @property
    def content(self) -> dict[Digest, int]:
        """Every distinct manifest and blob, with its size in bytes."""
        everything: dict[Digest, int] = {}
        for image in (self.catalog_image, *self.images.values()):
            everything |= image.manifests
            everything |= image.blobs
        return everything

    @property
    def total_bytes(self) -> int:
        return sum(self.content.values())

    def registries_conf(self, host: str) -> str:
        """The configuration that sends every source host to the upstream at ``host:port``."""
        return "\n".join(
            f'[[registry]]\nprefix = "{source}"\nlocation = "{host}/{_place(source)}"\n'
            "insecure = true\n"
            for source in self.hosts
        )


def build_lab(
    database: Path | None,
    upstream: Upstream,
    *,
    recipe: Recipe | None = None,
    catalog: str = CATALOG,
) -> Lab:
    """Make all images that a database names, and the catalog image, and push them.

    Without a database the catalog has the padding's packages alone.
    """
    recipe = recipe or Recipe()
    workshop = _Workshop(recipe)
    pushing = _Pushing(workshop, upstream)
    name = ImageReference.parse(catalog).with_defaults()
    with tempfile.TemporaryDirectory(prefix="lab-") as work:
        copy = Path(work, "bundles.db")
        shutil.copyfile(database or NO_ROWS, copy)
        lab_database.pad(copy, max(recipe.padding, 1 if recipe.huge_layer else 0))
        skipped = pushing.push_all(lab_database.references(copy))
        lab_database.replace_digests(copy, pushing.digests)
        image = workshop.catalog(copy)
        upstream.push(_repository(name), image, name.tag)
    return _lab(catalog, name, image, pushing, skipped)


def build_lab_of_manifests(
    directory: Path, upstream: Upstream, *, recipe: Recipe | None = None, catalog: str = CATALOG
) -> Lab:
    """Make all images that package manifests name, and a catalog image of ``/manifests``."""
    workshop = _Workshop(recipe or Recipe())
    pushing = _Pushing(workshop, upstream)
    name = ImageReference.parse(catalog).with_defaults()
    _, found = read_local(directory)
    skipped = pushing.push_all(sorted(found.catalog.images))
    files = {"manifests/": b""}
    for path in sorted(directory.rglob("*")):
        inside = f"manifests/{path.relative_to(directory).as_posix()}"
        if path.is_dir():
            files[f"{inside}/"] = b""
            continue
        files[inside] = path.read_bytes()
        for old, new in pushing.digests.items():
            files[inside] = files[inside].replace(old.encode(), new.encode())
    image = images.image([images.layer(files)], kind="docker")
    upstream.push(_repository(name), image, name.tag)
    return _lab(catalog, name, image, pushing, skipped)


def _lab(
    catalog: str, name: ImageReference, image: Image, pushing: _Pushing, skipped: tuple[str, ...]
) -> Lab:
    named = [ImageReference.parse(text).with_defaults() for text in pushing.images]
    hosts = tuple(sorted({reference.registry for reference in (name, *named)}))
    return Lab(name, _record(catalog, _repository(name), image), pushing.images, skipped, hosts)


class _Pushing:
    """Pushes one image for each reference; the same digest or tag is the same image."""

    def __init__(self, workshop: _Workshop, upstream: Upstream) -> None:
        self.images: dict[str, LabImage] = {}
        self.digests: dict[str, str] = {}
        self._workshop = workshop
        self._upstream = upstream
        self._by_digest: dict[str, Image] = {}
        self._by_tag: dict[tuple[str, str], Image] = {}

    def push_all(self, texts: list[str]) -> tuple[str, ...]:
        """Push images for all references; return those that are none."""
        references, skipped = [], []
        for text in texts:
            try:
                references.append((text, ImageReference.parse(text).with_defaults()))
            except MalformedReference:
                skipped.append(text)
        # By digest first: a tag that one of them has as well then points to it.
        for text, reference in sorted(references, key=lambda pair: pair[1].digest is None):
            self._push(text, reference)
        return tuple(skipped)

    def _push(self, text: str, reference: ImageReference) -> None:
        repository = _repository(reference)
        place = (repository, reference.tag)
        image = self._image(reference, place)
        is_first = bool(reference.tag) and self._by_tag.setdefault(place, image) is image
        self._upstream.push(repository, image, reference.tag if is_first else "")
        if (old := reference.digest) is not None:
            self.digests[str(old)] = str(image.digest)
            text_now = text.replace(str(old), str(image.digest))
        else:
            text_now = text
        self.images[text] = _record(text_now, repository, image)

    def _image(self, reference: ImageReference, place: tuple[str, str]) -> Image:
        if reference.digest is None:
            return self._by_tag.get(place) or self._workshop.image(reference.exact)
        key = str(reference.digest)
        if key not in self._by_digest:
            self._by_digest[key] = self._workshop.image(key)
        return self._by_digest[key]


class _Workshop:
    """Makes images by a recipe; what an image is made of depends on its key alone."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._bases: dict[tuple[int, Platform], list[Layer]] = {}
        self._huge = recipe.huge_layer

    def image(self, key: str) -> Image:
        """An image, or an index of several, in OCI's or Docker's types."""
        dice = self._dice(key)
        kind: Kind = dice.choice(("oci", "docker"))
        several = dice.random() < self._recipe.multi_arch
        platforms = _SEVERAL[: dice.randint(2, len(_SEVERAL))] if several else _SEVERAL[:1]
        base = dice.randrange(_BASES)
        common = [self._layer(f"{key} common", kind)] if several else []
        found = [
            images.image(
                [*self._base(base, platform), *common, *self._own(key, platform, kind, common)],
                kind=kind,
                platform=platform,
                labels={"name": key},
            )
            for platform in platforms
        ]
        return images.index(found, kind=kind) if several else found[0]

    def catalog(self, database: Path) -> Image:
        """The image that holds the catalog's database."""
        recipe = self._recipe
        name = "database/index.db" if recipe.labelled else "bundles.db"
        labels = {DATABASE_LABEL: f"/{name}"} if recipe.labelled else {}
        top = images.file_layer(name, database)
        platforms = _SEVERAL if recipe.catalog_multi_arch else _SEVERAL[:1]
        found = [
            images.image([self._small_base(p), top], kind="docker", platform=p, labels=labels)
            for p in platforms
        ]
        return images.index(found, kind="docker") if recipe.catalog_multi_arch else found[0]

    def _own(self, key: str, platform: Platform, kind: Kind, common: list[Layer]) -> list[Layer]:
        count = self._recipe.layers - len(common)
        layers = [self._layer(f"{key} {platform} {n}", kind) for n in range(count)]
        if self._huge:
            layers.append(images.random_layer("huge", self._huge, f"{self._recipe.seed} huge"))
            self._huge = 0
        return layers

    def _layer(self, key: str, kind: Kind) -> Layer:
        dice = self._dice(key)
        size = int(self._recipe.layer_bytes * dice.uniform(0.2, 1.8))
        odd: Compression = dice.choice(("none", "zstd")) if kind == "oci" else "none"
        compression: Compression = "gzip" if dice.random() < 0.8 else odd
        return images.random_layer("content", size, dice.random().hex(), compression=compression)

    def _base(self, number: int, platform: Platform) -> list[Layer]:
        if (number, platform) not in self._bases:
            keys = (f"base {number} {platform} {n}" for n in range(2))
            # Both Docker's and OCI's images stand on it, so it has what both can name.
            self._bases[number, platform] = [self._gzip_layer(key) for key in keys]
        return self._bases[number, platform]

    def _gzip_layer(self, key: str) -> Layer:
        dice = self._dice(key)
        size = int(self._recipe.layer_bytes * dice.uniform(0.5, 2))
        return images.random_layer("base", size, dice.random().hex())

    def _small_base(self, platform: Platform) -> Layer:
        files = {"etc/": b"", "etc/os-release": b"ID=lab\n", "bin/opm": str(platform).encode()}
        return images.layer(files)

    def _dice(self, key: str) -> random.Random:
        return random.Random(f"{self._recipe.seed} {key}")


def _repository(reference: ImageReference) -> str:
    return f"{_place(reference.registry)}/{reference.path}"


def _place(host: str) -> str:
    """What a source host is called in a path; all names of Docker Hub are one."""
    return "docker.io" if is_hub(host) else host.lower().replace(":", "-")


def _record(text: str, repository: str, image: Image) -> LabImage:
    return LabImage(
        text,
        repository,
        image.digest,
        {one.digest: len(one.raw) for one in image.manifests()},
        {blob.digest: blob.size for blob in image.all_blobs()},
    )
