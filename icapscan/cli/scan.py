"""``icapscan scan``: files through the same stages as in the server, without a server."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from itertools import chain

from msgspec import Struct

from icapscan.cli.app import EXIT_CLEAN, EXIT_FOUND, EXIT_UNSCANNED, EXIT_USAGE, Form
from icapscan.cli.http_file import Reading, Response, pieces_of, response_in
from icapscan.cli.inputs import MAIL, Input, Inputs, Unreadable, missing_path
from icapscan.cli.report import Reporter
from icapscan.engines.build import build_engines
from icapscan.engines.clamd_control import available
from icapscan.engines.fanout import Fanout
from icapscan.engines.rules import compile_rules
from icapscan.errors import StoreFull
from icapscan.findings import Level, Reason, Unscanned, Verdict, summarize
from icapscan.pipeline import NOTHING, Scan, Scanner, Subject
from icapscan.policy.facts import PartFacts
from icapscan.policy.rules import Needs
from icapscan.servers.settings import Settings
from icapscan.store import PartStore, Purse

AT_ONCE = 4
"""Files that are scanned side by side, so that clamd and the reading do not wait for each other."""


class Scanned(Struct, frozen=True):
    """The outcome for one file."""

    path: str
    verdict: Verdict
    size: int
    sha256: str
    parts: tuple[PartFacts, ...] = ()
    """Where rules ask for them."""
    parts_complete: bool = True
    mail: bool = False


def run(paths: Sequence[str], settings: Settings, form: Form, *, as_json: bool) -> int:
    """Scan files, folders and standard input (``-``); prints the outcome and returns the exit code."""
    missing = missing_path(paths)
    if missing is not None:
        print(f"icapscan: {missing!r} does not exist.", file=sys.stderr)
        return EXIT_USAGE
    engines = settings.engines
    rules = compile_rules(engines.yara.rules) if engines.yara.enabled else None
    clamd = available(engines.clamd)
    with (
        Inputs(paths, form, settings.server.spool) as inputs,
        Reporter(len(inputs.files), as_json=as_json) as reporter,
    ):
        fanout = build_engines(engines, rules, clamd_addresses=clamd, connections=engines.clamd.connections)
        reporter.engines = [engine.name for engine in fanout.engines]
        return asyncio.run(_scan_all(inputs, settings, fanout, reporter))


async def _scan_all(inputs: Inputs, settings: Settings, engines: Fanout, reporter: Reporter) -> int:
    limits = settings.limits
    scanner = Scanner(engines, limits, Purse(limits.memory, limits.disk), settings.server.spool, settings.unwrap)
    levels = set()
    reasons = set()
    try:
        for name, why in (await engines.self_test()).items():
            if why is not None:
                reporter.warn(f"the self-test of {name} failed: {why}")
                levels.add(Level.UNSCANNED)
        async for scanned in _in_order(inputs, scanner, reporter):
            reporter.show(scanned.path, scanned.verdict, scanned.size, scanned.sha256)
            levels.add(scanned.verdict.level)
            reasons.add(scanned.verdict.reason)
    finally:
        await engines.close()
    if levels & {Level.INFECTED, Level.SUSPICIOUS}:
        return EXIT_FOUND
    return EXIT_UNSCANNED if Level.UNSCANNED in levels or reasons - {None} else EXIT_CLEAN


async def _in_order(inputs: Inputs, scanner: Scanner, reporter: Reporter) -> AsyncIterator[Scanned]:
    """Scan a few files side by side and give the outcomes in the order of the files."""
    running: deque[asyncio.Task[Scanned]] = deque()
    try:
        for path in inputs.files:
            items = inputs.of(path)
            reporter.expect(len(items) - 1)
            for item in items:
                running.append(asyncio.create_task(scan_input(item, inputs, scanner)))
                if len(running) == AT_ONCE:
                    yield await running.popleft()
        while running:
            yield await running.popleft()
    finally:
        for task in running:
            task.cancel()


async def scan_input(item: Input, inputs: Inputs, scanner: Scanner, needs: Needs = NOTHING) -> Scanned:
    """Scan one input. Never raises for anything that is wrong with it."""
    try:
        pieces = inputs.pieces(item)
        first = next(pieces, b"")
        return await _scan_pieces(item, item.form_of(first), chain((first,) if first else (), pieces), scanner, needs)
    except StoreFull as error:
        return _failed(item.path, Reason.ENGINE_FAILED, str(error))
    except Unreadable as error:
        return _failed(item.path, error.reason, str(error))


def _failed(path: str, reason: Reason, detail: str) -> Scanned:
    return Scanned(path, summarize((), [Unscanned(reason, detail=detail)]), 0, "")


async def _scan_pieces(item: Input, form: Form, pieces: Iterator[bytes], scanner: Scanner, needs: Needs) -> Scanned:
    if form is Form.HTTP:
        return await _scan_http(item, pieces, scanner, needs)
    mail = form is Form.MAIL
    scan = scanner.begin(Subject(name=item.name, media_type=MAIL if mail else ""), needs)
    try:
        digest, size = hashlib.sha256(), 0
        for piece in pieces:
            digest.update(piece)
            size += len(piece)
            scan.feed(piece)
            await asyncio.sleep(0)
        verdict = await scan.finish()
        return Scanned(item.path, verdict, size, digest.hexdigest(), tuple(scan.parts), scan.parts_complete, mail)
    finally:
        scan.close()


# Raw HTTP responses


async def _scan_http(item: Input, pieces: Iterable[bytes], scanner: Scanner, needs: Needs) -> Scanned:
    store = scanner.new_store()
    try:
        for piece in pieces:
            store.append(piece)
        response = response_in(store, sure=item.form is Form.HTTP)
        scanned = [
            await _scan_reading(reading, store, response, item.name, scanner, needs) for reading in response.readings
        ]
        verdict = _join([one.verdict for one in scanned], response)
        parts = tuple(part for one in scanned for part in one.parts)
        complete = all(one.parts_complete for one in scanned)
        return Scanned(item.path, verdict, store.size, store.sha256(), parts, complete)
    finally:
        store.close()


async def _scan_reading(
    reading: Reading, store: PartStore, response: Response, name: str, scanner: Scanner, needs: Needs
) -> Scanned:
    subject = Subject(reading.content_encoding, response.name or name, response.media_type)
    scan: Scan = scanner.begin(subject, needs)
    try:
        for piece in pieces_of(reading, store):
            scan.feed(piece)
            await asyncio.sleep(0)
        return Scanned(name, await scan.finish(), 0, "", tuple(scan.parts), scan.parts_complete)
    finally:
        scan.close()


def _join(verdicts: list[Verdict], response: Response) -> Verdict:
    """One verdict for all readings of a response, each finding once."""
    findings = dict.fromkeys(finding for verdict in verdicts for finding in verdict.findings)
    unscanned = dict.fromkeys(item for verdict in verdicts for item in verdict.unscanned)
    unscanned |= dict.fromkeys(Unscanned(reason, detail=sentence) for reason, sentence in response.problems)
    anomalies = dict.fromkeys(anomaly for verdict in verdicts for anomaly in verdict.anomalies)
    return summarize(findings, unscanned, anomalies)
