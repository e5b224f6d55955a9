"""What has arrived where: the record an import leaves behind, as text and back.

Plain data; two imports of one archive into one destination leave the same bytes. A receipt
that comes back from the other side is read like anything foreign. Knows nothing of how things
arrive.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from airgap import limits, strict_json
from airgap.digest import Digest
from airgap.errors import AirgapError, MalformedContent, UsageError, printable
from airgap.plan import Missing
from airgap.reference import ImageReference, Repository
from airgap.storage import storage_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from airgap.plan import Plan

FORMAT = 1
"""The version; a reader refuses a higher one and ignores keys it does not know."""

_MARK = b'{"airgap-receipt":'

PUSHED = "top manifests read back and hashed; of what was sent, every manifest, and blobs by digest"
"""How content is checked that an import, or a mirror, has put at its place."""

ASKED = "every manifest read and hashed; every blob asked for, and its length compared"
"""How content is checked that is found at its place."""

Record = TypeVar("Record")


@dataclass(frozen=True, slots=True)
class Arrived:
    """An image that is at its destination, whole."""

    reference: str
    digest: str
    repository: str
    tag: str
    manifests: tuple[str, ...]
    blobs: tuple[str, ...]


@dataclass(frozen=True)
class Receipt:
    """What of one archive is in one registry.

    ``checked`` says how that is known. ``assumed`` are the blobs that did not travel in the
    archive, by the ids of the earlier archives that hold them.
    """

    archive: str
    registry: str
    version: str
    images: tuple[Arrived, ...]
    missing: tuple[Missing, ...]
    checked: str = PUSHED
    assumed: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def text(self) -> str:
        """Return the receipt as JSON, one image a line, in the archive's order."""
        head = {"airgap-receipt": FORMAT, "archive": self.archive, "registry": self.registry}
        checked = {"checked": self.checked}
        lines = [
            _json(head | checked | {"version": self.version})[:-1] + ',"images":[',
            *_records([_arrived(image) for image in self.images]),
            '],"missing":[',
            *_records([missing.record() for missing in self.missing]),
        ]
        if self.assumed:
            lines += [
                '],"assumed":[',
                *_records(
                    [{"archive": archive, "blobs": blobs} for archive, blobs in self.assumed]
                ),
            ]
        return "\n".join([*lines, "]}"]) + "\n"

    def held(self) -> dict[str, set[str]]:
        """Return the digests of the blobs that arrived, each with the archives that hold it."""
        held: dict[str, set[str]] = defaultdict(set)
        for archive, blobs in self.assumed:
            for blob in blobs:
                held[blob].add(archive)
        there = {blob for image in self.images for blob in image.blobs}
        return {blob: held.get(blob) or {self.archive} for blob in there}


