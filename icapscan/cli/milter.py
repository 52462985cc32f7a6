"""``icapscan milter``: the filter for Postfix and Sendmail."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence

import uvloop

from icapscan.adapters.milter_server import serve
from icapscan.adapters.milter_settings import MilterSettings


def run(settings: MilterSettings, level: str) -> int:
    """Until SIGTERM; returns the exit code. Raises `ConfigError` where it cannot listen."""
    logging.basicConfig(format="%(asctime)s icapscan[%(process)d] %(levelname)s: %(message)s", level=level.upper())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings))
    return 0


def overrides(listen: Sequence[str], icap: Sequence[str]) -> list[str]:
    """The options as ``--set`` would have them."""
    given = []
    for key, values in (("milter.listen", listen), ("milter.icap", icap)):
        if values:
            given.append(f"{key}=[{', '.join(map(json.dumps, values))}]")
    return given
