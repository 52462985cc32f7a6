"""All engines over one part, side by side: the first hit may end the rest, every failure comes back as a reason."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Literal, cast

from icapscan.engines.contract import Cancel, Engine, Part, PromptEngine, QueueingEngine, Report
from icapscan.errors import IcapscanError
from icapscan.findings import Finding, Level, Reason, Unscanned
from icapscan.store import PartStore
from icapscan.unwrap.events import Audience

GRACE = 0.25
"""Seconds beyond the deadline that an engine gets to answer by itself, and then to stop when cancelled."""
SELF_TEST_SECONDS = 10.0
NO_ENGINE = "none"


class Fanout:
    """The engines of one process, in the order in which they are asked.

    ``report = "first"``: the first INFECTED finding (or a part that is allowed) ends the scan; engines that had not
    answered yet are cancelled and give no report. ``"all"``: every engine finishes.

    Who is asked about a part is said by its audience:

    ========= ============================================================================================
    all       every engine
    not-clamd all but clamd, which has the container and takes it apart by itself
    clamd     clamd and the hash lists; where there is no clamd every engine, so that no byte is left unseen
    nobody    the hash lists alone: everything in the part is scanned as the parts in it
    ========= ============================================================================================
    """

    def __init__(self, engines: Sequence[Engine], report: Literal["first", "all"] = "first") -> None:
        self.engines = tuple(engines)
        self.report = report
        self._first = report == "first"
        self._asked = {audience: _asked(self.engines, audience) for audience in Audience}
        self._queueing = tuple(
            cast(QueueingEngine, engine) for engine in self.engines if getattr(engine, "hopeless", None) is not None
        )
        self._prompt = {audience: _prompt(asked) for audience, asked in self._asked.items()}

    async def scan(self, part: Part, seconds: float) -> tuple[Report, ...]:
        """What each engine says of the part, within ``seconds`` plus a small constant; never raises for an engine.

        Where one report has ``allowed``, it is the only one.
        """
        if not self.engines:
            return (_unscanned(NO_ENGINE, part, Reason.ENGINE_FAILED, "No engine is configured."),)
        reports: list[Report] = []
        waiting: list[Engine] = []
        for engine in self._asked[part.audience]:
            report = _scan_now(engine, part, seconds)
            if report is None:
                waiting.append(engine)
                continue
            reports.append(report)
            if self._decides(report) and not _overruled(waiting):
                return _final(reports)
        if len(waiting) == 1 and getattr(waiting[0], "punctual", False):
            reports.append(await _scan(waiting[0], part, seconds))
        elif waiting:
            await self._together(waiting, part, seconds, reports)
        return _final(reports)

    def refuses(self, seconds: float) -> Unscanned | None:
        """Why a part that comes now would not be scanned within ``seconds``, where that is clear before it is read."""
        for engine in self._queueing:
            if engine.hopeless(seconds):
                return engine.overdue()
        return None

    def scan_soon(
        self, part: Part, seconds: float, then: Callable[[tuple[Report, ...]], None]
    ) -> tuple[Report, ...] | Cancel | None:
        """The same as `scan` without a task, where one engine at most has to wait for others.

        The reports where nobody has to; else a way to end the scan before ``then`` is called with them, once and not
        from here. None: nothing was begun, `scan` is to be called. Never raises for an engine.
        """
        asked = self._asked[part.audience]
        last = self._prompt[part.audience]
        if not asked or (last is not None and not last.may_begin(part)):
            return None
        reports: list[Report] = []
        for engine in asked if last is None else asked[:-1]:
            report = _scan_now(engine, part, seconds)
            if report is None:
                return None
            reports.append(report)
            if self._decides(report) and not (last is not None and _overruled((last,))):
                return _final(reports)
        if last is None:
            return _final(reports)
        try:
            begun = last.begin(part, seconds, lambda report: then(_final([*reports, _checked(report, last, part)])))
        except Exception as error:
            begun = _failed(last, part, error)
        return _final([*reports, begun]) if isinstance(begun, Report) else begun

    def glance(self, data: bytes) -> tuple[Finding, ...]:
        """What inline engines find in the first bytes of a body; no finding proves nothing.

        Where a list of known good contents may still overrule a finding, a glance says nothing.
        """
        found: list[Finding] = []
        if _overruled(self.engines):
            return ()
        for engine in self.engines:
            glance = getattr(engine, "glance", None)
            if glance is not None:
                try:
                    found += glance(data)
                except Exception:
                    continue  # only a glance: the scan that follows meets the failure again and reports it
        return tuple(found)

    async def self_test(self, seconds: float = SELF_TEST_SECONDS) -> dict[str, str | None]:
        """EICAR through each engine: None for one that found it, else a sentence that says what it did."""
        results = await asyncio.gather(*(self._test(engine, seconds) for engine in self.engines))
        return dict(zip((engine.name for engine in self.engines), results, strict=True))

    async def version(self) -> dict[str, str]:
        """The version of each engine by name. Raises `IcapscanError` when one cannot say."""
        texts = await asyncio.gather(*(engine.version() for engine in self.engines))
        return dict(zip((engine.name for engine in self.engines), texts, strict=True))

    async def versions(self) -> dict[str, str | None]:
        """The version of each engine by name, None for one that cannot say now."""
        texts = await asyncio.gather(*(engine.version() for engine in self.engines), return_exceptions=True)
        known = (None if isinstance(text, BaseException) else text for text in texts)
        return dict(zip((engine.name for engine in self.engines), known, strict=True))

    def forget(self) -> None:
        """Bytes that were scanned may get another answer from now on: what is kept of them goes."""
        for engine in self.engines:
            forget = getattr(engine, "forget", None)
            if forget is not None:
                forget()

    def advice(self) -> tuple[str, ...]:
        """What an administrator should know of the engines' own settings: one sentence each."""
        return tuple(line for engine in self.engines for line in getattr(engine, "advice", tuple)())

    async def close(self) -> None:
        """Close every engine, also when one of them fails at it."""
        await asyncio.gather(*(engine.close() for engine in self.engines), return_exceptions=True)

    def _decides(self, report: Report) -> bool:
        return report.allowed or (self._first and _infected(report))

    async def _together(self, engines: list[Engine], part: Part, seconds: float, reports: list[Report]) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds + GRACE
        tasks = {loop.create_task(_scan(engine, part, seconds)): engine for engine in engines}
        pending = set(tasks)
        try:
            while pending:
                done, pending = await asyncio.wait(
                    pending, timeout=max(0.0, deadline - loop.time()), return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    break
                ended = [_result(task, tasks[task], part) for task in tasks if task in done]
                reports += ended
                left = [tasks[task] for task in pending]
                if any(report.allowed or (self._decides(report) and not _overruled(left)) for report in reports):
                    return
            reports += [
                _unscanned(tasks[task].name, part, Reason.TIMEOUT, "The engine did not answer in time.")
                for task in tasks
                if task in pending
            ]
        finally:
            await _stop(pending)

    async def _test(self, engine: Engine, seconds: float) -> str | None:
        store = PartStore.of(eicar())
        part = Part("", store, "eicar.com", "application/octet-stream")
        reports: list[Report] = []
        try:
            await self._together([getattr(engine, "bare", engine)], part, seconds, reports)
        finally:
            store.close()
        if any(report.allowed or _infected(report) for report in reports):
            return None
        for report in reports:
            for item in report.unscanned:
                return f"{engine.name} could not scan the EICAR test file ({item.reason.value}): {item.detail}"
        return f"{engine.name} does not find the EICAR test file."


def eicar() -> bytes:
    """The EICAR test file (eicar.org). Put together here so that no file of ours holds it."""
    return b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-" + b"ANTIVIRUS-TEST-FILE!$H+H*"


def _asked(engines: Sequence[Engine], audience: Audience) -> tuple[Engine, ...]:
    def kind(engine: Engine) -> str:
        return getattr(engine, "audience", "")

    if audience is Audience.NOT_CLAMD:
        return tuple(engine for engine in engines if kind(engine) != "clamd")
    if audience is Audience.CLAMD and any(kind(engine) == "clamd" for engine in engines):
        return tuple(engine for engine in engines if kind(engine) in ("clamd", "every"))
    if audience is Audience.NOBODY:
        return tuple(engine for engine in engines if kind(engine) == "every")
    return tuple(engines)


def _prompt(asked: tuple[Engine, ...]) -> PromptEngine | None:
    """The last engine, where it is one that others are waited for in."""
    return cast(PromptEngine, asked[-1]) if asked and getattr(asked[-1], "begins", False) else None


def _scan_now(engine: Engine, part: Part, seconds: float) -> Report | None:
    scan_now = getattr(engine, "scan_now", None)
    if scan_now is None:
        return None
    try:
        report = scan_now(part, seconds)
    except Exception as error:
        return _failed(engine, part, error)
    return None if report is None else _checked(report, engine, part)


async def _scan(engine: Engine, part: Part, seconds: float) -> Report:
    try:
        report: object = await engine.scan(part, seconds)
    except Exception as error:
        return _failed(engine, part, error)
    return _checked(report, engine, part)


def _checked(report: object, engine: Engine, part: Part) -> Report:
    if isinstance(report, Report):
        return report
    return _unscanned(engine.name, part, Reason.ENGINE_FAILED, "The engine gave no report.")


def _failed(engine: Engine, part: Part, error: Exception) -> Report:
    said = str(error) if isinstance(error, IcapscanError) else f"{type(error).__name__}: {error}"
    return _unscanned(engine.name, part, Reason.ENGINE_FAILED, said)


def _infected(report: Report) -> bool:
    return any(finding.level is Level.INFECTED for finding in report.findings)


def _overruled(engines: Sequence[Engine]) -> bool:
    """Whether one of these may still say that the part is known to be good."""
    return any(getattr(engine, "overrules", False) for engine in engines)


def _result(task: asyncio.Task[Report], engine: Engine, part: Part) -> Report:
    if task.cancelled():
        return _unscanned(engine.name, part, Reason.ENGINE_FAILED, "CancelledError: the engine gave up by itself.")
    return task.result()


def _unscanned(name: str, part: Part, reason: Reason, detail: str) -> Report:
    return Report(name, unscanned=(Unscanned(reason, part.path, name, detail),))


def _final(reports: list[Report]) -> tuple[Report, ...]:
    for report in reports:
        if report.allowed:
            return (report,)
    return tuple(reports)


async def _stop(tasks: set[asyncio.Task[Report]]) -> None:
    """Cancel, and let them see it before the caller frees the store they read; one that ignores it is left behind."""
    if not tasks:
        return
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=GRACE)
