"""The chunked transfer coding as ICAP uses it: sizes, extensions, ``ieof``, trailers (RFC 3507 4.4, 4.5; RFC 9112 7.1).

Data is passed on as it arrives and never gathered by its declared size.
"""

from __future__ import annotations

import enum
import re
from functools import lru_cache

from icapscan.errors import ProtocolError
from icapscan.wire.fields import TOKEN, Fields, parse_fields
from icapscan.wire.icap_events import BodyChunk, BodyEnd, Event
from icapscan.wire.limits import WireLimits

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})((?:[ \t]*;.*|[ \t]*))")
_EXTENSION = re.compile(
    rb"[ \t]*;[ \t]*(" + TOKEN + rb")(?:[ \t]*=[ \t]*(" + TOKEN + rb'|"(?:[^"\\\x00\r\n]|\\[^\x00\r\n])*"))?'
)
_HEX = re.compile(rb"[0-9A-Fa-f]{1,8}")
_WHOLE_LAST = b"0\r\n\r\n"
_WHOLE_IEOF = b"0; ieof\r\n\r\n"
_WHOLE_MOST = 256
"""Chunks of a body that is read in one go."""
_BLANK = re.compile(rb"[ \t]*")
_LARGEST = 0x7FFF_FFFF_FFFF_FFFF
_COPY_BELOW = 16 * 1024
"""A short slice is cheaper copied than viewed; a long one is viewed, so that no body byte is copied in here."""
_NEVER_TRAILERS = frozenset({b"content-length", b"transfer-encoding", b"encapsulated", b"trailer", b"preview"})
"""Fields that frame a message mean nothing behind it and are dropped (PROTOCOL D85)."""


class _Step(enum.IntEnum):
    SIZE = 0
    DATA = 1
    CRLF = 2
    TRAILERS = 3


_SIZE_STEP, _DATA_STEP, _CRLF_STEP, _TRAILERS_STEP = _Step


class ChunkReader:
    """Reads one chunked body; `begin` makes it ready for another (a preview and its rest count as two).

    ``allow_original`` is whether ``use-original-body`` on the last chunk means something (a 206 answer).
    """

    __slots__ = ("_allow_original", "_end", "_extensions", "_left", "_limits", "_most", "_step", "size")

    def __init__(self, limits: WireLimits) -> None:
        self._limits = limits
        self._end: BodyEnd | None = None
        self._left = 0
        self._step = _SIZE_STEP
        self._extensions = 0
        self._allow_original = False
        self._most = _LARGEST
        self.size = 0

    def begin(self, *, again: bool = False, allow_original: bool = False, most: int = _LARGEST) -> None:
        """Expect a body of ``most`` bytes at most. ``again``: it goes on after a preview, and its totals are kept."""
        self._end = None
        self._step = _SIZE_STEP
        self._allow_original = allow_original
        self._most = most
        if not again:
            self._extensions = self.size = 0

    @property
    def awaits_final_crlf(self) -> bool:
        """The zero chunk is there and nothing of its trailer section (PROTOCOL S62)."""
        return self._step is _TRAILERS_STEP

    def forgive_final_crlf(self) -> BodyEnd:
        """The end of a body whose last CRLF never came."""
        assert self._end is not None
        return self._end

    def read(self, data: bytes, at: int, events: list[Event]) -> tuple[int, BodyEnd | None]:
        """Read ``data`` from ``at`` on and append `BodyChunk` events.

        Returns how far it was read, and the end of the body when it was reached. What was not read has to be given
        again with more behind it. Raises `ProtocolError` (PROTOCOL S55-S61, D67-D85).
        """
        length = len(data)
        while True:
            step = self._step
            if step is _SIZE_STEP:
                stop = data.find(b"\r\n", at, at + self._limits.chunk_line + 2)
                if stop < 0:
                    self._check_unfinished(data, at, self._limits.chunk_line, "chunk size line")
                    return at, None
                line = data[at:stop]
                at = stop + 2
                self._left = self._read_size(line)
                if self._left:
                    self.size += self._left
                    if self.size > self._most:
                        raise ProtocolError("The preview is far longer than announced.")
                    self._step = _DATA_STEP
                else:
                    self._step = _TRAILERS_STEP
            elif step is _DATA_STEP:
                have = length - at
                if have <= 0:
                    return at, None
                left = self._left
                if have < left:
                    events.append(BodyChunk(_cut(data, at, length)))
                    self._left = left - have
                    return length, None
                events.append(BodyChunk(_cut(data, at, at + left)))
                at += left
                self._step = _CRLF_STEP
            elif step is _CRLF_STEP:
                if not data.startswith(b"\r\n", at):
                    if length - at >= 2 or (length > at and data[at] != 13):
                        raise ProtocolError("The data of a chunk is not followed by CRLF.")
                    return at, None
                at += 2
                self._step = _SIZE_STEP
            else:
                return self._read_trailers(data, at)

    def _read_size(self, line: bytes) -> int:
        match = _SIZE.fullmatch(line)
        if match is None:
            raise ProtocolError("A chunk size is not 1 to 16 hexadecimal digits.")
        size = int(match[1], 16)
        if size > _LARGEST:
            raise ProtocolError("A chunk size is out of range.")
        extensions = match[2]
        end = None
        if extensions:
            end = self._read_extensions(extensions, last=size == 0)
        if size == 0:
            self._end = end or BodyEnd()
        return size

    def _read_extensions(self, text: bytes, *, last: bool) -> BodyEnd:
        self._extensions += len(text)
        if self._extensions > self._limits.extensions + self.size // 10:
            raise ProtocolError("There are too many bytes of chunk extensions.")
        ieof = False
        original: int | None = None
        at = 0
        while match := _EXTENSION.match(text, at):
            at = match.end()
            name, value = match[1].lower(), match[2]
            if last and name == b"ieof" and value is None:
                ieof = True
            elif last and self._allow_original and name == b"use-original-body":
                original = _offset(value)
        if not _BLANK.fullmatch(text, at):
            raise ProtocolError("A chunk extension is malformed.")
        return BodyEnd(ieof=ieof, use_original_body=original)

    def _read_trailers(self, data: bytes, at: int) -> tuple[int, BodyEnd | None]:
        end = self._end
        assert end is not None
        if data.startswith(b"\r\n", at):
            return at + 2, end
        stop = data.find(b"\r\n\r\n", at, at + self._limits.trailer + 4)
        if stop < 0:
            self._check_unfinished(data, at, self._limits.trailer + 2, "trailer section", lines=True)
            return at, None
        trailers = _kept(parse_fields(data[at : stop + 2], self._limits.fields, "trailer section"))
        return stop + 4, BodyEnd(end.ieof, trailers, end.use_original_body)

    @staticmethod
    def _check_unfinished(data: bytes, at: int, most: int, what: str, *, lines: bool = False) -> None:
        """Refuse early what can no longer become right, so that nobody waits for it.

        One byte beyond ``most`` may be the CR of a line end that is not whole yet.
        """
        if len(data) - at > most + 1:
            raise ProtocolError(f"The {what} is longer than {most} bytes.")
        newline = data.find(b"\n", at)
        while newline >= 0:
            if not lines or newline == at or data[newline - 1] != 13:
                raise ProtocolError(f"The {what} holds a bare LF.")
            newline = data.find(b"\n", newline + 1)


