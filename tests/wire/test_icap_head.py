"""ICAP start lines, and what the fields of a head mean for framing."""

from __future__ import annotations

import pytest

from icapscan.errors import ProtocolError
from icapscan.wire.encapsulated import NO_BODY
from icapscan.wire.icap_events import RequestHead, ResponseHead
from icapscan.wire.icap_head import check_request_line, normal_path, parse_request, parse_response
from icapscan.wire.limits import DEFAULT
from tests.wire.samples import options, raw


def request(head: bytes) -> RequestHead:
    """The request head of whole request bytes."""
    return parse_request(head.partition(b"\r\n\r\n")[0] + b"\r\n", DEFAULT)


def status_of(head: bytes) -> int:
    """The status with which a head is refused."""
    with pytest.raises(ProtocolError) as caught:
        request(head)
    return caught.value.status


def line_status(line: bytes) -> int:
    """The status with which a request line is refused."""
    return status_of(line + b"\r\nHost: h\r\nEncapsulated: res-body=0\r\n\r\n")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"OPTIONS",
        b"OPTIONS icap://h/s",  # d7
        b"OPTIONS icap://h/s ICAP/1.0 x",  # d7
        b"OPTIONS icap://h/s a b ICAP/1.0",  # d7
        b"OPTIONS  icap://h/s ICAP/1.0",  # d8
        b"OPTIONS icap://h/s  ICAP/1.0",  # d8
        b"OPTIONS\ticap://h/s\tICAP/1.0",  # d8
        b"OPTIONS icap://h/s ICAP/1.0 ",
        b" OPTIONS icap://h/s ICAP/1.0",
        b"GET / HTTP/1.1",  # d5
        b"OPTIONS icap://h/s HTTP/1.1",
        b"OPTIONS icap://h/s icap/1.0",
        b"RESPMOD /avscan ICAP/1.0",  # d12
        b"OPTIONS * ICAP/1.0",  # d13
        b"RESPMOD http://h/avscan ICAP/1.0",  # d14
        b"RESPMOD icap:/h/avscan ICAP/1.0",
        b"RESPMOD icap:h ICAP/1.0",
        b"RESPMOD h/avscan ICAP/1.0",
        b"OPTIONS icap://h/\x00 ICAP/1.0",
        b"OPTIONS icap://h/\x7f ICAP/1.0",
        b"OPTIONS icap://\x01/s ICAP/1.0",
        b"OPTIONS icap://h/s\rX ICAP/1.0",
    ],
)
def test_s20_d5_d7_d8_d12_d13_d14_lines_that_are_none(line: bytes) -> None:
    assert line_status(line) == 400


@pytest.mark.parametrize("method", [b"x" * 33, b"RESP\x00MOD", b"\x01", b"RESP(MOD)", b"R\xffMOD", b"RESPMOD:"])
def test_d10_methods_that_are_no_token(method: bytes) -> None:
    assert line_status(method + b" icap://h/s ICAP/1.0") == 400


def test_d10_a_method_of_ten_kilobytes_is_no_long_uri() -> None:
    assert line_status(b"M" * 10240 + b" icap://h/s ICAP/1.0") == 400


@pytest.mark.parametrize("method", [b"FOO", b"respmod", b"Options", b"GET", b"REQMODX", b"LOG", b"x" * 32])
def test_s21_d9_an_unknown_method_is_501(method: bytes) -> None:
    assert line_status(method + b" icap://h/s ICAP/1.0") == 501


def test_s22_options_is_never_501() -> None:
    for path in (b"", b"/", b"/nope", b"/avscan"):
        assert request(options(b"icap://h" + path)).method == b"OPTIONS"


@pytest.mark.parametrize("version", [b"ICAP/1.1", b"ICAP/2.0", b"ICAP/01.00", b"ICAP/9999999999.0", b"ICAP/0.9"])
def test_s23_d19_other_versions_are_505(version: bytes) -> None:
    assert line_status(b"OPTIONS icap://h/s " + version) == 505


