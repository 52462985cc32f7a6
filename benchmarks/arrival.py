"""A mail of many parts that arrives slowly: how long its sender waits for the answer after the last byte."""

from __future__ import annotations

import statistics

from benchmarks.bodies import compose
from benchmarks.exchange import Said, send_mail
from benchmarks.rates import Bench
from benchmarks.results import Figure
from benchmarks.rows import Row

REPEATS = 4
OVER = 1.0
"""Seconds over which the mail arrives."""


def arrival_round(bench: Bench, row: Row, number: int) -> dict[str, Figure]:
    """Medians of some mails, each with new parts, that arrive over a second; and of the same kind sent at once.

    At once stands for scanning a mail that has all arrived. ``sending`` is how long that took: what a server does
    meanwhile is not in the figure, which makes it the smaller and the target the harder.
    """
    sample = compose(row.body)
    found: dict[str, list[Said]] = {}
    ways = [(f"{name.value}, {how}", bench.sides[name], over) for name in row.sides for how, over in _HOW]
    for repeat in range(REPEATS + 1):
        for label, side, over in ways if number % 2 == 0 else ways[::-1]:
            said = send_mail(side.port, sample.fresh(), over)
            if said.status != 204:
                raise RuntimeError(f"{label}: status {said.status} for a clean mail of {len(sample.clean):,} bytes")
            if repeat:  # the first is to warm up
                found.setdefault(label, []).append(said)
    figures = {}
    for label, some in found.items():
        figures[label] = Figure(statistics.median(said.waiting for said in some) * 1000, "ms")
        if label.endswith("at once"):
            sending = statistics.median(said.sending for said in some) * 1000
            figures[f"{label}, sending"] = Figure(sending, "ms")
    return figures


_HOW = (("arriving", OVER), ("at once", 0.0))
