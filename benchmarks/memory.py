"""Rows about memory: what an idle connection costs, and what large uploads at once cost."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import time

from benchmarks.exchange import chunked, respmod_head, status_of
from benchmarks.machine import pss
from benchmarks.overload import MIB, Watch, memory_of
from benchmarks.rates import Bench
from benchmarks.results import Figure
from benchmarks.rows import Row
from benchmarks.sides import Side

IDLE_COUNTS = (100, 500, 1000, 2000)
IDLE_SIZE = 1024
SETTLE = 1.0
UPLOADS = 200
CHUNK = 64 * 1024
CHUNKS = 763
"""Of each upload: 50 MB."""
NONCE = 16
HELD = 10
"""Chunks that each upload holds back until all the others have come as far."""


def idle_round(bench: Bench, row: Row, number: int) -> dict[str, Figure]:
    """Connections that have had one scan each and stay open. The figure is the growth of memory for each, in bytes.

    Memory is the proportional set size of all processes of the server. Points: connections, growth in bytes, 0.
    """
    return {name.value: _idle(bench.sides[name]) for name in row.sides}


def _idle(side: Side) -> Figure:
    with contextlib.ExitStack() as stack:
        stack.enter_context(_used_connection(side.port))
        time.sleep(SETTLE)
        base, opened = pss(side.pid), 0
        points = [(0.0, 0.0, 0.0)]
        for count in IDLE_COUNTS:
            for _ in range(count - opened):
                stack.enter_context(_used_connection(side.port))
            opened = count
            time.sleep(SETTLE)
            points.append((float(count), float(pss(side.pid) - base), 0.0))
    return Figure(points[-1][1] / points[-1][0], "B", points=points)


def _used_connection(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=60)
    sock.sendall(respmod_head(port, IDLE_SIZE) + b"".join(chunked(os.urandom(IDLE_SIZE), IDLE_SIZE)))
    status = status_of(sock)
    if status != 204:
        raise RuntimeError(f"port {port} answers {status} for a clean body")
    return sock


class _Upload:
    """One connection and what it has still to send."""

    def __init__(self, port: int, filler: bytes) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=600)
        self.sock.setblocking(False)
        self.left = CHUNKS
        self._filler = filler
        first = b"%x\r\n%b\r\n" % (NONCE, os.urandom(NONCE))
        self._out = memoryview(respmod_head(port, NONCE + CHUNKS * CHUNK) + first)

    def send(self, least: int) -> bool:
        """Send what is taken now; True when no more than ``least`` chunks are left."""
        with contextlib.suppress(BlockingIOError):
            while True:
                if not self._out:
                    if self.left <= least:
                        return True
                    self.left -= 1
                    self._out = memoryview(self._filler)
                self._out = self._out[self.sock.send(self._out) :]
        return False


def _send_all(uploads: list[_Upload], least: int) -> None:
    with selectors.DefaultSelector() as waiting:
        for one in uploads:
            waiting.register(one.sock, selectors.EVENT_WRITE, one)
        while waiting.get_map():
            for key, _ in waiting.select():
                if key.data.send(least):
                    waiting.unregister(key.fileobj)


def uploads_round(bench: Bench, row: Row, number: int) -> dict[str, Figure]:
    """All at once, held short of their ends until all have come as far. The figure: the most that memory grew by."""
    side = bench.sides[row.sides[0]]
    filler = b"%x\r\n%b\r\n" % (CHUNK, os.urandom(CHUNK))
    uploads = [_Upload(side.port, filler) for _ in range(UPLOADS)]
    statuses: list[int] = []
    try:
        with Watch(memory_of(side.pid)) as memory:
            begun = time.monotonic()
            _send_all(uploads, HELD)
            held = memory_of(side.pid)() - memory.before
            taken = time.monotonic() - begun
            _send_all(uploads, 0)
            for one in uploads:
                one.sock.setblocking(True)
                one.sock.settimeout(600)
                one.sock.sendall(b"0\r\n\r\n")
            statuses += [_status(one.sock) for one in uploads]
    finally:
        for one in uploads:
            one.sock.close()
    return {
        "memory, MiB": Figure(memory.growth_mib, "MiB"),
        "memory while all arrive": Figure(held / MIB, "MiB"),
        "arrival": Figure(UPLOADS * CHUNKS * CHUNK / taken / 1e6, "MB/s"),
        "clean": Figure(statuses.count(204), "answers"),
        "refused or failed": Figure(len(statuses) - statuses.count(204), "answers"),
    }


def _status(sock: socket.socket) -> int:
    try:
        return status_of(sock)
    except OSError:
        return 0
