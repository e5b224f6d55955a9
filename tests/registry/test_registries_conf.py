from __future__ import annotations

from pathlib import Path

import pytest

from airgap.errors import UsageError
from airgap.reference import ImageReference, Repository
from airgap.registry.registries_conf import Place, RegistriesConf, drop_in

DIGEST = "sha256:" + "a" * 64

CONF = """
unqualified-search-registries = ["docker.io"]
short-name-mode = "enforcing"

[[registry]]
location = "quay.io"
unknown-key = 1
[[registry.mirror]]
location = "mirror.local:5000/quay"
insecure = true

[[registry]]
prefix = "quay.io/ns"
location = "other.io/moved"
mirror-by-digest-only = true
[[registry.mirror]]
location = "digests.local"

[[registry]]
prefix = "quay.io/tags"
[[registry.mirror]]
location = "tags.local/t"
pull-from-mirror = "tag-only"
[[registry.mirror]]
location = "digests.local/d"
pull-from-mirror = "digest-only"

[[registry]]
prefix = "*.example.com"
insecure = true

[[registry]]
location = "evil.io"
blocked = true

[[registry]]
prefix = "docker.io/library"
location = "hub.local"
"""


@pytest.fixture
def conf(tmp_path: Path) -> RegistriesConf:
    return RegistriesConf.read(write(tmp_path, CONF))


def write(directory: Path, text: str) -> Path:
    path = directory / "registries.conf"
    path.write_text(text)
    return path


def places(conf: RegistriesConf, text: str) -> list[str]:
    return [
        f"{place.repository}{'!' if place.insecure else ''}"
        for place in conf.candidates(ImageReference.parse(text))
    ]


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("quay.io/a/b:1", ["mirror.local:5000/quay/a/b!", "quay.io/a/b"]),
        ("quay.io/nsx/b:1", ["mirror.local:5000/quay/nsx/b!", "quay.io/nsx/b"]),
        (f"quay.io/ns/b@{DIGEST}", ["digests.local/b", "other.io/moved/b"]),
        (f"quay.io/ns/b:1@{DIGEST}", ["digests.local/b", "other.io/moved/b"]),
        ("quay.io/ns/b:1", ["other.io/moved/b"]),
        ("quay.io/tags/b:1", ["tags.local/t/b", "quay.io/tags/b"]),
        (f"quay.io/tags/b@{DIGEST}", ["digests.local/d/b", "quay.io/tags/b"]),
        ("a.b.example.com/x:1", ["a.b.example.com/x!"]),
        ("example.com/x:1", ["example.com/x"]),
        ("notexample.com/x:1", ["notexample.com/x"]),
        ("quay.io.evil.net/a/b", ["quay.io.evil.net/a/b"]),
        ("busybox", ["hub.local/busybox"]),
    ],
)
def test_the_longest_prefix_decides_and_mirrors_come_first(
    conf: RegistriesConf, reference: str, expected: list[str]
) -> None:
    assert places(conf, reference) == expected


def test_refuses_a_blocked_registry_and_names_the_file(conf: RegistriesConf) -> None:
    with pytest.raises(UsageError, match=r"evil\.io/x:1: .*registries\.conf blocks evil\.io"):
        conf.candidates(ImageReference.parse("evil.io/x:1"))


def test_without_a_file_every_image_is_where_its_name_says() -> None:
    conf = RegistriesConf.load(None, {"CONTAINERS_REGISTRIES_CONF": ""})
    assert conf == RegistriesConf()
    assert places(conf, "quay.io/a/b") == ["quay.io/a/b"]


def test_the_flag_goes_before_the_environment(tmp_path: Path) -> None:
    flag = write(tmp_path, '[[registry]]\nprefix="a.io"\nlocation="flag.io"')
    (tmp_path / "env").mkdir()
    env = write(tmp_path / "env", '[[registry]]\nprefix="a.io"\nlocation="env.io"')
    environ = {"CONTAINERS_REGISTRIES_CONF": str(env)}
    assert places(RegistriesConf.load(flag, environ), "a.io/x") == ["flag.io/x"]
    assert places(RegistriesConf.load(None, environ), "a.io/x") == ["env.io/x"]
    assert places(RegistriesConf.load(Path(), environ), "a.io/x") == ["env.io/x"]


@pytest.mark.parametrize(
    "text",
    [
        "[[registry",
        "registry = 1",
        "[registry]\nlocation = 'a.io'",
        "[[registry]]",
        "[[registry]]\nlocation = 1",
        "[[registry]]\nlocation = 'a.io'\nblocked = 'yes'",
        "[[registry]]\nlocation = 'a.io'\ninsecure = 1",
        "[[registry]]\nlocation = 'https://a.io'",
        "[[registry]]\nlocation = 'a.io/UPPER'",
        "[[registry]]\nprefix = 'a.io/x:tag'",
        "[[registry]]\nlocation = 'a.io'\nmirror = 'b.io'",
        "[[registry]]\nlocation = 'a.io'\n[[registry.mirror]]\ninsecure = true",
        "[[registry]]\nlocation = 'a.io'\n[[registry.mirror]]\n"
        "location = 'b.io'\npull-from-mirror = 'never'",
        "[[registry]]\nlocation = 'a.io'\nmirror-by-digest-only = true\n[[registry.mirror]]\n"
        "location = 'b.io'\npull-from-mirror = 'all'",
        "[[registry]]\nlocation = 'a.io'\n[[registry]]\nlocation = 'a.io'\nblocked = true",
    ],
)
def test_refuses_a_malformed_file_by_its_name(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UsageError, match=str(path)):
        RegistriesConf.read(path)


def test_refuses_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        RegistriesConf.load(tmp_path / "absent", {})


def test_refuses_to_map_an_image_to_a_registry_alone(tmp_path: Path) -> None:
    path = write(tmp_path, '[[registry]]\nprefix="a.io/x"\nlocation="b.io"')
    with pytest.raises(UsageError, match="a registry alone"):
        RegistriesConf.read(path).candidates(ImageReference.parse("a.io/x:1"))


@pytest.mark.parametrize("insecure", [True, False])
def test_what_is_written_leads_to_the_mirror_first(tmp_path: Path, insecure: bool) -> None:
    path = tmp_path / "registries.conf"
    mirrors = {"quay.io": "bastion:5000/quay.io", "a.io:8443": "bastion:5000/a.io_8443"}
    path.write_text(drop_in(mirrors, insecure=insecure))
    conf = RegistriesConf.read(path)
    for text in ("a.io:8443/x/y:1", f"a.io:8443/x/y@{DIGEST}"):
        assert conf.candidates(ImageReference.parse(text)) == [
            Place(Repository("bastion:5000", "a.io_8443/x/y"), insecure=insecure),
            Place(Repository("a.io:8443", "x/y")),
        ]
