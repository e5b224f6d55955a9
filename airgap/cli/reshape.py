"""``airgap split``, ``airgap join`` and ``airgap merge``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from airgap.archive.unpacked import is_unpacked, join_pieces
from airgap.cli import options, report, volumes
from airgap.cli.progress import size
from airgap.cli.running import shown_progress
from airgap.reshaper import join, merge, split

if TYPE_CHECKING:
    from airgap.reshaper import ReshapeResult


Command = TypeVar("Command", bound=Callable[..., Any])


def _archives(metavar: str) -> Callable[[Command], Command]:
    """Return what adds the files and directories that a command takes its archives from."""
    kind = click.Path(path_type=Path)
    return click.argument("archives", metavar=metavar, type=kind, nargs=-1, required=True)


def _output(what: str, *, required: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Return what adds -o, and what all of these commands end with: how to say what was done."""

    def add(command: Callable[..., Any]) -> Any:
        command = options.verbosity_options(click.pass_context(command))
        command = options.output_option(command)
        kind = click.Path(path_type=Path, dir_okay=False)
        return click.option(
            "-o", "--output-file", "output", required=required, type=kind, help=what
        )(command)

    return add


@click.command("split", short_help="Cut an archive into volumes.")
@_archives("ARCHIVE...")
@volumes.needed_volume_options
@_output("What the volumes are called after. Default: ARCHIVE, where it is.")
def split_command(
    context: click.Context,
    /,
    archives: tuple[Path, ...],
    volume_size: int | None,
    volume_dirs: tuple[Path, ...],
    output: Path | None,
    output_format: str,
    quiet: bool,
    verbose: int,
) -> int:
    """Cut an archive into volumes, NAME.001.tar and so on, that fit the media at hand.

    They are those that `airgap export --volume-size` writes, and need no registry. ARCHIVE may
    be in volumes of another size. It stays as it is. An interrupted run continues.

    \b
    Examples:
      airgap split olm.tar --volume-size dvd
      airgap split olm.tar --volume-size 4GB --volume-dir /media/usb1 --volume-dir /media/usb2
    """
    options.set_verbosity(verbose)
    if output is None and (len(archives) > 1 or archives[0].is_dir()):
        raise click.UsageError("Missing option '-o' / '--output-file'.", context)
    with shown_progress(quiet) as progress:
        result = split(
            archives,
            volumes.options_from(volume_size, volume_dirs),
            output=output or archives[0],
            progress=progress,
            stop=context.obj,
        )
    return _end("split", result, output_format)


@click.command("join", short_help="Make one file of an archive's volumes.")
@_archives("VOLUME...")
@_output("The archive in one file.")
def join_command(
    context: click.Context,
    /,
    archives: tuple[Path, ...],
    output: Path | None,
    output_format: str,
    quiet: bool,
    verbose: int,
) -> int:
    """Make one file of an archive's volumes: byte by byte the one that was split.

    VOLUME is any file or directory, in any order and under any name. They stay as they are. An
    interrupted run continues.

    Without -o VOLUME is a directory into which `tar` has unpacked all volumes; what was cut is
    joined in it, so that it is an OCI image layout.

    \b
    Examples:
      airgap join /media/usb1 /media/usb2 -o olm.tar
      airgap join olm.001.tar olm.002.tar -o olm.tar
      airgap join unpacked/
    """
    options.set_verbosity(verbose)
    if output is None:
        return _join_unpacked(context, archives, output_format, quiet)
    with shown_progress(quiet) as progress:
        result = join(archives, output, progress=progress, stop=context.obj)
    return _end("join", result, output_format)


def _join_unpacked(
    context: click.Context, directories: tuple[Path, ...], output_format: str, quiet: bool
) -> int:
    if len(directories) > 1 or not is_unpacked(directories[0]):
        raise click.UsageError("Missing option '-o' / '--output-file'.", context)
    with shown_progress(quiet) as progress:
        joined = join_pieces(directories[0], progress, context.obj)
    if output_format == "json":
        digests = [str(digest) for digest in joined]
        report.echo_json("join", 0, {"directory": str(directories[0]), "joined": digests})
    else:
        report.echo(f"joined    {len(joined)} blobs in {directories[0]}")
    return 0


@click.command("merge", short_help="Make one whole archive of a base and its deltas.")
@_archives("BASE DELTA...")
@_output("The whole archive.", required=True)
def merge_command(
    context: click.Context,
    /,
    archives: tuple[Path, ...],
    output: Path,
    output_format: str,
    quiet: bool,
    verbose: int,
) -> int:
    """Make one whole archive of the last DELTA and the archives that hold what it left out.

    It is what an export that left nothing out would have written, and needs no other archive
    any more. Each is a file, its volumes, or a directory with them; they stay as they are. What
    none of them holds is named, and nothing is written. An interrupted run continues.

    \b
    Examples:
      airgap merge september.tar october-delta.tar -o october.tar
      airgap merge september.tar october-delta.tar /media/usb -o november.tar
    """
    options.set_verbosity(verbose)
    with shown_progress(quiet) as progress:
        result = merge(archives, output, progress=progress, stop=context.obj)
    return _end("merge", result, output_format)


def _end(command: str, result: ReshapeResult, output_format: str) -> int:
    if output_format == "json":
        report.echo_json(command, 0, result)
        return 0
    report.echo(f"archive   {result.archive} ({size(result.size)})")
    report.echo(f"id        {result.id}")
    volumes.print_names(result.volumes)
    return 0
