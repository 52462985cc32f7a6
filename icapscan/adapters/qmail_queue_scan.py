"""One message to the ICAP services in turn, over blocking sockets: what `icapscan.clients` does, without an event loop.

Composing, codec, comparing and judging are the same code; only the waiting is another. A process that lives for one
message starts in half the time without asyncio.
"""

from __future__ import annotations

import binascii
import errno
import select
import socket
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from icapscan.clients.address import ServiceAddress, parse_url
from icapscan.clients.answer import Answer, FirstBytes
from icapscan.clients.errors import (
    BodyChanged,
    ClientError,
    ClientTimeout,
    ConnectFailed,
    ConnectionLost,
    InvalidArgument,
    Stage,
    TlsFailed,
)
from icapscan.clients.settings import ClientSettings
from icapscan.clients.source import PIECE, Source, pieces
from icapscan.errors import LocalProtocolError
from icapscan.limits import KIB
from icapscan.wire.encapsulated import BodyKind
from icapscan.wire.icap import IcapConnection
from icapscan.wire.icap_compose import Described, compose_request, reqmod_heads
from icapscan.wire.icap_events import (
    BodyChunk,
    BodyEnd,
    HttpHeads,
    RequestHead,
)
from icapscan.wire.icap_states import Role, State

if TYPE_CHECKING:
    from icapscan.adapters.judgement import Judgement

_BATCH = 4
_READ = 256 * KIB
_GONE = frozenset({errno.EPIPE, errno.ECONNRESET})
_METHOD = b"REQMOD"


class Message(Struct, frozen=True):
    """What is asked about one mail."""

    source: Source
    mail_from: str
    rcpt_to: tuple[str, ...]
    client_ip: str | None = None
    user: str | None = None


class Patience(Struct, frozen=True):
    """Seconds, and whom to trust."""

    total: float
    connect: float
    ca: str | None = None


class Asked(Struct, frozen=True):
    """What came of asking."""

    judgement: Judgement
    server: str = ""
    """URL of the service that judged; empty where none did."""
    timed_out: bool = False
    """The time for the whole scan was over."""


def ask(urls: Sequence[str], message: Message, patience: Patience) -> Asked:
    """Ask each service once, in this order, until one judges. No service that does: DEFER, never anything else.

    A service that hangs may use its share of the time that is left, so that the ones behind it are asked, too.
    Raises `InvalidArgument` for a URL or a value that cannot be sent.
    """
    end = time.monotonic() + patience.total
    last: Exception = ConnectFailed("There is no ICAP service to ask.")
    for number, url in enumerate(urls):
        left = end - time.monotonic()
        if left <= 0:
            break
        deadline = time.monotonic() + left / (len(urls) - number)
        try:
            return Asked(_ask_one(parse_url(url), message, patience, deadline), url)
        except (InvalidArgument, BodyChanged):
            raise
        except ClientError as error:
            last = error
    from icapscan.adapters.judgement import judgement_of_error

    return Asked(judgement_of_error(last), timed_out=time.monotonic() >= end)


def _ask_one(address: ServiceAddress, message: Message, patience: Patience, deadline: float) -> Judgement:
    head, heads = _request(address, message)
    answer = Answer(message.source, ClientSettings(), keep=True)
    try:
        with _connect(address, patience, deadline) as link:
            exchange = _Exchange(link, head, heads, message.source, answer, deadline)
            exchange.start()
            from icapscan.adapters.qmail_queue_verdict import judged  # loads while the server is at work

            exchange.run()
        return judged(answer, address.uri, heads)
    finally:
        answer.close()  # what the judgement keeps was taken out


def _request(address: ServiceAddress, message: Message) -> tuple[RequestHead, HttpHeads]:
    """The heads of one REQMOD request without a preview: a server judges when it has seen everything."""
    size = message.source.size
    extra = [(b"User-Agent", b"icapscan"), (b"X-Transformed-From", b"SMTP")]
    if message.client_ip is not None:
        extra.append((b"X-Client-IP", message.client_ip.encode()))
    if message.user is not None:
        user = b"Local://" + message.user.encode("utf-8", "surrogateescape")
        extra.append((b"X-Authenticated-User", binascii.b2a_base64(user, newline=False)))
    what = Described("", "message/rfc822", size, mail_from=message.mail_from, rcpt_to=message.rcpt_to)
    try:
        heads = reqmod_heads(what)
        kind = BodyKind.REQUEST if size else BodyKind.NULL
        uri, authority = address.uri.encode(), address.authority.encode()
        head = compose_request(
            _METHOD, uri, authority, heads, body=kind, allow=[b"204"], extra=extra, close=True
        )  # fmt: skip
    except LocalProtocolError as error:
        raise InvalidArgument(str(error)) from error
    return head, heads


