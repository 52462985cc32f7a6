"""Makes PDF files for tests: objects one after the other, and a table of contents where one is wanted."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

Object = bytes | tuple[bytes, bytes]
"""The text of an object; or the dictionary (without ``<<``, ``>>`` and the length) and the data of a stream."""
CATALOG = b"<< /Type /Catalog /Pages 2 0 R >>"
PAGES = b"<< /Type /Pages /Kids [] /Count 0 >>"


def pdf(
    objects: Iterable[Object], *, catalog: bytes = CATALOG, head: bytes = b"%PDF-1.7\n", table: bool = True
) -> bytes:
    """A file of the catalog, an empty list of pages, and these objects, numbered from 3."""
    out, places = bytearray(head), []
    for number, one in enumerate((catalog, PAGES, *objects), 1):
        places.append(len(out))
        out += b"%d 0 obj\n" % number
        if isinstance(one, bytes):
            out += one
        else:
            out += b"<< %s /Length %d >>\nstream\n%s\nendstream" % (one[0], len(one[1]), one[1])
        out += b"\nendobj\n"
    if table:
        start = len(out)
        out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(places) + 1)
        out += b"".join(b"%010d 00000 n \n" % place for place in places)
        out += b"trailer\n<< /Root 1 0 R /Size %d >>\nstartxref\n%d\n" % (len(places) + 1, start)
    return bytes(out + b"%%EOF\n")


def flate(data: bytes, more: bytes = b"") -> Object:
    """A compressed stream."""
    return b"/Filter /FlateDecode " + more, zlib.compress(data)


def object_stream(texts: dict[int, bytes]) -> Object:
    """Objects in a compressed stream."""
    body, index = b"", b""
    for number, text in texts.items():
        index += b"%d %d " % (number, len(body))
        body += text + b"\n"
    return flate(index + body, b"/Type /ObjStm /N %d /First %d " % (len(texts), len(index)))


def attachment(name: bytes, number: int) -> bytes:
    """A file specification."""
    return b"<< /Type /Filespec /F (%s) /UF (%s) /EF << /F %d 0 R >> >>" % (name, name, number)
