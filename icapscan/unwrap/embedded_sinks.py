"""What takes the bytes of something embedded in a text, from where it begins to where it ends."""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from typing import Protocol
from urllib.parse import unquote_to_bytes

from icapscan.findings import Reason
from icapscan.limits import KIB
from icapscan.unwrap import binhex, uu, yenc
from icapscan.unwrap.embedded_search import Found, Kind
from icapscan.unwrap.events import PartBegin, PartData, PartEnd, PartEvent, PartFailed
from icapscan.unwrap.gate import Gate
from icapscan.unwrap.names import readings
from icapscan.unwrap.openpgp import ARMORED
from icapscan.unwrap.transfer import Doubt
from icapscan.unwrap.transfer_base64 import Base64

_STEP = 64 * KIB
_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/=\r\n]")
_CLOSING = b"===="
"""The last line of what begins with begin-base64."""
_UNSURE = 8
"""Bytes that may belong together with what follows: an escape of JSON, a closing line."""
_NUMBER = re.compile(rb"0[xX][0-9a-fA-F]{1,2}|[0-9]{1,3}")
_NOT_SPELLED = {
    Kind.NUMBERS: re.compile(rb"[^0-9a-fA-FxX,\s]"),
    Kind.HEX: re.compile(rb"[^0-9a-fA-F]"),
    Kind.ESCAPES: re.compile(rb"(?:\\(?![xX]|\Z)|[^0-9a-fA-FxX\\])"),
}
_ARMOR_END = re.compile(rb"\n=|-")
"""The checksum, or the last line."""
_LAST_LINE = re.compile(rb"=(?=\r?\n)")
_BLANKS = re.compile(rb"[ \t]+")
_UU_LINES = re.compile(rb"(?:[ -`]{0,90}\r?\n)*")
_UU_END = re.compile(rb"end[ \t]{0,90}(?:\r?\n|\Z)", re.I)
_UU_LINE_MAX = 100
_LINE_MAX = 2 * KIB
"""What is longer is no line of a text; so much is held back until it is known how a line ends."""
_INDENT_MAX = 1 * KIB
"""Blanks before a line of base64."""
_NOT_HQX = re.compile(rb"[^!-r\s]|:")
_NOT_URI_BASE64 = re.compile(rb"[^A-Za-z0-9+/=%\s_\\-]")
_URI_END = re.compile(rb"[\"'<>`\s]|\)(?=[\s;\"'},<]|\Z)")


class Sink(Protocol):
    """One embedded thing. What ends it depends on its bytes only, not on how they are split."""

    def end(self, data: bytes, at: int, final: bool) -> tuple[int, int, bool]:
        """(where the bytes that are certain end, where to go on, whether it has ended there).

        While it has not ended, bytes from "where to go on" are shown again with those that follow.
        """
        ...

    def feed(self, data: bytes) -> Iterator[PartEvent]: ...

    def finish(self) -> Iterator[PartEvent]: ...


class _Part:
    """One part that begins when there is something in it."""

    __slots__ = ("_begin", "_begun", "_gate", "_key")

    def __init__(self, begin: PartBegin, gate: Gate) -> None:
        self._begin = begin
        self._key = begin.path
        self._gate = gate
        self._begun = False

    def give(self, data: bytes) -> Iterator[PartEvent]:
        if data:
            if not self._begun:
                self._begun = True
                yield self._begin
            if not self._gate.took(len(data)):
                self._gate.stop()
            yield PartData(self._key, data)

    def close(self) -> Iterator[PartEvent]:
        if self._begun:
            yield PartEnd(self._key)

    def fail(self, detail: str) -> Iterator[PartEvent]:
        if self._begun:
            yield PartFailed(self._key, Reason.MALFORMED, detail)


class _Decoder(Protocol):
    """What turns text into bytes, as `transfer` has it."""

    def feed(self, data: bytes) -> bytes: ...

    def finish(self) -> bytes: ...


