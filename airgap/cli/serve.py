"""``airgap serve``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from airgap.cli import options, pushing, report
from airgap.errors import printable
from airgap.serving import is_archive_asked, serve_archive, serve_directory

if TYPE_CHECKING:
    from airgap.cli.running import Stop
    from airgap.plan import Missing
    from airgap.serving import ServedArchive

_OF_ARCHIVES = ("name", "max_components")

SHOWN_MISSING = 20


@click.command("serve", short_help="Serve an archive or a directory as a registry.")
@click.argument(
    "paths", metavar="PATH...", type=click.Path(path_type=Path), nargs=-1, required=True
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=5000, show_default=True)
@click.option("--cert", type=options.OptionalPath(), help="Certificate (PEM), for TLS.")
@click.option("--key", type=options.OptionalPath(), help="The certificate's key (PEM).")
@click.option(
    "--name",
    default="",
    help="Archive: the host that clients know, for the lines that are printed. Default: the"
    " address, or this machine's name when that is every address.",
)
@pushing.max_components_option
@click.option("--read-only", is_flag=True, help="Take no pushes; an archive never does.")
@click.option("-v", "--verbose", is_flag=True, help="Print a line for each request.")
@click.pass_context
def serve_command(
    context: click.Context,
    paths: tuple[Path, ...],
    host: str,
    port: int,
    cert: Path | None,
    key: Path | None,
    name: str,
    max_components: int,
    read_only: bool,
    verbose: bool,
) -> int:
    """Serve an archive, or a directory, as an OCI registry, until interrupted.

    An archive, any set of its files, or directories that hold them, is served to read from,
    straight from the medium: under the names of the sources, as HOST/quay.io/org/name, and
    under those that an import to HOST gives. What is printed is a file for
    /etc/containers/registries.conf.d that makes podman, skopeo, CRI-O and airgap come here.

    A directory is made when it is not there, and keeps what is pushed. Meant for tests and
    small sites.

    There are no accounts, so it listens on this machine alone unless told to.

    \b
    Examples:
      airgap serve olm.tar
      airgap serve /media/usb1 /media/usb2 > /etc/containers/registries.conf.d/50-airgap.conf
      airgap serve olm.tar --host 0.0.0.0 --name bastion.site.example --cert tls.crt --key tls.key
      airgap serve /srv/registry
      airgap serve /srv/registry --host 0.0.0.0 --port 8443 --cert tls.crt --key tls.key
    """
    stop: Stop = context.obj
    log = _say if verbose else None
    if is_archive_asked(paths):
        with serve_archive(
            paths, host=host, port=port, name=name, max_components=max_components,
            certificate=cert, key=key, log=log, say=_say,
        ) as served:  # fmt: skip
            _print(served)
            stop.wait()
        return 0
    options.refuse_typed(context, _OF_ARCHIVES, "is for an archive")
    (path,) = paths
    with serve_directory(
        path, host=host, port=port, read_only=read_only, certificate=cert, key=key, log=log
    ) as server:
        report.echo(f"serving {path} at {server.url}")
        stop.wait()
    return 0


def _say(line: str) -> None:
    report.echo(printable(line, 1000), err=True)


def _print(served: ServedArchive) -> None:
    """Print what is served and what is not, as remarks of the file that leads clients here."""
    absent = [str(volume.number) for volume in served.volumes if volume.file is None]
    lines = [f"serving {served.archive} at {served.url}", f"id {served.id}"]
    lines += [f"{served.images} images, as {served.address}/SOURCE and as an import names them"]
    lines += [f"catalog {name}" for name in served.catalogs]
    if absent:
        lines.append(f"NOT HERE: volumes {', '.join(absent)} (of {len(served.volumes)})")
    lines += [f"NOT WHOLE: {_told(missing)}" for missing in served.missing[:SHOWN_MISSING]]
    if (more := len(served.missing) - SHOWN_MISSING) > 0:
        lines.append(f"NOT WHOLE: {more} more images; `airgap inspect` lists them")
    for line in (*lines, *served.notes):
        for part in line.split("\n"):
            report.echo(f"# {printable(part, 1000)}")
    report.echo()
    report.echo(served.registries_conf)


def _told(missing: Missing) -> str:
    return f"{missing.reference}: {missing.detail or missing.reason}"
