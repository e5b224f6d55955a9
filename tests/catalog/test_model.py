from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from airgap.catalog.model import Bundle, Catalog

_NAMES = st.text(st.characters(codec="utf-8"), max_size=3)
_BUNDLES = st.builds(
    Bundle, _NAMES, _NAMES, image=_NAMES, related_images=st.lists(_NAMES, max_size=4).map(tuple)
)


def test_a_bundle_wants_its_own_image_first_and_each_once() -> None:
    bundle = Bundle("etcd", "etcd.1", image="b", related_images=("a", "b", "", "c"))
    assert bundle.images == ("b", "a", "c")


def test_images_without_a_bundle_are_wanted_too() -> None:
    bundle = Bundle("etcd", "etcd.1", image="b")
    catalog = Catalog((), (bundle,), other_images=("c", "b", "a"))
    assert list(catalog.wanted().items()) == [("a", ()), ("b", (bundle,)), ("c", ())]


@given(st.lists(_BUNDLES).map(tuple))
def test_what_is_wanted_is_what_the_bundles_want(bundles: tuple[Bundle, ...]) -> None:
    catalog = Catalog((), bundles)
    wanted = catalog.wanted()
    assert tuple(wanted) == catalog.images
    assert list(wanted) == sorted(wanted, key=lambda image: image.encode())
    for bundle in bundles:
        assert all(bundle in wanted[image] for image in bundle.images)
    assert sum(map(len, wanted.values())) == sum(len(bundle.images) for bundle in bundles)
