"""Zips: the bad member goes, a notice comes, and everything else keeps its exact bytes."""

from __future__ import annotations

import io
import random
import struct
import zipfile
import zlib

import pytest

from icapscan.limits import MIB, Limits
from icapscan.sanitize.contract import Cleaned, Target
from icapscan.sanitize.documents import CleanOptions, DocumentCleaner, clean_document
from tests.sanitize.document_views import cleaned, has_macros, seen
from tests.unwrap.ole_maker import ole, vba_project
from tests.unwrap.ooxml_maker import docx
from tests.unwrap.zip_maker import DESCRIPTOR, Made, deflated, made_zip

EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-" + rb"STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
TEXT = b"An ordinary text.\r\n" * 50
MACROS = ole(vba_project({"Module1": 'Sub AutoOpen()\r\nShell "calc"\r\nEnd Sub'}))


def plain_zip(members: dict[str, bytes]) -> bytes:
    """As Python writes it, with times, permissions, comments and an extra field."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.comment = b"the comment"
        for number, (name, data) in enumerate(members.items()):
            info = zipfile.ZipInfo(name, (2024, 5, 6, 7, 8, 10 + 2 * number))
            info.compress_type = zipfile.ZIP_STORED if number % 2 else zipfile.ZIP_DEFLATED
            info.external_attr = 0o100640 << 16
            info.comment = b"of a member"
            info.extra = b"UT\x05\x00\x01abcd"
            archive.writestr(info, data)
    return target.getvalue()


def raw(data: bytes) -> dict[str, tuple[bytes, bytes]]:
    """Of each member its local header with the data, and its directory header without the offset."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
        ends = [*(info.header_offset for info in infos[1:]), archive.start_dir]
        found = {}
        at = archive.start_dir
        central = {}
        for _ in infos:
            sizes = struct.unpack_from("<HHH", data, at + 28)
            name = data[at + 46 : at + 46 + sizes[0]].decode()
            end = at + 46 + sum(sizes)
            central[name] = data[at : at + 42] + data[at + 46 : end]
            at = end
        for info, end in zip(infos, ends, strict=True):
            found[info.filename] = data[info.header_offset : end], central[info.filename]
    return found


def names(data: bytes) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        return archive.namelist()


