from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from airgap import mapping
from airgap.cluster import Announced, Scope
from airgap.digest import digest_of
from airgap.errors import StorageError, UsageError
from airgap.manifests import ManifestsOptions, Written, reasons, write_manifests
from airgap.plan import Missing
from airgap.receipt import Receipt
from airgap.reference import DestinationPrefix, ImageReference

if TYPE_CHECKING:
    from collections.abc import Sequence

ARCHIVE = digest_of(b"an inventory")
CATALOG = ImageReference.parse("quay.io/lab/catalog:v1")
PINNED = ImageReference.parse("quay.io/a/pinned@sha256:" + "a" * 64)
TAGGED = ImageReference.parse("quay.io/a/tagged:v2")
GONE = ImageReference.parse("quay.io/a/gone:v3")


def _write(
    directory: Path | None,
    arrived: Sequence[ImageReference] = (CATALOG, PINNED, TAGGED),
    *,
    missing: tuple[Missing, ...] = (),
    **options: Scope | int,
) -> Written:
    others = [
        mapping.Origin(image, image.digest or digest_of(str(image).encode()))
        for image in (PINNED, TAGGED)
    ]
    places = mapping.assign(
        [*others, mapping.Origin(GONE)],
        DestinationPrefix.parse("registry.example.com"),
        catalogs=[mapping.Origin(CATALOG, digest_of(b"catalog"))],
    )
    catalogs = (
        [Announced(places[CATALOG], digest_of(b"catalog"), "sqlite")] if CATALOG in arrived else []
    )
    return write_manifests(
        ManifestsOptions(directory, **options),  # type: ignore[arg-type]  # options vary in kind
        archive=ARCHIVE,
        asked=[CATALOG],
        arrived=[places[image] for image in arrived],
        catalogs=catalogs,
        places=list(places),
        missing=missing,
        receipt=Receipt(str(ARCHIVE), "registry.example.com", "0.1.0", (), missing),
    )


def _sources(path: Path) -> list[str]:
    (document,) = (d for d in yaml.safe_load_all(path.read_text()) if d)
    (entries,) = (value for value in document["spec"].values() if isinstance(value, list))
    return [entry["source"] for entry in entries]


def test_the_directory_is_named_after_catalog_and_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written = _write(None)
    assert written.directory == Path(f"manifests-catalog-{ARCHIVE.hex[:8]}")
    assert sorted(written.files) == sorted(p.name for p in written.directory.iterdir())


def test_files_tell_of_what_arrived_and_nothing_else(tmp_path: Path) -> None:
    _write(tmp_path, [CATALOG, PINNED])
    assert "quay.io/a/pinned" in _sources(tmp_path / "imageDigestMirrorSet.yaml")
    assert "tagged" not in (tmp_path / "imageContentSourcePolicy.yaml").read_text()
    assert "gone" not in (tmp_path / "imageDigestMirrorSet.yaml").read_text()


def test_what_is_referenced_by_tag_has_a_file_of_its_own(tmp_path: Path) -> None:
    _write(tmp_path)
    assert "quay.io/a/tagged" in _sources(tmp_path / "imageTagMirrorSet.yaml")


def test_a_file_without_content_does_not_stay_from_yesterday(tmp_path: Path) -> None:
    first = _write(tmp_path)
    assert "catalogSource.yaml" in first.files
    written = _write(tmp_path, [TAGGED])
    left = ["imageTagMirrorSet.yaml", "mapping.txt", "receipt.json"]
    assert sorted(written.files) == left
    assert sorted(path.name for path in tmp_path.iterdir()) == left


def test_where_nothing_arrived_all_stays_as_it_is(tmp_path: Path) -> None:
    _write(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert _write(tmp_path, [], missing=(Missing(str(PINNED), "failed"),)) == Written(tmp_path, ())
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert _write(tmp_path / "new", []).files == ()
    assert not (tmp_path / "new").exists()


def test_other_files_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    _write(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_the_same_import_writes_the_same_bytes(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    _write(one)
    _write(two, [TAGGED, PINNED, CATALOG])
    assert {p.name: p.read_bytes() for p in one.iterdir()} == {
        p.name: p.read_bytes() for p in two.iterdir()
    }


def test_the_scope_is_chosen_for_each_kind(tmp_path: Path) -> None:
    _write(tmp_path, icsp_scope=Scope.REGISTRY)
    assert _sources(tmp_path / "imageContentSourcePolicy.yaml") == ["quay.io"]
    assert _sources(tmp_path / "imageDigestMirrorSet.yaml") == ["quay.io/a/pinned"]


def test_an_entry_that_fits_no_document_is_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    with pytest.raises(UsageError):
        _write(tmp_path / "new", max_icsp_size=10)
    assert not (tmp_path / "new").exists()


def test_a_missing_image_is_a_comment_with_its_reason(tmp_path: Path) -> None:
    _write(tmp_path, missing=(Missing(str(GONE), "not-found"),))
    (line,) = (
        line for line in (tmp_path / "mapping.txt").read_text().splitlines() if "gone" in line
    )
    assert line.startswith("#") and "not-found" in line


def test_reasons_know_an_image_by_all_its_names() -> None:
    found = reasons([Missing("busybox", "denied"), Missing("NO Name", "malformed-reference")])
    assert found == {
        ImageReference.parse("busybox"): "denied",
        ImageReference.parse("docker.io/library/busybox:latest"): "denied",
    }


def test_a_directory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="file: Not a directory"):
        _write(tmp_path / "file")
