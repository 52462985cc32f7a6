"""The header of a part that was changed: some fields left out or put in, every other byte as it was."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable
from urllib.parse import quote

from icapscan.unwrap.mime_params import parse

CONTENT = frozenset({b"content-type", b"content-transfer-encoding", b"content-disposition"})
"""What describes the body, and is replaced with it."""
OUTDATED = frozenset({b"content-md5", b"content-length", b"content-digest", b"digest", b"repr-digest"})
"""What is true of one body only."""
NAME_MAX = 200
"""Characters of a new file name."""
_FIELD = re.compile(rb"^([!-9;-~]+)[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)(?:\n|\Z)", re.M)
_ENDING = re.compile(rb"(?:\A|(?<=\n))\r*\n\Z")
_FOLD = re.compile(rb"[\r\n]+[ \t]*")
_PARAM = re.compile(rb';\s*([\w-]+(?:\*(?:\d{1,3}\*?)?)?)=("[^"\\]*"|[^\s;"]*)\s*')
_NAME_PARAM = re.compile(rb"(?:file)?name(?:\*(?:\d{1,3}\*?)?)?", re.I)
_PLAIN_NAME = re.compile(r"[ !#-\[\]-~]+")
_UNSAFE = re.compile(r'[/\\"<>|:*?;=]')
_WORD_BYTES = 45
"""Of a name in one encoded word, which is 75 characters at most (RFC 2047 section 2)."""
_OOXML = b"application/vnd.openxmlformats-officedocument."
_WITHOUT_MACROS = {
    b"application/vnd.ms-word.document.macroenabled.12": b"wordprocessingml.document",
    b"application/vnd.ms-word.template.macroenabled.12": b"wordprocessingml.template",
    b"application/vnd.ms-excel.sheet.macroenabled.12": b"spreadsheetml.sheet",
    b"application/vnd.ms-excel.template.macroenabled.12": b"spreadsheetml.template",
    b"application/vnd.ms-powerpoint.presentation.macroenabled.12": b"presentationml.presentation",
    b"application/vnd.ms-powerpoint.slideshow.macroenabled.12": b"presentationml.slideshow",
    b"application/vnd.ms-powerpoint.template.macroenabled.12": b"presentationml.template",
}
"""Media types of documents with macros, and what documents without are called (ECMA-376 part 1 section 15.2)."""


class NotNeat(Exception):
    """A field is not written in the one way that everybody reads alike, and so is not rewritten."""


def rebuilt(header: bytes, drop: frozenset[bytes], add: Iterable[bytes], line_end: bytes) -> bytes:
    """``header`` without the fields ``drop`` (names in lower case) and with the field lines ``add`` (without line end).

    What is added stands where the first dropped field stood, else at the end. The result ends with a blank line.
    """
    added = b"".join(line + line_end for line in add)
    fields, ending = _split(header, line_end)
    out, at = [], 0
    for field in _FIELD.finditer(fields):
        if field[1].lower() in drop:
            out += [fields[at : field.start()], added]
            at, added = field.end(), b""
    return b"".join([*out, fields[at:], added, ending])


def renamed(header: bytes, name: str, line_end: bytes) -> bytes:
    """``header`` with another file name wherever it has one, and the media type that goes with it.

    Raises `NotNeat` where a field with a name is not written plainly.
    """
    fields, ending = _split(header, line_end)
    out, at = [], 0
    for field in _FIELD.finditer(fields):
        kind = field[1].lower()
        if kind not in (b"content-type", b"content-disposition"):
            continue
        value = _FOLD.sub(b" ", field[2]).strip()
        new = _with_name(value, _name(name), line_end + b" ", kind == b"content-type")
        if new != value:
            out += [fields[at : field.start()], field[1], b": ", new, line_end]
            at = field.end()
    return b"".join([*out, fields[at:], ending])


def has_field(header: bytes, name: bytes) -> bool:
    """Whether there is a field of this name (lower case)."""
    return any(field[1].lower() == name for field in _FIELD.finditer(header))


def outdated(header: bytes) -> list[tuple[int, int]]:
    """Where the fields stand that are no longer true when anything below the header has changed."""
    return [field.span() for field in _FIELD.finditer(header) if field[1].lower() in OUTDATED]


def _split(header: bytes, line_end: bytes) -> tuple[bytes, bytes]:
    """The fields, each with its line end, and the blank line; that is put in where it is missing."""
    ending = _ENDING.search(header)
    if ending is not None:
        return header[: ending.start()], header[ending.start() :]
    return header + (line_end if header and not header.endswith(b"\n") else b""), line_end


def _with_name(value: bytes, name: str, fold: bytes, in_type: bool) -> bytes:
    """A field value with another name where it has one, and with the media type of a document without macros."""
    parsed = parse(value)
    start = value.find(b";") if b";" in value else len(value)
    token = value[:start]
    if in_type and parsed.token in _WITHOUT_MACROS:
        token = _OOXML + _WITHOUT_MACROS[parsed.token]
    if not any(_NAME_PARAM.fullmatch(param.name) for param in parsed.params):
        if b"name" in value[start:].lower():
            raise NotNeat
        return token + value[start:]
    written = list(_PARAM.finditer(value, start))
    if not parsed.neat or len(written) != len(parsed.params) or b"".join(one[0] for one in written) != value[start:]:
        raise NotNeat
    kept = [one[1] + b"=" + one[2] for one in written if _NAME_PARAM.fullmatch(one[1]) is None]
    return (b";" + fold).join([token.strip(), *kept, _parameter(name, in_type)])


def _parameter(name: str, in_type: bool) -> bytes:
    """``name`` in Content-Type, ``filename`` in Content-Disposition, as mail programs write them."""
    key = b"name" if in_type else b"filename"
    if _PLAIN_NAME.fullmatch(name) is not None:
        return key + b'="' + name.encode("ascii") + b'"'
    if in_type:
        return key + b'="' + b" ".join(_words(name)) + b'"'
    return key + b"*=UTF-8''" + quote(name, safe="").encode("ascii")


def _words(name: str) -> Iterable[bytes]:
    """RFC 2047 words, each of whole characters."""
    word = b""
    for char in name:
        data = char.encode("utf-8")
        if len(word) + len(data) > _WORD_BYTES:
            yield b"=?UTF-8?B?" + b64encode(word) + b"?="
            word = b""
        word += data
    yield b"=?UTF-8?B?" + b64encode(word) + b"?="


def _name(name: str) -> str:
    """A name that is one and nothing else: printable, no path, no quotes, not too long; its end tells the type."""
    plain = "".join(char for char in name.encode("utf-8", "ignore").decode("utf-8") if char.isprintable())
    plain = _UNSAFE.sub("_", plain).strip(" .") or "document"
    return plain if len(plain) <= NAME_MAX else plain[: NAME_MAX - 20] + plain[-20:]
