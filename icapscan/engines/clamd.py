"""The clamd engine: parts go to one of several daemons over pooled connections, every failure comes back as a reason.

FILDES hands over the store's descriptor through a Unix socket; over TCP the bytes go by INSTREAM.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

from icapscan.engines.clamd_backends import Address, Backend, Backends, Turn
from icapscan.engines.clamd_channel import TIMED_OUT, Channel
from icapscan.engines.clamd_control import read_version
from icapscan.engines.clamd_hedge import ANSWERED, ask_two
from icapscan.engines.contract import Cancel, Part, Report
from icapscan.engines.settings import ClamdSettings
from icapscan.errors import ConfigError, IcapscanError
from icapscan.findings import Finding, Reason, Unscanned
from icapscan.wire.clamd import Outcome, Reply

VERSION_SECONDS = 5.0
"""clamd answers VERSION and STATS from the threads that also scan: given longer than a poll, shorter than a scan."""

_TOO_MANY = "Too many parts wait for clamd."
_TOO_LATE = "No connection to clamd became free in time."
_REASONS = {
    Outcome.OVER_LIMIT: Reason.OVER_LIMIT,
    Outcome.ENCRYPTED: Reason.ENCRYPTED,
    Outcome.TIME_LIMIT: Reason.TIMEOUT,
    Outcome.FAILED: Reason.ENGINE_FAILED,
}


class ClamdEngine:
    """`icapscan.engines.contract.Engine` over clamd.

    ``connections`` bounds the connections of this process to each address (default: the setting). Raises
    `ConfigError` when an address is bad or there is none.
    """

    name = "clamd"
    audience = "clamd"
    begins = True
    punctual = True
    """`scan` keeps its deadline by itself, whatever the daemon does: no watchdog task is needed around it."""

    def __init__(self, settings: ClamdSettings, connections: int | None = None) -> None:
        if not settings.address:
            raise ConfigError("engines.clamd.address is empty; expected unix:/path or tcp:host:port.")
        cap = max(1, connections if connections is not None else settings.connections)
        self._settings = settings
        stream = min(settings.file_max, settings.stream_max)
        addresses = [Address(text) for text in settings.address]
        self._backends = Backends(
            tuple(Backend(item, cap, settings.file_max if item.local else stream) for item in addresses)
        )
        self._hedges = settings.hedge > 0 and len(addresses) > 1
        self._clean = Report(self.name)
        self._last: dict[Backend, str] = {}
        self._versions: dict[Backend, asyncio.Future[str]] = {}
        self._closed = False

    async def scan(self, part: Part, seconds: float) -> Report:
        """Ask one daemon; another when that one cannot be reached. The wait for a connection counts in ``seconds``."""
        if self._closed:
            return self._unscanned(part, Reason.ENGINE_FAILED, "The engine was closed.")
        return await self.go_on(part, asyncio.get_running_loop().time() + seconds, None)

    async def go_on(self, part: Part, deadline: float, backend: Backend | None) -> Report:
        """A scan whose time is running. ``backend``: a place there is taken already, and is given back."""
        size = part.store.size
        tried: list[Backend] = []
        while True:
            if backend is None:
                if not self._backends.fits(size):
                    return self._unscanned(part, Reason.OVER_LIMIT, f"{size} bytes are more than clamd scans.")
                backend = self._backends.take_now(size, tried)
                if backend is None and self._backends.hopeless(deadline):
                    return self._unscanned(part, Reason.TIMEOUT, _TOO_MANY)
                backend = backend or await self._backends.take(size, deadline)
            if backend is None:
                if not self._backends.fits(size):
                    continue  # learnt while waiting
                return self._unscanned(part, Reason.TIMEOUT, _TOO_LATE)
            loop, took = asyncio.get_running_loop(), None
            began = loop.time()
            try:
                replied, reply = await self._ask_backend(backend, part, deadline)
                answered = replied is backend and reply is not None and reply.outcome in ANSWERED
                took = loop.time() - began if answered else None
            except (OSError, IcapscanError) as error:  # the store could not give a descriptor
                replied, reply = backend, Reply(None, Outcome.FAILED, f"the part could not be handed over: {error}")
            finally:
                self._backends.release(backend, took)
            if reply is not None:
                return self._report(part, replied, reply)
            tried.append(backend)
            if not self._backends.others(size, tried):
                return self._unscanned(part, Reason.ENGINE_FAILED, f"clamd at {backend.address.text} is not reached.")
            backend = None

    def hopeless(self, seconds: float) -> bool:
        """Whether so many parts wait already that one more would not be scanned within ``seconds``."""
        return self._backends.hopeless(asyncio.get_running_loop().time() + seconds)

    def overdue(self) -> Unscanned:
        """What is said of a part where it is `hopeless`."""
        return Unscanned(Reason.TIMEOUT, "", self.name, _TOO_MANY)

    def may_begin(self, part: Part) -> bool:
        """Whether the daemons are on this machine and one of them takes the part."""
        ready = not self._closed and not self._hedges and self._backends.local
        return ready and self._backends.fits(part.store.size)

    def begin(self, part: Part, seconds: float, then: Callable[[Report], None]) -> Report | Cancel | None:
        """As `scan`, without a task where there is a connection. None: nothing was begun."""
        if not self.may_begin(part):
            return None
        backends, size = self._backends, part.store.size
        deadline = asyncio.get_running_loop().time() + seconds
        backend = backends.take_now(size, ())
        if backend is None and backends.hopeless(deadline):
            return self._unscanned(part, Reason.TIMEOUT, _TOO_MANY)
        begun = _Begun(self, part, deadline, then)
        if backend is not None:
            begun.ask(backend)
        else:
            begun.turn = backends.take_turn(size, deadline, begun.ask)
        return begun.cancel

    def hand_over(self, backend: Backend, part: Part, deadline: float, then: Callable[[Reply], None]) -> Channel | None:
        """Have the part scanned over a connection that waits for work; None where there is none."""
        channel = backend.pooled()
        if channel is None:
            return None
        limit = min(deadline, asyncio.get_running_loop().time() + self._settings.reply_timeout)
        try:
            asked = channel.ask_descriptor_and_call(part.store.fileno(), limit, then)
        except (OSError, IcapscanError):  # the store gives no descriptor: `scan` will say so
            asked = False
        if asked:
            return channel
        channel.end()
        backend.keep(channel)
        return None

    def give_back(self, backend: Backend, channel: Channel | None = None, took: float | None = None) -> None:
        """A place is free again; what was asked over ``channel`` is over, whatever became of it.

        ``took``: seconds of a scan that was answered.
        """
        if channel is not None:
            channel.end()
            backend.keep(channel)
        self._backends.release(backend, took)

    def concluded(self, part: Part, backend: Backend, channel: Channel, reply: Reply) -> Report | None:
        """What a reply over a connection that had waited says; None: nothing, and the part may be sent again."""
        if channel.silent or self._without_session(backend, channel, reply):
            return None
        if reply is TIMED_OUT:
            self._backends.failed(backend)
        return self._report(part, backend, reply)

    async def _ask_backend(self, backend: Backend, part: Part, deadline: float) -> tuple[Backend, Reply | None]:
        """A daemon's reply, and whose it is: where hedging is asked for, of the one that answers first."""
        if not self._hedges:
            return backend, await self._ask(backend, part, deadline)

        def ask(one: Backend) -> Coroutine[Any, Any, Reply | None]:
            return self._ask(one, part, deadline)

        return await ask_two(ask, self._backends, backend, part.store, self._settings.hedge)

    async def _ask(self, backend: Backend, part: Part, deadline: float) -> Reply | None:
        """One daemon's reply; None when no connection to it could be made and another may be asked."""
        settings, loop = self._settings, asyncio.get_running_loop()
        reused = backend.pooled()
        for _ in range(3):  # at most: a stale connection, a fresh one, a fresh one without IDSESSION
            channel = reused
            if channel is None:
                limit = min(deadline, loop.time() + settings.connect_timeout)
                try:
                    channel = await backend.connect(limit)
                except (OSError, UnicodeError) as error:  # UnicodeError: a host name that cannot be one
                    self._backends.failed(backend)
                    return TIMED_OUT if isinstance(error, TimeoutError) and limit == deadline else None
                if part.store.size > backend.largest:  # learnt on connecting
                    backend.keep(channel)
                    return Reply(None, Outcome.OVER_LIMIT, f"more than {backend.largest} bytes")
            limit = min(deadline, loop.time() + settings.reply_timeout)
            try:
                if backend.address.local:
                    reply = await channel.ask_descriptor(part.store.fileno(), limit)
                else:
                    reply = await channel.ask_stream(part.store.pieces(), limit)
            finally:
                channel.end()
                backend.keep(channel)
            stale, reused = channel is reused and channel.silent, None
            if stale or self._without_session(backend, channel, reply):
                continue
            if channel.silent or reply is TIMED_OUT:
                self._backends.failed(backend)
            return reply
        return reply

    @staticmethod
    def _without_session(backend: Backend, channel: Channel, reply: Reply) -> bool:
        if channel.session and reply.id is None and "UNKNOWN COMMAND" in reply.text and backend.sessions:
            backend.sessions = False
            return True
        return False

    def _report(self, part: Part, backend: Backend, reply: Reply) -> Report:
        if reply.outcome is Outcome.CLEAN:
            return self._clean
        if reply.outcome is Outcome.FOUND:
            return Report(self.name, (Finding(self.name, reply.text, part.path),))
        detail = f"clamd at {backend.address.text}: {reply.text}"
        return self._unscanned(part, _REASONS[reply.outcome], detail)

    def _unscanned(self, part: Part, reason: Reason, detail: str) -> Report:
        return Report(self.name, unscanned=(Unscanned(reason, part.path, self.name, detail),))

    async def version(self) -> str:
        """The versions of all daemons, without repeats; raises `IcapscanError` when none answers.

        While one answers, the others keep their last word, so that the death of one changes nothing.
        """
        backends = self._backends.all
        found = await asyncio.gather(*(self._version_of(backend) for backend in backends), return_exceptions=True)
        now = {backend: text for backend, text in zip(backends, found, strict=True) if isinstance(text, str)}
        if now:
            self._last.update(now)
            return "; ".join(sorted(set(self._last.values())))
        for failure in found:
            if not isinstance(failure, IcapscanError) and isinstance(failure, BaseException):
                raise failure
        raise IcapscanError(str(found[0]))

    def advice(self) -> tuple[str, ...]:
        """Sentences for the start line: what a clamd on this machine is set to pass in silence."""
        lines = []
        for backend in self._backends.all:
            facts = backend.facts
            if facts is None:
                continue
            where = f"clamd at {backend.address.text} ({facts.file})"
            if backend.largest < self._settings.file_max:
                lines.append(f"{where} scans no file over {backend.largest} bytes: larger parts are unscanned.")
            if not facts.alerts_over_limit:
                lines.append(f'{where} passes content beyond its limits in silence; set "AlertExceedsMax yes".')
            if not facts.alerts_encrypted:
                lines.append(f'{where} passes encrypted content in silence; set "AlertEncrypted yes".')
        return tuple(lines)

    async def _version_of(self, backend: Backend) -> str:
        """Asked in a thread of its own, one at a time for each daemon, so that a hung one cannot hold anybody."""
        pending = self._versions.get(backend)
        if pending is None:
            pending = _in_thread(backend)
            self._versions[backend] = pending
            pending.add_done_callback(lambda _: self._versions.pop(backend, None))
        try:
            return await asyncio.wait_for(asyncio.shield(pending), VERSION_SECONDS)
        except TimeoutError:
            raise IcapscanError(f"clamd at {backend.address.text} does not answer in time.") from None

    async def close(self) -> None:
        """Close the pooled connections; scans that run finish or time out, and then close theirs."""
        self._closed = True
        for backend in self._backends.all:
            backend.ended = True
            backend.drop_idle()


