from __future__ import annotations

import json
import re
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from airgap import limits
from airgap.arrival import Arrival
from airgap.digest import Digest, digest_of, verified
from airgap.errors import (
    AccessDenied,
    IntegrityError,
    Interrupted,
    NotFound,
    RegistryError,
    Unreachable,
    UsageError,
)
from airgap.oci import media_types
from airgap.reference import ImageReference, Repository
from airgap.registry.client import FetchedManifest, RegistryClient
from airgap.registry.credentials import Credential, Credentials
from airgap.registry.transport import Transport
from tests.support.docker_registry import docker_registry, needs_docker_registry
from tests.support.http import Asked, Reply, json_reply
from tests.support.scripted import (
    BLOB,
    DIGEST,
    OCI,
    SIZE,
    World,
    error,
    pieces_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

RAW = b'{"schemaVersion": 2}'


def manifest(raw: bytes = RAW, media_type: str = OCI) -> Reply:
    return Reply(200, {"Content-Type": media_type}, raw)


def ranged(asked: Asked) -> Reply:
    """Answer a range request as it should be."""
    match = re.fullmatch(r"bytes=(\d+)-", asked.headers["Range"] or "")
    if match is None:
        return Reply(200, {"ETag": '"e"'}, BLOB)
    start = int(match[1])
    headers = {"Content-Range": f"bytes {start}-{SIZE - 1}/{SIZE}", "ETag": '"e"'}
    return Reply(206, headers, BLOB[start:])


def cut(count: int, reset: bool = False) -> Callable[[Asked], Reply]:
    """Answer correctly, and break off after ``count`` bytes of the body."""

    def script(asked: Asked) -> Reply:
        whole = ranged(asked)
        return replace(whole, body=whole.body[:count], length=len(whole.body), reset=reset)

    return script


# Manifests


def test_a_manifest_is_the_bytes_that_arrive(world: World) -> None:
    world.answer(manifest())
    fetched = world.client().manifest(world.reference())
    assert fetched == FetchedManifest(RAW, OCI, digest_of(RAW))
    asked = world.server.asked[-1]
    assert asked.path == "/v2/ns/repo/manifests/1"
    assert asked.headers["Accept"] == ", ".join(media_types.ACCEPTED)


def test_a_reference_with_a_digest_is_asked_for_by_it(world: World) -> None:
    world.answer(manifest())
    digest = digest_of(RAW)
    assert world.client().manifest(world.reference(f":1@{digest}")).digest == digest
    assert world.server.asked[-1].path == f"/v2/ns/repo/manifests/{digest}"


def test_a_wrong_digest_header_is_not_believed(world: World) -> None:  # N31
    headers = {"Content-Type": OCI, "Docker-Content-Digest": str(DIGEST)}
    world.answer(Reply(200, headers, RAW))
    assert world.client().manifest(world.reference()).digest == digest_of(RAW)


def test_a_tag_whose_bytes_are_not_what_the_registry_says_is_asked_again(world: World) -> None:
    headers = {"Content-Type": OCI, "Docker-Content-Digest": str(digest_of(RAW))}
    world.answer(Reply(200, headers, RAW.replace(b"2", b"3")), Reply(200, headers, RAW))
    assert world.client().manifest(world.reference()).raw == RAW


def test_refuses_a_tag_whose_bytes_are_never_the_same(world: World) -> None:
    headers = {"Content-Type": OCI, "Docker-Content-Digest": str(digest_of(RAW))}
    world.answer(*(Reply(200, headers, b"{%d}" % number) for number in range(9)))
    with pytest.raises(IntegrityError, match=r"the registry calls it sha256:.*given up after 6"):
        world.client().manifest(world.reference())


def test_refuses_other_bytes_than_the_digest(world: World) -> None:
    world.answer(manifest(b"{}"))
    with pytest.raises(IntegrityError, match=str(digest_of(b"{}"))):
        world.client().manifest(world.reference(f"@{digest_of(RAW)}"))
    assert len(world.asked("GET")) == 3  # one for TLS, and a second opinion


def test_wrong_bytes_that_were_an_accident_are_fetched_again(world: World) -> None:
    world.answer(manifest(b"{}"), manifest())
    assert world.client().manifest(world.reference(f"@{digest_of(RAW)}")).raw == RAW


def test_sha512_is_checked_by_sha512(world: World) -> None:
    import hashlib

    world.answer(manifest())
    digest = Digest("sha512", hashlib.sha512(RAW).hexdigest())
    assert world.client().manifest(world.reference(f"@{digest}")).digest == digest


@pytest.mark.parametrize("length", [None, -1])
def test_refuses_a_manifest_without_end(world: World, length: int | None) -> None:  # B10
    world.answer(Reply(200, {"Content-Type": OCI}, b" " * (limits.MANIFEST + 1), length))
    with pytest.raises(RegistryError, match="longer than"):
        world.client().manifest(world.reference())


def test_recognises_the_page_of_a_proxy(world: World) -> None:  # N13
    world.answer(manifest(b"<html>login", "text/html; charset=utf-8"))
    with pytest.raises(RegistryError, match="a web page instead of a manifest"):
        world.client().manifest(world.reference())


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (f"{OCI}; charset=utf-8", OCI),
        ("application/json", ""),
        ("text/plain; charset=utf-8", ""),
        ("application/vnd.example", "application/vnd.example"),
    ],
)
def test_a_type_that_says_nothing_counts_as_none(world: World, said: str, expected: str) -> None:
    world.answer(manifest(media_type=said))
    assert world.client().manifest(world.reference()).media_type == expected


