from __future__ import annotations

import base64
import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

from airgap import limits
from airgap.catalog import filebased, filebased_contents, filebased_documents
from airgap.catalog.content import BundleContent
from airgap.catalog.model import Bundle, Catalog, Channel, ChannelEntry, Package
from airgap.catalog.properties import Api, PackageVersions
from airgap.catalog.tree import LocalTree
from airgap.errors import CatalogError
from tests.support.layers import directory, file, layer, symlink, tree
from tests.support.trees import image_of, written
from tests.support.vectors import vectors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DOCUMENTS: list[dict[str, Any]] = [
    {"schema": "olm.package", "name": "etcd", "defaultChannel": "stable", "icon": {"x": "y"}},
    {
        "schema": "olm.channel",
        "package": "etcd",
        "name": "stable",
        "entries": [
            {"name": "etcd.1"},
            {"name": "etcd.2", "replaces": "etcd.1", "skips": ["etcd.1.5", "etcd.1.5"]},
            {"name": "etcd.3", "replaces": "etcd.2", "skipRange": "<3.0.0"},
        ],
    },
    *(
        {
            "schema": "olm.bundle",
            "package": "etcd",
            "name": f"etcd.{number}",
            "image": f"quay.io/etcd/bundle:{number}",
            "relatedImages": [
                {"name": "", "image": f"quay.io/etcd/bundle:{number}"},
                {"name": "x", "image": "quay.io/etcd/etcd:v3"},
                {"name": "y", "image": "quay.io/etcd/etcd:v3"},
                {"name": "z", "image": ""},
            ],
            "properties": [
                {
                    "type": "olm.package",
                    "value": {"packageName": "etcd", "version": f"{number}.0.0"},
                },
                {"type": "olm.gvk", "value": {"group": "g", "version": "v1", "kind": "Etcd"}},
                {
                    "type": "olm.package.required",
                    "value": {"packageName": "q", "versionRange": ">1"},
                },
                {"type": "olm.gvk.required", "value": {"group": "h", "version": "v1", "kind": "N"}},
            ],
        }
        for number in (3, 1, 2)
    ),
]

ETCD = Catalog(
    packages=(
        Package(
            "etcd",
            "stable",
            (
                Channel(
                    "stable",
                    "etcd.3",
                    (
                        ChannelEntry("etcd.1"),
                        ChannelEntry("etcd.2", "etcd.1", ("etcd.1.5",)),
                        ChannelEntry("etcd.3", "etcd.2", (), "<3.0.0"),
                    ),
                ),
            ),
        ),
    ),
    bundles=tuple(
        Bundle(
            "etcd",
            f"etcd.{number}",
            f"{number}.0.0",
            f"quay.io/etcd/bundle:{number}",
            (f"quay.io/etcd/bundle:{number}", "quay.io/etcd/etcd:v3"),
            (Api("g", "v1", "Etcd"),),
            (Api("h", "v1", "N"), PackageVersions("q", ">1")),
        )
        for number in (1, 2, 3)
    ),
)


def as_stream(documents: list[dict[str, Any]]) -> str:
    return "\n".join(json.dumps(document, indent=2) for document in documents)


def as_yaml(documents: list[dict[str, Any]]) -> str:
    return "".join(f"---\n{json.dumps(document)}\n" for document in documents)


def read(top: Path, **files: str | bytes) -> Catalog:
    return filebased.read(LocalTree(written(top, files)), "")


def damaged(text: str) -> Iterator[bytes]:
    """The text with one byte changed, everywhere, and cut, everywhere."""
    whole = text.encode()
    for at in range(0, len(whole), 7):
        yield whole[:at]
        for mask in (0x01, 0x20, 0x80):
            changed = bytearray(whole)
            changed[at] ^= mask
            yield bytes(changed)


def images(top: Path, content: str | bytes) -> tuple[str, ...]:
    return read(top, **{"index.yaml": content}).images


