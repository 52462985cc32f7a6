"""OOXML and RTF: what acts is cut out, every other byte stays. Witnesses: oletools, our own walker, LibreOffice."""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Iterator
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path

import pytest

from icapscan.limits import MIB, Limits
from icapscan.sanitize.contract import Cleaned, Reference, Target
from icapscan.sanitize.documents import CleanOptions, DocumentCleaner
from icapscan.sanitize.mail import sanitize_mail
from icapscan.store import PartStore
from tests.conftest import missing
from tests.sanitize.document_views import cleaned, decrypted, has_macros, pages_in_libreoffice, seen
from tests.sanitize.test_archive import EICAR, MACROS, member, names, ok, plain_zip
from tests.unwrap.ole_maker import native, ole, ole1, vba_project
from tests.unwrap.ooxml_maker import RELATIONS, docx, relation

OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
MICROSOFT = "http://schemas.microsoft.com/office/2006/relationships"
NAMESPACES = (
    f'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main" xmlns:r="{OFFICE}" '
    'xmlns:o="urn:schemas-microsoft-com:office:office" '
    'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
)
TYPES = (
    '<?xml version="1.0" encoding="UTF-8"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="bin" ContentType="application/vnd.ms-office.vbaProject"/>'
    '<Default Extension="xml" ContentType="application/xml"/>{}</Types>'
)
MAIN = '<Override PartName="/word/document.xml" ContentType="application/vnd.ms-word.document.macroEnabled.main+xml"/>'
CORPUS = "ole/oletools/*"


def rels(*rows: tuple[str, str, str]) -> str:
    """A relationships part of (type, target, mode)."""
    made = "".join(
        f'<Relationship Id="rId{number}" Type="{kind}" Target="{target}"{mode}/>'
        for number, (kind, target, mode) in enumerate(rows, 1)
    )
    return f"{RELATIONS}{made}</Relationships>"


EXTERNAL = ' TargetMode="External"'


