"""EVASION.md 58, 60, 64 to 68 and 74 through the real server; 64 to 67 in raw responses on the command line, too.

An answer is safe if it is the block page, or 400 for a request that is none: never the body, never a 204.
"""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import brotli
import pytest

from icapscan.cli.app import Form
from icapscan.cli.inputs import Inputs
from icapscan.cli.scan import scan_input
from icapscan.engines.fanout import Fanout
from icapscan.findings import Level, Verdict
from icapscan.limits import Limits
from icapscan.pipeline import Scanner
from icapscan.policy.settings import PolicySettings
from icapscan.store import Purse
from tests.conformance.fakes import FindsEicar
from tests.conformance.live import Answer, Live, Peer
from tests.wire.samples import EICAR, LAST, chunk, chunked, reqmod, respmod

OK = b"HTTP/1.1 200 OK\r\n"
ZLIB = zlib.compress(EICAR)
RAW = ZLIB[2:-4]
BROTLI = brotli.compress(EICAR)
GZIP = gzip.compress(EICAR, mtime=0)
HARMLESS = b"nothing to see here, in any reading of it"


def head(*lines: bytes, status: bytes = OK) -> bytes:
    return status + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def blocked(answer: Answer) -> bool:
    return (
        answer.status == 200
        and b"403" in answer.sections.get("res-hdr", b"")[:16]
        and EICAR not in (answer.body or b"")
    )


def safe(answer: Answer) -> bool:
    return blocked(answer) or answer.status == 400


def raw(data: bytes, tmp_path: Path) -> Verdict:
    """A raw HTTP response, as the command line scans it with ``--as http``."""
    file = tmp_path / "answer.http"
    file.write_bytes(data)

    async def main() -> Verdict:
        scanner = Scanner(Fanout([FindsEicar()]), Limits(), Purse(1 << 30, 1 << 30))
        with Inputs([str(file)], Form.HTTP) as inputs:
            (item,) = inputs.of(str(file))
            return (await scan_input(item, inputs, scanner)).verdict

    return asyncio.run(main())


def refused_or_found(data: bytes, tmp_path: Path) -> None:
    said = raw(data, tmp_path)
    assert said.level is Level.INFECTED or said.unscanned, said


# Codings


def test_evasion_58_codings_in_several_field_lines(live: Live) -> None:
    lines, body = [], EICAR
    for token in (b"br", b"deflate", b"gzip", b"deflate", b"gzip"):
        lines.append(b"Content-Encoding: " + token)
        body = {b"br": brotli.compress, b"deflate": zlib.compress, b"gzip": gzip.compress}[token](body)
        assert blocked(live.ask(respmod(chunked(body), res_hdr=head(*lines)))), lines
    lines.append(b"Content-Encoding: gzip")
    assert safe(live.ask(respmod(chunked(gzip.compress(body, mtime=0)), res_hdr=head(*lines))))


def test_evasion_60_an_unknown_coding_is_not_passed_on(live: Live) -> None:
    for token in (b"foo", b"gzip, foo", b"foo, gzip"):
        line = b"Content-Encoding: " + token
        assert blocked(live.ask(respmod(chunked(HARMLESS), res_hdr=head(line))))
        assert blocked(live.ask(respmod(chunked(EICAR), res_hdr=head(line))))
    assert live.ask(respmod(chunked(HARMLESS), res_hdr=head(b"Content-Encoding: identity"))).status == 204


@pytest.mark.parametrize(
    ("token", "body"),
    [
        (b"gzip", GZIP),
        (b"x-gzip", GZIP),
        (b"deflate", ZLIB),
        (b"deflate", RAW),
        (b"br", BROTLI),
        (b"gzip, deflate", zlib.compress(GZIP)),
    ],
)
@pytest.mark.parametrize("form", [b"%s, chunked", b"%s", b"chunked, %s", b"%s,\r\n chunked", b"identity, %s, chunked"])
def test_evasion_64_transfer_codings(live: Live, tmp_path: Path, token: bytes, body: bytes, form: bytes) -> None:
    line = b"Transfer-Encoding: " + form % token
    assert safe(live.ask(respmod(chunked(body), res_hdr=head(line))))
    two = [b"Transfer-Encoding: " + token, b"Transfer-Encoding: chunked"]
    assert safe(live.ask(respmod(chunked(body), res_hdr=head(*two))))
    refused_or_found(head(line) + chunked(body), tmp_path)
    refused_or_found(head(line) + body, tmp_path)
    assert safe(live.ask(respmod(chunked(body), res_hdr=head(b"Transfer-Encoding: foo, chunked"))))


