from __future__ import annotations

import json
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from airgap import limits
from airgap.archive.work import Work
from airgap.asking import Asker
from airgap.digest import digest_of
from airgap.errors import (
    AccessDenied,
    AirgapError,
    Blocked,
    CatalogError,
    IntegrityError,
    Interrupted,
    MalformedContent,
    MalformedReference,
    NotFound,
    RegistryError,
    StorageError,
    Unreachable,
    UsageError,
)
from airgap.oci import media_types
from airgap.oci.graph import UnsupportedContent
from airgap.oci.model import Descriptor
from airgap.plan import Question, Reason
from airgap.planner import Survey, reason_for, survey
from airgap.progress import Silent
from airgap.registry import retry
from airgap.registry.access import Access
from airgap.registry.directory import DirectoryStore
from tests.support import images
from tests.support.faults import answer
from tests.support.lab import CATALOG
from tests.support.odd_catalog import supply_naming
from tests.support.site import SMALL, Site, Supply, open_site
from tests.support.upstream import put

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ETCD = "quay.io/test/etcd.0.9.2"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(retry, "_FIRST_DELAY", 0.001)
    with open_site(tmp_path, Supply.make(tmp_path / "upstream")) as site:
        yield site


class _Listening(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []
        self.images = 0

    def say(self, message: str) -> None:
        self.said.append(message)

    def image(self) -> None:
        self.images += 1


def _survey(
    site: Site,
    *catalogs: str,
    platform: str = "linux/amd64",
    continue_on_error: bool = True,
    progress: Silent | None = None,
    stop: threading.Event | None = None,
    workers: int = 4,
) -> Survey:
    stop = stop or threading.Event()
    access = Access(registries_conf=site.registries_conf, connections=workers)
    with access.connect([], stop) as client:
        return survey(
            Question(catalogs or (CATALOG,), platform),
            Asker(client, Work(site.folder / "olm.tar.work")),
            continue_on_error=continue_on_error,
            progress=progress or Silent(),
            stop=stop,
        )


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MalformedReference("x"), Reason.MALFORMED_REFERENCE),
        (NotFound("x"), Reason.NOT_FOUND),
        (AccessDenied("x"), Reason.DENIED),
        (Unreachable("x"), Reason.UNREACHABLE),
        (RegistryError("x"), Reason.REFUSED),
        (IntegrityError("x"), Reason.WRONG_CONTENT),
        (MalformedContent("x"), Reason.MALFORMED_CONTENT),
        (Blocked("x"), Reason.BLOCKED),
        (UnsupportedContent("x", reason="sha512"), Reason.SHA512),
        (UnsupportedContent("x", reason="foreign-layer"), Reason.FOREIGN_LAYER),
    ],
    ids=lambda value: value if isinstance(value, Reason) else type(value).__name__,
)
def test_every_kind_of_error_has_its_word(error: AirgapError, reason: Reason) -> None:
    assert reason_for(error) is reason


def test_every_word_is_used() -> None:
    kinds = (MalformedReference, NotFound, AccessDenied, Unreachable, RegistryError, Blocked)
    words = {reason_for(kind("x")) for kind in (*kinds, IntegrityError, MalformedContent)}
    assert words | {Reason.SHA512, Reason.FOREIGN_LAYER, Reason.UNREADABLE} == set(Reason)


@pytest.mark.parametrize(
    "error", [StorageError("full"), Interrupted("stopped"), UsageError("a helper fails")]
)
def test_what_is_no_images_fault_is_no_hole(error: AirgapError) -> None:
    with pytest.raises(type(error)):
        reason_for(error)


def test_a_plan_holds_every_image_the_catalog_names(site: Site) -> None:
    progress = _Listening()
    plan = _survey(site, progress=progress).plan
    named = {image.reference for image in site.supply.lab.images.values()}
    assert [image.reference for image in plan.images] == [CATALOG, *sorted(named)]
    assert progress.images == len(named)
    digests = {manifest.digest for manifest in plan.manifests}
    digests |= {blob.digest for blob in plan.blobs}
    assert digests == set(site.supply.lab.content)
    assert plan.content_bytes == site.supply.lab.total_bytes


def test_a_plan_says_where_the_catalog_stands_in_its_image(site: Site) -> None:
    (catalog,) = _survey(site).plan.catalogs
    assert (catalog.image, catalog.format, catalog.path) == (0, "sqlite", "bundles.db")


def test_the_plan_does_not_depend_on_the_number_of_workers(site: Site) -> None:
    assert _survey(site, workers=1).plan == _survey(site, workers=8).plan


def test_what_was_learned_is_not_asked_again(site: Site) -> None:
    first = _survey(site)
    asked = len(site.upstream.asked)
    assert _survey(site).plan == first.plan
    assert len(site.upstream.asked) == asked


