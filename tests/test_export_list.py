"""Exports of exactly what a list says, and imports that follow its right sides."""

from __future__ import annotations

import io
import json
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from airgap.archive.reader import partial_path
from airgap.reference import ImageReference
from airgap.registry.directory import DirectoryStore
from tests.support.command import airgap, start_airgap
from tests.support.faults import stall
from tests.support.images import image, random_layer
from tests.support.lab import CATALOG, CATALOGS
from tests.support.odd_catalog import supply_naming
from tests.support.promise import same_bytes
from tests.support.site import Site, Supply, open_site
from tests.support.upstream import put

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from airgap.digest import Digest
    from tests.support.command import Ran

EXTRA = "quay.io/lab/tool:1"
"""An image that the catalog knows nothing of."""

FOR = "mirror.example.com:5000/olm"
"""What lists are written about; the registry that imports go to has another name."""


@pytest.fixture(scope="module")
def supply(tmp_path_factory: pytest.TempPathFactory) -> Supply:
    made = Supply.make(tmp_path_factory.mktemp("supply"))
    tool = image([random_layer("tool", 3000, "tool")])
    put(DirectoryStore(made.folder, durable=False), "quay.io/lab/tool", tool, "1")
    return made


@dataclass(frozen=True)
class Listing:
    """A site, and the list that an export would fill, as it is written for ``FOR``."""

    site: Site
    lines: tuple[str, ...]

    @classmethod
    def of(cls, site: Site) -> Listing:
        into = site.folder / "listed"
        ran = airgap(
            "export", CATALOG, "--manifests-only", "--for", FOR, "--to-manifests", into, "-q",
            "--registries-conf", site.registries_conf,
        )  # fmt: skip
        assert ran.status == 0
        return cls(site, tuple((into / "mapping.txt").read_text().splitlines()))

    @property
    def pinned(self) -> list[str]:
        """The left sides that have a digest."""
        return [line.partition("=")[0] for line in self.lines if "@" in line]

    def usual(self, source: str) -> str:
        """The right side of a source, below the destination."""
        (line,) = (line for line in self.lines if line.startswith(f"{source}="))
        return line.partition("=")[2].removeprefix(f"{FOR}/")

    def write(self, *lines: str, name: str = "edited.txt") -> Path:
        path = self.site.folder / name
        path.write_text("".join(f"{line}\n" for line in lines))
        return path

    def export(self, *lines: str, flags: Sequence[object] = ("-q", "--for", FOR)) -> Ran:
        return self.site.export("-f", self.write(*lines), *flags)

    def digest(self, source: str) -> Digest:
        """What a source stands for upstream."""
        reference = ImageReference.parse(source).with_defaults()
        store = DirectoryStore(self.site.supply.folder, durable=False)
        path = f"{reference.registry}/{reference.path}"
        found = store.manifest(path, reference.digest or reference.tag)
        assert found is not None
        return found[0].digest

    def at_destination(self, repository: str, name: Digest | str) -> Digest | None:
        """What a tag, or a digest, stands for at the destination."""
        store = DirectoryStore(self.site.folder / "destination", durable=False)
        found = store.manifest(repository, name)
        return found and found[0].digest


@pytest.fixture
def listing(supply: Supply, tmp_path: Path) -> Iterator[Listing]:
    with open_site(tmp_path, supply) as site:
        yield Listing.of(site)


def inspected(site: Site) -> dict[str, Any]:
    found: dict[str, Any] = airgap("inspect", site.archive, "--output", "json").json
    return found


def taken(site: Site) -> set[str]:
    return {one["reference"] for one in inspected(site)["images"]}


def wishes(site: Site) -> dict[str, list[str]]:
    """The places in the inventory, read without our own reader."""
    with site.archive.open("rb") as file:
        start = file.read(1536)
        text = file.read(int(start[1024 + 124 : 1024 + 136].rstrip(b"\0"), 8))
    document = json.loads(text)
    every = (*document["images"], *document["holes"])
    return {one["reference"]: one["places"] for one in every if "places" in one}


# What is taken


def test_takes_exactly_what_is_listed_and_the_catalog(listing: Listing) -> None:
    first, _, third, *_ = listing.pinned
    ran = listing.export(f"{first}={FOR}/x:1", f"{third}={FOR}/{listing.usual(third)}")
    assert ran.status == 0
    assert taken(listing.site) == {first, third, CATALOG}


def test_says_who_needs_what_is_listed(listing: Listing) -> None:
    source = next(name for name in listing.pinned if "etcd" in name)
    listing.export(f"{source}={FOR}/x:1")
    assert [package["name"] for package in inspected(listing.site)["packages"]] == ["etcd"]


