"""The header of a MIME entity (RFC 2045 section 3, RFC 5322 section 2.2): where it ends, and the fields that matter.

Readers differ about broken headers, so what is asked for here is not *the* value of a field but every value that some
reader might see. What a strict reader sees comes first.
"""

from __future__ import annotations

import enum
import re

from msgspec import Struct

from icapscan.limits import KIB, MIB

HEADER_MAX = 1 * MIB
"""Bytes of one header. Postfix keeps 100 KB (header_size_limit), Exim 1 MB (header_maxsize)."""


class HeaderEnd(enum.Enum):
    """What is taken for the end of a header."""

    EMPTY_LINE = "empty-line"
    BLANK_LINE = "blank-line"
    """A line with white space and control characters only."""
    JUNK_LINE = "junk-line"
    """The first line that is no field, which then is the first line of the body."""


class FieldDoubt(enum.Enum):
    """Something in a header that readers do not agree about."""

    BLANK_LINE = "header-blank-line"
    JUNK_LINE = "header-junk-line"
    BARE_CR = "header-bare-cr"
    HIDDEN_FIELD = "header-field-hidden"
    """A field of MIME that only some readers see: broken name, in a folded line, behind 8-bit or control characters."""
    DUPLICATE = "header-field-duplicate"
    """The same field twice, with different values."""


class Fields(Struct, frozen=True):
    """The fields of a header that matter for decoding; values unfolded, in order, what a strict reader sees first."""

    types: tuple[bytes, ...] = ()
    encodings: tuple[bytes, ...] = ()
    dispositions: tuple[bytes, ...] = ()
    doubts: frozenset[FieldDoubt] = frozenset()


_END = re.compile(rb"(?:\A|\n)\r*\n")
_BLANK_END = re.compile(rb"(?:\A|\n)[ \t\r\v\f\0]*\n")
_BLANK = re.compile(rb"^\r*[ \t\v\f\0][ \t\r\v\f\0]*\n", re.M)
_JUNK = re.compile(rb"^(?![!-9;-~]+[ \t]*:|[ \t\r\n\v\f\0]|\Z)", re.M)
_FROM = re.compile(rb">?From [^\n]*\n")
_BARE_CR = re.compile(rb"\r(?!\r*\n)(?=.)", re.S)
_FIELD = re.compile(rb"^content-(type|transfer-encoding|disposition)[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)", re.I | re.M)
_LOOSE = re.compile(
    rb"con(?:\n[ \t]+)?tent[-_ \t\n]{0,80}(type|trans(?:\n[ \t]+)?fer[-_ \t\n]{0,80}encoding|disposition)"
    rb"(?:[ \t:;=]|\n[ \t])*([^\n]*(?:\n[ \t][^\n]*)*)",
    re.I,
)
_KNOWN = re.compile(
    rb"^(?:from|to|cc|subject|date|received|message-id|mime-version|return-path|delivered-to|reply-to|sender"
    rb"|x-mailer|user-agent|dkim-signature|arc-seal|list-id|in-reply-to|references|authentication-results"
    rb"|x-[a-z-]{3,40}|content-(?:type|transfer-encoding|disposition|id|location))[ \t]*:",
    re.I | re.M,
)
_CLEAN = re.compile(rb"(?:[!-9;-~]++:[^\n\r]*+\r?\n(?:[ \t]++[^\s][^\n\r]*+\r?\n)*)*(?:\r?\n)?")
"""A header that leaves no doubt about its lines, as almost every one is. Possessive are single characters only:
Python 3.11 takes a possessive group for matched where its last round was broken off."""
_SUSPECT = re.compile(rb"(?<![\n:])content[- \t\n_]|content(?!-[a-z0-9-]{2,40}[ \t]*[:;]|[a-z])")
"""The name of a MIME field that stands at no start of a line, or has no colon behind it."""
_ODD = bytes(code for code in range(256) if (code < 32 and code not in b"\t\n\r") or code > 126)
_INDENTED_FIELD = re.compile(rb"\n[ \t]+(?=content-)", re.I)
_FOLD = re.compile(rb"[\r\n]+[ \t]*")


