"""Compressed files: members, flushes, junk, damage, names (EVASION.md 57, 59, 61-63)."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import struct
import zlib
from collections.abc import Callable

import brotli
import lz4.block
import lz4.frame
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from icapscan.findings import Reason
from icapscan.unwrap.contract import Bid, Declared, Evidence
from icapscan.unwrap.single import SINGLE_FORMATS

from .archive_driver import Got, drive, pieces, walk

FORMATS = {one.name: one for one in SINGLE_FORMATS}
TEXT = b"The quick brown fox jumps over the lazy dog. " * 300
EVIL = b"the bytes that must be found " * 40


def _lz4_legacy(data: bytes) -> bytes:
    block = lz4.block.compress(data, store_size=False)
    return bytes(b"\x02\x21\x4c\x18" + struct.pack("<I", len(block)) + block)


def _lzip(data: bytes) -> bytes:
    """lzip's manual, "File format": a dictionary of 64 KiB is coded as 16."""
    filters = [{"id": lzma.FILTER_LZMA1, "dict_size": 65536, "lc": 3, "lp": 0, "pb": 2}]
    packer = lzma.LZMACompressor(lzma.FORMAT_RAW, filters=filters)
    packed = packer.compress(data) + packer.flush()
    return b"LZIP\x01\x10" + packed + struct.pack("<IQQ", zlib.crc32(data), len(data), 6 + len(packed) + 20)


COMPRESSORS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "bzip2": ("bzip2", bz2.compress),
    "xz": ("xz", lzma.compress),
    "lzma": ("lzma", lambda data: lzma.compress(data, lzma.FORMAT_ALONE)),
    "lzip": ("lzip", _lzip),
    "zstd": ("zstd", zstandard.compress),
    "lz4": ("lz4", lz4.frame.compress),
    "lz4-legacy": ("lz4", _lz4_legacy),
    "brotli": ("brotli", brotli.compress),
}


def unpack(kind: str, data: bytes, name: str = "") -> Got:
    """Whole and byte by byte give the same."""
    declared = Declared((name or "file.br",))
    got = drive(FORMATS[kind], data, declared=declared)
    slowly = drive(FORMATS[kind], data, declared=declared, split=pieces(data, range(len(data))))
    assert (slowly.parts, slowly.failures, slowly.anomalies) == (got.parts, got.failures, got.anomalies)
    return got


@pytest.mark.parametrize("name", COMPRESSORS)
def test_evasion_57_every_kind_of_compressed_file(name: str) -> None:
    kind, compress = COMPRESSORS[name]
    for content in (TEXT, EVIL, b"x", b"y" * 1_000_000):
        got = unpack(kind, compress(content))
        assert got.contents == [content] and not got.failures and not got.anomalies


@pytest.mark.parametrize("name", COMPRESSORS)
def test_evasion_59_one_inside_the_other(name: str) -> None:
    kind, compress = COMPRESSORS[name]
    data = compress(gzip.compress(EVIL)) if kind != "brotli" else gzip.compress(compress(EVIL))
    got = walk(data, name="a.br.gz" if kind == "brotli" else "a.gz")
    import hashlib

    assert hashlib.sha256(EVIL).hexdigest() in got.leaves.values()


@pytest.mark.parametrize("name", [name for name in COMPRESSORS if name != "lz4-legacy"])
def test_evasion_61_several_members(name: str) -> None:
    kind, compress = COMPRESSORS[name]
    got = unpack(kind, compress(TEXT) + compress(EVIL))
    assert set(got.contents) == {TEXT + EVIL, TEXT} and got.kinds == {"several-members"} and not got.failures
    assert sorted(begin.reading for begin in got.begins.values()) == [0, 1]


@pytest.mark.parametrize("name", [name for name in COMPRESSORS if name not in ("lz4-legacy", "lzma")])
def test_evasion_61_an_empty_first_member(name: str) -> None:
    kind, compress = COMPRESSORS[name]
    got = unpack(kind, compress(b"") + compress(EVIL))
    assert got.contents == [EVIL] and not got.failures


