"""One log line and a few counters for each transaction."""

from __future__ import annotations

from icapscan.telemetry.counters import Counters, Gauges, Snapshot, merge
from icapscan.telemetry.lines import format_json, format_plain
from icapscan.telemetry.log import TransactionLog

__all__ = [
    "Counters",
    "Gauges",
    "Snapshot",
    "TransactionLog",
    "exposition",
    "format_json",
    "format_plain",
    "merge",
]


def exposition(merged: Snapshot, gauges: Gauges) -> bytes:
    """The text of ``/metrics`` (Prometheus text format) for the merged counters of all workers."""
    from icapscan.telemetry.exposition import render  # the workers never need the library

    return render(merged, gauges)