class _Decoded:
    """What the sinks have in common whose text goes through one decoder into one part."""

    __slots__ = ("_part", "_stream")
    _stream: _Decoder

    def __init__(self, part: _Part, stream: _Decoder) -> None:
        self._part = part
        self._stream = stream

    def feed(self, data: bytes) -> Iterator[PartEvent]:
        return self._part.give(self._stream.feed(data))

    def finish(self) -> Iterator[PartEvent]:
        yield from self._part.give(self._stream.finish())
        yield from self._part.close()


class UuSink(_Decoded):
    """Lines of uuencoded text, up to ``end`` or the first line that is none."""

    __slots__ = ()

    def __init__(self, part: _Part) -> None:
        super().__init__(part, uu.Uuencode())

    def end(self, data: bytes, at: int, final: bool) -> tuple[int, int, bool]:
        found = _UU_LINES.match(data, at)
        stop = found.end() if found else at
        line_end = data.find(b"\n", stop, stop + _UU_LINE_MAX)
        if line_end < 0 and len(data) - stop < _UU_LINE_MAX and not final:
            return stop, stop, False
        last = _UU_END.match(data, stop)
        if last is not None:
            return stop, last.end(), True
        cut = final and line_end < 0 and len(data) - stop < _UU_LINE_MAX  # the last line, without its end
        return (len(data), len(data), True) if cut else (stop, stop, True)


class YencSink:
    """yEnc up to ``=yend``, whatever is in it."""

    __slots__ = ("_part", "closed", "stream")

    def __init__(self, part: _Part, unstuff: bool) -> None:
        self._part = part
        self.stream = yenc.YEnc(unstuff)
        self.closed = False

    def end(self, data: bytes, at: int, final: bool) -> tuple[int, int, bool]:
        stop = data.find(yenc.END, at)
        if stop >= 0:
            most = stop + _LINE_MAX
            line_end = data.find(b"\n", stop + 1, most)
            if line_end < 0 and not final and len(data) < most:
                return stop, stop, False
            self.closed = True
            return stop, line_end + 1 if line_end >= 0 else min(len(data), most), True
        keep = len(data) if final else max(at, len(data) - len(yenc.END))
        return keep, keep, final

    def feed(self, data: bytes) -> Iterator[PartEvent]:
        return self._part.give(self.stream.feed(data))

    def finish(self) -> Iterator[PartEvent]:
        yield from self._part.give(self.stream.finish())
        yield from self._part.close()


class BinHexSink:
    """BinHex up to its closing colon: one part for each fork that is not empty."""

    __slots__ = ("_forks", "_gate", "_key", "_stream")

    def __init__(self, key: str, gate: Gate) -> None:
        self._key = key
        self._gate = gate
        self._stream = binhex.BinHex()
        self._forks: dict[binhex.Fork, _Part] = {}

    def end(self, data: bytes, at: int, final: bool) -> tuple[int, int, bool]:
        found = _NOT_HQX.search(data, at)
        if found is None:
            return len(data), len(data), final
        return found.start(), found.end() if found[0] == b":" else found.start(), True

    def feed(self, data: bytes) -> Iterator[PartEvent]:
        return self._give(self._stream.feed(data))

    def finish(self) -> Iterator[PartEvent]:
        yield from self._give(self._stream.finish())
        whole = self._stream.complete and not self._stream.damaged
        for part in self._forks.values():
            yield from part.close() if whole else part.fail("The BinHex file is cut off, or a checksum is wrong.")

    def _give(self, pieces: Iterator[tuple[binhex.Fork, bytes]]) -> Iterator[PartEvent]:
        for fork, data in pieces:
            part = self._forks.get(fork)
            if part is None:
                key = self._key if fork is binhex.Fork.DATA else f"{self._key}-resource"
                names = readings(self._stream.name)
                begin = PartBegin(key, names[0] if names else None, names=tuple(names[1:]))
                part = self._forks[fork] = _Part(begin, self._gate)
            yield from part.give(data)


