"""Fuzz targets for archives and compressed files. The first line of each is its invariant; *sound*: see `oracle.py`."""

from __future__ import annotations

from icapscan.unwrap import rar_headers
from icapscan.unwrap.contract import Declared
from icapscan.unwrap.libarchive import KINDS
from icapscan.unwrap.sevenzip import SEVENZIP_FORMATS
from icapscan.unwrap.single import SINGLE_FORMATS
from tests.fuzz import coded, oracle, reference
from tests.fuzz.mutators import near_words, tar_blocks
from tests.fuzz.target import KIB, Target, entries, every

ZIP_WORDS = (
    b"PK\3\4", b"PK\1\2", b"PK\5\6", b"PK\7\x08", b"PK\6\6", b"PK\6\7", b"PK00PK\3\4", b"\1\0\x10\0", b"up",
    b"\0\0\x08\0",
)  # fmt: skip
MAGICS = {
    "gzip": b"\x1f\x8b\x08", "bzip2": b"BZh9", "xz": b"\xfd7zXZ\0", "zstd": b"\x28\xb5\x2f\xfd",
    "lz4": b"\x04\x22\x4d\x18",
    "lzip": b"LZIP\x01", "legacy": b"\x02\x21\x4c\x18", "lzma": b"\x5d\0\0\x80\0", "skip": b"\x50\x2a\x4d\x18",
    "block": b"1AY&SY", "end": b"\x17rE8P\x90", "zlib": b"\x78\x9c", "stored": b"\1\0\0\xff\xff",
}  # fmt: skip
SINGLE_NAMES = tuple(one.name for one in SINGLE_FORMATS)
CHILD_KINDS = tuple(kind.name for kind in KINDS)
SEVENZIP_NAMES = tuple(one.name for one in SEVENZIP_FORMATS)
ZIP, TAR, WARC, SIS = entries("zip"), entries("tar"), entries("warc"), entries("sis")
SINGLE, SELF_EXTRACT = entries(*SINGLE_NAMES), entries("self-extractor")
CLOSED = entries("closed", "volume")
ENDS = ("7z", "rar", "cab", "cpio", "lzh", "xar", "rpm", "iso", "ar", "lha", "Z")
LIBARCHIVE, SEVENZIP = entries(*CHILD_KINDS), entries(*SEVENZIP_NAMES)


def zip_(data: bytes) -> None:
    """zip as a stream and by its directories: sound; what Python's zipfile reads is a part, or a failure is told."""
    for entry in ZIP:
        told = oracle.check(entry, data)
        if told is not None:
            reference.zip_members(data, told)


def tar(data: bytes) -> None:
    """tar: sound; a file that Python's tarfile reads is a part, or a failure is told."""
    for entry in TAR:
        told = oracle.check(entry, data)
        if told is not None:
            reference.tar_members(data, told)


def single(data: bytes) -> None:
    """Compressed files: sound; what Python's readers decode comes out, and a stream without an end is told."""
    declared = Declared(("a.br",))
    for entry in SINGLE:
        told = oracle.check(entry, data, declared)
        if told is None:
            continue
        kind = entry.format.name
        if kind in reference.READERS:
            reference.stream(kind, data, told)
        elif kind == "zstd":
            reference.zstd(data, told)


def codings(data: bytes) -> None:
    """Content codings: sound, and a coding without an end is told. The first byte chooses the codings."""
    chains = coded.CHAINS
    coded.check(chains[data[0] % len(chains)] if data else b"", data[1:])


def warc(data: bytes) -> None:
    """WARC: sound."""
    every(data, WARC)


def sis(data: bytes) -> None:
    """Symbian installation files: sound."""
    every(data, SIS)


def selfextract(data: bytes) -> None:
    """Self-extracting programs: sound, and headers of RAR raise nothing."""
    every(data, SELF_EXTRACT)
    every(b"MZ" + data, SELF_EXTRACT)
    for magic in (b"", rar_headers.RAR4, rar_headers.RAR5):
        rar_headers.facts(magic + data)


def closed(data: bytes) -> None:
    """What nothing opens, and pieces of archives by name: sound, and where there is a bid a failure is told."""
    name = data[:40].partition(b"\0")[0].decode("utf-8", "replace")
    for entry in CLOSED:
        for declared in (Declared((name,)), Declared()):
            told = oracle.check(entry, data, declared)
            assert told is None or told.failures or entry.format.name == "volume", (
                "nothing opens this, and nobody is told"
            )


def libarchive(data: bytes) -> None:
    """Archives read by libarchive in a child process: sound, and the child is dead at the end."""
    every(data, LIBARCHIVE)
    _no_children()


def sevenzip(data: bytes) -> None:
    """Archives that 7-Zip reads in a child process: sound, and the child is dead at the end."""
    every(data, SEVENZIP)
    _no_children()


def _no_children() -> None:
    from icapscan.unwrap import children

    assert not children._running, "a child process was forgotten"


ARCHIVES = (
    Target(zip_, ZIP_WORDS, near_words, 8 * KIB, ("zip",), corpus=("archives", "ole/*.docx")),
    Target(tar, (b"ustar\0", b"ustar  \0", b"x", b"g", b"L", b"S", b"GNU.sparse.map=0,1", b"size=", b"path=",
           b"30 path=a\n"),
           tar_blocks, 16 * KIB, ("tar",), corpus=("archives/**/*.tar",)),
    Target(single, tuple(MAGICS.values()), near_words, 8 * KIB, SINGLE_NAMES),
    Target(codings, tuple(MAGICS.values()), near_words, 8 * KIB),
    Target(warc, (b"WARC/1.0\r\n", b"Content-Length: ", b"\r\n\r\n", b"WARC-Target-URI: ", b"WARC-Record-ID: "),
           near_words, 8 * KIB, ("warc",)),
    Target(sis, (b"\x19\4\0\x10",), near_words, 4 * KIB, ("sis",)),
    Target(selfextract, (b"MZ", b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\7\0", b"Rar!\x1a\7\1\0", b"MSCF\0\0\0\0", b"PE\0\0"),
           near_words, 8 * KIB, ("self-extractor",)),
    Target(closed, (b"**ACE**", b"LRZI", b"7kSt\xa0", b".part1.rar", b".001", b".z01", b"\xdc\xa7\xc4\xfd"),
           near_words, 1 * KIB,
           ("closed", "volume")),
    Target(libarchive, (b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\7\0", b"MSCF", b"070701", b"!<arch>\n", b"-lh5-", b"xar!",
           b"\x1f\x9d"),
           near_words, 8 * KIB, CHILD_KINDS, True, tuple(f"archives/**/*.{end}" for end in ENDS)),
    Target(sevenzip, (b"MSWIM\0\0\0", b"ITSF", b"SZDD\x88\xf0\x27\x33", b"\x60\xea", b"\xef\xbe\xad\xdeNullsoftInst"),
           near_words, 8 * KIB, SEVENZIP_NAMES, True, tuple(f"**/*.{end}" for end in ("arj", "chm", "szdd", "ntx",
           "wim"))),
)  # fmt: skip
