"""quoted-printable (RFC 2045 6.7) in every reading that some reader has of it."""

from __future__ import annotations

import binascii
import enum
import re

from icapscan.unwrap.transfer import Doubt


class QuotedReading(enum.Enum):
    """How a reader of quoted-printable takes an ``=`` before nothing legal, and blanks before a line end."""

    KEEP = "keep"
    DROP = "drop"
    """Leave it out."""
    DROP_ALL = "drop-all"
    """Leave it out with up to two characters behind it; likewise escapes in lower case."""
    ANY_LINE_END = "any-line-end"
    """A soft line break ends with a line end of any kind: CR, LF, CRLF, LFCR, CRCRLF."""
    STRIP_BLANKS = "strip-blanks"
    """Blanks at the end of a line are left out."""
    LITERAL_BLANKS = "literal-blanks"
    """With blanks behind it, an ``=`` at the end of a line is no soft line break."""


_BLANKS_MAX = 1000
"""White space before the end of a line: between the ``=`` of a soft line break and it, or to be left out."""
_BAD = re.compile(rb"=(?![0-9A-Fa-f]{2}|[ \t]{0,1000}\r?\n)")
_BAD_WHOLE = re.compile(rb"=(?![0-9A-F]{2}|[ \t]{0,1000}\r?\n)[^\r\n=]{0,2}")
_LOWER = re.compile(rb"=(?:[0-9A-F][a-f]|[a-f][0-9A-Fa-f])")
_SOFT_BLANKS = re.compile(rb"=([ \t]{1,1000}\r?\n)")
_OPEN_WHOLE = re.compile(rb"=(?:[^\r\n=]?|[ \t]{0,1000}\r?\n?\r?)\Z")
_OPEN_END = re.compile(rb"=(?:[0-9A-Fa-f]|[ \t]{0,1000}\r?\n?\r?)?\Z")
_OPEN_ANY = re.compile(rb"=(?:[0-9A-Fa-f]|[ \t]{0,1000}\r{0,9}\n?\r?)?\Z")
_SOFT_END = re.compile(rb"=[ \t]{0,1000}\r?\Z")
_LFCR = re.compile(rb"=[ \t]{0,1000}\n\r(?!\n)")
_ANY_SOFT = re.compile(rb"=[ \t]{0,1000}(?:\n\r(?!\n)|\r{0,9}\n|\r)")
_BLANK_ENDS = (b" \n", b" \r\n", b"\t\n", b"\t\r\n")
_DROPS = frozenset({QuotedReading.DROP, QuotedReading.ANY_LINE_END})
_OPEN = {QuotedReading.DROP_ALL: _OPEN_WHOLE, QuotedReading.ANY_LINE_END: _OPEN_ANY}


