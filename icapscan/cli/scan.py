"""``icapscan scan``: files through the same stages as in the server, without a server."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import stat
import sys
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import BinaryIO

from msgspec import Struct

from icapscan.cli.app import EXIT_CLEAN, EXIT_FOUND, EXIT_UNSCANNED, EXIT_USAGE, Form
from icapscan.cli.http_file import Reading, Response, read_response
from icapscan.cli.report import Reporter
from icapscan.engines.build import build_engines
from icapscan.engines.clamd_control import available
from icapscan.engines.fanout import Fanout
from icapscan.engines.rules import compile_rules
from icapscan.errors import StoreFull
from icapscan.findings import Level, Reason, Unscanned, Verdict, summarize
from icapscan.limits import KIB
from icapscan.pipeline import Scan, Scanner, Subject
from icapscan.servers.settings import Settings
from icapscan.store import PartStore, Purse

PIECE = 256 * KIB
AT_ONCE = 4
"""Files that are scanned side by side, so that clamd and the reading do not wait for each other."""
STDIN = "-"
_MAIL = re.compile(
    rb"(?:From [^\r\n]+\r?\n)?(?:[!-9;-~]+:[^\r\n]*\r?\n(?:[ \t][^\r\n]*\r?\n)*)*?"
    rb"(?:received|return-path|from|to|subject|date|message-id|mime-version|delivered-to):",
    re.IGNORECASE,
)


class Scanned(Struct, frozen=True):
    """The outcome for one file."""

    path: str
    verdict: Verdict
    size: int
    sha256: str


def run(paths: Sequence[str], settings: Settings, form: Form, *, as_json: bool) -> int:
    """Scan files, folders and standard input (``-``); prints the outcome and returns the exit code."""
    for path in paths:
        if path != STDIN and not os.path.lexists(path):
            print(f"icapscan: {path!r} does not exist.", file=sys.stderr)
            return EXIT_USAGE
    files = list(_files(paths))
    engines = settings.engines
    rules = compile_rules(engines.yara.rules) if engines.yara.enabled else None
    clamd = available(engines.clamd)
    with Reporter(len(files), as_json=as_json) as reporter:
        fanout = build_engines(engines, rules, clamd_addresses=clamd, connections=engines.clamd.connections)
        reporter.engines = [engine.name for engine in fanout.engines]
        return asyncio.run(_scan_all(files, settings, fanout, form, reporter))


async def _scan_all(files: list[str], settings: Settings, engines: Fanout, form: Form, reporter: Reporter) -> int:
    limits = settings.limits
    scanner = Scanner(engines, limits, Purse(limits.memory, limits.disk), settings.server.spool)
    levels = set()
    reasons = set()
    try:
        for name, why in (await engines.self_test()).items():
            if why is not None:
                reporter.warn(f"the self-test of {name} failed: {why}")
                levels.add(Level.UNSCANNED)
        async for scanned in _in_order(files, scanner, form):
            reporter.show(scanned.path, scanned.verdict, scanned.size, scanned.sha256)
            levels.add(scanned.verdict.level)
            reasons.add(scanned.verdict.reason)
    finally:
        await engines.close()
    if levels & {Level.INFECTED, Level.SUSPICIOUS}:
        return EXIT_FOUND
    return EXIT_UNSCANNED if Level.UNSCANNED in levels or reasons - {None} else EXIT_CLEAN


async def _in_order(files: Iterable[str], scanner: Scanner, form: Form) -> AsyncIterator[Scanned]:
    """Scan a few files side by side and give the outcomes in the order of the files."""
    running: deque[asyncio.Task[Scanned]] = deque()
    try:
        for path in files:
            running.append(asyncio.create_task(_scan_path(path, scanner, form)))
            if len(running) == AT_ONCE:
                yield await running.popleft()
        while running:
            yield await running.popleft()
    finally:
        for task in running:
            task.cancel()


def _files(paths: Iterable[str]) -> Iterator[str]:
    """Every file of the paths, folders walked in the order of their names; links to folders are not followed."""
    for path in paths:
        if path == STDIN or not os.path.isdir(path):
            yield path
            continue
        unreadable: list[OSError] = []
        for folder, folders, names in os.walk(path, onerror=unreadable.append):
            folders.sort()
            yield from (os.path.join(folder, name) for name in sorted(names))
        yield from (str(error.filename) for error in unreadable)  # not regular files: told as not scanned


async def _scan_path(path: str, scanner: Scanner, form: Form) -> Scanned:
    try:
        if path == STDIN:
            os.set_blocking(sys.stdin.fileno(), True)  # else a pause in the input would look like its end
            return await _scan_stream(path, sys.stdin.buffer, scanner, form)
        with open(path, "rb", buffering=0, opener=_open) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return _failed(path, Reason.UNSUPPORTED, "This is not a regular file.")
            return await _scan_stream(path, file, scanner, form)
    except StoreFull as error:
        return _failed(path, Reason.ENGINE_FAILED, str(error))
    except OSError as error:
        return _failed(path, Reason.ENGINE_FAILED, f"The file cannot be read: {error.strerror or error}.")


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)  # a named pipe must not hold us up


def _failed(path: str, reason: Reason, detail: str) -> Scanned:
    return Scanned(path, summarize((), [Unscanned(reason, detail=detail)]), 0, "")


async def _scan_stream(path: str, file: BinaryIO, scanner: Scanner, form: Form) -> Scanned:
    first = file.read(PIECE) or b""
    name = "" if path == STDIN else os.path.basename(path)
    if form is Form.HTTP or (form is Form.AUTO and first.startswith(b"HTTP/1.")):
        return await _scan_http(path, name, _pieces(first, file), scanner, form)
    is_mail = form is Form.MAIL or (form is Form.AUTO and _MAIL.match(first[:8192]) is not None)
    scan = scanner.begin(Subject(name=name, media_type="message/rfc822" if is_mail else ""))
    try:
        digest, size = hashlib.sha256(), 0
        for piece in _pieces(first, file):
            digest.update(piece)
            size += len(piece)
            scan.feed(piece)
            await asyncio.sleep(0)
        return Scanned(path, await scan.finish(), size, digest.hexdigest())
    finally:
        scan.close()


def _pieces(first: bytes, file: BinaryIO) -> Iterator[bytes]:
    while first:
        yield first
        first = file.read(PIECE) or b""


# Raw HTTP responses


async def _scan_http(path: str, name: str, pieces: Iterable[bytes], scanner: Scanner, form: Form) -> Scanned:
    store = scanner.new_store()
    try:
        for piece in pieces:
            store.append(piece)
        view = store.view() if store.size else b""
        response = read_response(view)
        if form is Form.AUTO:  # it only looks like one
            if response.problems:
                response = Response()
            response.add(((0, store.size),))
        verdicts = [await _scan_reading(reading, store, response, name, scanner) for reading in response.readings]
        return Scanned(path, _join(verdicts, response), store.size, store.sha256())
    finally:
        store.close()


async def _scan_reading(reading: Reading, store: PartStore, response: Response, name: str, scanner: Scanner) -> Verdict:
    subject = Subject(reading.content_encoding, response.name or name, response.media_type)
    scan: Scan = scanner.begin(subject)
    try:
        for start, end in reading.slices:
            for piece in store.pieces(start):
                piece = piece[: end - start]
                start += len(piece)
                if not piece:
                    break
                scan.feed(piece)
                await asyncio.sleep(0)
        return await scan.finish()
    finally:
        scan.close()


def _join(verdicts: list[Verdict], response: Response) -> Verdict:
    """One verdict for all readings of a response, each finding once."""
    findings = dict.fromkeys(finding for verdict in verdicts for finding in verdict.findings)
    unscanned = dict.fromkeys(item for verdict in verdicts for item in verdict.unscanned)
    unscanned |= dict.fromkeys(Unscanned(reason, detail=sentence) for reason, sentence in response.problems)
    anomalies = dict.fromkeys(anomaly for verdict in verdicts for anomaly in verdict.anomalies)
    return summarize(findings, unscanned, anomalies)
