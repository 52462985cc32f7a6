"""One zstd frame (RFC 8878), walked block by block.

The library's decompressor has no bound on the output of a call, and four bytes can stand for 128 KiB. A block
yields at most 128 KiB (3.1.1.2.4), so whole blocks are cut from the input and given to it one at a time.
"""

from __future__ import annotations

import zstandard

from icapscan.limits import MIB
from icapscan.unwrap.streams import Broken, Buffer, TooLarge

MAGIC = b"\x28\xb5\x2f\xfd"
WINDOW_MAX = 8 * MIB
"""RFC 9659: a content coding of zstd must not need more."""
_SKIPPABLE = range(0x184D2A50, 0x184D2A60)
_BLOCK_MAX = 128 * 1024
_RLE, _RESERVED = 1, 3


def is_frame(head: Buffer) -> bool:
    """Whether the four bytes begin a zstd frame or a skippable frame (3.1.2)."""
    return bytes(head[:4]) == MAGIC or int.from_bytes(head[:4], "little") in _SKIPPABLE


class Zstd:
    """One frame, or one skippable frame (whose content is nobody's output)."""

    __slots__ = ("_ahead", "_checksum", "_header", "_last", "_left", "_stage", "_zstd", "eof")

    def __init__(self) -> None:
        self._zstd = zstandard.ZstdDecompressor(max_window_size=WINDOW_MAX).decompressobj()
        self._header = bytearray()
        self._stage = self._frame_header
        self._left = 0
        """Bytes of the current block, checksum or skippable frame that are still to come."""
        self._last = False
        self._checksum = False
        self.eof = False

    def step(self, data: Buffer, limit: int) -> tuple[bytes, Buffer]:
        """One block's output at most, whatever ``limit`` says (128 KiB is below any that is asked for here)."""
        view = memoryview(data)
        while view and not self.eof:
            out, view = self._stage(view)
            if out:
                return out, view
        return b"", view

    def copy(self) -> None:
        return None

    # Stages: each takes the input and returns output and what is left

    def _frame_header(self, view: memoryview) -> tuple[bytes, memoryview]:
        view = self._collect(view, 5)
        header = self._header
        if len(header) < 5:
            return b"", view
        if int.from_bytes(header[:4], "little") in _SKIPPABLE:
            view = self._collect(view, 8)
            if len(header) == 8:
                self._left = int.from_bytes(header[4:8], "little")
                self._stage = self._skip
                self._end_if(self._left == 0)
            return b"", view
        if header[:4] != MAGIC:
            raise Broken("not a zstd frame")
        view = self._collect(view, _header_size(header[4]))
        if len(header) < _header_size(header[4]):
            return b"", view
        self._check_header(bytes(header))
        return self._decode(self._take_header()), self._next(self._block_header, view)

    def _check_header(self, header: bytes) -> None:
        try:
            parameters = zstandard.get_frame_parameters(header)
        except zstandard.ZstdError as error:
            raise Broken(str(error)) from error
        if parameters.window_size > WINDOW_MAX:
            raise TooLarge("a zstd window of more than 8 MiB")
        if parameters.dict_id:
            raise Broken("a zstd frame that needs a dictionary")
        self._checksum = parameters.has_checksum

    def _block_header(self, view: memoryview) -> tuple[bytes, memoryview]:
        view = self._collect(view, 3)
        if len(self._header) < 3:
            return b"", view
        word = int.from_bytes(self._header, "little")
        kind, size = word >> 1 & 3, word >> 3
        if kind == _RESERVED or size > _BLOCK_MAX:
            raise Broken("a zstd block that cannot be")
        self._last = bool(word & 1)
        self._left = 1 if kind == _RLE else size
        out = self._decode(self._take_header())
        if not self._left:
            self._after_block()
            return out, view
        return out, self._next(self._block, view)

    def _block(self, view: memoryview) -> tuple[bytes, memoryview]:
        piece = view[: self._left]
        self._left -= len(piece)
        out = self._decode(piece)
        if not self._left:
            self._after_block()
        return out, view[len(piece) :]

    def _after_block(self) -> None:
        self._stage = self._block_header
        if self._last:
            self._left = 4
            self._stage = self._trailer
            self._end_if(not self._checksum)

    def _trailer(self, view: memoryview) -> tuple[bytes, memoryview]:
        piece = view[: self._left]
        self._left -= len(piece)
        self._end_if(self._left == 0)
        return self._decode(piece), view[len(piece) :]

    def _skip(self, view: memoryview) -> tuple[bytes, memoryview]:
        count = min(self._left, len(view))
        self._left -= count
        self._end_if(self._left == 0)
        return b"", view[count:]

    # Small steps

    def _collect(self, view: memoryview, size: int) -> memoryview:
        """Fill the header up to ``size`` bytes."""
        missing = max(0, size - len(self._header))
        self._header += view[:missing]
        return view[missing:]

    def _take_header(self) -> bytes:
        header = bytes(self._header)
        self._header.clear()
        return header

    def _decode(self, data: Buffer) -> bytes:
        try:
            return self._zstd.decompress(data)
        except zstandard.ZstdError as error:
            raise Broken(str(error)) from error

    def _next(self, stage: object, view: memoryview) -> memoryview:
        self._stage = stage  # type: ignore[assignment]
        return view

    def _end_if(self, ended: bool) -> None:
        self.eof = self.eof or ended


def _header_size(descriptor: int) -> int:
    """Magic, descriptor, window, dictionary id and content size (RFC 8878 3.1.1.1)."""
    single = descriptor >> 5 & 1
    dictionary = (0, 1, 2, 4)[descriptor & 3]
    size = (1 if single else 0, 2, 4, 8)[descriptor >> 6]
    return 5 + (0 if single else 1) + dictionary + size
