"""The clamd daemons that are configured: their connections, how busy they are, and which one a scan goes to."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from icapscan.engines.clamd_channel import Channel
from icapscan.engines.clamd_local import LocalFacts, local_facts, peer_pid
from icapscan.errors import ConfigError

SKIP_SECONDS = 1.0
"""A daemon that failed is passed over for so long, while another one works."""
PACE_SAMPLES = 50
"""Scans that must have ended while others waited before anything is concluded from how quickly they did."""
_PACE_SHARE = 0.05
"""Weight of the newest interval in the mean."""
_WAIT_SHARE = 0.5
"""Part of its time that a scan may have to wait for a place. The pace is a mean of what was, and a queue as long as the
deadline would take as long to be gone when the load is."""
_TURNAROUNDS = 1.5
"""Times the mean time of a scan that must be left to one that waited, for its answer not to come too late."""
BACKLOG_PAUSE = 0.02
"""A Unix socket whose backlog is full cannot be waited for (connect(2), EAGAIN): it is tried again after so long."""


class Address:
    """``unix:/path`` or ``tcp:host:port``, taken apart. Raises `ConfigError` for anything else."""

    __slots__ = ("host", "path", "port", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.path = self.host = ""
        self.port = 0
        kind, _, rest = text.partition(":")
        if kind == "unix" and rest.startswith("/"):
            self.path = rest
            return
        host, _, port = rest.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
            known = _is_ipv6(host)
        else:
            known = bool(host) and ":" not in host
        if kind != "tcp" or not known or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
            raise ConfigError(
                f"engines.clamd.address: {text!r} is no address of clamd; "
                "expected unix:/path, tcp:host:port or tcp:[IPv6]:port."
            )
        self.host, self.port = host, int(port)

    @property
    def local(self) -> bool:
        """A Unix socket: descriptors can be handed over."""
        return bool(self.path)


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).version == 6
    except ValueError:
        return False


class Backend:
    """One clamd: at most ``cap`` connections, of which `idle` wait for work."""

    __slots__ = (
        "_asked",
        "_pid",
        "address",
        "busy",
        "cap",
        "ended",
        "facts",
        "idle",
        "largest",
        "sessions",
        "skip_until",
    )

    def __init__(self, address: Address, cap: int, largest: int) -> None:
        self.address = address
        self.cap = cap
        self._asked = largest
        self._pid = -1
        self.largest = largest
        """The largest part in bytes that this clamd scans wholly: as configured here, or less where its own
        configuration says less (clamd answers OK to a larger file without reading it)."""
        self.facts: LocalFacts | None = None
        if address.local:
            self.learn(0)
        self.busy = 0
        self.idle: list[Channel] = []
        self.ended = False
        """Set at the end: connections that come back are closed."""
        self.skip_until = 0.0
        self.sessions = True
        """Off for a daemon that does not know IDSESSION: then each connection serves one command."""

    def pooled(self) -> Channel | None:
        """A connection that waited, the one used last first; those that clamd closed meanwhile are dropped."""
        while self.idle:
            channel = self.idle.pop()
            if not channel.closed:
                channel.reused = True
                return channel
        return None

    def keep(self, channel: Channel) -> None:
        """Put a connection back; a closed one is dropped."""
        if self.ended:
            channel.close()
        elif not channel.closed:
            self.idle.append(channel)

    def drop_idle(self) -> None:
        """Close the connections that wait: they go to a daemon that is gone, or we end."""
        idle, self.idle = self.idle, []
        for channel in idle:
            channel.close()

    def learn(self, pid: int) -> None:
        """Read the configuration of the clamd behind the socket, again when it is another process than before."""
        if pid == self._pid:
            return
        self._pid = pid
        self.facts = local_facts(self.address.path, pid)
        self.largest = self._asked if self.facts is None else min(self._asked, self.facts.largest)

    async def connect(self, deadline: float) -> Channel:
        """A fresh connection. Raises `OSError` (`TimeoutError` after ``deadline``, a time of the event loop)."""
        loop = asyncio.get_running_loop()
        if self.address.local:
            sock = await _connect_unix(loop, self.address.path, deadline)
            self.learn(peer_pid(sock))
            return Channel(loop, sock, self.sessions)
        async with asyncio.timeout_at(deadline):
            infos = await loop.getaddrinfo(self.address.host, self.address.port, type=socket.SOCK_STREAM)
            failure = OSError(errno.EHOSTUNREACH, "the name has no address")
            for family, kind, protocol, _, where in infos:
                sock = socket.socket(family, kind, protocol)
                sock.setblocking(False)
                try:
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    await loop.sock_connect(sock, where)
                except OSError as error:
                    sock.close()
                    failure = error
                except BaseException:
                    sock.close()
                    raise
                else:
                    return Channel(loop, sock, self.sessions)
            raise failure


async def _connect_unix(loop: asyncio.AbstractEventLoop, path: str, deadline: float) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        while True:
            try:
                sock.connect(path)
                return sock
            except BlockingIOError:
                if loop.time() >= deadline:
                    raise TimeoutError(errno.ETIMEDOUT, "clamd accepts no connection") from None
                await asyncio.sleep(BACKLOG_PAUSE)
    except BaseException:
        sock.close()
        raise


class Turn:
    """Stands where else a future waits for a place: calls back at once."""

    __slots__ = ("_then", "timer")

    def __init__(self, then: Callable[[Backend | None], None]) -> None:
        self._then: Callable[[Backend | None], None] | None = then
        self.timer: asyncio.TimerHandle | None = None

    def done(self) -> bool:
        return self._then is None

    def set_result(self, backend: Backend | None) -> None:
        then = self._then
        self.cancel()
        if then is not None:
            then(backend)

    def cancel(self) -> None:
        """Nobody waits any more."""
        self._then = None
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class _Waiting(NamedTuple):
    """Who waits for a place."""

    turn: asyncio.Future[Backend | None] | Turn
    size: int
    since: float
    deadline: float
    """Both on the clock of the event loop."""


class Backends:
    """All of them, and the queue of scans for which every connection is busy."""

    def __init__(self, backends: tuple[Backend, ...]) -> None:
        self.all = backends
        self._queue: deque[_Waiting] = deque()
        self._turnaround = 0.0
        """Mean seconds of a scan that was answered, from its place on."""
        self._pace = 0.0
        """Seconds from one place that became free to the next, while there is a queue."""
        self._samples = 0
        self._freed = 0.0
        """When the last one did; 0 where nobody waited since."""

    def take_now(self, size: int, tried: Sequence[Backend]) -> Backend | None:
        """A place at the least busy daemon that takes ``size`` bytes and is not in ``tried``; None if there is none.

        Every place taken is given back by `release`.
        """
        if self._queue:
            return None
        backend = self._pick(size, tried)
        if backend is not None:
            backend.busy += 1
        return backend

    @property
    def local(self) -> bool:
        """Whether descriptors can be handed to every daemon."""
        return all(backend.address.local for backend in self.all)

    def hopeless(self, deadline: float) -> bool:
        """Whether so many wait already that no place will be free before ``deadline``, a time of the event loop.

        Then saying so at once serves everybody better than an answer that comes too late. A guess by the pace of the
        last scans; nothing is concluded where there was no queue for long enough to know it.
        """
        if self._samples < PACE_SAMPLES or not self._queue:
            return False
        wait = len(self._queue) * self._pace + self._turnaround
        return wait > _WAIT_SHARE * (deadline - asyncio.get_running_loop().time())

    async def take(self, size: int, deadline: float) -> Backend | None:
        """As `take_now`, but wait for a place, in the order of coming; None after ``deadline``, or when none fits."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[Backend | None] = loop.create_future()
        self._queue.append(_Waiting(turn, size, loop.time(), deadline))
        self._serve()
        timer = loop.call_at(deadline, _give_up, turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and (granted := turn.result()):
                self.release(granted)
            raise
        finally:
            timer.cancel()

    def take_turn(self, size: int, deadline: float, then: Callable[[Backend | None], None]) -> Turn:
        """As `take`, with ``then`` called in place of a wait, perhaps at once; `Turn.cancel` ends it."""
        loop = asyncio.get_running_loop()
        turn = Turn(then)
        turn.timer = loop.call_at(deadline, _give_up, turn)
        self._queue.append(_Waiting(turn, size, loop.time(), deadline))
        self._serve()
        return turn

    def release(self, backend: Backend, took: float | None = None) -> None:
        """Give a place back. ``took``: seconds of a scan that was answered; only such ones tell of the pace."""
        backend.busy -= 1
        if took is not None:
            self._turnaround += _PACE_SHARE * (took - self._turnaround)
        if not self._queue:
            self._freed = 0.0
            return
        if took is None:
            self._serve()
            return
        now = time.monotonic()
        if self._freed:
            self._samples += 1
            share = max(_PACE_SHARE, 1 / self._samples)
            self._pace += share * (now - self._freed - self._pace)
        self._freed = now
        self._serve()

    def failed(self, backend: Backend) -> None:
        """Pass this daemon over for a while, if there is another."""
        backend.drop_idle()
        backend.skip_until = time.monotonic() + SKIP_SECONDS

    def fits(self, size: int) -> bool:
        """Whether any daemon scans a part of ``size`` bytes wholly."""
        return any(size <= backend.largest for backend in self.all)

    def others(self, size: int, tried: list[Backend]) -> bool:
        """Whether any daemon that takes ``size`` bytes is not in ``tried`` yet."""
        return any(backend not in tried and size <= backend.largest for backend in self.all)

    def _serve(self) -> None:
        """Give free places to those who wait longest; not to one that has too little time left for an answer, for
        then the next one would have too little as well, and everybody would be scanned for nobody."""
        queue = self._queue
        while queue:
            turn, size, late = queue[0].turn, queue[0].size, self._too_late(queue[0])
            backend = None
            if not turn.done() and not late:
                backend = self._pick(size, ())
                if backend is not None:
                    backend.busy += 1
                elif self.fits(size):
                    return
            queue.popleft()  # first: who is called may give places back
            if not turn.done():
                turn.set_result(backend)

    def _too_late(self, one: _Waiting) -> bool:
        if self._samples < PACE_SAMPLES:
            return False
        least = min(_TURNAROUNDS * self._turnaround, (one.deadline - one.since) / 2)
        return one.deadline - asyncio.get_running_loop().time() < least

    def _pick(self, size: int, tried: Sequence[Backend]) -> Backend | None:
        if len(self.all) == 1:
            best = self.all[0]
            return best if best.busy < best.cap and size <= best.largest and not tried else None
        able = [backend for backend in self.all if size <= backend.largest and backend not in tried]
        now = time.monotonic()
        able = [backend for backend in able if backend.skip_until <= now] or able
        least = min(able, key=_busy, default=None)
        return least if least is not None and least.busy < least.cap else None


def _busy(backend: Backend) -> int:
    return backend.busy


def _give_up(turn: asyncio.Future[Backend | None] | Turn) -> None:
    if not turn.done():
        turn.set_result(None)
