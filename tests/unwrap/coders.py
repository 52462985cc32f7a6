"""Encoders that the standard library has no more or never had: what the tests of decoders are made with."""

from __future__ import annotations

import binascii
import bz2
import gzip
import zlib
from base64 import b64encode

_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_HQX = b"!\"#$%&'()*+,-012345689@ABCDEFGHIJKLMNPQRSTUVXYZ[`abcdefhijklmpqr"


def uuencode(data: bytes, name: bytes = b"a.com", frame: bool = True) -> bytes:
    """uuencoded lines, with begin and end lines or without."""
    lines = b"".join(binascii.b2a_uu(data[at : at + 45]) for at in range(0, len(data), 45))
    return b"begin 644 " + name + b"\n" + lines + b"`\nend\n" if frame else lines


def yenc(
    data: bytes, name: bytes = b"a.com", *, size: int | None = None, end: bool = True, crc: int | None = None
) -> bytes:
    """yEnc with lines of 128."""
    coded = bytearray()
    out = bytearray(b"=ybegin line=128 size=%d name=%s\r\n" % (len(data) if size is None else size, name))
    for byte in data:
        byte = (byte + 42) & 255
        if byte in b"\0\n\r=":
            coded += bytes([ord("="), (byte + 64) & 255])
        else:
            coded.append(byte)
        if len(coded) >= 128:
            out += coded + b"\r\n"
            coded.clear()
    out += coded + b"\r\n"
    if end:
        out += b"=yend size=%d crc32=%08x\r\n" % (len(data), binascii.crc32(data) if crc is None else crc)
    return bytes(out)


def binhex(data: bytes, resource: bytes = b"", name: bytes = b"a.com", crc: int | None = None) -> bytes:
    """A BinHex 4 file with both forks, runs shortened."""
    head = (
        bytes([len(name)]) + name + b"\0TEXTttxt\0\0" + len(data).to_bytes(4, "big") + len(resource).to_bytes(4, "big")
    )

    def summed(part: bytes) -> bytes:
        value = binascii.crc_hqx(part + b"\0\0", 0) if crc is None else crc
        return part + value.to_bytes(2, "big")

    packed = bytearray()
    plain = summed(head) + summed(data) + summed(resource)
    at = 0
    while at < len(plain):
        byte = plain[at : at + 1]
        run = 1
        while run < 255 and plain[at + run : at + run + 1] == byte:
            run += 1
        packed += b"\x90\0" if byte == b"\x90" else byte
        if run > 3:
            packed += b"\x90" + bytes([run])
        else:
            run = 1
        at += run
    coded = b64encode(bytes(packed)).rstrip(b"=").translate(bytes.maketrans(_BASE64, _HQX))
    text = b":" + coded + b":"
    lines = b"\n".join(text[at : at + 64] for at in range(0, len(text), 64))
    return b"(This file must be converted with BinHex 4.0)\n\n" + lines + b"\n"


def der(tag: int, *contents: bytes) -> bytes:
    """One DER element."""
    body = b"".join(contents)
    size = len(body)
    if size < 128:
        return bytes([tag, size]) + body
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + body


def ber(tag: int, *contents: bytes) -> bytes:
    """One BER element of indefinite length."""
    return bytes([tag, 0x80]) + b"".join(contents) + b"\0\0"


def cms(kind: int, content: bytes | None, *, pieces: int = 0) -> bytes:
    """A PKCS #7 object: signedData (2) around some content, in pieces of BER if wanted; or any other kind."""
    oid = bytes.fromhex("06092a864886f70d0107")
    if kind != 2:
        return der(0x30, oid, bytes([kind]), der(0xA0, der(0x30, der(2, b"\0"), der(0x31))))
    data = oid + b"\1"
    if content is None:
        inner = der(0x30, data)
    elif pieces:
        octets = [der(4, content[at : at + pieces]) for at in range(0, len(content), pieces)]
        inner = ber(0x30, data, ber(0xA0, ber(0x24, *octets)))
        return ber(0x30, oid, b"\2", ber(0xA0, ber(0x30, der(2, b"\1"), der(0x31), inner, der(0x31))))
    else:
        inner = der(0x30, data, der(0xA0, der(4, content)))
    return der(0x30, oid, b"\2", der(0xA0, der(0x30, der(2, b"\1"), der(0x31), inner, der(0x31))))


