"""TNEF, the winmail.dat of Outlook and Exchange ([MS-OXTNEF]): attachments, and bodies in HTML or compressed RTF.

Checksums are not looked at: a reader that ignores them would be given what we did not see.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator

from msgspec import Struct

from icapscan.findings import Anomaly, Reason
from icapscan.limits import KIB
from icapscan.store import PartStore
from icapscan.unwrap.contract import Bid, Context, Evidence
from icapscan.unwrap.events import AnomalyFound, PartBegin, PartData, PartEnd, PartEvent, PartFailed
from icapscan.unwrap.gate import Stop
from icapscan.unwrap.names import readings
from icapscan.unwrap.tnef_props import Property, properties
from icapscan.unwrap.tnef_rtf import decompressed

MAGIC = b"\x78\x9f\x3e\x22"
_HEADER = 9
_BODY, _TITLE, _DATA, _RENDERING, _PROPERTIES, _MESSAGE_PROPERTIES = (
    0x0002800C, 0x00018010, 0x0006800F, 0x00069002, 0x00069005, 0x00069003,
)  # fmt: skip
"""attBody, attAttachTitle, attAttachData, attAttachRendData, attAttachment, attMsgProps ([MS-OXTNEF] 2.1.3.3)."""
_NAMES = (0x3707, 0x3704, 0x3001)
"""PidTagAttachLongFilename, PidTagAttachFilename, PidTagDisplayName."""
_OBJECT, _RTF, _HTML, _TEXT = 0x3701, 0x1009, 0x1013, 0x1000
_STEP = 256 * KIB
View = bytes | mmap.mmap


class _Span(Struct):
    """Where some data stands in the file."""

    start: int
    end: int


class _Attachment(Struct):
    """What is known of one attachment."""

    names: list[bytes]
    data: list[_Span]


class TnefDecoder:
    """Reads the attributes in order; an attachment is told when the next one begins, since its name may come last."""

    def __init__(self, context: Context) -> None:
        self._gate = context.gate
        self._count = 0

    def read(self, store: PartStore) -> Iterator[PartEvent]:
        """All parts."""
        try:
            yield from self._attributes(store.view())
        except Stop as stop:
            yield PartFailed("", stop.reason, stop.detail)

    def _attributes(self, view: View) -> Iterator[PartEvent]:
        at, end = 6, len(view)
        attachment = _Attachment([], [])
        while at + _HEADER <= end and view[at] in (1, 2):
            self._gate.room()
            kind = int.from_bytes(view[at + 1 : at + 5], "little")
            span = _Span(at + _HEADER, at + _HEADER + int.from_bytes(view[at + 5 : at + 9], "little"))
            if kind == _RENDERING:
                yield from self._tell(view, attachment)
                attachment = _Attachment([], [])
            cut = span.end > end
            span.end = min(span.end, end)
            yield from self._attribute(view, kind, span, attachment)
            at = span.end + 2
            if cut:
                yield from self._tell(view, attachment)
                yield PartFailed("", Reason.MALFORMED, "The file is cut off.")
                return
        yield from self._tell(view, attachment)
        if at < end:
            yield AnomalyFound(Anomaly("tnef-junk-at-end", "", f"{end - at} bytes"))

    def _attribute(self, view: View, kind: int, span: _Span, attachment: _Attachment) -> Iterator[PartEvent]:
        if kind == _TITLE:
            attachment.names.append(view[span.start : min(span.end, span.start + 1024)].rstrip(b"\0"))
        elif kind == _DATA:
            attachment.data.append(span)
        elif kind == _PROPERTIES:
            for prop in properties(view, span.start, span.end):
                if prop.tag in _NAMES:
                    attachment.names.insert(0, prop.text(view))
                elif prop.tag == _OBJECT and prop.end - prop.start > 16:
                    skip = 16 if prop.is_object else 0  # the interface identifier
                    attachment.data.append(_Span(prop.start + skip, prop.end))
        elif kind == _MESSAGE_PROPERTIES:
            for prop in properties(view, span.start, span.end):
                yield from self._body(view, prop)
        elif kind == _BODY and span.end > span.start:
            yield from self._part("body", view, span, "text/plain")

    def _body(self, view: View, prop: Property) -> Iterator[PartEvent]:
        span = _Span(prop.start, prop.end)
        if prop.tag == _HTML:
            yield from self._part("body.html", view, span, "text/html")
        elif prop.tag == _TEXT:
            yield from self._part("body.txt", view, span, "text/plain")
        elif prop.tag == _RTF:
            self._count += 1
            key = f"body.rtf{self._count}"
            yield PartBegin(key, media_type="application/rtf")
            complete = True
            for piece in decompressed(view[span.start : span.end]):
                if piece is None:
                    complete = False
                    break
                self._gate.room()
                if not self._gate.took(len(piece)):
                    self._gate.stop()
                yield PartData(key, piece)
            yield PartEnd(key) if complete else PartFailed(key, Reason.MALFORMED, "The compressed RTF is broken.")

    def _tell(self, view: View, attachment: _Attachment) -> Iterator[PartEvent]:
        names = [name for raw in attachment.names for name in readings(raw)]
        for span in attachment.data:
            yield from self._part("", view, span, None, tuple(dict.fromkeys(names)))
        attachment.data = []

    def _part(
        self, key: str, view: View, span: _Span, media_type: str | None, names: tuple[str, ...] = ()
    ) -> Iterator[PartEvent]:
        self._count += 1
        key = f"{key}{self._count}"
        yield PartBegin(key, names[0] if names else None, media_type, names=names[1:])
        for at in range(span.start, span.end, _STEP):
            self._gate.room()
            piece = view[at : min(span.end, at + _STEP)]
            if not self._gate.took(len(piece)):
                self._gate.stop()
            yield PartData(key, piece)
        yield PartEnd(key)


class TnefFormat:
    """By magic, whatever the label."""

    name = "tnef"
    prefixes = (MAGIC,)

    def bid(self, evidence: Evidence) -> Bid:
        """Four bytes are proof enough."""
        return Bid.YES if evidence.first.startswith(MAGIC) else Bid.NO

    def open(self, context: Context) -> TnefDecoder:
        """A decoder of one file."""
        return TnefDecoder(context)


TNEF = TnefFormat()
