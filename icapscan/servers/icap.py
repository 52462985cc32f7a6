"""The asyncio shell of one ICAP connection: socket bytes to the codec, its events to an exchange, replies back.

All waiting happens here: for bytes, for a scan, for a slow reader, and for the end of a connection that is closed
softly. The rules about bytes are in `icapscan.wire`, those about content in `exchange`, how long to wait in `patience`.
"""

from __future__ import annotations

import asyncio
import enum
import itertools
import socket
import struct
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, cast

from icapscan.servers import replies
from icapscan.servers.exchange import Concluded, Exchange, FixedExchange, Later, Outcome
from icapscan.servers.outbox import Outbox
from icapscan.servers.pacing import Pacer
from icapscan.servers.patience import Overdue, deadline
from icapscan.servers.replies import Reply
from icapscan.servers.scan_exchange import open_exchange
from icapscan.servers.shared import Shared
from icapscan.servers.transaction import Transaction
from icapscan.store import PartStore
from icapscan.wire.icap import PLAIN_END, Bytes, IcapConnection
from icapscan.wire.icap_events import (
    BodyChunk,
    BodyEnd,
    Continue,
    Event,
    Failure,
    HttpHeads,
    PeerClosed,
    PreviewEnd,
    RequestHead,
    Whole,
)
from icapscan.wire.icap_states import Role, State

