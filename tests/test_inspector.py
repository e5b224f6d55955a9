from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import airgap
from airgap.plan import Reason
from tests.support.plans import archive_of, some_content

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.plans import Content


@pytest.fixture
def content() -> Content:
    return some_content()


def _inspect(path: Path, content: Content) -> airgap.Inspection:
    archive_of(path / "olm.tar", content)
    return airgap.inspect(path / "olm.tar")


def test_it_says_what_the_plan_says(tmp_path: Path, content: Content) -> None:
    found, plan = _inspect(tmp_path, content), content.plan()
    assert found.exit_status == 0
    assert (found.damage, found.missing) == ((), ())
    assert found.size == (tmp_path / "olm.tar").stat().st_size
    assert (found.manifests, found.blobs) == (len(plan.manifests), len(plan.blobs))
    assert found.content_size == plan.content_bytes
    (catalog,) = found.catalogs
    assert (catalog.reference, catalog.format, catalog.path) == (
        "quay.io/lab/catalog:v1",
        "sqlite",
        "bundles.db",
    )
    assert catalog.digest == str(content.images["quay.io/lab/catalog:v1"].digest)


def test_every_image_has_its_size_and_who_wants_it(tmp_path: Path, content: Content) -> None:
    found = {image.reference: image for image in _inspect(tmp_path, content).images}
    assert found.keys() == content.images.keys()
    for name, root in content.images.items():
        assert found[name].digest == str(root.digest)
    assert found["quay.io/lab/catalog:v1"].bundles == ()
    assert all(i.bundles for name, i in found.items() if name != "quay.io/lab/catalog:v1")
    both = found["quay.io/lab/both:v1"]
    assert both.size > max(i.size for name, i in found.items() if name != both.reference)


def test_what_images_share_is_counted_once_in_a_package(tmp_path: Path, content: Content) -> None:
    found = _inspect(tmp_path, content)
    names = [package.name for package in found.packages]
    assert names == sorted(names) == ["package-0", "package-1"]
    assert sum(package.images for package in found.packages) == len(content.images) - 1
    for package in found.packages:
        assert package.bundles == package.images
        assert package.size < found.content_size


def test_holes_are_told_with_whom_they_hurt(tmp_path: Path, content: Content) -> None:
    content.holes["quay.io/lab/gone:v1"] = Reason.DENIED
    content.absent.add(content.plan().blobs[-1].digest)
    found = _inspect(tmp_path, content)
    assert found.exit_status == 3
    assert {missing.reason for missing in found.missing} == {"denied", "missing-blob"}
    assert all(missing.packages for missing in found.missing)


def test_a_cut_archive_is_not_passed_off_as_whole(tmp_path: Path, content: Content) -> None:
    archive_of(tmp_path / "olm.tar", content)
    whole = (tmp_path / "olm.tar").read_bytes()
    (tmp_path / "olm.tar").write_bytes(whole[:-5000])
    found = airgap.inspect(tmp_path / "olm.tar")
    assert found.exit_status == 4
    assert f"cut short: {len(whole) - 5000} bytes, must be {len(whole)}" in found.damage[0]


def test_content_is_not_read(tmp_path: Path, content: Content) -> None:
    archive_of(tmp_path / "olm.tar", content)
    plan = content.plan()
    damaged = (
        (tmp_path / "olm.tar")
        .read_bytes()
        .replace(content.by_digest[plan.blobs[2].digest], bytes(plan.blobs[2].size))
    )
    (tmp_path / "olm.tar").write_bytes(damaged)
    assert airgap.inspect(tmp_path / "olm.tar").exit_status == 0
    assert airgap.verify(tmp_path / "olm.tar").exit_status == 4


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(airgap.UsageError, match="no such file"):
        airgap.inspect(tmp_path / "nothing")
    (tmp_path / "it").write_bytes(b"text")
    with pytest.raises(airgap.ArchiveError, match="not an airgap archive"):
        airgap.inspect(tmp_path / "it")
