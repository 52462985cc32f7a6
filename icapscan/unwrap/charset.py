"""Text in a charset that hides ASCII, as UTF-8: UTF-16, UTF-32, UTF-7, EBCDIC. Another reading of the part."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

from icapscan.findings import Anomaly
from icapscan.unwrap.contract import FIRST, Bid, Context, Evidence
from icapscan.unwrap.events import AnomalyFound, PartBegin, PartData, PartEnd, PartEvent, PartFailed
from icapscan.unwrap.gate import STEP, Stop

KEY = "text"
_WIDE_OR_WIDER = codecs.BOM_UTF32_LE
"""Also the mark of UTF-16 and a NUL: browsers know no UTF-32 (Encoding Standard 6.1), others do."""
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks; the longer ones first, since one begins with another."""
_ALL_MARKS = tuple(mark for mark, _ in _MARKS)
_HIDING = re.compile(r"utf-?(?:7|16|32)|ucs-?[24]|ebcdic|(?:cp|ibm)-?(?:037|273|500|1026|1140)")
_ALIASES = {
    "unicode-1-1-utf-7": "utf-7", "ucs-2": "utf-16", "ucs2": "utf-16", "iso-10646-ucs-2": "utf-16", "ucs-4": "utf-32",
    "ucs4": "utf-32", "iso-10646-ucs-4": "utf-32", "utf16": "utf-16", "utf32": "utf-32", "utf7": "utf-7",
}  # fmt: skip
_META = re.compile(rb"charset\s{0,9}=\s{0,9}[\"']?\s{0,9}([A-Za-z0-9_-]{2,40})", re.I)
_UTF7 = re.compile(rb"\+A[A-Za-z0-9+/]{2,}-")
"""A character of ASCII or Latin-1 shifted into base64, as nobody does who has nothing to hide."""
_WIDE_LE = re.compile(rb"(?:[\t\r\n -~]\0){8}")
_WIDE_BE = re.compile(rb"(?:\0[\t\r\n -~]){8}")


def charset_of(evidence: Evidence) -> str:
    """The codec to convert the part with; empty where its bytes show ASCII as it is."""
    first, declared = evidence.first, evidence.declared
    if first.startswith(_ALL_MARKS):
        return next(name for mark, name in _MARKS if first.startswith(mark))
    if b"\0" in first[:2]:
        if _WIDE_LE.match(first) is not None:
            return "utf-16-le"
        if _WIDE_BE.match(first) is not None:
            return "utf-16-be"
    said = [declared.charset]
    if declared.media_type in ("text/html", "application/xhtml+xml", "image/svg+xml"):
        said += [found.decode("ascii") for found in _META.findall(first[:2048])]
    for name in said:
        name = name.strip().lower()
        if name and _HIDING.search(name) is not None:
            known = _known(_ALIASES.get(name, name))
            if known:
                return _with_order(known, first)
    if b"+A" in first and _UTF7.search(first) is not None:
        return "utf-7"
    return ""


def _with_order(name: str, first: bytes) -> str:
    """UTF-16 or UTF-32 without a byte order mark: where the zeros of ASCII stand tells the order."""
    if name in ("utf-16", "utf-32"):
        return f"{name}-be" if first[0::2].count(0) > first[1::2].count(0) else f"{name}-le"
    return name


def _known(name: str) -> str:
    if name.startswith("ebcdic"):
        name = "cp500" if "int" in name else "cp037"
    try:
        return codecs.lookup(name.replace("ibm-", "ibm").replace("cp-", "cp")).name
    except LookupError:
        return ""


class _Reading:
    """The text in one charset, as one part."""

    __slots__ = ("begun", "codec", "key", "name", "number")

    def __init__(self, key: str, name: str, number: int) -> None:
        self.key = key
        self.name = name
        self.number = number
        self.codec = codecs.getincrementaldecoder(name)("replace")
        self.begun = False


class CharsetDecoder:
    """Gives the whole text as one part in UTF-8; as two where its mark may be that of two charsets."""

    __slots__ = ("_context", "_ended", "_first", "_readings")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._readings: list[_Reading] | None = None
        self._first = b""
        """Bytes that came before there were enough to tell the charset."""
        self._ended = False

    def feed(self, data: bytes | memoryview) -> Iterator[PartEvent]:
        """More text."""
        if self._ended:
            return
        data = self._first + bytes(data)
        if self._readings is None:
            if len(data) < FIRST:
                self._first = data
                return
            self._choose(data)
        yield from self._decode(data)

    def _choose(self, data: bytes) -> None:
        self._first, self._readings = b"", []
        name = charset_of(Evidence(data[:FIRST], False, self._context.declared))
        if name:
            self._readings.append(_Reading(KEY, name, 1))
        if data.startswith(_WIDE_OR_WIDER):
            self._readings.append(_Reading(f"{KEY}-16", "utf-16", 2))

    def _decode(self, data: bytes) -> Iterator[PartEvent]:
        for at in range(0, len(data), STEP // 4):
            yield from self._guarded(data[at : at + STEP // 4], False)

    def finish(self) -> Iterator[PartEvent]:
        """The text is complete."""
        if self._readings is None:
            data = self._first
            self._choose(data)
            yield from self._decode(data)
        yield from self._guarded(b"", True)
        for reading in self._readings or ():
            if reading.begun and not self._ended:
                yield PartEnd(reading.key)

    def _guarded(self, data: bytes, final: bool) -> Iterator[PartEvent]:
        try:
            for reading in self._readings or ():
                if not self._ended:
                    yield from self._text(reading, data, final)
        except Stop as stop:
            self._ended = True
            yield PartFailed("", stop.reason, stop.detail)

    def _text(self, reading: _Reading, data: bytes, final: bool) -> Iterator[PartEvent]:
        gate = self._context.gate
        gate.room()
        text = reading.codec.decode(data, final).encode("utf-8", "replace")
        if not text:
            return
        if not reading.begun:
            reading.begun = True
            yield AnomalyFound(Anomaly("charset", "", reading.name))
            declared = self._context.declared
            names, media_type = declared.names, declared.media_type or "text/plain"
            yield PartBegin(reading.key, names[0] if names else None, media_type, reading.number, names[1:])
        if not gate.took(len(text)):
            gate.stop()
        yield PartData(reading.key, text)


class CharsetFormat:
    """Text in UTF-16, UTF-32, UTF-7 or EBCDIC."""

    name = "charset"

    def bid(self, evidence: Evidence) -> Bid:
        """By byte order mark, by zeros between letters, by what is declared, by shifted ASCII."""
        return Bid.MAYBE if evidence.declared.within != self.name and charset_of(evidence) else Bid.NO

    def open(self, context: Context) -> CharsetDecoder:
        """A decoder of one text."""
        return CharsetDecoder(context)


CHARSET = CharsetFormat()