BACKLOG_HIGH = 256 * 1024
"""Read-ahead of a pipelining client above which its socket is not read."""
REQUESTS_AT_A_TIME = 32
"""Requests that a client sent ahead and that are answered before other clients get their turn."""
SMALL_SEGMENT = 16 * 1024
"""Bytes in one read below which the sender may be waiting for our acknowledgement."""
SURPLUS_MOST = 256
"""Connections over the limit that are told so at a time; more are just closed."""
SOFT_CLOSE_SECONDS = 5.0
"""Wait for the FIN of a client whose request was wholly read and answered."""
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: close with a reset, and send nothing more of what is queued."""
_CONTINUE = Continue()
_OPTIONS = Reply(200, "options")
_OF_A_BODY = (BodyChunk, BodyEnd, PreviewEnd)


def _gathered(events: list[Event]) -> Iterator[Event]:
    """The same with neighbouring chunks of a body as one.

    One copy costs less than what each of them costs further on: a write to the store and a step of every decoder.
    """
    for of_body, run in itertools.groupby(events, _is_chunk):
        if not of_body:
            yield from run
            continue
        pieces = [cast(BodyChunk, event).data for event in run]
        yield BodyChunk(pieces[0] if len(pieces) == 1 else b"".join(pieces))


def _is_chunk(event: Event) -> bool:
    return type(event) is BodyChunk


class _Phase(enum.Enum):
    SERVING = "serving"
    LINGERING = "lingering"
    CLOSED = "closed"


_SERVING, _LINGERING, _CLOSED = _Phase
_DONE, _WAITING = State.DONE, State.WAITING


class IcapProtocol(asyncio.Protocol):
    """One client connection, from accept to the last FIN."""

    def __init__(self, shared: Shared, loop: asyncio.AbstractEventLoop) -> None:
        self._shared = shared
        self._loop = loop
        self._settings = settings = shared.generation.settings.server
        self._codec = IcapConnection(Role.SERVER, tolerate_bare_lf=settings.tolerate_bare_lf)
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._outbox: Outbox = cast(Outbox, None)
        self._socket: socket.socket | None = None
        self._client = ""
        self._phase = _SERVING
        self._requests = 0
        self._now: Transaction | None = None
        self._exchange: Exchange | None = None
        self._pacer: Pacer | None = None
        self._task: asyncio.Task[None] | Later | None = None
        """A scan or a long copy; while there is one, no further request is read."""
        self._may_resume = False
        """The codec holds bytes that it may read now."""
        self._last_byte = loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._linger_left = settings.linger_bytes
        self._last = False
        """The answer in progress is the last one on this connection."""
        self._peer_done = False
        self._reading = True

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._outbox = Outbox(self._loop, self._shared.turn, self._transport)
        self._socket = transport.get_extra_info("socket")
        peer = transport.get_extra_info("peername")
        self._client = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "local"
        shared = self._shared
        if shared.draining or len(shared.connections) >= shared.limit:
            if len(shared.surplus) >= SURPLUS_MOST:
                self._close_now(abort=True)
                return
            shared.surplus.add(self)
            self._answer_error(replies.error(503, "There are too many connections."))
            return
        shared.connections.add(self)
        shared.count_changed(len(shared.connections))
        self._watch()

    def data_received(self, data: bytes) -> None:
        if self._phase is not _SERVING:
            self._linger_left -= len(data)
            if self._linger_left < 0:
                self._transport.abort()
            return
        self._last_byte = self._loop.time()
        now = self._now
        if now is None:
            now = self._now = Transaction(self._shared.generation, self._last_byte, len(data))
            whole = self._codec.receive_whole(data)
            if whole is not None:
                self._serve_whole(whole, now)
                return
        else:
            now.bytes_in += len(data)
        self._pump(self._codec.receive(data))
        if self._now is not None and self._task is None and len(data) < SMALL_SEGMENT:
            self._acknowledge()
        if self._codec.backlog > BACKLOG_HIGH:
            self._pause_reading()

    def _pause_reading(self) -> None:
        if self._reading and self._phase is _SERVING:
            self._reading = False
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if not self._reading and not self._outbox.blocked and self._codec.backlog <= BACKLOG_HIGH:
            self._reading = True
            self._transport.resume_reading()

    def _acknowledge(self) -> None:
        """Send the TCP acknowledgement now.

        More of the request is to come, and a client with Nagle's algorithm on (c-icap-client, many in Java and PHP)
        holds it back until then: 40 ms for each request otherwise.
        """
        if self._phase is _SERVING and self._socket is not None:
            try:
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            except OSError:  # the connection just broke, which `connection_lost` will tell
                self._socket = None

    def eof_received(self) -> bool:
        if self._phase is not _SERVING:
            return False
        if self._now is None and self._codec.backlog:
            self._now = Transaction(self._shared.generation, self._loop.time(), self._codec.backlog)
        self._pump(self._codec.receive_eof())
        return self._phase is _SERVING

    def connection_lost(self, exc: BaseException | None) -> None:
        self._phase = _CLOSED
        shared = self._shared
        if self in shared.connections:
            shared.connections.discard(self)
            shared.count_changed(len(shared.connections))
        self._shared.surplus.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is not None:
            self._task.cancel()
            self._task = None
        if self._now is not None:
            self._end_transaction(None, "The client went away.")

    def pause_writing(self) -> None:
        self._outbox.block()
        self._pause_reading()  # else answers would pile up for as long as requests come
        self._watch()

    def resume_writing(self) -> None:
        self._outbox.unblock()
        if self._phase is _SERVING:
            self._resume_reading()
            if self._task is None:
                self._pump([])

    def drain(self) -> None:
        """The worker stops: close now if nothing is in progress, else after the answer."""
        if self._phase is _SERVING and self._now is None:
            self._close_now()

    # Events

    def _pump(self, events: list[Event]) -> None:
        """Act on events, then on what the client sent ahead, until there is something to wait for."""
        turns = 0
        try:
            while True:
                for event in _gathered(events) if len(events) > 1 else events:
                    if self._phase is not _SERVING:
                        return
                    self._on_event(event)
                if not self._may_resume or self._task is not None or self._outbox.blocked:
                    break
                turns += 1
                if turns > REQUESTS_AT_A_TIME:
                    self._loop.call_soon(self._pump, [])
                    break
                self._may_resume = False
                if self._phase is not _SERVING or not self._codec.backlog:
                    break
                events = self._resume()
        except Exception as error:
            self._mistake(error)
        now = self._now
        if now is not None and now.head is None and not self._codec.backlog and self._phase is _SERVING:
            now.generation.leave()  # only empty lines came: the connection is as idle as before
            self._now = None
        self._watch()

    def _mistake(self, error: Exception) -> None:
        """Of ours: no verdict was reached, and the client must not take silence or a 204 for one."""
        self._shared.on_error(f"A transaction of {self._client} failed.", error)
        self._answer_error(replies.error(500, "An internal error happened."))

    def _resume(self) -> list[Event]:
        """Read on in what the codec kept."""
        backlog = self._codec.backlog
        if self._now is None:
            self._now = Transaction(self._shared.generation, self._loop.time(), backlog)
        self._resume_reading()
        return self._codec.receive(b"")

    def _on_event(self, event: Event) -> None:
        kind = type(event)
        if kind in _OF_A_BODY and (self._exchange is None or self._task is not None):
            return  # the answer went out at an earlier chunk, or is going out, and the rest was read with it
        if kind is BodyChunk:
            assert self._exchange is not None
            reply = self._exchange.body(cast(BodyChunk, event).data)
            if reply is not None:
                self._reply(reply)
        elif kind is RequestHead:
            self._begin(cast(RequestHead, event))
        elif kind is HttpHeads:
            self._take_heads(cast(HttpHeads, event))
        elif kind is BodyEnd:
            end = cast(BodyEnd, event)
            head = self._now.head if self._now is not None else None
            self._end_request(end.trailers, end.ieof and head is not None and head.preview is not None)
        elif kind is PreviewEnd:
            self._end_preview()
        elif kind is Failure:
            error = cast(Failure, event).error
            self._answer_error(replies.error(error.status, str(error)))
        elif kind is PeerClosed:
            self._peer_done = self._last = True
            if self._now is None:
                self._close_now()

    def _serve_whole(self, whole: Whole, now: Transaction) -> None:
        """The same as the events of its parts, on the shortest way for what is usual."""
        head = whole.head
        generation = now.generation
        route = generation.routes.get(head.path)
        try:
            if route is None or head.method not in route.methods or not generation.scanner.purse.is_open():
                for event in whole.expand():
                    if self._phase is _SERVING:
                        self._on_event(event)
            else:
                now.head, now.heads, now.route = head, whole.heads, route
                now.client = self._client
                self._count_request()
                exchange = self._exchange = open_exchange(now)
                self._pace(exchange, now)
                now.received = now.began
                self._conclude(exchange.whole(whole.body, head.preview is not None))
        except Exception as error:
            self._mistake(error)
        if self._timer is None or self._outbox.blocked:
            self._watch()

    def _count_request(self) -> None:
        self._requests += 1
        if self._requests == self._settings.max_requests:
            self._last = True

    def _begin(self, head: RequestHead) -> None:
        now = self._now
        assert now is not None
        now.head = head
        self._count_request()
        generation = now.generation
        route = now.route = generation.routes.get(head.path)
        if route is None:
            self._refuse(head, 404, "There is no service at this path.")
        elif head.method in route.methods:
            if head.encapsulated.has_body and not generation.scanner.purse.is_open():
                self._answer_error(replies.error(503, "There is no room to keep another body."))
        elif head.method == b"OPTIONS":
            self._exchange = FixedExchange(_OPTIONS)
        else:
            self._refuse(head, 405, f"This service does not do {head.method.decode()}.")

    def _refuse(self, head: RequestHead, status: int, sentence: str) -> None:
        """At once where a body would follow, else when the heads are read, and the connection is kept (S105)."""
        if head.encapsulated.has_body and self._codec.request_state is not _DONE:
            self._answer_error(replies.error(status, sentence))
        else:
            self._exchange = FixedExchange(replies.error(status, sentence, close=False))

    def _take_heads(self, heads: HttpHeads) -> None:
        now = self._now
        assert now is not None and now.head is not None
        now.heads = heads
        now.client = self._client
        if self._exchange is None:
            self._exchange = open_exchange(now)
        if now.head.encapsulated.has_body:
            now.body_began = self._last_byte
            self._pace(self._exchange, now)
        else:
            self._end_request(b"", now.head.preview is not None)

    def _pace(self, exchange: Exchange, now: Transaction) -> None:
        if exchange.delivery is not None:
            self._pacer = Pacer(exchange.delivery, now, self._codec, self._outbox, self._ends_here)

    def _end_preview(self) -> None:
        assert self._exchange is not None
        reply = self._exchange.preview_end()
        if reply is None:
            self._write(self._codec.send(_CONTINUE))
            self._may_resume = True
        else:
            self._reply(reply)

    def _end_request(self, trailers: bytes, within_preview: bool) -> None:
        assert self._now is not None and self._exchange is not None
        self._now.received = time.perf_counter()
        self._conclude(self._exchange.end(trailers, within_preview))

    def _conclude(self, outcome: Outcome) -> None:
        kind = type(outcome)
        if kind is Reply:
            self._reply(cast(Reply, outcome))
        elif kind is Later:
            later = cast(Later, outcome)
            self._task = later
            later.tell(self._told)
        else:
            self._task = self._loop.create_task(self._reply_later(cast(Coroutine[Any, Any, Reply], outcome)))

    def _told(self, make: Callable[[], Concluded]) -> None:
        """A scan that needed no task has ended."""
        self._task = None
        try:
            outcome = make()
        except Exception as error:
            outcome = self._failed(error)
        if isinstance(outcome, Reply):
            self._reply_now(outcome)
        else:
            self._task = self._loop.create_task(self._reply_later(outcome))

    async def _reply_later(self, outcome: Coroutine[Any, Any, Reply]) -> None:
        try:
            reply = await outcome
        except Exception as error:
            reply = self._failed(error)
        self._task = None
        self._reply_now(reply)

    def _failed(self, error: Exception) -> Reply:
        self._shared.on_error(f"A scan for {self._client} failed.", error)
        return replies.error(500, "An internal error happened.")

    def _reply_now(self, reply: Reply) -> None:
        """The answer for which reading had stopped; then what the client sent ahead."""
        if self._phase is not _SERVING:
            return
        try:
            self._reply(reply)
        except Exception as error:
            self._shared.on_error(f"An answer to {self._client} failed.", error)
            self._answer_error(replies.error(500, "An internal error happened."))
        self._pump([])

    # Answers

    def _reply(self, reply: Reply) -> None:
        """Send a final answer; a large body goes out in a task of its own."""
        now = self._now
        assert now is not None
        if self._pacer is not None:
            self._pacer.stop()
        codec = self._codec
        if codec.response_state is not State.IDLE:
            self._go_on_with(reply)
            return
        close = self._closes(reply)
        body = reply.body
        if reply.label == "options":
            assert now.route is not None
            most = now.generation.settings.server.max_connections
            partial = now.generation.policy.sanitizes and not now.route.echo
            opening = now.stationery.options(now.route.name, now.route.settings, most, close=close, partial=partial)
        else:
            opening = now.stationery.head(reply.status, reply.fields, reply.heads, body is not None, close)
        if isinstance(body, PartStore):
            whole = body.contents()
            if whole is None:
                self._write(codec.send(opening, reply.heads))
                self._task = self._loop.create_task(self._copy(body, reply, close))
                return
            body = whole
        self._write(codec.send_whole(opening, reply.heads, body, reply.body_end))
        self._end_answer(reply, close)

    def _closes(self, reply: Reply) -> bool:
        """Whether the connection ends with this answer."""
        state = self._codec.request_state
        read = state is _DONE or state is _WAITING
        return reply.close or self._shared.draining or not read or self._ends_here()

    def _ends_here(self) -> bool:
        """Whether this is the last request on the connection, as the client or our settings have it."""
        now = self._now
        return self._last or (now is not None and now.head is not None and now.head.close)

    def _go_on_with(self, reply: Reply) -> None:
        """The end of an answer that has begun; a reply that does not go on with it can only cut it."""
        if not reply.begun:
            self._end_transaction(reply, reply.detail)
            self._cut()
            return
        close, body = self._closes(reply), reply.body
        if isinstance(body, PartStore):
            self._task = self._loop.create_task(self._copy(body, reply, close))
            return
        if body:
            self._write(self._codec.send(BodyChunk(body)))
        self._write(self._codec.send(*self._ends_of(reply)))
        self._end_answer(reply, close)

    def _ends_of(self, reply: Reply) -> tuple[Event, ...]:
        if reply.begun and self._pacer is not None:
            return self._pacer.ends_of(reply)
        return (reply.body_end,)

    async def _copy(self, body: PartStore, reply: Reply, close: bool) -> None:
        """The virgin body, piece by piece, at the pace of the reader."""
        try:
            for piece in body.pieces(reply.skip):
                self._write(self._codec.send(BodyChunk(piece)))
                await self._outbox.room()
            self._write(self._codec.send(*self._ends_of(reply)))
        except Exception as error:
            self._shared.on_error(f"A copy to {self._client} stopped.", error)
            self._transport.abort()  # without its last chunk nobody can take it for the whole
            return
        self._task = None
        self._end_answer(reply, close)
        self._pump([])

    def _answer_error(self, reply: Reply) -> None:
        """Say what is wrong and close. Where an answer has already begun, only closing is left."""
        if self._phase is not _SERVING:
            return
        if self._task is not None:
            self._task.cancel()
            self._task = None
        codec = self._codec
        codec.fail()
        if codec.response_state is not State.IDLE:
            self._end_transaction(reply, reply.detail)
            self._close_now(abort=True)
            return
        stationery = (self._now or self._shared.generation).stationery
        opening = stationery.head(reply.status, reply.fields, reply.heads, False, True)
        self._write(codec.send_whole(opening, reply.heads, None, PLAIN_END))
        self._end_answer(reply, True)

    def _end_answer(self, reply: Reply, close: bool) -> None:
        codec = self._codec
        whole = codec.request_state is _DONE
        self._end_transaction(reply, reply.detail)
        if close:
            short = whole or self in self._shared.surplus
            self._close_softly(SOFT_CLOSE_SECONDS if short else self._settings.linger_timeout)
        else:
            codec.next_transaction()
            self._may_resume = True

    def _end_transaction(self, reply: Reply | None, detail: str) -> None:
        now = self._now
        if now is None:  # a connection that was refused before its first byte
            now = Transaction(self._shared.generation, self._last_byte, 0)
        self._now = None
        if self._pacer is not None:
            self._pacer.stop()
            self._pacer = None
        exchange = self._exchange
        if exchange is not None:
            self._exchange = None
            exchange.close()
        now.conclude(reply, detail, self._client, self._codec.backlog)
        now.generation.leave()
        self._shared.observer(now)

    def _write(self, pieces: list[Bytes]) -> None:
        size = self._outbox.write(pieces)
        if self._now is not None:
            self._now.bytes_out += size

    # Ends and time limits

    def _close_softly(self, seconds: float) -> None:
        """Send the FIN, then read and drop what is still coming, so that the answer is not lost to a reset (S11)."""
        self._phase = _LINGERING
        if self._peer_done or not self._transport.can_write_eof():
            self._close_now()
            return
        self._outbox.flush()
        self._transport.write_eof()
        if not self._reading:
            self._reading = True
            self._transport.resume_reading()
        self._set_timer(self._loop.time() + seconds)

    def _cut(self) -> None:
        """End with a reset in the middle of an answer: nobody can take that for its end."""
        if self._socket is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._close_now(abort=True)

    def _close_now(self, *, abort: bool = False) -> None:
        self._phase = _CLOSED
        if abort:
            self._outbox.drop()
            self._transport.abort()
        else:
            self._outbox.flush()
            self._transport.close()
            self._set_timer(self._loop.time() + self._settings.write_timeout)

    def _watch(self) -> None:
        """See that a timer ends the present wait in time. A timer that is early is left alone: it looks again."""
        if self._phase is not _SERVING or (self._now is None and self._timer is not None and not self._outbox.blocked):
            return  # an idle connection has a timer, and its deadline only moves away
        when = self._deadline()
        if when is not None and (self._timer is None or self._timer.when() > when[0]):
            self._set_timer(when[0])

    def _deadline(self) -> tuple[float, Overdue | None] | None:
        if self._outbox.blocked:
            return self._outbox.blocked_since + self._settings.write_timeout, None
        return deadline(self._codec, self._settings, self._now, self._last_byte)

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._phase is not _SERVING:
            self._transport.abort()
            return
        when = self._deadline()
        if when is None:
            return
        if self._loop.time() < when[0]:
            self._set_timer(when[0])
            return
        self._overdue(when[1])

    def _overdue(self, what: Overdue | None) -> None:
        if what is None or what is Overdue.NEXT_REQUEST:
            if self._now is not None:
                self._end_transaction(None, "The client stopped reading the answer.")
            self._close_now(abort=what is None)
        elif what is Overdue.FINAL_CRLF:
            self._last = True
            self._pump(self._codec.forgive_final_crlf())
        else:
            self._answer_error(replies.error(408, f"The {what.value} of the request did not come in time."))
