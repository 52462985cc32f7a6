"""Tar: dialects, sparse files, lies about sizes, damage (EVASION.md 80, 87, 88)."""

from __future__ import annotations

import io
import struct
import tarfile
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icapscan.findings import Reason
from icapscan.limits import GIB, KIB, MIB
from icapscan.unwrap.contract import Bid, Declared, Evidence
from icapscan.unwrap.tar import META_MAX, TarFormat

from .archive_driver import Got, drive, pieces

TAR = TarFormat()
EVIL = b"the bytes that must be found " * 40
GOOD = b"some harmless text\n" * 60


def unpack(data: bytes) -> Got:
    """Whole and byte by byte give the same."""
    got = drive(TAR, data)
    if len(data) < 30_000:
        slowly = drive(TAR, data, split=pieces(data, range(len(data))))
        assert (slowly.parts, slowly.failures, slowly.anomalies) == (got.parts, got.failures, got.anomalies)
    return got


def header(name: bytes, size: int | bytes, kind: bytes = b"0", magic: bytes = b"ustar\x0000", **fields: bytes) -> bytes:
    """One header block with a right checksum; ``fields`` by hexadecimal offset, as ``x180=…``."""
    block = bytearray(512)
    block[: len(name)] = name
    block[100:108], block[108:116], block[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    block[124:136] = size if isinstance(size, bytes) else b"%011o\0" % size
    block[136:148], block[148:156], block[156:157] = b"%011o\0" % 0, b" " * 8, kind
    block[257 : 257 + len(magic)] = magic
    for at, value in fields.items():
        place = int(at[1:], 16)
        block[place : place + len(value)] = value
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


END = bytes(1024)


def made(fmt: int, *members: tuple[str, bytes]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=fmt) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for kind in (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"special-{kind.decode()}")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    return target.getvalue()


@pytest.mark.parametrize("fmt", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_evasion_87_members_of_every_dialect_and_no_links_or_devices(fmt: int) -> None:
    long = "folder/" * 13 + "x" * 90 + ".exe"
    got = unpack(made(fmt, ("a.txt", GOOD), ("empty", b""), (long, EVIL), ("block", bytes(512))))
    assert got.contents == [GOOD, b"", EVIL, bytes(512)] and not got.failures and not got.anomalies
    assert [begin.name for begin in got.begins.values()] == ["a.txt", "empty", long, "block"]


@pytest.mark.parametrize("fmt", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_very_long_names(fmt: int) -> None:
    name = "n" * 3000
    (begin,) = unpack(made(fmt, (name, EVIL))).begins.values()
    assert begin.name == name and len(begin.path) < 300


def test_v7_without_magic() -> None:
    data = header(b"old.txt", len(EVIL), b"\0", b"") + padded(EVIL) + header(b"folder/", 0, b"\0", b"") + END
    got = unpack(data)
    assert got.parts == {"old.txt": EVIL} and not got.anomalies


def test_checksum_by_signed_sums() -> None:
    block = bytearray(header("é".encode("latin-1"), len(EVIL)))
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(struct.unpack("512b", block))
    assert unpack(bytes(block) + padded(EVIL) + END).contents == [EVIL]


def test_evasion_87_names_are_harmless() -> None:
    got = unpack(
        made(tarfile.PAX_FORMAT, ("../../etc/passwd", EVIL), ("/etc/shadow", EVIL), ("..", GOOD), ("..", GOOD))
    )
    assert len(got.parts) == 4  # the driver asserts what the keys look like


def test_base_256_sizes() -> None:
    size = b"\x80" + (len(EVIL)).to_bytes(11, "big")
    assert unpack(header(b"a", size) + padded(EVIL) + END).contents == [EVIL]
    got = unpack(header(b"a", b"\xff" * 12) + END)
    assert got.reasons == {Reason.MALFORMED}


def test_evasion_80_declared_size_of_a_tebibyte_is_not_allocated() -> None:
    data = header(b"huge", b"\x80" + (1 << 40).to_bytes(11, "big")) + EVIL
    tracemalloc.start()
    got = drive(TAR, data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert got.contents == [EVIL] and got.reasons == {Reason.MALFORMED} and peak < MIB


def test_evasion_80_huge_pax_header_is_bounded_and_what_follows_is_found() -> None:
    record = b"comment=" + b"x" * META_MAX + b"\n"
    body = b"%d " % (len(record) + 8) + record
    data = header(b"pax", len(body), b"x") + padded(body) + header(b"a", len(EVIL)) + padded(EVIL) + END
    got = drive(TAR, data)
    assert got.contents == [EVIL] and got.reasons == {Reason.OVER_LIMIT} and "tar-huge-header" in got.kinds


def test_evasion_80_pax_size_of_a_tebibyte() -> None:
    record = b"22 size=1099511627776\n"
    data = header(b"pax", len(record), b"x") + padded(record) + header(b"a", 5) + EVIL
    got = drive(TAR, data)
    assert got.contents == [EVIL] and got.reasons == {Reason.MALFORMED}


def test_evasion_80_sparse_file_of_a_tebibyte_is_over_limit() -> None:
    records = b"".join(
        b"%d %s\n" % (len(one) + 4, one)
        for one in (b"GNU.sparse.size=1099511627776", b"GNU.sparse.numblocks=0", b"GNU.sparse.map=0,0")
    )
    data = header(b"pax", len(records), b"x") + padded(records) + header(b"a", 0) + END
    got = drive(TAR, data)
    assert got.reasons == {Reason.OVER_LIMIT} and got.budget.spent


def pax(*records: bytes) -> bytes:
    body = b""
    for one in records:
        length = len(one) + 2
        while len(b"%d %s\n" % (length, one)) != length:
            length += 1
        body += b"%d %s\n" % (length, one)
    return header(b"pax", len(body), b"x") + padded(body)


SPARSE = b"A" * 100 + bytes(1000) + b"B" * 50 + bytes(300)
PACKED = b"A" * 100 + b"B" * 50


def test_sparse_files_of_old_gnu() -> None:
    segments = b"%011o\0%011o\0" % (0, 100) + b"%011o\0%011o\0" % (1100, 50)
    data = header(b"s", 150, b"S", b"ustar  \0", x182=segments, x1e3=b"%011o\0" % len(SPARSE)) + padded(PACKED) + END
    assert unpack(data).contents == [SPARSE, PACKED]
    first = b"".join(b"%011o\0%011o\0" % (number * 30, 10) for number in range(4))
    more = b"".join(b"%011o\0%011o\0" % (number * 30, 10) for number in range(4, 7))
    content = b"".join(bytes([65 + number]) * 10 for number in range(7))
    head = header(b"s", 70, b"S", b"ustar  \0", x182=first, x1e2=b"\1", x1e3=b"%011o\0" % 200)
    got = unpack(head + padded(more) + padded(content) + END)
    wanted = b"".join(bytes([65 + number]) * 10 + bytes(20) for number in range(7))[:190] + bytes(10)
    assert got.contents == [wanted, content]


def test_sparse_files_of_pax() -> None:
    plain = header(b"s", len(PACKED)) + padded(PACKED)
    zero_zero = pax(
        b"GNU.sparse.size=%d" % len(SPARSE), b"GNU.sparse.numblocks=2",
        b"GNU.sparse.offset=0", b"GNU.sparse.numbytes=100", b"GNU.sparse.offset=1100", b"GNU.sparse.numbytes=50",
    )  # fmt: skip
    zero_one = pax(b"GNU.sparse.size=%d" % len(SPARSE), b"GNU.sparse.name=real", b"GNU.sparse.map=0,100,1100,50")
    for head in (zero_zero, zero_one):
        got = unpack(head + plain + header(b"next", len(EVIL)) + padded(EVIL) + END)
        assert got.contents == [SPARSE, PACKED, EVIL] and not got.failures
    block = padded(b"2\n0\n100\n1100\n50\n") + PACKED
    one_zero = pax(b"GNU.sparse.major=1", b"GNU.sparse.minor=0", b"GNU.sparse.realsize=%d" % len(SPARSE))
    got = unpack(one_zero + header(b"s", len(block)) + padded(block) + END)
    assert got.contents == [SPARSE, block]


def test_sparse_files_of_solaris() -> None:
    data = b"A" * 512 + b"C" * 512
    got = unpack(pax(b"SUN.holesdata= 0 512 1024 1536") + header(b"s", 1024) + data + END)
    assert got.contents == [b"A" * 512 + bytes(512) + b"C" * 512, data]


def test_link_with_data_and_link_with_a_size_only() -> None:
    with_data = header(b"link", len(EVIL), b"1") + padded(EVIL) + header(b"a", len(GOOD)) + padded(GOOD) + END
    assert unpack(with_data).contents == [EVIL, GOOD]
    without = header(b"link", len(EVIL), b"1") + header(b"a", len(GOOD)) + padded(GOOD) + END
    assert unpack(without).contents == [GOOD]


def test_what_stands_behind_the_end_is_seen() -> None:
    one, two = made(tarfile.USTAR_FORMAT, ("a", GOOD)), made(tarfile.USTAR_FORMAT, ("b", EVIL))
    assert unpack(one + two).contents == [GOOD, EVIL]
    got = unpack(one + EVIL)
    assert got.contents == [GOOD, EVIL] and "tar-not-a-header" in got.kinds


def test_evasion_88_a_broken_header_in_the_middle() -> None:
    two = header(b"b", len(EVIL)) + padded(EVIL)
    broken = bytearray(two)
    broken[0] ^= 1
    data = header(b"a", len(GOOD)) + padded(GOOD) + bytes(broken) + header(b"c", len(GOOD)) + padded(GOOD) + END
    got = unpack(data)
    assert got.contents == [GOOD, bytes(broken), GOOD] and "tar-not-a-header" in got.kinds


def test_evasion_88_broken_first_header_and_cut_archives() -> None:
    data = bytearray(made(tarfile.USTAR_FORMAT, ("a", EVIL)))
    data[0] ^= 1
    assert unpack(bytes(data)).reasons == {Reason.MALFORMED}
    whole = made(tarfile.GNU_FORMAT, ("a" * 200, EVIL), ("b", GOOD))
    for cut in (700, 1400, 2000):
        assert Reason.MALFORMED in unpack(whole[:cut]).reasons


def test_evasion_86_a_member_that_goes_on_from_another_volume() -> None:
    got = unpack(header(b"a", len(EVIL), b"M", b"ustar  \0") + padded(EVIL) + END)
    assert got.contents == [EVIL] and got.reasons == {Reason.UNSUPPORTED} and "multi-volume" in got.kinds


def test_bids() -> None:
    block = header(b"a", 0)
    assert TAR.bid(Evidence(block, True, Declared())) is Bid.YES
    assert TAR.bid(Evidence(block[:511], True, Declared())) is Bid.NO
    assert TAR.bid(Evidence(bytes(512), True, Declared())) is Bid.NO
    assert TAR.bid(Evidence(b"text " * 200, True, Declared())) is Bid.NO


_SAMPLES = [
    made(tarfile.PAX_FORMAT, ("a" * 150, GOOD), ("b", EVIL)) + b"MZ junk" * 300,
    header(b"s", 150, b"S", b"ustar  \0", x182=b"%011o\0%011o\0" % (900, 150), x1e3=b"%011o\0" % 2000)
    + padded(PACKED)
    + END,
    header(b"l", 99, b"1") + padded(EVIL) + bytes(512) + made(tarfile.GNU_FORMAT, ("x" * 120, EVIL)),
]


@given(st.sampled_from(_SAMPLES), st.lists(st.integers(0, 10_000), max_size=8))
def test_any_split_gives_the_same_parts(data: bytes, cuts: list[int]) -> None:
    whole, split = drive(TAR, data), drive(TAR, data, split=pieces(data, cuts))
    assert (split.parts, split.failures, split.anomalies) == (whole.parts, whole.failures, whole.anomalies)


@settings(max_examples=150)
@given(st.sampled_from(_SAMPLES), st.lists(st.tuples(st.integers(0, 10_000), st.binary(max_size=4)), max_size=6))
def test_evasion_88_damage_ends_in_parts_or_failures(data: bytes, patches: list[tuple[int, bytes]]) -> None:
    damaged = bytearray(data)
    for at, patch in patches:
        damaged[at % len(data) : at % len(data) + len(patch)] = patch
    whole = drive(TAR, bytes(damaged))
    split = drive(TAR, bytes(damaged), split=pieces(bytes(damaged), range(0, len(damaged), 7)))
    assert (split.parts, split.failures) == (whole.parts, whole.failures)


def test_a_large_member_is_passed_on_in_pieces() -> None:
    assert GIB > META_MAX > 64 * KIB
    data = header(b"big", 4 * MIB) + bytes(4 * MIB) + END
    assert drive(TAR, data).contents == [bytes(4 * MIB)]


def test_a_checksum_ends_at_its_nul() -> None:
    """Python and others read no further; a byte behind it must not hide the member."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        member = tarfile.TarInfo("a")
        member.size = 5
        archive.addfile(member, io.BytesIO(b"found"))
    data = bytearray(out.getvalue())
    assert data[154:156] == b"\0 "
    data[155:156] = b"$"
    assert drive(TarFormat(), bytes(data)).parts == {"a": b"found"}