def test_evasion_64_chunked_alone_changes_nothing(live: Live) -> None:
    assert live.ask(respmod(chunked(HARMLESS), res_hdr=head(b"Transfer-Encoding: chunked"))).status == 204


# Framing

SIZES = [
    b"%x", b"%X", b"000%x", b"0x%x", b"+%x", b"-%x", b" %x", b"%x ", b"\t%x", b"%x\t", b"%x;ext", b'%x;a="b"',
    b"%x; ieof", b"%x\0", b"%x,", b"%xg", b"\xa0%x", b"ffffffffffffff%02x", b"1%016x",
]  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("end", [b"\r\n", b"\n", b"\r", b"\r\r\n", b" \r\n"])
def test_evasion_65_chunk_sizes(live: Live, tmp_path: Path, size: bytes, end: bytes) -> None:
    body = size % len(EICAR) + end + EICAR + b"\r\n" + LAST
    with live.connect() as peer:
        peer.send_what_goes(respmod(body))
        peer.fin()
        assert safe(peer.answer()) and peer.rest_or_reset() == b""
    refused_or_found(head(b"Transfer-Encoding: chunked") + body, tmp_path)


@pytest.mark.parametrize(
    "body",
    [
        chunk(EICAR),  # the last chunk is missing
        chunk(EICAR)[:-2],
        chunk(EICAR) + b"0\r\n",
        chunk(EICAR[:30]) + chunk(EICAR[30:])[:-9],
        chunk(EICAR) + b"0\n\n",
        chunk(EICAR).replace(b"\r\n", b"\n", 1) + LAST,
        b"\r\n" + chunked(EICAR),
        b"%x\r\n%s" % (len(EICAR) - 1, EICAR) + b"\r\n" + LAST,
        b"%x\r\n%s" % (len(EICAR) + 9, EICAR) + b"\r\n" + LAST,
        chunk(EICAR) + b"0;ext\r\nX: y\r\n\r\n",
    ],
)
def test_evasion_65_broken_chunks(live: Live, tmp_path: Path, body: bytes) -> None:
    with live.connect() as peer:
        peer.send_what_goes(respmod(body))
        peer.fin()
        assert safe(answer) if (answer := _last(peer)) is not None else True
    refused_or_found(head(b"Transfer-Encoding: chunked") + body, tmp_path)
    for more in (b"Content-Length: 5", b"Content-Length: %d" % len(body)):
        refused_or_found(head(b"Transfer-Encoding: chunked", more) + body, tmp_path)
        refused_or_found(head(more, b"Transfer-Encoding: chunked") + chunked(EICAR), tmp_path)
    refused_or_found(head(b"Transfer-Encoding: chunked", status=b"HTTP/1.0 200 OK\r\n") + chunked(EICAR), tmp_path)
    refused_or_found(head(b"Transfer-Encoding: chunked", status=b"HTTP/1.0 200 OK\r\n") + EICAR, tmp_path)


def _last(peer: Peer) -> Answer | None:
    """The answer; None where the server closed without one, since the request was cut off."""
    try:
        return peer.answer()
    except AssertionError:
        assert peer.pending == b""
        return None


LENGTHS = [
    b"0", b"5", b"67", b"68", b"69", b"1000000", b"+68", b"-1", b"0x44", b"68, 68", b"68, 5", b"5, 68", b"6 8", b"68;",
    b"", b"99999999999999999999999", b" 68", b"68\0", b'"68"',
]  # fmt: skip


@pytest.mark.parametrize("length", LENGTHS)
def test_evasion_66_content_length(live: Live, tmp_path: Path, length: bytes) -> None:
    """All bytes that came are scanned, whatever the head says of them."""
    assert len(EICAR) == 68
    line = b"Content-Length: " + length
    for lines in ([line], [line, b"Content-Length: 68"], [b"Content-Length: 68", line], [b"Content-Length: 5", line]):
        assert safe(live.ask(respmod(chunked(EICAR), res_hdr=head(*lines))))
        refused_or_found(head(*lines) + EICAR, tmp_path)
        refused_or_found(head(*lines) + b"x" * 5 + EICAR, tmp_path)


# Heads

