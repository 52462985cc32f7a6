"""The records of a zip file (PKWARE APPNOTE.TXT 6.3.10, section numbers as there), parsed and nothing else."""

from __future__ import annotations

import struct
import zlib

from msgspec import Struct

LOCAL = b"PK\x03\x04"
CENTRAL = b"PK\x01\x02"
END = b"PK\x05\x06"
END64 = b"PK\x06\x06"
LOCATOR64 = b"PK\x06\x07"
DESCRIPTOR = b"PK\x07\x08"
"""Also the first bytes of the first volume of a spanned archive (8.5.4)."""
NOT_SPANNED = b"PK00"
"""First bytes of an archive that was to be spanned and then needed one volume only (8.5.4)."""

LOCAL_SIZE = 30
CENTRAL_SIZE = 46
END_SIZE = 22
END64_SIZE = 56
LOCATOR64_SIZE = 20

ENCRYPTED = 1 << 0
HAS_DESCRIPTOR = 1 << 3
STRONG = 1 << 6
UTF8 = 1 << 11
MASKED = 1 << 13
"""The directory itself is encrypted (4.4.4)."""
_LOCKED = ENCRYPTED | STRONG | MASKED

STORED, DEFLATE, DEFLATE64, BZIP2, LZMA, ZSTD_OLD, ZSTD, XZ, AES = 0, 8, 9, 12, 14, 20, 93, 95, 99
METHODS = {
    0: "stored", 1: "shrink", 2: "reduce", 3: "reduce", 4: "reduce", 5: "reduce", 6: "implode", 7: "tokenize",
    8: "deflate", 9: "deflate64", 10: "dcl-implode", 12: "bzip2", 14: "lzma", 16: "cmpsc", 18: "terse", 19: "lz77",
    20: "zstd", 92: "aff", 93: "zstd", 94: "mp3", 95: "xz", 96: "jpeg", 97: "wavpack", 98: "ppmd", 99: "aes",
}  # fmt: skip
"""4.4.5, by number."""
_ALL_ONES = 0xFFFFFFFF
_LOCAL = struct.Struct("<4xHHHHHIIIHH")
_CENTRAL = struct.Struct("<4xHHHHHHIIIHHHHHII")
_END = struct.Struct("<4xHHHHIIH")
_END64 = struct.Struct("<4xQHHIIQQQQ")
_LOCATOR64 = struct.Struct("<4xIQI")


class Local(Struct, frozen=True):
    """A local file header (4.3.7). Sizes are in bytes, zip64 already looked up."""

    needed: int
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    name: bytes
    extra: bytes
    header: int
    """Bytes of the header with name and extra field."""

    @property
    def locked(self) -> bool:
        """Encrypted in one way or another."""
        return bool(self.flags & _LOCKED) or self.method == AES

    @property
    def open_ended(self) -> bool:
        """Sizes and CRC stand behind the data, so that the ones here mean nothing."""
        return bool(self.flags & HAS_DESCRIPTOR)


class Central(Struct, frozen=True):
    """A central directory header (4.3.12)."""

    flags: int
    method: int
    crc: int
    packed: int
    size: int
    name: bytes
    extra: bytes
    disk: int
    offset: int
    """Of the local header, from the start of the archive as its writer saw it."""
    header: int

    @property
    def locked(self) -> bool:
        """Encrypted in one way or another."""
        return bool(self.flags & _LOCKED) or self.method == AES


class End(Struct, frozen=True):
    """An end of central directory record (4.3.16), or its zip64 sister (4.3.14)."""

    disk: int
    directory_disk: int
    entries: int
    size: int
    offset: int
    comment: int
    """Bytes of the comment; 0 in the zip64 record."""


def local_size(data: bytes | bytearray | memoryview) -> int:
    """Bytes of the local header that begins with these `LOCAL_SIZE` bytes."""
    return LOCAL_SIZE + int.from_bytes(data[26:28], "little") + int.from_bytes(data[28:30], "little")


