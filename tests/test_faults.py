"""The faults that other tests rely on happen as they are scripted."""

from __future__ import annotations

import http.client
import threading
import time
from typing import TYPE_CHECKING

import pytest

from airgap.registry.directory import DirectoryStore
from tests.support import faults, images
from tests.support.faults import FaultyRegistry
from tests.support.http_client import ask
from tests.support.upstream import put

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.faults import Fault

LAYER = images.random_layer("file", 300_000, "faults", compression="none")
IMAGE = images.image([LAYER])
CONTENT = LAYER.blob.read()
BLOB = f"/v2/a/b/blobs/{LAYER.blob.digest}"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[FaultyRegistry]:
    store = DirectoryStore(tmp_path / "content", durable=False)
    put(store, "a/b", IMAGE, "v1")
    with FaultyRegistry(store) as running:
        yield running


def test_is_honest_without_rules(registry: FaultyRegistry) -> None:
    assert ask(registry.host, "GET", BLOB).body == CONTENT


def test_remembers_what_it_was_asked(registry: FaultyRegistry) -> None:
    ask(registry.host, "GET", BLOB)
    ask(registry.host, "GET", "/v2/?a=b", headers={"Authorization": "Basic x"})
    first, second = registry.asked
    assert (first.method, first.path, first.authorized) == ("GET", BLOB, False)
    assert (second.path, second.query, second.authorized) == ("/v2/", {"a": "b"}, True)
    assert first.host == registry.host
    assert (registry.count("GET"), registry.count("GET", ".*/blobs/.*")) == (2, 1)


def test_a_rule_is_for_the_hits_it_names(registry: FaultyRegistry) -> None:
    registry.fault("GET", ".*/blobs/.*", faults.answer(503, {"Retry-After": "1"}), hits=(2, 3))
    registry.fault("GET", ".*/blobs/.*", faults.answer(500), hits=(3,))
    statuses = [ask(registry.host, "GET", BLOB).status for _ in range(4)]
    assert statuses == [200, 503, 503, 200]
    assert ask(registry.host, "HEAD", BLOB).status == 200


def test_forgets_its_rules(registry: FaultyRegistry) -> None:
    registry.fault(".*", ".*", faults.answer(500))
    registry.heal()
    assert ask(registry.host, "GET", BLOB).status == 200


def test_hides_one_blob_or_manifest(registry: FaultyRegistry) -> None:
    registry.hide(LAYER.blob.digest)
    assert ask(registry.host, "GET", BLOB).status == 404
    assert ask(registry.host, "GET", "/v2/a/b/manifests/v1").status == 200
    registry.hide(IMAGE.digest)
    assert ask(registry.host, "HEAD", f"/v2/a/b/manifests/{IMAGE.digest}").status == 404


@pytest.mark.parametrize("after", [0, 1, 65_536, 100_000])
def test_cuts_a_body(registry: FaultyRegistry, after: int) -> None:
    registry.fault("GET", ".*", faults.cut(after))
    with pytest.raises(http.client.IncompleteRead) as caught:
        ask(registry.host, "GET", BLOB)
    assert caught.value.partial == CONTENT[:after]


@pytest.mark.parametrize("at", [0, 65_535, 65_536, 300_000])
def test_flips_one_byte(registry: FaultyRegistry, at: int) -> None:
    registry.fault("GET", ".*", faults.flip(at))
    body = ask(registry.host, "GET", BLOB).body
    wrong = [n for n, (one, other) in enumerate(zip(body, CONTENT, strict=True)) if one != other]
    assert wrong == [at]


@pytest.mark.parametrize("after", [None, 0, 1000])
def test_resets_the_connection(registry: FaultyRegistry, after: int | None) -> None:
    registry.fault("GET", ".*", faults.reset(after))
    with pytest.raises((ConnectionResetError, http.client.IncompleteRead)):
        ask(registry.host, "GET", BLOB)


def test_sends_more_than_there_is(registry: FaultyRegistry) -> None:
    registry.fault("GET", ".*", faults.longer(b"extra"))
    answer = ask(registry.host, "GET", BLOB)
    assert answer.body == CONTENT + b"extra"
    assert answer.headers["Content-Length"] == str(len(CONTENT) + 5)


def test_does_not_say_how_long_a_body_is(registry: FaultyRegistry) -> None:
    registry.fault("GET", ".*", faults.no_length())
    answer = ask(registry.host, "GET", BLOB)
    assert answer.body == CONTENT
    assert "Content-Length" not in answer.headers


def test_ignores_a_range(registry: FaultyRegistry) -> None:
    registry.fault("GET", ".*", faults.ignore_range())
    answer = ask(registry.host, "GET", BLOB, headers={"Range": "bytes=5-"})
    assert (answer.status, answer.body) == (200, CONTENT)


def test_sends_clients_elsewhere(registry: FaultyRegistry) -> None:
    registry.fault("GET", ".*", faults.redirect("http://other{path}?signed=1"))
    answer = ask(registry.host, "GET", BLOB)
    assert (answer.status, answer.headers["Location"]) == (307, f"http://other{BLOB}?signed=1")


def test_changes_headers(registry: FaultyRegistry) -> None:
    changes = {"Docker-Content-Digest": "sha256:x", "ETag": None}
    registry.fault("GET", ".*", faults.with_headers(changes))
    answer = ask(registry.host, "GET", BLOB)
    assert answer.headers["Docker-Content-Digest"] == "sha256:x"
    assert "ETag" not in answer.headers
    assert answer.body == CONTENT


def test_wants_authorization(registry: FaultyRegistry) -> None:
    registry.fault("GET", ".*", faults.challenge("Bearer realm=x", "Bearer right"))
    for headers, status in (({}, 401), ({"Authorization": "Bearer right"}, 200)):
        answer = ask(registry.host, "GET", BLOB, headers=headers)
        assert answer.status == status
    assert ask(registry.host, "GET", BLOB).headers["WWW-Authenticate"] == "Bearer realm=x"


def test_does_what_was_asked_and_does_not_say_so(registry: FaultyRegistry) -> None:
    registry.fault("DELETE", ".*", faults.lose_answer())
    with pytest.raises((ConnectionResetError, http.client.RemoteDisconnected)):
        ask(registry.host, "DELETE", "/v2/a/b/manifests/v1")
    assert ask(registry.host, "GET", "/v2/a/b/manifests/v1").status == 404


@pytest.mark.parametrize(
    "fault", [faults.stall(0.2), faults.stall(0.2, after=70_000), faults.throttle(1_000_000)]
)
def test_takes_its_time(registry: FaultyRegistry, fault: Fault) -> None:
    registry.fault("GET", ".*", fault)
    before = time.monotonic()
    assert ask(registry.host, "GET", BLOB).body == CONTENT
    assert time.monotonic() - before >= 0.19


def test_stops_while_a_client_is_kept_waiting(registry: FaultyRegistry) -> None:
    registry.fault("GET", ".*", faults.stall(3600))

    def wait() -> None:
        with pytest.raises((OSError, http.client.HTTPException)):
            ask(registry.host, "GET", BLOB)

    client = threading.Thread(target=wait)
    client.start()
    while not registry.asked:
        time.sleep(0.01)
    registry.stop()
    client.join(timeout=5)
    assert not client.is_alive()
