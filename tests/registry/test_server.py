"""The embedded registry, seen from outside: what the distribution specification promises."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from airgap import limits
from airgap.digest import Digest, digest_of
from airgap.errors import StorageError
from airgap.oci import media_types
from airgap.registry.directory import DirectoryStore
from airgap.registry.server import RegistryServer
from tests.support import images
from tests.support.http_client import Answer, ask
from tests.support.upstream import RegistryUpstream, put

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airgap.oci.model import Descriptor
    from tests.support.images import Image

SKOPEO = shutil.which("skopeo")
needs_skopeo = pytest.mark.skipif(SKOPEO is None, reason="skopeo is not installed")

ABSENT = Digest("sha256", "0" * 64)
LAYER = images.layer({"etc/": b"", "etc/motd": b"hello\n"})
IMAGE = images.image([LAYER], labels={"a": "b"})
CONTENT = bytes(range(256)) * 10


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "content", durable=False)


@pytest.fixture
def server(store: DirectoryStore) -> Iterator[RegistryServer]:
    with RegistryServer(store) as running:
        yield running


def upload(server: RegistryServer, repository: str, content: bytes) -> Digest:
    digest = digest_of(content)
    path = f"/v2/{repository}/blobs/uploads/?digest={digest}"
    assert ask(server.host, "POST", path, content).status == 201
    return digest


def begin(server: RegistryServer, repository: str = "a/b") -> str:
    answer = ask(server.host, "POST", f"/v2/{repository}/blobs/uploads/")
    assert answer.status == 202
    return answer.headers["Location"]


def put_raw(server: RegistryServer, raw: bytes, content_type: str, reference: str = "v1") -> Answer:
    headers = {"Content-Type": content_type} if content_type else {}
    return ask(server.host, "PUT", f"/v2/a/b/manifests/{reference}", raw, headers)


def test_says_that_it_is_a_registry(server: RegistryServer) -> None:
    answer = ask(server.host, "GET", "/v2/")
    assert (answer.status, answer.json) == (200, {})
    assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"


class TestPulling:
    def test_gives_a_manifest_by_tag_and_by_digest(
        self, server: RegistryServer, store: DirectoryStore
    ) -> None:
        put(store, "a/b", IMAGE, "v1")
        for reference in ("v1", str(IMAGE.digest)):
            answer = ask(server.host, "GET", f"/v2/a/b/manifests/{reference}")
            assert (answer.status, answer.body) == (200, IMAGE.raw)
            assert answer.headers["Content-Type"] == media_types.OCI_MANIFEST
            assert answer.headers["Docker-Content-Digest"] == str(IMAGE.digest)

    def test_tells_size_and_digest_without_content(
        self, server: RegistryServer, store: DirectoryStore
    ) -> None:
        put(store, "a/b", IMAGE, "v1")
        for path, size in (
            ("manifests/v1", len(IMAGE.raw)),
            (f"blobs/{LAYER.blob.digest}", LAYER.blob.size),
        ):
            answer = ask(server.host, "HEAD", f"/v2/a/b/{path}", headers={"Range": "bytes=0-1"})
            assert (answer.status, answer.body) == (200, b"")
            assert answer.headers["Content-Length"] == str(size)

    def test_takes_escaped_colons_in_a_path(self, server: RegistryServer) -> None:
        digest = str(upload(server, "a/b", CONTENT)).replace(":", "%3A")
        assert ask(server.host, "GET", f"/v2/a/b/blobs/{digest}").body == CONTENT

    @pytest.mark.parametrize(
        ("wanted", "expected"),
        [
            ("bytes=0-0", slice(0, 1)),
            ("bytes=5-9", slice(5, 10)),
            ("bytes=2559-", slice(2559, None)),
            ("bytes=100-99999", slice(100, None)),
            ("bytes=-10", slice(-10, None)),
            ("bytes=-99999", slice(0, None)),
            ("bytes=0-2559", slice(0, None)),
        ],
    )
    def test_gives_the_range_asked_for(
        self, server: RegistryServer, wanted: str, expected: slice
    ) -> None:
        digest = upload(server, "a/b", CONTENT)
        answer = ask(server.host, "GET", f"/v2/a/b/blobs/{digest}", headers={"Range": wanted})
        assert (answer.status, answer.body) == (206, CONTENT[expected])
        first, last, _ = expected.indices(len(CONTENT))
        assert answer.headers["Content-Range"] == f"bytes {first}-{last - 1}/2560"

    @pytest.mark.parametrize("wanted", ["bytes=2560-", "bytes=9999-10000", "bytes=-0"])
    def test_refuses_a_range_beyond_the_end(self, server: RegistryServer, wanted: str) -> None:
        digest = upload(server, "a/b", CONTENT)
        answer = ask(server.host, "GET", f"/v2/a/b/blobs/{digest}", headers={"Range": wanted})
        assert answer.status == 416
        assert answer.headers["Content-Range"] == "bytes */2560"
        assert answer.headers["Content-Length"] == str(len(answer.body))

    @pytest.mark.parametrize(
        "wanted", ["bytes=5-2", "bytes=a-b", "bytes=-", "bytes=0-1,3-4", "lines=0-1"]
    )
    def test_ignores_what_is_not_one_range(self, server: RegistryServer, wanted: str) -> None:
        digest = upload(server, "a/b", CONTENT)
        answer = ask(server.host, "GET", f"/v2/a/b/blobs/{digest}", headers={"Range": wanted})
        assert (answer.status, answer.body) == (200, CONTENT)

    def test_gives_a_range_only_of_what_the_client_has_begun(self, server: RegistryServer) -> None:
        digest = upload(server, "a/b", CONTENT)
        for condition, status in ((f'"{digest}"', 206), ('"another"', 200)):
            headers = {"Range": "bytes=5-", "If-Range": condition}
            answer = ask(server.host, "GET", f"/v2/a/b/blobs/{digest}", headers=headers)
            assert answer.status == status

    def test_gives_an_empty_blob(self, server: RegistryServer) -> None:
        digest = upload(server, "a/b", b"")
        answer = ask(server.host, "GET", f"/v2/a/b/blobs/{digest}")
        assert (answer.status, answer.body) == (200, b"")

    @pytest.mark.parametrize(
        ("path", "status", "code"),
        [
            ("a/b/manifests/v2", 404, "MANIFEST_UNKNOWN"),
            (f"a/b/manifests/{ABSENT}", 404, "MANIFEST_UNKNOWN"),
            (f"a/b/blobs/{ABSENT}", 404, "BLOB_UNKNOWN"),
            (f"a/other/blobs/{LAYER.blob.digest}", 404, "BLOB_UNKNOWN"),
            (f"a/other/manifests/{IMAGE.digest}", 404, "MANIFEST_UNKNOWN"),
            (f"a/b/blobs/{IMAGE.digest}", 404, "BLOB_UNKNOWN"),
            (f"a/b/manifests/{LAYER.blob.digest}", 404, "MANIFEST_UNKNOWN"),
            ("a/other/tags/list", 404, "NAME_UNKNOWN"),
            ("a/b/blobs/sha256:abc", 400, "DIGEST_INVALID"),
            ("a/b/manifests/sha256:abc", 400, "DIGEST_INVALID"),
            ("a/b/manifests/-v1", 400, "TAG_INVALID"),
            (f"a/b/manifests/{'v' * 129}", 400, "TAG_INVALID"),
            ("A/b/manifests/v1", 400, "NAME_INVALID"),
            ("a//b/manifests/v1", 400, "NAME_INVALID"),
            ("a/../b/manifests/v1", 400, "NAME_INVALID"),
            ("%2e%2e/manifests/v1", 400, "NAME_INVALID"),
            ("a/_tags/manifests/v1", 400, "NAME_INVALID"),
            ("a/b:v1/manifests/v1", 400, "NAME_INVALID"),
            ("a%00b/manifests/v1", 400, "NAME_INVALID"),
            (f"{'a' * 300}/manifests/v1", 400, "NAME_INVALID"),
            ("a/b/nothing", 404, "UNSUPPORTED"),
        ],
    )
    def test_refuses_in_the_specifications_form(
        self, server: RegistryServer, store: DirectoryStore, path: str, status: int, code: str
    ) -> None:
        put(store, "a/b", IMAGE, "v1")
        answer = ask(server.host, "GET", f"/v2/{path}")
        assert (answer.status, answer.codes) == (status, [code])
        assert answer.headers["Content-Type"] == "application/json"

    def test_reports_a_store_that_fails(self, server: RegistryServer, tmp_path: Path) -> None:
        digest = upload(server, "a/b", CONTENT)
        link = tmp_path / f"content/repositories/a/b/_blobs/sha256-{digest.hex}"
        link.unlink()
        link.symlink_to(link)
        answer = ask(server.host, "GET", f"/v2/a/b/blobs/{digest}")
        assert (answer.status, answer.codes) == (500, ["UNKNOWN"])


class TestTags:
    TAGS = ("v10", "V2", "v1", "latest", "v2")

    @pytest.fixture(autouse=True)
    def tagged(self, store: DirectoryStore) -> None:
        for tag in self.TAGS:
            put(store, "a/b", IMAGE, tag)

    def test_lists_tags_in_order_without_regard_to_case(self, server: RegistryServer) -> None:
        answer = ask(server.host, "GET", "/v2/a/b/tags/list")
        assert answer.json == {"name": "a/b", "tags": ["latest", "v1", "v10", "V2", "v2"]}
        assert "Link" not in answer.headers

    @pytest.mark.parametrize("size", [1, 2, 3, 5, 9])
    def test_pages_lead_to_all_tags(self, server: RegistryServer, size: int) -> None:
        path, found = f"/v2/a/b/tags/list?n={size}", []
        while path:
            answer = ask(server.host, "GET", path)
            assert len(answer.json["tags"]) <= size
            found += answer.json["tags"]
            link = answer.headers.get("Link", "")
            assert not link or link.endswith('>; rel="next"')
            path = link[1:].partition(">")[0]
        assert found == ["latest", "v1", "v10", "V2", "v2"]

    def test_begins_after_a_tag_that_need_not_be_there(self, server: RegistryServer) -> None:
        answer = ask(server.host, "GET", "/v2/a/b/tags/list?last=v0")
        assert answer.json["tags"] == ["v1", "v10", "V2", "v2"]

    def test_an_empty_page_has_no_next_one(self, server: RegistryServer) -> None:
        answer = ask(server.host, "GET", "/v2/a/b/tags/list?n=0")
        assert answer.json["tags"] == []
        assert "Link" not in answer.headers

    @pytest.mark.parametrize("size", ["-1", "x", "1.5", "", "%C2%B2"])
    def test_refuses_a_page_size_that_is_no_number(self, server: RegistryServer, size: str) -> None:
        assert ask(server.host, "GET", f"/v2/a/b/tags/list?n={size}").status == 400

    def test_deletes_a_tag_and_keeps_what_it_pointed_to(self, server: RegistryServer) -> None:
        assert ask(server.host, "DELETE", "/v2/a/b/manifests/V2").status == 202
        assert ask(server.host, "GET", "/v2/a/b/manifests/V2").status == 404
        assert ask(server.host, "GET", "/v2/a/b/manifests/v2").status == 200
        assert ask(server.host, "DELETE", "/v2/a/b/manifests/V2").status == 404

    def test_deletes_a_manifest_with_its_tags(self, server: RegistryServer) -> None:
        assert ask(server.host, "DELETE", f"/v2/a/b/manifests/{IMAGE.digest}").status == 202
        assert ask(server.host, "GET", f"/v2/a/b/manifests/{IMAGE.digest}").status == 404
        assert ask(server.host, "GET", "/v2/a/b/tags/list").json["tags"] == []


class TestUploads:
    def test_takes_a_blob_by_post_and_put(self, server: RegistryServer) -> None:
        location = begin(server)
        digest = digest_of(CONTENT)
        answer = ask(server.host, "PUT", f"{location}?digest={digest}", CONTENT)
        assert answer.status == 201
        assert answer.headers["Location"] == f"/v2/a/b/blobs/{digest}"
        assert ask(server.host, "GET", answer.headers["Location"]).body == CONTENT

    @pytest.mark.parametrize("chunked", [True, False])
    def test_takes_a_blob_in_chunks(self, server: RegistryServer, chunked: bool) -> None:
        location = begin(server)
        for first, last in ((0, 999), (1000, 1999)):
            piece = CONTENT[first : last + 1]
            body = iter([piece[:300], piece[300:]]) if chunked else piece
            headers = {} if chunked else {"Content-Range": f"{first}-{last}"}
            answer = ask(server.host, "PATCH", location, body, headers)
            assert (answer.status, answer.headers["Range"]) == (202, f"0-{last}")
            location = answer.headers["Location"]
        status = ask(server.host, "GET", location)
        assert (status.status, status.headers["Range"]) == (204, "0-1999")
        digest = digest_of(CONTENT)
        last_piece = ask(server.host, "PUT", f"{location}?digest={digest}", CONTENT[2000:])
        assert last_piece.status == 201
        assert ask(server.host, "GET", f"/v2/a/b/blobs/{digest}").body == CONTENT

    @pytest.mark.parametrize(
        ("said", "status"), [("5-7", 416), ("0-1", 400), ("1-x", 400), ("bytes 0-2", 202)]
    )
    def test_takes_only_the_chunk_that_comes_next(
        self, server: RegistryServer, said: str, status: int
    ) -> None:
        location = begin(server)
        answer = ask(server.host, "PATCH", location, b"abc", {"Content-Range": said})
        assert answer.status == status

    @pytest.mark.parametrize("path", ["/v2/a/b/blobs/uploads/", None])
    def test_refuses_content_that_is_not_what_its_digest_says(
        self, server: RegistryServer, store: DirectoryStore, path: str | None
    ) -> None:
        method = "POST" if path else "PUT"
        answer = ask(server.host, method, f"{path or begin(server)}?digest={ABSENT}", CONTENT)
        assert (answer.status, answer.codes) == (400, ["DIGEST_INVALID"])
        assert ask(server.host, "GET", f"/v2/a/b/blobs/{ABSENT}").status == 404
        assert not list(store.root.joinpath("uploads").iterdir())

    def test_takes_content_addressed_by_sha512(self, server: RegistryServer) -> None:
        digest = Digest("sha512", hashlib.sha512(CONTENT).hexdigest())
        assert ask(server.host, "PUT", f"{begin(server)}?digest={digest}", CONTENT).status == 201
        assert ask(server.host, "GET", f"/v2/a/b/blobs/{digest}").body == CONTENT
        wrong = Digest("sha512", "0" * 128)
        assert ask(server.host, "PUT", f"{begin(server)}?digest={wrong}", CONTENT).status == 400

    @pytest.mark.parametrize("digest", ["", "sha256:x", "md5:abc"])
    def test_refuses_to_finish_without_a_digest(self, server: RegistryServer, digest: str) -> None:
        answer = ask(server.host, "PUT", f"{begin(server)}?digest={digest}", CONTENT)
        assert (answer.status, answer.codes) == (400, ["DIGEST_INVALID"])

    @pytest.mark.parametrize("method", ["GET", "PATCH", "PUT", "DELETE"])
    def test_knows_no_session_that_has_ended_or_is_anothers(
        self, server: RegistryServer, method: str
    ) -> None:
        location = begin(server)
        assert ask(server.host, "DELETE", begin(server)).status == 204
        ended = begin(server)
        assert ask(server.host, "DELETE", ended).status == 204
        foreign = location.replace("/a/b/", "/c/d/")
        for path in (ended, foreign, "/v2/a/b/blobs/uploads/x"):
            answer = ask(server.host, method, f"{path}?digest={ABSENT}")
            assert answer.status == 404
            assert not answer.body or answer.codes == ["BLOB_UPLOAD_UNKNOWN"]

    def test_lets_one_request_at_a_time_write(self, server: RegistryServer) -> None:
        location = begin(server)

        def pieces() -> Iterator[bytes]:
            yield b"abc"
            # Out of order, so that it is refused, in another way, where this one has not begun.
            further = {"Content-Range": "90-92"}
            while (answer := ask(server.host, "PATCH", location, b"xyz", further)).status == 416:
                time.sleep(0.01)
            statuses.append(answer.status)
            yield b"def"

        statuses: list[int] = []
        assert ask(server.host, "PATCH", location, pieces()).headers["Range"] == "0-5"
        assert statuses == [409]

    def test_mounts_a_blob_of_another_repository(self, server: RegistryServer) -> None:
        digest = upload(server, "a/b", CONTENT)
        path = f"/v2/c/d/blobs/uploads/?mount={digest}&from=a/b"
        answer = ask(server.host, "POST", path)
        assert (answer.status, answer.headers["Docker-Content-Digest"]) == (201, str(digest))
        assert ask(server.host, "GET", f"/v2/c/d/blobs/{digest}").body == CONTENT

    def test_opens_a_session_when_there_is_nothing_to_mount(self, server: RegistryServer) -> None:
        for query in (f"mount={ABSENT}&from=a/b", f"mount={ABSENT}"):
            answer = ask(server.host, "POST", f"/v2/c/d/blobs/uploads/?{query}")
            assert answer.status == 202
            assert answer.headers["Location"].startswith("/v2/c/d/blobs/uploads/")

    @pytest.mark.parametrize("query", [f"mount={ABSENT}&from=../b", "mount=x&from=a/b"])
    def test_refuses_a_mount_from_nowhere(self, server: RegistryServer, query: str) -> None:
        assert ask(server.host, "POST", f"/v2/c/d/blobs/uploads/?{query}").status == 400

    def test_forgets_unfinished_uploads_when_it_stops(self, store: DirectoryStore) -> None:
        with RegistryServer(store) as server:
            ask(server.host, "PATCH", begin(server), b"abc")
            assert list(store.root.joinpath("uploads").iterdir())
        assert not list(store.root.joinpath("uploads").iterdir())

    def test_forgets_an_upload_that_nobody_continues(
        self, server: RegistryServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        old = begin(server)
        monkeypatch.setattr("airgap.registry.server_push._SESSION_LIFE", -1.0)
        begin(server)
        assert ask(server.host, "GET", old).status == 404

    def test_reports_a_disk_that_takes_no_more(
        self, server: RegistryServer, store: DirectoryStore
    ) -> None:
        shutil.rmtree(store.root / "uploads")
        answer = ask(server.host, "POST", "/v2/a/b/blobs/uploads/")
        assert (answer.status, answer.codes) == (507, ["UNKNOWN"])


class TestManifests:
    def test_takes_an_image_by_tag_and_by_digest(self, server: RegistryServer) -> None:
        for blob in IMAGE.blobs:
            upload(server, "a/b", blob.read())
        for reference in ("v1", str(IMAGE.digest)):
            answer = put_raw(server, IMAGE.raw, media_types.OCI_MANIFEST, reference)
            assert answer.status == 201
            assert answer.headers["Docker-Content-Digest"] == str(IMAGE.digest)
            assert answer.headers["Location"] == f"/v2/a/b/manifests/{IMAGE.digest}"

    def test_lets_a_tag_move(self, server: RegistryServer, store: DirectoryStore) -> None:
        other = images.image([LAYER], labels={"other": "image"})
        put(store, "a/b", IMAGE, "v1")
        put(store, "a/b", other)
        assert put_raw(server, other.raw, media_types.OCI_MANIFEST).status == 201
        assert ask(server.host, "GET", "/v2/a/b/manifests/v1").body == other.raw

    @pytest.mark.parametrize("missing", [blob.digest for blob in IMAGE.blobs])
    def test_refuses_an_image_whose_blob_is_missing(
        self, server: RegistryServer, missing: Digest
    ) -> None:
        for blob in IMAGE.blobs:
            upload(server, "a/other" if blob.digest == missing else "a/b", blob.read())
        answer = put_raw(server, IMAGE.raw, media_types.OCI_MANIFEST)
        assert (answer.status, answer.codes) == (400, ["MANIFEST_BLOB_UNKNOWN"])
        assert str(missing) in answer.json["errors"][0]["message"]

    def test_refuses_an_index_whose_child_is_missing(
        self, server: RegistryServer, store: DirectoryStore
    ) -> None:
        index = images.index([IMAGE])
        put(store, "a/other", IMAGE)
        answer = put_raw(server, index.raw, media_types.OCI_INDEX)
        assert (answer.status, answer.codes) == (400, ["MANIFEST_BLOB_UNKNOWN"])

    def test_refuses_a_descriptor_with_another_size(
        self, server: RegistryServer, store: DirectoryStore
    ) -> None:
        put(store, "a/b", IMAGE)
        document = json.loads(IMAGE.raw)
        document["layers"][0]["size"] += 1
        answer = put_raw(server, json.dumps(document).encode(), media_types.OCI_MANIFEST)
        assert (answer.status, answer.codes) == (400, ["MANIFEST_INVALID"])

    def test_takes_layers_that_registries_do_not_hold(
        self, server: RegistryServer, store: DirectoryStore
    ) -> None:
        put(store, "a/b", IMAGE)
        document = json.loads(IMAGE.raw)
        kind = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
        document["layers"] = [{"mediaType": kind, "digest": str(ABSENT), "size": 1}]
        raw = json.dumps(document).encode()
        assert put_raw(server, raw, media_types.OCI_MANIFEST).status == 201

    @pytest.mark.parametrize(
        ("raw", "content_type", "reference", "code"),
        [
            (IMAGE.raw, media_types.DOCKER_MANIFEST, "v1", "MANIFEST_INVALID"),
            (IMAGE.raw, "application/json", "v1", "MANIFEST_INVALID"),
            (IMAGE.raw, media_types.OCI_MANIFEST, str(ABSENT), "DIGEST_INVALID"),
            (IMAGE.raw, media_types.OCI_MANIFEST, "sha256:", "DIGEST_INVALID"),
            (IMAGE.raw, media_types.OCI_MANIFEST, ".v1", "TAG_INVALID"),
            (b"", media_types.OCI_MANIFEST, "v1", "MANIFEST_INVALID"),
            (b"{}", media_types.OCI_MANIFEST, "v1", "MANIFEST_INVALID"),
            (b"not json", media_types.OCI_MANIFEST, "v1", "MANIFEST_INVALID"),
        ],
    )
    def test_refuses_what_is_not_what_it_is_called(
        self,
        server: RegistryServer,
        store: DirectoryStore,
        raw: bytes,
        content_type: str,
        reference: str,
        code: str,
    ) -> None:
        put(store, "a/b", IMAGE)
        answer = put_raw(server, raw, content_type, reference)
        assert (answer.status, answer.codes) == (400, [code])

    def test_takes_the_type_that_the_content_names_when_nobody_says_it(
        self, server: RegistryServer, store: DirectoryStore
    ) -> None:
        put(store, "a/b", IMAGE)
        assert put_raw(server, IMAGE.raw, "").status == 201
        head = ask(server.host, "HEAD", "/v2/a/b/manifests/v1")
        assert head.headers["Content-Type"] == media_types.OCI_MANIFEST

    def test_refuses_an_overlarge_manifest(self, server: RegistryServer) -> None:
        raw = b" " * (limits.MANIFEST + 1)
        answer = put_raw(server, raw, media_types.OCI_MANIFEST)
        assert (answer.status, answer.codes) == (413, ["SIZE_INVALID"])


class ReadOnly:
    """A store that has one manifest and nothing else, and takes nothing."""

    def manifest(self, repository: str, reference: Digest | str) -> tuple[Descriptor, bytes] | None:
        if repository != "a/b":
            return None
        if repository == "a/b" and reference == "broken":
            raise StorageError("the medium has gone")
        return IMAGE.descriptor, IMAGE.raw

    def blob(self, repository: str, digest: Digest) -> None:
        return None

    def tags(self, repository: str) -> list[str] | None:
        return ["v1"]


WRITES = [
    ("POST", "/v2/a/b/blobs/uploads/"),
    ("PATCH", "/v2/a/b/blobs/uploads/x"),
    ("PUT", "/v2/a/b/manifests/v1"),
    ("DELETE", "/v2/a/b/manifests/v1"),
]


@pytest.mark.parametrize(("method", "path"), WRITES)
def test_refuses_writes_when_the_store_takes_nothing(method: str, path: str) -> None:
    with RegistryServer(ReadOnly()) as server:
        answer = ask(server.host, method, path, b"x" * 100_000)
        assert (answer.status, answer.codes) == (405, ["UNSUPPORTED"])
        assert ask(server.host, "GET", "/v2/a/b/manifests/v1").body == IMAGE.raw


@pytest.mark.parametrize(("method", "path"), WRITES)
def test_refuses_writes_when_told_to(store: DirectoryStore, method: str, path: str) -> None:
    with RegistryServer(store, read_only=True) as server:
        assert ask(server.host, method, path, b"x").status == 405


def test_tells_what_the_store_complains_of() -> None:
    with RegistryServer(ReadOnly()) as server:
        answer = ask(server.host, "GET", "/v2/a/b/manifests/broken")
        assert (answer.status, answer.codes) == (500, ["UNKNOWN"])
        assert "the medium has gone" in answer.json["errors"][0]["message"]


def an_index(**options: Any) -> Image:
    one = images.image([LAYER], platform=images.AMD64, **options)
    two = images.image([LAYER, images.layer({"x": b"y"})], platform=images.ARM64, **options)
    return images.index([one, two], **options)


@needs_skopeo
@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_skopeo_copies_from_it_and_to_it(
    server: RegistryServer, store: DirectoryStore, tmp_path: Path, kind: str
) -> None:
    index = an_index(kind=kind)
    with RegistryUpstream(server.host) as upstream:
        upstream.push("quay.io/a/b", index, "v1")
    local = f"dir:{tmp_path / 'copy'}"
    skopeo("--src-tls-verify=false", f"docker://{server.host}/quay.io/a/b:v1", local)
    assert (tmp_path / "copy/manifest.json").read_bytes() == index.raw
    # Where skopeo cannot mount, it uploads.
    shutil.rmtree(store.root / "repositories/quay.io")
    skopeo("--dest-tls-verify=false", local, f"docker://{server.host}/c/d:v1")
    assert ask(server.host, "GET", "/v2/c/d/manifests/v1").body == index.raw
    for child in index.children:
        assert ask(server.host, "GET", f"/v2/c/d/manifests/{child.digest}").body == child.raw


def skopeo(option: str, source: str, destination: str) -> None:
    assert SKOPEO is not None
    command = [SKOPEO, "copy", "--all", option, source, destination]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
