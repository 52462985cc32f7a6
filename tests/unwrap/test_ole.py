"""OLE2 documents: streams, VBA source, macro sheets, DDE, packages, presentations, messages, MSI, encryption."""

from __future__ import annotations

import random
import struct
import zlib

import pytest

from icapscan.findings import Reason
from icapscan.limits import MIB, Limits
from icapscan.unwrap import vba
from icapscan.unwrap.active_content import NAME
from icapscan.unwrap.ole import OleFormat
from icapscan.unwrap.ole_package import ole_object, package
from icapscan.unwrap.streams import Broken
from tests.unwrap.archive_driver import Got, drive, walk
from tests.unwrap.ole_maker import biff, compress, native, ole, ole1, packed, vba_project

SOURCE = 'Sub AutoOpen()\r\n  MsgBox "hello"\r\nEnd Sub\r\n'
LONG = bytes(range(256)) * 40
BOF = biff(0x809, bytes.fromhex("0006050000000000000000000000000000")[:16])


def read(data: bytes, limits: Limits | None = None) -> Got:
    return drive(OleFormat(), data, limits=limits)


def test_every_stream_is_a_part() -> None:
    got = read(ole({"short": b"x" * 100, "Folder/Deep/long": LONG, "empty": b""}))
    assert got.parts == {"short": b"x" * 100, "Folder/Deep/long": LONG, "empty": b""}
    assert not got.failures and not got.anomalies


def test_names_keep_no_control_characters() -> None:
    assert set(read(ole({"\1CompObj": b"x", "a\nb": b"y"})).parts) == {"%01CompObj", "a%0Ab"}


def test_evasion_89_vba_source_is_a_part() -> None:
    got = read(ole(vba_project({"Module1": SOURCE, "ThisDocument": "Rem nothing"})))
    assert got.parts["Module1.bas"].endswith(SOURCE.encode())
    assert b"Rem nothing" in got.parts["ThisDocument.bas"]
    assert "vba-macro" in got.kinds and not got.failures


def test_evasion_89_vba_source_where_the_directory_lies() -> None:
    """The offset points elsewhere: the source is found by its look. Readers that follow p-code alone see nothing."""
    got = read(ole(vba_project({"Module1": SOURCE}, shift=-5)))
    assert got.parts["Module1.bas"].endswith(SOURCE.encode())
    assert {"vba-wrong-offset", "vba-macro"} <= got.kinds


def test_evasion_89_vba_source_without_a_directory() -> None:
    streams = vba_project({"Module1": SOURCE})
    del streams["Macros/VBA/dir"]
    got = read(ole(streams))
    assert got.parts["Module1.bas"].endswith(SOURCE.encode())
    assert "vba-macro" in got.kinds


def test_evasion_89_two_sources_in_one_module() -> None:
    """The directory points at one, and another one looks like source: both are scanned."""
    first, second = compress(b"Rem the first\r\n"), compress(b'Attribute VB_Name = "x"\r\nRem the second\r\n')
    streams = vba_project({"Module1": ""})
    streams["Macros/VBA/Module1"] = b"p-code" * 20 + first[:-1] + b"\n" + second
    got = read(ole(streams))
    assert any(b"the second" in data for data in got.contents)
    assert any(data.startswith(b"Rem the first") for data in got.contents)
    assert "vba-two-sources" in got.kinds


def test_evasion_89_a_module_without_source() -> None:
    streams = vba_project({"Module1": SOURCE})
    streams["Macros/VBA/Module1"] = b"only p-code" * 30
    got = read(ole(streams))
    assert "vba-no-source" in got.kinds
    assert got.parts["Macros/VBA/Module1"] == b"only p-code" * 30


def test_damaged_source_is_not_clean() -> None:
    streams = vba_project({"Module1": SOURCE * 200})
    module = bytearray(streams["Macros/VBA/Module1"])
    module[4000] ^= 0xFF  # somewhere in the second chunk
    module[-20:] = b"\xff" * 20
    streams["Macros/VBA/Module1"] = bytes(module)
    got = read(ole(streams))
    assert Reason.MALFORMED in got.reasons
    assert b"MsgBox" in got.parts["Module1.bas"]


def test_evasion_89_macro_sheets_and_automatic_names() -> None:
    sheet = struct.pack("<IBB", 0, 2, 1) + bytes([6, 0]) + b"Macro1"
    name = struct.pack("<HBBHHHBBBB", 0x20, 0, 1, 0, 0, 1, 0, 0, 0, 0) + b"\0\x01"
    book = BOF + biff(0x85, sheet) + biff(0x18, name) + biff(0x0A, b"")
    got = read(ole({"Workbook": book}))
    (anomaly,) = got.anomalies
    assert anomaly.kind == "xlm-macro" and anomaly.detail == "Macro1 (very hidden), Auto_Open"


