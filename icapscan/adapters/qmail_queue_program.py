"""The entry point of ``icapscan-qmail-queue``. It imports nothing itself: what fails here has its exit code, too."""

from __future__ import annotations

import sys

_OUT_OF_MEMORY, _INTERNAL_BUG = 51, 81
"""As `icapscan.wire.qmail_queue.Exit`, which may be what cannot be imported."""


def main() -> int:
    """Run in this process, which is for nothing else; returns the exit code."""
    try:
        # msgspec takes the names of typing where this module is absent; its import costs as much as Python's own start.
        sys.modules.setdefault("typing_extensions", None)  # type: ignore[arg-type]
        from icapscan.adapters.qmail_queue import main as run

        return run()
    except MemoryError:
        return _OUT_OF_MEMORY
    except BaseException:
        return _INTERNAL_BUG


if __name__ == "__main__":
    sys.exit(main())
