from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airgap.catalog import formats, read
from airgap.catalog.rebuild import Rebuilt, rebuild, serving_command
from airgap.catalog.reduce import reduced
from airgap.catalog.select import PackageChoice, Places, Selection, select
from airgap.catalog.tree import LocalTree
from airgap.errors import UsageError
from tests.catalog.test_reduce import is_sound
from tests.support import published
from tests.support.layers import file, layer, tree
from tests.support.second_reader import SecondReading, of_database, of_documents
from tests.support.shared import SHARED
from tests.support.trees import image_of

if TYPE_CHECKING:
    from airgap.catalog.model import Catalog
    from airgap.catalog.read import Found
    from airgap.catalog.tree import Tree

_HERE = Path(__file__).resolve().parents[1] / "data" / "catalogs"


def _directories() -> list[Path]:
    roots = [_HERE / "file-based", *([SHARED / "catalogs" / "fbc-real"] if SHARED else [])]
    return sorted(path for root in roots for path in root.iterdir() if path.is_dir())


def database_image(database: Path) -> Tree:
    return tree(layer(file("database/index.db", database.read_bytes())))


@pytest.fixture(
    params=[*published.databases(), *_directories()],
    ids=lambda path: published.name(path),
)
def image(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Tree, Found]:
    """A published catalog in an image."""
    path: Path = request.param
    if path.is_dir():
        files: Tree = image_of(path, "configs")
        return files, read.read(files, {formats.CONFIGS_LABEL: "/configs"})
    files = database_image(published.unpacked(path, tmp_path))
    return files, read.read(files, {formats.DATABASE_LABEL: "/database/index.db"})


def some(catalog: Catalog, share: float, seed: int) -> Places:
    """A part of the places of a catalog, chosen at random."""
    chance = random.Random(seed)
    return {
        place: {name for name in sorted(names) if chance.random() < share}
        for place, names in select(catalog, Selection()).places.items()
    }


def second_reading(rebuilt: Rebuilt) -> SecondReading:
    """What somebody reads in the files who knows nothing of us."""
    paths = [path for path, _ in rebuilt.files]
    locals_ = [local for _, local in rebuilt.files]
    return of_database(locals_[0]) if paths == ["database/index.db"] else of_documents(locals_)


def model_as_second_reading(catalog: Catalog) -> SecondReading:
    return SecondReading(
        packages={
            package.name: (
                package.default_channel,
                {
                    channel.name: {
                        entry.bundle: frozenset(filter(None, (entry.replaces, *entry.skips)))
                        for entry in channel.entries
                    }
                    for channel in package.channels
                },
            )
            for package in catalog.packages
        },
        images={bundle.name: frozenset(bundle.images) for bundle in catalog.bundles},
    )


@pytest.mark.parametrize(("share", "seed"), [(1, 0), (0.9, 1), (0.5, 2), (0.2, 3)])
def test_published_catalogs_are_rebuilt_as_what_was_decided(
    image: tuple[Tree, Found], tmp_path: Path, share: float, seed: int
) -> None:
    files, found = image
    places = some(found.catalog, share, seed)
    wanted = reduced(found.catalog, places)
    target = tmp_path / "rebuilt"
    target.mkdir()
    if not wanted.packages:
        with pytest.raises(UsageError, match="nothing that is selected"):
            rebuild(files, found, places, {}, target)
        return
    rebuilt = rebuild(files, found, places, {}, target)
    assert second_reading(rebuilt) == model_as_second_reading(wanted)
    assert rebuilt.remarks[: len(wanted.problems)] == wanted.problems
    again = _read_again(rebuilt, found)
    assert (again.packages, again.bundles) == (wanted.packages, wanted.bundles)
    assert set(again.images) <= set(found.catalog.images)
    assert not again.unreadable
    for package in again.packages:
        assert package.default_channel in {channel.name for channel in package.channels}
        assert all(is_sound(channel) for channel in package.channels)
    once_more = tmp_path / "once more"
    once_more.mkdir()
    assert contents(rebuild(files, found, places, {}, once_more)) == contents(rebuilt)


