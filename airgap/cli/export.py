"""``airgap export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from airgap.cli import options, report
from airgap.cli.progress import size
from airgap.cli.running import Stop, shown_progress
from airgap.errors import HOLES
from airgap.exporter import export, plan_export
from airgap.plan import MISSING_BLOB, counted
from airgap.question import Part

if TYPE_CHECKING:
    from airgap.exporter import ExportResult
    from airgap.planner import Survey


@click.command("export", short_help="Put a catalog and everything it needs into an archive.")
@click.argument("catalogs", metavar="CATALOG...", nargs=-1, required=True)
@click.option(
    "-o",
    "--output-file",
    "archive",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The archive. It grows as FILE.partial and gets its name when it is whole.",
)
@options.index_filter_option
@options.part_options
@click.option("--dry-run", is_flag=True, help="Ask and decide, then print the plan and stop.")
@click.option("--recheck", is_flag=True, help="Hash again what an unfinished archive holds.")
@options.continue_on_error_option
@options.skip_missing_option
@options.registry_options
@options.registries_conf_option
@options.output_option
@options.verbosity_options
@click.pass_obj
def export_command(
    stop: Stop,
    catalogs: tuple[str, ...],
    archive: Path,
    platform: str,
    packages: tuple[str, ...],
    with_dependencies: bool,
    exclude_images: tuple[str, ...],
    images: tuple[str, ...],
    dry_run: bool,
    recheck: bool,
    continue_on_error: bool,
    skip_missing: bool,
    registry_config: Path | None,
    insecure: bool,
    certificate_authority: Path | None,
    max_per_registry: int,
    registries_conf: Path | None,
    output_format: str,
    quiet: bool,
    verbose: int,
) -> int:
    """Put catalogs and every image they refer to into one archive.

    CATALOG is the reference of a catalog image, with a tag or a digest. The archive is a tar
    that holds an OCI image layout; carry it, and give it to `airgap import`.

    An export that was interrupted, or that ended with holes in its content, continues when the
    same command is run again.

    \b
    Examples:
      airgap export registry.redhat.io/redhat/redhat-operator-index:v4.6 -o /media/usb/olm.tar
      airgap export -a pull-secret.json quay.io/my/catalog:v1 -o olm.tar --output json
      airgap export quay.io/my/catalog:v1 -o olm.tar --dry-run
      airgap export quay.io/my/catalog:v1 -o olm.tar --package etcd:stable@head --package vault
    """
    options.set_verbosity(verbose)
    access = options.access_from(
        registry_config, insecure, certificate_authority, max_per_registry, registries_conf
    )
    part = Part(packages, with_dependencies, exclude_images, images)
    with shown_progress(quiet) as progress:
        if dry_run:
            survey = plan_export(
                catalogs, archive, access=access, platform=platform, part=part,
                continue_on_error=continue_on_error, progress=progress, stop=stop,
            )  # fmt: skip
            progress.finish()
            return _print_plan(survey, output_format, skip_missing=skip_missing)
        result = export(
            catalogs, archive, access=access, platform=platform, part=part, recheck=recheck,
            continue_on_error=continue_on_error, progress=progress, stop=stop,
        )  # fmt: skip
    status = result.status(skip_missing=skip_missing)
    if output_format == "json":
        report.echo_json("export", status, result)
    else:
        _print(result)
    return status


def _print(result: ExportResult) -> None:
    report.echo(f"archive   {result.archive} ({size(result.size)})")
    report.echo(f"id        {result.id}")
    report.echo(
        f"holds     {result.images} images: {result.manifests} manifests, {result.blobs} blobs"
    )
    report.echo(f"this run  fetched {result.fetched} blobs, {size(result.fetched_bytes)}")
    report.echo_missing("MISSING from the archive", result.missing)
    kinds = {image.reason == MISSING_BLOB for image in result.missing}
    if kinds:
        report.echo()
    if True in kinds:
        report.echo("Run the same command again to fetch the blobs that are missing.")
    if False in kinds:
        report.echo(
            "What an archive is to hold does not change: when the other images can be had, export"
            " to a new FILE."
        )


def _print_plan(survey: Survey, output_format: str, *, skip_missing: bool) -> int:
    plan, missing = survey.plan, survey.missing
    status = HOLES if counted(missing, skip_missing=skip_missing) else 0
    if output_format == "json":
        report.echo_json(
            "export --dry-run",
            status,
            {
                "images": [image.reference for image in plan.images],
                "manifests": len(plan.manifests),
                "blobs": len(plan.blobs),
                "size": plan.content_bytes,
                "missing": [report.plain(image) for image in missing],
            },
        )
        return status
    report.echo(f"{len(plan.images)} images, {size(plan.content_bytes)} to fetch")
    for image in plan.images:
        report.echo(f"  {image.reference}")
    report.echo_missing("CANNOT be had", missing)
    return status
