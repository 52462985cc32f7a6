"""What a part is by its content: every sign, several at once, and what only the parts in it tell."""

from __future__ import annotations

import asyncio
import io
import struct
import tarfile
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icapscan.engines.fanout import Fanout
from icapscan.findings import Reason, Unscanned, Verdict, summarize
from icapscan.limits import Limits
from icapscan.pipeline import Scanner, Subject
from icapscan.policy.content import types_of
from icapscan.policy.facts import PartFacts
from icapscan.policy.kinds import ALIASES, KINDS, KNOWN_TYPES, kinds_of
from icapscan.policy.parts import completed
from icapscan.policy.rules import Needs
from icapscan.store import PartStore, Purse
from tests.conformance.fakes import FindsEicar
from tests.conftest import corpus_rows
from tests.policy.made import verdict
from tests.unwrap.ole_maker import ole

NEEDS = Needs(True, True)


def pe(at: int = 0x80, kind: bytes = b"PE\0\0") -> bytes:
    head = bytearray(b"MZ" + b"\x90\0\3" + b"\0" * 59)
    struct.pack_into("<I", head, 60, at)
    return bytes(head).ljust(at, b"\0") + kind + b"\x4c\1" + b"\0" * 300


def zipped(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(name, "x" * 50)
    return out.getvalue()


def tarred() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.txt"))
    return out.getvalue()


WSF = "application/x-windows-script-file text/html"
DOS = b"MZ" + struct.pack("<HHHH", 100, 3, 0, 2) + bytes(range(128, 250)) * 4
"""A plain DOS program: its last page has 100 bytes, three pages, two paragraphs of header."""
SAMPLES = [
    ("PE", pe(), "application/x-dosexec"),
    ("PE far away", pe(0x2000), "application/x-dosexec"),
    ("NE", pe(kind=b"NE"), "application/x-dosexec"),
    ("DOS", DOS, "application/x-dosexec"),
    ("DOS, cut off", b"MZ\x90\0" + b"\0" * 40, "application/x-dosexec"),
    ("old ZM", b"ZM" + DOS[2:], "application/x-dosexec"),
    ("ELF", b"\x7fELF\2\1\1" + b"\0" * 60, "application/x-executable"),
    ("Mach-O", bytes.fromhex("cffaedfe07000001") + b"\0" * 60, "application/x-mach-binary"),
    ("fat Mach-O", bytes.fromhex("cafebabe00000002") + b"\0" * 60, "application/x-mach-binary"),
    ("Java class", bytes.fromhex("cafebabe00000034") + b"\0" * 60, "application/java-vm"),
    ("WebAssembly", b"\0asm\1\0\0\0", "application/wasm"),
    ("shell", b"#!/bin/sh\necho hello\n", "text/x-shellscript"),
    ("bash by env", b"#! /usr/bin/env bash\necho hello\n", "text/x-shellscript"),
    ("Python", b"#!/usr/bin/env python3\nprint(1)\n", "text/x-python"),
    ("Perl", b"#!/usr/bin/perl5.36 -w\nprint 1;\n", "text/x-perl"),
    ("env with options", b"#!/usr/bin/env -S python3 -u\nprint(1)\n", "text/x-python"),
    ("no interpreter", b"#!", "text/x-script"),
    ("another", b"#!/usr/bin/ruby\nputs 1\n", "text/x-script"),
    ("PHP", b"\n\n<?php echo 1; ?>", "text/x-php"),
    ("batch", b"\r\n@ECHO OFF\r\ndel x\r\n", "text/x-msdos-batch"),
    ("batch in UTF-16", "\ufeff@echo off\r\n".encode("utf-16-le"), "text/x-msdos-batch"),
    ("HTA", b"<html><head><HTA:APPLICATION id=x></head></html>", "application/hta text/html"),
    ("WSF", b'<?xml version="1.0"?><job id="a"><script/></job>', WSF),
    ("scriptlet", b"<!-- x -->\n<scriptlet>\n<script language='VBScript'>", WSF),
    ("encoded script", b"#@~^XAAAAA==-mD~6'", "application/x-encoded-script"),
    ("shortcut", bytes.fromhex("4c0000000114020000000000c000000000000046") + b"\0" * 60, "application/x-ms-shortcut"),
    ("internet shortcut", b"[InternetShortcut]\r\nURL=http://x/\r\n", "application/x-mswinurl"),
    ("RTF", b"{\\rtf1 hello}", "application/rtf"),
    ("RTF without its f", b" {\\rt\\x hello}", "text/plain"),
    ("PDF", b"%PDF-1.7\n", "application/pdf"),
    ("PDF behind other bytes", b"junk\n" * 50 + b"%PDF-1.4\n", "application/pdf"),
    ("HTML", b"<!DOCTYPE html><html><body>hi</body></html>", "text/html"),
    ("HTML without a head", b"\n<script>alert(1)</script>", "text/html"),
    ("text", b"hello world\n", "text/plain"),
    ("text that begins with MZ", b"MZ is a postal code in this text of words\n" * 3, "text/plain"),
    ("zip", zipped("a.txt"), "application/zip"),
    ("tar", tarred(), "application/x-tar"),
    ("7z", b"7z\xbc\xaf\x27\x1c" + b"\0" * 60, "application/x-7z-compressed"),
    ("RAR", b"Rar!\x1a\7\1\0" + b"\0" * 50, "application/vnd.rar"),
    ("CAB", b"MSCF\0\0\0\0" + b"\0" * 60, "application/vnd.ms-cab-compressed"),
    ("gzip", b"\x1f\x8b\x08" + b"\0" * 20, "application/gzip"),
    ("ACE", b"\0" * 7 + b"**ACE**" + b"\0" * 20, "application/x-ace"),
    ("CHM", b"ITSF\3\0\0\0" + b"\0" * 90, "application/vnd.ms-htmlhelp"),
    ("ISO", b"\0" * 0x8001 + b"CD001\1" + b"\0" * 3000, "application/x-iso9660-image"),
    ("UDF", b"\0" * 0x8001 + b"BEA01\1" + b"\0" * 3000, "application/x-udf-image"),
    ("DMG", b"\0" * 5000 + b"koly" + b"\0" * 508, "application/x-apple-diskimage"),
    ("VHD", b"\0" * 5000 + b"conectix" + b"\0" * 504, "application/x-vhd"),
    ("VHDX", b"vhdxfile" + b"\0" * 100, "application/x-vhdx"),
    ("PNG", b"\x89PNG\r\n\x1a\n" + b"\0" * 20, "image/png"),
    ("WebP", b"RIFF\x24\0\0\0WEBPVP8 " + b"\0" * 20, "image/webp"),
    ("SVG", b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "image/svg+xml"),
    ("MP4", b"\0\0\0\x18ftypmp42" + b"\0" * 20, "video/mp4"),
    ("Flash", b"CWS\x0a" + b"\0" * 20, "application/x-shockwave-flash"),
    ("OneNote", bytes.fromhex("e4525c7b8cd8a74daeb15378d02996d3") + b"\0" * 60, "application/onenote"),
    ("TNEF", b"\x78\x9f\x3e\x22" + b"\0" * 20, "application/vnd.ms-tnef"),
]  # fmt: skip


def types(data: bytes, *opened: str) -> tuple[str, ...]:
    store = PartStore.of(data)
    try:
        return types_of(store, opened)
    finally:
        store.close()


@pytest.mark.parametrize(
    ("data", "expected"), [(data, kind) for _, data, kind in SAMPLES], ids=[one for one, _, _ in SAMPLES]
)
def test_signs(data: bytes, expected: str) -> None:
    assert types(data) == tuple(expected.split())


def test_a_large_part_is_read_where_it_lies() -> None:
    data = pe(0x3000) + b"\0" * 200_000
    store = PartStore(Purse(1 << 24, 0), Limits(part_in_bytes=1000))
    store.append(data)
    assert store.contents() is None
    assert types_of(store) == ("application/x-dosexec",)
    store.close()


def test_what_can_be_read_in_several_ways_is_all_of_them() -> None:
    assert set(types(pe()[:0x100] + b"\0" * 100 + b"%PDF-1.4" + b"\0" * 500)) == {
        "application/x-dosexec", "application/pdf",
    }  # fmt: skip
    assert set(types(b"GIF89a" + b"\0" * 300, "zip")) == {"image/gif", "application/zip"}
    assert "application/x-iso9660-image" in types(pe().ljust(0x8001, b"\0") + b"CD001" + b"\0" * 100)


@given(st.binary(max_size=200), st.sampled_from([data for _, data, _ in SAMPLES]))
def test_no_bytes_make_it_fail(tail: bytes, head: bytes) -> None:
    for data in (tail, head[:40] + tail, head + tail):
        assert set(types(data)) <= KNOWN_TYPES


def test_it_does_not_search_for_long() -> None:
    began = time.process_time()
    for data in (b"<" * 5000, b" " * 5000, b"<!--" * 2000, b"#!" + b"s" * 5000, b"<?xml " * 900, b"\r\n" * 3000):
        types(data)
    assert time.process_time() - began < 5, "a guard against hanging: it takes some milliseconds"


def test_the_tables_fit_together() -> None:
    assert set(ALIASES.values()) <= KNOWN_TYPES and not set(ALIASES) & KNOWN_TYPES
    assert all(kinds_of((one,)) for one in KNOWN_TYPES)
    assert {kind for _, _, sign in SAMPLES for kind in kinds_of(tuple(sign.split()))} | {
        "macro",
        "encrypted",
        "office",
    } >= (set(KINDS) - {"audio", "mail"})


def test_the_documentation_lists_every_type_and_kind() -> None:
    text = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text("utf-8")
    for kind, names in KINDS.items():
        (row,) = [line for line in text.splitlines() if line.startswith(f'| `kind = "{kind}"` |')]
        assert all(f"`{name}`" in row for name in names)


# With the parts in it


def parts_of(data: bytes, name: str = "", media_type: str = "") -> tuple[dict[str, PartFacts], Verdict]:
    async def run() -> tuple[list[PartFacts], Verdict]:
        scan = Scanner(Fanout([FindsEicar()]), Limits(), Purse(1 << 26, 1 << 26)).begin(
            Subject(b"", name, media_type), NEEDS
        )
        try:
            scan.feed(data)
            found = await scan.finish()
            assert scan.parts_complete
            return scan.parts, found
        finally:
            scan.close()

    parts, found = asyncio.run(run())
    return {part.path: part for part in completed(parts, found, NEEDS)}, found


OPC = ("[Content_Types].xml", "_rels/.rels", "docProps/app.xml")
WORD = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"


@pytest.mark.parametrize(
    ("names", "expected", "kinds"),
    [
        (("a.txt", "b.exe"), {"application/zip"}, {"archive"}),
        ((*OPC, "word/document.xml"), {WORD, "application/vnd.openxmlformats-package"}, {"office"}),
        ((*OPC, "WORD/Document.xml"), {WORD, "application/vnd.openxmlformats-package"}, {"office"}),
        ((*OPC, "word/document.xml", "evil.exe"), {WORD, "application/vnd.openxmlformats-package", "application/zip"},
         {"office", "archive"}),
        (("META-INF/MANIFEST.MF", "A.class"), {"application/zip", "application/java-archive"}, {"archive", "program"}),
        (("META-INF/MANIFEST.MF", "META-INF/manifest.xml"),
         {"application/java-archive", "application/vnd.oasis.opendocument"}, {"archive", "program", "office"}),
        (("mimetype", "META-INF/manifest.xml", "content.xml", "Object 1/content.xml"),
         {"application/vnd.oasis.opendocument"}, {"office"}),
    ],
)  # fmt: skip
def test_a_zip_is_what_stands_in_it(names: tuple[str, ...], expected: set[str], kinds: set[str]) -> None:
    parts, _ = parts_of(zipped(*names))
    assert (set(parts[""].types), set(parts[""].kinds)) == (expected, kinds)


def test_in_a_mail_too_where_a_part_has_a_number_and_a_name() -> None:
    import base64

    coded = base64.encodebytes(zipped(*OPC, "xl/workbook.xml"))
    mail = (
        b"From: a@example.org\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n"
        b"--x\r\n\r\nhello\r\n"
        b'--x\r\nContent-Type: application/octet-stream; name="book.xlsx"\r\nContent-Transfer-Encoding: base64\r\n\r\n'
        + coded + b"\r\n--x--\r\n"
    )  # fmt: skip
    parts, _ = parts_of(mail, media_type="message/rfc822")
    assert parts["2"].kinds == ("office",) and parts["2"].names == ("book.xlsx",)
    assert parts["2/book.xlsx/xl/workbook.xml"].base == "2/book.xlsx/xl/workbook.xml"
    assert "message/rfc822" in parts[""].types and parts["1"].types == ("text/plain",)


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        ("WordDocument", "application/msword"), ("Workbook", "application/vnd.ms-excel"),
        ("PowerPoint Document", "application/vnd.ms-powerpoint"),
        ("__properties_version1.0", "application/vnd.ms-outlook"),
        ("Something", "application/x-ole-storage"),
    ],
)  # fmt: skip
def test_an_ole_file_is_what_stands_in_it(stream: str, expected: str) -> None:
    parts, _ = parts_of(ole({stream: b"\1\2\3" * 2000}))
    assert parts[""].types == (expected,)