def _connect(address: ServiceAddress, patience: Patience, deadline: float) -> socket.socket:
    """A connected socket that does not block. Raises `ConnectFailed`, `TlsFailed` or `ClientTimeout`."""
    seconds = min(patience.connect, max(deadline - time.monotonic(), 0.001))
    try:
        link = socket.create_connection((address.host, address.port), seconds)
    except TimeoutError as error:
        raise ClientTimeout(Stage.CONNECT, seconds) from error
    except OSError as error:
        raise ConnectFailed(f"There is no connection to {address.authority}: {error.strerror or error}.") from error
    if address.tls:
        link = _tls(link, address, patience, seconds)
    else:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    link.setblocking(False)
    return link


def _tls(link: socket.socket, address: ServiceAddress, patience: Patience, seconds: float) -> socket.socket:
    import ssl

    try:
        context = ssl.create_default_context(cafile=patience.ca)
        return context.wrap_socket(link, server_hostname=address.host.partition("%")[0])
    except TimeoutError as error:
        link.close()
        raise ClientTimeout(Stage.TLS, seconds) from error
    except OSError as error:  # ssl.SSLError and a certificate that does not verify are OSErrors too
        link.close()
        raise TlsFailed(f"There is no TLS connection to {address.authority}: {error}.") from error


class _Exchange:
    """Sends one request and gathers its answer, both at the same time (RFC 3507 4.5, e7; PROTOCOL C19-C21)."""

    def __init__(
        self, link: socket.socket, head: RequestHead, heads: HttpHeads, source: Source, answer: Answer, deadline: float
    ) -> None:
        self._link = link
        self._head = head
        self._heads = heads
        self._source = source
        self._answer = answer
        self._deadline = deadline
        self._codec = IcapConnection(Role.CLIENT)
        self._out = memoryview(b"")
        self._queued = 0
        """Bytes of the body that were given to the codec."""
        self._may_send = True
        self._first = FirstBytes()
        self._seconds = max(deadline - time.monotonic(), 0.0)

    def start(self) -> None:
        """The heads and the beginning of the body. Raises as `run`."""
        self._refill(list(self._codec.send(self._head, self._heads)))
        self._send()

    def run(self) -> None:
        """Until the answer is complete. Raises `ClientError`, or what keeping the answer raises."""
        while not self._is_over():
            received, sent = self._receive(), self._send()
            if not received and not sent:
                self._wait()

    def _is_over(self) -> bool:
        return self._codec.response_state is State.DONE

    def _refill(self, out: list[bytes | memoryview]) -> None:
        """The next batch into the buffer of what is to be sent."""
        source = self._source
        stop = min(source.size, self._queued + _BATCH * PIECE)
        for piece in pieces(source, self._queued, stop):
            out += self._codec.send(BodyChunk(piece))
        self._queued = stop
        if stop == source.size and source.size:
            out += self._codec.send(BodyEnd())
        self._out = memoryview(b"".join(out))

    def _send(self) -> bool:
        """As much as the socket takes; whether it took something."""
        if not self._may_send or not self._out:
            return False
        try:
            count = self._link.send(self._out)
        except OSError as error:
            if _would_block(error):
                return False
            if error.errno not in _GONE:
                raise ConnectionLost(f"The connection to the ICAP server failed: {error}.") from error
            self._may_send = False  # what the server said before it closed is still read (PROTOCOL C21)
            return True
        self._out = self._out[count:]
        if not self._out:
            self._answer.sent = self._queued
            self._answer.whole = self._queued == self._source.size
            if self._codec.request_state is State.BODY:
                self._refill([])
        return True

    def _receive(self) -> bool:
        """What the socket has; whether it had something."""
        try:
            data = self._link.recv(_READ)
        except OSError as error:
            if _would_block(error):
                return False
            raise self._lost() from error
        self._first.take(data)
        for event in self._codec.receive(data) if data else self._codec.receive_eof():
            self._answer.take(event)
        if not data and not self._is_over():
            raise self._lost()
        return True

    def _wait(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise ClientTimeout(Stage.ANSWER if not self._out else Stage.IDLE, round(self._seconds, 1))
        poll = select.poll()
        poll.register(self._link, select.POLLIN | (select.POLLOUT if self._out and self._may_send else 0))
        poll.poll(left * 1000 + 1)

    def _lost(self) -> ConnectionLost:
        what = "in the middle of its answer" if self._answer.head is not None else "before it answered"
        return ConnectionLost(f"The ICAP server closed the connection {what}.")


def _would_block(error: OSError) -> bool:
    """Of a socket, and of TLS, which may want to write before it can read and the other way round."""
    return isinstance(error, BlockingIOError) or type(error).__name__ in ("SSLWantReadError", "SSLWantWriteError")
