"""Where in a text something embedded begins: uuencode, yEnc, BinHex, ``data:`` URIs (RFC 2397), long base64 strings."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator

from msgspec import Struct

from icapscan.unwrap import binhex, uu, yenc

LONG = 80
"""Characters of base64 without a break that are worth decoding: EICAR has 92, a SHA-256 in hex 64."""
LONG_LINE = 56
"""Characters of base64 that are worth decoding where they are all of a line: 76 are usual, 60 and 64 occur."""
_SHORT_LINES = re.compile(rb"\s*(?:[A-Za-z0-9+/]{1,76}={0,2}\r?\n\s*){3}[A-Za-z0-9+/]{1,76}={0,2}\s*(?:\n|\Z)")
"""A text that begins like this is nothing else."""
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_CLASSES = bytes(ord("a") if code in _ALPHABET else ord(" ") for code in range(256))
_LONG_RUN = b"a" * LONG_LINE
_DULL = re.compile(rb"[0-9a-f]+|[0-9A-F]+|[a-z]+|[A-Z]+|[0-9]+|(.)\1*", re.S)
"""A hash in hex, a ruler, a word: no base64."""
_DULL_LOOK = 400
_DATA_URI = re.compile(
    rb"data:([^,;\"'<>()\s]{0,100}+)((?:;\s{0,9}(?!\s{0,9}base64)[^,;\"'<>()\s]{0,200}){0,8})(;\s{0,9}base64\s{0,9})?,",
    re.I,
)


class Kind(enum.Enum):
    """What was found; the word is the stem of the part's key."""

    UUENCODE = "uu"
    BASE64_FILE = "begin-base64-"
    YENC = "yenc"
    BINHEX = "binhex"
    DATA_URI = "data-uri"
    PERCENT = "data-text"
    BASE64 = "base64-"


class Found(Struct, frozen=True):
    """Something that begins at a place in the text."""

    kind: Kind
    at: int
    """Where its marker begins."""
    start: int
    """Where its data begins."""
    name: bytes = b""
    media_type: bytes = b""


class Search:
    """Finds what begins in one piece of text. What is not there is looked for once only."""

    __slots__ = ("_beginning", "_data", "_finders", "_limit", "_line_start", "_lower", "_next")

    def __init__(self, data: bytes, line_start: bool, limit: int, beginning: bool = True) -> None:
        self._data = data
        self._lower = data.lower()
        self._line_start = line_start
        self._beginning = beginning
        """The piece is the first of the text."""
        self._limit = limit
        """Markers behind this are for the next piece, in which they can be seen whole."""
        self._finders = (self._uu, self._yenc, self._binhex, self._uri, self._base64, self._uu_lines)
        self._next: list[Found | bool | None] = [True] * len(self._finders)

    def first(self, at: int) -> Found | None:
        """The first thing that begins at ``at`` or later."""
        best: Found | None = None
        for index, finder in enumerate(self._finders):
            known = self._next[index]
            if known is True or (isinstance(known, Found) and known.at < at):
                known = self._next[index] = finder(at)
            if isinstance(known, Found) and (best is None or known.at < best.at):
                best = known
        return best

    def _lines(self, text: bytes, marker: bytes, at: int) -> Iterator[int]:
        """Line starts where ``marker`` stands."""
        if at == 0 and self._line_start and text.startswith(marker) and self._limit > 0:
            yield 0
        marker = b"\n" + marker
        place = text.find(marker, max(0, at - 1))
        while 0 <= place < self._limit - 1:
            yield place + 1
            place = text.find(marker, place + 1)

    def _uu(self, at: int) -> Found | None:
        for place in self._lines(self._lower, b"begin", at):
            found = uu.BEGIN.match(self._data, place)
            if found is not None:
                return Found(Kind.BASE64_FILE if found["base64"] else Kind.UUENCODE, place, found.end(), found["name"])
        return None

    def _uu_lines(self, at: int) -> Found | None:
        for place in self._lines(self._data, b"M", at):
            if uu.TWO_LINES.match(self._data, place) is not None:
                return Found(Kind.UUENCODE, place, place)
        return None

    def _yenc(self, at: int) -> Found | None:
        for place in self._lines(self._data, b"=ybegin ", at):
            found = yenc.BEGIN.match(self._data, place)
            if found is not None:
                return Found(Kind.YENC, place, found.end(), found["name"] or b"")
        return None

    def _binhex(self, at: int) -> Found | None:
        for place in self._lines(self._data, b":", at):
            if binhex.BEGIN.match(self._data, place) is not None:
                return Found(Kind.BINHEX, place, place + 1)
        return None

    def _uri(self, at: int) -> Found | None:
        place = self._lower.find(b"data:", at)
        while 0 <= place < self._limit:
            found = _DATA_URI.match(self._data, place)
            if found is not None and (found[1] or found[2] or found[3]):
                return Found(Kind.DATA_URI if found[3] else Kind.PERCENT, place, found.end(), b"", found[1])
            place = self._lower.find(b"data:", place + 1)
        return None

    def _base64(self, at: int) -> Found | None:
        if at == 0 and self._beginning and _SHORT_LINES.match(self._data) is not None:
            return Found(Kind.BASE64, 0, 0)
        # In JSON a slash may be written as \/.
        data = self._data.replace(b"\\/", b"//") if b"\\/" in self._data else self._data
        classes = data.translate(_CLASSES)
        place = classes.find(_LONG_RUN, at)
        while 0 <= place < self._limit:
            end = classes.find(b" ", place)
            end = end if end >= 0 else len(classes)
            dull = _DULL.fullmatch(self._data, place, min(end, place + _DULL_LOOK)) is not None
            if not dull and (end - place >= LONG or self._whole_line(place, end)):
                return Found(Kind.BASE64, place, place)
            place = classes.find(_LONG_RUN, end)
        return None

    def _whole_line(self, start: int, end: int) -> bool:
        before = self._data[max(0, start - 20) : start].rstrip(b" \t")
        after = self._data[end : end + 3].lstrip(b"=")
        return (not before or before[-1:] in b"\r\n\"'`>") and (not after or after[:1] in b"\r\n\"'`<\\")
