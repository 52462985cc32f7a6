"""Memory of the workers: connections that wait, and more uploads at once than there is room for."""

from __future__ import annotations

import hashlib
import os
import re
import resource
import select
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
from msgspec import Struct

from tests.e2e.raw import Answer, Connection, head, scan
from tests.peers.icapscan_server import IcapscanServer, eicar_anywhere, run_icapscan
from tests.peers.origin import EICAR, body
from tests.peers.processes import rss, wait_until

MB = 1_000_000
MIB = 1 << 20
CONNECTIONS = 1_000
EACH = 12 * 1024
"""Bytes that an idle connection may take."""
FILES = 4_096
"""Descriptors that this test needs, and that the server inherits the right to."""


def pss(pid: int) -> int:
    """Memory of process ``pid`` in bytes, what it shares counted in parts (``smaps_rollup`` of proc(5))."""
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def _peak_reset(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # proc(5): resets VmHWM


def _peak(pid: int) -> int:
    """The highest resident memory since `_peak_reset`, in bytes."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FILES:
        pytest.fail(f"these tests need {FILES} descriptors, and {hard} are the most")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, FILES), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# Connections that wait


@pytest.mark.parametrize("size", [300, 20_000], ids=["300 B", "20 kB"])
def test_an_idle_connection_takes_less_than_12_kb(
    tmp_path: Path, many_files: None, size: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each did one request. What the first hundred need, such as what is loaded at the first use, is not counted."""
    settings = {"server.workers": 1, "server.max_connections": 2 * CONNECTIONS, "log.transactions": False}
    with run_icapscan(tmp_path, settings) as server:
        (worker,) = server.worker_pids()
        connections: list[Connection] = []

        def more(count: int) -> None:
            for number in range(count):
                connection = Connection(server.address)
                connections.append(connection)
                assert connection.scan(b"%d " % number + bytes(size)).status == 204

        try:
            more(100)
            before = pss(worker)
            more(CONNECTIONS)
            each = (pss(worker) - before) / CONNECTIONS
            with capsys.disabled():
                print(f"\n  {CONNECTIONS} idle connections after {size} bytes: {each / 1024:.1f} KiB each")
            assert connections[0].scan(EICAR).blocked  # they are all still there
            assert connections[-1].scan(b"clean").status == 204
        finally:
            for connection in connections:
                connection.close()
        assert server.worker_pids() == [worker]
    assert each < EACH


# More uploads than there is room for


class Upload(Struct, frozen=True):
    """One that has ended. Each fourth had EICAR as its last bytes; each second allowed 204."""

    number: int
    answer: Answer

    @property
    def infected(self) -> bool:
        return self.number % 4 == 3

    @property
    def allow_204(self) -> bool:
        return self.number % 2 == 0


class Crowd:
    """Uploads that go on all at once: each gets its next megabyte only when each of the others has got as many."""

    def __init__(self, server: IcapscanServer, count: int, size: int) -> None:
        self.uploads: list[Upload] = []
        self._server = server
        self._size = size
        self._pace = threading.Barrier(count)
        self._threads = [threading.Thread(target=self._upload, args=(number,)) for number in range(count)]

    def run(self) -> None:
        for thread in self._threads:
            thread.start()
        for thread in self._threads:
            thread.join()

    def pieces(self, number: int) -> Iterator[bytes]:
        """What is sent."""
        yield from body(self._size, str(number))
        if number % 4 == 3:
            yield EICAR

    def _upload(self, number: int) -> None:
        size = self._size + (len(EICAR) if number % 4 == 3 else 0)
        with Connection(self._server.address, seconds=150) as connection:
            going = _goes(connection, head(size, allow_204=number % 2 == 0))
            for at, piece in enumerate(self.pieces(number)):
                if at % 16 == 0:
                    self._pace.wait(150)
                going = going and _goes(connection, b"%x\r\n%b\r\n" % (len(piece), piece))
            if going:
                connection.send_end()
            self.uploads.append(Upload(number, connection.read_answer()))


def _goes(connection: Connection, data: bytes) -> bool:
    """Send ``data``, unless there is an answer already, or nobody who takes it."""
    if select.select([connection.socket], [], [], 0)[0]:
        return False
    try:
        connection.send(data)
    except ConnectionError:
        return False
    return True


class Watch:
    """Looks at what a worker keeps, again and again, and remembers the most of each kind."""

    def __init__(self, pid: int) -> None:
        self.memory = self.disk = 0
        """Bytes in memfds; in unlinked files."""
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.03):
            memory: dict[int, int] = {}
            disk: dict[int, int] = {}
            for entry in Path(f"/proc/{self._pid}/fd").iterdir():
                try:
                    target, status = os.readlink(entry), entry.stat()
                except FileNotFoundError:
                    continue  # closed meanwhile
                kept = memory if "memfd:part" in target else disk if "/icapscan-" in target else {}
                kept[status.st_ino] = status.st_size  # a map has a descriptor of its own for the same bytes
            self.memory = max(self.memory, sum(memory.values()))
            self.disk = max(self.disk, sum(disk.values()))