HEADS = [
    b"HTTP/1.1 200 OK\r\nA\0B: c\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA: \0\r\n\r\n",
    b"\0HTTP/1.1 200 OK\r\n\r\n",
    b"HTTP/1.1 200\0OK\r\n\r\n",
    b"HTTP/1.1 200 OK\rA: b\r\r",
    b"HTTP/1.1 200 OK\nA: b\n\n",
    b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n: no name\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n folded first\r\n\r\n",
    b"junk\r\nHTTP/1.1 200 OK\r\n\r\n",
    b"\r\nHTTP/1.1 200 OK\r\n\r\n",
    b"HTTP/1.1 xyz OK\r\n\r\n",
    b"HTTP/1.1\r\n\r\n",
    b"HTTP/0.9 200 OK\r\n\r\n",
    b"HTTP/2 200\r\n\r\n",
    b"ICY 200 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"",
]
SAYS_DEFLATE = [
    b"X: y\rContent-Encoding: deflate",
    b"Content-Encoding\0: deflate",
    b"Content-\0Encoding: deflate",
    b"\0Content-Encoding: deflate",
    b"Content-Encoding deflate",
    b"Content-Encoding : deflate",
    b" Content-Encoding: deflate",
    b"X: y\r\n\tContent-Encoding: deflate",
    b"Content-Encoding:\r\n deflate",
    b"Content-Encoding: \0deflate",
    b"Content-Encoding: def\0late",
    b"Content-Encoding: deflate\xff",
    b"\xffContent-Encoding: deflate",
    b"content_encoding: x\r\nContent-Encoding: deflate",
    b"Content-Encoding: identity\r\nContent-Encoding: deflate",
    b"Content-Encoding: deflate\r\nContent-Encoding: identity",
]


@pytest.mark.parametrize("res_hdr", HEADS)
def test_evasion_67_broken_heads(live: Live, tmp_path: Path, res_hdr: bytes) -> None:
    assert safe(live.ask(respmod(chunked(EICAR), res_hdr=res_hdr)))
    assert safe(live.ask(respmod(chunked(GZIP), res_hdr=res_hdr)))
    refused_or_found(res_hdr + EICAR, tmp_path)


@pytest.mark.parametrize("line", SAYS_DEFLATE)
def test_evasion_67_a_coding_that_only_some_readers_see(live: Live, tmp_path: Path, line: bytes) -> None:
    """Raw deflate and brotli have no sign of their own: if the field is missed, nothing is found."""
    for body, token in ((RAW, b"deflate"), (BROTLI, b"br")):
        one = line.replace(b"deflate", token)
        assert safe(live.ask(respmod(chunked(body), res_hdr=head(one)))), one
        refused_or_found(head(one) + body, tmp_path)


def test_evasion_67_http_0_9(tmp_path: Path) -> None:
    refused_or_found(EICAR, tmp_path)
    refused_or_found(EICAR + b"\r\n\r\n", tmp_path)


# Ranges

PARTIAL = b"HTTP/1.1 206 Partial Content\r\n"


@pytest.mark.parametrize(
    "lines",
    [
        [b"Content-Range: bytes 0-40/68"],
        [b"Content-Range: bytes 27-67/68"],
        [b"Content-Range: bytes 0-40/*"],
        [b"content-range:bytes 0-40/42"],
        [b"Content-Range: bytes */68"],
        [b"Content-Range: items 0-40/41"],
        [b"Content-Range: bytes 0-40/41", b"Content-Range: bytes 0-40/68"],
        [],
    ],
)
def test_evasion_68_a_part_of_a_content_is_refused(live: Live, lines: list[bytes]) -> None:
    for status in (PARTIAL, b"HTTP/1.0 206 OK\r\n", b"HTTP/1.1  206\r\n"):
        assert blocked(live.ask(respmod(chunked(HARMLESS), res_hdr=head(*lines, status=status))))
        assert blocked(live.ask(respmod(chunked(EICAR), res_hdr=head(*lines, status=status))))


def test_evasion_68_the_whole_content_in_one_range(live: Live) -> None:
    whole = head(b"Content-Range: bytes 0-67/68", status=PARTIAL)
    assert blocked(live.ask(respmod(chunked(EICAR), res_hdr=whole)))
    whole = head(b"Content-Range: bytes 0-40/41", status=PARTIAL)
    assert live.ask(respmod(chunked(HARMLESS), res_hdr=whole)).status == 204


