"""What a real ``oc`` wrote for real catalogs, for the destination ``127.0.0.1:5991``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from airgap.errors import MalformedReference
from airgap.reference import ImageReference
from tests.support.shared import SHARED

_HERE = Path(__file__).resolve().parents[1] / "data" / "catalogs"


@dataclass(frozen=True)
class GroundTruth:
    """A catalog for which everything is known: the files beside ``NAME.images.txt``."""

    folder: Path
    name: str

    def __str__(self) -> str:
        return f"{self.folder.name}/{self.name}"

    @property
    def references(self) -> list[ImageReference]:
        """The catalog's images, without the texts that ``oc`` cannot read either."""
        found = []
        for text in self._lines("images.txt"):
            try:
                found.append(ImageReference.parse(text))
            except MalformedReference:
                continue
        return found

    @property
    def mapping(self) -> list[str]:
        return self._lines("oc-mapping.txt")

    @property
    def mirrors(self) -> set[tuple[str, tuple[str, ...]]]:
        """The pairs of the ImageContentSourcePolicies: a source and its mirrors."""
        text = self._file("oc-icsp.yaml").read_text("utf-8")
        return {
            (entry["source"], tuple(entry["mirrors"]))
            for document in yaml.safe_load_all(text)
            if document
            for entry in document["spec"]["repositoryDigestMirrors"]
        }

    def _file(self, suffix: str) -> Path:
        return self.folder / f"{self.name}.{suffix}"

    def _lines(self, suffix: str) -> list[str]:
        return self._file(suffix).read_text("utf-8").splitlines()


def ground_truths() -> list[GroundTruth]:
    """Return every catalog that ``oc`` was run on, the project's own and those beside it."""
    roots = [_HERE, *([SHARED / "catalogs"] if SHARED else [])]
    found = (path for root in roots for path in sorted(root.glob("**/*.oc-mapping.txt")))
    return [GroundTruth(path.parent, path.name.removesuffix(".oc-mapping.txt")) for path in found]