def package(parts: dict[str, str | bytes], types: str = TYPES.format(MAIN)) -> bytes:
    """A document with its own content types."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", types)
        if "_rels/.rels" not in parts:
            archive.writestr("_rels/.rels", rels((f"{OFFICE}/officeDocument", "word/document.xml", "")))
        if "word/document.xml" not in parts:
            archive.writestr("word/document.xml", f"<w:document {NAMESPACES}><w:t>text</w:t></w:document>")
        for name, data in parts.items():
            archive.writestr(name, data)
    return target.getvalue()


def body(inner: str) -> str:
    return (
        f'<?xml version="1.0"?>\r\n<w:document {NAMESPACES}><w:t>bef\u00f6re</w:t>{inner}<w:t>after</w:t></w:document>'
    )


def document(result: Cleaned | None, name: str = "word/document.xml") -> str:
    return member(ok(result).data, name).decode()


# Macros


def macro_document(more: dict[str, str | bytes] | None = None) -> bytes:
    parts: dict[str, str | bytes] = {
        "word/vbaProject.bin": MACROS,
        "word/vbaData.xml": "<wne:vbaSuppData xmlns:wne='x'/>",
        "word/vbaProjectSignature.bin": b"signature",
        "word/_rels/vbaProject.bin.rels": rels(
            (f"{MICROSOFT}/wordVbaData", "vbaData.xml", ""),
            (f"{MICROSOFT}/vbaProjectSignature", "vbaProjectSignature.bin", ""),
        ),
        "word/_rels/document.xml.rels": rels(
            (f"{MICROSOFT}/vbaProject", "vbaProject.bin", ""), (f"{OFFICE}/image", "media/a.png", "")
        ),
        "word/media/a.png": b"\x89PNG" + bytes(99),
    }
    override = '<Override PartName="/word/vbaData.xml" ContentType="application/vnd.ms-word.vbaData+xml"/>'
    return package({**parts, **(more or {})}, TYPES.format(MAIN + override))


def test_macros_go_with_all_that_belongs_to_them() -> None:
    data = macro_document()
    assert has_macros(data) and "vba-macro" in seen(data).active
    result = ok(cleaned(data, "Report.DOCM"))
    assert (result.name, result.what) == ("Report.docx", ("macros",))
    assert names(result.data) == [
        "[Content_Types].xml", "_rels/.rels", "word/document.xml", "word/_rels/document.xml.rels", "word/media/a.png",
    ]  # fmt: skip
    types = member(result.data, "[Content_Types].xml").decode()
    assert "vba" not in types.lower() and "macroEnabled" not in types and "wordprocessingml.document.main+xml" in types
    for name in ("word/document.xml", "word/media/a.png", "_rels/.rels"):
        assert member(result.data, name) == member(data, name)
    assert member(result.data, "word/_rels/document.xml.rels").decode().count("<Relationship ") == 1
    look = seen(result.data)
    assert not look.active and not look.hits and not look.failed and not has_macros(result.data)


@pytest.mark.parametrize(
    "target", ["/word/VBAPROJECT.BIN", "../word/vbaProject.bin", "vba%50roject.bin", ".\\vbaProject.bin"]
)
def test_however_the_relationship_is_written(target: str) -> None:
    data = macro_document({"word/_rels/document.xml.rels": rels((f"{MICROSOFT}/vbaProject", target, ""))})
    assert not has_macros(ok(cleaned(data)).data)


def test_a_project_that_no_relationship_names() -> None:
    """By its content type; and by what it is, wherever it stands."""
    override = '<Override PartName="/x/y.bin" ContentType="application/vnd.ms-office.vbaProject"/>'
    for types in (TYPES.format(MAIN + override), TYPES.format(MAIN)):
        data = package({"x/y.bin": MACROS}, types)
        result = ok(cleaned(data))
        assert not has_macros(result.data) and not seen(result.data).active


def test_xml_in_utf_16() -> None:
    text = rels((f"{MICROSOFT}/vbaProject", "vbaProject.bin", ""), (f"{OFFICE}/image", "ü.png", ""))
    text = text.replace('<?xml version="1.0"?>', '<?xml version="1.0" encoding="UTF-16"?>')
    data = macro_document({"word/_rels/document.xml.rels": text.encode("utf-16")})
    result = ok(cleaned(data))
    assert not has_macros(result.data)
    assert 'encoding="UTF-8"' in document(result, "word/_rels/document.xml.rels")


@pytest.mark.parametrize(
    "more",
    [
        {"word/_rels/document.xml.rels": RELATIONS + "<Relationship"},
        {
            "word/_rels/document.xml.rels": "<!DOCTYPE x [<!ENTITY a 'b'>]>"
            + rels((f"{MICROSOFT}/vbaProject", "&a;", ""))
        },
        {"word/_rels/document.xml.rels": '<?xml version="1.0" encoding="utf-7"?>' + relation("vbaProject", "x")[21:]},
        {"word/VBAproject.bin": b"another one"},
        {"word/_rels/document.xml.rels": rels((f"{MICROSOFT}/vbaProject", "document.xml", ""))},
    ],
)
def test_what_programs_may_read_in_several_ways_is_not_cleaned(more: dict[str, str | bytes]) -> None:
    assert cleaned(macro_document(more)) is None


def test_a_ribbon_and_controls() -> None:
    data = package(
        {
            "customUI/customUI.xml": "<customUI onLoad='https://example.org/x.dotm!run'/>",
            "_rels/.rels": rels(
                (f"{OFFICE}/officeDocument", "word/document.xml", ""),
                (f"{MICROSOFT}/ui/extensibility", "customUI/customUI.xml", ""),
            ),
            "word/_rels/document.xml.rels": rels((f"{OFFICE}/control", "activeX/activeX1.xml", "")),
            "word/activeX/activeX1.xml": f'<ax:ocx xmlns:ax="x" xmlns:r="{OFFICE}" r:id="rId1"/>',
            "word/activeX/_rels/activeX1.xml.rels": rels((f"{MICROSOFT}/activeXControlBinary", "activeX1.bin", "")),
            "word/activeX/activeX1.bin": b"control",
            "word/document.xml": body('<w:object><v:shape xmlns:v="v"/><w:control r:id="rId1" w:name="x"/></w:object>'),
        }
    )
    result = ok(cleaned(data, "x.docx"))
    assert result.what == ("macros", "ActiveX controls") and result.name == ""
    assert not any("activeX" in name or "customUI" in name for name in names(result.data))
    assert '<w:object><v:shape xmlns:v="v"/></w:object>' in document(result)
    kept = ok(cleaned(data, "x.docx", options=CleanOptions(office_controls=False)))
    assert "word/activeX/activeX1.bin" in names(kept.data)


def test_an_add_in_of_the_web() -> None:
    data = package(
        {
            "_rels/.rels": rels(
                (f"{OFFICE}/officeDocument", "word/document.xml", ""),
                ("http://schemas.microsoft.com/office/2011/relationships/webextensiontaskpanes", "word/t/t.xml", ""),
            ),
            "word/t/t.xml": f'<t xmlns:r="{OFFICE}"><webextensionref r:id="rId1"/></t>',
            "word/t/_rels/t.xml.rels": rels(("http://x/webextension", "e.xml", "")),
            "word/t/e.xml": '<we:reference xmlns:we="w" store="https://example.org/"/>',
        }
    )
    result = ok(cleaned(data))
    assert result.what == ("an add-in of the web",) and not any("word/t/" in name for name in names(result.data))


def test_floods_end() -> None:
    many = rels(*[(f"{MICROSOFT}/vbaProject", "vbaProject.bin", "")] * 20_000)
    assert not has_macros(ok(cleaned(macro_document({"word/_rels/document.xml.rels": many}))).data)
    links = rels(*[(f"{OFFICE}/oleObject", "http://h/", EXTERNAL)] * 20_000)
    uses = "".join(f'<o:OLEObject r:id="rId{number}"/>' for number in range(1, 20_001))
    data = docx({"word/document.xml": body(uses), "word/_rels/document.xml.rels": links})
    assert document(cleaned(data)) == body("")
    field = "<w:instrText>DDE x</w:instrText>"
    for attributes, fields, cleans in ((20_000, 1000, True), (200_000, 1, False), (1, 250_000, False)):
        tag = " ".join(f'a{number}=">"' for number in range(attributes))
        data = docx({"word/document.xml": body(f"<w:x {tag}/>" + field * fields)})
        assert (cleaned(data) is not None) is cleans
    soon = CleanOptions(limits=Limits(seconds=1e-9))
    assert cleaned(data, options=soon) is None


# Excel


def workbook(sheet: str, kind: str = f"{MICROSOFT}/xlMacrosheet", more: dict[str, str | bytes] | None = None) -> bytes:
    book = (
        f'<workbook xmlns="x" xmlns:r="{OFFICE}"><sheets><sheet name="M" sheetId="1" r:id="rId1"/></sheets>'
        '<definedNames><definedName name="_xlnm.Auto_Open" xlm="1">M!$A$1</definedName></definedNames></workbook>'
    )
    types = TYPES.format('<Override PartName="/xl/m.xml" ContentType="application/vnd.ms-excel.macrosheet+xml"/>')
    parts: dict[str, str | bytes] = {
        "xl/workbook.xml": book,
        "xl/_rels/workbook.xml.rels": rels((kind, "m.xml", "")),
        "xl/m.xml": sheet,
    }
    return package({**parts, **(more or {})}, types)


SHEET = '<xm:macrosheet xmlns:xm="m"><f>EXEC("calc")</f></xm:macrosheet>'


@pytest.mark.parametrize("kind", [f"{MICROSOFT}/xlMacrosheet", f"{MICROSOFT}/xlIntlMacrosheet", f"{OFFICE}/worksheet"])
def test_a_macro_sheet_becomes_an_empty_worksheet(kind: str) -> None:
    data = workbook(SHEET, kind)
    assert "Excel4_Macro" in seen(data).hits
    result = ok(cleaned(data, "x.xlsx"))
    assert result.what == ("sheets of Excel 4 macros",)
    assert b"EXEC" not in b"".join(member(result.data, name) for name in names(result.data))
    assert 'sheet name="M" sheetId="1" r:id="rId1"' in document(result, "xl/workbook.xml")
    assert "<definedName" not in document(result, "xl/workbook.xml") or kind.endswith("worksheet")
    look = seen(result.data)
    assert not look.active and not look.hits


def test_dde_links_of_a_workbook() -> None:
    link = '<externalLink xmlns="x"><ddeLink ddeService="cmd" ddeTopic="/c calc"><ddeItems/></ddeLink></externalLink>'
    data = package({"xl/externalLinks/externalLink1.xml": link})
    assert "DDE_Link" in seen(data).hits
    result = ok(cleaned(data))
    assert document(result, "xl/externalLinks/externalLink1.xml") == '<externalLink xmlns="x"></externalLink>'
    assert not seen(result.data).active


def test_a_link_to_a_workbook_elsewhere_leads_nowhere() -> None:
    where = "xl/externalLinks/_rels/externalLink1.xml.rels"
    for target, gone in (("https://example.org/a.xlsx", True), ("\\\\host\\share\\a.xlsx", True), ("a.xlsx", False)):
        data = package(
            {
                where: rels((f"{OFFICE}/externalLinkPath", target, EXTERNAL)),
                "xl/externalLinks/externalLink1.xml": "<x/>",
            }
        )
        result = cleaned(data)
        assert (result is not None) is gone, target
        if result is not None:
            assert 'Target="about:blank"' in document(result, where)


# Fields, templates, objects


FIELD = (
    '<w:fldChar w:fldCharType="begin"/>{}<w:fldChar w:fldCharType="separate"/><w:t>shown</w:t>'
    '<w:fldChar w:fldCharType="end"/>'
)


@pytest.mark.parametrize(
    "field",
    [
        FIELD.format('<w:instrText xml:space="preserve"> DDEAUTO c:\\\\x "y" </w:instrText>'),
        FIELD.format("<w:instrText>D</w:instrText><w:instrText>DE</w:instrText><w:instrText> cmd x</w:instrText>"),
        FIELD.format("<w:instrText><![CDATA[DDE]]></w:instrText><w:instrText> cmd</w:instrText>"),
        FIELD.format("<w:instrText>D<!-- x -->DE cmd</w:instrText>"),
        FIELD.format("<w:instrText>&#68;&#x44;E cmd</w:instrText>"),
        FIELD.format(
            FIELD.format("<w:instrText>QUOTE 68 68 69 65 85 84 79</w:instrText>") + "<w:instrText> cmd</w:instrText>"
        ),
        '<w:fldSimple w:instr="DDE cmd x"><w:t>shown</w:t></w:fldSimple>',
        "<w:fldSimple w:instr='&#68;DE cmd x'/>",
        '<w:fldChar w:fldCharType="begin"/><w:instrText>DDE never ends',
    ],
)
def test_dde_fields_lose_their_instruction(field: str) -> None:
    if not field.endswith(">"):
        field += "</w:instrText>"
    data = docx({"word/document.xml": body(field)})
    assert "DDE_Link" in seen(data).hits
    result = ok(cleaned(data))
    text = document(result)
    assert "cmd" not in text and "DDE" not in text and text.startswith('<?xml version="1.0"?>\r\n')
    assert ("shown" in text) is ("shown" in field) and "bef\u00f6re" in text
    look = seen(result.data)
    assert not look.active and not look.hits and not look.failed


def test_other_fields_stay() -> None:
    harmless = FIELD.format("<w:instrText> PAGE </w:instrText>")
    outer = FIELD.format("<w:instrText> TOC </w:instrText>").replace("<w:t>shown</w:t>", harmless)
    bad = FIELD.format("<w:instrText> DDE cmd </w:instrText>")
    text = document(cleaned(docx({"word/document.xml": body(outer + bad + harmless)})))
    assert text == body(outer + FIELD.format("<w:instrText></w:instrText>") + harmless)


@pytest.mark.parametrize("target", ["https://example.org/x.dotm", "\\\\host\\x.dotm", "x.dotm", "mhtml:http://h/x!y"])
def test_a_template_from_elsewhere(target: str) -> None:
    data = docx(
        {
            "word/settings.xml": body('<w:zoom w:percent="1"/><w:attachedTemplate r:id="rId1"/>'),
            "word/_rels/settings.xml.rels": rels((f"{OFFICE}/attachedTemplate", target, EXTERNAL)),
        }
    )
    result = ok(cleaned(data))
    assert document(result, "word/settings.xml") == body('<w:zoom w:percent="1"/>')
    assert "attachedTemplate" not in document(result, "word/_rels/settings.xml.rels")
    assert not seen(result.data).active


def test_what_is_ordinary_is_not_cleaned() -> None:
    """Then something else offends, and the caller replaces the whole."""
    plain = docx({"word/document.xml": body(FIELD.format("<w:instrText>PAGE</w:instrText>"))})
    local = docx(
        {
            "word/settings.xml": body('<w:attachedTemplate r:id="rId1"/>'),
            "word/_rels/settings.xml.rels": rels((f"{OFFICE}/attachedTemplate", "file:///C:/T/Normal.dotm", EXTERNAL)),
        }
    )
    link = docx({"word/_rels/document.xml.rels": relation("hyperlink", "https://example.org/")})
    for data in (plain, local, link, package({}), docx({"word/media/a.png": EICAR})):
        assert cleaned(data, "x.docm") is None


@pytest.mark.parametrize(
    ("kind", "use", "left"),
    [
        ("oleObject", '<w:object><o:OLEObject Type="Link" r:id="rId1"><o:x/></o:OLEObject></w:object>', ""),
        (
            "oleObject",
            '<w:object><w:p/><o:OLEObject Type="Link" r:id="rId1"/></w:object>',
            "<w:object><w:p/></w:object>",
        ),
        ("subDocument", '<w:subDoc r:id="rId1"/>', ""),
        ("aFChunk", '<w:altChunk r:id="rId1"><w:x/></w:altChunk>', ""),
        ("frame", '<w:frame><w:sourceFileName r:id="rId1"/></w:frame>', "<w:frame></w:frame>"),
        ("control", '<w:object><w:control r:id="rId1"/></w:object>', ""),
        (
            "oleObject",
            '<w:oleObj name="x" r:id="rId1" progId="y"><w:link updateAutomatic="1"/><w:pic/></w:oleObj>',
            '<w:oleObj name="x" progId="y"><w:embed/><w:pic/></w:oleObj>',
        ),
        (
            "oleObject",
            '<w:x><mc:AlternateContent><mc:Choice Requires="x"><w:oleObject r:id="rId1"/></mc:Choice><mc:Fallback>'
            '<w:oleObject r:id="rId1"/></mc:Fallback></mc:AlternateContent></w:x>',
            "<w:x></w:x>",
        ),
    ],
)
def test_what_is_loaded_from_elsewhere_goes_with_what_uses_it(kind: str, use: str, left: str) -> None:
    data = docx(
        {
            "word/document.xml": body(use),
            "word/_rels/document.xml.rels": rels((f"{OFFICE}/{kind}", "https://example.org/x", EXTERNAL)),
        }
    )
    assert "external-object" in seen(data).active
    result = ok(cleaned(data))
    assert document(result) == body(left)
    assert "example.org" not in document(result, "word/_rels/document.xml.rels") and not seen(result.data).active


def test_what_is_used_in_an_unknown_way_leads_nowhere() -> None:
    data = docx(
        {
            "word/document.xml": body('<w:unknown r:embed="rId1"/>'),
            "word/_rels/document.xml.rels": rels((f"{OFFICE}/oleObject", "https://example.org/x", EXTERNAL)),
        }
    )
    result = ok(cleaned(data))
    assert document(result) == body('<w:unknown r:embed="rId1"/>')
    assert 'Target="about:blank"' in document(result, "word/_rels/document.xml.rels")


@pytest.mark.parametrize(
    "target", ["mhtml:http://h/x!x-usc:y", "ms-msdt:/id x", "search-ms:query=x", "script:http://h/x"]
)
def test_links_that_start_something_lead_nowhere(target: str) -> None:
    data = docx(
        {
            "word/document.xml": body('<w:hyperlink r:id="rId1"/>'),
            "word/_rels/document.xml.rels": rels((f"{OFFICE}/hyperlink", target, EXTERNAL)),
        }
    )
    result = ok(cleaned(data))
    assert document(result) == body('<w:hyperlink r:id="rId1"/>')
    assert 'Target="about:blank"' in document(result, "word/_rels/document.xml.rels")
    assert not seen(result.data).active


def test_actions_of_slides() -> None:
    bad = (
        '<a:x xmlns:a="a" r:id="rId1" action="ppaction://program"/><a:x xmlns:a="a" action="ppaction://hlinksldjump"/>'
    )
    text = document(cleaned(docx({"ppt/slides/slide1.xml": body(bad)})), "ppt/slides/slide1.xml")
    assert text == body(bad.replace("program", "noaction"))


def embedded(data: bytes, kind: str = "oleObject") -> bytes:
    return docx(
        {
            "word/document.xml": body('<w:object><w:p/><o:OLEObject Type="Embed" r:id="rId1"/></w:object>'),
            "word/_rels/document.xml.rels": rels((f"{OFFICE}/{kind}", "embeddings/oleObject1.bin", "")),
            "word/embeddings/oleObject1.bin": data,
        }
    )


def test_documents_within_the_document_are_cleaned_in_place() -> None:
    for data in (MACROS, ole({"\1Ole10Native": native("a.exe", b"MZ" + EICAR)}), macro_document()):
        whole = embedded(data)
        result = ok(cleaned(whole))
        assert document(result) == document(ok(Cleaned(whole)))
        assert not seen(result.data).active and not has_macros(result.data)
        assert not any(EICAR in part for part in seen(result.data).parts.values())


def test_an_embedded_file_that_offends_is_cut_out() -> None:
    data = embedded(b"MZ" + EICAR)
    assert cleaned(data) is None, "nothing that acts was found"
    result = ok(cleaned(data, "x.docx", "x.docx/word/embeddings/oleObject1.bin"))
    assert document(result) == body("<w:object><w:p/></w:object>")
    assert "word/embeddings/oleObject1.bin" not in names(result.data)
    assert cleaned(embedded(EICAR, "image"), "", "word/embeddings/oleObject1.bin") is None


# Bad input


def test_odd_packages_are_not_cleaned() -> None:
    data = macro_document()
    assert cleaned(data + b"x") is None and cleaned(b"x" + data) is None
    assert cleaned(data[:-1]) is None
    small = CleanOptions(limits=Limits(unpacked=1 * MIB))
    bomb = macro_document({"word/zeros.xml": b" " * (4 * MIB)})
    assert cleaned(bomb) is not None and cleaned(bomb, options=small) is None


def test_damage_never_lets_macros_pass() -> None:
    data = macro_document({"word/settings.xml": body(FIELD.format("<w:instrText>DDE x</w:instrText>"))})
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        data = plain_zip({name: archive.read(name) for name in archive.namelist()})
    chance, survived = random.Random(8), 0
    for _ in range(300):
        changed = bytearray(data)
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
        result = cleaned(bytes(changed))
        if result is not None:
            survived += 1
            look = seen(result.data)
            assert not look.active & {"vba-macro", "dde"} and not look.hits
    assert survived > 2


# RTF


def rtf(inner: str) -> bytes:
    return ("{\\rtf1\\ansi before " + inner + " after\\par}").encode()


OBJECT = ole1("Package", b"MZ" + EICAR).hex()


@pytest.mark.parametrize(
    ("inner", "left"),
    [
        (f"{{\\object\\objemb{{\\*\\objdata {OBJECT}}}{{\\result x}}}}", "{\\object\\objemb{\\*}{\\result x}}"),
        (f"{{\\object\\objupdate\\objocx{{\\*\\objdata {OBJECT}}}}}", "{\\object{\\*}}"),
        (f"{{\\object{{\\*\\objdata 01{{\\*\\x 99}}05{{\\y 7}}{OBJECT}\\'ff}}}}", "{\\object{\\*}}"),
        (f"\\objdata{OBJECT}}}{{", "}{"),
        ("{\\field{\\*\\fldinst DDEAUTO c:\\\\x}{\\fldrslt y}}", "{\\field{\\*\\fldinst}{\\fldrslt y}}"),
        ("{\\field{\\*\\fldinst {\\b D}{\\i D}E cmd}}", "{\\field{\\*\\fldinst}}"),
        ("{\\field{\\*\\fldinst {\\field{\\*\\fldinst QUOTE 68 68 69}} cmd}}", "{\\field{\\*\\fldinst}}"),
        ("{\\*\\template http://example.org/x.dotm}", "{\\*\\template}"),
        ("{\\*\\template \\\\\\\\host\\\\x.dotm}", "{\\*\\template}"),
        ("{\\object{\\*\\objclass Equation.3}}", "{\\object{\\*\\objclass}}"),
    ],
)
def test_rtf(inner: str, left: str) -> None:
    data = rtf(inner)
    result = ok(cleaned(data))
    assert result.data == rtf(left)
    look = seen(result.data)
    assert not look.active and not look.hits and not any(EICAR in part for part in look.parts.values())


@pytest.mark.parametrize(
    "inner",
    [
        f"{{\\object{{\\*\\objdata {OBJECT}\\bin5 }}}}}}",
        f"{{\\object{{\\*\\objdata {OBJECT}\\'}}",
        "{\\field{\\*\\fldinst PAGE}}",
        "{\\*\\template C:\\\\x\\\\Normal.dotm}",
        "plain",
    ],
)
def test_rtf_that_is_not_cleaned(inner: str) -> None:
    assert cleaned(rtf(inner)) is None


def test_rtf_that_ends_in_an_object_is_not_cleaned() -> None:
    assert cleaned(rtf(f"{{\\object{{\\*\\objdata {OBJECT}").rstrip(b"}")) is None


# In a mail


def test_an_attachment_is_cleaned_in_its_mail() -> None:
    """Two finds in one document: both calls of the mail's rewriting together give one clean document."""
    message = EmailMessage()
    message["Subject"] = "report"
    message.set_content("A text.")
    message.add_attachment(macro_document(), maintype="application", subtype="octet-stream", filename="report.docm")
    message.add_attachment(b"another one", maintype="application", subtype="octet-stream", filename="b.bin")
    mail = message.as_bytes()
    paths = [path for path in seen(mail).parts if "vbaProject.bin/" in path]
    assert len(paths) >= 3
    targets = [Target(path, ("report.docm",), "Macro", clean=True) for path in paths]
    done = sanitize_mail(PartStore.of(mail), targets, Reference("T1"), DocumentCleaner())
    adapted = b"".join(done.edits.pieces(PartStore.of(mail)))
    parsed = message_from_bytes(adapted, policy=default)
    assert isinstance(parsed, EmailMessage)
    document, other = parsed.iter_attachments()
    assert document.get_filename() == "report.docx" and other.get_content() == b"another one"
    assert not has_macros(document.get_content()) and not seen(adapted).active
    assert [removed.how for removed in done.removed] == ["cleaned"]


