"""What a client makes of the bytes of a server."""

from __future__ import annotations

import pytest

from icapscan.errors import LocalProtocolError
from icapscan.wire.encapsulated import BodyKind, Encapsulated
from icapscan.wire.fields import Fields
from icapscan.wire.icap_events import (
    BodyChunk,
    BodyEnd,
    Continue,
    Event,
    HttpHeads,
    PreviewEnd,
    RequestHead,
    Trailer,
)
from tests.wire.samples import (
    LAST,
    OK,
    URI,
    answer,
    chunk,
)
from tests.wire.sessions import (
    body_of,
    client,
    joined,
    kinds,
    take,
)


def ask(preview: int | None = None, *, trailers: bool = False) -> list[Event]:
    """A RESPMOD request up to its body."""
    sent = Encapsulated(None, len(OK), BodyKind.RESPONSE)
    fields = Fields.compose([(b"Host", b"h"), (b"Encapsulated", sent.encode())])
    head = RequestHead(b"RESPMOD", URI, fields, sent, preview, allow_trailers=trailers)
    return [head, HttpHeads(None, OK)]


def test_c10_c11_ieof_only_ends_a_preview() -> None:
    codec = client()
    assert b"".join(codec.send(*ask(10), BodyChunk(b"x"), BodyEnd(ieof=True))).endswith(b"1\r\nx\r\n0; ieof\r\n\r\n")
    codec = client()
    codec.send(*ask(None), BodyChunk(b"x"))
    with pytest.raises(LocalProtocolError):
        codec.send(BodyEnd(ieof=True))
    codec = client()
    codec.send(*ask(10), BodyChunk(b"x"))
    with pytest.raises(LocalProtocolError):
        codec.send(BodyEnd())


def test_c14_the_rest_waits_for_100() -> None:
    codec = client()
    codec.send(*ask(1), BodyChunk(b"x"), PreviewEnd())
    with pytest.raises(LocalProtocolError):
        codec.send(BodyChunk(b"y"))
    assert codec.receive(b"ICAP/1.0 100 Continue\r\n\r\n") == [Continue()]
    assert b"".join(codec.send(BodyChunk(b"y"), BodyEnd())) == b"1\r\ny\r\n0\r\n\r\n"


def test_c15_d122_an_unexpected_100_once_and_no_more() -> None:
    hundred = b"ICAP/1.0 100 Continue\r\n\r\n"
    events = take([hundred + answer()], ask())
    assert events[0] == Continue(expected=False)
    assert body_of(events) == b"hello"
    assert kinds(take([hundred * 2], ask())) == ["Continue", "Failure"]
    assert kinds(take([hundred * 1000], ask())) == ["Continue", "Failure"]


def test_c19_c20_an_early_answer_leaves_the_request_unfinished() -> None:
    codec = client()
    codec.send(*ask(), BodyChunk(b"x"))
    assert kinds(codec.receive(answer(b"404 Not found", res_hdr=None, body=None))) == ["ResponseHead", "HttpHeads"]
    with pytest.raises(LocalProtocolError):
        codec.next_transaction()
    codec.send(BodyEnd())
    codec.next_transaction()


def test_c13_c17_a_final_answer_to_a_preview_ends_the_request() -> None:
    codec = client()
    codec.send(*ask(1), BodyChunk(b"x"), PreviewEnd())
    codec.receive(answer(b"204 No modifications needed", res_hdr=None, body=None))
    codec.next_transaction()
    codec.send(*ask(), BodyEnd())


def test_c23_an_answer_without_encapsulated_has_no_body() -> None:
    assert kinds(take([b"ICAP/1.0 204 No Content\r\n\r\n"], ask())) == ["ResponseHead", "HttpHeads"]


def test_c60_d125_an_answer_cut_anywhere_is_a_failure() -> None:
    whole = answer()
    for cut in range(len(whole)):
        events = take([whole[:cut]], ask(), eof=True)
        assert kinds(events)[-1] == "Failure", cut
    assert kinds(take([whole], ask(), eof=True))[-1] == "PeerClosed"


def test_c39_d129_bytes_without_a_question_are_a_failure() -> None:
    codec = client()
    assert kinds(codec.receive(answer())) == ["Failure"]


def test_c39_bytes_behind_an_answer_are_kept_and_seen() -> None:
    codec = client()
    codec.send(*ask(), BodyEnd())
    codec.receive(answer(b"204 x", res_hdr=None, body=None) + LAST)
    assert codec.backlog == len(LAST)


def test_s108_c36_206_with_the_rest_of_the_original() -> None:
    data = answer(b"206 Partial Content", body=chunk(b"head") + b"0; use-original-body=100\r\n\r\n")
    assert take([data], ask())[-1] == BodyEnd(use_original_body=100)
    data = answer(b"200 OK", body=chunk(b"head") + b"0; use-original-body=100\r\n\r\n")
    assert take([data], ask())[-1] == BodyEnd()


def test_c56_d126_an_icap_trailer_only_where_it_was_offered() -> None:
    data = answer(fields=b"Allow: trailers\r\nTrailer: X-Infection-Found\r\n") + b"X-Infection-Found: Type=0\r\n\r\n"
    events = take([data], ask(trailers=True))
    assert events[-1] == Trailer(Fields(b"X-Infection-Found: Type=0\r\n"))
    codec = client()
    codec.send(*ask(), BodyEnd())
    assert kinds(joined(codec.receive(data)))[-1] == "BodyEnd"
    assert codec.backlog


def test_an_empty_icap_trailer_and_a_bad_one() -> None:
    start = answer(fields=b"Allow: trailers\r\nTrailer: X\r\n")
    assert take([start + b"\r\n"], ask(trailers=True))[-1] == Trailer(Fields())
    assert kinds(take([start + b"no colon\r\n\r\n"], ask(trailers=True)))[-1] == "Failure"
    assert kinds(take([start + b"X: " + b"y" * 20_000], ask(trailers=True)))[-1] == "Failure"


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",  # d121
        b"ICAP/1.0 200 OK\r\nX: " + b"y" * 100_000,  # d122
        b"ICAP/1.0 200 " + b"y" * 10_000,
        b"ICAP/1.0 200 OK\nX: y\n\n",
        b"ICAP/1.0 200 OK\r\nEncapsulated: res-hdr=10, res-body=20\r\n\r\n",  # d124
        b"ICAP/1.0 200 OK\r\nEncapsulated: res-body=0, res-hdr=20\r\n\r\n",
        answer(body=b"-1\r\n"),  # d125
        answer(body=b"ffffffffffffffff\r\n"),
        answer(body=b"text\r\n"),
        answer(body=b"5;" + b"x" * 5000),
    ],
)
def test_c44_d121_d122_d124_d125_hostile_servers(data: bytes) -> None:
    assert kinds(take([data], ask()))[-1] == "Failure"


def test_c11_an_empty_chunk_sends_nothing() -> None:
    codec = client()
    pieces = codec.send(*ask(preview=None), BodyChunk(b""), BodyChunk(b"hello"), BodyChunk(memoryview(b"")), BodyEnd())
    assert b"".join(pieces).endswith(OK + b"5\r\nhello\r\n0\r\n\r\n")
