"""``airgap export``."""

from __future__ import annotations

import re
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from airgap.archive.compressed import COMPRESSED, level_for
from airgap.archive.forward import DEFAULT_WINDOW
from airgap.archive.reader import STREAM, partial_path
from airgap.archive.seekable import LEVEL
from airgap.cli import options, pushing, report, volumes, wanted
from airgap.cli.progress import size
from airgap.cli.running import shown_progress
from airgap.cli.typed import RememberingCommand, typed_again
from airgap.errors import HOLES, AlreadyFinished
from airgap.exporter import export, export_stream, plan_export
from airgap.inquiry import Inquiry
from airgap.lister import list_images
from airgap.plan import MISSING_BLOB, counted
from airgap.question import Listed

if TYPE_CHECKING:
    from airgap.exporter import ExportPlan, ExportResult
    from airgap.lister import DatabasePath


_BESIDE_A_LIST = (
    "packages",
    "with_dependencies",
    "exclude_images",
    "images",
    "config",
    "rebuild_catalog",
)
_OF_ARCHIVES = (
    "archive",
    "files",
    "dry_run",
    "recheck",
    "reuse",
    "since",
    "volume_size",
    "volume_dirs",
    "zstd",
    "window",
)
_OF_ARCHIVES_ON_DISK = ("dry_run", "recheck", "volume_size", "volume_dirs")
_OF_FILES = ("path", "to_manifests", "icsp_scope", "idms_scope", "max_icsp_size")
_OF_NAMES = ("intended", "max_components")
"""Parameters that mean something in one kind of run only."""


