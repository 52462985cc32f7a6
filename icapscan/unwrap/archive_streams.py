"""Decompressors that only archives and compressed files need, with the face of `streams.Stream`."""

from __future__ import annotations

import bz2
import lzma
import zlib
from typing import Any

from icapscan.limits import MIB
from icapscan.unwrap.streams import LZMA_MEMORY, Broken, Buffer, TooLarge

LZIP = b"LZIP\x01"
LZ4 = b"\x04\x22\x4d\x18"
LZ4_LEGACY = b"\x02\x21\x4c\x18"
_LEGACY_BLOCK = 8 * MIB
"""What a block of the legacy format unpacks to (LZ4 frame format, "Legacy frame")."""


class Bzip2:
    """One bzip2 stream."""

    __slots__ = ("_bz2", "eof")

    def __init__(self) -> None:
        self._bz2 = bz2.BZ2Decompressor()
        self.eof = False

    def step(self, data: Buffer, limit: int) -> tuple[bytes, Buffer]:
        taken = self._bz2.needs_input
        try:
            out = self._bz2.decompress(data if taken else b"", limit)
        except (OSError, ValueError) as error:
            raise Broken(str(error)) from error
        self.eof = self._bz2.eof
        if self.eof:
            rest = self._bz2.unused_data
            return out, rest if taken else b"".join((rest, data))
        return out, b"" if taken else data

    def copy(self) -> None:
        return None


class LzmaAlone:
    """One .lzma stream: LZMA_alone, which has no magic number."""

    __slots__ = ("_lzma", "eof")

    def __init__(self) -> None:
        self._lzma = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=LZMA_MEMORY)
        self.eof = False

    def step(self, data: Buffer, limit: int) -> tuple[bytes, Buffer]:
        out, data, self.eof = _lzma_step(self._lzma, data, limit)
        return out, data

    def copy(self) -> None:
        return None


class RawLzma:
    """LZMA with the header that zip (APPNOTE.TXT 5.8.8) or lzip puts before it; without one until `_begin`."""

    __slots__ = ("_header", "_lzma", "_size", "eof")

    def __init__(self, size: int = 9) -> None:
        self._header = bytearray()
        self._size = size
        self._lzma: lzma.LZMADecompressor | None = None
        self.eof = False

    def step(self, data: Buffer, limit: int) -> tuple[bytes, Buffer]:
        if self._lzma is None:
            missing = self._size - len(self._header)
            self._header += data[:missing]
            data = data[missing:]
            if len(self._header) < self._size:
                return b"", b""
            self._lzma = self._begin(bytes(self._header))
        out, data, self.eof = _lzma_step(self._lzma, data, limit)
        return out, data

    def copy(self) -> None:
        return None

    @staticmethod
    def _begin(header: bytes) -> lzma.LZMADecompressor:
        """Two bytes of version, two of length, then the five properties."""
        if int.from_bytes(header[2:4], "little") != 5:
            raise Broken("impossible LZMA properties")
        return raw_lzma(header[4], int.from_bytes(header[5:9], "little"))


class Lzip:
    """One member of a .lz file (lzip manual, "File format"): header, LZMA with its end mark, CRC and two sizes."""

    __slots__ = ("_crc", "_raw", "_size", "_trailer", "eof")

    def __init__(self) -> None:
        self._raw = _LzipData()
        self._trailer = bytearray()
        self._crc = self._size = 0
        self.eof = False

    def step(self, data: Buffer, limit: int) -> tuple[bytes, Buffer]:
        if not self._raw.eof:
            out, data = self._raw.step(data, limit)
            self._crc = zlib.crc32(out, self._crc)
            self._size += len(out)
            if out or not self._raw.eof:
                return out, data
        missing = 20 - len(self._trailer)
        self._trailer += data[:missing]
        if len(self._trailer) == 20:
            if (self._crc, self._size) != (
                int.from_bytes(self._trailer[:4], "little"),
                int.from_bytes(self._trailer[4:12], "little"),
            ):
                raise Broken("the checksum is wrong")
            self.eof = True
        return b"", data[missing:]

    def copy(self) -> None:
        return None


