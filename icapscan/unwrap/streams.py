"""One face for the decompressors: a few bytes in, at most so many bytes out, and what was not taken.

Each drives exactly one compressed stream (a gzip member, a zstd frame, …); `icapscan.unwrap.layer` strings them
together. Libraries disagree about errors, so all of them raise `Broken`.
"""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable
from typing import Protocol

import brotli

from icapscan.limits import MIB

Buffer = bytes | memoryview
LZMA_MEMORY = 64 * MIB
"""xz needs up to its dictionary in memory; presets up to 9 need 64 MiB and a little (xz(1), section "Memory usage")."""


class Broken(Exception):
    """The bytes are not what the coding says. Never leaves this room."""


class TooLarge(Exception):
    """The stream asks for more working memory than we give. Never leaves this room."""


class Stream(Protocol):
    """One compressed stream."""

    eof: bool
    """The stream has ended; input that is left belongs to something else."""

    def step(self, data: Buffer, limit: int) -> tuple[bytes, Buffer]:
        """Decode ``data``: (about ``limit`` bytes of output at most, input not taken).

        When ``limit`` was reached there may be more output even with no input left: call again with what was not
        taken. Raises `Broken` or `TooLarge`; what the same call had decoded is then lost, see `copy`.
        """
        ...

    def copy(self) -> Stream | None:
        """The stream as it is now, to go back to after `Broken`; None where the library cannot."""
        ...


Opener = Callable[[], Stream]


class Inflate:
    """zlib (RFC 1950), raw deflate (RFC 1951) or one gzip member (RFC 1952), by ``wbits`` as zlib defines it."""

    __slots__ = ("_zlib", "eof")

    def __init__(self, wbits: int) -> None:
        self._zlib = zlib.decompressobj(wbits)
        self.eof = False

    def step(self, data: Buffer, limit: int) -> tuple[bytes, Buffer]:
        try:
            out = self._zlib.decompress(data, limit)
        except zlib.error as error:
            raise Broken(str(error)) from error
        self.eof = self._zlib.eof
        return out, self._zlib.unused_data if self.eof else self._zlib.unconsumed_tail

    def copy(self) -> Inflate:
        twin = Inflate.__new__(Inflate)
        twin._zlib = self._zlib.copy()
        twin.eof = self.eof
        return twin


class Brotli:
    """One brotli stream (RFC 7932). The library reports bytes after the end as an error."""

    __slots__ = ("_brotli", "eof")

    def __init__(self) -> None:
        self._brotli = brotli.Decompressor()
        self.eof = False

    def step(self, data: Buffer, limit: int) -> tuple[bytes, Buffer]:
        taken = self._brotli.can_accept_more_data()
        try:
            out: bytes = self._brotli.process(data if taken else b"", output_buffer_limit=limit)
        except brotli.error as error:
            raise Broken(str(error)) from error
        self.eof = self._brotli.is_finished()
        return out, b"" if taken else data

    def copy(self) -> None:
        return None


class Lzma:
    """One .xz or .lzma stream, told apart by the library."""

    __slots__ = ("_lzma", "eof")

    def __init__(self) -> None:
        self._lzma = lzma.LZMADecompressor(lzma.FORMAT_AUTO, memlimit=LZMA_MEMORY)
        self.eof = False

    def step(self, data: Buffer, limit: int) -> tuple[bytes, Buffer]:
        taken = self._lzma.needs_input
        try:
            out = self._lzma.decompress(data if taken else b"", limit)
        except lzma.LZMAError as error:
            if "memory" in str(error).lower():
                raise TooLarge(str(error)) from error
            raise Broken(str(error)) from error
        self.eof = self._lzma.eof
        if self.eof:
            rest = self._lzma.unused_data
            return out, rest if taken else b"".join((rest, data))
        return out, b"" if taken else data

    def copy(self) -> None:
        return None
