"""Small facts about OLE2 documents: names that MSI encodes and Outlook keeps elsewhere, classes, fields of Word,
objects of PowerPoint.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from struct import Struct as Packed
from uuid import UUID

from icapscan.findings import Reason
from icapscan.limits import KIB
from icapscan.unwrap.gate import Stop
from icapscan.unwrap.ole_file import Entry, OleFile

_MSI = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz._"
_CLASSES = {
    "0002ce02-0000-0000-c000-000000000046": "equation-object",
    "0002ce03-0000-0000-c000-000000000046": "equation-object",
    "00021700-0000-0000-c000-000000000046": "equation-object",
    "00000300-0000-0000-c000-000000000046": "ole-link",
    "79eac9e0-baf9-11ce-8c82-00aa004ba90b": "url-moniker",
    "06290bd3-48aa-11d2-8432-006008c3fbfc": "script-moniker",
    "d27cdb6e-ae6d-11cf-96b8-444553540000": "flash-object",
    "f20da720-c02f-11ce-927b-0800095ae340": "ole-package",
    "0003000c-0000-0000-c000-000000000046": "ole-package",
}
CLASSES = {UUID(text).bytes_le: kind for text, kind in _CLASSES.items()}
"""Class identifiers that are worth an anomaly, and its kind."""
_DDE = re.compile(rb"\x13[ \t]{0,20}dde(?:auto)?[ \t]|\x13\0(?: \0){0,20}d\0d\0e\0(?:a\0u\0t\0o\0)? \0", re.I)
_RECORD = Packed("<HHI")
_OBJECT = 0x1011
"""ExOleObjStg and its kin (MS-PPT 2.10.34): an OLE2 file, mostly compressed."""
RECORDS_MAX = 200_000
"""Records at the top of a presentation: a slide is one, with all that is in it."""
ATTACHMENT = "__substg1.0_3701"
_ATTACHMENT_NAMES = ("__substg1.0_3707001f", "__substg1.0_3704001f", "__substg1.0_3707001e", "__substg1.0_3704001e")


def stream_name(entry: Entry) -> str:
    """The path of a stream with the names of an MSI decoded: two characters of theirs in one."""
    path = entry.path
    if not any("\u3800" <= char <= "\u4840" for char in path):
        return path
    text = ""
    for char in path:
        code = ord(char)
        if 0x3800 <= code < 0x4800:
            text += _MSI[code - 0x3800 & 63] + _MSI[code - 0x3800 >> 6]
        elif 0x4800 <= code < 0x4840:
            text += _MSI[code - 0x4800]
        else:
            text += "!" if code == 0x4840 else char
    return text


def attachment_names(file: OleFile) -> dict[str, tuple[str, ...]]:
    """The names that Outlook (MS-OXMSG) keeps beside the data of attachments, by the storage they stand in."""
    names: dict[str, tuple[str, ...]] = {}
    for entry in file.entries:
        if entry.kind == 2 and entry.name.lower() in _ATTACHMENT_NAMES:
            wide = entry.name.lower().endswith("1f")
            name = file.head(entry, 2 * KIB).decode("utf-16-le" if wide else "cp1252", "replace").rstrip("\0")
            folder = entry.path.rpartition("/")[0]
            names[folder] = tuple(dict.fromkeys((*names.get(folder, ())[:3], name))) if name else names.get(folder, ())
    return names


def classes_in(data: bytes) -> list[str]:
    """Kinds of the classes whose identifiers stand anywhere in ``data``."""
    return [kind for identifier, kind in CLASSES.items() if identifier in data]


def dde_field(data: bytes) -> bool:
    """Whether a DDE field begins in this piece of a Word document."""
    return _DDE.search(data) is not None


def slide_objects(pieces: Iterator[bytes]) -> Iterator[tuple[bool, Iterator[bytes]]]:
    """The OLE objects in a ``PowerPoint Document`` stream: compressed or not, and the pieces of each in order.

    They are records at the top of the stream. Each must be read to its end before the next.
    """
    source = _Source(pieces)
    for _ in range(RECORDS_MAX):
        head = source.take(8)
        if len(head) < 8:
            return
        version, kind, size = _RECORD.unpack(head)
        if kind == _OBJECT:
            compressed = version >> 4 == 1
            if compressed:
                size -= len(source.take(4))  # the size when decompressed
            yield compressed, source.run(max(0, size))
        else:
            source.skip(size)
    raise Stop(Reason.OVER_LIMIT, "There are too many records in a presentation.")


class _Source:
    """Pieces, to be taken in other sizes."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._held = b""
        self._at = 0

    def take(self, count: int) -> bytes:
        """So many bytes; fewer at the end."""
        while len(self._held) - self._at < count:
            piece = next(self._pieces, b"")
            if not piece:
                break
            self._held = self._held[self._at :] + piece
            self._at = 0
        data = self._held[self._at : self._at + count]
        self._at += len(data)
        return data

    def run(self, size: int) -> Iterator[bytes]:
        """So many bytes in pieces; fewer at the end."""
        while size > 0:
            data = self._held[self._at : self._at + size]
            if not data:
                self._held, self._at = next(self._pieces, b""), 0
                if not self._held:
                    return
                continue
            self._at += len(data)
            size -= len(data)
            yield data

    def skip(self, size: int) -> None:
        """Pass over so many bytes."""
        for _ in self.run(size):
            pass
