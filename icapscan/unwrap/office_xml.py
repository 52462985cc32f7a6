"""XML of Office and ODF documents: DDE fields and links, macro sheets, what is loaded from elsewhere.

The zip is opened by its own decoder; this one looks at each XML member by its content, whatever it is called, and at
documents that are one XML file. It is a search for the few elements that matter, not an XML parser: nothing is
expanded, and damage does not hide anything from it. It emits anomalies.
"""

from __future__ import annotations

import codecs
import html
import mmap
import re
from collections.abc import Iterator

from icapscan.findings import Anomaly, Reason
from icapscan.limits import KIB, MIB
from icapscan.store import PartStore
from icapscan.unwrap.active_content import is_remote, reported
from icapscan.unwrap.contract import Bid, Context, Evidence
from icapscan.unwrap.events import AnomalyFound, PartEvent, PartFailed
from icapscan.unwrap.gate import Stop
from icapscan.unwrap.members import Members

WIDE_MAX = 64 * MIB
"""XML in UTF-16 that is converted in memory, two bytes at a time where UTF-8 has one; Office writes UTF-8."""
TAG_MAX = 64 * KIB
"""Bytes of one tag that are looked at."""
UNENDED_MAX = 1000
"""Tags that do not end; in XML that is none."""
FIELD_MAX = 2 * KIB
"""Characters of a field's instruction that are put together from its pieces. Word's own bound is 255."""
NOTES_MAX = 50
_BOMS = ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"), (b"<\0", "utf-16-le"), (b"\0<", "utf-16-be"))
_TAGS = re.compile(
    rb"<(?:[\w.\-]+:)?(instrText|fldSimple|fldChar|Relationship|ddeLink|dde-connection-decl|dde-source|dde-connection|"
    rb"macrosheet|event-listener|script|Override|Default|object|object-ole|plugin|applet|frame|Cell)"
    rb"(?=[\s/>])"
)
_REST = re.compile(rb"([^<>\"']*+(?:(?:\"[^\"]*+\"|'[^']*+')[^<>\"']*+)*)>([^<]{0,2048})")
"""The attributes of a tag, and the text behind it."""
_MARKS = (
    b"instrText", b"fldSimple", b"Relationship", b"ddeLink", b":dde-", b"macrosheet", b":event-listener", b":script",
    b"macroSheet", b":object", b":plugin", b":applet", b"xlink:href", b":Formula",
)  # fmt: skip
_ATTRIBUTE = re.compile(rb"([\w.:\-]+)\s*=\s*(?:\"([^\"]*)\"|'([^']*)')")
_DDE = re.compile(r"(?<![A-Za-z0-9])DDE(?:AUTO)?(?![A-Za-z0-9])", re.I)
_QUOTE = re.compile(r"QUOTE((?:\s+\d{1,3})+)", re.I)
_FORMULA = re.compile(r"^=\s*[+\-@=]*\s*'?[A-Za-z][\w. \\/:%-]{0,60}'?\|", re.S)
_NOISE = re.compile(rb"<!--|<!\[CDATA\[|\]\]>|<\?")
_NOISE_ENDS = {b"<!--": b"-->", b"<?": b"?>"}
_RELATIONS = {
    "attachedTemplate": "external-template",
    "oleObject": "external-object",
    "package": "external-object",
    "frame": "external-object",
    "subDocument": "external-object",
    "control": "external-object",
    "vbaProject": "external-object",
    "aFChunk": "external-object",
    "externalLinkPath": "external-link",
    "externalLink": "external-link",
    "xlPathMissing": "external-link",
    "externalLinkLong": "external-link",
}
"""By the last word of a relationship's type. Pictures and hyperlinks in other places are what documents are full of."""
_MACRO_SHEETS = ("xlmacrosheet", "xlintlmacrosheet")


class OfficeXmlFormat:
    """Bids on XML members of a zip, and on XML that Office says is its own."""

    name = "office-xml"

    def bid(self, evidence: Evidence) -> Bid:
        first = evidence.first
        begin = first[:64].lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n\0")[:1]
        if begin != b"<":
            return Bid.NO
        if evidence.declared.within == "zip":
            return Bid.MAYBE
        head = first.replace(b"\0", b"")
        return Bid.MAYBE if b"mso-application" in head or b"schemas.microsoft.com/office" in head else Bid.NO

    def open(self, context: Context) -> OfficeXmlDecoder:
        return OfficeXmlDecoder(context)


