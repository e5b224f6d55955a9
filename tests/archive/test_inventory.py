from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airgap import limits
from airgap.archive import inventory
from airgap.digest import Digest, digest_of
from airgap.errors import ArchiveError
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
    assuming,
)
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
    place = st.from_regex(r"[a-z]{1,5}(/[a-z]{1,5})?(:v[0-9]{1,3})?", fullmatch=True)
    places = st.lists(place, max_size=2).map(tuple)
    images = tuple(
        Image(draw(references), root, tuple(draw(numbers)), draw(places))
        for root in range(len(manifests))
    )
    holes = tuple(
        Hole(draw(text), draw(st.sampled_from(Reason)), tuple(draw(numbers)), draw(places))
        for _ in range(draw(st.integers(0, 2)))
    )
    hexadecimal = st.binary(min_size=32, max_size=32).map(bytes.hex)
    pins = st.builds(Pin, references, st.builds(Digest, st.just("sha256"), hexadecimal))
    own = st.just(Pin(images[0].reference, manifests[0].digest)) if images else st.none()
    pin = draw(st.one_of(st.none(), pins, own))
    catalogs = (CatalogImage(0, draw(text), draw(text), pin),) if images else ()
    some = st.lists(text, max_size=2).map(tuple)
    asked = tuple(draw(st.lists(references, min_size=1, max_size=2)))
    defaults = st.lists(st.tuples(text, text), max_size=2).map(tuple)
    share = st.builds(Share, some, st.booleans(), defaults)
    shares = st.one_of(st.just(()), st.tuples(*(share for _ in asked)))
    question = Question(
        asked,
        draw(text),
        packages=draw(some),
        dependencies=draw(st.booleans()),
        exclude=draw(some),
        images=draw(some),
        shares=draw(shares),
        mapping=draw(text),
        rebuild=draw(st.booleans()),
    )
    archives = st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=3)
    elsewhere = draw(st.lists(st.sampled_from(blobs), max_size=4)) if blobs else []
    held = {b.digest: [Digest("sha256", a.hex()) for a in draw(archives)] for b in elsewhere}
    return assuming(Plan(question, catalogs, bundles, tuple(manifests), blobs, images, holes), held)


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
    with pytest.raises(ArchiveError, match="format 3; this program reads 2") as caught:
        inventory.parse(_lines(TEXT.replace(b'{"airgap":1,', b'{"airgap":3,')), "it")
    assert caught.value.hint is not None


def test_what_assumes_nothing_is_written_as_it_always_was() -> None:
    """The digest is an archive's id: it must never change."""
    assert digest_of(TEXT).hex == "cc290ef121715efdf0e3c92afbda44ad970444c8147cb8044df3ddef77e0de08"


BASE = Digest("sha256", "1" * 64)


def _delta(*numbers: int) -> Plan:
    """A plan that leaves some blobs, by their numbers, to one archive."""
    plan = some_content().plan()
    return assuming(plan, {plan.blobs[number].digest: {BASE} for number in numbers})


def test_a_delta_is_of_format_2_and_names_the_archives_that_hold_what_it_leaves_out() -> None:
    document = json.loads(b"".join(inventory.lines(_delta(3))))
    assert document["airgap"] == 2
    assert document["archives"] == [{"id": str(BASE)}]
    assert [n for n, blob in enumerate(document["blobs"]) if "held" in blob] == [3]
    assert document["blobs"][3]["held"] == [0]


def test_in_format_1_nothing_is_left_out() -> None:
    changed = TEXT.replace(b'{"digest":', b'{"held":[0],"digest":')
    assert inventory.parse(_lines(changed), "it") == inventory.parse(_lines(TEXT), "it")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"held":[0]', b'"held":[1]'),
        (b'"held":[0]', b'"held":[-1]'),
        (b'"held":[0]', b'"held":0'),
        (b'"held":[0]', b'"held":["0"]'),
        (b'{"id":"sha256:1', b'{"id":"sha512:1'),
        (b'{"id":"sha256:1', b'{"it":"sha256:1'),
        (b'"archives":[', b'"archive":['),
        (b'"airgap":2', b'"airgap":1'),
        (b'"airgap":2', b'"airgap":0'),
    ],
)
def test_refuses_a_delta_that_cannot_be(old: bytes, new: bytes) -> None:
    text = b"".join(inventory.lines(_delta(3)))
    assert old in text
    with pytest.raises(ArchiveError):
        inventory.parse(_lines(text.replace(old, new)), "it")


