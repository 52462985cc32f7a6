"""What Python's own readers make of a file: content that they find without a complaint must be found here too."""

from __future__ import annotations

import bz2
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from typing import Protocol

import zstandard

from tests.fuzz.oracle import Told
from tests.fuzz.walked import Walked

MOST = 256 * 1024
"""Bytes of one member that a comparison reads."""


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


READERS: dict[str, Callable[[], _Decompressor]] = {
    "gzip": lambda: zlib.decompressobj(31),
    "bzip2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ),
}


def stream(kind: str, data: bytes, told: Told) -> None:
    """The first stream of a compressed file: all of it comes out, and where it has no end that is told."""
    reader = READERS[kind]()
    try:
        out = reader.decompress(data, MOST)
        whole, cut = reader.eof, len(out) < MOST
    except (zlib.error, OSError, EOFError, lzma.LZMAError):
        out, whole, cut = b"", False, True
    if len(out) >= MOST:
        return
    if whole:
        assert not out or any(one.startswith(out) for one in told.contents) or told.failures, (
            "what is decoded is missing"
        )
    elif cut:
        assert told.failures, "a stream without an end counts as complete"


def zstd(data: bytes, told: Told) -> None:
    """The same for zstd, whose reader gives nothing of a broken frame."""
    try:
        out = zstandard.ZstdDecompressor(max_window_size=8 << 20).decompress(data, max_output_size=MOST)
    except (zstandard.ZstdError, MemoryError):
        return
    assert not out or any(one.startswith(out) for one in told.contents) or told.failures, "what is decoded is missing"


def zip_members(data: bytes, told: Told) -> None:
    """Every member that the standard library reads, with a right checksum, is a part, or a failure is told."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, ValueError, OverflowError, OSError, NotImplementedError, UnicodeDecodeError):
        return
    for info in archive.infolist()[:50]:
        if not info.filename or info.is_dir() or info.flag_bits & 1 or info.compress_type not in (0, 8):
            continue
        try:
            with archive.open(info) as file:
                content = file.read(MOST)
                if file.read(1):
                    continue
        except Exception:  # whatever it does not read
            continue
        if not (told.failures or not content or content in told.contents):
            missing(content, data, info.filename)


def tar_members(data: bytes, told: Told) -> None:
    """Every plain file that the standard library reads is a part, or a failure is told."""
    found: list[bytes] = []
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for number, info in enumerate(archive):
                if number > 50:
                    break
                if info.isreg() and not info.issparse() and 0 < info.size <= MOST:
                    file = archive.extractfile(info)
                    content = file.read() if file is not None else b""
                    if len(content) == info.size:
                        found.append(content)
    except Exception:  # whatever it does not read
        pass
    for content in found:
        if not (told.failures or content in told.contents):
            missing(content, data, "a file")


def missing(content: bytes, data: bytes, name: str) -> None:
    """A decoder did not find it: it may stand in one of the parts that it found, which are opened in turn."""
    walked = Walked(data, [data])
    assert walked.failures or content in walked.contents, f"{name!r} is missing"
