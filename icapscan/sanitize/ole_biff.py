"""What acts in an Excel workbook (MS-XLS) becomes something that does not, in place: no record changes its size.

A macro sheet becomes a worksheet whose formulas all compute 0; names that run macros are plain names for 0; the path of
a DDE link becomes the name of a workbook that is nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct as Packed

from icapscan.sanitize.contract import CannotSanitize
from icapscan.unwrap.gate import Gate

_HEAD = Packed("<HH")
_U16 = Packed("<H")
_U32 = Packed("<I")
_BOF, _EOF, _FILEPASS, _BOUNDSHEET, _NAME, _EXTERN_SHEET, _SUPBOOK = 0x809, 0x0A, 0x2F, 0x85, 0x18, 0x17, 0x1AE
_MACRO_TYPES = (0x06, 0x40)
"""VBA module of Excel 5, and macro sheet (BOF, 2.4.21)."""
_WORKSHEET = 0x10
_FORMULAS = {0x0006: 20, 0x0206: 20, 0x0406: 20, 0x0221: 12, 0x04BC: 8}
"""Records with a formula: Formula in three versions, Array, ShrFmla; and where the size of the formula stands."""
_POINTS = (1, 2)
"""PtgExp and PtgTbl: the formula is in another record."""
_STEP = 4096


class Workbook:
    """One Workbook or Book stream."""

    def __init__(self, stream: bytearray, gate: Gate) -> None:
        """Raises `CannotSanitize` for what is encrypted or older than Excel 5."""
        self._stream = stream
        self._gate = gate
        if len(stream) < 8 or _HEAD.unpack_from(stream)[0] != _BOF:
            raise CannotSanitize("A workbook of this version of Excel cannot be cleaned.")
        self._newest = _U16.unpack_from(stream, 4)[0] == 0x0600
        self.macro_sheets = 0
        self.links = 0

    def clean(self) -> None:
        """Change the stream."""
        names = []
        sheets: list[int] = []
        for kind, at, size in self._records(0):
            if kind == _FILEPASS:
                raise CannotSanitize("The workbook is encrypted.")
            if kind == _BOUNDSHEET and size > 6 and self._stream[at + 5] in (1, 6):
                self._stream[at + 5] = 0
                sheets.append(_U32.unpack_from(self._stream, at)[0])
            elif kind == _NAME:
                names.append((at, size))
            elif kind in (_SUPBOOK, _EXTERN_SHEET):
                self._link(kind, at, size)
        sheets += self._hidden_sheets()
        for at in sheets:
            self._sheet(at)
        if self.macro_sheets or sheets:
            self.macro_sheets = max(self.macro_sheets, len(set(sheets)))
            for at, size in names:
                self._name(at, size)

    def _records(self, at: int) -> Iterator[tuple[int, int, int]]:
        """Kind, place of the data and its size, of one substream with those in it (charts)."""
        stream, depth, count = self._stream, 0, 0
        while at + 4 <= len(stream):
            kind, size = _HEAD.unpack_from(stream, at)
            if at + 4 + size > len(stream):
                raise CannotSanitize("A record of the workbook is cut short.")
            yield kind, at + 4, size
            at += 4 + size
            depth += (kind == _BOF) - (kind == _EOF)
            count += 1
            if count % _STEP == 0:
                self._gate.room()
            if depth <= 0:
                return

    def _hidden_sheets(self) -> list[int]:
        """Macro sheets that the list of sheets does not name."""
        found, at, count = [], 0, 0
        while at + 8 <= len(self._stream):
            kind, size = _HEAD.unpack_from(self._stream, at)
            if kind == _BOF and size >= 4 and _U16.unpack_from(self._stream, at + 6)[0] in _MACRO_TYPES:
                found.append(at)
            at += 4 + size
            count += 1
            if count % _STEP == 0:
                self._gate.room()
        return found

    def _sheet(self, begin: int) -> None:
        if begin + 8 > len(self._stream) or _HEAD.unpack_from(self._stream, begin)[0] != _BOF:
            raise CannotSanitize("A macro sheet of the workbook is not where it should be.")
        if _U16.unpack_from(self._stream, begin + 6)[0] in _MACRO_TYPES:
            _U16.pack_into(self._stream, begin + 6, _WORKSHEET)
            self.macro_sheets += 1
        for kind, at, size in self._records(begin):
            if kind in _FORMULAS:
                self._formula(at, size, _FORMULAS[kind])

    def _formula(self, at: int, size: int, where: int) -> None:
        if size < where + 2:
            raise CannotSanitize("A formula of the workbook is cut short.")
        length, start = _U16.unpack_from(self._stream, at + where)[0], at + where + 2
        if where + 2 + length > size:
            raise CannotSanitize("A formula of the workbook is cut short.")
        if length and not (self._stream[start] in _POINTS and length == 5):
            self._stream[start : start + length] = _nought(length)
            self._stream[start + length : at + size] = bytes(at + size - start - length)

    def _name(self, at: int, size: int) -> None:
        """A defined name (Lbl, 2.4.150): one that runs by itself, or is marked as a macro."""
        stream = self._stream
        if size < 15:
            return
        flags, count, length = stream[at], stream[at + 3], _U16.unpack_from(stream, at + 4)[0]
        begin = at + 14
        code = stream[begin + 1] if self._newest and size > 15 else stream[begin]
        if not (flags & 0x0E or (flags & 0x20 and count == 1 and code in (1, 2, 3, 4))):
            return
        if self._newest:
            count = 1 + count * (2 if stream[begin] & 1 else 1)
        start = begin + count
        if start + length > at + size:
            raise CannotSanitize("A name of the workbook is cut short.")
        stream[at] = flags & ~0x0E
        if length:
            stream[start : start + length] = _nought(length)

    def _link(self, kind: int, at: int, size: int) -> None:
        """The path of a link has a \\x03 between program and topic where it is DDE or OLE (2.5.277)."""
        stream = self._stream
        if kind == _EXTERN_SHEET:  # Excel 5: the path behind its length; later: numbers
            start, end = at + 1, at + size
            if self._newest or b"\3" not in stream[start:end]:
                return
        else:
            start, end = at + 5, at + size
            if size < 6 or _U16.unpack_from(stream, at + 2)[0] in (0x0401, 0x3A01) or 3 not in stream[start:end]:
                return
        wide = kind == _SUPBOOK and stream[at + 4] & 1
        fill = "_".encode("utf-16-le") if wide else b"_"
        stream[start:end] = (fill * (end - start))[: end - start]
        self.links += 1


def _nought(length: int) -> bytes:
    """A formula of so many bytes that computes 0: a number and plus signs before it."""
    if length < 3:
        return (b"\x16", b"\x1d\0")[length - 1]  # a missing argument; FALSE
    return b"\x1e\0\0" + b"\x12" * (length - 3)
