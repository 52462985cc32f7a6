"""RTF: the objects in it, however their hex digits are hidden, and what else runs or is loaded (RTF 1.9.1).

Word takes the hex digits of ``\\objdata`` whatever stands between them: control words, groups that are to be ignored,
white space, any other characters. The object that comes out is a part, and so is what it holds.
"""

from __future__ import annotations

import binascii
import mmap
import re
from collections.abc import Iterator

from icapscan.findings import Reason
from icapscan.limits import KIB
from icapscan.store import PartStore
from icapscan.unwrap.active_content import is_remote, reported
from icapscan.unwrap.contract import Bid, Context, Evidence
from icapscan.unwrap.events import Audience, PartEnd, PartEvent, PartFailed
from icapscan.unwrap.gate import Stop
from icapscan.unwrap.members import Members, spent
from icapscan.unwrap.ole_facts import classes_in
from icapscan.unwrap.ole_file import MAGIC
from icapscan.unwrap.ole_package import STRING_MAX, OleObject, ole_object, package

OBJECTS_MAX = 200
"""Objects of one file. A report with a formula in every line has some hundred; each is looked at twice."""
MARKS_MAX = 500_000
"""Braces and backslashes in the data of all objects of one file; an ordinary object has none. Half a second of work."""
WINDOW = 256 * KIB
"""Bytes that are searched at once for the end of a run of digits."""
Data = bytes | mmap.mmap
_HEX = b"0123456789abcdefABCDEF"
_NOT_HEX = bytes(code for code in range(256) if code not in _HEX)
_MARK = re.compile(rb"[{}\\]")
_WORD = re.compile(rb"\\(?:([a-zA-Z]+)(-?\d{0,20})\x20?|\r?\n|.)", re.S)
_OBJECT = re.compile(rb"\\objdata(?![a-zA-Z])")
_FACTS = (
    (re.compile(rb"\\objupdate(?![a-zA-Z])"), "rtf-objupdate"),
    (re.compile(rb"\\objautlink(?![a-zA-Z])"), "ole-link"),
    (re.compile(rb"\\objocx(?![a-zA-Z])"), "rtf-control"),
    (re.compile(rb"\\template[ \r\n]{0,9}([^{}]{0,400})"), "remote-template"),
    (re.compile(rb"\\fldinst[^;]{0,200}?(DDE(?:AUTO)?[ \r\n][^{}]{0,200})", re.I), "dde"),
    (re.compile(rb"\\objclass[ \r\n]{0,9}(Equation\.[23])", re.I), "equation-object"),
)
"""What is told besides the objects: pattern and kind."""


class RtfFormat:
    """Bids on ``{\\rt``, which is all that Word asks for."""

    name = "rtf"
    prefixes = (b"{\\",)

    def bid(self, evidence: Evidence) -> Bid:
        return Bid.YES if evidence.first.startswith(b"{\\rt") else Bid.NO

    def open(self, context: Context) -> RtfDecoder:
        return RtfDecoder(context)


class RtfDecoder:
    """One RTF file."""

    __slots__ = ("_marks", "_members")

    def __init__(self, context: Context) -> None:
        self._members = Members(context, Audience.ALL)
        self._marks = 0

    def mark(self) -> None:
        """Count a brace or backslash among digits. Raises `Stop` when there are too many."""
        self._marks += 1
        if self._marks > MARKS_MAX:
            self._members.context.gate.stop("control words in the objects of an RTF file")

    def read(self, store: PartStore) -> Iterator[PartEvent]:
        return reported(self._events(store), self._members)

    def _events(self, store: PartStore) -> Iterator[PartEvent]:
        data = store.view()
        try:
            yield from self._facts(data)
            for number, found in enumerate(_OBJECT.finditer(data), 1):
                if number > OBJECTS_MAX:
                    self._members.context.gate.stop("objects in an RTF file")
                yield from self._object(data, found.end(), number)
        except Stop as stop:
            yield spent(stop)
        finally:
            store.relax()

    def _facts(self, data: Data) -> Iterator[PartEvent]:
        for pattern, kind in _FACTS:
            self._members.context.gate.room()
            found = pattern.search(data)
            if found is not None:
                detail = found[1] if pattern.groups else b""
                text = detail.decode("latin-1")
                if kind != "remote-template" or is_remote(text.replace("\\\\", "\\")):
                    yield from self._members.anomaly(kind, text)

    def _object(self, data: Data, at: int, number: int) -> Iterator[PartEvent]:
        """The data of one object: as Word joins its digits, and as it does where an escape drops half a byte."""
        first = Digits(data, at, False, self)
        yield from self._reading(first, f"object{number}", 0)
        if first.hidden:
            yield from self._members.anomaly("rtf-obfuscated-object", f"object {number}")
        if first.escapes:
            yield from self._reading(Digits(data, at, True, self), f"object{number}", 1)

    def _reading(self, digits: Digits, name: str, reading: int) -> Iterator[PartEvent]:
        members = self._members
        key, begin = members.begin((name,), reading)
        yield begin
        head = bytearray()
        inner: _Inner | None = None
        try:
            for piece in digits.pieces():
                yield from members.data(key, piece)
                if inner is None:
                    head += piece
                    if len(head) >= 4 * STRING_MAX:
                        inner = _Inner(members, bytes(head), name, reading)
                        yield from inner.begin()
                else:
                    yield from inner.feed(piece)
            if inner is None:
                inner = _Inner(members, bytes(head), name, reading)
                yield from inner.begin()
            yield from inner.end()
        except Stop as stop:
            yield PartFailed(key, stop.reason, stop.detail)
            if inner is not None and inner.key:
                yield PartFailed(inner.key, stop.reason, stop.detail)
            raise
        yield PartEnd(key)
        if not digits.size:
            yield from members.anomaly("rtf-empty-object", name)
        if digits.cut:
            yield PartFailed(key, Reason.MALFORMED, "The data of an object is cut short.")


