"""``airgap mirror``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from airgap.cli import options, pushing, report, wanted
from airgap.cli.running import Stop, shown_progress
from airgap.copier import copy_listed, plan_copies
from airgap.inquiry import Inquiry
from airgap.lister import list_images
from airgap.mirrorer import mirror, plan_mirror

if TYPE_CHECKING:
    from airgap.copier import CopyResult
    from airgap.lister import DatabasePath
    from airgap.mirrorer import MirrorResult
    from airgap.registry.access import Access

_OF_CATALOGS = (
    "platform",
    "packages",
    "with_dependencies",
    "exclude_images",
    "images",
    "config",
    "rebuild_catalog",
    "base",
    "to_manifests",
    "max_components",
    "icsp_scope",
    "idms_scope",
    "max_icsp_size",
    "manifests_only",
    "path",
)
"""Parameters that mean nothing where a file says what goes where."""


def _everything(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if value != ".*":
        raise click.BadParameter(
            "an index is always taken whole: with some of its images left out it has another"
            " digest, and whoever pulls by digest finds nothing. Only '.*' is accepted;"
            " --index-filter-by-os chooses which variant of a catalog is read."
        )
    return value


@click.command("mirror", short_help="Copy a catalog and everything it needs to a registry.")
@click.argument("catalogs", metavar="CATALOG...", nargs=-1)
@click.argument("destination", metavar="DEST", required=False)
@click.option(
    "-f",
    "--filename",
    "files",
    type=click.Path(path_type=Path, allow_dash=True),
    multiple=True,
    help="Copy what this file lists, as SRC=DST lines, in place of a catalog; - is standard"
    " input. Again for further files.",
)
@options.index_filter_option
@wanted.part_options
@pushing.destination_options
@pushing.force_tags_option
@pushing.recheck_option
@click.option(
    "--filter-by-os",
    callback=_everything,
    expose_value=False,
    default=".*",
    show_default=True,
    help="Takes nothing but '.*': all variants of an image are copied.",
)
@pushing.manifests_only_options
@click.option("--dry-run", is_flag=True, help="Ask the sources, print what would go where, stop.")
@options.continue_on_error_option
@options.skip_missing_option
@options.registry_options
@options.registries_conf_option
@options.output_option
@options.verbosity_options
@click.pass_context
def mirror_command(
    context: click.Context,
    /,
    catalogs: tuple[str, ...],
    destination: str | None,
    files: tuple[Path, ...],
    platform: str,
    to_manifests: Path | None,
    max_components: int,
    icsp_scope: str,
    idms_scope: str,
    max_icsp_size: int,
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
    registries_conf: Path | None,
    output_format: str,
    quiet: bool,
    verbose: int,
    **_selecting: Any,
) -> int:
    """Copy catalogs and every image they refer to from their registries to DEST.

    CATALOG is the reference of a catalog image, DEST is host[:port][/namespace]. For a host
    that reaches both; across an air gap use `airgap export` and `airgap import`, which put the
    same images into the same places and write the same files.

    With -f it copies what a mapping.txt lists, and writes no files: a line is SRC=DST, or SRC
    DST with further DST; # begins a comment; * in a tag of SRC stands for anything.

    Nothing that is there already is sent again, so a run that was interrupted continues when
    the same command is run again. Catalogs go last.

    \b
    Examples:
      airgap mirror quay.io/my/catalog:v1 registry.example.com:5000
      airgap mirror quay.io/my/catalog:v1 registry.example.com:5000/olm -a auth.json
      airgap mirror quay.io/my/catalog:v1 localhost:5000 --package etcd --dry-run
      airgap mirror quay.io/my/catalog:v1 localhost:5000 --manifests-only --to-manifests out
      airgap mirror -f mapping.txt
    """
    options.set_verbosity(verbose)
    access = options.access_from(
        registry_config, insecure, certificate_authority, max_per_registry, registries_conf
    )
    pushing.require_manifests_only(context)
    if files:
        if catalogs or destination:
            raise click.UsageError(
                "with -f the files say what goes where, no CATALOG or DEST", context
            )
        options.refuse_typed(context, _OF_CATALOGS, "is about catalogs, and -f has none")
        return _copy(
            context.obj, files, access, force_tags=force_tags, recheck=recheck, dry_run=dry_run,
            continue_on_error=continue_on_error, skip_missing=skip_missing,
            output_format=output_format, quiet=quiet,
        )  # fmt: skip
    asked = wanted.part_from(context, catalogs)
    if not asked.catalogs or destination is None:
        raise click.UsageError("must specify source and dest: CATALOG DEST, or -f FILE", context)
    manifests = pushing.manifests_from(to_manifests, icsp_scope, idms_scope, max_icsp_size)
    with shown_progress(quiet) as progress:
        if manifests_only:
            listed = list_images(
                Inquiry(asked.catalogs, platform, asked.part), destination=destination,
                path=path, access=access, max_components=max_components, manifests=manifests,
                progress=progress, stop=context.obj,
            )  # fmt: skip
            return pushing.print_list("mirror", listed, output_format)
        if dry_run:
            plan = plan_mirror(
                asked.catalogs, destination, access=access, platform=platform, part=asked.part,
                max_components=max_components, continue_on_error=continue_on_error,
                progress=progress, stop=context.obj,
            )  # fmt: skip
            progress.finish()
            return pushing.print_plan("mirror", plan, output_format, skip_missing=skip_missing)
        result = mirror(
            asked.catalogs, destination, access=access, platform=platform, part=asked.part,
            max_components=max_components, manifests=manifests, force_tags=force_tags,
            recheck=recheck, continue_on_error=continue_on_error, progress=progress,
            stop=context.obj,
        )  # fmt: skip
    status = result.status(skip_missing=skip_missing)
    if output_format == "json":
        report.echo_json("mirror", status, result)
    else:
        _print(result)
    return status


def _copy(
    stop: Stop,
    files: tuple[Path, ...],
    access: Access,
    *,
    force_tags: bool,
    recheck: bool,
    dry_run: bool,
    continue_on_error: bool,
    skip_missing: bool,
    output_format: str,
    quiet: bool,
) -> int:
    listed = wanted.list_from(files)
    with shown_progress(quiet) as progress:
        if dry_run:
            plan = plan_copies(
                listed, access=access, continue_on_error=continue_on_error,
                progress=progress, stop=stop,
            )  # fmt: skip
            progress.finish()
            return pushing.print_plan("mirror", plan, output_format, skip_missing=skip_missing)
        result = copy_listed(
            listed, access=access, force_tags=force_tags, recheck=recheck,
            continue_on_error=continue_on_error, progress=progress, stop=stop,
        )  # fmt: skip
    status = result.status(skip_missing=skip_missing)
    if output_format == "json":
        report.echo_json("mirror", status, result)
    else:
        _print_copies(result)
    return status


def _print(result: MirrorResult) -> None:
    report.echo(f"id        {result.id}")
    report.echo(f"arrived   {result.arrived} images at {result.destination}")
    pushing.print_sent(result)
    pushing.print_files(result.manifests, result.files)
    pushing.print_holes("MISSING at the source, so not pushed", result)
    pushing.print_hints(result)


def _print_copies(result: CopyResult) -> None:
    report.echo(f"arrived   {result.arrived} of {result.copies} copies")
    pushing.print_sent(result)
    pushing.print_holes("MISSING at the source, so not copied", result)
    pushing.print_hints(result)
