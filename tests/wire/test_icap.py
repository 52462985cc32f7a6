"""What a server makes of the bytes of a client."""

from __future__ import annotations

import pytest

from icapscan.errors import LocalProtocolError
from icapscan.wire.icap_events import (
    BodyChunk,
    BodyEnd,
    Continue,
    Failure,
    HttpHeads,
    PreviewEnd,
    RequestHead,
)
from icapscan.wire.icap_states import State
from icapscan.wire.limits import DEFAULT
from tests.wire.samples import (
    GET,
    IEOF,
    LAST,
    OK,
    POST,
    chunk,
    chunked,
    options,
    raw,
    reqmod,
    respmod,
    sections,
)
from tests.wire.sessions import (
    NO_CONTENT,
    ServerSession,
    body_of,
    described,
    joined,
    kinds,
    serve,
    server,
    statuses,
)


def failure(*pieces: bytes, eof: bool = False) -> int:
    """The status of the failure that ``pieces`` end with."""
    events = serve(pieces, eof=eof)
    assert isinstance(events[-1], Failure), described(events)
    assert len(statuses(events)) == 1
    return events[-1].error.status


# What a server reads


def test_s8_s9_pipelined_requests_come_one_after_the_other() -> None:
    session = ServerSession()
    session.feed(respmod() + options() + reqmod(chunked(b"upload")))
    assert kinds(joined(session.events)) == [
        "RequestHead", "HttpHeads", "BodyChunk", "BodyEnd",
        "RequestHead", "HttpHeads",
        "RequestHead", "HttpHeads", "BodyChunk", "BodyEnd",
    ]  # fmt: skip
    assert session.sent.count(b"ICAP/1.0 204") == 3


def test_s9_what_is_sent_ahead_is_kept_and_not_read() -> None:
    codec = server()
    events = codec.receive(options() + options(b"icap://h/echo"))
    assert kinds(events) == ["RequestHead", "HttpHeads"]
    assert codec.backlog == len(options(b"icap://h/echo"))
    codec.send(NO_CONTENT, HttpHeads())
    codec.next_transaction()
    (head, _) = codec.receive(b"")
    assert isinstance(head, RequestHead) and head.path == b"/echo"
    assert codec.backlog == 0


def test_s10_d117_empty_lines_before_a_request() -> None:
    assert kinds(serve([b"\r\n\r\n" + options()])) == ["RequestHead", "HttpHeads"]
    assert kinds(serve([b"\r\n" * 8 + options()])) == ["RequestHead", "HttpHeads"]
    assert failure(b"\r\n" * 9 + options()) == 400
    assert failure(*[b"\r\n" * 100] * 10) == 400
    assert (
        kinds(serve([options() + b"\r\n" * 8 + options() + b"\r\n" * 8 + options()]))
        == ["RequestHead", "HttpHeads"] * 3
    )


@pytest.mark.parametrize("start", [b"\n", b"\r\r", b"\rX", b"\r\n\n"])
def test_s35_empty_lines_of_bare_cr_or_lf(start: bytes) -> None:
    assert failure(start + options()) == 400


@pytest.mark.parametrize(
    "value",
    [
        b"req-hdr=0, res-hdr=%d, res-body=%d",
        b"res-hdr=0, res-body=%d",
        b"req-hdr=0, res-body=%d",
        b"res-body=0",
    ],
)
def test_s43_s48_d61_heads_are_cut_by_offsets(value: bytes) -> None:
    req = GET if b"req-hdr" in value else None
    res = OK if b"res-hdr" in value else None
    data = respmod(chunked(b"hello"), req_hdr=req, res_hdr=res)
    events = serve([data])
    assert events[1] == HttpHeads(req, res)
    assert body_of(events) == b"hello"


def test_s48_d63_an_inner_blank_line_does_not_end_a_head() -> None:
    head = GET + b"HTTP/1.1 200 OK\r\n\r\n\r\nmore\n\n\x00"
    events = serve([respmod(chunked(b"hello"), req_hdr=head)])
    assert events[1] == HttpHeads(head, OK)
    assert body_of(events) == b"hello"


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 3\r\n\r\n",
        b"\r\n",
        b"HTTP/1.1 200 OK\n\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n",
        b"\x00" * 5,
        b"A: b\r\n c\r\n\r\n",
    ],
)
def test_s51_d62_d64_d103_http_heads_are_opaque(head: bytes) -> None:
    events = serve([respmod(chunked(b"hello"), res_hdr=head)])
    assert events[1] == HttpHeads(GET, head)
    assert body_of(events) == b"hello"