class _Inner:
    """What an object holds, as a part of its own: the native data, or the file in a package."""

    def __init__(self, members: Members, head: bytes, name: str, reading: int) -> None:
        self._members = members
        self._head = head
        self._name = name
        self._reading = reading
        self._skip = 0
        self._left = 0
        self.key = ""

    def begin(self) -> Iterator[PartEvent]:
        """Look at the first bytes."""
        head, members = self._head, self._members
        found = ole_object(head)
        at = head.find(MAGIC)
        names: tuple[str, ...] = (f"{self._name}-data",)
        self._left = 1 << 62
        if found is not None:
            yield from self._facts(found)
            inside = package(head, found.start)
            if inside is not None:
                names, self._skip, self._left = inside.names or names, inside.start, inside.size
                yield from members.anomaly("ole-package", names[0])
            elif found.linked:
                return
            else:
                self._skip = found.start if at < 0 or head.startswith(MAGIC, found.start) else at
        elif at >= 0:  # Word looks no closer at the header either
            self._skip = at
        else:
            return
        for kind in classes_in(head):
            yield from members.anomaly(kind, self._name)
        self.key, begin = members.begin(names, self._reading)
        yield begin
        self._head = b""
        yield from self.feed(head)

    def feed(self, piece: bytes) -> Iterator[PartEvent]:
        """More of the object."""
        if not self.key:
            return
        wanted = piece[self._skip : self._skip + self._left]
        self._skip = max(0, self._skip - len(piece))
        self._left -= len(wanted)
        if wanted:
            yield from self._members.data(self.key, wanted)

    def end(self) -> Iterator[PartEvent]:
        """No more of it."""
        if self.key:
            yield PartEnd(self.key)
            self.key = ""

    def _facts(self, found: OleObject) -> Iterator[PartEvent]:
        name = found.class_name.lower()
        if name.startswith("equation"):
            yield from self._members.anomaly("equation-object", found.class_name)
        elif name == "ole2link" or found.linked:
            yield from self._members.anomaly("ole-link", found.topic or found.class_name)


class Digits:
    """Joins the hex digits of one object from ``at`` to the end of its group.

    ``dropping``: an escape (``\\'xx``) takes back a digit that waits for its other half; versions of Word differ.
    """

    def __init__(self, data: Data, at: int, dropping: bool, decoder: RtfDecoder) -> None:
        self._decoder = decoder
        self._data = data
        self._at = at
        self._dropping = dropping
        self.hidden = False
        """There was something other than digits and white space among them."""
        self.escapes = False
        self.cut = False
        """The file ended before the group did."""
        self.size = 0

    def pieces(self) -> Iterator[bytes]:
        """The bytes, in pieces of at most half of `WINDOW`."""
        half = b""
        for raw in self._runs():
            if raw is None:
                self.escapes = True
                half = b"" if self._dropping else half
                continue
            if isinstance(raw, memoryview):  # \bin: bytes as they are
                half = b""
                self.size += len(raw)
                yield bytes(raw)
                continue
            digits = half + raw.translate(None, _NOT_HEX)
            half = digits[len(digits) & ~1 :]
            if len(digits) > 1:
                out = binascii.unhexlify(digits[: len(digits) & ~1])
                self.size += len(out)
                yield out

    def _runs(self) -> Iterator[bytes | memoryview | None]:
        """Text of the group and of groups in it that are not to be ignored; None for an escape."""
        data, at, depth, end = self._data, self._at, 0, len(self._data)
        skipping = 0
        """The depth of a group that is to be ignored; 0 when there is none."""
        while at < end:
            found = _MARK.search(data, at, at + WINDOW)
            stop = found.start() if found is not None else min(end, at + WINDOW)
            if stop > at and not skipping:
                yield self._seen(data[at:stop])
            if found is None:
                at = stop
                continue
            self._decoder.mark()
            mark = data[stop : stop + 1]
            at = stop + 1
            if mark == b"{":
                depth += 1
                self.hidden = True
                if not skipping and data[at : at + 2] == b"\\*":
                    skipping = depth
            elif mark == b"}":
                if depth == 0:
                    return
                depth -= 1
                if depth < skipping:
                    skipping = 0
            else:
                word = _WORD.match(data, stop)
                self.hidden = True
                if word is None:
                    break
                at = word.end()
                if word[1] == b"bin":
                    size = max(0, int(word[2] or b"0"))
                    if not skipping:
                        for begin in range(at, min(at + size, end), WINDOW):
                            yield memoryview(data[begin : min(begin + WINDOW, at + size)])
                    at += size
                elif word[0] == b"\\'" and not skipping:
                    at += 2
                    yield None
        self.cut = True

    def _seen(self, run: bytes) -> bytes:
        if not self.hidden and run.translate(None, _HEX + b" \t\r\n"):
            self.hidden = True
        return run