class TestModel:
    @pytest.mark.parametrize("form", [as_stream, as_yaml])
    def test_is_the_same_from_yaml_and_json(self, tmp_path: Path, form: Any) -> None:
        assert read(tmp_path, index=form(DOCUMENTS)) == ETCD

    def test_does_not_depend_on_files_or_their_order(self, tmp_path: Path) -> None:
        files = {
            f"{9 - number}/x": as_yaml([document]) for number, document in enumerate(DOCUMENTS)
        }
        assert read(tmp_path, **files) == ETCD
        assert filebased.read(image_of(tmp_path, "configs/a"), "/configs/") == ETCD

    def test_keys_are_the_same_in_upper_and_lower_case(self, tmp_path: Path) -> None:
        text = as_stream(DOCUMENTS)
        for key in ("schema", "name", "package", "entries", "image", "skipRange", "version"):
            text = text.replace(f'"{key}"', f'"{key.upper()}"')
        text = text.replace('"relatedImages"', '"RelatedIMAGES"')
        catalog = read(tmp_path, index=text)
        assert (catalog.packages, catalog.images) == (ETCD.packages, ETCD.images)

    def test_a_bundle_in_no_channel_has_no_package(self, tmp_path: Path) -> None:
        catalog = read(tmp_path, index=as_yaml([DOCUMENTS[2]]))
        assert [(bundle.package, bundle.name) for bundle in catalog.bundles] == [("", "etcd.3")]
        assert catalog.problems == ()

    def test_a_bundle_that_stands_twice_wants_the_images_of_both(self, tmp_path: Path) -> None:
        again = {**DOCUMENTS[2], "image": "quay.io/other:1", "relatedImages": []}
        catalog = read(tmp_path, a=as_yaml(DOCUMENTS), b=as_yaml([again]))
        assert catalog.packages == ETCD.packages
        assert catalog.images == (*ETCD.images, "quay.io/other:1")
        assert catalog.problems == ("b: document 1, line 2: bundle 'etcd.3' again",)

    def test_packages_and_channels_that_stand_twice_count_once(self, tmp_path: Path) -> None:
        catalog = read(tmp_path, a=as_yaml(DOCUMENTS), b=as_yaml(DOCUMENTS[:2]))
        assert catalog.packages == ETCD.packages
        assert len(catalog.problems) == 2

    def test_entries_without_a_bundle_are_said(self, tmp_path: Path) -> None:
        catalog = read(tmp_path, index=as_yaml(DOCUMENTS[:3]))
        assert [entry.bundle for entry in catalog.packages[0].channels[0].entries] == ["etcd.3"]
        assert catalog.problems == (
            "index: document 2, line 4: channel 'stable': no such bundle: etcd.1, etcd.2",
        )

    def test_of_several_heads_the_newest_version_counts(self, tmp_path: Path) -> None:
        entries = [{"name": name} for name in ("etcd.2", "etcd.3", "etcd.1")]
        catalog = read(
            tmp_path, index=as_yaml([{**DOCUMENTS[1], "entries": entries}, *DOCUMENTS[2:]])
        )
        assert catalog.packages[0].channels[0].head == "etcd.3"
        assert "several heads" in catalog.problems[0]

    def test_a_circle_has_no_head_and_ends(self, tmp_path: Path) -> None:
        pairs = (("etcd.1", "etcd.3"), ("etcd.2", "etcd.1"), ("etcd.3", "etcd.2"))
        entries = [{"name": name, "replaces": replaced} for name, replaced in pairs]
        catalog = read(
            tmp_path, index=as_yaml([{**DOCUMENTS[1], "entries": entries}, *DOCUMENTS[2:]])
        )
        assert catalog.packages[0].channels[0].head == ""
        assert "circle" in catalog.problems[0]

    @pytest.mark.parametrize("default", [None, "", "beta"])
    def test_a_default_channel_that_is_none_is_said(self, tmp_path: Path, default: Any) -> None:
        package = {**DOCUMENTS[0], "defaultChannel": default}
        catalog = read(tmp_path, index=as_yaml([package, *DOCUMENTS[1:]]))
        assert catalog.packages[0].default_channel == (default or "")
        assert catalog.problems == (
            "index: document 1, line 2: package 'etcd': no default channel",
        )

    def test_a_bundle_that_replaces_or_skips_itself_is_said(self, tmp_path: Path) -> None:
        for itself in ({"replaces": "etcd.3"}, {"skips": ["etcd.3"]}):
            channel = {**DOCUMENTS[1], "entries": [{"name": "etcd.3", **itself}]}
            catalog = read(tmp_path, index=as_yaml([DOCUMENTS[0], channel, *DOCUMENTS[2:]]))
            assert "circle: etcd.3, etcd.3" in catalog.problems[0]
            assert len(catalog.packages[0].channels[0].entries) == 1

    def test_the_first_on_a_walk_through_the_files_counts(self, tmp_path: Path) -> None:
        files = {
            f"{folder}/x": as_yaml([{**DOCUMENTS[0], "defaultChannel": folder}])
            for folder in ("a", "a-b")
        }
        assert read(tmp_path, **files).packages[0].default_channel == "a"

    def test_a_very_long_channel_is_read(self, tmp_path: Path) -> None:
        count = 20_000
        entries = [{"name": f"a.{n}", "replaces": f"a.{n - 1}"} for n in range(1, count)]
        bundles = [
            {"schema": "olm.bundle", "package": "a", "name": f"a.{n}"} for n in range(1, count)
        ]
        channel = {"schema": "olm.channel", "package": "a", "name": "c", "entries": entries}
        catalog = read(tmp_path, index="\n".join(map(json.dumps, [channel, *bundles])))
        assert catalog.packages[0].channels[0].head == f"a.{count - 1}"

    def test_many_images_many_times_are_each_kept_once(self, tmp_path: Path) -> None:
        related = [{"image": f"quay.io/a/b:{number % 1000}"} for number in range(200_000)]
        bundle = {**DOCUMENTS[2], "relatedImages": related}
        assert len(read(tmp_path, index=json.dumps(bundle)).bundles[0].related_images) == 1000


