"""``airgap`` in a process that dies at a chosen moment, or tells what it has cost.

``python -m tests.support.watched REPORT DIE_AT ARGUMENT...`` runs a command. Before its
``DIE_AT``-th change to a file the process kills itself, in the middle when that is a write;
0 means never. A run that ends writes a ``Cost`` to the file ``REPORT``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
"""The project, from which the module can be run."""

_CHANGES = frozenset({"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"})
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(frozen=True)
class Cost:
    """What a run needed: changes to files, bytes given to the kernel, bytes of memory at most."""

    changes: int
    written: int
    memory: int

    @classmethod
    def read(cls, report: Path) -> Cost:
        return cls(**json.loads(report.read_text()))

    @classmethod
    def of_this_process(cls, changes: int) -> Cost:
        # VmHWM and not ru_maxrss, which a process inherits from the one that started it.
        memory = _field("/proc/self/status", "VmHWM")
        return cls(changes, _field("/proc/self/io", "wchar"), memory * 1024)


def watched(report: Path, *arguments: object, die_at: int = 0) -> list[str]:
    """Return the command line of a watched run; its working directory must be ``ROOT``."""
    typed = [sys.executable, "-m", "tests.support.watched", report, die_at, *arguments]
    return [str(argument) for argument in typed]


class _Fate:
    """Counts the changes to files, and ends the process at one of them."""

    def __init__(self, die_at: int) -> None:
        self.changes = 0
        self._die_at = die_at
        self._lock = threading.Lock()

    def install(self) -> None:
        sys.addaudithook(self._audit)
        for name in ("fsync", "fdatasync"):
            setattr(os, name, self._counting(getattr(os, name)))
        for name in ("write", "pwrite"):
            setattr(os, name, self._writing(getattr(os, name)))

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        opened = event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING
        if (opened or event in _CHANGES) and self._is_due():
            _die()

    def _counting(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            if self._is_due():
                _die()
            return call(*arguments)

        return counted

    def _writing(self, call: Callable[..., int]) -> Callable[..., int]:
        def counted(descriptor: int, content: Any, *offset: int) -> int:
            if self._is_due():
                call(descriptor, bytes(content[: len(content) // 2]), *offset)
                _die()
            return call(descriptor, content, *offset)

        return counted

    def _is_due(self) -> bool:
        with self._lock:
            self.changes += 1
            return self.changes == self._die_at


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _field(file: str, name: str) -> int:
    fields = dict(line.split(":", 1) for line in Path(file).read_text().splitlines())
    return int(fields[name].split()[0])


def main() -> None:
    from airgap.cli.main import run

    report, die_at, *arguments = sys.argv[1:]
    fate = _Fate(int(die_at))
    fate.install()
    status = run(arguments)
    Path(report).write_text(json.dumps(asdict(Cost.of_this_process(fate.changes))))
    sys.exit(status)


if __name__ == "__main__":
    main()
