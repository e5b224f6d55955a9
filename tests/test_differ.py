"""Two catalogs or archives, and what is different, as a person asks for it."""

from __future__ import annotations

import shutil
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from airgap.archive.medium import VolumeOptions
from airgap.archive.reader import ArchiveReader
from airgap.browser import OpenCatalog
from airgap.catalog.model import Catalog
from airgap.catalog.read import Found
from airgap.catalog.tree import LocalTree
from airgap.differ import Fetch, diff
from airgap.digest import digest_of
from airgap.registry.directory import DirectoryStore
from airgap.registry.server import RegistryServer
from airgap.reshaper import split
from tests.support.command import airgap
from tests.support.lab import CATALOG, CATALOGS
from tests.support.plans import archive_of, some_content
from tests.support.site import Supply, open_site

if TYPE_CHECKING:
    from pathlib import Path

OLD, NEW = CATALOGS / "oc-test.db", CATALOGS / "grafana-1b786175.db"


@dataclass(frozen=True)
class Archives:
    part: Path
    whole: Path


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Archives:
    """A part of a catalog, and all of it."""
    folder = tmp_path_factory.mktemp("archives")
    with open_site(folder, Supply.make(folder / "supply")) as site:
        part = folder / "part.tar"
        assert site.export("--package", "etcd", archive=part).status == 0
        assert site.export().status == 0
    return Archives(part, site.archive)


def content_of(archive: Path) -> dict[str, int]:
    with tarfile.open(archive) as tar:
        return {entry.name: entry.size for entry in tar if entry.name.startswith("blobs/")}


def test_tells_what_the_newer_archive_holds_more(archives: Archives) -> None:
    had, has = content_of(archives.part), content_of(archives.whole)
    ran = airgap("diff", archives.part, archives.whole, "--output", "json")
    assert ran.status == 0
    fetch = ran.json["fetch"]
    new = {name: size for name, size in has.items() if name not in had}
    assert fetch["size"] == sum(new.values()) > 0
    assert fetch["blobs"] + fetch["manifests"] == len(new)
    assert ran.json["packages"] == []
    assert ran.json["images_gone"] == []
    with ArchiveReader(archives.part) as part, ArchiveReader(archives.whole) as whole:
        names = {i.reference for i in whole.plan.images} - {i.reference for i in part.plan.images}
    assert ran.json["images_added"] == sorted(names)


def test_there_is_nothing_to_fetch_the_other_way(archives: Archives) -> None:
    ran = airgap("diff", archives.whole, archives.part)
    assert ran.status == 0
    assert "to fetch  0 B: 0 blobs, 0 manifests" in ran.out


def test_reads_an_archive_from_its_volumes(archives: Archives, tmp_path: Path) -> None:
    with ArchiveReader(archives.whole) as reader:
        limit = reader.layout.smallest_limit
    shutil.copy(archives.whole, tmp_path / "olm.tar")
    (tmp_path / "disks").mkdir()
    split(archives.whole, VolumeOptions(limit), output=tmp_path / "disks" / "olm.tar")
    ran = airgap("diff", archives.whole, tmp_path / "disks", "--output", "json")
    assert ran.status == 0
    assert ran.json["fetch"] == {"manifests": 0, "blobs": 0, "size": 0}


def test_compares_an_archive_with_what_it_was_made_of(archives: Archives, tmp_path: Path) -> None:
    ran = airgap("diff", OLD, archives.whole, "--output", "json")
    assert ran.status == 0
    assert ran.json["fetch"] is None
    assert ran.json["packages"] == []


def test_tells_a_person_what_has_changed() -> None:
    ran = airgap("diff", OLD, NEW, "-q", "--images")
    assert ran.status == 0
    assert "packages  1 added, 2 gone, 0 changed\nimages    24 added, 10 gone\n" in ran.out
    assert "\n+ grafana-operator\n  + channel alpha: head 3.10.3\n  + versions 3.7.0" in ran.out
    assert "and 4 older\n" in ran.out
    assert "\n- etcd\n  - channel alpha: head 0.9.2\n  - channel stable: head 0.9.2\n" in ran.out
    assert ran.out.count("\n+ quay.io/") + ran.out.count("\n+ docker.io/") > 5
    assert ran.err == ""


def test_two_like_catalogs_have_no_difference() -> None:
    ran = airgap("diff", OLD, OLD, "-q")
    assert ran.status == 0
    assert "packages  0 added, 0 gone, 0 changed\nimages    0 added, 0 gone\n" in ran.out


def test_what_is_no_catalog_is_named(tmp_path: Path) -> None:
    ran = airgap("diff", OLD, tmp_path / "not-there.tar")
    assert ran.status == 2
    assert "not-there.tar: no such file or directory" in ran.err