class TestImages:
    def test_every_schema_counts_and_none_as_well(self, tmp_path: Path) -> None:
        text = (
            "schema: custom\nimage: a\n---\nimage: b\nRelatedImages: [{Image: c}]\n"
            "---\nschema: olm.package\nname: p\nimage: d\n"
        )
        catalog = read(tmp_path, index=text)
        assert catalog.images == ("a", "b", "c", "d")
        assert catalog.other_images == ("a", "b", "c", "d")

    def test_nothing_else_names_an_image(self, tmp_path: Path) -> None:
        text = "image: a\nproperties: [{image: b}]\nicon: {image: c}\nentries: [{image: d}]\n"
        assert images(tmp_path, text) == ("a",)

    @pytest.mark.parametrize("text", ["image: ''", "image: null", "relatedImages: null", "a: b"])
    def test_an_empty_one_is_none(self, tmp_path: Path, text: str) -> None:
        catalog = read(tmp_path, index=text)
        assert (catalog.images, catalog.unreadable) == ((), ())

    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            ("image: 1", "image: no text"),
            ("image: [a]", "image: no text"),
            ("relatedImages: a", "relatedimages: no list"),
            ("relatedImages: [a]", "relatedimages: holds what is no mapping"),
            ("relatedImages: [{image: yes}]", "image: no text"),
        ],
    )
    def test_a_wrong_shape_costs_what_it_holds(self, tmp_path: Path, text: str, fault: str) -> None:
        catalog = read(tmp_path, index=f"image: a\n---\n{text}\n---\nimage: b\n")
        assert catalog.images == ("a", "b")
        assert catalog.unreadable == (f"index: document 2, line 3: {fault}",)


