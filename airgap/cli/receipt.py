"""``airgap receipt``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from airgap.attester import make_receipt
from airgap.cli import options, pushing, report
from airgap.cli.running import shown_progress

if TYPE_CHECKING:
    from airgap.attester import ReceiptResult


@click.command("receipt", short_help="Write down what of an archive a registry has.")
@click.argument("destination", metavar="DEST")
@options.archives_argument
@click.option(
    "-o",
    "--output-file",
    "output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("receipt.json"),
    show_default=True,
    help="The receipt.",
)
@pushing.max_components_option
@options.registry_options
@options.output_option
@options.verbosity_options
@click.pass_context
def receipt_command(
    context: click.Context,
    /,
    destination: str,
    archives: tuple[Path, ...],
    output: Path,
    max_components: int,
    registry_config: Path | None,
    insecure: bool,
    certificate_authority: Path | None,
    max_per_registry: int,
    output_format: str,
    quiet: bool,
    verbose: int,
) -> int:
    """Ask a registry for all that an archive names, and write down what is there.

    `airgap import` writes such a receipt.json itself. This one is for a registry that was
    filled in another way, or a receipt that was lost. Either tells the next export what to leave
    out. DEST is the host[:port][/namespace] that was imported into. Every manifest is read and
    hashed, and every blob asked for; nothing is written there. ARCHIVE is a file, or any of its
    volumes.

    \b
    Examples:
      airgap receipt registry.example.com:5000 olm.tar
      airgap receipt registry.example.com:5000/olm /media/usb -o september.json
    """
    options.set_verbosity(verbose)
    with shown_progress(quiet) as progress:
        result = make_receipt(
            archives,
            destination,
            output,
            access=options.access_from(
                registry_config, insecure, certificate_authority, max_per_registry
            ),
            max_components=max_components,
            progress=progress,
            stop=context.obj,
        )
    if output_format == "json":
        report.echo_json("receipt", result.exit_status, result)
    else:
        _print(result)
    return result.exit_status


def _print(result: ReceiptResult) -> None:
    report.echo(f"archive   {result.archive} ({result.id})")
    report.echo(f"there     {result.images} images at {result.destination}")
    report.echo(f"wrote     {result.file}")
    pushing.print_hosts(result.hosts)
    report.echo_missing("NOT THERE, or not whole", result.missing)
