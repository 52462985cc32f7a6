"""OpenPGP messages (RFC 9580): what is signed or packed is taken out, what is encrypted is told."""

from __future__ import annotations

import zlib
from collections.abc import Generator, Iterator

from icapscan.findings import Reason
from icapscan.store import PartStore
from icapscan.unwrap.archive_streams import Bzip2
from icapscan.unwrap.contract import Bid, Context, Evidence
from icapscan.unwrap.events import PartBegin, PartData, PartEnd, PartEvent, PartFailed
from icapscan.unwrap.gate import Stop
from icapscan.unwrap.names import readings
from icapscan.unwrap.streams import Inflate, Stream
from icapscan.unwrap.unpack import Unpacker

ARMORED = "application/pgp-message"
"""Media type of what was found in ASCII armor: no more proof is asked of it."""
_KEY, _SIGNATURE, _PASSWORD_KEY, _ONE_PASS, _PACKED, _ENCRYPTED, _LITERAL = 1, 2, 3, 4, 8, 9, 11
_LOCKED = frozenset({_KEY, _PASSWORD_KEY, _ENCRYPTED, 18, 20})
_PASSED_OVER = frozenset({_SIGNATURE, _ONE_PASS, 5, 6, 7, 10, 12, 13, 14, 17, 19, 21})
_ZIP, _ZLIB, _BZIP2 = 1, 2, 3
_PUBLIC = frozenset({1, 2, 16, 18, 25, 26})
"""Algorithms that a session key is encrypted with (9.1)."""
_DEPTH_MAX = 4
_PIECE = 64 * 1024


class _Broken(Exception):
    """Not as the standard has it. Never leaves this file."""


class _Source:
    """Bytes pulled from an iterator as they are needed."""

    __slots__ = ("_at", "_left", "_pieces")

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = b""
        self._at = 0
        """What was taken of it."""

    def some(self, most: int) -> bytes:
        """At most so many bytes; none at the end."""
        while self._at == len(self._left):
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._left, self._at = piece, 0
        start, self._at = self._at, min(self._at + most, len(self._left))
        return self._left[start : self._at]

    def exactly(self, count: int) -> bytes:
        """So many bytes. Raises `_Broken` where there are fewer."""
        data = b""
        while len(data) < count:
            piece = self.some(count - len(data))
            if not piece:
                raise _Broken
            data += piece
        return data

    def rest(self) -> Iterator[bytes]:
        """Everything that is left, in pieces of some size, however small those are that it comes in."""
        held = bytearray()
        try:
            while piece := self.some(_PIECE):
                held += piece
                if len(held) >= _PIECE:
                    yield bytes(held)
                    held.clear()
        except _Broken:
            if held:
                yield bytes(held)
            raise
        if held:
            yield bytes(held)


def _packet(source: _Source) -> tuple[int, _Source] | None:
    """The next packet: its type, and its body (4.2); None at the end."""
    head = source.some(1)
    if not head:
        return None
    if head[0] < 0x80:
        raise _Broken
    if head[0] & 0x40:
        return head[0] & 0x3F, _Source(_new_body(source))
    kind, size = head[0] >> 2 & 15, head[0] & 3
    if size == 3:
        return kind, _Source(source.rest())
    return kind, _Source(_counted(source, int.from_bytes(source.exactly(1 << size), "big")))


def _new_body(source: _Source) -> Iterator[bytes]:
    while True:
        first = source.exactly(1)[0]
        if first < 192:
            size = first
        elif first < 224:
            size = (first - 192 << 8) + source.exactly(1)[0] + 192
        elif first == 255:
            size = int.from_bytes(source.exactly(4), "big")
        else:
            size = 1 << (first & 31)
        yield from _counted(source, size)
        if not 224 <= first < 255:  # the last piece
            return


def _counted(source: _Source, size: int) -> Iterator[bytes]:
    while size:
        piece = source.some(min(size, _PIECE))
        if not piece:
            raise _Broken
        size -= len(piece)
        yield piece


