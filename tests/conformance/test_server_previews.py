"""Previews: when 100 is sent, and when not (PROTOCOL A.5, D86-D94)."""

from __future__ import annotations

import pytest

from tests.conformance.live import Live, Peer, with_server
from tests.wire.samples import EICAR, IEOF, LAST, chunk, chunked, options, reqmod, respmod

PREVIEW = b"Preview: %d\r\n"
ALLOW = b"Allow: 204\r\n"


def test_s65_fewer_bytes_than_announced(peer: Peer) -> None:
    peer.send(respmod(chunked(b"0123456789"), PREVIEW % 4096 + ALLOW))
    peer.hundred()
    assert peer.ask(chunked(b"rest")).status == 204


def test_s66_d86_more_bytes_than_announced(live: Live) -> None:
    with live.connect() as peer:
        peer.send(respmod(chunked(bytes(100)), PREVIEW % 4))
        peer.hundred()
        assert peer.ask(LAST).body == bytes(100)
    with live.connect() as peer:
        peer.send_what_goes(respmod(chunked(bytes(200_000), 1000), PREVIEW % 4))
        answer = peer.answer()
        assert (answer.status, answer.closes) == (400, True)


@pytest.mark.parametrize("last", [b"0; ieof", b"0;ieof", b"0 ;ieof", b"0; IEOF", b"0;a=b; ieof"])
def test_s57_s67_ieof_is_answered_without_100(peer: Peer, last: bytes) -> None:
    for body, status in ((b"hello", 204), (EICAR, 200), (b"", 204)):
        answer = peer.ask(respmod(chunk(body) + last + b"\r\n\r\n", PREVIEW % 1024))
        assert answer.status == status
    assert peer.silent(0.05)


@pytest.mark.parametrize("last", [b"0; ieof=1", b"0; ieofx", b"0; xieof", b'0;a="ieof"'])
def test_d74_d76_what_is_not_ieof_gets_100(peer: Peer, last: bytes) -> None:
    peer.send(respmod(chunk(b"hello") + last + b"\r\n\r\n", PREVIEW % 1024 + ALLOW))
    peer.hundred()
    answer = peer.ask(chunked(EICAR))
    assert answer.get("X-Infection-Found") is not None


def test_s68_100_is_these_bytes_once(peer: Peer) -> None:
    peer.send(respmod(LAST, PREVIEW % 0 + ALLOW))
    peer.hundred()
    assert peer.pending == b"" and peer.silent()
    peer.send(chunk(b"hello"))
    assert peer.silent(0.05)
    assert peer.ask(LAST).status == 204


def test_s69_100_waits_for_the_zero_chunk(peer: Peer) -> None:
    peer.send(respmod(b"", PREVIEW % 5 + ALLOW))
    for piece in (b"", b"5\r\nhel", b"lo\r\n", b"0\r\n"):
        peer.send(piece)
        assert peer.silent(0.05)
    peer.send(b"\r\n")
    peer.hundred()
    assert peer.ask(LAST).status == 204


def test_s69_no_100_without_a_preview(peer: Peer) -> None:
    peer.send(respmod(chunk(b"hello"), ALLOW))
    assert peer.silent()
    assert peer.ask(LAST).status == 204


def test_s70_s76_a_hit_in_the_preview_is_answered_and_the_connection_goes_on(peer: Peer) -> None:
    for _ in range(3):
        answer = peer.ask(respmod(chunked(EICAR), PREVIEW % 68))
        assert (answer.status, answer.closes) == (200, False)
        assert answer.sections["res-hdr"].startswith(b"HTTP/1.1 403 Forbidden\r\n")
        assert peer.ask(options()).status == 200


def test_s71_204_inside_a_preview_needs_no_allow(peer: Peer) -> None:
    assert peer.ask(respmod(chunk(b"hello") + IEOF, PREVIEW % 1024)).status == 204
    assert peer.ask(reqmod(chunk(b"hello") + IEOF, PREVIEW % 1024)).status == 204


def test_s72_204_behind_100_needs_allow(peer: Peer) -> None:
    peer.send(respmod(chunked(b"hel"), PREVIEW % 3))
    peer.hundred()
    answer = peer.ask(chunked(b"lo"))
    assert (answer.status, answer.body) == (200, b"hello")
    peer.send(respmod(chunked(b"hel"), PREVIEW % 3 + ALLOW))
    peer.hundred()
    assert peer.ask(chunked(b"lo")).status == 204


def test_s73_d92_preview_of_nothing(peer: Peer) -> None:
    peer.send(respmod(LAST, PREVIEW % 0))
    peer.hundred()
    assert peer.ask(chunked(b"late")).body == b"late"
    peer.send(respmod(chunked(b"early "), PREVIEW % 0))
    peer.hundred()
    assert peer.ask(chunked(b"late")).body == b"early late"


def test_s74_d94_preview_and_null_body(live: Live) -> None:
    with live.connect() as peer:
        assert peer.ask(respmod(None, PREVIEW % 0)).status == 204
        assert peer.ask(respmod(None, PREVIEW % 100)).status == 204
        assert peer.ask(respmod(None, PREVIEW % 0) + LAST).status == 204
        answer = peer.answer()
        assert (answer.status, answer.closes) == (400, True)
        assert peer.rest() == b""


def test_s75_a_clean_preview_of_a_longer_body_proves_nothing(peer: Peer) -> None:
    peer.send(respmod(chunked(bytes(1024)), PREVIEW % 1024 + ALLOW))
    peer.hundred()
    answer = peer.ask(chunked(bytes(1_000_000), 60_000, b"") + chunked(EICAR))
    assert answer.status == 200
    assert answer.get("X-Infection-Found") is not None


def test_s77_silence_behind_100() -> None:
    with Live(server=with_server(body_timeout=0.2)) as live, live.connect() as peer:
        peer.send(respmod(LAST, PREVIEW % 0))
        peer.hundred()
        answer = peer.answer()
        assert (answer.status, answer.closes) == (408, True)
        assert peer.rest() == b""


def test_d87_d89_the_rest_without_waiting(peer: Peer) -> None:
    peer.send(respmod(chunked(b"hello "), PREVIEW % 6) + chunked(b"world") + options())
    peer.hundred()
    assert peer.answer().body == b"hello world"
    assert peer.answer().get("Methods") is not None


def test_d87_the_rest_behind_a_final_answer_is_no_request(live: Live) -> None:
    with live.connect() as peer:
        answer = peer.ask(respmod(chunked(EICAR), PREVIEW % 68) + chunked(b"rest"))
        assert answer.get("X-Infection-Found") is not None
        answer = peer.answer()
        assert (answer.status, answer.closes) == (400, True)
        assert peer.rest() == b""


def test_d90_a_preview_sent_again_is_scanned_as_sent(peer: Peer) -> None:
    peer.send(respmod(chunked(b"hello"), PREVIEW % 5))
    peer.hundred()
    assert peer.ask(chunked(b"hello world")).body == b"hellohello world"


def test_d91_a_request_in_place_of_the_rest(live: Live) -> None:
    with live.connect() as peer:
        peer.send(respmod(chunked(b"hello"), PREVIEW % 5))
        peer.hundred()
        answer = peer.ask(options())
        assert (answer.status, answer.closes) == (400, True)
        assert peer.rest() == b""
