"""Makes Windows shortcuts for tests; what they say they start is harmless."""

from __future__ import annotations

import struct

HEADER = bytes.fromhex("4c0000000114020000000000c000000000000046")


def shortcut(arguments: str = "", path: str = "", *, wide: bool = True, target: str = "", tail: bytes = b"") -> bytes:
    """A shortcut with these texts, and ``tail`` behind its end."""
    flags = (0x08 if path else 0) | (0x20 if arguments else 0) | (0x80 if wide else 0) | 1 | 2
    out = HEADER + struct.pack("<I", flags) + bytes(52)
    out += struct.pack("<H", 10) + bytes(10) + struct.pack("<I", 28) + bytes(24)
    for text in (path, arguments):
        if text:
            out += struct.pack("<H", len(text)) + text.encode("utf-16-le" if wide else "cp1252")
    if target:
        block = target.encode("cp1252").ljust(260, b"\0") + target.encode("utf-16-le").ljust(520, b"\0")
        out += struct.pack("<II", 788, 0xA0000001) + block
    return out + bytes(4) + tail
