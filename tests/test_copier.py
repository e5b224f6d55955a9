"""Copying what files list, as ``oc image mirror -f`` does, but with whole indexes alone."""

from __future__ import annotations

import io
import json
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from airgap.errors import HOLES
from airgap.oci import media_types
from airgap.registry import retry
from airgap.registry.directory import DirectoryStore
from tests.support.command import airgap
from tests.support.docker_registry import docker_registry, needs_docker_registry
from tests.support.faults import FaultyRegistry, answer
from tests.support.http_client import ask
from tests.support.lab import CATALOG, LabImage
from tests.support.site import Site, Supply, open_site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airgap.digest import Digest
    from tests.support.command import Ran

ACCEPT = ",".join(media_types.ACCEPTED)


@pytest.fixture(scope="module")
def supply(tmp_path_factory: pytest.TempPathFactory) -> Supply:
    return Supply.make(tmp_path_factory.mktemp("supply"))


@pytest.fixture
def site(tmp_path: Path, supply: Supply, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(retry, "_FIRST_DELAY", 0.001)
    monkeypatch.setenv("REGISTRY_AUTH_FILE", "")
    with open_site(tmp_path, supply) as site:
        yield site


@dataclass(frozen=True)
class Lists:
    """Mapping files in a site's folder, and the command that copies what they list."""

    site: Site

    @property
    def several(self) -> LabImage:
        """An image with an index."""
        return next(i for i in self.site.supply.lab.images.values() if len(i.manifests) > 1)

    @property
    def single(self) -> LabImage:
        return next(i for i in self.site.supply.lab.images.values() if len(i.manifests) == 1)

    def source(self, image: LabImage) -> str:
        """An image by its digest, where it is."""
        return f"{self.site.upstream.host}/{image.repository}@{image.root}"

    def at(self, name: str) -> str:
        return f"{self.site.destination.host}/{name}"

    def copy(self, text: str, *flags: object) -> Ran:
        file = self.site.folder / "mapping.txt"
        file.write_text(text)
        return self.run("-f", file, *flags)

    def run(self, *flags: object) -> Ran:
        conf = self.site.registries_conf
        return airgap("mirror", "--insecure", "--registries-conf", conf, *flags)


@pytest.fixture
def lists(site: Site) -> Lists:
    return Lists(site)


def manifest(host: str, name: str, what: object) -> tuple[int, str]:
    """What a registry says to whoever asks for a manifest: the status, and the digest."""
    path = f"/v2/{name}/manifests/{what}"
    came = ask(host, "HEAD", path, headers={"Accept": ACCEPT})
    return came.status, came.headers.get("Docker-Content-Digest", "")


def assert_whole(host: str, name: str, image: LabImage, tag: str = "") -> None:
    """Everything that makes an image is in one repository, and the tag points to its root."""
    found: list[Digest] = [d for d in image.manifests if manifest(host, name, d)[0] == 200]
    assert found == [*image.manifests]
    for blob in image.blobs:
        assert ask(host, "HEAD", f"/v2/{name}/blobs/{blob}").status == 200
    if tag:
        assert manifest(host, name, tag) == (200, str(image.root))


class TestWhatIsCopied:
    def test_is_every_manifest_of_an_index(self, lists: Lists) -> None:
        image = lists.several
        ran = lists.copy(f"{lists.source(image)}={lists.at('some/where:v1')}\n", "--output", "json")
        assert (ran.status, ran.json["copies"], ran.json["arrived"]) == (0, 1, 1)
        assert ran.json["manifests_sent"] == len(image.manifests)
        assert_whole(lists.site.destination.host, "some/where", image, "v1")
        assert lists.site.tags_at_destination() == {"some/where:v1"}

    def test_is_one_source_in_several_places(self, lists: Lists) -> None:
        image = lists.several
        places = ["a/one:v1", "a/one:v2", "b/two:v1"]
        line = " ".join([lists.source(image), *map(lists.at, places)])
        ran = lists.copy(f"# a comment\n{line}  # and one more\n", "--output", "json")
        assert (ran.status, ran.json["copies"], ran.json["arrived"]) == (0, 3, 3)
        assert (ran.json["sent"], ran.json["mounted"]) == (len(image.blobs), len(image.blobs))
        assert lists.site.tags_at_destination() == {*places}
        assert_whole(lists.site.destination.host, "a/one", image, "v2")
        assert_whole(lists.site.destination.host, "b/two", image, "v1")

    def test_goes_to_any_number_of_registries(self, lists: Lists, tmp_path: Path) -> None:
        image = lists.single
        with FaultyRegistry(DirectoryStore(tmp_path / "other", durable=False)) as other:
            places = (lists.at("x/y:v1"), f"{other.host}/x/y:v1")
            text = "".join(f"{lists.source(image)}={place}\n" for place in places)
            assert lists.copy(text).status == 0
            assert_whole(lists.site.destination.host, "x/y", image, "v1")
            assert_whole(other.host, "x/y", image, "v1")
            assert not [one for one in other.asked if "from" in one.query]

    def test_without_a_tag_is_known_by_its_digest(self, lists: Lists) -> None:
        images = lists.several, lists.single
        text = "".join(f"{lists.source(image)}={lists.at('by/digest')}\n" for image in images)
        assert lists.copy(text).status == 0
        assert lists.site.tags_at_destination() == set()
        for image in images:
            assert_whole(lists.site.destination.host, "by/digest", image)
        again = lists.copy(text, "--output", "json")
        assert [again.json[key] for key in ("sent", "mounted", "manifests_sent")] == [0, 0, 0]

    def test_takes_the_tag_of_the_source_where_none_is_given(self, lists: Lists) -> None:
        assert lists.copy(f"{CATALOG}={lists.at('my/catalog')}\n").status == 0
        image = lists.site.supply.lab.catalog_image
        assert_whole(lists.site.destination.host, "my/catalog", image, "v1")

    def test_may_be_all_tags_that_match(self, lists: Lists) -> None:
        source = f"{lists.site.upstream.host}/quay.io/lab/catalog"
        assert lists.copy(f"{source}:v*={lists.at('my/catalog')}\n").status == 0
        assert lists.site.tags_at_destination() == {"my/catalog:v1"}
        image = lists.site.supply.lab.catalog_image
        assert_whole(lists.site.destination.host, "my/catalog", image, "v1")

    def test_is_what_the_mapping_of_a_mirror_run_says(self, site: Site, lists: Lists) -> None:
        text = site.mirror("--dry-run").out
        assert lists.copy(text).status == 0
        tags = site.tags_at_destination()
        mirrored = site.mirror("--output", "json")
        assert [mirrored.json[key] for key in ("sent", "mounted", "manifests_sent")] == [0, 0, 0]
        assert site.tags_at_destination() == tags

    def test_may_be_listed_in_several_files_and_on_standard_input(
        self, lists: Lists, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = lists.site.folder / "one.txt"
        file.write_text(f"{lists.source(lists.single)}={lists.at('a/one:v1')}\n")
        typed = f"{lists.source(lists.several)}={lists.at('a/two:v1')}\n".encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed)))
        assert lists.run("-f", file, "-f", "-").status == 0
        assert lists.site.tags_at_destination() == {"a/one:v1", "a/two:v1"}

    def test_leaves_no_files(self, lists: Lists, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(lists.site.folder)
        before = {*lists.site.folder.iterdir()}
        assert lists.copy(f"{lists.source(lists.single)}={lists.at('a/one:v1')}\n").status == 0
        assert {*lists.site.folder.iterdir()} - before == {lists.site.folder / "mapping.txt"}


class TestWhatCannotBeHad:
    def test_is_listed_and_the_rest_is_copied(self, lists: Lists) -> None:
        gone, kept = lists.several, lists.single
        lists.site.upstream.hide(gone.root)
        text = f"{lists.source(gone)} {lists.at('a/gone:v1')} {lists.at('b/gone:v1')}\n"
        text += f"{lists.source(kept)}={lists.at('a/kept:v1')}\n"
        ran = lists.copy(text, "--output", "json")
        assert ran.status == HOLES
        assert [(one["reference"], one["reason"]) for one in ran.json["missing"]] == [
            (lists.source(gone), "not-found")
        ]
        assert (ran.json["arrived"], ran.json["copies"]) == (1, 3)
        assert lists.site.tags_at_destination() == {"a/kept:v1"}
        assert lists.source(gone) in lists.copy(text).out
        assert lists.copy(text, "--skip-missing").status == 0
        assert lists.copy(text, "--no-continue-on-error").status == 5

    def test_because_of_a_blob_is_listed_once(self, lists: Lists) -> None:
        image = lists.single
        lists.site.upstream.hide(next(iter(image.blobs)))
        text = f"{lists.source(image)} {lists.at('a/one:v1')} {lists.at('a/two:v1')}\n"
        ran = lists.copy(text, "--output", "json")
        assert ran.status == HOLES
        assert [(one["reference"], one["reason"]) for one in ran.json["missing"]] == [
            (lists.source(image), "missing-blob")
        ]
        assert lists.site.tags_at_destination() == set()

    def test_is_blocked_and_the_rest_arrives(self, lists: Lists) -> None:
        with lists.site.registries_conf.open("a") as conf:
            conf.write('[[registry]]\nprefix = "blocked.example.com"\nblocked = true\n')
        line = f"{lists.source(lists.single)}={lists.at('a/one:v1')}"
        wild = f"blocked.example.com/a/b:*={lists.at('a/two')}"
        ran = lists.copy(f"{line}\n{wild}\n", "--output", "json")
        assert (ran.status, ran.json["arrived"]) == (HOLES, 1)
        (hole,) = ran.json["missing"]
        assert (hole["reference"], hole["reason"]) == ("blocked.example.com/a/b:*", "blocked")

    @pytest.mark.parametrize("source", ["quay.io/lab/catalog:w*", "quay.io/lab/nothing:*"])
    def test_may_be_a_wildcard(self, lists: Lists, source: str) -> None:
        text = f"{lists.site.upstream.host}/{source}={lists.at('a/some')}\n"
        text += f"{lists.source(lists.single)}={lists.at('a/kept:v1')}\n"
        ran = lists.copy(text, "--output", "json")
        assert ran.status == HOLES
        assert [(one["reference"], one["reason"]) for one in ran.json["missing"]] == [
            (f"{lists.site.upstream.host}/{source}", "not-found")
        ]
        assert lists.site.tags_at_destination() == {"a/kept:v1"}


class TestWhatCannotBePut:
    def test_costs_itself(self, lists: Lists) -> None:
        lists.site.destination.fault("PUT", "/v2/a/one/manifests/.*", answer(400))
        text = f"{lists.source(lists.single)} {lists.at('a/one:v1')} {lists.at('b/two:v1')}\n"
        ran = lists.copy(text, "--output", "json")
        assert ran.status == 5
        assert [one["reference"] for one in ran.json["failed"]] == [lists.source(lists.single)]
        assert "a/one" in ran.json["failed"][0]["detail"]
        assert lists.site.tags_at_destination() == {"b/two:v1"}

    def test_because_the_tag_is_something_else_needs_to_be_forced(self, lists: Lists) -> None:
        place = lists.at("a/one:v1")
        assert lists.copy(f"{lists.source(lists.single)}={place}\n").status == 0
        text = f"{lists.source(lists.several)}={place}\n"
        refused = lists.copy(text)
        assert refused.status == 5
        assert "to be set to" in refused.out
        assert lists.copy(text, "--force-tags").status == 0
        assert_whole(lists.site.destination.host, "a/one", lists.several, "v1")

    def test_because_a_registry_is_down_costs_what_goes_there(
        self, lists: Lists, tmp_path: Path
    ) -> None:
        with FaultyRegistry(DirectoryStore(tmp_path / "gone", durable=False)) as gone:
            nowhere = gone.host
        image = lists.single
        text = f"{lists.source(image)} {nowhere}/a/one:v1 {lists.at('a/one:v1')}\n"
        ran = lists.copy(text, "--output", "json")
        assert (ran.status, ran.json["arrived"], ran.json["copies"]) == (5, 1, 2)
        (failed,) = ran.json["failed"]
        assert nowhere in failed["detail"]
        assert_whole(lists.site.destination.host, "a/one", image, "v1")
        asked = len(lists.site.destination.asked)
        stopped = lists.copy(text, "--no-continue-on-error")
        assert (stopped.status, stopped.out) == (5, "")
        alone = lists.copy(f"{lists.source(image)}={nowhere}/a/one:v1\n")
        assert (alone.status, alone.out) == (5, "")
        assert {one.path for one in lists.site.destination.asked[asked:]} <= {"/v2/"}


@pytest.mark.parametrize("source", ["quay.io/lab/catalog:w*", "quay.io/lab/nothing:*"])
def test_a_dry_run_says_which_wildcard_matches_nothing(lists: Lists, source: str) -> None:
    text = f"{lists.site.upstream.host}/{source}={lists.at('a/some')}\n"
    ran = lists.copy(text, "--dry-run")
    assert ran.status == HOLES
    lines = [f"# {lists.site.upstream.host}/{source}  (missing: not-found)"]
    assert ran.out.splitlines() == lines
    assert lists.copy(text, "--dry-run", "--output", "json").json["mapping"] == []


def test_a_tag_that_can_be_none_becomes_no_copy(lists: Lists) -> None:
    name = "quay.io/lab/catalog"
    tags = ["v1", "x\nquay.io/evil/y:1=localhost:5000/ok:1", "\x1b[31mred"]
    reply = json.dumps({"name": name, "tags": tags}).encode()
    kind = {"Content-Type": "application/json"}
    lists.site.upstream.fault("GET", f"/v2/{name}/tags/list", answer(200, kind, reply))
    source = f"{lists.site.upstream.host}/{name}"
    ran = lists.copy(f"{source}:*={lists.at('a/some')}\n", "--dry-run")
    assert (ran.status, ran.out) == (0, f"{source}:v1={lists.at('a/some:v1')}\n")


def test_a_dry_run_lists_the_copies_and_asks_the_destination_nothing(lists: Lists) -> None:
    gone = lists.several
    lists.site.upstream.hide(gone.root)
    lines = [f"{lists.source(one)}={lists.at('a/b')}" for one in (lists.single, gone)]
    ran = lists.copy("\n".join(lines), "--dry-run")
    assert ran.status == HOLES
    assert ran.out.splitlines() == [lines[0], f"# {lines[1]}  (missing: not-found)"]
    assert lists.site.destination.asked == []


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        "flags",
        [
            ("--filter-by-os", "linux/amd64"),
            ("--to-manifests", "out"),
            ("--max-components", 3),
            ("--package", "etcd"),
            ("--index-filter-by-os", "linux/arm64"),
            (CATALOG, "localhost:5000"),
        ],
        ids=lambda flags: str(flags[0]),
    )
    def test_flags_that_mean_something_else(self, lists: Lists, flags: tuple[object, ...]) -> None:
        ran = lists.copy(f"{lists.source(lists.single)}={lists.at('a/one:v1')}\n", *flags)
        assert (ran.status, ran.out) == (2, "")
        assert lists.site.upstream.asked == lists.site.destination.asked == []

    def test_a_filter_with_the_reason(self, lists: Lists) -> None:
        text = f"{lists.source(lists.several)}={lists.at('a/one:v1')}\n"
        refused = lists.copy(text, "--filter-by-os", "linux/amd64")
        assert "--index-filter-by-os" in refused.err
        assert "another digest" in " ".join(refused.err.split())
        assert lists.copy(text, "--filter-by-os", ".*").status == 0

    @pytest.mark.parametrize(
        "content",
        [b"", b"# nothing\n", b"alone\n", b"a/b:v1=c/d@sha256:12\n", b"\xff=\xfe\n"],
        ids=["empty", "comments", "no destination", "a digest", "no text"],
    )
    def test_files_that_list_nothing_sensible(self, lists: Lists, content: bytes) -> None:
        file = lists.site.folder / "bad.txt"
        file.write_bytes(content)
        ran = lists.run("-f", file)
        assert (ran.status, ran.out) == (2, "")

    def test_standard_input_that_is_closed(
        self, lists: Lists, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "stdin", None)
        ran = lists.run("-f", "-")
        assert (ran.status, ran.err) == (2, "error: -: standard input is closed\n")

    def test_a_file_that_is_not_there(self, lists: Lists) -> None:
        ran = lists.run("-f", lists.site.folder / "gone.txt")
        assert ran.status == 2
        assert "gone.txt" in ran.err


@needs_docker_registry
def test_between_real_registries_every_digest_stays(supply: Supply, tmp_path: Path) -> None:
    with ExitStack() as stack:
        store = DirectoryStore(supply.folder, durable=False)
        upstream = stack.enter_context(FaultyRegistry(store))
        first = stack.enter_context(docker_registry(tmp_path / "first"))
        second = stack.enter_context(docker_registry(tmp_path / "second"))
        images = [*supply.lab.images.values()]
        for source, destination, name in ((upstream.host, first, ""), (first, second, "copies/")):
            lines = [
                f"{source}/{image.repository if source == upstream.host else f'image-{number}'}"
                f"@{image.root}={destination}/{name}image-{number}:v1"
                for number, image in enumerate(images)
            ]
            file = tmp_path / "mapping.txt"
            file.write_text("\n".join(lines))
            assert airgap("mirror", "-f", file, "--insecure").status == 0
        for number, image in enumerate(images):
            assert_whole(second, f"copies/image-{number}", image, "v1")