def test_a_part_that_cannot_be_read_is_named_with_its_side(tmp_path: Path) -> None:
    shutil.copytree(CATALOGS / "file-based" / "oc-testdata", tmp_path / "configs")
    (tmp_path / "configs" / "broken.yaml").write_text("schema: [")
    ran = airgap("diff", CATALOGS / "file-based" / "oc-testdata", tmp_path / "configs", "-q")
    assert ran.status == 3
    assert f"unreadable: {tmp_path / 'configs'}: " in ran.err


def test_a_hole_of_the_older_archive_is_still_to_be_fetched(tmp_path: Path) -> None:
    content = some_content()
    content.images["quay.io/lab/hole:v1"] = content.manifest(b"{}", b"never arrives")
    archive_of(tmp_path / "new.tar", content)
    content.absent.add(digest_of(b"never arrives"))
    archive_of(tmp_path / "old.tar", content)

    def opened(path: Path) -> OpenCatalog:
        with ArchiveReader(path) as reader:
            found = Found(Catalog((), ()), "sqlite", "", ())
            return OpenCatalog(str(path), LocalTree(tmp_path), found, reader.plan, reader.holes)

    found = diff(opened(tmp_path / "old.tar"), opened(tmp_path / "new.tar"))
    assert found.fetch == Fetch(0, 1, len(b"never arrives"))
    assert (found.images_added, found.images_gone) == ((), ())


def test_a_tag_with_other_content_is_another_image(tmp_path: Path) -> None:
    sides = []
    for seed in (1, 2):
        folder = tmp_path / str(seed)
        folder.mkdir()
        content = some_content(seed=seed)
        archive_of(folder / "a.tar", content)
        with ArchiveReader(folder / "a.tar") as reader:
            found = Found(Catalog((), ()), "sqlite", "", ())
            sides.append(OpenCatalog("", LocalTree(folder), found, reader.plan, reader.holes))
    result = diff(*sides)
    assert result.images_added == result.images_gone
    assert "quay.io/lab/image-0:v1" in result.images_added


def test_a_catalog_image_is_asked_for(archives: Archives, tmp_path: Path) -> None:
    with open_site(tmp_path, Supply.make(tmp_path / "supply")) as site:
        ran = airgap(
            "diff", archives.whole, CATALOG, "--registries-conf", site.registries_conf,
            "--output", "json",
        )  # fmt: skip
    assert ran.status == 0
    assert ran.json["packages"] == ran.json["images_added"] == []


def receipt_of(archive: Path, folder: Path) -> Path:
    with RegistryServer(DirectoryStore(folder / "site", durable=False)) as registry:
        ran = airgap(
            "import", archive, registry.host, "--insecure", "--to-manifests", folder / "manifests"
        )
        assert ran.status == 0
    return folder / "manifests" / "receipt.json"


def test_a_receipt_says_what_is_there_as_its_archive_does(
    archives: Archives, tmp_path: Path
) -> None:
    receipt = receipt_of(archives.part, tmp_path)
    ran = airgap("diff", receipt, archives.whole, "--output", "json")
    expected = airgap("diff", archives.part, archives.whole, "--output", "json").json
    assert ran.status == 0
    assert ran.json["packages"] is None
    for key in ("fetch", "images_added", "images_gone"):
        assert ran.json[key] == expected[key], key


def test_two_receipts_are_compared_by_their_images(archives: Archives, tmp_path: Path) -> None:
    (one := tmp_path / "one").mkdir()
    (two := tmp_path / "two").mkdir()
    old, new = receipt_of(archives.part, one), receipt_of(archives.whole, two)
    ran = airgap("diff", new, old, "--output", "json")
    expected = airgap("diff", archives.whole, archives.part, "--output", "json").json
    assert (ran.status, ran.json["fetch"]) == (0, None)
    assert ran.json["images_gone"] == expected["images_gone"] != []
    told = airgap("diff", old, old).out
    assert "images    0 added, 0 gone" in told
    assert "packages" not in told


def test_a_receipt_that_is_damaged_is_refused(archives: Archives, tmp_path: Path) -> None:
    broken = tmp_path / "receipt.json"
    broken.write_text('{"airgap-receipt":1,"archive":7}')
    ran = airgap("diff", broken, archives.whole)
    assert ran.status == 4
    assert str(broken) in ran.err


def test_each_side_has_its_own_catalog_chosen(archives: Archives) -> None:
    named = ("--old-catalog", CATALOG)
    assert airgap("diff", archives.whole, OLD, *named).status == 0
    ran = airgap("diff", OLD, archives.whole, *named)
    assert ran.status == 2
    assert f"{OLD}: no archive" in ran.err
