"""``icapscan smtp``: the before-queue SMTP proxy in the foreground, until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import Sequence

import uvloop

from icapscan.adapters.settings import SmtpSettings
from icapscan.adapters.smtp_server import SmtpProxy
from icapscan.telemetry.log import TransactionLog

_FLUSH_SECONDS = 0.1


def run(settings: SmtpSettings) -> int:
    """Serve until a signal; returns the exit code. Raises `ConfigError` and `InvalidArgument`."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(settings))


def overrides(listen: Sequence[str], next_hop: str | None, icap: Sequence[str]) -> list[str]:
    """The options as ``--set`` would have them."""
    given = [f"smtp.{key}={json.dumps(list(values))}" for key, values in (("listen", listen), ("icap", icap)) if values]
    return given if next_hop is None else [*given, f"smtp.hop.inbound={json.dumps(next_hop)}"]


async def _serve(settings: SmtpSettings) -> int:
    log = TransactionLog()
    proxy = SmtpProxy(settings, log.line)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    await proxy.start()
    log.line(
        f"icapscan smtp listens on {', '.join(proxy.addresses)}; next hop {settings.hop.inbound}; "
        f"scans with {', '.join(settings.icap)}"
    )
    try:
        while not stopped.is_set():
            log.flush()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FLUSH_SECONDS):
                    await stopped.wait()
        await proxy.stop()
    finally:
        log.close()
    return 0
