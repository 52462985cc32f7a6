"""clamd's protocol (clamd(8), "COMMANDS"): the bytes of the scan commands, and replies read into outcomes. No sockets.

Commands carry the ``z`` prefix, so commands and replies end with a NUL byte. Inside IDSESSION every reply begins with
the number of its command and replies come in any order, as scans end.
"""

from __future__ import annotations

import enum
import re

from msgspec import Struct

IDSESSION = b"zIDSESSION\0"
END = b"zEND\0"
INSTREAM = b"zINSTREAM\0"
INSTREAM_END = b"\0\0\0\0"
"""A chunk of length zero ends the stream."""
FILDES = b"zFILDES\0\0"
"""The command, then the one byte that travels with the descriptor in the same ``sendmsg`` (clamd(8): "may be sent in
the same packet")."""

MAX_REPLY = 4096
"""Longest reply in bytes. A reply to FILDES or INSTREAM is ``N: fd[N]: NAME FOUND``; names stay below 256 bytes."""
MAX_CHUNK = 0xFFFFFFFF


class Outcome(enum.Enum):
    """What a reply to a scan command says."""

    CLEAN = "OK"
    FOUND = "FOUND"
    OVER_LIMIT = "over limit"
    ENCRYPTED = "encrypted"
    TIME_LIMIT = "time limit"
    FAILED = "failed"


class Reply(Struct, frozen=True):
    """One reply. ``last`` says that clamd may close the connection after it, so nothing more is asked on it."""

    id: int | None
    outcome: Outcome
    text: str
    """FOUND, OVER_LIMIT, ENCRYPTED by a heuristic: the signature's name. Otherwise what clamd said, printable."""
    last: bool = False


def chunk_head(size: int) -> bytes:
    """The four bytes that announce an INSTREAM chunk of ``size`` bytes: 1 to `MAX_CHUNK`, for zero ends the stream."""
    if not 0 < size <= MAX_CHUNK:
        raise ValueError("an INSTREAM chunk has 1 to 4294967295 bytes")
    return size.to_bytes(4, "big")


class ReplyReader:
    """Bytes from one connection in, replies out. Any split of the bytes gives the same replies."""

    __slots__ = ("_ended", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._ended = False

    def feed(self, data: bytes) -> list[Reply]:
        """More bytes from clamd. A reply longer than `MAX_REPLY` is FAILED, and nothing is read after it."""
        if self._ended:
            return []
        whole = self._rest + data if self._rest else data
        replies = []
        start = 0
        while (end := whole.find(b"\0", start)) >= 0 and end - start <= MAX_REPLY:
            replies.append(parse(whole[start:end]))
            start = end + 1
        self._rest = whole[start:]
        if len(self._rest) > MAX_REPLY:
            self._rest = b""
            self._ended = True
            replies.append(Reply(None, Outcome.FAILED, "an endless reply", last=True))
        return replies

    @property
    def midway(self) -> bool:
        """Whether part of a reply was read: an end of the connection now is an error, not a farewell."""
        return bool(self._rest)


_ID = re.compile(rb"([0-9]{1,10}): ")
_CLEAN = re.compile(rb"(?:stream|fd\[[0-9]+\]|instream\([^)]*\)): OK")
_FOUND = re.compile(r"(?:[^:]*: )?(.*?)(?:\([0-9a-f]{32,64}:[0-9]+\))? ?FOUND", re.DOTALL)
"""With ExtendedDetectionInfo the name is followed by ``(hash:size)``."""


def parse(line: bytes) -> Reply:
    """One reply without its NUL. Everything that is not exactly known is FAILED: never clean by accident."""
    number = None
    if match := _ID.match(line):
        number = int(match[1])
        line = line[match.end() :]
    if _CLEAN.fullmatch(line):
        return Reply(number, Outcome.CLEAN, "OK")
    text = _printable(line)
    if line.endswith(b" FOUND"):
        return _found(number, text)
    if line.endswith(b"ERROR"):
        return Reply(number, _error(text), text, last=True)
    return Reply(number, Outcome.FAILED, text, last=True)


def _found(number: int | None, text: str) -> Reply:
    match = _FOUND.fullmatch(text)
    name = (match[1] if match else text).strip() or "unnamed"
    low = name.lower()
    if low.startswith("heuristics.limits.exceeded"):  # AlertExceedsMax: not wholly scanned
        return Reply(number, Outcome.OVER_LIMIT, name)
    if low.startswith("heuristics.encrypted"):  # AlertEncrypted: could not look inside
        return Reply(number, Outcome.ENCRYPTED, name)
    return Reply(number, Outcome.FOUND, name)


def _error(text: str) -> Outcome:
    low = text.lower()
    if "size limit exceeded" in low:
        return Outcome.OVER_LIMIT
    if "time limit reached" in low:
        return Outcome.TIME_LIMIT
    return Outcome.FAILED


def _printable(line: bytes) -> str:
    text = line.decode("utf-8", "backslashreplace")
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