class _Begun:
    """One scan that calls back. It holds a place at a daemon from `ask` to the reply, or leaves that to a task."""

    __slots__ = ("_backend", "_began", "_channel", "_deadline", "_engine", "_part", "_task", "_then", "turn")

    def __init__(self, engine: ClamdEngine, part: Part, deadline: float, then: Callable[[Report], None]) -> None:
        self._engine = engine
        self._part = part
        self._deadline = deadline
        self._then = then
        self._began = 0.0
        self._backend: Backend | None = None
        self._channel: Channel | None = None
        self._task: asyncio.Task[Report] | None = None
        self.turn: Turn | None = None
        """It waits for a place."""

    def ask(self, backend: Backend | None) -> None:
        """A place is free; None: there was none in time, or the part does not fit any more."""
        self.turn = None
        self._began = time.monotonic()
        if backend is not None:
            self._channel = self._engine.hand_over(backend, self._part, self._deadline, self._answered)
        if self._channel is None:
            self._go_on(backend)
        else:
            self._backend = backend

    def cancel(self) -> None:
        """Nobody waits for the report any more."""
        if self.turn is not None:
            self.turn.cancel()
        elif self._task is not None:
            self._task.cancel()
            if self._backend is not None:  # the task never ran, and will not
                self._engine.give_back(self._backend)
        elif self._channel is not None:
            self._give_back()

    def _answered(self, reply: Reply) -> None:
        """The daemon's reply, or what stands for one."""
        backend, channel = self._backend, self._channel
        assert backend is not None and channel is not None
        self._give_back(time.monotonic() - self._began if reply.outcome in ANSWERED else None)
        report = self._engine.concluded(self._part, backend, channel, reply)
        if report is not None:
            self._then(report)
        else:  # clamd had closed the connection before it was asked, most likely
            self._go_on(None)

    def _give_back(self, took: float | None = None) -> None:
        assert self._backend is not None and self._channel is not None
        backend, channel, self._backend, self._channel = self._backend, self._channel, None, None
        self._engine.give_back(backend, channel, took)

    def _go_on(self, backend: Backend | None) -> None:
        """As `scan` does it: with a fresh connection, or with what there is to say."""
        self._backend = backend
        self._task = asyncio.get_running_loop().create_task(self._in_task())
        self._task.add_done_callback(self._ended)

    async def _in_task(self) -> Report:
        backend, self._backend = self._backend, None
        return await self._engine.go_on(self._part, self._deadline, backend)

    def _ended(self, task: asyncio.Task[Report]) -> None:
        if not task.cancelled():
            self._then(task.result())


def _in_thread(backend: Backend) -> asyncio.Future[str]:
    loop = asyncio.get_running_loop()
    result: asyncio.Future[str] = loop.create_future()

    def settle(text: str, pid: int) -> None:
        if backend.address.local:
            backend.learn(pid)
        if not result.done():
            result.set_result(text)

    def fail(error: IcapscanError) -> None:
        if not result.done():
            result.set_exception(error)
            result.exception()  # seen: nobody may wait any more

    def ask() -> None:
        try:
            try:
                text, pid = read_version(backend.address, VERSION_SECONDS)
            except IcapscanError as error:
                loop.call_soon_threadsafe(fail, error)
            else:
                loop.call_soon_threadsafe(settle, text, pid)
        except RuntimeError:
            pass  # the loop ended meanwhile; nobody wants to know

    # A daemon thread, so that a socket call that hangs does not hold the end of the process.
    threading.Thread(target=ask, name="clamd-version", daemon=True).start()
    return result
