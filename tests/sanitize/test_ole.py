"""OLE2: macros, Excel 4, DDE and objects are blanked in place; the file keeps its size, and readers find no macro."""

from __future__ import annotations

import io
import random
import struct
import zlib

import olefile
import pytest

from icapscan.limits import Limits
from icapscan.sanitize.documents import CleanOptions
from icapscan.sanitize.ole_biff import Workbook
from icapscan.unwrap.ole_facts import CLASSES
from icapscan.unwrap.ole_file import OleFile
from tests.sanitize.document_views import cleaned, has_macros, seen
from tests.sanitize.test_archive import EICAR, MACROS, ok
from tests.sanitize.test_office import macro_document
from tests.unwrap.ole_maker import biff, native, ole, vba_project

TEXT = bytes(range(256)) * 40
WORD = bytes(40) + TEXT
"""A text of Word: nothing in its header says that it is encrypted."""
PROJECT = vba_project({"Module1": 'Sub AutoOpen()\r\nShell "calc"\r\nEnd Sub', "ThisDocument": "x"})
NAMES = {
    "Macros/PROJECT": b"ID={1}",
    "Macros/PROJECTwm": b"x",
    "Macros/Form1/\3VBFrame": b"VERSION",
    "Macros/Form1/f": b"f",
}


def streams(data: bytes) -> dict[str, bytes]:
    """By another reader."""
    with olefile.OleFileIO(io.BytesIO(data)) as file:
        return {"/".join(path): file.openstream(path).read() for path in file.listdir()}


def others(before: bytes, after: bytes, *changed: str) -> None:
    """Everything but these streams is as it was."""
    old, new = streams(before), streams(after)
    assert len(before) == len(after)
    for name in new:
        if not name.startswith(changed):
            assert new[name] == old[name], name


# VBA


@pytest.mark.parametrize("large", [False, True])
def test_a_project_is_gone_and_the_document_as_it_was(large: bool) -> None:
    code = TEXT if large else b"p-code"
    project = vba_project({"Module1": 'Sub AutoOpen()\r\nShell "calc"\r\nEnd Sub'}, code=code)
    more = {f"Storage{number}/x": bytes([number]) * 90 for number in range(40)}
    data = ole({"WordDocument": WORD, **project, **NAMES, "1Table": TEXT[:5000], **more, "\5Summary": b"s"})
    assert has_macros(data) and "Macro_Starts_Program" in seen(data).hits
    result = ok(cleaned(data, "x.doc"))
    assert (result.name, result.what) == ("", ("macros",))
    assert set(streams(result.data)) == {"WordDocument", "1Table", "\5Summary", *more}
    others(data, result.data)
    for trace in (b"\0Attribut", "Module1".encode("utf-16-le"), b"VERSION", code[:200], b"ID={1}"):
        assert trace in data and (trace not in result.data or trace == TEXT[:200])
    look = seen(result.data)
    assert not look.active and not look.hits and not look.failed and not has_macros(result.data)


def test_the_directory_stays_a_tree_that_can_be_searched() -> None:
    """Every name is found by comparing from the root of its storage, as Windows does (MS-CFB 2.6.4)."""
    for count in (1, 2, 3, 6, 7, 8, 31, 32, 33):
        data = ole({**PROJECT, **{f"n{number * 7 % 40:x}": b"x" for number in range(count)}})
        after = ok(cleaned(data)).data
        file = OleFile(after)
        rows = [after[at : at + size] for at, size in file.directory_spans()]
        entries = [b"".join(rows)[at : at + 128] for at in range(0, len(b"".join(rows)), 128)]
        for entry in file.entries[1:]:
            number, steps = struct.unpack_from("<I", entries[0], 76)[0], 0
            wanted = len(entry.name), entry.name.upper()
            while number != entry.number:
                row = entries[number]
                name = row[: struct.unpack_from("<H", row, 64)[0] - 2].decode("utf-16-le")
                number = struct.unpack_from("<I", row, 68 if wanted < (len(name), name.upper()) else 72)[0]
                steps += 1
                assert steps <= 6
        _check_colors(entries, struct.unpack_from("<I", entries[0], 76)[0])


def _check_colors(entries: list[bytes], number: int, above: int = 1) -> int:
    """No red one below a red one, and as many black ones on every way down."""
    if number == 0xFFFF_FFFF:
        return 1
    color = entries[number][67]
    assert color or above
    left, right = (_check_colors(entries, struct.unpack_from("<I", entries[number], at)[0], color) for at in (68, 72))
    assert left == right
    return left + color


