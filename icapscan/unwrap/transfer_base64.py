"""base64 (RFC 2045 6.8) in every reading that some reader has of it."""

from __future__ import annotations

import binascii
import enum
import re

import pybase64

from icapscan.limits import KIB
from icapscan.unwrap.transfer import Doubt, Transfer


class Base64Reading(enum.Enum):
    """How a reader of base64 takes what RFC 2045 6.8 leaves open or forbids."""

    LENIENT = "lenient"
    """Skip what is not in the alphabet; padding ends a run and the next one begins at once."""
    STOP_AT_PADDING = "stop-at-padding"
    IGNORE_PADDING = "ignore-padding"
    STOP_AT_JUNK = "stop-at-junk"
    URL_SAFE = "url-safe"
    CLEAN_LINES = "clean-lines"
    """Leave out lines with characters outside the alphabet, and restart at each line."""
    LINE_COMMENTS = "line-comments"
    """Leave out what stands on a line from the first such character on."""
    LINE_QUADS = "line-quads"
    """Of each line, only whole quads."""
    SKIP_FIRST = "skip-first"
    """Leave out the first line that is not blank."""
    UNTIL_BLANK = "until-blank"
    """Only what stands before the first blank line."""
    AS_TEXT = "as-text"
    """Nothing is decoded, line ends are left out: what Python's library gives where the last quad has one character."""


_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_SPACE = b"\r\n \t"
_JUNK = bytes(code for code in range(256) if code not in _ALPHABET and code != ord("="))
_JUNK_OR_PAD = _JUNK + b"="
_LETTER = re.compile(rb"[A-Za-z0-9+/]")
_NOT_SPACE_JUNK = re.compile(rb"[^A-Za-z0-9+/=\s]")
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_LINE_MAX = 64 * KIB
_FAST = 1 * KIB
"""Bytes from which on it is worth looking whether lines are even."""
_LINE_MIN = 5
_LAST = tuple(re.compile(rb"(?:[A-Za-z0-9+/][\r\n]{0,2}){%d}\Z" % count) for count in range(4))
"""The last so many characters of the alphabet."""


class Base64:
    """base64 (RFC 2045 6.8), decoded leniently across lines."""

    __slots__ = ("_at_pad", "_junk", "_pads", "_pending", "_stopped", "doubts", "reading")

    def __init__(self, reading: Base64Reading = Base64Reading.LENIENT) -> None:
        self.doubts: set[Doubt] = set()
        self.reading = reading
        self._pending = b""
        """Less than a quad."""
        self._pads = 0
        """Padding characters seen since the last character of the alphabet."""
        self._at_pad = 0
        """Characters of the quad that this padding stands behind."""
        self._stopped = False
        self._junk = _JUNK_OR_PAD if reading is Base64Reading.IGNORE_PADDING else _JUNK

    def feed(self, data: bytes) -> bytes:
        if self._stopped:
            return b""
        if self.reading is not Base64Reading.LENIENT or self._pads:
            return self._careful(data)
        if len(data) > _FAST:
            out = self._even_lines(data)
            if out is not None:
                return out
        text = self._pending + data.translate(None, _SPACE)
        whole = len(text) & ~3
        try:
            out = pybase64.b64decode(text[:whole], validate=True)
        except binascii.Error:
            return self._careful(data)
        if text[whole - 1 : whole] == b"=":
            self._pads = 2 if text[whole - 2 : whole] == b"==" else 1
            self._at_pad = 4 - self._pads
        self._pending = b""
        rest = text[whole:]
        if not rest:
            return out
        if self._pads or rest.translate(None, _ALPHABET):
            return out + self._careful(rest)
        self._pending = rest
        return out

    def _even_lines(self, data: bytes) -> bytes | None:
        """Decode lines of one length, with nothing else in them; None, and nothing done, for anything else.

        The library leaves out what is not in the alphabet, without telling, but faster than we could. The number of
        bytes that it gives tells whether the line ends that we know of were all that it left out.
        """
        first = data.find(b"\n")
        stride = data.find(b"\n", first + 1) - first
        if first < 0 or stride < _LINE_MIN or b"=" in data:
            return None
        line_ends = data[first::stride]
        blanks = len(line_ends)
        before = data[(first - 1) % stride :: stride]
        if before[:1] == b"\r":
            blanks += len(before)
            if before.strip(b"\r"):
                return None
        if line_ends.strip(b"\n"):
            return None
        count = len(self._pending) + len(data) - blanks
        left = count & 3
        cut = len(data)
        if left:
            tail = _LAST[left].search(data, cut - 16)
            if tail is None:
                return None
            cut = tail.start()
        try:
            out = pybase64.b64decode(self._pending + data[:cut])
        except binascii.Error:
            return None
        if len(out) * 4 != (count - left) * 3:
            return None
        self._pending = data[cut:].translate(None, _SPACE)
        return out

    def finish(self) -> bytes:
        self._settle(False)
        pending, self._pending = self._pending, b""
        if pending:
            self.doubts.add(Doubt.CUT)
            if _leftover(pending):
                self.doubts.add(Doubt.TRUNCATED)
        return _quad(pending)

    def _careful(self, data: bytes) -> bytes:
        reading = self.reading
        if reading is Base64Reading.URL_SAFE:
            data = data.translate(_URL_SAFE)
        elif reading is Base64Reading.STOP_AT_PADDING:
            data = self._until_stop(data)
        kept = data.translate(None, self._junk)
        stop = False
        junk = _NOT_SPACE_JUNK.search(data) if len(kept) != len(data) else None
        if junk is not None:
            stop = reading is Base64Reading.STOP_AT_JUNK
            if stop:
                data = data[: junk.end()]
                kept = data.translate(None, self._junk)
            self.doubts.add(Doubt.JUNK)
            if b"-" in data or b"_" in data:
                self.doubts.add(Doubt.URL_SAFE)
        pending, self._pending = self._pending, b""
        out = self._runs(pending + kept)
        self._stopped = self._stopped or stop
        return out

    def _until_stop(self, data: bytes) -> bytes:
        """``data`` up to the character behind padding at which this reading stops: what follows raises no doubt."""
        pad = 0 if self._pads else data.find(b"=")
        more = _LETTER.search(data, pad) if pad >= 0 else None
        return data[: more.end()] if more is not None else data

    def _runs(self, text: bytes) -> bytes:
        """Characters of the alphabet and padding only; what is pending is at the start."""
        out: list[bytes] = []
        runs = text.split(b"=")
        last = len(runs) - 1
        for index, run in enumerate(runs):
            if run:
                self._settle(True)
                if self._stopped:
                    return b"".join(out)
            whole = len(run) & ~3
            if whole:
                out.append(pybase64.b64decode(run[:whole]))
            if index == last:
                self._pending = run[whole:]
            else:
                if run:
                    self._at_pad = len(run) & 3
                    out.append(_quad(run[whole:]))
                self._pads += 1
        return b"".join(out)

    def _settle(self, more: bool) -> None:
        """A run of padding is over; ``more`` characters follow it."""
        if not self._pads:
            return
        if more or self._at_pad + self._pads != 4:
            self.doubts.add(Doubt.PADDING)
            if more and self._at_pad == 1:
                self.doubts.add(Doubt.BROKEN)
        if more and self.reading is Base64Reading.STOP_AT_PADDING:
            self._stopped = True
        self._pads = self._at_pad = 0


