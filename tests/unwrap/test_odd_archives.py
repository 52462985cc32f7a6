"""Web archives, volumes by name, archives that nothing opens, Symbian installation files (EVASION.md 86, 91)."""

from __future__ import annotations

import struct
import zlib

import pytest

from icapscan.findings import Reason
from icapscan.unwrap.activemime import ActiveMimeFormat
from icapscan.unwrap.closed import ClosedFormat
from icapscan.unwrap.contract import Bid, Declared, Evidence
from icapscan.unwrap.sis import SisFormat
from icapscan.unwrap.volumes import VolumeFormat
from icapscan.unwrap.warc import WarcFormat

from .archive_driver import drive, pieces, walk

EVIL = b"the bytes that must be found " * 40


@pytest.mark.parametrize(
    "name", ["a.part2.rar", "a.PART07", "a.r00", "a.z01", "a.7z.002", "a.zip.013", "a.tar.gz.ab", "a_rar_ac", "x.a03"]
)
def test_evasion_86_pieces_by_name(name: str) -> None:
    got = walk(b"\x17" * 5000, name=name)
    assert got.reasons == {Reason.UNSUPPORTED} and got.kinds == {"multi-volume"}


@pytest.mark.parametrize(
    "name", ["a.tar.gz", "a.rar", "part2.txt", "a.part1.txt", "a.zip", "a.001.txt", "a.cpio.gz", "x.r", "a.7z", "b.js"]
)
def test_evasion_86_other_names_are_no_pieces(name: str) -> None:
    assert VolumeFormat().bid(Evidence(b"\x17" * 50, True, Declared((name,)))) is Bid.NO


@pytest.mark.parametrize(
    "first",
    [b"\x89LZO\0\r\n\x1a\n", b"LRZI", bytes(7) + b"**ACE**", bytes(20) + b"\xdc\xa7\xc4\xfd", b"7kSt\xa0\x31\x83\xd3"],
)
def test_evasion_84_archives_that_nothing_opens_are_never_clean(first: bytes) -> None:
    assert walk(first + bytes(200)).reasons == {Reason.UNSUPPORTED}
    assert ClosedFormat().bid(Evidence(b"x" + first, True, Declared())) is Bid.NO


def sis(*files: bytes, packed: bool = True) -> bytes:
    """An installation file of EPOC release 6 with plain records."""
    name = "C:\\evil.exe".encode("utf-16-le")
    table_at = 100
    at = table_at + 40 * len(files)
    records, payload = b"", name
    for content in files:
        data = zlib.compress(content) if packed else content
        records += struct.pack("<10I", 0, 0, 0, 0, 0, len(name), at, len(data), at + len(payload), len(content))
        payload += data
    head = bytearray(100)
    head[8:12] = (0x10000419).to_bytes(4, "little")
    struct.pack_into("<HH", head, 0x12, 1, len(files))
    struct.pack_into("<I", head, 0x20, 200)
    struct.pack_into("<H", head, 0x24, 1 if packed else 9)
    struct.pack_into("<I", head, 0x34, table_at)
    return bytes(head) + records + payload


@pytest.mark.parametrize("packed", [True, False])
def test_symbian_installation_files(packed: bool) -> None:
    got = drive(SisFormat(), sis(EVIL, b"second", packed=packed))
    assert got.contents == [EVIL, b"second"] and not got.failures
    assert got.begins["C:/evil.exe"].name == "C:/evil.exe"


def test_damaged_symbian_installation_files() -> None:
    whole = sis(EVIL)
    assert drive(SisFormat(), whole[:-10]).reasons == {Reason.MALFORMED}
    odd = bytearray(whole)
    odd[100] = 7
    assert drive(SisFormat(), bytes(odd)).reasons == {Reason.UNSUPPORTED}


def record(name: bytes, data: bytes, kind: bytes = b"resource") -> bytes:
    head = b"WARC/1.1\r\nWARC-Type: " + kind + b"\r\nWARC-Target-URI: " + name
    return head + b"\r\nContent-Length: %d\r\n\r\n" % len(data) + data + b"\r\n\r\n"


def test_web_archives() -> None:
    data = record(b"http://a.example/x.exe", EVIL * 100) + record(b"", b"") + record(b"../../etc/passwd", b"\r\n\r\n")
    whole = drive(WarcFormat(), data)
    assert whole.contents == [EVIL * 100, b"", b"\r\n\r\n"] and not whole.failures
    split = drive(WarcFormat(), data, split=pieces(data, [*range(400), *range(len(data) - 500, len(data))]))
    assert split.parts == whole.parts


def test_damaged_web_archives() -> None:
    whole = record(b"a", EVIL)
    for data in (whole[:-20], whole[:30], whole + b"WARC/1.1\r\nno length\r\n\r\n", b"WARC/" + b"x" * 70_000):
        assert drive(WarcFormat(), data).reasons == {Reason.MALFORMED}


def test_active_mime_that_is_cut_short_is_told() -> None:
    whole = b"ActiveMime" + bytes(40) + zlib.compress(EVIL)
    assert drive(ActiveMimeFormat(), whole).contents == [EVIL] and not drive(ActiveMimeFormat(), whole).failures
    for cut in range(10, len(whole), 5):
        assert drive(ActiveMimeFormat(), whole[:cut]).reasons == {Reason.MALFORMED}, cut


RAR_ENDS = (b"\xc4\x3d\x7b\0\x40\7\0", b"\x1d\x77\x56\x51\3\5\4\0")


@pytest.mark.parametrize("name", ["archive_ac", "archive.ab", "xac", "archive-03", "archive.0003"])
@pytest.mark.parametrize("end", RAR_ENDS)
def test_evasion_86_the_last_piece_shows_what_it_is_a_piece_of(name: str, end: bytes) -> None:
    got = walk(b"\x17" * 5000 + end, name=name)
    assert got.reasons == {Reason.UNSUPPORTED} and got.kinds == {"multi-volume"}
    assert not walk(b"\x17" * 5000, name=name).failures
    assert not walk(b"\x17" * 5000 + end, name="notes.txt").failures
