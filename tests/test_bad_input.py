"""What goes wrong, and what an operator is told: the status, the place, and nothing half-made."""

from __future__ import annotations

import base64
import json
import random
import re
import shutil
import subprocess
import sys
import tarfile
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from airgap.archive.layout import INVENTORY_OFFSET
from airgap.archive.reader import ArchiveReader, partial_path
from airgap.archive.state import state_path
from airgap.archive.work import work_path
from airgap.catalog.formats import CONFIGS_LABEL
from airgap.registry import retry
from airgap.registry.directory import DirectoryStore
from airgap.registry.server import RegistryServer
from tests.support import images
from tests.support.command import Ran, airgap, airgap_process
from tests.support.disks import remount
from tests.support.faults import (
    FaultyRegistry,
    account_of,
    answer,
    challenge,
    cut,
    flip,
    longer,
    redirect,
    reset,
)
from tests.support.lab import CATALOG, CATALOGS, DATABASE_LABEL, Recipe
from tests.support.site import Site, Supply, open_site
from tests.support.upstream import put

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from airgap.digest import Digest
    from airgap.plan import Image, Plan
    from airgap.registry.http_server import Response
    from tests.support.disks import Mounter
    from tests.support.faults import Exchange, Fault

CATALOG_PATHS = r"/v2/quay\.io/lab/catalog/"
CATALOG_MANIFEST = CATALOG_PATHS + "manifests/.*"
CATALOG_BLOB = CATALOG_PATHS + "blobs/.*"
RELATED_MANIFEST = r"/v2/quay\.io/(coreos|test)/.*/manifests/.*"
RELATED_BLOB = r"/v2/quay\.io/(coreos|test)/.*/blobs/.*"
WEB_PAGE = answer(200, {"Content-Type": "text/html"}, b"<html>Please log in</html>")


@pytest.fixture(scope="module")
def supply(tmp_path_factory: pytest.TempPathFactory) -> Supply:
    return Supply.make(tmp_path_factory.mktemp("upstream"))


