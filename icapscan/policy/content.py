"""What a part is by its content: the signs that its first bytes, and a few other ones, bear.

Content and not name or declared type; see docs/decisions/policy-types.md for why this is a table of our own. A part has
*every* type whose signs it bears: what is a picture for one reader and a program for another is both.
"""

from __future__ import annotations

import re

from icapscan.store import PartReader, PartStore
from icapscan.unwrap.contract import FIRST
from icapscan.unwrap.mime import looks_like_text

Data = bytes | PartReader

_OF_FORMAT = {
    "mime": "message/rfc822", "mbox": "application/mbox", "tnef": "application/vnd.ms-tnef", "zip": "application/zip",
    "tar": "application/x-tar", "gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz",
    "lzma": "application/x-lzma", "lzip": "application/x-lzip", "zstd": "application/zstd", "lz4": "application/x-lz4",
    "7z": "application/x-7z-compressed", "rar": "application/vnd.rar", "cab": "application/vnd.ms-cab-compressed",
    "cpio": "application/x-cpio", "ar": "application/x-archive", "lha": "application/x-lha",
    "xar": "application/x-xar", "rpm": "application/x-rpm", "compress": "application/x-compress",
    "iso": "application/x-iso9660-image", "arj": "application/x-arj", "chm": "application/vnd.ms-htmlhelp",
    "szdd": "application/x-szdd", "wim": "application/x-ms-wim", "squashfs": "application/x-squashfs",
    "vhd": "application/x-vhd", "vhdx": "application/x-vhdx", "vmdk": "application/x-vmdk",
    "qcow": "application/x-qcow", "sis": "application/vnd.symbian.install", "ole": "application/x-ole-storage",
    "office-xml": "application/vnd.ms-office-xml", "rtf": "application/rtf", "activemime": "application/x-mso",
    "pdf": "application/pdf", "onenote": "application/onenote", "lnk": "application/x-ms-shortcut",
}  # fmt: skip
"""A format that found parts in a part is better evidence than any sign: it has read it."""

