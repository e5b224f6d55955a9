"""The proxy forwards faithfully, counts, and its gate is one."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest

from airgap.registry.directory import DirectoryStore
from airgap.registry.server import RegistryServer
from tests.support import faults, images, tripwire
from tests.support.http_client import ask
from tests.support.proxy import FaultProxy, Gate
from tests.support.upstream import RegistryUpstream, put

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LAYER = images.random_layer("file", 300_000, "proxy", compression="none")
IMAGE = images.image([LAYER])
CONTENT = LAYER.blob.read()
BLOB = f"/v2/a/b/blobs/{LAYER.blob.digest}"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistryServer]:
    store = DirectoryStore(tmp_path / "content", durable=False)
    put(store, "a/b", IMAGE, "v1")
    with RegistryServer(store) as running:
        yield running


def test_what_no_rule_is_for_is_forwarded(registry: RegistryServer) -> None:
    with FaultProxy(registry.host) as proxy:
        for method in ("GET", "HEAD"):
            straight, through = (ask(h, method, BLOB) for h in (registry.host, proxy.host))
            assert through.body == straight.body
            assert through.status == straight.status == 200
            assert through.headers["Content-Length"] == straight.headers["Content-Length"]
        part = ask(proxy.host, "GET", BLOB, headers={"Range": "bytes=5-9"})
        assert (part.status, part.body) == (206, CONTENT[5:10])
    # Its threads have ended, and with them their counting.
    assert [asked.sent for asked in proxy.asked] == [len(CONTENT), 0, 5]


def test_uploads_go_through_and_are_counted(registry: RegistryServer) -> None:
    with FaultProxy(registry.host) as proxy:
        with RegistryUpstream(proxy.host) as upstream:
            upstream.push("new/place", IMAGE, "v2")
        content = sum(blob.size for blob in IMAGE.all_blobs()) + len(IMAGE.raw)
        assert proxy.received == content
    assert ask(registry.host, "GET", "/v2/new/place/manifests/v2").body == IMAGE.raw


def test_faults_stand_before_the_registry(registry: RegistryServer) -> None:
    with FaultProxy(registry.host) as proxy:
        proxy.fault("GET", ".*", faults.flip(at=7), hits=(2,))
        proxy.fault("GET", ".*", faults.answer(503), hits=(3,))
        answers = [ask(proxy.host, "GET", BLOB) for _ in range(4)]
        assert [answer.status for answer in answers] == [200, 200, 503, 200]
        assert [answer.body == CONTENT for answer in answers] == [True, False, False, True]


@pytest.mark.parametrize("fault", [faults.flip_sent(3), faults.reset_sent(3)])
def test_what_is_sent_can_be_harmed(registry: RegistryServer, fault: faults.Fault) -> None:
    with FaultProxy(registry.host) as proxy, RegistryUpstream(proxy.host) as upstream:
        proxy.fault("PATCH", ".*", fault)
        with pytest.raises((RuntimeError, OSError)):
            upstream.push("new/place", IMAGE, "v2")


def test_a_registry_that_is_gone_is_a_connection_that_breaks(registry: RegistryServer) -> None:
    with FaultProxy(registry.host) as proxy:
        assert ask(proxy.host, "GET", BLOB).status == 200
        registry.stop()
        with pytest.raises(OSError):
            ask(proxy.host, "GET", BLOB)


def test_the_gate_wants_a_token_and_forgets_it(registry: RegistryServer) -> None:
    gate = Gate("robot", "pass")
    with FaultProxy(registry.host, gate) as proxy:
        assert ask(proxy.host, "GET", BLOB).headers["WWW-Authenticate"].startswith("Bearer realm=")
        assert ask(proxy.host, "GET", "/token").status == 401
        basic = "Basic " + base64.b64encode(b"robot:pass").decode()
        token = ask(proxy.host, "GET", "/token", headers={"Authorization": basic}).json["token"]
        bearer = {"Authorization": f"Bearer {token}"}
        assert ask(proxy.host, "GET", BLOB, headers=bearer).body == CONTENT
        proxy.fault("GET", ".*", gate.expired, hits=(1,))
        for _ in range(2):
            assert ask(proxy.host, "GET", BLOB, headers=bearer).status == 401
        accounts = {faults.account_of(basic), faults.account_of(bearer["Authorization"])}
        assert {asked.account for asked in proxy.asked} == {"", *accounts}
        assert not any("authorization" in asked.headers for asked in proxy.asked)


@pytest.mark.parametrize("form", ["Bearer {}", "{}", "Basic"])
def test_a_secret_at_the_wrong_host_trips_the_wire(registry: RegistryServer, form: str) -> None:
    secret = tripwire.plant("wire-canary-83f0", "elsewhere:443")
    basic = base64.b64encode(f"somebody:{secret}".encode()).decode()
    value = f"Basic {basic}" if form == "Basic" else form.format(secret)
    with FaultProxy(registry.host) as proxy:
        ask(proxy.host, "GET", BLOB, headers={"Authorization": value})
        assert tripwire.tripped() == [f"{proxy.host} was sent {secret}"]
        tripwire.plant(secret, proxy.host)
        ask(proxy.host, "GET", BLOB, headers={"Authorization": value})
        assert tripwire.tripped() == []


@pytest.mark.parametrize("user", ["", "a", "ab", "abc"])
def test_a_secret_leaks_in_any_form(user: str) -> None:
    secret = tripwire.plant("leak-canary-12a9")
    assert tripwire.leaks(f"it is {secret}!".encode()) == {secret}
    encoded = base64.b64encode(f"{user}:{secret}".encode())
    assert tripwire.leaks(b"auth=" + encoded) == {secret}
    assert tripwire.leaks(b"nothing") == set()