@pytest.mark.parametrize("name", [name for name in COMPRESSORS if name != "lz4-legacy"])
def test_evasion_61_junk_behind_is_a_part(name: str) -> None:
    kind, compress = COMPRESSORS[name]
    got = unpack(kind, compress(TEXT) + EVIL)
    assert set(got.contents) == {TEXT, EVIL} and got.kinds == {"junk-after-compressed-data"}


@pytest.mark.parametrize("name", [name for name in COMPRESSORS if name != "brotli"])
def test_evasion_61_cut_short_or_damaged_is_never_clean(name: str) -> None:
    kind, compress = COMPRESSORS[name]
    whole = compress(TEXT + EVIL)
    assert unpack(kind, whole[:-6]).reasons == {Reason.MALFORMED}
    if name not in ("lz4-legacy", "lzma", "zstd"):  # those have no checksum that would tell
        damaged = bytearray(whole)
        damaged[len(whole) // 2] ^= 0xFF
        assert Reason.MALFORMED in unpack(kind, bytes(damaged)).reasons


def test_evasion_61_what_stood_before_the_damage_is_scanned() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    data = packer.compress(EVIL) + packer.flush(zlib.Z_FULL_FLUSH) + b"\xff" * 40
    got = unpack("gzip", data)
    assert got.contents == [EVIL] and got.reasons == {Reason.MALFORMED}


def test_a_long_stretch_of_input_without_output_is_no_damage() -> None:
    noise = random.Random(1).randbytes(300_000)
    for kind, data in (("bzip2", bz2.compress(noise)), ("gzip", gzip.compress(noise) + gzip.compress(noise))):
        for cut in (3, 10, 50, 65_530, len(data) // 2 + 20):
            got = drive(FORMATS[kind], data, split=[data[:cut], data[cut:]])
            assert not got.failures and got.contents[0][: len(noise)] == noise


def test_evasion_61_gzip_header_fields() -> None:
    body = zlib.compress(EVIL, wbits=-15) + struct.pack("<II", zlib.crc32(EVIL), len(EVIL))
    for flags, fields in (
        (0x04, struct.pack("<H", 5) + b"EXTRA"),
        (0x08, b"invoice.exe\0"),
        (0x10, b"comment\0"),
        (0x1C, struct.pack("<H", 300) + bytes(300) + b"invoice.exe\0" + b"comment\0"),
    ):
        data = b"\x1f\x8b\x08" + bytes([flags]) + bytes(6) + fields + body
        got = unpack("gzip", data, "harmless.txt.gz")
        assert got.contents == [EVIL] and not got.failures
        (begin,) = got.begins.values()
        names = {begin.name, *begin.names}
        assert names == ({"harmless.txt", "invoice.exe"} if flags & 8 else {"harmless.txt"})


def test_evasion_61_gzip_with_a_header_checksum() -> None:
    head = b"\x1f\x8b\x08\x02" + bytes(6)
    data = head + struct.pack("<H", zlib.crc32(head) & 0xFFFF) + zlib.compress(EVIL, wbits=-15)
    data += struct.pack("<II", zlib.crc32(EVIL), len(EVIL))
    assert unpack("gzip", data).contents == [EVIL]


@pytest.mark.parametrize("flush", [zlib.Z_PARTIAL_FLUSH, zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH])
def test_evasion_62_flushes_between_blocks(flush: int) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    data = b""
    for at in range(0, len(EVIL), 100):
        data += packer.compress(EVIL[at : at + 100]) + packer.flush(flush)
    assert unpack("gzip", data + packer.flush()).contents == [EVIL]


def test_evasion_63_zstd_frames() -> None:
    skippable = b"\x53\x2a\x4d\x18" + struct.pack("<I", 9) + b"skip this"
    frame = zstandard.compress(EVIL)
    assert unpack("zstd", skippable + frame).contents == [EVIL]
    assert EVIL + TEXT in unpack("zstd", frame + skippable + zstandard.compress(TEXT)).contents
    lz4_frame = lz4.frame.compress(EVIL)
    assert unpack("lz4", skippable + lz4_frame).contents == [EVIL]


def test_evasion_63_zstd_window_is_bounded() -> None:
    huge = zstandard.ZstdCompressionParameters(window_log=27, compression_level=1)
    packer = zstandard.ZstdCompressor(compression_params=huge).compressobj()
    got = unpack("zstd", packer.compress(EVIL) + packer.flush())
    assert got.reasons == {Reason.OVER_LIMIT}


def test_xz_that_needs_much_memory_is_over_limit() -> None:
    data = lzma.compress(EVIL, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 29}])
    assert unpack("xz", data).reasons == {Reason.OVER_LIMIT}


