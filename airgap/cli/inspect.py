"""``airgap inspect``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from airgap.cli import options, report, volumes
from airgap.cli.progress import size
from airgap.errors import printable
from airgap.inspector import inspect

if TYPE_CHECKING:
    from pathlib import Path

    from airgap.inspector import Inspection


@click.command("inspect", short_help="Say what an archive holds.")
@options.archives_argument
@click.option("--images", is_flag=True, help="List every image with its size and digest.")
@options.output_option
@click.pass_context
def inspect_command(
    context: click.Context, /, archives: tuple[Path, ...], images: bool, output_format: str
) -> int:
    """Say what an archive holds: catalogs, packages, images, sizes, holes.

    Reads the inventory alone, which takes a moment whatever the archive's size; `airgap verify`
    reads every byte. ARCHIVE is a file, or the files and directories that hold its volumes; one
    volume is enough. With - it comes from standard input, and is read to its end.

    \b
    Examples:
      airgap inspect olm.tar
      airgap inspect olm.tar --images
      airgap inspect olm.tar --output json
    """
    found = inspect(options.archive_from(context, archives))
    if output_format == "json":
        report.echo_json("inspect", found.exit_status, found)
    else:
        _print(found, images)
    return found.exit_status


def _print(found: Inspection, images: bool) -> None:
    report.echo(f"archive   {found.archive} ({size(found.size)})")
    report.echo(f"id        {found.id}")
    volumes.print_volumes(found.volumes, found.notes)
    for catalog in found.catalogs:
        report.echo(f"catalog   {printable(catalog.reference, 400)}")
        report.echo(f"          {catalog.digest}, {catalog.format} at /{printable(catalog.path)}")
    report.echo(
        f"holds     {len(found.images)} images: {found.manifests} manifests, {found.blobs} blobs,"
        f" {size(found.content_size)}"
    )
    report.echo_needs(found.needs, "needs     ")
    for damage in found.damage:
        report.echo(f"DAMAGED   {printable(damage, 400)}")
    report.echo()
    report.echo(f"{'package':<40} {'bundles':>8} {'images':>8} {'size':>10}")
    for package in found.packages:
        name = printable(package.name, 40)
        numbers = f"{package.bundles:>8} {package.images:>8} {size(package.size):>10}"
        report.echo(f"{name:<40} {numbers}")
    if images:
        report.echo()
        for image in found.images:
            report.echo(f"{size(image.size):>10}  {printable(image.reference, 400)}")
            report.echo(f"{'':>10}  {image.digest}")
    report.echo_missing("MISSING", found.missing)
