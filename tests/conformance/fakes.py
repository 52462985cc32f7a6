"""Scanners for tests of the server: each does one thing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from icapscan.engines.contract import Cancel, Part, Report
from icapscan.findings import Finding, Level, Reason, Unscanned
from tests.wire.samples import EICAR

THREAT = "Eicar-Test"


class Fake:
    """A scanner that finds nothing. ``name`` names it in reports."""

    name = "fake"

    async def scan(self, part: Part, seconds: float) -> Report:
        """One part."""
        return Report(self.name)

    async def version(self) -> str:
        """Always the same."""
        return "1"

    async def close(self) -> None:
        """Nothing to free."""


class FindsEicar(Fake):
    """Finds the EICAR string anywhere in a part, and in a prefix. ``threat`` is the name it gives."""

    def __init__(self, threat: str = THREAT, level: Level = Level.INFECTED) -> None:
        self.finding = Finding(self.name, threat, level=level)
        self.scanned: list[bytes] = []
        """The parts, in the order of their scans."""

    async def scan(self, part: Part, seconds: float) -> Report:
        """One part."""
        data = bytes(part.store.view())
        self.scanned.append(data)
        return Report(self.name, (self.finding,) if EICAR in data else ())

    def glance(self, data: bytes) -> tuple[Finding, ...]:
        """A prefix."""
        return (self.finding,) if EICAR in data else ()


class CallsBack(FindsEicar):
    """The same without a task of the caller's: `PromptEngine`."""

    begins = True

    def may_begin(self, part: Part) -> bool:
        """Always."""
        return True

    def begin(self, part: Part, seconds: float, then: Callable[[Report], None]) -> Cancel:
        """One part, in the next turn of the event loop."""
        data = bytes(part.store.view())
        self.scanned.append(data)
        report = Report(self.name, (self.finding,) if EICAR in data else ())
        return asyncio.get_running_loop().call_soon(then, report).cancel


class Fails(Fake):
    """Could look at nothing, for ``reason``."""

    def __init__(self, reason: Reason = Reason.ENGINE_FAILED) -> None:
        self.reason = reason

    async def scan(self, part: Part, seconds: float) -> Report:
        """One part."""
        return Report(self.name, unscanned=(Unscanned(self.reason, part.path, self.name, "It broke."),))


class Raises(Fake):
    """Breaks the contract."""

    async def scan(self, part: Part, seconds: float) -> Report:
        """One part."""
        raise RuntimeError("secret detail of the engine")


class Hangs(Fake):
    """Never answers."""

    async def scan(self, part: Part, seconds: float) -> Report:
        """One part."""
        await asyncio.Event().wait()
        raise AssertionError


class Waits(FindsEicar):
    """Answers when it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.released = asyncio.Event()
        self.waiting = 0
        """Scans that have begun."""

    async def scan(self, part: Part, seconds: float) -> Report:
        """One part."""
        self.waiting += 1
        await self.released.wait()
        return await super().scan(part, seconds)
