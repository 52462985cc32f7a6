"""One content coding of a body: finds out whether it was applied at all, strings its streams together, keeps what
was decoded before an error, and lets through what follows the end.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator

from msgspec import Struct

from icapscan.findings import Reason
from icapscan.limits import KIB
from icapscan.unwrap.gate import Gate, Stop
from icapscan.unwrap.streams import Broken, Buffer, Opener, Stream, TooLarge

HEAD_MAX = 64 * KIB
"""Input that is kept while a coding without a magic number has produced nothing, to try another reading of it."""
SEARCH = 64
"""Bytes at the start of a body among which a magic number is looked for."""
PIECE = 64 * KIB
"""Input given to a decompressor at once: what it does not take is copied."""
_SALVAGE_SIZES = (4096, 64, 1)

Rest = Generator[bytes, None, Buffer]
"""Yields decoded bytes, returns the input that is left."""


class Coding(Struct, frozen=True):
    """What there is to know about one coding."""

    name: str
    openers: Callable[[Buffer], tuple[Opener, ...]]
    """From the first bytes of a stream, the readings to try in order; empty: these bytes are no such stream."""
    magic: int
    """Bytes that ``openers`` needs."""
    search: bytes = b""
    """A magic number that is looked for a little further on when it is not at the start."""
    sure: bool = False
    """First bytes that match are proof: an error after them is damage, not plain content under a wrong label."""


class Layer:
    """One coding being undone. `decode` and `finish` yield decoded bytes and raise `Stop`."""

    __slots__ = (
        "_coding", "_final", "_gate", "_head", "_readings", "_sent", "_stream", "applied", "doubt", "ended", "streams",
    )  # fmt: skip

    def __init__(self, coding: Coding, gate: Gate) -> None:
        self._coding = coding
        self._gate = gate
        self._stream: Stream | None = None
        self._readings: tuple[Opener, ...] = ()
        self._head: bytearray | None = bytearray()
        """All input of the current stream so far, while it is short enough to be read again."""
        self._sent = 0
        """Output of the current stream so far."""
        self._final = False
        """No more input will come."""
        self.applied: bool | None = None
        """Whether the coding was applied; None while that is open. When it was not, everything passes through."""
        self.ended = False
        """The coding has ended; what still comes passes through."""
        self.streams = 0
        """Streams that are complete."""
        self.doubt: str | None = None
        """Something that makes the whole body malformed although it could be decoded."""

    @property
    def name(self) -> str:
        """The token of the coding."""
        return self._coding.name

    def decode(self, data: Buffer) -> Iterator[bytes]:
        """More input."""
        view = memoryview(data)
        for at in range(0, len(view), PIECE):
            yield from self._decode(view[at : at + PIECE])

    def finish(self) -> Iterator[bytes]:
        """The input ended."""
        self._final = True
        if self._stream is None and self._head:
            head, self._head = bytes(self._head), bytearray()
            yield from self._decode(head)
        if self._stream is None:
            return
        if self._sent or self._coding.sure:
            raise Stop(Reason.MALFORMED, f"The {self.name} content is cut short.")
        yield from self._give_up()

    def _decode(self, piece: Buffer) -> Iterator[bytes]:
        while piece:
            if self.applied is False or self.ended:
                yield bytes(piece)
                return
            if self._stream is None:
                piece = self._open(piece)
            else:
                if self._head is not None:
                    self._keep(piece)
                piece = yield from self._run(piece)

    # Streams

    def _open(self, piece: Buffer) -> Buffer:
        """Collect the first bytes of a stream and choose how to read it; returns the input to go on with."""
        assert self._head is not None
        self._head += piece
        if self.streams and not self._head.strip(b"\0"):
            self._head.clear()  # padding after a stream, as gzip(1) ignores it
            return b""
        if self.streams:
            self._head = bytearray(self._head.lstrip(b"\0"))
        head = bytes(self._head)
        if len(head) < self._coding.magic and not self._final:
            return b""
        self._readings = self._coding.openers(head)
        if not self._readings:
            return self._no_stream(head)
        if self._coding.sure:
            self.applied = True
        self._head = bytearray()
        self._start()
        return head

    def _no_stream(self, head: bytes) -> Buffer:
        if self.streams:
            self.ended = True
            self._head = None
            return head
        search = self._coding.search
        if search and len(head) < SEARCH and not self._final:
            return b""
        at = head.find(search, 0, SEARCH) if search else -1
        if at >= 0:
            self.doubt = f"There is something before the {self.name} content."
            self._head = bytearray()
            return head[at:]
        self.applied = False
        self._head = None
        return head

    def _start(self) -> None:
        self._stream = self._readings[0]()
        self._readings = self._readings[1:]
        self._sent = 0

    def _keep(self, piece: Buffer) -> None:
        """Keep input for another reading, as long as it is short."""
        assert self._head is not None
        if len(self._head) < HEAD_MAX:
            self._head += piece
        elif self._sent or self._coding.sure:  # a bzip2 block may take 900 kB before it gives anything
            self._head = None
        else:
            raise Stop(Reason.MALFORMED, f"The {self.name} content never begins.")

    def _run(self, data: Buffer) -> Rest:
        """Decode with the current stream; returns the input after its end."""
        stream = self._stream
        assert stream is not None
        while True:
            limit = self._gate.room()
            before = stream.copy()
            try:
                out, data = stream.step(data, limit)
            except TooLarge as error:
                self._gate.stop(str(error))
            except Broken as error:
                return (yield from self._broken(error, before, data))
            if out:
                yield from self._count(out)
            if stream.eof:
                self._end_stream()
                return data
            if not data and len(out) < limit:
                return b""

    def _end_stream(self) -> None:
        self.applied = True
        self.streams += 1
        self._stream = None
        self._head = bytearray()

    # Errors

    def _broken(self, error: Broken, before: Stream | None, data: Buffer) -> Rest:
        """Try another reading, or save what the failed call had decoded; returns input to go on with."""
        if before is not None:
            yield from self._salvage(before, data)
        elif self._head is not None:
            rest = yield from self._replay()
            if self._stream is None:
                return rest
        if self._sent:
            raise Stop(Reason.MALFORMED, f"The {self.name} content is damaged: {error}.")
        if self._readings and self._head is not None:
            head = bytes(self._head)
            self._start()
            return (yield from self._run(head))
        if self._coding.sure:
            raise Stop(Reason.MALFORMED, f"The {self.name} content is damaged: {error}.")
        yield from self._give_up()
        return b""

    def _salvage(self, stream: Stream, data: Buffer) -> Iterator[bytes]:
        """What a failed step had decoded before the error: again from a copy, with less and less input at once.

        Less input at once finds the byte that is wrong (it may be the last of a checksum); with that byte alone, less
        output at once gives what stood before the error in the same byte.
        """
        for size in _SALVAGE_SIZES:
            stream, data = yield from self._advance(stream, bytes(data), size, PIECE)
        yield from self._advance(stream, data, 1, 1)

    def _advance(
        self, stream: Stream, data: Buffer, size: int, limit: int
    ) -> Generator[bytes, None, tuple[Stream, Buffer]]:
        """Decode ``size`` bytes at a time up to an error; returns the stream before it and the input from there on."""
        while data:
            piece, rest = data[:size], data[size:]
            while True:
                self._gate.room()
                before = stream.copy()
                assert before is not None
                try:
                    out, left = stream.step(piece, limit)
                except Broken:
                    return before, data[-len(piece) - len(rest) :]
                if out:
                    yield from self._count(out)
                piece = left
                if not piece and len(out) < limit:
                    break
            data = rest
        return stream, data

    def _replay(self) -> Rest:
        """The same from the start of a short stream, byte by byte, for libraries without a copy.

        Returns the input after the end of the stream, if it turns out to have one.
        """
        assert self._head is not None and self._stream is not None
        head, stream, seen = bytes(self._head), type(self._stream)(), 0
        for at in range(len(head)):
            data: Buffer = head[at : at + 1]
            try:
                while True:
                    limit = self._gate.room()
                    out, data = stream.step(data, limit)
                    fresh = out[max(0, self._sent - seen) :]
                    seen += len(out)
                    if fresh:
                        yield from self._count(fresh)
                    if stream.eof:
                        self._end_stream()
                        return head[at + 1 :]
                    if not data and len(out) < limit:
                        break
            except (Broken, TooLarge):
                break
        return b""

    def _give_up(self) -> Iterator[bytes]:
        """The current stream is none and gave nothing: the body, or what follows its end, passes through as it is."""
        head = bytes(self._head or b"")
        self._stream, self._head = None, None
        if self.streams:
            self.ended = True
        else:
            self.applied = False
        if head:
            yield head

    def _count(self, out: bytes) -> Iterator[bytes]:
        """Hand out ``out``; then stop if it was more than the budget had."""
        self.applied = True
        self._sent += len(out)
        within = self._gate.took(len(out))
        yield out
        if not within:
            self._gate.stop()