class _LzipData(RawLzma):
    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(6)

    @staticmethod
    def _begin(header: bytes) -> lzma.LZMADecompressor:
        base = 1 << (header[5] & 0x1F)
        if not header.startswith(LZIP) or not 4096 <= base <= 512 * MIB:
            raise Broken("not an lzip member")
        return raw_lzma(93, base - (base >> 4) * (header[5] >> 5))


class Lz4:
    """One LZ4 frame, or one skippable frame."""

    __slots__ = ("_lz4", "eof")

    def __init__(self) -> None:
        import lz4.frame

        self._lz4: Any = lz4.frame.LZ4FrameDecompressor()
        self.eof = False

    def step(self, data: Buffer, limit: int) -> tuple[bytes, Buffer]:
        taken = self._lz4.needs_input
        try:
            out: bytes = self._lz4.decompress(bytes(data) if taken else b"", limit)
        except (RuntimeError, EOFError, ValueError) as error:
            raise Broken(str(error)) from error
        self.eof = self._lz4.eof
        if self.eof:
            rest = self._lz4.unused_data or b""
            return out, rest if taken else b"".join((rest, data))
        return out, b"" if taken else data

    def copy(self) -> None:
        return None


class Lz4Legacy:
    """One legacy LZ4 stream: blocks of 8 MiB, no end mark and no checksum."""

    __slots__ = ("_buffer", "_need", "eof")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._need = 4
        """Bytes of the magic number, of a length, or of a block."""
        self.eof = False

    @property
    def resting(self) -> bool:
        """Between two blocks: where the input ends here, so does the stream."""
        return not self._buffer and self._need == 4

    def step(self, data: Buffer, limit: int) -> tuple[bytes, Buffer]:
        """One block's output at most, whatever ``limit`` says."""
        while data:
            missing = self._need - len(self._buffer)
            self._buffer += data[:missing]
            data = data[missing:]
            if len(self._buffer) < self._need:
                break
            if self._need == 4:
                self._begin_block()
                continue
            block = bytes(self._buffer[4:])
            self._buffer.clear()
            self._need = 4
            return self._block(block), data
        return b"", data

    def _begin_block(self) -> None:
        if self._buffer == LZ4_LEGACY:
            self._buffer.clear()
            return
        size = int.from_bytes(self._buffer, "little")
        if not 0 < size <= _LEGACY_BLOCK + _LEGACY_BLOCK // 255 + 16:
            raise Broken("an LZ4 block that cannot be")
        self._need = 4 + size

    @staticmethod
    def _block(block: bytes) -> bytes:
        import lz4.block

        try:
            return bytes(lz4.block.decompress(block, uncompressed_size=_LEGACY_BLOCK))
        except (lz4.block.LZ4BlockError, RuntimeError, ValueError, MemoryError) as error:
            raise Broken(str(error)) from error

    def copy(self) -> None:
        return None


def raw_lzma(properties: int, dictionary: int) -> lzma.LZMADecompressor:
    """A decoder of LZMA without a header, from its properties byte and dictionary size."""
    if properties >= 9 * 5 * 5:
        raise Broken("impossible LZMA properties")
    if dictionary > LZMA_MEMORY:
        raise TooLarge("an LZMA dictionary of more than 64 MiB")
    rest, lc = divmod(properties, 9)
    pb, lp = divmod(rest, 5)
    if lc + lp > 4:
        raise Broken("LZMA properties that no library takes")
    filters = [{"id": lzma.FILTER_LZMA1, "dict_size": max(4096, dictionary), "lc": lc, "lp": lp, "pb": pb}]
    return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters)


def _lzma_step(decoder: lzma.LZMADecompressor, data: Buffer, limit: int) -> tuple[bytes, Buffer, bool]:
    taken = decoder.needs_input
    try:
        out = decoder.decompress(data if taken else b"", limit)
    except (lzma.LZMAError, EOFError) as error:
        if "memory" in str(error).lower():
            raise TooLarge(str(error)) from error
        raise Broken(str(error)) from error
    if decoder.eof:
        rest = decoder.unused_data
        return out, rest if taken else b"".join((rest, data)), True
    return out, b"" if taken else data, False
