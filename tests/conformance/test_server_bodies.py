"""Chunked bodies: sizes, extensions, trailers, limits (PROTOCOL A.4, D67-D85, D99, D108, D109)."""

from __future__ import annotations

import resource

import pytest

from icapscan.limits import Limits
from icapscan.policy.settings import PolicySettings, UnscannedSettings
from icapscan.store import Purse
from tests.conformance.fakes import FindsEicar
from tests.conformance.live import Live, Peer, with_server
from tests.wire.samples import EICAR, IEOF, LAST, chunk, chunked, options, respmod


@pytest.mark.parametrize(
    "size", [b"a", b"A", b"00000A", b"000000000000000a", b"a ", b'a;foo="b;ar"', b"a; x=1;y", b"a; ieof"]
)
def test_s55_s56_d69_d75_sizes_and_extensions(peer: Peer, size: bytes) -> None:
    answer = peer.ask(respmod(size + b"\r\n0123456789\r\n" + LAST, b""))
    assert answer.body == b"0123456789"
    assert peer.ask(options()).status == 200


BAD_BODIES = [
    (b"-1\r\nx\r\n" + LAST, "d67"),
    (b"+5\r\nhello\r\n" + LAST, "d67"),
    (b"0x5\r\nhello\r\n" + LAST, "d67"),
    (b" 5\r\nhello\r\n" + LAST, "d67"),
    (b"5_0\r\nhello\r\n" + LAST, "d67"),
    (b"g\r\nhello\r\n" + LAST, "d67"),
    (b"\r\nhello\r\n" + LAST, "d67"),
    (b"ffffffffffffffff\r\nhello\r\n" + LAST, "d68"),
    (b"8000000000000000\r\nhello\r\n" + LAST, "d68"),
    (b"00000000000000005\r\nhello\r\n" + LAST, "d68"),
    (b"0" * 3_000_000, "d70"),
    (b"5\nhello\r\n" + LAST, "d71"),
    (b"5;" + b"x" * 1_000_000, "d72"),
    (b"1;" + b"x" * 4000 + b"\r\ny\r\n" + (b"1;" + b"x" * 4000 + b"\r\ny\r\n") * 30, "d73"),
    (b'0;a="x\r\n";ieof\r\n\r\n', "d74"),
    (b'0;a="\n"\r\n\r\n', "d74"),
    (b"5\r\nhello!\r\n" + LAST, "d77"),
    (b"5\r\nhelloX" + LAST, "s60"),
    (b"0\r\nXX\r\n\r\n", "d83"),
    (b"0\r\nA : b\r\n\r\n", "d83"),
    (b"0\r\n" + b"X: y\r\n" * 100_000, "d84"),
    (b"0\r\nX: " + b"y" * 10_000_000, "d84"),
]


@pytest.mark.parametrize(("body", "rule"), BAD_BODIES, ids=[f"{rule} {body[:20]!r}" for body, rule in BAD_BODIES])
def test_s55_s56_s60_d67_d68_d70_d71_d72_d73_d74_d77_d83_d84_bad_bodies(live: Live, body: bytes, rule: str) -> None:
    """Behind an infected chunk, too: what is malformed gets no verdict at all, least of all a clean one."""
    for start in (b"", chunk(EICAR)):
        with live.bystander(), live.connect() as peer:
            peer.send_what_goes(respmod(start + body))
            answer = peer.answer()
            assert (answer.status, answer.closes) == (400, True)
            assert peer.rest_or_reset() == b""
    assert live.purse.memory_left == live.purse.disk_left == 1 << 30


@pytest.mark.parametrize("last", [b"0; ieof", b"0;ieof", b"0 ;ieof", b"0; IEOF", b'0; a="b"; ieof'])
def test_s57_s58_ieof_spellings(peer: Peer, last: bytes) -> None:
    body = chunk(b"hello") + last + b"\r\n\r\n"
    assert peer.ask(respmod(body, b"Preview: 1024\r\n")).status == 204
    assert peer.ask(respmod(body, b"")).body == b"hello"  # outside a preview: an ordinary end
    assert peer.ask(respmod(chunk(EICAR) + last + b"\r\n\r\n", b"")).get("X-Infection-Found") is not None


