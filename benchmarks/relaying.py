"""The row of mails from one Postfix to another, by ``benchmarks/relay.py``."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.rates import Bench
from benchmarks.relay import CONCURRENCY, measure, ways
from benchmarks.results import Figure
from benchmarks.rows import Row

WAYS = ("none", "icapscan", "icapscan+yara", "clamsmtp", "amavis")
SIZE_AT_ONCE = 30_000_000
"""Bytes of attachments in one round: 400 mails of 75 KB."""


def relay_round(bench: Bench, row: Row, number: int) -> dict[str, Figure]:
    """Mails a second through nothing, ours, clamsmtp and amavisd-new; needs root."""
    count = SIZE_AT_ONCE // row.body.size
    figures = {}
    with tempfile.TemporaryDirectory(prefix="icapscan-relay-") as name, ways(Path(name), list(WAYS)) as made:
        for way in made:
            measure(way, CONCURRENCY, row.body.size)  # warm
        for way in made if number % 2 == 0 else made[::-1]:
            figures[way.name] = Figure(measure(way, count, row.body.size), "mails/s")
    return figures
