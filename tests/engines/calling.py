"""Engines asked by `PromptEngine.begin`, so that the tests of `scan` hold for it as well."""

from __future__ import annotations

import asyncio

from icapscan.engines.cache import CachedEngine
from icapscan.engines.clamd import ClamdEngine
from icapscan.engines.contract import Part, PromptEngine, Report


async def begun(engine: PromptEngine, part: Part, seconds: float) -> Report | None:
    """`begin`, and the wait for its call; None where it begins nothing. A cancelled wait ends the scan."""
    told: asyncio.Future[Report] = asyncio.get_running_loop().create_future()
    returned = False

    def then(report: Report) -> None:
        assert returned, "called back before it returned"
        told.set_result(report)  # raises when it is called twice

    answer = engine.begin(part, seconds, then) if engine.may_begin(part) else None
    returned = True
    if answer is None or isinstance(answer, Report):
        return answer
    try:
        return await told
    except asyncio.CancelledError:
        answer()
        raise


class CallingClamd(ClamdEngine):
    """Calls back wherever it can."""

    async def scan(self, part: Part, seconds: float) -> Report:
        return await begun(self, part, seconds) or await super().scan(part, seconds)


class CallingCache(CachedEngine):
    """Calls back wherever it can."""

    begins = True

    async def scan(self, part: Part, seconds: float) -> Report:
        return await begun(self, part, seconds) or await super().scan(part, seconds)
