"""The only file that joins the stages of one transaction: body chunks, parts, engines, verdict.

A `Scanner` is one generation of engines with the bounds that hold for it; a `Scan` is one body. Parts go to the
engines as soon as they are complete, while later bytes still arrive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

from msgspec import Struct

from icapscan.engines.contract import Part, Report
from icapscan.errors import StoreFull
from icapscan.findings import Anomaly, Finding, Level, PartPath, Reason, Unscanned, Verdict, summarize
from icapscan.limits import Budget, Limits
from icapscan.store import PartStore, Purse
from icapscan.unwrap.events import AnomalyFound, PartBegin, PartData, PartEnd, PartEvent, PartFailed
from icapscan.unwrap.walker import Walker


class Engines(Protocol):
    """What the pipeline needs of `icapscan.engines.fanout.Fanout`."""

    @property
    def report(self) -> str: ...

    async def scan(self, part: Part, seconds: float) -> tuple[Report, ...]: ...

    def glance(self, data: bytes) -> tuple[Finding, ...]: ...


class Subject(Struct, frozen=True):
    """What is said about a body from outside. All of it is untrusted."""

    content_encoding: bytes = b""
    """Value of Content-Encoding; several field lines joined by commas."""
    name: str = ""
    media_type: str = ""


class Scanner:
    """One generation of engines, shared by all scans that begin while it is in force."""

    __slots__ = ("engines", "limits", "purse", "spool")

    def __init__(self, engines: Engines, limits: Limits, purse: Purse, spool: str | None = None) -> None:
        self.engines = engines
        self.limits = limits
        self.purse = purse
        self.spool = spool

    def begin(self, subject: Subject) -> Scan:
        """Start on one body. Whoever calls this owns the scan and closes it."""
        return Scan(self, subject)

    def new_store(self) -> PartStore:
        """An empty store within the purse."""
        return PartStore(self.purse, self.limits, self.spool)


class _Growing:
    """A part that has begun and not ended."""

    __slots__ = ("begin", "store")

    def __init__(self, begin: PartBegin, store: PartStore) -> None:
        self.begin = begin
        self.store = store


class Scan:
    """One body on its way through the stages.

    Call `feed` for each piece, then `finish` once for the verdict; read the virgin body from `store`; `close` at the
    end, whatever happened. Nothing but a verdict without findings, without failures and within every bound is CLEAN.
    """

    __slots__ = (
        "_anomalies",
        "_budget",
        "_growing",
        "_scanner",
        "_stores",
        "_subject",
        "_tasks",
        "_unscanned",
        "_virgin",
        "_walker",
        "store",
    )

    def __init__(self, scanner: Scanner, subject: Subject) -> None:
        self._scanner = scanner
        self._subject = subject
        self._budget = Budget(scanner.limits)
        self._walker = Walker(
            self._budget,
            content_encoding=subject.content_encoding,
            name=subject.name or None,
            media_type=subject.media_type or None,
        )
        self.store = scanner.new_store()
        self._growing: dict[PartPath, _Growing] = {}
        self._stores: list[PartStore] = []
        self._tasks: list[asyncio.Task[tuple[Report, ...]]] = []
        self._unscanned: list[Unscanned] = []
        self._anomalies: list[Anomaly] = []
        self._virgin: Part | None = None

    def feed(self, data: bytes | memoryview) -> None:
        """More of the virgin body. Raises `StoreFull` when it cannot be kept; the scan is then to be closed."""
        if not self._budget.take_body(len(data)):
            self.store.append(data)  # it can still be copied back where policy passes what is over a limit
            return
        self.store.append(data)
        self._handle(self._walker.feed(data))

    @property
    def over_body_limit(self) -> bool:
        """The virgin body is longer than is scanned; the verdict will be UNSCANNED(over-limit) at best."""
        return self._budget.spent == "body"

    def verdict_so_far(self) -> Verdict:
        """What is known before the end, for a body that will not be read to its end; never CLEAN."""
        self._note_budget()
        done = [report for task in self._tasks if task.done() for report in self._result(task)]
        verdict = self._sum_up(done)
        if verdict.level is Level.CLEAN:
            return summarize(unscanned=[Unscanned(Reason.OVER_LIMIT, detail="The body was not read to its end.")])
        return verdict

    def glance(self) -> tuple[Finding, ...]:
        """Findings in what has arrived so far (a preview); none of them proves nothing."""
        if self._subject.content_encoding:
            return ()
        seen = self.store.contents()
        return self._scanner.engines.glance(seen) if seen else ()

    async def finish(self) -> Verdict:
        """The body is complete: the verdict. Never raises for anything in the body or wrong with an engine."""
        seconds = self._scanner.limits.seconds
        self._handle(self._walker.finish())
        for path in list(self._growing):  # a decoder that forgot an end must not make its part disappear
            self._fail(path, Reason.MALFORMED, "The part did not end.")
        self._note_budget()
        if self._virgin is not None and not self._tasks:
            reports = await self._scanner.engines.scan(self._virgin, seconds)
            return self._sum_up(list(reports))
        if self._virgin is not None:
            self._start(self._virgin)
        return self._sum_up(await self._gather(seconds))

    def close(self) -> None:
        """Free all stores and stop what is still running. Idempotent."""
        for task in self._tasks:
            task.cancel()
        self._tasks = []
        for growing in self._growing.values():
            growing.store.close()
        self._growing = {}
        for store in self._stores:
            store.close()
        self._stores = []
        self.store.close()

    # Part events

    def _handle(self, events: Iterable[PartEvent]) -> None:
        for event in events:
            if isinstance(event, PartData):
                self._grow(event)
            elif isinstance(event, PartBegin):
                if event.virgin:
                    self._virgin = Part(event.path, self.store, event.name or "", event.media_type or "")
                else:
                    self._growing[event.path] = _Growing(event, self._scanner.new_store())
            elif isinstance(event, PartEnd):
                self._end(event.path)
            elif isinstance(event, PartFailed):
                self._fail(event.path, event.reason, event.detail)
            else:
                assert isinstance(event, AnomalyFound)
                self._anomalies.append(event.anomaly)

    def _grow(self, event: PartData) -> None:
        growing = self._growing.get(event.path)
        if growing is None:
            return  # it failed for want of room; that is already in the verdict
        try:
            growing.store.append(event.data)
        except StoreFull as error:
            self._fail(event.path, Reason.ENGINE_FAILED, str(error))

    def _end(self, path: PartPath) -> None:
        growing = self._growing.pop(path, None)
        if growing is None:
            return
        begin = growing.begin
        self._stores.append(growing.store)
        self._start(Part(path, growing.store, begin.name or "", begin.media_type or ""))

    def _fail(self, path: PartPath, reason: Reason, detail: str) -> None:
        """What is there of the part is scanned, and the verdict says that it was not all."""
        self._unscanned.append(Unscanned(reason, path, detail=detail))
        self._end(path)

    def _note_budget(self) -> None:
        if self._budget.spent is not None:
            detail = f"The limit on {self._budget.spent} was reached."
            self._unscanned.append(Unscanned(Reason.OVER_LIMIT, detail=detail))

    # Engines

    def _start(self, part: Part) -> None:
        scan = self._scanner.engines.scan(part, self._scanner.limits.seconds)
        self._tasks.append(asyncio.get_running_loop().create_task(scan))

    async def _gather(self, seconds: float) -> list[Report]:
        """Reports of all parts; with ``report = "first"`` no longer than until the first infected one."""
        reports: list[Report] = []
        waiting = set(self._tasks)
        deadline = asyncio.get_running_loop().time() + seconds
        first = self._scanner.engines.report == "first"
        while waiting:
            left = max(0.0, deadline - asyncio.get_running_loop().time())
            done, waiting = await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                self._unscanned.append(Unscanned(Reason.TIMEOUT, detail="The scan took too long."))
                break
            for task in done:
                reports += self._result(task)
            if first and any(finding.level is Level.INFECTED for report in reports for finding in report.findings):
                break
        for task in waiting:
            task.cancel()
        return reports

    def _result(self, task: asyncio.Task[tuple[Report, ...]]) -> tuple[Report, ...]:
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or error is not None:
            detail = "A scan was cancelled." if error is None else f"A scan ended with {type(error).__name__}."
            self._unscanned.append(Unscanned(Reason.ENGINE_FAILED, detail=detail))
            return ()
        return task.result()

    def _sum_up(self, reports: list[Report]) -> Verdict:
        findings = [finding for report in reports for finding in report.findings]
        unscanned = self._unscanned + [item for report in reports for item in report.unscanned]
        return summarize(findings, unscanned, self._anomalies)