def test_wherever_the_project_stands() -> None:
    for folder in ("", "_VBA_PROJECT_CUR/", "ObjectPool/_1234/Macros/", "x/"):
        data = ole({"WordDocument": WORD, **vba_project({"M": "Sub a()\r\nEnd Sub"}, folder=folder)})
        result = ok(cleaned(data))
        assert not seen(result.data).active and not has_macros(result.data)
        assert set(streams(result.data)) == {"WordDocument"}


def test_a_module_without_a_project() -> None:
    """Hidden from those who look for the directory of a project."""
    data = ole({"WordDocument": WORD, "hidden/stream": PROJECT["Macros/VBA/Module1"]})
    assert "vba-macro" in seen(data).active
    result = ok(cleaned(data))
    assert not seen(result.data).active and not any(streams(result.data)["hidden/stream"])
    data = ole({"WordDocument": WORD, "hidden/dir": PROJECT["Macros/VBA/dir"]})
    assert not any(streams(ok(cleaned(data)).data)["hidden/dir"])


def test_a_module_in_the_text_itself_is_not_cleaned() -> None:
    assert cleaned(ole({"WordDocument": WORD + PROJECT["Macros/VBA/Module1"]})) is None


# Excel


def bof(kind: int, version: int = 0x0600) -> bytes:
    return biff(0x809, struct.pack("<HHHH", version, kind, 0, 0) + bytes(8))


def formula(tokens: bytes, kind: int = 6, more: bytes = b"") -> bytes:
    return biff(kind, bytes(20) + struct.pack("<H", len(tokens)) + tokens + more)


EXEC = b"\x17\x04\0calc\x42\1\x6e\0"
"""PtgStr, PtgFuncVar."""


def book(
    kind: int = 0x40, sheet_type: int = 1, version: int = 0x0600, name: bytes | None = None, body: bytes = b""
) -> bytes:
    """A workbook with a worksheet and a macro sheet."""
    if name is None:
        name = struct.pack("<HBBHHHBBBB", 0x20, 0, 1, 7, 0, 0, 0, 0, 0, 0) + b"\0\1" + b"\x3a\0\0\0\0\0\0"
    before = (
        bof(5, version) + biff(0x85, bytes(6) + b"\1\0a") + biff(0x85, bytes(4) + bytes([0, sheet_type]) + b"\1\0m")
    )
    before += biff(0x18, name) + biff(0x0A, b"")
    plain = bof(0x10, version) + formula(b"\x1e\7\0") + biff(0x0A, b"")
    macro = bof(kind, version) + (body or formula(EXEC, more=b"behind")) + biff(0x0A, b"")
    raw = bytearray(before + plain + macro)
    struct.pack_into("<I", raw, len(bof(5, version)) + 4, len(before))
    struct.pack_into("<I", raw, len(bof(5, version)) + 17, len(before) + len(plain))
    return bytes(raw).ljust(5000, b"\0")


@pytest.mark.parametrize(("kind", "sheet_type"), [(0x40, 1), (0x06, 6), (0x40, 0)])
def test_excel_4_macros(kind: int, sheet_type: int) -> None:
    data = ole({"Workbook": book(kind, sheet_type), "x": TEXT})
    assert ("Excel4_Macro" in seen(data).hits) is bool(sheet_type)
    result = ok(cleaned(data, "x.xls"))
    assert result.what == ("sheets of Excel 4 macros",)
    stream = streams(result.data)["Workbook"]
    assert b"calc" not in stream and b"behind" not in stream and EXEC[-4:] not in stream
    assert formula(b"\x1e\7\0") in stream, "the other sheet is as it was"
    assert b"\x3a" not in stream, "the name that opens itself leads to 0"
    others(data, result.data, "Workbook")
    look = seen(result.data)
    assert not look.active and not look.hits and not has_macros(result.data)


@pytest.mark.parametrize("length", range(1, 12))
def test_formulas_of_every_length_compute_nothing(length: int) -> None:
    body = formula(b"\xee" * length) + biff(0x221, bytes(12) + struct.pack("<H", length) + b"\xee" * length)
    body += biff(0x4BC, bytes(8) + struct.pack("<H", length) + b"\xee" * length) + biff(0x201, bytes(6))
    stream = streams(ok(cleaned(ole({"Workbook": book(body=body)}))).data)["Workbook"]
    sheet = stream[stream.rindex(bof(0x10)) :]
    assert b"\xee" not in sheet and biff(0x201, bytes(6)) in sheet
    for nought in (formula, lambda tokens: biff(0x221, bytes(12) + struct.pack("<H", length) + tokens)):
        tokens = {1: b"\x16", 2: b"\x1d\0"}.get(length, b"\x1e\0\0" + b"\x12" * (length - 3))
        assert nought(tokens) in sheet


