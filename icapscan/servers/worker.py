"""One worker process: connections on shared sockets, engines of the present generation, orders from the supervisor."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from icapscan.engines.build import build_engines
from icapscan.engines.cache import BodyCache, ReportCache
from icapscan.engines.fanout import Fanout
from icapscan.engines.rules import load_rules
from icapscan.pipeline import Scanner
from icapscan.servers.balance import Loads
from icapscan.servers.control import (
    Channel,
    Configure,
    Drain,
    Ready,
    Reopen,
    SetTag,
    Stats,
    ToWorker,
    open_channel,
)
from icapscan.servers.generation import Generation, RenderPage
from icapscan.servers.icap import IcapProtocol
from icapscan.servers.late import Cut, LateAnswers
from icapscan.servers.listen import Acceptor, tls_context
from icapscan.servers.notifying import Notifiers
from icapscan.servers.record import TransactionRecord
from icapscan.servers.settings import PageSettings, Settings
from icapscan.servers.shared import Shared
from icapscan.store import Purse

_GC_THRESHOLDS = (20_000, 20, 20)
"""A transaction makes no reference cycles, so the usual 700 new objects between two looks only cost time."""
_FLUSH_SECONDS = 0.1
_STATS_SECONDS = 1.0
_log = logging.getLogger("icapscan")


class Telemetry(Protocol):
    """What a worker does with its records; `icapscan.daemon` brings it."""

    def observe(self, record: TransactionRecord) -> None: ...

    @property
    def may_block(self) -> bool: ...

    def flush(self) -> None: ...

    def reopen(self) -> None: ...

    def snapshot(self) -> dict[str, Any]: ...


class Worker:
    """Serves until it is told to drain or the supervisor is gone."""

    def __init__(
        self,
        channel: Channel[ToWorker],
        plain: Sequence[socket.socket],
        tls: Sequence[socket.socket],
        workers: int,
        loads: Loads,
        telemetry: Callable[[Settings], Telemetry],
        render_page: Callable[[PageSettings], RenderPage],
    ) -> None:
        self._channel = channel
        self._loads = loads
        self._plain = plain
        self._tls = tls
        self._workers = workers
        self._make_telemetry = telemetry
        self._make_render_page = render_page
        self._telemetry: Telemetry | None = None
        self._purse: Purse | None = None
        self._engines: Fanout | None = None
        self._late = LateAnswers()
        self._shared: Shared | None = None
        self._acceptors: list[Acceptor] = []
        self._notifiers = Notifiers(workers)
        self._background: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """The whole life of the worker."""
        ticker = asyncio.create_task(self._tick())
        try:
            while True:
                message = await self._channel.receive()
                if message is None or isinstance(message, Drain):
                    break
                try:
                    await self._obey(message)
                except Exception:
                    await self._drain()  # who is connected gets the answer first; then the supervisor starts another
                    raise
            await self._drain()
        finally:
            ticker.cancel()
            if self._telemetry is not None:
                self._telemetry.flush()

    async def _obey(self, message: ToWorker) -> None:
        if isinstance(message, Configure):
            await self._configure(message)
        elif isinstance(message, SetTag) and self._shared is not None:
            self._shared.generation.set_istag(message.istag)
            if self._engines is not None:
                self._engines.forget()
        elif isinstance(message, Cut):
            self._late.remember(message)
        elif isinstance(message, Reopen) and self._telemetry is not None:
            self._telemetry.reopen()

    async def _configure(self, message: Configure) -> None:
        settings = message.settings
        cache = ReportCache(settings.cache, self._workers) if settings.cache.enabled else None
        engines = await asyncio.to_thread(_load_engines, message, self._workers, cache)
        if self._purse is None:
            limits = settings.limits
            self._purse = Purse(limits.memory // self._workers, limits.disk // self._workers)
            self._late = LateAnswers(message.downloads, self._channel.send)
        failed = {name: why for name, why in (await engines.self_test()).items() if why is not None}
        self._engines = engines
        bodies = BodyCache(cache) if cache is not None else None
        scanner = Scanner(engines, settings.limits, self._purse, settings.server.spool, settings.unwrap, bodies)
        generation = Generation(
            settings, scanner, message.istag, self._make_render_page(settings.page), lambda: self._free(engines),
            self._late, self._notifiers.get(settings),
        )  # fmt: skip
        if self._shared is None:
            self._begin(generation)
        else:
            before, self._shared.generation = self._shared.generation, generation
            before.retire()
        self._channel.send(Ready(message.number, failed))

    def _begin(self, generation: Generation) -> None:
        settings = generation.settings
        _log.setLevel(settings.log.level.upper())
        self._telemetry = telemetry = self._make_telemetry(settings)
        limit = max(1, math.ceil(settings.server.max_connections / self._workers))
        shared = self._shared = Shared(generation, telemetry.observe, limit, _report_mistake)
        loads = self._loads
        shared.count_changed = loads.set
        loads.set(0)
        loop = asyncio.get_running_loop()
        context = tls_context(settings.server)
        for listening, tls in (*((one, None) for one in self._plain), *((one, context) for one in self._tls)):
            seconds = settings.server.head_timeout
            acceptor = Acceptor(loop, listening, lambda: IcapProtocol(shared, loop), tls, seconds)
            acceptor.share(loads, lambda: len(shared.connections))
            acceptor.start()
            self._acceptors.append(acceptor)
        gc.collect()
        gc.set_threshold(*_GC_THRESHOLDS)
        gc.freeze()  # what lives as long as the process is not looked at again by each collection

    def _free(self, engines: Fanout) -> None:
        task = asyncio.get_running_loop().create_task(engines.close())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _tick(self) -> None:
        rounds = 0
        while True:
            await asyncio.sleep(_FLUSH_SECONDS)
            rounds += 1
            if self._telemetry is None or self._shared is None or self._purse is None:
                continue
            if self._telemetry.may_block:
                await asyncio.to_thread(self._telemetry.flush)  # a pipe that nobody reads must not stop the scanning
            else:
                self._telemetry.flush()
            if rounds % round(_STATS_SECONDS / _FLUSH_SECONDS) == 0:
                self._late.tidy()
                purse = self._purse
                connections = len(self._shared.connections)
                self._channel.send(Stats(self._counters(), connections, purse.memory_left, purse.disk_left))

    async def _drain(self) -> None:
        """Stop accepting; idle connections end now, the others with their answer (PROTOCOL S19)."""
        for acceptor in self._acceptors:
            acceptor.stop()
        shared = self._shared
        if shared is None:
            return
        shared.draining = True
        for connection in tuple(shared.connections):
            connection.drain()
        loop = asyncio.get_running_loop()
        until = loop.time() + shared.generation.settings.server.drain_timeout
        while shared.connections and loop.time() < until:
            await asyncio.sleep(0.02)
        await asyncio.to_thread(self._notifiers.close)
        if self._telemetry is not None:
            self._channel.send(Stats(self._counters(), 0, 0, 0))

    def _counters(self) -> dict[str, Any]:
        """For the supervisor: what became of transactions, and of notices about them."""
        assert self._telemetry is not None
        return {**self._telemetry.snapshot(), "notices": self._notifiers.tally.rows()}


def _load_engines(message: Configure, workers: int, cache: ReportCache | None) -> Fanout:
    """Runs in a thread: loading large rules takes a while."""
    settings = message.settings.engines
    rules = load_rules(Path(message.rules_file).read_bytes()) if message.rules_file is not None else None
    connections = max(1, settings.clamd.connections // workers)
    return build_engines(settings, rules, clamd_addresses=message.clamd, connections=connections, cache=cache)


def _report_mistake(sentence: str, error: BaseException) -> None:
    _log.error("%s", sentence, exc_info=error)


async def run_worker(
    control: socket.socket,
    plain: Sequence[socket.socket],
    tls: Sequence[socket.socket],
    workers: int,
    loads: Loads,
    telemetry: Callable[[Settings], Telemetry],
    render_page: Callable[[PageSettings], RenderPage],
) -> None:
    """A worker over inherited sockets; returns when it has drained."""
    channel = await open_channel(control, ToWorker)
    try:
        await Worker(channel, plain, tls, workers, loads, telemetry, render_page).run()
    finally:
        channel.close()
