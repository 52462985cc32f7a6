"""One SMTP connection at work: a link and its codec, with patience. For both sides of the proxy."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

from icapscan.clients.link import Link
from icapscan.wire.smtp import SmtpConnection
from icapscan.wire.smtp_events import Event, PeerClosed

_LINGER_SECONDS = 10.0
"""For what is unsent when a connection is closed."""


class Stopped(Exception):
    """The program is to end, and this connection is at a place where that does no harm."""


class SmtpLink(Link):
    """A link that tells when it is gone, and that goes on writing after the peer's FIN."""

    def __init__(self, begin: Callable[[SmtpLink], None] | None = None) -> None:
        super().__init__()
        self._begin = begin
        self.gone = asyncio.Event()
        self.secured = False
        """TLS."""
        self._ending = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._begin is not None:
            self._begin(self)

    def data_received(self, data: bytes) -> None:
        if not self._ending:
            super().data_received(data)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        super().eof_received()
        return not (self.secured or self._ending)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.gone.set()
        if self._timer is not None:
            self._timer.cancel()

    def became_tls(self, transport: asyncio.BaseTransport) -> None:
        super().became_tls(transport)
        self.secured = True

    def finish(self) -> None:
        """Send what is unsent, then close; at once where that takes too long. Idempotent.

        What the peer still sends is read and dropped until it has read our end: closed with unread input, the
        connection would be reset, and the last reply be lost.
        """
        transport = self.transport
        if transport is None or self.lost or self._ending:
            return
        self._ending = True
        self.take()
        if self.eof or self.secured or not transport.can_write_eof():
            transport.close()
        else:
            transport.write_eof()
        self._timer = asyncio.get_running_loop().call_later(_LINGER_SECONDS, self.abort)


class SmtpWire:
    """A link with a codec."""

    def __init__(self, link: SmtpLink, codec: SmtpConnection) -> None:
        self.link = link
        self.codec = codec
        self.may_stop: Callable[[], bool] = lambda: False
        """Asked whenever there is nothing to read: true raises `Stopped`."""

    async def event(self, seconds: float) -> Event:
        """What comes next. Raises TimeoutError after ``seconds``, and `Stopped`."""
        link, codec = self.link, self.codec
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            event = codec.next_event()
            if event is not None:
                return event
            if link.has_data:
                for data in link.take():
                    codec.receive(data)
            elif link.eof or link.lost:
                codec.receive_eof()
                return codec.next_event() or PeerClosed(False)
            elif self.may_stop():
                raise Stopped
            elif not await link.wait(deadline - asyncio.get_running_loop().time()):
                raise TimeoutError

    def write(self, *pieces: bytes) -> None:
        """Send; `room` says when more may follow."""
        self.link.write([piece for piece in pieces if piece])

    async def room(self, seconds: float) -> None:
        """Until more may be written, or the connection is gone. Raises TimeoutError."""
        deadline = asyncio.get_running_loop().time() + seconds
        while not self.link.can_write and not self.link.lost:
            if not await self.link.wait(deadline - asyncio.get_running_loop().time()):
                raise TimeoutError

    async def start_tls(
        self, context: ssl.SSLContext, seconds: float, *, server: bool, name: str | None = None
    ) -> None:  # fmt: skip
        """The handshake; what was read in clear is forgotten. Raises OSError and TimeoutError."""
        link = self.link
        link.take()
        if link.transport is None or link.lost:
            raise ConnectionResetError("The connection is gone.")
        async with asyncio.timeout(seconds):
            secured = await asyncio.get_running_loop().start_tls(
                link.transport, link, context, server_side=server, server_hostname=name
            )
        if secured is None:
            raise ConnectionResetError("The peer closed the connection during the TLS handshake.")
        link.became_tls(secured)
        self.codec.tls_started()
