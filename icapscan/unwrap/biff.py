"""What the records of an Excel workbook (MS-XLS 2.3) say: macro sheets of Excel 4.0, DDE links, encryption."""

from __future__ import annotations

from struct import Struct as Packed

from msgspec import Struct

RECORDS_MAX = 20_000
"""Records of the workbook globals; every style, name and sheet has one, and rows are not among them."""
_HEAD = Packed("<HH")
_EOF, _FILEPASS, _NAME, _EXTERN_SHEET, _BOUNDSHEET, _SUPBOOK = 0x0A, 0x2F, 0x18, 0x17, 0x85, 0x1AE
_BOFS = (0x009, 0x209, 0x409, 0x809)
_BIFF8 = b"\0\x06"
"""Version in the first record of Excel 97 and later."""
_AUTO = {1: "Auto_Open", 2: "Auto_Close", 3: "Auto_Activate", 4: "Auto_Deactivate"}
_HIDDEN = {1: "hidden", 2: "very hidden"}


class Workbook(Struct, frozen=True):
    """What is told of a workbook."""

    encrypted: bool = False
    macro_sheets: tuple[str, ...] = ()
    """Names, with the word hidden where it is."""
    automatic: tuple[str, ...] = ()
    """Names that run a macro by themselves."""
    dde: tuple[str, ...] = ()
    """Program and topic."""
    incomplete: bool = False
    """There are more records than are looked at."""


def workbook(data: bytes) -> Workbook:
    """The globals substream at the start of a Workbook or Book stream; an encrypted one is not read past FilePass."""
    sheets: list[str] = []
    automatic: list[str] = []
    dde: list[str] = []
    at = count = 0
    newest = data[4:6] == _BIFF8
    while at + 4 <= len(data):
        kind, size = _HEAD.unpack_from(data, at)
        body = data[at + 4 : at + 4 + size]
        if at == 0 and kind not in _BOFS:
            return Workbook()
        if at == 0 and len(body) >= 4 and body[2] == 0x40:
            sheets.append("whole file")  # BIFF2 to BIFF4: one sheet a file, and this one is a macro sheet
        at += 4 + size
        count += 1
        if kind == _FILEPASS:
            return Workbook(True, tuple(sheets), tuple(automatic), tuple(dde))
        if kind == _EOF or count > RECORDS_MAX:
            break
        if kind == _BOUNDSHEET and len(body) > 6 and body[5] in (1, 6):
            sheets.append(_sheet(body))
        elif kind == _NAME and len(body) > 15 and body[0] & 0x20:
            automatic += _automatic(body)
        elif kind == _SUPBOOK and len(body) > 4:
            dde += _link(body[2:])
        elif kind == _EXTERN_SHEET and not newest and len(body) > 2 and b"\3" in body[1:]:  # BIFF8: numbers of sheets
            dde.append(body[1 : 1 + body[0]].decode("cp1252", "replace").replace("\3", "|"))
    return Workbook(False, tuple(sheets), tuple(automatic), tuple(dde), count > RECORDS_MAX)


def _sheet(body: bytes) -> str:
    hidden = _HIDDEN.get(body[4] & 3, "")
    wide = len(body) > 7 and body[7] & 1
    name = body[8:].decode("utf-16-le", "replace") if wide else body[8:].decode("cp1252", "replace")
    return f"{name} ({hidden})" if hidden else name


def _automatic(body: bytes) -> list[str]:
    """A built-in name is one character; behind a flag byte in BIFF8."""
    code = body[15] if body[14] in (0, 1) and body[3] == 1 else body[14]
    return [_AUTO[code]] if code in _AUTO else []


def _link(body: bytes) -> list[str]:
    """A virtual path (MS-XLS 2.5.277) of a DDE or OLE link has a \\x03 between program and topic."""
    length = int.from_bytes(body[:2], "little")
    if length in (0x0401, 0x3A01) or len(body) < 4:
        return []
    wide = body[2] & 1
    raw = body[3 : 3 + length * (2 if wide else 1)]
    text = raw.decode("utf-16-le" if wide else "cp1252", "replace")
    return [text.replace("\3", "|")[:200]] if "\3" in text else []
