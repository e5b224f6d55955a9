"""``airgap`` and ``python -m airgap``."""

from __future__ import annotations

import sys

from airgap.cli.main import run


def main() -> None:
    """Run the command line and end the process with its status."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
