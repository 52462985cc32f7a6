"""What ``icapscan serve`` and its workers run: the servers joined with configuration, log, counters and pages."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

import uvloop

from icapscan.config import load
from icapscan.errors import IcapscanError
from icapscan.servers.balance import Loads
from icapscan.servers.pages import page_maker
from icapscan.servers.record import TransactionRecord
from icapscan.servers.settings import Settings
from icapscan.servers.supervisor import Supervisor, worker_command
from icapscan.servers.worker import run_worker
from icapscan.telemetry import Counters, Gauges, TransactionLog, exposition, merge


def serve(file: str | None, sets: Sequence[str]) -> int:
    """Run the scanner until SIGTERM. Returns the exit code: 0, or 3 when the configuration cannot be used."""
    _log_to_stderr()
    supervisor = Supervisor(lambda: load(file, sets, os.environ), worker_command(), _exposition)
    try:
        _run(supervisor.run())
    except IcapscanError as error:
        print(f"icapscan: {error}", file=sys.stderr)
        return 3
    return 0


def worker(arguments: Sequence[str]) -> int:
    """Run one worker over inherited descriptors: control socket, number of workers, plain and TLS listeners."""
    _log_to_stderr()
    control, shared, slot, workers, plain, tls = arguments
    loads = Loads(int(shared), int(workers), int(slot))
    channel = socket.socket(fileno=int(control))
    _run(run_worker(channel, _sockets(plain), _sockets(tls), int(workers), loads, WorkerTelemetry, page_maker))
    return 0


class WorkerTelemetry:
    """Log and counters of one worker."""

    def __init__(self, settings: Settings) -> None:
        self._counters = Counters()
        self._log = TransactionLog(settings.log.file, settings.log.format) if settings.log.transactions else None

    def observe(self, record: TransactionRecord) -> None:
        """Count a transaction and queue its line."""
        self._counters.observe(record)
        if self._log is not None:
            self._log.write(record)

    @property
    def may_block(self) -> bool:
        """Whether `flush` may have to wait for a reader."""
        return self._log is not None and self._log.may_block

    def flush(self) -> None:
        """Write what is queued."""
        if self._log is not None:
            self._log.flush()

    def reopen(self) -> None:
        """After logrotate."""
        if self._log is not None:
            self._log.reopen()

    def snapshot(self) -> dict[str, Any]:
        """The counters, for the supervisor."""
        return self._counters.snapshot()


def _exposition(snapshots: Sequence[Mapping[str, Any]], gauges: Mapping[str, Any]) -> bytes:
    return exposition(merge([dict(one) for one in snapshots]), Gauges(**gauges))


def _sockets(descriptors: str) -> list[socket.socket]:
    return [socket.socket(fileno=int(one)) for one in descriptors.split(",") if one]


def _run(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


def _log_to_stderr() -> None:
    logging.basicConfig(format="%(asctime)s icapscan[%(process)d] %(levelname)s: %(message)s", level=logging.WARNING)
