"""The command line as a person meets it: what was typed, what was printed, how it ended."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airgap.cli.main import run

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Ran:
    """The end of a command: its exit status and what it wrote."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What is on stdout, which must be one JSON document."""
        return json.loads(self.out)

    @property
    def text(self) -> str:
        return self.out + self.err


def airgap(*arguments: object) -> Ran:
    """Run a command in this process. What it printed is shown when a test fails."""
    typed = [str(argument) for argument in arguments]
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = run(typed)
    ran = Ran(status, out.getvalue(), err.getvalue())
    print(f"$ airgap {' '.join(typed)}\n{ran.out}{ran.err}[status {status}]\n")
    return ran


def start_airgap(
    *arguments: object, folder: Path, environ: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start a command as a process of its own, for signals, streams and logs."""
    typed = [str(argument) for argument in arguments]
    return subprocess.Popen(
        [sys.executable, "-m", "airgap", *typed],
        cwd=folder,
        env=os.environ | (environ or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def airgap_process(*arguments: object, folder: Path, environ: dict[str, str] | None = None) -> Ran:
    """Run a command as a process of its own, to its end."""
    with start_airgap(*arguments, folder=folder, environ=environ) as process:
        try:
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    print(f"$ airgap {' '.join(map(str, arguments))}\n{out}{err}[status {process.returncode}]\n")
    return Ran(process.returncode, out, err)