class TestFaults:
    def test_a_broken_document_costs_itself(self, tmp_path: Path) -> None:
        catalog = read(
            tmp_path, a="image: a\n---\nb: [\n---\nimage: c\n", b='{"image": "d"} tail', c="prose"
        )
        assert catalog.images == ("a", "c", "d")
        assert [line.partition(": ")[0] for line in catalog.unreadable] == ["a", "b", "c"]
        assert catalog.unreadable[0].startswith("a: document 2, line 4: not valid YAML")
        assert catalog.unreadable[2] == "c: document 1, line 1: neither a mapping nor empty"

    @pytest.mark.parametrize(
        "files", [{"a": "prose"}, {"a": "[1]"}, {"a": "b: [", "c": "x: !!python/none"}]
    )
    def test_nothing_readable_at_all_is_an_error(
        self, tmp_path: Path, files: dict[str, str | bytes]
    ) -> None:
        with pytest.raises(CatalogError, match=r"^no catalog at '\.': a: document 1, line"):
            read(tmp_path, **files)

    def test_no_file_and_no_directory_are_errors(self, tmp_path: Path) -> None:
        with pytest.raises(CatalogError, match="no file in it"):
            read(tmp_path)
        with pytest.raises(CatalogError, match="no such directory"):
            filebased.read(LocalTree(tmp_path), "configs")

    def test_a_file_that_is_no_catalogs_is_given_up(self, tmp_path: Path) -> None:
        catalog = read(tmp_path, a="image: a", b="---\n[\n" * 5000)
        assert catalog.images == ("a",)
        assert len(catalog.unreadable) == 101

    @pytest.mark.parametrize("form", [as_stream, as_yaml])
    def test_damage_anywhere_is_said_or_harmless(self, tmp_path: Path, form: Any) -> None:
        for raw in damaged(form(DOCUMENTS[1:3])):
            try:
                catalog = read(tmp_path, index=raw)
            except CatalogError as error:
                assert error.message.isprintable()
            else:
                assert all(line.isprintable() for line in catalog.problems + catalog.unreadable)
                assert catalog.images is not None

    def test_foreign_text_is_fit_to_be_printed(self, tmp_path: Path) -> None:
        documents = [{**DOCUMENTS[1], "name": "\x1b[2J", "entries": [{"name": "\u202e"}]}]
        catalog = read(tmp_path, index=json.dumps(documents[0]))
        assert catalog.problems
        assert all(line.isprintable() for line in catalog.problems)

    def test_too_much_to_keep_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(limits, "CATALOG_TEXT", 20)
        with pytest.raises(CatalogError, match="more than 20 characters"):
            read(tmp_path, index="image: abcdefghi\n---\nimage: abcdefghijklmn\n")


