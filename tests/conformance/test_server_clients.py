"""What real clients send, at the live server, and how they read the answers (PROTOCOL C).

The requests are those of ``tests/transcripts/client_*.txt``; tests/e2e runs the clients themselves, as far as
they can be had.
"""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from icapscan.engines.contract import Part, Report
from icapscan.findings import Finding
from tests.conformance.fakes import FindsEicar
from tests.conformance.live import Answer, Live, Peer
from tests.wire.samples import EICAR, IEOF, OK, chunk, chunked, options, reqmod, respmod
from tests.wire.test_transcripts import FILES, Step, read

CLIENTS = [path for path in FILES if path.stem.startswith("client_")]
STAND_IN = b"(what a scanner would find)"


class FindsStandIn(FindsEicar):
    """Finds what stands for a virus in the transcripts."""

    async def scan(self, part: Part, seconds: float) -> Report:
        """One part."""
        return Report(self.name, (self.finding,) if STAND_IN in bytes(part.store.view()) else ())

    def glance(self, data: bytes) -> tuple[Finding, ...]:
        """A prefix."""
        return (self.finding,) if STAND_IN in data else ()


def parsed(data: bytes) -> Answer:
    """An answer out of a transcript."""
    near, far = socket.socketpair()
    with near, Peer(far) as peer:
        near.sendall(data)
        return peer.answer()


def follow(peer: Peer, steps: list[Step]) -> None:
    """Send what the client sends, and compare the server's answers in what clients look at."""
    for step in steps:
        if step.kind == "C":
            peer.send(step.data)
        elif step.kind == "S" and step.data.startswith(b"ICAP/1.0 100"):
            peer.hundred()
        elif step.kind == "S":
            expected, answer = parsed(step.data), peer.answer()
            assert (answer.status, answer.reason) == (expected.status, expected.reason)
            assert answer.closes is (expected.get("Connection") == b"close")
            assert list(answer.sections) == list(expected.sections)
            blocked = expected.get("X-Infection-Found") is not None
            assert (answer.get("X-Infection-Found") is not None) is blocked
            if not blocked:
                assert answer.body == expected.body


@pytest.mark.parametrize("path", CLIENTS, ids=lambda path: path.stem)
def test_s27_s30_s34_s48_s49_s51_s53_s57_s58_s72_requests_of_real_clients(path: Path) -> None:
    with Live(FindsStandIn()) as live, live.connect() as peer:
        follow(peer, read(path).steps)


def test_s62_d82_egirna_gets_its_answer_without_its_last_crlf(live: Live) -> None:
    (path,) = [path for path in CLIENTS if path.stem == "client_egirna"]
    with live.connect() as peer:
        follow(peer, read(path).steps)
        answer = peer.answer()
        assert (answer.status, answer.closes) == (204, True)
        assert peer.rest() == b""


def test_s18_s84_clients_of_the_egirna_family_know_where_an_answer_ends(live: Live) -> None:
    """They read until the bytes end with ``0`` CRLF CRLF, else until their deadline."""
    requests = [
        options(),
        options(b"icap://h/nope"),
        respmod(),
        respmod(fields=b""),
        respmod(chunked(EICAR)),
        respmod(chunk(b"x") + IEOF, b"Preview: 9\r\n"),
        b"x\r\n\r\n",
    ]
    for request in requests:
        with live.connect() as peer:
            peer.send(request)
            data = b""
            while not data.endswith(b"0\r\n\r\n"):
                piece = peer.socket.recv(65536)
                assert piece
                data += piece
            peer.pending = data
            peer.answer()
            assert peer.pending == b""


def test_s85_owncloud_stops_at_the_encapsulated_line(peer: Peer) -> None:
    for request in (respmod(chunked(EICAR)), reqmod(chunked(EICAR))):
        answer = peer.ask(request)
        before, _, after = answer.head.partition(b"\r\nEncapsulated: ")
        assert b"\r\nX-Infection-Found: " in before and b"\r\nX-Virus-ID: " in before
        assert after.count(b"\r\n") == 2


def test_s96_rspamd_reads_the_threat(peer: Peer) -> None:
    answer = peer.ask(respmod(chunked(EICAR), req_hdr=None, res_hdr=None))
    match = re.search(rb"Type=(.-?.?).*; .*Threat=([^;]+);", answer.get("X-Infection-Found") or b"")
    assert match is not None and match[2] == b"Eicar-Test"
    assert re.match(rb"HTTP/[12]\.[01] [234][0-9]{2}", answer.sections["res-hdr"])
    clean = peer.ask(respmod(fields=b"", req_hdr=None, res_hdr=None))
    assert re.match(rb"HTTP/[12]\.[01] [23][0-9]{2}", clean.sections["res-hdr"])


def test_s78_s94_nextcloud_finds_403_and_its_four_fields(live: Live) -> None:
    with live.connect() as peer:
        peer.send(reqmod(chunked(EICAR), b"Allow: 204\r\nConnection: close\r\n"))
        data = peer.rest()
    head, _, rest = data.partition(b"\r\n\r\n")
    status = head.split(b"\r\n")[0]
    assert re.fullmatch(rb"ICAP/([0-9.]+) ([0-9]+) (.+)", status)
    assert b"\r\nX-Infection-Found: " in head and b"\r\nEncapsulated: " in head
    assert rest.split(b"\r\n")[0] == b"HTTP/1.1 403 Forbidden"


def test_s87_g3_wants_the_first_offset_to_be_0_and_small_heads(peer: Peer) -> None:
    for request in (respmod(fields=b""), respmod(chunked(EICAR)), reqmod(fields=b""), options()):
        answer = peer.ask(request)
        assert len(answer.head) < 8192
        assert re.fullmatch(rb"(?:re[qs]-hdr=0, re[qs]-body=[0-9]+|null-body=0)", answer.get("Encapsulated") or b"")


def test_s106_traffic_server_reads_bare_chunk_sizes_and_a_known_length(live: Live) -> None:
    body = bytes(3_000_000)
    head = OK[:-2] + b"Content-Length: 3000000\r\n\r\n"
    with live.connect() as peer:
        answer = peer.ask(respmod(chunked(body, 60_000, IEOF), b"Connection: close\r\n", res_hdr=head))
        assert answer.status == 200 and answer.body == body
        assert b"Content-Length: 3000000\r\n" in answer.sections["res-hdr"]