@pytest.mark.parametrize(
    ("kind", "name", "inner"),
    [
        ("gzip", "a.tar.gz", "a.tar"),
        ("gzip", "a.tgz", "a.tar"),
        ("gzip", "A.GZ", "A"),
        ("gzip", "a.txt", "a.txt"),
        ("gzip", ".gz", ".gz"),
        ("bzip2", "a.tbz2", "a.tar"),
        ("xz", "a.b.xz", "a.b"),
        ("brotli", "x.js.br", "x.js"),
    ],
)
def test_names_lose_their_ends(kind: str, name: str, inner: str) -> None:
    (begin,) = unpack(kind, COMPRESSORS[kind][1](TEXT), name).begins.values()
    assert begin.name == inner


def test_bids() -> None:
    def bid(kind: str, first: bytes, *names: str) -> Bid:
        return FORMATS[kind].bid(Evidence(first, True, Declared(names)))

    assert bid("gzip", gzip.compress(b"")) is Bid.YES
    assert bid("gzip", b"\x1f\x8b\x07") is Bid.NO
    assert bid("bzip2", b"BZhello world") is Bid.NO
    assert bid("lzma", lzma.compress(TEXT, lzma.FORMAT_ALONE)) is Bid.MAYBE
    assert bid("lzma", bytes(64)) is Bid.NO
    assert bid("brotli", b"anything", "a.br") is Bid.MAYBE
    assert bid("brotli", b"anything", "a.txt") is Bid.NO
    assert bid("zstd", b"\x50\x2a\x4d\x18\0\0\0\0" + lz4.frame.compress(b"x")) is Bid.NO


def test_what_only_looks_like_it_says_nothing() -> None:
    got = unpack("lzma", b"\x5d\0\0\x80\0" + b"\xff" * 8 + bytes(1) + b"\xff" * 200)
    assert not got.begins and not got.failures
    assert not unpack("brotli", b"\xff" * 300).failures


_SAMPLES = [
    ("gzip", gzip.compress(TEXT) + gzip.compress(EVIL) + b"junk"),
    ("bzip2", bz2.compress(TEXT) + bz2.compress(EVIL)[:-5]),
    ("xz", lzma.compress(TEXT) + bytes(8) + lzma.compress(EVIL)),
    ("zstd", zstandard.compress(TEXT) + zstandard.compress(EVIL)),
    ("lz4", _lz4_legacy(TEXT)),
    ("lzip", _lzip(EVIL) + _lzip(TEXT)),
]


@given(st.sampled_from(_SAMPLES), st.lists(st.integers(0, 10_000), max_size=6))
def test_any_split_gives_the_same_parts(sample: tuple[str, bytes], cuts: list[int]) -> None:
    kind, data = sample
    whole, split = drive(FORMATS[kind], data), drive(FORMATS[kind], data, split=pieces(data, cuts))
    assert (split.parts, split.failures, split.anomalies) == (whole.parts, whole.failures, whole.anomalies)


def test_a_damaged_block_of_a_legacy_lz4_stream_is_told() -> None:
    got = unpack("lz4", b"\x02\x21\x4c\x18" + struct.pack("<I", 8) + b"\xff" * 8)
    assert got.reasons == {Reason.MALFORMED}
    assert "damaged" in next(iter(got.failures)).detail
