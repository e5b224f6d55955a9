"""A directory, or an archive, served for as long as a block lasts."""

from __future__ import annotations

import http.client
import itertools
import os
import shutil
import signal
import subprocess
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from airgap.archive.medium import VolumeOptions
from airgap.archive.reader import ArchiveReader
from airgap.digest import digest_of
from airgap.errors import ArchiveError, UsageError
from airgap.importer import plan_import
from airgap.reference import ImageReference
from airgap.reshaper import split
from airgap.serving import is_archive_asked, serve_archive, serve_directory
from tests.support.command import airgap, start_airgap
from tests.support.http import certificate
from tests.support.http_client import ask
from tests.support.lab import CATALOG, Recipe
from tests.support.plans import archive_of, some_content
from tests.support.site import Supply, open_site

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from subprocess import Popen

    from airgap.digest import Digest
    from airgap.serving import ServedArchive
    from tests.support.lab import LabImage

needs_skopeo = pytest.mark.skipif(shutil.which("skopeo") is None, reason="no skopeo here")

CONTENT = os.urandom(3_000_000)
DIGEST = digest_of(CONTENT)


def test_what_was_pushed_is_served_after_a_restart(tmp_path: Path) -> None:
    lines: list[str] = []
    with serve_directory(tmp_path / "content", log=lines.append) as server:
        path = f"/v2/a/b/blobs/uploads/?digest={DIGEST}"
        assert ask(server.host, "POST", path, CONTENT).status == 201
    with serve_directory(tmp_path / "content", read_only=True) as server:
        assert ask(server.host, "GET", f"/v2/a/b/blobs/{DIGEST}").body == CONTENT
        assert ask(server.host, "POST", "/v2/a/b/blobs/uploads/").status == 405
    assert lines == ["127.0.0.1 POST /v2/a/b/blobs/uploads/ 201"]


