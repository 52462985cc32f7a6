"""Zip: both views, their disagreements, odd methods, odd places (EVASION.md 81-88)."""

from __future__ import annotations

import bz2
import io
import lzma
import random
import struct
import zipfile
import zlib
from copy import copy

import inflate64
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from icapscan.findings import Reason
from icapscan.limits import KIB, Budget, Limits
from icapscan.unwrap.contract import Bid, Declared, Evidence
from icapscan.unwrap.events import Audience
from icapscan.unwrap.gate import Gate, Stop
from icapscan.unwrap.streams import Broken, Buffer
from icapscan.unwrap.unpack import Unpacker
from icapscan.unwrap.zip import ZipFormat
from icapscan.unwrap.zip_stream import HEADERS_MAX, MARKS_MAX

from .archive_driver import Got, drive, pieces
from .zip_maker import Made, made_zip

ZIP = ZipFormat()
EVIL = b"the bytes that must be found " * 40
GOOD = b"some harmless text\n" * 30
DESCRIPTOR = 8


def unpack(data: bytes) -> Got:
    """Whole and byte by byte give the same."""
    got = drive(ZIP, data)
    if len(data) < 20_000:
        slowly = drive(ZIP, data, split=pieces(data, range(len(data))))
        assert slowly.parts == got.parts
        assert slowly.failures == got.failures
        assert slowly.anomalies == got.anomalies
    return got


class Pipe(io.RawIOBase):
    """Cannot seek, so that zipfile writes data descriptors."""

    def __init__(self) -> None:
        self.written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        self.written += bytes(data)  # type: ignore[call-overload]
        return len(bytes(data))  # type: ignore[call-overload]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("seekable", [True, False])
def test_ordinary_archives_are_read_once_and_without_an_anomaly(method: int, seekable: bool) -> None:
    target = io.BytesIO() if seekable else Pipe()
    with zipfile.ZipFile(target, "w", method) as archive:
        archive.writestr("a.txt", GOOD)
        archive.writestr("folder/", b"")
        archive.writestr("folder/b.exe", EVIL)
        archive.writestr("empty", b"")
    data = target.getvalue() if isinstance(target, io.BytesIO) else bytes(target.written)
    got = unpack(data)
    assert got.parts == {"a.txt": GOOD, "folder/b.exe": EVIL, "empty": b""}
    assert not got.failures and not got.anomalies


def test_zip64_archive() -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive, archive.open("a.bin", "w", force_zip64=True) as member:
        member.write(EVIL)
    assert unpack(target.getvalue()).parts == {"a.bin": EVIL}


def test_zip64_end_record_and_offset() -> None:
    plain = made_zip(Made(b"a", EVIL), end=False)
    at = plain.index(b"PK\1\2")
    end64 = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, len(plain) - at, at)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, len(plain), 1)
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    got = unpack(plain + end64 + locator + end)
    assert got.parts == {"a": EVIL} and not got.anomalies and not got.failures


def test_evasion_81_names_differ() -> None:
    got = unpack(made_zip(Made(b"harmless.txt", EVIL, local_name=b"evil.exe")))
    names = {name for begin in got.begins.values() for name in (begin.name, *begin.names)}
    assert {"harmless.txt", "evil.exe"} <= names
    assert set(got.contents) == {EVIL} and "zip-name" in got.kinds


@pytest.mark.parametrize(("local", "central"), [(0, 8), (8, 0)])
def test_evasion_81_methods_differ(local: int, central: int) -> None:
    packed = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = packed.compress(EVIL) + packed.flush()
    sizes = len(EVIL) if central == 8 else len(data)
    got = unpack(made_zip(Made(b"a", EVIL, central, data, local_method=local, central_size=sizes)))
    assert {EVIL, data} <= set(got.contents) and "zip-method" in got.kinds
    assert {begin.reading for begin in got.begins.values()} == {0, 1}


