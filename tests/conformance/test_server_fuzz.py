"""Random conversations against the live server.

Invariants: the server makes no mistake of its own; what it sends is a row of well-formed answers, at most the last one
an error that closes; a body with EICAR in it is never passed, however it is framed and cut; others are served.
"""

from __future__ import annotations

import random

import pytest

from icapscan.limits import Limits
from tests.conformance.live import Live, Peer, with_server
from tests.fuzz.fuzz_icap import corpus, cut, mutate
from tests.wire.samples import EICAR, GET, IEOF, LAST, OK, POST, chunk, options, reqmod, respmod

SEEDS = [*corpus(), respmod(), reqmod(), options(), respmod(None), respmod() + options() + reqmod()]


def answers(peer: Peer) -> list[int]:
    """The statuses of all answers up to the end of the connection."""
    data = peer.rest_or_reset()
    peer.pending = data.replace(b"ICAP/1.0 100 Continue\r\n\r\n", b"")
    statuses = []
    while peer.pending:
        answer = peer.answer()
        statuses.append(answer.status)
        assert not answer.closes or not peer.pending, "something follows an answer that closes"
    return statuses


@pytest.mark.parametrize("seed", [1, 2])
def test_d2_d112_mutated_conversations(seed: int) -> None:
    rng = random.Random(seed)
    with Live() as live, live.bystander():
        for number in range(250):
            data = mutate(rng, SEEDS)
            with live.connect() as peer:
                for piece in cut(rng, data) if number % 3 == 0 else [data]:
                    peer.send_what_goes(piece)
                try:
                    peer.fin()
                except OSError:
                    pass  # the server was faster
                statuses = answers(peer)
            assert all(status in (200, 204, 400, 404, 405, 414, 501, 505) for status in statuses), data
            assert not any(status >= 400 and status not in (404, 405) for status in statuses[:-1]), data
            assert live.mistakes == [], data


def frame(rng: random.Random, body: bytes) -> tuple[bytes, bytes]:
    """A request with ``body`` and what follows a 100, framed in some legal way."""
    allow = rng.choice((b"", b"Allow: 204\r\n", b"Allow: 204, 206, trailers\r\n"))
    extension = rng.choice((b"", b"", b";x", b'; a="b;c"'))
    last = rng.choice((LAST, LAST, b"0;x\r\n\r\n", b"000\r\nX-T: 1\r\n\r\n"))

    def chunks(data: bytes) -> bytes:
        wire, at = b"", 0
        while at < len(data):
            size = rng.choice((1, 3, 20, 1000, 100_000))
            piece = data[at : at + size]
            wire += b"%x%s\r\n%s\r\n" % (len(piece), extension, piece)
            at += size
        return wire

    preview = rng.choice((None, None, 0, rng.randrange(len(body)), len(body)))
    rest = b""
    if preview is None:
        fields, wire = allow, chunks(body) + last
    elif preview == len(body):
        fields, wire = b"Preview: %d\r\n%s" % (preview, allow), chunks(body) + IEOF
    else:
        fields, wire = b"Preview: %d\r\n%s" % (preview, allow), chunks(body[:preview]) + LAST
        rest = chunks(body[preview:]) + last
    if rng.random() < 0.3:
        return reqmod(wire, fields, req_hdr=rng.choice((POST, None))), rest
    return respmod(wire, fields, req_hdr=rng.choice((GET, None)), res_hdr=rng.choice((OK, None))), rest


@pytest.mark.parametrize("limits", [Limits(), Limits(part_in_bytes=0), Limits(part_in_bytes=0, part_in_memory=0)])
def test_s63_s75_s91_infected_never_passes_and_clean_comes_back_however_framed(limits: Limits) -> None:
    rng = random.Random(7)
    with Live(limits=limits, server=with_server(final_crlf_grace=30.0)) as live, live.connect() as peer:
        for number in range(300):
            infected = number % 2 == 0
            filler = rng.randbytes(rng.choice((0, 1, 70, 5000)))
            body = filler + (EICAR if infected else b"harmless") + rng.randbytes(rng.choice((0, 1, 5000)))
            request, rest = frame(rng, body)
            for piece in cut(rng, request) if number % 5 == 0 else [request]:
                peer.send(piece)
            while len(peer.pending) < 13:
                peer.pending += peer.socket.recv(1 << 20)
            if peer.pending.startswith(b"ICAP/1.0 100"):
                peer.hundred()
                peer.send(rest)
            answer = peer.answer()
            if infected:
                assert answer.status == 200 and answer.get("X-Infection-Found") is not None
                assert EICAR not in (answer.body or b"")
            else:
                assert answer.get("X-Infection-Found") is None
                assert answer.status == 204 or answer.body == body
            assert not answer.closes


def test_every_cut_of_an_infected_request_is_blocked_or_no_verdict(live: Live) -> None:
    """A connection that ends early gets no verdict at all; one that is complete is blocked."""
    request = respmod(chunk(EICAR) + LAST)
    for size in range(1, len(request), 7):
        with live.connect() as peer:
            peer.send(request[:size])
            peer.fin()
            assert answers(peer) in ([400], [])
    with live.connect() as peer:
        peer.send(request)
        peer.fin()
        assert answers(peer) == [200]
