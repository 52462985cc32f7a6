"""What the block headers of a rar archive say about volumes and encryption (RAR 5.0 archive format; technote of 4.x).

Nothing is unpacked here: libarchive does that, but its words about why it stopped do not tell these two apart.
"""

from __future__ import annotations

from msgspec import Struct

from icapscan.store import PartReader

RAR4 = b"Rar!\x1a\x07\x00"
RAR5 = b"Rar!\x1a\x07\x01\x00"
BLOCKS_MAX = 10_000
Bytes = bytes | PartReader


class Facts(Struct, frozen=True):
    """What an archive says of itself."""

    volume: bool
    """It is one of several volumes."""
    encrypted: bool
    """Its headers, or some of its members, are encrypted."""


def facts(data: Bytes) -> Facts:
    """Walk over the headers as far as they make sense."""
    return _facts5(data) if data[: len(RAR5)] == RAR5 else _facts4(data)


def _facts4(data: Bytes) -> Facts:
    at, volume, encrypted = len(RAR4), False, False
    for _ in range(BLOCKS_MAX):
        head = data[at : at + 36]
        if len(head) < 7:
            break
        kind, flags = head[2], int.from_bytes(head[3:5], "little")
        size = int.from_bytes(head[5:7], "little")
        if size < 7:
            break
        if kind == 0x73:
            volume |= bool(flags & 0x01)
            if flags & 0x80:  # everything behind is encrypted
                return Facts(volume, True)
        elif kind == 0x74:
            volume |= bool(flags & 0x03)
            encrypted |= bool(flags & 0x04)
        elif kind == 0x7B:
            volume |= bool(flags & 0x01)
            break
        if flags & 0x8000 or kind == 0x74:
            size += int.from_bytes(head[7:11], "little")
            if kind == 0x74 and flags & 0x100:
                size += int.from_bytes(head[32:36], "little") << 32
        at += size
    return Facts(volume, encrypted)


def _facts5(data: Bytes) -> Facts:
    at, volume, encrypted = len(RAR5), False, False
    for _ in range(BLOCKS_MAX):
        if at + 7 > len(data):
            break
        size, body = _number(data, at + 4)
        kind, field = _number(data, body)
        flags, field = _number(data, field)
        extra = payload = 0
        if flags & 1:
            extra, field = _number(data, field)
        if flags & 2:
            payload, field = _number(data, field)
        if kind == 1:
            volume |= bool(_number(data, field)[0] & 1)
        elif kind in (2, 3):
            volume |= bool(flags & 0x18)
            encrypted |= _has_encryption(data[body + size - extra : body + size]) if extra <= size else False
        elif kind == 4:
            return Facts(volume, True)
        elif kind == 5:
            volume |= bool(_number(data, field)[0] & 1)
            break
        at = body + size + payload
    return Facts(volume, encrypted)


def _has_encryption(extra: bytes) -> bool:
    at = 0
    while at + 1 < len(extra):
        size, body = _number(extra, at)
        if _number(extra, body)[0] == 1:
            return True
        at = body + size
    return False


def _number(data: Bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends."""
    value = place = 0
    for place, byte in enumerate(data[at : at + 10]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            break
    return value, at + place + 1
