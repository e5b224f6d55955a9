from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airgap import limits
from airgap.errors import MalformedContent, UsageError
from airgap.plan import Missing
from airgap.receipt import Arrived, Receipt, parse, read

if TYPE_CHECKING:
    from pathlib import Path
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


def _digest(letter: str) -> str:
    return f"sha256:{letter * 64}"


IMAGE = Arrived(
    reference="quay.io/a/b:v1",
    digest=_digest("a"),
    repository="registry.example.com:5000/a/b",
    tag="v1",
    manifests=(_digest("a"),),
    blobs=(_digest("b"), _digest("c")),
)
SOUND = Receipt(
    _digest("e"),
    "registry.example.com:5000",
    "0.1.0",
    (IMAGE, IMAGE),
    (MISSING,),
    assumed=((_digest("f"), (_digest("c"),)),),
)


def _parsed(text: str) -> Receipt:
    return parse(iter(text.encode().splitlines(keepends=True)), "it")


@pytest.mark.parametrize(
    "receipt", [SOUND, Receipt(_digest("e"), "localhost:5000", "1", (), ())], ids=["full", "empty"]
)
def test_a_receipt_is_read_as_it_was_written(receipt: Receipt, tmp_path: Path) -> None:
    path = tmp_path / "receipt.json"
    path.write_text(receipt.text())
    assert read(path).text() == receipt.text()
    assert json.loads(receipt.text())["archive"] == _digest("e")


def test_a_registry_may_have_any_name_that_a_destination_may_have(tmp_path: Path) -> None:
    for number, host in enumerate(("registry", "localhost", "[::1]:5000", "r.example.com:80")):
        places = [f"{host}/a", f"{host}/a/b_c"]
        images = tuple(replace(IMAGE, repository=place, tag="") for place in places)
        (path := tmp_path / str(number)).write_text(replace(SOUND, images=images).text())
        assert [image.repository for image in read(path).images] == places


def test_it_says_which_archive_holds_a_blob_that_arrived() -> None:
    assert SOUND.held() == {_digest("b"): {_digest("e")}, _digest("c"): {_digest("f")}}


def test_what_has_not_arrived_is_held_by_nobody() -> None:
    assumed = ((_digest("f"), (_digest("d"),)),)
    assert Receipt(_digest("e"), "localhost", "1", (), (), assumed=assumed).held() == {}


def test_keys_it_does_not_know_are_ignored() -> None:
    assert _parsed(SOUND.text().replace('{"reference"', '{"later":1,"reference"')).images == (
        SOUND.images
    )


TEXT_OF_SOUND = SOUND.text()


@pytest.mark.parametrize("size", range(0, len(TEXT_OF_SOUND), 7))
def test_refuses_a_receipt_cut_anywhere(size: int) -> None:
    with pytest.raises(MalformedContent, match="no receipt, or a damaged one") as caught:
        _parsed(TEXT_OF_SOUND[:size])
    assert caught.value.hint is not None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"airgap-receipt":1', '"airgap-receipt":2'),
        ('"airgap-receipt":1', '"airgap-receipt":true'),
        ('"airgap-receipt":1,', ""),
        (_digest("e"), "sha256:e"),
        (_digest("e"), f"sha512:{'e' * 128}"),
        (f'"{_digest("b")}"', "7"),
        (f'["{_digest("b")}"', f'[["{_digest("b")}"]'),
        (f'"blobs":["{_digest("b")}","{_digest("c")}"]', '"blobs":{}'),
        ('"repository":"registry.example.com:5000/a/b"', '"repository":"../../etc/passwd"'),
        ('"repository":"registry.example.com:5000/a/b"', '"repository":"a//b"'),
        (':5000/a/b"', ':5000"'),
        ('"repository":"registry.example.com:5000/a/b"', '"repository":"https://x/a"'),
        ('"repository":"registry.example.com:5000/a/b"', '"repository":"x.io/a?from=b"'),
        ('"repository":"registry.example.com:5000/a/b"', '"repository":"x.io/a\\nb"'),
        ('"tag":"v1"', '"tag":"v 1"'),
        ('"tag":"v1"', f'"tag":"v1@{_digest("a")}"'),
        ('"tag":"v1"', '"tag":null'),
        ('"tag":"v1"', '"tag":"v1","tag":"v2"'),
        ('"manifests"', '"manifest"'),
        ('"missing":[', '"absent":['),
        ('"assumed":[', '"assume":['),
        ("]}\n", "]}\n{}\n"),
        ("]}\n", "]}"),
        ('"version":"0.1.0"', '"version":NaN'),
        ('{"reference"', "[" * 5000),
    ],
)
def test_refuses_what_is_no_receipt(old: str, new: str) -> None:
    assert old in TEXT_OF_SOUND
    with pytest.raises(MalformedContent):
        _parsed(TEXT_OF_SOUND.replace(old, new))


def test_refuses_bytes_that_are_no_text() -> None:
    with pytest.raises(MalformedContent):
        parse(iter([b'{"airgap-receipt":1,"archive":"\xff","images":[\n', b"]}\n"]), "it")


def test_no_more_is_read_than_a_receipt_can_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "receipt.json"
    path.write_text(SOUND.text())
    monkeypatch.setattr(limits, "RECEIPT", len(SOUND.text()))
    assert read(path).text() == SOUND.text()
    monkeypatch.setattr(limits, "RECEIPT_LINE", 100)
    with pytest.raises(MalformedContent, match="cut short"):
        read(path)
    monkeypatch.setattr(limits, "RECEIPT", len(SOUND.text()) - 1)
    with pytest.raises(MalformedContent, match="are read at most"):
        read(path)


def test_a_receipt_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing\.json: there is no such file"):
        read(tmp_path / "nothing.json")
