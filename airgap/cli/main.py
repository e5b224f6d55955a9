"""The ``airgap`` command: its subcommands, and the one place where errors become statuses."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import click

from airgap import __version__
from airgap.cli import report
from airgap.cli.catalog import catalog_group
from airgap.cli.diff import diff_command
from airgap.cli.export import export_command
from airgap.cli.import_ import import_command
from airgap.cli.inspect import inspect_command
from airgap.cli.mirror import mirror_command
from airgap.cli.receipt import receipt_command
from airgap.cli.reshape import join_command, merge_command, split_command
from airgap.cli.running import stoppable
from airgap.cli.serve import serve_command
from airgap.cli.verify import verify_command
from airgap.errors import AirgapError, Interrupted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airgap.cli.running import Stop

EXIT_STATUSES = """\b
Exit status:
  0    all done
  1    a bug in airgap
  2    wrong usage or configuration
  3    finished, with holes that are listed
  4    refused: content or format is not what it must be
  5    a registry refused, or could not be reached
  6    storage: no space, read-only, medium gone
  130, 143  interrupted: run the same command again to continue
"""


@click.group(epilog=EXIT_STATUSES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="airgap")
def cli() -> None:
    """Carry an operator catalog and every image it needs across an air gap.

    On the connected side, `airgap export` puts a catalog and all its images into one archive.
    On the other side, `airgap import` pushes it to the internal registry, with every digest
    unchanged, and writes the YAML that makes a cluster use it.
    """


for command in (
    export_command,
    import_command,
    mirror_command,
    catalog_group,
    diff_command,
    inspect_command,
    verify_command,
    split_command,
    join_command,
    merge_command,
    receipt_command,
    serve_command,
):
    cli.add_command(command)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status."""
    output_format = "json" if _asks_for_json(arguments) else "text"
    with stoppable(output_format) as stop:
        try:
            status = cli.main(list(arguments), prog_name="airgap", standalone_mode=False, obj=stop)
            return status if isinstance(status, int) else 0
        except AirgapError as error:
            status = _status_of(error, stop)
            report.echo_error(error, output_format, status)
            return status
        except click.ClickException as error:
            if output_format == "json":
                report.echo_json_error(error.exit_code, error.format_message())
            error.show()
            return error.exit_code
        except click.Abort:
            return stop.status
        except SystemExit:
            # How click ends, even so, when whoever read the help has gone.
            return 0


def _status_of(error: AirgapError, stop: Stop) -> int:
    return stop.status if isinstance(error, Interrupted) else error.exit_status


def _asks_for_json(arguments: Sequence[str]) -> bool:
    return "--output=json" in arguments or any(
        pair == ("--output", "json") for pair in itertools.pairwise(arguments)
    )