@pytest.mark.parametrize(
    ("reply", "kind", "text"),
    [
        (error(404, "MANIFEST_UNKNOWN"), NotFound, "404 MANIFEST_UNKNOWN: text"),
        (error(403, "DENIED"), AccessDenied, "403 DENIED: text"),
        (error(403, "DENIED", "\x1b[31mred"), AccessDenied, r"\\x1b\[31mred"),
        (Reply(418, {}, b"\xff plain"), RegistryError, "418: \ufffd plain"),
        (Reply(404, {}, b'{"errors": 1}'), NotFound, "404$"),
        (Reply(404, {}, b"[" * 100_000), NotFound, "404"),
        (Reply(403, {"Content-Type": "text/html"}, b"<p>"), AccessDenied, "a web page"),
    ],
)
def test_a_refusal_says_what_the_registry_said(
    world: World, reply: Reply, kind: type[RegistryError], text: str
) -> None:  # N09, N10, N39, B25
    world.answer(reply)
    with pytest.raises(kind, match=text) as caught:
        world.client().manifest(world.reference())
    assert caught.value.status == reply.status
    assert world.host in caught.value.message
    assert len(world.asked("GET")) == 2


@pytest.mark.parametrize("status", [408, 425, 429, 499, 502, 503, 504, 520, 524])
def test_a_temporary_refusal_is_asked_again(world: World, status: int) -> None:  # N12
    page = Reply(status, {"Content-Type": "text/html"}, b"<html>")
    world.answer(page, page, manifest())
    assert world.client().manifest(world.reference()).raw == RAW
    assert len(world.clock.slept) == 2


def test_a_denial_that_means_too_many_requests_is_asked_again(world: World) -> None:  # N11
    world.answer(error(403, "TOOMANYREQUESTS", **{"Retry-After": "9"}), manifest())
    assert world.client().manifest(world.reference()).raw == RAW
    assert world.clock.slept == [9]


def test_gives_up_on_a_registry_that_stays_down(world: World) -> None:
    world.answer(Reply(503))
    with pytest.raises(Unreachable, match=r"answers 503 \(given up after 6 attempts"):
        world.client().manifest(world.reference())


def test_a_manifest_that_breaks_off_is_fetched_again(world: World) -> None:
    world.answer(replace(manifest(), length=100), manifest())
    assert world.client().manifest(world.reference()).raw == RAW


