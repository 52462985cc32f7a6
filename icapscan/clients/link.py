"""One connection to an ICAP server: bytes in and out, no meaning. TCP, or TLS from the first byte."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, cast

from icapscan.clients.address import ServiceAddress
from icapscan.clients.errors import ClientTimeout, ConnectFailed, Stage, TlsFailed
from icapscan.clients.settings import ClientSettings, TlsSettings
from icapscan.limits import KIB, MIB

if TYPE_CHECKING:
    import ssl

_PAUSE_ABOVE = 1 * MIB
"""Received and not yet taken: the kernel then slows the server down."""
_WRITE_HIGH = 256 * KIB
_SALVAGE_MOST = 1 * MIB


class Link(asyncio.Protocol):
    """A connection with a queue of received bytes; one task at a time uses it.

    While nobody uses it (`park`), anything that arrives makes it unusable (PROTOCOL C39, D129).
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._socket: socket.socket | None = None
        self._queue: list[bytes] = []
        self._queued = 0
        self._waiter: asyncio.Future[bool] | None = None
        self._spoilt: Callable[[], None] | None = None
        self._tls = False
        self.can_write = True
        self.eof = False
        self.lost = False
        self.error: Exception | None = None
        self.reused = False
        self.parked_at = 0.0

    # The task that uses it

    @property
    def has_data(self) -> bool:
        """Whether `take` would return something."""
        return self._queued > 0

    def take(self) -> list[bytes]:
        """What was received since the last call."""
        taken, self._queue = self._queue, []
        if self._queued > _PAUSE_ABOVE and self._transport is not None and not self.lost:
            self._transport.resume_reading()
        self._queued = 0
        return taken

    def write(self, pieces: Iterable[bytes | memoryview]) -> None:
        """Send ``pieces`` in one go. Look at `can_write` before sending more, and at `lost` afterwards."""
        if self._transport is not None and not self.lost:
            self._transport.writelines(pieces)

    async def wait(self, seconds: float) -> bool:
        """Until something arrived, may be written, or ended; False when ``seconds`` passed before."""
        if seconds <= 0:
            return False
        waiter: asyncio.Future[bool] = self._loop.create_future()
        self._waiter = waiter
        timer = self._loop.call_later(seconds, _settle, waiter, False)
        try:
            return await waiter
        finally:
            timer.cancel()
            self._waiter = None

    def nudge(self) -> None:
        """End the `wait` that is under way, if any: there is something else to do."""
        if self._waiter is not None:
            _settle(self._waiter, True)

    def park(self, spoilt: Callable[[], None]) -> None:
        """Nobody uses it from now on; ``spoilt`` is called when it ends or something arrives meanwhile."""
        self._spoilt = spoilt
        self.parked_at = self._loop.time()

    def unpark(self) -> bool:
        """Use it again; False when it is at its end or holds bytes that nobody asked for. Then abort it."""
        self._spoilt = None
        self.reused = True
        spoilt = self.lost or self.eof or self.has_data
        return not spoilt and not self._kernel_has_something()

    def abort(self) -> None:
        """Close at once, whatever is unsent. Idempotent."""
        self._spoilt = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._transport is not None:
            self._transport.abort()

    @property
    def transport(self) -> asyncio.Transport | None:
        """What it goes over; None before the connection is made."""
        return self._transport

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH)
        given = transport.get_extra_info("socket")
        if given is not None and self._socket is None:
            # A descriptor of our own: a failed write closes the transport's before what the server said was read.
            self._socket = socket.socket(fileno=os.dup(given.fileno()))

    def data_received(self, data: bytes) -> None:
        self._queue.append(data)
        self._queued += len(data)
        if self._queued > _PAUSE_ABOVE >= self._queued - len(data) and self._transport is not None:
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        self.eof = True  # and the transport closes: an answer that is not here by now will not come
        self._wake()

    def pause_writing(self) -> None:
        self.can_write = False

    def resume_writing(self) -> None:
        self.can_write = True
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._salvage()
        self.lost = self.eof = True
        self.error = exc
        self._wake()

    # Inside

    def became_tls(self, transport: asyncio.BaseTransport) -> None:
        """The handshake is done: bytes now go through ``transport``."""
        self._tls = True
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH)

    def _wake(self) -> None:
        if self._waiter is not None:
            _settle(self._waiter, True)
        elif self._spoilt is not None:
            spoilt, self._spoilt = self._spoilt, None
            spoilt()

    def _kernel_has_something(self) -> bool:
        """Whether bytes or an end of file wait that the event loop has not seen yet."""
        if self._socket is None:
            return True
        try:
            self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def _salvage(self) -> None:
        """Read what the server said before it reset the connection (PROTOCOL C21)."""
        if self._socket is None:
            return
        taken, self._socket = self._socket, None
        with taken:
            while not self._tls and not self.eof and self._queued < _SALVAGE_MOST:
                try:
                    data = taken.recv(64 * KIB, socket.MSG_DONTWAIT)
                except OSError:
                    return
                if not data:
                    return
                self._queue.append(data)
                self._queued += len(data)


def _settle(waiter: asyncio.Future[bool], result: bool) -> None:
    if not waiter.done():
        waiter.set_result(result)


async def open_link(address: ServiceAddress, settings: ClientSettings) -> Link:
    """Connect. Raises `ConnectFailed`, `TlsFailed` or `ClientTimeout`."""
    loop = asyncio.get_running_loop()
    link = Link()
    seconds = settings.timeouts.connect
    try:
        async with asyncio.timeout(seconds):
            transport, _ = await loop.create_connection(lambda: link, address.host, address.port)
    except TimeoutError as error:
        raise ClientTimeout(Stage.CONNECT, seconds) from error
    except OSError as error:
        raise ConnectFailed(f"There is no connection to {address.authority}: {error.strerror or error}.") from error
    if address.tls:
        try:
            await _start_tls(link, transport, address, settings)
        except BaseException:
            transport.abort()
            raise
    return link


async def _start_tls(
    link: Link, transport: asyncio.Transport, address: ServiceAddress, settings: ClientSettings
) -> None:
    seconds = settings.timeouts.tls
    name = settings.tls.server_name or address.host.partition("%")[0]
    loop = asyncio.get_running_loop()
    try:
        context = tls_context(settings.tls)
        async with asyncio.timeout(seconds):
            secured = await loop.start_tls(transport, link, context, server_hostname=name)
    except TimeoutError as error:
        raise ClientTimeout(Stage.TLS, seconds) from error
    except OSError as error:  # ssl.SSLError and a certificate that does not verify are OSErrors too
        raise TlsFailed(f"There is no TLS connection to {address.authority}: {error}.") from error
    if secured is None:
        raise TlsFailed(f"{address.authority} closed the connection during the TLS handshake.")
    link.became_tls(secured)


def tls_context(settings: TlsSettings) -> ssl.SSLContext:
    """What is trusted and shown. Raises ``OSError`` for a file that cannot be read."""
    import ssl

    context = ssl.create_default_context(cafile=settings.ca)
    if not settings.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if settings.certificate is not None:
        context.load_cert_chain(settings.certificate, settings.key)
    return context