class Base64Sink(_Decoded):
    """base64 in a text: lines, or a string in a script. Ends with the first thing that is none, or where `to_padding`
    is set with the padding at the end of a line."""

    __slots__ = ("_line_start", "_to_padding")
    _stream: Base64

    def __init__(self, part: _Part, to_padding: bool = False) -> None:
        super().__init__(part, Base64())
        self._to_padding = to_padding
        self._line_start = True
        """What is shown next begins a line; at first, no line of what is taken stands before it."""

    @property
    def padded(self) -> bool:
        """There was padding with more behind it."""
        return Doubt.PADDING in self._stream.doubts

    def end(self, data: bytes, at: int, final: bool) -> tuple[int, int, bool]:
        stop, ended = self._end(data, at, final)
        last = self._last(data, at, stop)
        if last >= 0:
            return last, last, True
        if stop > at:
            self._line_start = data[stop - 1] == ord("\n")
        return stop, stop, ended

    def _last(self, data: bytes, at: int, stop: int) -> int:
        """Behind the padding or the line that ends it before ``stop``; -1 where there is none."""
        if self._to_padding:
            padding = _LAST_LINE.search(data, at, stop + 2)
            return padding.end() if padding is not None and padding.end() <= stop else -1
        closing = data.find(_CLOSING, at, stop)
        while closing >= 0:
            line_start = self._line_start if closing == at else data[closing - 1 : closing] == b"\n"
            if line_start and data[closing + 4 : closing + 5] in (b"\r", b"\n"):
                return closing + len(_CLOSING)
            closing = data.find(_CLOSING, closing + 1, stop)
        return -1

    def _end(self, data: bytes, at: int, final: bool) -> tuple[int, bool]:
        """Where what is certain ends, and whether all of it does."""
        found = _NOT_BASE64.search(data, at)
        while found is not None and found[0] in b" \t\\":
            # lines may be indented; in JSON and scripts "\/" and "\n" stand for themselves
            if found[0] != b"\\":
                if found.start() == at or data[found.start() - 1 : found.start()] != b"\n":
                    break
                blanks = _BLANKS.match(data, found.start())  # all at once: there may be a lot of them
                behind = blanks.end() if blanks else found.end()
                if behind - found.start() > _INDENT_MAX:
                    break
                found = _NOT_BASE64.search(data, behind)
                continue
            if found[0] == b"\\" and data[found.end() : found.end() + 1] not in (b"/", b"n", b"r", b""):
                break
            found = _NOT_BASE64.search(data, found.end())
        if found is None:
            return (len(data), True) if final else self._certain(data, at)
        if len(data) - found.start() < 2 and not final:
            return self._certain(data, at)
        line = data.rfind(b"\n", at, found.start()) + 1
        # A line with something else in it is text, unless what follows may well end a string.
        text = line > at and found.start() - line <= _LINE_MAX and found[0] not in b"\"'`<)\\&;,-"
        return line if text else found.start(), True

    @staticmethod
    def _certain(data: bytes, at: int) -> tuple[int, bool]:
        """All but the last line, which may turn out to be text; of one that is too long for that, all but its end."""
        line = data.rfind(b"\n", at)
        if line < 0 or len(data) - line > _LINE_MAX + _UNSURE:
            line = max(at, len(data) - _UNSURE)
            line -= line > at and data[line - 1] == ord("\\")
        return line, False

    def feed(self, data: bytes) -> Iterator[PartEvent]:
        if b"\\" in data:
            data = data.replace(b"\\n", b"\n").replace(b"\\r", b"\r").replace(b"\\", b"")
        return super().feed(data)


class OpenPgpSink(_Decoded):
    """An armored message (RFC 9580 6.2) up to its last line: a part that is opened as a message in turn."""

    __slots__ = ()

    def __init__(self, part: _Part) -> None:
        super().__init__(part, Base64())

    def end(self, data: bytes, at: int, final: bool) -> tuple[int, int, bool]:
        found = _ARMOR_END.search(data, at)
        if found is not None:
            return found.start(), found.start(), True
        keep = len(data) if final else max(at, len(data) - 1)
        return keep, keep, final