# Blobs: N14 - N24


def test_gives_a_blob_from_an_offset(world: World) -> None:
    world.answer(ranged)
    assert world.blob() == BLOB
    assert world.blob(1000) == BLOB[1000:]
    assert world.ranges[0] is None
    assert world.ranges[-1] == "bytes=1000-"


def test_asks_for_nothing_at_the_end(world: World) -> None:
    assert world.blob(SIZE) == b""
    assert world.server.asked == []


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("count", [0, 1, 511, 512, 513, SIZE - 1])
def test_goes_on_where_a_blob_broke_off(world: World, count: int, reset: bool) -> None:
    world.answer(cut(count, reset), ranged)
    assert world.blob() == BLOB
    assert len(world.ranges) == 2


def test_a_resumed_range_is_tied_to_the_entity(world: World) -> None:
    world.answer(cut(5000), ranged)
    assert world.blob() == BLOB
    assert world.server.asked[-1].headers["If-Range"] == '"e"'


def test_a_blob_without_a_length_that_ends_early_goes_on(world: World) -> None:  # N15
    world.answer(Reply(200, {}, BLOB[:777], length=-1), ranged)
    assert world.blob() == BLOB
    assert world.ranges == [None, "bytes=777-"]


@pytest.mark.parametrize("length", [-1, None])
def test_refuses_a_blob_longer_than_promised(world: World, length: int | None) -> None:
    world.answer(Reply(200, {}, BLOB + b"x", length))  # N16, N17
    with pytest.raises(IntegrityError):
        world.blob()


def test_refuses_another_length_before_reading(world: World) -> None:
    world.answer(Reply(200, {"Content-Type": "text/html"}, b"<html>login"))  # N13
    with pytest.raises(IntegrityError, match="11 bytes instead of the promised 256000; it is a"):
        world.blob()
    assert len(world.ranges) == 2


def test_skips_what_it_has_when_a_range_is_ignored(world: World) -> None:  # N19
    world.answer(cut(1234), Reply(200, {}, BLOB))
    assert world.blob() == BLOB


@pytest.mark.parametrize(
    "content_range",
    [
        f"bytes 999-{SIZE - 1}/{SIZE}",
        f"bytes 1001-{SIZE - 1}/{SIZE}",
        f"bytes 1000-{SIZE}/{SIZE + 1}",
        f"bytes 1000-{SIZE - 1}/{SIZE + 1}",
        "bytes 1000-999/*",
        f"bytes 1000-{SIZE - 1}",
        f"octets 1000-{SIZE - 1}/{SIZE}",
        "",
    ],
)
def test_starts_over_after_a_wrong_range(world: World, content_range: str) -> None:  # N20
    wrong = Reply(206, {"Content-Range": content_range}, BLOB[1000:])
    world.answer(wrong, ranged)
    assert world.blob(1000) == BLOB[1000:]
    assert world.ranges == ["bytes=1000-", None]


def test_a_shorter_range_than_asked_for_is_used(world: World) -> None:
    some = Reply(206, {"Content-Range": f"bytes 1000-1999/{SIZE}"}, BLOB[1000:2000])
    world.answer(some, ranged)
    assert world.blob(1000) == BLOB[1000:]
    assert world.ranges == ["bytes=1000-", "bytes=2000-"]


def test_starts_over_after_416_without_reading_it(world: World) -> None:  # N21
    world.answer(Reply(416, {}, b"lie", length=SIZE), ranged)
    assert world.blob(1000) == BLOB[1000:]
    assert world.ranges == ["bytes=1000-", None]


def test_a_blob_that_never_gets_further_is_given_up(world: World) -> None:
    world.answer(cut(10))
    with pytest.raises(Unreachable, match="given up after 6 attempts"):
        world.blob()


def test_a_closed_blob_leaves_no_connection_behind(world: World) -> None:
    large = b"x" * (4 * limits.MIB)
    world.answer(Reply(200, {}, large))
    pieces = world.client().blob(world.repository, digest_of(large), len(large))
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]  # a generator, so that it can be closed


