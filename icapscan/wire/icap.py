"""One ICAP connection, for either end: bytes in, events out; events in, bytes out (RFC 3507; PROTOCOL A and B).

There is no socket, clock or logger in here. The shell that owns the socket calls `receive` with what it read, acts
on the events, calls `send` with its own events and writes the bytes. After each transaction it calls
`next_transaction`; what the peer sent ahead is kept until then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from icapscan.errors import LocalProtocolError, ProtocolError
from icapscan.wire import chunked
from icapscan.wire.fields import parse_fields
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
    ResponseHead,
    Trailer,
    Whole,
)
from icapscan.wire.icap_head import START_BYTE, check_request_line, line_error, parse_request, parse_response
from icapscan.wire.icap_states import REQUEST, RESPONSE, Role, State, Step
from icapscan.wire.limits import DEFAULT, WireLimits

_NO_HEADS = HttpHeads()
_PREVIEW_END = PreviewEnd()
_SERVER = Role.SERVER
_IDLE, _DONE = State.IDLE, State.DONE
_NEXT_REQUEST = REQUEST[State.DONE][Step.NEXT]
_NEXT_RESPONSE = RESPONSE[State.DONE][Step.NEXT]
_WHOLE_REQUEST = REQUEST[State.IDLE][Step.WHOLE]
_WHOLE_RESPONSE = RESPONSE[State.IDLE][Step.WHOLE]
PLAIN_END = BodyEnd()
"""The end of a body without trailers or extensions."""
_LAST_CHUNK = b"\r\n0\r\n\r\n"
_WHOLE_HEAD = 8 * 1024
_HELD = (State.DONE, State.WAITING)
"""What arrives in these states is kept unread: it belongs to what comes after our next step."""
Bytes = bytes | memoryview


class IcapConnection:
    """The codec of one connection.

    `request_state` and `response_state` say how far both halves of the current transaction are; the table that moves
    them is in `icapscan.wire.icap_states`.
    """

    __slots__ = (
        "_blank",
        "_chunks",
        "_continues",
        "_eof",
        "_limits",
        "_pending",
        "_readers",
        "_request",
        "_response",
        "_scanned",
        "_tolerant",
        "request_state",
        "response_state",
        "role",
    )

    def __init__(self, role: Role, limits: WireLimits = DEFAULT, *, tolerate_bare_lf: bool = False) -> None:
        self.role = role
        self.request_state = State.IDLE
        self.response_state = State.IDLE
        self._limits = limits
        self._tolerant = tolerate_bare_lf
        self._chunks = chunked.ChunkReader(limits)
        self._pending = bytearray()
        self._scanned = 0
        self._eof = False
        self._request: RequestHead | None = None
        self._response: ResponseHead | None = None
        self._blank = 0
        self._continues = 0
        server = role is Role.SERVER
        self._readers: dict[State, Callable[[bytes, int, list[Event]], int]] = {
            State.IDLE: self._read_head,
            State.HEADS: self._read_request_heads if server else self._read_response_heads,
            State.PREVIEW: self._read_body,
            State.BODY: self._read_body,
            State.TRAILER: self._read_trailer,
        }

    # What the shell may ask

    @property
    def backlog(self) -> int:
        """Bytes received and not yet understood: an incomplete head, or the next request sent ahead."""
        return len(self._pending)

    @property
    def awaits_final_crlf(self) -> bool:
        """The body is complete but for its last CRLF, which some clients never send (PROTOCOL S62).

        Never for a preview that has more: the connection goes on there, and a late CRLF would be taken for its rest.
        """
        if self._pending or not self._chunks.awaits_final_crlf:
            return False
        state = self._peer_state()
        return state is State.BODY or (state is State.PREVIEW and self._chunks.forgive_final_crlf().ieof)

    # Bytes to events

    def receive(self, data: bytes) -> list[Event]:
        """What ``data`` completes. Give ``b""`` after `next_transaction` or `Continue` to go on with what was kept.

        Never raises for what a peer sent: the last event is then a `Failure`.
        """
        pending = self._pending
        if pending:
            pending += data
            data = bytes(pending)
            pending.clear()
        events: list[Event] = []
        at = 0
        try:
            while True:
                state = self.request_state if self.role is Role.SERVER else self.response_state
                reader = self._readers.get(state)
                if reader is None or (at >= len(data) and state is not State.HEADS):
                    break
                after = reader(data, at, events)
                if after < 0:
                    break
                at = after
        except ProtocolError as error:
            self._fail()
            events.append(Failure(error))
            return events
        if at < len(data) and state is not State.FAILED:
            pending += memoryview(data)[at:]
            if self._scanned:
                self._scanned -= at
        if self._eof and (not pending or state not in _HELD):
            self._close(events)
        return events

    def receive_whole(self, data: bytes) -> Whole | None:
        """``data`` when it is one complete request in the usual form, with or without a body; else None.

        None means that nothing was consumed and nothing is said about ``data``: give it to `receive`. This is the
        short way for small requests; `receive` is its oracle in the tests.
        """
        if self.request_state is not _IDLE or self._pending or self.role is not _SERVER:
            return None
        stop = data.find(b"\r\n\r\n", 0, _WHOLE_HEAD)
        if stop <= 0:
            return None
        try:
            request = parse_request(data[: stop + 2], self._limits)
        except ProtocolError:
            return None
        sections = request.encapsulated
        at = stop + 4 + sections.head_length
        body = None
        if sections.has_body:
            body = chunked.read_whole(data, at, ieof=request.preview is not None)
            if body is None or (request.preview is not None and len(body) > request.preview):
                return None
        elif at != len(data):
            return None
        self._blank = 0
        self._request = request
        self.request_state = _WHOLE_REQUEST
        return Whole(request, _cut_heads(data, stop + 4, sections.req_hdr, sections.res_hdr), body)

    def receive_eof(self) -> list[Event]:
        """The peer sent its FIN: `PeerClosed`, or `Failure` when it left a message incomplete (PROTOCOL D78, D111)."""
        self._eof = True
        return self.receive(b"")

    def forgive_final_crlf(self) -> list[Event]:
        """End a body whose last CRLF is missing; only while `awaits_final_crlf`. The connection must not be reused."""
        events: list[Event] = []
        self._end_body(self._chunks.forgive_final_crlf(), events)
        return events

    def fail(self) -> None:
        """Read nothing more of this peer (a time-out, an early error answer)."""
        self._fail()

    def next_transaction(self) -> None:
        """Both halves are done: begin anew. Raises `LocalProtocolError` when they are not."""
        if self.request_state is not _DONE or self.response_state is not _DONE:
            raise LocalProtocolError("The transaction is not over.")
        self.request_state = _NEXT_REQUEST
        self.response_state = _NEXT_RESPONSE
        self._request = self._response = None
        self._continues = 0

    def _close(self, events: list[Event]) -> None:
        """What the end of input means: only between messages, or behind a complete one, is it orderly."""
        state = self._peer_state()
        self._eof = False
        between = state is State.IDLE and not self._pending and (self.role is Role.SERVER or self._request is None)
        if between or state in (State.DONE, State.FAILED):
            events.append(PeerClosed())
        else:
            self._fail()
            what = "request" if self.role is Role.SERVER else "response"
            events.append(Failure(ProtocolError(f"The connection ended before the {what} was complete.")))

    def _peer_state(self) -> State:
        return self.request_state if self.role is Role.SERVER else self.response_state

    def _fail(self) -> None:
        if self.role is Role.SERVER:
            self._step_request(Step.FAIL)
        else:
            self._step_response(Step.FAIL)
        self._pending.clear()

    # Heads

    def _read_head(self, data: bytes, at: int, events: list[Event]) -> int:
        """One ICAP head up to its empty line, or the empty lines before it."""
        if data[at] in b"\r\n":
            return self._skip_blank_lines(data, at)
        stop = data.find(b"\r\n\r\n", max(at, self._scanned - 3), at + self._limits.head + 2)
        if self._tolerant and (stop < 0 or b"\n" in data[at:stop].replace(b"\r\n", b"")):
            return self._read_tolerant_head(data, at, events)
        if stop < 0:
            self._check_unfinished_head(data, at)
            self._scanned = len(data)
            return -1
        self._scanned = 0
        self._take_head(data[at : stop + 2], events)
        return stop + 4

    def _skip_blank_lines(self, data: bytes, at: int) -> int:
        """Past the empty lines before a start line (RFC 2616 4.1), a few at most."""
        while at < len(data):
            if data.startswith(b"\r\n", at):
                at += 2
            elif self._tolerant and data[at] == 10:
                at += 1
            elif data[at] == 13 and at + 1 == len(data):
                return self._keep(at, data)
            elif data[at] in b"\r\n":
                raise ProtocolError("A line ends with a bare CR or LF.")
            else:
                break
            self._blank += 1
            if self._blank > self._limits.blank_lines:
                raise ProtocolError("There are too many empty lines before the start line.")
        return at

    def _check_unfinished_head(self, data: bytes, at: int) -> None:
        """Refuse early what can no longer become a head (PROTOCOL S36, D2-D6, D27, D31).

        In the order of the bytes, so that the answer does not depend on how they were cut.
        """
        if not START_BYTE.match(data, at):
            raise ProtocolError("The start line does not begin with a token.")
        line_end = data.find(b"\n", at)
        length = (line_end if line_end >= 0 else len(data)) - at
        if length > self._limits.line + 1 or (line_end >= 0 and data[line_end - 1] != 13):
            raise line_error(data[at:], self._limits)
        if line_end >= 0 and self._scanned <= line_end - at and self.role is Role.SERVER:
            check_request_line(data[at : line_end - 1])
        if len(data) - at > self._limits.head + 1:
            raise ProtocolError(f"The head is longer than {self._limits.head} bytes.")
        newline = data.find(b"\n", max(at, self._scanned - 1))
        while newline >= 0:
            if newline == at or data[newline - 1] != 13:
                raise ProtocolError("A line of the head ends with a bare LF.")
            newline = data.find(b"\n", newline + 1)

    def _read_tolerant_head(self, data: bytes, at: int, events: list[Event]) -> int:
        """A head with bare LF line ends, where the configuration accepts them."""
        marks = (b"\r\n\r\n", b"\n\n", b"\n\r\n")
        stops = [(found, len(mark)) for mark in marks if (found := data.find(mark, at)) >= 0]
        if not stops:
            if len(data) - at > self._limits.head + 1:
                raise ProtocolError(f"The head is longer than {self._limits.head} bytes.")
            return -1
        stop, length = min(stops)
        self._scanned = 0
        head = data[at:stop].replace(b"\r\n", b"\n")
        if b"\r" in head:
            raise ProtocolError("A line of the head holds a bare CR.")
        self._take_head(head.replace(b"\n", b"\r\n") + b"\r\n", events)
        return stop + length

    def _take_head(self, head: bytes, events: list[Event]) -> None:
        self._blank = 0
        if len(head) > self._limits.head:
            raise ProtocolError(f"The head is longer than {self._limits.head} bytes.")
        if self.role is Role.SERVER:
            request = parse_request(head, self._limits)
            self.request_state = REQUEST[self.request_state][Step.HEAD]
            self._request = request
            events.append(request)
            return
        if self._request is None:
            raise ProtocolError("The peer answers although nothing was asked.")
        response = parse_response(head, self._limits, trailers_offered=self._request.allow_trailers)
        if response is None:
            self._take_continue(events)
            return
        self.response_state = RESPONSE[self.response_state][Step.HEAD]
        self.request_state = REQUEST[self.request_state][Step.ANSWERED]
        self._response = response
        events.append(response)

    def _take_continue(self, events: list[Event]) -> None:
        expected = self.request_state is State.WAITING
        if expected:
            self._step_request(Step.CONTINUE)
        else:
            self._continues += 1
            if self._continues > 1:
                raise ProtocolError("The peer sends 100 Continue again and again.")
        events.append(Continue(expected))

    def _read_request_heads(self, data: bytes, at: int, events: list[Event]) -> int:
        request = self._request
        assert request is not None
        sections = request.encapsulated
        length = sections.head_length
        if len(data) - at < length:
            return -1
        events.append(_cut_heads(data, at, sections.req_hdr, sections.res_hdr))
        if not sections.has_body:
            step = Step.NO_BODY
        else:
            step = Step.BODY_FOLLOWS if request.preview is None else Step.PREVIEW_FOLLOWS
            if request.preview is None:
                self._chunks.begin()
            else:
                self._chunks.begin(most=request.preview + self._limits.preview_surplus)
        self.request_state = REQUEST[self.request_state][step]
        return at + length

    def _read_response_heads(self, data: bytes, at: int, events: list[Event]) -> int:
        response = self._response
        assert response is not None
        sections = response.encapsulated
        length = sections.head_length
        if len(data) - at < length:
            return -1
        events.append(_cut_heads(data, at, sections.req_hdr, sections.res_hdr))
        if sections.has_body:
            self._chunks.begin(allow_original=response.status == 206)
        self._step_response(Step.BODY_FOLLOWS if sections.has_body else Step.NO_BODY)
        return at + length

    # Bodies

    def _read_body(self, data: bytes, at: int, events: list[Event]) -> int:
        at, end = self._chunks.read(data, at, events)
        if end is None:
            return at if at >= len(data) else self._keep(at, data)
        self._end_body(end, events)
        return at

    def _end_body(self, end: BodyEnd, events: list[Event]) -> None:
        if self.role is Role.CLIENT:
            response = self._response
            assert response is not None
            self._step_response(Step.BODY_END_TRAILER_FOLLOWS if response.trailer else Step.BODY_END)
            events.append(end)
        elif self.request_state is State.PREVIEW and not end.ieof:
            self._step_request(Step.PREVIEW_END)
            events.append(_PREVIEW_END)
        else:
            self._step_request(Step.BODY_END)
            events.append(end)

    def _keep(self, at: int, data: bytes) -> int:
        """Put what was not understood aside and stop reading."""
        self._pending += memoryview(data)[at:]
        return len(data)

    def _read_trailer(self, data: bytes, at: int, events: list[Event]) -> int:
        """The ICAP trailer behind a response: field lines and an empty line."""
        if data.startswith(b"\r\n", at):
            block, after = b"", at + 2
        else:
            stop = data.find(b"\r\n\r\n", at, at + self._limits.trailer + 4)
            if stop < 0:
                if len(data) - at > self._limits.trailer + 3:
                    raise ProtocolError("The ICAP trailer is too long.")
                return -1
            block, after = data[at : stop + 2], stop + 4
        fields = parse_fields(block, self._limits.fields, "ICAP trailer")
        self._step_response(Step.TRAILER)
        events.append(Trailer(fields))
        return after

    # Events to bytes

    def send(self, *events: Event) -> list[Bytes]:
        """The bytes of our own events, in order, as pieces for one vectored write.

        Raises `LocalProtocolError` for an event that is illegal now; nothing may be written then.
        """
        pieces: list[Bytes] = []
        for event in events:
            sender = _SENDERS.get(type(event))
            if sender is None:
                raise LocalProtocolError(f"{type(event).__name__} is never sent.")
            sender(self, event, pieces)
        return pieces

    def send_whole(self, head: ResponseHead, heads: HttpHeads, body: Bytes | None, end: BodyEnd) -> list[Bytes]:
        """A complete answer: the same bytes as `send` of its parts. Raises `LocalProtocolError` as that does."""
        sections = head.encapsulated
        response = heads.res_hdr
        if (
            self.role is not _SERVER
            or len(heads.req_hdr or b"") != (sections.req_hdr or 0)
            or len(response or b"") != (sections.res_hdr or 0)
            or (body is not None) is not sections.has_body
            or head.trailer
        ):
            raise LocalProtocolError("The Encapsulated list is not that of the parts of this answer.")
        if end is not PLAIN_END and (end.ieof or (end.use_original_body is not None and head.status != 206)):
            raise LocalProtocolError("This end is not one of an answer with this status.")
        if self.response_state is not _IDLE or self.request_state is _IDLE:
            raise LocalProtocolError("There is nothing to answer now.")
        if self.request_state is not _DONE:
            self._step_request(Step.ANSWERED)
        self.response_state = _WHOLE_RESPONSE
        opening = head.wire or head.encode()
        if body is None:
            return [opening, heads.req_hdr or b"", response or b""]
        last = _LAST_CHUNK if end is PLAIN_END else b"\r\n" + chunked.encode_last(end)
        if not body:
            return [opening, heads.req_hdr or b"", response or b"", last[2:]]
        return [opening, heads.req_hdr or b"", response or b"", b"%x\r\n" % len(body), body, last]

    def _send_chunk(self, event: BodyChunk, pieces: list[Bytes]) -> None:
        size = len(event.data)
        if not size:
            return  # an empty chunk would end the body (PROTOCOL C11)
        self._step_ours(Step.CHUNK)
        pieces += (b"%x\r\n" % size, event.data, b"\r\n")

    def _send_response(self, event: ResponseHead, pieces: list[Bytes]) -> None:
        self._step_response(Step.HEAD)
        self._step_request(Step.ANSWERED)
        self._response = event
        pieces.append(event.encode())

    def _send_request(self, event: RequestHead, pieces: list[Bytes]) -> None:
        self._step_request(Step.HEAD)
        self._request = event
        pieces.append(b"%s %s ICAP/1.0\r\n%s\r\n" % (event.method, event.uri, event.fields.raw))

    def _send_continue(self, event: Continue, pieces: list[Bytes]) -> None:
        if self.request_state is not State.WAITING:
            raise LocalProtocolError("100 Continue is only sent behind a preview that has more.")
        self._step_response(Step.CONTINUE)
        self._step_request(Step.CONTINUE)
        self._chunks.begin(again=True)
        pieces.append(b"ICAP/1.0 100 Continue\r\n\r\n")

    def _send_preview_end(self, event: PreviewEnd, pieces: list[Bytes]) -> None:
        self._step_request(Step.PREVIEW_END)
        pieces.append(b"0\r\n\r\n")

    def _send_trailer(self, event: Trailer, pieces: list[Bytes]) -> None:
        self._step_response(Step.TRAILER)
        pieces.append(event.fields.raw + b"\r\n")

    def _send_heads(self, event: HttpHeads, pieces: list[Bytes]) -> None:
        head = self._response if self.role is Role.SERVER else self._request
        if head is None:
            raise LocalProtocolError("HTTP heads follow an ICAP head.")
        sections = head.encapsulated
        if len(event.req_hdr or b"") != (sections.req_hdr or 0) or len(event.res_hdr or b"") != (sections.res_hdr or 0):
            raise LocalProtocolError("The Encapsulated offsets are not those of the HTTP heads.")
        if not sections.has_body:
            step = Step.NO_BODY
        else:
            preview = isinstance(head, RequestHead) and head.preview is not None
            step = Step.PREVIEW_FOLLOWS if preview else Step.BODY_FOLLOWS
        self._step_ours(step)
        if event.req_hdr:
            pieces.append(event.req_hdr)
        if event.res_hdr:
            pieces.append(event.res_hdr)

    def _send_end(self, event: BodyEnd, pieces: list[Bytes]) -> None:
        if event.ieof != (self.role is Role.CLIENT and self.request_state is State.PREVIEW):
            raise LocalProtocolError("ieof ends a body within its preview, and nothing else.")
        response = self._response
        if event.use_original_body is not None and (response is None or response.status != 206):
            raise LocalProtocolError("use-original-body ends the body of a 206 answer, and nothing else.")
        trailer = response is not None and response.trailer and self.role is Role.SERVER
        self._step_ours(Step.BODY_END_TRAILER_FOLLOWS if trailer else Step.BODY_END)
        pieces.append(chunked.encode_last(event))

    # The table

    def _step_ours(self, step: Step) -> None:
        if self.role is Role.SERVER:
            self._step_response(step)
        else:
            self._step_request(step)

    def _step_request(self, step: Step) -> None:
        state = REQUEST[self.request_state].get(step)
        if state is None:
            raise LocalProtocolError(f"The request is {self.request_state.name}: {step.name} is illegal.")
        self.request_state = state

    def _step_response(self, step: Step) -> None:
        state = RESPONSE[self.response_state].get(step)
        if state is None:
            raise LocalProtocolError(f"The response is {self.response_state.name}: {step.name} is illegal.")
        self.response_state = state


def _cut_heads(data: bytes, at: int, req_hdr: int | None, res_hdr: int | None) -> HttpHeads:
    if not req_hdr and not res_hdr:
        return _NO_HEADS
    middle = at + (req_hdr or 0)
    return HttpHeads(
        data[at:middle] if req_hdr else None,
        data[middle : middle + res_hdr] if res_hdr else None,
    )


_SENDERS: dict[type, Callable[[IcapConnection, Any, list[Bytes]], None]] = {
    BodyChunk: IcapConnection._send_chunk,
    BodyEnd: IcapConnection._send_end,
    HttpHeads: IcapConnection._send_heads,
    ResponseHead: IcapConnection._send_response,
    RequestHead: IcapConnection._send_request,
    Continue: IcapConnection._send_continue,
    PreviewEnd: IcapConnection._send_preview_end,
    Trailer: IcapConnection._send_trailer,
}
