"""The short way for small messages says the same as the long one, which is its oracle."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icapscan.errors import LocalProtocolError
from icapscan.wire.encapsulated import BodyKind, Encapsulated
from icapscan.wire.fields import Fields
from icapscan.wire.icap import IcapConnection
from icapscan.wire.icap_events import BodyChunk, BodyEnd, Event, HttpHeads, ResponseHead
from icapscan.wire.icap_states import Role, State

REQ = b"GET http://example.org/ HTTP/1.1\r\nHost: example.org\r\n\r\n"
RES = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n"


def request(body: bytes | None, *, preview: int | None = None, size_line: bytes = b"", tail: bytes = b"") -> bytes:
    """A RESPMOD request with one chunk, or with null-body."""
    kind = BodyKind.NULL if body is None else BodyKind.RESPONSE
    sections = Encapsulated(len(REQ), len(RES), kind)
    announced = b"" if preview is None else b"Preview: %d\r\n" % preview
    head = b"RESPMOD icap://h/avscan ICAP/1.0\r\n%sEncapsulated: %s\r\n\r\n" % (announced, sections.encode())
    if body is None:
        return head + REQ + RES
    last = b"0\r\n\r\n" if preview is None else b"0; ieof\r\n\r\n"
    return head + REQ + RES + (size_line or b"%x\r\n" % len(body)) + body + b"\r\n" + (tail or last)


def both(data: bytes) -> tuple[list[Event] | None, list[Event]]:
    """What the short way says (expanded), and what the long one says."""
    short, long = IcapConnection(Role.SERVER), IcapConnection(Role.SERVER)
    whole = short.receive_whole(data)
    events = long.receive(data)
    if whole is None:
        assert short.request_state is State.IDLE
        assert short.backlog == 0
        assert repr(short.receive(data)) == repr(events)
        return None, events
    assert short.request_state is long.request_state is State.DONE
    assert short.backlog == long.backlog == 0
    return list(whole.expand()), joined(events)


def joined(events: list[Event]) -> list[Event]:
    """Neighbouring chunks as one."""
    out: list[Event] = []
    for event in events:
        if isinstance(event, BodyChunk) and out and isinstance(before := out[-1], BodyChunk):
            out[-1] = BodyChunk(bytes(before.data) + bytes(event.data))
        else:
            out.append(event)
    return out


@pytest.mark.parametrize(
    "data",
    [
        request(b"hello"),
        request(b"x" * 70_000),
        request(b"hello", preview=1024),
        request(b"hello\r\n3\r\nabc", size_line=b"5\r\n"),
        request(b"hello", preview=1024).replace(b"5\r\nhello", b"2\r\nhe\r\n003\r\nllo"),
        request(b"hello", size_line=b"00005\r\n"),
        request(b"0\r\n\r\n", preview=5),
        request(None),
        request(None, preview=0),
        b"OPTIONS icap://h/avscan ICAP/1.0\r\nHost: h\r\n\r\n",
    ],
)
def test_usual_requests_take_the_short_way(data: bytes) -> None:
    short, long = both(data)
    assert short == long


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n" + request(b"hello"),
        request(b"hello") + b"O",
        request(b"hello")[:-1],
        request(b"hello", preview=4),
        request(b"hello", preview=1024, tail=b"0\r\n\r\n"),
        request(b"hello", tail=b"0; ieof\r\n\r\n"),
        request(b"hello", tail=b"0\r\nX: y\r\n\r\n"),
        request(b"hello", size_line=b"5;a=b\r\n"),
        request(b"hello", size_line=b"4\r\n"),
        request(b"hello", size_line=b"0\r\n"),
        request(b"hello").replace(b"5\r\nhello", b"1\r\nx\r\n" * 256 + b"1\r\nx"),
        request(b"hello", size_line=b"6\r\n"),
        request(b"hello", size_line=b"-5\r\n"),
        request(b"hello", size_line=b"0x5\r\n"),
        request(b"hello", size_line=b" 5\r\n"),
        request(b""),
        request(b"hello").replace(b"RESPMOD", b"FOO"),
        request(b"hello").replace(b"ICAP/1.0", b"ICAP/1.1"),
        request(b"hello").replace(b"Encapsulated:", b"Encapsulated :"),
        request(b"hello").replace(b"\r\n", b"\n"),
    ],
)
def test_everything_else_is_left_to_the_long_way(data: bytes) -> None:
    assert both(data)[0] is None


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_is_changed_in_a_request_both_ways_agree(data: st.DataObject) -> None:
    original = request(b"hello 5\r\n0\r\n\r\n", preview=data.draw(st.sampled_from([None, 0, 5, 1024])))
    at = data.draw(st.integers(0, len(original)))
    cut = data.draw(st.integers(0, 4))
    put = data.draw(st.binary(max_size=4) | st.sampled_from([b"\r\n", b"0", b"; ieof", b"\n", b"a"]))
    short, long = both(original[:at] + put + original[at + cut :])
    assert short is None or short == long


def answering(state: State = State.DONE) -> IcapConnection:
    codec = IcapConnection(Role.SERVER)
    codec.receive(request(b"hello") if state is State.DONE else request(b"hello")[:-9])
    assert codec.request_state is state
    return codec


def response(heads: HttpHeads, body: bytes | None, status: int = 200) -> ResponseHead:
    if heads == HttpHeads():
        sections = Encapsulated(None, None, BodyKind.NULL)
    else:
        kind = BodyKind.NULL if body is None else BodyKind.RESPONSE
        sections = Encapsulated(None, len(heads.res_hdr or b""), kind)
    return ResponseHead(status, b"OK", Fields(b"Encapsulated: %s\r\n" % sections.encode()), sections)


@pytest.mark.parametrize("body", [None, b"", b"x", b"y" * 300_000])
@pytest.mark.parametrize("trailers", [b"", b"X-T: 1\r\n"])
def test_a_whole_answer_is_the_bytes_of_its_parts(body: bytes | None, trailers: bytes) -> None:
    heads = HttpHeads(None, RES)
    head = response(heads, body)
    end = BodyEnd(trailers=trailers)
    parts: list[Event] = [head, heads]
    if body is not None:
        parts += [BodyChunk(body), end]
    one, many = answering(), answering()
    assert b"".join(one.send_whole(head, heads, body, end)) == b"".join(many.send(*parts))
    assert (one.request_state, one.response_state) == (many.request_state, many.response_state)
    one.next_transaction()


def test_an_early_whole_answer_does_not_end_the_request() -> None:
    codec = answering(State.BODY)
    codec.send_whole(response(HttpHeads(), None, 404), HttpHeads(), None, BodyEnd())
    assert codec.request_state is State.BODY
    with pytest.raises(LocalProtocolError):
        codec.next_transaction()


def test_a_whole_answer_that_contradicts_itself_is_refused() -> None:
    heads = HttpHeads(None, RES)
    for head, said, body in (
        (response(heads, b"x"), HttpHeads(None, RES + b"x"), b"x"),
        (response(heads, None), heads, b"x"),
        (response(heads, b"x"), heads, None),
    ):
        with pytest.raises(LocalProtocolError):
            answering().send_whole(head, said, body, BodyEnd())
    with pytest.raises(LocalProtocolError):
        IcapConnection(Role.SERVER).send_whole(response(heads, b"x"), heads, b"x", BodyEnd())
    with pytest.raises(LocalProtocolError):
        IcapConnection(Role.CLIENT).send_whole(response(heads, b"x"), heads, b"x", BodyEnd())
