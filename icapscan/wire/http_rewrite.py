"""HTTP heads for a body that was changed: what described the virgin body goes (RFC 9110 8.6, 8.8, 14; RFC 9530)."""

from __future__ import annotations

import re
from urllib.parse import quote


def field_lines(*names: bytes) -> re.Pattern[bytes]:
    """Whole field lines of these names, with their folds."""
    return re.compile(rb"^(?:%s)[ \t]*:[^\n]*\n(?:[ \t][^\n]*\n)*" % b"|".join(names), re.I | re.M)


_DESCRIBES = field_lines(
    b"content-length", b"transfer-encoding", b"trailer", b"content-md5", b"digest", b"content-digest", b"repr-digest",
    b"etag", b"accept-ranges", b"content-range",
)  # fmt: skip
"""Length, framing, digests and validators of what it was. Whoever asks for a range of it would mix two bodies."""
_TYPE = re.compile(rb"^(content-type[ \t]*:)[^\n]*macroenabled[^\n]*\n(?:[ \t][^\n]*\n)*", re.I | re.M)
_DISPOSITION = re.compile(
    rb"^(content-disposition[ \t]*:[ \t]*[!#$%&'*+\-.^_`|~0-9A-Za-z]*)[^\n]*\n(?:[ \t][^\n]*\n)*", re.I | re.M
)
_OFFICE = b"application/vnd.openxmlformats-officedocument."
_TYPES = {
    "docx": _OFFICE + b"wordprocessingml.document",
    "dotx": _OFFICE + b"wordprocessingml.template",
    "xlsx": _OFFICE + b"spreadsheetml.sheet",
    "xltx": _OFFICE + b"spreadsheetml.template",
    "pptx": _OFFICE + b"presentationml.presentation",
    "potx": _OFFICE + b"presentationml.template",
    "ppsx": _OFFICE + b"presentationml.slideshow",
}
"""Types of documents without macros, by the extension that they have then."""
_UNSAFE = re.compile(r"[^ !#-\[\]-~]|[%/]")


def rewritten(head: bytes, length: int, name: str = "") -> bytes:
    """``head`` for another body of ``length`` bytes.

    ``name``: the file name that the body has now, where its type changed; empty: names and types stay. The head must be
    one that `icapscan.wire.http_head` made or kept: whole lines, ended by an empty one.
    """
    first, line_end, fields = head.partition(b"\n")
    fields = _DESCRIBES.sub(b"", fields)
    if name:
        media_type = _TYPES.get(name.rpartition(".")[2].lower())
        if media_type is not None:
            fields = _TYPE.sub(lambda found: found[1] + b" " + media_type + b"\r\n", fields)
        said = _file_name(name)
        fields = _DISPOSITION.sub(lambda found: found[1] + said + b"\r\n", fields)
    end = fields.rfind(b"\r\n")
    return b"%s%s%sContent-Length: %d\r\n%s" % (first, line_end, fields[:end], length, fields[end:])


def _file_name(name: str) -> bytes:
    """Parameters of Content-Disposition (RFC 6266 4.3, appendix D)."""
    plain = _UNSAFE.sub("_", name)[:200]
    coded = b"" if plain == name else b"; filename*=UTF-8''" + quote(name[:200], safe="").encode()
    return b'; filename="%s"%s' % (plain.encode("ascii"), coded)
