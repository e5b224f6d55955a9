"""A file-based catalog like the largest published ones, made anew and the same every time.

Like in what costs a reader time: how many documents, lists, mappings and texts there are, and
how long they are. A package has some nine bundles, a bundle some three hundred texts, most of
them short; descriptions and icons are most of the bytes.
"""

from __future__ import annotations

import random
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

_PACKAGES = 48
_BUNDLES = 9
_CHANNELS = 3
_APIS = 5
_FIELDS = 4
_IMAGES = 22
_ICON = 40_000
_MODES = ("OwnNamespace", "SingleNamespace", "MultiNamespace", "AllNamespaces")
_WORDS = (
    "a an and any app by cluster container data database deploy each for from image in is it",
    "manage namespace network node of on one operator or policy resource secret service set",
    "storage that the this to tool user version volume when which with workload: e.g. 'it' #1",
)
_BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def files() -> Iterator[bytes]:
    """Give the catalog's files, a package in each, as YAML."""
    chance = random.Random(0)
    for number in range(_PACKAGES):
        said = _package(f"operator-{number:02}", chance)
        yield yaml.dump_all(said, Dumper=yaml.CSafeDumper, encoding="utf-8", explicit_start=True)


def _package(package: str, chance: random.Random) -> Iterator[dict[str, Any]]:
    icon = {"base64data": "".join(chance.choices(_BASE64, k=_ICON)), "mediatype": "image/png"}
    yield {
        "schema": "olm.package",
        "name": package,
        "defaultChannel": "channel-0",
        "icon": icon,
        "description": _text(chance, 300),
    }
    names = [f"{package}.v1.{number}.0" for number in range(_BUNDLES)]
    for number in range(_CHANNELS):
        entries = [
            {"name": name, "replaces": before, "skipRange": f">=1.0.0 <1.{at + 1}.0"}
            for at, (before, name) in enumerate(pairwise(names))
        ]
        yield {
            "schema": "olm.channel",
            "package": package,
            "name": f"channel-{number}",
            "entries": [{"name": names[0]}, *entries],
        }
    for number, name in enumerate(names):
        yield _bundle(package, name, f"1.{number}.0", chance)


def _bundle(package: str, name: str, version: str, chance: random.Random) -> dict[str, Any]:
    image = _image(package, "bundle", chance)
    apis = [{"group": f"{package}.io", "kind": f"Kind{n}", "version": "v1"} for n in range(_APIS)]
    properties = [
        {"type": "olm.package", "value": {"packageName": package, "version": version}},
        *({"type": "olm.gvk", "value": api} for api in apis),
        {"type": "olm.csv.metadata", "value": _metadata(package, apis, chance)},
    ]
    related = [
        {"name": f"part-{n}", "image": _image(package, f"part-{n}", chance)} for n in range(_IMAGES)
    ]
    return {
        "schema": "olm.bundle",
        "name": name,
        "package": package,
        "image": image,
        "properties": properties,
        "relatedImages": [{"name": "", "image": image}, *related],
    }


def _metadata(package: str, apis: list[dict[str, str]], chance: random.Random) -> dict[str, Any]:
    return {
        "annotations": {
            "alm-examples": _text(chance, 4_000),
            **{f"operators.example.io/feature-{n}": _text(chance, 20) for n in range(15)},
        },
        "crdDescriptions": {"owned": [_api(api, chance) for api in apis]},
        "description": _text(chance, 3_000),
        "displayName": package.title(),
        "installModes": [{"type": mode, "supported": True} for mode in _MODES],
        "keywords": [_text(chance, 10) for _ in range(6)],
        "links": [{"name": _text(chance, 12), "url": f"https://{package}.io"} for _ in range(3)],
        "maintainers": [{"name": _text(chance, 15), "email": f"mail@{package}.io"}],
        "maturity": "stable",
        "provider": {"name": _text(chance, 15), "url": f"https://{package}.io"},
    }


def _api(api: dict[str, str], chance: random.Random) -> dict[str, Any]:
    return {
        "kind": api["kind"],
        "name": f"{api['kind'].lower()}s.{api['group']}",
        "version": api["version"],
        "displayName": _text(chance, 20),
        "description": _text(chance, 150),
        "resources": [{"kind": kind, "name": "", "version": "v1"} for kind in ("Pod", "Secret")],
        "specDescriptors": [
            {
                "displayName": _text(chance, 20),
                "description": _text(chance, 60),
                "path": f"spec.field{n}",
                "x-descriptors": ["urn:alm:descriptor:com.tectonic.ui:text"],
            }
            for n in range(_FIELDS)
        ],
    }


def _image(package: str, name: str, chance: random.Random) -> str:
    return f"registry.example.io/{package}/{name}@sha256:{chance.getrandbits(256):064x}"


def _text(chance: random.Random, length: int) -> str:
    """Return prose of about so many characters, in lines."""
    words = " ".join(_WORDS).split()
    chosen = chance.choices(words, k=max(1, length // 6))
    lines = [" ".join(chosen[at : at + 12]) for at in range(0, len(chosen), 12)]
    return "\n".join(lines)