@pytest.mark.parametrize(
    "version",
    [
        b"ICAP/1",
        b"ICAP/1.0.0",
        b"ICAP/",
        b"ICAP/1.",
        b"ICAP/.0",
        b"ICAP/a.b",
        b"ICAP1.0",
        b"ICAP/-1.0",
        b"ICP/1.0",
    ],
)
def test_s23_d19_malformed_versions_are_400(version: bytes) -> None:
    assert line_status(b"OPTIONS icap://h/s " + version) == 400


@pytest.mark.parametrize("scheme", [b"icap", b"ICAP", b"Icap", b"icaps", b"ICAPS"])
def test_s26_schemes_in_any_case(scheme: bytes) -> None:
    assert request(options(scheme + b"://h/svc")).path == b"/svc"


@pytest.mark.parametrize(
    "authority",
    [
        b"scanner.example.org", b"127.0.0.1", b"127.0.0.1:1344", b"[::1]", b"[::1]:1344", b"::1", b"::1:1344", b"[::1",
        b"user@h", b"user:secret@h:1", b"h:", b"h:99999", b"h:abc", b"", b"fe80::1%25eth0", "h\xf6st".encode(), b"@:@:",
    ],
)  # fmt: skip
def test_s27_d16_any_authority_is_ours(authority: bytes) -> None:
    assert request(options(b"icap://" + authority + b"/avscan")).path == b"/avscan"


@pytest.mark.parametrize("query", [b"?", b"?allow204=on&mode=simple", b"?a=/b?c", b"?" + b"a" * 4096, b"/?x=1"])
def test_s28_a_query_is_no_part_of_the_path(query: bytes) -> None:
    assert request(options(b"icap://h/avscan" + query)).path == b"/avscan"


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        (b"/avscan", b"/avscan"),
        (b"/avscan/", b"/avscan"),
        (b"/avscan//", b"/avscan/"),
        (b"/%61v%73can", b"/avscan"),
        (b"/av%2Dscan%7e", b"/av-scan~"),
        (b"/AVSCAN", b"/AVSCAN"),
        (b"/a%2Fb", b"/a%2Fb"),
        (b"/%2561", b"/%2561"),
        (b"/%", b"/%"),
        (b"/%zz", b"/%zz"),
        (b"/", b""),
        (b"", b""),
    ],
)
def test_s29_equivalent_paths(path: bytes, normal: bytes) -> None:
    assert normal_path(path) == normal


@pytest.mark.parametrize(
    "path",
    [
        b"/../../etc/passwd",
        b"/%2e%2e",
        b"/%00",
        b"/%c0%af",
        b"/\xc0\xaf",
        b"/%2e%2e%2fetc",
        b"//avscan",
        b"/.avscan",
    ],
)
def test_d17_strange_paths_are_no_service_of_ours(path: bytes) -> None:
    assert request(options(b"icap://h" + path)).path not in (b"", b"/avscan", b"/echo")


@pytest.mark.parametrize(
    ("uri", "path"), [(b"icap://", b""), (b"icap:///svc", b"/svc"), (b"icap://h", b""), (b"icap://?x", b"")]
)
def test_d15_empty_hosts_and_paths(uri: bytes, path: bytes) -> None:
    assert request(options(uri)).path == path


def test_s36_d18_the_request_line_is_bounded_to_the_byte() -> None:
    line = b"OPTIONS icap://h/s?" + b"q" * (8192 - 28) + b" ICAP/1.0"
    assert len(line) == 8192
    assert request(line + b"\r\n\r\n").path == b"/s"
    assert line_status(line.replace(b"?", b"?q")) == 414
    assert line_status(b"OPTIONS icap://h/s?" + b"q" * 102400 + b" ICAP/1.0") == 414


def test_s36_d30_two_hundred_fields_and_no_more() -> None:
    assert request(options(fields=b"X: 1\r\n" * 199)).method == b"OPTIONS"
    assert status_of(options(fields=b"X: 1\r\n" * 200)) == 400


def test_s30_no_host_and_foreign_hosts() -> None:
    assert request(b"OPTIONS icap://h/s ICAP/1.0\r\n\r\n").path == b"/s"
    assert request(b"OPTIONS icap://h/s ICAP/1.0\r\nHost: client-laptop\r\nHost: b\r\n\r\n").path == b"/s"


