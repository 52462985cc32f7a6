"""OOXML, ODF and other XML documents: what is loaded from elsewhere, DDE, macro sheets; macros in a zip."""

from __future__ import annotations

import pytest

from icapscan.findings import Reason
from icapscan.limits import Limits
from icapscan.unwrap.active_content import NAME, is_remote
from icapscan.unwrap.contract import Bid, Declared, Evidence
from icapscan.unwrap.office_xml import WIDE_MAX, OfficeXmlFormat
from tests.unwrap.archive_driver import drive, walk
from tests.unwrap.ole_maker import ole, vba_project
from tests.unwrap.ooxml_maker import RELATIONS, docx, relation, word

INSIDE = Declared(within="zip")


def kinds(text: str | bytes) -> list[tuple[str, str]]:
    data = text.encode() if isinstance(text, str) else text
    got = drive(OfficeXmlFormat(), data, declared=INSIDE)
    assert not got.failures and set(got.parts) <= {NAME}
    told = [(one.kind, one.detail) for one in got.anomalies]
    assert got.parts.get(NAME, b"").decode() == "".join(f"{kind}: {detail}\n" for kind, detail in told)
    return told


def field(*pieces: str) -> str:
    """A field of Word whose instruction stands in these pieces."""
    runs = "".join(f"<w:r><w:instrText xml:space='preserve'>{piece}</w:instrText></w:r>" for piece in pieces)
    return word(f'<w:fldChar w:fldCharType="begin"/>{runs}<w:fldChar w:fldCharType="end"/>')


@pytest.mark.parametrize(
    "kind, expected",
    [
        ("attachedTemplate", "external-template"),
        ("oleObject", "external-object"),
        ("frame", "external-object"),
        ("subDocument", "external-object"),
        ("externalLinkPath", "external-link"),
    ],
)
def test_evasion_89_what_is_loaded_from_elsewhere(kind: str, expected: str) -> None:
    target = "https://example.org/x.dotm"
    remote = [("remote-template", target)] if kind == "attachedTemplate" else []
    assert kinds(relation(kind, target)) == [(expected, target), *remote]
    assert kinds(relation(kind, "x.dotm", "")) == []


@pytest.mark.parametrize("kind", ["hyperlink", "image"])
def test_links_and_pictures_are_what_documents_are_full_of(kind: str) -> None:
    assert kinds(relation(kind, "https://example.org/")) == []


def test_evasion_89_relations_in_disguise() -> None:
    """Another prefix, single quotes, references to characters, a ``>`` in a value, the target as a moniker."""
    text = (
        "<r:Relationships xmlns:r='x'><r:Relationship Id='a&gt;>b' TargetMode='Ext&#101;rnal' "
        "Type='http://x/attachedTempl&#x61;te' Target='http&#58;//example.org/'/></r:Relationships>"
    )
    assert kinds(text)[0] == ("external-template", "http://example.org/")
    for mode in ("", ' TargetMode="External"'):
        assert ("external-moniker", "mhtml:http://example.org/x!x-usc:y") in kinds(
            relation("oleObject", "mhtml:http://example.org/x!x-usc:y", mode)
        )


@pytest.mark.parametrize(
    "target, expected",
    [
        ("https://example.org/x", True), ("\\\\host\\x", True), ("//host/x", True), ("file://host/x", True),
        ("file:////host/x", True), ("file:///\\\\host\\x", True), ("FTP://host/x", True), ("mhtml:http://x!y", True),
        ("file:///C:/Users/x/Normal.dotm", False), ("file:///C:\\x.dotm", False), ("C:\\x.dotm", False),
        ("x.dotm", False), ("file:C|/x", False), ("file:/home/x", False), ("file:///home/x", False),
    ],
)  # fmt: skip
def test_what_is_loaded_over_the_net(target: str, expected: bool) -> None:
    assert is_remote(target) is expected


@pytest.mark.parametrize("charset", ["utf-8-sig", "utf-16", "utf-16-be"])
def test_evasion_89_xml_in_other_encodings(charset: str) -> None:
    told = kinds(relation("attachedTemplate", "//example.org/x").encode(charset))
    assert told == [("external-template", "//example.org/x"), ("remote-template", "//example.org/x")]


@pytest.mark.parametrize(
    "pieces",
    [
        ("DDEAUTO c:\\\\a.exe",),
        (" dde excel x",),
        ("D", "DEAU", "TO c:\\\\a.exe"),
        ("&#68;&#x44;EAUTO c:\\\\a.exe",),
        ("<!-- x -->DDEAUTO c:\\\\a.exe",),
        ("<![CDATA[DDEAUTO c:\\\\a.exe]]>",),
        ("D<!-- x -->DE c:\\\\a.exe",),
        ("D<!-- </w:instrText> -->D<?x y?>E c:\\\\a.exe",),
        ("D<!--" + "x" * 9000 + "-->DE c:\\\\a.exe",),
        ("QUOTE 68 68 69 65 85 84 79 ", " c:\\\\a.exe"),
    ],
)
def test_evasion_89_dde_fields(pieces: tuple[str, ...]) -> None:
    assert {kind for kind, _ in kinds(field(*pieces))} == {"dde"}


