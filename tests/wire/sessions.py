"""Driving the ICAP codec in tests: one end with bytes, answers that go on by themselves, events as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from icapscan.wire.encapsulated import NO_BODY, Encapsulated
from icapscan.wire.fields import Fields
from icapscan.wire.icap import IcapConnection
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
from icapscan.wire.icap_states import Role, State
from icapscan.wire.limits import DEFAULT, WireLimits

NO_CONTENT = ResponseHead(
    204, b"No modifications needed", Fields(b'ISTag: "x"\r\nEncapsulated: null-body=0\r\n'), NO_BODY
)


def server(limits: WireLimits = DEFAULT, *, tolerant: bool = False) -> IcapConnection:
    """A server's codec."""
    return IcapConnection(Role.SERVER, limits, tolerate_bare_lf=tolerant)


def client(limits: WireLimits = DEFAULT) -> IcapConnection:
    """A client's codec."""
    return IcapConnection(Role.CLIENT, limits)


class ServerSession:
    """A server's codec that answers: 100 to a preview that has more, 204 to all else, and goes on.

    ``final_at_preview``: the preview gets its final answer at once, as for an infected one.
    """

    def __init__(self, limits: WireLimits = DEFAULT, *, tolerant: bool = False, final_at_preview: bool = False) -> None:
        self.codec = server(limits, tolerant=tolerant)
        self.events: list[Event] = []
        self.sent = bytearray()
        self._final_at_preview = final_at_preview

    def feed(self, data: bytes) -> None:
        """Receive ``data`` and answer what it completes."""
        self._act(self.codec.receive(data))

    def eof(self) -> None:
        """The client's FIN."""
        self._act(self.codec.receive_eof())

    def _act(self, events: list[Event]) -> None:
        while True:
            self.events += events
            if self.codec.request_state is State.WAITING and not self._final_at_preview:
                self._send(Continue())
            elif self.codec.request_state in (State.WAITING, State.DONE):
                self._send(NO_CONTENT, HttpHeads())
                self.codec.next_transaction()
            else:
                return
            events = self.codec.receive(b"")

    def _send(self, *events: Event) -> None:
        self.sent += b"".join(self.codec.send(*events))


def serve(
    pieces: Iterable[bytes],
    limits: WireLimits = DEFAULT,
    *,
    tolerant: bool = False,
    final_at_preview: bool = False,
    eof: bool = False,
) -> list[Event]:
    """All events of a server that receives ``pieces``."""
    session = ServerSession(limits, tolerant=tolerant, final_at_preview=final_at_preview)
    for piece in pieces:
        session.feed(piece)
    if eof:
        session.eof()
    return joined(session.events)


def take(answer: Iterable[bytes], request: Sequence[Event], *, eof: bool = False) -> list[Event]:
    """All events of a client that has sent ``request`` and receives the pieces of ``answer``."""
    codec = client()
    codec.send(*request)
    events: list[Event] = []
    for piece in answer:
        events += codec.receive(piece)
    if eof:
        events += codec.receive_eof()
    return joined(events)


def joined(events: Iterable[Event]) -> list[Event]:
    """The same events with neighbouring body chunks made one."""
    result: list[Event] = []
    for event in events:
        if isinstance(event, BodyChunk):
            before = result[-1] if result else None
            if isinstance(before, BodyChunk):
                result[-1] = BodyChunk(bytes(before.data) + bytes(event.data))
            else:
                result.append(BodyChunk(bytes(event.data)))
        else:
            result.append(event)
    return result


def described(events: Iterable[Event]) -> list[str]:
    """One line of text for each event, body chunks joined; the language of the transcripts."""
    return [describe(event) for event in joined(events)]


def describe(event: Event) -> str:
    """One event as a line of words."""
    match event:
        case RequestHead():
            words = ["request", event.method.decode(), escape(event.path) or "-", _sections(event.encapsulated)]
            if event.preview is not None:
                words.append(f"preview={event.preview}")
            allow = [
                name
                for name, allowed in (
                    ("204", event.allow_204), ("206", event.allow_206), ("trailers", event.allow_trailers)
                )
                if allowed
            ]  # fmt: skip
            if allow:
                words.append("allow=" + ",".join(allow))
            return " ".join(words + ["close"] * event.close)
        case ResponseHead():
            words = ["response", str(event.status), _sections(event.encapsulated)]
            return " ".join(words + ["trailer"] * event.trailer + ["close"] * event.close)
        case HttpHeads():
            heads = (("req", event.req_hdr), ("res", event.res_hdr))
            return " ".join(["heads", *(f'{name}="{escape(head)}"' for name, head in heads if head is not None)])
        case BodyChunk():
            return f'body "{escape(bytes(event.data))}"'
        case PreviewEnd():
            return "preview-end"
        case BodyEnd():
            words = ["body-end"] + ["ieof"] * event.ieof
            if event.trailers:
                words.append(f'trailers="{escape(event.trailers)}"')
            if event.use_original_body is not None:
                words.append(f"use-original-body={event.use_original_body}")
            return " ".join(words)
        case Trailer():
            return f'trailer "{escape(event.fields.raw)}"'
        case Continue():
            return "continue" if event.expected else "continue unexpected"
        case PeerClosed():
            return "closed"
        case Whole():
            return "; ".join(described(event.expand()))
        case Failure():
            return f"failure {event.error.status}"


def _sections(sections: Encapsulated) -> str:
    heads = [("req", sections.req_hdr), ("res", sections.res_hdr)]
    return "+".join([f"{name}:{size}" for name, size in heads if size is not None] + [sections.body.value.decode()])


def escape(data: bytes) -> str:
    """Bytes as printable text; `unescape` undoes it."""
    return data.decode("latin-1").encode("unicode_escape").decode().replace('"', '\\"')


def unescape(text: str) -> bytes:
    """The bytes of escaped text."""
    return text.encode("latin-1").decode("unicode_escape").encode("latin-1")


def statuses(events: Iterable[Event]) -> list[int]:
    """The ICAP statuses of the failures among ``events``."""
    return [event.error.status for event in events if isinstance(event, Failure)]


def body_of(events: Iterable[Event]) -> bytes:
    """All body bytes among ``events``."""
    return b"".join(bytes(event.data) for event in events if isinstance(event, BodyChunk))


def kinds(events: Iterable[Event]) -> list[str]:
    """The names of the events."""
    return [type(event).__name__ for event in events]
