from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airgap.catalog import dependencies, sqlite
from airgap.catalog.dependencies import meets, resolve
from airgap.catalog.model import Bundle, Catalog, Channel, ChannelEntry, Package
from airgap.catalog.properties import (
    AllOf,
    AnyOf,
    Api,
    NoneOf,
    PackageVersions,
    Requirement,
    Undecided,
)
from airgap.catalog.tree import LocalFile
from airgap.errors import CatalogError
from tests.support import published

if TYPE_CHECKING:
    from pathlib import Path

BLUE, GREEN, RED = (Api("colours", "v1", name) for name in ("Blue", "Green", "Red"))


def bundle(
    package: str, version: str, *requires: Requirement, provides: tuple[Api, ...] = ()
) -> Bundle:
    return Bundle(package, f"{package}.{version}", version, provides=provides, requires=requires)


def catalog(*bundles: Bundle, default: str = "stable") -> Catalog:
    """One channel for each package, the bundles in it from the oldest to the newest."""
    packages: dict[str, list[str]] = {}
    for each in bundles:
        packages.setdefault(each.package, []).append(each.name)
    return Catalog(
        tuple(
            Package(
                package,
                default,
                (
                    Channel(
                        "stable",
                        names[-1],
                        tuple(map(ChannelEntry, names, ["", *names])),
                    ),
                ),
            )
            for package, names in packages.items()
        ),
        bundles,
    )