@pytest.mark.parametrize("wide", [False, True])
def test_dde_links(wide: bool) -> None:
    path = "cmd\3/c calc"
    link = struct.pack("<HHB", 0, len(path), wide) + path.encode("utf-16-le" if wide else "latin-1")
    sheets = biff(0x17, struct.pack("<HHHH", 1, 0, 3, 3))
    data = ole({"Workbook": (bof(5) + biff(0x1AE, link) + sheets + biff(0x0A, b"")).ljust(5000, b"\0")})
    assert "DDE_Link" in seen(data).hits
    result = ok(cleaned(data))
    stream = streams(result.data)["Workbook"]
    assert stream[len(bof(5)) + 9 :].startswith("_".encode("utf-16-le" if wide else "latin-1") * 5)
    assert sheets in stream and not seen(result.data).active


def test_names_of_excel_5() -> None:
    name = struct.pack("<HBBHHHBBBB", 0x08, 0, 3, 3, 0, 0, 0, 0, 0, 0) + b"abc" + b"\x17\1x"
    result = ok(cleaned(ole({"Book": book(version=0x0500, name=name)})))
    stream = streams(result.data)["Book"]
    assert name not in stream and b"abc" + b"\x1e\0\0" in stream


@pytest.mark.parametrize(
    "stream",
    [
        (bof(5) + biff(0x2F, bytes(6)) + biff(0x0A, b"")).ljust(5000, b"\0"),
        biff(0x409, struct.pack("<HH", 0, 0x40) + bytes(2)).ljust(5000, b"\0"),
        bof(5) + biff(0x85, struct.pack("<I", 7) + b"\0\1\1\0m") + biff(0x0A, b"") + bytes(5000),
        book(body=biff(6, bytes(20) + struct.pack("<H", 999))),
        book(body=b"\6\0\xff\xff")[:700],
    ],
)
def test_workbooks_that_are_not_cleaned(stream: bytes) -> None:
    assert cleaned(ole({"Workbook": stream})) is None


def test_the_workbook_counts_what_it_changed() -> None:
    from icapscan.limits import Budget, Limits
    from icapscan.unwrap.gate import Gate

    stream = bytearray(book())
    one = Workbook(stream, Gate(Budget(Limits())))
    one.clean()
    assert (one.macro_sheets, one.links) == (1, 0) and len(stream) == 5000
    again = bytearray(stream)
    two = Workbook(again, Gate(Budget(Limits())))
    two.clean()
    assert (two.macro_sheets, again) == (0, stream)


# Word, objects, presentations