def tnef(*attributes: tuple[int, int, bytes], checksum: int | None = None) -> bytes:
    """A TNEF file of (level, attribute, data)."""
    out = bytearray(b"\x78\x9f\x3e\x22\1\0")
    for level, kind, data in attributes:
        total = sum(data) & 0xFFFF if checksum is None else checksum
        out += bytes([level]) + kind.to_bytes(4, "little") + len(data).to_bytes(4, "little") + data
        out += total.to_bytes(2, "little")
    return bytes(out)


RENDERING, TITLE, DATA, PROPERTIES, MESSAGE_PROPERTIES = 0x69002, 0x18010, 0x6800F, 0x69005, 0x69003


def winmail(data: bytes, name: bytes = b"a.com", checksum: int | None = None) -> bytes:
    """A winmail.dat with one attachment, its name after its data."""
    return tnef((2, RENDERING, bytes(14)), (2, DATA, data), (2, TITLE, name + b"\0"), checksum=checksum)


def properties(*values: tuple[int, int, bytes]) -> bytes:
    """A list of encapsulated properties: (tag, type, value) of variable size."""
    out = bytearray(len(values).to_bytes(4, "little"))
    for tag, kind, value in values:
        out += kind.to_bytes(2, "little") + tag.to_bytes(2, "little") + (1).to_bytes(4, "little")
        out += len(value).to_bytes(4, "little") + value + bytes(-len(value) % 4)
    return bytes(out)


def packet(kind: int, body: bytes, *, old: bool = False, pieces: int = 0) -> bytes:
    """One OpenPGP packet, in the old form or the new one, or in pieces of a power of two."""
    if old:
        return bytes([0x80 | kind << 2 | 2]) + len(body).to_bytes(4, "big") + body
    out = bytes([0xC0 | kind])
    while pieces and len(body) > 1 << pieces:
        out += bytes([224 + pieces]) + body[: 1 << pieces]
        body = body[1 << pieces :]
    return out + b"\xff" + len(body).to_bytes(4, "big") + body


def openpgp(data: bytes, how: int = 1, *, signed: bool = True, old: bool = False, pieces: int = 0) -> bytes:
    """A message: literal data, signed in one pass, and packed by algorithm ``how`` (0 for not at all)."""
    message = packet(11, b"b" + b"\5a.com" + bytes(4) + data, old=old, pieces=pieces)
    if signed:
        one_pass = packet(4, b"\3\0\x08\1" + bytes(8) + b"\1", old=False)
        message = one_pass[:1] + b"\x0d" + one_pass[6:] + message + packet(2, bytes(20), old=old)
    if not how:
        return message
    packers = {1: lambda plain: zlib.compress(plain)[2:-4], 2: zlib.compress, 3: bz2.compress}
    return (
        packet(8, bytes([how]) + packers[how](message), pieces=pieces)
        if not old
        else (b"\xa3" + bytes([how]) + packers[how](message))
    )


def armored(data: bytes, kind: bytes = b"MESSAGE") -> bytes:
    """ASCII armor."""
    lines = b64encode(data)
    text = b"\n".join(lines[at : at + 64] for at in range(0, len(lines), 64))
    return b"-----BEGIN PGP %s-----\nVersion: x\n\n%s\n=abcd\n-----END PGP %s-----\n" % (kind, text, kind)


def gzipped(data: bytes) -> bytes:
    """gzip without the time: the same in every process."""
    return gzip.compress(data, mtime=0)


def raw_deflate(data: bytes) -> bytes:
    """deflate without zlib's frame."""
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()
