"""Splits the body of a multipart (RFC 2046 5.1) at its boundary delimiter lines, block by block with `bytes.find`."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator


class Match(enum.Enum):
    """What is taken for a boundary delimiter line."""

    EXACT = "exact"
    """``--boundary`` at the start of a line, then at most ``--`` and blanks (RFC 2046 5.1.1)."""
    PREFIX = "prefix"
    """Whatever follows on the line."""
    ANYWHERE = "anywhere"
    """Also in the middle of a line."""


class Mark(enum.Enum):
    """What a piece of a multipart body is."""

    DATA = "data"
    DELIMITER = "delimiter"
    """The line itself; a body part begins behind it."""
    CLOSE = "close"
    """The line itself; the epilogue begins behind it."""


class SplitDoubt(enum.Enum):
    """Places where readers disagree about a delimiter."""

    TAIL = "delimiter-with-text-behind"
    MIDLINE = "delimiter-in-a-line"
    CARRIAGE_RETURN = "delimiter-after-bare-cr"


_TAIL_MAX = 1000
"""Bytes behind the boundary that are looked at for the end of the line."""
_EXACT_TAIL = re.compile(rb"(?:--)?[ \t]*\r*\n?")
_LF, _CR = 10, 13


class Splitter:
    """Gives pieces (`Mark`, bytes) in order. The line end before a delimiter belongs to the delimiter."""

    __slots__ = ("_before", "_in_part", "_match", "_needle", "_pending", "doubts")

    def __init__(self, boundary: bytes, match: Match = Match.EXACT) -> None:
        self._needle = b"--" + boundary
        self._match = match
        self._pending = b""
        self._before = _LF
        """The byte before what is pending; the start of the body is the start of a line."""
        self._in_part = False
        self.doubts: set[SplitDoubt] = set()

    def feed(self, data: bytes) -> Iterator[tuple[Mark, bytes]]:
        """More of the body."""
        return self._split(self._pending + data if self._pending else data, False)

    def finish(self, nested: bool = False) -> Iterator[tuple[Mark, bytes]]:
        """The body is complete.

        Without a closing delimiter the last line end is taken for the one before it, as other readers do; where the
        last part is ``nested``, a multipart itself, it is left for that.
        """
        self._in_part = self._in_part and not nested
        return self._split(self._pending, True)

    def _split(self, data: bytes, final: bool) -> Iterator[tuple[Mark, bytes]]:
        needle, start, search = self._needle, 0, 0
        self._pending = b""
        while (hit := data.find(needle, search)) >= 0:
            before = data[hit - 1] if hit else self._before
            if before != _LF and self._match is not Match.ANYWHERE:
                self.doubts.add(SplitDoubt.CARRIAGE_RETURN if before == _CR else SplitDoubt.MIDLINE)
                search = hit + 1
                continue
            tail_at = hit + len(needle)
            line_end = data.find(b"\n", tail_at, tail_at + _TAIL_MAX) + 1
            if not line_end:
                if len(data) - tail_at < _TAIL_MAX and not final:
                    yield from self._keep(data, start, _before_line_end(data, start, hit))
                    return
                line_end = min(len(data), tail_at + _TAIL_MAX)
            if self._match is Match.EXACT and _EXACT_TAIL.fullmatch(data, tail_at, line_end) is None:
                self.doubts.add(SplitDoubt.TAIL)
                search = hit + 1
                continue
            end = _before_line_end(data, start, hit)
            if end > start:
                yield Mark.DATA, data[start:end]
            yield Mark.CLOSE if data.startswith(b"--", tail_at) else Mark.DELIMITER, data[hit:line_end]
            start = search = line_end
            self._in_part = not data.startswith(b"--", tail_at)
            self._before = _LF
        if final:
            end = _before_line_end(data, start, len(data)) if self._in_part else len(data)
            if start < end:
                yield Mark.DATA, data[start:end]
            return
        yield from self._keep(data, start, self._held(data, max(start, search)))

    def _keep(self, data: bytes, start: int, hold: int) -> Iterator[tuple[Mark, bytes]]:
        """Give what is certain, and keep the rest for the next piece."""
        hold = max(start, hold)
        self._pending = data[hold:]
        if hold > start:
            self._before = data[hold - 1]
            yield Mark.DATA, data[start:hold] if start or hold < len(data) else data

    def _held(self, data: bytes, start: int) -> int:
        """Where the part of ``data`` begins that may turn out to belong to a delimiter line."""
        needle = self._needle
        at = max(start, len(data) - len(needle) + 1)
        while (at := data.find(b"-", at)) >= 0:
            if needle.startswith(data[at:]):
                return _before_line_end(data, 0, at)
            at += 1
        return _before_line_end(data, 0, len(data))


def _before_line_end(data: bytes, start: int, at: int) -> int:
    """The position before the CRLF, LF or CR that ends at ``at``."""
    if at > start and data[at - 1] == _LF:
        at -= 1
        if at > start and data[at - 1] == _CR:
            at -= 1
    elif at > start and data[at - 1] == _CR:
        at -= 1
    return at


_SNIFF = re.compile(
    rb"--(?!-{1,3}(?:BEGIN|END) )(?=\S)([^\r\n]{1,200}?)[ \t]*\r?\n"
    rb"(?:[^\r\n]{1,1000}\r?\n){0,8}?[Cc][Oo][Nn][Tt][Ee][Nn][Tt]-"
)
_SNIFF_SPAN = 4096


class Sniffer:
    """Looks for ``--token`` lines with MIME header fields below them, where nobody declared a boundary."""

    __slots__ = ("_line_start", "_pending")

    def __init__(self) -> None:
        self._pending = b""
        self._line_start = True

    def feed(self, data: bytes, final: bool = False) -> tuple[bytes, bytes | None, bytes]:
        """Bytes that stand before any such line; the token that was found, and all bytes from its line on.

        The token is None while there is none.
        """
        data = self._pending + data if self._pending else data
        at = 0 if self._line_start else self._next(data, 0)
        while at >= 0:
            if len(data) - at < _SNIFF_SPAN and not final:
                break
            found = _SNIFF.match(data, at, at + _SNIFF_SPAN)
            if found is not None:
                return data[:at], found[1], data[at:]
            at = self._next(data, at)
        self._line_start = at >= 0
        keep = len(data) if final else at if at >= 0 else max(0, len(data) - 2)
        self._pending = data[keep:]
        return data[:keep], None, b""

    @staticmethod
    def _next(data: bytes, at: int) -> int:
        found = data.find(b"\n--", at)
        return found + 1 if found >= 0 else -1