def test_s50_heads_up_to_the_bound_and_not_beyond() -> None:
    head = b"HTTP/1.1 200 OK\r\nX: " + b"x" * (DEFAULT.http_head - 24) + b"\r\n\r\n"
    assert len(head) == DEFAULT.http_head
    assert serve([respmod(None, res_hdr=head)])[1] == HttpHeads(GET, head)
    assert failure(respmod(None, res_hdr=head + b"x")) == 400
    assert failure(raw(b"res-hdr=0, null-body=2147483647")) == 400


def test_d50_empty_sections_are_no_heads() -> None:
    events = serve([raw(b"req-hdr=0, res-hdr=0, res-body=0", chunked(b"hello"))])
    assert events[1] == HttpHeads(None, None)
    assert body_of(events) == b"hello"


def test_s52_s74_null_body_with_a_preview_reads_no_chunk() -> None:
    for preview in (b"0", b"1024"):
        session = ServerSession()
        session.feed(respmod(None, b"Preview: " + preview + b"\r\nAllow: 204\r\n") + options())
        assert kinds(session.events) == ["RequestHead", "HttpHeads"] * 2
        assert b"100 Continue" not in session.sent


def test_d94_a_stray_last_chunk_behind_null_body_is_a_bad_request() -> None:
    session = ServerSession()
    session.feed(respmod(None, b"Preview: 0\r\n") + LAST)
    assert kinds(session.events) == ["RequestHead", "HttpHeads", "Failure"]
    assert session.sent.startswith(b"ICAP/1.0 204")


def test_d59_a_body_behind_null_body_is_a_bad_request() -> None:
    events = serve([respmod(None) + chunked(b"hello")])
    assert kinds(events) == ["RequestHead", "HttpHeads", "Failure"]
    assert body_of(events) == b""


