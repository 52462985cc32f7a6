"""BinHex 4.0 (RFC 1741 appendix A): eight-to-six coding, run lengths, and a file of two forks inside."""

from __future__ import annotations

import binascii
import enum
import re
from collections.abc import Iterator

import pybase64

BEGIN = re.compile(rb"[ \t]*:[!-r]{20,}")
"""What the first encoded line looks like; the first colon begins the data."""
_ALPHABET = b"!\"#$%&'()*+,-012345689@ABCDEFGHIJKLMNPQRSTUVXYZ[`abcdefhijklmpqr"
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_TO_BASE64 = bytes.maketrans(_ALPHABET, _BASE64)
_OTHERS = bytes(code for code in range(256) if code not in _ALPHABET)
_MARK = re.compile(rb"\x90(.)", re.S)
STEP = 1024
"""Encoded characters that are decoded at once: run lengths make up to 255 bytes of three."""


class Fork(enum.Enum):
    """What a piece of decoded data belongs to."""

    DATA = "data"
    RESOURCE = "resource"


class BinHex:
    """Decodes the text between the colons."""

    __slots__ = ("_bits", "_given", "_header", "_last", "_left", "_run", "_stage", "_sums", "damaged", "name")

    def __init__(self) -> None:
        self._bits = b""
        self._last = b""
        self._run = False
        """A run marker came, its count did not."""
        self._header = b""
        self._sums = [0, 0]
        self._given = b""
        self.damaged = False
        """A checksum is wrong."""
        self._left = [0, 0]
        self._stage = 0
        self.name = b""

    def feed(self, data: bytes) -> Iterator[tuple[Fork, bytes]]:
        """More text; pieces of the forks, each made from at most `STEP` characters."""
        for at in range(0, len(data), STEP):
            piece = data[at : at + STEP]
            text = self._bits + piece.translate(None, _OTHERS)
            whole = len(text) & ~3
            self._bits = text[whole:]
            yield from self._forks(self._expanded(pybase64.b64decode(text[:whole].translate(_TO_BASE64))))

    def finish(self) -> Iterator[tuple[Fork, bytes]]:
        """The text is complete."""
        rest, self._bits = self._bits, b""
        if len(rest) > 1:
            text = rest.translate(_TO_BASE64) + b"=" * (4 - len(rest))
            yield from self._forks(self._expanded(pybase64.b64decode(text)))

    @property
    def complete(self) -> bool:
        """Both forks came as long as the header says."""
        return self._stage > 2

    def _expanded(self, data: bytes) -> bytes:
        """Undo the run lengths: a byte, 0x90, a count; a count of zero means 0x90 itself."""
        out: list[bytes] = []
        at = 0
        if self._run and data:
            out.append(self._repeated(data[0]))
            self._run, at = False, 1
        for mark in _MARK.finditer(data, at):
            literal = data[at : mark.start()]
            if literal:
                out.append(literal)
                self._last = literal[-1:]
            out.append(self._repeated(mark[1][0]))
            at = mark.end()
        rest = data[at:]
        if rest.endswith(b"\x90"):
            self._run, rest = True, rest[:-1]
        if rest:
            out.append(rest)
            self._last = rest[-1:]
        return b"".join(out)

    def _repeated(self, count: int) -> bytes:
        if not count:
            self._last = b"\x90"
            return self._last
        return self._last * (count - 1)

    def _check(self, right: int) -> None:
        self.damaged = self.damaged or int.from_bytes(self._given, "big") != right
        self._given = b""

    def _forks(self, data: bytes) -> Iterator[tuple[Fork, bytes]]:
        if self._stage == 0:
            self._header += data
            if len(self._header) < 1 or len(self._header) < self._header[0] + 22:
                return
            size = self._header[0]
            self.name = self._header[1 : size + 1]
            lengths = self._header[size + 12 : size + 20]
            self._left = [int.from_bytes(lengths[:4], "big"), int.from_bytes(lengths[4:], "big")]
            data, self._header = self._header[size + 22 :], b""
            self._stage = 1
        while data and self._stage in (1, 2):
            index = self._stage - 1
            left = self._left[index]
            piece, data = data[: max(left, 0)], data[max(left, 0) :]
            if piece:
                self._sums[index] = binascii.crc_hqx(piece, self._sums[index])
                yield (Fork.DATA, Fork.RESOURCE)[index], piece
            self._left[index] = left - len(piece)
            if self._left[index] <= 0:  # its two bytes of CRC come next
                skipped = min(len(data), 2 + self._left[index])
                self._left[index] -= skipped
                self._given += data[:skipped]
                data = data[skipped:]
                if self._left[index] == -2:
                    # the sum is over the fork and two bytes of zero in the place of the sum
                    self._check(binascii.crc_hqx(b"\0\0", self._sums[index]))
                    self._stage += 1
