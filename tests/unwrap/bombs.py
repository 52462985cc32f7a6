"""Archive bombs, made from nothing (EVASION.md 75-80)."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

from .zip_maker import Made, deflated, made_zip

MIB = 1 << 20
ZEROS = bytes(32 * MIB)


def full_overlap(entries: int = 200, size: int = 8 * MIB) -> bytes:
    """Every directory entry names the same local header (75)."""
    local = made_zip(Made(b"z", bytes(size)), directory=False)
    listed = made_zip(Made(b"z", bytes(size)), end=False)[len(local) :]
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, entries, entries, len(listed) * entries, len(local), 0)
    return local + listed * entries + end


def quoted_overlap(entries: int = 250, size: int = MIB) -> bytes:
    """Fifield's: each member quotes the header of the next in a stored deflate block, then goes on into it (76)."""
    kernel = deflated(bytes(size))
    data, content, members = kernel, bytes(size), []
    for number in reversed(range(entries)):
        name = b"%04d" % number
        local = struct.pack(
            "<4sHHHHHIIIHH", b"PK\3\4", 20, 0, 8, 0, 0x21, zlib.crc32(content), len(data), len(content), len(name), 0
        )
        members.append((name, len(data), content))
        whole = local + name
        if number:
            quote = b"\0" + struct.pack("<HH", len(whole), len(whole) ^ 0xFFFF)
            data, content = quote + whole + data, whole + content
        else:
            data = whole + data
    central, at, offset = b"", len(data), 0
    for name, packed, content in reversed(members):
        central += struct.pack(
            "<4sHHHHHHIIIHHHHHII", b"PK\1\2", 20, 20, 0, 8, 0, 0x21, zlib.crc32(content), packed, len(content),
            len(name), 0, 0, 0, 0, 0, offset,
        ) + name  # fmt: skip
        offset += 30 + len(name) + 5
    return data + central + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, entries, entries, len(central), at, 0)


def nested(levels: int = 3, copies: int = 16, leaf: int = 4 * MIB) -> bytes:
    """Zips in zips, ``copies`` at each level (77)."""
    data = bytes(leaf)
    for _ in range(levels):
        data = packed_zip(*[(f"{number}.zip", data) for number in range(copies)])
    return data


def deep(levels: int = 40) -> bytes:
    """One zip in another (77)."""
    data = b"at the bottom"
    for level in range(levels):
        data = packed_zip((f"{level}.zip", data))
    return data


def packed_zip(*members: tuple[str, bytes]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return target.getvalue()


def gzip_quine() -> bytes:
    """A gzip file that unpacks to itself (78), after R. Cox, "Zip Files All The Way Down".

    Its deflate stream has two kinds of steps, each five bytes: print so many literal bytes, and repeat the last 20.
    The CRC, which stands in the file and is a linear function of it, is found by elimination.
    """

    def literal(size: int) -> bytes:
        return b"\0" + struct.pack("<HH", size, size ^ 0xFFFF)

    repeat = _repeat()
    head = b"\x1f\x8b\x08\x08" + bytes(6) + b"self\0"
    nothing, one, four = literal(0), literal(5), literal(20)
    start = four  # prints the head and itself: 15 + 5 bytes
    program = head + start + head + start + repeat + one + repeat + one + one + four + repeat + one + one + four
    program += repeat + four + repeat + four + repeat + four + repeat + four + repeat + nothing + nothing + four
    program += repeat + nothing + nothing + four
    size = len(program) + 2 * (5 + 15)

    def file(crc: int) -> bytes:
        tail = nothing + b"\3\0" + struct.pack("<II", crc, size)
        return program + repeat + tail + repeat + tail

    return file(_fixed_point(lambda crc: zlib.crc32(file(crc))))


def _repeat() -> bytes:
    """Two matches of length 10 at distance 20 in a block with fixed codes: exactly 40 bits (RFC 1951 3.2.5, 3.2.6)."""
    bits = "0" + "10"  # not the last; fixed codes, least significant bit first
    for _ in range(2):
        bits += f"{264 - 256:07b}" + f"{8:05b}" + f"{20 - 17:03b}"[::-1]
    bits += "0000000"
    return bytes(int(bits[at : at + 8][::-1], 2) for at in range(0, 40, 8))


def _fixed_point(crc_of: object) -> int:
    """The x with crc_of(x) == x, by elimination over GF(2): crc_of is linear but for a constant."""
    assert callable(crc_of)
    constant = crc_of(0)
    rows = []
    for bit in range(32):  # column of the matrix of x -> crc_of(x) ^ x
        rows.append((crc_of(1 << bit) ^ constant ^ (1 << bit), 1 << bit))
    wanted, answer = constant, 0
    for bit in range(32):
        pivot = next((row for row in rows if row[0] >> bit & 1), None)
        if pivot is None:
            continue
        rows = [
            (row[0] ^ pivot[0], row[1] ^ pivot[1]) if row[0] >> bit & 1 else row for row in rows if row is not pivot
        ]
        if wanted >> bit & 1:
            wanted, answer = wanted ^ pivot[0], answer ^ pivot[1]
    return int(answer)
