"""``airgap import``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from airgap.cli import options, report
from airgap.cli.progress import size
from airgap.cli.running import Stop, shown_progress
from airgap.cluster import LARGEST_DOCUMENT, Scope
from airgap.errors import HOLES
from airgap.importer import import_archive, plan_import
from airgap.manifests import ManifestsOptions
from airgap.mapping import DEFAULT_COMPONENTS
from airgap.plan import counted

if TYPE_CHECKING:
    from airgap.importer import ImportPlan, ImportResult

SCOPES = click.Choice([scope.value for scope in Scope])


def _directory(
    _context: click.Context, _parameter: click.Parameter, value: Path | None
) -> Path | None:
    if value is not None and value.exists() and not value.is_dir():
        raise click.BadParameter(f"{value} is not a directory")
    return value


def _components(_context: click.Context, _parameter: click.Parameter, value: int) -> int:
    if value < 0 or value == 1:
        raise click.BadParameter(f"{value} is neither 0, for no limit, nor 2 or more")
    return value


@click.command("import", short_help="Push an archive to a registry, write the cluster's YAML.")
@click.argument("archive", type=click.Path(path_type=Path))
@click.argument("destination", metavar="DEST")
@click.option(
    "--to-manifests",
    type=options.OptionalPath(),
    callback=_directory,
    help="Where the files for the cluster go. Default: manifests-CATALOG-ID.",
)
@click.option(
    "--max-components",
    type=int,
    default=DEFAULT_COMPONENTS,
    callback=_components,
    show_default=True,
    help="Parts of a repository's path in DEST; further ones are joined with -. 0: no limit.",
)
@click.option("--icsp-scope", type=SCOPES, default=Scope.REPOSITORY.value, show_default=True)
@click.option("--idms-scope", type=SCOPES, default=Scope.REPOSITORY.value, show_default=True)
@click.option(
    "--max-icsp-size",
    type=click.IntRange(1, LARGEST_DOCUMENT),
    default=LARGEST_DOCUMENT,
    show_default=True,
    help="Bytes of one mirror set; what does not fit goes on in the next.",
)
@click.option("--verify-first", is_flag=True, help="Read every byte before the first request.")
@click.option("--force-tags", is_flag=True, help="Move tags that are set to something else.")
@click.option("--dry-run", is_flag=True, help="Print what would go where, and stop.")
@options.continue_on_error_option
@options.skip_missing_option
@options.registry_options
@options.output_option
@options.verbosity_options
@click.pass_obj
def import_command(
    stop: Stop,
    archive: Path,
    destination: str,
    to_manifests: Path | None,
    max_components: int,
    icsp_scope: str,
    idms_scope: str,
    max_icsp_size: int,
    verify_first: bool,
    force_tags: bool,
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

    \b
    Examples:
      airgap import /media/usb/olm.tar registry.example.com:5000
      airgap import olm.tar registry.example.com:5000/olm -a auth.json --to-manifests out
      airgap import olm.tar localhost:5000 --insecure --dry-run
    """
    options.set_verbosity(verbose)
    if dry_run:
        plan = plan_import(archive, destination, max_components=max_components)
        return _print_plan(plan, output_format, skip_missing)
    with shown_progress(quiet) as progress:
        result = import_archive(
            archive,
            destination,
            access=options.access_from(
                registry_config, insecure, certificate_authority, max_per_registry
            ),
            max_components=max_components,
            manifests=ManifestsOptions(
                to_manifests, Scope(icsp_scope), Scope(idms_scope), max_icsp_size
            ),
            verify_first=verify_first,
            force_tags=force_tags,
            continue_on_error=continue_on_error,
            progress=progress,
            stop=stop,
        )
    status = result.status(skip_missing=skip_missing)
    if output_format == "json":
        report.echo_json("import", status, result)
    else:
        _print(result)
    return status


def _print_plan(plan: ImportPlan, output_format: str, skip_missing: bool) -> int:
    status = HOLES if counted(plan.missing, skip_missing=skip_missing) else 0
    if output_format == "json":
        report.echo_json("import --dry-run", status, plan)
    else:
        for line in plan.mapping:
            report.echo(line)
    return status


def _print(result: ImportResult) -> None:
    report.echo(f"archive   {result.archive} ({result.id})")
    report.echo(f"arrived   {result.arrived} images at {result.destination}")
    report.echo(
        f"this run  sent {result.sent} blobs ({size(result.sent_bytes)}) and"
        f" {result.manifests_sent} manifests; mounted {result.mounted}, found {result.present}"
    )
    report.echo(f"wrote     {result.manifests}/: {', '.join(result.files)}")
    if any(file.startswith("image") for file in result.files):
        report.echo(
            "apply     imageDigestMirrorSet.yaml and imageTagMirrorSet.yaml from OpenShift 4.13 on,"
            " imageContentSourcePolicy.yaml before; not both"
        )
        report.echo(
            "          the nodes then drain one after the other, and pull from the mirror with the"
            " cluster's global pull secret alone"
        )
    report.echo_missing("MISSING from the archive, so not pushed", result.missing)
    report.echo_missing("FAILED, so not at the destination", result.failed)
    if any(image.reason == "damaged" for image in result.failed):
        report.echo("  The archive is damaged: copy it again, and run the same command again.")
    for hint in dict.fromkeys(error.hint for error in result.errors if error.hint):
        report.echo(f"  {hint}")
