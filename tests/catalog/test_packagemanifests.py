from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from airgap.catalog import clusterserviceversion, packagemanifests, packagemanifests_contents
from airgap.catalog.model import Channel, ChannelEntry, Package
from airgap.catalog.properties import Api
from airgap.catalog.tree import LocalTree
from airgap.errors import CatalogError
from tests.support.layers import file, layer, symlink, tree
from tests.support.trees import image_of, written
from tests.support.vectors import vectors

if TYPE_CHECKING:
    from pathlib import Path

    from airgap.catalog.content import BundleContent
    from airgap.catalog.model import Catalog

PACKAGE = "packageName: etcd\nchannels:\n- {name: alpha, currentCSV: etcd.3}\n"


def csv(name: str, replaces: str = "", **spec: Any) -> str:
    return json.dumps(
        {
            "kind": "ClusterServiceVersion",
            "metadata": {"name": name, "annotations": {"olm.skipRange": f"<{name}"}},
            "spec": {"version": name[-1], "replaces": replaces, "relatedImages": [{"image": name}]}
            | spec,
        }
    )


CHAIN: dict[str, str | bytes] = {
    "etcd.package.yaml": PACKAGE,
    "1/a.yaml": csv("etcd.1"),
    "2/a.yaml": csv("etcd.2", "etcd.1", skips=["etcd.1.5", "etcd.1.6"]),
    "3/a.yaml": csv("etcd.3", "etcd.2"),
}


def read(top: Path, files: dict[str, str | bytes]) -> Catalog:
    return packagemanifests.read(LocalTree(written(top, files)), [""])


def entries(catalog: Catalog) -> tuple[ChannelEntry, ...]:
    return catalog.packages[0].channels[0].entries


