"""The only file that joins the stages of one transaction: body chunks, parts, engines, verdict.

A `Scanner` is one generation of engines with the bounds that hold for it; a `Scan` is one body. Parts go to the
engines as soon as they are complete, while later bytes still arrive.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from msgspec import Struct

from icapscan.engines.cache import BodyCache
from icapscan.engines.contract import Cancel, Part, Report
from icapscan.findings import Anomaly, Finding, Level, Reason, Unscanned, Verdict, summarize
from icapscan.limits import Budget, Limits
from icapscan.policy.facts import PartFacts
from icapscan.policy.parts import part_facts
from icapscan.policy.rules import Needs
from icapscan.store import PartStore, Purse
from icapscan.turns import STEP, Turns, Unpacking
from icapscan.unwrap.contract import FIRST, Declared, Evidence
from icapscan.unwrap.events import Audience, PartFailed
from icapscan.unwrap.formats import registry
from icapscan.unwrap.passwords import Passwords
from icapscan.unwrap.settings import UnwrapSettings
from icapscan.unwrap.tree import PartReady, WalkEvent
from icapscan.unwrap.walker import Walker

PARTS_AT_ONCE = 8
"""Parts of one body that are with the engines at the same time; the others wait in line."""


class Engines(Protocol):
    """What the pipeline needs of `icapscan.engines.fanout.Fanout`."""

    @property
    def report(self) -> str: ...

    async def scan(self, part: Part, seconds: float) -> tuple[Report, ...]: ...

    def refuses(self, seconds: float) -> Unscanned | None: ...

    def scan_soon(
        self, part: Part, seconds: float, then: Callable[[tuple[Report, ...]], None]
    ) -> tuple[Report, ...] | Cancel | None: ...

    def glance(self, data: bytes) -> tuple[Finding, ...]: ...


class NotSoon(Exception):
    """A verdict that needs waiting: ask with `Scan.finish`."""


class Subject(Struct, frozen=True):
    """What is said about a body from outside. All of it is untrusted."""

    content_encoding: bytes = b""
    """Value of Content-Encoding; several field lines joined by commas."""
    name: str = ""
    media_type: str = ""
    content_type: bytes = b""
    """The whole value of Content-Type, for the boundary of a multipart."""


NOTHING = Needs()
_STOPPED = frozenset({Reason.OVER_LIMIT, Reason.TIMEOUT, Reason.ENGINE_FAILED})
"""Reasons for a part that may hold others which nobody heard of."""


class Scanner:
    """One generation of engines, shared by all scans that begin while it is in force."""

    __slots__ = ("bodies", "engines", "limits", "purse", "spool", "turns", "unwrap")

    def __init__(
        self,
        engines: Engines,
        limits: Limits,
        purse: Purse,
        spool: str | None = None,
        unwrap: UnwrapSettings | None = None,
        bodies: BodyCache | None = None,
    ) -> None:
        self.bodies = bodies
        """Whole bodies that were clean before; None: each is scanned."""
        self.engines = engines
        self.limits = limits
        self.purse = purse
        self.spool = spool
        self.turns = Turns()
        self.unwrap = unwrap if unwrap != UnwrapSettings() else None
        """None: the standard settings, and nothing is made for a body to hold what differs."""

    def begin(self, subject: Subject, needs: Needs = NOTHING) -> Scan:
        """Start on one body. Whoever calls this owns the scan and closes it. ``needs``: what rules want to know."""
        return Scan(self, subject, needs)

    def refuses(self) -> Verdict | None:
        """What is said of a body that comes when more wait for an engine than can be scanned in time."""
        reason = self.engines.refuses(self.limits.seconds)
        return None if reason is None else summarize(unscanned=(reason,))

    def new_store(self) -> PartStore:
        """An empty store within the purse."""
        return PartStore(self.purse, self.limits, self.spool)


class _Line:
    """The parts of one body that wait for the engines, and those that are with them.

    Owns the stores of the parts it is given, and frees each as soon as nobody reads it any more.
    """

    __slots__ = ("_engines", "_first", "_running", "_seconds", "_virgin", "_waiting", "failures", "hit", "reports")

    def __init__(self, engines: Engines, seconds: float, virgin: PartStore, first: bool) -> None:
        self._engines = engines
        self._first = first
        """Something infected settles it."""
        self._seconds = seconds
        self._virgin = virgin
        self._waiting: deque[Part] = deque()
        self._running: dict[asyncio.Task[tuple[Report, ...]], Part] = {}
        self.reports: list[Report] = []
        self.failures: list[Unscanned] = []
        self.hit = False
        """Something infected was found and the rest need not be looked at."""

    def add(self, part: Part) -> None:
        """One more part to scan."""
        if self.hit:
            self._free(part)
            return
        self._waiting.append(part)
        self._start()

    async def wait(self) -> None:
        """Until every part was scanned, or something was found that settles it, or the time is over."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._seconds
        while self._running and not self.hit:
            left = max(0.0, deadline - loop.time())
            done, _ = await asyncio.wait(self._running, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                self.failures.append(Unscanned(Reason.TIMEOUT, detail="The scan took too long."))
                break
            self.collect()
        self.stop()

    def collect(self) -> None:
        """Take the reports of the scans that have ended, and start those that waited for them."""
        for task in [task for task in self._running if task.done()]:
            self._take(task, self._running.pop(task))
        if self.hit:
            self.stop()
        else:
            self._start()

    def stop(self) -> None:
        """Drop what waits and cancel what runs. Idempotent."""
        for task, part in self._running.items():
            task.add_done_callback(lambda _, part=part: self._free(part))  # type: ignore[misc]
            task.cancel()
        for part in self._waiting:
            self._free(part)
        self._running = {}
        self._waiting.clear()

    def _start(self) -> None:
        while self._waiting and len(self._running) < PARTS_AT_ONCE:
            part = self._waiting.popleft()
            task = asyncio.get_running_loop().create_task(self._engines.scan(part, self._seconds))
            self._running[task] = part

    def _take(self, task: asyncio.Task[tuple[Report, ...]], part: Part) -> None:
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or error is not None:
            self._free(part)
            detail = "A scan was cancelled." if error is None else f"A scan ended with {type(error).__name__}."
            self.failures.append(Unscanned(Reason.ENGINE_FAILED, part.path, detail=detail))
            return
        reports = task.result()
        if part.store is not self._virgin and _all_finished(reports):
            part.store.recycle()
        self._free(part)
        if not reports and part.audience is Audience.ALL:
            self.failures.append(_unasked(part.path))
        self.reports += reports
        if self._first:
            self.hit |= any(finding.level is Level.INFECTED for report in reports for finding in report.findings)

    def _free(self, part: Part) -> None:
        if part.store is not self._virgin:
            part.store.close()


def _all_finished(reports: Iterable[Report]) -> bool:
    """Whether no engine reads the part any more: none was cancelled, none failed."""
    return not any(report.findings or report.unscanned or report.allowed for report in reports)


def _unasked(path: str) -> Unscanned:
    """Silence is not CLEAN: a part that is for all engines has an answer of one at least."""
    return Unscanned(Reason.ENGINE_FAILED, path, detail="No engine has said anything.")


class Scan:
    """One body on its way through the stages.

    Call `feed` for each piece, then `finish` once for the verdict; read the virgin body from `store`; `close` at the
    end, whatever happened. Nothing but a verdict without findings, without failures and within every bound is CLEAN.
    """

    __slots__ = (
        "_anomalies", "_budget", "_cancel", "_line", "_needs", "_plain", "_scanner", "_subject", "_unscanned",
        "_walker", "asked", "cached", "parts", "parts_complete", "store",
    )  # fmt: skip

    def __init__(self, scanner: Scanner, subject: Subject, needs: Needs = NOTHING) -> None:
        self._scanner = scanner
        self._subject = subject
        self._budget = Budget(scanner.limits)
        self.store = scanner.new_store()
        self._walker: Walker | None = None
        """Made for the first bytes, unless they are all there is and no format wants them."""
        self._plain = False
        """The body is its only part, and complete."""
        self._cancel: Cancel | None = None
        self._line: _Line | None = None
        self._unscanned: list[Unscanned] = []
        self._anomalies: list[Anomaly] = []
        self._needs = needs
        self.asked = 0
        """Reports of engines on the parts of this body, once there is a verdict."""
        self.cached = 0
        """Those among them that were known from other scans."""
        self.parts: list[PartFacts] = []
        """The parts so far, where rules ask for them; with all of them a hit does not end the unpacking."""
        self.parts_complete = True
        """False once something may hold parts that were not heard of."""

    def another(self, subject: Subject) -> Scan:
        """A scan of another body by the same engines within the same bounds."""
        return Scan(self._scanner, subject, self._needs)

    def feed(self, data: bytes | memoryview) -> None:
        """More of the virgin body. Raises `StoreFull` when it cannot be kept; the scan is then to be closed."""
        within = self._budget.take_body(len(data))
        self.store.append(data)  # what is over a limit can still be copied back where policy passes it
        walker = self._walker or self._begin()
        if walker.idle or not within:
            return
        if self._line is not None:
            self._line.collect()
            if self._line.hit:
                return
        self._handle(walker.feed(data))
        if walker.busy and walker.waiting is None:
            until = time.monotonic() + STEP
            for events in walker.steps():
                self._handle(events)
                if walker.waiting is not None or time.monotonic() > until:
                    break

    def feed_whole(self, data: bytes) -> None:
        """All of the virgin body in one piece, in place of `feed`. Nothing opens most bodies of the web."""
        coded = self._subject.content_encoding
        if not coded and not self._needs.parts and len(data) <= self._scanner.limits.body:
            evidence = Evidence(data[:FIRST], len(data) <= FIRST, self._declared())
            if not data or not registry().offers(evidence, whole=data):
                self.store.append(data)
                self._plain = self._budget.take_body(len(data)) and self._budget.take_part()
                return
        self.feed(data)

    @property
    def over_body_limit(self) -> bool:
        """The virgin body is longer than is scanned; the verdict will be UNSCANNED(over-limit) at best."""
        return self._budget.spent == "body"

    @property
    def spotless(self) -> bool:
        """Nothing was found, and nothing failed, in what has arrived so far."""
        line = self._line
        told = line is not None and (line.failures or any(one.findings or one.unscanned for one in line.reports))
        return not (told or self._unscanned or self._anomalies or self._budget.spent)

    def verdict_so_far(self) -> Verdict:
        """What is known before the end, for a body that will not be read to its end; never CLEAN."""
        self._note_budget()
        if self._line is not None:
            self._line.collect()
        verdict = self._sum_up()
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
        virgin = self._virgin() if self._plain else await self._unpack()
        self._note_budget()
        line = self._line
        if line is None:
            return self._alone(await self._scanner.engines.scan(virgin, self._scanner.limits.seconds))
        line.add(virgin)
        await line.wait()
        verdict = self._sum_up()
        if verdict.level is Level.CLEAN and _all_finished(line.reports):
            self.store.recycle()
        return verdict

    def finish_soon(self, then: Callable[[Callable[[], Verdict]], None]) -> Verdict | None:
        """As `finish`, with no task: the verdict where it is known at once, else ``then`` is called with what makes it.

        To be asked for first: `may_finish_soon`. Raises `NotSoon` where something is to be waited for that needs
        `finish`; nothing has happened then. `close` ends the scan.
        """

        def answered(reports: tuple[Report, ...]) -> None:
            self._cancel = None
            then(lambda: self._alone(reports))  # made where a mistake of ours still becomes an answer

        engines = self._scanner.engines
        started = engines.scan_soon(self._virgin(), self._scanner.limits.seconds, answered)
        if started is None:
            raise NotSoon
        if isinstance(started, tuple):
            return self._alone(started)
        self._cancel = started
        return None

    @property
    def may_finish_soon(self) -> bool:
        """The body is complete and holds nothing that is to be unpacked."""
        return self._plain

    def close(self) -> None:
        """Free all stores and stop what is still running. Idempotent."""
        if self._cancel is not None:
            cancel, self._cancel = self._cancel, None
            cancel()
        if self._line is not None:
            self._line.stop()
        if self._walker is not None:
            self._walker.close()
        self.store.close()

    # Parts

    def _declared(self) -> Declared:
        subject = self._subject
        names = (subject.name,) if subject.name else ()
        return Declared(names, subject.media_type, content_type=subject.content_type)

    def _begin(self) -> Walker:
        scanner = self._scanner
        self._walker = Walker(
            self._budget,
            scanner.new_store,
            self.store,
            content_encoding=self._subject.content_encoding,
            declared=self._declared(),
            passwords=Passwords(scanner.unwrap) if scanner.unwrap is not None else None,
        )
        return self._walker

    def _virgin(self) -> Part:
        return Part("", self.store, self._subject.name, self._subject.media_type)

    def _alone(self, reports: tuple[Report, ...]) -> Verdict:
        """The verdict on a body that is its only part."""
        if not reports:
            self._unscanned.append(_unasked(""))
        verdict = self._sum_up(reports)
        if verdict.level is Level.CLEAN and _all_finished(reports):
            self.store.recycle()
        return verdict

    async def _unpack(self) -> Part:
        """All that is left to unpack; others get their turn meanwhile. Returns the virgin part."""
        virgin = None
        walker = self._walker or self._begin()
        if self._line is None or not self._line.hit:
            unpacking = Unpacking(self._scanner.turns, self._scanner.limits.seconds)
            complete = False
            try:
                for events in walker.finish():
                    virgin = self._handle(events) or virgin
                    if walker.busy and await unpacking.pause(walker.waiting) and self._line is not None:
                        self._line.collect()
                        if self._line.hit:
                            break
                else:
                    complete = True
            except TimeoutError:
                self._unscanned.append(Unscanned(Reason.TIMEOUT, detail="Unpacking took too long."))
            finally:
                if not complete:
                    self.parts_complete = False
                    walker.close()  # its child process ends before the next one begins
                unpacking.end()
        return virgin or self._virgin()

    def _handle(self, events: Iterable[WalkEvent]) -> Part | None:
        """Parts to the engines, the rest into the verdict; returns the virgin part, which goes last."""
        virgin = None
        for event in events:
            if isinstance(event, PartReady):
                if self._needs.parts:
                    self._gather(event)
                declared = event.declared
                name = declared.names[0] if declared.names else ""
                part = Part(event.path, event.store, name, declared.media_type, event.audience, declared.names[1:])
                if event.store is self.store:
                    virgin = part
                else:
                    self._add(part)
            elif isinstance(event, PartFailed):
                if event.reason in _STOPPED:
                    self.parts_complete = False
                self._unscanned.append(Unscanned(event.reason, event.path, detail=event.detail))
            else:
                self._anomalies.append(event.anomaly)
        return virgin

    def _gather(self, event: PartReady) -> None:
        facts = part_facts(event, self._needs)
        if facts is not None:
            self.parts.append(facts)

    def _add(self, part: Part) -> None:
        if self._line is None:
            engines = self._scanner.engines
            first = engines.report == "first" and not self._needs.parts
            self._line = _Line(engines, self._scanner.limits.seconds, self.store, first)
        self._line.add(part)

    def _note_budget(self) -> None:
        if self._budget.spent is not None:
            self.parts_complete = False
            item = Unscanned(Reason.OVER_LIMIT, detail=f"The limit on {self._budget.spent} was reached.")
            if item not in self._unscanned:
                self._unscanned.append(item)

    def _sum_up(self, reports: Iterable[Report] = ()) -> Verdict:
        unscanned = list(self._unscanned)
        if self._line is not None:
            reports = self._line.reports
            unscanned += self._line.failures
        findings: list[Finding] = []
        self.asked = self.cached = 0
        for report in reports:
            self.asked += 1
            if report.cached:
                self.cached += 1
            findings += report.findings
            unscanned += report.unscanned
        return summarize(findings, unscanned, self._anomalies)
