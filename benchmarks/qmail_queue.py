"""``python -m benchmarks.qmail_queue``: how long a caller waits for ``icapscan-qmail-queue``, its start included.

Rows: Python's own start; the program with a small clean mail, `icapscan serve` with the shipped YARA rules behind it
and a queue that only reads; the same with a mail of 1 MB; and the bare queue. Milliseconds, median and best over
``--runs``, the rows in turn so that all meet the same machine. Pipes and descriptors are as in qmail.c.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from base64 import encodebytes
from pathlib import Path

from icapscan.wire.qmail_queue import encode_envelope
from tests.peers.icapscan_server import CHECKOUT, run_icapscan

ENVELOPE = encode_envelope(b"a@icapscan.test", [b"b@icapscan.test"])
SMALL = b"From: a@icapscan.test\nTo: b@icapscan.test\nSubject: hello\n\n" + b"A line of text.\n" * 100
PROGRAM = """#!{python}
import sys
sys.path.insert(0, {checkout!r})
from icapscan.adapters.qmail_queue_program import main
sys.exit(main())
"""
"""As pip writes it for ``[project.scripts]``."""


def large() -> bytes:
    """A mail with an attachment of its own."""
    head = SMALL.partition(b"\n\n")[0] + b"\nContent-Type: application/pdf\nContent-Transfer-Encoding: base64\n\n"
    return head + encodebytes(os.urandom(768 * 1024))


def run(command: list[str], message: bytes, environment: dict[str, str]) -> float:
    """Seconds from the start to the exit code, which must be 0."""
    envelope, write = os.pipe()
    os.write(write, ENVELOPE)
    os.close(write)

    def child() -> None:
        os.dup2(envelope, 1)

    begun = time.perf_counter()
    given = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | environment
    process = subprocess.Popen(command, stdin=subprocess.PIPE, env=given, preexec_fn=child, pass_fds=(envelope,))
    assert process.stdin is not None
    feed = threading.Thread(target=_feed, args=(process, message))
    feed.start()
    code = process.wait()
    took = time.perf_counter() - begun
    feed.join()
    os.close(envelope)
    if code != 0:
        raise SystemExit(f"{command[0]} ended with {code}")
    return took


def _feed(process: subprocess.Popen[bytes], message: bytes) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(message)
        process.stdin.close()
    except BrokenPipeError:
        pass  # it reads nothing, as the row of Python's own start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        queue, program = folder / "queue", folder / "icapscan-qmail-queue"
        queue.write_text("#!/bin/sh\nexec cat >/dev/null\n")
        program.write_text(PROGRAM.format(python=sys.executable, checkout=str(CHECKOUT)))
        queue.chmod(0o755)
        program.chmod(0o755)
        with run_icapscan(folder / "icapscan") as server:
            url = f"icap://127.0.0.1:{server.icap_port}/avscan"
            given = {"ICAPSCAN_ICAP": url, "ICAPSCAN_QUEUE": str(queue), "ICAPSCAN_CONFIG": "/dev/null"}
            given["PYTHONPYCACHEPREFIX"] = str(
                folder / "compiled"
            )  # as after an installation, whatever lies about here
            rows = {
                "python -c pass": ([sys.executable, "-c", "pass"], b""),
                "queue alone, small": ([str(queue)], SMALL),
                "small mail": ([str(program)], SMALL),
                "mail of 1 MB": ([str(program)], large()),
            }
            times: dict[str, list[float]] = {row: [] for row in rows}
            for command, message in rows.values():
                run(command, message, given)  # compiled files, and what the server does once
            for _ in range(options.runs):
                for row, (command, message) in rows.items():
                    times[row].append(run(command, message, given) * 1000)
    found = {row: {"median": statistics.median(some), "best": min(some)} for row, some in times.items()}
    if options.json:
        print(json.dumps({"runs": options.runs, "milliseconds": found}))
        return
    for row, figures in found.items():
        print(f"{row:<20} median {figures['median']:7.1f} ms   best {figures['best']:7.1f} ms")


if __name__ == "__main__":
    main()
