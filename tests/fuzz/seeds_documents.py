"""Seeds for documents."""

from __future__ import annotations

import io
import random
import struct
import zipfile
import zlib
from base64 import a85encode
from collections.abc import Iterable
from functools import cache

from msoffcrypto.format.ooxml import OOXMLFile

from tests.fuzz.seeds_mail import EVIL, TEXT
from tests.unwrap import lnk_maker, ole_maker, ooxml_maker, pdf_maker
from tests.unwrap.test_onenote import section


def documents() -> Iterable[bytes]:
    make = ole_maker
    project = make.vba_project({"Module1": "Sub AutoOpen()\r\n  Shell 1\r\nEnd Sub\r\n"})
    bof = make.biff(0x809, bytes.fromhex("00060500000000000000000000000000"))
    book = (
        bof
        + make.biff(0x85, bytes(4) + b"\1\1\5\0Macro")
        + make.biff(0x18, b" \0\0\1" + bytes(11) + b"\1")
        + make.biff(10, b"")
    )
    yield make.ole({"short": EVIL, "Folder/long": EVIL * 20, "empty": b""})
    yield make.ole(project)
    yield make.ole({"Workbook": book, "\1Ole10Native": make.native("a.exe", EVIL)})
    yield make.ole({"WordDocument": bytes(600), "1Table": b"\x13 DDEAUTO cmd", "\1CompObj": TEXT})
    yield make.ole(
        {"EncryptionInfo": b'\4\0\4\0\x40\0\0\0<encryption spinCount="100"/>', "EncryptedPackage": bytes(600)}
    )
    yield make.ole({"PowerPoint Document": struct.pack("<HHI", 0x10, 0x1011, len(EVIL)) + EVIL})
    yield make.ole({"__substg1.0_37010102": EVIL, "__substg1.0_3707001F": "a.exe".encode("utf-16-le")})
    yield make.ole({"䡀䌏䈯": TEXT}, clsid="000c1084-0000-0000-c000-000000000046")


@cache
def encrypted() -> tuple[bytes, ...]:
    """A document that the standard password opens, one that it does not; salts are random, so made once."""
    plain = ooxml_maker.docx({"noise": random.Random(1).randbytes(9000)})  # the writer needs some size
    made = []
    for password in ("VelvetSweatshop", "secret of mine"):
        locked = io.BytesIO()
        OOXMLFile(io.BytesIO(plain)).encrypt(password, locked)
        made.append(locked.getvalue())
    return *made, list(documents())[4]


def vbas() -> Iterable[bytes]:
    project = ole_maker.vba_project({"Module1": "Sub AutoOpen()\r\nEnd Sub\r\n", "This": "Rem"})
    yield from project.values()
    yield b"".join(ole_maker.record(kind, b"abcd") for kind in (1, 3, 0x19, 0x47, 0x1A, 0x32, 0x31, 0x21, 0x2B))


def records() -> Iterable[bytes]:
    make = ole_maker
    yield (
        make.biff(0x809, bytes(16))
        + make.biff(0x85, bytes(4) + b"\1\1\5\0Macro")
        + make.biff(0x1AE, b"\1\0\5\0\0a\3b\0")
    )
    yield (
        make.biff(0x809, bytes(16))
        + make.biff(0x17, b"\7\1a\3bcd")
        + make.biff(0x18, b"\x20\0\0\1" + bytes(11) + b"\1\0")
    )
    yield make.packed("a.exe", EVIL)
    yield make.native("a.exe", EVIL)
    yield make.ole1("Package", make.packed("a.exe", EVIL))
    yield make.ole1("Word.Document", b"", kind=1, topic=b"http://a.example/\0")


def xmls() -> Iterable[bytes]:
    make = ooxml_maker
    yield make.word('<w:fldSimple w:instr="DDEAUTO c:\\\\x &quot;y&quot;"/>').encode()
    yield make.word("<w:instrText>QUOTE 68 68 69</w:instrText><!-- x --><w:instrText>AUTO</w:instrText>").encode()
    yield make.relation("attachedTemplate", "http://a.example/x.dotm").encode()
    yield make.relation("oleObject", "file:///\\\\a\\b").encode("utf-16")
    yield b"<?xml version='1.0'?><workbook><sheets><sheet state=\"veryHidden\" r:id='1'/></sheets>" + (
        b"<f>=cmd|' /c x'!A1</f></workbook>"
    )
    with zipfile.ZipFile(io.BytesIO(make.docx({}))) as archive:
        yield from map(archive.read, archive.namelist())


def rtfs() -> Iterable[bytes]:
    make = ole_maker
    for inside in (
        make.ole1("Package", make.packed("setup.exe", EVIL)),
        make.ole({"\1Ole10Native": make.native("a", EVIL)}),
        EVIL,
    ):
        digits = inside.hex().encode()
        yield b"{\\rtf1 Text.{\\object\\objemb\\objupdate{\\*\\objdata " + digits + b"}{\\result x}} More.}"
        yield (
            b"{\\rtf1{\\object\\objlink{\\*\\objclass Equation.3}{\\*\\objdata {\\*\\x 12}\\par "
            + digits[:99]
            + b"\\'41"
            + digits[99:]
            + b"}}}"
        )
    yield b"{\\rtf1{\\field{\\*\\fldinst DDEAUTO cmd}}{\\object{\\*\\objdata\\bin8 \1\5\0\0\2\0\0\0}}}"


def pdfs() -> Iterable[bytes]:
    make = pdf_maker
    yield make.pdf([make.flate(EVIL, b"/Type /EmbeddedFile"), make.attachment(b"a.exe", 3)])
    yield make.pdf(
        [b"<< /S /JavaScript /JS (app.alert\\('x'\\)) >>", b"<< /S /Launch /F (cmd) >>", b"<< /JS <6162> >>"]
    )
    yield make.pdf([make.object_stream({7: b"<< /S /JavaScript /JS 8 0 R >>", 8: b"(abc)"})], table=False)
    yield make.pdf([(b"/Type /EmbeddedFile /Filter [/A#53CII85Decode /FlateDecode]",
           a85encode(zlib.compress(EVIL)) + b"~>"),
                    (b"/Filter /ASCIIHexDecode", EVIL.hex().encode() + b">"), (b"/Filter /LZWDecode",
                    b"x")])  # fmt: skip
    yield make.pdf([b"<< /Encrypt 9 0 R >>", (b"/Length 99999", EVIL)], head=b"junk\n%PDF-1.4\n")


def onenotes() -> Iterable[bytes]:
    yield from (section(EVIL, b"<job>", b""), section(b"MZ" + EVIL, size=3), section(EVIL, size=1 << 40))


def shortcuts() -> Iterable[bytes]:
    for wide in (False, True):
        yield lnk_maker.shortcut("/c echo", "..\\cmd.exe", wide=wide, target="%COMSPEC%", tail=EVIL)


def active_mimes() -> Iterable[bytes]:
    packed = zlib.compress(ole_maker.ole({"short": EVIL}))
    yield b"ActiveMime" + b"\0\0\1\xf0\4\0\0\0" + bytes(32) + struct.pack("<I", len(packed)) + packed
    yield b"ActiveMime" + bytes(40) + packed[:-4]
