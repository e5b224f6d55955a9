"""``airgap import``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from airgap.archive.forward import DEFAULT_WINDOW
from airgap.archive.reader import STREAM
from airgap.cli import options, pushing, report, volumes
from airgap.cli.running import shown_progress
from airgap.errors import printable
from airgap.importer import import_archive, plan_import

if TYPE_CHECKING:
    from airgap.importer import ImportResult
    from airgap.lister import DatabasePath


@click.command("import", short_help="Push an archive to a registry, write the cluster's YAML.")
@options.archives_argument
@click.argument("destination", metavar="DEST")
@pushing.destination_options
@click.option(
    "--wait",
    is_flag=True,
    help="Push what the volumes that are there hold, and wait for the others: media are exchanged"
    " in any order.",
)
@click.option(
    "--receipt",
    "receipts",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="A receipt of an earlier import: where else in DEST's registry is what a delta leaves to"
    " earlier archives. Again for further ones.",
)
@volumes.window_option
@click.option("--verify-first", is_flag=True, help="Read every byte before the first request.")
@pushing.force_tags_option
@pushing.recheck_option
@pushing.manifests_only_options
@click.option("--dry-run", is_flag=True, help="Print what would go where, and stop.")
@options.continue_on_error_option
@options.skip_missing_option
@options.registry_options
@options.output_option
@options.verbosity_options
@click.pass_context
def import_command(
    context: click.Context,
    /,
    archives: tuple[Path, ...],
    destination: str,
    to_manifests: Path | None,
    max_components: int,
    icsp_scope: str,
    idms_scope: str,
    max_icsp_size: int,
    wait: bool,
    receipts: tuple[Path, ...],
    window: int | None,
    verify_first: bool,
    force_tags: bool,
    recheck: bool,
    manifests_only: bool,
    path: DatabasePath | None,
    dry_run: bool,
    continue_on_error: bool,
    skip_missing: bool,
    registry_config: Path | None,
    insecure: bool,
    certificate_authority: Path | None,
    max_per_registry: int,
    output_format: str,
    quiet: bool,
    verbose: int,
) -> int:
    """Push an archive to DEST, host[:port][/namespace], and write the files for the cluster.

    Every image keeps its digest. Nothing that is there already is sent again, so an import
    that was interrupted continues when the same command is run again. Catalogs go last.

    ARCHIVE is a file, or the files and directories that hold its volumes, in any order and under
    any names. With - it comes from standard input, from `airgap export -o -` or any program that
    reads a file or a tape, and is pushed while it passes. What is lost of it is named with the
    images and operators that it costs; none of these is tagged.

    A delta leaves out what earlier archives have brought to DEST. If any of that is not there, it
    is named, and nothing is pushed.

    \b
    Examples:
      airgap import /media/usb/olm.tar registry.example.com:5000
      airgap import /media/usb1 /media/usb2 registry.example.com:5000
      airgap import /media/usb registry.example.com:5000 --wait
      airgap import olm.tar registry.example.com:5000/olm -a auth.json --to-manifests out
      airgap import olm.tar localhost:5000 --insecure --dry-run
      airgap import - registry.example.com:5000 < /dev/nst0
      airgap import olm.tar registry.example.com:5000 --manifests-only --to-manifests out
    """
    options.set_verbosity(verbose)
    pushing.require_manifests_only(context)
    archive = options.archive_from(context, archives)
    if STREAM not in archives:
        options.refuse_typed(context, ["window"], "is about an archive from standard input, -")
    manifests = pushing.manifests_from(to_manifests, icsp_scope, idms_scope, max_icsp_size)
    if manifests_only:
        from airgap.lister import list_archive  # with all that reads catalogs, for this alone

        listed = list_archive(
            archives, destination, path=path, max_components=max_components, manifests=manifests
        )
        return pushing.print_list("import", listed, output_format)
    if dry_run:
        plan = plan_import(archives, destination, max_components=max_components, wait=wait)
        return pushing.print_plan("import", plan, output_format, skip_missing=skip_missing)
    with shown_progress(quiet) as progress:
        result = import_archive(
            archive,
            destination,
            access=options.access_from(
                registry_config, insecure, certificate_authority, max_per_registry
            ),
            max_components=max_components,
            manifests=manifests,
            receipts=receipts,
            wait=wait,
            window=window or DEFAULT_WINDOW,
            verify_first=verify_first,
            force_tags=force_tags,
            recheck=recheck,
            continue_on_error=continue_on_error,
            progress=progress,
            stop=context.obj,
        )
    status = result.status(skip_missing=skip_missing)
    if output_format == "json":
        report.echo_json("import", status, result)
    else:
        _print(result)
    return status


def _print(result: ImportResult) -> None:
    report.echo(f"archive   {result.archive} ({result.id})")
    report.echo(f"arrived   {result.arrived} images at {result.destination}")
    pushing.print_sent(result)
    pushing.print_files(result.manifests, result.files)
    pushing.print_holes("MISSING from the archive, so not pushed", result)
    for message in result.damage:
        report.echo(f"DAMAGED   {printable(message, 400)}")
    if result.damage:
        report.echo("  Not all of the stream came through: send it again.")
    elif any(image.reason == "damaged" for image in result.failed):
        report.echo("  The archive is damaged: copy it again, and run the same command again.")
    pushing.print_hints(result)