def test_an_expired_signature_is_renewed_at_the_registry(world: World) -> None:  # N23, N24
    replies: list[Callable[[Asked], Reply]] = [cut(5000), lambda _: Reply(403), ranged]
    cdn = world.serve(lambda asked: replies.pop(0)(asked))
    world.answer(lambda _: Reply(307, {"Location": f"http://{cdn.host}/b?sig=canary"}))
    assert b"".join(world.client("", cdn).blob(world.repository, DIGEST, SIZE)) == BLOB
    assert len(world.ranges) == len(cdn.asked) == 3
    assert all(asked.authorization is None for asked in cdn.asked)


def test_a_storage_that_always_refuses_is_no_endless_loop(world: World) -> None:
    cdn = world.serve(lambda _: Reply(403))
    world.answer(lambda _: Reply(307, {"Location": f"http://{cdn.host}/b?sig=canary"}))
    with pytest.raises(Unreachable, match="answers 403") as caught:
        b"".join(world.client("", cdn).blob(world.repository, DIGEST, SIZE))
    assert len(cdn.asked) == 3
    assert "canary" not in caught.value.message


def test_a_challenge_after_a_redirect_gets_nothing(world: World) -> None:  # N26
    challenge = {"WWW-Authenticate": 'Basic realm="give me"'}
    cdn = world.serve(lambda _: Reply(401, challenge))
    world.answer(lambda _: Reply(307, {"Location": f"http://{cdn.host}/b"}))
    known = {world.host: Credential("f", "u", "p"), cdn.host: Credential("f", "u", "p")}
    with pytest.raises(Unreachable):
        b"".join(world.client("", cdn, **known).blob(world.repository, DIGEST, SIZE))
    assert {asked.authorization for asked in cdn.asked} == {None}


def test_stopping_ends_a_download(world: World) -> None:
    world.answer(cut(10))
    world.clock.stopped = True
    with pytest.raises(Interrupted):
        world.blob()


# registries.conf


def test_mirrors_are_tried_before_the_location(world: World) -> None:
    mirror = world.serve(lambda asked: Reply(404) if "repo" in asked.path else manifest())
    world.answer(manifest())
    conf = f'[[registry]]\nlocation="{world.host}"\n[[registry.mirror]]\nlocation="{mirror.host}/m"'
    client = world.client(conf, mirror)
    assert client.manifest(world.reference()).raw == RAW
    assert "GET /v2/m/ns/repo/manifests/1" in mirror.paths
    assert "GET /v2/ns/repo/manifests/1" in world.server.paths


def test_a_mirror_gets_its_own_credential_only(world: World) -> None:
    challenge = {"WWW-Authenticate": 'Basic realm="r"'}
    mirror = world.serve(lambda asked: manifest() if asked.authorization else Reply(401, challenge))
    conf = f'[[registry]]\nlocation="{world.host}"\n[[registry.mirror]]\nlocation="{mirror.host}"'
    known = {
        world.host: Credential("f", "u", "location"),
        mirror.host: Credential("f", "u", "mirror"),
    }
    world.client(conf, mirror, **known).manifest(world.reference())
    assert mirror.asked[-1].authorization == known[mirror.host].basic()
    assert world.server.asked == []


def test_a_blob_goes_on_at_the_location_when_the_mirror_fails(world: World) -> None:
    replies: list[Callable[[Asked], Reply]] = [cut(5000), lambda _: Reply(404)]
    mirror = world.serve(
        lambda asked: Reply(200) if asked.path == "/v2/" else replies.pop(0)(asked)
    )
    world.answer(ranged)
    conf = f'[[registry]]\nlocation="{world.host}"\n[[registry.mirror]]\nlocation="{mirror.host}"'
    pieces = world.client(conf, mirror).blob(world.repository, DIGEST, SIZE)
    assert b"".join(pieces) == BLOB
    assert world.ranges == ["bytes=5000-"]


