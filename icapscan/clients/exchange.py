"""One transaction over one link: send and read at the same time, in one task (RFC 3507 4.5, e7; PROTOCOL C8-C23)."""

from __future__ import annotations

import asyncio

from msgspec import Struct

from icapscan.clients.answer import Answer, FirstBytes
from icapscan.clients.errors import ClientTimeout, ConnectionLost, Stage
from icapscan.clients.link import Link
from icapscan.clients.settings import Timeouts
from icapscan.clients.source import PIECE, GrowingBody, Source, pieces
from icapscan.wire.icap import IcapConnection
from icapscan.wire.icap_events import (
    BodyChunk,
    BodyEnd,
    Continue,
    Event,
    Failure,
    HttpHeads,
    PreviewEnd,
    RequestHead,
    ResponseHead,
)
from icapscan.wire.icap_states import Role, State

_BATCH = 4
"""Pieces that go out in one write."""
_STARVED_SECONDS = 3600.0
"""Between two looks at a connection whose body does not grow: how long that may last is the affair of its writer."""


class Request(Struct, frozen=True):
    """One request, ready to be sent any number of times."""

    head: RequestHead
    heads: HttpHeads = HttpHeads()
    source: Source | None = None
    """None: no body follows."""


class Exchange:
    """Sends one request over a link that is free, and gathers the answer."""

    def __init__(self, link: Link, request: Request, answer: Answer, timeouts: Timeouts) -> None:
        self._link = link
        self._request = request
        self._answer = answer
        self._timeouts = timeouts
        self._codec = IcapConnection(Role.CLIENT)
        self._loop = asyncio.get_running_loop()
        self._first = FirstBytes()
        self._began = False
        self._mark = self._loop.time()
        self._sent = 0
        self._told_eof = False
        self._all_sent = request.source is None
        source = request.source
        self._growing = source if isinstance(source, GrowingBody) else None

    @property
    def answer_began(self) -> bool:
        """Whether a byte of an answer came (an ``100 Continue`` counts)."""
        return self._began or bool(self._first)

    @property
    def reusable(self) -> bool:
        """Both ends are through with it, nothing is left over, and the server wants to go on (PROTOCOL C20, C39)."""
        codec, head = self._codec, self._answer.head
        return (
            codec.request_state is State.DONE
            and codec.response_state is State.DONE
            and not codec.backlog
            and not self._link.has_data
            and not self._told_eof
            and head is not None
            and not head.close
            and not self._request.head.close
        )

    async def run(self) -> None:
        """Fill the answer. Raises `ClientError`, or what reading and keeping bodies raises."""
        growing = self._growing
        if growing is None:
            await self._run()
            return
        growing.watch(self._link.nudge)
        try:
            await self._run()
        finally:
            growing.unwatch(self._link.nudge)
            growing.sent(None)

    async def _run(self) -> None:
        self._send_start()
        while True:
            self._read()
            if self._growing is not None:
                self._growing.check()
                self._growing.sent(self._sent)
            if self._codec.response_state is State.DONE:
                return
            if self._link.lost:
                raise self._lost()
            if self._send_more():
                await asyncio.sleep(0)  # let the loop read what comes meanwhile
            else:
                await self._wait()

    # Sending

    def _send_start(self) -> None:
        """The heads, and of the body what needs no leave: the preview, or the first batch."""
        request, codec = self._request, self._codec
        out = list(codec.send(request.head, request.heads))
        source = request.source
        if source is not None and request.head.preview is not None:
            self._add_pieces(out, request.head.preview)
            self._all_sent = source.ended and self._sent == source.size
            out += codec.send(BodyEnd(ieof=True) if self._all_sent else PreviewEnd())
        elif source is not None:
            self._add_batch(out, source)
        self._link.write(out)

    def _send_more(self) -> bool:
        """The next batch, if one may go; whether it did."""
        source = self._request.source
        if source is None or self._codec.request_state is not State.BODY or not self._link.can_write or self._link.eof:
            return False
        if self._starved:
            return False
        out: list[bytes | memoryview] = []
        self._add_batch(out, source)
        self._link.write(out)
        self._mark = self._loop.time()
        return True

    def _add_batch(self, out: list[bytes | memoryview], source: Source) -> None:
        self._add_pieces(out, min(source.size, self._sent + _BATCH * PIECE))
        if source.ended and self._sent == source.size:
            out += self._codec.send(BodyEnd())
            self._all_sent = True

    @property
    def _starved(self) -> bool:
        """All that is there of a growing body has been sent."""
        growing = self._growing
        return growing is not None and not growing.ended and self._sent == growing.size

    def _add_pieces(self, out: list[bytes | memoryview], stop: int) -> None:
        source = self._request.source
        assert source is not None
        for piece in pieces(source, self._sent, stop):
            out += self._codec.send(BodyChunk(piece))
            self._sent += len(piece)

    # Reading

    def _read(self) -> None:
        link = self._link
        for data in link.take():
            self._mark = self._loop.time()
            if not self._began:
                self._began = self._first.take(data)
            self._answer.sent, self._answer.whole = self._sent, self._all_sent
            self._act(self._codec.receive(data))
        if link.eof and not self._told_eof and self._codec.response_state is not State.DONE:
            self._told_eof = True
            events = self._codec.receive_eof()
            if any(isinstance(event, Failure) for event in events):
                raise self._lost()

    def _act(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Continue):
                self._began = False  # what was waited for has come; the answer is another wait
            elif isinstance(event, ResponseHead):
                self._began = True
            self._answer.take(event)

    # Waiting

    async def _wait(self) -> None:
        stage, seconds = self._patience()
        if self._link.has_data:
            return
        if self._starved and self._codec.request_state is State.BODY and self._link.can_write:
            await self._link.wait(_STARVED_SECONDS)
            self._mark = self._loop.time()
            return
        if not await self._link.wait(self._mark + seconds - self._loop.time()):
            raise ClientTimeout(stage, seconds)
        if self._link.can_write and self._codec.request_state is State.BODY:
            self._mark = self._loop.time()

    def _patience(self) -> tuple[Stage, float]:
        timeouts = self._timeouts
        state = self._codec.request_state
        if not self._began:
            if state is State.WAITING:
                return Stage.CONTINUE, timeouts.proceed
            if state is State.DONE:
                return Stage.ANSWER, timeouts.answer
        return Stage.IDLE, timeouts.idle

    def _lost(self) -> ConnectionLost:
        began = self.answer_began
        what = "in the middle of its answer" if began else "before it answered"
        detail = f" ({self._link.error})" if self._link.error is not None else ""
        return ConnectionLost(f"The ICAP server closed the connection {what}{detail}.", answer_began=began)
