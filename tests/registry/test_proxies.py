from __future__ import annotations

import pytest

from airgap.errors import UsageError
from airgap.registry.proxies import Proxies

PROXY = "http://user:hunter2@proxy:3128"


def test_each_scheme_has_its_proxy() -> None:
    proxies = Proxies.from_environ({"HTTPS_PROXY": "a:1", "http_proxy": "https://b:2"})
    assert proxies.choose("https", "quay.io", 443) == "http://a:1"
    assert proxies.choose("http", "quay.io", 80) == "https://b:2"
    both = Proxies.from_environ({"ALL_PROXY": "http://c:3"})
    assert both.choose("https", "x", 443) == both.choose("http", "x", 80) == "http://c:3"


def test_lower_case_goes_before_upper_case() -> None:
    proxies = Proxies.from_environ({"HTTPS_PROXY": "http://upper", "https_proxy": "http://lower"})
    assert proxies.choose("https", "x", 443) == "http://lower"


@pytest.mark.parametrize(
    ("no_proxy", "host", "straight"),
    [
        ("*", "quay.io", True),
        ("quay.io", "quay.io", True),
        ("quay.io", "cdn.quay.io", True),
        (".quay.io", "cdn.quay.io", True),
        ("*.quay.io", "cdn.quay.io", True),
        ("quay.io", "evilquay.io", False),
        ("QUAY.io ", "quay.io", True),
        ("quay.io:443", "quay.io", True),
        ("quay.io:8443", "quay.io", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3:443", "10.1.2.3", True),
        ("fd00::/8", "[fd00::1]", True),
        ("[fd00::1]", "fd00::1", True),
        ("a,,b , quay.io", "quay.io", True),
        ("", "quay.io", False),
    ],
)
def test_no_proxy_knows_names_suffixes_networks_and_ports(
    no_proxy: str, host: str, straight: bool
) -> None:
    proxies = Proxies.from_environ({"HTTPS_PROXY": PROXY, "NO_PROXY": no_proxy})
    assert (proxies.choose("https", host, 443) == "") is straight


@pytest.mark.parametrize("value", ["socks5://hunter2", "http://", "http://[hunter2", "ftp://x"])
def test_refuses_another_proxy_without_quoting_it(value: str) -> None:
    with pytest.raises(UsageError, match="HTTPS_PROXY") as caught:
        Proxies.from_environ({"HTTPS_PROXY": value})
    assert "hunter2" not in caught.value.message


def test_has_no_representation_that_shows_a_password() -> None:
    assert "hunter2" not in repr(Proxies.from_environ({"HTTPS_PROXY": PROXY}))
