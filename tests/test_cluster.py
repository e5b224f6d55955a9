from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from airgap import cluster
from airgap.cluster import Scope
from airgap.digest import Digest
from airgap.errors import UsageError
from airgap.mapping import Origin, Target, assign
from airgap.reference import DestinationPrefix, ImageReference, Repository
from tests.support.ground_truth import GroundTruth, ground_truths
from tests.support.vectors import vectors

if TYPE_CHECKING:
    from collections.abc import Callable

D = Digest("sha256", "6b4d" * 16)

_MIRROR_SETS: dict[str, tuple[Callable[..., str], str]] = {
    "ImageContentSourcePolicy": (cluster.image_content_source_policy, "repositoryDigestMirrors"),
    "ImageDigestMirrorSet": (cluster.image_digest_mirror_set, "imageDigestMirrors"),
    "ImageTagMirrorSet": (cluster.image_tag_mirror_set, "imageTagMirrors"),
}

# The pattern for sources and mirrors in the CustomResourceDefinitions of config.openshift.io/v1
# (openshift/api, Apache License 2.0), without the wildcards that sources may have.
_API_PATTERN = re.compile(
    r"^((?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
    r"(?:(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))+)?(?::[0-9]+)?)"
    r"(?:(?:/[a-z0-9]+(?:(?:(?:[._]|__|[-]*)[a-z0-9]+)+)?)+)?$"
)
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


def targets(*texts: str, destination: str = "m:5000", components: int = 2) -> list[Target]:
    origins = [Origin(ImageReference.parse(text)) for text in texts]
    prefix = DestinationPrefix.parse(destination)
    return list(assign(origins, prefix, max_components=components))


def digests(*names: str, destination: str = "m:5000", components: int = 2) -> list[Target]:
    pinned = [f"{name}@{D}" for name in names]
    return targets(*pinned, destination=destination, components=components)


def entries(text: str) -> dict[str, list[str]]:
    """Return all entries of some mirror sets of one kind: mirrors by source."""
    found: dict[str, list[str]] = {}
    for document in yaml.safe_load_all(text):
        (listed,) = document["spec"].values()
        for entry in listed:
            assert entry["source"] not in found
            found[entry["source"]] = entry["mirrors"]
    return found


# What oc does


@pytest.mark.parametrize("truth", ground_truths(), ids=str)
def test_real_catalogs_get_the_mirrors_oc_gives_them(truth: GroundTruth) -> None:
    mapping = assign(map(Origin, truth.references), DestinationPrefix.parse("127.0.0.1:5991"))
    ours = entries(cluster.image_content_source_policy("catalog", mapping))
    # oc writes index.docker.io as it finds it, and no node ever asks for that.
    theirs = {source.replace("index.docker.io/", "docker.io/"): m for source, m in truth.mirrors}
    assert {source: tuple(mirrors) for source, mirrors in ours.items()} == theirs


def test_writes_what_oc_writes() -> None:
    """The text of vector icsp-01, but for the kind of quotation marks."""
    found = digests("docker.io/strimzi/operator", destination="quay.io/olmtest")
    assert cluster.image_content_source_policy("catalog", found) == (
        "---\n"
        "apiVersion: operator.openshift.io/v1alpha1\n"
        "kind: ImageContentSourcePolicy\n"
        "metadata:\n"
        "  labels:\n"
        "    operators.openshift.org/catalog: 'true'\n"
        "  name: catalog-0\n"
        "spec:\n"
        "  repositoryDigestMirrors:\n"
        "  - mirrors:\n"
        "    - quay.io/olmtest/strimzi-operator\n"
        "    source: docker.io/strimzi/operator\n"
    )


@pytest.mark.parametrize("kind", _MIRROR_SETS)
def test_every_kind_names_itself_and_its_list(kind: str) -> None:
    write, key = _MIRROR_SETS[kind]
    (document,) = yaml.safe_load_all(write("catalog", [*digests("q/a/b"), *targets("q.io/c/d:1")]))
    assert document["kind"] == kind
    assert list(document["spec"]) == [key]
    assert document["metadata"] == {
        "name": "catalog-0",
        "labels": {"operators.openshift.org/catalog": "true"},
    }


