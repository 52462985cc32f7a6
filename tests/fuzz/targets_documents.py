"""Fuzz targets for documents, and for the walker. The first line of each is its invariant; *sound*: see `oracle.py`."""

from __future__ import annotations

from icapscan.unwrap import biff as biff_records
from icapscan.unwrap import ole_package, pdf_syntax, vba
from icapscan.unwrap.contract import Declared
from icapscan.unwrap.streams import Broken
from tests.fuzz import nested as containers
from tests.fuzz import walked
from tests.fuzz.mutators import near_words
from tests.fuzz.target import KIB, Target, entries, every
from tests.unwrap.ole_maker import compress

OLE_WORDS = (
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", b"R\0o\0o\0t\0", b"\xfe\xff\xff\xff", b"\xff\xff\xff\xff", b"\xfd\xff\xff\xff",
    "VBA".encode("utf-16-le"), "dir".encode("utf-16-le"), "Workbook".encode("utf-16-le"), b"\1\0O\0l\0e\0",
    b"\0Attribut",
    "EncryptionInfo".encode("utf-16-le"), "EncryptedPackage".encode("utf-16-le"), "WordDocument".encode("utf-16-le"),
    "PowerPoint Document".encode("utf-16-le"), "__substg1.0_37010102".encode("utf-16-le"),
)  # fmt: skip
XML_WORDS = (
    b"<w:instrText>", b"</w:instrText>", b"<w:fldSimple w:instr=\"", b"DDEAUTO ", b"QUOTE 68 68 69", b"<Relationship ",
    b"TargetMode=\"External\"", b" Target=\"", b" Type=\"", b"attachedTemplate", b"oleObject", b"<?xml", b"<!--",
    b"-->",
    b"<![CDATA[", b"]]>", b"<sheet state=\"veryHidden\"", b"xlmacrosheet", b"<f>", b"</f>", b"&#68;", b"&lt;",
    b"<ddeLink ",
)  # fmt: skip
PDF_WORDS = (
    b"%PDF-1.7", b" 0 obj\n", b"endobj", b"stream\n", b"endstream", b"<<", b">>", b"/Filter", b"/FlateDecode", b"/JS (",
    b"/JavaScript", b"/EmbeddedFile", b"/Filespec", b"/EF", b"/UF", b"/Launch", b"/ObjStm", b"/First ", b"/N ",
    b"/Length ",
    b"/ASCIIHexDecode", b"/ASCII85Decode", b"/A85", b"~>", b"/Predictor 12", b"/DecodeParms", b"/RunLengthDecode",
    b"xref",
    b"trailer", b"startxref", b"%%EOF", b" 0 R", b"#61", b"\\(", b"/OpenAction", b"/LZWDecode",
)  # fmt: skip
RTF_WORDS = (
    b"{\\rtf1 ", b"{\\object", b"\\objdata ", b"\\objemb", b"\\objlink", b"\\objclass ", b"{\\*\\", b"\\bin4 ",
    b"\\bin", b"\\'41",
    b"}", b"\\u1234?", b"\\ucw", b"0105000002000000", b"d0cf11e0a1b11ae1", b"\\objupdate", b"\\field", b"\\fldinst",
    b"DDEAUTO",
)  # fmt: skip
OLE, OFFICE_XML, RTF, PDF = entries("ole"), entries("office-xml"), entries("rtf"), entries("pdf")
ONENOTE, LNK, ACTIVE_MIME = entries("onenote"), entries("lnk"), entries("activemime")


MEMBER = Declared(("word/document.xml",), within="zip")


def ole(data: bytes) -> None:
    """OLE2 compound files: sound, whatever their chains of sectors say."""
    every(data, OLE)


def vba_(data: bytes) -> None:
    """VBA: decompression raises only `Broken`, is bounded, undoes compression; directories raise nothing."""
    for at in (0, vba.find_source(data)):
        size = 0
        try:
            for piece in vba.decompress(data, max(0, at)):
                size += len(piece)
                assert len(piece) <= 3 * vba.CHUNK
        except Broken:
            pass
        assert size <= 4096 * len(data) // 3 + vba.CHUNK
    for module in vba.modules(data):
        f"{module.name}{module.stream}".encode()
    assert b"".join(vba.decompress(compress(data))) == data


def biff(data: bytes) -> None:
    """Records of workbooks, packages and OLE 1.0 objects: reading raises nothing, and nothing points outside."""
    workbook = biff_records.workbook(data)
    for text in (*workbook.macro_sheets, *workbook.automatic, *workbook.dde):
        text.encode("utf-8")
    for at in (0, 4):
        found = ole_package.package(data, at)
        if found is not None:
            assert found.start >= at and found.size >= 0
            "".join(found.names).encode()
    one = ole_package.ole_object(data)
    if one is not None:
        assert 0 <= one.start <= len(data) and one.size >= 0