def _cut(data: bytes, start: int, stop: int) -> bytes | memoryview:
    if stop - start < _COPY_BELOW or (start == 0 and stop == len(data)):
        return data[start:stop]
    return memoryview(data)[start:stop]


def _offset(value: bytes | None) -> int:
    if value is None or not value.isdigit() or len(value) > 19:
        raise ProtocolError("use-original-body is not a decimal offset.")
    return int(value)


def _kept(trailers: Fields) -> bytes:
    kept = [(name, value) for name, value in trailers.items() if name.lower() not in _NEVER_TRAILERS]
    return Fields.compose(kept).raw


def read_whole(data: bytes, at: int, *, ieof: bool) -> bytes | None:
    """The body whose chunks fill ``data`` from ``at`` to its very end, in the usual form; else None.

    The usual form: a few chunks, at least one, without extensions and trailers, then ``0`` or, with ``ieof``,
    ``0; ieof``. `ChunkReader` is the oracle.
    """
    last = _WHOLE_IEOF if ieof else _WHOLE_LAST
    end = len(data) - len(last)
    if not data.endswith(last):
        return None
    line = data.find(b"\r\n", at, at + 10)
    if line > 0:
        start = line + 2
        stop = start + _plain_size(data[at:line])
        if stop + 2 == end and stop != start and data.startswith(b"\r\n", stop):
            return data[start:stop]
    pieces: list[bytes] = []
    while at != end:
        line = data.find(b"\r\n", at, at + 10)
        size = _plain_size(data[at:line]) if line > 0 else 0
        start = line + 2
        at = start + size + 2
        if not size or at > end or len(pieces) == _WHOLE_MOST or not data.startswith(b"\r\n", at - 2):
            return None
        pieces.append(data[start : at - 2])
    return b"".join(pieces) if pieces else None


@lru_cache(maxsize=1024)
def _plain_size(line: bytes) -> int:
    """The size on a chunk size line without extensions, in bytes; 0 for any other line, and for the last chunk."""
    return int(line, 16) if _HEX.fullmatch(line) else 0


def encode_size(size: int) -> bytes:
    """The line before ``size`` bytes of data; never with extensions (PROTOCOL Q:ats)."""
    return b"%x\r\n" % size


def encode_last(end: BodyEnd) -> bytes:
    """The zero chunk, its trailer section and the final empty line (RFC 3507 4.5: exactly ``0; ieof``)."""
    if end.use_original_body is not None:
        start = b"0; use-original-body=%d\r\n" % end.use_original_body
    else:
        start = b"0; ieof\r\n" if end.ieof else b"0\r\n"
    return start + end.trailers + b"\r\n"
