"""EVASION.md 57 to 63, 69 and 70: techniques in the body of an HTTP message, to the verdict, with YARA alone."""

from __future__ import annotations

import gzip
import lzma
import zlib
from collections.abc import Callable
from itertools import pairwise

import brotli
import pytest
import zstandard

from icapscan.findings import Level
from icapscan.limits import Limits
from tests.unwrap.coders import gzipped, raw_deflate
from tests.unwrap.pdf_maker import attachment, flate, pdf
from tests.unwrap.samples_mime import EICAR, TEXT, mail, multipart, part
from tests.unwrap.verdicts import infected, reasons, verdict
from tests.unwrap.zip_maker import Made, made_zip

Encode = Callable[[bytes], bytes]


def lzma_alone(data: bytes) -> bytes:
    return lzma.compress(data, lzma.FORMAT_ALONE)


CODINGS: list[tuple[bytes, Encode]] = [
    (b"gzip", gzip.compress),
    (b"x-gzip", gzip.compress),
    (b"deflate", zlib.compress),
    (b"deflate", raw_deflate),
    (b"br", brotli.compress),
    (b"zstd", zstandard.compress),
    (b"lzma", lzma_alone),
    (b"xz", lzma.compress),
]
every_coding = pytest.mark.parametrize(
    ("token", "encode"), CODINGS, ids=[f"{token.decode()}-{encode.__name__}" for token, encode in CODINGS]
)
PLAIN = b"nothing to see here, in any reading of it"


@every_coding
def test_evasion_57_every_coding_in_any_spelling(token: bytes, encode: Encode) -> None:
    body = encode(EICAR)
    mixed = bytes(code ^ 32 if at % 2 and 97 <= code < 123 else code for at, code in enumerate(token))
    for value in (token, token.upper(), mixed, b" \t" + token + b"\t ", b"," + token + b" ,", token + b"\r\n "):
        infected(body, "application/octet-stream", coding=value)
    said = verdict(encode(PLAIN), coding=token)
    assert said.level is Level.CLEAN


@pytest.mark.parametrize("layers", [2, 3, 4, 5])
def test_evasion_58_several_codings(layers: int) -> None:
    """Joined by commas, as several field lines are (RFC 9110 5.3); those are sent in tests/conformance."""
    tokens, body = [], EICAR
    for token, encode in [*CODINGS[2:6], CODINGS[0]][:layers]:
        tokens.append(token)
        body = encode(body)
    infected(body, coding=b", ".join(tokens))
    infected(body, coding=b",".join(tokens))


def test_evasion_58_more_than_five_codings_are_a_limit() -> None:
    for token, encode in CODINGS:
        body = EICAR
        for _ in range(6):
            body = encode(body)
        said = verdict(body, coding=b",".join([token] * 6))
        assert "over-limit" in reasons(said), token


@every_coding
def test_evasion_59_two_layers_of_which_one_is_declared(token: bytes, encode: Encode) -> None:
    infected(encode(gzipped(EICAR)), coding=token)
    infected(gzipped(gzipped(EICAR)), coding=b"gzip")
    for inner in (lzma.compress, zstandard.compress, lzma_alone):
        infected(encode(inner(EICAR)), coding=token)


@every_coding
def test_evasion_60_a_coding_that_was_not_applied(token: bytes, encode: Encode) -> None:
    infected(EICAR, coding=token)
    infected(EICAR, coding=token + b", gzip")
    infected(encode(EICAR), coding=token + b", identity")
    infected(encode(EICAR), coding=b"identity," + token)


@pytest.mark.parametrize("encode", [gzip.compress, zstandard.compress, lzma.compress, lzma_alone, zlib.compress])
@pytest.mark.parametrize("declared", [b"", b"identity", b"br", b"deflate"])
def test_evasion_60_a_coding_that_was_not_declared(encode: Encode, declared: bytes) -> None:
    """A file of such a format is opened by hand. zlib's stream is none: without deflate declared nobody undoes it."""
    said = verdict(encode(EICAR), coding=declared)
    unread = encode is zlib.compress and declared != b"deflate"
    assert said.level is Level.INFECTED or reasons(said) or unread


@pytest.mark.parametrize(
    "token", [b"foo", b"compress", b"pack200-gzip", b"gzip;q=1", b"g\xc5\xbcip", b"aes128gcm", b"*"]
)
def test_evasion_60_an_unknown_token_is_not_clean(token: bytes) -> None:
    infected(EICAR, coding=token)
    infected(gzipped(EICAR), coding=token)
    for body in (PLAIN, gzipped(PLAIN), brotli.compress(EICAR)):
        assert "unsupported" in reasons(verdict(body, coding=token))
        assert "unsupported" in reasons(verdict(body, coding=b"gzip, " + token))


