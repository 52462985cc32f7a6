"""Bodies that were clean before are not scanned again, and nothing else is passed for that reason."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from icapscan.engines.cache import HASH_INLINE, CacheSettings, ReportCache
from icapscan.findings import Reason
from icapscan.limits import Limits
from icapscan.policy.settings import PolicySettings, UnscannedSettings
from tests.conformance.fakes import Fails, FindsEicar
from tests.conformance.live import Live, Peer
from tests.wire.samples import EICAR, OK, chunked, respmod

BODY = b"the same bytes " * 50


@pytest.fixture
def scanner() -> FindsEicar:
    return FindsEicar()


@pytest.fixture
def live(scanner: FindsEicar) -> Iterator[Live]:
    with Live(scanner, cache=ReportCache(CacheSettings())) as server:
        yield server


def statuses(live: Live, *requests: bytes) -> list[int]:
    """In one piece each, so that they come the short way."""
    with live.connect() as peer:
        return [peer.ask(request).status for request in requests]


def test_from_the_third_time_on_it_is_not_scanned(live: Live, scanner: FindsEicar) -> None:
    assert statuses(live, *[respmod(chunked(BODY))] * 5) == [204] * 5
    assert scanner.scanned == [BODY] * 2
    assert [(one.asked, one.cached) for one in live.records] == [(1, 0)] * 2 + [(1, 1)] * 3
    assert all(one.decision == "allow" and one.size == len(BODY) for one in live.records)


def test_where_204_is_not_offered_it_is_copied_back(live: Live, scanner: FindsEicar) -> None:
    with live.connect() as peer:
        answers = [peer.ask(respmod(chunked(BODY), b"")) for _ in range(4)]
    assert [answer.body for answer in answers] == [BODY] * 4
    assert len(scanner.scanned) == 2


def test_what_is_infected_is_blocked_each_time(live: Live) -> None:
    body = BODY + EICAR
    with live.connect() as peer:
        for _ in range(5):
            answer = peer.ask(respmod(chunked(body)))
            assert answer.status == 200 and answer.get("X-Infection-Found") is not None


@pytest.mark.parametrize("reason", [Reason.ENGINE_FAILED, Reason.TIMEOUT])
def test_what_was_not_scanned_is_never_known(reason: Reason) -> None:
    with Live(Fails(reason), cache=ReportCache(CacheSettings())) as live:
        with live.connect() as peer:
            assert {peer.ask(respmod(chunked(BODY))).status for _ in range(5)} <= {500, 503}
        assert live.cache is not None and len(live.cache) == 0


@pytest.mark.parametrize(
    "other",
    [
        respmod(chunked(BODY), req_hdr=b"GET http://h/name.exe HTTP/1.1\r\nHost: h\r\n\r\n"),
        respmod(chunked(BODY), res_hdr=OK[:-2] + b"Content-Type: text/html\r\n\r\n"),
        respmod(chunked(BODY), res_hdr=OK[:-2] + b"Content-Disposition: attachment; filename=a.com\r\n\r\n"),
        respmod(chunked(BODY + b"!")),
    ],
    ids=["name", "type", "disposition", "bytes"],
)
def test_what_is_said_to_be_something_else_is_scanned(live: Live, scanner: FindsEicar, other: bytes) -> None:
    assert statuses(live, *[respmod(chunked(BODY))] * 3, other) == [204] * 4
    assert len(scanner.scanned) == 3


def test_a_coding_that_the_head_hides_is_never_known(live: Live) -> None:
    hidden = respmod(chunked(BODY), res_hdr=OK[:-2] + b"Content-Encoding\t: gzip\r\n\r\n")
    first = statuses(live, hidden)
    assert statuses(live, *[respmod(chunked(BODY))] * 3, *[hidden] * 3) == [204] * 3 + first * 3


def test_a_part_of_something_is_never_known(live: Live) -> None:
    """A range of a content is blocked, also when the same bytes were clean as a whole."""
    partial = respmod(chunked(BODY), res_hdr=b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-749/9999\r\n\r\n")
    assert statuses(live, *[respmod(chunked(BODY))] * 3, partial) == [204] * 3 + [200]


def test_it_is_forgotten_when_the_engines_change(live: Live, scanner: FindsEicar) -> None:
    assert live.cache is not None
    statuses(live, *[respmod(chunked(BODY))] * 3)
    live.call(live.cache.clear)
    statuses(live, *[respmod(chunked(BODY))] * 3)
    assert len(scanner.scanned) == 3


def test_where_rules_look_at_bodies_each_is_scanned(scanner: FindsEicar) -> None:
    rules = PolicySettings(rules=({"name": "small", "when": {"size": "> 10 MB"}, "action": "block"},))
    with Live(scanner, cache=ReportCache(CacheSettings()), policy=rules) as live:
        assert statuses(live, *[respmod(chunked(BODY))] * 4) == [204] * 4
    assert len(scanner.scanned) == 4


def test_a_preview_that_holds_all_of_it(live: Live, scanner: FindsEicar) -> None:
    request = respmod(chunked(BODY, last=b"0; ieof\r\n\r\n"), b"Preview: 4096\r\n")
    assert statuses(live, *[request] * 4) == [204] * 4
    assert len(scanner.scanned) == 2


def test_in_pieces_it_is_known_too(live: Live, scanner: FindsEicar) -> None:
    with live.connect() as peer:
        assert [_slowly(live, peer, respmod(chunked(BODY))) for _ in range(5)] == [204] * 5
    assert scanner.scanned == [BODY] * 2
    assert [(one.asked, one.cached, one.size) for one in live.records][2:] == [(1, 1, len(BODY))] * 3


def test_whether_it_came_in_pieces_makes_no_difference(live: Live, scanner: FindsEicar) -> None:
    statuses(live, *[respmod(chunked(BODY))] * 2)
    with live.connect() as peer:
        assert _slowly(live, peer, respmod(chunked(BODY))) == 204
        assert [_slowly(live, peer, respmod(chunked(BODY), b"")) for _ in range(2)] == [200] * 2
    assert len(scanner.scanned) == 2


def test_what_is_infected_in_pieces_is_blocked_each_time(live: Live) -> None:
    with live.connect() as peer:
        assert [_slowly(live, peer, respmod(chunked(BODY + EICAR))) for _ in range(4)] == [200] * 4
    assert all(one.decision == "block" for one in live.records)


def test_a_long_one_is_scanned_each_time(live: Live, scanner: FindsEicar) -> None:
    """Its digest would hold up the others."""
    body = bytes(HASH_INLINE + 1)
    with live.connect() as peer:
        assert [peer.ask(respmod(chunked(body))).status for _ in range(3)] == [204] * 3
    assert len(scanner.scanned) == 3


def test_what_failed_on_the_way_is_not_forgotten(scanner: FindsEicar) -> None:
    """A limit that is met while the body arrives counts, also where the same bytes were clean within another one."""
    cache = ReportCache(CacheSettings())
    request = respmod(chunked(BODY))
    with Live(scanner, cache=cache) as live:
        assert statuses(live, *[request] * 3) == [204] * 3
    passing = PolicySettings(unscanned=UnscannedSettings(over_limit="allow"))
    with Live(scanner, cache=cache, limits=Limits(body=100), policy=passing) as live, live.connect() as peer:
        assert _slowly(live, peer, request) == 204
        verdict = live.wait_records(1)[0].verdict
    assert verdict is not None and [one.reason for one in verdict.unscanned] == [Reason.OVER_LIMIT]


def _slowly(live: Live, peer: Peer, request: bytes) -> int:
    before = len(live.records)
    peer.send(request[:-20])
    live.wait(lambda: bool(live.shared.connections) and len(live.records) == before, "the first piece is there")
    return peer.ask(request[-20:]).status
