"""Bounds for a child process that reads hostile bytes; also a program that sets them and becomes another one.

Run as a file (``python -I -S bounded.py PROGRAM ARGUMENT...``), so it imports nothing but the standard library.
"""

from __future__ import annotations

import io
import os
import resource
import signal
import sys

PART = "/proc/self/fd/0"
"""The part, as a child opens it anew: with its own position, for the descriptor on its standard input is shared."""
PASSWORDS = "ICAPSCAN_PASSWORDS"
"""Environment variable with the passwords to try, one a line."""
MEMORY = 768 * 1024 * 1024
"""Address space. 7-Zip's largest preset has a dictionary of 256 MiB, everyday ones 64 MiB or less."""
CPU_SECONDS = 60
"""For one archive, whatever it gives. 7-Zip unpacks some 20 MB a second and more, and `Limits.unpacked` is 1 GiB."""
QUIET_SECONDS = 2.0
"""Of CPU time without any output, where the child can tell (`alive`)."""
_PIECE = 1024 * 1024


def apply() -> None:
    """Bound this process for the rest of its life, and everything that it becomes."""
    _limit(resource.RLIMIT_AS, MEMORY)
    _limit(resource.RLIMIT_CPU, CPU_SECONDS)
    _limit(resource.RLIMIT_FSIZE, 0)  # nothing is ever written to a file
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, 32)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # when nobody reads any more, this ends


def alive() -> None:
    """There was output: the quiet time begins anew. SIGPROF ends the process."""
    signal.setitimer(signal.ITIMER_PROF, QUIET_SECONDS)


def put(data: bytes | memoryview) -> None:
    """Write all of it to standard output, in pieces, each of which is a sign of life."""
    view = memoryview(data)
    while view:
        alive()
        view = view[os.write(1, view[:_PIECE]) :]


class Out(io.RawIOBase):
    """Standard output, as much of a file as a library needs that writes a document."""

    def __init__(self) -> None:
        self._at = 0

    def write(self, data: bytes | memoryview) -> int:  # type: ignore[override]
        size = len(data)
        put(data)
        self._at += size
        return size

    def tell(self) -> int:
        return self._at

    def seekable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True


def passwords() -> list[str]:
    """The passwords that this process was given."""
    return [line for line in os.environ.get(PASSWORDS, "").split("\n") if line]


def _limit(what: int, value: int) -> None:
    hard = resource.getrlimit(what)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(what, (value, value))


if __name__ == "__main__":
    apply()
    os.execv(sys.argv[1], sys.argv[1:])
