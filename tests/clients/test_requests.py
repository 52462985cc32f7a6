"""What the client writes: every request here was read by a strict parser of its own (PROTOCOL C1-C22, C49-C55)."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icapscan.clients.address import parse_url
from icapscan.clients.errors import BodyChanged, InvalidArgument
from icapscan.clients.icap import IcapClient
from icapscan.clients.result import Mode, Outcome
from icapscan.clients.source import source_of
from icapscan.errors import LocalProtocolError
from icapscan.limits import Limits
from icapscan.store import PartStore, Purse
from icapscan.wire.encapsulated import BodyKind
from icapscan.wire.icap_compose import Described, compose_request, percent_encoded, reqmod_heads, respmod_heads
from icapscan.wire.icap_events import HttpHeads
from tests.clients.fakes import OPTIONS, PREVIEW_OPTIONS, Fake, Seen, run, scan, settings


def sent(body: Any = b"hello", options: bytes = OPTIONS, **given: Any) -> Seen:
    """The one MOD request of one scan that ends with 204."""

    async def main() -> Seen:
        async with Fake(options=options) as fake:
            assert (await scan(fake, body, **given)).outcome is Outcome.CLEAN
            assert len(fake.scans) == 1
            return fake.scans[0]

    return run(main())


@pytest.mark.parametrize(
    ("url", "host", "port", "authority", "uri"),
    [
        ("icap://mail.example/av", "mail.example", 1344, "mail.example", "icap://mail.example/av"),
        ("icap://mail.example:1345/av", "mail.example", 1345, "mail.example:1345", "icap://mail.example:1345/av"),
        ("ICAP://u:p@h/av?x=1", "h", 1344, "h", "icap://h/av?x=1"),
        ("icap://[::1]:99", "::1", 99, "[::1]:99", "icap://[::1]:99/"),
        ("icap://[fe80::1%eth0]/a", "fe80::1%eth0", 1344, "[fe80::1]", "icap://[fe80::1]/a"),
        ("icaps://h/av", "h", 11344, "h", "icaps://h/av"),
        ("icaps://h:1344/av", "h", 1344, "h:1344", "icaps://h:1344/av"),
    ],
)
def test_c1_c2_url_and_host(url: str, host: str, port: int, authority: str, uri: str) -> None:
    address = parse_url(url)
    assert (address.host, address.port, address.authority, address.uri) == (host, port, authority, uri)
    assert address.tls == uri.startswith("icaps")


@pytest.mark.parametrize(
    "url",
    ["http://h/", "icap:///x", "icap://h:0/", "icap://h:65536/", "icap://h/a b", "icap://h/a\r\nX: y", "h", "", "icap://h/#a",
     "icap://h/ä", "icap://::1/"],
)  # fmt: skip
def test_c1_other_urls_are_refused(url: str) -> None:
    with pytest.raises(InvalidArgument):
        IcapClient(url)


def test_c1_absolute_uri_and_host_on_the_wire() -> None:
    async def main() -> None:
        async with Fake() as fake:
            client = IcapClient(fake.url.replace("://", "://user:secret@"))
            await client.scan(b"x")
            await client.aclose()
            for seen in fake.seen:
                assert seen.line == f"{seen.method} icap://127.0.0.1:{fake.port}/avscan ICAP/1.0"
                assert seen["Host"] == f"127.0.0.1:{fake.port}"
                assert b"secret" not in seen.raw

    run(main())


def test_c4_options_has_no_body_and_no_encapsulated() -> None:
    async def main() -> None:
        async with Fake() as fake, IcapClient(fake.url) as client:
            await client.options()
            await client.scan(b"x")
            assert "Encapsulated" not in fake.seen[0]
            assert fake.seen[0].raw.endswith(b"\r\n\r\n")
            assert fake.connections == 1

    run(main())


@pytest.mark.parametrize(
    ("options", "name", "preview"),
    [
        (OPTIONS, "a.txt", None),
        (PREVIEW_OPTIONS, "a.txt", 100),
        (PREVIEW_OPTIONS, "", 100),
        (PREVIEW_OPTIONS.replace(b"Transfer-Preview: *\r\n", b""), "a.txt", None),
        (PREVIEW_OPTIONS.replace(b"Preview: *", b"Preview: exe, *").replace(b"204", b"204, 206"), "a.EXE", 100),
        (PREVIEW_OPTIONS.replace(b"Preview: *", b"Preview: exe\r\nTransfer-Complete: *"), "a.txt", None),
        (PREVIEW_OPTIONS.replace(b"Preview: *", b"Preview: *\r\nTransfer-Complete: txt"), "a.txt", None),
        (PREVIEW_OPTIONS.replace(b"Preview: *", b"Preview: *\r\nTransfer-Ignore: gif"), "a.gif", None),
        (PREVIEW_OPTIONS.replace(b"Preview: 100", b"Preview: many"), "a.txt", None),
        (PREVIEW_OPTIONS.replace(b"Preview: 100", b"Preview: 99999999"), "a.txt", 65536),
    ],
)
def test_c8_preview_only_as_announced(options: bytes, name: str, preview: int | None) -> None:
    body = bytes(range(256)) * 1000
    seen = sent(body, options, name=name)
    assert seen.body == body
    if preview is None:
        assert "Preview" not in seen and seen.preview is None
    else:
        assert seen.preview is not None and len(seen.preview) == preview and seen["Preview"] == str(preview)


def test_c8_preview_may_be_forced_or_forbidden() -> None:
    assert "Preview" not in sent(b"x" * 300, PREVIEW_OPTIONS, how=settings(preview="never"))
    assert sent(b"x" * 300, OPTIONS, how=settings(preview=7)).preview == b"x" * 7
    assert sent(b"x" * 300, OPTIONS, how=settings(preview=0)).preview == b""


@pytest.mark.parametrize("size", [1, 99, 100, 101, 5000])
def test_c9_c10_c14_preview_is_exact_and_the_rest_is_only_the_rest(size: int) -> None:
    body = bytes(index % 251 for index in range(size))
    seen = sent(body, PREVIEW_OPTIONS)
    assert seen.body == body
    assert seen["Preview"] == str(min(size, 100))
    if size <= 100:
        assert seen.ieof and seen.raw.endswith(b"\r\n0; ieof\r\n\r\n") and seen.raw.count(b"\r\n0\r\n\r\n") == 0
    else:
        assert seen.preview == body[:100] and not seen.ieof
        assert seen.raw.endswith(b"\r\n0\r\n\r\n") and b"ieof" not in seen.raw


@pytest.mark.parametrize("options", [OPTIONS, PREVIEW_OPTIONS])
@pytest.mark.parametrize("mode", list(Mode))
def test_c11_c12_empty_body_is_null_body_without_any_chunk(options: bytes, mode: Mode) -> None:
    async def main() -> None:
        async with Fake(options=options) as fake, IcapClient(fake.url) as client:
            await client.scan(b"", mode=mode)
            await client.scan(b"next", mode=mode)  # a stray terminator would break this one
            first = fake.scans[0]
            assert "null-body=" in first["Encapsulated"] and "Preview" not in first
            assert first.raw.endswith(b"\r\n\r\n") and b"\r\n0" not in first.raw
            assert fake.connections == 1

    run(main())


def test_c11_no_ieof_outside_a_preview() -> None:
    for size in (1, 100, 200_000):
        seen = sent(b"q" * size)
        assert b"ieof" not in seen.raw and seen.raw.endswith(b"\r\n0\r\n\r\n")


def test_c16_allow_204_is_always_sent() -> None:
    assert sent()["Allow"] == "204"
    assert sent(options=OPTIONS.replace(b"Allow: 204\r\n", b""))["Allow"] == "204"


def test_c22_chunks_of_data_in_hand() -> None:
    seen = sent(b"z" * (3 * 65536 + 5))
    assert seen.sizes == [65536, 65536, 65536, 5]


def test_c49_c50_respmod_heads() -> None:
    seen = sent(b"hello", name="a.eml", media_type="message/rfc822", how=settings(host="mx.example"))
    sections = re.fullmatch(r"req-hdr=0, res-hdr=(\d+), res-body=(\d+)", seen["Encapsulated"])
    assert sections is not None and seen.fields[-1][0] == "Encapsulated"
    asked, answered = seen.heads[: int(sections[1])], seen.heads[int(sections[1]) :]
    assert asked == b"GET http://mx.example/a.eml HTTP/1.1\r\nHost: mx.example\r\n\r\n"
    lines = answered.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 200 OK" and lines[-2:] == [b"", b""]
    fields = dict(line.split(b": ", 1) for line in lines[1:-2])
    assert set(fields) == {b"Date", b"Content-Type", b"Content-Length"}
    assert fields[b"Content-Type"] == b"message/rfc822" and fields[b"Content-Length"] == b"5"


HOSTILE = [
    "a\r\nX-Evil: 1",
    "../../etc/passwd",
    "x y\x00z",
    "ß漢字.exe",
    "%0d%0a",
    "?q#f",
    "\udcff",
    "a" * 5000 + ".exe",
]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("mode", list(Mode))
def test_c51_hostile_file_names(name: str, mode: Mode) -> None:
    seen = sent(b"hello", name=name, mode=mode)
    line, _, rest = seen.heads.partition(b"\r\n")
    assert re.fullmatch(rb"(GET http://scan\.invalid|PUT )/[A-Za-z0-9._~%-]* HTTP/1\.1", line)
    assert len(line) < 700 and b"Evil" not in rest


def test_c51_a_long_name_keeps_its_extension() -> None:
    assert percent_encoded("n" * 9000 + ".docm").endswith(b".docm")
    assert percent_encoded("a/b c") == b"a%2Fb%20c"


def test_c52_reqmod_mail_with_its_envelope() -> None:
    seen = sent(
        b"hello", mode=Mode.REQMOD, media_type="message/rfc822", mail_from="a@x.example", rcpt_to=("b@y", "c@z")
    )
    assert seen.method == "REQMOD" and re.fullmatch(r"req-hdr=0, req-body=\d+", seen["Encapsulated"])
    assert seen.heads.split(b"\r\n") == [
        b"PUT / HTTP/1.1",
        b"Host: scan.invalid",
        b"Content-Type: message/rfc822",
        b"Content-Length: 5",
        b"X-SMTP-From: a@x.example",
        b"X-SMTP-To: b@y",
        b"X-SMTP-To: c@z",
        b"",
        b"",
    ]
    assert b"X-SMTP-From: <>\r\n" in sent(mode=Mode.REQMOD, mail_from="").heads
    assert seen["X-Transformed-From"] == "SMTP"
    assert b"SMTP" not in sent(mode=Mode.REQMOD).raw


def test_c53_identity_where_it_is_wanted() -> None:
    wants = OPTIONS.replace(b"Allow", b"X-Include: X-Client-IP, X-Authenticated-User\r\nAllow")
    who: dict[str, Any] = {"client_ip": "192.0.2.7", "user": "jürgen"}
    for seen in (sent(options=wants, **who), sent(how=settings(identity="always"), **who)):
        assert seen["X-Client-IP"] == "192.0.2.7"
        assert base64.b64decode(seen["X-Authenticated-User"]).decode() == "Local://jürgen"
    for seen in (sent(**who), sent(options=wants, how=settings(identity="never"), **who), sent(options=wants)):
        assert "X-Client-IP" not in seen and "X-Authenticated-User" not in seen


INJECTIONS = [
    {"media_type": "text/plain\r\nX-Virus-ID: none"},
    {"media_type": "text/plain; a=b\nX: y"},
    {"media_type": ""},
    {"mail_from": "a@b\r\nX: y"},
    {"mail_from": "a\nb"},
    {"rcpt_to": ("ok@x", "a\x00b")},
    {"client_ip": "1.2.3.4\r\nAllow: 206", "how": settings(identity="always")},
    {"how": settings(headers=(("X-A", "b\r\nc"),))},
    {"how": settings(headers=(("X A", "b"),))},
    {"how": settings(user_agent="a\nb")},
    {"how": settings(host="h\r\nX: y")},
]


@pytest.mark.parametrize("given", INJECTIONS)
def test_c54_values_that_would_inject_a_line_are_refused(given: dict[str, Any]) -> None:
    async def main() -> None:
        async with Fake() as fake:
            with pytest.raises(InvalidArgument) as raised:
                await scan(fake, b"x", mode=Mode.REQMOD, **given)
            assert not raised.value.retry
            assert not fake.scans

    run(main())


TEXT = st.text(st.characters(codec="utf-8"), max_size=40) | st.sampled_from(HOSTILE)


@given(name=TEXT, media_type=TEXT, mail_from=TEXT, recipients=st.lists(TEXT, max_size=3), host=TEXT)
def test_c54_no_value_makes_a_line(
    name: str, media_type: str, mail_from: str, recipients: list[str], host: str
) -> None:
    what = Described(name, media_type, 1, host, b"", mail_from, tuple(recipients))
    for compose, most in ((respmod_heads, 2 + 6 + len(recipients)), (reqmod_heads, 1 + 6 + len(recipients))):
        try:
            heads = compose(what)
        except (LocalProtocolError, UnicodeEncodeError):
            continue
        for head in (heads.req_hdr, heads.res_hdr):
            if head is not None:
                assert head.endswith(b"\r\n\r\n") and head.count(b"\r\n\r\n") == 1
                assert head.count(b"\n") == head.count(b"\r") == head.count(b"\r\n") <= most
                assert b"\x00" not in head


@given(st.binary(max_size=30))
def test_c54_no_uri_makes_a_line(tail: bytes) -> None:
    try:
        head = compose_request(b"REQMOD", b"icap://h/" + tail, b"h", HttpHeads(b"x"), body=BodyKind.REQUEST)
    except LocalProtocolError:
        return
    assert not set(head.uri) & set(b" \r\n\x00\t")


def test_c55_date_and_user_agent_and_close_only_without_pooling() -> None:
    seen = sent()
    assert re.fullmatch(r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT", seen["Date"])
    assert seen["User-Agent"] == "icapscan" and "Connection" not in seen
    assert sent(how=settings(user_agent="relay/1", keep_alive=False))["User-Agent"] == "relay/1"
    assert sent(how=settings(keep_alive=False))["Connection"] == "close"


def test_bodies_of_every_kind_are_sent_alike(tmp_path: Path) -> None:
    body = bytes(index % 251 for index in range(300_000))
    store = PartStore(Purse(1 << 20, 1 << 20), Limits())
    store.append(body)
    path = tmp_path / "body"
    path.write_bytes(body)
    with open(path, "rb") as file, open(path, "rb", buffering=0) as unbuffered:
        for given in (body, bytearray(body), memoryview(body), store, io.BytesIO(body), file, unbuffered):
            assert sent(given).body == body
    store.close()


@pytest.mark.parametrize("body", [None, "text", 7, io.StringIO("text")])
def test_what_cannot_be_read_twice_is_refused(body: Any) -> None:
    with pytest.raises(InvalidArgument):
        source_of(body)


def test_a_file_that_shrinks_while_it_is_sent_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "body"
    path.write_bytes(b"x" * 3_000_000)

    async def main() -> None:
        async with Fake() as fake:
            with open(path, "rb") as file, pytest.raises(BodyChanged):
                source = source_of(file)
                assert source.size == 3_000_000
                path.write_bytes(b"x" * 100)
                source.read(0, 200)
            path.write_bytes(b"x" * 3_000_000)

            class Shrinking(io.BytesIO):
                def read(self, size: int | None = -1, /) -> bytes:
                    return b"" if self.tell() > 1_000_000 else super().read(size)

            with pytest.raises(BodyChanged):
                await scan(fake, Shrinking(b"x" * 3_000_000))

    run(main())