def test_who_is_not_content_with_a_mirror_is_given_the_blob_by_the_location(world: World) -> None:
    damaged = bytes(SIZE)
    mirror = world.serve(lambda _: Reply(200, {}, damaged))
    world.answer(ranged)
    conf = f'[[registry]]\nlocation="{world.host}"\n[[registry.mirror]]\nlocation="{mirror.host}"'
    client = world.client(conf, mirror)
    given = [b"".join(client.blob(world.repository, DIGEST, SIZE)) for _ in range(3)]
    assert given == [damaged, BLOB, damaged], "each in its turn"
    assert len(world.ranges) == 1


def test_insecure_in_registries_conf_is_enough(world: World) -> None:
    mirror = world.serve(lambda _: manifest())
    conf = (
        f'[[registry]]\nlocation="{world.host}"\n'
        f'[[registry.mirror]]\nlocation="{mirror.host}"\ninsecure=true'
    )
    assert world.client(conf).manifest(world.reference()).raw == RAW


def test_a_blocked_registry_is_not_asked(world: World) -> None:
    conf = f'[[registry]]\nlocation="{world.host}"\nblocked=true'
    with pytest.raises(UsageError, match="blocks"):
        world.client(conf).manifest(world.reference())
    assert world.server.asked == []


def test_a_destination_is_the_place_it_names(world: World) -> None:
    world.answer(manifest())
    conf = f'[[registry]]\nlocation="{world.host}"\nblocked=true'
    assert world.client(conf).read_manifest(world.repository, "1").raw == RAW


# Destinations


def test_tells_a_blobs_length(world: World) -> None:
    world.answer(Reply(200, {}, b"", length=0), Reply(404), Reply(200, {}, b"x" * 7))
    client = world.client()
    assert client.blob_length(world.repository, DIGEST) == 0
    assert client.blob_length(world.repository, DIGEST) is None
    assert client.blob_length(world.repository, DIGEST) == 7


def test_puts_a_manifest_as_it_is(world: World) -> None:
    world.answer(Reply(201))
    world.client().put_manifest(world.repository, "1", RAW, OCI)
    asked = world.server.asked[-1]
    assert (asked.method, asked.path) == ("PUT", "/v2/ns/repo/manifests/1")
    assert (asked.body, asked.headers["Content-Type"]) == (RAW, OCI)


@pytest.mark.parametrize(
    ("reply", "is_rule"),
    [
        (Reply(405), True),
        (Reply(501), True),
        (error(400, "UNSUPPORTED"), True),
        (error(400, "TAG_INVALID"), True),
        (error(400, "MANIFEST_INVALID"), False),
        (error(403, "DENIED"), False),
        (error(404, "NAME_UNKNOWN"), False),
        (error(500, "UNKNOWN"), False),
        (Reply(201), False),
    ],
)
def test_tells_a_rule_against_digests_from_other_refusals(
    world: World, reply: Reply, is_rule: bool
) -> None:
    world.answer(reply)
    refusal = world.client().refusal_of_digests(world.repository, OCI)
    assert (refusal is not None) == is_rule
    assert [asked.body for asked in world.asked("PUT")] == [b"{}"]


def test_a_digest_is_read_from_the_header_or_from_the_content(world: World) -> None:
    def script(asked: Asked) -> Reply:
        said = "" if asked.path.endswith("2") else str(DIGEST)
        return Reply(200, {"Content-Type": OCI, "Docker-Content-Digest": said}, RAW)

    world.answer(script)
    client = world.client()
    assert client.manifest_digest(world.repository, "1") == DIGEST
    assert client.manifest_digest(world.repository, "2") == digest_of(RAW)
    world.answer(Reply(404))
    assert client.manifest_digest(world.repository, "3") is None


def test_a_manifest_that_is_damaged_is_not_there_under_its_digest(world: World) -> None:
    world.answer(manifest(b"damaged"))
    client = world.client()
    assert client.manifest_digest(world.repository, str(digest_of(RAW))) is None
    assert client.manifest_digest(world.repository, "1") == digest_of(b"damaged")