def test_evasion_81_local_sizes_lie() -> None:
    packed = zlib.compress(EVIL, wbits=-15)
    short = unpack(made_zip(Made(b"a", EVIL, local_packed=len(packed) // 2)))
    assert EVIL in short.contents and "zip-size" in short.kinds
    long = unpack(made_zip(Made(b"a", EVIL, local_packed=len(packed) + 9), Made(b"b", GOOD)))
    assert {EVIL, GOOD} <= set(long.contents) and "zip-size" in long.kinds


def test_evasion_81_a_header_hidden_where_the_local_size_says_that_data_ends() -> None:
    """One reader goes on to the end of the deflate stream, another takes up at the declared end."""
    hidden = made_zip(Made(b"hidden", EVIL), directory=False)
    stored = b"\x00" + struct.pack("<HH", len(hidden), len(hidden) ^ 0xFFFF) + hidden
    stream = stored + zlib.compress(GOOD, wbits=-15)
    got = unpack(made_zip(Made(b"a", hidden + GOOD, 8, stream, local_packed=5)))
    assert {hidden + GOOD, EVIL} <= set(got.contents)


def test_evasion_81_stored_sizes_differ() -> None:
    data = GOOD + EVIL
    got = unpack(made_zip(Made(b"a", data, 0, local_size=len(GOOD), central_size=len(GOOD))))
    assert {data, GOOD} <= set(got.contents) and "zip-size" in got.kinds
    got = unpack(
        made_zip(Made(b"a", GOOD, 0, central_packed=len(GOOD) + 20, central_size=len(GOOD) + 20), Made(b"b", GOOD))
    )
    assert any(part.startswith(GOOD) and len(part) == len(GOOD) + 20 for part in got.contents)


def test_evasion_81_a_size_that_is_too_small_is_a_reading_of_its_own() -> None:
    got = unpack(made_zip(Made(b"a", EVIL + GOOD, local_size=len(EVIL), central_size=len(EVIL))))
    assert {EVIL, EVIL + GOOD} <= set(got.contents)


def test_evasion_81_crc_differs() -> None:
    one = unpack(made_zip(Made(b"a", EVIL, central_crc=1)))
    assert one.contents == [EVIL] and "zip-crc" in one.kinds and not one.failures
    both = unpack(made_zip(Made(b"a", EVIL, central_crc=1, local_crc=1)))
    assert both.contents == [EVIL] and both.reasons == {Reason.MALFORMED}


def test_evasion_81_encryption_bit_in_one_header_only() -> None:
    """The data is plain: it is found whichever header says so, and nothing stays open."""
    for member in (Made(b"a", EVIL, flags=0, local_flags=1), Made(b"a", EVIL, flags=1, local_flags=0)):
        got = unpack(made_zip(member))
        assert EVIL in got.contents and "zip-encryption-flag" in got.kinds
        assert not got.failures


def test_evasion_81_encryption_bit_cleared_over_encrypted_data() -> None:
    noise = random.Random(81).randbytes(200)
    got = unpack(made_zip(Made(b"a", EVIL, 0, noise, flags=0, local_flags=1)))
    assert Reason.ENCRYPTED in got.reasons


def test_evasion_81_descriptor_flag_differs() -> None:
    got = unpack(made_zip(Made(b"a", EVIL, flags=0, local_flags=DESCRIPTOR), Made(b"b", GOOD)))
    assert got.contents == [EVIL, GOOD] and "zip-flags" in got.kinds


def test_evasion_81_entries_that_only_one_view_has() -> None:
    got = unpack(made_zip(Made(b"a", GOOD), Made(b"hidden", EVIL, in_directory=False)))
    assert got.contents == [GOOD, EVIL] and "zip-not-in-directory" in got.kinds
    # Only the directory leads into the middle of a stored member.
    inner = made_zip(Made(b"inner", EVIL), directory=False)
    outer = made_zip(Made(b"outer", inner + GOOD, 0))
    at = outer.index(b"PK\1\2")
    forged = bytearray(outer)
    forged[at:at] = made_zip(Made(b"inner", EVIL), shift=outer.index(inner))[len(inner) : -22]
    forged[-6:-2] = struct.pack("<I", at)
    forged[-10:-6] = struct.pack("<I", len(forged) - 22 - at)
    forged[-14:-10] = struct.pack("<HH", 2, 2)
    got = unpack(bytes(forged))
    assert {EVIL, inner + GOOD} <= set(got.contents) and "zip-overlap" in got.kinds


def test_evasion_81_entry_without_a_local_header() -> None:
    data = bytearray(made_zip(Made(b"a", GOOD), Made(b"b", EVIL)))
    data[data.index(b"PK\3\4", 4)] = 0
    got = unpack(bytes(data))
    assert got.reasons == {Reason.MALFORMED} and "zip-no-local-header" in got.kinds


PREFIXES = {
    "exe": b"MZ" + bytes(6000) + b"PK\3\4 is not a header",
    "gif": b"GIF89a" + bytes(range(256)) * 20,
    "pdf": b"%PDF-1.4\n" + b"1 0 obj <<>> endobj\n" * 300,
    "jpeg": b"\xff\xd8\xff\xe0" + bytes(5000),
    "short": b"x",
}


@pytest.mark.parametrize("prefix", PREFIXES.values(), ids=PREFIXES)
@pytest.mark.parametrize("adjusted", [True, False])
def test_evasion_82_data_before(prefix: bytes, adjusted: bool) -> None:
    data = prefix + made_zip(Made(b"a", EVIL), Made(b"b", GOOD), shift=len(prefix) if adjusted else 0)
    got = unpack(data)
    assert got.contents == [EVIL, GOOD] and not got.failures
    assert ("zip-data-before" in got.kinds) is not adjusted


def test_evasion_82_data_behind() -> None:
    got = unpack(made_zip(Made(b"a", EVIL)) + b"trailing" * 900)
    assert got.contents == [EVIL] and "zip-data-after-end" in got.kinds


def test_evasion_82_a_zip_in_the_comment() -> None:
    got = unpack(made_zip(Made(b"a", GOOD), comment=made_zip(Made(b"b", EVIL))))
    assert got.contents == [GOOD, EVIL] and "zip-several-ends" in got.kinds


def test_evasion_82_two_archives_joined() -> None:
    got = unpack(made_zip(Made(b"a", GOOD)) + made_zip(Made(b"b", EVIL)))
    assert got.contents == [GOOD, EVIL] and "zip-several-ends" in got.kinds


def test_evasion_82_a_stored_archive_inside_is_no_second_end() -> None:
    inner = made_zip(Made(b"b", EVIL))
    got = unpack(made_zip(Made(b"inner.zip", inner, 0)))
    assert got.contents == [inner] and not got.anomalies


def test_evasion_82_what_is_no_zip_says_nothing() -> None:
    for data in (b"PK\3\4", b"text about PK\3\4 and PK\5\6 " * 400, b"x" * 9000, b"MZ" + b"PK\5\6" * 2000):
        got = drive(ZIP, data, bid=Bid.MAYBE)
        assert not got.begins and not got.failures and not got.anomalies


def test_bids() -> None:
    archive = made_zip(Made(b"a", GOOD))
    assert ZIP.bid(Evidence(archive, True, Declared())) is Bid.YES
    assert ZIP.bid(Evidence(b"text" * 1000, True, Declared())) is Bid.NO
    assert ZIP.bid(Evidence(b"text" * 1024, False, Declared())) is Bid.MAYBE
    assert ZIP.bid(Evidence(b"GIF" + archive, True, Declared())) is Bid.MAYBE
    assert ZIP.bid(Evidence(b"From: a\r\n" * 500, False, Declared(media_type="message/rfc822"))) is Bid.NO


def test_evasion_83_without_a_directory() -> None:
    got = unpack(made_zip(Made(b"a", EVIL), Made(b"b", GOOD), directory=False))
    assert got.contents == [EVIL, GOOD] and got.kinds == {"zip-no-directory"} and not got.failures


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("method", [0, 8])
def test_evasion_83_data_descriptors(method: int, signed: bool, wide: bool) -> None:
    members = []
    for name, data in ((b"a", GOOD + b"PK\3\4 PK\7\x08" + GOOD), (b"b", EVIL)):
        packed = data if method == 0 else zlib.compress(data, wbits=-15)
        sizes = struct.pack("<QQ" if wide else "<II", len(packed), len(data))
        descriptor = (b"PK\7\x08" if signed else b"") + struct.pack("<I", zlib.crc32(data)) + sizes
        members.append(Made(name, data, method, packed, DESCRIPTOR, descriptor))
    for directory in (True, False):
        got = unpack(made_zip(*members, directory=directory))
        assert got.contents == [member.data for member in members] and not got.failures


def test_evasion_83_stored_data_of_unknown_size_that_never_ends() -> None:
    got = unpack(made_zip(Made(b"a", EVIL, 0, flags=DESCRIPTOR, descriptor=b""), directory=False))
    assert got.contents == [EVIL] and "zip-no-descriptor" in got.kinds


def test_evasion_83_cut_short() -> None:
    whole = made_zip(Made(b"a", GOOD), Made(b"b", EVIL, 0), directory=False)
    got = unpack(whole[:-100])
    assert got.contents == [GOOD, EVIL[:-100]] and got.reasons == {Reason.MALFORMED}


def test_what_was_decoded_before_damage_is_there() -> None:
    packed = zlib.compressobj(9, zlib.DEFLATED, -15)
    stream = packed.compress(EVIL) + packed.flush(zlib.Z_SYNC_FLUSH) + b"\xff" * 50
    got = unpack(made_zip(Made(b"a", EVIL, 8, stream)))
    assert got.contents == [EVIL] and Reason.MALFORMED in got.reasons


def _lzma_member(data: bytes) -> bytes:
    filters = [{"id": lzma.FILTER_LZMA1, "dict_size": 65536, "lc": 3, "lp": 0, "pb": 2}]
    return (
        b"\x09\x14\x05\x00" + b"\x5d" + struct.pack("<I", 65536) + lzma.compress(data, lzma.FORMAT_RAW, filters=filters)
    )


def _deflate64(data: bytes) -> bytes:
    packer = inflate64.Deflater()
    return bytes(packer.deflate(data) + packer.flush())


METHODS = {
    "deflate64": (9, _deflate64),
    "bzip2": (12, bz2.compress),
    "lzma": (14, _lzma_member),
    "zstd-old": (20, zstandard.compress),
    "zstd": (93, zstandard.compress),
    "xz": (95, lzma.compress),
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("flags", [0, DESCRIPTOR])
def test_evasion_84_odd_methods(name: str, flags: int) -> None:
    method, compress = METHODS[name]
    first, second = EVIL * 50, GOOD
    if method == 14 and flags:
        return  # LZMA without an end mark needs the size
    members = [Made(b"a", first, method, compress(first), flags), Made(b"b", second, method, compress(second), flags)]
    for directory in (True, False):
        got = unpack(made_zip(*members, directory=directory))
        assert got.contents == [first, second] and not got.failures


@pytest.mark.parametrize("method", [1, 2, 6, 10, 18, 19, 96, 97, 98, 77])
def test_evasion_84_methods_that_are_not_known_are_never_clean(method: int) -> None:
    noise = random.Random(method).randbytes(300)
    for directory in (True, False):
        got = unpack(made_zip(Made(b"a", EVIL, method, noise), Made(b"b", GOOD), directory=directory))
        assert got.reasons == {Reason.UNSUPPORTED} and GOOD in got.contents


def test_evasion_86_volumes() -> None:
    last = unpack(made_zip(Made(b"a", GOOD), disk=2))
    assert Reason.UNSUPPORTED in last.reasons and "multi-volume" in last.kinds and GOOD in last.contents
    first = unpack(b"PK\7\x08" + made_zip(Made(b"a", GOOD), directory=False))
    assert Reason.UNSUPPORTED in first.reasons and "multi-volume" in first.kinds and GOOD in first.contents


def test_evasion_87_names_are_harmless() -> None:
    names = [b"../../etc/passwd", b"/etc/shadow", b"C:\\x", b"a\0b", b"x\ny", b"..", b"/", b"n" * 5000, b"\xff\xfe"]
    got = unpack(made_zip(*[Made(name, EVIL) for name in names], Made(names[0], GOOD)))
    assert len(got.parts) == len(names) + 1
    for key in got.parts:
        assert key.isprintable() and len(key) < 300  # the driver asserts the rest


def test_the_unicode_name_of_a_member_is_a_name_of_it() -> None:
    field = b"\1" + struct.pack("<I", zlib.crc32(b"a.txt")) + "evil\u202ecod.exe".encode()
    extra = struct.pack("<HH", 0x7075, len(field)) + field
    got = unpack(made_zip(Made(b"a.txt", EVIL, local_extra=extra, central_extra=extra)))
    (begin,) = got.begins.values()
    assert {begin.name, *begin.names} >= {"a.txt", "evil\u202ecod.exe"}


_SAMPLES = [
    made_zip(Made(b"a", GOOD), Made(b"b", EVIL, 0), Made(b"c", EVIL, 12, bz2.compress(EVIL)), comment=b"PK\3\4"),
    made_zip(Made(b"a", GOOD, flags=8), Made(b"b", EVIL, 0, flags=8), Made(b"c", GOOD, 14, _lzma_member(GOOD))),
    PREFIXES["exe"] + made_zip(Made(b"a", GOOD, 93, zstandard.compress(GOOD))) + made_zip(Made(b"b", EVIL)),
]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(_SAMPLES), st.lists(st.integers(0, 10_000), max_size=8))
def test_any_split_gives_the_same_parts(data: bytes, cuts: list[int]) -> None:
    whole, split = drive(ZIP, data), drive(ZIP, data, split=pieces(data, cuts))
    assert (split.parts, split.failures, split.anomalies) == (whole.parts, whole.failures, whole.anomalies)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(_SAMPLES), st.lists(st.tuples(st.integers(0, 10_000), st.binary(max_size=6)), max_size=6))
def test_evasion_88_damage_ends_in_parts_or_failures(data: bytes, patches: list[tuple[int, bytes]]) -> None:
    damaged = bytearray(data)
    for at, patch in patches:
        damaged[at % len(data) : at % len(data) + len(patch)] = patch
    whole = drive(ZIP, bytes(damaged))
    split = drive(ZIP, bytes(damaged), split=pieces(bytes(damaged), range(0, len(damaged), 7)))
    assert (split.parts, split.failures) == (whole.parts, whole.failures)


def test_floods_of_headers_and_signatures_are_bounded() -> None:
    folder = made_zip(Made(b"f/", b"", 0), directory=False)
    got = drive(ZIP, folder * (HEADERS_MAX + 1))
    assert got.reasons == {Reason.OVER_LIMIT} and not got.parts
    start = made_zip(Made(b"a", GOOD))
    got = drive(ZIP, start + b"PK\3\4\xff\xff\xff\xff" * (MARKS_MAX + 1) + bytes(30))
    assert got.reasons == {Reason.OVER_LIMIT} and got.contents == [GOOD]
    got = drive(ZIP, start + b"PK\5\6" + b"PK\5\6" * 30_000)
    assert got.reasons == {Reason.OVER_LIMIT} and got.contents == [GOOD]
    assert not drive(ZIP, b"MZ" + b"PK\5\6" * 30_000).failures


def test_a_disk_image_full_of_archives_is_not_read_as_one() -> None:
    image = bytes(5000) + made_zip(Made(b"a", GOOD)) + bytes(2_000_000)
    assert not drive(ZIP, image).begins
    behind = drive(ZIP, bytes(5000) + made_zip(Made(b"a", GOOD)) + bytes(70_000) + made_zip(Made(b"b", EVIL)))
    assert behind.contents == [EVIL, GOOD]


def test_a_zip_whose_sectors_are_scattered_in_an_ole2_file_is_no_damaged_zip() -> None:
    damaged = bytearray(made_zip(Made(b"a", GOOD), Made(b"b", EVIL)))
    at = damaged.find(b"PK\3\4", 4)
    damaged[at + 31 : at + 50] = bytes(19)
    padding = bytes(9000)
    ole = drive(ZIP, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + padding + bytes(damaged) + padding)
    assert ole.contents[0] == GOOD and not ole.failures and "zip-scattered" in ole.kinds
    program = drive(ZIP, b"MZ" + padding + bytes(damaged) + padding)
    assert program.contents[0] == GOOD and program.reasons == {Reason.MALFORMED}


def test_who_gets_the_members() -> None:
    got = drive(ZIP, made_zip(Made(b"a", GOOD), Made(b"b", EVIL, 93, zstandard.compress(EVIL))))
    assert [begin.audience for begin in got.begins.values()] == [Audience.NOT_CLAMD, Audience.ALL]
    got = drive(ZIP, made_zip(Made(b"a", EVIL, local_name=b"b")))
    assert [begin.audience for begin in got.begins.values()] == [Audience.NOT_CLAMD, Audience.ALL]


def test_members_within_damaged_data_are_found_however_it_is_split() -> None:
    """What is damaged may be no data at all: headers in it are looked for, too, and the split does not matter."""
    inner = made_zip(Made(b"inner", EVIL, method=0), directory=False)
    stored = b"\0" + struct.pack("<HH", len(inner), len(inner) ^ 0xFFFF) + inner
    data = made_zip(Made(b"outer", GOOD, packed=stored + b"\xff" * 20), directory=False)
    got = unpack(data)
    assert EVIL in got.contents and Reason.MALFORMED in got.reasons
    for cuts in ([40, 60], range(0, len(data), 7), [len(data) - 10]):
        split = drive(ZIP, data, split=pieces(data, cuts))
        assert (split.parts, split.failures) == (got.parts, got.failures)


def test_evasion_82_an_archive_behind_something_whose_directory_is_cut() -> None:
    """The first entry claims a longer extra field than there is; Python reads it all the same."""
    whole = made_zip(Made(b"a", EVIL))
    at = whole.index(b"PK\1\2")
    data = b"GIF89a" + whole[: at + 30] + b"\0\x70" + whole[at + 32 :]
    assert zipfile.ZipFile(io.BytesIO(data)).read("a") == EVIL
    got = drive(ZIP, data)
    assert EVIL in got.contents and "zip-directory-cut" in got.kinds


TOO_FAR = bytes.fromhex("edc8b10d00300cc3b05b9d2b9cefdb7ed1818b2030d3")
"""Deflated, and cut off: the next byte, if it is a P, gives a byte of output and then has a distance too far back."""


def test_a_damaged_member_ends_at_the_same_byte_wherever_it_is_cut() -> None:
    """The byte that is wrong is the first one of the next header, and belongs to that."""
    data = made_zip(Made(b"a", b"", packed=TOO_FAR, flags=DESCRIPTOR, descriptor=b"", local_packed=0), Made(b"b", EVIL))
    whole = drive(ZIP, data)
    assert whole.parts["b"] == EVIL and whole.begins["b"].reading == 0
    for cut in range(len(data)):
        split = drive(ZIP, data, split=pieces(data, [cut]))
        assert (split.parts, split.begins, split.failures) == (whole.parts, whole.begins, whole.failures)
        assert split.anomalies == whole.anomalies


class ReadsAhead:
    """Each byte is worth 64 KiB of output, and 255 is wrong. Takes the next one when its output is full."""

    eof = False

    def __init__(self) -> None:
        self.left = 0
        self.bad = False

    def step(self, data: Buffer, limit: int) -> tuple[bytes, Buffer]:
        out = b""
        while True:
            if self.bad and len(out) < limit:
                raise Broken("255")
            count = min(self.left, limit - len(out))
            out += bytes(count)
            self.left -= count
            if not data or self.left or self.bad:
                return out, data
            self.bad, self.left = data[0] == 255, 0 if data[0] == 255 else 64 * KIB
            data = data[1:]

    def copy(self) -> ReadsAhead:
        return copy(self)


@pytest.mark.parametrize("split", [[7], [2, 5], [3, 4], [1] * 7], ids=str)
def test_the_byte_that_is_wrong_is_the_same_however_full_the_output_is(split: list[int]) -> None:
    """A decompressor whose output is full may have taken input that is not decoded."""
    budget = Budget(Limits())
    budget.take_body(1000)
    unpacker, data = Unpacker(ReadsAhead(), Gate(budget)), b"\1\1\1\1\xff\1\1"
    with pytest.raises(Stop):
        for size in split:
            for _ in unpacker.run(data[:size]):
                pass
            data = data[size:]
    assert (unpacker.used, unpacker.size) == (4, 256 * KIB)