def test_an_ordinary_workbook_says_nothing() -> None:
    sheet = struct.pack("<IBB", 0, 0, 0) + bytes([6, 0]) + b"Sheet1"
    supbook = struct.pack("<HH", 1, 0x0401)
    assert not read(ole({"Workbook": BOF + biff(0x85, sheet) + biff(0x1AE, supbook) + biff(0x0A, b"")})).anomalies


@pytest.mark.parametrize("wide", [False, True])
def test_evasion_89_dde_in_a_workbook(wide: bool) -> None:
    path = "cmd\3/c echo"
    raw = path.encode("utf-16-le" if wide else "latin-1")
    link = struct.pack("<HHB", 0, len(path), wide) + raw
    got = read(ole({"Workbook": BOF + biff(0x1AE, link) + biff(0x0A, b"")}))
    assert [(one.kind, one.detail) for one in got.anomalies] == [("dde", "cmd|/c echo")]


def test_numbers_of_sheets_are_no_dde_link() -> None:
    """EXTERNSHEET of Excel 97 has numbers where older versions have names, and the fourth sheet is number 3."""
    sheets = struct.pack("<HHHH", 1, 0, 3, 3)
    assert not read(ole({"Workbook": BOF + biff(0x17, sheets) + biff(0x0A, b"")})).anomalies
    old = biff(0x809, struct.pack("<HH", 0x500, 5) + bytes(4))
    got = read(ole({"Book": old + biff(0x17, b"\x05\1cmd\3x") + biff(0x0A, b"")}))
    assert [anomaly.kind for anomaly in got.anomalies] == ["dde"]


@pytest.mark.parametrize("field", [b"\x13 DDEAUTO c:\\\\x \x14", "\x13DDE calc \x14".encode("utf-16-le")])
@pytest.mark.parametrize("at", [600, 4096 * 16 - 4])
def test_evasion_89_dde_in_a_word_document(field: bytes, at: int) -> None:
    text = bytearray(4096 * 17)
    text[at : at + len(field)] = field
    assert read(ole({"WordDocument": bytes(text)})).kinds == {"dde"}


def test_evasion_89_a_package_is_extracted_with_its_name() -> None:
    got = read(ole({"ObjectPool/_1/\1Ole10Native": native("invoice.pdf.exe", b"MZ" + LONG)}))
    assert got.parts["invoice.pdf.exe"] == b"MZ" + LONG
    assert got.begins["invoice.pdf.exe"].name == "invoice.pdf.exe"
    assert "ole-package" in got.kinds


def test_evasion_89_a_package_without_its_size() -> None:
    got = read(ole({"\1oLE10nATIVE": packed("a.js", b"var a;")}))
    assert got.parts["a.js"] == b"var a;"


def test_a_package_that_is_shorter_than_it_says() -> None:
    inside = packed("a.exe", b"MZ", size=1 << 31)
    got = read(ole({"\1Ole10Native": struct.pack("<I", len(inside)) + inside}))
    assert got.parts["a.exe"].startswith(b"MZ") and "ole-package-short" in got.kinds


def test_native_data_that_is_no_package() -> None:
    got = read(ole({"\1Ole10Native": struct.pack("<I", 600) + b"PK\3\4" + bytes(596)}))
    assert got.parts["native"] == b"PK\3\4" + bytes(596)


def test_evasion_89_equation_objects() -> None:
    clsid = "0002ce02-0000-0000-c000-000000000046"
    assert read(ole({"Equation Native": b"x"}, clsid)).kinds == {"equation-object"}
    assert read(ole({"other": b"x"}, clsid)).kinds == {"equation-object"}


def test_objects_of_a_presentation() -> None:
    inside = ole({"\1Ole10Native": native("a.vbs", b"Rem")})
    packed_object = struct.pack("<I", len(inside)) + zlib.compress(inside)
    slide = struct.pack("<HHI", 0x000F, 0x03E8, 700) + bytes(700)
    stream = slide + struct.pack("<HHI", 0x0010, 0x1011, len(packed_object)) + packed_object
    stream += struct.pack("<HHI", 0x0000, 0x1011, len(inside)) + inside + slide
    got = read(ole({"PowerPoint Document": stream}))
    assert got.parts["object1"] == got.parts["object2"] == inside
    assert "a.vbs" in {path.rpartition("/")[2] for path in walk(ole({"PowerPoint Document": stream})).leaves}


def test_a_bomb_in_a_presentation_is_over_limit() -> None:
    bomb = struct.pack("<I", 1) + zlib.compress(bytes(40 * MIB), 9)
    got = read(ole({"PowerPoint Document": struct.pack("<HHI", 0x10, 0x1011, len(bomb)) + bomb}))
    assert Reason.OVER_LIMIT in got.reasons and got.budget.unpacked <= 17 * MIB


