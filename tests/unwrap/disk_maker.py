"""Disk images made by hand: a FAT12 file system, a partition table around it, a fixed VHD."""

from __future__ import annotations

import struct

SECTOR = 512
SECTORS = 200


def fat(files: dict[bytes, bytes]) -> bytes:
    """A floppy-like FAT12 volume with these files (short names in capitals, ``NAME.EXT``) in its root folder."""
    boot = bytearray(SECTOR)
    boot[:11] = b"\xeb\x3c\x90MSDOS5.0"
    # sectors, sectors a cluster, reserved, FATs, root entries, sectors in all, media, sectors a FAT, geometry
    struct.pack_into("<HBHBHHBHHHII", boot, 11, SECTOR, 1, 1, 2, 16, SECTORS, 0xF8, 1, 32, 2, 0, 0)
    boot[38] = 0x29
    boot[43:62] = b"NO NAME    FAT12   "
    boot[510:] = b"\x55\xaa"
    table, root, data, cluster = [0xFF8, 0xFFF], b"", b"", 2
    for name, content in files.items():
        stem, _, end = name.partition(b".")
        count = max(1, -(-len(content) // SECTOR))
        root += struct.pack("<8s3sB14xHI", stem.ljust(8), end.ljust(3), 0x20, cluster, len(content))
        table += [*range(cluster + 1, cluster + count), 0xFFF]
        data += content.ljust(count * SECTOR, b"\0")
        cluster += count
    bits = sum(entry << 12 * at for at, entry in enumerate(table))
    one = bits.to_bytes(SECTOR, "little")
    return (bytes(boot) + one * 2 + root.ljust(16 * 32, b"\0") + data).ljust(SECTORS * SECTOR, b"\0")


def partitioned(volume: bytes) -> bytes:
    """A disk with one primary partition."""
    table = bytearray(SECTOR)
    struct.pack_into("<B3sB3sII", table, 446, 0x80, b"\1\1\0", 1, b"\0\0\0", 1, len(volume) // SECTOR)
    table[510:] = b"\x55\xaa"
    return bytes(table) + volume


def vhd(disk: bytes) -> bytes:
    """A fixed virtual hard disk: the disk, and a footer (Virtual Hard Disk Image Format Specification)."""
    footer = bytearray(512)
    # cookie, features, version, no next structure, time, creator and its version, host, sizes, geometry, type: fixed
    sizes = len(disk), len(disk)
    struct.pack_into(
        ">8sIIQI4sI4sQQII",
        footer,
        0,
        b"conectix",
        2,
        0x10000,
        (1 << 64) - 1,
        0,
        b"vpc ",
        0x50003,
        b"Wi2k",
        *sizes,
        0x10101,
        2,
    )
    struct.pack_into(">I", footer, 64, ~sum(footer) & 0xFFFFFFFF)
    return disk + bytes(footer)
