"""A block of field lines, kept byte for byte beside its meaning (RFC 2616 4.2, RFC 9110 5)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from icapscan.errors import LocalProtocolError, ProtocolError

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_LINE = re.compile(TOKEN + rb":[^\x00\r\n]*")
_FOLD = re.compile(rb"[ \t][^\x00\r\n]*")
_BLOCK = re.compile(rb"(?:" + TOKEN + rb":[^\x00\r\n]*\r\n(?:[ \t][^\x00\r\n]*\r\n)*)*")
_NAME = re.compile(TOKEN)
_VALUE = re.compile(rb"[^\x00\r\n]*")
_FOLDED = re.compile(rb"[ \t]*\r\n[ \t]+")


class Fields:
    """Field lines as received or as they will be sent; each line ends with CRLF, there is no final empty line.

    Names are looked up in lower case. Values are stripped of white space, and folded lines are joined by one space.
    """

    __slots__ = ("_index", "_repeated", "raw")

    def __init__(self, raw: bytes = b"") -> None:
        self.raw = raw
        self._index: dict[bytes, bytes] | None = None
        self._repeated: frozenset[bytes] = frozenset()

    @classmethod
    def compose(cls, lines: Iterable[tuple[bytes, bytes]]) -> Fields:
        """Field lines of our own. Raises `LocalProtocolError` for a name or value that could inject a line."""
        parts = []
        for name, value in lines:
            if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
                raise LocalProtocolError(f"A field line must not be made of {name!r} and {value[:80]!r}.")
            parts.append(b"%s: %s\r\n" % (name, value))
        return cls(b"".join(parts))

    def get(self, name: bytes) -> bytes | None:
        """The value of the field ``name`` (lower case); several lines are joined by ``", "``; None if absent."""
        index = self._index
        if index is None:
            index, self._repeated = _index(self.raw)
            self._index = index
        return index.get(name)

    def repeated(self, name: bytes) -> bool:
        """Whether more than one line carries the field ``name`` (lower case)."""
        self.get(name)
        return name in self._repeated

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Name as spelled and unfolded value, line by line."""
        for line in _logical_lines(self.raw):
            name, _, value = line.partition(b":")
            yield name, value.strip(b" \t")

    def count(self, name: bytes) -> int:
        """How many lines carry the field ``name`` (lower case)."""
        return sum(1 for given, _ in self.items() if given.lower() == name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fields) and self.raw == other.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"Fields({self.raw!r})"


def parse_fields(block: bytes, most: int, what: str = "header") -> Fields:
    """A received block of field lines. Raises `ProtocolError` naming the first bad line (PROTOCOL D20-D29)."""
    if block.count(b"\n") > most:
        raise ProtocolError(f"The {what} has more than {most} field lines.")
    if not _BLOCK.fullmatch(block):
        raise ProtocolError(_what_is_wrong(block, what))
    return Fields(block)


def _index(raw: bytes) -> tuple[dict[bytes, bytes], frozenset[bytes]]:
    """Values by lower-case name, and the names of more than one line."""
    index: dict[bytes, bytes] = {}
    repeated = []
    for line in _logical_lines(raw):
        name, _, value = line.partition(b":")
        name = name.lower()
        value = value.strip(b" \t")
        if name in index:
            value = index[name] + b", " + value
            repeated.append(name)
        index[name] = value
    return index, frozenset(repeated)


def _logical_lines(raw: bytes) -> list[bytes]:
    if b"\r\n " in raw or b"\r\n\t" in raw:
        raw = _FOLDED.sub(b" ", raw)
    lines = raw.split(b"\r\n")
    lines.pop()
    return lines


def _what_is_wrong(block: bytes, what: str) -> str:
    for number, line in enumerate(block.split(b"\r\n")):
        if line and not _LINE.fullmatch(line) and not (number and _FOLD.fullmatch(line)):
            if b"\r" in line or b"\n" in line:
                return f"Field line {number + 1} of the {what} holds a bare CR or LF."
            if b":" not in line:
                return f"Field line {number + 1} of the {what} has no colon."
            return f"Field line {number + 1} of the {what} is not a field name, a colon and a value."
    return f"The {what} is malformed."
