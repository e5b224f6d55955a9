"""A reader of archives written from docs/reference/archive-format.md, and from nothing else.

Standard library only; shares no code with airgap. Takes all files of one archive, in any order
and under any names. Content is read in pieces, so it may be of any size.
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


class Damaged(Exception):
    """Something is not what the page says it must be."""


def must(right: bool, what: object) -> None:
    if not right:
        raise Damaged(what)


def compact(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def header(name: str, size: int) -> bytes:
    field = b"%011o\0" % size if size < 1 << 33 else b"\x80" + size.to_bytes(11, "big")
    start = name.encode().ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + field
    start += b"%011o\0" % 0
    end = b"0" + bytes(100) + b"ustar\x0000" + bytes(64) + b"0000000\0" * 2 + bytes(167)
    return start + b"%06o\0 " % (sum(start) + 8 * 32 + sum(end)) + end


class File:
    """One file of an archive, read from its beginning to its end."""

    def __init__(self, path: Path) -> None:
        self.path, self.at = path, 0
        self.literal("oci-layout", b'{"imageLayoutVersion":"1.0.0"}\n')
        self.inventory = b"".join(self.content("airgap.json", self.next()[1]))
        self.literal("airgap.json.sig", b"\n" * 32768)
        self.number, self.record, self.pieces = 1, b"", list[dict[str, Any]]()
        name, size = self.next()
        if name.startswith("volume/"):
            self.record = b"".join(self.content(name, size))
            self.number = int(name[7:-5])

    def take(self, size: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self.at)
            data = file.read(size)
        self.at += size
        must(len(data) == size, f"{self.path}: cut short")
        return data

    def next(self) -> tuple[str, int]:
        """Look at the name and the size in the next header; ("", 0) at the end."""
        block = self.take(512)
        self.at -= 512
        try:
            name, field = block[:100].rstrip(b"\0").decode("ascii"), block[124:136]
            large = field[0] == 0x80
            return name, int.from_bytes(field[1:], "big") if large else int(field[:11] or b"0", 8)
        except ValueError:
            must(not any(block), f"{self.path}: a header")
            return "", 0

    def content(self, name: str, size: int) -> Iterator[bytes]:
        """Yield the content of the next entry, which must have that name and size."""
        must(self.take(512) == header(name, size), f"{self.path}: the header of {name}")
        for start in range(0, size, 1 << 20):
            yield self.take(min(size - start, 1 << 20))
        must(not any(self.take(-size % 512)), f"{self.path}: the padding of {name}")

    def literal(self, name: str, content: bytes) -> None:
        must(b"".join(self.content(name, len(content))) == content, f"{self.path}: {name}")

    def end(self, identity: str, of: int, limit: int) -> None:
        """Read the end of a file, when all pieces in it are known."""
        must(self.take(1024) == bytes(1024), f"{self.path}: its end")
        must(self.at == self.path.stat().st_size <= (limit or self.at), f"{self.path}: its size")
        said = {"airgap-volume": 1, "archive": identity, "volume": self.number, "of": of}
        text = compact({**said, "limit": limit, "pieces": self.pieces}).ljust(1023) + b"\n"
        must(self.record in (text, b"" if of == 1 else text), f"{self.path}: its record")


def read(paths: Iterable[Path]) -> tuple[str, dict[str, str], list[str]]:
    """Read every byte; return the id, the digests of images, and those of blobs not there."""
    files = sorted(map(File, paths), key=lambda file: file.number)
    raw = files[0].inventory
    identity, inventory = f"sha256:{sha256(raw).hexdigest()}", json.loads(raw)
    must(inventory["airgap"] in (1, 2), "another version of the format")
    roots = [(i["reference"], inventory["manifests"][i["root"]]) for i in inventory["images"]]
    for number, file in enumerate(files, 1):
        must((file.number, file.inventory) == (number, raw), f"no volume {number} of {identity}")
        file.literal("index.json", index(roots, identity))
        for record in inventory["manifests"]:
            must(place(record, [file]), f"{file.path}: manifest {record['digest']} is not there")
    here = list(files)
    holes = [b["digest"] for b in inventory["blobs"] if "held" not in b and not place(b, here)]
    limit = json.loads(files[0].record or b"{}").get("limit", 0)
    for file in files:
        file.end(identity, len(files), limit)
    return identity, {name: root["digest"] for name, root in roots}, holes


def place(record: dict[str, Any], files: list[File]) -> bool:
    """Read a manifest or a blob, whose pieces may be in several files; False for a hole."""
    digest, total, start, whole, there = record["digest"], record["size"], 0, sha256(), True
    while start < total or not start:
        while not files[0].next()[0]:
            must(len(files) > 1, f"{files[0].path}: ends before {digest}")
            del files[0]
        file, own = files[0], sha256()
        name, size = file.next()
        kind, cut = name.partition("/")[0], size < total
        must(kind in ("absent", "pieces" if cut else "blobs"), f"{file.path}: {name}")
        behind = f".{file.number:03}" if cut else ""
        for piece in file.content(f"{kind}/{digest.replace(':', '/')}{behind}", size):
            must(kind != "absent" or not any(piece), f"{file.path}: {name} is not empty")
            whole.update(piece)
            own.update(piece)
        if kind == "pieces":
            told = {"blob": digest, "start": start, "size": size}
            file.pieces.append({**told, "digest": f"sha256:{own.hexdigest()}"})
        start, there = start + size, there and kind != "absent"
        if not size:
            break
    must(start == total, f"{digest} has {start} bytes")
    must(not there or f"sha256:{whole.hexdigest()}" == digest, f"{digest} is damaged")
    return there


def index(roots: list[tuple[str, Any]], identity: str) -> bytes:
    """Return what index.json must be."""
    kind = "application/vnd.oci.image.index.v1+json"
    head = {"schemaVersion": 2, "mediaType": kind, "annotations": {"airgap.inventory": identity}}
    keys = "org.opencontainers.image.ref.name", "io.containerd.image.name"
    lines = [
        {"mediaType": root["type"], "digest": root["digest"], "size": root["size"]}
        | {"annotations": dict.fromkeys(keys, name)}
        for name, root in roots
    ]
    return compact(head)[:-1] + b',"manifests":[\n' + b",\n".join(map(compact, lines)) + b"\n]}\n"
