"""The short way for small requests and answers gives what the long way gives, which is its oracle."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icapscan.errors import LocalProtocolError
from icapscan.wire.encapsulated import NO_BODY, BodyKind, Encapsulated
from icapscan.wire.fields import Fields
from icapscan.wire.icap_events import BodyChunk, BodyEnd, Event, HttpHeads, ResponseHead
from icapscan.wire.icap_states import State
from icapscan.wire.limits import DEFAULT, WireLimits
from tests.fuzz.fuzz_icap import corpus
from tests.wire.samples import GET, IEOF, LAST, OK, chunk, chunked, options, raw, reqmod, respmod
from tests.wire.sessions import NO_CONTENT, client, described, joined, server
from tests.wire.test_any_split import HOSTILE, MUTATIONS, REQUESTS, SMALL, mutate

USUAL = {
    "options": options(),
    "one chunk": respmod(),
    "two chunks": respmod(chunk(b"a") + chunk(b"b") + LAST),
    "no heads": raw(b"res-body=0", chunked(b"x")),
    "reqmod": reqmod(chunked(b"x" * 30_000)),
    "ieof": respmod(chunk(b"hello") + IEOF, b"Preview: 5\r\n"),
    "null-body": respmod(None),
    "null-body with a preview": respmod(None, b"Preview: 0\r\n"),
}


def check(data: bytes, limits: WireLimits = DEFAULT, *, tolerant: bool = False) -> bool:
    """Compare both ways for ``data``; whether the short one was taken."""
    short, long = server(limits, tolerant=tolerant), server(limits, tolerant=tolerant)
    whole = short.receive_whole(data)
    if whole is None:
        assert short.request_state is State.IDLE and short.backlog == 0
        assert described(short.receive(data)) == described(long.receive(data))
        return False
    assert joined(whole.expand()) == joined(long.receive(data))
    assert (short.request_state, short.response_state) == (long.request_state, long.response_state)
    assert short.backlog == long.backlog == 0
    for codec in (short, long):
        codec.send(NO_CONTENT, HttpHeads())
        codec.next_transaction()
    following = options() + b"\r\n" * 9 + options()
    assert described(short.receive(following)) == described(long.receive(following))
    return True


@pytest.mark.parametrize("name", USUAL)
def test_usual_requests_go_the_short_way(name: str) -> None:
    assert check(USUAL[name])


@pytest.mark.parametrize(
    "data",
    [
        respmod(chunked(b"x" * 257, 1)),
        respmod(LAST),
        respmod(chunked(b"hello"), b"Preview: 5\r\n"),
        respmod(chunk(b"hello") + IEOF, b"Preview: 4\r\n"),
        respmod(chunk(b"hello") + IEOF, b""),
        respmod(b"5;x\r\nhello\r\n" + LAST),
        respmod(b"5 \r\nhello\r\n" + LAST),
        respmod(b"5\r\nhello\r\n0\r\nX: y\r\n\r\n"),
        respmod(b"5\r\nhello\r\n0\r\n"),
        respmod(b"-5\r\nhello\r\n" + LAST),
        respmod(b"6\r\nhello\r\n" + LAST),
        respmod(b"4\r\nhello\r\n" + LAST),
        respmod() + b"\r\n",
        respmod() + options(),
        respmod(None) + LAST,
        respmod()[:-1],
        b"\r\n" + respmod(),
        respmod(b"a\r\n5\r\nhello\r\n" + LAST + LAST),
        raw(b"opt-body=0", chunked(b"x"), b"OPTIONS")[:-5],
        raw(b"res-hdr=0, res-body=100", OK),
        b"",
        b"\r\n\r\n",
    ],
)
def test_anything_else_goes_the_long_way(data: bytes) -> None:
    assert not check(data)


@pytest.mark.parametrize("data", [*REQUESTS.values(), *HOSTILE.values()])
def test_d112_both_ways_agree_on_requests_good_and_hostile(data: bytes) -> None:
    for limits in (DEFAULT, SMALL):
        for tolerant in (False, True):
            check(data, limits, tolerant=tolerant)


@settings(max_examples=500)
@given(st.sampled_from([*USUAL.values(), *corpus()]), MUTATIONS, st.booleans(), st.booleans())
def test_d112_both_ways_agree_on_mutated_requests(
    data: bytes, mutations: list[tuple[int, int, bytes]], small: bool, tolerant: bool
) -> None:
    check(mutate(data, mutations), SMALL if small else DEFAULT, tolerant=tolerant)


def test_s8_the_short_way_is_closed_while_something_else_is_going_on() -> None:
    codec = server()
    codec.receive(b"OPT")
    assert codec.receive_whole(options()) is None
    codec = server()
    assert codec.receive_whole(options()) is not None
    assert codec.receive_whole(options()) is None  # not answered yet
    codec = server()
    codec.receive(b"\x00")
    assert codec.receive_whole(options()) is None
    assert client().receive_whole(options()) is None


def test_s10_empty_lines_are_counted_anew_behind_a_whole_request() -> None:
    codec = server()
    for _ in range(3):
        assert codec.receive(b"\r\n" * 5) == []
        assert codec.receive_whole(options()) is not None
        codec.send(NO_CONTENT, HttpHeads())
        codec.next_transaction()


def answer(req_hdr: bytes | None, res_hdr: bytes | None, body: bytes | None, status: int = 200) -> ResponseHead:
    """An answer head for these parts."""
    kind = BodyKind.NULL if body is None else BodyKind.RESPONSE
    lengths = [None if head is None else len(head) for head in (req_hdr, res_hdr)]
    sections = Encapsulated(lengths[0], lengths[1], kind)
    return ResponseHead(status, b"OK", Fields(b"Encapsulated: %s\r\n" % sections.encode()), sections)


@pytest.mark.parametrize("end", [BodyEnd(), BodyEnd(trailers=b"X: y\r\n")])
@pytest.mark.parametrize("body", [None, b"", b"hello", memoryview(b"hello"), b"x" * 70_000])
@pytest.mark.parametrize(("req_hdr", "res_hdr"), [(None, OK), (GET, None), (GET, OK), (None, None)])
def test_a_whole_answer_is_the_bytes_of_its_parts(
    req_hdr: bytes | None, res_hdr: bytes | None, body: bytes | None, end: BodyEnd
) -> None:
    short, long = server(), server()
    for codec in (short, long):
        codec.receive(respmod())
    head, heads = answer(req_hdr, res_hdr, body), HttpHeads(req_hdr, res_hdr)
    parts: list[Event] = [head, heads]
    if body is not None:
        parts += [BodyChunk(body), end]
    assert b"".join(short.send_whole(head, heads, body, end)) == b"".join(long.send(*parts))
    assert (short.request_state, short.response_state) == (long.request_state, long.response_state)
    short.next_transaction()


def test_s89_a_whole_answer_must_fit_its_list() -> None:
    codec = server()
    codec.receive(respmod())
    good = answer(None, OK, b"x")
    for head, heads, body in (
        (good, HttpHeads(None, OK + b"x"), b"x"),
        (good, HttpHeads(OK, None), b"x"),
        (good, HttpHeads(None, OK), None),
        (answer(None, OK, None), HttpHeads(None, OK), b"x"),
    ):
        with pytest.raises(LocalProtocolError):
            codec.send_whole(head, heads, body, BodyEnd())
    codec.send_whole(good, HttpHeads(None, OK), b"x", BodyEnd())


def test_a_whole_answer_is_illegal_where_its_parts_are() -> None:
    nothing = ResponseHead(204, b"x", Fields(), NO_BODY)
    with pytest.raises(LocalProtocolError):
        server().send_whole(nothing, HttpHeads(), None, BodyEnd())
    codec = server()
    codec.receive(options())
    codec.send_whole(nothing, HttpHeads(), None, BodyEnd())
    with pytest.raises(LocalProtocolError):
        codec.send_whole(nothing, HttpHeads(), None, BodyEnd())
    with pytest.raises(LocalProtocolError):
        client().send_whole(nothing, HttpHeads(), None, BodyEnd())


def test_a_whole_answer_never_ends_with_what_a_server_does_not_send() -> None:
    for end in (BodyEnd(ieof=True), BodyEnd(use_original_body=5)):
        codec = server()
        codec.receive(respmod())
        with pytest.raises(LocalProtocolError):
            codec.send_whole(answer(None, OK, b"x"), HttpHeads(None, OK), b"x", end)