def test_a_list_as_it_was_written_is_everything_and_wishes_nothing(listing: Listing) -> None:
    ran = listing.export(*listing.lines, flags=())
    assert ran.status == 0
    assert f"right sides are read as below {FOR}; --for says otherwise" in ran.err
    everything = {image.reference for image in listing.site.supply.lab.images.values()}
    assert taken(listing.site) == everything | {CATALOG}
    assert wishes(listing.site) == {}


def test_a_line_that_is_no_image_of_the_catalog_is_taken_besides(listing: Listing) -> None:
    assert listing.export(f"{EXTRA}={FOR}/mine/tool:one").status == 0
    assert taken(listing.site) == {EXTRA, CATALOG}
    assert wishes(listing.site) == {EXTRA: ["mine/tool:one"]}


def test_a_left_side_without_its_tag_is_the_catalogs_image_with_it(tmp_path: Path) -> None:
    with closing(sqlite3.connect(CATALOGS / "oc-test.db")) as database:
        query = "select image from related_image where image like '%@%'"
        name, _, digest = database.execute(query).fetchone()[0].partition("@")
    supply = supply_naming(tmp_path, f"{name}:v9@{digest}")
    tagged = supply.lab.images[f"{name}:v9@{digest}"].reference
    bare = supply.lab.images[f"{name}@{digest}"].reference
    with open_site(tmp_path, supply) as site:
        listing = Listing.of(site)
        assert listing.export(f"{bare}={FOR}/x:1").status == 0
        assert taken(site) == {tagged, bare, CATALOG}
        assert wishes(site) == {tagged: ["x:1"], bare: ["x:1"]}


def test_what_is_listed_and_not_there_is_a_hole(listing: Listing) -> None:
    gone = "quay.io/lab/tool:none"
    ran = listing.export(
        f"{gone}={FOR}/x:1", f"{EXTRA}={FOR}/x:2", flags=("--output", "json", "--for", FOR)
    )
    assert ran.status == 3
    assert [hole["reference"] for hole in ran.json["missing"]] == [gone]
    assert wishes(listing.site)[gone] == ["x:1"]
    assert listing.site.import_("-q").status == 3
    lines = (listing.site.manifests / "mapping.txt").read_text().splitlines()
    assert f"# {gone}={listing.site.destination.host}/x:1  (missing: not-found)" in lines


def test_a_wildcard_takes_every_tag_that_matches(listing: Listing) -> None:
    site, upstream = listing.site, listing.site.upstream.host
    catalog, tool = f"{upstream}/{CATALOG}", f"{upstream}/quay.io/lab/tool"
    flags = ("-q", "--insecure", "--for", FOR)
    listed = listing.write(f"{tool}:* {FOR}/tools", f"{tool}:9* {FOR}/none")
    ran = site.export("-f", listed, *flags, "--output", "json", catalog=catalog)
    assert ran.status == 3
    assert [hole["reference"] for hole in ran.json["missing"]] == [f"{tool}:9*"]
    assert taken(site) == {f"{tool}:1", catalog}
    assert wishes(site) == {f"{tool}:1": ["tools:1"]}


def test_what_is_ignored_in_a_list_is_told(listing: Listing) -> None:
    ran = listing.export(f"{EXTRA}={FOR}/x:1 {EXTRA}", flags=("--for", FOR))
    assert ran.status == 0
    assert "edited.txt, line 1: 'quay.io/lab/tool:1' is ignored beside SRC=DST" in ran.err


def test_a_list_may_come_from_standard_input(
    listing: Listing, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(f"{EXTRA}={FOR}/x:1\n".encode()))
    monkeypatch.setattr("sys.stdin", stream)
    assert listing.site.export("-q", "-f", "-").status == 0
    assert taken(listing.site) == {EXTRA, CATALOG}


def test_a_dry_run_says_what_is_wished(listing: Listing) -> None:
    ran = listing.export(f"{EXTRA}={FOR}/x:1", flags=("--dry-run", "--for", FOR))
    assert ran.status == 0
    assert f"  {EXTRA}\n    to DEST/x:1\n" in ran.out


# Where it arrives


def test_right_sides_are_followed(listing: Listing) -> None:
    moved, doubled, bare, kept, *_ = listing.pinned
    wanted = {
        "mine/moved:v7": moved,
        listing.usual(doubled): doubled,
        "again/and/again:v8": doubled,
        listing.usual(kept): kept,
        "catalogs/ours:today": CATALOG,
    }
    lines = [f"{source}={FOR}/{place}" for place, source in wanted.items()]
    site = listing.site
    assert listing.export(*lines, f"{bare}={FOR}/mine/untagged").status == 0
    ran = site.import_("--output", "json", "-q", namespace="/olm")
    assert ran.status == 0
    assert site.tags_at_destination() == {f"olm/{place}" for place in wanted}
    for place, source in wanted.items():
        assert listing.at_destination(*f"olm/{place}".split(":")) == listing.digest(source)
    assert listing.at_destination("olm/mine/untagged", listing.digest(bare)) is not None
    # What has two places was sent once, and mounted for the other.
    assert ran.json["sent"] == inspected(site)["blobs"]
    assert ran.json["arrived"] == 5


