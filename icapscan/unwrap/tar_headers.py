"""The blocks of a tar archive (POSIX.1-2017 pax; GNU tar manual, appendix "Tar Internals"), parsed and nothing else."""

from __future__ import annotations

import re
import struct

from msgspec import Struct

BLOCK = 512
ZEROS = bytes(BLOCK)
MAP_MAX = 100_000
"""Segments of a sparse file that are followed."""
_WANTED = frozenset({b"path", b"size", b"SUN.holesdata"})
_OCTAL = re.compile(rb"[ \0]*([0-7]+)")
_CHECKSUM_AT, _CHECKSUM_END = 148, 156
_CHECKSUM = re.compile(rb"[ \0]*[0-7]+[ \0]*|[ ]*[0-7]{1,7}\0[\s\S]*")
_SPACES = 8 * 0x20
_SIGNED = struct.Struct("512b")
_PAX_RECORD = re.compile(rb"([0-9]{1,10}) ")
Segments = tuple[tuple[int, int], ...]
"""Offset and length of each stretch of data of a sparse file."""


class Header(Struct, frozen=True):
    """One header block."""

    name: bytes
    size: int
    """Bytes of data that follow; -1 where the number is impossible."""
    kind: bytes
    segments: Segments = ()
    extended: bool = False
    """More blocks of segments follow (old GNU sparse files)."""
    real_size: int = 0
    """Of an old GNU sparse file, holes included."""


def is_header(block: bytes | bytearray | memoryview) -> bool:
    """Whether the checksum of a block fits, by signed or unsigned sums as old tars made them."""
    field = bytes(block[_CHECKSUM_AT:_CHECKSUM_END])
    if len(block) < BLOCK or _CHECKSUM.fullmatch(field) is None:  # almost every other block ends here
        return False
    block = bytes(block[:BLOCK])
    declared = number(field)
    unsigned = sum(block) - sum(field) + _SPACES
    if declared == unsigned:
        return declared > _SPACES
    if max(block) < 0x80:
        return False
    signed = sum(_SIGNED.unpack(block)) - sum(byte - 256 if byte > 127 else byte for byte in field) + _SPACES
    return bool(declared == signed)


def number(field: bytes) -> int:
    """An octal or base-256 number (GNU tar "Extensions"); -1 where it is negative, 0 where it is none."""
    if field[:1] >= b"\x80":
        if field[0] & 0x40:
            return -1
        return int.from_bytes(bytes([field[0] & 0x3F]) + field[1:], "big")
    found = _OCTAL.match(field)
    return int(found[1], 8) if found else 0


def parse(block: bytes) -> Header:
    """A header block whose checksum fits."""
    name = block[:100].partition(b"\0")[0]
    kind = block[156:157]
    gnu = block[257:265] == b"ustar  \0"
    if block[257:262] == b"ustar" and not gnu:
        prefix = block[345 : 345 + (131 if block[508:512] == b"tar\0" else 155)].partition(b"\0")[0]
        if prefix:
            name = prefix + b"/" + name
    if kind == b"S":
        return Header(
            name, number(block[124:136]), kind, _segments(block[386:482]), block[482] != 0, number(block[483:495])
        )
    return Header(name, number(block[124:136]), kind)


def parse_extension(block: bytes) -> tuple[Segments, bool]:
    """A further block of segments of an old GNU sparse file, and whether yet another follows."""
    return _segments(block[:504]), block[504] != 0


def _segments(data: bytes) -> Segments:
    found = []
    for at in range(0, len(data) - 23, 24):
        if data[at] == 0:
            break
        found.append((number(data[at : at + 12]), number(data[at + 12 : at + 24])))
    return tuple(found)


def pax(data: bytes) -> list[tuple[bytes, bytes]]:
    """The records of a pax header (POSIX pax, "pax Extended Header"), in order; stops where they make no sense."""
    records = []
    at = 0
    while found := _PAX_RECORD.match(data, at):
        end = at + int(found[1])
        record = data[found.end() : end]
        if end > len(data) or end <= found.end():
            break
        key, equals, value = record.partition(b"=")
        if equals:
            records.append((key, value.removesuffix(b"\n")))
        at = end
    return records


def wanted(records: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Those that say where data is, how much, and how it is called; the others may be large and are of no use here."""
    return [record for record in records if record[0] in _WANTED or record[0].startswith(b"GNU.sparse.")]


def pax_segments(records: list[tuple[bytes, bytes]]) -> Segments:
    """The map of a sparse file in pax form 0.0 or 0.1 (GNU tar "PAX Format, Versions 0.0 and 0.1")."""
    numbers: list[int] = []
    for key, value in records:
        if key == b"GNU.sparse.map":
            numbers = [decimal(item) for item in value.split(b",")[: 2 * MAP_MAX]]
        elif key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes") and len(numbers) < 2 * MAP_MAX:
            numbers.append(decimal(value))
    return tuple(zip(numbers[::2], numbers[1::2], strict=False))


def sun_segments(value: bytes, size: int) -> Segments:
    """The map of a sparse file as Solaris has it: where data and holes begin, in turns."""
    edges = [decimal(item) for item in value.split()[: 2 * MAP_MAX]]
    found = []
    for at in range(0, len(edges), 2):
        end = edges[at + 1] if at + 1 < len(edges) else size
        if end > edges[at]:
            found.append((edges[at], end - edges[at]))
    return tuple(found)


def decimal(value: bytes) -> int:
    """A decimal number; 0 where it is none."""
    value = value.strip()
    return int(value) if value.isdigit() and len(value) <= 19 else 0