def assumed_by(plan: Plan) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return what a plan assumes, as a receipt has it."""
    held: dict[int, list[str]] = defaultdict(list)
    for number in sorted(plan.assumed):
        for archive in plan.blobs[number].held:
            held[archive].append(str(plan.blobs[number].digest))
    return tuple((str(plan.archives[number]), tuple(held[number])) for number in sorted(held))


def is_receipt(path: Path) -> bool:
    """Say whether a file begins like a receipt. Raises StorageError."""
    with storage_errors(path), path.open("rb") as file:
        return file.read(len(_MARK)) == _MARK


def read(path: Path) -> Receipt:
    """Read a receipt, which comes from another place and may be anything.

    Of what stands in it digests and names are taken, and nothing else. Raises UsageError when
    there is no such file, MalformedContent when it is no receipt, StorageError.
    """
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file")
    with storage_errors(path), path.open("rb") as file:
        size = path.stat().st_size
        if size > limits.RECEIPT:
            raise MalformedContent(
                f"{path}: no receipt: it has {size} bytes, and {limits.RECEIPT} are read at most"
            )
        lines = iter(lambda: file.readline(limits.RECEIPT_LINE + 1), b"")
        return parse(lines, str(path))


def parse(source: Iterator[bytes], what: str) -> Receipt:
    """Read a receipt from its lines; ``what`` names it in errors. Raises MalformedContent."""
    try:
        return _Reader(source).receipt()
    except KeyError as error:
        reason = f"it lacks {error}"
    except (AirgapError, TypeError, ValueError) as error:
        reason = str(error)
    raise MalformedContent(
        f"{what}: no receipt, or a damaged one: {printable(reason)}",
        hint="It is the receipt.json of an import, or what `airgap receipt` wrote; carry it as it"
        " is.",
    )


class _Reader:
    """Reads the sections in their order, line by line."""

    def __init__(self, source: Iterator[bytes]) -> None:
        self._source = source

    def receipt(self) -> Receipt:
        first = self._line()
        if not first.endswith(b',"images":['):
            raise ValueError("its first line is not that of a receipt")
        head = strict_json.parse_object(first.removesuffix(b',"images":[') + b"}", "its first line")
        version = head["airgap-receipt"]
        if type(version) is not int or not 1 <= version <= FORMAT:
            raise ValueError(f"written in version {version!r}; this program reads {FORMAT}")
        archive, registry = _sha256(head["archive"]), _name(head["registry"])
        program, checked = _name(head["version"]), _name(head["checked"])
        images, end = self._section(_image)
        if end != b'],"missing":[':
            raise ValueError("the section missing is not where it must be")
        missing, end = self._section(_missing)
        assumed: tuple[tuple[str, tuple[str, ...]], ...] = ()
        if end == b'],"assumed":[':
            assumed, end = self._section(_assumption)
        if end != b"]}" or next(self._source, b""):
            raise ValueError("it does not end as it must")
        return Receipt(archive, registry, program, images, missing, checked, assumed)

    def _section(
        self, read: Callable[[Mapping[str, Any]], Record]
    ) -> tuple[tuple[Record, ...], bytes]:
        """Return the records up to the line that ends a section, and that line."""
        records: list[Record] = []
        expected_more = False
        while not (line := self._line()).startswith(b"]"):
            expected_more = line.endswith(b",")
            records.append(read(strict_json.parse_object(line.removesuffix(b","), "a record")))
        if expected_more:
            raise ValueError("a section does not end as it must")
        return tuple(records), line

    def _line(self) -> bytes:
        line = next(self._source, b"")
        if not line.endswith(b"\n") or len(line) > limits.RECEIPT_LINE:
            raise ValueError("it is cut short")
        return line[:-1]


def _image(record: Mapping[str, Any]) -> Arrived:
    repository, tag = _name(record["repository"]), _name(record["tag"])
    Repository.parse(repository)
    if tag and ImageReference.parse(f"localhost/any:{tag}").tag != tag:
        raise ValueError(f"{printable(tag)} is no tag")
    return Arrived(
        _name(record["reference"]),
        _sha256(record["digest"]),
        repository,
        tag,
        _digests(record["manifests"]),
        _digests(record["blobs"]),
    )


def _missing(record: Mapping[str, Any]) -> Missing:
    bundles, packages = _list(record["bundles"]), _list(record["packages"])
    return Missing(
        _name(record["reference"]),
        _name(record["reason"]),
        tuple(map(_name, bundles)),
        tuple(map(_name, packages)),
    )


def _assumption(record: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    return _sha256(record["archive"]), _digests(record["blobs"])


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{printable(repr(value))} is no list")
    return value


def _name(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{printable(repr(value))} is no name")
    return value


def _sha256(value: Any) -> str:
    digest = Digest.parse(_name(value))
    if digest.algorithm != "sha256":
        raise ValueError(f"{digest} has no place in an archive")
    return str(digest)


def _digests(values: Any) -> tuple[str, ...]:
    return tuple(map(_sha256, _list(values)))


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _records(records: list[dict[str, Any]]) -> list[str]:
    last = len(records) - 1
    return [_json(record) + ("," if n < last else "") for n, record in enumerate(records)]


def _arrived(image: Arrived) -> dict[str, Any]:
    return {
        "reference": image.reference,
        "digest": image.digest,
        "repository": image.repository,
        "tag": image.tag,
        "manifests": image.manifests,
        "blobs": image.blobs,
    }