def test_attachments_of_a_message_have_their_names() -> None:
    folder = "__attach_version1.0_#00000000/__substg1.0_"
    got = read(
        ole({folder + "37010102": b"MZ attached", folder + "3707001F": "r\u00e9sum\u00e9.exe".encode("utf-16-le")})
    )
    assert got.parts["r\u00e9sum\u00e9.exe"] == b"MZ attached"


def test_evasion_92_streams_of_an_msi_have_their_names() -> None:
    alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz._"
    name = "Binary.setup"
    codes = [alphabet.index(char) for char in name]
    encoded = "".join(chr(0x3800 + low + 64 * high) for low, high in zip(codes[::2], codes[1::2], strict=True))
    got = read(ole({encoded: b"MZ program", "\u4840" + encoded: b"table"}))
    assert got.parts[name] == b"MZ program" and got.parts["!" + name] == b"table"


def test_evasion_85_encrypted_documents_are_not_clean() -> None:
    pytest.importorskip("msoffcrypto")
    cases = (
        {"EncryptedPackage": LONG, "EncryptionInfo": b"\4\0\4\0@\0\0\0<encryption/>"},
        {"WordDocument": b"\xec\xa5" + bytes(8) + b"\0\1" + bytes(1000)},
        {"Workbook": BOF + biff(0x2F, bytes(6)) + bytes(100)},
        {"Current User": bytes(12) + bytes.fromhex("dfc4d1f3"), "PowerPoint Document": bytes(100)},
        {"EncryptedSummary": b"x"},
    )
    for streams in cases:
        got = read(ole(streams))
        assert got.reasons == {Reason.ENCRYPTED}, streams
        assert "encrypted-document" in got.kinds
        assert not got.failures[-1].path


def test_evasion_85_hostile_encryption_is_not_tried() -> None:
    """Ten million rounds of hashing, or entities in the description: no password is tried."""
    for described in (b'<x spinCount="10000000"/>', b"<!DOCTYPE x>"):
        got = read(ole({"EncryptedPackage": LONG, "EncryptionInfo": b"\4\0\4\0@\0\0\0" + described}))
        assert got.reasons == {Reason.ENCRYPTED}


@pytest.mark.parametrize("password, opens", [("VelvetSweatshop", True), ("secret of mine", False)])
def test_evasion_85_the_standard_password_is_tried(password: str, opens: bool) -> None:
    msoffcrypto = pytest.importorskip("msoffcrypto")
    from io import BytesIO

    from msoffcrypto.format.ooxml import OOXMLFile

    from tests.unwrap.ooxml_maker import docx

    plain, locked = docx({"noise": random.Random(1).randbytes(9000)}), BytesIO()  # the writer needs some size
    OOXMLFile(BytesIO(plain)).encrypt(password, locked)
    assert msoffcrypto.OfficeFile(BytesIO(locked.getvalue())).is_encrypted()
    got = read(locked.getvalue())
    if opens:
        assert got.parts["decrypted"] == plain and not got.failures
        assert {"encrypted-document", "standard-password"} <= got.kinds
    else:
        assert got.reasons == {Reason.ENCRYPTED} and "decrypted" not in got.parts


@pytest.mark.parametrize(
    "first, second, expected",
    [
        ("Sub AutoOpen()\r\n", 'x = Shell("calc")\r\n', {"vba-auto-run", "vba-starts-program"}),
        ("Private Sub Workbook_Open()\r\n", "  Call Shell(x)\r\n", {"vba-auto-run", "vba-starts-program"}),
        ("sub document_open\r\n", 'CreateObject("WScript.Shell")\r\n', {"vba-auto-run", "vba-starts-program"}),
        ("Sub auto_close()\r\n", "CreateObject(hidden)\r\n", {"vba-auto-run", "vba-starts-program"}),
        ("Sub Image1_Layout(ByVal x)\r\n", "If a Then Shell b\r\n", {"vba-auto-run", "vba-starts-program"}),
        ("Sub AutoOpen()\r\n", 'MsgBox "the shell of an egg"\r\n', {"vba-auto-run"}),
        ("Sub DoIt()\r\n", "Shell x\r\n", {"vba-starts-program"}),
        ("Sub DoIt()\r\n", "' call the shell command\r\n", set()),
    ],
)
def test_evasion_89_what_macros_do(first: str, second: str, expected: set[str]) -> None:
    """Over all modules together, and over the edges of chunks."""
    fill = "Rem something long enough to fill a chunk\r\n" * 85
    got = read(ole(vba_project({"ThisDocument": fill + first, "Module1": fill + second})))
    assert got.kinds - {"vba-macro"} == expected


