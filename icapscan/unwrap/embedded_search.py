"""Where in a text something embedded begins: uuencode, yEnc, BinHex, ``data:`` URIs (RFC 2397), long base64 strings."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator

from msgspec import Struct

from icapscan.limits import KIB
from icapscan.unwrap import binhex, uu, yenc

LOOK_AHEAD = 3 * KIB
"""Text behind a marker that is waited for before it is judged: begin lines, media types of data: URIs. No pattern is
matched further than that, so that the text that happens to be there already does not matter."""
LONG = 80
"""Characters of base64 without a break that are worth decoding: EICAR has 92, a SHA-256 in hex 64."""
LOOK_BACK = 20
"""Bytes before a long line that tell whether it is a whole one."""
LONG_LINE = 56
"""Characters of base64 that are worth decoding where they are all of a line: 76 are usual, 60 and 64 occur."""
_SHORT_LINES = re.compile(rb"\s*(?:[A-Za-z0-9+/]{1,76}={0,2}\r?\n\s*){3}[A-Za-z0-9+/]{1,76}={0,2}\s*(?:\n|\Z)")
"""A text that begins like this is nothing else."""
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_IN_RUN = frozenset(bytes([code]) for code in _ALPHABET + b"\\")
_CLASSES = bytes(ord("a") if code in _ALPHABET else ord(" ") for code in range(256))
_LONG_RUN = b"a" * LONG_LINE
_DULL = re.compile(rb"[0-9a-f]+|[0-9A-F]+|[a-z]+|[A-Z]+|[0-9]+|(.)\1*", re.S)
"""A hash in hex, a ruler, a word: no base64."""
_DULL_LOOK = 400
_DULL_KINDS = (b"0123456789abcdef", b"0123456789ABCDEF", _ALPHABET[26:52], _ALPHABET[:26])
_DULL_STRETCHES = re.compile(
    rb"(?:[0-9a-f]{%(n)d}|[0-9A-F]{%(n)d}|[a-z]{%(n)d}|[A-Z]{%(n)d}|(.)\1{%(m)d})*"
    % {b"n": _DULL_LOOK, b"m": _DULL_LOOK - 1}
)
"""What is left out of a long run: stretches of this length, whole quads each, counted from where the run begins."""
_DATA_URI = re.compile(
    rb"data:([^,;\"'<>()\s]{0,100}+)((?:;\s{0,9}(?!\s{0,9}base64)[^,;\"'<>()\s]{0,200}){0,8})(;\s{0,9}base64\s{0,9})?,",
    re.I,
)

_OPENPGP = re.compile(
    rb"-----begin pgp message(?:, part [0-9/]{1,9})?-----[ \t]*\r?\n(?:[a-z]{1,20}: [^\r\n]{0,200}\r?\n){0,9}", re.I
)
"""The first lines of an armored message (RFC 9580 6.2): encrypted, or signed and packed."""


class Kind(enum.Enum):
    """What was found; the word is the stem of the part's key."""

    UUENCODE = "uu"
    BASE64_FILE = "begin-base64-"
    YENC = "yenc"
    BINHEX = "binhex"
    DATA_URI = "data-uri"
    PERCENT = "data-text"
    BASE64 = "base64-"
    OPENPGP = "openpgp"
    NUMBERS = "numbers"
    HEX = "hex"
    ESCAPES = "escapes"


