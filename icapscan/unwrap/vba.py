"""VBA source: the compression of MS-OVBA 2.4.1, and the modules that the ``dir`` stream of a project names."""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct as Packed

from msgspec import Struct

from icapscan.limits import MIB
from icapscan.unwrap.streams import Broken

CHUNK = 4096
"""Decompressed bytes of a chunk at most (MS-OVBA 2.4.1.1.4)."""
STREAM_MAX = 16 * MIB
"""Of a module's stream that is kept: compiled code and source. VBA itself ends at 64 KiB of compiled procedure."""
SOURCE_START = b"\0Attribut"
"""Every module's source begins with an Attribute line; compressed, its first eight letters stand behind a flag byte."""
_U16 = Packed("<H")
_RECORD = Packed("<HI")


class Module(Struct, frozen=True):
    """A module as the ``dir`` stream describes it."""

    name: str
    stream: str
    offset: int
    """Where in the stream the compressed source begins."""
    procedural: bool


def decompress(data: bytes, at: int = 0) -> Iterator[bytes]:
    """A CompressedContainer that begins at ``at``, chunk by chunk. Raises `Broken` where it is damaged."""
    if data[at : at + 1] != b"\x01":
        raise Broken("no signature byte")
    at += 1
    while at + 2 <= len(data):
        header = _U16.unpack_from(data, at)[0]
        if header >> 12 & 7 != 3:
            raise Broken("no signature of a chunk")
        end = at + (header & 0xFFF) + 3
        if header & 0x8000:
            yield _chunk(data, at + 2, min(end, len(data)))
        else:
            yield data[at + 2 : min(end, len(data), at + 2 + CHUNK)]
        if end > len(data):
            raise Broken("cut short")
        at = end


def _chunk(data: bytes, at: int, end: int) -> bytes:
    """Token sequences (2.4.1.3.5): a byte of eight flags, then literals and copies."""
    out = bytearray()
    while at < end:
        flags = data[at]
        at += 1
        if not flags:  # eight literals
            out += data[at : min(at + 8, end)]
            at += 8
            continue
        for bit in range(8):
            if at >= end:
                break
            if not flags >> bit & 1:
                out.append(data[at])
                at += 1
                continue
            if at + 2 > end:
                return bytes(out)
            _copy(out, data[at] | data[at + 1] << 8)
            at += 2
        if len(out) > CHUNK:
            raise Broken("a chunk is too long")
    if len(out) > CHUNK:
        raise Broken("a chunk is too long")
    return bytes(out)


def _copy(out: bytearray, token: int) -> None:
    """A CopyToken (2.4.1.3.19): the position decides how many of its bits are the offset."""
    bits = max(4, (len(out) - 1).bit_length()) if out else 4
    length = (token & 0xFFFF >> bits) + 3
    offset = (token >> 16 - bits) + 1
    if offset > len(out) or len(out) + length > CHUNK + 0xFFF:
        raise Broken("a copy points nowhere")
    start = len(out) - offset
    if length <= offset:
        out += out[start : start + length]
        return
    run = out[start:]
    out += (run * (length // offset + 1))[:length]


def modules(directory: bytes) -> list[Module]:
    """The modules that a decompressed ``dir`` stream lists (2.3.4.2). Tolerant: stops where it makes no sense."""
    found: list[Module] = []
    codepage, at = "cp1252", 0
    name = stream = ""
    offset, procedural = 0, True
    while at + 6 <= len(directory):
        kind, size = _RECORD.unpack_from(directory, at)
        if kind == 0x09:  # PROJECTVERSION gives 4, and has 6
            size = 6
        data = directory[at + 6 : at + 6 + size]
        at += 6 + size
        if kind == 0x03 and len(data) == 2:
            codepage = f"cp{_U16.unpack(data)[0]}"
        elif kind == 0x19:
            name = _text(data, codepage)
            stream = name
        elif kind == 0x47:
            name = data.decode("utf-16-le", "replace") or name
        elif kind == 0x1A:
            stream = _text(data, codepage)
        elif kind == 0x32:
            stream = data.decode("utf-16-le", "replace") or stream
        elif kind == 0x31 and len(data) == 4:
            offset = int.from_bytes(data, "little")
        elif kind in (0x21, 0x22):
            procedural = kind == 0x21
        elif kind == 0x2B and (name or stream):
            found.append(Module(name or stream, stream or name, offset, procedural))
            name, stream, offset, procedural = "", "", 0, True
    return found


def find_source(data: bytes) -> int:
    """Where compressed source begins in a module's stream by its look, or -1."""
    at = data.find(SOURCE_START)
    while at >= 0:
        if at >= 3 and data[at - 3] == 1 and data[at - 1] >> 4 & 7 == 3:
            return at - 3
        at = data.find(SOURCE_START, at + 1)
    return -1


def _text(data: bytes, codepage: str) -> str:
    try:
        return data.decode(codepage, "replace")
    except LookupError:
        return data.decode("latin-1")
