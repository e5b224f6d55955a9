from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airgap import limits
from airgap.archive import inventory
from airgap.digest import Digest
from airgap.errors import ArchiveError
from airgap.oci import media_types
from airgap.plan import Blob, Bundle, CatalogImage, Hole, Image, Manifest, Plan, Question, Reason
from tests.support.plans import some_content

TEXT = b"".join(inventory.lines(some_content().plan()))


def _lines(text: bytes) -> list[bytes]:
    return text.splitlines(keepends=True)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    text = st.text(st.characters(codec="utf-8"), max_size=20)
    digests = draw(st.lists(st.binary(min_size=32, max_size=32), unique=True, max_size=12))
    half = len(digests) // 2
    sizes = st.integers(0, limits.BLOB)
    blobs = tuple(Blob(Digest("sha256", d.hex()), draw(sizes)) for d in digests[:half])
    manifests: list[Manifest] = []
    for raw in digests[half:]:
        manifests.append(
            Manifest(
                Digest("sha256", raw.hex()),
                draw(st.integers(0, 1 << 22)),
                draw(st.sampled_from(media_types.ACCEPTED)),
                tuple(draw(st.lists(st.sampled_from(range(len(manifests))), max_size=3)))
                if manifests
                else (),
                tuple(draw(st.lists(st.sampled_from(range(len(blobs))), max_size=3)))
                if blobs
                else (),
            )
        )
    bundles = tuple(
        Bundle(draw(text), tuple(draw(st.lists(text, max_size=2))))
        for _ in range(draw(st.integers(0, 3)))
    )
    numbers = st.lists(st.sampled_from(range(len(bundles))), max_size=2) if bundles else st.just([])
    references = st.from_regex(r"quay\.io/[a-z]{1,5}/[a-z]{1,5}(:v[0-9]{1,3})?", fullmatch=True)
    images = tuple(
        Image(draw(references), root, tuple(draw(numbers))) for root in range(len(manifests))
    )
    holes = tuple(
        Hole(draw(text), draw(st.sampled_from(Reason)), tuple(draw(numbers)))
        for _ in range(draw(st.integers(0, 2)))
    )
    catalogs = (CatalogImage(0, draw(text), draw(text)),) if images else ()
    some = st.lists(text, max_size=2).map(tuple)
    question = Question(
        tuple(draw(st.lists(references, min_size=1, max_size=2))),
        draw(text),
        packages=draw(some),
        dependencies=draw(st.booleans()),
        exclude=draw(some),
        images=draw(some),
    )
    return Plan(question, catalogs, bundles, tuple(manifests), blobs, images, holes)


@given(plans())
def test_reading_gives_back_what_was_written(plan: Plan) -> None:
    text = b"".join(inventory.lines(plan))
    assert inventory.parse(_lines(text), "it") == plan
    assert b"".join(inventory.lines(inventory.parse(_lines(text), "it"))) == text


def test_it_is_one_json_object_with_one_record_a_line() -> None:
    document = json.loads(TEXT)
    records = [r for section in document.values() if isinstance(section, list) for r in section]
    assert document["airgap"] == 1
    assert all(f"{json.dumps(r, separators=(',', ':'))}".encode() in TEXT for r in records)
    assert len(_lines(TEXT)) == len(records) + 2 + 2 * 6


def test_keys_it_does_not_know_are_ignored() -> None:
    changed = TEXT.replace(b'{"digest":', b'{"later":[1],"digest":')
    assert inventory.parse(_lines(changed), "it") == inventory.parse(_lines(TEXT), "it")


def test_refuses_a_newer_format_with_the_way_out() -> None:
    with pytest.raises(ArchiveError, match="format 2; this program reads 1") as caught:
        inventory.parse(_lines(TEXT.replace(b'{"airgap":1,', b'{"airgap":2,')), "it")
    assert caught.value.hint is not None


@pytest.mark.parametrize("count", range(len(_lines(TEXT))))
def test_refuses_an_inventory_cut_after_any_line(count: int) -> None:
    with pytest.raises(ArchiveError, match="damaged"):
        inventory.parse(_lines(TEXT)[:count], "it")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"root":0', b'"root":99'),
        (b'"root":0', b'"root":-1'),
        (b'"root":0', b'"root":true'),
        (b'"root":0', b'"root":"0"'),
        (b'"bundles":[0]', b'"bundles":[17]'),
        (b'"image":0', b'"image":9'),
        (b'"blobs":[0,', b'"blobs":[1000,'),
        (b'"size":', b'"size":1e3,"x":'),
        (b'"digest":"sha256:', b'"digest":"sha512:'),
        (b'"digest":"sha256:', b'"digest":"../../'),
        (b'"children":[', b'"children":[5,'),
        (b'"type":"application/vnd.oci.image.index.v1+json"', b'"type":"text/html"'),
        (b'"manifests":[\n', b'"manifests":[]\n'),
        (b"]}\n", b"]}\n{}\n"),
        (b"]}\n", b"]}"),
        (b'"reason"', b'"reason'),
    ],
)
def test_refuses_records_that_cannot_be_true(old: bytes, new: bytes) -> None:
    content = some_content()
    content.holes["quay.io/lab/gone:v1"] = Reason.NOT_FOUND
    text = b"".join(inventory.lines(content.plan()))
    assert old in text
    with pytest.raises(ArchiveError):
        inventory.parse(_lines(text.replace(old, new, 1)), "it")


def test_refuses_a_digest_listed_twice() -> None:
    lines = _lines(TEXT)
    first = next(n for n, line in enumerate(lines) if line == b'"blobs":[\n') + 1
    with pytest.raises(ArchiveError, match="twice"):
        inventory.parse([*lines[: first + 1], lines[first], *lines[first + 1 :]], "it")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b'"catalogs":["quay.io/lab/catalog:v1"]', b'"catalogs":[]', "asks for no catalog"),
        (b'"catalogs":["quay.io/lab/catalog:v1"]', b'"catalogs":["A b"]', "not an image reference"),
        (b'"reference":"quay.io/lab/both:v1"', b'"reference":"../../etc"', "not an image ref"),
        (b'"platform":', b'"plaform":', "it lacks 'platform'"),
    ],
)
def test_names_that_are_none_are_refused(old: bytes, new: bytes, words: str) -> None:
    assert TEXT.count(old) == 1
    with pytest.raises(ArchiveError, match=words) as caught:
        inventory.parse(_lines(TEXT.replace(old, new)), "it")
    assert caught.value.hint is not None
