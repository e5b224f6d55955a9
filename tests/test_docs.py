"""What the documentation says is true: commands, statuses, links, names, and code that runs.

``python -m tests.test_docs`` (or ``scripts/docs``) writes ``docs/reference/cli.md`` anew.
"""

from __future__ import annotations

import ast
import dataclasses
import errno
import inspect
import itertools
import os
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest

import airgap
from airgap import errors
from airgap.cli.main import cli
from airgap.digest import digest_of
from airgap.plan import Reason, assuming
from tests.archive.test_volumes import larger_content, limit_for
from tests.support.plans import archive_of, begin, fill, some_content

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
COMMANDS_PAGE = DOCS / "reference" / "cli.md"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])


def _commands(group: click.Group, before: str = "") -> Iterator[tuple[str, click.Command]]:
    """Give every command that does something, by its full name."""
    context = click.Context(group)
    for name in sorted(group.list_commands(context)):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from _commands(command, f"{before}{name} ")
        else:
            yield before + name, command


COMMANDS = list(_commands(cli))

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")


# The page of commands, made from what click knows


def commands_page() -> str:
    """Return the page, the same with every version of click."""
    return "\n".join(
        [
            "# Commands",
            "",
            "Made from the program's own help by `scripts/docs`. `airgap COMMAND --help` says the",
            "same. See also [exit statuses](exit-statuses.md) and"
            " [files and environment](files-and-environment.md).",
            *(line for name, command in COMMANDS for line in _command(name, command)),
            "",
        ]
    )


def _command(name: str, command: click.Command) -> Iterator[str]:
    arguments = [str(p.make_metavar(click.Context(command))) for p in _arguments(command)]
    yield from ("", f"## `airgap {name}`", "")
    yield from ("```", " ".join(["airgap", name, "[OPTIONS]", *arguments]), "```", "")
    prose, _, examples = _help(command).partition("Examples:\n")
    yield from (prose.strip(), "", "```sh", textwrap.dedent(examples), "```", "")
    yield from ("| option | meaning |", "|---|---|")
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            yield f"| {_names(parameter)} | {_meaning(parameter)} |"


def _help(command: click.Command) -> str:
    """Return the help without the mark that keeps click from joining lines."""
    return re.sub(r"^(\x08|\\b)\n", "", inspect.cleandoc(command.help or ""), flags=re.MULTILINE)


def _arguments(command: click.Command) -> list[click.Parameter]:
    return [p for p in command.params if isinstance(p, click.Argument)]


def _names(option: click.Option) -> str:
    names = [f"`{name}`" for name in (*option.opts, *option.secondary_opts)]
    if option.is_flag or option.count:
        return ", ".join(names)
    value = "FILE" if isinstance(option.type, click.Path) else option.type.name.upper()
    if isinstance(option.type, click.Choice):
        value = "\\|".join(option.type.choices)
    elif isinstance(option.type, click.IntRange):
        value = "N"
    return f"{', '.join(names)} {value.replace('INTEGER', 'N')}"


def _meaning(option: click.Option) -> str:
    parts = [option.help] if option.help else []
    if isinstance(option.type, click.IntRange) and not option.count:
        parts.append(f"From {option.type.min} to {option.type.max}.")
    if option.required:
        parts.append("Required.")
    if option.show_default and not option.is_flag:
        parts.append(f"Default: `{option.default}`.")
    elif option.show_default:
        chosen = option.opts if option.default else option.secondary_opts
        parts.append(f"Default: `{chosen[0]}`.")
    return " ".join(parts)


def test_the_page_of_commands_is_what_the_program_says() -> None:
    assert COMMANDS_PAGE.read_text("utf-8") == commands_page(), "run scripts/docs"


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_every_command_has_help_and_an_example(name: str, command: click.Command) -> None:
    examples = _help(command).partition("Examples:\n")[2].splitlines()
    assert examples
    assert all(line.strip().startswith(f"airgap {name} ") for line in examples)
    assert command.short_help


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_help_shows_an_example_on_a_line(name: str, command: click.Command) -> None:
    shown = command.get_help(
        click.Context(command, info_name=name, help_option_names=["-h", "--help"])
    ).splitlines()
    for example in _help(command).partition("Examples:\n")[2].splitlines():
        assert any(line.strip() == example.strip() for line in shown), example


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_examples_in_help_use_options_that_exist(name: str, command: click.Command) -> None:
    known = {text for p in command.params for text in (*p.opts, *p.secondary_opts)}
    assert set(_OPTION.findall(_help(command))) <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_page_shows_airgap_with_an_option_it_has_not(page: Path) -> None:
    for line in page.read_text("utf-8").replace("\\\n", " ").splitlines():
        for name, command in COMMANDS:
            _, found, rest = line.partition(f"airgap {name} ")
            known = {text for p in command.params for text in (*p.opts, *p.secondary_opts)}
            if found and not line.startswith("|"):
                assert set(_OPTION.findall(rest)) <= known | {"--help"}, line


