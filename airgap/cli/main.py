"""The ``airgap`` command: its subcommands, and the one place where errors become statuses."""

from __future__ import annotations

import gc
import itertools
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING

import click

from airgap import __version__, limits
from airgap.cli import report
from airgap.cli.running import stoppable
from airgap.errors import AirgapError, Interrupted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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


_COMMANDS = {
    "catalog": "catalog",
    "diff": "diff",
    "export": "export",
    "import": "import_",
    "inspect": "inspect",
    "join": "reshape",
    "merge": "reshape",
    "mirror": "mirror",
    "receipt": "receipt",
    "serve": "serve",
    "split": "reshape",
    "verify": "verify",
}
"""Each command's name and the module that holds it, as ``NAME_command``."""


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Keep the collector of cycles out of what is made meanwhile, and for good.

    Modules stay. To look for garbage in them again and again took an eighth of a command's start.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


class _Commands(click.Group):
    """Loads a command when it is called for: no run needs what the others are made of."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        with _no_garbage():
            module = import_module(f"airgap.cli.{_COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command


@click.group(
    cls=_Commands, epilog=EXIT_STATUSES, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="airgap")
def cli() -> None:
    """Carry an operator catalog and every image it needs across an air gap.

    On the connected side, `airgap export` puts a catalog and all its images into one archive.
    On the other side, `airgap import` pushes it to the internal registry, with every digest
    unchanged, and writes the YAML that makes a cluster use it.
    """


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status."""
    _let_memory_be_kept()
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


def _let_memory_be_kept() -> None:
    """Let the C library keep the memory of pieces of content for the next ones.

    glibc gives freed memory back to the kernel from twice the size of the largest block on that
    it has seen freed (mallopt(3), M_MMAP_THRESHOLD): without this, about as soon as each second
    piece. To get it again took a twentieth of an import's processor time.
    """
    bytes(16 * limits.CHUNK)


def _status_of(error: AirgapError, stop: Stop) -> int:
    return stop.status if isinstance(error, Interrupted) else error.exit_status


def _asks_for_json(arguments: Sequence[str]) -> bool:
    return "--output=json" in arguments or any(
        pair == ("--output", "json") for pair in itertools.pairwise(arguments)
    )