# The corpus


def corpus_documents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every Office file; and what is in those that are encrypted with the password that Office tries by itself."""
    for path in sorted(folder.glob(CORPUS)):
        data = path.read_bytes()
        yield path.name, data
        plain = decrypted(data)
        if plain is not None:
            yield f"decrypted {path.name}", plain


ACTING = {
    "vba-macro", "vba-auto-run", "vba-starts-program", "vba-no-source", "xlm-macro", "dde", "ole-package",
    "equation-object", "remote-template", "ole-link", "external-moniker",
}  # fmt: skip


def test_every_office_file_of_the_corpus(corpus: Path) -> None:
    macros = done = 0
    for name, data in corpus_documents(corpus):
        before = seen(data)
        result = cleaned(data, name)
        if data.startswith((b"PK", b"\xd0\xcf")) and before.active & ACTING and not before.failed:
            if "encrypted-document" in before.active or name.endswith(".odt"):
                assert result is None, name
                continue
            assert result is not None, name
        if result is None:
            continue
        after = seen(result.data)
        done += 1
        assert not after.active & ACTING and not after.hits and not after.failed, (name, after)
        assert not has_macros(result.data, name), name
        macros += has_macros(data, name)
        assert len(result.data) == len(data) or data.startswith(b"PK"), name
    assert done >= 30 and macros >= 4


@pytest.mark.full
def test_libreoffice_opens_every_cleaned_file_of_the_corpus(corpus: Path, tmp_path: Path) -> None:
    """And sees as many pages in it as in the original."""
    before, after = tmp_path / "before", tmp_path / "after"
    written: list[str] = []
    for folder in (before, after):
        folder.mkdir()
    for number, (name, data) in enumerate(corpus_documents(corpus)):
        result = cleaned(data, name)
        if result is not None:
            called = f"{number}.{(result.name or name).rpartition('.')[2]}"
            written.append(called)
            (after / called).write_bytes(result.data)
            (before / called).write_bytes(data)
    (after / "broken.docx").write_bytes((after / written[-1]).read_bytes()[:-400])
    opened = pages_in_libreoffice(after, [*written, "broken.docx"])
    if opened is None:
        missing("LibreOffice is not installed; on Debian: apt-get install libreoffice-writer-nogui and its sisters")
    assert len(written) >= 30 and set(opened) == set(written), set(written) - set(opened)
    originals = pages_in_libreoffice(before, written) or {}
    assert len(originals) >= len(written) - 20  # some have the extension that they get
    assert {name: opened[name] for name in originals} == originals


def test_a_project_of_several_modules_in_the_same_document() -> None:
    streams = vba_project({"A": "Sub AutoOpen()\r\nEnd Sub", "B": "x", "ThisDocument": "y"}, folder="")
    data = macro_document({"word/vbaProject.bin": ole(streams)})
    assert not seen(ok(cleaned(data)).data).active
