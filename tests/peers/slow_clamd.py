"""A clamd of known capacity: so many threads, so many seconds for each scan. Also a program: ``-m … SOCKET``.

It finds the EICAR test file in the first megabyte of a descriptor, answers inside and outside an IDSESSION, and takes
any number of connections. As clamd does, it goes on with a scan whose asker has gone.
"""

from __future__ import annotations

import argparse
import array
import os
import socket
import sys
import threading
import time
from pathlib import Path

from tests.peers.icapscan_server import CHECKOUT
from tests.peers.origin import EICAR
from tests.peers.processes import Process, accepts

_LOOK = 1 << 20
_ANSWERS = {
    b"PING": b"PONG",
    b"VERSION": b"ClamAV 1.4.3/1/Thu Jan  1 00:00:00 1970",
    b"STATS": b"POOLS: 1\n\nMEMSTATS: pools_used 1.000M\nEND",
}


class SlowClamd(Process):
    """A running one."""

    def __init__(self, folder: Path, *, threads: int, seconds: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "clamd.sock"
        words = [str(self.path), "--threads", str(threads), "--seconds", str(seconds)]
        command = [sys.executable, "-m", "tests.peers.slow_clamd", *words]
        super().__init__("slow-clamd", command, folder, environment={"PYTHONPATH": str(CHECKOUT)})

    @property
    def address(self) -> str:
        """For ``engines.clamd.address``."""
        return f"unix:{self.path}"


def run_slow_clamd(folder: Path, *, threads: int = 4, seconds: float = 0.02) -> SlowClamd:
    """Start one that scans ``threads / seconds`` bodies a second, and wait until it accepts."""
    clamd = SlowClamd(folder, threads=threads, seconds=seconds)
    try:
        clamd.wait_until(lambda: accepts(str(clamd.path)), "the socket")
    except BaseException:
        clamd.end()
        raise
    return clamd


def serve(path: str, threads: int, seconds: float) -> None:
    """Serve until the process is ended."""
    places = threading.Semaphore(threads)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen(512)
    while True:
        connection, _ = listening.accept()
        threading.Thread(target=_converse, args=(connection, places, seconds), daemon=True).start()


def _converse(connection: socket.socket, places: threading.Semaphore, seconds: float) -> None:
    try:
        _answer(connection, places, seconds)
    except ConnectionError:
        pass  # nobody waits for the answer any more
    finally:
        connection.close()


def _answer(connection: socket.socket, places: threading.Semaphore, seconds: float) -> None:
    pending, descriptors, number, session = b"", array.array("i"), 0, False
    while True:
        data, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(4 * 64))
        if not data:
            return
        for _, _, passed in ancillary:
            descriptors.frombytes(passed)
        pending += data
        while True:
            end = b"\n" if pending.startswith(b"n") else b"\0"
            word, ended, rest = pending[1:].partition(end)
            if not ended or (word == b"FILDES" and not rest):
                break
            pending = rest
            if word == b"IDSESSION":
                session = True
                continue
            number += 1
            if word == b"FILDES":
                pending = pending[1:]
                answer = _scan(descriptors.pop(0), places, seconds)
            else:
                answer = _ANSWERS.get(word, b"UNKNOWN COMMAND")
            connection.sendall((b"%d: " % number if session else b"") + answer + end)
            if not session:
                return


def _scan(descriptor: int, places: threading.Semaphore, seconds: float) -> bytes:
    with places:
        time.sleep(seconds)
        found = EICAR in os.pread(descriptor, _LOOK, 0)
        os.close(descriptor)
    return b"fd[%d]: Eicar-Test-Signature FOUND" % descriptor if found else b"fd[%d]: OK" % descriptor


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("path")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    given = parser.parse_args()
    serve(given.path, given.threads, given.seconds)