# Statuses, reasons and names


def _table(page: Path, heading: str) -> dict[str, str]:
    """Return the first two columns of the first table below a heading."""
    lines = page.read_text("utf-8").partition(heading)[2].splitlines()
    from_table = itertools.dropwhile(lambda line: not line.startswith("|"), lines)
    table = itertools.takewhile(lambda line: line.startswith("|"), from_table)
    rows = [line.strip("|").split(" | ") for line in table]
    return {row[0].strip(): row[1].strip() for row in rows[2:]}


def _families() -> dict[str, int]:
    classes = [c for c in vars(errors).values() if inspect.isclass(c)]
    return {c.__name__: c.exit_status for c in classes if issubclass(c, errors.AirgapError)}


STATUSES = {"0", *map(str, _families().values()), str(errors.HOLES), "130, 143"} - {"130"}


@pytest.mark.parametrize(
    ("page", "heading"),
    [(ROOT / "README.md", "## Exit statuses"), (DOCS / "reference/exit-statuses.md", "# Exit")],
    ids=["README", "exit-statuses"],
)
def test_the_statuses_are_the_program_s(page: Path, heading: str) -> None:
    listed = {status for status in _table(page, heading) if status[:1].isdigit()}
    assert listed == STATUSES


def test_each_error_is_listed_with_its_status() -> None:
    listed = _table(DOCS / "reference" / "exit-statuses.md", "## Errors in Python")
    found = {
        name: int(status)
        for names, status in listed.items()
        for name in re.findall(r"\w+", names)
        if status.isdigit()
    }
    assert found == _families()


def test_what_counts_first_is_told_as_the_program_has_it() -> None:
    text = (DOCS / "reference" / "exit-statuses.md").read_text("utf-8")
    order = re.search(r"the first of this list counts: ([\d, ]+)\.", text)
    assert order is not None
    told = [int(number) for number in order[1].split(", ")]
    assert [errors.worst(told[n:]) for n in range(len(told))] == told


def test_the_closed_list_of_reasons_is_complete() -> None:
    listed = _table(DOCS / "reference" / "archive-format.md", "### Why an image is a hole")
    assert {name.strip("`") for name in listed} == {reason.value for reason in Reason}


def test_every_public_name_is_explained() -> None:
    text = (DOCS / "reference" / "python.md").read_text("utf-8")
    explained = set(re.findall(r"`(\w+)[`(]", text))
    assert set(airgap.__all__) - {"__version__"} <= explained


@pytest.mark.parametrize(
    "name",
    [
        "ExportResult",
        "ImportResult",
        "MirrorResult",
        "Inspection",
        "VerifyResult",
        "ReshapeResult",
        "VolumeFile",
        "VolumeOptions",
        "Missing",
        "Damage",
        "HostActivity",
        "Access",
        "ManifestsOptions",
        "Part",
        "Listed",
    ],
)
def test_every_field_is_listed(name: str) -> None:
    text = (DOCS / "reference" / "python.md").read_text("utf-8")
    (row,) = re.findall(rf"^\| `{name}` \| (.*) \|$", text, re.MULTILINE)
    fields = [field.name for field in dataclasses.fields(getattr(airgap, name))]
    assert re.findall(r"`(\w+)`", row) == fields


@pytest.mark.parametrize(
    "name", ["export", "import_archive", "inspect", "join", "mirror", "split", "verify"]
)
def test_every_parameter_is_listed(name: str) -> None:
    text = (DOCS / "reference" / "python.md").read_text("utf-8")
    (row,) = re.findall(rf"^\| `{name}\((.*)\)` \|", text, re.MULTILINE)
    parameters = list(inspect.signature(getattr(airgap, name)).parameters)
    assert [word for word in row.split(", ") if word != "*"] == parameters


# Messages


