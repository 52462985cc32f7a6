"""Seeds for archives and compressed files."""

from __future__ import annotations

import bz2
import io
import lzma
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterable

import brotli
import lz4.block
import lz4.frame
import zstandard

from tests.fuzz.coded import CHAINS
from tests.fuzz.seeds_mail import EVIL, TEXT
from tests.unwrap import bombs
from tests.unwrap.coders import gzipped
from tests.unwrap.test_odd_archives import record, sis
from tests.unwrap.zip_maker import Made, deflated, made_zip


def zips() -> Iterable[bytes]:
    plain, stored = Made(b"a.txt", TEXT), Made(b"evil.exe", EVIL, method=0)
    yield made_zip(plain, stored)
    yield made_zip(Made(b"a", TEXT, flags=8), Made(b"b", EVIL, method=0, flags=8), comment=b"comment")
    yield made_zip(plain, Made(b"hidden", EVIL, in_directory=False, gap=b"between"), shift=3)
    yield made_zip(Made(b"x", TEXT, local_name=b"y", local_size=7, central_crc=1), directory=True, end=False)
    yield made_zip(Made(b"l", TEXT, flags=1), plain, disk=1)
    yield made_zip(Made(b"z64", TEXT, local_packed=0xFFFFFFFF, local_size=0xFFFFFFFF,
                        local_extra=struct.pack("<HHQQ", 1, 16, len(TEXT), len(deflated(TEXT)))))  # fmt: skip
    for method, pack in ((12, bz2.compress), (93, zstandard.compress), (95, lzma.compress)):
        yield made_zip(Made(b"m", TEXT, method, pack(TEXT)))
    yield bombs.full_overlap(3, 1000)
    yield bombs.quoted_overlap(4, 1000)
    yield b"GIF89a" + bytes(100) + made_zip(plain) + b"behind"
    yield made_zip(Made(b"inner.zip", made_zip(plain), method=0), Made(b"folder/", b"", method=0))


def tars() -> Iterable[bytes]:
    for fmt in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        target = io.BytesIO()
        with tarfile.open(fileobj=target, mode="w", format=fmt, bufsize=512) as archive:
            for name, data in (("a.txt", TEXT), ("ü" * 40 + "/" + "d" * 60 + "/evil.exe", EVIL)):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
            link = tarfile.TarInfo("link")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(link)
        yield target.getvalue()[: 512 * 20]


def compressed() -> Iterable[bytes]:
    filters = [{"id": lzma.FILTER_LZMA1, "dict_size": 65536, "lc": 3, "lp": 0, "pb": 2}]
    raw = lzma.compress(TEXT, lzma.FORMAT_RAW, filters=filters)
    block = lz4.block.compress(TEXT, store_size=False)
    packers: tuple[Callable[[bytes], bytes], ...] = (
        gzipped, bz2.compress, lzma.compress, lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
        zstandard.compress,
        lz4.frame.compress, brotli.compress, zlib.compress, deflated,
    )  # fmt: skip
    for pack in packers:
        whole = pack(TEXT)
        yield from (whole, whole + pack(EVIL), whole[:-5], pack(b"") + whole + b"junk", pack(bytes(5000)))
    yield b"LZIP\x01\x10" + raw + struct.pack("<IQQ", zlib.crc32(TEXT), len(TEXT), 26 + len(raw))
    yield b"\x02\x21\x4c\x18" + struct.pack("<I", len(block)) + block
    yield b"\x50\x2a\x4d\x18" + struct.pack("<I", 4) + b"skip" + zstandard.compress(TEXT)
    yield b"\x1f\x8b\x08\x1e" + bytes(6) + b"\2\0xyname\0comment\0\0\0" + deflated(TEXT)


