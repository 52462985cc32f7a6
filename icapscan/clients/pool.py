"""The connections to one server: reused where that is safe, never more than allowed, callers queue in order."""

from __future__ import annotations

import asyncio
from collections import deque

from icapscan.clients.address import ServiceAddress
from icapscan.clients.errors import ClientTimeout, ConnectionLost, Stage
from icapscan.clients.link import Link, open_link
from icapscan.clients.settings import ClientSettings


class ConnectionPool:
    """Links to one address. `acquire` one, then give it back by `release`: always, whatever happened."""

    def __init__(self, address: ServiceAddress, settings: ClientSettings) -> None:
        self._address = address
        self._settings = settings
        self._idle: list[Link] = []
        self._queue: deque[asyncio.Future[None]] = deque()
        self._closed = False
        self.most = settings.connections
        self.in_use = 0
        """Connections that are used or being opened."""

    @property
    def idle(self) -> int:
        """Connections that wait to be used again."""
        return len(self._idle)

    def limit(self, announced: int | None) -> None:
        """Heed the server's Max-Connections (PROTOCOL C42). None or 0: it announced nothing useful."""
        self.most = min(self._settings.connections, announced) if announced else self._settings.connections
        self._serve_queue()

    async def acquire(self, *, fresh: bool = False) -> Link:
        """A link for one transaction; ``fresh``: not one that was used before.

        Raises `ClientTimeout`, `ConnectFailed`, `TlsFailed`; then there is nothing to release.
        """
        await self._take_place()
        try:
            if not fresh and (link := self._reusable()) is not None:
                return link
            while self._idle and self.in_use + len(self._idle) > self.most:
                self._idle.pop(0).abort()
            return await open_link(self._address, self._settings)
        except BaseException:
            self._give_place()
            raise

    def release(self, link: Link, *, reusable: bool) -> None:
        """``reusable``: the transaction is over at both ends and the server wants to keep the connection."""
        if reusable and not self._closed and self._settings.keep_alive and not (link.lost or link.eof or link.has_data):
            self._idle.append(link)
            link.park(lambda: self._drop(link))
        else:
            link.abort()
        self._give_place()

    def close(self) -> None:
        """Close what is idle, refuse who waits. Running transactions end by themselves."""
        self._closed = True
        while self._idle:
            self._idle.pop().abort()
        while self._queue:
            waiter = self._queue.popleft()
            if not waiter.done():
                waiter.set_exception(ConnectionLost("The client was closed."))

    def _reusable(self) -> Link | None:
        """The link that was used last; those that waited too long or were spoilt are closed."""
        oldest = asyncio.get_running_loop().time() - self._settings.keep_idle
        while self._idle:
            link = self._idle.pop()
            if link.unpark() and link.parked_at > oldest:
                return link
            link.abort()
        return None

    def _drop(self, link: Link) -> None:
        if link in self._idle:
            self._idle.remove(link)
        link.abort()

    async def _take_place(self) -> None:
        if self._closed:
            raise ConnectionLost("The client was closed.")
        if self.in_use < self.most and not self._queue:
            self.in_use += 1
            return
        seconds = self._settings.timeouts.queue
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(waiter)
        try:
            async with asyncio.timeout(seconds):
                await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._give_place()  # the place came together with the end of our patience: it goes to the next
            elif waiter in self._queue:
                self._queue.remove(waiter)
            if isinstance(error, TimeoutError):
                raise ClientTimeout(Stage.QUEUE, seconds) from error
            raise

    def _give_place(self) -> None:
        self.in_use -= 1
        self._serve_queue()

    def _serve_queue(self) -> None:
        while self._queue and self.in_use < self.most:
            waiter = self._queue.popleft()
            if not waiter.done():
                self.in_use += 1
                waiter.set_result(None)
