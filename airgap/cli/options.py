"""Flags that several commands share, under the names ``oc`` users know."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import click
from click.core import ParameterSource

from airgap.archive.reader import STREAM
from airgap.registry import pace
from airgap.registry.access import Access

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airgap.archive.reader import Paths

Command = TypeVar("Command", bound=Callable[..., Any])


class OptionalPath(click.ParamType[Path | None]):
    """A path; an empty value counts as not given, as scripts write ``-a "$AUTH"``."""

    name = "file"

    def convert(
        self, value: str | Path, param: click.Parameter | None, ctx: click.Context | None
    ) -> Path | None:
        """Return the path, None for an empty one."""
        return Path(value) if str(value) else None


_REGISTRY_OPTIONS = (
    click.option(
        "-a",
        "--registry-config",
        type=OptionalPath(),
        help="Credentials (auth.json). Default: $REGISTRY_AUTH_FILE, $REG_CREDS, then the places"
        " of podman and docker.",
    ),
    click.option(
        "--insecure",
        is_flag=True,
        help="Let the registries named on this command line be unverified, or plain HTTP.",
    ),
    click.option(
        "--certificate-authority",
        type=OptionalPath(),
        help="Certificates (PEM) to trust besides the system's.",
    ),
    click.option(
        "--max-per-registry",
        type=click.IntRange(1, 64),
        default=pace.MOST,
        show_default=True,
        help="How many requests one registry is given at once, at most. It begins with few and"
        " gets more while that helps.",
    ),
)

registries_conf_option = click.option(
    "--registries-conf",
    type=OptionalPath(),
    help="registries.conf with mirrors for the sources. Default: $CONTAINERS_REGISTRIES_CONF.",
)


def _regular_expression(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise click.BadParameter(f"not a regular expression: {error}") from error
    return value


index_filter_option = click.option(
    "--index-filter-by-os",
    "platform",
    callback=_regular_expression,
    default="linux/amd64",
    show_default=True,
    help="Regular expression on os/arch[/variant]: which variant of the catalog image is read."
    " All variants of all images are taken, whatever it says.",
)


def refuse_typed(context: click.Context, names: Iterable[str], why: str) -> None:
    """Refuse flags that were typed and cannot mean anything here. Raises click.UsageError."""
    for option in context.command.params:
        typed = context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
        if option.name in names and typed:
            raise click.UsageError(f"{option.opts[0]} {why}", context)


continue_on_error_option = click.option(
    "--continue-on-error/--no-continue-on-error",
    default=True,
    show_default=True,
    help="Go on when an image fails; the exit status then says so.",
)

skip_missing_option = click.option(
    "--skip-missing",
    is_flag=True,
    help="Images that their registry says do not exist are listed but do not change the exit"
    " status.",
)

output_option = click.option(
    "--output",
    "output_format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How the result is printed.",
)


def registry_options(command: Command) -> Command:
    """Add the flags that say how registries are reached."""
    for option in reversed(_REGISTRY_OPTIONS):
        command = option(command)
    return command


archives_argument = click.argument(
    "archives",
    metavar="ARCHIVE...",
    type=click.Path(path_type=Path),
    nargs=-1,
    required=True,
)


def archive_from(context: click.Context, archives: tuple[Path, ...]) -> Paths | BinaryIO:
    """Return the files and directories of an archive, or standard input for ``-``.

    Raises click.UsageError.
    """
    if STREAM not in archives:
        return archives
    if archives[1:]:
        raise click.UsageError("- is a whole archive from standard input: name nothing else")
    refuse_typed(context, ["wait", "verify_first"], "cannot be: standard input passes once")
    refuse_typed(context, ["dry_run", "manifests_only"], "needs a file, and - is none")
    if sys.stdin.isatty():
        raise click.UsageError("standard input is a terminal: pipe an archive into it")
    return sys.stdin.buffer


def verbosity_options(command: Command) -> Command:
    """Add -q and -v."""
    quiet = click.option("-q", "--quiet", is_flag=True, help="No progress, the result alone.")
    verbose = click.option("-v", "--verbose", count=True, help="Say more; -vv: each request.")
    return quiet(verbose(command))


def set_verbosity(verbose: int) -> None:
    """Show the program's own log on stderr: with -v what is noteworthy, with -vv each request."""
    if verbose:
        logging.basicConfig(format="%(message)s", level=logging.WARNING)
        logging.getLogger("airgap").setLevel(logging.INFO if verbose == 1 else logging.DEBUG)


def access_from(
    registry_config: Path | None,
    insecure: bool,
    certificate_authority: Path | None,
    max_per_registry: int,
    registries_conf: Path | None = None,
) -> Access:
    """Return what the registry flags say."""
    return Access(
        registry_config=registry_config,
        registries_conf=registries_conf,
        insecure=insecure,
        certificate_authority=certificate_authority,
        connections=max_per_registry,
    )