def _texts() -> Iterator[str]:
    """Give every text in the program; what is filled in stands as an ellipsis."""
    for module in sorted((ROOT / "airgap").rglob("*.py")):
        for node in ast.walk(ast.parse(module.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = node.values
                yield "".join(str(p.value) if isinstance(p, ast.Constant) else "…" for p in parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_the_messages_to_look_up_are_messages_of_the_program() -> None:
    texts = [*_texts(), *map(os.strerror, (errno.ENOSPC, errno.EFBIG, errno.EIO))]
    page = (DOCS / "how-to" / "troubleshoot.md").read_text("utf-8")
    messages = re.findall(r"\*\*`([^`]*)`\*\*", page)
    assert len(messages) > 40
    for message in messages:
        parts = re.split(r"…|\d+|'[^']*'|/tmp", " ".join(message.split()))
        for part in (part.strip(" :") for part in parts):
            assert any(part in " ".join(text.split()) for text in texts), message


# Links


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(_CODE.sub("", page.read_text("utf-8"))):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page}: {link}"
        assert not anchor or anchor in _anchors(target), f"{page}: {link}"


def test_every_page_is_in_the_index() -> None:
    index = DOCS / "index.md"
    linked = {
        (DOCS / link.partition("#")[0]).resolve() for link in _LINK.findall(index.read_text())
    }
    assert {page for page in PAGES if DOCS in page.parents} - {index} <= linked


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


# Code


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "olm.tar"
    archive_of(path, some_content())
    return path


def blocks(page: str) -> list[str]:
    return _PYTHON.findall((DOCS / page).read_text("utf-8"))


def run(code: str, **names: Any) -> dict[str, Any]:
    space: dict[str, Any] = {"__name__": "documentation", **names}
    exec(compile(code, "documentation", "exec"), space)  # the documentation's own words
    return space


@pytest.mark.usefixtures("archive")
def test_the_example_of_the_python_interface_runs(capsys: pytest.CaptureFixture[str]) -> None:
    run(blocks("reference/python.md")[0])
    assert "quay.io/lab/catalog:v1" in capsys.readouterr().out


@pytest.mark.parametrize("code", blocks("reference/python.md"))
def test_examples_use_public_names_alone(code: str) -> None:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "airgap":
            assert node.attr in airgap.__all__
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("airgap."):
            called = getattr(airgap, ast.unparse(node.func).removeprefix("airgap."))
            known = inspect.signature(called).parameters
            assert {keyword.arg for keyword in node.keywords} <= set(known)


def test_the_reader_in_the_format_s_description_reads_archives(
    archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = blocks("reference/archive-format.md")
    read = run(code)["read"]
    read(archive)
    inspection = airgap.inspect(archive)
    expected = [f"id {inspection.id}", *(f"{i.digest} {i.reference}" for i in inspection.images)]
    assert capsys.readouterr().out.splitlines() == expected


def test_the_reader_in_the_format_s_description_reads_volumes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = blocks("reference/archive-format.md")
    read = run(code)["read"]
    content = larger_content()
    content.absent.add(content.plan().blobs[-1].digest)
    archive_of(tmp_path / "olm.tar", content)
    limit = airgap.VolumeOptions(limit_for(tmp_path / "olm.tar"))
    airgap.split(tmp_path / "olm.tar", limit, output=tmp_path / "olm.tar")
    read(tmp_path / "olm.tar")
    expected = capsys.readouterr().out
    assert f"missing {content.plan().blobs[-1].digest}" in expected
    volumes = sorted(tmp_path.glob("olm.0*"), reverse=True)
    read(*volumes)
    assert capsys.readouterr().out == expected
    with pytest.raises(AssertionError, match="only"):
        read(*volumes[1:])


def test_the_reader_in_the_format_s_description_reads_deltas(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, delta = some_content(), tmp_path / "delta.tar"
    plan = content.plan()
    held = {plan.blobs[number].digest: {digest_of(b"base")} for number in (3, 5)}
    begin(delta, content, assuming(plan, held))
    fill(delta, content)
    (code,) = blocks("reference/archive-format.md")
    run(code)["read"](delta)
    inspection = airgap.inspect(delta)
    assert [need.blobs for need in inspection.needs] == [2]
    expected = [f"id {inspection.id}", *(f"{i.digest} {i.reference}" for i in inspection.images)]
    assert capsys.readouterr().out.splitlines() == expected


if __name__ == "__main__":
    COMMANDS_PAGE.write_text(commands_page(), "utf-8")