class TestPackages:
    def test_channels_lead_from_their_heads_down(self, tmp_path: Path) -> None:
        catalog = read(tmp_path, CHAIN)
        assert catalog.packages == (
            Package(
                "etcd",
                "alpha",
                (
                    Channel(
                        "alpha",
                        "etcd.3",
                        (
                            ChannelEntry("etcd.3", "etcd.2", (), "<etcd.3"),
                            ChannelEntry("etcd.2", "etcd.1", ("etcd.1.5", "etcd.1.6"), "<etcd.2"),
                            ChannelEntry("etcd.1", "", (), "<etcd.1"),
                        ),
                    ),
                ),
            ),
        )
        assert [(b.package, b.name, b.version) for b in catalog.bundles] == [
            ("etcd", "etcd.1", "1"),
            ("etcd", "etcd.2", "2"),
            ("etcd", "etcd.3", "3"),
        ]
        assert (catalog.problems, catalog.unreadable) == ((), ())

    def test_an_image_gives_what_a_directory_gives(self, tmp_path: Path) -> None:
        catalog = read(tmp_path, CHAIN)
        image = image_of(tmp_path, "manifests/etcd")
        assert packagemanifests.places(image) == ("manifests/etcd",)
        assert packagemanifests.read(image, ["manifests/etcd"]) == catalog

    def test_a_skipped_csv_is_an_entry_too(self, tmp_path: Path) -> None:
        catalog = read(tmp_path, CHAIN | {"x.yaml": csv("etcd.1.5", "etcd.0")})
        assert [entry.bundle for entry in entries(catalog)] == [
            "etcd.3",
            "etcd.2",
            "etcd.1.5",
            "etcd.1",
        ]
        assert entries(catalog)[2].replaces == ""

    def test_a_csv_that_is_skipped_and_replaced_keeps_what_it_replaces(
        self, tmp_path: Path
    ) -> None:
        changed = csv("etcd.3", "etcd.2", skips=["etcd.2"])
        catalog = read(tmp_path, CHAIN | {"3/a.yaml": changed})
        assert entries(catalog)[1].replaces == "etcd.1"

    def test_a_csv_in_no_channel_is_a_bundle_without_a_package(self, tmp_path: Path) -> None:
        catalog = read(tmp_path, CHAIN | {"4/a.yaml": csv("etcd.4")})
        assert catalog.bundles[-1].package == ""
        assert "etcd.4" in catalog.images

    def test_a_circle_is_said_and_ends(self, tmp_path: Path) -> None:
        catalog = read(tmp_path, CHAIN | {"1/a.yaml": csv("etcd.1", "etcd.3")})
        assert len(entries(catalog)) == 3
        assert "'etcd.3', which replaces itself in a circle" in catalog.problems[0]

    @pytest.mark.parametrize("gone", ["1/a.yaml", "3/a.yaml"])
    def test_a_csv_that_is_missing_is_said(self, tmp_path: Path, gone: str) -> None:
        catalog = read(tmp_path, {path: text for path, text in CHAIN.items() if path != gone})
        assert catalog.packages[0].channels[0].head == "etcd.3"
        assert len(catalog.bundles) == 2
        assert f"'etcd.{gone[0]}', which is not there" in catalog.problems[0]

    def test_a_chain_of_any_length_is_walked(self, tmp_path: Path) -> None:
        count = 3000
        files = {f"{n}.json": csv(f"etcd.{n}", f"etcd.{n - 1}" if n else "") for n in range(count)}
        package = f"packageName: p\nchannels: [{{name: c, currentCSV: etcd.{count - 1}}}]"
        assert len(entries(read(tmp_path, {**files, "package.yaml": package}))) == count

    def test_channels_may_not_be_much_more_than_what_is_in_the_files(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        channels = ",".join(f"{{name: c{number}, currentCSV: etcd.3}}" for number in range(10))
        files = CHAIN | {"etcd.package.yaml": f"packageName: etcd\nchannels: [{channels}]"}
        monkeypatch.setattr(packagemanifests, "_STEPS", 50)
        assert len(read(tmp_path, files).packages[0].channels) == 10
        monkeypatch.setattr(packagemanifests, "_STEPS", 49)
        with pytest.raises(CatalogError, match="more than 49 entries"):
            read(tmp_path, files)

    @pytest.mark.parametrize(
        ("text", "default", "said"),
        [
            ("defaultChannel: b", "b", False),
            ("defaultChannel: ''", "", True),
            ("a: b", "", True),
            ("defaultChannel: nowhere", "nowhere", True),
        ],
    )
    def test_the_default_channel(self, tmp_path: Path, text: str, default: str, said: bool) -> None:
        package = (
            "packageName: etcd\nchannels:\n- {name: b, currentCSV: etcd.3}\n"
            f"- {{name: a, currentCSV: etcd.1}}\n{text}\n"
        )
        catalog = read(tmp_path, CHAIN | {"etcd.package.yaml": package})
        assert catalog.packages[0].default_channel == default
        assert [channel.name for channel in catalog.packages[0].channels] == ["a", "b"]
        assert bool(catalog.problems) == said

    def test_of_two_csvs_the_first_on_a_walk_through_the_files_counts(self, tmp_path: Path) -> None:
        files: dict[str, str | bytes] = {
            f"{folder}/x.yaml": csv("etcd.1", relatedImages=[{"image": folder}])
            for folder in ("a-b", "a", "a.b")
        }
        assert read(tmp_path, files).images == ("a",)
        first, *_ = gathered(tmp_path, {})
        assert json.loads(first.csv)["spec"]["relatedImages"] == [{"image": "a"}]
        assert len(first.objects) == len(first.csv)

    def test_what_stands_twice_counts_once(self, tmp_path: Path) -> None:
        again: dict[str, str | bytes] = {
            "9/a.yaml": csv("etcd.3", relatedImages=[{"image": "other"}]),
            "9/p": PACKAGE,
        }
        catalog = read(tmp_path, CHAIN | again)
        assert catalog.images == ("etcd.1", "etcd.2", "etcd.3")
        assert len(catalog.packages) == 1
        assert len(catalog.problems) == 2

    def test_numbers_and_booleans_are_text_as_go_writes_them(self, tmp_path: Path) -> None:
        channels = {"4.4": "a", "4.10": "b", "4.0": "c", "12": "d", "on": "e", "1e6": "f"}
        text = "".join(f"- {{name: {name}, currentCSV: {c}}}\n" for name, c in channels.items())
        files: dict[str, str | bytes] = {c: csv(c) for c in channels.values()}
        files["p"] = f"packageName: 7\ndefaultChannel: 4.4\nchannels:\n{text}"
        (package,) = read(tmp_path, files).packages
        assert (package.name, package.default_channel) == ("7", "4.4")
        assert {channel.name: channel.head for channel in package.channels} == {
            "4.4": "a",
            "4.1": "b",
            "4": "c",
            "12": "d",
            "true": "e",
            "1e+06": "f",
        }

    def test_keys_may_be_in_any_case(self, tmp_path: Path) -> None:
        text = "packagename: etcd\nCHANNELS:\n- {Name: alpha, currentcsv: etcd.3}\n"
        (package,) = read(tmp_path, CHAIN | {"etcd.package.yaml": text}).packages
        assert [(c.name, c.head) for c in package.channels] == [("alpha", "etcd.3")]

    def test_a_channel_without_a_name_or_a_csv_is_said(self, tmp_path: Path) -> None:
        more = "- {name: beta}\n- {currentCSV: etcd.2}\n"
        catalog = read(tmp_path, CHAIN | {"etcd.package.yaml": PACKAGE + more})
        assert [channel.name for channel in catalog.packages[0].channels] == ["alpha"]
        assert "without a name, or without a CSV" in catalog.problems[0]
        assert len(catalog.problems) == 2

    def test_a_package_whose_name_is_none_is_a_fault(self, tmp_path: Path) -> None:
        catalog = read(tmp_path, CHAIN | {"x": "packageName: [a]\n"})
        assert [package.name for package in catalog.packages] == ["etcd"]
        assert "packagename: no text" in catalog.unreadable[0]


class TestFiles:
    def test_what_may_not_be_read_costs_itself(self, guarded: Path) -> None:
        written(guarded, CHAIN)
        (guarded / "1").chmod(0)
        (guarded / "2" / "a.yaml").chmod(0)
        catalog = packagemanifests.read(LocalTree(guarded), [""])
        assert [bundle.name for bundle in catalog.bundles] == ["etcd.3"]
        assert catalog.unreadable == ("1: Permission denied", "2/a.yaml: Permission denied")

    def test_names_and_places_say_nothing(self, tmp_path: Path) -> None:
        catalog = read(
            tmp_path,
            {f"{number}/any": text for number, text in enumerate(CHAIN.values())},
        )
        assert len(catalog.bundles) == 3
        assert entries(catalog)[0].bundle == "etcd.3"

    def test_several_versions_may_be_in_one_directory(self, tmp_path: Path) -> None:
        catalog = read(tmp_path, {path.replace("/", "-"): text for path, text in CHAIN.items()})
        assert len(catalog.bundles) == 3

    def test_hidden_files_do_not_count(self, tmp_path: Path) -> None:
        catalog = read(tmp_path, CHAIN | {".x/a.yaml": csv("hidden"), "1/.b.yaml": csv("hidden.2")})
        assert len(catalog.bundles) == 3
        image = image_of(tmp_path, ".visible")
        assert len(packagemanifests.read(image, [".visible"]).bundles) == 3

    def test_only_the_first_document_counts(self, tmp_path: Path) -> None:
        catalog = read(tmp_path, CHAIN | {"4.yaml": f"a: b\n---\n{csv('etcd.4')}\n"})
        assert len(catalog.bundles) == 3
        assert catalog.problems == ()

    def test_an_empty_first_document_counts_too_but_is_said(self, tmp_path: Path) -> None:
        catalog = read(tmp_path, CHAIN | {"4.yaml": f"# comment\n---\n{csv('etcd.4')}\n"})
        assert len(catalog.bundles) == 3
        assert "first document is empty" in catalog.problems[0]

    def test_a_broken_file_costs_itself(self, tmp_path: Path) -> None:
        broken: dict[str, str | bytes] = {
            "9/b.yaml": "a: [",
            "9/c.json": '{"a":',
            "9/d.yml": "prose",
        }
        catalog = read(tmp_path, CHAIN | broken)
        assert len(catalog.bundles) == 3
        assert [line.partition(":")[0] for line in catalog.unreadable] == sorted(broken)

    def test_a_readme_is_no_fault(self, tmp_path: Path) -> None:
        catalog = read(tmp_path, CHAIN | {"README.md": "prose", "LICENSE": "a: b: c", "x": b"\0"})
        assert (catalog.problems, catalog.unreadable) == ((), ())

    def test_a_csv_without_a_name_is_a_fault(self, tmp_path: Path) -> None:
        catalog = read(tmp_path, CHAIN | {"9.yaml": "kind: ClusterServiceVersion\n"})
        assert catalog.unreadable == (
            "9.yaml: document 1, line 1: a ClusterServiceVersion without a name",
        )

    def test_nothing_readable_at_all_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(CatalogError, match=r"^no package manifests at \.: a\.yaml: document"):
            read(tmp_path, {"a.yaml": "a: ["})


class TestPlaces:
    def test_are_known_by_the_usual_names(self) -> None:
        image = tree(
            layer(
                file("usr/lib/node/package.json"),
                file("etc/x.yaml"),
                file("manifests/b/b.package.yaml"),
                file("manifests/b/1/b.ClusterServiceVersion.yaml"),
                file("manifests/a/package.yaml"),
                file("manifests/b2/1/x.clusterserviceversion.json"),
                symlink("manifests/c", "b"),
            )
        )
        assert packagemanifests.places(image) == ("manifests/a", "manifests/b", "manifests/b2/1")

    def test_are_not_hidden(self) -> None:
        names = ("m/.old/a.package.yaml", "m/b/b.package.yaml", ".git/c.package.yaml")
        image = tree(layer(*map(file, names), file("m/c/.package.yaml")))
        assert packagemanifests.places(image) == ("m/b",)

    def test_may_have_names_that_are_longer_in_lower_case(self) -> None:
        image = tree(layer(file("m/\u0130\u0130x/foo.package.yaml", PACKAGE.encode())))
        assert packagemanifests.places(image) == ("m/\u0130\u0130x",)

    def test_may_be_the_top(self) -> None:
        image = tree(layer(file("b.package.yaml"), file("1/c.package.yaml")))
        assert packagemanifests.places(image) == ("",)

    def test_may_be_nowhere(self) -> None:
        assert packagemanifests.places(tree(layer(file("etc/passwd")))) == ()


CSVS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "csv-images-01": (
        {
            "relatedImages": [{"image": "d"}, {"image": "a"}],
            "install": {
                "strategy": "deployment",
                "spec": {
                    "deployments": [
                        {
                            "spec": {
                                "template": {
                                    "spec": {
                                        "containers": [{"image": "a"}, {"image": "b"}],
                                        "initContainers": [{"image": "c"}],
                                    }
                                }
                            }
                        }
                    ]
                },
            },
        },
        ["a", "b", "c", "d"],
    ),
    "csv-images-03": (
        {
            "relatedImages": [{"image": "d"}],
            "install": {
                "strategy": "helm",
                "spec": {"deployments": [{"spec": {"template": {"spec": {"containers": 1}}}}]},
            },
        },
        ["d"],
    ),
    "csv-images-04": ({"relatedImages": [{"name": "a"}, {"image": ""}, {"image": None}]}, []),
}


