"""The end of the input, and what may not be sent."""

from __future__ import annotations

import pytest

from icapscan.errors import LocalProtocolError
from icapscan.wire.encapsulated import NO_BODY, BodyKind, Encapsulated
from icapscan.wire.fields import Fields
from icapscan.wire.icap_events import (
    BodyChunk,
    BodyEnd,
    Event,
    Failure,
    HttpHeads,
    PeerClosed,
    ResponseHead,
    Trailer,
)
from tests.wire.samples import (
    OK,
    chunked,
    options,
    respmod,
)
from tests.wire.sessions import (
    NO_CONTENT,
    described,
    kinds,
    serve,
    server,
    statuses,
)


def test_s12_a_fin_behind_a_request_is_orderly() -> None:
    codec = server()
    codec.receive(respmod())
    assert codec.receive_eof() == [PeerClosed()]
    assert b"".join(codec.send(NO_CONTENT, HttpHeads()))


def test_a_fin_between_requests_is_orderly() -> None:
    assert kinds(serve([], eof=True)) == ["PeerClosed"]
    assert kinds(serve([options()], eof=True)) == ["RequestHead", "HttpHeads", "PeerClosed"]


def test_s12_requests_sent_ahead_of_a_fin_are_read_first() -> None:
    codec = server()
    codec.receive(options() + options())
    assert codec.receive_eof() == []
    codec.send(NO_CONTENT, HttpHeads())
    codec.next_transaction()
    assert kinds(codec.receive(b"")) == ["RequestHead", "HttpHeads", "PeerClosed"]


def test_s12_a_fin_before_what_was_kept_is_read_does_not_harm_it() -> None:
    codec = server()
    codec.receive(options() + options() + options()[:-1])
    for _ in range(2):
        codec.send(NO_CONTENT, HttpHeads())
        codec.next_transaction()
        events = codec.receive_eof() if codec.backlog > len(options()) else codec.receive(b"")
    assert kinds(events) == ["Failure"]
    codec = server()
    codec.receive(options() + options())
    codec.send(NO_CONTENT, HttpHeads())
    codec.next_transaction()
    assert kinds(codec.receive_eof()) == ["RequestHead", "HttpHeads", "PeerClosed"]


WHOLE = respmod(chunked(b"hello"), b"Preview: 5\r\n") + chunked(b" world")


def test_d78_d111_d115_a_fin_within_a_request_is_a_failure() -> None:
    for cut in range(1, len(WHOLE)):
        events = serve([WHOLE[:cut]], eof=True)
        assert kinds(events)[-1] == "Failure" and BodyEnd() not in events, cut
        assert statuses(events) == [400]


def test_a_fin_in_the_middle_of_a_second_request_fails_that_one_only() -> None:
    events = serve([respmod() + options()[:-1]], eof=True)
    assert kinds(events) == ["RequestHead", "HttpHeads", "BodyChunk", "BodyEnd", "Failure"]


def test_nothing_is_read_behind_a_failure() -> None:
    codec = server()
    codec.receive(b"\x00")
    assert codec.receive(options()) == []
    assert codec.backlog == 0
    assert codec.receive_eof() == [PeerClosed()]


def test_d51_s15_after_fail_an_answer_is_still_possible() -> None:
    codec = server()
    codec.receive(options()[:-5])
    codec.fail()
    late = ResponseHead(408, b"Request timeout", Fields(b"Encapsulated: null-body=0\r\n"), NO_BODY)
    assert b"".join(codec.send(late, HttpHeads())).startswith(b"ICAP/1.0 408 Request timeout\r\n")


def test_s107_an_early_answer_while_the_body_is_still_coming() -> None:
    codec = server()
    codec.receive(respmod(b"5\r\nhello\r\n"))
    codec.send(NO_CONTENT, HttpHeads())
    assert described(codec.receive(chunked(b"more"))) == ['body "more"', "body-end"]
    codec.next_transaction()


# What may not be sent


def test_an_answer_before_any_request_is_illegal() -> None:
    with pytest.raises(LocalProtocolError):
        server().send(NO_CONTENT)


def test_a_second_answer_is_illegal() -> None:
    codec = server()
    codec.receive(options())
    codec.send(NO_CONTENT, HttpHeads())
    with pytest.raises(LocalProtocolError):
        codec.send(NO_CONTENT)


def test_s8_the_next_transaction_waits_for_both_halves() -> None:
    codec = server()
    codec.receive(respmod(b"5\r\nhello\r\n"))
    codec.send(NO_CONTENT, HttpHeads())
    with pytest.raises(LocalProtocolError):
        codec.next_transaction()
    codec = server()
    codec.receive(options())
    with pytest.raises(LocalProtocolError):
        codec.next_transaction()


def test_s86_nothing_follows_an_answer_without_a_body() -> None:
    codec = server()
    codec.receive(options())
    codec.send(NO_CONTENT, HttpHeads())
    for event in (BodyChunk(b"x"), BodyEnd(), HttpHeads(), Trailer(Fields())):
        with pytest.raises(LocalProtocolError):
            codec.send(event)


def test_s89_offsets_must_be_those_of_the_heads() -> None:
    codec = server()
    codec.receive(respmod())
    codec.send(ResponseHead(200, b"OK", Fields(), Encapsulated(None, len(OK), BodyKind.RESPONSE)))
    for heads in (HttpHeads(), HttpHeads(None, OK + b"x"), HttpHeads(OK, None), HttpHeads(b"x", OK)):
        with pytest.raises(LocalProtocolError):
            codec.send(heads)
    assert b"".join(codec.send(HttpHeads(None, OK))) == OK


def test_a_server_never_sends_ieof() -> None:
    codec = server()
    codec.receive(respmod())
    codec.send(ResponseHead(200, b"OK", Fields(), Encapsulated(None, None, BodyKind.RESPONSE)), HttpHeads())
    with pytest.raises(LocalProtocolError):
        codec.send(BodyEnd(ieof=True))
    with pytest.raises(LocalProtocolError):
        codec.send(BodyEnd(use_original_body=3))


@pytest.mark.parametrize("event", [PeerClosed(), Failure(LocalProtocolError("x"))], ids=["closed", "failure"])  # type: ignore[arg-type]
def test_what_is_only_received_cannot_be_sent(event: Event) -> None:
    with pytest.raises(LocalProtocolError, match="never sent"):
        server().send(event)
