"""Request lines and ICAP fields, good and hostile (PROTOCOL A.2, D2-D43)."""

from __future__ import annotations

import pytest

from tests.conformance.live import Live, Peer, with_server
from tests.wire.samples import EICAR, IEOF, LAST, OK, chunk, chunked, options, raw, reqmod, respmod

BAD_LINES = [
    (b"RESPMOD", 400),  # d7
    (b"RESPMOD icap://h/avscan", 400),  # d7
    (b"RESPMOD icap://h/avscan ICAP/1.0 x", 400),  # d7
    (b"RESPMOD  icap://h/avscan ICAP/1.0", 400),  # d8
    (b"RESPMOD\ticap://h/avscan\tICAP/1.0", 400),  # d8
    (b" RESPMOD icap://h/avscan ICAP/1.0", 400),
    (b"respmod icap://h/avscan ICAP/1.0", 501),  # d9
    (b"FOO icap://h/avscan ICAP/1.0", 501),
    (b"X" * 10240 + b" icap://h/avscan ICAP/1.0", 400),  # d10
    (b"RESP\x01MOD icap://h/avscan ICAP/1.0", 400),  # d10
    (b"RESPMOD /avscan ICAP/1.0", 400),  # d12
    (b"OPTIONS * ICAP/1.0", 400),  # d13
    (b"RESPMOD http://h/avscan ICAP/1.0", 400),  # d14
    (b"RESPMOD icap://h/avscan?" + b"q" * 100_000 + b" ICAP/1.0", 414),  # d18
    (b"RESPMOD icap://h/avscan ICAP/1.1", 505),  # d19
    (b"RESPMOD icap://h/avscan ICAP/2.0", 505),  # d19
    (b"RESPMOD icap://h/avscan ICAP/01.00", 505),  # d19
    (b"RESPMOD icap://h/avscan ICAP/9999999999.0", 505),  # d19
    (b"RESPMOD icap://h/avscan ICAP/1", 400),  # d19
    (b"RESPMOD icap://h/avscan ICAP/1.0.0", 400),  # d19
    (b"RESPMOD icap://h/avscan HTTP/1.1", 400),
    (b"GET / HTTP/1.1", 400),  # d5
    (b"x" * 1_000_000, 400),  # d6
    (b"OPTIONS icap://h/" + b"x" * 1_000_000, 414),  # d6
]


@pytest.mark.parametrize(("line", "status"), BAD_LINES, ids=[repr(line[:45]) for line, _ in BAD_LINES])
def test_s20_s21_s23_d5_d6_d7_d8_d9_d10_d11_d12_d13_d14_d18_d19_bad_request_lines(
    live: Live, line: bytes, status: int
) -> None:
    """Each with a body following, which is not read as anything."""
    with live.bystander(), live.connect() as peer:
        peer.send_what_goes(line + b"\r\nHost: h\r\nEncapsulated: res-body=0\r\n\r\n" + chunked(b"hello"))
        answer = peer.answer()
        assert (answer.status, answer.closes) == (status, True)
        assert peer.rest_or_reset() == b""


@pytest.mark.parametrize("path", [b"", b"/", b"/avscan", b"/echo", b"/respmod-only", b"/nope", b"/a/b/c"])
def test_s22_options_never_answers_501(live: Live, path: bytes) -> None:
    assert live.ask(options(b"icap://h" + path)).status in (200, 404)


def test_s24_d15_unknown_paths_are_404(live: Live) -> None:
    for request in (options(b"icap://h/nope"), respmod(uri=b"icap://h/nope"), reqmod(uri=b"icap://h/avscan/x")):
        assert live.ask(request).status == 404


@pytest.mark.parametrize("uri", [b"icap://", b"icap:///avscan", b"icap://h", b"icap://h/", b"icap://h?x"])
def test_d15_empty_hosts_and_paths_are_the_default_service(live: Live, uri: bytes) -> None:
    assert live.ask(options(uri)).status == 200


def test_s25_methods_that_a_service_does_not_do(live: Live) -> None:
    for uri, request in ((b"icap://h/respmod-only", reqmod), (b"icap://h/reqmod-only", respmod)):
        with live.connect() as peer:
            answer = peer.ask(request(None, uri=uri))
            assert (answer.status, answer.closes) == (405, False)
            answer = peer.ask(request(b"5\r\nhel", uri=uri))
            assert (answer.status, answer.closes) == (405, True)
        assert live.ask((respmod if request is reqmod else reqmod)(uri=uri)).status == 204


