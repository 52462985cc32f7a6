"""yEnc (yEnc draft 1.3) as it stands in text. Sizes that it declares are never believed."""

from __future__ import annotations

import re

from msgspec import Struct

BEGIN = re.compile(
    rb"(?:=ybegin (?:[^\r\n]{0,1000}?name=(?P<name>[^\r\n]{0,255})|[^\r\n]{0,1000})\r?\n)+"
    rb"(?:=ypart [^\r\n]{0,200}\r?\n)?"
)
"""The lines before the encoded data."""
END = b"\n=yend"
_PART = re.compile(rb"=ypart [^\r\n]*?\bbegin=([0-9]{1,15})[^\r\n]*?\bend=([0-9]{1,15})")
_SIZE = re.compile(rb"=ybegin [^\r\n]*?\bsize=([0-9]{1,15})")
_SEVERAL = re.compile(rb"=ybegin [^\r\n]*?\b(?:part|total)=0{0,9}(?:[2-9]|1[0-9])")
_PLAIN = bytes((code - 42) & 255 for code in range(256))
_ESCAPED = tuple(bytes([(code - 64) & 255]) for code in range(256))
_ESCAPE = re.compile(rb"=(.)", re.S)


class Piece(Struct, frozen=True):
    """What one of several parts says of its place in the file; all 0 where it does not say it."""

    start: int = 0
    end: int = 0
    """Behind its last byte."""
    size: int = 0
    """Of the file."""


def piece(header: bytes) -> Piece | None:
    """What the lines before the data say: None for a whole file."""
    part, size = _PART.search(header), _SIZE.search(header)
    if part is None:
        return Piece() if _SEVERAL.search(header) is not None else None
    found = Piece(int(part[1]) - 1, int(part[2]), int(size[1]) if size is not None else 0)
    return None if found.start == 0 and found.end == found.size else found


def is_whole(ordered: list[Piece]) -> bool:
    """Whether parts in the order of their places are all of a file."""
    at = 0
    for one in ordered:
        if one.start != at or one.end <= at:
            return False
        at = one.end
    return all(one.size == at for one in ordered)


class YEnc:
    """Decodes what stands between the ``=ybegin``, ``=ypart`` and ``=yend`` lines."""

    __slots__ = ("_pending", "_unstuff", "dotted")

    def __init__(self, unstuff: bool = False) -> None:
        self._pending = b"\n"
        self._unstuff = unstuff
        """Two dots at the start of a line are one (RFC 3977 3.1.1): what comes from a news server unchanged."""
        self.dotted = False
        """There is such a line."""

    def feed(self, data: bytes) -> bytes:
        """More lines."""
        data = self._pending + data
        end = len(data) - data.endswith(b"\n.")
        cut = end
        line = b"\n" if data[end - 1 : end] == b"\n" else b""
        if line or data[end - 1 : end] in (b"=", b"\r"):
            run = len(data[:end].rstrip(b"=\r\n"))
            if data.count(b"=", run, end) & 1:  # the last one escapes what comes next, behind any line end
                cut, line = data.rindex(b"=", run, end), b"=" + line
            else:
                cut = end - len(line)
        self._pending = line + data[end:]
        return self._decode(data[:cut])

    def finish(self) -> bytes:
        """The lines are complete."""
        pending, self._pending = self._pending, b""
        return self._decode(pending)

    def _decode(self, data: bytes) -> bytes:
        if b"\n.." in data:
            self.dotted = True
            if self._unstuff:
                data = data.replace(b"\n..", b"\n.")
        text = data.translate(None, b"\r\n")
        if b"=" in text:
            text = _ESCAPE.sub(lambda found: _ESCAPED[found[1][0]], text)
        return text.translate(_PLAIN)
