"""``airgap verify``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from airgap.cli import options, report, volumes
from airgap.cli.progress import size
from airgap.cli.running import shown_progress
from airgap.errors import printable
from airgap.verifier import verify

if TYPE_CHECKING:
    from pathlib import Path

    from airgap.verifier import VerifyResult

SHOWN_IMAGES = 10


@click.command("verify", short_help="Read every byte of an archive and follow every reference.")
@options.archives_argument
@options.output_option
@options.verbosity_options
@click.pass_context
def verify_command(
    context: click.Context,
    /,
    archives: tuple[Path, ...],
    output_format: str,
    quiet: bool,
    verbose: int,
) -> int:
    """Read every byte of an archive and follow every reference in it.

    Names all damage at once, with the images and operators it hurts. Use it after copying to a
    medium and after carrying it. ARCHIVE is a file, or the files and directories that hold its
    volumes, in any order and under any names; volumes that are not there are named. With - it
    comes from standard input.

    \b
    Examples:
      airgap verify /media/usb/olm.tar
      airgap verify /media/usb1 /media/usb2
      airgap verify olm.tar --output json
      airgap verify - < /dev/nst0
    """
    options.set_verbosity(verbose)
    with shown_progress(quiet) as progress:
        result = verify(options.archive_from(context, archives), progress=progress)
    if output_format == "json":
        report.echo_json("verify", result.exit_status, result)
    else:
        _print(result)
    return result.exit_status


def _print(result: VerifyResult) -> None:
    report.echo(f"archive   {result.archive} ({size(result.size)})")
    report.echo(f"id        {result.id}")
    volumes.print_volumes(result.volumes, result.notes)
    for damage in result.damage:
        report.echo(f"DAMAGED   {printable(damage.message, 400)}")
        for image in damage.images[:SHOWN_IMAGES]:
            report.echo(f"          hurts {printable(image, 400)}")
        if len(damage.images) > SHOWN_IMAGES:
            report.echo(f"          and {len(damage.images) - SHOWN_IMAGES} more images")
        if damage.packages:
            report.echo(f"          of {', '.join(map(printable, damage.packages))}")
    if result.damage:
        places = "1 place" if len(result.damage) == 1 else f"{len(result.damage)} places"
        report.echo(f"damaged in {places}: copy the archive again")
    else:
        what = f"of {result.images} images"
        if any(volume.file is None for volume in result.volumes):
            what = "of the volumes that are here"
        report.echo(f"verified  every byte {what} is what it must be")
        report.echo_needs(result.needs, "          whole, needs ")
    report.echo_missing("MISSING", result.missing)
