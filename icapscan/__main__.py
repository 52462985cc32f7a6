"""``python -m icapscan``."""

from __future__ import annotations

import sys


def run() -> int:
    """The command line, or a worker of the supervisor, which needs nothing of the command line."""
    if sys.argv[1:2] == ["_worker"]:
        from icapscan.daemon import worker

        return worker(sys.argv[2:])
    from icapscan.cli import main

    return main()


if __name__ == "__main__":
    sys.exit(run())
