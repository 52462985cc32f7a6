"""The OLE objects in a PowerPoint presentation (MS-PPT 2.10.34), its VBA project among them, cleaned in place."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from struct import Struct as Packed

from icapscan.limits import MIB
from icapscan.sanitize.contract import CannotSanitize, Cleaned
from icapscan.unwrap.gate import Gate
from icapscan.unwrap.ole_facts import RECORDS_MAX
from icapscan.unwrap.ole_file import MAGIC
from icapscan.unwrap.streams import Inflate
from icapscan.unwrap.unpack import Unpacker

OBJECT_MAX = 64 * MIB
_RECORD = Packed("<HHI")
_OBJECT = 0x1011
_VBA_INFO = re.compile(rb"\x1f\0\xff\x03\x14\0\0\0\x02\0\0\x04\x0c\0\0\0.{4}(?=.{8})", re.S)
"""VBAInfoContainer and, in it, the head of VBAInfoAtom and the number of the project (2.4.10, 2.4.11)."""


def clean_slides(stream: bytearray, gate: Gate, inner: Callable[[bytes, str], Cleaned | None]) -> list[str]:
    """Change a ``PowerPoint Document`` stream; what was taken out, in words. Raises `CannotSanitize`."""
    what: list[str] = []
    at = 0
    for number in range(1, RECORDS_MAX + 1):
        if at + 8 > len(stream):
            break
        version, kind, size = _RECORD.unpack_from(stream, at)
        at += 8
        if kind == _OBJECT:
            if at + size > len(stream):
                raise CannotSanitize("An object of the presentation is cut short.")
            what += _object(stream, at, size, version >> 4 == 1, gate, inner, f"object{number}")
        at += size
    else:
        raise CannotSanitize("There are too many records in the presentation.")
    if "macros" in what:
        for found in _VBA_INFO.finditer(bytes(stream)):
            stream[found.end() : found.end() + 4] = bytes(4)  # the project is empty
    return what


def _object(
    stream: bytearray,
    at: int,
    size: int,
    compressed: bool,
    gate: Gate,
    inner: Callable[[bytes, str], Cleaned | None],
    name: str,
) -> tuple[str, ...]:
    if compressed:
        at, size = at + 4, size - 4
    raw = bytes(stream[at : at + max(0, size)])
    data = _inflated(raw, gate) if compressed else raw
    cleaned = inner(data, name) if data.startswith(MAGIC) else None
    if cleaned is None:
        return ()
    if len(cleaned.data) != len(data):
        raise CannotSanitize("A cleaned object of the presentation has another size.")
    packed = zlib.compress(cleaned.data, 9) if compressed else cleaned.data
    if len(packed) > size:
        raise CannotSanitize("A cleaned object of the presentation does not fit in its place.")
    stream[at : at + size] = packed.ljust(size, b"\0")
    return cleaned.what


def _inflated(raw: bytes, gate: Gate) -> bytes:
    out = bytearray()
    for piece in Unpacker(Inflate(15), gate).run(raw):
        out += piece
        if len(out) > OBJECT_MAX:
            raise CannotSanitize("An object of the presentation is too large.")
    return bytes(out)