class SpelledSink:
    """Bytes as numbers, hexadecimal digits or escapes, up to the first thing that is none of them."""

    __slots__ = ("_kind", "_part", "_pending")

    def __init__(self, part: _Part, kind: Kind) -> None:
        self._part = part
        self._kind = kind
        self._pending = b""

    def end(self, data: bytes, at: int, final: bool) -> tuple[int, int, bool]:
        found = _NOT_SPELLED[self._kind].search(data, at)
        if found is None:
            return len(data), len(data), final
        return found.start(), found.start(), True

    def feed(self, data: bytes) -> Iterator[PartEvent]:
        # the last one may go on
        if self._kind is Kind.NUMBERS:
            data = self._pending + data
            comma = data.rfind(b",")
            cut = max(comma, 0) if len(data) - comma < _STEP else len(data)
        else:
            data = self._pending + data.translate(None, b"\\xX")
            cut = len(data) & ~1
        self._pending = data[cut:]
        return self._part.give(self._bytes(data[:cut]))

    def finish(self) -> Iterator[PartEvent]:
        yield from self._part.give(self._bytes(self._pending))
        yield from self._part.close()

    def _bytes(self, text: bytes) -> bytes:
        """Whole numbers, or digits; half a byte is none."""
        if self._kind is Kind.NUMBERS:
            numbers = (int(one[2:], 16) if one[:2] in (b"0x", b"0X") else int(one) for one in _NUMBER.findall(text))
            return bytes(number & 255 for number in numbers)
        return binascii.unhexlify(text[: len(text) & ~1])


class UriSink:
    """The data of a ``data:`` URI."""

    __slots__ = ("_base64", "_part", "_pattern", "_pending")

    def __init__(self, part: _Part, coded: bool) -> None:
        self._part = part
        self._base64 = Base64() if coded else None
        self._pattern = _NOT_URI_BASE64 if coded else _URI_END
        self._pending = b""

    def end(self, data: bytes, at: int, final: bool) -> tuple[int, int, bool]:
        found = self._pattern.search(data, at)
        if found is not None and (final or found.end() < len(data)):
            return found.start(), found.start(), True
        keep = len(data) if final else max(at, len(data) - 1)
        return keep, keep, final

    def feed(self, data: bytes) -> Iterator[PartEvent]:
        data = self._pending + data
        cut = data.rfind(b"%", max(0, len(data) - 2))
        cut = cut if cut >= 0 else len(data)
        self._pending = data[cut:]
        return self._give(data[:cut])

    def finish(self) -> Iterator[PartEvent]:
        yield from self._give(self._pending)
        if self._base64 is not None:
            yield from self._part.give(self._base64.finish())
        yield from self._part.close()

    def _give(self, data: bytes) -> Iterator[PartEvent]:
        data = unquote_to_bytes(data) if b"%" in data else data
        return self._part.give(self._base64.feed(data) if self._base64 is not None else data)


def sink(found: Found, key: str, gate: Gate, unstuff: bool = False, to_padding: bool = False) -> Sink:
    """What takes the thing that was found."""
    names = readings(found.name.strip(b' \t"')) if found.name else []
    media_type = found.media_type.decode("latin-1").strip().lower() or None
    if found.kind is Kind.OPENPGP:
        media_type = ARMORED
    part = _Part(PartBegin(key, names[0] if names else None, media_type, names=tuple(names[1:])), gate)
    if found.kind is Kind.UUENCODE:
        return UuSink(part)
    if found.kind is Kind.YENC:
        return YencSink(part, unstuff)
    if found.kind is Kind.BINHEX:
        return BinHexSink(key, gate)
    if found.kind in (Kind.DATA_URI, Kind.PERCENT):
        return UriSink(part, found.kind is Kind.DATA_URI)
    if found.kind in _NOT_SPELLED:
        return SpelledSink(part, found.kind)
    if found.kind is Kind.OPENPGP:
        return OpenPgpSink(part)
    return Base64Sink(part, to_padding)
