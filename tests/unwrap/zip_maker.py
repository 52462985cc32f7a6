"""Zip archives made by hand, where every field can be made to lie."""

from __future__ import annotations

import struct
import zlib

from msgspec import Struct

DESCRIPTOR = 8


class Made(Struct, frozen=True):
    """One member. What is None is told as it is."""

    name: bytes
    data: bytes
    method: int = 8
    packed: bytes | None = None
    """The data as it is packed, where ``method`` is not stored or deflate."""
    flags: int = 0
    descriptor: bytes | None = None
    """Behind the data when flag bit 3 is set."""
    local_name: bytes | None = None
    local_method: int | None = None
    local_flags: int | None = None
    local_packed: int | None = None
    local_size: int | None = None
    local_crc: int | None = None
    central_packed: int | None = None
    central_size: int | None = None
    central_crc: int | None = None
    local_extra: bytes = b""
    central_extra: bytes = b""
    in_directory: bool = True
    gap: bytes = b""
    """Behind the data and its descriptor."""


def deflated(data: bytes) -> bytes:
    """Raw deflate."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def made_zip(
    *members: Made, comment: bytes = b"", directory: bool = True, end: bool = True, shift: int = 0, disk: int = 0
) -> bytes:
    """A zip of these members; ``shift`` is added to every offset in it."""
    body, entries = b"", []
    for member in members:
        packed = member.packed
        if packed is None:
            packed = deflated(member.data) if member.method == 8 else member.data
        entries.append((member, len(body), packed))
        body += _local(member, packed) + packed
        if _or(member.local_flags, member.flags) & DESCRIPTOR:
            body += _descriptor(member, packed)
        body += member.gap
    listed = [_central(*entry, shift) for entry in entries if entry[0].in_directory]
    central = b"".join(listed)
    if directory:
        at, body = len(body), body + central
        if end:
            body += struct.pack(
                "<4sHHHHIIH", b"PK\5\6", disk, disk, len(listed), len(listed), len(central), at + shift, len(comment)
            )
            body += comment
    return body


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


def _local(member: Made, packed: bytes) -> bytes:
    flags = _or(member.local_flags, member.flags)
    later = bool(flags & DESCRIPTOR)
    name = member.name if member.local_name is None else member.local_name
    return (
        struct.pack(
            "<4sHHHHHIIIHH", b"PK\3\4", 20, flags, _or(member.local_method, member.method), 0, 0x21,
            _or(member.local_crc, 0 if later else zlib.crc32(member.data)),
            _or(member.local_packed, 0 if later else len(packed)),
            _or(member.local_size, 0 if later else len(member.data)),
            len(name), len(member.local_extra),
        )
        + name
        + member.local_extra
    )  # fmt: skip


def _descriptor(member: Made, packed: bytes) -> bytes:
    if member.descriptor is not None:
        return member.descriptor
    return struct.pack("<4sIII", b"PK\7\x08", zlib.crc32(member.data), len(packed), len(member.data))


def _central(member: Made, offset: int, packed: bytes, shift: int) -> bytes:
    return (
        struct.pack(
            "<4sHHHHHHIIIHHHHHII", b"PK\1\2", 20, 20, member.flags, member.method, 0, 0x21,
            _or(member.central_crc, zlib.crc32(member.data)),
            _or(member.central_packed, len(packed)),
            _or(member.central_size, len(member.data)),
            len(member.name), len(member.central_extra), 0, 0, 0, 0, offset + shift,
        )
        + member.name
        + member.central_extra
    )  # fmt: skip
