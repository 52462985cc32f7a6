"""``python -m benchmarks.table FILE.json``: the results of one run as the Markdown table of docs/benchmarks.md."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import msgspec
from msgspec import Struct

from benchmarks.report import Measured, Pair, Run
from benchmarks.rows import Row


class _SavedRow(Struct, frozen=True):
    row: Row
    pairs: list[Pair]


class _Saved(Struct, frozen=True):
    commit: str
    machine: dict[str, object]
    rows: list[_SavedRow]


def _rate(runs: list[Run]) -> str:
    return f"{statistics.median(run.load.per_second for run in runs):,.0f}"


def _cost(runs: list[Run]) -> str:
    return f"{statistics.median(run.server_us for run in runs):,.0f}"


def _share(runs: list[Run]) -> str:
    return f"{statistics.median(run.load.cpu_share for run in runs):.0%}"


def markdown(path: Path) -> str:
    """The table of the run saved in ``path``. Raises `msgspec.ValidationError` for another kind of file."""
    saved = msgspec.json.decode(path.read_bytes(), type=_Saved)
    lines = [
        "| row | c-icap 1/s | cpu µs | load | icapscan 1/s | cpu µs | load | ratio | lowest | disturbed |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for one in saved.rows:
        measured = Measured(one.row, one.pairs)
        peer, ours = [pair.peer for pair in one.pairs], [pair.ours for pair in one.pairs]
        lowest = min(pair.ratio for pair in one.pairs)
        cells = [one.row.name, _rate(peer), _cost(peer), _share(peer), _rate(ours), _cost(ours), _share(ours)]
        cells += [f"{measured.ratio:.2f}", f"{lowest:.2f}", f"{measured.foreign:.0%}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown(Path(sys.argv[1])))
