"""The results: a table for people and a JSON file with the machine and the commit."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import subprocess
from pathlib import Path

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from benchmarks.load import Load
from benchmarks.rows import Row

RESULTS = Path(__file__).resolve().parent / "results"
FOREIGN_MAX = 0.08
"""Share of the machine that other programs may take before a row counts as disturbed."""
CHECKOUT = Path(__file__).resolve().parents[1]


class Run(Struct, frozen=True):
    """One side loaded once."""

    load: Load
    server_cpu: float
    """Processor seconds of the server, warm-up included."""
    clamd_cpu: float
    foreign: float
    """Share of the machine's processors that went to anything else meanwhile, 0 to 1."""
    measured_share: float
    """Measured time by the time with warm-up."""

    @property
    def server_us(self) -> float:
        """Processor microseconds of the server for each answer, without clamd's."""
        return self.server_cpu * self.measured_share / max(self.load.requests, 1) * 1e6


class Pair(Struct, frozen=True):
    """Both sides, one right after the other."""

    peer: Run
    ours: Run

    @property
    def ratio(self) -> float:
        return self.ours.load.per_second / self.peer.load.per_second if self.peer.load.per_second else float("inf")


class Measured(Struct, frozen=True):
    """One row with all its rounds."""

    row: Row
    pairs: list[Pair]

    @property
    def ratio(self) -> float:
        """The median of the ratios pair by pair."""
        return statistics.median(pair.ratio for pair in self.pairs)

    @property
    def errors(self) -> list[str]:
        """Every side and round in which an answer was wrong or missing."""
        return [
            f"{self.row.name}: {name}, round {number}: {run.load.errors} errors, first: {run.load.first_error}"
            for number, pair in enumerate(self.pairs, 1)
            for name, run in (("c-icap", pair.peer), ("icapscan", pair.ours))
            if run.load.errors
        ]

    @property
    def foreign(self) -> float:
        """The largest share of the machine that something else took in any round."""
        return max(run.foreign for pair in self.pairs for run in (pair.peer, pair.ours))

    @property
    def kept(self) -> bool:
        """Whether the ratio reaches what is promised for the row."""
        return self.row.target is None or self.ratio >= self.row.target


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


def _commit() -> str:
    said = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
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


def save(measured: list[Measured], surroundings: dict[str, object], options: dict[str, object]) -> Path:
    """Write everything to ``benchmarks/results/TIME.json`` and return its path."""
    RESULTS.mkdir(exist_ok=True)
    when = datetime.datetime.now(datetime.UTC)
    path = RESULTS / f"{when:%Y%m%d-%H%M%S}.json"
    content = {
        "time": when.isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": surroundings,
        "load_average_after": os.getloadavg(),
        "options": options,
        "rows": [
            {"name": one.row.name, "ratio": one.ratio, "kept": one.kept, "row": one.row, "pairs": one.pairs}
            for one in measured
        ],
    }
    path.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2))
    return path


def _side(runs: list[Run]) -> tuple[str, str, str, str]:
    rate = statistics.median(run.load.per_second for run in runs)
    p99 = statistics.median(run.load.latency_us.p99 for run in runs)
    share = statistics.median(run.load.cpu_share for run in runs)
    cost = statistics.median(run.server_us for run in runs)
    return f"{rate:,.0f}", f"{p99 / 1000:,.1f}", f"{cost:,.0f}", f"{share:.0%}"


def show(measured: list[Measured], console: Console) -> None:
    """Print the table of the medians of all rounds, with the ratio formed pair by pair."""
    table = Table(
        caption="cpu: the server's processor time for each answer, without clamd's; "
        "load: the load generator's share of one processor"
    )
    table.add_column("row", no_wrap=True)
    for side in ("c-icap", "icapscan"):
        for what in (f"{side}\n1/s", "p99\nms", "cpu\nµs", "load"):
            table.add_column(what, justify="right")
    table.add_column("ratio", justify="right")
    table.add_column("lowest", justify="right")
    table.add_column("target", justify="right")
    for one in measured:
        peer, ours = ([pair.peer for pair in one.pairs], [pair.ours for pair in one.pairs])
        target = "" if one.row.target is None else f"{one.row.target:g} {'kept' if one.kept else 'MISSED'}"
        lowest = min(pair.ratio for pair in one.pairs)
        table.add_row(one.row.name, *_side(peer), *_side(ours), f"{one.ratio:.2f}", f"{lowest:.2f}", target)
    console.print(table)
    disturbed = [one for one in measured if one.foreign > FOREIGN_MAX]
    if disturbed:
        worst = max(one.foreign for one in disturbed)
        words = f"{len(disturbed)} of {len(measured)} rows were disturbed: other programs took up to {worst:.0%}"
        console.print(
            f"[yellow]{words} of the machine. Do not trust their ratios.",
            highlight=False,
        )
