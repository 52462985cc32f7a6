"""Takes one body from standard input apart in a process of its own; prints what came of it and what it cost.

Run as ``python -m tests.unwrap.bomb_runner``. Memory is the growth of the peak of the resident set, in bytes.
"""

from __future__ import annotations

import json
import resource
import sys
import time

from .archive_driver import walk


def main() -> None:
    data = sys.stdin.buffer.read()
    walk(b"PK\3\4" + bytes(60_000))  # everything is loaded before the measurement
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.process_time()
    got = walk(data, name=sys.argv[1])
    spent = time.process_time() - begun
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(
        json.dumps(
            {
                "memory": grown * 1024,
                "seconds": spent,
                "reasons": sorted(reason.value for reason in got.reasons),
                "spent": got.spent,
                "unpacked": got.budget.unpacked,
                "parts": got.budget.parts,
            }
        )
    )


if __name__ == "__main__":
    main()
