"""uuencode (POSIX uuencode(1)), as a transfer encoding and as it stands in text; also without begin and end lines."""

from __future__ import annotations

import re

import pybase64

from icapscan.unwrap.transfer import Doubt

BEGIN = re.compile(rb"begin(?P<base64>-base64)? [0-7]{3,4} ?(?P<name>[^\r\n]{0,255})\r?\n", re.I)
"""A begin line; what follows is uuencoded, or base64."""
RUN = re.compile(rb"(?:M[ -`]{60}\r?\n)+")
"""Full lines: 45 bytes each."""
TWO_LINES = re.compile(rb"(?:M[ -`]{60}\r?\n){2}")
_LINE = re.compile(rb"[ -`]{1,87}\Z")
_LINE_MAX = 1000
_TO_BASE64 = bytes.maketrans(bytes(range(32, 97)), b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/A")


class Uuencode:
    """Decodes every line that can be one, and leaves out the others: begin, end, blank lines, text around."""

    __slots__ = ("_pending", "doubts")

    def __init__(self) -> None:
        self.doubts: set[Doubt] = set()
        self._pending = b""

    def feed(self, data: bytes) -> bytes:
        """More text."""
        data = self._pending + data if self._pending else data
        cut = data.rfind(b"\n") + 1
        self._pending = data[cut:]
        if len(self._pending) > _LINE_MAX:  # no line of uuencoded text
            self._pending = self._pending[:_LINE_MAX]
        return self._lines(data, cut)

    def finish(self) -> bytes:
        """The text is complete."""
        pending, self._pending = self._pending + b"\n", b""
        return self._lines(pending, len(pending))

    def _lines(self, data: bytes, end: int) -> bytes:
        out = []
        at = 0
        while at < end:
            run = RUN.match(data, at, end)
            if run is not None:
                lines = b"\n" + run[0].replace(b"\r\n", b"\n")[:-1]
                out.append(pybase64.b64decode(lines.replace(b"\nM", b"").translate(_TO_BASE64)))
                at = run.end()
                continue
            line_end = data.index(b"\n", at, end)
            out.append(self._line(data[at:line_end].rstrip(b"\r")))
            at = line_end + 1
        return b"".join(out)

    def _line(self, line: bytes) -> bytes:
        if _LINE.match(line) is None:
            return b""
        count = (line[0] - 32) & 63
        size = (count + 2) // 3 * 4
        text = line[1 : size + 1]
        # Trailing blanks are zeros that may have been cut; a checksum character may follow.
        if not count or len(line) - 1 > size + 2 or size - len(text) > 60 or (not text and size):
            return b""
        return pybase64.b64decode(text.ljust(size).translate(_TO_BASE64))[:count]