def test_what_acts_is_told_as_a_text() -> None:
    got = read(ole({**vba_project({"Module1": SOURCE}), "\1Ole10Native": native("a.exe", b"MZ")}))
    assert got.parts[NAME].decode().splitlines() == [
        "vba-macro: Module1",
        "vba-auto-run: autoopen",
        "ole-package: a.exe",
    ]
    assert got.begins[NAME].media_type == "text/x-icapscan-active-content+ole-package+vba-auto-run+vba-macro"


def test_the_text_is_there_before_the_file_fails() -> None:
    got = read(ole({"EncryptedSummary": b"x"}))
    assert got.parts[NAME] == b"encrypted-document: EncryptedSummary\n" and got.failures


# Damage


def test_loops_end() -> None:
    data = bytearray(ole({"long": LONG}))
    fat = len(data) - 512
    data[fat : fat + 80] = struct.pack("<20I", *[0] * 20)
    got = read(bytes(data))
    assert got.failures and got.budget.unpacked < 10 * len(data)


def test_cut_short_is_not_clean() -> None:
    data = ole({"first": LONG, "second": LONG[::-1]})
    for size in (8, 500, 600, 5000, 12000, len(data) - 600):
        assert read(data[:size]).failures, size


@pytest.mark.parametrize("seed", range(40))
def test_damage_never_raises(seed: int) -> None:
    dice = random.Random(seed)
    streams = {**vba_project({"Module1": SOURCE}), "\1Ole10Native": native("a.exe", LONG), "Workbook": BOF + bytes(300)}
    data = bytearray(ole(streams))
    for _ in range(dice.randint(1, 30)):
        data[dice.randrange(len(data))] = dice.randrange(256)
    data = data[: dice.randrange(len(data))] if seed % 4 == 0 else data
    read(bytes(data), Limits(parts=200))


def test_floods_of_records_and_workbooks_are_bounded() -> None:
    flood = struct.pack("<HHI", 0, 0x0FF0, 0) * 300_000
    assert Reason.OVER_LIMIT in read(ole({"PowerPoint Document": flood})).reasons
    locked = BOF + biff(0x2F, bytes(6)) + bytes(100)
    books = {f"{number}/Workbook": BOF + biff(0x0A, b"") for number in range(100)}
    assert read(ole({**books, "Workbook": locked})).reasons == {Reason.ENCRYPTED}


def test_a_huge_directory_is_over_limit_in_the_walker() -> None:
    got = walk(ole({f"stream {number}": b"x" for number in range(300)}), limits=Limits(parts=100))
    assert Reason.OVER_LIMIT in got.reasons


# Small readers


def test_copies_are_decompressed() -> None:
    """The example of MS-OVBA 3.2.2: ``#aaabcdefaaaaghijaaaaaklaaamnopqaaaaaaaaaaaarstuvwxyzaaa``."""
    packed_text = bytes.fromhex(
        "012fb000236161616263646582660070616768696a013808616b6c00306d6e6f700671027004107273747576107778797a003c"
    )
    assert b"".join(vba.decompress(packed_text)) == b"#aaabcdefaaaaghijaaaaaklaaamnopqaaaaaaaaaaaarstuvwxyzaaa"
    assert b"".join(vba.decompress(bytes.fromhex("0103b002614500"))) == b"a" * 73  # 3.2.3: maximum compression


@pytest.mark.parametrize("data", [b"", b"\2", b"\1\0\0", b"\1\3\xb0\xff\xff\xff", b"\1\xff\xbf\0abc"])
def test_what_is_no_compressed_source(data: bytes) -> None:
    with pytest.raises(Broken):
        list(vba.decompress(data))


def test_hostile_copies_stay_in_their_chunk() -> None:
    with pytest.raises(Broken):
        list(vba.decompress(b"\1\x40\xb0\2a" + b"\xff\x0f" * 30 + b"\0\0"))


@pytest.mark.parametrize("size", range(0, 200, 7))
def test_short_packages_and_objects(size: int) -> None:
    """Every prefix is either none, or says where its data would begin."""
    whole = packed("name.txt", b"data" * 30)
    found = package(whole[:size])
    assert found is None or found.start <= size
    made = ole1("Package", whole)
    inside = ole_object(made[:size])
    assert inside is None or inside.class_name == "Package"


def test_a_directory_that_is_cut_short_is_told() -> None:
    """Cut within the directory: entries that nobody can read any more may be anything."""
    whole = ole({"Folder/stream": b"x" * 700, "other": b"text"})
    cuts = 0
    for cut in range(512, len(whole), 128):
        got = read(whole[:cut])
        complete = {b"x" * 700, b"text"} <= set(got.contents)
        assert complete or got.reasons == {Reason.MALFORMED}, cut
        cuts += not complete
    assert cuts > 10
