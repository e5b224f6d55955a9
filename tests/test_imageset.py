from __future__ import annotations

import pytest

from airgap import limits
from airgap.catalog.model import Bundle, Catalog, Channel, ChannelEntry, Package
from airgap.catalog.select import HEAD, PackageChoice, select
from airgap.catalog.versions import VersionRange
from airgap.errors import UsageError
from airgap.imageset import V1, V2, ImageSet, parse
from airgap.question import configured, question_of, selection_of
from airgap.reference import ImageReference

INDEX = "registry.redhat.io/redhat/redhat-operator-index:v4.16"


FIRST = ("kind: ImageSetConfiguration",)
OPERATOR = ("mirror:", "  operators:", f"  - catalog: {INDEX}")


def read(*lines: str, version: str = V2) -> ImageSet:
    """A configuration whose lines come after the first two, which say what it is."""
    text = "\n".join((*FIRST, f"apiVersion: {version}", *lines))
    return parse(text.encode(), "isc.yaml")


def operators(*lines: str, version: str = V2) -> ImageSet:
    """A configuration with one catalog; the lines say what of it, from line 6 on."""
    return read(*OPERATOR, *("    " + line for line in lines), version=version)


def choices(*lines: str) -> tuple[PackageChoice, ...]:
    (operator,) = operators("packages:", *lines).operators
    return operator.packages


def between(lowest: str, highest: str) -> VersionRange:
    return VersionRange.between(lowest, highest)


def test_reads_a_whole_configuration() -> None:
    found = read(
        "archiveSize: 4",
        "mirror:",
        "  operators:",
        f"  - catalog: {INDEX}",
        "    full: false",
        "    packages:",
        "    - name: cluster-logging",
        "      defaultChannel: stable-5.8",
        "      channels:",
        "      - name: stable-5.8",
        "  additionalImages:",
        "  - name: registry.redhat.io/ubi9/ubi:latest",
        "  blockedImages:",
        "  - name: .*fluentd.*",
    )
    (operator,) = found.operators
    assert operator.catalog == ImageReference.parse(INDEX)
    assert operator.packages == (PackageChoice("cluster-logging", ("stable-5.8",), HEAD),)
    assert operator.default_channels == {"cluster-logging": "stable-5.8"}
    assert found.additional_images == (ImageReference.parse("registry.redhat.io/ubi9/ubi:latest"),)
    assert [bool(p.search("q.io/fluentd:1")) for p in found.blocked_images] == [True]
    assert found.archive_size == 4 * limits.GIB
    assert found.unsupported == ()


def test_an_empty_configuration_asks_for_nothing() -> None:
    for found in (read(), read("mirror:"), read("mirror: {}", "archiveSize:")):
        assert found == ImageSet((), (), (), None, ())


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["- name: a"], [PackageChoice("a", (), HEAD)]),
        (["- name: a", "  minVersion: 1.2.3"], [PackageChoice("a", (), between("1.2.3", ""))]),
        (
            ["- name: a", "  minVersion: 1.2.3", "  maxVersion: '2.0'"],
            [PackageChoice("a", (), between("1.2.3", "2.0"))],
        ),
        (
            ["- name: a", "  channels:", "  - name: x", "  - name: z", "    maxVersion: 2.0.0"],
            [PackageChoice("a", ("x",), HEAD), PackageChoice("a", ("z",), between("", "2.0.0"))],
        ),
        (
            ["- name: a", "  minVersion: 1.2.3", "  channels: [{name: x}]"],
            [PackageChoice("a", ("x",), between("1.2.3", ""))],
        ),
        (["- name: a", "- &b {name: b}"], [PackageChoice(n, (), HEAD) for n in "ab"]),
    ],
)
def test_reads_packages_channels_and_ranges(
    lines: list[str], expected: list[PackageChoice]
) -> None:
    assert list(choices(*lines)) == expected


def test_full_is_all_versions() -> None:
    (operator,) = operators("full: true", "packages: [{name: a, channels: [{name: x}]}]").operators
    assert operator.packages == (PackageChoice("a", ("x",)),)


def test_a_catalog_without_packages_is_its_heads_or_all_of_it() -> None:
    entries = (ChannelEntry("p.2", "p.1"), ChannelEntry("p.1"))
    bundles = (Bundle("p", "p.1", "1.0.0"), Bundle("p", "p.2", "2.0.0"))
    catalog = Catalog((Package("p", "s", (Channel("s", "p.2", entries),)),), bundles)
    for line, expected in (("full: false", bundles[1:]), ("full: true", bundles)):
        text = "\n".join([*FIRST, f"apiVersion: {V2}", *OPERATOR, f"    {line}"])
        found = configured(text.encode(), "isc.yaml")
        question = question_of(found.catalogs, "", found.part)
        assert select(catalog, selection_of(question, question.shares[0])).bundles == expected


@pytest.mark.parametrize(
    ("version", "lines", "expected"),
    [
        (V1, [], True),
        (V1, ["skipDependencies: true"], False),
        (V2, [], False),
        (V2, ["skipDependencies: false"], True),
    ],
)
def test_takes_dependencies_along_as_each_version_does(
    version: str, lines: list[str], expected: bool
) -> None:
    assert operators(*lines, version=version).operators[0].with_dependencies is expected