# Lists of tags: N32


def page(tags: list[str] | None, link: str = "") -> Reply:
    reply = json_reply({"name": "ns/repo", "tags": tags})
    return replace(reply, headers={**reply.headers, **({"Link": link} if link else {})})


def test_lists_every_page_of_tags(world: World) -> None:
    world.answer(
        page(["a", "b"], '</v2/ns/repo/tags/list?last=b>; rel="next"'),
        page(["c"], "<?last=c>; rel=next"),
        page(None),
    )
    assert world.client().tags(world.repository) == ["a", "b", "c"]


def test_lists_the_tags_of_a_source_at_its_location_and_not_at_a_mirror(world: World) -> None:
    home = world.serve(lambda _: page(["v1", "v2"]))
    mirror = world.serve(lambda _: page(["v1"]))
    conf = (
        f'[[registry]]\nprefix="{world.host}"\nlocation="{home.host}/moved"\ninsecure=true\n'
        f'[[registry.mirror]]\nlocation="{mirror.host}"'
    )
    assert world.client(conf, mirror, home).tags(world.repository) == ["v1", "v2"]
    assert home.paths[-1] == "GET /v2/moved/ns/repo/tags/list?n=1000"
    assert mirror.asked == []


def test_lists_the_tags_of_a_mirror_where_the_location_has_none(world: World) -> None:
    world.answer(Reply(404))
    mirror = world.serve(lambda _: page(["v1"]))
    conf = f'[[registry]]\nlocation="{world.host}"\n[[registry.mirror]]\nlocation="{mirror.host}"'
    assert world.client(conf, mirror).tags(world.repository) == ["v1"]


def test_a_page_that_is_its_own_successor_ends_the_list(world: World) -> None:
    world.answer(page(["a"], '</v2/ns/repo/tags/list?last=a>; rel="next"'))
    assert world.client().tags(world.repository) == ["a", "a"]


def test_the_next_page_is_not_fetched_from_another_host(world: World) -> None:
    elsewhere = world.serve(lambda _: page(["evil"]))
    world.answer(page(["a"], f'<http://{elsewhere.host}/x>; rel="next"'))
    with pytest.raises(RegistryError, match="another host"):
        world.client("", elsewhere).tags(world.repository)
    assert elsewhere.asked == []


@pytest.mark.parametrize(
    "forged",
    [
        "",
        "\x1b[31mred",
        "x\nquay.io/evil/y:1=registry.example.com/ok:1",
        f"v1@{DIGEST}",
        "v2?x=1",
        "../../z",
        "v1\n",
        "v" * 129,
    ],
)
def test_what_can_be_no_tag_is_left_out_with_a_warning(
    world: World, forged: str, caplog: pytest.LogCaptureFixture
) -> None:
    world.answer(page(["v1", forged, "v2"]))
    assert world.client().tags(world.repository) == ["v1", "v2"]
    (record,) = caplog.records
    assert str(world.repository) in record.getMessage()
    assert record.getMessage().isprintable()


@pytest.mark.parametrize("document", [[], {"tags": "a"}, {"tags": [1]}])
def test_refuses_what_is_no_list_of_tags(world: World, document: object) -> None:
    world.answer(json_reply(document))
    with pytest.raises(RegistryError):
        world.client().tags(world.repository)


# Is it a registry?

API = {"Docker-Distribution-Api-Version": "registry/2.0"}


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, {}, b"{}"),
        Reply(200, {**API, "Content-Type": "text/html"}, b"true"),
        Reply(401, {"WWW-Authenticate": "Basic"}),
    ],
)
def test_recognises_a_registry(world: World, reply: Reply) -> None:
    world.answer(reply)
    world.client().check(world.host)


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (Reply(200, {"Content-Type": "text/html"}, b"<html>"), "200 with a web page"),
        (Reply(404), "404"),
        (Reply(302, {}), "302"),
        (Reply(401), "401"),
    ],
)
def test_recognises_what_is_no_registry(world: World, reply: Reply, text: str) -> None:
    world.answer(reply)
    with pytest.raises(RegistryError, match=f"is not a registry: .* with {text}"):
        world.client().check(world.host)


