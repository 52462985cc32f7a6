"""The servers that are compared: c-icap and icapscan beside each other, one clamd for both."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from benchmarks.load import MARKER
from tests.peers import require
from tests.peers.cicap import CicapServer, cicap_version, run_cicap
from tests.peers.clamd import ClamdPeer, run_clamd
from tests.peers.icapscan_server import IcapscanServer, run_icapscan
from tests.peers.processes import cpu_seconds

WORKERS = 2


class Side(Struct, frozen=True):
    """One server under test."""

    name: str
    port: int
    pid: int

    def cpu(self) -> float:
        """Processor time in seconds that it and its children have used."""
        return cpu_seconds(self.pid)


class Sides(Struct, frozen=True):
    """All that runs. The others are idle while one is loaded."""

    clamd: ClamdPeer
    peer: Side
    ours: Side


@contextlib.contextmanager
def run_sides(folder: Path) -> Iterator[Sides]:
    """Start clamd, c-icap with virus_scan and icapscan with 2 workers, YARA off; end them at the exit.

    Both write one log line for each transaction to a file, both use clamd's Unix socket.
    """
    database = folder / "clamd" / "database"
    database.mkdir(parents=True)
    (database / "benchmark.ndb").write_text(f"Icapscan.Benchmark.Marker:0:*:{MARKER.encode().hex()}\n")
    with contextlib.ExitStack() as stack:
        clamd = stack.enter_context(run_clamd(folder / "clamd", threads=10))
        cicap: CicapServer = stack.enter_context(run_cicap(folder / "c-icap", clamd.unix_address, processes=WORKERS))
        ours: IcapscanServer = stack.enter_context(
            run_icapscan(
                folder / "icapscan",
                {
                    "server.workers": WORKERS,
                    "engines.yara.enabled": False,
                    "engines.clamd.address": [clamd.unix_address],
                    "log.file": str(folder / "icapscan" / "access.log"),
                },
            )
        )
        sides = Sides(clamd, Side("c-icap", cicap.icap_port, cicap.pid), Side("icapscan", ours.icap_port, ours.pid))
        for side in (sides.peer, sides.ours):
            probe(side)
        yield sides


def probe(side: Side) -> None:
    """Raise RuntimeError unless ``/avscan`` blocks random bytes that end in the marker and answers 204 without it.

    Random bytes, because virus_scan looks at the file type first: EICAR is text, the benchmark's bodies are not.
    """
    noise = bytes(range(128, 256)) * 8
    clean, marked = (_respmod(side.port, noise + tail) for tail in (b"", MARKER.encode()))
    if not clean.startswith(b"ICAP/1.0 204 "):
        raise RuntimeError(f"{side.name} does not answer 204 for a clean body: {clean[:300]!r}")
    if not (marked.startswith(b"ICAP/1.0 200 ") and b"403 Forbidden" in marked):
        raise RuntimeError(f"{side.name} does not scan: it passed the marker with {marked[:300]!r}")


def _respmod(port: int, body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    request = (
        b"RESPMOD icap://127.0.0.1/avscan ICAP/1.0\r\nHost: 127.0.0.1\r\nAllow: 204\r\nConnection: close\r\n"
        b"Encapsulated: res-hdr=0, res-body=%d\r\n\r\n%b%x\r\n%b\r\n0\r\n\r\n" % (len(head), head, len(body), body)
    )
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock, sock.makefile("rb") as answer:
        sock.sendall(request)
        return answer.read()


def versions() -> dict[str, str]:
    """The versions of the peers."""
    clamd = subprocess.run(
        [require("clamd", "clamav-daemon"), "--version"], capture_output=True, text=True, check=False
    )
    found = re.search(r"\d+\.\d+\.\d+", clamd.stdout)
    return {"c-icap": cicap_version(), "clamd": found[0] if found else "unknown"}
