"""One compressed stream inside an archive: bounded output, a running CRC, and what was decoded before an error."""

from __future__ import annotations

import zlib
from collections.abc import Generator

from icapscan.findings import Reason
from icapscan.limits import KIB
from icapscan.unwrap.gate import Gate, Stop
from icapscan.unwrap.streams import Broken, Buffer, Stream, TooLarge

PIECE = 64 * KIB
"""Input given to a decompressor at once: what it does not take is copied."""
BLOCK = 4 * KIB
"""The same where a failed step cannot be taken back: what the last block had given before the error is lost."""
_SALVAGE_SIZES = (4096, 64, 1)


class Unpacker:
    """Drives one `Stream`. `run` yields output and returns how much input was used; raises `Stop`."""

    __slots__ = ("_gate", "_stream", "block", "crc", "eof", "size", "used")

    def __init__(self, stream: Stream, gate: Gate) -> None:
        self._stream = stream
        self._gate = gate
        self.block = PIECE if stream.copy() is not None else BLOCK
        """Give whole blocks, counted from the start, so that any split of the input gives the same output."""
        self.eof = False
        """The stream has ended by itself."""
        self.size = 0
        """Bytes of output so far."""
        self.used = 0
        """Bytes of input so far; after damage those before it, where a failed step can be taken back."""
        self.crc = 0
        """CRC-32 of the output so far."""

    def run(self, data: Buffer) -> Generator[bytes, None, int]:
        """Decode ``data``; returns how many of its bytes belong to the stream."""
        view = memoryview(data)
        for at in range(0, len(view), self.block):
            piece = bytes(view[at : at + self.block])
            left = yield from self._piece(piece)
            self.used += len(piece) - left
            if self.eof:
                return at + len(piece) - left
        return len(view)

    def flush(self) -> Generator[bytes, None, None]:
        """No more input: what the stream still holds back."""
        yield from self._piece(b"")

    def _piece(self, data: Buffer) -> Generator[bytes, None, int]:
        stream, whole, sent = self._stream, data, self.size
        before = stream.copy()
        while True:
            limit = self._gate.room()
            try:
                out, data = stream.step(data, limit)
            except TooLarge as error:
                self._gate.stop(str(error))
            except Broken as error:
                if before is not None:
                    rest = yield from self._salvage(before, whole, self.size - sent)
                    self.used += len(whole) - len(rest)
                raise Stop(Reason.MALFORMED, f"The compressed data is damaged: {error}.") from None
            if out:
                yield from self._count(out)
            if stream.eof:
                self.eof = True
                return len(data)
            if not data and len(out) < limit:
                return 0

    def _count(self, out: bytes) -> Generator[bytes, None, None]:
        self.size += len(out)
        self.crc = zlib.crc32(out, self.crc)
        within = self._gate.took(len(out))
        yield out
        if not within:
            self._gate.stop()

    def _salvage(self, stream: Stream, data: Buffer, sent: int) -> Generator[bytes, None, Buffer]:
        """What a failed step had decoded before the error: again from a copy, with less and less input at once.

        The first ``sent`` bytes that come of it have been handed out. Returns the input from the byte on that is wrong.
        Where that is depends on the bytes alone, so it is always looked for from the start of a piece of input: a
        decompressor that stopped because its output was full has taken input ahead.
        """
        for size in _SALVAGE_SIZES:
            stream, data, sent = yield from self._advance(stream, bytes(data), sent, size)
        _, data, _ = yield from self._advance(stream, data, sent, 1, limit=1)
        return data

    def _advance(
        self, stream: Stream, data: Buffer, sent: int, size: int, limit: int = PIECE
    ) -> Generator[bytes, None, tuple[Stream, Buffer, int]]:
        """Decode ``size`` bytes at a time up to an error.

        Returns the stream before those in which it is, the input from them on, and the output of them that is known.
        """
        while data:
            before = stream.copy()
            assert before is not None
            piece, made = data[:size], 0
            try:
                while True:
                    self._gate.room()
                    out, piece = stream.step(piece, limit)
                    fresh = out[max(0, sent - made) :]
                    made += len(out)
                    if fresh:
                        yield from self._count(fresh)
                    if not piece and len(out) < limit:
                        break
            except Broken:
                return before, data, max(sent, made)
            data, sent = data[size:], max(0, sent - made)
        return stream, data, sent