def test_s59_a_giant_declared_chunk_costs_only_what_arrives(live: Live) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with live.connect() as peer:
        peer.send(respmod(b"7fffffffffffffff\r\n0123456789"))
        live.wait(lambda: live.purse.memory_left == (1 << 30) - 10, "it is kept")
        peer.reset()
    live.wait(lambda: live.purse.memory_left == 1 << 30, "it is freed")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_s61_d85_d102_trailers_are_echoed_but_never_framing_ones(peer: Peer) -> None:
    trailer = b"X-Checksum: 1234\r\nContent-Length: 99\r\nEncapsulated: null-body=0\r\nTransfer-Encoding: gzip\r\n"
    answer = peer.ask(respmod(chunk(b"hello") + b"0\r\n" + trailer + b"\r\n", b""))
    assert answer.body == b"hello"
    assert answer.trailers == b"X-Checksum: 1234\r\n"
    assert peer.ask(respmod(chunk(b"hello") + b"0\r\n" + trailer + b"\r\n")).status == 204


def test_s62_d82_a_missing_final_crlf_is_forgiven(live: Live) -> None:
    for body, fields in ((b"0\r\n", b"Allow: 204\r\n"), (b"0; ieof\r\n", b"Preview: 99\r\n")):
        with live.connect() as peer:
            answer = peer.ask(respmod(chunk(b"hello") + body, fields))
            assert (answer.status, answer.closes) == (204, True)
            assert peer.rest() == b""
        with live.connect() as peer:
            answer = peer.ask(respmod(chunk(EICAR) + body, fields))
            assert answer.get("X-Infection-Found") is not None and answer.closes


def test_s62_after_100_a_missing_final_crlf_is_forgiven(live: Live) -> None:
    with live.connect() as peer:
        peer.send(respmod(chunked(b"hel"), b"Preview: 3\r\nAllow: 204\r\n"))
        peer.hundred()
        answer = peer.ask(chunk(b"lo") + b"0\r\n")
        assert (answer.status, answer.closes) == (204, True)
        peer.send_what_goes(b"\r\n")
        assert peer.rest() == b""


def test_s62_a_late_final_crlf_of_a_preview_does_no_harm(live: Live) -> None:
    with live.connect() as peer:
        peer.send(respmod(chunk(b"hel") + b"0\r\n", b"Preview: 3\r\nAllow: 204\r\n"))
        assert peer.silent(0.2)
        peer.send(b"\r\n")
        peer.hundred()
        assert peer.ask(chunked(b"lo")).status == 204


def test_s64_d108_a_body_over_the_limit_is_blocked() -> None:
    engine = FindsEicar()
    with Live(engine, limits=Limits(body=1000)) as live:
        assert live.ask(respmod(chunked(bytes(1000)))).status == 204
        with live.connect() as peer:
            peer.send(respmod(chunk(bytes(1001))))
            answer = peer.answer()
            assert (answer.status, answer.closes) == (200, True)
            assert answer.sections["res-hdr"].startswith(b"HTTP/1.1 403 ")
            assert answer.get("X-Infection-Found") == b"Type=2; Resolution=2; Threat=Unscanned.over-limit;"
            peer.send_what_goes(chunked(bytes(1_000_000)))
            assert peer.rest() == b""
        with live.connect() as peer:
            peer.send(respmod(chunked(bytes(900)), b"Preview: 900\r\nAllow: 204\r\n"))
            peer.hundred()
            answer = peer.ask(chunked(bytes(200)))
            assert answer.get("X-Infection-Found") is not None


def test_s64_d108_a_body_over_the_limit_passes_marked_where_policy_says_so() -> None:
    policy = PolicySettings(unscanned=UnscannedSettings(over_limit="allow"))
    with Live(limits=Limits(body=1000), policy=policy) as live, live.connect() as peer:
        body = bytes(range(256)) * 100
        answer = peer.ask(respmod(chunked(body, 300), b""))
        assert answer.body == body
        assert answer.get("X-Icapscan-Verdict") == b"unscanned; reason=over-limit"
        assert answer.get("X-Infection-Found") is None
        answer = peer.ask(respmod(chunked(EICAR + bytes(2000))))
        assert answer.get("X-Infection-Found") is not None or answer.get("X-Icapscan-Verdict") is not None
        assert peer.ask(respmod()).get("X-Icapscan-Verdict") is None