_BYTE = rb"(?:0x[0-9a-f]{1,2}|[0-9]{1,3})"
_COMMA = rb"\s{0,4},\s{0,4}"
_MZ = rb"(?:77|0x4d)" + _COMMA + rb"(?:90|0x5a)"
_PK = rb"(?:80|0x50)" + _COMMA + rb"(?:75|0x4b)" + _COMMA + rb"(?:0x0?)?3"
_SPELLED_MIN = 200
"""Bytes that a script must spell one by one; tables of signatures have the first few of a program or zip."""
_SPELLED: tuple[tuple[Kind, re.Pattern[bytes], bytes, tuple[bytes, ...]], ...] = (
    (
        Kind.NUMBERS,
        re.compile(rb"(?=" + _MZ + rb"\b|" + _PK + rb"\b)(?:" + _BYTE + _COMMA + rb"){0,%d}" % _SPELLED_MIN, re.I),
        b",",
        (b"77,", b"80,", b"0x4d", b"0x50"),
    ),
    (
        Kind.ESCAPES,
        re.compile(rb"(?:\\x[0-9a-f]{2}){0,%d}" % _SPELLED_MIN, re.I),
        b"\\",
        (b"\\x4d\\x5a", b"\\x50\\x4b\\x03\\x04"),
    ),
)
"""How scripts spell the bytes of a program or zip, the character that each byte brings along, and how it begins."""
SAVES = b"createobjecturl("
"""In lower case: a script makes something out of a text and offers it as a download."""
_HEX_PROGRAM = re.compile(rb"(?:4d5a|504b0304)[0-9a-f]{%d}" % (2 * _SPELLED_MIN - 8), re.I)


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

    __slots__ = (
        "_base64_at", "_before", "_beginning", "_classes", "_data", "_dull", "_finders", "_limit", "_line_start",
        "_lower", "_next", "judged", "saves",
    )  # fmt: skip

    def __init__(
        self,
        data: bytes,
        line_start: bool,
        limit: int,
        beginning: bool = True,
        spelled: bool = False,
        before: bytes = b"",
        dull: int = 0,
    ) -> None:
        self._data = data
        self._before = before
        """What stood before it, at least `LOOK_BACK` bytes where there are so many."""
        self._lower = data.lower()
        self._line_start = line_start
        self._beginning = beginning
        """The piece is the first of the text."""
        self._limit = limit
        """Markers behind this are for the next piece, in which they can be seen whole."""
        self.saves = SAVES in self._lower or SAVES in before.lower() + self._lower[: len(SAVES)]
        """A script makes something out of a text and offers it as a download."""
        self._dull = dull
        """Bytes at its start that were judged with what stood before it: no base64."""
        self._classes: bytes | None = None
        self.judged = 0
        """Up to where the run of base64 was judged that was looked at last."""
        self._finders = (
            (self._spelled,)
            if spelled
            else (self._uu, self._yenc, self._binhex, self._uri, self._base64, self._uu_lines, self._openpgp)
        )
        self._base64_at = 0 if spelled else self._finders.index(self._base64)
        self._next: list[Found | bool | None] = [True] * len(self._finders)

    def first(self, at: int) -> Found | None:
        """The first thing that begins at ``at`` or later."""
        best: Found | None = None
        if at and self._data[at - 1 : at] in _IN_RUN and self._data[at : at + 1] in _IN_RUN:
            self._next[self._base64_at] = True  # something else ended within a run: its stretches are counted from here
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
            found = uu.BEGIN.match(self._data, place, place + LOOK_AHEAD)
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
            found = yenc.BEGIN.match(self._data, place, place + LOOK_AHEAD)
            if found is not None:
                return Found(Kind.YENC, place, found.end(), found["name"] or b"")
        return None

    def _binhex(self, at: int) -> Found | None:
        for place in self._lines(self._data, b":", at):
            if binhex.BEGIN.match(self._data, place, place + LOOK_AHEAD) is not None:
                return Found(Kind.BINHEX, place, place + 1)
        return None

    def _spelled(self, at: int) -> Found | None:
        best: Found | None = None
        for kind, pattern, mark, starts in _SPELLED:
            if self._data.count(mark, at) < _SPELLED_MIN:
                continue
            for start in starts:
                limit = (self._limit if best is None else best.at) + len(start) - 1
                place = self._lower.find(start, at, limit)
                while place >= 0:
                    found = pattern.match(self._data, place)
                    end = found.end() if found is not None else place
                    if self._data.count(mark, place, end) >= _SPELLED_MIN:
                        best = Found(kind, place, place)
                        break
                    place = self._lower.find(start, max(place + 1, end), limit)
        return best

    def _openpgp(self, at: int) -> Found | None:
        for place in self._lines(self._lower, b"-----begin pgp m", at):
            found = _OPENPGP.match(self._data, place, place + LOOK_AHEAD)
            if found is not None:
                return Found(Kind.OPENPGP, place, found.end())
        return None

    def _uri(self, at: int) -> Found | None:
        place = self._lower.find(b"data:", at)
        while 0 <= place < self._limit:
            found = _DATA_URI.match(self._data, place, place + LOOK_AHEAD)
            if found is not None and (found[1] or found[2] or found[3]):
                return Found(Kind.DATA_URI if found[3] else Kind.PERCENT, place, found.end(), b"", found[1])
            place = self._lower.find(b"data:", place + 1)
        return None

    def _base64(self, at: int) -> Found | None:
        self.judged = 0
        if at == 0 and self._beginning and _SHORT_LINES.match(self._data, 0, LOOK_AHEAD) is not None:
            return Found(Kind.BASE64, 0, 0)
        if self._classes is None:
            # In JSON a slash may be written as \/.
            data = self._data.replace(b"\\/", b"//") if b"\\/" in self._data else self._data
            self._classes = data.translate(_CLASSES)
        classes = self._classes
        going_on = at == 0 and self._dull > 0
        place = classes.find(_LONG_RUN, self._dull if going_on else at)
        while 0 <= place < self._limit:
            end = classes.find(b" ", place)
            end = end if end >= 0 else len(classes)
            found = self._judge(place, end, going_on and place == self._dull)
            if found is not None or self.judged >= self._limit:
                return found
            place = classes.find(_LONG_RUN, end)
        return None

    def _judge(self, place: int, end: int, going_on: bool) -> Found | None:
        """What the run from ``place`` to ``end`` is, or what the rest of it is behind dull stretches.

        ``going_on``: some were before that, in the last piece.
        """
        look = _DULL.fullmatch(self._data, place, min(end, place + _DULL_LOOK))
        if look is not None and not going_on and _HEX_PROGRAM.match(self._data, place) is not None:
            return Found(Kind.HEX, place, place)
        if look is not None and look.end() == place + _DULL_LOOK:
            place = self._behind_dull(place, end)
            self.judged = place
            if place >= self._limit:  # how it goes on is for the next piece
                return None
            look = _DULL.fullmatch(self._data, place, min(end, place + _DULL_LOOK))
        self.judged = max(end, place)
        if look is None and (end - place >= LONG or self._whole_line(place, end)):
            self.judged = place
            return Found(Kind.BASE64, place, place)
        return None

    def _behind_dull(self, place: int, end: int) -> int:
        """Where the dull stretches end with which the run begins."""
        run = self._data[place:end]
        if any(not run[:_DULL_LOOK].translate(None, kind) and not run.translate(None, kind) for kind in _DULL_KINDS):
            return end - len(run) % _DULL_LOOK  # all of it is dull; this is faster than the pattern
        stretches = _DULL_STRETCHES.match(run)
        return place + stretches.end() if stretches is not None else place

    def _whole_line(self, start: int, end: int) -> bool:
        before = self._data[max(0, start - LOOK_BACK) : start]
        if start < LOOK_BACK:
            before = (self._before + before)[-LOOK_BACK:]
        before = before.rstrip(b" \t")
        after = self._data[end : end + 3].lstrip(b"=")
        return (not before or before[-1:] in b"\r\n\"'`>") and (not after or after[:1] in b"\r\n\"'`<\\")
