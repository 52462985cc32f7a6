"""Encapsulated sections: where heads end and bodies begin (PROTOCOL A.3, D44-D66)."""

from __future__ import annotations

import pytest

from icapscan.limits import Limits
from icapscan.policy.settings import PolicySettings
from tests.conformance.fakes import FindsEicar
from tests.conformance.live import Live, Peer, with_server
from tests.wire.samples import (
    EICAR,
    GET,
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

REQ, RES = len(GET), len(GET) + len(OK)


@pytest.mark.parametrize("body", [None, chunked(b"hello")])
@pytest.mark.parametrize("head", [None, POST])
def test_s42_forms_of_reqmod(peer: Peer, head: bytes | None, body: bytes | None) -> None:
    if head is None and body is None:
        assert peer.ask(reqmod(None, req_hdr=None)).status == 400  # nothing is encapsulated at all
        return
    assert peer.ask(reqmod(body, req_hdr=head)).status == 204
    answer = peer.ask(reqmod(body, b"", req_hdr=head))
    assert answer.status == 200 and answer.body == (None if body is None else b"hello")


@pytest.mark.parametrize("body", [None, chunked(b"hello")])
@pytest.mark.parametrize("res_hdr", [None, OK])
@pytest.mark.parametrize("req_hdr", [None, GET])
def test_s43_d61_forms_of_respmod(peer: Peer, req_hdr: bytes | None, res_hdr: bytes | None, body: bytes | None) -> None:
    if req_hdr is None and res_hdr is None and body is None:
        assert peer.ask(respmod(None, req_hdr=None, res_hdr=None)).status == 400
        return
    assert peer.ask(respmod(body, req_hdr=req_hdr, res_hdr=res_hdr)).status == 204
    answer = peer.ask(respmod(body, b"", req_hdr=req_hdr, res_hdr=res_hdr))
    assert answer.status == 200 and answer.body == (None if body is None else b"hello")


@pytest.mark.parametrize("req_hdr", [None, GET])
@pytest.mark.parametrize("res_hdr", [None, OK])
def test_s54_d61_every_composition_is_scanned(peer: Peer, req_hdr: bytes | None, res_hdr: bytes | None) -> None:
    answer = peer.ask(respmod(chunked(EICAR), req_hdr=req_hdr, res_hdr=res_hdr))
    assert answer.status == 200 and answer.get("X-Infection-Found") is not None


BAD = [
    (b"RESPMOD", None, "d44"),
    (b"REQMOD", None, "d44"),
    (b"RESPMOD", b"", "d45"),
    (b"RESPMOD", b"foo=0", "d46"),
    (b"RESPMOD", b"opt-body=0", "d46"),
    (b"RESPMOD", b"req-hdr=0, req-body=10", "d46"),
    (b"REQMOD", b"res-hdr=0, res-body=10", "d46"),
    (b"REQMOD", b"res-hdr=0, req-body=10", "d46"),
    (b"REQMOD", b"req-hdr=0, res-body=10", "d46"),
    (b"RESPMOD", b"res-body", "d47"),
    (b"RESPMOD", b"res-body=", "d47"),
    (b"RESPMOD", b"res-body=-1", "d47"),
    (b"RESPMOD", b"res-body=+0", "d47"),
    (b"RESPMOD", b"res-body=0x10", "d47"),
    (b"RESPMOD", b"res-body=1.5", "d47"),
    (b"RESPMOD", "res-body=٣".encode(), "d47"),
    (b"RESPMOD", b"res-body= 0", "d47"),
    (b"RESPMOD", b"req-hdr=0, res-hdr=137, res-body=100", "d48"),
    (b"RESPMOD", b"res-hdr=50, res-body=90", "d49"),
    (b"RESPMOD", b"res-hdr=0, res-body=2147483648", "d53"),
    (b"RESPMOD", b"res-hdr=0, res-body=4294967296", "d53"),
    (b"RESPMOD", b"res-hdr=0, res-body=9223372036854775808", "d53"),
    (b"RESPMOD", b"res-hdr=0, res-body=18446744073709551616", "d53"),
    (b"RESPMOD", b"res-hdr=0, res-body=" + b"9" * 500, "d53"),
    (b"RESPMOD", b"res-hdr=0, null-body=2147483647", "d53 s50"),
    (b"RESPMOD", b"res-hdr=0, res-body=65537", "s50"),
    (b"RESPMOD", b"res-body=0, res-hdr=10", "d54"),
    (b"RESPMOD", b"req-body=10, res-body=20", "d55"),
    (b"RESPMOD", b"req-hdr=0, req-body=10, res-hdr=20, res-body=30", "d55"),
    (b"RESPMOD", b"res-hdr=0, null-body=10, res-body=10", "d56"),
    (b"RESPMOD", b"res-hdr=0, res-hdr=10, res-body=20", "d57"),
    (b"RESPMOD", b", ".join([b"res-hdr=0"] * 10_000) + b", res-body=0", "d58"),
    (b"RESPMOD", b"req-hdr=0", "d60"),
]


@pytest.mark.parametrize(("method", "value", "rule"), BAD, ids=[f"{rule} {str(value)[:60]}" for _, value, rule in BAD])
def test_s44_s47_s50_d44_d45_d46_d47_d48_d49_d53_d54_d55_d56_d57_d58_d60_bad_lists(
    live: Live, method: bytes, value: bytes | None, rule: str
) -> None:
    with live.bystander(), live.connect() as peer:
        peer.send_what_goes(raw(value, chunked(b"hello"), method))
        answer = peer.answer()
        assert (answer.status, answer.closes) == (400, True)
        assert peer.rest_or_reset() == b""


def test_s45_options_with_and_without_encapsulated(peer: Peer) -> None:
    assert peer.ask(options()).status == 200
    assert peer.ask(options(fields=b"Encapsulated: null-body=0\r\n")).status == 200


def test_s46_options_with_a_body(live: Live) -> None:
    with live.connect() as peer:
        assert peer.ask(raw(b"opt-body=0", chunked(b"some options"), b"OPTIONS")).status == 200
        assert peer.ask(respmod()).status == 204
        peer.send_what_goes(raw(b"opt-body=0", chunked(bytes(3_000_000), 60_000), b"OPTIONS"))
        answer = peer.answer()
        assert (answer.status, answer.closes) == (400, True)


@pytest.mark.parametrize("separator", [b",", b", ", b" , ", b",\t", b" ", b"   "])
def test_s49_separators(peer: Peer, separator: bytes) -> None:
    value = sections(GET, OK, b"res-body").replace(b", ", separator)
    answer = peer.ask(raw(value, GET + OK + chunked(EICAR)))
    assert answer.get("X-Infection-Found") is not None


def test_s48_d63_an_inner_blank_line_does_not_hide_the_body(peer: Peer) -> None:
    head = GET + b"HTTP/1.1 200 OK\r\n\r\nmore\r\n"
    assert peer.ask(respmod(chunked(b"hello"), req_hdr=head)).status == 204
    assert peer.ask(respmod(chunked(EICAR), req_hdr=head)).get("X-Infection-Found") is not None
    answer = peer.ask(respmod(chunked(b"hello"), b"", res_hdr=OK + b"X: second block\r\n\r\n"))
    assert answer.body == b"hello"


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 3\r\n\r\n",
        b"\r\n",
        b"\r\n\r\n",
        b"HTTP/1.1 200 OK\nA: b\n\n",
        b"HTTP/1.1 200 OK\r\nA: b",
        b"\x00\xff\n",
    ],
)
def test_s51_s90_d62_broken_heads_are_scanned_and_replaced(peer: Peer, head: bytes) -> None:
    assert peer.ask(respmod(chunked(EICAR), res_hdr=head)).get("X-Infection-Found") is not None
    answer = peer.ask(respmod(chunked(b"hello"), b"", res_hdr=head))
    assert answer.status == 200 and answer.body == b"hello"
    sent = answer.sections["res-hdr"]
    assert sent.startswith(b"HTTP/1.1 200 OK\r\n") and sent.endswith(b"\r\n\r\n")
    assert b"\n" not in sent.replace(b"\r\n", b"") and b"\x00" not in sent


