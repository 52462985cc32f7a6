"""Bodies through the whole way to a verdict, with the shipped YARA rules as the only engine."""

from __future__ import annotations

import asyncio
from functools import cache

from icapscan.engines.fanout import Fanout
from icapscan.engines.rules import CompiledRules, compile_rules
from icapscan.engines.settings import YaraSettings
from icapscan.engines.yara import YaraEngine
from icapscan.findings import Level, Verdict
from icapscan.limits import Limits
from icapscan.pipeline import Scanner, Subject
from icapscan.store import Purse

WHOLE = 1 << 30


@cache
def _rules() -> CompiledRules:
    return compile_rules()


def verdict(
    body: bytes,
    media_type: str = "",
    *,
    coding: bytes = b"",
    name: str = "",
    content_type: bytes = b"",
    step: int = WHOLE,
    limits: Limits | None = None,
) -> Verdict:
    """What is known of a body in the end; it arrives in pieces of ``step`` bytes."""

    async def main() -> Verdict:
        bounds = limits or Limits()
        fanout = Fanout([YaraEngine(YaraSettings(), _rules())], "all")
        scan = Scanner(fanout, bounds, Purse(bounds.memory, bounds.disk)).begin(
            Subject(coding, name, media_type, content_type)
        )
        try:
            for at in range(0, len(body), step):
                scan.feed(body[at : at + step])
            return await scan.finish()
        finally:
            scan.close()
            await fanout.close()

    return asyncio.run(main())


def infected(body: bytes, media_type: str = "", *, coding: bytes = b"", content_type: bytes = b"") -> None:
    """The payload is found, whole and byte by byte."""
    for step in (WHOLE, 1):
        said = verdict(body, media_type, coding=coding, content_type=content_type, step=step)
        assert said.level is Level.INFECTED, said


def reasons(said: Verdict) -> set[str]:
    """Why something was not scanned."""
    return {item.reason.value for item in said.unscanned}
