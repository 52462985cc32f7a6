"""File names of body parts: every name that some reader might show (RFC 2183, 2231, 2047), the most plausible first."""

from __future__ import annotations

import binascii
import re
from urllib.parse import unquote_to_bytes

from icapscan.unwrap.mime_params import candidates
from icapscan.unwrap.transfer_base64 import Base64

NAMES_MAX = 16
"""Names that are kept of one part."""
NAME_MAX = 1024
"""Characters of a name that are kept."""
_WORD = re.compile(rb"=\?([^?\s]{1,60})\?([BbQq])\?([^?]*)\?=")
_CONTROLS = re.compile(r"[\0-\x1f\x7f]")


def part_names(dispositions: tuple[bytes, ...], types: tuple[bytes, ...]) -> tuple[tuple[str, ...], bool]:
    """Names from Content-Disposition, then Content-Type; and whether they leave a doubt. None gives none."""
    raw: list[bytes] = []
    strict: set[str] = set()
    doubt = False
    for values, name in ((dispositions, b"filename"), (types, b"name")):
        for value in values:
            if name in value.lower():
                found, doubted = candidates(value, name)
                raw += found
                doubt = doubt or doubted
                strict.update(text.casefold() for one in found[:1] for text in readings(one)[:1])
    if not raw:
        return (), False
    names: dict[str, None] = {}
    for one in raw:
        for text in readings(one):
            names.setdefault(text)
    return tuple(names)[:NAMES_MAX], doubt or len(strict) > 1


def field_name(dispositions: tuple[bytes, ...]) -> str:
    """The name of a form field (RFC 7578 4.2), empty where there is none."""
    for value in dispositions:
        if value[:9].lower() == b"form-data":
            found, _ = candidates(value, b"name")
            if found:
                return text_of(found[0])[:NAME_MAX]
    return ""


def readings(raw: bytes) -> list[str]:
    """One written name as readers show it: as it is, with encoded words or percent signs decoded, and tidied."""
    shown = []
    if b"=?" in raw:
        shown += _encoded_words(raw)
    plain = text_of(raw)
    shown.append(plain)
    if b"%" in raw:
        shown.append(text_of(unquote_to_bytes(raw)))
    names = []
    for text in shown:
        text = text[:NAME_MAX].strip()
        if text:
            names += [tidy(text), text] if tidy(text) else [text]
    return list(dict.fromkeys(names))


def tidy(name: str) -> str:
    """The name as a file system would end up with it: no control characters, no trailing dots and blanks.

    Characters that turn the direction of writing stay: that they are there is worth knowing.
    """
    return _CONTROLS.sub("", name.partition("\0")[0]).strip().rstrip(". ")


def text_of(raw: bytes) -> str:
    """Bytes as text: UTF-8, else Latin-1, where every byte is a character."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _encoded_words(raw: bytes) -> list[str]:
    """RFC 2047 words, although section 5 forbids them here; read leniently, since readers are.

    Neighbours in one charset are joined before that is undone: a character may stand in two of them.
    """
    raw = raw.replace(b'"', b"")
    text, held, charset, end = "", b"", "", 0
    for word in _WORD.finditer(raw):
        between = raw[end : word.start()]
        name = word[1].partition(b"*")[0].decode("ascii", "replace").lower()
        if between.strip() or not end or name != charset:
            text += _in_charset(held, charset) + (text_of(between) if between.strip() or not end else "")
            held = b""
        held, charset, end = held + _word(word[2], word[3]), name, word.end()
    return [text + _in_charset(held, charset) + text_of(raw[end:])] if end else []


def _word(coding: bytes, coded: bytes) -> bytes:
    if coding in b"qQ":
        return binascii.a2b_qp(coded, header=True)
    stream = Base64()
    return stream.feed(coded) + stream.finish()


def _in_charset(word: bytes, charset: str) -> str:
    try:
        return word.decode(charset).encode("utf-8", "replace").decode("utf-8")  # some give half of a surrogate pair
    except (LookupError, ValueError):
        return text_of(word)
