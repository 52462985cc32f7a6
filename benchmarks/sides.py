"""The servers that are compared, each started when a row first asks for it; one clamd for all."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Self

from msgspec import Struct

from benchmarks.heavy import HEAVY_RULES, MARKER_RULE
from benchmarks.load import MARKER
from tests.peers import require
from tests.peers.cicap import cicap_version, run_cicap
from tests.peers.clamd import ClamdPeer, run_clamd
from tests.peers.icapscan_server import CHECKOUT, run_icapscan
from tests.peers.processes import Process, cpu_seconds, free_port
from tests.peers.pyicap_scanner import run_pyicap_scanner

WORKERS = 2
DEADLINE = 2.0
"""Seconds that a request may take in the row of the overload (``limits.seconds``)."""
MANY = 8000
"""Connections that a server bears in the rows of memory and of the overload, those that are closing included."""


class Name(Enum):
    """The servers, by the names that tables show."""

    CICAP = "c-icap"
    CICAP_MANY = "c-icap, idle"
    OURS = "icapscan"
    OURS_YARA = "icapscan, YARA too"
    OURS_MANY = "icapscan, idle"
    OURS_SHORT = "icapscan, 2 s"
    ONE_WORKER = "icapscan, YARA, 1 worker"
    TWO_WORKERS = "icapscan, YARA, 2 workers"
    ONLY_YARA = "icapscan, YARA alone"
    FILDES = "clamd, FILDES"
    INSTREAM = "clamd, INSTREAM"
    PYICAP = "pyicap, our scanner"
    PYICAP_YARA = "pyicap, our YARA"
    PYICAP_CLAMD = "pyicap, clamd package"


class Side(Struct, frozen=True):
    """One server under test."""

    name: Name
    pid: int
    port: int = 0
    unix: str = ""
    """clamd's socket: the load generator speaks to it without ICAP."""

    def cpu(self) -> float:
        """Processor time in seconds that it and its children have used."""
        return cpu_seconds(self.pid)

    def arguments(self, mode: str, service: str) -> list[str]:
        """The load generator's words for it."""
        if self.unix:
            return ["--mode", "fildes" if self.name is Name.FILDES else "instream", "--unix", self.unix]
        return ["--mode", mode, "--port", str(self.port), "--service", service]


class Sides:
    """All that runs, until the end of the block. Those that are not under load are idle."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = contextlib.ExitStack()
        self._made: dict[Name, Side] = {}
        database = folder / "clamd" / "database"
        database.mkdir(parents=True)
        (database / "benchmark.ndb").write_text(f"Icapscan.Benchmark.Marker:0:*:{MARKER.encode().hex()}\n")
        self.clamd: ClamdPeer = self._stack.enter_context(run_clamd(folder / "clamd", threads=10))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def __getitem__(self, name: Name) -> Side:
        """The running server of that name. Raises `PeerError` with its log when it does not start."""
        if name not in self._made:
            self._made[name] = STARTERS[name](self, name)
        return self._made[name]

    def folder(self, name: Name) -> Path:
        """Where that server's files are."""
        return self._folder / name.name.lower()

    def keep(self, process: Process) -> Process:
        """End it with the others."""
        self._stack.enter_context(process)
        return process


def _cicap(sides: Sides, name: Name) -> Side:
    threads = 1100 if name is Name.CICAP_MANY else 160  # a connection holds a thread
    server = run_cicap(sides.folder(name), sides.clamd.unix_address, processes=WORKERS, threads=threads)
    sides.keep(server)
    return Side(name, server.pid, server.icap_port)


def _icapscan(changed: Mapping[str, object]) -> Callable[[Sides, Name], Side]:
    """icapscan with 2 workers, clamd, no YARA and its defaults but for what is ``changed``."""

    def start(sides: Sides, name: Name) -> Side:
        settings: dict[str, object] = {
            "server.workers": WORKERS,
            "engines.yara.enabled": False,
            "engines.clamd.address": [sides.clamd.unix_address],
            "log.file": str(sides.folder(name) / "access.log"),
            **changed,
        }
        server = run_icapscan(sides.folder(name), settings)
        sides.keep(server)
        return Side(name, server.pid, server.icap_port)

    return start