@pytest.fixture(scope="module")
def whole_archive(supply: Supply, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What an undisturbed export writes."""
    with open_site(tmp_path_factory.mktemp("undisturbed"), supply) as site:
        assert site.export("-q").status == 0
        return site.archive.read_bytes()


@pytest.fixture
def site(tmp_path: Path, supply: Supply, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(retry, "_FIRST_DELAY", 0.001)
    for name in ("REGISTRY_AUTH_FILE", "REG_CREDS", "CONTAINERS_REGISTRIES_CONF"):
        monkeypatch.delenv(name, raising=False)
    with open_site(tmp_path, supply) as site:
        yield site


@pytest.fixture
def exported(site: Site, whole_archive: bytes) -> Site:
    site.archive.write_bytes(whole_archive)
    return site


def assert_refused(ran: Ran, status: int, *words: str) -> None:
    """The status, one sentence that has the words, and no result."""
    assert ran.status == status
    assert ran.out == ""
    assert "error: " in ran.err.lower()
    assert "Traceback" not in ran.err
    for word in words:
        assert word in ran.err


def assert_nothing_made(site: Site) -> None:
    assert not site.archive.exists()
    assert not partial_path(site.archive).exists()


def plan_of(archive: Path) -> Plan:
    with ArchiveReader(archive) as reader:
        return reader.plan


# The catalog itself: what is wrong with it ends the export.


@pytest.mark.parametrize(
    "text",
    ["", " ", "Quay.io/Lab:v1", "quay.io/lab@sha256:12", "https://quay.io/lab/catalog", "a b:c"],
)
def test_a_catalog_reference_that_does_not_parse_is_a_usage_error(site: Site, text: str) -> None:
    assert_refused(site.export(catalog=text), 2, "not an image reference", repr(text))
    assert site.upstream.asked == []
    assert_nothing_made(site)


def test_an_image_without_a_catalog_is_refused(site: Site) -> None:
    ran = site.export(catalog="quay.io/test/etcd.0.9.0:latest")
    assert_refused(ran, 4, "quay.io/test/etcd.0.9.0:latest", "no catalog", "Is this the catalog")
    assert_nothing_made(site)


_DATABASE = (CATALOGS / "oc-test.db").read_bytes()


@pytest.mark.parametrize(
    ("database", "labels"),
    [
        (b"this is no database", {DATABASE_LABEL: "/bundles.db"}),
        (b"", {DATABASE_LABEL: "/bundles.db"}),
        (b"", {DATABASE_LABEL: "/elsewhere.db"}),
        (b"this is no database", {}),
        (_DATABASE[: len(_DATABASE) // 2], {}),
        (_DATABASE[:100], {DATABASE_LABEL: "/bundles.db"}),
        (_DATABASE[:100] + random.Random(1).randbytes(len(_DATABASE) - 100), {}),
    ],
    ids=["text", "empty", "not-there", "unlabelled-text", "half", "head", "noise"],
)
def test_a_database_that_is_none_is_refused(
    site: Site, database: bytes, labels: dict[str, str]
) -> None:
    image = images.image([images.layer({"bundles.db": database})], labels=labels)
    put(DirectoryStore(site.supply.folder, durable=False), "quay.io/lab/broken", image, "v1")
    assert_refused(site.export(catalog="quay.io/lab/broken:v1"), 4, "quay.io/lab/broken:v1")
    assert_nothing_made(site)


def test_a_registry_that_is_down_is_out_of_reach(site: Site) -> None:
    site.upstream.stop()
    ran = site.export()
    assert_refused(ran, 5, site.upstream.host, "Connection refused", "given up after 6 attempts")
    assert_nothing_made(site)


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "log in"), (403, "answers 403"), (404, "answers 404"), (418, "answers 418")],
)
def test_a_registry_that_refuses_the_catalog_ends_the_export(
    site: Site, status: int, words: str
) -> None:
    site.upstream.fault("GET", CATALOG_MANIFEST, answer(status))
    assert_refused(
        site.export(),
        5,
        f"quay.io/lab/catalog:v1 at {site.upstream.host}/quay.io/lab/catalog",
        words,
    )
    assert_nothing_made(site)


@pytest.mark.parametrize(("status", "attempts"), [(500, 3), (502, 6), (503, 6), (429, 6)], ids=str)
def test_what_may_pass_is_tried_again_but_not_for_ever(
    site: Site, status: int, attempts: int
) -> None:
    site.upstream.fault("GET", CATALOG_MANIFEST, answer(status))
    assert_refused(site.export(), 5, f"answers {status}", f"given up after {attempts} attempts")
    assert site.upstream.count("GET", CATALOG_MANIFEST) == attempts


def test_a_rest_longer_than_anybody_waits_for_is_told(site: Site) -> None:
    site.upstream.fault("GET", CATALOG_MANIFEST, answer(429, {"Retry-After": "4000"}))
    assert_refused(site.export(), 5, "answers 429", "asks to wait 4000 seconds")
    assert site.upstream.count("GET", CATALOG_MANIFEST) == 1


@pytest.mark.parametrize(
    ("path", "fault", "status", "words"),
    [
        (CATALOG_MANIFEST, WEB_PAGE, 5, "a web page instead of a manifest"),
        (CATALOG_MANIFEST, answer(200, {}, b"{}"), 4, "manifest"),
        (CATALOG_MANIFEST, answer(200, {}, b"\0\1\2"), 4, "not valid JSON"),
        (CATALOG_MANIFEST, answer(200, {}, b"x" * (5 << 20)), 5, "longer than"),
        (CATALOG_MANIFEST, cut(after=10), 5, "ended too soon"),
        (CATALOG_MANIFEST, reset(), 5, "the connection broke"),
        (CATALOG_MANIFEST, redirect("{path}"), 5, "redirected more than 5 times"),
        (CATALOG_BLOB, WEB_PAGE, 4, "it is a web page"),
        (CATALOG_BLOB, flip(at=20), 4, "the content's digest is sha256:"),
        (CATALOG_BLOB, longer(b"and more"), 4, "instead of the promised"),
        (CATALOG_BLOB, cut(after=10), 5, "ended too soon"),
        (CATALOG_BLOB, reset(after=10), 5, "the connection broke"),
        (CATALOG_BLOB, answer(404), 5, "answers 404"),
    ],
    ids=lambda value: "" if callable(value) else None,
)
def test_a_catalog_that_does_not_arrive_as_promised_ends_the_export(
    site: Site, path: str, fault: Fault, status: int, words: str
) -> None:
    site.upstream.fault("GET", path, fault)
    assert_refused(site.export(), status, "quay.io/lab/catalog", words)
    assert_nothing_made(site)


def test_a_pinned_catalog_is_what_its_digest_says_or_nothing(site: Site) -> None:
    site.upstream.fault("GET", CATALOG_MANIFEST, flip(at=30))
    pinned = f"quay.io/lab/catalog@{site.supply.lab.catalog_digest}"
    assert_refused(site.export(catalog=pinned), 4, pinned, "the content's digest is sha256:")
    assert_nothing_made(site)


@pytest.mark.parametrize(
    ("path", "fault", "status"),
    [(CATALOG_BLOB, cut(after=10), 5), (CATALOG_MANIFEST, answer(200, {}, b""), 4)],
    ids=["blob", "manifest"],
)
def test_after_the_upstream_is_mended_the_same_command_succeeds(
    site: Site, path: str, fault: Fault, status: int
) -> None:
    site.upstream.fault("GET", path, fault)
    assert site.export("-q").status == status
    site.upstream.heal()
    assert site.export("-q").status == 0
    with_work = {path.name for path in site.folder.iterdir()}
    assert with_work == {"olm.tar", "registries.conf", "destination"}


# Related images: what is wrong with one costs it, and nothing else.


@pytest.mark.parametrize(
    ("path", "fault", "reason"),
    [
        (RELATED_MANIFEST, answer(404), "not-found"),
        (RELATED_MANIFEST, answer(403), "denied"),
        (RELATED_MANIFEST, answer(401), "denied"),
        (RELATED_MANIFEST, answer(400), "refused"),
        (RELATED_MANIFEST, answer(503), "unreachable"),
        (RELATED_MANIFEST, WEB_PAGE, "refused"),
        (r".*/manifests/sha256:.*", flip(at=30), "wrong-content"),
        (r".*/test/.*/manifests/latest", answer(200, {}, b"{}"), "malformed-content"),
        (RELATED_BLOB, answer(404), "missing-blob"),
        (RELATED_BLOB, flip(at=20), "missing-blob"),
        (RELATED_BLOB, longer(b"and more"), "missing-blob"),
        (RELATED_BLOB, cut(after=10), "missing-blob"),
        (RELATED_BLOB, WEB_PAGE, "missing-blob"),
    ],
    ids=lambda value: "" if callable(value) else None,
)
def test_a_related_image_that_cannot_be_had_is_a_hole(
    site: Site, path: str, fault: Fault, reason: str
) -> None:
    site.upstream.fault("GET", path, fault)
    ran = site.export("--output", "json")
    assert ran.status == ran.json["exit_status"] == 3
    holes = ran.json["missing"]
    assert {hole["reason"] for hole in holes} == {reason}
    assert all(hole["bundles"] and hole["packages"] and hole["detail"] for hole in holes)
    assert "quay.io/lab/catalog:v1" not in {hole["reference"] for hole in holes}
    assert airgap("verify", site.archive).status == 3


def test_one_image_that_is_gone_is_named_with_all_it_breaks(site: Site) -> None:
    image = site.supply.lab.images["quay.io/test/etcd.0.9.2"]
    site.upstream.hide(image.root)
    site.upstream.fault("GET", r".*/test/etcd\.0\.9\.2/manifests/latest", answer(404))
    ran = site.export()
    assert ran.status == 3
    assert "MISSING from the archive (1):" in ran.out
    assert "quay.io/test/etcd.0.9.2" in ran.out
    assert "needed by etcdoperator.v0.9.2 (etcd)" in ran.out
    assert ran.out.endswith(f" --reuse {site.archive}\n")
    assert len(plan_of(site.archive).images) == len(site.supply.lab.images)


def test_a_blob_that_is_gone_is_fetched_when_it_is_back(site: Site, whole_archive: bytes) -> None:
    image = site.supply.lab.images["quay.io/test/etcd.0.9.2"]
    site.upstream.hide(list(image.blobs)[-1])
    ran = site.export()
    assert ran.status == 3
    assert "Run the same command again" in ran.out
    site.upstream.heal()
    assert site.export("-q").status == 0
    assert site.archive.read_bytes() == whole_archive


def test_a_reference_that_does_not_parse_is_listed_and_the_rest_goes_on(site: Site) -> None:
    image = _catalog_naming(site.folder, "quay.io/UPPER@sha256:zz")
    put(DirectoryStore(site.supply.folder, durable=False), "quay.io/lab/odd", image, "v1")
    ran = site.export("--output", "json", catalog="quay.io/lab/odd:v1")
    assert ran.status == 3
    (hole,) = (h for h in ran.json["missing"] if h["reason"] == "malformed-reference")
    assert hole["reference"] == "quay.io/UPPER@sha256:zz"
    assert hole["bundles"]


def _catalog_naming(folder: Path, reference: str) -> images.Image:
    import sqlite3
    from contextlib import closing

    database = folder / "odd.db"
    database.write_bytes(_DATABASE)
    with closing(sqlite3.connect(database)) as connection, connection:
        (one,) = connection.execute("SELECT min(image) FROM related_image").fetchone()
        change = "UPDATE related_image SET image = ? WHERE image = ?"
        connection.execute(change, (reference, one))
    return images.image([images.file_layer("bundles.db", database)])


def _catalog_of(
    site: Site, files: Mapping[str, object], labels: dict[str, str] | None = None
) -> str:
    """Put a catalog of files into the upstream registry."""
    content = {path: json.dumps(value).encode() for path, value in files.items()}
    image = images.image([images.layer(content)], labels=labels or {})
    put(DirectoryStore(site.supply.folder, durable=False), "quay.io/lab/odd", image, "v2")
    return "quay.io/lab/odd:v2"


def test_images_that_only_variables_of_operators_name_are_listed(site: Site) -> None:
    variable = {"name": "RELATED_IMAGE_DB", "value": "quay.io/test/db:1"}
    pod = {"containers": [{"image": "quay.io/test/etcd.0.9.2", "env": [variable]}]}
    deployments = [{"spec": {"template": {"spec": pod}}}]
    csv = {
        "kind": "ClusterServiceVersion",
        "metadata": {"name": "etcd.1"},
        "spec": {"install": {"strategy": "deployment", "spec": {"deployments": deployments}}},
    }
    package = {"packageName": "etcd", "channels": [{"name": "alpha", "currentCSV": "etcd.1"}]}
    files = {"m/etcd.package.yaml": package, "m/1/etcd.clusterserviceversion.yaml": csv}
    ran = site.export(catalog=_catalog_of(site, files))
    assert ran.status == 0
    assert "bundle 'etcd.1': RELATED_IMAGE_DB is 'quay.io/test/db:1'" in ran.err
    assert "quay.io/test/db:1" not in {
        str(image.reference) for image in plan_of(site.archive).images
    }


def test_hostile_names_in_a_catalog_make_no_file_and_no_escape(site: Site) -> None:
    package = "../../\x1b[2J" + "x" * 5_000
    channel = {
        "schema": "olm.channel",
        "package": package,
        "name": "\u202ec",
        "entries": [{"name": "/b"}],
    }
    bundle = {
        "schema": "olm.bundle",
        "package": package,
        "name": "/b",
        "image": "quay.io/test/etcd.0.9.2",
        "relatedImages": [{"image": "quay.io/\x1b]0;title\x07/../x"}],
    }
    files = {"configs/a.json": bundle, "configs/b.json": channel}
    beside = set(site.folder.parent.iterdir())
    ran = site.export("-v", catalog=_catalog_of(site, files, {CONFIGS_LABEL: "/configs"}))
    assert ran.status == 3
    imported = site.import_()
    assert imported.status == 3
    listed = airgap("inspect", site.archive)
    for text in (ran.text, imported.text, listed.text):
        assert all(character.isprintable() or character == "\n" for character in text)
    for path in site.manifests.glob("*.yaml"):
        assert "\x1b" not in path.read_text() and package not in path.read_text()
    assert set(site.folder.parent.iterdir()) == beside
    assert {path.name for path in site.folder.iterdir()} == {
        "olm.tar",
        "registries.conf",
        "destination",
        "manifests",
    }


def test_terminal_escapes_of_a_registry_are_not_printed(site: Site) -> None:
    said = json.dumps({"errors": [{"code": "DENIED", "message": "\x1b[2J\u202egone"}]}).encode()
    site.upstream.fault("GET", CATALOG_MANIFEST, answer(403, {}, said))
    ran = site.export()
    assert ran.status == 5
    assert ran.text.isascii() or all(c.isprintable() or c == "\n" for c in ran.text)


# Credentials.


def _auth_file(site: Site, user: str = "robot", password: str = "swordfish") -> Path:
    path = site.folder / "auth.json"
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    path.write_text(json.dumps({"auths": {site.upstream.host: {"auth": auth}}}))
    path.chmod(0o600)
    return path


def test_a_host_that_one_is_redirected_to_sees_no_credential(site: Site) -> None:
    basic = "Basic " + base64.b64encode(b"robot:swordfish").decode()
    store = DirectoryStore(site.supply.folder, durable=False)
    with FaultyRegistry(store) as tripwire:
        away = redirect(f"http://{tripwire.host}{{path}}")

        def guarded(exchange: Exchange) -> Response:
            if exchange.request.headers.get("authorization") != basic:
                return answer(401, {"WWW-Authenticate": 'Basic realm="lab"'})(exchange)
            return away(exchange) if "/blobs/" in exchange.request.path else exchange.honest()

        site.upstream.fault("GET", ".*", guarded)
        assert site.export("-a", _auth_file(site)).status == 0
        assert tripwire.asked
        assert not any(asked.authorized for asked in tripwire.asked)
    assert any(asked.authorized for asked in site.upstream.asked)


@pytest.mark.parametrize("fails", [RELATED_MANIFEST, RELATED_BLOB], ids=["planning", "fetching"])
def test_no_secret_is_ever_written_down(site: Site, fails: str) -> None:
    secrets = ["canary-password", "canary-token", "canary-refresh"]
    secrets.append(base64.b64encode(b"robot:canary-password").decode())

    guard = challenge(
        f'Bearer realm="http://{site.upstream.host}/token",service="lab"', "Bearer canary-token"
    )

    def guarded(exchange: Exchange) -> Response:
        response = guard(exchange)
        broken = response.status == 200 and re.fullmatch(fails, exchange.request.path)
        return answer(400)(exchange) if broken else response

    token = {"token": "canary-token", "refresh_token": "canary-refresh"}
    site.upstream.fault("GET", "/token", answer(200, {}, json.dumps(token).encode()))
    site.upstream.fault("GET", ".*", guarded)
    auth = _auth_file(site, password="canary-password")
    flags = ("-vv", "-a", auth, "--insecure", "--no-continue-on-error")
    ran = airgap_process(*site.exporting(*flags, catalog=_at(site)), folder=site.folder)
    assert ran.status == 5
    used = {asked.account for asked in site.upstream.asked}
    assert used >= {account_of("Bearer canary-token"), account_of(f"Basic {secrets[-1]}")}
    left = [path for path in site.folder.rglob("*") if path.is_file() and path != auth]
    assert {path.name for path in left} & {"olm.tar.state", "pins.jsonl"}
    everything = ran.text.encode() + b"".join(path.read_bytes() for path in left)
    assert [secret for secret in secrets if secret.encode() in everything] == []


def _at(site: Site) -> str:
    """The catalog by the upstream's own name, so that --insecure is about that host."""
    return f"{site.upstream.host}/{CATALOG}"


# Configuration files.


@pytest.mark.parametrize(
    ("flag", "content", "words"),
    [
        ("--registries-conf", "not [ toml", "not valid TOML"),
        ("--registries-conf", '[[registry]]\nprefix = "a/b:c@d"', "is not host[:port]"),
        ("--registries-conf", "[[registry]]\ninsecure = true", "neither prefix nor location"),
        ("-a", "not json", "not valid JSON"),
        ("-a", '{"auths": []}', "auths"),
        ("-a", '{"auths": {"quay.io": {"auth": "c2VjcmV0"}}}', "quay.io"),
        ("--certificate-authority", "no certificate", "PEM"),
    ],
)
def test_a_configuration_file_that_is_malformed_is_named(
    site: Site, flag: str, content: str, words: str
) -> None:
    path = site.folder / "configuration"
    path.write_text(content)
    ran = site.export(flag, path)
    assert_refused(ran, 2, str(path), words)
    assert "c2VjcmV0" not in ran.text and "secret" not in ran.text
    assert site.upstream.asked == []


@pytest.mark.parametrize("flag", ["--registries-conf", "-a", "--certificate-authority"])
def test_a_configuration_file_that_is_not_there_is_named(site: Site, flag: str) -> None:
    missing = site.folder / "nowhere"
    assert_refused(site.export(flag, missing), 2, str(missing))
    assert site.upstream.asked == []


def test_a_blocked_catalog_is_a_matter_of_configuration(site: Site) -> None:
    path = site.folder / "blocking.conf"
    path.write_text('[[registry]]\nprefix = "quay.io/lab"\nblocked = true\n')
    ran = site.export("--registries-conf", path)
    assert_refused(ran, 2, CATALOG, f"{path} blocks quay.io/lab", "Remove 'blocked = true'")


def test_a_blocked_related_image_is_a_hole(site: Site) -> None:
    conf = site.registries_conf
    conf.write_text(conf.read_text() + '[[registry]]\nprefix = "quay.io/test"\nblocked = true\n')
    ran = site.export("--output", "json")
    assert ran.status == 3
    assert {hole["reason"] for hole in ran.json["missing"]} == {"blocked"}
    assert len(ran.json["missing"]) == 5


# Archives.


def _tar(_: bytes, path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        tar.add(CATALOGS / "README.md", "oci-layout")


def _write(change: Callable[[bytes], bytes]) -> Callable[[bytes, Path], None]:
    return lambda whole, path: [path.write_bytes(change(whole))].clear()


def _flipped(whole: bytes, at: int) -> bytes:
    return whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]


_FIRST_LINE = INVENTORY_OFFSET + len(b'{"airgap":')

WRECKS: dict[str, tuple[Callable[[bytes, Path], None], int, str]] = {
    "missing": (lambda _, path: None, 2, "there is no such file"),
    "a-directory": (lambda _, path: path.mkdir(), 2, "no archive and no volume"),
    "empty": (_write(lambda _: b""), 4, "an empty file"),
    "text": (_write(lambda _: b"hello\n" * 999), 4, "not an airgap archive"),
    "zeros": (_write(lambda whole: bytes(len(whole))), 4, "not an airgap archive"),
    "another-tar": (_tar, 4, "not an airgap archive"),
    "first-byte": (_write(lambda whole: _flipped(whole, 0)), 4, "its first blocks are damaged"),
    "cut-in-the-head": (_write(lambda whole: whole[:1000]), 4, "cut short"),
    "cut-in-the-inventory": (
        _write(lambda whole: whole[: INVENTORY_OFFSET + 900]), 4, "the inventory is damaged",
    ),
    "cut-in-the-middle": (_write(lambda whole: whole[: len(whole) // 2]), 4, "blobs are lost"),
    "cut-at-the-end": (_write(lambda whole: whole[:-1]), 4, "cut short"),
    "too-long": (_write(lambda whole: whole + b"x"), 4, "too long"),
    "newer": (
        _write(lambda whole: whole[:_FIRST_LINE] + b"3" + whole[_FIRST_LINE + 1 :]),
        4,
        "archive format 3; this program reads 2",
    ),
    "inventory": (
        _write(lambda whole: _flipped(whole, INVENTORY_OFFSET + 30)), 4, "the inventory is damaged",
    ),
    "end": (_write(lambda whole: _flipped(whole, len(whole) - 9)), 4, "the end of the archive"),
}  # fmt: skip


@pytest.mark.parametrize("wreck", WRECKS)
def test_a_wrecked_archive_is_refused_before_the_first_request(exported: Site, wreck: str) -> None:
    make, status, words = WRECKS[wreck]
    path = exported.folder / "wreck"
    make(exported.archive.read_bytes(), path)
    assert_refused(exported.import_(archive=path), status, str(path), words)
    assert exported.destination.asked == []
    assert not exported.manifests.exists()
    for command in ("verify", "inspect"):
        ran = airgap(command, path)
        assert ran.status == status
        assert words in ran.text


def test_a_cut_archive_is_told_in_a_line_not_in_one_for_each_blob(exported: Site) -> None:
    whole = exported.archive.read_bytes()
    exported.archive.write_bytes(whole[: len(whole) // 2])
    ran = airgap("verify", exported.archive, "--output", "json")
    assert ran.status == 4
    found = [damage["message"] for damage in ran.json["damage"]]
    assert len(found) == 1
    assert f"cut short: {len(whole) // 2} bytes, must be {len(whole)}" in found[0]
    assert ran.json["damage"][0]["packages"]


def _blob_of_one_image(plan: Plan, reference: str) -> tuple[Image, int]:
    image = next(i for i in plan.images if i.reference == reference)
    others = {n for i in plan.images if i is not image for n in plan.blobs_of(i)}
    return image, next(n for n in plan.blobs_of(image) if n not in others)


def _damage_blob_of(archive: Path, reference: str) -> tuple[str, Digest]:
    """Flip a byte in a blob that one image alone needs; return its bytes before, and digest."""
    with ArchiveReader(archive) as reader:
        _, number = _blob_of_one_image(reader.plan, reference)
        place, digest = reader.layout.blob(number).content, reader.plan.blobs[number].digest
    archive.write_bytes(_flipped(archive.read_bytes(), place + 7))
    return reference, digest


def test_a_damaged_blob_costs_the_images_that_need_it_and_no_other(exported: Site) -> None:
    whole = exported.archive.read_bytes()
    name, digest = _damage_blob_of(exported.archive, "quay.io/test/etcd.0.9.2")
    ran = exported.import_()
    assert ran.status == 4
    assert "FAILED, so not at the destination (1):" in ran.out
    assert f"  {name}\n    damaged: " in ran.out
    assert str(digest) in ran.out
    assert "needed by etcdoperator.v0.9.2 (etcd)" in ran.out
    assert "copy it again" in ran.out
    images_there = exported.tags_at_destination()
    assert len(images_there) == len(exported.supply.lab.images)
    assert "test/etcd.0.9.2:latest" not in images_there
    assert exported.destination.count("PUT", r"/v2/test/etcd\.0\.9\.2/manifests/.*") == 0
    store = DirectoryStore(exported.folder / "destination", durable=False)
    assert store.blob("test/etcd.0.9.2", digest) is None

    exported.archive.write_bytes(whole)
    assert exported.import_().status == 0
    assert "test/etcd.0.9.2:latest" in exported.tags_at_destination()


def test_a_failed_image_is_in_no_file_for_the_cluster(exported: Site) -> None:
    name, _ = _damage_blob_of(exported.archive, "quay.io/test/etcd.0.9.2")
    assert exported.import_().status == 4
    lines = (exported.manifests / "mapping.txt").read_text().splitlines()
    (line,) = (line for line in lines if f"{name}:latest=" in line)
    assert line.startswith("#")
    receipt = json.loads((exported.manifests / "receipt.json").read_text())
    assert name not in {image["reference"] for image in receipt["images"]}
    assert [missing["reference"] for missing in receipt["missing"]] == [name]


def test_a_catalog_with_a_damaged_blob_is_not_offered(exported: Site) -> None:
    _damage_blob_of(exported.archive, CATALOG)
    assert exported.import_().status == 4
    assert "lab/catalog:v1" not in exported.tags_at_destination()
    assert not (exported.manifests / "catalogSource.yaml").exists()


def test_verify_first_reads_every_byte_before_the_first_request(exported: Site) -> None:
    _, digest = _damage_blob_of(exported.archive, "quay.io/test/etcd.0.9.2")
    ran = exported.import_("--verify-first")
    assert_refused(ran, 4, str(exported.archive), str(digest), "airgap verify")
    assert exported.destination.asked == []
    assert not exported.manifests.exists()


def test_verify_names_damage_with_the_images_and_packages_it_hurts(exported: Site) -> None:
    name, digest = _damage_blob_of(exported.archive, "quay.io/test/etcd.0.9.2")
    ran = airgap("verify", exported.archive, "--output", "json")
    assert ran.status == ran.json["exit_status"] == 4
    (damage,) = ran.json["damage"]
    assert str(digest) in damage["message"]
    assert (damage["images"], damage["packages"]) == ([name], ["etcd"])


def test_a_hole_in_the_catalog_ends_the_import_before_its_first_request(exported: Site) -> None:
    _, number = _blob_of_one_image(plan_of(exported.archive), CATALOG)
    with ArchiveReader(exported.archive) as reader:
        hole = reader.layout.blob(number).absent
    whole = bytearray(exported.archive.read_bytes())
    whole[hole.offset : hole.content] = hole.header
    whole[hole.content : hole.content + hole.size] = bytes(hole.size)
    exported.archive.write_bytes(whole)
    assert_refused(exported.import_(), 4, CATALOG, "is not whole", "Run the same export again")
    assert_refused(exported.import_("--dry-run"), 4, "is not whole")
    assert exported.destination.asked == []


# Destinations.


@pytest.mark.parametrize(
    "text", ["https://registry.example.com", "a/b:c", "UPPER/Case", "x:port", "", "a b"]
)
def test_a_destination_that_is_no_name_is_a_usage_error(exported: Site, text: str) -> None:
    assert_refused(airgap("import", exported.archive, text), 2, text)


@pytest.mark.parametrize("fault", [WEB_PAGE, answer(404), answer(302), answer(401)])
def test_a_destination_that_is_no_registry_is_refused(exported: Site, fault: Fault) -> None:
    exported.destination.fault(".*", ".*", fault)
    host = exported.destination.host
    assert_refused(exported.import_(), 5, f"{host} is not a registry", "Check the host")
    assert exported.destination.count("POST|PUT|PATCH") == 0


def test_a_destination_that_is_down_is_out_of_reach(exported: Site) -> None:
    exported.destination.stop()
    assert_refused(exported.import_(), 5, exported.destination.host, "Connection refused")
    assert not exported.manifests.exists()


def test_a_destination_that_takes_no_pushes_is_told_so_once(exported: Site) -> None:
    store = DirectoryStore(exported.folder / "read-only", durable=False)
    with RegistryServer(store, read_only=True) as server:
        into = ("--insecure", "--to-manifests", exported.manifests)
        ran = airgap("import", exported.archive, server.host, *into)
    assert ran.status == 5
    assert ran.err.count("The registry is read-only") == 1
    assert not (exported.manifests / "imageContentSourcePolicy.yaml").exists()


@pytest.mark.parametrize(
    "fault", [answer(403), answer(400), answer(413)], ids=["403", "400", "413"]
)
def test_one_repository_that_refuses_costs_its_image_alone(exported: Site, fault: Fault) -> None:
    exported.destination.fault("POST|PATCH|PUT", r"/v2/test/etcd\.0\.9\.2/.*", fault)
    ran = exported.import_("--output", "json")
    assert ran.status == 5
    (failed,) = ran.json["failed"]
    assert failed["reference"] == "quay.io/test/etcd.0.9.2"
    assert failed["packages"] == ["etcd"]
    assert ran.json["arrived"] == len(exported.supply.lab.images)


def _take_the_tag(site: Site) -> Digest:
    other = images.image([images.layer({"other": b"image"})])
    store = DirectoryStore(site.folder / "destination", durable=False)
    put(store, "test/etcd.0.9.2", other, "latest")
    return other.digest


def _tagged(site: Site) -> Digest:
    store = DirectoryStore(site.folder / "destination", durable=False)
    found = store.manifest("test/etcd.0.9.2", "latest")
    assert found is not None
    return found[0].digest


def test_a_tag_that_is_set_to_something_else_is_not_moved(exported: Site) -> None:
    other = _take_the_tag(exported)
    ran = exported.import_()
    assert ran.status == 5
    assert f"test/etcd.0.9.2:latest: is at {other}, to be set to sha256:" in ran.out
    assert "Say --force-tags to move it." in ran.out
    assert _tagged(exported) == other


def test_a_tag_is_moved_when_told_to(exported: Site) -> None:
    other = _take_the_tag(exported)
    assert exported.import_("--force-tags").status == 0
    assert _tagged(exported) != other


def test_manifests_that_the_destination_rewrites_are_never_tagged(exported: Site) -> None:
    exported.destination.fault("GET", r"/v2/test/etcd\.0\.9\.2/manifests/.*", flip(at=30))
    ran = exported.import_()
    assert ran.status == 5
    assert "sent, and now it is not there unchanged" in ran.out
    assert "alters manifests" in ran.out
    assert "test/etcd.0.9.2:latest" not in exported.tags_at_destination()
    assert len(exported.tags_at_destination()) == len(exported.supply.lab.images)


def test_without_going_on_the_first_failure_ends_the_import(exported: Site) -> None:
    exported.destination.fault("POST|PATCH|PUT", ".*", answer(403))
    ran = exported.import_("--no-continue-on-error")
    assert_refused(ran, 5, "answers 403", "Check the credential")
    assert not exported.manifests.exists()


# Storage.


@pytest.fixture(scope="module")
def larger_supply(tmp_path_factory: pytest.TempPathFactory) -> Supply:
    """Blobs of some megabytes, so that planning needs less room than they do."""
    return Supply.make(tmp_path_factory.mktemp("larger"), Recipe(layer_bytes=48 << 10))


@pytest.fixture
def larger(tmp_path: Path, larger_supply: Supply) -> Iterator[Site]:
    with open_site(tmp_path, larger_supply) as site:
        yield site


def test_a_disk_without_room_for_all_is_told_before_the_first_blob(
    larger: Site, mount: Mounter
) -> None:
    site, disk = larger, mount("tmpfs", "size=2m")
    archive = disk / "olm.tar"
    ran = site.export(archive=archive)
    free = r"No space left on device: [\d,]+ bytes more are needed, [\d,]+ are free"
    assert re.search(f"{partial_path(archive)}: {free}", ran.err)
    assert_refused(ran, 6, "Free some space, then run the same command again.")
    of_the_catalog = site.upstream.count("GET", "/v2/quay.io/lab/catalog/blobs/.*")
    assert site.upstream.count("GET", ".*/blobs/.*") == of_the_catalog
    assert not archive.exists()
    remount(disk, "size=8m")
    assert site.export("-q", archive=archive).status == 0
    assert airgap("verify", archive).status == 0


def test_what_is_begun_goes_on_where_there_is_room(larger: Site, mount: Mounter) -> None:
    site, archive = larger, mount("tmpfs", "size=2m") / "olm.tar"
    assert "Or move olm.tar.partial to a larger medium" in site.export(archive=archive).err
    shutil.move(partial_path(archive), partial_path(site.archive))
    site.upstream.asked.clear()
    assert site.export("-q").status == 0
    assert airgap("verify", site.archive).status == 0
    assert site.upstream.count("GET", ".*/manifests/.*") == 1


def test_a_disk_that_something_else_fills_is_told_and_the_run_continues(
    site: Site, whole_archive: bytes, mount: Mounter
) -> None:
    disk = mount("tmpfs", "size=900k")
    ballast = disk / "ballast"

    def fill(exchange: Exchange) -> Response:
        with suppress(OSError), ballast.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        return exchange.honest()

    archive = disk / "olm.tar"
    site.upstream.fault("GET", RELATED_BLOB, fill, hits=range(20, 100))
    ran = site.export(archive=archive)
    assert_refused(ran, 6, str(archive), "No space left", "then run the same command again")
    assert not archive.exists()
    site.upstream.heal()
    ballast.unlink()
    assert site.export("-q", archive=archive).status == 0
    assert archive.read_bytes() == whole_archive


def test_a_disk_that_is_full_from_the_start_is_told(site: Site, mount: Mounter) -> None:
    disk = mount("tmpfs", "size=32k")
    assert_refused(site.export(archive=disk / "olm.tar"), 6, "No space left")


def test_a_read_only_disk_is_told(site: Site, mount: Mounter) -> None:
    disk = mount("tmpfs", "size=32k")
    remount(disk, "ro")
    ran = site.export(archive=disk / "olm.tar")
    assert_refused(ran, 6, str(disk), "Read-only file system", "The medium is read-only.")


def test_a_file_system_that_takes_no_larger_file_is_told(site: Site, whole_archive: bytes) -> None:
    blocks = len(whole_archive) // 512 - 8
    typed = [sys.executable, "-m", "airgap", *map(str, site.exporting("-q"))]
    limited = ["sh", "-c", f'ulimit -f {blocks}; exec "$@"', "sh", *typed]
    done = subprocess.run(limited, capture_output=True, text=True, timeout=60, check=False)
    assert_refused(Ran(done.returncode, done.stdout, done.stderr), 6, "File too large", "exFAT")


@pytest.mark.parametrize("parent", ["nowhere", "registries.conf"])
def test_an_output_whose_directory_is_none_is_a_usage_error(site: Site, parent: str) -> None:
    output = site.folder / parent / "olm.tar"
    ran = site.export(archive=output)
    assert_refused(ran, 2, f"{output}: there is no directory {output.parent}")
    assert site.upstream.asked == []


def test_an_output_that_is_some_other_file_is_left_alone(site: Site) -> None:
    site.archive.write_text("my thesis")
    assert_refused(site.export(), 4, str(site.archive), "not an airgap archive")
    assert site.archive.read_text() == "my thesis"
    assert not state_path(site.archive).exists()
    assert not work_path(site.archive).exists()


def test_an_unreadable_unfinished_archive_is_refused_by_name(site: Site) -> None:
    partial_path(site.archive).write_bytes(b"junk" * 999)
    assert_refused(site.export(), 4, str(partial_path(site.archive)), "not an airgap archive")


def test_a_manifests_directory_that_is_none_is_refused_before_the_first_request(
    exported: Site,
) -> None:
    exported.manifests.write_text("a file is in the way")
    assert_refused(exported.import_(), 2, f"{exported.manifests} is not a directory")
    assert exported.destination.asked == []


def test_a_manifests_directory_that_cannot_be_made_is_told(exported: Site) -> None:
    (exported.folder / "file").write_text("a file is in the way")
    below = exported.folder / "file" / "manifests"
    assert_refused(exported.import_("--to-manifests", below), 6, str(below), "Not a directory")
