"""Flags about volumes, and how an operator is asked for the next medium."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from airgap import limits
from airgap.archive.medium import VolumeOptions, volume_size
from airgap.cli import report
from airgap.errors import StorageError, UsageError, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airgap.archive.reader import VolumeFile

Command = TypeVar("Command", bound=Callable[..., Any])


def _size(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int | None:
    try:
        return volume_size(value) if value else None
    except UsageError as error:
        raise click.BadParameter(f"{error.message}. {error.hint}") from error


def _window(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    size = _size(context, parameter, value)
    if size is not None and size < limits.MIB:
        raise click.BadParameter(f"{size} bytes are less than 1 MiB")
    return size


window_option = click.option(
    "--window",
    metavar="SIZE",
    callback=_window,
    help="For - and compressed archives: how much may wait in a temporary file. Default: 1GiB.",
)


def _size_option(*, required: bool) -> Callable[[Command], Command]:
    return click.option(
        "--volume-size",
        metavar="SIZE",
        required=required,
        callback=_size,
        help="Write volumes, NAME.001.tar and so on, none larger than SIZE: 4GB, 4GiB, dvd,"
        " dvd-dl, bd or fat32.",
    )


volume_dir_option = click.option(
    "--volume-dir",
    "volume_dirs",
    type=click.Path(path_type=Path, file_okay=False),
    multiple=True,
    help="Where volumes go, one directory after the other as they fill. Default: beside FILE.",
)


def volume_options(command: Command) -> Command:
    """Add --volume-size and --volume-dir."""
    return _size_option(required=False)(volume_dir_option(command))


def needed_volume_options(command: Command) -> Command:
    """Add them, where a size must be said."""
    return _size_option(required=True)(volume_dir_option(command))


def options_from(volume_size: int | None, volume_dirs: Sequence[Path]) -> VolumeOptions:
    """Return what the flags say; whoever sits at a terminal is asked for media."""
    can_ask = sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()
    return VolumeOptions(volume_size, tuple(volume_dirs), _ask if can_ask else None)


def _ask(told: str) -> None:
    report.echo(f"{told}, and press Enter", err=True)
    if not sys.stdin.readline():
        raise StorageError("nobody answered", hint="Run the same command again to continue.")


def print_names(names: Sequence[str]) -> None:
    """Print the names of the volumes that were written, if there are any."""
    if names:
        last = f" to {names[-1]}" if len(names) > 1 else ""
        report.echo(f"volumes   {len(names)}: {names[0]}{last}")


def print_volumes(volumes: Sequence[VolumeFile], notes: Sequence[str]) -> None:
    """Print where the volumes of an archive are, which are not here, what else there is."""
    if volumes:
        here = sum(volume.file is not None for volume in volumes)
        report.echo(f"volumes   {here} of {len(volumes)}")
    for volume in volumes:
        place = volume.file if volume.file else "NOT HERE"
        report.echo(f"          {volume.number:>3}  {place}")
    for note in notes:
        report.echo(f"note      {printable(note, 400)}")
