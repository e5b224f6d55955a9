"""The inventory, ``airgap.json``: a plan as bytes, and back.

One JSON object, written one record a line, so that a plan of a hundred thousand blobs is read
and written without ever being one string. Same plan, same bytes. The archive's id is the
SHA-256 of these bytes. Readers keep to the lines; any JSON reader can read the whole.
Knows the format's version and nothing of where the bytes stand.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from airgap import limits, strict_json
from airgap.digest import Digest
from airgap.errors import AirgapError, ArchiveError, printable
from airgap.oci import media_types
from airgap.plan import (
    Blob,
    Bundle,
    CatalogImage,
    Hole,
    Image,
    Manifest,
    Pin,
    Plan,
    Question,
    Reason,
    Share,
)
from airgap.reference import ImageReference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

FORMAT = 2
"""The major version; a reader refuses a higher one and ignores keys it does not know.

An archive that assumes nothing is written in version 1, which every reader knows.
"""

Record = TypeVar("Record")


def lines(plan: Plan) -> Iterator[bytes]:
    """Yield the inventory of a plan, line by line."""
    sections: list[tuple[str, Iterator[dict[str, Any]]]] = [
        ("catalogs", (_catalog_record(plan, catalog) for catalog in plan.catalogs)),
        ("bundles", ({"name": b.name, "packages": b.packages} for b in plan.bundles)),
        ("manifests", map(_manifest_record, plan.manifests)),
        ("blobs", map(_blob_record, plan.blobs)),
        ("images", map(_image_record, plan.images)),
        ("holes", map(_hole_record, plan.holes)),
    ]
    if plan.archives:
        sections.append(("archives", ({"id": str(archive)} for archive in plan.archives)))
    question = _question_record(plan.question)
    yield f'{{"airgap":{FORMAT if plan.archives else 1},\n'.encode()
    yield f'"question":{_json(question)},\n'.encode()
    for position, (name, records) in enumerate(sections):
        yield f'"{name}":[\n'.encode()
        pending: str | None = None
        for record in records:
            if pending is not None:
                yield f"{pending},\n".encode()
            pending = _json(record)
        if pending is not None:
            yield f"{pending}\n".encode()
        yield b"],\n" if position < len(sections) - 1 else b"]}\n"


def parse(source: Iterable[bytes], what: str) -> Plan:
    """Read an inventory from its lines; ``what`` names the archive in errors.

    Raises ArchiveError for anything but an inventory of this format, and for records that
    contradict each other: the bytes come from a medium and may be anything.
    """
    try:
        return _Reader(iter(source), what).plan()
    except ArchiveError:
        raise
    except (AirgapError, KeyError, TypeError, ValueError, IndexError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ArchiveError(
            f"{what}: the inventory is damaged: {printable(reason)}",
            hint="Nothing in it can be told apart any more: copy the archive again.",
        ) from error


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _question_record(question: Question) -> dict[str, Any]:
    record: dict[str, Any] = {"catalogs": question.catalogs, "platform": question.platform}
    choices = {
        "packages": question.packages,
        "dependencies": question.dependencies,
        "exclude": question.exclude,
        "images": question.images,
        "shares": [_share_record(share) for share in question.shares],
        "mapping": question.mapping,
        "rebuild": question.rebuild,
    }
    return record | _given(choices)


def _share_record(share: Share) -> dict[str, Any]:
    return _given(
        {
            "packages": share.packages,
            "dependencies": share.dependencies,
            "defaults": share.default_channels,
        }
    )


def _given(choices: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in choices.items() if value}


def _catalog_record(plan: Plan, catalog: CatalogImage) -> dict[str, Any]:
    record = {"image": catalog.image, "format": catalog.format, "path": catalog.path}
    pin = catalog.pin
    if pin == _pin_of(plan.images[catalog.image], plan.manifests):
        return record
    return record | {"pin": pin and {"reference": pin.reference, "digest": str(pin.digest)}}


def _pin_of(image: Image, manifests: Sequence[Manifest]) -> Pin:
    """Return what most catalogs are read from: the image that travels."""
    return Pin(image.reference, manifests[image.root].digest)


def _manifest_record(manifest: Manifest) -> dict[str, Any]:
    record: dict[str, Any] = {
        "digest": str(manifest.digest),
        "size": manifest.size,
        "type": manifest.media_type,
    }
    if manifest.children:
        record["children"] = manifest.children
    if manifest.blobs:
        record["blobs"] = manifest.blobs
    return record


def _blob_record(blob: Blob) -> dict[str, Any]:
    return {"digest": str(blob.digest), "size": blob.size} | _given({"held": blob.held})


def _image_record(image: Image) -> dict[str, Any]:
    record: dict[str, Any] = {"reference": image.reference, "root": image.root}
    return record | _given({"bundles": image.bundles, "places": image.places})


def _hole_record(hole: Hole) -> dict[str, Any]:
    record: dict[str, Any] = {"reference": hole.reference, "reason": hole.reason.value}
    return record | _given({"bundles": hole.bundles, "places": hole.places})


class _Reader:
    """Reads the sections in their order and checks that every number points at something."""

    def __init__(self, source: Iterator[bytes], what: str) -> None:
        self._source = source
        self._what = what

    def plan(self) -> Plan:
        version = self._version()
        question = self._question()
        catalog_records = self._section("catalogs", dict)
        bundles = self._section("bundles", _bundle)
        manifests = self._section("manifests", _manifest)
        blobs = self._section("blobs", _blob if version == 1 else _blob_or_assumed)
        images = self._section("images", _image)
        holes = self._section("holes", _hole)
        archives = () if version == 1 else self._section("archives", _archive)
        catalogs = tuple(_catalog(record, images, manifests) for record in catalog_records)
        if next(self._source, None) is not None:
            raise ValueError("there is more after its end")
        plan = Plan(question, catalogs, bundles, manifests, blobs, images, holes, archives)
        _check_numbers(plan)
        return plan

    def _line(self) -> bytes:
        line = next(self._source, b"")
        if not line.endswith(b"\n") or len(line) > limits.INVENTORY_LINE:
            raise ValueError("it is cut short")
        return line[:-1]

    def _version(self) -> int:
        first = strict_json.parse_object(self._line().removesuffix(b",") + b"}", "its first line")
        version = first["airgap"]
        if type(version) is not int or version < 1:
            raise ValueError("it has no format version")
        if version > FORMAT:
            raise ArchiveError(
                f"{self._what}: written in archive format {version}; this program reads {FORMAT}",
                hint="Use a newer airgap on this side.",
            )
        return version

    def _question(self) -> Question:
        line = self._line().removesuffix(b",")
        record = _record(strict_json.parse_object(b"{" + line + b"}", "its question")["question"])
        catalogs = tuple(map(_reference, _list(record["catalogs"])))
        if not catalogs:
            raise ValueError("it asks for no catalog")
        shares = tuple(map(_share, _list(record.get("shares", []))))
        if len(shares) not in (0, len(catalogs)):
            raise ValueError(f"it asks for {len(shares)} shares of {len(catalogs)} catalogs")
        return Question(
            catalogs,
            _text(record["platform"]),
            packages=_texts(record.get("packages", [])),
            dependencies=record.get("dependencies") is True,
            exclude=_texts(record.get("exclude", [])),
            images=_texts(record.get("images", [])),
            shares=shares,
            mapping=_text(record.get("mapping", "")),
            rebuild=record.get("rebuild") is True,
        )

    def _section(self, name: str, read: Callable[[dict[str, Any]], Record]) -> tuple[Record, ...]:
        if self._line() != f'"{name}":['.encode():
            raise ValueError(f"the section {name} is not where it must be")
        return tuple(self._records(name, read))

    def _records(self, name: str, read: Callable[[dict[str, Any]], Record]) -> Iterator[Record]:
        expected_more = False
        while not (line := self._line()).startswith(b"]"):
            expected_more = line.endswith(b",")
            yield read(strict_json.parse_object(line.removesuffix(b","), f"a record of {name}"))
        if expected_more or line not in (b"],", b"]}"):
            raise ValueError(f"the section {name} does not end as it must")


def _share(value: Any) -> Share:
    record = _record(value)
    defaults = map(_texts, _list(record.get("defaults", [])))
    return Share(
        _texts(record.get("packages", [])),
        record.get("dependencies") is True,
        tuple((package, channel) for package, channel in defaults),
    )


def _catalog(
    record: dict[str, Any], images: Sequence[Image], manifests: Sequence[Manifest]
) -> CatalogImage:
    image = _number(record["image"])
    _check_below((image,), len(images), "image")
    _check_below((images[image].root,), len(manifests), "manifest")
    if "pin" not in record:
        pin: Pin | None = _pin_of(images[image], manifests)
    elif record["pin"] is None:
        pin = None
    else:
        read_from = _record(record["pin"])
        pin = Pin(_reference(read_from["reference"]), _sha256(read_from["digest"]))
    return CatalogImage(image, _text(record["format"]), _text(record["path"]), pin)


def _bundle(record: dict[str, Any]) -> Bundle:
    return Bundle(_text(record["name"]), _texts(record["packages"]))


def _manifest(record: dict[str, Any]) -> Manifest:
    kind = _text(record["type"])
    if kind not in media_types.ACCEPTED:
        raise ValueError(f"{printable(kind)} is no type of manifest")
    return Manifest(
        _sha256(record["digest"]),
        _size(record["size"], limits.MANIFEST),
        kind,
        _numbers(record.get("children", [])),
        _numbers(record.get("blobs", [])),
    )


def _blob(record: dict[str, Any]) -> Blob:
    return Blob(_sha256(record["digest"]), _size(record["size"], limits.BLOB))


def _blob_or_assumed(record: dict[str, Any]) -> Blob:
    return replace(_blob(record), held=_numbers(record.get("held", [])))


def _archive(record: dict[str, Any]) -> Digest:
    return _sha256(record["id"])


def _image(record: dict[str, Any]) -> Image:
    return Image(
        _reference(record["reference"]),
        _number(record["root"]),
        _numbers(record.get("bundles", [])),
        _places(record),
    )


def _hole(record: dict[str, Any]) -> Hole:
    return Hole(
        _text(record["reference"]),
        Reason(record["reason"]),
        _numbers(record.get("bundles", [])),
        _places(record),
    )


def _places(record: dict[str, Any]) -> tuple[str, ...]:
    places = _texts(record.get("places", []))
    for place in places:
        if ImageReference.parse(f"destination.invalid/{place}").digest is not None:
            raise ValueError(f"{printable(place)} is no place for an image")
    return places


def _record(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{printable(repr(value))} is no record")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{printable(repr(value))} is no list")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(map(_text, _list(value)))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{printable(repr(value))} is no text")
    return value


def _reference(value: Any) -> str:
    """Return text that is an image reference; a hole's may be anything."""
    text = _text(value)
    ImageReference.parse(text)
    return text