@pytest.mark.parametrize("field", [b"\x13 DDEAUTO c:\\x \x14", "\x13DDE calc x\x14".encode("utf-16-le")])
@pytest.mark.parametrize("at", [600, 4096 * 16 - 4, 510])
def test_dde_fields_of_word(field: bytes, at: int) -> None:
    text = bytearray(bytes(40) + b"A" * 4096 * 17)
    text[at : at + len(field)] = field
    data = ole({"WordDocument": bytes(text), "x": TEXT})
    assert "dde" in seen(data).active
    result = ok(cleaned(data))
    wide = field[1:2] == b"\0"
    space, marks = (b" \0", 2) if wide else (b" ", 1)
    blank = field[:marks] + space * ((len(field) - 2 * marks) // marks) + field[-marks:]
    text[at : at + len(field)] = blank
    assert streams(result.data)["WordDocument"] == bytes(text) and not seen(result.data).active
    others(data, result.data, "WordDocument")


def test_packages_and_equations() -> None:
    data = ole(
        {
            "WordDocument": WORD,
            "ObjectPool/_1/\1Ole10Native": native("a.exe", b"MZ" + EICAR),
            "ObjectPool/_2/Equation Native": b"\x1c" + bytes(99),
            "ObjectPool/_2/\3ObjInfo": b"info",
        }
    )
    assert {"ole-package", "equation-object"} <= seen(data).active
    result = ok(cleaned(data))
    assert set(result.what) == {"an embedded file", "an equation of the old editor"}
    assert "ObjectPool/_2/Equation Native" not in streams(result.data)
    others(data, result.data, "ObjectPool/_1/\1Ole10Native")
    look = seen(result.data)
    assert not look.active and not look.hits and not any(EICAR in part for part in look.parts.values())
    assert cleaned(data, options=CleanOptions(office_objects=False)) is None


@pytest.mark.parametrize("identifier", CLASSES)
def test_classes_that_are_attacked(identifier: bytes) -> None:
    from uuid import UUID

    data = ole({"x": TEXT, "\1CompObj": b"1234" + identifier + b"5678"}, clsid=str(UUID(bytes_le=identifier)))
    assert CLASSES[identifier] in seen(data).kinds
    result = ok(cleaned(data))
    assert identifier not in result.data and not seen(result.data).active


def test_documents_in_streams() -> None:
    """An OLE2 file is cleaned where it is; one that changes its size is blanked."""
    data = ole({"WordDocument": WORD, "Inner": MACROS, "Package": macro_document(), "Other": ole({"x": TEXT})})
    result = ok(cleaned(data))
    new = streams(result.data)
    assert not any(new["Package"]) and new["Other"] == ole({"x": TEXT})
    assert new["Inner"].startswith(b"\xd0\xcf") and len(new["Inner"]) == len(MACROS)
    assert not seen(result.data).active


def slides(*objects: bytes, packed: bool = True) -> bytes:
    out = struct.pack("<HHI", 15, 1000, 28 + 8) + struct.pack("<HHI", 0x1F, 0x3FF, 20)
    out += struct.pack("<HHIIII", 2, 0x400, 12, 5, 1, 2) + bytes(8)
    for one in objects:
        data = struct.pack("<I", len(one)) + zlib.compress(one, 1) if packed else one
        out += struct.pack("<HHI", 0x10 if packed else 0, 0x1011, len(data)) + data
    return (out + struct.pack("<HHI", 0, 0x1772, 4) + b"last").ljust(5000, b"\0")


@pytest.mark.parametrize("packed", [True, False])
def test_presentations(packed: bool) -> None:
    harmless = ole({"x": TEXT})
    data = ole({"PowerPoint Document": slides(MACROS, harmless, packed=packed), "Current User": b"x"})
    assert "vba-macro" in seen(data).kinds
    result = ok(cleaned(data, "x.ppt"))
    stream = streams(result.data)["PowerPoint Document"]
    assert struct.pack("<HHIIII", 2, 0x400, 12, 5, 0, 2) in stream, "the project is said to be empty"
    look = seen(result.data)
    assert not look.active and not look.failed and not has_macros(result.data)
    assert harmless in look.parts.values()
    others(data, result.data, "PowerPoint Document")


def test_an_attached_file_of_a_message_that_offends() -> None:
    folder = "__attach_version1.0_#00000000"
    data = ole(
        {
            f"{folder}/__substg1.0_3707001F": "évil.exe".encode("utf-16-le"),
            f"{folder}/__substg1.0_37010102": b"MZ" + EICAR + TEXT,
            "__substg1.0_1000001F": b"text",
        }
    )
    path = next(path for path, part in seen(data).parts.items() if part.startswith(b"MZ"))
    assert path == "évil.exe"
    result = ok(cleaned(data, "x.msg", path))
    assert not any(EICAR in part for part in seen(result.data).parts.values())
    others(data, result.data, f"{folder}/__substg1.0_3701")
    assert cleaned(data, "x.msg", "other.exe") is None


# Bad input


def test_floods_end() -> None:
    project = {"VBA/dir": b"\x01\0", "VBA/x": b"x"}
    data = ole({f"s{number}/{name}": text for number in range(500) for name, text in project.items()})
    assert streams(ok(cleaned(data)).data) == {}
    sheets = biff(0x85, struct.pack("<I", 0) + b"\0\1\1\0m") * 3000 + biff(0x0A, b"")
    flood = ole({"Workbook": bof(0x40) + biff(0x201, bytes(6)) * 200_000 + sheets})
    soon = CleanOptions(limits=Limits(seconds=1.0))
    assert cleaned(flood, options=soon) is None


def test_what_is_not_cleaned() -> None:
    data = ole({"WordDocument": WORD, **PROJECT})
    assert cleaned(ole({"WordDocument": WORD})) is None
    assert cleaned(data[:-2000]) is None and cleaned(data[:600]) is None
    assert cleaned(ole({"WordDocument": WORD, **PROJECT}, cutoff=64)) is None
    locked = bytearray(TEXT)
    locked[10:12] = b"\0\1"
    assert cleaned(ole({"WordDocument": bytes(locked), **PROJECT})) is None


def test_damage_never_lets_macros_pass() -> None:
    data = ole({"WordDocument": WORD[:600], **PROJECT, **NAMES})
    chance, survived = random.Random(5), 0
    for _ in range(400):
        changed = bytearray(data)
        for _ in range(chance.randint(1, 4)):
            changed[chance.randrange(len(changed))] = chance.choice((0, 1, 0xFF, chance.randrange(256)))
        result = cleaned(bytes(changed))
        if result is not None:
            survived += 1
            assert len(result.data) == len(changed)
            look = seen(result.data)
            assert not look.active & {"vba-macro", "vba-auto-run", "vba-starts-program"}
    assert survived > 100
