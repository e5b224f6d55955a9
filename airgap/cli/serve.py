"""``airgap serve``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from airgap.cli import options, report
from airgap.serving import serve_directory

if TYPE_CHECKING:
    from airgap.cli.running import Stop


@click.command("serve", short_help="Serve a directory as a registry.")
@click.argument("path", type=click.Path(path_type=Path, file_okay=False))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=5000, show_default=True)
@click.option("--read-only", is_flag=True, help="Take no pushes.")
@click.option("--cert", type=options.OptionalPath(), help="Certificate (PEM), for TLS.")
@click.option("--key", type=options.OptionalPath(), help="The certificate's key (PEM).")
@click.option("-v", "--verbose", is_flag=True, help="Print a line for each request.")
@click.pass_obj
def serve_command(
    stop: Stop,
    path: Path,
    host: str,
    port: int,
    read_only: bool,
    cert: Path | None,
    key: Path | None,
    verbose: bool,
) -> int:
    """Serve the directory PATH as an OCI registry, until interrupted.

    The directory is made when it is not there, and keeps what is pushed. Meant for tests and
    small sites: there are no accounts, so it listens on this machine alone unless told to.

    \b
    Examples:
      airgap serve /srv/registry
      airgap serve /srv/registry --host 0.0.0.0 --port 8443 --cert tls.crt --key tls.key
    """
    log = (lambda line: click.echo(line, err=True)) if verbose else None
    with serve_directory(
        path, host=host, port=port, read_only=read_only, certificate=cert, key=key, log=log
    ) as server:
        report.echo(f"serving {path} at {server.url}")
        stop.wait()
    return 0
