"""What ``import`` and ``mirror`` share: flags about the destination, and how a push is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from airgap.cli import options, report
from airgap.cli.progress import size
from airgap.cluster import LARGEST_DOCUMENT, Scope
from airgap.errors import HOLES, printable
from airgap.manifests import ManifestsOptions
from airgap.mapping import DEFAULT_COMPONENTS
from airgap.plan import counted

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from airgap.delivery import PushPlan
    from airgap.lister import DatabasePath, ListResult
    from airgap.pushing import PushResult
    from airgap.registry.account import HostActivity

Command = TypeVar("Command", bound=Callable[..., Any])

_SINCE_4_13 = ("imageDigestMirrorSet.yaml", "imageTagMirrorSet.yaml")
_BEFORE_4_13 = "imageContentSourcePolicy.yaml"

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


max_components_option = click.option(
    "--max-components",
    type=int,
    default=DEFAULT_COMPONENTS,
    callback=_components,
    show_default=True,
    help="Parts of a repository's path in DEST; further ones are joined with -. 0: no limit.",
)

_DESTINATION_OPTIONS = (
    click.option(
        "--to-manifests",
        type=options.OptionalPath(),
        callback=_directory,
        help="Where the files for the cluster go. Default: manifests-CATALOG-ID.",
    ),
    max_components_option,
    click.option("--icsp-scope", type=SCOPES, default=Scope.REPOSITORY.value, show_default=True),
    click.option("--idms-scope", type=SCOPES, default=Scope.REPOSITORY.value, show_default=True),
    click.option(
        "--max-icsp-size",
        type=click.IntRange(1, LARGEST_DOCUMENT),
        default=LARGEST_DOCUMENT,
        show_default=True,
        help="Bytes of one mirror set; what does not fit goes on in the next.",
    ),
)


def _database_path(
    _context: click.Context, _parameter: click.Parameter, value: str
) -> DatabasePath | None:
    if not value:
        return None
    from airgap.lister import DatabasePath  # with all that reads catalogs, for this alone

    return DatabasePath.parse(value)


_MANIFESTS_ONLY_OPTIONS = (
    click.option(
        "--manifests-only",
        is_flag=True,
        help="Read the catalog alone, write the files for the cluster and the catalog's database.",
    ),
    click.option(
        "--path",
        default="",
        metavar="IN:LOCAL",
        callback=_database_path,
        help="With --manifests-only: where in its image the catalog is, and the directory for its"
        " database.",
    ),
)

force_tags_option = click.option(
    "--force-tags", is_flag=True, help="Move tags that are set to something else."
)

recheck_option = click.option(
    "--recheck", is_flag=True, help="Ask for every part of the images that are there already."
)


def destination_options(command: Command) -> Command:
    """Add the flags that shape names and files at the destination."""
    for option in reversed(_DESTINATION_OPTIONS):
        command = option(command)
    return command


def manifests_only_options(command: Command) -> Command:
    """Add --manifests-only and --path."""
    for option in reversed(_MANIFESTS_ONLY_OPTIONS):
        command = option(command)
    return command


def require_manifests_only(context: click.Context) -> None:
    """Refuse --path where no database is kept. Raises click.UsageError."""
    if not context.params["manifests_only"]:
        options.refuse_typed(context, ["path"], "is about the database, of --manifests-only")


def manifests_from(
    to_manifests: Path | None, icsp_scope: str, idms_scope: str, max_icsp_size: int
) -> ManifestsOptions:
    """Return what the flags about the cluster's files say."""
    return ManifestsOptions(to_manifests, Scope(icsp_scope), Scope(idms_scope), max_icsp_size)


def print_plan(command: str, plan: PushPlan, output_format: str, *, skip_missing: bool) -> int:
    """Print what would go where, and return the exit status."""
    status = HOLES if counted(plan.missing, skip_missing=skip_missing) else 0
    if output_format == "json":
        report.echo_json(f"{command} --dry-run", status, plan)
    else:
        for line in plan.mapping:
            report.echo(line)
        for hole in plan.unplaced:
            report.echo(f"# {printable(hole.reference, 400)}  (missing: {hole.reason})")
    return status


def print_list(command: str, result: ListResult, output_format: str) -> int:
    """Print what was listed, and return the exit status."""
    if output_format == "json":
        report.echo_json(f"{command} --manifests-only", result.exit_status, result)
        return result.exit_status
    report.echo(f"listed    {result.images} images besides the catalogs; nothing was copied")
    print_files(result.directory, result.files)
    for database in result.databases:
        report.echo(f"database  {database}")
    report.echo_missing("MISSING", result.missing)
    return result.exit_status


def print_sent(result: PushResult) -> None:
    """Print what a run has sent."""
    there = f"; {result.images_present} images were there" if result.images_present else ""
    report.echo(
        f"this run  sent {result.sent} blobs ({size(result.sent_bytes)}) and"
        f" {result.manifests_sent} manifests;"
        f" mounted {result.mounted}, found {result.present}{there}"
    )
    print_hosts(result.hosts)


def print_hosts(hosts: Sequence[HostActivity]) -> None:
    """Print what was tried again at which host, and why."""
    for host in hosts:
        if host.retries or host.waited:
            reasons = ", ".join(f"{why} ({count})" for why, count in host.retries.items())
            report.echo(
                f"again     {host.host}: {reasons or 'nothing'}; waited {host.waited:.0f} s,"
                f" {host.requests} requests in all"
            )


def print_files(directory: Path, files: Sequence[str]) -> None:
    """Print which files were written, and what applying them does."""
    if not files:
        report.echo(f"wrote     nothing, as no image arrived; {directory}/ stays as it is")
        return
    report.echo(f"wrote     {directory}/: {', '.join(files)}")
    newer = [file for file in _SINCE_4_13 if file in files]
    if newer:
        before = f", {_BEFORE_4_13} before; not both" if _BEFORE_4_13 in files else ""
        report.echo(f"apply     {' and '.join(newer)} from OpenShift 4.13 on{before}")
        report.echo(
            "          the nodes then drain one after the other, and pull from the mirror with the"
            " cluster's global pull secret alone"
        )


def print_holes(missing_title: str, result: PushResult) -> None:
    """Print what is not at the destination."""
    report.echo_missing(missing_title, result.missing)
    report.echo_missing("FAILED, so not at the destination", result.failed)
    if result.to_create:
        report.echo()
        report.echo(f"CREATE these repositories, and run again ({len(result.to_create)}):")
        for repository in result.to_create:
            report.echo(f"  {repository}")
    print_broken(result.broken)


def print_broken(packages: Sequence[str]) -> None:
    """Print the operators that do not work whole for want of what is missing."""
    if packages:
        report.echo()
        report.echo(f"BROKEN operators ({len(packages)}): {', '.join(map(printable, packages))}")


def print_hints(result: PushResult) -> None:
    """Print what can be done about failures, each advice once."""
    for hint in dict.fromkeys(error.hint for error in result.errors if error.hint):
        report.echo(f"  {hint}")
