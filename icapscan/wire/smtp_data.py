"""Mail data and their transparency (RFC 5321 4.5.2): dots taken off and put on, in whole blocks.

Only CR LF begins a line, and only CR LF . CR LF ends the data. A CR or LF that stands alone is no line end here, but
is one to some other program: that is what SMTP smuggling lives on. So none ever leaves: `Unstuffer` says that there is
one (and makes it CR LF where asked to), `Stuffer` makes it CR LF.
"""

from __future__ import annotations

import re

_END = b"\r\n.\r\n"
_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")
_NO_LINE_ENDS = bytes(byte for byte in range(256) if byte not in b"\r\n")
Bytes = bytes | memoryview


def has_bare(block: bytes) -> bool:
    """Whether a CR or LF stands alone in ``block``, which must not begin or end within a CR LF."""
    # 1,050 MB/s; counting CR, LF and CR LF one after the other: 420 MB/s
    return len(block.translate(None, _NO_LINE_ENDS)) != 2 * block.count(b"\r\n")


def normalized(block: bytes) -> bytes:
    """``block`` with CR LF for each CR or LF that stands alone."""
    return _BARE.sub(b"\r\n", block) if has_bare(block) else block


class Unstuffer:
    """Mail data as they come over the wire, to the message that they carry."""

    def __init__(self, *, normalize: bool = False) -> None:
        self._normalize = normalize
        self._held = b"\r\n"
        self._first = True
        self.ended = False
        self.bare = False
        """A CR or LF stood alone in what came so far."""

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Some bytes: what they add to the message, and what follows its end (empty before `ended`)."""
        data = self._held + data
        stop = data.find(_END)
        if stop >= 0:
            self.ended = True
            self._held = b""
            return self._cleared(data[: stop + 2]), data[stop + len(_END) :]
        keep = _overlap(data)
        self._held = data[len(data) - keep :] if keep else b""
        return self._cleared(data[: len(data) - keep]) if len(data) > keep else b"", b""

    def _cleared(self, block: bytes) -> bytes:
        if has_bare(block):
            self.bare = True
        clear = block.replace(b"\r\n.", b"\r\n")
        if self._first:
            self._first = False
            clear = clear[2:]  # the line end of the DATA command, which begins the first line
        return normalized(clear) if self._normalize and self.bare else clear


def _overlap(data: bytes) -> int:
    """How many of the last bytes may be the beginning of the end."""
    for count in (4, 3, 2, 1):
        if data.endswith(_END[:count]):
            return count
    return 0


class Stuffer:
    """A message, in any pieces, to mail data for the wire. One message each."""

    def __init__(self) -> None:
        self._held = b""
        self._at_start = True
        """What comes next begins a line."""

    def feed(self, data: Bytes) -> bytes:
        """The wire form of some bytes of the message. The last of them may be kept back."""
        block = self._held + data if self._held else bytes(data)
        if block.endswith(b"\r"):
            self._held, block = b"\r", block[:-1]
        else:
            self._held = b""
        return self._stuffed(block)

    def finish(self) -> bytes:
        """What is left, a line end where the message has none, and the end of the data."""
        rest = self._stuffed(b"\r\n") if self._held else b""
        self._held = b""
        return rest + (b".\r\n" if self._at_start else b"\r\n.\r\n")

    def _stuffed(self, block: bytes) -> bytes:
        if not block:
            return b""
        block = normalized(block)
        dot = b"." if self._at_start and block.startswith(b".") else b""
        self._at_start = block.endswith(b"\r\n")
        return dot + block.replace(b"\r\n.", b"\r\n..")
