from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airgap.digest import digest_of
from airgap.errors import RegistryError
from airgap.registry import locations

if TYPE_CHECKING:
    from collections.abc import Callable

BASE = "https://203.0.113.7/v2/ns/repo/blobs/x?secret=1"  # an address, so that nothing is looked up
PUBLIC = "https://8.8.8.8/v2/"


@pytest.mark.parametrize(
    ("base", "location", "expected"),
    [
        (PUBLIC, "https://cdn.example.com/a?sig=1", "https://cdn.example.com/a?sig=1"),
        (PUBLIC, "/other?x=1#frag", "https://8.8.8.8/other?x=1"),
        (PUBLIC, "next", "https://8.8.8.8/v2/next"),
        ("http://10.0.0.1:5000/v2/", "http://10.0.0.2/a", "http://10.0.0.2/a"),
        ("http://localhost:5000/v2/", "http://127.0.0.1/a", "http://127.0.0.1/a"),
        ("http://10.0.0.1/v2/", "https://8.8.4.4/a", "https://8.8.4.4/a"),
    ],
)
def test_follows_a_redirect_that_is_safe(base: str, location: str, expected: str) -> None:
    assert locations.redirect_target(base, location) == expected


@pytest.mark.parametrize(
    "location",
    [
        "http://cdn.example.com/a",
        "file:///etc/passwd",
        "ftp://cdn.example.com/a",
        "https://user:pw@cdn.example.com/",
        "https://evil@8.8.8.8/",
        "https://127.0.0.1/",
        "https://localhost/",
        "https://a.localhost/",
        "https://10.0.0.1/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://169.254.169.254/latest",
        "https://[::1]/",
        "https://[fe80::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://0.0.0.0/",
        "https://[broken/",
        "https://host:port/",
        "https://cdn.example.com/a\r\nX-Evil: 1",
        "https://cdn.example.com/a b",
    ],
)
def test_refuses_a_redirect_that_is_not(location: str) -> None:
    with pytest.raises(RegistryError):
        locations.redirect_target(PUBLIC, location)


def test_link_local_is_refused_from_the_inside_too() -> None:
    with pytest.raises(RegistryError):
        locations.redirect_target("http://10.0.0.1/v2/", "http://169.254.169.254/latest")


def test_no_refusal_shows_a_query() -> None:
    with pytest.raises(RegistryError) as caught:
        locations.redirect_target(BASE, "http://cdn.example.com/a?sig=canary")
    assert "canary" not in caught.value.message
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("/v2/r/blobs/uploads/1?_state=a%3D", "https://8.8.8.8/v2/r/blobs/uploads/1?_state=a%3D"),
        ("uploads/1", "https://8.8.8.8/v2/uploads/1"),
        ("http://8.8.8.8/u/1?s=1", "https://8.8.8.8/u/1?s=1"),
        ("http://8.8.8.8:5000/u/1", "https://8.8.8.8/u/1"),
        ("https://store.example.com/u?s=1", "https://store.example.com/u?s=1"),
    ],
)
def test_resolves_an_upload_location(location: str, expected: str) -> None:
    assert locations.upload_target(PUBLIC, location) == expected


@pytest.mark.parametrize(
    "location", ["http://store.example.com/u", "https://10.0.0.1/u", "https://u:p@8.8.8.8/u"]
)
def test_refuses_an_unsafe_upload_location(location: str) -> None:
    with pytest.raises(RegistryError):
        locations.upload_target(PUBLIC, location)


@given(st.dictionaries(st.text(min_size=1), st.text(min_size=1), max_size=4))
def test_a_digest_is_added_and_the_query_kept(query: dict[str, str]) -> None:
    from urllib.parse import urlencode

    url = "https://h/u" + (f"?{urlencode(query)}" if query else "")
    digest = digest_of(b"x")
    added = urlsplit(locations.with_digest(url, digest))
    assert parse_qsl(added.query) == [*query.items(), ("digest", str(digest))]


def test_the_next_page_is_at_the_same_host() -> None:
    assert locations.next_page(PUBLIC, "/v2/x?last=a") == "https://8.8.8.8/v2/x?last=a"
    with pytest.raises(RegistryError):
        locations.next_page(PUBLIC, "https://cdn.example.com/v2/x?last=a")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://Quay.IO/x", "quay.io:443"),
        ("https://quay.io.:443/", "quay.io:443"),
        ("http://quay.io", "quay.io:80"),
        ("http://[FD00::1]:5000/", "[fd00::1]:5000"),
    ],
)
def test_hosts_are_compared_in_one_form(url: str, expected: str) -> None:
    assert locations.authority(url) == expected


_URL_PARTS = st.text("aZ1.:/?#@[]%-\\ ", max_size=12)


@given(st.sampled_from(["https://", "http://", "HTTP://", "//", ""]), _URL_PARTS)
def test_no_url_has_another_host_in_parts_than_whole(scheme: str, rest: str) -> None:
    def named(url: Callable[[], str]) -> object:
        try:
            parts = urlsplit(url())
            return parts.netloc, parts.hostname, parts.port
        except ValueError:
            return "no URL"

    url = scheme + rest
    assert named(lambda: locations.divided(url)[0]) == named(lambda: url)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://h:1/v2/a?x=/1", ("http://h:1", "/v2/a?x=/1")),
        ("http://h:1", ("http://h:1", "/")),
        ("http://h?x=/1", ("http://h", "/?x=/1")),
        ("http://h/?", ("http://h", "/?")),
    ],
)
def test_what_names_the_server_and_what_is_asked_of_it(url: str, expected: object) -> None:
    assert locations.divided(url) == expected