def test_d78_d111_a_client_that_leaves_in_the_middle_of_its_body(live: Live) -> None:
    for body in (b"", b"5", b"5\r\nhel", chunk(b"hello"), chunk(b"hello") + b"0", b"0\r\nX: y\r\n"):
        with live.connect() as peer:
            peer.send(respmod(body))
            peer.fin()
            answer = peer.answer()
            assert (answer.status, answer.closes) == (400, True)
            assert peer.rest() == b""
        assert live.last().verdict is None
    assert live.purse.memory_left == 1 << 30


def test_d80_a_reset_in_the_middle_of_a_chunk(live: Live) -> None:
    before = live.count()
    with live.bystander(), live.connect() as peer:
        peer.send(respmod(b"fffff\r\n" + bytes(100_000)))
        live.wait(lambda: live.purse.memory_left < 1 << 30, "it arrives")
        peer.reset()
        live.wait(lambda: len(live.records) > before, "it ended")
    assert live.records[before].status == 0
    assert live.purse.memory_left == 1 << 30


def test_d79_silence_in_the_middle_of_a_chunk() -> None:
    with Live(server=with_server(body_timeout=0.2)) as live, live.connect() as peer:
        answer = peer.ask(respmod(b"10\r\nhello"))
        assert (answer.status, answer.closes) == (408, True)


def test_s63_d81_a_hundred_thousand_chunks_of_one_byte(live: Live) -> None:
    data = bytes(range(250)) * 400
    with live.bystander():
        assert live.ask(respmod(chunked(data, 1), b"")).body == data


def test_d99_a_request_within_a_chunk_stays_data(live: Live) -> None:
    smuggled = b"hello\r\n0\r\n\r\n" + respmod(uri=b"icap://h/echo")
    before = live.count()
    assert live.ask(respmod(chunked(smuggled), b"")).body == smuggled
    assert live.count() == before + 1


def test_d109_no_room_for_a_body_is_503_and_passes() -> None:
    purse = Purse(50_000, 0)
    with Live(purse=purse) as live, live.bystander():
        with live.connect() as peer:
            answer = peer.ask(respmod(chunked(bytes(60_000), 10_000)))
            assert (answer.status, answer.closes) == (503, True)
        live.wait(lambda: purse.memory_left > 49_000, "it is freed")
        with live.connect() as peer:
            assert peer.ask(respmod(chunked(bytes(40_000)))).status == 204
            assert peer.ask(respmod(chunked(EICAR))).get("X-Infection-Found") is not None


def test_d109_an_empty_purse_refuses_bodies_but_not_options() -> None:
    with Live(purse=Purse(0, 0)) as live:
        assert live.ask(respmod()).status == 503
        assert live.ask(options()).status == 200
        assert live.ask(respmod(None)).status == 204


@pytest.mark.parametrize("code", ["EMFILE", "ENOSPC", "ENOMEM"])
def test_d109_no_descriptor_or_disk_is_an_error_and_passes(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    import errno
    import os

    def broken(*_: object) -> int:
        raise OSError(getattr(errno, code), "no more")

    limits = Limits(part_in_bytes=1000)
    with Live(limits=limits, mistakes_expected=True) as live, live.bystander():
        with monkeypatch.context() as patch:
            patch.setattr(os, "memfd_create", broken)
            patch.setattr("icapscan.store._spare", [])
            patch.setattr("icapscan.store._spare_long", [])
            with live.connect() as peer:
                answer = peer.ask(respmod(chunked(bytes(5000))))
                assert answer.status in (500, 503)
                assert answer.closes
        assert live.ask(respmod(chunked(bytes(5000)))).status == 204
        assert live.ask(respmod(chunked(bytes(5000) + EICAR))).get("X-Infection-Found") is not None


def test_d88_chunks_behind_ieof(live: Live) -> None:
    with live.connect() as peer:
        assert peer.ask(respmod(chunk(b"hello") + IEOF + chunked(EICAR), b"Preview: 10\r\n")).status == 204
        answer = peer.answer()
        assert (answer.status, answer.closes) == (400, True)
        assert peer.rest() == b""