def gzip_member(
    data: bytes, flags: int = 0, fields: bytes = b"", crc: int | None = None, size: int | None = None
) -> bytes:
    """A gzip member by hand (RFC 1952)."""
    head = b"\x1f\x8b\x08" + bytes([flags]) + bytes(5) + b"\xff" + fields
    if flags & 2:  # FHCRC
        head += (zlib.crc32(head) & 0xFFFF).to_bytes(2, "little")
    trailer = (zlib.crc32(data) if crc is None else crc).to_bytes(4, "little")
    return head + raw_deflate(data) + trailer + (len(data) if size is None else size).to_bytes(4, "little")


EXTRA, NAME, COMMENT, HEAD_CRC, IS_TEXT = 4, 8, 16, 2, 1


@pytest.mark.parametrize(
    "body",
    [
        gzipped(EICAR[:20]) + gzipped(EICAR[20:]),
        gzipped(b"") + gzipped(EICAR),
        gzipped(b"") * 3 + gzipped(EICAR),
        gzipped(EICAR) + b"junk behind it",
        gzipped(EICAR) + bytes(100),
        gzipped(EICAR)[:-8],
        gzipped(EICAR)[:-1],
        gzip_member(EICAR, crc=1),
        gzip_member(EICAR, size=3),
        gzip_member(EICAR, EXTRA, b"\x05\0extra"),
        gzip_member(EICAR, NAME, b"a.com\0"),
        gzip_member(EICAR, COMMENT, b"a comment\0"),
        gzip_member(EICAR, HEAD_CRC),
        gzip_member(EICAR, IS_TEXT),
        gzip_member(EICAR, EXTRA | NAME | COMMENT | HEAD_CRC | IS_TEXT, b"\x05\0extraa.com\0a comment\0"),
    ],
)
def test_evasion_61_gzip_members(body: bytes) -> None:
    infected(body, coding=b"gzip")
    infected(body, "application/gzip")


@pytest.mark.parametrize("body", [gzipped(PLAIN)[:-8], gzip_member(PLAIN, crc=1), gzip_member(PLAIN, size=3)])
def test_evasion_61_what_is_wrong_with_a_member_is_told(body: bytes) -> None:
    assert reasons(verdict(body, coding=b"gzip")) == {"malformed"}


@pytest.mark.parametrize("flush", [zlib.Z_PARTIAL_FLUSH, zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH])
@pytest.mark.parametrize(("token", "wbits"), [(b"gzip", 31), (b"deflate", 15), (b"deflate", -15)])
def test_evasion_62_flushed_blocks(flush: int, token: bytes, wbits: int) -> None:
    packer = zlib.compressobj(wbits=wbits)
    start = packer.compress(EICAR[:30]) + packer.flush(flush)
    infected(start + packer.compress(EICAR[30:]) + packer.flush(), coding=token)
    # the rest as it is, with no end of the coded content before it
    for rest in (EICAR[30:], b"\xff" * 3 + EICAR[30:], b"\n" + EICAR):
        said = verdict(start + rest, coding=token)
        assert said.level is Level.INFECTED or "malformed" in reasons(said)


@every_coding
def test_evasion_62_the_first_part_coded_and_the_rest_plain(token: bytes, encode: Encode) -> None:
    for body in (encode(EICAR[:30]) + EICAR[30:], encode(b"") + EICAR):
        said = verdict(body, coding=token)
        assert said.level is Level.INFECTED or reasons(said), said


def test_evasion_63_zstd_frames() -> None:
    skippable = b"\x5a\x2a\x4d\x18" + (7).to_bytes(4, "little") + b"nothing"
    for body in (
        skippable + zstandard.compress(EICAR),
        zstandard.compress(EICAR[:9]) + skippable + zstandard.compress(EICAR[9:]),
        zstandard.compress(EICAR[:9]) + zstandard.compress(EICAR[9:]) + skippable,
        zstandard.compress(b"") + zstandard.compress(EICAR),
    ):
        infected(body, coding=b"zstd")
        infected(body, "application/zstd")


@pytest.mark.parametrize("window_log", [24, 27, 31])
def test_evasion_63_a_huge_zstd_window_is_a_limit(window_log: int) -> None:
    """The frame is written by hand, since only its header is to ask for memory."""
    head = b"\x28\xb5\x2f\xfd" + b"\0" + bytes([(window_log - 10) << 3])
    block = (len(EICAR) << 3 | 1).to_bytes(3, "little") + EICAR
    for said in (verdict(head + block, coding=b"zstd"), verdict(head + block, "application/zstd")):
        assert "over-limit" in reasons(said)


