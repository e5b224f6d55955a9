from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airgap.digest import Digest
from airgap.errors import MalformedReference, UsageError
from airgap.reference import DestinationPrefix, ImageReference, Repository, is_hub
from tests.support.vectors import identity, vectors

HEX = "6b4db07f6e6c962fc96473d86c44532c93b146bbefe311d0c348117bf759c506"
D = Digest("sha256", HEX)

_VECTORS_NOT_FOLLOWED = {
    "parse-06": "a registry alone is no image; destinations have a parser of their own",
    "parse-08": "a registry alone",
    "parse-37": "a registry alone",
    "parse-32": "an s3:// store",
}


@pytest.mark.parametrize("vector", vectors("parse"), ids=identity)
def test_reads_references_as_oc_does(vector: dict[str, Any]) -> None:
    text, expected = vector["input"], vector["expected"]
    if "error" in expected or vector["id"] in _VECTORS_NOT_FOLLOWED:
        with pytest.raises(MalformedReference):
            ImageReference.parse(text)
        return
    found = ImageReference.parse(text)
    path = "/".join(part for part in (expected["namespace"], expected["name"]) if part)
    assert (found.registry, found.path, found.tag) == (expected["registry"], path, expected["tag"])
    assert str(found.digest or "") == expected["digest"]
    assert found.exact == expected["text"]
    assert found.name == expected["name"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "names a registry"),
        ("oci://quay.io/a/b", "no oci:// in front"),
        (f"strimzi/operator@@sha256:{HEX}", "no digest"),
        (f"quay.io/a/b@sha256:sha256:{HEX}", "no digest"),
        (f"quay.io/a/b@sha256:{HEX}@sha256:{HEX}", "no digest"),
        ("quay.io/a/b@", "no digest"),
        ("quay.io/a/b:", "nothing after"),
        ("quay.io/a/b:" + "x" * 129, "no tag"),
        ("quay.io/a/b:-x", "no tag"),
        ("quay.io/a//b", "'' cannot be part"),
        ("quay.io/a/", "'' cannot be part"),
        ("quay.io/a/b ", "'b ' cannot be part"),
        ("quay.io/a/b\n", r"'b\n' cannot be part"),
        ("quay.io/a/..", "'..' cannot be part"),
        ("quay.io/a/-b", "'-b' cannot be part"),
        ("quay.io/a/b___c", "'b___c' cannot be part"),
        ("quay.io/a/ﬁ", "cannot be part"),
        ("quay.io/" + "a" * 248, "longer than 255"),
        ("[::1]:5000/a", "no registry host"),
        ("-quay.io/a", "no registry host"),
        ("quay..io/a", "no registry host"),
        ("quay.io:port/a", "no registry host"),
        ("quay.io:0/a", "no registry host"),
        ("quay.io:00/a", "no registry host"),
        ("quay.io:65536/a", "no registry host"),
        ("quay.io:99999/a", "no registry host"),
        ("quay.io:0000065536/a", "no registry host"),
        ("quay.io:" + "9" * 5000 + "/a", "no registry host"),
    ],
    ids=lambda value: value[:40],
)
def test_refuses_what_is_no_reference_and_says_why(text: str, why: str) -> None:
    with pytest.raises(MalformedReference) as refusal:
        ImageReference.parse(text)
    assert why in refusal.value.message


@pytest.mark.parametrize("host", ["quay.io:1", "quay.io:65535", "localhost:05000", "10.0.0.1:443"])
def test_every_port_that_exists_is_one(host: str) -> None:
    assert ImageReference.parse(f"{host}/a").registry == host
    assert DestinationPrefix.parse(host).host == host


def test_the_longest_name_is_a_name() -> None:
    assert ImageReference.parse("quay.io/" + "a" * 247).path == "a" * 247


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        (f"busybox@{D}", f"docker.io/library/busybox@{D}"),
        (f"busybox:1@{D}", f"docker.io/library/busybox:1@{D}"),
        ("a/b:1", "docker.io/a/b:1"),
        ("index.docker.io/busybox", "index.docker.io/library/busybox:latest"),
        ("quay.io/busybox", "quay.io/busybox:latest"),
        ("localhost/busybox", "localhost/busybox:latest"),
    ],
)
def test_fills_in_dockers_defaults(text: str, full: str) -> None:
    reference = ImageReference.parse(text)
    assert str(reference.with_defaults()) == full
    assert reference.with_defaults().with_defaults() == reference.with_defaults()


