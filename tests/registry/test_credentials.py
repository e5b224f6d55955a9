from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from airgap.errors import UsageError
from airgap.reference import Repository
from airgap.registry.credentials import Credentials, normalised

SECRET = "hunter2-canary"


def auth(username: str, password: str = SECRET) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}


def write(path: Path, document: Any, mode: int = 0o600) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    path.chmod(mode)
    return path


def user(credentials: Credentials, name: str) -> str | None:
    host, _, path = name.partition("/")
    credential = credentials.find(Repository(host, path))
    return None if credential is None else credential.username


def load(tmp_path: Path, auths: dict[str, Any], **more: Any) -> Credentials:
    file = write(tmp_path / "auth.json", {"auths": auths, **more})
    return Credentials.load(file, dict(os.environ), tmp_path)


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A credential helper named ``test`` on the PATH, which logs what it is asked."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    return directory / "docker-credential-test"


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("quay.io/ns/repo/sub", "repo"),
        ("quay.io/ns/repo", "repo"),
        ("quay.io/ns/other", "ns"),
        ("quay.io/nsx/other", "host"),
        ("quay.io/x", "host"),
        ("QUAY.io/ns/other", "ns"),
        ("quay.io.evil.com/ns/repo", None),
        ("evil-quay.io/ns/repo", None),
        ("quay.io:8443/ns/repo", None),
        ("a.example.com/x", None),
    ],
)
def test_the_longest_key_that_is_a_prefix_wins(
    tmp_path: Path, name: str, expected: str | None
) -> None:
    auths = {
        "quay.io": auth("host"),
        "quay.io/ns": auth("ns"),
        "quay.io/ns/repo": auth("repo"),
        "*.example.com": auth("wildcard"),
        "user@a.example.com": auth("userinfo"),
    }
    assert user(load(tmp_path, auths), name) == expected


@pytest.mark.parametrize(
    "key", ["docker.io", "https://index.docker.io/v1/", "index.docker.io", "registry-1.docker.io"]
)
@pytest.mark.parametrize("host", ["docker.io", "index.docker.io", "registry-1.docker.io"])
def test_docker_hub_has_one_credential_under_all_its_names(
    tmp_path: Path, key: str, host: str
) -> None:
    assert user(load(tmp_path, {key: auth("hub")}), f"{host}/library/x") == "hub"


def test_a_key_with_a_scheme_names_a_host_only() -> None:
    assert normalised("https://Registry.example.com:5000/v2/ns") == "registry.example.com:5000"
    assert normalised("registry.example.com/ns/") == "registry.example.com/ns"


def test_a_password_may_hold_colons(tmp_path: Path) -> None:
    credential = load(tmp_path, {"h.io": auth("u", "a:b:c")}).find(Repository("h.io", "x"))
    assert credential is not None
    assert (credential.username, credential.password) == ("u", "a:b:c")


def test_files_are_looked_for_in_the_order_of_oc(tmp_path: Path) -> None:
    home, run, config, docker = (tmp_path / name for name in ("home", "run", "config", "docker"))
    explicit = write(tmp_path / "explicit.json", {"auths": {"h.io": auth("explicit")}})
    registry = write(tmp_path / "registry.json", {"auths": {"h.io": auth("REGISTRY_AUTH_FILE")}})
    reg_creds = write(tmp_path / "creds.json", {"auths": {"h.io": auth("REG_CREDS")}})
    write(run / "containers/auth.json", {"auths": {"h.io": auth("runtime")}})
    write(config / "containers/auth.json", {"auths": {"h.io": auth("config")}})
    write(docker / "config.json", {"auths": {"h.io": auth("docker"), "only.io": auth("docker")}})
    environ = {
        "REGISTRY_AUTH_FILE": str(registry),
        "REG_CREDS": str(reg_creds),
        "XDG_RUNTIME_DIR": str(run),
        "XDG_CONFIG_HOME": str(config),
        "DOCKER_CONFIG": str(docker),
    }

    def found(path: Path | None) -> str | None:
        return user(Credentials.load(path, environ, home), "h.io/x")

    assert found(explicit) == "explicit"
    assert found(None) == "REGISTRY_AUTH_FILE"
    environ["REGISTRY_AUTH_FILE"] = ""
    assert found(None) == "REG_CREDS"
    del environ["REG_CREDS"]
    assert found(None) == "runtime"
    assert user(Credentials.load(None, environ, home), "only.io/x") == "docker"
    del environ["XDG_RUNTIME_DIR"]
    assert found(None) == "config"
    del environ["XDG_CONFIG_HOME"]
    assert found(None) == "docker"
    del environ["DOCKER_CONFIG"]
    assert found(None) is None
    write(home / ".docker/config.json", {"auths": {"h.io": auth("home docker")}})
    assert found(None) == "home docker"
    write(home / ".config/containers/auth.json", {"auths": {"h.io": auth("home config")}})
    assert found(None) == "home config"