def test_an_image_that_cannot_be_had_is_a_hole_with_what_was_said(site: Site) -> None:
    site.upstream.fault("GET", r".*/test/etcd\.0\.9\.2/manifests/.*", answer(403))
    found = _survey(site)
    (hole,) = found.missing
    assert (hole.reference, hole.reason) == (ETCD, "denied")
    assert hole.packages == ("etcd",)
    assert "answers 403" in hole.detail == found.details[ETCD]
    assert ETCD not in {image.reference for image in found.plan.images}


@pytest.mark.parametrize("host", ["quay.io:0", "quay.io:99999", "quay.io:0000065536"])
def test_a_port_that_does_not_exist_is_a_hole(tmp_path: Path, host: str) -> None:
    text = f"{host}/x/y@sha256:{'a' * 64}"
    with open_site(tmp_path, supply_naming(tmp_path, text)) as site:
        (hole,) = _survey(site).missing
    assert (hole.reference, hole.reason) == (text, "malformed-reference")
    assert hole.packages == ("etcd",)


@pytest.mark.parametrize("size", [limits.BLOB + 1, 1 << 50])
def test_an_image_that_claims_more_than_any_blob_can_hold_is_a_hole(site: Site, size: int) -> None:
    document = json.loads(images.image([images.layer({"file": b"content"})]).raw)
    document["layers"][0]["size"] = size
    _put_manifest(site, ETCD, document, "latest")
    (hole,) = _survey(site).missing
    assert (hole.reference, hole.reason) == (ETCD, "malformed-content")
    document["layers"][0]["size"] = limits.BLOB
    _put_manifest(site, ETCD, document, "latest")
    site.folder.joinpath("olm.tar.work", "pins.jsonl").unlink()
    assert _survey(site).missing == []


def _put_manifest(site: Site, repository: str, document: object, tag: str) -> None:
    raw = json.dumps(document).encode()
    image = images.Image(Descriptor(digest_of(raw), len(raw), media_types.OCI_MANIFEST), raw)
    put(DirectoryStore(site.supply.folder, durable=False), repository, image, tag)


def test_a_catalog_whose_configuration_claims_too_much_is_refused_unread(site: Site) -> None:
    document = json.loads(images.image([images.layer({"file": b"content"})]).raw)
    document["config"]["size"] = 300_000_000
    _put_manifest(site, "quay.io/lab/catalog", document, "large")
    with pytest.raises(MalformedContent, match="a configuration of 300000000 bytes"):
        _survey(site, "quay.io/lab/catalog:large")
    assert site.upstream.count("GET", ".*/blobs/.*") == 0


def test_without_going_on_it_ends_the_survey(site: Site) -> None:
    site.upstream.fault("GET", r".*/test/etcd\.0\.9\.2/manifests/.*", answer(403))
    with pytest.raises(AccessDenied):
        _survey(site, continue_on_error=False)


def test_a_catalog_that_cannot_be_had_is_never_a_hole(site: Site) -> None:
    with pytest.raises(NotFound, match=r"quay\.io/lab/catalog:v2"):
        _survey(site, CATALOG, "quay.io/lab/catalog:v2")
    with pytest.raises(CatalogError, match=ETCD):
        _survey(site, ETCD)


def test_two_catalogs_share_what_both_want(site: Site) -> None:
    pinned = f"quay.io/lab/catalog@{site.supply.lab.catalog_digest}"
    plan = _survey(site, CATALOG, pinned).plan
    assert [plan.images[catalog.image].reference for catalog in plan.catalogs] == [CATALOG, pinned]
    one = _survey(site).plan
    assert len(plan.images) == len(one.images) + 1
    assert (plan.manifests, plan.blobs, plan.bundles) == (one.manifests, one.blobs, one.bundles)


def test_a_request_to_stop_ends_the_survey(site: Site) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        _survey(site, stop=stop)


@pytest.mark.parametrize(("expression", "count"), [("linux", 4), ("nothing", 0), ("64", 3)])
def test_one_variant_of_a_catalog_must_be_chosen(
    tmp_path: Path, expression: str, count: int
) -> None:
    recipe = replace(SMALL, catalog_multi_arch=True)
    with open_site(tmp_path, Supply.make(tmp_path / "upstream", recipe)) as site:
        with pytest.raises(UsageError, match=f"{count} variants of the catalog") as caught:
            _survey(site, platform=expression)
        assert caught.value.message.count("\n") == 4
        with pytest.raises(UsageError, match="is not a regular expression"):
            _survey(site, platform="[")
        assert _survey(site, platform="linux/s390x").plan.question.platform == "linux/s390x"


def test_a_catalog_without_an_index_is_taken_as_it_is(site: Site) -> None:
    assert _survey(site, platform="windows/arm").plan.catalogs