def _quad(rest: bytes) -> bytes:
    """What two or three characters of a quad are worth."""
    return pybase64.b64decode(rest + b"=" * (4 - len(rest))) if len(rest) > 1 else b""


def _leftover(rest: bytes) -> bool:
    """Whether one to three characters hold bits that the bytes before them do not use: more was to come."""
    return len(rest) == 1 or _ALPHABET.index(rest[-1]) & (15 if len(rest) == 2 else 3) != 0


class AsText:
    """Text that was called base64, its line ends left out."""

    __slots__ = ("doubts",)

    def __init__(self) -> None:
        self.doubts: set[Doubt] = set()

    def feed(self, data: bytes) -> bytes:
        return data.translate(None, b"\r\n")

    def finish(self) -> bytes:
        return b""


class Base64Lines:
    """base64 in the readings that go by lines. Only ever used for what the first reading had doubts about."""

    __slots__ = ("_begun", "_inner", "_line", "_reading", "doubts")

    def __init__(self, reading: Base64Reading) -> None:
        self.doubts: set[Doubt] = set()
        self._reading = reading
        self._line = b""
        self._begun = False
        """A line that is not blank was seen."""
        self._inner = Base64()

    def feed(self, data: bytes) -> bytes:
        lines = (self._line + data).split(b"\n")
        self._line = lines.pop()
        if len(self._line) > _LINE_MAX:  # no base64 line of a mail; the other readings have it
            lines.append(self._line)
            self._line = b""
        return b"".join(map(self._take, lines))

    def finish(self) -> bytes:
        line, self._line = self._line, b""
        return self._take(line) + self._inner.finish()

    def _take(self, line: bytes) -> bytes:
        line = line.strip()
        begun, self._begun = self._begun, self._begun or bool(line)
        match self._reading:
            case Base64Reading.UNTIL_BLANK:
                if begun and not line:
                    self._reading = Base64Reading.STOP_AT_JUNK  # nothing more
                return self._inner.feed(line)
            case Base64Reading.SKIP_FIRST:
                return self._inner.feed(line) if begun else b""
            case Base64Reading.LINE_COMMENTS:
                return self._inner.feed(_NOT_CLEAN.split(line, maxsplit=1)[0])
            case Base64Reading.LINE_QUADS:
                kept = line.translate(None, _JUNK)
                return self._inner.feed(kept[: len(kept) & ~3])
            case Base64Reading.CLEAN_LINES:
                return self._restart() + self._inner.feed(line) if _LINE.fullmatch(line) else b""
            case _:
                return b""

    def _restart(self) -> bytes:
        out = self._inner.finish()
        self._inner = Base64()
        return out


_LINE = re.compile(rb"[A-Za-z0-9+/]+={0,3}")
_NOT_CLEAN = re.compile(rb"[^A-Za-z0-9+/=]")
_BY_LINE = frozenset(
    {
        Base64Reading.CLEAN_LINES,
        Base64Reading.LINE_COMMENTS,
        Base64Reading.LINE_QUADS,
        Base64Reading.SKIP_FIRST,
        Base64Reading.UNTIL_BLANK,
    }
)


def base64(reading: Base64Reading) -> Transfer:
    """A decoder of base64 in this reading."""
    if reading is Base64Reading.AS_TEXT:
        return AsText()
    if reading in _BY_LINE:
        return Base64Lines(reading)
    return Base64(reading)