def test_s52_s74_null_body_with_a_preview_is_answered_at_once(peer: Peer) -> None:
    for preview in (b"0", b"1024"):
        for request in (respmod(None, b"Preview: %s\r\n" % preview), reqmod(None, b"Preview: %s\r\n" % preview)):
            assert peer.ask(request).status == 204
    assert peer.ask(options()).status == 200


@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Length: 1\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 99999999999999999999999\r\n",
        b"Content-Length: 1\r\nContent-Length: 2\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
        b"X: y\r\n Transfer-Encoding: chunked\r\n",  # d103
        b"Encapsulated: null-body=0\r\n",  # d102
    ],
)
def test_s53_d65_d100_d102_d103_http_fields_do_not_frame(peer: Peer, fields: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n"
    body = b"x" * 100_000
    answer = peer.ask(respmod(chunked(body), b"", res_hdr=head))
    assert answer.body == body
    assert answer.sections["res-hdr"].startswith(head[:-2])
    answer = peer.ask(respmod(chunked(body + EICAR), res_hdr=head))
    assert answer.get("X-Infection-Found") is not None


def test_d100_a_request_behind_the_content_length_is_body(live: Live) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    body = b"hello" + LAST + respmod(uri=b"icap://h/echo")
    before = live.count()
    assert live.ask(respmod(chunked(body), res_hdr=head)).status == 204
    assert live.count() == before + 1
    assert live.last().size == len(body)


def test_d50_empty_sections(peer: Peer) -> None:
    answer = peer.ask(raw(b"req-hdr=0, res-hdr=0, res-body=%d" % len(OK), OK + chunked(b"hello")))
    assert answer.body == b"hello" and answer.sections["res-hdr"].startswith(OK[:-2])
    answer = peer.ask(raw(b"req-hdr=0, res-hdr=0, res-body=0", chunked(EICAR)))
    assert answer.get("X-Infection-Found") is not None


def test_d51_a_head_shorter_than_promised() -> None:
    with Live(server=with_server(head_timeout=0.2)) as live, live.connect() as peer:
        answer = peer.ask(raw(b"res-hdr=0, res-body=1000", OK))
        assert (answer.status, answer.closes) == (408, True)


def test_d52_a_head_longer_than_promised(live: Live) -> None:
    with live.connect() as peer:
        answer = peer.ask(raw(b"res-hdr=0, res-body=%d" % (len(OK) - 10), OK + chunked(EICAR)))
        assert (answer.status, answer.closes) == (400, True)


def test_d59_a_body_behind_null_body_is_never_called_clean(live: Live) -> None:
    with live.connect() as peer:
        answer = peer.ask(respmod(None) + chunked(EICAR))
        assert answer.status == 204
        answer = peer.answer()
        assert (answer.status, answer.closes) == (400, True)
        assert peer.rest_or_reset() == b""
    assert [record.size for record in live.records[-2:]] == [0, 0]


def test_d64_hostile_http_heads(peer: Peer) -> None:
    hostile = b"GET http://h/<script>alert(1)</script> HTTP/1.1\r\nX: \x00\xff\r\nEvil\r\nY: a\rb\r\n\r\n"
    res = b"HTTP/1.1 200 <b>OK</b>\r\nSet-Cookie: a=b\r\nX-Infection-Found: no\r\n\r\n"
    answer = peer.ask(respmod(chunked(EICAR), req_hdr=hostile, res_hdr=res))
    assert answer.status == 200
    page = answer.sections["res-hdr"] + (answer.body or b"")
    assert page.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert b"Set-Cookie" not in page and b"<script>alert" not in page and b"Evil" not in page
    assert (
        peer.ask(respmod(chunked(b"x"), req_hdr=b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 10_000 + b"\r\n")).status == 204
    )


def test_d64_a_megabyte_of_http_head_is_refused(live: Live) -> None:
    with live.connect() as peer:
        peer.send_what_goes(respmod(chunked(b"x"), res_hdr=b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 170_000 + b"\r\n"))
        answer = peer.answer()
        assert (answer.status, answer.closes) == (400, True)


def test_d66_a_gzip_bomb_is_over_the_limit() -> None:
    import gzip

    bomb = gzip.compress(bytes(20_000_000))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n"
    with Live(limits=Limits(unpacked=1_000_000)) as live:
        answer = live.ask(respmod(chunked(bomb), res_hdr=head))
        assert answer.status == 200
        assert b"Threat=Unscanned.over-limit;" in (answer.get("X-Infection-Found") or b"")
        assert (answer.get("X-Infection-Found") or b"").startswith(b"Type=2;")
    settings = PolicySettings()
    allowing = PolicySettings(unscanned=type(settings.unscanned)(over_limit="allow"))
    with Live(limits=Limits(unpacked=1_000_000), policy=allowing) as live:
        answer = live.ask(respmod(chunked(bomb), res_hdr=head))
        assert answer.status == 204
        assert answer.get("X-Infection-Found") is None
        assert answer.get("X-Icapscan-Verdict") == b"unscanned; reason=over-limit"


def test_s63_what_the_scanner_sees_is_what_was_sent() -> None:
    engine = FindsEicar()
    data = bytes(range(256)) * 300
    with Live(engine) as live, live.connect() as peer:
        for size in (1, 1000, len(data)):
            assert peer.ask(respmod(chunked(data, size))).status == 204
        peer.send(respmod(b""))
        for at in range(0, len(data), 997):
            peer.send(chunk(data[at : at + 997]))
        assert peer.ask(LAST).status == 204
    assert engine.scanned == [data] * 4
