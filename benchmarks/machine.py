"""The machine that figures depend on, and who else uses it meanwhile."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path

from msgspec import Struct

from tests.peers.processes import children

CHECKOUT = Path(__file__).resolve().parents[1]


def machine(versions: dict[str, str]) -> dict[str, object]:
    """What the figures depend on."""
    info = Path("/proc/cpuinfo").read_text()
    model = next((line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")), "?")
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": os.getloadavg(),
        "versions": versions,
    }


def commit() -> str:
    """What is measured, with ``-dirty`` where files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    said = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    return said.stdout.strip() or "unknown"


class Busy(Struct, frozen=True):
    """The machine's processor time so far, in seconds over all processors (``/proc/stat``, proc(5))."""

    used: float
    total: float

    @classmethod
    def now(cls) -> Busy:
        fields = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        total, idle = sum(fields), fields[3] + fields[4]
        ticks = os.sysconf("SC_CLK_TCK")
        return cls((total - idle) / ticks, total / ticks)

    def foreign_since(self, before: Busy, own: float) -> float:
        """Share of all processor time since ``before`` that is not the ``own`` seconds."""
        total = self.total - before.total
        return max(0.0, self.used - before.used - own) / total if total else 0.0


def own_cpu() -> float:
    """Processor seconds of this program and of the load generators that ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def family(pid: int) -> list[int]:
    """A process and all its living descendants."""
    return [pid, *(one for child in children(pid) for one in family(child))]


def pss(pid: int) -> int:
    """Memory of a process and its descendants in bytes, what they share counted once (``smaps_rollup``, proc(5))."""
    total = 0
    for one in family(pid):
        found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{one}/smaps_rollup").read_text(), re.MULTILINE)
        total += int(found[1]) * 1024 if found else 0
    return total


def shared_memory() -> int:
    """Bytes in memory files of the whole machine (``Shmem`` of ``/proc/meminfo``): memfds that nobody has mapped."""
    found = re.search(r"^Shmem:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
