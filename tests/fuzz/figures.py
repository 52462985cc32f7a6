"""Figures of fuzzing runs: added up over the runs in one folder, for people, and for docs/fuzzing.md.

``python -m tests.fuzz.figures FILE`` writes the table of a figures file into docs/fuzzing.md.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rich.table import Table

from tests.conftest import ROOT

Figures = dict[str, Any]
_SUMS = ("executions", "seconds", "cpu_seconds")
_PEAKS = ("peak_rss_mib", "slowest_seconds")
_TITLES = (
    "target",
    "seconds",
    "CPU",
    "inputs",
    "per second",
    "edges",
    "features",
    "peak RSS",
    "slowest",
    "open findings",
)
_BEGIN, _END = "<!-- figures: python -m tests.fuzz.figures -->\n", "<!-- end of figures -->"


def added(before: Figures | None, now: Figures) -> Figures:
    """What one target did in all its runs; its crashes are those of the last one."""
    if before is None:
        return now
    total = dict(now)
    for key in _SUMS:
        total[key] = round(before.get(key, 0) + now.get(key, 0), 1)
    for key in _PEAKS:
        total[key] = max(before.get(key, 0), now.get(key, 0))
    return total


def _saved(path: Path) -> dict[str, Figures]:
    saved: dict[str, Figures] = json.loads(path.read_text()) if path.exists() else {}
    return saved


def seconds(path: Path) -> dict[str, float]:
    """How long each target of this file ran in all its runs."""
    return {name: one["seconds"] for name, one in _saved(path).items()}


def save(path: Path, told: list[Figures]) -> None:
    """Add the figures of a run to those in the file."""
    before = _saved(path)
    for one in told:
        before[one["target"]] = added(before.get(one["target"]), one)
    path.write_text(json.dumps(before, indent=1))


def row(one: Figures) -> tuple[str, ...]:
    """One line of a table."""
    seconds = one["seconds"]
    rate = f"{one['executions'] / seconds:,.0f}" if seconds else "-"
    cells = [one["target"], f"{seconds:,.0f}", f"{one['cpu_seconds']:,.0f}", f"{one['executions']:,}", rate]
    cells += [f"{one['coverage']:,}", f"{one['features']:,}", f"{one.get('peak_rss_mib', 0)} MiB"]
    return *cells, f"{one.get('slowest_seconds', 0):.2f} s", str(len(one["crashes"]))


def table(told: list[Figures]) -> Table:
    """The figures for the terminal."""
    out = Table()
    for title in _TITLES:
        out.add_column(title, justify="left" if title == "target" else "right", no_wrap=True)
    for one in told:
        out.add_row(*row(one))
    return out


def markdown(told: list[Figures]) -> str:
    """The figures for the documentation."""
    lines = [_TITLES, ("---",) + ("--:",) * (len(_TITLES) - 1), *map(row, told)]
    hours, cpu = (sum(one[key] for one in told) / 3600 for key in ("seconds", "cpu_seconds"))
    total = f"\n{sum(one['executions'] for one in told):,} inputs in {hours:.1f} hours, {cpu:.1f} of the processor.\n"
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines) + total


def main() -> None:
    told = json.loads(Path(sys.argv[1]).read_text()).values()
    page = ROOT / "docs" / "fuzzing.md"
    before, _, rest = page.read_text("utf-8").partition(_BEGIN)
    after = rest.partition(_END)[2]
    page.write_text(f"{before}{_BEGIN}\n{markdown(list(told))}\n{_END}{after}", "utf-8")


if __name__ == "__main__":
    main()
