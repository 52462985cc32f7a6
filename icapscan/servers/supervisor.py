"""The supervisor: owns the sockets, compiles the rules, keeps the workers alive, and says whether all is well."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from icapscan import __version__
from icapscan.engines.build import build_engines
from icapscan.engines.clamd_control import available
from icapscan.engines.fanout import Fanout
from icapscan.engines.rules import CompiledRules, compile_rules
from icapscan.errors import ConfigError, IcapscanError, QuarantineFailed
from icapscan.servers import late, listen
from icapscan.servers.admin import admin_app, serve_admin
from icapscan.servers.balance import retire, shared_loads
from icapscan.servers.control import Configure, Drain, Reopen, SetTag
from icapscan.servers.istag import istag
from icapscan.servers.keeping import tidy
from icapscan.servers.late import Cut
from icapscan.servers.settings import Settings
from icapscan.servers.worker_process import WorkerProcess

_log = logging.getLogger("icapscan")
_RESTART_FIRST = 0.1
_RESTART_MOST = 10.0
_SHORT_LIFE = 5.0
_SELF_TEST_SECONDS = 4.0
"""So long an engine may take for the EICAR test file until it counts as hung."""
_KILL_AFTER = 5.0
_TIDY_SECONDS = 3600.0
"""Seconds beyond the drain time until a worker that does not end is killed."""
Exposition = Callable[[Sequence[dict[str, Any]], dict[str, Any]], bytes]
"""Counters of all workers, living and dead, and gauges, to the text of /metrics."""


class State:
    """What one successful load of the configuration came to."""

    def __init__(
        self, settings: Settings, rules: CompiledRules | None, clamd: tuple[str, ...], engines: Fanout
    ) -> None:
        self.settings = settings
        self.rules = rules
        self.clamd = clamd
        self.engines = engines
        self.versions: dict[str, str] = {}

    def describe(self) -> str:
        """The engines in a few words, for the start line."""
        words = {
            "yara": f"yara ({self.rules.count} rules)" if self.rules else "",
            "clamd": f"clamd ({', '.join(self.clamd)})",
        }
        return ", ".join(words.get(engine.name, engine.name) for engine in self.engines.engines)


def prepare(settings: Settings) -> State:
    """Compile and find what the configuration names. Raises `IcapscanError` with one sentence."""
    engines = settings.engines
    rules = compile_rules(engines.yara.rules) if engines.yara.enabled else None
    clamd = available(engines.clamd)
    return State(settings, rules, clamd, build_engines(engines, rules, clamd_addresses=clamd, connections=1))


class Supervisor:
    """Runs workers until SIGTERM or SIGINT; SIGHUP loads the configuration again."""

    def __init__(self, load: Callable[[], Settings], command: Sequence[str], exposition: Exposition) -> None:
        """``load`` reads the configuration; ``command`` starts a worker; ``exposition`` renders /metrics."""
        self._load = load
        self._command = command
        self._exposition = exposition
        self._folder = tempfile.TemporaryDirectory(prefix="icapscan-")
        self._downloads = tempfile.mkdtemp(prefix="downloads-", dir=self._folder.name)
        self._number = 0
        self._rules_file: str | None = None
        self._rules_numbers: set[int] = set()
        """Of the files that may be there."""
        self._engine_failures: dict[str, str] = {"engines": "The first self-test has not ended."}
        self._istag = ""
        self._workers: dict[int, WorkerProcess] = {}
        self._dead: list[dict[str, Any]] = []
        self._stopping = asyncio.Event()
        self._state: State
        self._plain: list[socket.socket] = []
        self._tls: list[socket.socket] = []
        self._loads = -1

    async def run(self) -> None:
        """Start everything and stay until told to stop. Raises `IcapscanError` before anything listens."""
        self._state = await asyncio.to_thread(prepare, self._load())
        settings = self._state.settings
        _log.setLevel(settings.log.level.upper())
        listen.tls_context(settings.server)
        self._plain = [listen.bind(address, "server.listen") for address in settings.server.listen]
        self._tls = [listen.bind(address, "server.tls_listen") for address in settings.server.tls_listen]
        admin = listen.bind(settings.admin.listen, "admin.listen") if settings.admin.enabled else None
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        reload_wanted = asyncio.Event()
        loop.add_signal_handler(signal.SIGHUP, reload_wanted.set)
        loop.add_signal_handler(signal.SIGUSR1, self._reopen_logs)
        await self._check_engines()
        self._write_rules()
        self._loads = shared_loads(self.worker_count)
        tasks = [asyncio.create_task(self._keep_worker(slot)) for slot in range(self.worker_count)]
        tasks.append(asyncio.create_task(self._poll()))
        tasks.append(asyncio.create_task(self._tidy()))
        tasks.append(asyncio.create_task(self._reload_when(reload_wanted)))
        if admin is not None:
            tasks.append(asyncio.create_task(serve_admin(admin_app(self.readiness, self.metrics), admin)))
        self._announce(admin)
        try:
            await self._wait(tasks)
        finally:
            await self._stop(tasks)

    async def _wait(self, tasks: list[asyncio.Task[None]]) -> None:
        """Until told to stop, or until one of our own tasks breaks, which must not go unnoticed."""
        stopping = asyncio.create_task(self._stopping.wait())
        done, _ = await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        for task in done - {stopping}:
            task.result()

    @property
    def worker_count(self) -> int:
        """As configured; 0 there means one for each processor we may use."""
        return self._state.settings.server.workers or len(os.sched_getaffinity(0))

    def readiness(self) -> dict[str, str]:
        """What is not ready, by name, each with a sentence; empty when traffic may come."""
        failed = dict(self._engine_failures)
        for slot in range(self.worker_count):
            worker = self._workers.get(slot)
            if worker is None or worker.ready_number == 0:
                failed[f"worker {slot}"] = "It is starting."
        return failed

    def metrics(self) -> bytes:
        """The text of /metrics."""
        workers = self._workers.values()
        gauges = {
            "connections": sum(worker.stats.connections for worker in workers if worker.stats),
            "workers": len(workers),
            "ready": not self.readiness(),
            "version": __version__,
            "istag": self._istag,
            "purse_memory_free": sum(worker.stats.memory_left for worker in workers if worker.stats),
            "purse_disk_free": sum(worker.stats.disk_left for worker in workers if worker.stats),
        }
        counters = [worker.stats.counters for worker in workers if worker.stats]
        return self._exposition([*self._dead, *counters], gauges)

    # Workers

    async def _keep_worker(self, slot: int) -> None:
        """Start a worker, and another one whenever it ends."""
        pause = _RESTART_FIRST
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            started = loop.time()
            worker = await WorkerProcess.start(
                self._command, self._plain, self._tls, self._loads, slot, self.worker_count
            )
            self._workers[slot] = worker
            worker.configure(self._configuration())
            code = await worker.run(partial(self._tell_others, worker))
            retire(self._loads, slot)
            del self._workers[slot]
            if worker.stats is not None:
                self._dead.append(worker.stats.counters)
            if self._stopping.is_set():
                return
            pause = _RESTART_FIRST if loop.time() - started > _SHORT_LIFE else min(pause * 2, _RESTART_MOST)
            _log.error("Worker %d (pid %d) ended with %s; another one starts.", slot, worker.pid, code)
            await asyncio.sleep(pause)

    def _configuration(self) -> Configure:
        state = self._state
        downloads = self._downloads
        return Configure(self._number, state.settings, self._rules_file, state.clamd, self._istag, downloads)

    def _tell_others(self, teller: WorkerProcess, cut: Cut) -> None:
        for worker in self._workers.values():
            if worker is not teller:
                worker.channel.send(cut)

    def _write_rules(self) -> None:
        """Put the compiled rules where the workers read them. Each number has its own file: one may still be read."""
        self._number += 1
        self._rules_file = None
        self._remove_old_rules()
        if self._state.rules is not None:
            path = self._rules_path(self._number)
            path.write_bytes(self._state.rules.to_bytes())
            self._rules_file = str(path)

    def _remove_old_rules(self) -> None:
        """Those that no worker will read any more: one that is busy or slow may be several reloads behind."""
        wanted = {number for worker in self._workers.values() for number in worker.asked}
        for number in self._rules_numbers - wanted:
            self._rules_path(number).unlink(missing_ok=True)
        self._rules_numbers = (self._rules_numbers & wanted) | {self._number}

    def _rules_path(self, number: int) -> Path:
        return Path(self._folder.name, f"rules-{number}.yac")

    def _reopen_logs(self) -> None:
        for worker in self._workers.values():
            worker.channel.send(Reopen())

    # Engines

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._state.settings.engines.clamd.poll)
            await self._check_engines()

    async def _tidy(self) -> None:
        """Mend what a crash left behind in the quarantine, and remove what is too old there and of the downloads."""
        while True:
            settings = self._state.settings.quarantine
            if settings.enabled:
                try:
                    await asyncio.to_thread(tidy, settings)
                except (QuarantineFailed, ConfigError) as error:
                    _log.error("The quarantine cannot be looked after: %s", error)
            await asyncio.to_thread(late.sweep, self._downloads, time.time() - _TIDY_SECONDS)
            await asyncio.sleep(_TIDY_SECONDS)

    async def _check_engines(self) -> None:
        """Ask versions and run the self-test; tell the workers when the ISTag changed."""
        state = self._state
        tested, versions = await asyncio.gather(state.engines.self_test(_SELF_TEST_SECONDS), state.engines.versions())
        failed = {name: why for name, why in tested.items() if why is not None}
        for name, version in versions.items():
            if version is not None:
                state.versions[name] = version  # an engine that is down keeps its last word: nothing new is known
        if state is not self._state:
            return  # a reload came between
        for name in failed.keys() - self._engine_failures.keys():
            _log.error("Engine %s is not ready: %s", name, failed[name])
        for name in self._engine_failures.keys() - failed.keys() - {"engines"}:
            _log.info("Engine %s is ready again.", name)
        self._engine_failures = failed
        tag = istag(state.versions, state.settings)
        if tag != self._istag:
            if self._istag:
                _log.info("The ISTag changes from %s to %s.", self._istag, tag)
            self._istag = tag
            for worker in self._workers.values():
                worker.channel.send(SetTag(tag))

    async def _reload_when(self, wanted: asyncio.Event) -> None:
        while True:
            await wanted.wait()
            wanted.clear()
            try:
                state = await asyncio.to_thread(prepare, self._load())
            except IcapscanError as error:
                _log.error("The reload is refused, all stays as it was: %s", error)
                continue
            await self._adopt(state)

    async def _adopt(self, state: State) -> None:
        before, self._state = self._state, state
        was, now = before.settings, state.settings
        fixed = replace(
            now.server, listen=was.server.listen, tls_listen=was.server.tls_listen, workers=was.server.workers
        )
        if fixed != now.server or was.admin != now.admin or was.log != now.log:
            _log.warning("Changed listeners, worker count, admin port or log take effect at the next start only.")
            state.settings = replace(now, server=fixed, admin=was.admin, log=was.log)
        await self._check_engines()
        self._write_rules()
        for worker in self._workers.values():
            worker.configure(self._configuration())
        await before.engines.close()
        _log.info("The configuration was loaded again. ISTag %s.", self._istag)

    # Start and end

    def _announce(self, admin: socket.socket | None) -> None:
        places = [listen.name_of(one) for one in self._plain] + [f"{listen.name_of(one)} (TLS)" for one in self._tls]
        engines = self._state.describe()
        not_ready = "".join(f" NOT READY: {name}: {why}" for name, why in self._engine_failures.items())
        _log.info(
            "icapscan %s listens on %s with %d worker(s); admin port %s; engines: %s; ISTag %s.%s",
            __version__,
            " and ".join(places),
            self.worker_count,
            listen.name_of(admin) if admin is not None else "off",
            engines,
            self._istag,
            not_ready,
        )

        for line in self._state.engines.advice():
            _log.warning("%s", line)

    async def _stop(self, tasks: list[asyncio.Task[None]]) -> None:
        self._stopping.set()
        for one in (*self._plain, *self._tls):
            one.close()
        for worker in self._workers.values():
            worker.channel.send(Drain())
        keepers = tasks[: self.worker_count]
        patience = self._state.settings.server.drain_timeout + _KILL_AFTER
        _, late = await asyncio.wait(keepers, timeout=patience)
        if late:
            _log.error("%d worker(s) did not end in time and are killed.", len(late))
            for worker in self._workers.values():
                worker.kill()
            await asyncio.wait(keepers, timeout=_KILL_AFTER)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._state.engines.close()
        self._folder.cleanup()
        os.close(self._loads)


def worker_command() -> list[str]:
    """How a worker is started: this same program, with no user site and the same interpreter."""
    return [sys.executable, "-m", "icapscan", "_worker"]