@pytest.mark.parametrize(
    "uri",
    [
        b"ICAP://h/avscan",
        b"icaps://h/avscan",
        b"icap://127.0.0.1/avscan",
        b"icap://other.example.org:99/avscan",
        b"icap://[::1]:1344/avscan",
        b"icap://::1/avscan",
        b"icap://[::1/avscan",
        b"icap://user:secret@h/avscan",
        b"icap://h:99999/avscan",
        b"icap://h:abc/avscan",
        b"icap://h:/avscan",
        b"icap:///avscan",
    ],
)
def test_s26_s27_d16_authorities_are_ours(live: Live, uri: bytes) -> None:
    assert live.ask(respmod(uri=uri)).status == 204


@pytest.mark.parametrize(
    "path", [b"/avscan?allow204=on&mode=simple", b"/avscan?", b"/avscan/?a=/nope", b"/avscan/", b"/%61vscan"]
)
def test_s28_s29_queries_and_equivalent_paths(live: Live, path: bytes) -> None:
    assert live.ask(respmod(uri=b"icap://h" + path)).status == 204


@pytest.mark.parametrize("path", [b"/AVSCAN", b"/avscan//", b"/avscan/x", b"//avscan"])
def test_s29_other_paths_are_other_paths(live: Live, path: bytes) -> None:
    assert live.ask(options(b"icap://h" + path)).status == 404


@pytest.mark.parametrize(
    "path", [b"/../../etc/passwd", b"/%2e%2e", b"/%00", b"/%c0%af", b"/\xc0\xaf\xe0\x80\xaf", b"/..%2f..%2fetc/passwd"]
)
def test_d17_hostile_paths_are_404(live: Live, path: bytes) -> None:
    assert live.ask(options(b"icap://h" + path)).status == 404


def test_s30_no_host_and_a_foreign_one(live: Live) -> None:
    request = respmod()
    assert live.ask(request.replace(b"Host: 127.0.0.1\r\n", b"")).status == 204
    assert live.ask(request.replace(b"Host: 127.0.0.1\r\n", b"Host: client-laptop\r\n")).status == 204


def test_s31_names_in_any_case(live: Live) -> None:
    request = b"RESPMOD icap://h/avscan ICAP/1.0\r\nALLOW:204\r\neNcApSuLaTeD:  res-body=0 \r\n\r\n" + chunked(b"x")
    assert live.ask(request).status == 204
    assert live.ask(options(fields=b"eNcApSuLaTeD:null-body=0\r\n")).status == 200


def test_s32_d101_folded_fields(live: Live) -> None:
    request = (
        b"RESPMOD icap://h/avscan ICAP/1.0\r\nAllow: 206,\r\n 204\r\nEncapsulated: res-hdr=0,\r\n\tres-body=%d\r\n\r\n"
    )
    assert live.ask(request % len(OK) + OK + chunked(b"x")).status == 204


def test_s33_unknown_fields(live: Live) -> None:
    assert live.ask(respmod(fields=b"".join(b"X-%d: y\r\n" % number for number in range(30)))).status == 200