def test_refuses_a_delta_without_its_catalog() -> None:
    plan = _delta(3)
    (catalog,) = (plan.images[number] for number in plan.catalog_images)
    number = plan.blobs_of(catalog)[0]
    blobs = list(plan.blobs)
    blobs[number] = replace(blobs[number], held=(0,))
    with pytest.raises(ArchiveError, match="is a catalog, and not whole"):
        _parsed(replace(plan, blobs=tuple(blobs)))


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


def _parsed(plan: Plan) -> Plan:
    return inventory.parse(inventory.lines(plan), "it")


def _nested(levels: int) -> Plan:
    """An index in an index, and so on, with an image innermost."""
    manifests = [
        Manifest(
            Digest("sha256", f"{level:064x}"),
            10,
            media_types.OCI_INDEX if level else media_types.OCI_MANIFEST,
            (level - 1,) if level else (),
            (),
        )
        for level in range(levels + 1)
    ]
    question = Question(("quay.io/lab/catalog:v1",), "linux/amd64")
    image = Image("quay.io/lab/catalog:v1", levels)
    catalog = CatalogImage(0, "sqlite", "bundles.db", Pin(image.reference, manifests[-1].digest))
    return Plan(question, (catalog,), (), tuple(manifests), (), (image,), ())


def test_indexes_are_nested_as_deep_as_an_export_takes_them() -> None:
    plan = _nested(limits.INDEX_DEPTH)
    assert _parsed(plan) == plan


@pytest.mark.parametrize("levels", [limits.INDEX_DEPTH + 1, 2000])
def test_refuses_indexes_nested_deeper(levels: int) -> None:
    with pytest.raises(ArchiveError, match="nested too deeply"):
        _parsed(_nested(levels))


@pytest.mark.parametrize("size", [limits.BLOB + 1, 1 << 50])
def test_refuses_a_blob_larger_than_any(size: int) -> None:
    plan = some_content().plan()
    first, *rest = plan.blobs
    largest = replace(plan, blobs=(replace(first, size=limits.BLOB), *rest))
    assert _parsed(largest) == largest
    with pytest.raises(ArchiveError, match="no number from 0 to"):
        _parsed(replace(plan, blobs=(replace(first, size=size), *rest)))


def test_refuses_more_content_than_any_medium_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = some_content().plan()
    monkeypatch.setattr(limits, "CONTENT", plan.content_bytes, raising=False)
    assert _parsed(plan) == plan
    monkeypatch.setattr(limits, "CONTENT", plan.content_bytes - 1)
    with pytest.raises(ArchiveError, match=f"would have {plan.content_bytes} bytes"):
        _parsed(plan)


def test_refuses_an_image_under_another_digest_than_its_roots() -> None:
    plan = some_content().plan()
    *others, last = plan.images
    root = plan.manifests[last.root].digest
    pinned = replace(plan, images=(*others, replace(last, reference=f"quay.io/lab/it@{root}")))
    assert _parsed(pinned) == pinned
    other = plan.manifests[others[0].root].digest
    swapped = replace(plan, images=(*others, replace(last, reference=f"quay.io/lab/it@{other}")))
    with pytest.raises(ArchiveError, match="has another digest as its root"):
        _parsed(swapped)


def _with(section: str, number: int, **changes: object) -> list[bytes]:
    """The lines of an inventory with a hole, in which one record has other values."""
    content = some_content()
    content.holes["quay.io/lab/gone:v1"] = Reason.NOT_FOUND
    lines = _lines(b"".join(inventory.lines(content.plan())))
    at = lines.index(f'"{section}":[\n'.encode()) + 1 + number
    end = b",\n" if lines[at].endswith(b",\n") else b"\n"
    record = json.loads(lines[at].removesuffix(end)) | changes
    lines[at] = json.dumps(record).encode() + end
    return lines


def _asking(**changes: object) -> list[bytes]:
    lines = _lines(TEXT)
    question = json.loads(b"{" + lines[1].removesuffix(b",\n") + b"}")["question"] | changes
    return [lines[0], b'"question":' + json.dumps(question).encode() + b",\n", *lines[2:]]


def test_places_are_read_as_they_are() -> None:
    wished = ["deep/er/x:v1", "x"]
    assert inventory.parse(_with("images", 1, places=wished), "it").images[1].places == (*wished,)
    assert inventory.parse(_with("holes", 0, places=wished), "it").holes[0].places == (*wished,)


