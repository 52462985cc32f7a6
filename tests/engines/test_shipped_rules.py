"""Each shipped rule: one body that it must hit, and one close to it that it must not. Nothing here is malware."""

from __future__ import annotations

import base64
import random
import re
from collections.abc import Mapping
from io import BytesIO

import pytest

from icapscan.engines.contract import Part
from icapscan.engines.rules import compile_rules, shipped_rules
from icapscan.engines.settings import YaraSettings
from icapscan.engines.yara import YaraEngine
from icapscan.findings import Finding, Level
from icapscan.store import PartStore
from icapscan.unwrap.formats import registry
from tests.unwrap.lnk_maker import shortcut
from tests.unwrap.ole_maker import biff, ole, ole1, vba_project
from tests.unwrap.ooxml_maker import docx, relation, word
from tests.unwrap.pdf_maker import flate, pdf
from tests.unwrap.test_ole import BOF
from tests.unwrap.test_onenote import section
from tests.unwrap.toys import Walked

ENGINE = YaraEngine(YaraSettings(inline=64 << 20), compile_rules())
TEST_FILES = {"Eicar_Test_File", "ClamAV_Test_File", "ClamAV_Test_File_Imports"}
"""Covered by test_signatures.py."""


def findings(body: bytes, name: str = "") -> list[Finding]:
    """What the engine says of a body and of everything in it."""
    parts = Walked(body, formats=registry())
    found: list[Finding] = []
    for path, data in parts.parts.items():
        ready = parts.ready[path].declared
        given = ready.names[0] if ready.names else name if not path else ""
        part = Part(path or name, PartStore.of(data), given, ready.media_type)
        report = ENGINE.scan_now(part, 10.0)
        assert report is not None and not report.unscanned
        found += report.findings
    return found


def named(name: str, data: bytes = b"harmless") -> list[str]:
    """Rules that hit a file of this name."""
    part = Part(name, PartStore.of(data), name.rpartition("/")[2])
    report = ENGINE.scan_now(part, 10.0)
    assert report is not None
    return [finding.name for finding in report.findings]


def macros(source: str) -> bytes:
    return ole(vba_project({"Module1": source}))


def sheet(kind: int) -> bytes:
    return ole({"Workbook": BOF + biff(0x85, bytes([0, 0, 0, 0, 0, kind, 6, 0]) + b"Macro1") + biff(0x0A, b"")})


def page(call: str, data: bytes) -> bytes:
    return f"<script>x=atob('{base64.b64encode(data).decode()}');y=URL.{call}(z)</script>".encode()


def image(name: bytes, size: int = 0) -> bytes:
    """An ISO 9660 image whose first folder holds one name."""
    data = bytearray(40 * 2048)
    data[0x8000:0x8006] = b"\x01CD001"
    data[0x809E:0x80A2] = (20).to_bytes(4, "little")
    data[0x80A6:0x80AA] = (2048).to_bytes(4, "little")
    data[20 * 2048 + 100 : 20 * 2048 + 100 + len(name)] = name
    return bytes(data) + bytes(size)


def template(target: str) -> bytes:
    return docx({"word/_rels/settings.xml.rels": relation("attachedTemplate", target)})