def office_xml(data: bytes) -> None:
    """Parts of OOXML and ODF: sound."""
    every(data, OFFICE_XML, (MEMBER,))
    every(b"<w:document>" + data, OFFICE_XML, (MEMBER,))


def rtf(data: bytes) -> None:
    """RTF: sound."""
    every(data, RTF)
    every(b"{\\rtf1{\\object\\objemb{\\*\\objdata " + data, RTF)


def pdf(data: bytes) -> None:
    """PDF: sound, its syntax on its own too."""
    every(data, PDF)
    _syntax(data)


def _syntax(data: bytes) -> None:
    """The syntax of PDF alone."""
    pdf_syntax.head(data + b">>")
    assert len(pdf_syntax.string(data, 0)) <= len(data)
    for script in pdf_syntax.scripts(data):
        assert isinstance(script, int) or len(script) <= 2 * len(data)
    for number, told in pdf_syntax.file_objects(data):
        assert number >= 0
        "".join(told).encode("utf-8", "surrogatepass")
    list(pdf_syntax.actions(data))


def onenote(data: bytes) -> None:
    """OneNote sections: sound."""
    every(data, ONENOTE)


def lnk(data: bytes) -> None:
    """Windows shortcuts: sound."""
    every(data, LNK)


def activemime(data: bytes) -> None:
    """ActiveMime: sound."""
    every(data, ACTIVE_MIME)
    every(b"ActiveMime" + data, ACTIVE_MIME)


def office_crypto(data: bytes) -> None:
    """Encrypted documents, with the child process that decrypts: sound, and the child is dead at the end."""
    from icapscan.unwrap import children

    every(data, OLE)
    assert not children._running, "a child process was forgotten"


def walker(data: bytes) -> None:
    """Any body: nothing is raised or lost, the same for any split, bounded, stores freed; no decoder raised."""
    walked.check(data)


def nested(data: bytes) -> None:
    """Containers in containers, made rightly, around any payload: its bytes are a part, unless a limit was met."""
    containers.check(data)


DOCUMENTS = (
    Target(ole, OLE_WORDS, near_words, 16 * KIB, ("ole",), corpus=("ole",)),
    Target(vba_, (b"\1\0\xb0", b"\x19\0\4\0\0\0", b"\x47\0", b"\x1a\0", b"\x32\0", b"\x31\0\4\0\0\0",
           b"\x2b\0\0\0\0\0", b"\0Attribut"),
           near_words, 8 * KIB),
    Target(biff, (b"\x09\x08\x10\0", b"\x85\0", b"\x18\0", b"\xae\1", b"\x17\0", b"\x2f\0", b"\x0a\0\0\0", b"\2\0",
           b"\1\5\0\0\2\0\0\0"),
           near_words, 4 * KIB),
    Target(office_xml, XML_WORDS, near_words, 8 * KIB, ("office-xml",)),
    Target(office_crypto, OLE_WORDS, near_words, 24 * KIB, children=True),
    Target(rtf, RTF_WORDS, near_words, 8 * KIB, ("rtf",), corpus=("ole/**/*.rtf",)),
    Target(pdf, PDF_WORDS, near_words, 8 * KIB, ("pdf",), corpus=("pdf",)),
    Target(onenote, (bytes.fromhex("e716e3bd65261145a4c48d4d0b7a9eac"),
           bytes.fromhex("22a7fb71790f0b4abb13899256426b24")),
           near_words, 8 * KIB, ("onenote",)),
    Target(lnk, (bytes.fromhex("4c0000000114020000000000c000000000000046"), b"\x14\3\0\0\1\0\0\xa0", b"\6\0\0\xa0"),
           near_words, 4 * KIB, ("lnk",)),
    Target(activemime, (b"ActiveMime", b"\x78\x9c", b"\x78\x01"), near_words, 4 * KIB, ("activemime",)),
    Target(walker, (*OLE_WORDS[:1], *PDF_WORDS[:4], *RTF_WORDS[:2], b"PK\3\4", b"\x1f\x8b\x08", b"Content-Type: ",
           b"--frontier", b"BZh9", b"ustar\0", b"begin 644 a\n", b"Content-Transfer-Encoding: base64\r\n"),
           near_words, 16 * KIB, corpus=("made", "http", "clamav-testfiles")),
    Target(nested, longest=4 * KIB),
)  # fmt: skip