def test_the_first_version_blocks_by_name() -> None:
    (pattern,) = read("mirror: {blockedImages: [{name: q.io/a.b}]}", version=V1).blocked_images
    assert pattern.search("q.io/a.b")
    assert not pattern.search("q.io/a.b:1")
    assert not pattern.search("q.io/axb")


def test_names_what_is_not_supported() -> None:
    found = read(
        "storageConfig:",
        "  local: {path: /tmp}",
        "mirror:",
        "  platform:",
        "    channels: [{name: stable-4.16}]",
        "  helm: {}",
        "  operators:",
        f"  - catalog: {INDEX}",
        "    targetTag: v1",
        "    packages:",
        "    - name: a",
        "      minBundle: a.v1",
        "  additionalImages:",
        "  - name: q.io/a:1",
        "    targetRepo: b",
    )
    assert found.unsupported == (
        "storageConfig (line 3)",
        "mirror.platform (line 6)",
        "mirror.operators[0].targetTag (line 11)",
        "mirror.operators[0].packages[0].minBundle (line 14)",
        "mirror.additionalImages[0].targetRepo (line 17)",
    )


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["mirrors: {}"], "isc.yaml, line 3: mirrors: unknown; did you mean mirror?"),
        (["mirror:", "  zzz: 1"], "isc.yaml, line 4: mirror.zzz: unknown"),
        (["mirror: []"], "line 3: mirror: must be a mapping"),
        (["mirror: {operators: {}}"], "line 3: mirror.operators: must be a list"),
        (["mirror:", "  operators:", "  - full: true"], "line 5: mirror.operators[0].catalog: mis"),
        (["mirror: {operators: [{catalog: 'oci:///x'}]}"], "not an image reference: 'oci:///x'"),
        (["mirror: {additionalImages: [q.io/a]}"], "mirror.additionalImages[0]: must be a mapping"),
        (["mirror: {blockedImages: [{name: '('}]}"], "blockedImages[0].name: not a regular expr"),
        (["archiveSize: 0"], "line 3: archiveSize: must be a whole number of GiB"),
        (["archiveSize: '4'"], "archiveSize: must be a whole number"),
        (["archiveSize: true"], "archiveSize: must be a whole number"),
        (["archiveSize: 1", "archiveSize: 2"], "isc.yaml, line 4: the key 'archiveSize' again"),
        (["a: &a [*a]"], "isc.yaml, line 3: "),
        (["a: !!python/object/apply:os.system [x]"], "isc.yaml, line 3: the tag"),
        (["---", "kind: x"], "isc.yaml: 2 documents"),
        (["a: " + "[" * 500], "line 3: nested more than"),
        (["\x1b]0;title\x07: 1"], "isc.yaml, line 3: "),
        (["? [1]\n: 2"], "isc.yaml, line 3: "),
    ],
)
def test_says_where_a_configuration_is_wrong(lines: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(*lines)
    assert message in caught.value.message
    assert caught.value.message.isprintable()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["- name: a", "  nam: b"], "line 8: {}.nam: unknown; did you mean name?"),
        (["- channels: []"], "line 7: {}.name: missing"),
        (["- name: a", "  channels: [{name: 4.10}]"], "4.1 is no text; put it in quotes"),
        (["- name: a", "  minVersion: 5.6"], "line 8: {}.minVersion: 5.6 is no text"),
        (["- name: a", "  minVersion: newest"], "minVersion: not a range of versions: '>=newest'"),
        (["- name: [a]"], "{}.name: must be text"),
        (
            [
                "- {name: a, minVersion: 1.0.0, channels: [",
                "  {name: x},",
                "  {minVersion: 1.0.0}]}",
            ],
            "line 9: {}.channels[1]: a range here and one of the package exclude each other",
        ),
    ],
)
def test_says_where_a_package_is_wrong(lines: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        choices(*lines)
    assert message.format("mirror.operators[0].packages[0]") in caught.value.message


def test_refuses_a_range_of_what_is_wanted_in_full() -> None:
    with pytest.raises(UsageError, match=r"line 7: .*minVersion: a range and 'full: true'"):
        operators("full: true", "packages: [{name: a, minVersion: 1.2.3}]")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "0 documents|kind: missing"),
        ("[]", "line 1: all of it: must be a mapping"),
        ("kind: DeleteImageSetConfiguration\napiVersion: x", "line 1: kind: not 'ImageSetConf"),
        ("kind: ImageSetConfiguration\napiVersion: v1", "line 2: apiVersion: neither"),
        ("kind: ImageSetConfiguration", "line 1: apiVersion: missing"),
        ("kind: \xff\udc80", "line 1: "),
        ("kind: 'x", "line 1: |line 2: "),
        ("a" * (limits.CONFIGURATION_FILE + 1), "bytes, more than"),
    ],
)
def test_refuses_what_is_no_configuration(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(text.encode("utf-8", "surrogateescape"), "isc.yaml")


def test_an_alias_bomb_is_refused_where_it_explodes() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for n in range(1, 9):
        lines.append(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]")
    with pytest.raises(UsageError, match="aliases followed"):
        read(*lines)