# A real registry


@pytest.fixture
def real(tmp_path: Path) -> Iterator[tuple[str, RegistryClient]]:
    with docker_registry(tmp_path / "registry") as host:
        transport = Transport(environ={}, insecure=frozenset({host}))
        with RegistryClient(transport, Credentials(), writes=True) as client:
            yield host, client


def image(client: RegistryClient, repository: Repository) -> bytes:
    config = b"{}"
    for content in (config, BLOB):
        client.upload(repository, digest_of(content), len(content), pieces_of(content))
    descriptors = [
        {"mediaType": kind, "digest": str(digest_of(content)), "size": len(content)}
        for kind, content in (
            ("application/vnd.oci.image.config.v1+json", config),
            ("application/vnd.oci.image.layer.v1.tar", BLOB),
        )
    ]
    document = {
        "schemaVersion": 2,
        "mediaType": OCI,
        "config": descriptors[0],
        "layers": descriptors[1:],
    }
    return json.dumps(document).encode()


@needs_docker_registry
def test_a_real_registry_gives_back_what_it_was_given(real: tuple[str, RegistryClient]) -> None:
    host, client = real
    client.check(host)
    repository = Repository(host, "a/b")
    assert client.blob_length(repository, DIGEST) is None
    assert client.manifest_digest(repository, "1") is None
    raw = image(client, repository)
    client.put_manifest(repository, str(digest_of(raw)), raw, OCI)
    client.put_manifest(repository, "1", raw, OCI)
    assert client.blob_length(repository, DIGEST) == SIZE
    assert b"".join(client.blob(repository, DIGEST, SIZE, 7)) == BLOB[7:]
    fetched = client.manifest(ImageReference.parse(f"{host}/a/b:1"))
    assert fetched == FetchedManifest(raw, OCI, digest_of(raw))
    assert client.read_manifest(repository, str(digest_of(raw))) == fetched
    assert client.manifest_digest(repository, "1") == digest_of(raw)
    assert client.tags(repository) == ["1"]
    with pytest.raises(NotFound, match="MANIFEST_UNKNOWN"):
        client.manifest(ImageReference.parse(f"{host}/a/b:absent"))


@needs_docker_registry
def test_a_real_registry_mounts_what_it_has(real: tuple[str, RegistryClient]) -> None:
    host, client = real
    image(client, Repository(host, "a/b"))
    other = Repository(host, "c/d")
    assert client.upload(other, DIGEST, SIZE, pieces_of(b""), "a/b") is Arrival.MOUNTED
    absent = digest_of(b"absent")
    assert client.upload(other, absent, 6, pieces_of(b"absent"), "a/b") is Arrival.SENT
    assert client.blob_length(other, absent) == 6
    assert client.blob_length(other, DIGEST) == SIZE


@needs_docker_registry
def test_a_real_registry_never_completes_wrong_bytes(real: tuple[str, RegistryClient]) -> None:
    host, client = real
    repository = Repository(host, "a/b")
    wrong = b"x" + BLOB[1:]
    with pytest.raises(IntegrityError):
        client.upload(
            repository,
            DIGEST,
            SIZE,
            lambda: verified(pieces_of(wrong)(), DIGEST, SIZE),
        )
    assert client.blob_length(repository, DIGEST) is None
    assert client.blob_length(repository, digest_of(wrong)) is None


@needs_docker_registry
def test_many_threads_share_a_client(real: tuple[str, RegistryClient]) -> None:
    host, client = real
    repository = Repository(host, "a/b")
    client.upload(repository, DIGEST, SIZE, pieces_of(BLOB))
    results: list[bytes] = []

    def fetch() -> None:
        for _ in range(5):
            results.append(b"".join(client.blob(repository, DIGEST, SIZE)))

    threads = [threading.Thread(target=fetch) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [BLOB] * 80