ZIP = b"PK\3\4\x14\0\0\0" + bytes(80)
SAMPLES: Mapping[str, tuple[bytes, bytes]] = {
    "Shortcut_File": (shortcut("/c echo", "cmd.exe"), b"L\0\0\0" + shortcut("x")),
    "HTML_Application": (b"<html><HTA:Application id=x>", b"<html><p>An HTA is an application."),
    "Script_Host_File": (b"<job id='x'><script language='JScript'>1</script></job>", b"<jobs><job/></jobs>"),
    "Macro_Starts_Program": (
        macros('Sub AutoOpen()\r\nShell "calc"\r\nEnd Sub'), macros('Sub AutoOpen()\r\nMsgBox "x"\r\nEnd Sub'),
    ),
    "Excel4_Macro": (sheet(1), sheet(0)),
    "DDE_Link": (
        docx({"word/document.xml": word('<w:fldSimple w:instr="DDEAUTO c:\\\\x.exe"/>')}),
        docx({"word/document.xml": word('<w:fldSimple w:instr="PAGE"/>')}),
    ),
    "Equation_Object": (
        b"{\\rtf1{\\object{\\*\\objdata " + ole1("Equation.3", b"x" * 9).hex().encode() + b"}}}",
        b"{\\rtf1{\\object{\\*\\objdata " + ole1("Excel.Sheet", b"x" * 9).hex().encode() + b"}}}",
    ),
    "Remote_Template": (template("https://example.org/x.dotm"), template("file:///C:/Users/x/Normal.dotm")),
    "PDF_Launch": (pdf([b"<< /S /Launch /F (x.exe) >>"]), pdf([b"<< /S /Named /N /NextPage >>"])),
    "PDF_JavaScript_Acts": (
        pdf([b"<< /JS 4 0 R >>", flate(b"this.exportDataObject({nLaunch: 2})")]), pdf([b"<< /JS (app.beep\\(\\)) >>"]),
    ),
    "OneNote_Program": (section(b"MZ program"), section(b"\x89PNG picture")),
    "Symbolic_Link_Macro": (
        b"ID;P\nO;E\nNN;NAuto_open;ER101C1\nC;X1;Y101;EEXEC(\"x\")\nE\n", b"ID;P\nC;X1;Y1;K\"text\"\nE\n",
    ),
    "DDE_Formula_In_Text": (b"a,b\n1,=cmd|'/C echo'!A0\n", b"a|'b' | /c =cmd\n=SUM(A1|'x')\ncommand|'/c'\n"),
    "HTML_Smuggling": (page("createObjectURL", ZIP), page("createObjectURL", b"\x89PNG" + bytes(80))),
    "Disk_Image_Program": (image(b"SETUP.EXE;1"), image(b"README.TXT;1")),
}  # fmt: skip
NAMES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "Name_Double_Extension": (
        ("invoice.pdf.exe", "photo.JPG.scr", "report.docx      .lnk", "a.pdf.js", "x.pdf.exe ", "x.pdf..vbs",
         "picture          .exe"),
        ("invoice.pdf", "setup.exe", "jquery.min.js", "app.html.js", "archive.tar.gz", "v1.2.exe", "a.exe.pdf",
         "pdf.exe", ""),
    ),
    "Name_Right_To_Left": (
        ("invoice\u202efdp.exe", "a\u202dx.txt", "\u202bx.exe"),
        ("\u0641\u0627\u062a\u0648\u0631\u0629.pdf", "a\u200fb.pdf", "a \u2013 b.pdf", "\u202bx.pdf"),
    ),
    "Name_Class_Identifier": (
        ("x.txt.{3050F4D8-98B5-11CF-BB82-00AA00BDCE0B}",), ("x.{draft}", "{3050F4D8-98B5-11CF-BB82-00AA00BDCE0B}.txt"),
    ),
    "Disk_Image_Member": (
        ("2/bill.iso/bill.exe", "2/x.IMG/folder/a.lnk", "1/x.vhdx/a.js"),
        ("2/bill.iso/a.txt", "2/bill.zip/a.exe", "iso/a.exe"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("rule", SAMPLES)
def test_a_body_that_it_hits_and_one_that_it_does_not(rule: str) -> None:
    positive, negative = SAMPLES[rule]
    found = findings(positive)
    assert rule in {finding.name for finding in found}
    assert {finding.level for finding in found} == {Level.SUSPICIOUS}
    assert rule not in {finding.name for finding in findings(negative)}


@pytest.mark.parametrize("rule", NAMES)
def test_names_that_it_hits_and_names_that_it_does_not(rule: str) -> None:
    positive, negative = NAMES[rule]
    for name in positive:
        assert rule in named(name), name
    for name in negative:
        assert rule not in named(name), name


@pytest.mark.parametrize("name", ["start.hta", "start.WSF", "x.wsh"])
def test_kinds_that_their_ending_tells(name: str) -> None:
    assert named(name)


def test_large_images_are_products() -> None:
    assert "Disk_Image_Program" not in named("x", image(b"SETUP.EXE;1", 33 << 20))


def test_a_document_with_the_password_of_office() -> None:
    """Standard_Password, and not for a password of the writer's own."""
    pytest.importorskip("msoffcrypto")
    from msoffcrypto.format.ooxml import OOXMLFile

    for password, hit in (("VelvetSweatshop", True), ("my own", False)):
        locked = BytesIO()
        OOXMLFile(BytesIO(docx({"noise": random.Random(1).randbytes(9000)}))).encrypt(password, locked)
        assert ("Standard_Password" in {finding.name for finding in findings(locked.getvalue())}) is hit


PLAIN = {
    "text": b"The quick brown fox jumps over the lazy dog.\r\n" * 40,
    "page": b"<!doctype html><html><head><script src=a.js></script></head><body><a href='x.exe'>x</a></body></html>",
    "script": b"const blob = new Blob([data]); a.href = URL.createObjectURL(blob); a.click();",
    "document": docx({}),
    "pdf": pdf([flate(b"BT (page) Tj ET")]),
    "workbook": sheet(0),
    "form": pdf([b"<< /OpenAction << /S /JavaScript /JS (this.calculateNow\\(\\);) >> >>"]),
}


@pytest.mark.parametrize("what", PLAIN)
def test_plain_things_are_no_match(what: str) -> None:
    assert findings(PLAIN[what], f"plain {what}") == []


METADATA = {"description", "severity", "verdict", "reference", "false_positives"}
CLASSES = {
    "scripts and programs in names with two endings": ("Name_Double_Extension",),
    "or turned by a right-to-left character, or hidden by a class identifier": (
        "Name_Right_To_Left", "Name_Class_Identifier",
    ),
    "LNK, HTA and WSF": ("Shortcut_File", "HTML_Application", "Script_Host_File"),
    "macros that run by themselves and start programs": ("Macro_Starts_Program",),
    "XLM and DDE": ("Excel4_Macro", "Symbolic_Link_Macro", "DDE_Link", "DDE_Formula_In_Text"),
    "equation objects in RTF": ("Equation_Object",),
    "PDF Launch and JavaScript": ("PDF_Launch", "PDF_JavaScript_Acts"),
    "HTML smuggling": ("HTML_Smuggling",),
    "OneNote with embedded programs": ("OneNote_Program",),
    "disk images with a program": ("Disk_Image_Program", "Disk_Image_Member"),
}  # fmt: skip
"""What rules are shipped for."""


def rules() -> dict[str, dict[str, str]]:
    """The metadata of every rule in every shipped file, by name."""
    found: dict[str, dict[str, str]] = {}
    for file in shipped_rules().rglob("*.yar*"):
        for private, name, text in re.findall(r"^(private )?rule (\w+)(.*?)^}", file.read_text(), re.M | re.S):
            assert name not in found, name
            if not private:
                meta = text.partition("condition:")[0]
                found[name] = dict(re.findall(r'^\s+(\w+) = "((?:[^"\\]|\\.)*)"', meta, re.M))
    return found


def test_every_rule_has_samples_and_says_what_it_means() -> None:
    shipped = rules()
    assert set(shipped) == {*SAMPLES, *NAMES, *TEST_FILES, "Standard_Password"}
    for name, meta in shipped.items():
        assert set(meta) >= METADATA and all(len(meta[key]) > 2 for key in METADATA), name
        assert meta["severity"] in ("low", "medium", "high"), name
        assert meta["verdict"] == ("infected" if name in TEST_FILES else "suspicious"), name
        assert meta["reference"].startswith("https://"), name


def test_every_class_has_its_rules() -> None:
    assert {rule for group in CLASSES.values() for rule in group} <= set(rules())
