"""Compressed RTF ([MS-OXRTFCP]): a dictionary of 4096 bytes, runs of up to 17 bytes out of it."""

from __future__ import annotations

from collections.abc import Iterator

from icapscan.limits import KIB, MIB

RAW_MAX = 16 * MIB
"""Compressed bytes of one body that are undone; more is a body nobody wrote."""
_HEADER = 16
_COMPRESSED, _UNCOMPRESSED = b"LZFu", b"MELA"
_START = (
    rb"{\rtf1\ansi\mac\deff0\deftab720{\fonttbl;}{\f0\fnil \froman \fswiss \fmodern \fscript \fdecor MS Sans Serif"
    rb"Symbol"
    rb"ArialTimes New RomanCourier{\colortbl\red0\green0\blue0"
    b"\r\n"
    rb"\par \pard\plain\f0\fs20\b\i\u\tab\tx"
)
_SIZE = 4096
_PIECE = 16 * KIB


def decompressed(data: bytes) -> Iterator[bytes | None]:
    """Pieces of the RTF; a None at the end says that it is broken or too long."""
    kind = data[8:12]
    if kind == _UNCOMPRESSED:
        yield data[_HEADER:]
        return
    if kind != _COMPRESSED or len(data) > RAW_MAX:
        yield None
        return
    window = bytearray(_START.ljust(_SIZE, b"\0"))
    out = bytearray()
    at, put = _HEADER, len(_START)
    while at < len(data):
        flags = data[at]
        at += 1
        for bit in range(8):
            if flags >> bit & 1:
                token = int.from_bytes(data[at : at + 2], "big")
                at += 2
                start, length = token >> 4, (token & 15) + 2
                if start == put:
                    if out:
                        yield bytes(out)
                    return
                for index in range(length):
                    byte = window[(start + index) % _SIZE]
                    out.append(byte)
                    window[put] = byte
                    put = (put + 1) % _SIZE
            elif at < len(data):
                out.append(data[at])
                window[put] = data[at]
                put = (put + 1) % _SIZE
                at += 1
        if len(out) >= _PIECE:
            yield bytes(out)
            out.clear()
    if out:
        yield bytes(out)
    yield None  # the end mark is missing
