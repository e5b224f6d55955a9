"""The shape of the program: who may know whom, and who owns what.

A module may import from floors below its own, and from its own package. Moving a line in these
tables is a fine change to make, as long as someone meant it.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

FLOORS = [  # from the ground up
    ["errors", "progress", "limits", "arrival"],
    ["strict_json", "storage", "digest"],
    ["reference"],
    ["oci"],
    ["catalog"],
    ["imageset", "mapping_file"],
    ["plan"],
    ["receipt"],
    ["registry", "archive", "mapping"],
    ["crew"],
    ["transfer", "cluster", "question", "since"],
    ["places", "asking", "sending"],
    ["offers", "shelves"],
    ["local_catalogs", "rebuilding"],
    ["abreast", "planner", "manifests", "inquiry", "sighting"],
    ["delivery", "pushing"],
    ["upstream", "swapping", "browser", "assumed", "streaming", "export_run"],
    [
        "exporter",
        "importer",
        "mirrorer",
        "copier",
        "verifier",
        "inspector",
        "lister",
        "reshaper",
        "attester",
        "serving",
        "differ",
    ],
    ["cli"],
    ["__init__", "__main__"],
]

OWNERS = {  # what only some may import
    "urllib3": {"registry"},
    "certifi": {"registry"},
    "click": {"cli"},
    "tqdm": {"cli"},
    "sqlite3": {"catalog"},
    "hashlib": {"digest"},
    "pickle": set(),
}

FORBIDDEN_CALLS = {"print", "extractall", "extract"}
FORBIDDEN_ARGUMENTS = {("shell", True), ("verify", False)}

VERSION = "airgap.__version__"  # every floor may know it

PACKAGE = Path(__file__).resolve().parents[1] / "airgap"
MODULES = sorted(PACKAGE.rglob("*.py"))
STOREY = {part: number for number, floor in enumerate(FLOORS) for part in floor}


def part_of(module: Path) -> str:
    """Return a module's place in the tables: its package, or itself."""
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(module: Path) -> Iterator[tuple[int, str]]:
    """Give everything a module imports, in dotted form, for types alone as well."""
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: a relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def own_part(dotted: str) -> str | None:
    """Return which part of the program an import is of; None for everything else."""
    package, _, rest = dotted.partition(".")
    if package != PACKAGE.name:
        return None
    part = rest.partition(".")[0]
    return part if (PACKAGE / part).is_dir() or (PACKAGE / f"{part}.py").exists() else "__init__"


@pytest.fixture(params=MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def module(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_every_module_stands_on_a_floor(module: Path) -> None:
    assert part_of(module) in STOREY, f"{module}: not in the table of floors"


def test_contributors_are_told_the_same_floors() -> None:
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text("utf-8")
    rows = re.findall(r"^\|[^|\n]*\| (`.*`) \|$", text, re.MULTILINE)
    told = [re.findall(r"`(\w+)`", row) for row in rows]
    assert [sorted(floor) for floor in reversed(told)] == [sorted(floor) for floor in FLOORS]


def test_imports_point_down(module: Path) -> None:
    here = part_of(module)
    for line, dotted in imports(module):
        part = own_part(dotted)
        if part is None or part == here:
            continue
        assert part in STOREY, f"{module}:{line}: imports {dotted}, which stands on no floor"
        below = STOREY[part] < STOREY[here] or dotted == VERSION
        assert below, f"{module}:{line}: {here} imports {dotted}"


def test_what_has_an_owner_is_imported_by_its_owner(module: Path) -> None:
    for line, dotted in imports(module):
        owners = OWNERS.get(dotted.partition(".")[0])
        assert owners is None or part_of(module) in owners, f"{module}:{line}: imports {dotted}"


def test_nothing_dangerous_is_called(module: Path) -> None:
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        called = getattr(node.func, "attr", getattr(node.func, "id", ""))
        assert called not in FORBIDDEN_CALLS, f"{module}:{node.lineno}: calls {called}"
        for keyword in node.keywords:
            value = getattr(keyword.value, "value", None)
            given = f"{keyword.arg}={value}"
            assert (keyword.arg, value) not in FORBIDDEN_ARGUMENTS, (
                f"{module}:{node.lineno}: {given}"
            )
