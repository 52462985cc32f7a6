"""The little of PDF syntax (ISO 32000-2, 7.2 and 7.3) that a scan needs: names, strings, references, dictionaries.

It works on the text of objects as it stands in the file or in an object stream, without a parser of the whole: a
damaged file, a hidden revision and a file with two tables of contents are all read alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from msgspec import Struct

from icapscan.limits import KIB

STRING_MAX = 1024 * KIB
"""Bytes of a string: a script in a dictionary is some KiB."""
STEPS_MAX = 10_000
"""Parentheses and backslashes in one string that are followed to find its end."""
NAME_MAX = 4 * KIB
NAMES_MAX = 8
"""File names of one file specification, and bytes of each."""
DICTIONARY_MAX = 16 * KIB
"""Bytes before ``stream`` among which its dictionary is looked for."""
_ESCAPED = re.compile(rb"#([0-9A-Fa-f]{2})")
_COMMENT = re.compile(rb"%[^\r\n]{0,1000}[\r\n]|(%[^\r\n]{1,1000})")
"""Also what is too long for one, so that it is not looked at again from the next percent sign on."""
_STRING_STEP = re.compile(rb"[()\\]")
_STRING_ESCAPE = re.compile(rb"\\(?:([0-7]{1,3})|(\r\n|[\r\n])|(.))", re.S)
_LETTERS = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"f": b"\f"}
_OBJECT = re.compile(rb"(\d{1,10})[\s\0]{1,20}\d{1,5}[\s\0]{1,20}obj\b")
_FILTER = re.compile(rb"/(?:Filter|F)[\s\0]*(\[[^\]]{0,500}\]|/[^\s/<>\[\]()%]{1,40})")
_NAME = re.compile(rb"/([^\s\0/<>\[\](){}%]{1,60})")
_LENGTH = re.compile(rb"/Length[\s\0]+(\d{1,12})(?![\s\0]+\d+[\s\0]+R)")
_REFERENCE = rb"(\d{1,10})[\s\0]+\d{1,5}[\s\0]+R"
_SCRIPT = re.compile(rb"/JS[\s\0]*(?:(\()|<(?!<)([0-9A-Fa-f\s]*)>?|" + _REFERENCE + rb")")
_FILES = re.compile(rb"/(?:F|UF|DOS|Unix|Mac)[\s\0]+" + _REFERENCE)
_FILE_NAME = re.compile(rb"/(?:UF|F|Desc)[\s\0]*(?:(\()|<(?!<)([0-9A-Fa-f\s]*)>)")
_EMBEDDED = re.compile(rb"/EF(?![A-Za-z])")
_PREDICTOR = re.compile(rb"/Predictor[\s\0]+([2-9]|1\d)")
ACTING = re.compile(
    rb"exportDataObject|nLaunch|collectEmailInfo|Collab\s*\.\s*getIcon|newPlayer"
    rb"|importDataObject|openDoc|newDoc|saveAs|SOAP\s*\.|Net\s*\.\s*HTTP|unescape\s*\(\s*[\"'](?:%u|\\x)|printf\s*\(\s*[\"']%\d{4}"
    rb"|eval\s*\(\s*(?:unescape|String|this|app|event)",
    re.I,
)
"""What a script says that exports or loads files, opens addresses, sends, or hides what it is."""
_ABBREVIATED = {
    b"Fl": b"FlateDecode", b"AHx": b"ASCIIHexDecode", b"A85": b"ASCII85Decode", b"LZW": b"LZWDecode",
    b"RL": b"RunLengthDecode", b"DCT": b"DCTDecode", b"CCF": b"CCITTFaxDecode",
}  # fmt: skip
_ACTIONS = (
    ("pdf-launch", re.compile(rb"/S[\s\0]*/Launch(?![A-Za-z])")),
    ("pdf-open-action", re.compile(rb"/OpenAction[\s\0]*(?:<<|" + _REFERENCE + rb")")),
    ("pdf-automatic-actions", re.compile(rb"/AA[\s\0]*(?:<<|" + _REFERENCE + rb")")),
    ("pdf-xfa", re.compile(rb"/XFA(?![A-Za-z])")),
    ("pdf-rich-media", re.compile(rb"/(?:RichMedia|Flash|Rendition|Movie|3D)(?![A-Za-z])")),
    ("pdf-remote", re.compile(rb"/S[\s\0]*/(?:SubmitForm|ImportData|GoToR|GoToE)(?![A-Za-z])")),
)


class Head(Struct, frozen=True):
    """What stands before the data of a stream."""

    number: int
    """Of the object, or -1."""
    text: bytes
    """The dictionary, with its names written plainly."""

    @property
    def filters(self) -> tuple[bytes, ...]:
        """Names of its filters in order, written out."""
        found = _FILTER.search(self.text)
        names = _NAME.findall(found[1]) if found is not None else []
        return tuple(_ABBREVIATED.get(name, name) for name in names)

    @property
    def predicted(self) -> bool:
        """What comes out of its filter are differences (7.4.4.4)."""
        return _PREDICTOR.search(self.text) is not None

    @property
    def length(self) -> int:
        """Declared directly, else -1."""
        found = _LENGTH.search(self.text)
        return int(found[1]) if found is not None else -1

    def has(self, *names: bytes) -> bool:
        """Whether one of these names stands in the dictionary."""
        return any(re.search(rb"/" + re.escape(name) + rb"(?![A-Za-z0-9])", self.text) for name in names)


def head(before: bytes) -> Head | None:
    """The dictionary that ends with ``before``, or None where there is none."""
    if not before.rstrip(b" \t\r\n\0\f").endswith(b">>"):
        return None
    found = None
    for one in _OBJECT.finditer(before):
        found = one  # the last one
    text = before[found.end() :] if found is not None else before
    return Head(int(found[1]) if found is not None else -1, plain(text))


def plain(text: bytes) -> bytes:
    """``text`` with the escapes in names undone (7.3.5)."""
    if b"#" in text:
        return _ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), text)
    return text


def without_comments(text: bytes) -> bytes:
    """``text`` with comments replaced by white space (7.2.4). Strings that hold a percent sign suffer."""
    return _COMMENT.sub(rb" \1", text) if b"%" in text else text


def string(text: bytes, at: int) -> bytes:
    """The literal string (7.3.4.2) whose first parenthesis stands before ``at``, at most `STRING_MAX` of it."""
    depth, end, start = 1, min(len(text), at + STRING_MAX), at
    raw = text[start:end]  # where its end is not found: too much, never too little
    for _ in range(STEPS_MAX):
        found = _STRING_STEP.search(text, at, end)
        if found is None:
            break
        at = found.end()
        if found[0] == b"\\":
            at += 1
        elif found[0] == b"(":
            depth += 1
        else:
            depth -= 1
            if not depth:
                raw = text[start : found.start()]
                break
    return _STRING_ESCAPE.sub(_unescaped, raw) if b"\\" in raw else raw


def _unescaped(found: re.Match[bytes]) -> bytes:
    if found[1]:
        return bytes([int(found[1], 8) & 255])
    if found[2]:
        return b""
    return _LETTERS.get(found[3], found[3])


def hexadecimal(raw: bytes) -> bytes:
    """A hexadecimal string (7.3.4.3)."""
    digits = re.sub(rb"[^0-9A-Fa-f]", b"", raw)
    return bytes.fromhex((digits + b"0" * (len(digits) % 2)).decode())


def text_string(raw: bytes) -> str:
    """A text string (7.9.2.2): UTF-16, UTF-8, or nearly Latin-1."""
    if raw.startswith(b"\xfe\xff"):
        return raw[2:].decode("utf-16-be", "replace")
    if raw.startswith(b"\xff\xfe"):
        return raw[2:].decode("utf-16-le", "replace")
    if raw.startswith(b"\xef\xbb\xbf"):
        return raw[3:].decode("utf-8", "replace")
    return raw.decode("latin-1")


def scripts(text: bytes) -> Iterator[bytes | int]:
    """Every script: its text, or the number of the object that has it."""
    for found in _SCRIPT.finditer(text):
        if found[3]:
            yield int(found[3])
        else:
            raw = string(text, found.end()) if found[1] else hexadecimal(found[2])
            wide = raw.startswith((b"\xfe\xff", b"\xff\xfe"))
            yield text_string(raw).encode("utf-8", "replace") if wide else raw


def file_objects(text: bytes) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Numbers of the objects that a file specification points to, and the names that it gives."""
    numbers = [int(found[1]) for found in _FILES.finditer(text)]
    if not numbers:
        return
    names: tuple[str, ...] = ()
    if _EMBEDDED.search(text) is not None:
        raw = [
            string(text[: found.end() + NAME_MAX], found.end()) if found[1] else hexadecimal(found[2][:NAME_MAX])
            for found in islice(_FILE_NAME.finditer(text, 0, min(len(text), 64 * KIB)), NAMES_MAX)
        ]
        names = tuple(dict.fromkeys(text_string(one) for one in raw if one))
    for number in numbers:
        yield number, names


def actions(text: bytes) -> Iterator[str]:
    """Kinds of anomalies that this text of objects is worth."""
    for kind, pattern in _ACTIONS:
        if pattern.search(text) is not None:
            yield kind