@pytest.mark.parametrize("section", ["images", "holes"])
@pytest.mark.parametrize(
    "places",
    [
        [""],
        ["/x:1"],
        ["../x:1"],
        ["a/../x:1"],
        ["a//x:1"],
        ["x:"],
        ["x:1:2"],
        ["X:1"],
        ["x:1 y"],
        ["x:1\nquay.io/y=z"],
        ["x#:1"],
        ["https://evil.example/x:1"],
        ["evil.example:5000/x:1"],
        [f"x@sha256:{'0' * 64}"],
        [f"x:1@sha256:{'0' * 64}"],
        ["a/" * 200 + "x:1"],
        [1],
        [None],
        [["x:1"]],
        "x:1",
        {"x:1": 1},
        7,
        None,
    ],
)
def test_refuses_places_that_are_none(section: str, places: object) -> None:
    with pytest.raises(ArchiveError, match="damaged"):
        inventory.parse(_with(section, 0, places=places), "it")


def test_a_pin_may_be_another_image_or_none() -> None:
    own = inventory.parse(_with("catalogs", 0), "it").catalogs[0].pin
    assert own is not None
    other = {"reference": "quay.io/lab/catalog:v1", "digest": f"sha256:{'1' * 64}"}
    read = inventory.parse(_with("catalogs", 0, pin=other), "it").catalogs[0].pin
    assert read == Pin("quay.io/lab/catalog:v1", Digest("sha256", "1" * 64))
    assert inventory.parse(_with("catalogs", 0, pin=None), "it").catalogs[0].pin is None


@pytest.mark.parametrize(
    "pin",
    [
        "quay.io/lab/catalog:v1",
        7,
        [],
        True,
        {},
        {"reference": "quay.io/lab/catalog:v1"},
        {"digest": f"sha256:{'1' * 64}"},
        {"reference": "../x", "digest": f"sha256:{'1' * 64}"},
        {"reference": "quay.io/x:1", "digest": f"sha512:{'1' * 128}"},
        {"reference": "quay.io/x:1", "digest": "sha256:1"},
        {"reference": "quay.io/x:1", "digest": None},
    ],
)
def test_refuses_a_pin_that_is_none(pin: object) -> None:
    with pytest.raises(ArchiveError, match="damaged"):
        inventory.parse(_with("catalogs", 0, pin=pin), "it")


def test_shares_are_one_for_each_catalog() -> None:
    share = {"packages": ["etcd@head"], "dependencies": True, "defaults": [["etcd", "alpha"]]}
    question = inventory.parse(_asking(shares=[share]), "it").question
    assert question.shares == (Share(("etcd@head",), True, (("etcd", "alpha"),)),)


@pytest.mark.parametrize(
    "changes",
    [
        {"shares": [{}, {}]},
        {"shares": ["etcd"]},
        {"shares": [7]},
        {"shares": [None]},
        {"shares": {"packages": 1}},
        {"shares": "x"},
        {"shares": [{"packages": "etcd"}]},
        {"shares": [{"packages": [1]}]},
        {"shares": [{"defaults": [["etcd"]]}]},
        {"shares": [{"defaults": [["etcd", "alpha", "beta"]]}]},
        {"shares": [{"defaults": ["ab"]}]},
        {"shares": [{"defaults": [[1, 2]]}]},
        {"shares": [{"defaults": {"ab": 1}}]},
        {"mapping": 7},
        {"mapping": None},
        {"mapping": ["x"]},
        {"packages": "etcd"},
        {"exclude": "x"},
        {"images": {"x": 1}},
        {"catalogs": "quay.io/lab/catalog:v1"},
    ],
)
def test_refuses_a_question_that_nobody_asked(changes: dict[str, object]) -> None:
    with pytest.raises(ArchiveError, match="damaged"):
        inventory.parse(_asking(**changes), "it")


@pytest.mark.parametrize("question", [b"7", b'"x"', b"[]", b"null"])
def test_refuses_what_is_no_question(question: bytes) -> None:
    lines = _lines(TEXT)
    with pytest.raises(ArchiveError, match="damaged"):
        inventory.parse([lines[0], b'"question":' + question + b",\n", *lines[2:]], "it")


def test_what_nothing_was_said_about_is_left_out() -> None:
    for key in (b'"places"', b'"pin"', b'"shares"', b'"mapping"', b'"rebuild"'):
        assert key not in TEXT
