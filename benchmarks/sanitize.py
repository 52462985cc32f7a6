"""``python -m benchmarks.sanitize``: what sanitising a large mail costs beside scanning it, and what a 206 sends of it.

A mail of 25 MB with a small bad attachment in front of large ones. ``rewrite`` is `sanitize_mail` and reading the whole
result; ``rescan`` scans that result, which is done before it leaves. Scanning is the walker and the shipped YARA rules,
without clamd, so that against a real scan the ratios are smaller. Figures are ratios of one run. ``206`` is the share
of the virgin mail that is sent back where the client takes ``use-original-body`` (the rest it has itself).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from base64 import encodebytes
from collections.abc import Iterable
from functools import partial

from benchmarks.mime import ATTACHMENT, END, HEAD, LIMITS, MIXED, TEXT, pieces, seconds, stored
from icapscan.engines.fanout import Fanout
from icapscan.engines.rules import compile_rules
from icapscan.engines.settings import YaraSettings
from icapscan.engines.yara import YaraEngine
from icapscan.limits import KIB, MIB
from icapscan.pipeline import Scanner, Subject
from icapscan.sanitize.contract import Cleaned, Reference, Sanitized, Target
from icapscan.sanitize.mail import sanitize_mail
from icapscan.store import PartStore, Purse
from icapscan.unwrap.contract import Declared

CLOCK = time.process_time
"""Processor time: others may be at work on the machine."""
MAIL = "message/rfc822"
REFERENCE = Reference("BENCH-1", "Q-1", "2026-11-24 08:00", "mx.example.org")


def coded(size: int) -> bytes:
    """An attachment whose content has ``size`` bytes."""
    return ATTACHMENT + encodebytes(os.urandom(size)).replace(b"\n", b"\r\n") + b"\r\n"


def sample(size: int) -> bytes:
    """A mail of about ``size`` bytes: text, a part of 20 KB, one of 2 MB, and large ones."""
    first = HEAD + MIXED + TEXT + coded(20 * KIB) + coded(2 * MIB)
    large = coded(6 * MIB)
    return first + large * max(1, round((size - len(first)) / len(large))) + END


def scan(scanner: Scanner, body: Iterable[bytes | memoryview]) -> None:
    """One scan, to the verdict."""

    async def run() -> None:
        begun = scanner.begin(Subject(media_type=MAIL))
        try:
            for piece in body:
                begun.feed(bytes(piece))
            await begun.finish()
        finally:
            begun.close()

    asyncio.run(run())


def rewrite(store: PartStore, path: str, clean: bool) -> Sanitized:
    """The edits, and every byte of the result read once."""
    target = Target(path, (), "Bench.Bad", clean=clean)
    done = sanitize_mail(store, [target], REFERENCE, _shortened, declared=Declared(media_type=MAIL))
    for _ in done.edits.pieces(store):
        pass
    return done


def _shortened(data: bytes, target: Target) -> Cleaned:
    return Cleaned(data[:-1])


def rescan(scanner: Scanner, store: PartStore, done: Sanitized) -> None:
    """The scan of what leaves."""
    scan(scanner, done.edits.pieces(store))


def main() -> None:
    """Print the figures, and write them as JSON where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=25, help="MB of the mail")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", help="a file to write the figures to")
    options = parser.parse_args()
    body = sample(options.size * 1000 * 1000)
    engines = Fanout([YaraEngine(YaraSettings(), compile_rules())], "all")
    scanner = Scanner(engines, LIMITS, Purse(LIMITS.memory, LIMITS.disk))
    store = stored(pieces(body))
    base = seconds(lambda: scan(scanner, pieces(body)), options.repeats, CLOCK)
    figures = {"size_mb": len(body) / 1e6, "scan_ms": base * 1e3}
    for name, path, clean in (
        ("small", "2", False),
        ("2mb", "3", False),
        ("2mb_cleaned", "3", True),
        ("6mb", "4", False),
    ):
        spent = seconds(partial(rewrite, store, path, clean), options.repeats, CLOCK)
        done = rewrite(store, path, clean)
        again = seconds(partial(rescan, scanner, store, done), options.repeats, CLOCK)
        figures[f"{name}_rewrite_ratio"] = spent / base
        figures[f"{name}_rewrite_and_rescan_ratio"] = (spent + again) / base
        figures[f"{name}_206_share"] = sum(map(len, done.edits.prefix(store))) / len(body)
    for name, value in figures.items():
        print(f"{name:36}{value:10.4f}")
    store.close()
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=1)


if __name__ == "__main__":
    main()