SLACK = 48 * MIB
"""The program's own buffers, windows of large bodies that YARA has mapped, and what an allocator keeps."""
SKEW = 2
"""Parts that may be seen beside others that had their room before: `Watch` looks at one descriptor after the other."""
IN_MEMORY = 8 * MIB
"""The largest part in a memfd (`limits.part_in_memory`)."""


@pytest.mark.parametrize(
    ("count", "size", "memory", "disk"),
    [
        pytest.param(20, 5 * MB, 16 * MIB, 32 * MIB, id="20 x 5 MB"),
        pytest.param(200, 50 * MB, 128 * MIB, 2048 * MIB, id="200 x 50 MB", marks=pytest.mark.full),
    ],
)
def test_uploads_beyond_the_purse_are_scanned_or_refused(
    tmp_path: Path, many_files: None, capsys: pytest.CaptureFixture[str], count: int, size: int, memory: int, disk: int
) -> None:
    settings = {
        **eicar_anywhere(tmp_path), "server.workers": 1, "limits.memory": memory, "limits.disk": disk,
        "cache.enabled": False, "log.transactions": False,
    }  # fmt: skip
    with run_icapscan(tmp_path / "icapscan", settings) as server:
        (worker,) = server.worker_pids()
        assert scan(server.address, EICAR).blocked
        assert scan(server.address, b"clean " * 200_000).status == 204
        before = rss(worker)
        _peak_reset(worker)
        crowd = Crowd(server, count, size)
        with Watch(worker) as watch:
            crowd.run()
        growth = _peak(worker) - before
        statuses = Counter(one.answer.status for one in crowd.uploads)
        with capsys.disabled():
            print(
                f"\n  {count} x {size // MB} MB: {dict(statuses)}; resident +{growth / MIB:.0f} MiB, "
                f"memfds {watch.memory / MIB:.0f} of {memory / MIB:.0f} MiB, "
                f"files {watch.disk / MIB:.0f} of {disk / MIB:.0f} MiB"
            )
        assert len(crowd.uploads) == count
        _check(crowd)
        assert growth < memory + SLACK
        assert watch.memory <= memory + SKEW * min(size, IN_MEMORY)
        assert watch.disk <= disk + SKEW * size
        assert server.worker_pids() == [worker]
        wait_until(lambda: _free(server) == (memory, disk), "everything to be given back")
        assert scan(server.address, EICAR).blocked
        assert scan(server.address, b"clean").status == 204


def _check(crowd: Crowd) -> None:
    """Each was scanned, or refused with 503; both happened."""
    refused = [one for one in crowd.uploads if one.answer.status == 503]
    scanned = [one for one in crowd.uploads if one.answer.status != 503]
    assert refused
    assert scanned
    for one in scanned:
        if one.infected:
            assert one.answer.blocked, one.number
        elif one.allow_204:
            assert one.answer.status == 204, one.number
        else:
            sha = hashlib.sha256()
            for piece in crowd.pieces(one.number):
                sha.update(piece)
            assert (one.answer.status, one.answer.sha256) == (200, sha.hexdigest()), one.number


def _free(server: IcapscanServer) -> tuple[int, int]:
    """(memory, disk): bytes that stores may still take."""
    text = server.admin("/metrics")[1]
    free = re.findall(r"^icapscan_purse_(memory|disk)_free_bytes (\S+)$", text, re.MULTILINE)
    by_kind = {kind: int(float(value)) for kind, value in free}
    return by_kind["memory"], by_kind["disk"]