_PREFIXES = (
    (b"\x7fELF", "application/x-executable"),
    (b"\xfe\xed\xfa\xce", "application/x-mach-binary"), (b"\xfe\xed\xfa\xcf", "application/x-mach-binary"),
    (b"\xce\xfa\xed\xfe", "application/x-mach-binary"), (b"\xcf\xfa\xed\xfe", "application/x-mach-binary"),
    (b"\0asm", "application/wasm"), (b"dex\n", "application/vnd.android.package-archive"),
    (b"\xed\xab\xee\xdb", "application/x-rpm"), (b"!<arch>\ndebian", "application/vnd.debian.binary-package"),
    (b"!<arch>\n", "application/x-archive"), (b"#@~^", "application/x-encoded-script"),
    (b"ITSF", "application/vnd.ms-htmlhelp"),
    (b"L\0\0\0\x01\x14\x02\0\0\0\0\0\xc0\0\0\0\0\0\0F", "application/x-ms-shortcut"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "application/x-ole-storage"),
    (b"\xe4\x52\x5c\x7b\x8c\xd8\xa7\x4d", "application/onenote"), (b"ActiveMime", "application/x-mso"),
    (b"PK\3\4", "application/zip"), (b"PK\5\6", "application/zip"), (b"PK\7\x08PK\3\4", "application/zip"),
    (b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"), (b"Rar!\x1a\7", "application/vnd.rar"),
    (b"RE~^", "application/vnd.rar"), (b"\x1f\x8b", "application/gzip"), (b"BZh", "application/x-bzip2"),
    (b"\xfd7zXZ\0", "application/x-xz"), (b"LZIP", "application/x-lzip"), (b"\x28\xb5\x2f\xfd", "application/zstd"),
    (b"\x04\x22\x4d\x18", "application/x-lz4"), (b"\x1f\x9d", "application/x-compress"),
    (b"MSCF\0\0\0\0", "application/vnd.ms-cab-compressed"), (b"ISc(", "application/vnd.ms-cab-compressed"),
    (b"070701", "application/x-cpio"), (b"070702", "application/x-cpio"), (b"070707", "application/x-cpio"),
    (b"\x60\xea", "application/x-arj"), (b"xar!", "application/x-xar"), (b"SZDD\x88\xf0\x27\x33", "application/x-szdd"),
    (b"KWAJ\x88\xf0\x27\xd1", "application/x-szdd"), (b"vhdxfile", "application/x-vhdx"),
    (b"conectix", "application/x-vhd"), (b"KDMV", "application/x-vmdk"), (b"QFI\xfb", "application/x-qcow"),
    (b"MSWIM\0\0\0", "application/x-ms-wim"), (b"hsqs", "application/x-squashfs"),
    (b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"), (b"II*\0", "image/tiff"), (b"MM\0*", "image/tiff"),
    (b"8BPS", "image/vnd.adobe.photoshop"),
    (b"\0\0\1\0", "image/x-icon"), (b"ID3", "audio/mpeg"), (b"\xff\xfb", "audio/mpeg"), (b"OggS", "audio/ogg"),
    (b"fLaC", "audio/flac"), (b"\x1aE\xdf\xa3", "video/webm"), (b"\0\0\1\xba", "video/mpeg"),
    (b"\0\0\1\xb3", "video/mpeg"), (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "video/x-ms-asf"), (b"FLV\1", "video/x-flv"),
    (b"FWS", "application/x-shockwave-flash"), (b"CWS", "application/x-shockwave-flash"),
    (b"ZWS", "application/x-shockwave-flash"), (b"\x78\x9f\x3e\x22", "application/vnd.ms-tnef"),
)  # fmt: skip
_AT = (
    (2, b"-lh", "application/x-lha"), (2, b"-lz", "application/x-lha"), (7, b"**ACE**", "application/x-ace"),
    (257, b"ustar", "application/x-tar"), (4, b"ftypheic", "image/heic"), (4, b"ftypmif1", "image/heic"),
    (4, b"ftyp", "video/mp4"), (0x8001, b"CD001", "application/x-iso9660-image"),
    (0x8001, b"BEA01", "application/x-udf-image"), (0x8801, b"NSR0", "application/x-udf-image"),
    (0x9001, b"NSR0", "application/x-udf-image"),
)  # fmt: skip
_FROM_END = ((512, b"koly", "application/x-apple-diskimage"), (512, b"conectix", "application/x-vhd"))

_MARKUP = re.compile(
    rb"<(?:!doctype\s+html|html|head|body|script|iframe|title|meta|style|table|div|form|a\s+href|img\s|br\s*/?>)"
)
_INTERPRETER = re.compile(rb"#![ \t]*/\S*?(?:/env[ \t]+(?:-\S+[ \t]+)*)?([A-Za-z]*sh|python|perl)?[0-9.]*(?:\s|$)")
_INTERPRETERS = {b"python": "text/x-python", b"perl": "text/x-perl", None: "text/x-script"}
_BATCH = re.compile(rb"@?echo[ \t]+off\b", re.IGNORECASE)
_SCRIPT_FILE = re.compile(rb"<(?:job|package|scriptlet|component)[\s>]")
_IN_TEXT = (
    (b"<?php", "text/x-php"), (b"<?=", "text/x-php"), (b"<hta:application", "application/hta"),
    (b"<svg", "image/svg+xml"), (b"<?mso-application", "application/vnd.ms-office-xml"),
)  # fmt: skip
"""What stands in the first bytes of a text, in lower case."""
_MSI_CLASS = bytes.fromhex("84100c0000000000c000000000000046")
"""{000C1084-0000-0000-C000-000000000046} (MS-MSI); patches and transforms differ in the first byte."""


def types_of(store: PartStore, opened: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The media types that the bytes of a part bear the signs of; none for what nothing is known of."""
    data = store.reader()
    size = store.size
    first = data[:FIRST]
    found = [_OF_FORMAT[name] for name in opened if name in _OF_FORMAT]
    if first[:2] in (b"MZ", b"ZM") and _is_dos_program(data, size, first):
        found.append("application/x-dosexec")
    if first[:4] == b"\xca\xfe\xba\xbe" and len(first) >= 8:
        # QUIRK: a fat Mach-O has its number of architectures where a Java class has its version, which is 45 or more.
        fat = int.from_bytes(first[4:8], "big") < 45
        found.append("application/x-mach-binary" if fat else "application/java-vm")
    found += [name for prefix, name in _PREFIXES if first.startswith(prefix)]
    found += [name for at, sign, name in _AT if size > at and data[at : at + len(sign)] == sign]
    found += [
        name for back, sign, name in _FROM_END if size >= back and data[size - back : size - back + 8].startswith(sign)
    ]
    if first.startswith(b"RIFF") and first[8:12] in _RIFF:
        found.append(_RIFF[first[8:12]])
    if first.startswith(b"BM") and int.from_bytes(first[10:14], "little") < size:
        found.append("image/bmp")
    if b"%PDF-" in first[:1024]:
        found.append("application/pdf")
    if first.lstrip()[:5].lower() == b"{\\rtf"[:5]:
        found.append("application/rtf")
    if "application/x-ole-storage" in found and _is_installer(data, first):
        found.append("application/x-msi")
    found += _texts(first)
    if not found and looks_like_text(first):
        found.append("text/plain")
    return tuple(dict.fromkeys(found))


_RIFF = {b"WEBP": "image/webp", b"WAVE": "audio/wav", b"AVI ": "video/x-msvideo"}


def _is_dos_program(data: Data, size: int, first: bytes) -> bool:
    """PE, NE, LE or LX behind a DOS header, or a plain DOS program; no text that just begins with these letters."""
    if len(first) < 28:
        return False
    at = int.from_bytes(first[60:64], "little") if len(first) >= 64 else 0
    if 4 <= at < size and data[at : at + 2] in (b"PE", b"NE", b"LE", b"LX"):
        return True
    last, pages, paragraphs = (int.from_bytes(first[where : where + 2], "little") for where in (2, 4, 8))
    return (last <= 512 and pages > 0 and 0 < paragraphs * 16 <= pages * 512) or not looks_like_text(first[:256])


def _is_installer(data: Data, first: bytes) -> bool:
    """The class of the root entry of the directory, the first of its first sector (MS-CFB 2.6.1)."""
    shift = int.from_bytes(first[30:32], "little")
    start = int.from_bytes(first[48:52], "little")
    if shift not in (9, 12) or start > 1 << 24:
        return False
    at = (start + 1) << shift
    found = data[at + 80 : at + 96]
    return found[1:] == _MSI_CLASS[1:] and found[0] in (0x82, 0x84, 0x86)


def _texts(first: bytes) -> list[str]:
    utf_16 = first[:2] in (b"\xff\xfe", b"\xfe\xff")
    if utf_16:
        first = first.decode("utf-16", "replace").encode("utf-8", "replace")
    elif not looks_like_text(first):
        return []
    first = first.removeprefix(b"\xef\xbb\xbf").lstrip()
    found = _commands(first)
    if b"<" in first:
        found += _markup(first.lower())
    return found or ["text/plain"] if utf_16 else found


def _commands(first: bytes) -> list[str]:
    """Texts that are run, by how they begin."""
    if first.startswith(b"#!"):
        match = _INTERPRETER.match(first)
        return [_INTERPRETERS.get(match[1], "text/x-shellscript")] if match else ["text/x-script"]
    # QUIRK: a batch file may begin with a mark of UTF-16 that cmd.exe skips with the line it stands in
    if _BATCH.match(first.removeprefix(b"&cls").lstrip()):
        return ["text/x-msdos-batch"]
    return ["application/x-mswinurl"] if first[:18].lower() == b"[internetshortcut]" else []


def _markup(lower: bytes) -> list[str]:
    found = [name for sign, name in _IN_TEXT if sign in lower]
    if _SCRIPT_FILE.search(lower[:1024]) and b"<script" in lower:
        found.append("application/x-windows-script-file")
    if _MARKUP.search(lower):
        found.append("text/html")
    return found