@pytest.mark.parametrize(
    "requirement",
    [
        AnyOf((*(Api("g", "v", str(n)) for n in range(50)), PackageVersions("a", ">9.0.0"))),
        AnyOf((PackageVersions("a", ">9.0.0"),) * 50),
        AllOf((PackageVersions("a", ">0.0.0"), *(NoneOf((BLUE,)) for _ in range(50)))),
    ],
)
def test_refuses_more_comparisons_than_any_catalog_takes(
    requirement: Requirement, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundles = [bundle("a", f"1.0.{number}", requirement) for number in range(20)]
    monkeypatch.setattr(dependencies, "_COMPARISONS", 4_000)
    assert resolve(catalog(*bundles), bundles).needs
    monkeypatch.setattr(dependencies, "_COMPARISONS", 1_000)
    with pytest.raises(CatalogError, match="more than 1000 comparisons"):
        resolve(catalog(*bundles), bundles)


@pytest.mark.parametrize(
    ("requirement", "met"),
    [
        (BLUE, True),
        (RED, False),
        (PackageVersions("paint", ">=1.0.0 <2.0.0"), True),
        (PackageVersions("paint", ">=2.0.0"), False),
        (PackageVersions("other", ">=1.0.0"), False),
        (PackageVersions("paint", "any"), False),
        (AllOf((BLUE, GREEN)), True),
        (AllOf((BLUE, RED)), False),
        (AnyOf((RED, GREEN)), True),
        (AnyOf(()), False),
        (NoneOf((RED,)), True),
        (NoneOf((RED, GREEN)), False),
        (AllOf((BLUE, NoneOf((PackageVersions("paint", "1.5.0"),)))), False),
        (Undecided("cel"), False),
    ],
)
def test_a_requirement_is_a_test_of_one_bundle(requirement: Requirement, met: bool) -> None:
    assert meets(bundle("paint", "1.5.0", provides=(BLUE, GREEN)), requirement) is met


def test_what_is_required_is_found_step_by_step() -> None:
    app = bundle("app", "1.0.0", BLUE, PackageVersions("green", ">=1.0.0"))
    blue = bundle("blue", "1.0.0", RED, provides=(BLUE,))
    green, red = bundle("green", "1.0.0"), bundle("red", "1.0.0", provides=(RED,))
    found = resolve(catalog(app, blue, green, red), [app])
    assert found.further == (blue, green, red)
    assert [(need.bundle, need.met_by) for need in found.needs] == [
        (app, blue),
        (app, green),
        (blue, red),
    ]
    assert found.unmet == ()


def test_what_nothing_meets_is_told() -> None:
    app = bundle("app", "1.0.0", BLUE, Undecided("cel"), PackageVersions("app", "no range"))
    found = resolve(catalog(app), [app])
    assert [need.requirement for need in found.unmet] == list(app.requires)
    assert found.further == ()


def test_what_is_needed_and_what_nothing_meets_is_put_into_words() -> None:
    apps = [bundle(name, "1.0.0", BLUE, Undecided("cel"), RED) for name in ("app", "too")]
    blue = bundle("blue", "1.0.0", provides=(BLUE,))
    own = bundle("own", "1.0.0", provides=(RED,))
    found = resolve(catalog(*apps, blue, own), [*apps, own])
    assert list(found.in_words()) == [
        f"{blue.name} of package blue is needed too, by {apps[0].name}, {apps[1].name}: {BLUE}",
        f"nothing in the catalog meets what is needed by {apps[0].name}, {apps[1].name}:"
        " something of type cel",
    ]


def test_who_requires_one_another_comes_to_an_end() -> None:
    one = bundle("one", "1.0.0", GREEN, provides=(BLUE,))
    two = bundle("two", "1.0.0", BLUE, provides=(GREEN,))
    assert resolve(catalog(one, two), [one]).further == (two,)


def test_a_bundle_may_meet_its_own_need() -> None:
    own = bundle("own", "1.0.0", BLUE, provides=(BLUE,))
    other = bundle("a-other", "1.0.0", provides=(BLUE,))
    assert resolve(catalog(other, own), [own]).further == ()


def test_forbidding_asks_for_nothing() -> None:
    app = bundle("app", "1.0.0", NoneOf((BLUE,)), AllOf((NoneOf((RED,)),)), AnyOf(()))
    assert resolve(catalog(app), [app]).needs == ()


class TestPreference:
    def test_is_for_the_newest(self) -> None:
        app = bundle("app", "1.0.0", PackageVersions("db", ">=1.0.0"))
        old, new = bundle("db", "1.0.0"), bundle("db", "2.0.0")
        assert resolve(catalog(app, old, new), [app]).further == (new,)

    def test_is_for_the_newest_in_the_range(self) -> None:
        app = bundle("app", "1.0.0", PackageVersions("db", "<2.0.0"))
        old, new = bundle("db", "1.0.0"), bundle("db", "2.0.0")
        assert resolve(catalog(app, old, new), [app]).further == (old,)

    def test_is_for_what_is_selected_anyway(self) -> None:
        app = bundle("app", "1.0.0", PackageVersions("db", ">=1.0.0"))
        old, new = bundle("db", "1.0.0"), bundle("db", "2.0.0")
        assert resolve(catalog(app, old, new), [app, old]).further == ()

    def test_is_for_default_channels_then_for_names(self) -> None:
        app = bundle("app", "1.0.0", BLUE)
        alpha = bundle("alpha", "1.0.0", provides=(BLUE,))
        beta, gamma = (bundle(name, "1.0.0", provides=(BLUE,)) for name in ("beta", "gamma"))
        others, defaults = catalog(alpha, app, default="none"), catalog(gamma, beta)
        both = Catalog(others.packages + defaults.packages, others.bundles + defaults.bundles)
        assert resolve(both, [app]).further == (beta,)

    def test_is_not_for_what_stands_in_no_channel(self) -> None:
        app, loose = bundle("app", "1.0.0", BLUE), bundle("loose", "1.0.0", provides=(BLUE,))
        channels = catalog(app)
        found = resolve(Catalog(channels.packages, (app, loose)), [app])
        assert found.unmet != ()

    def test_of_several_alternatives_is_the_same(self) -> None:
        app = bundle("app", "1.0.0", AnyOf((GREEN, NoneOf((RED,)), BLUE)))
        blue = bundle("blue", "1.0.0", provides=(BLUE,))
        green = bundle("green", "1.0.0", provides=(GREEN,))
        assert resolve(catalog(app, green, blue), [app]).further == (blue,)

    def test_is_for_one_bundle_that_meets_all(self) -> None:
        app = bundle("app", "1.0.0", AllOf((NoneOf((RED,)), BLUE, GREEN)))
        half = bundle("a", "1.0.0", provides=(BLUE,))
        wrong = bundle("b", "1.0.0", provides=(BLUE, GREEN, RED))
        right = bundle("c", "1.0.0", provides=(BLUE, GREEN))
        assert resolve(catalog(app, half, wrong, right), [app]).further == (right,)


@pytest.mark.parametrize("path", published.databases(), ids=published.name)
def test_resolves_published_catalogs(path: Path, tmp_path: Path) -> None:
    whole = sqlite.read(LocalFile.at(published.unpacked(path, tmp_path)))
    for each in whole.bundles:
        found = resolve(whole, [each])
        assert set(found.further) <= set(whole.bundles) - {each}
        for need in found.needs:
            assert need.met_by is None or meets(need.met_by, need.requirement)
    assert resolve(whole, whole.bundles).further == ()


def test_finds_a_dependency_in_a_published_catalog() -> None:
    path = next(path for path in published.databases() if path.name.startswith("infrawatch"))
    whole = sqlite.read(LocalFile.at(path))
    (telemetry,) = (b for b in whole.bundles if b.name == "service-telemetry-operator.v1.1.0")
    found = resolve(whole, [telemetry])
    assert [b.name for b in found.further] == ["smart-gateway-operator.v2.1.0"]
    assert Api("monitoring.coreos.com", "v1", "Prometheus") in {
        need.requirement for need in found.unmet
    }