class OfficeXmlDecoder:
    """One XML file."""

    __slots__ = ("_context", "_disguised", "_field", "_members", "_told")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._members = Members(context)
        self._field = ""
        """Instruction of the field that is open, as far as it was read."""
        self._disguised = 0
        """Instructions with a comment in them; in honest documents that is none."""
        self._told: set[tuple[str, str]] = set()

    def read(self, store: PartStore) -> Iterator[PartEvent]:
        return reported(self._events(store), self._members)

    def _events(self, store: PartStore) -> Iterator[PartEvent]:
        try:
            data = self._as_bytes(store)
            if any(data.find(mark) >= 0 for mark in _MARKS):
                yield from self._search(data)
        except Stop as stop:
            yield PartFailed("", stop.reason, stop.detail)
        finally:
            store.relax()

    def _as_bytes(self, store: PartStore) -> bytes | mmap.mmap:
        """The text in an encoding that has ASCII in it. Raises `Stop` where that would be too much."""
        data = store.view()
        head = data[:4]
        charset = next((name for bom, name in _BOMS if head.startswith(bom)), "")
        if not charset:
            return data
        if store.size > WIDE_MAX:
            raise Stop(Reason.OVER_LIMIT, "An XML file in UTF-16 is too large to be searched.")
        decoder = codecs.getincrementaldecoder(charset)("replace")
        text = bytearray()
        for piece in store.pieces():
            self._context.gate.room()
            text += decoder.decode(bytes(piece)).encode("utf-8", "replace")
        return bytes(text)

    def _search(self, data: bytes | mmap.mmap) -> Iterator[PartEvent]:
        unended = at = 0
        while (found := _TAGS.search(data, at)) is not None:
            self._context.gate.room()
            at = found.end()
            rest = _REST.match(data, at, at + TAG_MAX)
            if rest is None:
                unended += 1
                if unended > UNENDED_MAX:
                    self._context.gate.stop("tags of an XML file that do not end")
                raw, text, start = data[at : at + 4 * KIB], b"", at
            else:
                raw, text, start = rest[1], rest[2], rest.start(2)
                at = start
            for kind, detail in self._tag(found[1], _attributes(raw), text, data, start):
                said = kind, detail[:200]
                if said not in self._told and len(self._told) < NOTES_MAX:
                    self._told.add(said)
                    yield AnomalyFound(Anomaly(kind, "", detail[:200]))

    def _tag(
        self, name: bytes, given: dict[str, str], text: bytes, data: bytes | mmap.mmap, at: int
    ) -> Iterator[tuple[str, str]]:
        """What one element says: a kind of anomaly and its detail."""
        if name == b"instrText":
            behind = at + len(text)
            if (
                data[behind : behind + 4] in (b"<!--", b"<![C") or data[behind : behind + 2] == b"<?"
            ):  # text in disguise
                self._disguised += 1
                if self._disguised > UNENDED_MAX:
                    self._context.gate.stop("comments in the fields of an XML file")
                text = _plain(data[at : at + TAG_MAX]).partition(b"</")[0]
            yield from self._instruction(_text(text))
        elif name == b"fldSimple":
            self._field = ""
            yield from self._instruction(given.get("instr", ""))
            self._field = ""
        elif name == b"fldChar":
            if given.get("fldCharType") in ("begin", "end"):
                self._field = ""
        elif name in (b"Relationship", b"Override", b"Default"):
            yield from _relation(given)
        elif name == b"ddeLink":
            yield "dde", f"{given.get('ddeService', '')}|{given.get('ddeTopic', '')}"
        elif name in (b"dde-connection-decl", b"dde-source", b"dde-connection"):
            yield "dde", f"{given.get('dde-application', '')}|{given.get('dde-topic', '')}"
        elif name == b"macrosheet":
            yield "xlm-macro", "a macro sheet"
        elif name in (b"event-listener", b"script"):
            yield "odf-macro", given.get("href", "") or given.get("language", "")
        elif name in (b"object", b"object-ole", b"plugin", b"applet", b"frame"):
            target = given.get("href", "")
            if "://" in target or target.startswith("\\\\"):
                yield "external-object", target
        elif name == b"Cell" and _FORMULA.match(given.get("Formula", "")):
            yield "dde", given["Formula"]

    def _instruction(self, text: str) -> Iterator[tuple[str, str]]:
        """A piece of a field's instruction: Word joins the pieces, and evaluates QUOTE fields in them."""
        self._field = (self._field + text)[-FIELD_MAX:]
        plain = _QUOTE.sub(lambda found: "".join(chr(int(code) % 256) for code in found[1].split()), self._field)
        found = _DDE.search(plain)
        if found is not None:
            yield "dde", plain[found.start() :].strip()[:200]
            self._field = ""


def _plain(text: bytes) -> bytes:
    """``text`` without comments, processing instructions and the marks of CDATA, as far as a field may need it.

    In one go, however many there are, and however many do not end.
    """
    out, at, size = [], 0, 0
    endless: set[bytes] = set()
    for mark in _NOISE.finditer(text):
        if mark.start() < at or mark[0] in endless:
            if mark.start() - at + size > 2 * FIELD_MAX:
                break
            continue
        end = _NOISE_ENDS.get(mark[0], b"")
        stop = text.find(end, mark.end())
        if stop < 0:
            endless.add(mark[0])
            continue
        out.append(text[at : mark.start()])
        size += len(out[-1])
        at = stop + len(end)
    out.append(text[at:])
    return b"".join(out)


def _relation(given: dict[str, str]) -> Iterator[tuple[str, str]]:
    """A relationship (ECMA-376 part 2, 9.3), or a content type."""
    said = given.get("Type", "").rpartition("/")[2]
    kind = _RELATIONS.get(said)
    target = given.get("Target", "")
    if kind is not None and given.get("TargetMode", "").strip().lower() == "external":
        yield kind, target
        if kind == "external-template" and is_remote(target):
            yield "remote-template", target
    if target.lower().startswith(("mhtml:", "script:", "ms-msdt:", "search-ms:")):
        yield "external-moniker", target
    if said.lower() in _MACRO_SHEETS or "macrosheet" in given.get("ContentType", "").lower():
        yield "xlm-macro", target or given.get("PartName", "")


def _attributes(raw: bytes) -> dict[str, str]:
    """Attributes by their local names."""
    found = {}
    for name, double, single in _ATTRIBUTE.findall(raw):
        found[name.rpartition(b":")[2].decode("latin-1")] = _text(double or single)
    return found


def _text(raw: bytes) -> str:
    return html.unescape(raw.decode("utf-8", "replace"))