class QuotedPrintable:
    """quoted-printable (RFC 2045 6.7), lenient: any case, blanks behind a soft line break, no bound on lines.

    ``text``: lower case and blanks at the end of a line raise no doubt, as they change nothing of what a text says,
    and real texts have them.
    """

    __slots__ = ("_blanks", "_pending", "_reading", "_seam", "_text", "doubts")

    def __init__(self, reading: QuotedReading = QuotedReading.KEEP, text: bool = False) -> None:
        self.doubts: set[Doubt] = set()
        self._reading = reading
        self._text = text
        self._pending = b""
        self._seam = b""
        """The last bytes, as they came."""
        self._blanks = b""
        """Blanks, and perhaps a CR, that are left out if the line ends behind them."""

    def feed(self, data: bytes) -> bytes:
        if not self._text:
            self._watch(data)
        if self._reading is QuotedReading.STRIP_BLANKS:
            data = self._stripped(data)
        if self._pending:
            data = self._pending + data
            self._pending = b""
        # an "=" close to the end may belong to what comes next
        at = data.rfind(b"=", max(0, len(data) - _BLANKS_MAX - 2))
        if at >= 0 and _OPEN.get(self._reading, _OPEN_END).match(data, at) is not None:
            self._pending = data[at:]
            data = data[:at]
        return self._decode(data)

    def finish(self) -> bytes:
        if self._seam.endswith((b" ", b"\t")):
            self.doubts.add(Doubt.TRAILING_BLANKS)
        kept = self._blanks if self._blanks.endswith(b"\r") or len(self._blanks) > _BLANKS_MAX else b""
        pending, self._pending, self._blanks = self._pending + kept, b"", b""
        if _SOFT_END.match(pending) is None:
            return self._decode(pending)
        if len(pending.rstrip(b"\r")) == 1:
            return b""
        self.doubts.add(Doubt.SOFT_BLANKS)
        return pending if self._reading is QuotedReading.LITERAL_BLANKS else b""

    def _watch(self, data: bytes) -> None:
        """Look for blanks at the end of a line, wherever pieces end."""
        text = self._seam + data
        self._seam = text[-2:]
        if Doubt.TRAILING_BLANKS not in self.doubts and any(end in text for end in _BLANK_ENDS):
            self.doubts.add(Doubt.TRAILING_BLANKS)

    def _stripped(self, data: bytes) -> bytes:
        """``data`` without blanks before a line end. More than `_BLANKS_MAX` of them are left as they are."""
        *lines, last = (self._blanks + data).split(b"\n")
        out = []
        for line in lines:
            text, blanks, cr = _blanks_of(line)
            out.append(line if len(blanks) > _BLANKS_MAX else text + cr)
        text, blanks, _ = _blanks_of(last)
        cut = len(text) + max(0, len(blanks) - _BLANKS_MAX - 1) if blanks else len(last)
        self._blanks = last[cut:]
        out.append(last[:cut])
        return b"\n".join(out)

    def _decode(self, data: bytes) -> bytes:
        if b"=" not in data:
            return data
        lenient = self._reading is QuotedReading.ANY_LINE_END
        if lenient:
            data = _ANY_SOFT.sub(b"=\n", data)
        bare = data.count(b"=\n")
        if bare and not lenient and b"=\n\r" in data and _LFCR.search(data) is not None:
            self.doubts.add(Doubt.SOFT_CR)
        if _all_legal(data, bare):
            return binascii.a2b_qp(data)
        if not lenient and _LFCR.search(data) is not None:
            self.doubts.add(Doubt.SOFT_CR)
        if self._reading is QuotedReading.DROP_ALL:
            data = _BAD_WHOLE.sub(b"", data)
        elif _BAD.search(data) is not None:
            self.doubts.add(Doubt.ESCAPE)
            data = _BAD.sub(b"" if self._reading in _DROPS else b"=3D", data)
        if not self._text and Doubt.LOWER_CASE not in self.doubts and _LOWER.search(data) is not None:
            self.doubts.add(Doubt.LOWER_CASE)
        if _SOFT_BLANKS.search(data) is not None:
            self.doubts.add(Doubt.SOFT_BLANKS)
            literal = self._reading is QuotedReading.LITERAL_BLANKS
            data = _SOFT_BLANKS.sub(rb"=3D\1" if literal else b"=\n", data)
        return binascii.a2b_qp(data)


def _blanks_of(line: bytes) -> tuple[bytes, bytes, bytes]:
    """A line without its LF: its text, the blanks behind it, the CR behind those."""
    body = line.removesuffix(b"\r")
    text = body.rstrip(b" \t")
    return text, body[len(text) :], line[len(body) :]


_HEX_CLASSES = bytes(
    ord("H") if code in b"0123456789ABCDEF" else ord("=") if code == ord("=") else ord(" ") for code in range(256)
)


def _all_legal(data: bytes, bare: int) -> bool:
    """Whether every ``=`` begins an escape in upper case or a soft line break, as RFC 2045 6.7 has it.

    ``bare``: how many stand before a LF.
    """
    escapes = data.translate(_HEX_CLASSES).count(b"=HH")
    return data.count(b"=") == escapes + data.count(b"=\r\n") + bare
