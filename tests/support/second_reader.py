"""Catalogs read with nothing but ``sqlite3`` and ``json``, to compare with what we read."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    Graph = dict[str, frozenset[str]]


@dataclass
class SecondReading:
    """Default channels and channels by package, each bundle with what it is installed over."""

    packages: dict[str, tuple[str, dict[str, Graph]]]
    images: dict[str, frozenset[str]]


def of_database(path: Path) -> SecondReading:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        columns = [row[1] for row in connection.execute("PRAGMA table_info(operatorbundle)")]
        image = "bundlepath" if "bundlepath" in columns else "NULL"
        bundles = dict(connection.execute(f"SELECT name, {image} FROM operatorbundle"))
        images: dict[str, set[str]] = {
            name: {image} if image else set() for name, image in bundles.items()
        }
        for name, image in connection.execute(
            "SELECT operatorbundle_name, image FROM related_image"
        ):
            images[name].add(image)
        entries: dict[tuple[str, str], dict[str, set[str]]] = defaultdict(dict)
        heads: dict[tuple[str, str], str] = {}
        for package, channel, bundle, lower, _ in connection.execute(
            "SELECT e.package_name, e.channel_name, e.operatorbundle_name,"
            "       r.operatorbundle_name, e.depth"
            " FROM channel_entry e LEFT JOIN channel_entry r ON r.entry_id = e.replaces"
            " ORDER BY e.depth, e.entry_id"
        ):
            heads.setdefault((package, channel), bundle)
            if bundle in bundles:
                entries[package, channel].setdefault(bundle, set()).update({lower} - {None})
        stated = {
            (package, channel): head
            for package, channel, head in connection.execute(
                "SELECT package_name, name, head_operatorbundle_name FROM channel"
            )
        }
        assert stated == heads, "the head of a channel is its entry of the least depth"
        packages: dict[str, tuple[str, dict[str, Graph]]] = {
            name: (default, {}) for name, default in connection.execute("SELECT * FROM package")
        }
    for (package, channel), graph in entries.items():
        packages[package][1][channel] = {name: frozenset(over) for name, over in graph.items()}
    return SecondReading(packages, {name: frozenset(found) for name, found in images.items()})


def of_documents(paths: Iterable[Path]) -> SecondReading:
    packages: dict[str, tuple[str, dict[str, Graph]]] = {}
    images: dict[str, set[str]] = defaultdict(set)
    for path in paths:
        for line in path.read_text("utf-8").splitlines():
            document = json.loads(line)
            match document["schema"]:
                case "olm.package":
                    assert document["name"] not in packages
                    packages[document["name"]] = (document["defaultChannel"], {})
                case "olm.channel":
                    channels = packages[document["package"]][1]
                    assert document["name"] not in channels
                    channels[document["name"]] = {
                        entry["name"]: frozenset(
                            filter(None, (entry.get("replaces"), *(entry.get("skips") or ())))
                        )
                        for entry in document["entries"]
                    }
                case "olm.bundle":
                    related = document.get("relatedImages") or ()
                    images[document["name"]] |= {image["image"] for image in related}
                    images[document["name"]] |= {document.get("image")}
    return SecondReading(
        packages, {name: frozenset(filter(None, found)) for name, found in images.items()}
    )
