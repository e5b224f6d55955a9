"""Results and errors as text for people and as JSON for programs."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from airgap.cli.progress import size
from airgap.digest import Digest
from airgap.errors import AirgapError, StorageError, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airgap.plan import Missing, Need

SHOWN_BUNDLES = 6


def echo(line: str = "", *, err: bool = False) -> None:
    """Print one line of a result; that nobody reads it any more changes nothing.

    Raises StorageError when it cannot be written, as to a full disk.
    """
    stream = sys.stderr if err else sys.stdout
    try:
        click.echo(line, file=stream)
    except OSError as error:
        # Later lines, and Python's own flush at exit, must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if not isinstance(error, BrokenPipeError):
            name = "standard error" if err else "standard output"
            raise StorageError(f"{name}: {error.strerror}") from error


def echo_json(command: str, status: int, result: Any) -> None:
    """Print a result as one JSON document."""
    document = {"command": command, "exit_status": status} | plain(result)
    echo(json.dumps(document, indent=2))


def echo_error(error: AirgapError, output_format: str, status: int) -> None:
    """Print why a command ended without a result: to stderr, and as JSON if that was asked."""
    if output_format == "json":
        echo_json_error(status, error.message, error.hint)
    echo(f"error: {lines_printable(error.message)}", err=True)
    if error.hint:
        echo(f"  {lines_printable(error.hint)}", err=True)


def echo_json_error(status: int, message: str, hint: str | None = None) -> None:
    """Print an error as one JSON document."""
    document = {"exit_status": status, "error": message, "hint": hint}
    echo(json.dumps(document, indent=2))


def echo_needs(needs: Sequence[Need], before: str) -> None:
    """Print what a delta needs of earlier archives, a line each; ``before`` begins each."""
    for need in needs:
        blobs = "1 blob" if need.blobs == 1 else f"{need.blobs} blobs"
        archives = " or ".join(map(str, need.archives))
        echo(f"{before}{blobs} of {archives} ({size(need.size)})")


def echo_missing(title: str, missing: Sequence[Missing]) -> None:
    """Print what is missing and whom it hurts, one image after the other."""
    if not missing:
        return
    echo()
    echo(f"{title} ({len(missing)}):")
    for image in missing:
        echo(f"  {printable(image.reference, 400)}")
        detail = f": {printable(image.detail, 600)}" if image.detail else ""
        echo(f"    {image.reason}{detail}")
        if image.bundles:
            packages = ", ".join(map(printable, image.packages)) or "no package"
            echo(f"    needed by {_some(image.bundles)} ({packages})")


def lines_printable(text: str) -> str:
    """Return text of several lines fit for a terminal; one may be a command to be typed."""
    return "\n".join(printable(line, 20_000) for line in text.split("\n"))


def plain(value: Any) -> Any:
    """Return a result as what JSON knows."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type | Digest):
        return {
            field.name: plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if field.repr
        }
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    return str(value) if isinstance(value, Path | Digest) else value


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(map(printable, names[:SHOWN_BUNDLES]))
    more = len(names) - SHOWN_BUNDLES
    return f"{shown} and {more} more bundles" if more > 0 else shown