@pytest.mark.parametrize(
    "field", [b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip", b"Content-Length: 5", b"Content-Length: x"]
)
def test_s34_d41_d42_framing_fields_of_the_icap_head_are_ignored(peer: Peer, field: bytes) -> None:
    request = respmod(chunked(b"the whole body"), field + b"\r\n")
    assert peer.ask(request).body == b"the whole body"
    assert peer.ask(request).body == b"the whole body"


def test_d43_expect_is_ignored(peer: Peer) -> None:
    peer.send(respmod(b"", b"Expect: 100-continue\r\nAllow: 204\r\n"))
    assert peer.silent()
    assert peer.ask(chunked(b"hello")).status == 204


BAD_HEADS = [
    (b"no colon", "d20"),
    (b"Preview : 10", "d21"),
    (b": x", "d22"),
    (b"A\x00B: x", "d23"),
    (b"A\x7f: x", "d23"),
    (b"A: x\x00", "d24"),
    (b"A: x\ry", "d26"),
    (b"A: x\nB: y", "d28"),
    (b"A: x\n", "d28"),
    (b"Preview: -1", "d38"),
    (b"Preview:", "d38"),
    (b"Preview:  ", "d38"),
    (b"Preview: abc", "d38"),
    (b"Preview: +5", "d38"),
    (b"Preview: 1e3", "d38"),
    (b"Preview: 0x10", "d38"),
    (b"Preview: 1 2", "d38"),
    (b"Preview: 99999999999999999999", "d38"),
    (b"Preview: 1\r\nPreview: 2", "d37"),
    (b"Encapsulated: res-body=0", "d35"),
    (b"Encapsulated: null-body=0", "d35"),
    (b"Encapsulated: res-hdr=0", "d35"),  # both lines together would be a legal list
    (b"\r\n".join([b"X: y"] * 100_000), "d30"),
    (b"X: " + b"y" * 10_000_000, "d31"),
    (b"X: y" + b"\r\n more" * 100_000, "d32"),
    (b"Allow: " + b"204, " * 20_000, "d118"),
    (b"\r\n".join(b"X-%d: y" % number for number in range(201)), "s36"),
]


@pytest.mark.parametrize(("lines", "rule"), BAD_HEADS, ids=[f"{rule} {lines[:30]!r}" for lines, rule in BAD_HEADS])
def test_s36_s37_s39_d20_d21_d22_d23_d24_d26_d28_d30_d31_d32_d35_d37_d38_d118_bad_heads(
    live: Live, lines: bytes, rule: str
) -> None:
    with live.bystander(), live.connect() as peer:
        peer.send_what_goes(raw(b"res-body=0", chunked(b"hello"), fields=lines + b"\r\n"))
        answer = peer.answer()
        assert (answer.status, answer.closes) == (400, True)
        assert peer.rest_or_reset() == b""


@pytest.mark.parametrize(
    "data",
    [
        b"OPTIONS icap://h/avscan ICAP/1.0\nHost: h\n\n",  # d27
        b"OPTIONS icap://h/avscan ICAP/1.0\r\nHost: h\n\r\n",  # d28
        b"OPTIONS icap://h/avscan ICAP/1.0\r\n Host: h\r\n\r\n",  # d29
        b"OPTIONS icap://h/avscan ICAP/1.0\r\n\tHost: h\r\n\r\n",  # d29
    ],
)
def test_s35_d27_d28_d29_bare_lf_and_folds_of_nothing(live: Live, data: bytes) -> None:
    with live.connect() as peer:
        answer = peer.ask(data)
        assert (answer.status, answer.closes) == (400, True)
        assert peer.rest() == b""


def test_s35_d27_bare_lf_where_it_is_configured() -> None:
    with Live(server=with_server(tolerate_bare_lf=True)) as live, live.connect() as peer:
        answer = peer.ask(b"OPTIONS icap://h/avscan ICAP/1.0\nHost: h\n\n")
        assert answer.status == 200
        assert b"\n" not in answer.head.replace(b"\r\n", b"")
        request = b"RESPMOD icap://h/avscan ICAP/1.0\nAllow: 204\nEncapsulated: res-body=0\n\n"
        assert peer.ask(request + chunked(b"hello")).status == 204
        assert peer.ask(request + chunked(EICAR)).status == 200


def test_s36_limits_are_met_to_the_byte(live: Live) -> None:
    line = b"OPTIONS icap://h/avscan?" + b"q" * (8192 - 33) + b" ICAP/1.0"
    assert len(line) == 8192
    assert live.ask(line + b"\r\n\r\n").status == 200
    assert live.ask(line.replace(b"?", b"?q") + b"\r\n\r\n").status == 414
    assert live.ask(options(fields=b"X: y\r\n" * 199)).status == 200
    assert live.ask(options(fields=b"X: y\r\n" * 200)).status == 400
    spare = 65536 - len(options()) + 2 - 5
    assert live.ask(options(fields=b"X: " + b"y" * spare + b"\r\n")).status == 200
    assert live.ask(options(fields=b"X: y" + b"y" * spare + b"\r\n")).status == 400


def test_d25_eight_bit_values_are_accepted(live: Live) -> None:
    assert (
        live.ask(respmod(fields=b"Allow: 204\r\nX-Name: \xff\xfe\xc3\x28\x1b[31m\r\nX-Client-IP: \xff\r\n")).status
        == 204
    )
    assert live.last().client_ip == b"\xff"


def test_d36_repeated_fields_are_merged(live: Live) -> None:
    answer = live.ask(respmod(fields=b"Host: a\r\nAllow: 206\r\nConnection: x\r\nAllow: 204\r\nConnection: close\r\n"))
    assert (answer.status, answer.closes) == (204, True)


@pytest.mark.parametrize(
    ("allow", "status"),
    [
        (b"Allow: 204\r\n", 204),
        (b"Allow: trailers,206, 204\r\n", 204),
        (b"Allow: 206\r\nAllow: 204\r\n", 204),
        (b"Allow: 206, trailers\r\n", 200),
        (b"Allow: 2045\r\n", 200),
        (b"Allow:\r\n", 200),
        (b"", 200),
    ],
)
def test_s38_204_outside_a_preview_only_where_it_is_allowed(live: Live, allow: bytes, status: int) -> None:
    assert live.ask(respmod(fields=allow)).status == status


def test_d39_a_huge_announced_preview(live: Live) -> None:
    assert live.ask(respmod(chunk(b"hello") + IEOF, b"Preview: 2147483647\r\n")).status == 204


@pytest.mark.parametrize(
    "field",
    [
        b"X-Client-IP: ;rm -rf /",
        b"X-Client-IP: 1.2.3.4\r\n 5",
        b"X-Authenticated-User: not base64!",
        b"X-Authenticated-User: " + b"QUFB" * 15_000,
        b"X-Authenticated-User: DQpFdmlsOiB5ZXM=",
        b"X-Client-Username: \x01\x02\xff",
        b"X-Subscriber-ID: " + b"1" * 1000,
        b"X-Server-IP: ::::",
    ],
    ids=lambda field: field[:40].decode("latin-1"),
)
def test_s41_d104_client_information_is_log_data_only(live: Live, field: bytes) -> None:
    assert live.ask(respmod(fields=b"Allow: 204\r\n" + field + b"\r\n")).status == 204
    record = live.last()
    assert record.status == 204
    assert len(record.user) <= 256


def test_s41_the_user_is_decoded_for_the_log(live: Live) -> None:
    live.ask(respmod(fields=b"X-Authenticated-User: TG9jYWw6Ly9qb2U=\r\nX-Client-IP: 192.0.2.1\r\n"))
    assert (live.last().user, live.last().client_ip) == (b"Local://joe", b"192.0.2.1")


def test_d2_d3_noise_and_tls(live: Live) -> None:
    for data in (
        b"\x80\x00\x7f" + bytes(range(256)) * 256,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    ):
        with live.bystander(), live.connect() as peer:
            peer.send_what_goes(data)
            answer = peer.answer()
            assert (answer.status, answer.closes) == (400, True)
            assert peer.rest_or_reset() == b""


def test_d5_http_gets_no_http(live: Live) -> None:
    with live.connect() as peer:
        peer.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        data = peer.rest()
        assert data.startswith(b"ICAP/1.0 400 ")
        assert b"HTTP/" not in data


def test_d93_preview_on_options(peer: Peer) -> None:
    assert peer.ask(options(fields=b"Preview: 10\r\nEncapsulated: null-body=0\r\n")).status == 200
    assert peer.ask(options(fields=b"Preview: -1\r\n")).status == 200


def test_d96_garbage_behind_a_request(live: Live) -> None:
    with live.connect() as peer:
        assert peer.ask(respmod() + b"%&/ garbage\r\n").status == 204
        answer = peer.answer()
        assert (answer.status, answer.closes) == (400, True)
        assert peer.rest() == b""


def test_d95_a_second_last_chunk_with_connection_close(live: Live) -> None:
    with live.connect() as peer:
        peer.send(respmod(LAST, b"Allow: 204\r\nConnection: close\r\n") + LAST)
        answer = peer.answer()
        assert (answer.status, answer.closes) == (204, True)
        assert peer.rest() == b""


def test_every_error_says_one_plain_sentence(live: Live) -> None:
    for line, _ in BAD_LINES[:10]:
        answer = live.ask(line + b"\r\n\r\n")
        said = answer.get("X-Response-Desc")
        assert said and said.endswith(b".") and b"Traceback" not in answer.head
        assert live.last().detail == said.decode()
