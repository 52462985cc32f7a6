"""However the bytes of a connection are cut, the events are the same (PROTOCOL D112, D113)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from icapscan.wire.encapsulated import BodyKind, Encapsulated
from icapscan.wire.fields import Fields
from icapscan.wire.icap_events import BodyEnd, Event, Failure, HttpHeads, PreviewEnd, RequestHead
from icapscan.wire.limits import DEFAULT, WireLimits
from tests.wire.samples import (
    GET,
    IEOF,
    LAST,
    OK,
    URI,
    answer,
    chunk,
    chunked,
    options,
    raw,
    reqmod,
    respmod,
)
from tests.wire.sessions import described, serve, take

SMALL = WireLimits(
    line=120,
    head=400,
    fields=8,
    http_head=200,
    chunk_line=60,
    extensions=80,
    trailer=100,
    preview_surplus=20,
    blank_lines=3,
)
"""Bounds so small that short inputs reach them, from both sides."""

REQUESTS = {
    "options": options(),
    "respmod": respmod(),
    "reqmod": reqmod(chunked(b"abcdefghij" * 5, 7)),
    "null-body": respmod(None, b"Preview: 0\r\nAllow: 204\r\n"),
    "preview": respmod(chunked(b"hello"), b"Preview: 5\r\n") + chunked(b" world", 2),
    "preview 0": respmod(LAST, b"Preview: 0\r\n") + chunked(b"late"),
    "ieof": respmod(chunked(b"hello", last=IEOF), b"Preview: 99\r\n"),
    "trailers": respmod(chunked(b"hello", last=b"0\r\nX-A: 1\r\nX-B: 2\r\n\r\n")),
    "extensions": respmod(b'5;a="b;c"; d\r\nhello\r\n0;x;y=z\r\n\r\n'),
    "no heads": raw(b"res-body=0", chunked(b"hello")),
    "empty lines": b"\r\n\r\n" + options() + b"\r\n\r\n\r\n" + options(),
    "folds": options(fields=b"Allow: 204,\r\n 206\r\nX:\r\n\ty\r\n"),
    "close": options(fields=b"Connection: close\r\n"),
    "options with a body": raw(b"opt-body=0", chunked(b"opt"), b"OPTIONS"),
    "pipelined": respmod() + options() + reqmod() + respmod(chunked(b"hello", last=IEOF), b"Preview: 9\r\n"),
    "rest sent ahead": respmod(chunked(b"a"), b"Preview: 1\r\n") + chunked(b"b") + options(),
}

HOSTILE = {
    "noise": bytes(range(256)) * 3,
    "http": b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "unknown method, long head": b"FOO icap://h/s ICAP/1.0\r\n" + b"X: y\r\n" * 500,
    "other version, bare LF later": b"OPTIONS icap://h/s ICAP/2.0\r\nX: y\nZ: a\r\n\r\n",
    "other version, bare LF": b"OPTIONS icap://h/s ICAP/2.0\nX: y\r\n\r\n",
    "other version, blank first": b" OPTIONS icap://h/s ICAP/2.0\r\nX: y\r\n\r\n",
    "long line": b"OPTIONS icap://h/" + b"x" * 500 + b" ICAP/1.0\r\n\r\n",
    "long line, blank first": b" OPTIONS icap://h/" + b"x" * 500 + b" ICAP/1.0\r\n\r\n",
    "long line with a bare LF": b"OPTIONS icap://h/\n" + b"x" * 500 + b" ICAP/1.0\r\n\r\n",
    "long line with a late bare LF": b"OPTIONS icap://h/" + b"x" * 500 + b"\nx ICAP/1.0\r\n\r\n",
    "long method": b"X" * 500 + b" icap://h/ ICAP/1.0\r\n\r\n",
    "bare CR": b"OPTIONS icap://h/s ICAP/1.0\r\nX: a\rb\r\n\r\n",
    "CR CR LF": b"OPTIONS icap://h/s ICAP/1.0\r\r\nX: ab\r\n\r\n",
    "empty lines": b"\r\n" * 20 + options(),
    "second garbage": respmod() + b"%&/ garbage\r\n\r\n",
    "stray last chunk": respmod(None) + LAST,
    "huge preview": respmod(chunked(b"x" * 60, 9), b"Preview: 4\r\n"),
    "huge preview in one chunk": respmod(chunked(b"x" * 60), b"Preview: 4\r\n"),
    "chunk without CRLF": respmod(b"5\r\nhelloXX"),
    "bad size": respmod(chunk(b"hello") + b"-1\r\nx"),
    "bare LF size": respmod(chunk(b"hello") + b"5\nhello\r\n"),
    "long chunk line": respmod(b"5;a=" + b"x" * 200 + b"\r\nhello\r\n"),
    "extension flood": respmod(b"1;aaaaaaaaaaaaaaaaaaaaaaa\r\nx\r\n" * 20),
    "trailer flood": respmod(b"0\r\n" + b"X: y\r\n" * 50 + b"\r\n"),
    "long trailer": respmod(b"0\r\nX: " + b"y" * 300 + b"\r\n\r\n"),
    "trailer without colon": respmod(b"0\r\nXX\r\n\r\n"),
    "trailer with bare LF": respmod(b"0\r\nX: y\nZ: a\r\n\r\n"),
    "many fields": options(fields=b"X: y\r\n" * 12),
    "two encapsulated": raw(b"res-body=0", b"", fields=b"Encapsulated: res-body=0\r\n"),
    "huge offset": raw(b"res-hdr=0, null-body=99999"),
    "offset too small": raw(b"res-hdr=0, res-body=10", OK + chunked(b"hello")),
    "body behind null-body": respmod(None) + chunked(b"hello"),
    "request in place of the rest": respmod(chunked(b"a"), b"Preview: 1\r\n") + options(),
}

ANSWERS = {
    "200": answer(),
    "204": answer(b"204 No modifications needed", res_hdr=None, body=None),
    "100 and 200": b"ICAP/1.0 100 Continue\r\n\r\n" + answer(body=chunked(b"abcdefgh", 3)),
    "100 and 204": b"ICAP/1.0 100 Continue\r\n\r\nICAP/1.0 204 No Content\r\n\r\n",
    "206": answer(b"206 Partial", body=chunk(b"x") + b"0; use-original-body=7\r\n\r\n"),
    "trailer": answer(fields=b"Trailer: X\r\n") + b"X: 1\r\nY: 2\r\n\r\n",
    "empty trailer": answer(fields=b"Trailer: X\r\n") + b"\r\n",
    "req-hdr": answer(req_hdr=GET, res_hdr=None, body=None),
    "http": b"HTTP/1.1 200 OK\r\n\r\n",
    "twice 100": b"ICAP/1.0 100 Continue\r\n\r\n" * 3,
    "bad trailer": answer(fields=b"Trailer: X\r\n") + b"no colon\r\n\r\n",
    "long trailer": answer(fields=b"Trailer: X\r\n") + b"X: " + b"y" * 20_000 + b"\r\n\r\n",
    "long line": b"ICAP/1.0 200 " + b"y" * 9000 + b"\r\n\r\n",
    "long head": b"ICAP/1.0 200 OK\r\n" + b"X: y\r\n" * 12_000 + b"\r\n",
    "bare LF": b"ICAP/1.0 200 OK\nX: y\n\n",
    "stray": answer() + answer(),
    "cut": answer()[:-3],
}

ASK: list[Event] = [
    RequestHead(
        b"RESPMOD",
        URI,
        Fields(b"Encapsulated: res-hdr=0, res-body=%d\r\n" % len(OK)),
        Encapsulated(None, len(OK), BodyKind.RESPONSE),
        preview=0,
        allow_trailers=True,
    ),
    HttpHeads(None, OK),
]


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """``data`` cut at the given places."""
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[start:stop] for start, stop in pairwise(places)] or [b""]


def splits(data: bytes) -> Iterator[list[bytes]]:
    """Byte by byte, each single cut, and with tails of some lengths."""
    yield [data[at : at + 1] for at in range(len(data))]
    for cut in range(1, len(data), max(1, len(data) // 400)):
        yield [data[:cut], data[cut:]]
    for tail in (1, 2, 3):
        yield [data[at : at + tail] for at in range(0, len(data), tail)]


def check_server(data: bytes, cut: list[bytes], *, limits: WireLimits, tolerant: bool, final: bool) -> None:
    """The same events whole and cut."""
    whole = serve([data], limits, tolerant=tolerant, final_at_preview=final, eof=True)
    parts = serve(cut, limits, tolerant=tolerant, final_at_preview=final, eof=True)
    assert described(parts) == described(whole)
    assert sum(isinstance(event, Failure) for event in parts) <= 1


@pytest.mark.parametrize("name", [*REQUESTS, *HOSTILE])
@pytest.mark.parametrize("tolerant", [False, True], ids=["strict", "tolerant"])
def test_d112_any_split_of_a_request(name: str, tolerant: bool) -> None:
    data = (REQUESTS | HOSTILE)[name]
    for limits in (DEFAULT, SMALL):
        for cut in splits(data):
            check_server(data, cut, limits=limits, tolerant=tolerant, final=False)


def test_d113_any_split_of_several_requests() -> None:
    data = b"".join(REQUESTS.values())
    for cut in splits(data):
        check_server(data, cut, limits=DEFAULT, tolerant=False, final=False)


@pytest.mark.parametrize("name", ANSWERS)
def test_d112_any_split_of_an_answer(name: str) -> None:
    data = ANSWERS[name]
    for request in ([*ASK, PreviewEnd()], [*ASK, BodyEnd(ieof=True)]):
        whole = described(take([data], request, eof=True))
        for cut in splits(data) if len(data) < 2000 else ([data[at : at + 61] for at in range(0, len(data), 61)],):
            assert described(take(cut, request, eof=True)) == whole


FRAGMENTS = st.sampled_from(
    [
        b"\r\n", b"\n", b"\r", b" ", b":", b";", b"0", b"5", b"0\r\n\r\n", b"; ieof", b"-1", b"\x00", b"\xff", b"\t",
        b"Preview: 4\r\n", b"Encapsulated: res-body=0\r\n", b"ICAP/1.0", b"hello", b"x" * 70, b"=", b",", b'"',
        b"OPTIONS icap://h/s ICAP/1.0\r\n\r\n", b"7fffffffffffffff\r\n", b"ffffffffffffffff\r\n",
    ]
)  # fmt: skip
MUTATIONS = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 12), FRAGMENTS), max_size=4)


def mutate(data: bytes, mutations: list[tuple[int, int, bytes]]) -> bytes:
    """``data`` with each fragment put at its place over so many bytes."""
    for at, over, fragment in mutations:
        at %= len(data) + 1
        data = data[:at] + fragment + data[at + over :]
    return data


@settings(max_examples=400)
@given(
    st.lists(st.sampled_from([*REQUESTS.values(), *HOSTILE.values()]), min_size=1, max_size=3).map(b"".join),
    MUTATIONS,
    st.lists(st.integers(0, 100_000), max_size=8),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
@example(respmod(chunked(b"x" * 24, 3), b"Preview: 4\r\n"), [], list(range(400)), True, False, False)
def test_d112_d113_any_split_of_mutated_requests(
    data: bytes,
    mutations: list[tuple[int, int, bytes]],
    cuts: list[int],
    small: bool,
    tolerant: bool,
    final: bool,
) -> None:
    data = mutate(data, mutations)
    limits = SMALL if small else DEFAULT
    check_server(data, pieces(data, cuts), limits=limits, tolerant=tolerant, final=final)
    check_server(data, [data[at : at + 1] for at in range(len(data))], limits=limits, tolerant=tolerant, final=final)


@settings(max_examples=200)
@given(
    st.sampled_from([data for data in ANSWERS.values() if len(data) < 2000]),
    MUTATIONS,
    st.lists(st.integers(0, 100_000), max_size=8),
)
def test_d112_any_split_of_mutated_answers(
    data: bytes, mutations: list[tuple[int, int, bytes]], cuts: list[int]
) -> None:
    data = mutate(data, mutations)
    request = [*ASK, PreviewEnd()]
    whole = take([data], request, eof=True)
    for cut in (pieces(data, cuts), [data[at : at + 1] for at in range(len(data))]):
        assert described(take(cut, request, eof=True)) == described(whole)


@pytest.mark.parametrize(
    ("field", "make"),
    [
        ("line", lambda size: b"OPTIONS icap://h/" + b"x" * (size - 26) + b" ICAP/1.0\r\n\r\n"),
        ("head", lambda size: b"OPTIONS icap://h/s ICAP/1.0\r\nX: " + b"x" * (size - 34) + b"\r\n\r\n"),
        ("chunk_line", lambda size: raw(b"res-body=0", b"5;" + b"x" * (size - 2) + b"\r\nhello\r\n" + LAST)),
        ("trailer", lambda size: raw(b"res-body=0", b"0\r\nX: " + b"x" * (size - 3) + b"\r\n\r\n")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_s36_s56_bounds_are_met_to_the_byte_however_it_is_cut(field: str, make: Callable[[int], bytes]) -> None:
    limits = WireLimits(line=100, head=300, chunk_line=60, trailer=90)
    bound = getattr(limits, field)
    for size, fails in ((bound, False), (bound + 1, True), (bound + 2, True)):
        data = make(size)
        for cut in ([data], [data[at : at + 1] for at in range(len(data))]):
            events = serve(cut, limits)
            assert any(isinstance(event, Failure) for event in events) is fails, (field, size, len(cut))