def test_evasion_89_dde_elsewhere() -> None:
    assert kinds(word('<w:fldSimple w:instr="DDE excel x"/>')) == [("dde", "DDE excel x")]
    assert kinds('<externalLink><ddeLink ddeService="cmd" ddeTopic="/c x"/></externalLink>') == [("dde", "cmd|/c x")]
    odf = '<text:dde-connection-decl office:dde-application="soffice" office:dde-topic="x" office:dde-item="y"/>'
    assert kinds(odf) == [("dde", "soffice|x")]
    assert kinds("<ss:Cell ss:Formula=\"=cmd|'/c x'!A1\"/>")[0][0] == "dde"


@pytest.mark.parametrize("pieces", [("HYPERLINK DDEX",), ("DD", "", " E"), ("TOC \\o",), ("PAGE",)])
def test_other_fields_say_nothing(pieces: tuple[str, ...]) -> None:
    assert kinds(field(*pieces)) == []
    assert kinds('<ss:Cell ss:Formula="=SUM(A1:A2)"/>') == []


def test_two_fields_are_not_joined() -> None:
    one, two = field("DD"), field("EAUTO x")
    assert kinds(one + two) == []


def test_evasion_89_macro_sheets() -> None:
    relations = (
        f'{RELATIONS}<Relationship Id="r" Target="macrosheets/sheet1.xml" '
        'Type="http://schemas.microsoft.com/office/2006/relationships/xlMacrosheet"/></Relationships>'
    )
    assert kinds(relations) == [("xlm-macro", "macrosheets/sheet1.xml")]
    types = '<Types><Override PartName="/x" ContentType="application/vnd.ms-excel.macrosheet+xml"/></Types>'
    assert kinds(types) == [("xlm-macro", "/x")]
    assert kinds('<xm:macrosheet xmlns="x"><sheetData/></xm:macrosheet>') == [("xlm-macro", "a macro sheet")]


def test_evasion_89_odf_macros_and_objects() -> None:
    said = kinds(
        '<office:event-listeners><script:event-listener script:language="ooo:script" '
        'xlink:href="vnd.sun.star.script:x"/></office:event-listeners>'
        '<draw:object xlink:href="http://example.org/x"/><draw:object xlink:href="./Object 1"/>'
    )
    assert said == [("odf-macro", "vnd.sun.star.script:x"), ("external-object", "http://example.org/x")]


def test_nothing_is_expanded() -> None:
    """Entities that would grow to gigabytes are text like any other."""
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">' + "".join(
        f'<!ENTITY a{level} "{"&a%s;" % (level - 1 or "") * 10}">' for level in range(1, 12)
    )
    assert kinds(bomb + "]><x><instrText>&a11;</instrText></x>") == []


def test_huge_wide_xml_is_over_limit() -> None:
    data = "<instrText>".encode("utf-16") + b" \0" * (WIDE_MAX // 2)
    assert drive(OfficeXmlFormat(), data, declared=INSIDE).reasons == {Reason.OVER_LIMIT}


def test_tags_that_do_not_end_are_over_limit() -> None:
    got = drive(OfficeXmlFormat(), b"<x>" + b"<x:object '" * 5000, declared=INSIDE)
    assert got.reasons == {Reason.OVER_LIMIT}


def test_a_long_tag_is_read_all_the_same() -> None:
    long = "x" * 60_000
    assert kinds(f'<Relationship Id="{long}" Type="x/attachedTemplate" TargetMode="External" Target="C:/x"/>') != []
    longer = "x" * 70_000
    assert kinds(f'<Relationship Type="x/attachedTemplate" TargetMode="External" Target="C:/x" Id="{longer}"/>') != []


def test_damage_hides_nothing() -> None:
    text = relation("attachedTemplate", "http://example.org/")
    assert kinds(text[: text.index("</Relationships>")] + "</") != []
    assert kinds('<x "><y/>' + text) != []


def test_only_documents_are_looked_at() -> None:
    page = b"<html><script>1</script></html>"
    bid = OfficeXmlFormat().bid
    assert bid(Evidence(page, True, Declared())) is Bid.NO
    assert bid(Evidence(b"not xml", True, INSIDE)) is Bid.NO
    flat = b'<?xml version="1.0"?>\r\n<?mso-application progid="Word.Document"?>'
    assert bid(Evidence(flat, True, Declared())) is Bid.MAYBE


def test_evasion_89_macros_in_a_renamed_member() -> None:
    """Whatever the member is called, its content tells."""
    document = docx({"word/picture.png": ole(vba_project({"Module1": "Sub x()\r\nEnd Sub"}, folder=""))})
    got = walk(document)
    assert any(path.endswith("Module1.bas") for path in got.leaves)
    assert "vba-macro" in got.kinds


def test_evasion_89_a_document_with_a_template_from_elsewhere() -> None:
    got = walk(docx({"word/_rels/settings.xml.rels": relation("attachedTemplate", "http://example.org/t.dotm")}))
    assert got.kinds == {"external-template", "remote-template"}
    assert {anomaly.part for anomaly in got.anomalies} == {"word/_rels/settings.xml.rels"}


def test_a_plain_document_says_nothing() -> None:
    got = walk(docx({}), limits=Limits())
    assert not got.anomalies and not got.failures


def test_a_flood_of_comments_in_fields_is_read_in_one_go() -> None:
    """Each of a thousand fields is looked at behind its comments; one that never ends is text, looked for once."""
    text = word("<w:instrText>D<!-- x -->DE<?y?>AUT<![CDATA[O]]> a</w:instrText>" + "<w:instrText>x<!--" * 900)
    assert ("dde", "DDEAUTO a") in kinds(text + "<!--" * 50_000)