def test_what_we_make_ourselves_for_the_engines_is_no_part() -> None:
    parts, found = parts_of(zipped(*OPC, "word/document.xml"))
    assert all("icapscan" not in part.declared for part in parts.values())
    assert len(parts) == 5 and found.level.word == "clean"


def kinds_in(*found: tuple[str, tuple[str, ...]], **said: Any) -> dict[str, set[str]]:
    """The kinds of parts of these types, and with them what a verdict says of them."""
    parts = [PartFacts(path, (), "", types, base=path) for path, types in found]
    return {part.path: set(part.kinds) for part in completed(parts, verdict(**said), NEEDS)}


DOCM = (WORD, "application/vnd.openxmlformats-package")
IN_A_MAIL = (
    ("", ("message/rfc822",)), ("1", ("text/plain",)), ("2", ("application/zip",)), ("2/a.docm", DOCM),
    ("2/a.docm/word/vbaProject.bin", ("application/x-ole-storage",)), ("2/a.docm/word/vbaProject.bin/VBA/x", ()),
    ("3", DOCM),
)  # fmt: skip


@pytest.mark.parametrize("place", ["2/a.docm/word/vbaProject.bin", "2/a.docm/word/vbaProject.bin/VBA/x"])
def test_macros_make_documents_with_macros_and_not_what_these_came_in(place: str) -> None:
    kinds = kinds_in(*IN_A_MAIL, anomalies=(("vba-macro", place),))
    marked = {path for path, of in kinds.items() if "macro" in of}
    assert marked == {"2/a.docm", "2/a.docm/word/vbaProject.bin", place}
    assert not any("macro" in of for of in kinds_in(*IN_A_MAIL, anomalies=(("mime-boundary", place),)).values())