def test_serves_no_directory_with_other_content(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(UsageError), serve_directory(tmp_path):
        pass


def test_makes_no_directory_to_read_from(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such directory"):
        serve_directory(tmp_path / "new", read_only=True).__enter__()
    assert not (tmp_path / "new").exists()


# Archives.


@dataclass(frozen=True)
class Carried:
    """An archive in three volumes, and the laboratory that it came from."""

    supply: Supply
    whole: Path
    volumes: tuple[Path, ...]


@pytest.fixture(scope="module")
def carried(tmp_path_factory: pytest.TempPathFactory) -> Carried:
    folder = tmp_path_factory.mktemp("carried")
    supply = Supply.make(folder / "supply", Recipe(layer_bytes=100_000, huge_layer=1 << 20))
    with open_site(folder, supply) as site:
        assert site.export().status == 0
    with ArchiveReader(site.archive) as reader:
        limit = reader.size // 3 + reader.layout.smallest_limit // 2
    (folder / "disks").mkdir()
    split(site.archive, VolumeOptions(limit), output=folder / "disks" / "olm.tar")
    volumes = tuple(sorted((folder / "disks").iterdir()))
    assert len(volumes) == 3
    return Carried(supply, site.archive, volumes)


@contextmanager
def serving(paths: Sequence[Path], **options: Any) -> Iterator[ServedArchive]:
    with serve_archive(paths, say=print, **options) as served:
        yield served


def skopeo(*arguments: object) -> subprocess.CompletedProcess[bytes]:
    command = ["skopeo", "--insecure-policy", *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, timeout=60)


def copied(source: str, to: Path, *flags: object) -> set[Digest]:
    """Copy an image with all of its platforms to a directory; return what has arrived."""
    ran = skopeo("copy", "--all", "--preserve-digests", *flags, f"docker://{source}", f"dir:{to}")
    assert ran.returncode == 0, ran.stderr.decode()
    return {digest_of(path.read_bytes()) for path in to.iterdir() if path.name != "version"}


def content_of(image: LabImage) -> set[Digest]:
    return {*image.manifests, *image.blobs}


@needs_skopeo
def test_skopeo_copies_every_image_out_of_three_volumes(carried: Carried, tmp_path: Path) -> None:
    first, second, third = carried.volumes
    images = [carried.supply.lab.catalog_image, *carried.supply.lab.images.values()]
    with serving([third, first, second]) as served:
        for number, image in enumerate(images):
            name = f"{served.address}/{image.reference}"
            found = copied(name, tmp_path / str(number), "--src-tls-verify=false")
            assert found == content_of(image)


@needs_skopeo
def test_podmans_library_is_led_here_by_what_is_printed(carried: Carried, tmp_path: Path) -> None:
    image = next(i for i in carried.supply.lab.images.values() if len(i.manifests) > 1)
    with serving(carried.volumes) as served:
        (tmp_path / "registries.conf").write_text(served.registries_conf)
        found = copied(
            image.reference, tmp_path / "image", "--registries-conf", tmp_path / "registries.conf"
        )
    assert found == content_of(image)


@needs_skopeo
def test_skopeo_copies_images_as_an_import_names_them(carried: Carried, tmp_path: Path) -> None:
    with serving(carried.volumes) as served:
        planned = plan_import(carried.whole, served.address)
        assert len(planned.mapping) == 12
        for number, line in enumerate(planned.mapping):
            source, _, there = line.partition("=")
            image = next(i for i in _images(carried) if exact(i.reference) == source)
            found = copied(there, tmp_path / str(number), "--src-tls-verify=false")
            assert found == content_of(image)
    assert served.catalogs == (f"{served.address}/{CATALOG}", f"{served.address}/lab/catalog:v1")


def exact(reference: str) -> str:
    return ImageReference.parse(reference).with_defaults().exact


def _images(carried: Carried) -> list[LabImage]:
    return [carried.supply.lab.catalog_image, *carried.supply.lab.images.values()]


def test_an_export_from_it_is_the_same_archive(carried: Carried, tmp_path: Path) -> None:
    with serving(carried.volumes) as served:
        (tmp_path / "registries.conf").write_text(served.registries_conf)
        through = ("--registries-conf", tmp_path / "registries.conf")
        ran = airgap("export", CATALOG, "-o", tmp_path / "again.tar", *through)
    assert ran.status == 0
    assert (tmp_path / "again.tar").read_bytes() == carried.whole.read_bytes()


@needs_skopeo
def test_is_served_over_tls(carried: Carried, tmp_path: Path) -> None:
    _, cert = certificate(tmp_path)
    (tmp_path / "trusted").mkdir()
    shutil.copy(cert, tmp_path / "trusted" / "ca.crt")
    image = carried.supply.lab.catalog_image
    with serving(carried.volumes, certificate=cert, key=tmp_path / "key.pem") as served:
        trusted = ("--src-cert-dir", tmp_path / "trusted")
        name = f"{served.address}/{CATALOG}"
        assert copied(name, tmp_path / "image", *trusted) == content_of(image)
        assert skopeo("inspect", "--raw", f"docker://{name}").returncode != 0
        assert served.url.startswith("https://")
        assert "insecure" not in served.registries_conf


def test_a_pull_goes_on_after_the_server_was_killed(carried: Carried, tmp_path: Path) -> None:
    digest, size = max(carried.supply.lab.content.items(), key=lambda each: each[1])
    (image,) = [i for i in _images(carried) if digest in i.blobs]
    path = f"/v2/{image.repository}/blobs/{digest}"
    with process_serving(*carried.volumes, "--port", 0, folder=tmp_path) as (process, told):
        host = host_of(told)
        begun = _begin_and_kill(process, host, path)
    assert 0 < len(begun) < size
    port = host.rpartition(":")[2]
    with process_serving(*carried.volumes, "--port", port, folder=tmp_path) as (process, told):
        assert host_of(told) == host
        rest = ask(host, "GET", path, headers={"Range": f"bytes={len(begun)}-"})
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert rest.status == 206
    assert digest_of(begun + rest.body) == digest
    assert process.returncode == 0


def host_of(told: Sequence[str]) -> str:
    return told[0].split()[-1].removeprefix("http://")


@contextmanager
def process_serving(*typed: object, folder: Path) -> Iterator[tuple[Popen[str], list[str]]]:
    """Start ``airgap serve``; yield the process, and the lines before the first empty one."""
    unbuffered = {"PYTHONUNBUFFERED": "1"}
    with start_airgap("serve", *typed, folder=folder, environ=unbuffered) as process:
        try:
            assert process.stdout is not None
            yield process, list(itertools.takewhile(str.strip, process.stdout))
        finally:
            process.kill()


def _begin_and_kill(process: Popen[str], host: str, path: str) -> bytes:
    """Read a part of a blob, then kill the server; return what has come."""
    with closing(http.client.HTTPConnection(host, timeout=10)) as connection:
        connection.request("GET", path)
        with connection.getresponse() as response:
            begun = response.read(300_000)
            process.kill()
            process.communicate(timeout=30)
            return begun


def test_nothing_is_taken(carried: Carried) -> None:
    with serving([carried.whole]) as served:
        uploads = f"/v2/{CATALOG.removesuffix(':v1')}/blobs/uploads/"
        manifest = f"/v2/{CATALOG.removesuffix(':v1')}/manifests/v2"
        for method, path in (("POST", uploads), ("PUT", manifest), ("DELETE", manifest)):
            answer = ask(served.address, method, path, b"")
            assert (answer.status, answer.codes) == (405, ["UNSUPPORTED"])


def test_what_is_not_here_is_said_at_start_and_when_asked_for(
    carried: Carried, tmp_path: Path
) -> None:
    served = process_serving(*carried.volumes[:2], "--port", 0, folder=tmp_path)
    with served as (process, told):
        absent = [line.split()[3].rstrip(":") for line in told if "NOT WHOLE" in line]
        reference = ImageReference.parse(absent[0]).with_defaults()
        name, wanted = reference.repository, reference.digest or reference.tag
        answer = ask(host_of(told), "GET", f"/v2/{name}/manifests/{wanted}")
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
    assert "# NOT HERE: volumes 3 (of 3)\n" in told
    assert f"# {12 - len(absent)} images" in "".join(told)
    assert (answer.status, answer.codes) == (404, ["MANIFEST_UNKNOWN"])
    assert f"not given: {name} {wanted}: blob sha256:" in err
    assert "is in volume 3, which is not here" in err


def test_a_damaged_blob_is_cut_off(carried: Carried, tmp_path: Path) -> None:
    damaged = tmp_path / "olm.tar"
    shutil.copy(carried.whole, damaged)
    with ArchiveReader(damaged) as reader:
        number = max(range(len(reader.plan.blobs)), key=lambda n: reader.plan.blobs[n].size)
        blob, (place,) = reader.plan.blobs[number], reader.layout.pieces(number)
    with damaged.open("r+b") as file:
        file.seek(place.content)
        file.write(b"damage")
    (image,) = [i for i in _images(carried) if blob.digest in i.blobs]
    said: list[str] = []
    with serve_archive([damaged], say=said.append) as served:
        path = f"/v2/{image.repository}/blobs/{blob.digest}"
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            ask(served.address, "GET", path)
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            ask(served.address, "GET", path, headers={"Range": f"bytes={blob.size - 9}-"})
        assert ask(served.address, "HEAD", path).status == 200
    assert len(said) == 2
    assert all(f"cut off: blob {blob.digest}" in line for line in said)


def test_an_archive_with_a_damaged_head_is_not_served(carried: Carried, tmp_path: Path) -> None:
    damaged = tmp_path / "olm.tar"
    raw = bytearray(carried.whole.read_bytes())
    raw[raw.index(b"index.json\0") + 1000] ^= 1
    damaged.write_bytes(raw)
    with pytest.raises(ArchiveError, match="damaged"), serving([damaged]):
        pass


def test_a_name_that_two_images_want_costs_the_mapping_only(tmp_path: Path) -> None:
    content = some_content()
    for host in ("quay.io", "docker.io"):
        content.images[f"{host}/a/b:v1"] = content.manifest(b"{}", host.encode())
    archive_of(tmp_path / "a.tar", content)
    with serving([tmp_path / "a.tar"]) as served:
        for host in ("quay.io", "docker.io"):
            assert ask(served.address, "GET", f"/v2/{host}/a/b/manifests/v1").status == 200
        assert ask(served.address, "GET", "/v2/a/b/manifests/v1").status == 404
    assert "names of the sources only" in served.notes[0]


def test_knows_an_archive_from_a_directory_of_registry_content(
    carried: Carried, tmp_path: Path
) -> None:
    with serve_directory(tmp_path / "content"):
        pass
    assert is_archive_asked([carried.whole])
    assert is_archive_asked([carried.whole.parent / "disks"])
    assert is_archive_asked(carried.volumes)
    assert is_archive_asked([tmp_path / "not-there.tar"])
    assert not is_archive_asked([tmp_path / "content"])
    assert not is_archive_asked([tmp_path / "new"])
    assert not is_archive_asked([tmp_path])


def test_flags_for_archives_are_refused_for_a_directory(tmp_path: Path) -> None:
    ran = airgap("serve", tmp_path / "new", "--name", "bastion")
    assert ran.status == 2
    assert "--name is for an archive" in ran.err
    assert airgap("serve", tmp_path / "not-there.tar").status == 2


def test_a_damaged_manifest_is_refused(tmp_path: Path) -> None:
    content = some_content()
    archive_of(tmp_path / "a.tar", content)
    manifest = content.images["quay.io/lab/image-0:v1"]
    path = f"/v2/quay.io/lab/image-0/manifests/{manifest.digest}"
    said: list[str] = []
    with serve_archive([tmp_path / "a.tar"], say=said.append) as served:
        assert ask(served.address, "GET", path).status == 200
        raw = content.by_digest[manifest.digest]
        (tmp_path / "a.tar").write_bytes(
            (tmp_path / "a.tar").read_bytes().replace(raw, raw.replace(b"{", b"[", 1))
        )
        answer = ask(served.address, "GET", path)
    assert (answer.status, answer.codes) == (500, ["UNKNOWN"])
    assert "is damaged" in said[0]
