"""PROXY headers, XCLIENT and XFORWARD."""

from __future__ import annotations

import pytest

from icapscan.errors import ProtocolError
from icapscan.wire.proxy_protocol import SIGNATURE, Header, Proxied, encode_v1, encode_v2, parse_header
from icapscan.wire.xforward import address_text, attributes, xtext

FOUR = Proxied("192.0.2.1", 1234, "192.0.2.2", 25)
SIX = Proxied("2001:db8::1", 1234, "2001:db8::2", 25)


@pytest.mark.parametrize("proxied", [FOUR, SIX])
@pytest.mark.parametrize("encode", [encode_v1, encode_v2])
def test_what_is_encoded_is_read_back_in_any_split(proxied: Proxied, encode: object) -> None:
    wire = encode(proxied)  # type: ignore[operator]
    for cut in range(len(wire)):
        assert parse_header(wire[:cut]) is None
    assert parse_header(wire + b"EHLO x\r\n") == Header(len(wire), proxied)


def test_two_families_are_told_as_one() -> None:
    wire = encode_v1(Proxied("192.0.2.1", 1, "2001:db8::2", 25))
    header = parse_header(wire)
    assert wire.startswith(b"PROXY TCP6 ::ffff:") and header is not None and header.proxied is not None


@pytest.mark.parametrize(
    "wire",
    [
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN ffff::1 ::2 1 2\r\n",
        SIGNATURE + b"\x20\x00\x00\x00",
        SIGNATURE + b"\x21\x00\x00\x00",
    ],
)
def test_a_proxy_that_speaks_for_itself(wire: bytes) -> None:
    assert parse_header(wire) == Header(len(wire), None)


def test_extensions_of_version_2_are_skipped() -> None:
    wire = SIGNATURE + b"\x21\x11\x00\x10" + bytes([192, 0, 2, 1, 192, 0, 2, 2, 4, 210, 0, 25]) + b"\x04\x00\x01x"
    assert parse_header(wire) == Header(len(wire), FOUR)


@pytest.mark.parametrize(
    "wire",
    [
        b"EHLO x\r\n", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n", b"PROXY TCP4 2001:db8::1 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 99999\r\n", b"PROXY TCP4 192.0.2.1  192.0.2.2 1 2\r\n", b"PROXY X\r\n",
        b"PROXY UNKNOWN" + b"x" * 200, b"PROXY TCP4 1.2.3.4\r5 1.2.3.4 1 2\r\n", b"\r\n\r\nX",
        SIGNATURE + b"\x31\x11\x00\x0c", SIGNATURE + b"\x22\x11\x00\x0c", SIGNATURE + b"\x21\x11\xff\xff",
        SIGNATURE + b"\x21\x11\x00\x03abc", SIGNATURE + b"\x21\x12\x00\x0c" + bytes(12),
    ],
)  # fmt: skip
def test_what_is_no_header(wire: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_header(wire)


def test_attributes_cannot_hold_others() -> None:
    assert xtext("a b\r\nADDR=1+") == b"a+20b+0D+0AADDR+3D1+2B"
    assert address_text("192.0.2.1") == "192.0.2.1"
    assert address_text("2001:db8::1") == "IPV6:2001:db8::1" and address_text("x") == "[UNAVAILABLE]"


def test_only_what_is_offered_is_told_and_lines_stay_short() -> None:
    values = {"NAME": "", "ADDR": "192.0.2.1", "HELO": "x" * 255, "LOGIN": "y" * 255, "PORT": "1"}
    made = attributes("XCLIENT", {"NAME", "ADDR", "HELO", "LOGIN"}, values)
    assert [one.verb for one in made] == [b"XCLIENT", b"XCLIENT"]
    assert made[0].line.startswith(b"XCLIENT NAME=[UNAVAILABLE] ADDR=192.0.2.1 HELO=xxx")
    assert all(len(one.line) < 510 for one in made) and b"PORT" not in made[1].line
    assert attributes("XFORWARD", (), values) == []