class OpenPgpDecoder:
    """One message, read whole."""

    __slots__ = ("_context", "_count")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._count = 0

    def read(self, store: PartStore) -> Iterator[PartEvent]:
        """What is in the message."""
        try:
            locked = yield from self._message(_Source(bytes(piece) for piece in store.pieces()), 0)
        except _Broken:
            yield PartFailed("", Reason.MALFORMED, "The OpenPGP message is damaged.")
        except Stop as stop:
            yield PartFailed("", stop.reason, stop.detail)
        else:
            if locked:
                yield PartFailed("", Reason.ENCRYPTED, "The OpenPGP message is encrypted.")

    def _message(self, source: _Source, depth: int) -> Generator[PartEvent, None, bool]:
        """The parts in a row of packets; whether something in it is encrypted."""
        while (packet := _packet(source)) is not None:
            kind, body = packet
            if kind in _LOCKED:
                return True
            if kind == _LITERAL:
                yield from self._literal(body, counted=depth > 0)
            elif kind == _PACKED:
                if depth == _DEPTH_MAX:
                    raise Stop(Reason.OVER_LIMIT, f"An OpenPGP message is packed more than {_DEPTH_MAX} times.")
                if (yield from self._message(_Source(self._unpacked(body)), depth + 1)):
                    return True
            elif kind not in _PASSED_OVER:
                raise _Broken
            for _ in body.rest():
                self._context.gate.room()
        return False

    def _literal(self, body: _Source, *, counted: bool) -> Iterator[PartEvent]:
        """The content; ``counted``: the gate was told of it when it was unpacked."""
        body.exactly(1)
        name = body.exactly(body.exactly(1)[0])
        body.exactly(4)
        self._count += 1
        key = f"content{self._count}"
        names = readings(name) if name else []
        yield PartBegin(key, names[0] if names else None, names=tuple(names[1:]))
        try:
            for piece in body.rest():
                within = counted or self._context.gate.took(len(piece))
                yield PartData(key, piece)
                if not within:
                    self._context.gate.stop()
        except _Broken:
            yield PartFailed(key, Reason.MALFORMED, "The OpenPGP message is cut off.")
            raise
        except Stop as stop:
            yield PartFailed(key, stop.reason, stop.detail)
            raise
        yield PartEnd(key)

    def _unpacked(self, body: _Source) -> Iterator[bytes]:
        how = body.exactly(1)[0]
        if not how:
            yield from body.rest()
            return
        stream: Stream
        if how in (_ZIP, _ZLIB):
            stream = Inflate(-15 if how == _ZIP else 15)
        elif how == _BZIP2:
            stream = Bzip2()
        else:
            raise _Broken
        unpacker = Unpacker(stream, self._context.gate)
        for piece in body.rest():
            yield from unpacker.run(piece)
            if unpacker.eof:
                return
        yield from unpacker.flush()
        if not unpacker.eof:
            raise _Broken


class OpenPgpFormat:
    """Bids YES on what begins with a packet that only a message begins with, and on what stood in ASCII armor."""

    name = "openpgp"
    prefixes = tuple(
        bytes([first, second])
        for first, seconds in (
            (0x84, range(40, 256)), (0x85, range(1, 9)), (0x8C, range(4, 100)), (0xC1, range(40, 256)),
            (0xC3, range(4, 100)), (0x90, (13,)), (0xC4, (13,)), (0xA3, range(4)), (0xC8, range(256)),
        )
        for second in seconds
    )  # fmt: skip

    def bid(self, evidence: Evidence) -> Bid:
        """By the first packet."""
        if evidence.declared.media_type == ARMORED:
            return Bid.YES
        return Bid.YES if _plausible(evidence.first) else Bid.NO

    def open(self, context: Context) -> OpenPgpDecoder:
        return OpenPgpDecoder(context)


OPENPGP = OpenPgpFormat()


def _plausible(first: bytes) -> bool:
    """Whether the fields of the first packet make sense."""
    source = _Source(iter((first,)))
    try:
        packet = _packet(source)
        if packet is None:
            return False
        kind, body = packet
        head = body.exactly(10 if kind in (_KEY, _ONE_PASS) else 4)
    except _Broken:
        return False
    if kind == _KEY:
        return head[0] == 3 and head[9] in _PUBLIC
    if kind == _PASSWORD_KEY:
        return head[0] == 4 and 1 <= head[1] <= 13 and head[2] in (0, 1, 3, 4)
    if kind == _ONE_PASS:
        return head[0] == 3 and head[1] in (0, 1) and 1 <= head[3] <= 27
    if kind != _PACKED:
        return False
    if head[0] == _BZIP2:
        return head[1:] == b"BZh"
    if head[0] == _ZLIB:
        return head[1] & 15 == 8 and (head[1] << 8 | head[2]) % 31 == 0
    return head[0] == _ZIP and _begins_packet(head[1:], body)


def _begins_packet(deflated: bytes, more: _Source) -> bool:
    """Whether the first byte that comes out is one of a packet; what begins a block may take some hundred bytes."""
    unpacker, out = zlib.decompressobj(-15), b""
    try:
        while deflated and not out:
            out = unpacker.decompress(deflated, 1)
            deflated = more.some(_PIECE)
    except (zlib.error, _Broken):
        return False
    return out[:1] >= b"\x80"
