"""The table for people."""

from __future__ import annotations

import statistics

from rich.console import Console
from rich.table import Table

from benchmarks.results import Figure, Measured
from benchmarks.rows import Check

FOREIGN_MAX = 0.08
"""Share of the machine that other programs may take before a row counts as disturbed."""
COLUMNS = ("value", "p99 ms", "cpu µs", "load")


def number(value: float) -> str:
    """Three digits or more, e.g. ``0.412``, ``7.31``, ``48,300``."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def cells(figures: list[Figure]) -> tuple[str, str, str, str]:
    """The medians of one label: value with unit, p99, the server's time for each answer, the load generator's share."""
    if not figures:
        return "", "", "", ""
    value = f"{number(statistics.median(one.value for one in figures))} {figures[0].unit.split()[0]}"
    loads = [one.load for one in figures if one.load is not None]
    if not loads:
        return value, "", "", ""
    p99 = number(statistics.median(load.p99_ms for load in loads))
    cost = statistics.median(one.server_us for one in figures)
    share = statistics.median(load.cpu_share for load in loads)
    return value, p99, f"{cost:,.0f}" if cost else "", f"{share:.0%}"


def best_peer(measured: Measured, check: Check) -> str:
    """The label of the peer whose median is the best, or nothing."""
    choose = min if check.lower else max
    return choose(check.peers, key=measured.median) if check.peers else ""


def verdict(measured: Measured, check: Check) -> str:
    """The target, and whether it is kept."""
    if check.target is None:
        return ""
    sign = "<=" if check.lower else ">="
    return f"{sign} {check.target:g} {'kept' if measured.kept(check) else 'MISSED'}"


def lines(measured: Measured) -> list[list[str]]:
    """One line for each check; one for each other figure that no check names."""
    found, named = [], set()
    for check in measured.row.checks:
        peer = best_peer(measured, check)
        named |= {check.ours, *check.peers}
        ours, theirs = cells(measured.figures(check.ours)), cells(measured.figures(peer))
        ratio, worst = number(measured.ratio(check)), number(measured.worst(check))
        found.append([measured.row.name, peer, *theirs, check.ours, *ours, ratio, worst, verdict(measured, check)])
    for label in measured.labels:
        if label not in named:
            found.append([measured.row.name, "", "", "", "", "", label, *cells(measured.figures(label)), "", "", ""])
    return found


def show(measured: list[Measured], console: Console) -> None:
    """Print the table of the medians of all rounds, with the ratio formed round by round."""
    table = Table(
        caption="cpu: the server's processor time for each answer, without clamd's; "
        "load: the load generator's share of one processor; worst: of all rounds",
        row_styles=["", "dim"],
    )
    heads = ["row", "peer", *COLUMNS, "ours", *COLUMNS, "ratio", "worst", "target"]
    for at, head in enumerate(heads):
        table.add_column(head, justify="left" if at in (0, 1, 6) else "right", no_wrap=at in (0, 2, 7))
    for one in measured:
        for line in lines(one):
            table.add_row(*line)
    console.print(table)
    disturbed = [one for one in measured if one.foreign > FOREIGN_MAX]
    if disturbed:
        worst = max(one.foreign for one in disturbed)
        console.print(
            f"[yellow]{len(disturbed)} of {len(measured)} rows were disturbed: other programs took up to {worst:.0%} "
            f"of the machine. Do not trust their ratios: {', '.join(one.row.name for one in disturbed)}",
            highlight=False,
        )