def test_an_empty_path_counts_as_not_given(tmp_path: Path) -> None:
    assert Credentials.load(Path(), {}, tmp_path).find(Repository("h", "x")) is None


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="which -a/--registry-config names"):
        Credentials.load(tmp_path / "missing", {}, tmp_path)
    with pytest.raises(UsageError, match=r"which \$REGISTRY_AUTH_FILE names"):
        Credentials.load(None, {"REGISTRY_AUTH_FILE": str(tmp_path / "missing")}, tmp_path)


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"auths": []},
        {"auths": {"h.io": SECRET}},
        {"auths": {"h.io": {"auth": 7}}},
        {"auths": {"h.io": {"auth": f"!{SECRET}"}}},
        {"auths": {"h.io": {"auth": b64(f"no-colon-{SECRET}")}}},
        {"auths": {"h.io": {"auth": b64(f":{SECRET}")}}},
        {"auths": {"h.io": {"auth": base64.b64encode(b"u:\xff\xfe").decode()}}},
        {"auths": {"h.io": {"auth": b64(f"u:{SECRET}\r\nX-Evil: 1")}}},
        {"auths": {"h.io": {"identitytoken": f"{SECRET}\n"}}},
        {"credHelpers": {"h.io": "../../bin/sh"}},
        {"credHelpers": {"h.io": "test -x"}},
        {"credHelpers": {"h.io": 1}},
        {"credsStore": "/bin/sh"},
    ],
)
def test_refuses_a_malformed_file_without_quoting_it(tmp_path: Path, document: Any) -> None:
    file = write(tmp_path / "auth.json", document)
    with pytest.raises(UsageError) as caught:
        Credentials.load(file, {}, tmp_path)
    assert str(file) in caught.value.message
    assert SECRET not in caught.value.message


@pytest.mark.parametrize("raw", [b"{", b"\xff\xfe{}", b'{"auths": {}, "auths": {}}', b""])
def test_refuses_what_is_not_strict_json(tmp_path: Path, raw: bytes) -> None:
    file = tmp_path / "auth.json"
    file.write_bytes(raw)
    with pytest.raises(UsageError):
        Credentials.load(file, {}, tmp_path)


def test_refuses_what_is_not_a_regular_file_of_bounded_size(tmp_path: Path) -> None:
    fifo, zero, large = tmp_path / "fifo", tmp_path / "zero", tmp_path / "large"
    os.mkfifo(fifo)
    zero.symlink_to("/dev/zero")
    large.write_bytes(b" " * (1 << 20) + b"{}")
    for path in (fifo, zero, tmp_path, large):
        with pytest.raises(UsageError, match=str(path)):
            Credentials.load(path, {}, tmp_path)


def test_warns_of_a_file_that_others_may_read(tmp_path: Path) -> None:
    file = write(tmp_path / "auth.json", {"auths": {}}, mode=0o644)
    credentials = Credentials.load(file, {}, tmp_path)
    assert credentials.warnings == [f"{file} can be read by other users: chmod 600 {file}"]
    file.chmod(0o600)
    assert credentials.warnings == []


def test_no_representation_shows_a_secret(tmp_path: Path) -> None:
    credential = load(tmp_path, {"h.io": {**auth("u"), "identitytoken": SECRET}}).find(
        Repository("h.io", "x")
    )
    assert credential is not None
    assert credential.identity_token == SECRET
    assert SECRET not in f"{credential!r} {credential}"
    assert "h.io" in repr(credential)


def test_a_helper_is_asked_once_for_its_host(tmp_path: Path, helper: Path) -> None:
    log = tmp_path / "log"
    script(
        helper,
        f'read server; echo "$1 $server" >> {log}; echo \'{{"Username": "u", "Secret": "s"}}\'',
    )
    credentials = load(tmp_path, {"h.io": auth("file")}, credHelpers={"h.io": "test"})
    assert user(credentials, "h.io/a") == user(credentials, "h.io/b") == "u"
    assert log.read_text() == "get h.io\n"


def test_a_store_is_asked_for_what_the_file_does_not_hold(tmp_path: Path, helper: Path) -> None:
    script(helper, 'echo \'{"Username": "<token>", "Secret": "refresh"}\'')
    credentials = load(tmp_path, {"h.io": {}, "f.io": auth("file")}, credsStore="test")
    credential = credentials.find(Repository("h.io", "x"))
    assert credential is not None
    assert (credential.identity_token, credential.username) == ("refresh", "")
    assert user(credentials, "f.io/x") == "file"


def test_a_helper_without_the_credential_is_no_failure(tmp_path: Path, helper: Path) -> None:
    script(helper, "echo credentials not found in native keychain; exit 1")
    assert user(load(tmp_path, {}, credsStore="test"), "h.io/x") is None


@pytest.mark.parametrize(
    "text", ["printf 'broken\\033[31m' >&2; exit 3", "echo nonsense", "echo '{\"Username\": 1}'"]
)
def test_a_failing_helper_is_named(tmp_path: Path, helper: Path, text: str) -> None:
    script(helper, text)
    with pytest.raises(UsageError, match=r"credential helper test for h\.io") as caught:
        load(tmp_path, {}, credHelpers={"h.io": "test"}).find(Repository("h.io", "x"))
    assert "\x1b" not in caught.value.message


def test_a_failing_helper_is_run_once(tmp_path: Path, helper: Path) -> None:
    log = tmp_path / "log"
    script(helper, f"read server; echo $server >> {log}; exit 1")
    credentials = load(tmp_path, {}, credHelpers={"h.io": "test", "i.io": "test"})
    for name in ("a", "b", "a"):
        with pytest.raises(UsageError, match=r"credential helper test for h\.io: ended with"):
            credentials.find(Repository("h.io", name))
    with pytest.raises(UsageError, match=r"for i\.io"):
        credentials.find(Repository("i.io", "a"))
    assert log.read_text() == "h.io\ni.io\n"


def test_a_missing_helper_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot run docker-credential-absent"):
        load(tmp_path, {}, credsStore="absent").find(Repository("h.io", "x"))