def test_s53_d65_d100_http_framing_does_not_frame() -> None:
    hidden = b"x" * 10 + respmod()
    for fields in (
        b"Content-Length: 1\r\n", b"Content-Length: -1\r\n", b"Content-Length: 99999999999999999999\r\n",
        b"Content-Length: 1\r\nContent-Length: 2\r\n", b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"Transfer-Encoding: gzip\r\n",
    ):  # fmt: skip
        events = serve([respmod(chunked(hidden), res_hdr=b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n")])
        assert kinds(events) == ["RequestHead", "HttpHeads", "BodyChunk", "BodyEnd"]
        assert body_of(events) == hidden


def test_d99_a_request_within_the_body_stays_data() -> None:
    smuggled = b"hello\r\n0\r\n\r\n" + respmod(uri=b"icap://h/echo")
    events = serve([respmod(chunked(smuggled))])
    assert kinds(events).count("RequestHead") == 1
    assert body_of(events) == smuggled


def test_d102_an_encapsulated_field_in_an_http_head_is_opaque() -> None:
    events = serve([respmod(chunked(b"hello"), res_hdr=b"HTTP/1.1 200 OK\r\nEncapsulated: null-body=0\r\n\r\n")])
    assert body_of(events) == b"hello"


def test_s58_ieof_without_a_preview_is_an_ordinary_end() -> None:
    session = ServerSession()
    session.feed(respmod(chunked(b"hello", last=IEOF), b""))
    assert session.events[-1] == BodyEnd(ieof=True)
    assert session.codec.request_state is State.IDLE
    assert b"100 Continue" not in session.sent


def test_s63_d81_many_small_chunks_and_a_giant_one() -> None:
    data = bytes(range(256)) * 200
    for size in (1, 7, 4096, len(data)):
        assert body_of(serve([respmod(chunked(data, size))])) == data


def test_s59_a_giant_declared_chunk_keeps_nothing() -> None:
    codec = server()
    codec.receive(respmod(b"7fffffffffffffff\r\n"))
    for _ in range(100):
        (event,) = codec.receive(b"x" * 1000)
        assert isinstance(event, BodyChunk) and len(event.data) == 1000
        assert codec.backlog == 0


def test_s61_trailers_come_with_the_end() -> None:
    events = serve([respmod(chunked(b"hello", last=b"0\r\nX-T: 1\r\n\r\n"))])
    assert events[-1] == BodyEnd(trailers=b"X-T: 1\r\n")


def test_s62_d82_a_missing_final_crlf_is_seen_and_forgiven() -> None:
    codec = server()
    seen = []
    for piece in (respmod(b"5\r\nhello\r\n"), b"0\r\n"):
        codec.receive(piece)
        seen.append(codec.awaits_final_crlf)
    assert codec.forgive_final_crlf() == [BodyEnd()]
    seen.append(codec.awaits_final_crlf)
    assert seen == [False, True, False]
    assert codec.request_state is State.DONE


def test_s62_a_trailer_under_way_is_not_forgiven() -> None:
    codec = server()
    codec.receive(respmod(b"5\r\nhello\r\n0\r\nX-T: 1\r\n"))
    assert not codec.awaits_final_crlf


def test_s62_a_preview_that_has_more_is_waited_for() -> None:
    codec = server()
    codec.receive(respmod(b"5\r\nhello\r\n0\r\n", b"Preview: 5\r\n"))
    assert not codec.awaits_final_crlf
    assert kinds(codec.receive(b"\r\n")) == ["PreviewEnd"]


def test_s62_a_preview_that_is_all_may_lack_it_too() -> None:
    codec = server()
    codec.receive(respmod(b"5\r\nhello\r\n0; ieof\r\n", b"Preview: 10\r\n"))
    assert codec.awaits_final_crlf
    assert codec.forgive_final_crlf() == [BodyEnd(ieof=True)]


# Previews


def test_s65_fewer_preview_bytes_than_announced() -> None:
    session = ServerSession()
    session.feed(respmod(chunked(b"0123456789"), b"Preview: 4096\r\n"))
    assert described(session.events)[2:] == ['body "0123456789"', "preview-end"]
    assert session.sent == b"ICAP/1.0 100 Continue\r\n\r\n"


def test_s66_d86_more_preview_bytes_than_announced() -> None:
    assert kinds(serve([respmod(chunked(b"x" * 100), b"Preview: 4\r\n")]))[-1] == "PreviewEnd"
    most = 4 + DEFAULT.preview_surplus
    assert kinds(serve([respmod(chunked(b"x" * most), b"Preview: 4\r\n")]))[-1] == "PreviewEnd"
    events = serve([respmod(chunked(b"x" * most)[:-5] + chunk(b"x") + LAST, b"Preview: 4\r\n")])
    assert statuses(events) == [400]
    assert len(body_of(events)) == most


@pytest.mark.parametrize("last", [b"0; ieof", b"0;ieof", b"0 ;ieof", b"0;IEOF", b'0; a="b"; ieof'])
def test_s57_s67_ieof_ends_the_body(last: bytes) -> None:
    session = ServerSession()
    session.feed(respmod(chunk(b"hello") + last + b"\r\n\r\n", b"Preview: 1024\r\n"))
    assert session.events[-1] == BodyEnd(ieof=True)
    assert b"100 Continue" not in session.sent


@pytest.mark.parametrize("last", [b"0; ieof=1", b"0; ieofx", b"0; xieof", b'0;a="ieof"'])
def test_d74_d76_what_is_not_ieof_is_continued(last: bytes) -> None:
    session = ServerSession()
    session.feed(respmod(chunk(b"hello") + last + b"\r\n\r\n", b"Preview: 1024\r\n"))
    assert session.events[-1] == PreviewEnd()
    assert session.sent == b"ICAP/1.0 100 Continue\r\n\r\n"


def test_d75_ieof_on_a_data_chunk_ends_nothing() -> None:
    events = serve([respmod(b"5; ieof\r\nhello\r\n1\r\n!\r\n" + LAST, b"Preview: 1024\r\n")])
    assert body_of(events) == b"hello!"
    assert events[-1] == PreviewEnd()


def test_s68_100_is_exactly_this() -> None:
    codec = server()
    codec.receive(respmod(LAST, b"Preview: 0\r\n"))
    assert b"".join(codec.send(Continue())) == b"ICAP/1.0 100 Continue\r\n\r\n"


def test_s68_s69_100_once_and_only_behind_a_preview_that_has_more() -> None:
    codec = server()
    for data in (b"", respmod(b"", b"Preview: 10\r\n"), b"5\r\nhel", b"lo\r\n", b"0\r\n"):
        codec.receive(data)
        with pytest.raises(LocalProtocolError):
            codec.send(Continue())
    codec.receive(b"\r\n")
    codec.send(Continue())
    with pytest.raises(LocalProtocolError):
        codec.send(Continue())


def test_s67_100_never_follows_ieof() -> None:
    codec = server()
    codec.receive(respmod(chunked(b"hello", last=IEOF), b"Preview: 10\r\n"))
    with pytest.raises(LocalProtocolError):
        codec.send(Continue())


def test_s69_100_is_illegal_without_a_preview() -> None:
    codec = server()
    codec.receive(respmod())
    with pytest.raises(LocalProtocolError):
        codec.send(Continue())


def test_s70_s71_a_final_answer_to_a_preview_ends_the_body() -> None:
    events = serve([respmod(chunked(b"hello"), b"Preview: 5\r\n") + options()], final_at_preview=True)
    assert kinds(events) == ["RequestHead", "HttpHeads", "BodyChunk", "PreviewEnd", "RequestHead", "HttpHeads"]


def test_s73_d92_preview_0_with_and_without_early_chunks() -> None:
    for body, expected in ((LAST, b""), (chunked(b"early"), b"early")):
        session = ServerSession()
        session.feed(respmod(body, b"Preview: 0\r\n"))
        assert session.events[-1] == PreviewEnd()
        assert session.sent == b"ICAP/1.0 100 Continue\r\n\r\n"
        session.feed(chunked(b"rest"))
        assert body_of(session.events) == expected + b"rest"


def test_d87_d89_the_rest_sent_without_waiting_is_the_rest() -> None:
    session = ServerSession()
    session.feed(respmod(chunked(b"hello "), b"Preview: 6\r\n") + chunked(b"world") + options())
    assert body_of(session.events) == b"hello world"
    assert session.sent.count(b"100 Continue") == 1
    assert kinds(joined(session.events)).count("RequestHead") == 2


def test_d87_behind_a_final_answer_the_rest_is_a_bad_request() -> None:
    events = serve([respmod(chunked(b"hello "), b"Preview: 6\r\n") + chunked(b"world")], final_at_preview=True)
    assert kinds(events) == ["RequestHead", "HttpHeads", "BodyChunk", "PreviewEnd", "Failure"]
    assert statuses(events) == [400]
    assert body_of(events) == b"hello "


def test_d88_chunks_behind_ieof_are_a_bad_request() -> None:
    events = serve([respmod(chunked(b"hello", last=IEOF) + chunked(b"more"), b"Preview: 10\r\n")])
    assert kinds(events) == ["RequestHead", "HttpHeads", "BodyChunk", "BodyEnd", "Failure"]


def test_d90_a_repeated_preview_is_part_of_the_body() -> None:
    events = serve([respmod(chunked(b"hello"), b"Preview: 5\r\n"), chunked(b"hello")])
    assert body_of(events) == b"hellohello"


def test_d91_a_request_line_in_place_of_the_rest() -> None:
    assert failure(respmod(chunked(b"hello"), b"Preview: 5\r\n"), options()) == 400


def test_d39_a_huge_announced_preview_costs_nothing() -> None:
    events = serve([respmod(chunked(b"hello", last=IEOF), b"Preview: 2147483647\r\n")])
    assert body_of(events) == b"hello" and events[-1] == BodyEnd(ieof=True)


# Bad heads


def test_s36_d6_a_line_without_end_is_414() -> None:
    line = b"OPTIONS icap://h/" + b"x" * 9000
    assert failure(line) == 414
    assert failure(*[line[at : at + 1] for at in range(len(line))]) == 414


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x01\x02" + bytes(range(256)) * 40,  # d2
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # d3
        b"GET / HTTP/1.1\r\n",  # d5
        b"x" * 1_000_000,  # d6, and nothing like a method
    ],
)
def test_d2_d3_d5_d6_other_protocols_and_noise_are_refused_at_once(data: bytes) -> None:
    assert failure(data) == 400


def test_s36_a_head_up_to_the_bound_and_not_beyond() -> None:
    def padded(size: int) -> bytes:
        start = b"OPTIONS icap://h/s ICAP/1.0\r\nX: "
        return start + b"x" * (size - len(start) - 2) + b"\r\n"

    assert kinds(serve([padded(DEFAULT.head) + b"\r\n"])) == ["RequestHead", "HttpHeads"]
    assert failure(padded(DEFAULT.head + 1) + b"\r\n") == 400
    assert failure(padded(10_000_000)) == 400  # d31


def test_d30_d31_d32_heads_without_end_are_refused_early() -> None:
    start = b"OPTIONS icap://h/s ICAP/1.0\r\n"
    for rest in (b"X: y\r\n" * 100_000, b"X: " + b"y" * 10_000_000, b"X: y\r\n" + b" more\r\n" * 100_000):
        codec, fed = server(), 0
        data = start + rest
        while not (events := codec.receive(data[fed : fed + 4096])):
            fed += 4096
            assert fed <= DEFAULT.head + 4096
        assert statuses(events) == [400]


def test_d11_an_unknown_method_with_a_body() -> None:
    assert failure(respmod().replace(b"RESPMOD", b"FOO", 1)) == 501
    assert failure(b"FOO icap://h/s ICAP/1.0\r\n") == 501


@pytest.mark.parametrize(
    "head",
    [
        b"OPTIONS icap://h/s ICAP/1.0\nHost: h\n\n",
        b"OPTIONS icap://h/s ICAP/1.0\r\nHost: h\n\r\n",
        b"OPTIONS icap://h/s ICAP/1.0\r\nHost: h\nAllow: 204\r\n\r\n",
        b"OPTIONS icap://h/s ICAP/1.0\r\nHost: h\r\n\n",
    ],
)
def test_s35_d27_d28_bare_line_feeds(head: bytes) -> None:
    assert failure(head) == 400


def test_s35_d27_bare_line_feeds_where_they_are_tolerated() -> None:
    head = b"RESPMOD icap://h/s ICAP/1.0\nAllow: 204\r\nEncapsulated: res-body=0\n"
    for end in (b"\n", b"\r\n"):
        events = serve([head + end + chunked(b"hello")], tolerant=True)
        assert described(events) == ["request RESPMOD /s res-body allow=204", "heads", 'body "hello"', "body-end"]
    events = serve([b"\n\r\n" + options()], tolerant=True)
    assert kinds(events) == ["RequestHead", "HttpHeads"]


def test_d26_bare_carriage_returns_are_never_tolerated() -> None:
    for tolerant in (False, True):
        events = serve([b"OPTIONS icap://h/s ICAP/1.0\nX: a\rb\n\n"], tolerant=tolerant)
        assert statuses(events) == [400]


def test_d52_an_offset_that_is_too_small() -> None:
    value = sections(GET, OK[:-10], b"res-body")
    assert failure(raw(value, GET + OK + chunked(b"hello"))) == 400


def test_d51_an_offset_that_is_too_large_waits() -> None:
    codec = server()
    events = codec.receive(raw(b"res-hdr=0, res-body=1000", OK))
    assert kinds(events) == ["RequestHead"]
    assert codec.request_state is State.HEADS


def test_d96_garbage_behind_a_request() -> None:
    events = serve([respmod() + b"%&/ garbage\r\n\r\n"])
    assert kinds(events)[-2:] == ["BodyEnd", "Failure"]


def test_d95_a_second_last_chunk_behind_a_request() -> None:
    session = ServerSession()
    session.feed(respmod(LAST, b"Connection: close\r\n") + LAST)
    assert kinds(session.events) == ["RequestHead", "HttpHeads", "BodyEnd", "Failure"]
    assert session.sent.startswith(b"ICAP/1.0 204")


def test_every_failure_has_a_plain_sentence() -> None:
    for data in (b"\x00", b"FOO icap://h/s ICAP/1.0\r\n", b"OPTIONS * ICAP/1.0\r\n", raw(b"x"), respmod(b"zz\r\n")):
        (failed,) = [event for event in serve([data]) if isinstance(event, Failure)]
        sentence = str(failed.error)
        assert sentence.endswith(".") and "\n" not in sentence and len(sentence) < 200


def test_d25_hostile_bytes_of_a_peer_do_not_get_into_sentences() -> None:
    for data in (raw(b"res-body=0", fields=b"A\xff\x1b[31m: x\r\n"), b"\x1b[31m icap://h/s ICAP/1.0\r\n"):
        (failed,) = [event for event in serve([data]) if isinstance(event, Failure)]
        assert str(failed.error).isascii() and "\x1b" not in str(failed.error)


def test_reqmod_and_respmod_are_one_codec() -> None:
    assert described(serve([reqmod()])) == [
        f"request REQMOD /avscan req:{len(POST)}+req-body allow=204",
        'heads req="' + described([HttpHeads(POST)])[0].partition('"')[2],
        'body "hello"',
        "body-end",
    ]
