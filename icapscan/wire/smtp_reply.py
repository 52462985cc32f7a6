"""SMTP replies: made, encoded and read with bounds (RFC 5321 4.2; RFC 2034 and 3463 for enhanced status codes)."""

from __future__ import annotations

import re

from msgspec import Struct

from icapscan.errors import LocalProtocolError, ProtocolError

LINE_MOST = 2048
"""Bytes of one line. RFC 5321 4.5.3.1.5 says 512; EHLO lines of real servers are longer."""
LINES_MOST = 128
_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])([^\r\n\x00]*))?")
_UNSAFE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class Reply(Struct, frozen=True):
    """One reply of one or more lines."""

    code: int
    lines: tuple[bytes, ...]
    """Texts, without code and line end."""

    @property
    def positive(self) -> bool:
        """2xx: done."""
        return 200 <= self.code < 300

    @property
    def intermediate(self) -> bool:
        """3xx: go on."""
        return 300 <= self.code < 400

    def encode(self) -> bytes:
        """For the wire. Raises `LocalProtocolError` for what could become a reply of its own."""
        if not 200 <= self.code <= 599 or not self.lines or any(b"\r" in one or b"\n" in one for one in self.lines):
            raise LocalProtocolError(f"A reply must not be {self.code} {self.lines!r}.")
        last = len(self.lines) - 1
        return b"".join(
            b"%d%s%s\r\n" % (self.code, b" " if number == last else b"-", line)
            for number, line in enumerate(self.lines)
        )

    def __str__(self) -> str:
        text = b" / ".join(self.lines)
        return f"{self.code} {_UNSAFE.sub(b'?', text).decode('ascii', 'replace')[:200]}"


def reply(code: int, text: str) -> Reply:
    """A reply of one line. Control and non-ASCII characters of ``text`` become question marks."""
    return Reply(code, (_UNSAFE.sub(b"?", text.encode("ascii", "replace")),))


class ReplyReader:
    """The lines of one reply after the other."""

    def __init__(self) -> None:
        self._code = 0
        self._lines: list[bytes] = []

    @property
    def within(self) -> bool:
        """A reply has begun and is not complete."""
        return bool(self._lines)

    def take(self, line: bytes) -> Reply | None:
        """One line without its line end: the reply that it completes. Raises `ProtocolError`."""
        match = _LINE.fullmatch(line)
        if match is None:
            raise ProtocolError(f"{line[:60]!r} is no line of an SMTP reply.")
        code = int(match[1])
        if self._lines and code != self._code:
            raise ProtocolError("The lines of an SMTP reply have different codes.")
        self._code = code
        self._lines.append(_UNSAFE.sub(b"?", match[3] or b""))
        if len(self._lines) > LINES_MOST:
            raise ProtocolError(f"An SMTP reply has more than {LINES_MOST} lines.")
        if match[2] == b"-":
            return None
        lines, self._lines = self._lines, []
        return Reply(code, tuple(lines))