def vector(identity: str) -> dict[str, Any]:
    (found,) = [
        v for kind in ("icsp", "catalogsource") for v in vectors(kind) if v["id"] == identity
    ]
    return found


def test_every_vector_has_its_test() -> None:
    assert {v["id"] for v in vectors("icsp")} == {"icsp-01", "icsp-03", "icsp-05", "icsp-06"}
    assert {v["id"] for v in vectors("catalogsource")} == {"catalogsource-02"}


def test_one_entry_for_each_source_repository() -> None:
    expected = vector("icsp-01")["expected"]["repositoryDigestMirrors"]
    other = str(D).replace("6b4d", "6b4e")
    found = targets(
        f"docker.io/strimzi/operator@{D}",
        f"docker.io/strimzi/operator@{other}",
        destination="quay.io/olmtest",
    )
    (document,) = yaml.safe_load_all(cluster.image_content_source_policy("catalog", found))
    assert document["spec"]["repositoryDigestMirrors"] == expected


def test_tags_are_no_business_of_digest_sets_nor_digests_of_tag_sets() -> None:
    assert vector("icsp-03")["expected"]["repositoryDigestMirrors"] == []
    tagged = targets("quay.io/halkyonio/operator:v0.1.8", destination="quay.io/olmtest")
    assert cluster.image_content_source_policy("catalog", tagged) == ""
    assert cluster.image_digest_mirror_set("catalog", tagged) == ""
    assert cluster.image_tag_mirror_set("catalog", digests("quay.io/a/b")) == ""
    assert entries(cluster.image_tag_mirror_set("catalog", tagged)) == {
        "quay.io/halkyonio/operator": ["quay.io/olmtest/halkyonio-operator"]
    }


def test_a_catalog_is_announced_by_digest() -> None:
    given = vector("catalogsource-02")["input"]
    source = ImageReference.parse(given["source"])
    target = Target(source, source.repository, given["dest_tag"])
    text = cluster.catalog_sources(
        [cluster.Announced(target, Digest.parse(given["dest_digest"]), "sqlite")]
    )
    assert yaml.safe_load(text) == {
        "apiVersion": "operators.coreos.com/v1alpha1",
        "kind": "CatalogSource",
        "metadata": {"name": "index", "namespace": "openshift-marketplace"},
        "spec": {
            "sourceType": "grpc",
            "image": vector("catalogsource-02")["expected"]["spec.image"],
        },
    }


@pytest.mark.parametrize(
    ("catalogs", "names"),
    [
        (["quay.io/my/index:v4.12", "quay.io/my/index:v4.13"], ["index-v4-12", "index-v4-13"]),
        (["quay.io/a/index:v1", "quay.io/b/index:v1"], ["a-index-v1", "b-index-v1"]),
    ],
)
def test_two_catalogs_of_one_name_are_announced_under_two(
    catalogs: list[str], names: list[str]
) -> None:
    text = cluster.catalog_sources(
        [cluster.Announced(target, D, "sqlite") for target in targets(*catalogs)]
    )
    announced = [document["metadata"]["name"] for document in yaml.safe_load_all(text)]
    assert sorted(announced) == names


def test_olm_v1_is_told_of_file_based_catalogs_alone() -> None:
    new, old = targets("quay.io/my/new:v1", "quay.io/my/old:v1")
    catalogs = [cluster.Announced(old, D, "sqlite"), cluster.Announced(new, D, "file-based")]
    assert yaml.safe_load(cluster.cluster_catalogs(catalogs)) == {
        "apiVersion": "olm.operatorframework.io/v1",
        "kind": "ClusterCatalog",
        "metadata": {"name": "new"},
        "spec": {"source": {"type": "Image", "image": {"ref": f"{new.repository}@{D}"}}},
    }
    assert cluster.cluster_catalogs(catalogs[:1]) == ""


