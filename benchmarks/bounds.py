"""``python -m benchmarks.bounds FILE.json``: where the processor time of one answer goes, and what a row could reach.

Where both processors are busy, a rate is their time divided by what one answer takes of it: server, clamd and load
generator together. What is left without our server says which ratio it could reach at best if it cost nothing at all.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from msgspec import Struct

from benchmarks.report import best_peer
from benchmarks.results import Figure, Measured, read
from benchmarks.rows import Kind
from benchmarks.table import joined

HEADS = (
    "row", "peer", "peer's server", "its clamd", "ours", "server", "clamd", "load", "ratio", "at no cost", "target",
)  # fmt: skip
LEFT = {0, 1, 4}


class Cost(Struct, frozen=True):
    """Processor microseconds for each answer: medians of the rounds."""

    server: float
    clamd: float
    load: float

    @property
    def whole(self) -> float:
        return self.server + self.clamd + self.load

    @classmethod
    def of(cls, figures: Iterable[Figure]) -> Cost:
        """Of all rounds of one side; nothing where none was loaded."""
        costs = [
            (one.server_us, one.clamd_us, one.load.cpu_share * 1e6 / one.value)
            for one in figures
            if one.load is not None and one.value > 0
        ]
        return cls(*(statistics.median(column) for column in zip(*costs, strict=True))) if costs else cls(0, 0, 0)


def bound(ours: Cost, peer: Cost) -> float:
    """The best ratio of the rates if our server took no time: the peer's time over that of clamd and the load."""
    rest = ours.clamd + ours.load
    return peer.whole / rest if rest else float("inf")


def lines(measured: Measured) -> Iterator[list[str]]:
    """A line for each comparison of rates that has a target."""
    row = measured.row
    if row.kind is not Kind.RATE:
        return
    for check in row.checks:
        if check.lower or check.target is None:
            continue
        best = best_peer(measured, check)
        ours, peer = Cost.of(measured.figures(check.ours)), Cost.of(measured.figures(best))
        numbers = [f"{one:,.0f}" for one in (ours.server, ours.clamd, ours.load)]
        yield [
            row.name, best, f"{peer.server:,.0f}", f"{peer.clamd:,.0f}", check.ours, *numbers,
            f"{measured.ratio(check):.2f}", f"{bound(ours, peer):.2f}", f"{check.target:g}",
        ]  # fmt: skip


def markdown(path: Path) -> str:
    """The table of the run saved in ``path``. Raises `msgspec.ValidationError` for another kind of file."""
    return joined(HEADS, LEFT, (line for one in read(path).rows for line in lines(one)))


if __name__ == "__main__":
    print(markdown(Path(sys.argv[1])))
