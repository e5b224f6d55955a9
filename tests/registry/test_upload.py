"""Sending blobs: in one piece or in chunks, and through everything that can come between."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

from airgap.arrival import Arrival
from airgap.digest import digest_of, verified
from airgap.errors import IntegrityError, NotFound, RegistryError, StorageError, Unreachable
from airgap.reference import Repository
from airgap.registry.client import RegistryClient
from airgap.registry.credentials import Credential, Credentials
from airgap.registry.transport import Transport
from airgap.registry.upload import CHUNK, SMALLEST_CHUNK, RepositoryAbsent, _Manner
from tests.support.docker_registry import docker_registry, needs_docker_registry
from tests.support.http import Asked, Reply
from tests.support.scripted import BLOB, DIGEST, SIZE, Uploads, World, error, pieces_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def test_sends_a_blob_in_one_request(world: World, uploads: Uploads) -> None:
    world.client().upload(world.repository, DIGEST, SIZE, pieces_of(BLOB))
    assert uploads.blobs == {str(DIGEST): BLOB}
    assert [asked.method for asked in world.server.asked] == ["GET", "POST", "PUT"]


def test_sends_an_empty_blob(world: World, uploads: Uploads) -> None:
    world.client().upload(world.repository, digest_of(b""), 0, lambda: iter(()))
    assert uploads.blobs == {str(digest_of(b"")): b""}


@pytest.mark.parametrize("in_chunks", [False, True])
def test_wrong_bytes_are_never_completed_nor_tried_again(
    world: World, uploads: Uploads, in_chunks: bool
) -> None:
    if in_chunks:
        uploads.refuse = lambda asked: (
            Reply(405) if asked.method == "PUT" and len(asked.body) > 0 else None
        )
        world_client = world.client()
        world_client.upload(world.repository, digest_of(b"a"), 1, lambda: iter([b"a"]))
    else:
        world_client = world.client()
    wrong = BLOB[:-1] + b"x"
    before, opened = len(uploads.blobs), len(world.asked("POST"))
    with pytest.raises(IntegrityError, match="the content's digest is"):
        world_client.upload(
            world.repository,
            DIGEST,
            SIZE,
            lambda: verified(pieces_of(wrong)(), DIGEST, SIZE),
        )
    assert len(uploads.blobs) == before
    assert len(world.asked("POST")) == opened + 1


@pytest.mark.parametrize(
    "cause", [StorageError("medium gone"), NotFound("at the source"), OSError("EIO")]
)
def test_what_the_source_raises_goes_through(
    world: World, uploads: Uploads, cause: Exception
) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"x"
        raise cause

    with pytest.raises(type(cause)) as caught:
        world.client().upload(world.repository, DIGEST, SIZE, pieces)
    assert caught.value is cause
    assert len(world.asked("POST")) == 1


@pytest.mark.parametrize("status", [405, 413, 501])
def test_falls_back_to_chunks_and_remembers(
    world: World, uploads: Uploads, status: int
) -> None:  # W02, W05
    content = os.urandom(CHUNK * 2 + 5000)
    uploads.refuse = lambda asked: (
        Reply(status) if asked.method == "PUT" and len(asked.body) > 0 else None
    )
    client = world.client()
    client.upload(world.repository, digest_of(content), len(content), pieces_of(content))
    client.upload(world.repository, DIGEST, SIZE, pieces_of(BLOB))
    assert set(uploads.blobs.values()) == {content, BLOB}
    methods = [asked.method for asked in world.server.asked]
    # What is refused for its size alone says nothing of a smaller blob.
    tried = ("POST", "PUT") if status == 413 else ()
    assert methods == [
        *("GET", "POST", "PUT"),
        *("POST", "PATCH", "PATCH", "PATCH", "PUT"),
        *(*tried, "POST", "PATCH", "PUT"),
    ]
    ends = [asked.headers["Content-Range"] for asked in world.asked("PATCH")]
    assert ends[0].startswith("0-")
    assert ends[2].endswith(f"-{len(content) - 1}")


def test_a_body_limit_that_chunks_exceed_too_is_explained(world: World, uploads: Uploads) -> None:
    uploads.refuse = lambda asked: Reply(413) if asked.body else None
    with pytest.raises(RegistryError, match="413") as caught:
        world.client().upload(world.repository, DIGEST, SIZE, pieces_of(BLOB))
    assert "client_max_body_size" in (caught.value.hint or "")


@pytest.mark.parametrize("status", [201, 204])
def test_takes_other_answers_to_a_chunk(world: World, uploads: Uploads, status: int) -> None:
    def refuse(asked: Asked) -> Reply | None:  # W03
        if asked.method == "PUT" and asked.body:
            return Reply(405)
        if asked.method == "PATCH":
            uploads.sessions[urlsplit(asked.path).path] += asked.body
            return Reply(status)
        return None

    uploads.refuse = refuse
    world.client().upload(world.repository, DIGEST, SIZE, pieces_of(BLOB))
    assert uploads.blobs == {str(DIGEST): BLOB}


def test_notices_a_registry_that_drops_chunks(world: World, uploads: Uploads) -> None:  # W04
    def refuse(asked: Asked) -> Reply | None:
        if asked.method == "PUT" and asked.body and len(world.asked("PUT")) == 1:
            return Reply(405)
        if asked.method == "PATCH":
            return Reply(202, {"Location": asked.path, "Range": "0-99"})
        return None

    uploads.refuse = refuse
    world.client().upload(world.repository, DIGEST, SIZE, pieces_of(BLOB))
    assert uploads.blobs == {str(DIGEST): BLOB}


def test_honours_the_least_chunk(world: World, uploads: Uploads) -> None:  # W06
    content = os.urandom(CHUNK * 2)

    def refuse(asked: Asked) -> Reply | None:
        if asked.method == "PUT" and asked.body:
            return Reply(405)
        if asked.method == "POST":
            answer = replace(Reply(202), headers={"OCI-Chunk-Min-Length": str(CHUNK * 2)})
            uploads.sessions["/v2/u"] = b""
            return replace(answer, headers={**answer.headers, "Location": "/v2/u?_state=a%2Bb"})
        return None

    uploads.refuse = refuse
    world.client().upload(world.repository, digest_of(content), len(content), pieces_of(content))
    assert len(world.asked("PATCH")) == 1


def test_a_lost_session_is_replaced(world: World, uploads: Uploads) -> None:  # W09
    lost: list[int] = []

    def refuse(asked: Asked) -> Reply | None:
        if asked.method == "PUT" and len(lost) < 2:
            lost.append(1)
            return error(404, "BLOB_UPLOAD_UNKNOWN")
        return None

    uploads.refuse = refuse
    world.client().upload(world.repository, DIGEST, SIZE, pieces_of(BLOB))
    assert uploads.blobs == {str(DIGEST): BLOB}
    assert len(world.asked("POST")) == 3


def test_sessions_that_are_always_lost_are_given_up(world: World, uploads: Uploads) -> None:
    uploads.refuse = lambda asked: Reply(404) if asked.method == "PUT" else None
    with pytest.raises(NotFound, match="given up after 6 attempts") as caught:
        world.client().upload(world.repository, DIGEST, SIZE, pieces_of(BLOB))
    assert "http.secret" in (caught.value.hint or "")


def test_a_repository_that_cannot_be_made_is_final(world: World, uploads: Uploads) -> None:  # W23
    uploads.refuse = lambda asked: error(404, "NAME_UNKNOWN") if asked.method == "POST" else None
    with pytest.raises(RepositoryAbsent, match="NAME_UNKNOWN") as caught:
        world.client().upload(world.repository, DIGEST, SIZE, pieces_of(BLOB))
    assert len(world.asked("POST")) == 1
    assert "create it" in (caught.value.hint or "")


def test_bytes_altered_on_the_way_are_told(world: World, uploads: Uploads) -> None:  # W10
    uploads.refuse = lambda asked: error(400, "DIGEST_INVALID") if asked.method == "PUT" else None
    with pytest.raises(RegistryError, match="DIGEST_INVALID") as caught:
        world.client().upload(world.repository, DIGEST, SIZE, pieces_of(BLOB))
    assert len(world.asked("POST")) == 2
    assert "alters" in (caught.value.hint or "")


@pytest.mark.parametrize("lost", [Reply(502), Reply(504), Reply(0)])
def test_an_upload_whose_answer_was_lost_counts(
    world: World, uploads: Uploads, lost: Reply
) -> None:  # W11
    def refuse(asked: Asked) -> Reply | None:
        if asked.method == "PUT":
            uploads.blobs[str(DIGEST)] = asked.body
            return lost
        return None

    uploads.refuse = refuse
    world.client().upload(world.repository, DIGEST, SIZE, pieces_of(BLOB))
    assert len(world.asked("PUT")) == 1


def test_a_failed_upload_is_sent_again_from_its_start(world: World, uploads: Uploads) -> None:
    failures = [Reply(503), Reply(502)]
    uploads.refuse = lambda asked: failures.pop() if asked.method == "PUT" and failures else None
    world.client().upload(world.repository, DIGEST, SIZE, pieces_of(BLOB))
    assert uploads.blobs == {str(DIGEST): BLOB}
    assert [len(asked.body) for asked in world.asked("PUT")] == [SIZE] * 3


def test_an_upload_may_go_on_at_another_host_without_the_credential(
    world: World, uploads: Uploads
) -> None:  # W07
    store = world.serve(lambda _: Reply(201))

    def refuse(asked: Asked) -> Reply | None:
        if asked.authorization is None:
            return Reply(401, {"WWW-Authenticate": 'Basic realm="r"'})
        return Reply(202, {"Location": f"http://{store.host}/u?s=1"})

    uploads.refuse = refuse
    client = world.client("", store, **{world.host: Credential("f", "u", "p")})
    client.upload(world.repository, DIGEST, SIZE, pieces_of(BLOB))
    (asked,) = store.asked
    assert asked.authorization is None
    assert parse_qs(urlsplit(asked.path).query) == {"s": ["1"], "digest": [str(DIGEST)]}


def test_a_session_without_a_location_is_refused(world: World, uploads: Uploads) -> None:
    uploads.refuse = lambda asked: Reply(202) if asked.method == "POST" else None
    with pytest.raises(RegistryError, match="without a Location"):
        world.client().upload(world.repository, DIGEST, SIZE, pieces_of(BLOB))


def test_a_lost_answer_is_not_asked_about_before_all_is_sent(
    world: World, uploads: Uploads
) -> None:
    failures = [Reply(503), Reply(502)]
    uploads.refuse = lambda asked: failures.pop() if asked.method == "POST" and failures else None
    world.client().upload(world.repository, DIGEST, SIZE, pieces_of(BLOB))
    methods = [asked.method for asked in world.server.asked]
    assert methods == ["GET", "POST", "POST", "POST", "PUT"]


# One registry behind another: W30


def test_sessions_that_only_one_of_two_registries_knows_end_well(
    world: World, uploads: Uploads
) -> None:
    turns = iter("AB AB AA BA BB".replace(" ", ""))
    owners: dict[str, str] = {}

    def refuse(asked: Asked) -> Reply | None:
        if asked.method == "POST":
            owners[f"{urlsplit(asked.path).path}{uploads.opened + 1}"] = next(turns)
        elif asked.method == "PUT" and owners[urlsplit(asked.path).path] != next(turns):
            return error(404, "BLOB_UPLOAD_UNKNOWN")
        return None

    uploads.refuse = refuse
    world.client().upload(world.repository, DIGEST, SIZE, pieces_of(BLOB))
    assert uploads.blobs == {str(DIGEST): BLOB}
    assert len(world.asked("POST")) == 3


# Chunks

CONTENT = os.urandom(5 * SMALLEST_CHUNK + 77)
LARGE = os.urandom(2 * CHUNK + 5000)


def send(world: World, content: bytes = CONTENT) -> None:
    world.client().upload(world.repository, digest_of(content), len(content), pieces_of(content))


def takes_at_once(limit: int, status: int = 413) -> Callable[[Asked], Reply | None]:
    """Refuse every larger body, as a proxy before a registry does."""
    return lambda asked: Reply(status) if len(asked.body) > limit else None


def patches(world: World) -> list[tuple[str, int]]:
    return [(asked.headers["Content-Range"], len(asked.body)) for asked in world.asked("PATCH")]


def in_order(world: World) -> bool:
    """Whether each chunk begins where the one before ended, and says so rightly."""
    position = 0
    for said, length in patches(world):
        if said != f"{position}-{position + length - 1}":
            return False
        position += length
    return True


@pytest.mark.parametrize("limit", [SMALLEST_CHUNK, SMALLEST_CHUNK * 3, 1 << 20])
def test_bodies_shrink_until_they_are_taken(world: World, uploads: Uploads, limit: int) -> None:
    uploads.refuse = takes_at_once(limit)
    client = world.client()
    for content in (CONTENT, CONTENT[1:], BLOB):
        client.upload(world.repository, digest_of(content), len(content), pieces_of(content))
    assert set(uploads.blobs.values()) == {CONTENT, CONTENT[1:], BLOB}
    refused = [asked for asked in world.server.asked if len(asked.body) > limit]
    assert len(refused) <= 4, "what a host takes is remembered"
    # The last one fits, so it goes whole.
    assert [asked.method for asked in world.server.asked[-2:]] == ["POST", "PUT"]


def test_several_blobs_may_find_out_the_body_limit_at_the_same_time(
    world: World, uploads: Uploads
) -> None:
    together = threading.Barrier(3)

    def refuse(asked: Asked) -> Reply | None:
        if asked.method == "PUT" and asked.body:
            together.wait(timeout=60)
            return Reply(413)
        return None

    uploads.refuse = refuse
    client = world.client()
    contents = (LARGE, LARGE[1:], LARGE[2:])

    def upload(content: bytes) -> Arrival:
        digest, size = digest_of(content), len(content)
        return client.upload(world.repository, digest, size, pieces_of(content))

    with ThreadPoolExecutor() as threads:
        assert list(threads.map(upload, contents)) == [Arrival.SENT] * 3
    assert set(uploads.blobs.values()) == set(contents)


def test_a_registry_that_takes_nothing_at_once_is_given_up(world: World, uploads: Uploads) -> None:
    uploads.refuse = takes_at_once(1000)
    with pytest.raises(RegistryError, match="413") as caught:
        send(world)
    assert "client_max_body_size" in (caught.value.hint or "")
    assert len(world.server.asked) < 20


@pytest.mark.parametrize("status", [408, 504, 524])
def test_bodies_shrink_when_they_do_not_get_through_in_time(
    world: World, uploads: Uploads, status: int
) -> None:
    uploads.refuse = takes_at_once(3 << 20, status)
    send(world, LARGE)
    assert uploads.blobs == {str(digest_of(LARGE)): LARGE}
    lengths = [length for _, length in patches(world)]
    assert max(lengths) == CHUNK
    assert lengths[-2] == CHUNK // 4


def test_what_breaks_off_twice_goes_on_in_chunks(world: World, uploads: Uploads) -> None:
    def refuse(asked: Asked) -> Reply | None:
        return Reply(0) if asked.method == "PUT" and asked.body else None

    uploads.refuse = refuse
    client = world.client()
    client.upload(world.repository, digest_of(LARGE), len(LARGE), pieces_of(LARGE))
    assert [len(asked.body) for asked in world.asked("PUT")] == [len(LARGE), len(LARGE), 0]
    assert in_order(world)
    assert uploads.blobs == {str(digest_of(LARGE)): LARGE}


@pytest.mark.parametrize("kept", [0, 1, 1000, SMALLEST_CHUNK])
@pytest.mark.parametrize("failure", [Reply(503), Reply(0)])
def test_a_chunk_that_broke_off_goes_on_where_the_registry_is(
    world: World, uploads: Uploads, failure: Reply, kept: int
) -> None:
    def refuse(asked: Asked) -> Reply | None:
        if asked.method == "PATCH" and len(world.asked("PATCH")) == 2:
            uploads.sessions[urlsplit(asked.path).path] += asked.body[:kept]
            return failure
        return Reply(405) if asked.method == "PUT" and asked.body else None

    uploads.refuse = refuse
    send(world, LARGE)
    assert uploads.blobs == {str(digest_of(LARGE)): LARGE}
    assert len(world.asked("POST")) == 2, "the session that was refused whole, and this one"
    start = len(world.asked("PATCH")[0].body) + kept
    assert world.asked("PATCH")[2].headers["Content-Range"].startswith(f"{start}-")


def test_a_session_of_no_bytes_that_is_told_as_one_is_begun_at_its_start(
    world: World, uploads: Uploads
) -> None:
    def refuse(asked: Asked) -> Reply | None:
        if asked.method == "PATCH" and len(world.asked("PATCH")) == 1:
            return Reply(0)
        return Reply(405) if asked.method == "PUT" and asked.body else None

    uploads.refuse = refuse
    send(world, BLOB)
    assert uploads.blobs == {str(DIGEST): BLOB}
    assert [a.headers["Content-Range"] for a in world.asked("PATCH")] == [f"0-{SIZE - 1}"] * 2


@pytest.mark.parametrize("kept", [1, 1000])
def test_fewer_bytes_than_were_sent_are_believed(world: World, uploads: Uploads, kept: int) -> None:
    def refuse(asked: Asked) -> Reply | None:
        if asked.method == "PATCH" and len(world.asked("PATCH")) == 2:
            path = urlsplit(asked.path).path
            uploads.sessions[path] += asked.body[:kept]
            have = len(uploads.sessions[path])
            return Reply(202, {"Location": asked.path, "Range": f"0-{have - 1}"})
        return Reply(405) if asked.method == "PUT" and asked.body else None

    uploads.refuse = refuse
    send(world, LARGE)
    assert uploads.blobs == {str(digest_of(LARGE)): LARGE}
    assert len(world.asked("POST")) == 2


@pytest.mark.parametrize("said", ["0-99", f"0-{3 * CHUNK}"])
def test_what_cannot_be_starts_the_blob_again(world: World, uploads: Uploads, said: str) -> None:
    def refuse(asked: Asked) -> Reply | None:
        if asked.method == "PATCH" and len(world.asked("PATCH")) == 2:
            return Reply(202, {"Location": asked.path, "Range": said})
        return Reply(405) if asked.method == "PUT" and asked.body else None

    uploads.refuse = refuse
    send(world, LARGE)
    assert uploads.blobs == {str(digest_of(LARGE)): LARGE}
    assert len(world.asked("POST")) == 3


def test_a_chunk_out_of_order_goes_on_where_the_registry_is(world: World, uploads: Uploads) -> None:
    def refuse(asked: Asked) -> Reply | None:
        if asked.method == "PATCH" and len(world.asked("PATCH")) == 2:
            uploads.sessions[urlsplit(asked.path).path] += asked.body[:500]
            return Reply(416)
        return Reply(405) if asked.method == "PUT" and asked.body else None

    uploads.refuse = refuse
    send(world, LARGE)
    assert uploads.blobs == {str(digest_of(LARGE)): LARGE}
    assert len(world.asked("POST")) == 2


def test_a_session_that_is_lost_between_chunks_is_replaced(world: World, uploads: Uploads) -> None:
    def refuse(asked: Asked) -> Reply | None:
        if asked.method == "PATCH" and len(world.asked("PATCH")) == 2:
            uploads.sessions.clear()
        return Reply(405) if asked.method == "PUT" and asked.body else None

    uploads.refuse = refuse
    send(world, LARGE)
    assert uploads.blobs == {str(digest_of(LARGE)): LARGE}
    assert len(world.asked("POST")) == 3


def dropped(uploads: Uploads, asked: Asked) -> Reply:
    """Take a chunk, and have nothing of it."""
    return Reply(202, {"Location": asked.path, "Range": "0-0"})


def lost(uploads: Uploads, asked: Asked) -> Reply:
    """Be a registry that was restarted, and has forgotten what was under way."""
    uploads.sessions.clear()
    return error(404, "BLOB_UPLOAD_UNKNOWN")


@pytest.mark.parametrize("failure", [dropped, lost])
def test_one_first_chunk_that_fails_is_not_taken_for_a_rule(
    world: World, uploads: Uploads, failure: Callable[[Uploads, Asked], Reply]
) -> None:
    within_limit = takes_at_once(1 << 20)
    failed: list[Asked] = []

    def refuse(asked: Asked) -> Reply | None:
        if asked.method == "PATCH" and len(uploads.blobs) == 1 and not failed:
            failed.append(asked)
            return failure(uploads, asked)
        return within_limit(asked)

    uploads.refuse = refuse
    client = world.client()
    contents = [LARGE, LARGE[1:], LARGE[2:]]
    for content in contents:
        client.upload(world.repository, digest_of(content), len(content), pieces_of(content))
    assert list(uploads.blobs.values()) == contents
    assert len(failed) == 1
    after = world.server.asked[world.server.asked.index(failed[0]) :]
    assert max(len(asked.body) for asked in after) <= 1 << 20, "what it takes is not forgotten"


@pytest.mark.parametrize("is_done", [False, True])
def test_the_end_of_chunks_is_tried_again(world: World, uploads: Uploads, is_done: bool) -> None:
    ends: list[Asked] = []

    def refuse(asked: Asked) -> Reply | None:
        if asked.method == "PUT" and asked.body:
            return Reply(405)
        if asked.method == "PUT" and not ends:
            ends.append(asked)
            if is_done:
                uploads.blobs[str(DIGEST)] = uploads.sessions[urlsplit(asked.path).path]
            return Reply(502)
        return None

    uploads.refuse = refuse
    send(world, BLOB)
    assert uploads.blobs == {str(DIGEST): BLOB}
    assert len(world.asked("PATCH")) == 1
    assert len(world.asked("PUT")) == (2 if is_done else 3)


def test_a_blob_that_moves_on_is_never_given_up(world: World, uploads: Uploads) -> None:
    content = os.urandom(3 * CHUNK)

    def refuse(asked: Asked) -> Reply | None:
        if asked.method == "PATCH":
            uploads.sessions[urlsplit(asked.path).path] += asked.body[: 2 << 20]
            return Reply(503)
        return Reply(405) if asked.method == "PUT" and asked.body else None

    uploads.refuse = refuse
    send(world, content)
    assert uploads.blobs == {str(digest_of(content)): content}
    assert len(world.asked("PATCH")) == 12


def test_what_gets_no_further_than_before_is_given_up(world: World, uploads: Uploads) -> None:
    def refuse(asked: Asked) -> Reply | None:
        if asked.method == "PATCH" and len(asked.body) < CHUNK:
            uploads.sessions.clear()
        return Reply(405) if asked.method == "PUT" and asked.body else None

    uploads.refuse = refuse
    with pytest.raises(NotFound, match="given up after 6 attempts"):
        send(world, LARGE)


def test_a_registry_without_chunks_gets_blobs_whole(world: World, uploads: Uploads) -> None:
    late = [Reply(504)]

    def refuse(asked: Asked) -> Reply | None:
        if asked.method == "PUT" and late:
            return late.pop()
        return Reply(405) if asked.method == "PATCH" else None

    uploads.refuse = refuse
    send(world, LARGE)
    assert uploads.blobs == {str(digest_of(LARGE)): LARGE}
    assert len(world.asked("PATCH")) == 1


# Mounts


def mount(world: World, content: bytes = BLOB) -> Arrival:
    digest = digest_of(content)
    client = world.client()
    return client.upload(world.repository, digest, len(content), pieces_of(content), "other/repo")


def test_mounts_a_blob(world: World, uploads: Uploads) -> None:
    uploads.blobs[str(DIGEST)] = BLOB
    assert mount(world) is Arrival.MOUNTED
    (asked,) = world.asked("POST")
    query = parse_qs(urlsplit(asked.path).query)
    assert query == {"mount": [str(DIGEST)], "from": ["other/repo"]}
    assert world.asked("PUT") == []


def test_a_mount_that_opens_an_upload_goes_on_in_it(world: World, uploads: Uploads) -> None:  # W12
    assert mount(world) is Arrival.SENT
    assert uploads.blobs == {str(DIGEST): BLOB}
    assert [asked.method for asked in world.server.asked] == ["GET", "POST", "PUT"]


@pytest.mark.parametrize("status", [400, 403, 404, 405, 429, 500, 503])
def test_a_refused_mount_is_no_failure(world: World, uploads: Uploads, status: int) -> None:  # W13
    uploads.refuse = lambda asked: Reply(status) if "mount=" in asked.path else None
    assert mount(world) is Arrival.SENT
    assert uploads.blobs == {str(DIGEST): BLOB}


def test_a_refused_mount_is_not_asked_for_again(world: World, uploads: Uploads) -> None:
    failures = [Reply(502)]

    def refuse(asked: Asked) -> Reply | None:
        if "mount=" in asked.path:
            return Reply(403)
        return failures.pop() if asked.method == "PUT" and failures else None

    uploads.refuse = refuse
    assert mount(world) is Arrival.SENT
    assert len([asked for asked in world.asked("POST") if "mount=" in asked.path]) == 1


def test_a_mount_that_nobody_answers_is_a_failure(world: World) -> None:
    with pytest.raises(Unreachable) as caught:
        nowhere = Repository("127.0.0.1:1", "ns/repo")
        world.client().upload(nowhere, DIGEST, SIZE, pieces_of(BLOB), "other/repo")
    assert caught.value.status is None


# Repositories


def test_whether_a_repository_takes_uploads_can_be_asked(world: World, uploads: Uploads) -> None:
    world.client().require_uploads(world.repository)
    assert [asked.method for asked in world.server.asked] == ["GET", "POST", "DELETE"]
    uploads.refuse = lambda asked: error(404, "NAME_UNKNOWN") if asked.method == "POST" else None
    with pytest.raises(RepositoryAbsent):
        world.client().require_uploads(world.repository)


@needs_docker_registry
@pytest.mark.parametrize("size", [CHUNK + 12345, 2 * CHUNK, 1])
def test_a_real_registry_takes_chunks(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    with docker_registry(tmp_path / "registry") as host:
        transport = Transport(environ={}, insecure=frozenset({host}))
        with RegistryClient(transport, Credentials(), writes=True) as client:
            repository = Repository(host, "a/b")
            client._uploader._manners[host] = _Manner(whole=False)
            client.upload(repository, digest_of(content), size, pieces_of(content))
            assert b"".join(client.blob(repository, digest_of(content), size)) == content


def test_chunks_of_many_uploads_take_turns_when_memory_is_short(
    world: World, uploads: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airgap.registry.upload._ROOM", 2 * SIZE)
    uploads.refuse = lambda asked: Reply(405) if asked.method == "PUT" and asked.body else None
    client = world.client()
    reading, most, lock = 0, 0, threading.Lock()

    def pieces() -> Iterator[bytes]:
        nonlocal reading, most
        with lock:
            reading += 1
            most = max(most, reading)
        yield BLOB
        time.sleep(0.05)
        with lock:
            reading -= 1

    client.upload(world.repository, DIGEST, SIZE, pieces)  # It is in chunks from now on.
    most = 0
    threads = [
        threading.Thread(target=client.upload, args=(world.repository, DIGEST, SIZE, pieces))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 2