def _number(value: Any) -> int:
    return _size(value, limits.BLOB)


def _numbers(values: Any) -> tuple[int, ...]:
    return tuple(map(_number, _list(values)))


def _size(value: Any, largest: int) -> int:
    if type(value) is not int or not 0 <= value <= largest:
        raise ValueError(f"{printable(repr(value))} is no number from 0 to {largest}")
    return value


def _sha256(value: Any) -> Digest:
    digest = Digest.parse(_text(value))
    if digest.algorithm != "sha256":
        raise ValueError(f"{digest} has no place in an archive")
    return digest


def _check_numbers(plan: Plan) -> None:
    depths: list[int] = []
    for number, manifest in enumerate(plan.manifests):
        # A child comes before its index; this also makes every walk end.
        _check_below(manifest.children, number, "manifest")
        _check_below(manifest.blobs, len(plan.blobs), "blob")
        depths.append(1 + max((depths[child] for child in manifest.children), default=0))
        if depths[-1] > limits.INDEX_DEPTH + 1:
            raise ValueError("indexes are nested too deeply")
    if plan.content_bytes > limits.CONTENT:
        raise ValueError(f"its content would have {plan.content_bytes} bytes")
    for image in plan.images:
        _check_below((image.root,), len(plan.manifests), "manifest")
        digest = ImageReference.parse(image.reference).digest
        if digest not in (None, plan.manifests[image.root].digest):
            raise ValueError(f"{image.reference} has another digest as its root")
        _check_below(image.bundles, len(plan.bundles), "bundle")
    for hole in plan.holes:
        _check_below(hole.bundles, len(plan.bundles), "bundle")
    for blob in plan.blobs:
        _check_below(blob.held, len(plan.archives), "archive")
    for number in plan.catalog_images:
        if not plan.assumed.isdisjoint(plan.blobs_of(plan.images[number])):
            raise ValueError(f"{plan.images[number].reference} is a catalog, and not whole")
    for kind in (plan.manifests, plan.blobs):
        if len({record.digest for record in kind}) != len(kind):
            raise ValueError("it lists a digest twice")


def _check_below(numbers: Sequence[int], end: int, kind: str) -> None:
    for number in numbers:
        if number >= end:
            raise ValueError(f"there is no {kind} {number}")
