"""What a worker counts: plain numbers on the event loop's own thread, so nothing is locked."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Any, TypeAlias

from msgspec import Struct

from icapscan.servers.record import TransactionRecord

Snapshot: TypeAlias = "dict[str, Any]"
"""The counters as JSON-able values, all since the start of the worker:

* ``requests``: rows ``[service, method, reply, count]``
* ``verdicts``: rows ``[verdict, reason or "", count]``
* ``findings``: rows ``[engine, count]``
* ``engine_failures``: rows ``[engine, reason, count]``
* ``notices``: rows ``[channel, outcome, count]``; a worker adds them (`icapscan.notify.tally`)
* ``reports``: rows ``["engine" or "cache", count]``: answers about parts, and where they are from
* ``scan_seconds``: ``{"buckets": [count of each bucket, the last one without a bound], "sum": seconds}``
* ``bytes_in``, ``bytes_out``: bytes
"""

SCAN_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds in seconds of the buckets of ``scan_seconds``."""
ROWS_MAX = 500
"""Different rows of one kind; whatever is new after that is counted as "other", so that no peer can fill the memory."""
METHODS = frozenset(("REQMOD", "RESPMOD", "OPTIONS", ""))
_ROWS = ("requests", "verdicts", "findings", "engine_failures", "notices", "reports")


class Gauges(Struct, frozen=True):
    """What is true now, told by the supervisor."""

    version: str
    istag: str
    ready: bool
    workers: int
    connections: int
    purse_memory_free: int = 0
    """Bytes of memory that stores may still take, in all workers."""
    purse_disk_free: int = 0


class Counters:
    """The counters of one worker. `observe` is an `icapscan.servers.record.Observer`."""

    __slots__ = ("_buckets", "_bytes_in", "_bytes_out", "_rows", "_seconds")

    def __init__(self) -> None:
        self._rows: dict[str, dict[tuple[str, ...], int]] = {kind: {} for kind in _ROWS}
        self._buckets = [0] * (len(SCAN_BOUNDS) + 1)
        self._seconds = 0.0
        self._bytes_in = 0
        self._bytes_out = 0

    def observe(self, record: TransactionRecord) -> None:
        """Count one transaction."""
        method = record.method if record.method in METHODS else "other"
        key = (record.service, method, record.reply)
        requests = self._rows["requests"]
        if key in requests:
            requests[key] += 1
        else:
            self._add("requests", key)
        self._bytes_in += record.bytes_in
        self._bytes_out += record.bytes_out
        verdict = record.verdict
        if verdict is None:
            return
        self._buckets[bisect_left(SCAN_BOUNDS, record.scan_seconds)] += 1
        self._seconds += record.scan_seconds
        self._add("verdicts", (verdict.level.word, verdict.reason.value if verdict.reason is not None else ""))
        if record.cached:
            self._add("reports", ("cache",), record.cached)
        if record.asked > record.cached:
            self._add("reports", ("engine",), record.asked - record.cached)
        for finding in verdict.findings:
            self._add("findings", (finding.engine,))
        for item in verdict.unscanned:
            if item.engine:
                self._add("engine_failures", (item.engine, item.reason.value))

    def snapshot(self) -> Snapshot:
        """The counters so far; the caller may keep it."""
        rows = {kind: [[*key, count] for key, count in table.items()] for kind, table in self._rows.items()}
        return {
            **rows,
            "scan_seconds": {"buckets": list(self._buckets), "sum": self._seconds},
            "bytes_in": self._bytes_in,
            "bytes_out": self._bytes_out,
        }

    def _add(self, kind: str, key: tuple[str, ...], count: int = 1) -> None:
        table = self._rows[kind]
        try:
            table[key] += count
        except KeyError:
            if len(table) >= ROWS_MAX:
                key = ("other",) * len(key)
            table[key] = table.get(key, 0) + count


def merge(snapshots: Iterable[Snapshot]) -> Snapshot:
    """The sum of snapshots, in the same form; of none: all zero."""
    rows: dict[str, dict[tuple[str, ...], int]] = {kind: {} for kind in _ROWS}
    buckets = [0] * (len(SCAN_BOUNDS) + 1)
    seconds, bytes_in, bytes_out = 0.0, 0, 0
    for snapshot in snapshots:
        for kind, table in rows.items():
            for *key, count in snapshot[kind]:
                table[tuple(key)] = table.get(tuple(key), 0) + count
        buckets = [one + other for one, other in zip(buckets, snapshot["scan_seconds"]["buckets"], strict=True)]
        seconds += snapshot["scan_seconds"]["sum"]
        bytes_in += snapshot["bytes_in"]
        bytes_out += snapshot["bytes_out"]
    merged: Snapshot = {kind: [[*key, count] for key, count in table.items()] for kind, table in rows.items()}
    return merged | {
        "scan_seconds": {"buckets": buckets, "sum": seconds},
        "bytes_in": bytes_in,
        "bytes_out": bytes_out,
    }