@pytest.mark.parametrize("host", ["registry", "localhost:5000", "r.example.com", "[::1]:5000"])
def test_a_repository_is_read_as_it_is_written(host: str) -> None:
    for repository in (Repository(host, "a"), Repository(host, "a/b_c/d")):
        assert Repository.parse(str(repository)) == repository


@pytest.mark.parametrize(
    "text", ["r.example.com", "r.example.com/", "/a", "r/A", "r/a//b", "r/a:v"]
)
def test_refuses_what_is_no_repository(text: str) -> None:
    with pytest.raises(UsageError):
        Repository.parse(text)


def test_a_repository_has_dockers_defaults() -> None:
    repository = ImageReference.parse("busybox:1").repository
    assert repository == Repository("docker.io", "library/busybox")
    assert str(repository) == "docker.io/library/busybox"


@pytest.mark.parametrize(
    ("text", "exact"),
    [
        ("q.io/a/b", "q.io/a/b"),
        ("q.io/a/b:1", "q.io/a/b:1"),
        (f"q.io/a/b@{D}", f"q.io/a/b@{D}"),
        (f"q.io/a/b:1@{D}", f"q.io/a/b@{D}"),
    ],
)
def test_the_digest_wins_over_the_tag_in_the_exact_text(text: str, exact: str) -> None:
    assert ImageReference.parse(text).exact == exact


def test_pinning_keeps_the_name() -> None:
    assert str(ImageReference.parse("q.io/a/b:1").pinned(D)) == f"q.io/a/b:1@{D}"


def test_knows_the_names_of_the_hub() -> None:
    assert all(map(is_hub, ("docker.io", "index.docker.io", "registry-1.docker.io")))
    assert not is_hub("quay.io")


_host = st.sampled_from(["", "quay.io/", "localhost/", "localhost:5000/", "10.0.0.1:5000/", "Q/"])
_component = st.from_regex(r"[a-z0-9]{1,3}(?:(?:\.|_|__|-{1,3})[a-z0-9]{1,3}){0,2}", fullmatch=True)
_path = st.lists(_component, min_size=1, max_size=4).map("/".join)
_tag = st.sampled_from(["", ":v1", ":latest", ":_", f":{HEX}"])
_digest = st.sampled_from(["", f"@{D}", f"@sha512:{HEX}{HEX}"])


@given(st.builds("{}n/{}{}{}".format, _host, _path, _tag, _digest))
def test_a_reference_is_printed_as_it_was_written(text: str) -> None:
    reference = ImageReference.parse(text)
    assert str(reference) == text
    assert ImageReference.parse(str(reference.with_defaults())) == reference.with_defaults()


@given(st.text() | st.text("aA0.:/@-_ \n") | st.text("a./:").map(lambda text: f"{text}@{D}"))
def test_any_text_is_refused_or_printed_as_it_was_written(text: str) -> None:
    try:
        reference = ImageReference.parse(text)
    except MalformedReference:
        return
    assert str(reference) == text


# Destinations


@pytest.mark.parametrize(
    ("text", "host", "components"),
    [
        ("registry.example.com", "registry.example.com", ()),
        ("myregistry:5000", "myregistry:5000", ()),
        ("localhost:5000/olm", "localhost:5000", ("olm",)),
        ("registry.example.com/a/b/c", "registry.example.com", ("a", "b", "c")),
        ("[fd00::1]:5000/olm", "[fd00::1]:5000", ("olm",)),
    ],
)
def test_the_first_part_of_a_destination_is_its_registry(
    text: str, host: str, components: tuple[str, ...]
) -> None:
    destination = DestinationPrefix.parse(text)
    assert (destination.host, destination.components) == (host, components)
    assert str(destination) == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no host"),
        ("/olm", "no host"),
        ("https://registry.example.com", "without a scheme"),
        ("file:///local/store", "without a scheme"),
        ("registry.example.com:/olm", "no host"),
        ("registry_1:5000", "no host"),
        ("registry.example.com:0", "no host"),
        ("registry.example.com:99999/olm", "no host"),
        ("registry.example.com:0000065536", "no host"),
        ("[fd00::1]:0", "no host"),
        ("[fd00::1]:65536/olm", "no host"),
        ("registry.example.com/OLM", "'OLM' cannot be part"),
        ("registry.example.com/olm/", "'' cannot be part"),
        ("registry.example.com/olm:v1", "'olm:v1' cannot be part"),
    ],
)
def test_refuses_what_is_no_destination_and_says_why(text: str, why: str) -> None:
    with pytest.raises(UsageError) as refusal:
        DestinationPrefix.parse(text)
    assert why in refusal.value.message