# Sources and mirrors


def test_what_is_its_own_mirror_is_left_out() -> None:
    found = digests("m:5000/a/b", "q.io/c/d")
    for scope, expected in (
        (Scope.REPOSITORY, {"q.io/c/d": ["m:5000/c/d"]}),
        (Scope.REGISTRY, {"q.io": ["m:5000"]}),
    ):
        assert entries(cluster.image_digest_mirror_set("x", found, scope=scope)) == expected


def test_a_source_with_several_mirrors_lists_them_sorted() -> None:
    found = [*digests("q.io/a/b", destination="z:1"), *digests("q.io/a/b", destination="y:1")]
    assert entries(cluster.image_digest_mirror_set("x", found)) == {
        "q.io/a/b": ["y:1/a/b", "z:1/a/b"]
    }


def test_sources_are_called_what_nodes_call_them() -> None:
    found = digests("index.docker.io/busybox", "busybox", "index.docker.io/a/b")
    assert entries(cluster.image_digest_mirror_set("x", found)) == {
        "docker.io/a/b": ["m:5000/a/b"],
        "docker.io/library/busybox": ["m:5000/library/busybox"],
    }


@pytest.mark.parametrize(
    ("destination", "components", "expected"),
    [
        ("m:5000", 2, {"q.io": ["m:5000"], "q.io/d/e/f": ["m:5000/d/e-f"]}),
        ("m:5000", 0, {"q.io": ["m:5000"]}),
        ("m:5000/olm", 0, {"q.io": ["m:5000/olm"]}),
        (
            "m:5000/olm",
            2,
            {
                "q.io/a/b": ["m:5000/olm/a-b"],
                "q.io": ["m:5000/olm"],
                "q.io/d/e/f": ["m:5000/olm/d-e-f"],
            },
        ),
    ],
)
def test_registry_scope_is_used_where_it_resolves(
    destination: str, components: int, expected: dict[str, list[str]]
) -> None:
    found = digests(
        "q.io/a/b", "q.io/c", "q.io/d/e/f", destination=destination, components=components
    )
    text = cluster.image_digest_mirror_set("x", found, scope=Scope.REGISTRY)
    assert entries(text) == expected


def resolve(name: str, mirrors: dict[str, list[str]]) -> str:
    """Find a mirror as nodes do (containers-registries.conf): the longest prefix counts."""
    matching = [source for source in mirrors if name == source or name.startswith(f"{source}/")]
    if not matching:
        return name
    longest = max(matching, key=len)
    (mirror,) = mirrors[longest]
    return mirror + name.removeprefix(longest)


_component = st.sampled_from(["a", "b", "a-b", "c.d"])
_path = st.lists(_component, min_size=1, max_size=4).map("/".join)
_name = st.builds("{}/{}".format, st.sampled_from(["q.io", "r.io:5000", "docker.io"]), _path)


@given(
    st.lists(_name, max_size=8),
    st.sampled_from(["m:5000", "m:5000/a", "m:5000/a/b", "q.io"]),
    st.sampled_from([0, 2, 3]),
    st.sampled_from(Scope),
)
def test_nodes_find_every_image(
    names: list[str], destination: str, components: int, scope: Scope
) -> None:
    found = digests(*names, destination=destination, components=components)
    mirrors = entries(cluster.image_digest_mirror_set("x", found, scope=scope))
    for target in found:
        assert resolve(str(target.source.repository), mirrors) == str(target.repository)


@pytest.mark.parametrize("truth", ground_truths(), ids=str)
@pytest.mark.parametrize("scope", Scope)
def test_entries_fit_the_pattern_of_the_api(truth: GroundTruth, scope: Scope) -> None:
    prefix = DestinationPrefix.parse("m-1:5000/olm")
    found = assign(map(Origin, truth.references), prefix)
    mirrors = entries(cluster.image_digest_mirror_set("x", found, scope=scope))
    for name in (*mirrors, *(mirror for listed in mirrors.values() for mirror in listed)):
        assert _API_PATTERN.match(name)


