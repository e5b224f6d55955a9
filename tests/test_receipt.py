from __future__ import annotations

import json
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from airgap.plan import Missing
from airgap.receipt import Arrived, Receipt

if TYPE_CHECKING:
    from typing import Any

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
TEXTS = st.lists(TEXT, max_size=3).map(tuple)

ARRIVED = Arrived(
    reference="quay.io/a/b:v1",
    digest="sha256:aa",
    repository="registry.example.com/a/b",
    tag="v1",
    manifests=("sha256:aa",),
    blobs=("sha256:bb", "sha256:cc"),
)
MISSING = Missing("quay.io/a/c:v1", "not-found", ("c.v1",), ("c",), "what one run was told")


def _receipt(*images: Arrived, missing: tuple[Missing, ...] = ()) -> Receipt:
    return Receipt("sha256:ee", "registry.example.com", "0.1.0", images, missing)


def _read(receipt: Receipt) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(receipt.text())
    return document


def test_it_says_what_arrived_where() -> None:
    assert _read(_receipt(ARRIVED, missing=(MISSING,))) == {
        "airgap-receipt": 1,
        "archive": "sha256:ee",
        "registry": "registry.example.com",
        "checked": "top manifests read back and hashed; of what was sent, every manifest, and"
        " blobs by digest",
        "version": "0.1.0",
        "images": [
            {
                "reference": "quay.io/a/b:v1",
                "digest": "sha256:aa",
                "repository": "registry.example.com/a/b",
                "tag": "v1",
                "manifests": ["sha256:aa"],
                "blobs": ["sha256:bb", "sha256:cc"],
            }
        ],
        "missing": [
            {
                "reference": "quay.io/a/c:v1",
                "reason": "not-found",
                "bundles": ["c.v1"],
                "packages": ["c"],
            }
        ],
    }


def test_what_one_run_was_told_is_not_in_it() -> None:
    assert MISSING.detail not in _receipt(missing=(MISSING,)).text()


def test_each_image_has_a_line() -> None:
    lines = _receipt(ARRIVED, ARRIVED, missing=(MISSING,)).text().splitlines()
    assert len(lines) == 1 + 2 + 1 + 1 + 1
    assert json.loads(lines[1].removesuffix(","))["reference"] == ARRIVED.reference


def test_an_import_of_nothing_is_a_document_too() -> None:
    document = _read(_receipt())
    assert (document["images"], document["missing"]) == ([], [])


@given(
    images=st.lists(st.builds(Arrived, TEXT, TEXT, TEXT, TEXT, TEXTS, TEXTS), max_size=3),
    missing=st.lists(st.builds(Missing, TEXT, TEXT, TEXTS, TEXTS, TEXT), max_size=3),
)
def test_any_text_comes_back(images: list[Arrived], missing: list[Missing]) -> None:
    receipt = _receipt(*images, missing=tuple(missing))
    document = _read(receipt)
    assert [image["reference"] for image in document["images"]] == [i.reference for i in images]
    assert document["missing"] == [one.record() for one in missing]
    assert receipt.text() == receipt.text()