def coded() -> Iterable[bytes]:
    single = {b"gzip": gzipped, b"deflate": zlib.compress, b"br": brotli.compress, b"zstd": zstandard.compress,
              b"xz": lzma.compress, b"lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE)}  # fmt: skip
    for number, chain in enumerate(CHAINS):
        data = TEXT
        for coding in chain.split(b", "):
            data = single.get(coding.removeprefix(b"x-"), lambda data: data)(data)
        yield from (bytes([number]) + data, bytes([number]) + data + b"behind", bytes([number]) + data[:-9])
    yield bytes([CHAINS.index(b"deflate")]) + deflated(TEXT)


def warcs() -> Iterable[bytes]:
    yield record(b"http://a.example/x.exe", EVIL) + record(b"", b"") + record(b"b", b"HTTP/1.1 200 OK\r\n\r\n" + TEXT)


def installations() -> Iterable[bytes]:
    yield from (sis(EVIL, TEXT), sis(EVIL, packed=False))


def programs() -> Iterable[bytes]:
    header = b"\x0b\1\5\6\0\5\1\1\x80\x80\0\0"
    for archive in (
        b"7z\xbc\xaf\x27\x1c\0\4" + struct.pack("<I", zlib.crc32(struct.pack("<QQI", 5, 4, 1)))
        + struct.pack("<QQI", 5, 4, 1) + b"packed...",
        b"Rar!\x1a\7\0\xcf\x90\x73\0\0\x0d\0" + bytes(6) + b"\x51\xb0\x74\x24\x80\x31\0" + bytes(60),
        b"Rar!\x1a\7\1\0" + struct.pack("<I", zlib.crc32(header)) + header + bytes(60),
        b"MSCF" + bytes(4) + struct.pack("<IIIIBBHH", 100, 0, 44, 0, 3, 1, 1, 1) + bytes(100),
    ):  # fmt: skip
        yield b"MZ" + bytes(200) + archive + EVIL
        yield b"MZ" + bytes(64) + archive
        yield archive[2:]


def closed() -> Iterable[bytes]:
    yield from (
        bytes(7) + b"**ACE**" + bytes(99),
        b"LRZI" + bytes(99),
        b"a.part1.rar" + EVIL,
        b"a.zip.001",
        b"a.r00",
        b"a.7z.001" + bytes(600),
    )
    yield from (
        b"\x89LZO\0\r\n\x1a\n" + bytes(99),
        bytes(20) + b"\xdc\xa7\xc4\xfd" + bytes(99),
        b"7kSt\xa0\x31\x83\xd3" + bytes(99),
    )


def library_archives() -> Iterable[bytes]:
    name = b"evil.exe\0"
    yield (
        b"070701"
        + b"%08X" % 1
        + b"%08X" % 0o100644
        + b"%08X" * 11 % (0, 0, 1, 0, len(EVIL), 0, 0, 0, 0, len(name), 0)
        + name
        + b"\0"
        + EVIL
    )
    yield b"!<arch>\n" + b"evil.exe/       0           0     0     644     %-10d`\n" % len(EVIL) + EVIL
    yield b"\x1f\x9d\x90\x61\xc4\x8c\x01"
    yield b"MSCF" + bytes(4) + struct.pack("<IIIIBBHHHHH", 100, 0, 44, 0, 3, 1, 1, 1, 0, 0, 0) + bytes(64)
    yield b"7z\xbc\xaf\x27\x1c\0\4" + bytes(24) + EVIL
    yield b"Rar!\x1a\7\0\xcf\x90\x73\0\0\x0d\0" + bytes(7) + EVIL
    yield b"\x1b\x5d-lh0-" + struct.pack("<IIIBB", 5, 5, 0, 32, 0) + b"\1a\0\0hello\0"


def seven() -> Iterable[bytes]:
    yield b"SZDD\x88\xf0\x27\x33Ax" + struct.pack("<I", 8) + b"\xffabcdefgh"
    yield b"MSWIM\0\0\0" + struct.pack("<II", 208, 0x10D00) + bytes(192)
    yield b"ITSF\3\0\0\0" + bytes(200)
    yield b"\x60\xea\x2b\0\x22\x0b\1\x0b\x10\0\2" + bytes(100)