def parse_local(data: bytes) -> Local:
    """``data`` is the whole header, `local_size` bytes."""
    needed, flags, method, _time, _date, crc, packed, size, name, extra = _LOCAL.unpack_from(data)
    name_bytes = data[LOCAL_SIZE : LOCAL_SIZE + name]
    extra_bytes = data[LOCAL_SIZE + name : LOCAL_SIZE + name + extra]
    size, packed, _ = _wide(extra_bytes, size, packed, 0)
    return Local(
        needed, flags, method, crc, packed, size, name_bytes, extra_bytes, LOCAL_SIZE + len(name_bytes) + extra
    )


def central_size(data: bytes) -> int:
    """Bytes that `parse_central` needs of the directory header that begins with these `CENTRAL_SIZE` bytes."""
    return CENTRAL_SIZE + int.from_bytes(data[28:30], "little") + int.from_bytes(data[30:32], "little")


def parse_central(data: bytes) -> Central | None:
    """``data`` begins with `CENTRAL`; None where it is cut short."""
    if len(data) < CENTRAL_SIZE:
        return None
    _made, _needed, flags, method, _time, _date, crc, packed, size, name, extra, comment, disk, _ia, _ea, offset = (
        _CENTRAL.unpack_from(data)
    )
    header = CENTRAL_SIZE + name + extra + comment
    if len(data) < CENTRAL_SIZE + name + extra:
        return None
    name_bytes = data[CENTRAL_SIZE : CENTRAL_SIZE + name]
    extra_bytes = data[CENTRAL_SIZE + name : CENTRAL_SIZE + name + extra]
    size, packed, offset = _wide(extra_bytes, size, packed, offset)
    return Central(flags, method, crc, packed, size, name_bytes, extra_bytes, disk, offset, header)


def parse_end(data: bytes) -> End | None:
    """``data`` begins with `END`."""
    if len(data) < END_SIZE:
        return None
    disk, directory_disk, _here, entries, size, offset, comment = _END.unpack_from(data)
    return End(disk, directory_disk, entries, size, offset, comment)


def parse_end64(data: bytes) -> End | None:
    """``data`` begins with `END64`."""
    if len(data) < END64_SIZE:
        return None
    _length, _made, _needed, disk, directory_disk, _here, entries, size, offset = _END64.unpack_from(data)
    return End(disk, directory_disk, entries, size, offset, 0)


def parse_locator64(data: bytes) -> int | None:
    """Where the zip64 record stands, from the start of the archive as its writer saw it."""
    return None if len(data) < LOCATOR64_SIZE else int(_LOCATOR64.unpack_from(data)[1])


def names(raw: bytes, flags: int, extra: bytes) -> tuple[str, ...]:
    """What readers make of a file name, the most plausible first (appendix D; 4.6.9 for the Unicode path field)."""
    found = []
    unicode_path = fields(extra).get(0x7075, b"")
    if len(unicode_path) > 5 and int.from_bytes(unicode_path[1:5], "little") == zlib.crc32(raw):
        found.append(unicode_path[5:].decode("utf-8", "replace"))
    try:
        found.append(raw.decode("utf-8"))
        if flags & UTF8:
            return tuple(dict.fromkeys(found))
    except UnicodeDecodeError:
        pass
    found.append(raw.decode("cp437"))
    return tuple(dict.fromkeys(found))


def fields(extra: bytes) -> dict[int, bytes]:
    """The extensible data fields (4.5) by their number; the first of each."""
    found: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(extra):
        size = int.from_bytes(extra[at + 2 : at + 4], "little")
        found.setdefault(int.from_bytes(extra[at : at + 2], "little"), extra[at + 4 : at + 4 + size])
        at += 4 + size
    return found


def _wide(extra: bytes, size: int, packed: int, offset: int) -> tuple[int, int, int]:
    """The values of the zip64 field (4.5.3) in place of those that are all ones."""
    if _ALL_ONES not in (size, packed, offset):
        return size, packed, offset
    field = fields(extra).get(1, b"")
    wide = []
    for value in (size, packed, offset):
        if value == _ALL_ONES and len(field) >= 8:
            value, field = int.from_bytes(field[:8], "little"), field[8:]
        wide.append(value)
    return wide[0], wide[1], wide[2]