class TestClusterServiceVersion:
    def test_every_vector_has_its_case(self) -> None:
        assert {vector["id"] for vector in vectors("csv-images")} == CSVS.keys()

    @pytest.mark.parametrize("name", CSVS)
    def test_names_the_images_that_operator_registry_finds(self, name: str) -> None:
        spec, expected = CSVS[name]
        found = clusterserviceversion.parse({"spec": spec})
        assert sorted(found.images) == expected
        assert found.faults == ()
        (vector,) = (vector for vector in vectors("csv-images") if vector["id"] == name)
        # operator-registry writes a row without an image, which nobody mirrors
        assert [image for image in vector["expected"] if image] == expected

    def test_takes_keys_in_any_case_where_operator_registry_does(self) -> None:
        pod = {"Containers": [{"IMAGE": "b"}], "initcontainers": [{"Image": "c"}]}
        deployment = {"spec": {"Template": {"spec": pod}}}
        spec = {
            "relatedImages": [{"Image": "a"}],
            "RelatedImages": [{"image": "no"}],
            "Install": {"strategy": "deployment", "Spec": {"deployments": [deployment]}},
            "customresourcedefinitions": {
                "Owned": [{"Name": "xs.g", "version": "v1", "Kind": "X"}]
            },
        }
        found = clusterserviceversion.parse({"metadata": {"name": "x"}, "spec": spec})
        assert set(found.images) == {"a", "b", "c"}
        assert found.plurals == {Api("g", "v1", "X"): "xs"}

    def test_nothing_else_names_an_image(self) -> None:
        document = {
            "metadata": {"annotations": {"containerImage": "x", "alm-examples": '[{"image":"x"}]'}},
            "spec": {
                "install": {
                    "strategy": "deployment",
                    "spec": {
                        "deployments": [
                            {
                                "spec": {
                                    "template": {
                                        "spec": {
                                            "ephemeralContainers": [{"image": "x"}],
                                            "containers": [
                                                {"env": [{"name": "RELATED_IMAGE_A", "value": "x"}]}
                                            ],
                                        }
                                    }
                                }
                            }
                        ]
                    },
                }
            },
        }
        found = clusterserviceversion.parse(document)
        assert (found.images, found.faults) == ((), ())
        assert len(clusterserviceversion.unlisted(document, ())) == 1

    @pytest.mark.parametrize(
        "document",
        [
            {"metadata": 1},
            {"spec": []},
            {"spec": {"relatedImages": {}}},
            {"spec": {"relatedImages": ["a"]}},
            {"spec": {"relatedImages": [{"image": 1}]}},
            {"spec": {"skips": "a"}},
            {"spec": {"skips": [1]}},
            {"spec": {"version": 1.0}},
            {"spec": {"install": {"strategy": "deployment", "spec": []}}},
            {"metadata": {"annotations": {"olm.skipRange": 1}}},
        ],
    )
    def test_a_wrong_shape_is_a_fault_and_nothing_more(self, document: dict[str, Any]) -> None:
        found = clusterserviceversion.parse(document)
        assert len(found.faults) == 1
        assert found.images == ()

    def test_says_what_it_provides_and_requires(self) -> None:
        spec = {
            "customresourcedefinitions": {
                "owned": [{"name": "etcds.g.io", "version": "v1", "kind": "Etcd"}],
                "required": [{"name": "n.h.io", "version": "v2", "kind": "N"}],
            },
            "apiservicedefinitions": {
                "owned": [{"name": "ps", "group": "p.io", "version": "v1", "kind": "P"}]
            },
        }
        found = clusterserviceversion.parse({"spec": spec})
        assert found.provides == (Api("g.io", "v1", "Etcd"), Api("p.io", "v1", "P"))
        assert found.requires == (Api("h.io", "v2", "N"),)
        assert found.plurals == {
            Api("g.io", "v1", "Etcd"): "etcds",
            Api("p.io", "v1", "P"): "ps",
            Api("h.io", "v2", "N"): "n",
        }


def gathered(top: Path, files: dict[str, str | bytes]) -> list[BundleContent]:
    return list(packagemanifests_contents.contents(LocalTree(written(top, files)), [""]))


class TestContents:
    def test_a_bundle_has_the_objects_of_its_directory(self, tmp_path: Path) -> None:
        files: dict[str, str | bytes] = {
            "1/b.yaml": "kind: B\n---\nkind: Not\n",
            "1/a.yaml": csv("etcd.1"),
            "1/c.yaml": "no: kind",
            "1/.d.yaml": "kind: D",
            "1/e.yaml": "kind: [",
            "1/f.yaml": csv("etcd.2"),
            "1/deeper/g.yaml": "kind: G",
        }
        one, two = gathered(tmp_path, files)
        assert (one.bundle, two.bundle) == ("etcd.1", "etcd.2")
        assert json.loads(one.csv) == json.loads(csv("etcd.1"))
        assert one.objects == one.csv + '{"kind":"B"}'
        assert two.objects == '{"kind":"B"}' + two.csv
        image = image_of(tmp_path, "m")
        assert list(packagemanifests_contents.contents(image, ["m"])) == [one, two]
