"""Flags that say what is wanted: a part of what catalogs offer, or the images that files list."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO

import click

from airgap import limits
from airgap.cli import report
from airgap.cli.options import Command, OptionalPath, refuse_typed
from airgap.errors import UsageError
from airgap.question import Configured, Part, configured

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_LARGEST_LIST = 256 * limits.MIB

_PART_OPTIONS = (
    click.option(
        "--package",
        "packages",
        multiple=True,
        metavar="NAME[:CHANNEL,…][@RANGE]",
        help="Take this package alone; again for further ones. RANGE: '>=4.3,<4.4', a version,"
        " or head. The catalog image itself stays whole.",
    ),
    click.option(
        "--with-dependencies",
        is_flag=True,
        help="Take along what the chosen packages need of the catalog.",
    ),
    click.option(
        "--exclude-image",
        "exclude_images",
        multiple=True,
        metavar="REGEX",
        help="Leave out images whose reference matches; wins over everything.",
    ),
    click.option(
        "--image", "images", multiple=True, metavar="REF", help="Take this image besides."
    ),
    click.option(
        "--config",
        type=OptionalPath(),
        help="oc-mirror's ImageSetConfiguration (v1alpha2, v2alpha1) in place of CATALOG and of the"
        " flags above.",
    ),
    click.option(
        "--rebuild-catalog",
        is_flag=True,
        help="Reduce the catalog image itself to what is taken. It gets another digest.",
    ),
    click.option(
        "--base",
        default="",
        metavar="IMAGE",
        help="The operator-registry that a CATALOG from the local disk is put on.",
    ),
)


def part_options(command: Command) -> Command:
    """Add the flags that choose a part of what catalogs offer."""
    for option in reversed(_PART_OPTIONS):
        command = option(command)
    return command


_SELECTING = ("packages", "with_dependencies", "exclude_images", "images")
"""Parameters that mean nothing where a file says what to take."""


def part_from(context: click.Context, catalogs: tuple[str, ...]) -> Configured:
    """Return the catalogs and the part of them that flags, or a configuration file, ask for.

    What of the file has no effect is named on stderr, also to who wants no progress. Raises
    UsageError, and click.UsageError for flags that contradict each other.
    """
    given = context.params
    both = {"rebuild": given["rebuild_catalog"], "base": given["base"]}
    if given["config"] is None:
        part = Part(
            given["packages"],
            given["with_dependencies"],
            given["exclude_images"],
            given["images"],
            **both,
        )
        return Configured(catalogs, part)
    refuse_typed(context, _SELECTING, "and --config exclude each other")
    if catalogs:
        raise click.UsageError("with --config the file names the catalogs, no CATALOG", context)
    read = configured(_read(given["config"]), str(given["config"]))
    if not given["rebuild_catalog"]:
        read = replace(read, unsupported=(*read.unsupported, *_idle_default_channels(read.part)))
    for line in read.unsupported:
        report.echo(f"{given['config']}: no effect here: {line}", err=True)
    return replace(read, part=replace(read.part, **both))


def _idle_default_channels(part: Part) -> list[str]:
    return [
        f"defaultChannel of {package}, without --rebuild-catalog"
        for share in part.shares
        for package, _ in share.default_channels
    ]


def list_from(files: Iterable[Path]) -> list[tuple[str, str]]:
    """Return the names and texts of files that list images; - is standard input.

    Raises UsageError.
    """
    return [(str(file), _text(file)) for file in files]


def _text(file: Path) -> str:
    try:
        return _read(file).decode()
    except ValueError as error:
        raise UsageError(f"{file}: is no list of images: {error}") from error


def _read(file: Path) -> bytes:
    try:
        if str(file) == "-":
            if sys.stdin is None:
                raise UsageError("-: standard input is closed")
            return _bounded(file, sys.stdin.buffer)
        with file.open("rb") as stream:
            return _bounded(file, stream)
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from error


def _bounded(file: Path, stream: BinaryIO) -> bytes:
    content = stream.read(_LARGEST_LIST + 1)
    if len(content) > _LARGEST_LIST:
        raise UsageError(f"{file}: more than {_LARGEST_LIST} bytes")
    return content