class _Level(click.IntRange):
    """A level of compression; one left out is not taken from the word that comes next."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the level. Raises click.BadParameter that says how one is written."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            self.fail(
                f"{error.message} Write --zstd=LEVEL, or --zstd alone behind all other words.",
                param,
                ctx,
            )


@click.command(
    "export",
    cls=RememberingCommand,
    short_help="Put a catalog and everything it needs into an archive.",
)
@click.argument("catalogs", metavar="CATALOG...", nargs=-1)
@click.option(
    "-o",
    "--output-file",
    "archive",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="The archive. It grows as FILE.partial and gets its name when it is whole. - is standard"
    " output, for a pipe.",
)
@click.option(
    "--reuse",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="OLD",
    help="A finished archive, of last month for example: what it holds is copied from it and not"
    " asked for. Again for further ones.",
)
@click.option(
    "--since",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="A receipt of the other side, or an archive that was imported there: blobs that it names"
    " are left out. Again for further ones.",
)
@options.index_filter_option
@wanted.part_options
@click.option(
    "-f",
    "--filename",
    "files",
    type=click.Path(path_type=Path, allow_dash=True),
    multiple=True,
    help="Take exactly the images that this file lists, as SRC=DST lines; - is standard input."
    " An edited DST is followed on import.",
)
@click.option(
    "--for",
    "intended",
    metavar="DEST",
    help="The registry that the right sides of --manifests-only and of -f are about.",
)
@pushing.manifests_only_options
@pushing.destination_options
@volumes.volume_options
@click.option(
    "--zstd",
    type=_Level(1, 19),
    is_flag=False,
    flag_value=LEVEL,
    metavar="[LEVEL]",
    help="Compress, as NAME.tar.zst is without it. --zstd=LEVEL says how hard;"
    f" {LEVEL} is usual. Layers that are compressed already always take the fastest setting.",
)
@volumes.window_option
@click.option("--dry-run", is_flag=True, help="Ask and decide, then print the plan and stop.")
@click.option("--recheck", is_flag=True, help="Hash again what is in the archive already.")
@options.continue_on_error_option
@options.skip_missing_option
@options.registry_options
@options.registries_conf_option
@options.output_option
@options.verbosity_options
@click.pass_context
def export_command(
    context: click.Context,
    /,
    catalogs: tuple[str, ...],
    archive: Path | None,
    reuse: tuple[Path, ...],
    since: tuple[Path, ...],
    platform: str,
    files: tuple[Path, ...],
    intended: str | None,
    manifests_only: bool,
    path: DatabasePath | None,
    to_manifests: Path | None,
    max_components: int,
    icsp_scope: str,
    idms_scope: str,
    max_icsp_size: int,
    volume_size: int | None,
    volume_dirs: tuple[Path, ...],
    zstd: int | None,
    window: int | None,
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
    **_selecting: Any,
) -> int:
    """Put catalogs and every image they refer to into one archive.

    CATALOG is the reference of a catalog image, with a tag or a digest. The archive is a tar
    that holds an OCI image layout; carry it, and give it to `airgap import`.

    An export that was interrupted, or that ended with holes in its content, continues when the
    same command is run again.

    With --volume-size it is written in volumes, NAME.001.tar and so on; each may be carried away
    as soon as it is finished.

    With --since it holds the catalog, all manifests, and of the blobs those alone that the other
    side does not have. The other side's receipt.json says what that is, or an earlier archive.

    With --zstd, or called NAME.tar.zst, it is compressed, and read like a plain one by every
    command. Such an archive is continued too, but a hole in it is filled only by making a new one
    with --reuse.

    With -o - the archive leaves on standard output, from front to back: for a pipe to `airgap
    import -`, to another host or a tape. What a run says goes to standard error. A stream does
    not resume, and a hole in it cannot be filled later.

    With --manifests-only nothing is fetched but the catalogs: images.txt lists what they refer
    to, or, with --for, mapping.txt and the cluster's files say what an import to DEST will do.
    Edit mapping.txt, and -f takes the images that are left in it, to where it says.

    \b
    Examples:
      airgap export registry.redhat.io/redhat/redhat-operator-index:v4.6 -o /media/usb/olm.tar
      airgap export -a pull-secret.json quay.io/my/catalog:v1 -o olm.tar --output json
      airgap export quay.io/my/catalog:v1 -o olm.tar --dry-run
      airgap export quay.io/my/catalog:v1 -o olm.tar --package etcd:stable@head --package vault
      airgap export quay.io/my/catalog:v1 --manifests-only --for registry.example.com:5000/olm
      airgap export quay.io/my/catalog:v1 -o olm.tar -f mapping.txt
      airgap export quay.io/my/catalog:v1 -o olm.tar --volume-size dvd --volume-dir /media/burn
      airgap export --config imageset.yaml -o olm.tar
      airgap export quay.io/my/catalog:v1 -o olm.tar.zst
      airgap export quay.io/my/catalog:v1 -o - | ssh inside airgap import - registry:5000
      airgap export quay.io/my/catalog:v1 -o october.tar --reuse september.tar
      airgap export quay.io/my/catalog:v1 -o october.tar --since receipt.json
    """
    options.set_verbosity(verbose)
    asked = wanted.part_from(context, catalogs)
    part = asked.part
    if not asked.catalogs:
        raise click.UsageError("Missing argument 'CATALOG...'.", context)
    if archive is None and not manifests_only:
        raise click.UsageError("Missing option '-o' / '--output-file'.", context)
    _refuse_what_has_no_effect(context)
    access = options.access_from(
        registry_config, insecure, certificate_authority, max_per_registry, registries_conf
    )
    if files:
        listed = Listed.of(wanted.list_from(files), intended, max_components)
        part = replace(part, listed=listed)
    stop = context.obj
    with shown_progress(quiet) as progress:
        if archive is None:  # --manifests-only
            written = list_images(
                Inquiry(asked.catalogs, platform, part), destination=intended, path=path,
                access=access, max_components=max_components,
                manifests=pushing.manifests_from(
                    to_manifests, icsp_scope, idms_scope, max_icsp_size
                ),
                progress=progress, stop=stop,
            )  # fmt: skip
            return pushing.print_list("export", written, output_format)
        if archive == STREAM:
            streamed = export_stream(
                asked.catalogs, sys.stdout.buffer, zstd=zstd, window=window or DEFAULT_WINDOW,
                access=access, platform=platform, part=part, reuse=reuse,
                since=since, continue_on_error=continue_on_error, progress=progress, stop=stop,
            )  # fmt: skip
            progress.finish()
            with redirect_stdout(sys.stderr):
                _print(streamed, context)
            return streamed.status(skip_missing=skip_missing)
        if dry_run:
            planned = plan_export(
                asked.catalogs, archive, access=access, platform=platform, part=part, reuse=reuse,
                since=since, continue_on_error=continue_on_error, progress=progress, stop=stop,
            )  # fmt: skip
            progress.finish()
            return _print_plan(planned, output_format, skip_missing=skip_missing)
        try:
            result = export(
                asked.catalogs, archive, access=access, platform=platform, part=part, reuse=reuse,
                since=since, recheck=recheck, continue_on_error=continue_on_error,
                volumes=volumes.options_from(volume_size, volume_dirs),
                zstd=zstd, window=window or DEFAULT_WINDOW,
                progress=progress, stop=stop,
            )  # fmt: skip
        except AlreadyFinished as error:
            how = f"To make a new one that takes from it what it holds:\n    {_anew(context)}"
            raise AlreadyFinished(error.message, hint=how) from error
    status = result.status(skip_missing=skip_missing)
    if output_format == "json":
        report.echo_json("export", status, result)
    else:
        _print(result, context)
    return status


def _anew(context: click.Context) -> str:
    """Return the command that makes a new archive beside the finished one, reusing it."""
    finished: Path = context.params["archive"]
    new = str(_unused_name(finished))
    return typed_again(context, {"archive": new}, "--reuse", str(finished))


def _unused_name(archive: Path) -> Path:
    """Return the next name that no archive has: after olm.tar comes olm-2.tar, then olm-3.tar."""
    suffix = COMPRESSED if archive.name.endswith(COMPRESSED) else archive.suffix
    name = archive.name.removesuffix(suffix)
    numbered = re.fullmatch(r"(.+)-(\d{1,6})", name)
    stem, last = numbered.groups() if numbered else (name, "1")
    further = (f"{stem}-{n:0{len(last)}}" for n in count(int(last) + 1))
    names = (archive.with_name(f"{name}{suffix}") for name in further)
    return next(name for name in names if not (name.exists() or partial_path(name).exists()))


def _refuse_what_has_no_effect(context: click.Context) -> None:
    """Refuse flags that were typed and are about something else. Raises click.UsageError."""
    given = context.params
    if given["files"]:
        options.refuse_typed(context, _BESIDE_A_LIST, "has nothing to say beside -f")
    if given["manifests_only"]:
        options.refuse_typed(context, _OF_ARCHIVES, "is about an archive, and none is made")
        return
    options.refuse_typed(context, _OF_FILES, "is about the files that --manifests-only writes")
    if given["archive"] == STREAM:
        options.refuse_typed(context, _OF_ARCHIVES_ON_DISK, "is about a file, and -o - writes none")
        if given["output_format"] == "json":
            raise click.UsageError("-o - needs standard output for the archive, not for JSON")
        if sys.stdout.isatty():
            raise click.UsageError("standard output is a terminal: pipe the archive somewhere")
    elif not _is_compressed(context):
        options.refuse_typed(context, ["window"], "is about -o - and compressed archives")
    if not given["files"]:
        options.refuse_typed(context, _OF_NAMES, "is about --manifests-only, or -f")


def _is_compressed(context: click.Context) -> bool:
    return level_for(context.params["archive"], context.params["zstd"]) is not None


def _print(result: ExportResult, context: click.Context) -> None:
    report.echo(f"archive   {result.archive} ({size(result.size)})")
    volumes.print_names(result.volumes)
    report.echo(f"id        {result.id}")
    report.echo(
        f"holds     {result.images} images: {result.manifests} manifests, {result.blobs} blobs"
    )
    if result.assumed:
        report.echo(
            f"assumed   {result.assumed} blobs, {size(result.assumed_bytes)}, are not in it: the"
            " other side has them"
        )
    report.echo(f"this run  fetched {result.fetched} blobs, {size(result.fetched_bytes)}")
    if result.reused or result.manifests_reused:
        report.echo(
            f"reused    {result.reused} blobs, {size(result.reused_bytes)},"
            f" and {result.manifests_reused} manifests"
        )
    pushing.print_hosts(result.hosts)
    report.echo_missing("MISSING from the archive", result.missing)
    pushing.print_broken(result.broken)
    kinds = {image.reason == MISSING_BLOB for image in result.missing}
    if kinds:
        report.echo()
    if kinds and context.params["archive"] == STREAM:
        report.echo("What has left does not change: run both sides again when these can be had.")
        return
    if True in kinds and not _is_compressed(context):
        report.echo("Run the same command again to fetch the blobs that are missing.")
    if False in kinds or (kinds and _is_compressed(context)):
        report.echo(
            "What an archive is to hold does not change: when the other images can be had, make a"
            " new one\nthat takes from this what it holds:"
        )
        report.echo(f"  {report.lines_printable(_anew(context))}")


def _print_plan(planned: ExportPlan, output_format: str, *, skip_missing: bool) -> int:
    plan, missing = planned.plan, planned.missing
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
                "reused": planned.reused,
                "reused_bytes": planned.reused_bytes,
                "assumed": planned.assumed,
                "assumed_bytes": planned.assumed_bytes,
                "missing": [report.plain(image) for image in missing],
            },
        )
        return status
    new = plan.content_bytes - planned.reused_bytes - planned.assumed_bytes
    held = f"{size(planned.reused_bytes)} in older archives, " if planned.reused else ""
    if planned.assumed:
        held += f"{size(planned.assumed_bytes)} on the other side, "
    report.echo(f"{len(plan.images)} images, {held}{size(new)} to fetch")
    for image in plan.images:
        report.echo(f"  {image.reference}")
        for place in image.places:
            report.echo(f"    to DEST/{place}")
    report.echo_missing("CANNOT be had", missing)
    return status