def test_s33_thirty_unknown_fields() -> None:
    assert request(options(fields=b"".join(b"X-%d: y\r\n" % number for number in range(30)))).method == b"OPTIONS"


def test_s34_d41_d42_d43_fields_of_http_framing_are_ignored() -> None:
    fields = b"Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\nContent-Length: 5\r\nExpect: 100-continue\r\n"
    head = request(raw(b"res-body=0", fields=fields))
    plain = request(raw(b"res-body=0"))
    assert (head.encapsulated, head.preview, head.close) == (plain.encapsulated, plain.preview, plain.close)


@pytest.mark.parametrize(
    "value", [b"", b" ", b"abc", b"-1", b"+5", b"1e3", b"0x10", b"1 2", b"1,2", b"1.0", b"9" * 20, b"\xb2"]
)
def test_s37_d38_previews_that_are_no_number(value: bytes) -> None:
    assert status_of(raw(b"res-body=0", fields=b"Preview: " + value + b"\r\n")) == 400


@pytest.mark.parametrize(
    ("value", "size"), [(b"0", 0), (b"00010", 10), (b"2147483647", 2147483647), (b"9" * 19, int("9" * 19))]
)
def test_s37_d39_previews_of_any_size(value: bytes, size: int) -> None:
    assert request(raw(b"res-body=0", fields=b"Preview: " + value + b"\r\n")).preview == size


def test_s39_d37_two_previews() -> None:
    assert status_of(raw(b"res-body=0", fields=b"Preview: 1\r\nPreview: 2\r\n")) == 400
    assert request(raw(b"res-body=0", fields=b"Preview: 1\r\nPreview: 1\r\n")).preview == 1


@pytest.mark.parametrize(
    "lines",
    [
        b"Encapsulated: res-body=0\r\nEncapsulated: res-body=0\r\n",
        b"Encapsulated: res-hdr=0, res-body=10\r\nencapsulated: res-hdr=0, res-body=20\r\n",
        b"Encapsulated: res-hdr=0\r\nX: y\r\nEncapsulated: res-body=10\r\n",
        b"Encapsulated: res-hdr=0, res-body=10\r\nEncapsulated:\r\n",
    ],
)
def test_s39_d35_more_than_one_encapsulated(lines: bytes) -> None:
    assert status_of(b"RESPMOD icap://h/s ICAP/1.0\r\n" + lines + b"\r\n") == 400


@pytest.mark.parametrize(
    ("lines", "allowed"),
    [
        (b"", (False, False, False)),
        (b"Allow: 204\r\n", (True, False, False)),
        (b"Allow: 206, trailers\r\n", (False, True, True)),
        (b"Allow: trailers,206,204\r\n", (True, True, True)),
        (b"Allow: 206\r\nX: y\r\nAllow: 204\r\n", (True, True, False)),
        (b"ALLOW:204,foo\r\n", (True, False, False)),
        (b"Allow: 2045, x204, 2 04\r\n", (False, False, False)),
        (b"Allow: Trailers\r\n", (False, False, True)),
        (b"Allow: 206,\r\n 204\r\n", (True, True, False)),
        (b"Allow:\r\n", (False, False, False)),
        (b"Allow: ,,204,\r\n", (True, False, False)),
    ],
)
def test_s38_d36_allow_lists(lines: bytes, allowed: tuple[bool, bool, bool]) -> None:
    head = request(raw(b"res-body=0", fields=lines))
    assert (head.allow_204, head.allow_206, head.allow_trailers) == allowed


@pytest.mark.parametrize(
    ("lines", "close"),
    [
        (b"", False),
        (b"Connection: close\r\n", True),
        (b"connection:  CLOSE\r\n", True),
        (b"Connection: close, keep-alive\r\n", True),
        (b"Connection: keep-alive,Close\r\n", True),
        (b"Connection: keep-alive\r\nConnection: close\r\n", True),
        (b"Connection: keep-alive\r\n", False),
        (b"Connection: closed, x-close, close-notify\r\n", False),
        (b"X-Connection: close\r\n", False),
    ],
)
def test_s5_d36_d40_close_in_any_case_and_place(lines: bytes, close: bool) -> None:
    assert request(raw(b"res-body=0", fields=lines)).close is close