class HeaderReader:
    """Collects a header piece by piece."""

    __slots__ = ("_data", "_end", "_searched", "blank_later", "block", "cut_at_junk")

    def __init__(self, end: HeaderEnd = HeaderEnd.EMPTY_LINE) -> None:
        self._data = bytearray()
        self._end = end
        self._searched = 0
        self.block = b""
        """The header, when it is complete, with the line that ends it."""
        self.cut_at_junk = False
        """No empty line came, so that the first junk line was taken for the end."""
        self.blank_later = False
        """There was a line of white space that may have been meant for the end."""

    def feed(self, data: bytes) -> bytes | None:
        """More of the entity. The first bytes of its body once the header is complete, else None."""
        self._data += data
        return self._look(final=False)

    def finish(self) -> bytes:
        """The entity is complete: its body if it has one."""
        rest = self._look(final=True)
        if rest is not None:
            return rest
        junk = self._junk(final=True)
        self.cut_at_junk = junk >= 0
        self.blank_later = self.cut_at_junk and _BLANK.search(self._data) is not None
        return self._take(junk if junk >= 0 else len(self._data))

    @property
    def too_long(self) -> bool:
        """The header is longer than `HEADER_MAX`."""
        return len(self._data) > HEADER_MAX

    def give_up(self) -> bytes | None:
        """The header is too long: the body if a junk line can be taken for the header's end, else None."""
        junk = self._junk(HEADER_MAX)
        if junk < 0:
            return None
        self.cut_at_junk = True
        return self._take(junk)

    def _look(self, final: bool) -> bytes | None:
        data = self._data
        pattern = _BLANK_END if self._end is HeaderEnd.BLANK_LINE else _END
        found = pattern.search(data, self._searched)
        if found is not None and (final or found.end() < len(data)):
            end = found.end()
        else:
            end = -1
            self._searched = found.start() if found is not None else max(0, data.rfind(b"\n"))
        if self._end is HeaderEnd.JUNK_LINE:
            junk = self._junk(end if end >= 0 else None, final)
            if junk >= 0:
                end = junk
        return self._take(end) if 0 <= end <= HEADER_MAX else None

    def _junk(self, before: int | None = None, final: bool = False) -> int:
        """Where the first junk line begins; -1 if there is none. A line that is not complete counts at the end only."""
        limit = len(self._data) if before is None else before
        start = _FROM.match(self._data)
        found = _JUNK.search(self._data, start.end() if start else 0, limit)
        if found is None or (self._data.find(b"\n", found.start(), limit) < 0 and not final):
            return -1
        return found.start()

    def _take(self, end: int) -> bytes:
        self.block = bytes(self._data[:end])
        rest = bytes(self._data[end:])
        self._data = bytearray()
        return rest


def parse(block: bytes) -> Fields:
    """The fields of a complete header."""
    seen: dict[bytes, list[bytes]] = {b"type": [], b"transfer-encoding": [], b"disposition": []}
    for name, value in _FIELD.findall(block):
        seen[name.lower()].append(_unfolded(value))
    doubts = set() if _CLEAN.fullmatch(block) else _line_doubts(block)
    if any(len(values) > 1 and len(set(values)) > 1 for values in seen.values()):
        doubts.add(FieldDoubt.DUPLICATE)
    if doubts or _SUSPECT.search(b"\n" + block.lower()) is not None:
        _look_closer(block, seen, doubts)
    return Fields(
        tuple(dict.fromkeys(seen[b"type"])),
        tuple(dict.fromkeys(seen[b"transfer-encoding"])),
        tuple(dict.fromkeys(seen[b"disposition"])),
        frozenset(doubts),
    )


def known_fields(block: bytes) -> int:
    """How many field lines of ``block`` have a name that is well known in mails."""
    return len(_KNOWN.findall(block, 0, 16 * KIB))


def _line_doubts(block: bytes) -> set[FieldDoubt]:
    doubts = set()
    start = _FROM.match(block)
    if _JUNK.search(block, start.end() if start else 0) is not None:
        doubts.add(FieldDoubt.JUNK_LINE)
    if _BLANK.search(block) is not None:
        doubts.add(FieldDoubt.BLANK_LINE)
    if b"\r" in block and _BARE_CR.search(block) is not None:
        doubts.add(FieldDoubt.BARE_CR)
    return doubts


def _look_closer(block: bytes, seen: dict[bytes, list[bytes]], doubts: set[FieldDoubt]) -> None:
    """Values that only a lenient reader sees, in two views: odd bytes left out, and bare CR as a line end."""
    lines = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    for view in (lines, block.translate(None, _ODD + b"\r"), _INDENTED_FIELD.sub(b"\n", lines)):
        for found in _LOOSE.finditer(view):
            kind = found[1].lower()[:4]
            name = {b"type": b"type", b"tran": b"transfer-encoding", b"disp": b"disposition"}[kind]
            value = _unfolded(found[2])
            if value not in seen[name] and _plausible(name, value):
                seen[name].append(value)
                doubts.add(FieldDoubt.HIDDEN_FIELD)


_SENSE = {
    b"type": re.compile(rb"multi|message|boundary|name|application/|text/", re.I),
    b"transfer-encoding": re.compile(rb"base|64|quoted|uu|yenc|binhex|printable", re.I),
    b"disposition": re.compile(rb"filename|attachment", re.I),
}


def _plausible(name: bytes, value: bytes) -> bool:
    """Whether a loosely found value means anything; a list of field names as in DKIM-Signature does not."""
    return _SENSE[name].search(value[:4096]) is not None


def _unfolded(value: bytes) -> bytes:
    return (_FOLD.sub(b" ", value) if b"\n" in value or b"\r" in value else value).strip()