def test_the_files_say_every_place(listing: Listing) -> None:
    doubled, bare, *_ = listing.pinned
    site = listing.site
    assert listing.export(
        f"{doubled} {FOR}/one:1 {FOR}/two/three:2", f"{bare}={FOR}/untagged"
    ).status == 0  # fmt: skip
    assert site.import_("-q", namespace="/olm").status == 0
    where = f"{site.destination.host}/olm"
    assert set((site.manifests / "mapping.txt").read_text().splitlines()) == {
        f"{doubled}={where}/one:1",
        f"{doubled}={where}/two/three:2",
        f"{bare}={where}/untagged",
        f"{CATALOG}={where}/lab-catalog:v1",
    }
    receipt = json.loads((site.manifests / "receipt.json").read_text())
    arrived = {(i["reference"], i["repository"], i["tag"]) for i in receipt["images"]}
    assert arrived == {
        (doubled, f"{where}/one", "1"),
        (doubled, f"{where}/two/three", "2"),
        (bare, f"{where}/untagged", ""),
        (CATALOG, f"{where}/lab-catalog", "v1"),
    }
    policy = yaml.safe_load((site.manifests / "imageContentSourcePolicy.yaml").read_text())
    mirrors = {m["source"]: m["mirrors"] for m in policy["spec"]["repositoryDigestMirrors"]}
    assert {f"{where}/one", f"{where}/two/three"} <= set(mirrors[doubled.partition("@")[0]])


def test_the_cluster_gets_the_catalog_from_where_it_is_wished(listing: Listing) -> None:
    listing.export(f"{CATALOG}={FOR}/catalogs/ours:today", f"{EXTRA}={FOR}/x:1")
    assert listing.site.import_("-q").status == 0
    source = yaml.safe_load((listing.site.manifests / "catalogSource.yaml").read_text())
    digest = listing.site.supply.lab.catalog_digest
    assert source["spec"]["image"] == f"{listing.site.destination.host}/catalogs/ours@{digest}"


def test_wishes_are_below_whatever_destination_it_is(listing: Listing) -> None:
    moved, kept, *_ = listing.pinned
    listing.export(f"{moved}={FOR}/mine/moved:v7", f"{kept}={FOR}/{listing.usual(kept)}")
    ran = listing.site.import_("-q", "--max-components", "4", namespace="/else/where")
    assert ran.status == 0
    tag = listing.usual(kept).partition(":")[2]
    path = ImageReference.parse(kept).path
    assert listing.site.tags_at_destination() == {
        "else/where/mine/moved:v7",
        f"else/where/{path}:{tag}",
        "else/where/lab/catalog:v1",
    }


def test_an_import_again_sends_nothing(listing: Listing) -> None:
    doubled, *_ = listing.pinned
    listing.export(f"{doubled} {FOR}/one:1 {FOR}/two:2")
    assert listing.site.import_("-q").status == 0
    before = len(listing.site.destination.asked)
    assert listing.site.import_("-q").status == 0
    asked = listing.site.destination.asked[before:]
    assert {one.method for one in asked} <= {"GET", "HEAD"}


def test_an_image_counts_only_where_all_its_places_have_it(listing: Listing) -> None:
    doubled, *_ = listing.pinned
    site = listing.site
    listing.export(f"{doubled} {FOR}/one:1 {FOR}/two:2")
    put(DirectoryStore(site.folder / "destination", durable=False), "two", image([]), "2")
    ran = site.import_("--output", "json", "-q")
    assert ran.status == 5
    assert [failed["reference"] for failed in ran.json["failed"]] == [doubled]
    assert not (site.manifests / "imageDigestMirrorSet.yaml").exists()
    assert site.import_("-q", "--force-tags").status == 0


def test_the_mapping_of_an_import_is_the_list_of_the_next_export(listing: Listing) -> None:
    moved, kept, *_ = listing.pinned
    listing.export(f"{moved}={FOR}/mine:v7", f"{kept}={FOR}/{listing.usual(kept)}")
    site = listing.site
    assert site.import_("-q", namespace="/olm").status == 0
    again, mapping = site.folder / "again.tar", site.manifests / "mapping.txt"
    assert site.export("-q", "-f", mapping, archive=again).status == 0
    text = mapping.read_text()
    assert site.import_("-q", namespace="/olm", archive=again).status == 0
    assert mapping.read_text() == text


# What is refused