def test_what_is_encrypted_and_what_holds_it() -> None:
    parts = (("", ("message/rfc822",)), ("2", ("application/zip",)), ("2/x", ()), ("3", ("application/pdf",)))
    item = Unscanned(Reason.ENCRYPTED, "2/x")
    facts = [PartFacts(path, (), "", types, base=path) for path, types in parts]
    marked = {one.path for one in completed(facts, summarize((), [item]), NEEDS) if "encrypted" in one.kinds}
    assert marked == {"2/x", "2"}
    item = Unscanned(Reason.ENCRYPTED, "3")
    marked = {one.path for one in completed(facts, summarize((), [item]), NEEDS) if "encrypted" in one.kinds}
    assert marked == {"3"}, "a mail with an encrypted attachment is no encrypted mail"


def test_a_document_with_macros_in_a_real_mail(corpus: Path) -> None:
    workbook = (corpus / "ole/oletools/encrypted__autostart-encrypt-standardpassword.xls").read_bytes()
    parts, _ = parts_of(workbook)
    assert {"office", "macro"} <= set(parts[""].kinds)


EXTENSIONS = {
    ".pdf": "application/pdf", ".zip": "application/zip", ".tar": "application/x-tar", ".rar": "application/vnd.rar",
    ".7z": "application/x-7z-compressed", ".cab": "application/vnd.ms-cab-compressed", ".gz": "application/gzip",
    ".iso": "application/x-iso9660-image", ".lha": "application/x-lha", ".xar": "application/x-xar",
    ".doc": "application/x-ole-storage", ".xls": "application/x-ole-storage", ".rtf": "application/rtf",
    ".docx": "application/zip", ".xlsx": "application/zip", ".docm": "application/zip", ".xlsm": "application/zip",
    ".exe": "application/x-dosexec", ".png": "image/png", ".cpio": "application/x-cpio", ".rpm": "application/x-rpm",
}  # fmt: skip


def test_the_corpus_is_what_the_names_of_its_clean_files_say(corpus: Path) -> None:
    looked, wrong = 0, []  # a tar that holds nothing but a label is left out: nothing in it is a sign
    for row in corpus_rows(corpus):
        expected = EXTENSIONS.get(Path(row["path"]).suffix)
        if expected is not None and row["verdict"] == "clean" and "empty_with_gnulabel" not in row["path"]:
            looked += 1
            data = (corpus / row["path"]).read_bytes()
            # some have no sign of their own: an old tar, a zip behind other bytes; whoever opens them knows
            if expected not in types(data) and expected not in parts_of(data)[0][""].types:
                wrong.append((row["path"], types(data)))
    assert looked > 100
    assert wrong == []