def test_s44_d44_a_body_method_needs_encapsulated() -> None:
    for method in (b"REQMOD", b"RESPMOD"):
        assert status_of(raw(None, method=method)) == 400


def test_s45_options_with_and_without_encapsulated() -> None:
    assert request(options()).encapsulated == NO_BODY
    assert request(options(fields=b"Encapsulated: null-body=0\r\n")).encapsulated == NO_BODY


def test_d93_preview_on_options_is_ignored() -> None:
    for value in (b"10", b"abc", b"-1"):
        assert request(options(fields=b"Preview: " + value + b"\r\n")).preview is None


def test_d101_a_folded_encapsulated() -> None:
    head = request(raw(b"req-hdr=0,\r\n\tres-hdr=10,\r\n  res-body=20"))
    assert head.encapsulated.head_length == 20


def test_d118_a_long_allow_list_is_only_a_long_value() -> None:
    head = request(raw(b"res-body=0", fields=b"Allow: " + b"x, " * 10_000 + b"204\r\n"))
    assert head.allow_204


@pytest.mark.parametrize(
    "line", [b"OPTIONS icap://h/s ICAP/1.0\nHost: h", b"FOO icap://h/s ICAP/1.0\nX", b"OPTIONS icap://h/s ICAP/2.0\n"]
)
def test_d27_d28_a_request_line_that_ends_with_a_bare_line_feed(line: bytes) -> None:
    assert line_status(line) == 400


def test_the_words_of_a_request_line() -> None:
    assert check_request_line(b"REQMOD icap://h/a%2Db/?q ICAP/1.0") == (b"REQMOD", b"icap://h/a%2Db/?q", b"/a-b")


def response(text: bytes, *, trailers_offered: bool = False) -> ResponseHead | None:
    """A response head of whole bytes."""
    return parse_response(text + b"\r\n", DEFAULT, trailers_offered=trailers_offered)


@pytest.mark.parametrize(
    ("line", "status", "reason"),
    [
        (b"ICAP/1.0 200 OK", 200, b"OK"),
        (b"ICAP/1.0 204 No modifications needed", 204, b"No modifications needed"),
        (b"ICAP/1.0 204", 204, b""),
        (b"ICAP/1.0 204 ", 204, b""),
        (b"ICAP/1.1 500 \xff", 500, b"\xff"),
        (b"ICAP/1.0 999 x", 999, b"x"),
    ],
)
def test_c45_status_lines(line: bytes, status: int, reason: bytes) -> None:
    head = response(line)
    assert head is not None
    assert (head.status, head.reason, head.encapsulated) == (status, reason, NO_BODY)


@pytest.mark.parametrize(
    "line",
    [
        b"ICAP/1.0",
        b"ICAP/1.0 20",
        b"ICAP/1.0 2000",
        b"ICAP/1.0  200 OK",
        b"ICAP/2.0 200 OK",
        b"icap/1.0 200 OK",
        b"200 OK",
        b"ICAP/1.0 -20 OK",
        b"ICAP/1.0 200OK",
        b"",
        b"ICAP/1.0 200 " + b"x" * 8192,
    ],
)
def test_c45_lines_that_are_no_status(line: bytes) -> None:
    with pytest.raises(ProtocolError, match="status line"):
        response(line)


def test_c46_d121_an_http_answer() -> None:
    with pytest.raises(ProtocolError, match="not an ICAP server"):
        response(b"HTTP/1.1 200 OK")


def test_100_is_no_head() -> None:
    assert response(b"ICAP/1.0 100 Continue") is None


def test_c24_encapsulated_on_any_status_and_in_any_place() -> None:
    head = response(b"ICAP/1.0 500 Oops\r\nEncapsulated:null-body=0\r\nX: y")
    assert head is not None and head.encapsulated == NO_BODY


def test_c56_s109_a_trailer_counts_only_where_it_was_offered() -> None:
    text = b"ICAP/1.0 200 OK\r\nAllow: trailers\r\nTrailer: X-Infection-Found\r\nEncapsulated: res-hdr=0, res-body=10"
    for offered in (False, True):
        head = response(text, trailers_offered=offered)
        assert head is not None and head.trailer is offered