def _yara_only(workers: int) -> Callable[[Sides, Name], Side]:
    """icapscan with rules that take their time, and nothing else."""

    def start(sides: Sides, name: Name) -> Side:
        folder = sides.folder(name)
        folder.mkdir(parents=True)
        (folder / "heavy.yar").write_text(HEAVY_RULES)
        settings: dict[str, object] = {
            "server.workers": workers,
            "engines.yara.rules": [str(folder / "heavy.yar")],
            "log.file": str(folder / "access.log"),
        }
        server = run_icapscan(folder, settings)
        sides.keep(server)
        return Side(name, server.pid, server.icap_port)

    return start


def _shipped_rules(folder: Path) -> dict[str, object]:
    """The rules that come with icapscan and one for the marker; no clamd."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "marker.yar").write_text(MARKER_RULE)
    rules = [str(Path(__file__).resolve().parents[1] / "signatures"), str(folder / "marker.yar")]
    return {"engines.yara.rules": rules, "engines.clamd.enabled": False}


def _only_yara(sides: Sides, name: Name) -> Side:
    folder = sides.folder(name)
    settings = {"server.workers": WORKERS, "log.file": str(folder / "access.log"), **_shipped_rules(folder)}
    server = run_icapscan(folder, settings)
    sides.keep(server)
    return Side(name, server.pid, server.icap_port)


def _pyicap_yara(sides: Sides, name: Name) -> Side:
    server = run_pyicap_scanner(sides.folder(name), _shipped_rules(sides.folder(name)))
    sides.keep(server)
    return Side(name, server.pid, server.icap_port)


def _clamd(sides: Sides, name: Name) -> Side:
    return Side(name, sides.clamd.pid, unix=str(sides.clamd.socket))


def _pyicap(sides: Sides, name: Name) -> Side:
    settings = {"engines.yara.enabled": False, "engines.clamd.address": [sides.clamd.unix_address]}
    server = run_pyicap_scanner(sides.folder(name), settings)
    sides.keep(server)
    return Side(name, server.pid, server.icap_port)


def _pyicap_clamd(sides: Sides, name: Name) -> Side:
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.pyicap_clamd", str(port), str(sides.clamd.socket)]
    server = Process("pyicap-clamd", command, sides.folder(name), environment={"PYTHONPATH": str(CHECKOUT)})
    sides.keep(server)
    server.wait_for_port(port)
    return Side(name, server.pid, port)


STARTERS: dict[Name, Callable[[Sides, Name], Side]] = {
    Name.CICAP: _cicap,
    Name.CICAP_MANY: _cicap,
    Name.OURS: _icapscan({}),
    Name.OURS_YARA: _icapscan({"engines.yara.enabled": True}),
    Name.OURS_MANY: _icapscan({"server.max_connections": MANY}),
    Name.OURS_SHORT: _icapscan({"server.max_connections": MANY, "limits.seconds": DEADLINE}),
    Name.ONE_WORKER: _yara_only(1),
    Name.TWO_WORKERS: _yara_only(2),
    Name.ONLY_YARA: _only_yara,
    Name.PYICAP_YARA: _pyicap_yara,
    Name.FILDES: _clamd,
    Name.INSTREAM: _clamd,
    Name.PYICAP: _pyicap,
    Name.PYICAP_CLAMD: _pyicap_clamd,
}


def versions() -> dict[str, str]:
    """The versions of the peers."""
    clamd = subprocess.run(
        [require("clamd", "clamav-daemon"), "--version"], capture_output=True, text=True, check=False
    )
    found = re.search(r"\d+\.\d+\.\d+", clamd.stdout)
    return {"c-icap": cicap_version(), "clamd": found[0] if found else "unknown", "pyicap": "1.0b1"}