def member(data: bytes, name: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read(name)


def ok(result: Cleaned | None) -> Cleaned:
    assert result is not None
    return result


def test_the_bad_member_goes_and_all_others_keep_their_bytes() -> None:
    data = plain_zip({"a.txt": TEXT, "folder/bad.exe": EICAR, "b.bin": bytes(range(256)), "日本.txt": TEXT})
    result = ok(cleaned(data, "a.zip", "folder/bad.exe"))
    before, after = raw(data), raw(result.data)
    assert list(after) == ["a.txt", "b.bin", "日本.txt", "folder/REMOVED-bad.exe.txt"]
    for name in ("a.txt", "b.bin", "日本.txt"):
        assert before[name] == after[name]
    with zipfile.ZipFile(io.BytesIO(result.data)) as archive:
        assert archive.comment == b"the comment"
    assert result.what == ("the file folder/bad.exe",) and result.name == ""
    look = seen(result.data)
    assert not look.failed and not look.kinds and not any(EICAR in part for part in look.parts.values())


def test_the_notice_is_in_english_and_japanese() -> None:
    data = plain_zip({"a.txt": TEXT, "bad.exe": EICAR})
    result = ok(clean_document(data, Target("2", ("a.zip",), "Eicar\r\nX\u202e"), "bad.exe"))
    text = member(result.data, "REMOVED-bad.exe.txt").decode("utf-8-sig")
    assert '"bad.exe" was removed' in text and "「bad.exe」は" in text and "Eicar??X?" in text
    assert "\n" not in text.replace("\r\n", "")


def test_names_in_the_notice_are_harmless() -> None:
    hostile = "x\u202egpj.exe"
    data = plain_zip({"a.txt": TEXT, hostile: EICAR, "REMOVED-x_gpj.exe.txt": b"taken"})
    result = ok(cleaned(data, "", hostile.replace("\u202e", "%202E")))
    assert names(result.data) == ["a.txt", "REMOVED-x_gpj.exe.txt", "REMOVED-x_gpj.exe~2.txt"]


@pytest.mark.parametrize("inside", ["in.zip/deep.zip/bad.exe", "a.zip/in.zip/deep.zip/bad.exe"])
def test_a_zip_in_a_zip_is_changed_where_it_lies(inside: str) -> None:
    deep = plain_zip({"x.txt": TEXT, "bad.exe": EICAR})
    outer = plain_zip({"a.txt": TEXT, "in.zip": plain_zip({"y.txt": TEXT, "deep.zip": deep})})
    target = Target("2/a.zip/in.zip", ("a.zip",), "T")  # no leave to clean documents: zips are opened all the same
    result = ok(clean_document(outer, target, inside))
    assert raw(result.data)["a.txt"] == raw(outer)["a.txt"]
    inner = member(result.data, "in.zip")
    assert raw(inner)["y.txt"] == raw(member(outer, "in.zip"))["y.txt"]
    assert names(member(inner, "deep.zip")) == ["x.txt", "REMOVED-bad.exe.txt"]
    assert not any(EICAR in part for part in seen(result.data).parts.values())


def test_a_zip_whose_name_is_a_number_brings_its_name_along() -> None:
    """As the walker's paths have it."""
    outer = plain_zip({"1": plain_zip({"bad.exe": EICAR})})
    paths = [path for path, part in seen(outer).parts.items() if part == EICAR]
    assert paths == ["1/1/bad.exe"]
    result = ok(cleaned(outer, "", paths[0]))
    assert names(member(result.data, "1")) == ["REMOVED-bad.exe.txt"]


def test_a_document_in_a_zip_is_cleaned_and_renamed() -> None:
    document = docx({"word/vbaProject.bin": MACROS, "word/_rels/document.xml.rels": RELATION})
    data = plain_zip({"a.txt": TEXT, "x/report.docm": document})
    paths = tuple(path for path in seen(data).parts if path.startswith("x/report.docm/word/vba"))
    result = ok(cleaned(data, "a.zip", (*paths, "x/report.docm/active-content.txt")))
    assert names(result.data) == ["a.txt", "x/report.docx"]
    assert has_macros(document) and not has_macros(member(result.data, "x/report.docx"))
    assert not seen(result.data).active
    assert result.what == ("x/report.docm: macros",)
    dropped = ok(clean_document(data, Target("2", ("a.zip",), "T"), paths))
    assert names(dropped.data) == ["a.txt", "x/REMOVED-report.docm.txt"]


def test_a_document_that_cannot_be_cleaned_goes() -> None:
    data = plain_zip({"a.txt": TEXT, "report.doc": MACROS[:-600]})
    result = ok(cleaned(data, "", "report.doc"))
    assert names(result.data) == ["a.txt", "REMOVED-report.doc.txt"]


def test_whatever_a_document_does_to_its_reader_it_goes() -> None:
    data = plain_zip({"a.txt": TEXT, "x.docm": docx({"word/_rels/document.xml.rels": b"\xff\xfe\x00\xd8<\0"})})
    assert names(ok(cleaned(data, "", "x.docm")).data) == ["a.txt", "REMOVED-x.docm.txt"]
    assert cleaned(member(data, "x.docm")) is None


def test_a_zip_that_offends_as_a_whole_goes() -> None:
    inner = plain_zip({"x.txt": TEXT})
    data = plain_zip({"a.txt": TEXT, "in.zip": inner})
    result = ok(cleaned(data, "", ("in.zip", "in.zip/x.txt")))
    assert names(result.data) == ["a.txt", "REMOVED-in.zip.txt"]
    assert cleaned(inner, "in.zip") is None and cleaned(inner, "in.zip", ("", "x.txt")) is None


def test_one_call_for_each_find() -> None:
    """As mails are sanitised: what the first call gave is what the second one gets."""
    document = docx({"word/vbaProject.bin": MACROS, "word/_rels/document.xml.rels": RELATION})
    data = plain_zip({"a.txt": TEXT, "report.docm": document, "bad.exe": EICAR})
    clean, rest = DocumentCleaner(), data
    for path in ("report.docm/word/vbaProject.bin", "report.docm/active-content.txt", "bad.exe"):
        result = ok(clean(rest, Target(path, ("a.zip",), "T", clean=True)))
        rest = result.data
    assert names(rest) == ["a.txt", "report.docx", "REMOVED-bad.exe.txt"]
    assert clean(bytes(bytearray(rest)), Target("bad.exe", clean=True)) is None, "another document"


UNICODE_NAME = struct.pack("<HHBI", 0x7075, 14, 1, zlib.crc32(b"good.txt")) + b"other.txt"
BAD = Made(b"bad.exe", EICAR)
GOOD = Made(b"good.txt", TEXT)
ODD = {
    "the same name twice": made_zip(GOOD, BAD, Made(b"bad.exe", TEXT)),
    "another name in the local header": made_zip(Made(b"good.txt", TEXT, local_name=b"other.txt"), BAD),
    "another method": made_zip(Made(b"good.txt", TEXT, local_method=0), BAD),
    "another size": made_zip(Made(b"good.txt", TEXT, local_size=9), BAD),
    "another checksum in both": made_zip(Made(b"good.txt", TEXT, local_crc=1, central_crc=1), BAD),
    "bytes between members": made_zip(Made(b"good.txt", TEXT, gap=b"hidden"), BAD),
    "a member that the directory does not have": made_zip(GOOD, Made(b"x", EICAR, in_directory=False), BAD),
    "data behind the end of a stream": made_zip(Made(b"good.txt", TEXT, packed=deflated(TEXT) + b"hidden"), BAD),
    "a descriptor that lies": made_zip(
        Made(b"good.txt", TEXT, flags=DESCRIPTOR, descriptor=b"PK\7\x08" + bytes(12)), BAD
    ),
    "data before": b"MZ" + made_zip(GOOD, BAD),
    "data before that is counted": b"PK\3\4" + bytes(30) + made_zip(GOOD, BAD, shift=34),
    "data behind": made_zip(GOOD, BAD) + b"x",
    "two zips": made_zip(GOOD) + made_zip(GOOD, BAD),
    "an end record in the comment": made_zip(GOOD, BAD, comment=b"PK\5\6" + bytes(18)),
    "several volumes": made_zip(GOOD, BAD, disk=1),
    "no directory": made_zip(GOOD, BAD, directory=False),
    "no end": made_zip(GOOD, BAD, end=False),
    "another Unicode name": made_zip(Made(b"good.txt", TEXT, local_extra=UNICODE_NAME), BAD),
}  # fmt: skip


@pytest.mark.parametrize("what", ODD)
def test_a_zip_that_two_readers_read_differently_is_not_cleaned(what: str) -> None:
    assert cleaned(ODD[what], "", "bad.exe") is None


def test_the_same_zip_without_oddity_is_cleaned() -> None:
    for descriptor in (b"PK\7\x08", b""):
        sizes = struct.pack("<III", zlib.crc32(TEXT), len(deflated(TEXT)), len(TEXT))
        member = Made(b"good.txt", TEXT, flags=DESCRIPTOR, descriptor=descriptor + sizes)
        data = made_zip(member, BAD, comment=b"x")
        result = ok(cleaned(data, "", "bad.exe"))
        assert raw(result.data)["good.txt"] == raw(data)["good.txt"]


def test_an_encrypted_member_can_go_and_can_stay() -> None:
    locked = Made(b"locked.exe", b"\x93" * 40, method=0, flags=1)
    data = made_zip(GOOD, locked, BAD)
    assert names_of(ok(cleaned(data, "", "locked.exe")).data) == ["good.txt", "bad.exe", "REMOVED-locked.exe.txt"]
    assert names_of(ok(cleaned(data, "", "bad.exe")).data) == ["good.txt", "locked.exe", "REMOVED-bad.exe.txt"]


def names_of(data: bytes) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.namelist()


def test_paths_that_lead_nowhere() -> None:
    data = plain_zip({"a.txt": TEXT, "bad.exe": EICAR})
    for path in ("other.exe", "bad.exe~2", "bad", "../bad.exe"):
        assert cleaned(data, "", path) is None, path
    assert cleaned(data, "", ("bad.exe", "other.exe")) is None, "one of two is not enough"


def test_documents_of_odf_are_no_archives() -> None:
    data = plain_zip({"mimetype": b"application/vnd.oasis.opendocument.text", "Basic/x.xml": b"<x/>"})
    assert cleaned(data, "x.odt", "Basic/x.xml") is None


OTHERS = (
    b"7z\xbc\xaf\x27\x1c",
    b"Rar!\x1a\7\1\0",
    b"\x1f\x8b\x08",
    b"PK\5\6" + bytes(18),
    b"",
    b"plain text",
    b"PK\3\4",
)


@pytest.mark.parametrize("data", [*OTHERS, *(one + bytes(99) for one in OTHERS)])
def test_other_kinds_are_left_to_the_caller(data: bytes) -> None:
    assert cleaned(data, "x.zip", "bad.exe") is None


def test_bounds() -> None:
    data = made_zip(Made(b"zeros", bytes(8 * MIB)), BAD)
    assert cleaned(data, "", "bad.exe") is not None
    small = CleanOptions(limits=Limits(unpacked=1 * MIB))
    assert cleaned(data, "", "bad.exe", small) is None
    assert cleaned(data, "", "bad.exe", CleanOptions(size=len(data) - 1)) is None


def test_damage_never_lets_the_bad_member_pass() -> None:
    data = plain_zip({"a.txt": TEXT, "in.zip": plain_zip({"bad.exe": EICAR, "b.txt": TEXT}), "c.txt": TEXT})
    chance = random.Random(4)
    survived = 0
    for _ in range(400):
        changed = bytearray(data)
        for _ in range(chance.randint(1, 3)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        result = cleaned(bytes(changed), "", "in.zip/bad.exe")
        if result is not None:
            survived += 1
            assert not any(EICAR in part for part in seen(result.data).parts.values())
    assert survived > 5


RELATION = (
    '<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    '<Relationship Id="rId1" Target="vbaProject.bin" '
    'Type="http://schemas.microsoft.com/office/2006/relationships/vbaProject"/></Relationships>'
)