class TestFiles:
    def test_hidden_files_count_and_links_to_files(self) -> None:
        image = tree(
            layer(
                file("c/.hidden/x.yaml", b"image: a"),
                file("c/.x.yaml", b"image: b"),
                file("elsewhere/y", b"image: c"),
                symlink("c/z", "/elsewhere/y"),
                symlink("configs", "c"),
            )
        )
        for place in ("c", "configs"):
            catalog = filebased.read(image, place)
            assert catalog.images == ("a", "b", "c")
            assert catalog.unreadable == ()

    def test_a_link_to_a_directory_is_not_followed_and_said(self) -> None:
        image = tree(
            layer(
                file("c/x.yaml", b"image: a"),
                file("d/y.yaml", b"image: b"),
                symlink("c/d", "../d"),
                symlink("c/e", "nowhere"),
                directory("c/f"),
            )
        )
        catalog = filebased.read(image, "c")
        assert catalog.images == ("a",)
        assert [line.partition(": ")[0] for line in catalog.unreadable] == ["c/d", "c/e"]

    def test_ignored_files_are_not_read(self, tmp_path: Path) -> None:
        files: dict[str, str | bytes] = {
            ".indexignore": "*.md\n/skip/\n",
            "README.md": "prose",
            "skip/a": "prose",
            "a/skip/b": "image: b",
            "a/.indexignore": "!README.md\n",
            "a/README.md": "image: a",
        }
        catalog = read(tmp_path, **files)
        assert (catalog.images, catalog.unreadable) == (("a", "b"), ())
        assert filebased.read(image_of(tmp_path, "x/y"), "x/y") == catalog

    def test_ignored_links_are_no_loss(self, tmp_path: Path) -> None:
        (tmp_path / "docs").symlink_to("nowhere")
        (tmp_path / "data").symlink_to("nowhere")
        catalog = read(tmp_path, **{".indexignore": "docs\n", "a": "image: a"})
        assert [line.partition(":")[0] for line in catalog.unreadable] == ["data"]

    def test_of_ignore_files_only_patterns_are_counted(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(filebased_documents, "_IGNORE_PATTERNS", 3)
        files: dict[str, str | bytes] = {
            "a/.indexignore": "# one\n\n*.md\n" * 2,
            "b/.indexignore": "x\ny\n",
            "c/.indexignore": "*.md\n",
            "c/README.md": "prose",
            "c/a": "image: a",
        }
        catalog = read(tmp_path, **files)
        assert catalog.images == ("a",)
        assert [line.partition(":")[0] for line in catalog.unreadable] == ["b/.indexignore"]

    def test_patterns_for_too_many_files_are_not_followed_and_said(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(filebased_documents, "_IGNORE_MATCHES", 50)
        files: dict[str, str | bytes] = {
            ".indexignore": "a\nb\nc\n",
            "x/.indexignore": "f1\nf2\n",
            **{f"x/f{number}": f"image: i{number}" for number in range(9)},
        }
        catalog = read(tmp_path, **files)
        assert catalog.images == tuple(f"i{number}" for number in (0, *range(3, 9)))
        assert [line.partition(":")[0] for line in catalog.unreadable] == [".indexignore"]

    def test_what_may_not_be_read_costs_itself(self, guarded: Path) -> None:
        files: dict[str, str | bytes] = {
            "a": "image: a",
            "b/x": "image: b",
            "c": "image: c",
            "d/.indexignore": "e\n",
            "d/e": "image: e",
        }
        written(guarded, files)
        for name in ("b", "c", "d/.indexignore"):
            (guarded / name).chmod(0)
        catalog = filebased.read(LocalTree(guarded), "")
        assert catalog.images == ("a", "e")
        assert [line.partition(": ")[::2] for line in catalog.unreadable] == [
            ("b", "Permission denied"),
            ("c", "Permission denied"),
            ("d/.indexignore", "no list of patterns, or a very long one; not followed"),
        ]

    @pytest.mark.parametrize("content", [b"\xff", b"a\n" * 20_001])
    def test_an_ignore_file_that_is_none_is_said(self, tmp_path: Path, content: bytes) -> None:
        files: dict[str, str | bytes] = {".indexignore": content, "a": "image: a"}
        catalog = read(tmp_path, **files)
        assert catalog.images == ("a",)
        assert catalog.unreadable[0].startswith(".indexignore: no list of patterns")


VECTORS: dict[str, tuple[dict[str, str | bytes], tuple[str, ...] | None]] = {
    "fbc-02": (
        {"a": b'{"image":"a"}{"image":"b"}\n{"relatedImages":[{"image":"c"}]}'},
        ("a", "b", "c"),
    ),
    "fbc-03": ({"a": "image: a", "README.md": "prose"}, None),
    "fbc-06": ({"a": "just a text"}, None),
    "fbc-07": ({"a.yaml": "", "b.json": " \n", "c.txt": "# comment\n"}, ()),
    "fbc-08": ({"a": '[{"image": "a"}]'}, None),
    "fbc-09": ({"a": "image: a\n--- # c\nimage: b\n...\n---\nimage: c\n"}, ("a", "b", "c")),
    "fbc-10": ({"a": "image: a\nimage: b\n"}, ("b",)),
    "fbc-13": ({".hidden/x.yaml": "image: a", ".x.yaml": "image: b"}, ("a", "b", "outside")),
    "fbc-14": ({"a": "image: a"}, None),
}
"""What the vectors describe; None where ``oc`` gives up."""

LINKS = {"fbc-13": "../outside/file", "fbc-14": "../outside"}
"""Where a link leads to that is described as well."""


def test_every_vector_has_its_test() -> None:
    assert {vector["id"] for vector in vectors("fbc")} == VECTORS.keys()


@pytest.mark.parametrize("name", VECTORS)
def test_reads_what_oc_reads_and_where_oc_gives_up_says_so(tmp_path: Path, name: str) -> None:
    files, expected = VECTORS[name]
    configs = written(tmp_path, {"outside/file": "image: outside"}) / "configs"
    if name in LINKS:
        configs.mkdir()
        (configs / "link").symlink_to(LINKS[name])
    if expected is not None:
        catalog = read(configs, **files)
        assert (catalog.images, catalog.unreadable) == (expected, ())
        return
    try:
        assert read(configs, **files).unreadable
    except CatalogError:
        assert len(files) == 1


class TestContents:
    def test_properties_come_as_json(self, tmp_path: Path) -> None:
        tree = LocalTree(written(tmp_path, {"index": as_yaml(DOCUMENTS)}))
        found = {content.bundle: content for content in filebased_contents.contents(tree, "")}
        assert found.keys() == {"etcd.1", "etcd.2", "etcd.3"}
        assert found["etcd.1"].properties[:2] == (
            ("olm.package", '{"packageName":"etcd","version":"1.0.0"}'),
            ("olm.gvk", '{"group":"g","kind":"Etcd","version":"v1"}'),
        )

    def test_objects_come_out_of_their_base64(self, tmp_path: Path) -> None:
        crd = {"name": "etcds.g", "version": "v1", "kind": "Etcd"}
        csv = {
            "kind": "ClusterServiceVersion",
            "metadata": {"name": "etcd.1"},
            "spec": {"customresourcedefinitions": {"owned": [crd]}},
        }
        objects: list[dict[str, Any]] = [{"kind": "Service"}, csv]
        data = [base64.b64encode(json.dumps(value).encode()).decode() for value in objects]
        properties = [{"type": "olm.bundle.object", "value": {"data": text}} for text in data]
        broken = [
            {"type": "olm.bundle.object", "value": value}
            for value in (
                {"data": "!!!"},
                {"data": "eA=="},
                {"data": base64.b64encode(gzip.compress(json.dumps(csv).encode())).decode()},
                {"data": base64.b64encode(b"[" * 100_000).decode()},
                {"ref": "objects/x"},
                "x",
            )
        ]
        bundle = {**DOCUMENTS[3], "properties": properties + broken}
        tree = LocalTree(written(tmp_path, {"index": json.dumps(bundle)}))
        (content,) = filebased_contents.contents(tree, "")
        assert json.loads(content.csv) == csv
        assert content.objects == '{"kind":"Service"}' + content.csv
        assert len(content.properties) == len(broken)
        assert content.plurals == {Api("g", "v1", "Etcd"): "etcds"}

    def test_deprecated_bundles_are_named(self, tmp_path: Path) -> None:
        entries = [
            {"reference": {"schema": "olm.bundle", "name": "etcd.1"}, "message": "old"},
            {"reference": {"schema": "olm.package"}, "message": "old"},
        ]
        document = {"schema": "olm.deprecations", "package": "etcd", "entries": entries}
        tree = LocalTree(written(tmp_path, {"index": json.dumps(document)}))
        assert list(filebased_contents.contents(tree, "")) == [
            BundleContent("etcd.1", deprecated=True)
        ]