@pytest.mark.parametrize("flags", [(), ("--for", FOR)])
def test_refuses_several_registries_before_any_request(
    listing: Listing, flags: tuple[str, ...]
) -> None:
    before = len(listing.site.upstream.asked)
    ran = listing.export(f"{EXTRA}={FOR}/x:1", f"{CATALOG}=other.example/y:1", flags=flags)
    assert ran.status == 2
    assert "edited.txt, line 2: other.example/y:1 is not at mirror.example.com:5000" in ran.err
    assert len(listing.site.upstream.asked) == before


def test_refuses_what_is_not_below_the_destination(listing: Listing) -> None:
    ran = listing.export(f"{EXTRA}=mirror.example.com:5000/else/tool:1", flags=("-q", "--for", FOR))
    assert ran.status == 2
    assert "edited.txt, line 1: mirror.example.com:5000/else/tool:1 is not below" in ran.err
    assert not listing.site.archive.exists()


def test_refuses_at_export_two_contents_for_one_tag(listing: Listing) -> None:
    ran = listing.export(f"{EXTRA}={FOR}/lab-catalog:v1", flags=("-q", "--for", FOR))
    assert ran.status == 2
    assert f"{FOR}/lab-catalog:v1: would be the place of" in ran.err
    assert not listing.site.archive.exists()


def test_refuses_at_import_two_contents_for_one_tag_before_any_request(listing: Listing) -> None:
    assert listing.export(f"{EXTRA}={FOR}/lab/catalog:v1", flags=("-q", "--for", FOR)).status == 0
    ran = listing.site.import_("-q", "--max-components", "3", namespace="/olm")
    assert ran.status == 2
    assert "/olm/lab/catalog:v1: would be the place of" in ran.err
    assert listing.site.destination.asked == []


@pytest.mark.parametrize(
    "flags",
    [
        ("--package", "etcd"),
        ("--exclude-image", "x"),
        ("--image", EXTRA),
        ("--rebuild-catalog",),
        ("--with-dependencies",),
    ],
)
def test_a_list_is_all_that_is_said_about_what_to_take(
    listing: Listing, flags: tuple[str, ...]
) -> None:
    ran = listing.export(f"{EXTRA}={FOR}/x:1", flags=flags)
    assert ran.status == 2
    assert f"{flags[0]} has nothing to say beside -f" in ran.err


def test_refuses_a_list_of_nothing(listing: Listing) -> None:
    ran = listing.export("# nothing")
    assert ran.status == 2
    assert "at least one source image" in ran.err


# Again


def test_the_same_list_in_another_shape_is_the_same_question(listing: Listing) -> None:
    one, two = f"{EXTRA}={FOR}/x:1", f"{listing.pinned[0]}={FOR}/y:1"
    assert listing.export(one, two).status == 0
    ran = listing.export(
        "# once more", f"{two}  # the same", "", one.replace("=", "  "), flags=("--for", FOR)
    )
    assert ran.status == 0
    assert "finished already" in ran.err


@pytest.mark.parametrize(
    ("line", "flags"),
    [
        (f"{EXTRA}={FOR}/x:2", ("--for", FOR)),
        (f"{EXTRA}={FOR}/x:1", ("--for", "mirror.example.com:5000")),
        (f"{EXTRA}={FOR}/x:1", ("--for", FOR, "--max-components", "3")),
    ],
)
def test_another_list_is_another_question(
    listing: Listing, line: str, flags: tuple[str, ...]
) -> None:
    assert listing.export(f"{EXTRA}={FOR}/x:1").status == 0
    ran = listing.export(line, flags=flags)
    assert ran.status == 2
    assert "begun for another question" in ran.err
    assert "; now the list of images sha256:" in ran.err
    assert "no longer the list of images sha256:" in ran.err


def test_a_list_and_none_are_two_questions(listing: Listing) -> None:
    assert listing.site.export("-q").status == 0
    ran = listing.export(*listing.lines)
    assert ran.status == 2
    assert "; now the list of images sha256:" in ran.err


def test_a_killed_export_continues_with_the_same_list(listing: Listing) -> None:
    site, lines = listing.site, [f"{name}={FOR}/x/{n}:1" for n, name in enumerate(listing.pinned)]
    path = listing.write(*lines)
    undisturbed = site.folder / "undisturbed.tar"
    assert site.export("-q", "-f", path, archive=undisturbed).status == 0
    site.upstream.fault("GET", r"/v2/.*/blobs/sha256:.*", stall(30), hits=range(12, 100))
    with start_airgap(*site.exporting("-f", path), folder=site.folder) as process:
        deadline = time.monotonic() + 20
        while not partial_path(site.archive).exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
    assert partial_path(site.archive).exists()
    site.upstream.heal()
    ran = site.export("-q", "-f", listing.write(*lines[1:], name="other.txt"))
    assert ran.status == 2
    assert "begun for another question" in ran.err
    assert site.export("-q", "-f", path).status == 0
    assert same_bytes(site.archive, undisturbed)