# Names


@pytest.mark.parametrize(
    ("catalog", "name", "service"),
    [
        ("registry.redhat.io/redhat/redhat-operator-index:v4.6", "redhat-operator-index", None),
        ("localhost:5000/olm/sub/my_index", "sub-my-index", None),
        ("quay.io/dev/a__b/c.d:v1", "a--b-c.d", "a--b-c-d"),
        ("index", "index", None),
        ("quay.io/dev/3scale", "3scale", "cs-3scale"),
    ],
)
def test_names_follow_the_catalog(catalog: str, name: str, service: str | None) -> None:
    reference = ImageReference.parse(catalog)
    assert cluster.resource_name(reference) == name
    assert announced(reference) == (service or name)


@given(
    st.lists(
        st.from_regex(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*", fullmatch=True),
        min_size=1,
        max_size=6,
    ).map("/".join)
)
def test_names_fit_kubernetes(path: str) -> None:
    reference = ImageReference("q.io", path)
    name = f"{cluster.resource_name(reference)}-9999"
    assert len(name) <= 253
    assert _SUBDOMAIN.fullmatch(name)
    assert len(announced(reference)) <= 63
    assert _LABEL.fullmatch(announced(reference))


def announced(catalog: ImageReference) -> str:
    target = Target(catalog, Repository("m:5000", "a/b"), "v1")
    text = cluster.catalog_sources([cluster.Announced(target, D, "sqlite")])
    return str(yaml.safe_load(text)["metadata"]["name"])


# The limit


@pytest.mark.parametrize("write", [w for w, _ in _MIRROR_SETS.values()])
@pytest.mark.parametrize("limit", [-1, 0, 250_001])
def test_refuses_a_limit_out_of_range(write: Callable[..., str], limit: int) -> None:
    with pytest.raises(UsageError) as refusal:
        write("catalog", [], limit=limit)
    assert vector("icsp-05")["expected"]["error"] in refusal.value.message


def test_refuses_a_limit_too_small_for_one_entry() -> None:
    """Vector icsp-06 asks with a limit of 0, which is out of range here."""
    expected = vector("icsp-06")["expected"]["error"].replace("set to 0", "set to 100")
    expected = expected.replace("docker.io [quay.io]", "docker.io/a/b [quay.io/a/b]")
    found = digests("docker.io/a/b", destination="quay.io")
    with pytest.raises(UsageError) as refusal:
        cluster.image_content_source_policy("catalog", found, limit=100)
    assert refusal.value.message == expected


def measured(document: str, kind: str) -> int:
    """Return what ``oc`` counts: two fields more than it writes, and no separator."""
    status = "" if kind == "ImageContentSourcePolicy" else "status: {}\n"
    return len("  creationTimestamp: null\n" + status + document)


@pytest.mark.parametrize("kind", _MIRROR_SETS)
@given(st.sets(_path, max_size=30), st.integers(min_value=340, max_value=1500))
def test_documents_fit_the_limit_and_are_as_full_as_can_be(
    kind: str, paths: set[str], limit: int
) -> None:
    write, _ = _MIRROR_SETS[kind]
    tag = ":v1" if kind == "ImageTagMirrorSet" else f"@{D}"
    found = targets(*[f"q.io/{path}{tag}" for path in paths], components=0)
    whole, split = write("x", found), write("x", found, limit=limit)
    assert list(entries(split).items()) == list(entries(whole).items())

    documents = split.split("---\n")[1:]
    for number, document in enumerate(documents):
        assert measured(document, kind) <= limit
        assert f"  name: x-{number}\n" in document
    for document, following in pairwise(documents):
        entry = "  - mirrors:" + following.split("  - mirrors:")[1]
        assert measured(document + entry, kind) > limit


def test_same_set_same_bytes() -> None:
    found = digests("q.io/a/b", "r.io/a/b", "q.io/a/c")
    assert cluster.image_digest_mirror_set("x", found) == cluster.image_digest_mirror_set(
        "x", reversed(found)
    )