WRONG = (
    "image/png", "text/html", "text/plain", "image/jpeg", "font/woff2", "video/mp4", "application/json", "text/css",
    "multipart/mixed", "message/rfc822", "application/pdf", "",
)  # fmt: skip
PROGRAMS = {
    "itself": EICAR,
    "zip": made_zip(Made(b"a.com", EICAR)),
    "gzip": gzipped(EICAR),
    "xz": lzma.compress(EICAR),
    "pdf": pdf([attachment(b"a.com", 4), flate(EICAR)]),
    "mail": mail(),
    "zip in zip": made_zip(Made(b"a.zip", made_zip(Made(b"a.com", EICAR)))),
}


@pytest.mark.parametrize("media_type", WRONG)
@pytest.mark.parametrize("what", PROGRAMS)
def test_evasion_70_a_wrong_content_type(what: str, media_type: str) -> None:
    infected(PROGRAMS[what], media_type, content_type=media_type.encode())


def test_evasion_69_mime_as_an_http_body() -> None:
    body = multipart(TEXT, part())
    for media_type in ("multipart/x-mixed-replace", "multipart/mixed", "multipart/related"):
        infected(body, media_type, content_type=media_type.encode() + b"; boundary=frontier")
    infected(mail(), "message/rfc822")
    related = b'Content-Type: multipart/related; type="text/html"; boundary=frontier\r\n'
    page = part(b"<img src=cid:x>", type=b"Content-Type: text/html\r\n", encoding=b"")
    mhtml = mail(multipart(page, part(more=b"Content-Location: http://example.org/a\r\n")), type=related)
    for media_type in ("multipart/related", "application/x-mimearchive", "message/rfc822", "text/plain"):
        infected(mhtml, media_type)


def ranges(*pieces: tuple[int, bytes], total: int | None = None, boundary: bytes = b"x") -> bytes:
    """A multipart/byteranges of pieces and where they stand."""
    size = sum(len(data) for _, data in pieces) if total is None else total
    parts = [
        b"Content-Type: application/octet-stream\r\nContent-Range: bytes %d-%d/%d\r\n\r\n"
        % (start, start + len(data) - 1, size)
        + data
        for start, data in pieces
    ]
    return multipart(*parts, boundary=boundary)


@pytest.mark.parametrize("cuts", [(0, 68), (0, 30, 68), (0, 1, 2, 3, 68), tuple(range(0, 69, 2))])
def test_evasion_68_joined_ranges(cuts: tuple[int, ...]) -> None:
    pieces = [(start, EICAR[start:end]) for start, end in pairwise(cuts)]
    for order in (pieces, pieces[::-1], pieces[1::2] + pieces[::2]):
        infected(ranges(*order), "multipart/byteranges", content_type=b"multipart/byteranges; boundary=x")


def test_evasion_68_ranges_of_what_is_gzipped() -> None:
    whole = gzipped(EICAR)
    body = ranges((9, whole[9:]), (0, whole[:9]))
    infected(body, "multipart/byteranges", content_type=b"multipart/byteranges; boundary=x")


@pytest.mark.parametrize(
    "body",
    [
        ranges((0, PLAIN[:9]), (12, PLAIN[12:]), total=len(PLAIN)),
        ranges((9, PLAIN[9:]), total=len(PLAIN)),
        ranges((0, PLAIN[:9]), (9, PLAIN[9:20]), total=len(PLAIN)),
        ranges((0, PLAIN[:9]), (7, PLAIN[7:]), total=len(PLAIN)),
        ranges((0, PLAIN), total=len(PLAIN) + 1),
        ranges((0, PLAIN[:9]), (9, PLAIN[9:])).replace(b"bytes 9-", b"bytes 9 - "),
        ranges((0, PLAIN)).replace(b"Content-Range: bytes 0-", b"Content-Range: bytes 5-"),
        ranges((0, PLAIN)).replace(b"/41", b"/*"),
        multipart(b"Content-Type: text/plain\r\n\r\n" + PLAIN, boundary=b"x"),
        multipart(boundary=b"other"),
    ],
)
def test_evasion_68_ranges_that_are_not_all_of_it_are_not_clean(body: bytes) -> None:
    said = verdict(body, "multipart/byteranges", content_type=b"multipart/byteranges; boundary=x")
    assert "unsupported" in reasons(said)


def test_evasion_68_all_ranges_of_something_harmless_are_clean() -> None:
    said = verdict(
        ranges((0, PLAIN[:9]), (9, PLAIN[9:])),
        "multipart/byteranges",
        content_type=b"multipart/byteranges; boundary=x",
    )
    assert said.level is Level.CLEAN, said


def test_a_body_of_many_ranges_is_bounded() -> None:
    pieces = [(at, bytes([at & 255])) for at in range(3000)]
    body = ranges(*pieces[::-1])
    said = verdict(body, "multipart/byteranges", content_type=b"multipart/byteranges; boundary=x", limits=Limits())
    assert "over-limit" in reasons(said)