def contents(rebuilt: Rebuilt) -> list[tuple[str, bytes]]:
    return [(path, local.read_bytes()) for path, local in rebuilt.files]


def _read_again(rebuilt: Rebuilt, found: Found) -> Catalog:
    """Read the files as an image that has nothing else."""
    members = [file(path, content) for path, content in contents(rebuilt)]
    label = formats.DATABASE_LABEL if found.format == formats.SQLITE else formats.CONFIGS_LABEL
    return read.read(tree(layer(*members)), {label: found.path}).catalog


def test_the_default_channel_is_the_one_wished_for(tmp_path: Path) -> None:
    files = image_of(_HERE / "file-based" / "submariner-4-20", "configs")
    found = read.read(files, {formats.CONFIGS_LABEL: "/configs"})
    (package,) = found.catalog.packages
    wish = next(c.name for c in package.channels if c.name != package.default_channel)
    places = select(found.catalog, Selection((PackageChoice(package.name),))).places
    rebuilt = rebuild(files, found, places, {package.name: wish}, tmp_path)
    assert second_reading(rebuilt).packages[package.name][0] == wish


def test_package_manifests_are_not_rebuilt(tmp_path: Path) -> None:
    files = LocalTree(_HERE / "package-manifests")
    found = read.read(files, {})
    places = select(found.catalog, Selection()).places
    with pytest.raises(UsageError, match="package manifests cannot be rebuilt") as caught:
        rebuild(files, found, places, {}, tmp_path)
    assert caught.value.hint


class TestServingCommand:
    @pytest.mark.parametrize(
        ("entrypoint", "command", "left"),
        [
            (["/bin/opm"], ["serve", "/configs", "--cache-dir=/tmp/cache"], "serve /configs"),
            (["/bin/opm"], ["serve", "--cache-dir", "/tmp/cache", "/configs"], "serve /configs"),
            (
                ["/bin/opm"],
                [
                    "serve",
                    "/configs",
                    "--cache-dir=/c",
                    "--cache-enforce-integrity=false",
                    "-p",
                    "1",
                ],
                "serve /configs -p 1",
            ),
            (
                ["/bin/opm"],
                ["serve", "/configs", "--cache-dir=/c", "--cache-only"],
                "serve /configs",
            ),
            (["/bin/opm"], ["serve", "/configs", "--cache-directory=/c"], None),
            (["/bin/opm"], ["registry", "serve", "--database", "/index.db"], None),
            (["/bin/opm"], [], None),
        ],
    )
    def test_asks_for_no_cache(
        self, entrypoint: list[str], command: list[str], left: str | None
    ) -> None:
        config = {
            "config": {"Entrypoint": entrypoint, "Cmd": command, "User": "1001"},
            "os": "linux",
        }
        kept = command if left is None else left.split()
        assert serving_command(config) == {
            "config": {"Entrypoint": entrypoint, "Cmd": kept, "User": "1001"},
            "os": "linux",
        }
        assert config["config"]["Cmd"] is command  # type: ignore[index]

    def test_may_be_cut_in_two_anywhere(self) -> None:
        config = {
            "config": {"Entrypoint": ["opm", "serve", "--cache-dir"], "Cmd": ["/c", "/configs"]}
        }
        assert serving_command(config)["config"] == {
            "Entrypoint": ["opm", "serve"],
            "Cmd": ["/configs"],
        }

    def test_may_be_a_shells(self) -> None:
        text = "exec opm serve /configs --cache-dir=/tmp/cache --cache-enforce-integrity -p 50051"
        config = {"config": {"Cmd": ["/bin/sh", "-c", text]}}
        assert serving_command(config)["config"]["Cmd"][2] == "exec opm serve /configs -p 50051"

    @pytest.mark.parametrize(
        "config",
        [{}, {"config": None}, {"config": {"Cmd": None}}, {"config": {"Cmd": [1, None, ["x"]]}}],
    )
    def test_may_not_be_there(self, config: dict[str, Any]) -> None:
        assert serving_command(config) == config