@pytest.mark.parametrize("how", ["strip", "refuse", "allow"])
def test_evasion_68_requests_for_ranges(how: Literal["strip", "refuse", "allow"]) -> None:
    asks = b"GET http://www.example.org/a HTTP/1.1\r\nHost: www.example.org\r\nRange: bytes=1-2\r\n\r\n"
    with Live(policy=PolicySettings(ranges=how)) as live:
        answer = live.ask(reqmod(None, req_hdr=asks))
        assert live.ask(reqmod(None)).status == 204
        if how == "refuse":
            assert blocked(answer)
        elif how == "strip":
            assert answer.status == 200 and b"Range" not in answer.sections["req-hdr"]
        else:
            assert answer.status == 204
        part = head(b"Content-Range: bytes 0-40/68", status=PARTIAL)
        assert blocked(live.ask(respmod(chunked(HARMLESS), res_hdr=part))) is (how != "allow")


def test_evasion_68_several_ranges_are_joined(live: Live) -> None:
    multiple = head(b"Content-Type: multipart/byteranges; boundary=x", status=PARTIAL)
    for order in ((0, 30), (30, 0)):
        parts = [
            b"--x\r\nContent-Range: bytes %d-%d/68\r\n\r\n%s\r\n" % (at, end - 1, EICAR[at:end])
            for at, end in ((start, 30 if start == 0 else 68) for start in order)
        ]
        assert blocked(live.ask(respmod(chunked(b"".join(parts) + b"--x--\r\n"), res_hdr=multiple)))
        assert blocked(live.ask(respmod(chunked(parts[0] + b"--x--\r\n"), res_hdr=multiple)))


@pytest.fixture(scope="module")
def lenient() -> Iterator[Live]:
    with Live(policy=PolicySettings(ranges="allow")) as server:
        yield server


ASKS = (
    b"GET http://www.example.org/a HTTP/1.1\r\nHost: www.example.org\r\n"
    b"Range: bytes=0-9,\r\n 20-\r\nIf-Range: x\r\nAccept: */*\r\n\r\n"
)


def test_evasion_68_requests_lose_their_ranges(live: Live, lenient: Live) -> None:
    answer = live.ask(reqmod(None, req_hdr=ASKS))
    assert answer.status == 200
    sent = answer.sections["req-hdr"].lower()
    assert sent.startswith(b"get http://www.example.org/a http/1.1\r\nhost: ") and sent.endswith(b"\r\n\r\n")
    assert b"range" not in sent and b"accept: */*\r\n" in sent and b"20-" not in sent
    with_body = live.ask(reqmod(chunked(HARMLESS), req_hdr=ASKS.replace(b"GET", b"POST")))
    assert with_body.body == HARMLESS and b"range" not in with_body.sections["req-hdr"].lower()
    assert live.ask(reqmod(None, req_hdr=ASKS.replace(b"Range", b"X-Rang"))).status == 204
    assert lenient.ask(reqmod(None, req_hdr=ASKS)).status == 204


def test_evasion_68_policy_may_allow_ranges(lenient: Live) -> None:
    part = head(b"Content-Range: bytes 0-40/68", status=PARTIAL)
    assert lenient.ask(respmod(chunked(HARMLESS), res_hdr=part)).status == 204
    assert blocked(lenient.ask(respmod(chunked(EICAR), res_hdr=part)))


# Answers before the end

PREVIEWS = [b"", b"Allow: 204\r\n", b"Allow: 204, 206\r\n"]


@pytest.mark.parametrize("allow", PREVIEWS)
@pytest.mark.parametrize("preview", [0, 10, 30, None])
def test_evasion_74_nothing_is_answered_before_the_last_byte(live: Live, allow: bytes, preview: int | None) -> None:
    """Byte by byte, and the payload is complete with the last one only."""
    fields = allow + (b"" if preview is None else b"Preview: %d\r\n" % preview)
    with live.connect() as peer:
        if preview is None:
            peer.send(respmod(b"", fields))
        else:
            peer.send(respmod(chunked(EICAR[:preview]), fields))
            peer.hundred()
        for byte in EICAR[preview or 0 :]:
            peer.send(chunk(bytes([byte])))
        assert peer.silent()
        peer.send(LAST)
        assert blocked(peer.answer())


@pytest.mark.parametrize("allow", PREVIEWS)
def test_evasion_74_a_payload_that_ends_in_the_preview(live: Live, allow: bytes) -> None:
    with live.connect() as peer:
        answer = peer.ask(respmod(chunk(EICAR) + b"0; ieof\r\n\r\n", allow + b"Preview: 1024\r\n"))
        assert blocked(answer)


def test_evasion_74_a_long_body_with_the_payload_at_its_end(live: Live) -> None:
    body = bytes(300_000) + EICAR
    with live.connect() as peer:
        peer.send(respmod(chunked(body, size=4096, last=b""), b"Allow: 204\r\n"))
        assert peer.silent()
        peer.send(LAST)
        assert blocked(peer.answer())
